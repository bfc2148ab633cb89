//! Starts the real binary with its own database and its own stand-in for fal, and talks to it.

use std::borrow::Borrow;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use imagegate::domain::{SystemClock, SystemIds};
use imagegate::sandbox;
use imagegate::store::{Discrepancy, Store, StoreOptions};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

#[path = "../common/tools.rs"]
pub mod tools;

use tools::tool;

/// The admin key of every test's gateway.
pub const ADMIN_KEY: &str = "admin-key-of-the-tests";
/// The project key of every test's gateway.
pub const PROJECT_KEY: &str = "project-key-of-the-tests";

/// Which database a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
}

/// Runs each named test on both databases.
macro_rules! on_both_databases {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name($crate::support::Database::Sqlite).await; })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name($crate::support::Database::Postgres).await; })+
        }
    };
}
pub(crate) use on_both_databases;

/// An HTTP client; `reqwest` is built without a TLS provider of its own.
pub fn client() -> Client {
    client_settings().build().unwrap()
}

/// The same over HTTPS, for servers with a certificate of this authority and no other.
pub fn client_that_trusts(pem: &str) -> Client {
    let authority = reqwest::Certificate::from_pem(pem.as_bytes()).unwrap();
    client_settings().tls_certs_only([authority]).build().unwrap()
}

fn client_settings() -> reqwest::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().timeout(patience(Duration::from_mins(1))).redirect(reqwest::redirect::Policy::none())
}

/// A stand-in for fal that answers after `delay`.
pub fn start_sandbox(delay: Duration) -> sandbox::Running {
    let settings = sandbox::Settings { delay, ..sandbox::Settings::default() };
    sandbox::start(settings, Arc::new(SystemClock), Arc::new(SystemIds)).unwrap()
}

/// A database of the test's own. When the test is over, its books must add up, and no money may still be set aside.
pub struct TestDatabase {
    pub url: String,
    folder: TempDir,
}

impl TestDatabase {
    pub async fn new(kind: Database) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = match kind {
            Database::Sqlite => format!("sqlite://{}", folder.path().join("books.db").display()),
            Database::Postgres => new_postgres_database().await,
        };
        Self { url, folder }
    }

    /// One that is there already.
    pub fn at(url: String) -> Self {
        Self { url, folder: tempfile::tempdir().unwrap() }
    }

    /// The folder of a SQLite file, for what should lie beside it.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Does to the database what no gateway would.
    pub async fn execute(&self, statement: &'static str) {
        use sqlx::Connection;
        if self.url.starts_with("sqlite:") {
            let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
            sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        } else {
            let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
            sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        }
    }

    /// The texts that a query gives, on PostgreSQL.
    pub async fn texts(&self, query: &'static str) -> Vec<String> {
        use sqlx::Connection;
        let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
        sqlx::query_scalar(query).fetch_all(&mut connection).await.unwrap()
    }

    /// What does not add up, and how many holds are open.
    pub async fn check(url: &str) -> (Vec<Discrepancy>, usize) {
        let store = Store::connect(url, StoreOptions::default()).await.unwrap();
        let found = (store.verify().await.unwrap(), store.open_holds(1000).await.unwrap().len());
        store.close().await;
        found
    }
}

impl Drop for TestDatabase {
    /// Every gateway of the test has been dropped before: it was made later.
    fn drop(&mut self) {
        let (url, failed) = (self.url.clone(), std::thread::panicking());
        let checked = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let found = if failed { (Vec::new(), 0) } else { Self::check(&url).await };
                drop_postgres_database(&url).await;
                found
            })
        });
        let checked = checked.join();
        if !failed {
            let (differences, holds) = checked.unwrap();
            assert!(differences.is_empty(), "the books do not add up: {differences:?}");
            assert!(holds == 0, "{holds} holds are open after the test");
        }
    }
}

async fn new_postgres_database() -> String {
    use sqlx::Connection;
    let server = tool("IMAGEGATE_TEST_POSTGRES");
    let name = format!("t_{}", uuid_text());
    let mut connection = sqlx::PgConnection::connect(&server).await.unwrap();
    let statement = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    let (base, _) = server.rsplit_once('/').unwrap();
    format!("{base}/{name}")
}

/// Drops a database of `new_postgres_database`: hundreds of them would fill the disk of a small machine.
async fn drop_postgres_database(url: &str) {
    use sqlx::Connection;
    let Some((_, name)) = url.rsplit_once("/t_") else { return };
    let mut connection = sqlx::PgConnection::connect(&tool("IMAGEGATE_TEST_POSTGRES")).await.unwrap();
    let statement = sqlx::AssertSqlSafe(format!("DROP DATABASE IF EXISTS t_{name} WITH (FORCE)"));
    sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
}

fn uuid_text() -> String {
    use imagegate::domain::IdSource;
    SystemIds.uuid().simple().to_string()
}

/// The real binary, running.
pub struct Gateway {
    child: Child,
    pub base: String,
    pub client: Client,
    log: Arc<Mutex<String>>,
    _folder: TempDir,
}

/// The binary that these tests were built with, also while another build puts a newer one in its place; or the one that
/// `IMAGEGATE_TEST_PROGRAM` names, for trying the build that is measured or released.
fn binary() -> String {
    static BINARY: std::sync::OnceLock<std::fs::File> = std::sync::OnceLock::new();
    let path = tools::setting("IMAGEGATE_TEST_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_imagegate").to_owned());
    if cfg!(target_os = "linux") {
        use std::os::fd::AsRawFd;
        let file = BINARY.get_or_init(|| std::fs::File::open(&path).unwrap());
        return format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    }
    path
}

/// How to start a gateway.
pub struct Start<'a> {
    pub database_url: &'a str,
    pub settings: Vec<(&'static str, String)>,
}

impl<'a> Start<'a> {
    /// With the tests' keys, and fal where `queue_url` says.
    pub fn new(database_url: &'a str, queue_url: &str) -> Self {
        let settings = vec![
            ("IMAGEGATE_ADMIN_KEY", ADMIN_KEY.to_owned()),
            ("IMAGEGATE_BOOTSTRAP_KEY", PROJECT_KEY.to_owned()),
            ("FAL_QUEUE_URL", queue_url.to_owned()),
            ("FAL_REST_URL", queue_url.to_owned()),
            // Where the stand-in has what is another host at fal.
            ("FAL_RUN_URL", format!("{queue_url}/run")),
            ("FAL_API_URL", format!("{queue_url}/v1")),
            ("FAL_KEY", "test:test".to_owned()),
        ];
        Self { database_url, settings }
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.settings.push((name, value.to_owned()));
        self
    }

    /// A command for the binary with these settings and no others, in an empty folder.
    pub fn command(&self, folder: &TempDir) -> Command {
        let mut command = Command::new(binary());
        command
            .env_clear()
            .env("DATABASE_URL", self.database_url)
            .env("IMAGEGATE_BIND", "127.0.0.1:0")
            .env("IMAGEGATE_LOG_FORMAT", "json")
            .env("RUST_BACKTRACE", "1")
            .envs(self.settings.iter().map(|(name, value)| (*name, value.as_str())))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub async fn run(self) -> Gateway {
        let (gateway, log) = self.launch().await;
        gateway.unwrap_or_else(|| panic!("the gateway did not start:\n{}", log.lock().unwrap()))
    }

    /// With its log; no gateway if it does not start, as when the database is away.
    pub async fn launch(self) -> (Option<Gateway>, Arc<Mutex<String>>) {
        let folder = tempfile::tempdir().unwrap();
        let mut child = self.command(&folder).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (found, address) = tokio::sync::oneshot::channel();
        let (stderr, kept) = (child.stderr.take().unwrap(), log.clone());
        std::thread::spawn(move || {
            let mut found = Some(found);
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.contains("imagegate is listening") {
                    let line: Value = serde_json::from_str(&line).unwrap();
                    if let Some(found) = found.take() {
                        let _ = found.send(line["fields"]["address"].as_str().unwrap().to_owned());
                    }
                }
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let address = tokio::time::timeout(patience(Duration::from_secs(30)), address).await;
        let Ok(Ok(address)) = address else {
            let _ = child.kill();
            let _ = child.wait();
            return (None, log);
        };
        let base = format!("http://{address}");
        (Some(Gateway { child, base, client: client(), log: log.clone(), _folder: folder }), log)
    }
}

impl Gateway {
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// As the project.
    pub fn project(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path).bearer_auth(PROJECT_KEY)
    }

    /// `GET /readyz` as an operator, which must be 200.
    pub async fn readiness(&self) -> Value {
        read(self.admin(Method::GET, "/readyz").send().await.unwrap(), StatusCode::OK).await
    }

    /// The value of a metric without labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.admin(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// As the operator.
    pub fn admin(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path).bearer_auth(ADMIN_KEY)
    }

    /// Asks for images as the project.
    pub fn generate(&self, body: &Value) -> RequestBuilder {
        self.project(Method::POST, "/v1/images/generations").json(body)
    }

    /// Every generation in the books, newest first.
    pub async fn generations(&self) -> Vec<Value> {
        let list = self.admin(Method::GET, "/admin/v1/generations?limit=1000").send().await.unwrap();
        read(list, StatusCode::OK).await["data"].as_array().unwrap().clone()
    }

    /// One generation in the books, once it has ended.
    pub async fn ended(&self, id: &str) -> Value {
        eventually(Duration::from_mins(1), || async {
            let answer = self.admin(Method::GET, &format!("/admin/v1/generations/{id}")).send().await.unwrap();
            let generation = read(answer, StatusCode::OK).await;
            (!matches!(generation["state"].as_str(), Some("queued" | "running"))).then_some(generation)
        })
        .await
    }

    /// Changes the terms of the default project.
    pub async fn set_project(&self, terms: &Value) -> Value {
        let answer = self.admin(Method::PATCH, "/admin/v1/projects/default").json(terms).send().await.unwrap();
        read(answer, StatusCode::OK).await
    }

    /// What was logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The log, also after the process has ended.
    pub fn shared_log(&self) -> Arc<Mutex<String>> {
        self.log.clone()
    }

    /// The process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Sends the process a signal, such as `HUP`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.process().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Kills the process as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The same, for one that stays in its place.
    pub fn kill_now(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the process to stop and waits until it has.
    pub async fn stop(mut self) -> i32 {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(started.elapsed() < patience(Duration::from_secs(40)), "it does not stop:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A gateway with its own database and its own stand-in that answers at once.
pub struct House {
    pub gateway: Gateway,
    pub fal: sandbox::Running,
    pub database: TestDatabase,
}

impl House {
    pub async fn new(kind: Database) -> Self {
        Self::with(kind, Duration::ZERO, &[]).await
    }

    pub async fn with(kind: Database, delay: Duration, settings: &[(&'static str, &str)]) -> Self {
        let database = TestDatabase::new(kind).await;
        let fal = start_sandbox(delay);
        let mut start = Start::new(&database.url, &fal.queue_url());
        for (name, value) in settings {
            start = start.with(name, value);
        }
        let gateway = start.run().await;
        Self { gateway, fal, database }
    }

    /// One more replica on the same database, with the same stand-in.
    pub async fn another(&self) -> Gateway {
        Start::new(&self.database.url, &self.fal.queue_url()).run().await
    }

    /// What reached the stand-in.
    pub async fn fal_state(&self) -> Value {
        fal_state(&self.fal).await
    }

    /// Adds rules by which the stand-in misbehaves.
    pub async fn misbehave(&self, rules: impl Borrow<Value>) {
        misbehave(&self.fal, rules.borrow().clone()).await;
    }

    /// Asks as the project and gives status and body.
    pub async fn ask(&self, body: &Value) -> (u16, Value) {
        let answer = self.gateway.generate(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

/// Adds rules by which a stand-in misbehaves.
pub async fn misbehave(fal: &sandbox::Running, rules: Value) {
    let answer = client().post(format!("{}/__sandbox/behaviour", fal.queue_url())).json(&rules).send().await.unwrap();
    read(answer, StatusCode::OK).await;
}

/// A local port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What reached a stand-in.
pub async fn fal_state(fal: &sandbox::Running) -> Value {
    let answer = client().get(format!("{}/__sandbox/state", fal.queue_url())).send().await.unwrap();
    read(answer, StatusCode::OK).await
}

/// What a Python script says, with `input` at its standard input.
pub async fn python(script: &str, input: &str) -> String {
    let python = tool("IMAGEGATE_TEST_PYTHON");
    let (script, input) = (script.to_owned(), input.to_owned());
    let run = move || {
        use std::io::Write;
        let mut child = Command::new(python)
            .args(["-c", &script])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        said
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// An answer's body, after its status was checked.
pub async fn read(answer: Response, status: StatusCode) -> Value {
    let (got, path) = (answer.status(), answer.url().path().to_owned());
    let text = answer.text().await.unwrap();
    assert_eq!(got, status, "{path}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path} did not answer JSON: {text}"))
}

/// The seed document's request.
pub fn t_rex() -> Value {
    json!({
        "prompt": "A T-Rex relaxing on a beach, lying on a sun lounger and wearing sunglasses.",
        "model": "flux-realism",
        "image_size": {"width": 1472, "height": 512}
    })
}

/// A number that is told to the tests from outside, such as how long they may last.
pub fn number(name: &str, default: u64) -> u64 {
    tools::setting(name).and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// How many times slower than a good machine a machine may be that runs these tests.
const SLOWEST: u32 = 10;

/// How long to wait for what takes `usual` on a good machine. Only what would never happen is cut off by it.
pub fn patience(usual: Duration) -> Duration {
    usual * SLOWEST
}

/// Asks until there is an answer, which takes at most `usual` on a good machine and may take far longer on a slow one.
pub async fn eventually<T, F: Future<Output = Option<T>>>(usual: Duration, ask: impl Fn() -> F) -> T {
    let (limit, started) = (patience(usual), Instant::now());
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < limit, "it did not happen within {limit:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
