//! The statements of a generation's way to its end: submits, start, outcome, ledger, kept sums.

use sqlx::FromRow;
use uuid::Uuid;

use super::connection::{Either, WriteTransaction, on_both, select_by_ids};
use super::credits::NewTransaction;
use super::error::must_touch;
use super::reserving::{column, without_nul};
use super::rows::{Finish, Submitted};
use super::{LedgerAccount, StoreError};
use crate::domain::{Fixed, GenerationId, Timestamp};

/// What must be known of a generation to decide what may happen to it.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct OpenRow {
    pub(crate) id: Uuid,
    pub(crate) project_id: Uuid,
    pub(crate) api_key_id: Uuid,
    pub(crate) state: String,
    pub(crate) owner: Uuid,
    pub(crate) hold: i64,
    /// The number of its latest attempt and the provider's id of it.
    pub(crate) attempt: Option<i64>,
    pub(crate) provider_request_id: Option<String>,
}

impl WriteTransaction {
    /// Reads generations and keeps every other writer from changing them. To be called before the balances are locked,
    /// since all writers must lock in one order.
    pub(crate) async fn lock_generations(&mut self, ids: &[Uuid]) -> Result<Vec<OpenRow>, StoreError> {
        Ok(select_by_ids!(
            self.connection(),
            OpenRow,
            "SELECT g.id, g.project_id, g.api_key_id, g.state, g.owner, h.amount AS hold, a.n AS attempt,
                 a.provider_request_id
             FROM generations g JOIN holds h ON h.generation_id = g.id
             LEFT JOIN attempts a ON a.generation_id = g.id
                 AND a.n = (SELECT MAX(n) FROM attempts WHERE generation_id = g.id)
             WHERE g.id",
            ids,
            "ORDER BY g.id",
            " FOR UPDATE OF g"
        )?)
    }

    /// Records submits; an earlier attempt that is still open is replaced by them.
    pub(crate) async fn insert_attempts(&mut self, rows: &[&Submitted]) -> Result<(), StoreError> {
        for row in rows.iter().filter(|row| row.attempt > 1) {
            on_both!(self.connection(), connection =>
                sqlx::query("UPDATE attempts SET ended_at = $1, outcome = 'replaced'
                             WHERE generation_id = $2 AND n < $3 AND ended_at IS NULL")
                    .bind(row.submitted_at.micros()).bind(row.generation.uuid()).bind(i64::from(row.attempt))
                    .execute(connection).await.map(drop))?;
        }
        let touched = match self.connection() {
            Either::Postgres(connection) => sqlx::query(
                "INSERT INTO attempts (generation_id, n, endpoint, credential, provider_request_id, status_url,
                     response_url, cancel_url, submitted_at)
                 SELECT * FROM UNNEST($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[],
                     $7::text[], $8::text[], $9::bigint[])",
            )
            .bind(column(rows, |s| s.generation.uuid()))
            .bind(column(rows, |s| i64::from(s.attempt)))
            .bind(column(rows, |s| s.endpoint.as_str()))
            .bind(column(rows, |s| s.credential.as_str()))
            .bind(column(rows, |s| s.provider_request_id.as_str()))
            .bind(column(rows, |s| s.status_url.as_str()))
            .bind(column(rows, |s| s.response_url.as_str()))
            .bind(column(rows, |s| s.cancel_url.as_str()))
            .bind(column(rows, |s| s.submitted_at.micros()))
            .execute(connection)
            .await?
            .rows_affected(),
            Either::Sqlite(connection) => {
                let mut touched = 0;
                for s in rows {
                    touched += sqlx::query(
                        "INSERT INTO attempts (generation_id, n, endpoint, credential, provider_request_id,
                             status_url, response_url, cancel_url, submitted_at)
                         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                    )
                    .bind(s.generation.uuid())
                    .bind(i64::from(s.attempt))
                    .bind(s.endpoint.as_str())
                    .bind(s.credential.as_str())
                    .bind(s.provider_request_id.as_str())
                    .bind(s.status_url.as_str())
                    .bind(s.response_url.as_str())
                    .bind(s.cancel_url.as_str())
                    .bind(s.submitted_at.micros())
                    .execute(&mut *connection)
                    .await?
                    .rows_affected();
                }
                touched
            }
        };
        must_touch("attempts", touched, rows.len())
    }

    /// Marks queued generations as running. Asked by their times and not by their state, for which the planner of a young
    /// table would compare every open generation with every row of the batch.
    pub(crate) async fn start_generations(&mut self, rows: &[(GenerationId, Timestamp)]) -> Result<(), StoreError> {
        let touched = match self.connection() {
            Either::Postgres(connection) => sqlx::query(
                "UPDATE generations g SET state = 'running', started_at = s.at
                 FROM UNNEST($1::uuid[], $2::bigint[]) AS s (id, at)
                 WHERE g.id = s.id AND g.started_at IS NULL AND g.settled_at IS NULL",
            )
            .bind(column(rows, |(id, _)| id.uuid()))
            .bind(column(rows, |(_, at)| at.micros()))
            .execute(connection)
            .await?
            .rows_affected(),
            Either::Sqlite(connection) => {
                let mut touched = 0;
                for (id, at) in rows {
                    touched += sqlx::query(
                        "UPDATE generations SET state = 'running', started_at = $2 WHERE id = $1 AND state = 'queued'",
                    )
                    .bind(id.uuid())
                    .bind(at.micros())
                    .execute(&mut *connection)
                    .await?
                    .rows_affected();
                }
                touched
            }
        };
        must_touch("generations", touched, rows.len())
    }

    /// Ends generations, their holds and their latest attempts. Each must be open.
    pub(crate) async fn finish_generations(&mut self, rows: &[&Finish]) -> Result<(), StoreError> {
        match self.connection() {
            Either::Postgres(connection) => finish_postgres(connection, rows).await,
            Either::Sqlite(connection) => finish_sqlite(connection, rows).await,
        }
    }

    /// Writes ledger transactions with their entries.
    pub(crate) async fn insert_transactions(&mut self, rows: &[NewTransaction]) -> Result<(), StoreError> {
        let entries: Vec<(Uuid, LedgerAccount, i64)> = rows
            .iter()
            .flat_map(|row| row.entries.iter().map(|(account, amount)| (row.id, *account, *amount)))
            .collect();
        match self.connection() {
            Either::Postgres(connection) => {
                let touched = sqlx::query(
                    "INSERT INTO ledger_entries (transaction_id, account, amount)
                     SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::bigint[])",
                )
                .bind(column(&entries, |(id, _, _)| *id))
                .bind(column(&entries, |(_, account, _)| account.as_str()))
                .bind(column(&entries, |(_, _, amount)| *amount))
                .execute(&mut *connection)
                .await?
                .rows_affected();
                must_touch("ledger_entries", touched, entries.len())?;
                let touched = sqlx::query(
                    "INSERT INTO ledger_transactions (id, kind, project_id, generation_id, reason, author, created_at)
                     SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::text[], $6::text[],
                         $7::bigint[])",
                )
                .bind(column(rows, |t| t.id))
                .bind(column(rows, |t| t.kind.as_str()))
                .bind(column(rows, |t| t.project_id))
                .bind(column(rows, |t| t.generation_id))
                .bind(column(rows, |t| without_nul(&t.reason)))
                .bind(column(rows, |t| t.author.as_deref().map(without_nul)))
                .bind(column(rows, |t| t.created_at.micros()))
                .execute(connection)
                .await?
                .rows_affected();
                must_touch("ledger_transactions", touched, rows.len())
            }
            Either::Sqlite(connection) => {
                for (id, account, amount) in &entries {
                    sqlx::query("INSERT INTO ledger_entries (transaction_id, account, amount) VALUES ($1, $2, $3)")
                        .bind(id)
                        .bind(account.as_str())
                        .bind(amount)
                        .execute(&mut *connection)
                        .await?;
                }
                for t in rows {
                    sqlx::query(
                        "INSERT INTO ledger_transactions
                             (id, kind, project_id, generation_id, reason, author, created_at)
                         VALUES ($1, $2, $3, $4, $5, $6, $7)",
                    )
                    .bind(t.id)
                    .bind(t.kind.as_str())
                    .bind(t.project_id)
                    .bind(t.generation_id)
                    .bind(without_nul(&t.reason))
                    .bind(t.author.as_deref().map(without_nul))
                    .bind(t.created_at.micros())
                    .execute(&mut *connection)
                    .await?;
                }
                Ok(())
            }
        }
    }
}

/// What becomes of a hold: a delivery settles it, everything else releases it.
fn hold_outcome(finish: &Finish) -> &'static str {
    match finish.state {
        super::FinalState::Succeeded => "settled",
        _ => "released",
    }
}

/// A hold without an outcome has not ended; asked in these words, since `ended_at IS NULL` has the planner of a young
/// table compare every open hold with every row of the batch.
async fn finish_postgres(connection: &mut sqlx::PgConnection, rows: &[&Finish]) -> Result<(), StoreError> {
    let (generations, holds): (i64, i64) = sqlx::query_as(
        "WITH f AS (
             SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[],
                 $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::text[], $12::text[], $13::text[],
                 $14::text[], $15::text[])
             AS f (id, state, settled_at, price, cost, cost_source, billable_units, unit_price, images, megapixels,
                 answer, error, reason, model, hold_outcome)),
         g AS (
             UPDATE generations g SET state = f.state, settled_at = f.settled_at, price = f.price, cost = f.cost,
                 cost_source = f.cost_source, billable_units = f.billable_units, unit_price = f.unit_price,
                 images = f.images, megapixels = f.megapixels, answer = f.answer, error = f.error, reason = f.reason,
                 model = COALESCE(f.model, g.model)
             FROM f WHERE g.id = f.id AND g.settled_at IS NULL RETURNING 1),
         h AS (
             UPDATE holds h SET ended_at = f.settled_at, outcome = f.hold_outcome
             FROM f WHERE h.generation_id = f.id AND h.outcome IS NULL RETURNING 1),
         a AS (
             UPDATE attempts a SET ended_at = f.settled_at, outcome = f.state, cost = f.cost,
                 billable_units = f.billable_units, unit_price = f.unit_price
             FROM f WHERE a.generation_id = f.id AND a.ended_at IS NULL)
         SELECT (SELECT COUNT(*) FROM g), (SELECT COUNT(*) FROM h)",
    )
    .bind(column(rows, |f| f.generation.uuid()))
    .bind(column(rows, |f| f.state.as_str()))
    .bind(column(rows, |f| f.settled_at.micros()))
    .bind(column(rows, |f| f.price.nanos()))
    .bind(column(rows, |f| f.cost.nanos()))
    .bind(column(rows, |f| f.cost_source.as_str()))
    .bind(column(rows, |f| f.billable_units.map(Fixed::billionths)))
    .bind(column(rows, |f| f.unit_price.map(Fixed::billionths)))
    .bind(column(rows, |f| i64::from(f.images)))
    .bind(column(rows, |f| f.megapixels.billionths()))
    .bind(column(rows, |f| f.answer.as_deref().map(without_nul)))
    .bind(column(rows, |f| f.error.as_deref().map(without_nul)))
    .bind(column(rows, |f| without_nul(&f.reason)))
    .bind(column(rows, |f| f.model.as_deref().map(without_nul)))
    .bind(column(rows, |f| hold_outcome(f)))
    .fetch_one(connection)
    .await?;
    // A generation that was never submitted has no attempt, so any number of those is right.
    must_touch("generations", generations.unsigned_abs(), rows.len())?;
    must_touch("holds", holds.unsigned_abs(), rows.len())
}

async fn finish_sqlite(connection: &mut sqlx::SqliteConnection, rows: &[&Finish]) -> Result<(), StoreError> {
    for f in rows {
        let units = f.billable_units.map(Fixed::billionths);
        let unit_price = f.unit_price.map(Fixed::billionths);
        let touched = sqlx::query(
            "UPDATE generations SET state = $2, settled_at = $3, price = $4, cost = $5, cost_source = $6,
                 billable_units = $7, unit_price = $8, images = $9, megapixels = $10, answer = $11, error = $12,
                 reason = $13, model = COALESCE($14, model)
             WHERE id = $1 AND settled_at IS NULL",
        )
        .bind(f.generation.uuid())
        .bind(f.state.as_str())
        .bind(f.settled_at.micros())
        .bind(f.price.nanos())
        .bind(f.cost.nanos())
        .bind(f.cost_source.as_str())
        .bind(units)
        .bind(unit_price)
        .bind(i64::from(f.images))
        .bind(f.megapixels.billionths())
        .bind(f.answer.as_deref().map(without_nul))
        .bind(f.error.as_deref().map(without_nul))
        .bind(without_nul(&f.reason))
        .bind(f.model.as_deref().map(without_nul))
        .execute(&mut *connection)
        .await?
        .rows_affected();
        must_touch("generations", touched, 1)?;
        let touched =
            sqlx::query("UPDATE holds SET ended_at = $2, outcome = $3 WHERE generation_id = $1 AND ended_at IS NULL")
                .bind(f.generation.uuid())
                .bind(f.settled_at.micros())
                .bind(hold_outcome(f))
                .execute(&mut *connection)
                .await?
                .rows_affected();
        must_touch("holds", touched, 1)?;
        sqlx::query(
            "UPDATE attempts SET ended_at = $2, outcome = $3, cost = $4, billable_units = $5, unit_price = $6
             WHERE generation_id = $1 AND ended_at IS NULL",
        )
        .bind(f.generation.uuid())
        .bind(f.settled_at.micros())
        .bind(f.state.as_str())
        .bind(f.cost.nanos())
        .bind(units)
        .bind(unit_price)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
