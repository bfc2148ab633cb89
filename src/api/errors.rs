//! Turns the rooms' errors into problems: the only file that knows both.

use serde_json::{Value, json};
use std::time::Duration;

use super::rates::limit_problem;
use crate::accounts::{AccountsError, AuthError, UploadLimit};
use crate::catalogue::{self, JsonError, Kind, Model, Parameter, PriceError, Rejection};
use crate::domain::GenerationId;
use crate::gateway::{CallError, EraseError, GenerateError};
use crate::http::{Code, LONGEST_MESSAGE, Problem, shortened};
use crate::ledger::{LedgerError, ReserveError};
use crate::providers::{Failure, FailureKind, HookError};

/// The name of a field is repeated up to this many bytes.
const LONGEST_FIELD: usize = 120;
/// When to come back if the database or the provider is away.
const COME_BACK: Duration = Duration::from_secs(2);

impl From<JsonError> for Problem {
    fn from(fault: JsonError) -> Self {
        let message = fault.to_string();
        let data = json!([{"code": "invalid_json", "path": [], "message": fault.message, "line": fault.line, "column": fault.column}]);
        Self::new(Code::InvalidJson, message).data(data)
    }
}

impl From<GenerateError> for Problem {
    fn from(fault: GenerateError) -> Self {
        match fault {
            GenerateError::NotJson(fault) => fault.into(),
            GenerateError::Rejected(rejection) => rejection.into(),
            GenerateError::FallbackRejected { model, rejection } => fallback_problem(&model, rejection),
            GenerateError::Price(PriceError::Unpriced) => {
                Self::new(Code::ModelNotFound, "this model is not on offer: it has no known price").param("model")
            }
            GenerateError::Price(_) | GenerateError::NoProvider(_) | GenerateError::IdTaken(_) => {
                tracing::error!(%fault, "an order cannot be served");
                Self::new(Code::InternalError, "this model cannot be served: the gateway's catalogue is at fault")
            }
        }
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::UnknownModel { model, nearest } => {
                let model = shortened(model, LONGEST_FIELD);
                let hint = match &nearest {
                    Some(nearest) => format!("; did you mean `{nearest}`? `GET /v1/models` lists all of them"),
                    None => "; `GET /v1/models` lists all of them".to_owned(),
                };
                let message = format!("the model `{model}` does not exist{hint}");
                let data = json!([{"code": "model_not_found", "path": ["model"], "message": message, "received": model, "nearest": nearest}]);
                Self::new(Code::ModelNotFound, message).param("model").data(data)
            }
            Rejection::Withdrawn { model, replaced_by } => {
                let hint = replaced_by.as_ref().map(|other| format!("; use `{other}`")).unwrap_or_default();
                let message = format!("the model `{model}` was withdrawn{hint}");
                Self::new(Code::ModelWithdrawn, message).param("model").data(json!({"replaced_by": replaced_by}))
            }
            Rejection::Unpriced { model } => {
                let message = format!("the model `{model}` is not on offer: it has no known price");
                Self::new(Code::ModelNotFound, message).param("model")
            }
            Rejection::Invalid(problems) => invalid(&problems),
        }
    }
}

/// What keeps a request from a model that it names as a fallback; each entry names the model.
fn fallback_problem(model: &str, rejection: Rejection) -> Problem {
    let Rejection::Invalid(problems) = rejection else {
        return invalid_field("fallbacks", &rejection.to_string());
    };
    let entry = |problem: &catalogue::Problem| {
        let mut entry = json!(problem);
        entry["message"] = json!(format!("for the fallback `{model}`: {}", problem.message));
        entry["model"] = json!(model);
        entry
    };
    let first = problems.first().map(|problem| problem.message.as_str()).unwrap_or_default();
    let message = format!("Invalid payload provided: it does not fit the fallback `{model}`: {first}");
    let param = problems.first().map(catalogue::Problem::dotted_path).filter(|path| !path.is_empty());
    Problem::new(Code::InvalidParameters, message)
        .param(param.unwrap_or_else(|| "fallbacks".to_owned()))
        .data(problems.iter().map(entry).collect())
}

/// Every problem of a request at once.
fn invalid(problems: &[catalogue::Problem]) -> Problem {
    let first = problems.first();
    let message = match (first, problems.len()) {
        (Some(only), 1) => format!("Invalid payload provided: {}", only.message),
        (Some(first), count) => format!("Invalid payload provided: {count} problems; the first: {}", first.message),
        (None, _) => "Invalid payload provided".to_owned(),
    };
    let problem = Problem::new(Code::InvalidParameters, message).data(json!(problems));
    match first.map(catalogue::Problem::dotted_path).filter(|path| !path.is_empty()) {
        Some(path) => problem.param(path),
        None => problem,
    }
}

/// A problem in one field of a request.
#[must_use]
pub fn invalid_field(field: &str, message: &str) -> Problem {
    let field = &*shortened(field.to_owned(), LONGEST_FIELD);
    Problem::new(Code::InvalidParameters, format!("Invalid payload provided: `{field}`: {message}"))
        .param(field)
        .data(json!([entry(field, message)]))
}

/// The entry of `error.data` about one field.
pub(super) fn entry(field: &str, message: &str) -> Value {
    json!({"code": "custom", "path": [field], "message": shortened(message.to_owned(), LONGEST_MESSAGE)})
}

/// A key that is not good, whyever. The sentence begins as OpenAI's does: `LiteLLM` tells a bad key by these words.
#[must_use]
pub fn bad_key_problem() -> Problem {
    Problem::new(Code::InvalidApiKey, "Incorrect API key provided: it is not valid here")
}

/// Why a key is not accepted. Only a typing error gets a text of its own: its checksum shows it, whatever keys there are.
#[must_use]
pub fn key_problem(reason: AuthError) -> Problem {
    match reason {
        AuthError::Mistyped => Problem::new(
            Code::InvalidApiKey,
            "Incorrect API key provided: it is mistyped, since its checksum does not fit; copy it again as a whole",
        ),
        _ => bad_key_problem(),
    }
}

/// Why nothing could be reserved. `Duplicate` is no error: the caller joins that generation.
#[must_use]
pub fn reserve_problem(fault: &ReserveError) -> Problem {
    match fault {
        ReserveError::InsufficientCredit { available, needed } => Problem::new(
            Code::InsufficientCredits,
            format!("You've run out of credits. This request may cost {needed} USD, and {available} USD are left."),
        )
        // AIML's own spelling; its clients match on it.
        .data(json!({"kind": "err_insufficent_credits", "available_usd": available, "needed_usd": needed})),
        ReserveError::SpendLimitReached { limit, used, needed } => Problem::new(
            Code::InsufficientCredits,
            format!(
                "{used} of this month's spend limit of {limit} USD are used, and this request may cost {needed} USD"
            ),
        )
        .data(json!({"kind": "err_spend_limit_reached", "limit_usd": limit, "used_usd": used, "needed_usd": needed})),
        ReserveError::BudgetReached { budget, used, needed } => Problem::new(
            Code::InsufficientCredits,
            format!("{used} of this key's budget of {budget} USD are used, and this request may cost {needed} USD"),
        )
        .data(json!({"kind": "err_key_budget_reached", "limit_usd": budget, "used_usd": used, "needed_usd": needed})),
        ReserveError::OrganizationLimitReached => {
            let message = "this month's spend limit of the whole organization does not cover this request";
            Problem::new(Code::InsufficientCredits, message).data(json!({"kind": "err_organization_limit_reached"}))
        }
        ReserveError::LimitReached(reached) => limit_problem(reached),
        ReserveError::ProjectArchived | ReserveError::KeyRevoked | ReserveError::UnknownCaller => bad_key_problem(),
        ReserveError::SameKeyOtherBody => Problem::new(
            Code::IdempotencyKeyReused,
            "this `Idempotency-Key` was used with another body; send another key for another request",
        )
        .param("Idempotency-Key"),
        ReserveError::Overloaded => {
            let message =
                "more requests are waiting than this gateway can take soon, so it was not run; try again soon";
            Problem::new(Code::ServiceUnavailable, message).retry_after(COME_BACK)
        }
        ReserveError::Unavailable(reason) | ReserveError::OutcomeUnknown(reason) => unavailable(reason),
        other => {
            tracing::error!(fault = %other, "a request could not be reserved");
            Problem::new(Code::InternalError, "the request could not be recorded, so it was not run")
        }
    }
}

impl From<AccountsError> for Problem {
    fn from(fault: AccountsError) -> Self {
        match fault {
            AccountsError::UnknownProject
            | AccountsError::UnknownKey
            | AccountsError::UnknownServiceAccount
            | AccountsError::UnknownSpendAlert
            | AccountsError::UnknownAlias
            | AccountsError::UnknownFile => Self::new(Code::NotFound, fault.to_string()),
            AccountsError::UploadLimit(limit) => upload_limit_problem(limit),
            AccountsError::Invalid(message) => Self::new(Code::InvalidParameters, message),
            AccountsError::ProjectArchived
            | AccountsError::DefaultProject
            | AccountsError::GivenBySetting(_)
            | AccountsError::AliasGiven
            | AccountsError::LastOwner => Self::new(Code::Conflict, fault.to_string()),
            other if other.is_unavailable() => unavailable(&other.to_string()),
            other => {
                tracing::error!(fault = %other, "the accounts cannot be changed");
                Self::new(Code::InternalError, "the accounts cannot be read or changed")
            }
        }
    }
}

/// An upload would pass a limit of the project; `error.data` names it.
fn upload_limit_problem(reached: UploadLimit) -> Problem {
    let message = reached.to_string();
    match reached {
        UploadLimit::BytesPerDay { limit, used, resets_in, .. } => Problem::new(Code::RateLimitExceeded, message)
            .data(json!({"kind": "err_upload_bytes_per_day", "limit": limit, "used": used}))
            .retry_after(resets_in),
        UploadLimit::LargerThanADay { limit, .. } => Problem::new(Code::PermissionDenied, message)
            .data(json!({"kind": "err_upload_bytes_per_day", "limit": limit})),
        UploadLimit::KeptFiles { limit, kept } => Problem::new(Code::PermissionDenied, message)
            .data(json!({"kind": "err_kept_files", "limit": limit, "used": kept})),
    }
}

impl From<LedgerError> for Problem {
    fn from(fault: LedgerError) -> Self {
        match fault {
            LedgerError::SameIdOtherAmount => Self::new(
                Code::IdempotencyKeyReused,
                "this `Idempotency-Key` was used with another amount; send another key for another credit",
            )
            .param("Idempotency-Key"),
            LedgerError::BalanceTooLarge => invalid_field("amount_usd", &fault.to_string()),
            LedgerError::Unavailable(reason) => unavailable(&reason),
            other => {
                tracing::error!(fault = %other, "the books cannot be read");
                Self::new(Code::InternalError, "the books cannot be read")
            }
        }
    }
}

impl From<EraseError> for Problem {
    fn from(error: EraseError) -> Self {
        let message = error.to_string();
        match error {
            EraseError::Unknown(_) => Self::new(Code::NotFound, message).param("id"),
            EraseError::Open(_) | EraseError::NoStorage(_) => Self::new(Code::Conflict, message),
            EraseError::Storage(..) => {
                tracing::warn!(error = message, "kept images cannot be removed");
                Self::new(Code::ServiceUnavailable, "the kept images cannot be removed now, so nothing was erased")
                    .retry_after(COME_BACK)
            }
            EraseError::Accounts(error) => error.into(),
        }
    }
}

impl From<CallError> for Problem {
    fn from(fault: CallError) -> Self {
        let message = fault.to_string();
        match fault {
            CallError::Hook(HookError::Replayed) => Self::new(Code::Conflict, message),
            CallError::Hook(HookError::KeysUnavailable(_)) => {
                Self::new(Code::ServiceUnavailable, "the call cannot be verified now").retry_after(COME_BACK)
            }
            CallError::Hook(_) | CallError::NotOurs => Self::new(Code::PermissionDenied, message),
            CallError::UnknownGeneration => Self::new(Code::NotFound, message),
            CallError::Ledger(fault) => fault.into(),
        }
    }
}

fn unavailable(reason: &str) -> Problem {
    tracing::error!(reason, "the database is away");
    Problem::new(Code::ServiceUnavailable, "the request cannot be recorded now, so it was not run; try again soon")
        .retry_after(COME_BACK)
}

/// Why a client's input file is not taken by the storage of `whose`, such as `fal's`.
#[must_use]
pub fn upload_problem(whose: &str, failure: &Failure) -> Problem {
    tracing::warn!(reason = failure.message, "{whose} storage does not take a client's file");
    let is_ours = failure.kind == FailureKind::Account;
    let code = if is_ours { Code::UpstreamError } else { Code::ServiceUnavailable };
    Problem::new(code, format!("{whose} storage does not take files now"))
}

/// How a generation that did not succeed is told to its client.
#[must_use]
pub fn failure_problem(id: GenerationId, failure: &Failure, model: Option<&Model>) -> Problem {
    let message = &failure.message;
    let problem = match failure.kind {
        FailureKind::InvalidInput | FailureKind::InputUnreadable => {
            let data = input_problems(failure, model);
            let param = data.first().and_then(dotted).unwrap_or_default();
            let problem = Problem::new(Code::InvalidParameters, format!("the provider refuses the input: {message}"));
            let problem = if param.is_empty() { problem } else { problem.param(param) };
            problem.data(Value::Array(data))
        }
        FailureKind::ContentPolicy => {
            Problem::new(Code::ContentPolicyViolation, format!("the provider's content policy refuses this: {message}"))
                .data(moderation_data(failure, model))
        }
        FailureKind::Account => Problem::new(
            Code::UpstreamError,
            "the provider refuses this gateway's own account; the operator has been told",
        ),
        FailureKind::ModelGone => {
            Problem::new(Code::ModelNotFound, "the provider no longer has this model").param("model")
        }
        FailureKind::Overloaded => {
            Problem::new(Code::ServiceUnavailable, "the provider cannot take the request now; nothing was charged")
                .retry_after(failure.retry_after.unwrap_or(COME_BACK))
        }
        FailureKind::NotSubmitted => Problem::new(
            Code::ServiceUnavailable,
            "this gateway was interrupted before it submitted the request; nothing was charged, try again",
        )
        .retry_after(COME_BACK),
        FailureKind::Run => {
            Problem::new(Code::UpstreamError, format!("the provider failed to make the image: {message}"))
        }
        FailureKind::NoImages => {
            Problem::new(Code::NoImage, "the provider finished without an image; nothing was charged")
        }
        FailureKind::Cancelled => {
            Problem::new(Code::InvalidRequest, format!("generation `{id}` was cancelled; nothing was charged"))
        }
        FailureKind::Lost => Problem::new(
            Code::UpstreamError,
            format!("the provider has lost the request: {message}; nothing was charged"),
        ),
        FailureKind::TimedOut | FailureKind::Unclear => Problem::new(
            Code::DeadlineExceeded,
            format!("generation `{id}` came to no end in time; nothing was charged"),
        ),
    };
    named(problem, id)
}

/// The deadline has passed; what becomes of the generation is still awaited.
#[must_use]
pub fn overdue_problem(id: GenerationId) -> Problem {
    let message = format!(
        "the image was not ready by its deadline. The provider was asked to give it up; if it is delivered all the same, \
         it is charged and can be fetched at /v1/images/generations/{id}"
    );
    named(Problem::new(Code::DeadlineExceeded, message).data(json!({"generation_id": id})), id)
}

fn named(problem: Problem, id: GenerationId) -> Problem {
    problem.header("x-imagegate-generation-id", &id.to_string())
}

/// What a refusal of the content policy says for programs; `categories` only where the provider names some.
fn moderation_data(failure: &Failure, model: Option<&Model>) -> Value {
    let mut data = json!({"kind": "moderation_blocked", "problems": input_problems(failure, model)});
    let mut categories: Vec<&str> = Vec::new();
    for category in failure.problems.iter().flat_map(|problem| &problem.categories) {
        if !categories.contains(&category.as_str()) {
            categories.push(category);
        }
    }
    if !categories.is_empty() {
        data["categories"] = json!(categories);
    }
    data
}

/// The provider's list in our form, with our parameter names.
fn input_problems(failure: &Failure, model: Option<&Model>) -> Vec<Value> {
    let entry = |problem: &crate::providers::InputProblem| {
        let path = our_path(model.map(|model| model.parameters.as_slice()).unwrap_or_default(), &problem.path);
        let mut entry =
            json!({"code": "custom", "path": path, "message": problem.message, "provider_code": problem.code});
        if let Value::Object(entry) = &mut entry {
            entry.extend(problem.limits.clone());
            if !problem.categories.is_empty() {
                entry.insert("categories".to_owned(), json!(problem.categories));
            }
        }
        entry
    };
    if failure.problems.is_empty() {
        return vec![json!({"code": "custom", "path": [], "message": failure.message})];
    }
    failure.problems.iter().map(entry).collect()
}

/// A path in the provider's names, in ours as far as the model has them.
fn our_path(mut known: &[Parameter], theirs: &[Value]) -> Vec<Value> {
    let mut ours = Vec::with_capacity(theirs.len());
    for part in theirs {
        let Some(name) = part.as_str() else {
            ours.push(part.clone());
            continue;
        };
        let found = known.iter().find(|parameter| parameter.provider_name == name);
        ours.push(found.map_or_else(|| part.clone(), |parameter| json!(parameter.name)));
        let mut kind = found.map(|parameter| &parameter.kind);
        while let Some(Kind::List(rule)) = kind {
            kind = Some(&rule.items);
        }
        known = match kind {
            Some(Kind::Object(rule)) => &rule.fields,
            _ => &[],
        };
    }
    ours
}

fn dotted(entry: &Value) -> Option<String> {
    let parts: Vec<String> = entry
        .get("path")?
        .as_array()?
        .iter()
        .map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned))
        .collect();
    Some(parts.join("."))
}
