//! A Chat request for an upstream of this dialect when the caller spoke another.

use bytes::{Bytes, BytesMut};
use honshu_domain::{
    InferenceRequest, Item, Message, Part, Reasoning, Role, TextFormat, Tool, ToolChoice,
    wrapped_input,
};

use crate::json::{put, put_bool, put_f32, put_str, put_uint};
use crate::responses::items::detail_word;

/// The body for an upstream that speaks Chat Completions, when the caller did not. Items and tools that only
/// the caller's dialect knows are left out: demands for them were refused before.
///
/// Custom tools are shown as functions with one text: of the servers that speak this dialect and no other hardly any
/// knows the former. [`UpstreamDecoder::with_custom_tools`](super::UpstreamDecoder::with_custom_tools) makes their
/// calls custom ones again.
pub fn build_request(request: &InferenceRequest, upstream: &str, stream: bool) -> Bytes {
    let mut body = BytesMut::with_capacity(request.raw.len() + 256);
    let out = &mut body;
    put(out, "{\"model\":");
    put_str(out, upstream);
    put(out, ",\"messages\":[");
    let mut first = true;
    if let Some(instructions) = &request.instructions {
        first = false;
        put(out, "{\"role\":\"system\",\"content\":");
        put_str(out, instructions);
        put(out, "}");
    }
    write_messages(&request.input, first, out);
    put(out, "]");
    if stream {
        put(
            out,
            ",\"stream\":true,\"stream_options\":{\"include_usage\":true}",
        );
    }
    write_tools(request, out);
    write_options(request, out);
    put(out, "}");
    body.freeze()
}

/// An assistant's turn: reasoning, text and calls that stand next to each other become one message.
#[derive(Default)]
struct Turn<'a> {
    reasoning: Vec<&'a Reasoning>,
    message: Option<&'a Message>,
    calls: Vec<&'a Item>,
}

fn write_messages(items: &[Item], mut first: bool, out: &mut BytesMut) {
    let mut turn = Turn::default();
    let mut comma = |out: &mut BytesMut| {
        if !std::mem::take(&mut first) {
            put(out, ",");
        }
    };
    let flush = |turn: &mut Turn<'_>, comma: &mut dyn FnMut(&mut BytesMut), out: &mut BytesMut| {
        // Reasoning alone is no message.
        if turn.message.is_some() || !turn.calls.is_empty() {
            comma(out);
            write_turn(turn, out);
        }
        *turn = Turn::default();
    };
    for item in items {
        match item {
            Item::Reasoning(reasoning) => {
                if turn.message.is_some() || !turn.calls.is_empty() {
                    flush(&mut turn, &mut comma, out);
                }
                turn.reasoning.push(reasoning);
            }
            Item::Message(message) if message.role == Role::Assistant => {
                if turn.message.is_some() || !turn.calls.is_empty() {
                    flush(&mut turn, &mut comma, out);
                }
                turn.message = Some(message);
            }
            Item::FunctionCall(_) | Item::CustomToolCall(_) => turn.calls.push(item),
            Item::Message(message) => {
                flush(&mut turn, &mut comma, out);
                comma(out);
                put(out, "{\"role\":\"");
                // Servers behind this dialect often know no developer role.
                put(
                    out,
                    if message.role == Role::Developer {
                        "system"
                    } else {
                        message.role.as_str()
                    },
                );
                put(out, "\",\"content\":");
                write_content(&message.content, out);
                if let Some(name) = &message.name {
                    put(out, ",\"name\":");
                    put_str(out, name);
                }
                put(out, "}");
            }
            Item::FunctionCallOutput(output) | Item::CustomToolCallOutput(output) => {
                flush(&mut turn, &mut comma, out);
                comma(out);
                put(out, "{\"role\":\"tool\",\"tool_call_id\":");
                put_str(out, &output.call_id);
                put(out, ",\"content\":");
                write_content(&output.output, out);
                put(out, "}");
            }
            Item::Other { .. } => {}
        }
    }
    flush(&mut turn, &mut comma, out);
}

fn write_turn(turn: &Turn<'_>, out: &mut BytesMut) {
    put(out, "{\"role\":\"assistant\",\"content\":");
    match turn.message {
        Some(message) => write_content(&message.content, out),
        None => put(out, "null"),
    }
    let reasoning: String = turn
        .reasoning
        .iter()
        .flat_map(|reasoning| &reasoning.content)
        .map(String::as_str)
        .collect();
    if !reasoning.is_empty() {
        put(out, ",\"reasoning_content\":");
        put_str(out, &reasoning);
    }
    for (at, call) in turn.calls.iter().enumerate() {
        put(out, if at == 0 { ",\"tool_calls\":[" } else { "," });
        let (call_id, name, arguments) = match call {
            Item::FunctionCall(call) => (&call.call_id, &call.name, call.arguments.clone()),
            Item::CustomToolCall(call) => (&call.call_id, &call.name, wrapped_input(&call.input)),
            _ => continue,
        };
        put(out, "{\"id\":");
        put_str(out, call_id);
        put(out, ",\"type\":\"function\",\"function\":{\"name\":");
        put_str(out, name);
        put(out, ",\"arguments\":");
        put_str(out, &arguments);
        put(out, "}}");
    }
    if !turn.calls.is_empty() {
        put(out, "]");
    }
    put(out, "}");
}

/// Text alone is a string, since the smallest servers take nothing else.
fn write_content(parts: &[Part], out: &mut BytesMut) {
    if let [Part::Text { text, .. }] = parts {
        return put_str(out, text);
    }
    if parts.is_empty() {
        return put(out, "\"\"");
    }
    let mut first = true;
    put(out, "[");
    for part in parts {
        if matches!(part, Part::Other { .. } | Part::Image { url: None, .. }) {
            continue;
        }
        if !std::mem::take(&mut first) {
            put(out, ",");
        }
        match part {
            Part::Text { text, .. } => {
                put(out, "{\"type\":\"text\",\"text\":");
                put_str(out, text);
                put(out, "}");
            }
            Part::Refusal { refusal } => {
                put(out, "{\"type\":\"refusal\",\"refusal\":");
                put_str(out, refusal);
                put(out, "}");
            }
            Part::Image { url, detail, .. } => {
                put(out, "{\"type\":\"image_url\",\"image_url\":{\"url\":");
                put_str(out, url.as_deref().unwrap_or_default());
                put(out, ",\"detail\":\"");
                put(out, detail_word(*detail));
                put(out, "\"}}");
            }
            Part::Other { .. } => {}
        }
    }
    put(out, "]");
}

fn write_tools(request: &InferenceRequest, out: &mut BytesMut) {
    let mut any = false;
    for tool in &request.tools {
        let (name, description) = match tool {
            Tool::Function(function) => (&function.name, &function.description),
            Tool::Custom(custom) => (&custom.name, &custom.description),
            Tool::Other { .. } => continue,
        };
        put(out, if any { "," } else { ",\"tools\":[" });
        any = true;
        put(out, "{\"type\":\"function\",\"function\":{\"name\":");
        put_str(out, name);
        if let Some(description) = description {
            put(out, ",\"description\":");
            put_str(out, description);
        }
        match tool {
            Tool::Function(function) => {
                if let Some(parameters) = &function.parameters {
                    put(out, ",\"parameters\":");
                    put(out, parameters.get());
                }
                if let Some(strict) = function.strict {
                    put(out, ",\"strict\":");
                    put_bool(out, strict);
                }
            }
            Tool::Custom(custom) => {
                put(out, ",\"parameters\":");
                put(out, &custom.parameters().to_string());
            }
            Tool::Other { .. } => {}
        }
        put(out, "}}");
    }
    if !any {
        return;
    }
    put(out, "]");
    if !request.parallel_tool_calls {
        put(out, ",\"parallel_tool_calls\":false");
    }
    match &request.tool_choice {
        ToolChoice::Auto | ToolChoice::Other(_) => {}
        ToolChoice::None => put(out, ",\"tool_choice\":\"none\""),
        ToolChoice::Required => put(out, ",\"tool_choice\":\"required\""),
        ToolChoice::Function(name) | ToolChoice::Custom(name) => {
            put(
                out,
                ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":",
            );
            put_str(out, name);
            put(out, "}}");
        }
    }
}

fn write_options(request: &InferenceRequest, out: &mut BytesMut) {
    let sampling = &request.sampling;
    if let Some(n) = request.max_output_tokens {
        // The old name, which every server of this dialect knows.
        put(out, ",\"max_tokens\":");
        put_uint(out, n);
    }
    for (key, value) in [
        (",\"temperature\":", sampling.temperature),
        (",\"top_p\":", sampling.top_p),
        (",\"min_p\":", sampling.min_p),
        (",\"presence_penalty\":", sampling.penalties.presence),
        (",\"frequency_penalty\":", sampling.penalties.frequency),
        (",\"repetition_penalty\":", sampling.penalties.repetition),
    ] {
        if let Some(value) = value {
            put(out, key);
            put_f32(out, value);
        }
    }
    if let Some(k) = sampling.top_k {
        put(out, ",\"top_k\":");
        put_uint(out, k);
    }
    if let Some(seed) = sampling.seed {
        put(out, ",\"seed\":");
        put(out, itoa::Buffer::new().format(seed));
    }
    for (at, stop) in request.stop.iter().enumerate() {
        put(out, if at == 0 { ",\"stop\":[" } else { "," });
        put_str(out, stop);
    }
    if !request.stop.is_empty() {
        put(out, "]");
    }
    if request.choices > 1 {
        put(out, ",\"n\":");
        put_uint(out, request.choices);
    }
    if let Some(top) = request.top_logprobs {
        put(out, ",\"logprobs\":true,\"top_logprobs\":");
        put_uint(out, u32::from(top));
    }
    for (at, (token, bias)) in sampling.logit_bias.iter().enumerate() {
        put(
            out,
            if at == 0 {
                ",\"logit_bias\":{\""
            } else {
                ",\""
            },
        );
        put_uint(out, *token);
        put(out, "\":");
        put_f32(out, *bias);
    }
    if !sampling.logit_bias.is_empty() {
        put(out, "}");
    }
    if let Some(effort) = &request.reasoning_effort {
        put(out, ",\"reasoning_effort\":");
        put_str(out, effort);
    }
    match &request.format {
        TextFormat::Text => {}
        TextFormat::JsonObject => put(out, ",\"response_format\":{\"type\":\"json_object\"}"),
        TextFormat::JsonSchema {
            name,
            description,
            schema,
            strict,
        } => {
            put(
                out,
                ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":",
            );
            put_str(out, name);
            if let Some(description) = description {
                put(out, ",\"description\":");
                put_str(out, description);
            }
            put(out, ",\"schema\":");
            put(out, schema.get());
            if let Some(strict) = strict {
                put(out, ",\"strict\":");
                put_bool(out, *strict);
            }
            put(out, "}}");
        }
    }
}
