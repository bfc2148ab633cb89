//! The frame around every request: its id, the one log line, panics caught, every error in the one shape.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue,
};
use actix_web::http::{ConnectionType, Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpResponse, ResponseError, web};
use futures_util::FutureExt;
use tracing::field::{Empty, display};
use tracing::{Instrument, Span, error, info, info_span, warn};

use super::edge::{Edge, Stopping};
use super::headers::check_headers;
use super::path::normalize;
use super::problem::{Code, Problem, short_path};
use crate::domain::{ApiKeyId, Clock, IdSource, ProjectId, RequestId, Timestamp};
use crate::meters::{Served, SharedMeters};
use crate::traces;

/// What the frame knows of a request; in its extensions.
#[derive(Debug, Clone, Copy)]
pub struct RequestContext {
    /// The request's id.
    pub request_id: RequestId,
    /// When it arrived.
    pub received_at: Timestamp,
}

/// The clock and ids that the frame uses, as application data.
#[derive(Debug, Clone)]
pub struct FrameTools {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Makes request ids.
    pub ids: Arc<dyn IdSource>,
    /// Counts and times the requests.
    pub meters: SharedMeters,
    /// Whether the process is about to stop.
    pub stopping: Stopping,
    /// Which proxies are trusted, and how long a body may take.
    pub edge: Edge,
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-client-request-id");

/// The outermost middleware.
pub async fn frame<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some(tools) = request.app_data::<web::Data<FrameTools>>().cloned() else {
        return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    };
    let context = RequestContext { request_id: RequestId::from_uuid(tools.ids.uuid()), received_at: tools.clock.now() };
    request.extensions_mut().insert(context);
    let echo = client_request_id(request.headers());
    tools.edge.receive(&mut request);
    let readable = normalize(&mut request)
        .map_err(|error| Problem::new(Code::InvalidRequest, error.to_string()))
        .and_then(|()| check_headers(&request));
    let path = short_path(request.path());
    let address = request.peer_addr().map(|peer| peer.ip());
    let line = LogLine { method: request.method().clone(), path: path.clone(), address, context };

    // The request itself cannot be kept beside this: the router wants it alone.
    let step = step(&request, &line);
    let outcome = match readable {
        Ok(()) => {
            let answer = AssertUnwindSafe(next.call(request).instrument(step.clone())).catch_unwind().await;
            answer.map(|answer| answer.map(ServiceResponse::map_into_boxed_body))
        }
        Err(problem) => {
            let mut response = request.error_response(problem);
            // A body that is not read would be taken for the next request.
            response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
            Ok(Ok(response))
        }
    };
    let now = tools.clock.now();
    let problem = match outcome {
        Ok(Ok(response)) => {
            let mut response = with_problem_body(response, &context, &path, now);
            put_ids(response.headers_mut(), &context, echo);
            keep_private(&mut response);
            expose_headers(response.headers_mut());
            if tools.stopping.is_stopping() {
                // The client's next request is for somebody who stays.
                response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
            }
            line.write(&response, now);
            count(&tools.meters, &response, now.since(context.received_at));
            record(&step, &line, &response);
            return Ok(response);
        }
        Ok(Err(fault)) => Problem::of(&fault),
        // The panic hook has told where; the client learns only that it was our fault.
        Err(_panic) => Problem::new(Code::InternalError, "this gateway failed on the request; nothing more is known"),
    };
    let broken = Broken { problem, context, path, now, echo };
    let response = broken.error_response();
    line.write_outcome(response.status().as_u16(), &Facts::default(), &line.path, now);
    let took = now.since(context.received_at);
    tools.meters.answered(line.method.as_str(), None, response.status().as_u16(), took, None);
    Err(broken.into())
}

/// The request's own span, part of the trace that it came with.
fn step(request: &ServiceRequest, line: &LogLine) -> Span {
    let method = line.method.as_str();
    let route = request.match_pattern().unwrap_or_else(|| "unmatched".to_owned());
    let step = info_span!(
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = method,
        url.path = Empty,
        http.route = route,
        http.response.status_code = Empty,
        request_id = %line.context.request_id,
        generation = Empty,
    );
    traces::continue_from(&step, |name| request.headers().get(name).and_then(|value| value.to_str().ok()));
    step
}

/// Adds to the request's span what is known once it is answered.
fn record(step: &Span, line: &LogLine, response: &ServiceResponse) {
    if step.is_disabled() {
        return;
    }
    step.record("url.path", line.shown_path(response));
    step.record("http.response.status_code", response.status().as_u16());
    let generation = response.headers().get("x-imagegate-generation-id").and_then(|value| value.to_str().ok());
    if let Some(generation) = generation {
        step.record("generation", generation);
    }
}

/// Counts and times an answered request.
fn count(meters: &SharedMeters, response: &ServiceResponse, took: Duration) {
    let request = response.request();
    let route = request.match_pattern();
    let served = request.extensions().get::<Served>().cloned();
    meters.answered(request.method().as_str(), route.as_deref(), response.status().as_u16(), took, served.as_ref());
}

/// A request that broke off before there was a response: carries all that its answer needs.
#[derive(Debug)]
struct Broken {
    problem: Problem,
    context: RequestContext,
    path: String,
    now: Timestamp,
    echo: Option<HeaderValue>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl ResponseError for Broken {
    fn status_code(&self) -> StatusCode {
        self.problem.status_code()
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = self.problem.render(&self.context, &self.path, self.now.rfc3339());
        put_ids(response.headers_mut(), &self.context, self.echo.clone());
        response
    }
}

fn put_ids(headers: &mut HeaderMap, context: &RequestContext, echo: Option<HeaderValue>) {
    if let Ok(value) = HeaderValue::from_str(&context.request_id.to_string()) {
        headers.insert(REQUEST_ID, value);
    }
    if let Some(echo) = echo {
        headers.insert(CLIENT_REQUEST_ID, echo);
    }
}

/// What a key has opened is for its holder alone: no cache keeps it, unless the handler says otherwise.
fn keep_private(response: &mut ServiceResponse) {
    let is_keyed =
        response.request().extensions().contains::<LoggedCaller>() || response.status() == StatusCode::UNAUTHORIZED;
    if is_keyed && !response.headers().contains_key(CACHE_CONTROL) {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// Lets pages of other sites read every header of an answer that they may read. Done here, where all headers are set.
fn expose_headers(headers: &mut HeaderMap) {
    if !headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
        return;
    }
    let names: BTreeSet<&str> = headers.keys().map(HeaderName::as_str).collect();
    let names: Vec<&str> = names.into_iter().filter(|name| !name.starts_with("access-control-")).collect();
    if let Ok(names) = HeaderValue::from_str(&names.join(", ")) {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, names);
    }
}

/// Gives an error that has no body of ours the one shape.
fn with_problem_body(
    response: ServiceResponse<BoxBody>,
    context: &RequestContext,
    path: &str,
    now: Timestamp,
) -> ServiceResponse<BoxBody> {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() || response.request().extensions().contains::<Verbatim>()
    {
        return response;
    }
    let problem = response.response().error().map_or_else(|| Problem::from_status(status), Problem::of);
    let mut rendered = problem.render(context, path, now.rfc3339());
    for (name, value) in response.headers() {
        if !rendered.headers().contains_key(name) && !name.as_str().starts_with("content-") {
            rendered.headers_mut().append(name.clone(), value.clone());
        }
    }
    response.into_response(rendered)
}

/// Put into a request's extensions by a handler whose error answers are not ours to shape (a file, another API's face).
#[derive(Debug, Clone, Copy)]
pub struct Verbatim;

/// A client's own id for the request, echoed if it is 1 to 128 of `A-Za-z0-9._:-`, as AIML does.
fn client_request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(CLIENT_REQUEST_ID)?;
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"._:-".contains(byte);
    ((1..=128).contains(&value.len()) && value.as_bytes().iter().all(fits)).then(|| value.clone())
}

/// Put into a request's extensions by a handler whose path must not be logged.
#[derive(Debug, Clone, Copy)]
pub struct PrivatePath;

/// The one line per request. Never a key, a prompt or a query string.
struct LogLine {
    method: Method,
    path: String,
    address: Option<IpAddr>,
    context: RequestContext,
}

impl LogLine {
    /// The path as it is logged: of a private one, only the pattern of its route.
    fn shown_path(&self, response: &ServiceResponse) -> String {
        let request = response.request();
        if request.extensions().contains::<PrivatePath>() {
            request.match_pattern().unwrap_or_default()
        } else {
            self.path.clone()
        }
    }

    fn write(&self, response: &ServiceResponse, now: Timestamp) {
        let extensions = response.request().extensions();
        let facts = Facts {
            generation: response.headers().get("x-imagegate-generation-id").and_then(|value| value.to_str().ok()),
            caller: extensions.get::<LoggedCaller>(),
            refusal: extensions.get::<AuthenticationFailed>().map(|failed| failed.0.as_str()),
        };
        self.write_outcome(response.status().as_u16(), &facts, &self.shown_path(response), now);
    }

    fn write_outcome(&self, status: u16, facts: &Facts<'_>, path: &str, now: Timestamp) {
        let Self { method, address, context, .. } = self;
        let duration_ms = u64::try_from(now.since(context.received_at).as_millis()).unwrap_or(u64::MAX);
        let request_id = context.request_id;
        let Facts { generation, caller, refusal } = facts;
        let client_address = address.map(display);
        let key_id = caller.map(|caller| display(caller.api_key_id));
        let project_id = caller.and_then(|caller| caller.project_id).map(display);
        // One call for each level: the macros want it to be known when they are compiled.
        macro_rules! line {
            ($level:ident, $message:literal) => {
                $level!(
                    %method, path, status, duration_ms, %request_id, generation, client_address, key_id, project_id,
                    reason = refusal, $message
                )
            };
        }
        if refusal.is_some() {
            line!(warn, "authentication failed");
        } else if status >= 500 && status != 503 && status != 504 {
            line!(error, "request failed");
        } else if status >= 500 {
            line!(warn, "request not served");
        } else {
            line!(info, "request");
        }
    }
}

/// What only the answer to a request says about it.
#[derive(Default)]
struct Facts<'a> {
    generation: Option<&'a str>,
    caller: Option<&'a LoggedCaller>,
    refusal: Option<&'a str>,
}

/// Put into a request's extensions when its key is refused, with the reason: for the log only, since no answer says
/// whether a key exists.
#[derive(Debug, Clone)]
pub struct AuthenticationFailed(pub String);

/// Put into a request's extensions once its caller is known, for the log.
#[derive(Debug, Clone, Copy)]
pub struct LoggedCaller {
    /// The key.
    pub api_key_id: ApiKeyId,
    /// The project of a project key.
    pub project_id: Option<ProjectId>,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use actix_web::middleware::from_fn;
    use actix_web::{App, HttpServer, web};

    use super::*;
    use crate::domain::{MemoryBudget, SystemClock, SystemIds};

    async fn panics() -> HttpResponse {
        panic!("a fault of ours")
    }

    #[actix_web::test]
    async fn a_panic_is_answered_in_the_one_shape_with_the_requests_id() {
        let tools = web::Data::new(FrameTools {
            clock: Arc::new(SystemClock),
            ids: Arc::new(SystemIds),
            meters: SharedMeters::default(),
            stopping: Stopping::default(),
            edge: Edge {
                trusted: Arc::default(),
                body_time: Duration::from_mins(1),
                body_limit: 1_000,
                memory: MemoryBudget::new(8_000, 4_000),
            },
        });
        let server = HttpServer::new(move || {
            App::new().app_data(tools.clone()).route("/panics", web::get().to(panics)).wrap(from_fn(frame))
        });
        let server = server.workers(1).bind("127.0.0.1:0").unwrap();
        let address = server.addrs()[0];
        let running = server.run();
        let stopper = running.handle();
        actix_web::rt::spawn(running);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().build().unwrap();
        let answer = client.get(format!("http://{address}/panics")).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 500);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        let body: serde_json::Value = answer.json().await.unwrap();
        assert_eq!((&body["error"]["code"], &body["requestId"]), (&"internal_error".into(), &id.into()));
        assert!(!body.to_string().contains("a fault of ours"));
        stopper.stop(false).await;
    }
}
