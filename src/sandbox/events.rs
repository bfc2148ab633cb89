//! Server-sent events: the status of a queued request as it changes, and a run with previews of its pictures.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use serde_json::Value;

use super::jobs::{Job, Phase};
use super::queue::{status_body, told};
use super::run::completed;
use super::{Sandbox, answers};

/// How often a request is looked at.
const LOOK: Duration = Duration::from_millis(25);
/// How many previews a streamed run shows before its last event.
const PREVIEWS: u32 = 3;

type Event = Result<Bytes, std::io::Error>;

/// `GET …/status/stream`: an event for each change, with the logs that are new since the last; ends with `COMPLETED`.
pub fn status(sandbox: &web::Data<Sandbox>, job: &Arc<Job>, logs: bool) -> HttpResponse {
    let state = Watch { sandbox: sandbox.clone(), job: Arc::clone(job), logs, told: None, told_logs: 0 };
    let events = stream::unfold(Some(state), |state| async {
        let mut state = state?;
        let (event, last) = state.next().await;
        Some((Ok(event), (!last).then_some(state)))
    });
    answer(job, events)
}

struct Watch {
    sandbox: web::Data<Sandbox>,
    job: Arc<Job>,
    logs: bool,
    told: Option<Phase>,
    told_logs: usize,
}

impl Watch {
    /// The next event, and whether it is the last.
    async fn next(&mut self) -> (Bytes, bool) {
        loop {
            let phase = self.job.phase(self.sandbox.clock.now());
            let (_, mut body) = status_body(&self.sandbox, &self.job, self.logs);
            let mut fresh = 0;
            if let Some(logs) = body["logs"].as_array_mut() {
                fresh = logs.len().saturating_sub(self.told_logs);
                self.told_logs = logs.len();
                logs.drain(..logs.len() - fresh);
            }
            if self.told != Some(phase) || fresh > 0 {
                self.told = Some(phase);
                return (event(&body), phase == Phase::Completed);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// `POST …/stream`: previews in the form of the output, then the output itself. A failed run is told before the stream
/// begins, with its own status.
pub fn run(sandbox: &web::Data<Sandbox>, job: &Arc<Job>) -> HttpResponse {
    if let Err(refusal) = job.outcome() {
        return answers::refusal(job.id, &refusal);
    }
    let state = (sandbox.clone(), Arc::clone(job));
    let events = stream::unfold((state, 1), |((sandbox, job), step)| async move {
        let event = match step {
            1..=PREVIEWS => preview(&sandbox, &job, step).await,
            _ if step == PREVIEWS + 1 => last(&sandbox, &job).await,
            _ => return None,
        };
        Some((event, ((sandbox, job), step + 1)))
    });
    answer(job, events)
}

async fn preview(sandbox: &Sandbox, job: &Arc<Job>, step: u32) -> Event {
    let run = job.ends_at.since(job.starts_at);
    let due = job.starts_at.plus(run * step / (PREVIEWS + 1));
    tokio::time::sleep(due.since(sandbox.clock.now())).await;
    let plan = job.outcome().map_err(|_| gone())?.preview(step * 2);
    let output = sandbox.output(&plan, job).await.ok_or_else(gone)?;
    Ok(event(&output))
}

async fn last(sandbox: &Sandbox, job: &Arc<Job>) -> Event {
    completed(sandbox, job).await;
    let plan = job.outcome().map_err(|_| gone())?;
    let output = told(sandbox, job, plan).await.ok_or_else(gone)?;
    sandbox.delivered(job, plan);
    Ok(event(&output))
}

fn gone() -> std::io::Error {
    std::io::Error::other("the run has no output")
}

fn event(body: &Value) -> Bytes {
    format!("data: {body}\n\n").into()
}

fn answer(job: &Job, events: impl Stream<Item = Event> + 'static) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/event-stream; charset=utf-8")
        .insert_header(("cache-control", "no-cache"))
        .insert_header((answers::REQUEST_ID, job.id.to_string()))
        .streaming(events)
}
