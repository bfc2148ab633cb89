//! fal's calls to our hook: they close the gap where a request's id was lost, and nobody else's calls do anything.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use imagegate::domain::{Clock, SystemClock};
use imagegate::sandbox;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::events::reconcile;
use crate::support::{
    Database, Gateway, Start, TestDatabase, eventually, fal_state, free_port, misbehave, on_both_databases, read,
    start_sandbox,
};

on_both_databases!(
    an_answer_that_was_lost_is_found_again_by_fals_call,
    a_crash_that_lost_the_request_id_is_mended_by_fals_call,
    a_call_with_a_false_signature_counts_for_nothing,
    a_call_ends_the_wait_for_a_submit_that_hangs,
    a_call_about_what_was_given_up_books_its_cost_and_brings_its_image,
    a_call_at_another_replica_ends_the_wait_for_a_submit_that_hangs,
);

/// A gateway that fal can call, and can be started again at the same address.
struct Reachable {
    database: TestDatabase,
    fal: sandbox::Running,
    port: u16,
}

impl Reachable {
    async fn new(kind: Database, delay: Duration) -> Self {
        Self { database: TestDatabase::new(kind).await, fal: start_sandbox(delay), port: free_port() }
    }

    fn start(&self) -> Start<'_> {
        let address = format!("127.0.0.1:{}", self.port);
        Start::new(&self.database.url, &self.fal.queue_url())
            .with("IMAGEGATE_BIND", &address)
            .with("IMAGEGATE_PUBLIC_URL", &format!("http://{address}"))
            .with("IMAGEGATE_DEADLINE", "60s")
    }
}

fn wish() -> Value {
    json!({"model": "flux/dev", "prompt": "a", "image_size": "square"})
}

async fn an_answer_that_was_lost_is_found_again_by_fals_call(kind: Database) {
    let place = Reachable::new(kind, Duration::from_millis(300)).await;
    let gateway = place.start().with("FAL_KEY", "one:1,two:2").run().await;
    let lost = json!({"drop_connection": true, "after": true, "duplicate_webhook": 2});
    misbehave(&place.fal, json!({"times": 1, "do": lost})).await;
    // Without fal's call it would end at its deadline, with 504.
    let body = read(gateway.generate(&wish()).send().await.unwrap(), StatusCode::CREATED).await;
    let row = gateway.ended(body["id"].as_str().unwrap()).await;
    assert_eq!((&row["state"], &row["price_usd"]), (&json!("succeeded"), &json!("0.025000000")));
    assert!(row["fal_request_id"].is_string());
    let state = fal_state(&place.fal).await;
    assert_eq!((&state["accepted_submits"], &state["delivered_images"]), (&json!(1), &json!(1)));
    // Calls about what went well are taken too, and change nothing.
    read(gateway.generate(&wish()).send().await.unwrap(), StatusCode::CREATED).await;
    let called = || async { (fal_state(&place.fal).await["webhooks_delivered"].as_u64() >= Some(2)).then_some(()) };
    eventually(Duration::from_secs(10), called).await;
    assert_eq!(gateway.generations().await.len(), 2);
}

async fn a_crash_that_lost_the_request_id_is_mended_by_fals_call(kind: Database) {
    let place = Reachable::new(kind, Duration::from_secs(1)).await;
    let gateway = place.start().run().await;
    // fal takes the request, and its answer is still under way when the gateway dies.
    misbehave(&place.fal, json!({"times": 1, "do": {"hang_ms": 60_000, "after": true}})).await;
    let mut body = wish();
    body["background"] = json!(true);
    let taken = read(gateway.generate(&body).send().await.unwrap(), StatusCode::ACCEPTED).await;
    let accepted = || async { (fal_state(&place.fal).await["accepted_submits"] == 1).then_some(()) };
    eventually(Duration::from_secs(5), accepted).await;
    gateway.kill();
    let gateway = place.start().run().await;
    let row = gateway.ended(taken["id"].as_str().unwrap()).await;
    assert_eq!((&row["state"], &row["price_usd"]), (&json!("succeeded"), &json!("0.025000000")), "{row}");
    assert_eq!(fal_state(&place.fal).await["accepted_submits"], 1);
}

async fn a_call_with_a_false_signature_counts_for_nothing(kind: Database) {
    let place = Reachable::new(kind, Duration::from_millis(100)).await;
    let gateway = place.start().with("IMAGEGATE_DEADLINE", "3s").run().await;
    let lost = json!({"drop_connection": true, "after": true, "bad_signature": true});
    misbehave(&place.fal, json!({"times": 1, "do": lost})).await;
    let started = Instant::now();
    let answer = gateway.generate(&wish()).send().await.unwrap();
    read(answer, StatusCode::GATEWAY_TIMEOUT).await;
    // The hook is waited for up to the deadline.
    assert!((2..25).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    let row = gateway.generations().await.remove(0);
    assert_eq!((&row["state"], &row["price_usd"]), (&json!("expired"), &json!("0.000000000")));
    let state = fal_state(&place.fal).await;
    assert_eq!((state["accepted_submits"].as_u64(), state["webhooks_delivered"].as_u64()), (Some(1), Some(0)));
    assert!(gateway.log().contains("the signature is not the provider's"));
}

async fn a_call_ends_the_wait_for_a_submit_that_hangs(kind: Database) {
    let place = Reachable::new(kind, Duration::from_millis(300)).await;
    let gateway = place.start().run().await;
    // fal has the request and the result, and its answer to the submit does not come.
    misbehave(&place.fal, json!({"times": 1, "do": {"hang_ms": 18_000, "after": true}})).await;
    let started = Instant::now();
    let body = read(gateway.generate(&wish()).send().await.unwrap(), StatusCode::CREATED).await;
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    let row = gateway.ended(body["id"].as_str().unwrap()).await;
    assert_eq!((&row["state"], &row["price_usd"]), (&json!("succeeded"), &json!("0.025000000")));
    assert_eq!(row["attempts"].as_array().unwrap().len(), 1);
    assert_eq!(fal_state(&place.fal).await["accepted_submits"], 1);
}

async fn a_call_at_another_replica_ends_the_wait_for_a_submit_that_hangs(kind: Database) {
    let place = Reachable::new(kind, Duration::from_millis(300)).await;
    let called = place.start().run().await;
    let asked = place.start().with("IMAGEGATE_BIND", "127.0.0.1:0").run().await;
    misbehave(&place.fal, json!({"times": 1, "do": {"hang_ms": 18_000, "after": true}})).await;
    let started = Instant::now();
    let body = read(asked.generate(&wish()).send().await.unwrap(), StatusCode::CREATED).await;
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    let row = called.ended(body["id"].as_str().unwrap()).await;
    assert_eq!((&row["state"], &row["price_usd"]), (&json!("succeeded"), &json!("0.025000000")));
    assert_eq!(fal_state(&place.fal).await["accepted_submits"], 1);
}

async fn a_call_about_what_was_given_up_books_its_cost_and_brings_its_image(kind: Database) {
    let place = Reachable::new(kind, Duration::from_secs(5)).await;
    let gateway = place.start().with("IMAGEGATE_DEADLINE", "2s").run().await;
    let lost = json!({"drop_connection": true, "after": true, "duplicate_webhook": 3, "queue_ms": 0, "run_ms": 5000});
    misbehave(&place.fal, json!({"times": 1, "do": lost})).await;
    let ask = || gateway.generate(&wish()).header("idempotency-key", "k").send();
    let answer = ask().await.unwrap();
    let id = answer.headers()["x-imagegate-generation-id"].to_str().unwrap().to_owned();
    read(answer, StatusCode::GATEWAY_TIMEOUT).await;
    let given_up = gateway.ended(&id).await;
    assert_eq!((&given_up["state"], &given_up["attempts"]), (&json!("expired"), &json!([])));
    let path = format!("/admin/v1/generations/{id}");
    let row = eventually(Duration::from_secs(30), || async {
        let answer = gateway.admin(reqwest::Method::GET, &path).send().await.unwrap();
        let row = read(answer, StatusCode::OK).await;
        (row["cost_usd"] != "0.000000000").then_some(row)
    })
    .await;
    // The end stands, and is free; what fal bills for it is found by its id.
    assert_eq!((&row["state"], &row["price_usd"]), (&json!("expired"), &json!("0.000000000")));
    assert_eq!((&row["cost_usd"], &row["settled_at"]), (&json!("0.025000000"), &given_up["settled_at"]));
    assert!(row["fal_request_id"].is_string());
    let path = format!("/v1/images/generations/{id}");
    let fetched = read(gateway.project(reqwest::Method::GET, &path).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(fetched["images"].as_array().map(Vec::len), Some(1), "{fetched}");
    let again = ask().await.unwrap();
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    read(again, StatusCode::GATEWAY_TIMEOUT).await;
    assert_eq!(fal_state(&place.fal).await["accepted_submits"], 1);
    let report = reconcile(&place.database.url, &place.fal, &["--from", "2026-01-01"]);
    assert_eq!(String::from_utf8(report.stdout).unwrap(), "All 1 requests agree.\n");
}

/// Our own fal, as far as keys and signatures go: whoever fetches its keys believes what it signs.
struct Authority {
    key: SigningKey,
    url: String,
}

impl Authority {
    fn new() -> Self {
        let key = SigningKey::from_bytes(&[7; 32]);
        let x = URL_SAFE_NO_PAD.encode(key.verifying_key().to_bytes());
        let jwks = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]}).to_string();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 2048]);
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", jwks.len());
                let _ = stream.write_all(format!("{head}{jwks}").as_bytes());
            }
        });
        Self { key, url }
    }

    /// A call about a request, signed `off` seconds from now.
    async fn call(&self, gateway: &Gateway, id: &str, request_id: &str, off: i64, tampered: bool) -> Response {
        let (seconds, body) =
            (SystemClock.now().seconds() + off, json!({"request_id": request_id, "status": "OK"}).to_string());
        let digest = hex::encode(Sha256::digest(body.as_bytes()));
        let signature = self.key.sign(format!("{request_id}\nme\n{seconds}\n{digest}").as_bytes());
        let sent = if tampered { format!("{body} ") } else { body };
        let call = gateway.client.post(format!("{}/fal/webhooks/{id}", gateway.base)).body(sent);
        call.header("x-fal-webhook-request-id", request_id)
            .header("x-fal-webhook-user-id", "me")
            .header("x-fal-webhook-timestamp", seconds.to_string())
            .header("x-fal-webhook-signature", hex::encode(signature.to_bytes()))
            .send()
            .await
            .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_believed_once_and_only_if_it_is_fals_own_and_of_now() {
    let database = TestDatabase::new(Database::Sqlite).await;
    let (fal, signer) = (start_sandbox(Duration::ZERO), Authority::new());
    let gateway = Start::new(&database.url, &fal.queue_url()).with("FAL_REST_URL", &signer.url).run().await;
    let body = read(gateway.generate(&wish()).send().await.unwrap(), StatusCode::CREATED).await;
    let id = body["id"].as_str().unwrap();
    let row = gateway.ended(id).await;
    let request_id = row["fal_request_id"].as_str().unwrap();
    let status = async |id: &str, request_id: &str, off: i64, tampered: bool| {
        signer.call(&gateway, id, request_id, off, tampered).await.status().as_u16()
    };
    assert_eq!(status(id, request_id, 0, true).await, 403, "another body than was signed");
    assert_eq!(status(id, request_id, -301, false).await, 403, "too old");
    assert_eq!(status(id, request_id, 900, false).await, 403, "from the future");
    assert_eq!(status(id, request_id, -200, false).await, 200);
    assert_eq!(status(id, request_id, -200, false).await, 409, "a repetition");
    assert_eq!(status(id, "another-request", 0, false).await, 403, "not this generation's");
    assert_eq!(status("img_0", request_id, 1, false).await, 404);
    let unsigned = gateway.client.post(format!("{}/fal/webhooks/{id}", gateway.base)).json(&json!({})).send().await;
    read(unsigned.unwrap(), StatusCode::FORBIDDEN).await;
    assert_eq!(gateway.ended(id).await, row, "nothing of it changed anything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_call_about_somebody_elses_request_is_not_adopted() {
    let database = TestDatabase::new(Database::Sqlite).await;
    let (fal, signer) = (start_sandbox(Duration::ZERO), Authority::new());
    let start = Start::new(&database.url, &fal.queue_url()).with("FAL_REST_URL", &signer.url);
    let gateway = start.with("IMAGEGATE_PUBLIC_URL", "http://127.0.0.1:9").with("IMAGEGATE_DEADLINE", "3s").run().await;
    misbehave(&fal, json!({"times": 1, "do": {"drop_connection": true}})).await;
    let mut body = wish();
    body["background"] = json!(true);
    let taken = read(gateway.generate(&body).send().await.unwrap(), StatusCode::ACCEPTED).await;
    let id = taken["id"].as_str().unwrap();
    let foreign = "019e1951-c778-7120-9c82-16efcf40ec82";
    assert_eq!(signer.call(&gateway, id, foreign, 0, false).await.status(), StatusCode::FORBIDDEN);
    let row = gateway.ended(id).await;
    assert_eq!((&row["state"], row.get("fal_request_id")), (&json!("expired"), None));
}
