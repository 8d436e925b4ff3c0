//! The models list of the OpenAI plane.

use bytes::{Bytes, BytesMut};
use honshu_domain::Timestamp;

use crate::json::{put, put_str};

/// One entry of `GET /models`.
#[derive(Debug, Clone, Copy)]
pub struct ModelEntry<'a> {
    /// The name that callers use.
    pub id: &'a str,
    /// When it came into the catalogue.
    pub created: Timestamp,
    /// The vendor.
    pub owned_by: &'a str,
}

/// The body of `GET /models`: a plain list without pages.
pub fn list<'a>(models: impl IntoIterator<Item = ModelEntry<'a>>) -> Bytes {
    let mut body = BytesMut::new();
    put(&mut body, "{\"object\":\"list\",\"data\":[");
    for (index, model) in models.into_iter().enumerate() {
        if index > 0 {
            put(&mut body, ",");
        }
        write(model, &mut body);
    }
    put(&mut body, "]}");
    body.freeze()
}

/// The body of `GET /models/{id}`.
pub fn object(model: ModelEntry<'_>) -> Bytes {
    let mut body = BytesMut::new();
    write(model, &mut body);
    body.freeze()
}

fn write(model: ModelEntry<'_>, out: &mut BytesMut) {
    put(out, "{\"id\":");
    put_str(out, model.id);
    put(out, ",\"object\":\"model\",\"created\":");
    put(out, itoa::Buffer::new().format(model.created.as_seconds()));
    put(out, ",\"owned_by\":");
    put_str(out, model.owned_by);
    put(out, "}");
}
