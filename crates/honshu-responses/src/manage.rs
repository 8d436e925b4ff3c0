//! `context_management`: an input that has grown to a threshold is summed up before it is answered. The summary is
//! the first item of the output, so that what comes next continues from it.

use std::sync::Arc;

use honshu_domain::{Dialect, Error, ErrorKind, InferenceRequest, Item, RunEvent, Scope, Status};
use honshu_gateway::{Call, Gateway, Step};
use honshu_wire::responses::{
    has_answers, leave_out_oldest, summary_request, truncates, with_summary, without_management,
};

use crate::prepare::Prepared;
use crate::shape::{SUMMARY_HEAD, SUMMARY_PROMPT, Shape};
use crate::{Shared, generate};

/// Compacts what `prepared` would send, if it has to be. The summary is a run of its own with a usage row of its own.
///
/// # Errors
/// `Unsupported` when nobody can count the input; what the gateway refuses.
pub(crate) async fn manage(
    shared: &Shared,
    call: &Call,
    scope: &Scope,
    prepared: &mut Prepared,
) -> Result<(), Error> {
    let Some(threshold) = prepared.turn.compact_threshold else {
        return Ok(());
    };
    if prepared.turn.compacts {
        return Ok(());
    }
    let gateway = shared.gateway(call.region.name())?;
    let request = Arc::new(without_management(&prepared.request));
    let Some(tokens) = count(gateway, call, &request).await? else {
        return Ok(());
    };
    if tokens >= threshold && has_answers(&request) {
        let (text, item) = summary(shared, gateway, call, scope, &request).await?;
        let shorter = with_summary(&request, &format!("{SUMMARY_HEAD}{text}"));
        prepared.request = Arc::new(shorter);
        let inner = std::mem::replace(&mut prepared.shape, Shape::Plain);
        prepared.shape = Shape::compacted(item, inner);
    } else {
        prepared.request = request;
    }
    Ok(())
}

/// The tokens of the input; `None` when an upstream of this dialect gets the field and does it itself.
async fn count(
    gateway: &Gateway,
    call: &Call,
    request: &Arc<InferenceRequest>,
) -> Result<Option<u64>, Error> {
    let counted = gateway.count_input_tokens(call.clone(), Arc::clone(request));
    match counted.await {
        Ok(tokens) => Ok(Some(tokens)),
        Err(error) if error.kind() == ErrorKind::ContextLength => Ok(Some(u64::MAX)),
        // Any other field that is not supported is refused for itself.
        Err(error) if error.kind() == ErrorKind::Unsupported && error.param() == Some("model") => {
            let model = gateway.model_for(call, request)?;
            let passes = model.deployments.iter().all(|deployment| {
                let upstream = &deployment.upstream;
                deployment
                    .backend
                    .passes_through(upstream, Dialect::Responses)
            });
            if passes {
                return Ok(None);
            }
            let what = format!(
                "the input of `{}` cannot be counted, so that no threshold can be kept; compact with /responses/compact",
                model.id
            );
            Err(Error::new(ErrorKind::Unsupported, what).with_param("context_management"))
        }
        Err(error) => Err(error),
    }
}

/// The summary of all that `request` holds: its text, and the sealed item.
async fn summary(
    shared: &Shared,
    gateway: &Gateway,
    call: &Call,
    scope: &Scope,
    request: &InferenceRequest,
) -> Result<(String, Item), Error> {
    let asks = Arc::new(summary_request(request, SUMMARY_PROMPT)?);
    let call = Call {
        operation: "responses_compact",
        ..call.clone()
    };
    let mut run = if truncates(request) {
        gateway
            .generate_shortened(call, asks, leave_out_oldest)
            .await?
    } else {
        generate(gateway, call, asks).await?
    };
    let mut shape = Shape::compacts();
    let mut item = None;
    while let Some(step) = run.next().await {
        match step {
            Step::Event(event) => {
                for event in shape.apply(event, shared, scope)? {
                    if let RunEvent::ItemDone { item: whole, .. } = event {
                        item = Some(whole);
                    }
                }
            }
            Step::End { outcome, error } => {
                return match (outcome.status, item) {
                    (Status::Completed | Status::Incomplete(_), Some(item)) => {
                        Ok((shape.summary().trim().to_owned(), item))
                    }
                    _ => Err(error.unwrap_or_else(|| {
                        Error::new(ErrorKind::Upstream, "the summary broke off before its end")
                    })),
                };
            }
        }
    }
    Err(Error::internal("the run ended without an outcome"))
}
