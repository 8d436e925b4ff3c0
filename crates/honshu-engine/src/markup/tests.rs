//! Golden transcripts: what models of each form write, and what becomes of it, however the text is cut.
//!
//! Each file of `testdata/calls` begins with the template that the form is found by (`=` and words stand for a
//! template that has them) and the control tokens of the vocabulary; then come the cases, with control tokens in
//! ⟦ ⟧. `HONSHU_UPDATE_GOLDEN=1` writes the results anew; look at the difference before committing it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::parser::{Parser, Piece, Start};
use super::{FORMS, Markup, Tools};

struct Case {
    name: String,
    flags: String,
    text: String,
    result: String,
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata")
        .join(name)
}

fn markup(template: &str, controls: &str) -> Arc<Markup> {
    let source = match template.strip_prefix('=') {
        Some(words) => words.to_owned(),
        None => {
            std::fs::read_to_string(folder("templates").join(format!("{template}.jinja"))).unwrap()
        }
    };
    let names: Vec<&str> = controls.split_whitespace().collect();
    Arc::new(Markup::detect(&source, true, |name| {
        let at = names.iter().position(|known| *known == name)?;
        Some((i32::try_from(at).unwrap() + 100, true))
    }))
}

fn tools(none: bool) -> Arc<Tools> {
    let weather = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let add = json!({"type": "object", "properties": {"a": {"type": "integer"}, "note": {"type": "string"}}});
    Arc::new(if none {
        Tools::default()
    } else {
        Tools::new([("weather".to_owned(), weather), ("add".to_owned(), add)])
    })
}

/// What is fed at once: a piece of text or a control token.
fn units(text: &str) -> Vec<Result<String, String>> {
    let mut units = Vec::new();
    for (index, part) in text.split('⟦').enumerate() {
        let part = match part.split_once('⟧') {
            Some((name, rest)) if index > 0 => {
                units.push(Err(name.to_owned()));
                rest
            }
            _ => part,
        };
        units.extend((!part.is_empty()).then(|| Ok(part.to_owned())));
    }
    units
}

/// The pieces of an answer whose text is cut at every multiple of `every`, or once at `at`.
fn parse(
    markup: &Arc<Markup>,
    tools: &Arc<Tools>,
    start: Start,
    text: &str,
    cut: &dyn Fn(usize) -> bool,
) -> Vec<Piece> {
    let mut parser = Parser::new(Arc::clone(markup), Arc::clone(tools), start);
    let mut pieces = Vec::new();
    let mut place = 0;
    for unit in units(text) {
        match unit {
            Err(name) => parser.feed_control(&name, &mut pieces),
            Ok(text) => {
                let mut held = String::new();
                for c in text.chars() {
                    if cut(place) && !held.is_empty() {
                        parser.feed(&std::mem::take(&mut held), &mut pieces);
                    }
                    held.push(c);
                    place += 1;
                }
                parser.feed(&held, &mut pieces);
            }
        }
    }
    if !parser.is_over() {
        parser.finish(&mut pieces);
    }
    pieces
}

/// The pieces for people; neighbours of a kind are one.
fn show(pieces: &[Piece]) -> String {
    let (mut out, mut last) = (String::new(), "");
    let mut say = |out: &mut String, kind: &'static str, text: &str| {
        let text = text.replace('\\', "\\\\").replace('\n', "\\n");
        if kind != last || kind == "call" {
            if !out.is_empty() {
                out.push('\n');
            }
            out.push_str(kind);
            out.push(' ');
        }
        out.push_str(&text);
        last = kind;
    };
    for piece in pieces {
        match piece {
            Piece::Text { text, .. } => say(&mut out, "text", text),
            Piece::Reasoning(text) => say(&mut out, "reasoning", text),
            Piece::Message { phase } => say(&mut out, "message", phase),
            Piece::CallBegan { name } => say(&mut out, "call", name),
            Piece::Arguments(text) => say(&mut out, "arguments", text),
            Piece::CallEnded => say(&mut out, "end", ""),
        }
    }
    out.lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

fn read(path: &Path) -> (String, String, Vec<Case>) {
    let text = std::fs::read_to_string(path).unwrap();
    let (head, rest) = text.split_once("=== ").unwrap();
    let field = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap()
            .trim()
            .to_owned()
    };
    let cases = rest
        .split("\n=== ")
        .map(|case| {
            let (name, body) = case.split_once('\n').unwrap();
            let (name, flags) = name.split_once(" | ").unwrap_or((name, ""));
            let (text, result) = body.split_once("\n---").unwrap();
            Case {
                name: name.to_owned(),
                flags: flags.to_owned(),
                text: text.to_owned(),
                result: result.trim_start_matches(" ?").trim_start().to_owned(),
            }
        })
        .collect();
    (field("template:"), field("controls:"), cases)
}

#[test]
fn transcripts_of_every_form_become_the_same_pieces_however_they_are_cut() {
    let update = std::env::var_os("HONSHU_UPDATE_GOLDEN").is_some();
    let mut seen = Vec::new();
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder("calls"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    for path in files {
        let (template, controls, mut cases) = read(&path);
        let markup = markup(&template, &controls);
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        seen.push(markup.form.name);
        let mut written = format!("template: {template}\ncontrols: {controls}\n");
        for case in &mut cases {
            let start = Start {
                in_reasoning: case.flags.contains("in_reasoning"),
                one_call: case.flags.contains("one_call"),
                plain: case.flags.contains("plain"),
            };
            let tools = tools(controls == "no_tools");
            let whole = parse(&markup, &tools, start, &case.text, &|_| false);
            let shown = show(&whole);
            let length = case.text.chars().count();
            for at in 0..=length {
                let cut = |place| at == 0 || place == at;
                let pieces = parse(&markup, &tools, start, &case.text, &cut);
                assert_eq!(show(&pieces), shown, "{name}: {}: cut at {at}", case.name);
            }
            check_order(&whole);
            let flags = if case.flags.is_empty() {
                String::new()
            } else {
                format!(" | {}", case.flags)
            };
            written.push_str(&format!(
                "=== {}{flags}\n{}\n---\n{shown}",
                case.name, case.text
            ));
            if !update {
                let expected = case.result.trim_end();
                assert_eq!(shown.trim_end(), expected, "{name}: {}", case.name);
            }
        }
        if update {
            std::fs::write(&path, written).unwrap();
        }
    }
    for form in FORMS {
        assert!(
            seen.contains(&form.name),
            "`{}` has no transcript",
            form.name
        );
    }
}

#[test]
fn a_model_whose_template_shows_no_tools_may_answer_in_its_own_form_all_the_same() {
    let token = |_: &str| None;
    let markup = Arc::new(Markup::detect("<｜tool▁call▁begin｜>", false, token));
    let own = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    let told = "<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": 1}}</tool_call>";
    for text in [own, told] {
        let pieces = parse(&markup, &tools(false), Start::default(), text, &|_| true);
        assert_eq!(
            show(&pieces),
            "call add\narguments {\"a\": 1}\nend\n",
            "{text}"
        );
    }
}

/// Arguments come inside of calls, and calls end.
fn check_order(pieces: &[Piece]) {
    let mut open = false;
    for piece in pieces {
        match piece {
            Piece::CallBegan { .. } => assert!(!std::mem::replace(&mut open, true)),
            Piece::CallEnded => assert!(std::mem::replace(&mut open, false)),
            Piece::Arguments(_) => assert!(open),
            _ => assert!(!open),
        }
    }
    assert!(!open);
}

/// Texts of marks, of JSON and of nothing in particular, always the same ones.
struct Scraps(u64);

impl Scraps {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below
    }
}

#[test]
fn any_text_is_read_alike_however_it_is_cut() {
    let json = [
        "{",
        "}",
        "[",
        "]",
        "\"",
        ":",
        ",",
        ";",
        "\\",
        "\\u00",
        "\\ud83d\\ude00",
        "{\"name\": \"add\", \"arguments\": {",
        "\"name\": \"f\"",
        "\"arguments\": ",
        "{}",
        "1",
        "null",
        "true",
        "add",
        "add(a=1)",
        "call:add{a:1}",
        "```",
        "```json\n",
        "<parameter=a>",
        "</parameter>",
        "</function>",
        "<arg_key>a</arg_key>",
        "<arg_value>",
        "</arg_value>",
        " to=functions.add",
        "analysis",
        "final",
        "東",
        "é",
        " ",
        "\n",
        "\n\n",
        "<",
        "<|",
        "x",
    ];
    let mut scraps = Scraps(11);
    for form in FORMS {
        let evidence = form.evidence[0].join(" ");
        for control in [false, true] {
            let names: Vec<&str> = form
                .opens
                .iter()
                .map(|(name, _)| *name)
                .chain(form.closes.iter().copied())
                .chain(["<think>", "</think>"])
                .chain(super::INNER_MARKS.iter().copied())
                .collect();
            let token = |name: &str| {
                let at = names.iter().position(|known| *known == name)?;
                Some((i32::try_from(at).unwrap(), control))
            };
            let markup = Arc::new(Markup::detect(&evidence, true, token));
            for _ in 0..400 {
                let mut text = String::new();
                for _ in 0..1 + scraps.next(14) {
                    if scraps.next(3) > 0 {
                        text.push_str(json[scraps.next(json.len())]);
                    } else if control {
                        text.push_str(&format!("⟦{}⟧", names[scraps.next(names.len())]));
                    } else {
                        text.push_str(names[scraps.next(names.len())]);
                    }
                }
                let start = Start {
                    in_reasoning: scraps.next(8) == 0,
                    ..Start::default()
                };
                let whole = parse(&markup, &tools(false), start, &text, &|_| false);
                check_order(&whole);
                let single = parse(&markup, &tools(false), start, &text, &|_| true);
                assert_eq!(show(&single), show(&whole), "{}: {text:?}", form.name);
            }
        }
    }
}

#[test]
fn no_text_is_lost_or_made_up_when_nothing_is_a_call() {
    let markup = markup("chatml", "");
    let pieces = [
        "<tool_call>",
        "</tool_call>",
        "{\"name\"",
        ": \"x\"",
        "[",
        "]",
        "a",
        " ",
        "\n",
        "```",
        "<",
        "think>",
        ",",
        "é",
    ];
    let mut scraps = Scraps(7);
    for _ in 0..3_000 {
        let mut text = "T".to_owned();
        for _ in 0..12 {
            text.push_str(pieces[scraps.next(pieces.len())]);
        }
        let parsed = parse(&markup, &tools(false), Start::default(), &text, &|place| {
            place % 3 == 0
        });
        if parsed
            .iter()
            .all(|piece| matches!(piece, Piece::Text { .. }))
        {
            let out: String = parsed
                .iter()
                .map(|piece| match piece {
                    Piece::Text { text: shown, at } => {
                        assert_eq!(&text[*at..*at + shown.len()], shown, "places are right");
                        shown.as_str()
                    }
                    _ => "",
                })
                .collect();
            assert_eq!(out, text);
        }
    }
}

/// Of real templates (`HONSHU_TEMPLATES`, else `.cache/templates`; see tests/templates.rs): which form each is found to
/// have. A template that shows tools and has none of the marks would be read in the general form by chance.
#[test]
fn real_templates_have_a_known_form() {
    let folder = std::env::var_os("HONSHU_TEMPLATES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/templates"),
        PathBuf::from,
    );
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default();
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "jinja")
    });
    files.sort();
    let (mut tools, mut unknown) = (0, Vec::new());
    for path in files {
        let source = std::fs::read_to_string(&path).unwrap();
        let tokens = crate::template::SpecialTokens::default();
        let Ok(template) = crate::template::ChatTemplate::compile(&source, &tokens) else {
            continue;
        };
        let markup = Markup::detect(&source, template.knows_tools(), |_| None);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let thought = if markup.reasons {
            markup.thought.open
        } else {
            ""
        };
        println!(
            "{} {} {thought} {name}",
            template.knows_tools(),
            markup.form.name
        );
        tools += usize::from(template.knows_tools());
        let evidence = markup
            .form
            .evidence
            .iter()
            .any(|texts| texts.iter().all(|text| source.contains(text)));
        if template.knows_tools() && !evidence {
            unknown.push(name);
        }
    }
    println!("{tools} templates show tools; in a form that is not known: {unknown:?}");
    assert!(unknown.len() * 3 <= tools, "{unknown:?}");
}

mod accepted {
    //! Which texts enforced grammars take, walked token by token with the small model's vocabulary.

    use super::super::{Call, Reasoning, answer, forced, lazy};
    use super::*;
    use crate::constraint::{Composition, Grammar, Grammars, Part};
    use crate::job::{Constraint, TokenMask};
    use crate::lazy::{Lazy, Waiting};
    use crate::model::{LoadOptions, LoadedModel};

    fn model() -> LoadedModel {
        let path = std::env::var_os("HONSHU_TEST_MODEL").map_or_else(
            || {
                Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("../../.cache/models/smollm2-135m-instruct.gguf")
            },
            PathBuf::from,
        );
        let options = LoadOptions {
            n_ctx: 256,
            n_seq_max: 1,
            threads: Some(1),
            ..LoadOptions::default()
        };
        LoadedModel::load(&path, &options).unwrap()
    }

    fn calls() -> Vec<Call> {
        let call = |name: &str, parameters| Call {
            name: name.to_owned(),
            parameters,
            strict: true,
            input: None,
        };
        let city = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": false});
        let shared = json!({"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}, "required": ["n"], "additionalProperties": false,
            "$defs": {"N": {"type": "integer"}}});
        vec![call("weather", city), call("add", shared)]
    }

    /// How many bytes of `text` a constraint takes, and whether it may stop there. Tokens end behind each `border`.
    fn walk(
        model: &LoadedModel,
        constraint: &mut dyn Constraint,
        text: &str,
        border: char,
    ) -> (usize, bool) {
        let mut mask = TokenMask::new(model.meta().n_vocab);
        let mut taken = 0;
        let tokens = text
            .split_inclusive(border)
            .flat_map(|part| model.tokenize(part, false, false).unwrap());
        for token in tokens {
            constraint.mask(&mut mask).unwrap();
            if !mask.allows(token) {
                break;
            }
            constraint.accept(token).unwrap();
            taken += model.token_bytes(token).len();
        }
        (taken, constraint.may_stop())
    }

    fn takes(
        model: &LoadedModel,
        grammars: &Grammars,
        composition: &Composition,
        text: &str,
    ) -> bool {
        let mut made = grammars.constraint(Grammar::Composed(composition)).unwrap();
        walk(model, &mut *made.constraint, text, '\0') == (text.len(), true)
    }

    #[test]
    fn enforced_answers_have_the_form_of_the_model_and_room_for_its_reasoning() {
        let model = model();
        let grammars = Grammars::new(&model);
        let tagged = r#"<tool_call>
{"name": "weather", "arguments": {"city": "Paris"}}
</tool_call>"#;
        let added = r#"<tool_call>
{"name": "add", "arguments": {"n": 3}}
</tool_call>"#;
        let wrong = r#"<tool_call>
{"name": "add", "arguments": {"n": "3"}}
</tool_call>"#;
        let harmony =
            r#"<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"n": 3}"#;
        let analysis = "<|channel|>analysis<|message|>hm { hm<|end|><|start|>assistant";
        let coder = "<tool_call>\n<function=weather>\n<parameter=city>\nA <b>\n\nc\n</parameter>\n</function>\n</tool_call>";
        let several = format!("{tagged}\n{added}");
        let thought = format!("Two </thin things.\n</think>\n\n{tagged}");
        let whole = format!("<think>{thought}");
        let reasoned = format!("{analysis}{harmony}");
        let cases: &[(&str, bool, Reasoning, &str, bool)] = &[
            ("chatml", false, Reasoning::None, tagged, true),
            ("chatml", false, Reasoning::None, added, true),
            ("chatml", false, Reasoning::None, wrong, false),
            ("chatml", false, Reasoning::None, "Paris", false),
            ("chatml", false, Reasoning::None, &several, false),
            ("chatml", true, Reasoning::None, &several, true),
            ("chatml", false, Reasoning::None, &whole, false),
            ("chatml", false, Reasoning::Possible, &whole, true),
            ("chatml", false, Reasoning::Possible, tagged, true),
            ("chatml", false, Reasoning::Open, &thought, true),
            ("chatml", false, Reasoning::Open, "never ends", false),
            (
                "llama3",
                false,
                Reasoning::None,
                r#"{"name": "weather", "parameters": {"city": "x"}}"#,
                true,
            ),
            (
                "mistral",
                true,
                Reasoning::None,
                r#"[TOOL_CALLS][{"name": "add", "arguments": {"n": 1}}, {"name": "add", "arguments": {"n": 2}}]"#,
                true,
            ),
            (
                "mistral_named",
                false,
                Reasoning::None,
                r#"[TOOL_CALLS]add[ARGS]{"n": 1}"#,
                true,
            ),
            ("coder", false, Reasoning::None, coder, true),
            (
                "coder",
                false,
                Reasoning::None,
                &coder.replace("weather", "add"),
                false,
            ),
            ("harmony", false, Reasoning::Possible, harmony, true),
            ("harmony", false, Reasoning::Possible, &reasoned, true),
            ("harmony", false, Reasoning::None, &reasoned, false),
        ];
        for (template, several, reasoning, text, taken) in cases {
            let markup = markup(template, "");
            let composition = forced(&markup, &calls(), *several, *reasoning);
            let got = takes(&model, &grammars, &composition, text);
            assert_eq!(got, *taken, "{template} {reasoning:?}: {text}");
        }

        let part = || Part::Schema {
            schema: json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false}),
            strict: true,
        };
        let cases: &[(&str, Reasoning, &[Call], &str, bool)] = &[
            ("chatml", Reasoning::None, &[], r#"{"a": 1}"#, true),
            ("chatml", Reasoning::None, &[], "<think>", false),
            (
                "chatml",
                Reasoning::Possible,
                &[],
                "<think>x</think>\n\n{\"a\": 1}",
                true,
            ),
            ("chatml", Reasoning::None, &[], tagged, false),
            ("chatml", Reasoning::None, &calls(), tagged, true),
            ("chatml", Reasoning::None, &calls(), r#"{"a": 1}"#, true),
            (
                "harmony",
                Reasoning::None,
                &[],
                r#"<|channel|>final<|message|>{"a": 1}"#,
                true,
            ),
        ];
        for (template, reasoning, calls, text, taken) in cases {
            let composition = answer(&markup(template, ""), part(), calls, true, *reasoning);
            let got = takes(&model, &grammars, &composition, text);
            assert_eq!(got, *taken, "{template} {reasoning:?}: {text}");
        }
    }

    #[test]
    fn a_call_that_the_model_begins_by_itself_is_enforced_from_its_mark_on() {
        let model = model();
        let grammars = Grammars::new(&model);
        let call = |name: &str, n: &str| {
            format!(
                "<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {{\"n\": {n}}}}}\n</tool_call>"
            )
        };
        let good = call("add", "1");
        let cases = [
            (
                "chatml",
                format!("Free {{\"text\" <tool> {good} and more {good}!"),
                true,
            ),
            ("chatml", call("add", "\"1\""), false),
            ("chatml", call("other", "1"), false),
            (
                "llama3",
                r#"{"name": "add", "parameters": {"n": 1}} free"#.to_owned(),
                true,
            ),
            (
                "llama3",
                r#"{"name": "add", "parameters": {"n": "1"}}"#.to_owned(),
                false,
            ),
            ("llama3", r#"Say {"name": "Alice"}."#.to_owned(), true),
            (
                "mistral",
                r#"Text [TOOL_CALLS][{"name": "add", "arguments": {"n": 1}}] text"#.to_owned(),
                true,
            ),
            (
                "mistral",
                r#"[TOOL_CALLS][{"name": "add", "arguments": {"m": 1}}]"#.to_owned(),
                false,
            ),
            (
                "harmony",
                r#"<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"n": 1}"#
                    .to_owned(),
                true,
            ),
            (
                "harmony",
                r#"<|channel|>commentary to=functions.sub <|constrain|>json"#.to_owned(),
                false,
            ),
        ];
        for (template, text, taken) in cases {
            let waiting: Vec<Waiting> = lazy(&markup(template, ""), &calls())
                .into_iter()
                .map(|trigger| Waiting {
                    pattern: trigger.pattern,
                    at_start: trigger.at_start,
                    then: grammars.template(Grammar::Composed(&trigger.then)).unwrap(),
                })
                .collect();
            assert!(!waiting.is_empty(), "{template}");
            let mut lazy = Lazy::new(waiting.into(), model.vocabulary());
            // A mark ends where a token does.
            let (length, free) = walk(&model, &mut lazy, &text, ']');
            assert_eq!(
                (length == text.len()) && free,
                taken,
                "{template}: {text}: {length}"
            );
        }
    }
}
