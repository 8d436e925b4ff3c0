//! `honshu policy check`: statements are checked here, without a server.

use std::process::ExitCode;

use honshu_policy::{Severity, check_statement};
use serde_json::json;

use crate::args::Format;
use crate::fail::Result;
use crate::output::Output;

/// A statement and where it stands.
pub(crate) struct Stated {
    /// What the reader calls its place, such as a file.
    pub(crate) name: String,
    /// Its line there, from 1.
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// Checks each statement. Errors make the exit code 1, warnings do not.
pub(crate) fn check(statements: &[Stated], output: &Output) -> Result<ExitCode> {
    let checked: Vec<_> = statements
        .iter()
        .map(|stated| (stated, check_statement(&stated.text)))
        .collect();
    let valid = checked.iter().all(|(_, checked)| checked.is_valid());
    if output.format == Format::Json {
        let report: Vec<_> = checked
            .iter()
            .map(|(stated, checked)| {
                json!({
                    "statement": stated.text,
                    "valid": checked.is_valid(),
                    "diagnostics": checked.diagnostics,
                })
            })
            .collect();
        output.json(&report)?;
    } else {
        for (stated, checked) in &checked {
            for diagnostic in &checked.diagnostics {
                let mut diagnostic = diagnostic.clone();
                diagnostic.span.line += stated.line - 1;
                output.say(diagnostic.render(&stated.text, &stated.name));
            }
        }
        let errors = checked
            .iter()
            .flat_map(|(_, checked)| &checked.diagnostics)
            .filter(|diagnostic| diagnostic.severity == Severity::Error)
            .count();
        if errors == 0 {
            let count = statements.len();
            output.say(output.lang.pick(
                match count {
                    1 => "the statement is valid".to_owned(),
                    count => format!("all {count} statements are valid"),
                },
                format!("{count} 件のステートメントはすべて有効です"),
            ));
        } else {
            output.say(output.lang.pick(
                match errors {
                    1 => "1 error".to_owned(),
                    errors => format!("{errors} errors"),
                },
                format!("エラーが {errors} 件あります"),
            ));
        }
    }
    Ok(if valid {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}
