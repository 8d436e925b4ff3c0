//! What an OpenAI-like upstream means by its errors.

use std::time::Duration;

use honshu_domain::{Error, ErrorKind, Origin, Retry};

use crate::json::{self, Node};

/// The longest wait that we take over from an upstream's `Retry-After`.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// Characters of an upstream's message that callers get to read.
const MESSAGE_CHARS_MAX: usize = 2_000;

/// The error that an answer other than 2xx stands for. `retry_after` is that header's value in seconds.
///
/// A bad key or missing right at the upstream is our configuration's fault and not the caller's: it becomes
/// `Upstream`, and the upstream's words, which may name our account, go to the log only.
pub fn from_upstream(status: u16, retry_after: Option<&str>, body: &[u8]) -> Error {
    let node = json::parse(body).ok();
    let said = Said::read(node.as_ref());
    let message = said.message();
    let wait = retry_after
        .and_then(|value| value.trim().parse::<f64>().ok())
        .filter(|seconds| seconds.is_finite() && *seconds > 0.0)
        .map(|seconds| Duration::from_secs_f64(seconds.min(WAIT_MAX.as_secs_f64())));
    let error = match status {
        400 | 413 | 422 if said.is_overflow() => Error::new(ErrorKind::ContextLength, message),
        400 | 422 => {
            let mut error = Error::new(ErrorKind::Invalid, message);
            if let Some(param) = said.param {
                error = error.with_param(param);
            }
            if let Some(code) = said.code {
                error = error.with_code(code);
            }
            error
        }
        413 => Error::new(ErrorKind::TooLarge, message),
        429 => Error::new(
            ErrorKind::RateLimited,
            "the upstream of this model is at its limit",
        )
        .with_retry(wait.map_or(Retry::Now, Retry::After))
        .with_cause(message),
        401 | 403 | 404 => Error::new(
            ErrorKind::Upstream,
            "the upstream of this model refused our request",
        )
        .with_retry(Retry::Now)
        .with_cause(message),
        408 | 500..=599 => Error::new(
            if status == 503 {
                ErrorKind::Unavailable
            } else {
                ErrorKind::Upstream
            },
            "the upstream of this model failed",
        )
        .with_retry(wait.map_or(Retry::Now, Retry::After))
        .with_cause(message),
        _ => Error::new(
            ErrorKind::Upstream,
            "the upstream of this model gave an answer that makes no sense",
        )
        .with_cause(message),
    };
    error
        .with_origin(Origin::Upstream)
        .with_upstream_status(status)
}

/// The error in the data of a stream: an `error` member, a flat error event, or a failed response's `error`.
pub(crate) fn from_frame(node: &Node<'_>) -> Error {
    let said = Said::read(Some(node));
    let message = said.message();
    let code = said.code.unwrap_or_default();
    let kind = if said.is_overflow() {
        ErrorKind::ContextLength
    } else if code.contains("rate_limit") || code == "429" {
        ErrorKind::RateLimited
    } else if code == "invalid_prompt" || said.kind == Some("invalid_request_error") {
        ErrorKind::Invalid
    } else {
        ErrorKind::Upstream
    };
    Error::new(kind, message).with_origin(Origin::Upstream)
}

/// What an error body says, whatever its shape.
#[derive(Default)]
struct Said<'n> {
    message: Option<&'n str>,
    code: Option<&'n str>,
    kind: Option<&'n str>,
    param: Option<&'n str>,
}

impl<'n> Said<'n> {
    fn read(node: Option<&'n Node<'_>>) -> Self {
        let Some(node) = node else {
            return Self::default();
        };
        // OpenAI nests, others are flat, and some give the bare sentence under `error` or `detail`.
        let inner = match node.find("error") {
            Some(error) if error.as_object().is_some() => error,
            Some(error) if error.as_str().is_some() => {
                return Self {
                    message: error.as_str(),
                    ..Self::default()
                };
            }
            _ => node,
        };
        Self {
            message: inner
                .find_str("message")
                .or_else(|| inner.find_str("detail")),
            code: inner
                .find("code")
                .map(|code| code.as_str().unwrap_or(code.raw)),
            kind: inner.find_str("type"),
            param: inner.find_str("param"),
        }
    }

    fn message(&self) -> String {
        let message = self.message.unwrap_or("the upstream gave no reason");
        message.chars().take(MESSAGE_CHARS_MAX).collect()
    }

    /// Servers without the code use OpenAI's old wording or llama.cpp's.
    fn is_overflow(&self) -> bool {
        self.code == Some("context_length_exceeded")
            || self.kind == Some("exceed_context_size_error")
            || self
                .message
                .is_some_and(|message| message.contains("maximum context length"))
    }
}
