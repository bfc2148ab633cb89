//! A stand-in for fal that costs as little as possible: the queue's protocol with answers of the real form, and files.
//!
//! `fal ADDRESS` listens there. An image takes the milliseconds that `POST /__set?delay_ms=N` said last.
//! `POST /run/{app}` answers with the image. `POST /{app}` submits, `GET …/requests/{id}/status` and `GET …/requests/{id}` follow, `PUT …/cancel` is too late.
//! `POST /storage/upload/initiate` names a place for a file, which `PUT /files/…` takes. `GET /files/{bytes}` is a file of so many bytes; `POST /__set?file_bytes=N` makes results point to one.
//! `GET /__count` tells how many submits, looks and results there were.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

type Answer = Response<Full<Bytes>>;

/// Requests by id, in several maps so that two threads seldom meet at one.
const SHARDS: usize = 64;

struct Fal {
    base: String,
    delay_ms: AtomicU64,
    file_bytes: AtomicU64,
    next: AtomicU64,
    submits: AtomicU64,
    looks: AtomicU64,
    results: AtomicU64,
    jobs: Vec<Mutex<HashMap<u64, Instant>>>,
}

fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn request_id(number: u64) -> String {
    format!("764cabcf-b745-4b3e-ae38-{number:012x}")
}

impl Fal {
    fn jobs(&self, id: u64) -> std::sync::MutexGuard<'_, HashMap<u64, Instant>> {
        self.jobs[id as usize % SHARDS].lock().expect("no thread panics with a map in its hands")
    }

    fn addresses(&self, app: &str, id: u64) -> String {
        let (base, id) = (&self.base, request_id(id));
        format!(
            "\"request_id\":\"{id}\",\"response_url\":\"{base}/{app}/requests/{id}\",\
             \"status_url\":\"{base}/{app}/requests/{id}/status\",\"cancel_url\":\"{base}/{app}/requests/{id}/cancel\""
        )
    }

    fn submit(&self, app: &str) -> Answer {
        self.submits.fetch_add(1, Relaxed);
        let id = self.next.fetch_add(1, Relaxed);
        self.jobs(id).insert(id, Instant::now());
        let addresses = self.addresses(app, id);
        json(StatusCode::OK, format!("{{\"status\":\"IN_QUEUE\",{addresses},\"queue_position\":0}}"))
    }

    /// One call that waits for the image.
    async fn run(&self) -> Answer {
        let id = self.next.fetch_add(1, Relaxed);
        match self.delay_ms.load(Relaxed) {
            0 => {}
            delay => tokio::time::sleep(Duration::from_millis(delay)).await,
        }
        self.results.fetch_add(1, Relaxed);
        json(StatusCode::OK, self.result(id))
    }

    fn follow(&self, app: &str, id: u64, verb: &str) -> Answer {
        let Some(since) = self.jobs(id).get(&id).copied() else {
            return json(StatusCode::NOT_FOUND, "{\"detail\":\"Request not found\"}");
        };
        let delay = Duration::from_millis(self.delay_ms.load(Relaxed));
        let done = since.elapsed() >= delay;
        match verb {
            "status" => {
                self.looks.fetch_add(1, Relaxed);
                let addresses = self.addresses(app, id);
                let state = if done { "COMPLETED" } else { "IN_PROGRESS" };
                let status = if done { StatusCode::OK } else { StatusCode::ACCEPTED };
                json(status, format!("{{\"status\":\"{state}\",{addresses},\"logs\":null}}"))
            }
            "" if done => {
                self.results.fetch_add(1, Relaxed);
                self.jobs(id).remove(&id);
                let mut answer = json(StatusCode::OK, self.result(id));
                answer.headers_mut().insert("x-fal-billable-units", HeaderValue::from_static("1"));
                answer
            }
            "" => json(StatusCode::BAD_REQUEST, "{\"detail\":\"Request is still in progress\"}"),
            _ => json(StatusCode::BAD_REQUEST, "{\"status\":\"ALREADY_COMPLETED\"}"),
        }
    }

    fn result(&self, id: u64) -> String {
        let file = match self.file_bytes.load(Relaxed) {
            0 => format!("https://v3b.fal.media/files/b/{id:016x}/1kYzoFE6V9Jx2Rfmmn_4M.jpg"),
            bytes => format!("{}/files/{bytes}", self.base),
        };
        let seed = id.wrapping_mul(2_654_435_761) % 4_294_967_296;
        format!(
            "{{\"images\":[{{\"url\":\"{file}\",\"width\":1024,\"height\":1024,\"content_type\":\"image/jpeg\"}}],\
             \"timings\":{{\"inference\":0.371259557}},\"seed\":{seed},\"has_nsfw_concepts\":[false],\
             \"prompt\":\"A lighthouse on a basalt cliff at dusk, long exposure, volumetric light, 35mm film look\"}}"
        )
    }

    fn set(&self, query: &str) -> Answer {
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match name {
                "delay_ms" => self.delay_ms.store(value, Relaxed),
                "file_bytes" => self.file_bytes.store(value, Relaxed),
                _ => return json(StatusCode::BAD_REQUEST, "{}"),
            }
        }
        json(StatusCode::OK, "{}")
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let (head, mut body) = request.into_parts();
        // A file of megabytes is read and let go piece by piece: its memory is not what is measured.
        while let Some(piece) = body.frame().await {
            if piece.is_err() {
                return Ok(json(StatusCode::BAD_REQUEST, "{}"));
            }
        }
        let path = head.uri.path().trim_matches('/');
        Ok(match (head.method, path) {
            (Method::POST, "__set") => self.set(head.uri.query().unwrap_or_default()),
            (Method::GET, "__count") => {
                let count = |number: &AtomicU64| number.load(Relaxed);
                let (submits, looks, results) = (count(&self.submits), count(&self.looks), count(&self.results));
                json(StatusCode::OK, format!("{{\"submits\":{submits},\"looks\":{looks},\"results\":{results}}}"))
            }
            (Method::GET, path) if path.starts_with("files/") => {
                let bytes = path["files/".len()..].parse().unwrap_or(0);
                let mut answer = Response::new(Full::new(Bytes::from(vec![0x5a; bytes])));
                answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("image/jpeg"));
                answer
            }
            (Method::POST, path) if path.starts_with("run/") => self.run().await,
            (Method::POST, "storage/upload/initiate") => {
                let file = format!("{}/files/1", self.base);
                json(StatusCode::OK, format!("{{\"upload_url\":\"{file}\",\"file_url\":\"{file}\"}}"))
            }
            (Method::PUT, path) if path.starts_with("files/") => json(StatusCode::OK, "{}"),
            (Method::POST, app) => self.submit(app),
            (_, path) => {
                let Some((app, rest)) = path.split_once("/requests/") else {
                    return Ok(json(StatusCode::NOT_FOUND, "{\"detail\":\"not found\"}"));
                };
                let (id, verb) = rest.split_once('/').unwrap_or((rest, ""));
                let id = id.rsplit('-').next().and_then(|id| u64::from_str_radix(id, 16).ok());
                self.follow(app, id.unwrap_or(u64::MAX), verb)
            }
        })
    }
}

#[tokio::main]
async fn main() {
    let address = std::env::args().nth(1).expect("usage: fal ADDRESS");
    let listener = tokio::net::TcpListener::bind(&address).await.expect("the address is free");
    let fal = Arc::new(Fal {
        base: format!("http://{address}"),
        delay_ms: AtomicU64::new(0),
        file_bytes: AtomicU64::new(0),
        next: AtomicU64::new(1),
        submits: AtomicU64::new(0),
        looks: AtomicU64::new(0),
        results: AtomicU64::new(0),
        jobs: (0..SHARDS).map(|_| Mutex::default()).collect(),
    });
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let fal = fal.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| fal.clone().answer(request));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
