//! Each family of fal's failures, as its client and the operator are told of it.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Database, House, Start, TestDatabase, client, misbehave, on_both_databases, read, start_sandbox};

on_both_databases!(
    each_family_of_failures_is_told_truly_and_free,
    what_is_no_image_is_free,
    a_bill_below_zero_is_none,
    an_image_that_was_charged_is_answered_whatever_its_address_does,
);

fn wish(prompt: &str) -> Value {
    json!({"model": "flux/dev", "prompt": prompt, "image_size": "square"})
}

fn problem(loc: &Value, kind: &str) -> Value {
    json!({"detail": [{"loc": loc, "msg": format!("fal says {kind}"), "type": kind}]})
}

/// What the run comes to, and what its client is told: status, code, and the parameter.
fn families() -> Vec<(Value, u16, &'static str, Value)> {
    let run = |status: u16, body: Value| json!({"fail": {"status": status, "body": body}});
    let front = |status: u16, kind: &str| json!({"fail": {"status": status, "error_type": kind, "body": {"detail": kind, "error_type": kind}}});
    let mut families = vec![
        (json!({"content_policy": true}), 400, "content_policy_violation", Value::Null),
        (json!({"images": 0}), 502, "no_image", Value::Null),
        (
            run(422, problem(&json!(["body", "image_size", "width"]), "less_than_equal")),
            400,
            "invalid_parameters",
            json!("image_size.width"),
        ),
        (run(422, problem(&json!(["body"]), "no_media_generated")), 502, "no_image", Value::Null),
        (run(422, json!({"detail": "an older application's text"})), 400, "invalid_parameters", Value::Null),
        (run(404, json!({"detail": "Path /dev not found"})), 404, "model_not_found", json!("model")),
        (run(403, json!({"detail": "User is locked. Reason: TOP_UP."})), 502, "upstream_error", Value::Null),
        (run(500, json!({"detail": "Internal Server Error"})), 502, "upstream_error", Value::Null),
        (run(503, json!({"detail": "CUDA error: out of memory"})), 503, "service_unavailable", Value::Null),
        (run(504, problem(&json!(["body"]), "generation_timeout")), 504, "deadline_exceeded", Value::Null),
        (front(504, "request_timeout"), 504, "deadline_exceeded", Value::Null),
        (front(504, "startup_timeout"), 504, "deadline_exceeded", Value::Null),
        (front(500, "internal_error"), 502, "upstream_error", Value::Null),
        (front(502, "runner_incomplete_response"), 502, "upstream_error", Value::Null),
        (front(500, "runner_server_error"), 502, "upstream_error", Value::Null),
        (front(400, "bad_request"), 400, "invalid_parameters", Value::Null),
        (front(499, "client_cancelled"), 400, "invalid_request", Value::Null),
        (run(400, problem(&json!(["body"]), "downstream_service_error")), 502, "upstream_error", Value::Null),
        (
            run(500, problem(&json!(["body"]), "downstream_service_unavailable")),
            503,
            "service_unavailable",
            Value::Null,
        ),
    ];
    for kind in [
        "image_load_error",
        "file_download_error",
        "image_too_small",
        "image_too_large",
        "file_too_large",
        "unsupported_image_format",
        "face_detection_error",
        "invalid_archive",
    ] {
        families.push((
            run(422, problem(&json!(["body", "image_size"]), kind)),
            400,
            "invalid_parameters",
            json!("image_size"),
        ));
    }
    for kind in [
        "greater_than",
        "greater_than_equal",
        "less_than",
        "multiple_of",
        "sequence_too_short",
        "sequence_too_long",
        "one_of",
        "literal_error",
        "feature_not_supported",
        "value_error.missing",
    ] {
        families.push((
            run(422, problem(&json!(["body", "num_images"]), kind)),
            400,
            "invalid_parameters",
            json!("num_images"),
        ));
    }
    families
}

async fn each_family_of_failures_is_told_truly_and_free(kind: Database) {
    let house = House::new(kind).await;
    for (number, (fate, status, code, param)) in families().into_iter().enumerate() {
        let prompt = format!("family-{number}-");
        house.misbehave(json!({"match": {"prompt_contains": prompt}, "do": fate})).await;
        let answer = house.gateway.generate(&wish(&prompt)).send().await.unwrap();
        assert!(status != 503 || answer.headers().contains_key("retry-after"), "{fate}");
        let body = read(answer, StatusCode::from_u16(status).unwrap()).await;
        assert_eq!((&body["error"]["code"], &body["error"]["param"]), (&json!(code), &param), "{fate}: {body}");
        if code == "content_policy_violation" {
            assert_eq!(body["error"]["data"]["kind"], "moderation_blocked");
        }
    }
    // The limit that it names is passed on, and a refusal without a list has an entry as well.
    for (word, detail, entry) in [
        (
            "limit-",
            json!([{"loc": ["body", "num_inference_steps"], "msg": "too many", "type": "less_than_equal", "ctx": {"le": 20}}]),
            json!({"code": "custom", "path": ["num_inference_steps"], "message": "too many", "provider_code": "less_than_equal", "maximum": 20}),
        ),
        ("plain-", json!("not this"), json!({"code": "custom", "path": [], "message": "not this"})),
    ] {
        let fate = json!({"fail": {"status": 422, "body": {"detail": detail}}});
        house.misbehave(json!({"match": {"prompt_contains": word}, "do": fate})).await;
        let (status, body) = house.ask(&wish(word)).await;
        assert_eq!((status, &body["error"]["data"]), (400, &json!([entry])), "{body}");
    }
    let rows = house.gateway.generations().await;
    assert_eq!(rows.len(), families().len() + 2);
    for row in rows {
        assert_eq!(row["price_usd"], "0.000000000", "{row}");
        assert_ne!(row["state"], "succeeded");
    }
    // Every run was submitted once: a failure that fal has told is final.
    assert_eq!(house.fal_state().await["accepted_submits"], families().len() + 2);
    assert!(house.gateway.log().contains("fal refuses our key or account"));
}

async fn what_is_no_image_is_free(kind: Database) {
    let house = House::new(kind).await;
    let outputs = [
        json!({}),
        json!({"images": null, "seed": 7}),
        json!({"images": [{"url": ""}]}),
        json!({"images": [{"url": "file:///etc/passwd"}, {"url": "javascript:alert(1)"}, null]}),
    ];
    for (number, output) in outputs.iter().enumerate() {
        let word = format!("nothing-{number}-");
        let rule = json!({"match": {"prompt_contains": word}, "at": "result", "do": {"status": 200, "body": output}});
        house.misbehave(rule).await;
        let (status, body) = house.ask(&wish(&word)).await;
        assert_eq!((status, &body["error"]["code"]), (502, &json!("no_image")), "{output}: {body}");
    }
    for row in house.gateway.generations().await {
        assert_eq!((&row["state"], &row["price_usd"]), (&json!("failed"), &json!("0.000000000")), "{row}");
    }
}

async fn a_bill_below_zero_is_none(kind: Database) {
    let house = House::new(kind).await;
    house.misbehave(json!({"do": {"wrong_units": "-3"}})).await;
    let (status, body) = house.ask(&wish("a")).await;
    assert_eq!(status, 201, "{body}");
    let row = house.gateway.generations().await.remove(0);
    assert_eq!((&row["state"], &row["price_usd"]), (&json!("succeeded"), &json!("0.025000000")), "{row}");
    assert_eq!((&row["cost_usd"], &row["cost_source"]), (&json!("0.025000000"), &json!("computed")), "{row}");
}

/// However an image's address misbehaves: what was charged is no error, since a client would send it again and pay again.
async fn an_image_that_was_charged_is_answered_whatever_its_address_does(kind: Database) {
    let house = House::with(kind, Duration::ZERO, &[("IMAGEGATE_DEADLINE", "6s")]).await;
    let page = json!({"status": 200, "headers": {"content-type": "text/html; charset=utf-8"}, "body": "<html>"});
    let faults = [
        (json!({"status": 404}), false),
        (json!({"status": 503}), true),
        (page, false),
        (json!({"status": 200, "headers": {"content-type": "application/json"}, "body": "{}"}), true),
        (json!({"status": 200, "headers": {"content-type": "image/png"}, "body": ""}), false),
        (json!({"half_answer": true}), true),
        (json!({"drop_connection": true}), false),
        (json!({"hang_ms": 20_000}), false),
    ];
    for (fault, once) in faults {
        let mut rule = json!({"at": "file", "do": fault});
        if once {
            rule["times"] = json!(1);
        }
        house.misbehave(rule.clone()).await;
        let body = json!({"model": "flux/dev", "prompt": "a", "image_size": "square", "response_format": "b64_json"});
        let begin = std::time::Instant::now();
        let (status, told) = house.ask(&body).await;
        assert_eq!(status, 201, "{rule}: {told}");
        assert!(begin.elapsed() < Duration::from_secs(40), "{rule}: {:?}", begin.elapsed());
        let image = &told["data"][0];
        assert!(image["url"].as_str().unwrap().starts_with("http"), "{rule}: {told}");
        assert_eq!((image["b64_json"].is_string(), image["embedding_error"].is_null()), (once, once), "{rule}: {told}");
        assert_eq!(told["meta"]["usage"]["price_usd"], "0.025000000", "{rule}");
        let forget = client().delete(format!("{}/__sandbox/behaviour", house.fal.queue_url()));
        assert!(forget.send().await.unwrap().status().is_success());
    }
    // One image of two that cannot be had keeps back nothing of the other; a stream ends with what there is.
    house.misbehave(json!({"at": "file", "times": 1, "do": {"status": 404}})).await;
    let body = json!({"model": "flux/dev", "prompt": "a", "n": 2, "image_size": "square", "sync_mode": true});
    let (status, told) = house.ask(&body).await;
    assert_eq!(status, 201, "{told}");
    house.misbehave(json!({"at": "file", "do": {"status": 404}})).await;
    let body = json!({"model": "flux/dev", "prompt": "a", "image_size": "square", "stream": true});
    let events = house.gateway.generate(&body).send().await.unwrap().text().await.unwrap();
    assert!(events.contains("image_generation.completed") && !events.contains("event: error"), "{events}");
    assert_eq!(house.gateway.generations().await.len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_with_our_own_account_is_the_operators_and_not_the_clients() {
    for key in ["bad:key", "locked:key"] {
        let house = House::with(Database::Sqlite, Duration::ZERO, &[("FAL_KEY", key)]).await;
        let (status, body) = house.ask(&wish("a")).await;
        assert_eq!((status, &body["error"]["code"]), (502, &json!("upstream_error")));
        let told = body.to_string();
        for word in ["key", "Authentication", "locked", "balance"] {
            assert!(!told.contains(word), "`{word}` is told to the client: {told}");
        }
        let log = house.gateway.log();
        let error = log.lines().find(|line| line.contains("fal refuses our key or account")).unwrap();
        assert!(error.contains("\"ERROR\"") && !error.contains(key), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_fal_no_longer_has_is_not_found() {
    let house = House::new(Database::Sqlite).await;
    house.misbehave(json!({"do": {"status": 404, "body": {"detail": "Application \"flux\" not found"}}})).await;
    let (status, body) = house.ask(&wish("a")).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("model_not_found")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fal_that_stays_overloaded_is_told_with_a_time_to_come_back() {
    let house = House::new(Database::Sqlite).await;
    house.misbehave(json!({"do": {"status": 503, "headers": {"retry-after": "17"}}})).await;
    let answer = house.gateway.generate(&wish("a")).send().await.unwrap();
    assert_eq!(answer.headers()["retry-after"], "17");
    assert_eq!(read(answer, StatusCode::SERVICE_UNAVAILABLE).await["error"]["code"], "service_unavailable");
    assert_eq!(house.fal_state().await["misbehaviours"], 1, "a long wait is the client's to decide");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_image_tells_whether_it_was_blackened() {
    let house = House::new(Database::Sqlite).await;
    house.misbehave(json!({"times": 1, "do": {"nsfw": true}})).await;
    let mut body = wish("a");
    body["n"] = json!(3);
    let (status, answer) = house.ask(&body).await;
    assert_eq!((status, &answer["has_nsfw_concepts"]), (201, &json!([true, true, true])));
    assert_eq!(answer["images"].as_array().unwrap().len(), 3);
}

/// A model whose input images have another name at fal.
fn renamed_model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/catalogue/models/omnigen-v2.toml");
    let text = std::fs::read_to_string(file).unwrap();
    let named =
        text.replace("name = \"input_image_urls\"", "name = \"pictures\"\nprovider_name = \"input_image_urls\"");
    let examples = named.find("[[examples]]").unwrap();
    std::fs::write(folder.path().join("omnigen.toml"), &named[..examples]).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_image_that_fal_cannot_load_is_named_as_the_client_knows_it() {
    let folder = renamed_model();
    let database = TestDatabase::new(Database::Sqlite).await;
    let fal = start_sandbox(Duration::ZERO);
    let start = Start::new(&database.url, &fal.queue_url());
    let gateway = start.with("IMAGEGATE_MODELS_DIR", folder.path().to_str().unwrap()).run().await;
    let body = json!({"model": "omnigen-v2", "prompt": "a", "pictures": ["https://example.com/a.png", "https://nowhere.invalid/b.png"]});
    let answer = read(gateway.generate(&body).send().await.unwrap(), StatusCode::BAD_REQUEST).await;
    assert_eq!(
        (&answer["error"]["code"], &answer["error"]["param"]),
        (&json!("invalid_parameters"), &json!("pictures.1"))
    );
    assert_eq!(answer["error"]["data"][0]["provider_code"], "file_download_error");
    misbehave(&fal, json!({"do": {"fail": {"status": 422, "body": problem(&json!(["body", "input_image_urls", 0]), "image_too_small")}}})).await;
    let answer = read(gateway.generate(&body).send().await.unwrap(), StatusCode::BAD_REQUEST).await;
    assert_eq!(answer["error"]["param"], "pictures.0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fal_bills_otherwise_than_computed_is_counted_logged_and_shown_to_operators() {
    let house = House::new(Database::Sqlite).await;
    house.misbehave(json!({"times": 1, "do": {"wrong_units": "3.00000000"}})).await;
    for prompt in ["wrong", "right"] {
        assert_eq!(house.ask(&wish(prompt)).await.0, 201);
    }
    let rows = house.gateway.generations().await;
    let (right, wrong) = (&rows[0], &rows[1]);
    assert_eq!((&wrong["cost_source"], &wrong["cost_usd"]), (&json!("billed"), &json!("0.075000000")));
    assert_eq!((&wrong["drift_usd"], &wrong["price_usd"]), (&json!("0.050000000"), &json!("0.025000000")));
    assert_eq!((&right["cost_usd"], right.get("drift_usd")), (&json!("0.025000000"), None));
    assert_eq!(house.gateway.readiness().await["cost_drifts"], 1);
    assert!(house.gateway.log().contains("bills another amount than the catalogue computes"));
}
