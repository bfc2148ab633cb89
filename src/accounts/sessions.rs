//! Sessions of the console: an admin key is shown once, and a random token stands for it until it ends.
//!
//! The database holds the token's digest only. A session ends with its key: revoked, expired or changed, it opens nothing.

use std::time::Duration;

use super::Accounts;
use super::caller::{Caller, CallerKind};
use super::error::AccountsError;
use super::secret::digest;
use crate::domain::Timestamp;

/// How long a session lasts.
pub const SESSION_LIFE: Duration = Duration::from_hours(12);

impl Accounts {
    /// Begins a session; `None` if the key is no admin key that is good. The token is known this once.
    pub async fn sign_in(&self, key: &str, now: Timestamp) -> Result<Option<String>, AccountsError> {
        let Ok(Caller { kind: CallerKind::Admin, api_key_id, .. }) = self.authenticate(key, now) else {
            return Ok(None);
        };
        let bytes = self.inner.ids.secret().map_err(|error| AccountsError::NoRandomness(error.to_string()))?;
        let token = hex::encode(bytes);
        self.inner.store.insert_session(&digest(&token), api_key_id, now, now.plus(SESSION_LIFE)).await?;
        Ok(Some(token))
    }

    /// Whose session this is, if it has not ended and its key is still good.
    pub async fn session(&self, token: &str, now: Timestamp) -> Result<Option<Caller>, AccountsError> {
        let Some(id) = self.inner.store.session(&digest(token), now).await? else { return Ok(None) };
        Ok(self.caller(id, now).filter(|caller| caller.kind == CallerKind::Admin))
    }

    /// Ends a session.
    pub async fn sign_out(&self, token: &str) -> Result<(), AccountsError> {
        Ok(self.inner.store.delete_session(&digest(token)).await?)
    }
}
