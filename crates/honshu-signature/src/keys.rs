//! RSA keys: public halves to verify with, private halves for our own client.
//!
//! A private key cannot be printed, copied or compared, and its PEM form wipes
//! itself from memory. A public key is cheap to clone, because verifiers keep it
//! in snapshots that are shared between threads.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    KeyPair as _, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256,
    RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use rustls_pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use zeroize::{Zeroize as _, Zeroizing};

use crate::error::{KeyError, SignError};

/// MD5 of the DER form of a public key. It names a key among the keys of one user
/// and proves nothing: the signature does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The fingerprint of a `SubjectPublicKeyInfo` in DER, as
    /// `openssl rsa -pubin -outform DER | openssl md5 -c` gives it.
    #[must_use]
    pub fn of_spki_der(der: &[u8]) -> Self {
        Self(Md5::digest(der).into())
    }

    /// The sixteen bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(":")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut bytes = [0_u8; 16];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair = pairs.next().ok_or(KeyError::Fingerprint)?;
            if pair.len() != 2 || !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(KeyError::Fingerprint);
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| KeyError::Fingerprint)?;
        }
        match pairs.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(KeyError::Fingerprint),
        }
    }
}

/// The public half of a signing key. Cloning copies a pointer.
#[derive(Clone)]
pub struct PublicKey(Arc<PublicKeyInner>);

struct PublicKeyInner {
    parsed: ParsedPublicKey,
    spki_der: Vec<u8>,
    fingerprint: Fingerprint,
    bits: usize,
}

impl PublicKey {
    /// Reads a PEM file with the label `PUBLIC KEY`, the form in which OCI users
    /// upload keys. Text after the section (OCI writes `OCI_API_KEY`) is ignored.
    ///
    /// # Errors
    /// [`KeyError`] if there is no such section, or no RSA key of 2048 to 8192 bits in it.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let der =
            SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::Pem {
                expected: "PUBLIC KEY",
            })?;
        Self::from_spki_der(&der)
    }

    /// Reads a `SubjectPublicKeyInfo` in DER.
    ///
    /// # Errors
    /// [`KeyError::Rejected`] or [`KeyError::Size`].
    pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
        // The size is read through the encryption type because only that one tells
        // it without the `ring-io` feature; it refuses small keys by itself.
        let bits = rsa::PublicEncryptingKey::from_der(der)
            .map_err(|_| KeyError::Rejected)?
            .key_size_bits();
        if !(2048..=8192).contains(&bits) {
            return Err(KeyError::Size { bits });
        }
        let parsed = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der)
            .map_err(|_| KeyError::Rejected)?;
        let canonical: PublicKeyX509Der<'_> = parsed.as_der().map_err(|_| KeyError::Rejected)?;
        let spki_der = canonical.as_ref().to_vec();
        Ok(Self(Arc::new(PublicKeyInner {
            fingerprint: Fingerprint::of_spki_der(&spki_der),
            parsed,
            spki_der,
            bits,
        })))
    }

    /// Builds a key from modulus and exponent, big-endian, as the `n` and `e` of a
    /// JWK (RFC 7518, section 6.3.1) carry them. Leading zero bytes are dropped.
    ///
    /// # Errors
    /// As for [`PublicKey::from_spki_der`].
    pub fn from_components(n: &[u8], e: &[u8]) -> Result<Self, KeyError> {
        let trim =
            |bytes: &[u8]| -> Vec<u8> { bytes.iter().copied().skip_while(|b| *b == 0).collect() };
        let components = RsaPublicKeyComponents {
            n: trim(n),
            e: trim(e),
        };
        let der: PublicKeyX509Der<'_> = components.as_der().map_err(|_| KeyError::Rejected)?;
        Self::from_spki_der(der.as_ref())
    }

    /// MD5 of the canonical DER form.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint
    }

    /// Length of the modulus in bits.
    #[must_use]
    pub fn bits(&self) -> usize {
        self.0.bits
    }

    /// The canonical `SubjectPublicKeyInfo` in DER.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.0.spki_der
    }

    /// PEM with the label `PUBLIC KEY` and a final newline.
    #[must_use]
    pub fn to_pem(&self) -> String {
        String::clone(&pem_encode("PUBLIC KEY", &self.0.spki_der))
    }

    /// Whether `signature` is this key's RSASSA-PKCS1-v1_5 SHA-256 signature of `message`.
    pub(crate) fn is_signature_of(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.parsed.verify_sig(message, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, {} bits)", self.0.fingerprint, self.0.bits)
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.spki_der == other.0.spki_der
    }
}

impl Eq for PublicKey {}

/// Length of a generated key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeySize {
    /// 2048 bits, what OCI's own tools make.
    #[default]
    Bits2048,
    /// 3072 bits.
    Bits3072,
    /// 4096 bits.
    Bits4096,
}

/// A private signing key. It has no `Debug`, `Clone` or `PartialEq`; the
/// cryptographic library wipes it when it is dropped.
pub struct PrivateKey {
    pair: rsa::KeyPair,
    public: PublicKey,
}

impl PrivateKey {
    /// Makes a new key. Takes from tens of milliseconds to seconds of one core.
    ///
    /// # Errors
    /// [`KeyError::Generate`] if the system's randomness or memory fails.
    pub fn generate(size: KeySize) -> Result<Self, KeyError> {
        let size = match size {
            KeySize::Bits2048 => rsa::KeySize::Rsa2048,
            KeySize::Bits3072 => rsa::KeySize::Rsa3072,
            KeySize::Bits4096 => rsa::KeySize::Rsa4096,
        };
        Self::new(rsa::KeyPair::generate(size).map_err(|_| KeyError::Generate)?)
    }

    /// Reads an unencrypted PEM file, PKCS#1 (`RSA PRIVATE KEY`) or PKCS#8
    /// (`PRIVATE KEY`). Text around the section is ignored.
    ///
    /// # Errors
    /// [`KeyError::Encrypted`] with the way out for keys with a pass phrase, else
    /// as for a public key.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        if pem.contains("BEGIN ENCRYPTED") || pem.contains("4,ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        let (kind, der) = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes())
            .filter_map(Result::ok)
            .find(|(kind, _)| matches!(kind, SectionKind::RsaPrivateKey | SectionKind::PrivateKey))
            .ok_or(KeyError::Pem {
                expected: "PRIVATE KEY",
            })?;
        let der = Zeroizing::new(der);
        let pair = match kind {
            SectionKind::RsaPrivateKey => rsa::KeyPair::from_der(&der),
            _ => rsa::KeyPair::from_pkcs8(&der),
        };
        Self::new(pair.map_err(|_| KeyError::Rejected)?)
    }

    /// Takes over a key that a TLS-style loader has already decoded.
    ///
    /// # Errors
    /// [`KeyError::Rejected`] if it is not an RSA key.
    pub fn from_der(der: &PrivateKeyDer<'_>) -> Result<Self, KeyError> {
        let pair = match der {
            PrivateKeyDer::Pkcs1(der) => rsa::KeyPair::from_der(der.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(der) => rsa::KeyPair::from_pkcs8(der.secret_pkcs8_der()),
            _ => return Err(KeyError::Rejected),
        };
        Self::new(pair.map_err(|_| KeyError::Rejected)?)
    }

    fn new(pair: rsa::KeyPair) -> Result<Self, KeyError> {
        let der: PublicKeyX509Der<'_> =
            pair.public_key().as_der().map_err(|_| KeyError::Rejected)?;
        let public = PublicKey::from_spki_der(der.as_ref())?;
        Ok(Self { pair, public })
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// PKCS#8 PEM, the form that OCI's tools read. Write it with mode 0600.
    ///
    /// # Errors
    /// [`KeyError::Rejected`] if the library cannot encode the key.
    pub fn to_pkcs8_pem(&self) -> Result<PrivateKeyPem, KeyError> {
        let der: Pkcs8V1Der<'_> = self.pair.as_der().map_err(|_| KeyError::Rejected)?;
        Ok(PrivateKeyPem(pem_encode("PRIVATE KEY", der.as_ref())))
    }

    /// RSASSA-PKCS1-v1_5 with SHA-256 over `message`.
    #[expect(
        clippy::disallowed_methods,
        reason = "the signature does not depend on it; it only blinds the computation"
    )]
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                message,
                &mut signature,
            )
            .map_err(|_| SignError::Key)?;
        Ok(signature)
    }
}

/// A private key as PEM text. It wipes itself and cannot be printed.
pub struct PrivateKeyPem(Zeroizing<String>);

impl PrivateKeyPem {
    /// The text, for writing it into a file.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// RFC 7468 text with lines of 64 characters. All buffers that held the base64
/// form are wiped, since one caller encodes private keys.
fn pem_encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let mut body = STANDARD.encode(der);
    let mut pem = Zeroizing::new(String::with_capacity(
        body.len() + body.len() / 64 + 2 * label.len() + 40,
    ));
    pem.push_str("-----BEGIN ");
    pem.push_str(label);
    pem.push_str("-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem.push_str("-----END ");
    pem.push_str(label);
    pem.push_str("-----\n");
    body.zeroize();
    pem
}
