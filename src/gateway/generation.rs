//! A generation as this process sees it: a job with watchers, and what they are told.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::reservation::Changes;
use crate::domain::{GenerationId, MEMORY_OF_BODY, MemoryShare, Money, ProjectId, Timestamp};
use crate::ledger::{FinalState, RateLimits, ReserveError, Reserved};
use crate::providers::{Delivery, Failure};

/// What the watchers of a job are told.
#[derive(Debug, Clone)]
pub enum Progress {
    /// The hold is being written.
    Reserving,
    /// There is no hold, so there is no generation.
    Refused(Arc<ReserveError>),
    /// It waits at the provider; with the number of requests before it, if told.
    Queued(Option<u32>),
    /// It runs at the provider.
    Running,
    /// It runs, and shows how far it is.
    Preview(Arc<Preview>),
    /// Its deadline has passed; the provider was asked to give it up, and what comes of that is still awaited.
    Overdue,
    /// It has ended.
    Finished(Arc<Finished>),
}

/// The images of a streamed run before they are done.
#[derive(Debug)]
pub struct Preview {
    /// 1 for the first one that the run has shown.
    pub number: u32,
    /// The images as they were then, and what the provider told beside them.
    pub delivery: Delivery,
}

/// How a generation ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The generation.
    pub id: GenerationId,
    /// Its final state.
    pub state: FinalState,
    /// When it was reserved.
    pub created_at: Timestamp,
    /// The model that made the images.
    pub model: String,
    /// What was delivered; present exactly when `state` is succeeded.
    pub delivery: Option<Delivery>,
    /// What went wrong, if it did not succeed.
    pub failure: Option<Failure>,
    /// What the project pays.
    pub price: Money,
    /// What was ignored and adapted, where the books tell of it; whoever has just asked knows it from the order.
    pub changes: Option<Changes>,
}

/// When a job's cancellation is to be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cancellation {
    /// Not at all.
    Never = 0,
    /// Only while it waits at the provider: its client has left.
    WhileQueued = 1,
    /// Also while it runs: its owner said so.
    Always = 2,
}

/// A generation that this process works on.
#[derive(Debug)]
pub struct Job {
    /// The generation.
    pub id: GenerationId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// When it was reserved.
    pub created_at: Timestamp,
    /// When the client is told that it took too long.
    pub deadline_at: Timestamp,
    /// The model that was ordered.
    pub model: String,
    /// The provider has called and its id was stored.
    pub(super) called: Notify,
    progress: watch::Sender<Progress>,
    /// It was refused, is overdue, or has ended: who waits for that alone need not wake for every step before it.
    milestone: Notify,
    cancellation: AtomicU8,
    /// The latest attempt that the provider is known to have accepted; 0 for none.
    attempt: AtomicU32,
    /// The latest attempt whose provider's id is stored; 0 for none.
    stored_attempt: AtomicU32,
    rates: OnceLock<RateLimits>,
    times: Mutex<Times>,
    /// What the order takes, and all that is made of it.
    memory: Mutex<Option<MemoryShare>>,
}

/// How long a job was where.
#[derive(Debug, Default)]
struct Times {
    /// When it was handed to the provider.
    handed_over: Option<Instant>,
    /// How long it then waited until it was seen to run.
    queued: Option<Duration>,
    /// How long it was with the provider, all tries together.
    at_provider: Duration,
}

impl Job {
    pub(super) fn new(
        id: GenerationId,
        project_id: ProjectId,
        created_at: Timestamp,
        deadline_at: Timestamp,
        model: String,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            project_id,
            created_at,
            deadline_at,
            model,
            called: Notify::new(),
            progress: watch::Sender::new(Progress::Reserving),
            milestone: Notify::new(),
            cancellation: AtomicU8::new(Cancellation::Never as u8),
            attempt: AtomicU32::new(0),
            stored_attempt: AtomicU32::new(0),
            rates: OnceLock::new(),
            times: Mutex::default(),
            memory: Mutex::default(),
        })
    }

    /// What the order takes from now on; what it held before is given back.
    pub(super) fn holds(&self, memory: Option<MemoryShare>) {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = memory;
    }

    /// Only the order itself is left of all that was made of the request's body.
    pub(super) fn was_handed_over(&self) {
        if let Some(memory) = &mut *self.memory.lock().unwrap_or_else(PoisonError::into_inner) {
            memory.shrink_to(memory.bytes() / MEMORY_OF_BODY);
        }
    }

    /// How long it waited for the provider, all tries together.
    #[must_use]
    pub fn time_at_provider(&self) -> Duration {
        self.times().at_provider
    }

    /// How long it waited at the provider before it was seen to run; `None` if it never was.
    pub(super) fn time_queued(&self) -> Option<Duration> {
        self.times().queued
    }

    /// It was with the provider for so long.
    pub(super) fn was_at_provider(&self, duration: Duration) {
        self.times().at_provider += duration;
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_time(&self, news: &Progress) {
        let mut times = self.times();
        match news {
            Progress::Queued(_) if times.handed_over.is_none() => times.handed_over = Some(Instant::now()),
            Progress::Running if times.queued.is_none() => {
                times.queued = times.handed_over.map(|handed_over| handed_over.elapsed());
            }
            _ => {}
        }
    }

    /// How the rate limits stood with it, once it was reserved; nothing where there are none.
    #[must_use]
    pub fn rates(&self) -> RateLimits {
        self.rates.get().copied().unwrap_or_default()
    }

    pub(super) fn reserved(&self, reserved: Reserved) {
        let _ = self.rates.set(reserved.rates);
    }

    /// What is known now, and every change of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Waits until the job has ended, was refused, or is overdue.
    pub async fn outcome(&self) -> Progress {
        self.reached(|progress| matches!(progress, Progress::Refused(_) | Progress::Overdue | Progress::Finished(_)))
            .await
    }

    /// Waits until the job has ended or was refused, also past its deadline.
    pub async fn end(&self) -> Progress {
        self.reached(|progress| matches!(progress, Progress::Refused(_) | Progress::Finished(_))).await
    }

    async fn reached(&self, is_reached: fn(&Progress) -> bool) -> Progress {
        loop {
            // Made before the look, so that nothing between the two is missed.
            let next = self.milestone.notified();
            let reached = Some(self.progress.borrow()).filter(|progress| is_reached(progress)).map(|now| now.clone());
            if let Some(progress) = reached {
                return progress;
            }
            next.await;
        }
    }

    /// Tells the watchers, if it is news. An ended job stays ended, and an overdue one is overdue until it ends.
    pub(super) fn tell(&self, news: Progress) {
        self.note_time(&news);
        let is_milestone = matches!(news, Progress::Refused(_) | Progress::Overdue | Progress::Finished(_));
        let was_news = self.progress.send_if_modified(|progress| {
            let is_news = match (&*progress, &news) {
                (Progress::Finished(_) | Progress::Refused(_), _)
                | (
                    Progress::Overdue,
                    Progress::Queued(_) | Progress::Running | Progress::Preview(_) | Progress::Overdue,
                )
                | (Progress::Running | Progress::Preview(_), Progress::Running) => false,
                (Progress::Queued(before), Progress::Queued(now)) => before != now,
                _ => true,
            };
            if is_news {
                *progress = news;
            }
            is_news
        });
        if was_news && is_milestone {
            self.milestone.notify_waiters();
        }
    }

    pub(super) fn is_queued(&self) -> bool {
        matches!(*self.progress.borrow(), Progress::Reserving | Progress::Queued(_))
    }

    pub(super) fn cancellation(&self) -> Cancellation {
        match self.cancellation.load(Ordering::SeqCst) {
            0 => Cancellation::Never,
            1 => Cancellation::WhileQueued,
            _ => Cancellation::Always,
        }
    }

    /// The latest attempt that the provider is known to have accepted; 0 for none. An end is written only by whoever
    /// knows of the latest one.
    pub(super) fn attempt(&self) -> u32 {
        self.attempt.load(Ordering::SeqCst)
    }

    /// The provider has accepted this attempt.
    pub(super) fn was_accepted(&self, attempt: u32) {
        self.attempt.fetch_max(attempt, Ordering::SeqCst);
    }

    /// Notes that the provider's id of an attempt is in the database: it has been accepted.
    pub(super) fn was_stored(&self, attempt: u32) {
        self.was_accepted(attempt);
        self.stored_attempt.fetch_max(attempt, Ordering::SeqCst);
    }

    /// Whether another replica would find what the provider makes of it.
    pub(super) fn can_be_recovered(&self) -> bool {
        let stored = self.stored_attempt.load(Ordering::SeqCst);
        stored > 0 && stored >= self.attempt.load(Ordering::SeqCst)
    }

    /// Notes the wish; a stronger one is never weakened.
    pub(super) fn wish_cancellation(&self, wish: Cancellation) {
        self.cancellation.fetch_max(wish as u8, Ordering::SeqCst);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use uuid::Uuid;

    pub fn job() -> Arc<Job> {
        Job::new(
            GenerationId::from_uuid(Uuid::nil()),
            ProjectId::from_uuid(Uuid::nil()),
            Timestamp::default(),
            Timestamp::from_seconds(1),
            "m".into(),
        )
    }

    #[test]
    fn an_overdue_job_stays_overdue_until_it_ends() {
        let job = job();
        job.tell(Progress::Queued(Some(1)));
        job.tell(Progress::Overdue);
        job.tell(Progress::Running);
        assert!(matches!(*job.watch().borrow(), Progress::Overdue));
        assert!(!job.is_queued());
    }

    #[tokio::test]
    async fn who_waits_for_the_end_is_told_of_it_whenever_it_comes() {
        let job = job();
        let (early, ()) = tokio::join!(job.outcome(), async {
            job.tell(Progress::Queued(None));
            tokio::task::yield_now().await;
            job.tell(Progress::Overdue);
        });
        assert!(matches!(early, Progress::Overdue));
        assert!(matches!(job.outcome().await, Progress::Overdue), "asked after it has happened");
        let refusal = Arc::new(ReserveError::Overloaded);
        let (end, ()) = tokio::join!(job.end(), async { job.tell(Progress::Refused(refusal)) });
        assert!(matches!(end, Progress::Refused(_)));
    }

    #[test]
    fn a_wish_to_cancel_is_never_weakened() {
        let job = job();
        job.wish_cancellation(Cancellation::Always);
        job.wish_cancellation(Cancellation::WhileQueued);
        assert_eq!(job.cancellation(), Cancellation::Always);
    }
}
