//! Writing the sums that are kept beside the ledger: balances, keys, months, and what was asked for in a second.

use uuid::Uuid;

use super::StoreError;
use super::error::must_touch;
use super::limits::CountRow;
use crate::domain::Timestamp;

/// By how much the kept sums of a project change, and what they must be for that.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BalanceChange {
    pub(crate) posted: i64,
    pub(crate) held: i64,
    /// How many of its generations are open.
    pub(crate) open: i64,
    /// The version of the sums that was decided on, where the decision depends on them.
    pub(crate) version: Option<i64>,
    /// The version of the terms that was decided on, where the decision depends on them.
    pub(crate) terms_version: Option<i64>,
}

/// By how much the kept sums of a key change.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct KeyChange {
    pub(crate) spent: i64,
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
    pub(crate) keys: Vec<(Uuid, KeyChange)>,
    pub(crate) months: Vec<MonthlyCharge>,
    /// What was reserved under rate limits.
    pub(crate) counts: Vec<CountRow>,
}

impl SumChanges {
    pub(super) fn is_empty(&self) -> bool {
        self.balances.is_empty() && self.keys.is_empty() && self.months.is_empty() && self.counts.is_empty()
    }
}

/// Changes the kept sums; the new versions of the projects' ones.
pub(super) async fn change_sqlite(
    connection: &mut sqlx::SqliteConnection,
    changes: &SumChanges,
) -> Result<Vec<(Uuid, i64)>, StoreError> {
    let mut versions = Vec::with_capacity(changes.balances.len());
    for (id, change) in &changes.balances {
        let version = sqlx::query_scalar::<_, i64>(
            "UPDATE balances SET posted = posted + $2, held = held + $3, open_generations = open_generations + $4,
                 version = version + 1
             WHERE project_id = $1 AND version = COALESCE($5, version) AND terms_version = COALESCE($6, terms_version)
             RETURNING version",
        )
        .bind(id)
        .bind(change.posted)
        .bind(change.held)
        .bind(change.open)
        .bind(change.version)
        .bind(change.terms_version)
        .fetch_optional(&mut *connection)
        .await?;
        versions.push((*id, version.ok_or_else(|| StoreError::Conflict("a balance has changed".to_owned()))?));
    }
    for (id, change) in &changes.keys {
        let done = sqlx::query("UPDATE key_balances SET spent = spent + $2, held = held + $3 WHERE api_key_id = $1")
            .bind(id)
            .bind(change.spent)
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
    Ok(versions)
}
