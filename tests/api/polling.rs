//! How often fal is asked while it makes an image.

use std::time::Duration;

use reqwest::StatusCode;

use crate::support::{Database, Start, TestDatabase, fal_state, read, start_sandbox, t_rex};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_as_long_as_usual_is_asked_for_a_few_times() {
    let database = TestDatabase::new(Database::Sqlite).await;
    let fal = start_sandbox(Duration::from_secs(3));
    let gateway = Start::new(&database.url, &fal.queue_url()).run().await;
    let mut asked = Vec::new();
    for _ in 0..3 {
        let before = fal_state(&fal).await["status_reads"].as_u64().unwrap();
        read(gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::CREATED).await;
        asked.push(fal_state(&fal).await["status_reads"].as_u64().unwrap() - before);
    }
    // The first one is not known yet. A machine that is held up asks less often, never more.
    assert!(asked[1] <= 15 && asked[2] <= 15, "{asked:?}");
    assert!(asked[2] >= 3, "{asked:?}");
}
