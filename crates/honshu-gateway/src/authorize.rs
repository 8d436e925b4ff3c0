//! From a name to a model the caller may use.
//!
//! A model that does not exist and one that the caller may not use are the same answer, made by the same work:
//! an unknown name is put to the same decision as a known one, so that neither words nor time tell them apart.

use std::sync::Arc;

use honshu_domain::{Catalogue, Dialect, Error, ErrorKind, InferenceRequest, Model};
use honshu_policy::{Authorized, Authorizer, Operation, Permission, Target};

use crate::admit::{Admission, Admissions};
use crate::call::Call;

/// A request whose model name was looked up.
pub(crate) struct Asked {
    call: Call,
    request: Arc<InferenceRequest>,
    model: Option<Arc<Model>>,
}

/// A request that its caller may make.
pub(crate) struct AuthorizedCall {
    call: Call,
    request: Arc<InferenceRequest>,
    model: Arc<Model>,
    proof: Authorized,
}

/// A request that has its place.
pub(crate) struct Admitted {
    pub(crate) call: Call,
    pub(crate) request: Arc<InferenceRequest>,
    pub(crate) model: Arc<Model>,
    pub(crate) admission: Admission,
}

/// Looks the name up.
pub(crate) fn resolve(
    catalogue: &dyn Catalogue,
    call: Call,
    request: Arc<InferenceRequest>,
) -> Asked {
    let model = catalogue
        .resolve(&call.region, &request.model)
        .map(|resolved| resolved.model);
    Asked {
        call,
        request,
        model,
    }
}

/// Asks for the decision on the model that would answer, never on the alias it was called by.
pub(crate) fn authorize(
    authorizer: &dyn Authorizer,
    asked: Asked,
) -> Result<AuthorizedCall, Error> {
    let Asked {
        call,
        request,
        model,
    } = asked;
    let model_id = model
        .as_ref()
        .map_or_else(|| Arc::clone(&request.model), |model| Arc::clone(&model.id));
    let (permission, operation) = match request.dialect {
        Dialect::Embeddings => (Permission::GENERATIVE_AI_TEXT_EMBED, Operation::EmbedText),
        Dialect::ChatCompletions
        | Dialect::Responses
        | Dialect::Messages
        | Dialect::Completions => (Permission::GENERATIVE_AI_CHAT, Operation::Chat),
    };
    let target = Target::new(call.compartment.as_str())
        .model(&model_id)
        .operation(operation);
    let decision = authorizer.authorize(&call.principal, permission, &target);
    match (decision, model) {
        (Ok(proof), Some(model)) => Ok(AuthorizedCall {
            call,
            request,
            model,
            proof,
        }),
        (Ok(_), None) => {
            let id = authorizer.note_missing(&call.principal, permission, &target);
            Err(not_found_with(&request.model, id.as_deref()))
        }
        (Err(denied), _) => Err(not_found_with(&request.model, denied.decision_id())),
    }
}

fn not_found_with(name: &str, decision_id: Option<&str>) -> Error {
    let error = model_not_found(name);
    match decision_id {
        Some(id) => error.with_decision_id(id),
        None => error,
    }
}

/// A model that is not there or that the caller may not use: one answer, wherever it is asked for.
pub fn model_not_found(name: &str) -> Error {
    const SHOWN_MAX: usize = 200;
    let shown: String = name.chars().take(SHOWN_MAX).collect();
    Error::new(
        ErrorKind::ModelNotFound,
        format!("the model `{shown}` does not exist or you do not have access to it"),
    )
    .with_param("model")
}

impl AuthorizedCall {
    /// The model, for who makes no run of it now.
    pub(crate) fn into_model(self) -> Arc<Model> {
        self.model
    }

    /// Takes a place. The proof is used up here: it is good for this model and this run.
    pub(crate) fn admit(self, admissions: &Arc<Admissions>) -> Result<Admitted, Error> {
        let Self {
            call,
            request,
            model,
            proof,
        } = self;
        if proof.model_id() != Some(&*model.id) {
            return Err(Error::internal(
                "the policy decision is about another model",
            ));
        }
        let admission = admissions.admit(&call.principal.id)?;
        Ok(Admitted {
            call,
            request,
            model,
            admission,
        })
    }
}
