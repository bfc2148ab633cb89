//! `GET /admin/v1/generations`: every request that reserved, newest first, with what it cost us.

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use super::export::{Form, stream_generations};
use super::history::GenerationHistory;
use super::shapes::{accounts_of, note_export};
use crate::accounts::AuditEvent;
use crate::api::access::{AdminCaller, action};
use crate::api::errors::invalid_field;
use crate::api::{GenerationList, GenerationView, Services, query, state_filter, time_filter};
use crate::domain::GenerationId;
use crate::http::{Code, Problem, ProblemBody};
use crate::ledger::GenerationFilter;

const AMOUNT: &str = "US dollars as a decimal string such as `0.025`";

const FILTERS: &[&str] = &[
    "limit",
    "after",
    "state",
    "model",
    "user",
    "project_id",
    "api_key_id",
    "fal_request_id",
    "start_time",
    "end_time",
    "min_cost_usd",
    "max_cost_usd",
    "min_price_usd",
    "max_price_usd",
    "drifted",
    "format",
];

/// List generations
///
/// Every request that reserved, of all projects, newest first.
#[utoipa::path(
    get,
    path = "/admin/v1/generations",
    operation_id = "listGenerations",
    tag = "admin",
    params(
        ("limit" = Option<u32>, Query, description = "How many, 1 to 1000; 20 if not given, and all that match in a stream.", minimum = 1, maximum = 1000),
        ("after" = Option<String>, Query, description = "The id to go on after: `last_id` of the page before."),
        ("state" = Option<String>, Query, description = "Only those in this state."),
        ("model" = Option<String>, Query, description = "Only those of this model."),
        ("user" = Option<String>, Query, description = "Only those of this `user`."),
        ("project_id" = Option<String>, Query, description = "Only those of this project."),
        ("api_key_id" = Option<String>, Query, description = "Only those of this key."),
        ("fal_request_id" = Option<String>, Query, description = "Only the one with this id at fal."),
        ("start_time" = Option<i64>, Query, description = "Only those reserved at this time or later, in Unix seconds."),
        ("end_time" = Option<i64>, Query, description = "Only those reserved before this time, in Unix seconds."),
        ("min_cost_usd" = Option<String>, Query, description = "Only those that cost us at least this, as a decimal string."),
        ("max_cost_usd" = Option<String>, Query, description = "Only those that cost us at most this."),
        ("min_price_usd" = Option<String>, Query, description = "Only those that were charged at least this."),
        ("max_price_usd" = Option<String>, Query, description = "Only those that were charged at most this."),
        ("drifted" = Option<bool>, Query, description = "Only those that fal billed another amount for than the catalogue computed."),
        ("format" = Option<String>, Query, description = "`json`, a page, if not given. `ndjson` and `csv` stream every one that matches, or as many as `limit` says."),
    ),
    responses(
        (status = 200, description = "A page of generations, or a stream of lines.", content(
            (GenerationList = "application/json"),
            (String = "application/x-ndjson"),
            (String = "text/csv"),
        )),
        (status = 400, description = "A filter is wrong.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "A project key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn list_generations(
    caller: AdminCaller<action::View>,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let pairs = query(&request, FILTERS)?;
    let filter = GenerationFilter {
        project_id: pairs.parsed("project_id", "a project's id")?,
        api_key_id: pairs.parsed("api_key_id", "a key's id")?,
        state: state_filter(&pairs)?,
        model: pairs.one("model")?.map(str::to_owned),
        user: pairs.one("user")?.map(str::to_owned),
        provider_request_id: pairs.one("fal_request_id")?.map(str::to_owned),
        created_from: time_filter(&pairs, "start_time")?,
        created_before: time_filter(&pairs, "end_time")?,
        cost_from: pairs.parsed("min_cost_usd", AMOUNT)?,
        cost_to: pairs.parsed("max_cost_usd", AMOUNT)?,
        price_from: pairs.parsed("min_price_usd", AMOUNT)?,
        price_to: pairs.parsed("max_price_usd", AMOUNT)?,
        after: pairs.parsed("after", "a generation's id")?,
        drifted: pairs.parsed("drifted", "`true` or `false`")?.unwrap_or(false),
        limit: pairs.limit(20, 1000)?,
        ..GenerationFilter::default()
    };
    let form = match pairs.one("format")? {
        None | Some("json") => None,
        Some("ndjson") => Some(Form::Ndjson),
        Some("csv") => Some(Form::Csv),
        Some(_) => return Err(invalid_field("format", "must be `json`, `ndjson` or `csv`")),
    };
    if let Some(form) = form {
        note_export(&request, &caller, &services, "generations", filter.project_id).await?;
        let most = pairs.one("limit")?.is_some().then_some(filter.limit);
        return Ok(stream_generations(services.gateway.books().clone(), filter, form, most));
    }
    let page = services.gateway.books().list_generations(&filter).await?;
    let views = page.items.iter().map(GenerationView::for_operator).collect();
    Ok(HttpResponse::Ok().json(GenerationList::of(views, page.has_more)))
}

/// Retrieve a generation
///
/// With its whole history: parameters, each submit with its times, what it moved in the ledger, price, cost and why. Where
/// its prompt is kept, the reading is in the audit log.
#[utoipa::path(
    get,
    path = "/admin/v1/generations/{id}",
    operation_id = "retrieveGeneration",
    tag = "admin",
    params(("id" = String, Path, description = "The generation's id.")),
    responses(
        (status = 200, description = "The generation.", body = GenerationHistory),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "A project key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such generation.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn retrieve_generation(
    caller: AdminCaller<action::View>,
    request: HttpRequest,
    id: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let not_found = || Problem::new(Code::NotFound, format!("there is no generation `{id}`")).param("id");
    let id: GenerationId = id.parse().map_err(|_| not_found())?;
    let books = services.gateway.books();
    let record = books.generation(id).await?.ok_or_else(not_found)?;
    if record.prompt.is_some() {
        let accounts = accounts_of(&request, &caller, &services);
        accounts.note(AuditEvent::PromptRead, Some(record.project_id), id.to_string(), &json!({})).await?;
    }
    let (attempts, entries) = (books.attempts(id).await?, books.entries(id).await?);
    Ok(HttpResponse::Ok().json(GenerationHistory::of(&record, attempts, entries)))
}
