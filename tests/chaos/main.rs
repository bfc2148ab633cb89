//! Everything breaks at once: gateways are killed and paused, their clocks are off and their disks are full for a while, the
//! database restarts and stands still, the network between them delays, falls silent, cuts and half-closes, fal misbehaves,
//! clients hang up and come again. Afterwards each image that fal delivered is charged once, or known as our cost, and can be
//! fetched; no attempt is missing, no money is set aside, the ledger adds up, and every client with an idempotency key has had
//! its image or a final answer, each answer within the deadline but for the time that something was broken.
//!
//! A short run with a fixed seed by default; `IMAGEGATE_CHAOS_SECONDS` makes it longer, `IMAGEGATE_CHAOS_SEED` another.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it stands")]
#![expect(clippy::print_stdout, reason = "a run that failed is repeated by its seed")]

#[path = "../common/machine.rs"]
mod machine;
#[path = "../api/postgres.rs"]
#[expect(dead_code, reason = "shared with the tests of the HTTP face")]
mod postgres;
#[path = "../common/proxy.rs"]
#[expect(dead_code, reason = "shared with the tests of the HTTP face")]
mod proxy;
#[path = "../api/support.rs"]
#[expect(dead_code, unused_macros, unused_imports, reason = "shared with the tests of the HTTP face")]
mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use imagegate::domain::Money;
use machine::{clock_off, limit_files};
use postgres::PrivatePostgres;
use proxy::{Mode, Proxy};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use support::{
    Database, Gateway, PROJECT_KEY, Start, TestDatabase, eventually, fal_state, number, read, start_sandbox,
};

/// How many clients ask all the time.
const CLIENTS: u64 = 6;
/// How long a request may take: longer ones are cancelled or expire.
const DEADLINE: Duration = Duration::from_secs(6);
/// How much longer an answer may take than the deadline and what was broken meanwhile: until a replica takes over what
/// another one left, and for a slow machine.
const LEEWAY: Duration = Duration::from_secs(20);
/// How long a client with an idempotency key tries, beside the time that something is broken: a try may expire, and the next
/// one is another generation.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long everything may take to come to rest.
const REST: Duration = Duration::from_mins(1);

/// Numbers that look random and are the same for the same seed (`SplitMix64`).
#[derive(Debug, Clone)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// What the clients and the one who breaks things share.
struct Arena {
    /// Where the gateways listen now.
    bases: Mutex<Vec<String>>,
    over: AtomicBool,
    /// Generations that a client has the images of.
    received: Mutex<BTreeMap<String, Received>>,
    asked: AtomicU64,
    /// Requests with an idempotency key that never came to an end.
    unanswered: Mutex<Vec<String>>,
    /// Answers to requests with an idempotency key that took longer than they may.
    late: Mutex<Vec<String>>,
    /// The gateways' processes now.
    processes: Mutex<Vec<u32>>,
    /// From when until when something was broken.
    broken: Mutex<Vec<(Instant, Option<Instant>)>>,
}

impl Arena {
    /// Notes that something is broken as long as this lasts.
    async fn while_broken<T>(&self, fault: impl Future<Output = T>) -> T {
        let place = {
            let mut broken = self.broken.lock().unwrap();
            broken.push((Instant::now(), None));
            broken.len() - 1
        };
        let result = fault.await;
        self.broken.lock().unwrap()[place].1 = Some(Instant::now());
        result
    }

    /// For how long something was broken since then.
    fn broken_since(&self, since: Instant) -> Duration {
        let now = Instant::now();
        let mut spans: Vec<_> = self.broken.lock().unwrap().clone();
        spans.sort_unstable();
        let (mut counted, mut sum) = (since, Duration::ZERO);
        for (begin, end) in spans {
            let (begin, end) = (begin.max(counted), end.unwrap_or(now));
            if end > begin {
                sum += end - begin;
                counted = end;
            }
        }
        sum
    }

    /// Whether nothing is broken any more and no client asks for another image.
    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

/// How often a client got the images of a generation.
#[derive(Debug, Clone, Copy, Default)]
struct Received {
    times: u32,
    /// Whether it asked with an idempotency key.
    with_key: bool,
}

/// One client: an image after the other, each with a key and as often as it takes, or as OpenAI's SDK without one.
async fn live(arena: Arc<Arena>, number: u64, seed: u64) {
    let mut dice = Dice(seed ^ (number << 32));
    let client = support::client();
    for round in 0_u64.. {
        if arena.is_over() {
            return;
        }
        arena.asked.fetch_add(1, Ordering::SeqCst);
        let key = (dice.roll(3) > 0).then(|| format!("client-{number}-{round}"));
        let begin = Instant::now();
        for count in 0.. {
            let reason = match ask(&arena, &client, &mut dice, key.as_deref(), number, count).await {
                Ok(id) => {
                    if let Some(id) = id {
                        let mut received = arena.received.lock().unwrap();
                        let received = received.entry(id).or_default();
                        received.times += 1;
                        received.with_key |= key.is_some();
                    }
                    break;
                }
                Err(reason) => reason,
            };
            if key.is_none() && count == 2 {
                break;
            }
            let (took, broken) = (begin.elapsed(), arena.broken_since(begin));
            if let Some(key) = key.as_ref().filter(|_| took > broken + PATIENCE) {
                let text =
                    format!("{key}: {count} tries in {took:?}, of which something was broken for {broken:?}: {reason}");
                arena.unanswered.lock().unwrap().push(text);
                break;
            }
            tokio::time::sleep(Duration::from_millis(50 + dice.roll(250))).await;
        }
    }
}

/// One try: the end, with the generation if there is an image, or why to come again.
async fn ask(
    arena: &Arena,
    client: &Client,
    dice: &mut Dice,
    key: Option<&str>,
    number: u64,
    count: u32,
) -> Result<Option<String>, String> {
    let base = {
        let bases = arena.bases.lock().unwrap();
        bases[usize::try_from(dice.roll(bases.len() as u64)).unwrap()].clone()
    };
    let body = json!({"model": "flux/dev", "prompt": format!("client {number}"), "n": 1 + number % 2});
    let mut request = client.post(format!("{base}/v1/images/generations")).bearer_auth(PROJECT_KEY).json(&body);
    request = match key {
        Some(key) => request.header("idempotency-key", key),
        None => request.header("x-stainless-retry-count", count.to_string()),
    };
    // Now and then the client is impatient.
    let is_patient = dice.roll(5) > 0;
    let patience = if is_patient { 60_000 } else { 100 + dice.roll(600) };
    let asked = Instant::now();
    let answer = request.timeout(Duration::from_millis(patience)).send().await;
    let (took, broken) = (asked.elapsed(), arena.broken_since(asked));
    if let Some(key) = key.filter(|_| is_patient && took > broken + DEADLINE + LEEWAY) {
        let text = format!("{key}: {took:?}, of which something was broken for {broken:?}: {answer:?}");
        arena.late.lock().unwrap().push(text);
    }
    let answer = answer.map_err(|error| format!("{error:?}"))?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let id = headers.get("x-imagegate-generation-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    // Half an answer is no answer.
    let text = answer.text().await.map_err(|error| format!("{error:?}"))?;
    match status {
        StatusCode::CREATED => {
            let body: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(body["images"].as_array().unwrap().len() as u64, 1 + number % 2);
            Ok(id)
        }
        // Nobody knows what became of it, and never will: it is replayed for ever.
        StatusCode::GATEWAY_TIMEOUT if headers.contains_key("idempotent-replayed") => Ok(None),
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            Err(format!("{status}: {text}"))
        }
        // Cancelled because its client had left.
        StatusCode::BAD_REQUEST if text.contains("was cancelled") => Err(text),
        status => panic!("{status}: {text}"),
    }
}

/// How fal goes wrong the next time.
fn misfortune(dice: &mut Dice) -> Value {
    let misfortunes = [
        json!({"times": 1, "at": "submit", "do": {"drop_connection": true, "after": true}}),
        json!({"times": 2, "at": "submit", "do": {"status": 503}}),
        json!({"times": 1, "at": "submit", "do": {"hang_ms": 700}}),
        json!({"times": 3, "at": "status", "do": {"status": 500}}),
        json!({"times": 2, "at": "status", "do": {"half_answer": true}}),
        json!({"times": 1, "at": "result", "do": {"drop_connection": true}}),
        json!({"times": 1, "at": "result", "do": {"slow_body_ms": 500}}),
        json!({"times": 1, "at": "submit", "do": {"fail": {"status": 500}}}),
        json!({"times": 1, "at": "submit", "do": {"queue_ms": 3000, "run_ms": 200}}),
        json!({"times": 1, "at": "submit", "do": {"queue_ms": 0, "run_ms": 8000}}),
        json!({"times": 1, "at": "cancel", "do": {"drop_connection": true, "after": true}}),
    ];
    misfortunes[usize::try_from(dice.roll(misfortunes.len() as u64)).unwrap()].clone()
}

/// The database, and how it is made to fail for a while.
enum Books {
    Postgres(PrivatePostgres),
    Sqlite(String),
}

impl Books {
    async fn fail(&self, dice: &mut Dice) {
        let a_while = Duration::from_millis(300 + dice.roll(2500));
        match self {
            Self::Postgres(server) if dice.roll(2) == 0 => {
                server.pause();
                tokio::time::sleep(a_while).await;
                server.go_on();
            }
            Self::Postgres(server) => {
                server.stop();
                tokio::time::sleep(a_while / 4).await;
                server.start_again();
            }
            Self::Sqlite(url) => {
                use sqlx::Connection;
                let mut lock = sqlx::SqliteConnection::connect(url).await.unwrap();
                sqlx::raw_sql("PRAGMA busy_timeout = 30000; BEGIN IMMEDIATE").execute(&mut lock).await.unwrap();
                tokio::time::sleep(a_while).await;
                sqlx::raw_sql("ROLLBACK").execute(&mut lock).await.unwrap();
            }
        }
    }
}

/// Sends a process a signal; one that has just been killed does not hear it.
fn signal(process: u32, name: &str) {
    let _ = std::process::Command::new("kill").args(["-s", name, &process.to_string()]).status();
}

/// Pauses one gateway after the other: for a moment, or until it is taken for dead. How often.
async fn pause_gateways(arena: &Arena, seed: u64) -> usize {
    let (mut dice, mut pauses) = (Dice(seed ^ 0x70), 0);
    while !arena.is_over() {
        tokio::time::sleep(Duration::from_millis(200 + dice.roll(1500))).await;
        let process = {
            let processes = arena.processes.lock().unwrap();
            processes[usize::try_from(dice.roll(processes.len() as u64)).unwrap()]
        };
        let a_while = Duration::from_millis(if dice.roll(3) == 0 { 9_000 } else { 200 + dice.roll(3000) });
        let pause = async {
            signal(process, "STOP");
            tokio::time::sleep(a_while).await;
            signal(process, "CONT");
        };
        arena.while_broken(pause).await;
        pauses += 1;
    }
    pauses
}

/// Has the lines between gateways and database misbehave. How often.
async fn bend_wires(arena: &Arena, wires: &[Proxy], seed: u64) -> usize {
    let (mut dice, mut faults) = (Dice(seed ^ 0x77), 0);
    while !arena.is_over() && !wires.is_empty() {
        tokio::time::sleep(Duration::from_millis(200 + dice.roll(1500))).await;
        let wire = &wires[usize::try_from(dice.roll(wires.len() as u64)).unwrap()];
        let fault = dice.roll(6);
        let a_while = Duration::from_millis(if dice.roll(4) == 0 { 9_000 } else { 200 + dice.roll(2000) });
        let bent = async {
            match fault {
                0 => wire.set(Mode::Slow(400)),
                1 => wire.set(Mode::Silent),
                2 => wire.cut(),
                3 => wire.half_close(),
                4 => wire.lose_commit(1, Mode::Open),
                _ => wire.lose_commit(1, Mode::Refusing),
            }
            tokio::time::sleep(a_while).await;
            wire.lose_commit(0, Mode::Open);
            wire.set(Mode::Open);
        };
        arena.while_broken(bent).await;
        faults += 1;
    }
    faults
}

/// Fills the disk of one gateway after the other for a while: the journal's, and the database's if that is a file. How often.
async fn fill_disks(arena: &Arena, database: &str, seed: u64) -> usize {
    let (mut dice, mut filled) = (Dice(seed ^ 0xd1), 0);
    let log = database.strip_prefix("sqlite://").map(|file| format!("{file}-wal"));
    while !arena.is_over() {
        tokio::time::sleep(Duration::from_millis(1000 + dice.roll(3000))).await;
        let process = {
            let processes = arena.processes.lock().unwrap();
            processes[usize::try_from(dice.roll(processes.len() as u64)).unwrap()]
        };
        // As long as the log is now, or half a line of the journal.
        let length = log.as_ref().and_then(|log| std::fs::metadata(log).ok()).map_or(200, |log| log.len());
        let a_while = Duration::from_millis(300 + dice.roll(2500));
        let full = async {
            limit_files(process, &length.to_string());
            tokio::time::sleep(a_while).await;
            limit_files(process, "unlimited");
        };
        arena.while_broken(full).await;
        filled += 1;
    }
    filled
}

/// The database, and what makes it fail.
async fn set_up(kind: Database) -> (TestDatabase, Books) {
    match kind {
        Database::Postgres => {
            let server = PrivatePostgres::start();
            (TestDatabase::at(server.url()), Books::Postgres(server))
        }
        Database::Sqlite => {
            let database = TestDatabase::new(kind).await;
            let books = Books::Sqlite(database.url.clone());
            (database, books)
        }
    }
}

/// Starts a gateway whose clock is off by some seconds, as soon as the database lets it.
async fn start_gateway(database: &str, fal: &str, journal: &str, seconds: i64) -> Gateway {
    for _ in 0..50 {
        let mut start = Start::new(database, fal)
            .with("IMAGEGATE_JOURNAL", journal)
            .with("IMAGEGATE_DEADLINE", &format!("{}s", DEADLINE.as_secs()));
        if seconds != 0 {
            start = clock_off(start, seconds);
        }
        if let (Some(gateway), _) = start.launch().await {
            return gateway;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("no gateway starts any more");
}

async fn break_everything(kind: Database) {
    let seed = number("IMAGEGATE_CHAOS_SEED", 20_261_121);
    let length = Duration::from_secs(number("IMAGEGATE_CHAOS_SECONDS", 20));
    println!("IMAGEGATE_CHAOS_SEED={seed} IMAGEGATE_CHAOS_SECONDS={}", length.as_secs());
    let mut dice = Dice(seed);
    let (database, books) = set_up(kind).await;
    let fal = start_sandbox(Duration::from_millis(300));
    let journal = database.folder().join("journal").display().to_string();
    let replicas = if kind == Database::Postgres { 2 } else { 1 };
    // Each gateway has a wire of its own; SQLite is a file.
    let mut wires = Vec::new();
    while kind == Database::Postgres && wires.len() < replicas {
        wires.push(Proxy::to(&database.url).await);
    }
    let start = async |which: usize, seconds: i64| {
        let url = wires.get(which).map_or_else(|| database.url.clone(), |wire| wire.address(&database.url));
        start_gateway(&url, &fal.queue_url(), &journal, seconds).await
    };
    let mut gateways: Vec<Gateway> = Vec::new();
    for which in 0..replicas {
        gateways.push(start(which, 0).await);
    }
    let arena = Arc::new(Arena {
        bases: Mutex::new(gateways.iter().map(|gateway| gateway.base.clone()).collect()),
        over: AtomicBool::new(false),
        received: Mutex::default(),
        asked: AtomicU64::new(0),
        unanswered: Mutex::default(),
        late: Mutex::default(),
        broken: Mutex::default(),
        processes: Mutex::new(gateways.iter().map(Gateway::process).collect()),
    });
    let clients: Vec<_> = (0..CLIENTS).map(|number| live(arena.clone(), number, seed)).collect();
    let clients = futures_util::future::join_all(clients);

    let (mut kills, mut failures) = (0_usize, 0);
    let breaking = async {
        let begin = Instant::now();
        // On a slow machine it takes longer until enough has happened.
        let enough = |kills| kills > 0 && arena.received.lock().unwrap().len() > 5;
        while begin.elapsed() < length || !enough(kills) && begin.elapsed() < length * 10 {
            tokio::time::sleep(Duration::from_millis(100 + dice.roll(900))).await;
            match dice.roll(5) {
                0 | 1 => {
                    let which = usize::try_from(dice.roll(replicas as u64)).unwrap();
                    // A database server's clock decides, not that of each machine.
                    let seconds = match kind {
                        Database::Postgres => [0, -40, -12, 12, 40][usize::try_from(dice.roll(5)).unwrap()],
                        Database::Sqlite => 0,
                    };
                    gateways[which].kill_now();
                    let gateway = arena.while_broken(start(which, seconds)).await;
                    arena.processes.lock().unwrap()[which] = gateway.process();
                    arena.bases.lock().unwrap()[which].clone_from(&gateway.base);
                    gateways[which] = gateway;
                    kills += 1;
                }
                2 => {
                    arena.while_broken(books.fail(&mut dice)).await;
                    failures += 1;
                }
                _ => {
                    let url = format!("{}/__sandbox/behaviour", fal.queue_url());
                    support::client().post(url).json(&misfortune(&mut dice)).send().await.unwrap();
                }
            }
        }
        let url = format!("{}/__sandbox/behaviour", fal.queue_url());
        support::client().delete(url).send().await.unwrap();
        arena.over.store(true, Ordering::SeqCst);
    };
    let (_, (), pauses, faults, filled) = tokio::join!(
        clients,
        breaking,
        pause_gateways(&arena, seed),
        bend_wires(&arena, &wires, seed),
        fill_disks(&arena, &database.url, seed)
    );

    // Then it comes to rest by itself.
    eventually(REST, || async {
        let (differences, open) = TestDatabase::check(&database.url).await;
        assert!(differences.is_empty(), "seed {seed}: {differences:?}");
        (open == 0).then_some(())
    })
    .await;
    let asked = arena.asked.load(Ordering::SeqCst);
    let received = arena.received.lock().unwrap().clone();
    println!(
        "{kills} kills, {pauses} pauses, {filled} full disks, {failures} failures of the database and {faults} of its network, {asked} images asked for, {} received",
        received.len()
    );
    let unanswered = arena.unanswered.lock().unwrap().clone();
    assert!(unanswered.is_empty(), "seed {seed}: clients with a key have no final answer: {unanswered:#?}");
    let late = arena.late.lock().unwrap().clone();
    assert!(late.is_empty(), "seed {seed}: answers came too late: {late:#?}");
    all_is_known(&gateways[0], &fal, seed).await;
    adds_up(&gateways[0], &fal_state(&fal).await, &received, seed).await;
    // That a client has its answer is written after it has it. One who asks without a key, is answered, asks for the same again
    // and meets a gateway that was killed or held up in between gets the first image again: paid once for two, never twice for
    // one.
    let again = received.values().filter(|received| received.times > 1).count();
    let held_up = kills + pauses + failures + faults + filled;
    assert!(again <= held_up, "seed {seed}: {again} generations answered two requests after {held_up} interruptions");
    assert!(kills > 0 && received.len() > 5, "seed {seed}: too little happened");
    drop(gateways);
    drop(database);
    drop(books);
}

/// Whether a generation's images can be fetched: it succeeded and is charged, or fal finished it after its end, at our cost.
fn has_images(row: &Value) -> bool {
    row["state"] == "succeeded" || row["cost_usd"] != "0.000000000"
}

/// Waits until what fal has delivered is in the books, also what it delivered late.
async fn all_is_known(gateway: &Gateway, fal: &imagegate::sandbox::Running, seed: u64) {
    let begin = Instant::now();
    loop {
        let rows = all_generations(gateway).await;
        let cost = |row: &Value| row["cost_usd"].as_str().unwrap().parse::<Money>().unwrap();
        // An image of this model's own size costs 0.025 dollars.
        let booked: i64 = rows.iter().map(|row| cost(row).nanos() / 25_000_000).sum();
        let delivered = fal_state(fal).await["delivered_images"].as_i64().unwrap();
        if booked == delivered {
            return;
        }
        assert!(begin.elapsed() < REST, "seed {seed}: fal delivered {delivered} images, and {booked} are booked");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The three counts are one: what fal delivered, what is charged or our cost, what was received or can be fetched.
async fn adds_up(gateway: &Gateway, fal: &Value, received: &BTreeMap<String, Received>, seed: u64) {
    let rows = all_generations(gateway).await;
    let succeeded: Vec<_> = rows.iter().filter(|row| row["state"] == "succeeded").collect();
    let mut fetchable = 0;
    let mut charged = Money::ZERO;
    for row in rows.iter().filter(|row| has_images(row)) {
        let id = row["id"].as_str().unwrap();
        assert!(row["fal_request_id"].is_string(), "seed {seed}: {id} has cost something and has no attempt");
        let path = format!("/v1/images/generations/{id}");
        let fetched = read(gateway.project(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await;
        fetchable += fetched["images"].as_array().unwrap().len() as u64;
        charged = charged.checked_add(row["price_usd"].as_str().unwrap().parse().unwrap()).unwrap();
    }
    assert_eq!(fal["delivered_images"], fetchable, "seed {seed}: fal delivered others than can be fetched");
    let project = read(gateway.admin(Method::GET, "/admin/v1/projects/default").send().await.unwrap(), StatusCode::OK);
    let project = project.await;
    assert_eq!(project["spent_this_month_usd"], charged.to_string(), "seed {seed}");
    assert_eq!(project["held_usd"], "0.000000000", "seed {seed}");
    assert!(rows.iter().all(|row| row["state"] == "succeeded" || row["price_usd"] == "0.000000000"), "seed {seed}");
    for (id, Received { times, with_key }) in received {
        assert!(*times == 1 || !with_key, "seed {seed}: generation {id} answered {times} different requests");
        assert!(
            succeeded.iter().any(|row| row["id"] == id.as_str()),
            "seed {seed}: {id} was received and is not charged"
        );
    }
    let accepted = fal["accepted_submits"].as_u64().unwrap();
    assert!(accepted <= rows.len() as u64, "seed {seed}: {accepted} submits for {} generations", rows.len());
    let mut ids: Vec<_> = rows.iter().filter_map(|row| row["fal_request_id"].as_str()).collect();
    let known = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), known, "seed {seed}: two generations share a submit");
}

async fn all_generations(gateway: &Gateway) -> Vec<Value> {
    let (mut rows, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/admin/v1/generations?limit=1000{after}");
        let page = read(gateway.admin(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await;
        rows.extend(page["data"].as_array().unwrap().iter().cloned());
        if page["has_more"] == false {
            return rows;
        }
        after = format!("&after={}", page["last_id"].as_str().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_nothing_paid_twice_on_sqlite() {
    break_everything(Database::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_nothing_paid_twice_with_two_replicas_on_postgres() {
    break_everything(Database::Postgres).await;
}
