//! Requests that are written anew in part.

use bytes::BytesMut;
use honshu_domain::InferenceRequest;

use crate::json::{members, put, put_str};

/// The request without some of its body's members, of which `text` is the JSON. What was noted of them goes too.
pub(crate) fn without_members(
    request: &InferenceRequest,
    text: &str,
    fields: &[&str],
) -> InferenceRequest {
    let mut out = BytesMut::with_capacity(text.len());
    put(&mut out, "{");
    let _ = members(text, |key, place| {
        if !fields.contains(&key) {
            if out.len() > 1 {
                put(&mut out, ",");
            }
            put_str(&mut out, key);
            put(&mut out, ":");
            put(&mut out, &text[place]);
        }
    });
    put(&mut out, "}");
    let mut without = request.clone();
    without.raw = out.freeze();
    without
        .hints
        .retain(|path| !fields.contains(&path.as_str()));
    without
}
