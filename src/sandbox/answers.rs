//! Answers in fal's forms: bodies, headers, and what a bad key or a wrong path is told.

use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};
use uuid::Uuid;

use super::plan::Refusal;

/// The header that names fal's request.
pub const REQUEST_ID: &str = "x-fal-request-id";
/// The header that says what fal bills.
pub const UNITS: &str = "x-fal-billable-units";
/// The header that names a request error.
pub const ERROR_TYPE: &str = "x-fal-error-type";

/// The header that says whose patience ended.
pub const TIMEOUT_TYPE: &str = "x-fal-request-timeout-type";

/// A JSON answer.
pub fn json(status: u16, body: &Value) -> HttpResponse {
    HttpResponse::build(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)).json(body)
}

/// A JSON answer about one request.
pub fn json_for(id: Uuid, status: u16, body: &Value) -> HttpResponse {
    let mut answer = json(status, body);
    set(&mut answer, REQUEST_ID, &id.to_string());
    answer
}

/// A failed run: the runner's own status and body, nothing billed.
pub fn refusal(id: Uuid, refusal: &Refusal) -> HttpResponse {
    let mut answer = json_for(id, refusal.status, &refusal.body);
    set(&mut answer, UNITS, "0");
    if refusal.body.get("error_type").is_some() {
        set(&mut answer, ERROR_TYPE, &refusal.error_type);
    }
    if refusal.error_type == "request_timeout" {
        set(&mut answer, TIMEOUT_TYPE, "user");
    }
    answer
}

/// Nobody knows that request.
pub fn unknown_request() -> HttpResponse {
    json(404, &json!({"status": "NOT_FOUND"}))
}

/// fal has no application of that name.
pub fn unknown_application(alias: &str) -> HttpResponse {
    json(404, &json!({"detail": format!("Application \"{alias}\" not found")}))
}

/// The application has no such path.
pub fn unknown_path(path: &str) -> HttpResponse {
    json(404, &json!({"detail": format!("Path {path} not found")}))
}

/// The body is larger than the stand-in takes.
pub fn too_large() -> HttpResponse {
    json(413, &json!({"detail": "Request body too large", "error_type": "bad_request"}))
}

/// The path takes another method.
pub fn wrong_method() -> HttpResponse {
    json(405, &json!({"detail": "Method Not Allowed"}))
}

/// More requests wait than the caller allows.
pub fn queue_full() -> HttpResponse {
    json(429, &json!({"detail": "Queue is full", "error_type": "queue_full"}))
}

/// A rule that makes no sense; fal has nothing like it.
pub fn bad_behaviour(problem: &str) -> HttpResponse {
    json(400, &json!({"sandbox": problem}))
}

/// A key that fal does not know.
pub fn unknown_key() -> HttpResponse {
    HttpResponse::Unauthorized().content_type("text/plain; charset=utf-8").body("invalid key credentials")
}

/// An output with what it costs.
pub fn output(id: Uuid, output: &Value, units: &str) -> HttpResponse {
    let mut answer = json_for(id, 200, output);
    set(&mut answer, UNITS, units);
    answer
}

fn set(answer: &mut HttpResponse, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(HeaderName::from_static(name), value);
    }
}

/// Whether a status read asks for logs.
pub fn wants_logs(request: &HttpRequest) -> bool {
    let mut query = url::form_urlencoded::parse(request.query_string().as_bytes());
    query.any(|(name, value)| name == "logs" && matches!(&*value, "1" | "true" | "True"))
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// All.
    Granted,
    /// No key, or not of the form `Key …`.
    Missing,
    /// A key that fal does not know: here, one that starts with `bad`.
    Unknown,
    /// A key whose account has no money: here, one that starts with `locked`.
    Locked,
}

/// Reads `Authorization: Key …`. Every key is good, unless its name says otherwise.
pub fn access(request: &HttpRequest) -> Access {
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    match header.and_then(|header| header.strip_prefix("Key ")).map(str::trim) {
        None | Some("") => Access::Missing,
        Some(key) if key.starts_with("bad") => Access::Unknown,
        Some(key) if key.starts_with("locked") => Access::Locked,
        Some(_) => Access::Granted,
    }
}

/// What fal answers to a key that may not run an application; nothing for a good one.
pub fn refuses_to_run(request: &HttpRequest, application: &str) -> Option<HttpResponse> {
    match access(request) {
        Access::Granted => None,
        Access::Missing | Access::Unknown => {
            let detail = format!(
                "Cannot access application \"{application}\". Authentication is required to access this application."
            );
            Some(json(401, &json!({"detail": detail})))
        }
        Access::Locked => {
            let detail = "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing.";
            Some(json(403, &json!({"detail": detail})))
        }
    }
}

/// What fal answers to a key that may not read or cancel a request; nothing for a good one. A locked account may still
/// read.
pub fn refuses_to_read(request: &HttpRequest) -> Option<HttpResponse> {
    match access(request) {
        Access::Granted | Access::Locked => None,
        Access::Missing | Access::Unknown => Some(unknown_key()),
    }
}
