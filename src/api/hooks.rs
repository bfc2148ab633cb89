//! `POST /fal/webhooks/{id}`: fal tells that a request has ended. Open to all, since the signature is the key.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::warn;
use utoipa::ToSchema;

use super::Services;
use super::access::Open;
use crate::domain::GenerationId;
use crate::gateway::CallError;
use crate::http::{Problem, ProblemBody};
use crate::providers::{HookCall, HookHint};

/// The call was taken.
#[derive(Debug, Serialize, ToSchema)]
pub struct Taken {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// fal's call about a request that has ended. Further fields are those of fal's page on webhooks.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the body in the document")]
pub struct FalCall {
    /// fal's id of the request.
    #[schema(nullable = false)]
    request_id: Option<String>,
    /// `OK` or `ERROR`.
    #[schema(nullable = false, example = "OK")]
    status: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// Take fal's call
///
/// fal calls this when a request has ended, where `IMAGEGATE_PUBLIC_URL` is set. The call must carry fal's signature
/// (ED25519 by a key of fal's JWKS, at most 300 seconds old) and counts once. It is never needed: what it tells is asked
/// for as well.
#[utoipa::path(
    post,
    path = "/fal/webhooks/{id}",
    operation_id = "takeFalWebhook",
    tag = "webhooks",
    request_body(content = FalCall, content_type = "application/json", description = "fal's payload, as its page on webhooks shows it."),
    params(
        ("id" = String, Path, description = "The generation's id."),
        ("attempt" = Option<u32>, Query, description = "Which of the generation's models it is about; the first if not said.", minimum = 1),
        ("key" = Option<String>, Query, description = "The label of the key that was used."),
        ("X-Fal-Webhook-Request-Id" = String, Header, description = "fal's id of the request."),
        ("X-Fal-Webhook-User-Id" = String, Header, description = "fal's id of the account."),
        ("X-Fal-Webhook-Timestamp" = String, Header, description = "When it was signed, in Unix seconds."),
        ("X-Fal-Webhook-Signature" = String, Header, description = "The signature, in hex."),
    ),
    responses(
        (status = 200, description = "It was taken.", body = Taken),
        (status = 403, description = "It is not signed by fal, too old, or about a request that is not ours.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such generation.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "The very same call came before.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "fal's keys or the books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn take_fal_webhook(
    _: Open,
    request: HttpRequest,
    id: web::Path<String>,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let id: GenerationId = id.parse().map_err(|_| CallError::UnknownGeneration)?;
    let text = |(name, value): (&actix_web::http::header::HeaderName, &actix_web::http::header::HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    let headers: BTreeMap<String, String> = request.headers().iter().filter_map(text).collect();
    let call = HookCall { headers, body, received_at: services.clock.now() };
    let mut hint = HookHint::default();
    for (name, value) in url::form_urlencoded::parse(request.query_string().as_bytes()) {
        match &*name {
            "attempt" => hint.attempt = value.parse().ok(),
            "key" => hint.credential = Some(value.into_owned()),
            _ => {}
        }
    }
    services.gateway.take_call("fal", id, &call, &hint).await.inspect_err(|fault| {
        warn!(generation = %id, %fault, "a call to fal's hook is not taken");
    })?;
    Ok(HttpResponse::Ok().json(Taken { status: "ok" }))
}
