//! Admission: a bound on how many runs are alive, in all and for one principal. The permit is held by the run
//! and given back on drop, so that no path can leak it. Must never wait: a full server says so at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use honshu_domain::{Error, ErrorKind, Ocid, Origin, Retry};

use crate::limits::Limits;

#[derive(Debug)]
pub(crate) struct Admissions {
    live: Mutex<Live>,
    runs_max: u32,
    runs_per_principal_max: u32,
    retry_after: Duration,
}

#[derive(Debug, Default)]
struct Live {
    runs: u32,
    /// Only principals with live runs are in here, so it is bounded by `runs_max`.
    by_principal: HashMap<Ocid, u32>,
}

/// A place for one run. Dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Admission {
    admissions: Arc<Admissions>,
    principal: Ocid,
}

impl Admissions {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            live: Mutex::default(),
            runs_max: limits.runs_max,
            runs_per_principal_max: limits.runs_per_principal_max,
            retry_after: limits.admission_retry_after,
        }
    }

    /// Takes a place for `principal`, or says when to come again.
    pub(crate) fn admit(self: &Arc<Self>, principal: &Ocid) -> Result<Admission, Error> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.runs >= self.runs_max {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the server is running as many requests as it can; try again later",
            )
            .with_retry(Retry::After(self.retry_after)));
        }
        if let Some(own) = live.by_principal.get_mut(principal) {
            if *own >= self.runs_per_principal_max {
                return Err(Error::new(
                    ErrorKind::RateLimited,
                    format!(
                        "{own} requests of this caller are already running, which is the most at one time; try again when some have ended"
                    ),
                )
                .with_origin(Origin::Client)
                .with_retry(Retry::After(self.retry_after)));
            }
            *own += 1;
        } else if self.runs_per_principal_max == 0 {
            return Err(
                Error::new(ErrorKind::RateLimited, "this caller may not run requests")
                    .with_retry(Retry::After(self.retry_after)),
            );
        } else {
            live.by_principal.insert(principal.clone(), 1);
        }
        live.runs += 1;
        drop(live);
        Ok(Admission {
            admissions: Arc::clone(self),
            principal: principal.clone(),
        })
    }

    /// How many places are taken.
    pub(crate) fn live(&self) -> u32 {
        self.live
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .runs
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut live = self
            .admissions
            .live
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        live.runs = live.runs.saturating_sub(1);
        if let Some(own) = live.by_principal.get_mut(&self.principal) {
            *own -= 1;
            if *own == 0 {
                live.by_principal.remove(&self.principal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(name: &str) -> Ocid {
        Ocid::parse(&format!("ocid1.generativeaiapikey.oc1.local-1.{name}")).unwrap()
    }

    #[test]
    fn places_are_bounded_in_all_and_for_each_principal_and_come_back_on_drop() {
        let admissions = Arc::new(Admissions::new(&Limits {
            runs_max: 3,
            runs_per_principal_max: 2,
            ..Limits::default()
        }));
        let (a, b) = (principal("a"), principal("b"));
        let first = admissions.admit(&a).unwrap();
        let _second = admissions.admit(&a).unwrap();
        let refused = admissions.admit(&a).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::RateLimited);
        assert_eq!(refused.retry(), Retry::After(Duration::from_secs(1)));
        let _third = admissions.admit(&b).unwrap();
        assert_eq!(
            admissions.admit(&b).unwrap_err().kind(),
            ErrorKind::Unavailable
        );
        assert_eq!(admissions.live(), 3);
        drop(first);
        assert_eq!(admissions.live(), 2);
        admissions.admit(&a).unwrap();
        assert_eq!(admissions.live.lock().unwrap().by_principal.len(), 2);
    }
}
