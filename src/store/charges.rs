//! What was charged and given back, in the order of the ledger: for billing systems and for comparing with the provider.

use sqlx::FromRow;
use uuid::Uuid;

use super::connection::{on_both, within};
use super::{GenerationState, Store, StoreError, TransactionKind};
use crate::domain::{ApiKeyId, Fixed, GenerationId, Money, ProjectId, Timestamp};

/// A settlement or a refund, with what it was for. Of a generation whose month was dropped only what the ledger has is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargeRecord {
    /// Of the ledger transaction; a settlement has its generation's.
    pub id: Uuid,
    /// Settlement or refund.
    pub kind: TransactionKind,
    /// When it was settled or given back.
    pub at: Timestamp,
    /// What was charged; below zero what was given back.
    pub amount: Money,
    /// What the provider charges us; zero for a refund.
    pub cost: Money,
    /// The generation.
    pub generation: GenerationId,
    /// How it ended.
    pub state: Option<GenerationState>,
    /// Who pays.
    pub project_id: ProjectId,
    /// Who asked.
    pub api_key_id: Option<ApiKeyId>,
    /// The customer's own name for its user.
    pub user: Option<String>,
    /// Our id of the model.
    pub model: Option<String>,
    /// What kind of use it was.
    pub source: Option<String>,
    /// The ordered size.
    pub size: Option<String>,
    /// Images delivered; zero for a refund.
    pub images: Option<u32>,
    /// Their megapixels; zero for a refund.
    pub megapixels: Option<Fixed>,
}

/// Which settlements and refunds to read.
#[derive(Debug, Clone, Copy)]
pub struct ChargeFilter {
    /// At this time or later.
    pub from: Timestamp,
    /// Before this time.
    pub before: Timestamp,
    /// Of this project.
    pub project_id: Option<ProjectId>,
    /// Beyond this one: time and id of the last of the page before.
    pub after: Option<(Timestamp, Uuid)>,
    /// How many at most.
    pub limit: u32,
}

/// What a submit to the provider cost us, as we know it.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct BilledAttempt {
    /// The provider's id of the request.
    pub provider_request_id: String,
    /// The generation.
    pub generation_id: Uuid,
    /// The provider's endpoint.
    pub endpoint: String,
    /// In nano-dollars; `None` while it runs, or where a fallback took its place.
    pub cost: Option<i64>,
    /// When it ended, in microseconds; `None` while it runs.
    pub ended_at: Option<i64>,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    kind: String,
    created_at: i64,
    amount: i64,
    generation_id: Uuid,
    state: Option<String>,
    project_id: Uuid,
    api_key_id: Option<Uuid>,
    end_user: Option<String>,
    model: Option<String>,
    source: Option<String>,
    size: Option<String>,
    images: Option<i64>,
    megapixels: Option<i64>,
    cost: i64,
}

impl TryFrom<Row> for ChargeRecord {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let kind: TransactionKind = row.kind.parse()?;
        let settled = kind == TransactionKind::Settlement;
        let of_settlement = |number: Option<i64>| if settled { number } else { Some(0) };
        Ok(Self {
            id: row.id,
            kind,
            at: Timestamp::from_micros(row.created_at),
            amount: Money::from_nanos(row.amount),
            cost: Money::from_nanos(row.cost),
            generation: GenerationId::from_uuid(row.generation_id),
            state: row.state.map(|state| state.parse()).transpose()?,
            project_id: ProjectId::from_uuid(row.project_id),
            api_key_id: row.api_key_id.map(ApiKeyId::from_uuid),
            user: row.end_user,
            model: row.model,
            source: row.source,
            size: row.size,
            images: of_settlement(row.images).map(|images| u32::try_from(images).unwrap_or(0)),
            megapixels: of_settlement(row.megapixels).map(Fixed::from_billionths),
        })
    }
}

impl Store {
    /// Settlements and refunds, oldest first.
    pub async fn charges(&self, filter: &ChargeFilter) -> Result<Vec<ChargeRecord>, StoreError> {
        // No transaction has the nil id, so that everything at `from` is beyond it.
        let (at, id) = filter.after.unwrap_or((filter.from, Uuid::nil()));
        let rows = within(self.options().report_timeout, async {
            let mut reader = self.report_reader(filter.project_id).await?;
            Ok(on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, Row>(
                    "SELECT t.id, t.kind, t.created_at, t.revenue AS amount, t.generation_id, g.state,
                         t.project_id, g.api_key_id, g.end_user, g.model, g.source, g.size,
                         CASE WHEN g.id IS NOT NULL THEN COALESCE(g.images, 0) END AS images,
                         CASE WHEN g.id IS NOT NULL THEN COALESCE(g.megapixels, 0) END AS megapixels,
                         t.cost_of_sales AS cost
                     FROM ledger_transactions t LEFT JOIN generations g ON g.id = t.generation_id
                     WHERE t.kind IN ('settlement', 'refund') AND t.created_at >= $1 AND t.created_at < $2 AND (t.created_at > $1 OR t.id > $3)
                         AND t.project_id = COALESCE($4, t.project_id)
                     ORDER BY t.created_at, t.id LIMIT $5")
                    .bind(at.micros()).bind(filter.before.micros()).bind(id)
                    .bind(filter.project_id.map(ProjectId::uuid)).bind(i64::from(filter.limit))
                    .fetch_all(connection).await)?)
        })
        .await?;
        rows.into_iter().map(ChargeRecord::try_from).collect()
    }

    /// The submits of at most `limit` generations that were settled from `from` to `before`, by the ids of the generations,
    /// after the generation `after`; and the last of these generations, if there may be more.
    pub async fn settled_attempts(
        &self,
        from: Timestamp,
        before: Timestamp,
        after: Uuid,
        limit: u32,
    ) -> Result<(Vec<BilledAttempt>, Option<Uuid>), StoreError> {
        within(self.options().report_timeout, async {
            let mut reader = self.reader().await?;
            on_both!(reader.connection(), connection => {
                let ids = sqlx::query_scalar::<_, Uuid>(
                    "SELECT id FROM generations WHERE settled_at >= $1 AND settled_at < $2 AND id > $3
                     ORDER BY id LIMIT $4")
                    .bind(from.micros()).bind(before.micros()).bind(after).bind(i64::from(limit))
                    .fetch_all(&mut *connection).await?;
                let Some(last) = ids.last().copied() else { return Ok((Vec::new(), None)) };
                let rows = sqlx::query_as::<_, BilledAttempt>(
                    "SELECT a.provider_request_id, a.generation_id, a.endpoint,
                         CASE WHEN a.replaced_at IS NULL THEN g.cost + g.late_cost END AS cost,
                         COALESCE(a.replaced_at, g.settled_at) AS ended_at
                     FROM attempts a JOIN generations g ON g.id = a.generation_id
                     WHERE a.generation_id > $3 AND a.generation_id <= $4
                         AND g.settled_at >= $1 AND g.settled_at < $2
                     ORDER BY a.generation_id, a.n")
                    .bind(from.micros()).bind(before.micros()).bind(after).bind(last)
                    .fetch_all(connection).await?;
                Ok((rows, (ids.len() >= limit as usize).then_some(last)))
            })
        })
        .await
    }

    /// The submits that the provider knows by these ids, also of generations whose month was dropped.
    pub async fn attempts_of_requests(&self, requests: &[String]) -> Result<Vec<BilledAttempt>, StoreError> {
        let mut found = Vec::new();
        let mut reader = self.reader().await?;
        for request in requests {
            let rows = within(self.options().read_timeout, async {
                Ok(on_both!(reader.connection(), connection =>
                    sqlx::query_as::<_, BilledAttempt>(
                        "SELECT a.provider_request_id, a.generation_id, a.endpoint,
                             CASE WHEN a.replaced_at IS NULL THEN COALESCE(g.cost + g.late_cost, t.cost_of_sales) END AS cost,
                             COALESCE(a.replaced_at, g.settled_at, t.created_at) AS ended_at
                         FROM attempts a LEFT JOIN generations g ON g.id = a.generation_id
                             LEFT JOIN ledger_transactions t ON t.id = a.generation_id
                         WHERE a.provider_request_id = $1")
                        .bind(request.as_str()).fetch_all(connection).await)?)
            })
            .await?;
            found.extend(rows);
        }
        Ok(found)
    }
}
