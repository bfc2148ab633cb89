//! `stream: true`: events in OpenAI's form, what happens when the client leaves, errors within the stream.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Database, House, on_both_databases, read, t_rex};

on_both_databases!(
    a_stream_tells_the_way_the_images_and_the_price,
    what_is_refused_before_it_begins_is_an_ordinary_error,
    a_failure_on_the_way_is_an_event,
    a_client_that_leaves_the_stream_while_queued_pays_nothing,
    the_same_idempotency_key_streams_the_same_image,
);

fn events(text: &str) -> Vec<Value> {
    text.split("\n\n")
        .filter(|block| block.contains("data: "))
        .map(|block| {
            let name = block.lines().find_map(|line| line.strip_prefix("event: ")).unwrap();
            let data: Value =
                serde_json::from_str(block.lines().find_map(|line| line.strip_prefix("data: ")).unwrap()).unwrap();
            assert_eq!(data["type"], name);
            data
        })
        .collect()
}

fn streamed(body: Value) -> Value {
    let mut body = body;
    body["stream"] = json!(true);
    body
}

async fn a_stream_tells_the_way_the_images_and_the_price(kind: Database) {
    use base64::Engine;
    let house = House::with(kind, Duration::from_millis(800), &[]).await;
    let body = json!({"model": "flux/dev", "prompt": "a", "n": 2, "foo": 1});
    let answer = house.gateway.generate(&streamed(body)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    assert_eq!(answer.headers()["x-imagegate-ignored"], "foo");
    let id = answer.headers()["x-imagegate-generation-id"].to_str().unwrap().to_owned();
    let events = events(&answer.text().await.unwrap());
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds[0], "image_generation.queued");
    assert!(kinds.contains(&"image_generation.in_progress"), "{kinds:?}");
    assert_eq!(
        kinds[kinds.len() - 3..],
        ["image_generation.completed", "image_generation.completed", "image_generation.settled"]
    );
    for (index, event) in events.iter().filter(|event| event["type"] == "image_generation.completed").enumerate() {
        let file = base64::engine::general_purpose::STANDARD.decode(event["b64_json"].as_str().unwrap()).unwrap();
        assert_eq!(image::load_from_memory(&file).unwrap().width(), 1024);
        assert_eq!((&event["size"], &event["output_format"]), (&json!("1024x768"), &json!("jpeg")));
        assert_eq!((&event["image_index"], &event["generation_id"]), (&json!(index), &json!(id)));
    }
    let settled = events.last().unwrap();
    assert_eq!(settled["meta"]["usage"]["price_usd"], "0.050000000");
    assert_eq!((&settled["meta"]["ignored"], &settled["model"]), (&json!(["foo"]), &json!("flux/dev")));
    assert_eq!(house.gateway.generations().await[0]["state"], "succeeded");
}

async fn what_is_refused_before_it_begins_is_an_ordinary_error(kind: Database) {
    let house = House::new(kind).await;
    let wrong =
        house.gateway.generate(&streamed(json!({"model": "flux/dev", "prompt": "a", "n": 9}))).send().await.unwrap();
    read(wrong, StatusCode::BAD_REQUEST).await;
    let both = streamed(json!({"model": "flux/dev", "prompt": "a", "background": true}));
    read(house.gateway.generate(&both).send().await.unwrap(), StatusCode::BAD_REQUEST).await;
    assert!(house.gateway.generations().await.is_empty());
}

async fn a_failure_on_the_way_is_an_event(kind: Database) {
    let house = House::new(kind).await;
    let body = streamed(json!({"model": "flux/dev", "prompt": "sandbox-refuse"}));
    let answer = house.gateway.generate(&body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let events = events(&answer.text().await.unwrap());
    let last = events.last().unwrap();
    assert_eq!((&last["type"], &last["status"]), (&json!("error"), &json!(400)));
    assert_eq!(last["error"]["code"], "content_policy_violation");
}

async fn a_client_that_leaves_the_stream_while_queued_pays_nothing(kind: Database) {
    let house = House::with(kind, Duration::from_secs(8), &[]).await;
    let answer = house.gateway.generate(&streamed(t_rex())).send().await.unwrap();
    let id = answer.headers()["x-imagegate-generation-id"].to_str().unwrap().to_owned();
    drop(answer);
    let row = house.gateway.ended(&id).await;
    assert_eq!((&row["state"], &row["price_usd"]), (&json!("cancelled"), &json!("0.000000000")));
}

async fn the_same_idempotency_key_streams_the_same_image(kind: Database) {
    let house = House::new(kind).await;
    let ask = || {
        house
            .gateway
            .project(Method::POST, "/v1/images/generations")
            .json(&streamed(t_rex()))
            .header("idempotency-key", "s")
    };
    let first = events(&ask().send().await.unwrap().text().await.unwrap());
    let again = ask().send().await.unwrap();
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    let again = events(&again.text().await.unwrap());
    assert_eq!(first.last().unwrap()["id"], again.last().unwrap()["id"]);
    assert_eq!(house.gateway.generations().await.len(), 1);
}
