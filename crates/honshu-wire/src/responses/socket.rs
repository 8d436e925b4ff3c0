//! Messages of a WebSocket connection: the events of a stream, one JSON text each.

use bytes::{Bytes, BytesMut};
use honshu_domain::{Error, ErrorKind};

use crate::error::{code, openai_body, write_error};
use crate::json::{Path, members, put, put_str, put_uint};
use crate::problems::{self, Findings, WRONG_VALUE};

/// A message of a client's that asks for a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    /// The body of the request, as it would be posted.
    pub body: Bytes,
    /// The lane that the client named; every event of the turn carries it.
    pub stream_id: Option<String>,
    /// The response that the turn continues.
    pub previous_response_id: Option<String>,
}

/// Reads a message. `response.create` is the only kind that is understood.
///
/// # Errors
/// `Invalid`.
pub fn parse_create(text: &str) -> Result<Create, Error> {
    let root = problems::body(text.as_bytes())?;
    let mut findings = Findings::default();
    let path = Path::Root;
    match findings.required_string(&root, "type", &path) {
        Some("response.create") | None => {}
        Some(_) => findings.problem(&path.key("type"), WRONG_VALUE, "expected `response.create`"),
    }
    if root.find("background").and_then(crate::json::Node::as_bool) == Some(true) {
        let what = "a background response cannot be made over a WebSocket";
        findings.problem(&path.key("background"), WRONG_VALUE, what);
    }
    if let Some(lane) = root.find("stream_id") {
        findings.string(lane, &path.key("stream_id"));
    }
    findings.check()?;
    let owned = |key| root.find_str(key).map(ToOwned::to_owned);
    let mut body = BytesMut::with_capacity(text.len() + 32);
    put(&mut body, "{\"stream\":true");
    let _ = members(text, |key, place| {
        if !matches!(key, "type" | "stream" | "stream_id" | "stream_options") {
            put(&mut body, ",");
            put_str(&mut body, key);
            put(&mut body, ":");
            put(&mut body, &text[place]);
        }
    });
    put(&mut body, "}");
    Ok(Create {
        stream_id: owned("stream_id"),
        previous_response_id: owned("previous_response_id"),
        body: body.freeze(),
    })
}

/// The events of some frames of a stream, as messages.
pub fn messages(frames: &[u8], stream_id: Option<&str>) -> Vec<String> {
    String::from_utf8_lossy(frames)
        .split("\n\n")
        .filter_map(|frame| frame.split_once("\ndata: "))
        .map(|(_, data)| with_lane(data, stream_id))
        .collect()
}

fn with_lane(data: &str, stream_id: Option<&str>) -> String {
    match (stream_id, data.strip_prefix('{')) {
        (Some(lane), Some(rest)) => {
            let mut out = BytesMut::with_capacity(data.len() + lane.len() + 16);
            put(&mut out, "{\"stream_id\":");
            put_str(&mut out, lane);
            put(&mut out, ",");
            put(&mut out, rest);
            String::from_utf8_lossy(&out).into_owned()
        }
        _ => data.to_owned(),
    }
}

/// An error before a turn began, as a message.
pub fn error_message(error: &Error, request_id: &str, stream_id: Option<&str>) -> String {
    let mut out = BytesMut::with_capacity(512);
    put(&mut out, "{\"type\":\"error\",\"status\":");
    put_uint(&mut out, u32::from(openai_body(error, request_id).status));
    put(&mut out, ",\"error\":");
    if code(error).is_some() {
        write_error(error, &mut out);
    } else {
        // Readers want a text here.
        let kind = match error.kind() {
            ErrorKind::Internal | ErrorKind::Upstream | ErrorKind::Timeout(_) => "server_error",
            _ => "invalid_request_error",
        };
        write_error(&error.clone().with_code(kind), &mut out);
    }
    put(&mut out, "}");
    with_lane(&String::from_utf8_lossy(&out), stream_id)
}
