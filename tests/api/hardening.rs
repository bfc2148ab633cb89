//! What a stranger, a careless operator or a broken client cannot do: ambiguous requests, open files, open details.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::raw::RawClient;
use crate::support::{Database, House, PROJECT_KEY, client, eventually, free_port, on_both_databases, read, t_rex};

on_both_databases!(
    ambiguous_headers_and_unreadable_bodies_are_refused_at_once,
    readiness_shows_details_to_operators_only,
    what_a_key_opens_is_kept_by_no_cache,
    long_names_are_cut_in_answers,
);

async fn ambiguous_headers_and_unreadable_bodies_are_refused_at_once(kind: Database) {
    let house = House::new(kind).await;
    let base = house.gateway.base.clone();
    let work = move || {
        let mut client = RawClient::new(&base);
        let bearer = format!("Bearer {PROJECT_KEY}");
        let key = ("authorization", bearer.as_str());
        let body = t_rex().to_string();
        let images = "/v1/images/generations";
        let mut status = |headers: &[(&str, &str)]| client.send("POST", images, headers, &body).status;
        assert_eq!(status(&[key, key]), 400, "two keys");
        assert_eq!(status(&[key, ("host", "evil.example")]), 400, "two hosts");
        assert_eq!(status(&[key, ("content-type", "text/plain")]), 400, "two content types");
        assert_eq!(status(&[key, ("idempotency-key", "a"), ("idempotency-key", "b")]), 400, "two idempotency keys");
        assert_eq!(status(&[key, ("upgrade", "websocket"), ("connection", "upgrade")]), 400, "an upgrade with a body");
        assert_eq!(status(&[key, ("upgrade", "h2c")]), 201, "an upgrade that is ignored, as HTTP allows");
        assert_eq!(status(&[("x-http-method-override", "GET"), key]), 201, "no header changes the method");
        let encoded = client.send("POST", images, &[key, ("content-encoding", "gzip")], &body);
        assert_eq!((encoded.status, encoded.header("accept-encoding")), (415, Some("identity")));
        assert_eq!(encoded.code(), "unsupported_media_type");
        assert_eq!(client.send("GET", "/healthz", &[], "").status, 200, "the connection is not stuck");
    };
    tokio::task::spawn_blocking(work).await.unwrap();
    assert_eq!(house.gateway.generations().await.len(), 2);

    // What HTTP's parser refuses never gets as far as a handler; the log has it all the same.
    let address = house.gateway.base.trim_start_matches("http://").to_owned();
    let refused = |request: Vec<u8>| {
        let mut connection = TcpStream::connect(&address).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let _ = connection.write_all(&request);
        let mut answer = Vec::new();
        let _ = connection.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    assert!(refused(b"GET / HTTP/9.9\r\n\r\n".to_vec()).starts_with("HTTP/1.1 400"));
    let huge = format!("GET / HTTP/1.1\r\nhost: x\r\nx-huge: {}\r\n\r\n", "x".repeat(300_000));
    refused(huge.into_bytes());
    eventually(Duration::from_secs(20), || async {
        let log = house.gateway.log();
        let lines = log.lines().filter(|line| line.contains("malformed HTTP request refused"));
        let seen: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
        let of = |status: u16| {
            seen.iter()
                .any(|line| line["fields"]["status"] == status && line["fields"]["client_address"] == "127.0.0.1")
        };
        (of(400) && of(431)).then_some(())
    })
    .await;
}

async fn readiness_shows_details_to_operators_only(kind: Database) {
    let port = free_port();
    let own = format!("127.0.0.1:{port}");
    let apart = House::with(kind, Duration::ZERO, &[("IMAGEGATE_ADMIN_BIND", &own)]).await;
    let house = House::new(kind).await;
    let details = |ready: &Value| {
        ["open_generations", "cost_drifts"].iter().all(|name| ready.get(name).is_some())
            && ["keys", "resting_endpoints"].iter().all(|name| ready["providers"][0].get(name).is_some())
    };
    let get = async |request: reqwest::RequestBuilder| read(request.send().await.unwrap(), StatusCode::OK).await;
    let open = get(house.gateway.request(Method::GET, "/readyz")).await;
    assert_eq!(open["providers"], json!([{"name": "fal", "status": "ok", "reachable": true}]));
    assert!(open.get("open_generations").is_none() && open.get("cost_drifts").is_none(), "{open}");
    assert!(!details(&get(house.gateway.project(Method::GET, "/readyz")).await));
    let operator = get(house.gateway.admin(Method::GET, "/readyz")).await;
    assert!(details(&operator), "{operator}");
    assert_eq!(operator["providers"][0]["keys"][0]["number"], 1);
    assert!(operator["providers"][0]["keys"][0].get("label").is_none(), "no digest of FAL_KEY: {operator}");
    assert!(!details(&get(apart.gateway.request(Method::GET, "/readyz")).await));
    assert!(details(&get(client().get(format!("http://{own}/readyz"))).await));
}

async fn what_a_key_opens_is_kept_by_no_cache(kind: Database) {
    let house = House::new(kind).await;
    for request in [
        house.gateway.generate(&t_rex()),
        house.gateway.project(Method::GET, "/v1/billing/balance"),
        house.gateway.project(Method::GET, "/v1/images/generations"),
        house.gateway.project(Method::GET, "/v1/images/generations/none"),
        house.gateway.admin(Method::GET, "/admin/v1/generations"),
        house.gateway.request(Method::GET, "/admin/v1/generations"),
        house.gateway.request(Method::GET, "/console"),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["cache-control"], "no-store", "{}", answer.url());
    }
    let docs = client().get(format!("{}/docs/index.html", house.gateway.base)).send().await.unwrap();
    let policy = docs.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self';"), "{policy}");
    // The console and the stand-in's own routes are for no other site.
    for path in ["/console", "/console/sign-in"] {
        let asked = house.gateway.request(Method::GET, path).header("origin", "https://evil.example");
        assert!(!asked.send().await.unwrap().headers().contains_key("access-control-allow-origin"), "{path}");
        let preflight = house.gateway.request(Method::OPTIONS, path).header("origin", "https://evil.example");
        let preflight = preflight.header("access-control-request-method", "POST").send().await.unwrap();
        assert!(!preflight.headers().contains_key("access-control-allow-origin"), "{path}");
    }
    for path in ["state", "behaviour", "reset"] {
        let url = format!("{}/__sandbox/{path}", house.fal.queue_url());
        let asked = client().post(&url).header("origin", "https://evil.example").body("{}").send().await.unwrap();
        assert_eq!(asked.status(), StatusCode::FORBIDDEN, "{path}");
        assert!(!asked.headers().contains_key("access-control-allow-origin"), "{path}");
    }
}

async fn long_names_are_cut_in_answers(kind: Database) {
    let house = House::new(kind).await;
    let long = "x".repeat(100_000);
    let mut unknown = t_rex();
    unknown[&long] = json!(1);
    let (status, made) = house.ask(&unknown).await;
    assert_eq!(status, 201);
    assert!(made["meta"]["ignored"][0].as_str().unwrap().chars().count() < 100);
    let strict = house.gateway.generate(&unknown).header("x-imagegate-strict", "true").send().await.unwrap();
    let mut model = t_rex();
    model["model"] = json!(long);
    let no_model = house.gateway.generate(&model).send().await.unwrap();
    let filter = house.gateway.project(Method::GET, &format!("/v1/images/generations?{}=1", &long[..20_000]));
    for answer in [strict, no_model, filter.send().await.unwrap()] {
        assert!(answer.status().is_client_error());
        let length = answer.text().await.unwrap().len();
        assert!(length < 20_000, "an error of {length} bytes");
    }
}

#[tokio::test]
async fn what_the_gateway_writes_is_its_users_alone() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let storage = folder.path().join("kept");
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_imagegate"))
        .env_clear()
        .env("IMAGEGATE_BIND", format!("127.0.0.1:{port}"))
        .env("IMAGEGATE_SANDBOX_DELAY", "0")
        .env("IMAGEGATE_STORAGE", format!("file://{}", storage.display()))
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(folder.path().join("printed")).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually(Duration::from_mins(1), || async {
        let printed = std::fs::read_to_string(folder.path().join("printed")).unwrap();
        printed.contains("/console").then_some(())
    })
    .await;
    // What goes into a file or a pipe has no key in it, only where the keys are; the printed command works all the same.
    let printed = std::fs::read_to_string(folder.path().join("printed")).unwrap();
    assert!(!printed.contains("sk-ig-"), "{printed}");
    let keys = folder.path().join("data/first-keys");
    assert!(printed.contains(&*keys.to_string_lossy()), "{printed}");
    let curl = printed.lines().find(|line| line.starts_with("curl ")).unwrap();
    let generated =
        Command::new("bash").arg("-c").arg(format!("{curl} -s -o /dev/null -w '%{{http_code}}'")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&generated.stdout), "201", "{curl}");
    let mut seen = 0;
    let mut check = vec![folder.path().join("data"), storage];
    while let Some(path) = check.pop() {
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        if path.is_dir() {
            assert_eq!(mode, 0o700, "{}", path.display());
            check.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            assert_eq!(mode, 0o600, "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 3, "only {seen} files: the database, the keys and an image are expected");
    gateway.kill().unwrap();
    gateway.wait().unwrap();
}
