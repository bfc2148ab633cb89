//! `/v1/images/generations/{id}`: what became of a generation; list and cancel. A project sees only its own.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::access::{ProjectCaller, scope};
use super::places::public_base;
use super::{GenerationView, Services, query};
use crate::accounts::{Caller, CallerKind, Scope};
use crate::domain::{ApiKeyId, GenerationId, ProjectId, Timestamp};
use crate::gateway::Progress;
use crate::http::{Code, Problem, ProblemBody};
use crate::ledger::{GenerationFilter, GenerationRecord, GenerationState};

/// How long a cancellation waits for the provider's word before it answers with what is known.
const CANCEL_WAIT: Duration = Duration::from_secs(10);
/// How often the books are asked for a generation that another replica works on.
const BOOKS_INTERVAL: Duration = Duration::from_millis(200);

/// A page of generations, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct GenerationList {
    /// Always `list`.
    #[schema(example = "list")]
    pub object: &'static str,
    /// The generations.
    pub data: Vec<GenerationView>,
    /// The first one's id; null on an empty page.
    pub first_id: Option<String>,
    /// The last one's id: `after` for the next page; null on an empty page.
    pub last_id: Option<String>,
    /// Whether there are more after the last one.
    pub has_more: bool,
}

impl GenerationList {
    /// A page from its records.
    #[must_use]
    pub fn of(data: Vec<GenerationView>, has_more: bool) -> Self {
        let id = |view: Option<&GenerationView>| view.map(|view| view.id.clone());
        Self { object: "list", first_id: id(data.first()), last_id: id(data.last()), data, has_more }
    }
}

/// List generations
///
/// The project's generations, newest first; without the scope `images:read` those that the key itself asked for.
#[utoipa::path(
    get,
    path = "/v1/images/generations",
    operation_id = "listImageGenerations",
    tag = "images",
    params(
        ("limit" = Option<u32>, Query, description = "How many, 1 to 1000; 20 if not given.", minimum = 1, maximum = 1000),
        ("after" = Option<String>, Query, description = "The id to go on after: `last_id` of the page before."),
        ("state" = Option<String>, Query, description = "Only those in this state."),
        ("model" = Option<String>, Query, description = "Only those of this model."),
        ("user" = Option<String>, Query, description = "Only those of this `user`."),
    ),
    responses(
        (status = 200, description = "A page of generations.", body = GenerationList),
        (status = 400, description = "A filter is wrong.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn list_image_generations(
    caller: ProjectCaller<scope::ReadImages>,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let pairs = query(&request, &["limit", "after", "state", "model", "user"])?;
    let filter = GenerationFilter {
        project_id: Some(project_of(&caller)?),
        api_key_id: only_key(&caller),
        state: state_filter(&pairs)?,
        model: pairs.one("model")?.map(str::to_owned),
        user: pairs.one("user")?.map(str::to_owned),
        after: pairs.parsed("after", "a generation's id")?,
        limit: pairs.limit(20, 1000)?,
        ..GenerationFilter::default()
    };
    let page = services.gateway.books().list_generations(&filter).await?;
    let base = public_base(&services, &request);
    let views = page.items.iter().map(|record| GenerationView::for_project(&services, &base, record)).collect();
    Ok(HttpResponse::Ok().json(GenerationList::of(views, page.has_more)))
}

/// The state that a `state` filter names.
pub fn state_filter(pairs: &super::QueryPairs) -> Result<Option<GenerationState>, Problem> {
    pairs.parsed("state", "one of queued, running, succeeded, failed, cancelled, expired")
}

/// Retrieve a generation
///
/// Where it stands, and its images once it has succeeded. One that has expired shows the images that came after its end, free.
/// While it is open: how many requests are before it at the provider, or what the model has written by now.
#[utoipa::path(
    get,
    path = "/v1/images/generations/{id}",
    operation_id = "retrieveImageGeneration",
    tag = "images",
    params(("id" = String, Path, description = "The generation's id.")),
    responses(
        (status = 200, description = "The generation.", body = GenerationView),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "The project has no such generation.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn retrieve_image_generation(
    caller: ProjectCaller<scope::ReadImages>,
    request: HttpRequest,
    id: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let record = own_generation(&services, &caller, &id).await?;
    Ok(HttpResponse::Ok().json(shown(&services, &request, &record).await))
}

/// A generation with how it stands at the provider, if it is open.
async fn shown(services: &Services, request: &HttpRequest, record: &GenerationRecord) -> GenerationView {
    let view = GenerationView::for_project(services, &public_base(services, request), record);
    match &record.outcome {
        Some(_) => view,
        None => view.standing(services.gateway.standing(record, true).await),
    }
}

/// Cancel a generation
///
/// One that waits is cancelled and free. One that runs is cancelled only if the provider confirms; else it is kept and
/// charged. The answer tells which: look at `state`. One that has ended is answered as it is.
#[utoipa::path(
    delete,
    path = "/v1/images/generations/{id}",
    operation_id = "cancelImageGeneration",
    tag = "images",
    params(("id" = String, Path, description = "The generation's id.")),
    responses(
        (status = 200, description = "The generation as it stands now.", body = GenerationView),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "The project has no such generation.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn cancel_image_generation(
    caller: ProjectCaller<scope::Generate>,
    request: HttpRequest,
    id: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let record = own_generation(&services, &caller, &id).await?;
    cancel(&services, &record).await;
    let record = own_generation(&services, &caller, &id).await?;
    Ok(HttpResponse::Ok().json(shown(&services, &request, &record).await))
}

/// Has an open generation cancelled, on whichever replica it is, and waits for what comes of it. What the provider says may
/// take a while: then it is still open.
pub(super) async fn cancel(services: &Services, record: &GenerationRecord) {
    let gateway = &services.gateway;
    let ended = match gateway.job(record.id) {
        Some(job) => {
            gateway.cancel(&job);
            let ended = tokio::time::timeout(CANCEL_WAIT, job.end()).await;
            matches!(ended, Ok(Progress::Finished(_)))
        }
        None if record.outcome.is_some() => true,
        None => {
            gateway.cancel_elsewhere(record).await;
            tokio::time::timeout(CANCEL_WAIT, end_in_books(services, record.id)).await.is_ok()
        }
    };
    if !ended {
        tracing::info!(generation = %record.id, "the cancellation is not confirmed yet");
    }
}

async fn end_in_books(services: &Services, id: GenerationId) {
    loop {
        let record = services.gateway.books().generation(id).await;
        if matches!(record, Ok(Some(record)) if record.outcome.is_some()) {
            return;
        }
        tokio::time::sleep(BOOKS_INTERVAL).await;
    }
}

pub(super) async fn own_generation(
    services: &Services,
    caller: &Caller,
    id: &str,
) -> Result<GenerationRecord, Problem> {
    let (project_id, only_key) = (project_of(caller)?, only_key(caller));
    let whose = if only_key.is_some() { "key" } else { "project" };
    let not_found = || Problem::new(Code::NotFound, format!("this {whose} has no generation `{id}`")).param("id");
    let id: GenerationId = id.parse().map_err(|_| not_found())?;
    let record = services.gateway.books().generation(id).await?;
    record
        .filter(|record| record.project_id == project_id && only_key.is_none_or(|key| record.api_key_id == key))
        .ok_or_else(not_found)
}

/// The key whose generations alone the caller may see: its own, without the scope to read the project's.
fn only_key(caller: &Caller) -> Option<ApiKeyId> {
    (!caller.scopes.contains(Scope::ImagesRead)).then_some(caller.api_key_id)
}

pub(super) fn project_of(caller: &Caller) -> Result<ProjectId, Problem> {
    match caller.kind {
        CallerKind::Project(project_id) => Ok(project_id),
        CallerKind::Admin => Err(Problem::new(Code::PermissionDenied, "this path wants a project key")),
    }
}

/// Unix seconds of a query parameter.
pub fn time_filter(pairs: &super::QueryPairs, name: &str) -> Result<Option<Timestamp>, Problem> {
    Ok(pairs.parsed::<i64>(name, "a time in Unix seconds")?.map(Timestamp::from_seconds))
}
