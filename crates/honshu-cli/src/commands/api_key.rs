//! `honshu api-key`.

use serde_json::{Map, Value, json};

use crate::args::ApiKeyCommand;
use crate::client::{Api, escape};
use crate::commands::compartment;
use crate::fail::{Failure, Result};
use crate::output::{Output, field};

const KEYS: &str = "/20231130/apikeys";

/// Runs a command.
pub(crate) async fn run(api: &Api, command: ApiKeyCommand, output: &Output) -> Result<()> {
    match command {
        ApiKeyCommand::Create {
            compartment,
            display_name,
            description,
            key_one_name,
            key_one_expires,
            key_two_name,
            key_two_expires,
        } => {
            let compartment = compartment::resolve(api, &compartment).await?;
            if key_two_name.is_none() && key_two_expires.is_some() {
                return Err(Failure::usage((
                    "--key-two-expires needs --key-two-name",
                    "--key-two-expires には --key-two-name が必要です",
                ))
                .hint((
                    "name the second secret, or leave its end out",
                    "2つ目のキーに名前を付けるか、期限の指定を省いてください",
                )));
            }
            let mut secrets = vec![details(&key_one_name, key_one_expires.as_deref())];
            secrets.extend(key_two_name.map(|name| details(&name, key_two_expires.as_deref())));
            let mut body = json!({
                "displayName": display_name,
                "compartmentId": compartment,
                "keyDetails": secrets,
            });
            if let Some(description) = description {
                body["description"] = description.into();
            }
            let key: Value = api.post(KEYS, &body).await?.json()?;
            show(&key, output)?;
            say_once(output);
            Ok(())
        }
        ApiKeyCommand::List { compartment } => {
            let compartment = compartment::resolve(api, &compartment).await?;
            let keys = api
                .list(&format!("{KEYS}?compartmentId={}", escape(&compartment)))
                .await?;
            output.list(
                &keys,
                &["name", "state", "secrets", "created", "id"],
                |key| {
                    vec![
                        field(key, "displayName"),
                        field(key, "lifecycleState"),
                        secrets_in_short(key),
                        field(key, "timeCreated"),
                        field(key, "id"),
                    ]
                },
            )
        }
        ApiKeyCommand::Get(id) => {
            let key: Value = api.get(&path(&id.api_key_id)).await?;
            show(&key, output)
        }
        ApiKeyCommand::Update {
            key,
            display_name,
            description,
        } => {
            let mut body = Map::new();
            for (name, value) in [("displayName", display_name), ("description", description)] {
                if let Some(value) = value {
                    body.insert(name.to_owned(), value.into());
                }
            }
            if body.is_empty() {
                return Err(
                    Failure::usage(("nothing to change", "変更する内容がありません")).hint((
                        "give --display-name or --description",
                        "--display-name または --description を指定してください",
                    )),
                );
            }
            let key: Value = api
                .put(&path(&key.api_key_id), &Value::Object(body))
                .await?
                .json()?;
            show(&key, output)
        }
        ApiKeyCommand::Renew {
            key,
            key_name,
            expires,
        } => {
            let key: Value = api
                .post(
                    &format!("{}/actions/renew", path(&key.api_key_id)),
                    &json!({"details": details(&key_name, expires.as_deref())}),
                )
                .await?
                .json()?;
            show(&key, output)?;
            say_once(output);
            Ok(())
        }
        ApiKeyCommand::SetState {
            key,
            key_name,
            state,
        } => {
            let key: Value = api
                .post(
                    &format!("{}/actions/setstate", path(&key.api_key_id)),
                    &json!({"keyName": key_name, "state": state.to_ascii_uppercase()}),
                )
                .await?
                .json()?;
            show(&key, output)
        }
        ApiKeyCommand::ChangeCompartment { key, compartment } => {
            let compartment = compartment::resolve(api, &compartment).await?;
            api.post(
                &format!("{}/actions/changeCompartment", path(&key.api_key_id)),
                &json!({"compartmentId": compartment}),
            )
            .await?;
            output.done(
                &json!({"id": key.api_key_id, "compartmentId": compartment}),
                "The key is moved.",
                "APIキーを移動しました。",
            )
        }
        ApiKeyCommand::Delete(id) => {
            api.delete(&path(&id.api_key_id)).await?;
            output.done(
                &json!({"id": id.api_key_id, "deleted": true}),
                "The key is deleted; both secrets are refused from now on.",
                "APIキーを削除しました。どちらのキーも以後は使えません。",
            )
        }
    }
}

fn path(id: &str) -> String {
    format!("{KEYS}/{}", escape(id))
}

fn details(name: &str, expires: Option<&str>) -> Value {
    match expires {
        Some(expires) => json!({"keyName": name, "timeExpiry": expires}),
        None => json!({"keyName": name}),
    }
}

fn say_once(output: &Output) {
    output.tell(
        "Keep the secrets now: they are not shown again. A key may do nothing until a policy allows it.",
        "キーは今すぐ保存してください。後から見ることはできません。ポリシーで許可するまで、このキーでは何もできません。",
    );
}

fn secrets(key: &Value) -> &[Value] {
    key.get("keys")
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn secrets_in_short(key: &Value) -> String {
    secrets(key)
        .iter()
        .map(|secret| format!("{} {}", field(secret, "keyName"), field(secret, "state")))
        .collect::<Vec<_>>()
        .join(", ")
}

fn show(key: &Value, output: &Output) -> Result<()> {
    let lang = output.lang;
    output.value(key, |rows| {
        for (label, name) in [
            (lang.pick("name", "名前"), "displayName"),
            (lang.pick("description", "説明"), "description"),
            ("OCID", "id"),
            (
                lang.pick("compartment", "コンパートメント"),
                "compartmentId",
            ),
            (lang.pick("state", "状態"), "lifecycleState"),
            (lang.pick("created", "作成日時"), "timeCreated"),
        ] {
            let text = field(key, name);
            if !text.is_empty() {
                rows.push((label.to_owned(), text));
            }
        }
        for secret in secrets(key) {
            rows.push((String::new(), String::new()));
            for (label, name) in [
                (lang.pick("secret", "キー"), "keyName"),
                (lang.pick("value", "値"), "key"),
                (lang.pick("mask", "マスク"), "keyMask"),
                (lang.pick("state", "状態"), "state"),
                (lang.pick("expires", "有効期限"), "timeExpiry"),
                (lang.pick("last used", "最終使用"), "timeLastUsed"),
            ] {
                let text = field(secret, name);
                if !text.is_empty() {
                    rows.push((label.to_owned(), text));
                }
            }
        }
    })
}
