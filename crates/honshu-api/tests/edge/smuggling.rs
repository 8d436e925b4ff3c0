//! Every byte string of the corpus is refused and the connection closed, or it is
//! exactly the request that RFC 9112 makes of it, however it is cut.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde::Deserialize;
use tokio::io::AsyncWriteExt;

use crate::support::{Server, connect, is_a_whole_refusal, read_all, start, statuses};

#[derive(Deserialize, Clone)]
struct Case {
    name: String,
    expect: String,
    bytes: String,
}

impl Case {
    fn bytes(&self) -> Vec<u8> {
        self.bytes
            .chars()
            .map(|c| u8::try_from(u32::from(c)).unwrap())
            .collect()
    }
}

fn corpus() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/wire/smuggling.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    let cases: Vec<Case> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(cases.len() >= 250, "{} cases", cases.len());
    cases
}

/// Sends the pieces and checks what came back.
async fn check(server: &Server, case: &Case, cuts: &[usize]) -> Result<(), String> {
    let bytes = case.bytes();
    let mut stream = connect(server).await;
    let mut from = 0;
    for to in cuts.iter().copied().chain([bytes.len()]) {
        // A server that has refused already may reset what we still send.
        if stream.write_all(&bytes[from..to]).await.is_err() {
            break;
        }
        if !cuts.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        from = to;
    }
    let silence = match case.expect.as_str() {
        "one" | "two" => Duration::from_millis(150),
        _ => Duration::from_secs(5),
    };
    let (answer, closed) = read_all(&mut stream, silence).await;
    let head_only = bytes.starts_with(b"HEAD ");
    let statuses = statuses(&answer, head_only);
    let ok = match case.expect.as_str() {
        "refuse" => closed && matches!(statuses[..], [400..=599]) && is_a_whole_refusal(&answer),
        "timeout" => closed && statuses == [408] && is_a_whole_refusal(&answer),
        "one" => statuses == [200],
        "two" => statuses == [200, 200],
        other => return Err(format!("unknown expectation {other}")),
    };
    if ok {
        Ok(())
    } else {
        Err(format!(
            "{} cut at {cuts:?}: expected {}, got {statuses:?}, closed: {closed}, {}",
            case.name,
            case.expect,
            answer.escape_ascii()
        ))
    }
}

async fn check_all(cuts: impl Fn(&Case) -> Vec<Vec<usize>>) {
    let server = start().await;
    let jobs: Vec<(Case, Vec<usize>)> = corpus()
        .into_iter()
        .flat_map(|case| {
            let cuts = cuts(&case);
            cuts.into_iter().map(move |cut| (case.clone(), cut))
        })
        .collect();
    let failures: Vec<String> = stream::iter(&jobs)
        .map(|(case, cuts)| check(&server, case, cuts))
        .buffer_unordered(64)
        .filter_map(|result| async { result.err() })
        .collect()
        .await;
    assert!(
        failures.is_empty(),
        "{} of {} failed:\n{}",
        failures.len(),
        jobs.len(),
        failures.join("\n")
    );
    assert_eq!(server.seen.smuggled.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole() {
    check_all(|_| vec![vec![]]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_in_two() {
    check_all(|case| {
        let length = case.bytes().len();
        [length / 4, length / 2, length - length / 8 - 1]
            .into_iter()
            .filter(|cut| (1..length).contains(cut))
            .map(|cut| vec![cut])
            .collect()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn byte_by_byte() {
    check_all(|case| {
        let length = case.bytes().len();
        if length > 220 {
            vec![]
        } else {
            vec![(1..length).collect()]
        }
    })
    .await;
}
