//! Several keys, breakers, and fallbacks: what else is tried when something at fal is unavailable, and what is not.

use std::cell::Cell;
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    Database, House, Start, TestDatabase, eventually, fal_state, misbehave, on_both_databases, read, start_sandbox,
};

on_both_databases!(
    a_fallback_makes_the_image_where_the_first_model_is_proven_to_be_unavailable,
    a_run_that_fal_could_not_serve_goes_on_with_the_fallback_as_the_second_attempt,
    a_fallback_is_not_tried_when_the_request_is_wrong_or_its_submit_is_unclear,
    every_model_of_the_chain_is_checked_before_anything_is_booked,
    the_hold_covers_the_dearest_model_of_the_chain,
    a_crash_while_the_first_model_of_a_chain_runs_ends_with_what_came_of_that_one,
);

/// Not taken, and not worth waiting for.
fn unavailable(endpoint: &str) -> Value {
    json!({"match": {"endpoint": endpoint}, "do": {"status": 503, "headers": {"retry-after": "60"}}})
}

fn chain() -> Value {
    json!({"model": "flux/dev", "prompt": "a", "image_size": "square", "fallbacks": ["flux-1/schnell", "flux-realism"]})
}

async fn a_fallback_makes_the_image_where_the_first_model_is_proven_to_be_unavailable(kind: Database) {
    let house = House::new(kind).await;
    house.misbehave(json!([unavailable("fal-ai/flux/dev"), unavailable("fal-ai/flux-1/schnell")])).await;
    let (status, body) = house.ask(&chain()).await;
    assert_eq!((status, &body["model"]), (201, &json!("flux-realism")), "{body}");
    assert_eq!(body["meta"]["usage"]["price_usd"], "0.035000000");
    let id = body["id"].as_str().unwrap();
    let row = house.gateway.ended(id).await;
    assert_eq!((&row["model"], &row["endpoint"]), (&json!("flux-realism"), &json!("fal-ai/flux-realism")));
    assert_eq!((&row["price_usd"], &row["cost_usd"]), (&json!("0.035000000"), &json!("0.035000000")));
    let attempts = row["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 1, "only one submit was taken: {row}");
    assert_eq!((&attempts[0]["n"], &attempts[0]["outcome"]), (&json!(3), &json!("succeeded")));
    assert_eq!(house.fal_state().await["submits"], json!({"fal-ai/flux-realism": 1}));
}

async fn a_run_that_fal_could_not_serve_goes_on_with_the_fallback_as_the_second_attempt(kind: Database) {
    let house = House::new(kind).await;
    let body = json!({"detail": "No runner available", "error_type": "runner_scheduling_failure"});
    let fail = json!({"fail": {"status": 503, "error_type": "runner_scheduling_failure", "body": body}});
    house.misbehave(json!({"match": {"endpoint": "fal-ai/flux/dev"}, "do": fail})).await;
    let (status, body) = house.ask(&chain()).await;
    assert_eq!((status, &body["model"]), (201, &json!("flux-1/schnell")), "{body}");
    let row = house.gateway.ended(body["id"].as_str().unwrap()).await;
    let told = |n: usize| {
        (row["attempts"][n]["n"].clone(), row["attempts"][n]["endpoint"].clone(), row["attempts"][n]["outcome"].clone())
    };
    assert_eq!(told(0), (json!(1), json!("fal-ai/flux/dev"), json!("replaced")));
    assert_eq!(told(1), (json!(2), json!("fal-ai/flux-1/schnell"), json!("succeeded")));
    assert_eq!(row["price_usd"], "0.003000000");
    assert_eq!(house.fal_state().await["delivered_images"], 1);
}

async fn a_fallback_is_not_tried_when_the_request_is_wrong_or_its_submit_is_unclear(kind: Database) {
    let house = House::with(kind, Duration::ZERO, &[("IMAGEGATE_DEADLINE", "2s")]).await;
    house
        .misbehave(json!([
            {"match": {"prompt_contains": "refused"}, "do": {"content_policy": true}},
            {"match": {"prompt_contains": "lost"}, "do": {"drop_connection": true}},
            {"match": {"prompt_contains": "empty"}, "do": {"images": 0}},
        ]))
        .await;
    for (prompt, expected) in [("refused", 400), ("lost", 504), ("empty", 502)] {
        let mut body = chain();
        body["prompt"] = json!(prompt);
        let (status, answer) = house.ask(&body).await;
        assert_eq!(status, expected, "{answer}");
    }
    let state = house.fal_state().await;
    assert_eq!((&state["submits"], &state["misbehaviours"]), (&json!({"fal-ai/flux/dev": 2}), &json!(3)));
}

async fn every_model_of_the_chain_is_checked_before_anything_is_booked(kind: Database) {
    let house = House::new(kind).await;
    let mut body = chain();
    body["num_inference_steps"] = json!(40);
    let (status, answer) = house.ask(&body).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("num_inference_steps")), "{answer}");
    let problem = &answer["error"]["data"][0];
    assert_eq!((&problem["model"], &problem["maximum"]), (&json!("flux-1/schnell"), &json!(12)));
    assert!(answer["message"].as_str().unwrap().contains("flux-1/schnell"));
    body["fallbacks"] = json!(["no-such-model"]);
    let (status, answer) = house.ask(&body).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("fallbacks.0")), "{answer}");
    assert!(house.gateway.generations().await.is_empty());
    assert_eq!(house.fal_state().await["submits"], json!({}));
}

async fn the_hold_covers_the_dearest_model_of_the_chain(kind: Database) {
    let house = House::with(kind, Duration::from_secs(2), &[]).await;
    let mut body = chain();
    body["background"] = json!(true);
    let taken = read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::ACCEPTED).await;
    // Of 0.025, 0.003 and 0.035.
    assert_eq!(taken["price_usd"], "0.035000000");
    let row = house.gateway.ended(taken["id"].as_str().unwrap()).await;
    assert_eq!((&row["model"], &row["price_usd"]), (&json!("flux/dev"), &json!("0.025000000")));
    let quote =
        house.gateway.project(Method::POST, "/v1/images/generations/quote").json(&chain()).send().await.unwrap();
    let quote = read(quote, StatusCode::OK).await;
    assert_eq!(
        (&quote["price_usd"], &quote["fallbacks"]),
        (&json!("0.035000000"), &json!(["flux-1/schnell", "flux-realism"]))
    );
}

async fn a_crash_while_the_first_model_of_a_chain_runs_ends_with_what_came_of_that_one(kind: Database) {
    let database = TestDatabase::new(kind).await;
    let fal = start_sandbox(Duration::from_secs(10));
    let body = json!({"detail": "No runner available", "error_type": "runner_scheduling_failure"});
    let failing = json!({"fail": {"status": 503, "error_type": "runner_scheduling_failure", "body": body}});
    misbehave(&fal, json!({"match": {"prompt_contains": "fails"}, "do": failing})).await;
    let gateway = Start::new(&database.url, &fal.queue_url()).run().await;
    let mut ids = Vec::new();
    for prompt in ["is made", "fails"] {
        let mut body = chain();
        (body["prompt"], body["background"]) = (json!(prompt), json!(true));
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
    let (first, failed) = (gateway.ended(&ids[0]).await, gateway.ended(&ids[1]).await);
    // The hold was for the dearest of the three; the first one's price counts.
    assert_eq!((&first["state"], &first["model"]), (&json!("succeeded"), &json!("flux/dev")), "{first}");
    assert_eq!((&first["price_usd"], &first["cost_usd"]), (&json!("0.025000000"), &json!("0.025000000")), "{first}");
    assert_eq!((&failed["state"], &failed["price_usd"]), (&json!("failed"), &json!("0.000000000")), "{failed}");
    for row in [&first, &failed] {
        let attempts = row["attempts"].as_array().unwrap();
        assert_eq!((attempts.len(), &attempts[0]["endpoint"]), (1, &json!("fal-ai/flux/dev")), "{row}");
    }
    assert_eq!(fal_state(&fal).await["submits"], json!({"fal-ai/flux/dev": 2}), "nothing is submitted after a crash");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_file_names_fallbacks_that_count_where_the_request_names_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/catalogue/models/flux-dev.toml");
    let text = std::fs::read_to_string(file).unwrap();
    let text =
        text.replace("provider = \"fal\"", "provider = \"fal\"\nfallbacks = [\"flux-1/schnell\", \"flux-realism\"]");
    std::fs::write(folder.path().join("flux-dev.toml"), text).unwrap();
    let database = TestDatabase::new(Database::Sqlite).await;
    let fal = start_sandbox(Duration::ZERO);
    let start = Start::new(&database.url, &fal.queue_url());
    let gateway = start.with("IMAGEGATE_MODELS_DIR", folder.path().to_str().unwrap()).run().await;
    misbehave(&fal, unavailable("fal-ai/flux/dev")).await;
    // The first fallback takes at most 12 steps, so this request passes it by.
    let body = json!({"model": "flux/dev", "prompt": "a", "num_inference_steps": 40});
    let answer = read(gateway.generate(&body).send().await.unwrap(), StatusCode::CREATED).await;
    assert_eq!(answer["model"], "flux-realism");
    // A list, though empty, stands in the place of the file's own.
    let body = json!({"model": "flux/dev", "prompt": "a", "fallbacks": []});
    let alone = gateway.generate(&body).send().await.unwrap();
    assert_eq!(read(alone, StatusCode::SERVICE_UNAVAILABLE).await["error"]["code"], "service_unavailable");
    assert_eq!(fal_state(&fal).await["accepted_submits"], 1);
    let quote = gateway.project(Method::POST, "/v1/images/generations/quote").json(&body).send().await.unwrap();
    assert_eq!(read(quote, StatusCode::OK).await["fallbacks"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_fal_refuses_rests_and_another_one_works() {
    let house = House::with(Database::Sqlite, Duration::ZERO, &[("FAL_KEY", "bad:1*3,good:2,locked:3")]).await;
    for _ in 0..6 {
        let (status, body) = house.ask(&json!({"model": "flux/dev", "prompt": "a"})).await;
        assert_eq!(status, 201, "{body}");
    }
    let readiness = house.gateway.readiness().await;
    assert_eq!(readiness["status"], "degraded");
    let provider = &readiness["providers"][0];
    assert_eq!((&provider["name"], &provider["status"]), (&json!("fal"), &json!("degraded")));
    assert_eq!(provider["keys"][0]["refused_for"], json!(["fal-ai/flux/dev"]), "{provider}");
    assert_eq!((&provider["keys"][1]["state"], &provider["keys"][2]["state"]), (&json!("ready"), &json!("refused")));
    let told = readiness.to_string();
    for key in ["bad:1", "good:2", "locked:3"] {
        assert!(!told.contains(key) && !house.gateway.log().contains(key), "{told}");
    }
    // Each bad key was tried once and rests: 6 images, 8 submits.
    let state = house.fal_state().await;
    assert_eq!((&state["accepted_submits"], &state["submits"]["fal-ai/flux/dev"]), (&json!(6), &json!(8)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_key_has_its_own_limit_of_open_requests() {
    let settings = [("FAL_KEY", "one:1,two:2"), ("FAL_KEY_CONCURRENCY", "2")];
    let house = House::with(Database::Sqlite, Duration::from_millis(400), &settings).await;
    let started = Instant::now();
    let body = json!({"model": "flux/dev", "prompt": "a"});
    let answered = Cell::new(false);
    let asks = async {
        let answers = futures_util::future::join_all((0..12).map(|_| house.ask(&body))).await;
        answered.set(true);
        answers
    };
    let watch = async {
        let mut most = 0;
        while !answered.get() {
            let readiness = house.gateway.readiness().await;
            for key in readiness["providers"][0]["keys"].as_array().unwrap() {
                assert_eq!(key["limit"], 2);
                most = most.max(key["open"].as_u64().unwrap());
            }
            assert_eq!(readiness["status"], "ready", "a key at work is not ill");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        most
    };
    let (answers, most) = tokio::join!(asks, watch);
    assert!(answers.iter().all(|(status, _)| *status == 201), "{answers:?}");
    assert_eq!(most, 2);
    // Four at a time.
    assert!(started.elapsed() >= Duration::from_millis(1200), "{:?}", started.elapsed());
    assert_eq!(house.fal_state().await["accepted_submits"], 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_cannot_be_read_holds_no_place_at_the_key() {
    let house = House::with(Database::Sqlite, Duration::ZERO, &[("FAL_KEY_CONCURRENCY", "1")]).await;
    let broken = json!({"match": {"prompt_contains": "broken"}, "at": "result", "do": {"status": 500}});
    house.misbehave(broken).await;
    let (status, body) = house.ask(&json!({"model": "flux/dev", "prompt": "broken"})).await;
    assert_eq!(status, 502, "{body}");
    assert_eq!(house.gateway.readiness().await["providers"][0]["keys"][0]["open"], 0);
    let (status, body) = house.ask(&json!({"model": "flux/dev", "prompt": "whole"})).await;
    assert_eq!(status, 201, "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_fails_again_and_again_is_left_alone_and_others_work() {
    let house = House::new(Database::Sqlite).await;
    house.misbehave(unavailable("fal-ai/flux/dev")).await;
    let body = json!({"model": "flux/dev", "prompt": "a"});
    for _ in 0..8 {
        assert_eq!(house.ask(&body).await.0, 503);
    }
    assert_eq!(house.fal_state().await["misbehaviours"], 5, "after five failures nothing is sent");
    let readiness = house.gateway.readiness().await;
    assert_eq!(readiness["status"], "degraded");
    assert_eq!(readiness["providers"][0]["resting_endpoints"][0]["endpoint"], "fal-ai/flux/dev");
    assert_eq!(house.ask(&json!({"model": "flux-realism", "prompt": "a"})).await.0, 201);
    let answer = house.gateway.generate(&body).send().await.unwrap();
    let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=6).contains(&wait), "{wait}");
    let reset = house.gateway.client.delete(format!("{}/__sandbox/behaviour", house.fal.queue_url()));
    assert!(reset.send().await.unwrap().status().is_success());
    tokio::time::sleep(Duration::from_secs(wait)).await;
    assert_eq!(house.ask(&body).await.0, 201);
    assert_eq!(house.gateway.readiness().await["status"], "ready");
}
