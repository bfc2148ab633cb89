//! Costs: what the projects pay, straight from the ledger's entries, in buckets of the ledger's time (UTC).

use sqlx::QueryBuilder;

use super::connection::{on_both, within};
use super::usage::{COLUMNS, Row, Span};
use super::{Store, StoreError, UsagePage, UsageQuery};

impl Store {
    /// The sum of the ledger's `revenue` entries: settlements under the time of their settlement, refunds under their
    /// own. In the rows `price` is that sum and `images` what was delivered; the rest is zero.
    pub async fn costs(&self, query: &UsageQuery) -> Result<UsagePage, StoreError> {
        let span = Span::of(query);
        let filter = &query.filter;
        let rows = within(self.options().report_timeout, async {
            let mut reader = self.reader().await?;
            on_both!(reader.connection(), connection => {
                // A time is never negative here, so the remainder is the way into the bucket.
                let mut sql = QueryBuilder::new("SELECT t.created_at - t.created_at % ");
                sql.push(query.bucket.micros()).push(" AS bucket");
                let mut groups = String::from(" GROUP BY 1");
                for (index, (dimension, column, kind)) in COLUMNS.iter().enumerate() {
                    if query.group_by.contains(dimension) {
                        sql.push(format_args!(", g.{column}"));
                        groups = format!("{groups}, {}", index + 2);
                    } else {
                        sql.push(format_args!(", CAST(NULL AS {kind}) AS {column}"));
                    }
                }
                sql.push(
                    ", CAST(0 AS BIGINT) AS requests, CAST(0 AS BIGINT) AS failures,
                     CAST(SUM(CASE WHEN t.kind = 'settlement' THEN g.images ELSE 0 END) AS BIGINT) AS images,
                     CAST(0 AS BIGINT) AS megapixels, CAST(SUM(e.amount) AS BIGINT) AS price, CAST(0 AS BIGINT) AS cost
                     FROM ledger_transactions t
                     JOIN ledger_entries e ON e.transaction_id = t.id AND e.account = 'revenue'
                     JOIN generations g ON g.id = t.generation_id
                     WHERE t.created_at >= ");
                sql.push_bind(span.from).push(" AND t.created_at < ").push_bind(span.before);
                for (column, ids) in [
                    ("t.project_id", filter.projects.iter().map(|id| id.uuid()).collect::<Vec<_>>()),
                    ("g.api_key_id", filter.keys.iter().map(|id| id.uuid()).collect()),
                ] {
                    if !ids.is_empty() {
                        sql.push(format_args!(" AND {column} IN ("));
                        let mut list = sql.separated(", ");
                        for id in ids {
                            list.push_bind(id);
                        }
                        sql.push(")");
                    }
                }
                if !filter.models.is_empty() {
                    sql.push(" AND g.model IN (");
                    let mut list = sql.separated(", ");
                    for model in &filter.models {
                        list.push_bind(model.as_str());
                    }
                    sql.push(")");
                }
                let order = groups.replace("GROUP", "ORDER");
                sql.push(groups).push(order);
                Ok(sql.build_query_as::<Row>().fetch_all(connection).await?)
            })
        })
        .await?;
        Ok(span.page(query, rows))
    }
}
