//! A breaker for each endpoint: what fails again and again is left alone for a while, and refused at once meanwhile.
//!
//! It opens after a number of failures in a row: submits that fal does not take, or runs that fal cannot serve. While it
//! is open nothing is sent, so that a fallback is tried at once. Then one request goes through; how that one fares decides.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::providers::BreakerHealth;

/// So many failures in a row open it.
const OPENS_AFTER: u32 = 5;
/// First and longest time that it stays open.
const OPEN_FOR: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(1));

/// The breakers of all endpoints.
#[derive(Default)]
pub(super) struct Breakers(Mutex<HashMap<String, Breaker>>);

#[derive(Default)]
struct Breaker {
    /// Submits in a row that fal did not take.
    submits: u32,
    /// Runs in a row that fal could not serve.
    runs: u32,
    open_until: Option<Instant>,
    /// How often in a row it was opened.
    opened: u32,
}

impl Breakers {
    /// Whether a request may be sent; else how long it stays open.
    pub fn admit(&self, endpoint: &str, now: Instant) -> Result<(), Duration> {
        let mut breakers = self.breakers();
        let Some(breaker) = breakers.get_mut(endpoint) else { return Ok(()) };
        match breaker.open_until {
            Some(until) if until > now => Err(until - now),
            // This one tries; the others wait for what becomes of it.
            Some(_) => {
                breaker.opened += 1;
                breaker.open_until = Some(now + breaker.time());
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// fal took a submit.
    pub fn submit_taken(&self, endpoint: &str) {
        if let Some(breaker) = self.breakers().get_mut(endpoint) {
            breaker.submits = 0;
            breaker.close_if_well();
        }
    }

    /// fal did not take a submit, or did not say.
    pub fn submit_failed(&self, endpoint: &str, now: Instant) {
        let mut breakers = self.breakers();
        let breaker = breakers.entry(endpoint.to_owned()).or_default();
        breaker.submits += 1;
        breaker.open_if_ill(now);
    }

    /// A run came to an end that says nothing against the endpoint.
    pub fn run_ended(&self, endpoint: &str) {
        if let Some(breaker) = self.breakers().get_mut(endpoint) {
            breaker.runs = 0;
            breaker.close_if_well();
        }
    }

    /// fal could not serve a run.
    pub fn run_failed(&self, endpoint: &str, now: Instant) {
        let mut breakers = self.breakers();
        let breaker = breakers.entry(endpoint.to_owned()).or_default();
        breaker.runs += 1;
        breaker.open_if_ill(now);
    }

    /// The endpoints that are left alone now.
    pub fn health(&self, now: Instant) -> Vec<BreakerHealth> {
        let breakers = self.breakers();
        let open = breakers.iter().filter_map(|(endpoint, breaker)| {
            let until = breaker.open_until.filter(|until| *until > now)?;
            Some(BreakerHealth { endpoint: endpoint.clone(), closes_in: until - now })
        });
        let mut open: Vec<BreakerHealth> = open.collect();
        open.sort_by(|one, another| one.endpoint.cmp(&another.endpoint));
        open
    }

    fn breakers(&self) -> MutexGuard<'_, HashMap<String, Breaker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Breaker {
    fn time(&self) -> Duration {
        OPEN_FOR.0.saturating_mul(1 << self.opened.saturating_sub(1).min(10)).min(OPEN_FOR.1)
    }

    fn open_if_ill(&mut self, now: Instant) {
        let ill = self.submits >= OPENS_AFTER || self.runs >= OPENS_AFTER;
        // Requests that were under way when it opened do not open it further.
        if ill && self.open_until.is_none_or(|until| until <= now) {
            self.opened += 1;
            self.open_until = Some(now + self.time());
        }
    }

    fn close_if_well(&mut self) {
        if self.submits < OPENS_AFTER && self.runs < OPENS_AFTER {
            self.open_until = None;
            self.opened = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_through_later() {
        let (breakers, now) = (Breakers::default(), Instant::now());
        for _ in 1..OPENS_AFTER {
            breakers.submit_failed("e", now);
        }
        breakers.submit_taken("e");
        breakers.submit_failed("e", now);
        assert!(breakers.admit("e", now).is_ok() && breakers.health(now).is_empty());
        for _ in 1..OPENS_AFTER {
            breakers.submit_failed("e", now);
        }
        assert!(breakers.admit("e", now).is_err() && breakers.admit("other", now).is_ok());
        assert_eq!(breakers.health(now)[0].endpoint, "e");
        let later = now + OPEN_FOR.0;
        assert!(breakers.admit("e", later).is_ok());
        assert_eq!(breakers.admit("e", later), Err(OPEN_FOR.0 * 2), "a second one must wait, longer than before");
        breakers.submit_taken("e");
        assert!(breakers.admit("e", later).is_ok() && breakers.admit("e", later).is_ok());
    }

    #[test]
    fn a_submit_that_is_taken_does_not_close_what_failing_runs_have_opened() {
        let (breakers, now) = (Breakers::default(), Instant::now());
        for _ in 0..OPENS_AFTER {
            breakers.run_failed("e", now);
        }
        breakers.submit_taken("e");
        assert!(breakers.admit("e", now).is_err());
        breakers.run_ended("e");
        assert!(breakers.admit("e", now).is_ok());
    }
}
