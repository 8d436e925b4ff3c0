//! A Completions request body, read into the domain's words.

use bytes::Bytes;
use honshu_domain::{
    Demand, Dialect, Error, InferenceRequest, Item, Message, Part, Role, Sampling, TextFormat,
    ToolChoice,
};

use crate::chat::{OptionsDraft, read_option};
use crate::json::{Node, Path};
use crate::problems::{self, Findings, MISSING, WRONG_VALUE};

/// What an answer is limited to when the request does not say (OpenAI API reference).
const MAX_TOKENS_DEFAULT: u32 = 16;

/// Alternatives beside each token.
const LOGPROBS_MAX: i64 = 5;

/// Reads a `POST /completions` body.
///
/// # Errors
/// `Invalid` with every problem found and its JSON path.
pub fn parse_request(body: Bytes) -> Result<InferenceRequest, Error> {
    let root = problems::body(&body)?;
    let mut findings = Findings::default();
    let mut options = OptionsDraft::default();
    let mut sampling = Sampling::default();
    let mut model = String::new();
    let mut prompt = None;
    let mut top_logprobs = None;
    let mut best_of = 1;
    let top = Path::Root;
    findings.demand(Demand::RawPrompt, &top);
    for (key, node) in root.as_object().unwrap_or_default() {
        let path = top.key(key);
        if crate::sampling::field(key, node, &path, &mut sampling, &mut findings)
            || read_option(key, node, &path, &mut options, &mut sampling, &mut findings)
        {
            continue;
        }
        match key.as_ref() {
            "model" => {
                if let Some(name) = findings.string(node, &path) {
                    name.clone_into(&mut model);
                }
            }
            "prompt" => {
                if !node.is_null() {
                    prompt = Some(read_prompt(node, &path, &mut findings));
                }
            }
            "logprobs" => {
                top_logprobs = findings
                    .integer(node, &path, 0, LOGPROBS_MAX)
                    .and_then(|n| u8::try_from(n).ok());
                if top_logprobs.is_some() {
                    findings.demand(Demand::Logprobs, &path);
                }
            }
            "best_of" => {
                best_of = findings.integer(node, &path, 0, 20).unwrap_or(1);
                if best_of > 1 {
                    findings.demand(Demand::LegacyOption, &path);
                }
            }
            "echo" => {
                if findings.boolean(node, &path) == Some(true) {
                    findings.demand(Demand::LegacyOption, &path);
                }
            }
            "suffix" => {
                if findings
                    .string(node, &path)
                    .is_some_and(|text| !text.is_empty())
                {
                    findings.demand(Demand::LegacyOption, &path);
                }
            }
            _ => findings.hint(&path, node),
        }
    }
    if model.is_empty() {
        findings.problem(&top.key("model"), MISSING, "required: the name of a model");
    }
    if prompt.is_none() {
        findings.problem(
            &top.key("prompt"),
            MISSING,
            "required: the text to continue",
        );
    }
    let choices = options.choices.unwrap_or(1);
    if best_of > 1 && best_of < i64::from(choices) {
        findings.problem(
            &top.key("best_of"),
            WRONG_VALUE,
            "must not be less than `n`",
        );
    }
    findings.check()?;
    drop(root);
    Ok(InferenceRequest {
        dialect: Dialect::Completions,
        raw: body,
        model: model.into(),
        instructions: None,
        input: vec![Item::Message(Message {
            id: None,
            role: Role::User,
            content: vec![Part::text(prompt.unwrap_or_default())],
            phase: None,
            name: None,
        })],
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        parallel_tool_calls: true,
        sampling,
        format: TextFormat::Text,
        max_output_tokens: Some(options.max_tokens.unwrap_or(MAX_TOKENS_DEFAULT)),
        stop: options.stop,
        choices,
        top_logprobs,
        reasoning_effort: None,
        stream: options.stream,
        include_usage: options.include_usage,
        obfuscates: options.obfuscates,
        demands: findings.demands,
        hints: findings.hints,
    })
}

/// The prompt's text. Prompts that are not one text are left to upstreams.
fn read_prompt(node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) -> String {
    if let Some(text) = node.as_str() {
        return text.to_owned();
    }
    let Some(list) = node.as_array() else {
        findings.expected(node, path, "a string or an array");
        return String::new();
    };
    match list {
        [] => findings.problem(path, WRONG_VALUE, "must have at least one prompt"),
        [only] if only.as_str().is_some() => {
            return only.as_str().unwrap_or_default().to_owned();
        }
        list => {
            for (index, entry) in list.iter().enumerate() {
                let at = path.index(index);
                let is_token = |node: &Node<'_>| node.as_i64().is_some_and(|id| id >= 0);
                let good = entry.as_str().is_some()
                    || is_token(entry)
                    || entry
                        .as_array()
                        .is_some_and(|ids| !ids.is_empty() && ids.iter().all(is_token));
                if !good {
                    findings.expected(entry, &at, "a string, a token id or an array of token ids");
                }
            }
            findings.demand(Demand::LegacyOption, path);
        }
    }
    String::new()
}
