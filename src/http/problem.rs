//! The table of public error codes, and the one shape that every error has.

use std::fmt;
use std::time::Duration;

use actix_web::error::PayloadError;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::frame::RequestContext;
use crate::domain::{MEMORY_WAIT, OutOfMemory};

/// What went wrong, as the outside may rely on it. A code never changes its meaning or its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Parameters that the model does not allow; `error.data` lists every one.
    InvalidParameters,
    /// The body is not JSON; the message tells line and column.
    InvalidJson,
    /// The request is wrong in another way; the message tells how.
    InvalidRequest,
    /// The provider's content policy refuses the prompt or an image.
    ContentPolicyViolation,
    /// No key, or one that is not valid.
    InvalidApiKey,
    /// The key may not do this.
    PermissionDenied,
    /// The project's credit or a spend limit does not cover the request.
    InsufficientCredits,
    /// No such model.
    ModelNotFound,
    /// The model was withdrawn.
    ModelWithdrawn,
    /// No such path or id.
    NotFound,
    /// The path exists, but not with this method.
    MethodNotAllowed,
    /// The request took too long to arrive.
    RequestTimeout,
    /// The request cannot be done in the present state of the thing.
    Conflict,
    /// The body is larger than allowed.
    PayloadTooLarge,
    /// The body is of another type than this path takes.
    UnsupportedMediaType,
    /// The idempotency key was used with another body.
    IdempotencyKeyReused,
    /// Too many requests; `Retry-After` tells when to come back.
    RateLimitExceeded,
    /// The request's address and headers are larger than allowed.
    HeadersTooLarge,
    /// A fault of ours.
    InternalError,
    /// The provider failed or answered something that cannot be used.
    UpstreamError,
    /// The provider ran and made no image.
    NoImage,
    /// This service cannot take the request now.
    ServiceUnavailable,
    /// The image was not ready by its deadline.
    DeadlineExceeded,
}

impl Code {
    /// Status, title, OpenAI's `type`, AIML's `name`, and the public code.
    const fn row(self) -> (u16, &'static str, &'static str, &'static str, &'static str) {
        const INVALID: &str = "invalid_request_error";
        match self {
            Self::InvalidParameters => (400, "Bad Request", INVALID, "BadRequestException", "invalid_parameters"),
            Self::InvalidJson => (400, "Bad Request", INVALID, "BadRequestException", "invalid_json"),
            Self::InvalidRequest => (400, "Bad Request", INVALID, "BadRequestException", "invalid_request"),
            Self::ContentPolicyViolation => {
                (400, "Bad Request", INVALID, "BadRequestException", "content_policy_violation")
            }
            Self::InvalidApiKey => (401, "Unauthorized", INVALID, "UnauthorizedException", "invalid_api_key"),
            Self::PermissionDenied => (403, "Forbidden", INVALID, "ForbiddenException", "permission_denied"),
            Self::InsufficientCredits => {
                (403, "Forbidden", "insufficient_quota", "ForbiddenException", "insufficient_credits")
            }
            Self::ModelNotFound => (404, "Not Found", INVALID, "NotFoundException", "model_not_found"),
            Self::ModelWithdrawn => (404, "Not Found", INVALID, "NotFoundException", "model_withdrawn"),
            Self::NotFound => (404, "Not Found", INVALID, "NotFoundException", "not_found"),
            Self::MethodNotAllowed => {
                (405, "Method Not Allowed", INVALID, "MethodNotAllowedException", "method_not_allowed")
            }
            Self::RequestTimeout => (408, "Request Timeout", INVALID, "RequestTimeoutException", "request_timeout"),
            Self::Conflict => (409, "Conflict", INVALID, "ConflictException", "conflict"),
            Self::PayloadTooLarge => {
                (413, "Payload Too Large", INVALID, "PayloadTooLargeException", "payload_too_large")
            }
            Self::UnsupportedMediaType => {
                (415, "Unsupported Media Type", INVALID, "UnsupportedMediaTypeException", "unsupported_media_type")
            }
            Self::IdempotencyKeyReused => {
                (422, "Unprocessable Entity", INVALID, "UnprocessableEntityException", "idempotency_key_reused")
            }
            Self::RateLimitExceeded => {
                (429, "Too Many Requests", "rate_limit_error", "TooManyRequestsException", "rate_limit_exceeded")
            }
            Self::HeadersTooLarge => {
                (431, "Request Header Fields Too Large", INVALID, "HeadersTooLargeException", "headers_too_large")
            }
            Self::InternalError => {
                (500, "Internal Server Error", "server_error", "InternalServerErrorException", "internal_error")
            }
            Self::UpstreamError => (502, "Bad Gateway", "server_error", "BadGatewayException", "upstream_error"),
            Self::NoImage => (502, "Bad Gateway", "server_error", "BadGatewayException", "no_image"),
            Self::ServiceUnavailable => {
                (503, "Service Unavailable", "server_error", "ServiceUnavailableException", "service_unavailable")
            }
            Self::DeadlineExceeded => {
                (504, "Gateway Timeout", "server_error", "GatewayTimeoutException", "deadline_exceeded")
            }
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The public code.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().4
    }

    /// The code that fits a status that a library chose.
    fn from_status(status: StatusCode) -> Self {
        match status.as_u16() {
            401 => Self::InvalidApiKey,
            403 => Self::PermissionDenied,
            404 => Self::NotFound,
            405 => Self::MethodNotAllowed,
            408 => Self::RequestTimeout,
            409 => Self::Conflict,
            413 => Self::PayloadTooLarge,
            415 => Self::UnsupportedMediaType,
            422 => Self::IdempotencyKeyReused,
            429 => Self::RateLimitExceeded,
            431 => Self::HeadersTooLarge,
            400..=499 => Self::InvalidRequest,
            502 => Self::UpstreamError,
            503 => Self::ServiceUnavailable,
            504 => Self::DeadlineExceeded,
            _ => Self::InternalError,
        }
    }
}

/// An error on its way to the client.
#[derive(Debug, Clone)]
pub struct Problem(Box<Details>);

#[derive(Debug, Clone)]
struct Details {
    code: Code,
    message: String,
    param: Option<String>,
    data: Option<Value>,
    retry_after: Option<Duration>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Longest message of a problem in bytes: what a client sent is quoted, but not without end.
pub const LONGEST_MESSAGE: usize = 4096;
/// Longest name of a parameter in bytes.
const LONGEST_PARAM: usize = 512;

/// The text, cut to at most this many bytes.
#[must_use]
pub fn shortened(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
    text
}

/// Longest path in answers and in the log, in bytes.
const LONGEST_PATH: usize = 512;

/// A path as it is shown: cut where it is long.
#[must_use]
pub fn short_path(path: &str) -> String {
    shortened(path.to_owned(), LONGEST_PATH)
}

impl Problem {
    /// A problem with its sentence for the reader. Longer ones are cut.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let message = shortened(message.into(), LONGEST_MESSAGE);
        Self(Box::new(Details { code, message, param: None, data: None, retry_after: None, headers: Vec::new() }))
    }

    /// Names the parameter that is wrong.
    #[must_use]
    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.0.param = Some(shortened(param.into(), LONGEST_PARAM));
        self
    }

    /// Adds details for programs, as `error.data`.
    #[must_use]
    pub fn data(mut self, data: Value) -> Self {
        self.0.data = Some(data);
        self
    }

    /// Tells when to come back, as `Retry-After` in whole seconds, rounded up.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Adds a header; one that HTTP does not allow is left out.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers.push((HeaderName::from_static(name), value));
        }
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// When to come back, if it tells.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The error as OpenAI's SDKs and AIML's newer clients read it, for answers that have begun already.
    #[must_use]
    pub fn error(&self) -> Value {
        serde_json::to_value(self.error_body()).unwrap_or_default()
    }

    fn error_body(&self) -> ErrorBody {
        let (_, _, kind, name, code) = self.0.code.row();
        ErrorBody {
            name: name.to_owned(),
            message: self.0.message.clone(),
            kind: kind.to_owned(),
            code: code.to_owned(),
            param: self.0.param.clone(),
            data: self.0.data.clone(),
        }
    }

    /// The problem that an error carries; one that a library made is told by its status.
    #[must_use]
    pub fn of(fault: &actix_web::Error) -> Self {
        if let Some(problem) = fault.as_error::<Self>() {
            return problem.clone();
        }
        match fault.as_error::<PayloadError>() {
            Some(error) => Self::from_payload_error(error),
            None => Self::from_status(fault.as_response_error().status_code()),
        }
    }

    /// For a body that cannot be read: too large, too slow, broken off, or without memory for it now.
    #[must_use]
    pub fn from_payload_error(error: &PayloadError) -> Self {
        if let PayloadError::Io(error) = error
            && let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<OutOfMemory>())
        {
            return Self::from(*error);
        }
        Self::from_status(match error {
            PayloadError::Overflow => StatusCode::PAYLOAD_TOO_LARGE,
            PayloadError::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::BAD_REQUEST,
        })
    }

    /// For an error that a library made: its status and nothing of its text.
    #[must_use]
    pub fn from_status(status: StatusCode) -> Self {
        let code = Code::from_status(status);
        let message = match code {
            Code::NotFound => "there is nothing at this path",
            Code::PayloadTooLarge => "the request's body is larger than this gateway takes",
            Code::RequestTimeout => "the request did not arrive in time",
            Code::InvalidRequest => "the request cannot be read",
            _ => status.canonical_reason().unwrap_or("the request failed"),
        };
        Self::new(code, message)
    }

    /// The answer, with what only the request's frame knows.
    pub(super) fn render(&self, context: &RequestContext, path: &str, timestamp: String) -> HttpResponse {
        let (status, title, ..) = self.0.code.row();
        let body = ProblemBody {
            title: title.to_owned(),
            status,
            status_code: status,
            message: self.0.message.clone(),
            instance: path.to_owned(),
            path: path.to_owned(),
            request_id: context.request_id.to_string(),
            timestamp,
            error: self.error_body(),
        };
        let mut response = HttpResponseBuilder::new(self.0.code.status());
        for (name, value) in &self.0.headers {
            response.insert_header((name.clone(), value.clone()));
        }
        if let Some(wait) = self.0.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.insert_header((header::RETRY_AFTER, seconds.max(1).to_string()));
        }
        response.content_type("application/problem+json");
        response.body(serde_json::to_string(&body).unwrap_or_default())
    }
}

impl From<OutOfMemory> for Problem {
    fn from(error: OutOfMemory) -> Self {
        Self::new(Code::ServiceUnavailable, error.to_string()).retry_after(MEMORY_WAIT)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.0.code.status()
    }

    /// Only the status: the frame around every request writes the body, since it knows the request.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.status_code())
    }
}

/// Every error's body: the keys that AIML's old clients, AIML's new clients and OpenAI's SDKs read.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// The status in words.
    #[schema(example = "Bad Request")]
    pub title: String,
    /// The HTTP status.
    #[schema(example = 400)]
    pub status: u16,
    /// The HTTP status again, as AIML's older clients read it.
    #[serde(rename = "statusCode")]
    #[schema(example = 400)]
    pub status_code: u16,
    /// What is wrong, for a reader.
    pub message: String,
    /// The path that was called.
    #[schema(example = "/v1/images/generations")]
    pub instance: String,
    /// The path again, as AIML's older clients read it.
    #[schema(example = "/v1/images/generations")]
    pub path: String,
    /// The request's id, also in the header `x-request-id`.
    #[serde(rename = "requestId")]
    pub request_id: String,
    /// When, as RFC 3339 in UTC.
    pub timestamp: String,
    /// The error as OpenAI's SDKs and AIML's newer clients read it.
    pub error: ErrorBody,
}

/// The error as OpenAI's SDKs and AIML's newer clients read it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// AIML's name for the kind of error.
    #[schema(example = "BadRequestException")]
    pub name: String,
    /// What is wrong, for a reader.
    pub message: String,
    /// OpenAI's name for the kind of error.
    #[serde(rename = "type")]
    #[schema(example = "invalid_request_error")]
    pub kind: String,
    /// What is wrong, for programs; stable.
    #[schema(example = "invalid_parameters")]
    pub code: String,
    /// The first parameter that is wrong, or null.
    #[schema(example = "image_size.width")]
    pub param: Option<String>,
    /// Details for programs. For `invalid_parameters`, one entry for each problem found: `code`, `path`, `message` and
    /// the limit (`minimum`, `maximum`, `multipleOf` or `options`), with the nearest allowed value where one exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = ErrorDetails)]
    pub data: Option<Value>,
}

/// Details of an error, for programs.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes `ErrorBody::data` in the document")]
enum ErrorDetails {
    /// One entry for each problem found.
    Problems(Vec<Map<String, Value>>),
    /// What the code tells of.
    Facts(Map<String, Value>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_a_library_gets_a_code_with_the_same_status() {
        for status in [400, 401, 403, 404, 405, 408, 409, 413, 415, 429, 500, 502, 503, 504] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(Code::from_status(status).status(), status);
        }
    }
}
