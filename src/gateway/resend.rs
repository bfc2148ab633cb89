//! Resends without a key: OpenAI's SDKs send a request again after a timeout or a 5xx, and it must not be paid twice.

use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use super::Gateway;
use super::recover::{STALE_AFTER, before};
use crate::catalogue::Order;
use crate::domain::{ApiKeyId, GenerationId};
use crate::ledger::{Found, LedgerError, Resend};

/// Time between two looks for the request that a resend repeats.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long the client of a request of this replica may take to be noticed as gone.
const NOTICED_WITHIN: Duration = Duration::from_millis(500);
/// How long it takes at most to learn whether another replica lives.
const LIFE_KNOWN_WITHIN: Duration = Duration::from_secs(10);
/// First and longest wait before what became of a client is written again.
const NOTE_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How often that is tried: as long as a resend could come.
const NOTE_TRIES: u32 = 60;

/// What became of the client that waited for a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientNews {
    /// It has its answer.
    Answered,
    /// It went away or got a 5xx: a resend may join.
    Left,
}

impl Gateway {
    /// The generation that a resend repeats, which is the resend's own from now on; `None` if it must be made anew.
    pub async fn join_resent(&self, key: ApiKeyId, order: &Order) -> Result<Option<GenerationId>, LedgerError> {
        let came_at = self.clock.now();
        let digest = order.digest_of_user();
        loop {
            let now = self.clock.now();
            let resend = Resend {
                api_key_id: key,
                digest,
                replica: self.replica,
                came_at,
                now,
                stale_before: before(now, STALE_AFTER),
            };
            let patience = match self.books.join_resent(&resend).await? {
                Found::Joined(id) => {
                    info!(generation = %id, "a resend joins its first request");
                    return Ok(Some(id));
                }
                Found::Nothing => return Ok(None),
                Found::Attended => NOTICED_WITHIN,
                Found::Uncertain => LIFE_KNOWN_WITHIN,
            };
            if now.since(came_at) > patience {
                return Ok(None);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Writes down what became of a client that may resend, at once if the books can be written, else as soon as they
    /// can. Returns when it is written or has been tried once.
    pub async fn note_client(self: &Arc<Self>, id: GenerationId, news: ClientNews) {
        if Box::pin(self.write_client(id, news)).await.is_err() {
            self.note_client_later(id, news);
        }
    }

    /// The same without waiting.
    pub fn note_client_later(self: &Arc<Self>, id: GenerationId, news: ClientNews) {
        let gateway = self.clone();
        let work = async move {
            let mut wait = NOTE_BACKOFF.0;
            for _ in 0..NOTE_TRIES {
                match gateway.write_client(id, news).await {
                    Err(LedgerError::Unavailable(_)) => {}
                    Ok(()) | Err(_) => return,
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(NOTE_BACKOFF.1);
            }
        };
        self.tracker.spawn_on(work, &self.runtime);
    }

    async fn write_client(&self, id: GenerationId, news: ClientNews) -> Result<(), LedgerError> {
        match news {
            ClientNews::Answered => self.books.client_answered(id).await,
            ClientNews::Left => self.books.client_left(id, self.clock.now()).await,
        }
    }
}
