//! `/admin/v1/projects/{id}`: a project's terms and limits, and its credits; `/admin/v1/organization`: what all may spend.

#![expect(clippy::option_option, reason = "in a patch, absent leaves and null lifts")]

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;
use validator::Validate;

use super::erasures::ErasureView;
use super::permits::{AdaptText, read_adapt};
use super::shapes::{accounts_of, not_blank};
use crate::accounts::{Adapt, AdminAction, AuditEvent, Policy, ProjectChange, ProjectRecord, RateLimit};
use crate::api::access::{AdminCaller, action};
use crate::api::errors::invalid_field;
use crate::api::{Services, Whole, fixed_body, idempotency_key};
use crate::domain::{Money, ProjectId, Timestamp};
use crate::http::{Code, Problem, ProblemBody};
use crate::ledger::{ANY_MODEL, Applied, Credit, CreditKind};

/// Longest retention of prompts: ten years, in seconds.
const LONGEST_RETENTION: u64 = 315_360_000;

/// Tells "null" (lift it) from "absent" (leave it).
pub fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

/// What is to be different about a project. What is absent stays; null lifts.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectPatch {
    /// Its name.
    #[validate(length(min = 1, max = 200, message = "has 1 to 200 characters"))]
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// Whether it may spend no more than its balance.
    prepaid: Option<bool>,
    /// The most that a calendar month (UTC) may cost, in US dollars as a decimal string; null lifts the limit.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, pattern = "^([0-9]{1,9}|[0-8][0-9]{9})(\\.[0-9]{1,9})?$", example = "100.00")]
    spend_limit_usd: Option<Option<Money>>,
    /// What its callers may not change; null lifts it.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<PolicyBody>)]
    policy: Option<Option<Policy>>,
    /// For how many seconds prompts are kept; zero keeps none. A shorter time holds for those that are kept already, within a
    /// minute.
    #[validate(range(max = 315_360_000, message = "is at most 315360000 (ten years)"))]
    #[schema(maximum = 315_360_000)]
    #[serde(default, deserialize_with = "Whole::optional")]
    prompt_retention_seconds: Option<u64>,
    /// How much may be asked for and be open at once.
    #[validate(nested)]
    limits: Option<LimitsPatch>,
    /// What may be changed of its requests so that they fit a model, where key and request do not say it; null or an empty
    /// list changes nothing.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<AdaptText>>, example = json!(["size"]))]
    adapt: Option<Option<Vec<String>>>,
    /// Whether a request joins an equal one of the same key whose client went away in the last two minutes, also if it does not say
    /// that it is sent again; null is false.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<bool>)]
    join_retries: Option<Option<bool>>,
}

/// How much may be asked for, be open at once, and be uploaded.
#[derive(Debug, Default, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsPatch {
    /// How many generations may be open at once; null lifts the limit.
    #[serde(default, deserialize_with = "Whole::given")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 2_147_483_647)]
    concurrent_generations: Option<Option<u32>>,
    /// All rate limits, in place of those before.
    rates: Option<Vec<RateBody>>,
    /// How many bytes of input files a day (UTC) may bring; null lifts the limit.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u64>, example = 10_737_418_240_u64)]
    upload_bytes_per_day: Option<Option<u64>>,
    /// How many uploaded files may be kept at once; null lifts the limit.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u64>, example = 10_000)]
    kept_files: Option<Option<u64>>,
}

/// How much of a model a project may ask for in any minute.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RateLimit)]
pub struct RateBody {
    /// A model's id; `*` stands for each model without a rate limit of its own.
    #[schema(example = "*")]
    model: String,
    /// Requests, above zero.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    #[serde(default, deserialize_with = "Whole::optional")]
    requests_per_minute: Option<u32>,
    /// Images, above zero.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    #[serde(default, deserialize_with = "Whole::optional")]
    images_per_minute: Option<u32>,
}

/// What the callers of a project may not change.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Policy)]
#[expect(dead_code, reason = "the document's picture of accounts::Policy")]
pub struct PolicyBody {
    /// The models it may use; every model when absent.
    allowed_models: Option<Vec<String>>,
    /// The models it may not use.
    denied_models: Option<Vec<String>>,
    /// Whether no request may switch the safety checker off.
    #[schema(nullable = false)]
    require_safety_checker: Option<bool>,
    /// The most that one request may cost, in US dollars as a decimal string.
    #[schema(pattern = "^([0-9]{1,9}|[0-8][0-9]{9})(\\.[0-9]{1,9})?$")]
    max_price_usd: Option<String>,
}

/// A project and its terms.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Project)]
pub struct ProjectView {
    /// Its id.
    id: String,
    /// Always `organization.project`.
    #[schema(example = "organization.project")]
    object: &'static str,
    /// Its name.
    name: String,
    /// `active` or `archived`.
    status: &'static str,
    /// When it was made, in Unix seconds.
    created_at: i64,
    /// Since when it may not be used, in Unix seconds.
    archived_at: Option<i64>,
    /// Whether it may spend no more than its balance.
    prepaid: bool,
    /// The sum of its ledger entries in US dollars; below zero what it owes.
    balance_usd: String,
    /// What is set aside for open generations, in US dollars.
    held_usd: String,
    /// What this month (UTC) was charged, in US dollars.
    spent_this_month_usd: String,
    /// The most that a month may cost.
    spend_limit_usd: Option<String>,
    /// What its callers may not change.
    #[schema(value_type = Option<PolicyBody>)]
    policy: Option<Policy>,
    /// For how many seconds prompts are kept.
    prompt_retention_seconds: i64,
    /// How much may be asked for and be open at once.
    limits: LimitsView,
    /// What may be changed of its requests so that they fit a model.
    #[schema(value_type = Option<Vec<AdaptText>>)]
    adapt: Option<Vec<&'static str>>,
    /// Whether a request joins an equal one of the same key whose client went away.
    join_retries: Option<bool>,
    /// The erasure of all that it has made; null if nobody has asked for it.
    content_erasure: Option<ErasureView>,
}

/// How much may be asked for and be open at once.
#[derive(Debug, Serialize, ToSchema)]
pub struct LimitsView {
    /// Generations at once.
    concurrent_generations: Option<u32>,
    /// In any minute.
    rates: Vec<RateBody>,
    /// Bytes of input files that a day (UTC) may bring.
    upload_bytes_per_day: Option<u64>,
    /// Uploaded files that may be kept at once.
    kept_files: Option<u64>,
}

/// Why a credit is booked.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = CreditKind)]
pub enum KindBody {
    /// Money paid in; above zero.
    TopUp,
    /// A mistake put right; above or below zero.
    Correction,
    /// A gift; above zero.
    Goodwill,
}

impl From<KindBody> for CreditKind {
    fn from(kind: KindBody) -> Self {
        match kind {
            KindBody::TopUp => Self::TopUp,
            KindBody::Correction => Self::Correction,
            KindBody::Goodwill => Self::Goodwill,
        }
    }
}

/// Money for a project, or a correction.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreditBody {
    /// US dollars as a decimal string; not zero, and above zero unless it is a correction.
    #[schema(value_type = String, pattern = "^(?!-?0+(\\.0+)?$)-?[0-9]{1,9}(\\.[0-9]{1,9})?$", example = "25.00")]
    amount_usd: Money,
    /// If not given, a top-up above zero and a correction below.
    #[serde(default)]
    #[schema(value_type = Option<KindBody>, example = "top_up")]
    kind: Option<KindBody>,
    /// Why, for those who read the ledger later.
    #[validate(length(min = 1, max = 500, message = "has 1 to 500 characters"), custom(function = "not_blank"))]
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// A booked credit.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProjectCredit)]
pub struct CreditView {
    /// Of the ledger transaction.
    id: String,
    /// Always `organization.project.credit`.
    #[schema(example = "organization.project.credit")]
    object: &'static str,
    /// The project.
    project_id: String,
    /// `top_up`, `correction` or `goodwill`.
    #[schema(example = "top_up")]
    kind: &'static str,
    /// US dollars with nine places.
    amount_usd: String,
    /// Why.
    reason: String,
    /// The key that booked it.
    author: String,
    /// The balance after it, in US dollars.
    balance_usd: String,
}

/// Retrieve a project
#[utoipa::path(
    get,
    path = "/admin/v1/projects/{id}",
    operation_id = "retrieveProject",
    tag = "admin",
    params(("id" = String, Path, description = "The project's id, or `default`.")),
    responses(
        (status = 200, description = "The project.", body = ProjectView),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "A project key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such project.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn retrieve_project(
    _: AdminCaller<action::View>,
    id: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let project = find(&services, &id).await?;
    Ok(HttpResponse::Ok().json(view(&services, project).await?))
}

/// Change a project's terms
///
/// What is absent stays as it is; null lifts. Reservations see the change at once, on every replica.
#[utoipa::path(
    patch,
    path = "/admin/v1/projects/{id}",
    operation_id = "updateProject",
    tag = "admin",
    params(("id" = String, Path, description = "The project's id, or `default`.")),
    request_body(content = ProjectPatch, content_type = "application/json"),
    responses(
        (status = 200, description = "The project as it is now.", body = ProjectView),
        (status = 400, description = "The body is wrong.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "A project key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such project.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "The project is archived: its name stays.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn update_project(
    caller: AdminCaller<action::Operate>,
    request: HttpRequest,
    id: web::Path<String>,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let patch: ProjectPatch = fixed_body(&request, &body)?;
    let limits = patch.limits.unwrap_or_default();
    for (field, limit) in
        [("limits.upload_bytes_per_day", limits.upload_bytes_per_day), ("limits.kept_files", limits.kept_files)]
    {
        if limit.flatten().is_some_and(|limit| i64::try_from(limit).is_err()) {
            return Err(invalid_field(field, "is at most 9223372036854775807"));
        }
    }
    let project = find(&services, &id).await?;
    let policy = match patch.policy {
        Some(Some(mut policy)) => {
            if let Some(models) = &mut policy.allowed_models {
                listed_models(&services, Some(project.id), models, "policy.allowed_models")?;
            }
            if let Some(models) = &mut policy.denied_models {
                listed_models(&services, Some(project.id), models, "policy.denied_models")?;
            }
            if policy.max_price_usd.is_some_and(|most| most < Money::ZERO) {
                return Err(invalid_field("policy.max_price_usd", "must not be negative"));
            }
            Some(Some(policy.text()))
        }
        lifted => lifted.map(|_| None),
    };
    let seconds = patch.prompt_retention_seconds.map(|seconds| seconds.min(LONGEST_RETENTION));
    let change = ProjectChange {
        name: patch.name,
        prepaid: patch.prepaid,
        spend_limit: patch.spend_limit_usd,
        policy,
        prompt_retention: seconds.and_then(|seconds| i64::try_from(seconds * 1_000_000).ok()),
        concurrency_limit: limits.concurrent_generations,
        upload_bytes_a_day: limits.upload_bytes_per_day,
        kept_files: limits.kept_files,
        adapt: read_adapt(patch.adapt)?,
        join_retries: patch.join_retries,
        rate_limits: limits.rates.map(|rates| rate_limits(&services, rates)).transpose()?,
    };
    if change.prepaid.is_some_and(|prepaid| prepaid != project.prepaid) {
        caller.may_change(AdminAction::Bill, "prepaid")?;
    }
    if change.spend_limit.is_some_and(|limit| limit != project.spend_limit) {
        caller.may_change(AdminAction::Bill, "spend_limit_usd")?;
    }
    let project = accounts_of(&request, &caller, &services).update_project(project.id, change).await?;
    Ok(HttpResponse::Ok().json(view(&services, project).await?))
}

/// Add credits to a project
///
/// Books a top-up, a correction or a gift with its reason and who did it. Past entries are never edited. With an `Idempotency-Key` a resend books nothing.
#[utoipa::path(
    post,
    path = "/admin/v1/projects/{id}/credits",
    operation_id = "createProjectCredit",
    tag = "admin",
    params(
        ("id" = String, Path, description = "The project's id, or `default`."),
        ("Idempotency-Key" = Option<String>, Header, description = "Same key: booked once, for ever.", pattern = "^[!-~]([ -~]{0,253}[!-~])?$"),
    ),
    request_body(content = CreditBody, content_type = "application/json"),
    responses(
        (status = 201, description = "It is booked.", body = CreditView),
        (status = 400, description = "The body is wrong.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "A project key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such project.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "The idempotency key was used with another amount or kind.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn create_project_credit(
    caller: AdminCaller<action::Bill>,
    request: HttpRequest,
    id: web::Path<String>,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let asked: CreditBody = fixed_body(&request, &body)?;
    if asked.amount_usd == Money::ZERO {
        return Err(invalid_field("amount_usd", "must not be zero"));
    }
    let kind = asked.kind.map_or_else(|| CreditKind::of_amount(asked.amount_usd), CreditKind::from);
    if !kind.fits(asked.amount_usd) {
        return Err(invalid_field("amount_usd", &format!("must be above zero for `{}`", kind.as_str())));
    }
    let project = find(&services, &id).await?;
    let id = match idempotency_key(request.headers())? {
        Some(key) => credit_id(project.id, &key),
        None => services.ids.uuid(),
    };
    let audit = accounts_of(&request, &caller, &services).entry_of(
        AuditEvent::ProjectCredited,
        project.id,
        project.id.to_string(),
        &json!({"transaction_id": id, "kind": kind.as_str(), "amount_usd": asked.amount_usd, "reason": asked.reason}),
    );
    let credit = Credit {
        id,
        project_id: project.id,
        kind,
        amount: asked.amount_usd,
        reason: asked.reason,
        author: format!("{} ({})", caller.name, caller.api_key_id),
        at: services.clock.now(),
        audit: Some(audit),
    };
    let applied = services.gateway.books().credit(&credit).await?;
    let mut response = HttpResponse::Created();
    if applied == Applied::Already {
        response.insert_header(("idempotent-replayed", "true"));
    }
    let balance = services.gateway.books().balance(project.id, credit.at).await?;
    Ok(response.json(CreditView {
        id: credit.id.to_string(),
        object: "organization.project.credit",
        project_id: project.id.to_string(),
        kind: kind.as_str(),
        amount_usd: credit.amount.to_string(),
        reason: credit.reason,
        author: credit.author,
        balance_usd: balance.map_or(Money::ZERO, |balance| balance.posted).to_string(),
    }))
}

/// What is to be different about the organization.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrganizationPatch {
    /// The most that a calendar month (UTC) of all projects may cost, in US dollars as a decimal string; null lifts it.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, pattern = "^([0-9]{1,9}|[0-8][0-9]{9})(\\.[0-9]{1,9})?$", example = "1000.00")]
    spend_limit_usd: Option<Option<Money>>,
}

/// What all projects together may do.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Organization)]
pub struct OrganizationView {
    /// Always `organization`.
    #[schema(example = "organization")]
    object: &'static str,
    /// The most that a month may cost.
    spend_limit_usd: Option<String>,
}

/// Change the organization's spend limit
#[utoipa::path(
    patch,
    path = "/admin/v1/organization",
    operation_id = "updateOrganization",
    tag = "admin",
    request_body(content = OrganizationPatch, content_type = "application/json"),
    responses(
        (status = 200, description = "The organization as it is now.", body = OrganizationView),
        (status = 400, description = "The body is wrong.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "A project key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn update_organization(
    caller: AdminCaller<action::Own>,
    request: HttpRequest,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let patch: OrganizationPatch = fixed_body(&request, &body)?;
    let spend_limit = match patch.spend_limit_usd {
        Some(limit) => {
            accounts_of(&request, &caller, &services).set_organization_limit(limit).await?;
            limit
        }
        None => services.accounts.organization_limit().await?,
    };
    let view = OrganizationView { object: "organization", spend_limit_usd: spend_limit.map(|limit| limit.to_string()) };
    Ok(HttpResponse::Ok().json(view))
}

/// The id of a credit that is booked under a key: the same for the same key and project.
fn credit_id(project: ProjectId, key: &str) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(project.uuid().as_bytes());
    hash.update(key.as_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

pub async fn find(services: &Services, id: &str) -> Result<ProjectRecord, Problem> {
    let not_found = || Problem::new(Code::NotFound, format!("there is no project `{id}`")).param("id");
    let projects = services.accounts.list_projects().await?;
    let found = if id == "default" {
        projects.into_iter().find(|project| project.is_default)
    } else {
        let id: ProjectId = id.parse().map_err(|_| not_found())?;
        projects.into_iter().find(|project| project.id == id)
    };
    found.ok_or_else(not_found)
}

/// Our ids for the models that are named, in whatever letter case or alias.
pub fn known_models(services: &Services, models: &mut [String], field: &str) -> Result<(), Problem> {
    let catalogue = services.gateway.catalogue();
    for name in models {
        let model = catalogue.model(name);
        *name = model.ok_or_else(|| invalid_field(field, &format!("there is no model `{name}`")))?.id.clone();
    }
    Ok(())
}

/// The same for a list of models that may be used, which may have the operator's aliases as well.
/// Those of `project` and everybody's: another project's mean nothing to its callers.
pub fn listed_models(
    services: &Services,
    project: Option<ProjectId>,
    models: &mut [String],
    field: &str,
) -> Result<(), Problem> {
    let aliases = services.accounts.aliases(project);
    for name in models {
        match aliases.get(name) {
            Some(alias) => name.clone_from(&alias.id),
            None => known_models(services, std::slice::from_mut(name), field)?,
        }
    }
    Ok(())
}

fn rate_limits(services: &Services, rates: Vec<RateBody>) -> Result<Vec<RateLimit>, Problem> {
    rates
        .into_iter()
        .map(|rate| {
            let mut model = [rate.model];
            if model != [ANY_MODEL] {
                known_models(services, &mut model, "limits.rates")?;
            }
            let [model] = model;
            Ok(RateLimit {
                model,
                requests_per_minute: rate.requests_per_minute,
                images_per_minute: rate.images_per_minute,
            })
        })
        .collect()
}

async fn view(services: &Services, project: ProjectRecord) -> Result<ProjectView, Problem> {
    let balance = services.gateway.books().balance(project.id, services.clock.now()).await?;
    let balance = balance.ok_or_else(|| Problem::new(Code::InternalError, "the project has no balance"))?;
    let erasure = services.accounts.project_erasure(project.id).await?;
    Ok(ProjectView {
        content_erasure: erasure.map(ErasureView::from),
        id: project.id.to_string(),
        object: "organization.project",
        name: project.name,
        status: if project.archived_at.is_some() { "archived" } else { "active" },
        created_at: project.created_at.seconds(),
        archived_at: project.archived_at.map(Timestamp::seconds),
        prepaid: project.prepaid,
        balance_usd: balance.posted.to_string(),
        held_usd: balance.held.to_string(),
        spent_this_month_usd: balance.spent_this_month.to_string(),
        spend_limit_usd: project.spend_limit.map(|limit| limit.to_string()),
        policy: project.policy.as_deref().and_then(|text| Policy::read(text).ok()),
        prompt_retention_seconds: project.prompt_retention / 1_000_000,
        adapt: project.adapt.map(Adapt::names),
        join_retries: project.join_retries,
        limits: LimitsView {
            concurrent_generations: project.concurrency_limit,
            rates: project
                .rate_limits
                .into_iter()
                .map(|limit| RateBody {
                    model: limit.model,
                    requests_per_minute: limit.requests_per_minute,
                    images_per_minute: limit.images_per_minute,
                })
                .collect(),
            upload_bytes_per_day: project.upload_bytes_a_day,
            kept_files: project.kept_files,
        },
    })
}
