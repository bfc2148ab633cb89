//! Steps 6 and 7: one model after the other until one makes the image or the request itself is at fault.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{Instrument, error, info, info_span, warn};

use super::Gateway;
use super::generate::{Chain, Choice};
use super::generation::{Cancellation, Job, Progress};
use super::wait::Outcome;
use crate::catalogue::Terms;
use crate::domain::{Fixed, GenerationId, Timestamp};
use crate::ledger::{AttemptRecord, LedgerError, Recorded, Submitted};
use crate::providers::{Attempt, Failure, FailureKind, Provider, SubmitError, Ticket};

/// How long a submit of which nobody knows whether the provider took it is waited for, where no webhook can come.
const UNCLEAR_WAIT: Duration = Duration::from_secs(30);
/// How often the books are asked whether the provider has called, which may have reached another replica.
const CALL_INTERVAL: Duration = Duration::from_millis(500);

/// How often the database is asked whether the provider has called another replica, while a submit is unanswered: seldom,
/// since the answer takes milliseconds otherwise.
const UNANSWERED_INTERVAL: Duration = Duration::from_secs(2);

impl Gateway {
    /// Tries each model in turn; the next one only when the provider has proven that this one made nothing and cannot.
    pub(super) async fn try_in_turn<'a>(&self, job: &Arc<Job>, chain: &'a Chain) -> (&'a Terms, Outcome) {
        let (mut choice, mut number, mut rest) = (&chain.first, 1, chain.fallbacks.iter());
        loop {
            let handed_over = Instant::now();
            let outcome = self.submit_and_follow(job, choice, Attempt { generation: job.id, number }).await;
            job.was_at_provider(handed_over.elapsed());
            let Some(next) = rest.next().filter(|_| self.may_go_on(job, &outcome)) else {
                return (&choice.terms, outcome);
            };
            if !self.may_submit(job, number + 1).await {
                return (&choice.terms, outcome);
            }
            let (model, fallback) = (&choice.order.model.id, &next.order.model.id);
            warn!(generation = %job.id, model, fallback, "the model is unavailable; trying the fallback");
            (choice, number) = (next, number + 1);
        }
    }

    /// Whether a fallback is tried: the model is unavailable, nothing was billed, and somebody still waits for it.
    fn may_go_on(&self, job: &Job, outcome: &Outcome) -> bool {
        let Outcome::Failed(failure) = outcome else { return false };
        failure.kind.is_unavailability()
            && failure.billable_units.is_none_or(|units| units == Fixed::ZERO)
            && job.cancellation() == Cancellation::Never
            && self.clock.now() < job.deadline_at
    }

    /// Whether the generation is still this process's to submit. One that was paused, or cut off from its database, asks
    /// the books first: another replica may have adopted the generation and ended it. An adopter never submits, so a first
    /// submit of an open generation stays with the replica that reserved it; a fallback belongs to whoever owns it.
    async fn may_submit(&self, job: &Job, number: u32) -> bool {
        if self.is_seen_alive() {
            return true;
        }
        match self.books.generation(job.id).await {
            Ok(Some(record)) => record.outcome.is_none() && (number == 1 || record.owner == self.replica),
            Ok(None) => false,
            Err(fault) => {
                warn!(generation = %job.id, %fault, "it is not known whether the generation is still open; it is not submitted");
                false
            }
        }
    }

    /// Translates, submits once, stores the provider's id, and waits for what becomes of it.
    async fn submit_and_follow(&self, job: &Arc<Job>, choice: &Choice, attempt: Attempt) -> Outcome {
        job.tell(Progress::Queued(None));
        if job.cancellation() > Cancellation::Never {
            return Outcome::Cancelled(Failure::new(FailureKind::Cancelled, "cancelled before it was submitted"));
        }
        if !self.may_submit(job, attempt.number).await {
            return Outcome::Failed(Failure::new(
                FailureKind::NotSubmitted,
                "this gateway was held up before it submitted",
            ));
        }
        let Choice { order, provider, .. } = choice;
        let prepared = provider.prepare(order);
        if order.wants_previews()
            && let Some(outcome) = Box::pin(self.run_streamed(job, provider, &prepared, attempt)).await
        {
            return outcome;
        }
        let step = info_span!("submit", otel.kind = "client", endpoint = prepared.endpoint, attempt = attempt.number);
        let start_within = job.deadline_at.since(self.clock.now());
        let submitted = tokio::select! {
            submitted = provider.submit(&prepared, job.project_id, attempt, start_within).instrument(step) => submitted,
            stored = self.called_before_its_answer(job, attempt.number, provider.calls_back()) => {
                info!(generation = %job.id, provider_request_id = stored.provider_request_id, "the provider has called before it answered the submit");
                job.was_stored(stored.n);
                return self.follow(job, provider, ticket_of(stored)).await;
            }
        };
        match submitted {
            Ok(ticket) => {
                // It may hold megabytes, and whoever waits needs it no more.
                drop(prepared);
                job.was_handed_over();
                job.was_accepted(attempt.number);
                self.remember(job, attempt, &ticket).await;
                self.look_and_follow(job, provider, ticket).instrument(info_span!("await")).await
            }
            Err(SubmitError::NotTaken(failure)) => Outcome::Failed(*failure),
            Err(SubmitError::Unclear(reason)) => {
                error!(generation = %job.id, reason, "it is unclear whether the provider took the request; it is not sent again");
                Box::pin(self.wait_for_call(job, provider, attempt.number)).await
            }
        }
    }

    /// Waits until the provider's call has stored the id of a submit that is still unanswered. A call that reaches another
    /// replica is found in the database.
    async fn called_before_its_answer(&self, job: &Job, number: u32, calls_back: bool) -> AttemptRecord {
        loop {
            tokio::select! {
                () = job.called.notified() => {}
                () = tokio::time::sleep(UNANSWERED_INTERVAL), if calls_back => {}
            }
            if let Ok(Some(stored)) = self.stored_attempt(job.id, number).await {
                return stored;
            }
        }
    }

    /// Stores the provider's id. Without it a crash would lose the picture, so it is tried until it is written; the
    /// provider works meanwhile and may be looked at, but its end is settled only after this.
    pub(super) async fn remember(&self, job: &Arc<Job>, attempt: Attempt, ticket: &Ticket) {
        let generation = attempt.generation;
        let submitted = Arc::new(submitted(attempt, ticket, self.clock.now()));
        match self.books.submitted(submitted.clone()).await {
            Ok(Recorded::Open) => job.was_stored(attempt.number),
            Ok(Recorded::Ended) => {
                warn!(%generation, provider_request_id = ticket.request_id, "the provider accepted a request whose generation had ended meanwhile; its cost is ours");
            }
            Err(LedgerError::Unavailable(reason)) => {
                warn!(%generation, reason, "the provider's id is not stored yet; following it in memory");
                let (books, tracker) = (self.books.clone(), &self.tracker);
                tracker.spawn_on(super::settle::persist(books, submitted, job.clone()), &self.runtime);
            }
            Err(fault) => {
                error!(%generation, %fault, provider_request_id = ticket.request_id, "the provider's id cannot be stored");
            }
        }
    }

    /// Nobody knows whether the provider took it: it is never sent again. Where the provider calls our hook, its call
    /// tells the id up to the deadline; else it ends after a short wait, free, and is reported. An id that the replica
    /// which submitted it brings late counts as well. Only the owner gives up: a replica that was taken for dead and is
    /// back may know that it has not submitted yet.
    pub(super) async fn wait_for_call(&self, job: &Arc<Job>, provider: &Arc<dyn Provider>, number: u32) -> Outcome {
        let without_calls = job.created_at.plus(UNCLEAR_WAIT).min(job.deadline_at);
        let until = if provider.calls_back() { job.deadline_at } else { without_calls };
        let given_up = || {
            let message = "it is not known whether the provider took the request, and nothing came of it";
            Outcome::Expired(Failure::new(FailureKind::Unclear, message))
        };
        loop {
            let called = job.called.notified();
            let left = until.since(self.clock.now());
            match self.books.generation(job.id).await {
                // Whatever this replica says of it now, the end that it has is told.
                Ok(Some(record)) if record.outcome.is_some() => return given_up(),
                Ok(Some(record)) => match record.attempt.filter(|attempt| attempt.n >= number) {
                    Some(stored) => {
                        info!(generation = %job.id, provider_request_id = stored.provider_request_id, "the provider's id is known now: it took the request");
                        job.was_stored(stored.n);
                        return self.follow(job, provider, ticket_of(stored)).await;
                    }
                    None if left.is_zero() && record.owner == self.replica => {
                        error!(generation = %job.id, "nothing came of a request that the provider may have taken; it ends free");
                        return given_up();
                    }
                    None => {}
                },
                Ok(None) => return given_up(),
                Err(fault) => {
                    warn!(generation = %job.id, %fault, "the books cannot be asked whether the provider has called");
                }
            }
            if self.clock.now() >= job.deadline_at {
                job.tell(Progress::Overdue);
            }
            tokio::select! {
                () = called => {}
                () = tokio::time::sleep(if left.is_zero() { CALL_INTERVAL } else { left.min(CALL_INTERVAL) }) => {}
            }
        }
    }

    /// What a call of the provider, or another replica, has stored for this attempt.
    async fn stored_attempt(&self, id: GenerationId, number: u32) -> Result<Option<AttemptRecord>, LedgerError> {
        let record = self.books.generation(id).await?;
        Ok(record.and_then(|record| record.attempt).filter(|attempt| attempt.n >= number))
    }
}

/// The books' line about a submit that the provider took.
pub(super) fn submitted(attempt: Attempt, ticket: &Ticket, at: Timestamp) -> Submitted {
    Submitted {
        generation: attempt.generation,
        attempt: attempt.number,
        endpoint: ticket.endpoint.clone(),
        credential: ticket.credential.clone(),
        provider_request_id: ticket.request_id.clone(),
        status_url: ticket.status_url.clone(),
        response_url: ticket.response_url.clone(),
        cancel_url: ticket.cancel_url.clone(),
        submitted_at: at,
    }
}

/// The ticket that the books hold.
pub(super) fn ticket_of(attempt: AttemptRecord) -> Ticket {
    Ticket {
        endpoint: attempt.endpoint,
        credential: attempt.credential,
        request_id: attempt.provider_request_id,
        status_url: attempt.status_url,
        response_url: attempt.response_url,
        cancel_url: attempt.cancel_url,
    }
}
