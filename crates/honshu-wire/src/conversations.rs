//! Conversations, their items and files, as the endpoints of the OpenAI plane read and write them.

use bytes::{Bytes, BytesMut};
use honshu_domain::{Error, RawJson, StoredConversation, StoredFile, StoredItem};

use crate::json::{Path, put, put_str, put_u64};
use crate::problems::{self, Findings, WRONG_VALUE, raw};
use crate::responses::{fields, items};

pub use crate::responses::item_list;

/// Items in one request (OpenAI API reference).
const ITEMS_MAX: usize = 20;

/// The body of `POST /conversations`.
#[derive(Debug, Clone, PartialEq)]
pub struct ConversationBody {
    /// The metadata, an object; absent when the body has none.
    pub metadata: Option<RawJson>,
    /// The first items.
    pub items: Vec<RawJson>,
}

/// Reads the body of `POST /conversations`.
///
/// # Errors
/// `Invalid` with every problem found and its JSON path.
pub fn parse_conversation(body: &Bytes) -> Result<ConversationBody, Error> {
    let mut parsed = ConversationBody {
        metadata: None,
        items: Vec::new(),
    };
    if body.is_empty() {
        return Ok(parsed);
    }
    let root = problems::body(body)?;
    let mut findings = Findings::default();
    if let Some(node) = root.find("metadata") {
        fields::metadata(node, &Path::Root.key("metadata"), &mut findings);
        parsed.metadata = raw(node);
    }
    if let Some(node) = root.find("items") {
        parsed.items = items_of(node, &mut findings);
    }
    findings.check()?;
    Ok(parsed)
}

/// Reads a body that changes an object's metadata, a conversation's or a stored chat completion's. `null` takes
/// all of it away.
///
/// # Errors
/// `Invalid` with every problem found and its JSON path.
pub fn parse_metadata(body: &Bytes) -> Result<RawJson, Error> {
    let root = problems::body(body)?;
    let mut findings = Findings::default();
    let (at, empty) = (Path::Root, || RawJson::parse("{}").map_err(Error::internal));
    let members = root.as_object().unwrap_or_default();
    let Some((_, node)) = members.iter().find(|(key, _)| key == "metadata") else {
        findings.missing(&at.key("metadata"));
        findings.check()?;
        return empty();
    };
    fields::metadata(node, &at.key("metadata"), &mut findings);
    findings.check()?;
    match raw(node) {
        Some(metadata) if !node.is_null() => Ok(metadata),
        _ => empty(),
    }
}

/// Reads the body of `POST /conversations/{id}/items`.
///
/// # Errors
/// `Invalid` with every problem found and its JSON path.
pub fn parse_items(body: &Bytes) -> Result<Vec<RawJson>, Error> {
    let root = problems::body(body)?;
    let mut findings = Findings::default();
    let items = match root.find("items") {
        Some(node) => items_of(node, &mut findings),
        None => {
            findings.missing(&Path::Root.key("items"));
            Vec::new()
        }
    };
    findings.check()?;
    Ok(items)
}

fn items_of(node: &crate::json::Node<'_>, findings: &mut Findings) -> Vec<RawJson> {
    let root = Path::Root;
    let path = root.key("items");
    let nodes = findings.array(node, &path).unwrap_or_default();
    if nodes.len() > ITEMS_MAX {
        let what = format!("at most {ITEMS_MAX} items, got {}", nodes.len());
        findings.problem(&path, WRONG_VALUE, what);
    }
    let mut kept = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().take(ITEMS_MAX).enumerate() {
        let at = path.index(index);
        if matches!(
            node.find_str("type"),
            Some("item_reference" | "compaction_trigger")
        ) {
            let what = "an item of this type cannot be kept in a conversation";
            findings.problem(&at.key("type"), WRONG_VALUE, what);
        } else if items::read(node, &at, findings).is_some() {
            kept.extend(raw(node));
        }
    }
    kept
}

/// A conversation as JSON.
pub fn conversation(conversation: &StoredConversation) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    put(&mut out, "{\"id\":");
    put_str(&mut out, &conversation.id);
    put(&mut out, ",\"object\":\"conversation\",\"created_at\":");
    put(
        &mut out,
        itoa::Buffer::new().format(conversation.created.as_seconds()),
    );
    put(&mut out, ",\"metadata\":");
    put(&mut out, conversation.metadata.get());
    put(&mut out, "}");
    out.freeze()
}

/// That something was deleted: `{"id":…,"object":…,"deleted":true}`.
pub fn deleted(id: &str, object: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(128);
    put(&mut out, "{\"id\":");
    put_str(&mut out, id);
    put(&mut out, ",\"object\":");
    put_str(&mut out, object);
    put(&mut out, ",\"deleted\":true}");
    out.freeze()
}

/// An item as JSON.
pub fn item(item: &StoredItem) -> Bytes {
    Bytes::copy_from_slice(item.json.get().as_bytes())
}

/// A file as JSON.
pub fn file(file: &StoredFile) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    write_file(file, &mut out);
    out.freeze()
}

fn write_file(file: &StoredFile, out: &mut BytesMut) {
    put(out, "{\"id\":");
    put_str(out, &file.id);
    put(out, ",\"object\":\"file\",\"bytes\":");
    put_u64(out, file.bytes);
    put(out, ",\"created_at\":");
    put(out, itoa::Buffer::new().format(file.created.as_seconds()));
    put(out, ",\"filename\":");
    put_str(out, &file.filename);
    put(out, ",\"purpose\":");
    put_str(out, &file.purpose);
    if let Some(expires) = file.expires {
        put(out, ",\"expires_at\":");
        put(out, itoa::Buffer::new().format(expires.as_seconds()));
    }
    // Files are ready when they are there.
    put(out, ",\"status\":\"processed\"}");
}

/// A list of files.
pub fn file_list(files: &[StoredFile], has_more: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(128 + files.len() * 256);
    put(&mut out, "{\"object\":\"list\",\"data\":[");
    for (index, file) in files.iter().enumerate() {
        if index > 0 {
            put(&mut out, ",");
        }
        write_file(file, &mut out);
    }
    put(&mut out, "]");
    for (key, file) in [
        (",\"first_id\":", files.first()),
        (",\"last_id\":", files.last()),
    ] {
        put(&mut out, key);
        match file {
            Some(file) => put_str(&mut out, &file.id),
            None => put(&mut out, "null"),
        }
    }
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
