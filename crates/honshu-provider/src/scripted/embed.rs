//! Vectors of the scripted model: each word has a direction of its own, and a text is the sum of its words.

use std::sync::Arc;

use honshu_domain::{Attempt, Dialect, Error, Finish, FinishReason, NativeFrame, RunEvent, Usage};
use honshu_wire::embeddings::{self, Entry};

/// Numbers of a vector unless the request says otherwise.
const DIMENSIONS: u32 = 64;

/// The events of an answer to an embedding request.
pub(super) fn answer(attempt: &Attempt) -> Vec<Result<RunEvent, Error>> {
    let asked = match embeddings::read(&attempt.request.raw) {
        Ok(asked) => asked,
        Err(error) => return vec![Err(error)],
    };
    let dimensions = asked.dimensions.unwrap_or(DIMENSIONS);
    let mut input_tokens = 0;
    let vectors: Vec<Vec<f32>> = asked
        .entries
        .iter()
        .map(|entry| {
            let words: Vec<String> = match entry {
                Entry::Text(text) => text.split_whitespace().map(str::to_lowercase).collect(),
                Entry::Tokens(ids) => ids.iter().map(u32::to_string).collect(),
            };
            input_tokens += words.len() as u64;
            vector(&words, dimensions)
        })
        .collect();
    let usage = Usage {
        input_tokens,
        ..Usage::default()
    };
    let json = embeddings::list(&attempt.served_model, &vectors, asked.base64, &usage);
    vec![
        Ok(RunEvent::Started {
            upstream_request_id: None,
            input_tokens: Some(input_tokens),
        }),
        Ok(RunEvent::Native(NativeFrame {
            dialect: Dialect::Embeddings,
            json,
            event: None,
            whole: true,
        })),
        Ok(RunEvent::Finished(Finish {
            reason: FinishReason::Stop,
            usage: Some(usage),
            stop_text: None::<Arc<str>>,
        })),
    ]
}

fn vector(words: &[String], dimensions: u32) -> Vec<f32> {
    let mut sum: Vec<f32> = (0..dimensions)
        .map(|place| words.iter().map(|word| direction(word, place)).sum())
        .collect();
    let length = sum.iter().map(|n| n * n).sum::<f32>().sqrt();
    if length > 0.0 {
        sum.iter_mut().for_each(|n| *n /= length);
    }
    sum
}

/// A number from −1 to 1 that depends on the word and the place only.
fn direction(word: &str, place: u32) -> f32 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ u64::from(place).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for byte in word.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    // Sixteen bits are exact in single precision.
    let bits = u16::try_from(hash >> 48).unwrap_or_default();
    f32::from(bits) / 32_767.5 - 1.0
}
