//! fal's webhooks: what they say, and that their signature is good.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::fal::{Fal, text};

#[derive(Debug, Clone)]
struct Hook {
    body: Vec<u8>,
    headers: [String; 4],
}

impl Hook {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Takes webhooks; answers the first `failures` of them with 500.
struct Listener {
    url: String,
    hooks: Arc<Mutex<Vec<Hook>>>,
}

impl Listener {
    fn failing(failures: usize) -> Self {
        let hooks: Arc<Mutex<Vec<Hook>>> = Arc::default();
        let kept = Arc::clone(&hooks);
        let server = HttpServer::new(move || {
            let kept = Arc::clone(&kept);
            let take = move |request: HttpRequest, body: web::Bytes| {
                let header = |name: &str| request.headers().get(name).unwrap().to_str().unwrap().to_owned();
                let names = ["request-id", "user-id", "timestamp", "signature"];
                let headers = names.map(|name| header(&format!("x-fal-webhook-{name}")));
                let mut hooks = kept.lock().unwrap();
                hooks.push(Hook { body: body.to_vec(), headers });
                let failed = hooks.len() <= failures;
                std::future::ready(
                    if failed { HttpResponse::InternalServerError() } else { HttpResponse::Ok() }.finish(),
                )
            };
            App::new().route("/hook", web::post().to(take))
        });
        let server = server.workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", server.addrs()[0]);
        actix_web::rt::spawn(server.run());
        Self { url, hooks }
    }

    async fn take(&self, count: usize) -> Vec<Hook> {
        for _ in 0..10_000 {
            let hooks = self.hooks.lock().unwrap().clone();
            if hooks.len() >= count {
                return hooks;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let came = self.hooks.lock().unwrap().clone();
        assert!(came.len() >= count, "only {} of {count} webhooks came", came.len());
        came
    }
}

async fn submit(fal: &Fal, listener: &Listener, body: &Value) -> Value {
    let path = format!("/fal-ai/flux/dev?fal_webhook={}", listener.url.replace(':', "%3A").replace('/', "%2F"));
    fal.call(Method::POST, &path, Some(body)).await.json().await.unwrap()
}

async fn is_signed(fal: &Fal, hook: &Hook) -> bool {
    let keys: Value = fal.get(&format!("{}/.well-known/jwks.json", fal.running.rest_url())).await.json().await.unwrap();
    let key = URL_SAFE_NO_PAD.decode(text(&keys["keys"][0], "x")).unwrap();
    let key = VerifyingKey::from_bytes(&key.try_into().unwrap()).unwrap();
    let [id, user, time, signature] = &hook.headers;
    let message = format!("{id}\n{user}\n{time}\n{}", hex::encode(Sha256::digest(&hook.body)));
    let signature = Signature::from_slice(&hex::decode(signature).unwrap()).unwrap();
    key.verify(message.as_bytes(), &signature).is_ok()
}

#[actix_web::test]
async fn a_finished_request_is_told_signed_and_again_until_it_is_taken() {
    let fal = Fal::delayed(Duration::from_millis(50));
    let listener = Listener::failing(1);
    let submitted = submit(&fal, &listener, &json!({"prompt": "a", "seed": 7})).await;
    let hooks = listener.take(2).await;
    assert_eq!(hooks[0].body, hooks[1].body);
    assert!(is_signed(&fal, &hooks[1]).await);
    assert_eq!(hooks[1].headers[0], text(&submitted, "request_id"));
    let hook = hooks[1].json();
    assert_eq!((&hook["status"], &hook["request_id"]), (&json!("OK"), &submitted["request_id"]));
    assert_eq!(hook["gateway_request_id"], submitted["request_id"]);
    let result: Value = fal.get(text(&submitted, "response_url")).await.json().await.unwrap();
    assert_eq!(hook["payload"], result);
}

#[actix_web::test]
async fn a_failed_request_is_told_with_its_status_and_body() {
    let fal = Fal::delayed(Duration::ZERO);
    let listener = Listener::failing(0);
    submit(&fal, &listener, &json!({})).await;
    let hook = listener.take(1).await[0].json();
    assert_eq!((&hook["status"], &hook["error"]), (&json!("ERROR"), &json!("Invalid status code: 422")));
    assert_eq!(hook["payload"]["detail"][0]["type"], "missing");
}

#[actix_web::test]
async fn a_rule_duplicates_a_webhook_or_spoils_its_signature() {
    let fal = Fal::delayed(Duration::ZERO);
    let listener = Listener::failing(0);
    fal.misbehave(json!({"times": 1, "do": {"duplicate_webhook": 2, "bad_signature": true}})).await;
    submit(&fal, &listener, &json!({"prompt": "a"})).await;
    let hooks = listener.take(3).await;
    assert!(!is_signed(&fal, &hooks[0]).await);
    assert_eq!(hooks[0].json(), hooks[2].json());
}

#[actix_web::test]
async fn a_request_taken_out_of_the_queue_is_not_told() {
    let fal = Fal::delayed(Duration::ZERO);
    let listener = Listener::failing(0);
    fal.misbehave(json!({"times": 1, "do": {"queue_ms": 2_000, "run_ms": 0}})).await;
    let cancelled = submit(&fal, &listener, &json!({"prompt": "a"})).await;
    assert_eq!(fal.call(Method::PUT, text(&cancelled, "cancel_url"), None).await.status(), 202);
    submit(&fal, &listener, &json!({"prompt": "b"})).await;
    assert_eq!(listener.take(1).await[0].json()["payload"]["prompt"], "b");
}
