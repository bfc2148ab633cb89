//! Running it for years: stopping, restarting under load, HTTPS, proxies, slow clients, the log, backup and restore.

#![expect(clippy::disallowed_methods, reason = "clients of a test may die with it")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::authority::authority;
use crate::support::{
    ADMIN_KEY, Database, Gateway, House, PROJECT_KEY, Start, TestDatabase, client, client_that_trusts, eventually,
    fal_state, free_port, on_both_databases, patience, read, start_sandbox, t_rex,
};

on_both_databases!(
    told_to_stop_it_is_not_ready_at_once_finishes_and_ends_with_zero,
    a_rolling_restart_of_two_replicas_under_load_loses_nothing,
    the_log_has_one_line_for_each_request_and_no_secret_or_prompt,
    only_a_trusted_proxy_tells_who_the_client_is,
    slow_clients_are_let_go_and_browsers_are_told,
    https_is_served_with_the_given_certificate,
);

async fn readiness(base: &str) -> Option<u16> {
    let answer = client().get(format!("{base}/readyz")).timeout(Duration::from_secs(20)).send().await.ok()?;
    Some(answer.status().as_u16())
}

async fn told_to_stop_it_is_not_ready_at_once_finishes_and_ends_with_zero(kind: Database) {
    let settings = [("IMAGEGATE_SHUTDOWN_DELAY", "10s")];
    let House { gateway, fal, database: _database } = House::with(kind, Duration::from_secs(15), &settings).await;
    let ready = gateway.readiness().await;
    assert_eq!((&ready["database"], &ready["catalogue"]), (&json!("ok"), &json!("ok")));
    assert_eq!((&ready["providers"][0]["name"], &ready["providers"][0]["reachable"]), (&json!("fal"), &json!(true)));

    let under_way = tokio::spawn(gateway.generate(&t_rex()).send());
    let submitted = || async { (fal_state(&fal).await["accepted_submits"] == 1).then_some(()) };
    eventually(Duration::from_secs(5), submitted).await;
    gateway.signal("TERM");
    // Before `IMAGEGATE_SHUTDOWN_DELAY` has passed: after it nobody would be answered.
    eventually(Duration::from_secs(1), || async { (readiness(&gateway.base).await == Some(503)).then_some(()) }).await;
    let stopping = gateway.request(Method::GET, "/readyz").send().await.unwrap();
    assert_eq!(stopping.headers()["connection"], "close");
    assert_eq!(read(stopping, StatusCode::SERVICE_UNAVAILABLE).await["status"], "stopping");
    let live = gateway.request(Method::GET, "/healthz").send().await.unwrap();
    assert_eq!(live.status(), StatusCode::OK, "it lives, and whoever has not seen it yet is still served");
    assert!(!under_way.is_finished(), "the request had ended before the gateway was told to stop");
    let answer = under_way.await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED, "what runs is finished");
    assert_eq!(gateway.stop().await, 0);
}

async fn a_rolling_restart_of_two_replicas_under_load_loses_nothing(kind: Database) {
    let database = TestDatabase::new(kind).await;
    let fal = start_sandbox(Duration::from_millis(200));
    let ports = [free_port(), free_port()];
    let start = |port: u16| {
        let start = Start::new(&database.url, &fal.queue_url()).with("IMAGEGATE_SHUTDOWN_DELAY", "5s");
        start.with("IMAGEGATE_BIND", &format!("127.0.0.1:{port}")).run()
    };
    let mut replicas = Vec::<Option<Gateway>>::new();
    for port in ports {
        replicas.push(Some(start(port).await));
    }
    let (over, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    // A load balancer that asks for readiness four times a second, and clients that never send anything twice.
    let ready: Arc<[AtomicBool; 2]> = Arc::new([AtomicBool::new(true), AtomicBool::new(true)]);
    let balancer = tokio::spawn({
        let (over, ready) = (over.clone(), ready.clone());
        async move {
            while !over.load(Ordering::SeqCst) {
                for (port, ready) in ports.iter().zip(&*ready) {
                    let is_ready = readiness(&format!("http://127.0.0.1:{port}")).await == Some(200);
                    ready.store(is_ready, Ordering::SeqCst);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    });
    let clients: Vec<_> = (0..6)
        .map(|number: usize| {
            let (over, ready, made) = (over.clone(), ready.clone(), made.clone());
            tokio::spawn(async move {
                let client = client();
                let mut turn = number;
                while !over.load(Ordering::SeqCst) {
                    turn += 1;
                    let place = (0..2).map(|n| (turn + n) % 2).find(|n| ready[*n].load(Ordering::SeqCst));
                    let Some(place) = place else {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    };
                    let url = format!("http://127.0.0.1:{}/v1/images/generations", ports[place]);
                    let answer = client.post(url).bearer_auth(PROJECT_KEY).json(&t_rex()).send().await;
                    let answer = answer.unwrap_or_else(|fault| panic!("a request was lost: {fault:?}"));
                    assert_eq!(answer.status(), StatusCode::CREATED, "{}", answer.text().await.unwrap());
                    made.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let six_more = async || {
        let before = made.load(Ordering::SeqCst);
        eventually(Duration::from_secs(20), || async { (made.load(Ordering::SeqCst) >= before + 6).then_some(()) })
            .await;
    };
    for place in 0..2 {
        six_more().await;
        assert_eq!(replicas[place].take().unwrap().stop().await, 0);
        replicas[place] = Some(start(ports[place]).await);
        eventually(Duration::from_secs(10), || async { ready[place].load(Ordering::SeqCst).then_some(()) }).await;
    }
    six_more().await;
    over.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    balancer.await.unwrap();
    let made = made.load(Ordering::SeqCst);
    let gateway = replicas[0].as_ref().unwrap();
    let generations = gateway.generations().await;
    assert_eq!(generations.len(), made, "every answer has one line in the books");
    assert!(generations.iter().all(|one| one["state"] == "succeeded" && one["price_usd"] == "0.035000000"));
}

async fn the_log_has_one_line_for_each_request_and_no_secret_or_prompt(kind: Database) {
    let house = House::with(kind, Duration::ZERO, &[("IMAGEGATE_LOG", "debug")]).await;
    let secret_prompt = "a-prompt-that-nobody-may-read";
    let mut wish = t_rex();
    wish["prompt"] = json!(secret_prompt);
    wish["user"] = json!("somebody");
    assert_eq!(house.ask(&wish).await.0, 201);
    wish["num_images"] = json!(99);
    assert_eq!(house.ask(&wish).await.0, 400);
    let wrong = house.gateway.request(Method::POST, "/v1/images/generations").bearer_auth("sk-ig-wrong-wrong-wrong");
    assert_eq!(wrong.json(&wish).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let made = house.gateway.admin(Method::POST, "/v1/organization/admin_api_keys").json(&json!({"name": "ada"}));
    let made = read(made.send().await.unwrap(), StatusCode::OK).await;

    let log = eventually(Duration::from_secs(5), || async {
        let log = house.gateway.log();
        log.contains("admin_api_keys").then_some(log)
    })
    .await;
    let secrets = [PROJECT_KEY, ADMIN_KEY, "test:test", "sk-ig-wrong", made["value"].as_str().unwrap(), secret_prompt];
    for secret in secrets {
        assert!(!log.contains(secret), "`{secret}` is in the log");
    }
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_images = |line: &&Value| line["fields"]["path"] == "/v1/images/generations";
    let requests: Vec<&Value> = lines.iter().filter(of_images).collect();
    assert_eq!(requests.len(), 3, "one line for each request");
    for line in requests {
        for field in ["method", "path", "status", "duration_ms", "request_id"] {
            assert!(!line["fields"][field].is_null(), "`{field}` is missing: {line}");
        }
        assert!(line["timestamp"].is_string() && line["level"].is_string());
    }
}

async fn only_a_trusted_proxy_tells_who_the_client_is(kind: Database) {
    for (trusted, address) in [("127.0.0.0/8, ::1", "203.0.113.7"), ("10.0.0.0/8", "127.0.0.1")] {
        let house = House::with(kind, Duration::ZERO, &[("IMAGEGATE_TRUSTED_PROXIES", trusted)]).await;
        let create = house.gateway.admin(Method::POST, "/v1/organization/projects").json(&json!({"name": "P"}));
        let create =
            create.header("x-forwarded-for", "1.1.1.1, 203.0.113.7").header("x-forwarded-host", "evil.example");
        read(create.send().await.unwrap(), StatusCode::OK).await;
        let log = house.gateway.admin(Method::GET, "/v1/organization/audit_logs?limit=1").send().await.unwrap();
        let log = read(log, StatusCode::OK).await;
        assert_eq!(log["data"][0]["actor"]["session"]["ip_address"], address);
    }
}

async fn slow_clients_are_let_go_and_browsers_are_told(kind: Database) {
    let house = House::new(kind).await;
    let address = house.gateway.base.trim_start_matches("http://").to_owned();
    let slow = tokio::task::spawn_blocking(move || {
        let mut connection = TcpStream::connect(address).unwrap();
        connection.write_all(b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\n").unwrap();
        // Ten seconds for the headers; a connection that is never closed fails here.
        connection.set_read_timeout(Some(patience(Duration::from_secs(12)))).unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    });
    let live = house.gateway.request(Method::GET, "/healthz").send().await.unwrap();
    for (name, value) in [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY")] {
        assert_eq!(live.headers()[name], value);
    }
    assert!(!live.headers().contains_key("strict-transport-security"), "it is no HTTPS");
    for (path, allowed) in [("/v1/models", true), ("/admin/v1/generations", false), ("/v1/organization/costs", false)] {
        let asked = house.gateway.request(Method::OPTIONS, path).header("origin", "https://app.example");
        let answer = asked.header("access-control-request-method", "GET").send().await.unwrap();
        assert_eq!(answer.headers().contains_key("access-control-allow-origin"), allowed, "{path}");
    }
    let with =
        |bytes: usize| house.gateway.request(Method::GET, "/healthz").header("x-large", "x".repeat(bytes)).send();
    assert_eq!(with(60_000).await.unwrap().status(), StatusCode::OK);
    let refused = read(with(70_000).await.unwrap(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE).await;
    assert_eq!(refused["error"]["code"], "headers_too_large");
    // What does not fit into the server's buffer may be cut off while it is sent.
    for _ in 0..20 {
        let Ok(answer) = with(200_000).await else { continue };
        assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let answer = slow.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

async fn https_is_served_with_the_given_certificate(kind: Database) {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority();
    let [_, certificate, key] = authority.files(folder.path());
    let settings = [
        ("IMAGEGATE_TLS_CERT", certificate.to_str().unwrap()),
        ("IMAGEGATE_TLS_KEY", key.to_str().unwrap()),
        ("IMAGEGATE_BIND", "127.0.0.1:0"),
    ];
    let house = House::with(kind, Duration::ZERO, &settings).await;
    let port = house.gateway.base.rsplit(':').next().unwrap();
    let client = client_that_trusts(&authority.pem);
    let url = format!("https://localhost:{port}/v1/images/generations");
    let answer = client.post(url).bearer_auth(PROJECT_KEY).json(&t_rex()).send().await.unwrap();
    assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
    read(answer, StatusCode::CREATED).await;
    assert!(house.gateway.request(Method::GET, "/healthz").send().await.is_err(), "plain HTTP was answered");
}

/// The commands of `docs/operations.md`, as they stand there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_backup_adds_up_and_serves() {
    let house = House::with(Database::Postgres, Duration::ZERO, &[]).await;
    for _ in 0..3 {
        assert_eq!(house.ask(&t_rex()).await.0, 201);
    }
    let before = house.gateway.generations().await;
    let operations = include_str!("../../docs/operations.md");
    let block = operations.split("## Backup and restore").nth(1).unwrap().split("```sh\n").nth(1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (server, _) = house.database.url.rsplit_once('/').unwrap();
    let name = format!("restored_{}", std::process::id());
    let restored = format!("{server}/{name}");
    let script = block.split("\n```").next().unwrap();
    let script = script.replace("postgres://…/imagegate_restored", &restored);
    let script = script.replace("--dbname=imagegate_restored", &format!("--dbname={restored}"));
    let script =
        script.replace("createdb imagegate_restored", &format!("createdb --maintenance-db={server}/postgres {name}"));
    let programs =
        std::fs::read_dir("/usr/lib/postgresql").unwrap().map(|entry| entry.unwrap().path().join("bin")).max();
    let ours = std::path::Path::new(env!("CARGO_BIN_EXE_imagegate")).parent().unwrap();
    let path = format!("{}:{}:/usr/bin:/bin", programs.unwrap().display(), ours.display());
    let run = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .env_clear()
        .env("PATH", path)
        .env("DATABASE_URL", &house.database.url)
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(run.status.success(), "{}\n{}", script, String::from_utf8_lossy(&run.stderr));
    let database = TestDatabase::at(restored);
    let second = Start::new(&database.url, &house.fal.queue_url()).run().await;
    assert_eq!(second.generations().await, before);
    read(second.generate(&t_rex()).send().await.unwrap(), StatusCode::CREATED).await;
}
