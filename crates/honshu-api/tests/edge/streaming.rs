//! Answers that take long: clients that leave, and clients that do not read.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::support::{connect, eventually, read_all, start};

const GET: &[u8] = b"GET /silent HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn a_client_that_leaves_a_silent_stream_drops_its_body_within_250_ms() {
    let server = start().await;
    // The last one has more requests in the pipe than the server reads ahead.
    let many = [GET, &GET.repeat(20)].concat();
    let unfinished = [GET, b"GET /half HTTP/1.1\r\nHo"].concat();
    for (n, bytes) in [GET, &many, &unfinished].into_iter().enumerate() {
        for reset in [false, true] {
            let before = server.seen.dropped.load(Ordering::SeqCst);
            let mut stream = connect(&server).await;
            stream.write_all(bytes).await.unwrap();
            let (answer, closed) = read_all(&mut stream, Duration::from_millis(100)).await;
            assert!(String::from_utf8_lossy(&answer).contains("data: 1"));
            assert!(!closed);
            assert_eq!(server.seen.dropped.load(Ordering::SeqCst), before, "{n}");
            if reset {
                socket2::SockRef::from(&stream)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
            }
            let left = Instant::now();
            drop(stream);
            eventually("the body is dropped", Duration::from_millis(250), || {
                server.seen.dropped.load(Ordering::SeqCst) > before
            })
            .await;
            assert!(left.elapsed() < Duration::from_millis(250));
        }
    }
}

#[tokio::test]
async fn a_stream_stays_open_while_its_client_does() {
    let server = start().await;
    let mut stream = connect(&server).await;
    stream.write_all(GET).await.unwrap();
    // Longer than every clock of the reading side.
    let (_, closed) = read_all(&mut stream, Duration::from_millis(2500)).await;
    assert!(!closed);
    assert_eq!(server.seen.dropped.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let server = start().await;
    let mut stream = connect(&server).await;
    stream
        .write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    // Let the buffers of both kernels fill, then wait for the clock.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let start = Instant::now();
    let (answer, closed) = read_all(&mut stream, Duration::from_secs(3)).await;
    assert!(closed, "{} bytes", answer.len());
    assert!(start.elapsed() < Duration::from_secs(3));
    assert!(!answer.ends_with(b"0\r\n\r\n"), "a cut must not look whole");
}
