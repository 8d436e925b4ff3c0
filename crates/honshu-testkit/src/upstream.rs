//! An upstream on a free port of this machine that answers byte for byte as told.
//!
//! It speaks just enough HTTP/1.1 to be called by a client: what matters here is what goes wrong after the head.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How a request is answered.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    chunks: Vec<Vec<u8>>,
    /// Before each chunk.
    pause: Duration,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The last chunk of the chunked body.
    Proper,
    /// The connection is closed without it.
    Cut,
    /// The connection is reset.
    Reset,
    /// Silence until the client leaves.
    Stall,
}

impl Reply {
    /// A stream of server-sent events, each chunk sent on its own.
    #[must_use]
    pub fn stream(chunks: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type".into(), "text/event-stream".into())],
            chunks: chunks.into_iter().collect(),
            pause: Duration::ZERO,
            end: End::Proper,
        }
    }

    /// A JSON body.
    #[must_use]
    pub fn json(status: u16, body: &str) -> Self {
        Self {
            status,
            headers: vec![("content-type".into(), "application/json".into())],
            chunks: vec![body.as_bytes().to_vec()],
            pause: Duration::ZERO,
            end: End::Proper,
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Waits before each chunk.
    #[must_use]
    pub fn paced(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Closes the connection instead of ending the body.
    #[must_use]
    pub fn cut(mut self) -> Self {
        self.end = End::Cut;
        self
    }

    /// Resets the connection instead of ending the body.
    #[must_use]
    pub fn reset(mut self) -> Self {
        self.end = End::Reset;
        self
    }

    /// Falls silent instead of ending the body.
    #[must_use]
    pub fn stall(mut self) -> Self {
        self.end = End::Stall;
        self
    }
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Received {
    /// Request line and headers.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Received {
    /// The value of a header, by its lower-case name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

#[derive(Debug, Default)]
struct State {
    replies: Vec<Reply>,
    received: Vec<Received>,
    connections: usize,
    /// When clients closed connections while an answer was on its way.
    hang_ups: Vec<Instant>,
}

/// The upstream. Stops when dropped.
#[derive(Debug)]
pub struct MockUpstream {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

impl MockUpstream {
    /// Listens. Requests are answered by `replies` in turn, the last one for ever.
    pub async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State {
            replies: replies.into_iter().collect(),
            ..State::default()
        }));
        let ours = Arc::clone(&state);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                ours.lock().unwrap().connections += 1;
                tokio::spawn(serve(stream, Arc::clone(&ours)));
            }
        });
        Self {
            address,
            state,
            server,
        }
    }

    /// `http://127.0.0.1:PORT/v1`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The requests that came.
    pub fn received(&self) -> Vec<Received> {
        self.state.lock().unwrap().received.clone()
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    /// When clients closed connections while an answer was on its way.
    pub fn hang_ups(&self) -> Vec<Instant> {
        self.state.lock().unwrap().hang_ups.clone()
    }
}

impl Drop for MockUpstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    while let Some(received) = read_request(&mut stream, &mut buffer).await {
        let reply = {
            let mut state = state.lock().unwrap();
            state.received.push(received);
            if state.replies.len() > 1 {
                state.replies.remove(0)
            } else {
                state.replies[0].clone()
            }
        };
        match answer(&mut stream, &reply).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(HungUp) => {
                state.lock().unwrap().hang_ups.push(Instant::now());
                return;
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Received> {
    let mut more = vec![0_u8; 16 * 1024];
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let mut received = Received {
                head,
                body: Vec::new(),
            };
            let length: usize = received
                .header("content-length")
                .map_or(0, |text| text.parse().unwrap());
            let whole = end + 4 + length;
            if buffer.len() >= whole {
                received.body = buffer[end + 4..whole].to_vec();
                buffer.drain(..whole);
                return Some(received);
            }
        }
        match stream.read(&mut more).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => buffer.extend_from_slice(&more[..count]),
        }
    }
}

struct HungUp;

/// Says whether the connection goes on.
async fn answer(stream: &mut TcpStream, reply: &Reply) -> Result<bool, HungUp> {
    let mut head = format!(
        "HTTP/1.1 {} Reason\r\ntransfer-encoding: chunked\r\n",
        reply.status
    );
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream
        .write_all(head.as_bytes())
        .await
        .map_err(|_| HungUp)?;
    for chunk in &reply.chunks {
        if !reply.pause.is_zero() {
            wait(stream, Some(reply.pause)).await?;
        }
        if chunk.is_empty() {
            continue;
        }
        let mut frame = format!("{:x}\r\n", chunk.len()).into_bytes();
        frame.extend_from_slice(chunk);
        frame.extend_from_slice(b"\r\n");
        stream.write_all(&frame).await.map_err(|_| HungUp)?;
    }
    match reply.end {
        End::Proper => {
            stream.write_all(b"0\r\n\r\n").await.map_err(|_| HungUp)?;
            Ok(true)
        }
        End::Cut => Ok(false),
        End::Reset => {
            // Closing with unread lingering data discarded makes the kernel send RST.
            #[expect(
                deprecated,
                reason = "a zero linger does not block, and nothing else makes a reset"
            )]
            let _ = stream.set_linger(Some(Duration::ZERO));
            Ok(false)
        }
        End::Stall => {
            wait(stream, None).await?;
            Ok(false)
        }
    }
}

/// Waits and watches for the client's leaving.
async fn wait(stream: &mut TcpStream, pause: Option<Duration>) -> Result<(), HungUp> {
    let mut byte = [0_u8; 1];
    let read = stream.read(&mut byte);
    let outcome = match pause {
        Some(pause) => tokio::time::timeout(pause, read).await,
        None => Ok(read.await),
    };
    match outcome {
        Err(_elapsed) => Ok(()),
        Ok(Ok(0) | Err(_)) => Err(HungUp),
        Ok(Ok(_)) => panic!("the client sent more while its answer was on its way"),
    }
}
