//! Reading a request without giving up at the first mistake: every problem is kept with its path, and so is
//! every field that we accept and do not act upon.

use honshu_domain::{Demand, Error, Problem, RawJson};

use crate::json::{Fault, Kind, Node, Path};

/// Problems named in one answer. Enough to mend a request, few enough for a line of a log.
const PROBLEMS_MAX: usize = 32;

/// Hints named for one request: they travel in a response header.
pub(crate) const HINTS_MAX: usize = 64;

/// Tools in one request: eight times what OpenAI takes. Each costs a place in the prompt, and a choice among all of
/// them is compiled into one form.
const TOOLS_MAX: usize = 1_024;

pub(crate) const MISSING: &str = "missing_required_parameter";
pub(crate) const WRONG_TYPE: &str = "invalid_type";
pub(crate) const WRONG_VALUE: &str = "invalid_value";
pub(crate) const UNSUPPORTED: &str = "unsupported_value";

/// What was found while a request was read.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    problems: Vec<Problem>,
    code: Option<&'static str>,
    pub(crate) hints: Vec<String>,
    pub(crate) demands: Vec<(Demand, String)>,
    /// Paths of function results whose call was not seen; whether that is a problem shows at the end.
    pub(crate) orphans: Vec<String>,
}

impl Findings {
    /// Notes a problem. The first one's code becomes the answer's.
    #[cold]
    pub(crate) fn problem(&mut self, path: &Path<'_>, code: &'static str, what: impl Into<String>) {
        self.problem_at(path.to_string(), code, what);
    }

    /// [`Self::problem`] with a path that is already text.
    #[cold]
    pub(crate) fn problem_at(&mut self, path: String, code: &'static str, what: impl Into<String>) {
        if self.code.is_none() {
            self.code = Some(code);
        }
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem {
                path,
                message: what.into(),
            });
        }
    }

    #[cold]
    fn wrong_type(&mut self, path: &Path<'_>, expected: &str, node: &Node<'_>) {
        self.problem(
            path,
            WRONG_TYPE,
            format!("expected {expected}, got {}", node.kind_name()),
        );
    }

    /// Notes a field that is accepted and not acted upon. `null` asks for nothing and is not named.
    pub(crate) fn hint(&mut self, path: &Path<'_>, node: &Node<'_>) {
        if !node.is_null() {
            self.hint_text(path.general());
        }
    }

    /// [`Self::hint`] with the exact path, for elements that differ from their neighbours.
    pub(crate) fn hint_text(&mut self, path: String) {
        if self.hints.len() < HINTS_MAX && !self.hints.contains(&path) {
            self.hints.push(path);
        }
    }

    /// Notes a demand, once for each kind: the first place is the one that a message names.
    pub(crate) fn demand(&mut self, demand: Demand, path: &Path<'_>) {
        if !self.demands.iter().any(|(known, _)| *known == demand) {
            self.demands.push((demand, path.to_string()));
        }
    }

    /// The tools of a request, not too many of them.
    pub(crate) fn tools<'n, 'a>(&mut self, node: &'n Node<'a>, path: &Path<'_>) -> &'n [Node<'a>] {
        let tools = self.array(node, path).unwrap_or_default();
        if tools.len() > TOOLS_MAX {
            let what = format!("at most {TOOLS_MAX} tools, got {}", tools.len());
            self.problem(path, WRONG_VALUE, what);
            return &[];
        }
        tools
    }

    /// The error with all problems, if there are any.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        if self.problems.is_empty() {
            return Ok(());
        }
        let error = Error::invalid(std::mem::take(&mut self.problems));
        Err(match self.code {
            Some(code) => error.with_code(code),
            None => error,
        })
    }

    pub(crate) fn string<'n>(&mut self, node: &'n Node<'_>, path: &Path<'_>) -> Option<&'n str> {
        let text = node.as_str();
        if text.is_none() && !node.is_null() {
            self.wrong_type(path, "a string", node);
        }
        text
    }

    /// A string that has to be there; `null` is as wrong as a number.
    pub(crate) fn required_string<'n>(
        &mut self,
        owner: &'n Node<'_>,
        key: &str,
        path: &Path<'_>,
    ) -> Option<&'n str> {
        match owner.find(key) {
            Some(node) => self.string(node, &path.key(key)),
            None => {
                self.missing(&path.key(key));
                None
            }
        }
    }

    #[cold]
    pub(crate) fn missing(&mut self, path: &Path<'_>) {
        self.problem(path, MISSING, "required and missing");
    }

    pub(crate) fn boolean(&mut self, node: &Node<'_>, path: &Path<'_>) -> Option<bool> {
        let value = node.as_bool();
        if value.is_none() && !node.is_null() {
            self.wrong_type(path, "a boolean", node);
        }
        value
    }

    pub(crate) fn array<'n, 'a>(
        &mut self,
        node: &'n Node<'a>,
        path: &Path<'_>,
    ) -> Option<&'n [Node<'a>]> {
        let list = node.as_array();
        if list.is_none() && !node.is_null() {
            self.wrong_type(path, "an array", node);
        }
        list
    }

    pub(crate) fn object<'n, 'a>(
        &mut self,
        node: &'n Node<'a>,
        path: &Path<'_>,
    ) -> Option<&'n [(std::borrow::Cow<'a, str>, Node<'a>)]> {
        let members = node.as_object();
        if members.is_none() && !node.is_null() {
            self.wrong_type(path, "an object", node);
        }
        members
    }

    #[cold]
    pub(crate) fn expected(&mut self, node: &Node<'_>, path: &Path<'_>, what: &str) {
        self.wrong_type(path, what, node);
    }

    /// A whole number from `min` to `max`.
    pub(crate) fn integer(
        &mut self,
        node: &Node<'_>,
        path: &Path<'_>,
        min: i64,
        max: i64,
    ) -> Option<i64> {
        match node.kind {
            Kind::Null => None,
            Kind::Number => match node.as_i64() {
                Some(value) if (min..=max).contains(&value) => Some(value),
                _ => {
                    self.problem(
                        path,
                        WRONG_VALUE,
                        format!(
                            "expected a whole number from {min} to {max}, got {}",
                            shown(node)
                        ),
                    );
                    None
                }
            },
            _ => {
                self.wrong_type(path, &format!("a whole number from {min} to {max}"), node);
                None
            }
        }
    }

    /// A number from `min` to `max`.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "ranges are small and sampling works in single precision"
    )]
    pub(crate) fn number(
        &mut self,
        node: &Node<'_>,
        path: &Path<'_>,
        min: f64,
        max: f64,
    ) -> Option<f32> {
        match node.kind {
            Kind::Null => None,
            Kind::Number => match node.as_f64() {
                Some(value) if (min..=max).contains(&value) => Some(value as f32),
                _ => {
                    self.problem(
                        path,
                        WRONG_VALUE,
                        format!("expected a number from {min} to {max}, got {}", shown(node)),
                    );
                    None
                }
            },
            _ => {
                self.wrong_type(path, &format!("a number from {min} to {max}"), node);
                None
            }
        }
    }

    /// One of a few words.
    pub(crate) fn one_of<'n>(
        &mut self,
        node: &'n Node<'_>,
        path: &Path<'_>,
        words: &[&str],
    ) -> Option<&'n str> {
        let word = self.string(node, path)?;
        if words.contains(&word) {
            return Some(word);
        }
        self.problem(
            path,
            WRONG_VALUE,
            format!("expected one of `{}`", words.join("`, `")),
        );
        None
    }
}

/// A number as it came, cut where it is absurdly long.
fn shown(node: &Node<'_>) -> String {
    if node.raw.len() <= 32 {
        format!("`{}`", node.raw)
    } else {
        format!("`{}...`", &node.raw[..32])
    }
}

/// Keeps a value as its text.
pub(crate) fn raw(node: &Node<'_>) -> Option<RawJson> {
    // The text was checked when the node was made, by rules that are stricter than these.
    RawJson::parse(node.raw).ok()
}

/// A body that is not acceptable JSON, as the caller reads it.
#[cold]
pub(crate) fn syntax_error(fault: &Fault) -> Error {
    Error::invalid_at(
        fault.path(),
        format!(
            "the body is not acceptable JSON: {} at byte {}",
            fault.what, fault.at
        ),
    )
}

/// Reads a body and insists on an object.
pub(crate) fn body(bytes: &[u8]) -> Result<Node<'_>, Error> {
    if bytes.is_empty() {
        return Err(Error::invalid_at(
            "",
            "the body is empty; expected a JSON object",
        ));
    }
    let node = crate::json::parse(bytes).map_err(|fault| syntax_error(&fault))?;
    if node.as_object().is_none() {
        return Err(Error::invalid_at(
            "",
            format!("the body must be a JSON object, not {}", node.kind_name()),
        )
        .with_code(WRONG_TYPE));
    }
    Ok(node)
}
