//! The fields that both dialects spell alike: how tokens are chosen, and the form of a schema.

use honshu_domain::{RawJson, Sampling, TextFormat};

use crate::json::{Node, Path};
use crate::problems::{Findings, WRONG_VALUE, raw};

/// The most output tokens that a request can name.
pub(crate) const OUTPUT_TOKENS_MAX: i64 = u32::MAX as i64;

/// Reads one top-level field into `sampling`; false if it is another field. Ranges are OpenAI's; `top_k`,
/// `min_p` and `repetition_penalty` are extensions that many servers take.
pub(crate) fn field(
    key: &str,
    node: &Node<'_>,
    path: &Path<'_>,
    sampling: &mut Sampling,
    findings: &mut Findings,
) -> bool {
    match key {
        "temperature" => sampling.temperature = findings.number(node, path, 0.0, 2.0),
        "top_p" => sampling.top_p = findings.number(node, path, 0.0, 1.0),
        // -1 is how vLLM's clients say "all".
        "top_k" => {
            sampling.top_k = findings
                .integer(node, path, -1, i64::from(i32::MAX))
                .map(|k| u32::try_from(k).unwrap_or(0));
        }
        "min_p" => sampling.min_p = findings.number(node, path, 0.0, 1.0),
        "frequency_penalty" => {
            sampling.penalties.frequency = findings.number(node, path, -2.0, 2.0);
        }
        "presence_penalty" => sampling.penalties.presence = findings.number(node, path, -2.0, 2.0),
        "repetition_penalty" => {
            let penalty = findings.number(node, path, 0.0, 10.0);
            if penalty == Some(0.0) {
                findings.problem(path, WRONG_VALUE, "expected a number above 0");
            }
            sampling.penalties.repetition = penalty;
        }
        "seed" => sampling.seed = findings.integer(node, path, i64::MIN, i64::MAX),
        _ => return false,
    }
    true
}

/// Reads the members `name`, `description`, `schema`, `strict` of a JSON-schema format.
pub(crate) fn json_schema(
    node: &Node<'_>,
    path: &Path<'_>,
    schema_required: bool,
    findings: &mut Findings,
) -> Option<TextFormat> {
    let name = findings.required_string(node, "name", path);
    let schema = match node.find("schema") {
        Some(schema) if schema.as_object().is_some() => raw(schema),
        Some(schema) => {
            findings.expected(schema, &path.key("schema"), "a JSON schema object");
            None
        }
        None if schema_required => {
            findings.missing(&path.key("schema"));
            None
        }
        None => RawJson::parse("{}").ok(),
    };
    let description = node
        .find("description")
        .and_then(|text| findings.string(text, &path.key("description")));
    let strict = node
        .find("strict")
        .and_then(|flag| findings.boolean(flag, &path.key("strict")));
    Some(TextFormat::JsonSchema {
        name: name?.to_owned(),
        description: description.map(ToOwned::to_owned),
        schema: schema?,
        strict,
    })
}
