//! What the scripted model obeys.

use std::time::Duration;

use futures_util::StreamExt as _;
use honshu_domain::{
    Backend, CustomTool, Demand, Dialect, ErrorKind, FinishReason, FunctionCallOutput,
    FunctionTool, GrammarSyntax, InferenceRequest, InputFormat, Item, Part, RawJson, Retry,
    RunEvent, Support, TextFormat, Tool, ToolChoice,
};
use honshu_provider::ScriptedProvider;
use honshu_testkit::request;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::common::{Got, attempt, read, run};

fn scripted() -> ScriptedProvider {
    ScriptedProvider::new("scripted")
}

fn tool(name: &str, schema: &Value) -> Tool {
    Tool::Function(FunctionTool {
        name: name.into(),
        description: None,
        parameters: Some(RawJson::from(schema)),
        strict: Some(true),
    })
}

fn weather() -> Tool {
    tool(
        "weather",
        &json!({"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer","minimum":2}},"required":["city","days"]}),
    )
}

async fn ask(text: &str, change: impl FnOnce(&mut InferenceRequest)) -> Got {
    let mut asked = request("honshu.scripted", text);
    change(&mut asked);
    run(&scripted(), asked).await
}

#[tokio::test]
async fn it_answers_what_it_is_told_to() {
    for (text, answer) in [
        ("Reply with exactly: pong", "pong"),
        (
            "Please.\nReply with exactly:   大阪城 is a castle  ",
            "大阪城 is a castle",
        ),
        (
            "Reply with exactly:\nline one\nline two",
            "line one\nline two",
        ),
        ("Answer with 3 words", "one island of"),
        (
            "hello",
            "This is the scripted model of Honshu. It does what the last message tells it.",
        ),
    ] {
        let got = ask(text, |_| {}).await;
        assert_eq!(
            (got.text().as_str(), got.messages()),
            (answer, vec![answer.to_owned()]),
            "{text}"
        );
        assert_eq!(got.finish().unwrap().reason, FinishReason::Stop);
    }
}

#[tokio::test]
async fn the_same_request_gives_the_same_events_and_counts() {
    let once = ask("Reply with exactly: a b  c", |r| {
        r.instructions = Some("be brief".into())
    })
    .await;
    let twice = ask("Reply with exactly: a b  c", |r| {
        r.instructions = Some("be brief".into())
    })
    .await;
    assert_eq!(format!("{:?}", once.events), format!("{:?}", twice.events));
    let usage = once.finish().unwrap().usage.unwrap();
    // Two items of 3 and their 2 and 6 words; three words out.
    assert_eq!((usage.input_tokens, usage.output_tokens), (14, 3));
    assert_eq!(once.text(), "a b  c");
}

#[tokio::test]
async fn it_calls_tools_and_quotes_their_results() {
    let told = "Call the tool weather with {\"city\":\"Osaka\"}\nCall the tool weather with {\"city\":\"Chicago\"}";
    let got = ask(told, |r| r.tools = vec![weather()]).await;
    let calls = got.calls();
    let arguments: Vec<&str> = calls.iter().map(|call| call.arguments.as_str()).collect();
    assert_eq!(
        arguments,
        ["{\"city\":\"Osaka\"}", "{\"city\":\"Chicago\"}"]
    );
    assert_ne!(calls[0].call_id, calls[1].call_id);
    assert_eq!(got.finish().unwrap().reason, FinishReason::ToolCalls);

    let one = ask(told, |r| {
        r.tools = vec![weather()];
        r.parallel_tool_calls = false;
    })
    .await;
    assert_eq!(one.calls().len(), 1);

    let answer = ask(told, |r| {
        r.tools = vec![weather()];
        r.input.push(Item::FunctionCall(calls[0].clone()));
        r.input.push(Item::FunctionCallOutput(FunctionCallOutput {
            id: None,
            call_id: calls[0].call_id.clone(),
            output: vec![Part::text("sunny, 21 degrees")],
        }));
    })
    .await;
    assert_eq!(answer.text(), "The tool said: sunny, 21 degrees");

    let unknown = ask("Call the tool nothing with {}", |r| {
        r.tools = vec![weather()]
    })
    .await;
    assert!(unknown.calls().is_empty() && unknown.text().contains("`nothing`"));
}

#[tokio::test]
async fn it_calls_custom_tools_and_says_that_it_solves_no_grammar() {
    let tools = || {
        let format = InputFormat::Grammar {
            syntax: GrammarSyntax::Regex,
            definition: "a+".into(),
        };
        let custom = |name: &str, format| {
            Tool::Custom(CustomTool {
                name: name.into(),
                description: None,
                format,
            })
        };
        vec![custom("run", InputFormat::Text), custom("patch", format)]
    };
    let told = "Call the tool run with ls -l {x}\nCall the tool patch with \"a\\nb\"";
    let got = ask(told, |r| r.tools = tools()).await;
    let calls = got.custom_calls();
    let inputs: Vec<&str> = calls.iter().map(|call| call.input.as_str()).collect();
    assert_eq!(inputs, ["ls -l {x}", "a\nb"]);
    assert_eq!(got.finish().unwrap().reason, FinishReason::ToolCalls);

    let forced = ask("hello", |r| {
        r.tools = tools();
        r.tool_choice = ToolChoice::Custom("patch".into());
    })
    .await;
    assert_eq!(&*forced.custom_calls()[0].name, "patch");

    let answer = ask(told, |r| {
        r.tools = tools();
        r.input.push(Item::CustomToolCall(calls[0].clone()));
        r.input.push(Item::CustomToolCallOutput(FunctionCallOutput {
            id: None,
            call_id: calls[0].call_id.clone(),
            output: vec![Part::text("three files")],
        }));
    })
    .await;
    assert_eq!(answer.text(), "The tool said: three files");

    let mut asked = request("honshu.scripted", "hi");
    asked.tools = tools();
    assert_eq!(scripted().leaves_out("up", &asked), ["tools[1].format"]);
}

#[tokio::test]
async fn a_forced_or_only_tool_is_called_with_arguments_of_its_schema() {
    let expected = json!({"city":"city","days":2});
    let other = || tool("other", &json!({"type":"object","properties":{}}));
    let cases: [(Vec<Tool>, ToolChoice, &str); 4] = [
        (vec![weather()], ToolChoice::Auto, "weather"),
        (vec![weather(), other()], ToolChoice::Required, "weather"),
        (
            vec![other(), weather()],
            ToolChoice::Function("weather".into()),
            "weather",
        ),
        (vec![weather(), other()], ToolChoice::Auto, ""),
    ];
    for (tools, choice, name) in cases {
        let got = ask("What is the weather?", |r| {
            r.tools = tools;
            r.tool_choice = choice.clone();
        })
        .await;
        if name.is_empty() {
            assert!(
                got.calls().is_empty(),
                "several tools and no word: it chooses none"
            );
            continue;
        }
        let call = got.calls().remove(0);
        assert_eq!(&*call.name, name, "{choice:?}");
        assert_eq!(
            serde_json::from_str::<Value>(&call.arguments).unwrap(),
            expected
        );
    }
    let none = ask("What is the weather?", |r| {
        r.tools = vec![weather()];
        r.tool_choice = ToolChoice::None;
    })
    .await;
    assert!(none.calls().is_empty());
}

#[tokio::test]
async fn schemas_are_filled() {
    let cases = [
        (json!({"type":"string","enum":["b","a"]}), json!("b")),
        (json!({"const":42}), json!(42)),
        (
            json!({"type":"integer","exclusiveMinimum":4,"multipleOf":5}),
            json!(5),
        ),
        (
            json!({"type":"integer","exclusiveMinimum":5,"multipleOf":5}),
            json!(10),
        ),
        (json!({"type":"integer","maximum":-3}), json!(-3)),
        (
            json!({"type":"number","minimum":0.25,"maximum":0.5}),
            json!(0.375),
        ),
        (
            json!({"type":["string","null"],"minLength":9}),
            json!("textxxxxx"),
        ),
        (json!({"type":"string","maxLength":2}), json!("te")),
        (
            json!({"type":"string","format":"date-time"}),
            json!("2026-01-23T09:30:00Z"),
        ),
        (
            json!({"anyOf":[{"type":"null"},{"type":"boolean"}]}),
            json!(true),
        ),
        (
            json!({"type":"array","items":{"type":"integer"},"minItems":3,"uniqueItems":true}),
            json!([1, 2, 3]),
        ),
        (
            json!({"type":"array","prefixItems":[{"const":"a"},{"const":"b"}],"minItems":2}),
            json!(["a", "b"]),
        ),
        (
            json!({"type":"object","properties":{"a":{"$ref":"#/$defs/A"}},"required":["a"],"$defs":{"A":{"type":"object","properties":{"n":{"type":"integer","maximum":9_007_199_254_740_991_i64}}}}}),
            json!({"a":{"n":1}}),
        ),
        (
            json!({"allOf":[{"type":"object","properties":{"a":{"const":1}}},{"properties":{"b":{"const":2}},"required":["b"]}]}),
            json!({"a":1,"b":2}),
        ),
    ];
    for (schema, expected) in cases {
        let got = ask("fill it", |r| {
            r.format = TextFormat::JsonSchema {
                name: "x".into(),
                description: None,
                schema: RawJson::from(&schema),
                strict: Some(true),
            };
        })
        .await;
        assert_eq!(
            serde_json::from_str::<Value>(&got.text()).unwrap(),
            expected,
            "{schema}"
        );
    }
    let endless = json!({"type":"object","properties":{"child":{"$ref":"#"},"n":{"type":"integer"}},"required":["n"]});
    let got = ask("fill it", |r| {
        r.format = TextFormat::JsonSchema {
            name: "x".into(),
            description: None,
            schema: RawJson::from(&endless),
            strict: None,
        };
    })
    .await;
    assert!(serde_json::from_str::<Value>(&got.text()).unwrap()["child"]["child"]["n"] == 1);
    let object = ask("x", |r| r.format = TextFormat::JsonObject).await;
    assert!(
        serde_json::from_str::<Value>(&object.text())
            .unwrap()
            .is_object()
    );
}

#[tokio::test]
async fn limits_stops_choices_logprobs_and_reasoning_are_honoured() {
    let short = ask("Answer with 10 words", |r| r.max_output_tokens = Some(4)).await;
    assert_eq!(short.text(), "one island of many");
    assert_eq!(short.finish().unwrap().reason, FinishReason::Length);

    let call = ask("x", |r| {
        r.tools = vec![tool(
            "t",
            &json!({"type":"object","properties":{"long text":{"const":"a b c d e f"}}}),
        )];
        r.max_output_tokens = Some(2);
    })
    .await;
    assert!(
        call.calls().is_empty(),
        "a call that was cut off is not done"
    );
    assert_eq!(call.finish().unwrap().reason, FinishReason::Length);

    let stopped = ask("Reply with exactly: one two three", |r| {
        r.stop = vec!["zzz".into(), "tw".into()]
    })
    .await;
    assert_eq!(stopped.text(), "one ");

    let twice = ask("Reply with exactly: x", |r| r.choices = 2).await;
    assert_eq!(twice.messages(), ["x", "x"]);
    let choices = twice
        .events
        .iter()
        .filter(|e| matches!(e, RunEvent::ChoiceFinished { .. }))
        .count();
    assert_eq!(choices, 2);

    let sure = ask("Reply with exactly: a b", |r| r.top_logprobs = Some(2)).await;
    let logprobs: Vec<_> = sure
        .events
        .iter()
        .filter_map(|event| match event {
            RunEvent::Delta { text, logprobs, .. } => {
                Some((text.clone(), logprobs[0].token.clone()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(
        logprobs,
        [("a".into(), "a".into()), (" b".into(), " b".into())]
    );

    for thinks in [
        ask("Reply with exactly: x", |r| {
            r.reasoning_effort = Some("low".into())
        })
        .await,
        ask("Reply with exactly: x [scripted: reasoning]", |_| {}).await,
    ] {
        assert!(matches!(thinks.items().next(), Some(Item::Reasoning(_))));
        assert_eq!(thinks.messages(), ["x"]);
        let usage = thinks.finish().unwrap().usage.unwrap();
        assert_eq!(usage.output_tokens, usage.reasoning_tokens + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn it_stalls_fails_and_is_cut_where_it_is_told() {
    let told = |knobs: &str| {
        request(
            "honshu.scripted",
            &format!("Answer with 5 words [scripted: {knobs}]"),
        )
    };
    let failed = run(&scripted(), told("fail-at=4 status=429")).await;
    assert_eq!(failed.events.len(), 4);
    let error = failed.error.unwrap();
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::RateLimited, Retry::After(Duration::from_secs(1)))
    );

    let before = run(&scripted(), told("fail-at=0")).await;
    assert!(before.events.is_empty() && before.error.is_some());

    let cut = run(&scripted(), told("cut-at=6")).await;
    assert_eq!(
        (
            cut.events.len(),
            cut.finish().is_none(),
            cut.error.is_none()
        ),
        (6, true, true)
    );

    let mut stalls = scripted().generate(attempt(told("stall-at=2"), "up"));
    for _ in 0..2 {
        stalls.next().await.unwrap().unwrap();
    }
    let silent = tokio::time::timeout(Duration::from_secs(1_000), stalls.next()).await;
    assert!(silent.is_err());

    let begun = Instant::now();
    let slow = run(&scripted(), told("delay-ms=20 first-ms=100")).await;
    assert_eq!(slow.text(), "one island of many between");
    assert_eq!(begun.elapsed(), Duration::from_millis(200));

    let begun = Instant::now();
    let configured = attempt(
        request("honshu.scripted", "Answer with 5 words"),
        "honshu.scripted?delay-ms=10",
    );
    assert!(
        read(scripted().generate(configured))
            .await
            .finish()
            .is_some()
    );
    assert_eq!(begun.elapsed(), Duration::from_millis(50));
}

#[test]
fn it_does_not_claim_what_it_drops() {
    let supports = |demand| scripted().supports("x", Dialect::Responses, demand);
    assert_eq!(supports(Demand::StoredState), Support::No);
    assert_eq!(supports(Demand::Audio), Support::No);
    assert_eq!(supports(Demand::ForeignItems), Support::No);
    assert_eq!(supports(Demand::JsonSchema), Support::Yes);
    assert!(!scripted().passes_through("x", Dialect::Responses));
}

#[tokio::test]
async fn a_plan_leads_through_several_turns() {
    let plan = "Do it:\nCall the tool weather with {\"city\":\"a\"}\nCall the tool weather with {\"city\":\"b\"}\n\
                Then call the tool weather with {\"city\":\"c\"}\nThen reply with exactly: all done";
    let result = |id: &str| {
        Item::FunctionCallOutput(FunctionCallOutput {
            id: None,
            call_id: id.into(),
            output: vec![Part::text("rain")],
        })
    };
    // Agents put messages of their own between the turns.
    let reminder = request("m", "[SYSTEM] Go on until you are done.")
        .input
        .remove(0);
    for with_reminder in [false, true] {
        for (results, cities, text) in [
            (0, vec!["a", "b"], ""),
            (2, vec!["c"], ""),
            (3, vec![], "all done"),
        ] {
            let got = ask(plan, |request| {
                request.tools = vec![weather()];
                request
                    .input
                    .extend((0..results).map(|n| result(&n.to_string())));
                if with_reminder {
                    request.input.insert(1, reminder.clone());
                }
            })
            .await;
            let calls: Vec<String> = got
                .calls()
                .iter()
                .map(|call| call.arguments.clone())
                .collect();
            let wanted: Vec<String> = cities
                .iter()
                .map(|city| format!("{{\"city\":\"{city}\"}}"))
                .collect();
            assert_eq!((calls, got.text().as_str()), (wanted, text), "{results}");
        }
    }
    // A plan is over when somebody tells something else.
    let got = ask(plan, |request| {
        request.tools = vec![weather()];
        request.input.push(result("1"));
        let stop = honshu_testkit::request("m", "Reply with exactly: stop");
        request.input.extend(stop.input);
    })
    .await;
    assert_eq!(got.text(), "stop");
}
