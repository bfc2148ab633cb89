//! Billing events: `CloudEvents` that a billing system may take twice without harm, and fal's own beside our books.

use std::collections::BTreeSet;
use std::process::Output;

use imagegate::sandbox;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Database, House, Start, client, fal_state, on_both_databases, read, t_rex};

on_both_databases!(
    billing_events_have_stable_ids_and_the_form_of_cloud_events,
    our_costs_agree_with_fals_billing_events_or_the_difference_is_told,
);

async fn events(house: &House, query: &str) -> Vec<Value> {
    let answer = house.gateway.admin(Method::GET, &format!("/admin/v1/events?{query}")).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    answer.text().await.unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn billing_events_have_stable_ids_and_the_form_of_cloud_events(kind: Database) {
    let house = House::new(kind).await;
    assert!(events(&house, "start_time=0").await.is_empty());
    for n in [1, 3] {
        let body = json!({"model": "flux/dev", "prompt": "a", "n": n, "size": "1024x1024", "user": "ada"});
        read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::CREATED).await;
    }
    let generations = house.gateway.generations().await;
    // A charge that an operator gives back in part.
    let first = generations[1]["id"].as_str().unwrap();
    let path = format!("/admin/v1/generations/{first}/refunds");
    let refund = json!({"amount_usd": "0.01", "reason": "blurred"});
    let refund = house.gateway.admin(Method::POST, &path).json(&refund).send().await.unwrap();
    let refund = read(refund, StatusCode::CREATED).await;
    let told = events(&house, "start_time=0").await;
    assert_eq!(told.len(), 3);
    assert_eq!(events(&house, "start_time=0").await, told, "asked twice, the same events");
    let replica = house.another().await;
    let elsewhere = replica.admin(Method::GET, "/admin/v1/events?start_time=0").send().await.unwrap();
    let elsewhere: Vec<Value> =
        elsewhere.text().await.unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(elsewhere, told, "another replica, the same events");
    let ids: BTreeSet<&str> = told.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), told.len());
    for event in &told {
        // The attributes that CloudEvents 1.0 demands, and the rules for those it names.
        assert_eq!((&event["specversion"], &event["source"]), (&json!("1.0"), &json!("urn:imagegate")));
        assert_eq!(event["datacontenttype"], "application/json");
        for attribute in ["id", "type", "subject", "time"] {
            assert!(event[attribute].as_str().is_some_and(|text| !text.is_empty()), "{attribute}: {event}");
        }
        assert!(chrono::DateTime::parse_from_rfc3339(event["time"].as_str().unwrap()).is_ok());
        let names = event.as_object().unwrap().keys();
        assert!(names.into_iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())));
        assert!(event["data"].is_object());
    }
    assert_eq!(told[0]["type"], "imagegate.generation.settled");
    let data = &told[0]["data"];
    assert_eq!((&data["generation_id"], &data["images"], &data["user"]), (&json!(first), &json!(1), &json!("ada")));
    assert_eq!((&data["price_usd"], &data["price_nano_usd"]), (&json!("0.025000000"), &json!(25_000_000)));
    assert_eq!(told[1]["data"]["price_nano_usd"], 75_000_000);
    let refunded = &told[2];
    assert_eq!((&refunded["type"], &refunded["id"]), (&json!("imagegate.generation.refunded"), &refund["id"]));
    let data = &refunded["data"];
    assert_eq!((&data["generation_id"], &data["images"], &data["user"]), (&json!(first), &json!(0), &json!("ada")));
    assert_eq!((&data["price_usd"], &data["price_nano_usd"]), (&json!("-0.010000000"), &json!(-10_000_000)));
    assert_eq!((&data["megapixels"], &data["cost_usd"]), (&json!("0"), &json!("0.000000000")));
    let project = generations[0]["project_id"].as_str().unwrap();
    assert_eq!(events(&house, &format!("start_time=0&project_id={project}")).await.len(), 3);
    let other = "proj_00000000000070008000000000000000";
    assert!(events(&house, &format!("start_time=0&project_id={other}")).await.is_empty());
    let settled = generations[0]["settled_at"].as_i64().unwrap();
    assert!(events(&house, &format!("start_time=0&end_time={}", settled - 60)).await.is_empty());
    for wrong in ["", "start_time=5&end_time=5", "start_time=soon", "start_time=0&project_id=x"] {
        let answer = house.gateway.admin(Method::GET, &format!("/admin/v1/events?{wrong}")).send().await.unwrap();
        read(answer, StatusCode::BAD_REQUEST).await;
    }
}

/// What `imagegate reconcile` says of this database beside what this stand-in has billed.
pub(crate) fn reconcile(database_url: &str, fal: &sandbox::Running, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let platform = format!("{}/v1", fal.queue_url());
    let mut command = Start::new(database_url, "http://127.0.0.1:1").with("FAL_API_URL", &platform).command(&folder);
    command.arg("reconcile").args(arguments).output().unwrap()
}

async fn our_costs_agree_with_fals_billing_events_or_the_difference_is_told(kind: Database) {
    let house = House::with(kind, std::time::Duration::ZERO, &[("IMAGEGATE_MARKUP", "2")]).await;
    for n in [1, 2] {
        let body = json!({"model": "flux/dev", "prompt": "a", "n": n, "size": "1024x1024"});
        read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::CREATED).await;
    }
    let good = reconcile(&house.database.url, &house.fal, &["--from", "2026-01-01"]);
    let said = String::from_utf8(good.stdout).unwrap();
    assert!(good.status.success(), "{said}{}", String::from_utf8_lossy(&good.stderr));
    assert_eq!(said, "All 2 requests agree.\n");
    // fal's header names other units than fal bills.
    house.misbehave(json!({"times": 1, "do": {"wrong_units": "3.00000000"}})).await;
    read(house.gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::CREATED).await;
    let wrong = house.gateway.generations().await[0].clone();
    // Somebody uses our key past the gateway.
    let past = client()
        .post(format!("{}/fal-ai/flux/dev", house.fal.queue_url()))
        .header("authorization", "Key test:test")
        .json(&json!({"prompt": "a"}))
        .send()
        .await
        .unwrap();
    let past = read(past, StatusCode::OK).await["request_id"].as_str().unwrap().to_owned();
    assert!(!fal_state(&house.fal).await.is_null());
    let bad = reconcile(&house.database.url, &house.fal, &["--from", "2026-01-01", "--json"]);
    assert!(!bad.status.success());
    let told: Value = serde_json::from_slice(&bad.stdout).unwrap();
    assert_eq!((&told["requests"], &told["agreeing"]), (&json!(4), &json!(2)));
    let row = |finding: &str| {
        let rows = told["differences"].as_array().unwrap();
        rows.iter().find(|row| row["finding"] == finding).unwrap_or_else(|| panic!("{told}")).clone()
    };
    let differs = row("differs");
    assert_eq!((&differs["fal_request_id"], &differs["generation_id"]), (&wrong["fal_request_id"], &wrong["id"]));
    assert_eq!(differs["booked_usd"], wrong["cost_usd"]);
    assert_eq!(differs["billed_usd"], "0.035000000");
    let unbooked = row("not_booked");
    assert_eq!((&unbooked["fal_request_id"], &unbooked["generation_id"]), (&json!(past), &Value::Null));
    let table =
        String::from_utf8(reconcile(&house.database.url, &house.fal, &["--from", "2026-01-01"]).stdout).unwrap();
    assert!(table.lines().next().unwrap().starts_with("FINDING") && table.contains(&past), "{table}");
    // Before and after: nothing on either side.
    let nothing = reconcile(&house.database.url, &house.fal, &["--from", "2026-01-01", "--to", "2026-01-02"]);
    assert_eq!(String::from_utf8(nothing.stdout).unwrap(), "All 0 requests agree.\n");
    for arguments in [["--from", "yesterday"].as_slice(), &["--from", "2026-01-02", "--to", "2026-01-01"]] {
        assert!(!reconcile(&house.database.url, &house.fal, arguments).status.success(), "{arguments:?}");
    }
    let drifted = house.gateway.admin(Method::GET, "/admin/v1/generations?drifted=true").send().await.unwrap();
    let drifted = read(drifted, StatusCode::OK).await;
    let ids: Vec<&Value> = drifted["data"].as_array().unwrap().iter().map(|row| &row["id"]).collect();
    assert_eq!(ids, [&wrong["id"]], "what fal's header says otherwise than the catalogue is found");
}
