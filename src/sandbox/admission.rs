//! Takes a request in, from whichever door it comes: queue, synchronous run or stream.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};

use super::behaviour::{Action, Fate, Rule, Rules, Stage, of_request};
use super::jobs::{Job, Submission};
use super::paths::Application;
use super::plan::{Refusal, Verdict, decide};
use super::{Sandbox, answers, inputs};

/// The header that limits the wait for a runner, in seconds.
const START_TIMEOUT: &str = "x-fal-request-timeout";

/// Whether a request is taken.
pub enum Admission {
    /// It is held, and will come to its end.
    Taken(Arc<Job>),
    /// It is told why not, at once.
    Refused(HttpResponse),
}

/// A request at the door: its body, read as far as it can be, and the rules that it brought or met.
pub struct Visit {
    body: Result<Value, usize>,
    own_rules: Vec<Rule>,
    /// What goes wrong with this very call.
    pub action: Option<Action>,
}

impl Visit {
    /// Looks at a body. Errors with the answer to a behaviour header that makes no sense.
    pub fn of(request: &HttpRequest, sandbox: &Sandbox, at: Stage, id: &str, body: &[u8]) -> Result<Self, String> {
        let body: Result<Value, usize> =
            serde_json::from_slice(body).map_err(|error: serde_json::Error| error.column());
        let prompt = body.as_ref().ok().and_then(|body| body.get("prompt")?.as_str()).unwrap_or_default();
        let own = Rules::new(of_request(request)?);
        let action = own.take(at, Some(id), prompt).or_else(|| sandbox.rules.take(at, Some(id), prompt));
        Ok(Self { action, own_rules: own.all(), body })
    }
}

/// Takes a request in, as its key, its path and its body allow. `waits` is whether it stands in the queue first.
pub fn admit(
    request: &HttpRequest,
    sandbox: &Sandbox,
    application: &Application,
    visit: Visit,
    fate: Fate,
    waits: bool,
) -> Admission {
    let Application { id, prefix, alias } = application;
    if !sandbox.schemas.has_application(prefix) {
        return Admission::Refused(answers::unknown_application(alias));
    }
    if waits {
        sandbox.tally.submit(id);
    } else {
        sandbox.tally.run(id);
    }
    if let Some(refused) = answers::refuses_to_run(request, alias) {
        return Admission::Refused(refused);
    }
    let prompt = visit.body.as_ref().ok().and_then(|body| body.get("prompt")).cloned();
    let (verdict, unknown) = sandbox.judge(application, &visit.body);
    let (queued_for, runs_for) = durations(sandbox.delay, waits, &fate);
    let impatient = start_timeout(request).is_some_and(|patience| patience < queued_for);
    let verdict = if impatient { Verdict::Refuse(Refusal::start_timeout()) } else { bent(verdict, &fate, prompt) };
    let job = sandbox.jobs.insert(Submission {
        id: sandbox.ids.uuid(),
        endpoint: id.clone(),
        prefix: prefix.clone(),
        base: base(request),
        at: sandbox.clock.now(),
        queued_for,
        runs_for,
        verdict,
        fate,
        rules: visit.own_rules,
    });
    let Some(job) = job else {
        let body = json!({"detail": "No runner available", "error_type": "runner_scheduling_failure"});
        return Admission::Refused(answers::json(503, &body));
    };
    sandbox.tally.accepted(id, &unknown);
    Admission::Taken(job)
}

/// Of the whole delay a fifth, at most 300 ms, is spent in the queue.
fn durations(delay: Duration, waits: bool, fate: &Fate) -> (Duration, Duration) {
    let queued_for = if waits { (delay / 5).min(Duration::from_millis(300)) } else { Duration::ZERO };
    let runs_for = delay.saturating_sub(queued_for);
    (fate.queue_ms.map_or(queued_for, Duration::from_millis), fate.run_ms.map_or(runs_for, Duration::from_millis))
}

fn start_timeout(request: &HttpRequest) -> Option<Duration> {
    let seconds: f64 = request.headers().get(START_TIMEOUT)?.to_str().ok()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// The most requests that may wait before this one, where the caller says.
pub fn queue_limit(request: &HttpRequest) -> Option<usize> {
    let mut query = url::form_urlencoded::parse(request.query_string().as_bytes());
    query.find(|(name, _)| name == "fal_max_queue_length")?.1.parse().ok()
}

/// The verdict as a rule bends it.
fn bent(verdict: Verdict, fate: &Fate, prompt: Option<Value>) -> Verdict {
    if let Some(fail) = &fate.fail {
        return Verdict::Refuse(Refusal::run(fail));
    }
    if fate.content_policy {
        return Verdict::Refuse(Refusal::content(&prompt.unwrap_or_default(), "model_moderated"));
    }
    match verdict {
        Verdict::Make(plan) => Verdict::Make(plan.bent(fate)),
        refused @ Verdict::Refuse(_) => refused,
    }
}

/// Scheme and host under which the request came.
pub fn base(request: &HttpRequest) -> String {
    let connection = request.connection_info();
    format!("{}://{}", connection.scheme(), connection.host())
}

impl Sandbox {
    /// What a body comes to at an endpoint, or at a path that the application lacks; beside it the fields ignored.
    fn judge(&self, application: &Application, body: &Result<Value, usize>) -> (Verdict, Vec<String>) {
        let Application { id, prefix, .. } = application;
        let Some(endpoint) = self.schemas.endpoint(id) else {
            let path = match id.strip_prefix(prefix) {
                Some("") | None => "/",
                Some(path) => path,
            };
            return (Verdict::Refuse(Refusal::no_path(path)), Vec::new());
        };
        match body {
            Ok(body) => {
                match (decide(endpoint, body, self.random_seed()), inputs::problems(endpoint, body, &self.uploads)) {
                    ((Verdict::Make(_), unknown), problems) if !problems.is_empty() => {
                        (Verdict::Refuse(Refusal::model(422, &problems)), unknown)
                    }
                    (decided, _) => decided,
                }
            }
            Err(column) => (Verdict::Refuse(Refusal::broken_json(*column)), Vec::new()),
        }
    }

    fn random_seed(&self) -> u64 {
        let random = self.ids.secret().ok().and_then(|secret| secret.first_chunk().copied());
        random.map_or_else(|| self.ids.uuid().as_u64_pair().1, u64::from_be_bytes).max(1)
    }
}
