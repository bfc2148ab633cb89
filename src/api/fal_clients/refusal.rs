//! Errors in fal's shapes: a list in `detail` for what is wrong with the input, a text with an `error_type` for the rest.

use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use serde_json::{Value, json};

use crate::api::errors::failure_problem;
use crate::domain::GenerationId;
use crate::http::{Code, Problem, Verbatim};
use crate::providers::{Failure, FailureKind};

/// An error on its way to one of fal's clients.
#[derive(Debug, Clone)]
pub struct Refusal {
    status: u16,
    body: Box<Value>,
    error_type: String,
    retry_after: Option<u64>,
    about: Option<GenerationId>,
}

impl Refusal {
    /// fal's front: a text and a type.
    pub fn request(status: u16, detail: impl Into<String>, error_type: &str) -> Self {
        let detail: String = detail.into();
        let body = json!({"detail": detail, "error_type": error_type});
        Self { status, body: Box::new(body), error_type: error_type.to_owned(), retry_after: None, about: None }
    }

    /// fal's runner: what is wrong with the input.
    pub fn input(problems: &[Value]) -> Self {
        let error_type = problems.first().and_then(|problem| problem["type"].as_str()).unwrap_or("value_error");
        let error_type = error_type.to_owned();
        Self { status: 422, body: Box::new(json!({"detail": problems})), error_type, retry_after: None, about: None }
    }

    /// One thing that is wrong with the request.
    pub fn field(loc: &[&str], kind: &str, message: &str) -> Self {
        Self::input(&[json!({"loc": loc, "msg": message, "type": kind})])
    }

    /// Nobody knows the request, or it is another project's.
    pub fn unknown_request() -> Self {
        Self {
            status: 404,
            body: Box::new(json!({"status": "NOT_FOUND"})),
            error_type: String::new(),
            retry_after: None,
            about: None,
        }
    }

    /// What the catalogue does not sell.
    pub fn unknown_application(endpoint: &str) -> Self {
        let alias = endpoint.split('/').nth(1).unwrap_or(endpoint);
        Self {
            body: Box::new(json!({"detail": format!("Application \"{alias}\" not found")})),
            ..Self::request(404, "", "not_found")
        }
    }

    /// The application is there, the path below it is not.
    pub fn unknown_path(path: &str) -> Self {
        Self {
            body: Box::new(json!({"detail": format!("Path {path} not found")})),
            ..Self::request(404, "", "not_found")
        }
    }

    /// The result of a request that has not ended.
    pub fn in_progress() -> Self {
        Self {
            body: Box::new(json!({"detail": "Request is still in progress"})),
            ..Self::request(400, "", "bad_request")
        }
    }

    /// The cancellation of a request that has ended.
    pub fn already_completed() -> Self {
        Self { body: Box::new(json!({"status": "ALREADY_COMPLETED"})), ..Self::request(400, "", "bad_request") }
    }

    /// The address takes another method.
    pub fn wrong_method() -> Self {
        Self { body: Box::new(json!({"detail": "Method Not Allowed"})), ..Self::request(405, "", "bad_request") }
    }

    /// Names the request that it is about.
    #[must_use]
    pub fn about(self, id: GenerationId) -> Self {
        Self { about: Some(id), ..self }
    }

    /// Whether it is no fault of the request, so that its client may send it again.
    pub fn is_server_error(&self) -> bool {
        self.status >= 500
    }

    /// The status and the body.
    pub fn into_parts(self) -> (u16, Value) {
        (self.status, *self.body)
    }

    /// Why a generation brought nothing, as fal tells a failed run.
    pub fn of_failure(id: GenerationId, failure: &Failure) -> Self {
        let message = &failure.message;
        match failure.kind {
            FailureKind::InvalidInput | FailureKind::InputUnreadable | FailureKind::ContentPolicy => {
                let problem = |problem: &crate::providers::InputProblem| {
                    let loc: Vec<Value> = std::iter::once(json!("body")).chain(problem.path.iter().cloned()).collect();
                    let mut item = json!({"loc": loc, "msg": problem.message, "type": problem.code});
                    if !problem.categories.is_empty() {
                        item["categories"] = json!(problem.categories);
                    }
                    item
                };
                let problems: Vec<Value> = failure.problems.iter().map(problem).collect();
                let kind =
                    if failure.kind == FailureKind::ContentPolicy { "content_policy_violation" } else { "value_error" };
                if problems.is_empty() { Self::field(&["body"], kind, message) } else { Self::input(&problems) }
            }
            FailureKind::NoImages => Self::field(&["body"], "no_media_generated", message),
            FailureKind::Cancelled => Self::request(499, "Request was cancelled", "client_cancelled"),
            _ => Self::from(failure_problem(id, failure, None)),
        }
    }

    /// For people, as a status tells it.
    pub fn error(&self) -> String {
        let first = &self.body["detail"][0]["msg"];
        first.as_str().or_else(|| self.body["detail"].as_str()).unwrap_or_default().to_owned()
    }

    /// For programs, as a status tells it.
    pub fn error_type(&self) -> &str {
        &self.error_type
    }

    /// The answer; the frame around the request leaves it as it is.
    pub fn answer(&self, request: &HttpRequest) -> HttpResponse {
        request.extensions_mut().insert(Verbatim);
        let mut response =
            HttpResponse::build(StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
        if self.body.get("error_type").is_some() {
            response.insert_header(("x-fal-error-type", self.error_type.clone()));
        }
        if self.status == 504 {
            // Final: fal's clients would send it again, and it may still be delivered.
            response.insert_header(("x-fal-request-timeout-type", "user"));
        }
        if let Some(id) = self.about {
            response.insert_header(("x-fal-request-id", id.to_string()));
            response.insert_header(("x-imagegate-generation-id", id.to_string()));
        }
        if let Some(seconds) = self.retry_after {
            response.insert_header((RETRY_AFTER, seconds.to_string()));
        }
        response.json(&self.body)
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let error = problem.error();
        let message = error["message"].as_str().unwrap_or_default();
        let retry_after = problem.wait().map(|wait| wait.as_secs().max(1));
        let request =
            |status: u16, detail: String, kind: &str| Self { retry_after, ..Self::request(status, detail, kind) };
        match problem.code() {
            Code::InvalidParameters => match error["data"].as_array() {
                Some(problems) if !problems.is_empty() => {
                    Self::input(&problems.iter().map(input_problem).collect::<Vec<_>>())
                }
                _ => Self::field(&["body"], "value_error", message),
            },
            Code::InvalidJson => Self::field(&["body"], "json_invalid", message),
            Code::ContentPolicyViolation => Self::field(&["body", "prompt"], "content_policy_violation", message),
            Code::NoImage => Self::field(&["body"], "no_media_generated", message),
            // fal's own words for it, by which its clients' users know it.
            Code::InsufficientCredits => {
                request(403, format!("User is locked. Reason: Exhausted balance. {message}"), "user_locked")
            }
            Code::RateLimitExceeded => request(429, message.to_owned(), "concurrent_requests_limit"),
            Code::ServiceUnavailable => request(503, message.to_owned(), "runner_scheduling_failure"),
            Code::DeadlineExceeded => request(504, message.to_owned(), "request_timeout"),
            Code::UpstreamError => request(502, message.to_owned(), "runner_server_error"),
            Code::InternalError => request(500, message.to_owned(), "internal_error"),
            code => request(code.status().as_u16(), message.to_owned(), "bad_request"),
        }
    }
}

/// An entry of our problem list as one of fal's.
fn input_problem(entry: &Value) -> Value {
    let path = entry["path"].as_array().cloned().unwrap_or_default();
    let loc: Vec<Value> = std::iter::once(json!("body")).chain(path).collect();
    let counted = entry["type"].as_str().unwrap_or_default();
    let limit = |name: &str, kind: &str, word: &str| (kind.to_owned(), json!({ word: entry[name].clone() }));
    let (kind, context) = match (entry["code"].as_str().unwrap_or_default(), counted) {
        ("invalid_type", _) if entry["received"] == "undefined" => ("missing".to_owned(), Value::Null),
        ("invalid_type", _) => {
            let kind = match entry["expected"].as_str().unwrap_or_default() {
                "integer" => "int_type",
                "number" => "float_type",
                "boolean" => "bool_type",
                "array" => "list_type",
                "object" => "dict_type",
                _ => "string_type",
            };
            (kind.to_owned(), Value::Null)
        }
        ("too_small", "string") => limit("minimum", "string_too_short", "min_length"),
        ("too_small", "array") => limit("minimum", "sequence_too_short", "min_length"),
        ("too_small", _) => limit("minimum", "greater_than_equal", "ge"),
        ("too_big", "string") => limit("maximum", "string_too_long", "max_length"),
        ("too_big", "array") => limit("maximum", "sequence_too_long", "max_length"),
        ("too_big", _) => limit("maximum", "less_than_equal", "le"),
        ("not_multiple_of", _) => limit("multipleOf", "multiple_of", "multiple_of"),
        ("invalid_enum_value", _) => limit("options", "one_of", "expected"),
        _ => ("value_error".to_owned(), Value::Null),
    };
    let mut problem = json!({"loc": loc, "msg": entry["message"], "type": kind});
    if !context.is_null() {
        problem["ctx"] = context;
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_problems_are_told_in_fals_words() {
        let data = json!([
            {"code": "too_big", "path": ["guidance_scale"], "message": "m", "type": "number", "maximum": 20},
            {"code": "invalid_type", "path": ["prompt"], "message": "m", "expected": "string", "received": "undefined"},
            {"code": "invalid_enum_value", "path": ["loras", 0, "x"], "message": "m", "options": ["a"]},
        ]);
        let refusal = Refusal::from(Problem::new(Code::InvalidParameters, "x").data(data));
        assert_eq!((refusal.status, refusal.error_type(), refusal.error()), (422, "less_than_equal", "m".to_owned()));
        assert_eq!(
            refusal.body["detail"],
            json!([
                {"loc": ["body", "guidance_scale"], "msg": "m", "type": "less_than_equal", "ctx": {"le": 20}},
                {"loc": ["body", "prompt"], "msg": "m", "type": "missing"},
                {"loc": ["body", "loras", 0, "x"], "msg": "m", "type": "one_of", "ctx": {"expected": ["a"]}},
            ])
        );
    }

    #[test]
    fn a_failed_run_is_told_as_fal_tells_it() {
        let id = GenerationId::from_uuid(uuid::Uuid::nil());
        let told = |kind| {
            let refusal = Refusal::of_failure(id, &Failure::new(kind, "m"));
            (refusal.status, refusal.error_type)
        };
        assert_eq!(told(FailureKind::ContentPolicy), (422, "content_policy_violation".to_owned()));
        assert_eq!(told(FailureKind::NoImages), (422, "no_media_generated".to_owned()));
        assert_eq!(told(FailureKind::Cancelled), (499, "client_cancelled".to_owned()));
        assert_eq!(told(FailureKind::Overloaded), (503, "runner_scheduling_failure".to_owned()));
        assert_eq!(told(FailureKind::TimedOut), (504, "request_timeout".to_owned()));
        assert_eq!(told(FailureKind::Account), (502, "runner_server_error".to_owned()));
    }
}
