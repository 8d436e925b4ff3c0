//! `honshu serve`, `honshu init` and the engine's self-test.

use std::process::ExitCode;

use honshu_server::{InitOptions, LogFormat, ServeOptions, Server, StartError};
use serde_json::json;

use crate::args::{Global, Init, Serve};
use crate::fail::{Failure, Result, chain};
use crate::output::Output;

/// Runs the server until it is told to stop.
pub(crate) fn serve(global: &Global, args: Serve, output: &Output) -> Result<ExitCode> {
    let data_dir = global.data_dir()?;
    runtime()?.block_on(async {
        let server = Server::start(ServeOptions {
            data_dir,
            listen: args.listen,
            config: args.config,
            log_format: LogFormat::for_terminal(Output::interactive()),
            log: true,
            executable: std::env::current_exe().ok(),
        })
        .await
        .map_err(start_failure)?;
        for endpoint in server.endpoints() {
            output.say(format!(
                "{} {} {}",
                output.lang.pick("Honshu serves", "Honshu が稼働中:"),
                endpoint.region,
                endpoint.url
            ));
        }
        if server.made_tenancy() {
            output.tell(
                "The tenancy and its administrator were made; only loopback is served in this run.",
                "テナンシと管理者を作成しました。この実行ではループバックだけで待ち受けます。",
            );
        }
        server.run_until_signal().await.map_err(start_failure)?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Makes tenancy, root compartment and administrator.
pub(crate) fn init(global: &Global, args: Init, output: &Output) -> Result<ExitCode> {
    let data_dir = global.data_dir()?;
    let done = runtime()?
        .block_on(honshu_server::init(InitOptions {
            data_dir,
            region: global.region.clone(),
            tenancy_name: args.tenancy_name,
        }))
        .map_err(start_failure)?;
    let profile = done.profile.display().to_string();
    output.value(
        &json!({
            "created": done.created,
            "tenancyId": done.tenancy.as_str(),
            "userId": done.administrator.as_ref().map(|id| id.as_str()),
            "profile": profile,
        }),
        |rows| {
            rows.push((
                output.lang.pick("tenancy", "テナンシ").to_owned(),
                done.tenancy.to_string(),
            ));
            if let Some(id) = &done.administrator {
                rows.push((
                    output.lang.pick("administrator", "管理者").to_owned(),
                    id.to_string(),
                ));
            }
            rows.push((
                output.lang.pick("profile", "プロファイル").to_owned(),
                profile.clone(),
            ));
        },
    )?;
    if done.created {
        output.tell("Next: honshu serve", "次の手順: honshu serve");
    } else {
        output.tell(
            "The data directory was initialised before; nothing was changed.",
            "データディレクトリは初期化済みです。何も変更していません。",
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the engine's self-test: exit code 0 when this machine can run this code.
pub(crate) fn engine_self_test(safe: bool) -> Result<ExitCode> {
    honshu_server::engine_self_test(safe).map_err(Failure::new)?;
    Ok(ExitCode::SUCCESS)
}

/// The server's runtime: a worker for each core.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new((
                format!("cannot start: {error}"),
                format!("起動できません: {error}"),
            ))
        })
}

/// A start that failed, with exit code 78 where the surroundings are wrong.
pub(crate) fn start_failure(error: StartError) -> Failure {
    let text = chain(&error);
    let mut failure = if error.is_configuration() {
        Failure::config(text)
    } else {
        Failure::new(text)
    };
    failure.hint = error.hint().map(Into::into);
    failure
}
