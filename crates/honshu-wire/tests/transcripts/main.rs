//! Recorded upstream streams, replayed to callers of both dialects: whole, split at every byte, cut after every
//! frame. Golden files beside each recording hold what callers read; `UPDATE_GOLDEN=1` rewrites them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that fails panics; helpers are not seen as tests"
)]

mod check;
mod replay;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use honshu_domain::{Dialect, RunEvent};
use honshu_wire::chat::UpstreamDecoder;
use honshu_wire::passthrough::FramePatcher;

use replay::{Caller, decode_all, frames_of, native_all, outcome_of, split_decode};

const DIALECTS: [Dialect; 2] = [Dialect::ChatCompletions, Dialect::Responses];

struct Case {
    name: String,
    folder: PathBuf,
    upstream: Dialect,
    sse: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/transcripts");
    let mut cases = Vec::new();
    for entry in fs::read_dir(&root).unwrap() {
        let folder = entry.unwrap().path();
        for (file, upstream) in [
            ("upstream.chat.sse", Dialect::ChatCompletions),
            ("upstream.responses.sse", Dialect::Responses),
        ] {
            if let Ok(sse) = fs::read(folder.join(file)) {
                let name = folder.file_name().unwrap().to_string_lossy().into_owned();
                cases.push(Case {
                    name,
                    folder: folder.clone(),
                    upstream,
                    sse,
                });
            }
        }
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(cases.len() >= 13, "the recordings are there");
    cases
}

fn golden(path: &Path, actual: &[u8]) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, actual).unwrap();
    }
    let expected = fs::read(path).unwrap_or_default();
    assert!(
        expected == actual,
        "{} differs; run with UPDATE_GOLDEN=1 if the change is meant\n{}",
        path.display(),
        String::from_utf8_lossy(actual)
    );
}

fn word(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::ChatCompletions => "chat",
        Dialect::Responses => "responses",
        other => panic!("no transcripts of {other:?}"),
    }
}

/// A short form of events, to compare them.
fn digest(events: &[RunEvent]) -> String {
    events.iter().fold(String::new(), |mut text, event| {
        writeln!(text, "{event:?}").unwrap();
        text
    })
}

#[test]
fn callers_of_both_dialects_read_the_golden_streams_and_bodies() {
    for case in cases() {
        let frames = frames_of(&case.sse);
        let (events, error) = decode_all(case.upstream, &frames);
        golden(&case.folder.join("events.txt"), digest(&events).as_bytes());
        for dialect in DIALECTS {
            let caller = Caller::new(dialect);
            let outcome = outcome_of(&events, error.as_ref());
            let stream = caller.stream(&events, &outcome, error.as_ref());
            check::stream(&case.name, dialect, &stream, error.is_none());
            golden(
                &case.folder.join(format!("client.{}.sse", word(dialect))),
                &stream,
            );
            if error.is_none() {
                let body = caller.body(&events, &outcome);
                check::body(&case.name, dialect, &body);
                golden(
                    &case.folder.join(format!("client.{}.json", word(dialect))),
                    &body,
                );
                // A body read back gives the same answer as the stream did.
                assert_eq!(
                    caller.answer_of_body(&body),
                    caller.answer_of_stream(&stream),
                    "{} {dialect:?}",
                    case.name
                );
            }
        }
    }
}

#[test]
fn a_stream_split_at_any_byte_is_the_same_stream() {
    for case in cases() {
        let (events, _) = decode_all(case.upstream, &frames_of(&case.sse));
        let expected = digest(&events);
        for at in 0..=case.sse.len() {
            let split = split_decode(case.upstream, &case.sse, at);
            assert_eq!(digest(&split), expected, "{} split at {at}", case.name);
        }
    }
}

#[test]
fn a_stream_cut_after_any_frame_never_reads_as_completed() {
    for case in cases() {
        let frames = frames_of(&case.sse);
        for cut in 0..frames.len() {
            let (events, error) = decode_all(case.upstream, &frames[..cut]);
            let whole = events
                .iter()
                .any(|event| matches!(event, RunEvent::Finished(_)));
            assert_eq!(whole, error.is_none(), "{} cut at {cut}", case.name);
            let said = replay::upstream_said_it_ended(case.upstream, &frames[..cut]);
            assert_eq!(whole, said, "{} cut at {cut}", case.name);
            for dialect in DIALECTS {
                let outcome = outcome_of(&events, error.as_ref());
                let stream = Caller::new(dialect).stream(&events, &outcome, error.as_ref());
                check::stream(&case.name, dialect, &stream, whole);
            }
        }
    }
}

#[test]
fn native_frames_reach_the_caller_with_the_served_name_and_nothing_else_changed() {
    for case in cases() {
        let frames = frames_of(&case.sse);
        for cut in 0..=frames.len() {
            let (events, error) = native_all(case.upstream, &frames[..cut], true);
            let outcome = outcome_of(&events, error.as_ref());
            let caller = Caller::new(case.upstream);
            let stream = caller.stream(&events, &outcome, error.as_ref());
            if cut > 0 {
                check::stream(&case.name, case.upstream, &stream, error.is_none());
            }
            if cut == frames.len() {
                golden(&case.folder.join("native.sse"), &stream);
                let text = String::from_utf8(stream).unwrap();
                assert!(!text.contains("\"model\":\"up/model\""), "{}", case.name);
                assert_eq!(
                    text.contains("\"vendor\":{\"model\":\"keep\"}")
                        || text.contains("\"vendor_extra\":{\"model\":\"keep\"}"),
                    String::from_utf8_lossy(&case.sse).contains("keep"),
                    "{}",
                    case.name
                );
            }
        }
    }
}

#[test]
fn facts_of_native_frames_agree_with_the_decoder() {
    for case in cases() {
        let frames = frames_of(&case.sse);
        let (decoded, error) = decode_all(case.upstream, &frames);
        let (native, native_error) = native_all(case.upstream, &frames, false);
        assert_eq!(
            outcome_of(&decoded, error.as_ref()).usage,
            outcome_of(&native, native_error.as_ref()).usage,
            "{}",
            case.name
        );
        assert_eq!(
            error.map(|e| e.kind()),
            native_error.map(|e| e.kind()),
            "{}",
            case.name
        );
        // Usage that only we asked for is not shown to the caller.
        let text: String = native
            .iter()
            .filter_map(|event| match event {
                RunEvent::Native(frame) => Some(String::from_utf8_lossy(&frame.json).into_owned()),
                _ => None,
            })
            .collect();
        assert!(!text.contains("\"choices\":[],\"usage\""), "{}", case.name);
    }
}

#[test]
fn choices_that_come_one_after_the_other_are_whole_only_together() {
    let frame = |index: u32, rest: &str| {
        Bytes::from(format!(
            r#"{{"id":"c","choices":[{{"index":{index},{rest}}}]}}"#
        ))
    };
    let text = r#""delta":{"content":"x"}"#;
    let end = r#""delta":{},"finish_reason":"stop""#;
    let frames = [frame(0, text), frame(0, end), frame(1, text), frame(1, end)];
    let mut patcher = FramePatcher::new(Dialect::ChatCompletions, "m".into(), true).with_choices(2);
    let ends: Vec<bool> = frames
        .iter()
        .map(|frame| patcher.frame(frame.clone()).unwrap().facts.finish.is_some())
        .collect();
    assert_eq!(ends, [false, false, false, true]);
    for cut in 0..=frames.len() {
        let mut decoder = UpstreamDecoder::new().with_choices(2);
        let mut events = Vec::new();
        for frame in &frames[..cut] {
            decoder.frame(frame, &mut events).unwrap();
        }
        assert_eq!(decoder.end(&mut events).is_ok(), cut == 4, "{cut}");
    }
}

#[test]
fn native_answers_suit_callers_who_asked_for_the_other_form() {
    for case in cases() {
        let frames = frames_of(&case.sse);
        let (native, error) = native_all(case.upstream, &frames, true);
        if error.is_some() {
            continue;
        }
        let outcome = outcome_of(&native, None);
        if !outcome.usage_exact {
            // A body always has counts, and a stream only those that the upstream gave.
            continue;
        }
        let caller = Caller::new(case.upstream);
        // The upstream streamed and the caller wants one body.
        let body = caller.body(&native, &outcome);
        check::body(&case.name, case.upstream, &body);
        let stream = caller.stream(&native, &outcome, None);
        assert_eq!(
            caller.answer_of_body(&body),
            caller.answer_of_stream(&stream),
            "{}",
            case.name
        );
        // The upstream answered in one body and the caller wants a stream.
        let whole = FramePatcher::new(case.upstream, "vendor.served".into(), true)
            .whole(Bytes::from(body.clone()))
            .unwrap();
        let events = [RunEvent::Native(whole.frame.unwrap())];
        let stream = caller.stream(&events, &outcome, None);
        check::stream(&case.name, case.upstream, &stream, true);
        assert_eq!(
            caller.answer_of_body(&body),
            caller.answer_of_stream(&stream),
            "{}",
            case.name
        );
    }
}

#[test]
fn lists_and_frames_are_written_as_readers_expect() {
    use honshu_domain::Timestamp;
    use honshu_wire::models::{ModelEntry, list, object};
    let entry = |id| ModelEntry {
        id,
        created: Timestamp::from_seconds(7),
        owned_by: "x\"y",
    };
    let one = r#"{"id":"a/b","object":"model","created":7,"owned_by":"x\"y"}"#;
    assert_eq!(object(entry("a/b")), one);
    let both = list([entry("a/b"), entry("a/b")]);
    assert_eq!(both, format!(r#"{{"object":"list","data":[{one},{one}]}}"#));
    assert_eq!(list([]), r#"{"object":"list","data":[]}"#);

    let mut out = bytes::BytesMut::new();
    honshu_wire::sse::encode_frame(Some("e"), b"{\r\n\"a\":1}", &mut out);
    honshu_wire::sse::encode_frame(None, b"{}", &mut out);
    assert_eq!(out, "event: e\ndata: {  \"a\":1}\n\ndata: {}\n\n");
}
