//! What is read, and not only what is changed, is in the audit log: prompts, webhook secrets, exports.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Database, Gateway, House, Start, on_both_databases, read, t_rex};

on_both_databases!(
    who_reads_a_kept_prompt_is_in_the_audit_log,
    who_reads_or_rotates_a_webhook_secret_is_in_the_audit_log,
    who_exports_is_in_the_audit_log,
);

/// The entries of these types, newest first.
async fn entries(gateway: &Gateway, events: &str) -> Vec<Value> {
    let path = format!("/v1/organization/audit_logs?event_types={events}");
    let logs = read(gateway.admin(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await;
    logs["data"].as_array().unwrap().clone()
}

async fn get(gateway: &Gateway, path: &str) -> Value {
    read(gateway.admin(Method::GET, path).send().await.unwrap(), StatusCode::OK).await
}

async fn who_reads_a_kept_prompt_is_in_the_audit_log(kind: Database) {
    let House { gateway, fal: _fal, database } = House::new(kind).await;
    read(gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::CREATED).await;
    let bare = gateway.generations().await[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(get(&gateway, &format!("/admin/v1/generations/{bare}")).await["prompt"], Value::Null);
    assert!(entries(&gateway, "prompt.read").await.is_empty(), "there was no prompt to read");

    gateway.set_project(&json!({"prompt_retention_seconds": 3600})).await;
    let made = gateway.generate(&t_rex()).send().await.unwrap();
    let id = read(made, StatusCode::CREATED).await["id"].as_str().unwrap().to_owned();
    gateway.generations().await;
    assert!(entries(&gateway, "prompt.read").await.is_empty(), "a list shows no prompt");
    let told = get(&gateway, &format!("/admin/v1/generations/{id}")).await;
    assert_eq!(told["prompt"], t_rex()["prompt"]);
    let read_entries = entries(&gateway, "prompt.read").await;
    assert_eq!((read_entries.len(), &read_entries[0]["resource_id"]), (1, &json!(id)));
    assert!(read_entries[0]["actor"]["api_key"]["id"].is_string(), "{read_entries:?}");
    assert!(!read_entries[0].to_string().contains("T-Rex"), "the log itself has no prompt");

    let folder = tempfile::tempdir().unwrap();
    let mut command = Start::new(&database.url, "http://127.0.0.1:1").command(&folder);
    let output = command.args(["generations", "show", &id]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("T-Rex"));
    let read_entries = entries(&gateway, "prompt.read").await;
    assert_eq!((read_entries.len(), &read_entries[0]["actor"]["session"]["user"]["id"]), (2, &json!("command")));
}

async fn who_reads_or_rotates_a_webhook_secret_is_in_the_audit_log(kind: Database) {
    let House { gateway, fal: _fal, database: _database } = House::new(kind).await;
    let secret = read(gateway.project(Method::GET, "/v1/webhooks/secret").send().await.unwrap(), StatusCode::OK).await;
    let rotated = gateway.project(Method::POST, "/v1/webhooks/secret/rotate").send().await.unwrap();
    let rotated = read(rotated, StatusCode::OK).await;
    assert_ne!(secret["secret"], rotated["secret"]);
    let entries = entries(&gateway, "webhook_secret.read,webhook_secret.rotated").await;
    let types: Vec<&str> = entries.iter().map(|entry| entry["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["webhook_secret.rotated", "webhook_secret.read"]);
    let project = get(&gateway, "/admin/v1/projects/default").await;
    for entry in &entries {
        assert_eq!((&entry["resource_id"], &entry["project"]["id"]), (&project["id"], &project["id"]));
        assert_eq!(entry["actor"]["session"]["ip_address"], "127.0.0.1");
        assert!(!entry.to_string().contains("whsec"), "{entry}");
    }
}

async fn who_exports_is_in_the_audit_log(kind: Database) {
    let House { gateway, fal: _fal, database: _database } = House::new(kind).await;
    get(&gateway, "/admin/v1/generations").await;
    assert!(entries(&gateway, "data.exported").await.is_empty(), "a page is no export");
    for path in [
        "/admin/v1/generations?format=csv&state=failed",
        "/admin/v1/generations?format=ndjson&project_id=proj_019e1951c77871209c8216efcf40ec82",
        "/admin/v1/events?start_time=1790000000",
    ] {
        assert_eq!(gateway.admin(Method::GET, path).send().await.unwrap().status(), StatusCode::OK, "{path}");
    }
    let entries = entries(&gateway, "data.exported").await;
    let what: Vec<&str> = entries.iter().map(|entry| entry["resource_id"].as_str().unwrap()).collect();
    assert_eq!(what, ["billing_events", "generations", "generations"]);
    assert_eq!(entries[2]["after"], json!({"filters": {"format": "csv", "state": "failed"}}));
}
