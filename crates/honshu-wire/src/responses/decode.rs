//! An upstream's Responses answer as events, for callers of another dialect.

use honshu_domain::{
    Error, ErrorKind, Finish, FinishReason, Item, Origin, PartKind, RunEvent, Usage,
};

use super::items;
use crate::assembly::replay;
use crate::error::from_frame;
use crate::json::{self, Node, Path};
use crate::problems::Findings;

/// Turns the answer of an upstream that speaks Responses into events. Event types that it does not know are
/// passed over: their content comes again in the whole item.
#[derive(Debug, Default)]
pub struct UpstreamDecoder {
    started: bool,
    finished: bool,
    calls: bool,
}

impl UpstreamDecoder {
    /// A decoder for one answer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the data of one SSE event (`[DONE]` included).
    ///
    /// # Errors
    /// The upstream's own error, or `Upstream` for data that is not a JSON object.
    pub fn frame(&mut self, data: &[u8], out: &mut Vec<RunEvent>) -> Result<(), Error> {
        if self.finished || data.trim_ascii() == b"[DONE]" {
            return Ok(());
        }
        let node = json::parse(data).map_err(|_| nonsense())?;
        if node.as_object().is_none() {
            return Err(nonsense());
        }
        if node.find("error").is_some() {
            return Err(from_frame(&node));
        }
        self.start(&node, out);
        let output_index = index(&node, "output_index");
        let text = |key: &str| node.find_str(key).unwrap_or_default().to_owned();
        match node.find_str("type").unwrap_or_default() {
            "error" => return Err(from_frame(&node)),
            "response.output_item.added" => {
                if let Some(item) = item(node.find("item")) {
                    out.push(RunEvent::ItemStarted {
                        output_index,
                        choice: 0,
                        item,
                    });
                }
            }
            "response.output_item.done" => {
                if let Some(item) = item(node.find("item")) {
                    self.calls |= item.call_id().is_some();
                    out.push(RunEvent::ItemDone { output_index, item });
                }
            }
            "response.content_part.added" | "response.reasoning_summary_part.added" => {
                if let Some((part_index, kind)) = part(&node) {
                    out.push(RunEvent::PartStarted {
                        output_index,
                        part_index,
                        kind,
                    });
                }
            }
            "response.content_part.done" | "response.reasoning_summary_part.done" => {
                if let Some((part_index, kind)) = part(&node) {
                    out.push(RunEvent::PartDone {
                        output_index,
                        part_index,
                        kind,
                    });
                }
            }
            "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta" => {
                out.push(RunEvent::ArgumentsDelta {
                    output_index,
                    delta: text("delta"),
                })
            }
            "response.completed" | "response.incomplete" | "response.failed" => {
                let response = node.find("response").ok_or_else(nonsense)?;
                self.finish(response, out)?;
            }
            other => {
                if let Some((kind, list)) = delta_kind(other) {
                    out.push(RunEvent::Delta {
                        output_index,
                        part_index: index(&node, list),
                        kind,
                        text: text("delta"),
                        logprobs: node
                            .find("logprobs")
                            .map(items::read_logprobs)
                            .unwrap_or_default(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Takes the whole body of an answer that was not streamed, up to and with `Finished`.
    ///
    /// # Errors
    /// As [`Self::frame`].
    pub fn whole(&mut self, body: &[u8], out: &mut Vec<RunEvent>) -> Result<(), Error> {
        let node = json::parse(body).map_err(|_| nonsense())?;
        if node.as_object().is_none() {
            return Err(nonsense());
        }
        self.start(&node, out);
        let output = node
            .find("output")
            .and_then(Node::as_array)
            .unwrap_or_default();
        for (output_index, node) in (0..).zip(output) {
            if let Some(item) = item(Some(node)) {
                self.calls |= item.call_id().is_some();
                replay(item, output_index, 0, out);
            }
        }
        self.finish(&node, out)
    }

    /// The upstream closed the stream.
    ///
    /// # Errors
    /// `Upstream` if it had not said that the answer is whole.
    pub fn end(&mut self, _out: &mut Vec<RunEvent>) -> Result<(), Error> {
        if self.finished { Ok(()) } else { Err(cut()) }
    }

    /// True once `Finished` was given out.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    fn start(&mut self, node: &Node<'_>, out: &mut Vec<RunEvent>) {
        if !std::mem::replace(&mut self.started, true) {
            let response = node.find("response").unwrap_or(node);
            out.push(RunEvent::Started {
                upstream_request_id: response.find_str("id").map(Into::into),
                input_tokens: None,
            });
        }
    }

    fn finish(&mut self, response: &Node<'_>, out: &mut Vec<RunEvent>) -> Result<(), Error> {
        let reason = match response.find_str("status") {
            Some("completed") if self.calls => FinishReason::ToolCalls,
            Some("completed") => FinishReason::Stop,
            Some("incomplete") => incomplete_reason(
                response
                    .find("incomplete_details")
                    .and_then(|details| details.find_str("reason")),
            ),
            Some("failed") => return Err(from_frame(response)),
            _ => return Err(nonsense()),
        };
        self.finished = true;
        out.push(RunEvent::Finished(Finish {
            reason,
            usage: response.find("usage").map(read_usage),
            stop_text: None,
        }));
        Ok(())
    }
}

/// Why an incomplete response ended.
pub(crate) fn incomplete_reason(reason: Option<&str>) -> FinishReason {
    match reason {
        Some("content_filter") => FinishReason::ContentFilter,
        _ => FinishReason::Length,
    }
}

/// Reads a usage object of this dialect.
pub(crate) fn read_usage(node: &Node<'_>) -> Usage {
    let count = |node: Option<&Node<'_>>| node.map_or(0, Node::count);
    let input = node.find("input_tokens_details");
    let output = node.find("output_tokens_details");
    Usage {
        input_tokens: count(node.find("input_tokens")),
        cached_input_tokens: count(input.and_then(|details| details.find("cached_tokens"))),
        cache_write_tokens: count(input.and_then(|details| details.find("cache_write_tokens"))),
        output_tokens: count(node.find("output_tokens")),
        reasoning_tokens: count(output.and_then(|details| details.find("reasoning_tokens"))),
    }
}

fn item(node: Option<&Node<'_>>) -> Option<Item> {
    // What an upstream leaves out of an item is no reason to fail a run.
    items::read(node?, &Path::Root, &mut Findings::default())
}

fn index(node: &Node<'_>, key: &str) -> u32 {
    node.find(key)
        .and_then(|index| u32::try_from(index.count()).ok())
        .unwrap_or_default()
}

fn part(node: &Node<'_>) -> Option<(u32, PartKind)> {
    let kind = match node.find("part")?.find_str("type")? {
        "output_text" | "text" => PartKind::Text,
        "refusal" => PartKind::Refusal,
        "reasoning_text" => PartKind::ReasoningText,
        "summary_text" => return Some((index(node, "summary_index"), PartKind::ReasoningSummary)),
        _ => return None,
    };
    Some((index(node, "content_index"), kind))
}

fn delta_kind(event: &str) -> Option<(PartKind, &'static str)> {
    Some(match event {
        "response.output_text.delta" => (PartKind::Text, "content_index"),
        "response.refusal.delta" => (PartKind::Refusal, "content_index"),
        // The second name is Open Responses'.
        "response.reasoning_text.delta" | "response.reasoning.delta" => {
            (PartKind::ReasoningText, "content_index")
        }
        "response.reasoning_summary_text.delta" => (PartKind::ReasoningSummary, "summary_index"),
        _ => return None,
    })
}

/// An answer that is not in the dialect.
pub(crate) fn nonsense() -> Error {
    Error::new(
        ErrorKind::Upstream,
        "the upstream of this model gave an answer that makes no sense",
    )
    .with_origin(Origin::Upstream)
}

/// A stream that ended before its answer did.
pub(crate) fn cut() -> Error {
    Error::new(
        ErrorKind::Upstream,
        "the upstream of this model broke off before the end of its answer",
    )
    .with_origin(Origin::Upstream)
}
