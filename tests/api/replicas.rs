//! Two gateways on one database: what one of them ends, the other one ends soon.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{ADMIN_KEY, Database, Gateway, House, eventually, on_both_databases, read};

on_both_databases!(
    what_is_ended_on_one_replica_ends_on_the_other_soon,
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

/// Within a second on a good machine.
async fn soon(gateway: &Gateway, key: &str, good: bool) {
    eventually(Duration::from_secs(1), || async { (is_good(gateway, key).await == good).then_some(()) }).await;
}

async fn what_is_ended_on_one_replica_ends_on_the_other_soon(kind: Database) {
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
        soon(&there, &value(account), true).await;
    }
    soon(&there, admin["value"].as_str().unwrap(), true).await;
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
        soon(&there, &value(account), false).await;
    }
    let path = format!("/v1/organization/admin_api_keys/{}", admin["id"].as_str().unwrap());
    read(there.admin(Method::DELETE, &path).send().await.unwrap(), StatusCode::OK).await;
    soon(here, admin["value"].as_str().unwrap(), false).await;
}

async fn a_generation_is_cancelled_at_whichever_replica_is_asked(kind: Database) {
    let house = House::new(kind).await;
    house.misbehave(json!({"do": {"queue_ms": 600_000}})).await;
    let there = house.another().await;
    let wish = json!({"model": "flux/dev", "prompt": "a red fox", "background": true});
    let taken = read(house.gateway.generate(&wish).send().await.unwrap(), StatusCode::ACCEPTED).await;
    let path = format!("/v1/images/generations/{}", taken["id"].as_str().unwrap());
    // There is nothing to cancel before fal has it.
    eventually(Duration::from_secs(10), || async {
        house.gateway.generations().await[0]["fal_request_id"].is_string().then_some(())
    })
    .await;
    let cancelled = read(there.project(Method::DELETE, &path).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!((&cancelled["state"], &cancelled["price_usd"]), (&json!("cancelled"), &json!("0.000000000")));
    let seen = read(house.gateway.project(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(seen["state"], "cancelled");
    assert_eq!(house.fal_state().await["cancels"], 1);
}
