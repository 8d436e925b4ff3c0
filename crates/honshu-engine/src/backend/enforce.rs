//! What a request enforces on its answer, and the constraint that does it.

use honshu_domain::{Dialect, Error, ErrorKind, InferenceRequest, TextFormat, Tool, ToolChoice};
use serde_json::{Value, json};

use super::failure;
use crate::constraint::{Composition, Grammar, GrammarError, Part};
use crate::job::Constraint;
use crate::lazy::{Lazy, Waiting};
use crate::markup::{self, Call, Markup, Reasoning};
use crate::pool::Ready;
use crate::template::ChatTemplate;

/// Tools that are looked at one by one to find which of them made a grammar fail.
const SUSPECTS_MAX: usize = 64;

/// A function that the model may call.
pub(super) struct Function {
    pub name: String,
    pub parameters: Value,
    /// As sent.
    strict: bool,
    /// Its place in the request's tools.
    index: usize,
}

/// The functions of a request's tools.
pub(super) fn functions(tools: &[Tool]) -> Vec<Function> {
    tools
        .iter()
        .enumerate()
        .filter_map(|(index, tool)| match tool {
            Tool::Function(function) => Some((index, function)),
            Tool::Other { .. } => None,
        })
        .map(|(index, function)| Function {
            name: function.name.to_string(),
            parameters: function
                .parameters
                .as_ref()
                .and_then(|schema| schema.to().ok())
                .unwrap_or_else(|| json!({"type": "object"})),
            strict: function.strict == Some(true),
            index,
        })
        .collect()
}

/// Whether reasoning may come before what is enforced.
pub(super) fn reasoning(markup: &Markup, prompt: &str, request: &InferenceRequest) -> Reasoning {
    if markup.ends_in_reasoning(prompt) {
        Reasoning::Open
    } else if !markup.reasons
        || markup.ends_behind_reasoning(prompt)
        || request.reasoning_effort.as_deref() == Some("none")
    {
        Reasoning::None
    } else {
        Reasoning::Possible
    }
}

/// What is enforced.
pub(super) enum Plan {
    Nothing,
    /// A call must come: one of these functions, by their places in the list.
    Call(Vec<usize>),
    /// The text has a form, or there are calls instead.
    Format,
    /// Calls that the model begins by itself have a form.
    StrictCalls,
}

impl Plan {
    pub(super) fn new(request: &InferenceRequest, functions: &[Function]) -> Result<Self, Error> {
        let only = match &request.tool_choice {
            ToolChoice::Required => None,
            ToolChoice::Function(name) => Some(&**name),
            ToolChoice::Auto | ToolChoice::None => {
                return Ok(if request.format != TextFormat::Text {
                    Self::Format
                } else if functions.iter().any(|function| function.strict) {
                    Self::StrictCalls
                } else {
                    Self::Nothing
                });
            }
            ToolChoice::Other(_) => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "this form of `tool_choice` cannot be honoured by this model",
                )
                .with_param("tool_choice"));
            }
        };
        let wanted = |function: &Function| only.is_none_or(|name| name == function.name);
        let places: Vec<usize> = (0..functions.len())
            .filter(|place| wanted(&functions[*place]))
            .collect();
        if places.is_empty() {
            return Err(Error::invalid_at(
                "tool_choice",
                "a call is required and there is no function that could be called",
            ));
        }
        Ok(Self::Call(places))
    }

    /// Makes the constraint of one job.
    pub(super) fn constraint(
        &self,
        ready: &Ready,
        id: &str,
        request: &InferenceRequest,
        functions: &[Function],
        reasoning: Reasoning,
    ) -> Result<Option<Box<dyn Constraint>>, Error> {
        let markup = &*ready.markup;
        let composition = match self {
            Self::Nothing => return Ok(None),
            Self::StrictCalls => return strict_calls(ready, request, functions).map(Some),
            Self::Call(places) => {
                let named = matches!(request.tool_choice, ToolChoice::Function(_));
                // A model that was never trained on calls would go on calling.
                let trained = ready.template.as_ref().is_ok_and(ChatTemplate::knows_tools);
                let several = request.parallel_tool_calls && !named && trained;
                let calls: Vec<Call> = places
                    .iter()
                    .map(|place| functions[*place].call())
                    .collect();
                markup::forced(markup, &calls, several, reasoning)
            }
            Self::Format => {
                let calls: Vec<Call> = functions.iter().map(Function::call).collect();
                let part = format_part(&request.format).map_err(|error| {
                    failure::grammar(error, failure::format_param(request.dialect))
                })?;
                markup::answer(markup, part, &calls, request.parallel_tool_calls, reasoning)
            }
        };
        let made = ready
            .grammars
            .constraint(Grammar::Composed(&composition))
            .map_err(|error| refused(ready, request, functions, error))?;
        if !made.not_enforced.is_empty() {
            tracing::info!(model = %id, parts = ?made.not_enforced, "parts of a schema are not enforced");
        }
        Ok(Some(made.constraint))
    }
}

impl Function {
    /// The call as it is enforced: a strict one in full, another as far as its schema can be.
    fn call(&self) -> Call {
        Call {
            name: self.name.clone(),
            parameters: self.parameters.clone(),
            strict: self.strict,
        }
    }
}

fn format_part(format: &TextFormat) -> Result<Part, GrammarError> {
    Ok(match format {
        TextFormat::Text | TextFormat::JsonObject => Part::Schema {
            schema: json!({"type": "object"}),
            strict: true,
        },
        TextFormat::JsonSchema { schema, strict, .. } => Part::Schema {
            schema: schema.to().map_err(|error| {
                GrammarError::Unsupported(format!("the schema is not JSON: {error}"))
            })?,
            strict: strict.unwrap_or(false),
        },
    })
}

fn strict_calls(
    ready: &Ready,
    request: &InferenceRequest,
    functions: &[Function],
) -> Result<Box<dyn Constraint>, Error> {
    let calls: Vec<Call> = functions
        .iter()
        .map(|function| {
            let mut call = function.call();
            if !function.strict {
                call.parameters = json!({"type": "object"});
            }
            call
        })
        .collect();
    let mut waiting = Vec::new();
    for trigger in markup::lazy(&ready.markup, &calls) {
        let then = ready
            .grammars
            .template(Grammar::Composed(&trigger.then))
            .map_err(|error| refused(ready, request, functions, error))?;
        waiting.push(Waiting {
            pattern: trigger.pattern,
            at_start: trigger.at_start,
            then,
        });
    }
    Ok(Box::new(Lazy::new(
        waiting.into(),
        ready.model.vocabulary(),
    )))
}

/// The error of a grammar of several parts, at the part that brought it about.
fn refused(
    ready: &Ready,
    request: &InferenceRequest,
    functions: &[Function],
    error: GrammarError,
) -> Error {
    let alone = |part: Part| {
        let composition = Composition {
            lark: "start: @p0\n".to_owned(),
            parts: vec![part],
        };
        ready
            .grammars
            .template(Grammar::Composed(&composition))
            .err()
    };
    if request.format != TextFormat::Text
        && let Some(error) = format_part(&request.format).map_or_else(Some, alone)
    {
        return failure::grammar(error, failure::format_param(request.dialect));
    }
    let culprit = functions.iter().take(SUSPECTS_MAX).find_map(|function| {
        let call = function.call();
        let part = Part::Schema {
            schema: call.parameters,
            strict: call.strict,
        };
        Some((function.index, alone(part)?))
    });
    match culprit {
        Some((index, error)) => {
            let path = match request.dialect {
                Dialect::ChatCompletions => format!("tools[{index}].function.parameters"),
                Dialect::Messages => format!("tools[{index}].input_schema"),
                _ => format!("tools[{index}].parameters"),
            };
            failure::grammar(error, &path)
        }
        None => failure::grammar(error, "tools"),
    }
}
