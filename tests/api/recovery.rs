//! `kill -9` while a request runs: the next start takes it up from fal's id, charges it once, and never submits again.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{
    Database, Start, TestDatabase, eventually, fal_state, on_both_databases, read, start_sandbox, t_rex,
};

on_both_databases!(
    what_was_running_at_a_kill_is_finished_and_charged_once,
    what_fal_no_longer_knows_after_a_kill_is_free,
    a_planned_stop_finishes_what_runs,
);

async fn what_was_running_at_a_kill_is_finished_and_charged_once(kind: Database) {
    let database = TestDatabase::new(kind).await;
    let fal = start_sandbox(Duration::from_secs(10));
    let gateway = Start::new(&database.url, &fal.queue_url()).run().await;
    let mut body = t_rex();
    body["background"] = json!(true);
    let mut ids = Vec::new();
    for _ in 0..5 {
        let taken = read(gateway.generate(&body).send().await.unwrap(), StatusCode::ACCEPTED).await;
        ids.push(taken["id"].as_str().unwrap().to_owned());
    }
    eventually(Duration::from_secs(5), || async {
        let rows = gateway.generations().await;
        rows.iter().all(|row| row["fal_request_id"].is_string()).then_some(())
    })
    .await;
    gateway.kill();

    let gateway = Start::new(&database.url, &fal.queue_url()).run().await;
    for id in &ids {
        let row = gateway.ended(id).await;
        assert_eq!((&row["state"], &row["price_usd"]), (&json!("succeeded"), &json!("0.035000000")));
        let path = format!("/v1/images/generations/{id}");
        let fetched = read(gateway.project(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await;
        assert_eq!(fetched["images"][0]["width"], 1472);
    }
    assert_eq!(gateway.generations().await.len(), 5);
    assert_eq!(fal_state(&fal).await["accepted_submits"], 5);
}

async fn what_fal_no_longer_knows_after_a_kill_is_free(kind: Database) {
    let database = TestDatabase::new(kind).await;
    let fal = start_sandbox(Duration::from_mins(10));
    let gateway = Start::new(&database.url, &fal.queue_url()).run().await;
    let mut body = t_rex();
    body["background"] = json!(true);
    let taken = read(gateway.generate(&body).send().await.unwrap(), StatusCode::ACCEPTED).await;
    eventually(Duration::from_secs(5), || async {
        gateway.generations().await[0]["fal_request_id"].is_string().then_some(())
    })
    .await;
    gateway.kill();
    fal.stop().await;

    let fal = start_sandbox(Duration::ZERO);
    let gateway = Start::new(&database.url, &fal.queue_url()).run().await;
    let row = gateway.ended(taken["id"].as_str().unwrap()).await;
    assert_eq!((&row["state"], &row["price_usd"]), (&json!("failed"), &json!("0.000000000")));
    assert_eq!(fal_state(&fal).await["accepted_submits"].as_u64().unwrap(), 0);
}

async fn a_planned_stop_finishes_what_runs(kind: Database) {
    let database = TestDatabase::new(kind).await;
    let fal = start_sandbox(Duration::from_secs(4));
    let gateway = Start::new(&database.url, &fal.queue_url()).run().await;
    let request = gateway.generate(&t_rex());
    let asked = tokio::task::LocalSet::new();
    let answer = asked
        .run_until(async {
            let waiting = tokio::task::spawn_local(request.send());
            let taken = async || (fal_state(&fal).await["accepted_submits"] == 1).then_some(());
            eventually(Duration::from_secs(10), taken).await;
            assert_eq!(gateway.stop().await, 0);
            waiting.await.unwrap()
        })
        .await;
    read(answer.unwrap(), StatusCode::CREATED).await;
    let gateway = Start::new(&database.url, &fal.queue_url()).run().await;
    assert_eq!(gateway.generations().await[0]["state"], "succeeded");
}
