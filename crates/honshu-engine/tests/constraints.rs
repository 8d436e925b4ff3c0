//! Answers with a form: whatever ends normally satisfies its schema, and no schema hurts the process.
//!
//! The small model writes answers at a high temperature, so that it strays as far as the grammar lets it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed test is a panic; helpers of tests are tests"
)]

mod common;

use std::time::Instant;

use honshu_engine::{
    Constraint, FinishReason, Grammar, GrammarError, Grammars, Job, JobEvent, LoadedModel,
    Sampling, TokenMask,
};
use serde_json::{Value, json};

fn model() -> LoadedModel {
    LoadedModel::load(&common::model_path(), &common::options().load).unwrap()
}

/// The answer under a constraint, and whether it ended by itself.
fn answer(
    model: &LoadedModel,
    constraint: Box<dyn Constraint>,
    seed: u64,
    max_tokens: u32,
) -> (String, bool) {
    let prompt = "<|im_start|>user\nAn example, please.<|im_end|>\n<|im_start|>assistant\n";
    let mut job = Job::new(model.tokenize(prompt, false, true).unwrap());
    job.sampling = Sampling {
        temperature: 1.5,
        seed: Some(seed),
        ..Sampling::default()
    };
    job.max_tokens = Some(max_tokens);
    job.constraint = Some(constraint);
    let mut events = model.submit(job).unwrap();
    let mut out = String::new();
    while let Some(event) = events.recv() {
        match event {
            JobEvent::Text { text, .. } => out.push_str(&text),
            JobEvent::Done { finish, .. } => return (out, finish != FinishReason::Length),
            JobEvent::Failed(error) => panic!("{error}"),
            JobEvent::Started { .. } | JobEvent::Control { .. } => {}
        }
    }
    panic!("no end");
}

/// Schemas as agents and SDKs send them, each with a short answer.
fn schemas() -> Vec<Value> {
    let string = json!({"type": "string", "maxLength": 8});
    vec![
        json!({"type": "boolean"}),
        json!({"type": "null"}),
        json!({"type": "integer", "minimum": -5, "maximum": 300}),
        json!({"type": "integer", "exclusiveMinimum": 0, "maximum": 9_007_199_254_740_991_i64}),
        json!({"type": "number", "minimum": 0, "exclusiveMaximum": 1}),
        json!({"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 100}),
        json!({"enum": ["red", "green", 3, null, {"a": 1}]}),
        json!({"const": {"x": ["日本", 1.5, true]}}),
        json!({"type": "string", "maxLength": 12}),
        json!({"type": "string", "minLength": 3, "maxLength": 5}),
        json!({"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}),
        json!({"type": "string", "pattern": "^(日|月|火)曜日$"}),
        json!({"type": "string", "format": "date"}),
        json!({"type": "string", "format": "date-time"}),
        json!({"type": "string", "format": "uuid"}),
        json!({"type": "string", "format": "ipv4"}),
        json!({"type": ["string", "null"], "maxLength": 6}),
        json!({"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 2, "maxItems": 4}),
        json!({"type": "array", "items": {"type": "boolean"}, "maxItems": 3}),
        json!({"type": "array", "prefixItems": [{"type": "boolean"}, {"const": "x"}], "items": false, "minItems": 2}),
        json!({"type": "object", "properties": {}, "additionalProperties": false}),
        json!({"type": "object", "properties": {"a": string, "b": {"type": "boolean"}}, "required": ["a", "b"], "additionalProperties": false}),
        json!({"type": "object", "properties": {"b": {"type": "boolean"}, "a": {"type": "null"}}, "required": ["a"], "additionalProperties": false}),
        json!({"type": "object", "properties": {"n": {"type": "integer", "maximum": 9, "minimum": 0}}, "required": ["n"], "additionalProperties": {"type": "boolean"}, "maxProperties": 1}),
        json!({"anyOf": [{"type": "boolean"}, {"type": "integer", "minimum": 0, "maximum": 9}]}),
        json!({"oneOf": [{"type": "object", "properties": {"k": {"const": "a"}, "v": {"type": "boolean"}}, "required": ["k", "v"], "additionalProperties": false},
                         {"type": "object", "properties": {"k": {"const": "b"}}, "required": ["k"], "additionalProperties": false}]}),
        json!({"allOf": [{"type": "integer", "minimum": 3}, {"type": "integer", "maximum": 7}]}),
        json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "T", "description": "d", "default": 1, "type": "integer", "minimum": 1, "maximum": 2}),
        json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": {"x": {"$ref": "#/definitions/Flag"}}, "required": ["x"], "additionalProperties": false,
               "definitions": {"Flag": {"type": "boolean", "description": "a flag"}}}),
        json!({"type": "object", "properties": {"child": {"anyOf": [{"$ref": "#/$defs/N"}, {"type": "null"}]}}, "required": ["child"], "additionalProperties": false,
               "$defs": {"N": {"type": "object", "properties": {"v": {"type": "boolean"}}, "required": ["v"], "additionalProperties": false}}}),
        json!({"type": "object", "properties": {"steps": {"type": "array", "items": {"type": "object", "properties": {"s": string}, "required": ["s"], "additionalProperties": false}, "minItems": 1, "maxItems": 2},
               "done": {"type": "boolean"}}, "required": ["steps", "done"], "additionalProperties": false}),
        json!({"type": "object", "patternProperties": {"^k[0-9]$": {"type": "boolean"}}, "additionalProperties": false, "properties": {"z": {"type": "null"}}, "required": ["z"]}),
    ]
}

#[test]
fn every_answer_that_ends_satisfies_its_schema() {
    let model = model();
    let grammars = Grammars::new(&model);
    let (mut ended, mut cut) = (0, 0);
    let seeds = if std::env::var_os("SLOW").is_some() {
        4
    } else {
        1
    };
    for (at, schema) in schemas().into_iter().enumerate() {
        let text = schema.to_string();
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(&schema)
            .unwrap();
        for seed in 0..seeds {
            let made = grammars.constraint(Grammar::JsonSchema {
                schema: &text,
                strict: true,
            });
            let made = made.unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(
                made.not_enforced.is_empty(),
                "{text}: {:?}",
                made.not_enforced
            );
            let (answer, by_itself) = answer(&model, made.constraint, seed + at as u64, 80);
            if !by_itself {
                cut += 1;
                continue;
            }
            ended += 1;
            let value: Value = serde_json::from_str(&answer)
                .unwrap_or_else(|error| panic!("{text}: {answer:?}: {error}"));
            assert!(validator.is_valid(&value), "{text} does not allow {answer}");
        }
    }
    println!("{ended} answers ended and satisfy their schema, {cut} were cut by the limit");
    assert!(ended > cut * 5, "{ended} ended, {cut} were cut");
}

#[test]
fn json_mode_regular_expressions_and_lark_are_kept() {
    let model = model();
    let grammars = Grammars::new(&model);
    let made = grammars
        .constraint(Grammar::Regex("(yes|no|maybe), [0-9]{1,3}!"))
        .unwrap();
    let (text, ended) = answer(&model, made.constraint, 1, 30);
    assert!(
        ended && text.ends_with('!') && text.contains(", "),
        "{text}"
    );
    let made = grammars
        .constraint(Grammar::Lark("start: \"<\" /[a-c]{2,4}/ \">\""))
        .unwrap();
    let (text, ended) = answer(&model, made.constraint, 1, 30);
    assert!(
        ended && text.starts_with('<') && text.ends_with('>') && (4..=6).contains(&text.len()),
        "{text}"
    );
    let made = grammars.constraint(Grammar::JsonObject).unwrap();
    let (text, ended) = answer(&model, made.constraint, 3, 120);
    assert!(text.starts_with('{') || text.is_empty(), "{text}");
    assert!(
        !ended || serde_json::from_str::<Value>(&text).unwrap().is_object(),
        "{text}"
    );
}

#[test]
fn no_schema_hurts_the_process_or_takes_long() {
    let model = model();
    let grammars = Grammars::new(&model);
    grammars.warm();
    let nested =
        |depth: usize| format!("{}true{}", r#"{"items":"#.repeat(depth), "}".repeat(depth));
    let refused = [
        "".to_owned(),
        "[]".to_owned(),
        "false".to_owned(),
        "17".to_owned(),
        r#"{"type": "rubbish"}"#.to_owned(),
        r#"{"type": "string", "pattern": "("}"#.to_owned(),
        r#"{"type": "string", "pattern": "(?=a)b"}"#.to_owned(),
        r##"{"$ref": "#/nowhere"}"##.to_owned(),
        r#"{"$ref": "http://127.0.0.1:9/x.json"}"#.to_owned(),
        r#"{"$ref": "file:///etc/passwd"}"#.to_owned(),
        r#"{"type": "array", "minItems": 1000000000}"#.to_owned(),
        r#"{"type": "array", "items": {"type": "null"}, "maxItems": 1e300}"#.to_owned(),
        r#"{"type": "string", "maxLength": 4000000000}"#.to_owned(),
        r#"{"allOf": [{"type": "string"}, {"type": "integer"}]}"#.to_owned(),
        r#"{"not": {"type": "string"}}"#.to_owned(),
        nested(5_000),
        format!(r#"{{"enum": ["{}"]}}"#, "x".repeat(400_000)),
    ];
    for schema in &refused {
        let shown: String = schema.chars().take(80).collect();
        let began = Instant::now();
        let error = grammars
            .constraint(Grammar::JsonSchema {
                schema,
                strict: true,
            })
            .unwrap_err();
        assert!(
            matches!(
                error,
                GrammarError::Unsupported(_) | GrammarError::TooLarge { .. }
            ),
            "{shown}: {error:?}"
        );
        assert!(
            error.to_string().len() < 600 && !error.to_string().contains("backtrace"),
            "{shown}: {error}"
        );
        assert!(
            began.elapsed().as_secs() < 5,
            "{shown}: {:?}",
            began.elapsed()
        );
    }
    let odd = [
        "{}".to_owned(),
        "true".to_owned(),
        r#"{"x-guidance": {"whitespace_flexible": 7, "nonsense": true}, "type": "boolean"}"#
            .to_owned(),
        r##"{"$ref": "#"}"##.to_owned(),
        r##"{"type": "object", "properties": {"self": {"$ref": "#"}}}"##.to_owned(),
        r#"{"type": "string", "maxLength": 100000}"#.to_owned(),
        r#"{"type": "array", "items": {"type": "boolean"}, "maxItems": 4096}"#.to_owned(),
        r#"{"type": "string", "pattern": "((a{1,50}){1,50}){1,50}"}"#.to_owned(),
        r#"{"type": "string", "unknown": 1, "format": "unheard-of"}"#.to_owned(),
        nested(60),
        {
            let properties: serde_json::Map<String, Value> = (0..800)
                .map(|n| (format!("p{n}"), json!({"type": "string", "maxLength": n})))
                .collect();
            json!({"type": "object", "properties": properties}).to_string()
        },
    ];
    let mut mask = TokenMask::new(model.meta().n_vocab);
    for schema in &odd {
        let shown: String = schema.chars().take(80).collect();
        let began = Instant::now();
        match grammars.constraint(Grammar::JsonSchema {
            schema,
            strict: false,
        }) {
            Ok(mut made) => {
                // The first mask is the dearest one; it may be refused, but not crash.
                let masked = made.constraint.mask(&mut mask);
                println!("{shown}: {masked:?} in {:?}", began.elapsed());
            }
            Err(error) => println!("{shown}: {error} in {:?}", began.elapsed()),
        }
        assert!(
            began.elapsed().as_secs() < 5,
            "{shown}: {:?}",
            began.elapsed()
        );
    }
}

#[test]
fn a_lenient_schema_names_what_it_does_not_enforce() {
    let model = model();
    let grammars = Grammars::new(&model);
    let schema = r#"{"type": "string", "format": "unheard-of"}"#;
    assert!(
        grammars
            .constraint(Grammar::JsonSchema {
                schema,
                strict: true
            })
            .is_err()
    );
    let made = grammars
        .constraint(Grammar::JsonSchema {
            schema,
            strict: false,
        })
        .unwrap();
    assert!(
        made.not_enforced
            .iter()
            .any(|note| note.contains("unheard-of")),
        "{:?}",
        made.not_enforced
    );
}
