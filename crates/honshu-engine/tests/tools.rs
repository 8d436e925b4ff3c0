//! Tools, structured answers and reasoning with the real small model, in the form of every family.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed test is a panic; helpers of tests are tests"
)]

mod common;

use std::sync::Arc;

use common::{Whole, ask, backend, pool, run, runtime, say, schema};
use honshu_domain::{
    Backend, Dialect, ErrorKind, FinishReason, FunctionCallOutput, FunctionTool, InferenceRequest,
    Item, Part, RawJson, Role, Tool, ToolChoice,
};
use honshu_engine::EnginePool;
use serde_json::{Value, json};

/// A template that shows tools; words in it make it one of a family.
const PLAIN: &str = "{% if tools %}{{ tools | tojson }}\n{% endif %}\
    {% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n";

/// What makes each form known.
const FORMS: &[(&str, &str)] = &[
    ("tagged", "<tool_call> </tool_call>"),
    ("llama3", "<|python_tag|>"),
    ("tool_call_token", "<|tool_call|>"),
    ("tool_calls", "<tool_calls> </tool_calls>"),
    ("toolcall", "<TOOLCALL> </TOOLCALL>"),
    ("tool_call_start", "<|tool_call_start|>"),
    ("mistral", "[TOOL_CALLS]"),
    ("mistral_named", "[TOOL_CALLS] [ARGS]"),
    ("tool_code", "```tool_code"),
    ("function_gemma", "<start_function_call>"),
    ("gemma4", "<|tool_call>"),
    ("action", "Action: ```json"),
    ("command", "<|START_ACTION|>"),
    ("deepseek", "<｜tool▁call▁begin｜> ```json"),
    ("deepseek_named", "<｜tool▁call▁begin｜>"),
    ("kimi", "<|tool_call_begin|> <|tool_call_argument_begin|>"),
    ("tags", "<function= <parameter="),
    ("pairs", "<arg_key> <arg_value>"),
    ("harmony", "<|channel|> <|message|>"),
];

fn with_template(pool: &EnginePool, name: &str, template: &str) -> Arc<dyn Backend> {
    let mut options = common::options();
    options.load.n_ctx = 1024;
    options.chat_template = Some(template.into());
    pool.backend_for(&common::model_path(), name, options)
}

fn function(name: &str, parameters: &Value, strict: Option<bool>) -> Tool {
    Tool::Function(FunctionTool {
        name: name.into(),
        description: Some(format!("the {name}")),
        parameters: Some(RawJson::parse(&parameters.to_string()).unwrap()),
        strict,
    })
}

fn city() -> Value {
    json!({
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 12},
            "days": {"type": "integer", "minimum": 1, "maximum": 9},
            "unit": {"$ref": "#/$defs/Unit"},
        },
        "required": ["city", "days", "unit"],
        "additionalProperties": false,
        "$defs": {"Unit": {"type": "string", "enum": ["C", "F"]}},
    })
}

fn weather() -> InferenceRequest {
    let mut request = ask("What will the weather in Paris be in the next three days?");
    request.max_output_tokens = Some(120);
    request.tools = vec![function("weather", &city(), None)];
    request.tool_choice = ToolChoice::Required;
    request.parallel_tool_calls = false;
    request.reasoning_effort = Some("none".into());
    request
}

fn calls(whole: &Whole) -> Vec<(String, Value)> {
    whole
        .items
        .iter()
        .filter_map(|(_, item)| match item {
            Item::FunctionCall(call) => {
                let arguments = serde_json::from_str(&call.arguments)
                    .unwrap_or_else(|error| panic!("{}: {error}", call.arguments));
                Some((call.name.to_string(), arguments))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn a_required_call_satisfies_its_schema_in_the_form_of_every_family() {
    runtime().block_on(async {
        let pool = pool();
        let validator = jsonschema::validator_for(&city()).unwrap();
        for (index, (form, words)) in FORMS.iter().enumerate() {
            let backend = with_template(&pool, form, &format!("{{# {words} #}}{PLAIN}"));
            // A high temperature strays as far as the grammar lets it; a few forms show it.
            let temperatures: &[f32] = if index % 4 == 0 { &[0.0, 1.2] } else { &[0.0] };
            for temperature in temperatures.iter().copied() {
                let mut request = weather();
                request.sampling.temperature = Some(temperature);
                request.sampling.seed = Some(3);
                let whole = run(&backend, request).await.unwrap();
                if whole.finish.reason == FinishReason::Length {
                    assert!(temperature > 0.0, "{form}: {whole:?}");
                    continue;
                }
                let calls = calls(&whole);
                assert_eq!(calls.len(), 1, "{form}: {whole:?}");
                assert_eq!(calls[0].0, "weather", "{form}");
                assert!(validator.is_valid(&calls[0].1), "{form}: {}", calls[0].1);
                assert_eq!(
                    whole.items.len(),
                    1,
                    "{form}: nothing beside the call: {whole:?}"
                );
                assert_eq!(whole.finish.reason, FinishReason::ToolCalls, "{form}");
            }
        }
    });
}

#[test]
fn a_call_its_result_and_an_answer_make_a_round_for_a_model_that_knows_no_tools() {
    runtime().block_on(async {
        let pool = pool();
        let backend = backend(&pool);
        let whole = run(&backend, weather()).await.unwrap();
        let Item::FunctionCall(call) = &whole.items[0].1 else {
            panic!("{whole:?}")
        };
        assert!(call.call_id.starts_with("call_"));
        assert!(
            whole.deltas == 0 && whole.argument_deltas > 3,
            "arguments come in pieces: {whole:?}"
        );
        let without = run(
            &backend,
            ask("What will the weather in Paris be in the next three days?"),
        )
        .await
        .unwrap();
        assert!(
            whole.input_tokens > without.input_tokens + 50,
            "the model is told of its tools"
        );

        let mut request = weather();
        request.tool_choice = ToolChoice::Auto;
        request.input.push(Item::FunctionCall(call.clone()));
        request
            .input
            .push(Item::FunctionCallOutput(FunctionCallOutput {
                id: None,
                call_id: Arc::clone(&call.call_id),
                output: vec![Part::text("It will be sunny, 25 degrees.")],
            }));
        let whole = run(&backend, request).await.unwrap();
        assert!(
            whole
                .items
                .iter()
                .any(|(_, item)| matches!(item, Item::Message(_))),
            "{whole:?}"
        );
        assert!(whole.text().contains("sunny"), "{whole:?}");
    });
}

#[test]
fn choices_narrow_what_can_be_called() {
    runtime().block_on(async {
        let pool = pool();
        let backend = backend(&pool);
        let empty = json!({"type": "object", "properties": {}, "additionalProperties": false});
        let mut request = weather();
        request.tools.push(function("time", &empty, Some(true)));
        request.tool_choice = ToolChoice::Function("time".into());
        let whole = run(&backend, request.clone()).await.unwrap();
        assert_eq!(calls(&whole), [("time".to_owned(), json!({}))]);

        request.tool_choice = ToolChoice::None;
        request.max_output_tokens = Some(8);
        let whole = run(&backend, request.clone()).await.unwrap();
        assert!(calls(&whole).is_empty(), "{whole:?}");

        // A strict tool may be left alone.
        request.tool_choice = ToolChoice::Auto;
        let whole = run(&backend, request.clone()).await.unwrap();
        assert_ne!(
            whole.text() + &format!("{:?}", calls(&whole)),
            "[]",
            "{whole:?}"
        );

        request.tool_choice = ToolChoice::Required;
        request.parallel_tool_calls = true;
        request.max_output_tokens = Some(300);
        let whole = run(&backend, request).await.unwrap();
        let calls = calls(&whole);
        assert!(!calls.is_empty() && calls.len() <= 16, "{calls:?}");
    });
}

#[test]
fn with_tools_and_a_schema_the_answer_is_either() {
    runtime().block_on(async {
        let pool = pool();
        let backend = backend(&pool);
        let mut request = weather();
        request.tool_choice = ToolChoice::Auto;
        let form = json!({"type": "object", "properties": {"sunny": {"type": "boolean"}}, "required": ["sunny"], "additionalProperties": false});
        request.format = schema(&form.to_string());
        let whole = run(&backend, request).await.unwrap();
        match &whole.items[0].1 {
            Item::Message(_) => {
                let value: Value = serde_json::from_str(&whole.text()).unwrap();
                assert!(jsonschema::validator_for(&form).unwrap().is_valid(&value), "{value}");
            }
            Item::FunctionCall(_) => assert_eq!(calls(&whole)[0].0, "weather"),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_schema_that_cannot_be_enforced_is_refused_where_it_stands() {
    runtime().block_on(async {
        let pool = pool();
        let backend = backend(&pool);
        let bad = json!({"type": "object", "properties": {"a": {"$ref": "https://example.invalid/x.json"}}});
        let mut request = weather();
        request.tools.push(function("bad", &bad, None));
        for (dialect, param) in [
            (Dialect::Responses, "tools[1].parameters"),
            (Dialect::ChatCompletions, "tools[1].function.parameters"),
            (Dialect::Messages, "tools[1].input_schema"),
        ] {
            request.dialect = dialect;
            let error = run(&backend, request.clone()).await.unwrap_err();
            assert_eq!((error.kind(), error.param()), (ErrorKind::Invalid, Some(param)), "{error}");
        }
        // What is not enforced need not be enforceable.
        request.tool_choice = ToolChoice::Auto;
        request.max_output_tokens = Some(4);
        run(&backend, request.clone()).await.unwrap();

        let mut request = weather();
        request.tools = (0..10_000)
            .map(|n| function(&format!("f{n}"), &city(), Some(true)))
            .collect();
        let error = run(&backend, request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.param().is_some(), "{error}");
    });
}

#[test]
fn reasoning_that_the_prompt_opens_is_an_item_of_its_own_and_is_counted() {
    runtime().block_on(async {
        let pool = pool();
        let template = format!("{PLAIN}{{% if enable_thinking is not defined or enable_thinking %}}<think>\n{{% endif %}}");
        let backend = with_template(&pool, "thinker", &template);
        let mut request = ask("What is the capital of France?");
        request.max_output_tokens = Some(8);
        let whole = run(&backend, request.clone()).await.unwrap();
        let Item::Reasoning(reasoning) = &whole.items[0].1 else {
            panic!("{whole:?}")
        };
        assert!(!reasoning.content[0].is_empty());
        let usage = whole.finish.usage.unwrap();
        assert_eq!((usage.output_tokens, usage.reasoning_tokens), (8, 8));

        request.reasoning_effort = Some("none".into());
        let whole = run(&backend, request.clone()).await.unwrap();
        assert!(matches!(&whole.items[0].1, Item::Message(_)), "{whole:?}");
        assert_eq!(whole.finish.usage.unwrap().reasoning_tokens, 0);

        // A form leaves room for the reasoning that was opened, and holds behind it.
        request.reasoning_effort = Some("low".into());
        request.format = schema(r#"{"type":"boolean"}"#);
        let whole = run(&backend, request.clone()).await.unwrap();
        assert!(matches!(&whole.items[0].1, Item::Reasoning(_)), "{whole:?}");
        request.reasoning_effort = Some("none".into());
        let whole = run(&backend, request).await.unwrap();
        assert!(["true", "false"].contains(&whole.text().as_str()), "{whole:?}");
    });
}

#[test]
fn reasoning_goes_back_into_the_prompt_where_the_template_wants_it() {
    runtime().block_on(async {
        let pool = pool();
        let template = format!(
            "{{% for m in messages %}}{{{{ m.reasoning_content or '' }}}}{{% endfor %}}{PLAIN}"
        );
        let backend = with_template(&pool, "remembers", &template);
        let mut request = ask("Hello");
        request.max_output_tokens = Some(1);
        request.input.push(say(Role::Assistant, "Hi"));
        request.input.push(say(Role::User, "Again"));
        let before = run(&backend, request.clone()).await.unwrap().input_tokens;
        let reasoning = honshu_domain::Reasoning {
            content: vec!["one two three four".to_owned()],
            ..honshu_domain::Reasoning::default()
        };
        request.input.insert(1, Item::Reasoning(reasoning));
        let after = run(&backend, request).await.unwrap().input_tokens;
        assert!(after >= before + 4, "{before} {after}");
    });
}
