//! Which request a resend without a key joins: the first of its key and hash that nobody waits for any more.

use std::time::Duration;

use uuid::Uuid;

use super::error::LedgerError;
use crate::domain::{ApiKeyId, GenerationId, Timestamp};
use crate::store::{Store, StoreError, UnansweredRow, within};

/// How long after its client went away a request can be joined.
const JOINABLE: Duration = Duration::from_mins(2);

/// A resend that looks for the request that it repeats.
#[derive(Debug, Clone)]
pub struct Resend {
    /// The key that asks.
    pub api_key_id: ApiKeyId,
    /// SHA-256 over what is asked.
    pub digest: [u8; 32],
    /// The replica that it has come to.
    pub replica: Uuid,
    /// When it came.
    pub came_at: Timestamp,
    /// Now.
    pub now: Timestamp,
    /// A replica without a sign of life since then is dead, and its clients have gone away.
    pub stale_before: Timestamp,
}

/// What a resend has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// This request: it is the resend's own from now on.
    Joined(GenerationId),
    /// A request whose client is connected to this replica: perhaps it is about to be noticed that it went away.
    Attended,
    /// A request at another replica of which nobody knows yet whether it lives.
    Uncertain,
    /// Nothing.
    Nothing,
}

pub(super) async fn join(store: &Store, resend: &Resend) -> Result<Found, LedgerError> {
    if store.nothing_unanswered(resend.api_key_id, &resend.digest).await? {
        return Ok(Found::Nothing);
    }
    let mut claimed = None;
    let found = match within(store.options().write_timeout, join_once(store, resend, &mut claimed)).await {
        // The answer to the commit was lost: what this resend claimed is its own perhaps.
        Err(StoreError::Unreachable(_)) if claimed.is_some() => {
            within(store.options().write_timeout, join_once(store, resend, &mut claimed)).await
        }
        found => found,
    };
    Ok(found?)
}

/// `claimed` is the request that an earlier try has joined perhaps, and then this one.
async fn join_once(store: &Store, resend: &Resend, claimed: &mut Option<GenerationId>) -> Result<Found, StoreError> {
    let mut transaction = store.begin_as_is().await?;
    let rows = transaction.lock_unanswered(resend.api_key_id, &resend.digest).await?;
    let found = find(&rows, resend, *claimed);
    if let Found::Joined(id) = found {
        *claimed = Some(id);
        transaction.join_request(id.uuid(), resend.replica).await?;
    }
    transaction.commit().await?;
    Ok(found)
}

/// Since when nobody waits for a request; `None` while somebody does, or may.
fn left_at(row: &UnansweredRow, resend: &Resend) -> Option<Timestamp> {
    let dead = row.heartbeat_at.map(Timestamp::from_micros).filter(|seen| *seen < resend.stale_before);
    row.left_at.map(Timestamp::from_micros).or(dead)
}

fn find(rows: &[UnansweredRow], resend: &Resend, claimed: Option<GenerationId>) -> Found {
    let is_claimed = |row: &UnansweredRow| {
        claimed.is_some_and(|id| id.uuid() == row.generation_id)
            && row.replica == resend.replica
            && row.left_at.is_none()
    };
    if let Some(id) = claimed.filter(|_| rows.iter().any(is_claimed)) {
        return Found::Joined(id);
    }
    let joinable = rows.iter().find(|row| left_at(row, resend).is_some_and(|at| resend.now.since(at) <= JOINABLE));
    if let Some(row) = joinable {
        return Found::Joined(GenerationId::from_uuid(row.generation_id));
    }
    let attended = || rows.iter().filter(|row| left_at(row, resend).is_none());
    // Alive is who has given a sign since the resend came.
    let uncertain = |row: &UnansweredRow| {
        row.replica != resend.replica && row.heartbeat_at.is_some_and(|seen| seen <= resend.came_at.micros())
    };
    if attended().any(uncertain) {
        Found::Uncertain
    } else if attended().any(|row| row.replica == resend.replica) {
        Found::Attended
    } else {
        Found::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_000_000);

    fn ago(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(NOW.seconds() - seconds)
    }

    fn row(id: u128, replica: u128, left: Option<i64>, seen: i64) -> UnansweredRow {
        UnansweredRow {
            generation_id: Uuid::from_u128(id),
            replica: Uuid::from_u128(replica),
            left_at: left.map(|seconds| ago(seconds).micros()),
            heartbeat_at: Some(ago(seen).micros()),
        }
    }

    fn found(rows: &[UnansweredRow]) -> Found {
        found_again(rows, None)
    }

    fn found_again(rows: &[UnansweredRow], claimed: Option<u128>) -> Found {
        let resend = Resend {
            api_key_id: ApiKeyId::from_uuid(Uuid::nil()),
            digest: [0; 32],
            replica: Uuid::from_u128(1),
            came_at: ago(1),
            now: NOW,
            stale_before: ago(6),
        };
        find(rows, &resend, claimed.map(|id| GenerationId::from_uuid(Uuid::from_u128(id))))
    }

    fn joined(id: u128) -> Found {
        Found::Joined(GenerationId::from_uuid(Uuid::from_u128(id)))
    }

    #[test]
    fn the_first_that_was_left_is_joined_and_one_that_is_attended_is_not() {
        assert_eq!(found(&[]), Found::Nothing);
        assert_eq!(found(&[row(1, 1, None, 0), row(2, 1, Some(5), 0), row(3, 1, Some(9), 0)]), joined(2));
        assert_eq!(found(&[row(1, 1, None, 0)]), Found::Attended);
        assert_eq!(found(&[row(1, 2, None, 0)]), Found::Nothing);
    }

    #[test]
    fn what_an_earlier_try_has_joined_is_found_by_the_next() {
        assert_eq!(found_again(&[row(1, 1, None, 0)], Some(1)), joined(1), "the first try was written");
        assert_eq!(found_again(&[row(1, 1, Some(5), 0)], Some(1)), joined(1), "it was not");
        assert_eq!(found_again(&[row(2, 1, None, 0)], Some(1)), Found::Attended, "it is another's");
    }

    #[test]
    fn after_two_minutes_nothing_is_joined() {
        assert_eq!(found(&[row(1, 1, Some(120), 0)]), joined(1));
        assert_eq!(found(&[row(1, 1, Some(121), 0)]), Found::Nothing);
        assert_eq!(found(&[row(1, 2, None, 121)]), Found::Nothing);
    }

    #[test]
    fn a_replica_that_may_be_dead_is_waited_for_and_a_dead_ones_clients_have_left() {
        assert_eq!(found(&[row(1, 2, None, 3)]), Found::Uncertain);
        assert_eq!(found(&[row(1, 2, None, 7)]), joined(1));
    }
}
