//! Every golden transcript through a real connection, the provider and the gateway: whole, and broken off after
//! each of its frames in three ways. A run has one row, and one that was broken off is never completed.

use std::path::Path;
use std::sync::Arc;

use honshu_domain::{InferenceRequest, RunEvent, Status};
use honshu_egress::{AddressRules, Client, ClientOptions};
use honshu_provider::{Credential, OpenAiOptions, OpenAiProvider};
use honshu_testkit::{MockUpstream, Reply, chat_request, model, request};

use crate::common::{MODEL, Told, World, call, told};

struct Case {
    name: String,
    frames: Vec<Vec<u8>>,
    is_chat: bool,
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/transcripts");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        for (file, is_chat) in [
            ("upstream.chat.sse", true),
            ("upstream.responses.sse", false),
        ] {
            if let Ok(body) = std::fs::read(path.join(file)) {
                cases.push(Case {
                    name: path.file_name().unwrap().display().to_string(),
                    frames: honshu_testkit::frames_of(&body),
                    is_chat,
                });
            }
        }
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(cases.len() >= 10, "the transcripts are there");
    cases
}

async fn replay(case: &Case, reply: Reply, asked: InferenceRequest) -> (Told, String) {
    let upstream = MockUpstream::start([reply]).await;
    let client = Client::new(ClientOptions {
        allow: AddressRules::any(),
        ..ClientOptions::default()
    });
    let options = OpenAiOptions {
        name: "mock".into(),
        base_url: upstream.base_url(),
        credential: Credential::none(),
        chat: case.is_chat,
        responses: !case.is_chat,
    };
    let provider = OpenAiProvider::new(options, client).unwrap();
    let limits = honshu_gateway::Limits {
        attempts_max: 1,
        ..honshu_gateway::Limits::default()
    };
    let world = World::limited(model(MODEL, Arc::new(provider)), limits);
    let got = match world.generate(call(), asked).await {
        Ok(run) => told(run).await,
        Err(error) => Told {
            events: Vec::new(),
            end: None,
            error: Some(error),
        },
    };
    let row = world.row().await;
    (got, row.status.to_string())
}

fn callers(choices: u32) -> [InferenceRequest; 2] {
    [chat_request(MODEL, "x", true), request(MODEL, "x")]
        .map(|asked| InferenceRequest { choices, ..asked })
}

#[tokio::test]
async fn whole_transcripts_end_as_they_say() {
    for case in cases() {
        for asked in callers(1) {
            let dialect = asked.dialect;
            let (got, status) = replay(&case, Reply::stream(case.frames.clone()), asked).await;
            let what = format!("{} for {dialect:?}: {:?}", case.name, got.error);
            let text = String::from_utf8(case.frames.concat()).unwrap();
            let says = |word: &str| text.contains(word);
            let expected = if case.name.contains("failed") || case.name.contains("error") {
                "failed"
            } else if says("\"finish_reason\":\"length\"")
                || says("\"finish_reason\":\"content_filter\"")
                || says("\"type\":\"response.incomplete\"")
            {
                "incomplete"
            } else {
                "completed"
            };
            assert_eq!(status, expected, "{what}");
            assert_eq!(got.error.is_some(), expected == "failed", "{what}");
            let starts = got
                .events
                .iter()
                .filter(|e| matches!(e, RunEvent::Started { .. }))
                .count();
            assert!(starts <= 1, "{what}: started once");
        }
    }
}

#[tokio::test]
async fn transcripts_that_break_off_anywhere_are_failed_and_recorded_once() {
    for case in cases() {
        let choices = if case.name.contains("two-choices") {
            2
        } else {
            1
        };
        for kept in 0..case.frames.len() {
            let some = || case.frames[..kept].to_vec();
            let half = || {
                let mut frames = some();
                let next = &case.frames[kept];
                frames.push(next[..next.len() / 2].to_vec());
                frames
            };
            // What these frames say themselves: a terminal event or the reasons of all choices came.
            let text = String::from_utf8(some().concat()).unwrap();
            let reasons = text.matches("\"finish_reason\":\"").count();
            let has_ended = text.contains("[DONE]")
                || text.contains("\"type\":\"response.completed\"")
                || text.contains("\"type\":\"response.incomplete\"")
                || text.contains("\"type\":\"response.failed\"");
            if has_ended {
                continue;
            }
            let may_be_whole = case.is_chat && reasons >= choices;
            let ways = [
                ("cut", Reply::stream(some()).cut(), false),
                ("reset", Reply::stream(half()).reset(), false),
                (
                    "half a frame, then a clean end",
                    Reply::stream(half()),
                    may_be_whole,
                ),
                ("a clean end", Reply::stream(some()), may_be_whole),
            ];
            for (how, reply, may_complete) in ways {
                for asked in callers(u32::try_from(choices).unwrap()) {
                    let dialect = asked.dialect;
                    let (got, status) = replay(&case, reply.clone(), asked).await;
                    let what = format!("{}: {how} after {kept} frames for {dialect:?}", case.name);
                    if may_complete {
                        continue;
                    }
                    assert_eq!(status, "failed", "{what}");
                    assert!(got.error.is_some(), "{what}");
                    assert!(
                        !matches!(got.end.map(|end| end.status), Some(Status::Completed)),
                        "{what}"
                    );
                    assert!(
                        !got.events
                            .iter()
                            .any(|e| matches!(e, RunEvent::Finished(_))),
                        "{what}: {got:?}"
                    );
                }
            }
        }
    }
}
