//! Has providers delete what they have of erased generations: asked until they have done it, whatever else happens.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::accounts::{Accounts, AccountsError};
use crate::providers::{EraseError, Erasers};

/// How often the database is searched for what is due.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// How long after the first failure a provider is asked again; twice as long after each further one.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// Longest wait between two tries. There is no last one: what is to be erased is, once the provider can.
const LONGEST_WAIT: Duration = Duration::from_hours(6);
/// How many are asked for at a time.
const AT_ONCE: u32 = 100;

/// Asks providers on a task that ends when `tracker` is closed.
pub fn watch(accounts: Accounts, erasers: Erasers, tracker: &TaskTracker, runtime: &Handle) {
    let closing = tracker.clone();
    let watch = async move {
        while !closing.is_closed() {
            if let Err(error) = ask_all_due(&accounts, &erasers, &closing).await {
                warn!(%error, "what providers are to delete cannot be read now; it is tried again");
            }
            crate::accounts::pause(&closing, CHECK_EVERY).await;
        }
    };
    tracker.spawn_on(watch, runtime);
}

async fn ask_all_due(accounts: &Accounts, erasers: &Erasers, closing: &TaskTracker) -> Result<(), AccountsError> {
    for due in accounts.due_erasures(AT_ONCE).await? {
        if closing.is_closed() {
            break;
        }
        let tries = u32::try_from(due.tries).unwrap_or(u32::MAX);
        let wait = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(tries)).min(LONGEST_WAIT);
        if !accounts.claim_erasure(&due, wait).await? {
            continue;
        }
        let outcome = match erasers.get(&due.provider) {
            Some(eraser) => eraser.erase(&due.provider_request_id).await,
            None => Err(EraseError::Away(format!("no provider `{}` is set up here", due.provider))),
        };
        let generation = due.generation();
        match &outcome {
            Ok(()) => info!(%generation, provider = due.provider, "the provider has deleted erased content"),
            Err(error @ EraseError::Refused { status: 401 | 403, .. }) => warn!(
                %generation, provider = due.provider, %error,
                "the provider keeps erased content: deleting requires a key with the scope `ADMIN` in FAL_KEY; it is tried again"
            ),
            Err(error) => {
                warn!(%generation, provider = due.provider, %error, "the provider keeps erased content; it is tried again");
            }
        }
        accounts.note_erasure(&due, outcome.clone().map_err(|error| error.to_string())).await?;
        if matches!(outcome, Err(EraseError::Away(_))) {
            break;
        }
    }
    Ok(())
}
