//! `/v1/organization/projects`: OpenAI's projects.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use validator::Validate;

use super::shapes::{Paging, Refusals, RefusalsOfOne, accounts_of, cursor, id_of, list, not_found};
use crate::accounts::{ProjectChange, ProjectRecord};
use crate::api::access::{AdminCaller, action};
use crate::api::{Services, fixed_body, query};
use crate::domain::{ProjectId, Timestamp};
use crate::http::Problem;

/// A project: who pays.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OrganizationProject)]
pub struct ProjectView {
    /// Its id.
    #[schema(example = "proj_019e1951c77871209c8216efcf40ec82")]
    id: String,
    /// Always `organization.project`.
    #[schema(example = "organization.project")]
    object: &'static str,
    /// Its name; not unique.
    name: String,
    /// When it was made, in Unix seconds.
    created_at: i64,
    /// When it was archived, in Unix seconds; null while it is active.
    archived_at: Option<i64>,
    /// `active` or `archived`.
    #[schema(example = "active")]
    status: &'static str,
}

impl ProjectView {
    fn of(project: &ProjectRecord) -> Self {
        Self {
            id: project.id.to_string(),
            object: "organization.project",
            name: project.name.clone(),
            created_at: project.created_at.seconds(),
            archived_at: project.archived_at.map(Timestamp::seconds),
            status: if project.archived_at.is_some() { "archived" } else { "active" },
        }
    }
}

list!(
    /// A page of projects, newest first.
    OrganizationProjectList of ProjectView
);

/// A project to be made.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOrganizationProject {
    /// What to call it.
    #[validate(length(min = 1, max = 200, message = "must have 1 to 200 characters"))]
    #[schema(min_length = 1, max_length = 200)]
    name: String,
}

/// What is to be different about a project.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrganizationProjectUpdate {
    /// What to call it; the same as before if not given.
    #[validate(length(min = 1, max = 200, message = "must have 1 to 200 characters"))]
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
}

/// Create a project
///
/// It pays afterwards, has the rates of new projects (`IMAGEGATE_DEFAULT_REQUESTS_PER_MINUTE`,
/// `IMAGEGATE_DEFAULT_IMAGES_PER_MINUTE`), and no other limits until some are set.
#[utoipa::path(
    post,
    path = "/v1/organization/projects",
    operation_id = "createOrganizationProject",
    tag = "organization",
    request_body = NewOrganizationProject,
    responses((status = 200, description = "The new project.", body = ProjectView), Refusals),
)]
pub async fn create_project(
    caller: AdminCaller<action::Operate>,
    request: HttpRequest,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let new: NewOrganizationProject = fixed_body(&request, &body)?;
    let project = accounts_of(&request, &caller, &services).create_project(&new.name).await?;
    Ok(HttpResponse::Ok().json(ProjectView::of(&project)))
}

/// List projects
#[utoipa::path(
    get,
    path = "/v1/organization/projects",
    operation_id = "listOrganizationProjects",
    tag = "organization",
    params(
        Paging,
        ("include_archived" = Option<bool>, Query, description = "Whether archived projects are listed too."),
    ),
    responses((status = 200, description = "A page of projects, newest first.", body = OrganizationProjectList), Refusals),
)]
pub async fn list_projects(
    _: AdminCaller<action::View>,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let pairs = query(&request, &["limit", "after", "include_archived"])?;
    let archived = pairs.parsed("include_archived", "true or false")?.unwrap_or(false);
    let cursor = cursor(&pairs, "a project", ProjectId::uuid, 100)?;
    let page = services.accounts.projects_page(archived, cursor).await?;
    Ok(HttpResponse::Ok()
        .json(OrganizationProjectList::of(page.items.iter().map(ProjectView::of).collect(), page.has_more)))
}

/// Retrieve a project
#[utoipa::path(
    get,
    path = "/v1/organization/projects/{project_id}",
    operation_id = "retrieveOrganizationProject",
    tag = "organization",
    params(("project_id" = String, Path, description = "The project's id.")),
    responses((status = 200, description = "The project.", body = ProjectView), RefusalsOfOne),
)]
pub async fn retrieve_project(
    _: AdminCaller<action::View>,
    path: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let project = services.accounts.project(id_of(&path, "project")?).await?;
    let project = project.ok_or_else(|| not_found(&path, "project"))?;
    Ok(HttpResponse::Ok().json(ProjectView::of(&project)))
}

/// Update a project
#[utoipa::path(
    post,
    path = "/v1/organization/projects/{project_id}",
    operation_id = "updateOrganizationProject",
    tag = "organization",
    params(("project_id" = String, Path, description = "The project's id.")),
    request_body = OrganizationProjectUpdate,
    responses((status = 200, description = "The project as it is now.", body = ProjectView), RefusalsOfOne),
)]
pub async fn update_project(
    caller: AdminCaller<action::Operate>,
    request: HttpRequest,
    path: web::Path<String>,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let id = id_of(&path, "project")?;
    let update: OrganizationProjectUpdate = fixed_body(&request, &body)?;
    let change = ProjectChange { name: update.name, ..ProjectChange::default() };
    let project = accounts_of(&request, &caller, &services).update_project(id, change).await?;
    Ok(HttpResponse::Ok().json(ProjectView::of(&project)))
}

/// Archive a project
///
/// For good: its keys stop working within a second on every replica. What is open goes on; kept prompts are gone within a
/// minute.
#[utoipa::path(
    post,
    path = "/v1/organization/projects/{project_id}/archive",
    operation_id = "archiveOrganizationProject",
    tag = "organization",
    params(("project_id" = String, Path, description = "The project's id.")),
    responses((status = 200, description = "The project, archived.", body = ProjectView), RefusalsOfOne),
)]
pub async fn archive_project(
    caller: AdminCaller<action::Operate>,
    request: HttpRequest,
    path: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let id = id_of(&path, "project")?;
    let project = accounts_of(&request, &caller, &services).archive_project(id).await?;
    Ok(HttpResponse::Ok().json(ProjectView::of(&project)))
}
