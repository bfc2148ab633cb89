//! The statements about requests whose clients resend without a key: recorded, left, answered, joined.

use sqlx::{FromRow, SqliteConnection};
use uuid::Uuid;

use super::connection::{Either, WriteTransaction, on_both};
use super::error::must_touch;
use super::reserving::column;
use super::rows::Reservation;
use super::{Store, StoreError};
use crate::domain::{ApiKeyId, GenerationId, Timestamp};

/// A request that has no answer yet, and the replica that its client is connected to.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct UnansweredRow {
    pub(crate) generation_id: Uuid,
    pub(crate) replica: Uuid,
    pub(crate) left_at: Option<i64>,
    /// The replica's last sign of life.
    pub(crate) heartbeat_at: Option<i64>,
}

impl WriteTransaction {
    /// Records that nobody waits for these requests any more, each since when. One that was never recorded is fine.
    pub(crate) async fn leave_requests(&mut self, rows: &[(GenerationId, Timestamp)]) -> Result<(), StoreError> {
        match self.connection() {
            Either::Postgres(connection) => {
                sqlx::query(
                    "UPDATE unanswered_requests u SET left_at = l.at FROM UNNEST($1::uuid[], $2::bigint[]) AS l (id, at)
                     WHERE u.generation_id = l.id",
                )
                .bind(column(rows, |(id, _)| id.uuid()))
                .bind(column(rows, |(_, at)| at.micros()))
                .execute(connection)
                .await?;
            }
            Either::Sqlite(connection) => {
                for (id, at) in rows {
                    sqlx::query("UPDATE unanswered_requests SET left_at = $2 WHERE generation_id = $1")
                        .bind(id.uuid())
                        .bind(at.micros())
                        .execute(&mut *connection)
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// The requests of a key and hash that have no answer yet, oldest first; nobody else joins one meanwhile.
    pub(crate) async fn lock_unanswered(
        &mut self,
        key: ApiKeyId,
        digest: &[u8; 32],
    ) -> Result<Vec<UnansweredRow>, StoreError> {
        macro_rules! unanswered {
            ($lock:literal) => {
                concat!(
                    "SELECT u.generation_id, u.replica, u.left_at, r.heartbeat_at
                     FROM unanswered_requests u LEFT JOIN replicas r ON r.id = u.replica
                     WHERE u.api_key_id = $1 AND u.digest = $2 ORDER BY u.generation_id",
                    $lock
                )
            };
        }
        Ok(match self.connection() {
            Either::Postgres(connection) => {
                sqlx::query_as(unanswered!(" FOR UPDATE OF u"))
                    .bind(key.uuid())
                    .bind(digest.as_slice())
                    .fetch_all(connection)
                    .await?
            }
            Either::Sqlite(connection) => {
                sqlx::query_as(unanswered!("")).bind(key.uuid()).bind(digest.as_slice()).fetch_all(connection).await?
            }
        })
    }

    /// Records that a resend at `replica` waits for a request now.
    pub(crate) async fn join_request(&mut self, id: Uuid, replica: Uuid) -> Result<(), StoreError> {
        let touched = on_both!(self.connection(), connection =>
            sqlx::query("UPDATE unanswered_requests SET replica = $2, left_at = NULL WHERE generation_id = $1")
                .bind(id).bind(replica).execute(connection).await.map(|done| done.rows_affected()))?;
        must_touch("unanswered_requests", touched, 1)
    }
}

/// Records requests whose clients may resend.
pub(super) async fn insert_unanswered_sqlite(
    connection: &mut SqliteConnection,
    rows: &[(&Reservation, &[u8; 32])],
) -> Result<(), StoreError> {
    for (r, digest) in rows {
        let done = sqlx::query(
            "INSERT INTO unanswered_requests (generation_id, api_key_id, digest, replica, created_at)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(r.id.uuid())
        .bind(r.api_key_id.uuid())
        .bind(digest.as_slice())
        .bind(r.owner)
        .bind(r.created_at.micros())
        .execute(&mut *connection)
        .await?;
        must_touch("unanswered_requests", done.rows_affected(), 1)?;
    }
    Ok(())
}

/// Forgets requests that have their answers. One that was never recorded is fine.
pub(super) async fn answer_sqlite(connection: &mut SqliteConnection, ids: &[GenerationId]) -> Result<(), StoreError> {
    for id in ids {
        sqlx::query("DELETE FROM unanswered_requests WHERE generation_id = $1")
            .bind(id.uuid())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

impl Store {
    /// Whether nothing of a key and hash waits for its answer: then there is nothing that a resend could join.
    pub(crate) async fn nothing_unanswered(&self, key: ApiKeyId, digest: &[u8; 32]) -> Result<bool, StoreError> {
        super::within(self.options().read_timeout, async {
            let mut reader = self.reader_as_is().await?;
            let count = on_both!(reader.connection(), connection =>
                sqlx::query_scalar::<_, i64>(
                    "SELECT COUNT(*) FROM unanswered_requests WHERE api_key_id = $1 AND digest = $2")
                    .bind(key.uuid()).bind(digest.as_slice()).fetch_one(connection).await)?;
            Ok(count == 0)
        })
        .await
    }
}
