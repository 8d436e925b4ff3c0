//! What a request enforces on its answer, and the constraint that does it.

use std::collections::HashSet;

use honshu_domain::{
    CustomTool, Dialect, Error, ErrorKind, GrammarSyntax, InferenceRequest, InputFormat,
    TextFormat, Tool, ToolChoice,
};
use serde_json::{Value, json};

use super::failure;
use crate::constraint::{Composition, Grammar, GrammarError, Part};
use crate::job::Constraint;
use crate::lazy::{Lazy, Waiting};
use crate::markup::{self, Call, Markup, Reasoning};
use crate::pool::Ready;
use crate::quoted;
use crate::template::ChatTemplate;

/// Tools that are looked at one by one to find which of them made a grammar fail.
const SUSPECTS_MAX: usize = 64;

/// A function that the model may call.
pub(super) struct Function {
    pub name: String,
    pub parameters: Value,
    /// As sent; a custom tool is strict if it has a grammar.
    strict: bool,
    /// Its place in the request's tools.
    index: usize,
    is_custom: bool,
    /// The grammar of a custom tool's input, as it stands in a JSON string.
    input: Option<Part>,
}

/// Bytes of all grammars of a request: each is compiled, used or not, so that its mistakes are told.
const DEFINITIONS_BYTES_MAX: usize = 256 << 10;

/// The functions of a request's tools; a custom tool is one with a text.
pub(super) fn functions(request: &InferenceRequest) -> Result<Vec<Function>, Error> {
    let (mut functions, mut bytes) = (Vec::with_capacity(request.tools.len()), 0);
    for (index, tool) in request.tools.iter().enumerate() {
        functions.push(match tool {
            Tool::Function(function) => Function {
                name: function.name.to_string(),
                parameters: function
                    .parameters
                    .as_ref()
                    .and_then(|schema| schema.to().ok())
                    .unwrap_or_else(|| json!({"type": "object"})),
                strict: function.strict == Some(true),
                index,
                is_custom: false,
                input: None,
            },
            Tool::Custom(custom) => {
                if let InputFormat::Grammar { definition, .. } = &custom.format {
                    bytes += definition.len();
                    if bytes > DEFINITIONS_BYTES_MAX {
                        return Err(Error::invalid_at(
                            definition_path(request.dialect, index),
                            format!("the grammars of a request have at most {DEFINITIONS_BYTES_MAX} bytes together"),
                        ));
                    }
                }
                let input = input(custom).map_err(|error| {
                    failure::definition(error, &definition_path(request.dialect, index))
                })?;
                Function {
                    name: custom.name.to_string(),
                    parameters: custom.parameters(),
                    strict: input.is_some(),
                    index,
                    is_custom: true,
                    input,
                }
            }
            Tool::Other { .. } => continue,
        });
    }
    Ok(functions)
}

/// The names of those functions that are custom tools for the caller.
pub(super) fn custom_names(functions: &[Function]) -> HashSet<String> {
    let custom = functions.iter().filter(|function| function.is_custom);
    custom.map(|function| function.name.clone()).collect()
}

fn input(custom: &CustomTool) -> Result<Option<Part>, GrammarError> {
    Ok(match &custom.format {
        InputFormat::Text => None,
        InputFormat::Grammar { syntax, definition } => Some(match syntax {
            GrammarSyntax::Lark => Part::Lark(quoted::lark(definition)?),
            GrammarSyntax::Regex => Part::Regex(quoted::regex(definition)?),
        }),
    })
}

fn definition_path(dialect: Dialect, index: usize) -> String {
    match dialect {
        Dialect::ChatCompletions => format!("tools[{index}].custom.format.grammar.definition"),
        _ => format!("tools[{index}].format.definition"),
    }
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
            ToolChoice::Function(name) | ToolChoice::Custom(name) => Some(&**name),
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

    /// Compiles the grammars that the constraint of this plan has no use for: a mistake in one is told all the same.
    pub(super) fn check_grammars(
        &self,
        ready: &Ready,
        request: &InferenceRequest,
        declared: &[Function],
    ) -> Result<(), Error> {
        let is_used = |place: usize| match self {
            _ if request.tool_choice == ToolChoice::None => false,
            Self::Nothing => false,
            Self::Call(places) => places.contains(&place),
            Self::Format | Self::StrictCalls => true,
        };
        for (place, function) in declared.iter().enumerate() {
            if function.input.is_some()
                && !is_used(place)
                && let Some(error) = alone(ready, function.part())
            {
                let path = definition_path(request.dialect, function.index);
                return Err(failure::definition(error, &path));
            }
        }
        Ok(())
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
                let named = matches!(
                    request.tool_choice,
                    ToolChoice::Function(_) | ToolChoice::Custom(_)
                );
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
            input: self.input.clone(),
        }
    }

    /// What is enforced on its arguments, or on a custom tool's input.
    fn part(&self) -> Part {
        self.input.clone().unwrap_or_else(|| Part::Schema {
            schema: self.parameters.clone(),
            strict: self.strict,
        })
    }
}

/// Compiles a part by itself; answers why it cannot be enforced, if it cannot.
fn alone(ready: &Ready, part: Part) -> Option<GrammarError> {
    let composition = Composition {
        lark: "start: @p0\n".to_owned(),
        parts: vec![part],
    };
    ready
        .grammars
        .template(Grammar::Composed(&composition))
        .err()
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
            if !function.strict && !function.is_custom {
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
    if request.format != TextFormat::Text
        && let Some(error) =
            format_part(&request.format).map_or_else(Some, |part| alone(ready, part))
    {
        return failure::grammar(error, failure::format_param(request.dialect));
    }
    let culprit = functions
        .iter()
        .take(SUSPECTS_MAX)
        .find_map(|function| Some((function, alone(ready, function.part())?)));
    match culprit {
        Some((function, error)) if function.input.is_some() => {
            failure::definition(error, &definition_path(request.dialect, function.index))
        }
        Some((function, error)) => {
            let index = function.index;
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
