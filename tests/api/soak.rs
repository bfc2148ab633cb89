//! Many requests with every fault mixed in: at the end what fal made is what was delivered or is recorded, no generation
//! was submitted twice, and nothing is left open.
//!
//! `IMAGEGATE_TEST_SOAK` is the number of requests; a short run is part of the suite.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::{Database, House, client, eventually, number, on_both_databases, read};

on_both_databases!(whatever_fails_every_image_is_accounted_for_once);

/// Requests of the short run, on each database.
const SHORT: u64 = 720;
/// Requests at a time.
const AT_ONCE: usize = 48;

/// Every fault with the word in the prompt that calls it. Whatever goes on for ever is bounded by the deadline.
fn faults() -> Vec<(&'static str, Value, Value)> {
    let fail = |status: u16, body: Value| json!({"fail": {"status": status, "body": body}});
    let list = vec![
        ("well", json!("submit"), json!({})),
        ("slow", json!("submit"), json!({"queue_ms": 60, "run_ms": 200})),
        ("lost-before", json!("submit"), json!({"drop_connection": true})),
        ("lost-after", json!("submit"), json!({"drop_connection": true, "after": true})),
        ("half-submit", json!("submit"), json!({"half_answer": true})),
        ("broken-submit", json!("submit"), json!({"status": 502, "after": true})),
        ("black", json!("submit"), json!({"nsfw": true})),
        ("policy", json!("submit"), json!({"content_policy": true})),
        ("fewer", json!("submit"), json!({"images": 1})),
        ("none", json!("submit"), json!({"images": 0})),
        ("crash", json!("submit"), fail(500, json!({"detail": "Internal Server Error"}))),
        (
            "refused",
            json!("submit"),
            fail(422, json!({"detail": [{"loc": ["body", "prompt"], "msg": "x", "type": "value_error"}]})),
        ),
        ("units", json!("submit"), json!({"wrong_units": "9.5"})),
        ("forgotten", json!("submit"), json!({"forget": true})),
        ("stubborn", json!("submit"), json!({"ignore_cancel": true, "run_ms": 300})),
        ("status-500", json!("status"), json!({"status": 500})),
        ("status-drop", json!("status"), json!({"drop_connection": true})),
        ("status-half", json!("status"), json!({"half_answer": true})),
        ("status-hang", json!("status"), json!({"hang_ms": 300})),
        ("result-503", json!("result"), json!({"status": 503})),
        ("result-drop", json!("result"), json!({"drop_connection": true})),
        ("result-half", json!("result"), json!({"half_answer": true})),
        ("result-slow", json!("result"), json!({"slow_body_ms": 200})),
        ("result-429", json!("result"), json!({"status": 429})),
    ];
    list
}

/// Rules for all faults. Faults of reads come for a while and then no more, so that every result can be read in the end.
fn rules(per_fault: u64) -> Vec<Value> {
    let rule = |(word, at, action): (&str, Value, Value)| {
        let mut rule = json!({"match": {"prompt_contains": format!("soak {word} ")}, "at": at, "do": action});
        if at != "submit" {
            rule["times"] = json!(per_fault);
        }
        rule
    };
    faults().into_iter().map(rule).collect()
}

async fn whatever_fails_every_image_is_accounted_for_once(kind: Database) {
    let settings =
        [("IMAGEGATE_DEADLINE", "4s"), ("FAL_KEY", "one:1*2,two:2"), ("IMAGEGATE_LOG", "warn,imagegate=info")];
    let house = Arc::new(House::with(kind, Duration::from_millis(30), &settings).await);
    let total = number("IMAGEGATE_TEST_SOAK", SHORT);
    let words: Vec<&str> = faults().iter().map(|(word, ..)| *word).collect();
    house.misbehave(&json!(rules(total / words.len() as u64))).await;
    let (turns, delivered) = (Arc::new(Semaphore::new(AT_ONCE)), Arc::new(AtomicU64::new(0)));
    let asks = (0..total).map(|number| {
        let (house, turns, delivered) = (house.clone(), turns.clone(), delivered.clone());
        let word = words[usize::try_from(number).unwrap() % words.len()];
        // Several models, so that what is broken on purpose does not open every breaker.
        let model = ["flux/dev", "flux-realism", "omnigen-v2", "hidream-i1-full", "hidream-i1-fast"][usize::try_from(number % 5).unwrap()];
        let body = json!({"model": model, "prompt": format!("soak {word} {number}"), "n": 1 + number % 3, "image_size": "square_hd", "user": word});
        async move {
            let _turn = turns.acquire().await.unwrap();
            let asked = house.gateway.generate(&body);
            // Some clients leave.
            let asked = if number % 17 == 0 { asked.timeout(Duration::from_millis(40)) } else { asked };
            let Ok(answer) = asked.send().await else { return };
            let status = answer.status().as_u16();
            if status == 201 {
                let Ok(body) = answer.json::<Value>().await else { return };
                delivered.fetch_add(body["images"].as_array().unwrap().len() as u64, Ordering::Relaxed);
            } else {
                assert!([400, 404, 429, 502, 503, 504].contains(&status), "{word}: {status}");
            }
        }
    });
    futures_util::future::join_all(asks).await;
    // What was late or left by its client comes to its end as well.
    eventually(Duration::from_mins(2), || async {
        (house.gateway.readiness().await["open_generations"] == 0).then_some(())
    })
    .await;

    let rows = all_rows(&house).await;
    let open: Vec<&Value> = rows.iter().filter(|row| row["state"] == "queued" || row["state"] == "running").collect();
    assert!(open.is_empty(), "left open: {open:?}");
    let mut known = HashSet::new();
    for row in &rows {
        if let Some(id) = row["fal_request_id"].as_str() {
            assert!(known.insert(id.to_owned()), "one request of fal belongs to two generations: {row}");
        }
        let paid = row["price_usd"] != "0.000000000";
        assert_eq!(paid, row["state"] == "succeeded", "{row}");
    }
    let state = house.fal_state().await;
    // What fal took is known by its id, or its answer was lost on purpose; nothing was taken twice.
    let lost = |row: &&Value| {
        let answer_was_lost = ["lost-after", "half-submit", "broken-submit"].contains(&row["user"].as_str().unwrap());
        answer_was_lost && row["state"] == "expired" && row["fal_request_id"].is_null()
    };
    let lost = rows.iter().filter(lost).count();
    let accepted = state["accepted_submits"].as_u64().unwrap();
    assert_eq!(accepted, (known.len() + lost) as u64, "known {}, lost {lost}", known.len());
    assert!(lost > 0 && known.len() > lost);
    let recorded: u64 =
        rows.iter().filter(|row| row["state"] == "succeeded").map(|row| row["num_images"].as_u64().unwrap()).sum();
    assert_eq!(state["delivered_images"].as_u64().unwrap(), recorded, "what fal delivered is what is recorded");
    assert!(delivered.load(Ordering::Relaxed) <= recorded);
    assert!(recorded > total / 4, "hardly anything was made: {recorded} of {total}");
    assert!(rows.len() as u64 <= total);
}

/// Every generation in the books.
async fn all_rows(house: &House) -> Vec<Value> {
    let mut rows: Vec<Value> = Vec::new();
    let client = client();
    loop {
        let after = rows.last().map(|row| format!("&after={}", row["id"].as_str().unwrap())).unwrap_or_default();
        let path = format!("{}/admin/v1/generations?limit=1000{after}", house.gateway.base);
        let page = client.request(Method::GET, path).bearer_auth(crate::support::ADMIN_KEY).send().await.unwrap();
        let page = read(page, StatusCode::OK).await;
        rows.extend(page["data"].as_array().unwrap().iter().cloned());
        if page["has_more"] != json!(true) {
            return rows;
        }
    }
}
