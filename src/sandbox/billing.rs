//! What fal has billed, one event for each request that made pictures; joined to our books by the request id.

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::Sandbox;
use super::answers;
use super::behaviour::Stage;
use super::jobs::Job;
use super::misbehave::unless_spoiled;
use super::platform::{Query, error, page, refuses};
use crate::domain::{Fixed, Money};

/// Most requests looked through.
const MOST_REQUESTS: usize = 100_000;

/// `GET /v1/models/billing-events`: the newest first, by pages; `endpoint_id` and `request_id` narrow it down.
pub async fn list_events(request: HttpRequest, sandbox: web::Data<Sandbox>) -> HttpResponse {
    unless_spoiled(&request, &sandbox, Stage::Platform, async {
        if let Some(refused) = refuses(&request) {
            return refused;
        }
        let query = Query::of(&request);
        let endpoints = query.all("endpoint_id");
        let ids = query.all("request_id");
        if endpoints.len() > 50 || ids.len() > 50 {
            return error(400, "validation_error", "at most 50 ids can be named");
        }
        let now = sandbox.clock.now();
        let mut events: Vec<Value> = Vec::new();
        for job in sandbox.jobs.newest(MOST_REQUESTS).iter().rev() {
            let wanted = (endpoints.is_empty() || endpoints.contains(&job.endpoint.as_str()))
                && (ids.is_empty() || ids.contains(&job.id.to_string().as_str()));
            if wanted && job.pictures(now) > 0 {
                events.extend(event(&sandbox, job));
            }
        }
        let (events, next_cursor, has_more) = page(&events, &query);
        answers::json(200, &json!({"billing_events": events, "next_cursor": next_cursor, "has_more": has_more}))
    })
    .await
}

/// The true cost, whatever a rule has made the headers say; nothing where the price is not known.
fn event(sandbox: &Sandbox, job: &Job) -> Option<Value> {
    let plan = job.outcome().ok()?;
    let billing = &sandbox.schemas.endpoint(&job.endpoint)?.billing;
    let price: Fixed = billing.unit_price.as_ref()?.parse().ok()?;
    let units = Fixed::from_whole(i64::try_from(plan.units).ok()?)?;
    let cost = Money::from_nanos(price.billionths()).times(units)?;
    Some(json!({
        "request_id": job.id,
        "endpoint_id": job.endpoint,
        "timestamp": job.ends_at.rfc3339(),
        "output_units": plan.units,
        "unit_price": Money::from_nanos(price.billionths()).approximate_usd(),
        "percent_discount": 0,
        "cost_subtotal": cost.approximate_usd(),
        "cost_discount": 0,
        "cost_total": cost.approximate_usd(),
        "cost_estimate_nano_usd": cost.nanos(),
    }))
}
