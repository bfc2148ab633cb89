//! fal's synchronous host: one request, one connection, no queue; and its streams.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};

use super::admission::{Admission, Visit, admit};
use super::answers;
use super::behaviour::Stage;
use super::jobs::{Job, Phase};
use super::misbehave::obey;
use super::paths::{Application, Target, target};
use super::{BODY_LIMIT, Sandbox, events, queue};

/// Longest sleep between two looks at a request.
const LOOK: Duration = Duration::from_millis(50);

/// `POST /run/{endpoint}`: what `POST https://fal.run/{endpoint}` is.
pub async fn answer(
    path: web::Path<String>,
    request: HttpRequest,
    payload: web::Payload,
    sandbox: web::Data<Sandbox>,
) -> HttpResponse {
    let path = path.into_inner();
    answer_path(&path, request, payload, sandbox).await
}

/// The same for a path without the prefix.
pub async fn answer_path(
    path: &str,
    request: HttpRequest,
    payload: web::Payload,
    sandbox: web::Data<Sandbox>,
) -> HttpResponse {
    let Target::Endpoint(application) = target(path) else {
        return answers::unknown_path(path);
    };
    if request.method() != Method::POST {
        return answers::wrong_method();
    }
    let Ok(Ok(body)) = payload.to_bytes_limited(BODY_LIMIT).await else {
        return answers::too_large();
    };
    let streamed = streamed(&sandbox, &application);
    let (stage, application) = match streamed {
        Some(streamed) => (Stage::Stream, streamed),
        None => (Stage::Run, application),
    };
    let mut visit = match Visit::of(&request, &sandbox, stage, &application.id, &body) {
        Ok(visit) => visit,
        Err(problem) => return answers::bad_behaviour(&problem),
    };
    let action = visit.action.take();
    let fate = action.as_ref().map(|action| action.fate.clone()).unwrap_or_default();
    obey(&request, &sandbox, action, async {
        match admit(&request, &sandbox, &application, visit, fate, false) {
            Admission::Refused(answer) => answer,
            Admission::Taken(job) if stage == Stage::Stream => events::run(&sandbox, &job),
            Admission::Taken(job) => {
                completed(&sandbox, &job).await;
                queue::finished(&sandbox, &job).await
            }
        }
    })
    .await
}

/// The endpoint whose stream a path names, if it has one.
fn streamed(sandbox: &Sandbox, application: &Application) -> Option<Application> {
    let id = application.id.strip_suffix("/stream")?;
    sandbox.schemas.endpoint(id)?.stream_url.as_ref()?;
    Some(Application { id: id.to_owned(), ..application.clone() })
}

/// Waits until a request has come to its end.
pub async fn completed(sandbox: &Sandbox, job: &Arc<Job>) {
    loop {
        let now = sandbox.clock.now();
        if job.phase(now) == Phase::Completed {
            return;
        }
        tokio::time::sleep(job.ends_at.since(now).min(LOOK)).await;
    }
}
