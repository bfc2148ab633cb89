//! Picks up what was left open: at start and all the time, on every replica.
//!
//! A replica shows that it lives by a heartbeat. Open generations whose owner's heartbeat is old are taken over, each by
//! one replica, and followed from the provider's stored id. Nothing is submitted here.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;
use tracing::{Instrument, error, info, info_span, warn};

use super::Gateway;
use super::attempt::ticket_of;
use super::generation::{Job, Progress};
use super::reservation::held_terms;
use super::settle::Settled;
use super::wait::Outcome;
use crate::catalogue::Terms;
use crate::domain::Timestamp;
use crate::ledger::{GenerationRecord, LedgerError};
use crate::providers::{Failure, FailureKind};

/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// An owner whose heartbeat is older than this is taken for dead.
pub(super) const STALE_AFTER: Duration = Duration::from_secs(6);
/// How long after a heartbeat a replica may rely on not being taken for dead: less than [`STALE_AFTER`], since its next
/// steps take time as well.
const SEEN_FOR: Duration = Duration::from_secs(4);
/// Time between two rounds of recovery.
const ROUND: Duration = Duration::from_secs(1);
/// Rounds between two rounds of housekeeping in the books.
const MAINTAIN_EVERY: u64 = 300;
/// The round of the first one; the start itself makes the month's partition.
const FIRST_MAINTENANCE: u64 = 10;
/// Rounds between two searches for generations of ours that no job works on.
const ORPHANS_EVERY: u64 = 5;
/// A generation of ours that is younger than this may have a job that is just being made.
const ORPHAN_AGE: Duration = Duration::from_secs(10);
/// How many generations are taken over at once.
const ADOPTED_AT_ONCE: u32 = 200;

impl Gateway {
    /// Starts the heartbeat and the recovery, each on a task of its own, so that a slow search never delays a heartbeat.
    /// They end with the process.
    pub(super) fn start_recovery(self: &Arc<Self>) {
        // Not tracked: shutdown waits for jobs, and these never end by themselves.
        let gateway = Arc::downgrade(self);
        self.runtime.spawn(async move {
            let mut beats = tokio::time::interval(HEARTBEAT);
            beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                beats.tick().await;
                let Some(gateway) = gateway.upgrade() else { return };
                if let Err(fault) = gateway.beat().await {
                    warn!(%fault, "the heartbeat could not be written");
                }
            }
        });
        let gateway = Arc::downgrade(self);
        self.runtime.spawn(async move {
            for round in 0_u64.. {
                let Some(gateway) = gateway.upgrade() else { return };
                if gateway.is_seen_alive() {
                    gateway.adopt().await;
                }
                if round % ORPHANS_EVERY == 0 {
                    gateway.take_up_orphans().await;
                }
                if round % MAINTAIN_EVERY == FIRST_MAINTENANCE {
                    gateway.check_given_up().await;
                    gateway.maintain().await;
                }
                drop(gateway);
                tokio::time::sleep(ROUND).await;
            }
        });
    }

    /// Shows the other replicas that this one is alive.
    pub(super) async fn beat(&self) -> Result<(), LedgerError> {
        let (began, was_unsure) = (Instant::now(), !self.is_seen_alive());
        self.books.heartbeat(self.replica).await?;
        if was_unsure {
            self.reclaim().await;
        }
        *self.seen_at.lock().unwrap_or_else(PoisonError::into_inner) = began;
        if let Err(fault) = self.set_clock().await {
            warn!(%fault, "the database's clock could not be read");
        }
        Ok(())
    }

    /// Whether no other replica can take this one for dead yet. A process that was paused, or whose database does not
    /// answer, is not sure of its generations until its next heartbeat.
    pub(super) fn is_seen_alive(&self) -> bool {
        self.seen_at.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < SEEN_FOR
    }

    /// Takes back what others have adopted while this replica gave no sign of life: it has the jobs, and knows best which
    /// of them were submitted.
    async fn reclaim(&self) {
        match self.books.reclaim(self.replica, &self.jobs.ids()).await {
            Ok(0) => {}
            Ok(count) => warn!(count, "this replica was held up and has taken its generations back"),
            Err(fault) => warn!(%fault, "this replica was held up and could not take its generations back"),
        }
    }

    async fn adopt(self: &Arc<Self>) {
        match self.books.adopt(self.replica, STALE_AFTER, ADOPTED_AT_ONCE).await {
            Ok(found) => {
                for open in found {
                    self.resume(open);
                }
            }
            Err(fault) => warn!(%fault, "open generations could not be looked for"),
        }
    }

    /// Generations of this process that no job works on, since the job broke off; and jobs whose provider's id was stored
    /// by another replica.
    async fn take_up_orphans(self: &Arc<Self>) {
        let now = self.clock.now();
        match self.books.open_of(self.replica).await {
            Ok(open) => {
                for open in open {
                    if self.jobs.get(open.id).is_some() {
                        self.tell_of_attempt(&open);
                    } else if now.since(open.created_at) > ORPHAN_AGE {
                        self.resume(open);
                    }
                }
            }
            Err(fault) => warn!(%fault, "generations without a job could not be looked for"),
        }
    }

    pub(super) async fn maintain(&self) {
        if let Err(fault) = self.books.maintain(self.clock.now()).await {
            warn!(%fault, "the books could not be kept in order");
        }
    }

    /// Leaves at a planned stop: what is still open may be taken over at once.
    pub async fn retire(&self) {
        if let Err(fault) = self.books.retire(self.replica, self.clock.now()).await {
            warn!(%fault, "this replica could not sign off; others will notice after a few seconds");
        }
        self.books.close();
    }

    /// Follows a generation that another process, or this one before a restart, has left open. One that this process
    /// works on already keeps its job, which may have news to read in the books.
    fn resume(self: &Arc<Self>, open: GenerationRecord) {
        let job = Job::new(open.id, open.project_id, open.created_at, open.deadline_at, open.model.clone());
        let Some(claim) = self.jobs.claim(&job) else {
            return self.tell_of_attempt(&open);
        };
        info!(generation = %open.id, has_provider_id = open.attempt.is_some(), "an open generation is taken over");
        job.tell(Progress::Queued(None));
        let gateway = self.clone();
        let work = async move {
            let (terms, outcome) = gateway.follow_stored(&claim.job, &open).await;
            gateway.see_through(&claim.job, terms, outcome).await;
        };
        self.tracker.spawn_on(work, &self.runtime);
    }

    /// A job that does not know the provider's id yet is told that the books have it.
    fn tell_of_attempt(&self, open: &GenerationRecord) {
        if let Some((job, attempt)) = self.jobs.get(open.id).zip(open.attempt.as_ref())
            && job.attempt() < attempt.n
        {
            job.called.notify_one();
        }
    }

    /// Settles a generation, and goes on where somebody has submitted another attempt meanwhile.
    pub(super) async fn see_through(&self, job: &Arc<Job>, mut terms: Terms, mut outcome: Outcome) {
        while let Settled::NewerAttempt(record) =
            self.settle(job, &terms, outcome).instrument(info_span!("settle")).await
        {
            (terms, outcome) = self.follow_stored(job, &record).await;
        }
    }

    /// Follows a generation from what the books have of it.
    async fn follow_stored(&self, job: &Arc<Job>, open: &GenerationRecord) -> (Terms, Outcome) {
        let outcome = match (self.providers.get(&open.provider), open.attempt.clone()) {
            (Some(provider), Some(submitted)) => {
                job.was_stored(submitted.n);
                self.follow(job, provider, ticket_of(submitted)).await
            }
            // Nobody knows whether the provider took it. It is never sent again.
            (Some(provider), None) => self.wait_for_call(job, provider, 1).await,
            (None, _) => {
                error!(generation = %job.id, provider = open.provider, "there is no such provider any more");
                tokio::time::sleep(job.deadline_at.since(self.clock.now())).await;
                Outcome::Expired(Failure::new(FailureKind::Lost, "its provider is not configured any more"))
            }
        };
        (held_terms(open, job.attempt()), outcome)
    }
}

/// This long before a moment.
pub(super) fn before(moment: Timestamp, ago: Duration) -> Timestamp {
    Timestamp::from_micros(moment.micros().saturating_sub(i64::try_from(ago.as_micros()).unwrap_or(i64::MAX)))
}
