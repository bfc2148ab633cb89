//! Clients in a closed loop over kept connections: each sends its next request when it has the answer to the one before.
//!
//! Written by hand because it shares the machine with what it measures: a general client would take more processor
//! time than the gateway.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What each client does over and over.
#[derive(Clone)]
pub enum Script {
    /// One request and its answer.
    Request(Arc<[u8]>),
    /// The same, each time with a new id in place of the nil one.
    Keyed(Arc<[u8]>),
    /// fal's queue itself: submit, status until it is done, result. What a caller without a gateway would do.
    Queue { submit: Arc<[u8]>, path: Arc<str>, host: Arc<str> },
}

/// What came of it.
#[derive(Default)]
pub struct Tally {
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Refusals (429 and 503) that did not say when to come back.
    pub bare_refusals: u64,
    /// Connections that broke.
    pub broken: u64,
    /// Of each good answer, in microseconds, sorted.
    pub latencies: Vec<u32>,
    /// From the first request to the last answer.
    pub elapsed: Duration,
}

impl Tally {
    /// Answers with images.
    pub fn good(&self) -> u64 {
        self.latencies.len() as u64
    }

    /// Good answers a second.
    pub fn rate(&self) -> f64 {
        self.good() as f64 / self.elapsed.as_secs_f64()
    }

    /// Milliseconds that this share of the good answers took at most.
    pub fn quantile(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last as f64 * share) as usize).map_or(f64::NAN, |micros| f64::from(*micros) / 1000.0)
    }

    fn add(&mut self, other: Self) {
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.bare_refusals += other.bare_refusals;
        self.broken += other.broken;
        self.latencies.extend(other.latencies);
    }
}

/// A kept connection.
pub struct Connection {
    stream: TcpStream,
    bytes: Vec<u8>,
}

/// An answer; its body is in the connection's bytes.
struct Answer {
    status: u16,
    has_retry_after: bool,
    body: std::ops::Range<usize>,
}

fn broken(why: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, why.to_owned())
}

impl Connection {
    /// Connects.
    pub async fn open(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, bytes: Vec::with_capacity(4096) })
    }

    /// Sends a request; the answer's status and body.
    pub async fn ask(&mut self, request: &[u8]) -> std::io::Result<(u16, &[u8])> {
        let answer = self.exchange(request).await?;
        Ok((answer.status, &self.bytes[answer.body]))
    }

    async fn exchange(&mut self, request: &[u8]) -> std::io::Result<Answer> {
        match tokio::time::timeout(PATIENCE, self.exchange_now(request)).await {
            Ok(result) => result,
            Err(_) => Err(broken("no answer in time")),
        }
    }

    async fn exchange_now(&mut self, request: &[u8]) -> std::io::Result<Answer> {
        self.bytes.clear();
        self.stream.write_all(request).await?;
        let (head, mut answer) = loop {
            self.read_more().await?;
            if let Some(end) = self.bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break (end + 4, read_head(&self.bytes[..end])?);
            }
        };
        answer.body = head..head + answer.body.end;
        while self.bytes.len() < answer.body.end {
            self.read_more().await?;
        }
        Ok(answer)
    }

    async fn read_more(&mut self) -> std::io::Result<()> {
        match self.stream.read_buf(&mut self.bytes).await? {
            0 => Err(broken("the connection was closed")),
            _ => Ok(()),
        }
    }
}

/// Status and length of an answer; the body's range begins at zero.
fn read_head(head: &[u8]) -> std::io::Result<Answer> {
    let head = std::str::from_utf8(head).map_err(|_| broken("a head that is no text"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let mut answer = Answer { status: status.ok_or_else(|| broken("no status"))?, has_retry_after: false, body: 0..0 };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            answer.body.end = value.trim().parse().map_err(|_| broken("a length that is no number"))?;
        } else if name.eq_ignore_ascii_case("retry-after") {
            answer.has_retry_after = true;
        }
    }
    Ok(answer)
}

/// The bytes of a request.
pub fn request(method: &str, path: &str, host: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         {headers}\r\n{body}"
    )
    .into_bytes()
}

/// Has `clients` clients repeat a script for `length`, at the addresses in turn; each finishes what it has begun.
pub async fn repeat(addresses: &[String], script: &Script, clients: usize, length: Duration) -> Tally {
    drive(addresses, script, clients, usize::MAX, length).await
}

/// Has `clients` clients send one request each, again where they are refused and told to come back.
pub async fn once(addresses: &[String], script: &Script, clients: usize) -> Tally {
    drive(addresses, script, clients, 1, PATIENCE).await
}

async fn drive(addresses: &[String], script: &Script, clients: usize, times: usize, length: Duration) -> Tally {
    let begin = Instant::now();
    let mut live = JoinSet::new();
    for number in 0..clients {
        let (address, script) = (addresses[number % addresses.len()].clone(), script.clone());
        live.spawn(async move { client(&address, &script, times, begin + length).await });
        // Not all at once: a listener's queue is short.
        if number % 256 == 255 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let mut tally = Tally::default();
    while let Some(done) = live.join_next().await {
        tally.add(done.expect("a client does not panic"));
    }
    tally.elapsed = begin.elapsed();
    tally.latencies.sort_unstable();
    tally
}

async fn client(address: &str, script: &Script, times: usize, until: Instant) -> Tally {
    let mut tally = Tally::default();
    let mut connection = None;
    let mut left = times;
    while left > 0 && Instant::now() < until {
        left -= 1;
        let begin = Instant::now();
        match attempt(address, script, &mut connection).await {
            Ok((status @ 200..=201, _)) => {
                *tally.statuses.entry(status).or_default() += 1;
                tally.latencies.push(u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            Ok((status, has_retry_after)) => {
                *tally.statuses.entry(status).or_default() += 1;
                let refused = matches!(status, 429 | 503);
                tally.bare_refusals += u64::from(refused && !has_retry_after);
                // A client that is refused waits a little, though less than it is told.
                left += usize::from(refused && has_retry_after && times != usize::MAX);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(_) => {
                tally.broken += 1;
                connection = None;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    tally
}

async fn attempt(address: &str, script: &Script, connection: &mut Option<Connection>) -> std::io::Result<(u16, bool)> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(Connection::open(address).await?),
    };
    match script {
        Script::Request(request) => {
            let answer = connection.exchange(request).await?;
            Ok((answer.status, answer.has_retry_after))
        }
        Script::Keyed(request) => {
            let nil = Uuid::nil().to_string();
            let mut keyed = request.to_vec();
            if let Some(at) = keyed.windows(nil.len()).position(|window| window == nil.as_bytes()) {
                keyed[at..at + nil.len()].copy_from_slice(Uuid::now_v7().to_string().as_bytes());
            }
            let answer = connection.exchange(&keyed).await?;
            Ok((answer.status, answer.has_retry_after))
        }
        Script::Queue { submit, path, host } => follow(connection, submit, path, host).await,
    }
}

async fn follow(connection: &mut Connection, submit: &[u8], path: &str, host: &str) -> std::io::Result<(u16, bool)> {
    let (_, body) = connection.ask(submit).await?;
    let body = std::str::from_utf8(body).map_err(|_| broken("a body that is no text"))?;
    let id = body.split("\"request_id\":\"").nth(1).and_then(|rest| rest.split('"').next());
    let place = format!("{path}/requests/{}", id.ok_or_else(|| broken("no request id"))?);
    let status = request("GET", &format!("{place}/status"), host, "authorization: Key bench:bench\r\n", "");
    while connection.exchange(&status).await?.status == 202 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let answer = connection.exchange(&request("GET", &place, host, "authorization: Key bench:bench\r\n", "")).await?;
    Ok((answer.status, answer.has_retry_after))
}
