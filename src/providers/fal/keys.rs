//! fal's keys: whose turn it is, how much each carries, and which rest.
//!
//! A key has two measures: its weight, by which keys take turns, and how many requests it may have open at fal. A key that
//! fal refuses (401, 403) rests for the endpoint that was refused, since a private model refuses a good key as well; a
//! locked account and a 429 rest the whole key. What rests is tried again when its time is over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderValue;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::FalError;
use crate::domain::{FairSemaphore, ProjectId};
use crate::providers::outcome::{Failure, FailureKind};
use crate::providers::{KeyHealth, KeyState};

/// First and longest rest of a key that fal refuses.
const REFUSED_REST: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(2));
/// First and longest rest of a key that has too much under way, where fal does not say how long.
const BUSY_REST: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long a limit that a 429 taught is kept.
const LEARNED_FOR: Duration = Duration::from_mins(1);
/// A request that was not asked about for so long does not count as open any more.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(2);
/// Longest rest that a submit waits for; a longer one is passed on to the client.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// One of fal's keys.
pub(super) struct Key {
    /// Its name in the books and logs.
    pub label: String,
    /// `Key …`, marked as sensitive.
    pub header: HeaderValue,
    weight: i64,
}

/// All keys.
pub(super) struct Keys {
    list: Vec<Key>,
    /// Most requests that one key may have open; `None` is no limit of ours.
    limit: Option<usize>,
    standings: Mutex<Vec<Standing>>,
    freed: Notify,
    /// Who may wait for a place: one submit of each project, so that a place that becomes free goes to each of them alike.
    first_of_project: FairSemaphore<Option<ProjectId>>,
}

/// What is known of one key now.
#[derive(Default)]
struct Standing {
    /// For turns by weight: grows by the weight with each choice, falls by all weights when chosen.
    turn: i64,
    /// Submits under way.
    sending: usize,
    /// Requests that fal took and has not ended, with the time of the last news of each.
    open: HashMap<String, Instant>,
    /// A limit that a 429 taught, and until when it counts.
    learned: Option<(usize, Instant)>,
    /// Why the whole key rests, or rests for one endpoint.
    rests: HashMap<Scope, Rest>,
}

/// What a rest is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    /// Everything.
    All,
    /// One endpoint.
    Endpoint(String),
}

#[derive(Debug, Clone, Copy)]
struct Rest {
    until: Instant,
    /// Refused by fal, rather than only busy.
    refused: bool,
    /// How often in a row.
    times: u32,
}

/// A key that a submit may use, and its place among the key's open requests.
pub(super) struct Turn {
    keys: Arc<Keys>,
    at: usize,
}

enum Choice {
    Key(usize),
    /// None now; until when the first one rests, and whether all were refused.
    Later {
        until: Option<Instant>,
        refused: bool,
    },
}

#[expect(clippy::unnecessary_box_returns, reason = "failures travel boxed")]
fn in_full_use(wait: Option<Duration>) -> Box<Failure> {
    let mut failure = Failure::new(FailureKind::Overloaded, "all of our keys at fal are in full use");
    failure.retry_after = wait.or(Some(LONGEST_WAIT));
    Box::new(failure)
}

impl Keys {
    /// From keys and their weights.
    pub fn new(keys: &[(String, u32)], limit: Option<usize>) -> Result<Arc<Self>, FalError> {
        let mut read = Vec::new();
        for (key, weight) in keys {
            let mut header = HeaderValue::from_str(&format!("Key {key}")).map_err(|_| FalError::BadKey)?;
            header.set_sensitive(true);
            read.push(Key { label: label_of(key), header, weight: i64::from((*weight).max(1)) });
        }
        if read.is_empty() {
            return Err(FalError::NoKey);
        }
        let standings = Mutex::new(read.iter().map(|_| Standing::default()).collect());
        Ok(Arc::new(Self {
            list: read,
            limit,
            standings,
            freed: Notify::new(),
            first_of_project: FairSemaphore::new(usize::MAX, 1),
        }))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// The key that a ticket was made with, or the first one if that key is gone from the settings.
    pub fn of(&self, label: &str) -> &Key {
        self.list.iter().find(|key| key.label == label).unwrap_or(&self.list[0])
    }

    /// A key for a submit of a project, or for an upload. Waits for one that is full or rests for a moment, until `give_up` at the
    /// latest. One submit of each project waits at a time, so that projects take turns.
    pub async fn turn(
        self: &Arc<Self>,
        project: Option<ProjectId>,
        endpoint: &str,
        give_up: Instant,
    ) -> Result<Turn, Box<Failure>> {
        let Ok(_permit) = tokio::time::timeout_at(give_up, self.first_of_project.acquire(project)).await else {
            return Err(in_full_use(None));
        };
        loop {
            let freed = self.freed.notified();
            let (until, refused) = match self.choose(endpoint) {
                Choice::Key(at) => return Ok(Turn { keys: self.clone(), at }),
                Choice::Later { until, refused } => (until, refused),
            };
            if refused {
                let message = "fal refuses all of our keys; it is asked again after a while";
                return Err(Box::new(Failure::new(FailureKind::Account, message)));
            }
            let now = Instant::now();
            let wait = until.map(|until| until.saturating_duration_since(now));
            if now >= give_up || wait.is_some_and(|wait| wait > LONGEST_WAIT) {
                return Err(in_full_use(wait));
            }
            tokio::select! {
                () = freed => {}
                () = tokio::time::sleep_until(until.unwrap_or(now + LONGEST_WAIT).min(give_up)) => {}
            }
        }
    }

    /// The ready key whose turn it is: each gains its weight, the one that has most is chosen and pays all weights.
    fn choose(&self, endpoint: &str) -> Choice {
        let now = Instant::now();
        let mut standings = self.standings();
        let (mut until, mut all_refused, mut total) = (None::<Instant>, true, 0);
        let mut ready = Vec::with_capacity(self.list.len());
        for (at, (key, standing)) in self.list.iter().zip(standings.iter_mut()).enumerate() {
            if let Some(rest) = standing.rest(endpoint, now) {
                until = Some(until.map_or(rest.until, |until| until.min(rest.until)));
                all_refused &= rest.refused;
                continue;
            }
            all_refused = false;
            if !standing.is_full(self.limit, now) {
                standing.turn += key.weight;
                total += key.weight;
                ready.push(at);
            }
        }
        let Some(at) = ready.into_iter().rev().max_by_key(|at| standings[*at].turn) else {
            return Choice::Later { until, refused: all_refused };
        };
        standings[at].turn -= total;
        standings[at].sending += 1;
        Choice::Key(at)
    }

    /// There is news of a request that is open at fal.
    pub fn is_open(&self, label: &str, request_id: &str) {
        if let Some(at) = self.list.iter().position(|key| key.label == label) {
            self.standings()[at].open.insert(request_id.to_owned(), Instant::now());
        }
    }

    /// A request has come to its end: its place is free.
    pub fn has_ended(&self, label: &str, request_id: &str) {
        if let Some(at) = self.list.iter().position(|key| key.label == label)
            && self.standings()[at].open.remove(request_id).is_some()
        {
            self.freed.notify_one();
        }
    }

    /// What operators are told: labels, never keys.
    pub fn health(&self) -> Vec<KeyHealth> {
        let now = Instant::now();
        let mut standings = self.standings();
        let told = self.list.iter().zip(standings.iter_mut());
        told.map(|(key, standing)| {
            standing.forget(now);
            let full = standing.is_full(self.limit, now);
            let rests = standing.rests.iter().filter(|(_, rest)| rest.until > now);
            let mut state = if full { KeyState::Full } else { KeyState::Ready };
            let mut refused_for: Vec<String> = Vec::new();
            for (scope, rest) in rests {
                match (scope, rest.refused) {
                    (Scope::All, true) => state = KeyState::Refused,
                    (Scope::All, false) if state != KeyState::Refused => state = KeyState::Busy,
                    (Scope::All, false) => {}
                    (Scope::Endpoint(endpoint), _) => refused_for.push(endpoint.clone()),
                }
            }
            refused_for.sort();
            let open = standing.sending + standing.open.len();
            KeyHealth { label: key.label.clone(), state, refused_for, open, limit: standing.limit(self.limit, now) }
        })
        .collect()
    }

    fn standings(&self) -> MutexGuard<'_, Vec<Standing>> {
        self.standings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Standing {
    /// The rest that keeps this key from an endpoint now, the longest one.
    fn rest(&self, endpoint: &str, now: Instant) -> Option<Rest> {
        if self.rests.is_empty() {
            return None;
        }
        let scopes = [Scope::All, Scope::Endpoint(endpoint.to_owned())];
        let rests = scopes.iter().filter_map(|scope| self.rests.get(scope)).filter(|rest| rest.until > now);
        rests.max_by_key(|rest| rest.until).copied()
    }

    fn limit(&self, ours: Option<usize>, now: Instant) -> Option<usize> {
        let learned = self.learned.filter(|(_, until)| *until > now).map(|(limit, _)| limit);
        match (ours, learned) {
            (Some(ours), Some(learned)) => Some(ours.min(learned)),
            (ours, learned) => ours.or(learned),
        }
    }

    fn is_full(&mut self, ours: Option<usize>, now: Instant) -> bool {
        let Some(limit) = self.limit(ours, now) else { return false };
        if self.sending + self.open.len() >= limit {
            self.forget(now);
        }
        self.sending + self.open.len() >= limit
    }

    /// Leaves out what nobody has asked about for long.
    fn forget(&mut self, now: Instant) {
        self.open.retain(|_, news| now.duration_since(*news) < FORGOTTEN_AFTER);
    }
}

impl Turn {
    /// The key whose turn it is.
    pub fn key(&self) -> &Key {
        &self.keys.list[self.at]
    }

    /// fal took the request: it holds a place until it has ended, and the key is well.
    pub fn taken(self, endpoint: &str, request_id: &str) {
        let mut standings = self.keys.standings();
        let standing = &mut standings[self.at];
        standing.open.insert(request_id.to_owned(), Instant::now());
        if !standing.rests.is_empty() {
            standing.rests.remove(&Scope::All);
            standing.rests.remove(&Scope::Endpoint(endpoint.to_owned()));
        }
    }

    /// fal refuses the key, for everything or for one endpoint.
    pub fn refused(self, scope: Scope) {
        self.rest(scope, true, None);
    }

    /// The key has too much under way; fal may say for how long.
    pub fn busy(self, asked: Option<Duration>) {
        {
            let mut standings = self.keys.standings();
            let standing = &mut standings[self.at];
            let now = Instant::now();
            standing.forget(now);
            // What was open when fal refused more is what it allows.
            if !standing.open.is_empty() {
                standing.learned = Some((standing.open.len(), now + LEARNED_FOR));
            }
        }
        self.rest(Scope::All, false, asked);
    }

    fn rest(&self, scope: Scope, refused: bool, asked: Option<Duration>) {
        let (first, longest) = if refused { REFUSED_REST } else { BUSY_REST };
        let mut standings = self.keys.standings();
        let rests = &mut standings[self.at].rests;
        let times = rests.get(&scope).map_or(0, |rest| rest.times);
        let time = asked.unwrap_or_else(|| first.saturating_mul(1 << times.min(10)).min(longest));
        rests.insert(scope, Rest { until: Instant::now() + time, refused, times: times + 1 });
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut standings = self.keys.standings();
        let standing = &mut standings[self.at];
        standing.sending = standing.sending.saturating_sub(1);
        drop(standings);
        self.keys.freed.notify_one();
    }
}

/// A key's name in the books and logs: eight hex digits of its digest.
pub(super) fn label_of(key: &str) -> String {
    hex::encode(&Sha256::digest(key.as_bytes())[..4])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(limit: Option<usize>) -> Arc<Keys> {
        Keys::new(&[("a:b".into(), 2), ("c:d".into(), 1)], limit).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    async fn label(keys: &Arc<Keys>) -> Option<String> {
        keys.turn(None, "fal-ai/flux/dev", soon()).await.ok().map(|turn| turn.key().label.clone())
    }

    #[tokio::test]
    async fn keys_take_turns_by_weight() {
        let keys = keys(None);
        let mut labels = Vec::new();
        for _ in 0..6 {
            labels.push(label(&keys).await.unwrap());
        }
        assert_eq!(labels.iter().filter(|label| **label == label_of("a:b")).count(), 4);
        assert_ne!(labels[0], labels[1], "{labels:?}");
    }

    #[tokio::test]
    async fn a_refused_key_rests_for_that_endpoint_and_the_others_work() {
        let keys = keys(None);
        let turn = keys.turn(None, "fal-ai/flux/dev", soon()).await.unwrap_or_else(|_| unreachable!());
        assert_eq!(turn.key().label, label_of("a:b"));
        turn.refused(Scope::Endpoint("fal-ai/flux/dev".into()));
        for _ in 0..3 {
            assert_eq!(label(&keys).await.unwrap(), label_of("c:d"));
        }
        let mut elsewhere = Vec::new();
        for _ in 0..3 {
            elsewhere.push(keys.turn(None, "fal-ai/other", soon()).await.map(|turn| turn.key().label.clone()).unwrap());
        }
        assert!(elsewhere.contains(&label_of("a:b")), "{elsewhere:?}");
        keys.turn(None, "fal-ai/flux/dev", soon()).await.unwrap_or_else(|_| unreachable!()).refused(Scope::All);
        let none = keys.turn(None, "fal-ai/flux/dev", soon()).await;
        assert!(none.is_err_and(|failure| failure.kind == FailureKind::Account));
    }

    #[tokio::test]
    async fn a_full_key_waits_until_one_of_its_requests_has_ended() {
        let keys = keys(Some(1));
        let first = keys.turn(None, "e", soon()).await.unwrap_or_else(|_| unreachable!());
        let label = first.key().label.clone();
        first.taken("e", "1");
        let second = keys.turn(None, "e", soon()).await.unwrap_or_else(|_| unreachable!());
        assert_ne!(second.key().label, label);
        assert!(keys.turn(None, "e", soon()).await.is_err_and(|failure| failure.kind == FailureKind::Overloaded));
        keys.has_ended(&label, "1");
        assert!(keys.turn(None, "e", soon()).await.is_ok_and(|turn| turn.key().label == label));
    }

    #[tokio::test]
    async fn a_busy_key_rests_as_long_as_fal_says_and_learns_its_limit() {
        let keys = Keys::new(&[("a:b".into(), 1)], None).unwrap();
        keys.turn(None, "e", soon()).await.unwrap_or_else(|_| unreachable!()).taken("e", "1");
        keys.turn(None, "e", soon()).await.unwrap_or_else(|_| unreachable!()).busy(Some(Duration::from_mins(1)));
        let refused = keys.turn(None, "e", soon()).await;
        assert!(refused.is_err_and(|failure| failure.retry_after > Some(Duration::from_secs(50))));
        let health = keys.health();
        assert_eq!((health[0].state, health[0].limit, health[0].open), (KeyState::Busy, Some(1), 1));
    }

    #[tokio::test]
    async fn a_project_waits_for_one_place_however_many_submits_of_another_wait() {
        let keys = Keys::new(&[("a:b".into(), 1)], Some(1)).unwrap();
        let [many, one] = [1, 2].map(|number| Some(ProjectId::from_uuid(uuid::Uuid::from_u128(number))));
        let give_up = Instant::now() + Duration::from_mins(1);
        let turn = |project| Box::pin(keys.turn(project, "e", give_up));
        let held = turn(many).await.unwrap_or_else(|_| unreachable!());
        let mut waiting: Vec<_> = [many, many, many, one].map(turn).into();
        for turn in &mut waiting {
            assert!(futures_util::poll!(turn).is_pending());
        }
        let mut newcomer = waiting.pop().unwrap();
        drop(held);
        let first = waiting.remove(0).await.unwrap_or_else(|_| unreachable!());
        for turn in &mut waiting {
            assert!(futures_util::poll!(turn).is_pending());
        }
        drop(first);
        assert!(futures_util::poll!(&mut newcomer).is_ready());
    }
}
