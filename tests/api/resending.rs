//! Requests that come again: OpenAI's SDKs resend without a key after a timeout or a 5xx, and nobody pays twice.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::json;

use crate::support::{Database, Gateway, House, PROJECT_KEY, eventually, on_both_databases, read, t_rex};

on_both_databases!(
    a_resend_joins_the_first_request_whose_client_went_away_and_is_charged_once,
    a_request_that_was_given_up_while_it_was_queued_is_made_anew,
    equal_requests_in_parallel_stay_separate_images,
    after_a_failure_that_may_succeed_later_a_resend_and_the_same_key_try_again,
    nobody_submits_again_what_fal_may_have_taken,
    a_resend_after_a_kill_joins_what_the_dead_process_had_begun,
    where_the_operator_wants_it_any_equal_request_joins,
    streams_join_as_other_requests_do,
    direct_runs_of_fals_clients_join_as_other_requests_do,
);

/// As OpenAI's SDK sends it for the time `count` + 1.
fn ask(gateway: &Gateway, count: u32) -> RequestBuilder {
    gateway.generate(&t_rex()).header("x-stainless-retry-count", count.to_string())
}

/// fal begins at once and takes `millis`.
async fn run_for(house: &House, millis: u64) {
    house.misbehave(&json!({"do": {"queue_ms": 0, "run_ms": millis}})).await;
}

/// Sends it and hangs up once fal has it.
async fn hang_up_while_it_runs(house: &House) {
    hang_up(house, ask(&house.gateway, 0)).await;
}

/// Sends a request and hangs up once fal has what is made for it.
async fn hang_up(house: &House, request: RequestBuilder) {
    let before = house.gateway.generations().await.len();
    let submitted = eventually(Duration::from_secs(10), || async {
        let rows = house.gateway.generations().await;
        (rows.len() > before && rows[0]["fal_request_id"].is_string()).then_some(())
    });
    tokio::select! {
        answer = request.send() => panic!("answered before the client left: {answer:?}"),
        () = submitted => {}
    }
}

async fn a_resend_joins_the_first_request_whose_client_went_away_and_is_charged_once(kind: Database) {
    let house = House::new(kind).await;
    run_for(&house, 12_000).await;
    hang_up_while_it_runs(&house).await;
    let hung_up = ask(&house.gateway, 1).timeout(Duration::from_secs(2)).send().await;
    assert!(hung_up.unwrap_err().is_timeout());
    // At another replica, too.
    let other = house.another().await;
    let answer = ask(&other, 2).send().await.unwrap();
    assert_eq!(answer.headers()["idempotent-replayed"], "true");
    read(answer, StatusCode::CREATED).await;
    let rows = house.gateway.generations().await;
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["state"], &rows[0]["price_usd"]), (&json!("succeeded"), &json!("0.035000000")));
    assert_eq!(house.fal_state().await["accepted_submits"], 1);
    // It has been answered: the next one is another image.
    house.misbehave(&json!([])).await;
    // That it was is written after the answer.
    eventually(Duration::from_secs(5), || async {
        let next = ask(&house.gateway, 1).send().await.unwrap();
        let is_another = !next.headers().contains_key("idempotent-replayed");
        read(next, StatusCode::CREATED).await;
        is_another.then_some(())
    })
    .await;
    assert_eq!(house.gateway.generations().await.len(), 2);
}

async fn a_request_that_was_given_up_while_it_was_queued_is_made_anew(kind: Database) {
    let house = House::new(kind).await;
    house.misbehave(&json!({"times": 1, "do": {"queue_ms": 600_000, "run_ms": 0}})).await;
    hang_up_while_it_runs(&house).await;
    let answer = ask(&house.gateway, 1).send().await.unwrap();
    assert!(!answer.headers().contains_key("idempotent-replayed"));
    read(answer, StatusCode::CREATED).await;
    let mut states: Vec<_> = Vec::new();
    for row in house.gateway.generations().await {
        states.push(house.gateway.ended(row["id"].as_str().unwrap()).await["state"].clone());
    }
    assert_eq!(states, [json!("succeeded"), json!("cancelled")]);
    assert_eq!(house.fal_state().await["made_images"], 1);
}

async fn equal_requests_in_parallel_stay_separate_images(kind: Database) {
    let house = House::new(kind).await;
    run_for(&house, 2000).await;
    let calls = [0, 0, 0, 1, 2].map(|count| ask(&house.gateway, count).send());
    for answer in join_all(calls).await {
        read(answer.unwrap(), StatusCode::CREATED).await;
    }
    assert_eq!(house.gateway.generations().await.len(), 5);
}

async fn after_a_failure_that_may_succeed_later_a_resend_and_the_same_key_try_again(kind: Database) {
    let house = House::new(kind).await;
    let fails = json!({"times": 1, "do": {"fail": {"status": 500}}});
    let key = |gateway: &Gateway| gateway.generate(&t_rex()).header("idempotency-key", "k").send();
    house.misbehave(&fails).await;
    read(ask(&house.gateway, 0).send().await.unwrap(), StatusCode::BAD_GATEWAY).await;
    read(ask(&house.gateway, 1).send().await.unwrap(), StatusCode::CREATED).await;
    house.misbehave(&fails).await;
    read(key(&house.gateway).await.unwrap(), StatusCode::BAD_GATEWAY).await;
    let again = key(&house.gateway).await.unwrap();
    assert!(!again.headers().contains_key("idempotent-replayed"));
    read(again, StatusCode::CREATED).await;
    // What will never succeed is replayed.
    let mut refused = t_rex();
    refused["prompt"] = json!(format!("a {} scene", imagegate::sandbox::REFUSE_WORD));
    for replayed in [false, true] {
        let answer = house.gateway.generate(&refused).header("idempotency-key", "r").send().await.unwrap();
        assert_eq!(answer.headers().contains_key("idempotent-replayed"), replayed);
        read(answer, StatusCode::BAD_REQUEST).await;
    }
    let charged = house.gateway.generations().await;
    assert_eq!(charged.iter().filter(|row| row["price_usd"] == "0.035000000").count(), 2);
}

async fn nobody_submits_again_what_fal_may_have_taken(kind: Database) {
    let house = House::with(kind, Duration::ZERO, &[("IMAGEGATE_DEADLINE", "2s")]).await;
    house.misbehave(&json!({"at": "submit", "do": {"drop_connection": true, "after": true}})).await;
    let key = || house.gateway.generate(&t_rex()).header("idempotency-key", "k").send();
    let first = key().await.unwrap();
    let id = first.headers()["x-imagegate-generation-id"].clone();
    read(first, StatusCode::GATEWAY_TIMEOUT).await;
    let row = house.gateway.ended(id.to_str().unwrap()).await;
    assert_eq!((&row["state"], &row["price_usd"]), (&json!("expired"), &json!("0.000000000")));
    let again = key().await.unwrap();
    assert_eq!(
        (&again.headers()["idempotent-replayed"], &again.headers()["x-imagegate-generation-id"]),
        (&"true".parse().unwrap(), &id)
    );
    read(again, StatusCode::GATEWAY_TIMEOUT).await;
    assert_eq!(house.fal_state().await["accepted_submits"], 1);
    // So does a resend without a key, as often as it comes.
    let first = ask(&house.gateway, 0).send().await.unwrap();
    let id = first.headers()["x-imagegate-generation-id"].clone();
    read(first, StatusCode::GATEWAY_TIMEOUT).await;
    for count in [1, 2] {
        let again = ask(&house.gateway, count).send().await.unwrap();
        assert_eq!(again.headers()["x-imagegate-generation-id"], id);
        read(again, StatusCode::GATEWAY_TIMEOUT).await;
    }
    assert_eq!(house.fal_state().await["accepted_submits"], 2);
    for row in house.gateway.generations().await {
        house.gateway.ended(row["id"].as_str().unwrap()).await;
    }
}

async fn a_resend_after_a_kill_joins_what_the_dead_process_had_begun(kind: Database) {
    let mut house = House::new(kind).await;
    run_for(&house, 10_000).await;
    let other = house.another().await;
    let request = ask(&house.gateway, 0);
    let client = async {
        assert!(request.send().await.is_err(), "the process was killed");
    };
    let killer = async {
        eventually(Duration::from_secs(5), || async {
            let rows = other.generations().await;
            rows.first().is_some_and(|row| row["fal_request_id"].is_string()).then_some(())
        })
        .await;
        house.gateway.kill_now();
    };
    tokio::join!(client, killer);
    let answer = ask(&other, 1).send().await.unwrap();
    assert_eq!(answer.headers()["idempotent-replayed"], "true");
    read(answer, StatusCode::CREATED).await;
    assert_eq!(other.generations().await.len(), 1);
    assert_eq!(house.fal_state().await["accepted_submits"], 1);
}

/// `ComfyUI`, the AI SDK and httpx send the same body again without a word when a proxy has cut the first.
async fn where_the_operator_wants_it_any_equal_request_joins(kind: Database) {
    let house = House::new(kind).await;
    run_for(&house, 4000).await;
    let gateway = &house.gateway;
    let plain = || gateway.generate(&t_rex());
    let replayed = async |request: RequestBuilder| {
        let answer = request.send().await.unwrap();
        let replayed = answer.headers().contains_key("idempotent-replayed");
        read(answer, StatusCode::CREATED).await;
        replayed
    };
    // Off unless somebody says so.
    assert_eq!(gateway.set_project(&json!({})).await["join_retries"], json!(null));
    hang_up(&house, plain()).await;
    assert!(!replayed(plain()).await);
    assert_eq!(house.fal_state().await["accepted_submits"], 2);

    assert_eq!(gateway.set_project(&json!({"join_retries": true})).await["join_retries"], true);
    let mut other = t_rex();
    other["seed"] = json!(7);
    hang_up(&house, gateway.generate(&other)).await;
    assert!(!replayed(plain()).await, "another body");
    let mut of_another = other.clone();
    of_another["user"] = json!("bob");
    assert!(!replayed(gateway.generate(&of_another)).await, "another user");
    assert!(replayed(gateway.generate(&other)).await);
    assert_eq!(house.fal_state().await["accepted_submits"], 5);
    // It has its answer: the next one is another image.
    eventually(Duration::from_secs(10), || async { (!replayed(gateway.generate(&other)).await).then_some(()) }).await;

    // A key may say otherwise.
    let row = gateway.generations().await.remove(0);
    let path = format!("/admin/v1/keys/{}", row["api_key_id"].as_str().unwrap());
    let key = gateway.admin(Method::PATCH, &path).json(&json!({"join_retries": false})).send().await.unwrap();
    assert_eq!(read(key, StatusCode::OK).await["join_retries"], false);
    hang_up(&house, plain()).await;
    assert!(!replayed(plain()).await);
    for row in gateway.generations().await {
        gateway.ended(row["id"].as_str().unwrap()).await;
    }
}

async fn streams_join_as_other_requests_do(kind: Database) {
    let house = House::new(kind).await;
    run_for(&house, 4000).await;
    house.gateway.set_project(&json!({"join_retries": true})).await;
    let mut body = t_rex();
    body["stream"] = json!(true);
    // It has its headers and some events, and goes away.
    let begun = house.gateway.generate(&body).send().await.unwrap();
    eventually(Duration::from_secs(10), || async {
        house.gateway.generations().await[0]["fal_request_id"].is_string().then_some(())
    })
    .await;
    drop(begun);
    // Here, and at another replica.
    let other = house.another().await;
    let again = house.gateway.generate(&body).send().await.unwrap();
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    drop(again);
    let again = other.generate(&body).send().await.unwrap();
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    let events = again.text().await.unwrap();
    assert!(events.contains("event: image_generation.completed"), "{events}");
    assert!(events.contains("event: image_generation.settled"), "{events}");
    let row = house.gateway.generations().await.remove(0);
    assert_eq!((&row["state"], &row["price_usd"]), (&json!("succeeded"), &json!("0.035000000")));
    assert_eq!(house.gateway.generations().await.len(), 1);
    assert_eq!(house.fal_state().await["accepted_submits"], 1);
    // It has been answered: the next one is another image.
    run_for(&house, 0).await;
    let next = house.gateway.generate(&body).send().await.unwrap();
    assert!(!next.headers().contains_key("idempotent-replayed"));
    assert!(next.text().await.unwrap().contains("event: image_generation.settled"));
    assert_eq!(house.gateway.generations().await.len(), 2);
}

async fn direct_runs_of_fals_clients_join_as_other_requests_do(kind: Database) {
    let house = House::new(kind).await;
    run_for(&house, 4000).await;
    house.gateway.set_project(&json!({"join_retries": true})).await;
    let run = || {
        let request = house.gateway.request(Method::POST, "/fal/run/fal-ai/flux/dev");
        request.header("authorization", format!("Key {PROJECT_KEY}")).json(&json!({"prompt": "a"}))
    };
    hang_up(&house, run()).await;
    let again = run().send().await.unwrap();
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(read(again, StatusCode::OK).await["images"].as_array().unwrap().len(), 1);
    assert_eq!(house.gateway.generations().await.len(), 1);
    assert_eq!(house.fal_state().await["accepted_submits"], 1);
}
