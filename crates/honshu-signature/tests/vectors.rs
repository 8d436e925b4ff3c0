//! Requests that Oracle's own Python clients signed, replayed against this crate.
//!
//! `testdata/wire/signature/capture.py` regenerates the vectors.
#![expect(
    clippy::unwrap_used,
    reason = "a failed test is a panic, in helpers too"
)]

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use honshu_signature::{
    BodyError, BodyRule, CanonicalRequest, Fingerprint, KeyError, KeyId, KeySize, PrivateKey,
    PublicKey, SKEW_SECONDS_MAX, SignatureError, SignatureHeader, covered_headers, sign,
    sign_request,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize, Clone)]
struct Vector {
    now: i64,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body_base64: String,
    #[serde(skip)]
    name: String,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/wire/signature")
}

fn text(name: &str) -> String {
    std::fs::read_to_string(directory().join(name)).unwrap()
}

fn vectors() -> Vec<Vector> {
    let mut vectors: Vec<Vector> = std::fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| {
            let mut vector: Vector =
                serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            vector.name = path.file_stem().unwrap().to_string_lossy().into_owned();
            vector
        })
        .collect();
    vectors.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(vectors.len() >= 20, "{} vectors", vectors.len());
    vectors
}

fn vector(name: &str) -> Vector {
    vectors().into_iter().find(|v| v.name == name).unwrap()
}

fn public_key() -> PublicKey {
    PublicKey::from_pem(&text("key.pub.pem")).unwrap()
}

fn private_key() -> PrivateKey {
    PrivateKey::from_pem(&text("key.pem")).unwrap()
}

#[derive(Debug, PartialEq)]
enum Refused {
    Signature(SignatureError),
    Body(BodyError),
}

impl Vector {
    fn headers(&self) -> HeaderMap {
        self.headers
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect::<Vec<_>>()
            .into_iter()
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            })
    }

    fn value(&self, name: &str) -> &str {
        let (_, value) = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .unwrap();
        value
    }

    fn set(&mut self, name: &str, value: &str) {
        let (_, slot) = self
            .headers
            .iter_mut()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .unwrap();
        *slot = value.to_owned();
    }

    fn remove(&mut self, name: &str) {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    fn body(&self) -> Vec<u8> {
        STANDARD.decode(&self.body_base64).unwrap()
    }

    fn header(&self) -> Result<SignatureHeader, SignatureError> {
        SignatureHeader::parse(self.value("authorization").as_bytes())
    }

    fn check(&self) -> Result<(), Refused> {
        self.check_with(&public_key(), self.now, &self.body())
    }

    fn check_with(&self, key: &PublicKey, now: i64, body: &[u8]) -> Result<(), Refused> {
        let headers = self.headers();
        let method = Method::from_bytes(self.method.as_bytes()).unwrap();
        let request = CanonicalRequest {
            method: &method,
            raw_target: &self.target,
            headers: &headers,
        };
        let rule = self
            .header()
            .and_then(|header| header.verify(&request, key, now))
            .map_err(Refused::Signature)?;
        let mut digest = rule.digest();
        for chunk in body.chunks(7) {
            digest.update(chunk).map_err(Refused::Body)?;
        }
        digest.finish().map_err(Refused::Body)
    }
}

#[test]
fn every_captured_request_verifies() {
    for vector in vectors() {
        assert_eq!(vector.check(), Ok(()), "{}", vector.name);
        let header = vector.header().unwrap();
        match header.key_id() {
            KeyId::User { fingerprint, .. } => {
                assert_eq!(*fingerprint, public_key().fingerprint(), "{}", vector.name);
            }
            KeyId::SessionToken(token) => {
                assert!(vector.name.starts_with("session-"), "{}", vector.name);
                assert!(token.expose().starts_with("eyJ"));
            }
            _ => panic!("a new form of key id"),
        }
    }
}

#[test]
fn our_signature_equals_the_one_of_the_official_client_byte_for_byte() {
    let key = private_key();
    for vector in vectors() {
        let headers = vector.headers();
        let method = Method::from_bytes(vector.method.as_bytes()).unwrap();
        let request = CanonicalRequest {
            method: &method,
            raw_target: &vector.target,
            headers: &headers,
        };
        let theirs = vector.header().unwrap();
        let key_id = match theirs.key_id() {
            KeyId::SessionToken(token) => format!("ST${}", token.expose()),
            other => other.as_str().to_owned(),
        };
        let value = sign(&request, &key_id, &key).unwrap();
        assert!(value.is_sensitive());
        assert_eq!(
            value.to_str().unwrap(),
            vector.value("authorization"),
            "{}",
            vector.name
        );
    }
}

#[test]
fn a_change_of_any_covered_part_is_refused() {
    for original in vectors() {
        let name = &original.name;
        for covered in original.header().unwrap().covered() {
            if covered == "(request-target)" {
                continue;
            }
            let mut changed = original.clone();
            changed.remove(covered);
            assert!(
                matches!(
                    changed.check(),
                    Err(Refused::Signature(SignatureError::MissingHeader(_)))
                ),
                "{name} without {covered}"
            );
            let mut changed = original.clone();
            changed
                .headers
                .push((covered.clone(), original.value(covered).to_owned()));
            assert!(
                matches!(
                    changed.check(),
                    Err(Refused::Signature(SignatureError::AmbiguousHeader(_)))
                ),
                "{name} with {covered} twice"
            );
            let mut changed = original.clone();
            let other = match covered.as_str() {
                // Inside the window and well-formed: only the signature can tell.
                "date" => httpdate::fmt_http_date(
                    std::time::UNIX_EPOCH
                        + std::time::Duration::from_secs(original.now.unsigned_abs() + 1),
                ),
                "content-length" => format!("0{}", original.value(covered)),
                "x-content-sha256" => honshu_signature::sha256_base64(b"another body"),
                "host" => "127.0.0.1".to_owned(),
                _ => format!("{};x=y", original.value(covered)),
            };
            changed.set(covered, &other);
            assert_eq!(
                changed.check(),
                Err(Refused::Signature(SignatureError::Mismatch)),
                "{name} with another {covered}"
            );
        }
        for (method, target) in [
            (original.method.clone(), format!("{}x", original.target)),
            (original.method.clone(), format!("/{}", original.target)),
            (original.method.clone(), original.target.to_uppercase()),
        ] {
            let changed = Vector {
                method,
                target,
                ..original.clone()
            };
            assert_eq!(
                changed.check(),
                Err(Refused::Signature(SignatureError::Mismatch)),
                "{name} to {}",
                changed.target
            );
        }
        let changed = Vector {
            method: if original.method == "GET" {
                "DELETE"
            } else {
                "GET"
            }
            .into(),
            ..original.clone()
        };
        assert_eq!(
            changed.check(),
            Err(Refused::Signature(SignatureError::Mismatch)),
            "{name} as {}",
            changed.method
        );
    }
}

#[test]
fn a_change_of_any_body_byte_is_refused() {
    let key = public_key();
    for original in vectors() {
        let body = original.body();
        let mut longer = body.clone();
        longer.push(b' ');
        assert_eq!(
            original.check_with(&key, original.now, &longer),
            Err(Refused::Body(BodyError::TooLong {
                signed: body.len() as u64
            })),
            "{}",
            original.name
        );
        for at in (0..body.len()).step_by(1 + body.len() / 40) {
            let mut changed = body.clone();
            changed[at] ^= 1;
            assert_eq!(
                original.check_with(&key, original.now, &changed),
                Err(Refused::Body(BodyError::Digest)),
                "{} at {at}",
                original.name
            );
        }
    }
}

#[test]
fn a_change_of_any_signature_byte_or_another_key_is_refused() {
    let original = vector("sdk-chat");
    let signature = original.header().unwrap().signature().to_vec();
    let other_signature = |bytes: &[u8]| {
        let mut changed = original.clone();
        let value = original
            .value("authorization")
            .replace(&STANDARD.encode(&signature), &STANDARD.encode(bytes));
        changed.set("authorization", &value);
        changed.check()
    };
    assert_eq!(other_signature(&signature), Ok(()));
    for at in 0..signature.len() {
        let mut bytes = signature.clone();
        bytes[at] ^= 0x40;
        assert_eq!(
            other_signature(&bytes),
            Err(Refused::Signature(SignatureError::Mismatch))
        );
    }
    for bytes in [&signature[1..], &[0; 256][..], &[][..]] {
        assert_eq!(
            other_signature(bytes),
            Err(Refused::Signature(SignatureError::Mismatch))
        );
    }
    let stranger = PrivateKey::generate(KeySize::Bits2048).unwrap();
    assert_eq!(
        original.check_with(stranger.public_key(), original.now, &original.body()),
        Err(Refused::Signature(SignatureError::Mismatch))
    );
}

#[test]
fn the_clock_may_differ_by_five_minutes_and_not_more() {
    let vector = vector("sdk-list-models");
    let key = public_key();
    for (skew, ok) in [
        (0, true),
        (SKEW_SECONDS_MAX, true),
        (-SKEW_SECONDS_MAX, true),
        (SKEW_SECONDS_MAX + 1, false),
        (-SKEW_SECONDS_MAX - 1, false),
        (i64::MAX - vector.now, false),
    ] {
        let result = vector.check_with(&key, vector.now + skew, b"");
        let expected = if ok {
            Ok(())
        } else {
            Err(Refused::Signature(SignatureError::Skew {
                skew_seconds: -skew,
            }))
        };
        assert_eq!(result, expected, "{skew}");
    }
}

/// Signs with the test key after `edit`, covering exactly `covered`.
fn signed_with(
    method: &Method,
    covered: &[&str],
    body: &[u8],
    edit: impl FnOnce(&mut HeaderMap),
) -> Result<BodyRule, SignatureError> {
    const NOW: i64 = 1_795_000_000;
    let date = httpdate::fmt_http_date(
        std::time::UNIX_EPOCH + std::time::Duration::from_secs(NOW.unsigned_abs()),
    );
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("h:1"));
    headers.insert("date", HeaderValue::try_from(&date).unwrap());
    headers.insert("x-date", HeaderValue::try_from(&date).unwrap());
    headers.insert("content-length", HeaderValue::from(body.len()));
    headers.insert("content-type", HeaderValue::from_static("text/plain"));
    headers.insert(
        "x-content-sha256",
        HeaderValue::try_from(honshu_signature::sha256_base64(body)).unwrap(),
    );
    edit(&mut headers);
    let request = CanonicalRequest {
        method,
        raw_target: "/x",
        headers: &headers,
    };
    // A client that covers what it likes: the shape that `sign` never writes.
    let full = sign(
        &request,
        "t/u/00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00",
        &private_key(),
    );
    let value = match full {
        Ok(value) => value.to_str().unwrap().to_owned(),
        Err(_) => r#"Signature version="1",algorithm="rsa-sha256",headers="date (request-target) host",keyId="t/u/00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00",signature="AAAA""#.to_owned(),
    };
    let start = value.find("headers=\"").unwrap() + 9;
    let end = start + value[start..].find('"').unwrap();
    let value = format!("{}{}{}", &value[..start], covered.join(" "), &value[end..]);
    SignatureHeader::parse(value.as_bytes())?.check_claims(&request, NOW)
}

#[test]
fn required_headers_depend_on_the_method() {
    let get: &[&str] = &["date", "(request-target)", "host"];
    let post: &[&str] = &[
        "x-date",
        "(request-target)",
        "host",
        "content-length",
        "content-type",
        "x-content-sha256",
    ];
    for method in [Method::GET, Method::HEAD, Method::DELETE] {
        assert_eq!(
            signed_with(&method, get, b"", |_| ()),
            Ok(BodyRule::Empty),
            "{method}"
        );
        for left_out in 0..get.len() {
            let covered: Vec<&str> = remove(get, left_out);
            assert_eq!(
                signed_with(&method, &covered, b"", |_| ()),
                Err(SignatureError::NotCovered(get[left_out])),
                "{method}"
            );
        }
        assert!(covered_headers(&method).len() == 2);
    }
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::OPTIONS] {
        assert!(matches!(
            signed_with(&method, post, b"hello", |_| ()),
            Ok(BodyRule::Exact { bytes: 5, .. })
        ));
        for left_out in 1..post.len() {
            assert_eq!(
                signed_with(&method, &remove(post, left_out), b"hello", |_| ()),
                Err(SignatureError::NotCovered(post[left_out])),
                "{method}"
            );
        }
        assert_eq!(
            signed_with(&method, &post[1..], b"hello", |_| ()),
            Err(SignatureError::NotCovered("date")),
        );
    }
    // A DELETE may sign a body; then it is held to it.
    assert!(matches!(
        signed_with(&Method::DELETE, post, b"hello", |_| ()),
        Ok(BodyRule::Exact { bytes: 5, .. })
    ));
}

#[test]
fn the_signed_date_is_the_one_that_counts() {
    let covered = ["x-date", "(request-target)", "host"];
    let both = ["date", "x-date", "(request-target)", "host"];
    let old = HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT");
    let check = |covered: &[&str], name: &'static str, value: HeaderValue| {
        signed_with(&Method::GET, covered, b"", |h| {
            h.insert(name, value);
        })
    };
    // `x-date` wins where both are covered; one that is not covered is ignored.
    assert_eq!(check(&covered, "date", old.clone()), Ok(BodyRule::Empty));
    assert_eq!(check(&both, "date", old.clone()), Ok(BodyRule::Empty));
    assert!(matches!(
        check(&both, "x-date", old),
        Err(SignatureError::Skew { .. })
    ));
    for bad in [
        "",
        "now",
        "2026-11-22T12:19:46Z",
        "Sun, 32 Nov 2026 12:19:46 GMT",
    ] {
        assert_eq!(
            check(&covered, "x-date", HeaderValue::from_static(bad)),
            Err(SignatureError::DateFormat("x-date")),
            "{bad}"
        );
    }
}

fn remove<'a>(list: &[&'a str], at: usize) -> Vec<&'a str> {
    let mut list = list.to_vec();
    list.remove(at);
    list
}

#[test]
fn fingerprint_is_the_one_that_openssl_prints() {
    let expected = text("key.fingerprint");
    let key = public_key();
    assert_eq!(key.fingerprint().to_string(), expected.trim());
    assert_eq!(
        expected
            .trim()
            .to_uppercase()
            .parse::<Fingerprint>()
            .unwrap(),
        key.fingerprint()
    );
    assert_eq!(key.bits(), 2048);
    for bad in [
        "",
        "00",
        "g0:",
        "0:0",
        "00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:0g",
    ] {
        assert_eq!(
            bad.parse::<Fingerprint>(),
            Err(KeyError::Fingerprint),
            "{bad}"
        );
    }
}

#[test]
fn keys_survive_the_way_through_pem() {
    let generated = PrivateKey::generate(KeySize::Bits2048).unwrap();
    let pem = generated.to_pkcs8_pem().unwrap();
    let again = PrivateKey::from_pem(&format!("{}OCI_API_KEY\n", pem.expose())).unwrap();
    assert_eq!(again.public_key(), generated.public_key());
    let public = PublicKey::from_pem(&generated.public_key().to_pem()).unwrap();
    assert_eq!(&public, generated.public_key());
    assert_eq!(text("key.pub.pem"), public_key().to_pem());
    let pkcs8 = PrivateKey::from_pem(&text("key.pkcs8.pem")).unwrap();
    assert_eq!(pkcs8.public_key(), &public_key());
    assert_eq!(
        pkcs8.to_pkcs8_pem().unwrap().expose(),
        text("key.pkcs8.pem")
    );
}

#[test]
fn key_files_that_cannot_be_used_say_why() {
    for (pem, expected) in [
        (
            "",
            KeyError::Pem {
                expected: "PRIVATE KEY",
            },
        ),
        (
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            KeyError::Encrypted,
        ),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
            KeyError::Encrypted,
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            KeyError::Rejected,
        ),
    ] {
        assert_eq!(PrivateKey::from_pem(pem).err(), Some(expected), "{pem}");
    }
    assert!(PublicKey::from_pem(&text("key.pem")).is_err());
    assert!(
        PublicKey::from_pem("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
            .is_err()
    );
    // A sound key of 1,024 bits, made with `openssl genrsa 1024`.
    assert!(PublicKey::from_pem(&text("small.pub.pem")).is_err());
    assert!(PublicKey::from_components(&[0xC3; 128], &[1, 0, 1]).is_err());
}

#[test]
fn a_jwk_gives_the_same_key_as_its_pem() {
    // The modulus is the first long INTEGER of the DER form of a 2048-bit key.
    let key = public_key();
    let der = key.spki_der();
    let n = &der[der.len() - 256 - 5..der.len() - 5];
    let mut padded = vec![0];
    padded.extend_from_slice(n);
    for n in [n, &padded] {
        assert_eq!(PublicKey::from_components(n, &[0, 1, 0, 1]).unwrap(), key);
    }
}

#[test]
fn a_request_completed_by_us_verifies() {
    let key = private_key();
    let now = 1_795_432_000;
    for (method, body) in [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", ""),
        ("PUT", "{\"a\":1}"),
    ] {
        let request = Request::builder()
            .method(method)
            .uri("http://127.0.0.1:8080//20231130/x%2Fy?z=%C3%BC&w")
            .body(())
            .unwrap();
        let (mut parts, ()) = request.into_parts();
        sign_request(
            &mut parts,
            body.as_bytes(),
            now,
            "t/u/00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00",
            &key,
        )
        .unwrap();
        let canonical = CanonicalRequest {
            method: &parts.method,
            raw_target: "//20231130/x%2Fy?z=%C3%BC&w",
            headers: &parts.headers,
        };
        let header = SignatureHeader::parse(parts.headers["authorization"].as_bytes()).unwrap();
        let rule = header
            .verify(&canonical, key.public_key(), now + 10)
            .unwrap();
        let mut digest = rule.digest();
        digest.update(body.as_bytes()).unwrap();
        assert_eq!(digest.finish(), Ok(()), "{method}");
        assert_eq!(parts.headers["host"], "127.0.0.1:8080");
    }
    let (mut parts, ()) = Request::builder().uri("/x").body(()).unwrap().into_parts();
    assert!(sign_request(&mut parts, b"", now, "k", &key).is_err());
    let (mut parts, ()) = Request::builder()
        .uri("http://h/x")
        .body(())
        .unwrap()
        .into_parts();
    assert!(sign_request(&mut parts, b"", now, "k\"x", &key).is_err());
    assert!(sign_request(&mut parts, b"", i64::MAX, "k", &key).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_we_sign_we_accept_and_one_flipped_target_byte_we_do_not(
        path in "(/[A-Za-z0-9._~%:@!$&'()*+,;=-]{0,12}){1,4}(\\?[A-Za-z0-9._~%:@!$&'()*+,;=/?-]{0,20})?",
        body in proptest::collection::vec(any::<u8>(), 0..64),
        at in any::<prop::sample::Index>(),
    ) {
        use std::sync::OnceLock;
        static KEY: OnceLock<PrivateKey> = OnceLock::new();
        let key = KEY.get_or_init(private_key);
        let (mut parts, ()) = Request::post(&path).header("host", "h").body(()).unwrap().into_parts();
        sign_request(&mut parts, &body, 1_795_432_000, "t/u/00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00", key).unwrap();
        let header = SignatureHeader::parse(parts.headers["authorization"].as_bytes()).unwrap();
        let check = |target: &str| header.verify(
            &CanonicalRequest { method: &parts.method, raw_target: target, headers: &parts.headers },
            key.public_key(),
            1_795_432_000,
        );
        prop_assert!(check(&path).is_ok());
        let mut changed = path.clone().into_bytes();
        let at = at.index(changed.len());
        changed[at] = if changed[at] == b'x' { b'y' } else { b'x' };
        prop_assert_eq!(check(std::str::from_utf8(&changed).unwrap()), Err(SignatureError::Mismatch));
    }
}
