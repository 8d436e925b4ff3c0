//! Reads request bodies: every problem at once, each with its JSON path.
//!
//! Serde's derived readers stop at the first problem and let a repeated key win in silence. Both are
//! wrong for a management API, where the reader is a person with an editor.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use honshu_domain::{Error, Problem, Result, Timestamp};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::tags::{DefinedTags, FreeformTags};

/// Deepest nesting of objects and arrays in a body. No body of these planes needs more than five levels;
/// the bound keeps the reader's stack small.
pub const BODY_DEPTH_MAX: usize = 64;

/// Most problems that one answer lists. After that many, the reader fixes and asks again.
const PROBLEMS_MAX: usize = 50;

/// A request body that is read field by field.
pub trait Details: Sized {
    /// Takes the fields it knows. Problems go to `fields`; the value is used only if there were none, so
    /// a missing required field may be filled with anything.
    fn read(fields: &mut Fields<'_>) -> Self;
}

/// Reads a whole request body.
///
/// # Errors
/// An `Invalid` domain error that lists every problem: bad UTF-8, bad JSON, repeated keys, missing
/// fields, wrong types.
pub fn parse<T: Details>(body: &[u8]) -> Result<T> {
    let text = std::str::from_utf8(body).map_err(|error| {
        Error::invalid_at(
            "",
            format!("the body is not UTF-8 at byte {}", error.valid_up_to()),
        )
    })?;
    if text.trim().is_empty() {
        return Err(Error::invalid_at(
            "",
            "the body is empty, a JSON object is expected",
        ));
    }
    let problems = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Seed {
        path: String::new(),
        depth: 0,
        problems: &problems,
    }
    .deserialize(&mut deserializer)
    .and_then(|value| deserializer.end().map(|()| value))
    .map_err(|error| Error::invalid_at("", format!("the body is not JSON: {error}")))?;
    let Value::Object(map) = value else {
        return Err(Error::invalid_at("", "a JSON object is expected"));
    };
    let details = {
        let mut fields = Fields {
            map: &map,
            path: String::new(),
            problems: &problems,
        };
        T::read(&mut fields)
    };
    let mut problems = problems.into_inner();
    if problems.is_empty() {
        Ok(details)
    } else {
        problems.truncate(PROBLEMS_MAX);
        Err(Error::invalid(problems))
    }
}

/// The fields of one JSON object of a body.
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
    problems: &'a RefCell<Vec<Problem>>,
}

impl Fields<'_> {
    /// Notes a problem with the field `name`.
    pub fn problem(&self, name: &str, message: impl Into<String>) {
        push(self.problems, self.path_of(name), message.into());
    }

    fn path_of(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// A field that is there and not null.
    fn present(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// A text that may be absent or null.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.present(name)? {
            Value::String(text) => Some(text.clone()),
            other => {
                self.problem(name, format!("a text is expected, not {}", kind_of(other)));
                None
            }
        }
    }

    /// A truth value that may be absent or null.
    pub fn flag(&self, name: &str) -> Option<bool> {
        match self.present(name)? {
            Value::Bool(flag) => Some(*flag),
            other => {
                self.problem(
                    name,
                    format!("true or false is expected, not {}", kind_of(other)),
                );
                None
            }
        }
    }

    /// A text that must be there.
    pub fn required_text(&self, name: &str) -> String {
        if self.present(name).is_none() {
            self.problem(name, "is required");
        }
        self.text(name).unwrap_or_default()
    }

    /// An RFC 3339 time that may be absent or null.
    pub fn time(&self, name: &str) -> Option<Timestamp> {
        let text = self.text(name)?;
        let time = Timestamp::parse_rfc3339(&text);
        if time.is_none() {
            self.problem(
                name,
                "is not an RFC 3339 time such as `2027-02-20T12:00:00Z`",
            );
        }
        time
    }

    /// A list of texts that may be absent or null.
    pub fn texts(&self, name: &str) -> Option<Vec<String>> {
        let Value::Array(values) = self.present(name)? else {
            self.problem(name, "a list of texts is expected");
            return None;
        };
        let mut texts = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            match value {
                Value::String(text) => texts.push(text.clone()),
                other => self.problem(
                    &format!("{name}[{index}]"),
                    format!("a text is expected, not {}", kind_of(other)),
                ),
            }
        }
        Some(texts)
    }

    /// An object that must be there.
    pub fn required_object<T: Details>(&self, name: &str) -> Option<T> {
        match self.present(name) {
            None => {
                self.problem(name, "is required");
                None
            }
            Some(Value::Object(map)) => {
                let mut fields = Fields {
                    map,
                    path: self.path_of(name),
                    problems: self.problems,
                };
                Some(T::read(&mut fields))
            }
            Some(other) => {
                self.problem(
                    name,
                    format!("an object is expected, not {}", kind_of(other)),
                );
                None
            }
        }
    }

    /// A list of objects that must be there.
    pub fn required_objects<T: Details>(&self, name: &str) -> Vec<T> {
        let values = match self.present(name) {
            None => {
                self.problem(name, "is required");
                return Vec::new();
            }
            Some(Value::Array(values)) => values,
            Some(other) => {
                self.problem(name, format!("a list is expected, not {}", kind_of(other)));
                return Vec::new();
            }
        };
        let mut items = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            let place = format!("{name}[{index}]");
            match value {
                Value::Object(map) => {
                    let mut fields = Fields {
                        map,
                        path: self.path_of(&place),
                        problems: self.problems,
                    };
                    items.push(T::read(&mut fields));
                }
                other => {
                    self.problem(
                        &place,
                        format!("an object is expected, not {}", kind_of(other)),
                    );
                }
            }
        }
        items
    }

    /// `freeformTags`, where given.
    pub fn freeform_tags(&self) -> Option<FreeformTags> {
        let Value::Object(map) = self.present("freeformTags")? else {
            self.problem("freeformTags", "an object of texts is expected");
            return None;
        };
        let mut tags = BTreeMap::new();
        for (key, value) in map {
            match value {
                Value::String(text) => {
                    tags.insert(key.clone(), text.clone());
                }
                other => self.problem(
                    &join("freeformTags", key),
                    format!("a text is expected, not {}", kind_of(other)),
                ),
            }
        }
        Some(tags)
    }

    /// `definedTags`, where given.
    pub fn defined_tags(&self) -> Option<DefinedTags> {
        let Value::Object(map) = self.present("definedTags")? else {
            self.problem("definedTags", "an object of objects is expected");
            return None;
        };
        let mut tags = BTreeMap::new();
        for (namespace, values) in map {
            match values {
                Value::Object(values) => {
                    tags.insert(
                        namespace.clone(),
                        values
                            .iter()
                            .map(|(key, value)| (key.clone(), value.clone()))
                            .collect(),
                    );
                }
                other => self.problem(
                    &join("definedTags", namespace),
                    format!("an object is expected, not {}", kind_of(other)),
                ),
            }
        }
        Some(tags)
    }
}

fn push(problems: &RefCell<Vec<Problem>>, path: String, message: String) {
    let mut problems = problems.borrow_mut();
    if problems.len() < PROBLEMS_MAX {
        problems.push(Problem { path, message });
    }
}

fn join(path: &str, name: &str) -> String {
    // Keys come from the caller: what an answer repeats of them is bounded.
    let name: String = name.chars().take(80).collect();
    if path.is_empty() {
        name
    } else {
        format!("{path}.{name}")
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Builds a [`Value`], noting repeated keys and refusing what is nested too deeply.
struct Seed<'a> {
    path: String,
    depth: usize,
    problems: &'a RefCell<Vec<Problem>>,
}

impl Seed<'_> {
    fn inner<E: de::Error>(&self, path: String) -> std::result::Result<Seed<'_>, E> {
        if self.depth >= BODY_DEPTH_MAX {
            return Err(E::custom(format!(
                "nested deeper than {BODY_DEPTH_MAX} levels"
            )));
        }
        Ok(Seed {
            path,
            depth: self.depth + 1,
            problems: self.problems,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> std::result::Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) =
            list.next_element_seed(self.inner(format!("{}[{}]", self.path, values.len()))?)?
        {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> std::result::Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = object.next_key::<String>()? {
            let path = join(&self.path, &key);
            let value = object.next_value_seed(self.inner(path.clone())?)?;
            if map.insert(key, value).is_some() {
                push(self.problems, path, "stands more than once".to_owned());
            }
        }
        Ok(Value::Object(map))
    }
}
