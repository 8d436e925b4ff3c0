//! Custom tools through the whole service, in the two dialects that have them, over every kind of backend.

use serde_json::{Value, json};

use crate::matrix::{Cell, MODELS, Street, path};
use crate::support::Answer;

const INPUT: &str = "*** Begin Patch\n+\"x\"";

fn body(cell: &Cell, text: &str) -> Value {
    let grammar = json!({"syntax": "lark", "definition": "start: /(.|\\n)+/"});
    let mut flat = grammar.clone();
    flat["type"] = json!("grammar");
    let messages = json!([{"role": "user", "content": text}]);
    let mut body = json!({"model": cell.model, "stream": cell.streamed});
    if cell.dialect == "chat" {
        let format = json!({"type": "grammar", "grammar": grammar});
        body["messages"] = messages;
        body["tools"] = json!([{"type": "custom", "custom": {"name": "patch", "format": format}}]);
        body["tool_choice"] = json!({"type": "custom", "custom": {"name": "patch"}});
    } else {
        body["input"] = messages;
        body["store"] = json!(false);
        body["tools"] = json!([{"type": "custom", "name": "patch", "format": flat}]);
        body["tool_choice"] = json!({"type": "custom", "name": "patch"});
    }
    body
}

/// Name and input of the one call of an answer, as its dialect's clients read them.
fn call(cell: &Cell, answer: &Answer) -> (String, String) {
    let of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let events = || {
        let events = answer.events().into_iter().filter(|data| data != "[DONE]");
        events.map(|data| serde_json::from_str::<Value>(&data).unwrap())
    };
    match (cell.dialect, cell.streamed) {
        ("chat", false) => {
            let call = &answer.json()["choices"][0]["message"]["tool_calls"][0];
            assert_eq!(call["type"], "custom");
            (of(&call["custom"]["name"]), of(&call["custom"]["input"]))
        }
        ("chat", true) => {
            let (mut name, mut input) = (String::new(), String::new());
            for event in events() {
                let custom = &event["choices"][0]["delta"]["tool_calls"][0]["custom"];
                name.push_str(&of(&custom["name"]));
                input.push_str(&of(&custom["input"]));
            }
            (name, input)
        }
        (_, false) => {
            let item = &answer.json()["output"][0];
            assert_eq!(item["type"], "custom_tool_call");
            (of(&item["name"]), of(&item["input"]))
        }
        (_, true) => {
            let deltas: String = events()
                .filter(|event| event["type"] == "response.custom_tool_call_input.delta")
                .map(|event| of(&event["delta"]))
                .collect();
            let done: Vec<Value> = events()
                .filter(|event| event["type"] == "response.output_item.done")
                .collect();
            let item = &done.last().unwrap()["item"];
            assert_eq!(
                (of(&item["input"]), of(&item["type"])),
                (deltas.clone(), "custom_tool_call".to_owned())
            );
            (of(&item["name"]), deltas)
        }
    }
}

#[tokio::test]
async fn a_custom_tool_is_called_in_every_cell() {
    let street = Street::new().await;
    for dialect in ["chat", "responses"] {
        for model in MODELS {
            for streamed in [false, true] {
                let cell = Cell {
                    dialect,
                    model,
                    streamed,
                };
                // An upstream that speaks Chat alone sees a function of one text.
                let wraps = dialect == "responses" && model == "up.chat";
                let told = if wraps {
                    json!({"input": INPUT})
                } else {
                    json!(INPUT)
                };
                let asked = body(&cell, &format!("Call the tool patch with {told}"));
                let answer = street
                    .house
                    .post(&street.secret, path(dialect), asked.to_string())
                    .await;
                let what = format!("{cell:?}\n{}", answer.text());
                assert_eq!(answer.status, 200, "{what}");
                let expected = ("patch".to_owned(), INPUT.to_owned());
                assert_eq!(call(&cell, &answer), expected, "{what}");
                // The scripted model solves no grammar, and neither does who sees a function; others pass it on.
                let ignored = answer.header("honshu-ignored").unwrap_or_default();
                let is_named = ignored.contains("tools[0]");
                assert_eq!(is_named, wraps || model == MODELS[0], "{ignored}: {what}");
            }
        }
    }
}
