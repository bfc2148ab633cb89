//! `…/spend_alerts`: amounts at which the operator is told. imagegate sends no mail: see `accounts/alerts.rs`.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use validator::Validate;

use super::shapes::{Deletion, Paging, Refusals, RefusalsOfOne, accounts_of, cursor, id_of, list, not_found};
use super::spend_limits::{Currency, Interval, MOST_CENTS, cents, of_cents};
use crate::accounts::{Cursor, SpendAlert, SpendAlertRecord};
use crate::api::access::{AdminCaller, action};
use crate::api::errors::invalid_field;
use crate::api::{ListOrder, Services, Whole, fixed_body, query};
use crate::domain::{ProjectId, SpendAlertId};
use crate::http::Problem;

/// A spend alert.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SpendAlert)]
pub struct SpendAlertView {
    /// Its id.
    #[schema(example = "alert_019e1951c77871209c8216efcf40ec82")]
    id: String,
    /// `project.spend_alert` or `organization.spend_alert`.
    #[schema(example = "project.spend_alert")]
    object: &'static str,
    /// Always `USD`.
    #[schema(example = "USD")]
    currency: &'static str,
    /// Always `month`: calendar months in UTC.
    #[schema(example = "month")]
    interval: &'static str,
    /// What a month is charged when it goes off, in cents.
    #[schema(example = 5000)]
    threshold_amount: i64,
    /// Whom the operator's own tools shall tell.
    notification_channel: NotificationChannel,
}

/// How an alert is delivered.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = NotificationChannelType)]
pub enum ChannelKind {
    /// By mail, as OpenAI's clients name it.
    Email,
}

/// Whom the operator's own tools shall tell. imagegate sends no mail: an alert that goes off is a warning in the log and a
/// `spend_alert.triggered` in the audit log, with these recipients.
#[derive(Debug, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NotificationChannel {
    /// Always `email`.
    #[serde(rename = "type")]
    kind: ChannelKind,
    /// Addresses.
    #[validate(length(min = 1, max = 100, message = "must be 1 to 100 addresses"))]
    #[schema(min_items = 1, max_items = 100)]
    recipients: Vec<String>,
    /// What the message's subject shall begin with.
    #[serde(default)]
    #[validate(length(max = 200, message = "must have at most 200 characters"))]
    #[schema(max_length = 200)]
    subject_prefix: Option<String>,
}

impl SpendAlertView {
    fn of(alert: &SpendAlertRecord) -> Self {
        Self {
            id: alert.id.to_string(),
            object: if alert.project_id.is_some() { "project.spend_alert" } else { "organization.spend_alert" },
            currency: "USD",
            interval: "month",
            threshold_amount: cents(alert.threshold),
            notification_channel: NotificationChannel {
                kind: ChannelKind::Email,
                recipients: alert.recipients.clone(),
                subject_prefix: alert.subject_prefix.clone(),
            },
        }
    }
}

list!(
    /// A page of spend alerts.
    SpendAlertList of SpendAlertView
);

/// A spend alert to be made, or as it is to be.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SpendAlertBody {
    /// `USD`.
    #[expect(dead_code, reason = "there is only one")]
    currency: Currency,
    /// `month`.
    #[expect(dead_code, reason = "there is only one")]
    interval: Interval,
    /// What a month is charged when it goes off, in cents.
    #[validate(range(min = 1, max = MOST_CENTS, message = "must be from 1 to 900000000000 cents"))]
    #[schema(minimum = 1, maximum = 900_000_000_000_i64)]
    #[serde(deserialize_with = "Whole::required")]
    threshold_amount: i64,
    /// Whom the operator's own tools shall tell.
    #[validate(nested)]
    notification_channel: NotificationChannel,
}

impl SpendAlertBody {
    fn alert(self) -> SpendAlert {
        SpendAlert {
            threshold: of_cents(self.threshold_amount),
            recipients: self.notification_channel.recipients,
            subject_prefix: self.notification_channel.subject_prefix,
        }
    }
}

/// A page of alerts; `before` reads it from the other end.
async fn page(
    request: &HttpRequest,
    services: &Services,
    project: Option<ProjectId>,
) -> Result<SpendAlertList, Problem> {
    let pairs = query(request, &["limit", "after", "before", "order"])?;
    let forwards = cursor(&pairs, "a spend alert", SpendAlertId::uuid, 100)?;
    let before = pairs.parsed::<SpendAlertId>("before", "a spend alert's id")?;
    let cursor = match before {
        Some(_) if forwards.after.is_some() => {
            return Err(invalid_field("before", "cannot be given together with `after`"));
        }
        Some(id) => Cursor { after: Some(id.uuid()), oldest_first: !forwards.oldest_first, limit: forwards.limit },
        None => forwards,
    };
    let mut page = services.accounts.list_spend_alerts(project, cursor).await?;
    if before.is_some() {
        page.items.reverse();
    }
    Ok(SpendAlertList::of(page.items.iter().map(SpendAlertView::of).collect(), page.has_more))
}

/// Create a project's spend alert
#[utoipa::path(
    post,
    path = "/v1/organization/projects/{project_id}/spend_alerts",
    operation_id = "createProjectSpendAlert",
    tag = "organization",
    params(("project_id" = String, Path, description = "The project's id.")),
    request_body = SpendAlertBody,
    responses((status = 200, description = "The new alert.", body = SpendAlertView), RefusalsOfOne),
)]
pub async fn create_project_spend_alert(
    caller: AdminCaller<action::Bill>,
    request: HttpRequest,
    path: web::Path<String>,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let project = id_of(&path, "project")?;
    let new = fixed_body::<SpendAlertBody>(&request, &body)?.alert();
    let alert = accounts_of(&request, &caller, &services).create_spend_alert(Some(project), new).await?;
    Ok(HttpResponse::Ok().json(SpendAlertView::of(&alert)))
}

/// List a project's spend alerts
#[utoipa::path(
    get,
    path = "/v1/organization/projects/{project_id}/spend_alerts",
    operation_id = "listProjectSpendAlerts",
    tag = "organization",
    params(
        ("project_id" = String, Path, description = "The project's id."),
        Paging<SpendAlertId>,
        ("before" = inline(Option<SpendAlertId>), Query, description = "The id to end before: `first_id` of the page after."),
        ("order" = inline(Option<ListOrder>), Query, description = "`desc`, newest first, if not given; or `asc`."),
    ),
    responses((status = 200, description = "A page of alerts.", body = SpendAlertList), RefusalsOfOne),
)]
pub async fn list_project_spend_alerts(
    _: AdminCaller<action::View>,
    request: HttpRequest,
    path: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let project: ProjectId = id_of(&path, "project")?;
    services.accounts.project(project).await?.ok_or_else(|| not_found(&path, "project"))?;
    Ok(HttpResponse::Ok().json(page(&request, &services, Some(project)).await?))
}

/// Retrieve a project's spend alert
#[utoipa::path(
    get,
    path = "/v1/organization/projects/{project_id}/spend_alerts/{alert_id}",
    operation_id = "retrieveProjectSpendAlert",
    tag = "organization",
    params(
        ("project_id" = String, Path, description = "The project's id."),
        ("alert_id" = String, Path, description = "The alert's id."),
    ),
    responses((status = 200, description = "The alert.", body = SpendAlertView), RefusalsOfOne),
)]
pub async fn retrieve_project_spend_alert(
    _: AdminCaller<action::View>,
    path: web::Path<(String, String)>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let (project, id) = ids(&path)?;
    Ok(HttpResponse::Ok().json(SpendAlertView::of(&services.accounts.spend_alert(Some(project), id).await?)))
}

/// Update a project's spend alert
///
/// It may go off again this month.
#[utoipa::path(
    post,
    path = "/v1/organization/projects/{project_id}/spend_alerts/{alert_id}",
    operation_id = "updateProjectSpendAlert",
    tag = "organization",
    params(
        ("project_id" = String, Path, description = "The project's id."),
        ("alert_id" = String, Path, description = "The alert's id."),
    ),
    request_body = SpendAlertBody,
    responses((status = 200, description = "The alert as it is now.", body = SpendAlertView), RefusalsOfOne),
)]
pub async fn update_project_spend_alert(
    caller: AdminCaller<action::Bill>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let (project, id) = ids(&path)?;
    let new = fixed_body::<SpendAlertBody>(&request, &body)?.alert();
    let alert = accounts_of(&request, &caller, &services).update_spend_alert(Some(project), id, new).await?;
    Ok(HttpResponse::Ok().json(SpendAlertView::of(&alert)))
}

/// Delete a project's spend alert
#[utoipa::path(
    delete,
    path = "/v1/organization/projects/{project_id}/spend_alerts/{alert_id}",
    operation_id = "deleteProjectSpendAlert",
    tag = "organization",
    params(
        ("project_id" = String, Path, description = "The project's id."),
        ("alert_id" = String, Path, description = "The alert's id."),
    ),
    responses((status = 200, description = "It is gone.", body = Deletion), RefusalsOfOne),
)]
pub async fn delete_project_spend_alert(
    caller: AdminCaller<action::Bill>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let (project, id) = ids(&path)?;
    accounts_of(&request, &caller, &services).delete_spend_alert(Some(project), id).await?;
    Ok(HttpResponse::Ok().json(Deletion::of("project.spend_alert.deleted", &id)))
}

/// Create a spend alert
///
/// On what all projects are charged together.
#[utoipa::path(
    post,
    path = "/v1/organization/spend_alerts",
    operation_id = "createSpendAlert",
    tag = "organization",
    request_body = SpendAlertBody,
    responses((status = 200, description = "The new alert.", body = SpendAlertView), Refusals),
)]
pub async fn create_spend_alert(
    caller: AdminCaller<action::Bill>,
    request: HttpRequest,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let new = fixed_body::<SpendAlertBody>(&request, &body)?.alert();
    let alert = accounts_of(&request, &caller, &services).create_spend_alert(None, new).await?;
    Ok(HttpResponse::Ok().json(SpendAlertView::of(&alert)))
}

/// List spend alerts
///
/// Those on what all projects are charged together.
#[utoipa::path(
    get,
    path = "/v1/organization/spend_alerts",
    operation_id = "listSpendAlerts",
    tag = "organization",
    params(
        Paging<SpendAlertId>,
        ("before" = inline(Option<SpendAlertId>), Query, description = "The id to end before: `first_id` of the page after."),
        ("order" = inline(Option<ListOrder>), Query, description = "`desc`, newest first, if not given; or `asc`."),
    ),
    responses((status = 200, description = "A page of alerts.", body = SpendAlertList), Refusals),
)]
pub async fn list_spend_alerts(
    _: AdminCaller<action::View>,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(page(&request, &services, None).await?))
}

/// Retrieve a spend alert
#[utoipa::path(
    get,
    path = "/v1/organization/spend_alerts/{alert_id}",
    operation_id = "retrieveSpendAlert",
    tag = "organization",
    params(("alert_id" = String, Path, description = "The alert's id.")),
    responses((status = 200, description = "The alert.", body = SpendAlertView), RefusalsOfOne),
)]
pub async fn retrieve_spend_alert(
    _: AdminCaller<action::View>,
    path: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let alert = services.accounts.spend_alert(None, id_of(&path, "spend alert")?).await?;
    Ok(HttpResponse::Ok().json(SpendAlertView::of(&alert)))
}

/// Update a spend alert
///
/// It may go off again this month.
#[utoipa::path(
    post,
    path = "/v1/organization/spend_alerts/{alert_id}",
    operation_id = "updateSpendAlert",
    tag = "organization",
    params(("alert_id" = String, Path, description = "The alert's id.")),
    request_body = SpendAlertBody,
    responses((status = 200, description = "The alert as it is now.", body = SpendAlertView), RefusalsOfOne),
)]
pub async fn update_spend_alert(
    caller: AdminCaller<action::Bill>,
    request: HttpRequest,
    path: web::Path<String>,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let id = id_of(&path, "spend alert")?;
    let new = fixed_body::<SpendAlertBody>(&request, &body)?.alert();
    let alert = accounts_of(&request, &caller, &services).update_spend_alert(None, id, new).await?;
    Ok(HttpResponse::Ok().json(SpendAlertView::of(&alert)))
}

/// Delete a spend alert
#[utoipa::path(
    delete,
    path = "/v1/organization/spend_alerts/{alert_id}",
    operation_id = "deleteSpendAlert",
    tag = "organization",
    params(("alert_id" = String, Path, description = "The alert's id.")),
    responses((status = 200, description = "It is gone.", body = Deletion), RefusalsOfOne),
)]
pub async fn delete_spend_alert(
    caller: AdminCaller<action::Bill>,
    request: HttpRequest,
    path: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let id = id_of(&path, "spend alert")?;
    accounts_of(&request, &caller, &services).delete_spend_alert(None, id).await?;
    Ok(HttpResponse::Ok().json(Deletion::of("organization.spend_alert.deleted", &id)))
}

fn ids(path: &(String, String)) -> Result<(ProjectId, SpendAlertId), Problem> {
    Ok((id_of(&path.0, "project")?, id_of(&path.1, "spend alert")?))
}
