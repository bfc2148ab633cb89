//! `GET /admin/v1/holds` and `GET /admin/v1/margins`: money that is set aside, and what is left of each model's price.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::shapes::{LONGEST_LIFE, Refusals};
use super::usage::end_time;
use crate::api::access::{AdminCaller, action};
use crate::api::errors::invalid_field;
use crate::api::{Services, query, time_filter};
use crate::domain::Money;
use crate::http::Problem;
use crate::ledger::{BucketWidth, UsageDimension, UsageFilter, UsageQuery};

/// The open holds, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct HoldList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// The holds.
    data: Vec<HoldView>,
}

/// Money that is set aside for a generation that has not ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Hold)]
pub struct HoldView {
    /// The generation.
    generation_id: String,
    /// Always `hold`.
    #[schema(example = "hold")]
    object: &'static str,
    /// Who would pay.
    project_id: String,
    /// `queued` or `running`.
    state: &'static str,
    /// The most it can cost, in US dollars.
    amount_usd: String,
    /// Since when, in Unix seconds.
    opened_at: i64,
    /// For how many seconds.
    age_seconds: u64,
}

/// List open holds
///
/// Money that is set aside for generations that have not ended, the oldest first.
#[utoipa::path(
    get,
    path = "/admin/v1/holds",
    operation_id = "listHolds",
    tag = "admin",
    params(
        ("limit" = Option<u32>, Query, description = "How many, 1 to 1000; 100 if not given.", minimum = 1, maximum = 1000),
        ("min_age_seconds" = Option<u64>, Query, description = "Only those that are at least so old.", maximum = 3_162_240_000_u64),
    ),
    responses((status = 200, description = "The holds.", body = HoldList), Refusals),
)]
pub async fn list_holds(
    _: AdminCaller<action::View>,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let pairs = query(&request, &["limit", "min_age_seconds"])?;
    let limit = pairs.limit(100, 1000)?;
    let least = pairs.parsed::<u64>("min_age_seconds", "a number of seconds")?.unwrap_or(0);
    if least > LONGEST_LIFE {
        return Err(invalid_field("min_age_seconds", "must be at most 3162240000 (a hundred years)"));
    }
    let now = services.clock.now();
    let holds = services.gateway.books().open_holds(limit).await?;
    let views = holds.into_iter().map(|hold| HoldView {
        generation_id: hold.generation.to_string(),
        object: "hold",
        project_id: hold.project_id.to_string(),
        state: hold.state.as_str(),
        amount_usd: hold.amount.to_string(),
        opened_at: hold.opened_at.seconds(),
        age_seconds: now.since(hold.opened_at).as_secs(),
    });
    // The oldest come first, so that what is too young is at the end.
    let data = views.filter(|hold| hold.age_seconds >= least).collect();
    Ok(HttpResponse::Ok().json(HoldList { object: "list", data }))
}

/// What is left of each model's price.
#[derive(Debug, Serialize, ToSchema)]
pub struct MarginList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// A row for each model that settled something.
    data: Vec<MarginView>,
}

/// What is left of one model's price.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Margin)]
pub struct MarginView {
    /// The model.
    model: String,
    /// Always `margin`.
    #[schema(example = "margin")]
    object: &'static str,
    /// Generations that were charged.
    requests: u64,
    /// Generations that ended otherwise; free to the project, perhaps not to us.
    failures: u64,
    /// Images delivered.
    images: u64,
    /// What the projects pay, in US dollars.
    price_usd: String,
    /// What the provider charges us, in US dollars.
    cost_usd: String,
    /// What is left, in US dollars.
    margin_usd: String,
}

/// List margins
///
/// Price and cost of each model, by settlement.
#[utoipa::path(
    get,
    path = "/admin/v1/margins",
    operation_id = "listMargins",
    tag = "admin",
    params(
        ("start_time" = i64, Query, description = "Settled at this time or later, in Unix seconds.", minimum = 0, maximum = 253_402_300_799_i64),
        ("end_time" = Option<i64>, Query, description = "Settled before this time, in Unix seconds; now if not given.", minimum = 0, maximum = 253_402_300_799_i64),
    ),
    responses((status = 200, description = "A row for each model.", body = MarginList), Refusals),
)]
pub async fn list_margins(
    _: AdminCaller<action::View>,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let pairs = query(&request, &["start_time", "end_time"])?;
    let from = time_filter(&pairs, "start_time")?.ok_or_else(|| invalid_field("start_time", "is required"))?;
    let now = services.clock.now();
    // Nothing is charged later than today, and each day that is asked for costs a look.
    let before = end_time(&pairs, from, BucketWidth::Day, now)?.min(BucketWidth::Day.end_of(now));
    let mut models = std::collections::BTreeMap::<String, (u64, u64, u64, Money, Money)>::new();
    let mut next = (from < before).then_some(None);
    while let Some(page) = next {
        let usage_query = UsageQuery {
            from,
            before,
            bucket: BucketWidth::Day,
            group_by: vec![UsageDimension::Model],
            filter: UsageFilter::default(),
            limit: 1000,
            page,
        };
        let answer = services.gateway.books().usage(&usage_query).await?;
        for row in answer.buckets.into_iter().flat_map(|bucket| bucket.rows) {
            let sums = models.entry(row.model.unwrap_or_default()).or_default();
            sums.0 += row.requests;
            sums.1 += row.failures;
            sums.2 += row.images;
            sums.3 = [sums.3, row.price].into_iter().sum();
            sums.4 = [sums.4, row.cost].into_iter().sum();
        }
        next = answer.next.map(Some);
    }
    let view =
        |(model, (requests, failures, images, price, cost)): (String, (u64, u64, u64, Money, Money))| MarginView {
            model,
            object: "margin",
            requests,
            failures,
            images,
            price_usd: price.to_string(),
            cost_usd: cost.to_string(),
            margin_usd: price.checked_sub(cost).unwrap_or_default().to_string(),
        };
    Ok(HttpResponse::Ok().json(MarginList { object: "list", data: models.into_iter().map(view).collect() }))
}
