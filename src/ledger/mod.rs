//! The books: holds, settlements, balances, limits, usage. Only this room writes them.
//!
//! A generation is recorded with a hold on its project's money before the provider hears of it, and ends in one
//! transaction with its final state, the end of the hold and its ledger entries. The ledger is append-only and each of
//! its transactions sums to zero. An entry adds to what its account shows:
//!
//! | kind | entries |
//! | --- | --- |
//! | settlement | `project` −price, `revenue` +price, `cost_of_sales` +cost, `provider` −cost |
//! | top-up, correction | `project` +amount, `funding` −amount |
//! | refund | `project` +amount, `revenue` −amount |
//!
//! So a project's posted balance is what it may still spend, and below zero what it owes.

mod admission;
mod books;
mod credit;
mod decide;
mod error;
mod journal;
mod limits;
mod memory;
mod month;
mod projector;
mod resend;
mod retention;
#[cfg(test)]
mod tests;
mod writer;
mod writes;

pub use books::{Applied, Books, Recorded, Reserved};
pub use credit::{Credit, CreditKind, Refund};
pub use error::{LedgerError, ReserveError};
pub use limits::{ANY_MODEL, LimitReached, Limited, RateLimits, RateState};
pub use resend::{Found, Resend};
pub use retention::{DropError, drop_month, droppable_month};

pub use crate::store::{
    AttemptOutcome, AttemptRecord, Balance, BilledAttempt, BucketWidth, ChargeFilter, ChargeRecord, CostSource,
    Discrepancy, FinalState, Finish, GenerationFilter, GenerationRecord, GenerationState, HoldAges, Idempotency, Late,
    LedgerAccount, LedgerEntry, OpenHold, Outage, Outcome, Page, PoolUse, Purged, Reservation, Submitted,
    TransactionFilter, TransactionKind, TransactionRecord, UsageBucket, UsageDimension, UsageFilter, UsagePage,
    UsageQuery, UsageRow, Webhook, WebhookForm,
};
