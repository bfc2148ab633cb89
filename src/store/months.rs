//! Months of generations that go: what of one is there, the sums that are kept of it, and its rows.

use std::time::Duration;

use sqlx::FromRow;
use uuid::Uuid;

use super::connection::{AnyConnection, Either, WriteTransaction, on_both, within};
use super::maintenance::{PARTITIONS_LOCK, smallest_id};
use super::{AuditRecord, Store, StoreError};
use crate::domain::{GenerationId, ProjectId, Timestamp};

/// The longest that adding up or taking away a month may take.
const LONGEST: Duration = Duration::from_mins(30);
/// How many rows one transaction deletes.
const ROUND: i64 = 5000;
/// How often the table is asked for, for an instant, that requests use all the time.
const TRIES: u32 = 60;
/// How long one try may keep requests waiting.
const TRY_FOR: Duration = Duration::from_secs(1);

/// A calendar month in UTC, as the tables know it.
#[derive(Debug, Clone)]
pub(crate) struct MonthRange {
    /// As in the name of its partition: `2026_05`.
    pub(crate) name: String,
    /// Its first moment.
    pub(crate) from: Timestamp,
    /// The next month's.
    pub(crate) before: Timestamp,
}

impl MonthRange {
    fn ids(&self) -> (Uuid, Uuid) {
        (smallest_id(self.from), smallest_id(self.before))
    }

    fn table(&self) -> String {
        format!("generations_{}", self.name)
    }
}

/// What there is of a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromRow)]
pub struct MonthContent {
    /// Its generations, whatever became of them.
    pub generations: i64,
    /// Those that have not ended.
    pub open: i64,
    /// Idempotency keys of them that still count.
    pub live_keys: i64,
    /// Calls to customers about them that are still to be made.
    pub pending_webhooks: i64,
    /// Whether dropping it has begun.
    pub is_dropped: bool,
}

impl WriteTransaction {
    /// Keeps months from being dropped until this transaction ends; on SQLite there is one writer anyway.
    pub(crate) async fn hold_months(&mut self) -> Result<(), StoreError> {
        if let Either::Postgres(connection) = self.connection() {
            sqlx::query("SELECT pg_advisory_xact_lock_shared($1)").bind(PARTITIONS_LOCK).execute(connection).await?;
        }
        Ok(())
    }

    /// Whether a generation is of a month that was dropped. To be asked after [`Self::hold_months`].
    pub(crate) async fn is_dropped(&mut self, generation: GenerationId) -> Result<bool, StoreError> {
        Ok(on_both!(self.connection(), connection =>
            sqlx::query_scalar::<_, bool>(
                "SELECT COUNT(*) > 0 FROM dropped_months WHERE first_id <= $1 AND before_id > $1")
                .bind(generation.uuid()).fetch_one(connection).await)?)
    }

    /// Whom the ledger has charged for a generation.
    pub(crate) async fn charged_project(&mut self, generation: GenerationId) -> Result<Option<Uuid>, StoreError> {
        Ok(on_both!(self.connection(), connection =>
            sqlx::query_scalar::<_, Uuid>("SELECT project_id FROM ledger_transactions WHERE id = $1 AND kind = 'settlement'")
                .bind(generation.uuid()).fetch_optional(connection).await)?)
    }
}

impl Store {
    /// Who pays for a generation: as its row says, or the ledger where its month was dropped.
    pub(crate) async fn payer(&self, generation: GenerationId) -> Result<Option<ProjectId>, StoreError> {
        within(self.options().read_timeout, async {
            let mut reader = self.reader().await?;
            let found = on_both!(reader.connection(), connection =>
                sqlx::query_scalar::<_, Uuid>(
                    "SELECT project_id FROM generations WHERE id = $1 UNION ALL
                     SELECT project_id FROM ledger_transactions WHERE id = $1 AND kind = 'settlement' LIMIT 1")
                    .bind(generation.uuid()).fetch_optional(connection).await)?;
            Ok(found.map(ProjectId::from_uuid))
        })
        .await
    }

    /// What there is of a month at `now`.
    pub(crate) async fn month_content(&self, month: &MonthRange, now: Timestamp) -> Result<MonthContent, StoreError> {
        within(LONGEST, async {
            let mut snapshot = self.snapshot().await?;
            allow(snapshot.connection(), LONGEST).await?;
            let content = content(snapshot.connection(), month, now).await?;
            snapshot.commit().await?;
            Ok(content)
        })
        .await
    }

    /// Begins to drop a month that nothing stands against: adds up what is lost with its rows. From then on the books do not
    /// look at them any more. Returns what was there; nothing is changed unless that may be dropped.
    pub(crate) async fn begin_drop(
        &self,
        month: &MonthRange,
        now: Timestamp,
        audit: &AuditRecord,
        may_go: impl Fn(&MonthContent) -> bool,
    ) -> Result<MonthContent, StoreError> {
        let (first, before) = month.ids();
        within(LONGEST, async {
            let mut transaction = self.begin().await?;
            allow(transaction.connection(), LONGEST).await?;
            if let Either::Postgres(connection) = transaction.connection() {
                // Refunds wait meanwhile, and nobody else.
                sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(PARTITIONS_LOCK).execute(connection).await?;
            }
            let found = content(transaction.connection(), month, now).await?;
            if found.is_dropped || !may_go(&found) {
                transaction.commit().await?;
                return Ok(found);
            }
            on_both!(transaction.connection(), connection => {
                sqlx::query(
                    "INSERT INTO dropped_months (starts_at, ends_at, first_id, before_id, generations, begun_at)
                     VALUES ($1, $2, $3, $4, $5, $6)")
                    .bind(month.from.micros()).bind(month.before.micros()).bind(first).bind(before)
                    .bind(found.generations).bind(now.micros()).execute(&mut *connection).await?;
                sqlx::query(
                    "INSERT INTO dropped_refunds (transaction_id) SELECT id FROM ledger_transactions
                     WHERE kind = 'refund' AND generation_id >= $1 AND generation_id < $2")
                    .bind(first).bind(before).execute(&mut *connection).await?;
                sqlx::query(
                    "INSERT INTO dropped_usage_days (month, day, project_id, api_key_id, model, source, size, requests,
                         failures, images, megapixels, price, cost, charges, charged_images, refunds, refunded)
                     SELECT CAST($1 AS BIGINT), day, project_id, api_key_id, model, source, size, SUM(requests), SUM(failures),
                         CAST(SUM(images) AS BIGINT), CAST(SUM(megapixels) AS BIGINT), CAST(SUM(price) AS BIGINT),
                         CAST(SUM(cost) AS BIGINT), SUM(charges), CAST(SUM(charged_images) AS BIGINT), SUM(refunds),
                         CAST(SUM(refunded) AS BIGINT)
                     FROM (
                         SELECT settled_at - settled_at % 86400000000 AS day, project_id, api_key_id, model, source,
                             COALESCE(size, '') AS size, CASE WHEN state = 'succeeded' THEN 1 ELSE 0 END AS requests,
                             CASE WHEN state = 'succeeded' THEN 0 ELSE 1 END AS failures, images, megapixels, price, cost,
                             CASE WHEN price > 0 THEN 1 ELSE 0 END AS charges,
                             CASE WHEN price > 0 THEN images ELSE 0 END AS charged_images, 0 AS refunds, 0 AS refunded
                         FROM generations WHERE id >= $2 AND id < $3 AND settled_at IS NOT NULL
                         UNION ALL
                         SELECT late_at - late_at % 86400000000, project_id, api_key_id, model, source, COALESCE(size, ''),
                             0, 0, 0, 0, 0, late_cost, 0, 0, 0, 0
                         FROM generations WHERE id >= $2 AND id < $3 AND late_at IS NOT NULL
                         UNION ALL
                         SELECT t.created_at - t.created_at % 86400000000, g.project_id, g.api_key_id, g.model, g.source,
                             COALESCE(g.size, ''), 0, 0, 0, 0, 0, 0, 0, 0, 1, -t.revenue
                         FROM ledger_transactions t JOIN generations g ON g.id = t.generation_id
                         WHERE t.kind = 'refund' AND t.generation_id >= $2 AND t.generation_id < $3
                             AND g.id >= $2 AND g.id < $3) both_kinds
                     GROUP BY day, project_id, api_key_id, model, source, size")
                    .bind(month.from.micros()).bind(first).bind(before).execute(connection).await?;
            });
            transaction.insert_audit(audit).await?;
            transaction.commit().await?;
            Ok(found)
        })
        .await
    }

    /// Takes away the rows of a month whose dropping has begun; again after it broke off is fine.
    pub(crate) async fn finish_drop(&self, month: &MonthRange, now: Timestamp) -> Result<(), StoreError> {
        self.forget_references(month).await?;
        if self.is_postgres() {
            self.drop_partition(month).await?;
        }
        while self.delete_generations(month).await? > 0 {}
        within(self.options().write_timeout, async {
            let mut transaction = self.begin().await?;
            on_both!(transaction.connection(), connection =>
                sqlx::query("UPDATE dropped_months SET dropped_at = $2 WHERE starts_at = $1 AND dropped_at IS NULL")
                    .bind(month.from.micros()).bind(now.micros()).execute(connection).await.map(drop))?;
            transaction.commit().await
        })
        .await
    }

    /// Deletes what refers to generations of the month and is of no use without them.
    async fn forget_references(&self, month: &MonthRange) -> Result<(), StoreError> {
        let (first, before) = month.ids();
        within(LONGEST, async {
            let mut transaction = self.begin().await?;
            allow(transaction.connection(), LONGEST).await?;
            on_both!(transaction.connection(), connection => {
                sqlx::query("DELETE FROM idempotency_keys WHERE generation_id >= $1 AND generation_id < $2")
                    .bind(first).bind(before).execute(&mut *connection).await?;
                sqlx::query("DELETE FROM unanswered_requests WHERE generation_id >= $1 AND generation_id < $2")
                    .bind(first).bind(before).execute(&mut *connection).await?;
                sqlx::query(
                    "DELETE FROM webhook_attempts WHERE delivery_id IN (
                         SELECT id FROM webhook_deliveries WHERE generation_id >= $1 AND generation_id < $2)")
                    .bind(first).bind(before).execute(&mut *connection).await?;
                sqlx::query("DELETE FROM webhook_deliveries WHERE generation_id >= $1 AND generation_id < $2")
                    .bind(first).bind(before).execute(connection).await?;
            });
            transaction.commit().await
        })
        .await
    }

    /// Detaches the month's partition and drops it, if it has one. The parent is locked for an instant: rather than keep
    /// requests waiting behind a long report, it is tried again.
    async fn drop_partition(&self, month: &MonthRange) -> Result<(), StoreError> {
        let mut tries = 1;
        loop {
            let dropped = within(LONGEST, async {
                let mut transaction = self.begin().await?;
                allow(transaction.connection(), LONGEST).await?;
                if let Either::Postgres(connection) = transaction.connection() {
                    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(PARTITIONS_LOCK).execute(&mut *connection).await?;
                    let table = month.table();
                    let there: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
                        .bind(&table).fetch_one(&mut *connection).await?;
                    if there {
                        // The name is made here from a month, never from what somebody sent.
                        let statements = format!(
                            "SET LOCAL lock_timeout = {}; ALTER TABLE generations DETACH PARTITION {table}; DROP TABLE {table}",
                            TRY_FOR.as_millis());
                        sqlx::raw_sql(sqlx::AssertSqlSafe(statements)).execute(connection).await?;
                    }
                }
                transaction.commit().await
            })
            .await;
            match dropped {
                Err(StoreError::Unreachable(_) | StoreError::Conflict(_)) if tries < TRIES => tries += 1,
                outcome => return outcome,
            }
            tokio::time::sleep(TRY_FOR).await;
        }
    }

    /// Deletes some generations of the month: those of the default partition, or of SQLite's one table. How many.
    async fn delete_generations(&self, month: &MonthRange) -> Result<u64, StoreError> {
        let (first, before) = month.ids();
        within(LONGEST, async {
            let mut transaction = self.begin().await?;
            allow(transaction.connection(), LONGEST).await?;
            let deleted = match transaction.connection() {
                Either::Postgres(connection) => sqlx::query(
                    "DELETE FROM generations_default WHERE id = ANY(ARRAY(
                         SELECT id FROM generations_default WHERE id >= $1 AND id < $2 ORDER BY id LIMIT $3))",
                )
                .bind(first)
                .bind(before)
                .bind(ROUND)
                .execute(connection)
                .await?
                .rows_affected(),
                Either::Sqlite(connection) => sqlx::query(
                    "DELETE FROM generations WHERE id IN (
                         SELECT id FROM generations WHERE id >= $1 AND id < $2 ORDER BY id LIMIT $3)",
                )
                .bind(first)
                .bind(before)
                .bind(ROUND)
                .execute(connection)
                .await?
                .rows_affected(),
            };
            transaction.commit().await?;
            Ok(deleted)
        })
        .await
    }
}

/// Lets the statements of this transaction take longer than a request's.
pub(super) async fn allow(connection: AnyConnection<'_>, longest: Duration) -> Result<(), StoreError> {
    if let Either::Postgres(connection) = connection {
        let millis = longest.as_millis();
        let limits = format!("SET LOCAL statement_timeout = {millis}; SET LOCAL lock_timeout = {millis}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(limits)).execute(connection).await?;
    }
    Ok(())
}

async fn content(
    connection: AnyConnection<'_>,
    month: &MonthRange,
    now: Timestamp,
) -> Result<MonthContent, StoreError> {
    let (first, before) = month.ids();
    Ok(on_both!(connection, connection =>
        sqlx::query_as::<_, MonthContent>(
            "SELECT (SELECT COUNT(*) FROM generations WHERE id >= $1 AND id < $2) AS generations,
                 (SELECT COUNT(*) FROM generations WHERE id >= $1 AND id < $2 AND settled_at IS NULL) AS open,
                 (SELECT COUNT(*) FROM idempotency_keys WHERE generation_id >= $1 AND generation_id < $2
                      AND expires_at > $3) AS live_keys,
                 (SELECT COUNT(*) FROM webhook_deliveries WHERE generation_id >= $1 AND generation_id < $2
                      AND state = 'pending') AS pending_webhooks,
                 (SELECT COUNT(*) > 0 FROM dropped_months WHERE starts_at = $4) AS is_dropped")
            .bind(first).bind(before).bind(now.micros()).bind(month.from.micros()).fetch_one(connection).await)?)
}
