//! The addresses that fal's clients come to.

use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::error::InternalError;
use actix_web::{Error, FromRequest, HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::{IntoResponses, ToSchema};

use super::refusal::Refusal;
use super::target::Target;
use super::{Services, Visit};
use crate::accounts::{Caller, Scope};
use crate::api::access::{Access, StatedCaller, authenticate_as_fal, permit};
use crate::api::places::public_base;
use crate::catalogue::JsonValue;
use crate::http::RequestContext;

/// The header in which fal's clients name the address that they mean.
const TARGET: &str = "x-fal-target-url";
/// What the queue's addresses begin with for clients of the proxy: they come back through it.
const FALS_QUEUE: &str = "https://queue.fal.run";

/// A key needs one of these to be heard; which one depends on what the request's address asks for.
const SCOPES: &[Scope] = &[Scope::ImagesGenerate, Scope::ImagesRead, Scope::Files];

/// An error in fal's shape.
#[derive(Debug, Serialize, ToSchema)]
pub struct FalError {
    /// A text; or, where the input is at fault, a list of `{loc, msg, type}`, with `categories` where a content policy
    /// refuses it and fal says for what.
    #[schema(nullable = false, value_type = Option<JsonValue>)]
    detail: Option<Value>,
    /// What kind of error it is, for programs.
    #[schema(nullable = false, example = "bad_request")]
    error_type: Option<String>,
    /// `NOT_FOUND` or `ALREADY_COMPLETED`, about requests of the queue.
    #[schema(nullable = false)]
    status: Option<String>,
}

/// A model's input in fal's words. Further fields are those of fal's document of the endpoint.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the body in the document")]
pub struct FalInput {
    /// What the images show, for most models.
    #[schema(nullable = false)]
    prompt: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes fal's errors in the document")]
enum FalErrors {
    /// No such address, a request that has not ended, or one that has.
    #[response(status = 400)]
    BadRequest(FalError),
    /// No key, or one that is not valid.
    #[response(status = 401)]
    Unauthorized(FalError),
    /// No credit, a limit reached, or a model that the key may not use.
    #[response(status = 403)]
    Forbidden(FalError),
    /// Not on sale here, or no such request.
    #[response(status = 404)]
    NotFound(FalError),
    /// The address takes another method.
    #[response(status = 405)]
    MethodNotAllowed(FalError),
    /// The body is too large.
    #[response(status = 413)]
    TooLarge(FalError),
    /// The input does not fit the model, or its content is refused; every problem is told.
    #[response(status = 422)]
    Unprocessable(FalError),
    /// Too many requests; see `Retry-After`.
    #[response(status = 429)]
    TooMany(FalError),
    /// The request was cancelled.
    #[response(status = 499)]
    Cancelled(FalError),
    /// A fault of the gateway.
    #[response(status = 500)]
    Internal(FalError),
    /// The provider failed; nothing was charged.
    #[response(status = 502)]
    Upstream(FalError),
    /// The request cannot be taken now.
    #[response(status = 503)]
    Unavailable(FalError),
    /// Not ready by its deadline.
    #[response(status = 504)]
    TooLate(FalError),
}

/// What is asked of the request itself, as actix extracts it.
type Parts = (HttpRequest, web::Data<Services>, web::ReqData<RequestContext>, web::Payload);

/// A request of one of fal's clients, with a key of a project: states who may call.
pub struct FalCall {
    request: HttpRequest,
    services: web::Data<Services>,
    caller: Caller,
    context: RequestContext,
    payload: web::Payload,
}

impl FromRequest for FalCall {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Error>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let caller = authenticate_as_fal(request).and_then(|caller| permit(caller, SCOPES));
        let caller = caller.map_err(|problem| {
            let response = Refusal::from(problem.clone()).answer(request);
            Error::from(InternalError::from_response(problem, response))
        });
        let parts = caller.map(|caller| (caller, Parts::from_request(request, payload)));
        Box::pin(async move {
            let (caller, parts) = parts?;
            let (request, services, context, payload) = parts.await?;
            Ok(Self { request, services, caller, context: context.into_inner(), payload })
        })
    }
}

impl StatedCaller for FalCall {
    const ACCESS: Access = Access::FalClient(SCOPES);
}

impl FalCall {
    /// Does what the target asks for; whatever is wrong is told in fal's words.
    async fn serve(self, target: Result<(Target, String), Refusal>, queue_base: String) -> HttpResponse {
        let Self { request, services, caller, context, payload } = self;
        let visit = Visit { request, services, caller, context, queue_base };
        let answer = match target {
            Ok((target, query)) => visit.serve(target, &query, payload).await,
            Err(refusal) => Err(refusal),
        };
        answer.unwrap_or_else(|refusal| refusal.answer(&visit.request))
    }

    async fn through_proxy(self) -> HttpResponse {
        let named = self.request.headers().get(TARGET);
        let target = match named.map(|value| value.to_str().unwrap_or_default()) {
            None => Err(Refusal::request(400, format!("Invalid request: `{TARGET}` is missing"), "bad_request")),
            Some(address) => Target::of_address(address).ok_or_else(|| {
                let message = format!("Invalid request: `{TARGET}` is no address of fal's that is served here");
                Refusal::request(400, message, "bad_request")
            }),
        };
        self.serve(target, FALS_QUEUE.to_owned()).await
    }

    async fn at_run(self, endpoint: &str) -> HttpResponse {
        let query = self.request.query_string().to_owned();
        let target = Target::of_run(endpoint).ok_or_else(|| Refusal::unknown_path(endpoint));
        self.serve(target.map(|target| (target, query)), FALS_QUEUE.to_owned()).await
    }

    async fn at_queue(self, path: &str) -> HttpResponse {
        let base = format!("{}/fal/queue", public_base(&self.services, &self.request));
        let query = self.request.query_string().to_owned();
        let target = Target::of_queue(path).ok_or_else(|| Refusal::unknown_path(path));
        self.serve(target.map(|target| (target, query)), base).await
    }
}

/// Read through fal's proxy setting
///
/// For `@fal-ai/client` with `proxyUrl` set to this path and an imagegate key as its `credentials`: the status of a request,
/// its stream, its result. `x-fal-target-url` names the address at fal that is meant; it is read, never called.
#[utoipa::path(
    get,
    path = "/fal/proxy",
    operation_id = "readThroughFalProxy",
    tag = "fal",
    params(("x-fal-target-url" = String, Header, description = "The address at fal: `https://queue.fal.run/fal-ai/flux/requests/{id}/status`.", pattern = "^(https://)?(queue\\.fal\\.run|queue\\.falrun\\.com)/[A-Za-z0-9_-]+(/[A-Za-z0-9._-]+)+/requests/[A-Za-z0-9-]+(/response|/status(/stream)?)?(\\?[!-~]*)?$")),
    responses(
        (status = 200, description = "The output, or the status of a request that has ended.", body = Object),
        (status = 202, description = "The status of a request that has not ended.", body = Object),
        FalErrors,
    ),
)]
pub async fn read_through_fal_proxy(call: FalCall) -> HttpResponse {
    call.through_proxy().await
}

/// Send through fal's proxy setting
///
/// For `@fal-ai/client` with `proxyUrl` set to this path: a request for the queue (with `fal_webhook`), a direct run, a
/// stream, a place for a file. Only endpoints that the catalogue sells; checked, booked and limited as any other request.
#[utoipa::path(
    post,
    path = "/fal/proxy",
    operation_id = "sendThroughFalProxy",
    tag = "fal",
    request_body(content = FalInput, content_type = "application/json", description = "The model's input in fal's words."),
    params(("x-fal-target-url" = String, Header, description = "The address at fal: `https://queue.fal.run/fal-ai/flux/dev`.", pattern = "^(https://)?((queue\\.)?(fal\\.run|falrun\\.com)/[A-Za-z0-9_-]+(/[A-Za-z0-9._-]+)+|rest(\\.alpha)?\\.fal\\.ai/storage/upload/initiate)(\\?[!-~]*)?$")),
    responses(
        (status = 200, description = "The queued request, the output, or a place for a file.", body = Object),
        FalErrors,
    ),
)]
pub async fn send_through_fal_proxy(call: FalCall) -> HttpResponse {
    call.through_proxy().await
}

/// Cancel through fal's proxy setting
///
/// For `@fal-ai/client` with `proxyUrl` set to this path.
#[utoipa::path(
    put,
    path = "/fal/proxy",
    operation_id = "cancelThroughFalProxy",
    tag = "fal",
    params(("x-fal-target-url" = String, Header, description = "The address at fal: `https://queue.fal.run/fal-ai/flux/requests/{id}/cancel`.", pattern = "^(https://)?(queue\\.fal\\.run|queue\\.falrun\\.com)/[A-Za-z0-9_-]+(/[A-Za-z0-9._-]+)+/requests/[A-Za-z0-9-]+/cancel(\\?[!-~]*)?$")),
    responses((status = 202, description = "It is asked for.", body = Object), FalErrors),
)]
pub async fn cancel_through_fal_proxy(call: FalCall) -> HttpResponse {
    call.through_proxy().await
}

/// Run as at fal
///
/// For `fal-client` with `FAL_RUN_HOST` set to this gateway's host and `/fal/run`: one connection, no queue; with `/stream` at
/// the end, the model's own stream.
#[utoipa::path(
    post,
    operation_id = "runAsFal",
    tag = "fal",
    path = "/fal/run/{endpoint}",
    request_body(content = FalInput, content_type = "application/json", description = "The model's input in fal's words."),
    params(("endpoint" = String, Path, description = "fal's endpoint; its slashes may be written as they are.")),
    responses((status = 200, description = "The output.", body = Object), FalErrors),
)]
pub async fn run_as_fal(call: FalCall, endpoint: web::Path<String>) -> HttpResponse {
    call.at_run(&endpoint).await
}

/// Submit as at fal
///
/// For `fal-client` with `FAL_QUEUE_RUN_HOST` set to this gateway's host and `/fal/queue`.
#[utoipa::path(
    post,
    operation_id = "submitAsFal",
    tag = "fal",
    path = "/fal/queue/{endpoint}",
    request_body(content = FalInput, content_type = "application/json", description = "The model's input in fal's words."),
    params(
        ("endpoint" = String, Path, description = "fal's endpoint; its slashes may be written as they are."),
        ("fal_webhook" = Option<String>, Query, description = "Whom to call, in fal's form, when it has ended."),
    ),
    responses((status = 200, description = "The queued request.", body = Object), FalErrors),
)]
pub async fn submit_as_fal(call: FalCall, endpoint: web::Path<String>) -> HttpResponse {
    call.at_queue(&endpoint).await
}

/// Read a request as at fal
///
/// A request's result; with `/status` or `/status/stream` after its id, how it stands.
#[utoipa::path(
    get,
    operation_id = "readAsFal",
    tag = "fal",
    path = "/fal/queue/{application}/requests/{request_id}",
    params(
        ("application" = String, Path, description = "Owner and alias, as `fal-ai/flux`; the slash may be written as it is."),
        ("request_id" = String, Path, description = "The generation's id."),
        ("logs" = Option<String>, Query, description = "For a status, `1`: with what the model has written."),
    ),
    responses(
        (status = 200, description = "The output, or the status of a request that has ended.", body = Object),
        (status = 202, description = "The status of a request that has not ended.", body = Object),
        FalErrors,
    ),
)]
pub async fn read_as_fal(call: FalCall, path: web::Path<(String, String)>) -> HttpResponse {
    call.at_queue(&format!("{}/requests/{}", path.0, path.1)).await
}

/// Cancel a request as at fal
///
/// One that waits is cancelled; one that runs only if the provider confirms.
#[utoipa::path(
    put,
    operation_id = "cancelAsFal",
    tag = "fal",
    path = "/fal/queue/{application}/requests/{request_id}/cancel",
    params(
        ("application" = String, Path, description = "Owner and alias, as `fal-ai/flux`; the slash may be written as it is."),
        ("request_id" = String, Path, description = "The generation's id."),
    ),
    responses((status = 202, description = "It is asked for.", body = Object), FalErrors),
)]
pub async fn cancel_as_fal(call: FalCall, path: web::Path<(String, String)>) -> HttpResponse {
    call.at_queue(&format!("{}/requests/{}/cancel", path.0, path.1)).await
}
