//! Values that nearly every test needs.

use std::sync::Arc;

use bytes::Bytes;
use honshu_domain::{
    Backend, Deployment, Dialect, InferenceRequest, Item, Message, Model, ModelCapability,
    ModelSource, Ocid, Part, Principal, PrincipalKind, Role, Sampling, TextFormat, Timestamp,
    ToolChoice,
};

pub(crate) const TENANCY: &str = "ocid1.tenancy.oc1..test";

/// The compartment of tests: the tenancy itself.
#[must_use]
pub fn compartment() -> Ocid {
    Ocid::parse(TENANCY).unwrap()
}

/// An API key of the test tenancy.
#[must_use]
pub fn principal(name: &str) -> Principal {
    Principal {
        kind: PrincipalKind::ApiKey,
        id: Ocid::parse(&format!("ocid1.generativeaiapikey.oc1.local-1.{name}")).unwrap(),
        name: name.into(),
        tenancy: compartment(),
        compartment: compartment(),
        groups: Arc::from([]),
        secret_name: Some("first".into()),
    }
}

/// A model with one deployment.
#[must_use]
pub fn model(id: &str, backend: Arc<dyn Backend>) -> Model {
    model_with(id, [(backend, 1)])
}

/// A model with these deployments and weights; the upstream name of each is `up-` and its place.
#[must_use]
pub fn model_with(id: &str, backends: impl IntoIterator<Item = (Arc<dyn Backend>, u32)>) -> Model {
    let deployment = |(place, (backend, weight)): (usize, (Arc<dyn Backend>, u32))| Deployment {
        backend,
        upstream: format!("up-{place}").into(),
        weight,
    };
    Model {
        id: id.into(),
        vendor: "test".into(),
        capabilities: vec![ModelCapability::Chat],
        context_tokens_max: None,
        price: None,
        source: ModelSource::Configured,
        created: Timestamp::from_seconds(1_769_212_800),
        deployments: backends.into_iter().enumerate().map(deployment).collect(),
    }
}

/// A streamed Responses request with one user message.
#[must_use]
pub fn request(model: &str, text: &str) -> InferenceRequest {
    let raw = format!("{{\"model\":{model:?},\"input\":{text:?},\"stream\":true}}");
    of(Dialect::Responses, raw, model, text)
}

/// A Chat Completions request with one user message.
#[must_use]
pub fn chat_request(model: &str, text: &str, stream: bool) -> InferenceRequest {
    let raw = format!(
        "{{\"model\":{model:?},\"messages\":[{{\"role\":\"user\",\"content\":{text:?}}}],\"stream\":{stream}}}"
    );
    InferenceRequest {
        stream,
        ..of(Dialect::ChatCompletions, raw, model, text)
    }
}

fn of(dialect: Dialect, raw: String, model: &str, text: &str) -> InferenceRequest {
    InferenceRequest {
        dialect,
        raw: Bytes::from(raw),
        model: model.into(),
        instructions: None,
        input: vec![Item::Message(Message {
            id: None,
            role: Role::User,
            content: vec![Part::text(text)],
            phase: None,
            name: None,
        })],
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        parallel_tool_calls: true,
        sampling: Sampling::default(),
        format: TextFormat::Text,
        max_output_tokens: None,
        stop: Vec::new(),
        choices: 1,
        top_logprobs: None,
        reasoning_effort: None,
        stream: true,
        include_usage: false,
        obfuscates: false,
        demands: Vec::new(),
        hints: Vec::new(),
    }
}
