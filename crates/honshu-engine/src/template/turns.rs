//! From the items of a conversation to the turns that chat templates know, and the rewriting that a template needs
//! which knows fewer kinds of turn than the conversation has. Pure; must never lose a word of the conversation.

use honshu_domain::{Item, Part, Role, wrapped_input};
use serde_json::{Map, Value, json};

use super::probe::{Arguments, Capabilities};
use super::{Guard, TemplateError};
use crate::markup;

/// Between texts that were separate and had to become one.
const JOINT: &str = "\n\n";

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    pub id: String,
    pub name: String,
    pub arguments: String,
}

/// One message as templates see it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Turn {
    pub role: &'static str,
    pub content: String,
    pub reasoning: Option<String>,
    pub calls: Vec<Call>,
    /// Of a tool's result: which call, and the function's name where it is known.
    pub call_id: Option<String>,
    pub name: Option<String>,
}

impl Turn {
    pub(super) fn new(role: &'static str, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            ..Self::default()
        }
    }
}

/// The turns of a conversation. Text is passed through `guard`, which takes the power from special tokens' names.
pub(super) fn from_items(
    instructions: Option<&str>,
    items: &[Item],
    guard: &Guard,
) -> Result<Vec<Turn>, TemplateError> {
    let mut turns: Vec<Turn> = Vec::with_capacity(items.len() + 1);
    if let Some(instructions) = instructions.filter(|text| !text.is_empty()) {
        turns.push(Turn::new("system", guard.blunt(instructions)));
    }
    // Reasoning comes before the message or call that it led to.
    let mut reasoning: Option<String> = None;
    let mut open = false;
    for item in items {
        match item {
            Item::Message(message) => {
                let content = guard.blunt(&text_of(&message.content)?);
                let mut turn = Turn::new(message.role.as_str(), content);
                if message.role == Role::Assistant {
                    turn.reasoning = reasoning.take();
                } else {
                    turn.name = message.name.as_deref().map(|name| guard.blunt(name));
                }
                open = message.role == Role::Assistant;
                turns.push(turn);
            }
            Item::FunctionCall(_) | Item::CustomToolCall(_) => {
                let (call_id, name, arguments) = match item {
                    Item::FunctionCall(call) => {
                        (&call.call_id, &call.name, guard.blunt(&call.arguments))
                    }
                    Item::CustomToolCall(call) => {
                        let input = guard.blunt(&call.input);
                        (&call.call_id, &call.name, wrapped_input(&input))
                    }
                    _ => continue,
                };
                let call = Call {
                    id: guard.blunt(call_id),
                    name: guard.blunt(name),
                    arguments,
                };
                match turns
                    .last_mut()
                    .filter(|turn| open && turn.role == "assistant")
                {
                    Some(turn) => turn.calls.push(call),
                    None => {
                        let mut turn = Turn::new("assistant", "");
                        turn.calls.push(call);
                        turns.push(turn);
                    }
                }
                if let Some(turn) = turns.last_mut() {
                    turn.reasoning = turn.reasoning.take().or_else(|| reasoning.take());
                }
                open = true;
            }
            Item::FunctionCallOutput(output) | Item::CustomToolCallOutput(output) => {
                let id = guard.blunt(&output.call_id);
                let name = turns
                    .iter()
                    .flat_map(|turn| &turn.calls)
                    .find(|call| call.id == id)
                    .map(|call| call.name.clone());
                let mut turn = Turn::new("tool", guard.blunt(&text_of(&output.output)?));
                turn.call_id = Some(id);
                turn.name = name;
                turns.push(turn);
                open = false;
            }
            Item::Reasoning(item) => {
                let text = item.content.join("\n");
                if !text.is_empty() {
                    reasoning = Some(guard.blunt(&text));
                }
                open = false;
            }
            Item::Other { kind, .. } => return Err(TemplateError::Content(kind.to_string())),
        }
    }
    Ok(turns)
}

/// Tells the model of its tools in the system turn, for templates that know none.
pub(super) fn tell_tools(turns: &mut Vec<Turn>, functions: &[Value]) {
    let leading = turns
        .iter()
        .take_while(|turn| turn.role == "system" || turn.role == "developer")
        .count();
    let words = markup::tools_in_words(functions);
    turns.insert(leading, Turn::new("system", words));
}

/// The text of a list of parts. Parts follow each other without anything between them, as the APIs define.
fn text_of(parts: &[Part]) -> Result<String, TemplateError> {
    let mut out = String::new();
    for part in parts {
        match part {
            Part::Text { text, .. } => out.push_str(text),
            Part::Refusal { refusal } => out.push_str(refusal),
            Part::Image { .. } => return Err(TemplateError::Content("input_image".to_owned())),
            Part::Other { kind, .. } => return Err(TemplateError::Content(kind.to_string())),
        }
    }
    Ok(out)
}

/// Rewrites turns into those that the template knows.
pub(super) fn adapt(mut turns: Vec<Turn>, can: &Capabilities) -> Vec<Turn> {
    if !can.developer {
        for turn in turns.iter_mut().filter(|turn| turn.role == "developer") {
            turn.role = "system";
        }
    }
    if can.arguments == Arguments::Unknown {
        turns = turns.into_iter().map(tools_as_text).collect();
    } else {
        if can.one_call_a_turn {
            turns = one_call_a_turn(turns);
        }
        if can.short_call_ids {
            short_call_ids(&mut turns);
        }
    }
    turns = gather_system(turns, can);
    if can.alternate {
        turns = merge_neighbours(turns);
    }
    turns
}

/// All system text before the first other turn becomes one turn (many templates look at the first only); later
/// system text keeps its place, as a user's where the template knows it only at the start.
fn gather_system(turns: Vec<Turn>, can: &Capabilities) -> Vec<Turn> {
    let is_system = |turn: &Turn| turn.role == "system" || turn.role == "developer";
    let leading = turns.iter().take_while(|turn| is_system(turn)).count();
    let mut out: Vec<Turn> = Vec::with_capacity(turns.len());
    let mut turns = turns.into_iter();
    let mut system: Option<Turn> = None;
    for turn in turns.by_ref().take(leading) {
        match &mut system {
            None => system = Some(turn),
            Some(first) => join(&mut first.content, &turn.content),
        }
    }
    for mut turn in turns {
        if is_system(&turn) && !can.late_system {
            turn.role = "user";
        }
        out.push(turn);
    }
    match system {
        None => {}
        Some(system) if can.system => out.insert(0, system),
        Some(system) => match out.first_mut().filter(|turn| turn.role == "user") {
            Some(user) => {
                let own = std::mem::replace(&mut user.content, system.content);
                join(&mut user.content, &own);
            }
            None => out.insert(0, Turn::new("user", system.content)),
        },
    }
    out
}

fn join(text: &mut String, more: &str) {
    if !text.is_empty() && !more.is_empty() {
        text.push_str(JOINT);
    }
    text.push_str(more);
}

fn merge_neighbours(turns: Vec<Turn>) -> Vec<Turn> {
    let mut out: Vec<Turn> = Vec::with_capacity(turns.len());
    for turn in turns {
        match out.last_mut() {
            Some(last)
                if last.role == turn.role && turn.role != "tool" && last.calls.is_empty() =>
            {
                join(&mut last.content, &turn.content);
                last.calls = turn.calls;
                last.reasoning = last.reasoning.take().or(turn.reasoning);
            }
            _ => out.push(turn),
        }
    }
    out
}

/// For templates that know no tools: calls and results in words.
fn tools_as_text(mut turn: Turn) -> Turn {
    let calls: Vec<String> = std::mem::take(&mut turn.calls)
        .iter()
        .map(|call| markup::call_in_words(&call.name, &call.arguments))
        .collect();
    join(&mut turn.content, &calls.join("\n"));
    if turn.role == "tool" {
        turn.role = "user";
        turn.content = markup::result_in_words(&turn.content);
        turn.call_id = None;
        turn.name = None;
    }
    turn
}

/// For templates that take one call at a time: each call in a turn of its own, followed by its result.
fn one_call_a_turn(turns: Vec<Turn>) -> Vec<Turn> {
    let mut turns: Vec<Option<Turn>> = turns.into_iter().map(Some).collect();
    let mut out = Vec::with_capacity(turns.len());
    for at in 0..turns.len() {
        let Some(mut turn) = turns[at].take() else {
            continue;
        };
        if turn.calls.len() < 2 {
            out.push(turn);
            continue;
        }
        for call in std::mem::take(&mut turn.calls) {
            let id = call.id.clone();
            out.push(Turn {
                calls: vec![call],
                ..std::mem::replace(&mut turn, Turn::new("assistant", ""))
            });
            let result = turns[at + 1..].iter_mut().find(|later| {
                later
                    .as_ref()
                    .is_some_and(|later| later.call_id.as_deref() == Some(&id))
            });
            out.extend(result.and_then(Option::take));
        }
    }
    out
}

/// For templates that refuse call ids of any other form than nine letters and digits.
fn short_call_ids(turns: &mut [Turn]) {
    let mut known: Vec<String> = Vec::new();
    let mut short = |id: &mut String| {
        let at = known
            .iter()
            .position(|other| other == id)
            .unwrap_or_else(|| {
                known.push(id.clone());
                known.len() - 1
            });
        *id = format!("call{:05}", at % 100_000);
    };
    for turn in turns {
        turn.calls.iter_mut().for_each(|call| short(&mut call.id));
        if let Some(id) = &mut turn.call_id {
            short(id);
        }
    }
}

/// The `messages` of a template's context.
pub(super) fn to_messages(turns: &[Turn], can: &Capabilities) -> Value {
    turns.iter().map(|turn| to_message(turn, can)).collect()
}

fn to_message(turn: &Turn, can: &Capabilities) -> Value {
    let mut message = Map::new();
    message.insert("role".to_owned(), turn.role.into());
    let content = if can.typed_content {
        json!([{"type": "text", "text": turn.content}])
    } else {
        turn.content.clone().into()
    };
    message.insert("content".to_owned(), content);
    if let Some(reasoning) = &turn.reasoning {
        message.insert(can.reasoning_field.to_owned(), reasoning.clone().into());
    }
    if !turn.calls.is_empty() {
        let calls: Value = turn.calls.iter().map(|call| to_call(call, can)).collect();
        message.insert("tool_calls".to_owned(), calls);
    }
    if let Some(id) = &turn.call_id {
        message.insert("tool_call_id".to_owned(), id.clone().into());
    }
    if let Some(name) = &turn.name {
        message.insert("name".to_owned(), name.clone().into());
    }
    Value::Object(message)
}

fn to_call(call: &Call, can: &Capabilities) -> Value {
    let text = || Value::String(call.arguments.clone());
    let arguments = match can.arguments {
        Arguments::Text | Arguments::Unknown => text(),
        // What a caller replays need not be JSON; such arguments stay a text.
        Arguments::Object if call.arguments.trim().is_empty() => json!({}),
        Arguments::Object => serde_json::from_str(&call.arguments).unwrap_or_else(|_| text()),
    };
    json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
}
