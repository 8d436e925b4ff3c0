//! Custom tools with the real small model: whatever the model's form of calls, what the caller gets is the input as a
//! text, and the text satisfies the tool's grammar.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test is a panic; helpers of tests are tests"
)]

mod common;

use std::sync::Arc;

use common::{Whole, ask, backend, pool, run, runtime, say};
use honshu_domain::{
    Backend, CustomTool, CustomToolCall, Dialect, ErrorKind, FinishReason, FunctionCallOutput,
    GrammarSyntax, InferenceRequest, InputFormat, Item, Part, Role, Tool, ToolChoice,
};
use honshu_engine::EnginePool;

/// One template for each way in which calls are written; see `tools.rs` for all families.
const FORMS: &[(&str, &str)] = &[
    ("tagged", "<tool_call> </tool_call>"),
    ("llama3", "<|python_tag|>"),
    ("mistral", "[TOOL_CALLS]"),
    ("mistral_named", "[TOOL_CALLS] [ARGS]"),
    ("gemma4", "<|tool_call>"),
    ("command", "<|START_ACTION|>"),
    ("deepseek", "<｜tool▁call▁begin｜> ```json"),
    ("tags", "<function= <parameter="),
    ("pairs", "<arg_key> <arg_value>"),
    ("harmony", "<|channel|> <|message|>"),
];

const PLAIN: &str = "{% if tools %}{{ tools | tojson }}\n{% endif %}\
    {% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n";

/// A patch in small: lines, quotes and backslashes, which JSON escapes.
const PATCH: &str = r#"
// What an agent sends.
start: begin change~1..2 end
begin: "*** Begin Patch" LF
change: /[+-]/ /"[a-z \\]{1,6}"/ LF
end: "*** End Patch"
%import common.LF
"#;
const PATCHES: &str = r#"^\*\*\* Begin Patch\n([+-]"[a-z \\]{1,6}"\n){1,2}\*\*\* End Patch$"#;

/// The grammar that Codex sends with `apply_patch`.
const CODEX: &str = r#"start: begin_patch hunk+ end_patch
begin_patch: "*** Begin Patch" LF
end_patch: "*** End Patch" LF?

hunk: add_hunk | delete_hunk | update_hunk
add_hunk: "*** Add File: " filename LF add_line+
delete_hunk: "*** Delete File: " filename LF
update_hunk: "*** Update File: " filename LF change_move? change?

filename: /(.+)/
add_line: "+" /(.*)/ LF -> line

change_move: "*** Move to: " filename LF
change: (change_context | change_line)+ eof_line?
change_context: ("@@" | "@@ " /(.+)/) LF
change_line: ("+" | "-" | " ") /(.*)/ LF
eof_line: "*** End of File" LF

%import common.LF
"#;

fn with_template(pool: &EnginePool, name: &str, words: &str) -> Arc<dyn Backend> {
    let mut options = common::options();
    options.load.n_ctx = 1024;
    options.chat_template = Some(format!("{{# {words} #}}{PLAIN}").into());
    pool.backend_for(&common::model_path(), name, options)
}

fn custom(name: &str, format: InputFormat) -> Tool {
    Tool::Custom(CustomTool {
        name: name.into(),
        description: Some("Changes files.".into()),
        format,
    })
}

fn grammar(syntax: GrammarSyntax, definition: &str) -> InputFormat {
    InputFormat::Grammar {
        syntax,
        definition: definition.into(),
    }
}

fn patch(tool: Tool) -> InferenceRequest {
    let mut request = ask("Patch the file.");
    request.max_output_tokens = Some(160);
    request.tools = vec![tool];
    request.tool_choice = ToolChoice::Custom("patch".into());
    request.reasoning_effort = Some("none".into());
    request
}

fn inputs(whole: &Whole) -> Vec<&str> {
    let calls = whole.items.iter().filter_map(|(_, item)| match item {
        Item::CustomToolCall(call) => Some(call.input.as_str()),
        _ => None,
    });
    calls.collect()
}

#[test]
fn a_forced_input_satisfies_its_grammar_in_every_form_of_calls() {
    runtime().block_on(async {
        let pool = pool();
        let lark = grammar(GrammarSyntax::Lark, PATCH);
        let date = r#"^(?P<year>[12]\d{3})-\d\d "[a-z]{2,5}\\?"$"#;
        let cases = [
            (lark, regex::Regex::new(PATCHES).unwrap()),
            (
                grammar(GrammarSyntax::Regex, date),
                regex::Regex::new(date).unwrap(),
            ),
        ];
        for (form, words) in FORMS {
            let backend = with_template(&pool, form, words);
            for (format, expected) in &cases {
                let mut request = patch(custom("patch", format.clone()));
                // A high temperature strays as far as the grammar lets it.
                request.sampling.temperature = Some(1.2);
                request.sampling.seed = Some(3);
                let whole = run(&backend, request).await.unwrap();
                let inputs = inputs(&whole);
                assert_eq!(
                    whole.finish.reason,
                    FinishReason::ToolCalls,
                    "{form}: {whole:?}"
                );
                assert_eq!(
                    (inputs.len(), whole.items.len()),
                    (1, 1),
                    "{form}: {whole:?}"
                );
                assert!(expected.is_match(inputs[0]), "{form}: {}", inputs[0]);
                let Item::CustomToolCall(call) = &whole.items[0].1 else {
                    panic!("{form}: {whole:?}")
                };
                assert_eq!(&*call.name, "patch");
                assert!(call.id.as_deref().unwrap().starts_with("ctc_"), "{call:?}");
            }
        }
    });
}

#[test]
fn a_tool_without_a_grammar_takes_a_text_and_required_calls_take_any_tool() {
    runtime().block_on(async {
        let pool = pool();
        let backend = backend(&pool);
        let mut request = patch(custom("patch", InputFormat::Text));
        request.max_output_tokens = Some(60);
        let whole = run(&backend, request.clone()).await.unwrap();
        let taken = inputs(&whole);
        assert_eq!(taken.len(), 1, "{whole:?}");
        assert!(!taken[0].starts_with("{\"input\""), "{whole:?}");

        request.tools = vec![custom("patch", grammar(GrammarSyntax::Lark, CODEX))];
        let whole = run(&backend, request.clone()).await.unwrap();
        let begins = ["*** Add File: ", "*** Delete File: ", "*** Update File: "];
        let first = inputs(&whole)[0].strip_prefix("*** Begin Patch\n").unwrap();
        assert!(
            begins.iter().any(|begin| first.starts_with(begin)),
            "{whole:?}"
        );

        request
            .tools
            .push(custom("vote", grammar(GrammarSyntax::Regex, "yes|no")));
        request.tools.remove(0);
        request.tool_choice = ToolChoice::Required;
        request.parallel_tool_calls = false;
        let whole = run(&backend, request).await.unwrap();
        assert!(["yes", "no"].contains(&whole.text().as_str()), "{whole:?}");
    });
}

#[test]
fn a_call_that_the_model_begins_by_itself_satisfies_its_grammar_too() {
    runtime().block_on(async {
        let pool = pool();
        let backend = backend(&pool);
        let mut request = patch(custom(
            "vote",
            grammar(GrammarSyntax::Regex, "[JX](a|o){2}"),
        ));
        request.tool_choice = ToolChoice::Auto;
        request.input.clear();
        // The model goes on as it sees that it has done before; only that what it did before is no vote any more.
        for (turn, vote) in ["yes", "no", "yes", "no"].iter().enumerate() {
            let call_id: Arc<str> = format!("call_{turn}").into();
            request.input.extend([
                say(Role::User, "Vote."),
                Item::CustomToolCall(CustomToolCall {
                    id: None,
                    call_id: Arc::clone(&call_id),
                    name: "vote".into(),
                    input: (*vote).to_owned(),
                }),
                Item::CustomToolCallOutput(FunctionCallOutput {
                    id: None,
                    call_id,
                    output: vec![Part::text("counted")],
                }),
                say(Role::Assistant, "Done."),
            ]);
        }
        request.input.push(say(Role::User, "Vote."));
        let votes = ["Jaa", "Jao", "Joa", "Joo", "Xaa", "Xao", "Xoa", "Xoo"];
        let mut calls = 0;
        for seed in 0..6 {
            request.sampling.temperature = Some(if seed == 0 { 0.0 } else { 0.8 });
            request.sampling.seed = Some(seed);
            request.max_output_tokens = Some(48);
            let whole = run(&backend, request.clone()).await.unwrap();
            if whole.finish.reason == FinishReason::ToolCalls {
                let inputs = inputs(&whole);
                calls += inputs.len();
                let fits = inputs.iter().all(|input| votes.contains(input));
                assert!(fits, "{whole:?}");
            }
        }
        assert!(
            calls > 0,
            "the small model is expected to call, as it sees that it did"
        );
    });
}

#[test]
fn a_grammar_that_cannot_be_enforced_is_refused_where_it_stands_whatever_is_chosen() {
    runtime().block_on(async {
        let pool = pool();
        let backend = backend(&pool);
        let deep = format!("start: {}\"a\"{}", "(".repeat(5_000), ")".repeat(5_000));
        let many: String = (0..4_000)
            .map(|n| format!("r{n}: \"a\" r{}\n", n + 1))
            .collect();
        let huge = format!("start: \"{}\"", "x".repeat(70_000));
        let lark: &[&str] = &[
            "start: missing",
            "start: \"a",
            "no start at all",
            "start: <|im_end|>",
            "start: %json {\"type\": \"object\"}",
            "A: B\nB: A\nstart: A",
            &deep,
            &many,
            &huge,
        ];
        let regexes: &[&str] = &["(", "a(?=b)", "a^b", r"\p{Nope}", "[b-a]"];
        let lark = lark.iter().map(|source| (GrammarSyntax::Lark, *source));
        let regexes = regexes.iter().map(|source| (GrammarSyntax::Regex, *source));
        for (syntax, source) in lark.chain(regexes) {
            let shown: String = source.chars().take(60).collect();
            let mut request = patch(custom("other", InputFormat::Text));
            request.tools.push(custom("patch", grammar(syntax, source)));
            request.max_output_tokens = Some(4);
            for (dialect, param) in [
                (Dialect::Responses, "tools[1].format.definition"),
                (
                    Dialect::ChatCompletions,
                    "tools[1].custom.format.grammar.definition",
                ),
            ] {
                request.dialect = dialect;
                for choice in [
                    ToolChoice::Custom("patch".into()),
                    ToolChoice::Custom("other".into()),
                    ToolChoice::Auto,
                    ToolChoice::None,
                ] {
                    request.tool_choice = choice.clone();
                    let Err(error) = run(&backend, request.clone()).await else {
                        panic!("{shown} {choice:?} was taken")
                    };
                    let found = (error.kind(), error.param());
                    assert_eq!(
                        found,
                        (ErrorKind::Invalid, Some(param)),
                        "{shown} {choice:?}: {error}"
                    );
                }
            }
        }
    });
}

#[test]
fn grammars_that_are_heavy_or_refer_to_themselves_are_bounded() {
    runtime().block_on(async {
        let pool = pool();
        let backend = backend(&pool);
        // Each ends in an input, a limit or an error, and the process lives.
        for (syntax, source) in [
            (GrammarSyntax::Lark, "start: start"),
            (GrammarSyntax::Lark, "start: start \"a\" | \"a\""),
            (GrammarSyntax::Lark, "start: \"(\" start \")\" | \"x\""),
            (GrammarSyntax::Lark, "start: \"a\"~0..100000000"),
            (GrammarSyntax::Lark, "start: A*\nA: /[^\"]{0,500}/"),
            (GrammarSyntax::Regex, "((a{1,100}){1,100}){1,100}"),
            (GrammarSyntax::Regex, "(x+x+)+y"),
            (GrammarSyntax::Regex, r"(\w+\s)*[^\w]"),
            (GrammarSyntax::Regex, ""),
        ] {
            let mut request = patch(custom("patch", grammar(syntax, source)));
            request.max_output_tokens = Some(24);
            match run(&backend, request).await {
                Ok(whole) => assert!(inputs(&whole).len() <= 1, "{source}: {whole:?}"),
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unsupported),
                    "{source}: {error}"
                ),
            }
        }
        let whole = run(&backend, ask("Hello")).await.unwrap();
        assert!(!whole.text().is_empty());
    });
}
