//! The database cannot be written for a while: a full disk, a read-only server, a file that is gone. The gateway says which
//! it is, charges nobody, and serves again by itself.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::machine::limit_files;
use crate::postgres::PrivatePostgres;
use crate::support::{
    Database, Gateway, House, Start, TestDatabase, eventually, misbehave, read, start_sandbox, t_rex,
};

/// Waits for `/readyz` to have this status and returns its body.
async fn readiness(gateway: &Gateway, status: StatusCode) -> Value {
    eventually(Duration::from_secs(5), || async {
        let answer = gateway.admin(Method::GET, "/readyz").send().await.unwrap();
        if answer.status() == status { Some(answer.json().await.unwrap()) } else { None }
    })
    .await
}

/// Waits until nothing is under way any more.
async fn comes_to_rest(gateway: &Gateway) {
    eventually(Duration::from_secs(30), || async {
        (readiness(gateway, StatusCode::OK).await["open_generations"] == 0).then_some(())
    })
    .await;
}

fn limit(gateway: &Gateway, bytes: &str) {
    assert!(limit_files(gateway.process(), bytes));
}

fn file_of(house: &House) -> PathBuf {
    PathBuf::from(house.database.url.strip_prefix("sqlite://").unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_load_refuses_and_serves_again_as_soon_as_there_is_space() {
    let house = House::new(Database::Sqlite).await;
    let gateway = &house.gateway;
    let (over, made, refused) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let client = || async {
        while !over.load(Ordering::SeqCst) {
            let answer = gateway.generate(&t_rex()).send().await.unwrap();
            match answer.status() {
                StatusCode::CREATED => made.fetch_add(1, Ordering::SeqCst),
                StatusCode::SERVICE_UNAVAILABLE => refused.fetch_add(1, Ordering::SeqCst),
                status => panic!("{status}: {}", answer.text().await.unwrap()),
            };
        }
    };
    let more_than = |count: usize, of: &AtomicUsize| {
        let before = of.load(Ordering::SeqCst);
        (before + count, before)
    };
    let breaks = async {
        for _ in 0..3 {
            let (enough, _) = more_than(10, &made);
            eventually(Duration::from_secs(10), || async { (made.load(Ordering::SeqCst) >= enough).then_some(()) })
                .await;
            // One page: SQLite can neither append to its log nor begin it again, however long it has grown.
            limit(gateway, "4096");
            let (enough, _) = more_than(10, &refused);
            eventually(Duration::from_secs(10), || async { (refused.load(Ordering::SeqCst) >= enough).then_some(()) })
                .await;
            let red = readiness(gateway, StatusCode::SERVICE_UNAVAILABLE).await;
            assert_eq!((&red["status"], &red["database"]), (&json!("unavailable"), &json!("unavailable")));
            let told = red["database_error"].as_str().unwrap();
            assert!(told.starts_with("the database's disk"), "{told}");
            limit(gateway, "unlimited");
            // The clients do not stop asking: the first image after it shows that it serves.
            let (enough, _) = more_than(1, &made);
            eventually(Duration::from_secs(1), || async { (made.load(Ordering::SeqCst) >= enough).then_some(()) })
                .await;
            let green = readiness(gateway, StatusCode::OK).await;
            assert_eq!((&green["database"], green.get("database_error")), (&json!("ok"), None));
        }
        over.store(true, Ordering::SeqCst);
    };
    tokio::join!(client(), client(), client(), client(), breaks);
    comes_to_rest(gateway).await;
    let rows = gateway.generations().await;
    let paid = rows.iter().filter(|row| row["price_usd"] == "0.035000000").count();
    assert_eq!(paid, made.load(Ordering::SeqCst), "every image is charged once, and nothing else");
    assert_eq!(house.fal_state().await["delivered_images"], paid);
}

/// Three images end while the database is away, the second one while the disk is full: each end is on disk in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_of_the_journal_that_a_full_disk_cuts_spoils_no_other() {
    let server = PrivatePostgres::start();
    let database = TestDatabase::at(server.url());
    let journal = database.folder().join("journal");
    let fal = start_sandbox(Duration::ZERO);
    let start = || Start::new(&database.url, &fal.queue_url()).with("IMAGEGATE_JOURNAL", journal.to_str().unwrap());
    let gateway = start().run().await;
    let mut ids = Vec::new();
    for (word, millis) in [("first", 3_000), ("second", 6_000), ("third", 12_000)] {
        let rule = json!({"match": {"prompt_contains": word}, "do": {"queue_ms": 0, "run_ms": millis}});
        misbehave(&fal, rule).await;
        let body = json!({"model": "flux/dev", "prompt": word, "background": true});
        let taken = read(gateway.generate(&body).send().await.unwrap(), StatusCode::ACCEPTED).await;
        ids.push(taken["id"].as_str().unwrap().to_owned());
    }
    eventually(Duration::from_secs(5), || async {
        let rows = gateway.generations().await;
        rows.iter().all(|row| row["fal_request_id"].is_string()).then_some(())
    })
    .await;
    server.stop();
    let kept = || {
        let files: Vec<_> =
            std::fs::read_dir(&journal).into_iter().flatten().map(|file| file.unwrap().path()).collect();
        files.first().map(|file| std::fs::read_to_string(file).unwrap()).unwrap_or_default()
    };
    let lines = |text: &str| {
        assert!(text.is_empty() || text.ends_with('\n'), "half a line: {text}");
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>().len()
    };
    let whole = eventually(Duration::from_secs(10), || async { Some(kept()).filter(|text| lines(text) >= 1) }).await;
    limit(&gateway, &(whole.len() + 100).to_string());
    eventually(Duration::from_secs(20), || async {
        gateway.log().contains("the journal cannot be written").then_some(())
    })
    .await;
    limit(&gateway, "unlimited");
    eventually(Duration::from_secs(30), || async { (lines(&kept()) == 3).then_some(()) }).await;
    gateway.kill();
    // Only the journal knows of the images.
    let forgetful = format!("{}/__sandbox/reset", fal.queue_url());
    assert!(crate::support::client().post(forgetful).send().await.unwrap().status().is_success());
    server.start_again();
    let gateway = start().run().await;
    for id in &ids {
        let row = gateway.ended(id).await;
        assert_eq!((&row["state"], &row["price_usd"]), (&json!("succeeded"), &json!("0.025000000")), "{row}");
    }
    assert_eq!(std::fs::read_dir(&journal).unwrap().count(), 0);
    drop(gateway);
    drop(database);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_file_that_is_gone_is_told_and_used_again_when_it_is_back() {
    let house = House::new(Database::Sqlite).await;
    assert_eq!(house.ask(&t_rex()).await.0, 201);
    let (file, away) = (file_of(&house), file_of(&house).with_extension("away"));
    std::fs::rename(&file, &away).unwrap();
    let red = readiness(&house.gateway, StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(red["database_error"], "the database file is gone");
    assert_eq!(house.ask(&t_rex()).await.0, 503);
    // An empty file in its place is not what was opened.
    std::fs::write(&file, "").unwrap();
    assert_eq!(house.ask(&t_rex()).await.0, 503);
    let log = house.gateway.log();
    assert!(log.contains("the database file is gone") && log.contains("put it back, or restart the gateway"), "{log}");
    std::fs::rename(&away, &file).unwrap();
    readiness(&house.gateway, StatusCode::OK).await;
    assert_eq!(house.ask(&t_rex()).await.0, 201);
    assert_eq!(house.gateway.generations().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_becomes_read_only_is_told_and_used_again_when_it_can_be_written() {
    let house = House::new(Database::Postgres).await;
    let name = house.database.url.rsplit('/').next().unwrap().to_owned();
    let switch = async |read_only: &str| {
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
        // Whoever changes it must be able to, also when it is read-only.
        let all = format!(
            "SET TRANSACTION READ WRITE;
                           ALTER DATABASE {name} SET default_transaction_read_only = {read_only}; {cut}"
        );
        house.database.execute(Box::leak(all.into_boxed_str())).await;
    };
    assert_eq!(house.ask(&t_rex()).await.0, 201);
    switch("on").await;
    let red = readiness(&house.gateway, StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(red["database_error"], "the database cannot be written");
    assert_eq!(house.ask(&t_rex()).await.0, 503);
    assert!(house.gateway.log().contains("the database cannot be written"));
    switch("off").await;
    readiness(&house.gateway, StatusCode::OK).await;
    assert_eq!(house.ask(&t_rex()).await.0, 201);
    assert_eq!(house.gateway.generations().await.len(), 2);
}
