//! What is to be forgotten is: prompts that outlive a lowered retention, and content that is erased on request.

use std::path::Path;
use std::time::Duration;

use reqwest::multipart::{Form, Part};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::files::png;
use crate::support::{Database, Gateway, House, Start, client, eventually, on_both_databases, read, t_rex};

on_both_databases!(
    a_lowered_retention_forgets_what_is_kept_within_a_minute,
    a_generations_content_is_erased_and_its_money_stays,
    what_is_open_is_erased_only_once_it_has_ended,
    a_projects_content_is_erased_and_no_other_projects,
);

const MINUTE: Duration = Duration::from_mins(1);

async fn admin(gateway: &Gateway, method: Method, path: &str, body: Value, status: StatusCode) -> Value {
    read(gateway.admin(method, path).json(&body).send().await.unwrap(), status).await
}

async fn history(gateway: &Gateway, id: &str) -> Value {
    let path = format!("/admin/v1/generations/{id}");
    read(gateway.admin(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await
}

/// A new project that keeps prompts for an hour, with a key.
async fn project_that_keeps(gateway: &Gateway) -> (String, String) {
    let new = json!({"name": "keeps"});
    let made = admin(gateway, Method::POST, "/v1/organization/projects", new, StatusCode::OK).await;
    let id = made["id"].as_str().unwrap().to_owned();
    let terms = json!({"prompt_retention_seconds": 3600});
    admin(gateway, Method::PATCH, &format!("/admin/v1/projects/{id}"), terms, StatusCode::OK).await;
    let path = format!("/v1/organization/projects/{id}/service_accounts");
    let account = admin(gateway, Method::POST, &path, json!({"name": "worker"}), StatusCode::OK).await;
    (id, account["api_key"]["value"].as_str().unwrap().to_owned())
}

async fn generate(gateway: &Gateway, key: &str, body: &Value) -> Value {
    let request = gateway.request(Method::POST, "/v1/images/generations").bearer_auth(key).json(body);
    request.send().await.unwrap().json().await.unwrap()
}

async fn generate_id(gateway: &Gateway, key: &str) -> String {
    generate(gateway, key, &t_rex()).await["id"].as_str().unwrap().to_owned()
}

async fn prompt_goes(gateway: &Gateway, id: &str) {
    eventually(MINUTE, || async { history(gateway, id).await["prompt"].is_null().then_some(()) }).await;
}

async fn a_lowered_retention_forgets_what_is_kept_within_a_minute(kind: Database) {
    let House { gateway, fal: _fal, database: _database } = House::new(kind).await;
    let mut kept = Vec::new();
    for _ in 0..5 {
        let (project, key) = project_that_keeps(&gateway).await;
        let id = generate_id(&gateway, &key).await;
        assert_eq!(history(&gateway, &id).await["prompt"], t_rex()["prompt"]);
        kept.push((project, id));
    }
    // By our own word, by OpenAI's word for the project, by archiving.
    let ours = format!("/admin/v1/projects/{}", kept[0].0);
    admin(&gateway, Method::PATCH, &ours, json!({"prompt_retention_seconds": 0}), StatusCode::OK).await;
    let openais = format!("/v1/organization/projects/{}/data_retention", kept[1].0);
    let zero = json!({"retention_type": "zero_data_retention"});
    admin(&gateway, Method::POST, &openais, zero, StatusCode::OK).await;
    let archive = format!("/v1/organization/projects/{}/archive", kept[2].0);
    admin(&gateway, Method::POST, &archive, json!({}), StatusCode::OK).await;
    // A time that is still long enough, and a longer one, forget nothing.
    for (project, seconds) in [(&kept[3].0, 1800), (&kept[4].0, 7200)] {
        let terms = json!({"prompt_retention_seconds": seconds});
        admin(&gateway, Method::PATCH, &format!("/admin/v1/projects/{project}"), terms, StatusCode::OK).await;
    }
    for (_, id) in &kept[..3] {
        prompt_goes(&gateway, id).await;
    }
    for (_, id) in &kept[3..] {
        assert_eq!(history(&gateway, id).await["prompt"], t_rex()["prompt"]);
    }
    // All else of it stays.
    assert_eq!(history(&gateway, &kept[0].1).await["parameters"]["num_images"], 1);

    // By the organization's word, for projects that follow it.
    let organization = "/v1/organization/data_retention";
    let keep = json!({"retention_type": "modified_abuse_monitoring"});
    admin(&gateway, Method::POST, organization, keep, StatusCode::OK).await;
    let made = read(gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::CREATED).await;
    let id = made["id"].as_str().unwrap();
    assert_eq!(history(&gateway, id).await["prompt"], t_rex()["prompt"]);
    let none = json!({"retention_type": "zero_data_retention"});
    admin(&gateway, Method::POST, organization, none, StatusCode::OK).await;
    prompt_goes(&gateway, id).await;
    assert_eq!(history(&gateway, &kept[4].1).await["prompt"], t_rex()["prompt"], "it has a time of its own");
}

async fn audit(gateway: &Gateway, event: &str, resource: &str) -> Vec<Value> {
    let path = format!("/v1/organization/audit_logs?event_types={event}&resource_ids={resource}");
    let logs = read(gateway.admin(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await;
    logs["data"].as_array().unwrap().clone()
}

fn files_below(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let count = |entry: std::fs::DirEntry| if entry.path().is_dir() { files_below(&entry.path()) } else { 1 };
    entries.map(|entry| count(entry.unwrap())).sum()
}

async fn a_generations_content_is_erased_and_its_money_stays(kind: Database) {
    let folder = tempfile::tempdir().unwrap();
    let place = format!("file://{}", folder.path().display());
    let house = House::with(kind, Duration::ZERO, &[("IMAGEGATE_STORAGE", place.as_str())]).await;
    let gateway = &house.gateway;
    gateway.set_project(&json!({"prompt_retention_seconds": 3600})).await;
    let ask = |key: &'static str| gateway.generate(&t_rex()).header("idempotency-key", key).send();
    let answer = read(ask("one").await.unwrap(), StatusCode::CREATED).await;
    let other = read(ask("two").await.unwrap(), StatusCode::CREATED).await;
    let (id, url) = (answer["id"].as_str().unwrap(), answer["data"][0]["url"].as_str().unwrap());
    let before = history(gateway, id).await;
    assert_eq!((&before["prompt"], &before["erased_at"]), (&t_rex()["prompt"], &Value::Null));
    assert_eq!(files_below(folder.path()), 2);

    let path = format!("/admin/v1/generations/{id}/content");
    let erased = admin(gateway, Method::DELETE, &path, Value::Null, StatusCode::OK).await;
    assert_eq!((&erased["id"], &erased["deleted"]), (&json!(id), &json!(true)));
    let after = history(gateway, id).await;
    assert_eq!((&after["prompt"], &after["parameters"]), (&Value::Null, &json!({})));
    assert_eq!(after["erased_at"], erased["erased_at"]);
    for name in ["state", "price_usd", "cost_usd", "margin_usd", "ledger", "model", "num_images", "size", "created_at"]
    {
        assert_eq!(after[name], before[name], "{name}");
    }
    let own = gateway.project(Method::GET, &format!("/v1/images/generations/{id}")).send().await.unwrap();
    let own = read(own, StatusCode::OK).await;
    assert_eq!((&own["state"], &own["erased_at"]), (&json!("succeeded"), &erased["erased_at"]));
    assert!(own.get("images").is_none() && own.get("seed").is_none(), "{own}");
    assert_eq!(client().get(url).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(files_below(folder.path()), 1, "the other generation's image stays");
    // The same request again makes no second image, and tells why there is none.
    let replayed = read(ask("one").await.unwrap(), StatusCode::NOT_FOUND).await;
    assert!(replayed["message"].as_str().unwrap().contains("erased on request"), "{replayed}");
    let fals =
        gateway.project(Method::GET, &format!("/fal/queue/fal-ai/flux-realism/requests/{id}")).send().await.unwrap();
    assert_eq!(fals.status(), StatusCode::NOT_FOUND);

    // Once more is fine and no second entry.
    let again = admin(gateway, Method::DELETE, &path, Value::Null, StatusCode::OK).await;
    assert_eq!(again, erased);
    let entries = audit(gateway, "generation.content_erased", id).await;
    assert_eq!(entries.len(), 1);
    assert!(
        entries[0]["actor"]["api_key"]["id"].is_string() && !entries[0].to_string().contains("T-Rex"),
        "{entries:?}"
    );
    let nobody = "/admin/v1/generations/019e1951-c778-7120-9c82-16efcf40ec82/content";
    admin(gateway, Method::DELETE, nobody, Value::Null, StatusCode::NOT_FOUND).await;

    // What the provider said about a failure goes too.
    house.misbehave(json!({"times": 1, "do": {"fail": {"status": 500}}})).await;
    assert!(!gateway.generate(&t_rex()).send().await.unwrap().status().is_success());
    let failed = gateway.generations().await[0].clone();
    let failed_id = failed["id"].as_str().unwrap();
    let path = format!("/admin/v1/generations/{failed_id}/content");
    admin(gateway, Method::DELETE, &path, Value::Null, StatusCode::OK).await;
    let after = history(gateway, failed_id).await;
    assert_eq!((&after["state"], &after["error"]["kind"]), (&json!("failed"), &failed["error"]["kind"]));
    assert_eq!(
        (&after["error"]["message"], &after["reason"]),
        (&json!("erased on request"), &json!("erased on request"))
    );

    // By the command; not where the storage of its images is unknown.
    let other = other["id"].as_str().unwrap();
    let command = |settings: &[(&'static str, &str)]| {
        let folder = tempfile::tempdir().unwrap();
        let start = Start::new(&house.database.url, "http://127.0.0.1:1");
        let start = settings.iter().fold(start, |start, (name, value)| start.with(name, value));
        start.command(&folder).args(["erase", "generation", other]).output().unwrap()
    };
    let refused = command(&[]);
    assert!(
        !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("IMAGEGATE_STORAGE"),
        "{refused:?}"
    );
    assert_eq!(history(gateway, other).await["erased_at"], Value::Null);
    let done = command(&[("IMAGEGATE_STORAGE", &place)]);
    assert!(done.status.success(), "{done:?}");
    assert!(history(gateway, other).await["erased_at"].is_i64());
    assert_eq!(files_below(folder.path()), 0);
}

async fn what_is_open_is_erased_only_once_it_has_ended(kind: Database) {
    let House { gateway, fal: _fal, database: _database } = House::with(kind, Duration::from_secs(3), &[]).await;
    let body = json!({"model": "flux/dev", "prompt": "a cat", "background": true});
    let open = read(gateway.generate(&body).send().await.unwrap(), StatusCode::ACCEPTED).await;
    let id = open["id"].as_str().unwrap();
    let path = format!("/admin/v1/generations/{id}/content");
    let refused = admin(&gateway, Method::DELETE, &path, Value::Null, StatusCode::CONFLICT).await;
    assert!(refused["message"].as_str().unwrap().contains("still open"), "{refused}");
    assert_eq!(gateway.ended(id).await["state"], "succeeded");
    admin(&gateway, Method::DELETE, &path, Value::Null, StatusCode::OK).await;
}

async fn a_projects_content_is_erased_and_no_other_projects(kind: Database) {
    let House { gateway, fal: _fal, database } = House::with(kind, Duration::from_secs(3), &[]).await;
    let (project, key) = project_that_keeps(&gateway).await;
    let (other, other_key) = project_that_keeps(&gateway).await;
    let (ended, others) = tokio::join!(generate_id(&gateway, &key), generate_id(&gateway, &other_key));
    let form = Form::new().part("file", Part::bytes(png()).file_name("cat.png"));
    let upload = gateway.request(Method::POST, "/v1/files").bearer_auth(&key).multipart(form).send().await.unwrap();
    read(upload, StatusCode::OK).await;
    let mut body = t_rex();
    body["background"] = json!(true);
    let open = generate(&gateway, &key, &body).await["id"].as_str().unwrap().to_owned();

    let path = format!("/admin/v1/projects/{project}/content");
    let asked = admin(&gateway, Method::DELETE, &path, Value::Null, StatusCode::ACCEPTED).await;
    assert_eq!((&asked["project_id"], &asked["finished_at"]), (&json!(project), &Value::Null));
    // The prompt of what is open is gone at once, the upload too.
    assert_eq!(history(&gateway, &open).await["prompt"], Value::Null);
    let files = gateway.request(Method::GET, "/v1/files").bearer_auth(&key).send().await.unwrap();
    assert_eq!(read(files, StatusCode::OK).await["data"], json!([]));
    let view = |id: &str| format!("/admin/v1/projects/{id}");
    let done = eventually(MINUTE, || async {
        let shown = read(gateway.admin(Method::GET, &view(&project)).send().await.unwrap(), StatusCode::OK).await;
        let erasure = shown["content_erasure"].clone();
        erasure["finished_at"].is_i64().then_some(erasure)
    })
    .await;
    assert_eq!(done["before"], asked["before"]);
    for id in [&ended, &open] {
        let after = history(&gateway, id).await;
        assert!(after["erased_at"].is_i64(), "{after}");
        assert_eq!((&after["state"], &after["parameters"]), (&json!("succeeded"), &json!({})));
    }
    let shown = read(gateway.admin(Method::GET, &view(&other)).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(shown["content_erasure"], Value::Null);
    let untouched = history(&gateway, &others).await;
    assert_eq!((&untouched["prompt"], &untouched["erased_at"]), (&t_rex()["prompt"], &Value::Null));
    assert_eq!(audit(&gateway, "project.content_erased", &project).await.len(), 1);
    admin(&gateway, Method::DELETE, "/admin/v1/projects/proj_x/content", Value::Null, StatusCode::NOT_FOUND).await;

    // What is made afterwards is not meant; by the command it is asked for again.
    let later = generate_id(&gateway, &key).await;
    assert_eq!(history(&gateway, &later).await["prompt"], t_rex()["prompt"]);
    let folder = tempfile::tempdir().unwrap();
    let mut command = Start::new(&database.url, "http://127.0.0.1:1").command(&folder);
    let output = command.args(["erase", "project", &project, "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(told["finished_at"].is_i64(), "{told}");
    assert!(history(&gateway, &later).await["erased_at"].is_i64());
}
