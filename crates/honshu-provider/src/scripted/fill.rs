//! A JSON value that satisfies a schema, always the same one.
//!
//! Understands what OpenAI's strict schemas and agents' tools use: types, `enum`, `const`, objects, arrays,
//! bounds, formats, `anyOf`, `oneOf`, `allOf` and local references. Patterns are not solved. Every declared
//! property is filled; a schema that refers to itself stops with the required ones.

use serde_json::{Map, Value, json};

/// Below this depth only what is required is filled.
const DEPTH_WITH_OPTIONALS: usize = 6;
/// Below this depth nothing is.
const DEPTH_MAX: usize = 32;
/// The most items or characters that a lower bound can make us write.
const COUNT_MAX: u64 = 1_000;

/// Fills `schema`; `key` is the name that the value will stand under.
pub(super) fn fill(schema: &Value, key: &str) -> Value {
    Filler { root: schema }.value(schema, key, 0)
}

struct Filler<'a> {
    root: &'a Value,
}

impl Filler<'_> {
    fn value(&self, schema: &Value, key: &str, depth: usize) -> Value {
        if depth > DEPTH_MAX {
            return Value::Null;
        }
        let Some(object) = schema.as_object() else {
            // `true` allows anything.
            return json!(text_for(key));
        };
        if let Some(value) = object.get("const") {
            return value.clone();
        }
        if let Some(first) = object
            .get("enum")
            .and_then(Value::as_array)
            .and_then(|all| all.first())
        {
            return first.clone();
        }
        if let Some(target) = object
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|path| self.resolve(path))
        {
            return self.value(target, key, depth + 1);
        }
        if let Some(parts) = object.get("allOf").and_then(Value::as_array) {
            return self.value(&self.merged(object, parts), key, depth + 1);
        }
        for choice in ["anyOf", "oneOf"] {
            if let Some(options) = object.get(choice).and_then(Value::as_array)
                && let Some(option) = self.best_of(options, depth)
            {
                return self.value(option, key, depth + 1);
            }
        }
        match type_of(object) {
            "object" => self.object(object, depth),
            "array" => self.array(object, key, depth),
            "integer" => json!(number(object, true) as i64),
            "number" => json!(number(object, false)),
            "boolean" => json!(true),
            "null" => Value::Null,
            _ => json!(string(object, key)),
        }
    }

    fn resolve(&self, path: &str) -> Option<&Value> {
        let pointer = path.strip_prefix('#')?;
        if pointer.is_empty() {
            Some(self.root)
        } else {
            self.root.pointer(pointer)
        }
    }

    /// Deep inside, the option that ends soonest: one that is neither object, array nor reference.
    fn best_of<'a>(&self, options: &'a [Value], depth: usize) -> Option<&'a Value> {
        let is_leaf = |option: &&Value| {
            option.as_object().is_some_and(|object| {
                !object.contains_key("$ref") && !matches!(type_of(object), "object" | "array")
            })
        };
        if depth >= DEPTH_WITH_OPTIONALS {
            options.iter().find(is_leaf).or_else(|| options.first())
        } else {
            options
                .iter()
                .find(|option| option["type"] != "null")
                .or_else(|| options.first())
        }
    }

    fn merged(&self, object: &Map<String, Value>, parts: &[Value]) -> Value {
        let mut all = object.clone();
        all.remove("allOf");
        for part in parts {
            let part = part
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|path| self.resolve(path))
                .unwrap_or(part);
            for (name, value) in part.as_object().into_iter().flatten() {
                match (all.get_mut(name), value) {
                    (Some(Value::Object(ours)), Value::Object(theirs)) => {
                        ours.extend(theirs.clone());
                    }
                    (Some(Value::Array(ours)), Value::Array(theirs)) => {
                        ours.extend(theirs.iter().cloned());
                    }
                    _ => {
                        all.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        Value::Object(all)
    }

    fn object(&self, schema: &Map<String, Value>, depth: usize) -> Value {
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let properties = schema.get("properties").and_then(Value::as_object);
        let mut filled = Map::new();
        for (name, property) in properties.into_iter().flatten() {
            if depth < DEPTH_WITH_OPTIONALS || required.contains(&name.as_str()) {
                filled.insert(name.clone(), self.value(property, name, depth + 1));
            }
        }
        for name in required {
            if !filled.contains_key(name) {
                let other = schema
                    .get("additionalProperties")
                    .unwrap_or(&Value::Bool(true));
                filled.insert(name.to_owned(), self.value(other, name, depth + 1));
            }
        }
        Value::Object(filled)
    }

    fn array(&self, schema: &Map<String, Value>, key: &str, depth: usize) -> Value {
        let least = bound(schema, "minItems").unwrap_or(0);
        let most = bound(schema, "maxItems").unwrap_or(u64::MAX);
        let wanted = if depth < DEPTH_WITH_OPTIONALS { 1 } else { 0 };
        let count = wanted.max(least).min(most).min(COUNT_MAX);
        let prefix = schema.get("prefixItems").and_then(Value::as_array);
        let items = schema.get("items").unwrap_or(&Value::Bool(true));
        (0..count)
            .map(|index| {
                let own = usize::try_from(index)
                    .ok()
                    .and_then(|index| prefix?.get(index));
                let value = self.value(own.unwrap_or(items), key, depth + 1);
                match (value, schema.get("uniqueItems") == Some(&Value::Bool(true))) {
                    (Value::String(text), true) if index > 0 => json!(format!("{text} {index}")),
                    (Value::Number(number), true) => {
                        json!(number.as_i64().unwrap_or(0).saturating_add_unsigned(index))
                    }
                    (value, _) => value,
                }
            })
            .collect()
    }
}

fn type_of(schema: &Map<String, Value>) -> &str {
    match schema.get("type") {
        Some(Value::String(word)) => word,
        Some(Value::Array(words)) => words
            .iter()
            .filter_map(Value::as_str)
            .find(|word| *word != "null")
            .unwrap_or("null"),
        _ if schema.contains_key("properties") || schema.contains_key("required") => "object",
        _ if schema.contains_key("items") || schema.contains_key("prefixItems") => "array",
        _ if schema.contains_key("minimum") || schema.contains_key("maximum") => "number",
        _ => "string",
    }
}

fn bound(schema: &Map<String, Value>, name: &str) -> Option<u64> {
    schema.get(name).and_then(Value::as_u64)
}

fn number(schema: &Map<String, Value>, whole: bool) -> f64 {
    let limit = |name: &str| schema.get(name).and_then(Value::as_f64);
    let least = limit("minimum");
    let above = limit("exclusiveMinimum");
    let most = limit("maximum");
    let below = limit("exclusiveMaximum");
    let step = limit("multipleOf")
        .filter(|step| *step > 0.0)
        .unwrap_or(1.0);
    let floor = match (least, above) {
        (Some(least), Some(above)) => Some(least.max(above)),
        (least, above) => least.or(above),
    };
    let fits = |value: f64| {
        least.is_none_or(|least| value >= least)
            && above.is_none_or(|above| value > above)
            && most.is_none_or(|most| value <= most)
            && below.is_none_or(|below| value < below)
    };
    let mut value = match floor {
        Some(floor) => (floor / step).ceil() * step,
        None => match most.or(below) {
            Some(ceiling) if ceiling < step => (ceiling / step).floor() * step,
            _ => step,
        },
    };
    if !fits(value) {
        value += if floor.is_some() { step } else { -step };
    }
    if !fits(value) && !whole {
        // Between two bounds that are closer than one step.
        if let (Some(low), Some(high)) = (floor, most.or(below)) {
            value = low + (high - low) / 2.0;
        }
    }
    value
}

fn string(schema: &Map<String, Value>, key: &str) -> String {
    let text = match schema.get("format").and_then(Value::as_str) {
        Some("date-time") => "2026-01-23T09:30:00Z".to_owned(),
        Some("date") => "2026-01-23".to_owned(),
        Some("time") => "09:30:00Z".to_owned(),
        Some("duration") => "PT1H".to_owned(),
        Some("email" | "idn-email") => "honshu@example.com".to_owned(),
        Some("uri" | "url" | "iri") => "https://example.com/".to_owned(),
        Some("uuid") => "00000000-0000-4000-8000-000000000000".to_owned(),
        Some("hostname") => "example.com".to_owned(),
        Some("ipv4") => "192.0.2.1".to_owned(),
        Some("ipv6") => "2001:db8::1".to_owned(),
        _ => text_for(key),
    };
    let least = bound(schema, "minLength").unwrap_or(0).min(COUNT_MAX);
    let most = bound(schema, "maxLength").unwrap_or(u64::MAX);
    let length = text.chars().count() as u64;
    if length > most {
        text.chars()
            .take(usize::try_from(most).unwrap_or(usize::MAX))
            .collect()
    } else if length < least {
        let missing = usize::try_from(least - length).unwrap_or_default();
        text + &"x".repeat(missing)
    } else {
        text
    }
}

fn text_for(key: &str) -> String {
    if key.is_empty() {
        "text".to_owned()
    } else {
        key.to_owned()
    }
}
