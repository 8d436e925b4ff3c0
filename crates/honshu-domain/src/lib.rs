//! The field's words, shared by every crate: ids, principals, models, requests, events, usage, errors,
//! and the few seams through which the gateway sees the rest of the house.
//!
//! This crate holds types and no behaviour that could differ between deployments: no HTTP, no SQL, no
//! configuration, no clock of its own. What the wire looks like is `honshu-wire`'s business.

mod backend;
mod custom_tool;
mod error;
mod event;
mod id;
mod item;
mod json;
mod model;
mod principal;
mod region;
mod request;
mod seams;
mod stored;
mod time;
mod usage;

pub use backend::{Attempt, Backend, BackendKind, RunStream, Support, Timeouts, TokenCount};
pub use custom_tool::{
    CustomTool, GrammarSyntax, InputFormat, InputReader, unwrapped_input, wrapped_input,
};
pub use error::{Error, ErrorKind, Origin, Problem, Result, Retry, TimeoutKind};
pub use event::{
    FailureReason, Finish, FinishReason, NativeFrame, Outcome, PartKind, RunEvent, Status,
};
pub use id::{BadOcid, Ocid, PublicId, RequestId, ResourceKind};
pub use item::{
    CustomToolCall, FunctionCall, FunctionCallOutput, ImageDetail, Item, Message, Part, Reasoning,
    Role, TokenLogprob, TopLogprob,
};
pub use json::RawJson;
pub use model::{Catalogue, Deployment, Model, ModelCapability, ModelSource, Price, Resolved};
pub use principal::{Principal, PrincipalKind};
pub use region::{Region, known_region_key};
pub use request::{
    Demand, Dialect, FunctionTool, InferenceRequest, Penalties, Sampling, TextFormat, Tool,
    ToolChoice,
};
pub use seams::{Clock, Entropy, SystemClock, SystemEntropy, UsageLog};
pub use stored::{
    Anchor, CompletionFilter, CompletionStore, EndedResponse, EventSegment, FileStore, History,
    Page, Paged, Pending, QueuedResponse, ResponseStore, Scope, StoredCompletion,
    StoredConversation, StoredFile, StoredItem, StoredResponse, StoredStatus, UnfinishedResponse,
    UploadId,
};
pub use time::Timestamp;
pub use usage::{Usage, UsageRow};
