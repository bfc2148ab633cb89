//! fal's queue: submit, status, its stream, result, cancel.

use std::convert::Infallible;
use std::time::Duration;

use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, web};
use futures_util::stream::Stream;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::output::{Wanted, output};
use super::refusal::Refusal;
use super::run::why_not;
use super::{Client, Visit, is_on, links, one};
use crate::api::answer::put_cost_headers;
use crate::api::generations;
use crate::api::images::{changes_of, put_changes, reserved};
use crate::domain::GenerationId;
use crate::gateway::{Finished, FinishedError, read_finished, wants_data_uris};
use crate::http::{Code, Problem};
use crate::ledger::{GenerationRecord, LedgerError};
use crate::providers::LogLine;
use crate::webhooks::WebhookForm;

/// How often a watched request is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How often a silent stream shows that it lives, so that proxies keep the line open.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// `POST https://queue.fal.run/{endpoint}`: the request's id and addresses, as soon as its hold is written.
pub async fn submit(visit: &Visit, endpoint: &str, query: &str, body: web::Bytes) -> Result<HttpResponse, Refusal> {
    let model = visit.model_of(endpoint)?;
    let webhook = one(query, "fal_webhook")
        .map(|url| visit.services.webhooks.ask(&url, WebhookForm::Fal, visit.base()))
        .transpose()
        .map_err(|fault| Refusal::field(&["query", "fal_webhook"], "value_error", &fault.to_string()))?;
    let accepted = visit.accept(model, endpoint, body, Vec::new()).await?;
    let job = visit.generate(&accepted, Client { waits: false, may_resend: false }, webhook)?;
    let (id, replayed) = reserved(&job).await?;
    let mut told = links(&visit.queue_base, endpoint, &id.to_string());
    told["queue_position"] = json!(0);
    let mut response = HttpResponse::Ok();
    put_ids(&mut response, id);
    put_changes(&mut response, &changes_of(&visit.services, id, replayed, &accepted.order).await);
    if replayed {
        response.insert_header(("idempotent-replayed", "true"));
    }
    Ok(response.json(told))
}

/// `GET …/status`: 202 while it is open, 200 when it has ended, however that was.
pub async fn status(visit: &Visit, record: &GenerationRecord, query: &str) -> Result<HttpResponse, Refusal> {
    let told = told(visit, record, is_on(query, "logs")).await?;
    let mut response = if told["status"] == "COMPLETED" { HttpResponse::Ok() } else { HttpResponse::Accepted() };
    put_ids(&mut response, record.id);
    Ok(response.json(told))
}

/// `GET …/status/stream`: an event for each change, with the logs that are new since the last; ends with `COMPLETED`.
pub fn status_stream(visit: &Visit, record: GenerationRecord, query: &str) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response.content_type("text/event-stream; charset=utf-8");
    response.insert_header(("cache-control", "no-cache"));
    response.insert_header(("x-accel-buffering", "no"));
    put_ids(&mut response, record.id);
    response.streaming(Box::pin(changes(visit.clone(), record, is_on(query, "logs"))))
}

fn changes(visit: Visit, first: GenerationRecord, logs: bool) -> impl Stream<Item = Result<web::Bytes, Infallible>> {
    async_stream::stream! {
        let (mut record, mut before, mut known) = (first, None, Vec::new());
        let mut spoken = Instant::now();
        loop {
            // What cannot be told now is told by a later look.
            if let Ok(mut now) = told(&visit, &record, logs).await {
                let ended = now["status"] == "COMPLETED";
                let news = fresh(&mut now, &mut known);
                let change = Some((now["status"].clone(), now["queue_position"].clone()));
                if news || before != change {
                    before = change;
                    spoken = Instant::now();
                    yield Ok(web::Bytes::from(format!("data: {now}\n\n")));
                }
                if ended {
                    return;
                }
            }
            if spoken.elapsed() >= HEARTBEAT {
                spoken = Instant::now();
                yield Ok(web::Bytes::from_static(b": heartbeat\n\n"));
            }
            wait(&visit, record.id).await;
            if let Ok(Some(newer)) = visit.services.gateway.books().generation(record.id).await {
                record = newer;
            }
        }
    }
}

/// Leaves only the lines in a status that were not there before; whether there are any.
fn fresh(status: &mut Value, known: &mut Vec<Value>) -> bool {
    let Some(lines) = status["logs"].as_array_mut() else { return false };
    lines.retain(|line| !known.contains(line));
    known.extend(lines.iter().cloned());
    !lines.is_empty()
}

/// Until there may be news.
async fn wait(visit: &Visit, id: GenerationId) {
    match visit.services.gateway.job(id) {
        Some(job) => {
            let mut watcher = job.watch();
            watcher.mark_unchanged();
            let _ = tokio::time::timeout(LOOK, watcher.changed()).await;
        }
        None => tokio::time::sleep(LOOK).await,
    }
}

/// A status in fal's shape.
async fn told(visit: &Visit, record: &GenerationRecord, logs: bool) -> Result<Value, Refusal> {
    let gateway = &visit.services.gateway;
    let mut told = links(&visit.queue_base, &record.endpoint, &record.id.to_string());
    let Some(outcome) = &record.outcome else {
        let standing = gateway.standing(record, logs).await;
        if standing.runs {
            told["status"] = json!("IN_PROGRESS");
            told["logs"] = if logs { lines(standing.logs) } else { Value::Null };
        } else {
            told["queue_position"] = json!(standing.queue_position.unwrap_or(0));
        }
        return Ok(told);
    };
    let finished = finished(record)?;
    told["status"] = json!("COMPLETED");
    told["logs"] = if logs { lines(gateway.logs(record).await) } else { Value::Null };
    let inference =
        finished.delivery.as_ref().and_then(|delivery| delivery.timings.as_ref()?.get("inference").cloned());
    let lasted = || json!(outcome.settled_at.since(record.created_at).as_secs_f64());
    told["metrics"] = json!({"inference_time": inference.unwrap_or_else(lasted)});
    if let Some(refusal) = why_not(&finished) {
        told["error"] = json!(refusal.error());
        told["error_type"] = json!(refusal.error_type());
    }
    Ok(told)
}

fn lines(logs: Vec<LogLine>) -> Value {
    let line = |LogLine { message, timestamp, level, source }: LogLine| json!({"message": message, "timestamp": timestamp, "level": level, "source": source});
    logs.into_iter().map(line).collect()
}

/// `GET …/requests/{id}`: the bare output, or why there is none.
pub async fn result(visit: &Visit, record: &GenerationRecord) -> Result<HttpResponse, Refusal> {
    if record.outcome.is_none() {
        return Err(Refusal::in_progress());
    }
    let finished = finished(record)?;
    if let Some(refusal) = why_not(&finished) {
        return Err(refusal.about(record.id));
    }
    let model = visit.services.gateway.catalogue().model(&record.model).cloned();
    let delivery = finished.delivery.clone().unwrap_or_default();
    let wanted =
        Wanted { model: model.as_deref(), sync_mode: wants_data_uris(record), prompt: record.prompt.as_deref() };
    let told = output(visit, record.deadline_at, &delivery, &wanted).await?;
    let mut response = HttpResponse::Ok();
    put_cost_headers(&mut response, record.id, finished.price);
    put_changes(&mut response, &finished.changes.unwrap_or_default());
    put_ids(&mut response, record.id);
    Ok(response.content_type(ContentType::json()).body(told.write("", "")))
}

/// `PUT …/cancel`.
pub async fn cancel(visit: &Visit, record: &GenerationRecord) -> Result<HttpResponse, Refusal> {
    if record.outcome.is_some() {
        return Err(Refusal::already_completed());
    }
    // With its end, so that a result that is asked for right after tells what came of it.
    generations::cancel(&visit.services, record).await;
    let mut response = HttpResponse::Accepted();
    put_ids(&mut response, record.id);
    Ok(response.json(json!({"status": "CANCELLATION_REQUESTED"})))
}

fn finished(record: &GenerationRecord) -> Result<Finished, Refusal> {
    read_finished(record).map_err(|fault| match fault {
        FinishedError::Erased(_) => Refusal::from(Problem::new(Code::NotFound, fault.to_string())),
        fault => Refusal::from(Problem::from(LedgerError::Invalid(fault.to_string()))),
    })
}

pub(super) fn put_ids(response: &mut actix_web::HttpResponseBuilder, id: GenerationId) {
    response.insert_header(("x-fal-request-id", id.to_string()));
    response.insert_header(("x-imagegate-generation-id", id.to_string()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_is_told_each_line_once() {
        let mut known = Vec::new();
        let mut first = json!({"logs": [{"message": "a"}, {"message": "b"}]});
        assert!(fresh(&mut first, &mut known));
        let mut second = json!({"logs": [{"message": "b"}, {"message": "c"}]});
        assert!(fresh(&mut second, &mut known));
        assert_eq!(second["logs"], json!([{"message": "c"}]));
        let mut third = json!({"logs": [{"message": "c"}]});
        assert!(!fresh(&mut third, &mut known));
        assert!(!fresh(&mut json!({"logs": null}), &mut known));
    }
}
