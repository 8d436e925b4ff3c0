//! Responses as they are kept and as they are shown again: taken out of the frames that their caller saw, so that
//! what is stored is what was sent.

use bytes::{Bytes, BytesMut};
use honshu_domain::{RawJson, StoredItem, StoredStatus};

use super::encode::is_terminal;
use crate::json::{elements, members, parse_text, put, put_str};

/// A response at its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// How it ended.
    pub status: StoredStatus,
    /// The object without its `output`.
    pub object: RawJson,
    /// The output.
    pub output: Vec<StoredItem>,
}

impl Kept {
    /// Takes a whole response object apart. `None` for anything else.
    pub fn of(body: &str) -> Option<Self> {
        let mut object = BytesMut::with_capacity(1_024);
        let (mut status, mut output) = (None, Vec::new());
        put(&mut object, "{");
        members(body, |key, place| {
            let value = &body[place];
            match key {
                "output" => {
                    let _ = elements(value, |item| output.extend(stored(item)));
                    return;
                }
                "status" => status = StoredStatus::parse(value.trim_matches('"')),
                _ => {}
            }
            if object.len() > 1 {
                put(&mut object, ",");
            }
            put_str(&mut object, key);
            put(&mut object, ":");
            put(&mut object, value);
        })
        .ok()?;
        put(&mut object, "}");
        Some(Self {
            status: status?,
            object: RawJson::parse(std::str::from_utf8(&object).ok()?).ok()?,
            output,
        })
    }

    /// Takes the response out of the terminal frame at the end of some frames.
    pub fn of_frames(frames: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(frames).ok()?;
        let data = text.rsplit("\n\n").find_map(|frame| {
            let (event, data) = frame.split_once("\ndata: ")?;
            is_terminal(event.strip_prefix("event: ")?).then_some(data)
        })?;
        let mut kept = None;
        members(data, |key, place| {
            if key == "response" {
                kept = Self::of(&data[place]);
            }
        })
        .ok()?;
        kept
    }
}

fn stored(item: &str) -> Option<StoredItem> {
    let node = parse_text(item).ok()?;
    Some(StoredItem {
        id: node.find_str("id").unwrap_or_default().into(),
        json: RawJson::parse(item).ok()?,
    })
}

/// The whole object again.
pub fn join(object: &RawJson, output: &[StoredItem]) -> Bytes {
    let text = object.get().trim_end();
    let mut out = BytesMut::with_capacity(text.len() + output.len() * 256 + 16);
    put(&mut out, text.strip_suffix('}').unwrap_or(text));
    put(&mut out, ",\"output\":[");
    for (index, item) in output.iter().enumerate() {
        if index > 0 {
            put(&mut out, ",");
        }
        put(&mut out, item.json.get());
    }
    put(&mut out, "]}");
    out.freeze()
}

/// The response object in the first of some frames.
pub fn object_in_first_frame(frames: &Bytes) -> Option<Bytes> {
    let text = std::str::from_utf8(frames).ok()?;
    let (_, data) = text.split("\n\n").next()?.split_once("\ndata: ")?;
    let mut object = None;
    members(data, |key, place| {
        if key == "response" {
            object = Some(Bytes::copy_from_slice(data[place].as_bytes()));
        }
    })
    .ok()?;
    object
}

/// A list of items as the endpoints give it.
pub fn item_list(items: &[StoredItem], has_more: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(256 + items.len() * 256);
    put(&mut out, "{\"object\":\"list\",\"data\":[");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            put(&mut out, ",");
        }
        put(&mut out, item.json.get());
    }
    put(&mut out, "],\"first_id\":");
    id(items.first(), &mut out);
    put(&mut out, ",\"last_id\":");
    id(items.last(), &mut out);
    put(
        &mut out,
        if has_more {
            ",\"has_more\":true}"
        } else {
            ",\"has_more\":false}"
        },
    );
    out.freeze()
}

fn id(item: Option<&StoredItem>, out: &mut BytesMut) {
    match item {
        Some(item) => put_str(out, &item.id),
        None => put(out, "null"),
    }
}

/// The frames of a stream after the event numbered `after`, given frames of which the first has the number `first`.
pub fn frames_after(frames: &[u8], first: u64, after: Option<u64>) -> &[u8] {
    let Some(skip) = after.and_then(|after| (after + 1).checked_sub(first)) else {
        return frames;
    };
    let mut rest = frames;
    for _ in 0..skip {
        let Some(end) = memchr::memmem::find(rest, b"\n\n") else {
            return &[];
        };
        rest = &rest[end + 2..];
    }
    rest
}
