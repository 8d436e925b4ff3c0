//! The fields that both dialects spell alike: how tokens are chosen, and the form of a schema.

use std::collections::HashSet;

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
        Some(schema) if schema.as_object().is_some() => {
            refuse_loops(schema, &path.key("schema"), findings);
            raw(schema)
        }
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

/// Notes a schema in which a `$ref` leads back to itself and never to anything that could be written.
pub(crate) fn refuse_loops(schema: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
    if memchr::memmem::find(schema.raw.as_bytes(), b"$ref").is_some()
        && has_loop(schema, schema, &mut HashSet::new())
    {
        findings.problem(path, WRONG_VALUE, "a `$ref` of the schema leads to itself");
    }
}

/// Walks the whole schema. `known` has the places from which a chain of references is known to end.
fn has_loop<'n>(root: &'n Node<'_>, node: &'n Node<'_>, known: &mut HashSet<&'n str>) -> bool {
    let mut chain: HashSet<&'n str> = HashSet::new();
    let mut at = Some(node);
    while let Some((place, reference)) = at.and_then(|node| Some((node, node.find_str("$ref")?))) {
        // Each value knows its own text, and no two have it at the same place.
        if known.contains(place.raw) && !chain.contains(place.raw) {
            break;
        }
        if !chain.insert(place.raw) {
            return true;
        }
        at = resolve(root, reference);
    }
    known.extend(chain);
    match (node.as_object(), node.as_array()) {
        (Some(members), _) => members
            .iter()
            .any(|(_, value)| has_loop(root, value, known)),
        (_, Some(elements)) => elements.iter().any(|value| has_loop(root, value, known)),
        _ => false,
    }
}

/// What a reference within the schema stands for.
fn resolve<'n, 'a>(root: &'n Node<'a>, reference: &str) -> Option<&'n Node<'a>> {
    let pointer = reference.strip_prefix('#')?;
    let mut steps = pointer.split('/');
    if !steps.next()?.is_empty() {
        return None;
    }
    steps.try_fold(root, |node, step| {
        let step = step.replace("~1", "/").replace("~0", "~");
        match node.as_array() {
            Some(elements) => elements.get(step.parse::<usize>().ok()?),
            None => node.find(&step),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_that_lead_to_themselves_are_found_and_no_others() {
        for (schema, expected) in [
            (r##"{"$ref":"#"}"##, true),
            (
                r##"{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}"##,
                true,
            ),
            (
                r##"{"type":"object","properties":{"x":{"$ref":"#/properties/x"}}}"##,
                true,
            ),
            (
                r##"{"anyOf":[{"type":"null"},{"$ref":"#/anyOf/1"}]}"##,
                true,
            ),
            (
                r##"{"$ref":"#/$defs/a~1b","$defs":{"a/b":{"$ref":"#/$defs/a~1b"}}}"##,
                true,
            ),
            (
                r##"{"type":"object","properties":{"next":{"$ref":"#"}}}"##,
                false,
            ),
            (
                r##"{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"type":"string"}}}"##,
                false,
            ),
            (r##"{"$ref":"#/$defs/none"}"##, false),
            (r##"{"$ref":"https://example.org/x"}"##, false),
            (r##"{"properties":{"$ref":{"type":"string"}}}"##, false),
            (
                r##"{"anyOf":[{"$ref":"#/$defs/a"},{"$ref":"#/$defs/a"}],"$defs":{"a":{"type":"string"}}}"##,
                false,
            ),
        ] {
            let node = crate::json::parse_text(schema).unwrap();
            let mut findings = Findings::default();
            refuse_loops(&node, &Path::Root, &mut findings);
            assert_eq!(findings.check().is_err(), expected, "{schema}");
        }
    }
}
