//! `honshu chat`: an answer or a conversation in the terminal, streamed.

use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;

use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::args::{Chat, Format, Global};
use crate::client::Api;
use crate::commands::compartment;
use crate::fail::{Failure, Result, chain};
use crate::output::{Output, printable_lines};

/// The longest event of a stream that is read, in bytes.
const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The next step after an answer that failed.
const LOG_SAYS_WHY: (&str, &str) = (
    "try again; the server's log says why",
    "やり直してください。理由はサーバーのログにあります",
);

/// What an answer was.
struct Answer {
    text: String,
    model: String,
    usage: Value,
}

/// Runs the command.
pub(crate) async fn run(global: &Global, args: Chat, output: &Output) -> Result<ExitCode> {
    let api = Api::connect(global)?;
    let compartment = compartment::resolve(&api, &args.compartment).await?;
    let model = match &args.model {
        Some(model) => model.clone(),
        None => only_model(&api, &compartment).await?,
    };
    let mut messages: Vec<Value> = Vec::new();
    if let Some(system) = &args.system {
        messages.push(json!({"role": "system", "content": system}));
    }
    if !args.message.is_empty() {
        messages.push(json!({"role": "user", "content": args.message.join(" ")}));
        let answer = ask(&api, &compartment, &model, &args, &messages, output).await?;
        if output.format == Format::Json {
            output.json(
                &json!({"model": answer.model, "text": answer.text, "usage": answer.usage}),
            )?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    converse(&api, &compartment, &model, &args, messages, output).await?;
    Ok(ExitCode::SUCCESS)
}

async fn converse(
    api: &Api,
    compartment: &str,
    model: &str,
    args: &Chat,
    mut messages: Vec<Value>,
    output: &Output,
) -> Result<()> {
    let terminal = std::io::stdin().is_terminal();
    if terminal {
        output.say(match output.lang.pick(true, false) {
            true => format!("Talking to {model}. Ctrl-D ends."),
            false => format!("{model} と会話します。Ctrl-D で終了します。"),
        });
    }
    loop {
        if terminal {
            eprint_prompt();
        }
        let mut line = String::new();
        let read = std::io::stdin()
            .lock()
            .read_line(&mut line)
            .map_err(|error| {
                Failure::new((
                    format!("cannot read standard input: {error}"),
                    format!("標準入力を読めません: {error}"),
                ))
            })?;
        if read == 0 {
            return Ok(());
        }
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        messages.push(json!({"role": "user", "content": line}));
        let answer = ask(api, compartment, model, args, &messages, output).await?;
        if output.format == Format::Json {
            output.json(
                &json!({"model": answer.model, "text": answer.text, "usage": answer.usage}),
            )?;
        }
        messages.push(json!({"role": "assistant", "content": answer.text}));
    }
}

fn eprint_prompt() {
    use std::io::Write;
    let mut err = anstream::stderr();
    let _ = write!(err, "> ").and_then(|()| err.flush());
}

/// The one model there is.
async fn only_model(api: &Api, compartment: &str) -> Result<String> {
    let answer = api
        .call(
            http::Method::GET,
            "/v1/models",
            None,
            &[("opc-compartment-id", compartment)],
        )
        .await?;
    let list: Value = answer.json()?;
    let ids: Vec<&str> = list["data"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|model| model["id"].as_str())
        .collect();
    match ids.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => Err(Failure::new((
            "the server has no model that you may use",
            "使えるモデルがサーバーにありません",
        ))
        .hint((
            "pull one: honshu model pull smollm2-135m-instruct",
            "取得してください: honshu model pull smollm2-135m-instruct",
        ))),
        several => {
            let names = several.join(", ");
            Err(
                Failure::usage(("there are several models", "モデルが複数あります")).hint((
                    format!("name one with --model: {names}"),
                    format!("--model で指定してください: {names}"),
                )),
            )
        }
    }
}

/// Asks once and prints the answer while it comes.
async fn ask(
    api: &Api,
    compartment: &str,
    model: &str,
    args: &Chat,
    messages: &[Value],
    output: &Output,
) -> Result<Answer> {
    let mut body = json!({
        "model": model,
        "messages": messages,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    if let Some(temperature) = args.temperature {
        body["temperature"] = temperature.into();
    }
    if let Some(max_tokens) = args.max_tokens {
        body["max_completion_tokens"] = max_tokens.into();
    }
    let mut stream = api
        .stream(
            "/v1/chat/completions",
            serde_json::to_vec(&body)?,
            &[("opc-compartment-id", compartment)],
        )
        .await?;
    let mut answer = Answer {
        text: String::new(),
        model: model.to_owned(),
        usage: Value::Null,
    };
    let mut pending: Vec<u8> = Vec::new();
    let mut ended = false;
    while let Some(frame) = stream.frame().await {
        let frame = frame.map_err(|error| Failure::new(chain(&error)))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        pending.extend_from_slice(&data);
        while let Some(end) = pending.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = pending.drain(..end + 2).collect();
            ended |= take(&event, &mut answer, output)?;
        }
        if pending.len() > EVENT_BYTES_MAX {
            return Err(Failure::new((
                "the server sent an event that is too long",
                "サーバーから長すぎるイベントが届きました",
            )));
        }
    }
    if output.format == Format::Table {
        output.text("\n")?;
    }
    if ended {
        Ok(answer)
    } else {
        Err(Failure::new((
            "the answer broke off before its end",
            "応答が途中で切れました",
        ))
        .hint(LOG_SAYS_WHY))
    }
}

/// Takes one event. True when it is the last.
fn take(event: &[u8], answer: &mut Answer, output: &Output) -> Result<bool> {
    let event = String::from_utf8_lossy(event);
    for line in event.lines() {
        let Some(data) = line.strip_prefix("data:").map(str::trim_start) else {
            continue;
        };
        if data == "[DONE]" {
            return Ok(true);
        }
        let value: Value = serde_json::from_str(data)?;
        if let Some(message) = value.pointer("/error/message").and_then(Value::as_str) {
            return Err(Failure::new(message.to_owned()).hint(LOG_SAYS_WHY));
        }
        if let Some(model) = value["model"].as_str() {
            model.clone_into(&mut answer.model);
        }
        if value["usage"].is_object() {
            answer.usage = value["usage"].clone();
        }
        if let Some(text) = value
            .pointer("/choices/0/delta/content")
            .and_then(Value::as_str)
        {
            answer.text.push_str(text);
            if output.format == Format::Table {
                output.text(&printable_lines(text))?;
            }
        }
    }
    Ok(false)
}
