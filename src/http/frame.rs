//! The frame around every request: its id, the one log line, panics caught, every error in the one shape.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpResponse, ResponseError, web};
use futures_util::FutureExt;
use tracing::field::Empty;
use tracing::{Instrument, Span, error, info, info_span, warn};

use super::edge::Stopping;
use super::problem::{Code, Problem};
use crate::domain::{Clock, IdSource, RequestId, Timestamp};
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
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Most bytes of a request's address and headers. What the server itself allows depends on how fast they arrive:
/// anything between 128 and 256 KiB over HTTP/1.1, megabytes over HTTP/2.
const LARGEST_HEAD: usize = 64 * 1024;

const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-client-request-id");

/// The outermost middleware.
pub async fn frame<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some(tools) = request.app_data::<web::Data<FrameTools>>().cloned() else {
        return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    };
    let context = RequestContext { request_id: RequestId::from_uuid(tools.ids.uuid()), received_at: tools.clock.now() };
    request.extensions_mut().insert(context);
    let echo = client_request_id(request.headers());
    let path = request.path().to_owned();
    let line = LogLine { method: request.method().clone(), path: loggable(&path).to_owned(), context };

    // The request itself cannot be kept beside this: the router wants it alone.
    let step = step(&request, &line);
    let outcome = if head_size(&request) > LARGEST_HEAD {
        let message = format!("the request's address and headers have more than {LARGEST_HEAD} bytes");
        Ok(Err(Problem::new(Code::HeadersTooLarge, message).into()))
    } else {
        AssertUnwindSafe(next.call(request).instrument(step.clone())).catch_unwind().await
    };
    let now = tools.clock.now();
    let problem = match outcome {
        Ok(Ok(response)) => {
            let mut response = with_problem_body(response.map_into_boxed_body(), &context, &path, now);
            put_ids(response.headers_mut(), &context, echo);
            if tools.stopping.is_stopping() {
                // The client's next request is for somebody who stays.
                response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
            }
            line.write(response.status().as_u16(), response.headers(), now);
            count(&tools.meters, &response, now.since(context.received_at));
            tell(&step, &response);
            return Ok(response);
        }
        Ok(Err(fault)) => Problem::of(&fault),
        // The panic hook has told where; the client learns only that it was our fault.
        Err(_panic) => Problem::new(Code::InternalError, "this gateway failed on the request; nothing more is known"),
    };
    let broken = Broken { problem, context, path, now, echo };
    let response = broken.error_response();
    line.write(response.status().as_u16(), response.headers(), now);
    let took = now.since(context.received_at);
    tools.meters.answered(line.method.as_str(), None, response.status().as_u16(), took, None);
    Err(broken.into())
}

/// The bytes of the address and of the headers, with two separators each.
fn head_size(request: &ServiceRequest) -> usize {
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let uri = request.uri();
    uri.path().len() + uri.query().map_or(0, str::len) + headers.sum::<usize>()
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
        url.path = line.path,
        http.route = route,
        http.response.status_code = Empty,
        request_id = %line.context.request_id,
        generation = Empty,
    );
    traces::continue_from(&step, |name| request.headers().get(name).and_then(|value| value.to_str().ok()));
    step
}

/// What is known of a request once it is answered.
fn tell(step: &Span, response: &ServiceResponse) {
    if step.is_disabled() {
        return;
    }
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

/// A path as it is logged: the names of the stand-in's files tell what was drawn.
fn loggable(path: &str) -> &str {
    const FILES: &str = "/sandbox/files/";
    if path.starts_with(FILES) { FILES } else { path }
}

/// The one line per request. Never a key, a prompt or a query string.
struct LogLine {
    method: Method,
    path: String,
    context: RequestContext,
}

impl LogLine {
    fn write(&self, status: u16, headers: &HeaderMap, now: Timestamp) {
        let Self { method, path, context } = self;
        let duration_ms = u64::try_from(now.since(context.received_at).as_millis()).unwrap_or(u64::MAX);
        let generation = headers.get("x-imagegate-generation-id").and_then(|value| value.to_str().ok());
        let request_id = context.request_id;
        if status >= 500 && status != 503 && status != 504 {
            error!(%method, path, status, duration_ms, %request_id, generation, "request failed");
        } else if status >= 500 {
            warn!(%method, path, status, duration_ms, %request_id, generation, "request not served");
        } else {
            info!(%method, path, status, duration_ms, %request_id, generation, "request");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use actix_web::middleware::from_fn;
    use actix_web::{App, HttpServer, web};

    use super::*;
    use crate::domain::{SystemClock, SystemIds};

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
