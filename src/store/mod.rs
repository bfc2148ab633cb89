//! The two databases behind one interface: PostgreSQL where production runs, SQLite for first runs and small ones.
//!
//! All SQL of the project is in this room. A statement is written once and expanded for both drivers; only row locks,
//! `BEGIN IMMEDIATE`, batches and partitions differ. Rows come in and go out as the plain values of `rows.rs`; what
//! may be written is decided above, in `ledger` and `accounts`.

mod admission;
mod adopting;
mod alerts;
mod audit;
mod buckets;
mod charges;
mod clock;
mod connection;
mod credits;
mod error;
mod events;
mod files;
mod finishing;
mod generations;
mod hosts;
mod keys;
mod limits;
mod maintenance;
mod migrate;
mod model_aliases;
mod months;
mod open;
mod payloads;
mod privacy;
mod projecting;
mod projects;
mod provider_erasures;
mod rebuilding;
mod resends;
mod reserving;
mod rows;
mod service_accounts;
mod session;
mod sessions;
mod standby;
#[cfg(test)]
mod statements;
mod streams;
mod sums;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod transactions;
mod usage;
mod verify;
mod watching;
mod webhook_endpoints;
mod webhooks;
mod words;
mod writing;

use std::sync::Arc;

pub use alerts::{SpendAlertRecord, Standing};
pub use audit::{AuditFilter, AuditRecord};
pub use charges::{BilledAttempt, ChargeFilter, ChargeRecord};
pub use error::{Outage, StoreError};
pub use files::FileRecord;
pub use keys::{KeyFilter, KeyRecord};
pub use maintenance::Purged;
pub use model_aliases::AliasRecord;
pub use open::{StoreOptions, without_password};
pub use privacy::ProjectErasure;
pub use projects::{ANY_MODEL, ProjectChange, ProjectRecord, RateLimit};
pub use provider_erasures::{DueErasure, ProviderErasure};
pub use rebuilding::Rebuilt;
pub use rows::{
    AttemptRecord, Balance, Cursor, Discrepancy, Finish, GenerationFilter, GenerationRecord, Idempotency, Late,
    LedgerEntry, OpenHold, Outcome, Page, Reservation, Submitted,
};
pub use service_accounts::ServiceAccountRecord;
pub use transactions::{TransactionFilter, TransactionRecord};
pub use usage::{BucketWidth, UsageBucket, UsageDimension, UsageFilter, UsagePage, UsageQuery, UsageRow};
pub use watching::{HoldAges, PoolUse};
pub use webhook_endpoints::WebhookEndpoint;
pub use webhooks::{Webhook, WebhookAttempt, WebhookDelivery, WebhookSecretRow};
pub use words::{
    ActorKind, AttemptOutcome, AuditEvent, CostSource, FinalState, GenerationState, KeyKind, KeyOrigin, LedgerAccount,
    Retention, ServiceAccountRole, TransactionKind, UnknownWord, WebhookForm, WebhookState,
};

pub(crate) use admission::AdmissionRow;
pub(crate) use connection::{Lane, WriteTransaction, within};
pub(crate) use credits::{Entries, NewTransaction};
pub(crate) use events::NewEvent;
pub(crate) use keys::{ACCOUNTS, NewKeyRow, StoredKey};
pub(crate) use limits::{Asked, CountRow, KeyTerms, LimitRows, RateRow};
pub use months::MonthContent;
pub(crate) use months::MonthRange;
pub(crate) use privacy::Remains;
pub(crate) use resends::UnansweredRow;
pub(crate) use reserving::{BalanceRow, Existing, ProjectTerms};
pub(crate) use streams::Stream;
pub(crate) use sums::{BalanceChange, KeyChange, MonthlyCharge, SumChanges};
pub(crate) use webhook_endpoints::Breaker;
pub(crate) use webhooks::{WebhookNext, WebhookShare};
pub(crate) use writing::Append;

/// The database. Cheap to clone; all clones share the connections.
///
/// Connections are made on the runtime that [`Store::connect`] was called on, whoever asks for them, so that none dies
/// with a web worker.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<open::Inner>,
}
