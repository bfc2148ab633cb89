//! When to look at what a provider makes: near the time that such a request usually takes.
//!
//! The first request of a kind is looked at after a twentieth of the time already waited, as nothing is known of it. From then
//! on a few looks tell whether it waits or runs, and the others lie around the times that the latest ones took. Where the
//! provider calls by itself, looks are only a net.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Shortest and longest time between two looks at a kind that is not known.
pub(super) const LOOK_INTERVAL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(2));
/// Shortest time between two looks that only tell whether it waits or runs.
const GLANCE: Duration = Duration::from_millis(250);
/// Shortest time between two looks while the provider calls by itself.
const NET: Duration = Duration::from_secs(2);
/// How many of the latest times are remembered of each kind.
const REMEMBERED: usize = 16;
/// How many kinds are remembered.
const MOST_KINDS: usize = 4096;
/// How many ends in a row the provider must have called for until its calls are relied on.
const CALLS_TRUSTED_AFTER: u32 = 3;

/// What takes about the same time: a provider's endpoint and what it makes there.
pub(super) type Kind = (String, String);

/// What is known of the time that requests take.
#[derive(Debug, Default)]
pub(super) struct Pace {
    latest: HashMap<Kind, VecDeque<Duration>>,
    /// How many ends in a row the provider has called for.
    calls: u32,
}

impl Pace {
    /// A request of this kind took so long; `called` is whether the provider called when it was done.
    pub(super) fn learn(&mut self, kind: &Kind, took: Duration, called: bool) {
        self.calls = if called { self.calls.saturating_add(1) } else { 0 };
        if self.latest.len() >= MOST_KINDS && !self.latest.contains_key(kind) {
            self.latest.clear();
        }
        let latest = self.latest.entry(kind.clone()).or_default();
        if latest.len() == REMEMBERED {
            latest.pop_front();
        }
        latest.push_back(took);
    }

    /// How long to wait with the next look at a request of this kind that has been followed for `waited`.
    pub(super) fn next_look(&self, kind: &Kind, waited: Duration) -> Duration {
        if self.calls >= CALLS_TRUSTED_AFTER {
            return waited.max(NET);
        }
        let Some((early, late)) = self.expected(kind) else { return unknown(waited) };
        if waited < early {
            return early.saturating_sub(waited).min(waited.max(GLANCE)).max(LOOK_INTERVAL.0);
        }
        if waited < late {
            // About four looks around the expected end; each is late by half of this on average.
            return (late.saturating_sub(early) / 4).clamp(waited / 40, waited / 12).max(LOOK_INTERVAL.0);
        }
        (waited / 10).max(LOOK_INTERVAL.0)
    }

    /// Between which times most of the latest ones ended.
    fn expected(&self, kind: &Kind) -> Option<(Duration, Duration)> {
        let mut latest: Vec<Duration> = self.latest.get(kind)?.iter().copied().collect();
        latest.sort_unstable();
        // One that is far off at either end is left out once there are enough.
        let apart = latest.len() / 8;
        let (first, last) = (latest.get(apart)?, latest.get(latest.len() - 1 - apart)?);
        Some((first.mul_f32(0.96), last.mul_f32(1.04)))
    }
}

/// While nothing is known, a look is due after a twentieth of the time already waited, later towards a tenth: the two lines
/// cross at two seconds, where a look is due every tenth of a second.
fn unknown(waited: Duration) -> Duration {
    let wait = (waited / 20).max((waited / 10).saturating_sub(Duration::from_millis(100)));
    wait.clamp(LOOK_INTERVAL.0, LOOK_INTERVAL.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind() -> Kind {
        ("fal-ai/flux/dev".to_owned(), "1024x1024".to_owned())
    }

    /// How many looks, the first one at once among them, it takes to notice an end at `took`, and how late that is.
    fn looks(pace: &Pace, took: Duration) -> (u32, Duration) {
        let (mut waited, mut looks) = (Duration::ZERO, 1);
        while waited < took {
            waited += pace.next_look(&kind(), waited);
            looks += 1;
        }
        (looks, waited.saturating_sub(took))
    }

    #[test]
    fn a_known_kind_takes_few_looks_and_is_noticed_soon() {
        for usual in [400_u64, 1_000, 3_000, 10_000, 30_000, 120_000] {
            for spread in [0_u64, 5, 20] {
                let times: Vec<Duration> =
                    (0..16).map(|n| Duration::from_millis(usual * (100 - spread + n * spread / 8) / 100)).collect();
                let mut pace = Pace::default();
                for took in &times {
                    pace.learn(&kind(), *took, false);
                }
                let mut found: Vec<_> = times.iter().map(|took| (looks(&pace, *took), *took)).collect();
                found.sort_by_key(|((_, late), took)| late.as_micros() * 1000 / took.as_micros());
                let ((_, late), took) = found[found.len() / 2];
                assert!(
                    late <= (took / 20).max(Duration::from_millis(100)),
                    "{usual} ms, {spread} %: late by {late:?}"
                );
                found.sort_by_key(|((looks, _), _)| *looks);
                let ((looks, _), _) = found[found.len() / 2];
                let most = if usual <= 3_000 { 10 } else { 16 };
                assert!(looks <= most, "{usual} ms, {spread} %: {looks} looks");
            }
        }
    }

    #[test]
    fn what_is_not_known_is_noticed_within_a_tenth_of_its_time() {
        let pace = Pace::default();
        for took in [50_u64, 700, 3_000, 30_000] {
            let took = Duration::from_millis(took);
            let (_, late) = looks(&pace, took);
            assert!(late <= (took / 10).max(Duration::from_millis(10)), "{took:?}: late by {late:?}");
        }
    }

    #[test]
    fn a_change_is_learned_and_one_that_is_far_off_changes_little() {
        let mut pace = Pace::default();
        for _ in 0..16 {
            pace.learn(&kind(), Duration::from_secs(3), false);
        }
        pace.learn(&kind(), Duration::from_secs(90), false);
        assert!(looks(&pace, Duration::from_secs(3)).0 <= 10);
        for _ in 0..16 {
            pace.learn(&kind(), Duration::from_secs(9), false);
        }
        let (looks, late) = looks(&pace, Duration::from_secs(9));
        assert!(looks <= 12 && late <= Duration::from_millis(450), "{looks} looks, late by {late:?}");
    }

    #[test]
    fn while_the_provider_calls_looks_are_a_net_and_once_it_does_not_they_are_more() {
        let mut pace = Pace::default();
        for _ in 0..CALLS_TRUSTED_AFTER {
            pace.learn(&kind(), Duration::from_secs(3), true);
        }
        assert!(looks(&pace, Duration::from_secs(30)).0 <= 6);
        pace.learn(&kind(), Duration::from_secs(3), false);
        assert!(looks(&pace, Duration::from_secs(3)).1 <= Duration::from_millis(150));
    }
}
