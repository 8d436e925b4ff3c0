//! A prompt that is continued as it stands: no template, and a base model will do.

use std::sync::Arc;

use honshu_domain::{Attempt, Error, Item, Part};

use super::answer::Shape;
use super::{Prepared, sampling, tokenize};
use crate::job::{Job, LOGPROBS_MAX};
use crate::markup::Start;
use crate::pool::Ready;
use crate::template::{Prompt, Segment};

/// Makes the jobs of a request of the old Completions. Special tokens in the text are taken as such, because whoever
/// asks this way writes the marks of a template by hand.
pub(super) fn prepare(ready: &Ready, attempt: &Attempt) -> Result<Prepared, Error> {
    let request = &*attempt.request;
    let shape = Shape {
        markup: Arc::clone(&ready.markup),
        tools: Arc::default(),
        custom: Arc::default(),
        // Marks of reasoning in the answer are text like any other.
        start: Start {
            plain: true,
            ..Start::default()
        },
    };
    let text = request.input.iter().find_map(|item| match item {
        Item::Message(message) => message.content.iter().find_map(|part| match part {
            Part::Text { text, .. } => Some(text.clone()),
            _ => None,
        }),
        _ => None,
    });
    let prompt = Prompt {
        segments: vec![Segment {
            text: text.unwrap_or_default(),
            special: true,
        }],
    };
    let tokens = tokenize(ready, &prompt)?;
    let jobs = (0..request.choices.max(1))
        .map(|choice| {
            let mut job = Job::new(tokens.clone());
            job.sampling = sampling(request, choice);
            job.max_tokens = request.max_output_tokens;
            job.stop.clone_from(&request.stop);
            job.logprobs = request.top_logprobs.map(|n| n.min(LOGPROBS_MAX));
            job.fairness_key = attempt.fairness_key;
            job.salt = attempt.cache_salt;
            job
        })
        .collect();
    Ok(Prepared { jobs, shape })
}
