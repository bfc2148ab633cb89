//! Administration in the terminal: tables for people, JSON for programs, and what it changes is known to running gateways.

use std::process::Output;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Database, House, PROJECT_KEY, Start, eventually, on_both_databases, read};

on_both_databases!(
    keys_credits_and_limits_of_the_terminal_hold_in_the_gateway,
    admin_keys_generate_only_where_the_terminal_lets_them_and_archived_projects_end,
    what_the_terminal_is_told_wrongly_is_refused_with_the_reason,
    a_month_is_shown_first_and_dropped_only_when_that_is_said,
    what_the_books_hold_is_printed_for_people_and_for_programs,
);

fn run(house: &House, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    Start::new(&house.database.url, "http://127.0.0.1:1").command(&folder).args(arguments).output().unwrap()
}

fn text(house: &House, arguments: &[&str]) -> String {
    let output = run(house, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json_of(house: &House, arguments: &[&str]) -> Value {
    let told = text(house, &[arguments, &["--json"]].concat());
    serde_json::from_str(&told).unwrap_or_else(|_| panic!("{arguments:?} did not print JSON: {told}"))
}

/// What a command says that fails.
fn refused(house: &House, arguments: &[&str]) -> String {
    let output = run(house, arguments);
    assert!(!output.status.success(), "{arguments:?} was taken");
    String::from_utf8(output.stderr).unwrap()
}

async fn generate(house: &House, key: &str, model: &str) -> StatusCode {
    let body = json!({"model": model, "prompt": "a", "size": "1024x1024"});
    let request = house.gateway.request(Method::POST, "/v1/images/generations").bearer_auth(key).json(&body);
    request.send().await.unwrap().status()
}

/// Waits until the running gateway knows what the terminal has changed: at most a second.
async fn soon(house: &House, key: &str, model: &str, status: StatusCode) {
    eventually(Duration::from_secs(2), || async { (generate(house, key, model).await == status).then_some(()) }).await;
}

async fn keys_credits_and_limits_of_the_terminal_hold_in_the_gateway(kind: Database) {
    let house = House::new(kind).await;
    let shop = json_of(&house, &["projects", "create", "Web shop", "--prepaid"]);
    let id = shop["id"].as_str().unwrap();
    assert_eq!((&shop["prepaid"], &shop["status"]), (&json!(true), &json!("active")));
    let key = json_of(
        &house,
        &[
            "keys",
            "create",
            "--name",
            "worker",
            "--project",
            "Web shop",
            "--model",
            "Flux/Dev",
            "--budget",
            "0.1",
            "--expires-in",
            "90d",
        ],
    );
    assert_eq!((&key["project_id"], &key["allowed_models"]), (&json!(id), &json!(["flux/dev"])));
    let life = key["expires_at"].as_i64().unwrap() - key["created_at"].as_i64().unwrap();
    // The two are read one after the other.
    assert!((90 * 86_400 - 600..=90 * 86_400).contains(&life), "{life}");
    let (key_id, value) = (key["id"].as_str().unwrap(), key["value"].as_str().unwrap());
    soon(&house, value, "flux/dev", StatusCode::FORBIDDEN).await;
    let balance = json_of(&house, &["credits", "add", "Web shop", "25.00", "--reason", "invoice 17"]);
    assert_eq!((&balance["balance_usd"], &balance["project_id"]), (&json!("25.000000000"), &json!(id)));
    assert!(text(&house, &["credits", "add", id, "-1.50", "--reason", "booked twice"]).contains("23.500000000 USD"));
    assert_eq!(generate(&house, value, "flux/dev").await, StatusCode::CREATED);
    assert_eq!(generate(&house, value, "flux-realism").await, StatusCode::FORBIDDEN);
    let charged = house.gateway.generations().await[0].clone();
    let made = charged["id"].as_str().unwrap();
    let gift = json_of(&house, &["credits", "add", id, "0.5", "--kind", "goodwill", "--reason", "an outage"]);
    assert_eq!(gift["project_id"], json!(id));
    let refunded = json_of(&house, &["credits", "refund", made, "0.01", "--reason", "blurred"]);
    assert_eq!(refunded["project_id"], json!(id));
    let logs = "/v1/organization/audit_logs?event_types[]=generation.refunded&event_types[]=project.credited";
    let logs = read(house.gateway.admin(Method::GET, logs).send().await.unwrap(), StatusCode::OK).await;
    let told = |name: &str| -> Vec<Value> {
        logs["data"].as_array().unwrap().iter().map(|entry| entry["after"][name].clone()).collect()
    };
    assert_eq!(told("amount_usd"), ["0.010000000", "0.500000000", "-1.500000000", "25.000000000"]);
    assert_eq!(told("kind"), [Value::Null, json!("goodwill"), json!("correction"), json!("top_up")]);

    let limits = json_of(
        &house,
        &[
            "limits",
            "set",
            "Web shop",
            "--spend",
            "100",
            "--concurrent",
            "20",
            "--model",
            "flux/dev",
            "--requests-per-minute",
            "60",
        ],
    );
    assert_eq!((&limits["spend_limit_usd"], &limits["concurrent_generations"]), (&json!("100.000000000"), &json!(20)));
    let rate = |model: &str, requests: u32, images: Option<u32>| json!({"model": model, "requests_per_minute": requests, "images_per_minute": images});
    assert_eq!(limits["rates"], json!([rate("*", 600, Some(1200)), rate("flux/dev", 60, None)]));
    let table = text(&house, &["limits", "show", "Web shop"]);
    assert!(table.contains("requests a minute") && table.contains("100.000000000"), "{table}");
    text(&house, &["limits", "set", id, "--spend", "0"]);
    assert_eq!(generate(&house, value, "flux/dev").await, StatusCode::FORBIDDEN, "a limit holds at once");
    text(
        &house,
        &[
            "limits",
            "set",
            id,
            "--spend",
            "none",
            "--concurrent",
            "none",
            "--model",
            "flux/dev",
            "--requests-per-minute",
            "none",
        ],
    );
    text(&house, &["limits", "set", id, "--requests-per-minute", "none", "--images-per-minute", "none"]);
    assert!(text(&house, &["limits", "show", id]).starts_with("Nothing limits"));
    let all = json_of(&house, &["limits", "organization", "--spend", "1000"]);
    assert_eq!(all["spend_limit_usd"], "1000.000000000");
    assert_eq!(json_of(&house, &["limits", "organization", "--spend", "none"])["spend_limit_usd"], Value::Null);

    text(&house, &["keys", "update", key_id, "--model", "any", "--budget", "none", "--expires-in", "none"]);
    soon(&house, value, "flux-realism", StatusCode::CREATED).await;
    let rotated = json_of(&house, &["keys", "rotate", key_id, "--overlap", "0s"]);
    assert_eq!(rotated["replaces"], key_id);
    soon(&house, value, "flux/dev", StatusCode::UNAUTHORIZED).await;
    let value = rotated["value"].as_str().unwrap();
    soon(&house, value, "flux/dev", StatusCode::CREATED).await;
    let listed = json_of(&house, &["keys", "list", "--project", "Web shop"]);
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
}

async fn admin_keys_generate_only_where_the_terminal_lets_them_and_archived_projects_end(kind: Database) {
    let house = House::new(kind).await;
    let shop = json_of(&house, &["projects", "create", "Web shop"]);
    let id = shop["id"].as_str().unwrap();
    let key = json_of(&house, &["keys", "create", "--name", "worker", "--project", id]);
    let value = key["value"].as_str().unwrap();
    text(&house, &["limits", "set", id, "--requests-per-minute", "60"]);
    text(&house, &["limits", "set", id, "--requests-per-minute", "none", "--images-per-minute", "none"]);
    text(&house, &["keys", "update", key["id"].as_str().unwrap(), "--name", "worker 1"]);
    soon(&house, value, "flux/dev", StatusCode::CREATED).await;
    text(&house, &["projects", "rename", "Web shop", "Shop"]);
    let admin = json_of(&house, &["keys", "create", "--name", "ada", "--kind", "admin"]);
    let (admin_id, admin) = (admin["id"].as_str().unwrap(), admin["value"].as_str().unwrap());
    soon(&house, admin, "flux/dev", StatusCode::FORBIDDEN).await;
    text(&house, &["keys", "update", admin_id, "--generates-for", "Shop"]);
    soon(&house, admin, "flux/dev", StatusCode::CREATED).await;
    assert_eq!(house.gateway.generations().await[0]["project_id"], id);
    assert_eq!(house.gateway.generations().await[0]["api_key_id"], admin_id);
    text(&house, &["keys", "update", admin_id, "--generates-for", "none"]);
    soon(&house, admin, "flux/dev", StatusCode::FORBIDDEN).await;

    text(&house, &["projects", "archive", "Shop"]);
    soon(&house, value, "flux/dev", StatusCode::UNAUTHORIZED).await;
    let active = json_of(&house, &["projects", "list"]);
    assert_eq!(active["data"].as_array().unwrap().len(), 1, "an archived project is not listed");
    assert_eq!(json_of(&house, &["projects", "list", "--archived"])["data"].as_array().unwrap().len(), 2);
    let events = json_of(&house, &["audit", "--project", id, "--limit", "1000"]);
    let kinds: Vec<&str> =
        events["data"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds[0], "project.archived");
    for event in [
        "project.created",
        "project.updated",
        "api_key.created",
        "api_key.updated",
        "rate_limit.updated",
        "rate_limit.deleted",
    ] {
        assert!(kinds.contains(&event), "{event} is not among {kinds:?}");
    }
    assert!(events["data"].as_array().unwrap().iter().all(|event| event["actor"] == "command"));
}

async fn what_the_terminal_is_told_wrongly_is_refused_with_the_reason(kind: Database) {
    let house = House::new(kind).await;
    let key = json_of(&house, &["keys", "create", "--name", "worker"]);
    let key_id = key["id"].as_str().unwrap();
    for (arguments, needle) in [
        (["projects", "show", "nobody"].as_slice(), "there is no project `nobody`"),
        (&["projects", "archive", "default"], "default project cannot be archived"),
        (&["keys", "create", "--name", "x", "--kind", "admin", "--project", "default"], "belongs to no project"),
        (&["keys", "create", "--name", "x", "--model", "nothing"], "there is no model `nothing`"),
        (&["keys", "create", "--name", "x", "--expires-in", "soon"], "`soon` is no time"),
        (&["keys", "update", key_id, "--generates-for", "default"], "its own project only"),
        (&["credits", "add", "default", "0", "--reason", "x"], "changes nothing"),
        (&["credits", "refund", "00000000-0000-7000-8000-000000000000", "1", "--reason", "x"], "no generation"),
        (&["credits", "add", "default", "-1", "--kind", "goodwill", "--reason", "x"], "must be above zero"),
        (&["credits", "add", "default", "1", "--kind", "gift", "--reason", "x"], "`goodwill`"),
        (&["retention", "drop", "2999-01"], "is not over"),
        (&["retention", "drop", "last month", "--yes"], "is not a month"),
        (&["limits", "set", "default", "--spend", "much"], "neither US dollars"),
        (&["limits", "set", "default", "--requests-per-minute", "0"], "above zero"),
        (&["audit", "--event", "nothing.happened"], "there is no event"),
        (&["usage", "--from", "2026-02-01", "--to", "2026-01-01"], "must be later"),
        (&["generations", "show", "nothing"], "there is no generation `nothing`"),
    ] {
        let said = refused(&house, arguments);
        assert!(said.contains(needle), "{arguments:?}: {said}");
    }
}

async fn a_month_is_shown_first_and_dropped_only_when_that_is_said(kind: Database) {
    let house = House::new(kind).await;
    let shown = json_of(&house, &["retention", "drop", "2026-01"]);
    assert_eq!(shown, json!({"object": "retention.drop", "month": "2026-01", "generations": 0, "dropped": false}));
    assert!(text(&house, &["retention", "drop", "2026-01"]).contains("`imagegate retention drop 2026-01 --yes`"));
    assert!(text(&house, &["retention", "drop", "2026-01", "--yes"]).contains("2026-01 is dropped"));
    let logs = "/v1/organization/audit_logs?event_types[]=generations.dropped";
    let logs = read(house.gateway.admin(Method::GET, logs).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(logs["data"][0]["type"], "generations.dropped");
    assert!(text(&house, &["ledger", "verify"]).contains("The books add up."));
    assert_eq!(generate(&house, PROJECT_KEY, "flux/dev").await, StatusCode::CREATED);
}

async fn what_the_books_hold_is_printed_for_people_and_for_programs(kind: Database) {
    let house = House::with(kind, Duration::ZERO, &[("IMAGEGATE_MARKUP", "2")]).await;
    assert_eq!(text(&house, &["generations", "list"]), "There are none in this time.\n");
    assert_eq!(text(&house, &["costs"]), "Nothing was settled in this time.\n");
    for model in ["flux/dev", "flux/dev", "flux-realism"] {
        let body = json!({"model": model, "prompt": "a", "size": "1024x1024", "user": "ada"});
        read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::CREATED).await;
    }
    let generations = house.gateway.generations().await;
    let listed = json_of(&house, &["generations", "list", "--limit", "2"]);
    assert_eq!(listed["data"].as_array().unwrap()[..], generations[..2]);
    assert_eq!(listed["has_more"], true);
    let lines = text(&house, &["generations", "list", "--all", "--json"]);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, generations);
    let table =
        text(&house, &["generations", "list", "--model", "flux-realism", "--state", "succeeded", "--user", "ada"]);
    assert_eq!(table.lines().count(), 2);
    let id = generations[0]["id"].as_str().unwrap();
    let history: Value = serde_json::from_str(&text(&house, &["generations", "show", id])).unwrap();
    let path = format!("/admin/v1/generations/{id}");
    assert_eq!(history, read(house.gateway.admin(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await);

    let usage = json_of(&house, &["usage", "--by", "model"]);
    assert_eq!(
        usage["data"],
        json!([
            {"model": "flux-realism", "requests": 1, "failures": 0, "images": 1, "megapixels": usage["data"][0]["megapixels"], "price_usd": "0.070000000", "cost_usd": "0.035000000"},
            {"model": "flux/dev", "requests": 2, "failures": 0, "images": 2, "megapixels": usage["data"][1]["megapixels"], "price_usd": "0.100000000", "cost_usd": "0.050000000"},
        ])
    );
    let costs = json_of(&house, &["costs", "--days", "1", "--by", "user"]);
    assert_eq!(costs["data"], json!([{"user": "ada", "images": 3, "amount_usd": "0.170000000"}]));
    let table = text(&house, &["costs", "--by", "day,project", "--project", "default"]);
    assert!(table.starts_with("DAY") && table.contains("0.170000000"), "{table}");
    assert!(json_of(&house, &["ledger", "verify"])["data"].as_array().unwrap().is_empty());
    assert!(text(&house, &["audit"]).starts_with("WHEN"));
}

#[tokio::test]
async fn models_and_migrations_are_told_as_json_where_it_is_asked_for() {
    let house = House::new(Database::Sqlite).await;
    let models = json_of(&house, &["models"]);
    let realism = models["data"].as_array().unwrap().iter().find(|model| model["id"] == "flux-realism").unwrap();
    assert_eq!((&realism["status"], &realism["pricing"]["currency"]), (&json!("offered"), &json!("USD")));
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/catalogue/models/flux-dev.toml");
    let checked = json_of(&house, &["models", "check", file]);
    assert_eq!(checked, json!({"file": file, "model": "flux/dev", "valid": true}));
    assert_eq!(json_of(&house, &["migrate"]), json!({"status": "migrated"}));
}

#[tokio::test]
async fn images_of_the_terminal_are_written_or_nothing_is_asked_for() {
    let house = House::new(Database::Sqlite).await;
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    let url = house.gateway.base.clone();
    let generate = |name: &str| {
        let fixed = [
            "generate",
            "--model",
            "flux/dev",
            "--prompt",
            "a",
            "--url",
            &url,
            "--key",
            PROJECT_KEY,
            "-p",
            "n=2",
            "-o",
        ];
        fixed.iter().map(|argument| (*argument).to_owned()).chain([place(name)]).collect::<Vec<_>>()
    };
    let nowhere = generate("none/m.jpg");
    let sentence = refused(&house, &nowhere.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(sentence.contains("none/m.jpg` cannot be written"), "{sentence}");
    assert!(house.gateway.generations().await.is_empty(), "nothing was asked for");

    let asked = generate("m.jpg");
    let told = json_of(&house, &asked.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(told["id"], house.gateway.generations().await[0]["id"]);
    let paths: Vec<_> = told["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!(paths, [place("m.jpg"), place("m-2.jpg")]);
    for path in paths {
        image::load_from_memory(&std::fs::read(path).unwrap()).unwrap();
    }

    // The second file's name is taken by a folder, which nobody can know before.
    std::fs::create_dir(place("f-2.jpg")).unwrap();
    let lost = generate("f.jpg");
    let sentence = refused(&house, &lost.iter().map(String::as_str).collect::<Vec<_>>());
    let id = house.gateway.generations().await[0]["id"].as_str().unwrap().to_owned();
    assert!(sentence.contains("f-2.jpg` cannot be written") && sentence.contains(&id), "{sentence}");
}

#[tokio::test]
async fn every_command_of_operators_shows_examples_and_completes_in_the_shell() {
    let house = House::new(Database::Sqlite).await;
    for command in [
        "projects",
        "keys",
        "limits",
        "usage",
        "costs",
        "generations",
        "credits",
        "audit",
        "ledger",
        "reconcile",
        "retention",
    ] {
        let help = text(&house, &[command, "--help"]);
        assert!(help.contains("Examples:") && help.contains(&format!("imagegate {command}")), "{help}");
        assert!(help.contains("--json"), "{help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&house, &["completions", shell]);
        assert!(script.contains("imagegate") && script.contains("reconcile"), "{shell}");
    }
}
