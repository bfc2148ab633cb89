//! The answer to a commit of our own is lost: the process knows that it never submitted, and nobody waits for a provider that
//! was not asked.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;

use crate::proxy::{Mode, Proxy};
use crate::support::{Database, Start, TestDatabase, fal_state, read, start_sandbox, t_rex};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reservation_whose_answer_is_lost_is_run_all_the_same() {
    let database = TestDatabase::new(Database::Postgres).await;
    let (fal, wire) = (start_sandbox(Duration::ZERO), Proxy::to(&database.url).await);
    let gateway = Start::new(&wire.address(&database.url), &fal.queue_url()).run().await;
    // The reservation's, the submit's, the end's.
    for nth in 1..=3 {
        wire.lose_commit(nth, Mode::Open);
        let answer = gateway.generate(&t_rex()).header("idempotency-key", format!("k{nth}")).send().await.unwrap();
        let body = read(answer, StatusCode::CREATED).await;
        let row = gateway.ended(body["id"].as_str().unwrap()).await;
        assert_eq!((&row["state"], &row["price_usd"]), (&json!("succeeded"), &json!("0.035000000")), "{nth}");
        assert_eq!(wire.lost_commits(), nth);
    }
    assert_eq!(gateway.generations().await.len(), 3);
    assert_eq!(fal_state(&fal).await["accepted_submits"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reservation_whose_answer_is_lost_with_the_database_ends_free_and_its_key_runs_again() {
    let database = TestDatabase::new(Database::Postgres).await;
    let (fal, wire) = (start_sandbox(Duration::ZERO), Proxy::to(&database.url).await);
    let gateway = Start::new(&wire.address(&database.url), &fal.queue_url()).run().await;
    let ask = || async { gateway.generate(&t_rex()).header("idempotency-key", "k").send().await.unwrap() };
    wire.lose_commit(1, Mode::Refusing);
    let answer = ask().await;
    assert!(answer.headers().contains_key("retry-after"));
    read(answer, StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(database.texts("SELECT kind FROM ledger_events").await, ["reserved"]);
    wire.set(Mode::Open);
    let begin = Instant::now();
    let body = loop {
        let answer = ask().await;
        if answer.status() == StatusCode::CREATED {
            break read(answer, StatusCode::CREATED).await;
        }
        read(answer, StatusCode::SERVICE_UNAVAILABLE).await;
        assert!(begin.elapsed() < Duration::from_secs(28), "the key must not wait for a provider that was not asked");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let row = gateway.ended(body["id"].as_str().unwrap()).await;
    assert_eq!(row["state"], "succeeded");
    let states = database.texts("SELECT state || ' ' || price FROM generations ORDER BY id").await;
    assert_eq!(states, ["failed 0", "succeeded 35000000"]);
    assert_eq!(fal_state(&fal).await["accepted_submits"], 1);
}
