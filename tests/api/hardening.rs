//! What a stranger, a careless operator or a broken client cannot do: ambiguous requests, open files, open details.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::raw::RawClient;
use crate::support::{
    ADMIN_KEY, Database, House, PROJECT_KEY, client, eventually, free_port, on_both_databases, read, t_rex,
};

on_both_databases!(
    ambiguous_headers_and_unreadable_bodies_are_refused_at_once,
    readiness_shows_details_to_operators_only,
    what_a_key_opens_is_kept_by_no_cache,
    long_names_are_cut_in_answers,
    blank_and_invisible_texts_are_refused,
    a_body_that_arrives_too_slowly_is_answered_408,
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
    assert!(!house.gateway.log().contains("\"ERROR\""), "what a stranger sends is no error of ours");
}

async fn blank_and_invisible_texts_are_refused(kind: Database) {
    let house = House::new(kind).await;
    let send = async |path: &str, body: Value, status: StatusCode| {
        read(house.gateway.admin(Method::POST, path).json(&body).send().await.unwrap(), status).await
    };
    for reason in ["", "   ", "\t", "\u{a0}", "a\0b"] {
        let body = json!({"amount_usd": "1", "reason": reason});
        send("/admin/v1/projects/default/credits", body, StatusCode::BAD_REQUEST).await;
    }
    let (_, made) = house.ask(&t_rex()).await;
    let path = format!("/admin/v1/generations/{}/refunds", made["id"].as_str().unwrap());
    send(&path, json!({"amount_usd": "0.01", "reason": " "}), StatusCode::BAD_REQUEST).await;
    for name in ["a\nb", "\u{feff}", "default\u{200b}", "\u{202e}tluafed", " "] {
        send("/v1/organization/projects", json!({"name": name}), StatusCode::BAD_REQUEST).await;
    }
    assert!(!house.gateway.log().contains("cannot be read"));
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
    let nothing = house.gateway.project(Method::GET, &format!("/v1/{}", &long[..10_000])).send().await.unwrap();
    let answer = read(nothing, StatusCode::NOT_FOUND).await;
    assert!(answer["path"].as_str().unwrap().len() < 600 && answer.to_string().len() < 3_000, "{answer}");
}

async fn a_body_that_arrives_too_slowly_is_answered_408(kind: Database) {
    let house = House::with(kind, Duration::ZERO, &[("IMAGEGATE_BODY_TIMEOUT", "1s")]).await;
    let sign_in = house.gateway.request(Method::POST, "/console/sign-in").header("sec-fetch-site", "same-origin");
    let signed_in = sign_in.body(format!("key={ADMIN_KEY}&next=/console")).send().await.unwrap();
    let session = signed_in.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let (project, admin) =
        (format!("authorization: Bearer {PROJECT_KEY}"), format!("authorization: Bearer {ADMIN_KEY}"));
    let console = format!("sec-fetch-site: same-origin\r\ncookie: {session}");
    let (json, form) = ("application/json", "application/x-www-form-urlencoded");
    let parts = "multipart/form-data; boundary=b";
    let slow = [
        ("POST", "/v1/images/generations", json, &project, "\"code\":\"request_timeout\""),
        ("POST", "/v1/images/edits", parts, &project, "\"code\":\"request_timeout\""),
        ("POST", "/v1/files", parts, &project, "\"code\":\"request_timeout\""),
        ("POST", "/fal/run/fal-ai/flux/dev", json, &project, "did not arrive in time"),
        ("PATCH", "/admin/v1/projects/default", json, &admin, "\"code\":\"request_timeout\""),
        ("POST", "/v1/organization/projects", json, &admin, "\"code\":\"request_timeout\""),
        ("POST", "/console/projects", form, &console, "did not arrive in time"),
        ("POST", "/console/sign-in", form, &console, "did not arrive in time"),
    ];
    let address = house.gateway.base.trim_start_matches("http://").to_owned();
    let asked = slow.map(|(method, path, content_type, headers, expected)| {
        let start = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\n{headers}\r\ncontent-type: {content_type}\r\ncontent-length: 1000\r\n\r\n"
        );
        let address = address.clone();
        tokio::task::spawn_blocking(move || {
            let mut connection = TcpStream::connect(&address).unwrap();
            connection.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
            connection.write_all(format!("{start}{{").as_bytes()).unwrap();
            let mut answer = String::new();
            let mut piece = [0; 4096];
            while !answer.contains(expected) {
                match connection.read(&mut piece) {
                    Ok(length) if length > 0 => answer.push_str(&String::from_utf8_lossy(&piece[..length])),
                    ended => panic!("{method} {path}: {ended:?} after {answer}"),
                }
            }
            assert!(answer.starts_with("HTTP/1.1 408 "), "{method} {path}: {answer}");
        })
    });
    for ask in asked {
        ask.await.unwrap();
    }
    assert_eq!(house.gateway.generations().await.len(), 0);
    assert_eq!(house.ask(&t_rex()).await.0, 201);
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
