//! From a turn as it was asked to a request that a backend can serve: what it continues is read, what stands for
//! something stored is replaced by it.

use std::collections::HashMap;
use std::sync::Arc;

use honshu_domain::{
    Anchor, Error, ErrorKind, History, InferenceRequest, RawJson, Scope, StoredItem,
};
use honshu_gateway::Call;
use honshu_wire::responses::{Turn, TurnFacts, expand, own_items, summary_request};

use crate::live::{Held, Locks};
use crate::local::Local;
use crate::shape::{
    SUMMARY_PROMPT, Shape, after_last_compaction, is_of_the_application, open_sealed,
};
use crate::{Asked, Shared, files, not_found};

/// A turn that can run.
pub(crate) struct Prepared {
    pub(crate) turn: Turn,
    /// What a backend sees.
    pub(crate) request: Arc<InferenceRequest>,
    /// Its own input, as it is kept.
    pub(crate) own: Vec<StoredItem>,
    /// What came before it.
    pub(crate) before: Vec<RawJson>,
    pub(crate) after: Option<Anchor>,
    /// What came before is kept nowhere else and stands at the beginning of `own`.
    pub(crate) is_before_in_own: bool,
    /// What is done to the events of the run.
    pub(crate) shape: Shape,
    /// The conversation, held until the turn has ended.
    pub(crate) held: Option<Held>,
}

impl Prepared {
    pub(crate) fn facts(&self) -> TurnFacts {
        facts(&self.turn)
    }
}

pub(crate) fn facts(turn: &Turn) -> TurnFacts {
    TurnFacts {
        store: turn.store,
        background: turn.background,
        conversation: turn.conversation.as_deref().map(Into::into),
    }
}

/// Prepares a turn and takes its conversation.
pub(crate) async fn prepare(
    shared: &Arc<Shared>,
    asked: &Asked,
    local: Option<&Local>,
    compacts: bool,
) -> Result<Prepared, Error> {
    let mut turn = Turn::of(&asked.request)?;
    if compacts {
        // Nothing of it is kept.
        (turn.compacts, turn.store, turn.background) = (true, false, false);
    }
    let held = match &turn.conversation {
        Some(id) => Some(Locks::take(shared, &asked.scope, id)?),
        None => None,
    };
    let prepared = prepare_held(
        shared,
        &asked.call,
        &asked.scope,
        &asked.request,
        turn,
        local,
    );
    let mut prepared = prepared.await?;
    prepared.held = held;
    Ok(prepared)
}

/// [`prepare`] for a turn whose conversation, if it has one, is held already.
pub(crate) async fn prepare_held(
    shared: &Arc<Shared>,
    call: &Call,
    scope: &Scope,
    request: &Arc<InferenceRequest>,
    mut turn: Turn,
    local: Option<&Local>,
) -> Result<Prepared, Error> {
    let (mut history, at) = history(shared, scope, &turn, local).await?;
    if let Some(history) = &mut history {
        after_last_compaction(&mut history.items, |item| &item.json);
    }
    let references = turn.references();
    let has_references = !references.is_empty();
    if has_references {
        let known = history.as_ref().map_or(&[][..], |history| &history.items);
        replace_references(shared, scope, &mut turn.input, references, known).await?;
    }
    let mut own = if turn.store || local.is_some() {
        own_items(&turn.input, &*shared.entropy)
    } else {
        Vec::new()
    };
    let before: Vec<RawJson> = history
        .as_ref()
        .map(|history| history.items.iter().map(|item| item.json.clone()).collect())
        .unwrap_or_default();
    let is_kept_nowhere = turn.previous_response_id.is_some()
        && history
            .as_ref()
            .is_some_and(|history| history.anchor.is_none());
    let is_before_in_own = turn.store && is_kept_nowhere;
    if is_before_in_own {
        // What only its connection remembers becomes part of its input, so that its chain is whole without it.
        own.splice(0..0, own_items(&before, &*shared.entropy));
    }
    let mut seen_before = before.clone();
    let mut seen_input = turn.input.clone();
    let mut is_replaced =
        files::inline(shared, scope, call, &mut seen_input, files::Of::Input).await?;
    let of_history = files::Of::History(at);
    is_replaced |= files::inline(shared, scope, call, &mut seen_before, of_history).await?;
    // Whoever sends the whole conversation each time sends what was summed up, too.
    let places = after_last_compaction(&mut seen_input, |item| item);
    if places.is_some() {
        seen_before.retain(is_of_the_application);
        is_replaced = true;
    }
    let input_path = |index: usize| {
        let place = places.as_ref().and_then(|places| places.get(index));
        format!("input[{}].encrypted_content", place.unwrap_or(&index))
    };
    is_replaced |= open_sealed(&shared.seal, scope, &mut seen_input, input_path)?;
    is_replaced |= open_sealed(&shared.seal, scope, &mut seen_before, |_| at.to_owned())?;
    let touches_state = turn.store
        || turn.compacts
        || local.is_some()
        || turn.background
        || is_replaced
        || history.is_some()
        || has_references;
    let request = if touches_state {
        Arc::new(expand(request, &seen_before, at, &seen_input)?)
    } else {
        Arc::clone(request)
    };
    let (request, shape) = shaped(request, &turn)?;
    Ok(Prepared {
        is_before_in_own,
        shape,
        turn,
        request,
        own,
        before,
        after: history.and_then(|history| history.anchor),
        held: None,
    })
}

fn shaped(
    request: Arc<InferenceRequest>,
    turn: &Turn,
) -> Result<(Arc<InferenceRequest>, Shape), Error> {
    if turn.compacts {
        if request.input.is_empty() {
            return Err(Error::invalid_at("input", "there is nothing to compact"));
        }
        let asks = summary_request(&request, SUMMARY_PROMPT)?;
        return Ok((Arc::new(asks), Shape::compacts()));
    }
    let Some(path) = &turn.seals_reasoning else {
        return Ok((request, Shape::Plain));
    };
    let mut request = request;
    Arc::make_mut(&mut request)
        .hints
        .retain(|hint| hint != path);
    Ok((request, Shape::SealsReasoning))
}

/// What a turn continues, stored or remembered by its connection only.
struct Before {
    items: Vec<StoredItem>,
    anchor: Option<Anchor>,
}

impl From<History> for Before {
    fn from(history: History) -> Self {
        Self {
            items: history.items,
            anchor: Some(history.anchor),
        }
    }
}

async fn history(
    shared: &Shared,
    scope: &Scope,
    turn: &Turn,
    local: Option<&Local>,
) -> Result<(Option<Before>, &'static str), Error> {
    const RESPONSE: &str = "previous_response_id";
    const CONVERSATION: &str = "conversation";
    if let Some(id) = &turn.conversation {
        let history = shared.store.conversation_history(scope, id).await?;
        let history =
            history.ok_or_else(|| not_found("conversation", id).with_param(CONVERSATION))?;
        // A turn of a conversation is added to it and begins a thread of its own.
        let before = Before {
            items: history.items,
            anchor: None,
        };
        return Ok((Some(before), CONVERSATION));
    }
    let Some(id) = &turn.previous_response_id else {
        return Ok((None, RESPONSE));
    };
    if let Some(items) = local.and_then(|local| local.history(id)) {
        if turn.store
            && let Some(history) = shared.store.history(scope, id).await?
        {
            return Ok((Some(history.into()), RESPONSE));
        }
        let items = items.iter().map(|json| StoredItem {
            id: "".into(),
            json: json.clone(),
        });
        let before = Before {
            items: items.collect(),
            anchor: None,
        };
        return Ok((Some(before), RESPONSE));
    }
    match shared.store.history(scope, id).await? {
        Some(history) => Ok((Some(history.into()), RESPONSE)),
        None => Err(previous_not_found(id)),
    }
}

/// One answer for a response that never was, is somebody else's, has not ended well, or lost what it continued.
fn previous_not_found(id: &str) -> Error {
    let shown: String = id.chars().take(200).collect();
    Error::new(
        ErrorKind::PreviousResponseNotFound,
        format!("there is no response `{shown}` that can be continued"),
    )
    .with_param("previous_response_id")
}

async fn replace_references(
    shared: &Shared,
    scope: &Scope,
    input: &mut [RawJson],
    references: Vec<(usize, String)>,
    known: &[StoredItem],
) -> Result<(), Error> {
    let ids = references.iter().map(|(_, id)| id.clone()).collect();
    let found = shared.store.items(scope, ids).await?;
    let found: HashMap<&str, &RawJson> = known
        .iter()
        .chain(&found)
        .map(|item| (&*item.id, &item.json))
        .collect();
    for (index, id) in &references {
        let item = found.get(id.as_str()).ok_or_else(|| {
            let shown: String = id.chars().take(200).collect();
            Error::invalid_at(
                format!("input[{index}].id"),
                format!("no item with the id `{shown}` was found"),
            )
        })?;
        if let Some(place) = input.get_mut(*index) {
            *place = (*item).clone();
        }
    }
    Ok(())
}
