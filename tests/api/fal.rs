//! fal's own clients through imagegate with a key of it: fal's shapes and errors over the same checks, books and limits.

use std::process::{Command, Stdio};
use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::authority::authority;
use crate::receiver::Receiver;
use crate::support::tools::{client_file, last_line, seen_by_fals_python_client, tool};
use crate::support::{
    Database, Gateway, House, PROJECT_KEY, Start, TestDatabase, client_that_trusts, eventually, free_port,
    on_both_databases, read, start_sandbox,
};

on_both_databases!(
    fals_javascript_client_runs_unchanged_through_the_proxy,
    fals_python_client_runs_unchanged_with_its_hosts_set,
    only_addresses_of_fal_that_are_sold_here_are_served,
    what_comes_this_way_is_checked_booked_and_limited_as_anything_else,
    a_request_belongs_to_its_project_and_its_application,
    what_nobody_asks_for_is_settled_all_the_same,
    a_failed_run_is_told_as_fal_tells_it,
);

/// What a client says that it has seen.
async fn seen_by(mut command: Command, gateway: &Gateway) -> Value {
    let run = move || command.stdin(Stdio::null()).output().unwrap();
    last_line(&tokio::task::spawn_blocking(run).await.unwrap(), || gateway.log())
}

/// A call as `@fal-ai/client` makes it with `proxyUrl`.
fn proxied(gateway: &Gateway, method: Method, target: &str) -> RequestBuilder {
    let request = gateway.request(method, "/fal/proxy").header("x-fal-target-url", target);
    request.header("authorization", format!("Key {PROJECT_KEY}"))
}

fn wish() -> Value {
    json!({"prompt": "a red fox", "image_size": "square"})
}

async fn fals_javascript_client_runs_unchanged_through_the_proxy(kind: Database) {
    let house = House::with(kind, Duration::from_secs(1), &[("IMAGEGATE_WEBHOOK_ALLOW_PRIVATE", "true")]).await;
    let receiver = Receiver::new(&[]);
    let mut command = Command::new("node");
    command
        .arg(client_file("fal_proxy_javascript.cjs"))
        .env("NODE_PATH", tool("IMAGEGATE_TEST_NODE_MODULES"))
        .env("GATEWAY", &house.gateway.base)
        .env("KEY", PROJECT_KEY)
        .env("WEBHOOK", &receiver.url);
    let mut seen = seen_by(command, &house.gateway).await;
    let mut take = |name: &str| seen.as_object_mut().unwrap().shift_remove(name).unwrap();
    let (run_id, webhook_id, submitted) = (take("runId"), take("webhookId"), take("submitted"));
    let size = json!([[512, 512]]);
    assert_eq!(
        seen,
        json!({
            "run": size,
            "output": ["has_nsfw_concepts", "images", "prompt", "seed", "timings"],
            "subscribe": size,
            "seed": 7,
            "statuses": ["COMPLETED", "IN_PROGRESS", "IN_QUEUE"],
            "logs": true,
            "enqueued": true,
            "watched": size,
            "watchedLogs": true,
            "early": [400, "Request is still in progress"],
            "status": ["COMPLETED", true, "number"],
            "result": size,
            "cancelled": [499, "Request was cancelled"],
            "invalid": [422, ["body", "guidance_scale"], "less_than_equal"],
            "unknown": [404, "Application \"no-such-app\" not found"],
            "stream": [true, size],
            "embedded": "data:image/jpeg;base64,",
            "uploaded": "some bytes",
            "stranger": 401,
            "nobody": 401,
        })
    );
    let id = webhook_id.as_str().unwrap();
    assert_eq!(submitted, json!(["IN_QUEUE", format!("https://queue.fal.run/fal-ai/flux/requests/{id}/status")]));
    assert_eq!(house.gateway.ended(run_id.as_str().unwrap()).await["price_usd"], "0.025000000");

    // The webhook came in fal's form, signed by us.
    let call = eventually(Duration::from_secs(20), || async { receiver.calls().first().cloned() }).await;
    assert!(call.headers.contains_key("webhook-signature"), "{:?}", call.headers);
    let told: Value = serde_json::from_str(&call.body).unwrap();
    assert_eq!((&told["request_id"], &told["gateway_request_id"]), (&json!(id), &json!(id)));
    assert_eq!((&told["status"], &told["error"]), (&json!("OK"), &Value::Null));
    assert_eq!(told["payload"]["images"][0]["width"], 512);
    assert!(told["payload"].get("data").is_none(), "{told}");
}

async fn fals_python_client_runs_unchanged_with_its_hosts_set(kind: Database) {
    let authority = authority();
    let database = TestDatabase::new(kind).await;
    let [file, certificate, key] = authority.files(database.folder());
    let fal = start_sandbox(Duration::from_secs(1));
    let host = format!("127.0.0.1:{}", free_port());
    let public = format!("https://{host}");
    let mut gateway = Start::new(&database.url, &fal.queue_url())
        .with("IMAGEGATE_BIND", &host)
        .with("IMAGEGATE_PUBLIC_URL", &public)
        .with("IMAGEGATE_TLS_CERT", certificate.to_str().unwrap())
        .with("IMAGEGATE_TLS_KEY", key.to_str().unwrap())
        .run()
        .await;
    (gateway.base, gateway.client) = (public, client_that_trusts(&authority.pem));
    let mut command = Command::new(tool("IMAGEGATE_TEST_PYTHON"));
    command
        .arg(client_file("fal_client_python.py"))
        .env_clear()
        .env("FAL_RUN_HOST", format!("{host}/fal/run"))
        .env("FAL_QUEUE_RUN_HOST", format!("{host}/fal/queue"))
        .env("FAL_KEY", PROJECT_KEY)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SSL_CERT_FILE", &file);
    assert_eq!(seen_by(command, &gateway).await, seen_by_fals_python_client());
    let made = gateway.generations().await;
    assert_eq!(made.iter().filter(|row| row["state"] == "succeeded").count(), 5, "{made:?}");
}

async fn only_addresses_of_fal_that_are_sold_here_are_served(kind: Database) {
    let house = House::new(kind).await;
    let evil = Receiver::new(&[]);
    for target in [
        evil.url.as_str(),
        "https://queue.fal.run.evil.example/fal-ai/flux/dev",
        "https://rest.fal.ai/tokens/",
        "http://169.254.169.254/latest/meta-data",
        "nothing",
    ] {
        let answer = proxied(&house.gateway, Method::POST, target).json(&wish()).send().await.unwrap();
        assert_eq!(answer.headers()["x-fal-error-type"], "bad_request", "{target}");
        let told = read(answer, StatusCode::BAD_REQUEST).await;
        assert!(told["detail"].as_str().unwrap().starts_with("Invalid request"), "{target}: {told}");
    }
    let none = house.gateway.project(Method::POST, "/fal/proxy").json(&wish()).send().await.unwrap();
    read(none, StatusCode::BAD_REQUEST).await;
    assert!(evil.calls().is_empty());
    for endpoint in ["fal-ai/no-such-app", "fal-ai/flux/dev/other", "fal-ai/kling-video/v2/master"] {
        for host in ["https://queue.fal.run", "https://fal.run"] {
            let target = format!("{host}/{endpoint}");
            let answer = proxied(&house.gateway, Method::POST, &target).json(&wish()).send().await.unwrap();
            let told = read(answer, StatusCode::NOT_FOUND).await;
            assert!(told["detail"].as_str().unwrap().contains("not found"), "{target}: {told}");
        }
    }
    // Another name of the model is good as well, and so is fal's way to write the key.
    let other = house.gateway.request(Method::POST, "/fal/proxy").header("authorization", format!("Key {PROJECT_KEY}"));
    let other = other.header("x-fal-target-url", "https://fal.run/fal-ai/flux/schnell");
    let refused = read(other.json(&json!({})).send().await.unwrap(), StatusCode::UNPROCESSABLE_ENTITY).await;
    assert_eq!(refused["detail"][0]["loc"], json!(["body", "prompt"]), "{refused}");
    let wrong = proxied(&house.gateway, Method::GET, "https://fal.run/fal-ai/flux/dev").send().await.unwrap();
    read(wrong, StatusCode::METHOD_NOT_ALLOWED).await;
    let state = house.fal_state().await;
    assert_eq!((&state["submits"], &state["runs"]), (&json!({}), &json!({})), "{state}");
    assert!(house.gateway.generations().await.is_empty());

    let preflight = house
        .gateway
        .request(Method::OPTIONS, "/fal/proxy")
        .header("origin", "https://app.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type,x-fal-queue-priority,x-fal-target-url")
        .send()
        .await
        .unwrap();
    assert_eq!(preflight.status(), 200);
    let allowed = preflight.headers()["access-control-allow-headers"].to_str().unwrap().to_owned();
    assert!(allowed.contains("x-fal-target-url") && allowed.contains("authorization"), "{allowed}");
}

async fn what_comes_this_way_is_checked_booked_and_limited_as_anything_else(kind: Database) {
    let house = House::new(kind).await;
    let submit =
        |body: Value| proxied(&house.gateway, Method::POST, "https://queue.fal.run/fal-ai/flux/dev").json(&body).send();
    // Every problem at once, before anybody is called.
    let told = read(
        submit(json!({"image_size": {"width": 1000, "height": 512}, "num_images": 9})).await.unwrap(),
        StatusCode::UNPROCESSABLE_ENTITY,
    )
    .await;
    let kinds: Vec<&str> = told["detail"].as_array().unwrap().iter().map(|one| one["type"].as_str().unwrap()).collect();
    assert_eq!(kinds.len(), 3, "{told}");
    for expected in ["missing", "multiple_of", "less_than_equal"] {
        assert!(kinds.contains(&expected), "{told}");
    }
    let target = "https://queue.fal.run/fal-ai/flux/dev?fal_webhook=http%3A%2F%2F127.0.0.1%2F";
    let refused = proxied(&house.gateway, Method::POST, target).json(&wish()).send().await.unwrap();
    let told = read(refused, StatusCode::UNPROCESSABLE_ENTITY).await;
    assert_eq!(told["detail"][0]["loc"], json!(["query", "fal_webhook"]));
    assert!(house.gateway.generations().await.is_empty());

    // Our switches are no words of fal's: nothing of them counts.
    let mut body = wish();
    body["stream"] = json!(true);
    body["webhook_url"] = json!("http://127.0.0.1/");
    let id = read(submit(body).await.unwrap(), StatusCode::OK).await["request_id"].as_str().unwrap().to_owned();
    let booked = house.gateway.ended(&id).await;
    assert_eq!((&booked["model"], &booked["endpoint"]), (&json!("flux/dev"), &json!("fal-ai/flux/dev")));
    assert_eq!((&booked["state"], &booked["price_usd"]), (&json!("succeeded"), &json!("0.025000000")));

    // Only so much credit: what does not fit is refused in fal's words.
    house.gateway.set_project(&json!({"prepaid": true})).await;
    let locked = submit(wish()).await.unwrap();
    assert_eq!(locked.status(), 403);
    let told: Value = locked.json().await.unwrap();
    assert_eq!(told["error_type"], "user_locked");
    assert!(told["detail"].as_str().unwrap().starts_with("User is locked. Reason: Exhausted balance."), "{told}");
    assert_eq!(house.fal_state().await["accepted_submits"], 1);
}

async fn a_request_belongs_to_its_project_and_its_application(kind: Database) {
    let house = House::new(kind).await;
    let taken = proxied(&house.gateway, Method::POST, "https://queue.fal.run/fal-ai/flux/dev").json(&wish());
    let id = read(taken.send().await.unwrap(), StatusCode::OK).await["request_id"].as_str().unwrap().to_owned();
    house.gateway.ended(&id).await;
    let about = |application: &str, rest: &str| format!("https://queue.fal.run/{application}/requests/{id}{rest}");
    let own = proxied(&house.gateway, Method::GET, &about("fal-ai/flux", "")).send().await.unwrap();
    assert_eq!(own.headers()["x-fal-request-id"], id.as_str());
    assert_eq!(read(own, StatusCode::OK).await["images"][0]["width"], 512);
    let ended = proxied(&house.gateway, Method::PUT, &about("fal-ai/flux", "/cancel")).send().await.unwrap();
    assert_eq!(read(ended, StatusCode::BAD_REQUEST).await, json!({"status": "ALREADY_COMPLETED"}));
    let other = proxied(&house.gateway, Method::GET, &about("fal-ai/ideogram", "/status")).send().await.unwrap();
    assert_eq!(read(other, StatusCode::NOT_FOUND).await, json!({"status": "NOT_FOUND"}));

    let made = house.gateway.admin(Method::POST, "/v1/organization/projects").json(&json!({"name": "other"}));
    let project = read(made.send().await.unwrap(), StatusCode::OK).await["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/organization/projects/{project}/service_accounts");
    let made = house.gateway.admin(Method::POST, &path).json(&json!({"name": "worker"})).send().await.unwrap();
    let key = read(made, StatusCode::OK).await["api_key"]["value"].as_str().unwrap().to_owned();
    for (method, rest) in [(Method::GET, ""), (Method::GET, "/status"), (Method::PUT, "/cancel")] {
        let stranger =
            house.gateway.request(method, "/fal/proxy").header("x-fal-target-url", about("fal-ai/flux", rest));
        let stranger = stranger.header("authorization", format!("Key {key}")).send().await.unwrap();
        assert_eq!(read(stranger, StatusCode::NOT_FOUND).await, json!({"status": "NOT_FOUND"}));
    }
}

async fn what_nobody_asks_for_is_settled_all_the_same(kind: Database) {
    let house = House::with(kind, Duration::from_millis(300), &[]).await;
    let path = "/fal/queue/fal-ai/flux/dev";
    let taken = house.gateway.project(Method::POST, path).json(&wish()).send().await.unwrap();
    let taken = read(taken, StatusCode::OK).await;
    let id = taken["request_id"].as_str().unwrap();
    assert_eq!(taken["response_url"], format!("{}/fal/queue/fal-ai/flux/requests/{id}", house.gateway.base));
    let booked = house.gateway.ended(id).await;
    assert_eq!((&booked["state"], &booked["price_usd"]), (&json!("succeeded"), &json!("0.025000000")));
}

async fn a_failed_run_is_told_as_fal_tells_it(kind: Database) {
    let house = House::with(kind, Duration::ZERO, &[("IMAGEGATE_WEBHOOK_ALLOW_PRIVATE", "true")]).await;
    let receiver = Receiver::new(&[]);
    let mut target = url::Url::parse("https://queue.fal.run/fal-ai/flux/dev").unwrap();
    target.query_pairs_mut().append_pair("fal_webhook", &receiver.url);
    let body = json!({"prompt": "sandbox-refuse"});
    let taken = proxied(&house.gateway, Method::POST, target.as_str()).json(&body).send().await.unwrap();
    let id = read(taken, StatusCode::OK).await["request_id"].as_str().unwrap().to_owned();
    assert_eq!(house.gateway.ended(&id).await["price_usd"], "0.000000000");
    let base = format!("https://queue.fal.run/fal-ai/flux/requests/{id}");
    let status = proxied(&house.gateway, Method::GET, &format!("{base}/status")).send().await.unwrap();
    let status = read(status, StatusCode::OK).await;
    assert_eq!((&status["status"], &status["error_type"]), (&json!("COMPLETED"), &json!("content_policy_violation")));
    assert!(!status["error"].as_str().unwrap().is_empty(), "{status}");
    let result = proxied(&house.gateway, Method::GET, &base).send().await.unwrap();
    let result = read(result, StatusCode::UNPROCESSABLE_ENTITY).await;
    assert_eq!(result["detail"][0]["type"], "content_policy_violation");
    assert_eq!(result["detail"][0]["categories"], json!(["violence"]));
    let call = eventually(Duration::from_secs(20), || async { receiver.calls().first().cloned() }).await;
    let told: Value = serde_json::from_str(&call.body).unwrap();
    assert_eq!((&told["status"], &told["payload"]), (&json!("ERROR"), &result));
    assert_eq!(told["error"], "Invalid status code: 422");
}
