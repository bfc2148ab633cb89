//! `GET /v2/usage/detail`: what a key was charged, by model and by day, in AIML's shape.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::DateTime;
use serde::Serialize;
use utoipa::ToSchema;

use super::access::{ProjectCaller, scope};
use super::account::{AccountTokens, own_prefix, window};
use super::errors::invalid_field;
use super::{Services, query};
use crate::domain::{ApiKeyId, Money, Timestamp};
use crate::http::{Problem, ProblemBody};
use crate::ledger::{Books, BucketWidth, UsageDimension, UsageFilter, UsageQuery};

/// What a key was charged in a window of time, by model.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountUsageDetail {
    /// `key_prefix` as it was asked for; null if it was not.
    api_key_prefix: Option<String>,
    /// The window's start in UTC.
    #[schema(example = "2026-07-20T22:15:00.000Z")]
    start: String,
    /// Its end in UTC; not part of it.
    #[schema(example = "2026-07-27T22:15:00.000Z")]
    end: String,
    /// Charges less refunds in US dollars; only near.
    #[schema(example = 12.3456)]
    spend: f64,
    /// The same with nine places.
    #[schema(example = "12.345600000")]
    spend_usd: String,
    /// Always `USD`.
    #[schema(example = "USD")]
    currency: &'static str,
    /// How many requests were charged.
    requests: u64,
    /// By model, highest spend first.
    models: Vec<AccountModelUsage>,
    /// By what `group_by` names; only if it is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    groups: Option<Vec<AccountUsageGroup>>,
}

/// What a model was charged.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountModelUsage {
    /// The model.
    #[schema(example = "flux/dev")]
    model: String,
    /// Charges less refunds in US dollars; only near.
    #[schema(example = 8.12)]
    spend: f64,
    /// The same with nine places.
    #[schema(example = "8.120000000")]
    spend_usd: String,
    /// How many of its requests were charged.
    requests: u64,
}

/// What a group was charged.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountUsageGroup {
    /// The day in UTC, where `group_by` names days.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "2026-07-21")]
    day: Option<String>,
    /// The model, where `group_by` names models.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "flux/dev")]
    model: Option<String>,
    /// Charges less refunds in US dollars; only near.
    #[schema(example = 3.41)]
    spend: f64,
    /// The same with nine places.
    #[schema(example = "3.410000000")]
    spend_usd: String,
    /// Always zero: images have no tokens.
    tokens: AccountTokens,
    /// How many requests there were.
    requests: AccountRequestCounts,
}

/// How many requests there were.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountRequestCounts {
    /// All that ended.
    total: u64,
    /// Those that were charged.
    charged: u64,
    /// Those that succeeded: the same.
    succeeded: u64,
    /// Those that failed, were cancelled or expired; free.
    failed: u64,
}

/// What the groups are by.
#[derive(Debug, ToSchema)]
#[schema(as = UsageGrouping)]
#[expect(dead_code, reason = "describes the words of `group_by` in the document")]
pub enum GroupingText {
    /// By day.
    #[serde(rename = "day")]
    Day,
    /// By model.
    #[serde(rename = "model")]
    Model,
    /// By both.
    #[serde(rename = "day,model")]
    DayAndModel,
}

/// Sums of a group.
#[derive(Debug, Default, Clone, Copy)]
struct Sums {
    spent: Money,
    charged: u64,
    failed: u64,
}

impl Sums {
    fn add(&mut self, other: Self) {
        self.spent = [self.spent, other.spent].into_iter().sum();
        self.charged += other.charged;
        self.failed += other.failed;
    }
}

/// Retrieve the key's usage in detail
///
/// What the key that asks was charged in a window of at most 92 days, by model; with `group_by` also by day. The last 24
/// hours if no window is given. Days are days in UTC.
#[utoipa::path(
    get,
    path = "/v2/usage/detail",
    operation_id = "retrieveKeyUsageDetail",
    tag = "billing",
    params(
        ("period" = Option<String>, Query, description = "A whole number followed by `h` or `d`, such as `24h`.", pattern = "^0*([1-9][0-9]{0,2}|1[0-9]{3}|2[01][0-9]{2}|220[0-8])h$|^0*([1-9]|[1-8][0-9]|9[0-2])d$"),
        ("start" = Option<String>, Query, description = "ISO 8601; UTC where it names no offset.", format = DateTime),
        ("end" = Option<String>, Query, description = "ISO 8601, not part of the window.", format = DateTime),
        ("key_prefix" = Option<String>, Query, description = "How the key that asks begins; others cannot be asked about."),
        ("group_by" = inline(Option<GroupingText>), Query, description = "Adds `groups`: by `day`, by `model`, or by both (`day,model`)."),
        ("tz" = Option<String>, Query, description = "The time zone of days: `UTC`.", pattern = "^UTC$"),
    ),
    responses(
        (status = 200, description = "What it was charged.", body = AccountUsageDetail),
        (status = 400, description = "The window or the grouping is wrong.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key, or another key's prefix.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn retrieve_key_usage_detail(
    caller: ProjectCaller<scope::ReadUsage>,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let pairs = query(&request, &["period", "start", "end", "key_prefix", "group_by", "tz"])?;
    let (start, end) = window(&pairs, services.clock.now())?;
    if pairs.one("tz")?.is_some_and(|zone| zone != "UTC") {
        return Err(invalid_field("tz", "must be `UTC`: the books keep days in UTC"));
    }
    let grouping = match pairs.one("group_by")? {
        None => None,
        Some("day") => Some((true, false)),
        Some("model") => Some((false, true)),
        Some("day,model" | "model,day") => Some((true, true)),
        Some(_) => return Err(invalid_field("group_by", "must be `day`, `model` or `day,model`")),
    };
    let prefix = own_prefix(&pairs, &caller, &services).await?;
    let rows = sums_by_day_and_model(services.gateway.books(), caller.api_key_id, start, end).await?;
    let (mut all, mut by_model) = (Sums::default(), BTreeMap::new());
    for ((_, model), sums) in &rows {
        all.add(*sums);
        by_model.entry(model.clone()).or_insert_with(Sums::default).add(*sums);
    }
    let mut models: Vec<(String, Sums)> = by_model.into_iter().filter(|(_, sums)| sums.is_charged()).collect();
    models.sort_by_key(|(_, sums)| std::cmp::Reverse(sums.spent));
    let view = |(model, sums): (String, Sums)| AccountModelUsage {
        model,
        spend: sums.spent.approximate_usd(),
        spend_usd: sums.spent.to_string(),
        requests: sums.charged,
    };
    Ok(HttpResponse::Ok().json(AccountUsageDetail {
        api_key_prefix: prefix,
        start: start.rfc3339(),
        end: end.rfc3339(),
        spend: all.spent.approximate_usd(),
        spend_usd: all.spent.to_string(),
        currency: "USD",
        requests: all.charged,
        models: models.into_iter().map(view).collect(),
        groups: grouping.map(|(by_day, by_model)| groups(&rows, by_day, by_model)),
    }))
}

impl Sums {
    fn is_charged(self) -> bool {
        self.charged > 0 || self.spent != Money::ZERO
    }
}

/// A day's first moment and a model.
type DayAndModel = (Timestamp, String);

fn groups(rows: &BTreeMap<DayAndModel, Sums>, by_day: bool, by_model: bool) -> Vec<AccountUsageGroup> {
    let mut groups: BTreeMap<(Option<Timestamp>, Option<String>), Sums> = BTreeMap::new();
    for ((day, model), sums) in rows {
        groups.entry((by_day.then_some(*day), by_model.then(|| model.clone()))).or_default().add(*sums);
    }
    let day_of =
        |day: Timestamp| DateTime::from_timestamp_micros(day.micros()).unwrap_or_default().date_naive().to_string();
    let view = |((day, model), sums): ((Option<Timestamp>, Option<String>), Sums)| AccountUsageGroup {
        day: day.map(day_of),
        model,
        spend: sums.spent.approximate_usd(),
        spend_usd: sums.spent.to_string(),
        tokens: AccountTokens::default(),
        requests: AccountRequestCounts {
            total: sums.charged + sums.failed,
            charged: sums.charged,
            succeeded: sums.charged,
            failed: sums.failed,
        },
    };
    groups.into_iter().map(view).collect()
}

/// What a key was charged, less refunds, and how its requests ended.
async fn sums_by_day_and_model(
    books: &Books,
    key: ApiKeyId,
    start: Timestamp,
    end: Timestamp,
) -> Result<BTreeMap<DayAndModel, Sums>, Problem> {
    let mut question = UsageQuery {
        from: start,
        before: end,
        bucket: BucketWidth::Day,
        group_by: vec![UsageDimension::Model],
        filter: UsageFilter { keys: vec![key], ..UsageFilter::default() },
        limit: 200,
        page: None,
    };
    let mut found: BTreeMap<DayAndModel, Sums> = BTreeMap::new();
    loop {
        let costs = books.costs(&question).await?;
        let usage = books.usage(&question).await?;
        for bucket in costs.buckets {
            for row in bucket.rows {
                let sums = Sums { spent: row.price, ..Sums::default() };
                found.entry((bucket.start, row.model.unwrap_or_default())).or_default().add(sums);
            }
        }
        for bucket in usage.buckets {
            for row in bucket.rows {
                let sums = Sums { charged: row.requests, failed: row.failures, ..Sums::default() };
                found.entry((bucket.start, row.model.unwrap_or_default())).or_default().add(sums);
            }
        }
        match usage.next {
            Some(next) => question.page = Some(next),
            None => return Ok(found),
        }
    }
}
