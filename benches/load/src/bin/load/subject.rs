//! What is measured: a process that listens, with a database of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use super::client::{Connection as Http, Script, request};
use super::machine;

/// The key that clients use, and the operators' one.
pub const KEY: &str = "sk-bench-0123456789abcdef0123456789abcdef";
const ADMIN_KEY: &str = "ak-bench-0123456789abcdef0123456789abcdef";

/// Where the programs are, and what they share.
pub struct Bench {
    /// Folder of the benchmark's own programs.
    pub programs: PathBuf,
    /// The gateway's program.
    pub gateway: PathBuf,
    /// `postgres://user@host:port/`, without a database.
    pub server: String,
    /// Where databases, logs and files go.
    pub work: PathBuf,
    /// Where the stand-in for fal listens.
    pub fal: String,
}

/// What may be measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// fal's queue without anything before it.
    Direct,
    /// The floor without a database.
    FloorWithoutBooks,
    /// The floor with one call instead of the queue, and two writes instead of three.
    FloorOneCall,
    /// The floor.
    Floor,
    /// The gateway on PostgreSQL, every limit switched on.
    Gateway,
    /// The same, asked as OpenAI's SDKs ask: they say how often they have sent a request before.
    GatewayForSdks,
    /// The same, asked with a new `Idempotency-Key` each time.
    GatewayWithKeys,
    /// Two of them on one database.
    TwoGateways,
    /// Three of them on one database.
    ThreeGateways,
    /// The gateway on SQLite, every limit switched on.
    GatewayOnSqlite,
}

impl Kind {
    /// The name in tables and arguments.
    pub const ALL: [(&'static str, Self); 10] = [
        ("direct", Self::Direct),
        ("floor-without-books", Self::FloorWithoutBooks),
        ("floor-one-call", Self::FloorOneCall),
        ("floor", Self::Floor),
        ("gateway", Self::Gateway),
        ("gateway-sdks", Self::GatewayForSdks),
        ("gateway-keys", Self::GatewayWithKeys),
        ("gateway-2", Self::TwoGateways),
        ("gateway-3", Self::ThreeGateways),
        ("gateway-sqlite", Self::GatewayOnSqlite),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    /// Whether PostgreSQL works for it.
    pub fn uses_postgres(self) -> bool {
        !matches!(self, Self::Direct | Self::FloorWithoutBooks | Self::GatewayOnSqlite)
    }

    /// How many processes it is.
    fn replicas(self) -> usize {
        match self {
            Self::Direct => 0,
            Self::TwoGateways => 2,
            Self::ThreeGateways => 3,
            _ => 1,
        }
    }
}

/// A running process that is stopped when it is dropped.
pub struct Subject {
    /// What it is.
    pub kind: Kind,
    /// Where requests go.
    pub addresses: Vec<String>,
    /// From its start to its first good answer, on a migrated database; nothing for what is no process.
    pub cold_start: Option<Duration>,
    children: Vec<Child>,
    database: String,
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.children.iter_mut().for_each(stop);
    }
}

/// Tells a process to end and waits until it has.
pub fn stop(child: &mut Child) {
    let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(20) {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// An address on this machine that nobody uses now.
pub fn free_address() -> std::io::Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// Starts a program with its output in a file.
pub fn start(program: &Path, arguments: &[&str], settings: &[(&str, &str)], log: &Path) -> std::io::Result<Child> {
    let log = File::options().create(true).append(true).open(log)?;
    Command::new(program)
        .args(arguments)
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

impl Bench {
    /// What a client of this subject sends.
    pub fn script(&self, subject: &Subject, large: bool) -> Script {
        const WISH: &str = r#""prompt":"A lighthouse on a basalt cliff at dusk, long exposure, volumetric light, 35mm film look","num_images":1,"image_size":{"width":1024,"height":1024}"#;
        if subject.kind == Kind::Direct {
            let (path, host) = ("/fal-ai/flux-1/schnell", self.fal.as_str());
            let submit = request("POST", path, host, "authorization: Key bench:bench\r\n", &format!("{{{WISH}}}"));
            return Script::Queue { submit: submit.into(), path: path.into(), host: host.into() };
        }
        let format = if large { r#","response_format":"b64_json""# } else { "" };
        let body = format!(r#"{{"model":"flux/schnell",{WISH}{format}}}"#);
        let more = match subject.kind {
            Kind::GatewayForSdks => "x-stainless-retry-count: 0\r\n".to_owned(),
            Kind::GatewayWithKeys => format!("idempotency-key: {}\r\n", Uuid::nil()),
            _ => String::new(),
        };
        let headers = format!("authorization: Bearer {KEY}\r\n{more}");
        let request = request("POST", "/v1/images/generations", &subject.addresses[0], &headers, &body);
        match subject.kind {
            Kind::GatewayWithKeys => Script::Keyed(request.into()),
            _ => Script::Request(request.into()),
        }
    }

    /// A request for the gateway with an embedded picture of 12 MiB, 16 MiB in base64.
    pub fn large_input(&self, subject: &Subject) -> Script {
        // What a header tells of a PNG of 1024 × 1024, and zeros, which nobody decodes on the way.
        let header = "iVBORw0KGgoAAAANSUhEUgAABAAAAAQACAIAAADwf7zUAL8AAElEQVR4";
        let zeros = "A".repeat(16 * 1024 * 1024 - header.len());
        let body = format!(
            r#"{{"model":"flux/dev/image-to-image","prompt":"a harbour","image_url":"data:image/png;base64,{header}{zeros}"}}"#
        );
        let key = format!("authorization: Bearer {KEY}\r\n");
        Script::Request(request("POST", "/v1/images/generations", &subject.addresses[0], &key, &body).into())
    }

    /// Starts what is to be measured, with a new database, and gives it limits that it must keep and never reaches.
    pub async fn subject(&self, kind: Kind) -> Result<Subject, Box<dyn std::error::Error>> {
        let address = free_address()?;
        let name = kind.name().replace('-', "_");
        let log = self.work.join(format!("{name}.log"));
        let fal = format!("http://{}", self.fal);
        let database = match kind {
            Kind::GatewayOnSqlite => {
                let folder = self.work.join(format!("{name}-{}", address.rsplit(':').next().unwrap_or_default()));
                std::fs::create_dir_all(&folder)?;
                format!("sqlite://{}", folder.join("imagegate.db").display())
            }
            _ if kind.uses_postgres() => self.new_database(&name).await?,
            _ => String::new(),
        };
        let addresses = vec![address.clone()];
        let mut subject = Subject { kind, addresses, cold_start: None, children: Vec::new(), database };
        match kind {
            Kind::Direct => {
                subject.addresses = vec![self.fal.clone()];
                return Ok(subject);
            }
            Kind::Floor | Kind::FloorOneCall | Kind::FloorWithoutBooks => {
                let mut arguments = if kind == Kind::FloorOneCall { vec!["--one-call"] } else { Vec::new() };
                arguments.extend([address.as_str(), &fal, KEY]);
                arguments.extend(kind.uses_postgres().then_some(subject.database.as_str()));
                let begin = Instant::now();
                subject.children.push(start(&self.programs.join("floor"), &arguments, &[], &log)?);
                self.first_answer(&mut subject, begin).await?;
            }
            Kind::Gateway
            | Kind::GatewayForSdks
            | Kind::GatewayWithKeys
            | Kind::TwoGateways
            | Kind::ThreeGateways
            | Kind::GatewayOnSqlite => {
                let journal = self.work.join("journal").display().to_string();
                let database = subject.database.clone();
                let mut settings = [
                    ("IMAGEGATE_BIND", address.as_str()),
                    ("DATABASE_URL", database.as_str()),
                    ("IMAGEGATE_JOURNAL", &journal),
                    ("IMAGEGATE_ADMIN_KEY", ADMIN_KEY),
                    ("IMAGEGATE_BOOTSTRAP_KEY", KEY),
                    ("FAL_KEY", "bench:bench"),
                    ("FAL_QUEUE_URL", &fal),
                    ("FAL_RUN_URL", &fal),
                    ("FAL_REST_URL", &fal),
                    ("FAL_MEDIA_HOSTS", "127.0.0.1"),
                ];
                // A first life makes the tables and sets the limits; the one that is measured finds them.
                subject.children.push(start(&self.gateway, &["serve"], &settings, &log)?);
                self.first_answer(&mut subject, Instant::now()).await?;
                set_limits(&address).await?;
                subject.children.iter_mut().for_each(stop);
                subject.children.clear();
                let begin = Instant::now();
                subject.children.push(start(&self.gateway, &["serve"], &settings, &log)?);
                self.first_answer(&mut subject, begin).await?;
                let others: Vec<String> = (1..kind.replicas()).map(|_| free_address()).collect::<Result<_, _>>()?;
                for other in &others {
                    settings[0].1 = other;
                    subject.children.push(start(&self.gateway, &["serve"], &settings, &log)?);
                    while Http::open(other).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
                subject.addresses.extend(others);
            }
        }
        Ok(subject)
    }

    async fn first_answer(&self, subject: &mut Subject, begin: Instant) -> Result<(), Box<dyn std::error::Error>> {
        let (Script::Request(request) | Script::Keyed(request)) = self.script(subject, false) else { return Ok(()) };
        let mut last = String::from("no answer");
        while begin.elapsed() < Duration::from_secs(60) {
            if let Ok(mut connection) = Http::open(&subject.addresses[0]).await
                && let Ok((status, body)) = connection.ask(&request).await
            {
                if matches!(status, 200 | 201) {
                    subject.cold_start = Some(begin.elapsed());
                    return Ok(());
                }
                last = format!("{status}: {}", String::from_utf8_lossy(body));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Err(format!("{} gives no image: {last}", subject.kind.name()).into())
    }

    async fn new_database(&self, name: &str) -> Result<String, sqlx::Error> {
        let mut server = PgConnection::connect(&format!("{}postgres", self.server)).await?;
        for statement in [
            format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
            format!("CREATE DATABASE {name}"),
            "CHECKPOINT".into(),
        ] {
            sqlx::query(AssertSqlSafe(statement)).execute(&mut server).await?;
        }
        server.close().await?;
        Ok(format!("{}{name}", self.server))
    }

    /// How many generations the books charge; nothing for what has no books on PostgreSQL.
    pub async fn charged(&self, subject: &Subject) -> Result<Option<u64>, sqlx::Error> {
        let count = match subject.kind {
            Kind::Gateway | Kind::GatewayForSdks | Kind::GatewayWithKeys | Kind::TwoGateways | Kind::ThreeGateways => {
                "SELECT COUNT(*) FROM ledger_transactions WHERE kind = 'settlement'"
            }
            Kind::Floor | Kind::FloorOneCall => "SELECT COUNT(*) FROM requests WHERE state = 'settled'",
            _ => return Ok(None),
        };
        let mut connection = PgConnection::connect(&subject.database).await?;
        let count: i64 = sqlx::query_scalar(count).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(u64::try_from(count).ok())
    }
}

impl Bench {
    /// The bytes that a subject's database takes on PostgreSQL.
    pub async fn database_bytes(&self, subject: &Subject) -> Result<Option<i64>, sqlx::Error> {
        if !subject.kind.uses_postgres() {
            return Ok(None);
        }
        let mut connection = PgConnection::connect(&subject.database).await?;
        let bytes =
            sqlx::query_scalar("SELECT pg_database_size(current_database())").fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(Some(bytes))
    }
}

impl Subject {
    /// Its processes.
    pub fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }

    /// The most memory that one of its processes has had, in MiB.
    pub fn peak_memory(&self) -> f64 {
        self.pids().into_iter().map(machine::peak_memory).fold(f64::NAN, f64::max)
    }
}

/// Everything that the gateway can check of a reservation, switched on.
async fn set_limits(address: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut connection = Http::open(address).await?;
    let key = format!("authorization: Bearer {ADMIN_KEY}\r\n");
    let project = r#"{"prepaid":true,"spend_limit_usd":"1000000","limits":{"concurrent_generations":100000,
        "rates":[{"model":"*","requests_per_minute":100000000,"images_per_minute":100000000}]}}"#;
    let generations = request("GET", "/admin/v1/generations?limit=1", address, &key, "");
    let (_, body) = connection.ask(&generations).await?;
    let body: serde_json::Value = serde_json::from_slice(body)?;
    let api_key = format!("/admin/v1/keys/{}", body["data"][0]["api_key_id"].as_str().unwrap_or_default());
    for (method, path, body) in [
        ("PATCH", "/admin/v1/projects/default", project),
        ("POST", "/admin/v1/projects/default/credits", r#"{"amount_usd":"1000000","reason":"benchmark"}"#),
        ("PATCH", "/admin/v1/organization", r#"{"spend_limit_usd":"1000000"}"#),
        ("PATCH", &api_key, r#"{"budget_usd":"1000000"}"#),
    ] {
        let (status, answer) = connection.ask(&request(method, path, address, &key, body)).await?;
        if !(200..300).contains(&status) {
            return Err(format!("{method} {path}: {status}: {}", String::from_utf8_lossy(answer)).into());
        }
    }
    Ok(())
}
