//! What a caller wants generated, whatever dialect it came in.

use std::sync::Arc;

use bytes::Bytes;

use crate::custom_tool::{CustomTool, InputFormat};
use crate::item::Item;
use crate::json::RawJson;

/// A public way of speaking to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI Chat Completions.
    ChatCompletions,
    /// OpenAI Responses.
    Responses,
    /// Anthropic Messages.
    Messages,
    /// OpenAI's old Completions: the prompt is text and gets no template.
    Completions,
    /// OpenAI's embeddings, whose answer is one native frame.
    Embeddings,
}

impl Dialect {
    /// The word for logs and usage rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat_completions",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
        }
    }

    /// The field that holds the conversation, for errors about it.
    pub const fn prompt_field(self) -> &'static str {
        match self {
            Self::ChatCompletions | Self::Messages => "messages",
            Self::Responses | Self::Embeddings => "input",
            Self::Completions => "prompt",
        }
    }
}

/// A valid request to generate. Ranges were checked when it was made from the wire.
#[derive(Debug, Clone)]
pub struct InferenceRequest {
    /// The dialect it came in.
    pub dialect: Dialect,
    /// The body as it came, for pass-through to an upstream of the same dialect. Valid JSON, one object,
    /// no duplicate keys. Opaque to the gateway.
    pub raw: Bytes,
    /// The model's name as asked: a catalogue id, an alias or an OCID.
    pub model: Arc<str>,
    /// System text that comes before the input (Responses `instructions`).
    pub instructions: Option<String>,
    /// The conversation.
    pub input: Vec<Item>,
    /// Tools the model may use.
    pub tools: Vec<Tool>,
    /// Whether and which tools are to be used.
    pub tool_choice: ToolChoice,
    /// Whether several calls may come in one answer.
    pub parallel_tool_calls: bool,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The form of the answer's text.
    pub format: TextFormat,
    /// The most output tokens; absent means as many as the context leaves.
    pub max_output_tokens: Option<u32>,
    /// Texts at which the answer ends; few (4 in OpenAI's dialects, 16 in Messages) of at most 10,000 bytes.
    pub stop: Vec<String>,
    /// How many answers; 1 in Responses.
    pub choices: u32,
    /// How many alternatives are wanted beside each token's log probability; absent means no log probabilities.
    pub top_logprobs: Option<u8>,
    /// Reasoning effort, as sent.
    pub reasoning_effort: Option<Arc<str>>,
    /// Whether the answer is to come as a stream of events.
    pub stream: bool,
    /// Whether a Chat stream ends with a chunk that holds the usage.
    pub include_usage: bool,
    /// Whether the deltas of a stream are filled up to a few lengths (`stream_options.include_obfuscation`).
    pub obfuscates: bool,
    /// What this request asks for beyond plain text in and out, each with the JSON path that asks for it.
    pub demands: Vec<(Demand, String)>,
    /// Fields that were accepted and are not acted upon by Honshu itself (hints and unknown fields), by JSON
    /// path. A backend that passes the raw body through honours them; others list them in `honshu-ignored`.
    pub hints: Vec<String>,
}

impl InferenceRequest {
    /// The custom tools whose input has a grammar, by their places in `tools`, each with the JSON path of its format.
    pub fn grammars(&self) -> impl Iterator<Item = (usize, String)> + '_ {
        let format = match self.dialect {
            Dialect::ChatCompletions => "custom.format",
            _ => "format",
        };
        let has_grammar = |tool: &Tool| matches!(tool, Tool::Custom(custom) if matches!(custom.format, InputFormat::Grammar { .. }));
        self.tools
            .iter()
            .enumerate()
            .filter(move |(_, tool)| has_grammar(tool))
            .map(move |(index, _)| (index, format!("tools[{index}].{format}")))
    }
}

/// Something that a backend must be able to do, or the request is refused by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Demand {
    /// Images in the input.
    ImageInput,
    /// Files in the input.
    FileInput,
    /// Audio in the input or output.
    Audio,
    /// A tool call is required (`tool_choice` `required` or a named tool).
    ForcedTool,
    /// Earlier tool calls and their results are in the input.
    ToolHistory,
    /// An answer that satisfies a JSON schema.
    JsonSchema,
    /// An answer that is a JSON object.
    JsonObject,
    /// More than one answer (`n`).
    Choices,
    /// Log probabilities.
    Logprobs,
    /// A bias on single tokens.
    LogitBias,
    /// Items of kinds that only the same dialect's upstream understands.
    ForeignItems,
    /// State that is kept by the upstream (`previous_response_id`, `conversation`, `background`).
    StoredState,
    /// A prompt that gets no chat template (the old Completions).
    RawPrompt,
    /// An option of the old Completions that OpenAI's own servers know (`echo`, `suffix`, `best_of`, prompts that
    /// are not one text).
    LegacyOption,
    /// Calls in the form of the old `functions`.
    LegacyFunctions,
    /// Vectors instead of an answer.
    Embeddings,
}

impl Demand {
    /// How the demand is called in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ImageInput => "image input",
            Self::FileInput => "file input",
            Self::Audio => "audio",
            Self::ForcedTool => "a required tool call",
            Self::ToolHistory => "tool calls in the input",
            Self::JsonSchema => "a JSON schema for the answer",
            Self::JsonObject => "JSON mode",
            Self::Choices => "more than one choice",
            Self::Logprobs => "log probabilities",
            Self::LogitBias => "logit bias",
            Self::ForeignItems => "items of this type",
            Self::StoredState => "stored responses",
            Self::RawPrompt => "prompts without a chat template",
            Self::LegacyOption => "this option of the old Completions API",
            Self::LegacyFunctions => "the old `functions`",
            Self::Embeddings => "embeddings",
        }
    }
}

/// How tokens are chosen. Absent fields leave the choice to the backend's defaults.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sampling {
    /// 0 to 2; 0 takes the most likely token.
    pub temperature: Option<f32>,
    /// 0 to 1: the smallest set of tokens with this much probability.
    pub top_p: Option<f32>,
    /// The k most likely tokens; 0 means all.
    pub top_k: Option<u32>,
    /// Tokens at least this fraction as likely as the most likely one.
    pub min_p: Option<f32>,
    /// Penalties on repetition.
    pub penalties: Penalties,
    /// The same seed gives the same answer where the backend can promise it.
    pub seed: Option<i64>,
    /// Token id to bias, −100 to 100.
    pub logit_bias: Vec<(u32, f32)>,
}

/// Penalties on repetition.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Penalties {
    /// −2 to 2, by count.
    pub frequency: Option<f32>,
    /// −2 to 2, once.
    pub presence: Option<f32>,
    /// A factor above 0; 1 is none.
    pub repetition: Option<f32>,
}

/// The form of the answer's text.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum TextFormat {
    /// Free text.
    #[default]
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that satisfies a schema.
    JsonSchema {
        /// The schema's name.
        name: String,
        /// What it is for.
        description: Option<String>,
        /// The schema.
        schema: RawJson,
        /// Whether the caller asked for the strict subset.
        strict: Option<bool>,
    },
}

/// A tool the model may use.
#[derive(Debug, Clone, PartialEq)]
pub enum Tool {
    /// A function of the caller's.
    Function(FunctionTool),
    /// A tool of the caller's that takes a text.
    Custom(CustomTool),
    /// A kind that is carried, not interpreted (hosted tools, namespaces).
    Other {
        /// The tool's `type`.
        kind: Arc<str>,
        /// The whole tool.
        raw: RawJson,
    },
}

/// A function of the caller's.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionTool {
    /// Its name.
    pub name: Arc<str>,
    /// What it does.
    pub description: Option<String>,
    /// The JSON schema of its arguments.
    pub parameters: Option<RawJson>,
    /// Whether arguments must satisfy the schema.
    pub strict: Option<bool>,
}

/// Whether and which tools are to be used.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum ToolChoice {
    /// The model chooses.
    #[default]
    Auto,
    /// None.
    None,
    /// At least one call.
    Required,
    /// This function.
    Function(Arc<str>),
    /// This custom tool.
    Custom(Arc<str>),
    /// A form that is carried, not interpreted.
    Other(RawJson),
}
