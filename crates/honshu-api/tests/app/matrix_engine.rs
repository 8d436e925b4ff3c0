//! The same table for the built-in engine with the small real model: forced choices, schemas with one way out and greedy
//! decoding make it as predictable as a script. One engine serves all cells, as two would share two processors.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use honshu_domain::Timeouts;
use honshu_engine::{EnginePool, LoadOptions, ModelOptions, PoolOptions};
use honshu_testkit::model;
use serde_json::{Value, json};

use crate::matrix::{
    Cell, DIALECTS, Options, Seen, body, called, leave, path, read, row_after, seen,
};
use crate::support::{Answer, House};

const ENGINE: &str = "engine.small";
/// Room for the answers that must not end before the caller leaves or the clock runs out.
const CONTEXT: u32 = 8_192;
/// Until a run is ended from outside. Long enough for its first events on a slow machine.
const DEADLINE: Duration = Duration::from_secs(8);

/// Shows tools to the model, so that it may call several.
const TEMPLATE: &str = "{% if tools %}{{ tools | tojson }}\n{% endif %}\
    {% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n\
    {# <tool_call> </tool_call> #}";

/// What a row wants of every cell.
enum Wanted {
    /// Exactly this.
    Exactly(Seen),
    /// The same in every cell, and what the function says.
    Alike(fn(&Seen) -> bool),
    /// No cell can show it, for the reason given.
    Absent(&'static str),
}

fn model_path() -> PathBuf {
    std::env::var_os("HONSHU_TEST_MODEL").map_or_else(
        || {
            PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("../../.cache/models/smollm2-135m-instruct.gguf")
        },
        PathBuf::from,
    )
}

static POOL: LazyLock<EnginePool> = LazyLock::new(|| EnginePool::new(PoolOptions::default()));

async fn house(timeouts: Timeouts) -> (House, String) {
    let house = House::with_timeouts(timeouts).await;
    let path = model_path();
    assert!(
        path.exists(),
        "no test model at {}: run make test-model",
        path.display()
    );
    let options = ModelOptions {
        load: LoadOptions {
            n_ctx: CONTEXT,
            n_seq_max: 4,
            ..LoadOptions::default()
        },
        chat_template: Some(TEMPLATE.into()),
    };
    let backend = POOL.backend_for(&path, "small", options);
    house
        .catalogue
        .insert(ENGINE, Arc::new(model(ENGINE, backend)), false);
    let secret = house.chatting().await;
    // The first request loads the model, which may take longer than a run should.
    let warm = Cell {
        dialect: "chat",
        model: ENGINE,
        streamed: false,
    };
    for _ in 0..10 {
        let asked = engine_body(
            &warm,
            "Hi",
            &Options {
                tokens_max: Some(1),
                ..Options::default()
            },
        );
        if ask(&house, &secret, &warm, &asked).await.status == 200 {
            return (house, secret);
        }
    }
    panic!("the model is not loaded after ten runs")
}

fn cells() -> impl Iterator<Item = Cell> {
    DIALECTS.into_iter().flat_map(|dialect| {
        [false, true].map(|streamed| Cell {
            dialect,
            model: ENGINE,
            streamed,
        })
    })
}

/// A body whose answer depends on nothing but the prompt.
fn engine_body(cell: &Cell, text: &str, options: &Options) -> Value {
    let mut body = body(cell, text, options);
    body["temperature"] = json!(0);
    if options.tools {
        if cell.dialect == "messages" {
            body["tool_choice"] =
                json!({"type": "any", "disable_parallel_tool_use": !options.parallel});
        } else {
            body["tool_choice"] = json!("required");
            body["parallel_tool_calls"] = json!(options.parallel);
        }
    }
    body
}

async fn ask(house: &House, secret: &str, cell: &Cell, body: &Value) -> Answer {
    house
        .post(secret, path(cell.dialect), body.to_string())
        .await
}

/// White space in an answer with a schema is the model's own.
fn without_space(mut seen: Seen) -> Seen {
    if let Ok(value) = serde_json::from_str::<Value>(&seen.text) {
        seen.text = value.to_string();
    }
    seen
}

#[tokio::test]
async fn every_cell_of_the_engine() {
    let (house, secret) = house(Timeouts::default()).await;
    let osaka = Some("Osaka");
    let capital = "What is the capital of France?";
    let call = |parallel| Options {
        tools: true,
        parallel,
        only: osaka,
        ..Options::default()
    };
    let table: [(&str, &str, Options, Wanted); 7] = [
        (
            "text",
            capital,
            Options::default(),
            Wanted::Alike(|seen| seen.text.contains("Paris") && seen.reason == "stop"),
        ),
        (
            "tool call",
            "What is the weather in Osaka?",
            call(false),
            Wanted::Exactly(called(&["Osaka"])),
        ),
        (
            "parallel tool calls",
            "What is the weather in Osaka?",
            call(true),
            Wanted::Alike(|seen| {
                let first = called(&["Osaka"]).calls;
                seen.calls.len() > 1
                    && seen.calls.iter().all(|call| *call == first[0])
                    && seen.reason == "tool_calls"
            }),
        ),
        (
            "structured",
            "Where?",
            Options {
                schema: true,
                only: osaka,
                ..Options::default()
            },
            Wanted::Exactly(seen("{\"city\":\"Osaka\"}", "stop")),
        ),
        (
            "refusal",
            "Refuse to answer.",
            Options::default(),
            Wanted::Absent("open models decline in plain text; nothing marks it as a refusal"),
        ),
        (
            "length",
            "Tell me a long story about islands.",
            Options {
                tokens_max: Some(16),
                ..Options::default()
            },
            Wanted::Alike(|seen| !seen.text.is_empty() && seen.reason == "length"),
        ),
        (
            "stop",
            capital,
            Options {
                stop: Some("Paris"),
                ..Options::default()
            },
            Wanted::Alike(|seen| {
                !seen.text.is_empty() && !seen.text.contains("Paris") && seen.reason == "stop"
            }),
        ),
    ];
    for (name, text, options, wanted) in &table {
        let mut first: Option<Seen> = None;
        for cell in cells() {
            // Responses has no stop texts.
            if options.stop.is_some() && cell.dialect == "responses" {
                continue;
            }
            let answer = ask(&house, &secret, &cell, &engine_body(&cell, text, options)).await;
            let mut got = read(&cell, &answer);
            if options.schema {
                got = without_space(got);
            }
            let what = format!("{name}: {cell:?}: {got:?}\n{}", answer.text());
            match wanted {
                Wanted::Exactly(wanted) => assert_eq!(&got, wanted, "{what}"),
                Wanted::Alike(fits) => {
                    assert!(fits(&got), "{what}");
                    assert_eq!(first.get_or_insert_with(|| got.clone()), &got, "{what}");
                }
                Wanted::Absent(reason) => assert!(got.refusal.is_empty(), "{reason}: {what}"),
            }
        }
    }
}

/// An answer that goes on until somebody ends it.
fn endless(cell: &Cell) -> Value {
    let mut body = engine_body(
        cell,
        "Count.",
        &Options {
            schema: true,
            ..Options::default()
        },
    );
    let schema = json!({"type": "object", "properties": {"a": {
        "type": "array", "items": {"enum": ["island"]}, "minItems": 4_000}}, "required": ["a"],
        "additionalProperties": false});
    match cell.dialect {
        "chat" => body["response_format"]["json_schema"]["schema"] = schema,
        "responses" => body["text"]["format"]["schema"] = schema,
        _ => {
            body["output_config"]["format"]["schema"] = schema;
            body["max_tokens"] = json!(CONTEXT);
        }
    }
    body
}

#[tokio::test]
async fn every_cell_of_the_engines_failures_and_of_callers_that_leave_it() {
    let (house, secret) = house(Timeouts {
        run_deadline: DEADLINE,
        ..Timeouts::default()
    })
    .await;
    let long = "word ".repeat(CONTEXT as usize + 1_000);
    for cell in cells() {
        let asked = engine_body(&cell, &long, &Options::default());
        let before = ask(&house, &secret, &cell, &asked).await;
        let got = read(&cell, &before);
        assert_eq!(
            (got.error, before.status.as_u16()),
            ("http", 400),
            "{cell:?}"
        );

        let after = ask(&house, &secret, &cell, &endless(&cell)).await;
        let got = read(&cell, &after);
        // What is not streamed has sent nothing yet when the clock runs out.
        let wanted = if cell.streamed { "stream" } else { "http" };
        assert_eq!(
            (got.error, got.reason.as_str()),
            (wanted, ""),
            "{cell:?}\n{}",
            after.text()
        );
        // On a busy machine the first tokens may be white space and no more.
        assert_eq!(got.text.is_empty(), !cell.streamed, "{cell:?}: {got:?}");

        let runs = house.usage.rows().len();
        leave(&house, &secret, &cell, &endless(&cell)).await;
        assert_eq!(&*row_after(&house, runs).await, "cancelled", "{cell:?}");
    }
}
