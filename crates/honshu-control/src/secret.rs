//! The secrets of API keys: made once, shown once, stored as a keyed digest.
//!
//! [`PlainSecret`] is what the caller holds and [`SecretDigest`] what we hold. Neither prints, and no other
//! type of this crate carries a secret in clear.

use std::fmt;

use aws_lc_rs::{constant_time, hmac};
use honshu_domain::Entropy;
use zeroize::Zeroizing;

use crate::pepper::Pepper;

const PREFIX: &str = "sk-";
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Random characters: 42 of base 62 are 250 bits.
const RANDOM_CHARS: usize = 42;
/// CRC-32 in base 62 takes at most six characters.
const CHECKSUM_CHARS: usize = 6;
const SECRET_BYTES: usize = PREFIX.len() + RANDOM_CHARS + CHECKSUM_CHARS;

/// A secret in clear: `sk-`, 42 random base-62 characters and a checksum of six. It wipes itself.
pub struct PlainSecret(Zeroizing<String>);

impl PlainSecret {
    /// Makes a fresh secret.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(SECRET_BYTES));
        text.push_str(PREFIX);
        let mut random = Zeroizing::new([0_u8; 64]);
        while text.len() < PREFIX.len() + RANDOM_CHARS {
            entropy.fill(&mut random[..]);
            for byte in random.iter() {
                // Bytes above the largest multiple of 62 would favour the first characters.
                if *byte < 248 && text.len() < PREFIX.len() + RANDOM_CHARS {
                    text.push(char::from(ALPHABET[usize::from(byte % 62)]));
                }
            }
        }
        let sum = checksum(text[PREFIX.len()..].as_bytes());
        text.extend(sum.iter().map(|byte| char::from(*byte)));
        Self(text)
    }

    /// Takes a text of the right form. Anything else is refused here, without a look-up.
    pub fn parse(text: &str) -> Option<Self> {
        is_well_formed(text).then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// The secret itself, for the one answer that shows it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What may be shown at any time: `sk-****` and the last four characters, which are part of the checksum.
    pub fn mask(&self) -> String {
        format!("{PREFIX}****{}", &self.0[SECRET_BYTES - 4..])
    }

    /// What is stored and looked up.
    pub fn digest(&self, pepper: &Pepper) -> SecretDigest {
        digest_of(&self.0, pepper)
    }
}

/// The digest of a text that was found well formed.
pub(crate) fn digest_of(text: &str, pepper: &Pepper) -> SecretDigest {
    let tag = hmac::sign(pepper.key(), text.as_bytes());
    let mut digest = [0_u8; 32];
    digest.copy_from_slice(tag.as_ref());
    SecretDigest(digest)
}

/// Whether a text has the form and the checksum of a secret.
pub(crate) fn is_well_formed(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == SECRET_BYTES
        && bytes.starts_with(PREFIX.as_bytes())
        && bytes[PREFIX.len()..].iter().all(u8::is_ascii_alphanumeric)
        && checksum(&bytes[PREFIX.len()..PREFIX.len() + RANDOM_CHARS])
            == bytes[PREFIX.len() + RANDOM_CHARS..]
}

/// HMAC-SHA-256 of a secret under the pepper: worthless without the pepper, and the look-up key with it.
#[derive(Clone, Copy)]
pub struct SecretDigest([u8; 32]);

impl SecretDigest {
    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Compares in constant time.
    pub fn matches(&self, stored: &[u8; 32]) -> bool {
        constant_time::verify_slices_are_equal(&self.0, stored).is_ok()
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretDigest(…)")
    }
}

/// CRC-32 (ISO-HDLC, as in zip) in base 62, most significant digit first.
fn checksum(random: &[u8]) -> [u8; CHECKSUM_CHARS] {
    let mut rest = !random.iter().fold(!0_u32, |crc, byte| {
        CRC_TABLE[usize::from((crc as u8) ^ byte)] ^ (crc >> 8)
    });
    let mut digits = [b'0'; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0_u32; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 {
                0xedb8_8320 ^ (value >> 1)
            } else {
                value >> 1
            };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use honshu_domain::SystemEntropy;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_secret_is_sk_and_48_base62_characters_and_masks_all_but_four() {
        let secret = PlainSecret::generate(&SystemEntropy);
        let text = secret.reveal();
        assert_eq!(text.len(), 51);
        assert!(text.starts_with("sk-"));
        assert!(text[3..].bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_eq!(secret.mask(), format!("sk-****{}", &text[47..]));
        assert!(PlainSecret::parse(text).is_some());
    }

    #[test]
    fn the_checksum_is_crc32_of_the_first_42_characters() {
        // CRC-32 of "123456789" is the catalogue's check value 0xCBF43926 = 3421780262.
        assert_eq!(&checksum(b"123456789"), b"3jZRME");
        assert_eq!(
            b"3jZRME".iter().fold(0_u64, |value, digit| {
                value * 62 + ALPHABET.iter().position(|letter| letter == digit).unwrap() as u64
            }),
            3_421_780_262
        );
    }

    #[test]
    fn garbage_is_refused_by_its_form() {
        let good = PlainSecret::generate(&SystemEntropy);
        let good = good.reveal();
        for bad in [
            String::new(),
            "sk-".to_owned(),
            good[..50].to_owned(),
            format!("{good}0"),
            good.replacen("sk-", "sk_", 1),
            good.replacen("sk-", "SK-", 1),
            format!("{} ", &good[..50]),
            "sk-ありがとう".to_owned(),
        ] {
            assert!(PlainSecret::parse(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn another_pepper_gives_another_digest() {
        let secret = PlainSecret::generate(&SystemEntropy);
        let one = Pepper::from_text(&"a".repeat(32)).unwrap();
        let two = Pepper::from_text(&"b".repeat(32)).unwrap();
        assert!(secret.digest(&one).matches(secret.digest(&one).as_bytes()));
        assert!(!secret.digest(&one).matches(secret.digest(&two).as_bytes()));
        assert_eq!(format!("{:?}", secret.digest(&one)), "SecretDigest(…)");
    }

    proptest! {
        #[test]
        fn any_single_slip_of_a_typist_breaks_the_checksum(at in 3_usize..51, with in 0_usize..62) {
            let secret = PlainSecret::generate(&SystemEntropy);
            let mut bytes = secret.reveal().as_bytes().to_vec();
            prop_assume!(bytes[at] != ALPHABET[with]);
            bytes[at] = ALPHABET[with];
            prop_assert!(!is_well_formed(std::str::from_utf8(&bytes).unwrap()));
        }
    }
}
