//! `imagegate ledger`: the check that an operator runs, and what money is set aside.

use std::process::Output;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;

use crate::support::{Database, House, Start, eventually, on_both_databases, read, t_rex};

on_both_databases!(the_check_says_that_the_books_add_up_or_fails_with_a_table, open_holds_are_listed_with_their_age,);

fn ledger(house: &House, action: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Start::new(&house.database.url, "http://127.0.0.1:1").command(&folder);
    command.args(["ledger", action]).output().unwrap()
}

async fn the_check_says_that_the_books_add_up_or_fails_with_a_table(kind: Database) {
    let house = House::new(kind).await;
    read(house.gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::CREATED).await;
    let good = ledger(&house, "verify");
    assert!(good.status.success());
    assert_eq!(String::from_utf8(good.stdout).unwrap(), "The books add up.\n");
    house.database.execute("UPDATE balances SET posted = posted + 1").await;
    let bad = ledger(&house, "verify");
    assert!(!bad.status.success());
    let table = String::from_utf8(bad.stdout).unwrap();
    assert!(table.contains("the posted balance of a project") && table.contains("-34999999"), "{table}");
    assert!(String::from_utf8(bad.stderr).unwrap().contains("do not add up"));
    house.database.execute("UPDATE balances SET posted = posted - 1").await;
}

async fn open_holds_are_listed_with_their_age(kind: Database) {
    let house = House::with(kind, Duration::from_secs(10), &[]).await;
    let mut body = t_rex();
    body["background"] = json!(true);
    let taken = read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::ACCEPTED).await;
    let id = taken["id"].as_str().unwrap();
    let listed = String::from_utf8(ledger(&house, "holds").stdout).unwrap();
    let row = listed.lines().find(|line| line.starts_with(id)).unwrap();
    assert!(row.contains("0.035000000"), "{row}");
    house.gateway.ended(id).await;
    eventually(Duration::from_secs(5), || async {
        let listed = String::from_utf8(ledger(&house, "holds").stdout).unwrap();
        (listed.lines().count() == 1).then_some(())
    })
    .await;
}
