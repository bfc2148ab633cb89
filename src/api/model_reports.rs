//! `GET /v1/models/deprecations`, `GET /v1/models/metrics`: what ends, and how long images take, in AIML's shapes.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::access::{Open, ProjectCaller, scope};
use super::errors::invalid_field;
use super::generations::project_of;
use super::{Services, query};
use crate::catalogue::{Model, Status};
use crate::domain::Timestamp;
use crate::http::{Problem, ProblemBody};

/// The stretch of time that is measured.
const WINDOW: Duration = Duration::from_hours(1);
/// The most generations that are measured, the latest ones.
const MOST_MEASURED: u32 = 10_000;
/// The most models that one request may name.
const MOST_NAMES: usize = 100;

/// Models that end or have ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelDeprecations {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// Now, as RFC 3339 in UTC.
    generated_at: String,
    /// The models, by id.
    data: Vec<ModelDeprecation>,
}

/// A model that ends or has ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelDeprecation {
    /// The model's id.
    #[schema(example = "flux-pro")]
    id: String,
    /// Other ids that mean the same model.
    aliases: Vec<String>,
    /// `deprecated`: still offered, its provider may take it away. `withdrawn`: no more.
    #[schema(example = "deprecated")]
    status: &'static str,
    /// Always null: the catalogue keeps no dates.
    deprecated_at: Option<String>,
    /// Always null: the catalogue keeps no dates.
    shutdown_at: Option<String>,
    /// The model to use instead; null where the catalogue names none.
    replaced_by: Option<String>,
    /// Always null: the catalogue keeps no reasons.
    reason: Option<String>,
}

/// List deprecated models
///
/// Models that will be or were withdrawn, with what to use instead. Open to all.
#[utoipa::path(
    get,
    path = "/v1/models/deprecations",
    operation_id = "listModelDeprecations",
    tag = "models",
    responses((status = 200, description = "The models; empty if none ends.", body = ModelDeprecations)),
)]
pub async fn list_model_deprecations(_: Open, services: web::Data<Services>) -> HttpResponse {
    let published = services.published.load();
    let view = |model: &Model, status: &'static str| ModelDeprecation {
        id: model.id.clone(),
        aliases: model.aliases.clone(),
        status,
        deprecated_at: None,
        shutdown_at: None,
        replaced_by: model.replaced_by.clone(),
        reason: None,
    };
    let mut data: Vec<ModelDeprecation> = published
        .catalogue
        .models()
        .filter_map(|model| match model.status {
            Status::Deprecated => Some(view(model, "deprecated")),
            Status::Withdrawn => Some(view(model, "withdrawn")),
            Status::Offered | Status::Unpriced => None,
        })
        .collect();
    data.sort_by(|a, b| a.id.cmp(&b.id));
    let generated_at = services.clock.now().rfc3339();
    HttpResponse::Ok().json(ModelDeprecations { object: "list", generated_at, data })
}

/// How long a project's images took.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelMetrics {
    /// How many seconds back the measurements go.
    #[schema(example = 3600)]
    window_seconds: u64,
    /// When they were computed, as RFC 3339 in UTC.
    generated_at: String,
    /// One entry for each model with a successful request in the window.
    models: Vec<ModelMetric>,
}

/// How long a model's images took.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelMetric {
    /// The model's id.
    #[schema(example = "flux/dev")]
    alias: String,
    /// Always `/v1/images/generations`.
    #[schema(example = "/v1/images/generations")]
    endpoint: &'static str,
    /// What was measured.
    metrics: ModelMeasures,
}

/// What was measured.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelMeasures {
    /// From the reservation to the settlement of a request, the wait at the provider included.
    duration_ms: Percentiles,
}

/// Percentiles in milliseconds.
#[derive(Debug, Serialize, ToSchema)]
pub struct Percentiles {
    /// Half took no longer.
    #[schema(example = 1830.0)]
    p50: f64,
    /// Three quarters took no longer.
    p75: f64,
    /// Nine tenths took no longer.
    p90: f64,
    /// All but one in a hundred took no longer.
    p99: f64,
}

impl Percentiles {
    /// Of at least one duration in microseconds, in ascending order.
    fn of(sorted: &[i64]) -> Self {
        let nearest = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).clamp(1, sorted.len().max(1));
            let micros = sorted.get(rank - 1).copied().unwrap_or_default();
            Duration::from_micros(u64::try_from(micros).unwrap_or(0)).as_secs_f64() * 1000.0
        };
        Self { p50: nearest(50), p75: nearest(75), p90: nearest(90), p99: nearest(99) }
    }
}

/// Retrieve how long images take
///
/// Percentiles of the last hour's successful requests of the key's project, at most the latest 10,000. Models without one
/// are not listed. Token metrics, which AIML has for texts, do not apply.
#[utoipa::path(
    get,
    path = "/v1/models/metrics",
    operation_id = "retrieveModelMetrics",
    tag = "models",
    params(("aliases" = Option<Vec<String>>, Query, description = "Only these models, by id or another name; at most 100.", max_items = 100)),
    responses(
        (status = 200, description = "The measurements.", body = ModelMetrics),
        (status = 400, description = "A filter is wrong.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn retrieve_model_metrics(
    caller: ProjectCaller<scope::ReadUsage>,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let names = query(&request, &["aliases"])?.list("aliases");
    if names.len() > MOST_NAMES {
        return Err(invalid_field("aliases", "can be given at most 100 times"));
    }
    let catalogue = services.gateway.catalogue();
    let wanted: Vec<&str> =
        names.iter().map(|name| catalogue.model(name).map_or(name.as_str(), |model| model.id.as_str())).collect();
    let now = services.clock.now();
    let window = i64::try_from(WINDOW.as_micros()).unwrap_or(i64::MAX);
    let from = Timestamp::from_micros(now.micros().saturating_sub(window));
    let rows = services.gateway.books().durations(project_of(&caller)?, from, MOST_MEASURED).await?;
    let mut by_model: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (model, took) in rows {
        if wanted.is_empty() || wanted.contains(&model.as_str()) {
            by_model.entry(model).or_default().push(took);
        }
    }
    let view = |(alias, mut took): (String, Vec<i64>)| {
        took.sort_unstable();
        let metrics = ModelMeasures { duration_ms: Percentiles::of(&took) };
        ModelMetric { alias, endpoint: "/v1/images/generations", metrics }
    };
    Ok(HttpResponse::Ok().json(ModelMetrics {
        window_seconds: WINDOW.as_secs(),
        generated_at: now.rfc3339(),
        models: by_model.into_iter().map(view).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_least_that_so_many_do_not_exceed() {
        let hundred: Vec<i64> = (1..=100).map(|ms| ms * 1000).collect();
        let of = |percentiles: Percentiles| [percentiles.p50, percentiles.p75, percentiles.p90, percentiles.p99];
        let near = |found: [f64; 4], expected: [f64; 4]| {
            found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6)
        };
        assert!(near(of(Percentiles::of(&hundred)), [50.0, 75.0, 90.0, 99.0]));
        assert!(near(of(Percentiles::of(&[2000])), [2.0; 4]));
        assert!(near(of(Percentiles::of(&[1000, 3000])), [1.0, 3.0, 3.0, 3.0]));
    }
}
