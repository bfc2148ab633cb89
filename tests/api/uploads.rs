//! Uploaded files: listed, deleted, limited; and the rates that new projects begin with.

use std::time::Duration;

use reqwest::multipart::{Form, Part};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::files::png;
use crate::support::{
    Database, Gateway, House, PROJECT_KEY, Start, TestDatabase, on_both_databases, read, start_sandbox,
};

on_both_databases!(
    uploaded_files_are_listed_retrieved_and_deleted_by_their_own_project,
    uploads_stop_at_the_limits_of_their_project,
    what_fals_clients_upload_is_recorded_too,
    a_new_project_begins_with_rates_and_others_stay_as_they_are,
);

async fn upload(gateway: &Gateway, key: &str, name: &str) -> Response {
    let form = Form::new().part("file", Part::bytes(png()).file_name(name.to_owned()));
    gateway.request(Method::POST, "/v1/files").bearer_auth(key).multipart(form).send().await.unwrap()
}

async fn ask(gateway: &Gateway, method: Method, path: &str, key: &str, status: StatusCode) -> Value {
    read(gateway.request(method, path).bearer_auth(key).send().await.unwrap(), status).await
}

/// The types of the newest entries of the audit log about a thing, newest first.
async fn events(gateway: &Gateway, id: &str) -> Vec<String> {
    let path = format!("/v1/organization/audit_logs?resource_ids[]={id}");
    let logs = read(gateway.admin(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await;
    logs["data"].as_array().unwrap().iter().map(|entry| entry["type"].as_str().unwrap().to_owned()).collect()
}

/// A key of a new project.
pub async fn key_of_another_project(gateway: &Gateway) -> (String, String) {
    let post = async |path: &str, body: Value| {
        read(gateway.admin(Method::POST, path).json(&body).send().await.unwrap(), StatusCode::OK).await
    };
    let project =
        post("/v1/organization/projects", json!({"name": "another"})).await["id"].as_str().unwrap().to_owned();
    let accounts = format!("/v1/organization/projects/{project}/service_accounts");
    let key = post(&accounts, json!({"name": "worker"})).await["api_key"]["value"].as_str().unwrap().to_owned();
    (project, key)
}

async fn uploaded_files_are_listed_retrieved_and_deleted_by_their_own_project(kind: Database) {
    let House { gateway, fal: _fal, database: _database } = House::new(kind).await;
    let (_, stranger) = key_of_another_project(&gateway).await;
    let mut files = Vec::new();
    for name in ["one.png", "two.png", "three.png"] {
        files.push(read(upload(&gateway, PROJECT_KEY, name).await, StatusCode::OK).await);
    }
    let id = |at: usize| files[at]["id"].as_str().unwrap();
    let list =
        async |query: &str| ask(&gateway, Method::GET, &format!("/v1/files{query}"), PROJECT_KEY, StatusCode::OK).await;
    let all = list("").await;
    assert_eq!((&all["object"], &all["has_more"], &all["first_id"]), (&json!("list"), &json!(false), &json!(id(2))));
    assert_eq!(all["data"], json!([files[2], files[1], files[0]]));
    let page = list("?limit=2&order=asc").await;
    assert_eq!((&page["data"], &page["has_more"]), (&json!([files[0], files[1]]), &json!(true)));
    let rest = list(&format!("?limit=2&order=asc&after={}", page["last_id"].as_str().unwrap())).await;
    assert_eq!(rest["data"], json!([files[2]]));
    assert_eq!(list("?purpose=user_data").await["data"], json!([]));
    for wrong in ["?limit=0", "?order=up", "?purpose=tuning", "?after=x", "?colour=red"] {
        ask(&gateway, Method::GET, &format!("/v1/files{wrong}"), PROJECT_KEY, StatusCode::BAD_REQUEST).await;
    }
    let one = format!("/v1/files/{}", id(1));
    assert_eq!(ask(&gateway, Method::GET, &one, PROJECT_KEY, StatusCode::OK).await, files[1]);

    // Another project's key sees nothing of it and deletes nothing.
    assert_eq!(ask(&gateway, Method::GET, "/v1/files", &stranger, StatusCode::OK).await["data"], json!([]));
    for method in [Method::GET, Method::DELETE] {
        ask(&gateway, method, &one, &stranger, StatusCode::NOT_FOUND).await;
    }
    ask(&gateway, Method::GET, "/v1/files/file-x", PROJECT_KEY, StatusCode::NOT_FOUND).await;

    let gone = ask(&gateway, Method::DELETE, &one, PROJECT_KEY, StatusCode::OK).await;
    assert_eq!(gone, json!({"id": id(1), "object": "file", "deleted": true}));
    for method in [Method::GET, Method::DELETE] {
        ask(&gateway, method, &one, PROJECT_KEY, StatusCode::NOT_FOUND).await;
    }
    assert_eq!(list("").await["data"], json!([files[2], files[0]]));
    assert_eq!(events(&gateway, id(1)).await, ["file.deleted", "file.created"]);
    assert_eq!(events(&gateway, id(0)).await, ["file.created"]);
}

async fn uploads_stop_at_the_limits_of_their_project(kind: Database) {
    let house = House::new(kind).await;
    let gateway = &house.gateway;
    let size = png().len();
    let limits = async |limits: Value| gateway.set_project(&json!({"limits": limits})).await["limits"].clone();
    let usual = limits(json!({})).await;
    assert_eq!((&usual["upload_bytes_per_day"], &usual["kept_files"]), (&json!(10_737_418_240_u64), &json!(10_000)));
    let set = limits(json!({"kept_files": 1})).await;
    assert_eq!((&set["upload_bytes_per_day"], &set["kept_files"]), (&json!(10_737_418_240_u64), &json!(1)));

    // A file that the provider's storage did not take counts for nothing.
    house.misbehave(json!({"at": "storage", "times": 1, "do": {"status": 500}})).await;
    read(upload(gateway, PROJECT_KEY, "x.png").await, StatusCode::SERVICE_UNAVAILABLE).await;
    let file = read(upload(gateway, PROJECT_KEY, "x.png").await, StatusCode::OK).await;
    let full = read(upload(gateway, PROJECT_KEY, "y.png").await, StatusCode::FORBIDDEN).await;
    assert_eq!(full["error"]["data"], json!({"kind": "err_kept_files", "limit": 1, "used": 1}), "{full}");
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    ask(gateway, Method::DELETE, &path, PROJECT_KEY, StatusCode::OK).await;
    read(upload(gateway, PROJECT_KEY, "y.png").await, StatusCode::OK).await;

    // Two files of today; deleting one gives nothing of the day back.
    limits(json!({"kept_files": null, "upload_bytes_per_day": size * 3 - 1})).await;
    let over = upload(gateway, PROJECT_KEY, "z.png").await;
    let wait: u64 = over.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(wait <= 86_400, "{wait}");
    let over = read(over, StatusCode::TOO_MANY_REQUESTS).await;
    let data = json!({"kind": "err_upload_bytes_per_day", "limit": size * 3 - 1, "used": size * 2});
    assert_eq!(over["error"]["data"], data, "{over}");
    let told = ask(gateway, Method::GET, "/v1/key", PROJECT_KEY, StatusCode::OK).await;
    assert_eq!(told["data"]["limits"]["upload_bytes_per_day"], json!(size * 3 - 1));
    assert_eq!(told["data"]["limits"]["kept_files"], Value::Null);
    limits(json!({"upload_bytes_per_day": size - 1})).await;
    let never = read(upload(gateway, PROJECT_KEY, "z.png").await, StatusCode::FORBIDDEN).await;
    assert_eq!(never["error"]["data"], json!({"kind": "err_upload_bytes_per_day", "limit": size - 1}), "{never}");
    // Other projects have their own day.
    let (_, other) = key_of_another_project(gateway).await;
    read(upload(gateway, &other, "z.png").await, StatusCode::OK).await;
    limits(json!({"upload_bytes_per_day": null})).await;
    read(upload(gateway, PROJECT_KEY, "z.png").await, StatusCode::OK).await;
    let below_zero = json!({"limits": {"kept_files": -1}});
    let wrong = gateway.admin(Method::PATCH, "/admin/v1/projects/default").json(&below_zero);
    read(wrong.send().await.unwrap(), StatusCode::BAD_REQUEST).await;
}

async fn what_fals_clients_upload_is_recorded_too(kind: Database) {
    let House { gateway, fal: _fal, database: _database } = House::new(kind).await;
    let announce = |key: &str| {
        let target = "https://rest.fal.ai/storage/upload/initiate?storage_type=fal-cdn-v3";
        let request = gateway.request(Method::POST, "/fal/proxy").bearer_auth(key).header("x-fal-target-url", target);
        request.json(&json!({"content_type": "image/png", "file_name": "cat.png"})).send()
    };
    let place = read(announce(PROJECT_KEY).await.unwrap(), StatusCode::OK).await;
    let list = ask(&gateway, Method::GET, "/v1/files", PROJECT_KEY, StatusCode::OK).await;
    let file = &list["data"][0];
    assert_eq!((&file["url"], &file["filename"], &file["bytes"]), (&place["file_url"], &json!("cat.png"), &json!(0)));
    gateway.set_project(&json!({"limits": {"kept_files": 1}})).await;
    let full = read(announce(PROJECT_KEY).await.unwrap(), StatusCode::FORBIDDEN).await;
    assert!(full["detail"].as_str().unwrap().contains("may keep 1"), "{full}");

    let projects = gateway.admin(Method::GET, "/v1/organization/projects").send().await.unwrap();
    let project = read(projects, StatusCode::OK).await["data"][0]["id"].as_str().unwrap().to_owned();
    let accounts = format!("/v1/organization/projects/{project}/service_accounts");
    let new = json!({"name": "maker", "scopes": ["images:generate", "images:read"]});
    let maker = read(gateway.admin(Method::POST, &accounts).json(&new).send().await.unwrap(), StatusCode::OK).await;
    let refused = announce(maker["api_key"]["value"].as_str().unwrap()).await.unwrap();
    let refused = read(refused, StatusCode::FORBIDDEN).await;
    assert!(refused["detail"].as_str().unwrap().contains("`files`"), "{refused}");
}

async fn a_new_project_begins_with_rates_and_others_stay_as_they_are(kind: Database) {
    let database = TestDatabase::new(kind).await;
    let fal = start_sandbox(Duration::ZERO);
    let start = |requests: &str, images: &str| {
        let start = Start::new(&database.url, &fal.queue_url());
        start
            .with("IMAGEGATE_DEFAULT_REQUESTS_PER_MINUTE", requests)
            .with("IMAGEGATE_DEFAULT_IMAGES_PER_MINUTE", images)
            .run()
    };
    let rates = async |gateway: &Gateway, project: &str| {
        let path = format!("/admin/v1/projects/{project}");
        read(gateway.admin(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await["limits"]["rates"].clone()
    };
    let rate = |requests: Value, images: Value| json!([{"model": "*", "requests_per_minute": requests, "images_per_minute": images}]);
    let gateway = start("2", "none").await;
    assert_eq!(rates(&gateway, "default").await, json!([]), "the operator's own");
    let (limited, key) = key_of_another_project(&gateway).await;
    assert_eq!(rates(&gateway, &limited).await, rate(json!(2), Value::Null));
    for expected in [StatusCode::CREATED, StatusCode::CREATED, StatusCode::TOO_MANY_REQUESTS] {
        let body = json!({"model": "flux/dev", "prompt": "a cat"});
        let request = gateway.request(Method::POST, "/v1/images/generations").bearer_auth(&key);
        read(request.json(&body).send().await.unwrap(), expected).await;
    }
    assert_eq!(gateway.stop().await, 0);

    let gateway = start("", "").await;
    assert_eq!(rates(&gateway, "default").await, json!([]));
    assert_eq!(rates(&gateway, &limited).await, rate(json!(2), Value::Null), "it was there before");
    let (new, _) = key_of_another_project(&gateway).await;
    assert_eq!(rates(&gateway, &new).await, rate(json!(600), json!(1200)));
    assert_eq!(gateway.stop().await, 0);

    let gateway = start("none", "none").await;
    let (free, _) = key_of_another_project(&gateway).await;
    assert_eq!(rates(&gateway, &free).await, json!([]));
    // By the command the same.
    let folder = tempfile::tempdir().unwrap();
    let command = Start::new(&database.url, "http://127.0.0.1:1").with("IMAGEGATE_DEFAULT_IMAGES_PER_MINUTE", "7");
    let output = command.command(&folder).args(["projects", "create", "by command", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rates(&gateway, made["id"].as_str().unwrap()).await, rate(json!(600), json!(7)));
}
