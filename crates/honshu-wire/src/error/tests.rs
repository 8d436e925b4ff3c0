//! Each kind in each dialect against the golden table, and upstreams' errors in their many shapes.

use std::fmt::Write as _;
use std::time::Duration;

use honshu_domain::{Error, ErrorKind, Origin, Retry, TimeoutKind};

use super::*;

const KINDS: [ErrorKind; 23] = [
    ErrorKind::Unauthenticated,
    ErrorKind::NotFound,
    ErrorKind::ModelNotFound,
    ErrorKind::Invalid,
    ErrorKind::Unsupported,
    ErrorKind::ContextLength,
    ErrorKind::PreviousResponseNotFound,
    ErrorKind::MethodNotAllowed,
    ErrorKind::RequestTimeout,
    ErrorKind::Conflict,
    ErrorKind::PreconditionFailed,
    ErrorKind::TooLarge,
    ErrorKind::UnsupportedMedia,
    ErrorKind::RateLimited,
    ErrorKind::Internal,
    ErrorKind::NotImplemented,
    ErrorKind::Upstream,
    ErrorKind::Unavailable,
    ErrorKind::Timeout(TimeoutKind::Connect),
    ErrorKind::Timeout(TimeoutKind::FirstEvent),
    ErrorKind::Timeout(TimeoutKind::Idle),
    ErrorKind::Timeout(TimeoutKind::Deadline),
    ErrorKind::Cancelled,
];

#[test]
fn each_kind_has_its_answer_in_each_dialect() {
    let mut table = String::new();
    for kind in KINDS {
        let error = Error::new(kind, "why").with_cause("secret of ours");
        writeln!(table, "{kind:?}").unwrap();
        for (dialect, answer) in [
            ("openai", openai_body(&error, "REQ1")),
            ("oci inference", oci_body(&error, Plane::Inference)),
            ("oci management", oci_body(&error, Plane::Management)),
        ] {
            let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            if let Some(inner) = body.get("error") {
                for key in ["message", "type", "param", "code"] {
                    assert!(inner.get(key).is_some(), "{kind:?} without {key}");
                }
                assert_eq!(body["code"], answer.status.to_string());
                assert_eq!(body["message"], inner["message"]);
            }
            let headers: Vec<String> = answer
                .headers
                .iter()
                .map(|(name, value)| format!("{name}: {value}"))
                .collect();
            writeln!(
                table,
                "  {dialect}: {} {} [{}]",
                answer.status,
                String::from_utf8_lossy(&answer.body),
                headers.join(", ")
            )
            .unwrap();
        }
    }
    assert!(!table.contains("secret"));
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../testdata/wire/errors.txt"
    );
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    assert_eq!(
        table, golden,
        "run with UPDATE_GOLDEN=1 if the change is meant"
    );
}

#[test]
fn waits_and_decision_ids_become_headers() {
    let error = Error::new(ErrorKind::RateLimited, "slow down")
        .with_retry(Retry::After(Duration::from_millis(1_200)))
        .with_decision_id("d-1");
    assert_eq!(
        openai_body(&error, "r").headers,
        [
            ("retry-after", "2".to_owned()),
            ("x-should-retry", "true".to_owned()),
            ("opc-decision-id", "d-1".to_owned())
        ]
    );
}

#[test]
fn upstream_errors_are_understood_in_their_many_shapes() {
    let openai = |code: &str, message: &str| {
        format!(
            r#"{{"error":{{"message":"{message}","type":"invalid_request_error","param":"input","code":"{code}"}}}}"#
        )
    };
    for (status, body, kind, retry) in [
        (
            400,
            openai("invalid_value", "bad"),
            ErrorKind::Invalid,
            Retry::Never,
        ),
        (
            400,
            openai("context_length_exceeded", "too long"),
            ErrorKind::ContextLength,
            Retry::Never,
        ),
        (
            400,
            openai("", "This model's maximum context length is 8 tokens"),
            ErrorKind::ContextLength,
            Retry::Never,
        ),
        (
            400,
            r#"{"error":{"code":400,"type":"exceed_context_size_error","message":"x"}}"#.to_owned(),
            ErrorKind::ContextLength,
            Retry::Never,
        ),
        (
            401,
            openai("invalid_api_key", "Incorrect API key sk-ours"),
            ErrorKind::Upstream,
            Retry::Now,
        ),
        (
            404,
            openai("model_not_found", "x"),
            ErrorKind::Upstream,
            Retry::Now,
        ),
        (
            429,
            "{}".to_owned(),
            ErrorKind::RateLimited,
            Retry::After(Duration::from_millis(2_500)),
        ),
        (
            500,
            "<html>".to_owned(),
            ErrorKind::Upstream,
            Retry::After(Duration::from_millis(2_500)),
        ),
        (
            503,
            String::new(),
            ErrorKind::Unavailable,
            Retry::After(Duration::from_millis(2_500)),
        ),
        (418, String::new(), ErrorKind::Upstream, Retry::Now),
    ] {
        let error = from_upstream(status, Some("2.5"), body.as_bytes());
        assert_eq!(
            (error.kind(), error.retry()),
            (kind, retry),
            "{status} {body}"
        );
        assert_eq!(error.origin(), Origin::Upstream);
        assert_eq!(error.upstream_status(), Some(status));
        assert!(!error.message().contains("sk-ours"), "{}", error.message());
    }
    for wait in ["-1", "NaN", "inf", "soon"] {
        assert_eq!(
            from_upstream(500, Some(wait), b"").retry(),
            Retry::Now,
            "{wait}"
        );
    }
    let long = from_upstream(503, Some("1e300"), b"").retry();
    assert_eq!(long, Retry::After(Duration::from_secs(120)));
}

#[test]
fn error_frames_are_understood_flat_and_nested() {
    for (frame, kind, message) in [
        (
            r#"{"error":{"message":"m","code":"rate_limit_exceeded"}}"#,
            ErrorKind::RateLimited,
            "m",
        ),
        (
            r#"{"type":"error","code":"server_error","message":"m","param":null}"#,
            ErrorKind::Upstream,
            "m",
        ),
        (r#"{"error":"plain"}"#, ErrorKind::Upstream, "plain"),
        (r#"{"detail":"d"}"#, ErrorKind::Upstream, "d"),
        (
            r#"{"error":{"message":"m","code":429}}"#,
            ErrorKind::RateLimited,
            "m",
        ),
    ] {
        let error = from_frame(&crate::json::parse_text(frame).unwrap());
        assert_eq!((error.kind(), error.message()), (kind, message), "{frame}");
    }
}
