//! Failed authentications by address: guessing keys is refused after a few wrong ones, with growing pauses.
//!
//! A key that was used from the same address before is always let in, so that one client with a wrong key does not lock
//! out the others behind the same proxy. Revoked and expired keys do not count: whoever has one does not guess.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::Duration;

use crate::domain::{ApiKeyId, Timestamp};

/// Wrong keys that an address may send at once.
const BURST: f64 = 20.0;
/// After how long one more is allowed.
const REFILL: Duration = Duration::from_secs(3);
/// What the same wrong key sent again costs: it is a mistake in a setting and no guess.
const REPEATED_COST: f64 = 0.05;
/// Wrong keys of an address that are recognised when they come again.
const REMEMBERED_KEYS: usize = 8;
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(15);
/// After how long without a wrong key an address starts afresh.
const FORGIVEN_AFTER: Duration = Duration::from_hours(1);
/// Most addresses with wrong keys that are kept.
const MOST_SOURCES: usize = 20_000;
/// Most pairs of address and good key that are kept, twice: those of this period and of the one before.
const MOST_KNOWN: usize = 50_000;

/// Failed authentications of every address.
#[derive(Debug, Default)]
pub(super) struct Attempts(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    sources: HashMap<IpAddr, Source>,
    known: HashSet<(IpAddr, ApiKeyId)>,
    known_before: HashSet<(IpAddr, ApiKeyId)>,
}

#[derive(Debug)]
struct Source {
    /// Wrong keys that are still allowed.
    tokens: f64,
    last: Timestamp,
    pauses: u32,
    paused_until: Timestamp,
    keys: VecDeque<u64>,
}

impl Attempts {
    /// How much longer the address must wait; `None` if it may try a key.
    pub(super) fn pause(&self, address: IpAddr, now: Timestamp) -> Option<Duration> {
        let state = self.state();
        let source = state.sources.get(&group(address))?;
        (source.paused_until > now).then(|| source.paused_until.since(now))
    }

    /// Whether the key was used from this address before.
    pub(super) fn is_known(&self, address: IpAddr, key: ApiKeyId) -> bool {
        let pair = (group(address), key);
        let state = self.state();
        state.known.contains(&pair) || state.known_before.contains(&pair)
    }

    /// A key was good.
    pub(super) fn succeeded(&self, address: IpAddr, key: ApiKeyId) {
        let mut state = self.state();
        let pair = (group(address), key);
        if state.known.contains(&pair) {
            return;
        }
        if state.known.len() >= MOST_KNOWN {
            state.known_before = std::mem::take(&mut state.known);
        }
        state.known.insert(pair);
    }

    /// A key was unknown; `digest` tells it from others.
    pub(super) fn failed(&self, address: IpAddr, digest: u64, now: Timestamp) {
        let mut state = self.state();
        if state.sources.len() >= MOST_SOURCES {
            state.sources.retain(|_, source| source.paused_until > now || now.since(source.last) < LONGEST_PAUSE);
            if state.sources.len() >= MOST_SOURCES {
                state.sources.clear();
            }
        }
        let source = state.sources.entry(group(address)).or_insert_with(|| Source::new(now));
        source.failed(digest, now);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Source {
    fn new(now: Timestamp) -> Self {
        Self { tokens: BURST, last: now, pauses: 0, paused_until: now, keys: VecDeque::with_capacity(REMEMBERED_KEYS) }
    }

    fn failed(&mut self, digest: u64, now: Timestamp) {
        let quiet = now.since(self.last);
        if quiet >= FORGIVEN_AFTER {
            *self = Self::new(now);
        }
        self.tokens = (self.tokens + quiet.as_secs_f64() / REFILL.as_secs_f64()).min(BURST);
        self.last = now;
        let cost = if self.keys.contains(&digest) {
            REPEATED_COST
        } else {
            if self.keys.len() == REMEMBERED_KEYS {
                self.keys.pop_front();
            }
            self.keys.push_back(digest);
            1.0
        };
        self.tokens -= cost;
        if self.tokens < 0.0 {
            self.tokens = 0.0;
            self.pauses += 1;
            let pause = Duration::from_secs(1 << self.pauses.min(20)).min(LONGEST_PAUSE);
            self.paused_until = now.plus(pause);
        }
    }
}

/// What counts as one address: of IPv6, the network of 64 bits that one customer of a provider has.
fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7));
    const START: Timestamp = Timestamp::from_micros(1_000_000_000_000_000);

    fn at(seconds: u64) -> Timestamp {
        START.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn guesses_are_paused_longer_and_longer_and_forgiven_in_the_end() {
        let attempts = Attempts::default();
        for guess in 0..20 {
            attempts.failed(HERE, guess, START);
            assert_eq!(attempts.pause(HERE, START), None, "{guess}");
        }
        let mut now = 0;
        for (guess, pause) in [2, 4, 8, 16, 32].into_iter().enumerate() {
            // Faster than tokens come back: each further guess runs into a pause, in the end.
            let mut extra = 100 * (guess as u64 + 1);
            while attempts.pause(HERE, at(now)).is_none() {
                attempts.failed(HERE, extra, at(now));
                extra += 1;
            }
            assert_eq!(attempts.pause(HERE, at(now)), Some(Duration::from_secs(pause)));
            now += pause;
            assert_eq!(attempts.pause(HERE, at(now)), None);
        }
        attempts.failed(HERE, 7, at(now + 3600));
        assert_eq!(attempts.pause(HERE, at(now + 3600)), None);
    }

    #[test]
    fn the_same_wrong_key_again_is_a_mistake_and_no_guess() {
        let attempts = Attempts::default();
        for _ in 0..300 {
            attempts.failed(HERE, 1, START);
        }
        assert_eq!(attempts.pause(HERE, START), None);
        for _ in 0..200 {
            attempts.failed(HERE, 1, START);
        }
        assert!(attempts.pause(HERE, START).is_some(), "not without any limit");
    }

    #[test]
    fn only_the_address_that_guesses_is_paused() {
        let attempts = Attempts::default();
        for guess in 0..30 {
            attempts.failed("2001:db8:0:1::1".parse().unwrap(), guess, START);
        }
        assert!(attempts.pause("2001:db8:0:1:ffff::2".parse().unwrap(), START).is_some(), "the same network");
        assert!(attempts.pause("2001:db8:0:2::1".parse().unwrap(), START).is_none());
        assert!(attempts.pause(HERE, START).is_none());
        let key = ApiKeyId::from_uuid(Uuid::from_u128(1));
        assert!(!attempts.is_known(HERE, key));
        attempts.succeeded(HERE, key);
        assert!(attempts.is_known("::ffff:203.0.113.7".parse().unwrap(), key));
    }
}
