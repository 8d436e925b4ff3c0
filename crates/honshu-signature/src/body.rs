//! The body of a signed request: checked while it arrives, never kept.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Context, SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::{BodyError, SignatureError};

/// What a verified signature says about the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyRule {
    /// No body was signed, so none may arrive.
    Empty,
    /// Exactly these bytes were signed.
    Exact {
        /// Length in bytes.
        bytes: u64,
        /// SHA-256 of the body.
        sha256: [u8; 32],
    },
}

impl BodyRule {
    pub(crate) fn from_headers(length: &[u8], sha256: &[u8]) -> Result<Self, SignatureError> {
        // `parse` alone would take a leading plus sign.
        if length.is_empty() || !length.iter().all(u8::is_ascii_digit) {
            return Err(SignatureError::ContentLength);
        }
        let bytes = std::str::from_utf8(length)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(SignatureError::ContentLength)?;
        let sha256 = STANDARD
            .decode(sha256)
            .ok()
            .and_then(|digest| digest.try_into().ok())
            .ok_or(SignatureError::ContentSha256)?;
        Ok(Self::Exact { bytes, sha256 })
    }

    /// Starts to check a body against this rule.
    #[must_use]
    pub fn digest(&self) -> BodyDigest {
        BodyDigest {
            rule: self.clone(),
            received: 0,
            context: Context::new(&SHA256),
        }
    }
}

/// Checks a body while it arrives. Holds a hash state, not the body.
pub struct BodyDigest {
    rule: BodyRule,
    received: u64,
    context: Context,
}

impl BodyDigest {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`BodyError::TooLong`] as soon as more bytes arrived than were signed, so
    /// that a caller can stop reading.
    pub fn update(&mut self, chunk: &[u8]) -> Result<(), BodyError> {
        let signed = match self.rule {
            BodyRule::Empty => 0,
            BodyRule::Exact { bytes, .. } => bytes,
        };
        self.received = self.received.saturating_add(chunk.len() as u64);
        if self.received > signed {
            return Err(BodyError::TooLong { signed });
        }
        self.context.update(chunk);
        Ok(())
    }

    /// Decides, once the body has ended.
    ///
    /// # Errors
    /// [`BodyError`] if the body is not the signed one. The digests are compared
    /// in constant time.
    pub fn finish(self) -> Result<(), BodyError> {
        match self.rule {
            BodyRule::Empty if self.received == 0 => Ok(()),
            BodyRule::Empty => Err(BodyError::TooLong { signed: 0 }),
            BodyRule::Exact { bytes, .. } if self.received > bytes => {
                Err(BodyError::TooLong { signed: bytes })
            }
            BodyRule::Exact { bytes, .. } if self.received < bytes => Err(BodyError::TooShort {
                signed: bytes,
                received: self.received,
            }),
            BodyRule::Exact { sha256, .. } => {
                verify_slices_are_equal(self.context.finish().as_ref(), &sha256)
                    .map_err(|_| BodyError::Digest)
            }
        }
    }
}

/// SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// The value of `x-content-sha256` for a body.
#[must_use]
pub fn sha256_base64(body: &[u8]) -> String {
    STANDARD.encode(digest(&SHA256, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(body: &[u8]) -> BodyRule {
        BodyRule::from_headers(
            body.len().to_string().as_bytes(),
            sha256_base64(body).as_bytes(),
        )
        .unwrap()
    }

    type Case<'a> = (&'a [&'a [u8]], Result<(), BodyError>);

    fn check(rule: &BodyRule, chunks: &[&[u8]]) -> Result<(), BodyError> {
        let mut digest = rule.digest();
        for chunk in chunks {
            digest.update(chunk)?;
        }
        digest.finish()
    }

    #[test]
    fn only_the_signed_bytes_pass() {
        let hello = rule(b"hello");
        let table: [Case<'_>; 6] = [
            (&[b"hello"], Ok(())),
            (&[b"he", b"", b"llo"], Ok(())),
            (&[b"hellO"], Err(BodyError::Digest)),
            (&[b"hello", b"!"], Err(BodyError::TooLong { signed: 5 })),
            (
                &[b"hell"],
                Err(BodyError::TooShort {
                    signed: 5,
                    received: 4,
                }),
            ),
            (
                &[],
                Err(BodyError::TooShort {
                    signed: 5,
                    received: 0,
                }),
            ),
        ];
        for (chunks, expected) in table {
            assert_eq!(check(&hello, chunks), expected);
        }
        assert_eq!(check(&rule(b""), &[]), Ok(()));
        assert_eq!(check(&BodyRule::Empty, &[b""]), Ok(()));
        assert_eq!(
            check(&BodyRule::Empty, &[b"x"]),
            Err(BodyError::TooLong { signed: 0 })
        );
    }

    #[test]
    fn an_error_that_was_ignored_still_fails_at_the_end() {
        let mut digest = rule(b"hello").digest();
        let _ = digest.update(b"hello world");
        assert_eq!(digest.finish(), Err(BodyError::TooLong { signed: 5 }));
    }

    #[test]
    fn content_headers_are_read_strictly() {
        let good = sha256_base64(b"");
        for length in ["", "+5", "-1", "5 ", "0x5", "1e3", "99999999999999999999"] {
            assert_eq!(
                BodyRule::from_headers(length.as_bytes(), good.as_bytes()),
                Err(SignatureError::ContentLength),
                "{length}"
            );
        }
        for digest in ["", "AAAA", "not base64", &good[1..], &format!("{good}=")] {
            assert_eq!(
                BodyRule::from_headers(b"0", digest.as_bytes()),
                Err(SignatureError::ContentSha256),
                "{digest}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_split_passes_and_any_changed_byte_fails(
            body in proptest::collection::vec(any::<u8>(), 1..300),
            cut in any::<prop::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let rule = rule(&body);
            let at = cut.index(body.len());
            prop_assert_eq!(check(&rule, &[&body[..at], &body[at..]]), Ok(()));
            let mut changed = body.clone();
            changed[at] ^= 1 << bit;
            prop_assert_eq!(check(&rule, &[&changed]), Err(BodyError::Digest));
        }
    }
}
