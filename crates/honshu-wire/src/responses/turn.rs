//! A request as a turn of something that is kept: what it continues, what of it is stored, and the request that a
//! backend sees, which knows nothing of the state.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use honshu_domain::{
    Demand, Dialect, Entropy, Error, ErrorKind, InferenceRequest, Item, Part, PublicId, RawJson,
    StoredItem,
};

use super::items::{self, Form};
use crate::json::{Node, Path, elements, members, parse_text, put, put_str};
use crate::problems::{Findings, UNSUPPORTED, WRONG_VALUE};

/// Items in the input of one request and in what it continues. Ten thousand tool turns are more than any context
/// holds.
const ITEMS_MAX: usize = 20_000;

/// What a turn asks of the state around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Whether it is to be kept (`store`, by default).
    pub store: bool,
    /// Whether it runs by itself (`background`).
    pub background: bool,
    /// The response that it continues.
    pub previous_response_id: Option<String>,
    /// The conversation that it belongs to.
    pub conversation: Option<String>,
    /// The input, item by item. A string is a message.
    pub input: Vec<RawJson>,
    /// Whether it asks to be answered at all (`generate`, WebSocket only).
    pub generate: bool,
    /// Whether it asks for the conversation to be compacted (an item `compaction_trigger`, taken out of `input`).
    pub compacts: bool,
    /// Whether it asks for reasoning in a sealed form, and where.
    pub seals_reasoning: Option<String>,
    /// The tokens of input from which on it asks to be compacted first (`context_management`).
    pub compact_threshold: Option<u64>,
}

impl Turn {
    /// Reads the turn out of a request of this dialect.
    ///
    /// # Errors
    /// `Invalid`, when fields contradict each other.
    pub fn of(request: &InferenceRequest) -> Result<Self, Error> {
        let mut turn = Self {
            store: true,
            background: false,
            previous_response_id: None,
            conversation: None,
            input: Vec::new(),
            generate: true,
            compacts: false,
            seals_reasoning: None,
            compact_threshold: None,
        };
        let mut findings = Findings::default();
        let text = body(request);
        let _ = members(text, |key, place| {
            let value = &text[place];
            match key {
                "store" => turn.store = value != "false",
                "background" => turn.background = value == "true",
                "generate" => turn.generate = value != "false",
                "previous_response_id" => turn.previous_response_id = string(value),
                "conversation" => turn.conversation = conversation(value, &mut findings),
                "input" => turn.input = input(value),
                "context_management" => turn.compact_threshold = compact_threshold(value),
                "include" => turn.seals_reasoning = seals_reasoning(value),
                _ => {}
            }
        });
        let before = turn.input.len();
        turn.input.retain(|item| !is_trigger(item));
        turn.compacts = turn.input.len() < before;
        let root = Path::Root;
        if turn.background && turn.compacts {
            let what = "a conversation cannot be compacted in the background";
            findings.problem(&root.key("background"), UNSUPPORTED, what);
        }
        if turn.background && !turn.store {
            let what = "a background response must be stored: leave `store` out or send `true`";
            findings.problem(&root.key("background"), UNSUPPORTED, what);
        }
        if turn.input.len() > ITEMS_MAX {
            let what = format!("at most {ITEMS_MAX} items, got {}", turn.input.len());
            findings.problem(&root.key("input"), WRONG_VALUE, what);
        }
        findings.check()?;
        Ok(turn)
    }

    /// The items of the input that stand for stored ones: where, and the id.
    pub fn references(&self) -> Vec<(usize, String)> {
        let reference = |json: &RawJson| {
            let node = parse_text(json.get()).ok()?;
            let kind = node.find_str("type");
            // The type may be left out, and an object with nothing but an id can be nothing else.
            let is_reference = kind == Some("item_reference")
                || (kind.is_none() && node.find("role").is_none() && node.find("id").is_some());
            is_reference.then(|| node.find_str("id").unwrap_or_default().to_owned())
        };
        self.input
            .iter()
            .enumerate()
            .filter(|(_, json)| json.get().len() < 1_024)
            .filter_map(|(index, json)| Some((index, reference(json)?)))
            .collect()
    }
}

pub(super) fn body(request: &InferenceRequest) -> &str {
    match request.dialect {
        Dialect::Responses => std::str::from_utf8(&request.raw).unwrap_or("{}"),
        _ => "{}",
    }
}

fn string(value: &str) -> Option<String> {
    serde_json::from_str(value).ok()
}

fn conversation(value: &str, findings: &mut Findings) -> Option<String> {
    if value == "null" {
        return None;
    }
    let node = parse_text(value).ok()?;
    let id = match node.as_object() {
        Some(_) => node.find_str("id"),
        None => node.as_str(),
    };
    if id.is_none_or(str::is_empty) {
        let what = "expected a conversation's id, or an object with its `id`";
        findings.problem(&Path::Root.key("conversation"), WRONG_VALUE, what);
    }
    id.map(ToOwned::to_owned)
}

fn is_trigger(item: &RawJson) -> bool {
    item.get().len() < 1_024
        && parse_text(item.get())
            .is_ok_and(|node| node.find_str("type") == Some("compaction_trigger"))
}

fn seals_reasoning(include: &str) -> Option<String> {
    let node = parse_text(include).ok()?;
    let index = node
        .as_array()?
        .iter()
        .position(|value| value.as_str() == Some("reasoning.encrypted_content"))?;
    Some(format!("include[{index}]"))
}

fn compact_threshold(management: &str) -> Option<u64> {
    let node = parse_text(management).ok()?;
    let entry = node.as_array()?.first()?;
    Some(entry.find("compact_threshold")?.count())
}

fn input(value: &str) -> Vec<RawJson> {
    if value.starts_with('"') {
        let message = format!(
            "{{\"type\":\"message\",\"role\":\"user\",\"content\":[{{\"type\":\"input_text\",\"text\":{value}}}]}}"
        );
        return RawJson::parse(&message).into_iter().collect();
    }
    let mut list = Vec::new();
    let _ = elements(value, |element| list.extend(RawJson::parse(element)));
    list
}

/// The input as it is stored: every item whole, with an id. Ids that the caller gave are kept.
pub fn own_items(input: &[RawJson], entropy: &dyn Entropy) -> Vec<StoredItem> {
    let unique = PublicId::generate("", entropy);
    let stored = |(index, json): (usize, &RawJson)| {
        let node = parse_text(json.get()).ok()?;
        let item = items::read(&node, &Path::Root, &mut Findings::default())?;
        let prefix = match &item {
            Item::Message(_) => "msg_",
            Item::FunctionCall(_) => "fc_",
            Item::FunctionCallOutput(_) => "fco_",
            Item::CustomToolCall(_) => "ctc_",
            Item::CustomToolCallOutput(_) => "ctco_",
            Item::Reasoning(_) => "rs_",
            Item::Other { kind, .. } if &**kind == "compaction" => "cmp_",
            Item::Other { .. } => "item_",
        };
        let id: Arc<str> = match node.find_str("id").filter(|id| !id.is_empty()) {
            Some(id) => id.into(),
            None => format!("{prefix}{}{index:04x}", unique.as_str()).into(),
        };
        let mut out = BytesMut::with_capacity(json.get().len() + 128);
        match &item {
            // The easy forms of a message become the whole one that strict readers want.
            Item::Message(_) => items::write(&item, form(&id), &mut out),
            _ => complete(&node, &id, &mut out),
        }
        Some(StoredItem {
            json: RawJson::parse(std::str::from_utf8(&out).ok()?).ok()?,
            id,
        })
    };
    input.iter().enumerate().filter_map(stored).collect()
}

fn form(id: &str) -> Form<'_> {
    Form {
        id: Some(id),
        status: Some("completed"),
        logprobs: false,
    }
}

/// Writes an item as it came, with what it must have and has not.
fn complete(node: &Node<'_>, id: &str, out: &mut BytesMut) {
    put(out, "{\"id\":");
    put_str(out, id);
    let kind = node.find_str("type");
    // In the kinds that we know `null` says that there is nothing, and strict readers want nothing there then.
    let is_known = matches!(
        kind,
        Some(
            "function_call"
                | "function_call_output"
                | "custom_tool_call"
                | "custom_tool_call_output"
                | "reasoning"
                | "compaction"
        )
    );
    // There are three words for how far an item is, and readers know no other.
    let has_status = matches!(
        node.find_str("status"),
        Some("in_progress" | "completed" | "incomplete")
    ) || (!is_known && node.find("status").is_some());
    for (key, value) in node.as_object().unwrap_or_default() {
        let is_nothing = (value.is_null() && is_known) || (key == "status" && !has_status);
        if key == "id" || is_nothing {
            continue;
        }
        put(out, ",");
        put_str(out, key);
        put(out, ":");
        put(out, value.raw);
    }
    if kind == Some("reasoning") && node.find("summary").is_none() {
        put(out, ",\"summary\":[]");
    }
    let wants_status = matches!(
        kind,
        Some(
            "function_call"
                | "function_call_output"
                | "custom_tool_call"
                | "custom_tool_call_output"
        )
    );
    if wants_status && !has_status {
        put(out, ",\"status\":\"completed\"");
    }
    put(out, "}");
}

/// The request that a backend sees: with all that came before it in its input, and without a word of state.
///
/// `history` is what the field `at` stands for; `input` is the request's own input, place for place, with whatever
/// stood for something else replaced by it.
///
/// # Errors
/// `Invalid`, with the place in the own input: a result that answers no call, too many items.
pub fn expand(
    request: &InferenceRequest,
    history: &[RawJson],
    at: &str,
    input: &[RawJson],
) -> Result<InferenceRequest, Error> {
    let root = Path::Root;
    if history.len() + input.len() > ITEMS_MAX {
        return Err(Error::new(
            ErrorKind::ContextLength,
            format!("the conversation has more than {ITEMS_MAX} items"),
        )
        .with_param(at));
    }
    let mut findings = Findings::default();
    let mut all = Vec::with_capacity(history.len() + input.len());
    for json in history {
        let node = parse_text(json.get()).map_err(|_| damaged())?;
        all.extend(items::read(&node, &root.key(at), &mut findings).filter(is_worth_sending));
    }
    let own_from = all.len();
    let at_input = root.key("input");
    for (index, json) in input.iter().enumerate() {
        let node = parse_text(json.get()).map_err(|_| damaged())?;
        all.extend(items::read(&node, &at_input.index(index), &mut findings));
    }
    if all.len() == own_from + input.len() {
        answers_belong_to_calls(&all, own_from, &mut findings);
    }
    findings.check()?;
    // What the items ask for is found anew; what other fields ask for stays. That state is asked for is no matter
    // of the backend's any more.
    let mut demands: Vec<(Demand, String)> = request
        .demands
        .iter()
        .filter(|(demand, path)| {
            let is_of_items = path.starts_with("input");
            let is_ours = *demand == Demand::StoredState && path != "prompt";
            !is_of_items && !is_ours
        })
        .cloned()
        .collect();
    for demand in findings.demands {
        if !demands.iter().any(|(known, _)| *known == demand.0) {
            demands.push(demand);
        }
    }
    let raw = rewrite(request, &all);
    let mut expanded = request.clone();
    expanded.raw = raw;
    expanded.input = all;
    expanded.demands = demands;
    expanded.hints.retain(|path| {
        !matches!(path.as_str(), "store" | "background" | "generate" | "type")
            && !path.starts_with("background_options")
    });
    Ok(expanded)
}

fn damaged() -> Error {
    Error::internal("a stored item is not JSON")
}

/// Reasoning of which neither the text nor the sealed form was kept says nothing to a model.
fn is_worth_sending(item: &Item) -> bool {
    match item {
        Item::Reasoning(reasoning) => {
            reasoning.encrypted_content.is_some() || !reasoning.content.is_empty()
        }
        _ => true,
    }
}

fn answers_belong_to_calls(all: &[Item], own_from: usize, findings: &mut Findings) {
    let mut calls = HashSet::new();
    for item in all {
        // What we do not interpret may hold the call.
        if matches!(item, Item::Other { kind, .. } if &**kind != "compaction") {
            return;
        }
        calls.extend(item.call_id().map(|id| &**id));
    }
    let root = Path::Root;
    let input = root.key("input");
    for (index, item) in all[own_from..].iter().enumerate() {
        if let Some(output) = item.call_output()
            && !calls.contains(&*output.call_id)
        {
            findings.problem(
                &input.index(index).key("call_id"),
                WRONG_VALUE,
                "no call of this input, or of what it continues, has this id",
            );
        }
    }
}

/// The body for an upstream of this dialect: what it may keep is not its business.
pub(super) fn rewrite(request: &InferenceRequest, all: &[Item]) -> Bytes {
    let text = body(request);
    let mut out = BytesMut::with_capacity(text.len() + all.len() * 128);
    put(&mut out, "{");
    let _ = members(text, |key, place| {
        if !matches!(
            key,
            "input"
                | "store"
                | "background"
                | "background_options"
                | "previous_response_id"
                | "conversation"
                | "generate"
                | "type"
        ) {
            put_str(&mut out, key);
            put(&mut out, ":");
            put(&mut out, &text[place]);
            put(&mut out, ",");
        }
    });
    put(&mut out, "\"store\":false,\"input\":[");
    for (index, item) in all.iter().enumerate() {
        if index > 0 {
            put(&mut out, ",");
        }
        let form = Form {
            id: None,
            status: None,
            logprobs: false,
        };
        items::write(item, form, &mut out);
    }
    put(&mut out, "]}");
    out.freeze()
}

/// The messages of users among `items`, with ids.
pub fn user_messages<'a>(
    items: impl Iterator<Item = &'a RawJson>,
    entropy: &dyn Entropy,
) -> Vec<StoredItem> {
    let theirs: Vec<RawJson> = items
        .filter(|json| {
            parse_text(json.get()).is_ok_and(|node| node.find_str("role") == Some("user"))
        })
        .cloned()
        .collect();
    own_items(&theirs, entropy)
}

/// A compacted conversation as JSON.
pub fn compacted(
    id: &str,
    created: honshu_domain::Timestamp,
    messages: &[StoredItem],
    compaction: &Item,
    usage: &honshu_domain::Usage,
) -> Bytes {
    let mut out = BytesMut::with_capacity(1_024);
    put(&mut out, "{\"id\":");
    put_str(&mut out, id);
    put(
        &mut out,
        ",\"object\":\"response.compaction\",\"created_at\":",
    );
    put(&mut out, itoa::Buffer::new().format(created.as_seconds()));
    put(&mut out, ",\"output\":[");
    for message in messages {
        put(&mut out, message.json.get());
        put(&mut out, ",");
    }
    items::write(compaction, form(""), &mut out);
    put(&mut out, "],\"usage\":");
    super::object::write_usage(usage, &mut out);
    put(&mut out, "}");
    out.freeze()
}

/// The files that content parts name by their ids: the item, the part, the id.
pub fn named_files(input: &[RawJson]) -> Vec<(usize, usize, String)> {
    let mut found = Vec::new();
    for (item_index, json) in input.iter().enumerate() {
        if !json.get().contains("\"file_id\"") {
            continue;
        }
        let Ok(node) = parse_text(json.get()) else {
            continue;
        };
        let parts = ["content", "output"]
            .iter()
            .find_map(|key| node.find(key).and_then(Node::as_array))
            .unwrap_or_default();
        for (part_index, part) in parts.iter().enumerate() {
            if let Some(id) = part.find_str("file_id") {
                found.push((item_index, part_index, id.to_owned()));
            }
        }
    }
    found
}

/// The item with one of its content parts replaced.
///
/// # Errors
/// Our own fault: the item was read before.
pub fn replace_part(item: &RawJson, part_index: usize, part: &str) -> Result<RawJson, Error> {
    let node = parse_text(item.get()).map_err(|_| damaged())?;
    let mut out = BytesMut::with_capacity(item.get().len() + part.len());
    put(&mut out, "{");
    for (index, (key, value)) in node.as_object().unwrap_or_default().iter().enumerate() {
        if index > 0 {
            put(&mut out, ",");
        }
        put_str(&mut out, key);
        put(&mut out, ":");
        match value.as_array() {
            Some(parts) if key == "content" || key == "output" => {
                put(&mut out, "[");
                for (index, old) in parts.iter().enumerate() {
                    if index > 0 {
                        put(&mut out, ",");
                    }
                    put(&mut out, if index == part_index { part } else { old.raw });
                }
                put(&mut out, "]");
            }
            _ => put(&mut out, value.raw),
        }
    }
    put(&mut out, "}");
    RawJson::parse(&String::from_utf8_lossy(&out)).map_err(Error::internal)
}

/// A file's text as a content part, under its name.
pub fn text_part(filename: &str, text: &str) -> String {
    let mut out = BytesMut::with_capacity(text.len() + 64);
    items::write_part(
        &Part::text(format!("{filename}:\n{text}")),
        honshu_domain::Role::User,
        false,
        &mut out,
    );
    String::from_utf8_lossy(&out).into_owned()
}
