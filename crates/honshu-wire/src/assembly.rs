//! Puts the events of a run together into items, for encoders that must say the whole at the end and for
//! collectors. Forgiving: parts and items that were never announced come into being when something is added.

use honshu_domain::{Item, Message, Part, PartKind, Reasoning, Role, RunEvent, TokenLogprob};

/// An output item while it grows.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) output_index: u32,
    pub(crate) choice: u32,
    pub(crate) item: Item,
    pub(crate) done: bool,
}

/// All output items so far, by output index.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    pub(crate) slots: Vec<Slot>,
}

impl Assembly {
    /// The slot of an item; the newest are looked at first.
    pub(crate) fn find(&mut self, output_index: u32) -> Option<&mut Slot> {
        self.slots
            .iter_mut()
            .rev()
            .find(|slot| slot.output_index == output_index)
    }

    /// Begins an item unless it is there already.
    pub(crate) fn start(&mut self, output_index: u32, choice: u32, item: Item) -> bool {
        if self.find(output_index).is_some() {
            return false;
        }
        let at = self
            .slots
            .partition_point(|slot| slot.output_index < output_index);
        self.slots.insert(
            at,
            Slot {
                output_index,
                choice,
                item,
                done: false,
            },
        );
        true
    }

    /// Applies an event.
    pub(crate) fn apply(&mut self, event: &RunEvent) {
        match event {
            RunEvent::ItemStarted {
                output_index,
                choice,
                item,
            } => {
                self.start(*output_index, *choice, item.clone());
            }
            RunEvent::PartStarted {
                output_index,
                part_index,
                kind,
            } => {
                self.start(*output_index, 0, empty(*kind));
                if let Some(slot) = self.find(*output_index) {
                    part(&mut slot.item, *part_index, *kind);
                }
            }
            RunEvent::Delta {
                output_index,
                part_index,
                kind,
                text,
                logprobs,
            } => {
                self.start(*output_index, 0, empty(*kind));
                if let Some(slot) = self.find(*output_index) {
                    append(&mut slot.item, *part_index, *kind, text, logprobs);
                }
            }
            RunEvent::ArgumentsDelta {
                output_index,
                delta,
            } => {
                let slot = self.find(*output_index);
                if let Some(text) = slot.and_then(|slot| slot.item.call_text_mut()) {
                    text.push_str(delta);
                }
            }
            RunEvent::ItemDone { output_index, item } => {
                self.start(*output_index, 0, item.clone());
                if let Some(slot) = self.find(*output_index) {
                    slot.item = item.clone();
                    slot.done = true;
                }
            }
            RunEvent::Started { .. }
            | RunEvent::PartDone { .. }
            | RunEvent::ChoiceFinished { .. }
            | RunEvent::Native(_)
            | RunEvent::Finished(_) => {}
        }
    }
}

/// An item that can hold a part of `kind`.
pub(crate) fn empty(kind: PartKind) -> Item {
    match kind {
        PartKind::Text | PartKind::Refusal => Item::Message(Message {
            id: None,
            role: Role::Assistant,
            content: Vec::new(),
            phase: None,
            name: None,
        }),
        PartKind::ReasoningText | PartKind::ReasoningSummary => {
            Item::Reasoning(Reasoning::default())
        }
    }
}

/// Parts of one item are bounded: an index far outside is a backend's mistake and is taken as the next part.
const PARTS_MAX: usize = 4_096;

fn part(item: &mut Item, index: u32, kind: PartKind) {
    let wanted = (index as usize).saturating_add(1).min(PARTS_MAX);
    match (item, kind) {
        (Item::Message(message), PartKind::Text | PartKind::Refusal) => {
            while message.content.len() < wanted {
                message.content.push(match kind {
                    PartKind::Refusal => Part::Refusal {
                        refusal: String::new(),
                    },
                    _ => Part::text(""),
                });
            }
        }
        (Item::Reasoning(reasoning), PartKind::ReasoningText) => {
            reasoning
                .content
                .resize(wanted.max(reasoning.content.len()), String::new());
        }
        (Item::Reasoning(reasoning), PartKind::ReasoningSummary) => {
            reasoning
                .summary
                .resize(wanted.max(reasoning.summary.len()), String::new());
        }
        _ => {}
    }
}

fn append(item: &mut Item, index: u32, kind: PartKind, more: &str, more_logprobs: &[TokenLogprob]) {
    part(item, index, kind);
    let index = (index as usize).min(PARTS_MAX - 1);
    match (item, kind) {
        (Item::Message(message), PartKind::Text | PartKind::Refusal) => {
            match message.content.get_mut(index) {
                Some(Part::Text { text, logprobs, .. }) => {
                    text.push_str(more);
                    logprobs.extend_from_slice(more_logprobs);
                }
                Some(Part::Refusal { refusal }) => refusal.push_str(more),
                _ => {}
            }
        }
        (Item::Reasoning(reasoning), PartKind::ReasoningText) => {
            if let Some(text) = reasoning.content.get_mut(index) {
                text.push_str(more);
            }
        }
        (Item::Reasoning(reasoning), PartKind::ReasoningSummary) => {
            if let Some(text) = reasoning.summary.get_mut(index) {
                text.push_str(more);
            }
        }
        _ => {}
    }
}

/// The text of a part, and whether there is such a part.
pub(crate) fn part_text(item: &Item, index: u32, kind: PartKind) -> Option<&str> {
    let index = index as usize;
    match (item, kind) {
        (Item::Message(message), _) => match message.content.get(index)? {
            Part::Text { text, .. } => Some(text),
            Part::Refusal { refusal } => Some(refusal),
            _ => None,
        },
        (Item::Reasoning(reasoning), PartKind::ReasoningText) => {
            reasoning.content.get(index).map(String::as_str)
        }
        (Item::Reasoning(reasoning), PartKind::ReasoningSummary) => {
            reasoning.summary.get(index).map(String::as_str)
        }
        _ => None,
    }
}

/// The kinds and places of an item's parts that are streamed as text.
pub(crate) fn parts(item: &Item) -> Vec<(PartKind, u32)> {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    match item {
        Item::Message(message) => message
            .content
            .iter()
            .enumerate()
            .filter_map(|(index, part)| match part {
                Part::Text { .. } => Some((PartKind::Text, count(index))),
                Part::Refusal { .. } => Some((PartKind::Refusal, count(index))),
                _ => None,
            })
            .collect(),
        Item::Reasoning(reasoning) => (0..count(reasoning.summary.len()))
            .map(|index| (PartKind::ReasoningSummary, index))
            .chain(
                (0..count(reasoning.content.len())).map(|index| (PartKind::ReasoningText, index)),
            )
            .collect(),
        _ => Vec::new(),
    }
}

/// The events that a whole item would have come as.
pub(crate) fn replay(item: Item, output_index: u32, choice: u32, out: &mut Vec<RunEvent>) {
    let mut bare = item.clone();
    match &mut bare {
        Item::Message(message) => message.content.clear(),
        Item::Reasoning(reasoning) => {
            reasoning.content.clear();
            reasoning.summary.clear();
        }
        call => {
            if let Some(text) = call.call_text_mut() {
                text.clear();
            }
        }
    }
    out.push(RunEvent::ItemStarted {
        output_index,
        choice,
        item: bare,
    });
    for (kind, part_index) in parts(&item) {
        out.push(RunEvent::PartStarted {
            output_index,
            part_index,
            kind,
        });
        let logprobs = match &item {
            Item::Message(message) => match message.content.get(part_index as usize) {
                Some(Part::Text { logprobs, .. }) => logprobs.clone(),
                _ => Vec::new(),
            },
            _ => Vec::new(),
        };
        if let Some(text) = part_text(&item, part_index, kind).filter(|text| !text.is_empty()) {
            out.push(RunEvent::Delta {
                output_index,
                part_index,
                kind,
                text: text.to_owned(),
                logprobs,
            });
        }
        out.push(RunEvent::PartDone {
            output_index,
            part_index,
            kind,
        });
    }
    if let Some(text) = item.call_text().filter(|text| !text.is_empty()) {
        out.push(RunEvent::ArgumentsDelta {
            output_index,
            delta: text.to_owned(),
        });
    }
    out.push(RunEvent::ItemDone { output_index, item });
}
