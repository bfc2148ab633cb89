//! `/v1/webhooks/endpoints`: receivers of a project's webhooks that fail, and those that are disabled for it.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::Services;
use super::access::{ProjectCaller, scope};
use super::generations::project_of;
use super::input::query;
use crate::http::{Problem, ProblemBody};
use crate::webhooks::WebhookEndpoint;

/// A receiver of webhooks whose latest call failed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookEndpoint)]
pub struct EndpointView {
    /// Always `webhook.endpoint`.
    #[schema(example = "webhook.endpoint")]
    object: &'static str,
    /// Host and port.
    #[schema(example = "example.com:443")]
    host: String,
    /// Whether it is disabled.
    #[schema(value_type = EndpointStateText)]
    state: &'static str,
    /// How many calls failed in a row.
    num_failures: u64,
    /// Why the latest one failed.
    #[schema(example = "operation timed out")]
    last_error: String,
    /// When the latest one failed, in Unix seconds.
    last_failed_at: i64,
    /// Since when it is disabled, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    disabled_at: Option<i64>,
    /// When one call is tried while it is disabled, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_attempt_at: Option<i64>,
}

/// The state of a receiver.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WebhookEndpointState)]
#[expect(dead_code, reason = "describes the words of `EndpointView::state` in the document")]
pub enum EndpointStateText {
    /// Its latest call failed; it is called as usual.
    Failing,
    /// It failed again and again: its calls wait, and one is tried now and then.
    Disabled,
}

/// Receivers that fail.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookEndpointList)]
pub struct EndpointList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// All of them, by name.
    data: Vec<EndpointView>,
}

impl From<WebhookEndpoint> for EndpointView {
    fn from(endpoint: WebhookEndpoint) -> Self {
        Self {
            object: "webhook.endpoint",
            host: endpoint.host,
            state: if endpoint.disabled.is_some() { "disabled" } else { "failing" },
            num_failures: endpoint.failures,
            last_error: endpoint.last_error,
            last_failed_at: endpoint.failed_at.seconds(),
            disabled_at: endpoint.disabled.map(|(since, _)| since.seconds()),
            next_attempt_at: endpoint.disabled.map(|(_, probe)| probe.seconds()),
        }
    }
}

/// List failing webhook endpoints
///
/// Hosts whose latest call failed: it was not answered, or with a 5xx. After five failures in a row the endpoint is disabled: its
/// webhooks wait, and one is tried after 30 seconds, then more and more seldom, at least once an hour. An answer enables it again.
#[utoipa::path(
    get,
    path = "/v1/webhooks/endpoints",
    operation_id = "listWebhookEndpoints",
    tag = "webhooks",
    responses(
        (status = 200, description = "The endpoints; none if all answer.", body = EndpointList),
        (status = 400, description = "A filter is wrong.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "Missing or invalid API key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The database is unavailable.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn list_webhook_endpoints(
    caller: ProjectCaller<scope::Webhooks>,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    query(&request, &[])?;
    let endpoints = services.webhooks.endpoints(project_of(&caller)?).await?;
    let data = endpoints.into_iter().map(EndpointView::from).collect();
    Ok(HttpResponse::Ok().json(EndpointList { object: "list", data }))
}

/// Enable a webhook endpoint
///
/// Makes the webhooks that wait for a disabled endpoint, as when it has been repaired.
#[utoipa::path(
    post,
    path = "/v1/webhooks/endpoints/{host}/enable",
    operation_id = "enableWebhookEndpoint",
    tag = "webhooks",
    params(("host" = String, Path, description = "Host and port, as the list says them.")),
    responses(
        (status = 204, description = "It is called as usual."),
        (status = 401, description = "Missing or invalid API key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No webhook of the project to this endpoint has failed.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The database is unavailable.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn enable_webhook_endpoint(
    caller: ProjectCaller<scope::Webhooks>,
    host: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    services.webhooks.enable_endpoint(project_of(&caller)?, &host).await?;
    Ok(HttpResponse::NoContent().finish())
}
