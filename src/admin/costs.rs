//! `GET /v1/organization/costs`: what the projects pay, from the ledger, in OpenAI's words.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::shapes::Refusals;
use super::usage::{end_time, time};
use crate::api::access::{AdminCaller, action};
use crate::api::errors::invalid_field;
use crate::api::{Services, query};
use crate::http::Problem;
use crate::ledger::{BucketWidth, UsageDimension, UsageFilter, UsageQuery, UsageRow};

const FILTERS: &[&str] = &[
    "start_time",
    "end_time",
    "bucket_width",
    "group_by",
    "project_ids",
    "api_key_ids",
    "line_items",
    "limit",
    "page",
];

/// A page of days, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct CostsPage {
    /// Always `page`.
    #[schema(example = "page")]
    object: &'static str,
    /// The days, also those without costs.
    data: Vec<CostsBucket>,
    /// Whether there are later days.
    has_more: bool,
    /// `page` for the next days; null on the last page.
    next_page: Option<String>,
}

/// One day in UTC.
#[derive(Debug, Serialize, ToSchema)]
pub struct CostsBucket {
    /// Always `bucket`.
    #[schema(example = "bucket")]
    object: &'static str,
    /// Its start in Unix seconds.
    start_time: i64,
    /// Its end in Unix seconds; not part of it.
    end_time: i64,
    /// A row for each group that paid something on it.
    results: Vec<CostsResult>,
}

/// What one group pays for one day. Fields that were not grouped by are null.
#[derive(Debug, Serialize, ToSchema)]
pub struct CostsResult {
    /// Always `organization.costs.result`.
    #[schema(example = "organization.costs.result")]
    object: &'static str,
    /// Settlements less refunds.
    amount: CostsAmount,
    /// The model.
    line_item: Option<String>,
    /// Images delivered, if grouped by `line_item`.
    quantity: Option<u64>,
    /// `images`, if grouped by `line_item`.
    quantity_unit: Option<&'static str>,
    /// The project.
    project_id: Option<String>,
    /// The key.
    api_key_id: Option<String>,
    /// The `user` of the requests.
    user_id: Option<String>,
    /// `unlabeled`, if grouped by `api_source`.
    api_source: Option<&'static str>,
}

/// An amount of money.
#[derive(Debug, Serialize, ToSchema)]
pub struct CostsAmount {
    /// As OpenAI's SDKs read it: a float, so only near.
    #[schema(example = 0.035)]
    value: f64,
    /// Exactly, with nine places.
    #[schema(example = "0.035000000")]
    value_usd: String,
    /// Always `usd`.
    #[schema(example = "usd")]
    currency: &'static str,
}

/// Costs
///
/// What the projects pay: settlements under the day on which they were settled, refunds under their own day, in UTC. A day
/// that is over never changes. It is the price, not what the provider charges us.
#[utoipa::path(
    get,
    path = "/v1/organization/costs",
    operation_id = "listCosts",
    tag = "organization",
    params(
        ("start_time" = i64, Query, description = "Start in Unix seconds."),
        ("end_time" = Option<i64>, Query, description = "End in Unix seconds, not part of it; now if not given."),
        ("bucket_width" = Option<String>, Query, description = "Only `1d`."),
        ("group_by" = Option<Vec<String>>, Query, description = "Any of `project_id`, `user_id`, `line_item`, `api_key_id`, `api_source`."),
        ("project_ids" = Option<Vec<String>>, Query, description = "Only these projects."),
        ("api_key_ids" = Option<Vec<String>>, Query, description = "Only these keys."),
        ("line_items" = Option<Vec<String>>, Query, description = "Only these models."),
        ("limit" = Option<u32>, Query, description = "Days on a page, 1 to 180; 7 if not given.", minimum = 1, maximum = 180),
        ("page" = Option<String>, Query, description = "`next_page` of the page before."),
    ),
    responses((status = 200, description = "A page of days.", body = CostsPage), Refusals),
)]
pub async fn list_costs(
    _: AdminCaller<action::View>,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let pairs = query(&request, FILTERS)?;
    let from = time(&pairs, "start_time")?.ok_or_else(|| invalid_field("start_time", "is required"))?;
    let before = end_time(&pairs, from, BucketWidth::Day, services.clock.now())?;
    if !matches!(pairs.one("bucket_width")?, None | Some("1d")) {
        return Err(invalid_field("bucket_width", "must be `1d`"));
    }
    let groups = pairs.list("group_by");
    let by_source = groups.iter().any(|word| word == "api_source");
    let group_by = groups
        .iter()
        .filter(|word| *word != "api_source")
        .map(|word| match word.as_str() {
            "project_id" => Ok(UsageDimension::Project),
            "user_id" => Ok(UsageDimension::User),
            "line_item" => Ok(UsageDimension::Model),
            "api_key_id" => Ok(UsageDimension::Key),
            _ => {
                Err(invalid_field("group_by", "must be any of project_id, user_id, line_item, api_key_id, api_source"))
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    let usage_query = UsageQuery {
        from,
        before,
        bucket: BucketWidth::Day,
        group_by,
        page: time(&pairs, "page")?,
        filter: UsageFilter {
            projects: pairs.parsed_list("project_ids", "a project's id")?,
            keys: pairs.parsed_list("api_key_ids", "a key's id")?,
            models: pairs.list("line_items"),
            ..UsageFilter::default()
        },
        limit: pairs.limit(7, 180)?,
    };
    let page = services.gateway.books().costs(&usage_query).await?;
    let source = by_source.then_some("unlabeled");
    let body = CostsPage {
        object: "page",
        has_more: page.next.is_some(),
        next_page: page.next.map(|next| next.seconds().to_string()),
        data: page
            .buckets
            .into_iter()
            .map(|bucket| CostsBucket {
                object: "bucket",
                start_time: bucket.start.seconds(),
                end_time: bucket.end.seconds(),
                results: bucket.rows.into_iter().map(|row| result_view(row, source)).collect(),
            })
            .collect(),
    };
    Ok(HttpResponse::Ok().json(body))
}

fn result_view(row: UsageRow, api_source: Option<&'static str>) -> CostsResult {
    CostsResult {
        object: "organization.costs.result",
        amount: CostsAmount { value: row.price.approximate_usd(), value_usd: row.price.to_string(), currency: "usd" },
        quantity: row.model.is_some().then_some(row.images),
        quantity_unit: row.model.is_some().then_some("images"),
        line_item: row.model,
        project_id: row.project_id.map(|id| id.to_string()),
        api_key_id: row.api_key_id.map(|id| id.to_string()),
        user_id: row.user,
        api_source,
    }
}
