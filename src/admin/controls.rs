//! `…/rate_limits`, `…/model_permissions`, `…/data_retention`: what a project may ask for, and how long prompts are kept.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use validator::Validate;

use super::projects::listed_models;
use super::shapes::{Refusals, RefusalsOfOne, accounts_of, id_of, list, not_found};
use crate::accounts::{Policy, ProjectRecord, Retention};
use crate::api::access::{AdminCaller, action};
use crate::api::errors::invalid_field;
use crate::api::{Services, Whole, fixed_body, query};
use crate::domain::ProjectId;
use crate::http::Problem;
use crate::ledger::ANY_MODEL;

/// What stands for "no limit", where OpenAI's clients want a number.
const NO_LIMIT: u32 = 2_147_483_647;

/// How much of a model a project may ask for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProjectRateLimit)]
pub struct RateLimitView {
    /// Its id: `rl-` and the model's id with `--` for each slash; `rl-default` for each model without a limit of its own.
    #[schema(example = "rl-flux--dev")]
    id: String,
    /// Always `project.rate_limit`.
    #[schema(example = "project.rate_limit")]
    object: &'static str,
    /// The model; `*` for each model without a limit of its own.
    #[schema(example = "flux/dev")]
    model: String,
    /// Requests in any minute; 2147483647 where nothing limits them.
    max_requests_per_1_minute: u32,
    /// Images in any minute; 2147483647 where nothing limits them.
    max_images_per_1_minute: u32,
    /// Always 2147483647: images have no tokens.
    max_tokens_per_1_minute: u32,
}

list!(
    /// A page of rate limits: the default, then each model on offer.
    RateLimitList of RateLimitView
);

/// A rate limit to be set. 2147483647 lifts it, also where there is one for all models; what is absent stays.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimitUpdate {
    /// Requests in any minute.
    #[validate(range(min = 1, max = NO_LIMIT, message = "must be from 1 to 2147483647"))]
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    #[serde(default, deserialize_with = "Whole::optional")]
    max_requests_per_1_minute: Option<u32>,
    /// Images in any minute.
    #[validate(range(min = 1, max = NO_LIMIT, message = "must be from 1 to 2147483647"))]
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    #[serde(default, deserialize_with = "Whole::optional")]
    max_images_per_1_minute: Option<u32>,
}

fn rate_limit_id(model: &str) -> String {
    if model == ANY_MODEL { "rl-default".to_owned() } else { format!("rl-{}", model.replace('/', "--")) }
}

fn rate_limit(project: &ProjectRecord, model: &str) -> RateLimitView {
    let of = |name: &str| project.rate_limits.iter().find(|limit| limit.model == name);
    let limit = of(model).or_else(|| of(ANY_MODEL));
    RateLimitView {
        id: rate_limit_id(model),
        object: "project.rate_limit",
        model: model.to_owned(),
        max_requests_per_1_minute: limit.and_then(|limit| limit.requests_per_minute).unwrap_or(NO_LIMIT),
        max_images_per_1_minute: limit.and_then(|limit| limit.images_per_minute).unwrap_or(NO_LIMIT),
        max_tokens_per_1_minute: NO_LIMIT,
    }
}

/// The default, then each model on offer.
fn limited_models(services: &Services) -> Vec<String> {
    let catalogue = services.gateway.catalogue();
    let offered = catalogue.models().filter(|model| model.is_offered()).map(|model| model.id.clone());
    std::iter::once(ANY_MODEL.to_owned()).chain(offered).collect()
}

/// List a project's rate limits
#[utoipa::path(
    get,
    path = "/v1/organization/projects/{project_id}/rate_limits",
    operation_id = "listProjectRateLimits",
    tag = "organization",
    params(
        ("project_id" = String, Path, description = "The project's id."),
        ("limit" = Option<u32>, Query, description = "How many, 1 to 1000; 100 if not given.", minimum = 1, maximum = 1000),
        ("after" = Option<String>, Query, description = "The id to go on after: `last_id` of the page before."),
        ("before" = Option<String>, Query, description = "The id to end before: `first_id` of the page after."),
    ),
    responses((status = 200, description = "A page of rate limits.", body = RateLimitList), RefusalsOfOne),
)]
pub async fn list_project_rate_limits(
    _: AdminCaller<action::View>,
    request: HttpRequest,
    path: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let project = find(&services, &path).await?;
    let pairs = query(&request, &["limit", "after", "before"])?;
    let limit = pairs.limit(100, 1000)? as usize;
    let all: Vec<RateLimitView> = limited_models(&services).iter().map(|model| rate_limit(&project, model)).collect();
    let place = |name: &str| -> Result<Option<usize>, Problem> {
        let id = pairs.one(name)?;
        let found = id.map(|id| all.iter().position(|limit| limit.id == id));
        match found {
            Some(None) => Err(not_found(id.unwrap_or_default(), "rate limit")),
            found => Ok(found.flatten()),
        }
    };
    let (first, end) = match (place("after")?, place("before")?) {
        (Some(_), Some(_)) => return Err(invalid_field("before", "cannot be given together with `after`")),
        (Some(after), None) => (after + 1, (after + 1 + limit).min(all.len())),
        (None, Some(before)) => (before.saturating_sub(limit), before),
        (None, None) => (0, limit.min(all.len())),
    };
    let has_more = if pairs.one("before")?.is_some() { first > 0 } else { end < all.len() };
    let views = all.into_iter().skip(first).take(end - first).collect();
    Ok(HttpResponse::Ok().json(RateLimitList::of(views, has_more)))
}

/// Update a project's rate limit
#[utoipa::path(
    post,
    path = "/v1/organization/projects/{project_id}/rate_limits/{rate_limit_id}",
    operation_id = "updateProjectRateLimit",
    tag = "organization",
    params(
        ("project_id" = String, Path, description = "The project's id."),
        ("rate_limit_id" = String, Path, description = "The rate limit's id, as the list shows it."),
    ),
    request_body = RateLimitUpdate,
    responses((status = 200, description = "The rate limit as it is now.", body = RateLimitView), RefusalsOfOne),
)]
pub async fn update_project_rate_limit(
    caller: AdminCaller<action::Operate>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let project = id_of(&path.0, "project")?;
    let model = limited_models(&services).into_iter().find(|model| rate_limit_id(model) == path.1);
    let model = model.ok_or_else(|| not_found(&path.1, "rate limit"))?;
    let update: RateLimitUpdate = fixed_body(&request, &body)?;
    // A model whose limit is lifted must not fall back to the one for all models.
    let current = services.accounts.project(project).await?.ok_or_else(|| not_found(&path.0, "project"))?;
    let of_all = current.rate_limits.iter().any(|limit| limit.model == ANY_MODEL) && model != ANY_MODEL;
    let limit = |number: Option<u32>| number.map(|number| Some(number).filter(|number| of_all || *number < NO_LIMIT));
    let accounts = accounts_of(&request, &caller, &services);
    let requests = limit(update.max_requests_per_1_minute);
    let images = limit(update.max_images_per_1_minute);
    let project = accounts.change_rate_limit(project, &model, requests, images).await?;
    Ok(HttpResponse::Ok().json(rate_limit(&project, &model)))
}

/// Which models a project may use.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelPermissions {
    /// Always `project.model_permissions`.
    #[schema(example = "project.model_permissions")]
    object: &'static str,
    /// `allow_list`: only these; `deny_list`: all but these. Without a choice, a `deny_list` of none.
    #[schema(example = "allow_list")]
    mode: &'static str,
    /// The models.
    model_ids: Vec<String>,
}

impl ModelPermissions {
    fn of(project: &ProjectRecord) -> Self {
        let policy = project.policy.as_deref().and_then(|text| Policy::read(text).ok()).unwrap_or_default();
        let (mode, model_ids) = match policy.allowed_models {
            Some(allowed) => ("allow_list", allowed),
            None => ("deny_list", policy.denied_models.unwrap_or_default()),
        };
        Self { object: "project.model_permissions", mode, model_ids }
    }
}

/// What a list of models means.
#[derive(Debug, ToSchema)]
#[schema(as = ModelPermissionsMode)]
#[expect(dead_code, reason = "describes the words of `mode` in the document")]
pub enum ModelPermissionsMode {
    /// Only these.
    #[serde(rename = "allow_list")]
    AllowList,
    /// All but these.
    #[serde(rename = "deny_list")]
    DenyList,
}

/// Which models a project is to be allowed.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelPermissionsUpdate {
    /// `allow_list` or `deny_list`.
    #[schema(value_type = ModelPermissionsMode, example = "allow_list")]
    mode: String,
    /// The models, by our ids, their aliases, or the operator's aliases.
    model_ids: Vec<String>,
}

/// Model permissions that are lifted.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelPermissionsDeleted {
    /// Always `project.model_permissions.deleted`.
    #[schema(example = "project.model_permissions.deleted")]
    object: &'static str,
    /// Always true.
    deleted: bool,
}

/// Retrieve a project's model permissions
#[utoipa::path(
    get,
    path = "/v1/organization/projects/{project_id}/model_permissions",
    operation_id = "retrieveModelPermissions",
    tag = "organization",
    params(("project_id" = String, Path, description = "The project's id.")),
    responses((status = 200, description = "Which models it may use.", body = ModelPermissions), RefusalsOfOne),
)]
pub async fn retrieve_model_permissions(
    _: AdminCaller<action::View>,
    path: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(ModelPermissions::of(&find(&services, &path).await?)))
}

/// Update a project's model permissions
///
/// Known to every replica within a second. It is the same setting as the policy's `allowed_models` and `denied_models`.
#[utoipa::path(
    post,
    path = "/v1/organization/projects/{project_id}/model_permissions",
    operation_id = "updateModelPermissions",
    tag = "organization",
    params(("project_id" = String, Path, description = "The project's id.")),
    request_body = ModelPermissionsUpdate,
    responses((status = 200, description = "Which models it may use now.", body = ModelPermissions), RefusalsOfOne),
)]
pub async fn update_model_permissions(
    caller: AdminCaller<action::Operate>,
    request: HttpRequest,
    path: web::Path<String>,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let id = id_of(&path, "project")?;
    let mut update: ModelPermissionsUpdate = fixed_body(&request, &body)?;
    listed_models(&services, Some(id), &mut update.model_ids, "model_ids")?;
    let (allowed, denied) = match update.mode.as_str() {
        "allow_list" => (Some(update.model_ids), None),
        "deny_list" => (None, Some(update.model_ids).filter(|models| !models.is_empty())),
        _ => return Err(invalid_field("mode", "must be `allow_list` or `deny_list`")),
    };
    let change = |policy: &mut Policy| (policy.allowed_models, policy.denied_models) = (allowed, denied);
    let project = accounts_of(&request, &caller, &services).change_policy(id, change).await?;
    Ok(HttpResponse::Ok().json(ModelPermissions::of(&project)))
}

/// Lift a project's model permissions
///
/// It may use every model.
#[utoipa::path(
    delete,
    path = "/v1/organization/projects/{project_id}/model_permissions",
    operation_id = "deleteModelPermissions",
    tag = "organization",
    params(("project_id" = String, Path, description = "The project's id.")),
    responses((status = 200, description = "It may use every model.", body = ModelPermissionsDeleted), RefusalsOfOne),
)]
pub async fn delete_model_permissions(
    caller: AdminCaller<action::Operate>,
    request: HttpRequest,
    path: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let id = id_of(&path, "project")?;
    let lift = |policy: &mut Policy| (policy.allowed_models, policy.denied_models) = (None, None);
    accounts_of(&request, &caller, &services).change_policy(id, lift).await?;
    let body = ModelPermissionsDeleted { object: "project.model_permissions.deleted", deleted: true };
    Ok(HttpResponse::Ok().json(body))
}

/// How long prompts are kept. With `zero_data_retention` and `enhanced_zero_data_retention` none is stored; with `none`,
/// `modified_abuse_monitoring` and `enhanced_modified_abuse_monitoring` prompts are stored for thirty days.
#[derive(Debug, Serialize, ToSchema)]
pub struct DataRetention {
    /// `project.data_retention` or `organization.data_retention`.
    #[schema(example = "project.data_retention")]
    object: &'static str,
    /// The control; `organization_default` and `none` are for projects only.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "zero_data_retention")]
    kind: Retention,
}

/// How long prompts of a project are kept.
#[derive(Debug, ToSchema)]
#[schema(as = ProjectRetentionType)]
#[expect(dead_code, reason = "describes the words of `retention_type` in the document")]
pub enum RetentionText {
    /// As the organization says.
    #[serde(rename = "organization_default")]
    OrganizationDefault,
    /// Thirty days.
    #[serde(rename = "none")]
    None,
    /// Not at all.
    #[serde(rename = "zero_data_retention")]
    Zero,
    /// Not at all.
    #[serde(rename = "enhanced_zero_data_retention")]
    EnhancedZero,
    /// Thirty days.
    #[serde(rename = "modified_abuse_monitoring")]
    Modified,
    /// Thirty days.
    #[serde(rename = "enhanced_modified_abuse_monitoring")]
    EnhancedModified,
}

/// How long prompts of projects that have not chosen are kept.
#[derive(Debug, ToSchema)]
#[schema(as = OrganizationRetentionType)]
#[expect(dead_code, reason = "describes the words of `retention_type` in the document")]
pub enum OrganizationRetentionText {
    /// Not at all.
    #[serde(rename = "zero_data_retention")]
    Zero,
    /// Not at all.
    #[serde(rename = "enhanced_zero_data_retention")]
    EnhancedZero,
    /// Thirty days.
    #[serde(rename = "modified_abuse_monitoring")]
    Modified,
    /// Thirty days.
    #[serde(rename = "enhanced_modified_abuse_monitoring")]
    EnhancedModified,
}

/// How long prompts are to be kept. A shorter time holds for those that are kept already, within a minute.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DataRetentionUpdate {
    /// The control, as [`DataRetention`] explains it.
    #[schema(value_type = RetentionText, example = "zero_data_retention")]
    retention_type: String,
}

/// How long prompts are to be kept where a project has not chosen.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what `DataRetentionUpdate` may say of the organization")]
pub struct OrganizationDataRetentionUpdate {
    /// The control, as [`DataRetention`] explains it.
    #[schema(example = "zero_data_retention")]
    retention_type: OrganizationRetentionText,
}

impl DataRetentionUpdate {
    fn retention(&self, of_project: bool) -> Result<Retention, Problem> {
        let wrong = || invalid_field("retention_type", "is no control that can be chosen here");
        let retention: Retention = self.retention_type.parse().map_err(|_| wrong())?;
        let projects_only = matches!(retention, Retention::OrganizationDefault | Retention::None);
        if projects_only && !of_project { Err(wrong()) } else { Ok(retention) }
    }
}

/// Retrieve a project's data retention
#[utoipa::path(
    get,
    path = "/v1/organization/projects/{project_id}/data_retention",
    operation_id = "retrieveProjectDataRetention",
    tag = "organization",
    params(("project_id" = String, Path, description = "The project's id.")),
    responses((status = 200, description = "How long prompts are kept.", body = DataRetention), RefusalsOfOne),
)]
pub async fn retrieve_project_data_retention(
    _: AdminCaller<action::View>,
    path: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let kind = services.accounts.project_retention(id_of(&path, "project")?).await?;
    Ok(HttpResponse::Ok().json(DataRetention { object: "project.data_retention", kind }))
}

/// Update a project's data retention
///
/// With zero retention no prompt is stored; with `none` and the `modified_…` ones prompts are stored for thirty days. Other
/// times are set by `PATCH /admin/v1/projects/{id}`.
#[utoipa::path(
    post,
    path = "/v1/organization/projects/{project_id}/data_retention",
    operation_id = "updateProjectDataRetention",
    tag = "organization",
    params(("project_id" = String, Path, description = "The project's id.")),
    request_body = DataRetentionUpdate,
    responses((status = 200, description = "How long prompts are kept now.", body = DataRetention), RefusalsOfOne),
)]
pub async fn update_project_data_retention(
    caller: AdminCaller<action::Operate>,
    request: HttpRequest,
    path: web::Path<String>,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let id = id_of(&path, "project")?;
    let kind = fixed_body::<DataRetentionUpdate>(&request, &body)?.retention(true)?;
    accounts_of(&request, &caller, &services).set_project_retention(id, kind).await?;
    Ok(HttpResponse::Ok().json(DataRetention { object: "project.data_retention", kind }))
}

/// Retrieve the organization's data retention
#[utoipa::path(
    get,
    path = "/v1/organization/data_retention",
    operation_id = "retrieveDataRetention",
    tag = "organization",
    responses((status = 200, description = "How long prompts are kept.", body = DataRetention), Refusals),
)]
pub async fn retrieve_data_retention(
    _: AdminCaller<action::View>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let kind = services.accounts.organization_retention().await?;
    Ok(HttpResponse::Ok().json(DataRetention { object: "organization.data_retention", kind }))
}

/// Update the organization's data retention
///
/// For new projects and those that have not chosen. It is `zero_data_retention` at first.
#[utoipa::path(
    post,
    path = "/v1/organization/data_retention",
    operation_id = "updateDataRetention",
    tag = "organization",
    request_body = OrganizationDataRetentionUpdate,
    responses((status = 200, description = "How long prompts are kept now.", body = DataRetention), Refusals),
)]
pub async fn update_data_retention(
    caller: AdminCaller<action::Own>,
    request: HttpRequest,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let kind = fixed_body::<DataRetentionUpdate>(&request, &body)?.retention(false)?;
    accounts_of(&request, &caller, &services).set_organization_retention(kind).await?;
    Ok(HttpResponse::Ok().json(DataRetention { object: "organization.data_retention", kind }))
}

async fn find(services: &Services, id: &str) -> Result<ProjectRecord, Problem> {
    let project: ProjectId = id_of(id, "project")?;
    services.accounts.project(project).await?.ok_or_else(|| not_found(id, "project"))
}
