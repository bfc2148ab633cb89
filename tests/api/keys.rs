//! Keys: only digests are stored, setting keys replace each other, revoked ones stop within a second.

use std::time::Duration;

use reqwest::{Method, StatusCode};

use crate::support::{Database, House, Start, TestDatabase, eventually, on_both_databases, read, start_sandbox, t_rex};

on_both_databases!(a_changed_setting_key_ends_the_old_one, a_revoked_key_stops_soon,);

async fn a_changed_setting_key_ends_the_old_one(kind: Database) {
    let database = TestDatabase::new(kind).await;
    let fal = start_sandbox(Duration::ZERO);
    let start = |number: u32| {
        Start::new(&database.url, &fal.queue_url())
            .with("IMAGEGATE_BOOTSTRAP_KEY", &format!("project-key-number-{number}"))
            .with("IMAGEGATE_ADMIN_KEY", &format!("admin-key-number-{number}"))
    };
    let gateway = start(1).run().await;
    let ask = |gateway: &crate::support::Gateway, key: &str| {
        gateway.request(Method::POST, "/v1/images/generations").bearer_auth(key).json(&t_rex()).send()
    };
    read(ask(&gateway, "project-key-number-1").await.unwrap(), StatusCode::CREATED).await;
    gateway.stop().await;
    let gateway = start(2).run().await;
    read(ask(&gateway, "project-key-number-1").await.unwrap(), StatusCode::UNAUTHORIZED).await;
    read(ask(&gateway, "project-key-number-2").await.unwrap(), StatusCode::CREATED).await;
    let list = |key: &'static str| gateway.request(Method::GET, "/admin/v1/generations").bearer_auth(key).send();
    read(list("admin-key-number-1").await.unwrap(), StatusCode::UNAUTHORIZED).await;
    let rows = read(list("admin-key-number-2").await.unwrap(), StatusCode::OK).await;
    assert_eq!(rows["data"].as_array().unwrap().len(), 2, "both keys belong to the one project `default`");
}

async fn a_revoked_key_stops_soon(kind: Database) {
    let house = House::new(kind).await;
    let folder = tempfile::tempdir().unwrap();
    let command = |arguments: &[&str]| {
        let mut command = Start::new(&house.database.url, "http://127.0.0.1:1").command(&folder);
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let made = command(&["keys", "create", "--name", "for a while"]);
    let key = made.lines().next().unwrap().to_owned();
    let listed = command(&["keys", "list"]);
    let row = listed.lines().find(|line| line.contains("for a while")).unwrap();
    assert!(!listed.contains(&key), "the list shows a key's value");
    let id = row.split_whitespace().next().unwrap().to_owned();
    let ask = || house.gateway.request(Method::POST, "/v1/images/generations").bearer_auth(&key).json(&t_rex()).send();
    eventually(Duration::from_secs(2), || async {
        (ask().await.unwrap().status() == StatusCode::CREATED).then_some(())
    })
    .await;
    command(&["keys", "revoke", &id]);
    eventually(Duration::from_secs(1), || async {
        (ask().await.unwrap().status() == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
    let table = command(&["usage", "--by", "key,model"]);
    assert!(table.contains(&id) && table.contains("flux-realism"), "{table}");
}
