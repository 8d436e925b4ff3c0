//! Objects that are written anew in part.

use bytes::BytesMut;
use honshu_domain::InferenceRequest;

use crate::json::{Fault, members, put, put_str};

/// Writes the members of the object `text` but for some, behind those that `out` has since its opening brace.
///
/// # Errors
/// `text` is not an object; what came before the fault is written.
pub(crate) fn copy_members(text: &str, without: &[&str], out: &mut BytesMut) -> Result<(), Fault> {
    members(text, |key, place| {
        if !without.contains(&key) {
            if out.len() > 1 {
                put(out, ",");
            }
            put_str(out, key);
            put(out, ":");
            put(out, &text[place]);
        }
    })
}

/// The request without some of its body's members, of which `text` is the JSON. What was noted of them goes too.
pub(crate) fn without_members(
    request: &InferenceRequest,
    text: &str,
    fields: &[&str],
) -> InferenceRequest {
    let mut out = BytesMut::with_capacity(text.len());
    put(&mut out, "{");
    let _ = copy_members(text, fields, &mut out);
    put(&mut out, "}");
    let mut without = request.clone();
    without.raw = out.freeze();
    without
        .hints
        .retain(|path| !fields.contains(&path.as_str()));
    without
}
