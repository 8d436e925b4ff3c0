//! What a constraint costs: the same prompt decoded freely and under a schema, in turns.
//!
//! `cargo run --release --example constrained -- MODEL.gguf [ROUNDS]` prints microseconds a token and their ratio.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program for measuring by hand"
)]

use std::time::Instant;

use honshu_engine::{Grammar, Grammars, Job, JobEvent, LoadOptions, LoadedModel, Sampling, Token};

/// An answer that does not end by itself within the tokens that are measured.
const SCHEMA: &str = r#"{"type": "array", "minItems": 200, "items": {"type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "tags": {"type": "array", "items": {"type": "string", "enum": ["new", "old", "kept"]}}},
    "required": ["name", "age", "tags"], "additionalProperties": false}}"#;
const TOKENS: u32 = 192;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap();
    let rounds: usize = arguments.next().map_or(7, |n| n.parse().unwrap());
    let model = LoadedModel::load(path.as_ref(), &LoadOptions::default()).unwrap();
    let grammars = Grammars::new(&model);
    grammars.warm();
    let prompt = model
        .tokenize(
            "<|im_start|>user\nList some people as JSON.<|im_end|>\n<|im_start|>assistant\n",
            false,
            true,
        )
        .unwrap();
    let ends: Vec<(Token, f32)> = (0..)
        .take(model.meta().n_vocab)
        .filter(|token| model.is_end_of_generation(*token))
        .map(|token| (token, -1e9))
        .collect();
    let began = Instant::now();
    let grammar = || Grammar::JsonSchema {
        schema: SCHEMA,
        strict: true,
    };
    drop(grammars.constraint(grammar()).unwrap());
    println!("compiled in {:?}", began.elapsed());
    let began = Instant::now();
    drop(grammars.constraint(grammar()).unwrap());
    println!("found compiled in {:?}", began.elapsed());

    let decode = |constrained: bool, temperature: f32| -> (f64, f64) {
        let mut job = Job::new(prompt.clone());
        job.max_tokens = Some(TOKENS);
        job.sampling = Sampling {
            temperature,
            seed: Some(1),
            min_p: 0.05,
            logit_bias: if constrained {
                Vec::new()
            } else {
                ends.clone()
            },
            ..Sampling::default()
        };
        job.constraint = constrained.then(|| grammars.constraint(grammar()).unwrap().constraint);
        let mut events = model.submit(job).unwrap();
        let (mut first, mut tokens) = (None, 0);
        let mut cpu = 0.0;
        while let Some(event) = events.recv() {
            match event {
                JobEvent::Text { tokens: more, .. } => {
                    if first.is_none() {
                        first = Some(Instant::now());
                        cpu = cpu_seconds();
                    }
                    tokens += more;
                }
                JobEvent::Done { usage, .. } => assert_eq!(usage.completion_tokens, TOKENS),
                JobEvent::Failed(error) => panic!("{error}"),
                JobEvent::Started { .. } | JobEvent::Control { .. } => {}
            }
        }
        let per_token = 1e6 / f64::from(tokens - 1);
        (
            first.unwrap().elapsed().as_secs_f64() * per_token,
            (cpu_seconds() - cpu) * per_token,
        )
    };
    for temperature in [0.0, 1.0] {
        let mut figures = [const { Vec::new() }; 4];
        for _ in 0..rounds {
            for (at, constrained) in [false, true].into_iter().enumerate() {
                let (wall, cpu) = decode(constrained, temperature);
                figures[at].push(wall);
                figures[at + 2].push(cpu);
            }
        }
        let [free, held, free_cpu, held_cpu] = figures.map(|mut figures| {
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        });
        println!(
            "temperature {temperature}: free {free:.0} µs, constrained {held:.0} µs a token, ratio {:.3}; \
             CPU {free_cpu:.0} and {held_cpu:.0} µs, ratio {:.3}",
            held / free,
            held_cpu / free_cpu
        );
    }
}

/// CPU time of this process so far, all threads.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |n: usize| {
        fields
            .split_whitespace()
            .nth(n)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / 100.0
}
