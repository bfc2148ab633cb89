//! What keeps the tables in shape: signs of life, months made ahead, what has expired removed.

use std::time::Duration;

use uuid::Uuid;

use super::clock::{postgres_now, sqlite_now};
use super::connection::{AnyConnection, Either, WriteTransaction, on_both, within};
use super::{Store, StoreError};
use crate::domain::Timestamp;

/// How long a replica that gives no sign of life is remembered.
const REPLICA_MEMORY: Duration = Duration::from_hours(24);

/// How long a deleted file is remembered: longer than the day that it counts for.
const FILES_MEMORY: Duration = Duration::from_hours(48);

/// How long an upload may take.
const LONGEST_UPLOAD: Duration = Duration::from_hours(1);

/// How long what was reserved in a second is kept, for replicas whose clocks differ.
const COUNTS_MEMORY_SECONDS: i64 = 600;

/// Serializes the making of partitions between replicas; any number will do that nothing else in this database uses.
pub(super) const PARTITIONS_LOCK: i64 = 0x696d_6167_6567_6174;

/// What was removed because its time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purged {
    /// Idempotency keys.
    pub idempotency_keys: u64,
    /// Seconds that were counted for rate limits.
    pub counts: u64,
    /// Requests that nobody resent.
    pub requests: u64,
    /// Names under which replicas appended that have long been silent.
    pub writers: u64,
    /// Replicas that have long been gone.
    pub replicas: u64,
    /// Deleted files whose day is over, and files that were announced and never uploaded.
    pub files: u64,
}

impl WriteTransaction {
    /// Raises a change number, and keeps every other writer of the same name waiting until this transaction ends.
    pub(super) async fn raise_change(&mut self, name: &str) -> Result<(), StoreError> {
        let touched = on_both!(self.connection(), connection =>
            sqlx::query("UPDATE changes SET number = number + 1 WHERE name = $1")
                .bind(name).execute(connection).await.map(|done| done.rows_affected()))?;
        super::error::must_touch("changes", touched, 1)
    }
}

impl Store {
    /// The change number of `name`: it is greater than before whenever what it names has changed.
    pub(crate) async fn change_number(&self, name: &str) -> Result<i64, StoreError> {
        within(self.options().read_timeout, async {
            let mut reader = self.reader_as_is().await?;
            Ok(on_both!(reader.connection(), connection =>
                sqlx::query_scalar::<_, i64>("SELECT number FROM changes WHERE name = $1")
                    .bind(name).fetch_one(connection).await)?)
        })
        .await
    }

    /// Records that a replica is alive.
    pub(crate) async fn heartbeat(&self, replica: Uuid) -> Result<(), StoreError> {
        macro_rules! beat {
            ($now:expr) => {
                concat!(
                    "INSERT INTO replicas (id, heartbeat_at) VALUES ($1, ",
                    $now,
                    ") ON CONFLICT (id) DO UPDATE SET heartbeat_at = excluded.heartbeat_at"
                )
            };
        }
        let written = within(self.options().write_timeout, async {
            let mut transaction = self.begin_as_is().await?;
            match transaction.connection() {
                Either::Postgres(connection) => {
                    sqlx::query(beat!(postgres_now!())).bind(replica).execute(connection).await.map(drop)
                }
                Either::Sqlite(connection) => {
                    sqlx::query(beat!(sqlite_now!())).bind(replica).execute(connection).await.map(drop)
                }
            }?;
            transaction.commit().await
        })
        .await;
        self.inner.outage.note(written.as_ref().copied());
        if written.is_err() {
            self.find_server().await;
        }
        written
    }

    /// Forgets a replica that stops, so that others may take over at once what it left open, and its clients' resends
    /// may join it.
    pub(crate) async fn retire(&self, replica: Uuid, at: Timestamp) -> Result<(), StoreError> {
        within(self.options().write_timeout, async {
            let mut transaction = self.begin_as_is().await?;
            on_both!(transaction.connection(), connection => {
                sqlx::query("UPDATE unanswered_requests SET left_at = $2 WHERE replica = $1 AND left_at IS NULL")
                    .bind(replica).bind(at.micros()).execute(&mut *connection).await?;
                sqlx::query("DELETE FROM replicas WHERE id = $1")
                    .bind(replica).execute(&mut *connection).await?;
            });
            transaction.commit().await
        })
        .await
    }

    /// Removes what has expired by `now`: at most `limit` rows of each kind.
    pub(crate) async fn purge(&self, now: Timestamp, limit: u32) -> Result<Purged, StoreError> {
        let limit = i64::from(limit);
        let before = |memory: Duration| {
            Timestamp::from_micros(now.micros().saturating_sub(i64::try_from(memory.as_micros()).unwrap_or(i64::MAX)))
        };
        let gone = before(REPLICA_MEMORY);
        within(self.options().write_timeout, async {
            let mut transaction = self.begin_as_is().await?;
            let purged = on_both!(transaction.connection(), connection => Purged {
                idempotency_keys: sqlx::query(
                    "DELETE FROM idempotency_keys WHERE (project_id, key) IN (
                         SELECT project_id, key FROM idempotency_keys WHERE expires_at <= $1 LIMIT $2)
                     AND expires_at <= $1")
                    .bind(now.micros()).bind(limit).execute(&mut *connection).await?.rows_affected(),
                counts: sqlx::query("DELETE FROM request_counts WHERE second < $1")
                    .bind(now.seconds() - COUNTS_MEMORY_SECONDS)
                    .execute(&mut *connection).await?.rows_affected(),
                requests: sqlx::query("DELETE FROM unanswered_requests WHERE created_at < $1")
                    .bind(gone.micros()).execute(&mut *connection).await?.rows_affected(),
                writers: sqlx::query(
                    "DELETE FROM event_projections WHERE projected_at < $1 AND projected_at > 0 AND NOT EXISTS (
                         SELECT 1 FROM ledger_events e
                         WHERE e.writer = event_projections.writer AND e.seq > event_projections.projected_seq)")
                    .bind(gone.micros()).execute(&mut *connection).await?.rows_affected(),
                replicas: sqlx::query("DELETE FROM replicas WHERE heartbeat_at < $1")
                    .bind(gone.micros()).execute(&mut *connection).await?.rows_affected(),
                files: sqlx::query("DELETE FROM files WHERE deleted_at < $1
                                    OR (url IS NULL AND deleted_at IS NULL AND created_at < $2)")
                    .bind(before(FILES_MEMORY).micros()).bind(before(LONGEST_UPLOAD).micros())
                    .execute(&mut *connection).await?.rows_affected(),
            });
            transaction.commit().await?;
            Ok(purged)
        })
        .await
    }

    /// Makes the partitions that begin at each of `months` (first moments of consecutive calendar months; the last one
    /// only ends the one before it). Those that are there stay as they are. Nothing to do on SQLite.
    pub(crate) async fn make_months(&self, months: &[(String, Timestamp)]) -> Result<(), StoreError> {
        if !self.is_postgres() {
            return Ok(());
        }
        let mut failure = None;
        for pair in months.windows(2) {
            let [(name, from), (_, before)] = pair else {
                continue;
            };
            // One month that cannot be made keeps no other from being made.
            if let Err(error) = self.make_month(name, *from, *before).await {
                failure = Some(error);
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn make_month(&self, name: &str, from: Timestamp, before: Timestamp) -> Result<(), StoreError> {
        within(self.options().write_timeout, async {
            let mut transaction = self.begin_as_is().await?;
            make_month(transaction.connection(), name, from, before).await?;
            transaction.commit().await
        })
        .await
    }
}

/// The smallest `UUIDv7` of a moment: its milliseconds, then zeros.
pub(super) fn smallest_id(moment: Timestamp) -> Uuid {
    let millis = u128::try_from(moment.micros().div_euclid(1000)).unwrap_or(0);
    Uuid::from_u128(millis << 80)
}

/// Made apart and then attached: attaching lets requests go on meanwhile, `CREATE … PARTITION OF` does not. A month
/// that the default partition has rows of already stays there.
async fn make_month(
    connection: AnyConnection<'_>,
    name: &str,
    from: Timestamp,
    before: Timestamp,
) -> Result<(), StoreError> {
    let Either::Postgres(connection) = connection else {
        return Ok(());
    };
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(PARTITIONS_LOCK).execute(&mut *connection).await?;
    for (parent, id) in [("generations", "id"), ("ledger_events", "stream_id")] {
        let table = format!("{parent}_{name}");
        // Names and bounds are made here from a month, never from what somebody sent.
        let there: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "SELECT to_regclass($1) IS NOT NULL
                 OR EXISTS (SELECT FROM {parent}_default WHERE {id} >= $2 AND {id} < $3)"
        )))
        .bind(&table)
        .bind(smallest_id(from))
        .bind(smallest_id(before))
        .fetch_one(&mut *connection)
        .await?;
        if there {
            continue;
        }
        let statements = format!(
            "CREATE TABLE {table} (LIKE {parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
             ALTER TABLE {parent} ATTACH PARTITION {table} FOR VALUES FROM ('{}') TO ('{}')",
            smallest_id(from),
            smallest_id(before),
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(statements)).execute(&mut *connection).await?;
    }
    Ok(())
}
