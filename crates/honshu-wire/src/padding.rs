//! Padding of the deltas of a stream (`stream_options.include_obfuscation`): whoever sees encrypted packets go by
//! learns from their lengths how long the words are. OpenAI fills the text of a delta up to a multiple of sixteen;
//! here the whole event is filled up, so that numbers and log probabilities tell nothing either.

use bytes::{BufMut as _, Bytes, BytesMut};
use honshu_domain::{Entropy, InferenceRequest};

use crate::json::put;
use crate::rewrite::copy_members;

/// The data of a padded event has a multiple of so many bytes.
const STEP: usize = 32;

/// What the field costs without its value: `,"obfuscation":""`.
const FIELD: &str = ",\"obfuscation\":\"";

/// Makes padding. The characters need not be secret, only of no use to a compressor.
#[derive(Debug)]
pub(crate) struct Padding(u64);

impl Padding {
    /// For a request that asked for it.
    pub(crate) fn of(request: &InferenceRequest, entropy: &dyn Entropy) -> Option<Self> {
        request.obfuscates.then(|| {
            let mut seed = [0_u8; 8];
            entropy.fill(&mut seed);
            Self(u64::from_le_bytes(seed))
        })
    }

    /// Appends the field to an object that was begun at `from` and lacks its `}`.
    pub(crate) fn put(&mut self, from: usize, out: &mut BytesMut) {
        const CHARACTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        put(out, FIELD);
        let length = out.len() - from + 2;
        for _ in length..length.next_multiple_of(STEP) {
            // SplitMix64.
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            out.put_u8(CHARACTERS[usize::from((z >> 58) as u8)]);
        }
        put(out, "\"");
    }

    /// An upstream's event with the field. Padding of the upstream's own fits no more: names were changed in it.
    pub(crate) fn pad(&mut self, json: &Bytes) -> Bytes {
        let Ok(text) = std::str::from_utf8(json) else {
            return json.clone();
        };
        let mut out = BytesMut::with_capacity(text.len() + FIELD.len() + STEP + 2);
        put(&mut out, "{");
        if copy_members(text, &["obfuscation"], &mut out).is_err() {
            return json.clone();
        }
        self.put(0, &mut out);
        put(&mut out, "}");
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_becomes_a_multiple_of_the_step_and_stays_json() {
        let mut padding = Padding(1);
        let mut seen = std::collections::HashSet::new();
        for length in 0..100 {
            let json = Bytes::from(format!("{{ \"delta\": \"{}\" }}", "x".repeat(length)));
            let padded = padding.pad(&json);
            assert_eq!(padded.len() % STEP, 0);
            let value: serde_json::Value = serde_json::from_slice(&padded).unwrap();
            assert_eq!(value["delta"].as_str().unwrap().len(), length);
            seen.insert(value["obfuscation"].as_str().unwrap().to_owned());
            let again = padding.pad(&padded);
            assert_eq!(again.len(), padded.len(), "not twice");
        }
        assert!(seen.len() > 50, "it is random: {seen:?}");
    }
}
