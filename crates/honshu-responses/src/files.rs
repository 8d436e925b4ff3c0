//! Files that content parts name by their ids: text goes into the prompt, images as data URLs. What no model here
//! could read is refused by name.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use honshu_domain::{Error, RawJson, Scope, StoredFile};
use honshu_gateway::Call;
use honshu_wire::images;
use honshu_wire::responses::{named_files, replace_part, text_part};

use crate::Shared;

/// Whose files: errors name the field.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Of {
    /// The request's own input.
    Input,
    /// What the field stands for.
    History(&'static str),
}

impl Of {
    fn path(self, item: usize, part: usize) -> String {
        match self {
            Self::Input => format!("input[{item}].content[{part}].file_id"),
            Self::History(field) => field.to_owned(),
        }
    }
}

/// Replaces the parts that name files. True when there were some.
pub(crate) async fn inline(
    shared: &Shared,
    scope: &Scope,
    call: &Call,
    items: &mut [RawJson],
    of: Of,
) -> Result<bool, Error> {
    let named = named_files(items);
    if let Some((item_index, part_index, id)) = named.first() {
        // Whoever may not read files hears of each what is heard of one that never was.
        let error = unknown(id, &of.path(*item_index, *part_index));
        shared.callers.may_read_files(call, error)?;
    }
    for (item_index, part_index, id) in &named {
        let at = of.path(*item_index, *part_index);
        let part = part(shared, scope, id, &at).await?;
        if let Some(item) = items.get_mut(*item_index) {
            *item = replace_part(item, *part_index, &part)?;
        }
    }
    Ok(!named.is_empty())
}

fn unknown(id: &str, at: &str) -> Error {
    let shown: String = id.chars().take(200).collect();
    Error::invalid_at(at, format!("no file with the id `{shown}` was found"))
}

async fn part(shared: &Shared, scope: &Scope, id: &str, at: &str) -> Result<String, Error> {
    let now = shared.clock.now();
    let unknown = || unknown(id, at);
    let file = shared
        .files
        .file(scope, id, now)
        .await?
        .ok_or_else(unknown)?;
    let max = shared.limits.inline_file_bytes_max;
    if file.bytes > max {
        return Err(Error::invalid_at(
            at,
            format!(
                "the file `{}` has {} bytes; at most {max} can be put into a prompt",
                file.filename, file.bytes
            ),
        ));
    }
    let content = shared.files.file_content(scope, id, now).await?;
    content_part(&file, content.ok_or_else(unknown)?, at)
}

fn content_part(file: &StoredFile, content: Bytes, at: &str) -> Result<String, Error> {
    if let Some((kind, pixels)) = images::inspect(&content) {
        if images::is_too_large(pixels) {
            let what = format!(
                "the image `{}` has too many pixels; send a smaller one",
                file.filename
            );
            return Err(Error::invalid_at(at, what));
        }
        return Ok(format!(
            "{{\"type\":\"input_image\",\"detail\":\"auto\",\"image_url\":\"data:{kind};base64,{}\"}}",
            STANDARD.encode(&content)
        ));
    }
    match std::str::from_utf8(&content) {
        Ok(text) if !text.contains('\0') => Ok(text_part(&file.filename, text)),
        _ => Err(Error::invalid_at(
            at,
            format!(
                "the file `{}` is neither text nor an image (PNG, JPEG, GIF, WebP); send its text instead",
                file.filename
            ),
        )),
    }
}
