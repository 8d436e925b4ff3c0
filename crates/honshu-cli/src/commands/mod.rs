//! What each command does.

mod api_key;
mod chat;
mod compartment;
mod model;
mod policy;
mod policy_check;
mod quickstart;
mod serve;

use std::process::ExitCode;

use clap::CommandFactory;

use crate::args::{Cli, Command};
use crate::client::Api;
use crate::fail::{Failure, Result};
use crate::output::Output;

/// Runs a command.
pub(crate) fn run(cli: Cli, output: &Output) -> Result<ExitCode> {
    let global = cli.global;
    match cli.command {
        Command::Quickstart(args) => quickstart::run(&global, args, output),
        Command::Serve(args) => serve::serve(&global, args, output),
        Command::Init(args) => serve::init(&global, args, output),
        Command::EngineSelfTest { safe } => serve::engine_self_test(safe),
        Command::Openapi => openapi(output),
        Command::Completions { shell } => {
            let mut command = Cli::command();
            clap_complete::generate(shell, &mut command, "honshu", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Model(command) => model::run(&global, command, output),
        Command::Chat(args) => client_runtime()?.block_on(chat::run(&global, args, output)),
        Command::ApiKey(command) => with_api(&global, |api| async move {
            api_key::run(&api, command, output).await
        }),
        Command::Policy(command) => policy::run(&global, command, output),
        Command::Compartment(command) => with_api(&global, |api| async move {
            compartment::run(&api, command, output).await
        }),
    }
}

/// Runs a command that talks to a server.
fn with_api<F, Fut>(global: &crate::args::Global, command: F) -> Result<ExitCode>
where
    F: FnOnce(Api) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let api = Api::connect(global)?;
    client_runtime()?.block_on(command(api))?;
    Ok(ExitCode::SUCCESS)
}

/// One thread is enough for a client.
fn client_runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new((
                format!("cannot start: {error}"),
                format!("起動できません: {error}"),
            ))
        })
}

/// Prints the OpenAPI document: the API of this build, which needs no server to be known.
fn openapi(output: &Output) -> Result<ExitCode> {
    let document = honshu_wire::openapi::document()
        .map_err(|error| Failure::new(error.message().to_owned()))?;
    let document: serde_json::Value = serde_json::from_slice(&document)?;
    output.json(&document)?;
    Ok(ExitCode::SUCCESS)
}
