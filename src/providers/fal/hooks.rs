//! fal's webhooks: the signature is ED25519 over request id, account, time and the body's digest, by a key of fal's JWKS.
//! Source: fal's page on webhooks.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, VerifyingKey};
use reqwest::Client;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use super::client::read_limited;
use crate::providers::media::cause_of;
use crate::providers::{HookCall, HookError};

/// How far the signed time may be off, in seconds.
const WINDOW: i64 = 300;
/// How long fal's keys are kept, at most what fal allows.
const KEYS_KEPT: Duration = Duration::from_hours(24);
/// Keys are not fetched again within this time, so that bad signatures do not make us call fal.
const KEYS_AGAIN_AFTER: Duration = Duration::from_mins(1);
/// Longest wait for fal's keys.
const KEYS_TIMEOUT: Duration = Duration::from_secs(10);

/// Checks calls to our hook.
pub(super) struct Hooks {
    jwks_url: String,
    keys: AsyncMutex<Option<Fetched>>,
    /// Signatures that were believed, until they are too old to be believed again; in Unix seconds.
    seen: Mutex<HashMap<[u8; 64], i64>>,
}

struct Fetched {
    keys: Vec<VerifyingKey>,
    at: Instant,
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    #[serde(default)]
    x: String,
}

/// A signed call, read but not yet believed.
struct Signed {
    request_id: String,
    message: Vec<u8>,
    signature: Signature,
    seconds: i64,
}

impl Hooks {
    /// `rest_url` is where fal's keys are.
    pub fn new(rest_url: &str) -> Self {
        let jwks_url = format!("{}/.well-known/jwks.json", rest_url.trim_end_matches('/'));
        Self { jwks_url, keys: AsyncMutex::new(None), seen: Mutex::default() }
    }

    /// The id of the request that a call is about, if fal signed it, just now, and it did not come before.
    pub async fn read(&self, client: &Client, call: &HookCall) -> Result<String, HookError> {
        let signed = read_headers(call)?;
        let now = call.received_at.seconds();
        let off = now.saturating_sub(signed.seconds);
        if off.abs() > WINDOW {
            return Err(HookError::WrongTime(off));
        }
        if !self.is_signed(client, &signed, KEYS_KEPT).await?
            && !self.is_signed(client, &signed, KEYS_AGAIN_AFTER).await?
        {
            return Err(HookError::BadSignature);
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, until| *until >= now);
        match seen.insert(signed.signature.to_bytes(), signed.seconds.saturating_add(WINDOW)) {
            None => Ok(signed.request_id),
            Some(_) => Err(HookError::Replayed),
        }
    }

    /// Whether one of fal's keys signed it; the keys are fetched if they are older than `age`.
    async fn is_signed(&self, client: &Client, signed: &Signed, age: Duration) -> Result<bool, HookError> {
        let mut kept = self.keys.lock().await;
        if kept.as_ref().is_none_or(|kept| kept.at.elapsed() >= age) {
            let keys = fetch(client, &self.jwks_url).await.map_err(HookError::KeysUnavailable)?;
            *kept = Some(Fetched { keys, at: Instant::now() });
        }
        let keys = kept.as_ref().map(|kept| kept.keys.as_slice()).unwrap_or_default();
        Ok(keys.iter().any(|key| key.verify_strict(&signed.message, &signed.signature).is_ok()))
    }
}

fn read_headers(call: &HookCall) -> Result<Signed, HookError> {
    let header = |name: &'static str| call.headers.get(name).ok_or(HookError::Unsigned(name));
    let request_id = header("x-fal-webhook-request-id")?.clone();
    let user = header("x-fal-webhook-user-id")?;
    let time = header("x-fal-webhook-timestamp")?;
    let signature = header("x-fal-webhook-signature")?;
    let seconds = time.trim().parse().map_err(|_| HookError::Unsigned("x-fal-webhook-timestamp"))?;
    let bytes = hex::decode(signature.trim()).ok().and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
    let bytes = bytes.ok_or(HookError::Unsigned("x-fal-webhook-signature"))?;
    let message = format!("{request_id}\n{user}\n{time}\n{}", hex::encode(Sha256::digest(&call.body)));
    Ok(Signed { request_id, message: message.into_bytes(), signature: Signature::from_bytes(&bytes), seconds })
}

async fn fetch(client: &Client, url: &str) -> Result<Vec<VerifyingKey>, String> {
    let answer = client.get(url).timeout(KEYS_TIMEOUT).send().await.map_err(|fault| cause_of(&fault))?;
    if !answer.status().is_success() {
        return Err(format!("status {}", answer.status().as_u16()));
    }
    let body = read_limited(answer).await?;
    let jwks: Jwks = serde_json::from_slice(&body).map_err(|fault| fault.to_string())?;
    let read = |key: &Jwk| {
        let bytes = URL_SAFE_NO_PAD.decode(key.x.trim_end_matches('=')).ok()?;
        VerifyingKey::from_bytes(&<[u8; 32]>::try_from(bytes).ok()?).ok()
    };
    let keys: Vec<VerifyingKey> = jwks.keys.iter().filter_map(read).collect();
    if keys.is_empty() { Err("fal names no key that can be read".to_owned()) } else { Ok(keys) }
}
