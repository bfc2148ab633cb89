//! The one error shape for every cause, the paths, CORS, health.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{ADMIN_KEY, Database, House, PROJECT_KEY, client, on_both_databases, read, t_rex};

on_both_databases!(
    every_error_has_the_one_shape,
    every_path_works_with_and_without_version_and_last_slash,
    a_browser_may_call,
    health_tells_what_serves,
);

/// Checks the shape that all clients can read.
fn check_shape(body: &Value, status: StatusCode, path: &str) {
    for key in ["title", "status", "statusCode", "message", "instance", "path", "requestId", "timestamp", "error"] {
        assert!(body.get(key).is_some(), "`{key}` is missing: {body}");
    }
    for key in ["name", "message", "type", "code", "param"] {
        assert!(body["error"].get(key).is_some(), "`error.{key}` is missing: {body}");
    }
    assert_eq!(body["status"], status.as_u16());
    assert_eq!(body["statusCode"], status.as_u16());
    assert_eq!(body["path"], path);
    assert_eq!(body["message"], body["error"]["message"]);
    assert!(body["requestId"].as_str().unwrap().starts_with("req_"));
}

async fn every_error_has_the_one_shape(kind: Database) {
    let house = House::with(kind, std::time::Duration::ZERO, &[("IMAGEGATE_BODY_LIMIT", "64KiB")]).await;
    let gateway = &house.gateway;
    let images = "/v1/images/generations";
    let json_text = |text: &'static str| {
        gateway.project(Method::POST, images).header("content-type", "application/json").body(text)
    };
    let cases = [
        (json_text("{\"model\": \"flux/dev\",\n  \"prompt\" }"), StatusCode::BAD_REQUEST, "invalid_json", images),
        (json_text(""), StatusCode::BAD_REQUEST, "invalid_json", images),
        (json_text("[]"), StatusCode::BAD_REQUEST, "invalid_parameters", images),
        (
            gateway.project(Method::POST, images).header("content-type", "text/plain").body("{}"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            images,
        ),
        (gateway.project(Method::GET, "/v1/nothing"), StatusCode::NOT_FOUND, "not_found", "/v1/nothing"),
        (gateway.project(Method::PATCH, images), StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", images),
        (
            gateway.generate(&json!({"model": "flux/dev", "prompt": "a".repeat(70_000)})),
            StatusCode::PAYLOAD_TOO_LARGE,
            "payload_too_large",
            images,
        ),
        (gateway.request(Method::POST, images).json(&t_rex()), StatusCode::UNAUTHORIZED, "invalid_api_key", images),
        (gateway.request(Method::GET, "/v1/nothing"), StatusCode::NOT_FOUND, "not_found", "/v1/nothing"),
        (
            gateway.request(Method::POST, images).bearer_auth("wrong-wrong-wrong").json(&t_rex()),
            StatusCode::UNAUTHORIZED,
            "invalid_api_key",
            images,
        ),
        (
            gateway.request(Method::POST, images).bearer_auth(ADMIN_KEY).json(&t_rex()),
            StatusCode::FORBIDDEN,
            "permission_denied",
            images,
        ),
        (
            gateway.request(Method::GET, "/admin/v1/generations").bearer_auth(PROJECT_KEY),
            StatusCode::FORBIDDEN,
            "permission_denied",
            "/admin/v1/generations",
        ),
        (
            gateway.project(Method::GET, "/v1/images/generations/nothing"),
            StatusCode::NOT_FOUND,
            "not_found",
            "/v1/images/generations/nothing",
        ),
        (
            gateway.admin(Method::GET, "/admin/v1/generations?lmit=1"),
            StatusCode::BAD_REQUEST,
            "invalid_parameters",
            "/admin/v1/generations",
        ),
    ];
    for (request, status, code, path) in cases {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{code}");
        let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        let body = read(answer, status).await;
        check_shape(&body, status, path);
        assert_eq!(body["error"]["code"], code, "{body}");
        assert_eq!(body["requestId"], id);
    }
    let answer = json_text("{\"model\": \"flux/dev\",\n  \"prompt\" }").send().await.unwrap();
    let problem = read(answer, StatusCode::BAD_REQUEST).await["error"]["data"][0].clone();
    assert_eq!(problem["line"], 2);
    assert!(problem["column"].as_u64().unwrap() > 1);
    assert!(gateway.generations().await.is_empty());
}

async fn every_path_works_with_and_without_version_and_last_slash(kind: Database) {
    let house = House::new(kind).await;
    for path in ["/v1/images/generations", "/v1/images/generations/", "/images/generations", "/images/generations/"] {
        let answer = house.gateway.project(Method::POST, path).json(&t_rex()).send().await.unwrap();
        read(answer, StatusCode::CREATED).await;
    }
    for path in [
        "/v1/models",
        "/v1/models/",
        "/models",
        "/models/flux/dev",
        "/v1/models/FLUX/dev/",
        "/v1/models/fal-ai/flux/dev",
    ] {
        let answer = client().get(format!("{}{path}", house.gateway.base)).send().await.unwrap();
        read(answer, StatusCode::OK).await;
    }
}

async fn a_browser_may_call(kind: Database) {
    let house = House::new(kind).await;
    let preflight = house
        .gateway
        .request(Method::OPTIONS, "/v1/images/generations")
        .header("origin", "https://app.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization, content-type, idempotency-key")
        .send()
        .await
        .unwrap();
    assert_eq!(preflight.status(), StatusCode::OK);
    assert_eq!(preflight.headers()["access-control-allow-origin"], "*");
    let allowed = preflight.headers()["access-control-allow-headers"].to_str().unwrap().to_lowercase();
    assert!(allowed.contains("authorization") && allowed.contains("idempotency-key"), "{allowed}");
    let answer = house.gateway.generate(&t_rex()).header("origin", "https://app.example").send().await.unwrap();
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    let exposed = answer.headers()["access-control-expose-headers"].to_str().unwrap().to_lowercase();
    for header in ["x-imagegate-cost-usd", "x-inference-id", "x-request-id", "x-aimlapi-credits-used"] {
        assert!(exposed.contains(header), "{header} is not among {exposed}");
    }
}

async fn health_tells_what_serves(kind: Database) {
    let house = House::new(kind).await;
    let live = client().get(format!("{}/healthz", house.gateway.base)).send().await.unwrap();
    assert_eq!(read(live, StatusCode::OK).await, json!({"status": "ok"}));
    let ready = client().get(format!("{}/readyz", house.gateway.base)).send().await.unwrap();
    let ready = read(ready, StatusCode::OK).await;
    assert_eq!(
        (&ready["status"], &ready["database"], &ready["upstream"]),
        (&json!("ready"), &json!("ok"), &json!("fal"))
    );
    let head = client().head(format!("{}/healthz", house.gateway.base)).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    let echoed = client()
        .get(format!("{}/healthz", house.gateway.base))
        .header("x-client-request-id", "abc:1")
        .send()
        .await
        .unwrap();
    assert_eq!(echoed.headers()["x-client-request-id"], "abc:1");
}
