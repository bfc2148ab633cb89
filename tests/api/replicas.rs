//! Two gateways on one database: what one of them ends, the other one ends within a second.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{ADMIN_KEY, Database, Gateway, House, eventually, on_both_databases, read};

on_both_databases!(
    what_is_ended_on_one_replica_ends_on_the_other_within_a_second,
    a_generation_is_cancelled_at_whichever_replica_is_asked,
);

async fn post(gateway: &Gateway, path: &str, body: &Value) -> Value {
    read(gateway.admin(Method::POST, path).json(body).send().await.unwrap(), StatusCode::OK).await
}

/// Asks with a key what only a good one is told.
async fn is_good(gateway: &Gateway, key: &str) -> bool {
    let path = if key.contains("admin") { "/v1/organization/projects" } else { "/v1/key" };
    let status = gateway.request(Method::GET, path).bearer_auth(key).send().await.unwrap().status();
    assert!([StatusCode::OK, StatusCode::UNAUTHORIZED].contains(&status), "{status}");
    status == StatusCode::OK
}

async fn within(limit: Duration, gateway: &Gateway, key: &str, good: bool) {
    let begun = Instant::now();
    while is_good(gateway, key).await != good {
        assert!(
            begun.elapsed() < limit,
            "after {:?} a key is still {}",
            begun.elapsed(),
            if good { "bad" } else { "good" }
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn what_is_ended_on_one_replica_ends_on_the_other_within_a_second(kind: Database) {
    let house = House::new(kind).await;
    let (here, there) = (&house.gateway, house.another().await);
    assert!(is_good(&there, ADMIN_KEY).await);
    let mut projects = Vec::new();
    for name in ["archived", "key deleted", "account deleted", "key expired at once"] {
        let project =
            post(here, "/v1/organization/projects", &json!({"name": name})).await["id"].as_str().unwrap().to_owned();
        let account =
            post(here, &format!("/v1/organization/projects/{project}/service_accounts"), &json!({"name": "w"})).await;
        projects.push((project, account));
    }
    let admin = post(here, "/v1/organization/admin_api_keys", &json!({"name": "second"})).await;
    let value = |account: &Value| account["api_key"]["value"].as_str().unwrap().to_owned();
    for (_, account) in &projects {
        assert!(is_good(here, &value(account)).await, "a key works at once where it was made");
        within(Duration::from_secs(1), &there, &value(account), true).await;
    }
    within(Duration::from_secs(1), &there, admin["value"].as_str().unwrap(), true).await;
    for (index, (project, account)) in projects.iter().enumerate() {
        let below = format!("/v1/organization/projects/{project}");
        let (account_id, key_id) = (account["id"].as_str().unwrap(), account["api_key"]["id"].as_str().unwrap());
        let (method, path, body) = match index {
            0 => (Method::POST, format!("{below}/archive"), None),
            1 => (Method::DELETE, format!("{below}/api_keys/{key_id}"), None),
            2 => (Method::DELETE, format!("{below}/service_accounts/{account_id}"), None),
            _ => (Method::PATCH, format!("/admin/v1/keys/{key_id}"), Some(json!({"expires_at": 1}))),
        };
        let request = here.admin(method, &path);
        let request = match &body {
            Some(body) => request.json(body),
            None => request,
        };
        read(request.send().await.unwrap(), StatusCode::OK).await;
        assert!(!is_good(here, &value(account)).await, "{path}: at once where it was done");
        within(Duration::from_secs(1), &there, &value(account), false).await;
    }
    let path = format!("/v1/organization/admin_api_keys/{}", admin["id"].as_str().unwrap());
    read(there.admin(Method::DELETE, &path).send().await.unwrap(), StatusCode::OK).await;
    within(Duration::from_secs(1), here, admin["value"].as_str().unwrap(), false).await;
}

async fn a_generation_is_cancelled_at_whichever_replica_is_asked(kind: Database) {
    let house = House::new(kind).await;
    house.misbehave(json!({"do": {"queue_ms": 20000}})).await;
    let there = house.another().await;
    let wish = json!({"model": "flux/dev", "prompt": "a red fox", "background": true});
    let taken = read(house.gateway.generate(&wish).send().await.unwrap(), StatusCode::ACCEPTED).await;
    let path = format!("/v1/images/generations/{}", taken["id"].as_str().unwrap());
    // There is nothing to cancel before fal has it.
    eventually(Duration::from_secs(10), || async { (house.fal_state().await["accepted_submits"] == 1).then_some(()) })
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    let cancelled = read(there.project(Method::DELETE, &path).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!((&cancelled["state"], &cancelled["price_usd"]), (&json!("cancelled"), &json!("0.000000000")));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let seen = read(house.gateway.project(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(seen["state"], "cancelled");
    assert_eq!(house.fal_state().await["cancels"], 1);
}
