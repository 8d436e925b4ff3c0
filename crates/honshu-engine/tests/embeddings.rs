//! Vectors of the real small model. It was made for conversation, which makes its vectors no good ones; that they are
//! computed as they should be shows all the same.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test is a panic; helpers of tests are tests"
)]

mod common;

use std::sync::Arc;

use base64::Engine as _;
use common::{ask, attempt, model_path, options, pool, run, runtime};
use futures_util::StreamExt as _;
use honshu_domain::{Backend, Demand, Dialect, Error, ErrorKind, RunEvent, Support};
use honshu_engine::{EnginePool, LoadedModel};
use honshu_wire::embeddings;
use serde_json::{Value, json};

const WIDTH: usize = 576;

fn backend(pool: &EnginePool) -> Arc<dyn Backend> {
    pool.embedding_backend_for(&model_path(), "small", options())
}

/// The answer's body and its counts, after checking the order of the events.
async fn answer(backend: &Arc<dyn Backend>, body: Value) -> Result<(Value, u64), Error> {
    let mut body = body;
    body["model"] = json!("small");
    let request = embeddings::parse_request(body.to_string().into()).unwrap();
    let mut stream = backend.generate(attempt(request));
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        events.push(event?);
    }
    let [
        RunEvent::Started { .. },
        RunEvent::Native(frame),
        RunEvent::Finished(finish),
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert!(frame.whole && frame.dialect == Dialect::Embeddings);
    let usage = finish.usage.unwrap();
    assert_eq!(usage.output_tokens, 0);
    Ok((
        serde_json::from_slice(&frame.json).unwrap(),
        usage.input_tokens,
    ))
}

async fn vectors(backend: &Arc<dyn Backend>, body: Value) -> Vec<Vec<f32>> {
    let (answer, tokens) = answer(backend, body).await.unwrap();
    assert_eq!(answer["usage"]["prompt_tokens"], tokens);
    let data = answer["data"].as_array().unwrap();
    data.iter()
        .enumerate()
        .map(|(index, entry)| {
            assert_eq!(entry["index"], index);
            let numbers = entry["embedding"].as_array().unwrap().iter();
            numbers
                .map(|number| number.as_f64().unwrap() as f32)
                .collect()
        })
        .collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn vectors_are_the_same_alone_and_in_company_and_like_texts_are_near() {
    runtime().block_on(async {
        let pool = pool();
        let backend = backend(&pool);
        let texts = [
            "A cat sits on the mat.",
            "The cat is sitting on a mat.",
            "Interest rates rose again, and shares fell in New York.",
            "cat",
        ];
        let all = vectors(&backend, json!({"input": texts})).await;
        assert_eq!(all.len(), texts.len());
        for (text, vector) in texts.iter().zip(&all) {
            assert_eq!(vector.len(), WIDTH);
            assert!((cosine(vector, vector) - 1.0).abs() < 1e-4, "{text}");
            let alone = vectors(&backend, json!({"input": text})).await;
            assert_eq!(&alone[0], vector, "{text}");
        }
        assert!(cosine(&all[0], &all[1]) > cosine(&all[0], &all[2]));

        // A model may do both.
        let whole = run(&backend, ask("Hello")).await.unwrap();
        assert!(!whole.text().is_empty());
        let again = vectors(&backend, json!({"input": texts[0]})).await;
        assert_eq!(again[0], all[0]);
    });
}

#[test]
fn forms_counts_and_dimensions_are_exact() {
    runtime().block_on(async {
        let pool = pool();
        let backend = backend(&pool);
        let model = LoadedModel::load(&model_path(), &options().load).unwrap();
        let text = "Vectors are lists of numbers.";
        let tokens = model.tokenize(text, true, false).unwrap();
        let (whole, count) = answer(&backend, json!({"input": text})).await.unwrap();
        assert_eq!(count, tokens.len() as u64);
        assert_eq!(
            (&whole["object"], &whole["model"]),
            (&json!("list"), &json!("small"))
        );
        let floats = vectors(&backend, json!({"input": text})).await.remove(0);

        let by_tokens = vectors(&backend, json!({"input": tokens})).await;
        assert_eq!(by_tokens[0], floats);
        let (_, both) = answer(&backend, json!({"input": [tokens, [tokens[0]]]}))
            .await
            .unwrap();
        assert_eq!(both, tokens.len() as u64 + 1);

        let (coded, _) = answer(
            &backend,
            json!({"input": text, "encoding_format": "base64"}),
        )
        .await
        .unwrap();
        let coded = coded["data"][0]["embedding"].as_str().unwrap();
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(coded)
            .unwrap();
        let decoded: Vec<f32> = bytes
            .chunks(4)
            .map(|four| f32::from_le_bytes(four.try_into().unwrap()))
            .collect();
        assert_eq!(decoded.len(), WIDTH);
        assert!(
            decoded
                .iter()
                .zip(&floats)
                .all(|(a, b)| (a - b).abs() < 1e-6)
        );

        let cut = vectors(&backend, json!({"input": text, "dimensions": 64}))
            .await
            .remove(0);
        let length = cosine(&floats[..64], &floats[..64]).sqrt();
        assert_eq!(cut.len(), 64);
        assert!(
            cut.iter()
                .zip(&floats)
                .all(|(cut, whole)| (cut - whole / length).abs() < 1e-4)
        );
        let same = vectors(&backend, json!({"input": text, "dimensions": WIDTH}))
            .await
            .remove(0);
        assert!(same.iter().zip(&floats).all(|(a, b)| (a - b).abs() < 1e-6));
    });
}

#[test]
fn texts_of_several_pieces_are_one_and_what_cannot_be_is_refused_at_its_place() {
    runtime().block_on(async {
        let pool = pool();
        let backend = backend(&pool);
        // Longer than what is computed at a time; its end counts as its beginning does.
        let long = "one two three four five ".repeat(60);
        let other = format!("{long} cats and dogs and horses and cows and sheep");
        let two = vectors(&backend, json!({"input": [long, other]})).await;
        assert_ne!(two[0], two[1]);
        assert!(cosine(&two[0], &two[1]) > 0.9);

        let too_long = "word ".repeat(3_000);
        for (body, kind, param) in [
            (
                json!({"input": ["a", too_long]}),
                ErrorKind::ContextLength,
                "input[1]",
            ),
            (
                json!({"input": too_long}),
                ErrorKind::ContextLength,
                "input",
            ),
            (
                json!({"input": [[1], [4_000_000]]}),
                ErrorKind::Invalid,
                "input[1]",
            ),
            (
                json!({"input": "a", "dimensions": WIDTH + 1}),
                ErrorKind::Invalid,
                "dimensions",
            ),
        ] {
            let error = answer(&backend, body).await.unwrap_err();
            assert_eq!(
                (error.kind(), error.param()),
                (kind, Some(param)),
                "{error}"
            );
        }

        // A caller that leaves takes nothing with it.
        let request = embeddings::parse_request(
            json!({"model": "small", "input": vec![long.as_str(); 200]})
                .to_string()
                .into(),
        )
        .unwrap();
        let mut stream = backend.generate(attempt(request));
        assert!(futures_util::poll!(stream.next()).is_pending());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        drop(stream);
        assert_eq!(vectors(&backend, json!({"input": "a"})).await.len(), 1);
    });
}

#[test]
fn a_model_makes_vectors_only_where_somebody_says_so() {
    let pool = pool();
    let chat = common::backend(&pool);
    let both = backend(&pool);
    let supports = |backend: &Arc<dyn Backend>| {
        backend.supports("small", Dialect::Embeddings, Demand::Embeddings)
    };
    assert_eq!(
        (supports(&chat), supports(&both)),
        (Support::No, Support::Yes)
    );
    assert!(!LoadedModel::is_for_embeddings(&model_path()));
    assert!(!LoadedModel::is_for_embeddings(std::path::Path::new(
        "/nowhere.gguf"
    )));
    assert_eq!(pool.status().len(), 1, "one model, however many uses");
}
