//! Misbehaviour on request.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::fal::{Fal, text};

fn prompt() -> Value {
    json!({"prompt": "a red fox", "image_size": {"width": 64, "height": 64}})
}

#[actix_web::test]
async fn a_wrong_status_comes_as_often_as_the_rule_says() {
    let fal = Fal::delayed(Duration::ZERO);
    fal.misbehave(json!({"times": 2, "do": {"status": 429, "headers": {"retry-after": "1"}}})).await;
    for _ in 0..2 {
        let answer = fal.call(Method::POST, "/fal-ai/flux/dev", Some(&prompt())).await;
        assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (429, &"1".parse().unwrap()));
    }
    fal.submit("fal-ai/flux/dev", &prompt()).await;
    let state = fal.state().await;
    assert_eq!((&state["accepted_submits"], &state["misbehaviours"]), (&json!(1), &json!(2)));
}

#[actix_web::test]
async fn a_submit_can_be_taken_and_its_answer_lost() {
    let fal = Fal::delayed(Duration::ZERO);
    for (after, accepted) in [(false, 0), (true, 1)] {
        fal.misbehave(json!({"times": 1, "do": {"drop_connection": true, "after": after}})).await;
        let url = format!("{}/fal-ai/flux/dev", fal.running.queue_url());
        let lost = fal.http.post(url).header("authorization", "Key x").json(&prompt()).send().await;
        assert!(lost.is_err(), "an answer came");
        assert_eq!(fal.state().await["accepted_submits"], accepted);
    }
    assert_eq!(fal.state().await["made_images"], 1);
}

#[actix_web::test]
async fn an_answer_can_stop_in_the_middle() {
    let fal = Fal::delayed(Duration::ZERO);
    let submitted = fal.submit("fal-ai/flux/dev", &prompt()).await;
    fal.misbehave(json!({"at": "result", "times": 1, "do": {"half_answer": true}})).await;
    let half = fal.get(text(&submitted, "response_url")).await;
    assert_eq!(half.status(), 200);
    assert!(half.bytes().await.is_err(), "the whole answer came");
    assert_eq!(fal.get(text(&submitted, "response_url")).await.status(), 200);
}

#[actix_web::test]
async fn an_answer_can_hang_and_a_body_can_trickle() {
    let fal = Fal::delayed(Duration::ZERO);
    let submitted = fal.submit("fal-ai/flux/dev", &prompt()).await;
    let result: Value = fal.get(text(&submitted, "response_url")).await.json().await.unwrap();
    let url = text(&result["images"][0], "url");
    let whole = fal.get(url).await.bytes().await.unwrap();
    for action in [json!({"hang_ms": 200}), json!({"slow_body_ms": 200})] {
        fal.misbehave(json!({"match": {"prompt_contains": "fox"}, "at": "file", "times": 1, "do": action})).await;
        let begin = Instant::now();
        assert_eq!(fal.get(url).await.bytes().await.unwrap(), whole);
        assert!(begin.elapsed() >= Duration::from_millis(180), "{:?}", begin.elapsed());
    }
}

#[actix_web::test]
async fn a_rule_in_the_header_holds_for_that_request_alone() {
    let fal = Fal::delayed(Duration::ZERO);
    let url = format!("{}/fal-ai/flux/dev", fal.running.queue_url());
    let request = fal.http.post(url).header("authorization", "Key x").json(&prompt());
    let rules = r#"[{"do": {"wrong_units": "7.50000000"}}, {"at": "status", "times": 1, "do": {"status": 500}}]"#;
    let bad = request.try_clone().unwrap().header("x-sandbox-behaviour", "{").send().await.unwrap();
    assert_eq!(bad.status(), 400);
    let bent: Value = request.header("x-sandbox-behaviour", rules).send().await.unwrap().json().await.unwrap();
    let straight = fal.submit("fal-ai/flux/dev", &prompt()).await;
    assert_eq!(fal.get(text(&straight, "status_url")).await.status(), 200);
    assert_eq!(fal.get(text(&bent, "status_url")).await.status(), 500);
    assert_eq!(fal.get(text(&bent, "status_url")).await.status(), 200);
    let units = |answer: reqwest::Response| answer.headers()["x-fal-billable-units"].clone();
    assert_eq!(units(fal.get(text(&straight, "response_url")).await), "1");
    assert_eq!(units(fal.get(text(&bent, "response_url")).await), "7.50000000");
}

#[actix_web::test]
async fn the_fate_of_a_run_can_be_chosen() {
    let fal = Fal::delayed(Duration::ZERO);
    let result = async |action: Value| {
        fal.misbehave(json!({"times": 1, "do": action})).await;
        let submitted = fal.submit("fal-ai/flux/dev", &prompt()).await;
        let answer = fal.get(text(&submitted, "response_url")).await;
        let code = answer.status().as_u16();
        (code, answer.json::<Value>().await.unwrap())
    };
    let (_, flagged) = result(json!({"nsfw": true})).await;
    assert_eq!(flagged["has_nsfw_concepts"], json!([true]));
    let (code, refused) = result(json!({"content_policy": true})).await;
    assert_eq!((code, &refused["detail"][0]["type"]), (422, &json!("content_policy_violation")));
    assert_eq!(refused["detail"][0]["input"], "a red fox");
    let (code, failed) = result(json!({"fail": {"status": 500}})).await;
    assert_eq!((code, failed), (500, json!({"detail": "Internal Server Error"})));
    let (_, none) = result(json!({"images": 0})).await;
    assert_eq!((&none["images"], &none["has_nsfw_concepts"]), (&json!([]), &json!([])));
    let (code, forgotten) = result(json!({"forget": true})).await;
    assert_eq!((code, forgotten), (404, json!({"status": "NOT_FOUND"})));
}

#[actix_web::test]
async fn queue_and_run_can_be_prolonged_and_a_cancel_ignored() {
    let fal = Fal::delayed(Duration::ZERO);
    let action = json!({"queue_ms": 600_000, "run_ms": 60_000});
    fal.misbehave(json!({"times": 1, "do": action})).await;
    let waiting = fal.submit("fal-ai/flux/dev", &prompt()).await;
    let status: Value = fal.get(text(&waiting, "status_url")).await.json().await.unwrap();
    // One place for each second that is left.
    let place = status["queue_position"].as_u64().unwrap();
    assert!(status["status"] == "IN_QUEUE" && (500..600).contains(&place), "{status}");
    let full = fal.call(Method::POST, "/fal-ai/flux/dev?fal_max_queue_length=0", Some(&prompt())).await;
    assert_eq!(full.status(), 429);

    fal.misbehave(json!({"times": 1, "do": {"run_ms": 4_000, "ignore_cancel": true}})).await;
    let stubborn = fal.submit("fal-ai/flux/dev", &prompt()).await;
    assert_eq!(fal.call(Method::PUT, text(&stubborn, "cancel_url"), None).await.status(), 202);
    assert_eq!(fal.get(text(&stubborn, "response_url")).await.status(), 400);
    tokio::time::sleep(Duration::from_millis(4_050)).await;
    assert_eq!(fal.get(text(&stubborn, "response_url")).await.status(), 200);
}

#[actix_web::test]
async fn a_caller_without_patience_for_the_queue_gets_504() {
    let fal = Fal::delayed(Duration::ZERO);
    fal.misbehave(json!({"times": 1, "do": {"queue_ms": 50, "run_ms": 0}})).await;
    let url = format!("{}/fal-ai/flux/dev", fal.running.queue_url());
    let request = fal.http.post(url).header("authorization", "Key x").header("x-fal-request-timeout", "0.01");
    let submitted: Value = request.json(&prompt()).send().await.unwrap().json().await.unwrap();
    tokio::time::sleep(Duration::from_millis(80)).await;
    let result = fal.get(text(&submitted, "response_url")).await;
    assert_eq!(result.status(), 504);
    assert_eq!(result.headers()["x-fal-request-timeout-type"], "user");
    assert_eq!(result.headers()["x-fal-error-type"], "request_timeout");
}

#[actix_web::test]
async fn rules_are_shown_refused_and_cleared() {
    let fal = Fal::delayed(Duration::ZERO);
    let bad = fal.call(Method::POST, "/__sandbox/behaviour", Some(&json!({"do": {"stauts": 1}}))).await;
    assert_eq!(bad.status(), 400);
    fal.misbehave(json!([{"do": {"status": 500}}, {"at": "status", "times": 3, "do": {"hang_ms": 5}}])).await;
    let shown: Value = fal.get("/__sandbox/behaviour").await.json().await.unwrap();
    assert_eq!((&shown["rules"][0]["at"], &shown["rules"][1]["times"]), (&json!("submit"), &json!(3)));
    fal.call(Method::DELETE, "/__sandbox/behaviour", None).await;
    fal.submit("fal-ai/flux/dev", &prompt()).await;
}
