//! A small valid GGUF file, a hub that can misbehave, and a store in a temporary directory.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use honshu_egress::AddressRules;
use honshu_models::{Catalogue, Digest, ModelSpec, ModelStore, Progress, PullEvent, PullOptions};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Writes GGUF.
#[derive(Default)]
pub(crate) struct Gguf {
    entries: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: Vec<u8>,
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

impl Gguf {
    pub(crate) fn text(mut self, key: &str, value: &str) -> Self {
        self.entries
            .push([string(key), 8u32.to_le_bytes().to_vec(), string(value)].concat());
        self
    }

    pub(crate) fn number(mut self, key: &str, value: u32) -> Self {
        self.entries.push(
            [
                string(key),
                4u32.to_le_bytes().to_vec(),
                value.to_le_bytes().to_vec(),
            ]
            .concat(),
        );
        self
    }

    pub(crate) fn texts(mut self, key: &str, values: &[&str]) -> Self {
        let mut entry = [
            string(key),
            9u32.to_le_bytes().to_vec(),
            8u32.to_le_bytes().to_vec(),
        ]
        .concat();
        entry.extend_from_slice(&(values.len() as u64).to_le_bytes());
        values.iter().for_each(|v| entry.extend(string(v)));
        self.entries.push(entry);
        self
    }

    /// A tensor of 32-bit floats.
    pub(crate) fn tensor(mut self, name: &str, dimensions: &[u64]) -> Self {
        let offset = self.data.len() as u64;
        let mut info = [
            string(name),
            (dimensions.len() as u32).to_le_bytes().to_vec(),
        ]
        .concat();
        dimensions
            .iter()
            .for_each(|d| info.extend_from_slice(&d.to_le_bytes()));
        info.extend_from_slice(&0u32.to_le_bytes());
        info.extend_from_slice(&offset.to_le_bytes());
        self.tensors.push(info);
        let bytes = dimensions.iter().product::<u64>() as usize * 4;
        self.data
            .extend((0..bytes.next_multiple_of(32)).map(|n| (n * 7 + n / 251) as u8));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend_from_slice(&3u32.to_le_bytes());
        file.extend_from_slice(&(self.tensors.len() as u64).to_le_bytes());
        file.extend_from_slice(&(self.entries.len() as u64).to_le_bytes());
        self.entries
            .iter()
            .chain(&self.tensors)
            .for_each(|part| file.extend_from_slice(part));
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend_from_slice(&self.data);
        file
    }
}

/// A model as llama.cpp would take it, apart from its size.
pub(crate) fn small() -> Gguf {
    Gguf::default()
        .text("general.architecture", "llama")
        .text("general.name", "Tiny")
        .text("general.license", "apache-2.0")
        .texts("general.languages", &["en", "ja"])
        .number("general.file_type", 0)
        .number("llama.block_count", 2)
        .number("llama.context_length", 128)
        .number("llama.embedding_length", 64)
        .number("llama.attention.head_count", 8)
        .number("llama.attention.head_count_kv", 2)
        .text("tokenizer.chat_template", "{{ messages }}")
        .texts("tokenizer.ggml.tokens", &["a", "b", "c"])
        .tensor("token_embd.weight", &[64, 3])
        .tensor("blk.0.attn_q.weight", &[64, 64])
        .tensor("output_norm.weight", &[64])
}

/// The same, with `kilobytes` of weights more.
pub(crate) fn model_of(kilobytes: u64) -> Vec<u8> {
    small()
        .tensor("blk.1.ffn_up.weight", &[256, kilobytes])
        .bytes()
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    hex.parse().unwrap()
}

/// How the server answers the next requests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Behaviour {
    /// Cut the connection after so many bytes of body, once for each entry.
    pub(crate) cuts: Vec<usize>,
    pub(crate) ignores_range: bool,
    pub(crate) status: Option<u16>,
    /// Redirect `/resolve/` to this base URL, with the hub's headers.
    pub(crate) redirect_to: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) etag: Option<&'static str>,
    /// Pause between pieces of 16 KiB.
    pub(crate) pause: Duration,
    /// Say no length.
    pub(crate) has_no_length: bool,
}

#[derive(Clone)]
pub(crate) struct FileServer {
    pub(crate) address: SocketAddr,
    pub(crate) behaviour: Arc<Mutex<Behaviour>>,
    pub(crate) content: Arc<Mutex<Bytes>>,
    /// Path and headers of every request.
    pub(crate) requests: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

impl FileServer {
    pub(crate) async fn start(content: Vec<u8>, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            behaviour: Arc::new(Mutex::new(behaviour)),
            content: Arc::new(Mutex::new(content.into())),
            requests: Arc::default(),
        };
        let shared = server.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let shared = shared.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let response = shared.answer(&request);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let connection = hyper::server::conn::http1::Builder::new();
                    let _ = connection
                        .serve_connection(TokioIo::new(tcp), service)
                        .await;
                });
            }
        });
        server
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn request(&self, at: usize) -> (String, HeaderMap) {
        self.requests.lock().unwrap()[at].clone()
    }

    pub(crate) fn request_count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Pieces> {
        let path = request.uri().path().to_owned();
        self.requests
            .lock()
            .unwrap()
            .push((path.clone(), request.headers().clone()));
        let mut behaviour = self.behaviour.lock().unwrap();
        let content = self.content.lock().unwrap().clone();
        let mut response = Response::new(Pieces::default());
        response.headers_mut().extend(behaviour.headers.clone());
        if let Some(status) = behaviour.status {
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            return response;
        }
        if let Some(base) = behaviour
            .redirect_to
            .as_ref()
            .filter(|_| path.contains("/resolve/"))
        {
            *response.status_mut() = StatusCode::FOUND;
            response.headers_mut().insert(
                "location",
                format!("{base}/cdn?signature=secret").parse().unwrap(),
            );
            return response;
        }
        if let Some(etag) = behaviour.etag {
            response.headers_mut().insert("etag", etag.parse().unwrap());
        }
        let header = |name: &str| {
            request
                .headers()
                .get(name)
                .map(|v| v.to_str().unwrap().to_owned())
        };
        let fits = header("if-range").is_none_or(|wanted| Some(wanted.as_str()) == behaviour.etag);
        let start = header("range")
            .filter(|_| fits && !behaviour.ignores_range)
            .map_or(0, |r| {
                r.trim_start_matches("bytes=")
                    .trim_end_matches('-')
                    .parse::<usize>()
                    .unwrap()
            });
        if start > 0 {
            if start >= content.len() {
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                return response;
            }
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
            response
                .headers_mut()
                .insert("content-range", range.parse().unwrap());
        }
        let rest = content.slice(start..);
        if !behaviour.has_no_length {
            response
                .headers_mut()
                .insert("content-length", rest.len().into());
        }
        let cut = if behaviour.cuts.is_empty() {
            None
        } else {
            Some(behaviour.cuts.remove(0))
        };
        *response.body_mut() = Pieces {
            rest,
            cut,
            pause: behaviour.pause,
            sleep: None,
        };
        response
    }
}

/// A body in pieces of 16 KiB, which may break.
#[derive(Default)]
pub(crate) struct Pieces {
    rest: Bytes,
    cut: Option<usize>,
    pause: Duration,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if let Some(sleep) = &mut self.sleep {
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.sleep = None;
        }
        if self.cut == Some(0) {
            return Poll::Ready(Some(Err(std::io::Error::other("cut"))));
        }
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let len = self
            .rest
            .len()
            .min(16 * 1024)
            .min(self.cut.unwrap_or(usize::MAX));
        let piece = self.rest.split_to(len);
        self.cut = self.cut.map(|cut| cut - len);
        // A short rest lets what was sent before a cut arrive: the server would drop its buffer otherwise.
        let pause = if self.cut == Some(0) {
            Duration::from_millis(20)
        } else {
            self.pause
        };
        if !pause.is_zero() {
            self.sleep = Some(Box::pin(tokio::time::sleep(pause)));
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

pub(crate) struct Fixture {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) store: ModelStore,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = ModelStore::open(directory.path().join("models")).unwrap();
        Self { directory, store }
    }

    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Names of everything in `blobs/` and `manifests/`.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut names = Vec::new();
        for directory in ["blobs", "manifests"] {
            for entry in std::fs::read_dir(self.store.directory().join(directory)).unwrap() {
                names.push(entry.unwrap().file_name().into_string().unwrap());
            }
        }
        names.sort();
        names
    }
}

pub(crate) fn spec(text: &str) -> ModelSpec {
    ModelSpec::parse(text, Catalogue::embedded()).unwrap()
}

pub(crate) fn path_spec(path: &Path) -> ModelSpec {
    ModelSpec::Path(path.to_owned())
}

/// Options with short pauses, that reach the test servers also behind redirects.
pub(crate) fn options() -> PullOptions {
    PullOptions {
        allow: AddressRules::public_only()
            .allow_cidr("127.0.0.0/8")
            .unwrap(),
        retry_pause: Duration::from_millis(1),
        idle_timeout: Duration::from_secs(5),
        ..PullOptions::default()
    }
}

/// Keeps all reports.
#[derive(Default)]
pub(crate) struct Reports(pub(crate) Mutex<Vec<PullEvent>>);

impl Progress for Reports {
    fn event(&self, event: &PullEvent) {
        self.0.lock().unwrap().push(event.clone());
    }
}

impl Reports {
    pub(crate) fn notes(&self) -> String {
        let notes = self.0.lock().unwrap();
        let notes = notes.iter().filter_map(|e| match e {
            PullEvent::Note(note) => Some(note.clone()),
            _ => None,
        });
        notes.collect::<Vec<_>>().join("\n")
    }
}
