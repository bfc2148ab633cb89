//! Takes the calls that are due in fair turns, makes them, and decides when they are tried again and which receivers are disabled.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::slots::{EACH_ENDPOINT, EACH_PROJECT, Slot, Slots};
use super::{Letter, Webhooks, target};
use crate::domain::{Timestamp, WebhookDeliveryId};
use crate::store::{Breaker, WebhookAttempt, WebhookDelivery, WebhookNext, WebhookShare};

/// How often it is looked whether a call is due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a call belongs to the replica that takes it; longer than a try can last.
const LEASE: Duration = Duration::from_mins(1);
/// The shortest time between two looks.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
/// How many due calls are considered at once, the first of each project before the second of any.
const LOOKED_AT: u32 = 512;
/// How many of them for one project and one host: more could not be made at once.
const SHARE: WebhookShare = WebhookShare { project: EACH_PROJECT, host: EACH_ENDPOINT };
/// When a receiver is disabled. Each call that it does not answer takes a slot for twenty seconds.
const BREAKER: Breaker =
    Breaker { failures: 5, first_wait: Duration::from_secs(30), longest_wait: Duration::from_hours(1) };
/// The waits before the second try and those after it; the last one repeats until the call is given up.
const WAITS: [Duration; 9] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_mins(2),
    Duration::from_mins(10),
    Duration::from_mins(30),
    Duration::from_hours(1),
    Duration::from_hours(2),
    Duration::from_hours(4),
];
/// How long after the first try a call is given up.
const TRIED_FOR: Duration = Duration::from_hours(24);
/// How long ended calls stay in the log.
const KEPT: Duration = Duration::from_hours(30 * 24);
/// How many ended calls are removed at once, and how often that is done.
const PURGE: (u32, Duration) = (1000, Duration::from_mins(1));
/// Most that is kept of what went wrong, in characters.
const ERROR_LIMIT: usize = 300;

impl Webhooks {
    /// Makes the calls that are due, on a task that ends when `tracker` is closed.
    pub fn start(&self, letters: Arc<dyn Letter>, tracker: &TaskTracker, runtime: &Handle) {
        let (webhooks, closing, spawner) = (self.clone(), tracker.clone(), runtime.clone());
        let (slots, ended) = (Slots::default(), Arc::new(Notify::new()));
        let work = async move {
            let mut purged_at = Timestamp::default();
            while !closing.is_closed() {
                let calls =
                    Calls { letters: &letters, slots: &slots, ended: &ended, tracker: &closing, runtime: &spawner };
                if let Err(error) = webhooks.make_due(calls).await {
                    warn!(%error, "webhooks cannot be looked up now");
                }
                if webhooks.now().since(purged_at) >= PURGE.1 {
                    purged_at = webhooks.now();
                    webhooks.purge(purged_at).await;
                }
                // A call that ends makes way for the next one.
                tokio::time::sleep(SHORTEST_PAUSE).await;
                let _ = tokio::time::timeout(LOOK_EVERY, ended.notified()).await;
            }
        };
        tracker.spawn_on(work, runtime);
    }

    async fn make_due(&self, calls: Calls<'_>) -> Result<(), super::StoreError> {
        let now = self.now();
        let due = self.store.due_webhooks(now, SHARE, LOOKED_AT).await?;
        let mut taken: HashMap<WebhookDeliveryId, (Slot, bool)> = HashMap::new();
        for due in due {
            if let Some(slot) = calls.slots.take(due.project_id, &due.host, due.is_disabled) {
                taken.insert(due.id, (slot, due.has_failed));
            }
        }
        if taken.is_empty() {
            return Ok(());
        }
        let ids: Vec<WebhookDeliveryId> = taken.keys().copied().collect();
        for delivery in self.store.claim_webhooks(&ids, now, now.plus(LEASE)).await? {
            let Some((slot, has_failed)) = taken.remove(&delivery.webhook.id) else { continue };
            let (webhooks, letters, ended) = (self.clone(), calls.letters.clone(), calls.ended.clone());
            let call = async move {
                webhooks.call(&*letters, delivery, has_failed).await;
                drop(slot);
                ended.notify_one();
            };
            calls.tracker.spawn_on(call, calls.runtime);
        }
        Ok(())
    }

    /// One try, and what follows from it.
    async fn call(&self, letters: &dyn Letter, delivery: WebhookDelivery, has_failed: bool) {
        let started_at = self.now();
        let Some(answer) = self.post(letters, &delivery, started_at).await else {
            // It is due again when the lease is over.
            return warn!(webhook = %delivery.webhook.id, "a webhook cannot be written now");
        };
        let now = self.now();
        let n = delivery.attempts + 1;
        let next = next(&delivery, &answer, started_at, now);
        let outcome = match &next {
            WebhookNext::Delivered => "delivered",
            WebhookNext::Again { .. } => "to_be_retried",
            WebhookNext::GivenUp => "given_up",
        };
        self.meters.webhook_called(outcome, now.since(started_at));
        self.note_endpoint(&delivery, &answer, has_failed).await;
        let attempt = WebhookAttempt {
            n,
            started_at,
            duration: now.since(started_at),
            status: answer.status.map(|status| status.as_u16()),
            error: answer.error,
        };
        let (webhook, generation) = (delivery.webhook.id, delivery.generation_id);
        match self.store.record_webhook_attempt(webhook, &attempt, next).await {
            Ok(_) => {
                info!(%webhook, %generation, attempt = n, status = attempt.status, error = attempt.error, "webhook called");
            }
            Err(fault) => {
                warn!(%webhook, %generation, attempt = n, %fault, "what came of a webhook is not written; it is called again");
            }
        }
    }

    /// Disables a receiver that fails again and again, and enables one that answers; `has_failed` if a call before this one failed.
    async fn note_endpoint(&self, delivery: &WebhookDelivery, answer: &Answer, has_failed: bool) {
        let (project, host) = (delivery.project_id, delivery.webhook.host.as_str());
        let now = self.now();
        let noted = if let Some(error) = answer.outage() {
            let noted = self.store.note_webhook_failure(project, host, error, now, BREAKER).await;
            noted.map(|endpoint| {
                if endpoint.disabled.is_some_and(|(since, _)| since == now) {
                    warn!(%project, host, failures = endpoint.failures, error, "webhook endpoint disabled: it fails again and again");
                }
            })
        } else if has_failed {
            let enabled = self.store.enable_webhook_endpoint(project, host).await;
            enabled.map(|enabled| {
                if enabled == Some(true) {
                    info!(%project, host, "webhook endpoint enabled: it answers again");
                }
            })
        } else {
            Ok(())
        };
        if let Err(error) = noted {
            warn!(%project, host, %error, "the state of a webhook endpoint cannot be written now");
        }
    }

    /// `None` if the books cannot tell what to say.
    async fn post(&self, letters: &dyn Letter, delivery: &WebhookDelivery, now: Timestamp) -> Option<Answer> {
        let webhook = &delivery.webhook;
        let url = match target::check(&webhook.url, self.allow_private) {
            Ok(url) => url,
            Err(fault) => return Some(Answer::failed(&fault)),
        };
        let secret = self.secret(delivery.project_id).await.ok()?;
        let body = serde_json::to_vec(&letters.write(delivery.generation_id, webhook).await?).ok()?;
        let id = webhook.id.to_string();
        let request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", now.seconds().to_string())
            .header("webhook-signature", secret.sign(&id, now, &body))
            .body(body);
        Some(match request.send().await {
            Ok(response) => Answer::of(response.status(), response.headers()),
            Err(fault) => Answer::failed(innermost(&fault)),
        })
    }

    async fn purge(&self, now: Timestamp) {
        let kept = i64::try_from(KEPT.as_micros()).unwrap_or(i64::MAX);
        let before = Timestamp::from_micros(now.micros().saturating_sub(kept));
        if let Err(error) = self.store.purge_webhooks(before, PURGE.0).await {
            warn!(%error, "old webhooks cannot be removed now");
        }
        let tried_for = i64::try_from(TRIED_FOR.as_micros()).unwrap_or(i64::MAX);
        let before = Timestamp::from_micros(now.micros().saturating_sub(tried_for));
        match self.store.give_up_disabled_webhooks(now, before, PURGE.0).await {
            Ok(0) => {}
            Ok(count) => warn!(count, "webhooks given up: their endpoints have been disabled for a day"),
            Err(error) => warn!(%error, "webhooks of disabled endpoints cannot be given up now"),
        }
    }
}

/// What the calls of a replica share.
#[derive(Clone, Copy)]
struct Calls<'a> {
    letters: &'a Arc<dyn Letter>,
    slots: &'a Slots,
    /// A call has ended.
    ended: &'a Arc<Notify>,
    tracker: &'a TaskTracker,
    runtime: &'a Handle,
}

/// What came of a try.
struct Answer {
    status: Option<StatusCode>,
    error: Option<String>,
    /// What the receiver asks for before the next try.
    retry_after: Option<Duration>,
}

impl Answer {
    fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        let retry_after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let error = if status.is_success() {
            None
        } else if status.is_redirection() {
            Some("redirects are not followed".to_owned())
        } else {
            Some(format!("answered {status}"))
        };
        Self { status: Some(status), error, retry_after: retry_after.map(Duration::from_secs) }
    }

    /// Why the receiver seems to be out of order. What it refuses itself, with a 4xx, says that it is not.
    fn outage(&self) -> Option<&str> {
        self.error.as_deref().filter(|_| self.status.is_none_or(|status| status.is_server_error()))
    }

    fn failed(fault: &dyn std::error::Error) -> Self {
        let error = fault.to_string().chars().take(ERROR_LIMIT).collect();
        Self { status: None, error: Some(error), retry_after: None }
    }
}

/// The cause without the address, which may carry a token.
fn innermost(fault: &reqwest::Error) -> &dyn std::error::Error {
    let mut cause: &dyn std::error::Error = fault;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause
}

/// 2xx is taken; 410 says never again (Standard Webhooks); all else is tried for a day.
fn next(delivery: &WebhookDelivery, answer: &Answer, started_at: Timestamp, now: Timestamp) -> WebhookNext {
    if answer.error.is_none() {
        return WebhookNext::Delivered;
    }
    if answer.status == Some(StatusCode::GONE) {
        return WebhookNext::GivenUp;
    }
    let gives_up_at = delivery.gives_up_at.unwrap_or_else(|| started_at.plus(TRIED_FOR));
    let place = usize::try_from(delivery.attempts).unwrap_or(usize::MAX);
    let wait = WAITS.get(place).copied().unwrap_or(WAITS[WAITS.len() - 1]);
    let wait = answer.retry_after.map_or(wait, |asked| asked.clamp(wait, WAITS[WAITS.len() - 1]));
    // Up to a tenth later, by the call's own id, so that calls which failed together do not come back together.
    let spread = u32::from(delivery.webhook.id.uuid().as_bytes()[15]);
    let at = now.plus(wait + wait * spread / 2560);
    if at > gives_up_at { WebhookNext::GivenUp } else { WebhookNext::Again { at, gives_up_at } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{GenerationId, ProjectId};
    use crate::store::{Webhook, WebhookForm, WebhookState};
    use uuid::Uuid;

    fn delivery(attempts: u32, gives_up_at: Option<Timestamp>) -> WebhookDelivery {
        WebhookDelivery {
            webhook: Webhook {
                id: WebhookDeliveryId::from_uuid(Uuid::from_u128(7)),
                url: "https://example.com/".to_owned(),
                host: "example.com:443".to_owned(),
                form: WebhookForm::Imagegate,
                base_url: String::new(),
            },
            generation_id: GenerationId::from_uuid(Uuid::nil()),
            project_id: ProjectId::from_uuid(Uuid::nil()),
            state: WebhookState::Pending,
            attempts,
            created_at: Timestamp::default(),
            next_at: None,
            gives_up_at,
            ended_at: None,
        }
    }

    fn answer(status: u16) -> Answer {
        Answer::of(StatusCode::from_u16(status).unwrap(), &HeaderMap::new())
    }

    #[test]
    fn a_call_is_tried_for_a_day_with_growing_waits() {
        let (mut now, mut gives_up, mut tries) = (Timestamp::from_seconds(1000), None, 0);
        let mut waited = Duration::ZERO;
        loop {
            match next(&delivery(tries, gives_up), &answer(500), now, now) {
                WebhookNext::Again { at, gives_up_at } => {
                    let wait = at.since(now);
                    assert!(wait >= waited.mul_f64(0.9), "{wait:?} after {waited:?}");
                    (now, gives_up, waited) = (at, Some(gives_up_at), wait);
                }
                other => {
                    assert_eq!(other, WebhookNext::GivenUp);
                    break;
                }
            }
            tries += 1;
        }
        let lasted = now.since(Timestamp::from_seconds(1000));
        assert!((Duration::from_hours(18)..=Duration::from_hours(24)).contains(&lasted), "{lasted:?}");
        assert!((10..20).contains(&tries), "{tries}");
    }

    #[test]
    fn a_2xx_is_taken_and_a_410_is_the_last_word() {
        let now = Timestamp::default();
        assert_eq!(next(&delivery(0, None), &answer(204), now, now), WebhookNext::Delivered);
        assert_eq!(next(&delivery(0, None), &answer(410), now, now), WebhookNext::GivenUp);
        assert!(matches!(next(&delivery(0, None), &answer(302), now, now), WebhookNext::Again { .. }));
    }

    #[test]
    fn a_receiver_that_asks_for_time_gets_it() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "60".parse().unwrap());
        let now = Timestamp::default();
        let busy = Answer::of(StatusCode::TOO_MANY_REQUESTS, &headers);
        let WebhookNext::Again { at, .. } = next(&delivery(0, None), &busy, now, now) else { panic!("given up") };
        assert!(at.since(now) >= Duration::from_mins(1));
    }
}
