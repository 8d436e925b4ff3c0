//! The engine with the real small model: what a caller sees of batching, sharing, cancelling and stopping.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use honshu_engine::{
    Constraint, EngineError, FinishReason, Job, JobEvent, JobEvents, JobUsage, KvLayout, LoadError,
    LoadOptions, LoadedModel, Sampling, SubmitError, Token, TokenLogprob, TokenMask,
};

fn model_path() -> PathBuf {
    let path = std::env::var_os("HONSHU_TEST_MODEL")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("../../.cache/models/smollm2-135m-instruct.gguf")
        });
    assert!(
        path.is_file(),
        "no test model at {}; fetch it with `make test-model`",
        path.display()
    );
    path
}

fn options() -> LoadOptions {
    LoadOptions {
        n_ctx: 4096,
        n_seq_max: 4,
        queue_max: 8,
        ..LoadOptions::default()
    }
}

fn load(opts: &LoadOptions) -> LoadedModel {
    LoadedModel::load(&model_path(), opts).unwrap()
}

fn shared() -> &'static LoadedModel {
    static MODEL: OnceLock<LoadedModel> = OnceLock::new();
    MODEL.get_or_init(|| load(&options()))
}

fn chat(model: &LoadedModel, question: &str) -> Vec<Token> {
    let text = format!("<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n");
    model.tokenize(&text, false, true).unwrap()
}

fn greedy(prompt: Vec<Token>, max_tokens: u32) -> Job {
    Job {
        sampling: Sampling::greedy(),
        max_tokens: Some(max_tokens),
        ..Job::new(prompt)
    }
}

/// A job that goes on for long: the model must not end it.
fn endless(model: &LoadedModel, salt: u64) -> Job {
    let prompt = chat(model, &format!("Count up from {salt}."));
    let bias = (0..)
        .take(model.meta().n_vocab)
        .filter(|t| model.is_end_of_generation(*t))
        .map(|t| (t, -1000.0));
    let sampling = Sampling {
        logit_bias: bias.collect(),
        ..Sampling::greedy()
    };
    Job {
        sampling,
        salt,
        ..Job::new(prompt)
    }
}

#[derive(Debug, Default)]
struct Answer {
    text: String,
    tokens: u32,
    cached: u32,
    logprobs: Vec<TokenLogprob>,
    end: Option<(FinishReason, JobUsage)>,
    failed: Option<EngineError>,
}

fn read(mut events: JobEvents) -> Answer {
    let mut answer = Answer::default();
    while let Some(event) = events.recv() {
        assert!(
            answer.end.is_none() && answer.failed.is_none(),
            "an event after the last"
        );
        match event {
            JobEvent::Started { cached_tokens, .. } => answer.cached = cached_tokens,
            JobEvent::Control { tokens, .. } => answer.tokens += tokens,
            JobEvent::Text {
                text,
                logprobs,
                tokens,
            } => {
                answer.text.push_str(&text);
                answer.tokens += tokens;
                answer.logprobs.extend(logprobs);
            }
            JobEvent::Done { finish, usage } => answer.end = Some((finish, usage)),
            JobEvent::Failed(error) => answer.failed = Some(error),
        }
    }
    assert!(
        answer.end.is_some() || answer.failed.is_some(),
        "no last event"
    );
    answer
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "{what} did not happen"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn the_capital_of_france_is_paris_and_usage_is_exact() {
    let model = shared();
    let prompt = chat(model, "What is the capital of France?");
    let prompt_tokens = u32::try_from(prompt.len()).unwrap();
    let answer = read(model.submit(greedy(prompt, 64)).unwrap());
    assert!(answer.text.contains("Paris"), "{}", answer.text);
    let (finish, usage) = answer.end.unwrap();
    assert_eq!(finish, FinishReason::Stop);
    assert_eq!(usage.prompt_tokens, prompt_tokens);
    assert_eq!(usage.completion_tokens, answer.tokens);
    assert!(!answer.text.contains("<|im_end|>"));
}

/// Rounding depends on how prompts are cut into steps and on how many threads share the work, so that a near tie can fall
/// either way: until then two answers have the same tokens at nearly the same probabilities.
#[track_caller]
fn assert_alike(one: &Answer, other: &Answer) {
    assert!(!one.logprobs.is_empty());
    for (a, b) in one.logprobs.iter().zip(&other.logprobs) {
        if a.token == b.token {
            assert!((a.logprob - b.logprob).abs() < 0.3, "{a:?} and {b:?}");
            continue;
        }
        let tie = |this: &TokenLogprob, that: &TokenLogprob| {
            this.top
                .iter()
                .any(|top| top.token == that.token && this.logprob - top.logprob < 0.3)
        };
        assert!(tie(a, b) && tie(b, a), "{a:?} and {b:?}");
        return;
    }
    assert_eq!(one.text, other.text);
}

#[test]
fn greedy_answers_are_alike_alone_and_batched() {
    for kv_layout in [KvLayout::Pool, KvLayout::Parts] {
        let model = &load(&LoadOptions {
            kv_layout,
            ..options()
        });
        let questions = [
            "Name three colours.",
            "What is water?",
            "Write a haiku.",
            "How do I boil an egg?",
        ];
        let job = |q: &str, salt| Job {
            salt,
            logprobs: Some(3),
            ..greedy(chat(model, q), 32)
        };
        let alone: Vec<Answer> = questions
            .iter()
            .map(|q| read(model.submit(job(q, 1001)).unwrap()))
            .collect();
        let together: Vec<JobEvents> = questions
            .iter()
            .map(|q| model.submit(job(q, 1002)).unwrap())
            .collect();
        for (alone, together) in alone.iter().zip(together) {
            assert_alike(alone, &read(together));
        }
    }
}

#[test]
fn a_reader_that_leaves_frees_its_place_in_a_step() {
    let model = load(&LoadOptions {
        n_seq_max: 1,
        ..options()
    });
    let mut events = model.submit(endless(&model, 1)).unwrap();
    while !matches!(events.recv(), Some(JobEvent::Text { .. })) {}
    assert_eq!(model.stats().running, 1);
    let before = model.stats().steps;
    drop(events);
    wait_until("cancelling", || model.stats().running == 0);
    assert!(
        model.stats().steps <= before + 2,
        "{} steps",
        model.stats().steps - before
    );
}

#[test]
fn a_long_prompt_is_cut_short_when_its_reader_leaves() {
    let model = load(&LoadOptions {
        n_ctx: 8192,
        n_batch: 2048,
        ..options()
    });
    let prompt = vec![100; 6000];
    let events = model.submit(greedy(prompt, 1)).unwrap();
    wait_until("starting", || model.stats().running == 1);
    std::thread::sleep(Duration::from_millis(100));
    let left = Instant::now();
    drop(events);
    wait_until("cancelling", || model.stats().running == 0);
    assert!(
        left.elapsed() < Duration::from_millis(1500),
        "{:?}",
        left.elapsed()
    );
    // And the engine is well afterwards.
    assert!(
        read(model.submit(greedy(chat(&model, "Hello!"), 4)).unwrap())
            .end
            .is_some()
    );
}

#[test]
fn a_stop_string_ends_the_answer_and_is_not_shown() {
    let model = shared();
    let prompt = chat(model, "What is the capital of France?");
    let job = Job {
        stop: vec!["nothing".into(), "Paris".into()],
        logprobs: Some(0),
        ..greedy(prompt, 64)
    };
    let answer = read(model.submit(job).unwrap());
    assert_eq!(
        answer.end.unwrap().0,
        FinishReason::StopString("Paris".into())
    );
    assert!(answer.text.ends_with("is "), "{:?}", answer.text);
    let bytes: Vec<u8> = answer
        .logprobs
        .iter()
        .flat_map(|l| l.bytes.clone())
        .collect();
    assert!(String::from_utf8_lossy(&bytes).starts_with(&answer.text));
}

/// Makes the model say exactly these tokens.
struct Script(Vec<Token>, usize);

impl Constraint for Script {
    fn mask(&mut self, out: &mut TokenMask) -> Result<(), EngineError> {
        out.clear();
        if let Some(token) = self.0.get(self.1) {
            out.allow(*token);
        }
        Ok(())
    }
    fn accept(&mut self, token: Token) -> Result<(), EngineError> {
        assert_eq!(token, self.0[self.1]);
        self.1 += 1;
        Ok(())
    }
    fn may_stop(&self) -> bool {
        self.1 == self.0.len()
    }
}

#[test]
fn characters_split_over_tokens_arrive_whole_and_a_constraint_ends_the_answer() {
    let model = shared();
    let text = "東京🗼 naïve";
    let script = model.tokenize(text, false, false).unwrap();
    let part = |t: &&Token| std::str::from_utf8(model.token_bytes(**t)).is_err();
    assert!(
        script.iter().filter(part).count() >= 2,
        "no token is a part of a character, so this tests nothing"
    );
    let job = Job {
        constraint: Some(Box::new(Script(script, 0))),
        ..greedy(chat(model, "Hi"), 99)
    };
    let mut events = model.submit(job).unwrap();
    let mut whole = String::new();
    while let Some(event) = events.recv() {
        match event {
            JobEvent::Text { text, .. } => {
                assert!(!text.contains('\u{FFFD}'), "{text:?}");
                whole.push_str(&text);
            }
            JobEvent::Done { finish, .. } => assert_eq!(finish, FinishReason::Stop),
            JobEvent::Failed(error) => panic!("{error}"),
            JobEvent::Started { .. } | JobEvent::Control { .. } => {}
        }
    }
    assert_eq!(whole, text);
}

#[test]
fn control_tokens_are_told_only_to_those_who_ask_and_part_the_text() {
    let model = shared();
    let one = |text: &str| model.tokenize(text, false, true).unwrap()[0];
    let (asked, other) = (one("<|im_start|>"), one("<|endoftext|>"));
    assert!(model.is_control(asked) && model.is_control(other));
    let mut script = vec![asked];
    for text in ["a", "b"] {
        script.extend(model.tokenize(text, false, false).unwrap());
        script.push(asked);
    }
    let length = u32::try_from(script.len()).unwrap();
    let said = |shown: &[Token], stop: &[&str]| {
        let job = Job {
            constraint: Some(Box::new(Script(script.clone(), 0))),
            shown_controls: shown.into(),
            stop: stop.iter().map(ToString::to_string).collect(),
            ..greedy(chat(model, "Hi"), 99)
        };
        let mut events = model.submit(job).unwrap();
        let (mut said, mut count) = (String::new(), 0);
        while let Some(event) = events.recv() {
            match event {
                JobEvent::Text { text, tokens, .. } => {
                    said.push_str(&text);
                    count += tokens;
                }
                JobEvent::Control { token, tokens } => {
                    assert_eq!(token, asked);
                    said.push('|');
                    count += tokens;
                }
                JobEvent::Done { usage, .. } => assert_eq!(usage.completion_tokens, count),
                JobEvent::Failed(error) => panic!("{error}"),
                JobEvent::Started { .. } => {}
            }
        }
        (said, count)
    };
    assert_eq!(said(&[asked], &[]), ("|a|b|".to_owned(), length));
    assert_eq!(said(&[other], &[]), ("ab".to_owned(), length));
    assert_eq!(said(&[asked], &["ab"]), ("|a|b|".to_owned(), length));
    assert_eq!(said(&[], &["ab"]).0, "");
}

#[test]
fn the_bytes_of_the_logprobs_are_the_text() {
    let model = shared();
    let mut script = model.tokenize("東京 tower", false, false).unwrap();
    let control = model.tokenize("<|im_start|>", false, true).unwrap();
    assert!(control.len() == 1 && model.is_control(control[0]));
    script.extend(control);
    script.extend(model.tokenize(" naïve 🗼", false, false).unwrap());
    let job = Job {
        constraint: Some(Box::new(Script(script, 0))),
        logprobs: Some(0),
        stop: vec!["🗼🗼".into()],
        ..greedy(chat(model, "Hi"), 99)
    };
    let answer = read(model.submit(job).unwrap());
    assert_eq!(answer.text, "東京 tower naïve 🗼");
    let bytes: Vec<u8> = answer
        .logprobs
        .iter()
        .flat_map(|l| l.bytes.clone())
        .collect();
    assert_eq!(String::from_utf8(bytes).unwrap(), answer.text);
}

#[test]
fn a_shared_prefix_is_computed_once_and_only_within_its_salt() {
    let model = load(&LoadOptions {
        n_seq_max: 8,
        ..options()
    });
    let system = "You are a careful assistant who answers in one word. ".repeat(20);
    let prompt = |i: u32| {
        chat(
            &model,
            &format!("{system} Question {i}: what is {i} plus {i}?"),
        )
    };
    let job = |i, salt| Job {
        salt,
        ..greedy(prompt(i), 2)
    };
    let length = prompt(1).len() as u64;
    let events: Vec<JobEvents> = (1..=8).map(|i| model.submit(job(i, 7)).unwrap()).collect();
    let answers: Vec<Answer> = events.into_iter().map(read).collect();
    let stats = model.stats();
    assert!(
        stats.prompt_tokens_computed < length * 2,
        "{stats:?} for prompts of {length}"
    );
    assert_eq!(stats.prefix_hits, 7);
    assert!(
        answers
            .iter()
            .filter(|a| u64::from(a.cached) > length / 2)
            .count()
            == 7
    );
    let other = read(model.submit(job(1, 8)).unwrap());
    assert_eq!(other.cached, 0, "another salt must not find the prefix");
    let again = read(model.submit(job(1, 7)).unwrap());
    assert_eq!(u64::from(again.cached), length - 1);
}

#[test]
fn keys_take_turns() {
    let model = load(&LoadOptions {
        n_seq_max: 1,
        ..options()
    });
    let blocker = model.submit(endless(&model, 0)).unwrap();
    wait_until("starting", || model.stats().running == 1);
    let order = std::sync::Mutex::new(Vec::new());
    let jobs: Vec<(u64, JobEvents)> = [1, 1, 1, 2]
        .into_iter()
        .enumerate()
        .map(|(i, key)| {
            let job = Job {
                fairness_key: key,
                salt: i as u64 + 50,
                ..greedy(chat(&model, "Hi"), 2)
            };
            (key, model.submit(job).unwrap())
        })
        .collect();
    drop(blocker);
    std::thread::scope(|scope| {
        for (key, events) in jobs {
            let order = &order;
            scope.spawn(move || {
                let mut events = events;
                while let Some(event) = events.recv() {
                    if matches!(event, JobEvent::Started { .. }) {
                        order.lock().unwrap().push(key);
                    }
                }
            });
        }
    });
    let order = order.into_inner().unwrap();
    let place = order.iter().position(|key| *key == 2).unwrap();
    assert!(
        place <= 1,
        "the second key had to wait for all of the first: {order:?}"
    );
}

#[test]
fn a_full_queue_is_told_at_once_with_a_time() {
    let model = load(&LoadOptions {
        n_seq_max: 1,
        queue_max: 1,
        ..options()
    });
    let _running = model.submit(endless(&model, 1)).unwrap();
    let _waiting = model.submit(endless(&model, 2)).unwrap();
    let refused = model.submit(endless(&model, 3)).unwrap_err();
    let SubmitError::QueueFull { retry_after } = refused else {
        panic!("{refused}")
    };
    assert!((1..=60).contains(&retry_after.as_secs()));
}

#[test]
fn a_job_that_waits_too_long_fails() {
    let deadline = Duration::from_millis(200);
    let model = load(&LoadOptions {
        n_seq_max: 1,
        queue_deadline: deadline,
        ..options()
    });
    let _running = model.submit(endless(&model, 1)).unwrap();
    let waiting = model.submit(endless(&model, 2)).unwrap();
    let failed = read(waiting).failed;
    assert!(
        matches!(failed, Some(EngineError::QueueDeadline { waited_ms, .. }) if waited_ms >= 200),
        "{failed:?}"
    );
}

#[test]
fn context_overflow_is_refused_before_and_ends_with_length_inside() {
    let model = load(&LoadOptions {
        n_ctx: 256,
        n_seq_max: 1,
        ..options()
    });
    let limit = model.meta().n_ctx;
    let refused = model
        .submit(greedy(vec![5; limit as usize], 1))
        .unwrap_err();
    assert_eq!(
        refused,
        SubmitError::ContextLength {
            prompt_tokens: limit,
            max_output: 1,
            limit
        }
    );
    let long = Job {
        max_tokens: None,
        ..endless(&model, 1)
    };
    let (finish, usage) = read(model.submit(long).unwrap()).end.unwrap();
    assert_eq!(finish, FinishReason::Length);
    assert_eq!(usage.prompt_tokens + usage.completion_tokens, limit);
}

#[test]
fn a_full_cache_preempts_and_every_answer_still_comes_whole() {
    let small = load(&LoadOptions {
        n_ctx: 512,
        n_seq_max: 4,
        ..options()
    });
    let job = |model: &LoadedModel, i| Job {
        max_tokens: Some(180),
        ..endless(model, i)
    };
    let events: Vec<JobEvents> = (1..=4)
        .map(|i| small.submit(job(&small, i)).unwrap())
        .collect();
    let squeezed: Vec<Answer> = events.into_iter().map(read).collect();
    assert!(small.stats().preempted > 0, "{:?}", small.stats());
    for (i, answer) in (1..).zip(squeezed) {
        let alone = read(shared().submit(job(shared(), i)).unwrap());
        assert_eq!(answer.tokens, 180);
        // Computed again in another batch, so rounding may differ in the end, but not the beginning.
        let same = answer
            .text
            .bytes()
            .zip(alone.text.bytes())
            .take_while(|(a, b)| a == b)
            .count();
        assert!(same >= 40, "{:?} and {:?}", answer.text, alone.text);
    }
}

#[test]
fn a_slow_reader_pauses_its_own_sequence_only() {
    let model = load(&options());
    let slow = model.submit(endless(&model, 1)).unwrap();
    let quick = read(
        model
            .submit(Job {
                max_tokens: Some(300),
                ..endless(&model, 2)
            })
            .unwrap(),
    );
    assert_eq!(quick.tokens, 300);
    wait_until("pausing", || {
        let before = model.stats().steps;
        std::thread::sleep(Duration::from_millis(200));
        model.stats().steps == before
    });
    assert!(
        model.stats().tokens_decoded < 300 + 200,
        "{:?}",
        model.stats()
    );
    let mut slow = slow;
    let before = model.stats().tokens_decoded;
    for _ in 0..120 {
        slow.recv().unwrap();
    }
    wait_until("going on", || model.stats().tokens_decoded > before);
}

#[test]
fn readers_that_stopped_reading_do_not_hold_every_place() {
    for kv_layout in [KvLayout::Pool, KvLayout::Parts] {
        let model = load(&LoadOptions {
            n_seq_max: 2,
            kv_layout,
            queue_deadline: Duration::from_secs(5),
            ..options()
        });
        let job = |salt, max_tokens| Job {
            max_tokens: Some(max_tokens),
            ..endless(&model, salt)
        };
        let slow: Vec<JobEvents> = (1..=2)
            .map(|salt| model.submit(job(salt, 200)).unwrap())
            .collect();
        wait_until("pausing", || {
            let before = model.stats().steps;
            std::thread::sleep(Duration::from_millis(100));
            model.stats().steps == before && before > 100
        });
        let quick = read(model.submit(job(3, 20)).unwrap());
        assert_eq!((quick.tokens, quick.failed), (20, None));
        // And they go on where they were.
        for events in slow {
            let answer = read(events);
            assert_eq!((answer.tokens, answer.failed), (200, None));
        }
    }
}

#[test]
fn equal_seeds_give_equal_answers() {
    let model = load(&LoadOptions {
        n_seq_max: 1,
        ..options()
    });
    let answer = |seed| {
        let sampling = Sampling {
            seed: Some(seed),
            ..Sampling::default()
        };
        let job = Job {
            sampling,
            max_tokens: Some(24),
            ..Job::new(chat(&model, "Tell me a story."))
        };
        read(model.submit(job).unwrap()).text
    };
    let first = answer(11);
    assert_eq!(first, answer(11));
    assert_ne!(first, answer(12));
}

#[test]
fn logprobs_come_for_every_token_with_the_best_alternatives() {
    let model = shared();
    let job = Job {
        logprobs: Some(5),
        ..greedy(chat(model, "What is the capital of France?"), 6)
    };
    let answer = read(model.submit(job).unwrap());
    assert_eq!(answer.logprobs.len(), 6);
    for entry in &answer.logprobs {
        assert_eq!(entry.top.len(), 5);
        assert_eq!(entry.top[0].token, entry.token, "greedy takes the best");
        assert!((entry.top[0].logprob - entry.logprob).abs() < 1e-6 && entry.logprob <= 0.0);
        assert!(entry.top.windows(2).all(|w| w[0].logprob >= w[1].logprob));
    }
}

#[test]
fn corrupt_and_missing_and_oversized_models_are_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(model_path()).unwrap();
    let try_load = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        LoadedModel::load(&path, &options()).unwrap_err()
    };
    let truncated = try_load("truncated.gguf", &bytes[..bytes.len() - 1]);
    assert!(
        matches!(truncated, LoadError::Corrupt { .. }),
        "{truncated}"
    );
    let mut huge = bytes[..1 << 16].to_vec();
    huge[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(
        try_load("huge.gguf", &huge),
        LoadError::Corrupt { .. }
    ));
    assert!(matches!(
        try_load("empty.gguf", b""),
        LoadError::Corrupt { .. }
    ));
    let missing = LoadedModel::load(&folder.path().join("missing.gguf"), &options()).unwrap_err();
    assert!(matches!(missing, LoadError::Unreadable { .. }), "{missing}");
    let opts = LoadOptions {
        memory_max_bytes: Some(50 << 20),
        ..options()
    };
    let big = LoadedModel::load(&model_path(), &opts).unwrap_err();
    let LoadError::DoesNotFit {
        needed_bytes,
        available_bytes,
    } = big
    else {
        panic!("{big}")
    };
    assert!(needed_bytes > available_bytes);
    assert_eq!(
        needed_bytes,
        LoadedModel::estimate_bytes(&model_path(), &opts).unwrap()
    );
}

#[test]
fn invalid_jobs_are_refused() {
    let model = shared();
    let n = i32::try_from(model.meta().n_vocab).unwrap();
    let jobs = [
        Job::new(vec![]),
        Job::new(vec![n]),
        Job::new(vec![-1]),
        Job {
            max_tokens: Some(0),
            ..Job::new(vec![1])
        },
        Job {
            stop: vec![String::new()],
            ..Job::new(vec![1])
        },
        Job {
            logprobs: Some(21),
            ..Job::new(vec![1])
        },
        Job {
            sampling: Sampling {
                temperature: f32::NAN,
                ..Sampling::default()
            },
            ..Job::new(vec![1])
        },
    ];
    for job in jobs {
        assert!(matches!(model.submit(job), Err(SubmitError::Invalid(_))));
    }
}

#[test]
fn dropping_the_model_ends_its_jobs() {
    let model = load(&options());
    let events = model.submit(endless(&model, 1)).unwrap();
    wait_until("starting", || model.stats().running == 1);
    drop(model);
    assert_eq!(read(events).failed, Some(EngineError::Stopped));
}
