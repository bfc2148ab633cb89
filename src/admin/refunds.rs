//! `POST /admin/v1/generations/{id}/refunds`: gives back what a generation was charged, whole or in part.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;
use validator::Validate;

use super::shapes::accounts_of;
use crate::accounts::AuditEvent;
use crate::api::access::{AdminCaller, action};
use crate::api::errors::invalid_field;
use crate::api::{Services, fixed_body, idempotency_key};
use crate::domain::{GenerationId, Money};
use crate::http::{Code, Problem, ProblemBody};
use crate::ledger::{Applied, LedgerError, Refund};

/// What is given back of a generation, and why.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefundBody {
    /// US dollars as a decimal string, above zero and at most what the generation was charged, less earlier refunds.
    #[schema(value_type = String, example = "0.035")]
    amount_usd: Money,
    /// Why, for those who read the ledger later.
    #[validate(length(min = 1, max = 500, message = "has 1 to 500 characters"))]
    reason: String,
}

/// A booked refund.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GenerationRefund)]
pub struct RefundView {
    /// Of the ledger transaction.
    id: String,
    /// Always `image.generation.refund`.
    #[schema(example = "image.generation.refund")]
    object: &'static str,
    /// What it gives back the charge of.
    generation_id: String,
    /// The project that has the money.
    project_id: String,
    /// US dollars with nine places.
    amount_usd: String,
    /// Why.
    reason: String,
    /// The key that booked it.
    author: String,
    /// The project's balance after it, in US dollars.
    balance_usd: String,
}

/// Refund a generation
///
/// Books what is given back as a ledger transaction of its own, which names the generation; the charge stays as it was
/// booked. All refunds of a generation together are at most its charge. A generation whose month was dropped can be refunded too: the ledger has its
/// charge. With an `Idempotency-Key` a resend books nothing.
#[utoipa::path(
    post,
    path = "/admin/v1/generations/{id}/refunds",
    operation_id = "createGenerationRefund",
    tag = "admin",
    params(
        ("id" = String, Path, description = "The generation's id."),
        ("Idempotency-Key" = Option<String>, Header, description = "Same key: booked once, for ever."),
    ),
    request_body(content = RefundBody, content_type = "application/json"),
    responses(
        (status = 201, description = "It is booked.", body = RefundView),
        (status = 400, description = "The body is wrong, or it is more than was charged.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "A project key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such generation.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "The idempotency key was used with another amount.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn create_generation_refund(
    caller: AdminCaller<action::Bill>,
    request: HttpRequest,
    id: web::Path<String>,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let asked: RefundBody = fixed_body(&request, &body)?;
    if asked.amount_usd <= Money::ZERO {
        return Err(invalid_field("amount_usd", "must be above zero"));
    }
    let books = services.gateway.books();
    let not_found = || Problem::new(Code::NotFound, format!("there is no generation `{id}`")).param("id");
    let generation: GenerationId = id.parse().map_err(|_| not_found())?;
    let project_id = books.payer(generation).await?.ok_or_else(not_found)?;
    let id = match idempotency_key(request.headers())? {
        Some(key) => refund_id(generation, &key),
        None => services.ids.uuid(),
    };
    let audit = accounts_of(&request, &caller, &services).entry_of(
        AuditEvent::GenerationRefunded,
        project_id,
        generation.to_string(),
        &json!({"transaction_id": id, "amount_usd": asked.amount_usd, "reason": asked.reason}),
    );
    let refund = Refund {
        id,
        generation,
        amount: asked.amount_usd,
        reason: asked.reason,
        author: format!("{} ({})", caller.name, caller.api_key_id),
        at: services.clock.now(),
        audit: Some(audit),
    };
    let applied = match books.refund(&refund).await {
        Err(fault @ LedgerError::AboveCharge { .. }) => return Err(invalid_field("amount_usd", &fault.to_string())),
        other => other?,
    };
    let mut response = HttpResponse::Created();
    if applied == Applied::Already {
        response.insert_header(("idempotent-replayed", "true"));
    }
    let balance = books.balance(project_id, refund.at).await?;
    Ok(response.json(RefundView {
        id: refund.id.to_string(),
        object: "image.generation.refund",
        generation_id: generation.to_string(),
        project_id: project_id.to_string(),
        amount_usd: refund.amount.to_string(),
        reason: refund.reason,
        author: refund.author,
        balance_usd: balance.map_or(Money::ZERO, |balance| balance.posted).to_string(),
    }))
}

/// The id of a refund that is booked under a key: the same for the same key and generation.
fn refund_id(generation: GenerationId, key: &str) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(b"refund");
    hash.update(generation.uuid().as_bytes());
    hash.update(key.as_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
