//! An upstream that speaks OpenAI's dialects: OpenAI itself, vLLM, SGLang, llama.cpp's server, xAI, and another
//! Honshu.
//!
//! Where the upstream speaks the caller's dialect, body and frames pass through with one name replaced. Where it
//! does not, `honshu-wire` translates both ways.

mod answer;
mod error;
mod split;

use std::sync::Arc;

use bytes::Bytes;
use honshu_domain::{
    Attempt, Backend, BackendKind, Demand, Dialect, InferenceRequest, RunStream, Support, Tool,
};
use honshu_egress::{Client, parse_url};
use honshu_wire::passthrough::{FramePatcher, patch_request};
use honshu_wire::{chat, responses};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, Request, Uri};

use crate::credential::Credential;
use crate::is_reasoning_effort;
use answer::{Answer, Decoder, Exchange};

pub use split::{Splitter, TooLong};

/// How an upstream is reached.
#[derive(Debug, Clone)]
pub struct OpenAiOptions {
    /// The provider's name in the configuration.
    pub name: String,
    /// What its API paths are appended to, for example `https://api.x.ai/v1`.
    pub base_url: String,
    /// Its key.
    pub credential: Credential,
    /// Whether it serves `/chat/completions`.
    pub chat: bool,
    /// Whether it serves `/responses`.
    pub responses: bool,
}

/// An OpenAI-compatible upstream.
#[derive(Debug)]
pub struct OpenAiProvider {
    name: String,
    credential: Credential,
    chat: Option<Uri>,
    responses: Option<Uri>,
    completions: Option<Uri>,
    embeddings: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    client: Client,
}

impl OpenAiProvider {
    /// Checks the options. Opens no connection.
    ///
    /// # Errors
    /// When the URL is not one that can be called, or the upstream is said to serve nothing.
    pub fn new(options: OpenAiOptions, client: Client) -> Result<Self, String> {
        let base = options.base_url.trim_end_matches('/');
        let url = |path: &str| {
            parse_url(&format!("{base}{path}")).map_err(|error| format!("`base_url`: {error}"))
        };
        if base.contains(['?', '#']) {
            return Err("`base_url` must end with a path, without `?` and `#`".to_owned());
        }
        if !options.chat && !options.responses {
            return Err("the provider must serve `chat`, `responses` or both".to_owned());
        }
        Ok(Self {
            chat: options.chat.then(|| url("/chat/completions")).transpose()?,
            responses: options.responses.then(|| url("/responses")).transpose()?,
            // Whoever serves Chat mostly has these as well; who has not says so.
            completions: options.chat.then(|| url("/completions")).transpose()?,
            embeddings: url("/embeddings")?,
            name: options.name,
            credential: options.credential,
            headers: Vec::new(),
            client,
        })
    }

    /// Adds a header that every request carries.
    ///
    /// # Errors
    /// When name or value cannot be sent, or the header is one that Honshu sets itself.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self, String> {
        let name: HeaderName = name
            .parse()
            .map_err(|_| format!("`{name}` is not a header's name"))?;
        if name == CONTENT_TYPE || name == ACCEPT {
            return Err(format!("`{name}` is set by Honshu"));
        }
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| format!("the value of `{name}` cannot be sent in a header"))?;
        // Extra headers often are keys under another name.
        value.set_sensitive(true);
        self.headers.push((name, value));
        Ok(self)
    }

    /// The dialect in which this upstream is asked: the caller's if it can be.
    fn dialect_for(&self, caller: Dialect) -> Dialect {
        match caller {
            Dialect::ChatCompletions if self.chat.is_some() => Dialect::ChatCompletions,
            Dialect::Responses if self.responses.is_some() => Dialect::Responses,
            // Nothing can be translated into these.
            Dialect::Completions | Dialect::Embeddings => caller,
            _ if self.chat.is_some() => Dialect::ChatCompletions,
            _ => Dialect::Responses,
        }
    }

    fn http_request(&self, attempt: &Attempt, dialect: Dialect, body: Bytes) -> Request<Bytes> {
        let url = match dialect {
            Dialect::ChatCompletions => self.chat.as_ref(),
            Dialect::Responses => self.responses.as_ref(),
            Dialect::Completions => self.completions.as_ref(),
            Dialect::Embeddings => Some(&self.embeddings),
            // No upstream is asked in it.
            Dialect::Messages => None,
        };
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.cloned().unwrap_or_default();
        let headers = request.headers_mut();
        headers.reserve(8 + self.headers.len());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(
            ACCEPT,
            HeaderValue::from_static(if attempt.request.stream {
                "text/event-stream"
            } else {
                "application/json"
            }),
        );
        if let Ok(id) = HeaderValue::from_str(&attempt.request_id) {
            headers.insert(HeaderName::from_static("x-request-id"), id);
        }
        if let Some(bearer) = self.credential.header() {
            headers.insert(AUTHORIZATION, bearer);
        }
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        request
    }
}

/// The body for an upstream that is asked in `dialect`.
fn body_for(request: &InferenceRequest, upstream: &str, dialect: Dialect) -> Bytes {
    match dialect {
        _ if request.dialect == dialect => {
            patch_request(&request.raw, upstream, dialect, request.stream)
        }
        Dialect::ChatCompletions => chat::build_request(request, upstream, request.stream),
        // The others are asked in their own callers' dialect, or not at all.
        Dialect::Responses | Dialect::Messages | Dialect::Completions | Dialect::Embeddings => {
            responses::build_request(request, upstream, request.stream)
        }
    }
}

impl Backend for OpenAiProvider {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> BackendKind {
        BackendKind::OpenAi
    }

    fn supports(&self, _upstream: &str, dialect: Dialect, demand: Demand) -> Support {
        let spoken = self.dialect_for(dialect);
        if spoken == dialect {
            // The upstream knows its own models and answers for itself.
            return if dialect == Dialect::Completions && self.completions.is_none() {
                Support::No
            } else {
                Support::Yes
            };
        }
        match demand {
            Demand::ImageInput
            | Demand::ForcedTool
            | Demand::ToolHistory
            | Demand::JsonSchema
            | Demand::JsonObject
            | Demand::LegacyFunctions => Support::Yes,
            // Chat has them, Responses does not.
            Demand::Choices | Demand::LogitBias | Demand::Logprobs
                if spoken == Dialect::ChatCompletions =>
            {
                Support::Yes
            }
            Demand::Choices
            | Demand::LogitBias
            | Demand::Logprobs
            | Demand::FileInput
            | Demand::Audio
            | Demand::ForeignItems
            | Demand::StoredState
            | Demand::RawPrompt
            | Demand::LegacyOption
            | Demand::Embeddings => Support::No,
        }
    }

    fn passes_through(&self, _upstream: &str, dialect: Dialect) -> bool {
        self.dialect_for(dialect) == dialect
    }

    fn acts_on_hint(&self, _upstream: &str, dialect: Dialect, path: &str) -> bool {
        // Both translations carry the effort over.
        is_reasoning_effort(dialect, path)
    }

    fn leaves_out(&self, _upstream: &str, request: &InferenceRequest) -> Vec<String> {
        let spoken = self.dialect_for(request.dialect);
        if spoken == request.dialect {
            return Vec::new();
        }
        if spoken != Dialect::Responses {
            // There the tool is a function; its grammar is told in words, and nothing keeps to it.
            return request.grammars().map(|(_, path)| path).collect();
        }
        let sampling = &request.sampling;
        // Chat has them, Responses does not.
        let stop = match request.dialect {
            Dialect::Messages => "stop_sequences",
            _ => "stop",
        };
        [
            (stop, !request.stop.is_empty()),
            ("seed", sampling.seed.is_some()),
            ("top_k", sampling.top_k.is_some()),
            ("min_p", sampling.min_p.is_some()),
            (
                "repetition_penalty",
                sampling.penalties.repetition.is_some(),
            ),
        ]
        .into_iter()
        .filter(|(_, is_asked)| *is_asked)
        .map(|(path, _)| path.to_owned())
        .collect()
    }

    fn generate(&self, attempt: Attempt) -> RunStream {
        let dialect = self.dialect_for(attempt.request.dialect);
        let body = body_for(&attempt.request, &attempt.upstream, dialect);
        let request = self.http_request(&attempt, dialect, body);
        let decoder = if dialect == attempt.request.dialect {
            Decoder::native(
                FramePatcher::new(
                    dialect,
                    Arc::clone(&attempt.served_model),
                    attempt.request.include_usage,
                )
                .with_choices(attempt.request.choices),
            )
        } else {
            let names = attempt.request.tools.iter().filter_map(|tool| match tool {
                Tool::Custom(custom) => Some(Arc::clone(&custom.name)),
                _ => None,
            });
            Decoder::translating(dialect, attempt.request.choices, names.collect())
        };
        Box::pin(Answer::new(Exchange {
            client: self.client.clone(),
            request,
            credential: self.credential.clone(),
            dialect,
            is_streamed: attempt.request.stream,
            decoder,
        }))
    }
}
