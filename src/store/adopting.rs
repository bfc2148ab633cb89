//! Who works on an open generation: taking over from a replica that has died, and taking back.

use std::time::Duration;

use uuid::Uuid;

use super::clock::{postgres_now, sqlite_now};
use super::connection::{AnyConnection, Either, json_list, within};
use super::{Store, StoreError};
use crate::domain::GenerationId;

impl Store {
    /// Makes `owner` the owner of these generations, as far as they are open and somebody else's; how many these were.
    pub(crate) async fn reclaim(&self, owner: Uuid, ids: &[GenerationId]) -> Result<u64, StoreError> {
        let mut ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
        ids.sort_unstable();
        within(self.options().write_timeout, async {
            let mut transaction = self.begin().await?;
            let touched = match transaction.connection() {
                Either::Postgres(connection) => sqlx::query(
                    "UPDATE generations SET owner = $1 WHERE id IN (
                         SELECT id FROM generations WHERE id = ANY($2) AND state IN ('queued', 'running') AND owner <> $1
                         ORDER BY id FOR UPDATE)",
                )
                .bind(owner)
                .bind(ids)
                .execute(connection)
                .await?
                .rows_affected(),
                Either::Sqlite(connection) => sqlx::query(
                    "UPDATE generations SET owner = $1 WHERE id IN (SELECT unhex(value) FROM json_each($2))
                         AND state IN ('queued', 'running') AND owner <> $1",
                )
                .bind(owner)
                .bind(json_list(&ids))
                .execute(connection)
                .await?
                .rows_affected(),
            };
            transaction.commit().await?;
            Ok(touched)
        })
        .await
    }
}

/// Makes `owner` the owner of at most `limit` open generations whose replica gave no sign of life for `stale_after`.
pub(super) async fn take_over(
    connection: AnyConnection<'_>,
    owner: Uuid,
    stale_after: Duration,
    limit: u32,
) -> Result<Vec<Uuid>, StoreError> {
    // The heartbeat is asked for in a subquery of its own, not by a join: where another replica has just taken a row,
    // PostgreSQL looks again at that row and at subqueries, but not at what was joined to it.
    macro_rules! take_over {
        ($now:expr, $lock:literal) => {
            concat!(
                "UPDATE generations SET owner = $1 WHERE id IN (
                     SELECT g.id FROM generations g
                     WHERE g.state IN ('queued', 'running') AND g.owner <> $1 AND g.created_at < ",
                $now,
                " - $2 AND COALESCE((SELECT r.heartbeat_at FROM replicas r WHERE r.id = g.owner), 0) < ",
                $now,
                " - $2 ORDER BY g.id LIMIT $3",
                $lock,
                ") RETURNING id"
            )
        };
    }
    let stale_after = i64::try_from(stale_after.as_micros()).unwrap_or(i64::MAX);
    let limit = i64::from(limit);
    let adopted = match connection {
        Either::Postgres(connection) => {
            sqlx::query_scalar(take_over!(postgres_now!(), " FOR UPDATE OF g SKIP LOCKED"))
                .bind(owner)
                .bind(stale_after)
                .bind(limit)
                .fetch_all(connection)
                .await?
        }
        Either::Sqlite(connection) => {
            sqlx::query_scalar(take_over!(sqlite_now!(), ""))
                .bind(owner)
                .bind(stale_after)
                .bind(limit)
                .fetch_all(connection)
                .await?
        }
    };
    Ok(adopted)
}
