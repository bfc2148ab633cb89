//! One image request, steps 3 to 8 of `ARCHITECTURE.md`: check, price, reserve, translate, submit, await, settle.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, warn};

use super::Gateway;
use super::generation::{Cancellation, Job, Progress};
use super::wait::Outcome;
use crate::catalogue::{Json, Order, PriceError, Quote, Rejection, Strictness};
use crate::domain::{ApiKeyId, GenerationId, ProjectId, RequestId, Timestamp};
use crate::ledger::{Idempotency, LedgerError, Reservation, ReserveError, Submitted};
use crate::providers::{Failure, FailureKind, Provider, SubmitError, Ticket};

/// How long a submit of which nobody knows whether the provider took it is waited for, where no webhook can come.
const UNCLEAR_WAIT: Duration = Duration::from_secs(30);

/// Who asks, and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// The project that pays.
    pub project_id: ProjectId,
    /// The key that was used.
    pub api_key_id: ApiKeyId,
    /// The HTTP request.
    pub request_id: RequestId,
    /// `Idempotency-Key`, and until when it counts.
    pub idempotency: Option<(String, Timestamp)>,
    /// Whether the client waits for the answer on its connection.
    pub waits: bool,
    /// Whether the client sends a request again that got no answer, without a key.
    pub may_resend: bool,
}

/// A checked and priced order; nothing is booked yet.
#[derive(Debug)]
pub struct Accepted {
    /// The order.
    pub order: Arc<Order>,
    /// The most it can cost.
    pub quote: Quote,
}

/// Why there is no job. Nothing was booked and nobody was called.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The catalogue refuses the wish.
    #[error("the request does not fit the model")]
    Rejected(Rejection),
    /// The order cannot be priced.
    #[error("the order cannot be priced: {0}")]
    Price(#[from] PriceError),
    /// The model file names a provider that is not there.
    #[error("there is no provider `{0}`")]
    NoProvider(String),
}

/// Replaces data URIs, at any depth, by a word: they may have megabytes.
fn leave_out_data(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) if text.starts_with("data:") => "data:,left-out".clone_into(text),
        serde_json::Value::Array(items) => items.iter_mut().for_each(leave_out_data),
        serde_json::Value::Object(fields) => fields.values_mut().for_each(leave_out_data),
        _ => {}
    }
}

impl Gateway {
    /// Steps 3 and 4: checks the wish against the catalogue and prices it. Calls nobody, books nothing.
    pub fn accept(&self, wish: &Json<'_>, strictness: Strictness) -> Result<Accepted, GenerateError> {
        let order = self.catalogue.load().order(wish, strictness).map_err(GenerateError::Rejected)?;
        let quote = order.quote(self.markup)?;
        Ok(Accepted { order: Arc::new(order), quote })
    }

    /// Steps 5 to 8, on a task of the gateway's own: a client that hangs up changes nothing in the books.
    pub fn generate(self: &Arc<Self>, accepted: Accepted, request: &Request) -> Result<Arc<Job>, GenerateError> {
        let Accepted { order, quote } = accepted;
        let provider = self.provider(&order.model.provider)?;
        let reservation = self.reservation(&order, &quote, request);
        let (id, created_at) = (reservation.id, reservation.created_at);
        let job = Job::new(id, request.project_id, created_at, reservation.deadline_at, order.model.id.clone());
        self.jobs.insert(job.clone());
        let (gateway, watched) = (self.clone(), job.clone());
        let work = async move {
            match gateway.books.reserve(reservation).await {
                Ok(reserved) => watched.reserved(reserved),
                Err(refusal) => return gateway.refuse(&watched, refusal),
            }
            let outcome = gateway.submit_and_follow(&watched, &order, provider).await;
            gateway.settle(&watched, order.as_ref(), outcome).await;
        };
        self.tracker.spawn_on(work, &self.runtime);
        Ok(job)
    }

    /// Steps 6 and 7: translate, submit once, store the provider's id, and wait for what becomes of it.
    async fn submit_and_follow(&self, job: &Arc<Job>, order: &Order, provider: Arc<dyn Provider>) -> Outcome {
        job.tell(Progress::Queued(None));
        if job.cancellation() > Cancellation::Never {
            return Outcome::Cancelled(Failure::new(FailureKind::Cancelled, "cancelled before it was submitted"));
        }
        let prepared = provider.prepare(order);
        match provider.submit(&prepared, job.id, job.deadline_at.since(self.clock.now())).await {
            Ok(ticket) => {
                self.remember(job.id, &ticket).await;
                self.waiter.follow(job.clone(), provider, ticket).await
            }
            Err(SubmitError::NotTaken(failure)) => Outcome::Failed(*failure),
            Err(SubmitError::Unclear(reason)) => self.wait_for_unclear(job, &reason).await,
        }
    }

    /// Stores the provider's id. Without it a crash would lose the picture, so it is tried until it is written; the
    /// provider works meanwhile.
    async fn remember(&self, generation: GenerationId, ticket: &Ticket) {
        let submitted = Submitted {
            generation,
            attempt: 1,
            owner: self.replica,
            endpoint: ticket.endpoint.clone(),
            credential: ticket.credential.clone(),
            provider_request_id: ticket.request_id.clone(),
            status_url: ticket.status_url.clone(),
            response_url: ticket.response_url.clone(),
            cancel_url: ticket.cancel_url.clone(),
            submitted_at: self.clock.now(),
        };
        match self.books.submitted(submitted.clone()).await {
            Ok(()) => {}
            Err(LedgerError::Unavailable(reason)) => {
                warn!(%generation, reason, "the provider's id is not stored yet; following it in memory");
                let (books, tracker) = (self.books.clone(), &self.tracker);
                tracker.spawn_on(super::settle::persist(books, submitted), &self.runtime);
            }
            Err(fault) => {
                error!(%generation, %fault, provider_request_id = ticket.request_id, "the provider's id cannot be stored");
            }
        }
    }

    /// Nobody knows whether the provider took it: it is never sent again. Without a webhook nothing can tell us its id,
    /// so it ends after a short wait, free, and is reported.
    async fn wait_for_unclear(&self, job: &Job, reason: &str) -> Outcome {
        error!(generation = %job.id, reason, "it is unclear whether the provider took the request; it is not sent again");
        let until = job.created_at.plus(UNCLEAR_WAIT).min(job.deadline_at);
        tokio::time::sleep(until.since(self.clock.now())).await;
        let message = "it is not known whether the provider took the request, and nothing came of it";
        Outcome::Expired(Failure::new(FailureKind::Unclear, message))
    }

    pub(super) fn provider(&self, name: &str) -> Result<Arc<dyn Provider>, GenerateError> {
        self.providers.get(name).cloned().ok_or_else(|| GenerateError::NoProvider(name.to_owned()))
    }

    /// What is written before the provider hears of the request.
    fn reservation(&self, order: &Order, quote: &Quote, request: &Request) -> Reservation {
        let created_at = self.clock.now();
        let deadline = order.model.deadline.unwrap_or(self.deadline);
        let mut parameters = order.normalized();
        // Prompts are kept only where a project's data retention says so, and embedded images not at all.
        for (parameter, _) in order.parameters().filter(|(parameter, _)| parameter.is_prompt()) {
            parameters.remove(parameter.name.as_ref());
        }
        parameters.values_mut().for_each(leave_out_data);
        Reservation {
            id: GenerationId::from_uuid(self.ids.uuid()),
            project_id: request.project_id,
            api_key_id: request.api_key_id,
            created_at,
            deadline_at: created_at.plus(deadline),
            model: order.model.id.clone(),
            provider: order.model.provider.clone(),
            endpoint: order.model.endpoint.clone(),
            num_images: order.count(),
            size: order.size().map(|size| size.to_string()),
            parameters: serde_json::Value::Object(parameters).to_string(),
            // Kept only where the project's data retention says so, and as long.
            prompt: order.prompt().map(str::to_owned),
            user: order.switches.user.clone(),
            request_id: request.request_id,
            source: "image.generation".to_owned(),
            hold: quote.price,
            owner: self.replica,
            cancel_if_client_leaves: request.waits && request.idempotency.is_none(),
            idempotency: request.idempotency.as_ref().map(|(key, expires_at)| Idempotency {
                key: key.clone(),
                digest: order.digest(),
                expires_at: *expires_at,
            }),
            resend_digest: request.may_resend.then(|| order.digest()),
        }
    }

    fn refuse(&self, job: &Job, refusal: ReserveError) {
        self.jobs.remove(job.id);
        job.tell(Progress::Refused(Arc::new(refusal)));
    }

    /// The job of this process for a generation, while it is open.
    #[must_use]
    pub fn job(&self, id: GenerationId) -> Option<Arc<Job>> {
        self.jobs.get(id)
    }

    /// The client hung up: cancelled if it still waits at the provider, else it runs on.
    pub fn client_left(&self, job: &Job) {
        if job.is_queued() {
            job.wish_cancellation(Cancellation::WhileQueued);
            self.waiter.poke(job.id);
        }
    }

    /// The owner wants it cancelled: tried also while it runs.
    pub fn cancel(&self, job: &Job) {
        job.wish_cancellation(Cancellation::Always);
        self.waiter.poke(job.id);
    }
}
