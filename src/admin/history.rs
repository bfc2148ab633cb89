//! What operators see of one generation: parameters, attempts with their times, ledger entries, price, cost and why.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::accounts::ProviderErasure;
use crate::api::GenerationView;
use crate::domain::Timestamp;
use crate::ledger::{AttemptRecord, GenerationRecord, LedgerEntry};

/// A generation with its whole history.
#[derive(Debug, Serialize, ToSchema)]
pub struct GenerationHistory {
    #[serde(flatten)]
    #[schema(inline)]
    generation: GenerationView,
    /// The HTTP request that asked for it.
    request_id: String,
    /// What kind of use it is.
    #[schema(example = "image.generation")]
    source: String,
    /// The normalized parameters, without the prompt.
    #[schema(value_type = Object)]
    parameters: Value,
    /// The prompt, while the project keeps it.
    prompt: Option<String>,
    /// How many images were asked for.
    ordered_images: u32,
    /// The size that was asked for.
    size: Option<String>,
    /// When its answer is late, in Unix seconds.
    deadline_at: i64,
    /// When the provider began, in Unix seconds.
    started_at: Option<i64>,
    /// The most it could cost the project.
    hold_usd: String,
    /// What the provider billed for, if it said so.
    billable_units: Option<String>,
    /// The provider's price of one such unit, in US dollars.
    unit_price_usd: Option<String>,
    /// Price less cost, in US dollars.
    margin_usd: Option<String>,
    /// Why it ended so; null while it is open.
    reason: Option<String>,
    /// How far the provider has deleted what it had of the erased content; null where it was not asked to.
    #[schema(required = true)]
    erasure_at_provider: Option<ProviderErasureView>,
    /// Each submit that the provider took, first to last.
    attempts: Vec<AttemptView>,
    /// What it moved in the ledger, oldest first.
    ledger: Vec<LedgerEntryView>,
}

/// How far a provider has deleted what it had of an erased generation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProviderErasure)]
pub struct ProviderErasureView {
    /// When it had deleted everything, in Unix seconds; null while it has not.
    deleted_at: Option<i64>,
    /// How often it was asked.
    tries: i64,
    /// Why it has not deleted everything yet; it is asked again, at least every six hours.
    error: Option<String>,
}

impl ProviderErasureView {
    /// From each submit's own.
    fn of(erasures: &[ProviderErasure]) -> Option<Self> {
        erasures.first()?;
        let is_done = erasures.iter().all(|erasure| erasure.deleted_at().is_some());
        let last = erasures.iter().filter_map(ProviderErasure::deleted_at).max().filter(|_| is_done);
        Some(Self {
            deleted_at: last.map(Timestamp::seconds),
            tries: erasures.iter().map(|erasure| erasure.tries).sum(),
            error: erasures.iter().rev().find_map(|erasure| erasure.error.clone()),
        })
    }
}

/// A submit that the provider took.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attempt)]
pub struct AttemptView {
    /// One for the first submit.
    n: u32,
    /// Where it was sent.
    endpoint: String,
    /// The label of fal's key; never the key.
    credential: String,
    /// fal's id for it.
    fal_request_id: String,
    /// When fal took it, as RFC 3339.
    submitted_at: String,
    /// When it ended, as RFC 3339.
    ended_at: Option<String>,
    /// `succeeded`, `failed`, `cancelled`, `expired` or `replaced`.
    outcome: Option<&'static str>,
}

/// What one ledger account shows more or less since.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LedgerEntry)]
pub struct LedgerEntryView {
    /// The transaction; its entries sum to zero.
    transaction_id: String,
    /// `settlement` or `refund`.
    kind: &'static str,
    /// `project`, `revenue`, `cost_of_sales`, `provider` or `funding`.
    account: &'static str,
    /// By how much, in US dollars with nine places.
    amount_usd: String,
    /// Why.
    reason: String,
    /// Who, where a person did.
    author: Option<String>,
    /// When, as RFC 3339.
    created_at: String,
}

impl GenerationHistory {
    /// From what the books hold of it.
    pub fn of(
        record: &GenerationRecord,
        attempts: Vec<AttemptRecord>,
        entries: Vec<LedgerEntry>,
        erasures: &[ProviderErasure],
    ) -> Self {
        let outcome = record.outcome.as_ref();
        Self {
            generation: GenerationView::for_operator(record),
            request_id: record.request_id.to_string(),
            source: record.source.clone(),
            parameters: serde_json::from_str(&record.parameters).unwrap_or_default(),
            prompt: record.prompt.clone(),
            ordered_images: record.num_images,
            size: record.size.clone(),
            deadline_at: record.deadline_at.seconds(),
            started_at: record.started_at.map(Timestamp::seconds),
            hold_usd: record.hold.to_string(),
            billable_units: outcome.and_then(|outcome| outcome.billable_units).map(|units| units.to_string()),
            unit_price_usd: outcome.and_then(|outcome| outcome.unit_price).map(|price| price.to_string()),
            margin_usd: outcome
                .and_then(|outcome| outcome.price.checked_sub(outcome.cost))
                .map(|margin| margin.to_string()),
            reason: outcome.map(|outcome| outcome.reason.clone()),
            erasure_at_provider: ProviderErasureView::of(erasures),
            attempts: attempts.into_iter().map(AttemptView::of).collect(),
            ledger: entries.into_iter().map(LedgerEntryView::of).collect(),
        }
    }
}

impl AttemptView {
    fn of(attempt: AttemptRecord) -> Self {
        Self {
            n: attempt.n,
            endpoint: attempt.endpoint,
            credential: attempt.credential,
            fal_request_id: attempt.provider_request_id,
            submitted_at: attempt.submitted_at.rfc3339(),
            ended_at: attempt.ended_at.map(Timestamp::rfc3339),
            outcome: attempt.outcome.map(crate::ledger::AttemptOutcome::as_str),
        }
    }
}

impl LedgerEntryView {
    fn of(entry: LedgerEntry) -> Self {
        Self {
            transaction_id: entry.transaction_id.to_string(),
            kind: entry.kind.as_str(),
            account: entry.account.as_str(),
            amount_usd: entry.amount.to_string(),
            reason: entry.reason,
            author: entry.author,
            created_at: entry.created_at.rfc3339(),
        }
    }
}
