//! `…/spend_limit`: the most that a calendar month (UTC) may cost, of a project and of all together.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use validator::Validate;

use super::shapes::{Refusals, RefusalsOfOne, accounts_of, id_of, not_found};
use crate::accounts::ProjectChange;
use crate::api::access::{AdminCaller, action};
use crate::api::errors::invalid_field;
use crate::api::{Services, fixed_body};
use crate::domain::{Money, ProjectId};
use crate::http::{Code, Problem};

/// Nano-dollars in a cent.
const CENT: i64 = 10_000_000;

/// The largest limit in cents: about nine billion dollars.
pub const MOST_CENTS: i64 = 900_000_000_000;

/// A spend limit.
#[derive(Debug, Serialize, ToSchema)]
pub struct SpendLimit {
    /// `project.spend_limit` or `organization.spend_limit`.
    #[schema(example = "project.spend_limit")]
    object: &'static str,
    /// Always `USD`.
    #[schema(example = "USD")]
    currency: &'static str,
    /// Always `month`: calendar months in UTC.
    #[schema(example = "month")]
    interval: &'static str,
    /// The limit in whole cents, rounded down.
    #[schema(example = 10000)]
    threshold_amount: i64,
    /// The limit exactly, in US dollars with nine places.
    #[schema(example = "100.000000000")]
    threshold_usd: String,
    /// What this month was charged and what is set aside, in US dollars.
    used_usd: String,
    /// Whether it keeps requests back now.
    enforcement: Enforcement,
}

/// Whether a limit keeps requests back.
#[derive(Debug, Serialize, ToSchema)]
pub struct Enforcement {
    /// `enforcing` once the month's charges and holds have reached the limit, else `inactive`.
    #[schema(example = "inactive")]
    status: &'static str,
}

impl SpendLimit {
    fn of(object: &'static str, limit: Money, used: Money) -> Self {
        Self {
            object,
            currency: "USD",
            interval: "month",
            threshold_amount: cents(limit),
            threshold_usd: limit.to_string(),
            used_usd: used.to_string(),
            enforcement: Enforcement { status: if used >= limit { "enforcing" } else { "inactive" } },
        }
    }
}

/// Whole cents, rounded down.
pub const fn cents(amount: Money) -> i64 {
    amount.nanos().div_euclid(CENT)
}

/// Cents as money; those beyond [`MOST_CENTS`] are refused before.
pub const fn of_cents(cents: i64) -> Money {
    Money::from_nanos(cents.saturating_mul(CENT))
}

/// A spend limit to be set.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SpendLimitUpdate {
    /// `USD`.
    #[schema(example = "USD")]
    currency: String,
    /// `month`.
    #[schema(example = "month")]
    interval: String,
    /// The limit in cents; zero lets nothing through.
    #[validate(range(min = 0, max = MOST_CENTS, message = "must be from 0 to 900000000000 cents"))]
    #[schema(minimum = 0)]
    threshold_amount: i64,
}

/// Nothing but dollars and months is known.
pub fn check_unit(currency: &str, interval: &str) -> Result<(), Problem> {
    if currency != "USD" {
        return Err(invalid_field("currency", "must be `USD`"));
    }
    if interval != "month" {
        return Err(invalid_field("interval", "must be `month`"));
    }
    Ok(())
}

/// A spend limit that is lifted.
#[derive(Debug, Serialize, ToSchema)]
pub struct SpendLimitDeleted {
    /// `project.spend_limit.deleted` or `organization.spend_limit.deleted`.
    #[schema(example = "project.spend_limit.deleted")]
    object: &'static str,
    /// Always true.
    deleted: bool,
}

fn no_limit() -> Problem {
    Problem::new(Code::NotFound, "there is no spend limit")
}

async fn project_limit(services: &Services, id: ProjectId, text: &str) -> Result<SpendLimit, Problem> {
    let balance = services.gateway.books().balance(id, services.clock.now()).await?;
    let balance = balance.ok_or_else(|| not_found(text, "project"))?;
    let limit = balance.spend_limit.ok_or_else(no_limit)?;
    Ok(SpendLimit::of("project.spend_limit", limit, [balance.spent_this_month, balance.held].into_iter().sum()))
}

async fn organization_limit(services: &Services) -> Result<SpendLimit, Problem> {
    let limit = services.accounts.organization_limit().await?.ok_or_else(no_limit)?;
    let standing = services.accounts.organization_standing().await?;
    Ok(SpendLimit::of("organization.spend_limit", limit, [standing.spent, standing.held].into_iter().sum()))
}

/// Retrieve a project's spend limit
#[utoipa::path(
    get,
    path = "/v1/organization/projects/{project_id}/spend_limit",
    operation_id = "retrieveProjectSpendLimit",
    tag = "organization",
    params(("project_id" = String, Path, description = "The project's id.")),
    responses((status = 200, description = "The limit; 404 without one.", body = SpendLimit), RefusalsOfOne),
)]
pub async fn retrieve_project_spend_limit(
    _: AdminCaller<action::View>,
    path: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(project_limit(&services, id_of(&path, "project")?, &path).await?))
}

/// Set a project's spend limit
///
/// Reservations see it at once, on every replica.
#[utoipa::path(
    post,
    path = "/v1/organization/projects/{project_id}/spend_limit",
    operation_id = "updateProjectSpendLimit",
    tag = "organization",
    params(("project_id" = String, Path, description = "The project's id.")),
    request_body = SpendLimitUpdate,
    responses((status = 200, description = "The limit.", body = SpendLimit), RefusalsOfOne),
)]
pub async fn update_project_spend_limit(
    caller: AdminCaller<action::Bill>,
    request: HttpRequest,
    path: web::Path<String>,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let id = id_of(&path, "project")?;
    let update: SpendLimitUpdate = fixed_body(&request, &body)?;
    check_unit(&update.currency, &update.interval)?;
    let limit = Some(of_cents(update.threshold_amount));
    let change = ProjectChange { spend_limit: Some(limit), ..ProjectChange::default() };
    accounts_of(&request, &caller, &services).update_project(id, change).await?;
    Ok(HttpResponse::Ok().json(project_limit(&services, id, &path).await?))
}

/// Lift a project's spend limit
#[utoipa::path(
    delete,
    path = "/v1/organization/projects/{project_id}/spend_limit",
    operation_id = "deleteProjectSpendLimit",
    tag = "organization",
    params(("project_id" = String, Path, description = "The project's id.")),
    responses((status = 200, description = "There is none any more.", body = SpendLimitDeleted), RefusalsOfOne),
)]
pub async fn delete_project_spend_limit(
    caller: AdminCaller<action::Bill>,
    request: HttpRequest,
    path: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let id = id_of(&path, "project")?;
    project_limit(&services, id, &path).await?;
    let change = ProjectChange { spend_limit: Some(None), ..ProjectChange::default() };
    accounts_of(&request, &caller, &services).update_project(id, change).await?;
    Ok(HttpResponse::Ok().json(SpendLimitDeleted { object: "project.spend_limit.deleted", deleted: true }))
}

/// Retrieve the organization's spend limit
#[utoipa::path(
    get,
    path = "/v1/organization/spend_limit",
    operation_id = "retrieveSpendLimit",
    tag = "organization",
    responses((status = 200, description = "The limit; 404 without one.", body = SpendLimit), RefusalsOfOne),
)]
pub async fn retrieve_spend_limit(
    _: AdminCaller<action::View>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(organization_limit(&services).await?))
}

/// Set the organization's spend limit
///
/// Of all projects together. Reservations see it at once, on every replica.
#[utoipa::path(
    post,
    path = "/v1/organization/spend_limit",
    operation_id = "updateSpendLimit",
    tag = "organization",
    request_body = SpendLimitUpdate,
    responses((status = 200, description = "The limit.", body = SpendLimit), Refusals),
)]
pub async fn update_spend_limit(
    caller: AdminCaller<action::Bill>,
    request: HttpRequest,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let update: SpendLimitUpdate = fixed_body(&request, &body)?;
    check_unit(&update.currency, &update.interval)?;
    let limit = Some(of_cents(update.threshold_amount));
    accounts_of(&request, &caller, &services).set_organization_limit(limit).await?;
    Ok(HttpResponse::Ok().json(organization_limit(&services).await?))
}

/// Lift the organization's spend limit
#[utoipa::path(
    delete,
    path = "/v1/organization/spend_limit",
    operation_id = "deleteSpendLimit",
    tag = "organization",
    responses((status = 200, description = "There is none any more.", body = SpendLimitDeleted), RefusalsOfOne),
)]
pub async fn delete_spend_limit(
    caller: AdminCaller<action::Bill>,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    organization_limit(&services).await?;
    accounts_of(&request, &caller, &services).set_organization_limit(None).await?;
    Ok(HttpResponse::Ok().json(SpendLimitDeleted { object: "organization.spend_limit.deleted", deleted: true }))
}
