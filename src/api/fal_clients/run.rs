//! fal's direct runs: one request, one connection, no queue; and its streams.

use std::io;
use std::sync::Arc;

use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, web};
use futures_util::stream::Stream;
use serde_json::Value;

use super::output::{Output, Wanted, output};
use super::queue::put_ids;
use super::refusal::Refusal;
use super::{Client, Visit};
use crate::api::answer::put_cost_headers;
use crate::api::embedded::FilledText;
use crate::api::errors::{overdue_problem, reserve_problem};
use crate::api::images::{Waiting, changes_of, idempotency_key, join, join_earlier, put_changes, resent_by, reserved};
use crate::catalogue::Order;
use crate::gateway::{Accepted, Changes, Finished, Job, Preview, Progress};
use crate::ledger::ReserveError;
use crate::providers::Delivery;

/// As many unfinished images as there can be.
const ALL_PREVIEWS: u32 = 3;

/// `POST https://fal.run/{endpoint}`: the output, on the same connection.
pub async fn run(visit: &Visit, endpoint: &str, body: web::Bytes) -> Result<HttpResponse, Refusal> {
    let accepted = visit.accept(visit.model_of(endpoint)?, endpoint, body, Vec::new()).await?;
    let has_key = idempotency_key(visit.request.headers())?.is_some();
    let resent = resent_by(&visit.caller, visit.request.headers()).filter(|_| !has_key);
    if resent.is_some_and(|count| count > 0)
        && let Some((waiting, ended)) = join_earlier(&visit.services, visit.caller.api_key_id, &accepted.order).await?
    {
        let answer = answer(visit, &accepted, ended.map_err(Refusal::from), true).await;
        waiting.answered(answer.as_ref().is_err_and(Refusal::is_server_error)).await;
        return answer;
    }
    let job = visit.generate(&accepted, Client { waits: true, may_resend: resent.is_some() }, None)?;
    let waiting = Waiting::of(&visit.services, job.id, !has_key, resent.is_some());
    let (ended, replayed) = match end(visit, &job).await {
        Ok((finished, replayed)) => (Ok(finished), replayed),
        Err(refusal) => (Err(refusal), false),
    };
    let answer = answer(visit, &accepted, ended, replayed).await;
    waiting.answered(answer.as_ref().is_err_and(Refusal::is_server_error)).await;
    answer
}

async fn answer(
    visit: &Visit,
    accepted: &Accepted,
    ended: Result<Arc<Finished>, Refusal>,
    replayed: bool,
) -> Result<HttpResponse, Refusal> {
    let finished = ended?;
    let order = accepted.order_of(&finished.model);
    let told = tell(visit, order, &finished).await?;
    let mut response = HttpResponse::Ok();
    put_cost_headers(&mut response, finished.id, finished.price);
    put_ids(&mut response, finished.id);
    put_changes(&mut response, &finished.changes.clone().unwrap_or_else(|| Changes::of_order(order)));
    if replayed {
        response.insert_header(("idempotent-replayed", "true"));
    }
    Ok(response.content_type(ContentType::json()).body(told.write("", "")))
}

/// `POST https://fal.run/{endpoint}/stream`: what the model shows on its way, and its output as the last event.
pub async fn stream(visit: &Visit, endpoint: &str, body: web::Bytes) -> Result<HttpResponse, Refusal> {
    if !visit.model_of(endpoint)?.streams {
        return Err(Refusal::unknown_path("/stream"));
    }
    let switches = vec![("stream", Value::Bool(true)), ("partial_images", ALL_PREVIEWS.into())];
    let accepted = visit.accept(visit.model_of(endpoint)?, endpoint, body, switches).await?;
    let job = visit.generate(&accepted, Client { waits: true, may_resend: false }, None)?;
    let waiting = Waiting::of(&visit.services, job.id, false, false);
    let (id, replayed) = reserved(&job).await?;
    let mut watcher = job.watch();
    if !replayed {
        // What fails at once is told with its own status, as fal does.
        let shown = |progress: &Progress| {
            matches!(progress, Progress::Preview(_) | Progress::Overdue | Progress::Finished(_) | Progress::Refused(_))
        };
        let first = watcher.wait_for(shown).await.map(|progress| progress.clone());
        if !matches!(first, Ok(Progress::Preview(_))) {
            let ended = end(visit, &job).await;
            if let Some(refusal) =
                ended.as_ref().map_or_else(|refusal| Some(refusal.clone()), |(finished, _)| why_not(finished))
            {
                waiting.seen();
                return Err(refusal);
            }
        }
    }
    let mut response = HttpResponse::Ok();
    response.content_type("text/event-stream; charset=utf-8");
    response.insert_header(("cache-control", "no-cache"));
    response.insert_header(("x-accel-buffering", "no"));
    put_ids(&mut response, id);
    put_changes(&mut response, &changes_of(&visit.services, id, replayed, &accepted.order).await);
    Ok(response.streaming(Box::pin(events(visit.clone(), accepted, job, waiting))))
}

/// The previews that there are, and the output. A run that brings none breaks the connection off: a client would take the
/// last preview for the output.
fn events(
    visit: Visit,
    accepted: Accepted,
    job: Arc<Job>,
    waiting: Waiting,
) -> impl Stream<Item = Result<web::Bytes, io::Error>> {
    async_stream::stream! {
        let mut watcher = job.watch();
        loop {
            let progress = watcher.borrow_and_update().clone();
            match progress {
                Progress::Preview(preview) => {
                    if let Ok(event) = preview_event(&visit, accepted.order_of(&job.model), &job, &preview).await {
                        for piece in event {
                            yield Ok(piece);
                        }
                    }
                }
                Progress::Finished(_) | Progress::Refused(_) | Progress::Overdue => break,
                Progress::Reserving | Progress::Queued(_) | Progress::Running => {}
            }
            if watcher.changed().await.is_err() {
                break;
            }
        }
        let ended = end(&visit, &job).await;
        waiting.seen();
        let told = match &ended {
            Ok((finished, _)) => tell(&visit, accepted.order_of(&finished.model), finished).await,
            Err(refusal) => Err(refusal.clone()),
        };
        match told {
            Ok(output) => {
                for piece in event(&output) {
                    yield Ok(piece);
                }
            }
            Err(refusal) => yield Err(io::Error::other(refusal.error())),
        }
    }
}

async fn preview_event(visit: &Visit, order: &Order, job: &Job, preview: &Preview) -> Result<FilledText, Refusal> {
    output(visit, job.deadline_at, &preview.delivery, &wanted(order)).await.map(|told| event(&told))
}

fn event(output: &Output) -> FilledText {
    output.write("data: ", "\n\n")
}

/// How it ended, and whether it was an earlier request with the same key.
async fn end(visit: &Visit, job: &Job) -> Result<(Arc<Finished>, bool), Refusal> {
    match job.outcome().await {
        Progress::Finished(finished) => Ok((finished, false)),
        Progress::Refused(refusal) => match &*refusal {
            ReserveError::Duplicate(id) => Ok((join(&visit.services, *id).await?, true)),
            refusal => Err(reserve_problem(refusal).into()),
        },
        _ => Err(overdue_problem(job.id).into()),
    }
}

/// Why a generation that has ended brought nothing; `None` if it has brought something.
pub fn why_not(finished: &Finished) -> Option<Refusal> {
    match (&finished.delivery, &finished.failure) {
        (Some(_), _) => None,
        (None, Some(failure)) => Some(Refusal::of_failure(finished.id, failure)),
        (None, None) => Some(overdue_problem(finished.id).into()),
    }
}

async fn tell(visit: &Visit, order: &Order, finished: &Finished) -> Result<Output, Refusal> {
    if let Some(refusal) = why_not(finished) {
        return Err(refusal);
    }
    let nothing = Delivery::default();
    let deadline = visit.services.gateway.deadline_of(&order.model, finished.created_at);
    output(visit, deadline, finished.delivery.as_ref().unwrap_or(&nothing), &wanted(order)).await
}

fn wanted(order: &Order) -> Wanted<'_> {
    Wanted { model: Some(&order.model), sync_mode: order.switches.sync_mode, prompt: order.prompt() }
}
