//! Custom tools in both dialects of OpenAI: declared, chosen, called, answered, and translated.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, like the tests themselves"
)]

use bytes::{Bytes, BytesMut};
use honshu_domain::{
    CustomToolCall, Demand, Error, Finish, FinishReason, GrammarSyntax, InferenceRequest,
    InputFormat, Item, Outcome, RunEvent, Status, SystemEntropy, Timestamp, Tool, ToolChoice,
    Usage,
};
use honshu_wire::{ResponseHead, chat, responses};
use serde_json::{Value, json};

const PATCH: &str = "*** Begin Patch\n+\"x\"\n*** End Patch";

fn responses_request(extra: Value) -> Result<InferenceRequest, Error> {
    let mut body = json!({"model": "m", "input": "hi"});
    merge(&mut body, extra);
    responses::parse_request(Bytes::from(body.to_string()))
}

fn chat_request(extra: Value) -> Result<InferenceRequest, Error> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    merge(&mut body, extra);
    chat::parse_request(Bytes::from(body.to_string()))
}

fn merge(body: &mut Value, extra: Value) {
    let extra = extra.as_object().cloned().unwrap_or_default();
    body.as_object_mut().unwrap().extend(extra);
}

/// The same tool as each dialect declares it.
fn declared() -> (Value, Value) {
    let grammar = json!({"syntax": "lark", "definition": "start: \"a\""});
    let flat = json!({
        "type": "custom", "name": "apply_patch", "description": "patches",
        "format": {"type": "grammar", "syntax": "lark", "definition": "start: \"a\""},
    });
    let nested = json!({
        "type": "custom",
        "custom": {
            "name": "apply_patch", "description": "patches",
            "format": {"type": "grammar", "grammar": grammar},
        },
    });
    (flat, nested)
}

#[test]
fn a_custom_tool_is_read_in_both_dialects_and_is_no_hint() {
    let (flat, nested) = declared();
    let of_responses = responses_request(json!({
        "tools": [flat], "tool_choice": {"type": "custom", "name": "apply_patch"},
    }))
    .unwrap();
    let of_chat = chat_request(json!({
        "tools": [nested], "tool_choice": {"type": "custom", "custom": {"name": "apply_patch"}},
    }))
    .unwrap();
    for request in [&of_responses, &of_chat] {
        let Tool::Custom(tool) = &request.tools[0] else {
            unreachable!("{:?}", request.tools)
        };
        assert_eq!(
            (&*tool.name, tool.description.as_deref()),
            ("apply_patch", Some("patches"))
        );
        let format = InputFormat::Grammar {
            syntax: GrammarSyntax::Lark,
            definition: "start: \"a\"".into(),
        };
        assert_eq!(tool.format, format);
        assert_eq!(
            request.tool_choice,
            ToolChoice::Custom("apply_patch".into())
        );
        assert_eq!(request.hints, Vec::<String>::new());
        let demands: Vec<Demand> = request.demands.iter().map(|(demand, _)| *demand).collect();
        assert_eq!(demands, [Demand::ForcedTool]);
    }
    let path = |request: &InferenceRequest| request.grammars().next().unwrap().1;
    assert_eq!(path(&of_responses), "tools[0].format");
    assert_eq!(path(&of_chat), "tools[0].custom.format");
}

#[test]
fn mistakes_in_custom_tools_are_named_with_their_place() {
    let custom =
        |format: Value| json!({"tools": [{"type": "custom", "name": "c", "format": format}]});
    let nested = |custom: Value| json!({"tools": [{"type": "custom", "custom": custom}]});
    let grammar = |format: Value| nested(json!({"name": "c", "format": format}));
    let text = json!({"type": "custom", "name": "c"});
    let cases = [
        (
            true,
            json!({"tools": [{"type": "custom"}]}),
            "tools[0].name",
        ),
        (true, custom(json!("text")), "tools[0].format"),
        (true, custom(json!({})), "tools[0].format.type"),
        (true, custom(json!({"type": "xml"})), "tools[0].format.type"),
        (
            true,
            custom(json!({"type": "grammar", "definition": "a"})),
            "tools[0].format.syntax",
        ),
        (
            true,
            custom(json!({"type": "grammar", "syntax": "gbnf", "definition": "a"})),
            "tools[0].format.syntax",
        ),
        (
            true,
            custom(json!({"type": "grammar", "syntax": "lark"})),
            "tools[0].format.definition",
        ),
        (
            true,
            custom(json!({"type": "grammar", "syntax": "regex", "definition": ""})),
            "tools[0].format.definition",
        ),
        (true, json!({"tools": [text, text]}), "tools[1].name"),
        (
            true,
            json!({"tools": [text, {"type": "function", "name": "c"}]}),
            "tools[0].name",
        ),
        (
            true,
            json!({"tools": [text], "tool_choice": {"type": "custom", "name": "other"}}),
            "tool_choice",
        ),
        (
            true,
            json!({"tools": [text], "tool_choice": {"type": "function", "name": "c"}}),
            "tool_choice",
        ),
        (
            true,
            json!({"tools": [text], "tool_choice": {"type": "custom"}}),
            "tool_choice.name",
        ),
        (
            true,
            json!({"tools": [text], "tool_choice": {
                "type": "allowed_tools", "mode": "auto", "tools": [{"type": "custom", "name": "x"}]}}),
            "tool_choice.tools[0].name",
        ),
        (
            true,
            json!({"input": [{"type": "custom_tool_call", "call_id": "c", "name": "n"}]}),
            "input[0].input",
        ),
        (
            true,
            json!({"input": [{"type": "custom_tool_call_output", "call_id": "c", "output": "o"}]}),
            "input[0].call_id",
        ),
        (
            false,
            json!({"tools": [{"type": "custom"}]}),
            "tools[0].custom",
        ),
        (false, nested(json!({})), "tools[0].custom.name"),
        (
            false,
            grammar(json!({"type": "grammar"})),
            "tools[0].custom.format.grammar",
        ),
        (
            false,
            grammar(json!({"type": "grammar", "grammar": {"syntax": "lark"}})),
            "tools[0].custom.format.grammar.definition",
        ),
        (
            false,
            json!({"tools": [{"type": "custom", "custom": {"name": "c"}}, {"type": "custom", "custom": {"name": "c"}}]}),
            "tools[1].custom.name",
        ),
        (
            false,
            json!({"tool_choice": {"type": "custom"}}),
            "tool_choice.custom",
        ),
        (
            false,
            json!({"messages": [{"role": "assistant", "tool_calls": [{"id": "c", "type": "custom"}]}]}),
            "messages[0].tool_calls[0].custom",
        ),
    ];
    for (is_responses, extra, path) in cases {
        let read = if is_responses {
            responses_request
        } else {
            chat_request
        };
        let error = read(extra.clone()).unwrap_err();
        assert_eq!(error.param(), Some(path), "{extra}: {error:?}");
    }
}

#[test]
fn allowed_tools_leave_the_custom_tools_that_they_name() {
    let tools = json!([{"type": "custom", "name": "a"}, {"type": "custom", "name": "b"}, {"type": "function", "name": "f"}]);
    let request = responses_request(json!({"tools": tools, "tool_choice": {
        "type": "allowed_tools", "mode": "required", "tools": [{"type": "custom", "name": "b"}]}}))
    .unwrap();
    assert!(matches!(&request.tools[..], [Tool::Custom(tool)] if &*tool.name == "b"));
    assert_eq!(request.tool_choice, ToolChoice::Required);
}

#[test]
fn calls_and_results_are_read_and_translated_in_all_directions() {
    let (flat, nested) = declared();
    let items = json!([
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go"}]},
        {"type": "custom_tool_call", "call_id": "c1", "name": "apply_patch", "input": PATCH},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"}
    ]);
    let of_responses = responses_request(json!({
        "input": items, "tools": [flat], "tool_choice": {"type": "custom", "name": "apply_patch"},
    }))
    .unwrap();
    let of_chat = chat_request(json!({
        "messages": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c1", "type": "custom", "custom": {"name": "apply_patch", "input": PATCH}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "done"}
        ],
        "tools": [nested], "tool_choice": {"type": "custom", "custom": {"name": "apply_patch"}},
    }))
    .unwrap();
    assert_eq!(of_responses.input, of_chat.input);
    let parsed = |body: Bytes| serde_json::from_slice::<Value>(&body).unwrap();

    let to_responses = parsed(responses::build_request(&of_chat, "up", false));
    assert_eq!(to_responses["input"], items);
    assert_eq!(to_responses["tools"], json!([declared().0]));
    let choice = json!({"type": "custom", "name": "apply_patch"});
    assert_eq!(to_responses["tool_choice"], choice);

    let to_chat = parsed(chat::build_request(&of_responses, "up", false));
    let function = &to_chat["tools"][0]["function"];
    assert_eq!(function["name"], "apply_patch");
    let input = &function["parameters"]["properties"]["input"];
    assert!(
        input["description"]
            .as_str()
            .unwrap()
            .contains("start: \"a\"")
    );
    let choice = json!({"type": "function", "function": {"name": "apply_patch"}});
    assert_eq!(to_chat["tool_choice"], choice);
    let call = &to_chat["messages"][1]["tool_calls"][0];
    assert_eq!(
        (&call["type"], &call["id"]),
        (&json!("function"), &json!("c1"))
    );
    let arguments: Value =
        serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({"input": PATCH}));
    let result = json!({"role": "tool", "tool_call_id": "c1", "content": "done"});
    assert_eq!(to_chat["messages"][2], result);
}

fn events() -> Vec<RunEvent> {
    let call = |input: &str| {
        Item::CustomToolCall(CustomToolCall {
            id: None,
            call_id: "call_1".into(),
            name: "apply_patch".into(),
            input: input.to_owned(),
        })
    };
    let delta = |delta: &str| RunEvent::ArgumentsDelta {
        output_index: 0,
        delta: delta.to_owned(),
    };
    vec![
        RunEvent::ItemStarted {
            output_index: 0,
            choice: 0,
            item: call(""),
        },
        delta(&PATCH[..9]),
        delta(&PATCH[9..]),
        RunEvent::ItemDone {
            output_index: 0,
            item: call(PATCH),
        },
        RunEvent::Finished(Finish {
            reason: FinishReason::ToolCalls,
            usage: None,
            stop_text: None,
        }),
    ]
}

fn head() -> ResponseHead {
    ResponseHead {
        id: "x_1".into(),
        created: Timestamp::from_seconds(1),
        model: "m".into(),
        service_tier: None,
    }
}

fn outcome() -> Outcome {
    Outcome {
        status: Status::Completed,
        usage: Usage::default(),
        usage_exact: true,
    }
}

fn data(out: &BytesMut) -> Vec<Value> {
    let text = std::str::from_utf8(out).unwrap();
    let frames = text.lines().filter_map(|line| line.strip_prefix("data: "));
    frames
        .filter_map(|data| serde_json::from_str(data).ok())
        .collect()
}

#[test]
fn a_call_is_written_and_read_back_in_the_responses_dialect() {
    let request = responses_request(json!({"tools": [declared().0]})).unwrap();
    let mut encoder = responses::StreamEncoder::new(head(), &request, &SystemEntropy);
    let mut collector = responses::Collector::new(head(), &request, &SystemEntropy);
    let mut out = BytesMut::new();
    for event in events() {
        encoder.event(&event, &mut out);
        collector.event(&event);
    }
    let now = Timestamp::from_seconds(2);
    encoder.end(&outcome(), None, now, &mut out);
    let frames = data(&out);
    let kinds: Vec<&str> = frames.iter().map(|f| f["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.custom_tool_call_input.delta",
            "response.custom_tool_call_input.delta",
            "response.custom_tool_call_input.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let added = &frames[2]["item"];
    let id = added["id"].as_str().unwrap();
    assert!(id.starts_with("ctc_"), "{id}");
    assert_eq!(
        (&added["input"], &added["status"]),
        (&json!(""), &json!("in_progress"))
    );
    assert_eq!(
        (&frames[3]["delta"], &frames[3]["item_id"]),
        (&json!("*** Begin"), &json!(id))
    );
    assert_eq!(
        (&frames[5]["input"], &frames[5]["item_id"]),
        (&json!(PATCH), &json!(id))
    );
    let item = json!({
        "type": "custom_tool_call", "id": id, "status": "completed", "call_id": "call_1",
        "name": "apply_patch", "input": PATCH,
    });
    assert_eq!(frames[6]["item"], item);
    assert_eq!(frames[7]["response"]["output"], json!([item]));
    assert_eq!(frames[7]["response"]["tools"], json!([declared().0]));

    let whole: Value = serde_json::from_slice(&collector.finish(&outcome(), now)).unwrap();
    assert_eq!(whole["output"][0]["input"], PATCH);
    let mut decoded = Vec::new();
    let body = serde_json::to_vec(&frames[7]["response"]).unwrap();
    responses::UpstreamDecoder::new()
        .whole(&body, &mut decoded)
        .unwrap();
    check(&decoded);
    let mut decoder = responses::UpstreamDecoder::new();
    let mut decoded = Vec::new();
    for frame in &frames {
        decoder
            .frame(frame.to_string().as_bytes(), &mut decoded)
            .unwrap();
    }
    check(&decoded);
}

/// The events of an upstream have the one call, streamed and whole.
fn check(events: &[RunEvent]) {
    let deltas: String = events
        .iter()
        .filter_map(|event| match event {
            RunEvent::ArgumentsDelta { delta, .. } => Some(delta.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(deltas, PATCH);
    let calls: Vec<&CustomToolCall> = events
        .iter()
        .filter_map(|event| match event {
            RunEvent::ItemDone {
                item: Item::CustomToolCall(call),
                ..
            } => Some(call),
            _ => None,
        })
        .collect();
    assert_eq!(calls.len(), 1);
    assert_eq!(
        (&*calls[0].name, calls[0].input.as_str()),
        ("apply_patch", PATCH)
    );
    let Some(RunEvent::Finished(finish)) = events.last() else {
        unreachable!("{events:?}")
    };
    assert_eq!(finish.reason, FinishReason::ToolCalls);
}

#[test]
fn a_call_is_written_and_read_back_in_the_chat_dialect() {
    let request = chat_request(json!({"tools": [declared().1]})).unwrap();
    let mut encoder = chat::StreamEncoder::new(head(), &request, &SystemEntropy);
    let mut collector = chat::Collector::new(head(), &request, &SystemEntropy);
    let mut out = BytesMut::new();
    for event in events() {
        encoder.event(&event, &mut out);
        collector.event(&event);
    }
    let now = Timestamp::from_seconds(2);
    encoder.end(&outcome(), None, now, &mut out);
    let frames = data(&out);
    let call = |frame: &Value| frame["choices"][0]["delta"]["tool_calls"][0].clone();
    assert_eq!(
        call(&frames[1]),
        json!({"index": 0, "id": "call_1", "type": "custom", "custom": {"name": "apply_patch", "input": ""}})
    );
    assert_eq!(
        call(&frames[2]),
        json!({"index": 0, "custom": {"input": "*** Begin"}})
    );
    assert_eq!(frames[4]["choices"][0]["finish_reason"], "tool_calls");

    let body = collector.finish(&outcome(), now);
    let whole: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        whole["choices"][0]["message"]["tool_calls"],
        json!([{"id": "call_1", "type": "custom", "custom": {"name": "apply_patch", "input": PATCH}}])
    );
    let mut decoded = Vec::new();
    chat::UpstreamDecoder::new()
        .whole(&body, &mut decoded)
        .unwrap();
    check(&decoded);
    let mut decoder = chat::UpstreamDecoder::new();
    let mut decoded = Vec::new();
    for frame in &frames {
        decoder
            .frame(frame.to_string().as_bytes(), &mut decoded)
            .unwrap();
    }
    decoder.end(&mut decoded).unwrap();
    check(&decoded);
}

#[test]
fn a_call_of_the_function_that_stood_for_a_custom_tool_is_custom_again() {
    let names = || ["apply_patch".into()].into();
    let arguments = json!({"input": PATCH}).to_string();
    let body = json!({"id": "1", "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
        "role": "assistant", "content": null, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "apply_patch", "arguments": arguments}}]}}]});
    let mut decoded = Vec::new();
    chat::UpstreamDecoder::new()
        .with_custom_tools(names())
        .whole(body.to_string().as_bytes(), &mut decoded)
        .unwrap();
    check(&decoded);

    let mut decoder = chat::UpstreamDecoder::new().with_custom_tools(names());
    let mut decoded = Vec::new();
    let mut send = |delta: Value, finish: Value| {
        let frame =
            json!({"id": "1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]});
        decoder
            .frame(frame.to_string().as_bytes(), &mut decoded)
            .unwrap();
    };
    let call =
        |function: Value| json!({"tool_calls": [{"index": 0, "id": "c", "function": function}]});
    send(
        call(json!({"name": "apply_patch", "arguments": ""})),
        Value::Null,
    );
    for piece in arguments.as_bytes().chunks(7) {
        let piece = std::str::from_utf8(piece).unwrap();
        send(call(json!({"arguments": piece})), Value::Null);
    }
    send(json!({}), json!("tool_calls"));
    decoder.end(&mut decoded).unwrap();
    check(&decoded);
}
