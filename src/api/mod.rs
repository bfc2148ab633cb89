//! The public HTTP face: one file per resource.

pub mod access;
mod account;
mod account_keys;
mod account_usage;
mod answer;
mod assistants;
mod author;
mod billing;
mod bodies;
mod edit_form;
mod edit_inputs;
mod edit_json;
mod edits;
mod embedded;
pub mod errors;
pub mod fal_clients;
mod files;
mod foreign;
mod forms;
mod generations;
mod health;
mod hooks;
mod images;
mod input;
mod lag;
mod metrics;
mod model_reports;
mod models;
mod openai_facts;
mod openapi;
mod permission;
mod places;
mod quote;
mod rates;
mod stream;
mod texts;
mod transactions;
mod webhook_endpoints;
mod webhooks;
mod whole;

use std::sync::Arc;

use actix_web::web;
use arc_swap::ArcSwap;

use crate::accounts::Accounts;
use crate::catalogue::Catalogue;
use crate::config::HttpSettings;
use crate::domain::{Clock, IdSource};
use crate::gateway::{Eraser, Gateway};
use crate::http::Stopping;
use crate::meters::SharedMeters;
use crate::providers::Media;
use crate::webhooks::Webhooks;

pub use access::Endpoint;
use access::{endpoint, page};
pub use answer::{GenerationView, ImageAnswer, StateText, image_views};
pub use author::accounts_of;
pub use files::Files;
pub use generations::{GenerationList, state_filter, time_filter};
pub use images::{ImageRequest, idempotency_key};
pub use input::{QueryPairs, fixed_body, query};
pub use lag::state_lag;
pub use models::ModelTable;
pub use openapi::{docs_page, openapi_document, render_document};
pub use places::{fetch, public_base};
pub use texts::ListOrder;
pub use webhooks::Letters;
pub use whole::Whole;

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

/// The routes of the public API, the more particular ones first.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        endpoint!(images::create_image_generation),
        endpoint!(quote::quote_image_generation),
        endpoint!(edits::create_image_edit),
        endpoint!(generations::list_image_generations),
        endpoint!(generations::retrieve_image_generation),
        endpoint!(generations::cancel_image_generation),
        endpoint!(models::list_models),
        endpoint!(model_reports::list_model_deprecations),
        endpoint!(model_reports::retrieve_model_metrics),
        endpoint!(models::retrieve_model).at("/v1/models/{id:.+}"),
        endpoint!(billing::retrieve_billing_balance),
        endpoint!(billing::retrieve_billing),
        endpoint!(transactions::retrieve_billing_detail),
        endpoint!(transactions::list_billing_transactions),
        endpoint!(assistants::list_assistants),
        endpoint!(account::retrieve_key),
        endpoint!(account_keys::list_project_keys),
        endpoint!(account::retrieve_key_usage),
        endpoint!(account_usage::retrieve_key_usage_detail),
        endpoint!(account::list_key_logs),
        endpoint!(hooks::take_fal_webhook),
        endpoint!(files::retrieve_image_file),
        endpoint!(files::upload_file),
        endpoint!(files::list_files),
        endpoint!(files::retrieve_file),
        endpoint!(files::delete_file),
        endpoint!(webhooks::retrieve_webhook_secret),
        endpoint!(webhooks::rotate_webhook_secret),
        endpoint!(webhooks::list_webhook_deliveries),
        endpoint!(webhooks::retrieve_webhook_delivery),
        endpoint!(webhooks::redeliver_webhook),
        endpoint!(webhook_endpoints::list_webhook_endpoints),
        endpoint!(webhook_endpoints::enable_webhook_endpoint),
        endpoint!(health::check_liveness),
        endpoint!(health::check_readiness),
        endpoint!(openapi::retrieve_openapi_document),
    ]
}

/// The metrics, for whoever has an admin key.
pub fn metrics_endpoint() -> Endpoint {
    endpoint!(metrics::retrieve_metrics)
}

/// The metrics, for a scraper without a key: only where the admin API has an address of its own.
pub fn open_metrics_endpoint() -> Endpoint {
    page!(GET "/metrics" => metrics::scrape_metrics)
}
