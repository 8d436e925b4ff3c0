//! Whose stored objects a request can see.

use honshu_domain::{Ocid, Result, Scope};
use http::HeaderMap;
use http::request::Parts;

use crate::app::App;
use crate::authn;
use crate::context::Context;

pub(crate) use honshu_responses::not_found;

/// The OCID's type word of a project.
const PROJECT: &str = "generativeaiproject";

/// The scope that a call acts in: its compartment, and the project that it names. The official SDKs send ids of
/// OpenAI's projects in the same header when their environment says so; those name nothing here.
pub(crate) fn of(headers: &HeaderMap, context: &Context, compartment: &Ocid) -> Scope {
    let project = ["openai-project", "opc-project-id"]
        .iter()
        .find_map(|name| headers.get(*name))
        .and_then(|value| value.to_str().ok())
        .and_then(|text| Ocid::parse(text.trim()).ok())
        .filter(|id| id.kind() == PROJECT);
    Scope {
        region: context.region.name_arc(),
        compartment: compartment.clone(),
        project,
    }
}

/// The scope of an authenticated caller who may chat with at least one model in the compartment: whoever may do
/// nothing there reads nothing there either. `denied` is the answer for everybody else, the same as for an id that
/// names nothing.
pub(crate) fn allowed(
    app: &App,
    context: &Context,
    parts: &Parts,
    denied: impl FnOnce() -> honshu_domain::Error,
) -> Result<Scope> {
    let caller = authn::data_plane(app, context, parts)?;
    let compartment = authn::compartment(&parts.headers, &caller.principal)?;
    let may = app
        .catalogue
        .list(&context.region)
        .iter()
        .any(|(_, resolved)| {
            app.control.may_use_model(
                &caller.principal,
                &context.region,
                &compartment,
                &resolved.model.id,
            )
        });
    if may {
        Ok(of(&parts.headers, context, &compartment))
    } else {
        Err(denied())
    }
}
