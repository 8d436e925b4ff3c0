//! The OpenAPI 3.1 document of the data plane: what its routes take and what they answer.
//!
//! It is written by hand, a file for each subject in `openapi/`, and not derived from the handlers: a document that
//! follows the code whatever the code does cannot judge it. Facts come from the types of the official Python packages
//! `openai` 3.54 and `anthropic` 2.14 and from what the encoders beside this module write. Tests hold every answer
//! against it and every route of the router, in both directions.

use std::sync::LazyLock;

use bytes::Bytes;
use honshu_domain::Error;
use serde_json::{Map, Value};

/// The document's files. The first one has everything that stands once; the others add paths and components.
const PARTS: [&str; 9] = [
    include_str!("../openapi/base.json"),
    include_str!("../openapi/responses.json"),
    include_str!("../openapi/items.json"),
    include_str!("../openapi/events.json"),
    include_str!("../openapi/conversations.json"),
    include_str!("../openapi/chat.json"),
    include_str!("../openapi/chat_stored.json"),
    include_str!("../openapi/completions.json"),
    include_str!("../openapi/messages.json"),
];

/// The document as JSON, with this build's version.
///
/// # Errors
/// Our own fault: a file of the document is not JSON, which a test excludes.
pub fn document() -> Result<Bytes, Error> {
    static DOCUMENT: LazyLock<Result<Bytes, serde_json::Error>> = LazyLock::new(assemble);
    DOCUMENT
        .as_ref()
        .map(Bytes::clone)
        .map_err(|error| Error::internal(format!("the OpenAPI document: {error}")))
}

fn assemble() -> Result<Bytes, serde_json::Error> {
    let mut whole = Map::new();
    for part in PARTS {
        merge(&mut whole, serde_json::from_str(part)?);
    }
    if let Some(Value::Object(info)) = whole.get_mut("info") {
        info.insert("version".to_owned(), env!("CARGO_PKG_VERSION").into());
    }
    serde_json::to_vec(&whole).map(Bytes::from)
}

/// Adds members, and the members of objects that are there already.
fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(there)), Value::Object(more)) => merge(there, more),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every member of a file by its path, to see that no two files say the same thing.
    fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(members) if !members.is_empty() => {
                for (key, value) in members {
                    leaves(value, &format!("{path}/{key}"), found);
                }
            }
            _ => found.push(path.to_owned()),
        }
    }

    #[test]
    fn the_parts_make_one_document_and_none_overwrites_another() {
        let mut parts = Vec::new();
        for part in PARTS {
            leaves(&serde_json::from_str(part).unwrap(), "", &mut parts);
        }
        let whole: Value = serde_json::from_slice(&document().unwrap()).unwrap();
        assert_eq!(whole["openapi"], "3.1.0");
        assert_eq!(whole["info"]["version"], env!("CARGO_PKG_VERSION"));
        let mut found = Vec::new();
        leaves(&whole, "", &mut found);
        parts.sort();
        found.sort();
        assert_eq!(parts, found);
    }
}
