//! `DELETE …/content`: erases what a generation, or all of a project, has left.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::projects::find;
use super::shapes::{RefusalsOfOne, accounts_of, id_of};
use crate::accounts::ProjectErasure;
use crate::api::Services;
use crate::api::access::{AdminCaller, action};
use crate::domain::{GenerationId, Timestamp};
use crate::http::Problem;

/// What is left of a generation's content.
#[derive(Debug, Serialize, ToSchema)]
pub struct GenerationErasure {
    /// The generation.
    id: String,
    /// Always `image.generation.content`.
    #[schema(example = "image.generation.content")]
    object: &'static str,
    /// Always true.
    deleted: bool,
    /// When it was erased, in Unix seconds.
    erased_at: i64,
}

/// The erasure of all that a project has made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProjectErasure)]
pub struct ErasureView {
    /// All that was asked for before this moment is erased, in Unix seconds.
    before: i64,
    /// When all of it was, in Unix seconds; null while something is left.
    finished_at: Option<i64>,
}

impl From<ProjectErasure> for ErasureView {
    fn from(erasure: ProjectErasure) -> Self {
        Self { before: erasure.before.seconds(), finished_at: erasure.finished_at.map(Timestamp::seconds) }
    }
}

/// The erasure of all that a project has made, as it was asked for.
#[derive(Debug, Serialize, ToSchema)]
pub struct AskedProjectErasure {
    /// The project.
    project_id: String,
    /// Always `organization.project.content`.
    #[schema(example = "organization.project.content")]
    object: &'static str,
    #[serde(flatten)]
    #[schema(inline)]
    erasure: ErasureView,
}

/// Erase a generation's content
///
/// Prompt, parameters, answer, the details of its error and the images that `IMAGEGATE_STORAGE` keeps are gone for good;
/// amounts, state, model and times stay. One that is still open is refused: cancel it or wait. Once more is fine. Copies
/// that the provider, a cache or the customer has are theirs to delete.
#[utoipa::path(
    delete,
    path = "/admin/v1/generations/{id}/content",
    operation_id = "eraseGenerationContent",
    tag = "admin",
    params(("id" = String, Path, description = "The generation's id.")),
    responses((status = 200, description = "It is erased.", body = GenerationErasure), RefusalsOfOne),
)]
pub async fn erase_generation_content(
    caller: AdminCaller<action::Operate>,
    request: HttpRequest,
    id: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let generation: GenerationId = id_of(&id, "generation")?;
    let eraser = services.eraser.with_accounts(accounts_of(&request, &caller, &services));
    let erased_at = eraser.erase_generation(generation).await?;
    Ok(HttpResponse::Ok().json(GenerationErasure {
        id: generation.to_string(),
        object: "image.generation.content",
        deleted: true,
        erased_at: erased_at.seconds(),
    }))
}

/// Erase a project's content
///
/// As for one generation, of all that the project has asked for so far, and its uploaded files. It begins within seconds,
/// also for an archived project; what is open is erased once it has ended. `content_erasure` of the project tells when all
/// is done. Asked for again, it is about all until then.
#[utoipa::path(
    delete,
    path = "/admin/v1/projects/{id}/content",
    operation_id = "eraseProjectContent",
    tag = "admin",
    params(("id" = String, Path, description = "The project's id, or `default`.")),
    responses((status = 202, description = "It is under way.", body = AskedProjectErasure), RefusalsOfOne),
)]
pub async fn erase_project_content(
    caller: AdminCaller<action::Operate>,
    request: HttpRequest,
    id: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let project = find(&services, &id).await?;
    let eraser = services.eraser.with_accounts(accounts_of(&request, &caller, &services));
    let erasure = eraser.erase_project(project.id).await?;
    Ok(HttpResponse::Accepted().json(AskedProjectErasure {
        project_id: project.id.to_string(),
        object: "organization.project.content",
        erasure: erasure.into(),
    }))
}
