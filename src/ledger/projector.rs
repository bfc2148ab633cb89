//! The task by which the projections follow the events while nobody asks for them.

use std::time::Duration;

use tokio::sync::watch;

use crate::store::Store;

/// How long events are gathered before they are projected together. Readers do not wait for it.
const GATHER: Duration = Duration::from_millis(100);

/// How often to look for events of other replicas, which may have died before they were projected.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long to wait where it has failed.
const WAIT_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Works until the writer has ended, whose sender is dropped with it.
pub(super) async fn run(store: Store, mut appended: watch::Receiver<()>) {
    loop {
        if let Ok(Err(_)) = tokio::time::timeout(LOOK_EVERY, appended.changed()).await {
            return;
        }
        tokio::time::sleep(GATHER).await;
        if let Err(error) = store.catch_up().await {
            tracing::warn!(%error, "the projections do not follow");
            tokio::time::sleep(WAIT_AFTER_FAILURE).await;
        }
    }
}
