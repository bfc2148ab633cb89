//! `/healthz` and `/readyz`: whether the process lives, and whether it can serve.

use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::Services;
use super::access::{Open, is_operator};
use crate::http::{ProblemBody, Verbatim};
use crate::ledger::Outage;
use crate::providers::{BreakerHealth, Health, KeyHealth};

/// The process lives.
#[derive(Debug, Serialize, ToSchema)]
pub struct Liveness {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Whether requests can be served, and by what.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    /// `ready`, `degraded` if something at the provider, or the machine's clock, is amiss, `unavailable` if requests cannot be recorded, or
    /// `stopping` if the process was told to end.
    #[schema(example = "ready")]
    status: &'static str,
    /// `ok` or `unavailable`.
    #[schema(example = "ok")]
    database: &'static str,
    /// What keeps the database from being used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "the database's disk is full")]
    database_error: Option<&'static str>,
    /// `ok`, or `unavailable` if no model is on offer.
    #[schema(example = "ok")]
    catalogue: &'static str,
    /// How many models are on offer.
    models: usize,
    /// `fal`, or `sandbox`: the built-in stand-in draws pictures itself, because no key of fal is set.
    #[schema(example = "sandbox")]
    upstream: &'static str,
    /// `ok`, or `off` if the machine's clock differs from the database's, which is used instead, by more than two seconds.
    #[schema(example = "ok")]
    clock: &'static str,
    /// By how many seconds the machine's clock is behind the database's, below zero ahead; only for operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    clock_behind_seconds: Option<f64>,
    /// Generations that this process is working on; only for operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    open_generations: Option<usize>,
    /// Generations of this process that the provider billed otherwise than the catalogue computes; only for operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    cost_drifts: Option<u64>,
    /// How well each provider is.
    providers: Vec<ProviderView>,
}

/// How well a provider is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProviderReadiness)]
pub struct ProviderView {
    /// Its name.
    #[schema(example = "fal")]
    name: String,
    /// `ok` or `degraded`.
    #[schema(example = "ok")]
    status: &'static str,
    /// Whether it answers; false after several calls in a row without an answer.
    reachable: bool,
    /// Our keys there, in the order of the setting; only for operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    keys: Option<Vec<KeyView>>,
    /// Models of the provider that failed again and again and are left alone for a while; only for operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    resting_endpoints: Option<Vec<RestingEndpoint>>,
}

/// How one of our keys at a provider is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProviderKeyReadiness)]
pub struct KeyView {
    /// Its place in `FAL_KEY`, counted from 1.
    #[schema(example = 1)]
    number: usize,
    /// `ready`, `full` (its limit of open requests is reached), `busy` (told to wait) or `refused`.
    #[schema(example = "ready")]
    state: &'static str,
    /// Requests that it has open.
    open: usize,
    /// Most that it may have open, if there is a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    limit: Option<usize>,
    /// Endpoints that it was refused for.
    refused_for: Vec<String>,
}

/// An endpoint that is left alone.
#[derive(Debug, Serialize, ToSchema)]
pub struct RestingEndpoint {
    /// The provider's endpoint.
    #[schema(example = "fal-ai/flux/dev")]
    endpoint: String,
    /// Seconds until it is tried again.
    retry_in_seconds: u64,
}

impl ProviderView {
    fn new(name: &str, health: Health, is_operator: bool) -> Self {
        let status = if health.is_degraded() { "degraded" } else { "ok" };
        let key = |(index, key): (usize, KeyHealth)| KeyView {
            number: index + 1,
            state: key.state.as_str(),
            open: key.open,
            limit: key.limit,
            refused_for: key.refused_for,
        };
        let resting = |breaker: BreakerHealth| RestingEndpoint {
            endpoint: breaker.endpoint,
            retry_in_seconds: breaker.closes_in.as_secs() + 1,
        };
        Self {
            name: name.to_owned(),
            status,
            reachable: !health.unreachable,
            keys: is_operator.then(|| health.keys.into_iter().enumerate().map(key).collect()),
            resting_endpoints: is_operator.then(|| health.open_breakers.into_iter().map(resting).collect()),
        }
    }
}

/// Is the process alive
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "checkLiveness",
    tag = "health",
    responses(
        (status = 200, description = "It lives.", body = Liveness),
        (status = 405, description = "Another method than `GET`.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn check_liveness(_: Open) -> HttpResponse {
    HttpResponse::Ok().json(Liveness { status: "ok" })
}

/// Can requests be served
///
/// Details of this process are shown to an admin key, and where the admin API has an address of its own there.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "checkReadiness",
    tag = "health",
    responses(
        (status = 200, description = "Requests can be served.", body = Readiness),
        (status = 503, description = "Requests cannot be recorded, so they are refused; or the process is about to stop.", body = Readiness),
        (status = 405, description = "Another method than `GET`.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn check_readiness(_: Open, request: HttpRequest, services: web::Data<Services>) -> HttpResponse {
    let is_operator = is_operator(&request);
    // Also what is not ready is told by name, and not as an error.
    request.extensions_mut().insert(Verbatim);
    let outage = services.gateway.books().outage().await;
    let catalogue = services.gateway.catalogue();
    let models = catalogue.models().filter(|model| model.is_offered()).count();
    let stopping = services.stopping.is_stopping();
    let ready = outage.is_none() && models > 0 && !stopping;
    let providers: Vec<ProviderView> =
        services.gateway.health().map(|(name, health)| ProviderView::new(name, health, is_operator)).collect();
    let skew = services.gateway.clock_skew();
    let degraded = providers.iter().any(|provider| provider.status != "ok") || skew.is_too_large();
    let body = Readiness {
        status: match (ready, degraded) {
            (false, _) if stopping => "stopping",
            (false, _) => "unavailable",
            (true, true) => "degraded",
            (true, false) => "ready",
        },
        database: if outage.is_none() { "ok" } else { "unavailable" },
        database_error: outage.map(Outage::as_str),
        catalogue: if models > 0 { "ok" } else { "unavailable" },
        models,
        upstream: services.upstream.name(),
        clock: if skew.is_too_large() { "off" } else { "ok" },
        clock_behind_seconds: is_operator.then(|| skew.seconds()),
        open_generations: is_operator.then(|| services.gateway.open_jobs()),
        cost_drifts: is_operator.then(|| services.gateway.cost_drifts()),
        providers,
    };
    if ready { HttpResponse::Ok().json(body) } else { HttpResponse::ServiceUnavailable().json(body) }
}
