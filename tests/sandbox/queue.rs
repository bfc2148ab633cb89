//! The queue: submit, status, result, cancel.

use std::sync::Arc;
use std::time::Duration;

use imagegate::domain::{SystemClock, SystemIds};
use imagegate::sandbox::{Settings, render_file, start};
use reqwest::Method;
use serde_json::{Value, json};

use crate::fal::{Fal, text};

#[actix_web::test]
async fn an_image_goes_from_submit_to_file() {
    let fal = Fal::delayed(Duration::ZERO);
    let body = json!({"prompt": "a red fox", "image_size": {"width": 160, "height": 96}, "seed": 7});
    let answer = fal.call(Method::POST, "/fal-ai/flux/dev", Some(&body)).await;
    assert_eq!(answer.status(), 200);
    let id = answer.headers()["x-fal-request-id"].to_str().unwrap().to_owned();
    let submitted: Value = answer.json().await.unwrap();
    let keys: Vec<&String> = submitted.as_object().unwrap().keys().collect();
    let expected =
        ["status", "request_id", "response_url", "status_url", "cancel_url", "logs", "metrics", "queue_position"];
    assert_eq!(keys, expected);
    assert_eq!(submitted["request_id"], id);
    assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 7);
    let url = format!("{}/fal-ai/flux/requests/{id}", fal.running.queue_url());
    assert_eq!(submitted["response_url"], url);
    assert_eq!(submitted["status_url"], format!("{url}/status"));
    assert_eq!(submitted["cancel_url"], format!("{url}/cancel"));

    let status = fal.get(text(&submitted, "status_url")).await;
    assert_eq!(status.status(), 200);
    let status: Value = status.json().await.unwrap();
    assert_eq!(status["status"], "COMPLETED");
    assert_eq!(status["logs"], Value::Null);
    assert!(status["metrics"]["inference_time"].is_number());

    let result = fal.get(&url).await;
    assert_eq!(result.status(), 200);
    assert_eq!(result.headers()["x-fal-request-id"], id.as_str());
    assert_eq!(result.headers()["x-fal-billable-units"], "1");
    let result: Value = result.json().await.unwrap();
    assert_eq!(result["seed"], 7);
    assert_eq!(result["prompt"], "a red fox");

    let image_url = text(&result["images"][0], "url");
    let file = fal.http.get(image_url).send().await.unwrap();
    assert_eq!(file.headers()["content-type"], "image/jpeg");
    let bytes = file.bytes().await.unwrap();
    let image = image::load_from_memory(&bytes).unwrap();
    assert_eq!((image.width(), image.height()), (160, 96));
    assert_eq!(render_file(image_url).unwrap().bytes, bytes);
}

#[actix_web::test]
async fn a_request_waits_in_the_queue_then_runs_and_tells_logs_when_asked() {
    let fal = Fal::delayed(Duration::ZERO);
    fal.misbehave(json!({"do": {"queue_ms": 2_000, "run_ms": 3_000}})).await;
    let submitted = fal.submit("fal-ai/flux/dev", &json!({"prompt": "a", "image_size": "square"})).await;
    let status_url = text(&submitted, "status_url");
    let queued = fal.get(status_url).await;
    assert_eq!(queued.status(), 202);
    let queued: Value = queued.json().await.unwrap();
    assert_eq!((text(&queued, "status"), &queued["queue_position"]), ("IN_QUEUE", &json!(1)));

    let early = fal.get(text(&submitted, "response_url")).await;
    assert_eq!(early.status(), 400);
    assert_eq!(early.json::<Value>().await.unwrap(), json!({"detail": "Request is still in progress"}));

    let mut seen = Vec::new();
    loop {
        let answer = fal.get(&format!("{status_url}?logs=1")).await;
        let code = answer.status().as_u16();
        let status: Value = answer.json().await.unwrap();
        if status["status"] == "IN_PROGRESS" {
            assert_eq!(code, 202);
            assert!(status["logs"][0]["message"].is_string());
            assert!(status.get("queue_position").is_none());
        }
        let word = text(&status, "status").to_owned();
        if seen.last() != Some(&word) {
            seen.push(word);
        }
        if code == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(seen.ends_with(&["IN_PROGRESS".to_owned(), "COMPLETED".to_owned()]), "{seen:?}");
}

#[actix_web::test]
async fn a_bad_body_is_accepted_at_submit_and_refused_at_the_result() {
    let fal = Fal::delayed(Duration::ZERO);
    let submitted = fal.submit("fal-ai/flux/dev", &json!({"prompt": "a", "guidance_scale": 21})).await;
    let status: Value = fal.get(text(&submitted, "status_url")).await.json().await.unwrap();
    assert_eq!(status["status"], "COMPLETED");
    assert_eq!(status["error_type"], "less_than_equal");
    assert_eq!(status["error"], "Input should be less than or equal to 20");
    let result = fal.get(text(&submitted, "response_url")).await;
    assert_eq!(result.status(), 422);
    assert_eq!(result.headers()["x-fal-billable-units"], "0");
    let result: Value = result.json().await.unwrap();
    assert_eq!(result["detail"][0]["loc"], json!(["body", "guidance_scale"]));
}

#[actix_web::test]
async fn a_waiting_and_a_running_request_can_be_cancelled_a_finished_one_cannot() {
    let fal = Fal::delayed(Duration::from_mins(1));
    let submitted = fal.submit("fal-ai/flux/dev", &json!({"prompt": "a"})).await;
    let cancelled = fal.call(Method::PUT, text(&submitted, "cancel_url"), None).await;
    assert_eq!(cancelled.status(), 202);
    assert_eq!(cancelled.json::<Value>().await.unwrap(), json!({"status": "CANCELLATION_REQUESTED"}));
    let again = fal.call(Method::PUT, text(&submitted, "cancel_url"), None).await;
    assert_eq!(again.status(), 400);
    assert_eq!(again.json::<Value>().await.unwrap(), json!({"status": "ALREADY_COMPLETED"}));
    let result = fal.get(text(&submitted, "response_url")).await;
    assert_eq!(result.status(), 499);
    assert_eq!(result.headers()["x-fal-error-type"], "client_cancelled");

    let running = fal.submit("fal-ai/flux/dev", &json!({"prompt": "a"})).await;
    tokio::time::sleep(Duration::from_millis(350)).await;
    let status: Value = fal.get(text(&running, "status_url")).await.json().await.unwrap();
    assert_eq!(status["status"], "IN_PROGRESS");
    assert_eq!(fal.call(Method::PUT, text(&running, "cancel_url"), None).await.status(), 202);
    assert_eq!(fal.get(text(&running, "response_url")).await.status(), 499);
    assert_eq!(fal.state().await["cancels"], 2);
}

#[actix_web::test]
async fn an_unknown_request_is_not_found_whatever_is_asked_of_it() {
    let fal = Fal::delayed(Duration::ZERO);
    let url = "/fal-ai/flux/requests/019e1951-c778-7120-9c82-16efcf40ec82";
    for (method, url) in
        [(Method::GET, format!("{url}/status")), (Method::GET, url.to_owned()), (Method::PUT, format!("{url}/cancel"))]
    {
        let answer = fal.call(method, &url, None).await;
        assert_eq!(answer.status(), 404);
        assert_eq!(answer.json::<Value>().await.unwrap(), json!({"status": "NOT_FOUND"}));
    }
}

#[actix_web::test]
async fn a_missing_or_unknown_key_is_told_as_fal_tells_it() {
    let fal = Fal::delayed(Duration::ZERO);
    let submit = |key: Option<&'static str>| {
        let request = fal.http.post(format!("{}/fal-ai/flux/dev", fal.running.queue_url()));
        let request = request.json(&json!({"prompt": "a"}));
        key.map_or(request.try_clone().unwrap(), |key| request.header("authorization", key)).send()
    };
    for key in [None, Some("Bearer x"), Some("Key "), Some("Key bad:key")] {
        let answer = submit(key).await.unwrap();
        assert_eq!(answer.status(), 401, "{key:?}");
        let detail = "Cannot access application \"flux\". Authentication is required to access this application.";
        assert_eq!(answer.json::<Value>().await.unwrap(), json!({"detail": detail}));
    }
    let locked = submit(Some("Key locked:key")).await.unwrap();
    assert_eq!(locked.status(), 403);
    assert!(text(&locked.json().await.unwrap(), "detail").starts_with("User is locked. Reason: Exhausted balance."));
    assert_eq!(fal.state().await["accepted_submits"], 0);
}

#[actix_web::test]
async fn an_unknown_application_is_not_found_at_once_an_unknown_path_at_the_result() {
    let fal = Fal::delayed(Duration::ZERO);
    let answer = fal.call(Method::POST, "/fal-ai/h3-max", Some(&json!({"prompt": "a"}))).await;
    assert_eq!(answer.status(), 404);
    let detail = json!({"detail": "Application \"h3-max\" not found"});
    assert_eq!(answer.json::<Value>().await.unwrap(), detail);

    let submitted = fal.submit("fal-ai/flux/nothing", &json!({"prompt": "a"})).await;
    let result = fal.get(text(&submitted, "response_url")).await;
    assert_eq!(result.status(), 404);
    assert_eq!(result.json::<Value>().await.unwrap(), json!({"detail": "Path /nothing not found"}));
}

#[actix_web::test]
async fn fields_that_fal_does_not_know_are_counted() {
    let fal = Fal::delayed(Duration::ZERO);
    let submitted = fal.submit("fal-ai/flux/dev", &json!({"prompt": "a", "n": 2, "image_size": "square"})).await;
    let state = fal.state().await;
    assert_eq!(state["unknown_fields"], json!({"fal-ai/flux/dev n": 1}));
    assert_eq!(state["submits"], json!({"fal-ai/flux/dev": 1}));
    assert_eq!((&state["made_images"], &state["delivered_images"]), (&json!(1), &json!(0)));
    assert_eq!(state["requests"], json!([{"id": submitted["request_id"], "endpoint": "fal-ai/flux/dev"}]));
    for _ in 0..2 {
        fal.get(text(&submitted, "response_url")).await;
    }
    let state = fal.state().await;
    assert_eq!((&state["results_read"], &state["delivered_images"]), (&json!(2), &json!(1)));
    fal.call(Method::POST, "/__sandbox/reset", None).await;
    assert_eq!(fal.state().await["accepted_submits"], 0);
}

#[actix_web::test]
async fn every_reader_of_a_result_is_told_the_same() {
    let fal = Fal::delayed(Duration::ZERO);
    let submitted = fal.submit("fal-ai/ideogram/v2", &json!({"prompt": "a"})).await;
    let url = text(&submitted, "response_url");
    let first: Value = fal.get(url).await.json().await.unwrap();
    assert_eq!(first, fal.get(&format!("{url}/response")).await.json::<Value>().await.unwrap());
    let image = &first["images"][0];
    let file = fal.http.get(text(image, "url")).send().await.unwrap();
    assert_eq!(json!(file.content_length()), image["file_size"]);
    assert_eq!(image["content_type"], "image/png");
}

#[actix_web::test]
async fn sync_mode_answers_with_a_data_uri() {
    let fal = Fal::delayed(Duration::ZERO);
    let body = json!({"prompt": "a", "sync_mode": true, "image_size": {"width": 32, "height": 32}});
    let submitted = fal.submit("fal-ai/flux/dev", &body).await;
    let result: Value = fal.get(text(&submitted, "response_url")).await.json().await.unwrap();
    assert!(text(&result["images"][0], "url").starts_with("data:image/jpeg;base64,/9j/"));
}

#[actix_web::test]
async fn picture_urls_lie_under_the_public_address_when_one_is_set() {
    let public_files = Some("http://gateway.example/".to_owned());
    let fal = Fal::with(Settings { delay: Duration::ZERO, public_files, ..Settings::default() });
    let submitted = fal.submit("fal-ai/flux/dev", &json!({"prompt": "a"})).await;
    let result: Value = fal.get(text(&submitted, "response_url")).await.json().await.unwrap();
    assert!(text(&result["images"][0], "url").starts_with("http://gateway.example/files/b/"));
}

#[actix_web::test]
async fn a_taken_port_is_told_and_a_stopped_one_is_free() {
    let fal = Fal::delayed(Duration::ZERO);
    let settings = Settings { bind: fal.running.addr(), ..Settings::default() };
    let again = || start(settings.clone(), Arc::new(SystemClock), Arc::new(SystemIds));
    assert!(again().unwrap_err().to_string().starts_with("the sandbox cannot listen on `127.0.0.1:"));
    fal.running.stop().await;
    again().unwrap().stop().await;
}
