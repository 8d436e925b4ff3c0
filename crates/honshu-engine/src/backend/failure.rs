//! The engine's errors in the words of the domain.

use honshu_domain::{Dialect, Error, ErrorKind, InferenceRequest, Retry};

use crate::constraint::GrammarError;
use crate::error::{EngineError, SubmitError};
use crate::template::TemplateError;

fn input_param(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::ChatCompletions | Dialect::Messages => "messages",
        Dialect::Completions => "prompt",
        Dialect::Responses | Dialect::Embeddings => "input",
    }
}

pub(super) fn format_param(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::ChatCompletions | Dialect::Completions | Dialect::Embeddings => "response_format",
        Dialect::Responses => "text.format",
        Dialect::Messages => "output_config.format",
    }
}

pub(super) fn template(error: TemplateError, request: &InferenceRequest) -> Error {
    let param = input_param(request.dialect);
    match error {
        TemplateError::Content(_) => {
            Error::new(ErrorKind::Unsupported, error.to_string()).with_param(param)
        }
        // The path is already in the parameter; a message of many parts would repeat it.
        _ => Error::new(ErrorKind::Invalid, error.to_string())
            .with_param(param)
            .with_cause(error),
    }
}

pub(super) fn grammar(error: GrammarError, param: &str) -> Error {
    match &error {
        GrammarError::Vocabulary(_) => {
            Error::new(ErrorKind::Unsupported, error.to_string()).with_param(param)
        }
        GrammarError::Unsupported(_) | GrammarError::TooLarge { .. } => {
            Error::invalid_at(param, format!("the schema is refused: {error}")).with_cause(error)
        }
    }
}

/// A custom tool's grammar that cannot be enforced.
pub(super) fn definition(error: GrammarError, param: &str) -> Error {
    match &error {
        GrammarError::Vocabulary(_) => grammar(error, param),
        _ => Error::invalid_at(param, format!("the grammar is refused: {error}")).with_cause(error),
    }
}

pub(super) fn submit(error: SubmitError) -> Error {
    match error {
        SubmitError::QueueFull { retry_after } => {
            Error::new(ErrorKind::RateLimited, error.to_string())
                .with_retry(Retry::After(retry_after))
                .with_cause(error)
        }
        SubmitError::ContextLength { .. } => {
            Error::new(ErrorKind::ContextLength, error.to_string()).with_cause(error)
        }
        SubmitError::Invalid(ref what) => {
            Error::new(ErrorKind::Invalid, what.clone()).with_cause(error)
        }
        SubmitError::Stopped => Error::new(
            ErrorKind::Unavailable,
            "the model is being unloaded; try again",
        )
        .with_cause(error),
    }
}

pub(super) fn engine(error: EngineError) -> Error {
    match &error {
        EngineError::QueueDeadline { retry_after, .. } => {
            Error::new(ErrorKind::RateLimited, error.to_string())
                .with_retry(Retry::After(*retry_after))
                .with_cause(error)
        }
        EngineError::Constraint(_) => Error::new(
            ErrorKind::Unsupported,
            "the form that was asked for became too complex for this answer; simplify the schema",
        )
        .with_cause(error),
        EngineError::Tokenize(what) => {
            Error::new(ErrorKind::Invalid, what.clone()).with_cause(error)
        }
        EngineError::Stopped => {
            Error::new(ErrorKind::Unavailable, "the model was unloaded; try again")
                .with_cause(error)
        }
        EngineError::Invariant(_) | EngineError::Decode { .. } => Error::internal(error),
    }
}
