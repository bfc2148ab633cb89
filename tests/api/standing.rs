//! How a generation stands while it is open: its place in the queue, what its model writes, and what the books say of it.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Database, Gateway, House, eventually, on_both_databases, read, t_rex};

on_both_databases!(
    a_generation_that_waits_tells_its_place_and_one_that_runs_what_it_writes,
    a_generation_that_runs_for_long_is_running_in_the_books_too,
    a_provider_that_tells_no_logs_is_not_waited_for,
);

async fn in_background(house: &House) -> String {
    let mut wish = t_rex();
    wish["background"] = json!(true);
    let (status, taken) = house.ask(&wish).await;
    assert_eq!(status, 202, "{taken}");
    taken["id"].as_str().unwrap().to_owned()
}

async fn look(gateway: &Gateway, id: &str) -> Value {
    let path = format!("/v1/images/generations/{id}");
    read(gateway.project(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await
}

async fn until(gateway: &Gateway, id: &str, there: impl Fn(&Value) -> bool) -> Value {
    eventually(Duration::from_secs(20), || async {
        let seen = look(gateway, id).await;
        there(&seen).then_some(seen)
    })
    .await
}

async fn a_generation_that_waits_tells_its_place_and_one_that_runs_what_it_writes(kind: Database) {
    let house = House::new(kind).await;
    house.misbehave(json!({"do": {"queue_ms": 8000, "run_ms": 12_000}})).await;
    let another = house.another().await;
    let id = in_background(&house).await;
    for gateway in [&house.gateway, &another] {
        let waits = until(gateway, &id, |seen| seen["queue_position"].is_u64()).await;
        assert_eq!((&waits["state"], waits.get("logs")), (&json!("queued"), None), "{waits}");
    }
    for gateway in [&house.gateway, &another] {
        let told = |seen: &Value| seen["logs"].as_array().is_some_and(|logs| logs.len() > 1);
        let runs = until(gateway, &id, told).await;
        assert_eq!((&runs["state"], runs.get("queue_position")), (&json!("running"), None), "{runs}");
        assert_eq!((&runs["logs"][1]["message"], &runs["logs"][1]["level"]), (&json!(" 25%"), &json!("INFO")));
        assert!(!runs.to_string().contains("T-Rex"), "{runs}");
    }
    house.gateway.ended(&id).await;
    let ended = look(&house.gateway, &id).await;
    assert_eq!(ended["state"], "succeeded");
    assert!(ended.get("logs").is_none() && ended.get("queue_position").is_none(), "{ended}");
}

async fn a_generation_that_runs_for_long_is_running_in_the_books_too(kind: Database) {
    let house = House::with(kind, Duration::from_secs(12), &[]).await;
    let id = in_background(&house).await;
    let running = eventually(Duration::from_secs(20), || async {
        let path = "/v1/images/generations?state=running";
        let list = read(house.gateway.project(Method::GET, path).send().await.unwrap(), StatusCode::OK).await;
        list["data"].as_array().unwrap().first().cloned()
    })
    .await;
    assert_eq!(running["id"], id.as_str());
    assert_eq!(house.gateway.ended(&id).await["state"], "succeeded");
}

async fn a_provider_that_tells_no_logs_is_not_waited_for(kind: Database) {
    let house = House::with(kind, Duration::from_secs(20), &[]).await;
    let id = in_background(&house).await;
    until(&house.gateway, &id, |seen| seen["state"] == "running").await;
    house.misbehave(json!({"at": "status", "do": {"hang_ms": 20_000}, "times": 4})).await;
    let begun = std::time::Instant::now();
    let seen = look(&house.gateway, &id).await;
    assert_eq!((&seen["state"], &seen["logs"]), (&json!("running"), &json!([])), "{seen}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(house.gateway.ended(&id).await["state"], "succeeded");
}
