//! `GET /v1/billing/balance` and `GET /v2/billing`: what a project may still spend, in AIML's two shapes.

use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::Services;
use super::access::{ProjectCaller, scope};
use crate::accounts::{Caller, CallerKind};
use crate::domain::Money;
use crate::http::{Code, Problem, ProblemBody};
use crate::ledger::Balance;

/// What a project that nothing limits is told to have: a million dollars, enough for any client that looks first.
const ENOUGH: Money = Money::from_nanos(1_000_000_000_000_000);
/// Below this a balance is low; AIML's threshold of 10,000 credits.
const LOW: Money = Money::from_nanos(5_000_000);

/// What the project may still spend, in credits: 2,000,000 are one US dollar.
#[derive(Debug, Serialize, ToSchema)]
pub struct BillingBalance {
    /// Credits that are left: of a prepaid project its balance less what is set aside for open requests, of another one
    /// what its spend limit leaves of this month, and without a limit always enough.
    #[schema(example = 10_000_000)]
    balance: i64,
    /// The same in US dollars with nine places.
    #[schema(example = "5.000000000")]
    balance_usd: String,
    /// Whether less than the threshold is left.
    #[serde(rename = "lowBalance")]
    low_balance: bool,
    /// The threshold in credits.
    #[serde(rename = "lowBalanceThreshold")]
    #[schema(example = 10_000)]
    low_balance_threshold: i64,
    /// Now, as RFC 3339 in UTC.
    #[serde(rename = "lastUpdated")]
    last_updated: String,
    /// Always `disabled`: nothing is paid in by itself.
    #[serde(rename = "autoDebitStatus")]
    #[schema(example = "disabled")]
    auto_debit_status: &'static str,
    /// `current`, `exhausted`, or `enough` for a project that pays afterwards.
    #[schema(example = "current")]
    status: &'static str,
    /// The status in words.
    #[serde(rename = "statusExplanation")]
    status_explanation: &'static str,
}

/// What the project may still spend, in US dollars.
#[derive(Debug, Serialize, ToSchema)]
pub struct Billing {
    /// US dollars that are left, as in `/v1/billing/balance`; the exact amount stands beside it.
    #[schema(example = 123.45)]
    current_balance: f64,
    /// The same with nine places.
    #[schema(example = "123.450000000")]
    current_balance_usd: String,
    /// Always `USD`.
    #[schema(example = "USD")]
    currency: &'static str,
}

/// Retrieve the balance
#[utoipa::path(
    get,
    path = "/v1/billing/balance",
    operation_id = "retrieveBillingBalance",
    tag = "billing",
    responses(
        (status = 200, description = "What the key's project may still spend.", body = BillingBalance),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn retrieve_billing_balance(
    caller: ProjectCaller<scope::ReadBilling>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let balance = balance_of(&caller, &services).await?;
    let left = left_of(&balance);
    let (status, status_explanation) = match (balance.prepaid, left > Money::ZERO) {
        (false, true) => ("enough", "This project pays afterwards; it needs no balance"),
        (true, true) => ("current", "Balance is current and up to date"),
        (_, false) => ("exhausted", "Nothing is left to spend"),
    };
    Ok(HttpResponse::Ok().json(BillingBalance {
        balance: whole_credits(left),
        balance_usd: left.to_string(),
        low_balance: left < LOW,
        low_balance_threshold: whole_credits(LOW),
        last_updated: services.clock.now().rfc3339(),
        auto_debit_status: "disabled",
        status,
        status_explanation,
    }))
}

/// Retrieve the balance in US dollars
#[utoipa::path(
    get,
    path = "/v2/billing",
    operation_id = "retrieveBilling",
    tag = "billing",
    responses(
        (status = 200, description = "What the key's project may still spend.", body = Billing),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn retrieve_billing(
    caller: ProjectCaller<scope::ReadBilling>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let left = left_of(&balance_of(&caller, &services).await?);
    Ok(HttpResponse::Ok().json(Billing {
        current_balance: left.approximate_usd(),
        current_balance_usd: left.to_string(),
        currency: "USD",
    }))
}

pub(super) async fn balance_of(caller: &Caller, services: &Services) -> Result<Balance, Problem> {
    let CallerKind::Project(project) = caller.kind else {
        return Err(Problem::new(Code::PermissionDenied, "this path wants a project key"));
    };
    let balance = services.gateway.books().balance(project, services.clock.now()).await?;
    balance.ok_or_else(|| Problem::new(Code::InternalError, "the project has no balance"))
}

/// What may still be spent.
pub(super) fn left_of(balance: &Balance) -> Money {
    let credit = balance.prepaid.then(|| less(balance.posted, balance.held));
    let month = balance.spend_limit.map(|limit| less(less(limit, balance.spent_this_month), balance.held));
    [credit, month].into_iter().flatten().min().unwrap_or(ENOUGH)
}

fn less(amount: Money, taken: Money) -> Money {
    amount.checked_sub(taken).unwrap_or(Money::ZERO)
}

/// Whole credits, rounded down: never more than there is.
fn whole_credits(amount: Money) -> i64 {
    let up = amount.credits();
    if up.saturating_mul(500) > amount.nanos() { up - 1 } else { up }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_the_least_that_any_limit_leaves() {
        let dollars = |text: &str| text.parse::<Money>().unwrap();
        let balance = Balance {
            posted: dollars("3"),
            held: dollars("0.5"),
            prepaid: false,
            spend_limit: None,
            spent_this_month: dollars("1"),
        };
        assert_eq!(left_of(&balance), ENOUGH);
        assert_eq!(left_of(&Balance { prepaid: true, ..balance }), dollars("2.5"));
        assert_eq!(left_of(&Balance { prepaid: true, spend_limit: Some(dollars("2")), ..balance }), dollars("0.5"));
        assert_eq!(whole_credits(Money::from_nanos(999)), 1);
        assert_eq!(whole_credits(Money::from_nanos(-1)), -1);
    }
}
