//! Who pays when a client hangs up, cancels, or waits past the deadline.

use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::json;

use crate::support::{Database, House, eventually, on_both_databases, read, t_rex};

on_both_databases!(
    a_client_that_hangs_up_while_it_is_queued_pays_nothing,
    with_an_idempotency_key_it_runs_on_and_is_fetched_by_the_same_key,
    a_delete_while_queued_is_free,
    past_its_deadline_the_answer_names_the_generation_which_is_given_up_or_charged,
    the_deadline_is_kept_however_slow_or_strange_the_provider_is,
);

/// Long enough that the stand-in still has it queued when the client leaves.
const SLOW: Duration = Duration::from_mins(10);

/// Sends a request and hangs up as soon as the books know of it; the generation's id.
async fn hang_up(house: &House, request: RequestBuilder) -> String {
    let booked = eventually(Duration::from_secs(20), || async {
        house.gateway.generations().await.first().map(|row| row["id"].as_str().unwrap().to_owned())
    });
    tokio::select! {
        answer = request.send() => panic!("answered before the client left: {answer:?}"),
        id = booked => id,
    }
}

async fn a_client_that_hangs_up_while_it_is_queued_pays_nothing(kind: Database) {
    let house = House::with(kind, SLOW, &[]).await;
    let id = hang_up(&house, house.gateway.generate(&t_rex())).await;
    let row = house.gateway.ended(&id).await;
    assert_eq!((&row["state"], &row["price_usd"]), (&json!("cancelled"), &json!("0.000000000")));
    assert_eq!(house.fal_state().await["made_images"].as_u64().unwrap(), 0);
}

async fn with_an_idempotency_key_it_runs_on_and_is_fetched_by_the_same_key(kind: Database) {
    let house = House::with(kind, Duration::from_secs(2), &[]).await;
    let ask = || house.gateway.generate(&t_rex()).header("idempotency-key", "mine");
    hang_up(&house, ask()).await;
    let answer = ask().send().await.unwrap();
    assert_eq!(answer.headers()["idempotent-replayed"], "true");
    read(answer, StatusCode::CREATED).await;
    let rows = house.gateway.generations().await;
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["state"], &rows[0]["price_usd"]), (&json!("succeeded"), &json!("0.035000000")));
}

async fn a_delete_while_queued_is_free(kind: Database) {
    let house = House::with(kind, SLOW, &[]).await;
    let mut body = t_rex();
    body["background"] = json!(true);
    let taken = read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::ACCEPTED).await;
    let path = format!("/v1/images/generations/{}", taken["id"].as_str().unwrap());
    let answer = read(house.gateway.project(Method::DELETE, &path).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!((&answer["state"], &answer["price_usd"]), (&json!("cancelled"), &json!("0.000000000")));
    let again = read(house.gateway.project(Method::DELETE, &path).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(again["state"], "cancelled");
}

async fn past_its_deadline_the_answer_names_the_generation_which_is_given_up_or_charged(kind: Database) {
    let house = House::with(kind, Duration::from_secs(4), &[("IMAGEGATE_DEADLINE", "1s")]).await;
    let answer = house.gateway.generate(&t_rex()).send().await.unwrap();
    let id = answer.headers()["x-imagegate-generation-id"].to_str().unwrap().to_owned();
    let body = read(answer, StatusCode::GATEWAY_TIMEOUT).await;
    assert_eq!(body["error"]["code"], "deadline_exceeded");
    assert!(body["message"].as_str().unwrap().contains(&id));
    let row = eventually(Duration::from_secs(20), || async {
        let row = house.gateway.ended(&id).await;
        Some(row)
    })
    .await;
    let pictures = house.fal_state().await["made_images"].as_u64().unwrap();
    match row["state"].as_str().unwrap() {
        "expired" => assert_eq!((&row["price_usd"], pictures), (&json!("0.000000000"), 0)),
        "succeeded" => assert_eq!((&row["price_usd"], pictures), (&json!("0.035000000"), 1)),
        other => panic!("a generation past its deadline is `{other}`"),
    }
}

async fn the_deadline_is_kept_however_slow_or_strange_the_provider_is(kind: Database) {
    let house = House::with(kind, Duration::ZERO, &[("IMAGEGATE_DEADLINE", "2s")]).await;
    let strange = json!({"status": 200, "body": {"status": "EXPLODED"}});
    let unreadable = json!({"status": 200, "body": "garbage{"});
    let faults = [
        ("slow-result", json!({"at": "result", "times": 1, "do": {"hang_ms": 40_000}})),
        ("slow-status", json!({"at": "status", "times": 1, "do": {"hang_ms": 40_000}})),
        // Each of the waits between these looks is longer than the one before.
        ("strange-status", json!({"at": "status", "times": 5, "do": strange})),
        ("unreadable-result", json!({"at": "result", "times": 5, "do": unreadable})),
    ];
    for (word, rule) in &faults {
        let mut rule = rule.clone();
        rule["match"] = json!({"prompt_contains": word});
        house.misbehave(rule).await;
    }
    let asks = faults.iter().map(|(word, _)| {
        let house = &house;
        async move {
            let began = Instant::now();
            let body = json!({"model": "flux/dev", "prompt": word, "image_size": "square"});
            let answer = house.gateway.generate(&body).send().await.unwrap();
            let took = began.elapsed();
            let id = answer.headers()["x-imagegate-generation-id"].to_str().unwrap().to_owned();
            let body = read(answer, StatusCode::GATEWAY_TIMEOUT).await;
            assert_eq!(body["error"]["code"], "deadline_exceeded", "{word}");
            assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(20), "{word} took {took:?}");
            // It was delivered all the same, is charged, and can be fetched.
            (word, house.gateway.ended(&id).await)
        }
    });
    for (word, row) in futures_util::future::join_all(asks).await {
        assert_eq!((&row["state"], &row["price_usd"]), (&json!("succeeded"), &json!("0.025000000")), "{word}");
    }
}
