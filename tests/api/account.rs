//! AIML's account routes, checked against the types that AIML publishes for them.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{ADMIN_KEY, Database, House, on_both_databases, read, t_rex};

on_both_databases!(the_account_routes_answer_as_aimls_types_say, what_an_account_route_is_asked_wrongly_is_refused);

/// An answer of an account route, after it was checked against AIML's type of it.
async fn get(house: &House, path: &str) -> Value {
    let answer = read(house.gateway.project(Method::GET, path).send().await.unwrap(), StatusCode::OK).await;
    let types: Value = serde_json::from_str(include_str!("../aiml/account.json")).unwrap();
    let route = path.split('?').next().unwrap();
    let known = types.get(route).unwrap_or_else(|| &types[format!("/v1{route}")]);
    let validator = jsonschema::options().should_validate_formats(true).build(known).unwrap();
    let problems: Vec<String> = validator.iter_errors(&answer).map(|problem| problem.to_string()).collect();
    assert!(problems.is_empty(), "{path}: {problems:?}\n{answer}");
    answer
}

async fn the_account_routes_answer_as_aimls_types_say(kind: Database) {
    let house = House::new(kind).await;
    let fresh = get(&house, "/v1/key").await;
    assert_eq!((&fresh["data"]["limit"], &fresh["data"]["monthly_usage_usd"]), (&Value::Null, &json!("0.000000000")));
    let empty = get(&house, "/v2/logs").await;
    assert_eq!(empty["pagination"], json!({"limit": 50, "offset": 0, "total": 0, "has_more": false}));
    for n in [1, 2] {
        let body = json!({"model": "flux/dev", "prompt": "a", "n": n, "size": "1024x1024"});
        read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::CREATED).await;
    }
    let realism = house.gateway.generate(&t_rex()).send().await.unwrap();
    let header = |name: &str| realism.headers()[name].to_str().unwrap().to_owned();
    let (inference, request, credits) =
        (header("x-inference-id"), header("x-request-id"), header("x-aimlapi-credits-used"));
    read(realism, StatusCode::CREATED).await;
    house.misbehave(json!({"times": 1, "do": {"fail": {"status": 500}}})).await;
    assert!(!house.gateway.generate(&t_rex()).send().await.unwrap().status().is_success());

    let id = house.gateway.generations().await[0]["api_key_id"].as_str().unwrap().to_owned();
    let path = format!("/admin/v1/keys/{id}");
    let changed = house.gateway.admin(Method::PATCH, &path).json(&json!({"budget_usd": "25"})).send().await.unwrap();
    read(changed, StatusCode::OK).await;
    let key = get(&house, "/key").await;
    let data = &key["data"];
    assert_eq!(data["limit"]["threshold"], 25.0);
    assert_eq!((&data["monthly_usage_usd"], &data["disabled"]), (&json!("0.110000000"), &json!(false)));
    assert!(data["updated_at"].as_str() > data["created_at"].as_str(), "{data}");

    let prefix = data["prefix"].as_str().unwrap();
    for window in ["", "?period=24h", "?period=7d", &format!("?period=92d&key_prefix={prefix}")] {
        let usage = get(&house, &format!("/v2/usage{window}")).await;
        assert_eq!((&usage["spend_usd"], &usage["requests"]), (&json!("0.110000000"), &json!(3)), "{window}");
        assert_eq!(usage["currency"], "USD");
    }
    let past = get(&house, "/v2/usage?start=2026-01-01&end=2026-02-01T00:00:00%2B01:00").await;
    assert_eq!((&past["spend_usd"], &past["end"]), (&json!("0.000000000"), &json!("2026-01-31T23:00:00.000Z")));

    let logs = get(&house, "/v2/logs").await;
    let rows = logs["data"].as_array().unwrap();
    let told: Vec<(&str, &str)> =
        rows.iter().map(|row| (row["status"].as_str().unwrap(), row["cost"]["exact_usd"].as_str().unwrap())).collect();
    let expected = [
        ("failed", "0.000000000"),
        ("succeeded", "0.035000000"),
        ("succeeded", "0.050000000"),
        ("succeeded", "0.025000000"),
    ];
    assert_eq!(told, expected);
    assert_eq!((&rows[1]["inference_id"], &rows[1]["request_id"]), (&json!(inference), &json!(request)));
    assert_eq!(rows[1]["cost"]["credits"].to_string(), credits);
    for (filter, total, shown) in [
        ("status=failed", 1, 1),
        ("status=failed&status=succeeded", 4, 4),
        ("model=flux/dev", 2, 2),
        ("model=flux/dev&model=flux-realism&status=succeeded", 3, 3),
        ("limit=2", 4, 2),
        ("limit=2&offset=3", 4, 1),
        ("model=nothing", 0, 0),
    ] {
        let page = get(&house, &format!("/v2/logs?{filter}")).await;
        let pagination = &page["pagination"];
        assert_eq!((&pagination["total"], page["data"].as_array().unwrap().len()), (&json!(total), shown), "{filter}");
        assert_eq!(pagination["has_more"], json!(filter == "limit=2"), "{filter}");
    }
    for path in ["/v1/billing/balance", "/v2/billing"] {
        get(&house, path).await;
    }
}

async fn what_an_account_route_is_asked_wrongly_is_refused(kind: Database) {
    let house = House::with(kind, Duration::ZERO, &[]).await;
    for path in [
        "/v2/usage?period=1w",
        "/v2/usage?period=93d",
        "/v2/usage?period=1d&start=2026-01-01&end=2026-01-02",
        "/v2/usage?start=2026-01-01",
        "/v2/usage?end=2026-01-01",
        "/v2/usage?start=2026-01-02&end=2026-01-01",
        "/v2/usage?start=2026-01-01&end=2026-04-04",
        "/v2/usage?start=yesterday&end=today",
        "/v2/usage?colour=blue",
        "/v2/logs?status=succeeded,lost",
        "/v2/logs?limit=101",
        "/v2/logs?limit=0",
        "/v2/logs?offset=-1",
        "/v2/logs?offset=1000001",
    ] {
        read(house.gateway.project(Method::GET, path).send().await.unwrap(), StatusCode::BAD_REQUEST).await;
    }
    let foreign = house.gateway.project(Method::GET, "/v2/usage?key_prefix=sk-ig-abcdef").send().await.unwrap();
    read(foreign, StatusCode::FORBIDDEN).await;
    for path in ["/v1/key", "/v2/usage", "/v2/logs"] {
        read(house.gateway.request(Method::GET, path).send().await.unwrap(), StatusCode::UNAUTHORIZED).await;
        let admin = house.gateway.request(Method::GET, path).bearer_auth(ADMIN_KEY).send().await.unwrap();
        read(admin, StatusCode::FORBIDDEN).await;
    }
}
