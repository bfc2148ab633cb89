//! The only I/O with fal's queue: submit once, look often, cancel.
//!
//! A submit is repeated only when it is proven that nothing reached fal or that fal did not take it; everything else
//! about it is [`SubmitError::Unclear`], and what is unclear is never sent again, because fal has no idempotency key.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use sha2::{Digest, Sha256};
use tracing::{error, warn};
use url::Url;

use super::failure::{self, Answer};
use super::{translate, wire};
use crate::catalogue::Order;
use crate::domain::GenerationId;
use crate::providers::media::cause_of;
use crate::providers::outcome::{Delivery, Failure, FailureKind, Look, LookError, SubmitError};
use crate::providers::{CancelAnswer, Prepared, Provider, Ticket};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the answer to a submit; past it nobody knows whether fal took the request.
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for the answer to a read or a cancellation.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// Larger answers are not fal's: images come as links.
const ANSWER_LIMIT: usize = 32 * 1024 * 1024;
/// How often a submit that was proven not to be taken is tried in all.
const SUBMIT_TRIES: u32 = 4;
/// Wait before the second try of a submit; doubles for each further one.
const SUBMIT_BACKOFF: Duration = Duration::from_millis(250);
/// Longest `Retry-After` of fal that a submit waits for; a longer one is passed on to the client.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Where fal is and who we are there.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `FAL_QUEUE_URL`, without a trailing slash.
    pub queue_url: String,
    /// The keys and their weights, at least one.
    pub keys: Vec<(String, u32)>,
}

/// Why the client cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum FalError {
    /// No key was given.
    #[error("fal needs at least one key")]
    NoKey,
    /// A key that no HTTP header can carry.
    #[error("a key of fal cannot be sent in a header")]
    BadKey,
    /// The queue's address cannot be read.
    #[error("the address of fal's queue cannot be read: {0}")]
    BadUrl(#[from] url::ParseError),
    /// The HTTP client does not start.
    #[error("the HTTP client does not start: {0}")]
    Client(#[from] reqwest::Error),
}

/// One of fal's keys.
struct Credential {
    label: String,
    header: HeaderValue,
}

/// fal.ai's queue.
pub struct Fal {
    client: Client,
    queue_url: Url,
    credentials: Vec<Credential>,
    /// Positions in `credentials`, each as often as its weight says.
    turns: Vec<usize>,
    next: AtomicUsize,
}

impl Fal {
    /// Builds the client; connects to nobody yet.
    pub fn new(settings: &Settings) -> Result<Self, FalError> {
        let client = Client::builder()
            .user_agent(concat!("imagegate/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .pool_max_idle_per_host(1024)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let mut credentials = Vec::new();
        let mut turns = Vec::new();
        for (key, weight) in &settings.keys {
            let mut header = HeaderValue::from_str(&format!("Key {key}")).map_err(|_| FalError::BadKey)?;
            header.set_sensitive(true);
            turns.extend(std::iter::repeat_n(credentials.len(), usize::try_from(*weight).unwrap_or(1).min(100)));
            credentials.push(Credential { label: label_of(key), header });
        }
        if credentials.is_empty() {
            return Err(FalError::NoKey);
        }
        Ok(Self { client, queue_url: Url::parse(&settings.queue_url)?, credentials, turns, next: AtomicUsize::new(0) })
    }

    fn take_turn(&self) -> &Credential {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.turns.len();
        &self.credentials[self.turns[turn]]
    }

    /// The credential that a ticket was made with, or the first one if that key is gone from the settings.
    fn credential(&self, label: &str) -> &Credential {
        self.credentials.iter().find(|credential| credential.label == label).unwrap_or(&self.credentials[0])
    }

    fn request(&self, method: Method, url: &str, credential: &Credential) -> RequestBuilder {
        self.client
            .request(method, url)
            .header(AUTHORIZATION, credential.header.clone())
            .header(ACCEPT, HeaderValue::from_static("application/json"))
    }

    /// The address of a request at the queue: `{owner}/{alias}` only, whatever sub-path was called.
    fn request_url(&self, endpoint: &str, request_id: &str) -> String {
        let base = self.queue_url.as_str().trim_end_matches('/');
        format!("{base}/{}/requests/{request_id}", application_of(endpoint))
    }

    /// An address that fal gave, if it is on fal's queue; else the one that fal's rule makes. Our key goes nowhere else.
    fn trusted(&self, given: Option<String>, otherwise: impl Fn() -> String) -> String {
        match given {
            Some(given) if self.is_ours(&given) => given,
            Some(given) => {
                let host =
                    Url::parse(&given).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
                warn!(host, "fal names an address on another host; using the queue's own");
                otherwise()
            }
            None => otherwise(),
        }
    }

    fn is_ours(&self, address: &str) -> bool {
        Url::parse(address).is_ok_and(|url| url.origin() == self.queue_url.origin())
    }

    fn ticket(&self, endpoint: &str, credential: &Credential, answer: wire::Submitted) -> Ticket {
        let base = self.request_url(endpoint, &answer.request_id);
        Ticket {
            endpoint: endpoint.to_owned(),
            credential: credential.label.clone(),
            status_url: self.trusted(answer.status_url, || format!("{base}/status")),
            response_url: self.trusted(answer.response_url, || base.clone()),
            cancel_url: self.trusted(answer.cancel_url, || format!("{base}/cancel")),
            request_id: answer.request_id,
        }
    }

    async fn submit_once(
        &self,
        prepared: &Prepared,
        body: Bytes,
        start_within: Duration,
    ) -> Result<Ticket, SubmitError> {
        let credential = self.take_turn();
        let url = format!("{}/{}", self.queue_url.as_str().trim_end_matches('/'), prepared.endpoint);
        let sent = self
            .request(Method::POST, &url, credential)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            // How long it may wait before it starts; then fal gives it up by itself.
            .header("x-fal-request-timeout", start_within.as_secs().max(2).to_string())
            // Another model's picture is not what was ordered.
            .header("x-app-fal-disable-fallback", "true")
            .timeout(SUBMIT_TIMEOUT)
            .body(body)
            .send()
            .await;
        let response = match sent {
            Ok(response) => response,
            Err(fault) if fault.is_connect() => {
                let message = format!("no connection to fal: {}", cause_of(&fault));
                return Err(SubmitError::NotTaken(Box::new(Failure::new(FailureKind::Overloaded, message))));
            }
            Err(fault) => return Err(SubmitError::Unclear(cause_of(&fault))),
        };
        let status = response.status();
        let headers = response.headers().clone();
        let body = read_limited(response).await.map_err(SubmitError::Unclear)?;
        if status.is_success() {
            let answer = serde_json::from_slice::<wire::Submitted>(&body).map_err(|fault| {
                SubmitError::Unclear(format!("the answer to the submit has no request id: {fault}"))
            })?;
            return Ok(self.ticket(&prepared.endpoint, credential, answer));
        }
        // A server error that names a request has perhaps taken it: then its state tells.
        if status.is_server_error() && !given_up_by_fal(&headers) {
            if let Ok(answer) = serde_json::from_slice::<wire::Submitted>(&body) {
                return Ok(self.ticket(&prepared.endpoint, credential, answer));
            }
            if status != StatusCode::SERVICE_UNAVAILABLE || headers.contains_key("x-fal-request-id") {
                return Err(SubmitError::Unclear(format!("fal answered the submit with status {}", status.as_u16())));
            }
        }
        if status == StatusCode::REQUEST_TIMEOUT || status.is_redirection() || status.is_informational() {
            return Err(SubmitError::Unclear(format!("fal answered the submit with status {}", status.as_u16())));
        }
        let mut failure = read_failure(status, &headers, &body);
        failure.retry_after = retry_after(&headers);
        Err(SubmitError::NotTaken(Box::new(failure)))
    }

    async fn read(&self, url: &str, ticket: &Ticket) -> Result<(StatusCode, HeaderMap, Bytes), LookError> {
        let credential = self.credential(&ticket.credential);
        let response = self
            .request(Method::GET, url, credential)
            .timeout(READ_TIMEOUT)
            .send()
            .await
            .map_err(|fault| LookError::Transient(cause_of(&fault)))?;
        let status = response.status();
        let headers = response.headers().clone();
        let body = read_limited(response).await.map_err(LookError::Transient)?;
        Ok((status, headers, body))
    }

    async fn read_result(&self, ticket: &Ticket, state: wire::Status) -> Result<Look, LookError> {
        let url = self.address_for(ticket, state.response_url.as_deref().unwrap_or(&ticket.response_url));
        let (status, headers, body) = self.read(&url, ticket).await?;
        let told_failed = state.error.as_ref().is_some_and(|error| !error.is_null()) || state.error_type.is_some();
        let failed = || Ok(Look::Failed(Box::new(read_failure(status, &headers, &body))));
        match status.as_u16() {
            200..=299 => match wire::read_delivery(&body, units(&headers)) {
                Ok(delivery) => Ok(delivered(delivery)),
                // fal has told that it failed, and there is no output to read: that is its failure, not a riddle.
                Err(_) if told_failed => Ok(Look::Failed(Box::new(failure::from_status(
                    &state.error.unwrap_or_default(),
                    state.error_type.as_deref(),
                    units(&headers),
                )))),
                Err(reason) => Err(LookError::NotUnderstood(reason)),
            },
            _ if told_failed || given_up_by_fal(&headers) => match status.as_u16() {
                408 | 429 => Err(LookError::Transient(format!("status {} on the result", status.as_u16()))),
                _ => failed(),
            },
            400 if still_running(&body) => Ok(Look::Running),
            404 => Err(LookError::Unknown),
            408 | 429 => Err(LookError::Transient(format!("status {} on the result", status.as_u16()))),
            401 | 403 | 500..=599 => Err(LookError::ResultFault(
                format!("status {}", status.as_u16()),
                Box::new(read_failure(status, &headers, &body)),
            )),
            400..=499 => failed(),
            other => Err(LookError::NotUnderstood(format!("status {other} on the result"))),
        }
    }

    /// A ticket's address, moved to the present queue when it was written for another one (a stand-in that came back
    /// on another port).
    fn address_for(&self, ticket: &Ticket, address: &str) -> String {
        if self.is_ours(address) {
            return address.to_owned();
        }
        let base = self.request_url(&ticket.endpoint, &ticket.request_id);
        match address.rsplit('/').next() {
            Some("status") => format!("{base}/status"),
            Some("cancel") => format!("{base}/cancel"),
            _ => base,
        }
    }
}

#[async_trait]
impl Provider for Fal {
    fn prepare(&self, order: &Order) -> Prepared {
        Prepared { endpoint: order.endpoint().to_owned(), body: translate::body(order) }
    }

    async fn submit(
        &self,
        prepared: &Prepared,
        generation: GenerationId,
        start_within: Duration,
    ) -> Result<Ticket, SubmitError> {
        let body = serde_json::to_vec(&prepared.body)
            .map(Bytes::from)
            .map_err(|fault| not_taken(FailureKind::Run, format!("the request cannot be written: {fault}")))?;
        let mut wait = SUBMIT_BACKOFF;
        for attempt in 1.. {
            let outcome = self.submit_once(prepared, body.clone(), start_within).await;
            let Err(SubmitError::NotTaken(failure)) = &outcome else { return outcome };
            if failure.kind == FailureKind::Account {
                error!(%generation, endpoint = prepared.endpoint, reason = failure.message, "fal refuses our key or account");
            }
            let asked = failure.retry_after.unwrap_or(Duration::ZERO);
            if failure.kind != FailureKind::Overloaded || attempt >= SUBMIT_TRIES || asked > LONGEST_RETRY_AFTER {
                return outcome;
            }
            warn!(%generation, endpoint = prepared.endpoint, attempt, reason = failure.message, "fal has not taken the request; trying again");
            tokio::time::sleep(asked.max(jittered(wait, generation))).await;
            wait *= 2;
        }
        Err(not_taken(FailureKind::Overloaded, "fal has not taken the request".to_owned()))
    }

    async fn look(&self, ticket: &Ticket) -> Result<Look, LookError> {
        let (status, _, body) = self.read(&self.address_for(ticket, &ticket.status_url), ticket).await?;
        match status.as_u16() {
            200..=299 => {}
            404 => return Err(LookError::Unknown),
            401 | 403 => {
                error!(
                    request_id = ticket.request_id,
                    status = status.as_u16(),
                    "fal refuses our key when asked for a state"
                );
                return Err(LookError::Transient(format!("status {}", status.as_u16())));
            }
            408 | 425 | 429 | 500..=599 => return Err(LookError::Transient(format!("status {}", status.as_u16()))),
            other => return Err(LookError::NotUnderstood(format!("status {other} on the state"))),
        }
        let state: wire::Status = serde_json::from_slice(&body)
            .map_err(|fault| LookError::NotUnderstood(format!("the state cannot be read: {fault}")))?;
        match state.state.as_str() {
            "IN_QUEUE" => Ok(Look::Queued(state.queue_position)),
            "IN_PROGRESS" => Ok(Look::Running),
            "COMPLETED" => self.read_result(ticket, state).await,
            other => Err(LookError::NotUnderstood(format!("`{other}` is no state that fal documents"))),
        }
    }

    async fn cancel(&self, ticket: &Ticket) -> Result<CancelAnswer, LookError> {
        let url = self.address_for(ticket, &ticket.cancel_url);
        let response = self
            .request(Method::PUT, &url, self.credential(&ticket.credential))
            .timeout(READ_TIMEOUT)
            .send()
            .await
            .map_err(|fault| LookError::Transient(cause_of(&fault)))?;
        let status = response.status();
        let body = read_limited(response).await.map_err(LookError::Transient)?;
        let told = serde_json::from_slice::<wire::Cancelled>(&body).unwrap_or_default().status.unwrap_or_default();
        match (status.as_u16(), told.as_str()) {
            (_, "ALREADY_COMPLETED") => Ok(CancelAnswer::AlreadyFinished),
            (404, _) | (_, "NOT_FOUND") => Ok(CancelAnswer::Unknown),
            (200..=299, _) => Ok(CancelAnswer::Accepted),
            (other, _) => Err(LookError::Transient(format!("status {other} on the cancellation"))),
        }
    }
}

fn not_taken(kind: FailureKind, message: String) -> SubmitError {
    SubmitError::NotTaken(Box::new(Failure::new(kind, message)))
}

fn delivered(delivery: Delivery) -> Look {
    if delivery.images.is_empty() {
        let mut failure = Failure::new(FailureKind::NoImages, "fal finished without an image");
        failure.billable_units = delivery.billable_units;
        return Look::Failed(Box::new(failure));
    }
    Look::Done(Box::new(delivery))
}

/// fal answers 400 to a result that is read too early; its text is known from third parties only.
fn still_running(body: &[u8]) -> bool {
    String::from_utf8_lossy(body).contains("in progress")
}

/// 504 with this header is fal's own deadline, asked for by us: final.
fn given_up_by_fal(headers: &HeaderMap) -> bool {
    headers.contains_key("x-fal-request-timeout-type")
}

fn read_failure(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    failure::read_failure(&Answer {
        status: status.as_u16(),
        body,
        error_type: text("x-fal-error-type"),
        units: text("x-fal-billable-units"),
    })
}

fn units(headers: &HeaderMap) -> Option<crate::domain::Fixed> {
    headers.get("x-fal-billable-units").and_then(|value| value.to_str().ok()).and_then(wire::read_units)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Reads a body up to the limit, piece by piece.
async fn read_limited(mut response: reqwest::Response) -> Result<Bytes, String> {
    let mut body = BytesMut::new();
    while let Some(piece) = response.chunk().await.map_err(|fault| cause_of(&fault))? {
        if body.len() + piece.len() > ANSWER_LIMIT {
            return Err(format!("the answer is larger than {ANSWER_LIMIT} bytes"));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// `fal-ai/flux/dev` → `fal-ai/flux`; with the namespaces `workflows` and `comfy`, one segment more.
fn application_of(endpoint: &str) -> String {
    let namespaced = matches!(endpoint.split('/').next(), Some("workflows" | "comfy"));
    endpoint.split('/').take(if namespaced { 3 } else { 2 }).collect::<Vec<_>>().join("/")
}

/// A key's name in the books and logs: eight hex digits of its digest.
fn label_of(key: &str) -> String {
    hex::encode(&Sha256::digest(key.as_bytes())[..4])
}

/// 75 to 125 % of `wait`, different for each generation, so that many that failed together do not return together.
fn jittered(wait: Duration, generation: GenerationId) -> Duration {
    let noise = u32::from(generation.uuid().as_bytes()[15]);
    wait * (75 + noise * 50 / 255) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fal() -> Fal {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Fal::new(&Settings {
            queue_url: "https://queue.fal.run".into(),
            keys: vec![("a:b".into(), 2), ("c:d".into(), 1)],
        })
        .unwrap()
    }

    #[test]
    fn a_requests_address_has_the_owner_and_alias_only() {
        assert_eq!(application_of("fal-ai/flux/dev"), "fal-ai/flux");
        assert_eq!(application_of("fal-ai/flux-realism"), "fal-ai/flux-realism");
        assert_eq!(application_of("workflows/me/app/x"), "workflows/me/app");
    }

    #[test]
    fn our_key_is_sent_to_the_queue_only() {
        let fal = fal();
        let credential = fal.take_turn();
        let given = |host: &str| Some(format!("https://{host}/fal-ai/flux/requests/1"));
        let ticket = fal.ticket(
            "fal-ai/flux/dev",
            credential,
            wire::Submitted {
                request_id: "1".into(),
                response_url: given("evil.example"),
                status_url: given("queue.fal.run.evil.example"),
                cancel_url: given("queue.fal.run"),
            },
        );
        assert_eq!(ticket.response_url, "https://queue.fal.run/fal-ai/flux/requests/1");
        assert_eq!(ticket.status_url, "https://queue.fal.run/fal-ai/flux/requests/1/status");
        assert_eq!(ticket.cancel_url, "https://queue.fal.run/fal-ai/flux/requests/1");
    }

    #[test]
    fn a_ticket_of_another_queue_is_asked_for_at_the_present_one() {
        let fal = fal();
        let ticket = Ticket {
            endpoint: "fal-ai/flux/dev".into(),
            credential: "gone".into(),
            request_id: "7".into(),
            status_url: "http://127.0.0.1:4711/fal-ai/flux/requests/7/status".into(),
            response_url: "http://127.0.0.1:4711/fal-ai/flux/requests/7".into(),
            cancel_url: "http://127.0.0.1:4711/fal-ai/flux/requests/7/cancel".into(),
        };
        assert_eq!(fal.address_for(&ticket, &ticket.status_url), "https://queue.fal.run/fal-ai/flux/requests/7/status");
        assert_eq!(fal.address_for(&ticket, &ticket.response_url), "https://queue.fal.run/fal-ai/flux/requests/7");
    }

    #[test]
    fn keys_take_turns_by_weight() {
        let fal = fal();
        let labels: Vec<_> = (0..6).map(|_| fal.take_turn().label.clone()).collect();
        assert_eq!(labels.iter().filter(|label| **label == label_of("a:b")).count(), 4);
    }
}
