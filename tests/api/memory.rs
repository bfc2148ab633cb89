//! Large bodies and images take their memory from one budget, and are refused before they are read where nothing can come of them.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::attacks::{peak_memory, slowest_answer_during};
use crate::support::{Database, House, PROJECT_KEY, eventually, on_both_databases, patience, read};

on_both_databases!(
    a_large_body_is_refused_before_it_is_read_where_nothing_can_come_of_it,
    a_large_body_is_refused_before_it_is_read_where_the_rate_of_its_model_is_used_up,
);

const MIB: u64 = 1024 * 1024;

/// A PNG that has so many bytes.
fn png(bytes: usize) -> Vec<u8> {
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(64, 64).write_to(&mut png, image::ImageFormat::Png).unwrap();
    let mut png = png.into_inner();
    png.resize(bytes, 0);
    png
}

/// A request for a picture made of two pictures, of about 30 MB.
fn large_body() -> Bytes {
    let uri = format!("data:image/png;base64,{}", STANDARD.encode(png(11_000_000)));
    let body = json!({"model": "blackforestlabs/flux-2-edit", "prompt": "both", "image_urls": [uri, uri]});
    Bytes::from(serde_json::to_vec(&body).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_bodies_of_thirty_megabytes_take_no_more_than_the_limit() {
    const LIMIT: u64 = 640 * MIB;
    let house = House::with(Database::Sqlite, Duration::ZERO, &[("IMAGEGATE_MEMORY_LIMIT", "640MiB")]).await;
    let gateway = &house.gateway;
    let body = large_body();
    let send = async || {
        let request = gateway.project(Method::POST, "/v1/images/generations");
        let answer = request.header("content-type", "application/json").body(body.clone()).send().await;
        // Who is refused may see the connection closed while it still sends.
        let answer = answer.ok()?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let text = answer.text().await.unwrap_or_default();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!(headers["retry-after"], "1", "{text}");
        }
        Some((status, text))
    };
    let all = async { join_all((0..300).map(|_| send())).await };
    let (slowest, answers) = slowest_answer_during(gateway, all).await;
    let made = answers.iter().flatten().filter(|(status, _)| *status == StatusCode::CREATED).count();
    for (status, text) in answers.iter().flatten() {
        assert!(matches!(status.as_u16(), 201 | 503), "{status}: {text}");
        assert!(*status == StatusCode::CREATED || text.contains("too many large requests"), "{text}");
    }
    assert!(made > 0 && made < 300, "{made} were made");
    let peak = peak_memory(gateway);
    assert!(peak < LIMIT, "{peak} bytes");
    assert!(slowest < patience(Duration::from_millis(300)), "/healthz took {slowest:?}");
    // All of it is given back, and whoever comes later is served.
    eventually(Duration::from_secs(5), || async {
        (gateway.metric("imagegate_memory_used_bytes").await < 1.0).then_some(())
    })
    .await;
    assert_eq!(send().await.unwrap().0, StatusCode::CREATED);
    assert_eq!(gateway.generations().await.len(), made + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_image_takes_memory_once() {
    const SIZE: usize = 16 * 1024 * 1024;
    let house = House::new(Database::Sqlite).await;
    let gateway = &house.gateway;
    let wish = |format: &str| json!({"model": "flux/dev", "prompt": "a", "response_format": format});
    assert_eq!(house.ask(&wish("b64_json")).await.0, 201);
    let file = json!({"status": 200, "headers": {"content-type": "image/png"}, "body": "x".repeat(SIZE)});
    house.misbehave(json!({"at": "file", "do": file})).await;
    let before = peak_memory(gateway);
    let encoded = STANDARD.encode("x".repeat(SIZE));
    let (status, answer) = house.ask(&wish("b64_json")).await;
    assert_eq!(status, 201);
    assert!(answer["data"][0]["b64_json"] == encoded && answer["images"][0]["b64_json"] == encoded);
    let body = json!({"model": "flux/dev", "prompt": "a", "sync_mode": true});
    let (status, answer) = house.ask(&body).await;
    assert_eq!(status, 201);
    assert!(answer["data"][0]["url"].as_str().unwrap().ends_with(&encoded));
    let body = json!({"model": "flux/dev", "prompt": "a", "stream": true});
    let events = gateway.generate(&body).send().await.unwrap().text().await.unwrap();
    assert!(events.contains(&encoded) && events.contains("image_generation.settled"));
    let grown = peak_memory(gateway).saturating_sub(before);
    assert!(grown < 2 * SIZE as u64, "{} MiB more", grown / MIB);
    assert!(gateway.metric("imagegate_memory_used_bytes").await < 1.0);
}

/// What a request that announces 30 MB is answered before it has sent any of them.
async fn answer_to_the_head(house: &House, path: &str, headers: &str) -> Option<Value> {
    answer_to(house, path, &format!("Content-Length: 30000000\r\n{headers}"), "").await.map(|(_, body)| body)
}

/// The head and the body of what is answered to a request of which only so much is sent.
async fn answer_to(house: &House, path: &str, headers: &str, body: &str) -> Option<(String, Value)> {
    let address = house.gateway.base.strip_prefix("http://").unwrap();
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {PROJECT_KEY}\r\n{headers}\r\n{body}"
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(2), connection.read_to_end(&mut answer));
    // Nobody answers a request that may still succeed.
    let _ = read.await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let from = body.find('{')?;
    let to = body.rfind('}')?;
    Some((head.to_owned(), serde_json::from_str(&body[from..=to]).unwrap()))
}

const JSON: &str = "Content-Type: application/json\r\n";
const FORM: &str = "Content-Type: multipart/form-data; boundary=b\r\n";
const DOORS: [(&str, &str); 4] = [
    ("/v1/images/generations", JSON),
    ("/v1/images/edits", FORM),
    ("/fal/run/fal-ai/flux/dev", JSON),
    ("/fal/queue/fal-ai/flux/dev", JSON),
];

async fn a_large_body_is_refused_before_it_is_read_where_nothing_can_come_of_it(kind: Database) {
    let house = House::new(kind).await;
    let gateway = &house.gateway;
    let first = json!({"model": "flux/dev", "prompt": "a"});
    let made = gateway.generate(&first).header("idempotency-key", "known").send().await.unwrap();
    read(made, StatusCode::CREATED).await;
    assert!(answer_to_the_head(&house, DOORS[0].0, JSON).await.is_none(), "it may still succeed");
    for (terms, status, words) in [
        (json!({"spend_limit_usd": "0.01"}), 403, "0.01"),
        (json!({"spend_limit_usd": null, "prepaid": true}), 403, "run out of credits"),
        (json!({"prepaid": false, "limits": {"concurrent_generations": 1}}), 429, "generations at once"),
    ] {
        gateway.set_project(&terms).await;
        if status == 429 {
            let slow = json!({"match": {"prompt_contains": "slow"}, "do": {"queue_ms": 0, "run_ms": 60_000}});
            house.misbehave(slow).await;
            let open = gateway.generate(&json!({"model": "flux/dev", "prompt": "slow", "background": true}));
            read(open.send().await.unwrap(), StatusCode::ACCEPTED).await;
        }
        for (path, headers) in DOORS {
            let begin = Instant::now();
            let refusal = answer_to_the_head(&house, path, headers).await;
            let refusal = refusal.unwrap_or_else(|| panic!("{path} is not refused with {terms}"));
            let text = refusal.to_string();
            assert!(text.contains(words), "{path}: {text}");
            if !path.starts_with("/fal") {
                assert_eq!(refusal["status"], status, "{path}: {text}");
            }
            assert!(begin.elapsed() < patience(Duration::from_secs(3)));
        }
        // What was made already costs nothing.
        let known = format!("{JSON}Idempotency-Key: known\r\n");
        assert!(answer_to_the_head(&house, DOORS[0].0, &known).await.is_none(), "a known key is read with {terms}");
    }
    let open = gateway.generations().await.remove(0);
    let path = format!("/v1/images/generations/{}", open["id"].as_str().unwrap());
    gateway.project(Method::DELETE, &path).send().await.unwrap();
    let used = gateway.metric("imagegate_memory_used_bytes").await;
    assert!(used < 30_000.0, "only the open generation takes any: {used}");
}

/// The model of the requests below, and how fal calls it.
const EDITING: &str = "flux/dev/image-to-image";
const EDITING_AT_FAL: &str = "fal-ai/flux/dev/image-to-image";

async fn a_large_body_is_refused_before_it_is_read_where_the_rate_of_its_model_is_used_up(kind: Database) {
    let house = House::new(kind).await;
    let gateway = &house.gateway;
    gateway.set_project(&json!({"limits": {"rates": [{"model": "*", "requests_per_minute": 1}]}})).await;
    let uri = format!("data:image/png;base64,{}", STANDARD.encode(png(1_000)));
    let json = format!(r#"{{"prompt": "a", "model": "{EDITING}", "image_url": "{uri}"}}"#);
    let form = format!(
        "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{EDITING}\r\n--b\r\nContent-Disposition: \
         form-data; name=\"prompt\"\r\n\r\na\r\n--b\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\n{uri}\r\n--b"
    );
    let of_fal = json!({"prompt": "a", "image_url": uri}).to_string();
    let proxy = format!("{JSON}x-fal-target-url: https://queue.fal.run/{EDITING_AT_FAL}\r\n");
    let (run, queue) = (format!("/fal/run/{EDITING_AT_FAL}"), format!("/fal/queue/{EDITING_AT_FAL}"));
    // A body in full, and how much of it names the model.
    let doors = [
        ("/v1/images/generations", JSON, json.as_str(), 1_000),
        ("/v1/images/edits", JSON, &json, 1_000),
        ("/v1/images/edits", FORM, &form, 1_000),
        (&run, JSON, &of_fal, 0),
        (&queue, JSON, &of_fal, 0),
        ("/fal/proxy", &proxy, &of_fal, 0),
    ];
    let early = async |(path, headers, body, known): (&str, &str, &str, usize), more: &str| {
        let headers = format!("Content-Length: 29000000\r\n{headers}{more}");
        answer_to(&house, path, &headers, &body[..known]).await
    };
    for door in [doors[0], doors[2], doors[3]] {
        assert!(early(door, "").await.is_none(), "{} may still succeed", door.0);
    }
    let request = gateway.project(Method::POST, doors[0].0).header("content-type", "application/json");
    let made = request.header("idempotency-key", "known").body(json.clone()).send().await.unwrap();
    read(made, StatusCode::CREATED).await;
    for (path, headers, body, known) in doors {
        let (head, refusal) = early((path, headers, body, known), "").await.unwrap();
        assert!(head.starts_with("HTTP/1.1 429"), "{path}: {head}");
        assert!(refusal.to_string().contains("requests per minute: limit 1, used 1."), "{path}: {refusal}");
        // A small body is read and refused alike.
        let end = if headers == FORM { "--\r\n" } else { "" };
        let length = body.len() + end.len();
        let small = format!("Content-Length: {length}\r\nConnection: close\r\n{headers}");
        let (usual, _) = answer_to(&house, path, &small, &format!("{body}{end}")).await.unwrap();
        let names = |head: &str| {
            let names = head.lines().map(|line| line.split([':', ' ']).next().unwrap().to_ascii_lowercase());
            let mut names: Vec<_> = names.filter(|name| name != "connection").collect();
            names.sort_unstable();
            names
        };
        assert_eq!(names(&head), names(&usual), "{path}");
        assert!(usual.starts_with("HTTP/1.1 429") && usual.contains("retry-after: "), "{path}: {usual}");
    }
    // Another model has a rate of its own, and what was made already costs nothing.
    let other = json.replace(EDITING, "flux/dev");
    assert!(early((doors[0].0, JSON, &other, 1_000), "").await.is_none());
    assert!(early(doors[0], "Idempotency-Key: known\r\n").await.is_none());
    // Sent in full, they take no memory either.
    let before = peak_memory(gateway);
    let large = Bytes::from(format!("{}{}", &json[..json.len() - 2], " ".repeat(29_000_000)));
    let send = async || {
        let request = gateway.project(Method::POST, doors[0].0).header("content-type", "application/json");
        request.body(large.clone()).send().await.ok().map(|answer| answer.status())
    };
    for status in join_all((0..16).map(|_| send())).await.into_iter().flatten() {
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    }
    let grown = peak_memory(gateway).saturating_sub(before);
    assert!(grown < 29_000_000 * 4, "{grown} bytes more");
    assert_eq!(gateway.generations().await.len(), 1);
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused_on_every_path_whether_or_not_it_announces_its_length() {
    let house = House::with(Database::Sqlite, Duration::ZERO, &[("IMAGEGATE_BODY_LIMIT", "64KiB")]).await;
    let text = "x".repeat(66 * 1024);
    let json = json!({"model": "flux/dev", "prompt": text}).to_string();
    let form = format!("--b\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\n{text}\r\n--b--\r\n");
    let upload = format!("{JSON}x-fal-target-url: https://rest.fal.ai/storage/upload/initiate\r\n");
    let others = [("/v1/images/edits", JSON), ("/v1/files", FORM), ("/fal/proxy", &upload)];
    for (path, headers) in DOORS.into_iter().chain(others) {
        let body = if headers == FORM { &form } else { &json };
        let announced = (format!("Content-Length: {}\r\n{headers}", body.len()), body.clone());
        let in_pieces = format!("Transfer-Encoding: chunked\r\n{headers}");
        let in_pieces = (in_pieces, format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
        for (headers, body) in [announced, in_pieces] {
            let (head, _) = answer_to(&house, path, &headers, &body).await.unwrap();
            assert!(head.starts_with("HTTP/1.1 413"), "{path}: {head}");
        }
    }
}
