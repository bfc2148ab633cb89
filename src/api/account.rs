//! `GET /v1/key`, `GET /v2/usage`, `GET /v2/logs`: what a key is, has spent and has asked for, in AIML's shapes.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, NaiveDateTime};
use serde::Serialize;
use utoipa::ToSchema;

use super::access::{AnyProjectCaller, ProjectCaller, scope};
use super::errors::{bad_key_problem, invalid_field};
use super::generations::project_of;
use super::{QueryPairs, Services, query};
use crate::accounts::{
    AccountsError, AuditFilter, Caller, Cursor, KeyFilter, KeyRecord, ProjectRecord, RateLimit, Scope,
};
use crate::domain::{ApiKeyId, Money, Network, Timestamp};
use crate::http::{Code, Problem, ProblemBody};
use crate::ledger::{Books, BucketWidth, GenerationFilter, GenerationRecord, GenerationState, UsageFilter, UsageQuery};

/// The longest window that may be asked about.
const LONGEST_WINDOW: Duration = Duration::from_hours(92 * 24);
/// The window if none is asked for.
const USUAL_WINDOW: Duration = Duration::from_hours(24);
/// The furthest page; beyond it narrow the window.
const FURTHEST: u32 = 1_000_000;
/// The most models that one request may name.
const MOST_MODELS: usize = 50;

/// The key that asks.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountKey {
    /// What is known of it.
    data: AccountKeyData,
}

/// What is known of a key.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountKeyData {
    /// What its maker called it.
    name: String,
    /// Always false: a disabled key gets 401.
    disabled: bool,
    /// How it begins, as far as that is kept.
    #[schema(example = "sk-ig-1a2b3c")]
    prefix: String,
    /// In AIML's words: `model:image` where it may make images.
    #[schema(example = json!(["model:image"]))]
    scopes: &'static [&'static str],
    /// The key's scopes here.
    #[schema(example = json!(["images:generate", "images:read", "files", "usage:read", "billing:read"]))]
    permissions: Vec<&'static str>,
    /// The addresses and networks that it may be used from; any when null.
    #[schema(example = json!(["10.0.0.0/8"]))]
    allowed_addresses: Option<Vec<String>>,
    /// The models it may use; every model when null.
    allowed_models: Option<Vec<String>>,
    /// Its budget; null without one.
    limit: Option<AccountKeyLimit>,
    /// What the key and its project may do at most.
    limits: AccountLimits,
    /// When it was made, as RFC 3339.
    created_at: String,
    /// When it was last changed, as RFC 3339.
    updated_at: String,
    /// When it ends, as RFC 3339; null if it does not.
    expires_at: Option<String>,
    /// What it was charged this month (UTC), less refunds, in US dollars; only near.
    #[schema(example = 0.035)]
    monthly_usage: f64,
    /// The same with nine places.
    #[schema(example = "0.035000000")]
    monthly_usage_usd: String,
}

/// The most that a key may spend.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountKeyLimit {
    /// Always `no_reset`: it is for the key's whole life.
    #[schema(example = "no_reset")]
    retention: &'static str,
    /// In US dollars; only near.
    #[schema(example = 25.0)]
    threshold: f64,
    /// The same with nine places.
    #[schema(example = "25.000000000")]
    threshold_usd: String,
}

impl AccountKeyLimit {
    pub(super) fn new(budget: Money) -> Self {
        Self { retention: "no_reset", threshold: budget.approximate_usd(), threshold_usd: budget.to_string() }
    }
}

/// What a key and its project may do at most.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountLimits {
    /// What is left of the key's budget, in US dollars; null without one.
    #[schema(example = "24.965000000")]
    budget_left_usd: Option<String>,
    /// The most that a calendar month (UTC) of the project may cost, in US dollars; null without a limit.
    spend_limit_usd: Option<String>,
    /// How many generations of the project may be open at once; null without a limit.
    concurrent_generations: Option<u32>,
    /// How much of a model the project may ask for in any minute.
    rates: Vec<AccountRate>,
    /// How many bytes of input files the project may upload in a day (UTC); null without a limit.
    upload_bytes_per_day: Option<u64>,
    /// How many uploaded files the project may keep; null without a limit.
    kept_files: Option<u64>,
}

/// How much of a model a project may ask for in any minute.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountRate {
    /// The model's id; `*` stands for each model without a rate of its own.
    #[schema(example = "*")]
    model: String,
    /// Requests; null without a limit.
    requests_per_minute: Option<u32>,
    /// Images; null without a limit.
    images_per_minute: Option<u32>,
}

impl AccountLimits {
    fn new(key: &KeyRecord, project: ProjectRecord) -> Self {
        let left = |budget: Money| budget.checked_sub(key.spent).unwrap_or_default().max(Money::ZERO);
        let rate = |limit: RateLimit| AccountRate {
            model: limit.model,
            requests_per_minute: limit.requests_per_minute,
            images_per_minute: limit.images_per_minute,
        };
        Self {
            budget_left_usd: key.budget.map(|budget| left(budget).to_string()),
            spend_limit_usd: project.spend_limit.map(|limit| limit.to_string()),
            concurrent_generations: project.concurrency_limit,
            rates: project.rate_limits.into_iter().map(rate).collect(),
            upload_bytes_per_day: project.upload_bytes_a_day,
            kept_files: project.kept_files,
        }
    }
}

/// What a key was charged in a window of time.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountUsage {
    /// `key_prefix` as it was asked for; null if it was not.
    api_key_prefix: Option<String>,
    /// The window's start in UTC.
    #[schema(example = "2026-07-26T22:15:00.000Z")]
    start: String,
    /// Its end in UTC; not part of it.
    #[schema(example = "2026-07-27T22:15:00.000Z")]
    end: String,
    /// Charges less refunds in US dollars; only near.
    #[schema(example = 13.704_199)]
    spend: f64,
    /// The same with nine places.
    #[schema(example = "13.704199000")]
    spend_usd: String,
    /// Always `USD`.
    #[schema(example = "USD")]
    currency: &'static str,
    /// How many requests were charged.
    requests: u64,
}

/// A page of requests, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountLogs {
    /// The requests that have ended.
    data: Vec<AccountLog>,
    /// Which part this is.
    pagination: AccountPagination,
}

/// One request that has ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountLog {
    /// When it was made, in UTC.
    #[schema(example = "2026-07-02T03:04:05.000Z")]
    created: String,
    /// `succeeded` or `failed`; a failed one is free.
    #[schema(example = "succeeded")]
    status: &'static str,
    /// Always `api`.
    #[schema(example = "api")]
    origin: &'static str,
    /// The model.
    model: String,
    /// What it was charged.
    cost: AccountCost,
    /// Always zero: images have no tokens.
    tokens: AccountTokens,
    /// The HTTP request that asked for it.
    request_id: String,
    /// The generation, as in the header `x-inference-id`.
    inference_id: String,
    /// Always null: `X-Client-Request-Id` is not kept.
    client_request_id: Option<String>,
}

/// What a request was charged.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountCost {
    /// In US dollars; only near.
    #[schema(example = 0.035)]
    usd: f64,
    /// In credits, of which 2,000,000 are a dollar.
    #[schema(example = 70_000)]
    credits: i64,
    /// In US dollars with nine places.
    #[schema(example = "0.035000000")]
    exact_usd: String,
}

/// Tokens, of which images have none.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct AccountTokens {
    /// Always zero.
    input: u32,
    /// Always zero.
    output: u32,
    /// Always zero.
    total: u32,
}

/// Which part of a list is shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountPagination {
    /// How many at most.
    limit: u32,
    /// How many were passed over.
    offset: u32,
    /// How many match on all pages.
    total: u64,
    /// Whether there are more.
    has_more: bool,
}

/// Retrieve the key
///
/// What is known of the key that asks: what it may do, from where, up to which limits; and what it was charged this month.
#[utoipa::path(
    get,
    path = "/v1/key",
    operation_id = "retrieveKey",
    tag = "billing",
    responses(
        (status = 200, description = "The key, without its value.", body = AccountKey),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn retrieve_key(caller: AnyProjectCaller, services: web::Data<Services>) -> Result<HttpResponse, Problem> {
    let key = own_key(&caller, &services).await?;
    let now = services.clock.now();
    let (spent, _) = charged(services.gateway.books(), key.id, Books::month_of(now), now).await?;
    let of_key = AuditFilter { resources: vec![key.id.to_string()], ..AuditFilter::default() };
    let newest = Cursor { after: None, oldest_first: false, limit: 1 };
    let changed = services.accounts.audit_logs(&of_key, newest).await?.items.first().map(|entry| entry.at);
    let project = services.accounts.project(project_of(&caller)?).await?.ok_or_else(bad_key_problem)?;
    let networks = key.allowed_addresses.as_ref();
    let limits = AccountLimits::new(&key, project);
    let data = AccountKeyData {
        disabled: false,
        prefix: key.prefix,
        scopes: if caller.scopes.contains(Scope::ImagesGenerate) { &["model:image"] } else { &[] },
        permissions: caller.scopes.iter().map(Scope::name).collect(),
        allowed_addresses: networks.map(|networks| networks.iter().map(Network::to_string).collect()),
        limits,
        limit: key.budget.map(AccountKeyLimit::new),
        created_at: key.created_at.rfc3339(),
        updated_at: changed.unwrap_or(key.created_at).rfc3339(),
        expires_at: key.expires_at.map(Timestamp::rfc3339),
        monthly_usage: spent.approximate_usd(),
        monthly_usage_usd: spent.to_string(),
        allowed_models: key.allowed_models,
        name: key.name,
    };
    Ok(HttpResponse::Ok().json(AccountKey { data }))
}

/// Retrieve the key's usage
///
/// What the key that asks was charged in a window of at most 92 days: `period`, or `start` and `end`; the last 24 hours if
/// neither is given.
#[utoipa::path(
    get,
    path = "/v2/usage",
    operation_id = "retrieveKeyUsage",
    tag = "billing",
    params(
        ("period" = Option<String>, Query, description = "A whole number followed by `h` or `d`, such as `24h`.", pattern = "^0*([1-9][0-9]{0,2}|1[0-9]{3}|2[01][0-9]{2}|220[0-8])h$|^0*([1-9]|[1-8][0-9]|9[0-2])d$"),
        ("start" = Option<String>, Query, description = "ISO 8601; UTC where it names no offset.", format = DateTime),
        ("end" = Option<String>, Query, description = "ISO 8601, not part of the window.", format = DateTime),
        ("key_prefix" = Option<String>, Query, description = "How the key that asks begins; others cannot be asked about."),
    ),
    responses(
        (status = 200, description = "What it was charged.", body = AccountUsage),
        (status = 400, description = "The window is wrong.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key, or another key's prefix.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn retrieve_key_usage(
    caller: ProjectCaller<scope::ReadUsage>,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let pairs = query(&request, &["period", "start", "end", "key_prefix"])?;
    let (start, end) = window(&pairs, services.clock.now())?;
    let prefix = own_prefix(&pairs, &caller, &services).await?;
    let (spent, requests) = charged(services.gateway.books(), caller.api_key_id, start, end).await?;
    Ok(HttpResponse::Ok().json(AccountUsage {
        api_key_prefix: prefix,
        start: start.rfc3339(),
        end: end.rfc3339(),
        spend: spent.approximate_usd(),
        spend_usd: spent.to_string(),
        currency: "USD",
        requests,
    }))
}

/// How a request ended.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the words of `status` in the document")]
pub enum LogStatusText {
    /// With images.
    #[serde(rename = "succeeded")]
    Succeeded,
    /// Without.
    #[serde(rename = "failed")]
    Failed,
}

/// List the key's requests
///
/// Those that have ended, made with the key that asks in a window of at most 92 days, newest first.
#[utoipa::path(
    get,
    path = "/v2/logs",
    operation_id = "listKeyLogs",
    tag = "billing",
    params(
        ("period" = Option<String>, Query, description = "A whole number followed by `h` or `d`, such as `7d`.", pattern = "^0*([1-9][0-9]{0,2}|1[0-9]{3}|2[01][0-9]{2}|220[0-8])h$|^0*([1-9]|[1-8][0-9]|9[0-2])d$"),
        ("start" = Option<String>, Query, description = "ISO 8601; UTC where it names no offset.", format = DateTime),
        ("end" = Option<String>, Query, description = "ISO 8601, not part of the window.", format = DateTime),
        ("key_prefix" = Option<String>, Query, description = "How the key that asks begins; others cannot be asked about."),
        ("model" = Option<Vec<String>>, Query, description = "Only those of these models; at most 50.", max_items = 50),
        ("status" = inline(Option<Vec<LogStatusText>>), Query, description = "`succeeded` or `failed`; both if not given."),
        ("limit" = Option<u32>, Query, description = "How many, 1 to 100; 50 if not given.", minimum = 1, maximum = 100),
        ("offset" = Option<u32>, Query, description = "How many to pass over; at most 1000000.", minimum = 0, maximum = 1_000_000),
    ),
    responses(
        (status = 200, description = "A page of requests.", body = AccountLogs),
        (status = 400, description = "A filter is wrong.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key, or another key's prefix.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn list_key_logs(
    caller: ProjectCaller<scope::ReadUsage>,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let known = ["period", "start", "end", "key_prefix", "model", "status", "limit", "offset"];
    let pairs = query(&request, &known)?;
    let (start, end) = window(&pairs, services.clock.now())?;
    own_prefix(&pairs, &caller, &services).await?;
    let (mut succeeded, mut failed) = (false, false);
    for status in pairs.list("status") {
        match status.as_str() {
            "succeeded" => succeeded = true,
            "failed" => failed = true,
            _ => return Err(invalid_field("status", "must be `succeeded` or `failed`")),
        }
    }
    let models = pairs.list("model");
    if models.len() > MOST_MODELS {
        return Err(invalid_field("model", "can be given at most 50 times"));
    }
    let offset = pairs.parsed::<u32>("offset", "a whole number from 0")?.unwrap_or(0);
    if offset > FURTHEST {
        return Err(invalid_field("offset", "must be at most 1000000: narrow the window instead"));
    }
    let filter = GenerationFilter {
        api_key_id: Some(caller.api_key_id),
        created_from: Some(start),
        created_before: Some(end),
        models,
        ended: true,
        succeeded: (succeeded != failed).then_some(succeeded),
        offset,
        limit: pairs.limit(50, 100)?,
        ..GenerationFilter::default()
    };
    let books = services.gateway.books();
    let page = books.list_generations(&filter).await?;
    let total = books.count_generations(&filter).await?;
    Ok(HttpResponse::Ok().json(AccountLogs {
        data: page.items.iter().map(log_of).collect(),
        pagination: AccountPagination { limit: filter.limit, offset, total, has_more: page.has_more },
    }))
}

fn log_of(record: &GenerationRecord) -> AccountLog {
    let price = record.outcome.as_ref().map_or(Money::ZERO, |outcome| outcome.price);
    AccountLog {
        created: record.created_at.rfc3339(),
        status: if record.state == GenerationState::Succeeded { "succeeded" } else { "failed" },
        origin: "api",
        model: record.model.clone(),
        cost: AccountCost { usd: price.approximate_usd(), credits: price.credits(), exact_usd: price.to_string() },
        tokens: AccountTokens::default(),
        request_id: record.request_id.to_string(),
        inference_id: record.id.to_string(),
        client_request_id: None,
    }
}

async fn own_key(caller: &Caller, services: &Services) -> Result<KeyRecord, Problem> {
    let filter = KeyFilter { id: Some(caller.api_key_id), ..KeyFilter::default() };
    services.accounts.key(&filter).await.map_err(|fault| match fault {
        // It was revoked a moment ago, and this replica has not heard of it yet.
        AccountsError::UnknownKey => bad_key_problem(),
        fault => fault.into(),
    })
}

/// `key_prefix`, which must be the beginning of the key that asks.
pub(super) async fn own_prefix(
    pairs: &QueryPairs,
    caller: &Caller,
    services: &Services,
) -> Result<Option<String>, Problem> {
    let Some(prefix) = pairs.one("key_prefix")? else { return Ok(None) };
    if own_key(caller, services).await?.prefix == prefix {
        return Ok(Some(prefix.to_owned()));
    }
    let message = "a project key may ask about itself only; operators have /v1/organization/costs";
    Err(Problem::new(Code::PermissionDenied, message).param("key_prefix"))
}

/// What a key was charged in a window, less refunds, and how many of its requests were.
async fn charged(books: &Books, key: ApiKeyId, start: Timestamp, end: Timestamp) -> Result<(Money, u64), Problem> {
    let mut question = UsageQuery {
        from: start,
        before: end,
        bucket: BucketWidth::Day,
        group_by: Vec::new(),
        filter: UsageFilter { keys: vec![key], ..UsageFilter::default() },
        limit: 200,
        page: None,
    };
    let (mut spent, mut requests) = (Money::ZERO, 0);
    loop {
        let costs = books.costs(&question).await?;
        let usage = books.usage(&question).await?;
        spent = costs.buckets.iter().flat_map(|bucket| &bucket.rows).map(|row| row.price).chain([spent]).sum();
        requests += usage.buckets.iter().flat_map(|bucket| &bucket.rows).map(|row| row.requests).sum::<u64>();
        match usage.next {
            Some(next) => question.page = Some(next),
            None => return Ok((spent, requests)),
        }
    }
}

/// The window that is asked about: `period`, or `start` and `end`.
pub(super) fn window(pairs: &QueryPairs, now: Timestamp) -> Result<(Timestamp, Timestamp), Problem> {
    let moment = |name: &str| {
        let text = pairs.one(name)?;
        text.map(|text| {
            read_moment(text).ok_or_else(|| invalid_field(name, "must be a time such as 2026-07-01T00:00:00Z"))
        })
        .transpose()
    };
    let (start, end) = match (pairs.one("period")?, moment("start")?, moment("end")?) {
        (None, None, None) => (back(now, USUAL_WINDOW), now),
        (Some(period), None, None) => {
            let length = read_period(period)
                .ok_or_else(|| invalid_field("period", "must be a number above zero and `h` or `d`, such as `24h`"))?;
            (back(now, length), now)
        }
        (None, Some(start), Some(end)) => (start, end),
        (Some(_), ..) => return Err(invalid_field("period", "must not stand beside `start` and `end`")),
        (None, None, Some(_)) => return Err(invalid_field("start", "is required beside `end`")),
        (None, Some(_), None) => return Err(invalid_field("end", "is required beside `start`")),
    };
    if end < start {
        return Err(invalid_field("end", "must not be earlier than `start`"));
    }
    if end.since(start) > LONGEST_WINDOW {
        let named = if pairs.one("period")?.is_some() { "period" } else { "end" };
        return Err(invalid_field(named, "must not make a window of more than 92 days"));
    }
    Ok((start, end))
}

fn back(now: Timestamp, length: Duration) -> Timestamp {
    Timestamp::from_micros(now.micros() - i64::try_from(length.as_micros()).unwrap_or(0))
}

fn read_period(text: &str) -> Option<Duration> {
    let (number, hours) = match text.strip_suffix('h') {
        Some(number) => (number, 1),
        None => (text.strip_suffix('d')?, 24),
    };
    if !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    // Longer ones than any window are all the same.
    let number = number.parse::<u64>().ok().filter(|number| *number > 0)?.min(100_000);
    Some(Duration::from_secs(number * hours * 3600))
}

/// A moment in ISO 8601, with or without an offset, or a day; up to the year 9999.
pub(super) fn read_moment(text: &str) -> Option<Timestamp> {
    let micros = DateTime::parse_from_rfc3339(text).map(|moment| moment.timestamp_micros()).ok().or_else(|| {
        let naive = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok();
        let naive =
            naive.or_else(|| NaiveDateTime::parse_from_str(&format!("{text}T00:00:00"), "%Y-%m-%dT%H:%M:%S").ok());
        naive.map(|naive| naive.and_utc().timestamp_micros())
    })?;
    (micros < 253_402_300_800_000_000).then(|| Timestamp::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_a_number_of_hours_or_days() {
        assert_eq!(read_period("24h"), Some(Duration::from_hours(24)));
        assert_eq!(read_period("7d"), Some(Duration::from_hours(7 * 24)));
        for wrong in ["", "h", "0d", "-1h", "+1h", "1w", "1", "1.5h", "24 h"] {
            assert_eq!(read_period(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_moment_without_an_offset_is_utc() {
        let expected = Some(Timestamp::from_seconds(1_782_864_000));
        for text in [
            "2026-07-01T00:00:00Z",
            "2026-07-01T00:00:00",
            "2026-07-01",
            "2026-07-01T02:00:00+02:00",
            "2026-07-01T00:00:00.000Z",
        ] {
            assert_eq!(read_moment(text), expected, "{text}");
        }
        for wrong in ["", "yesterday", "2026-13-01", "9999-12-31T23:59:59-01:00", "2026-07-01T00:00"] {
            assert_eq!(read_moment(wrong), None, "{wrong}");
        }
    }
}
