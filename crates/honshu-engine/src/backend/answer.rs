//! From the events of jobs to the events of a run: several choices beside each other, one end.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use honshu_domain::{Entropy, Error, Finish, FinishReason, RunEvent, Usage};

use super::failure;
use super::writer::{Out, Writer};
use crate::events::JobEvents;
use crate::job::{self, JobEvent, JobUsage};
use crate::markup::{Markup, Start, Tools};
use crate::pool::Lease;

/// How the model's text is to be read.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub markup: Arc<Markup>,
    pub tools: Arc<Tools>,
    /// The names of custom tools.
    pub custom: Arc<HashSet<String>>,
    pub start: Start,
}

/// Accepted jobs and the hold on their model.
pub(super) struct Started {
    pub lease: Arc<Lease>,
    pub jobs: Vec<JobEvents>,
    pub shape: Shape,
}

type Starting = Pin<Box<dyn Future<Output = Result<Started, Error>> + Send>>;

enum Stage {
    Starting(Starting),
    Running(Run),
    Over,
}

/// The stream of a run.
pub(super) struct Answer {
    stage: Stage,
    events: VecDeque<RunEvent>,
    entropy: Arc<dyn Entropy>,
}

impl Answer {
    pub(super) fn new(start: Starting, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            stage: Stage::Starting(start),
            events: VecDeque::new(),
            entropy,
        }
    }
}

impl Stream for Answer {
    type Item = Result<RunEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(event) = this.events.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            let step = match &mut this.stage {
                Stage::Over => return Poll::Ready(None),
                Stage::Starting(start) => match ready!(start.as_mut().poll(cx)) {
                    Ok(started) => {
                        this.stage = Stage::Running(Run::new(started, Arc::clone(&this.entropy)));
                        continue;
                    }
                    Err(error) => Err(error),
                },
                Stage::Running(run) => ready!(run.poll(cx, &mut this.events)),
            };
            match step {
                Ok(false) => {}
                // Dropping the run here frees the model before the last events are read.
                Ok(true) => this.stage = Stage::Over,
                Err(error) => {
                    this.stage = Stage::Over;
                    this.events.clear();
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

struct Run {
    choices: Vec<Choice>,
    outputs: u32,
    started: bool,
    entropy: Arc<dyn Entropy>,
    // After the jobs: they must be gone before the model may go.
    _lease: Arc<Lease>,
}

struct Choice {
    /// Absent once no more of it is wanted.
    job: Option<JobEvents>,
    writer: Writer,
    /// What was used so far, for an answer that is ended from here.
    used: JobUsage,
    end: Option<(FinishReason, JobUsage)>,
    /// The stop text that ended it.
    stop_text: Option<Arc<str>>,
}

impl Run {
    fn new(started: Started, entropy: Arc<dyn Entropy>) -> Self {
        let choices = (0..)
            .zip(started.jobs)
            .map(|(index, job)| Choice {
                job: Some(job),
                writer: Writer::new(index, &started.shape),
                used: JobUsage::default(),
                end: None,
                stop_text: None,
            })
            .collect();
        Self {
            choices,
            outputs: 0,
            started: false,
            entropy,
            _lease: started.lease,
        }
    }

    /// Takes what the jobs have. `Ok(true)` when the run is over.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        events: &mut VecDeque<RunEvent>,
    ) -> Poll<Result<bool, Error>> {
        let several = self.choices.len() > 1;
        let mut progress = false;
        for choice in &mut self.choices {
            let Some(job) = &mut choice.job else {
                continue;
            };
            let event = match Pin::new(job).poll_next(cx) {
                Poll::Pending => continue,
                Poll::Ready(Some(event)) => event,
                Poll::Ready(None) => {
                    return Poll::Ready(Err(Error::internal("a job ended without its last event")));
                }
            };
            progress = true;
            let mut out = Out {
                events,
                outputs: &mut self.outputs,
                entropy: &*self.entropy,
            };
            match event {
                JobEvent::Started {
                    prompt_tokens,
                    cached_tokens,
                } => {
                    choice.used.prompt_tokens = prompt_tokens;
                    choice.used.cached_tokens = cached_tokens;
                    if !std::mem::replace(&mut self.started, true) {
                        out.events.push_back(RunEvent::Started {
                            upstream_request_id: None,
                            input_tokens: Some(prompt_tokens.into()),
                        });
                    }
                }
                JobEvent::Text {
                    text,
                    logprobs,
                    tokens,
                } => {
                    choice.used.completion_tokens += tokens;
                    choice.writer.take(&text, &logprobs, tokens, &mut out);
                }
                JobEvent::Control { token, tokens } => {
                    choice.used.completion_tokens += tokens;
                    choice.writer.take_control(token, tokens, &mut out);
                }
                JobEvent::Done { finish, usage } => {
                    let reason = match finish {
                        job::FinishReason::Stop => FinishReason::Stop,
                        job::FinishReason::StopString(text) => {
                            choice.stop_text = Some(text.into());
                            FinishReason::Stop
                        }
                        job::FinishReason::Length => FinishReason::Length,
                    };
                    choice.finish(reason, usage, several, &mut out);
                }
                JobEvent::Failed(error) => return Poll::Ready(Err(failure::engine(error))),
            }
            if choice.end.is_none() && choice.writer.is_over() {
                choice.finish(FinishReason::Stop, choice.used, several, &mut out);
            }
        }
        if self.choices.iter().all(|choice| choice.end.is_some()) {
            events.push_back(RunEvent::Finished(self.end()));
            return Poll::Ready(Ok(true));
        }
        if progress {
            Poll::Ready(Ok(false))
        } else {
            Poll::Pending
        }
    }

    fn end(&self) -> Finish {
        let mut usage = Usage::default();
        let mut reason = None;
        for choice in &self.choices {
            let Some((why, used)) = choice.end else {
                continue;
            };
            reason = reason.or(Some(why));
            // The prompt is one, however many answers it gets, and the later ones find it computed by the first.
            let cached = u64::from(used.cached_tokens);
            usage.cached_input_tokens = if usage.input_tokens == 0 {
                cached
            } else {
                usage.cached_input_tokens.min(cached)
            };
            usage.input_tokens = used.prompt_tokens.into();
            usage.output_tokens += u64::from(used.completion_tokens);
            usage.reasoning_tokens += u64::from(choice.writer.reasoning_tokens());
        }
        usage.reasoning_tokens = usage.reasoning_tokens.min(usage.output_tokens);
        Finish {
            reason: reason.unwrap_or(FinishReason::Stop),
            usage: Some(usage),
            stop_text: self
                .choices
                .first()
                .and_then(|choice| choice.stop_text.clone()),
        }
    }
}

impl Choice {
    /// Ends the choice. The job goes, and with it its place, if it has not ended by itself.
    fn finish(&mut self, reason: FinishReason, usage: JobUsage, several: bool, out: &mut Out<'_>) {
        let reason = self.writer.finish(reason, out);
        if several {
            out.events.push_back(RunEvent::ChoiceFinished {
                choice: self.writer.choice(),
                reason,
            });
        }
        self.job = None;
        self.end = Some((reason, usage));
    }
}
