//! Behind a transaction pooler: `PgBouncer` in transaction mode, with fewer connections to the server than the gateway has.

use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tempfile::TempDir;

use crate::postgres::is_root;
use crate::support::{Database, Start, TestDatabase, eventually, free_port, read, start_sandbox, t_rex};

/// A running `PgBouncer`.
struct Pooler {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl Pooler {
    /// Before the server of this database, with so many connections to it.
    async fn start(database: &TestDatabase, mode: &str, size: u32) -> Self {
        let server = url::Url::parse(&database.url).unwrap();
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let (settings, users) = (folder.path().join("pgbouncer.ini"), folder.path().join("users.txt"));
        std::fs::write(&users, "\"imagegate\" \"\"\n").unwrap();
        let text = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             auth_type = trust\nauth_file = {}\npool_mode = {mode}\ndefault_pool_size = {size}\nmax_client_conn = 500\n\
             unix_socket_dir =\n",
            server.host_str().unwrap(),
            server.port().unwrap(),
            users.display(),
        );
        std::fs::write(&settings, text).unwrap();
        // It refuses to run as root.
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--", "/usr/sbin/pgbouncer"]);
            command
        } else {
            Command::new("/usr/sbin/pgbouncer")
        };
        let process = command.arg(&settings).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let pooler = Self { process: process.unwrap(), port, _folder: folder };
        eventually(Duration::from_secs(10), || async { std::net::TcpStream::connect(("127.0.0.1", port)).ok() }).await;
        pooler
    }

    /// The database's address through the pooler.
    fn url(&self, database: &TestDatabase) -> String {
        let mut url = url::Url::parse(&database.url).unwrap();
        url.set_port(Some(self.port)).unwrap();
        url.to_string()
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // `runuser` hands it on.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

/// Two replicas make images for many clients at once, and everything that operators read is read.
async fn serves(through: &str, direct: Option<&str>) {
    let fal = start_sandbox(Duration::from_millis(50));
    let start = || {
        let start = Start::new(through, &fal.queue_url());
        match direct {
            Some(direct) => start.with("IMAGEGATE_DATABASE_DIRECT_URL", direct),
            None => start,
        }
    };
    let (one, other) = (start().run().await, start().run().await);
    assert!(one.log().contains("a transaction pooler stands before the database"), "{}", one.log());
    one.set_project(
        &json!({"limits": {"concurrent_generations": 500, "rates": [{"model": "*", "requests_per_minute": 500}]}}),
    )
    .await;
    let asks =
        (0..60).map(|n| [&one, &other][n % 2].generate(&t_rex()).header("idempotency-key", (n / 2).to_string()).send());
    for answer in join_all(asks).await {
        read(answer.unwrap(), StatusCode::CREATED).await;
    }
    let rows = other.generations().await;
    assert_eq!(rows.len(), 30);
    assert!(rows.iter().all(|row| row["state"] == "succeeded" && row["price_usd"] == "0.035000000"));
    let id = rows[0]["id"].as_str().unwrap();
    let refund = json!({"amount_usd": "0.01", "reason": "blurred"});
    let refund = one.admin(Method::POST, &format!("/admin/v1/generations/{id}/refunds")).json(&refund);
    read(refund.send().await.unwrap(), StatusCode::CREATED).await;
    for path in [
        "/v1/organization/costs?start_time=1790000000&group_by=line_item",
        "/v1/organization/usage/images?start_time=1790000000&bucket_width=1h",
        "/admin/v1/holds",
        "/admin/v1/margins?start_time=1790000000",
        "/v1/organization/projects",
        "/v1/organization/audit_logs",
    ] {
        read(one.admin(Method::GET, path).send().await.unwrap(), StatusCode::OK).await;
    }
    let events = one.admin(Method::GET, "/admin/v1/events?start_time=1790000000").send().await.unwrap();
    assert_eq!(events.text().await.unwrap().matches("imagegate.generation.settled").count(), 30);
    for gateway in [one, other] {
        assert!(!gateway.log().contains("prepared statement"), "{}", gateway.log());
        assert_eq!(gateway.stop().await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_way_past_it_a_new_database_is_migrated_and_served() {
    let database = TestDatabase::new(Database::Postgres).await;
    let pooler = Pooler::start(&database, "transaction", 2).await;
    serves(&pooler.url(&database), Some(&database.url)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_way_past_it_a_migrated_database_is_served_and_another_one_is_not() {
    let database = TestDatabase::new(Database::Postgres).await;
    let pooler = Pooler::start(&database, "transaction", 2).await;
    let through = pooler.url(&database);
    let (gateway, log) = Start::new(&through, "http://127.0.0.1:1").launch().await;
    assert!(gateway.is_none());
    let log = log.lock().unwrap().clone();
    assert!(log.contains("set IMAGEGATE_DATABASE_DIRECT_URL to an address past the pooler"), "{log}");
    Start::new(&database.url, "http://127.0.0.1:1").run().await.stop().await;
    serves(&through, None).await;
    // Where nobody wants to find it out, the address says so.
    serves(&format!("{through}?pgbouncer=true"), None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_gives_each_client_its_session_is_like_none() {
    let database = TestDatabase::new(Database::Postgres).await;
    let pooler = Pooler::start(&database, "session", 50).await;
    let fal = start_sandbox(Duration::ZERO);
    let gateway = Start::new(&pooler.url(&database), &fal.queue_url()).run().await;
    assert!(!gateway.log().contains("a transaction pooler stands"), "{}", gateway.log());
    read(gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::CREATED).await;
}
