//! A project's own ledger: what was paid in, charged and given back, newest first.

use sqlx::FromRow;
use uuid::Uuid;

use super::connection::{on_both, within};
use super::{Store, StoreError, TransactionKind};
use crate::domain::{GenerationId, Money, ProjectId, Timestamp};

/// A ledger transaction as the project sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionRecord {
    /// Its id; a settlement has its generation's.
    pub id: Uuid,
    /// What it is.
    pub kind: TransactionKind,
    /// When it was booked.
    pub at: Timestamp,
    /// What it adds to the project's balance; below zero for a charge, never zero.
    pub amount: Money,
    /// The generation of a settlement or refund.
    pub generation: Option<GenerationId>,
    /// Its model, while the generation is kept.
    pub model: Option<String>,
}

/// Which transactions to read.
#[derive(Debug, Clone, Copy)]
pub struct TransactionFilter {
    /// Of this project.
    pub project_id: ProjectId,
    /// At this time or later.
    pub from: Timestamp,
    /// Before this time.
    pub before: Timestamp,
    /// Only those that add to the balance, or only those that take from it.
    pub adds: Option<bool>,
    /// Only those of this kind.
    pub kind: Option<TransactionKind>,
    /// Beyond this one: time and id of the last of the page before.
    pub after: Option<(Timestamp, Uuid)>,
    /// How many at most.
    pub limit: u32,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    kind: String,
    created_at: i64,
    amount: i64,
    generation_id: Option<Uuid>,
    model: Option<String>,
}

impl TryFrom<Row> for TransactionRecord {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            kind: row.kind.parse()?,
            at: Timestamp::from_micros(row.created_at),
            amount: Money::from_nanos(row.amount),
            generation: row.generation_id.map(GenerationId::from_uuid),
            model: row.model,
        })
    }
}

impl Store {
    /// The transactions of a project that change its balance, newest first.
    pub async fn transactions(&self, filter: &TransactionFilter) -> Result<Vec<TransactionRecord>, StoreError> {
        let (at, id) = filter.after.unwrap_or((Timestamp::from_micros(i64::MAX), Uuid::nil()));
        let sign = filter.adds.map_or(0_i64, |adds| if adds { 1 } else { -1 });
        let kind = filter.kind.map(TransactionKind::as_str).unwrap_or_default();
        let rows = within(self.options().report_timeout, async {
            let mut reader = self.report_reader(Some(filter.project_id)).await?;
            Ok(on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, Row>(
                    "SELECT t.id, t.kind, t.created_at, t.project AS amount, t.generation_id, g.model
                     FROM ledger_transactions t LEFT JOIN generations g ON g.id = t.generation_id
                     WHERE t.project_id = $1 AND t.project <> 0 AND t.created_at >= $2 AND t.created_at < $3
                         AND (t.created_at < $4 OR t.created_at = $4 AND t.id < $5)
                         AND ($6 = 0 OR t.project * $6 > 0) AND ($7 = '' OR t.kind = $7)
                     ORDER BY t.created_at DESC, t.id DESC LIMIT $8")
                    .bind(filter.project_id.uuid()).bind(filter.from.micros()).bind(filter.before.micros())
                    .bind(at.micros()).bind(id).bind(sign).bind(kind).bind(i64::from(filter.limit))
                    .fetch_all(connection).await)?)
        })
        .await?;
        rows.into_iter().map(TransactionRecord::try_from).collect()
    }

    /// How long the latest successful generations of a project took, by model, in microseconds: those that ended at `from`
    /// or later, at most `limit`.
    pub async fn durations(
        &self,
        project: ProjectId,
        from: Timestamp,
        limit: u32,
    ) -> Result<Vec<(String, i64)>, StoreError> {
        within(self.options().report_timeout, async {
            let mut reader = self.report_reader(Some(project)).await?;
            Ok(on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, (String, i64)>(
                    "SELECT g.model, g.settled_at - g.created_at AS took FROM generations g
                     WHERE g.settled_at >= $1 AND g.project_id = $2 AND g.state = 'succeeded'
                     ORDER BY g.settled_at DESC LIMIT $3")
                    .bind(from.micros()).bind(project.uuid()).bind(i64::from(limit))
                    .fetch_all(connection).await)?)
        })
        .await
    }
}
