//! Requests that must be refused, each with the path at fault; requests of real agents that must not.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that fails panics; helpers are not seen as tests"
)]

use bytes::Bytes;
use honshu_domain::{Demand, Error, ErrorKind, InferenceRequest, Item, Tool, ToolChoice};
use honshu_wire::{chat, responses};

fn chat_body(extra: &str) -> String {
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}],{extra}}}"#)
}

fn responses_body(extra: &str) -> String {
    format!(r#"{{"model":"m","input":"hi",{extra}}}"#)
}

fn parse_chat(body: impl Into<Bytes>) -> Result<InferenceRequest, Error> {
    chat::parse_request(body.into())
}

fn parse_responses(body: impl Into<Bytes>) -> Result<InferenceRequest, Error> {
    responses::parse_request(body.into())
}

fn paths(result: Result<InferenceRequest, Error>, body: &str) -> Vec<String> {
    let error = match result {
        Ok(_) => panic!("accepted: {body}"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Invalid, "{body}");
    assert!(!error.message().is_empty());
    error
        .problems()
        .iter()
        .map(|problem| problem.path.clone())
        .collect()
}

#[test]
fn fields_out_of_type_or_range_are_refused_in_both_dialects() {
    for (extra, path) in [
        (r#""temperature":"hot""#, "temperature"),
        (r#""temperature":2.01"#, "temperature"),
        (r#""temperature":-0.01"#, "temperature"),
        (r#""temperature":1e400"#, "temperature"),
        (r#""temperature":NaN"#, "temperature"),
        (r#""temperature":[]"#, "temperature"),
        (r#""top_p":1.5"#, "top_p"),
        (r#""top_p":-1"#, "top_p"),
        (r#""top_k":-2"#, "top_k"),
        (r#""top_k":1.5"#, "top_k"),
        (r#""top_k":99999999999999999999999999999999999999"#, "top_k"),
        (r#""min_p":2"#, "min_p"),
        (r#""repetition_penalty":0"#, "repetition_penalty"),
        (r#""frequency_penalty":2.1"#, "frequency_penalty"),
        (r#""presence_penalty":-2.1"#, "presence_penalty"),
        (r#""seed":170141183460469231731687303715884105727"#, "seed"),
        (r#""seed":1e-3"#, "seed"),
        (r#""top_logprobs":21"#, "top_logprobs"),
        (r#""top_logprobs":-1"#, "top_logprobs"),
        (r#""stream":"yes""#, "stream"),
        (r#""stream_options":3"#, "stream_options"),
        (r#""tools":{}"#, "tools"),
        (r#""tools":[3]"#, "tools[0]"),
        (r#""tools":[{"name":"f"}]"#, "tools[0].type"),
        (r#""tool_choice":"sometimes""#, "tool_choice"),
        (r#""tool_choice":7"#, "tool_choice"),
        (r#""tool_choice":"required""#, "tool_choice"),
        (r#""parallel_tool_calls":1"#, "parallel_tool_calls"),
        (r#""user":5"#, "user"),
        (r#""x":{"a":1,"a":1}"#, "x.a"),
        (r#""x":["\ud83d"]"#, "x[0]"),
        (r#""x":[1e999]"#, "x[0]"),
    ] {
        let body = chat_body(extra);
        assert_eq!(paths(parse_chat(body.clone()), &body), [path]);
        let body = responses_body(extra);
        assert_eq!(paths(parse_responses(body.clone()), &body), [path]);
    }
}

#[test]
fn chat_fields_are_refused_by_path() {
    let long = "x".repeat(10_001);
    let cases = [
        (r#""n":0"#.to_owned(), "n"),
        (r#""n":129"#.to_owned(), "n"),
        (r#""max_tokens":0"#.to_owned(), "max_tokens"),
        (r#""max_tokens":-5"#.to_owned(), "max_tokens"),
        (r#""max_completion_tokens":4294967296"#.to_owned(), "max_completion_tokens"),
        (r#""max_completion_tokens":"many""#.to_owned(), "max_completion_tokens"),
        (r#""stop":["a","b","c","d","e"]"#.to_owned(), "stop"),
        (r#""stop":[1]"#.to_owned(), "stop[0]"),
        (r#""stop":1"#.to_owned(), "stop"),
        (format!(r#""stop":"{long}""#), "stop"),
        (r#""logit_bias":{"5":101}"#.to_owned(), "logit_bias.5"),
        (r#""logit_bias":{"word":1}"#.to_owned(), "logit_bias.word"),
        (r#""logit_bias":[]"#.to_owned(), "logit_bias"),
        (r#""logprobs":5"#.to_owned(), "logprobs"),
        (r#""top_logprobs":5"#.to_owned(), "top_logprobs"),
        (r#""response_format":"json""#.to_owned(), "response_format"),
        (r#""response_format":{"type":"yaml"}"#.to_owned(), "response_format.type"),
        (r#""response_format":{"type":"json_schema"}"#.to_owned(), "response_format.json_schema"),
        (r#""response_format":{"type":"json_schema","json_schema":{"schema":{}}}"#.to_owned(), "response_format.json_schema.name"),
        (r#""response_format":{"type":"json_schema","json_schema":{"name":"n","schema":[]}}"#.to_owned(), "response_format.json_schema.schema"),
        (r#""tools":[{"type":"function"}]"#.to_owned(), "tools[0].function"),
        (r#""tools":[{"type":"function","function":{"parameters":{}}}]"#.to_owned(), "tools[0].function.name"),
        (r#""tools":[{"type":"function","function":{"name":"f","parameters":"x"}}]"#.to_owned(), "tools[0].function.parameters"),
        (r#""tool_choice":{"type":"function","function":{"name":"g"}},"tools":[{"type":"function","function":{"name":"f"}}]"#.to_owned(), "tool_choice"),
    ];
    for (extra, path) in cases {
        let body = chat_body(&extra);
        assert_eq!(paths(parse_chat(body.clone()), &body), [path]);
    }
}

#[test]
fn messages_are_refused_by_path() {
    for (messages, path) in [
        ("[]", "messages"),
        ("null", "messages"),
        ("{}", "messages"),
        ("\"hi\"", "messages"),
        ("[1]", "messages[0]"),
        (r#"[{"content":"x"}]"#, "messages[0].role"),
        (r#"[{"role":"king","content":"x"}]"#, "messages[0].role"),
        (r#"[{"role":"user"}]"#, "messages[0].content"),
        (r#"[{"role":"user","content":null}]"#, "messages[0].content"),
        (r#"[{"role":"user","content":7}]"#, "messages[0].content"),
        (
            r#"[{"role":"user","content":[7]}]"#,
            "messages[0].content[0]",
        ),
        (
            r#"[{"role":"user","content":[{"text":"x"}]}]"#,
            "messages[0].content[0].type",
        ),
        (
            r#"[{"role":"user","content":[{"type":"text"}]}]"#,
            "messages[0].content[0].text",
        ),
        (
            r#"[{"role":"user","content":[{"type":"image_url"}]}]"#,
            "messages[0].content[0].image_url",
        ),
        (
            r#"[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://a/b","detail":"huge"}}]}]"#,
            "messages[0].content[0].image_url.detail",
        ),
        (
            r#"[{"role":"tool","content":"x"}]"#,
            "messages[0].tool_call_id",
        ),
        (
            r#"[{"role":"assistant","tool_calls":[{"id":"c","function":{"name":"f"}}]}]"#,
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            r#"[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":""}}]}]"#,
            "messages[0].tool_calls[0].id",
        ),
    ] {
        let body = format!(r#"{{"model":"m","messages":{messages}}}"#);
        assert_eq!(paths(parse_chat(body.clone()), &body), [path]);
    }
}

#[test]
fn responses_fields_and_items_are_refused_by_path() {
    for (extra, path) in [
        (r#""max_output_tokens":0"#, "max_output_tokens"),
        (r#""background":1"#, "background"),
        (r#""instructions":[]"#, "instructions"),
        (r#""truncation":"middle""#, "truncation"),
        (
            r#""text":{"format":{"type":"json_schema","name":"n"}}"#,
            "text.format.schema",
        ),
        (r#""text":{"format":{"type":"xml"}}"#, "text.format.type"),
        (r#""text":{"verbosity":"loud"}"#, "text.verbosity"),
        (r#""include":"x""#, "include"),
        (r#""include":[1]"#, "include[0]"),
        (r#""metadata":{"k":1}"#, "metadata.k"),
        (
            r#""previous_response_id":"r","conversation":"c""#,
            "conversation",
        ),
        (r#""tools":[{"type":"function"}]"#, "tools[0].name"),
        (r#""reasoning":3"#, "reasoning"),
    ] {
        let body = responses_body(extra);
        assert_eq!(paths(parse_responses(body.clone()), &body), [path]);
    }
    for (input, path) in [
        ("\"\"", "input"),
        ("[]", "input"),
        ("null", "input"),
        ("5", "input"),
        ("[5]", "input[0]"),
        ("[{}]", "input[0].type"),
        (r#"[{"role":"user"}]"#, "input[0].content"),
        (r#"[{"role":"tool","content":"x"}]"#, "input[0].role"),
        (
            r#"[{"role":"user","content":[{"type":"input_text"}]}]"#,
            "input[0].content[0].text",
        ),
        (
            r#"[{"role":"user","content":[{"type":"input_image"}]}]"#,
            "input[0].content[0].image_url",
        ),
        (
            r#"[{"role":"user","content":"a"},{"type":"function_call","name":"f","arguments":""}]"#,
            "input[1].call_id",
        ),
        (
            r#"[{"type":"function_call_output","call_id":"c","output":"x"}]"#,
            "input[0].call_id",
        ),
        (
            r#"[{"type":"function_call_output","call_id":"c"}]"#,
            "input[0].output",
        ),
        (r#"[{"type":"reasoning","summary":{}}]"#, "input[0].summary"),
    ] {
        let body = format!(r#"{{"model":"m","input":{input}}}"#);
        assert_eq!(paths(parse_responses(body.clone()), &body), [path]);
    }
}

#[test]
fn bodies_that_are_no_object_are_refused() {
    for body in [
        &b""[..],
        b"  ",
        b"[]",
        b"null",
        b"\"x\"",
        b"{",
        b"{}x",
        b"\xff",
        b"{\"model\":\"\xc3\"}",
    ] {
        assert!(
            chat::parse_request(Bytes::from_static(body)).is_err(),
            "{body:?}"
        );
        assert!(
            responses::parse_request(Bytes::from_static(body)).is_err(),
            "{body:?}"
        );
    }
    assert_eq!(paths(parse_chat("{}"), "{}"), ["model", "messages"]);
    assert_eq!(paths(parse_responses("{}"), "{}"), ["model", "input"]);
    let body = chat_body(r#""model":"n""#);
    assert_eq!(paths(parse_chat(body.clone()), &body), ["model"]);
}

#[test]
fn depth_127_is_read_and_129_refused() {
    for (levels, good) in [(126, true), (128, false), (100_000, false)] {
        // One level is the body itself.
        let deep = format!("\"x\":{}{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(parse_chat(chat_body(&deep)).is_ok(), good, "{levels}");
        assert_eq!(
            parse_responses(responses_body(&deep)).is_ok(),
            good,
            "{levels}"
        );
    }
}

#[test]
fn every_problem_is_named_at_once() {
    let body = r#"{"messages":[{"role":"user","content":[{"type":"text","text":1},{"type":"text"}]}],"temperature":9,"n":0}"#;
    assert_eq!(
        paths(parse_chat(body), body),
        [
            "messages[0].content[0].text",
            "messages[0].content[1].text",
            "temperature",
            "n",
            "model"
        ]
    );
    let error = parse_chat(body).unwrap_err();
    assert_eq!(error.code(), Some("invalid_type"));
    let many = format!(r#"{{"model":"m","messages":[{}0]}}"#, "0,".repeat(10_000));
    assert_eq!(paths(parse_chat(many.clone()), "many").len(), 32);
}

#[test]
fn a_coding_agents_responses_request_is_accepted_and_what_is_left_out_is_named() {
    let body = r#"{"model":"m","instructions":null,"input":[
      {"type":"message","role":"developer","id":"own_1","content":[{"type":"input_text","text":"be good"}],"internal_chat_message_metadata_passthrough":{"x":1}},
      {"role":"user","content":"hi"},
      {"type":"message","role":"assistant","content":[{"type":"output_text","text":"hello"}],"phase":"commentary"},
      {"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},
      {"type":"function_call_output","call_id":"c1","output":[{"type":"input_text","text":"done"}]},
      {"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"sealed"}],
      "tools":[{"type":"function","name":"f","parameters":{"type":"object"},"strict":false},{"type":"namespace","name":"multi","tools":[]},{"type":"web_search"}],
      "tool_choice":"auto","parallel_tool_calls":true,"reasoning":{"summary":"auto"},"store":false,"stream":true,
      "include":["reasoning.encrypted_content"],"prompt_cache_key":"k","client_metadata":{"a":"b"}}"#;
    let request = parse_responses(body).unwrap();
    assert_eq!(request.input.len(), 6);
    assert_eq!(request.raw, body.as_bytes());
    assert!(matches!(&request.tools[2], Tool::Other { kind, .. } if kind.as_ref() == "web_search"));
    assert_eq!(
        request.hints,
        [
            "input[].internal_chat_message_metadata_passthrough",
            "tools[1]",
            "tools[2]",
            "reasoning.summary",
            "include[0]",
            "prompt_cache_key",
            "client_metadata"
        ]
    );
    assert_eq!(
        request.demands,
        [(Demand::ToolHistory, "input[3]".to_owned())]
    );
}

#[test]
fn odd_but_real_chat_requests_are_accepted() {
    let body = r#"{"model":"m","messages":[
      {"role":"system","content":[{"type":"text","text":"s"}]},
      {"role":"user","content":"a"},{"role":"user","content":"b","name":"bob"},
      {"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{"}}]},
      {"role":"tool","tool_call_id":"elsewhere","content":"x"},
      {"role":"assistant","content":""},
      {"role":"assistant","function_call":{"name":"old","arguments":"{}"}},{"role":"function","name":"old","content":"y"}],
      "temperature":0,"top_p":null,"stop":null,"max_tokens":null,"stream":true,"stream_options":{"include_usage":true},
      "tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"$schema":"x"}}},{"type":"custom","custom":{"name":"c"}}],
      "tool_choice":{"type":"function","function":{"name":"f"}},"top_k":-1,"vendor_field":{"deep":[1]}}"#;
    let request = parse_chat(body).unwrap();
    let kinds: Vec<&str> = request
        .input
        .iter()
        .map(|item| match item {
            Item::Message(message) => message.role.as_str(),
            Item::FunctionCall(_) => "call",
            Item::FunctionCallOutput(_) => "output",
            Item::CustomToolCall(_) => "custom call",
            Item::CustomToolCallOutput(_) => "custom output",
            Item::Reasoning(_) => "reasoning",
            Item::Other { .. } => "other",
        })
        .collect();
    assert_eq!(
        kinds,
        [
            "system",
            "user",
            "user",
            "reasoning",
            "call",
            "output",
            "assistant",
            "call",
            "output"
        ]
    );
    let (Item::FunctionCall(call), Item::FunctionCallOutput(output)) =
        (&request.input[7], &request.input[8])
    else {
        panic!("old-style calls")
    };
    assert_eq!(call.call_id, output.call_id);
    assert_eq!(request.sampling.temperature, Some(0.0));
    assert_eq!(request.sampling.top_k, Some(0));
    assert_eq!(request.tool_choice, ToolChoice::Function("f".into()));
    assert!(request.include_usage && request.stream);
    assert_eq!(request.hints, ["vendor_field"]);
    assert!(
        request
            .demands
            .iter()
            .any(|(demand, path)| *demand == Demand::ForcedTool && path == "tool_choice")
    );
}

#[test]
fn hostile_names_stay_out_of_paths() {
    let body = chat_body(&format!(r#""a\r\nb: {}":1"#, "é".repeat(500)));
    let request = parse_chat(body).unwrap();
    assert!(
        request.hints[0].len() < 80 && request.hints[0].bytes().all(|b| (0x21..0x7f).contains(&b)),
        "{:?}",
        request.hints
    );
}

#[test]
fn allowed_tools_leave_only_what_is_allowed() {
    let flat = r#""tools":[{"type":"function","name":"a"},{"type":"function","name":"b"},{"type":"web_search"}]"#;
    let nested = r#""tools":[{"type":"function","function":{"name":"a"}},{"type":"function","function":{"name":"b"}}]"#;
    let flat_choice = |mode: &str, tools: &str| {
        format!(r#"{flat},"tool_choice":{{"type":"allowed_tools","mode":{mode},"tools":{tools}}}"#)
    };
    let nested_choice = |mode: &str, tools: &str| {
        format!(
            r#"{nested},"tool_choice":{{"type":"allowed_tools","allowed_tools":{{"mode":{mode},"tools":{tools}}}}}"#
        )
    };
    let only_a = r#"[{"type":"function","name":"a"}]"#;
    let nested_a = r#"[{"type":"function","function":{"name":"a"}}]"#;
    for (mode, choice) in [
        ("\"auto\"", ToolChoice::Auto),
        ("null", ToolChoice::Auto),
        ("\"required\"", ToolChoice::Required),
    ] {
        for request in [
            parse_responses(responses_body(&flat_choice(mode, only_a))).unwrap(),
            parse_chat(chat_body(&nested_choice(mode, nested_a))).unwrap(),
        ] {
            let names: Vec<&str> = request
                .tools
                .iter()
                .map(|tool| match tool {
                    Tool::Function(function) => &*function.name,
                    Tool::Custom(custom) => &custom.name,
                    Tool::Other { kind, .. } => kind,
                })
                .collect();
            assert_eq!(names, ["a"], "{mode}");
            assert_eq!(request.tool_choice, choice, "{mode}");
            assert!(!request.hints.iter().any(|hint| hint == "tool_choice"));
        }
    }
    for (mode, tools, path) in [
        ("\"always\"", only_a, "tool_choice.mode"),
        ("\"auto\"", "7", "tool_choice.tools"),
        (
            "\"auto\"",
            r#"[{"type":"function","name":"c"}]"#,
            "tool_choice.tools[0].name",
        ),
        ("\"auto\"", r#"[{"name":"a"}]"#, "tool_choice.tools[0].type"),
        ("\"required\"", "[]", "tool_choice"),
    ] {
        let body = responses_body(&flat_choice(mode, tools));
        assert_eq!(paths(parse_responses(body.clone()), &body), [path]);
    }
    let body = chat_body(&format!(
        r#"{nested},"tool_choice":{{"type":"allowed_tools"}}"#
    ));
    assert_eq!(
        paths(parse_chat(body.clone()), &body),
        ["tool_choice.allowed_tools"]
    );
}

#[test]
fn demands_carry_the_path_that_asks() {
    for (extra, demand, path) in [
        (r#""n":2"#, Demand::Choices, "n"),
        (r#""logprobs":true"#, Demand::Logprobs, "logprobs"),
        (
            r#""logit_bias":{"7":-100}"#,
            Demand::LogitBias,
            "logit_bias",
        ),
        (
            r#""response_format":{"type":"json_object"}"#,
            Demand::JsonObject,
            "response_format",
        ),
        (
            r#""response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{}}}"#,
            Demand::JsonSchema,
            "response_format",
        ),
        (
            r#""modalities":["text","audio"]"#,
            Demand::Audio,
            "modalities[1]",
        ),
        (
            r#""tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"required""#,
            Demand::ForcedTool,
            "tool_choice",
        ),
    ] {
        let request = parse_chat(chat_body(extra)).unwrap();
        assert_eq!(request.demands, [(demand, path.to_owned())], "{extra}");
    }
    for (extra, demand, path) in [
        (
            r#""previous_response_id":"resp_1""#,
            Demand::StoredState,
            "previous_response_id",
        ),
        (
            r#""conversation":{"id":"conv_1"}"#,
            Demand::StoredState,
            "conversation",
        ),
        (
            r#""text":{"format":{"type":"json_schema","name":"n","schema":{}}}"#,
            Demand::JsonSchema,
            "text.format",
        ),
        (
            r#""include":["message.output_text.logprobs"]"#,
            Demand::Logprobs,
            "include[0]",
        ),
        (
            r#""tool_choice":{"type":"mcp","server_label":"s"}"#,
            Demand::ForeignItems,
            "tool_choice",
        ),
    ] {
        let request = parse_responses(responses_body(extra)).unwrap();
        assert_eq!(request.demands, [(demand, path.to_owned())], "{extra}");
    }
    for (item, demand, path) in [
        (
            r#"{"type":"item_reference","id":"x"}"#,
            Demand::ForeignItems,
            "input[0]",
        ),
        (
            r#"{"type":"compaction","encrypted_content":"x"}"#,
            Demand::ForeignItems,
            "input[0]",
        ),
        (
            r#"{"role":"user","content":[{"type":"input_image","image_url":"https://a/b"}]}"#,
            Demand::ImageInput,
            "input[0].content[0]",
        ),
        (
            r#"{"role":"user","content":[{"type":"input_file","file_id":"f"}]}"#,
            Demand::FileInput,
            "input[0].content[0]",
        ),
    ] {
        let request = parse_responses(format!(r#"{{"model":"m","input":[{item}]}}"#)).unwrap();
        assert_eq!(request.demands, [(demand, path.to_owned())], "{item}");
    }
}

#[test]
fn too_many_tools_and_strict_schemas_that_loop_are_refused_in_every_dialect() {
    let tool = |n: usize| {
        [
            format!(r#"{{"type":"function","name":"f{n}"}}"#),
            format!(r#"{{"type":"function","function":{{"name":"f{n}"}}}}"#),
        ]
    };
    let many = |dialect: usize, count: usize| {
        let tools: Vec<String> = (0..count).map(|n| tool(n)[dialect].clone()).collect();
        format!(r#""tools":[{}]"#, tools.join(","))
    };
    for count in [1_024, 1_025] {
        let body = responses_body(&many(0, count));
        assert_eq!(parse_responses(body).is_err(), count > 1_024);
        let body = chat_body(&many(1, count));
        assert_eq!(parse_chat(body).is_err(), count > 1_024);
    }
    let loops = r##""name":"f","strict":true,"parameters":{"$ref":"#"}"##;
    let body = responses_body(&format!(r#""tools":[{{"type":"function",{loops}}}]"#));
    assert_eq!(
        paths(parse_responses(body.clone()), &body),
        ["tools[0].parameters"]
    );
    let body = chat_body(&format!(
        r#""tools":[{{"type":"function","function":{{{loops}}}}}]"#
    ));
    assert_eq!(
        paths(parse_chat(body.clone()), &body),
        ["tools[0].function.parameters"]
    );
}
