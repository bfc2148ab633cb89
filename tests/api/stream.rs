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
    unfinished_images_are_shown_where_the_model_has_them,
    a_stream_that_is_lost_on_the_way_is_free_and_says_so,
    what_cannot_be_streamed_goes_by_the_queue_without_previews,
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
    let house = House::with(kind, Duration::from_secs(4), &[]).await;
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
    assert_eq!(last["error"]["data"]["categories"], json!(["violence"]));
}

async fn a_client_that_leaves_the_stream_while_queued_pays_nothing(kind: Database) {
    let house = House::with(kind, Duration::from_mins(10), &[]).await;
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

fn with_previews(model: &str, prompt: &str, count: u32) -> Value {
    streamed(json!({"model": model, "prompt": prompt, "image_size": "square", "partial_images": count}))
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap().trim_start_matches("image_generation.")).collect()
}

async fn unfinished_images_are_shown_where_the_model_has_them(kind: Database) {
    use base64::Engine;
    let house = House::with(kind, Duration::from_secs(2), &[]).await;
    let answer = house.gateway.generate(&with_previews("flux/dev", "a", 2)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let id = answer.headers()["x-imagegate-generation-id"].to_str().unwrap().to_owned();
    let events = events(&answer.text().await.unwrap());
    // The stand-in shows three; two were asked for.
    let told: Vec<&str> = kinds(&events).into_iter().filter(|kind| !["queued", "in_progress"].contains(kind)).collect();
    assert_eq!(told, ["partial_image", "partial_image", "completed", "settled"]);
    let partial: Vec<&Value> =
        events.iter().filter(|event| event["type"] == "image_generation.partial_image").collect();
    let mut width = 0;
    for (index, event) in partial.iter().enumerate() {
        let file = base64::engine::general_purpose::STANDARD.decode(event["b64_json"].as_str().unwrap()).unwrap();
        let preview = image::load_from_memory(&file).unwrap();
        assert!(width < preview.width() && preview.width() < 512, "they become larger");
        width = preview.width();
        assert_eq!((&event["partial_image_index"], &event["generation_id"]), (&json!(index), &json!(id)));
    }
    assert_eq!(events.last().unwrap()["meta"]["usage"]["price_usd"], "0.025000000");
    let row = house.gateway.ended(&id).await;
    assert_eq!((&row["state"], &row["price_usd"]), (&json!("succeeded"), &json!("0.025000000")));
    let state = house.fal_state().await;
    assert_eq!((&state["submits"], &state["runs"]), (&json!({}), &json!({"fal-ai/flux/dev": 1})), "{state}");
    assert_eq!(state["delivered_images"], 1);
}

async fn a_stream_that_is_lost_on_the_way_is_free_and_says_so(kind: Database) {
    let house = House::with(kind, Duration::from_millis(500), &[]).await;
    house
        .misbehave(json!([
            {"match": {"prompt_contains": "half"}, "at": "stream", "do": {"half_answer": true}},
            {"match": {"prompt_contains": "dropped"}, "at": "stream", "do": {"drop_connection": true, "after": true}},
            {"match": {"prompt_contains": "broken"}, "at": "stream", "do": {"status": 502, "after": true}},
        ]))
        .await;
    for prompt in ["half", "dropped", "broken"] {
        // A fallback must not run it again: the provider may have made the image.
        let mut body = with_previews("flux/dev", prompt, 3);
        body["fallbacks"] = json!(["flux-1/dev"]);
        let answer = house.gateway.generate(&body).send().await.unwrap();
        let id = answer.headers()["x-imagegate-generation-id"].to_str().unwrap().to_owned();
        let events = events(&answer.text().await.unwrap());
        let last = events.last().unwrap();
        assert_eq!((&last["type"], &last["status"]), (&json!("error"), &json!(502)), "{prompt}: {events:?}");
        let message = last["error"]["message"].as_str().unwrap();
        assert!(message.contains("stream broke off") && message.contains("nothing was charged"), "{message}");
        let row = house.gateway.ended(&id).await;
        assert_eq!((&row["state"], &row["price_usd"]), (&json!("failed"), &json!("0.000000000")), "{prompt}");
    }
    let state = house.fal_state().await;
    assert_eq!((&state["submits"], &state["runs"]), (&json!({}), &json!({"fal-ai/flux/dev": 3})), "{state}");
}

async fn what_cannot_be_streamed_goes_by_the_queue_without_previews(kind: Database) {
    let house = House::with(kind, Duration::from_millis(300), &[]).await;
    house.misbehave(json!({"match": {"prompt_contains": "busy"}, "at": "stream", "do": {"status": 429}})).await;
    // A model without a stream, and one whose stream has no room.
    for (model, prompt) in [("flux-realism", "a"), ("flux/dev", "busy")] {
        let answer = house.gateway.generate(&with_previews(model, prompt, 3)).send().await.unwrap();
        let events = events(&answer.text().await.unwrap());
        let kinds = kinds(&events);
        assert!(!kinds.contains(&"partial_image") && kinds.ends_with(&["completed", "settled"]), "{model}: {kinds:?}");
    }
    // Nobody asked for previews: the queue, which can be picked up again.
    let answer = house.gateway.generate(&with_previews("flux/dev", "a", 0)).send().await.unwrap();
    assert!(answer.text().await.unwrap().contains("image_generation.settled"));
    let state = house.fal_state().await;
    assert_eq!(state["submits"], json!({"fal-ai/flux-realism": 1, "fal-ai/flux/dev": 2}), "{state}");
    // A content refusal is told before the stream begins.
    let answer = house.gateway.generate(&with_previews("flux/dev", "sandbox-refuse", 3)).send().await.unwrap();
    let events = events(&answer.text().await.unwrap());
    assert_eq!(events.last().unwrap()["error"]["code"], "content_policy_violation");
}
