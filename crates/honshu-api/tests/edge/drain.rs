//! Stopping: running answers end, the rest goes at once.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::{connect, read_all, start, statuses};

#[tokio::test]
async fn a_drain_ends_running_answers_and_closes_idle_connections_at_once() {
    let server = start().await;
    let mut fresh = connect(&server).await;
    let mut half = connect(&server).await;
    half.write_all(b"GET /x HTT").await.unwrap();
    let mut idle = connect(&server).await;
    idle.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let (answer, _) = read_all(&mut idle, Duration::from_millis(100)).await;
    assert_eq!(statuses(&answer, false), [200]);
    let mut busy = connect(&server).await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;

    let start = Instant::now();
    server.drain.cancel();
    for stream in [&mut fresh, &mut half, &mut idle] {
        let (answer, closed) = read_all(stream, Duration::from_millis(200)).await;
        assert!(closed && answer.is_empty());
    }
    let (answer, closed) = read_all(&mut busy, Duration::from_secs(2)).await;
    assert!(closed);
    assert_eq!(statuses(&answer, false), [200]);
    assert!(String::from_utf8_lossy(&answer).contains("connection: close"));
    let report = server.task.await.unwrap();
    assert_eq!(report.cut, 0);
    assert!(start.elapsed() < Duration::from_millis(1500));
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn who_comes_during_a_drain_is_told_so_and_does_not_prolong_it() {
    let server = start().await;
    let mut busy = connect(&server).await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.drain.cancel();
    let mut late = connect(&server).await;
    late.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let (answer, closed) = read_all(&mut late, Duration::from_millis(300)).await;
    assert!(closed);
    assert_eq!(statuses(&answer, false), [503]);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("retry-after: ") && answer.contains("connection: close"));
    // One that is still being turned away does not hold the server.
    let _silent = connect(&server).await;
    let (answer, _) = read_all(&mut busy, Duration::from_secs(2)).await;
    assert_eq!(statuses(&answer, false), [200]);
    assert_eq!(server.task.await.unwrap().cut, 0);
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn what_still_runs_at_the_deadline_is_cut() {
    let server = start().await;
    let mut stream = connect(&server).await;
    stream
        .write_all(b"GET /silent HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let (_, closed) = read_all(&mut stream, Duration::from_millis(100)).await;
    assert!(!closed);
    let start = Instant::now();
    server.drain.cancel();
    let (_, closed) = read_all(&mut stream, Duration::from_secs(4)).await;
    assert!(closed);
    assert_eq!(server.task.await.unwrap().cut, 1);
    let elapsed = start.elapsed();
    assert!(
        elapsed > Duration::from_millis(1900) && elapsed < Duration::from_secs(4),
        "{elapsed:?}"
    );
}

#[tokio::test]
async fn a_cut_does_not_wait() {
    let server = start().await;
    let mut stream = connect(&server).await;
    stream
        .write_all(b"GET /silent HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let (_, closed) = read_all(&mut stream, Duration::from_millis(100)).await;
    assert!(!closed);
    let start = Instant::now();
    server.drain.cancel();
    server.cut.cancel();
    server.task.await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(500));
}
