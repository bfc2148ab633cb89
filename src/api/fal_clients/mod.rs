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
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::images::{IDEMPOTENCY_KEPT, accept, idempotency_key};
use super::places::public_base;
use super::{Services, generations};
use crate::accounts::Caller;
use crate::catalogue::{self, Model};
use crate::gateway::{Accepted, Job, Request};
use crate::http::{Problem, RequestContext};
use crate::ledger::{GenerationRecord, Webhook};

use refusal::Refusal;
use target::{Target, Verb};

pub use routes::{
    FalError, cancel_as_fal, cancel_through_fal_proxy, read_as_fal, read_through_fal_proxy, run_as_fal,
    send_through_fal_proxy, submit_as_fal,
};

/// The provider whose clients these are, as model files name it.
pub(super) const PROVIDER: &str = "fal";
/// What fal's clients ask for, below the gateway's own address.
const OURS: [&str; 3] = ["/fal/proxy", "/fal/run/", "/fal/queue/"];

/// Whether a path is one for fal's clients, which send their key with another scheme and read errors in fal's shapes.
#[must_use]
pub fn is_for_fals_clients(path: &str) -> bool {
    OURS.iter().any(|ours| path == *ours || (ours.ends_with('/') && path.starts_with(ours)))
}

/// A problem as fal would tell it.
#[must_use]
pub fn refuse_in_fals_words(request: &HttpRequest, problem: Problem) -> HttpResponse {
    Refusal::from(problem).answer(request)
}

/// How a failed generation is told in fal's shape: the status and the body that its result has.
pub(super) fn told_failure(finished: &crate::gateway::Finished) -> Option<(u16, Value)> {
    run::why_not(finished).map(Refusal::into_parts)
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

    /// The model that this endpoint of fal's is sold as.
    fn model_of(&self, endpoint: &str) -> Result<Arc<Model>, Refusal> {
        let catalogue = self.services.gateway.catalogue();
        let model = catalogue.model_of_endpoint(PROVIDER, endpoint).filter(|model| model.is_offered());
        model.cloned().ok_or_else(|| Refusal::unknown_application(endpoint))
    }

    /// The checked and priced order of a wish in our words.
    fn accept(&self, wish: &str) -> Result<Accepted, Refusal> {
        let wish = catalogue::parse(wish.as_bytes()).map_err(Problem::from)?;
        Ok(accept(&self.request, &self.caller, &wish, &self.services)?)
    }

    /// Begins to make it.
    fn generate(&self, accepted: &Accepted, waits: bool, webhook: Option<Webhook>) -> Result<Arc<Job>, Refusal> {
        let key = idempotency_key(self.request.headers())?;
        let ask = Request {
            project_id: generations::project_of(&self.caller)?,
            api_key_id: self.caller.api_key_id,
            request_id: self.context.request_id,
            idempotency: key.map(|key| (key, self.services.clock.now().plus(IDEMPOTENCY_KEPT))),
            waits,
            may_resend: false,
            webhook,
        };
        self.services.gateway.generate(accepted, &ask).map_err(|fault| Problem::from(fault).into())
    }

    /// A generation of the caller's own project that was asked for at this application.
    async fn record(&self, application: &str, id: &str) -> Result<GenerationRecord, Refusal> {
        let record = match generations::own_generation(&self.services, &self.caller, id).await {
            Ok(record) => record,
            Err(problem) if problem.code() == crate::http::Code::NotFound => return Err(Refusal::unknown_request()),
            Err(problem) => return Err(problem.into()),
        };
        let same = target::application_of(&record.endpoint) == application && record.provider == PROVIDER;
        if same { Ok(record) } else { Err(Refusal::unknown_request()) }
    }

    /// The body, up to the gateway's own limit.
    async fn body(&self, payload: web::Payload) -> Result<web::Bytes, Refusal> {
        let limit = self.services.http.body_limit;
        match payload.to_bytes_limited(limit).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(_)) => Err(Refusal::request(400, "the request's body cannot be read", "bad_request")),
            Err(_) => Err(Refusal::request(413, format!("the body is larger than {limit} bytes"), "bad_request")),
        }
    }

    /// Does what is asked for.
    async fn serve(&self, target: Target, query: &str, payload: web::Payload) -> Result<HttpResponse, Refusal> {
        if *self.request.method() != method_of(&target) {
            return Err(Refusal::wrong_method());
        }
        match target {
            Target::Submit(endpoint) => queue::submit(self, &endpoint, query, &self.body(payload).await?).await,
            Target::Run(endpoint) => run::run(self, &endpoint, &self.body(payload).await?).await,
            Target::Stream(endpoint) => run::stream(self, &endpoint, &self.body(payload).await?).await,
            Target::Upload => upload::announce(self, &self.body(payload).await?).await,
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

fn method_of(target: &Target) -> Method {
    match target {
        Target::Request { verb: Verb::Cancel, .. } => Method::PUT,
        Target::Request { .. } => Method::GET,
        _ => Method::POST,
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
    fn only_fals_clients_own_paths_are_answered_in_fals_words() {
        for path in ["/fal/proxy", "/fal/run/fal-ai/flux/dev", "/fal/queue/fal-ai/flux/requests/1/status"] {
            assert!(is_for_fals_clients(path), "{path}");
        }
        for path in ["/fal/proxyx", "/fal/proxy/x", "/fal/webhooks/1", "/fal", "/fal/run", "/v1/images/generations"] {
            assert!(!is_for_fals_clients(path), "{path}");
        }
    }

    #[test]
    fn a_switch_of_a_query_is_read_as_both_clients_write_it() {
        assert!(is_on("logs=1", "logs") && is_on("a=b&logs=true", "logs"));
        assert!(!is_on("logs=0", "logs") && !is_on("logs=false", "logs") && !is_on("", "logs"));
    }
}
