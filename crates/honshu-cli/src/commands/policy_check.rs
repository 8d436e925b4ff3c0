//! `honshu policy check`: statements are checked here, without a server.

use std::process::ExitCode;

use honshu_policy::{Severity, check_statement};
use serde_json::json;

use crate::args::Format;
use crate::fail::Result;
use crate::output::Output;

/// Checks each statement. Errors make the exit code 1, warnings do not.
pub(crate) fn check(statements: &[String], output: &Output) -> Result<ExitCode> {
    let checked: Vec<_> = statements
        .iter()
        .map(|text| (text, check_statement(text)))
        .collect();
    let valid = checked.iter().all(|(_, checked)| checked.is_valid());
    if output.format == Format::Json {
        let report: Vec<_> = checked
            .iter()
            .map(|(text, checked)| {
                json!({
                    "statement": text,
                    "valid": checked.is_valid(),
                    "diagnostics": checked.diagnostics,
                })
            })
            .collect();
        output.json(&report)?;
    } else {
        for (index, (text, checked)) in checked.iter().enumerate() {
            let name = if statements.len() == 1 {
                "statement".to_owned()
            } else {
                format!("statement {}", index + 1)
            };
            for diagnostic in &checked.diagnostics {
                output.say(diagnostic.render(text, &name));
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
                format!("{count} statement(s), all valid"),
                format!("{count} 件のステートメントはすべて有効です"),
            ));
        } else {
            output.say(output.lang.pick(
                format!("{errors} error(s)"),
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
