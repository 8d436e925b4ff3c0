//! How a command fails: one line, its causes, the next step, the exit code.

use std::process::ExitCode;

use crate::lang::Text;

/// A failure on its way to the terminal.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What went wrong.
    pub(crate) message: Text,
    /// What to do about it.
    pub(crate) hint: Option<Text>,
    /// The service's id of the request, where there was one.
    pub(crate) request_id: Option<String>,
    code: u8,
}

/// The result of a command.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// Failed: exit code 1.
    pub(crate) fn new(message: impl Into<Text>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            request_id: None,
            code: 1,
        }
    }

    /// Wrong usage that the argument parser cannot see: exit code 2.
    pub(crate) fn usage(message: impl Into<Text>) -> Self {
        Self {
            code: 2,
            ..Self::new(message)
        }
    }

    /// Wrong configuration or surroundings: exit code 78.
    pub(crate) fn config(message: impl Into<Text>) -> Self {
        Self {
            code: 78,
            ..Self::new(message)
        }
    }

    /// Adds the next step.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<Text>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

/// An error with its causes, each said once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(chain(&error))
    }
}
