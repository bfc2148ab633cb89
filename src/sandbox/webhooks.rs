//! fal's webhooks: sent when a request has come to its end, signed with the stand-in's own key.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::jobs::Job;
use super::queue::told;
use super::run::completed;
use super::{Sandbox, SandboxError, answers};
use crate::domain::IdSource;

/// How long one delivery may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How often one delivery is tried; between two tries the wait doubles, from half a second on.
const TRIES: u32 = 10;
/// Longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_mins(2);
/// Most copies that a rule can ask for.
const MOST_COPIES: u32 = 10;
/// Deliveries at a time.
const AT_A_TIME: usize = 32;
/// The account that all webhooks are sent for.
const USER: &str = "sandbox-user";

/// Signs and sends.
#[derive(Debug)]
pub struct Sender {
    key: SigningKey,
    http: reqwest::Client,
    turns: Semaphore,
}

impl Sender {
    /// With a new key. Errors if the system has no random bytes or no client can be built.
    pub fn new(ids: &dyn IdSource) -> Result<Self, SandboxError> {
        // Someone else may have chosen the process's provider already: then theirs counts.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(Policy::none())
            .build()
            .map_err(|error| SandboxError::Webhooks(error.to_string()))?;
        let secret = ids.secret().map_err(|error| SandboxError::Webhooks(error.to_string()))?;
        Ok(Self { key: SigningKey::from_bytes(&secret), http, turns: Semaphore::new(AT_A_TIME) })
    }

    /// fal's four headers. The signature is over request id, user, time and the body's digest, one a line.
    fn headers(&self, job: &Job, seconds: i64, body: &[u8]) -> [(&'static str, String); 4] {
        let id = job.id.to_string();
        let message = format!("{id}\n{USER}\n{seconds}\n{}", hex::encode(Sha256::digest(body)));
        let mut signature = self.key.sign(message.as_bytes()).to_bytes();
        if job.fate.bad_signature {
            signature[0] ^= 1;
        }
        [
            ("x-fal-webhook-request-id", id),
            ("x-fal-webhook-user-id", USER.to_owned()),
            ("x-fal-webhook-timestamp", seconds.to_string()),
            ("x-fal-webhook-signature", hex::encode(signature)),
        ]
    }
}

/// `GET /.well-known/jwks.json`: the key that webhooks are signed with.
pub async fn get_keys(sandbox: web::Data<Sandbox>) -> HttpResponse {
    let key = URL_SAFE_NO_PAD.encode(sandbox.webhooks.key.verifying_key().as_bytes());
    let keys =
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "sandbox", "x": key}]});
    answers::json(200, &keys)
}

/// The webhook that a submit asks for.
pub fn asked_for(request: &HttpRequest) -> Option<String> {
    let query = url::form_urlencoded::parse(request.query_string().as_bytes());
    let mut urls = query.filter(|(name, _)| name == "fal_webhook");
    urls.next().map(|(_, url)| url.into_owned())
}

/// Sends the webhook, and the copies that a rule asks for, once the request has come to its end. One that was taken out
/// of the queue has none.
pub fn promise(sandbox: &web::Data<Sandbox>, job: &Arc<Job>, url: String) {
    if job.fate.no_webhook {
        return;
    }
    let (sandbox, job) = (sandbox.clone(), Arc::clone(job));
    let copies = job.fate.duplicate_webhook.min(MOST_COPIES);
    actix_web::rt::spawn(async move {
        completed(&sandbox, &job).await;
        if job.left_the_queue() {
            return;
        }
        let body = Bytes::from(payload(&sandbox, &job).await.to_string());
        for _ in 0..=copies {
            deliver(&sandbox, &job, &url, &body).await;
        }
    });
}

async fn payload(sandbox: &Sandbox, job: &Job) -> Value {
    let output = match job.outcome() {
        Ok(plan) => told(sandbox, job, plan).await.ok_or_else(|| (500, json!({"detail": "Internal Server Error"}))),
        Err(refusal) => Err((refusal.status, refusal.body.clone())),
    };
    match output {
        Ok(output) => {
            json!({"request_id": job.id, "gateway_request_id": job.id, "status": "OK", "payload": *output})
        }
        Err((status, body)) => json!({
            "request_id": job.id,
            "gateway_request_id": job.id,
            "status": "ERROR",
            "error": format!("Invalid status code: {status}"),
            "payload": body,
        }),
    }
}

/// Tries until it is answered with a 2xx; a redirect is final.
async fn deliver(sandbox: &Sandbox, job: &Job, url: &str, body: &Bytes) {
    let mut wait = Duration::from_millis(500);
    for _ in 0..TRIES {
        let Ok(turn) = sandbox.webhooks.turns.acquire().await else {
            return;
        };
        let seconds = sandbox.clock.now().seconds();
        let mut call = sandbox.webhooks.http.post(url).header("content-type", "application/json");
        for (name, value) in sandbox.webhooks.headers(job, seconds, body) {
            call = call.header(name, value);
        }
        sandbox.tally.counts().webhooks_sent += 1;
        let status = call.body(body.clone()).send().await.map(|answer| answer.status());
        drop(turn);
        match status {
            Ok(status) if status.is_success() => {
                sandbox.tally.counts().webhooks_delivered += 1;
                return;
            }
            Ok(status) if status.is_redirection() => return,
            Ok(_) | Err(_) => tokio::time::sleep(wait).await,
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}
