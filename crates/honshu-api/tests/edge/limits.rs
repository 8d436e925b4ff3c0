//! Clocks and sizes: slow, silent, endless and oversized clients.

use std::sync::atomic::Ordering;
use std::time::Duration;

use honshu_api::edge::EdgeLimits;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::support::{
    connect, exchange, is_a_whole_refusal, read_all, short_limits, start, start_with, statuses,
};

/// Generous bounds around a clock on a busy machine.
fn assert_between(elapsed: Duration, from: u64, to: u64) {
    assert!(
        (Duration::from_millis(from)..Duration::from_millis(to)).contains(&elapsed),
        "{elapsed:?} is not within {from} to {to} ms"
    );
}

#[tokio::test]
async fn a_silent_connection_is_closed_without_a_word() {
    let server = start().await;
    let mut stream = connect(&server).await;
    let start = Instant::now();
    let (answer, closed) = read_all(&mut stream, Duration::from_secs(5)).await;
    assert!(closed && answer.is_empty());
    assert_between(start.elapsed(), 600, 1700);
}

#[tokio::test]
async fn half_a_head_gets_a_408() {
    let server = start().await;
    for half in [&b"G"[..], b"POST", b"GET / HTTP/1.1\r\nHost: a\r\nX:"] {
        let start = Instant::now();
        let (answer, closed) = exchange(&server, half).await;
        assert!(closed);
        if half != b"P" {
            let expected: &[u16] = if answer.is_empty() { &[] } else { &[408] };
            assert_eq!(statuses(&answer, false), expected);
        }
        assert_between(start.elapsed(), 600, 2500);
    }
}

#[tokio::test]
async fn a_head_in_single_bytes_has_no_more_time() {
    let server = start().await;
    let stream = connect(&server).await;
    let (mut reader, mut writer) = stream.into_split();
    let start = Instant::now();
    let drip = tokio::spawn(async move {
        for byte in b"GET / HTTP/1.1\r\nHost: a\r\n".iter().cycle() {
            if writer.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let (answer, closed) = read_all(&mut reader, Duration::from_secs(5)).await;
    assert!(closed);
    assert_eq!(statuses(&answer, false), [408]);
    assert_between(start.elapsed(), 600, 2500);
    drip.abort();
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_may_be_used_until_then() {
    let server = start().await;
    let mut stream = connect(&server).await;
    for _ in 0..3 {
        stream
            .write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        let (answer, closed) = read_all(&mut stream, Duration::from_millis(900)).await;
        assert!(!closed);
        assert_eq!(statuses(&answer, false), [200]);
    }
    let start = Instant::now();
    let (answer, closed) = read_all(&mut stream, Duration::from_secs(5)).await;
    assert!(closed && answer.is_empty());
    assert_between(start.elapsed(), 300, 2000);
}

#[tokio::test]
async fn bodies_that_stop_drip_or_never_end_get_a_408() {
    let server = start().await;
    let chunked = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let lying = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n";
    for head in [&chunked[..], lying] {
        let start = Instant::now();
        let (answer, closed) = exchange(&server, head).await;
        assert!(closed);
        assert_eq!(statuses(&answer, false), [408]);
        assert_between(start.elapsed(), 600, 2500);

        let stream = connect(&server).await;
        let (mut reader, mut writer) = stream.into_split();
        let start = Instant::now();
        let is_chunked = head == chunked;
        writer.write_all(head).await.unwrap();
        let drip = tokio::spawn(async move {
            let piece: &[u8] = if is_chunked { b"1\r\nx\r\n" } else { b"x" };
            while writer.write_all(piece).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let (answer, _) = read_all(&mut reader, Duration::from_secs(5)).await;
        assert_eq!(statuses(&answer, false), [408]);
        assert_between(start.elapsed(), 1100, 3500);
        drip.abort();
    }
}

#[tokio::test]
async fn a_slow_but_honest_body_passes() {
    let limits = EdgeLimits {
        body_rate_min: 10,
        ..short_limits()
    };
    let server = start_with(limits, None).await;
    let mut stream = connect(&server).await;
    stream
        .write_all(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 200\r\n\r\n")
        .await
        .unwrap();
    for _ in 0..20 {
        stream.write_all(&[b'x'; 10]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(80)).await;
    }
    let (answer, _) = read_all(&mut stream, Duration::from_millis(500)).await;
    assert_eq!(statuses(&answer, false), [200]);
    assert!(String::from_utf8_lossy(&answer).ends_with("200\n"));
}

#[tokio::test]
async fn bodies_over_the_limit_get_a_413_that_the_client_can_read() {
    let limits = EdgeLimits {
        body_bytes_max: 100_000,
        ..short_limits()
    };
    let server = start_with(limits, None).await;
    let declared = |length: usize| {
        let mut bytes =
            format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n").into_bytes();
        bytes.extend(vec![b'x'; length]);
        bytes
    };
    let chunked = |length: usize| {
        let mut bytes =
            b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..length / 1000 {
            bytes.extend_from_slice(b"3e8\r\n");
            bytes.extend([b'x'; 1000]);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        bytes
    };
    for (bytes, status) in [
        (declared(100_000), 200),
        (declared(100_001), 413),
        (declared(300_000), 413),
        (chunked(100_000), 200),
        (chunked(101_000), 413),
        (chunked(300_000), 413),
    ] {
        let mut stream = connect(&server).await;
        stream.write_all(&bytes).await.unwrap();
        let (answer, _) = read_all(&mut stream, Duration::from_millis(800)).await;
        assert_eq!(statuses(&answer, false), [status], "{}", bytes.len());
    }
    // A handler that answers before it read the body: the answer arrives too.
    let mut bytes = b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n".to_vec();
    bytes.extend(vec![b'x'; 300_000]);
    let (answer, closed) = exchange(&server, &bytes).await;
    assert_eq!(statuses(&answer, false), [413]);
    assert!(closed);
}

#[tokio::test]
async fn encoded_bodies_get_a_415() {
    let server = start().await;
    for (encoding, status) in [
        ("gzip", 415),
        ("br", 415),
        ("zstd", 415),
        ("deflate", 415),
        ("identity, gzip", 415),
        ("identity", 200),
    ] {
        let request = format!(
            "POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Encoding: {encoding}\r\nContent-Length: 5\r\n\r\nhello"
        );
        let (answer, _) = exchange(&server, request.as_bytes()).await;
        assert_eq!(statuses(&answer, false), [status], "{encoding}");
        assert!(status == 200 || is_a_whole_refusal(&answer), "{encoding}");
    }
}

#[tokio::test]
async fn connections_over_the_cap_get_a_503_and_places_come_free() {
    let limits = EdgeLimits {
        connections_max: 3,
        ..short_limits()
    };
    let server = start_with(limits, None).await;
    let mut taken = Vec::new();
    for _ in 0..3 {
        let mut stream = connect(&server).await;
        stream
            .write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        let (answer, _) = read_all(&mut stream, Duration::from_millis(200)).await;
        assert_eq!(statuses(&answer, false), [200]);
        taken.push(stream);
    }
    let mut stream = connect(&server).await;
    let (answer, closed) = read_all(&mut stream, Duration::from_secs(2)).await;
    assert!(closed);
    assert_eq!(statuses(&answer, false), [503]);
    assert!(is_a_whole_refusal(&answer));
    drop(taken);
    let mut status = vec![];
    for _ in 0..100 {
        let (answer, _) = exchange(
            &server,
            b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .await;
        status = statuses(&answer, false);
        if status == [200] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(status, [200]);
}

#[tokio::test]
async fn a_panic_costs_one_request() {
    let server = start().await;
    let mut stream = connect(&server).await;
    stream
        .write_all(b"GET /panic HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let (answer, closed) = read_all(&mut stream, Duration::from_millis(300)).await;
    assert_eq!(statuses(&answer, false), [500]);
    assert!(is_a_whole_refusal(&answer));
    assert!(!String::from_utf8_lossy(&answer).contains("on purpose"));
    assert!(!closed);
    stream
        .write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let (answer, _) = read_all(&mut stream, Duration::from_millis(300)).await;
    assert_eq!(statuses(&answer, false), [200]);
}

#[tokio::test]
async fn a_fault_behind_a_head_that_passed_is_answered_once() {
    let server = start().await;
    let mut stream = connect(&server).await;
    stream
        .write_all(
            b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        )
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stream
        .write_all(b"zzz\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let start = Instant::now();
    let (answer, closed) = read_all(&mut stream, Duration::from_secs(5)).await;
    assert!(closed);
    assert_eq!(statuses(&answer, false), [400]);
    assert!(start.elapsed() < Duration::from_millis(600));
    assert_eq!(server.seen.smuggled.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_one_after_the_other() {
    let server = start().await;
    let mut bytes = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
    for n in 0..200 {
        bytes.extend(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes());
    }
    bytes.extend_from_slice(b"BAD\r\n");
    let (answer, closed) = exchange(&server, &bytes).await;
    assert!(closed);
    let statuses = statuses(&answer, false);
    assert_eq!(statuses.len(), 202);
    assert!(statuses[..201].iter().all(|status| *status == 200));
    assert_eq!(statuses[201], 400);
    let text = String::from_utf8(answer).unwrap();
    let order: Vec<usize> = (0..200)
        .map(|n| text.find(&format!(" /{n} 0\n")).unwrap())
        .collect();
    assert!(order.is_sorted());
}
