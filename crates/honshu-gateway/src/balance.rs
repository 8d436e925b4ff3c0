//! Which deployment of a model is tried first: smooth weighted round-robin among the healthy ones, then the
//! others in the order of the configuration, then the resting ones.
//!
//! Health is what the last attempts showed. A deployment that failed several times in a row rests; when the rest
//! is over, one request probes it. Resting deployments are still tried when nothing else is left: a wrong guess
//! about health must never refuse a request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use honshu_domain::{Deployment, Model};
use tokio::time::Instant;

use crate::limits::Limits;

/// What an attempt showed about its deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It served.
    Good,
    /// It failed by its own fault.
    Bad,
    /// It asked not to be called for this long.
    Rest(Duration),
}

#[derive(Debug)]
struct Slot {
    backend: String,
    upstream: Arc<str>,
    /// The running count of smooth weighted round-robin.
    current: i64,
    failures: u32,
    rest_until: Option<Instant>,
}

impl Slot {
    fn is(&self, deployment: &Deployment) -> bool {
        *self.upstream == *deployment.upstream && self.backend == deployment.backend.name()
    }

    fn rests(&self, now: Instant) -> bool {
        self.rest_until.is_some_and(|until| now < until)
    }
}

/// The state of all deployments that were used so far; bounded by the configuration.
#[derive(Debug)]
pub(crate) struct Balancer {
    models: Mutex<HashMap<Arc<str>, Vec<Slot>>>,
    rest_after_failures: u32,
    rest_first: Duration,
    rest_max: Duration,
}

impl Balancer {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            models: Mutex::default(),
            rest_after_failures: limits.rest_after_failures.max(1),
            rest_first: limits.rest_first,
            rest_max: limits.rest_max,
        }
    }

    /// Orders `eligible` (places in `model.deployments`) for one request.
    pub(crate) fn order(&self, model: &Model, mut eligible: Vec<usize>) -> Vec<usize> {
        if eligible.len() < 2 {
            return eligible;
        }
        let now = Instant::now();
        let mut models = self.lock();
        let slots = slots_of(&mut models, model);
        let place: Vec<usize> = model
            .deployments
            .iter()
            .map(|deployment| slot_of(slots, deployment))
            .collect();

        let chosen = choose(slots, model, &eligible, &place, now);
        // Stable sort: within a class the order of the configuration stays.
        eligible.sort_by_key(|index| {
            let slot = &slots[place[*index]];
            let class = if Some(*index) == chosen {
                0
            } else if slot.rests(now) {
                3
            } else if model.deployments[*index].weight == 0 {
                2
            } else {
                1
            };
            (class, if class == 3 { slot.rest_until } else { None })
        });
        if let Some(first) = eligible.first() {
            let slot = &mut slots[place[*first]];
            if slot.failures >= self.rest_after_failures {
                // This request is the probe: the others go on resting until it reports.
                slot.rest_until = Some(now + self.rest_first);
            }
        }
        eligible
    }

    /// Learns from an attempt.
    pub(crate) fn note(&self, model: &Model, deployment: &Deployment, verdict: Verdict) {
        if model.deployments.len() < 2 {
            return;
        }
        let now = Instant::now();
        let mut models = self.lock();
        let slots = slots_of(&mut models, model);
        let index = slot_of(slots, deployment);
        let slot = &mut slots[index];
        match verdict {
            Verdict::Good => {
                slot.failures = 0;
                slot.rest_until = None;
            }
            Verdict::Bad => {
                slot.failures = slot.failures.saturating_add(1);
                if let Some(excess) = slot.failures.checked_sub(self.rest_after_failures) {
                    let rest = self
                        .rest_first
                        .saturating_mul(1 << excess.min(16))
                        .min(self.rest_max);
                    slot.rest_until = Some(now + rest);
                }
            }
            Verdict::Rest(duration) => {
                slot.rest_until = Some(now + duration.min(self.rest_max));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Vec<Slot>>> {
        // The state is a guess about health: after a panic elsewhere it is still a usable guess.
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn slots_of<'a>(models: &'a mut HashMap<Arc<str>, Vec<Slot>>, model: &Model) -> &'a mut Vec<Slot> {
    if !models.contains_key(&model.id) {
        models.insert(Arc::clone(&model.id), Vec::new());
    }
    let slots = models.entry(Arc::clone(&model.id)).or_default();
    // Two regions may serve one id from different lists; more than that is what reloads left behind.
    if slots.len() > 8 + 4 * model.deployments.len() {
        slots.retain(|slot| {
            model
                .deployments
                .iter()
                .any(|deployment| slot.is(deployment))
        });
    }
    slots
}

fn slot_of(slots: &mut Vec<Slot>, deployment: &Deployment) -> usize {
    if let Some(index) = slots.iter().position(|slot| slot.is(deployment)) {
        return index;
    }
    slots.push(Slot {
        backend: deployment.backend.name().to_owned(),
        upstream: Arc::clone(&deployment.upstream),
        current: 0,
        failures: 0,
        rest_until: None,
    });
    slots.len() - 1
}

/// Smooth weighted round-robin: each gains its weight, the richest is chosen and pays the sum.
fn choose(
    slots: &mut [Slot],
    model: &Model,
    eligible: &[usize],
    place: &[usize],
    now: Instant,
) -> Option<usize> {
    let mut total = 0;
    let mut best: Option<usize> = None;
    for index in eligible {
        let weight = i64::from(model.deployments[*index].weight);
        let slot = &mut slots[place[*index]];
        if weight == 0 || slot.rests(now) {
            continue;
        }
        total += weight;
        slot.current += weight;
        if best.is_none_or(|best| slots[place[*index]].current > slots[place[best]].current) {
            best = Some(*index);
        }
    }
    if let Some(best) = best {
        slots[place[best]].current -= total;
    }
    best
}
