//! Usage and costs: what was made, what it cost us and what the projects pay, in buckets of time (UTC).

use sqlx::FromRow;
use uuid::Uuid;

use super::buckets::{self, Source};
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

    /// The first beginning of a bucket at or after `moment`.
    #[must_use]
    pub const fn end_of(self, moment: Timestamp) -> Timestamp {
        let start = self.start_of(moment);
        if start.micros() == moment.micros() {
            start
        } else {
            Timestamp::from_micros(start.micros().saturating_add(self.micros()))
        }
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
    /// `requested_model`: the name that was asked for, an alias or the model's id.
    RequestedModel,
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

impl UsageQuery {
    /// Whether it asks for nothing but projects and models.
    fn is_about_models(&self) -> bool {
        let UsageFilter { projects: _, models: _, users, keys, sizes, sources } = &self.filter;
        let known = |dimension: &UsageDimension| matches!(dimension, UsageDimension::Project | UsageDimension::Model);
        users.is_empty() && keys.is_empty() && sizes.is_empty() && sources.is_empty() && self.group_by.iter().all(known)
    }
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
    /// The name that was asked for.
    pub requested_model: Option<String>,
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
    requested_model: Option<String>,
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
            requested_model: row.requested_model,
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

/// What one page of buckets spans, in microseconds.
struct Span {
    /// Settled at or after.
    from: i64,
    /// Settled before.
    before: i64,
    first: i64,
    end_of_page: i64,
}

impl Span {
    fn of(query: &UsageQuery) -> Self {
        let width = query.bucket.micros();
        let from = query.page.map_or(query.from, |page| page.max(query.from));
        let first = query.bucket.start_of(from).micros();
        let limit = i64::from(query.limit.clamp(1, MOST_BUCKETS));
        let end_of_page = first.saturating_add(width.saturating_mul(limit));
        Self { from: from.micros(), before: query.before.micros().min(end_of_page), first, end_of_page }
    }

    /// What must be asked for, in order: from, before, and whether the sums of whole days can tell it. They know neither
    /// users nor the names that were asked for, and nothing of a part of a day.
    fn parts(&self, query: &UsageQuery) -> Vec<(i64, i64, bool)> {
        let unknown =
            |dimension: &UsageDimension| matches!(dimension, UsageDimension::User | UsageDimension::RequestedModel);
        let by_rows = query.group_by.iter().any(unknown) || !query.filter.users.is_empty();
        if query.bucket != BucketWidth::Day || by_rows {
            return vec![(self.from, self.before, false)];
        }
        let day = BucketWidth::Day.micros();
        let last = self.before - self.before.rem_euclid(day);
        let first = (self.from + (day - self.from.rem_euclid(day)) % day).min(self.before);
        [(self.from, first, false), (first, last, true), (first.max(last), self.before, false)]
            .into_iter()
            .filter(|(from, before, _)| from < before)
            .collect()
    }

    /// The buckets of rows that are ordered by their bucket, also the empty ones.
    fn page(&self, query: &UsageQuery, rows: Vec<Row>) -> UsagePage {
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
        self.buckets(query, &buckets::USAGE, &buckets::USAGE_OF_DAYS, &buckets::USAGE_OF_MODELS).await
    }

    /// The sum of the ledger's `revenue` entries: settlements under the time of their settlement, refunds under their
    /// own. In the rows `price` is that sum and `images` what was delivered for it; the rest is zero.
    pub async fn costs(&self, query: &UsageQuery) -> Result<UsagePage, StoreError> {
        self.buckets(query, &buckets::COSTS, &buckets::COSTS_OF_DAYS, &buckets::COSTS_OF_MODELS).await
    }

    async fn buckets(
        &self,
        query: &UsageQuery,
        rows: &Source,
        days: &Source,
        models: &Source,
    ) -> Result<UsagePage, StoreError> {
        let span = Span::of(query);
        let days = if query.is_about_models() { models } else { days };
        let mut found = Vec::new();
        // Each bucket comes whole from one of the parts.
        for (from, before, whole_days) in span.parts(query) {
            let source = if whole_days { days } else { rows };
            found.extend(self.bucket_rows(source, query, from, before).await?);
        }
        Ok(span.page(query, found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = BucketWidth::Day.micros();

    fn parts(from: i64, before: i64, change: impl FnOnce(&mut UsageQuery)) -> Vec<(i64, i64, bool)> {
        let mut query = UsageQuery {
            from: Timestamp::from_micros(from),
            before: Timestamp::from_micros(before),
            bucket: BucketWidth::Day,
            group_by: Vec::new(),
            filter: UsageFilter::default(),
            limit: 1000,
            page: None,
        };
        change(&mut query);
        Span::of(&query).parts(&query)
    }

    #[test]
    fn only_whole_days_are_asked_of_the_sums_of_days() {
        assert_eq!(parts(DAY, 3 * DAY, |_| {}), [(DAY, 3 * DAY, true)]);
        let ragged = [(DAY - 1, DAY, false), (DAY, 3 * DAY, true), (3 * DAY, 3 * DAY + 1, false)];
        assert_eq!(parts(DAY - 1, 3 * DAY + 1, |_| {}), ragged);
        assert_eq!(parts(DAY + 1, 3 * DAY - 1, |_| {}), [(DAY + 1, 2 * DAY, false), (2 * DAY, 3 * DAY - 1, false)]);
        assert_eq!(parts(DAY + 1, DAY + 2, |_| {}), [(DAY + 1, DAY + 2, false)]);
        assert_eq!(parts(0, 9 * DAY, |query| query.limit = 2), [(0, 2 * DAY, true)]);
        for change in [
            (|query| query.bucket = BucketWidth::Hour) as fn(&mut UsageQuery),
            |query| query.group_by = vec![UsageDimension::User],
            |query| query.group_by = vec![UsageDimension::RequestedModel],
            |query| query.filter.users = vec!["eve".to_owned()],
        ] {
            assert_eq!(parts(DAY, 3 * DAY, change), [(DAY, 3 * DAY, false)]);
        }
    }
}
