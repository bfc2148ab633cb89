//! Making the projections again from the events: what is missing comes back, and what differs is put right.

use std::collections::HashSet;
use std::time::Duration;

use uuid::Uuid;

use super::connection::{Either, WriteTransaction, on_both, select_by_ids, within};
use super::months::allow;
use super::projecting::Round;
use super::rows::Finish;
use super::streams::{EventRow, select_events};
use super::{Store, StoreError};
use crate::domain::Fixed;

/// How many streams one transaction rebuilds.
const ROUND: i64 = 500;

/// The longest that one transaction may take; adding up the days of a large database takes the longest.
const LONGEST: Duration = Duration::from_mins(30);

/// What was made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rebuilt {
    /// Generations, credits and refunds that were gone through.
    pub streams: u64,
    /// Generations that the projections lacked.
    pub missing: u64,
    /// Generations whose end was shown otherwise than it was booked.
    pub changed: u64,
}

/// The sums of days from the rows that they are the sums of, in the columns of `usage_days`.
const DAYS: &str = "
    SELECT day, project_id, api_key_id, model, source, size, CAST(SUM(requests) AS BIGINT), CAST(SUM(failures) AS BIGINT),
        CAST(SUM(images) AS BIGINT), CAST(SUM(megapixels) AS BIGINT), CAST(SUM(price) AS BIGINT), CAST(SUM(cost) AS BIGINT),
        CAST(SUM(charges) AS BIGINT), CAST(SUM(charged_images) AS BIGINT), CAST(SUM(refunds) AS BIGINT),
        CAST(SUM(refunded) AS BIGINT)
    FROM (
        SELECT settled_at - settled_at % 86400000000 AS day, project_id, api_key_id, model, source,
            COALESCE(size, '') AS size, CASE WHEN state = 'succeeded' THEN 1 ELSE 0 END AS requests,
            CASE WHEN state = 'succeeded' THEN 0 ELSE 1 END AS failures, images, megapixels, price, cost,
            CASE WHEN price > 0 THEN 1 ELSE 0 END AS charges, CASE WHEN price > 0 THEN images ELSE 0 END AS charged_images,
            0 AS refunds, 0 AS refunded
        FROM {generations} g WHERE settled_at IS NOT NULL
        UNION ALL
        SELECT late_at - late_at % 86400000000, project_id, api_key_id, model, source, COALESCE(size, ''), 0, 0, 0, 0, 0,
            late_cost, 0, 0, 0, 0
        FROM {generations} g WHERE late_at IS NOT NULL AND late_cost > 0
        UNION ALL
        SELECT day, project_id, api_key_id, model, source, size, requests, failures, images, megapixels, price, cost,
            charges, charged_images, refunds, refunded
        FROM dropped_usage_days
        UNION ALL
        SELECT t.created_at - t.created_at % 86400000000, t.project_id, COALESCE(g.api_key_id, {nobody}),
            COALESCE(g.model, '(dropped)'), COALESCE(g.source, '(dropped)'), COALESCE(g.size, ''),
            0, 0, 0, 0, 0, 0, 0, 0, 1, -t.revenue
        FROM ledger_transactions t LEFT JOIN {generations} g ON g.id = t.generation_id
        WHERE t.kind = 'refund' AND NOT EXISTS (SELECT 1 FROM dropped_refunds r WHERE r.transaction_id = t.id)) parts
    GROUP BY day, project_id, api_key_id, model, source, size";

impl Store {
    /// Makes generations, attempts, ledger transactions and the sums of days again from the events. Requests go on meanwhile;
    /// reports wait for one round at a time. Generations of months that were dropped stay away.
    ///
    /// # Errors
    ///
    /// The database's; what is done until then stays, and it can be run again.
    pub async fn rebuild(&self) -> Result<Rebuilt, StoreError> {
        let mut rebuilt = Rebuilt::default();
        let mut after = Uuid::nil();
        while let Some(last) = within(LONGEST, self.rebuild_round(after, &mut rebuilt)).await? {
            after = last;
        }
        within(LONGEST, self.rebuild_days()).await?;
        Ok(rebuilt)
    }

    /// Rebuilds the streams that follow `after`; the last of them, or `None` where there are no more.
    async fn rebuild_round(&self, after: Uuid, rebuilt: &mut Rebuilt) -> Result<Option<Uuid>, StoreError> {
        self.catch_up().await?;
        let mut transaction = self.begin_projecting().await?;
        allow(transaction.connection(), LONGEST).await?;
        let streams = on_both!(transaction.connection(), connection =>
            sqlx::query_scalar::<_, Uuid>(
                "SELECT DISTINCT stream_id FROM ledger_events WHERE stream_id > $1 ORDER BY stream_id LIMIT $2")
                .bind(after).bind(ROUND).fetch_all(connection).await)?;
        let Some(last) = streams.last().copied() else { return Ok(None) };
        let rows = transaction.shown_events(after, last).await?;
        let dropped = transaction.dropped_streams(&streams).await?;
        let known: HashSet<Uuid> = transaction.known_generations(&streams).await?.into_iter().collect();
        let of = |here: bool| {
            rows.iter()
                .filter(|row| !dropped.contains(&row.stream_id) && known.contains(&row.stream_id) == here)
                .cloned()
                .collect::<Vec<_>>()
        };
        let missing = Round::new(&of(false))?;
        rebuilt.missing += missing.generations() as u64;
        transaction.forget_attempts(&missing.generation_ids()).await?;
        transaction.write_again(missing).await?;
        for finish in Round::new(&of(true))?.finishes() {
            rebuilt.changed += transaction.put_end_right(finish).await?;
        }
        transaction.commit().await?;
        rebuilt.streams += streams.len() as u64;
        Ok(Some(last))
    }

    /// Adds up the days again.
    async fn rebuild_days(&self) -> Result<(), StoreError> {
        self.catch_up().await?;
        let nobody = self.nobody();
        let mut transaction = self.begin_projecting().await?;
        allow(transaction.connection(), LONGEST).await?;
        let days = DAYS.replace("{generations}", super::verify::KEPT).replace("{nobody}", nobody);
        let insert = format!(
            "INSERT INTO usage_days (day, project_id, api_key_id, model, source, size, requests, failures, images, megapixels,
                 price, cost, charges, charged_images, refunds, refunded) {days}"
        );
        on_both!(transaction.connection(), connection => {
            sqlx::query("DELETE FROM usage_days WHERE day IS NOT NULL").execute(&mut *connection).await?;
            sqlx::query("DELETE FROM usage_day_models WHERE day IS NOT NULL").execute(&mut *connection).await?;
            sqlx::query(sqlx::AssertSqlSafe(insert)).execute(&mut *connection).await?;
            sqlx::query(
                "INSERT INTO usage_day_models (day, project_id, model, requests, failures, images, megapixels, price, cost,
                     charges, charged_images, refunds, refunded)
                 SELECT day, project_id, model, CAST(SUM(requests) AS BIGINT), CAST(SUM(failures) AS BIGINT),
                     CAST(SUM(images) AS BIGINT), CAST(SUM(megapixels) AS BIGINT), CAST(SUM(price) AS BIGINT),
                     CAST(SUM(cost) AS BIGINT), CAST(SUM(charges) AS BIGINT), CAST(SUM(charged_images) AS BIGINT),
                     CAST(SUM(refunds) AS BIGINT), CAST(SUM(refunded) AS BIGINT)
                 FROM usage_days GROUP BY day, project_id, model")
                .execute(connection).await?;
        });
        transaction.commit().await
    }
}

impl WriteTransaction {
    /// The events of the streams after one and up to another that the projections show.
    async fn shown_events(&mut self, after: Uuid, last: Uuid) -> Result<Vec<EventRow>, StoreError> {
        Ok(on_both!(self.connection(), connection =>
            sqlx::query_as::<_, EventRow>(select_events!(
                " WHERE stream_id > $1 AND stream_id <= $2 AND NOT EXISTS (
                      SELECT 1 FROM event_projections p WHERE p.writer = ledger_events.writer
                          AND ledger_events.seq > p.projected_seq)
                  ORDER BY stream_id, n"))
                .bind(after).bind(last).fetch_all(connection).await)?)
    }

    /// Those of these streams whose months were dropped.
    async fn dropped_streams(&mut self, streams: &[Uuid]) -> Result<HashSet<Uuid>, StoreError> {
        let months = on_both!(self.connection(), connection =>
            sqlx::query_as::<_, (Uuid, Uuid)>("SELECT first_id, before_id FROM dropped_months").fetch_all(connection).await)?;
        let dropped = |id: &Uuid| months.iter().any(|(first, before)| first <= id && id < before);
        Ok(streams.iter().copied().filter(dropped).collect())
    }

    /// Deletes the attempts of generations that are not there.
    async fn forget_attempts(&mut self, generations: &[Uuid]) -> Result<(), StoreError> {
        for id in generations {
            on_both!(self.connection(), connection =>
                sqlx::query("DELETE FROM attempts WHERE generation_id = $1").bind(id).execute(connection).await.map(drop))?;
        }
        Ok(())
    }

    /// Writes rows that are missing; their ledger transactions and webhooks may be there.
    async fn write_again(&mut self, mut round: Round) -> Result<(), StoreError> {
        let ids = round.generation_ids();
        let booked =
            select_by_ids!(self.connection(), (Uuid,), "SELECT id FROM ledger_transactions WHERE id", &ids, "", "")?;
        let booked: HashSet<Uuid> = booked.into_iter().map(|(id,)| id).collect();
        round.without_transactions(&booked);
        self.write_round(&round).await
    }

    /// Has a generation show the end that was booked. How many rows that changed.
    async fn put_end_right(&mut self, f: &Finish) -> Result<u64, StoreError> {
        macro_rules! put {
            ($differs:literal) => {
                concat!(
                    "UPDATE generations SET state = $2, settled_at = $3, price = $4, cost = $5, cost_source = $6,
                         billable_units = $7, unit_price = $8, images = $9, megapixels = $10, reason = COALESCE(reason, $11),
                         model = COALESCE($12, model)
                     WHERE id = $1 AND late_at IS NULL AND (state <> $2 OR settled_at ",
                    $differs,
                    " $3 OR price ",
                    $differs,
                    " $4 OR cost ",
                    $differs,
                    " $5 OR images ",
                    $differs,
                    " $9 OR megapixels ",
                    $differs,
                    " $10)"
                )
            };
        }
        macro_rules! run {
            ($connection:ident, $sql:expr) => {
                sqlx::query($sql)
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
                    .bind(super::reserving::without_nul(&f.reason))
                    .bind(f.model.as_deref().map(super::reserving::without_nul))
                    .execute($connection)
                    .await?
                    .rows_affected()
            };
        }
        Ok(match self.connection() {
            Either::Postgres(connection) => run!(connection, put!("IS DISTINCT FROM")),
            Either::Sqlite(connection) => run!(connection, put!("IS NOT")),
        })
    }
}
