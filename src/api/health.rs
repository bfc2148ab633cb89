//! `/healthz` and `/readyz`: whether the process lives, and whether it can serve.

use actix_web::{HttpResponse, get, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::Services;
use crate::http::ProblemBody;

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
    /// `ready`, or `unavailable` if requests cannot be recorded.
    #[schema(example = "ready")]
    status: &'static str,
    /// `ok` or `unavailable`.
    #[schema(example = "ok")]
    database: &'static str,
    /// How many models are on offer.
    models: usize,
    /// `fal`, or `sandbox`: the built-in stand-in draws pictures itself, because no key of fal is set.
    #[schema(example = "sandbox")]
    upstream: &'static str,
    /// Generations that this process is working on.
    open_generations: usize,
}

/// Is the process alive
#[utoipa::path(
    operation_id = "checkLiveness",
    tag = "health",
    responses(
        (status = 200, description = "It lives.", body = Liveness),
        (status = 405, description = "Another method than `GET`.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
#[get("/healthz")]
pub async fn check_liveness() -> HttpResponse {
    HttpResponse::Ok().json(Liveness { status: "ok" })
}

/// Can requests be served
#[utoipa::path(
    operation_id = "checkReadiness",
    tag = "health",
    responses(
        (status = 200, description = "Requests can be served.", body = Readiness),
        (status = 503, description = "Requests cannot be recorded, so they are refused.", body = Readiness),
        (status = 405, description = "Another method than `GET`.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
#[get("/readyz")]
pub async fn check_readiness(services: web::Data<Services>) -> HttpResponse {
    let database = services.gateway.books().healthy().await;
    let catalogue = services.gateway.catalogue();
    let models = catalogue.models().filter(|model| model.is_offered()).count();
    let ready = database && models > 0;
    let body = Readiness {
        status: if ready { "ready" } else { "unavailable" },
        database: if database { "ok" } else { "unavailable" },
        models,
        upstream: services.upstream.name(),
        open_generations: services.gateway.open_jobs(),
    };
    if ready { HttpResponse::Ok().json(body) } else { HttpResponse::ServiceUnavailable().json(body) }
}
