//! Machines whose clocks are wrong: the database's clock decides, and the operator is told.

use std::time::Duration;

use imagegate::domain::{Clock, SystemClock};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::machine::{clock_off, faketime};
use crate::postgres::PrivatePostgres;
use crate::support::{Database, Start, TestDatabase, eventually, fal_state, read, start_sandbox};

const PATIENCE: Duration = Duration::from_mins(2);

fn request() -> Value {
    json!({"model": "flux/dev", "prompt": "a", "image_size": "square_hd"})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_whose_clocks_are_off_keep_the_databases_time_and_say_so() {
    let database = TestDatabase::new(Database::Postgres).await;
    let fal = start_sandbox(Duration::from_secs(8));
    let start = || Start::new(&database.url, &fal.queue_url()).with("IMAGEGATE_DEADLINE", "20s");
    let right = start().run().await;
    assert_eq!(right.readiness().await["clock"], "ok");
    let mut replicas = Vec::new();
    for seconds in [-40, -12, 12, 40] {
        replicas.push((seconds, clock_off(start(), seconds).run().await));
    }
    for (seconds, replica) in &replicas {
        let ready = replica.readiness().await;
        assert_eq!((&ready["status"], &ready["clock"]), (&json!("degraded"), &json!("off")), "{seconds}: {ready}");
        let behind = ready["clock_behind_seconds"].as_f64().unwrap();
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let expected = -*seconds as f64;
        assert!((behind - expected).abs() < 5.0, "{seconds}: {behind}");
        assert!((replica.metric("imagegate_clock_behind_seconds").await - expected).abs() < 5.0);
    }
    // Longer than a heartbeat lasts: nobody is taken for dead, and nothing comes to its deadline early.
    let asked = replicas.iter().map(|(seconds, replica)| async move {
        let body = read(replica.generate(&request()).send().await.unwrap(), StatusCode::CREATED).await;
        (*seconds, body)
    });
    let now = SystemClock.now().seconds();
    for (seconds, body) in futures_util::future::join_all(asked).await {
        let row = right.ended(body["id"].as_str().unwrap()).await;
        assert_eq!(row["state"], "succeeded");
        for time in ["created_at", "settled_at"] {
            let off = (row[time].as_i64().unwrap() - now).abs();
            assert!(off < 30 && (off < 10 || time == "settled_at"), "{seconds}: {time} is off by {off}");
        }
    }
    for (seconds, replica) in &replicas {
        let log = replica.log();
        assert!(!log.contains("is taken over"), "{seconds}: {log}");
        assert_eq!(log.matches("this machine's clock is off").count(), 1, "{seconds}: {log}");
    }
    assert!(!right.log().contains("is taken over"));
    assert!(!right.log().contains("this machine's clock is off"));
    assert_eq!(fal_state(&fal).await["accepted_submits"], 4);

    // One that dies is noticed all the same, whichever way its clock is off.
    let mut open = Vec::new();
    let mut background = request();
    background["background"] = json!(true);
    for (_, replica) in &replicas {
        let taken = read(replica.generate(&background).send().await.unwrap(), StatusCode::ACCEPTED).await;
        open.push(taken["id"].as_str().unwrap().to_owned());
    }
    eventually(PATIENCE, || async { (fal_state(&fal).await["accepted_submits"] == 8).then_some(()) }).await;
    let stored = || database.texts("SELECT provider_request_id FROM attempts");
    eventually(PATIENCE, || async { (stored().await.len() == 8).then_some(()) }).await;
    for (_, replica) in replicas {
        replica.kill();
    }
    for id in open {
        let row = right.ended(&id).await;
        assert_eq!((&row["state"], &row["price_usd"]), (&json!("succeeded"), &json!("0.025000000")), "{row}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_a_months_end_the_databases_clock_says_which_month_is_charged() {
    // The database's clock goes through the end of a month while the test runs.
    let end = 1_798_761_600; // 2027-01-01T00:00:00Z
    let until_then = 45;
    let ahead = end - until_then - SystemClock.now().seconds();
    let server = PrivatePostgres::start_with(&[
        ("LD_PRELOAD", faketime()),
        ("FAKETIME", format!("{ahead:+}s")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]);
    let database = TestDatabase::at(server.url());
    let fal = start_sandbox(Duration::ZERO);
    let start = |seconds: i64| clock_off(Start::new(&database.url, &fal.queue_url()), ahead + seconds);
    let (behind, early) = (start(-40).run().await, start(40).run().await);
    behind.set_project(&json!({"spend_limit_usd": "0.03"})).await;
    // One image is all that the month has left, whichever replica is asked.
    let first = read(behind.generate(&request()).send().await.unwrap(), StatusCode::CREATED).await;
    for gateway in [&behind, &early] {
        read(gateway.generate(&request()).send().await.unwrap(), StatusCode::FORBIDDEN).await;
    }
    // In the new month both have its limit again.
    let second = eventually(PATIENCE, || async {
        let answer = behind.generate(&request()).send().await.unwrap();
        (answer.status() == StatusCode::CREATED).then_some(answer)
    })
    .await;
    let second = read(second, StatusCode::CREATED).await;
    read(early.generate(&request()).send().await.unwrap(), StatusCode::FORBIDDEN).await;
    let settled = async |body: &Value| early.ended(body["id"].as_str().unwrap()).await["settled_at"].as_i64().unwrap();
    assert!(settled(&first).await < end && settled(&second).await >= end);
    let path = format!("/v1/organization/costs?start_time={}&end_time={}", end - 86_400, end + 86_400);
    let costs = read(early.admin(reqwest::Method::GET, &path).send().await.unwrap(), StatusCode::OK).await;
    let amounts: Vec<_> =
        costs["data"].as_array().unwrap().iter().map(|day| &day["results"][0]["amount"]["value"]).collect();
    assert_eq!(amounts, [&json!(0.025), &json!(0.025)], "{costs}");
    drop((behind, early));
    drop(database);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_whose_time_is_set_while_an_image_is_made_gives_it_up_no_earlier() {
    let database = TestDatabase::new(Database::Sqlite).await;
    let fal = start_sandbox(Duration::from_secs(8));
    let offset = database.folder().join("faketime");
    std::fs::write(&offset, "+0").unwrap();
    let gateway = Start::new(&database.url, &fal.queue_url())
        .with("LD_PRELOAD", &faketime())
        .with("FAKETIME_TIMESTAMP_FILE", offset.to_str().unwrap())
        .with("FAKETIME_NO_CACHE", "1")
        .with("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .run()
        .await;
    let set_time = async {
        eventually(PATIENCE, || async { (fal_state(&fal).await["accepted_submits"] == 1).then_some(()) }).await;
        std::fs::write(&offset, "+4000").unwrap();
        eventually(PATIENCE, || async { (gateway.readiness().await["clock"] == "off").then_some(()) }).await;
    };
    let (answer, ()) = tokio::join!(gateway.generate(&request()).send(), set_time);
    let body = read(answer.unwrap(), StatusCode::CREATED).await;
    let row = gateway.ended(body["id"].as_str().unwrap()).await;
    let took = row["settled_at"].as_i64().unwrap() - row["created_at"].as_i64().unwrap();
    assert!((0..1000).contains(&took), "{row}");
    // Once nothing is open, the machine's time is followed.
    eventually(PATIENCE, || async { (gateway.readiness().await["clock"] == "ok").then_some(()) }).await;
}
