//! The response object: every key that strict readers demand, `null` where they allow it, absent where they
//! do not.

use std::sync::Arc;

use bytes::BytesMut;
use honshu_domain::{Dialect, Error, ErrorKind, FinishReason, InferenceRequest, Usage};

use super::tools::{tools_of, write_tool};
use crate::head::ResponseHead;
use crate::json::{members, put, put_str, put_u64};

/// What of a response does not change while it runs, written once.
#[derive(Debug)]
pub(super) struct Object {
    /// `"id":…,"object":"response","created_at":…,"model":…`
    head: String,
    /// The echo of the request, from `"background"` to `"metadata"`.
    echo: String,
}

/// What makes a response a turn of something that is kept. Readers see it in every lifecycle event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnFacts {
    /// `store`.
    pub store: bool,
    /// `background`.
    pub background: bool,
    /// The conversation that it belongs to.
    pub conversation: Option<Arc<str>>,
}

impl TurnFacts {
    fn write(&self, out: &mut BytesMut) {
        put(
            out,
            if self.background {
                "\"background\":true"
            } else {
                "\"background\":false"
            },
        );
        put(
            out,
            if self.store {
                ",\"store\":true"
            } else {
                ",\"store\":false"
            },
        );
        if let Some(conversation) = &self.conversation {
            put(out, ",\"conversation\":{\"id\":");
            put_str(out, conversation);
            put(out, "}");
        }
    }
}

/// Who a response is, whatever the upstream that made it calls it.
#[derive(Debug)]
pub(super) struct Identity {
    id: Arc<str>,
    previous: Option<String>,
    facts: TurnFacts,
}

impl Identity {
    /// A response object of an upstream's as one of ours.
    pub(super) fn rewrite(&self, response: &str, out: &mut BytesMut) {
        put(out, "{\"id\":");
        put_str(out, &self.id);
        put(out, ",");
        self.facts.write(out);
        put(out, ",\"previous_response_id\":");
        put(out, self.previous.as_deref().unwrap_or("null"));
        let _ = members(response, |key, place| {
            if !matches!(
                key,
                "id" | "store" | "background" | "conversation" | "previous_response_id"
            ) {
                put(out, ",");
                put_str(out, key);
                put(out, ":");
                put(out, &response[place]);
            }
        });
        put(out, "}");
    }
}

/// What changes.
pub(super) struct State<'a> {
    pub(super) status: &'a str,
    pub(super) completed_at: Option<i64>,
    pub(super) error: Option<&'a Error>,
    pub(super) incomplete: Option<FinishReason>,
    pub(super) usage: Option<Usage>,
}

impl State<'_> {
    /// A response that waits for its turn.
    pub(super) const QUEUED: State<'static> = State {
        status: "queued",
        ..Self::RUNNING
    };

    /// A response that runs.
    pub(super) const RUNNING: State<'static> = State {
        status: "in_progress",
        completed_at: None,
        error: None,
        incomplete: None,
        usage: None,
    };
}

/// Fields that answers repeat as the caller wrote them, with what stands there when the caller did not.
const ECHOED: [(&str, &str); 16] = [
    ("instructions", "null"),
    ("max_output_tokens", "null"),
    ("max_tool_calls", "null"),
    ("parallel_tool_calls", "true"),
    ("previous_response_id", "null"),
    ("prompt_cache_key", "null"),
    ("safety_identifier", "null"),
    ("temperature", "1.0"),
    ("top_p", "1.0"),
    ("top_logprobs", "0"),
    ("presence_penalty", "0.0"),
    ("frequency_penalty", "0.0"),
    ("tool_choice", "\"auto\""),
    ("truncation", "\"disabled\""),
    ("metadata", "{}"),
    // The last one has no default: it must be absent.
    ("user", ""),
];

/// The echo of a response that is not kept.
const NOT_KEPT: &str = "\"background\":false,\"store\":false";

impl Object {
    /// The object of a turn, and who it is.
    pub(super) fn of_turn(
        head: &ResponseHead,
        request: &InferenceRequest,
        facts: TurnFacts,
    ) -> (Self, Identity) {
        let mut object = Self::new(head, request);
        let mut own = BytesMut::with_capacity(64);
        facts.write(&mut own);
        object.echo = object.echo.replacen(NOT_KEPT, &text(&own), 1);
        let mut previous = None;
        if let Ok(raw) = std::str::from_utf8(&request.raw) {
            let _ = members(raw, |key, place| {
                if key == "previous_response_id" {
                    previous = Some(raw[place].to_owned());
                }
            });
        }
        let identity = Identity {
            id: Arc::clone(&head.id),
            previous,
            facts,
        };
        (object, identity)
    }

    pub(super) fn new(head: &ResponseHead, request: &InferenceRequest) -> Self {
        let mut out = BytesMut::with_capacity(128);
        put(&mut out, "\"id\":");
        put_str(&mut out, &head.id);
        put(&mut out, ",\"object\":\"response\",\"created_at\":");
        put(
            &mut out,
            itoa::Buffer::new().format(head.created.as_seconds()),
        );
        put(&mut out, ",\"model\":");
        put_str(&mut out, &head.model);
        let head_text = text(&out);
        Self {
            head: head_text,
            echo: echo(head, request),
        }
    }

    /// Writes the whole object. `output` writes the elements of the output list.
    pub(super) fn write(
        &self,
        state: &State<'_>,
        output: impl FnOnce(&mut BytesMut),
        out: &mut BytesMut,
    ) {
        put(out, "{");
        put(out, &self.head);
        put(out, ",\"status\":\"");
        put(out, state.status);
        put(out, "\",");
        write_ending(state, out);
        put(out, ",\"output\":[");
        output(out);
        put(out, "],");
        put(out, &self.echo);
        put(out, "}");
    }
}

/// Writes `completed_at`, `error`, `incomplete_details` and `usage`.
pub(super) fn write_ending(state: &State<'_>, out: &mut BytesMut) {
    put(out, "\"completed_at\":");
    match state.completed_at {
        Some(seconds) => put(out, itoa::Buffer::new().format(seconds)),
        None => put(out, "null"),
    }
    put(out, ",\"error\":");
    match state.error {
        Some(error) => {
            put(out, "{\"code\":\"");
            put(out, failure_code(error));
            put(out, "\",\"message\":");
            put_str(out, error.message());
            put(out, "}");
        }
        None => put(out, "null"),
    }
    put(out, ",\"incomplete_details\":");
    match state.incomplete {
        Some(FinishReason::ContentFilter) => put(out, "{\"reason\":\"content_filter\"}"),
        Some(_) => put(out, "{\"reason\":\"max_output_tokens\"}"),
        None => put(out, "null"),
    }
    put(out, ",\"usage\":");
    match &state.usage {
        Some(usage) => write_usage(usage, out),
        None => put(out, "null"),
    }
}

/// The `error.code` of a failed response. The reference lists few; `context_length_exceeded` is not among them
/// and still what agents look for, and `server_shutdown` says that another try will find a server.
fn failure_code(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Unavailable if error.code() == Some("server_shutdown") => "server_shutdown",
        ErrorKind::ContextLength => "context_length_exceeded",
        ErrorKind::RateLimited => "rate_limit_exceeded",
        ErrorKind::Invalid | ErrorKind::Unsupported => "invalid_prompt",
        _ => "server_error",
    }
}

/// Writes the usage with both details, which the SDKs require.
pub(super) fn write_usage(usage: &Usage, out: &mut BytesMut) {
    put(out, "{\"input_tokens\":");
    put_u64(out, usage.input_tokens);
    put(out, ",\"input_tokens_details\":{\"cached_tokens\":");
    put_u64(out, usage.cached_input_tokens);
    put(out, ",\"cache_write_tokens\":");
    put_u64(out, usage.cache_write_tokens);
    put(out, "},\"output_tokens\":");
    put_u64(out, usage.output_tokens);
    put(out, ",\"output_tokens_details\":{\"reasoning_tokens\":");
    put_u64(out, usage.reasoning_tokens);
    put(out, "},\"total_tokens\":");
    put_u64(out, usage.total_tokens());
    put(out, "}");
}

fn is_allowed_tools(choice: &str) -> bool {
    choice.starts_with('{') && choice.contains("\"allowed_tools\"")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn echo(head: &ResponseHead, request: &InferenceRequest) -> String {
    let mut given: [Option<&str>; ECHOED.len()] = [None; ECHOED.len()];
    let (mut text_field, mut reasoning, mut tools) = (None, None, None);
    // The body was checked when it was read; a caller of another dialect has nothing to echo.
    if request.dialect == Dialect::Responses
        && let Ok(raw) = std::str::from_utf8(&request.raw)
    {
        let _ = members(raw, |key, place| {
            let value = &raw[place];
            if value == "null" {
                return;
            }
            match key {
                "text" => text_field = Some(value),
                "reasoning" => reasoning = Some(value),
                "tools" => tools = Some(value),
                _ => {
                    if let Some(index) = ECHOED.iter().position(|(name, _)| *name == key) {
                        given[index] = Some(value);
                    }
                }
            }
        });
    }
    let mut out = BytesMut::with_capacity(1024);
    put(&mut out, NOT_KEPT);
    put(&mut out, ",\"service_tier\":");
    put_str(&mut out, head.service_tier.as_deref().unwrap_or("default"));
    for ((name, default), given) in ECHOED.iter().zip(given) {
        let value = given.unwrap_or(default);
        if !value.is_empty() {
            put(&mut out, ",\"");
            put(&mut out, name);
            put(&mut out, "\":");
            put(&mut out, value);
        }
    }
    put(&mut out, ",\"reasoning\":");
    write_with_defaults(
        reasoning,
        &[("effort", "null"), ("summary", "null")],
        &mut out,
    );
    put(&mut out, ",\"text\":");
    write_with_defaults(text_field, &[("format", "{\"type\":\"text\"}")], &mut out);
    put(&mut out, ",\"tools\":[");
    // `allowed_tools` narrows what the model is shown and not what the caller is told.
    let narrowed = ECHOED
        .iter()
        .zip(given)
        .any(|((name, _), given)| *name == "tool_choice" && given.is_some_and(is_allowed_tools));
    let whole = tools.filter(|_| narrowed).and_then(tools_of);
    for (index, tool) in whole.as_ref().unwrap_or(&request.tools).iter().enumerate() {
        if index > 0 {
            put(&mut out, ",");
        }
        write_tool(tool, &mut out);
    }
    put(&mut out, "]");
    // Callers may have sent line breaks between tokens; an event has none.
    for byte in out.iter_mut() {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    text(&out)
}

/// Writes an object as given, with the keys that readers demand added where they are missing or `null`.
fn write_with_defaults(given: Option<&str>, defaults: &[(&str, &str)], out: &mut BytesMut) {
    put(out, "{");
    let mut first = true;
    let mut seen = vec![false; defaults.len()];
    let mut member = |key: &str, value: &str, out: &mut BytesMut| {
        if !std::mem::take(&mut first) {
            put(out, ",");
        }
        put_str(out, key);
        put(out, ":");
        put(out, value);
    };
    if let Some(given) = given {
        let _ = members(given, |key, place| {
            let value = &given[place];
            if value == "null" {
                return;
            }
            if let Some(index) = defaults.iter().position(|(name, _)| *name == key) {
                seen[index] = true;
            }
            member(key, value, out);
        });
    }
    for ((key, value), seen) in defaults.iter().zip(seen) {
        if !seen {
            member(key, value, out);
        }
    }
    put(out, "}");
}
