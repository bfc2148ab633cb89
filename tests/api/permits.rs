//! What keys permit: scopes, roles, addresses; when they were used; typing errors.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    ADMIN_KEY, Database, Gateway, House, Start, TestDatabase, on_both_databases, read, start_sandbox, t_rex,
};

on_both_databases!(
    a_project_key_has_the_scopes_and_addresses_that_it_was_given,
    a_key_without_the_scope_to_read_sees_and_cancels_only_its_own_generations,
    an_admin_key_has_a_role_and_the_last_owner_stays,
    only_an_owner_changes_or_exchanges_an_admin_key,
    the_last_use_of_a_key_is_told_and_outlives_the_process,
    a_mistyped_key_is_told_so_and_an_unknown_one_is_not,
    a_rotated_key_keeps_its_permissions,
);

const ADMIN_KEYS: &str = "/v1/organization/admin_api_keys";
const USUAL: [&str; 5] = ["images:generate", "images:read", "files", "usage:read", "billing:read"];

async fn send(gateway: &Gateway, method: Method, path: &str, body: Value, status: StatusCode) -> Value {
    read(gateway.admin(method, path).json(&body).send().await.unwrap(), status).await
}

async fn post(gateway: &Gateway, path: &str, body: Value) -> Value {
    send(gateway, Method::POST, path, body, StatusCode::OK).await
}

async fn get_as(gateway: &Gateway, key: &Value, path: &str) -> Value {
    let answer = gateway.request(Method::GET, path).bearer_auth(key.as_str().unwrap()).send().await.unwrap();
    read(answer, StatusCode::OK).await
}

/// The path of the default project's service accounts.
async fn service_accounts(gateway: &Gateway) -> String {
    let projects = gateway.admin(Method::GET, "/v1/organization/projects").send().await.unwrap();
    let projects = read(projects, StatusCode::OK).await;
    format!("/v1/organization/projects/{}/service_accounts", projects["data"][0]["id"].as_str().unwrap())
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

async fn a_project_key_has_the_scopes_and_addresses_that_it_was_given(kind: Database) {
    let House { gateway, fal: _fal, database: _database } = House::new(kind).await;
    let accounts = service_accounts(&gateway).await;
    let usual = post(&gateway, &accounts, json!({"name": "usual"})).await;
    assert_eq!(texts(&usual["api_key"]["scopes"]), USUAL);
    assert_eq!(usual["api_key"]["allowed_addresses"], Value::Null);
    let new = json!({"name": "narrow", "scopes": ["usage:read", "images:generate"], "allowed_addresses": ["127.0.0.9/8", "::1"]});
    let narrow = post(&gateway, &accounts, new).await;
    let (key, value) = (&narrow["api_key"], &narrow["api_key"]["value"]);
    assert_eq!(texts(&key["scopes"]), ["images:generate", "usage:read"]);
    assert_eq!(texts(&key["allowed_addresses"]), ["127.0.0.0/8", "::1"]);
    let told = &get_as(&gateway, value, "/v1/key").await["data"];
    assert_eq!(texts(&told["permissions"]), ["images:generate", "usage:read"]);
    assert_eq!(texts(&told["allowed_addresses"]), ["127.0.0.0/8", "::1"]);
    assert_eq!((&told["scopes"], &told["allowed_models"]), (&json!(["model:image"]), &Value::Null));

    // Changed over OpenAI's route and over ours; seen in both.
    let id = key["id"].as_str().unwrap();
    let one = format!("{}/{id}", accounts.replace("service_accounts", "api_keys"));
    let changed = post(&gateway, &one, json!({"scopes": ["files"], "allowed_addresses": null})).await;
    assert_eq!((texts(&changed["scopes"]), &changed["allowed_addresses"]), (vec!["files"], &Value::Null));
    let ours = format!("/admin/v1/keys/{id}");
    let patch =
        json!({"scopes": ["billing:read", "images:read"], "allowed_addresses": ["127.0.0.1"], "budget_usd": "3"});
    let patched = send(&gateway, Method::PATCH, &ours, patch, StatusCode::OK).await;
    assert_eq!(texts(&patched["scopes"]), ["images:read", "billing:read"]);
    assert_eq!((texts(&patched["allowed_addresses"]), &patched["role"]), (vec!["127.0.0.1"], &Value::Null));
    let listed = read(gateway.admin(Method::GET, &one).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(listed["scopes"], patched["scopes"]);
    let told = &get_as(&gateway, value, "/v1/key").await["data"];
    assert_eq!((&told["scopes"], &told["limits"]["budget_left_usd"]), (&json!([]), &json!("3.000000000")));
    let untouched = send(&gateway, Method::PATCH, &ours, json!({"name": "renamed"}), StatusCode::OK).await;
    assert_eq!(untouched["scopes"], patched["scopes"]);
    assert_eq!(untouched["allowed_addresses"], patched["allowed_addresses"]);

    // In the audit log, before and after.
    let logs = gateway.admin(Method::GET, &format!("/v1/organization/audit_logs?resource_ids[]={id}&limit=2"));
    let logs = read(logs.send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(logs["data"][1]["before"]["scopes"], json!(["files"]), "{logs}");
    assert_eq!(logs["data"][1]["after"]["allowed_addresses"], json!(["127.0.0.1"]), "{logs}");

    for (body, param) in [
        (json!({"scopes": ["images"]}), "scopes"),
        (json!({"scopes": []}), "scopes"),
        (json!({"allowed_addresses": ["10.0.0.0/33"]}), "allowed_addresses"),
        (json!({"allowed_addresses": ["host.example"]}), "allowed_addresses"),
        (json!({"role": "king"}), "role"),
    ] {
        let answer = send(&gateway, Method::PATCH, &ours, body.clone(), StatusCode::BAD_REQUEST).await;
        assert_eq!(answer["error"]["param"], param, "{answer}");
    }
    let same = post(&gateway, &one, json!({"scopes": []})).await;
    assert_eq!(same["scopes"], patched["scopes"], "OpenAI's clients may say nothing with an empty list");
    for body in [
        json!({"allowed_addresses": []}),
        json!({"allowed_addresses": vec!["10.0.0.1"; 101]}),
        json!({"role": "read_only"}),
    ] {
        send(&gateway, Method::PATCH, &ours, body, StatusCode::BAD_REQUEST).await;
    }
    let bare = json!({"name": "x", "create_service_account_only": true, "scopes": ["files"]});
    send(&gateway, Method::POST, &accounts, bare, StatusCode::BAD_REQUEST).await;
}

async fn a_key_without_the_scope_to_read_sees_and_cancels_only_its_own_generations(kind: Database) {
    let house = House::with(kind, Duration::from_secs(2), &[]).await;
    let gateway = &house.gateway;
    let accounts = service_accounts(gateway).await;
    let new = json!({"name": "maker", "scopes": ["images:generate"]});
    let maker = post(gateway, &accounts, new).await["api_key"]["value"].as_str().unwrap().to_owned();
    let body = json!({"model": "flux/dev", "prompt": "a cat", "background": true});
    let others = read(gateway.generate(&body).send().await.unwrap(), StatusCode::ACCEPTED).await;
    let as_maker = |method: Method, path: &str| gateway.request(method, path).bearer_auth(&maker);
    let own = as_maker(Method::POST, "/v1/images/generations").json(&body).send().await.unwrap();
    let own = read(own, StatusCode::ACCEPTED).await;

    let path = |generation: &Value| format!("/v1/images/generations/{}", generation["id"].as_str().unwrap());
    for method in [Method::GET, Method::DELETE] {
        let answer = read(as_maker(method, &path(&others)).send().await.unwrap(), StatusCode::NOT_FOUND).await;
        assert_eq!(answer["error"]["param"], "id");
    }
    let seen = read(as_maker(Method::GET, &path(&own)).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(seen["id"], own["id"]);
    let list = read(as_maker(Method::GET, "/v1/images/generations").send().await.unwrap(), StatusCode::OK).await;
    assert_eq!((list["data"].as_array().unwrap().len(), &list["data"][0]["id"]), (1, &own["id"]));
    // fal's clients have the same eyes.
    let fals = format!("/fal/queue/fal-ai/flux/requests/{}/status", others["id"].as_str().unwrap());
    read(as_maker(Method::GET, &fals).send().await.unwrap(), StatusCode::NOT_FOUND).await;
    // Nothing that was refused has touched the other key's generation; a key that may read sees both.
    let list = gateway.project(Method::GET, "/v1/images/generations").send().await.unwrap();
    assert_eq!(read(list, StatusCode::OK).await["data"].as_array().unwrap().len(), 2);
    for generation in [&others, &own] {
        assert_eq!(gateway.ended(generation["id"].as_str().unwrap()).await["state"], "succeeded");
    }
}

async fn an_admin_key_has_a_role_and_the_last_owner_stays(kind: Database) {
    let House { gateway, fal: _fal, database: _database } = House::new(kind).await;
    let made =
        post(&gateway, ADMIN_KEYS, json!({"name": "ada", "role": "read_only", "allowed_addresses": ["10.0.0.0/8"]}))
            .await;
    assert_eq!((&made["owner"]["role"], texts(&made["allowed_addresses"])), (&json!("read_only"), vec!["10.0.0.0/8"]));
    let owner = post(&gateway, ADMIN_KEYS, json!({"name": "second owner"})).await;
    assert_eq!(owner["owner"]["role"], "owner");
    let wrong = json!({"name": "x", "role": "king"});
    let answer = send(&gateway, Method::POST, ADMIN_KEYS, wrong, StatusCode::BAD_REQUEST).await;
    assert_eq!(answer["error"]["param"], "role");
    let keys = read(gateway.admin(Method::GET, ADMIN_KEYS).send().await.unwrap(), StatusCode::OK).await;
    let first = keys["data"].as_array().unwrap().last().unwrap();
    let roles: Vec<&Value> = keys["data"].as_array().unwrap().iter().map(|key| &key["owner"]["role"]).collect();
    assert_eq!(roles, ["owner", "read_only", "owner"]);

    // Of two owners one may go or be demoted, the last one not.
    let key = |key: &Value| format!("/admin/v1/keys/{}", key["id"].as_str().unwrap());
    let demoted = send(&gateway, Method::PATCH, &key(&owner), json!({"role": "billing"}), StatusCode::OK).await;
    assert_eq!((&demoted["role"], &demoted["scopes"]), (&json!("billing"), &Value::Null));
    for change in [json!({"role": "operator"}), json!({"expires_at": 1})] {
        let answer = send(&gateway, Method::PATCH, &key(first), change, StatusCode::CONFLICT).await;
        assert!(answer["message"].as_str().unwrap().contains("last admin key with the role `owner`"), "{answer}");
    }
    send(&gateway, Method::PATCH, &key(&owner), json!({"role": "owner"}), StatusCode::OK).await;
    let one = |key: &Value| format!("{ADMIN_KEYS}/{}", key["id"].as_str().unwrap());
    send(&gateway, Method::PATCH, &key(first), json!({"role": "operator"}), StatusCode::OK).await;
    let last = gateway.request(Method::DELETE, &one(&owner)).bearer_auth(owner["value"].as_str().unwrap());
    read(last.send().await.unwrap(), StatusCode::CONFLICT).await;
    let other = gateway.request(Method::DELETE, &one(&made)).bearer_auth(owner["value"].as_str().unwrap());
    read(other.send().await.unwrap(), StatusCode::OK).await;
    let scopes = gateway.request(Method::PATCH, &key(&owner)).bearer_auth(owner["value"].as_str().unwrap());
    read(scopes.json(&json!({"scopes": ["files"]})).send().await.unwrap(), StatusCode::BAD_REQUEST).await;
}

async fn only_an_owner_changes_or_exchanges_an_admin_key(kind: Database) {
    let House { gateway, fal: _fal, database: _database } = House::new(kind).await;
    let operator = post(&gateway, ADMIN_KEYS, json!({"name": "op", "role": "operator"})).await;
    let owner = post(&gateway, ADMIN_KEYS, json!({"name": "second owner"})).await;
    let accounts = service_accounts(&gateway).await;
    let worker = post(&gateway, &accounts, json!({"name": "worker"})).await;
    let ask = |method: Method, path: String, body: Value| {
        let request = gateway.request(method, &path).bearer_auth(operator["value"].as_str().unwrap());
        async move { request.json(&body).send().await.unwrap() }
    };
    let (owner, worker) = (owner["id"].as_str().unwrap(), worker["api_key"]["id"].as_str().unwrap());
    for id in [owner, operator["id"].as_str().unwrap()] {
        let rotated = ask(Method::POST, format!("/admin/v1/keys/{id}/rotate"), json!({})).await;
        read(rotated, StatusCode::FORBIDDEN).await;
        let changed = ask(Method::PATCH, format!("/admin/v1/keys/{id}"), json!({"role": "owner"})).await;
        read(changed, StatusCode::FORBIDDEN).await;
    }
    // What is an operator's own work, it does.
    let changed = ask(Method::PATCH, format!("/admin/v1/keys/{worker}"), json!({"scopes": ["images:generate"]})).await;
    read(changed, StatusCode::OK).await;
    read(ask(Method::POST, format!("/admin/v1/keys/{worker}/rotate"), json!({})).await, StatusCode::OK).await;
}

async fn the_last_use_of_a_key_is_told_and_outlives_the_process(kind: Database) {
    let database = TestDatabase::new(kind).await;
    let fal = start_sandbox(Duration::ZERO);
    let gateway = Start::new(&database.url, &fal.queue_url()).run().await;
    let made = post(&gateway, ADMIN_KEYS, json!({"name": "ada"})).await;
    let accounts = service_accounts(&gateway).await;
    let worker = post(&gateway, &accounts, json!({"name": "worker"})).await;
    let worker = &worker["api_key"];
    let admin_path = format!("{ADMIN_KEYS}/{}", made["id"].as_str().unwrap());
    let worker_path = accounts.replace("service_accounts", "api_keys") + "/" + worker["id"].as_str().unwrap();
    for path in [&admin_path, &worker_path] {
        let unused = read(gateway.admin(Method::GET, path).send().await.unwrap(), StatusCode::OK).await;
        assert_eq!(unused["last_used_at"], Value::Null, "{unused}");
    }
    get_as(&gateway, &made["value"], ADMIN_KEYS).await;
    // It need not have made an image.
    get_as(&gateway, &worker["value"], "/v1/key").await;
    let created = made["created_at"].as_i64().unwrap();
    let mut seen = Vec::new();
    for path in [&admin_path, &worker_path] {
        let used = read(gateway.admin(Method::GET, path).send().await.unwrap(), StatusCode::OK).await;
        assert!(used["last_used_at"].as_i64().unwrap() >= created, "{used}");
        seen.push(used["last_used_at"].clone());
    }
    assert_eq!(gateway.stop().await, 0);
    let gateway = Start::new(&database.url, &fal.queue_url()).run().await;
    for (path, seen) in [&admin_path, &worker_path].into_iter().zip(&seen) {
        let used = read(gateway.admin(Method::GET, path).send().await.unwrap(), StatusCode::OK).await;
        assert_eq!(&used["last_used_at"], seen);
    }
    let list = read(gateway.admin(Method::GET, ADMIN_KEYS).send().await.unwrap(), StatusCode::OK).await;
    assert!(list["data"].as_array().unwrap().iter().all(|key| key["last_used_at"].is_i64()), "{list}");
}

async fn a_mistyped_key_is_told_so_and_an_unknown_one_is_not(kind: Database) {
    let House { gateway, fal: _fal, database } = House::new(kind).await;
    let accounts = service_accounts(&gateway).await;
    let worker = post(&gateway, &accounts, json!({"name": "worker"})).await;
    let key = worker["api_key"]["value"].as_str().unwrap().to_owned();
    let ask =
        |key: String| gateway.request(Method::POST, "/v1/images/generations").bearer_auth(key).json(&t_rex()).send();
    let message = async |key: String| {
        let answer = read(ask(key).await.unwrap(), StatusCode::UNAUTHORIZED).await;
        assert_eq!(answer["error"]["code"], "invalid_api_key");
        answer["message"].as_str().unwrap().to_owned()
    };
    let wrong = if key.ends_with('7') { '1' } else { '7' };
    let mistyped_key = format!("{}{wrong}", &key[..key.len() - 1]);
    let mistyped = message(mistyped_key.clone()).await;
    assert!(mistyped.starts_with("Incorrect API key provided") && mistyped.contains("mistyped"), "{mistyped}");
    // One that fits its checksum, one from before there were checksums, one that somebody chose: all the same.
    let path = format!("{accounts}/{}", worker["id"].as_str().unwrap());
    read(gateway.admin(Method::DELETE, &path).send().await.unwrap(), StatusCode::OK).await;
    let revoked = message(key.clone()).await;
    for other in [key[..key.len() - 6].to_owned(), "an-operators-own-choice".to_owned()] {
        assert_eq!(message(other).await, revoked);
    }
    assert!(!revoked.contains("mistyped"));
    // A setting may look like a mistyped key of ours, and is good.
    let start = Start::new(&database.url, "http://127.0.0.1:1").with("IMAGEGATE_BOOTSTRAP_KEY", &mistyped_key);
    let other = start.run().await;
    get_as(&other, &json!(mistyped_key), "/v1/key").await;
}

async fn a_rotated_key_keeps_its_permissions(kind: Database) {
    let House { gateway, fal: _fal, database: _database } = House::new(kind).await;
    let accounts = service_accounts(&gateway).await;
    let new = json!({"name": "worker", "scopes": ["images:generate"], "allowed_addresses": ["127.0.0.1"]});
    let worker = post(&gateway, &accounts, new).await;
    let rotated =
        post(&gateway, &format!("/admin/v1/keys/{}/rotate", worker["api_key"]["id"].as_str().unwrap()), json!({}))
            .await;
    let told = &get_as(&gateway, &rotated["value"], "/v1/key").await["data"];
    assert_eq!(
        (texts(&told["permissions"]), texts(&told["allowed_addresses"])),
        (vec!["images:generate"], vec!["127.0.0.1"])
    );
    let admin = post(&gateway, ADMIN_KEYS, json!({"name": "a", "role": "billing"})).await;
    let rotated = post(&gateway, &format!("/admin/v1/keys/{}/rotate", admin["id"].as_str().unwrap()), json!({})).await;
    let path = format!("{ADMIN_KEYS}/{}", rotated["id"].as_str().unwrap());
    let shown =
        read(gateway.request(Method::GET, &path).bearer_auth(ADMIN_KEY).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(shown["owner"]["role"], "billing");
}
