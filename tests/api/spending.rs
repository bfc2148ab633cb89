//! What a project may spend and ask for, from outside: limits that hold under load and over two replicas, and what the
//! operator sets them by.

use std::time::Duration;

use futures_util::StreamExt;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Database, Gateway, House, eventually, on_both_databases, read, t_rex};

on_both_databases!(
    a_thousand_parallel_requests_against_credit_for_ten_make_ten_images,
    a_thousand_parallel_requests_in_a_minute_of_ten_make_ten_images,
    the_budget_of_a_key_holds_and_so_do_its_models_and_its_expiry,
    the_limits_of_a_month_hold_for_the_project_and_for_the_organization,
    generations_at_once_are_limited_and_the_next_one_fits_when_one_has_ended,
    a_projects_policy_cannot_be_passed_by,
    credits_are_booked_once_with_reason_and_author_and_show_in_the_balance,
    a_refund_names_its_generation_and_gives_back_no_more_than_was_charged,
    what_an_operator_sets_wrongly_is_refused_and_changes_nothing,
);

/// The least that can be asked for: 0.025 $ for one image.
fn cheap() -> Value {
    json!({"model": "flux/dev", "prompt": "a", "image_size": {"width": 512, "height": 512}})
}

/// Fires a thousand requests over two replicas; status, code and headers of each answer.
async fn a_thousand(replicas: [&Gateway; 2]) -> Vec<(StatusCode, Value, HeaderMap)> {
    let calls = (0..1000).map(|n| {
        let request = replicas[n % 2].generate(&cheap());
        async move {
            let answer = request.send().await.unwrap();
            let (status, headers) = (answer.status(), answer.headers().clone());
            (status, answer.json::<Value>().await.unwrap(), headers)
        }
    });
    futures_util::stream::iter(calls).buffer_unordered(200).collect().await
}

async fn a_thousand_parallel_requests_against_credit_for_ten_make_ten_images(kind: Database) {
    let house = House::new(kind).await;
    let other = house.another().await;
    house.gateway.set_project(&json!({"prepaid": true})).await;
    let price = read(
        house.gateway.project(Method::POST, "/v1/images/generations/quote").json(&cheap()).send().await.unwrap(),
        StatusCode::OK,
    )
    .await["price_usd"]
        .as_str()
        .unwrap()
        .parse::<imagegate::domain::Money>()
        .unwrap();
    // Ten images, and not quite an eleventh.
    let amount = imagegate::domain::Money::from_nanos(price.nanos() * 11 - 1);
    let credit = json!({"amount_usd": amount.to_string(), "reason": "paid in"});
    let booked =
        house.gateway.admin(Method::POST, "/admin/v1/projects/default/credits").json(&credit).send().await.unwrap();
    read(booked, StatusCode::CREATED).await;
    let answers = a_thousand([&house.gateway, &other]).await;
    let made = answers.iter().filter(|(status, ..)| *status == StatusCode::CREATED).count();
    assert_eq!(made, 10);
    for (status, body, _) in answers.iter().filter(|(status, ..)| *status != StatusCode::CREATED) {
        assert_eq!(
            (*status, &body["error"]["data"]["kind"]),
            (StatusCode::FORBIDDEN, &json!("err_insufficent_credits"))
        );
        assert!(body["message"].as_str().unwrap().starts_with("You've run out of credits."), "{body}");
    }
    assert_eq!(house.fal_state().await["accepted_submits"], 10);
    assert_eq!(house.gateway.generations().await.len(), 10);
}

async fn a_thousand_parallel_requests_in_a_minute_of_ten_make_ten_images(kind: Database) {
    let house = House::new(kind).await;
    let other = house.another().await;
    let rates = json!([{"model": "FLUX/dev", "requests_per_minute": 10, "images_per_minute": 100}]);
    let project = house.gateway.set_project(&json!({"limits": {"rates": rates}})).await;
    assert_eq!(project["limits"]["rates"][0]["model"], "flux/dev");
    let answers = a_thousand([&house.gateway, &other]).await;
    let made: Vec<_> = answers.iter().filter(|(status, ..)| *status == StatusCode::CREATED).collect();
    assert_eq!(made.len(), 10);
    let mut left: Vec<_> =
        made.iter().map(|(_, _, headers)| headers["x-ratelimit-remaining-requests"].to_str().unwrap()).collect();
    left.sort_unstable();
    assert_eq!(left, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    assert_eq!(made[0].2["x-ratelimit-limit-requests"], "10");
    assert_eq!(made[0].2["x-ratelimit-limit-images"], "100");
    for (status, body, headers) in answers.iter().filter(|(status, ..)| *status != StatusCode::CREATED) {
        assert_eq!((*status, &body["error"]["code"]), (StatusCode::TOO_MANY_REQUESTS, &json!("rate_limit_exceeded")));
        assert_eq!(body["error"]["type"], "rate_limit_error");
        let wait: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=61).contains(&wait), "{wait}");
        assert_eq!(
            (&headers["x-ratelimit-limit-requests"], &headers["x-ratelimit-remaining-requests"]),
            (&"10".parse().unwrap(), &"0".parse().unwrap())
        );
        assert!(headers["x-ratelimit-reset-requests"].to_str().unwrap().ends_with('s'));
    }
    assert_eq!(house.fal_state().await["accepted_submits"], 10);
    // Another model is not limited, and its answers say nothing of limits.
    let free = house.gateway.generate(&t_rex()).send().await.unwrap();
    assert!(!free.headers().contains_key("x-ratelimit-limit-requests"));
    read(free, StatusCode::CREATED).await;
}

/// The id of the tests' project key.
async fn key_id(house: &House) -> String {
    read(house.gateway.generate(&cheap()).send().await.unwrap(), StatusCode::CREATED).await;
    house.gateway.generations().await[0]["api_key_id"].as_str().unwrap().to_owned()
}

async fn the_budget_of_a_key_holds_and_so_do_its_models_and_its_expiry(kind: Database) {
    let house = House::new(kind).await;
    let path = format!("/admin/v1/keys/{}", key_id(&house).await);
    let set = async |terms: Value| {
        read(house.gateway.admin(Method::PATCH, &path).json(&terms).send().await.unwrap(), StatusCode::OK).await
    };
    let spent = set(json!({})).await["spent_usd"].as_str().unwrap().to_owned();
    let key = set(json!({"budget_usd": spent, "allowed_models": ["Flux/Dev"]})).await;
    assert_eq!((&key["budget_usd"], &key["allowed_models"]), (&json!(spent), &json!(["flux/dev"])));
    let refused = read(house.gateway.generate(&cheap()).send().await.unwrap(), StatusCode::FORBIDDEN).await;
    assert_eq!(refused["error"]["data"]["kind"], "err_key_budget_reached");
    set(json!({"budget_usd": null})).await;
    let refused = read(house.gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::FORBIDDEN).await;
    assert_eq!((&refused["error"]["code"], &refused["error"]["param"]), (&json!("permission_denied"), &json!("model")));
    read(house.gateway.generate(&cheap()).send().await.unwrap(), StatusCode::CREATED).await;
    set(json!({"allowed_models": null, "expires_at": 1})).await;
    read(house.gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::UNAUTHORIZED).await;
    set(json!({"expires_at": null})).await;
    read(house.gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::CREATED).await;
}

async fn the_limits_of_a_month_hold_for_the_project_and_for_the_organization(kind: Database) {
    let house = House::new(kind).await;
    read(house.gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::CREATED).await;
    house.gateway.set_project(&json!({"spend_limit_usd": "0.069999999"})).await;
    let refused = read(house.gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::FORBIDDEN).await;
    assert_eq!(refused["error"]["data"]["kind"], "err_spend_limit_reached");
    house.gateway.set_project(&json!({"spend_limit_usd": null})).await;
    let limit = async |limit: Value| {
        let body = json!({"spend_limit_usd": limit});
        let answer = house.gateway.admin(Method::PATCH, "/admin/v1/organization").json(&body).send().await.unwrap();
        read(answer, StatusCode::OK).await
    };
    assert_eq!(limit(json!("0.07")).await["spend_limit_usd"], "0.070000000");
    read(house.gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::CREATED).await;
    let refused = read(house.gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::FORBIDDEN).await;
    assert_eq!(refused["error"]["data"]["kind"], "err_organization_limit_reached");
    limit(Value::Null).await;
    read(house.gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::CREATED).await;
}

async fn generations_at_once_are_limited_and_the_next_one_fits_when_one_has_ended(kind: Database) {
    let house = House::with(kind, Duration::from_secs(8), &[]).await;
    house.gateway.set_project(&json!({"limits": {"concurrent_generations": 2}})).await;
    let mut body = cheap();
    body["background"] = json!(true);
    for _ in 0..2 {
        read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::ACCEPTED).await;
    }
    let refused = house.gateway.generate(&body).send().await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "1");
    read(refused, StatusCode::TOO_MANY_REQUESTS).await;
    eventually(Duration::from_secs(10), || async {
        (house.gateway.generate(&body).send().await.unwrap().status() == StatusCode::ACCEPTED).then_some(())
    })
    .await;
    for row in house.gateway.generations().await {
        house.gateway.ended(row["id"].as_str().unwrap()).await;
    }
}

async fn a_projects_policy_cannot_be_passed_by(kind: Database) {
    let house = House::new(kind).await;
    let policy = json!({"allowed_models": ["flux-realism"], "require_safety_checker": true, "max_price_usd": "0.07"});
    let project = house.gateway.set_project(&json!({"policy": policy})).await;
    assert_eq!(project["policy"]["max_price_usd"], "0.070000000");
    read(house.gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::CREATED).await;
    for (name, value) in
        [("model", json!("flux/dev")), ("enable_safety_checker", json!(false)), ("num_images", json!(3))]
    {
        let mut body = t_rex();
        body[name] = value;
        let refused = read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::FORBIDDEN).await;
        assert_eq!(refused["error"]["code"], "permission_denied", "{name}");
    }
    assert_eq!(house.gateway.generations().await.len(), 1);
    // A model whose checker is off unless it is asked for: what the refusal asks for is enough.
    house.gateway.set_project(&json!({"policy": {"require_safety_checker": true}})).await;
    let mut body = json!({"model": "recraft-v3", "prompt": "a"});
    let refused = read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::FORBIDDEN).await;
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("send `enable_safety_checker: true`"), "{message}");
    body["enable_safety_checker"] = json!(true);
    read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::CREATED).await;
    let negative = json!({"policy": {"max_price_usd": "-1"}});
    let patch = house.gateway.admin(Method::PATCH, "/admin/v1/projects/default").json(&negative);
    let refused = read(patch.send().await.unwrap(), StatusCode::BAD_REQUEST).await;
    assert_eq!(refused["error"]["param"], "policy.max_price_usd");
    house.gateway.set_project(&json!({"policy": null})).await;
    read(house.gateway.generate(&cheap()).send().await.unwrap(), StatusCode::CREATED).await;
}

async fn credits_are_booked_once_with_reason_and_author_and_show_in_the_balance(kind: Database) {
    let house = House::new(kind).await;
    let get =
        async |path: &str| read(house.gateway.project(Method::GET, path).send().await.unwrap(), StatusCode::OK).await;
    let enough = get("/billing/balance").await;
    assert_eq!((&enough["status"], &enough["lowBalance"]), (&json!("enough"), &json!(false)));
    house.gateway.set_project(&json!({"prepaid": true})).await;
    let empty = get("/v1/billing/balance").await;
    assert_eq!(
        (&empty["balance"], &empty["lowBalance"], &empty["status"]),
        (&json!(0), &json!(true), &json!("exhausted"))
    );
    let credit = |amount: &str, key: &str| {
        house
            .gateway
            .admin(Method::POST, "/admin/v1/projects/default/credits")
            .header("idempotency-key", key)
            .json(&json!({"amount_usd": amount, "reason": "invoice 7"}))
            .send()
    };
    let first = read(credit("1.00", "a").await.unwrap(), StatusCode::CREATED).await;
    assert_eq!((&first["kind"], &first["balance_usd"]), (&json!("top_up"), &json!("1.000000000")));
    assert!(first["author"].as_str().unwrap().contains("key_"));
    let again = credit("1.00", "a").await.unwrap();
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(read(again, StatusCode::CREATED).await["id"], first["id"]);
    read(credit("2.00", "a").await.unwrap(), StatusCode::UNPROCESSABLE_ENTITY).await;
    let correction = read(credit("-0.25", "b").await.unwrap(), StatusCode::CREATED).await;
    assert_eq!((&correction["kind"], &correction["balance_usd"]), (&json!("correction"), &json!("0.750000000")));
    let refused = read(credit("9000000000", "c").await.unwrap(), StatusCode::BAD_REQUEST).await;
    assert_eq!(refused["error"]["param"], "amount_usd", "{refused}");
    for (body, path) in [
        (json!(["1", "why"]), json!([])),
        (json!({"reason": "why"}), json!(["amount_usd"])),
        (json!({"amount_usd": "1", "reason": "why", "currency": "EUR"}), json!(["currency"])),
        (json!({"amount_usd": "1", "reason": "why", "kind": "gift"}), json!(["kind"])),
    ] {
        let asked = house.gateway.admin(Method::POST, "/admin/v1/projects/default/credits").json(&body);
        let refused = read(asked.send().await.unwrap(), StatusCode::BAD_REQUEST).await;
        assert_eq!(refused["error"]["data"][0]["path"], path, "{refused}");
    }
    // The kind is the caller's choice, and the sign must fit.
    for (kind, amount, status) in [
        ("goodwill", "0.50", StatusCode::CREATED),
        ("correction", "0.25", StatusCode::CREATED),
        ("correction", "-0.75", StatusCode::CREATED),
        ("goodwill", "-0.50", StatusCode::BAD_REQUEST),
        ("top_up", "-0.50", StatusCode::BAD_REQUEST),
    ] {
        let body = json!({"amount_usd": amount, "kind": kind, "reason": "sorry"});
        let asked = house.gateway.admin(Method::POST, "/admin/v1/projects/default/credits").json(&body);
        let answer = read(asked.send().await.unwrap(), status).await;
        if status == StatusCode::CREATED {
            assert_eq!(answer["kind"], kind);
        } else {
            assert_eq!(answer["error"]["param"], "amount_usd", "{answer}");
        }
    }
    read(house.gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::CREATED).await;
    let balance = get("/v1/billing/balance").await;
    assert_eq!((&balance["balance"], &balance["balance_usd"]), (&json!(1_430_000), &json!("0.715000000")));
    for field in ["lowBalanceThreshold", "lastUpdated", "autoDebitStatus", "status", "statusExplanation"] {
        assert!(!balance[field].is_null(), "{field}");
    }
    let dollars = get("/v2/billing").await;
    assert_eq!((&dollars["current_balance"], &dollars["currency"]), (&json!(0.715), &json!("USD")));
}

async fn a_refund_names_its_generation_and_gives_back_no_more_than_was_charged(kind: Database) {
    let house = House::new(kind).await;
    let made = read(house.gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::CREATED).await;
    let id = made["id"].as_str().unwrap();
    let refund = async |amount: &str, key: &str, status| {
        let path = format!("/admin/v1/generations/{id}/refunds");
        let body = json!({"amount_usd": amount, "reason": "the picture was blurred"});
        let request = house.gateway.admin(Method::POST, &path).header("idempotency-key", key).json(&body);
        read(request.send().await.unwrap(), status).await
    };
    let part = refund("0.015", "a", StatusCode::CREATED).await;
    assert_eq!((&part["generation_id"], &part["amount_usd"]), (&json!(id), &json!("0.015000000")));
    assert_eq!(part["balance_usd"], "-0.020000000");
    assert_eq!(refund("0.015", "a", StatusCode::CREATED).await["id"], part["id"], "booked once");
    refund("0.016", "a", StatusCode::UNPROCESSABLE_ENTITY).await;
    let refused = refund("0.020000001", "b", StatusCode::BAD_REQUEST).await;
    assert_eq!(refused["error"]["param"], "amount_usd");
    refund("-0.01", "b", StatusCode::BAD_REQUEST).await;
    assert_eq!(refund("0.02", "b", StatusCode::CREATED).await["balance_usd"], "0.000000000");
    // The audit log tells who gave back what: once each, and nothing of what was refused.
    let logs = "/v1/organization/audit_logs?event_types[]=generation.refunded";
    let logs = read(house.gateway.admin(Method::GET, logs).send().await.unwrap(), StatusCode::OK).await;
    let entries = logs["data"].as_array().unwrap();
    let amounts: Vec<&Value> = entries.iter().map(|entry| &entry["after"]["amount_usd"]).collect();
    assert_eq!(amounts, ["0.020000000", "0.015000000"]);
    assert_eq!((&entries[1]["resource_id"], &entries[1]["after"]["transaction_id"]), (&json!(id), &part["id"]));
    assert_eq!(entries[1]["actor"]["session"]["ip_address"], "127.0.0.1");
    let path = format!("/admin/v1/generations/{id}");
    let told = read(house.gateway.admin(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(told["price_usd"], "0.035000000", "what was charged stays as it was booked");
    let unknown = "/admin/v1/generations/gen_00000000-0000-7000-8000-000000000000/refunds";
    let body = json!({"amount_usd": "0.01", "reason": "none"});
    let unknown = house.gateway.admin(Method::POST, unknown).json(&body).send().await.unwrap();
    read(unknown, StatusCode::NOT_FOUND).await;
}

async fn what_an_operator_sets_wrongly_is_refused_and_changes_nothing(kind: Database) {
    let house = House::new(kind).await;
    let before = house.gateway.set_project(&json!({})).await;
    for terms in [
        json!({"prepayed": true}),
        json!({"spend_limit_usd": "-1"}),
        json!({"spend_limit_usd": 1.5e300}),
        json!({"name": ""}),
        json!({"policy": {"allowed_models": ["no-such-model"]}}),
        json!({"policy": {"colour": "red"}}),
        json!({"prompt_retention_seconds": 999_999_999_999_u64}),
        json!({"limits": {"concurrent_generations": 0}}),
        json!({"limits": {"rates": [{"model": "*"}]}}),
        json!({"limits": {"rates": [{"model": "*", "requests_per_minute": 0}]}}),
        json!({"limits": {"rates": [{"model": "nothing", "requests_per_minute": 1}]}}),
        json!({"limits": {"rates": [{"model": "*", "requests_per_minute": 1}, {"model": "*", "images_per_minute": 1}]}}),
    ] {
        let answer =
            house.gateway.admin(Method::PATCH, "/admin/v1/projects/default").json(&terms).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{terms}");
    }
    for credit in [
        json!({"amount_usd": "0", "reason": "x"}),
        json!({"amount_usd": "1", "reason": ""}),
        json!({"amount_usd": "1"}),
        json!({"amount_usd": "one", "reason": "x"}),
    ] {
        let path = "/admin/v1/projects/default/credits";
        let answer = house.gateway.admin(Method::POST, path).json(&credit).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{credit}");
    }
    assert_eq!(house.gateway.set_project(&json!({})).await, before);
    for (method, path) in [
        (Method::PATCH, "/admin/v1/projects/proj_00000000000000000000000000000000"),
        (Method::PATCH, "/admin/v1/projects/elsewhere"),
        (Method::PATCH, "/admin/v1/keys/key_00000000000000000000000000000000"),
    ] {
        read(house.gateway.admin(method, path).json(&json!({})).send().await.unwrap(), StatusCode::NOT_FOUND).await;
    }
    let forbidden = house.gateway.project(Method::PATCH, "/admin/v1/projects/default").json(&json!({"prepaid": false}));
    read(forbidden.send().await.unwrap(), StatusCode::FORBIDDEN).await;
}
