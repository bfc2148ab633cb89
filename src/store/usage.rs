//! Usage: what was made and what it cost, in buckets of settlement time (UTC).

use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::connection::{on_both, within};
use super::words::GenerationState;
use super::{Store, StoreError};
use crate::domain::{ApiKeyId, Fixed, Money, ProjectId, Timestamp};

/// The most buckets on one page.
const MOST_BUCKETS: u32 = 1500;

/// How wide a bucket is. Buckets begin at multiples of their width since the epoch: whole minutes, hours, days in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BucketWidth {
    /// `1m`
    Minute,
    /// `1h`
    Hour,
    /// `1d`
    Day,
}

impl BucketWidth {
    /// In microseconds.
    #[must_use]
    pub const fn micros(self) -> i64 {
        match self {
            Self::Minute => 60_000_000,
            Self::Hour => 3_600_000_000,
            Self::Day => 86_400_000_000,
        }
    }

    /// The beginning of the bucket that `moment` falls into.
    #[must_use]
    pub const fn start_of(self, moment: Timestamp) -> Timestamp {
        Timestamp::from_micros(moment.micros() - moment.micros().rem_euclid(self.micros()))
    }
}

/// What rows may be told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UsageDimension {
    /// `project_id`
    Project,
    /// `user_id`: the customer's own name for its user.
    User,
    /// `api_key_id`
    Key,
    /// `model`
    Model,
    /// `size`
    Size,
    /// `source`
    Source,
}

/// Only what matches one value of each list that is not empty.
#[derive(Debug, Clone, Default)]
pub struct UsageFilter {
    /// Of these projects.
    pub projects: Vec<ProjectId>,
    /// Of these users.
    pub users: Vec<String>,
    /// Of these keys.
    pub keys: Vec<ApiKeyId>,
    /// Of these models.
    pub models: Vec<String>,
    /// Of these sizes.
    pub sizes: Vec<String>,
    /// Of these sources.
    pub sources: Vec<String>,
}

/// A question about usage.
#[derive(Debug, Clone)]
pub struct UsageQuery {
    /// Settled at or after.
    pub from: Timestamp,
    /// Settled before.
    pub before: Timestamp,
    /// How wide the buckets are.
    pub bucket: BucketWidth,
    /// What rows are told apart by.
    pub group_by: Vec<UsageDimension>,
    /// Only these.
    pub filter: UsageFilter,
    /// How many buckets at most; 1 to 1500.
    pub limit: u32,
    /// [`UsagePage::next`] of the page before.
    pub page: Option<Timestamp>,
}

/// Some buckets, in order, also the empty ones.
#[derive(Debug, Clone, PartialEq)]
pub struct UsagePage {
    /// The buckets.
    pub buckets: Vec<UsageBucket>,
    /// Where the next page begins, if there is one.
    pub next: Option<Timestamp>,
}

/// A stretch of settlement time.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageBucket {
    /// Its first moment.
    pub start: Timestamp,
    /// The first moment after it.
    pub end: Timestamp,
    /// What was settled in it; empty if nothing.
    pub rows: Vec<UsageRow>,
}

/// What was settled in a bucket, for one combination of what was grouped by. What was not grouped by is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UsageRow {
    /// The project.
    pub project_id: Option<ProjectId>,
    /// The customer's own name for its user; also `None` where there was none.
    pub user: Option<String>,
    /// The key.
    pub api_key_id: Option<ApiKeyId>,
    /// The model.
    pub model: Option<String>,
    /// The ordered size; also `None` where there was none.
    pub size: Option<String>,
    /// The kind of use.
    pub source: Option<String>,
    /// How many generations succeeded.
    pub requests: u64,
    /// How many ended otherwise.
    pub failures: u64,
    /// How many images were delivered.
    pub images: u64,
    /// Their megapixels.
    pub megapixels: Fixed,
    /// What the projects paid.
    pub price: Money,
    /// What it cost us.
    pub cost: Money,
}

#[derive(FromRow)]
pub(super) struct Row {
    bucket: i64,
    project_id: Option<Uuid>,
    end_user: Option<String>,
    api_key_id: Option<Uuid>,
    model: Option<String>,
    size: Option<String>,
    source: Option<String>,
    requests: i64,
    failures: i64,
    images: i64,
    megapixels: i64,
    price: i64,
    cost: i64,
}

impl From<Row> for UsageRow {
    fn from(row: Row) -> Self {
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        Self {
            project_id: row.project_id.map(ProjectId::from_uuid),
            user: row.end_user,
            api_key_id: row.api_key_id.map(ApiKeyId::from_uuid),
            model: row.model,
            size: row.size,
            source: row.source,
            requests: count(row.requests),
            failures: count(row.failures),
            images: count(row.images),
            megapixels: Fixed::from_billionths(row.megapixels),
            price: Money::from_nanos(row.price),
            cost: Money::from_nanos(row.cost),
        }
    }
}

/// The columns that can be grouped by, with what stands for one that is not.
pub(super) const COLUMNS: [(UsageDimension, &str, &str); 6] = [
    (UsageDimension::Project, "project_id", "UUID"),
    (UsageDimension::User, "end_user", "TEXT"),
    (UsageDimension::Key, "api_key_id", "UUID"),
    (UsageDimension::Model, "model", "TEXT"),
    (UsageDimension::Size, "size", "TEXT"),
    (UsageDimension::Source, "source", "TEXT"),
];

/// What one page of buckets spans, in microseconds.
pub(super) struct Span {
    /// Settled at or after.
    pub(super) from: i64,
    /// Settled before.
    pub(super) before: i64,
    first: i64,
    end_of_page: i64,
}

impl Span {
    pub(super) fn of(query: &UsageQuery) -> Self {
        let width = query.bucket.micros();
        let from = query.page.map_or(query.from, |page| page.max(query.from));
        let first = query.bucket.start_of(from).micros();
        let limit = i64::from(query.limit.clamp(1, MOST_BUCKETS));
        let end_of_page = first.saturating_add(width.saturating_mul(limit));
        Self { from: from.micros(), before: query.before.micros().min(end_of_page), first, end_of_page }
    }

    /// The buckets of rows that are ordered by their bucket, also the empty ones.
    pub(super) fn page(&self, query: &UsageQuery, rows: Vec<Row>) -> UsagePage {
        let width = query.bucket.micros();
        let mut buckets = Vec::new();
        let mut rows = rows.into_iter().peekable();
        let mut start = self.first;
        while start < self.before {
            let mut bucket = UsageBucket {
                start: Timestamp::from_micros(start),
                end: Timestamp::from_micros(start.saturating_add(width)),
                rows: Vec::new(),
            };
            while let Some(row) = rows.next_if(|row| row.bucket == start) {
                bucket.rows.push(row.into());
            }
            buckets.push(bucket);
            start = start.saturating_add(width);
        }
        let next = (self.end_of_page < query.before.micros()).then(|| Timestamp::from_micros(self.end_of_page));
        UsagePage { buckets, next }
    }
}

impl Store {
    /// Usage in buckets. Errors: the database's.
    pub async fn usage(&self, query: &UsageQuery) -> Result<UsagePage, StoreError> {
        let span = Span::of(query);
        let rows = self.usage_rows(query, span.from, span.before).await?;
        Ok(span.page(query, rows))
    }

    async fn usage_rows(&self, query: &UsageQuery, from: i64, before: i64) -> Result<Vec<Row>, StoreError> {
        let filter = &query.filter;
        within(self.options().report_timeout, async {
            let mut reader = self.reader().await?;
            on_both!(reader.connection(), connection => {
                // A time is never negative here, so the remainder is the way into the bucket.
                let mut sql = QueryBuilder::new("SELECT settled_at - settled_at % ");
                sql.push(query.bucket.micros()).push(" AS bucket");
                let mut groups = String::from(" GROUP BY 1");
                for (index, (dimension, column, kind)) in COLUMNS.iter().enumerate() {
                    if query.group_by.contains(dimension) {
                        sql.push(", ").push(column);
                        groups = format!("{groups}, {}", index + 2);
                    } else {
                        sql.push(format_args!(", CAST(NULL AS {kind}) AS {column}"));
                    }
                }
                sql.push(format_args!(
                    ", COUNT(*) FILTER (WHERE state = '{0}') AS requests,
                     COUNT(*) FILTER (WHERE state <> '{0}') AS failures,
                     CAST(SUM(images) AS BIGINT) AS images, CAST(SUM(megapixels) AS BIGINT) AS megapixels,
                     CAST(SUM(price) AS BIGINT) AS price, CAST(SUM(cost) AS BIGINT) AS cost
                     FROM generations WHERE settled_at >= ", GenerationState::Succeeded));
                sql.push_bind(from).push(" AND settled_at < ").push_bind(before);
                if !filter.projects.is_empty() {
                    sql.push(" AND project_id IN (");
                    let mut list = sql.separated(", ");
                    for id in &filter.projects {
                        list.push_bind(id.uuid());
                    }
                    sql.push(")");
                }
                if !filter.keys.is_empty() {
                    sql.push(" AND api_key_id IN (");
                    let mut list = sql.separated(", ");
                    for id in &filter.keys {
                        list.push_bind(id.uuid());
                    }
                    sql.push(")");
                }
                for (column, words) in [
                    ("end_user", &filter.users),
                    ("model", &filter.models),
                    ("size", &filter.sizes),
                    ("source", &filter.sources),
                ] {
                    if !words.is_empty() {
                        sql.push(format_args!(" AND {column} IN ("));
                        let mut list = sql.separated(", ");
                        for word in words {
                            list.push_bind(word.as_str());
                        }
                        sql.push(")");
                    }
                }
                let order = groups.replace("GROUP", "ORDER");
                sql.push(groups).push(order);
                Ok(sql.build_query_as::<Row>().fetch_all(connection).await?)
            })
        })
        .await
    }
}
