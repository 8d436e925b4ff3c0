//! Measures the engine: tokens a second over many sequences, a shared prefix, and the worst gap of running streams
//! while a long prompt arrives. `cargo run --release -p honshu-engine --example throughput -- MODEL [THREADS]`
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench talks to a terminal and stops at the first error"
)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use honshu_engine::{
    FlashAttention, Job, JobEvent, JobEvents, KvLayout, LoadOptions, LoadedModel, Sampling, Token,
};

const NEW_TOKENS: u32 = 128;

fn main() {
    let mut args = std::env::args().skip(1);
    let path = PathBuf::from(
        args.next()
            .unwrap_or_else(|| ".cache/models/smollm2-135m-instruct.gguf".to_owned()),
    );
    let threads = args.next().and_then(|n| n.parse().ok());
    let flag = |name: &str| std::env::var_os(name).is_some();
    let opts = LoadOptions {
        n_ctx: 16384,
        threads,
        flash_attention: if flag("FLASH") {
            FlashAttention::On
        } else {
            FlashAttention::Auto
        },
        kv_layout: if flag("PARTS") {
            KvLayout::Parts
        } else {
            KvLayout::Pool
        },
        ..LoadOptions::default()
    };
    let started = Instant::now();
    let model = LoadedModel::load(&path, &opts).unwrap();
    println!(
        "loaded in {:.0} ms, {} threads {:?}",
        ms(started),
        threads.unwrap_or(0),
        opts.flash_attention
    );
    let mut salt = 1_000_000;
    for n in [1, 4, 8, 16] {
        salt += 100;
        let started = Instant::now();
        let cpu = cpu_seconds();
        let jobs: Vec<JobEvents> = (0..n)
            .map(|i| {
                model
                    .submit(job(&model, words(&model, i, 27), salt + i, NEW_TOKENS))
                    .unwrap()
            })
            .collect();
        let tokens: u32 = jobs.into_iter().map(count).sum();
        let seconds = started.elapsed().as_secs_f64();
        let cpu = cpu_seconds() - cpu;
        println!(
            "N={n:2}: {:7.1} tokens/s, {:.2} cores, {:.2} cpu ms/token",
            f64::from(tokens) / seconds,
            cpu / seconds,
            cpu * 1e3 / f64::from(tokens)
        );
    }
    for context in [256, 1024] {
        long_contexts(&model, context);
    }
    shared_prefix(&model);
    worst_gap(&model);
}

/// Decoding over long unlike contexts, their prefill left out.
fn long_contexts(model: &LoadedModel, context: usize) {
    let submit = |i: u64| {
        let salt = 40_000 + context as u64 + i;
        model
            .submit(job(model, words(model, salt, context), salt, 48))
            .unwrap()
    };
    let mut jobs: Vec<JobEvents> = (0..4).map(submit).collect();
    for events in &mut jobs {
        while !matches!(events.recv(), Some(JobEvent::Text { .. }) | None) {}
    }
    let (started, cpu, decoded) = (Instant::now(), cpu_seconds(), model.stats().tokens_decoded);
    jobs.into_iter().for_each(|events| {
        count(events);
    });
    let tokens = (model.stats().tokens_decoded - decoded).max(1) as f64;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    println!(
        "4 contexts of {context}: {:.1} tokens/s, {:.2} cpu ms/token",
        tokens / seconds,
        cpu * 1e3 / tokens
    );
}

fn shared_prefix(model: &LoadedModel) {
    let prefix = words(model, 3, 1024);
    let with_own = |i: u64| [prefix.clone(), words(model, 100 + i, 32)].concat();
    let run = |salt_of: &dyn Fn(u64) -> u64, together: bool| {
        let started = Instant::now();
        let submit = |i| {
            model
                .submit(job(model, with_own(i), salt_of(i), 8))
                .unwrap()
        };
        if together {
            let jobs: Vec<JobEvents> = (0..8).map(submit).collect();
            jobs.into_iter().for_each(|events| {
                count(events);
            });
        } else {
            (0..8).for_each(|i| {
                count(submit(i));
            });
        }
        started.elapsed().as_secs_f64()
    };
    let apart = run(&|i| 500 + i, true);
    let shared = run(&|_| 600, true);
    println!(
        "8 x (1024 + 32): each alone {apart:.2} s, shared {shared:.2} s, {:.1} times faster",
        apart / shared
    );
}

fn worst_gap(model: &LoadedModel) {
    let running: Vec<JobEvents> = (0..4)
        .map(|i| {
            model
                .submit(job(model, words(model, i, 27), 700 + i, 400))
                .unwrap()
        })
        .collect();
    std::thread::scope(|scope| {
        let readers: Vec<_> = running
            .into_iter()
            .map(|mut events| {
                scope.spawn(move || {
                    let (mut last, mut worst) = (None::<Instant>, Duration::ZERO);
                    while let Some(event) = events.recv() {
                        if matches!(event, JobEvent::Text { .. }) {
                            let now = Instant::now();
                            worst = worst.max(last.map_or(Duration::ZERO, |at| now - at));
                            last = Some(now);
                        }
                    }
                    worst
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        let started = Instant::now();
        let mut long = model
            .submit(job(model, words(model, 9, 1500), 800, 4))
            .unwrap();
        while !matches!(long.recv(), Some(JobEvent::Text { .. }) | None) {}
        let first = ms(started);
        drop(long);
        let worst = readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .max()
            .unwrap();
        println!(
            "1500-token prompt beside 4 streams: worst gap {} ms, its first token after {first:.0} ms",
            worst.as_millis()
        );
    });
}

/// A prompt of ordinary words, different for each number, of exactly so many tokens.
fn words(model: &LoadedModel, number: u64, tokens: usize) -> Vec<Token> {
    const WORDS: [&str; 12] = [
        "river", "stone", "letter", "garden", "music", "window", "winter", "market", "story",
        "doctor", "island", "engine",
    ];
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let text: Vec<&str> = (0..tokens * 2)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            WORDS[usize::try_from(state % 12).unwrap()]
        })
        .collect();
    let mut all = model.tokenize(&text.join(" "), false, false).unwrap();
    all.truncate(tokens);
    all
}

fn job(model: &LoadedModel, prompt: Vec<Token>, salt: u64, max_tokens: u32) -> Job {
    // The defaults of OpenAI's clients; only the end is forbidden, so that every answer has the same length.
    let ends = (0..)
        .take(model.meta().n_vocab)
        .filter(|t| model.is_end_of_generation(*t))
        .map(|t| (t, -1000.0));
    let sampling = Sampling {
        logit_bias: ends.collect(),
        seed: Some(salt),
        ..Sampling::default()
    };
    Job {
        sampling,
        salt,
        max_tokens: Some(max_tokens),
        ..Job::new(prompt)
    }
}

fn count(mut events: JobEvents) -> u32 {
    let mut tokens = 0;
    while let Some(event) = events.recv() {
        match event {
            JobEvent::Done { usage, .. } => tokens = usage.completion_tokens,
            JobEvent::Failed(error) => println!("failed: {error}"),
            _ => {}
        }
    }
    tokens
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// User and system time of this process, in seconds (Linux; 0 elsewhere).
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    let ticks = |i: usize| {
        fields
            .get(i)
            .and_then(|f| f.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / 100.0
}
