//! The one executable, `honshu`: a client of the management API like any OCI client, and the server itself.
//!
//! Data goes to standard output, talk to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage,
//! 78 wrong configuration.

mod args;
mod client;
mod commands;
mod fail;
mod lang;
mod output;
mod profile;

use std::io::Write as _;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser};

use crate::args::Cli;
use crate::output::Output;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            if error.kind() == ErrorKind::MissingSubcommand {
                // The parser would list every command, those for machines too.
                eprint_help();
                return ExitCode::from(2);
            }
            // A closed pipe while help is printed is nobody's problem.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(2),
            };
        }
    };
    let output = Output::new(cli.global.output);
    match commands::run(cli, &output) {
        Ok(code) => code,
        Err(failure) => {
            output.failure(&failure);
            failure.exit_code()
        }
    }
}

/// Prints the help of the command that the arguments name as far as they go.
fn eprint_help() {
    let mut command = Cli::command();
    command.build();
    for argument in std::env::args().skip(1) {
        if let Some(named) = command.find_subcommand(&argument).cloned() {
            command = named;
        }
    }
    let _ = write!(anstream::stderr(), "{}", command.render_help().ansi());
}
