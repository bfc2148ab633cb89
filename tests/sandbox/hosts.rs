//! What fal has on its other hosts: synchronous runs, streams, storage, platform.

use std::time::Duration;

use imagegate::sandbox::Settings;
use reqwest::Method;
use serde_json::{Value, json};

use crate::fal::{Fal, text};

fn prompt() -> Value {
    json!({"prompt": "a red fox", "seed": 7, "image_size": {"width": 64, "height": 64}})
}

/// The events of a stream that has ended.
fn events(stream: &str) -> Vec<Value> {
    let events = stream.split("\n\n").filter(|event| !event.is_empty());
    events.map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap()).collect()
}

#[actix_web::test]
async fn a_synchronous_run_answers_with_the_bare_output() {
    let fal = Fal::delayed(Duration::from_millis(50));
    let answer = fal.call(Method::POST, "/run/fal-ai/flux/dev", Some(&prompt())).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-fal-billable-units"], "1");
    assert!(answer.headers().contains_key("x-fal-request-id"));
    let output: Value = answer.json().await.unwrap();
    assert_eq!(output["seed"], 7);

    let refused = fal.call(Method::POST, "/run/fal-ai/flux/dev", Some(&json!({}))).await;
    assert_eq!(refused.status(), 422);
    let state = fal.state().await;
    assert_eq!((&state["runs"], &state["submits"]), (&json!({"fal-ai/flux/dev": 2}), &json!({})));
    assert_eq!(state["delivered_images"], 1);
}

#[actix_web::test]
async fn synchronous_runs_can_have_a_port_of_their_own() {
    let run_bind = Some("127.0.0.1:0".parse().unwrap());
    let fal = Fal::with(Settings { run_bind, delay: Duration::ZERO, ..Settings::default() });
    assert_ne!(fal.running.run_url(), format!("{}/run", fal.running.queue_url()));
    let url = format!("{}/fal-ai/flux/dev", fal.running.run_url());
    let output: Value = fal.call(Method::POST, &url, Some(&prompt())).await.json().await.unwrap();
    assert_eq!(output["seed"], 7);
    let queued = fal.submit("fal-ai/flux/dev", &prompt()).await;
    assert_eq!(queued["status"], "IN_QUEUE");
}

#[actix_web::test]
async fn a_streamed_run_shows_previews_and_ends_with_the_output() {
    let fal = Fal::delayed(Duration::from_millis(80));
    let answer = fal.call(Method::POST, "/run/fal-ai/flux/dev/stream", Some(&prompt())).await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream; charset=utf-8");
    let events = events(&answer.text().await.unwrap());
    assert_eq!(events.len(), 4);
    let widths: Vec<&Value> = events.iter().map(|event| &event["images"][0]["width"]).collect();
    assert_eq!(widths, [16, 32, 48, 64]);
    assert_eq!(fal.state().await["delivered_images"], 1);
    let file = fal.get(text(&events[0]["images"][0], "url")).await;
    assert_eq!(image::load_from_memory(&file.bytes().await.unwrap()).unwrap().width(), 16);

    let refused = fal.call(Method::POST, "/run/fal-ai/flux/dev/stream", Some(&json!({}))).await;
    assert_eq!(refused.status(), 422);
    let none = fal.call(Method::POST, "/run/fal-ai/ideogram/v2/stream", Some(&prompt())).await;
    assert_eq!(none.status(), 404);
    assert_eq!(none.json::<Value>().await.unwrap(), json!({"detail": "Path /v2/stream not found"}));
}

#[actix_web::test]
async fn the_status_stream_tells_each_change_and_ends_when_the_request_does() {
    let fal = Fal::delayed(Duration::from_millis(400));
    let submitted = fal.submit("fal-ai/flux/dev", &prompt()).await;
    let stream = fal.get(&format!("{}/stream?logs=1", text(&submitted, "status_url"))).await;
    let events = events(&stream.text().await.unwrap());
    let words: Vec<&str> = events.iter().map(|event| text(event, "status")).collect();
    assert_eq!(words.first(), Some(&"IN_QUEUE"));
    assert_eq!(words.iter().filter(|word| **word == "COMPLETED").count(), 1);
    assert_eq!(words.last(), Some(&"COMPLETED"));
    let logs: Vec<&Value> = events.iter().filter_map(|event| event["logs"].as_array()).flatten().collect();
    assert_eq!(logs.len(), 5, "{logs:?}");
}

#[actix_web::test]
async fn a_file_is_uploaded_in_either_way_and_served() {
    let fal = Fal::delayed(Duration::ZERO);
    let announced = json!({"content_type": "image/png", "file_name": "my fox.png"});
    let initiate = "/storage/upload/initiate?storage_type=fal-cdn-v3";
    let places: Value = fal.call(Method::POST, initiate, Some(&announced)).await.json().await.unwrap();
    assert_eq!(fal.get(text(&places, "file_url")).await.status(), 404);
    let put = fal.http.put(text(&places, "upload_url")).header("content-type", "image/png").body("bytes");
    assert_eq!(put.send().await.unwrap().status(), 200);
    let file = fal.http.get(text(&places, "file_url")).send().await.unwrap();
    assert_eq!(file.headers()["content-type"], "image/png");
    assert_eq!(file.bytes().await.unwrap(), "bytes");
    assert!(text(&places, "file_url").ends_with("_my_fox.png"));

    let path = "/storage/auth/token?storage_type=fal-cdn-v3";
    let token: Value = fal.call(Method::POST, path, Some(&json!({}))).await.json().await.unwrap();
    let upload = fal.http.post(format!("{}/files/upload", text(&token, "base_url"))).body("more");
    let upload = upload.header("x-fal-file-name", "a.bin");
    assert_eq!(upload.try_clone().unwrap().send().await.unwrap().status(), 401);
    let authorization = format!("{} {}", text(&token, "token_type"), text(&token, "token"));
    let placed: Value = upload.header("authorization", authorization).send().await.unwrap().json().await.unwrap();
    assert_eq!(fal.get(text(&placed, "access_url")).await.bytes().await.unwrap(), "more");
    assert_eq!(fal.state().await["uploads"], 2);

    let url = format!("{}{initiate}", fal.running.rest_url());
    let keyless = fal.http.post(url).json(&announced).send().await.unwrap();
    assert_eq!(keyless.status(), 401);
    let detail = json!({"detail": "Authorization header is required"});
    assert_eq!(keyless.json::<Value>().await.unwrap(), detail);
}

#[actix_web::test]
async fn an_uploaded_picture_can_be_used_and_a_missing_one_cannot() {
    let fal = Fal::delayed(Duration::ZERO);
    let initiate = "/storage/upload/initiate?storage_type=fal-cdn-v3";
    let announced = json!({"content_type": "image/png", "file_name": "a.png"});
    let places: Value = fal.call(Method::POST, initiate, Some(&announced)).await.json().await.unwrap();
    let body = json!({"prompt": "a", "input_image_urls": [places["file_url"]]});
    let run = async || fal.call(Method::POST, "/run/fal-ai/omnigen-v2", Some(&body)).await.status().as_u16();
    assert_eq!(run().await, 422);
    let png = b"\x89PNG\r\n\x1a\n";
    fal.http.put(text(&places, "upload_url")).body(png.as_slice()).send().await.unwrap();
    assert_eq!(run().await, 200);
}

#[actix_web::test]
async fn storage_and_platform_can_fail_too() {
    let fal = Fal::delayed(Duration::ZERO);
    fal.misbehave(json!([{"at": "storage", "do": {"status": 503}}, {"at": "platform", "do": {"status": 500}}])).await;
    let path = "/storage/auth/token";
    assert_eq!(fal.call(Method::POST, path, Some(&json!({}))).await.status(), 503);
    assert_eq!(fal.get("/v1/models").await.status(), 500);
}

#[actix_web::test]
async fn models_and_prices_are_listed() {
    let fal = Fal::delayed(Duration::ZERO);
    let first: Value = fal.get("/v1/models?limit=40").await.json().await.unwrap();
    assert_eq!(first["has_more"], true);
    let next = format!("/v1/models?limit=40&cursor={}", text(&first, "next_cursor").replace('=', "%3D"));
    let second: Value = fal.get(&next).await.json().await.unwrap();
    assert_eq!(second["has_more"], false);
    let mut listed: Vec<&str> = Vec::new();
    for page in [&first, &second] {
        listed.extend(page["models"].as_array().unwrap().iter().map(|model| text(model, "endpoint_id")));
    }
    let known = listed.len();
    listed.sort_unstable();
    listed.dedup();
    assert!(listed.len() == known && known > 40 && listed.contains(&"fal-ai/flux/dev"), "{listed:?}");
    let prices: Value = fal.get("/v1/models/pricing?endpoint_id=fal-ai/flux/dev").await.json().await.unwrap();
    assert_eq!(
        prices["prices"],
        json!([{"endpoint_id": "fal-ai/flux/dev", "unit_price": 0.025, "unit": "megapixels", "currency": "USD"}])
    );
    let unnamed = fal.get("/v1/models/pricing").await;
    assert_eq!(unnamed.status(), 400);
    assert_eq!(unnamed.json::<Value>().await.unwrap()["error"]["type"], "validation_error");
}

#[actix_web::test]
async fn what_was_made_is_billed_and_what_failed_is_not() {
    let fal = Fal::delayed(Duration::ZERO);
    let size = json!({"width": 1200, "height": 1200});
    let made = fal.submit("fal-ai/flux/dev", &json!({"prompt": "a", "num_images": 2, "image_size": size})).await;
    fal.submit("fal-ai/flux/dev", &json!({"prompt": 1})).await;
    let events: Value = fal.get("/v1/models/billing-events").await.json().await.unwrap();
    let events = events["billing_events"].as_array().unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["request_id"], made["request_id"]);
    assert_eq!(events[0]["output_units"], 4);
    assert_eq!(events[0]["cost_estimate_nano_usd"], 100_000_000);
}
