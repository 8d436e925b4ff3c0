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

/// Members that are compared while the references of a schema are followed. A schema of people has some hundreds of
/// references; one that needs more than this is made to keep the server busy.
const STEPS_MAX: usize = 1_000_000;

/// Notes a schema in which a `$ref` leads back to itself and never to anything that could be written.
pub(crate) fn refuse_loops(schema: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
    if memchr::memmem::find(schema.raw.as_bytes(), b"$ref").is_none() {
        return;
    }
    let mut references = References {
        root: schema,
        known: HashSet::new(),
        steps: STEPS_MAX,
    };
    match references.check(schema) {
        Ok(()) => {}
        Err(Fault::Loop) => {
            findings.problem(path, WRONG_VALUE, "a `$ref` of the schema leads to itself");
        }
        Err(Fault::TooMany) => findings.problem(
            path,
            WRONG_VALUE,
            "the schema has too many references among too many definitions; make it smaller",
        ),
    }
}

enum Fault {
    Loop,
    TooMany,
}

/// A walk over a whole schema. Values are known by their address: comparing their texts would take time by the square
/// of the schema.
struct References<'n, 'a> {
    root: &'n Node<'a>,
    /// Places from which a chain of references is known to end.
    known: HashSet<*const u8>,
    steps: usize,
}

impl<'n, 'a> References<'n, 'a> {
    fn check(&mut self, node: &'n Node<'a>) -> Result<(), Fault> {
        let mut chain: HashSet<*const u8> = HashSet::new();
        let mut at = Some(node);
        while let Some((place, reference)) =
            at.and_then(|node| Some((node, node.find_str("$ref")?)))
        {
            let address = place.raw.as_ptr();
            if self.known.contains(&address) {
                break;
            }
            if !chain.insert(address) {
                return Err(Fault::Loop);
            }
            at = self.resolve(reference)?;
        }
        self.known.extend(chain);
        let members = node.as_object().unwrap_or_default();
        let elements = node.as_array().unwrap_or_default();
        let below = members.iter().map(|(_, value)| value).chain(elements);
        for value in below {
            self.check(value)?;
        }
        Ok(())
    }

    /// What a reference within the schema stands for.
    fn resolve(&mut self, reference: &str) -> Result<Option<&'n Node<'a>>, Fault> {
        let Some(("", pointer)) = reference
            .strip_prefix('#')
            .map(|pointer| pointer.split_once('/').unwrap_or((pointer, "")))
        else {
            return Ok(None);
        };
        let mut at = self.root;
        if reference == "#" {
            return Ok(Some(at));
        }
        for step in pointer.split('/') {
            let step = step.replace("~1", "/").replace("~0", "~");
            let cost = at.as_object().map_or(1, <[_]>::len);
            self.steps = self.steps.checked_sub(cost).ok_or(Fault::TooMany)?;
            let next = match at.as_array() {
                Some(elements) => step
                    .parse()
                    .ok()
                    .and_then(|index: usize| elements.get(index)),
                None => at.find(&step),
            };
            match next {
                Some(next) => at = next,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_that_would_keep_the_server_busy_is_refused() {
        use std::fmt::Write as _;
        let mut schema = r##"{"$ref":"#/$defs/z","$defs":{"##.to_owned();
        for n in 0..20_000 {
            let _ = write!(
                schema,
                r##""a{n}":{{"$ref":"#/$defs/a{}","t":{n}}},"##,
                n + 1
            );
        }
        schema.push_str(r#""z":{"type":"string"}}}"#);
        let node = crate::json::parse_text(&schema).unwrap();
        let mut findings = Findings::default();
        refuse_loops(&node, &Path::Root, &mut findings);
        let error = findings.check().unwrap_err();
        assert!(error.to_string().contains("too many references"), "{error}");
    }

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
