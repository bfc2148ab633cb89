//! Clients that know nothing of imagegate, as they are installed, on both databases: against the gateway with its own
//! stand-in, whose pictures lie under the gateway's own address.

use std::process::{Command, Stdio};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::tools::{client_file, last_line, tool};
use crate::support::{ADMIN_KEY, Database, Gateway, House, PROJECT_KEY, Start, TestDatabase, on_both_databases, read};

on_both_databases!(
    vercels_ai_sdk_makes_images,
    openais_node_sdk_makes_images,
    openais_node_sdk_sends_again_and_pays_once,
    litellm_and_langchain_make_images,
);

/// The Node.js that newer clients want; Debian's is older.
pub fn node() -> String {
    format!("{}/.bin/node", tool("IMAGEGATE_TEST_NODE_MODULES"))
}

/// A gateway as a first start has it: nothing is said of fal, so its own stand-in draws.
pub async fn first_start(kind: Database) -> (Gateway, TestDatabase) {
    let database = TestDatabase::new(kind).await;
    let settings = vec![
        ("IMAGEGATE_ADMIN_KEY", ADMIN_KEY.to_owned()),
        ("IMAGEGATE_BOOTSTRAP_KEY", PROJECT_KEY.to_owned()),
        ("IMAGEGATE_SANDBOX_DELAY", "200ms".to_owned()),
    ];
    let gateway = Start { database_url: &database.url, settings }.run().await;
    (gateway, database)
}

/// What a client of `tests/clients` has seen: its last line, which is JSON.
async fn seen_by(program: String, file: &str, gateway: &Gateway, settings: &[(&str, String)]) -> Value {
    let mut command = Command::new(program);
    command
        .arg(client_file(file))
        .env("NODE_PATH", tool("IMAGEGATE_TEST_NODE_MODULES"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("GATEWAY", &gateway.base)
        .env("KEY", PROJECT_KEY)
        .envs(settings.iter().map(|(name, value)| (*name, value.as_str())))
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    last_line(&output, || gateway.log())
}

async fn made(gateway: &Gateway) -> usize {
    gateway.generations().await.iter().filter(|row| row["state"] == "succeeded").count()
}

async fn vercels_ai_sdk_makes_images(kind: Database) {
    let (gateway, _database) = first_start(kind).await;
    let mut seen = seen_by(node(), "ai_sdk.cjs", &gateway, &[]).await;
    let size = seen["size"].take();
    assert_eq!((&size[0], &size[1]), (&json!(400), &json!(false)));
    assert!(size[2].as_str().unwrap().contains("multiple of 32"), "the SDK does not read why: {size}");
    let jpeg = json!(["image/jpeg", true]);
    assert_eq!(
        seen,
        json!({
            "plain": [jpeg],
            "model": "flux/dev",
            "two": [jpeg, jpeg],
            "warnings": [],
            "options": [["image/png", true]],
            "size": null,
            "unknown": [404, false],
            "stranger": [401, false],
        })
    );
    assert_eq!(made(&gateway).await, 3);
}

async fn openais_node_sdk_makes_images(kind: Database) {
    let (gateway, database) = first_start(kind).await;
    let picture = database.folder().join("picture.png");
    image::RgbImage::from_pixel(64, 64, image::Rgb([200, 120, 40])).save(&picture).unwrap();
    let settings = [("PICTURE", picture.display().to_string())];
    let seen = seen_by(node(), "openai_node.cjs", &gateway, &settings).await;
    assert_eq!(
        seen,
        json!({
            "generated": ["number", 2, true],
            "requestId": "string",
            "embedded": "ffd8ff",
            "price": [201, "0.025000000", "0.025000000"],
            "edited": 1,
            "several": 1,
            "stream": [true, 1],
            "once": true,
            "size": ["BadRequestError", 400, "invalid_parameters", "size", "invalid_request_error", "string"],
            "unknown": ["NotFoundError", 404, "model_not_found", "model", "invalid_request_error", "string"],
            "stranger": ["AuthenticationError", 401, "invalid_api_key", null, "invalid_request_error", "string"],
            "models": true,
        })
    );
    assert_eq!(made(&gateway).await, 7, "the one of a kind was made once");
}

async fn openais_node_sdk_sends_again_and_pays_once(kind: Database) {
    let house = House::new(kind).await;
    let slow = json!({"match": {"endpoint": "fal-ai/flux-realism"}, "do": {"queue_ms": 0, "run_ms": 8000}});
    house.misbehave(slow).await;
    let projects = house.gateway.admin(Method::GET, "/v1/organization/projects").send().await.unwrap();
    let project = read(projects, StatusCode::OK).await["data"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/organization/projects/{project}/rate_limits");
    let limits =
        read(house.gateway.admin(Method::GET, &format!("{path}?limit=200")).send().await.unwrap(), StatusCode::OK);
    let limits = limits.await["data"].as_array().unwrap().clone();
    let id = limits.iter().find(|limit| limit["model"] == "flux/dev").unwrap()["id"].as_str().unwrap().to_owned();
    let one = house.gateway.admin(Method::POST, &format!("{path}/{id}")).json(&json!({"max_requests_per_1_minute": 1}));
    read(one.send().await.unwrap(), StatusCode::OK).await;

    let seen = seen_by(node(), "openai_node_retries.cjs", &house.gateway, &[]).await;
    assert_eq!(
        seen,
        json!({
            "images": 1,
            "replayed": "true",
            "limited": ["RateLimitError", 429, "rate_limit_exceeded", "rate_limit_error", true],
            "limit": ["1", "0"],
        })
    );
    let rows = house.gateway.generations().await;
    let slow: Vec<&Value> = rows.iter().filter(|row| row["model"] == "flux-realism").collect();
    assert_eq!((slow.len(), &slow[0]["state"]), (1, &json!("succeeded")), "{rows:?}");
    assert_eq!(house.fal_state().await["accepted_submits"], 2);
}

async fn litellm_and_langchain_make_images(kind: Database) {
    let (gateway, _database) = first_start(kind).await;
    let seen = seen_by(tool("IMAGEGATE_TEST_AIML_PYTHON"), "aiml_client.py", &gateway, &[]).await;
    let (refused, stranger, unknown) =
        (json!(["BadRequestError", 400]), json!(["AuthenticationError", 401]), json!(["NotFoundError", 404]));
    assert_eq!(
        seen,
        json!({
            "aiml": [["url"], ["url"]],
            "aiml_parameters": ["url", "url"],
            "aiml_extra": ["url"],
            "aiml_async": ["url"],
            "aiml_unknown": unknown,
            "aiml_stranger": stranger,
            "aiml_invalid": refused,
            "openai": ["url", "url"],
            "openai_async": ["url"],
            "openai_unknown": unknown,
            "openai_stranger": stranger,
            "openai_invalid": refused,
            "langchain": true,
        })
    );
    let made = gateway.generations().await;
    let sizes: Vec<&Value> =
        made.iter().filter(|row| row["model"] == "flux-pro/v1.1").map(|row| &row["megapixels"]).collect();
    assert_eq!((made.len(), sizes.len()), (8, 5), "{made:?}");
}
