//! Counting a request's input tokens without generating.

use std::sync::Arc;

use honshu_domain::{Attempt, Error, ErrorKind, TimeoutKind};
use tokio::time::timeout;

use crate::plan::Planned;

/// Asks the first deployment of the plan that can count. The place is held meanwhile: an engine may have to load the
/// model for it.
pub(crate) async fn input_tokens(planned: Planned) -> Result<u64, Error> {
    let Planned {
        call,
        request,
        model,
        admission: _held,
        plan: _,
    } = planned;
    let count = model.deployments.iter().find_map(|deployment| {
        deployment.backend.count_input_tokens(Attempt {
            request: Arc::clone(&request),
            upstream: Arc::clone(&deployment.upstream),
            served_model: Arc::clone(&model.id),
            request_id: Arc::clone(&call.request_id),
            fairness_key: call.principal.fairness_key(),
            cache_salt: call.principal.cache_salt(),
            timeouts: call.timeouts,
        })
    });
    let Some(count) = count else {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the tokens of `{}` cannot be counted without generating: its provider offers no count",
                model.id
            ),
        )
        .with_param("model"));
    };
    match timeout(call.timeouts.first_event_timeout, count).await {
        Ok(counted) => counted,
        Err(_) => Err(Error::new(
            ErrorKind::Timeout(TimeoutKind::FirstEvent),
            "the tokens were not counted in time",
        )),
    }
}
