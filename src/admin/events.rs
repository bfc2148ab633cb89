//! `GET /admin/v1/events`: settlements and refunds as `CloudEvents`, for billing systems (`OpenMeter`, Lago, Stripe's meters).

use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::stream;
use serde::Serialize;
use utoipa::ToSchema;

use super::shapes::{Refusals, note_export};
use super::usage::time;
use crate::api::access::{AdminCaller, action};
use crate::api::errors::invalid_field;
use crate::api::{Services, query};
use crate::domain::{Fixed, Money};
use crate::http::Problem;
use crate::ledger::{Books, ChargeFilter, ChargeRecord, GenerationState, LedgerError, TransactionKind};

/// How many are read at a time.
const PAGE: u32 = 500;

/// A settlement or a refund as an event of `CloudEvents` 1.0. The same one has the same `source` and `id` for ever, whichever
/// replica tells it: taken twice, it counts once.
#[derive(Debug, Serialize, ToSchema)]
pub struct BillingEvent {
    /// Always `1.0`.
    #[schema(example = "1.0")]
    specversion: &'static str,
    /// Of the ledger transaction.
    #[schema(example = "019e1951-c778-7120-9c82-16efcf40ec82")]
    id: String,
    /// Always `urn:imagegate`.
    #[schema(example = "urn:imagegate")]
    source: &'static str,
    /// `imagegate.generation.settled` or `imagegate.generation.refunded`.
    #[serde(rename = "type")]
    #[schema(example = "imagegate.generation.settled")]
    kind: &'static str,
    /// The project that pays.
    subject: String,
    /// When it was settled or given back, as RFC 3339.
    time: String,
    /// Always `application/json`.
    #[schema(example = "application/json")]
    datacontenttype: &'static str,
    /// What was charged, and for what.
    data: BillingEventData,
}

/// What was charged, and for what.
#[derive(Debug, Serialize, ToSchema)]
pub struct BillingEventData {
    /// The generation.
    generation_id: String,
    /// How it ended.
    #[schema(example = "succeeded")]
    state: &'static str,
    /// The project.
    project_id: String,
    /// The key.
    api_key_id: String,
    /// The `user` of the request.
    user: Option<String>,
    /// The model.
    model: String,
    /// What kind of request it was.
    #[schema(example = "image.generation")]
    request_type: String,
    /// The size that was asked for.
    size: Option<String>,
    /// Images delivered; zero for a refund.
    images: u32,
    /// Megapixels charged; zero for a refund.
    megapixels: String,
    /// What the project pays, in US dollars with nine places; below zero what it was given back.
    #[schema(example = "0.035000000")]
    price_usd: String,
    /// The same in whole nano-dollars, for meters that sum numbers.
    #[schema(example = 35_000_000)]
    price_nano_usd: i64,
    /// What the provider charges us, in US dollars; zero for a refund.
    #[schema(example = "0.025000000")]
    cost_usd: String,
    /// True where the generation's month was dropped. Then only what the ledger has is known: ids, time, project, price and
    /// cost; model and request type are `(dropped)`, the key is empty, images and megapixels are zero.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    dropped: bool,
}

/// What stands for a word that went with its generation.
const DROPPED: &str = "(dropped)";

impl BillingEvent {
    fn of(charge: ChargeRecord) -> Self {
        Self {
            specversion: "1.0",
            id: charge.id.to_string(),
            source: "urn:imagegate",
            kind: match charge.kind {
                TransactionKind::Refund => "imagegate.generation.refunded",
                _ => "imagegate.generation.settled",
            },
            subject: charge.project_id.to_string(),
            time: charge.at.rfc3339(),
            datacontenttype: "application/json",
            data: BillingEventData {
                generation_id: charge.generation.to_string(),
                // What is free did not succeed.
                state: match charge.state {
                    Some(state) => state.as_str(),
                    None if charge.amount == Money::ZERO => GenerationState::Failed.as_str(),
                    None => GenerationState::Succeeded.as_str(),
                },
                project_id: charge.project_id.to_string(),
                api_key_id: charge.api_key_id.map(|key| key.to_string()).unwrap_or_default(),
                user: charge.user,
                dropped: charge.state.is_none(),
                model: charge.model.unwrap_or_else(|| DROPPED.to_owned()),
                request_type: charge.source.unwrap_or_else(|| DROPPED.to_owned()),
                size: charge.size,
                images: charge.images.unwrap_or_default(),
                megapixels: charge.megapixels.unwrap_or(Fixed::ZERO).to_string(),
                price_usd: charge.amount.to_string(),
                price_nano_usd: charge.amount.nanos(),
                cost_usd: charge.cost.to_string(),
            },
        }
    }
}

/// Export billing events
///
/// Settlements and refunds as `CloudEvents`, one JSON object on each line, oldest first. A settlement may be written some time
/// after its own time, so let windows overlap: what is told twice has the same `id`.
#[utoipa::path(
    get,
    path = "/admin/v1/events",
    operation_id = "exportBillingEvents",
    tag = "admin",
    params(
        ("start_time" = i64, Query, description = "Settled or given back at this time or later, in Unix seconds."),
        ("end_time" = Option<i64>, Query, description = "Before this time, in Unix seconds; now if not given."),
        ("project_id" = Option<String>, Query, description = "Only those of this project."),
    ),
    responses(
        (status = 200, description = "A stream of lines.", body = BillingEvent, content_type = "application/x-ndjson"),
        Refusals,
    ),
)]
pub async fn export_billing_events(
    caller: AdminCaller<action::View>,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let pairs = query(&request, &["start_time", "end_time", "project_id"])?;
    let from = time(&pairs, "start_time")?.ok_or_else(|| invalid_field("start_time", "is required"))?;
    let before = time(&pairs, "end_time")?.unwrap_or_else(|| services.clock.now());
    if before <= from {
        return Err(invalid_field("end_time", "must be later than `start_time`"));
    }
    let project_id = pairs.parsed("project_id", "a project's id")?;
    note_export(&request, &caller, &services, "billing_events", project_id).await?;
    let filter = ChargeFilter { from, before, project_id, after: None, limit: PAGE };
    let books = services.gateway.books().clone();
    let chunks = stream::unfold(Some((books, filter)), |state| async move {
        let (books, filter) = state?;
        match next_chunk(&books, filter).await {
            Ok((chunk, rest)) => Some((Ok(chunk), rest.map(|filter| (books, filter)))),
            Err(fault) => {
                tracing::error!(%fault, "an export of billing events broke off");
                Some((Err(std::io::Error::other("the export broke off")), None))
            }
        }
    });
    Ok(HttpResponse::Ok()
        .content_type("application/x-ndjson")
        .insert_header(("content-disposition", "attachment; filename=\"events.ndjson\""))
        .streaming(chunks))
}

/// Some lines, and how to go on.
async fn next_chunk(books: &Books, filter: ChargeFilter) -> Result<(Bytes, Option<ChargeFilter>), LedgerError> {
    let charges = books.charges(&filter).await?;
    let full = charges.len() >= filter.limit as usize;
    let last = charges.last().map(|charge| (charge.at, charge.id));
    let mut text = String::new();
    for charge in charges {
        text.push_str(&serde_json::to_string(&BillingEvent::of(charge)).unwrap_or_default());
        text.push('\n');
    }
    Ok((Bytes::from(text), full.then_some(ChargeFilter { after: last, ..filter })))
}
