//! One image request, steps 3 to 8 of `ARCHITECTURE.md`: check, price, reserve, translate, submit, await, settle.

use std::sync::Arc;

use bytes::Bytes;
use tracing::{Instrument, info, info_span, warn};

use super::Gateway;
use super::attempt::ticket_of;
use super::generation::{Cancellation, Job, Progress};
use super::inputs::{has_embedded_images, inspect};
use crate::catalogue::{self, Handling, Json, JsonError, Order, PriceError, Quote, Rejection, Terms};
use crate::domain::{ApiKeyId, GenerationId, MemoryShare, ProjectId, RequestId, Timestamp};
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

/// The order of a request and those of its fallbacks, not priced yet.
struct Candidates {
    order: Order,
    fallbacks: Vec<Order>,
    /// Whether the request names the fallbacks, not the model file.
    fallbacks_are_named: bool,
}

impl Candidates {
    fn have_embedded_images(&self) -> bool {
        std::iter::once(&self.order).chain(&self.fallbacks).any(has_embedded_images)
    }

    /// With all embedded images checked. It may take a while.
    fn inspected(mut self) -> Result<Self, GenerateError> {
        inspect(&self.order).map_err(GenerateError::Rejected)?;
        let mut fitting = Vec::with_capacity(self.fallbacks.len());
        for fallback in self.fallbacks {
            match inspect(&fallback) {
                Ok(()) => fitting.push(fallback),
                Err(_) if !self.fallbacks_are_named => {}
                Err(rejection) => {
                    return Err(GenerateError::FallbackRejected { model: fallback.model.id.clone(), rejection });
                }
            }
        }
        self.fallbacks = fitting;
        Ok(self)
    }
}

/// Why there is no job. Nothing was booked and nobody was called.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The body is no JSON.
    #[error(transparent)]
    NotJson(#[from] JsonError),
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
        handling: &Handling,
    ) -> Result<Accepted, GenerateError> {
        self.check(project, wish, handling).instrument(info_span!("accept")).await
    }

    async fn check(&self, project: ProjectId, wish: &Json<'_>, handling: &Handling) -> Result<Accepted, GenerateError> {
        let candidates = self.candidates(wish, handling)?;
        let candidates = if candidates.have_embedded_images() {
            self.inspecting(project, move || candidates.inspected()).await?
        } else {
            candidates
        };
        self.price(candidates)
    }

    /// As [`Self::accept`], for a body that is too large to be read by a thread that answers requests.
    pub async fn accept_large(
        self: &Arc<Self>,
        project: ProjectId,
        body: Bytes,
        handling: Handling,
    ) -> Result<Accepted, GenerateError> {
        let gateway = self.clone();
        self.read_large(project, move || gateway.accept_here(&catalogue::parse_request(&body)?, &handling)).await
    }

    /// Reads a large body by `read`, away from the threads that answer requests, and not more of them at once than there are
    /// processors. Projects take turns.
    pub async fn read_large<T: Send + 'static>(
        &self,
        project: ProjectId,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        self.inspecting(project, read).instrument(info_span!("accept")).await
    }

    /// As [`Self::accept`], on the thread of the caller, which must be one of [`Self::read_large`].
    pub fn accept_here(&self, wish: &Json<'_>, handling: &Handling) -> Result<Accepted, GenerateError> {
        self.price(self.candidates(wish, handling)?.inspected()?)
    }

    /// The order, and those of the fallbacks: those that the request names must fit it; those of the model file are used where
    /// they do.
    fn candidates(&self, wish: &Json<'_>, handling: &Handling) -> Result<Candidates, GenerateError> {
        let catalogue = self.catalogue();
        let order = catalogue.order(wish, handling).map_err(GenerateError::Rejected)?;
        let fallbacks_are_named = order.switches.fallbacks.is_some();
        let mut fallbacks: Vec<Order> = Vec::new();
        for model in order.switches.fallbacks.as_ref().unwrap_or(&order.model.fallbacks) {
            match catalogue.order_from(model, wish, handling) {
                Ok(mut fallback) => {
                    fallback.switches.answer_like(&order.switches);
                    let known = |id: &str| id == order.model.id || fallbacks.iter().any(|other| other.model.id == id);
                    if !known(&fallback.model.id) {
                        fallbacks.push(fallback);
                    }
                }
                Err(_) if !fallbacks_are_named => {}
                Err(rejection) => return Err(GenerateError::FallbackRejected { model: model.clone(), rejection }),
            }
        }
        Ok(Candidates { order, fallbacks, fallbacks_are_named })
    }

    fn price(&self, candidates: Candidates) -> Result<Accepted, GenerateError> {
        let Candidates { order, fallbacks, .. } = candidates;
        let mut quote = order.terms(self.markup)?.quote()?;
        for fallback in &fallbacks {
            let other = fallback.terms(self.markup)?.quote()?;
            quote = if other.price > quote.price { other } else { quote };
        }
        Ok(Accepted { order: Arc::new(order), fallbacks: fallbacks.into_iter().map(Arc::new).collect(), quote })
    }

    /// Steps 5 to 8, on a task of the gateway's own: a client that hangs up changes nothing in the books. `memory` is what the
    /// request's body takes; it is given back when the order is no longer needed.
    pub fn generate(
        self: &Arc<Self>,
        accepted: &Accepted,
        request: Request,
        memory: Option<MemoryShare>,
    ) -> Result<Arc<Job>, GenerateError> {
        let chain = self.chain(accepted)?;
        let (order, quote) = (&accepted.order, accepted.quote);
        let (id, created_at) = (GenerationId::from_uuid(self.ids.uuid()), self.clock.now());
        let deadline_at = self.deadline_of(&order.model, created_at);
        let job = Job::new(id, request.project_id, created_at, deadline_at, order.model.id.clone());
        job.holds(memory);
        let claim = self.jobs.claim(&job).ok_or(GenerateError::IdTaken(id))?;
        let gateway = self.clone();
        let work = async move {
            let job = &claim.job;
            let reservation = gateway.reservation(job, &chain, &quote, &request);
            match gateway.books.reserve(reservation).instrument(info_span!("reserve")).await {
                Ok(reserved) => job.reserved(reserved),
                Err(refusal) => return gateway.refuse(job, &chain.first.terms, refusal).await,
            }
            let (terms, outcome) = gateway.try_in_turn(job, &chain).await;
            gateway.see_through(job, terms.clone(), outcome).await;
            drop(chain);
            job.holds(None);
        };
        let step = info_span!("generation", generation = %id, model = job.model);
        self.tracker.spawn_on(work.instrument(step), &self.runtime);
        Ok(job)
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
