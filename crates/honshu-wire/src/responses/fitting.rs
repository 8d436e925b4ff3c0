//! Requests that are made to fit: without the oldest items, or with a summary in place of what came before.

use std::collections::HashSet;

use bytes::BytesMut;
use honshu_domain::{Error, InferenceRequest, Item, Message, Part, Role};

use super::items::{self, Form};
use super::turn::{body, rewrite};
use crate::json::{members, parse_text, put, put_str};
use crate::rewrite::{copy_members, without_members};

/// The request that asks for a summary of all that `request` has in its input.
///
/// # Errors
/// Our own fault: what was read before cannot be read again.
pub fn summary_request(
    request: &InferenceRequest,
    prompt: &str,
) -> Result<InferenceRequest, Error> {
    let mut out = BytesMut::with_capacity(request.raw.len() + prompt.len() + 128);
    put(&mut out, "{\"model\":");
    put_str(&mut out, &request.model);
    put(
        &mut out,
        if request.stream {
            ",\"stream\":true"
        } else {
            ""
        },
    );
    put(&mut out, ",\"store\":false,\"input\":[");
    let plain = Form {
        id: None,
        status: None,
        logprobs: false,
    };
    for item in &request.input {
        items::write(item, plain, &mut out);
        put(&mut out, ",");
    }
    let asks = Item::Message(Message {
        id: None,
        role: Role::User,
        content: vec![Part::text(prompt)],
        phase: None,
        name: None,
    });
    items::write(&asks, plain, &mut out);
    put(&mut out, "]}");
    super::parse_request(out.freeze())
}

/// Whether the caller allows that the oldest items are left out when the input is too long (`truncation: auto`).
pub fn truncates(request: &InferenceRequest) -> bool {
    let text = body(request);
    let mut is_auto = false;
    let _ = members(text, |key, place| {
        is_auto |= key == "truncation" && &text[place] == "\"auto\"";
    });
    is_auto
}

/// The request without the oldest quarter of what may be left out: never the application's messages and never the
/// last item. A result goes with its call. `None` when nothing is left to leave out.
pub fn leave_out_oldest(request: &InferenceRequest) -> Option<InferenceRequest> {
    let last = request.input.len().checked_sub(1)?;
    let old: Vec<usize> = (0..last)
        .filter(|index| !is_of_the_application(&request.input[*index]))
        .collect();
    let go: HashSet<usize> = old.iter().copied().take(old.len().div_ceil(4)).collect();
    if go.is_empty() {
        return None;
    }
    let mut calls = HashSet::new();
    let mut left: Vec<Item> = Vec::with_capacity(request.input.len());
    for (index, item) in request.input.iter().enumerate() {
        let is_orphan = item
            .call_output()
            .is_some_and(|output| !calls.contains(&*output.call_id));
        if go.contains(&index) || (is_orphan && index != last) {
            continue;
        }
        calls.extend(item.call_id().map(|id| &**id));
        left.push(item.clone());
    }
    let mut shorter = request.clone();
    shorter.raw = rewrite(request, &left);
    shorter.input = left;
    Some(shorter)
}

/// The request with at most `max` output tokens, for work that wants the prompt read and not the answer.
pub fn limit_output(request: &InferenceRequest, max: u32) -> InferenceRequest {
    let text = body(request);
    let mut out = BytesMut::with_capacity(text.len() + 64);
    put(&mut out, "{\"stream\":true,\"max_output_tokens\":");
    put(&mut out, itoa::Buffer::new().format(max));
    let replaced = ["stream", "stream_options", "max_output_tokens"];
    let _ = copy_members(text, &replaced, &mut out);
    put(&mut out, "}");
    let mut limited = request.clone();
    limited.raw = out.freeze();
    limited.stream = true;
    limited.max_output_tokens = Some(max);
    limited
}

/// The request without `context_management`, for backends that know nothing of it.
pub fn without_management(request: &InferenceRequest) -> InferenceRequest {
    without_members(request, body(request), &["context_management"])
}

/// The request with `summary` in place of the conversation: what the application says stays, and so does what the
/// model has not answered yet, with the calls that it answers.
pub fn with_summary(request: &InferenceRequest, summary: &str) -> InferenceRequest {
    let from = request.input.iter().rposition(is_of_the_model);
    let (before, open) = request.input.split_at(from.map_or(0, |last| last + 1));
    let answered: HashSet<String> = open.iter().filter_map(call_id).collect();
    let is_answered = |item: &&Item| call_id(item).is_some_and(|id| answered.contains(&id));
    let mut input: Vec<Item> = before
        .iter()
        .filter(|item| is_of_the_application(item))
        .cloned()
        .collect();
    input.push(Item::Message(Message {
        id: None,
        role: Role::User,
        content: vec![Part::text(summary)],
        phase: None,
        name: None,
    }));
    let calls = before.iter().filter(|item| is_of_the_model(item));
    input.extend(calls.filter(is_answered).cloned());
    input.extend_from_slice(open);
    let mut shorter = request.clone();
    shorter.raw = rewrite(request, &input);
    shorter.input = input;
    shorter
}

/// Whether a summary would stand for anything: what no model has answered yet stays as it is.
pub fn has_answers(request: &InferenceRequest) -> bool {
    request.input.iter().any(is_of_the_model)
}

fn is_of_the_application(item: &Item) -> bool {
    matches!(item, Item::Message(message) if matches!(message.role, Role::System | Role::Developer))
}

fn is_of_the_model(item: &Item) -> bool {
    match item {
        Item::Message(message) => message.role == Role::Assistant,
        Item::FunctionCall(_) | Item::CustomToolCall(_) | Item::Reasoning(_) => true,
        Item::FunctionCallOutput(_) | Item::CustomToolCallOutput(_) => false,
        Item::Other { kind, .. } => !kind.ends_with("_output"),
    }
}

/// What joins a call and its result, of whatever kind.
fn call_id(item: &Item) -> Option<String> {
    match item {
        Item::FunctionCall(_) | Item::CustomToolCall(_) => item.call_id().map(ToString::to_string),
        Item::FunctionCallOutput(output) | Item::CustomToolCallOutput(output) => {
            Some(output.call_id.to_string())
        }
        Item::Other { raw, .. } => {
            let node = parse_text(raw.get()).ok()?;
            node.find_str("call_id").map(ToOwned::to_owned)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(items: &str) -> InferenceRequest {
        let body = format!("{{\"model\":\"m\",\"truncation\":\"auto\",\"input\":[{items}]}}");
        super::super::parse_request(body.into()).unwrap()
    }

    #[test]
    fn the_oldest_goes_first_with_its_results_and_the_application_stays() {
        let mut shorter = request(
            r#"{"role":"system","content":"s"},{"role":"user","content":"1"},
               {"type":"function_call","call_id":"c","name":"f","arguments":"{}"},
               {"type":"function_call_output","call_id":"c","output":"r"},
               {"role":"user","content":"2"},{"role":"user","content":"last"}"#,
        );
        assert!(truncates(&shorter));
        let mut counts = vec![shorter.input.len()];
        while let Some(next) = leave_out_oldest(&shorter) {
            let again = super::super::parse_request(next.raw.clone()).unwrap();
            assert_eq!(again.input, next.input, "body and items say the same");
            counts.push(next.input.len());
            shorter = next;
        }
        assert_eq!(counts, [6, 5, 3, 2]);
        let text = String::from_utf8(shorter.raw.to_vec()).unwrap();
        assert!(text.contains("\"s\"") && text.contains("last"), "{text}");
    }

    #[test]
    fn a_summary_stands_for_what_was_answered_and_open_calls_stay() {
        let long = request(
            r#"{"role":"developer","content":"d"},{"role":"user","content":"old"},{"role":"assistant","content":"done"},
               {"type":"function_call","call_id":"a","name":"f","arguments":"{}"},
               {"type":"function_call_output","call_id":"a","output":"1"},
               {"type":"function_call","call_id":"b","name":"f","arguments":"{}"},
               {"type":"custom_tool_call","call_id":"c","name":"g","input":"x"},
               {"type":"function_call_output","call_id":"b","output":"2"},
               {"type":"custom_tool_call_output","call_id":"c","output":"3"},{"role":"user","content":"new"}"#,
        );
        let short = with_summary(&long, "so far");
        let expected = request(
            r#"{"role":"developer","content":"d"},{"role":"user","content":"so far"},
               {"type":"function_call","call_id":"b","name":"f","arguments":"{}"},
               {"type":"custom_tool_call","call_id":"c","name":"g","input":"x"},
               {"type":"function_call_output","call_id":"b","output":"2"},
               {"type":"custom_tool_call_output","call_id":"c","output":"3"},{"role":"user","content":"new"}"#,
        );
        assert_eq!(short.input, expected.input);
        let again = super::super::parse_request(short.raw).unwrap();
        assert_eq!(again.input, expected.input, "body and items say the same");
    }

    #[test]
    fn a_backend_hears_nothing_of_the_threshold() {
        let body = r#"{"model":"m","context_management":[{"type":"compaction","compact_threshold":1000}],"input":"hi"}"#;
        let asked = super::super::parse_request(body.into()).unwrap();
        assert_eq!(asked.hints, ["context_management"]);
        let without = without_management(&asked);
        assert_eq!(without.raw, r#"{"model":"m","input":"hi"}"#.as_bytes());
        assert!(without.hints.is_empty());
        let turn = super::super::Turn::of(&asked).unwrap();
        assert_eq!(turn.compact_threshold, Some(1_000));
        let asked = super::super::parse_request(body.replace("1000", "1000.0").into()).unwrap();
        let turn = super::super::Turn::of(&asked).unwrap();
        assert_eq!(turn.compact_threshold, Some(1_000));
    }
}
