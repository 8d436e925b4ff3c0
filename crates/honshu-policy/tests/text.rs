//! Texts in, statements and problems out: tables and goldens under `testdata/policies/`.
//!
//! `HONSHU_UPDATE=1` rewrites the golden file of problems; read the difference before committing it.

mod support;

use std::path::PathBuf;

use honshu_policy::{Severity, Statement, check, limits, parse, parse_statement};
use proptest::prelude::*;
use support::strategy;

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata/policies")
        .join(name)
}

#[test]
fn valid_statements_parse_and_print_canonically() {
    let table = support::valid_statements();
    assert!(table.len() > 40);
    for (text, canonical) in table {
        let statement = parse_statement(&text)
            .unwrap_or_else(|error| panic!("{}", error.render(&text, "valid.txt")));
        assert_eq!(statement.to_string(), canonical);
        assert_eq!(parse_statement(&canonical).unwrap(), statement);
    }
}

#[test]
fn problems_are_shown_with_place_and_fix() {
    let input = std::fs::read_to_string(data("errors.in.txt")).unwrap();
    let mut output = String::new();
    for text in input.split("----\n") {
        let text = text.trim_end();
        let checked = check(text);
        assert!(
            !checked.diagnostics.is_empty(),
            "no problem found in `{text}`"
        );
        let rendered: Vec<String> = checked
            .diagnostics
            .iter()
            .map(|diagnostic| diagnostic.render(text, "policy"))
            .collect();
        output.push_str(&format!("{text}\n====\n{}----\n", rendered.join("\n")));
    }
    let golden = data("errors.out.txt");
    if std::env::var_os("HONSHU_UPDATE").is_some() {
        std::fs::write(&golden, &output).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap_or_default();
    assert_eq!(
        output, expected,
        "run with HONSHU_UPDATE=1 and read the difference"
    );
}

#[test]
fn applying_the_fixes_leads_to_a_valid_text() {
    for text in [
        "alow any-user too use generativ-ai-chat in tenency where request.regin == \"KIX\";",
        "allow group Gen AI use groups in compartment My Team where all {request.region = 'KIX' and request.user.name = ‘a’}",
        "allow any-user to {GENERATIVE_AI_CHATS} tenancy",
        "allow any-user to use generative-ai-chat in tenancy where all {request.region='KIX'、target.model.id='a'}",
    ] {
        let mut fixed = text.to_owned();
        for _ in 0..10 {
            let checked = check(&fixed);
            let fix = checked
                .diagnostics
                .iter()
                .filter(|diagnostic| diagnostic.severity == Severity::Error)
                .find_map(|diagnostic| diagnostic.fix.clone());
            let Some(fix) = fix else { break };
            fixed.replace_range(fix.start..fix.end, &fix.replacement);
        }
        if let Err(error) = parse(&fixed) {
            panic!("{}", error.render(&fixed, "fixed"));
        }
    }
}

#[test]
fn every_problem_of_several_statements_is_found_at_once() {
    let text = "allow any-user to uses groups in tenancy\nallow group A to use gruops in tenancy\nallow group B to use groups in tenancy\n";
    let checked = check(text);
    assert_eq!(checked.statements.len(), 1);
    let lines: Vec<usize> = checked
        .diagnostics
        .iter()
        .map(|diagnostic| diagnostic.span.line)
        .collect();
    assert_eq!(lines, [1, 2]);
}

#[test]
fn one_statement_means_one() {
    for text in [
        "",
        "  \n",
        "allow group A to use groups in tenancy allow group B to use groups in tenancy",
    ] {
        let error = parse_statement(text).unwrap_err();
        assert_eq!(
            error.diagnostics[0].code,
            honshu_policy::Code::NotOneStatement,
            "{text}"
        );
    }
}

#[test]
fn size_and_depth_are_bounded() {
    let nested = |depth: usize| {
        let mut condition = "request.region = 'KIX'".to_owned();
        for _ in 0..depth {
            condition = format!("all {{{condition}}}");
        }
        format!("allow group A to use groups in tenancy where {condition}")
    };
    assert!(parse(&nested(limits::CONDITION_DEPTH_MAX)).is_ok());
    assert!(parse(&nested(limits::CONDITION_DEPTH_MAX + 1)).is_err());
    assert!(parse(&nested(20_000)).is_err());
    assert!(parse(&" ".repeat(limits::TEXT_BYTES_MAX + 1)).is_err());
    let many = "allow any-user to fly groups in tenancy\n".repeat(1_000);
    assert_eq!(check(&many).diagnostics.len(), limits::DIAGNOSTICS_MAX + 1);
}

#[test]
fn names_cannot_hide_invisible_characters() {
    for text in [
        "allow group 'A\u{202e}B' to use groups in tenancy",
        "allow group A\u{200b}B to use groups in tenancy",
        "allow group A to use groups in tenancy where target.group.name = /a\u{202e}b/",
    ] {
        let error = parse(text).unwrap_err();
        assert!(!error.render(text, "p").contains(['\u{202e}', '\u{200b}']));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_printed_parses_to_the_same(statement in strategy::statement(strategy::name())) {
        let printed = statement.to_string();
        match parse_statement(&printed) {
            Ok(again) => prop_assert_eq!(again, statement),
            Err(error) => prop_assert!(false, "{}", error.render(&printed, "printed")),
        }
    }

    #[test]
    fn statements_joined_by_lines_parse_to_the_same(statements in prop::collection::vec(strategy::statement(strategy::name()), 0..5)) {
        let lines: Vec<String> = statements.iter().map(Statement::to_string).collect();
        prop_assert_eq!(parse(&lines.join("\n")).unwrap(), statements);
    }

    #[test]
    fn any_text_gives_problems_or_statements_and_no_panic(text in "\\PC{0,80}|[a-z '/{}(),=!:\\\\\n#\"、。’-]{0,80}") {
        support::inspect(&text);
    }

    #[test]
    fn a_damaged_statement_gives_problems_within_the_text(
        statement in strategy::statement(strategy::name()),
        at in any::<prop::sample::Index>(),
        length in 0usize..8,
        junk in "[a-z '/{}(),=!:\"、]{0,4}",
    ) {
        let mut chars: Vec<char> = statement.to_string().chars().collect();
        let start = at.index(chars.len());
        let end = (start + length).min(chars.len());
        chars.splice(start..end, junk.chars());
        support::inspect(&chars.into_iter().collect::<String>());
    }
}
