//! The items of a conversation: the internal language, after the items of the Responses API.
//! Kinds and fields that are not interpreted here ride along as [`RawJson`].

use std::sync::Arc;

use crate::json::RawJson;

/// One entry of an input or output.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A message of some role.
    Message(Message),
    /// The model asks for a function to be called.
    FunctionCall(FunctionCall),
    /// The caller's result of such a call.
    FunctionCallOutput(FunctionCallOutput),
    /// The model asks for a custom tool to be used.
    CustomToolCall(CustomToolCall),
    /// The caller's result of such a use.
    CustomToolCallOutput(FunctionCallOutput),
    /// The model's reasoning.
    Reasoning(Reasoning),
    /// A kind that is carried, not interpreted.
    Other {
        /// The item's `type`.
        kind: Arc<str>,
        /// The whole item.
        raw: RawJson,
    },
}

impl Item {
    /// The id of the call that this item makes, if it is a call.
    pub fn call_id(&self) -> Option<&Arc<str>> {
        match self {
            Self::FunctionCall(call) => Some(&call.call_id),
            Self::CustomToolCall(call) => Some(&call.call_id),
            _ => None,
        }
    }

    /// The arguments or the input of the call that this item makes, if it is a call: what
    /// [`RunEvent::ArgumentsDelta`](crate::RunEvent::ArgumentsDelta) adds to.
    pub fn call_text(&self) -> Option<&str> {
        match self {
            Self::FunctionCall(call) => Some(&call.arguments),
            Self::CustomToolCall(call) => Some(&call.input),
            _ => None,
        }
    }

    /// [`Self::call_text`], to be changed.
    pub fn call_text_mut(&mut self) -> Option<&mut String> {
        match self {
            Self::FunctionCall(call) => Some(&mut call.arguments),
            Self::CustomToolCall(call) => Some(&mut call.input),
            _ => None,
        }
    }

    /// The result of a call of either kind, if this item is one.
    pub fn call_output(&self) -> Option<&FunctionCallOutput> {
        match self {
            Self::FunctionCallOutput(output) | Self::CustomToolCallOutput(output) => Some(output),
            _ => None,
        }
    }
}

/// Who speaks in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The person or program that asks.
    User,
    /// The model.
    Assistant,
    /// The application, above the user.
    System,
    /// The application; treated as `System` by models that know no such role.
    Developer,
}

impl Role {
    /// The wire word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::System => "system",
            Self::Developer => "developer",
        }
    }
}

/// A message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// `msg_…`, where the message has one.
    pub id: Option<Arc<str>>,
    /// Who speaks.
    pub role: Role,
    /// What is said, in order.
    pub content: Vec<Part>,
    /// `commentary` or `final_answer` on assistant messages; kept on replay.
    pub phase: Option<Arc<str>>,
    /// The speaker's name (Chat Completions `name`).
    pub name: Option<Arc<str>>,
}

/// A piece of a message's content.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Text.
    Text {
        /// The text.
        text: String,
        /// Annotations of an output text, as sent.
        annotations: Vec<RawJson>,
        /// Log probabilities of an output text.
        logprobs: Vec<TokenLogprob>,
    },
    /// An image.
    Image {
        /// An `https:` or `data:` URL.
        url: Option<String>,
        /// A stored file's id.
        file_id: Option<String>,
        /// How closely to look.
        detail: ImageDetail,
    },
    /// The model declines.
    Refusal {
        /// What it says.
        refusal: String,
    },
    /// A kind that is carried, not interpreted (files, audio, …).
    Other {
        /// The part's `type`.
        kind: Arc<str>,
        /// The whole part.
        raw: RawJson,
    },
}

impl Part {
    /// A text without annotations.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text {
            text: text.into(),
            annotations: Vec::new(),
            logprobs: Vec::new(),
        }
    }
}

/// How closely a model is to look at an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImageDetail {
    /// The model chooses.
    #[default]
    Auto,
    /// A small rendering.
    Low,
    /// A large rendering.
    High,
    /// As it is.
    Original,
}

/// A function call by the model.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionCall {
    /// `fc_…`, where it has one.
    pub id: Option<Arc<str>>,
    /// The id that its output names.
    pub call_id: Arc<str>,
    /// The function.
    pub name: Arc<str>,
    /// The arguments, a JSON text (not necessarily valid).
    pub arguments: String,
}

/// A use of a custom tool by the model.
#[derive(Debug, Clone, PartialEq)]
pub struct CustomToolCall {
    /// `ctc_…`, where it has one.
    pub id: Option<Arc<str>>,
    /// The id that its output names.
    pub call_id: Arc<str>,
    /// The tool.
    pub name: Arc<str>,
    /// The input: a text, not JSON.
    pub input: String,
}

/// The caller's result of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionCallOutput {
    /// The item's own id, where it has one.
    pub id: Option<Arc<str>>,
    /// Which call.
    pub call_id: Arc<str>,
    /// The result, as parts; a plain string is one text part.
    pub output: Vec<Part>,
}

/// Reasoning by the model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reasoning {
    /// `rs_…`, where it has one.
    pub id: Option<Arc<str>>,
    /// Summaries.
    pub summary: Vec<String>,
    /// The raw reasoning.
    pub content: Vec<String>,
    /// The provider's sealed form, for stateless replay.
    pub encrypted_content: Option<String>,
}

/// One token of an answer with its log probability (natural logarithm).
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token's text, with U+FFFD where its bytes are not whole characters.
    pub token: String,
    /// The token's bytes.
    pub bytes: Vec<u8>,
    /// Its log probability.
    pub logprob: f32,
    /// The most likely tokens at this place, best first.
    pub top: Vec<TopLogprob>,
}

/// A candidate at one place of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct TopLogprob {
    /// The token's text.
    pub token: String,
    /// The token's bytes.
    pub bytes: Vec<u8>,
    /// Its log probability.
    pub logprob: f32,
}
