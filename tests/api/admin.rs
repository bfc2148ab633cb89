//! The operators' face: who may come in, where it listens, keys exchanged, generations exported, what commands leave in the audit log.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    ADMIN_KEY, Database, House, PROJECT_KEY, Start, client, eventually, on_both_databases, read, t_rex,
};

on_both_databases!(
    every_route_of_operators_is_closed_to_everybody_else_in_the_same_words,
    the_operators_face_may_have_an_address_of_its_own,
    a_rotated_key_works_beside_the_new_one_until_its_overlap_is_over,
    what_a_command_changes_is_in_the_audit_log,
    generations_are_exported_whole_and_found_by_what_they_cost,
    a_generation_tells_its_whole_history,
    margins_and_holds_are_told,
);

async fn get(house: &House, path: &str) -> Value {
    read(house.gateway.admin(Method::GET, path).send().await.unwrap(), StatusCode::OK).await
}

async fn post(house: &House, path: &str, body: Value) -> Value {
    read(house.gateway.admin(Method::POST, path).json(&body).send().await.unwrap(), StatusCode::OK).await
}

/// Of an answer what may differ from request to request taken out.
fn without_times(mut body: Value) -> Value {
    for name in ["requestId", "timestamp", "instance", "path"] {
        assert!(body.as_object_mut().unwrap().remove(name).is_some(), "{name}");
    }
    body
}

async fn every_route_of_operators_is_closed_to_everybody_else_in_the_same_words(kind: Database) {
    let house = House::new(kind).await;
    let key = |body: Value| post(&house, "/v1/organization/admin_api_keys", body);
    let expired = key(json!({"name": "short", "expires_in_seconds": 1})).await;
    let revoked = key(json!({"name": "revoked"})).await;
    let path = format!("/v1/organization/admin_api_keys/{}", revoked["id"].as_str().unwrap());
    read(house.gateway.admin(Method::DELETE, &path).send().await.unwrap(), StatusCode::OK).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let document =
        read(client().get(format!("{}/openapi.json", house.gateway.base)).send().await.unwrap(), StatusCode::OK);
    let document = document.await;
    let mut routes = 0;
    let mut refusals: Vec<Value> = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation["security"][0].get("admin_key").is_none() {
                assert!(!path.starts_with("/admin") && !path.starts_with("/v1/organization"), "{path} is open");
                continue;
            }
            routes += 1;
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            // An id that is not there, so that an answer could tell what is.
            let path = path.replace('{', "none-").replace('}', "");
            let ask = |key: Option<&str>| {
                let request = house.gateway.request(method.clone(), &path).json(&json!({}));
                match key {
                    Some(key) => request.bearer_auth(key),
                    None => request,
                }
                .send()
            };
            read(ask(None).await.unwrap(), StatusCode::UNAUTHORIZED).await;
            for key in ["unknown", revoked["value"].as_str().unwrap(), expired["value"].as_str().unwrap()] {
                let answer = read(ask(Some(key)).await.unwrap(), StatusCode::UNAUTHORIZED).await;
                refusals.push(without_times(answer));
            }
            let answer = read(ask(Some(PROJECT_KEY)).await.unwrap(), StatusCode::FORBIDDEN).await;
            assert_eq!(answer["error"]["code"], "permission_denied", "{path}");
        }
    }
    assert!(routes > 40, "only {routes} routes were tried");
    let first = &refusals[0];
    assert!(refusals.iter().all(|refusal| refusal == first), "a text tells one key from another");
}

async fn the_operators_face_may_have_an_address_of_its_own(kind: Database) {
    let house = House::with(kind, Duration::ZERO, &[("IMAGEGATE_ADMIN_BIND", "127.0.0.1:0")]).await;
    let log = house.gateway.log();
    let line = log.lines().find(|line| line.contains("an address of its own")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    let own = format!("http://{}", line["fields"]["address"].as_str().unwrap());
    for path in ["/admin/v1/generations", "/v1/organization/projects"] {
        let here = client().get(format!("{own}{path}")).bearer_auth(ADMIN_KEY).send().await.unwrap();
        read(here, StatusCode::OK).await;
        let there = house.gateway.admin(Method::GET, path).send().await.unwrap();
        read(there, StatusCode::NOT_FOUND).await;
    }
    read(house.gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::CREATED).await;
    let images = client().post(format!("{own}/v1/images/generations")).bearer_auth(PROJECT_KEY).json(&t_rex());
    read(images.send().await.unwrap(), StatusCode::NOT_FOUND).await;
    read(client().get(format!("{own}/healthz")).send().await.unwrap(), StatusCode::OK).await;
}

async fn a_rotated_key_works_beside_the_new_one_until_its_overlap_is_over(kind: Database) {
    let house = House::new(kind).await;
    let projects = get(&house, "/v1/organization/projects").await;
    let project = projects["data"][0]["id"].as_str().unwrap();
    let accounts = format!("/v1/organization/projects/{project}/service_accounts");
    let old = post(&house, &accounts, json!({"name": "worker"})).await;
    let id = old["api_key"]["id"].as_str().unwrap();
    let rotated = post(&house, &format!("/admin/v1/keys/{id}/rotate"), json!({"overlap_seconds": 2})).await;
    assert_eq!((&rotated["object"], &rotated["replaces"]), (&json!("api_key.rotation"), &json!(id)));
    let ask = |key: &Value| {
        let key = key.as_str().unwrap().to_owned();
        house.gateway.request(Method::POST, "/v1/images/generations").bearer_auth(key).json(&t_rex()).send()
    };
    read(ask(&old["api_key"]["value"]).await.unwrap(), StatusCode::CREATED).await;
    eventually(Duration::from_secs(10), || async {
        let status = ask(&old["api_key"]["value"]).await.unwrap().status();
        (status == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
    read(ask(&rotated["value"]).await.unwrap(), StatusCode::CREATED).await;
    let keys = get(&house, &format!("/v1/organization/projects/{project}/api_keys")).await;
    let new = keys["data"].as_array().unwrap().iter().find(|key| key["id"] == rotated["id"]).unwrap();
    assert_eq!(new["owner"]["service_account"]["id"], old["id"], "the new key has the same holder");
    let setting = get(&house, "/v1/organization/admin_api_keys").await["data"][0]["id"].clone();
    let path = format!("/admin/v1/keys/{}/rotate", setting.as_str().unwrap());
    let answer = house.gateway.admin(Method::POST, &path).json(&json!({})).send().await.unwrap();
    let answer = read(answer, StatusCode::CONFLICT).await;
    assert!(answer["message"].as_str().unwrap().contains("IMAGEGATE_ADMIN_KEY"), "{answer}");
}

async fn what_a_command_changes_is_in_the_audit_log(kind: Database) {
    let house = House::new(kind).await;
    let folder = tempfile::tempdir().unwrap();
    let mut command = Start::new(&house.database.url, "http://127.0.0.1:1").command(&folder);
    let output = command.args(["keys", "create", "--name", "from the terminal"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let logs = get(&house, "/v1/organization/audit_logs?event_types[]=api_key.created").await;
    let newest = &logs["data"][0];
    assert_eq!(newest["after"]["name"], "from the terminal");
    assert_eq!(newest["before"], Value::Null);
    let session = &newest["actor"]["session"];
    assert_eq!((&session["user"]["id"], &session["ip_address"]), (&json!("command"), &Value::Null));
    // What the first start and the settings did is the gateway's own.
    let first = logs["data"].as_array().unwrap().last().unwrap();
    assert_eq!(first["actor"]["session"]["user"]["id"], "imagegate");
}

async fn generations_are_exported_whole_and_found_by_what_they_cost(kind: Database) {
    let house = House::new(kind).await;
    for n in [1, 2, 3] {
        let body = json!({"model": "flux/dev", "prompt": "a", "n": n, "size": "1024x1024", "user": "=a,\"b\""});
        read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::CREATED).await;
    }
    let all = house.gateway.generations().await;
    let export =
        |format: &str| house.gateway.admin(Method::GET, &format!("/admin/v1/generations?format={format}")).send();
    let lines = export("ndjson").await.unwrap();
    assert_eq!(lines.headers()["content-type"], "application/x-ndjson");
    let lines: Vec<Value> =
        lines.text().await.unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, all);
    let table = export("csv").await.unwrap().text().await.unwrap();
    let rows: Vec<&str> = table.split_terminator("\r\n").collect();
    assert!(rows[0].starts_with("id,state,created_at"), "{table}");
    assert_eq!(rows.len(), 4);
    assert!(rows[1].starts_with(all[0]["id"].as_str().unwrap()) && rows[1].contains("\"'=a,\"\"b\"\"\""), "{table}");
    for (filter, expected) in [
        ("min_price_usd=0.05", vec![0, 1]),
        ("max_price_usd=0.05", vec![1, 2]),
        ("min_cost_usd=0.050000001", vec![0]),
        ("min_cost_usd=0.05&max_cost_usd=0.05", vec![1]),
    ] {
        let found = get(&house, &format!("/admin/v1/generations?{filter}")).await;
        let ids: Vec<&Value> = found["data"].as_array().unwrap().iter().map(|row| &row["id"]).collect();
        assert_eq!(ids, expected.iter().map(|at: &usize| &all[*at]["id"]).collect::<Vec<_>>(), "{filter}");
    }
    // A page of an export, and the one after it.
    let ids = |text: String| text.lines().skip(1).map(|line| line[..36].to_owned()).collect::<Vec<_>>();
    let page = ids(export("csv&limit=2").await.unwrap().text().await.unwrap());
    assert_eq!(page, [all[0]["id"].as_str().unwrap(), all[1]["id"].as_str().unwrap()]);
    let next = export(&format!("ndjson&limit=2&after={}", page[1])).await.unwrap().text().await.unwrap();
    let next: Vec<Value> = next.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(next, all[2..]);
    for wrong in ["format=xml", "format=csv&limit=0", "min_cost_usd=lots"] {
        let answer = house.gateway.admin(Method::GET, &format!("/admin/v1/generations?{wrong}")).send().await.unwrap();
        read(answer, StatusCode::BAD_REQUEST).await;
    }
}

async fn a_generation_tells_its_whole_history(kind: Database) {
    let house = House::with(kind, Duration::ZERO, &[("IMAGEGATE_MARKUP", "2")]).await;
    read(house.gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::CREATED).await;
    let id = house.gateway.generations().await[0]["id"].clone();
    let told = get(&house, &format!("/admin/v1/generations/{}", id.as_str().unwrap())).await;
    assert_eq!((&told["id"], &told["state"], &told["prompt"]), (&id, &json!("succeeded"), &Value::Null));
    assert_eq!(told["parameters"]["num_images"], 1);
    assert_eq!(
        (&told["price_usd"], &told["cost_usd"], &told["margin_usd"]),
        (&json!("0.070000000"), &json!("0.035000000"), &json!("0.035000000"))
    );
    assert!(!told["reason"].as_str().unwrap().is_empty());
    let attempt = &told["attempts"][0];
    assert_eq!((&attempt["n"], &attempt["outcome"]), (&json!(1), &json!("succeeded")));
    assert_eq!(attempt["fal_request_id"], told["fal_request_id"]);
    let entries: Vec<(&str, &str)> = told["ledger"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["account"].as_str().unwrap(), entry["amount_usd"].as_str().unwrap()))
        .collect();
    let expected = [
        ("cost_of_sales", "0.035000000"),
        ("project", "-0.070000000"),
        ("provider", "-0.035000000"),
        ("revenue", "0.070000000"),
    ];
    assert_eq!(entries, expected);
}

async fn margins_and_holds_are_told(kind: Database) {
    let house = House::with(kind, Duration::from_secs(10), &[("IMAGEGATE_MARKUP", "1.5")]).await;
    let body = json!({"model": "flux/dev", "prompt": "a", "size": "1024x1024", "background": true});
    read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::ACCEPTED).await;
    let holds = get(&house, "/admin/v1/holds").await;
    let hold = &holds["data"][0];
    let id = hold["generation_id"].as_str().unwrap();
    assert_eq!(hold["amount_usd"], "0.037500000");
    assert!(get(&house, "/admin/v1/holds?min_age_seconds=60").await["data"].as_array().unwrap().is_empty());
    house.gateway.ended(id).await;
    assert!(get(&house, "/admin/v1/holds").await["data"].as_array().unwrap().is_empty());
    let margins = get(&house, "/admin/v1/margins?start_time=1790000000").await;
    let row = &margins["data"][0];
    assert_eq!((&row["model"], &row["images"]), (&json!("flux/dev"), &json!(1)));
    assert_eq!(
        (&row["price_usd"], &row["cost_usd"], &row["margin_usd"]),
        (&json!("0.037500000"), &json!("0.025000000"), &json!("0.012500000"))
    );
}
