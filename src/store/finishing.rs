//! The statements by which the projections follow a generation to its end: submits, start, outcome, ledger; on PostgreSQL
//! most of it is [`super::writing`]'s.

use uuid::Uuid;

use super::StoreError;
use super::connection::{Either, WriteTransaction, on_both};
use super::credits::NewTransaction;
use super::error::must_touch;
use super::reserving::{column, without_nul};
use super::rows::{Finish, Late, Submitted};
use crate::domain::{Fixed, GenerationId, Timestamp};

impl WriteTransaction {
    /// Marks the attempts that these replace, which are written already: one batch may have both.
    pub(crate) async fn replace_attempts(&mut self, rows: &[&Submitted]) -> Result<(), StoreError> {
        for row in rows.iter().filter(|row| row.attempt > 1) {
            on_both!(self.connection(), connection =>
                sqlx::query("UPDATE attempts SET replaced_at = $1
                             WHERE generation_id = $2 AND n < $3 AND replaced_at IS NULL")
                    .bind(row.submitted_at.micros()).bind(row.generation.uuid()).bind(i64::from(row.attempt))
                    .execute(connection).await.map(drop))?;
        }
        Ok(())
    }

    /// Writes what was seen of generations after they had ended without it.
    pub(crate) async fn book_late(&mut self, rows: &[&Late]) -> Result<(), StoreError> {
        for row in rows {
            let touched = on_both!(self.connection(), connection =>
                sqlx::query("UPDATE generations SET late_cost = $2, late_at = $3, cost_source = $4, billable_units = $5,
                                 unit_price = $6, answer = CASE WHEN erased_at IS NULL THEN COALESCE($7, answer) END
                             WHERE id = $1 AND settled_at IS NOT NULL AND late_at IS NULL")
                    .bind(row.generation.uuid()).bind(row.cost.nanos()).bind(row.at.micros())
                    .bind(row.cost_source.as_str()).bind(row.billable_units.map(Fixed::billionths))
                    .bind(row.unit_price.map(Fixed::billionths)).bind(row.answer.as_deref().map(without_nul))
                    .execute(connection).await.map(|done| done.rows_affected()))?;
            must_touch("generations", touched, 1)?;
        }
        Ok(())
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
        // One that has ended already is passed over.
        if touched > rows.len() as u64 { must_touch("generations", touched, rows.len()) } else { Ok(()) }
    }
}

/// Records submits.
pub(super) async fn insert_attempts_sqlite(
    connection: &mut sqlx::SqliteConnection,
    rows: &[&Submitted],
) -> Result<(), StoreError> {
    for s in rows {
        sqlx::query(
            "INSERT INTO attempts (generation_id, n, endpoint, credential, provider_request_id, status_url,
                 response_url, cancel_url, submitted_at)
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
        .await?;
    }
    Ok(())
}

/// Writes ledger transactions.
pub(super) async fn insert_transactions_sqlite(
    connection: &mut sqlx::SqliteConnection,
    rows: &[NewTransaction],
) -> Result<(), StoreError> {
    for t in rows {
        sqlx::query(
            "INSERT INTO ledger_transactions (id, kind, project_id, generation_id, reason, author, created_at, project,
                 revenue, cost_of_sales, provider, funding)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        )
        .bind(t.id)
        .bind(t.kind.as_str())
        .bind(t.project_id)
        .bind(t.generation_id)
        .bind(without_nul(&t.reason))
        .bind(t.author.as_deref().map(without_nul))
        .bind(t.created_at.micros())
        .bind(t.entries.project)
        .bind(t.entries.revenue)
        .bind(t.entries.cost_of_sales)
        .bind(t.entries.provider)
        .bind(t.entries.funding)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Ends generations. Each must be open.
pub(super) async fn finish_sqlite(connection: &mut sqlx::SqliteConnection, rows: &[&Finish]) -> Result<(), StoreError> {
    for f in rows {
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
        .bind(f.billable_units.map(Fixed::billionths))
        .bind(f.unit_price.map(Fixed::billionths))
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
    }
    Ok(())
}

/// The smallest and the largest of some ids; of none, such that nothing lies between them.
pub(super) fn bounds(ids: impl Iterator<Item = Uuid>) -> (Uuid, Uuid) {
    ids.fold((Uuid::max(), Uuid::nil()), |(first, last), id| (first.min(id), last.max(id)))
}
