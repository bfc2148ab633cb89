//! What the books hold, as plain values: what is written, what is read back, what is asked for.

use uuid::Uuid;

use super::words::{AttemptOutcome, CostSource, FinalState, GenerationState};
use crate::domain::{ApiKeyId, Fixed, GenerationId, Money, ProjectId, RequestId, Timestamp};

/// A generation to be recorded, with the money to hold for it.
#[derive(Debug, Clone)]
pub struct Reservation {
    /// Its id.
    pub id: GenerationId,
    /// Who pays.
    pub project_id: ProjectId,
    /// Who asked.
    pub api_key_id: ApiKeyId,
    /// Now.
    pub created_at: Timestamp,
    /// When its answer is late.
    pub deadline_at: Timestamp,
    /// Our id of the model.
    pub model: String,
    /// The name that was asked for, if it is another than the model's id.
    pub requested_model: Option<String>,
    /// The provider's name.
    pub provider: String,
    /// The provider's endpoint.
    pub endpoint: String,
    /// How many images were ordered; at least one.
    pub num_images: u32,
    /// The ordered size as `1024x768`, where the model has one.
    pub size: Option<String>,
    /// The normalized parameters as JSON, without the prompt.
    pub parameters: String,
    /// How each model that may make it is charged, as JSON.
    pub terms: Option<String>,
    /// The prompt; stored only if the project keeps prompts.
    pub prompt: Option<String>,
    /// The customer's own name for its user.
    pub user: Option<String>,
    /// The HTTP request that asked.
    pub request_id: RequestId,
    /// What kind of use this is, such as `image.generation`.
    pub source: String,
    /// The most it can cost the project.
    pub hold: Money,
    /// The replica that works on it.
    pub owner: Uuid,
    /// Whether it ends when the client hangs up while it is still queued.
    pub cancel_if_client_leaves: bool,
    /// The customer's idempotency key.
    pub idempotency: Option<Idempotency>,
    /// SHA-256 over what was asked, if the client may send it again without a key: a resend then joins it.
    pub resend_digest: Option<[u8; 32]>,
    /// Whom to call when it has ended.
    pub webhook: Option<super::webhooks::Webhook>,
}

/// A customer's idempotency key, unique within its project until it expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// As the customer sent it.
    pub key: String,
    /// SHA-256 over what was asked.
    pub digest: [u8; 32],
    /// From when on the key is free again; later than the reservation.
    pub expires_at: Timestamp,
}

/// A submit that the provider took.
#[derive(Debug, Clone)]
pub struct Submitted {
    /// Which generation.
    pub generation: GenerationId,
    /// One for the first submit, two for the first fallback and so on.
    pub attempt: u32,
    /// Where it was sent.
    pub endpoint: String,
    /// The label of the provider key, never the key.
    pub credential: String,
    /// The provider's id of it.
    pub provider_request_id: String,
    /// Where to ask how it stands.
    pub status_url: String,
    /// Where to fetch the result.
    pub response_url: String,
    /// Where to cancel it.
    pub cancel_url: String,
    /// When the provider took it.
    pub submitted_at: Timestamp,
}

/// How a generation ended, and what that costs whom.
#[derive(Debug, Clone)]
pub struct Finish {
    /// Which generation.
    pub generation: GenerationId,
    /// The latest attempt that whoever ends it knows of; 0 for none. Where there is a later one it does not end.
    pub attempt: u32,
    /// The model that was asked last: a fallback's where the first one was unavailable. `None` is the one recorded.
    pub model: Option<String>,
    /// Its last state.
    pub state: FinalState,
    /// When; the time that usage and costs count it under.
    pub settled_at: Timestamp,
    /// What the project pays: at most its hold, and zero unless it succeeded.
    pub price: Money,
    /// What the provider charges us, also where the project pays nothing.
    pub cost: Money,
    /// Where the cost comes from.
    pub cost_source: CostSource,
    /// The provider's billable units, if it named them.
    pub billable_units: Option<Fixed>,
    /// The provider's price of one such unit in dollars.
    pub unit_price: Option<Fixed>,
    /// How many images were delivered.
    pub images: u32,
    /// Their megapixels.
    pub megapixels: Fixed,
    /// The provider-neutral result as JSON, kept for replays.
    pub answer: Option<String>,
    /// The error as JSON.
    pub error: Option<String>,
    /// Why it ended so, in words for an operator.
    pub reason: String,
    /// Whether its idempotency key becomes free at once, for failures that may succeed later.
    pub release_idempotency_key: bool,
}

/// What was seen of a generation after it had ended without it.
#[derive(Debug, Clone)]
pub struct Late {
    /// Which generation.
    pub generation: GenerationId,
    /// When; the time that usage counts the cost under.
    pub at: Timestamp,
    /// What the provider charges us.
    pub cost: Money,
    /// Where the cost comes from.
    pub cost_source: CostSource,
    /// The provider's billable units, if it named them.
    pub billable_units: Option<Fixed>,
    /// The provider's price of one such unit in dollars.
    pub unit_price: Option<Fixed>,
    /// The provider-neutral result as JSON, if there is one: it can be fetched.
    pub answer: Option<String>,
}

/// A generation as the books know it.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationRecord {
    /// Its id.
    pub id: GenerationId,
    /// Who pays.
    pub project_id: ProjectId,
    /// Who asked.
    pub api_key_id: ApiKeyId,
    /// The HTTP request that asked.
    pub request_id: RequestId,
    /// Where it stands.
    pub state: GenerationState,
    /// The replica that works on it, or did last.
    pub owner: Uuid,
    /// What kind of use this is.
    pub source: String,
    /// Our id of the model.
    pub model: String,
    /// The name that was asked for, if it is another than the model's id.
    pub requested_model: Option<String>,
    /// The provider's name.
    pub provider: String,
    /// The provider's endpoint: of the latest attempt, or else the first choice.
    pub endpoint: String,
    /// How many images were ordered.
    pub num_images: u32,
    /// The ordered size as `1024x768`.
    pub size: Option<String>,
    /// The normalized parameters as JSON, without the prompt.
    pub parameters: String,
    /// How each model that may make it is charged, as JSON.
    pub terms: Option<String>,
    /// The prompt, while it is kept.
    pub prompt: Option<String>,
    /// The customer's own name for its user.
    pub user: Option<String>,
    /// Whether it ends when the client hangs up while it is still queued.
    pub cancel_if_client_leaves: bool,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When its answer is late.
    pub deadline_at: Timestamp,
    /// When the provider began.
    pub started_at: Option<Timestamp>,
    /// The most it can cost the project.
    pub hold: Money,
    /// Since when its content is gone: prompt, parameters, answer, images.
    pub erased_at: Option<Timestamp>,
    /// The latest submit.
    pub attempt: Option<AttemptRecord>,
    /// How it ended, once it has.
    pub outcome: Option<Outcome>,
}

/// How a generation ended, as the books know it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// When.
    pub settled_at: Timestamp,
    /// What the project paid.
    pub price: Money,
    /// What it cost us, also what came to light after its end.
    pub cost: Money,
    /// When something came to light after its end.
    pub late_at: Option<Timestamp>,
    /// Where the cost comes from.
    pub cost_source: CostSource,
    /// The provider's billable units.
    pub billable_units: Option<Fixed>,
    /// The provider's price of one such unit in dollars.
    pub unit_price: Option<Fixed>,
    /// How many images were delivered.
    pub images: u32,
    /// Their megapixels.
    pub megapixels: Fixed,
    /// The provider-neutral result as JSON.
    pub answer: Option<String>,
    /// The error as JSON.
    pub error: Option<String>,
    /// Why it ended so.
    pub reason: String,
}

/// A submit that the provider took, as the books know it.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptRecord {
    /// One for the first submit.
    pub n: u32,
    /// Where it was sent.
    pub endpoint: String,
    /// The label of the provider key.
    pub credential: String,
    /// The provider's id of it.
    pub provider_request_id: String,
    /// Where to ask how it stands.
    pub status_url: String,
    /// Where to fetch the result.
    pub response_url: String,
    /// Where to cancel it.
    pub cancel_url: String,
    /// When the provider took it.
    pub submitted_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<AttemptOutcome>,
}

/// Which generations to list; everything that is given must match.
#[derive(Debug, Clone, Default)]
pub struct GenerationFilter {
    /// Created at or after.
    pub created_from: Option<Timestamp>,
    /// Created before.
    pub created_before: Option<Timestamp>,
    /// Of this project.
    pub project_id: Option<ProjectId>,
    /// Of this key.
    pub api_key_id: Option<ApiKeyId>,
    /// Of this model.
    pub model: Option<String>,
    /// Of one of these models, if there are any.
    pub models: Vec<String>,
    /// Only those that have ended.
    pub ended: bool,
    /// Only those that have succeeded, or only those that have not.
    pub succeeded: Option<bool>,
    /// Only those that the provider billed another amount for than the catalogue computed.
    pub drifted: bool,
    /// In this state.
    pub state: Option<GenerationState>,
    /// Of this user of the customer's.
    pub user: Option<String>,
    /// With an attempt that the provider knows by this id.
    pub provider_request_id: Option<String>,
    /// Costing us at least so much.
    pub cost_from: Option<Money>,
    /// Costing us at most so much.
    pub cost_to: Option<Money>,
    /// Charged at least so much.
    pub price_from: Option<Money>,
    /// Charged at most so much.
    pub price_to: Option<Money>,
    /// Older than this generation: the last one of the page before.
    pub after: Option<GenerationId>,
    /// How many to pass over; for clients that know no cursor.
    pub offset: u32,
    /// How many at most; 1 to 1000.
    pub limit: u32,
}

/// Which part of a list of things by their ids.
#[derive(Debug, Clone, Copy)]
pub struct Cursor {
    /// Beyond this id: the last one of the page before.
    pub after: Option<Uuid>,
    /// Oldest first instead of newest first.
    pub oldest_first: bool,
    /// How many at most; 1 to 1000.
    pub limit: u32,
}

impl Cursor {
    /// The page of `rows`, of which one more than `limit` was asked for.
    pub(crate) fn page<T>(self, mut rows: Vec<T>) -> Page<T> {
        let limit = self.limit as usize;
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        Page { items: rows, has_more }
    }

    /// Appends what narrows and orders a query by `column`, which holds ids.
    pub(super) fn push<'q, D>(self, query: &mut sqlx::QueryBuilder<D>, column: &str)
    where
        D: sqlx::Database,
        Uuid: sqlx::Encode<'q, D> + sqlx::Type<D>,
        i64: sqlx::Encode<'q, D> + sqlx::Type<D>,
    {
        let (beyond, order) = if self.oldest_first { (">", "ASC") } else { ("<", "DESC") };
        if let Some(after) = self.after {
            query.push(format_args!(" AND {column} {beyond} ")).push_bind(after);
        }
        query.push(format_args!(" ORDER BY {column} {order} LIMIT ")).push_bind(i64::from(self.limit) + 1);
    }
}

/// Part of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The part.
    pub items: Vec<T>,
    /// Whether something follows.
    pub has_more: bool,
}

/// What a project has, owes and may spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    /// The sum of its ledger entries; negative: what it owes.
    pub posted: Money,
    /// The sum of its open holds.
    pub held: Money,
    /// Whether it may spend no more than it has.
    pub prepaid: bool,
    /// The most that a month may cost.
    pub spend_limit: Option<Money>,
    /// What this month was charged.
    pub spent_this_month: Money,
}

/// Something in the books that does not add up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} of `{subject}` is {found}, should be {expected}")]
pub struct Discrepancy {
    /// What is wrong.
    pub what: String,
    /// Of which row.
    pub subject: String,
    /// What is there.
    pub found: String,
    /// What should be there.
    pub expected: String,
}

/// Money that is set aside for a generation that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenHold {
    /// The generation.
    pub generation: GenerationId,
    /// Who would pay.
    pub project_id: ProjectId,
    /// The most it can cost.
    pub amount: Money,
    /// Since when.
    pub opened_at: Timestamp,
    /// Where the generation stands.
    pub state: GenerationState,
}

/// One entry of the ledger, with its transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The transaction.
    pub transaction_id: Uuid,
    /// What moved the money.
    pub kind: super::TransactionKind,
    /// The account that it changes.
    pub account: super::LedgerAccount,
    /// By how much.
    pub amount: Money,
    /// Why.
    pub reason: String,
    /// Who, where a person did.
    pub author: Option<String>,
    /// When.
    pub created_at: Timestamp,
}
