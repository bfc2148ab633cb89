//! A streaming standby: reports are read from it with their age told, and it takes over when the primary is gone.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::Connection;

use crate::postgres::PrivatePostgres;
use crate::support::{Gateway, Start, TestDatabase, eventually, read, start_sandbox, t_rex};

const LAG: &str = "x-imagegate-replica-lag";
const LIST: &str = "/admin/v1/generations?limit=1000";

async fn execute(server: &PrivatePostgres, statement: &'static str) {
    let mut connection = sqlx::PgConnection::connect(&server.url()).await.unwrap();
    for statement in statement.split(';') {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
    }
}

async fn list(gateway: &Gateway) -> Response {
    gateway.admin(Method::GET, LIST).send().await.unwrap()
}

fn lag(answer: &Response) -> Option<f64> {
    Some(answer.headers().get(LAG)?.to_str().unwrap().parse().unwrap())
}

async fn count(answer: Response) -> usize {
    read(answer, StatusCode::OK).await["data"].as_array().unwrap().len()
}

/// Waits until lists come from the standby, or from the primary.
async fn lists_come_from_the_standby(gateway: &Gateway, wanted: bool) {
    eventually(Duration::from_secs(10), || async { (lag(&list(gateway).await).is_some() == wanted).then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_are_read_from_it_with_their_age_and_from_the_primary_while_it_is_away() {
    let primary = PrivatePostgres::start();
    let standby = primary.standby();
    let database = TestDatabase::at(primary.url());
    let fal = start_sandbox(Duration::ZERO);
    let gateway =
        Start::new(&database.url, &fal.queue_url()).with("IMAGEGATE_DATABASE_READ_URL", &standby.url()).run().await;
    lists_come_from_the_standby(&gateway, true).await;
    let make = async || read(gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::CREATED).await;
    make().await;
    eventually(Duration::from_secs(10), || async { (count(list(&gateway).await).await == 1).then_some(()) }).await;
    for path in [
        "/v1/organization/costs?start_time=1790000000",
        "/v1/organization/usage/images?start_time=1790000000",
        "/admin/v1/events?start_time=1790000000",
        "/admin/v1/generations?format=csv",
        "/v1/organization/audit_logs",
    ] {
        let answer = gateway.admin(Method::GET, path).send().await.unwrap();
        assert!(lag(&answer).is_some(), "{path}: {:?}", answer.headers());
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
    }
    let own = gateway.project(Method::GET, "/images/generations/").send().await.unwrap();
    assert!(lag(&own).is_some(), "whatever its path is spelled like");
    assert!(lag(&gateway.request(Method::GET, "/readyz").send().await.unwrap()).is_none());
    assert!(lag(&gateway.generate(&t_rex()).send().await.unwrap()).is_none());

    // What the standby has not heard of yet is not in its lists, which say how old they are.
    eventually(Duration::from_secs(10), || async { (count(list(&gateway).await).await == 2).then_some(()) }).await;
    execute(&standby, "SELECT pg_wal_replay_pause()").await;
    let unheard = make().await;
    let old = eventually(Duration::from_secs(20), || async {
        let answer = list(&gateway).await;
        lag(&answer).is_some_and(|lag| lag > 3.0).then_some(answer)
    })
    .await;
    assert_eq!(count(old).await, 2);
    let path = format!("/v1/images/generations/{}", unheard["id"].as_str().unwrap());
    read(gateway.project(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await;
    execute(&standby, "SELECT pg_wal_replay_resume()").await;
    eventually(Duration::from_secs(10), || async { (count(list(&gateway).await).await == 3).then_some(()) }).await;

    standby.stop();
    lists_come_from_the_standby(&gateway, false).await;
    make().await;
    assert_eq!(count(list(&gateway).await).await, 4);
    standby.start_again();
    lists_come_from_the_standby(&gateway, true).await;
    assert_eq!(gateway.stop().await, 0);
    drop(database);
    drop(standby);
    drop(primary);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_primary_is_gone_the_standby_is_written_to_and_nothing_acknowledged_is_lost() {
    let primary = PrivatePostgres::start();
    let standby = primary.standby();
    // No commit is answered before the standby has it on disk.
    execute(&primary, "ALTER SYSTEM SET synchronous_standby_names = '*';SELECT pg_reload_conf()").await;
    let places = format!("{},{}", primary.place_name(), standby.place_name());
    let url = format!("postgres://imagegate@{places}/postgres?target_session_attrs=read-write");
    let database = TestDatabase::at(url.clone());
    let fal = start_sandbox(Duration::from_millis(50));
    let journal = database.folder().join("journal").display().to_string();
    let start = || Start::new(&url, &fal.queue_url()).with("IMAGEGATE_JOURNAL", &journal).run();
    let gateway = start().await;

    let (over, acknowledged) = (AtomicBool::new(false), Mutex::new(BTreeSet::new()));
    let client = async |number: usize| {
        for round in 0.. {
            let key = format!("{number}-{round}");
            while !over.load(Ordering::SeqCst) {
                let answer = gateway.generate(&t_rex()).header("idempotency-key", &key).send().await.unwrap();
                let (status, id) = (answer.status(), answer.headers().get("x-imagegate-generation-id").cloned());
                match status {
                    StatusCode::CREATED => {
                        acknowledged.lock().unwrap().insert(id.unwrap().to_str().unwrap().to_owned());
                        break;
                    }
                    // Nobody knows what became of it.
                    StatusCode::GATEWAY_TIMEOUT => break,
                    StatusCode::SERVICE_UNAVAILABLE => tokio::time::sleep(Duration::from_millis(100)).await,
                    status => panic!("{status}: {}", answer.text().await.unwrap()),
                }
            }
            if over.load(Ordering::SeqCst) {
                return;
            }
        }
    };
    let ten_more = async || {
        let before = acknowledged.lock().unwrap().len();
        eventually(Duration::from_mins(1), || async {
            (acknowledged.lock().unwrap().len() >= before + 10).then_some(())
        })
        .await;
    };
    let breaks = async {
        ten_more().await;
        primary.stop();
        standby.promote();
        ten_more().await;
        over.store(true, Ordering::SeqCst);
    };
    tokio::join!(client(0), client(1), client(2), client(3), breaks);
    assert!(gateway.log().contains("another server is written to now"), "{}", gateway.log());
    eventually(Duration::from_mins(1), || async {
        let answer = gateway.admin(Method::GET, "/readyz").send().await.unwrap();
        (answer.json::<Value>().await.unwrap()["open_generations"] == 0).then_some(())
    })
    .await;
    assert_eq!(gateway.stop().await, 0);

    // The same list finds the new primary at once, though the old one is named first.
    let gateway = start().await;
    let rows = gateway.generations().await;
    let paid: BTreeSet<String> = rows
        .iter()
        .filter(|row| row["state"] == "succeeded" && row["price_usd"] == "0.035000000")
        .map(|row| row["id"].as_str().unwrap().to_owned())
        .collect();
    let lost: Vec<_> = acknowledged.lock().unwrap().difference(&paid).cloned().collect();
    assert_eq!(lost, Vec::<String>::new());
    read(gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::CREATED).await;
    let ready = gateway.request(Method::GET, "/readyz").send().await.unwrap();
    assert_eq!(ready.json::<Value>().await.unwrap()["database"], json!("ok"));
    assert_eq!(gateway.stop().await, 0);
    drop(database);
    drop(standby);
    drop(primary);
}
