//! `POST /responses/input_tokens`: how many tokens the input of a response would have.
//!
//! A backend that can count is asked. Of another one a run is begun, and given up as soon as the count is there; one
//! that counts at the end is asked for the shortest answer.

use std::sync::Arc;

use honshu_domain::{Error, ErrorKind, RunEvent};
use honshu_gateway::Step;
use honshu_wire::responses::{limit_output, without_management};

use crate::prepare::prepare;
use crate::{Asked, Runtime};

/// OpenAI takes no smaller limit.
const OUTPUT_TOKENS: u32 = 16;

impl Runtime {
    /// Counts the tokens of a response's input, of what it continues and of its tools.
    ///
    /// # Errors
    /// As [`Runtime::respond`]; `Unsupported` when the model's backend does not count.
    pub async fn count_input(&self, asked: Asked) -> Result<u64, Error> {
        let prepared = prepare(&self.shared, &asked, None, false).await?;
        let gateway = self.gateway(&asked.call)?;
        let request = Arc::new(without_management(&prepared.request));
        let counted = gateway.count_input_tokens(asked.call.clone(), Arc::clone(&request));
        match counted.await {
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            counted => return counted,
        }
        let request = Arc::new(limit_output(&request, OUTPUT_TOKENS));
        let mut run = self
            .gateway(&asked.call)?
            .generate(asked.call, request)
            .await?;
        while let Some(step) = run.next().await {
            match step {
                Step::Event(RunEvent::Started {
                    input_tokens: Some(count),
                    ..
                }) => return Ok(count),
                Step::Event(_) => {}
                Step::End { outcome, .. } if outcome.usage.input_tokens > 0 => {
                    return Ok(outcome.usage.input_tokens);
                }
                Step::End { error, .. } => {
                    return Err(error.unwrap_or_else(|| {
                        Error::new(
                            ErrorKind::Unsupported,
                            "this model does not count its input",
                        )
                        .with_param("model")
                    }));
                }
            }
        }
        Err(Error::internal("the run ended without an outcome"))
    }
}
