//! One image request, steps 3 to 8 of `ARCHITECTURE.md`: check, price, reserve, translate, submit, await, settle.

use std::sync::Arc;

use tracing::{Instrument, info, info_span, warn};

use super::Gateway;
use super::attempt::ticket_of;
use super::generation::{Cancellation, Job, Progress};
use crate::catalogue::{Json, Order, PriceError, Quote, Rejection, Strictness, Terms};
use crate::domain::{ApiKeyId, GenerationId, ProjectId, RequestId, Timestamp};
use crate::ledger::{GenerationRecord, ReserveError, Webhook};
use crate::providers::Provider;

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
    /// Whom to call when it has ended.
    pub webhook: Option<Webhook>,
}

/// A checked and priced order; nothing is booked yet.
#[derive(Debug)]
pub struct Accepted {
    /// The order.
    pub order: Arc<Order>,
    /// The same for other models, tried in turn while the one before is unavailable.
    pub fallbacks: Vec<Arc<Order>>,
    /// The most it can cost, whichever of the models makes it.
    pub quote: Quote,
}

impl Accepted {
    /// The order and its fallbacks.
    pub fn orders(&self) -> impl Iterator<Item = &Arc<Order>> {
        std::iter::once(&self.order).chain(&self.fallbacks)
    }

    /// The order of one of the models; the first if none is of that model.
    #[must_use]
    pub fn order_of(&self, model: &str) -> &Arc<Order> {
        self.orders().find(|order| order.model.id == model).unwrap_or(&self.order)
    }
}

/// Why there is no job. Nothing was booked and nobody was called.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The catalogue refuses the wish.
    #[error("the request does not fit the model")]
    Rejected(Rejection),
    /// The wish does not fit a model that it names as a fallback.
    #[error("the request does not fit the fallback `{model}`")]
    FallbackRejected {
        /// The fallback.
        model: String,
        /// Why.
        rejection: Rejection,
    },
    /// The order cannot be priced.
    #[error("the order cannot be priced: {0}")]
    Price(#[from] PriceError),
    /// The model file names a provider that is not there.
    #[error("there is no provider `{0}`")]
    NoProvider(String),
    /// The id source has made the same id twice.
    #[error("the id of generation `{0}` is in use")]
    IdTaken(GenerationId),
}

impl Gateway {
    /// Steps 3 and 4: checks the wish against the catalogue, for the model and every fallback, and prices it. Calls
    /// nobody, books nothing.
    pub async fn accept(
        &self,
        project: ProjectId,
        wish: &Json<'_>,
        strictness: Strictness,
    ) -> Result<Accepted, GenerateError> {
        self.check(project, wish, strictness).instrument(info_span!("accept")).await
    }

    async fn check(
        &self,
        project: ProjectId,
        wish: &Json<'_>,
        strictness: Strictness,
    ) -> Result<Accepted, GenerateError> {
        let order = self.catalogue.load().order(wish, strictness).map_err(GenerateError::Rejected)?;
        let order = self.inspect(project, order).await.map_err(GenerateError::Rejected)?;
        let fallbacks = self.fallbacks(project, &order, wish, strictness).await?;
        let mut quote = order.terms(self.markup)?.quote()?;
        for fallback in &fallbacks {
            let other = fallback.terms(self.markup)?.quote()?;
            quote = if other.price > quote.price { other } else { quote };
        }
        Ok(Accepted { order: Arc::new(order), fallbacks, quote })
    }

    /// Steps 5 to 8, on a task of the gateway's own: a client that hangs up changes nothing in the books.
    pub fn generate(self: &Arc<Self>, accepted: &Accepted, request: &Request) -> Result<Arc<Job>, GenerateError> {
        let chain = self.chain(accepted)?;
        let reservation = self.reservation(accepted, &chain, request);
        let (id, created_at) = (reservation.id, reservation.created_at);
        let job = Job::new(id, request.project_id, created_at, reservation.deadline_at, reservation.model.clone());
        let claim = self.jobs.claim(&job).ok_or(GenerateError::IdTaken(id))?;
        let gateway = self.clone();
        let work = async move {
            let job = &claim.job;
            match gateway.books.reserve(reservation).instrument(info_span!("reserve")).await {
                Ok(reserved) => job.reserved(reserved),
                Err(refusal) => return gateway.refuse(job, &chain.first.terms, refusal).await,
            }
            let (terms, outcome) = gateway.try_in_turn(job, &chain).await;
            gateway.see_through(job, terms.clone(), outcome).await;
        };
        let step = info_span!("generation", generation = %id, model = job.model);
        self.tracker.spawn_on(work.instrument(step), &self.runtime);
        Ok(job)
    }

    /// The fallbacks that the request names must fit it; those of the model file are used where they do.
    async fn fallbacks(
        &self,
        project: ProjectId,
        order: &Order,
        wish: &Json<'_>,
        strictness: Strictness,
    ) -> Result<Vec<Arc<Order>>, GenerateError> {
        let catalogue = self.catalogue();
        let named = order.switches.fallbacks.as_ref();
        let mut fallbacks: Vec<Arc<Order>> = Vec::new();
        for model in named.unwrap_or(&order.model.fallbacks) {
            let ordered = match catalogue.order_from(model, wish, strictness) {
                Ok(fallback) => self.inspect(project, fallback).await,
                Err(rejection) => Err(rejection),
            };
            match ordered {
                Ok(mut fallback) => {
                    fallback.switches.answer_like(&order.switches);
                    let known = |id: &str| id == order.model.id || fallbacks.iter().any(|other| other.model.id == id);
                    if !known(&fallback.model.id) {
                        fallbacks.push(Arc::new(fallback));
                    }
                }
                Err(_) if named.is_none() => {}
                Err(rejection) => return Err(GenerateError::FallbackRejected { model: model.clone(), rejection }),
            }
        }
        Ok(fallbacks)
    }

    /// The orders in turn, each with whoever makes it.
    fn chain(&self, accepted: &Accepted) -> Result<Chain, GenerateError> {
        let choice = |order: &Arc<Order>| {
            let provider = self.provider(&order.model.provider)?;
            Ok(Choice { order: order.clone(), provider, terms: order.terms(self.markup)? })
        };
        let fallbacks = accepted.fallbacks.iter().map(choice).collect::<Result<_, GenerateError>>()?;
        Ok(Chain { first: choice(&accepted.order)?, fallbacks })
    }

    pub(super) fn provider(&self, name: &str) -> Result<Arc<dyn Provider>, GenerateError> {
        self.providers.get(name).cloned().ok_or_else(|| GenerateError::NoProvider(name.to_owned()))
    }

    /// There is no generation. Where the database's answer was lost there may be one all the same: it is ended.
    async fn refuse(&self, job: &Job, terms: &Terms, refusal: ReserveError) {
        let unknown = matches!(refusal, ReserveError::OutcomeUnknown(_));
        job.tell(Progress::Refused(Arc::new(refusal)));
        if unknown {
            self.withdraw(job, terms).await;
        }
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

impl Gateway {
    /// The owner wants a generation cancelled that another replica works on: the provider is asked here, and that replica
    /// sees what comes of it.
    pub async fn cancel_elsewhere(&self, record: &GenerationRecord) {
        let Some((provider, attempt)) = self.providers.get(&record.provider).zip(record.attempt.clone()) else {
            return;
        };
        match provider.cancel(&ticket_of(attempt)).await {
            Ok(answer) => {
                info!(generation = %record.id, ?answer, "the provider was asked for another replica to give it up");
            }
            Err(fault) => warn!(generation = %record.id, %fault, "the provider could not be asked to give it up"),
        }
    }
}

/// The models that may make the image, in the order they are asked.
pub(super) struct Chain {
    pub first: Choice,
    pub fallbacks: Vec<Choice>,
}

impl Chain {
    /// How each of them is charged.
    pub fn terms(&self) -> impl Iterator<Item = &Terms> {
        std::iter::once(&self.first).chain(&self.fallbacks).map(|choice| &choice.terms)
    }
}

/// One of the models that may make the image, who runs it, and how it is charged.
pub(super) struct Choice {
    pub order: Arc<Order>,
    pub provider: Arc<dyn Provider>,
    pub terms: Terms,
}
