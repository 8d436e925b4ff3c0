//! Holds every answer that passes through the harness against the OpenAPI document: status, headers, content type,
//! body, and each event of a stream.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use jsonschema::{ValidationError, Validator, error::ValidationErrorKind};
use serde_json::{Value, json};

use crate::support::Answer;

/// Where the document's paths are mounted.
const BASES: [&str; 4] = [
    "/20231130/actions/v1",
    "/openai/v1",
    "/20231130/openai/v1",
    "/v1",
];

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_slice(&honshu_wire::openapi::document().unwrap()).unwrap());

/// Validators by the pointer of their schema: compiling one takes longer than all its uses.
static VALIDATORS: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);

pub(crate) fn document() -> &'static Value {
    &DOCUMENT
}

/// A path of the document as a request may write it, or `None` for paths of other planes.
pub(crate) fn below_base(path: &str) -> Option<&str> {
    BASES
        .iter()
        .find_map(|base| path.strip_prefix(base))
        .filter(|rest| rest.starts_with('/'))
        .or_else(|| {
            let is_at_root = ["/healthz", "/readyz", "/openapi.json"].contains(&path);
            is_at_root.then_some(path)
        })
}

/// The template that a path matches: words before parameters, and a model's name may hold slashes.
fn template(path: &str) -> Option<&'static str> {
    let paths = DOCUMENT["paths"].as_object().unwrap();
    if path.len() > "/models/".len() && path.starts_with("/models/") {
        return Some("/models/{id}");
    }
    let given: Vec<&str> = path[1..].split('/').collect();
    let mut found: Option<&str> = None;
    for template in paths.keys() {
        let parts: Vec<&str> = template[1..].split('/').collect();
        let is_match = parts.len() == given.len()
            && parts
                .iter()
                .zip(&given)
                .all(|(part, given)| part == given || (part.starts_with('{') && !given.is_empty()));
        if is_match && (found.is_none() || !template.contains('{')) {
            found = Some(template);
        }
    }
    found
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Follows references. Gives the pointer of what is there in the end.
fn resolve(mut pointer: String) -> String {
    while let Some(to) = DOCUMENT
        .pointer(&pointer)
        .and_then(|value| value.get("$ref"))
        .and_then(Value::as_str)
    {
        pointer = to.trim_start_matches('#').to_owned();
    }
    pointer
}

fn validator(pointer: &str) -> Arc<Validator> {
    let mut validators = VALIDATORS.lock().unwrap();
    if let Some(known) = validators.get(pointer) {
        return Arc::clone(known);
    }
    let mut schema = DOCUMENT.clone();
    schema["$ref"] = json!(format!("#{pointer}"));
    let made = Arc::new(jsonschema::draft202012::new(&schema).unwrap());
    validators.insert(pointer.to_owned(), Arc::clone(&made));
    made
}

/// The branch of a union that a value means by its `type`, so that a mistake is named in the words of that branch.
fn branch(pointer: String, value: &Value) -> String {
    let pointer = resolve(pointer);
    let Some(branches) = DOCUMENT
        .pointer(&format!("{pointer}/oneOf"))
        .and_then(Value::as_array)
    else {
        return pointer;
    };
    let meant = (0..branches.len())
        .map(|index| resolve(format!("{pointer}/oneOf/{index}")))
        .find(|branch| {
            let kind = DOCUMENT.pointer(&format!("{branch}/properties/type/const"));
            kind.is_some() && kind == value.get("type")
        });
    meant.unwrap_or(pointer)
}

/// Says what is wrong, for a union in the branch that fits best.
fn tell(error: &ValidationError<'_>, out: &mut Vec<String>) {
    if let ValidationErrorKind::OneOfNotValid { context } | ValidationErrorKind::AnyOf { context } =
        error.kind()
    {
        let at_type = |errors: &&Vec<ValidationError<'_>>| {
            errors
                .iter()
                .filter(|error| error.instance_path().to_string().ends_with("/type"))
                .count()
        };
        if let Some(best) = context.iter().min_by_key(at_type) {
            for error in best {
                tell(error, out);
            }
            return;
        }
    }
    out.push(format!("{}: {error}", error.instance_path()));
}

/// Panics if the value is not what the schema at `pointer` says.
pub(crate) fn hold(pointer: String, value: &Value, what: &str) {
    let pointer = branch(pointer, value);
    let validator = validator(&pointer);
    let mut problems = Vec::new();
    for error in validator.iter_errors(value) {
        tell(&error, &mut problems);
    }
    assert!(
        problems.is_empty(),
        "{what}: not what {pointer} says:\n{}\n{value:#}",
        problems.join("\n")
    );
}

/// Panics if an answer is not what the document says about its operation.
pub(crate) fn judge(method: &str, target: &str, answer: &Answer) {
    let path = target.split('?').next().unwrap();
    let Some(path) = below_base(path) else {
        return;
    };
    let status = answer.status.as_u16();
    let what = format!("{method} {target} {status}");
    let method = method.to_ascii_lowercase();
    let operation = template(path)
        .map(|template| format!("/paths/{}/{method}", escape(template)))
        .filter(|pointer| DOCUMENT.pointer(pointer).is_some());
    let Some(operation) = operation else {
        // Nobody promised anything there but a clean refusal.
        assert!(matches!(status, 404 | 405), "{what}: not in the document");
        if method != "head" {
            // In the shape of what the path looks like.
            let body = answer.json();
            let is_messages =
                body["type"] == "error" && path.trim_start_matches('/').starts_with("messages");
            let kind = if is_messages {
                "MessagesError"
            } else {
                "Error"
            };
            hold(
                format!("/components/responses/{kind}/content/application~1json/schema"),
                &body,
                &what,
            );
        }
        return;
    };
    let response = resolve(format!("{operation}/responses/{status}"));
    let described = DOCUMENT
        .pointer(&response)
        .unwrap_or_else(|| panic!("{what}: this status is not in the document"));
    headers(&response, described, answer, &what);
    let Some(content) = described.get("content") else {
        assert!(answer.body.is_empty(), "{what}: a body");
        return;
    };
    let media = answer.header("content-type").unwrap_or_default();
    let essence = media.split(';').next().unwrap();
    assert!(
        content.get(essence).is_some(),
        "{what}: `{media}` is not in the document"
    );
    let content = format!("{response}/content/{}", escape(essence));
    match essence {
        "application/json" => {
            // The OCI SDK gives up on any other text.
            assert_eq!(media, essence, "{what}");
            hold(format!("{content}/schema"), &answer.json(), &what);
        }
        "text/event-stream" => events(&format!("{content}/x-event-schema"), answer, &what),
        "text/plain" => hold(format!("{content}/schema"), &json!(answer.text()), &what),
        _ => {}
    }
}

fn headers(response: &str, described: &Value, answer: &Answer, what: &str) {
    let named = described.get("headers").and_then(Value::as_object);
    for name in named.into_iter().flat_map(|headers| headers.keys()) {
        let pointer = resolve(format!("{response}/headers/{name}"));
        match answer.header(name) {
            Some(value) => hold(format!("{pointer}/schema"), &json!(value), what),
            None => assert_ne!(
                DOCUMENT.pointer(&pointer).unwrap()["required"],
                json!(true),
                "{what}: no `{name}`"
            ),
        }
    }
}

/// Every event that came whole.
fn events(schema: &str, answer: &Answer, what: &str) {
    let text = answer.text();
    let mut is_done = false;
    let mut seen = 0;
    for frame in text.split_inclusive("\n\n") {
        let Some(frame) = frame.strip_suffix("\n\n") else {
            assert!(!answer.whole, "{what}: the end of an event is missing");
            break;
        };
        assert!(!is_done, "{what}: an event after the end");
        let (mut event, mut data) = (None, None);
        for line in frame.lines() {
            match line.split_once(": ") {
                Some(("event", value)) => event = Some(value),
                Some(("data", value)) => assert!(data.replace(value).is_none(), "{what}: {frame}"),
                _ => assert!(line.starts_with(':'), "{what}: `{line}`"),
            }
        }
        let Some(data) = data else { continue };
        seen += 1;
        if data == "[DONE]" {
            is_done = true;
            continue;
        }
        let data: Value =
            serde_json::from_str(data).unwrap_or_else(|error| panic!("{what}: {error}: {data}"));
        if let Some(event) = event {
            assert_eq!(data["type"], event, "{what}");
        }
        hold(schema.to_owned(), &data, what);
    }
    assert!(seen > 0 || !answer.whole, "{what}: an empty stream");
}
