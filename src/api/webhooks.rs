//! `/v1/webhooks`: what signs a project's webhooks, the log of deliveries, and what is written in them.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::access::{ProjectCaller, scope};
use super::author::accounts_of;
use super::generations::project_of;
use super::{GenerationView, Services, fal_clients, query};
use crate::accounts::AuditEvent;
use crate::domain::{GenerationId, WebhookDeliveryId};
use crate::gateway::read_finished;
use crate::http::{Code, Problem, ProblemBody};
use crate::ledger::GenerationRecord;
use crate::webhooks::{
    Cursor, Letter, Webhook, WebhookAttempt, WebhookDelivery, WebhookError, WebhookForm, WebhookSecret, WebhookState,
};

impl From<WebhookError> for Problem {
    fn from(fault: WebhookError) -> Self {
        match fault {
            WebhookError::Unknown => Self::new(Code::NotFound, "this project has no such webhook delivery").param("id"),
            WebhookError::UnknownEndpoint => Self::new(Code::NotFound, fault.to_string()).param("host"),
            WebhookError::NoRandomness(fault) => {
                tracing::error!(%fault, "no secret can be made");
                Self::new(Code::InternalError, "no secret can be made")
            }
            WebhookError::Store(fault) => crate::ledger::LedgerError::from(fault).into(),
        }
    }
}

/// What signs a project's webhooks.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookSecret)]
pub struct SecretView {
    /// Always `webhook.secret`.
    #[schema(example = "webhook.secret")]
    object: &'static str,
    /// The secret, as Standard Webhooks' libraries take it.
    #[schema(example = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD1QYMC2FjAi0=")]
    secret: String,
    /// When it was made, in Unix seconds.
    created_at: i64,
    /// Until when the secret before it signs as well, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    previous_until: Option<i64>,
}

impl From<WebhookSecret> for SecretView {
    fn from(secret: WebhookSecret) -> Self {
        Self {
            object: "webhook.secret",
            secret: secret.expose(),
            created_at: secret.created_at().seconds(),
            previous_until: secret.previous_until().map(crate::domain::Timestamp::seconds),
        }
    }
}

/// A webhook, and what came of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookDelivery)]
pub struct DeliveryView {
    /// What `webhook-id` says, the same for every try.
    #[schema(example = "msg_019e1951c77871209c8216efcf40ec82")]
    id: String,
    /// Always `webhook.delivery`.
    #[schema(example = "webhook.delivery")]
    object: &'static str,
    /// The generation that it tells of.
    generation_id: String,
    /// Whom it calls.
    #[schema(example = "https://example.com/hook")]
    url: String,
    /// How it stands.
    #[schema(value_type = DeliveryStateText)]
    state: &'static str,
    /// How often it was tried.
    num_attempts: u32,
    /// When it was asked for, in Unix seconds.
    created_at: i64,
    /// When it is tried next, in Unix seconds; not before its generation has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_attempt_at: Option<i64>,
    /// When it was taken or given up, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    ended_at: Option<i64>,
    /// Every try, the first one first; where one delivery is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    attempts: Option<Vec<DeliveryAttemptView>>,
}

/// How a webhook stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WebhookDeliveryState)]
#[expect(dead_code, reason = "describes the words of `WebhookState` in the document")]
pub enum DeliveryStateText {
    /// Waits for its generation to end, or for its next try.
    Pending,
    /// Was answered with a 2xx.
    Delivered,
    /// Was given up.
    Failed,
}

/// One try of a webhook.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookDeliveryAttempt)]
pub struct DeliveryAttemptView {
    /// 1 for the first.
    #[schema(example = 1)]
    n: u32,
    /// When it began, in Unix seconds.
    started_at: i64,
    /// How long it took, in milliseconds.
    #[schema(example = 120)]
    duration_ms: u64,
    /// The status of the answer, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 500)]
    status: Option<u16>,
    /// Why it does not count as delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "answered 500 Internal Server Error")]
    error: Option<String>,
}

/// A page of webhooks, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookDeliveryList)]
pub struct DeliveryList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// The page.
    data: Vec<DeliveryView>,
    /// The first one's id.
    #[schema(required = true)]
    first_id: Option<String>,
    /// The last one's id; `after` takes it.
    #[schema(required = true)]
    last_id: Option<String>,
    /// Whether more follow.
    has_more: bool,
}

impl DeliveryView {
    fn of(delivery: &WebhookDelivery, attempts: Option<Vec<WebhookAttempt>>) -> Self {
        let seconds = |at: Option<crate::domain::Timestamp>| at.map(crate::domain::Timestamp::seconds);
        let attempt = |attempt: WebhookAttempt| DeliveryAttemptView {
            n: attempt.n,
            started_at: attempt.started_at.seconds(),
            duration_ms: u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
            status: attempt.status,
            error: attempt.error,
        };
        Self {
            id: delivery.webhook.id.to_string(),
            object: "webhook.delivery",
            generation_id: delivery.generation_id.to_string(),
            url: delivery.webhook.url.clone(),
            state: delivery.state.as_str(),
            num_attempts: delivery.attempts,
            created_at: delivery.created_at.seconds(),
            next_attempt_at: seconds(delivery.next_at),
            ended_at: seconds(delivery.ended_at),
            attempts: attempts.map(|attempts| attempts.into_iter().map(attempt).collect()),
        }
    }
}

/// Retrieve the webhook secret
///
/// What signs this project's webhooks, after Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`. Made when it is first
/// asked for.
#[utoipa::path(
    get,
    path = "/v1/webhooks/secret",
    operation_id = "retrieveWebhookSecret",
    tag = "webhooks",
    responses(
        (status = 200, description = "The secret.", body = SecretView),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn retrieve_webhook_secret(
    caller: ProjectCaller<scope::Webhooks>,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let project = project_of(&caller)?;
    let accounts = accounts_of(&request, &caller, &services);
    accounts.note(AuditEvent::WebhookSecretRead, Some(project), project.to_string(), &json!({})).await?;
    let secret = services.webhooks.secret(project).await?;
    Ok(HttpResponse::Ok().insert_header(("cache-control", "no-store")).json(SecretView::from(secret)))
}

/// Rotate the webhook secret
///
/// Makes a new secret. The one before signs as well for 24 hours, so that a receiver can change over.
#[utoipa::path(
    post,
    path = "/v1/webhooks/secret/rotate",
    operation_id = "rotateWebhookSecret",
    tag = "webhooks",
    responses(
        (status = 200, description = "The new secret.", body = SecretView),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn rotate_webhook_secret(
    caller: ProjectCaller<scope::Webhooks>,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let project = project_of(&caller)?;
    let accounts = accounts_of(&request, &caller, &services);
    let audit = accounts.entry_of(AuditEvent::WebhookSecretRotated, project, project.to_string(), &json!({}));
    let secret = services.webhooks.rotate_secret(project, &audit).await?;
    Ok(HttpResponse::Ok().insert_header(("cache-control", "no-store")).json(SecretView::from(secret)))
}

/// List webhooks
///
/// The project's webhooks, newest first, with what came of them. Ended ones are kept 30 days.
#[utoipa::path(
    get,
    path = "/v1/webhooks/deliveries",
    operation_id = "listWebhookDeliveries",
    tag = "webhooks",
    params(
        ("generation_id" = inline(Option<GenerationId>), Query, description = "Only those of this generation."),
        ("state" = Option<DeliveryStateText>, Query, description = "Only those that stand so."),
        ("limit" = Option<u32>, Query, description = "How many at most.", minimum = 1, maximum = 1000),
        ("after" = inline(Option<WebhookDeliveryId>), Query, description = "The page after this id."),
    ),
    responses(
        (status = 200, description = "The page.", body = DeliveryList),
        (status = 400, description = "A filter is wrong.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn list_webhook_deliveries(
    caller: ProjectCaller<scope::Webhooks>,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let pairs = query(&request, &["generation_id", "state", "limit", "after"])?;
    let generation: Option<GenerationId> = pairs.parsed("generation_id", "a generation's id")?;
    let state: Option<WebhookState> = pairs.parsed("state", "one of pending, delivered, failed")?;
    let after: Option<WebhookDeliveryId> = pairs.parsed("after", "a delivery's id")?;
    let limit = pairs.limit(20, 1000)?;
    let cursor = Cursor { after: after.map(WebhookDeliveryId::uuid), oldest_first: false, limit };
    let page = services.webhooks.list(project_of(&caller)?, generation, state, cursor).await?;
    let data: Vec<DeliveryView> = page.items.iter().map(|delivery| DeliveryView::of(delivery, None)).collect();
    let id = |view: Option<&DeliveryView>| view.map(|view| view.id.clone());
    let (first_id, last_id) = (id(data.first()), id(data.last()));
    Ok(HttpResponse::Ok().json(DeliveryList { object: "list", data, first_id, last_id, has_more: page.has_more }))
}

/// Retrieve a webhook
///
/// One webhook with every try of it.
#[utoipa::path(
    get,
    path = "/v1/webhooks/deliveries/{id}",
    operation_id = "retrieveWebhookDelivery",
    tag = "webhooks",
    params(("id" = String, Path, description = "The delivery's id, as `webhook-id` says it.")),
    responses(
        (status = 200, description = "The delivery.", body = DeliveryView),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "The project has no such delivery.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn retrieve_webhook_delivery(
    caller: ProjectCaller<scope::Webhooks>,
    id: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let id = id.parse().map_err(|_| WebhookError::Unknown)?;
    let (delivery, attempts) = services.webhooks.delivery(project_of(&caller)?, id).await?;
    Ok(HttpResponse::Ok().json(DeliveryView::of(&delivery, Some(attempts))))
}

/// Deliver a webhook again
///
/// Calls at once, and for a day if need be, whether the webhook was delivered, given up or waits.
#[utoipa::path(
    post,
    path = "/v1/webhooks/deliveries/{id}/redeliver",
    operation_id = "redeliverWebhook",
    tag = "webhooks",
    params(("id" = String, Path, description = "The delivery's id, as `webhook-id` says it.")),
    responses(
        (status = 202, description = "It is called soon.", body = DeliveryView),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "The project has no such delivery.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn redeliver_webhook(
    caller: ProjectCaller<scope::Webhooks>,
    id: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let id = id.parse().map_err(|_| WebhookError::Unknown)?;
    let project = project_of(&caller)?;
    services.webhooks.redeliver(project, id).await?;
    let (delivery, attempts) = services.webhooks.delivery(project, id).await?;
    Ok(HttpResponse::Accepted().json(DeliveryView::of(&delivery, Some(attempts))))
}

/// Writes the bodies of webhooks.
pub struct Letters(pub Arc<Services>);

#[async_trait::async_trait]
impl Letter for Letters {
    async fn write(&self, generation: GenerationId, webhook: &Webhook) -> Option<Value> {
        let record = self.0.gateway.books().generation(generation).await.ok()??;
        Some(match webhook.form {
            WebhookForm::Imagegate => event(&self.0, &webhook.base_url, &record),
            WebhookForm::Fal => fal_event(&self.0, &webhook.base_url, &record),
        })
    }
}

/// Standard Webhooks' form: `type`, `timestamp`, `data`.
fn event(services: &Services, base: &str, record: &GenerationRecord) -> Value {
    let settled_at = record.outcome.as_ref().map_or(record.created_at, |outcome| outcome.settled_at);
    json!({
        "type": format!("image.generation.{}", record.state),
        "timestamp": settled_at.rfc3339(),
        "data": GenerationView::for_project(services, base, record),
    })
}

/// fal's form, as its page on webhooks shows it (<https://docs.fal.ai/model-apis/model-endpoints/webhooks>).
fn fal_event(services: &Services, base: &str, record: &GenerationRecord) -> Value {
    let view = json!(GenerationView::for_project(services, base, record));
    let id = record.id.to_string();
    if let Some((status, payload)) = read_finished(record).ok().as_ref().and_then(fal_clients::told_failure) {
        let error = format!("Invalid status code: {status}");
        return json!({"request_id": id, "gateway_request_id": id, "status": "ERROR", "error": error, "payload": payload});
    }
    let names = ["images", "timings", "seed", "has_nsfw_concepts", "prompt", "description"];
    let fields = names.iter().filter_map(|name| Some(((*name).to_owned(), view.get(name)?.clone())));
    let payload: serde_json::Map<String, Value> = fields.collect();
    json!({"request_id": id, "gateway_request_id": id, "status": "OK", "payload": payload})
}
