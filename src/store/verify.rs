//! The check that recomputes everything that is kept beside the ledger.

use sqlx::{AssertSqlSafe, FromRow};
use uuid::Uuid;

use super::connection::{on_both, within};
use super::rows::Discrepancy;
use super::{Store, StoreError};

#[derive(FromRow)]
struct Difference {
    subject: Uuid,
    found: i64,
    expected: i64,
}

impl Difference {
    fn discrepancy(self, what: &str) -> Discrepancy {
        Discrepancy {
            what: what.to_owned(),
            subject: self.subject.to_string(),
            found: self.found.to_string(),
            expected: self.expected.to_string(),
        }
    }
}

/// The generations of months that were not dropped: the sums of the others are in `dropped_usage_days`, also while some of
/// their rows are still there.
pub(super) const KEPT: &str = "(SELECT * FROM generations k WHERE NOT EXISTS (
    SELECT 1 FROM dropped_months d WHERE k.id >= d.first_id AND k.id < d.before_id))";

/// The events that the projections show.
const PROJECTED: &str = "(SELECT l.* FROM ledger_events l LEFT JOIN event_projections s ON s.writer = l.writer
    WHERE s.writer IS NULL OR l.seq <= s.projected_seq) shown";

/// What must be equal, and the query for the rows where it is not.
const CHECKS: [(&str, &str); 19] = [
    (
        "the sum of the entries of a ledger transaction",
        "SELECT transaction_id AS subject, CAST(SUM(amount) AS BIGINT) AS found, CAST(0 AS BIGINT) AS expected
         FROM ledger_entries GROUP BY transaction_id HAVING SUM(amount) <> 0",
    ),
    (
        "the number of entries of a ledger transaction (at least two)",
        "SELECT t.id AS subject, COUNT(e.amount) AS found, CAST(2 AS BIGINT) AS expected
         FROM ledger_transactions t LEFT JOIN ledger_entries e ON e.transaction_id = t.id
         GROUP BY t.id HAVING COUNT(e.amount) < 2",
    ),
    (
        "the posted balance of a project",
        "SELECT b.project_id AS subject, b.posted AS found, COALESCE(s.sum, 0) AS expected
         FROM balances b LEFT JOIN (
             SELECT project_id, CAST(SUM(project) AS BIGINT) AS sum FROM ledger_events
             GROUP BY project_id) s ON s.project_id = b.project_id
         WHERE b.posted <> COALESCE(s.sum, 0)",
    ),
    (
        "the held balance of a project",
        "SELECT b.project_id AS subject, b.held AS found, COALESCE(s.sum, 0) AS expected
         FROM balances b LEFT JOIN (
             SELECT project_id, CAST(SUM(held) AS BIGINT) AS sum FROM ledger_events
             GROUP BY project_id) s ON s.project_id = b.project_id
         WHERE b.held <> COALESCE(s.sum, 0)",
    ),
    (
        "the number of open generations of a project",
        "SELECT b.project_id AS subject, b.open_generations AS found, COALESCE(s.count, 0) AS expected
         FROM balances b LEFT JOIN (
             SELECT project_id, CAST(SUM(opened) AS BIGINT) AS count FROM ledger_events
             GROUP BY project_id) s ON s.project_id = b.project_id
         WHERE b.open_generations <> COALESCE(s.count, 0)",
    ),
    (
        "what a key has spent",
        "SELECT b.api_key_id AS subject, b.spent AS found, COALESCE(s.sum, 0) AS expected
         FROM key_balances b LEFT JOIN (
             SELECT api_key_id, CAST(SUM(revenue) AS BIGINT) AS sum FROM ledger_events
             GROUP BY api_key_id) s ON s.api_key_id = b.api_key_id
         WHERE b.spent <> COALESCE(s.sum, 0)",
    ),
    (
        "what is held for a key",
        "SELECT b.api_key_id AS subject, b.held AS found, COALESCE(s.sum, 0) AS expected
         FROM key_balances b LEFT JOIN (
             SELECT api_key_id, CAST(SUM(held) AS BIGINT) AS sum FROM ledger_events
             GROUP BY api_key_id) s ON s.api_key_id = b.api_key_id
         WHERE b.held <> COALESCE(s.sum, 0)",
    ),
    (
        "what a project was charged in a month",
        "SELECT m.project_id AS subject, m.spent AS found, COALESCE((
             SELECT CAST(SUM(e.revenue) AS BIGINT) FROM ledger_events e
             WHERE e.project_id = m.project_id AND e.at >= m.starts_at AND e.at < m.ends_at), 0) AS expected
         FROM monthly_spend m
         WHERE m.spent <> COALESCE((
             SELECT CAST(SUM(e.revenue) AS BIGINT) FROM ledger_events e
             WHERE e.project_id = m.project_id AND e.at >= m.starts_at AND e.at < m.ends_at), 0)",
    ),
    (
        "what all months of a project were charged",
        "SELECT p.id AS subject, COALESCE(m.sum, 0) AS found, COALESCE(s.sum, 0) AS expected
         FROM projects p LEFT JOIN (
             SELECT project_id, CAST(SUM(spent) AS BIGINT) AS sum FROM monthly_spend GROUP BY project_id) m
             ON m.project_id = p.id
         LEFT JOIN (
             SELECT project_id, CAST(SUM(revenue) AS BIGINT) AS sum FROM ledger_events
             GROUP BY project_id) s ON s.project_id = p.id
         WHERE COALESCE(m.sum, 0) <> COALESCE(s.sum, 0)",
    ),
    (
        "the number of ends of a generation (at most one)",
        "SELECT stream_id AS subject, COUNT(*) AS found, CAST(1 AS BIGINT) AS expected
         FROM ledger_events WHERE opened = -1 GROUP BY stream_id HAVING COUNT(*) > 1",
    ),
    (
        "what a project's transactions add up to",
        "SELECT p.id AS subject, COALESCE(t.sum, 0) AS found, COALESCE(e.sum, 0) AS expected
         FROM projects p
         LEFT JOIN (SELECT project_id, CAST(SUM(project) AS BIGINT) AS sum FROM ledger_transactions GROUP BY project_id) t
             ON t.project_id = p.id
         LEFT JOIN (SELECT project_id, CAST(SUM(project) AS BIGINT) AS sum FROM {projected} GROUP BY project_id) e
             ON e.project_id = p.id
         WHERE COALESCE(t.sum, 0) <> COALESCE(e.sum, 0)",
    ),
    (
        "what a project's transactions have cost us",
        "SELECT p.id AS subject, COALESCE(t.sum, 0) AS found, COALESCE(e.sum, 0) AS expected
         FROM projects p
         LEFT JOIN (SELECT project_id, CAST(SUM(cost_of_sales) AS BIGINT) AS sum FROM ledger_transactions
                    GROUP BY project_id) t ON t.project_id = p.id
         LEFT JOIN (SELECT project_id, CAST(SUM(cost_of_sales) AS BIGINT) AS sum FROM {projected} GROUP BY project_id) e
             ON e.project_id = p.id
         WHERE COALESCE(t.sum, 0) <> COALESCE(e.sum, 0)",
    ),
    (
        "the holds of a project's open generations",
        "SELECT p.id AS subject, COALESCE(g.sum, 0) AS found, COALESCE(e.sum, 0) AS expected
         FROM projects p
         LEFT JOIN (SELECT project_id, CAST(SUM(hold) AS BIGINT) AS sum FROM generations WHERE state IN ('queued', 'running')
                    GROUP BY project_id) g ON g.project_id = p.id
         LEFT JOIN (SELECT project_id, CAST(SUM(held) AS BIGINT) AS sum FROM {projected} GROUP BY project_id) e
             ON e.project_id = p.id
         WHERE COALESCE(g.sum, 0) <> COALESCE(e.sum, 0)",
    ),
    (
        "the price in the ledger of a generation",
        "SELECT g.id AS subject, COALESCE(t.revenue, 0) AS found, COALESCE(g.price, 0) AS expected
         FROM generations g LEFT JOIN ledger_transactions t ON t.id = g.id
         WHERE COALESCE(t.revenue, 0) <> COALESCE(g.price, 0)
         UNION ALL
         SELECT id AS subject, price AS found, hold AS expected FROM generations WHERE price > hold",
    ),
    (
        "the cost in the ledger of a generation",
        "SELECT g.id AS subject, COALESCE(t.cost_of_sales, 0) AS found, COALESCE(g.cost, 0) + g.late_cost AS expected
         FROM generations g LEFT JOIN ledger_transactions t ON t.id = g.id
         WHERE COALESCE(t.cost_of_sales, 0) <> COALESCE(g.cost, 0) + g.late_cost",
    ),
    (
        // Without the provider's id nobody could find on its bill what was paid.
        "the number of attempts of a generation that has cost us (at least one)",
        "SELECT g.id AS subject, CAST(0 AS BIGINT) AS found, CAST(1 AS BIGINT) AS expected
         FROM generations g WHERE g.cost + g.late_cost > 0
             AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.generation_id = g.id)",
    ),
    (
        "the generation of an attempt or a charge (whether it is there)",
        "SELECT r.generation_id AS subject, CAST(0 AS BIGINT) AS found, CAST(1 AS BIGINT) AS expected
         FROM (SELECT generation_id FROM attempts UNION ALL
               SELECT generation_id FROM ledger_transactions WHERE generation_id IS NOT NULL) r
         LEFT JOIN generations g ON g.id = r.generation_id
         WHERE g.id IS NULL AND NOT EXISTS (
             SELECT 1 FROM dropped_months d WHERE r.generation_id >= d.first_id AND r.generation_id < d.before_id)",
    ),
    (
        "the usage of a project on a day (the first number that differs)",
        "SELECT project_id AS subject,
             CASE WHEN SUM(sign * price) <> 0 THEN CAST(SUM(CASE WHEN sign > 0 THEN price ELSE 0 END) AS BIGINT)
                  WHEN SUM(sign * cost) <> 0 THEN CAST(SUM(CASE WHEN sign > 0 THEN cost ELSE 0 END) AS BIGINT)
                  WHEN SUM(sign * refunded) <> 0 THEN CAST(SUM(CASE WHEN sign > 0 THEN refunded ELSE 0 END) AS BIGINT)
                  WHEN SUM(sign * images) <> 0 THEN CAST(SUM(CASE WHEN sign > 0 THEN images ELSE 0 END) AS BIGINT)
                  WHEN SUM(sign * megapixels) <> 0 THEN CAST(SUM(CASE WHEN sign > 0 THEN megapixels ELSE 0 END) AS BIGINT)
                  ELSE CAST(SUM(CASE WHEN sign > 0 THEN requests + failures ELSE 0 END) AS BIGINT) END AS found,
             CASE WHEN SUM(sign * price) <> 0 THEN CAST(SUM(CASE WHEN sign < 0 THEN price ELSE 0 END) AS BIGINT)
                  WHEN SUM(sign * cost) <> 0 THEN CAST(SUM(CASE WHEN sign < 0 THEN cost ELSE 0 END) AS BIGINT)
                  WHEN SUM(sign * refunded) <> 0 THEN CAST(SUM(CASE WHEN sign < 0 THEN refunded ELSE 0 END) AS BIGINT)
                  WHEN SUM(sign * images) <> 0 THEN CAST(SUM(CASE WHEN sign < 0 THEN images ELSE 0 END) AS BIGINT)
                  WHEN SUM(sign * megapixels) <> 0 THEN CAST(SUM(CASE WHEN sign < 0 THEN megapixels ELSE 0 END) AS BIGINT)
                  ELSE CAST(SUM(CASE WHEN sign < 0 THEN requests + failures ELSE 0 END) AS BIGINT) END AS expected
         FROM (
             SELECT 1 AS sign, day, project_id, api_key_id, model, source, size, requests, failures, images, megapixels,
                 price, cost, charges, charged_images, refunds, refunded
             FROM usage_days
             UNION ALL
             SELECT -1, settled_at - settled_at % 86400000000, project_id, api_key_id, model, source, COALESCE(size, ''),
                 CASE WHEN state = 'succeeded' THEN 1 ELSE 0 END, CASE WHEN state = 'succeeded' THEN 0 ELSE 1 END,
                 images, megapixels, price, cost, CASE WHEN price > 0 THEN 1 ELSE 0 END,
                 CASE WHEN price > 0 THEN images ELSE 0 END, 0, 0
             FROM {generations} g WHERE settled_at IS NOT NULL
             UNION ALL
             SELECT -1, late_at - late_at % 86400000000, project_id, api_key_id, model, source, COALESCE(size, ''), 0, 0,
                 0, 0, 0, late_cost, 0, 0, 0, 0
             FROM {generations} g WHERE late_at IS NOT NULL
             UNION ALL
             SELECT -1, day, project_id, api_key_id, model, source, size, requests, failures, images, megapixels,
                 price, cost, charges, charged_images, refunds, refunded
             FROM dropped_usage_days
             UNION ALL
             SELECT -1, t.created_at - t.created_at % 86400000000, t.project_id, COALESCE(g.api_key_id, {nobody}),
                 COALESCE(g.model, '(dropped)'), COALESCE(g.source, '(dropped)'), COALESCE(g.size, ''),
                 0, 0, 0, 0, 0, 0, 0, 0, 1, -t.revenue
             FROM ledger_transactions t LEFT JOIN {generations} g ON g.id = t.generation_id
             WHERE t.kind = 'refund' AND NOT EXISTS (
                 SELECT 1 FROM dropped_refunds r WHERE r.transaction_id = t.id)) both_sides
         GROUP BY day, project_id, api_key_id, model, source, size
         HAVING SUM(sign * price) <> 0 OR SUM(sign * cost) <> 0 OR SUM(sign * refunded) <> 0 OR SUM(sign * images) <> 0
             OR SUM(sign * megapixels) <> 0 OR SUM(sign * requests) <> 0 OR SUM(sign * failures) <> 0
             OR SUM(sign * charges) <> 0 OR SUM(sign * charged_images) <> 0 OR SUM(sign * refunds) <> 0",
    ),
    (
        "the usage of a project on a day by model (its price, of any number that differs)",
        "SELECT project_id AS subject, CAST(SUM(CASE WHEN sign > 0 THEN price ELSE 0 END) AS BIGINT) AS found,
             CAST(SUM(CASE WHEN sign < 0 THEN price ELSE 0 END) AS BIGINT) AS expected
         FROM (
             SELECT 1 AS sign, day, project_id, model, requests, failures, images, megapixels, price, cost, charges,
                 charged_images, refunds, refunded
             FROM usage_day_models
             UNION ALL
             SELECT -1, day, project_id, model, requests, failures, images, megapixels, price, cost, charges,
                 charged_images, refunds, refunded
             FROM usage_days) both_sides
         GROUP BY day, project_id, model
         HAVING SUM(sign * price) <> 0 OR SUM(sign * cost) <> 0 OR SUM(sign * refunded) <> 0 OR SUM(sign * images) <> 0
             OR SUM(sign * megapixels) <> 0 OR SUM(sign * requests) <> 0 OR SUM(sign * failures) <> 0
             OR SUM(sign * charges) <> 0 OR SUM(sign * charged_images) <> 0 OR SUM(sign * refunds) <> 0",
    ),
];

impl Store {
    /// The id of no key, as SQL.
    pub(super) fn nobody(&self) -> &'static str {
        if self.is_postgres() { "CAST('00000000-0000-0000-0000-000000000000' AS UUID)" } else { "zeroblob(16)" }
    }

    /// Recomputes all that is kept beside the ledger, in one snapshot; empty when everything adds up.
    pub async fn verify(&self) -> Result<Vec<Discrepancy>, StoreError> {
        within(self.options().report_timeout, async {
            let mut discrepancies = Vec::new();
            let nobody = self.nobody();
            let mut snapshot = self.snapshot().await?;
            on_both!(snapshot.connection(), connection => {
                for (what, sql) in CHECKS {
                    let sql = AssertSqlSafe(sql.replace("{generations}", KEPT).replace("{projected}", PROJECTED).replace("{nobody}", nobody));
                    let rows = sqlx::query_as::<_, Difference>(sql).fetch_all(&mut *connection).await?;
                    discrepancies.extend(rows.into_iter().map(|row| row.discrepancy(what)));
                }
            });
            snapshot.commit().await?;
            Ok(discrepancies)
        })
        .await
    }
}
