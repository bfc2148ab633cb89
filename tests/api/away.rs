//! The database goes away and comes back: nothing is served for free, nothing hangs, nothing is lost.

use std::time::{Duration, Instant};

use imagegate::store::StoreOptions;
use reqwest::{Method, StatusCode};
use serde_json::json;

use sqlx::Connection;

use crate::postgres::PrivatePostgres;
use crate::support::{Database, Gateway, Start, TestDatabase, eventually, fal_state, read, start_sandbox, t_rex};

async fn is_ready(gateway: &Gateway) -> bool {
    gateway.request(Method::GET, "/readyz").send().await.unwrap().status() == StatusCode::OK
}

async fn turns(gateway: &Gateway, ready: bool) {
    eventually(Duration::from_secs(20), || async { (is_ready(gateway).await == ready).then_some(()) }).await;
    assert_eq!(gateway.request(Method::GET, "/healthz").send().await.unwrap().status(), StatusCode::OK);
}

/// A request is refused with 503 and Retry-After; how long that took.
async fn is_refused(gateway: &Gateway) -> Duration {
    let begin = Instant::now();
    let answer = gateway.generate(&t_rex()).send().await.unwrap();
    assert!(answer.headers().contains_key("retry-after"), "{:?}", answer.headers());
    assert_eq!(read(answer, StatusCode::SERVICE_UNAVAILABLE).await["error"]["code"], "service_unavailable");
    begin.elapsed()
}

/// Once the database is known to be away, no refusal waits for it, which would take two seconds or more.
async fn is_refused_at_once(gateway: &Gateway) {
    let mut took = Vec::new();
    for _ in 0..20 {
        took.push(is_refused(gateway).await);
    }
    took.sort();
    assert!(took[took.len() / 2] < StoreOptions::default().acquire_timeout, "refusals took {took:?}");
}

/// A client waits for an image, and the provider has begun.
async fn wait_until_submitted(gateway: &Gateway) {
    eventually(Duration::from_secs(10), || async {
        gateway.generations().await.first().is_some_and(|row| row["fal_request_id"].is_string()).then_some(())
    })
    .await;
}

/// What was submitted is answered while the database is away, everything else refused at once; when it is back the
/// books know everything.
async fn goes_away_and_comes_back(away: impl Fn(&PrivatePostgres), back: impl Fn(&PrivatePostgres)) {
    let server = PrivatePostgres::start();
    let database = TestDatabase::at(server.url());
    let fal = start_sandbox(Duration::from_millis(1500));
    let gateway = Start::new(&database.url, &fal.queue_url()).run().await;
    let waiting = gateway.generate(&t_rex());
    let others = async {
        wait_until_submitted(&gateway).await;
        away(&server);
        is_refused(&gateway).await;
        is_refused_at_once(&gateway).await;
        turns(&gateway, false).await;
    };
    let (answer, ()) = tokio::join!(waiting.send(), others);
    read(answer.unwrap(), StatusCode::CREATED).await;
    back(&server);
    turns(&gateway, true).await;
    eventually(Duration::from_secs(10), || async {
        gateway.generations().await.iter().any(|row| row["state"] == "succeeded").then_some(())
    })
    .await;
    read(gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::CREATED).await;
    // A server that stood still has perhaps recorded what it was asked last, and nobody waited for: that ends free.
    let rows = eventually(Duration::from_secs(40), || async {
        let rows = gateway.generations().await;
        rows.iter().all(|row| ["succeeded", "failed"].iter().any(|state| row["state"] == *state)).then_some(rows)
    })
    .await;
    let (made, refused): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row["state"] == "succeeded");
    assert_eq!(made.len(), 2, "{rows:?}");
    assert!(made.iter().all(|row| row["price_usd"] == "0.035000000"), "{rows:?}");
    assert!(refused.len() <= 1 && refused.iter().all(|row| row["price_usd"] == "0.000000000"), "{rows:?}");
    assert_eq!(fal_state(&fal).await["accepted_submits"], 2);
    drop(gateway);
    drop(database);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_stopped_and_started_again_is_found_again() {
    goes_away_and_comes_back(PrivatePostgres::stop, PrivatePostgres::start_again).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_is_given_up_in_time_and_found_again() {
    goes_away_and_comes_back(PrivatePostgres::pause, PrivatePostgres::go_on).await;
}

/// The process ends while the database is away, and fal forgets everything: only the journal knows of the image.
async fn the_journal_survives(end: impl AsyncFn(Gateway)) {
    let server = PrivatePostgres::start();
    let database = TestDatabase::at(server.url());
    let journal = database.folder().join("journal").display().to_string();
    let fal = start_sandbox(Duration::from_millis(1500));
    let start = || Start::new(&database.url, &fal.queue_url()).with("IMAGEGATE_JOURNAL", &journal);
    let gateway = start().run().await;
    let waiting = gateway.generate(&t_rex());
    let (answer, ()) = tokio::join!(waiting.send(), async {
        wait_until_submitted(&gateway).await;
        server.stop();
    });
    let answer = answer.unwrap();
    let id = answer.headers()["x-imagegate-generation-id"].to_str().unwrap().to_owned();
    let url = read(answer, StatusCode::CREATED).await["images"][0]["url"].clone();
    assert_eq!(std::fs::read_dir(&journal).unwrap().count(), 1);
    end(gateway).await;
    let forgetful = format!("{}/__sandbox/reset", fal.queue_url());
    assert!(crate::support::client().post(forgetful).send().await.unwrap().status().is_success());
    server.start_again();
    let gateway = start().run().await;
    let row = gateway.ended(&id).await;
    assert_eq!((&row["state"], &row["price_usd"]), (&json!("succeeded"), &json!("0.035000000")));
    let path = format!("/v1/images/generations/{id}");
    let fetched = read(gateway.project(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(fetched["images"][0]["url"], url);
    assert_eq!(std::fs::read_dir(&journal).unwrap().count(), 0);
    drop(gateway);
    drop(database);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_while_the_database_is_away_has_everything_on_disk() {
    the_journal_survives(async |gateway: Gateway| gateway.kill()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_stopped_while_the_database_is_away_ends_soon_and_has_everything_on_disk() {
    the_journal_survives(async |gateway: Gateway| {
        let log = gateway.shared_log();
        assert_eq!(gateway.stop().await, 0);
        // It does not wait for what is on disk.
        assert!(!log.lock().unwrap().contains("stopping with open generations"), "{}", log.lock().unwrap());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sqlite_file_that_somebody_else_has_locked_refuses_until_it_is_free() {
    let database = TestDatabase::new(Database::Sqlite).await;
    let fal = start_sandbox(Duration::from_secs(1));
    let gateway = Start::new(&database.url, &fal.queue_url()).run().await;
    let waiting = gateway.generate(&t_rex());
    let mut lock = sqlx::SqliteConnection::connect(&database.url).await.unwrap();
    let (answer, ()) = tokio::join!(waiting.send(), async {
        wait_until_submitted(&gateway).await;
        sqlx::raw_sql("PRAGMA busy_timeout = 5000; BEGIN IMMEDIATE").execute(&mut lock).await.unwrap();
        is_refused(&gateway).await;
        turns(&gateway, false).await;
        is_refused_at_once(&gateway).await;
    });
    read(answer.unwrap(), StatusCode::CREATED).await;
    sqlx::raw_sql("ROLLBACK").execute(&mut lock).await.unwrap();
    turns(&gateway, true).await;
    eventually(Duration::from_secs(10), || async {
        (gateway.generations().await[0]["state"] == "succeeded").then_some(())
    })
    .await;
    read(gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::CREATED).await;
    assert_eq!(gateway.generations().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_only_work_serves_and_cannot_touch_the_past() {
    let database = TestDatabase::new(Database::Postgres).await;
    let fal = start_sandbox(Duration::ZERO);
    Start::new(&database.url, &fal.queue_url()).run().await.stop().await;
    let manual = include_str!("../../docs/operations.md");
    let part = manual.split("<!-- least-privilege: begin -->").nth(1).unwrap();
    let part = part.split("```sql").nth(1).unwrap().split("```").next().unwrap();
    // Roles belong to the whole server: one of the test's own.
    let role = format!("app_{}", database.url.rsplit('/').next().unwrap());
    let statements: &'static str = Box::leak(part.replace("imagegate_app", &role).into_boxed_str());
    database.execute(statements).await;
    let mut url = url::Url::parse(&database.url).unwrap();
    url.set_username(&role).unwrap();
    url.set_password(Some("change-me")).unwrap();
    let gateway = Start::new(url.as_str(), &fal.queue_url()).run().await;
    gateway
        .set_project(
            &json!({"limits": {"concurrent_generations": 9, "rates": [{"model": "*", "requests_per_minute": 99}]}}),
        )
        .await;
    let ask = || gateway.generate(&t_rex()).header("idempotency-key", "k").send();
    read(ask().await.unwrap(), StatusCode::CREATED).await;
    read(gateway.generate(&t_rex()).header("x-stainless-retry-count", "0").send().await.unwrap(), StatusCode::CREATED)
        .await;
    let credit = json!({"amount_usd": "1", "reason": "paid in"});
    let credits = gateway.admin(Method::POST, "/admin/v1/projects/default/credits").json(&credit).send().await.unwrap();
    read(credits, StatusCode::CREATED).await;
    assert_eq!(gateway.stop().await, 0);
    for past in [
        "DELETE FROM ledger_transactions",
        "UPDATE ledger_transactions SET reason = 'x'",
        "DELETE FROM ledger_events",
        "UPDATE ledger_events SET revenue = 0",
        "DROP TABLE attempts",
    ] {
        let mut connection = sqlx::PgConnection::connect(url.as_str()).await.unwrap();
        let error = sqlx::raw_sql(past).execute(&mut connection).await.unwrap_err().to_string();
        assert!(error.contains("permission denied") || error.contains("must be owner"), "{past}: {error}");
    }
    let mut owner = sqlx::PgConnection::connect(&database.url).await.unwrap();
    let drop_role = sqlx::AssertSqlSafe(format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    sqlx::raw_sql(drop_role).execute(&mut owner).await.unwrap();
}
