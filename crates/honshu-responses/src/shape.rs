//! What is done to the events of a run on their way to the encoder: reasoning is sealed for callers who carry it
//! themselves, and the summary of a compaction becomes one sealed item.

use std::sync::Arc;

use honshu_domain::{Error, Item, PartKind, PublicId, RawJson, Reasoning, RunEvent, Scope};
use honshu_wire::responses::UpstreamDecoder;

use crate::Shared;
use crate::seal::{Purpose, Seal};

/// Changes events.
pub(crate) enum Shape {
    /// Nothing is changed.
    Plain,
    /// Whole reasoning items get their sealed form.
    SealsReasoning,
    /// The text becomes one `compaction` item.
    Compacts {
        text: String,
        decoder: UpstreamDecoder,
    },
    /// A compaction comes before the answer, whose items move up by one.
    Compacted {
        /// Until it was shown.
        item: Option<Item>,
        decoder: UpstreamDecoder,
        /// What is done to the answer itself.
        inner: Box<Shape>,
    },
}

/// What a model reads where a sealed summary stands.
pub(crate) const SUMMARY_HEAD: &str = "Summary of the conversation before this point:\n";

/// What asks a model for a summary.
pub(crate) const SUMMARY_PROMPT: &str = "Summarise the conversation above so that it can be continued from your \
    summary alone. Keep what was asked for, what was decided, what was done and with which result, names of files \
    and values that matter, and what is left to do. Write the summary and nothing else.";

impl Shape {
    pub(crate) fn compacts() -> Self {
        Self::Compacts {
            text: String::new(),
            decoder: UpstreamDecoder::new(),
        }
    }

    /// `item` before the answer, which `inner` changes.
    pub(crate) fn compacted(item: Item, inner: Self) -> Self {
        Self::Compacted {
            item: Some(item),
            decoder: UpstreamDecoder::new(),
            inner: Box::new(inner),
        }
    }

    /// The text of a summary so far.
    pub(crate) fn summary(&self) -> &str {
        match self {
            Self::Compacts { text, .. } => text,
            _ => "",
        }
    }

    /// The events to encode in place of `event`.
    pub(crate) fn apply(
        &mut self,
        event: RunEvent,
        shared: &Shared,
        scope: &Scope,
    ) -> Result<Vec<RunEvent>, Error> {
        match self {
            Self::Plain => Ok(vec![event]),
            Self::SealsReasoning => Ok(vec![match event {
                RunEvent::ItemDone {
                    output_index,
                    item: Item::Reasoning(reasoning),
                } => RunEvent::ItemDone {
                    output_index,
                    item: Item::Reasoning(sealed_reasoning(reasoning, shared, scope)?),
                },
                other => other,
            }]),
            Self::Compacts { text, decoder } => {
                let mut shown = Vec::new();
                for event in decoded(decoder, event)? {
                    match event {
                        RunEvent::Delta {
                            kind: PartKind::Text,
                            text: more,
                            ..
                        } => text.push_str(&more),
                        RunEvent::Finished(_) => {
                            shown.extend(whole(compaction(text, shared, scope)?));
                        }
                        _ => {}
                    }
                }
                Ok(shown)
            }
            Self::Compacted {
                item,
                decoder,
                inner,
            } => {
                let mut shown: Vec<RunEvent> = item.take().into_iter().flat_map(whole).collect();
                for mut event in decoded(decoder, event)? {
                    move_up(&mut event);
                    shown.extend(inner.apply(event, shared, scope)?);
                }
                Ok(shown)
            }
        }
    }
}

/// The events that an event stands for: an upstream's frame may hold several.
fn decoded(decoder: &mut UpstreamDecoder, event: RunEvent) -> Result<Vec<RunEvent>, Error> {
    let mut events = Vec::new();
    match event {
        RunEvent::Native(frame) if frame.whole => decoder.whole(&frame.json, &mut events)?,
        RunEvent::Native(frame) => decoder.frame(&frame.json, &mut events)?,
        event => events.push(event),
    }
    Ok(events)
}

/// The first item, from its beginning to its end.
fn whole(item: Item) -> [RunEvent; 2] {
    let started = RunEvent::ItemStarted {
        output_index: 0,
        choice: 0,
        item: item.clone(),
    };
    let done = RunEvent::ItemDone {
        output_index: 0,
        item,
    };
    [started, done]
}

fn move_up(event: &mut RunEvent) {
    match event {
        RunEvent::ItemStarted { output_index, .. }
        | RunEvent::PartStarted { output_index, .. }
        | RunEvent::Delta { output_index, .. }
        | RunEvent::ArgumentsDelta { output_index, .. }
        | RunEvent::PartDone { output_index, .. }
        | RunEvent::ItemDone { output_index, .. } => *output_index += 1,
        RunEvent::Started { .. }
        | RunEvent::ChoiceFinished { .. }
        | RunEvent::Finished(_)
        | RunEvent::Native(_) => {}
    }
}

fn sealed_reasoning(
    mut reasoning: Reasoning,
    shared: &Shared,
    scope: &Scope,
) -> Result<Reasoning, Error> {
    let thoughts = if reasoning.content.is_empty() {
        &reasoning.summary
    } else {
        &reasoning.content
    };
    if reasoning.encrypted_content.is_none() && !thoughts.is_empty() {
        let text = serde_json::to_string(thoughts).map_err(Error::internal)?;
        let sealed = shared
            .seal
            .seal(Purpose::Reasoning, scope, &text, &*shared.entropy)?;
        reasoning.encrypted_content = Some(sealed);
    }
    Ok(reasoning)
}

/// A `compaction` item that holds a summary.
pub(crate) fn compaction(text: &str, shared: &Shared, scope: &Scope) -> Result<Item, Error> {
    let sealed = shared
        .seal
        .seal(Purpose::Compaction, scope, text.trim(), &*shared.entropy)?;
    let id = PublicId::generate("cmp_", &*shared.entropy);
    let json = serde_json::json!({
        "id": id.as_str(), "type": "compaction", "encrypted_content": sealed,
    });
    Ok(Item::Other {
        kind: Arc::from("compaction"),
        raw: RawJson::from(&json),
    })
}

/// Opens the sealed items among `items`. `path` names the field of the one at a place. True when there were some.
pub(crate) fn open_sealed(
    seal: &Seal,
    scope: &Scope,
    items: &mut [RawJson],
    path: impl Fn(usize) -> String,
) -> Result<bool, Error> {
    let mut any = false;
    for (index, item) in items.iter_mut().enumerate() {
        if !item.get().contains("\"encrypted_content\"") {
            continue;
        }
        let Ok(value) = item.to::<serde_json::Value>() else {
            continue;
        };
        let sealed = value["encrypted_content"].as_str().unwrap_or_default();
        if !Seal::is_ours(sealed) {
            continue;
        }
        let altered = || {
            Error::invalid_at(
                path(index),
                "cannot be read: it was made elsewhere or altered",
            )
        };
        let replaced = match value["type"].as_str() {
            Some("compaction") => {
                let text = seal
                    .open(Purpose::Compaction, scope, sealed)
                    .ok_or_else(altered)?;
                serde_json::json!({
                    "type": "message", "role": "user",
                    "content": [{"type": "input_text", "text": format!("{SUMMARY_HEAD}{text}")}],
                })
            }
            Some("reasoning") => {
                let text = seal
                    .open(Purpose::Reasoning, scope, sealed)
                    .ok_or_else(altered)?;
                let parts: Vec<String> = serde_json::from_str(&text).map_err(|_| altered())?;
                let parts: Vec<_> = parts
                    .iter()
                    .map(|text| serde_json::json!({"type": "reasoning_text", "text": text}))
                    .collect();
                let mut value = value.clone();
                if let Some(members) = value.as_object_mut() {
                    members.remove("encrypted_content");
                    members.insert("content".to_owned(), parts.into());
                }
                value
            }
            _ => continue,
        };
        *item = RawJson::from(&replaced);
        any = true;
    }
    Ok(any)
}

/// Everything before the last summary is in the summary, but for what the application says. Gives the places that the
/// rest had, or `None` where there is no summary.
pub(crate) fn after_last_compaction<T>(
    items: &mut Vec<T>,
    json: impl Fn(&T) -> &RawJson,
) -> Option<Vec<usize>> {
    let is_compaction = |item: &T| {
        says(json(item), "\"compaction\"", |value| {
            value["type"] == "compaction"
        })
    };
    let last = items.iter().rposition(is_compaction)?;
    let mut places = Vec::new();
    let mut place = 0;
    items.retain(|item| {
        let stays = place >= last || is_of_the_application(json(item));
        if stays {
            places.push(place);
        }
        place += 1;
        stays
    });
    Some(places)
}

/// Whether an item is what the application tells the model, whatever becomes of the conversation.
pub(crate) fn is_of_the_application(item: &RawJson) -> bool {
    says(item, "\"role\"", |value| {
        value["role"] == "system" || value["role"] == "developer"
    })
}

/// Most items are passed over by a word that they do not have, and are not read.
fn says(item: &RawJson, word: &str, is: fn(&serde_json::Value) -> bool) -> bool {
    item.get().contains(word) && item.to::<serde_json::Value>().is_ok_and(|value| is(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_application_says_outlives_a_summary() {
        let mut items: Vec<RawJson> = [
            r#"{"role":"developer","content":"d"}"#,
            r#"{"role":"user","content":"compaction"}"#,
            r#"{"type":"message","role":"system","content":"s"}"#,
            r#"{"type":"compaction","encrypted_content":"x"}"#,
            r#"{"role":"user","content":"new"}"#,
        ]
        .into_iter()
        .map(|text| RawJson::parse(text).unwrap())
        .collect();
        let places = after_last_compaction(&mut items, |item| item);
        assert_eq!(places.unwrap(), [0, 2, 3, 4]);
        assert_eq!(items.len(), 4);
        items.remove(2);
        assert!(after_last_compaction(&mut items, |item| item).is_none());
    }
}
