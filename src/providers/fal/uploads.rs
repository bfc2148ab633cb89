//! Input images that are too large to travel inside a request go through fal's storage first.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, StatusCode};
use serde_json::{Map, Value};

use super::client::{read_failure, read_limited};
use crate::providers::media::cause_of;
use crate::providers::outcome::{Failure, FailureKind, FileWish, UploadPlace};

/// Data URIs longer than this, in characters, are uploaded; shorter ones travel inside the request.
pub const UPLOADED_ABOVE: usize = 256 * 1024;
/// Longest wait for one step of an upload.
const UPLOAD_TIMEOUT: Duration = Duration::from_mins(1);

/// The body with every large data URI replaced by the address of its upload; `None` if it has none. Nothing of this runs a
/// model, so whatever fails is proven not to have been taken.
pub(super) async fn uploaded(
    client: &Client,
    rest_url: &str,
    key: &HeaderValue,
    body: &Map<String, Value>,
) -> Result<Option<Map<String, Value>>, Box<Failure>> {
    if !body.values().any(holds_data) {
        return Ok(None);
    }
    let mut places = Vec::new();
    for (name, value) in body {
        find(value, format!("/{}", escaped(name)), &mut places);
    }
    let light = body.iter().map(|(name, value)| (name.clone(), without_data(value))).collect();
    let mut changed = Value::Object(light);
    for (place, uri) in places {
        let file_url = upload(client, rest_url, key, uri).await?;
        if let Some(slot) = changed.pointer_mut(&place) {
            *slot = Value::String(file_url);
        }
    }
    match changed {
        Value::Object(changed) => Ok(Some(changed)),
        _ => Ok(None),
    }
}

/// A copy with nothing in place of large data URIs.
fn without_data(value: &Value) -> Value {
    match value {
        Value::String(text) if is_data(text) => Value::Null,
        Value::Array(items) => items.iter().map(without_data).collect(),
        Value::Object(fields) => fields.iter().map(|(name, field)| (name.clone(), without_data(field))).collect(),
        other => other.clone(),
    }
}

/// Whether it is or holds a large data URI.
fn holds_data(value: &Value) -> bool {
    match value {
        Value::String(text) => is_data(text),
        Value::Array(items) => items.iter().any(holds_data),
        Value::Object(fields) => fields.values().any(holds_data),
        _ => false,
    }
}

fn is_data(text: &str) -> bool {
    text.len() > UPLOADED_ABOVE && text.starts_with("data:")
}

/// The large data URIs, each with the JSON pointer to it.
fn find<'v>(value: &'v Value, place: String, places: &mut Vec<(String, &'v str)>) {
    match value {
        Value::String(text) if is_data(text) => places.push((place, text)),
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                find(item, format!("{place}/{at}"), places);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                find(field, format!("{place}/{}", escaped(name)), places);
            }
        }
        _ => {}
    }
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

async fn upload(client: &Client, rest_url: &str, key: &HeaderValue, uri: &str) -> Result<String, Box<Failure>> {
    let unreadable = || boxed(FailureKind::InputUnreadable, "an input image is not a base64 data URI");
    let (head, data) = uri.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,")).ok_or_else(unreadable)?;
    let bytes = Bytes::from(STANDARD.decode(data).map_err(|_| unreadable())?);
    // Type by content, whatever the URI says it is.
    let head = image::guess_format(&bytes).map_or(head, |format| format.to_mime_type());
    let extension = head.rsplit('/').next().filter(|word| word.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    let file_name = format!("input.{}", extension.unwrap_or("bin"));
    put(client, rest_url, key, &FileWish { content_type: head.to_owned(), file_name }, bytes).await
}

/// `initiate`, then `PUT` to the address that it gives, without our key: the address is the secret.
pub(super) async fn put(
    client: &Client,
    rest_url: &str,
    key: &HeaderValue,
    file: &FileWish,
    bytes: Bytes,
) -> Result<String, Box<Failure>> {
    let content_type = HeaderValue::from_str(&file.content_type)
        .map_err(|_| boxed(FailureKind::InputUnreadable, "the type of an input image is no MIME type"))?;
    let place = announce(client, rest_url, key, file).await?;
    let put = client
        .put(&place.upload_url)
        .header(CONTENT_TYPE, content_type)
        .timeout(UPLOAD_TIMEOUT)
        .body(bytes)
        .send()
        .await
        .map_err(|fault| unreachable(&fault))?;
    if !put.status().is_success() {
        let message = format!("fal's storage answers an upload with status {}", put.status().as_u16());
        return Err(boxed(FailureKind::Overloaded, &message));
    }
    Ok(place.file_url)
}

#[expect(clippy::unnecessary_box_returns, reason = "failures travel boxed")]
fn unreachable(fault: &reqwest::Error) -> Box<Failure> {
    boxed(FailureKind::Overloaded, &format!("fal's storage: {}", cause_of(fault)))
}

/// `initiate`: where fal wants the bytes, and where they will lie.
pub(super) async fn announce(
    client: &Client,
    rest_url: &str,
    key: &HeaderValue,
    file: &FileWish,
) -> Result<UploadPlace, Box<Failure>> {
    let answer = client
        .post(format!("{rest_url}/storage/upload/initiate?storage_type=fal-cdn-v3"))
        .header(AUTHORIZATION, key.clone())
        .timeout(UPLOAD_TIMEOUT)
        .json(file)
        .send()
        .await
        .map_err(|fault| unreachable(&fault))?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = read_limited(answer).await.map_err(|reason| boxed(FailureKind::Overloaded, &reason))?;
    if !status.is_success() {
        return Err(of_storage(&read_failure(status, &headers, &body), status));
    }
    serde_json::from_slice(&body)
        .map_err(|fault| boxed(FailureKind::Overloaded, &format!("fal's storage names no place: {fault}")))
}

/// Whatever is wrong with the storage is not the client's fault, and no model is gone because of it.
#[expect(clippy::unnecessary_box_returns, reason = "failures travel boxed")]
fn of_storage(failure: &Failure, status: StatusCode) -> Box<Failure> {
    let kind = match failure.kind {
        FailureKind::Account => FailureKind::Account,
        _ => FailureKind::Overloaded,
    };
    let message = format!("fal's storage answers with status {}: {}", status.as_u16(), failure.message);
    boxed(kind, &message)
}

fn boxed(kind: FailureKind, message: &str) -> Box<Failure> {
    Box::new(Failure::new(kind, message))
}
