//! `POST /v1/images/generations`: AIML's request and OpenAI's in one, and its quote.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{ContentType, HeaderMap, LOCATION};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, HttpResponseBuilder, web};
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::error;
use utoipa::ToSchema;

use super::access::{ProjectCaller, scope};
use super::answer::{ImageAnswer, image_answer, put_cost_headers};
use super::bodies::{ImageBody, LARGE_BODY};
use super::errors::{failure_problem, invalid_field, overdue_problem, reserve_problem};
use super::input::expect_json;
use super::permission::permit;
use super::places::public_base;
use super::rates::put_rate_headers;
use super::stream::{stream_events, stream_joined};
use super::{GenerationView, Services};
use crate::accounts::{Caller, CallerKind};
use crate::catalogue::{self, Handling, Order, Strictness, Switches};
use crate::domain::{Adapt, Aliases, ApiKeyId, GenerationId, ProjectId, Scope};
use crate::gateway::{
    Accepted, Changes, ClientNews, Finished, FinishedError, Gateway, Job, Progress, Request, read_finished,
};
use crate::http::{BodyMemory, Code, Problem, ProblemBody, RequestContext};
use crate::ledger::{FinalState, ReserveError};
use crate::meters::Served;
use crate::webhooks::WebhookForm;

/// How long an idempotency key counts.
pub(super) const IDEMPOTENCY_KEPT: Duration = Duration::from_hours(24);
/// Longest idempotency key.
const IDEMPOTENCY_KEY_LIMIT: usize = 255;
/// How often the books are asked for a generation that another replica works on.
const BOOKS_INTERVAL: Duration = Duration::from_millis(200);

/// A request for images: AIML's words and OpenAI's. Which parameters there are and what they allow depends on `model`;
/// `GET /v1/models` tells each model's parameters as a JSON Schema.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ImageGenerationRequest, value_type = Object)]
pub struct ImageRequest(Map<String, Value>);

/// Make images
///
/// Checks every parameter against the model's limits before anything is spent, makes the images, and charges what was
/// delivered. All problems of a request are told at once. Fields that the model does not have are named in
/// `meta.ignored`, or refused with `x-imagegate-strict: true`.
#[utoipa::path(
    post,
    path = "/v1/images/generations",
    operation_id = "createImageGeneration",
    tag = "images",
    request_body(content = ImageRequest, content_type = "application/json"),
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Same key and body: one image, one charge, the same answer. Kept 24 hours.", pattern = "^[!-~]([ -~]{0,253}[!-~])?$"),
        ("x-imagegate-strict" = Option<bool>, Header, description = "`true`: fields that the model does not have are errors."),
        ("x-imagegate-adapt" = Option<String>, Header, description = "What may be changed so that the request fits the model: any of `size`, `numbers`, `seed`, `output_format`, `quality` in a list with commas, or `all`, or `none`. Without it the setting of the key or the project counts, and without that nothing is changed.", pattern = "^(all|none|(size|numbers|seed|output_format|quality)(, ?(size|numbers|seed|output_format|quality))*)$"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: answer 202 at once, as with `background: true`."),
    ),
    responses(
        (status = 201, description = "The images. The status is 200 where the operator has set it so.", body = ImageAnswer,
         headers(
            ("x-request-id" = String, description = "The request's id."),
            ("x-imagegate-generation-id" = String, description = "The generation's id."),
            ("x-imagegate-cost-usd" = String, description = "What it cost, in US dollars with nine places."),
            ("x-imagegate-ignored" = String, description = "Fields of the request that counted for nothing, if any."),
            ("x-imagegate-adapted" = String, description = "Fields that another value stands for (`meta.adapted`), if any."),
            ("x-imagegate-upstream" = String, description = "`fal`, or `sandbox` where no key of fal is set."),
            ("idempotent-replayed" = String, description = "`true` if this is the answer to an earlier request with the same key."),
            ("x-ratelimit-limit-requests" = String, description = "Requests for this model in any minute, where they are limited; likewise `-images`."),
            ("x-ratelimit-remaining-requests" = String, description = "What is left of them; likewise `-images`."),
            ("x-ratelimit-reset-requests" = String, description = "When all are there again, as in `8.64s`; likewise `-images`."),
         )),
        (status = 200, description = "With `stream: true`: server-sent events in OpenAI's form. `image_generation.partial_image` shows unfinished images where `partial_images` asks for them and the model has them, `image_generation.completed` carries each image, `image_generation.queued` and `image_generation.in_progress` tell how far it is, `image_generation.settled` what it cost, `error` why there is no image.", body = String, content_type = "text/event-stream"),
        (status = 202, description = "Taken, as `background` or `Prefer: respond-async` asked.", body = GenerationView,
         headers(("Location" = String, description = "Where it can be fetched."))),
        (status = 400, description = "The request does not fit the model, or its content is refused; `error.data` lists every problem.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "No credit, a limit reached, or an admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such model.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "The idempotency key was used with another body.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "Too many requests; see `Retry-After`.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 500, description = "A fault of the gateway.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 502, description = "The provider failed; nothing was charged.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The request cannot be taken now; see `Retry-After`.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 504, description = "Not ready by its deadline; the answer names the generation.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn create_image_generation(
    caller: ProjectCaller<scope::Generate>,
    request: HttpRequest,
    context: web::ReqData<RequestContext>,
    body: ImageBody,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    expect_json(&request)?;
    let accepted =
        accept_body(&request, &caller, body.0, services.accounts.aliases(Some(project_of(&caller)?)), &services)
            .await?;
    make_images(
        Asked {
            request,
            services,
            caller: caller.into_inner(),
            context: context.into_inner(),
            events: "image_generation",
        },
        accepted,
    )
    .await
}

/// A request on its way: who asks, and in which words the answer is streamed.
pub(super) struct Asked {
    /// The HTTP request.
    pub request: HttpRequest,
    /// What handlers may use.
    pub services: web::Data<Services>,
    /// Who asks.
    pub caller: Caller,
    /// The request's frame.
    pub context: RequestContext,
    /// What the events' types begin with: `image_generation` or `image_edit`.
    pub events: &'static str,
}

/// Makes the images of a checked order, and answers as the request wants to be answered.
pub(super) async fn make_images(asked: Asked, accepted: Accepted) -> Result<HttpResponse, Problem> {
    let Asked { request, services, caller, context, events } = asked;
    let project_id = project_of(&caller)?;
    note_served(&request, &accepted, None);
    let switches = &accepted.order.switches;
    let ask_for = |url: &String| services.webhooks.ask(url, WebhookForm::Imagegate, public_base(&services, &request));
    let webhook = switches.webhook_url.as_ref().map(ask_for).transpose();
    let webhook = webhook.map_err(|fault| invalid_field("webhook_url", &fault.to_string()))?;
    let in_background = switches.background || prefers_async(request.headers());
    if in_background && switches.stream {
        return Err(invalid_field(
            "stream",
            "a generation in the background is not streamed; leave one of the two out",
        ));
    }
    let idempotency_key = idempotency_key_of(&caller, request.headers())?;
    let may_join = idempotency_key.is_none() && !in_background;
    let resent = may_join.then(|| resent_by(&caller, request.headers())).flatten();
    let ask = Request {
        project_id,
        api_key_id: caller.api_key_id,
        request_id: context.request_id,
        idempotency: idempotency_key.map(|key| (key, services.clock.now().plus(IDEMPOTENCY_KEPT))),
        waits: !in_background,
        may_resend: resent.is_some(),
        webhook,
    };
    let (has_key, may_resend) = (ask.idempotency.is_some(), ask.may_resend);
    let accepted = if resent.is_some_and(|count| count > 0) {
        if switches.stream {
            match Box::pin(stream_joined(&services, &request, &caller, accepted, events)).await {
                Ok(answer) => return answer,
                Err(accepted) => *accepted,
            }
        } else if let Some(answer) = Box::pin(answer_resent(&services, &request, &caller, &accepted)).await {
            return answer;
        } else {
            accepted
        }
    } else {
        accepted
    };
    let job = services.gateway.generate(&accepted, ask, BodyMemory::of(&request))?;
    if in_background {
        return Box::pin(answer_async(&services, &request, &job)).await;
    }
    let waiting = Waiting::of(&services, job.id, !has_key, may_resend);
    if accepted.order.switches.stream {
        return Box::pin(stream_events(services, request, accepted, job, waiting, events)).await;
    }
    let progress = job.outcome().await;
    note_served(&request, &accepted, Some(job.time_at_provider()));
    // Apart, like the other ways to answer: ten thousand that wait need not keep room for it.
    let answer = Box::pin(answer(&services, &request, &accepted, progress, &job)).await;
    waiting.ends(&answer).await;
    answer
}

/// Tells the frame what the request is counted as.
fn note_served(request: &HttpRequest, accepted: &Accepted, provider_time: Option<Duration>) {
    request.extensions_mut().insert(Served { model: accepted.order.model.id.clone(), provider_time });
}

/// The answer to a resend without a key, if there is a first request that it can join.
async fn answer_resent(
    services: &web::Data<Services>,
    request: &HttpRequest,
    caller: &Caller,
    accepted: &Accepted,
) -> Option<Result<HttpResponse, Problem>> {
    let (waiting, ended) = match join_earlier(services, caller.api_key_id, &accepted.order).await {
        Ok(joined) => joined?,
        Err(problem) => return Some(Err(problem)),
    };
    let answer = match ended {
        Ok(finished) => answer_finished(services, request, accepted.order_of(&finished.model), &finished, true).await,
        Err(problem) => Err(problem),
    };
    waiting.ends(&answer).await;
    Some(answer)
}

/// The request that a resend without a key repeats, and its end; `None` if there is none to be joined, or if it was given up,
/// free, because its client had left while it was queued.
pub(super) async fn join_earlier(
    services: &Services,
    key: ApiKeyId,
    order: &Order,
) -> Result<Option<(Waiting, Result<Arc<Finished>, Problem>)>, Problem> {
    let Some(id) = services.gateway.join_resent(key, order).await? else { return Ok(None) };
    let waiting = Waiting::of(services, id, true, true);
    let ended = join(services, id).await;
    if matches!(&ended, Ok(finished) if finished.state == FinalState::Cancelled) {
        waiting.answered(false).await;
        return Ok(None);
    }
    Ok(Some((waiting, ended)))
}

/// Checks the JSON of a body against the catalogue and the caller's permissions, and prices it.
pub(super) async fn accept_body(
    request: &HttpRequest,
    caller: &Caller,
    body: web::Bytes,
    aliases: Aliases,
    services: &Services,
) -> Result<Accepted, Problem> {
    let handling = handling(request, caller, aliases)?;
    let project = project_of(caller)?;
    let mut accepted = if body.len() < LARGE_BODY {
        services.gateway.accept(project, &catalogue::parse_request(&body)?, &handling).await?
    } else {
        services.gateway.accept_large(project, body, handling).await?
    };
    permit(caller, &mut accepted)?;
    Ok(accepted)
}

/// How a request wants to be read, with these aliases.
pub(super) fn handling(request: &HttpRequest, caller: &Caller, aliases: Aliases) -> Result<Handling, Problem> {
    let adapt = adapt(request.headers())?.unwrap_or(caller.adapt);
    Ok(Handling { strictness: strictness(request.headers())?, adapt, aliases, embeds: false })
}

/// Who pays.
pub(super) fn project_of(caller: &Caller) -> Result<ProjectId, Problem> {
    match caller.kind {
        CallerKind::Project(project_id) => Ok(project_id),
        CallerKind::Admin => {
            Err(Problem::new(Code::PermissionDenied, "an admin key does not generate; use a project key"))
        }
    }
}

fn strictness(headers: &HeaderMap) -> Result<Strictness, Problem> {
    match headers.get("x-imagegate-strict").map(|value| value.to_str().unwrap_or_default().trim()) {
        None | Some("false") => Ok(Strictness::Lenient),
        Some("true") => Ok(Strictness::Strict),
        Some(_) => {
            Err(Problem::new(Code::InvalidRequest, "`x-imagegate-strict` is `true` or `false`")
                .param("x-imagegate-strict"))
        }
    }
}

/// `x-imagegate-adapt`, which counts instead of the setting of the key or the project.
fn adapt(headers: &HeaderMap) -> Result<Option<Adapt>, Problem> {
    let mut words = Vec::new();
    for value in headers.get_all("x-imagegate-adapt") {
        words.extend(value.to_str().unwrap_or("?").split(',').map(str::trim));
    }
    if words.is_empty() {
        return Ok(None);
    }
    Adapt::from_names(words).map(Some).map_err(|error| {
        let message = format!("`x-imagegate-adapt`: {error}");
        Problem::new(Code::InvalidRequest, message).param("x-imagegate-adapt")
    })
}

fn prefers_async(headers: &HeaderMap) -> bool {
    let preferences =
        headers.get_all("prefer").filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    preferences.map(str::trim).any(|preference| preference.eq_ignore_ascii_case("respond-async"))
}

/// The request's `Idempotency-Key`, if it has one that can be used.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().unwrap_or_default().trim();
    let is_printable = key.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_LIMIT || !is_printable {
        let message = format!("`Idempotency-Key` has 1 to {IDEMPOTENCY_KEY_LIMIT} printable ASCII characters");
        return Err(Problem::new(Code::InvalidRequest, message).param("Idempotency-Key"));
    }
    Ok(Some(key.to_owned()))
}

/// The caller's own `Idempotency-Key`: keys of a project share theirs, but one that may not read what the others made has
/// its own.
pub(super) fn idempotency_key_of(caller: &Caller, headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let key = idempotency_key(headers)?;
    let is_shared = caller.scopes.contains(Scope::ImagesRead);
    Ok(key.map(|key| if is_shared { key } else { format!("{}:{key}", caller.api_key_id) }))
}

/// `x-stainless-retry-count`: how often OpenAI's SDK has sent this before. Its clients send again what got no answer.
pub(super) fn resent(headers: &HeaderMap) -> Option<u32> {
    headers.get("x-stainless-retry-count")?.to_str().ok()?.trim().parse().ok()
}

/// How often a request of this caller was sent before, where its client tells; where the operator has set `join_retries`, any
/// request may be one that comes again.
pub(super) fn resent_by(caller: &Caller, headers: &HeaderMap) -> Option<u32> {
    resent(headers).or(caller.join_retries.then_some(1))
}

/// A client that waits for a generation. Dropped before its answer is made, the client has hung up.
pub(super) struct Waiting {
    gateway: Arc<Gateway>,
    generation: GenerationId,
    may_cancel: bool,
    may_resend: bool,
    ended: bool,
}

impl Waiting {
    pub(super) fn of(services: &Services, generation: GenerationId, may_cancel: bool, may_resend: bool) -> Self {
        Self { gateway: services.gateway.clone(), generation, may_cancel, may_resend, ended: false }
    }

    /// The client has seen the end of it.
    pub(super) fn seen(mut self) {
        self.ended = true;
    }

    /// The client gets this answer; after a 5xx it may come again.
    async fn ends(self, answer: &Result<HttpResponse, Problem>) {
        let status = answer.as_ref().map_or_else(|problem| problem.code().status(), HttpResponse::status);
        self.answered(status.is_server_error()).await;
    }

    /// The client gets its answer; after a server error it may come again.
    pub(super) async fn answered(mut self, is_server_error: bool) {
        self.ended = true;
        if !self.may_resend {
            return;
        }
        if is_server_error {
            self.gateway.note_client(self.generation, ClientNews::Left).await;
        } else {
            self.gateway.note_client_later(self.generation, ClientNews::Answered);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if self.may_cancel
            && let Some(job) = self.gateway.job(self.generation)
        {
            self.gateway.client_left(&job);
        }
        if self.may_resend {
            self.gateway.note_client_later(self.generation, ClientNews::Left);
        }
    }
}

/// The generation once its hold is written, and whether it is that of an earlier request with the same key.
pub(super) async fn reserved(job: &Job) -> Result<(GenerationId, bool), Problem> {
    let mut watcher = job.watch();
    let reserved = watcher.wait_for(|progress| !matches!(progress, Progress::Reserving)).await;
    match reserved.map(|progress| progress.clone()) {
        Ok(Progress::Refused(refusal)) => match &*refusal {
            ReserveError::Duplicate(id) => Ok((*id, true)),
            refusal => Err(reserve_problem(refusal)),
        },
        _ => Ok((job.id, false)),
    }
}

/// 202 as soon as the hold is written.
async fn answer_async(services: &Services, request: &HttpRequest, job: &Job) -> Result<HttpResponse, Problem> {
    let (id, replayed) = reserved(job).await?;
    let record = services
        .gateway
        .books()
        .generation(id)
        .await?
        .ok_or_else(|| Problem::new(Code::InternalError, "the generation cannot be read back"))?;
    let mut response = HttpResponse::Accepted();
    response.insert_header((LOCATION, format!("/v1/images/generations/{id}")));
    response.insert_header(("x-imagegate-generation-id", id.to_string()));
    response.insert_header(("x-imagegate-upstream", services.upstream.name()));
    put_changes(&mut response, &Changes::of_record(&record));
    if replayed {
        response.insert_header(("idempotent-replayed", "true"));
    }
    let mut answer = response.json(GenerationView::for_project(services, &public_base(services, request), &record));
    put_rate_headers(answer.headers_mut(), &job.rates());
    Ok(answer)
}

/// The answer to a client that waits.
async fn answer(
    services: &Services,
    request: &HttpRequest,
    accepted: &Accepted,
    progress: Progress,
    job: &Job,
) -> Result<HttpResponse, Problem> {
    match progress {
        Progress::Finished(finished) => {
            let mut answer =
                answer_finished(services, request, accepted.order_of(&finished.model), &finished, false).await?;
            put_rate_headers(answer.headers_mut(), &job.rates());
            Ok(answer)
        }
        Progress::Refused(refusal) => match &*refusal {
            ReserveError::Duplicate(original) => {
                let finished = join(services, *original).await?;
                answer_finished(services, request, accepted.order_of(&finished.model), &finished, true).await
            }
            refusal => Err(reserve_problem(refusal)),
        },
        _ => Err(overdue_problem(job.id)),
    }
}

/// Waits for a generation that an earlier request with the same idempotency key started, here or on another replica.
pub(super) async fn join(services: &Services, id: GenerationId) -> Result<Arc<Finished>, Problem> {
    loop {
        if let Some(job) = services.gateway.job(id) {
            match job.outcome().await {
                Progress::Finished(finished) => return Ok(with_stored_changes(services, finished).await),
                Progress::Refused(_) => {}
                _ => return Err(overdue_problem(id)),
            }
        }
        let record = services.gateway.books().generation(id).await?;
        let record =
            record.ok_or_else(|| Problem::new(Code::InternalError, "the earlier generation cannot be read back"))?;
        match read_finished(&record) {
            Ok(finished) => return Ok(Arc::new(finished)),
            Err(fault @ FinishedError::Erased(_)) => return Err(Problem::new(Code::NotFound, fault.to_string())),
            Err(FinishedError::Open(_) | FinishedError::Unreadable(..)) => {}
        }
        if services.clock.now() >= record.deadline_at {
            return Err(overdue_problem(id));
        }
        tokio::time::sleep(BOOKS_INTERVAL).await;
    }
}

/// With what was ignored and adapted of the request that it was made for.
async fn with_stored_changes(services: &Services, finished: Arc<Finished>) -> Arc<Finished> {
    if finished.changes.is_some() {
        return finished;
    }
    match services.gateway.books().generation(finished.id).await {
        Ok(Some(record)) => {
            Arc::new(Finished { changes: Some(Changes::of_record(&record)), ..Finished::clone(&finished) })
        }
        _ => finished,
    }
}

async fn answer_finished(
    services: &Services,
    request: &HttpRequest,
    order: &Order,
    finished: &Finished,
    replayed: bool,
) -> Result<HttpResponse, Problem> {
    let Some(delivery) = finished.delivery.as_ref().filter(|_| finished.state == FinalState::Succeeded) else {
        let problem = finished.failure.as_ref().map_or_else(
            || overdue_problem(finished.id),
            |failure| failure_problem(finished.id, failure, Some(&order.model)),
        );
        return Err(if replayed { problem.header("idempotent-replayed", "true") } else { problem });
    };
    let switches: &Switches = &order.switches;
    let (body, embedded) = image_answer(services, request, finished, delivery, switches, order).await?;
    let status = StatusCode::from_u16(services.http.success_status).unwrap_or(StatusCode::CREATED);
    let mut response = HttpResponseBuilder::new(status);
    put_cost_headers(&mut response, finished.id, finished.price);
    put_changes(&mut response, &finished.changes.clone().unwrap_or_else(|| Changes::of_order(order)));
    response.insert_header(("x-imagegate-upstream", services.upstream.name()));
    if replayed {
        response.insert_header(("idempotent-replayed", "true"));
    }
    let text = serde_json::to_string(&body).map_err(|fault| {
        error!(generation = %finished.id, %fault, "the answer cannot be written");
        Problem::new(Code::InternalError, "the answer cannot be written")
    })?;
    Ok(response.content_type(ContentType::json()).body(embedded.fill(text)))
}

/// `x-imagegate-ignored` and `x-imagegate-adapted`, where there is something to name.
pub(super) fn put_changes(response: &mut HttpResponseBuilder, changes: &Changes) {
    put_names(response, "x-imagegate-ignored", changes.ignored.iter().map(String::as_str));
    put_names(response, "x-imagegate-adapted", changes.adapted.iter().map(|adaptation| adaptation.field.as_str()));
}

/// What was ignored and adapted of a request: as it is stored where this answers an earlier one, which may have been written
/// in other words.
pub(super) async fn changes_of(services: &Services, id: GenerationId, replayed: bool, order: &Order) -> Changes {
    let record = if replayed { services.gateway.books().generation(id).await.ok().flatten() } else { None };
    record.map_or_else(|| Changes::of_order(order), |record| Changes::of_record(&record))
}

/// A header of names, with characters that it cannot carry replaced; none without names.
fn put_names<'n>(response: &mut HttpResponseBuilder, header: &'static str, names: impl Iterator<Item = &'n str>) {
    let plain = |c: char| if c.is_ascii_graphic() && c != ',' { c } else { '?' };
    let names: Vec<String> = names.take(50).map(|name| name.chars().take(100).map(plain).collect()).collect();
    if !names.is_empty() {
        response.insert_header((header, names.join(", ")));
    }
}
