//! A file from a web server, continued where the last pull stopped.
//!
//! What has arrived stays in `<id>.partial`, written without a buffer of ours, so that a killed pull loses nothing that
//! reached us. `<id>.partial.json` says where it came from and what it should become. The digest decides in the end:
//! continuing with a changed file gives a wrong digest, which starts the download anew, once.

use std::time::Duration;

use honshu_egress::{Client, EgressError};
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_RANGE, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};

use super::local::blocking;
use super::{Context, Fetched};
use crate::error::ModelError;
use crate::files::{HashedFile, check_space, remove_if_exists, write_atomically};
use crate::manifest::{Digest, DigestOrigin, Source};
use crate::progress::{Meter, Phase, PullEvent, REPORT_INTERVAL};

const REDIRECTS_MAX: usize = 8;
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Largest file that is begun, in bytes; the largest published models are below it.
const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024 * 1024;
/// The hub's own headers on `/resolve/` answers: digest and size of the stored file, and the commit.
const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
const LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");
const REPO_COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");

/// What is remembered of an interrupted download.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// Digest of the URL; the URL itself may hold a signature.
    url_sha256: String,
    #[serde(default)]
    etag: Option<String>,
    #[serde(default)]
    size_bytes: Option<u64>,
    #[serde(default)]
    sha256: Option<Digest>,
    #[serde(default)]
    commit: Option<String>,
}

/// What one attempt came to.
enum Step {
    Done,
    /// Worth another attempt.
    Broken(Box<dyn std::error::Error + Send + Sync>),
    /// What is on disk does not fit the server's file any more.
    StartOver,
}

struct Download<'a> {
    context: &'a Context<'a>,
    client: Client,
    url: &'a Uri,
    headers: HeaderMap,
    /// Whether the first host's headers are the hub's and say the digest.
    is_hub: bool,
    file: HashedFile,
    state: State,
}

pub(super) async fn fetch(
    context: &Context<'_>,
    url: &Uri,
    hub_headers: Option<HeaderMap>,
    source: Source,
) -> Result<Fetched, ModelError> {
    let (file, state) = open_partial(context, url).await?;
    let resumed = file.len() > 0;
    let mut download = Download {
        context,
        client: context.options.client(url)?,
        url,
        is_hub: hub_headers.is_some(),
        headers: hub_headers.unwrap_or_default(),
        file,
        state,
    };
    download.run().await?;
    let verdict = download.check();
    if resumed && matches!(verdict, Err(ModelError::DigestMismatch { .. })) {
        context.progress.event(&PullEvent::Note(
            "what the earlier pull left does not fit; the download starts over".to_owned(),
        ));
        download.start_over()?;
        download.run().await?;
        download.check().inspect_err(|_| discard(context))?;
    } else {
        verdict.inspect_err(|_| discard(context))?;
    }
    let Download { file, state, .. } = download;
    file.sync()?;
    let digest_origin = match (context.expected, state.sha256) {
        (Some((_, origin)), _) => origin,
        (None, Some(_)) => DigestOrigin::Hub,
        (None, None) => DigestOrigin::Computed,
    };
    let source = match source {
        Source::Hf { file, .. } => Source::Hf {
            file,
            commit: state.commit,
        },
        other => other,
    };
    Ok(Fetched {
        file: context.partial(),
        sha256: file.digest(),
        size_bytes: file.len(),
        digest_origin,
        source,
    })
}

/// Removes what failed its check: continuing it would fail again.
fn discard(context: &Context<'_>) {
    for path in [
        context.partial(),
        context.store.partial_state_path(context.id),
    ] {
        if let Err(error) = remove_if_exists(&path) {
            tracing::warn!(%error, "a download that failed its check cannot be removed");
        }
    }
}

/// The partial file of an earlier pull of the same URL, read through for its digest, or an empty one.
async fn open_partial(context: &Context<'_>, url: &Uri) -> Result<(HashedFile, State), ModelError> {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, url.to_string().as_bytes());
    let url_sha256 = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    let path = context.partial();
    let known: Option<State> = std::fs::read(context.store.partial_state_path(context.id))
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .filter(|state: &State| state.url_sha256 == url_sha256);
    let len = std::fs::metadata(&path).map_or(0, |m| m.len());
    if let Some(state) = known
        && len > 0
        && (state.etag.is_some() || state.sha256.is_some() || context.expected.is_some())
    {
        let file = blocking(context, Phase::Hashing, Some(len), {
            let path = path.clone();
            move |job| HashedFile::resume(&path, &mut |done| job.at(done))
        })
        .await?;
        return Ok((file, state));
    }
    // Removed, not emptied: it may be a hard link to a user's own file.
    remove_if_exists(&path)?;
    Ok((
        HashedFile::create(&path)?,
        State {
            url_sha256,
            ..State::default()
        },
    ))
}

impl Download<'_> {
    /// Attempts until the file is whole, at most `attempts_max` in a row that bring nothing.
    async fn run(&mut self) -> Result<(), ModelError> {
        let options = self.context.options;
        let mut fruitless = 0;
        let mut restarts = 0;
        loop {
            let before = self.file.len();
            let broken = match self.attempt().await? {
                Step::Done => return Ok(()),
                Step::Broken(error) => error,
                Step::StartOver if restarts < 2 => {
                    restarts += 1;
                    self.start_over()?;
                    continue;
                }
                Step::StartOver => "the server's file keeps changing".into(),
            };
            fruitless = if self.file.len() > before {
                1
            } else {
                fruitless + 1
            };
            if fruitless >= options.attempts_max {
                let (what, bytes_kept) = (self.context.what.clone(), self.file.len());
                return Err(ModelError::Network {
                    what,
                    bytes_kept,
                    source: broken,
                });
            }
            let after =
                (options.retry_pause * 2u32.pow((fruitless - 1).min(5))).min(RETRY_PAUSE_MAX);
            self.context.progress.event(&PullEvent::Retrying {
                reason: broken.to_string(),
                after,
            });
            tokio::time::sleep(after).await;
        }
    }

    fn start_over(&mut self) -> Result<(), ModelError> {
        let path = self.context.partial();
        remove_if_exists(&path)?;
        self.file = HashedFile::create(&path)?;
        self.state = State {
            url_sha256: std::mem::take(&mut self.state.url_sha256),
            ..State::default()
        };
        Ok(())
    }

    async fn attempt(&mut self) -> Result<Step, ModelError> {
        let have = self.file.len();
        if have > 0 && self.state.size_bytes == Some(have) {
            return Ok(Step::Done);
        }
        let mut headers = self.headers.clone();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if have > 0 {
            let range = HeaderValue::try_from(format!("bytes={have}-"));
            headers.insert(
                RANGE,
                range.map_err(|_| self.bad("the size does not fit a header"))?,
            );
            // A weak validator cannot promise the same bytes (RFC 9110, 13.1.5).
            let strong = self.state.etag.as_deref().filter(|e| !e.starts_with("W/"));
            if let Some(etag) = strong.and_then(|e| HeaderValue::from_str(e).ok()) {
                headers.insert(IF_RANGE, etag);
            }
        }
        let sent = self.client.get_following(self.url, headers, REDIRECTS_MAX);
        let fetched = match tokio::time::timeout(self.context.options.idle_timeout, sent).await {
            Err(_) => return Ok(Step::Broken("the server does not answer".into())),
            Ok(Ok(fetched)) => fetched,
            Ok(Err(error)) => return self.failed(error),
        };
        let response = fetched.response;
        let status = response.status();
        if status == StatusCode::RANGE_NOT_SATISFIABLE && have > 0 {
            return Ok(Step::StartOver);
        }
        if status != StatusCode::OK && status != StatusCode::PARTIAL_CONTENT {
            return self.refused(status);
        }
        if response
            .headers()
            .get(CONTENT_ENCODING)
            .is_some_and(|e| e != "identity")
        {
            return Err(self.bad("it is compressed although that was not asked for"));
        }
        let first = fetched
            .hops
            .first()
            .map_or(response.headers(), |hop| &hop.headers);
        let announced = self.announced(first)?;
        let final_etag = response
            .headers()
            .get(ETAG)
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned);
        let (start, total) = self.placement(status, response.headers())?;
        if start != have {
            // The server ignored the range, or the file changed: what it sends now is the whole.
            if start != 0 {
                return Err(self.bad("it does not continue where it should"));
            }
            self.context.progress.event(&PullEvent::Note(
                "the server sends the whole file again".to_owned(),
            ));
            self.start_over()?;
        }
        let size = self.agree_on_size(announced.size, total)?;
        if let (Some(pinned), Some(now)) = (self.state.sha256, announced.sha256)
            && pinned != now
        {
            return Ok(Step::StartOver);
        }
        self.state.sha256 = announced.sha256.or(self.state.sha256);
        self.state.commit = announced.commit.or(self.state.commit.take());
        self.state.etag = final_etag;
        self.state.size_bytes = size;
        check_space(
            &self.context.store.blobs(),
            size.unwrap_or(0).saturating_sub(self.file.len()),
        )?;
        let text = serde_json::to_vec(&self.state)
            .map_err(|_| self.bad("its headers cannot be stored"))?;
        write_atomically(
            &self.context.store.partial_state_path(self.context.id),
            &text,
        )?;
        self.receive(response.into_body(), size).await
    }

    async fn receive(
        &mut self,
        mut body: honshu_egress::EgressBody,
        size: Option<u64>,
    ) -> Result<Step, ModelError> {
        let context = self.context;
        let mut meter = Meter::new(context.progress, Phase::Downloading, size);
        meter.report(self.file.len());
        let mut silent = Duration::ZERO;
        loop {
            // A tick without data still reports, so that a stalled transfer is seen to stall.
            let Ok(frame) = tokio::time::timeout(REPORT_INTERVAL, body.frame()).await else {
                meter.report(self.file.len());
                silent += REPORT_INTERVAL;
                if silent >= context.options.idle_timeout {
                    return Ok(Step::Broken("the transfer stalled".into()));
                }
                continue;
            };
            silent = Duration::ZERO;
            match frame {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    let after = self.file.len() + data.len() as u64;
                    if after > size.unwrap_or(FILE_BYTES_MAX) {
                        discard(context);
                        return Err(self.bad("it is longer than announced"));
                    }
                    self.file.append(&data)?;
                    meter.advance(self.file.len());
                }
                Some(Err(error)) => return Ok(Step::Broken(error.into())),
                None if size.is_some_and(|size| self.file.len() < size) => {
                    return Ok(Step::Broken("the transfer ended early".into()));
                }
                None => {
                    meter.report(self.file.len());
                    self.state.size_bytes = Some(self.file.len());
                    return Ok(Step::Done);
                }
            }
        }
    }

    /// Where the answer's body begins in the file, and the size of the whole file.
    fn placement(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<(u64, Option<u64>), ModelError> {
        if status == StatusCode::OK {
            let length = headers
                .get(CONTENT_LENGTH)
                .and_then(|v| v.to_str().ok())
                .and_then(|v| v.parse().ok());
            return Ok((0, length));
        }
        let range = headers
            .get(CONTENT_RANGE)
            .and_then(|v| v.to_str().ok())
            .and_then(parse_content_range);
        let (start, total) = range.ok_or_else(|| self.bad("its `content-range` is not valid"))?;
        Ok((start, total))
    }

    /// One size for the file, if any source says one, and a refusal if they differ.
    fn agree_on_size(
        &self,
        linked: Option<u64>,
        total: Option<u64>,
    ) -> Result<Option<u64>, ModelError> {
        let mut agreed = None;
        for said in [linked, total, self.state.size_bytes].into_iter().flatten() {
            let expected = *agreed.get_or_insert(said);
            if expected != said {
                discard(self.context);
                return Err(ModelError::SizeMismatch {
                    what: self.context.what.clone(),
                    expected,
                    found: said,
                });
            }
        }
        if agreed.is_some_and(|size| size > FILE_BYTES_MAX) {
            return Err(self.bad("it is larger than any model"));
        }
        Ok(agreed)
    }

    fn announced(&self, headers: &HeaderMap) -> Result<Announced, ModelError> {
        if !self.is_hub {
            return Ok(Announced::default());
        }
        let text = |name: &HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
        // Files outside large-file storage have a git object id here, which is no SHA-256 of the content.
        let digest = |name| {
            let value: &str = text(name)?;
            value
                .trim_start_matches("W/")
                .trim_matches('"')
                .parse()
                .ok()
        };
        let size = match text(&LINKED_SIZE) {
            Some(size) => Some(
                size.parse()
                    .map_err(|_| self.bad("its `x-linked-size` is not a number"))?,
            ),
            None => None,
        };
        let commit = text(&REPO_COMMIT)
            .filter(|c| c.len() <= 64 && c.bytes().all(|b| b.is_ascii_hexdigit()));
        Ok(Announced {
            sha256: digest(&LINKED_ETAG).or_else(|| digest(&ETAG)),
            size,
            commit: commit.map(str::to_owned),
        })
    }

    fn failed(&self, error: EgressError) -> Result<Step, ModelError> {
        use honshu_egress::ErrorKind as K;
        match error.kind() {
            // A second try would get the same answer.
            K::Url | K::Refused | K::Redirect | K::Tls => Err(ModelError::Network {
                what: self.context.what.clone(),
                bytes_kept: self.file.len(),
                source: error.into(),
            }),
            _ => Ok(Step::Broken(error.into())),
        }
    }

    fn refused(&self, status: StatusCode) -> Result<Step, ModelError> {
        let what = self.context.what.clone();
        match status.as_u16() {
            status @ (401 | 403) => Err(ModelError::Forbidden { what, status }),
            404 | 410 => Err(ModelError::NotFound { what }),
            408 | 425 | 429 | 500..=599 => Ok(Step::Broken(
                format!("the server answered with status {status}").into(),
            )),
            status => Err(ModelError::Status { what, status }),
        }
    }

    fn check(&self) -> Result<(), ModelError> {
        let found = self.file.digest();
        // What the user or the catalogue says comes first; the hub must agree with the file as well.
        for expected in [
            self.context.expected.map(|(digest, _)| digest),
            self.state.sha256,
        ]
        .into_iter()
        .flatten()
        {
            self.context.check_digest(expected, found)?;
        }
        Ok(())
    }

    fn bad(&self, reason: &'static str) -> ModelError {
        ModelError::BadAnswer {
            what: self.context.what.clone(),
            reason,
        }
    }
}

#[derive(Default)]
struct Announced {
    sha256: Option<Digest>,
    size: Option<u64>,
    commit: Option<String>,
}

/// Reads `bytes start-end/total`, where the total may be `*` (RFC 9110, 14.4).
fn parse_content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
    let total = match total {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    let is_whole = total.is_none_or(|total: u64| end.checked_add(1) == Some(total));
    (start <= end && is_whole).then_some((start, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_strictly() {
        for (value, expected) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 0-9/*", Some((0, None))),
            ("bytes 5-8/10", None),
            ("bytes 9-5/10", None),
            ("bytes */10", None),
            ("items 5-9/10", None),
            ("bytes 5-18446744073709551615/10", None),
            ("bytes a-b/c", None),
            ("", None),
        ] {
            assert_eq!(parse_content_range(value), expected, "{value}");
        }
    }
}
