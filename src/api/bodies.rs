//! The bodies of requests for images, which may have megabytes: what is certain to be refused is refused before they are read,
//! and they are read away from the threads that answer requests.

use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::{FromRequest, HttpRequest, web};

use super::Services;
use super::access::authenticate;
use super::errors::reserve_problem;
use super::images::{idempotency_key_of, resent};
use crate::accounts::{Caller, CallerKind};
use crate::http::{BodyMemory, Code, Problem};
use crate::ledger::ReserveError;

/// From this size on, in bytes, a body is large.
pub(super) const LARGE_BODY: usize = 64 * 1024;

/// The body of a request for images, read after [`admit`].
pub struct ImageBody(pub web::Bytes);

impl FromRequest for ImageBody {
    type Error = actix_web::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Self::Error>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, mut payload) = (request.clone(), payload.take());
        Box::pin(async move {
            if is_large(&request) {
                admit(&request, &authenticate(&request)?).await?;
            }
            Ok(Self(web::Bytes::from_request(&request, &mut payload).await?))
        })
    }
}

/// Errors if there is no memory for the body, or the caller's project can make nothing now, whatever the body says. To be called
/// before a large body is read.
pub(super) async fn admit(request: &HttpRequest, caller: &Caller) -> Result<(), Problem> {
    // First, so that no more of them ask the database at once than there is memory for.
    BodyMemory::reserve_for(request).map_err(|error| Problem::from_payload_error(&error))?;
    // A resend may be answered by what the first request made.
    if caller.join_retries || resent(request.headers()).is_some_and(|count| count > 0) {
        return Ok(());
    }
    let (Some(services), CallerKind::Project(project)) = (request.app_data::<web::Data<Services>>(), caller.kind)
    else {
        return Ok(());
    };
    let key = idempotency_key_of(caller, request.headers())?;
    let admitted =
        services.gateway.books().admit(project, caller.api_key_id, key.as_deref(), services.clock.now()).await;
    admitted.map_err(|refusal| match refusal {
        ReserveError::InsufficientCredit { available, .. } => {
            let message = format!("You've run out of credits: {available} USD are left.");
            let data = serde_json::json!({"kind": "err_insufficent_credits", "available_usd": available});
            Problem::new(Code::InsufficientCredits, message).data(data)
        }
        ReserveError::SpendLimitReached { limit, used, .. } => {
            let message = format!("{used} of this month's spend limit of {limit} USD are used");
            let data = serde_json::json!({"kind": "err_spend_limit_reached", "limit_usd": limit, "used_usd": used});
            Problem::new(Code::InsufficientCredits, message).data(data)
        }
        ReserveError::BudgetReached { budget, used, .. } => {
            let message = format!("{used} of this key's budget of {budget} USD are used");
            let data = serde_json::json!({"kind": "err_key_budget_reached", "limit_usd": budget, "used_usd": used});
            Problem::new(Code::InsufficientCredits, message).data(data)
        }
        other => reserve_problem(&other),
    })
}

/// Whether a request announces a large body, or does not say how large it is.
pub(super) fn is_large(request: &HttpRequest) -> bool {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    length.is_none_or(|length| length >= LARGE_BODY)
}
