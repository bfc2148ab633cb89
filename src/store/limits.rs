//! Reading what counts under limits: months, the organization, what is open, what was asked for in the last minute.

use sqlx::FromRow;
use uuid::Uuid;

use super::StoreError;
use super::connection::{Either, WriteTransaction, json_list, select_by_ids};
use crate::domain::Timestamp;

/// How much of a model a project may ask for in a minute.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct RateRow {
    pub(crate) project_id: Uuid,
    pub(crate) model: String,
    pub(crate) requests_per_minute: Option<i64>,
    pub(crate) images_per_minute: Option<i64>,
}

/// What a project reserved of a model in a second.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct CountRow {
    pub(crate) project_id: Uuid,
    pub(crate) model: String,
    pub(crate) second: i64,
    pub(crate) requests: i64,
    pub(crate) images: i64,
}

/// What a project was charged in a month.
#[derive(Debug, Clone)]
pub(crate) struct MonthRow {
    pub(crate) project_id: Uuid,
    pub(crate) starts_at: i64,
    pub(crate) spent: i64,
}

/// Which limits there are to be read about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// What projects were charged in the months from this one on; `None` where no project has a limit.
    pub(crate) months_from: Option<Timestamp>,
    /// The same of all projects together, and what all hold.
    pub(crate) organization_from: Option<Timestamp>,
    /// Rate limits, and what was reserved under them since this second.
    pub(crate) counts_since: Option<i64>,
}

/// What a key may do.
#[derive(Debug, Clone)]
pub(crate) struct KeyTerms {
    pub(crate) id: Uuid,
    pub(crate) project_id: Option<Uuid>,
    pub(crate) revoked_at: Option<i64>,
    pub(crate) expires_at: Option<i64>,
    pub(crate) budget: Option<i64>,
    pub(crate) spent: i64,
    pub(crate) held: i64,
}

/// What counts under the limits.
#[derive(Debug, Clone, Default)]
pub(crate) struct LimitRows {
    pub(crate) keys: Vec<KeyTerms>,
    pub(crate) months: Vec<MonthRow>,
    /// By the beginning of a month, what all projects together were charged in it.
    pub(crate) all_months: Vec<(i64, i64)>,
    /// What all projects together hold.
    pub(crate) all_held: i64,
    pub(crate) rates: Vec<RateRow>,
    pub(crate) counts: Vec<CountRow>,
}

/// A row of the one statement that reads all of it; what the columns hold depends on `kind`.
#[derive(FromRow)]
struct AnyRow {
    kind: String,
    project_id: Option<Uuid>,
    key_id: Option<Uuid>,
    model: String,
    a: Option<i64>,
    b: Option<i64>,
    c: Option<i64>,
    d: Option<i64>,
    e: Option<i64>,
}

/// One statement, because each is a round trip and a settlement must be seen whole: it moves money from what is held to
/// what was spent. `$1` is the list of projects, `$5` that of keys; `$2` to `$4` are null for what is not asked. The first
/// part gives the columns their types.
macro_rules! limit_rows {
    ($are_listed:literal, $is_listed:literal) => {
        concat!(
            "SELECT 'key' AS kind, project_id, id AS key_id, '' AS model, revoked_at AS a, expires_at AS b, budget AS c,
                 spent AS d, held AS e
             FROM api_keys JOIN key_balances ON api_key_id = id WHERE id ",
            $are_listed,
            " UNION ALL
             SELECT 'month', project_id, NULL, '', starts_at, spent, NULL, NULL, NULL
             FROM monthly_spend WHERE starts_at >= $2 AND project_id ",
            $is_listed,
            " UNION ALL
             SELECT 'all_months', NULL, NULL, '', starts_at, CAST(SUM(spent) AS BIGINT), NULL, NULL, NULL
             FROM monthly_spend WHERE starts_at >= $3 GROUP BY starts_at
             UNION ALL
             SELECT 'all_held', NULL, NULL, '', CAST(SUM(held) AS BIGINT), NULL, NULL, NULL, NULL
             FROM balances WHERE CAST($3 AS BIGINT) IS NOT NULL
             UNION ALL
             SELECT 'rate', project_id, NULL, model, requests_per_minute, images_per_minute, NULL, NULL, NULL
             FROM rate_limits WHERE CAST($4 AS BIGINT) IS NOT NULL AND project_id ",
            $is_listed,
            " UNION ALL
             SELECT 'count', project_id, NULL, model, second, requests, images, NULL, NULL
             FROM request_counts WHERE second >= $4 AND project_id ",
            $is_listed
        )
    };
}

impl WriteTransaction {
    /// The rate limits of these projects.
    pub(crate) async fn rate_limits(&mut self, projects: &[Uuid]) -> Result<Vec<RateRow>, StoreError> {
        Ok(select_by_ids!(
            self.connection(),
            RateRow,
            "SELECT project_id, model, requests_per_minute, images_per_minute FROM rate_limits WHERE project_id",
            projects,
            "",
            ""
        )?)
    }

    /// Reads what these keys may do, and what counts under the limits of these projects. To be called after everything
    /// is locked.
    pub(crate) async fn limits(
        &mut self,
        projects: &[Uuid],
        keys: &[Uuid],
        asked: Asked,
    ) -> Result<LimitRows, StoreError> {
        let months = asked.months_from.map(Timestamp::micros);
        let organization = asked.organization_from.map(Timestamp::micros);
        let rows: Vec<AnyRow> = match self.connection() {
            Either::Postgres(connection) => {
                sqlx::query_as(limit_rows!("= ANY($5)", "= ANY($1)"))
                    .bind(projects)
                    .bind(months)
                    .bind(organization)
                    .bind(asked.counts_since)
                    .bind(keys)
                    .fetch_all(connection)
                    .await?
            }
            Either::Sqlite(connection) => {
                sqlx::query_as(limit_rows!(
                    "IN (SELECT unhex(value) FROM json_each($5))",
                    "IN (SELECT unhex(value) FROM json_each($1))"
                ))
                .bind(json_list(projects))
                .bind(months)
                .bind(organization)
                .bind(asked.counts_since)
                .bind(json_list(keys))
                .fetch_all(connection)
                .await?
            }
        };
        Ok(sort(rows))
    }
}

fn sort(rows: Vec<AnyRow>) -> LimitRows {
    let mut sorted = LimitRows::default();
    for AnyRow { kind, project_id, key_id, model, a, b, c, d, e } in rows {
        let (first, second, third) = (a.unwrap_or(0), b.unwrap_or(0), c.unwrap_or(0));
        match (kind.as_str(), project_id) {
            ("month", Some(project_id)) => {
                sorted.months.push(MonthRow { project_id, starts_at: first, spent: second });
            }
            ("key", _) => sorted.keys.extend(key_id.map(|id| KeyTerms {
                id,
                project_id,
                revoked_at: a,
                expires_at: b,
                budget: c,
                spent: d.unwrap_or(0),
                held: e.unwrap_or(0),
            })),
            ("all_months", _) => sorted.all_months.push((first, second)),
            ("all_held", _) => sorted.all_held = first,
            ("rate", Some(project_id)) => {
                sorted.rates.push(RateRow { project_id, model, requests_per_minute: a, images_per_minute: b });
            }
            ("count", Some(project_id)) => {
                sorted.counts.push(CountRow { project_id, model, second: first, requests: second, images: third });
            }
            _ => {}
        }
    }
    sorted
}
