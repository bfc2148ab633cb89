//! How an open generation stands, for whoever asks; and that it runs, for whoever asks another replica.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use super::Gateway;
use super::attempt::ticket_of;
use super::generation::{Job, Progress};
use super::wait::Outcome;
use crate::ledger::{GenerationRecord, GenerationState, LedgerError};
use crate::providers::{LogLine, Provider, Standing, Ticket};

/// How long a generation runs before the books are told: most have ended by then and never cost the write.
const TOLD_AFTER: Duration = Duration::from_secs(2);
/// How long whoever asks waits for the provider's logs.
const LOGS_WITHIN: Duration = Duration::from_secs(3);

impl Gateway {
    /// How a generation that is open in the books stands: by what this process knows of it, else by what the provider
    /// tells. Where neither tells anything, as the books have it. Without `logs`, the provider is asked for them only
    /// where this process knows nothing.
    pub async fn standing(&self, record: &GenerationRecord, logs: bool) -> Standing {
        let stored = Standing { runs: record.state == GenerationState::Running, ..Standing::default() };
        let known = self.job(record.id).map(|job| job.watch().borrow().clone());
        let runs = match known {
            Some(Progress::Reserving) => return stored,
            Some(Progress::Queued(queue_position)) => return Standing { queue_position, ..stored },
            Some(_) => Some(Standing { runs: true, ..Standing::default() }),
            None => None,
        };
        match runs {
            Some(runs) if !logs => runs,
            Some(runs) => Standing { logs: self.logs(record).await, ..runs },
            None => self.told(record).await.unwrap_or(stored),
        }
    }

    /// What the provider's runner has written while it worked; nothing where that is not known any more.
    pub async fn logs(&self, record: &GenerationRecord) -> Vec<LogLine> {
        if record.erased_at.is_some() {
            return Vec::new();
        }
        self.told(record).await.map(|standing| standing.logs).unwrap_or_default()
    }

    /// What the provider tells; nothing where no request is known there.
    async fn told(&self, record: &GenerationRecord) -> Option<Standing> {
        let provider = self.providers.get(&record.provider)?;
        let ticket = ticket_of(record.attempt.clone()?);
        match tokio::time::timeout(LOGS_WITHIN, provider.standing(&ticket)).await {
            Ok(Ok(standing)) => Some(standing),
            Ok(Err(fault)) => {
                debug!(generation = %record.id, %fault, "the provider does not tell how it stands");
                None
            }
            Err(_) => None,
        }
    }

    /// Waits for what becomes of a submitted request, and tells the books that it runs if that takes long.
    pub(super) async fn follow(&self, job: &Arc<Job>, provider: &Arc<dyn Provider>, ticket: Ticket) -> Outcome {
        self.telling_that_it_runs(job, self.waiter.follow(job.clone(), provider.clone(), ticket)).await
    }

    /// Like [`Self::follow`] for what was submitted just now: looks at once.
    pub(super) async fn look_and_follow(
        &self,
        job: &Arc<Job>,
        provider: &Arc<dyn Provider>,
        ticket: Ticket,
    ) -> Outcome {
        self.telling_that_it_runs(job, self.waiter.look_and_follow(job.clone(), provider.clone(), ticket)).await
    }

    async fn telling_that_it_runs(&self, job: &Job, outcome: impl Future<Output = Outcome>) -> Outcome {
        tokio::pin!(outcome);
        tokio::select! {
            biased;
            outcome = &mut outcome => return outcome,
            () = self.tell_that_it_runs(job) => {}
        }
        outcome.await
    }

    async fn tell_that_it_runs(&self, job: &Job) {
        let mut watcher = job.watch();
        let runs = |progress: &Progress| matches!(progress, Progress::Running | Progress::Preview(_));
        if watcher.wait_for(runs).await.is_err() {
            return;
        }
        let since = self.clock.now();
        tokio::time::sleep(TOLD_AFTER).await;
        match self.books.running(job.id, since).await {
            Ok(()) | Err(LedgerError::NotOpen) => {}
            Err(fault) => warn!(generation = %job.id, %fault, "the books could not be told that it runs"),
        }
    }
}
