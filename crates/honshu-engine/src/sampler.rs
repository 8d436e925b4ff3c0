//! Draws a token from a row of logits.
//!
//! The engine's thread runs this for every sequence in every step, so it never sorts a whole vocabulary: the default
//! request (temperature 1, nothing cut off) takes two linear passes, and the cut ones sort only the likely head.

use std::collections::HashMap;

use crate::job::{LOGPROBS_MAX, Sampling, Token, TokenMask};

/// A small generator with 64 bits of state (SplitMix64); good enough to draw tokens, not for secrets.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in 0 (included) to 1 (excluded).
    fn unit(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit exactly")]
        let mantissa = (self.next() >> 11) as f64;
        mantissa / (1_u64 << 53) as f64
    }
}

/// Buffers that all sequences of an engine use in turn.
#[derive(Default)]
pub(crate) struct Scratch {
    raw: Vec<f32>,
    sums: Vec<f64>,
    head: Vec<(f32, Token)>,
}

/// Log-probabilities of a step under the model's own distribution.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Logprobs {
    pub chosen: f32,
    pub top: Vec<(Token, f32)>,
}

/// The sampling state of one sequence.
pub(crate) struct Sampler {
    sampling: Sampling,
    random: Random,
    /// Occurrences in the answer.
    answer: HashMap<Token, u32>,
    /// Tokens of the prompt that the repetition penalty looks at; empty if it is off.
    prompt: Vec<Token>,
}

impl Sampler {
    pub(crate) fn new(sampling: Sampling, prompt: &[Token], seed: u64) -> Self {
        let mut seen = Vec::new();
        if sampling.repetition_penalty != 1.0 {
            seen.extend_from_slice(prompt);
            seen.sort_unstable();
            seen.dedup();
        }
        Self {
            random: Random::new(seed),
            answer: HashMap::new(),
            prompt: seen,
            sampling,
        }
    }

    /// Takes note of a token of the answer.
    pub(crate) fn accept(&mut self, token: Token) {
        *self.answer.entry(token).or_insert(0) += 1;
    }

    /// Draws a token; `None` if the mask allows none. Changes the logits.
    pub(crate) fn sample(
        &mut self,
        logits: &mut [f32],
        mask: Option<&TokenMask>,
        logprobs: Option<u8>,
        scratch: &mut Scratch,
    ) -> Option<(Token, Option<Logprobs>)> {
        if logprobs.is_some() {
            scratch.raw.clear();
            scratch.raw.extend_from_slice(logits);
        }
        self.adjust(logits);
        if let Some(mask) = mask {
            for (word, logits) in mask.words().iter().zip(logits.chunks_mut(32)) {
                if *word != u32::MAX {
                    for (bit, logit) in logits.iter_mut().enumerate() {
                        if word >> bit & 1 == 0 {
                            *logit = f32::NEG_INFINITY;
                        }
                    }
                }
            }
        }
        let (best, best_logit) = argmax(logits)?;
        let token = if self.sampling.temperature == 0.0 {
            best
        } else {
            self.draw(logits, best_logit, scratch).unwrap_or(best)
        };
        let logprobs = logprobs.map(|n| report(&scratch.raw, token, n, &mut scratch.head));
        Some((token, logprobs))
    }

    fn adjust(&self, logits: &mut [f32]) {
        let s = &self.sampling;
        let mut at = |token: Token, change: &dyn Fn(f32) -> f32| {
            if let Some(logit) = usize::try_from(token).ok().and_then(|t| logits.get_mut(t)) {
                *logit = change(*logit);
            }
        };
        for (token, bias) in &s.logit_bias {
            at(*token, &|l| l + bias);
        }
        if s.repetition_penalty != 1.0 {
            let penalty = s.repetition_penalty;
            let answer = self
                .answer
                .keys()
                .filter(|t| self.prompt.binary_search(t).is_err());
            for token in self.prompt.iter().chain(answer) {
                at(*token, &|l| if l > 0.0 { l / penalty } else { l * penalty });
            }
        }
        if s.frequency_penalty != 0.0 || s.presence_penalty != 0.0 {
            for (token, count) in &self.answer {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "answers are far below 2^24 tokens"
                )]
                let count = *count as f32;
                at(*token, &|l| {
                    l - s.frequency_penalty * count - s.presence_penalty
                });
            }
        }
    }

    fn draw(&mut self, logits: &[f32], best: f32, scratch: &mut Scratch) -> Option<Token> {
        let inverse = 1.0 / self.sampling.temperature;
        let s = &self.sampling;
        if s.top_k == 0 && s.top_p >= 1.0 && s.min_p <= 0.0 {
            return self.draw_all(logits, best, inverse, scratch);
        }
        cut(logits, best, inverse, s, scratch);
        let head = &scratch.head;
        let total: f64 = head.iter().map(|(w, _)| f64::from(*w)).sum();
        let mut left = self.random.unit() * total;
        for (weight, token) in head {
            left -= f64::from(*weight);
            if left < 0.0 {
                return Some(*token);
            }
        }
        head.last().map(|(_, token)| *token)
    }

    /// From the whole distribution: sums of blocks, then one block again.
    fn draw_all(
        &mut self,
        logits: &[f32],
        best: f32,
        inverse: f32,
        scratch: &mut Scratch,
    ) -> Option<Token> {
        const BLOCK: usize = 512;
        let sums = &mut scratch.sums;
        sums.clear();
        sums.extend(
            logits
                .chunks(BLOCK)
                .map(|block| f64::from(sum_weights(block, best, inverse))),
        );
        let total: f64 = sums.iter().sum();
        let mut left = self.random.unit() * total;
        let mut chosen = 0;
        for (index, sum) in sums.iter().enumerate() {
            if *sum > 0.0 {
                chosen = index;
                if left < *sum {
                    break;
                }
                left -= sum;
            }
        }
        let start = chosen * BLOCK;
        let mut last = None;
        for (offset, logit) in logits.get(start..)?.iter().take(BLOCK).enumerate() {
            let weight = weight((logit - best) * inverse);
            if weight > 0.0 {
                last = Token::try_from(start + offset).ok();
                left -= f64::from(weight);
                if left < 0.0 {
                    break;
                }
            }
        }
        last
    }
}

/// Leaves in `scratch.head` the weights and tokens that `top_k`, `top_p` and `min_p` let through, likeliest first.
fn cut(logits: &[f32], best: f32, inverse: f32, s: &Sampling, scratch: &mut Scratch) {
    let head = &mut scratch.head;
    let k = if s.top_k == 0 {
        usize::MAX
    } else {
        s.top_k as usize
    };
    // What the head must hold: k tokens, or the mass of the nucleus (which is a share of the k tokens if k is given).
    let mass = if k == usize::MAX && s.top_p < 1.0 {
        let total: f64 = logits
            .chunks(512)
            .map(|b| f64::from(sum_weights(b, best, inverse)))
            .sum();
        Some(total * f64::from(s.top_p))
    } else {
        None
    };
    let min_weight = s.min_p;
    let mut depth = 4.0_f32;
    loop {
        head.clear();
        let floor = best - depth / inverse;
        let everything = depth > 100.0;
        for (token, logit) in (0..).zip(logits) {
            if *logit >= floor || (everything && *logit > f32::NEG_INFINITY) {
                head.push((*logit, token));
            }
        }
        let held = || {
            head.iter()
                .map(|(l, _)| f64::from(weight((l - best) * inverse)))
                .sum::<f64>()
        };
        let enough = if k != usize::MAX {
            head.len() >= k
        } else if let Some(mass) = mass {
            held() >= mass
        } else {
            min_weight > 0.0 && weight(-depth) < min_weight
        };
        // Below the floor of `min_p` nothing can be let through.
        if enough
            || everything
            || (min_weight > 0.0 && k == usize::MAX && weight(-depth) < min_weight)
        {
            break;
        }
        depth *= 2.0;
    }
    let order = |a: &(f32, Token), b: &(f32, Token)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    if head.len() > k {
        head.select_nth_unstable_by(k - 1, order);
        head.truncate(k);
    }
    head.sort_unstable_by(order);
    for (logit, _) in head.iter_mut() {
        *logit = weight((*logit - best) * inverse);
    }
    if s.top_p < 1.0 {
        let limit = mass.unwrap_or_else(|| {
            head.iter().map(|(w, _)| f64::from(*w)).sum::<f64>() * f64::from(s.top_p)
        });
        let mut sum = 0.0;
        let keep = head.iter().position(|(w, _)| {
            sum += f64::from(*w);
            sum >= limit
        });
        head.truncate(keep.map_or(head.len(), |i| i + 1).max(1));
    }
    if min_weight > 0.0 {
        head.retain(|(w, _)| *w >= min_weight);
    }
}

/// The likeliest token, the first of equals; `None` if all are impossible.
fn argmax(logits: &[f32]) -> Option<(Token, f32)> {
    // A maximum over lanes and then a search is twice as fast as carrying the index along.
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = logits.as_chunks::<16>();
    for chunk in chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane = if *logit > *lane { *logit } else { *lane };
        }
    }
    let best = lanes
        .iter()
        .chain(rest)
        .copied()
        .fold(f32::NEG_INFINITY, f32::max);
    if best == f32::NEG_INFINITY {
        return None;
    }
    let index = logits.iter().position(|l| *l == best)?;
    Some((Token::try_from(index).ok()?, best))
}

fn sum_weights(logits: &[f32], best: f32, inverse: f32) -> f32 {
    let mut lanes = [0.0_f32; 16];
    let (chunks, rest) = logits.as_chunks::<16>();
    for chunk in chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane += weight((logit - best) * inverse);
        }
    }
    lanes.iter().sum::<f32>()
        + rest
            .iter()
            .map(|l| weight((l - best) * inverse))
            .sum::<f32>()
}

/// e^x for x <= 0 with a relative error below 3e-6, without branches so that loops over it become wide instructions.
#[inline(always)]
fn weight(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x > -87.0 { x } else { -87.0 };
    let t = clamped * std::f32::consts::LOG2_E;
    let shifted = t + ROUND;
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    let f = t - (shifted - ROUND);
    let p = 1.0
        + f * (std::f32::consts::LN_2
            + f * (0.240_226_5 + f * (0.055_504_11 + f * (0.009_618_13 + f * 0.001_333_356))));
    let scale = f32::from_bits(n.wrapping_add(127) << 23);
    if x > -87.0 { p * scale } else { 0.0 }
}

fn report(raw: &[f32], token: Token, n: u8, head: &mut Vec<(f32, Token)>) -> Logprobs {
    let best = raw.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = raw
        .chunks(512)
        .map(|b| f64::from(sum_weights(b, best, 1.0)))
        .sum();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a logarithm of at most the vocabulary"
    )]
    let log_total = best + total.ln() as f32;
    let n = usize::from(n.min(LOGPROBS_MAX)).min(raw.len());
    head.clear();
    if n > 0 {
        let order = |a: &(f32, Token), b: &(f32, Token)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        head.extend(raw.iter().copied().zip(0..));
        head.select_nth_unstable_by(n - 1, order);
        head.truncate(n);
        head.sort_unstable_by(order);
    }
    let chosen = usize::try_from(token)
        .ok()
        .and_then(|t| raw.get(t))
        .copied()
        .unwrap_or(f32::NEG_INFINITY);
    Logprobs {
        chosen: chosen - log_total,
        top: head.iter().map(|(l, t)| (*t, l - log_total)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the documentation of [`Sampling`] says, written without a thought of speed: tokens that may come.
    fn reference(logits: &[f32], s: &Sampling) -> Vec<(usize, f64)> {
        let mut all: Vec<(usize, f64)> = logits
            .iter()
            .map(|l| f64::from(*l) / f64::from(s.temperature))
            .enumerate()
            .collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if s.top_k > 0 {
            all.truncate(s.top_k as usize);
        }
        let best = all[0].1;
        for (_, l) in &mut all {
            *l = (*l - best).exp();
        }
        let total: f64 = all.iter().map(|(_, w)| w).sum();
        let mut kept = Vec::new();
        let mut sum = 0.0;
        for (token, w) in all {
            if !kept.is_empty() && s.top_p < 1.0 && sum >= total * f64::from(s.top_p) {
                break;
            }
            sum += w;
            if w >= f64::from(s.min_p) {
                kept.push((token, w));
            }
        }
        kept
    }

    proptest! {
        #[test]
        fn cuts_keep_the_same_tokens_as_a_plain_reference(
            logits in proptest::collection::vec(-12.0_f32..12.0, 1..700),
            temperature in 0.2_f32..2.0, top_k in 0_u32..60, top_p in 0.05_f32..1.0, min_p in 0.0_f32..0.3,
        ) {
            let s = Sampling { temperature, top_k, top_p, min_p, ..Sampling::default() };
            let expected = reference(&logits, &s);
            let mut scratch = Scratch::default();
            let best = argmax(&logits).unwrap().1;
            cut(&logits, best, 1.0 / temperature, &s, &mut scratch);
            let got: Vec<usize> = scratch.head.iter().map(|(_, t)| usize::try_from(*t).unwrap()).collect();
            let expected: Vec<usize> = expected.iter().map(|(t, _)| *t).collect();
            // At the very edge of a cut rounding may decide differently about one token.
            let shorter = got.len().min(expected.len());
            prop_assert!(got.len().abs_diff(expected.len()) <= 1, "{got:?} {expected:?}");
            let same = got.iter().zip(&expected).take(shorter).filter(|(a, b)| a == b).count();
            prop_assert!(same + 2 >= shorter);
        }

        #[test]
        fn the_fast_exponential_is_close(x in -87.0_f32..0.0) {
            let exact = f64::from(x).exp();
            prop_assert!((f64::from(weight(x)) - exact).abs() <= exact * 1e-5);
        }

        #[test]
        fn greedy_is_the_first_best(logits in proptest::collection::vec(-5_i8..5, 1..300)) {
            let mut logits: Vec<f32> = logits.iter().map(|l| f32::from(*l)).collect();
            let expected = (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
            let mut sampler = Sampler::new(Sampling::greedy(), &[], 1);
            let (token, _) = sampler.sample(&mut logits, None, None, &mut Scratch::default()).unwrap();
            prop_assert_eq!(usize::try_from(token).unwrap(), expected);
        }
    }

    #[test]
    fn draws_follow_the_distribution() {
        // Two blocks, so that both the choice of the block and the choice inside it matter.
        let mut logits = vec![f32::NEG_INFINITY; 1000];
        for (token, p) in [(3, 0.5_f32), (511, 0.2), (512, 0.2), (999, 0.1)] {
            logits[token] = p.ln();
        }
        for s in [
            Sampling::default(),
            Sampling {
                top_k: 500,
                ..Sampling::default()
            },
        ] {
            let mut sampler = Sampler::new(s, &[], 7);
            let mut counts = HashMap::new();
            for _ in 0..20_000 {
                let (token, _) = sampler
                    .sample(&mut logits.clone(), None, None, &mut Scratch::default())
                    .unwrap();
                *counts.entry(token).or_insert(0) += 1;
            }
            for (token, expected) in [(3, 10_000), (511, 4_000), (512, 4_000), (999, 2_000)] {
                let got: i32 = counts[&token];
                assert!(
                    (got - expected).abs() < 300,
                    "{token}: {got} instead of {expected}"
                );
            }
        }
    }

    #[test]
    fn equal_seeds_draw_equally() {
        let draw = |seed| {
            let mut sampler = Sampler::new(Sampling::default(), &[], seed);
            let mut scratch = Scratch::default();
            (0..50)
                .map(|_| {
                    sampler
                        .sample(&mut [0.0; 100], None, None, &mut scratch)
                        .unwrap()
                        .0
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
    }

    #[test]
    fn penalties_and_bias_change_the_logits_as_documented() {
        let s = Sampling {
            repetition_penalty: 2.0,
            frequency_penalty: 0.5,
            presence_penalty: 0.25,
            logit_bias: vec![(3, -100.0)],
            ..Sampling::greedy()
        };
        let mut sampler = Sampler::new(s, &[0, 1], 1);
        sampler.accept(1);
        sampler.accept(2);
        sampler.accept(2);
        let mut logits = [4.0, 4.0, -1.0, 9.0, 1.0];
        sampler.adjust(&mut logits);
        assert_eq!(logits, [2.0, 2.0 - 0.75, -2.0 - 1.25, -91.0, 1.0]);
    }

    #[test]
    fn a_mask_excludes_and_an_empty_mask_is_told() {
        let mut sampler = Sampler::new(Sampling::greedy(), &[], 1);
        let mut mask = TokenMask::new(40);
        assert!(
            sampler
                .sample(&mut [1.0; 40], Some(&mask), None, &mut Scratch::default())
                .is_none()
        );
        mask.allow(39);
        let (token, _) = sampler
            .sample(&mut [1.0; 40], Some(&mask), None, &mut Scratch::default())
            .unwrap();
        assert_eq!(token, 39);
    }

    #[test]
    fn logprobs_are_of_the_raw_distribution() {
        let s = Sampling {
            logit_bias: vec![(0, -100.0)],
            ..Sampling::greedy()
        };
        let mut logits = [0.5_f32.ln(), 0.3_f32.ln(), 0.2_f32.ln()];
        let (token, logprobs) = Sampler::new(s, &[], 1)
            .sample(&mut logits, None, Some(2), &mut Scratch::default())
            .unwrap();
        let logprobs = logprobs.unwrap();
        assert_eq!(token, 1);
        assert!((logprobs.chosen.exp() - 0.3).abs() < 1e-4);
        assert_eq!(
            logprobs.top.iter().map(|(t, _)| *t).collect::<Vec<_>>(),
            [0, 1]
        );
        assert!((logprobs.top[0].1.exp() - 0.5).abs() < 1e-4);
    }
}
