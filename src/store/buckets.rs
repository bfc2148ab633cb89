//! The statements behind usage and costs. Both have three sources that must tell the same: the rows themselves, and the sums
//! of days that the database keeps beside them, by everything but the user (`usage_days`) and by model only
//! (`usage_day_models`).

use sqlx::QueryBuilder;

use super::connection::{on_both, within};
use super::usage::Row;
use super::{Store, StoreError, UsageDimension, UsageQuery};

/// Where the numbers of a bucket come from.
pub(super) struct Source {
    /// The time that decides on the bucket.
    time: &'static str,
    /// What stands before the columns that are grouped and filtered by.
    prefix: &'static str,
    /// How an empty size is written.
    size: &'static str,
    /// The numbers, in the order of [`Row`].
    sums: &'static str,
    /// The tables, with a condition to which others are added.
    tables: &'static str,
    /// Which groups are left out.
    having: &'static str,
}

/// Usage from the settled generations.
pub(super) const USAGE: Source = Source {
    time: "settled_at",
    prefix: "",
    size: "size",
    sums: "COUNT(*) FILTER (WHERE state = 'succeeded') AS requests,
         COUNT(*) FILTER (WHERE state <> 'succeeded') AS failures,
         CAST(SUM(images) AS BIGINT) AS images, CAST(SUM(megapixels) AS BIGINT) AS megapixels,
         CAST(SUM(price) AS BIGINT) AS price, CAST(SUM(cost) AS BIGINT) AS cost",
    // What came to light after an end counts as cost when it did, and as nothing else.
    tables: "(SELECT settled_at, project_id, api_key_id, end_user, model, requested_model, size, source, state, images, megapixels, price, cost
          FROM generations WHERE settled_at IS NOT NULL
          UNION ALL
          SELECT late_at, project_id, api_key_id, end_user, model, requested_model, size, source, NULL, 0, 0, 0, late_cost
          FROM generations WHERE late_at IS NOT NULL AND late_cost > 0) settled WHERE TRUE",
    having: "",
};

/// The same from the sums of whole days.
pub(super) const USAGE_OF_DAYS: Source = Source {
    time: "day",
    prefix: "",
    size: "NULLIF(size, '') AS size",
    sums: "CAST(SUM(requests) AS BIGINT) AS requests, CAST(SUM(failures) AS BIGINT) AS failures,
         CAST(SUM(images) AS BIGINT) AS images, CAST(SUM(megapixels) AS BIGINT) AS megapixels,
         CAST(SUM(price) AS BIGINT) AS price, CAST(SUM(cost) AS BIGINT) AS cost",
    tables: "usage_days WHERE TRUE",
    having: " HAVING SUM(requests) + SUM(failures) > 0 OR SUM(cost) > 0",
};

/// The same from the sums of whole days by model only.
pub(super) const USAGE_OF_MODELS: Source = Source { tables: "usage_day_models WHERE TRUE", ..USAGE_OF_DAYS };

/// Costs from the ledger.
pub(super) const COSTS: Source = Source {
    time: "t.created_at",
    prefix: "g.",
    size: "g.size",
    sums: "CAST(0 AS BIGINT) AS requests, CAST(0 AS BIGINT) AS failures,
         CAST(SUM(CASE WHEN t.kind = 'settlement' THEN g.images ELSE 0 END) AS BIGINT) AS images,
         CAST(0 AS BIGINT) AS megapixels, CAST(SUM(t.revenue) AS BIGINT) AS price, CAST(0 AS BIGINT) AS cost",
    tables: "ledger_transactions t
         JOIN generations g ON g.id = t.generation_id WHERE t.revenue <> 0",
    having: "",
};

/// The same from the sums of whole days.
pub(super) const COSTS_OF_DAYS: Source = Source {
    time: "day",
    prefix: "",
    size: "NULLIF(size, '') AS size",
    sums: "CAST(0 AS BIGINT) AS requests, CAST(0 AS BIGINT) AS failures,
         CAST(SUM(charged_images) AS BIGINT) AS images, CAST(0 AS BIGINT) AS megapixels,
         CAST(SUM(price - refunded) AS BIGINT) AS price, CAST(0 AS BIGINT) AS cost",
    tables: "usage_days WHERE TRUE",
    having: " HAVING SUM(charges) + SUM(refunds) > 0",
};

/// The same from the sums of whole days by model only.
pub(super) const COSTS_OF_MODELS: Source = Source { tables: "usage_day_models WHERE TRUE", ..COSTS_OF_DAYS };

/// The columns that can be grouped by, with what stands for one that is not.
const COLUMNS: [(UsageDimension, &str, &str); 7] = [
    (UsageDimension::Project, "project_id", "UUID"),
    (UsageDimension::User, "end_user", "TEXT"),
    (UsageDimension::Key, "api_key_id", "UUID"),
    (UsageDimension::Model, "model", "TEXT"),
    (UsageDimension::RequestedModel, "requested_model", "TEXT"),
    (UsageDimension::Size, "size", "TEXT"),
    (UsageDimension::Source, "source", "TEXT"),
];

impl Store {
    /// What happened from `from` to `before` (microseconds), by bucket and group, ordered by bucket.
    pub(super) async fn bucket_rows(
        &self,
        source: &Source,
        query: &UsageQuery,
        from: i64,
        before: i64,
    ) -> Result<Vec<Row>, StoreError> {
        let Source { time, prefix, size, sums, tables, having } = source;
        let filter = &query.filter;
        within(self.options().report_timeout, async {
            let mut reader =
                self.report_reader(filter.projects.first().copied().filter(|_| filter.projects.len() == 1)).await?;
            on_both!(reader.connection(), connection => {
                // A time is never negative here, so the remainder is the way into the bucket.
                let mut sql = QueryBuilder::new("SELECT ");
                sql.push(format_args!("{time} - {time} % {} AS bucket", query.bucket.micros()));
                let mut groups = String::from("1");
                for (index, (dimension, column, kind)) in COLUMNS.iter().enumerate() {
                    if !query.group_by.contains(dimension) {
                        sql.push(format_args!(", CAST(NULL AS {kind}) AS {column}"));
                        continue;
                    }
                    match dimension {
                        UsageDimension::Size => sql.push(format_args!(", {size}")),
                        // Stored only where it is another than the model's id.
                        UsageDimension::RequestedModel => sql.push(format_args!(
                            ", COALESCE({prefix}requested_model, {prefix}model) AS requested_model"
                        )),
                        _ => sql.push(format_args!(", {prefix}{column}")),
                    };
                    groups = format!("{groups}, {}", index + 2);
                }
                sql.push(format_args!(", {sums} FROM {tables} AND {time} >= "));
                sql.push_bind(from).push(format_args!(" AND {time} < ")).push_bind(before);
                for (column, ids) in [
                    ("project_id", filter.projects.iter().map(|id| id.uuid()).collect::<Vec<_>>()),
                    ("api_key_id", filter.keys.iter().map(|id| id.uuid()).collect()),
                ] {
                    if !ids.is_empty() {
                        sql.push(format_args!(" AND {prefix}{column} IN ("));
                        let mut list = sql.separated(", ");
                        for id in ids {
                            list.push_bind(id);
                        }
                        sql.push(")");
                    }
                }
                for (column, words) in [
                    ("end_user", &filter.users),
                    ("model", &filter.models),
                    ("size", &filter.sizes),
                    ("source", &filter.sources),
                ] {
                    if !words.is_empty() {
                        sql.push(format_args!(" AND {prefix}{column} IN ("));
                        let mut list = sql.separated(", ");
                        for word in words {
                            list.push_bind(word.as_str());
                        }
                        sql.push(")");
                    }
                }
                sql.push(format_args!(" GROUP BY {groups}{having} ORDER BY {groups}"));
                Ok(sql.build_query_as::<Row>().fetch_all(connection).await?)
            })
        })
        .await
    }
}
