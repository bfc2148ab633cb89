//! fal's queue: submit, status, result, cancel.

use std::sync::Arc;

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::admission::{Admission, Visit, admit, queue_limit};
use super::answers::{self, json_for, wants_logs};
use super::behaviour::Stage;
use super::jobs::{Job, Phase};
use super::misbehave::obey;
use super::paths::{Application, Target, Verb, target};
use super::plan::Plan;
use super::{BODY_LIMIT, Sandbox, events, run, webhooks};

/// Answers whatever is below the queue's host; on the port of synchronous runs, those.
pub async fn answer(request: HttpRequest, payload: web::Payload, sandbox: web::Data<Sandbox>) -> HttpResponse {
    if sandbox.is_run_port(&request) {
        let path = request.path().to_owned();
        return run::answer_path(&path, request, payload, sandbox).await;
    }
    match target(request.path()) {
        Target::Endpoint(application) if request.method() == Method::POST => {
            let Ok(Ok(body)) = payload.to_bytes_limited(BODY_LIMIT).await else {
                return answers::too_large();
            };
            submit(&request, &sandbox, &application, &body).await
        }
        Target::Request { prefix, id, verb } => {
            if let Some(refused) = answers::refuses_to_read(&request) {
                return refused;
            }
            let id = id.filter(|id| !sandbox.deleted.has(&id.to_string()));
            let job = id.and_then(|id| sandbox.jobs.find(&prefix, id));
            match job {
                Some(job) => about(&request, &sandbox, &job, verb).await,
                None => answers::unknown_request(),
            }
        }
        Target::Endpoint(_) => answers::wrong_method(),
        Target::Nothing => answers::unknown_path(request.path()),
    }
}

async fn submit(
    request: &HttpRequest,
    sandbox: &web::Data<Sandbox>,
    application: &Application,
    body: &[u8],
) -> HttpResponse {
    let mut visit = match Visit::of(request, sandbox, Stage::Submit, &application.id, body) {
        Ok(visit) => visit,
        Err(problem) => return answers::bad_behaviour(&problem),
    };
    let action = visit.action.take();
    let fate = action.as_ref().map(|action| action.fate.clone()).unwrap_or_default();
    obey(request, sandbox, action, async {
        if queue_limit(request).is_some_and(|most| sandbox.jobs.waiting(sandbox.clock.now()) > most) {
            return answers::queue_full();
        }
        match admit(request, sandbox, application, visit, fate, true) {
            Admission::Taken(job) => {
                if let Some(url) = webhooks::asked_for(request) {
                    webhooks::promise(sandbox, &job, url);
                }
                taken(&job)
            }
            Admission::Refused(answer) => answer,
        }
    })
    .await
}

fn taken(job: &Job) -> HttpResponse {
    let mut body = links(job);
    body["status"] = json!("IN_QUEUE");
    body["logs"] = Value::Null;
    body["metrics"] = json!({});
    body["queue_position"] = json!(0);
    json_for(job.id, 200, &body)
}

/// Answers a call about one request.
async fn about(request: &HttpRequest, sandbox: &web::Data<Sandbox>, job: &Arc<Job>, verb: Verb) -> HttpResponse {
    let (stage, method) = match verb {
        Verb::Status | Verb::StatusStream => (Stage::Status, Method::GET),
        Verb::Result => (Stage::Result, Method::GET),
        Verb::Cancel => (Stage::Cancel, Method::PUT),
    };
    if request.method() != method {
        return answers::wrong_method();
    }
    let endpoint = Some(job.endpoint.as_str());
    let action =
        job.rules.take(stage, endpoint, job.prompt()).or_else(|| sandbox.rules.take(stage, endpoint, job.prompt()));
    obey(request, sandbox, action, async {
        match verb {
            Verb::Status => status(sandbox, job, wants_logs(request)),
            Verb::StatusStream => events::status(sandbox, job, wants_logs(request)),
            Verb::Result => result(sandbox, job).await,
            Verb::Cancel => cancel(sandbox, job),
        }
    })
    .await
}

/// The keys that every answer about a queued request begins with.
fn links(job: &Job) -> Value {
    let url = format!("{}/{}/requests/{}", job.base, job.prefix, job.id);
    json!({
        "status": "",
        "request_id": job.id,
        "response_url": url,
        "status_url": format!("{url}/status"),
        "cancel_url": format!("{url}/cancel"),
    })
}

fn status(sandbox: &Sandbox, job: &Job, logs: bool) -> HttpResponse {
    sandbox.tally.counts().status_reads += 1;
    let (code, body) = status_body(sandbox, job, logs);
    json_for(job.id, code, &body)
}

/// HTTP status and body of a status read.
pub fn status_body(sandbox: &Sandbox, job: &Job, logs: bool) -> (u16, Value) {
    let now = sandbox.clock.now();
    let phase = job.phase(now);
    let mut body = links(job);
    body["logs"] = if logs && phase != Phase::Queued { job_logs(sandbox, job) } else { Value::Null };
    body["metrics"] = json!({});
    match phase {
        Phase::Queued => {
            body["status"] = json!("IN_QUEUE");
            body["queue_position"] = json!(job.starts_at.since(now).as_secs());
            (202, body)
        }
        Phase::Running => {
            body["status"] = json!("IN_PROGRESS");
            (202, body)
        }
        Phase::Completed => {
            body["status"] = json!("COMPLETED");
            body["metrics"] = json!({"inference_time": job.seconds()});
            if let Err(refusal) = job.outcome() {
                body["error"] = json!(refusal.error);
                body["error_type"] = json!(refusal.error_type);
            }
            (200, body)
        }
    }
}

/// What a runner would have written by now: a few lines of progress, never the prompt.
fn job_logs(sandbox: &Sandbox, job: &Job) -> Value {
    let now = sandbox.clock.now();
    let run = job.ends_at.since(job.starts_at);
    let lines = (0..=4_u32).map(|quarter| (job.starts_at.plus(run * quarter / 4), quarter * 25));
    lines
        .filter(|(at, _)| *at <= now)
        .map(|(at, share)| {
            json!({"message": format!("{share:>3}%"), "timestamp": at.rfc3339(), "level": "INFO", "source": "USER"})
        })
        .collect()
}

async fn result(sandbox: &Sandbox, job: &Job) -> HttpResponse {
    if job.phase(sandbox.clock.now()) != Phase::Completed {
        return json_for(job.id, 400, &json!({"detail": "Request is still in progress"}));
    }
    sandbox.tally.counts().results_read += 1;
    finished(sandbox, job).await
}

/// The answer to a request that has come to its end: its output with what it costs, or why it failed.
pub async fn finished(sandbox: &Sandbox, job: &Job) -> HttpResponse {
    let plan = match job.outcome() {
        Ok(plan) => plan,
        Err(refusal) => return answers::refusal(job.id, &refusal),
    };
    let Some(output) = told(sandbox, job, plan).await else {
        return json_for(job.id, 500, &json!({"detail": "Internal Server Error"}));
    };
    sandbox.delivered(job, plan);
    answers::output(job.id, &output, &plan.told_units)
}

/// The output, the same for every reader; `None` if drawing fails.
pub async fn told(sandbox: &Sandbox, job: &Job, plan: &Plan) -> Option<Arc<Value>> {
    if let Some(output) = job.told() {
        return Some(output);
    }
    let output = Arc::new(sandbox.output(plan, job).await?);
    // A data URI is too large to keep.
    if !plan.sync_mode {
        job.tell(Arc::clone(&output));
    }
    Some(output)
}

fn cancel(sandbox: &Sandbox, job: &Job) -> HttpResponse {
    if !job.cancel(sandbox.clock.now()) {
        return json_for(job.id, 400, &json!({"status": "ALREADY_COMPLETED"}));
    }
    sandbox.tally.counts().cancels += 1;
    json_for(job.id, 202, &json!({"status": "CANCELLATION_REQUESTED"}))
}

impl Sandbox {
    /// The output of a plan, with the pictures drawn where it needs them; `None` if drawing fails.
    pub async fn output(&self, plan: &Plan, job: &Job) -> Option<Value> {
        let mut files = Vec::new();
        if plan.needs_files(self.file_sizes) {
            for picture in &plan.pictures {
                let picture = picture.clone();
                files.push(self.render(move || picture.render()).await?);
            }
        }
        let base = self.public_files.as_deref().unwrap_or(&job.base);
        Some(plan.output(base, job.seconds(), &files))
    }

    /// Counts the pictures of a request whose output goes out, once.
    pub fn delivered(&self, job: &Job, plan: &Plan) {
        if job.mark_read() {
            self.tally.counts().delivered_images += u64::try_from(plan.pictures.len()).unwrap_or(0);
        }
    }
}
