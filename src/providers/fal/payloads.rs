//! Deleting what fal has of a request, over the platform API.

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;

use super::{FalError, platform};
use crate::providers::{Erase, EraseError};

/// Most characters of fal's message that are kept.
const LONGEST_MESSAGE: usize = 200;

/// Deletes requests' payloads with each of our keys: they may belong to different accounts.
///
/// `DELETE /models/requests/{request_id}/payloads` of <https://api.fal.ai/v1>, by fal's own document
/// (<https://docs.fal.ai/platform-apis/v1/models/requests/payloads>): it deletes the JSON of input and output and the
/// output's files on fal's CDN; input files stay, since other requests may use them. It requires an API key with the scope
/// `ADMIN` and answers `cdn_delete_results`, each `{link, exception}`.
///
/// Not documented, and not tried with a real account: what fal answers for a request that it does not know or has deleted
/// before, taken here for 404; whether a request that runs without the queue can be deleted; how long a file is still served
/// from a cache. fal replays its answer to the same `Idempotency-Key` for ten minutes, a failure too, so none is sent.
#[derive(Debug)]
pub struct Payloads {
    client: Client,
    address: Url,
    keys: Vec<HeaderValue>,
}

#[derive(Debug, Deserialize)]
struct Deleted {
    cdn_delete_results: Vec<DeletedFile>,
}

#[derive(Debug, Deserialize)]
struct DeletedFile {
    exception: Option<serde_json::Value>,
}

impl Payloads {
    /// `base` stands for `https://api.fal.ai/v1`. Connects to nobody yet.
    pub fn new<'k>(base: &str, keys: impl Iterator<Item = &'k str>) -> Result<Self, FalError> {
        let address = Url::parse(&format!("{base}/models/requests"))?;
        let keys = keys.map(|key| platform::header(key).ok_or(FalError::BadKey)).collect::<Result<_, _>>()?;
        Ok(Self { client: platform::client()?, address, keys })
    }

    /// Whether the key's account knew the request and has deleted it.
    async fn delete(&self, key: &HeaderValue, request_id: &str) -> Result<bool, EraseError> {
        let away = |error: reqwest::Error| EraseError::Away(error.without_url().to_string());
        let mut url = self.address.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend([request_id, "payloads"]);
        }
        let answer = self.client.delete(url).header(AUTHORIZATION, key.clone()).send().await.map_err(away)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(away)?;
        if status == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        if !status.is_success() {
            let message = platform::message(&body).chars().take(LONGEST_MESSAGE).collect();
            return Err(EraseError::Refused { status: status.as_u16(), message });
        }
        let Ok(deleted) = serde_json::from_slice::<Deleted>(&body) else {
            return Err(EraseError::Incomplete("its answer cannot be read".to_owned()));
        };
        let files = deleted.cdn_delete_results;
        match files.iter().filter(|file| file.exception.is_some()).count() {
            0 => Ok(true),
            left => Err(EraseError::Incomplete(format!("{left} of {} files are left", files.len()))),
        }
    }
}

#[async_trait]
impl Erase for Payloads {
    async fn erase(&self, request_id: &str) -> Result<(), EraseError> {
        let mut failure = None;
        for key in &self.keys {
            match self.delete(key, request_id).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => failure = Some(error),
            }
        }
        // An account that does not know the request has nothing of it.
        failure.map_or(Ok(()), Err)
    }
}
