//! `GET /v1/organization/usage/images`: OpenAI's usage of images, answered from the ledger.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::access::{AdminCaller, action};
use crate::api::errors::invalid_field;
use crate::api::{QueryPairs, Services, query, time_filter};
use crate::domain::{ApiKeyId, ProjectId, Timestamp};
use crate::http::{Problem, ProblemBody};
use crate::ledger::{BucketWidth, UsageBucket, UsageDimension, UsageFilter, UsageQuery, UsageRow};

const FILTERS: &[&str] = &[
    "start_time",
    "end_time",
    "bucket_width",
    "group_by",
    "project_ids",
    "user_ids",
    "api_key_ids",
    "models",
    "sizes",
    "sources",
    "limit",
    "page",
];

/// A page of buckets, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsagePage {
    /// Always `page`.
    #[schema(example = "page")]
    object: &'static str,
    /// The buckets, also those in which nothing happened.
    data: Vec<UsageBucketView>,
    /// Whether there are later buckets.
    has_more: bool,
    /// `page` for the next buckets; null on the last page.
    next_page: Option<String>,
}

/// One span of time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsageBucket)]
pub struct UsageBucketView {
    /// Always `bucket`.
    #[schema(example = "bucket")]
    object: &'static str,
    /// Its start in Unix seconds.
    start_time: i64,
    /// Its end in Unix seconds; not part of it.
    end_time: i64,
    /// A row for each group that settled something in it.
    results: Vec<UsageResult>,
}

/// What one group used in one span of time. Fields that were not grouped by are null.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageResult {
    /// Always `organization.usage.images.result`.
    #[schema(example = "organization.usage.images.result")]
    object: &'static str,
    /// Images delivered.
    images: u64,
    /// Requests that were charged.
    num_model_requests: u64,
    /// What kind of request: `image.generation`.
    source: Option<String>,
    /// Width and height, such as `1024x768`.
    size: Option<String>,
    /// The project.
    project_id: Option<String>,
    /// The `user` of the requests.
    user_id: Option<String>,
    /// The key.
    api_key_id: Option<String>,
    /// The model.
    model: Option<String>,
    /// The name that was asked for: an alias, or the model's id.
    requested_model: Option<String>,
    /// What the projects pay, in US dollars with nine places.
    amount_usd: String,
    /// What the provider charges us, in US dollars with nine places.
    cost_usd: String,
    /// Megapixels charged.
    megapixels: String,
}

/// How long a bucket of usage is.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the words of `bucket_width` in the document")]
pub enum UsageWidthText {
    /// A minute.
    #[serde(rename = "1m")]
    Minute,
    /// An hour.
    #[serde(rename = "1h")]
    Hour,
    /// A day in UTC.
    #[serde(rename = "1d")]
    Day,
}

/// What usage is grouped by.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the words of `group_by` in the document")]
pub enum UsageGroupText {
    /// The project.
    #[serde(rename = "project_id")]
    Project,
    /// The `user` of the requests.
    #[serde(rename = "user_id")]
    User,
    /// The key.
    #[serde(rename = "api_key_id")]
    Key,
    /// The model.
    #[serde(rename = "model")]
    Model,
    /// The name that was asked for: an alias, or the model's id.
    #[serde(rename = "requested_model")]
    RequestedModel,
    /// The size.
    #[serde(rename = "size")]
    Size,
    /// The kind of request.
    #[serde(rename = "source")]
    Source,
}

/// Image usage
///
/// What was settled, in buckets of a minute, an hour or a day in UTC. A bucket that has closed never changes.
#[utoipa::path(
    get,
    path = "/v1/organization/usage/images",
    operation_id = "listImageUsage",
    tag = "organization",
    params(
        ("start_time" = i64, Query, description = "Start in Unix seconds; the first bucket has what was settled from then on.", minimum = 0, maximum = 253_402_300_799_i64),
        ("end_time" = Option<i64>, Query, description = "End in Unix seconds, not part of it; now if not given.", minimum = 0, maximum = 253_402_300_799_i64),
        ("bucket_width" = inline(Option<UsageWidthText>), Query, description = "`1m`, `1h` or `1d`; `1d` if not given."),
        ("group_by" = inline(Option<Vec<UsageGroupText>>), Query, description = "Any of `project_id`, `user_id`, `api_key_id`, `model`, `requested_model`, `size`, `source`."),
        ("project_ids" = inline(Option<Vec<ProjectId>>), Query, description = "Only these projects."),
        ("user_ids" = Option<Vec<String>>, Query, description = "Only these users."),
        ("api_key_ids" = inline(Option<Vec<ApiKeyId>>), Query, description = "Only these keys."),
        ("models" = Option<Vec<String>>, Query, description = "Only these models."),
        ("sizes" = Option<Vec<String>>, Query, description = "Only these sizes."),
        ("sources" = Option<Vec<String>>, Query, description = "Only these sources."),
        ("limit" = Option<u32>, Query, description = "Buckets on a page: 7 of 31 days, 24 of 168 hours, 60 of 1440 minutes if not given, and at most.", minimum = 1, maximum = 1440),
        ("page" = Option<String>, Query, description = "`next_page` of the page before.", pattern = "^[0-9]{1,12}$"),
    ),
    responses(
        (status = 200, description = "A page of buckets.", body = UsagePage),
        (status = 400, description = "A filter is wrong.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "A project key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn list_image_usage(
    _: AdminCaller<action::View>,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let usage_query = read_query(&request, services.clock.now())?;
    let page = services.gateway.books().usage(&usage_query).await?;
    let body = UsagePage {
        object: "page",
        has_more: page.next.is_some(),
        next_page: page.next.map(|next| next.seconds().to_string()),
        data: page.buckets.into_iter().map(bucket_view).collect(),
    };
    Ok(HttpResponse::Ok().json(body))
}

/// `page`: the start of its first bucket, as `next_page` told it.
pub fn page(pairs: &QueryPairs) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = pairs.one("page")? else { return Ok(None) };
    let is_ours = text.len() <= 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = text.parse::<i64>().ok().filter(|_| is_ours);
    seconds
        .map(|seconds| Some(Timestamp::from_seconds(seconds)))
        .ok_or_else(|| invalid_field("page", "must be the `next_page` of an answer"))
}

/// `end_time`, later than `from`; now if it is not given. What is settled is settled by now, so that the bucket of now is asked
/// for whole.
pub fn end_time(pairs: &QueryPairs, from: Timestamp, width: BucketWidth, now: Timestamp) -> Result<Timestamp, Problem> {
    let end = time_filter(pairs, "end_time")?.unwrap_or(now);
    if end <= from {
        return Err(invalid_field("end_time", "must be later than `start_time`"));
    }
    Ok(if end < now { end } else { width.end_of(end) })
}

fn read_query(request: &HttpRequest, now: Timestamp) -> Result<UsageQuery, Problem> {
    let pairs = query(request, FILTERS)?;
    let start = time_filter(&pairs, "start_time")?.ok_or_else(|| invalid_field("start_time", "is required"))?;
    let (width, default, most) = match pairs.one("bucket_width")?.unwrap_or("1d") {
        "1m" => (BucketWidth::Minute, 60, 1440),
        "1h" => (BucketWidth::Hour, 24, 168),
        "1d" => (BucketWidth::Day, 7, 31),
        _ => return Err(invalid_field("bucket_width", "must be `1m`, `1h` or `1d`")),
    };
    let end = end_time(&pairs, start, width, now)?;
    let group_by = pairs
        .list("group_by")
        .iter()
        .map(|word| match word.as_str() {
            "project_id" => Ok(UsageDimension::Project),
            "user_id" => Ok(UsageDimension::User),
            "api_key_id" => Ok(UsageDimension::Key),
            "model" => Ok(UsageDimension::Model),
            "requested_model" => Ok(UsageDimension::RequestedModel),
            "size" => Ok(UsageDimension::Size),
            "source" => Ok(UsageDimension::Source),
            _ => Err(invalid_field(
                "group_by",
                "must be any of project_id, user_id, api_key_id, model, requested_model, size, source",
            )),
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(UsageQuery {
        from: start,
        before: end,
        bucket: width,
        group_by,
        page: page(&pairs)?,
        filter: UsageFilter {
            projects: pairs.parsed_list("project_ids", "a project's id")?,
            keys: pairs.parsed_list("api_key_ids", "a key's id")?,
            models: pairs.list("models"),
            users: pairs.list("user_ids"),
            sizes: pairs.list("sizes"),
            sources: pairs.list("sources"),
        },
        limit: pairs.limit(default, most)?,
    })
}

fn bucket_view(bucket: UsageBucket) -> UsageBucketView {
    UsageBucketView {
        object: "bucket",
        start_time: bucket.start.seconds(),
        end_time: bucket.end.seconds(),
        results: bucket.rows.into_iter().map(result_view).collect(),
    }
}

fn result_view(row: UsageRow) -> UsageResult {
    UsageResult {
        object: "organization.usage.images.result",
        images: row.images,
        num_model_requests: row.requests,
        source: row.source,
        size: row.size,
        project_id: row.project_id.map(|id| id.to_string()),
        user_id: row.user,
        api_key_id: row.api_key_id.map(|id| id.to_string()),
        model: row.model,
        requested_model: row.requested_model,
        amount_usd: row.price.to_string(),
        cost_usd: row.cost.to_string(),
        megapixels: row.megapixels.to_string(),
    }
}
