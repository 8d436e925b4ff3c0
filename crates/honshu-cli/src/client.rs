//! Signed calls to the service: what any OCI client does, and the only door that the command line has.

use std::time::Duration;

use bytes::Bytes;
use honshu_domain::{Clock, SystemClock};
use honshu_egress::{AddressRules, Client, ClientOptions, EgressBody};
use honshu_signature::sign_request;
use http::{HeaderMap, Method, Request, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::args::Global;
use crate::fail::{Failure, Result, chain};
use crate::profile::Profile;

/// The largest answer of the management API that is read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

const NOT_HONSHU: (&str, &str) = (
    "is the endpoint a Honshu server of this version?",
    "エンドポイントはこのバージョンの Honshu サーバーですか。",
);

/// How long a management call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A server and the name that calls are made in.
pub(crate) struct Api {
    client: Client,
    /// Without a trailing slash.
    pub(crate) endpoint: String,
    /// Whose name.
    pub(crate) profile: Profile,
}

/// An answer with its headers.
pub(crate) struct Answer {
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body as `T`.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Failure::new((
                format!("the server's answer is not what was expected: {error}"),
                format!("サーバーの応答が想定と異なります: {error}"),
            ))
            .hint(NOT_HONSHU)
        })
    }
}

impl Api {
    /// Finds profile and server.
    pub(crate) fn connect(global: &Global) -> Result<Self> {
        let profile = global.load_profile()?;
        let endpoint = global.endpoint(&profile.region)?;
        Ok(Self::new(endpoint, profile))
    }

    /// For a known server.
    pub(crate) fn new(endpoint: String, profile: Profile) -> Self {
        Self {
            client: Client::new(ClientOptions {
                // The person named this server, wherever it is.
                allow: AddressRules::any(),
                ..ClientOptions::default()
            }),
            endpoint,
            profile,
        }
    }

    /// `GET` a JSON value.
    pub(crate) async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T> {
        self.call(Method::GET, target, None, &[]).await?.json()
    }

    /// `GET` every page of a list: `{"items": […]}` or a bare array.
    pub(crate) async fn list(&self, target: &str) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut page: Option<String> = None;
        loop {
            let joint = if target.contains('?') { '&' } else { '?' };
            let paged = page.as_ref().map_or_else(
                || target.to_owned(),
                |page| format!("{target}{joint}page={}", escape(page)),
            );
            let answer = self.call(Method::GET, &paged, None, &[]).await?;
            match answer.json::<Value>()? {
                Value::Array(more) => items.extend(more),
                Value::Object(mut object) => {
                    if let Some(Value::Array(more)) = object.remove("items") {
                        items.extend(more);
                    }
                }
                _ => {
                    return Err(Failure::new((
                        "the server's answer is not a list",
                        "サーバーの応答がリストではありません",
                    ))
                    .hint(NOT_HONSHU));
                }
            }
            let next = answer
                .headers
                .get("opc-next-page")
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned);
            match next {
                Some(next) if page.as_ref() != Some(&next) => page = Some(next),
                _ => return Ok(items),
            }
        }
    }

    /// `POST` a JSON value.
    pub(crate) async fn post<B: Serialize>(&self, target: &str, body: &B) -> Result<Answer> {
        self.call(Method::POST, target, Some(serde_json::to_vec(body)?), &[])
            .await
    }

    /// `PUT` a JSON value.
    pub(crate) async fn put<B: Serialize>(&self, target: &str, body: &B) -> Result<Answer> {
        self.call(Method::PUT, target, Some(serde_json::to_vec(body)?), &[])
            .await
    }

    /// `DELETE`.
    pub(crate) async fn delete(&self, target: &str) -> Result<()> {
        self.call(Method::DELETE, target, None, &[])
            .await
            .map(|_| ())
    }

    /// One signed call, its whole answer read.
    pub(crate) async fn call(
        &self,
        method: Method,
        target: &str,
        body: Option<Vec<u8>>,
        headers: &[(&'static str, &str)],
    ) -> Result<Answer> {
        let work = async {
            let (status, headers, body) = self.send(method, target, body, headers).await?;
            let body = body
                .collect_bounded(ANSWER_BYTES_MAX)
                .await
                .map_err(|error| Failure::new(chain(&error)))?;
            check(status, &headers, &body)?;
            Ok(Answer { headers, body })
        };
        tokio::time::timeout(CALL_TIMEOUT, work)
            .await
            .map_err(|_| {
                Failure::new((
                    "the server did not answer within a minute",
                    "サーバーが1分以内に応答しませんでした",
                ))
                .hint((
                    "its log says what holds it up",
                    "何に時間がかかっているかはサーバーのログにあります",
                ))
            })?
    }

    /// One signed call whose answer is a stream; an answer other than 2xx is read and becomes the failure.
    pub(crate) async fn stream(
        &self,
        target: &str,
        body: Vec<u8>,
        headers: &[(&'static str, &str)],
    ) -> Result<EgressBody> {
        let (status, headers, body) = self.send(Method::POST, target, Some(body), headers).await?;
        if status.is_success() {
            return Ok(body);
        }
        let body = body
            .collect_bounded(ANSWER_BYTES_MAX)
            .await
            .map_err(|error| Failure::new(chain(&error)))?;
        check(status, &headers, &body)?;
        Err(Failure::new((
            format!("the server answered {status}"),
            format!("サーバーの応答は {status} でした"),
        )))
    }

    async fn send(
        &self,
        method: Method,
        target: &str,
        body: Option<Vec<u8>>,
        extra: &[(&'static str, &str)],
    ) -> Result<(StatusCode, HeaderMap, EgressBody)> {
        let url = format!("{}{target}", self.endpoint);
        let mut request = Request::builder()
            .method(method)
            .uri(&url)
            .header(header::ACCEPT, "application/json");
        let authority = http::Uri::try_from(&self.endpoint)
            .ok()
            .and_then(|uri| {
                uri.authority()
                    .map(|authority| authority.as_str().to_owned())
            })
            .ok_or_else(|| {
                Failure::usage((
                    format!("`{}` is not a URL such as http://127.0.0.1:8080", self.endpoint),
                    format!("`{}` は http://127.0.0.1:8080 のような URL ではありません", self.endpoint),
                ))
                .hint((
                    "give one with --endpoint, or leave it out to talk to the server of the data directory",
                    "--endpoint で指定するか、省いてデータ・ディレクトリのサーバーを使ってください",
                ))
            })?;
        request = request.header(header::HOST, authority);
        for (name, value) in extra {
            request = request.header(*name, *value);
        }
        let body = Bytes::from(body.unwrap_or_default());
        let (mut parts, ()) = request.body(())?.into_parts();
        sign_request(
            &mut parts,
            &body,
            SystemClock.now().as_seconds(),
            &self.profile.key_id,
            &self.profile.key,
        )?;
        let response = self
            .client
            .send(Request::from_parts(parts, body))
            .await
            .map_err(|error| {
                let (endpoint, why) = (&self.endpoint, chain(&error));
                Failure::new((
                    format!("cannot reach {endpoint}: {why}"),
                    format!("{endpoint} に接続できません: {why}"),
                ))
                .hint((
                    "is `honshu serve` running?",
                    "`honshu serve` は動いていますか。",
                ))
            })?;
        let (parts, body) = response.into_parts();
        Ok((parts.status, parts.headers, body))
    }
}

fn check(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<()> {
    if status.is_success() {
        return Ok(());
    }
    let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let message = text("message")
        .or_else(|| value.pointer("/error/message").and_then(Value::as_str))
        .unwrap_or("no reason given");
    // On OpenAI's paths the outer code only repeats the status.
    let code = value
        .pointer("/error/code")
        .and_then(Value::as_str)
        .or_else(|| text("code").filter(|code| *code != status.as_str()));
    let reason = code.or(status.canonical_reason()).unwrap_or_default();
    let mut failure = Failure::new(format!("{message} ({} {reason})", status.as_u16()));
    failure.request_id = headers
        .get("opc-request-id")
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    Err(failure.hint(match status.as_u16() {
        401 => (
            "the profile's key is not known to this server, or the clocks differ by more than five minutes",
            "プロファイルのキーがこのサーバーに登録されていないか、時計が5分を超えてずれています",
        ),
        404 => (
            "check the id and --region; what you may not see looks the same as what is not there",
            "ID と --region を確認してください。参照を許可されていないものは、存在しないものと区別されません",
        ),
        409 => (
            "choose another name, or change what is there",
            "別の名前にするか、既存のものを変更してください",
        ),
        400..=499 => (
            "change what the message names and try again; --help shows the forms",
            "メッセージが指す箇所を直してやり直してください。書式は --help にあります",
        ),
        _ => (
            "try again; the server's log has more under the request id",
            "やり直してください。詳細はサーバーのログにリクエストIDとともに記録されています",
        ),
    }))
}

/// Percent-encodes a path segment or query value.
pub(crate) fn escape(text: &str) -> String {
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut out, byte| {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
            out
        })
}
