//! The retry budget: retries are a fraction of the offered load, so that a failing upstream is not buried by
//! the attempts to save its requests. It must never stop a first attempt.

use std::sync::atomic::{AtomicI64, Ordering};

/// Counts in hundredths of a retry.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    saved: AtomicI64,
    deposit: i64,
    saved_max: i64,
}

const ONE_RETRY: i64 = 100;

impl RetryBudget {
    pub(crate) fn new(percent: u32, burst: u32) -> Self {
        let saved_max = i64::from(burst) * ONE_RETRY;
        Self {
            saved: AtomicI64::new(saved_max),
            deposit: i64::from(percent),
            saved_max,
        }
    }

    /// A run begins.
    pub(crate) fn deposit(&self) {
        // A lost race only loses a fraction of a retry.
        let saved = self.saved.load(Ordering::Relaxed);
        if saved < self.saved_max {
            self.saved.fetch_add(self.deposit, Ordering::Relaxed);
        }
    }

    /// Takes one retry, if there is one.
    pub(crate) fn withdraw(&self) -> bool {
        self.saved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| {
                (saved >= ONE_RETRY).then_some(saved - ONE_RETRY)
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_burst_and_then_a_fifth_of_the_runs() {
        let budget = RetryBudget::new(20, 10);
        let spent = |runs: u32| {
            (0..runs)
                .filter(|_| {
                    budget.deposit();
                    budget.withdraw()
                })
                .count()
        };
        let first = spent(10);
        assert_eq!(first, 10, "the burst");
        let later = spent(1_000);
        assert!((195..=205).contains(&later), "{later} of 1000");
    }
}
