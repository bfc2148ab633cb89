//! Limits by time: how much of a model a project may ask for in any minute, and how much it may have open at once.
//!
//! Reservations are counted by second. Of a second that lies partly in the last minute all counts, so that no minute
//! ever sees more than its limit.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use uuid::Uuid;

use crate::domain::Timestamp;
pub use crate::store::ANY_MODEL;
use crate::store::{CountRow, RateRow, Reservation};

/// How long a reservation counts, in seconds: a minute, and the second that it lies in.
pub(super) const WINDOW_SECONDS: i64 = 61;

/// How one rate limit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateState {
    /// How much is allowed in a minute.
    pub limit: u32,
    /// How much of it is left.
    pub remaining: u32,
    /// When all of it is there again, if nothing more is asked for.
    pub resets_in: Duration,
}

/// How the rate limits of a project and model stand; `None` where there is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimits {
    /// Requests.
    pub requests: Option<RateState>,
    /// Images.
    pub images: Option<RateState>,
}

/// What there is too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// Requests in a minute.
    Requests,
    /// Images in a minute.
    Images,
    /// Open generations.
    Concurrency,
}

/// A limit that a reservation would break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitReached {
    /// Of what.
    pub what: Limited,
    /// The limit.
    pub limit: u32,
    /// What is used of it.
    pub used: u32,
    /// When to come back.
    pub retry_after: Duration,
    /// How the rate limits stand.
    pub rates: RateLimits,
}

/// When to come back where too much is open at once.
const CONCURRENCY_WAIT: Duration = Duration::from_secs(1);

/// The rate limits of the projects of a batch, and what counts under them.
#[derive(Debug, Default)]
pub(super) struct Rates {
    rules: HashMap<(Uuid, String), (Option<i64>, Option<i64>)>,
    counts: HashMap<(Uuid, String), BTreeMap<i64, (i64, i64)>>,
}

impl Rates {
    pub(super) fn new(rules: Vec<RateRow>, counts: Vec<CountRow>) -> Self {
        let mut rates = Self::default();
        for row in rules {
            rates.rules.insert((row.project_id, row.model), (row.requests_per_minute, row.images_per_minute));
        }
        for row in counts {
            rates.counts.entry((row.project_id, row.model)).or_default().insert(row.second, (row.requests, row.images));
        }
        rates
    }

    fn rule(&self, project: Uuid, model: &str) -> Option<(Option<i64>, Option<i64>)> {
        let own = self.rules.get(&(project, model.to_owned()));
        own.or_else(|| self.rules.get(&(project, ANY_MODEL.to_owned()))).copied()
    }

    /// Whether a reservation fits; `None` where nothing limits it.
    pub(super) fn check(&self, r: &Reservation) -> Result<Option<RateLimits>, LimitReached> {
        self.check_images(r.project_id.uuid(), &r.model, r.created_at, i64::from(r.num_images))
    }

    /// Whether a request of a project for so many images of a model fits at this time; `None` where nothing limits it.
    pub(super) fn check_images(
        &self,
        project: Uuid,
        model: &str,
        at: Timestamp,
        wanted: i64,
    ) -> Result<Option<RateLimits>, LimitReached> {
        let Some((requests, images)) = self.rule(project, model) else {
            return Ok(None);
        };
        let none = BTreeMap::new();
        let counts = self.counts.get(&(project, model.to_owned())).unwrap_or(&none);
        let requests = requests.map(|limit| Window::of(counts, at, limit, |(requests, _)| *requests));
        let images = images.map(|limit| Window::of(counts, at, limit, |(_, images)| *images));
        for (window, wanted, what) in [(&requests, 1, Limited::Requests), (&images, wanted, Limited::Images)] {
            if let Some(window) = window
                && window.used.saturating_add(wanted) > window.limit
            {
                let rates = RateLimits {
                    requests: requests.as_ref().map(|window| window.state(0)),
                    images: images.as_ref().map(|window| window.state(0)),
                };
                return Err(LimitReached {
                    what,
                    limit: small(window.limit),
                    used: small(window.used),
                    retry_after: window.room_for(wanted),
                    rates,
                });
            }
        }
        Ok(Some(RateLimits {
            requests: requests.as_ref().map(|window| window.state(1)),
            images: images.as_ref().map(|window| window.state(wanted)),
        }))
    }

    /// Counts a reservation that was made.
    pub(super) fn count(&mut self, r: &Reservation) {
        let counts = self.counts.entry((r.project_id.uuid(), r.model.clone())).or_default();
        let (requests, images) = counts.entry(r.created_at.seconds()).or_default();
        *requests += 1;
        *images += i64::from(r.num_images);
    }
}

/// Whether one more generation of a project may be open.
pub(super) fn check_concurrency(limit: Option<i64>, open: i64) -> Result<(), LimitReached> {
    match limit {
        Some(limit) if open >= limit => Err(LimitReached {
            what: Limited::Concurrency,
            limit: small(limit),
            used: small(open),
            retry_after: CONCURRENCY_WAIT,
            rates: RateLimits::default(),
        }),
        _ => Ok(()),
    }
}

/// What counts now under one limit.
struct Window {
    limit: i64,
    used: i64,
    /// The seconds that count, oldest first, with what each used.
    seconds: Vec<(i64, i64)>,
    now: Timestamp,
}

impl Window {
    fn of(counts: &BTreeMap<i64, (i64, i64)>, now: Timestamp, limit: i64, part: impl Fn(&(i64, i64)) -> i64) -> Self {
        let first = now.seconds() - WINDOW_SECONDS + 1;
        let seconds: Vec<_> = counts.range(first..).map(|(second, used)| (*second, part(used))).collect();
        Self { limit, used: seconds.iter().map(|(_, used)| used).sum(), seconds, now }
    }

    /// When a second no longer counts.
    fn ends(&self, second: i64) -> Duration {
        Timestamp::from_seconds(second.saturating_add(WINDOW_SECONDS)).since(self.now)
    }

    /// As it stands once `more` is used.
    fn state(&self, more: i64) -> RateState {
        let newest = if more > 0 { Some(self.now.seconds()) } else { None };
        let newest = newest.max(self.seconds.iter().filter(|(_, used)| *used > 0).map(|(second, _)| *second).max());
        RateState {
            limit: small(self.limit),
            remaining: small(self.limit - self.used - more),
            resets_in: newest.map_or(Duration::ZERO, |second| self.ends(second)),
        }
    }

    /// How long until `wanted` fits; more than the whole limit never does.
    fn room_for(&self, wanted: i64) -> Duration {
        let mut used = self.used;
        for (second, freed) in &self.seconds {
            used -= freed;
            if used + wanted <= self.limit {
                return self.ends(*second);
            }
        }
        Duration::from_mins(1)
    }
}

fn small(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}
