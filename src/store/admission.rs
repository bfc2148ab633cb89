//! What is read of a project and a key before the body of a request is.

use sqlx::FromRow;

use super::connection::{on_both, within};
use super::limits::{CountRow, RateRow};
use super::{ANY_MODEL, Store, StoreError};
use crate::domain::{ApiKeyId, ProjectId, Timestamp};

/// What a project and a key may spend and have used, in nanodollars.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct AdmissionRow {
    pub(crate) prepaid: bool,
    pub(crate) spend_limit: Option<i64>,
    pub(crate) concurrency_limit: Option<i64>,
    pub(crate) posted: i64,
    pub(crate) held: i64,
    pub(crate) open_generations: i64,
    pub(crate) spent_this_month: i64,
    pub(crate) key_budget: Option<i64>,
    pub(crate) key_spent: i64,
    pub(crate) key_held: i64,
    /// Whether the project has used this idempotency key before.
    pub(crate) is_repeated: bool,
    /// Whether any model is limited in how often the project may ask for it.
    pub(crate) has_rate_limits: bool,
}

impl Store {
    /// What a project and a key may still spend in the month that begins at `month`; `None` if there is no such project or key.
    pub(crate) async fn admission(
        &self,
        project: ProjectId,
        key: ApiKeyId,
        idempotency_key: Option<&str>,
        month: Timestamp,
    ) -> Result<Option<AdmissionRow>, StoreError> {
        within(self.options().read_timeout, async {
            let mut reader = self.reader_as_is().await?;
            Ok(on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, AdmissionRow>(
                    "SELECT p.prepaid, p.spend_limit, p.concurrency_limit, b.posted, b.held, b.open_generations,
                         COALESCE(m.spent, 0) AS spent_this_month, k.budget AS key_budget, kb.spent AS key_spent,
                         kb.held AS key_held,
                         EXISTS (SELECT 1 FROM idempotency_keys i WHERE i.project_id = p.id AND i.key = $3) AS is_repeated,
                         EXISTS (SELECT 1 FROM rate_limits r WHERE r.project_id = p.id) AS has_rate_limits
                     FROM projects p JOIN balances b ON b.project_id = p.id JOIN api_keys k ON k.id = $2
                     JOIN key_balances kb ON kb.api_key_id = k.id
                     LEFT JOIN monthly_spend m ON m.project_id = p.id AND m.starts_at = $4
                     WHERE p.id = $1")
                    .bind(project.uuid()).bind(key.uuid()).bind(idempotency_key).bind(month.micros())
                    .fetch_optional(connection).await)?)
        })
        .await
    }

    /// The rate limits of a project that may apply to a model, and what was reserved of it from this second on.
    pub(crate) async fn rates_of_model(
        &self,
        project: ProjectId,
        model: &str,
        since: i64,
    ) -> Result<(Vec<RateRow>, Vec<CountRow>), StoreError> {
        within(self.options().read_timeout, async {
            let mut reader = self.reader().await?;
            Ok(on_both!(reader.connection(), connection => {
                let rules = sqlx::query_as::<_, RateRow>(
                    "SELECT project_id, model, requests_per_minute, images_per_minute FROM rate_limits
                     WHERE project_id = $1 AND model IN ($2, $3)")
                    .bind(project.uuid()).bind(model).bind(ANY_MODEL)
                    .fetch_all(&mut *connection).await?;
                let counts = sqlx::query_as::<_, CountRow>(
                    "SELECT project_id, model, second, requests, images FROM request_counts
                     WHERE project_id = $1 AND model = $2 AND second >= $3")
                    .bind(project.uuid()).bind(model).bind(since)
                    .fetch_all(connection).await?;
                (rules, counts)
            }))
        })
        .await
    }
}
