//! Chat completions that are kept (`store: true`): what a backend sees of the request, what is kept of the answer
//! and of the messages, and how they are shown again.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use honshu_domain::{
    Dialect, InferenceRequest, Paged, RawJson, StoredCompletion, StoredItem, Timestamp,
};

use crate::head::ResponseHead;
use crate::json::{elements, members, parse_text, put, put_str};
use crate::problems::HINTS_MAX;
use crate::rewrite::{copy_members, without_members};

/// Fields that ask for an answer to be kept: they are not a backend's business.
const OURS: [&str; 2] = ["store", "metadata"];

/// What of a request is shown again with its stored completion: its name there, its name in the request, and what
/// stands where the request does not say.
const SHOWN: [(&str, &str, &str); 9] = [
    ("tools", "tools", "null"),
    ("tool_choice", "tool_choice", "null"),
    ("response_format", "response_format", "null"),
    ("seed", "seed", "null"),
    ("temperature", "temperature", "1.0"),
    ("top_p", "top_p", "1.0"),
    ("presence_penalty", "presence_penalty", "0.0"),
    ("frequency_penalty", "frequency_penalty", "0.0"),
    ("input_user", "user", "null"),
];

fn body(request: &InferenceRequest) -> &str {
    match request.dialect {
        Dialect::ChatCompletions => std::str::from_utf8(&request.raw).unwrap_or("{}"),
        _ => "{}",
    }
}

/// Whether the answer to a chat request is to be kept.
pub fn is_stored(request: &InferenceRequest) -> bool {
    let is_named = request.hints.iter().any(|path| path == "store");
    // Whoever sends that many unknown fields may have crowded it out.
    if is_named || request.hints.len() < HINTS_MAX {
        return is_named && request.dialect == Dialect::ChatCompletions;
    }
    let (text, mut is_stored) = (body(request), false);
    let _ = members(text, |key, place| {
        is_stored |= key == "store" && &text[place] == "true";
    });
    is_stored
}

/// The request that a backend sees: without a word of what is kept of it.
pub fn without_store(request: &InferenceRequest) -> InferenceRequest {
    without_members(request, body(request), &OURS)
}

/// A completion and its messages as they are kept, out of the body that its caller got. `None` for a body that is
/// not an object.
pub fn kept(
    completion: &Bytes,
    head: &ResponseHead,
    request: &InferenceRequest,
    request_id: &str,
) -> Option<(StoredCompletion, Vec<StoredItem>)> {
    let (text, asked) = (std::str::from_utf8(completion).ok()?, body(request));
    let (mut metadata, mut messages) = ("{}", "[]");
    let mut said: HashMap<&str, &str> = HashMap::with_capacity(SHOWN.len());
    let _ = members(asked, |key, place| {
        let value = &asked[place];
        match key {
            "metadata" if value != "null" => metadata = value,
            "messages" => messages = value,
            _ => {
                if let Some((_, name, _)) = SHOWN.iter().find(|(_, name, _)| *name == key) {
                    said.insert(name, value);
                }
            }
        }
    });
    let mut object = BytesMut::with_capacity(text.len() + 256);
    put(&mut object, "{");
    members(text, |key, place| {
        // A pass-through upstream may have said such things itself.
        let is_again = matches!(key, "metadata" | "request_id")
            || SHOWN.iter().any(|(shown, ..)| *shown == key);
        if !is_again {
            put_str(&mut object, key);
            put(&mut object, ":");
            put(&mut object, &text[place]);
            put(&mut object, ",");
        }
    })
    .ok()?;
    for (shown, name, default) in SHOWN {
        put_str(&mut object, shown);
        put(&mut object, ":");
        let value = said.get(name).filter(|value| **value != "null");
        put(&mut object, value.unwrap_or(&default));
        put(&mut object, ",");
    }
    put(&mut object, "\"request_id\":");
    put_str(&mut object, request_id);
    put(&mut object, "}");
    let mut kept = Vec::new();
    let _ = elements(messages, |one| {
        let id = format!("{}-{}", head.id, kept.len());
        kept.extend(message(one, id.into()));
    });
    let completion = StoredCompletion {
        id: Arc::clone(&head.id),
        created: head.created,
        model: Arc::clone(&head.model),
        model_asked: Arc::clone(&request.model),
        metadata: RawJson::parse(metadata).ok()?,
        object: RawJson::parse(std::str::from_utf8(&object).ok()?).ok()?,
    };
    Some((completion, kept))
}

/// A message with its id. Content that came as parts stands under a name of its own.
fn message(text: &str, id: Arc<str>) -> Option<StoredItem> {
    let node = parse_text(text).ok()?;
    let mut out = BytesMut::with_capacity(text.len() + id.len() + 64);
    put(&mut out, "{\"id\":");
    put_str(&mut out, &id);
    let content = node.find("content");
    let parts = content.filter(|content| content.as_array().is_some());
    for (key, value) in [
        ("content", content.filter(|_| parts.is_none())),
        ("content_parts", parts),
        ("refusal", node.find("refusal")),
    ] {
        put(&mut out, ",");
        put_str(&mut out, key);
        put(&mut out, ":");
        put(&mut out, value.map_or("null", |value| value.raw));
    }
    for (key, value) in node.as_object()? {
        if !matches!(&**key, "id" | "content" | "content_parts" | "refusal") {
            put(&mut out, ",");
            put_str(&mut out, key);
            put(&mut out, ":");
            put(&mut out, value.raw);
        }
    }
    put(&mut out, "}");
    Some(StoredItem {
        json: RawJson::parse(std::str::from_utf8(&out).ok()?).ok()?,
        id,
    })
}

/// A stored completion as JSON.
pub fn completion(stored: &StoredCompletion) -> Bytes {
    let mut out = BytesMut::with_capacity(stored.object.get().len() + 128);
    write_completion(stored, &mut out);
    out.freeze()
}

fn write_completion(stored: &StoredCompletion, out: &mut BytesMut) {
    let text = stored.object.get().trim_end();
    put(out, text.strip_suffix('}').unwrap_or(text));
    put(out, ",\"metadata\":");
    put(out, stored.metadata.get());
    put(out, "}");
}

/// A list of stored completions.
pub fn completion_list(list: &Paged<StoredCompletion>) -> Bytes {
    let mut out = BytesMut::with_capacity(256 + list.data.len() * 1_024);
    put(&mut out, "{\"object\":\"list\",\"data\":[");
    for (index, one) in list.data.iter().enumerate() {
        if index > 0 {
            put(&mut out, ",");
        }
        write_completion(one, &mut out);
    }
    put(&mut out, "]");
    for (key, one) in [
        (",\"first_id\":", list.data.first()),
        (",\"last_id\":", list.data.last()),
    ] {
        put(&mut out, key);
        match one {
            Some(one) => put_str(&mut out, &one.id),
            None => put(&mut out, "null"),
        }
    }
    put(&mut out, ",\"has_more\":");
    put(&mut out, if list.has_more { "true}" } else { "false}" });
    out.freeze()
}

/// What makes an upstream's answer one of ours: an id that nothing else has, and the time of our run. Upstreams
/// give short ids that repeat, or none.
#[derive(Debug)]
pub(super) struct Identity {
    /// `"id":…,"created":…`
    words: String,
}

impl Identity {
    pub(super) fn new(head: &ResponseHead) -> Self {
        let mut words = BytesMut::with_capacity(96);
        put(&mut words, "\"id\":");
        put_str(&mut words, &head.id);
        put(&mut words, ",\"created\":");
        put(&mut words, &seconds(head.created));
        Self {
            words: String::from_utf8_lossy(&words).into_owned(),
        }
    }

    /// A chunk or a body of an upstream's under our name.
    pub(super) fn rename(&self, json: &Bytes) -> Bytes {
        let Ok(text) = std::str::from_utf8(json) else {
            return json.clone();
        };
        let mut out = BytesMut::with_capacity(text.len() + self.words.len());
        put(&mut out, "{");
        put(&mut out, &self.words);
        let _ = copy_members(text, &["id", "created"], &mut out);
        put(&mut out, "}");
        out.freeze()
    }
}

fn seconds(time: Timestamp) -> String {
    itoa::Buffer::new().format(time.as_seconds()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &str) -> InferenceRequest {
        super::super::parse_request(Bytes::copy_from_slice(body.as_bytes())).unwrap()
    }

    fn head() -> ResponseHead {
        ResponseHead {
            id: "chatcmpl-1".into(),
            created: Timestamp::from_seconds(7),
            model: "served".into(),
            service_tier: None,
        }
    }

    const MESSAGES: &str = r#""messages":[{"role":"user","content":"hi"}]"#;

    #[test]
    fn what_is_to_be_kept_is_said_by_true_only_and_by_nothing_else() {
        let many: String = (0..200).map(|n| format!("\"x{n}\":1,")).collect();
        for (fields, expected) in [
            ("", false),
            ("\"store\":false,", false),
            ("\"store\":null,", false),
            ("\"store\":true,", true),
            (&*format!("{many}\"store\":true,"), true),
            (&*many, false),
            ("\"metadata\":{\"store\":\"true\"},", false),
        ] {
            let body = format!("{{\"model\":\"m\",{fields}{MESSAGES}}}");
            assert_eq!(is_stored(&request(&body)), expected, "{fields}");
        }
    }

    #[test]
    fn a_backend_hears_nothing_of_it() {
        let asked = request(&format!(
            "{{\"model\":\"m\",\"store\":true,\"metadata\":{{\"a\":\"b\"}},\"user\":\"u\",{MESSAGES}}}"
        ));
        let seen = without_store(&asked);
        assert_eq!(
            seen.raw,
            format!("{{\"model\":\"m\",\"user\":\"u\",{MESSAGES}}}").as_bytes()
        );
        assert_eq!(seen.hints, ["user"]);
    }

    #[test]
    fn a_completion_is_shown_with_what_its_request_said_and_its_messages_by_number() {
        let asked = request(
            r#"{"model":"m","store":true,"metadata":{"a":"b"},"temperature":0.5,"user":"u","seed":null,"messages":[
                {"role":"system","content":"s","name":"n"},
                {"role":"user","content":[{"type":"text","text":"t"}]},
                {"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},
                {"role":"tool","tool_call_id":"c","content":"r"}]}"#,
        );
        let body =
            Bytes::from_static(br#"{"id":"chatcmpl-1","choices":[],"metadata":{"theirs":"x"}}"#);
        let (stored, messages) = kept(&body, &head(), &asked, "req").unwrap();
        let shown: serde_json::Value = serde_json::from_slice(&completion(&stored)).unwrap();
        assert_eq!(
            shown,
            serde_json::json!({
                "id": "chatcmpl-1", "choices": [], "metadata": {"a": "b"}, "temperature": 0.5, "top_p": 1.0,
                "seed": null, "tools": null, "tool_choice": null, "response_format": null, "input_user": "u",
                "presence_penalty": 0.0, "frequency_penalty": 0.0, "request_id": "req",
            })
        );
        assert_eq!((&*stored.model, &*stored.model_asked), ("served", "m"));
        let messages: Vec<serde_json::Value> =
            messages.iter().map(|one| one.json.to().unwrap()).collect();
        assert_eq!(
            serde_json::Value::from(messages),
            serde_json::json!([
                {"id": "chatcmpl-1-0", "role": "system", "content": "s", "name": "n", "content_parts": null, "refusal": null},
                {"id": "chatcmpl-1-1", "role": "user", "content": null, "content_parts": [{"type": "text", "text": "t"}], "refusal": null},
                {"id": "chatcmpl-1-2", "role": "assistant", "content": null, "content_parts": null, "refusal": null,
                 "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                {"id": "chatcmpl-1-3", "role": "tool", "tool_call_id": "c", "content": "r", "content_parts": null, "refusal": null},
            ])
        );
    }

    #[test]
    fn an_upstreams_answer_gets_our_id_and_keeps_all_else() {
        let theirs = Bytes::from_static(
            br#"{"id":"chatcmpl-7","object":"chat.completion","created":1,"x":[1, 2]}"#,
        );
        assert_eq!(
            Identity::new(&head()).rename(&theirs),
            &br#"{"id":"chatcmpl-1","created":7,"object":"chat.completion","x":[1, 2]}"#[..]
        );
    }
}
