//! fal's queue: submit, status, result, cancel.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::Method;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::answers::{self, UNITS, json, json_for};
use super::jobs::{Job, Phase, Submission};
use super::paths::{Target, Verb, target};
use super::plan::{Plan, Refusal, Verdict, decide};
use super::{BODY_LIMIT, Sandbox};

/// Answers whatever is below the queue's host.
pub async fn answer(request: HttpRequest, payload: web::Payload, sandbox: web::Data<Sandbox>) -> HttpResponse {
    match target(request.path()) {
        Target::Endpoint { id, prefix, alias } if request.method() == Method::POST => {
            let Ok(Ok(body)) = payload.to_bytes_limited(BODY_LIMIT).await else {
                return answers::too_large();
            };
            submit(&request, &sandbox, &id, &prefix, &alias, &body)
        }
        Target::Request { prefix, id, verb } => {
            if let Some(refused) = answers::refuses_to_read(&request) {
                return refused;
            }
            let Some(job) = id.and_then(|id| sandbox.jobs.find(&prefix, id)) else {
                return answers::unknown_request();
            };
            match (verb, request.method()) {
                (Verb::Status, &Method::GET) => status(&sandbox, &job, wants_logs(&request)),
                (Verb::Result, &Method::GET) => result(&sandbox, &job).await,
                (Verb::Cancel, &Method::PUT) => cancel(&sandbox, &job),
                _ => json(405, &json!({"detail": "Method Not Allowed"})),
            }
        }
        Target::Endpoint { .. } => json(405, &json!({"detail": "Method Not Allowed"})),
        Target::Nothing => answers::unknown_path(request.path()),
    }
}

fn submit(request: &HttpRequest, sandbox: &Sandbox, id: &str, prefix: &str, alias: &str, body: &[u8]) -> HttpResponse {
    if !sandbox.schemas.has_application(prefix) {
        return answers::unknown_application(alias);
    }
    sandbox.tally.submit(id);
    if let Some(refused) = answers::refuses_to_run(request, alias) {
        return refused;
    }
    let (verdict, unknown) = sandbox.decide(id, prefix, body);
    let (queued_for, runs_for) = split(sandbox.delay);
    let job = sandbox.jobs.insert(Submission {
        id: sandbox.ids.uuid(),
        endpoint: id.to_owned(),
        prefix: prefix.to_owned(),
        base: base(request),
        at: sandbox.clock.now(),
        queued_for,
        runs_for,
        verdict,
    });
    let Some(job) = job else {
        let body = json!({"detail": "No runner available", "error_type": "runner_scheduling_failure"});
        return json(503, &body);
    };
    sandbox.tally.accepted(id, &unknown);
    let mut body = links(&job);
    body["status"] = json!("IN_QUEUE");
    body["logs"] = Value::Null;
    body["metrics"] = json!({});
    body["queue_position"] = json!(0);
    json_for(job.id, 200, &body)
}

/// Of the whole delay a fifth, at most 300 ms, is spent in the queue.
fn split(delay: Duration) -> (Duration, Duration) {
    let queued_for = (delay / 5).min(Duration::from_millis(300));
    (queued_for, delay.saturating_sub(queued_for))
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

fn wants_logs(request: &HttpRequest) -> bool {
    let query = url::form_urlencoded::parse(request.query_string().as_bytes());
    query.into_iter().any(|(name, value)| name == "logs" && matches!(&*value, "1" | "true" | "True"))
}

async fn result(sandbox: &Sandbox, job: &Arc<Job>) -> HttpResponse {
    if job.phase(sandbox.clock.now()) != Phase::Completed {
        return json_for(job.id, 400, &json!({"detail": "Request is still in progress"}));
    }
    sandbox.tally.counts().results_read += 1;
    let plan = match job.outcome() {
        Ok(plan) => plan,
        Err(refusal) => return answers::refusal(job.id, &refusal),
    };
    let Some(output) = told(sandbox, job, plan).await else {
        return json_for(job.id, 500, &json!({"detail": "Internal Server Error"}));
    };
    if job.mark_read() {
        sandbox.tally.counts().delivered_images += u64::try_from(plan.pictures.len()).unwrap_or(0);
    }
    let mut answer = json_for(job.id, 200, &output);
    if let Ok(units) = HeaderValue::from_str(&plan.units) {
        answer.headers_mut().insert(HeaderName::from_static(UNITS), units);
    }
    answer
}

/// The answer, the same for every reader; `None` if drawing fails.
async fn told(sandbox: &Sandbox, job: &Job, plan: &Plan) -> Option<Arc<Value>> {
    if let Some(output) = job.told() {
        return Some(output);
    }
    let base = sandbox.public_files.as_deref().unwrap_or(&job.base);
    let output = Arc::new(sandbox.output(plan, base, job.seconds()).await?);
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

/// Scheme and host under which the request came.
pub fn base(request: &HttpRequest) -> String {
    let connection = request.connection_info();
    format!("{}://{}", connection.scheme(), connection.host())
}

impl Sandbox {
    /// What a body comes to at an endpoint, or at a path that the application lacks.
    pub fn decide(&self, id: &str, prefix: &str, body: &[u8]) -> (Verdict, Vec<String>) {
        if let Some(endpoint) = self.schemas.endpoint(id) {
            return decide(endpoint, body, self.random_seed());
        }
        let path = match id.strip_prefix(prefix) {
            Some("") | None => "/",
            Some(path) => path,
        };
        (Verdict::Refuse(Refusal::no_path(path)), Vec::new())
    }

    /// The answer of a plan, with the pictures drawn where it needs them; `None` if drawing fails.
    pub async fn output(&self, plan: &Plan, base: &str, seconds: f64) -> Option<Value> {
        let mut files = Vec::new();
        if plan.needs_files() {
            for picture in &plan.pictures {
                let picture = picture.clone();
                files.push(self.render(move || picture.render()).await?);
            }
        }
        Some(plan.output(base, seconds, &files))
    }

    fn random_seed(&self) -> u64 {
        let random = self.ids.secret().ok().and_then(|secret| secret.first_chunk().copied());
        random.map_or_else(|| self.ids.uuid().as_u64_pair().1, u64::from_be_bytes).max(1)
    }
}
