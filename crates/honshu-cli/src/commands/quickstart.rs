//! `honshu quickstart`: from nothing to an answer, with nothing that a user could not do by hand.

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use honshu_egress::{AddressRules, Client, ClientOptions};
use honshu_server::{InitOptions, LogFormat, ServeOptions, Server};
use http::{Request, header};
use serde_json::{Value, json};

use crate::args::{Global, Quickstart};
use crate::client::{Api, escape};
use crate::commands::model;
use crate::commands::serve::{runtime, start_failure};
use crate::fail::{Failure, Result, chain};
use crate::output::{Output, field, printable_lines};

/// The article's question, and its English form for models that speak no Japanese.
const QUESTION_JA: &str = "日本列島で最も大きな島の名前は?";
const QUESTION_EN: &str = "What is the name of the largest island of the Japanese archipelago?";

/// What quickstart makes, by name, and finds again on its next run.
const COMPARTMENT: &str = "quickstart";
const API_KEY: &str = "quickstart";
const POLICY: &str = "quickstart-chat";

/// A small model on a slow machine may take a while over its first answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;
const ANSWER_TOKENS_MAX: u32 = 256;

/// Runs the command.
pub(crate) fn run(global: &Global, args: Quickstart, output: &Output) -> Result<ExitCode> {
    let data_dir = global.data_dir()?;
    runtime()?.block_on(async {
        let model = model::pull(&data_dir, &args.model, output).await?;
        honshu_server::init(InitOptions {
            data_dir: data_dir.clone(),
            region: None,
            tenancy_name: "honshu".to_owned(),
        })
        .await
        .map_err(start_failure)?;
        let server = Server::start(ServeOptions {
            data_dir,
            listen: Some(args.listen.unwrap_or_else(free_address)),
            config: None,
            log_format: LogFormat::for_terminal(Output::interactive()),
            log: false,
            executable: std::env::current_exe().ok(),
        })
        .await
        .map_err(start_failure)?;
        let result = show(global, &server, &model, output).await;
        let waits = result.is_ok() && !args.once;
        if waits {
            output.tell("Ctrl-C ends.", "Ctrl-C で終了します。");
            server.run_until_signal().await.map_err(start_failure)?;
        } else {
            server.stop().await;
        }
        result.map(|()| ExitCode::SUCCESS)
    })
}

/// Key, policy, question, answer.
async fn show(
    global: &Global,
    server: &Server,
    model: &model::Pulled,
    output: &Output,
) -> Result<()> {
    let endpoint = server
        .endpoints()
        .first()
        .map(|endpoint| endpoint.url.clone())
        .ok_or_else(|| {
            Failure::new((
                "the server has no region",
                "サーバーにリージョンがありません",
            ))
        })?;
    let api = Api::new(endpoint.clone(), global.load_profile()?);
    let compartment = compartment(&api).await?;
    let secret = secret(&api, &compartment).await?;
    policy(&api, &compartment).await?;

    let question = if model.japanese {
        QUESTION_JA
    } else {
        output.say(format!(
            "{} は日本語を話さないので、英語で尋ねます。({} speaks no Japanese, so the question is in English.)",
            model.id, model.id
        ));
        QUESTION_EN
    };
    let response = ask(&endpoint, &secret, &model.id, question).await?;
    let text = answer_text(&response).ok_or_else(|| {
        Failure::new((
            "the answer holds no message",
            "応答にメッセージがありません",
        ))
    })?;
    let count = |name: &str| field(&response["usage"], name);
    // The labels are the article's, in any language.
    output.text(&format!(
        "【プロンプト】\n{question}\n\n【応答テキスト】\n{}\n\n【トークン数】\n入力トークン: {}\n出力トークン: {}\n合計トークン: {}\n\n",
        printable_lines(text),
        count("input_tokens"),
        count("output_tokens"),
        count("total_tokens"),
    ))?;
    output.text(&format!(
        "Base URL: {endpoint}/20231130/actions/v1\nAPI Key:  {secret}\nModel ID: {}\n",
        model.id
    ))
}

async fn compartment(api: &Api) -> Result<String> {
    let root = api.profile.tenancy.clone();
    let found = api
        .list(&format!(
            "/20160918/compartments?compartmentId={}&name={COMPARTMENT}",
            escape(&root)
        ))
        .await?;
    if let Some(found) = found.first() {
        return Ok(field(found, "id"));
    }
    let made: Value = api
        .post(
            "/20160918/compartments",
            &json!({"compartmentId": root, "name": COMPARTMENT, "description": "made by honshu quickstart"}),
        )
        .await?
        .json()?;
    Ok(field(&made, "id"))
}

/// A key with two secrets; on a later run its first secret is renewed, since secrets are shown only once.
async fn secret(api: &Api, compartment: &str) -> Result<String> {
    let found = api
        .list(&format!(
            "/20231130/apikeys?compartmentId={}&displayName={API_KEY}&lifecycleState=ACTIVE",
            escape(compartment)
        ))
        .await?;
    let key: Value = match found.first() {
        Some(key) => api
            .post(
                &format!(
                    "/20231130/apikeys/{}/actions/renew",
                    escape(&field(key, "id"))
                ),
                &json!({"details": {"keyName": "key-one"}}),
            )
            .await?
            .json()?,
        None => api
            .post(
                "/20231130/apikeys",
                &json!({
                    "displayName": API_KEY,
                    "compartmentId": compartment,
                    "keyDetails": [{"keyName": "key-one"}, {"keyName": "key-two"}],
                }),
            )
            .await?
            .json()?,
    };
    key["keys"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|secret| secret["keyName"] == "key-one")
        .and_then(|secret| secret["key"].as_str())
        .map(str::to_owned)
        .ok_or_else(|| {
            Failure::new((
                "the server showed no secret",
                "サーバーがキーの値を返しませんでした",
            ))
        })
}

async fn policy(api: &Api, compartment: &str) -> Result<()> {
    let found = api
        .list(&format!(
            "/20160918/policies?compartmentId={}&name={POLICY}",
            escape(compartment)
        ))
        .await?;
    if found.iter().any(|policy| policy["name"] == POLICY) {
        return Ok(());
    }
    api.post(
        "/20160918/policies",
        &json!({
            "compartmentId": compartment,
            "name": POLICY,
            "description": "made by honshu quickstart",
            "statements": [format!(
                "allow any-user to use generative-ai-chat in compartment {COMPARTMENT} where request.principal.type = 'generativeaiapikey'"
            )],
        }),
    )
    .await
    .map(|_| ())
}

/// The call of the article, with the key and nothing else.
async fn ask(endpoint: &str, secret: &str, model: &str, question: &str) -> Result<Value> {
    let client = Client::new(ClientOptions {
        allow: AddressRules::any(),
        ..ClientOptions::default()
    });
    let body = serde_json::to_vec(&json!({
        "model": model,
        "input": question,
        "max_output_tokens": ANSWER_TOKENS_MAX,
    }))?;
    let request = Request::post(format!("{endpoint}/20231130/actions/v1/responses"))
        .header(header::AUTHORIZATION, format!("Bearer {secret}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)?;
    let work = async {
        let response = client
            .send(request)
            .await
            .map_err(|error| Failure::new(chain(&error)))?;
        let status = response.status();
        let body = response
            .into_body()
            .collect_bounded(ANSWER_BYTES_MAX)
            .await
            .map_err(|error| Failure::new(chain(&error)))?;
        let value: Value = serde_json::from_slice(&body)?;
        if status.is_success() {
            Ok(value)
        } else {
            Err(Failure::new(format!(
                "{} ({status})",
                field(&value, "message")
            )))
        }
    };
    tokio::time::timeout(ANSWER_TIMEOUT, work)
        .await
        .map_err(|_| {
            Failure::new((
                "no answer within ten minutes",
                "10分以内に応答がありませんでした",
            ))
        })?
}

fn answer_text(response: &Value) -> Option<&str> {
    response["output"]
        .as_array()?
        .iter()
        .find(|item| item["type"] == "message")?["content"][0]["text"]
        .as_str()
}

/// The usual port, or any other when it is taken.
fn free_address() -> SocketAddr {
    let usual = SocketAddr::from(([127, 0, 0, 1], 8080));
    if TcpListener::bind(usual).is_ok() {
        usual
    } else {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }
}
