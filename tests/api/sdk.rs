//! OpenAI's official Python SDK administers the gateway, on both databases.

use std::process::Command;

use crate::support::tools::tool;
use crate::support::{ADMIN_KEY, Database, House, PROJECT_KEY, on_both_databases};

on_both_databases!(
    the_official_sdk_administers,
    the_official_sdk_reads_costs_and_sets_limits,
    the_official_sdk_reads_usage_in_every_way,
);

async fn run(kind: Database, script: &str) {
    let house = House::new(kind).await;
    let output = Command::new(tool("IMAGEGATE_TEST_PYTHON"))
        .arg(format!("{}/tests/sdk/{script}", env!("CARGO_MANIFEST_DIR")))
        .env("IMAGEGATE_URL", &house.gateway.base)
        .env("IMAGEGATE_ADMIN", ADMIN_KEY)
        .env("IMAGEGATE_KEY", PROJECT_KEY)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).join("\n");
    assert!(output.status.success(), "{said}\n{}", house.gateway.log());
}

async fn the_official_sdk_administers(kind: Database) {
    run(kind, "admin.py").await;
}

async fn the_official_sdk_reads_costs_and_sets_limits(kind: Database) {
    run(kind, "limits.py").await;
}

async fn the_official_sdk_reads_usage_in_every_way(kind: Database) {
    run(kind, "usage.py").await;
}
