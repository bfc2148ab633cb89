//! A provider whose calls are counted and timed, by endpoint, operation and outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Attempt, CancelAnswer, Failure, FailureKind, FileWish, Health, HookCall, HookError, HookHint, Look, LookError,
    Prepared, Provider, Standing, StreamedRun, SubmitError, Ticket, UploadPlace,
};
use crate::catalogue::Order;
use crate::domain::ProjectId;
use crate::meters::SharedMeters;

/// After how many calls in a row without an answer the provider counts as out of reach.
const UNREACHABLE_AFTER: u32 = 3;

/// Another provider, measured.
pub struct Metered {
    provider: Arc<dyn Provider>,
    meters: SharedMeters,
    /// Calls in a row that got no answer.
    unanswered: AtomicU32,
}

impl Metered {
    /// Measures `provider`.
    #[must_use]
    pub const fn new(provider: Arc<dyn Provider>, meters: SharedMeters) -> Self {
        Self { provider, meters, unanswered: AtomicU32::new(0) }
    }

    fn called(&self, endpoint: &str, operation: &'static str, outcome: &'static str, took: Duration) {
        self.meters.provider_called(endpoint, operation, outcome, took);
        if matches!(outcome, "unreachable" | "overloaded" | "unclear") {
            self.unanswered.fetch_add(1, Ordering::Relaxed);
        } else {
            self.unanswered.store(0, Ordering::Relaxed);
        }
    }
}

#[async_trait]
impl Provider for Metered {
    fn prepare(&self, order: &Order) -> Prepared {
        self.provider.prepare(order)
    }

    async fn submit(
        &self,
        prepared: &Prepared,
        project: ProjectId,
        attempt: Attempt,
        start_within: Duration,
    ) -> Result<Ticket, SubmitError> {
        let started = Instant::now();
        let answer = self.provider.submit(prepared, project, attempt, start_within).await;
        let outcome = answer.as_ref().map_or_else(submit_outcome, |_| "taken");
        self.called(&prepared.endpoint, "submit", outcome, started.elapsed());
        answer
    }

    async fn stream(
        &self,
        prepared: &Prepared,
        project: ProjectId,
        attempt: Attempt,
        within: Duration,
    ) -> Result<StreamedRun, SubmitError> {
        let started = Instant::now();
        let answer = self.provider.stream(prepared, project, attempt, within).await;
        let outcome = answer.as_ref().map_or_else(submit_outcome, |_| "taken");
        self.called(&prepared.endpoint, "stream", outcome, started.elapsed());
        answer
    }

    async fn look(&self, ticket: &Ticket) -> Result<Look, LookError> {
        let started = Instant::now();
        let answer = self.provider.look(ticket).await;
        let outcome = match &answer {
            Ok(Look::Queued(_)) => "queued",
            Ok(Look::Running) => "running",
            Ok(Look::Done(_)) => "delivered",
            Ok(Look::Failed(failure)) => failure_outcome(failure),
            Err(fault) => look_fault(fault),
        };
        self.called(&ticket.endpoint, "look", outcome, started.elapsed());
        answer
    }

    async fn standing(&self, ticket: &Ticket) -> Result<Standing, LookError> {
        let started = Instant::now();
        let answer = self.provider.standing(ticket).await;
        let outcome = answer.as_ref().map_or_else(look_fault, |_| "told");
        self.meters.provider_called(&ticket.endpoint, "standing", outcome, started.elapsed());
        answer
    }

    async fn announce_upload(&self, wish: &FileWish) -> Result<UploadPlace, Box<Failure>> {
        let started = Instant::now();
        let answer = self.provider.announce_upload(wish).await;
        let outcome = answer.as_ref().map_or_else(|failure| failure_outcome(failure), |_| "told");
        self.meters.provider_called("storage", "upload", outcome, started.elapsed());
        answer
    }

    async fn upload(&self, file: &FileWish, bytes: Bytes) -> Result<String, Box<Failure>> {
        let started = Instant::now();
        let answer = self.provider.upload(file, bytes).await;
        let outcome = answer.as_ref().map_or_else(|failure| failure_outcome(failure), |_| "taken");
        self.meters.provider_called("storage", "upload", outcome, started.elapsed());
        answer
    }

    async fn cancel(&self, ticket: &Ticket) -> Result<CancelAnswer, LookError> {
        let started = Instant::now();
        let answer = self.provider.cancel(ticket).await;
        let outcome = match &answer {
            Ok(CancelAnswer::Accepted) => "accepted",
            Ok(CancelAnswer::AlreadyFinished) => "already_finished",
            Ok(CancelAnswer::Unknown) => "unknown",
            Err(fault) => look_fault(fault),
        };
        self.called(&ticket.endpoint, "cancel", outcome, started.elapsed());
        answer
    }

    fn calls_back(&self) -> bool {
        self.provider.calls_back()
    }

    async fn read_hook(&self, call: &HookCall) -> Result<String, HookError> {
        self.provider.read_hook(call).await
    }

    fn ticket(&self, endpoint: &str, request_id: &str, hint: &HookHint) -> Ticket {
        self.provider.ticket(endpoint, request_id, hint)
    }

    fn health(&self) -> Health {
        let unreachable = self.unanswered.load(Ordering::Relaxed) >= UNREACHABLE_AFTER;
        Health { unreachable, ..self.provider.health() }
    }
}

fn submit_outcome(fault: &SubmitError) -> &'static str {
    match fault {
        SubmitError::NotTaken(failure) => failure_outcome(failure),
        SubmitError::Unclear(_) => "unclear",
    }
}

const fn look_fault(fault: &LookError) -> &'static str {
    match fault {
        LookError::Transient(_) => "unreachable",
        LookError::ResultFault(..) => "result_fault",
        LookError::Unknown => "unknown",
        LookError::NotUnderstood(_) => "not_understood",
    }
}

const fn failure_outcome(failure: &Failure) -> &'static str {
    match failure.kind {
        FailureKind::InvalidInput => "invalid_input",
        FailureKind::ContentPolicy => "content_policy",
        FailureKind::InputUnreadable => "input_unreadable",
        FailureKind::Account => "account",
        FailureKind::ModelGone => "model_gone",
        FailureKind::Overloaded => "overloaded",
        FailureKind::Run => "run_failed",
        FailureKind::NoImages => "no_images",
        FailureKind::Cancelled => "cancelled",
        FailureKind::TimedOut => "timed_out",
        FailureKind::Lost => "lost",
        FailureKind::Unclear => "unclear",
        FailureKind::NotSubmitted => "not_submitted",
    }
}
