//! A run whose client wants to see unfinished images: on the provider's own stream, without queue and recovery.
//!
//! A stream that is lost on the way is free to the client, and never sent again: nobody knows whether it was run. What is
//! proven not to have been taken goes by the queue instead, without previews.

use std::sync::Arc;

use futures_util::StreamExt;
use tracing::{error, warn};

use super::Gateway;
use super::generation::{Job, Preview, Progress};
use super::wait::Outcome;
use crate::providers::{Attempt, Delivery, Failure, FailureKind, Prepared, Provider, Shown, StreamedRun, SubmitError};

impl Gateway {
    /// What came of it; `None` if the provider has proven not to have taken it in this way.
    pub(super) async fn run_streamed(
        &self,
        job: &Arc<Job>,
        provider: &Arc<dyn Provider>,
        prepared: &Prepared,
        attempt: Attempt,
    ) -> Option<Outcome> {
        match provider.stream(prepared, job.project_id, attempt, job.deadline_at.since(self.clock.now())).await {
            Ok(run) => {
                job.was_accepted(attempt.number);
                self.remember(job, attempt, &run.ticket).await;
                job.tell(Progress::Running);
                Some(self.watch(job, run).await)
            }
            Err(SubmitError::NotTaken(failure)) if may_be_queued(failure.kind) => {
                warn!(generation = %job.id, reason = failure.message, "the provider does not stream it now; going by the queue, without previews");
                None
            }
            Err(SubmitError::NotTaken(failure)) => Some(Outcome::Failed(*failure)),
            Err(SubmitError::Unclear(reason)) => Some(lost(job, &reason)),
        }
    }

    /// Shows each state of the images but the last one, which is what is delivered.
    async fn watch(&self, job: &Job, run: StreamedRun) -> Outcome {
        let (mut shown, mut last, mut number) = (run.shown, None::<Box<Delivery>>, 0);
        let deadline = tokio::time::sleep(job.deadline_at.since(self.clock.now()));
        tokio::pin!(deadline);
        loop {
            let event = tokio::select! {
                event = shown.next() => event,
                () = &mut deadline => {
                    error!(generation = %job.id, provider_request_id = run.ticket.request_id, "a stream was not finished by its deadline; it is left, and what the provider bills for it is not known");
                    let message = "it was not finished by its deadline, and a stream cannot be picked up later";
                    return Outcome::Expired(Failure::new(FailureKind::TimedOut, message));
                }
            };
            let before = match event {
                Some(Ok(Shown::Images(images))) => last.replace(images),
                Some(Ok(Shown::Nothing)) => None,
                Some(Ok(Shown::Failed(failure))) => return Outcome::Failed(*failure),
                Some(Err(reason)) => return lost(job, &reason),
                None => return last.map_or_else(|| lost(job, "it ended without an image"), Outcome::Delivered),
            };
            if let Some(delivery) = before {
                number += 1;
                job.tell(Progress::Preview(Arc::new(Preview { number, delivery: *delivery })));
            }
        }
    }
}

/// Whether the queue may take what the stream did not: it waits where the stream refuses, and it has other keys.
const fn may_be_queued(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::Overloaded | FailureKind::ModelGone | FailureKind::Account)
}

fn lost(job: &Job, reason: &str) -> Outcome {
    warn!(generation = %job.id, reason, "a stream broke off; it ends free, and what the provider bills for it is not known");
    let message = "its stream broke off before the images were complete, and cannot be picked up again";
    Outcome::Failed(Failure::new(FailureKind::Lost, message))
}
