//! Identifiers: OCIDs for resources, prefixed ids for the OpenAI plane, request ids for correlation.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::seams::Entropy;
use crate::time::Timestamp;

/// Lower-case base 32 without the letters that look alike, as Oracle's unique parts use.
const OCID_ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The `<type>` part of an OCID that Honshu makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResourceKind {
    /// The tenancy: root of everything.
    Tenancy,
    /// A compartment.
    Compartment,
    /// A user.
    User,
    /// A group of users.
    Group,
    /// A policy.
    Policy,
    /// A generative-AI API key.
    ApiKey,
    /// A model of the catalogue.
    Model,
}

impl ResourceKind {
    /// The OCID's type word (OCI API reference).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenancy => "tenancy",
            Self::Compartment => "compartment",
            Self::User => "user",
            Self::Group => "group",
            Self::Policy => "policy",
            Self::ApiKey => "generativeaiapikey",
            Self::Model => "generativeaimodel",
        }
    }
}

/// An Oracle Cloud id: `ocid1.<type>.<realm>.[region].<unique>`. Identity resources have an empty region.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ocid(Arc<str>);

/// Why a text is not an OCID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an OCID such as `ocid1.compartment.oc1..aaaa…`")]
pub struct BadOcid(pub String);

impl Ocid {
    /// The longest OCID accepted, in bytes.
    pub const BYTES_MAX: usize = 255;

    /// Makes a fresh id with 60 random characters (300 bits). `region` is `""` for identity resources.
    pub fn generate(kind: ResourceKind, region: &str, entropy: &dyn Entropy) -> Self {
        let mut random = [0_u8; 60];
        entropy.fill(&mut random);
        let unique: String = random
            .iter()
            .map(|byte| char::from(OCID_ALPHABET[usize::from(byte & 31)]))
            .collect();
        Self(format!("ocid1.{}.oc1.{region}.{unique}", kind.as_str()).into())
    }

    /// An id that is always the same for the same `name`, for resources that are data, such as models.
    /// `digest` is a hash of the name, at least 32 bytes are used.
    pub fn from_digest(kind: ResourceKind, region: &str, digest: &[u8]) -> Self {
        let unique: String = digest
            .iter()
            .flat_map(|byte| [byte & 31, byte >> 3])
            .map(|five| char::from(OCID_ALPHABET[usize::from(five)]))
            .take(60)
            .collect();
        Self(format!("ocid1.{}.oc1.{region}.{unique}", kind.as_str()).into())
    }

    /// Checks the form, not the existence.
    ///
    /// # Errors
    /// [`BadOcid`] when the text has not the five dot-separated parts or has characters outside `[A-Za-z0-9_-]`.
    pub fn parse(text: &str) -> Result<Self, BadOcid> {
        let mut parts = text.split('.');
        let well_formed = text.len() <= Self::BYTES_MAX
            && parts.next() == Some("ocid1")
            && parts.next().is_some_and(|kind| !kind.is_empty())
            && parts.next().is_some_and(|realm| !realm.is_empty())
            && parts.next().is_some()
            && parts.next().is_some_and(|unique| !unique.is_empty())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'_' || b == b'-');
        if well_formed {
            Ok(Self(text.into()))
        } else {
            Err(BadOcid(text.chars().take(80).collect()))
        }
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The `<type>` part.
    pub fn kind(&self) -> &str {
        self.0.split('.').nth(1).unwrap_or_default()
    }

    /// The `[region]` part; empty for identity resources.
    pub fn region(&self) -> &str {
        self.0.split('.').nth(3).unwrap_or_default()
    }
}

impl fmt::Display for Ocid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Ocid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Ocid {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Serialize for Ocid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Ocid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

/// An id of the OpenAI plane: a prefix that tells the kind and 24 random bytes in base 62 or hex.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PublicId(Arc<str>);

impl PublicId {
    /// Makes `prefix` followed by 40 random base-62 characters (about 238 bits).
    /// Prefixes: `resp_`, `msg_`, `fc_`, `rs_`, `call_`, `chatcmpl-`.
    pub fn generate(prefix: &str, entropy: &dyn Entropy) -> Self {
        let mut text = String::with_capacity(prefix.len() + 40);
        text.push_str(prefix);
        push_random::<40>(&mut text, entropy);
        Self(text.into())
    }

    /// Makes `prefix`, the time in ten base-62 digits and 22 random ones (about 131 bits), so that ids sort by
    /// time. A table that is keyed by them grows at its end instead of everywhere at once, which a database
    /// answers with a third of the page writes. For ids that callers do not see, as it tells the time.
    pub fn generate_ordered(prefix: &str, now: Timestamp, entropy: &dyn Entropy) -> Self {
        let mut rest = u64::try_from(now.as_micros()).unwrap_or(0);
        let mut digits = [b'0'; 10];
        for digit in digits.iter_mut().rev() {
            *digit = BASE62[(rest % 62) as usize];
            rest /= 62;
        }
        let mut text = String::with_capacity(prefix.len() + digits.len() + 22);
        text.push_str(prefix);
        text.extend(digits.map(char::from));
        push_random::<22>(&mut text, entropy);
        Self(text.into())
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PublicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn push_random<const N: usize>(text: &mut String, entropy: &dyn Entropy) {
    let mut random = [0_u8; N];
    entropy.fill(&mut random);
    // The bias of a byte modulo 62 is below 2% a character: harmless in an id that is not a secret.
    text.extend(random.map(|byte| char::from(BASE62[usize::from(byte % 62)])));
}

/// The id under which one HTTP request is found in logs: `x-request-id` and the last part of
/// `opc-request-id`. 32 upper-case hexadecimal digits, as OCI's are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Makes a fresh id from 16 random bytes.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        let mut random = [0_u8; 16];
        entropy.fill(&mut random);
        let mut text = String::with_capacity(32);
        for byte in random {
            text.push(char::from(HEX[usize::from(byte >> 4)]));
            text.push(char::from(HEX[usize::from(byte & 15)]));
        }
        Self(text.into())
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seams::SystemEntropy;

    #[test]
    fn generated_ocids_parse_and_tell_kind_and_region() {
        let id = Ocid::generate(ResourceKind::ApiKey, "ap-osaka-1", &SystemEntropy);
        assert_eq!(Ocid::parse(id.as_str()).unwrap(), id);
        assert_eq!(
            (id.kind(), id.region()),
            ("generativeaiapikey", "ap-osaka-1")
        );
        let user = Ocid::generate(ResourceKind::User, "", &SystemEntropy);
        assert!(user.as_str().starts_with("ocid1.user.oc1.."));
        assert_eq!(Ocid::parse(user.as_str()).unwrap(), user);
    }

    #[test]
    fn ordered_ids_sort_by_time_and_differ_at_the_same_time() {
        let at = |micros| {
            PublicId::generate_ordered("run_", Timestamp::from_micros(micros), &SystemEntropy)
        };
        let ids = [0, 61, 62, 1_764_000_000_000_000, 1_764_000_000_000_001].map(at);
        assert!(
            ids.windows(2)
                .all(|pair| pair[0].as_str() < pair[1].as_str()),
            "{ids:?}"
        );
        assert!(ids.iter().all(|id| id.as_str().len() == 36));
        assert_ne!(at(7), at(7));
    }

    #[test]
    fn text_without_the_five_parts_is_refused() {
        for bad in [
            "",
            "ocid1",
            "ocid1.user.oc1.",
            "ocid1.user.oc1..",
            "ocid2.user.oc1..a",
            "ocid1..oc1..a",
            "ocid1.user.oc1..a b",
        ] {
            assert!(Ocid::parse(bad).is_err(), "{bad}");
        }
    }
}
