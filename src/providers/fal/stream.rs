//! fal's own stream, `POST https://fal.run/{endpoint}/stream`: the images as they come to be, on one connection.
//!
//! It has no queue and no recovery: what is lost on the way cannot be fetched again, so nothing here is ever sent twice.
//! Each event's data is JSON in the form of the model's output; the last one is the output itself. Source: fal's page on
//! streaming and its clients, which read no other field of an event.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::BoxStream;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use tokio::time::Instant;

use super::client::{ANSWER_LIMIT, Fal, read_failure, read_limited};
use super::keys::{Key, Keys};
use super::{failure, uploads, wire};
use crate::domain::ProjectId;
use crate::providers::media::cause_of;
use crate::providers::outcome::{Failure, FailureKind, Shown, StreamedRun, SubmitError};
use crate::providers::{Attempt, HookHint, Prepared, Provider};

impl Fal {
    /// Starts a streamed run, once. `within` is how long the stream may take to begin.
    pub(super) async fn run_streamed(
        &self,
        prepared: &Prepared,
        project: ProjectId,
        attempt: Attempt,
        within: Duration,
    ) -> Result<StreamedRun, SubmitError> {
        let endpoint = &prepared.endpoint;
        let not_taken = |failure| SubmitError::NotTaken(failure);
        if let Err(closes_in) = self.breakers.admit(endpoint, Instant::now()) {
            let mut failure = Failure::new(FailureKind::Overloaded, "this model failed again and again at fal");
            failure.retry_after = Some(closes_in);
            return Err(not_taken(Box::new(failure)));
        }
        let turn = self.keys.turn(Some(project), endpoint, Instant::now() + within).await.map_err(not_taken)?;
        let key = turn.key();
        let uploaded = uploads::uploaded(&self.client, &self.rest_url, &key.header, &prepared.body).await;
        let body = uploaded.map_err(not_taken)?.map_or(Cow::Borrowed(&prepared.body), Cow::Owned);
        let text = serde_json::to_vec(body.as_ref()).map(Bytes::from).map_err(|fault| {
            let message = format!("the request cannot be written: {fault}");
            not_taken(Box::new(Failure::new(FailureKind::Run, message)))
        })?;
        let response = self.begin(endpoint, key, text, within).await?;
        let told = response.headers().get("x-fal-request-id").and_then(|value| value.to_str().ok());
        let request_id = told.map_or_else(|| attempt.generation.uuid().to_string(), str::to_owned);
        let hint = HookHint { credential: Some(key.label.clone()), attempt: None };
        let ticket = self.ticket(endpoint, &request_id, &hint);
        turn.taken(endpoint, &request_id);
        self.breakers.submit_taken(endpoint);
        let place = Place { keys: Arc::clone(&self.keys), label: ticket.credential.clone(), request_id };
        Ok(StreamedRun { ticket, shown: read_events(response, place) })
    }

    /// The answer whose body is the stream.
    async fn begin(&self, endpoint: &str, key: &Key, body: Bytes, within: Duration) -> Result<Response, SubmitError> {
        let url = format!("{}/{endpoint}/stream", self.run_url);
        let sent = self
            .request(Method::POST, &url, key)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(ACCEPT, HeaderValue::from_static("text/event-stream"))
            .body(body)
            .send();
        let response = match tokio::time::timeout(within, sent).await {
            Ok(Ok(response)) => response,
            Ok(Err(fault)) if fault.is_connect() => {
                let message = format!("no connection to fal: {}", cause_of(&fault));
                return Err(SubmitError::NotTaken(Box::new(Failure::new(FailureKind::Overloaded, message))));
            }
            Ok(Err(fault)) => return Err(SubmitError::Unclear(cause_of(&fault))),
            Err(_) => return Err(SubmitError::Unclear("fal did not begin to answer in time".to_owned())),
        };
        let (status, headers) = (response.status(), response.headers().clone());
        if status.is_success() {
            return if is_event_stream(&headers) {
                Ok(response)
            } else {
                Err(SubmitError::Unclear("the answer is no event stream".to_owned()))
            };
        }
        let body = read_limited(response).await.map_err(SubmitError::Unclear)?;
        Err(refused(status, &headers, &body))
    }
}

/// What an answer in the place of a stream says. A runner that failed has billed nothing; a fault of what stands before
/// it says nothing about the run.
fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> SubmitError {
    let by_fal = headers.contains_key("x-fal-request-id");
    let is_clear = match status.as_u16() {
        408 => false,
        503 | 400..=499 => true,
        500..=599 => by_fal,
        _ => false,
    };
    if is_clear {
        SubmitError::NotTaken(Box::new(read_failure(status, headers, body)))
    } else {
        SubmitError::Unclear(format!("fal answered with status {}", status.as_u16()))
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream")
}

/// A place among a key's open requests; dropped, it is free.
struct Place {
    keys: Arc<Keys>,
    label: String,
    request_id: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.keys.has_ended(&self.label, &self.request_id);
    }
}

/// The events of a stream, read line by line: some servers leave out the empty line between two events.
fn read_events(mut response: Response, place: Place) -> BoxStream<'static, Result<Shown, String>> {
    Box::pin(async_stream::stream! {
        let _place = place;
        let mut kept = BytesMut::new();
        // Up to here there is no end of a line: an event with an embedded image comes in many pieces.
        let mut searched = 0;
        loop {
            match response.chunk().await {
                Ok(Some(piece)) => kept.extend_from_slice(&piece),
                Ok(None) => break,
                Err(fault) => {
                    yield Err(cause_of(&fault));
                    return;
                }
            }
            while let Some(at) = kept.iter().skip(searched).position(|byte| *byte == b'\n') {
                let line = kept.split_to(searched + at + 1);
                searched = 0;
                if let Some(shown) = read_line(&line) {
                    yield shown;
                }
            }
            searched = kept.len();
            if kept.len() > ANSWER_LIMIT {
                yield Err(format!("an event is larger than {ANSWER_LIMIT} bytes"));
                return;
            }
        }
        if let Some(shown) = read_line(&kept) {
            yield shown;
        }
    })
}

/// What a line shows; nothing if it carries no data.
fn read_line(line: &[u8]) -> Option<Result<Shown, String>> {
    let data = line.strip_prefix(b"data:")?.trim_ascii();
    if data.is_empty() {
        return None;
    }
    let event: Value = match serde_json::from_slice(data) {
        Ok(event) => event,
        Err(fault) => return Some(Err(format!("an event is not JSON: {fault}"))),
    };
    if event.get("images").is_none() && (event.get("detail").is_some() || event.get("error").is_some()) {
        let answer = failure::Answer { status: 500, body: data, error_type: None, units: None };
        return Some(Ok(Shown::Failed(Box::new(failure::read_failure(&answer)))));
    }
    // Progress in numbers has no images.
    let images = wire::read_delivery(data, None).ok().filter(|delivery| !delivery.images.is_empty());
    Some(Ok(images.map_or(Shown::Nothing, |delivery| Shown::Images(Box::new(delivery)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_images_a_failure_or_nothing() {
        let read = |line: &str| read_line(line.as_bytes());
        assert!(read("\n").is_none() && read(": comment\n").is_none() && read("event: x\n").is_none());
        assert_eq!(read("data: {\"progress\": 0.25}\n"), Some(Ok(Shown::Nothing)));
        let Some(Ok(Shown::Images(delivery))) = read("data:{\"images\":[{\"url\":\"https://u\"}],\"seed\":7}\r\n")
        else {
            panic!("no images");
        };
        assert_eq!((delivery.images[0].url.as_str(), delivery.seed.unwrap().as_u64()), ("https://u", Some(7)));
        let body =
            r#"data: {"detail": [{"loc": ["body", "prompt"], "msg": "no", "type": "content_policy_violation"}]}"#;
        let Some(Ok(Shown::Failed(failure))) = read(body) else { panic!("no failure") };
        assert_eq!(failure.kind, FailureKind::ContentPolicy);
        assert!(matches!(read("data: {half"), Some(Err(_))));
    }

    #[test]
    fn only_fals_own_word_makes_an_answer_clear() {
        let mut headers = HeaderMap::new();
        let clear = |status: u16, headers: &HeaderMap| {
            matches!(refused(StatusCode::from_u16(status).unwrap(), headers, b""), SubmitError::NotTaken(_))
        };
        for (status, is_clear) in
            [(422, true), (429, true), (503, true), (408, false), (500, false), (502, false), (302, false)]
        {
            assert_eq!(clear(status, &headers), is_clear, "{status}");
        }
        headers.insert("x-fal-request-id", HeaderValue::from_static("1"));
        assert!(clear(500, &headers));
    }
}
