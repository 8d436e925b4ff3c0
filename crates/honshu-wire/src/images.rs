//! Images that stand in a request: what is none, or would take a decoder's memory, ends here with its place.
//!
//! Only the beginning is looked at: the format by its first bytes, and the width and height that it declares.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::json::Path;
use crate::problems::{Findings, WRONG_VALUE};

/// The most pixels of an image: a decoder takes four bytes for each. Twice what the largest cameras make.
const PIXELS_MAX: u64 = 200_000_000;

/// Characters of base64 that are decoded to find the size. In a JPEG it may stand behind a preview.
const HEAD_CHARS: usize = 128 * 1024;

/// Base64 as it comes: with padding or without.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The kind of an image, and its pixels where its beginning says how many they are. `None` for anything else.
pub fn inspect(head: &[u8]) -> Option<(&'static str, Option<u64>)> {
    let big = |at: usize| {
        head.get(at..at + 2)
            .map(|b| u64::from(b[0]) << 8 | u64::from(b[1]))
    };
    let little = |at: usize| {
        head.get(at..at + 2)
            .map(|b| u64::from(b[1]) << 8 | u64::from(b[0]))
    };
    let both = |width: Option<u64>, height: Option<u64>| Some(width?.saturating_mul(height?));
    if head.starts_with(b"\x89PNG\r\n\x1a\n") {
        let long = |at: usize| Some(big(at)? << 16 | big(at + 2)?);
        Some(("image/png", both(long(16), long(20))))
    } else if head.starts_with(b"\xff\xd8\xff") {
        Some(("image/jpeg", jpeg_pixels(head)))
    } else if head.starts_with(b"GIF87a") || head.starts_with(b"GIF89a") {
        Some(("image/gif", both(little(6), little(8))))
    } else if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
        let pixels = match head.get(12..16) {
            Some(b"VP8X") => {
                let long =
                    |at: usize| Some((little(at)? | u64::from(*head.get(at + 2)?) << 16) + 1);
                both(long(24), long(27))
            }
            Some(b"VP8L") => little(21).zip(little(23)).and_then(|(low, high)| {
                let bits = low | high << 16;
                both(Some((bits & 0x3fff) + 1), Some((bits >> 14 & 0x3fff) + 1))
            }),
            Some(b"VP8 ") => both(
                little(26).map(|width| width & 0x3fff),
                little(28).map(|height| height & 0x3fff),
            ),
            _ => None,
        };
        Some(("image/webp", pixels))
    } else {
        None
    }
}

/// Goes from marker to marker up to the one that begins a frame.
fn jpeg_pixels(head: &[u8]) -> Option<u64> {
    let two = |at: usize| {
        head.get(at..at + 2)
            .map(|b| usize::from(b[0]) << 8 | usize::from(b[1]))
    };
    let mut at = 2;
    loop {
        while *head.get(at)? == 0xff && *head.get(at + 1)? == 0xff {
            at += 1;
        }
        if *head.get(at)? != 0xff {
            return None;
        }
        match *head.get(at + 1)? {
            // Start of frame, of every kind; the three others in that row are tables.
            marker @ 0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                return Some(two(at + 5)? as u64 * two(at + 7)? as u64);
            }
            _ => at += 2 + two(at + 2)?.max(2),
        }
    }
}

/// Whether an image has too many pixels to be handed to a decoder.
pub fn is_too_large(pixels: Option<u64>) -> bool {
    pixels.is_some_and(|pixels| pixels > PIXELS_MAX)
}

/// Checks the URL of an image: one to fetch, or an image itself.
pub(crate) fn check(url: &str, path: &Path<'_>, findings: &mut Findings) {
    if let Err(what) = checked(url) {
        findings.problem(path, WRONG_VALUE, what);
    }
}

fn checked(url: &str) -> Result<(), String> {
    const KINDS: &str = "a PNG, JPEG, GIF or WebP";
    if has_scheme(url, "https://") || has_scheme(url, "http://") {
        return Ok(());
    }
    if !has_scheme(url, "data:") {
        return Err("expected a URL with `https:`, `http:` or `data:`".to_owned());
    }
    let (head, data) = url.split_once(',').unwrap_or((url, ""));
    if !head.to_ascii_lowercase().ends_with(";base64") {
        return Err(format!("expected `data:image/…;base64,` and {KINDS}"));
    }
    let data = data.trim_end_matches('=');
    let is_base64 = data.len() % 4 != 1
        && data
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'));
    if !is_base64 {
        return Err("the image is not base64".to_owned());
    }
    let start = &data[..data.len().min(HEAD_CHARS)];
    let bytes = LENIENT.decode(start).unwrap_or_default();
    let found = match inspect(&bytes) {
        // Whatever stands before the size of a JPEG may be longer than the beginning.
        Some((_, None)) if data.len() > HEAD_CHARS => {
            inspect(&LENIENT.decode(data).unwrap_or_default())
        }
        found => found,
    };
    match found {
        None => Err(format!("this is not an image: expected {KINDS}")),
        Some((_, pixels)) if is_too_large(pixels) => Err(format!(
            "the image has more than {PIXELS_MAX} pixels; send a smaller one"
        )),
        Some(_) => Ok(()),
    }
}

fn has_scheme(url: &str, scheme: &str) -> bool {
    url.get(..scheme.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        png.extend(width.to_be_bytes());
        png.extend(height.to_be_bytes());
        png.extend([8, 2, 0, 0, 0]);
        png
    }

    #[test]
    fn the_size_is_found_in_every_format() {
        let jpeg = b"\xff\xd8\xff\xe0\0\x04ab\xff\xff\xc4\0\x03a\xff\xc2\0\x0b\x08\0\x02\0\x03\x01";
        let vp8 = b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a\x02\0\x03\0";
        let lossless = b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f\x01\x80\0\0";
        let extended = b"RIFF\0\0\0\0WEBPVP8X\0\0\0\0\0\0\0\0\x01\0\0\x02\0\0";
        for (head, expected) in [
            (&png(2, 3)[..], Some(("image/png", Some(6)))),
            (
                &png(u32::MAX, u32::MAX),
                Some(("image/png", Some(0xffff_fffe_0000_0001))),
            ),
            (&png(2, 3)[..20], Some(("image/png", None))),
            (jpeg, Some(("image/jpeg", Some(6)))),
            (&jpeg[..9], Some(("image/jpeg", None))),
            (b"GIF89a\x02\0\x03\0", Some(("image/gif", Some(6)))),
            (vp8, Some(("image/webp", Some(6)))),
            (lossless, Some(("image/webp", Some(6)))),
            (extended, Some(("image/webp", Some(6)))),
            (b"BM", None),
            (b"", None),
        ] {
            assert_eq!(inspect(head), expected, "{head:?}");
        }
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let data = |bytes: &[u8]| format!("data:image/png;base64,{}", STANDARD.encode(bytes));
        let unpadded = data(&png(1, 1)).trim_end_matches('=').to_owned();
        for good in [
            "https://a/b.png",
            "HTTP://a",
            &data(&png(1, 1)),
            &unpadded,
            &data(&[png(9, 9), vec![0; 300_000]].concat()),
        ] {
            assert_eq!(checked(good), Ok(()));
        }
        for bad in [
            "",
            "x",
            "é",
            "file:///etc/passwd",
            "data:",
            "data:x",
            "data:image/png,abcd",
            "data:image/png;base64,",
            "data:image/png;base64,%%%%",
            "data:image/png;base64,iVBOR",
            &data(b"MZ not an image at all"),
            &data(&png(100_000, 100_000)),
            &data(b"GIF89a\xff\xff\xff\xff"),
        ] {
            assert!(checked(bad).is_err(), "{bad}");
        }
    }
}
