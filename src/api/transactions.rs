//! `GET /v2/billing/detail`, `GET /v2/billing/transactions`: a project's account and its ledger, in AIML's shapes.

use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::DateTime;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::access::{ProjectCaller, scope};
use super::billing::{balance_of, left_of};
use super::errors::{bad_key_problem, invalid_field};
use super::generations::project_of;
use super::{QueryPairs, Services, query};
use crate::domain::{Money, Timestamp};
use crate::http::{Problem, ProblemBody};
use crate::ledger::{TransactionFilter, TransactionKind, TransactionRecord};

/// A project's account. AIML's has a user here; this gateway's projects have neither user nor mail address.
#[derive(Debug, Serialize, ToSchema)]
pub struct BillingDetail {
    /// Always null: a project has no number. `project_id` names it.
    user_id: Option<i64>,
    /// Always null: a project has no mail address.
    email: Option<String>,
    /// The project.
    #[schema(example = "proj_019e1951c77871209c8216efcf40ec82")]
    project_id: String,
    /// What it is called.
    #[schema(example = "default")]
    project_name: String,
    /// US dollars that are left, as in `/v2/billing`; only near.
    #[schema(example = 100.5)]
    current_balance: f64,
    /// The same with nine places.
    #[schema(example = "100.500000000")]
    current_balance_usd: String,
    /// Always `USD`.
    #[schema(example = "USD")]
    currency: &'static str,
    /// Always off: nothing is paid in by itself.
    autotopup_settings: AutoTopUp,
}

/// Whether money is paid in by itself.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct AutoTopUp {
    /// Always false.
    is_enabled: bool,
    /// Always zero.
    threshold: f64,
    /// Always zero.
    amount: f64,
    /// Always `USD`.
    #[schema(example = "USD")]
    currency: &'static str,
}

/// Retrieve the account
///
/// The key's project with what it may still spend, in AIML's shape as far as there is something true to say.
#[utoipa::path(
    get,
    path = "/v2/billing/detail",
    operation_id = "retrieveBillingDetail",
    tag = "billing",
    responses(
        (status = 200, description = "The account.", body = BillingDetail),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn retrieve_billing_detail(
    caller: ProjectCaller<scope::ReadBilling>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let project = services.accounts.project(project_of(&caller)?).await?.ok_or_else(bad_key_problem)?;
    let left = left_of(&balance_of(&caller, &services).await?);
    Ok(HttpResponse::Ok().json(BillingDetail {
        user_id: None,
        email: None,
        project_id: project.id.to_string(),
        project_name: project.name,
        current_balance: left.approximate_usd(),
        current_balance_usd: left.to_string(),
        currency: "USD",
        autotopup_settings: AutoTopUp { currency: "USD", ..AutoTopUp::default() },
    }))
}

/// A page of the project's ledger, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct BillingTransactions {
    /// One entry for each movement of the balance.
    data: Vec<BillingTransaction>,
    /// Where the next page begins.
    pagination: BillingPagination,
}

/// A movement of the balance.
#[derive(Debug, Serialize, ToSchema)]
pub struct BillingTransaction {
    /// When it was booked, in UTC.
    #[schema(example = "2026-08-17T10:00:00.000Z")]
    created_at: String,
    /// Which way the money moved: `TOPUP` in, `CHARGE` out.
    #[schema(example = "CHARGE")]
    direction: &'static str,
    /// `MODEL_USAGE`, `REFUND`, `PAYMENT`, `BONUS` or `ADJUSTMENT`.
    #[serde(rename = "type")]
    #[schema(example = "MODEL_USAGE")]
    kind: &'static str,
    /// How much, always above zero.
    amount: BillingAmount,
    /// The model that was charged; null for everything else.
    #[schema(example = "flux/dev")]
    model: Option<String>,
    /// The generation of a charge or refund, the transaction's own id of a payment; null for everything else.
    #[schema(example = "019e1951-c778-7120-9c82-16efcf40ec82")]
    reference_id: Option<String>,
}

/// An amount of money.
#[derive(Debug, Serialize, ToSchema)]
pub struct BillingAmount {
    /// In US dollars; only near.
    #[schema(example = 1.56)]
    usd: f64,
    /// In credits, of which 2,000,000 are a dollar.
    #[schema(example = 3_120_000)]
    credits: i64,
    /// In US dollars with nine places.
    #[schema(example = "1.560000000")]
    exact_usd: String,
}

/// Where the next page begins.
#[derive(Debug, Serialize, ToSchema)]
pub struct BillingPagination {
    /// To be given as `cursor`; null on the last page.
    next_cursor: Option<String>,
    /// Whether there is another page.
    has_more: bool,
}

/// Which way money moves.
#[derive(Debug, ToSchema)]
#[schema(as = BillingDirection)]
#[expect(dead_code, reason = "describes the words of `direction` in the document")]
pub enum DirectionText {
    /// In.
    #[serde(rename = "TOPUP")]
    TopUp,
    /// Out.
    #[serde(rename = "CHARGE")]
    Charge,
}

/// What moved money.
#[derive(Debug, ToSchema)]
#[schema(as = BillingTransactionType)]
#[expect(dead_code, reason = "describes the words of `type` in the document")]
pub enum TypeText {
    /// Money paid in.
    #[serde(rename = "PAYMENT")]
    Payment,
    /// A gift.
    #[serde(rename = "BONUS")]
    Bonus,
    /// A charge given back.
    #[serde(rename = "REFUND")]
    Refund,
    /// A mistake put right.
    #[serde(rename = "ADJUSTMENT")]
    Adjustment,
    /// A charge for images.
    #[serde(rename = "MODEL_USAGE")]
    ModelUsage,
    /// Nothing here: credits do not expire.
    #[serde(rename = "CREDITS_EXPIRED")]
    CreditsExpired,
    /// Nothing here: projects begin with nothing.
    #[serde(rename = "INIT")]
    Init,
}

/// AIML's words for kinds of transaction.
const TYPES: [(&str, TransactionKind); 5] = [
    ("PAYMENT", TransactionKind::TopUp),
    ("BONUS", TransactionKind::Goodwill),
    ("REFUND", TransactionKind::Refund),
    ("ADJUSTMENT", TransactionKind::Correction),
    ("MODEL_USAGE", TransactionKind::Settlement),
];

/// List the project's transactions
///
/// What was paid in, charged and given back, newest first, in AIML's shape: the project's own ledger. AIML's names `from`, `to`
/// and `type` mean `start`, `end` and `kind`; as names of parameters they are reserved words of several languages.
#[utoipa::path(
    get,
    path = "/v2/billing/transactions",
    operation_id = "listBillingTransactions",
    tag = "billing",
    params(
        ("start" = Option<String>, Query, description = "Only from this moment on; ISO 8601, UTC where it names no offset.", format = DateTime),
        ("end" = Option<String>, Query, description = "Only before this moment, which is later than `start`.", format = DateTime),
        ("direction" = inline(Option<DirectionText>), Query, description = "Only money that came in (`TOPUP`) or went out (`CHARGE`)."),
        ("kind" = inline(Option<TypeText>), Query, description = "Only transactions of this type."),
        ("limit" = Option<u32>, Query, description = "How many, 1 to 100; 50 if not given.", minimum = 1, maximum = 100),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before."),
    ),
    responses(
        (status = 200, description = "A page of transactions.", body = BillingTransactions),
        (status = 400, description = "A filter is wrong.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn list_billing_transactions(
    caller: ProjectCaller<scope::ReadBilling>,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let known = ["from", "start", "to", "end", "direction", "type", "kind", "limit", "cursor"];
    let pairs = query(&request, &known)?;
    let from = moment(&pairs, "from", "start")?.unwrap_or(Timestamp::from_micros(0));
    let before = moment(&pairs, "to", "end")?;
    if before.is_some_and(|before| before <= from) {
        let named = if pairs.one("to")?.is_some() { "to" } else { "end" };
        return Err(invalid_field(named, "must be later than the start"));
    }
    let adds = match pairs.one("direction")? {
        None => None,
        Some("TOPUP") => Some(true),
        Some("CHARGE") => Some(false),
        Some(_) => return Err(invalid_field("direction", "must be `TOPUP` or `CHARGE`")),
    };
    let kind = kind_of(&pairs)?;
    let limit = pairs.limit(50, 100)?;
    let after = pairs.one("cursor")?.map(|text| read_cursor(text).ok_or_else(unknown_cursor)).transpose()?;
    let filter = TransactionFilter {
        project_id: project_of(&caller)?,
        from,
        before: before.unwrap_or(Timestamp::from_micros(i64::MAX)),
        adds,
        kind: if let Wanted::Only(kind) = kind { Some(kind) } else { None },
        after,
        limit: limit + 1,
    };
    let mut rows = match kind {
        Wanted::Nothing => Vec::new(),
        Wanted::Any | Wanted::Only(_) => services.gateway.books().transactions(&filter).await?,
    };
    let has_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_cursor = rows.last().filter(|_| has_more).map(|last| cursor(last.at, last.id));
    Ok(HttpResponse::Ok().json(BillingTransactions {
        data: rows.into_iter().map(view).collect(),
        pagination: BillingPagination { next_cursor, has_more },
    }))
}

/// Which kinds are asked for.
enum Wanted {
    Any,
    Only(TransactionKind),
    /// One of AIML's that does not occur here.
    Nothing,
}

fn kind_of(pairs: &QueryPairs) -> Result<Wanted, Problem> {
    let Some((name, word)) = either(pairs, "type", "kind")? else { return Ok(Wanted::Any) };
    match TYPES.iter().find(|(known, _)| *known == word) {
        Some((_, kind)) => Ok(Wanted::Only(*kind)),
        None if matches!(word, "CREDITS_EXPIRED" | "INIT") => Ok(Wanted::Nothing),
        None => {
            let words: Vec<&str> = TYPES.iter().map(|(known, _)| *known).collect();
            Err(invalid_field(name, &format!("must be one of {}, CREDITS_EXPIRED, INIT", words.join(", "))))
        }
    }
}

fn moment(pairs: &QueryPairs, theirs: &str, ours: &str) -> Result<Option<Timestamp>, Problem> {
    let Some((name, text)) = either(pairs, theirs, ours)? else { return Ok(None) };
    let moment = super::account::read_moment(text);
    moment.map(Some).ok_or_else(|| invalid_field(name, "must be a time such as 2026-07-01T00:00:00Z"))
}

/// The value of a parameter under AIML's name or ours, and the name.
fn either<'p>(pairs: &'p QueryPairs, theirs: &'p str, ours: &'p str) -> Result<Option<(&'p str, &'p str)>, Problem> {
    match (pairs.one(theirs)?, pairs.one(ours)?) {
        (Some(_), Some(_)) => Err(invalid_field(ours, &format!("cannot be combined with `{theirs}`"))),
        (Some(value), None) => Ok(Some((theirs, value))),
        (None, value) => Ok(value.map(|value| (ours, value))),
    }
}

fn view(record: TransactionRecord) -> BillingTransaction {
    let adds = record.amount > Money::ZERO;
    let amount = if adds { record.amount } else { Money::ZERO.checked_sub(record.amount).unwrap_or_default() };
    let kind = TYPES.iter().find(|(_, kind)| *kind == record.kind).map_or("ADJUSTMENT", |(word, _)| word);
    let reference_id = match record.kind {
        TransactionKind::Settlement | TransactionKind::Refund => record.generation.map(|id| id.to_string()),
        TransactionKind::TopUp => Some(record.id.to_string()),
        TransactionKind::Correction | TransactionKind::Goodwill => None,
    };
    BillingTransaction {
        created_at: record.at.rfc3339(),
        direction: if adds { "TOPUP" } else { "CHARGE" },
        kind,
        amount: BillingAmount {
            usd: amount.approximate_usd(),
            credits: amount.credits(),
            exact_usd: amount.to_string(),
        },
        model: record.model.filter(|_| record.kind == TransactionKind::Settlement),
        reference_id,
    }
}

/// A place in the list, as one opaque word.
fn cursor(at: Timestamp, id: Uuid) -> String {
    let mut bytes = at.micros().to_be_bytes().to_vec();
    bytes.extend(id.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn read_cursor(text: &str) -> Option<(Timestamp, Uuid)> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (at, id) = bytes.split_first_chunk::<8>()?;
    let micros = i64::from_be_bytes(*at);
    DateTime::from_timestamp_micros(micros)?;
    Some((Timestamp::from_micros(micros), Uuid::from_slice(id).ok()?))
}

fn unknown_cursor() -> Problem {
    invalid_field("cursor", "must be `next_cursor` of the page before")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is() {
        let place = (Timestamp::from_micros(1_796_000_000_123_456), Uuid::from_u128(7));
        assert_eq!(read_cursor(&cursor(place.0, place.1)), Some(place));
        for wrong in ["", "a", "AAAA", "!!!", &cursor(place.0, place.1)[1..]] {
            assert_eq!(read_cursor(wrong), None, "{wrong}");
        }
    }
}
