//! `stream: true`: a generation's way as server-sent events in OpenAI's form, with events of our own beside them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::Services;
use super::answer::{ImageAnswer, image_answer};
use super::embedded::Embedded;
use super::errors::{failure_problem, overdue_problem};
use super::fetch;
use super::images::{Waiting, changes_of, join, put_changes, reserved};
use super::openai_facts::{ImageUsage, background_of, choice_of, format_of, size_of};
use crate::accounts::Caller;
use crate::catalogue::{Order, ResponseFormat};
use crate::domain::{GenerationId, ProjectId};
use crate::gateway::{Accepted, Finished, Job, Preview, Progress};
use crate::http::Problem;
use crate::ledger::FinalState;

/// How often a silent stream shows that it lives, so that proxies keep the line open.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Answers with events. What is refused before there is a generation is an ordinary error.
pub(super) async fn stream_events(
    services: web::Data<Services>,
    request: HttpRequest,
    accepted: Accepted,
    job: Arc<Job>,
    waiting: Waiting,
    prefix: &'static str,
) -> Result<HttpResponse, Problem> {
    let (id, replayed) = match reserved(&job).await {
        Ok(reserved) => reserved,
        Err(problem) => {
            waiting.seen();
            return Err(problem);
        }
    };
    let own = (!replayed).then_some(job);
    Ok(answer_with_events(services, request, accepted, id, own, waiting, prefix).await)
}

/// The events of the request that a resend without a key repeats. `Err` gives the order back if there is none to be joined, or
/// if it was given up, free, because its client had left while it was queued.
pub(super) async fn stream_joined(
    services: &web::Data<Services>,
    request: &HttpRequest,
    caller: &Caller,
    accepted: Accepted,
    prefix: &'static str,
) -> Result<Result<HttpResponse, Problem>, Box<Accepted>> {
    let id = match services.gateway.join_resent(caller.api_key_id, &accepted.order).await {
        Ok(Some(id)) => id,
        Ok(None) => return Err(Box::new(accepted)),
        Err(fault) => return Ok(Err(fault.into())),
    };
    let waiting = Waiting::of(services, id, true, true);
    if is_given_up(services, id).await {
        waiting.answered(false).await;
        return Err(Box::new(accepted));
    }
    let (services, request) = (services.clone(), request.clone());
    Ok(Ok(answer_with_events(services, request, accepted, id, None, waiting, prefix).await))
}

/// Whether a generation ends as cancelled before it runs.
async fn is_given_up(services: &Services, id: GenerationId) -> bool {
    let ended = match services.gateway.job(id) {
        Some(job) => {
            let mut watcher = job.watch();
            let left_queue = |progress: &Progress| !matches!(progress, Progress::Reserving | Progress::Queued(_));
            match watcher.wait_for(left_queue).await.map(|progress| progress.clone()) {
                Ok(Progress::Finished(finished)) => Ok(finished),
                _ => return false,
            }
        }
        None => join(services, id).await,
    };
    matches!(ended, Ok(finished) if finished.state == FinalState::Cancelled)
}

/// The events of a generation: of this request's own job, or of an earlier request's.
async fn answer_with_events(
    services: web::Data<Services>,
    request: HttpRequest,
    accepted: Accepted,
    id: GenerationId,
    own: Option<Arc<Job>>,
    waiting: Waiting,
    prefix: &'static str,
) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response.content_type("text/event-stream");
    response.insert_header(("cache-control", "no-cache"));
    // nginx would hold the events back.
    response.insert_header(("x-accel-buffering", "no"));
    response.insert_header(("x-imagegate-generation-id", id.to_string()));
    response.insert_header(("x-imagegate-upstream", services.upstream.name()));
    if own.is_none() {
        response.insert_header(("idempotent-replayed", "true"));
    }
    put_changes(&mut response, &changes_of(&services, id, own.is_none(), &accepted.order).await);
    let events = async_stream::stream! {
        if let Some(job) = own.clone().or_else(|| services.gateway.job(id)) {
            for await event in progress_events(&services, job.project_id, &accepted.order, id, job.watch(), prefix) {
                yield Ok::<_, Infallible>(event);
            }
        }
        let end = match own {
            Some(job) => match job.outcome().await {
                Progress::Finished(finished) => Ok(finished),
                _ => Err(overdue_problem(id)),
            },
            None => join(&services, id).await,
        };
        let (events, embedded, is_server_error) = match end_events(&services, &request, &accepted, end, prefix).await {
            Ok((events, embedded)) => (events, embedded, false),
            Err(problem) => {
                (vec![error_event(&problem)], Embedded::default(), problem.status_code().is_server_error())
            }
        };
        let mut pieces = events.into_iter().flat_map(|event| embedded.fill(event)).peekable();
        while let Some(piece) = pieces.next() {
            if pieces.peek().is_some() {
                yield Ok(piece);
            } else {
                // A client that leaves before this has no answer, and may come again.
                waiting.answered(is_server_error).await;
                yield Ok(piece);
                return;
            }
        }
    };
    response.streaming(Box::pin(events))
}

/// How far it is, until it has come to an end.
fn progress_events(
    services: &Services,
    project: ProjectId,
    order: &Order,
    id: GenerationId,
    mut watcher: watch::Receiver<Progress>,
    prefix: &'static str,
) -> impl futures_util::Stream<Item = web::Bytes> {
    let wanted = order.switches.partial_images.unwrap_or_default();
    async_stream::stream! {
        let mut shown = 0;
        let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let progress = watcher.borrow_and_update().clone();
            match progress {
                Progress::Queued(position) => {
                    let body = json!({"generation_id": id, "queue_position": position});
                    yield event(&format!("{prefix}.queued"), body).into();
                }
                Progress::Preview(preview) if shown < wanted => {
                    let (events, embedded) = partial_events(services, project, id, &preview, shown, prefix).await;
                    for piece in events.into_iter().flat_map(|event| embedded.fill(event)) {
                        yield piece;
                    }
                    shown += 1;
                }
                Progress::Preview(_) => {}
                Progress::Running => yield event(&format!("{prefix}.in_progress"), json!({"generation_id": id})).into(),
                Progress::Reserving => {}
                Progress::Refused(_) | Progress::Overdue | Progress::Finished(_) => return,
            }
            loop {
                tokio::select! {
                    changed = watcher.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    _ = heartbeat.tick() => yield web::Bytes::from_static(b": heartbeat\n\n"),
                }
            }
        }
    }
}

/// The unfinished images, embedded. One that cannot be fetched is left out: the finished one is still to come.
async fn partial_events(
    services: &Services,
    project: ProjectId,
    id: GenerationId,
    preview: &Preview,
    shown: u32,
    prefix: &str,
) -> (Vec<String>, Embedded) {
    let created_at = services.clock.now().seconds();
    let (mut events, mut embedded) = (Vec::new(), Embedded::default());
    for (index, image) in preview.delivery.images.iter().enumerate() {
        let file = match fetch(services, Some(project), &image.url).await {
            Ok(file) => file,
            Err(fault) => {
                tracing::warn!(generation = %id, %fault, "an unfinished image cannot be fetched");
                continue;
            }
        };
        let kind = image.content_type.as_deref().unwrap_or("image/jpeg");
        let size = image.width.zip(image.height).map(|(width, height)| format!("{width}x{height}"));
        events.push(event(
            &format!("{prefix}.partial_image"),
            json!({
                "b64_json": embedded.add(services.ids.uuid(), file),
                "created_at": created_at,
                "size": size.unwrap_or_else(|| "auto".to_owned()),
                "output_format": kind.strip_prefix("image/").unwrap_or(kind),
                "background": "auto",
                "quality": "auto",
                "partial_image_index": shown,
                "image_index": index,
                "generation_id": id,
            }),
        ));
    }
    (events, embedded)
}

/// The images and their price, or why there are none.
async fn end_events(
    services: &Services,
    request: &HttpRequest,
    accepted: &Accepted,
    end: Result<Arc<Finished>, Problem>,
    prefix: &str,
) -> Result<(Vec<String>, Embedded), Problem> {
    let finished = end?;
    // A fallback may have made the images.
    let order = accepted.order_of(&finished.model);
    let (answer, embedded) = finished_answer(services, request, order, &finished).await?;
    Ok((delivered_events(order, &answer, prefix), embedded))
}

/// The answer with the images embedded: that is where OpenAI's streaming clients look for them.
async fn finished_answer(
    services: &Services,
    request: &HttpRequest,
    order: &Order,
    finished: &Finished,
) -> Result<(ImageAnswer, Embedded), Problem> {
    let Some(delivery) = &finished.delivery else {
        let failed = |failure| failure_problem(finished.id, failure, Some(&order.model));
        return Err(finished.failure.as_ref().map_or_else(|| overdue_problem(finished.id), failed));
    };
    let mut switches = order.switches.clone();
    switches.response_format = ResponseFormat::B64Json;
    image_answer(services, request, finished, delivery, &switches, order).await
}

fn delivered_events(order: &Order, answer: &ImageAnswer, prefix: &str) -> Vec<String> {
    let mut events = Vec::new();
    for (index, image) in answer.images().iter().enumerate() {
        events.push(event(
            &format!("{prefix}.completed"),
            json!({
                "b64_json": image.b64_json,
                "url": image.url,
                "created_at": answer.created,
                "size": or_auto(size_of(order, image)),
                "output_format": format_of(image).unwrap_or_else(|| "jpeg".to_owned()),
                "background": or_auto(background_of(order, image)),
                "quality": or_auto(choice_of(order, "quality")),
                "image_index": index,
                "generation_id": answer.id,
                "embedding_error": image.embedding_error,
                // The price stands in the event after the last image.
                "usage": ImageUsage::default(),
            }),
        ));
    }
    let mut settled = answer.facts();
    settled.insert("generation_id".to_owned(), json!(answer.id));
    events.push(event(&format!("{prefix}.settled"), Value::Object(settled)));
    events
}

/// OpenAI's word for what is not known.
fn or_auto(fact: Option<String>) -> String {
    fact.unwrap_or_else(|| "auto".to_owned())
}

/// OpenAI's SDKs raise what stands under `error`.
fn error_event(problem: &Problem) -> String {
    let mut body = Map::new();
    body.insert("status".to_owned(), json!(problem.status_code().as_u16()));
    body.insert("error".to_owned(), problem.error());
    event("error", Value::Object(body))
}

fn event(kind: &str, body: Value) -> String {
    let mut fields = Map::new();
    fields.insert("type".to_owned(), json!(kind));
    if let Value::Object(rest) = body {
        fields.extend(rest);
    }
    format!("event: {kind}\ndata: {}\n\n", Value::Object(fields))
}
