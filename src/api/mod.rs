//! The public HTTP face: one file per resource.

pub mod access;
mod account;
mod answer;
mod assistants;
mod author;
mod billing;
mod edits;
pub mod errors;
pub mod fal_clients;
mod files;
mod forms;
mod generations;
mod health;
mod hooks;
mod images;
mod input;
mod metrics;
mod models;
mod openapi;
mod permission;
mod places;
mod quote;
mod rates;
mod stream;
mod webhooks;

use std::sync::Arc;

use actix_web::web;
use arc_swap::ArcSwap;
use utoipa_actix_web::service_config::ServiceConfig;

use crate::accounts::Accounts;
use crate::catalogue::Catalogue;
use crate::config::HttpSettings;
use crate::domain::{Clock, IdSource};
use crate::gateway::{Eraser, Gateway};
use crate::http::Stopping;
use crate::meters::SharedMeters;
use crate::providers::Media;
use crate::webhooks::Webhooks;

pub use answer::{GenerationView, ImageAnswer, image_views};
pub use author::accounts_of;
pub use files::Files;
pub use generations::{GenerationList, state_filter, time_filter};
pub use images::{ImageRequest, idempotency_key};
pub use input::{QueryPairs, fixed_body, query};
pub use models::ModelTable;
pub use openapi::{docs_page, openapi_document, render_document};
pub use places::fetch;
pub use webhooks::Letters;

/// What every handler may use.
pub struct Services {
    /// Takes the requests.
    pub gateway: Arc<Gateway>,
    /// Knows the keys.
    pub accounts: Accounts,
    /// Erases content on request.
    pub eraser: Eraser,
    /// Calls customers.
    pub webhooks: Webhooks,
    /// Fetches delivered images.
    pub media: Media,
    /// What is counted and timed.
    pub meters: SharedMeters,
    /// Whether the process is about to stop.
    pub stopping: Stopping,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Where delivered images are kept, if they are.
    pub files: Option<Files>,
    /// Makes ids.
    pub ids: Arc<dyn IdSource>,
    /// How the gateway is reached.
    pub http: HttpSettings,
    /// Who makes the images: `fal`, or `sandbox` for the built-in stand-in.
    pub upstream: Upstream,
    /// What the catalogue's readers are shown.
    pub published: ArcSwap<Published>,
}

/// A catalogue as its readers are shown it; replaced as one when the model files change.
pub struct Published {
    /// The catalogue itself.
    pub catalogue: Arc<Catalogue>,
    /// `GET /v1/models`.
    pub models: ModelTable,
    /// `GET /openapi.json`.
    pub document: web::Bytes,
}

/// Who makes the images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// fal, or what the operator put in its place.
    Fal,
    /// The built-in stand-in, with its own address: its files are shown under ours.
    Sandbox(String),
}

impl Upstream {
    /// The word for it in headers and in `/readyz`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Fal => "fal",
            Self::Sandbox(_) => "sandbox",
        }
    }
}

/// The routes whose parameters may hold slashes, as they are written beside their handlers. In the document they stand
/// without `:.+`.
pub const ROUTES_WITH_SLASHES: [&str; 5] = [
    "/v1/models/{id:.+}",
    "/fal/run/{endpoint:.+}",
    "/fal/queue/{endpoint:.+}",
    "/fal/queue/{application:.+}/requests/{request_id:.+}",
    "/fal/queue/{application:.+}/requests/{request_id}/cancel",
];

/// The routes of the public face.
pub fn routes(config: &mut ServiceConfig) {
    config
        .service(images::create_image_generation)
        .service(quote::quote_image_generation)
        .service(edits::create_image_edit)
        .service(generations::list_image_generations)
        .service(generations::retrieve_image_generation)
        .service(generations::cancel_image_generation)
        .service(models::list_models)
        .service(models::retrieve_model)
        .service(billing::retrieve_billing_balance)
        .service(billing::retrieve_billing)
        .service(assistants::list_assistants)
        .service(account::retrieve_key)
        .service(account::retrieve_key_usage)
        .service(account::list_key_logs)
        .service(hooks::take_fal_webhook)
        .service(fal_clients::read_through_fal_proxy)
        .service(fal_clients::send_through_fal_proxy)
        .service(fal_clients::cancel_through_fal_proxy)
        .service(fal_clients::run_as_fal)
        .service(fal_clients::submit_as_fal)
        .service(fal_clients::read_as_fal)
        .service(fal_clients::cancel_as_fal)
        .service(files::retrieve_image_file)
        .service(files::upload_file)
        .service(files::list_files)
        .service(files::retrieve_file)
        .service(files::delete_file)
        .service(webhooks::retrieve_webhook_secret)
        .service(webhooks::rotate_webhook_secret)
        .service(webhooks::list_webhook_deliveries)
        .service(webhooks::retrieve_webhook_delivery)
        .service(webhooks::redeliver_webhook)
        .service(health::check_liveness)
        .service(health::check_readiness)
        .service(metrics::retrieve_metrics)
        .service(openapi::retrieve_openapi_document);
}
