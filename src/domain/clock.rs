//! The clock and the id source: the only places that time and randomness come from.

use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use uuid::Uuid;

/// A moment in microseconds since the Unix epoch, UTC; what the databases hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From whole seconds since the epoch; far ends saturate.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// This moment and `duration` more; saturates.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// How long after `earlier` this is; zero if it is not later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 3339 with milliseconds and `Z`, as in `2026-11-21T08:47:49.000Z`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        DateTime::from_timestamp_micros(self.0).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
    }
}

/// Tells the time.
pub trait Clock: Send + Sync + Debug {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// Makes ids and secrets.
pub trait IdSource: Send + Sync + Debug {
    /// A new `UUIDv7`, ordered by time.
    fn uuid(&self) -> Uuid;

    /// Thirty-two random bytes from the operating system, fit for a secret. Errors when the system has none to give.
    fn secret(&self) -> Result<[u8; 32], std::io::Error>;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn now(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
    }
}

/// The machine's clock, corrected to the one that all replicas share: the database's. Deadlines, months and buckets of usage
/// are the same wherever a request is worked on.
#[derive(Debug, Default)]
pub struct SharedClock {
    machine: SystemClock,
    /// What the machine's clock is behind by, in microseconds.
    behind: AtomicI64,
}

/// Less than this is no difference: two clocks that are kept right differ by that much.
const NO_DIFFERENCE: Duration = Duration::from_millis(50);

impl SharedClock {
    /// Notes what the shared clock shows now, give or take `tolerance`; a smaller difference changes nothing.
    pub fn set(&self, now: Timestamp, tolerance: Duration) {
        let behind = now.micros().saturating_sub(self.machine.now().micros());
        let change = Duration::from_micros(behind.abs_diff(self.behind.load(Ordering::SeqCst)));
        if change > tolerance + NO_DIFFERENCE {
            self.behind.store(behind, Ordering::SeqCst);
        }
    }

    /// How many microseconds the machine's clock is behind; below zero it is ahead.
    #[must_use]
    pub fn behind(&self) -> i64 {
        self.behind.load(Ordering::SeqCst)
    }
}

impl Clock for SharedClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.machine.now().0.saturating_add(self.behind()))
    }
}

/// Ids from the machine's clock and random source.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIds;

impl IdSource for SystemIds {
    #[expect(clippy::disallowed_methods, reason = "this is the id source")]
    fn uuid(&self) -> Uuid {
        Uuid::now_v7()
    }

    fn secret(&self) -> Result<[u8; 32], std::io::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(bytes)
    }
}

/// A clock that a test sets.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that stands at `now`.
    #[must_use]
    pub const fn at(now: Timestamp) -> Self {
        Self(AtomicI64::new(now.0))
    }

    /// Moves the clock on.
    pub fn advance(&self, duration: Duration) {
        let now = Clock::now(self).plus(duration);
        self.0.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_written_as_rfc3339() {
        assert_eq!(Timestamp::from_seconds(1_793_000_000).rfc3339(), "2026-10-26T07:33:20.000Z");
    }

    #[test]
    fn a_shared_clock_takes_over_a_difference_that_is_more_than_the_question_took() {
        let clock = SharedClock::default();
        let off = |seconds: i64| Timestamp::from_micros(SystemClock.now().micros() + seconds * 1_000_000);
        clock.set(off(3), Duration::from_secs(9));
        assert_eq!(clock.behind(), 0);
        for seconds in [40, -12] {
            clock.set(off(seconds), Duration::from_millis(1));
            assert_eq!((clock.behind() + 500_000).div_euclid(1_000_000), seconds);
            assert!(clock.now().since(off(seconds)) < Duration::from_secs(10));
            assert!(off(seconds).since(clock.now()) < Duration::from_secs(10));
        }
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::at(Timestamp::from_seconds(10));
        assert_eq!(clock.now().seconds(), 10);
        clock.advance(Duration::from_secs(5));
        assert_eq!(clock.now().seconds(), 15);
        assert_eq!(clock.now().since(Timestamp::from_seconds(20)), Duration::ZERO);
    }
}
