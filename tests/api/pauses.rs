//! Replicas that are paused while they work, as a machine that swaps or a virtual machine that is moved: every generation is
//! seen through by whoever can, charged once, and never given up while its image is made.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::proxy::{Mode, Proxy};
use crate::support::{
    Database, Gateway, Start, TestDatabase, eventually, fal_state, misbehave, read, start_sandbox, t_rex,
};

/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_mins(1);

async fn submit_in_background(gateway: &Gateway, count: usize) -> Vec<String> {
    let mut body = t_rex();
    body["background"] = json!(true);
    let mut ids = Vec::new();
    for _ in 0..count {
        let taken = read(gateway.generate(&body).send().await.unwrap(), StatusCode::ACCEPTED).await;
        ids.push(taken["id"].as_str().unwrap().to_owned());
    }
    ids
}

/// The replica that owns the open generations; the same for all of them.
async fn owner(database: &TestDatabase) -> Option<String> {
    let owners = database.texts("SELECT DISTINCT owner::text FROM generations WHERE settled_at IS NULL").await;
    (owners.len() == 1).then(|| owners[0].clone())
}

/// Waits until another replica than `before` owns everything that is open.
async fn adopted(database: &TestDatabase, before: &str) -> String {
    eventually(PATIENCE, || async { owner(database).await.filter(|now| now != before) }).await
}

/// Waits until the replica shows by its heartbeat that it is awake.
async fn awake(database: &TestDatabase, replica: &str) {
    let beats = || async {
        let beats = database.texts("SELECT id::text || ' ' || heartbeat_at FROM replicas").await;
        beats.into_iter().find(|beat| beat.starts_with(replica))
    };
    let before = beats().await;
    eventually(PATIENCE, || async { (beats().await != before).then_some(()) }).await;
}

async fn all_succeeded(gateway: &Gateway, ids: &[String]) -> Vec<Value> {
    let mut rows = Vec::new();
    for id in ids {
        let row = gateway.ended(id).await;
        assert_eq!((&row["state"], &row["price_usd"]), (&json!("succeeded"), &json!("0.035000000")), "{row}");
        assert!(row["fal_request_id"].is_string(), "{row}");
        let path = format!("/v1/images/generations/{id}");
        let fetched = read(gateway.project(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await;
        assert_eq!(fetched["images"][0]["width"], 1472);
        rows.push(row);
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_its_own_generations_back_follows_them_to_their_end() {
    let database = TestDatabase::new(Database::Postgres).await;
    let fal = start_sandbox(Duration::from_secs(40));
    let a = Start::new(&database.url, &fal.queue_url()).run().await;
    let b = Start::new(&database.url, &fal.queue_url()).run().await;
    let ids = submit_in_background(&b, 3).await;
    eventually(PATIENCE, || async { (fal_state(&fal).await["accepted_submits"] == 3).then_some(()) }).await;
    let of_b = eventually(PATIENCE, || owner(&database)).await;
    b.signal("STOP");
    let of_a = adopted(&database, &of_b).await;
    b.signal("CONT");
    awake(&database, &of_b).await;
    a.signal("STOP");
    assert_eq!(adopted(&database, &of_a).await, of_b);
    a.signal("CONT");
    all_succeeded(&b, &ids).await;
    assert_eq!(fal_state(&fal).await["accepted_submits"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_a_paused_replica_brings_late_is_kept_and_followed() {
    let database = TestDatabase::new(Database::Postgres).await;
    let fal = start_sandbox(Duration::from_secs(20));
    let a = Start::new(&database.url, &fal.queue_url()).run().await;
    let b = Start::new(&database.url, &fal.queue_url()).run().await;
    misbehave(&fal, json!({"do": {"hang_ms": 2_000, "after": true}})).await;
    let ids = submit_in_background(&b, 2).await;
    eventually(PATIENCE, || async { (fal_state(&fal).await["accepted_submits"] == 2).then_some(()) }).await;
    let of_b = eventually(PATIENCE, || owner(&database)).await;
    // fal has accepted both, and its answers arrive while nobody reads them.
    b.signal("STOP");
    adopted(&database, &of_b).await;
    assert!(database.texts("SELECT provider_request_id FROM attempts").await.is_empty(), "it was too late to be late");
    b.signal("CONT");
    all_succeeded(&a, &ids).await;
    assert_eq!(database.texts("SELECT provider_request_id FROM attempts").await.len(), 2);
    assert_eq!(fal_state(&fal).await["accepted_submits"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_is_stored_only_after_the_end_is_our_cost_and_its_image_can_be_fetched() {
    let database = TestDatabase::new(Database::Postgres).await;
    let (fal, wire) = (start_sandbox(Duration::ZERO), Proxy::to(&database.url).await);
    let a = Start::new(&database.url, &fal.queue_url()).with("IMAGEGATE_DEADLINE", "12s").run().await;
    let through = wire.address(&database.url);
    let b = Start::new(&through, &fal.queue_url()).with("IMAGEGATE_DEADLINE", "12s").run().await;
    misbehave(&fal, json!({"do": {"hang_ms": 2_000, "after": true}})).await;
    let ids = submit_in_background(&b, 1).await;
    eventually(PATIENCE, || async { (fal_state(&fal).await["accepted_submits"] == 1).then_some(()) }).await;
    // fal's answer reaches the replica, and the replica does not reach the database.
    wire.set(Mode::Silent);
    let row = a.ended(&ids[0]).await;
    assert_eq!((&row["state"], &row["attempts"]), (&json!("expired"), &json!([])), "{row}");
    wire.set(Mode::Open);
    let path = format!("/admin/v1/generations/{}", ids[0]);
    let late = eventually(PATIENCE, || async {
        let row = read(a.admin(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await;
        (row["cost_usd"] != "0.000000000").then_some(row)
    })
    .await;
    assert_eq!((&late["state"], &late["price_usd"]), (&json!("expired"), &json!("0.000000000")));
    assert_eq!((&late["cost_usd"], &late["settled_at"]), (&json!("0.035000000"), &row["settled_at"]));
    assert_eq!(late["attempts"].as_array().unwrap().len(), 1, "{late}");
    let path = format!("/v1/images/generations/{}", ids[0]);
    let fetched = read(a.project(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!((&fetched["state"], &fetched["images"][0]["width"]), (&json!("expired"), &json!(1472)));
}
