//! Texts that callers carry for us and cannot read or change: summaries in `compaction` items and reasoning in
//! `encrypted_content`. They open in the scope that they were made in and nowhere else.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use honshu_domain::{Entropy, Error, Scope};

/// What sealed texts begin with; upstreams' own do not.
const MARK: &str = "hsealed1.";

/// Seals and opens texts.
pub struct Seal(LessSafeKey);

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

/// What a sealed text is for: one cannot be passed off as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Compaction,
    Reasoning,
}

impl Seal {
    /// A seal with a key of 256 bits, the same on all nodes.
    ///
    /// # Errors
    /// Our own fault: the library takes no such key.
    pub fn new(key: &[u8; 32]) -> Result<Self, Error> {
        UnboundKey::new(&AES_256_GCM, key)
            .map(|key| Self(LessSafeKey::new(key)))
            .map_err(|_| Error::internal("the key of sealed items is not taken"))
    }

    pub(crate) fn seal(
        &self,
        purpose: Purpose,
        scope: &Scope,
        text: &str,
        entropy: &dyn Entropy,
    ) -> Result<String, Error> {
        let mut nonce = [0_u8; NONCE_LEN];
        entropy.fill(&mut nonce);
        let mut sealed = text.as_bytes().to_vec();
        self.0
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bound(purpose, scope)),
                &mut sealed,
            )
            .map_err(|_| Error::internal("a text could not be sealed"))?;
        let whole = [&nonce[..], &sealed].concat();
        Ok(format!("{MARK}{}", URL_SAFE_NO_PAD.encode(whole)))
    }

    /// Whether a text was sealed here, by its look.
    pub(crate) fn is_ours(sealed: &str) -> bool {
        sealed.starts_with(MARK)
    }

    /// Opens a text. `None` for one that was altered, or was made for another purpose or scope.
    pub(crate) fn open(&self, purpose: Purpose, scope: &Scope, sealed: &str) -> Option<String> {
        let whole = URL_SAFE_NO_PAD.decode(sealed.strip_prefix(MARK)?).ok()?;
        let (nonce, rest) = whole.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut rest = rest.to_vec();
        let opened = self
            .0
            .open_in_place(nonce, Aad::from(bound(purpose, scope)), &mut rest)
            .ok()?;
        String::from_utf8(opened.to_vec()).ok()
    }
}

fn bound(purpose: Purpose, scope: &Scope) -> Vec<u8> {
    let project = scope
        .project
        .as_ref()
        .map_or("", |project| project.as_str());
    format!(
        "{purpose:?} {} {} {project}",
        scope.region, scope.compartment
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use honshu_domain::{Ocid, SystemEntropy};

    use super::*;

    fn scope(name: &str) -> Scope {
        Scope {
            region: "local-1".into(),
            compartment: Ocid::parse(&format!("ocid1.compartment.oc1..{name}")).unwrap(),
            project: None,
        }
    }

    #[test]
    fn a_text_opens_for_its_scope_and_purpose_only_and_unchanged_only() {
        let seal = Seal::new(&[7; 32]).unwrap();
        let (mine, theirs) = (scope("mine"), scope("theirs"));
        let make = || seal.seal(Purpose::Compaction, &mine, "what was said", &SystemEntropy);
        let sealed = make().unwrap();
        assert!(Seal::is_ours(&sealed) && !sealed.contains("said"));
        assert_ne!(sealed, make().unwrap(), "no two are alike");
        let open = |purpose, scope, text: &str| seal.open(purpose, scope, text);
        assert_eq!(
            open(Purpose::Compaction, &mine, &sealed).as_deref(),
            Some("what was said")
        );
        assert_eq!(open(Purpose::Compaction, &theirs, &sealed), None);
        assert_eq!(open(Purpose::Reasoning, &mine, &sealed), None);
        let other = Seal::new(&[8; 32]).unwrap();
        assert_eq!(other.open(Purpose::Compaction, &mine, &sealed), None);
        for place in MARK.len()..sealed.len() {
            let mut altered = sealed.clone().into_bytes();
            altered[place] = if altered[place] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            assert_eq!(open(Purpose::Compaction, &mine, &altered), None, "{place}");
        }
        for nonsense in ["", "hsealed1.", "hsealed1.AAAA", "hsealed1.%%%", "gAAAAA"] {
            assert_eq!(open(Purpose::Compaction, &mine, nonsense), None);
        }
    }
}
