//! Projects and keys: who may ask, and who pays.
//!
//! A key is thirty-two random bytes in hex and a checksum behind `sk-ig-` (project) or `sk-ig-admin-` (admin); the database
//! holds its SHA-256 digest only. Every replica keeps all digests in memory, so that a request is authenticated without the
//! database, and reads them again when the change number has grown.

mod alerts;
mod aliases;
mod attempts;
mod audit;
mod caller;
mod error;
mod files;
mod keys;
mod policy;
mod privacy;
mod projects;
mod ring;
mod secret;
mod service_accounts;
mod sessions;
mod terms;
#[cfg(test)]
mod tests;
mod uses;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

pub use alerts::SpendAlert;
pub use audit::Author;
pub use caller::{AdmitError, AuthError, Caller, CallerKind};
pub use error::AccountsError;
pub use files::{NewFile, UploadLimit};
pub use keys::{FirstKeys, KeyChange, NewKey, Rotated};
pub use policy::Policy;
pub use privacy::Kept;
pub use projects::DefaultRates;
pub use secret::Secret;
pub use service_accounts::{ServiceAccountChange, ServiceKeyTerms};
pub use sessions::{Client, SESSION_LIFE, SignIn};

pub use crate::domain::{Adapt, AdminAction, Alias, Aliases, Role, Scope, Scopes, UnknownPermission};
pub use crate::store::{
    ActorKind, AliasRecord, AuditEvent, AuditFilter, AuditRecord, Cursor, FileRecord, KeyFilter, KeyKind, KeyOrigin,
    KeyRecord, Page, ProjectChange, ProjectErasure, ProjectRecord, ProviderErasure, RateLimit, Retention,
    ServiceAccountRecord, ServiceAccountRole, SpendAlertRecord, Standing,
};

/// Waits, in small steps, so that shutdown does not.
pub async fn pause(closing: &TaskTracker, duration: Duration) {
    let until = tokio::time::Instant::now() + duration;
    while !closing.is_closed() && tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Projects and keys. Cheap to clone; all clones share the keys in memory.
#[derive(Debug, Clone)]
pub struct Accounts {
    inner: Arc<ring::Inner>,
    author: Arc<Author>,
    default_rates: DefaultRates,
}
