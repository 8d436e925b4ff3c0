//! The options that Chat Completions and the old Completions spell alike.

use honshu_domain::{Demand, Sampling};

use crate::json::{Node, Path};
use crate::problems::{Findings, WRONG_VALUE};
use crate::sampling::OUTPUT_TOKENS_MAX;

/// Answers that one request may ask for (OpenAI API reference).
const CHOICES_MAX: i64 = 128;
const STOPS_MAX: usize = 4;
const STOP_BYTES_MAX: usize = 10_000;

/// What was read of them.
#[derive(Debug, Default)]
pub(crate) struct OptionsDraft {
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) obfuscates: bool,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) choices: Option<u32>,
    pub(crate) stop: Vec<String>,
}

/// Reads one top-level field; false if it is another one.
pub(crate) fn read_option(
    key: &str,
    node: &Node<'_>,
    path: &Path<'_>,
    draft: &mut OptionsDraft,
    sampling: &mut Sampling,
    findings: &mut Findings,
) -> bool {
    match key {
        "stream" => draft.stream = findings.boolean(node, path).unwrap_or_default(),
        "stream_options" => draft.stream_options(node, path, findings),
        "max_tokens" => draft.max_tokens = output_tokens(node, path, findings),
        "n" => {
            draft.choices = findings
                .integer(node, path, 1, CHOICES_MAX)
                .and_then(|n| u32::try_from(n).ok());
            if draft.choices.is_some_and(|n| n > 1) {
                findings.demand(Demand::Choices, path);
            }
        }
        "stop" => draft.stop(node, path, findings),
        "logit_bias" => logit_bias(node, path, sampling, findings),
        _ => return false,
    }
    true
}

impl OptionsDraft {
    fn stream_options(&mut self, node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
        for (key, value) in findings.object(node, path).unwrap_or_default() {
            let at = path.key(key);
            match key.as_ref() {
                "include_usage" => {
                    self.include_usage = findings.boolean(value, &at).unwrap_or_default();
                }
                "include_obfuscation" => {
                    self.obfuscates = findings.boolean(value, &at).unwrap_or_default();
                }
                _ => findings.hint(&at, value),
            }
        }
    }

    fn stop(&mut self, node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
        let mut take = |node: &Node<'_>, path: &Path<'_>, findings: &mut Findings| {
            let Some(text) = node.as_str() else {
                findings.expected(node, path, "a string");
                return;
            };
            if text.len() > STOP_BYTES_MAX {
                let what = format!("at most {STOP_BYTES_MAX} bytes");
                findings.problem(path, WRONG_VALUE, what);
            } else if text.is_empty() {
                // An empty text stands everywhere; nobody can mean that.
                findings.hint_text(path.to_string());
            } else {
                self.stop.push(text.to_owned());
            }
        };
        if let Some(nodes) = node.as_array() {
            if nodes.len() > STOPS_MAX {
                let what = format!("at most {STOPS_MAX} texts, got {}", nodes.len());
                findings.problem(path, WRONG_VALUE, what);
            }
            for (index, node) in nodes.iter().enumerate().take(STOPS_MAX) {
                take(node, &path.index(index), findings);
            }
        } else if node.as_str().is_some() {
            take(node, path, findings);
        } else if !node.is_null() {
            findings.expected(node, path, "a string or an array of strings");
        }
    }
}

fn logit_bias(node: &Node<'_>, path: &Path<'_>, sampling: &mut Sampling, findings: &mut Findings) {
    for (key, value) in findings.object(node, path).unwrap_or_default() {
        let at = path.key(key);
        let bias = findings.number(value, &at, -100.0, 100.0);
        match (key.parse::<u32>(), bias) {
            (Ok(token), Some(bias)) => sampling.logit_bias.push((token, bias)),
            (Err(_), _) => findings.problem(&at, WRONG_VALUE, "keys must be token ids"),
            (Ok(_), None) if value.is_null() => findings.expected(value, &at, "a number"),
            (Ok(_), None) => {}
        }
    }
    if !sampling.logit_bias.is_empty() {
        findings.demand(Demand::LogitBias, path);
    }
}

pub(super) fn output_tokens(
    node: &Node<'_>,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<u32> {
    findings
        .integer(node, path, 1, OUTPUT_TOKENS_MAX)
        .and_then(|n| u32::try_from(n).ok())
}
