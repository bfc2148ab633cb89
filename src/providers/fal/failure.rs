//! fal's errors in neutral words: both body families, every documented type.

use serde_json::Value;

use super::wire;
use crate::domain::Fixed;
use crate::providers::outcome::{Failure, FailureKind, InputProblem};

/// An HTTP answer of fal, as far as errors are concerned.
pub(super) struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
    /// `x-fal-error-type`.
    pub error_type: Option<&'a str>,
    /// `x-fal-billable-units`.
    pub units: Option<&'a str>,
}

/// Reads an error answer. `{"detail":[…]}` comes from the model, `{"detail":"…","error_type":"…"}` from fal's front, and
/// older applications answer `{"detail":"…"}` even with 422.
pub(super) fn read_failure(answer: &Answer<'_>) -> Failure {
    let body: Value = serde_json::from_slice(answer.body).unwrap_or(Value::Null);
    let detail = body.get("detail");
    let problems: Vec<InputProblem> = detail
        .and_then(Value::as_array)
        .map(|items| items.iter().filter_map(read_problem).collect())
        .unwrap_or_default();
    let error_type = body
        .get("error_type")
        .and_then(Value::as_str)
        .or(answer.error_type)
        .or_else(|| problems.first().map(|problem| problem.code.as_str()));
    let message = detail
        .and_then(Value::as_str)
        .map(str::to_owned)
        .or_else(|| problems.first().map(|problem| problem.message.clone()))
        .unwrap_or_else(|| format!("fal answered with status {}", answer.status));
    let mut failure = Failure::new(kind_of(answer.status, error_type), message);
    failure.billable_units = answer.units.and_then(wire::read_units);
    if matches!(failure.kind, FailureKind::InvalidInput | FailureKind::ContentPolicy | FailureKind::InputUnreadable) {
        failure.problems = problems;
    }
    failure
}

/// The failure that a status answer tells of when its result cannot be read: `error` and `error_type`.
pub(super) fn from_status(error: &Value, error_type: Option<&str>, units: Option<Fixed>) -> Failure {
    let message = error.as_str().map_or_else(|| error.to_string(), str::to_owned);
    let mut failure = Failure::new(kind_of(500, error_type), message);
    failure.billable_units = units;
    failure
}

fn read_problem(item: &Value) -> Option<InputProblem> {
    let message = item.get("msg")?.as_str()?.to_owned();
    let code = item.get("type").and_then(Value::as_str).unwrap_or("invalid").to_owned();
    let mut path: Vec<Value> = item.get("loc").and_then(Value::as_array).cloned().unwrap_or_default();
    if path.first().is_some_and(|part| part == "body") {
        path.remove(0);
    }
    let context = item.get("ctx");
    let told = |name: &str| context.and_then(|context| context.get(name)).filter(|value| !value.is_null()).cloned();
    let limits = LIMITS.iter().filter_map(|(theirs, ours)| Some(((*ours).to_owned(), told(theirs)?))).collect();
    let categories = item.get("categories").and_then(Value::as_array).into_iter().flatten();
    let categories = categories.filter_map(Value::as_str).map(str::to_owned).collect();
    Some(InputProblem { code, path, message, limits, categories })
}

/// The limits in a problem's `ctx`, in pydantic's words (<https://docs.pydantic.dev/latest/errors/validation_errors/>) and in
/// JSON Schema's.
const LIMITS: &[(&str, &str)] = &[
    ("ge", "minimum"),
    ("gt", "exclusiveMinimum"),
    ("le", "maximum"),
    ("lt", "exclusiveMaximum"),
    ("multiple_of", "multipleOf"),
    ("min_length", "minimum"),
    ("max_length", "maximum"),
    ("enum_values", "options"),
];

/// Which kind of failure a type and a status tell of. A type says more than a status, so it is asked first.
fn kind_of(status: u16, error_type: Option<&str>) -> FailureKind {
    match error_type.unwrap_or_default() {
        "content_policy_violation" => return FailureKind::ContentPolicy,
        "no_media_generated" => return FailureKind::NoImages,
        "image_load_error"
        | "file_download_error"
        | "image_too_small"
        | "image_too_large"
        | "file_too_large"
        | "unsupported_image_format"
        | "face_detection_error"
        | "invalid_archive" => {
            // A size that is asked for is refused under the same name as an input image that is too large.
            return FailureKind::InputUnreadable;
        }
        "generation_timeout" | "request_timeout" | "startup_timeout" => return FailureKind::TimedOut,
        "runner_scheduling_failure"
        | "runner_connection_timeout"
        | "runner_disconnected"
        | "runner_connection_refused"
        | "runner_connection_error"
        | "downstream_service_unavailable"
        | "concurrent_requests_limit" => return FailureKind::Overloaded,
        "runner_incomplete_response"
        | "runner_server_error"
        | "internal_error"
        | "internal_server_error"
        | "downstream_service_error" => return FailureKind::Run,
        "client_disconnected" | "client_cancelled" => return FailureKind::Cancelled,
        _ => {}
    }
    match status {
        // A locked user (exhausted balance) and a key without access both answer 403.
        401..=403 => FailureKind::Account,
        404 | 410 => FailureKind::ModelGone,
        408 | 504 => FailureKind::TimedOut,
        429 | 503 => FailureKind::Overloaded,
        499 => FailureKind::Cancelled,
        400..=499 => FailureKind::InvalidInput,
        _ => FailureKind::Run,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, body: &str) -> Failure {
        read_failure(&Answer { status, body: body.as_bytes(), error_type: None, units: None })
    }

    #[test]
    fn a_detail_list_becomes_input_problems_without_the_body_prefix() {
        let failure = failure(
            422,
            r#"{"detail":[{"loc":["body","image_size","width"],"msg":"Input should be less than or equal to 14142","type":"less_than_equal","ctx":{"le":14142},"input":20000}]}"#,
        );
        assert_eq!(failure.kind, FailureKind::InvalidInput);
        assert_eq!(failure.problems[0].path, ["image_size", "width"]);
        assert_eq!(failure.problems[0].code, "less_than_equal");
        assert_eq!(Value::from(failure.problems[0].limits.clone()), serde_json::json!({"maximum": 14142}));
    }

    #[test]
    fn a_refusal_of_the_content_policy_keeps_its_categories() {
        let of = |categories: &str| {
            let item = r#"{"loc":["body","prompt"],"msg":"flagged","type":"content_policy_violation""#;
            failure(422, &format!(r#"{{"detail":[{item}{categories}}}]}}"#)).problems.remove(0).categories
        };
        assert_eq!(of(r#","categories":["sexual","model_moderated"]"#), ["sexual", "model_moderated"]);
        for none in ["", r#","categories":null"#, r#","categories":[]"#, r#","categories":"sexual""#] {
            assert!(of(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn every_family_of_errors_has_its_kind() {
        use FailureKind::{
            Account, Cancelled, ContentPolicy, InputUnreadable, InvalidInput, ModelGone, NoImages, Overloaded, Run,
            TimedOut,
        };
        for (status, body, kind) in [
            (
                401,
                r#"{"detail":"Cannot access application \"fal-ai/flux-2-dev\". Authentication is required to access this application."}"#,
                Account,
            ),
            (
                403,
                r#"{"detail":"User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."}"#,
                Account,
            ),
            (404, r#"{"detail":"Application \"h3-max\" not found"}"#, ModelGone),
            (
                422,
                r#"{"detail":[{"loc":["body","prompt"],"msg":"flagged","type":"content_policy_violation"}]}"#,
                ContentPolicy,
            ),
            (
                422,
                r#"{"detail":[{"loc":["body","image_url"],"msg":"Failed to load","type":"image_load_error"}]}"#,
                InputUnreadable,
            ),
            (422, r#"{"detail":[{"loc":["body"],"msg":"none","type":"no_media_generated"}]}"#, NoImages),
            (422, r#"{"detail":"some string"}"#, InvalidInput),
            (429, r#"{"detail":"too many"}"#, Overloaded),
            (499, "", Cancelled),
            (500, r#"{"detail":"Internal Server Error"}"#, Run),
            (503, r#"{"detail":"x","error_type":"runner_scheduling_failure"}"#, Overloaded),
            (504, r#"{"detail":"Request timed out","error_type":"request_timeout"}"#, TimedOut),
        ] {
            assert_eq!(failure(status, body).kind, kind, "{status} {body}");
        }
    }
}
