//! The bodies of requests for images, which may have megabytes: what is certain to be refused is refused before they are read,
//! and they are read away from the threads that answer requests.

use std::fmt;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use bytes::BytesMut;
use futures_util::{StreamExt as _, stream};
use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};

use super::Services;
use super::access::authenticate;
use super::errors::reserve_problem;
use super::images::{idempotency_key_of, resent};
use crate::accounts::{Caller, CallerKind};
use crate::domain::ProjectId;
use crate::http::{BodyMemory, Code, Problem};
use crate::ledger::ReserveError;

/// From this size on, in bytes, a body is large.
pub(super) const LARGE_BODY: usize = 64 * 1024;
/// So many of the first bytes of a large JSON body are searched for its model.
const MODEL_WITHIN: usize = 4096;

/// The body of a request for images, read after [`admit`].
pub struct ImageBody(pub web::Bytes);

impl FromRequest for ImageBody {
    type Error = actix_web::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Self::Error>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, mut payload) = (request.clone(), payload.take());
        Box::pin(async move {
            if is_large(&request)
                && let Some(rates) = admit(&request, &authenticate(&request)?).await?
            {
                payload = rates.check_json(payload).await?;
            }
            Ok(Self(web::Bytes::from_request(&request, &mut payload).await?))
        })
    }
}

/// Whether a request announces a large body, or does not say how large it is.
fn is_large(request: &HttpRequest) -> bool {
    BodyMemory::announced(request).is_none_or(|length| length >= LARGE_BODY as u64)
}

/// Errors if a large body has no memory, or if the caller's project can make nothing now, whatever the body says. To be called
/// before the body is read. Returns what is to be looked at once its model is known; small bodies are read without a look.
pub(super) async fn admit_large(request: &HttpRequest, caller: &Caller) -> Result<Option<RateCheck>, Problem> {
    if is_large(request) { admit(request, caller).await } else { Ok(None) }
}

async fn admit(request: &HttpRequest, caller: &Caller) -> Result<Option<RateCheck>, Problem> {
    // First, so that no more of them ask the database at once than there is memory for.
    BodyMemory::reserve_for(request).map_err(|error| Problem::from_payload_error(&error))?;
    // A resend may be answered by what the first request made.
    if caller.join_retries || resent(request.headers()).is_some_and(|count| count > 0) {
        return Ok(None);
    }
    let (Some(services), CallerKind::Project(project)) = (request.app_data::<web::Data<Services>>(), caller.kind)
    else {
        return Ok(None);
    };
    let key = idempotency_key_of(caller, request.headers())?;
    let admitted =
        services.gateway.books().admit(project, caller.api_key_id, key.as_deref(), services.clock.now()).await;
    match admitted {
        Ok(has_rates) => Ok(has_rates.then(|| RateCheck { services: services.clone(), project })),
        Err(refusal) => Err(refusal_problem(&refusal)),
    }
}

fn refusal_problem(refusal: &ReserveError) -> Problem {
    match refusal {
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
        other => reserve_problem(other),
    }
}

/// The rate limits of a project, which belong to models: looked at as soon as a large body's model is known, while the rest of
/// it has not been read. Nothing is counted.
pub(super) struct RateCheck {
    services: web::Data<Services>,
    project: ProjectId,
}

impl RateCheck {
    /// Errors if the rate of the model with this id of ours is used up.
    pub(super) async fn check(&self, model: &str) -> Result<(), Problem> {
        let admitted = self.services.gateway.books().admit_model(self.project, model, self.services.clock.now()).await;
        admitted.map_err(|refusal| reserve_problem(&refusal))
    }

    /// As [`Self::check`], for a model as a body names it. What is wrong with an unknown one is said once all is read.
    pub(super) async fn check_named(&self, name: &str) -> Result<(), Problem> {
        let (catalogue, aliases) =
            (self.services.gateway.catalogue(), self.services.accounts.aliases(Some(self.project)));
        match catalogue.named(&aliases, name) {
            Some(model) => self.check(&model.id).await,
            None => Ok(()),
        }
    }

    /// As [`Self::check_named`], for a JSON body whose first bytes name its model. Returns the whole body.
    pub(super) async fn check_json(&self, mut body: Payload) -> Result<Payload, Problem> {
        let mut head = BytesMut::new();
        while head.len() < MODEL_WITHIN {
            let Some(piece) = body.next().await else { break };
            head.extend_from_slice(&piece.map_err(|error| Problem::from_payload_error(&error))?);
            if let Some(model) = model_in(&head) {
                self.check_named(&model).await?;
                break;
            }
        }
        let head = stream::iter([Ok(head.freeze())]);
        Ok(Payload::Stream { payload: Box::pin(head.chain(body)) })
    }
}

/// The `model` of a JSON object of which only the beginning is known.
fn model_in(beginning: &[u8]) -> Option<String> {
    let mut model = None;
    // Where it ends early, or is no JSON, there is an error; what was found before it stands.
    let _ = serde_json::Deserializer::from_slice(beginning).deserialize_map(ModelField(&mut model));
    model
}

struct ModelField<'a>(&'a mut Option<String>);

impl<'de> Visitor<'de> for ModelField<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(name) = fields.next_key::<String>()? {
            if name == "model" {
                *self.0 = Some(fields.next_value()?);
                return Ok(());
            }
            fields.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::model_in;

    #[test]
    fn a_model_is_found_in_the_beginning_of_a_body() {
        for body in [
            r#"{"model": "flux/dev", "image_url": "data:"#,
            r#" {"prompt": "\"model\": \"x\"", "loras": [{"model": "y"}], "mod\u0065l": "flux\/dev""#,
            r#"{"n": 1, "model":"flux/dev"}"#,
        ] {
            assert_eq!(model_in(body.as_bytes()).as_deref(), Some("flux/dev"), "{body}");
        }
        for body in [
            "",
            "[",
            r#"{"model": "flux/de"#,
            r#"{"model": 7, "model": "flux/dev"}"#,
            r#"{"image_url": "data:"#,
            r#"["model", "flux/dev"]"#,
            r#"{"a": {"model": "flux/dev"}"#,
        ] {
            assert_eq!(model_in(body.as_bytes()), None, "{body}");
        }
        assert_eq!(model_in("[".repeat(4096).as_bytes()), None);
    }
}
