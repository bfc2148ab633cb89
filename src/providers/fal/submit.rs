//! The submit: once.
//!
//! It is repeated only when it is proven that nothing reached fal or that fal did not take it; everything else about it is
//! [`SubmitError::Unclear`], and what is unclear is never sent again, because fal has no idempotency key.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value};
use tokio::time::Instant;
use tracing::{error, warn};

use super::client::{Fal, given_up_by_fal, read_failure, read_limited};
use super::keys::{Key, LONGEST_WAIT, Scope};
use super::{uploads, wire};
use crate::domain::ProjectId;
use crate::providers::media::cause_of;
use crate::providers::outcome::{Failure, FailureKind, SubmitError};
use crate::providers::{Attempt, Prepared, Ticket};

/// Longest wait for the answer to a submit, if its deadline is not nearer; past it nobody knows whether fal took the request.
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a submit that was proven not to be taken is tried in all.
const SUBMIT_TRIES: u32 = 4;
/// Wait before the second try of a submit; doubles for each further one.
const SUBMIT_BACKOFF: Duration = Duration::from_millis(250);

/// Why one try brought no ticket.
enum Fault {
    /// Proven not to be taken; with the status, if fal answered at all.
    NotTaken(Option<StatusCode>, Box<Failure>),
    /// Nobody knows.
    Unclear(String),
}

impl Fal {
    /// Hands a request over: a key whose turn it is, the input images first, then the submit itself.
    pub(super) async fn hand_over(
        &self,
        prepared: &Prepared,
        project: ProjectId,
        attempt: Attempt,
        start_within: Duration,
    ) -> Result<Ticket, SubmitError> {
        let endpoint = &prepared.endpoint;
        if let Err(closes_in) = self.breakers.admit(endpoint, Instant::now()) {
            let mut failure =
                Failure::new(FailureKind::Overloaded, "this model failed again and again at fal; it rests");
            failure.retry_after = Some(closes_in);
            return Err(SubmitError::NotTaken(Box::new(failure)));
        }
        let outcome = self.try_to_hand_over(prepared, project, attempt, Instant::now() + start_within).await;
        match &outcome {
            Ok(_) => self.breakers.submit_taken(endpoint),
            Err(SubmitError::NotTaken(failure)) if failure.kind != FailureKind::Overloaded => {}
            Err(_) => self.breakers.submit_failed(endpoint, Instant::now()),
        }
        outcome
    }

    async fn try_to_hand_over(
        &self,
        prepared: &Prepared,
        project: ProjectId,
        attempt: Attempt,
        give_up: Instant,
    ) -> Result<Ticket, SubmitError> {
        let (endpoint, generation) = (&prepared.endpoint, attempt.generation);
        let mut wait = SUBMIT_BACKOFF;
        let mut body = Cow::Borrowed(&prepared.body);
        let mut tries = 0;
        loop {
            let turn = self.keys.turn(Some(project), endpoint, give_up).await.map_err(SubmitError::NotTaken)?;
            let (status, failure) = match self.submit_once(prepared, &mut body, turn.key(), attempt, give_up).await {
                Ok(ticket) => {
                    turn.taken(endpoint, &ticket.request_id);
                    return Ok(ticket);
                }
                Err(Fault::Unclear(reason)) => return Err(SubmitError::Unclear(reason)),
                Err(Fault::NotTaken(status, failure)) => (status, failure),
            };
            tries += 1;
            match failure.kind {
                // Another key may do; without one, this is what there is to say.
                FailureKind::Account => {
                    error!(%generation, endpoint, key = turn.key().label, reason = failure.message, "fal refuses our key or account");
                    let locked = failure.message.contains("locked") || failure.message.contains("Exhausted");
                    turn.refused(if locked { Scope::All } else { Scope::Endpoint(endpoint.clone()) });
                    if tries as usize >= self.keys.len() {
                        return Err(SubmitError::NotTaken(failure));
                    }
                    continue;
                }
                FailureKind::Overloaded if tries < SUBMIT_TRIES => {}
                _ => return Err(SubmitError::NotTaken(failure)),
            }
            warn!(%generation, endpoint, tries, reason = failure.message, "fal has not taken the request; trying again");
            let asked = failure.retry_after.unwrap_or(Duration::ZERO);
            if status == Some(StatusCode::TOO_MANY_REQUESTS) {
                // The next turn waits for the rest to be over, or falls to another key.
                turn.busy(failure.retry_after);
            } else if asked > LONGEST_WAIT || Instant::now() + asked >= give_up {
                return Err(SubmitError::NotTaken(failure));
            } else {
                drop(turn);
                tokio::time::sleep(asked.max(jittered(wait, attempt))).await;
                wait *= 2;
            }
        }
    }

    async fn submit_once(
        &self,
        prepared: &Prepared,
        body: &mut Cow<'_, Map<String, Value>>,
        key: &Key,
        attempt: Attempt,
        give_up: Instant,
    ) -> Result<Ticket, Fault> {
        let not_taken = |failure| Fault::NotTaken(None, failure);
        let uploaded = uploads::uploaded(&self.client, &self.rest_url, &key.header, body).await.map_err(not_taken)?;
        if let Some(uploaded) = uploaded {
            *body = Cow::Owned(uploaded);
        }
        let text = serde_json::to_vec(body.as_ref()).map(Bytes::from).map_err(|fault| {
            let message = format!("the request cannot be written: {fault}");
            not_taken(Box::new(Failure::new(FailureKind::Run, message)))
        })?;
        let start_within = give_up.saturating_duration_since(Instant::now());
        let sent = self
            .request(Method::POST, &self.submit_url(prepared, key, attempt), key)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            // How long it may wait before it starts; then fal gives it up by itself.
            .header("x-fal-request-timeout", start_within.as_secs().max(2).to_string())
            // Another model's picture is not what was ordered.
            .header("x-app-fal-disable-fallback", "true")
            .timeout(start_within.clamp(Duration::from_secs(1), SUBMIT_TIMEOUT))
            .body(text)
            .send()
            .await;
        let mut response = match sent {
            Ok(response) => response,
            Err(fault) if fault.is_connect() => {
                let message = format!("no connection to fal: {}", cause_of(&fault));
                return Err(not_taken(Box::new(Failure::new(FailureKind::Overloaded, message))));
            }
            Err(fault) => return Err(Fault::Unclear(cause_of(&fault))),
        };
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let body = read_limited(response).await.map_err(Fault::Unclear)?;
        self.read_submitted(prepared, key, status, &headers, &body)
    }

    /// What the answer to a submit says: taken, not taken, or nothing that can be relied on.
    fn read_submitted(
        &self,
        prepared: &Prepared,
        key: &Key,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Ticket, Fault> {
        let unclear = || Fault::Unclear(format!("fal answered the submit with status {}", status.as_u16()));
        let answer = serde_json::from_slice::<wire::Submitted>(body);
        if status.is_success() {
            let answer = answer
                .map_err(|fault| Fault::Unclear(format!("the answer to the submit has no request id: {fault}")))?;
            return Ok(self.queue.ticket_of(&prepared.endpoint, &key.label, answer));
        }
        if status.is_server_error() && !given_up_by_fal(headers) {
            // One that names a request has perhaps taken it: then its state tells.
            if let Ok(answer) = answer {
                return Ok(self.queue.ticket_of(&prepared.endpoint, &key.label, answer));
            }
            if status != StatusCode::SERVICE_UNAVAILABLE || headers.contains_key("x-fal-request-id") {
                return Err(unclear());
            }
        }
        if status == StatusCode::REQUEST_TIMEOUT || status.is_redirection() || status.is_informational() {
            return Err(unclear());
        }
        let mut failure = read_failure(status, headers, body);
        failure.retry_after = retry_after(headers);
        Err(Fault::NotTaken(Some(status), Box::new(failure)))
    }

    /// The address of a submit. Where fal can call us it carries our hook, with what is needed to find the request again.
    fn submit_url(&self, prepared: &Prepared, key: &Key, attempt: Attempt) -> String {
        let url = self.queue.submit_url(&prepared.endpoint);
        let Some(public) = &self.public_url else { return url };
        let mut hook = format!("{public}/fal/webhooks/{}", attempt.generation);
        let mut hints = Vec::new();
        if attempt.number > 1 {
            hints.push(format!("attempt={}", attempt.number));
        }
        if self.keys.len() > 1 {
            hints.push(format!("key={}", key.label));
        }
        if !hints.is_empty() {
            hook = format!("{hook}?{}", hints.join("&"));
        }
        let encoded: String = url::form_urlencoded::byte_serialize(hook.as_bytes()).collect();
        format!("{url}?fal_webhook={encoded}")
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// 75 to 125 % of `wait`, different for each generation, so that many that failed together do not return together.
fn jittered(wait: Duration, attempt: Attempt) -> Duration {
    let noise = u32::from(attempt.generation.uuid().as_bytes()[15]);
    wait * (75 + noise * 50 / 255) / 100
}
