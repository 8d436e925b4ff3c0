//! The embedded engine as a [`Backend`]: an attempt becomes a prompt, a prompt becomes jobs, and their events become
//! the events of a run.
//!
//! The stream that [`Backend::generate`] returns owns the jobs: dropping it frees their places within one decode
//! step. Rendering and tokenizing happen on worker threads, so a long prompt holds up nobody.
//!
//! Tools: definitions are given to the model's own template, or told in words if it knows none; what the model writes
//! is read in its own form and comes as function calls. Required calls, strict tools and answers with a schema are
//! enforced by constrained decoding, with the model's reasoning before them left free. A custom tool is a function with
//! one text for the model; its grammar is enforced inside of that text, which is all that the caller sees.

mod answer;
mod embed;
mod enforce;
mod failure;
mod raw;
mod writer;

use std::sync::Arc;

use honshu_domain::{
    Attempt, Backend, BackendKind, Demand, Dialect, Error, ErrorKind, InferenceRequest, RunStream,
    Support, TokenCount, Tool, ToolChoice,
};

use crate::job::{Job, LOGPROBS_MAX, Sampling, Token};
use crate::markup::{Start, Tools};
use crate::pool::{self, Lease, NoTemplate, Ready};
use crate::template::{Chat, Prompt};
use crate::workers::WorkerError;

use answer::{Answer, Shape, Started};

/// When a caller sets neither `top_p`, `top_k` nor `min_p`: tokens below this fraction of the likeliest are left out.
/// Small models drift into nonsense without it. An explicit `min_p` of 0 turns it off.
const MIN_P_DEFAULT: f32 = 0.05;

/// One model of the pool.
pub struct EngineBackend {
    pool: Arc<pool::Inner>,
    id: Arc<str>,
    /// Whether it is there for vectors as well.
    embeds: bool,
}

impl EngineBackend {
    pub(crate) fn new(pool: Arc<pool::Inner>, id: Arc<str>, embeds: bool) -> Self {
        Self { pool, id, embeds }
    }
}

impl std::fmt::Debug for EngineBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineBackend")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Backend for EngineBackend {
    fn name(&self) -> &str {
        "engine"
    }

    fn kind(&self) -> BackendKind {
        BackendKind::Engine
    }

    fn supports(&self, _upstream: &str, _dialect: Dialect, demand: Demand) -> Support {
        match demand {
            Demand::JsonSchema
            | Demand::JsonObject
            | Demand::Choices
            | Demand::Logprobs
            | Demand::LogitBias
            // Templates that know no calls get them in words.
            | Demand::ToolHistory
            | Demand::ForcedTool
            | Demand::RawPrompt
            | Demand::LegacyFunctions => Support::Yes,
            Demand::ImageInput | Demand::FileInput | Demand::Audio | Demand::ForeignItems | Demand::StoredState
            | Demand::LegacyOption => Support::No,
            Demand::Embeddings if self.embeds => Support::Yes,
            Demand::Embeddings => Support::No,
        }
    }

    fn passes_through(&self, _upstream: &str, _dialect: Dialect) -> bool {
        false
    }

    fn count_input_tokens(&self, attempt: Attempt) -> Option<TokenCount> {
        let (pool, id) = (Arc::clone(&self.pool), Arc::clone(&self.id));
        Some(Box::pin(async move {
            let (_lease, prepared) = prepared(pool, id, attempt).await?;
            // The choices share one prompt.
            let tokens = prepared.jobs.first().map_or(0, |job| job.prompt.len());
            Ok(tokens as u64)
        }))
    }

    fn generate(&self, attempt: Attempt) -> RunStream {
        if attempt.request.dialect == Dialect::Embeddings {
            let (pool, id) = (Arc::clone(&self.pool), Arc::clone(&self.id));
            return Box::pin(embed::Vectors::new(pool, id, attempt));
        }
        let entropy = Arc::clone(self.pool.entropy());
        let start = start(Arc::clone(&self.pool), Arc::clone(&self.id), attempt);
        Box::pin(Answer::new(Box::pin(start), entropy))
    }
}

async fn start(pool: Arc<pool::Inner>, id: Arc<str>, attempt: Attempt) -> Result<Started, Error> {
    let (lease, prepared) = prepared(pool, id, attempt).await?;
    submit(lease, prepared)
}

/// Loads the model if need be and makes the prompt.
async fn prepared(
    pool: Arc<pool::Inner>,
    id: Arc<str>,
    attempt: Attempt,
) -> Result<(Arc<Lease>, Prepared), Error> {
    let lease = Arc::new(Arc::clone(&pool).acquire(Arc::clone(&id)).await?);
    let now = pool.clock().now();
    let held = Arc::clone(&lease);
    let prepared = pool
        .workers
        .run(move || prepare(&held.ready, &id, &attempt, now))
        .await
        .unwrap_or_else(|error| Err(worker_error(error)))?;
    Ok((lease, prepared))
}

fn worker_error(error: WorkerError) -> Error {
    match error {
        WorkerError::Full => Error::new(
            ErrorKind::RateLimited,
            "too many requests are being prepared; try again",
        ),
        WorkerError::Broken => Error::internal("a worker's task panicked"),
    }
}

/// Everything of a request that takes time before the engine sees it.
struct Prepared {
    jobs: Vec<Job>,
    shape: Shape,
}

fn prepare(
    ready: &Ready,
    id: &str,
    attempt: &Attempt,
    now: honshu_domain::Timestamp,
) -> Result<Prepared, Error> {
    let request = &*attempt.request;
    if request.dialect == Dialect::Completions {
        return raw::prepare(ready, attempt);
    }
    let template = match &ready.template {
        Ok(template) => template,
        Err(NoTemplate::Missing) => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the model `{id}` is a base model without a chat template: it continues text and cannot chat; \
                     choose an instruct model, or give it a template in the configuration"
                ),
            )
            .with_param("model"));
        }
        Err(NoTemplate::Broken(error)) => {
            return Err(
                Error::new(ErrorKind::Unavailable, error.to_string()).with_cause(error.clone())
            );
        }
    };
    let declared = enforce::functions(request)?;
    let (tools, functions): (&[Tool], &[_]) = if request.tool_choice == ToolChoice::None {
        (&[], &[])
    } else {
        (&request.tools, &declared)
    };
    let plan = enforce::Plan::new(request, functions)?;
    plan.check_grammars(ready, request, &declared)?;
    let chat = Chat {
        instructions: request.instructions.as_deref(),
        items: &request.input,
        tools,
        reasoning_effort: request.reasoning_effort.as_deref(),
        now,
    };
    let prompt = template
        .render(&chat)
        .map_err(|error| failure::template(error, request))?;
    let markup = Arc::clone(&ready.markup);
    let text = prompt.text();
    let in_reasoning = markup.ends_in_reasoning(&text);
    let reasoning = enforce::reasoning(&markup, &text, request);
    let parameters = functions
        .iter()
        .map(|function| (function.name.clone(), function.parameters.clone()));
    let shape = Shape {
        tools: Arc::new(Tools::new(parameters)),
        custom: Arc::new(enforce::custom_names(functions)),
        start: Start {
            in_reasoning,
            one_call: !request.parallel_tool_calls,
            plain: false,
        },
        markup,
    };
    let tokens = tokenize(ready, &prompt)?;
    let mut jobs = Vec::new();
    for choice in 0..request.choices.max(1) {
        let mut job = Job::new(tokens.clone());
        job.sampling = sampling(request, choice);
        job.max_tokens = request.max_output_tokens;
        job.stop = request
            .stop
            .iter()
            .filter(|stop| !stop.is_empty())
            .cloned()
            .collect();
        job.logprobs = request.top_logprobs.map(|n| n.min(LOGPROBS_MAX));
        job.fairness_key = attempt.fairness_key;
        job.salt = attempt.cache_salt;
        job.constraint = plan.constraint(ready, id, request, functions, reasoning)?;
        job.shown_controls = shape.markup.controls();
        jobs.push(job);
    }
    Ok(Prepared { jobs, shape })
}

fn tokenize(ready: &Ready, prompt: &Prompt) -> Result<Vec<Token>, Error> {
    let mut tokens = Vec::new();
    for segment in &prompt.segments {
        let piece = ready
            .model
            .tokenize(&segment.text, false, segment.special)
            .map_err(failure::engine)?;
        tokens.extend(piece);
    }
    if let Some(first) = ready.first_token
        && tokens.first() != Some(&first)
    {
        tokens.insert(0, first);
    }
    Ok(tokens)
}

fn sampling(request: &InferenceRequest, choice: u32) -> Sampling {
    let asked = &request.sampling;
    let cut =
        asked.top_p.is_some_and(|top_p| top_p < 1.0) || asked.top_k.is_some_and(|top_k| top_k > 0);
    let defaults = Sampling::default();
    Sampling {
        logit_bias: asked
            .logit_bias
            .iter()
            // Ids of another vocabulary are beyond this one's; the job's own check says so.
            .map(|(token, bias)| (Token::try_from(*token).unwrap_or(Token::MAX), *bias))
            .collect(),
        repetition_penalty: asked
            .penalties
            .repetition
            .unwrap_or(defaults.repetition_penalty),
        frequency_penalty: asked
            .penalties
            .frequency
            .unwrap_or(defaults.frequency_penalty),
        presence_penalty: asked
            .penalties
            .presence
            .unwrap_or(defaults.presence_penalty),
        temperature: asked.temperature.unwrap_or(defaults.temperature),
        top_k: asked.top_k.unwrap_or(defaults.top_k),
        top_p: asked.top_p.unwrap_or(defaults.top_p),
        min_p: asked.min_p.unwrap_or(if cut { 0.0 } else { MIN_P_DEFAULT }),
        // Each choice needs a seed of its own, or all would be the same.
        seed: asked
            .seed
            .map(|seed| seed.cast_unsigned().wrapping_add(u64::from(choice))),
    }
}

fn submit(lease: Arc<Lease>, prepared: Prepared) -> Result<Started, Error> {
    let mut jobs = Vec::with_capacity(prepared.jobs.len());
    for job in prepared.jobs {
        // An error here drops the jobs that were accepted already, and with them their places.
        jobs.push(lease.ready.model.submit(job).map_err(failure::submit)?);
    }
    Ok(Started {
        lease,
        jobs,
        shape: prepared.shape,
    })
}
