//! The `Authorization: Signature …` header as data.
//!
//! The grammar is that of RFC 7235 `auth-param`: names in any case and order,
//! values quoted or bare. It is read more strictly than most clients need: a
//! repeated parameter is refused, because two readers could pick different ones.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::SignatureError;
use crate::key_id::KeyId;

/// Longest `Authorization` value that is read, in bytes. A session token is a JWT
/// of two to four kilobytes; four times that leaves room and bounds the work.
pub const AUTHORIZATION_BYTES_MAX: usize = 16 * 1024;

/// Parameters per header. Clients send five.
const PARAMETERS_MAX: usize = 16;

/// Covered names per signature. Clients send three to six.
const COVERED_MAX: usize = 32;

/// The name that stands for method and target in a signing string.
pub(crate) const REQUEST_TARGET: &str = "(request-target)";

/// Tells whether an `Authorization` value claims to be a request signature, so
/// that a caller can tell "not asked" from "failed".
#[must_use]
pub fn is_signature_scheme(value: &[u8]) -> bool {
    const SCHEME: &[u8] = b"signature";
    value.len() >= SCHEME.len()
        && value[..SCHEME.len()].eq_ignore_ascii_case(SCHEME)
        && value.get(SCHEME.len()).is_none_or(|b| *b == b' ')
}

/// A parsed `Authorization: Signature …` header. Nothing in it has been proven.
#[derive(Clone)]
pub struct SignatureHeader {
    key_id: KeyId,
    covered: Vec<String>,
    signature: Vec<u8>,
}

impl SignatureHeader {
    /// Reads the header value.
    ///
    /// # Errors
    /// A [`SignatureError`] for anything that is not a complete version 1,
    /// `rsa-sha256` signature with a known form of key id.
    pub fn parse(value: &[u8]) -> Result<Self, SignatureError> {
        if !is_signature_scheme(value) {
            return Err(SignatureError::Scheme);
        }
        if value.len() > AUTHORIZATION_BYTES_MAX {
            return Err(SignatureError::TooLong { bytes: value.len() });
        }
        let parameters = Parameters::read(value, "signature".len())?;

        let version = parameters.required("version")?;
        if version != "1" {
            return Err(SignatureError::Version(excerpt(version)));
        }
        let algorithm = parameters.required("algorithm")?;
        if !algorithm.eq_ignore_ascii_case("rsa-sha256") {
            return Err(SignatureError::Algorithm(excerpt(algorithm)));
        }
        let covered = read_covered(parameters.required("headers")?)?;
        let signature = STANDARD
            .decode(parameters.required("signature")?)
            .map_err(|_| SignatureError::SignatureEncoding)?;
        let key_id = KeyId::parse(parameters.required("keyid")?)?;
        Ok(Self {
            key_id,
            covered,
            signature,
        })
    }

    /// Who claims to have signed: names the public key to look up.
    #[must_use]
    pub fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    /// Covered names, lower case, in the order in which they were signed.
    #[must_use]
    pub fn covered(&self) -> &[String] {
        &self.covered
    }

    /// The raw signature bytes.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }
}

fn read_covered(list: &str) -> Result<Vec<String>, SignatureError> {
    let mut covered: Vec<String> = Vec::with_capacity(6);
    for name in list.split(' ').filter(|name| !name.is_empty()) {
        let name = name.to_ascii_lowercase();
        if name != REQUEST_TARGET && !name.bytes().all(is_token) {
            return Err(SignatureError::HeaderName(excerpt(&name)));
        }
        if covered.contains(&name) || covered.len() == COVERED_MAX {
            return Err(SignatureError::RepeatedHeaderName(excerpt(&name)));
        }
        covered.push(name);
    }
    Ok(covered)
}

/// Name (lower case) and value pairs.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn read(value: &[u8], start: usize) -> Result<Self, SignatureError> {
        let mut reader = Reader { value, at: start };
        let mut parameters: Vec<(String, String)> = Vec::with_capacity(5);
        reader.skip_space();
        loop {
            let name = reader.token()?.to_ascii_lowercase();
            reader.skip_space();
            reader.expect(b'=')?;
            reader.skip_space();
            let parameter_value = reader.value()?;
            if parameters.iter().any(|(known, _)| *known == name) {
                return Err(SignatureError::RepeatedParameter(excerpt(&name)));
            }
            if parameters.len() == PARAMETERS_MAX {
                return Err(reader.malformed());
            }
            parameters.push((name, parameter_value));
            reader.skip_space();
            if reader.at == value.len() {
                return Ok(Self(parameters));
            }
            reader.expect(b',')?;
            reader.skip_space();
        }
    }

    fn required(&self, name: &'static str) -> Result<&str, SignatureError> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .ok_or(SignatureError::MissingParameter(match name {
                "keyid" => "keyId",
                other => other,
            }))
    }
}

struct Reader<'a> {
    value: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.value.get(self.at).copied()
    }

    fn malformed(&self) -> SignatureError {
        SignatureError::Malformed { at: self.at }
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), SignatureError> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.malformed())
        }
    }

    fn token(&mut self) -> Result<String, SignatureError> {
        let start = self.at;
        while self.peek().is_some_and(is_token) {
            self.at += 1;
        }
        if start == self.at {
            return Err(self.malformed());
        }
        Ok(self.value[start..self.at]
            .iter()
            .map(|b| char::from(*b))
            .collect())
    }

    fn value(&mut self) -> Result<String, SignatureError> {
        if self.peek() != Some(b'"') {
            return self.token();
        }
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(escaped @ b' '..=b'~') => text.push(char::from(escaped)),
                        _ => return Err(self.malformed()),
                    }
                }
                Some(plain @ b' '..=b'~') => text.push(char::from(plain)),
                _ => return Err(self.malformed()),
            }
            self.at += 1;
        }
    }
}

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What a log may show of text that a caller chose: its first 64 characters.
fn excerpt(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ocid1.tenancy.oc1..t/ocid1.user.oc1..u/e3:3a:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:49";

    fn parse(text: &str) -> Result<SignatureHeader, SignatureError> {
        SignatureHeader::parse(text.as_bytes())
    }

    #[test]
    fn parameters_may_stand_in_any_order_case_and_spacing() {
        let texts = [
            format!(
                r#"Signature algorithm="rsa-sha256",headers="date (request-target) host",keyId="{KEY}",signature="AAAA",version="1""#
            ),
            format!(
                r#"Signature version="1",keyId="{KEY}",algorithm="rsa-sha256",headers="date (request-target) host",signature="AAAA""#
            ),
            format!(
                "signature  VERSION=1 , KEYID = \"{KEY}\",\tAlgorithm=\"RSA-SHA256\", headers=\"Date  (Request-Target) HOST\", signature=\"AAAA\", x-new=token"
            ),
        ];
        for text in texts {
            let header = parse(&text).map_err(|e| e.to_string()).unwrap();
            assert_eq!(header.covered(), ["date", "(request-target)", "host"]);
            assert_eq!(header.signature(), [0, 0, 0]);
            assert_eq!(header.key_id().as_str(), KEY);
        }
    }

    #[test]
    fn what_is_refused_and_why() {
        let full = |extra: &str| {
            format!(
                r#"Signature version="1",algorithm="rsa-sha256",headers="date",keyId="{KEY}",signature="AAAA"{extra}"#
            )
        };
        let table: Vec<(String, SignatureError)> = vec![
            (String::new(), SignatureError::Scheme),
            ("Bearer sk-x".into(), SignatureError::Scheme),
            ("Signatures a=b".into(), SignatureError::Scheme),
            ("Signature".into(), SignatureError::Malformed { at: 9 }),
            ("Signature ".into(), SignatureError::Malformed { at: 10 }),
            (
                full(r#",version="1""#),
                SignatureError::RepeatedParameter("version".into()),
            ),
            (
                full(r#",KEYID="x""#),
                SignatureError::RepeatedParameter("keyid".into()),
            ),
            (
                full(",a=b,A=c"),
                SignatureError::RepeatedParameter("a".into()),
            ),
            (
                full("").replace("version=\"1\"", "version=\"2\""),
                SignatureError::Version("2".into()),
            ),
            (
                full("").replace("version=\"1\",", ""),
                SignatureError::MissingParameter("version"),
            ),
            (
                full("").replace("rsa-sha256", "hmac-sha256"),
                SignatureError::Algorithm("hmac-sha256".into()),
            ),
            (
                full("").replace("rsa-sha256", "none"),
                SignatureError::Algorithm("none".into()),
            ),
            (
                full("").replace("keyId", "key"),
                SignatureError::MissingParameter("keyId"),
            ),
            (
                full("").replace("AAAA", "AAA"),
                SignatureError::SignatureEncoding,
            ),
            (
                full("").replace("\"date\"", "\"date date\""),
                SignatureError::RepeatedHeaderName("date".into()),
            ),
            (
                full("").replace("\"date\"", "\"date a:b\""),
                SignatureError::HeaderName("a:b".into()),
            ),
            (full("").replace(KEY, "nobody"), SignatureError::KeyId),
            ("Signature a".into(), SignatureError::Malformed { at: 11 }),
            (
                "Signature a=\"b".into(),
                SignatureError::Malformed { at: 14 },
            ),
            (
                "Signature a=\"b\" c=d".into(),
                SignatureError::Malformed { at: 16 },
            ),
            (
                format!("Signature a=\"{}\"", "b".repeat(AUTHORIZATION_BYTES_MAX)),
                SignatureError::TooLong {
                    bytes: AUTHORIZATION_BYTES_MAX + 14,
                },
            ),
        ];
        for (text, expected) in table {
            assert_eq!(parse(&text).err(), Some(expected), "{text:.120}");
        }
    }

    #[test]
    fn scheme_is_recognised_without_parsing() {
        for (value, expected) in [
            ("Signature x", true),
            ("SIGNATURE", true),
            ("Signaturex", false),
            ("Bearer Signature", false),
            ("", false),
        ] {
            assert_eq!(is_signature_scheme(value.as_bytes()), expected, "{value}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let mut value = b"Signature ".to_vec();
            value.extend(bytes);
            let _ = SignatureHeader::parse(&value);
        }
    }
}
