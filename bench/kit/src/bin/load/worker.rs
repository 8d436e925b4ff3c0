//! One caller: sends a request, reads the answer, sends the next, until the time is over.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use honshu_bench::monotonic_ns;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

/// Failures after which a caller gives up: the figures are worthless by then.
const FAILURES_MAX: u32 = 50;

/// What is asked of whom.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    pub(crate) body: Bytes,
    pub(crate) key: Option<String>,
    pub(crate) stream: bool,
}

/// When figures are taken.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    pub(crate) from: Instant,
    pub(crate) until: Instant,
}

impl Window {
    fn holds(&self, now: Instant) -> bool {
        (self.from..self.until).contains(&now)
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }
}

/// What all callers saw together.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) answered_ns: Vec<u64>,
    pub(crate) first_piece_ns: Vec<u64>,
    pub(crate) transit_ns: Vec<u64>,
    pub(crate) connections: u64,
    pub(crate) failures: u64,
    pub(crate) first_failure: Option<String>,
}

impl Seen {
    fn fail(&mut self, what: impl ToString) {
        self.failures += 1;
        self.first_failure.get_or_insert_with(|| what.to_string());
    }
}

/// Calls until the window is over.
pub(crate) async fn call(target: Rc<Target>, window: Window, seen: Rc<RefCell<Seen>>) {
    let mut failures = 0;
    while !window.is_over() && failures < FAILURES_MAX {
        let outcome = on_one_connection(&target, window, &seen).await;
        if let Err(error) = outcome {
            failures += 1;
            seen.borrow_mut().fail(error);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn on_one_connection(
    target: &Target,
    window: Window,
    seen: &RefCell<Seen>,
) -> anyhow::Result<()> {
    let socket = tokio::net::TcpStream::connect(target.address).await?;
    socket.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    seen.borrow_mut().connections += 1;
    tokio::task::spawn_local(async move {
        // Its error is the request's error, which is counted there.
        let _ = connection.await;
    });
    while !window.is_over() {
        exchange(target, &mut sender, window, seen).await?;
    }
    Ok(())
}

async fn exchange(
    target: &Target,
    sender: &mut SendRequest<Full<Bytes>>,
    window: Window,
    seen: &RefCell<Seen>,
) -> anyhow::Result<()> {
    sender.ready().await?;
    let (begun, begun_ns) = (Instant::now(), monotonic_ns());
    let mut request = Request::post(&target.path)
        .header("host", target.address.to_string())
        .header("content-type", "application/json");
    if let Some(key) = &target.key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let response = sender
        .send_request(request.body(Full::new(target.body.clone()))?)
        .await?;
    let status = response.status();
    if !status.is_success() {
        let body = response.into_body().collect().await?.to_bytes();
        let body = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        anyhow::bail!("{status} {body}");
    }
    if target.stream {
        read_stream(response.into_body(), begun_ns, window, seen).await?;
    } else {
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame?;
        }
    }
    if window.holds(begun) && !window.is_over() {
        seen.borrow_mut()
            .answered_ns
            .push(monotonic_ns() - begun_ns);
    }
    Ok(())
}

async fn read_stream(
    mut body: Incoming,
    begun_ns: u64,
    window: Window,
    seen: &RefCell<Seen>,
) -> anyhow::Result<()> {
    let mut marks = Marks::default();
    let mut first = true;
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        let (now, now_ns) = (Instant::now(), monotonic_ns());
        let counts = window.holds(now);
        marks.read(data, |written_ns| {
            let mut seen = seen.borrow_mut();
            if counts {
                seen.transit_ns.push(now_ns.saturating_sub(written_ns));
                if first {
                    seen.first_piece_ns.push(now_ns - begun_ns);
                }
            }
            first = false;
        });
    }
    Ok(())
}

/// Finds the upstream's `"t<nanoseconds> ` in a stream that may be cut anywhere.
#[derive(Default)]
struct Marks {
    rest: Vec<u8>,
}

impl Marks {
    fn read(&mut self, data: &[u8], mut found: impl FnMut(u64)) {
        self.rest.extend_from_slice(data);
        let mut done = 0;
        while let Some(quote) = memchr::memchr(b'"', &self.rest[done..]) {
            let begin = done + quote + 1;
            let digits = match self.rest.get(begin) {
                Some(b't') => &self.rest[begin + 1..],
                Some(_) => {
                    done = begin;
                    continue;
                }
                None => break,
            };
            let Some(length) = digits.iter().position(|byte| !byte.is_ascii_digit()) else {
                break;
            };
            let digits = std::str::from_utf8(&digits[..length]).unwrap_or_default();
            if digits.len() > 3
                && let Ok(written_ns) = digits.parse()
            {
                found(written_ns);
            }
            done = begin;
        }
        let keep = memchr::memchr(b'"', &self.rest[done..]).map_or(self.rest.len(), |at| done + at);
        self.rest.drain(..keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_however_the_stream_is_cut() {
        let text = br#"data: {"type":"x","delta":"t123456 ","text":"then"}
data: {"delta":"t98765 "}"#;
        for cut in 0..=text.len() {
            let (mut marks, mut found) = (Marks::default(), Vec::new());
            marks.read(&text[..cut], |mark| found.push(mark));
            marks.read(&text[cut..], |mark| found.push(mark));
            assert_eq!(found, [123_456, 98_765], "cut at {cut}");
        }
    }
}
