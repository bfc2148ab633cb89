//! The I/O with fal's queue: look often, read the result, cancel. The submit, which must happen once, is in `submit.rs`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use tokio::time::Instant;
use tracing::error;

use super::breaker::Breakers;
use super::failure::{self, Answer};
use super::hooks::Hooks;
use super::keys::{Key, Keys};
use super::queue::Queue;
use super::{translate, uploads, wire};
use crate::catalogue::Order;
use crate::domain::ProjectId;
use crate::providers::media::cause_of;
use crate::providers::outcome::{
    Delivery, Failure, FailureKind, FileWish, Look, LookError, Standing, StreamedRun, SubmitError, UploadPlace,
};
use crate::providers::{Attempt, CancelAnswer, Health, HookCall, HookError, HookHint, Prepared, Provider, Ticket};
use crate::traces;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the answer to a read or a cancellation.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// Larger answers are not fal's: images come as links.
pub(super) const ANSWER_LIMIT: usize = 32 * 1024 * 1024;

/// Where fal is and who we are there.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `FAL_QUEUE_URL`, without a trailing slash.
    pub queue_url: String,
    /// `FAL_RUN_URL`, without a trailing slash: streamed runs.
    pub run_url: String,
    /// `FAL_REST_URL`, without a trailing slash: storage and the keys that webhooks are signed with.
    pub rest_url: String,
    /// The keys and their weights, at least one.
    pub keys: Vec<(String, u32)>,
    /// `FAL_KEY_CONCURRENCY`: most requests that one key may have open; `None` is no limit but what fal teaches.
    pub key_concurrency: Option<usize>,
    /// `IMAGEGATE_PUBLIC_URL`, without a trailing slash: where fal can call us; `None` is nowhere.
    pub public_url: Option<String>,
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

/// fal.ai's queue.
pub struct Fal {
    pub(super) client: Client,
    pub(super) queue: Queue,
    pub(super) run_url: String,
    pub(super) rest_url: String,
    pub(super) public_url: Option<String>,
    pub(super) keys: Arc<Keys>,
    pub(super) breakers: Breakers,
    hooks: Hooks,
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
        Ok(Self {
            client,
            queue: Queue::new(&settings.queue_url)?,
            run_url: settings.run_url.trim_end_matches('/').to_owned(),
            rest_url: settings.rest_url.clone(),
            public_url: settings.public_url.clone(),
            keys: Keys::new(&settings.keys, settings.key_concurrency)?,
            breakers: Breakers::default(),
            hooks: Hooks::new(&settings.rest_url),
        })
    }

    pub(super) fn request(&self, method: Method, url: &str, key: &Key) -> RequestBuilder {
        let request = match self.queue.plain(url) {
            Some(url) => self.client.request(method, url),
            None => self.client.request(method, url),
        };
        let request =
            traces::headers_out().into_iter().fold(request, |request, (name, value)| request.header(name, value));
        request.header(AUTHORIZATION, key.header.clone()).header(ACCEPT, HeaderValue::from_static("application/json"))
    }

    async fn read(&self, url: &str, ticket: &Ticket) -> Result<(StatusCode, HeaderMap, Bytes), LookError> {
        let mut response = self
            .request(Method::GET, url, self.keys.of(&ticket.credential))
            .timeout(READ_TIMEOUT)
            .send()
            .await
            .map_err(|fault| LookError::Transient(cause_of(&fault)))?;
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let body = read_limited(response).await.map_err(LookError::Transient)?;
        Ok((status, headers, body))
    }

    async fn read_result(&self, ticket: &Ticket, state: wire::Status) -> Result<Look, LookError> {
        let url = self.queue.address_for(ticket, state.response_url.as_deref().unwrap_or(&ticket.response_url));
        let (status, headers, body) = self.read(&url, ticket).await?;
        let told_failed = state.error.as_ref().is_some_and(|error| !error.is_null()) || state.error_type.is_some();
        let failed = || Ok(Look::Failed(Box::new(read_failure(status, &headers, &body))));
        match status.as_u16() {
            200..=299 => match wire::read_delivery(&body, units(&headers)) {
                Ok(delivery) if !told_failed || !delivery.images.is_empty() => Ok(delivered(delivery)),
                // fal has told that it failed, and there is no output to read: that is its failure, not a riddle.
                _ if told_failed => Ok(Look::Failed(Box::new(failure::from_status(
                    &state.error.unwrap_or_default(),
                    state.error_type.as_deref(),
                    units(&headers),
                )))),
                Ok(delivery) => Ok(delivered(delivery)),
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
}

#[async_trait]
impl Provider for Fal {
    fn prepare(&self, order: &Order) -> Prepared {
        Prepared { endpoint: order.endpoint().to_owned(), body: translate::body(order) }
    }

    async fn submit(
        &self,
        prepared: &Prepared,
        project: ProjectId,
        attempt: Attempt,
        start_within: Duration,
    ) -> Result<Ticket, SubmitError> {
        self.hand_over(prepared, project, attempt, start_within).await
    }

    async fn stream(
        &self,
        prepared: &Prepared,
        project: ProjectId,
        attempt: Attempt,
        within: Duration,
    ) -> Result<StreamedRun, SubmitError> {
        self.run_streamed(prepared, project, attempt, within).await
    }

    async fn look(&self, ticket: &Ticket) -> Result<Look, LookError> {
        let look = self.look_once(ticket).await;
        self.note(ticket, &look);
        look
    }

    async fn standing(&self, ticket: &Ticket) -> Result<Standing, LookError> {
        let url = format!("{}?logs=1", self.queue.address_for(ticket, &ticket.status_url));
        let (status, _, body) = self.read(&url, ticket).await?;
        match status.as_u16() {
            200..=299 => wire::read_standing(&body).map_err(LookError::NotUnderstood),
            404 => Err(LookError::Unknown),
            other => Err(LookError::Transient(format!("status {other} on the state"))),
        }
    }

    async fn announce_upload(&self, file: &FileWish) -> Result<UploadPlace, Box<Failure>> {
        let turn = self.keys.turn(None, "storage", Instant::now() + READ_TIMEOUT).await?;
        uploads::announce(&self.client, &self.rest_url, &turn.key().header, file).await
    }

    async fn upload(&self, file: &FileWish, bytes: Bytes) -> Result<String, Box<Failure>> {
        let turn = self.keys.turn(None, "storage", Instant::now() + READ_TIMEOUT).await?;
        uploads::put(&self.client, &self.rest_url, &turn.key().header, file, bytes).await
    }

    async fn cancel(&self, ticket: &Ticket) -> Result<CancelAnswer, LookError> {
        let url = self.queue.address_for(ticket, &ticket.cancel_url);
        let response = self
            .request(Method::PUT, &url, self.keys.of(&ticket.credential))
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

    fn calls_back(&self) -> bool {
        self.public_url.is_some()
    }

    async fn read_hook(&self, call: &HookCall) -> Result<String, HookError> {
        self.hooks.read(&self.client, call).await
    }

    fn ticket(&self, endpoint: &str, request_id: &str, hint: &HookHint) -> Ticket {
        let label = &self.keys.of(hint.credential.as_deref().unwrap_or_default()).label;
        let answer = wire::Submitted {
            request_id: request_id.to_owned(),
            response_url: None,
            status_url: None,
            cancel_url: None,
        };
        self.queue.ticket_of(endpoint, label, answer)
    }

    fn health(&self) -> Health {
        Health { keys: self.keys.health(), open_breakers: self.breakers.health(Instant::now()), unreachable: false }
    }
}

impl Fal {
    async fn look_once(&self, ticket: &Ticket) -> Result<Look, LookError> {
        let (status, _, body) = self.read(&self.queue.address_for(ticket, &ticket.status_url), ticket).await?;
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
            "COMPLETED" => {
                // Whatever its result is, fal runs it no more.
                self.keys.has_ended(&ticket.credential, &ticket.request_id);
                self.read_result(ticket, state).await
            }
            other => Err(LookError::NotUnderstood(format!("`{other}` is no state that fal documents"))),
        }
    }

    /// What a look says of the key, whose place a completed run has freed already, and of the endpoint.
    fn note(&self, ticket: &Ticket, look: &Result<Look, LookError>) {
        let (label, request_id, endpoint) = (&ticket.credential, &ticket.request_id, &ticket.endpoint);
        match look {
            Ok(Look::Queued(_) | Look::Running) => self.keys.is_open(label, request_id),
            Ok(Look::Done(_)) => self.breakers.run_ended(endpoint),
            Err(LookError::Unknown) => {
                self.keys.has_ended(label, request_id);
                self.breakers.run_ended(endpoint);
            }
            Ok(Look::Failed(failure)) => {
                match failure.kind {
                    FailureKind::Overloaded => self.breakers.run_failed(endpoint, Instant::now()),
                    _ => self.breakers.run_ended(endpoint),
                }
                if failure.kind == FailureKind::Account {
                    error!(request_id, endpoint, reason = failure.message, "fal refuses our key or account");
                }
            }
            Err(_) => {}
        }
    }
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
pub(super) fn given_up_by_fal(headers: &HeaderMap) -> bool {
    headers.contains_key("x-fal-request-timeout-type")
}

pub(super) fn read_failure(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
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

/// Reads a body up to the limit, piece by piece.
pub(super) async fn read_limited(mut response: reqwest::Response) -> Result<Bytes, String> {
    let (mut first, mut body) = (Bytes::new(), BytesMut::new());
    while let Some(piece) = response.chunk().await.map_err(|fault| cause_of(&fault))? {
        if first.len() + body.len() + piece.len() > ANSWER_LIMIT {
            return Err(format!("the answer is larger than {ANSWER_LIMIT} bytes"));
        }
        if first.is_empty() && body.is_empty() {
            // Most answers come in one piece and are not copied.
            first = piece;
            continue;
        }
        body.extend_from_slice(&std::mem::take(&mut first));
        body.extend_from_slice(&piece);
    }
    Ok(if body.is_empty() { first } else { body.freeze() })
}
