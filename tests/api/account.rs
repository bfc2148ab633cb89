//! AIML's account routes, checked against the types that AIML publishes for them.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{ADMIN_KEY, Database, House, on_both_databases, read, t_rex};

on_both_databases!(
    the_account_routes_answer_as_aimls_types_say,
    what_an_account_route_is_asked_wrongly_is_refused,
    usage_in_detail_adds_up_by_model_and_by_day,
    transactions_are_the_projects_ledger_page_by_page,
    keys_are_listed_without_their_values_and_only_to_their_project,
    models_that_end_and_how_long_images_take_are_told,
);

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
        "/v2/usage/detail?group_by=hour",
        "/v2/usage/detail?tz=Europe/Berlin",
        "/v2/usage/detail?period=1w",
        "/v2/billing/transactions?direction=IN",
        "/v2/billing/transactions?type=GIFT",
        "/v2/billing/transactions?type=BONUS&kind=BONUS",
        "/v2/billing/transactions?limit=101",
        "/v2/billing/transactions?cursor=none",
        "/v2/billing/transactions?from=2026-02-01&to=2026-01-01",
        "/v2/billing/transactions?start=2026-02-01&end=2026-02-01",
        "/v2/billing/transactions?from=2026-02-01&start=2026-02-01",
        "/v2/billing/transactions?to=tomorrow",
        "/v1/models/metrics?model=flux/dev",
    ] {
        read(house.gateway.project(Method::GET, path).send().await.unwrap(), StatusCode::BAD_REQUEST).await;
    }
    let foreign = house.gateway.project(Method::GET, "/v2/usage?key_prefix=sk-ig-abcdef").send().await.unwrap();
    read(foreign, StatusCode::FORBIDDEN).await;
    let foreign = house.gateway.project(Method::GET, "/v2/usage/detail?key_prefix=sk-ig-abcdef").send().await.unwrap();
    read(foreign, StatusCode::FORBIDDEN).await;
    for path in [
        "/v1/key",
        "/v2/usage",
        "/v2/logs",
        "/v2/usage/detail",
        "/v2/billing/detail",
        "/v2/billing/transactions",
        "/v1/keys",
        "/v1/models/metrics",
    ] {
        read(house.gateway.request(Method::GET, path).send().await.unwrap(), StatusCode::UNAUTHORIZED).await;
        let admin = house.gateway.request(Method::GET, path).bearer_auth(ADMIN_KEY).send().await.unwrap();
        read(admin, StatusCode::FORBIDDEN).await;
    }
}

/// Makes images: two requests of flux/dev, one of another model, one that fails. What was charged in the end.
async fn spend(house: &House) -> &'static str {
    for n in [1, 2] {
        let body = json!({"model": "flux/dev", "prompt": "a", "n": n, "size": "1024x1024"});
        read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::CREATED).await;
    }
    read(house.gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::CREATED).await;
    house.misbehave(json!({"times": 1, "do": {"fail": {"status": 500}}})).await;
    assert!(!house.gateway.generate(&t_rex()).send().await.unwrap().status().is_success());
    "0.110000000"
}

/// A key of another project, which has spent nothing.
async fn strangers_key(house: &House) -> String {
    let new = house.gateway.admin(Method::POST, "/v1/organization/projects").json(&json!({"name": "another"}));
    let other = read(new.send().await.unwrap(), StatusCode::OK).await["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/organization/projects/{other}/service_accounts");
    let made = house.gateway.admin(Method::POST, &path).json(&json!({"name": "stranger"})).send().await.unwrap();
    read(made, StatusCode::OK).await["api_key"]["value"].as_str().unwrap().to_owned()
}

async fn usage_in_detail_adds_up_by_model_and_by_day(kind: Database) {
    let house = House::new(kind).await;
    let nothing = get(&house, "/v2/usage/detail").await;
    assert_eq!((&nothing["models"], &nothing["spend_usd"]), (&json!([]), &json!("0.000000000")));
    assert!(nothing.get("groups").is_none());
    let spent = spend(&house).await;
    let detail = get(&house, "/v2/usage/detail?period=7d").await;
    assert_eq!((&detail["spend_usd"], &detail["requests"]), (&json!(spent), &json!(3)));
    let models: Vec<Value> = detail["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| json!([model["model"], model["spend_usd"], model["requests"]]))
        .collect();
    assert_eq!(json!(models), json!([["flux/dev", "0.075000000", 2], ["flux-realism", "0.035000000", 1]]));
    for (grouping, rows) in [("day", 1), ("model", 2), ("day,model", 2)] {
        let detail = get(&house, &format!("/v2/usage/detail?period=1d&group_by={grouping}&tz=UTC")).await;
        let groups = detail["groups"].as_array().unwrap();
        // A test may begin before midnight and end after it.
        assert!(groups.len() >= rows, "{grouping}: {detail}");
        let sum = |name: &str| groups.iter().map(|group| group["requests"][name].as_u64().unwrap()).sum::<u64>();
        assert_eq!([sum("total"), sum("charged"), sum("succeeded"), sum("failed")], [4, 3, 3, 1], "{grouping}");
        let near: f64 = groups.iter().map(|group| group["spend"].as_f64().unwrap()).sum();
        assert!((near - 0.11).abs() < 1e-9, "{grouping}: {near}");
        assert!(groups.iter().all(|group| group["tokens"] == json!({"input": 0, "output": 0, "total": 0})));
        assert_eq!(groups.iter().all(|group| group["day"].is_string()), grouping.contains("day"));
        assert_eq!(groups.iter().all(|group| group["model"].is_string()), grouping.contains("model"));
    }
    let stranger = strangers_key(&house).await;
    let theirs = house.gateway.request(Method::GET, "/v2/usage/detail").bearer_auth(stranger).send().await.unwrap();
    assert_eq!(read(theirs, StatusCode::OK).await["models"], json!([]));
}

async fn transactions_are_the_projects_ledger_page_by_page(kind: Database) {
    let house = House::new(kind).await;
    assert_eq!(get(&house, "/v2/billing/transactions").await["data"], json!([]));
    for (amount, what) in [("5", "top_up"), ("2", "goodwill"), ("-1", "correction")] {
        let credit = house.gateway.admin(Method::POST, "/admin/v1/projects/default/credits");
        let body = json!({"amount_usd": amount, "kind": what, "reason": "a test"});
        read(credit.json(&body).send().await.unwrap(), StatusCode::CREATED).await;
    }
    spend(&house).await;
    let made = house.gateway.generations().await;
    let charged = made.iter().find(|row| row["price_usd"] == "0.050000000").unwrap()["id"].as_str().unwrap().to_owned();
    let refund = house.gateway.admin(Method::POST, &format!("/admin/v1/generations/{charged}/refunds"));
    let refund = refund.json(&json!({"amount_usd": "0.02", "reason": "a test"})).send().await.unwrap();
    assert!(refund.status().is_success());

    let all = get(&house, "/v2/billing/transactions").await;
    assert_eq!(all["pagination"], json!({"next_cursor": null, "has_more": false}));
    let line = |row: &Value| {
        json!([
            row["direction"],
            row["type"],
            row["amount"]["exact_usd"],
            row["model"],
            row["reference_id"].is_string()
        ])
    };
    let lines: Vec<Value> = all["data"].as_array().unwrap().iter().map(line).collect();
    let expected = json!([
        ["TOPUP", "REFUND", "0.020000000", null, true],
        ["CHARGE", "MODEL_USAGE", "0.035000000", "flux-realism", true],
        ["CHARGE", "MODEL_USAGE", "0.050000000", "flux/dev", true],
        ["CHARGE", "MODEL_USAGE", "0.025000000", "flux/dev", true],
        ["CHARGE", "ADJUSTMENT", "1.000000000", null, false],
        ["TOPUP", "BONUS", "2.000000000", null, false],
        ["TOPUP", "PAYMENT", "5.000000000", null, true],
    ]);
    assert_eq!(json!(lines), expected, "the failed request moved nothing");
    assert_eq!(all["data"][0]["reference_id"], json!(charged));
    for (filter, shown) in [
        ("direction=TOPUP", 3),
        ("direction=CHARGE", 4),
        ("type=MODEL_USAGE", 3),
        ("kind=BONUS", 1),
        ("type=REFUND&direction=CHARGE", 0),
        ("type=INIT", 0),
        ("to=2026-01-01", 0),
        ("end=2026-01-01", 0),
        ("from=2026-01-01&to=2999-01-01", 7),
    ] {
        let page = get(&house, &format!("/v2/billing/transactions?{filter}")).await;
        assert_eq!(page["data"].as_array().unwrap().len(), shown, "{filter}");
    }
    // Page by page, each line once.
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(&house, &format!("/v2/billing/transactions?limit=3{cursor}")).await;
        pages.extend(page["data"].as_array().unwrap().iter().map(line));
        let Some(next) = page["pagination"]["next_cursor"].as_str() else { break };
        assert_eq!(page["pagination"]["has_more"], true);
        cursor = format!("&cursor={next}");
    }
    assert_eq!(json!(pages), expected);
    let stranger = strangers_key(&house).await;
    let theirs = house.gateway.request(Method::GET, "/v2/billing/transactions").bearer_auth(stranger).send();
    assert_eq!(read(theirs.await.unwrap(), StatusCode::OK).await["data"], json!([]));

    let detail = house.gateway.project(Method::GET, "/v2/billing/detail").send().await.unwrap();
    let detail = read(detail, StatusCode::OK).await;
    let billing = get(&house, "/v2/billing").await;
    assert_eq!(detail["current_balance_usd"], billing["current_balance_usd"]);
    assert_eq!(
        (&detail["project_name"], &detail["autotopup_settings"]["is_enabled"]),
        (&json!("default"), &json!(false))
    );
    assert!(detail["user_id"].is_null() && detail["email"].is_null(), "{detail}");
}

async fn keys_are_listed_without_their_values_and_only_to_their_project(kind: Database) {
    let house = House::new(kind).await;
    let spent = spend(&house).await;
    let default = house.gateway.admin(Method::GET, "/admin/v1/projects/default").send().await.unwrap();
    let default = read(default, StatusCode::OK).await["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/organization/projects/{default}/service_accounts");
    let made = house.gateway.admin(Method::POST, &path).json(&json!({"name": "second"})).send().await.unwrap();
    let made = read(made, StatusCode::OK).await["api_key"].clone();
    let (id, value) = (made["id"].as_str().unwrap(), made["value"].as_str().unwrap().to_owned());
    let terms = json!({"budget_usd": "25", "expires_at": 1_000_000_000});
    let changed =
        house.gateway.admin(Method::PATCH, &format!("/admin/v1/keys/{id}")).json(&terms).send().await.unwrap();
    read(changed, StatusCode::OK).await;
    let stranger = strangers_key(&house).await;

    let keys = get(&house, "/keys").await;
    let data = keys["data"].as_array().unwrap();
    assert_eq!(data.len(), 2, "{keys}");
    assert_eq!((&data[0]["monthly_usage_usd"], &data[0]["limit"]), (&json!(spent), &Value::Null));
    let second = &data[1];
    assert_eq!((&second["disabled"], &second["limit"]["threshold"]), (&json!(true), &json!(25.0)));
    assert_eq!(second["monthly_usage_usd"], "0.000000000");
    assert!(second["updated_at"].as_str() > second["created_at"].as_str(), "{second}");
    let text = keys.to_string();
    for secret in [crate::support::PROJECT_KEY, ADMIN_KEY, value.as_str(), stranger.as_str()] {
        assert!(!text.contains(secret), "{text}");
    }
    let prefix = second["prefix"].as_str().unwrap();
    assert!(value.starts_with(prefix) && prefix.len() * 2 < value.len(), "{prefix}");
    let theirs = house.gateway.request(Method::GET, "/v1/keys").bearer_auth(&stranger).send().await.unwrap();
    let theirs = read(theirs, StatusCode::OK).await;
    assert_eq!((theirs["data"].as_array().unwrap().len(), &theirs["data"][0]["monthly_usage"]), (1, &json!(0.0)));
    // What AIML's clients make and change there, operators do here.
    for method in [Method::POST, Method::DELETE] {
        let answer = house.gateway.project(method, "/v1/keys").send().await.unwrap();
        assert_eq!(answer.headers()["allow"], "GET, HEAD");
        read(answer, StatusCode::METHOD_NOT_ALLOWED).await;
    }
}

async fn models_that_end_and_how_long_images_take_are_told(kind: Database) {
    let house = House::with(kind, Duration::from_millis(300), &[]).await;
    let listed = house.gateway.request(Method::GET, "/models/deprecations").send().await.unwrap();
    let listed = read(listed, StatusCode::OK).await;
    let rows = listed["data"].as_array().unwrap();
    let find = |id: &str| rows.iter().find(|row| row["id"] == id).unwrap_or_else(|| panic!("{id}: {listed}"));
    assert_eq!(find("flux-pro")["status"], "deprecated");
    let withdrawn = find("bytedance/seedream/v3/text-to-image");
    assert_eq!(withdrawn["status"], "withdrawn");
    assert!(withdrawn["replaced_by"].is_string(), "{withdrawn}");
    assert!(rows.iter().all(|row| row["id"] != "flux/dev"));

    assert_eq!(get(&house, "/v1/models/metrics").await["models"], json!([]));
    spend(&house).await;
    let metrics = get(&house, "/models/metrics").await;
    let models = metrics["models"].as_array().unwrap();
    let names: Vec<&Value> = models.iter().map(|model| &model["alias"]).collect();
    assert_eq!(names, ["flux-realism", "flux/dev"]);
    for model in models {
        let of = |name: &str| model["metrics"]["duration_ms"][name].as_f64().unwrap();
        assert!(of("p50") >= 300.0 && of("p50") <= of("p75") && of("p90") <= of("p99"), "{model}");
    }
    let one = get(&house, "/v1/models/metrics?aliases=fal-ai/flux/dev&aliases=none").await;
    assert_eq!((one["models"].as_array().unwrap().len(), &one["models"][0]["alias"]), (1, &json!("flux/dev")));
    let stranger = strangers_key(&house).await;
    let theirs = house.gateway.request(Method::GET, "/v1/models/metrics").bearer_auth(stranger).send().await.unwrap();
    assert_eq!(read(theirs, StatusCode::OK).await["models"], json!([]));
}
