//! What was quoted stands: an open request is charged as it was held, whatever a restart brings.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;

use crate::support::{Database, Start, TestDatabase, eventually, on_both_databases, read, start_sandbox};

on_both_databases!(a_restart_with_another_price_and_markup_charges_what_was_held);

/// A model file that replaces `flux/dev` at another price, or leaves it out.
fn dearer(price: &str) -> String {
    let path = format!("{}/src/catalogue/models/flux-dev.toml", env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::read_to_string(path).unwrap();
    let changed = file.replace("amount = \"0.025\"", &format!("amount = \"{price}\""));
    assert_ne!(file, changed, "the file does not say its price any more as this test knows it");
    changed
}

async fn a_restart_with_another_price_and_markup_charges_what_was_held(kind: Database) {
    let database = TestDatabase::new(kind).await;
    let fal = start_sandbox(Duration::from_secs(4));
    let folder = tempfile::tempdir().unwrap();
    let start =
        || Start::new(&database.url, &fal.queue_url()).with("IMAGEGATE_MODELS_DIR", folder.path().to_str().unwrap());
    let gateway = start().with("IMAGEGATE_MARKUP", "2").run().await;
    let wish =
        json!({"model": "flux/dev", "prompt": "a", "image_size": "square_hd", "num_images": 2, "background": true});
    let taken = read(gateway.generate(&wish).send().await.unwrap(), StatusCode::ACCEPTED).await;
    let held = taken["price_usd"].clone();
    assert_eq!(held, "0.100000000");
    eventually(Duration::from_secs(30), || async {
        gateway.generations().await[0]["fal_request_id"].is_string().then_some(())
    })
    .await;
    gateway.kill();

    std::fs::write(folder.path().join("flux-dev.toml"), dearer("0.003")).unwrap();
    let gateway = start().with("IMAGEGATE_MARKUP", "1.1").run().await;
    let row = gateway.ended(taken["id"].as_str().unwrap()).await;
    assert_eq!((&row["state"], &row["price_usd"]), (&json!("succeeded"), &held), "{row}");
    assert_eq!(row["cost_usd"], "0.050000000");
    // The new terms count for what is asked from now on.
    let quote =
        gateway.project(reqwest::Method::POST, "/v1/images/generations/quote").json(&wish).send().await.unwrap();
    assert_eq!(read(quote, StatusCode::OK).await["price_usd"], "0.006600000");
}
