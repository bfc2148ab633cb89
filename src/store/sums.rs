//! Writing the sums that are kept beside the ledger: balances, keys, months, and what was asked for in a second.

use uuid::Uuid;

use super::StoreError;
use super::connection::{Either, WriteTransaction};
use super::error::must_touch;
use super::limits::CountRow;
use super::reserving::column;
use crate::domain::Timestamp;

/// By how much the kept sums of a project or a key change.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BalanceChange {
    /// A project's posted sum, or what a key has spent.
    pub(crate) posted: i64,
    pub(crate) held: i64,
}

/// What a project is charged in a month, less refunds.
#[derive(Debug, Clone)]
pub(crate) struct MonthlyCharge {
    pub(crate) project_id: Uuid,
    pub(crate) starts_at: Timestamp,
    pub(crate) ends_at: Timestamp,
    pub(crate) spent: i64,
}

/// All that changes in one transaction; each project, key, month and second at most once.
#[derive(Debug, Default)]
pub(crate) struct SumChanges {
    pub(crate) balances: Vec<(Uuid, BalanceChange)>,
    pub(crate) keys: Vec<(Uuid, BalanceChange)>,
    pub(crate) months: Vec<MonthlyCharge>,
    /// What was reserved under rate limits.
    pub(crate) counts: Vec<CountRow>,
}

impl SumChanges {
    fn is_empty(&self) -> bool {
        self.balances.is_empty() && self.keys.is_empty() && self.months.is_empty() && self.counts.is_empty()
    }
}

impl WriteTransaction {
    /// Changes the kept sums.
    pub(crate) async fn change_sums(&mut self, changes: &SumChanges) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        match self.connection() {
            Either::Postgres(connection) => change_postgres(connection, changes).await,
            Either::Sqlite(connection) => change_sqlite(connection, changes).await,
        }
    }
}

async fn change_postgres(connection: &mut sqlx::PgConnection, changes: &SumChanges) -> Result<(), StoreError> {
    let SumChanges { balances, keys, months, counts } = changes;
    let touched: (i64, i64, i64, i64) = sqlx::query_as(
        "WITH b AS (
             UPDATE balances b SET posted = b.posted + c.posted, held = b.held + c.held
             FROM UNNEST($1::uuid[], $2::bigint[], $3::bigint[]) AS c (id, posted, held)
             WHERE b.project_id = c.id RETURNING 1),
         k AS (
             UPDATE key_balances k SET spent = k.spent + c.spent, held = k.held + c.held
             FROM UNNEST($4::uuid[], $5::bigint[], $6::bigint[]) AS c (id, spent, held)
             WHERE k.api_key_id = c.id RETURNING 1),
         m AS (
             INSERT INTO monthly_spend (project_id, starts_at, ends_at, spent)
             SELECT * FROM UNNEST($7::uuid[], $8::bigint[], $9::bigint[], $10::bigint[])
             ON CONFLICT (project_id, starts_at) DO UPDATE SET spent = monthly_spend.spent + excluded.spent
             RETURNING 1),
         r AS (
             INSERT INTO request_counts (project_id, second, model, requests, images)
             SELECT * FROM UNNEST($11::uuid[], $12::bigint[], $13::text[], $14::bigint[], $15::bigint[])
             ON CONFLICT (project_id, second, model) DO UPDATE
             SET requests = request_counts.requests + excluded.requests,
                 images = request_counts.images + excluded.images
             RETURNING 1)
         SELECT (SELECT COUNT(*) FROM b), (SELECT COUNT(*) FROM k), (SELECT COUNT(*) FROM m), (SELECT COUNT(*) FROM r)",
    )
    .bind(column(balances, |(id, _)| *id))
    .bind(column(balances, |(_, change)| change.posted))
    .bind(column(balances, |(_, change)| change.held))
    .bind(column(keys, |(id, _)| *id))
    .bind(column(keys, |(_, change)| change.posted))
    .bind(column(keys, |(_, change)| change.held))
    .bind(column(months, |month| month.project_id))
    .bind(column(months, |month| month.starts_at.micros()))
    .bind(column(months, |month| month.ends_at.micros()))
    .bind(column(months, |month| month.spent))
    .bind(column(counts, |count| count.project_id))
    .bind(column(counts, |count| count.second))
    .bind(column(counts, |count| count.model.as_str()))
    .bind(column(counts, |count| count.requests))
    .bind(column(counts, |count| count.images))
    .fetch_one(connection)
    .await?;
    must_touch("balances", touched.0.unsigned_abs(), balances.len())?;
    must_touch("key_balances", touched.1.unsigned_abs(), keys.len())?;
    must_touch("monthly_spend", touched.2.unsigned_abs(), months.len())?;
    must_touch("request_counts", touched.3.unsigned_abs(), counts.len())
}

async fn change_sqlite(connection: &mut sqlx::SqliteConnection, changes: &SumChanges) -> Result<(), StoreError> {
    for (id, change) in &changes.balances {
        let done = sqlx::query("UPDATE balances SET posted = posted + $2, held = held + $3 WHERE project_id = $1")
            .bind(id)
            .bind(change.posted)
            .bind(change.held)
            .execute(&mut *connection)
            .await?;
        must_touch("balances", done.rows_affected(), 1)?;
    }
    for (id, change) in &changes.keys {
        let done = sqlx::query("UPDATE key_balances SET spent = spent + $2, held = held + $3 WHERE api_key_id = $1")
            .bind(id)
            .bind(change.posted)
            .bind(change.held)
            .execute(&mut *connection)
            .await?;
        must_touch("key_balances", done.rows_affected(), 1)?;
    }
    for month in &changes.months {
        let done = sqlx::query(
            "INSERT INTO monthly_spend (project_id, starts_at, ends_at, spent) VALUES ($1, $2, $3, $4)
             ON CONFLICT (project_id, starts_at) DO UPDATE SET spent = monthly_spend.spent + excluded.spent",
        )
        .bind(month.project_id)
        .bind(month.starts_at.micros())
        .bind(month.ends_at.micros())
        .bind(month.spent)
        .execute(&mut *connection)
        .await?;
        must_touch("monthly_spend", done.rows_affected(), 1)?;
    }
    for count in &changes.counts {
        let done = sqlx::query(
            "INSERT INTO request_counts (project_id, second, model, requests, images) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (project_id, second, model) DO UPDATE
             SET requests = request_counts.requests + excluded.requests,
                 images = request_counts.images + excluded.images",
        )
        .bind(count.project_id)
        .bind(count.second)
        .bind(count.model.as_str())
        .bind(count.requests)
        .bind(count.images)
        .execute(&mut *connection)
        .await?;
        must_touch("request_counts", done.rows_affected(), 1)?;
    }
    Ok(())
}
