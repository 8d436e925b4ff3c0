//! How many prompt tokens a step may compute while somebody decodes: as many as keep the gap between tokens near its
//! target. Two running means are enough, because the cost of a prompt token changes slowly as a prompt grows.

use std::time::Duration;

/// Steers the prompt tokens of a step.
pub(crate) struct Budget {
    target_ms: f64,
    most: u32,
    /// Smaller chunks cost as much as this one, so it is taken as long as it takes no more than twice the target.
    least: u32,
    /// Mean duration of a step that only decodes.
    decode_ms: f64,
    /// Mean cost of a prompt token.
    prompt_ms: Option<f64>,
}

impl Budget {
    /// `least` keeps long prompts going when even a small chunk misses the target.
    pub(crate) fn new(target: Duration, least: u32, most: u32) -> Self {
        Self {
            target_ms: target.as_secs_f64() * 1e3,
            most,
            least: least.min(most),
            decode_ms: 0.0,
            prompt_ms: None,
        }
    }

    /// Prompt tokens of the next step.
    pub(crate) fn tokens(&self, somebody_decodes: bool) -> u32 {
        if !somebody_decodes {
            return self.most;
        }
        // The first chunk is small, because nothing is known yet.
        let Some(cost) = self.prompt_ms else {
            return self.least.max(64).min(self.most);
        };
        let tokens = (self.target_ms - self.decode_ms) / cost.max(1e-6);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to small numbers first"
        )]
        let tokens = tokens.clamp(0.0, 1e6) as u32;
        let least = if self.decode_ms + cost * f64::from(self.least) > self.target_ms * 2.0 {
            self.least.min(super::CHUNK_MIN)
        } else {
            self.least
        };
        tokens.clamp(least, self.most)
    }

    /// Takes note of a step.
    pub(crate) fn learn(&mut self, took: Duration, prompt_tokens: u32, decoded: u32) {
        let ms = took.as_secs_f64() * 1e3;
        if prompt_tokens == 0 {
            if decoded > 0 {
                self.decode_ms += (ms - self.decode_ms) * 0.2;
            }
        } else if prompt_tokens >= 8 {
            let decode = if decoded > 0 { self.decode_ms } else { 0.0 };
            let cost = (ms - decode).max(ms * 0.1) / f64::from(prompt_tokens);
            self.prompt_ms = Some(match self.prompt_ms {
                None => cost,
                // A machine that became slower must be believed at once, one that became faster may wait.
                Some(mean) if cost > mean => mean + (cost - mean) * 0.7,
                Some(mean) => mean + (cost - mean) * 0.2,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(budget: &mut Budget, ms_per_token: f64, decode_ms: f64) -> f64 {
        let tokens = budget.tokens(true);
        let ms = decode_ms + ms_per_token * f64::from(tokens);
        budget.learn(Duration::from_secs_f64(ms / 1e3), tokens, 4);
        ms
    }

    #[test]
    fn steps_settle_at_the_target_and_follow_the_machine() {
        let mut budget = Budget::new(Duration::from_millis(250), 16, 512);
        budget.learn(Duration::from_millis(20), 0, 4);
        let mut last = 0.0;
        for cost in [1.0, 4.0, 0.8] {
            for _ in 0..30 {
                last = step(&mut budget, cost, 20.0);
            }
            assert!(
                (200.0..=300.0).contains(&last),
                "{last} ms at {cost} ms a token"
            );
        }
    }

    #[test]
    fn a_chunk_of_the_least_size_may_take_twice_the_target_and_no_more() {
        for (cost, expected) in [(3.0, 75), (7.0, 64), (8.0, 28), (40.0, 16)] {
            let mut budget = Budget::new(Duration::from_millis(250), 64, 512);
            for _ in 0..60 {
                budget.learn(Duration::from_millis(20), 0, 4);
                step(&mut budget, cost, 20.0);
            }
            assert!(
                budget.tokens(true).abs_diff(expected) <= 2,
                "{} tokens at {cost} ms a token",
                budget.tokens(true)
            );
        }
    }

    #[test]
    fn nobody_decoding_means_whole_batches_and_a_slow_machine_still_moves() {
        let mut budget = Budget::new(Duration::from_millis(250), 16, 512);
        assert_eq!(budget.tokens(false), 512);
        for _ in 0..20 {
            step(&mut budget, 100.0, 20.0);
        }
        assert_eq!(budget.tokens(true), 16);
    }
}
