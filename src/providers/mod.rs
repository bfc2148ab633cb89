//! The seam to whoever makes the images: a trait, a neutral outcome and a neutral error. `fal` is behind it.

mod bill;
mod erase;
pub mod fal;
mod health;
mod hook;
mod media;
mod metered;
mod outcome;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::catalogue::Order;
use crate::domain::{GenerationId, ProjectId};

pub use bill::{Bill, BillingError, BillingEvent, Bills, OddLine};
pub use erase::{Erase, EraseError, Erasers};
pub use fal::UPLOADED_ABOVE;
pub use health::{BreakerHealth, Health, KeyHealth, KeyState};
pub use hook::{HookCall, HookError, HookHint};
pub use media::{Media, MediaError, with_memory};
pub use metered::Metered;
pub use outcome::{
    Delivery, Failure, FailureKind, FileWish, Image, InputProblem, LogLine, Look, LookError, Shown, Standing,
    StreamedRun, SubmitError, UploadPlace,
};

/// A request in the provider's own words, ready to be sent.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The provider's name for the model, such as `fal-ai/flux/dev`.
    pub endpoint: String,
    /// The body, in the provider's names and types.
    pub body: Map<String, Value>,
}

/// What the provider gave for a request that it took: enough to ask for it again, from any replica, after any restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The endpoint that was called.
    pub endpoint: String,
    /// Which of our credentials was used: its label, never the secret.
    pub credential: String,
    /// The provider's id for the request.
    pub request_id: String,
    /// Where its state is told.
    pub status_url: String,
    /// Where its result is.
    pub response_url: String,
    /// Where it is cancelled.
    pub cancel_url: String,
}

/// What a provider's answer to a cancellation says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelAnswer {
    /// The provider took the wish; what becomes of the request is told by its state.
    Accepted,
    /// Too late: it has finished.
    AlreadyFinished,
    /// The provider does not know the request.
    Unknown,
}

/// Which submit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// The generation that it is for.
    pub generation: GenerationId,
    /// 1 for the first model, 2 for the first fallback, and so on.
    pub number: u32,
}

/// Whoever makes the images.
///
/// More methods than the three of the plan: the translation stands alone because a quote shows it without calling
/// anybody, what the provider tells by itself (its hook) comes another way than what it is asked for, and a run that
/// shows previews knows neither queue nor ticket.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Translates an order into the provider's words. Pure.
    fn prepare(&self, order: &Order) -> Prepared;

    /// Hands the request over, once. `start_within` is how long it may wait before it starts.
    async fn submit(
        &self,
        prepared: &Prepared,
        project: ProjectId,
        attempt: Attempt,
        start_within: Duration,
    ) -> Result<Ticket, SubmitError>;

    /// Runs the request at once and shows the images as they come to be. What is lost on the way cannot be fetched again.
    async fn stream(
        &self,
        prepared: &Prepared,
        project: ProjectId,
        attempt: Attempt,
        within: Duration,
    ) -> Result<StreamedRun, SubmitError>;

    /// Looks once what has become of the request; reads are safe to repeat.
    async fn look(&self, ticket: &Ticket) -> Result<Look, LookError>;

    /// How the request stands, with what its runner has written; decides nothing.
    async fn standing(&self, ticket: &Ticket) -> Result<Standing, LookError>;

    /// A place to upload an input file to, which the caller fills by itself.
    async fn announce_upload(&self, file: &FileWish) -> Result<UploadPlace, Box<Failure>>;

    /// Uploads an input file; the address to give to a model.
    async fn upload(&self, file: &FileWish, bytes: Bytes) -> Result<String, Box<Failure>>;

    /// Asks the provider to give the request up.
    async fn cancel(&self, ticket: &Ticket) -> Result<CancelAnswer, LookError>;

    /// Whether the provider calls us when a request has ended, so that one whose id was lost can still be found.
    fn calls_back(&self) -> bool;

    /// Checks that a call to our hook is the provider's own, not old and not a repetition, and gives the provider's id of
    /// the request that it is about.
    async fn read_hook(&self, call: &HookCall) -> Result<String, HookError>;

    /// The ticket of a request that only its id is known of.
    fn ticket(&self, endpoint: &str, request_id: &str, hint: &HookHint) -> Ticket;

    /// How well the provider is, as far as it shows.
    fn health(&self) -> Health;
}

/// The providers by the name that model files use.
pub type Providers = BTreeMap<String, Arc<dyn Provider>>;
