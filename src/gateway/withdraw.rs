//! A reservation of which nobody knows whether it was made, because the database went away while it committed. This process
//! knows that it never submitted it: it ends at once, free, instead of waiting for a provider that was not asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info};

use super::Gateway;
use super::generation::Job;
use super::settle::{WRITE_BACKOFF, failed};
use crate::catalogue::Terms;
use crate::ledger::{FinalState, LedgerError};
use crate::providers::{Failure, FailureKind};

/// How long a commit whose answer was lost may still be on its way: longer than the database lets a transaction wait.
const COMMIT_IN_FLIGHT: Duration = Duration::from_secs(10);

impl Gateway {
    /// Ends a generation that was reserved perhaps, since the database's answer was lost, and never submitted: nobody is
    /// to wait for a provider that was not asked. Tried until the books say that it has ended or that there is none.
    pub(super) async fn withdraw(&self, job: &Job, terms: &Terms) {
        let message = "the database's answer to its reservation was lost, so it was never submitted";
        let failure = Failure::new(FailureKind::NotSubmitted, message);
        let (finish, _) = failed(job, FinalState::Failed, failure, terms, self.clock.now());
        let (finish, since) = (Arc::new(finish), Instant::now());
        let mut wait = WRITE_BACKOFF.0;
        loop {
            match self.books.finish(finish.clone()).await {
                Ok(_) => {
                    info!(generation = %job.id, "a reservation whose answer was lost has ended, free");
                    return;
                }
                Err(LedgerError::UnknownGeneration(_)) if since.elapsed() > COMMIT_IN_FLIGHT => return,
                Err(LedgerError::UnknownGeneration(_) | LedgerError::Unavailable(_)) => {}
                Err(fault) => {
                    error!(generation = %job.id, %fault, "a reservation whose answer was lost cannot be ended");
                    return;
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WRITE_BACKOFF.1);
        }
    }
}
