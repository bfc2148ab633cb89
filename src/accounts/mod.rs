//! Projects and keys: who may ask, and who pays.
//!
//! A key is thirty-two random bytes in hex behind `sk-ig-` (project) or `sk-ig-admin-` (admin); the database holds its
//! SHA-256 digest only. Every replica keeps all digests in memory, so that a request is authenticated without the
//! database, and reads them again when the change number has grown.

mod caller;
mod error;
mod keys;
mod policy;
mod projects;
mod ring;
mod secret;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use caller::{AuthError, Caller, CallerKind};
pub use error::AccountsError;
pub use keys::{FirstKeys, KeyChange, NewKey};
pub use policy::Policy;
pub use secret::Secret;

pub use crate::store::{KeyKind, KeyOrigin, KeyRecord, ProjectChange, ProjectRecord, RateLimit};

/// Projects and keys. Cheap to clone; all clones share the keys in memory.
#[derive(Debug, Clone)]
pub struct Accounts {
    inner: Arc<ring::Inner>,
}
