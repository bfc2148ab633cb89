//! fal's own clients, unchanged: their addresses, shapes and errors over our checks, books and limits.
//!
//! `@fal-ai/client` comes with `proxyUrl` set to `/fal/proxy` and names fal's address in `x-fal-target-url`, Python's
//! `fal-client` with its hosts set to `/fal/run` and `/fal/queue`. Addresses are read, never called: what they ask for is
//! made as any other generation, whose id is the request's.

mod output;
mod queue;
mod refusal;
mod routes;
mod run;
mod target;
mod upload;
mod wish;

use std::sync::Arc;

use actix_web::http::Method;
use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::access::{Endpoint, endpoint, permit};
use super::bodies::{LARGE_BODY, admit_large};
use super::images::{IDEMPOTENCY_KEPT, accept_body, idempotency_key_of};
use super::places::public_base;
use super::{Services, generations};
use crate::accounts::{Alias, Aliases, Caller, Scope};
use crate::catalogue::Model;
use crate::gateway::{Accepted, Job, Request};
use crate::http::{BodyMemory, Problem, RequestContext};
use crate::ledger::{GenerationRecord, Webhook};

use refusal::Refusal;
use target::{Target, Verb};

pub use routes::FalError;

/// The provider whose clients these are, as model files name it.
pub(super) const PROVIDER: &str = "fal";

/// The routes for fal's clients, the more particular ones first.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        endpoint!(routes::read_through_fal_proxy),
        endpoint!(routes::send_through_fal_proxy),
        endpoint!(routes::cancel_through_fal_proxy),
        endpoint!(routes::run_as_fal).at("/fal/run/{endpoint:.+}"),
        endpoint!(routes::cancel_as_fal).at("/fal/queue/{application:.+}/requests/{request_id}/cancel"),
        endpoint!(routes::read_as_fal).at("/fal/queue/{application:.+}/requests/{request_id:.+}"),
        endpoint!(routes::submit_as_fal).at("/fal/queue/{endpoint:.+}"),
    ]
}

/// Answers a method that a path of fal's clients does not have, in fal's shape.
pub fn fal_method_not_allowed(request: &HttpRequest, allowed: &str) -> HttpResponse {
    let message = format!("`{}` supports {allowed}, not {}", request.path(), request.method());
    let mut answer = Refusal::from(Problem::new(crate::http::Code::MethodNotAllowed, message)).answer(request);
    if let Ok(allowed) = HeaderValue::from_str(allowed) {
        answer.headers_mut().insert(ALLOW, allowed);
    }
    answer
}

/// How a failed generation is told in fal's shape: the status and the body that its result has.
pub(super) fn told_failure(finished: &crate::gateway::Finished) -> Option<(u16, Value)> {
    run::why_not(finished).map(Refusal::into_parts)
}

/// How a client waits for what it asks for.
#[derive(Debug, Clone, Copy)]
struct Client {
    /// Whether on its connection.
    waits: bool,
    /// Whether it may send the same again without a key.
    may_resend: bool,
}

/// One request of one of fal's clients.
#[derive(Clone)]
struct Visit {
    request: HttpRequest,
    services: web::Data<Services>,
    caller: Caller,
    context: RequestContext,
    /// What the queue's addresses begin with, as this client knows them.
    queue_base: String,
}

impl Visit {
    /// How the client reached us, for links to files.
    fn base(&self) -> String {
        public_base(&self.services, &self.request)
    }

    /// The model that this endpoint of fal's is sold as, or that the operator has given its name to.
    fn model_of(&self, endpoint: &str) -> Result<Arc<Model>, Refusal> {
        let catalogue = self.services.gateway.catalogue();
        if let Some(alias) = self.alias(endpoint)? {
            let model = catalogue.model(&alias.target).filter(|model| model.is_offered());
            return model.cloned().ok_or_else(|| Refusal::unknown_application(endpoint));
        }
        let model = catalogue.model_of_endpoint(PROVIDER, endpoint).filter(|model| model.is_offered());
        model.cloned().ok_or_else(|| Refusal::unknown_application(endpoint))
    }

    /// The operator's alias of this name.
    fn alias(&self, endpoint: &str) -> Result<Option<Arc<Alias>>, Refusal> {
        Ok(self.aliases()?.get(endpoint).cloned())
    }

    fn aliases(&self) -> Result<Aliases, Refusal> {
        Ok(self.services.accounts.aliases(Some(generations::project_of(&self.caller)?)))
    }

    /// The checked and priced order of a body in fal's words, for the model by its own id, or by the alias that it was called by;
    /// `extra` is put in beside what the client sent.
    async fn accept(
        &self,
        model: Arc<Model>,
        endpoint: &str,
        body: web::Bytes,
        extra: Vec<(&'static str, Value)>,
    ) -> Result<Accepted, Refusal> {
        let alias = self.alias(endpoint)?;
        // An alias that has the id of the endpoint's model is not what was called.
        let aliases = if alias.is_some() { self.aliases()? } else { Aliases::default() };
        let (endpoint, is_large) = (endpoint.to_owned(), body.len() >= LARGE_BODY);
        let read = move || {
            let called = alias.as_ref().map_or(&model.id, |alias| &alias.id);
            wish::wish(&model, called, &endpoint, &body, &extra)
        };
        let wish = if is_large {
            self.services.gateway.inspecting(generations::project_of(&self.caller)?, read).await?
        } else {
            read()?
        };
        Ok(accept_body(&self.request, &self.caller, wish.into(), aliases, &self.services).await?)
    }

    /// Begins to make it.
    fn generate(&self, accepted: &Accepted, client: Client, webhook: Option<Webhook>) -> Result<Arc<Job>, Refusal> {
        let key = idempotency_key_of(&self.caller, self.request.headers())?;
        let ask = Request {
            project_id: generations::project_of(&self.caller)?,
            api_key_id: self.caller.api_key_id,
            request_id: self.context.request_id,
            idempotency: key.map(|key| (key, self.services.clock.now().plus(IDEMPOTENCY_KEPT))),
            waits: client.waits,
            may_resend: client.may_resend,
            webhook,
        };
        let memory = BodyMemory::of(&self.request);
        self.services.gateway.generate(accepted, ask, memory).map_err(|fault| Problem::from(fault).into())
    }

    /// A generation of the caller's own project that was asked for at this application.
    async fn record(&self, application: &str, id: &str) -> Result<GenerationRecord, Refusal> {
        let record = match generations::own_generation(&self.services, &self.caller, id).await {
            Ok(record) => record,
            Err(problem) if problem.code() == crate::http::Code::NotFound => return Err(Refusal::unknown_request()),
            Err(problem) => return Err(problem.into()),
        };
        let is_called = |name: &str| target::application_of(name).eq_ignore_ascii_case(application);
        let same = record.provider == PROVIDER
            && (is_called(&record.endpoint) || record.requested_model.as_deref().is_some_and(is_called));
        if same { Ok(record) } else { Err(Refusal::unknown_request()) }
    }

    /// The body of a request for images that this endpoint makes.
    async fn image_body(&self, endpoint: &str, payload: web::Payload) -> Result<web::Bytes, Refusal> {
        if let Some(rates) = admit_large(&self.request, &self.caller).await? {
            rates.check(&self.model_of(endpoint)?.id).await?;
        }
        body(payload).await
    }

    /// Does what is asked for.
    async fn serve(&self, target: Target, query: &str, payload: web::Payload) -> Result<HttpResponse, Refusal> {
        if *self.request.method() != method_of(&target) {
            return Err(Refusal::wrong_method());
        }
        permit(self.caller.clone(), scopes_for(&target))?;
        match target {
            Target::Submit(endpoint) => {
                let body = self.image_body(&endpoint, payload).await?;
                queue::submit(self, &endpoint, query, body).await
            }
            Target::Run(endpoint) => run::run(self, &endpoint, self.image_body(&endpoint, payload).await?).await,
            Target::Stream(endpoint) => run::stream(self, &endpoint, self.image_body(&endpoint, payload).await?).await,
            Target::Upload => upload::announce(self, &body(payload).await?).await,
            Target::Request { application, id, verb } => {
                let record = self.record(&application, &id).await?;
                match verb {
                    Verb::Status => queue::status(self, &record, query).await,
                    Verb::StatusStream => Ok(queue::status_stream(self, record, query)),
                    Verb::Result => queue::result(self, &record).await,
                    Verb::Cancel => queue::cancel(self, &record).await,
                }
            }
        }
    }
}

async fn body(mut payload: web::Payload) -> Result<web::Bytes, Refusal> {
    let mut body = web::BytesMut::new();
    while let Some(piece) = payload.next().await {
        body.extend_from_slice(&piece.map_err(|error| Problem::from_payload_error(&error))?);
    }
    Ok(body.freeze())
}

fn method_of(target: &Target) -> Method {
    match target {
        Target::Request { verb: Verb::Cancel, .. } => Method::PUT,
        Target::Request { .. } => Method::GET,
        _ => Method::POST,
    }
}

/// The scopes of which a key needs one for what is asked for.
fn scopes_for(target: &Target) -> &'static [Scope] {
    match target {
        Target::Submit(_) | Target::Run(_) | Target::Stream(_) | Target::Request { verb: Verb::Cancel, .. } => {
            &[Scope::ImagesGenerate]
        }
        Target::Upload => &[Scope::Files],
        Target::Request { .. } => &[Scope::ImagesRead, Scope::ImagesGenerate],
    }
}

/// Whether a query's switch is on: fal's clients write `logs=1` and `logs=true`.
fn is_on(query: &str, name: &str) -> bool {
    one(query, name).is_some_and(|value| matches!(value.as_str(), "1" | "true"))
}

/// The first value of a name in a query.
fn one(query: &str, name: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes()).find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

/// A status in fal's shape.
fn links(queue_base: &str, endpoint: &str, id: &str) -> Value {
    let url = format!("{queue_base}/{}/requests/{id}", target::application_of(endpoint));
    json!({
        "status": "IN_QUEUE",
        "request_id": id,
        "response_url": url,
        "status_url": format!("{url}/status"),
        "cancel_url": format!("{url}/cancel"),
        "logs": null,
        "metrics": {},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_of_a_query_is_read_as_both_clients_write_it() {
        assert!(is_on("logs=1", "logs") && is_on("a=b&logs=true", "logs"));
        assert!(!is_on("logs=0", "logs") && !is_on("logs=false", "logs") && !is_on("", "logs"));
    }
}
