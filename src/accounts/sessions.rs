//! Sessions of the console: an admin key is shown once, and a random token stands for it until it ends.
//!
//! The database holds the token's digest only. A session ends with its key: revoked, expired or changed, it opens nothing.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::json;

use super::Accounts;
use super::audit::Author;
use super::caller::{AdmitError, Caller, CallerKind};
use super::error::AccountsError;
use super::secret::digest;
use crate::domain::{ApiKeyId, Timestamp};
use crate::store::AuditEvent;

/// How long a session lasts.
pub const SESSION_LIFE: Duration = Duration::from_hours(12);

/// Who asks for a session.
#[derive(Debug, Clone, Default)]
pub struct Client {
    /// The address; behind trusted proxies that of the real client.
    pub address: Option<IpAddr>,
    /// The browser.
    pub user_agent: Option<String>,
}

/// What became of an attempt to sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignIn {
    /// A session, by its token.
    Session(String),
    /// The key is not a valid admin key.
    Refused,
    /// The address has tried too many wrong keys and must wait this long.
    Paused(Duration),
}

impl Accounts {
    /// Begins a session with an admin key. The token is known this once. Also a refusal is in the audit log.
    ///
    /// # Errors
    /// If the database is not available.
    pub async fn sign_in(&self, key: &str, client: &Client, now: Timestamp) -> Result<SignIn, AccountsError> {
        let (ip, user_agent) = (client.address.map(|address| address.to_string()), client.user_agent.clone());
        let api_key_id = match self.admit_fresh(key, client.address, now) {
            Ok(Caller { kind: CallerKind::Admin, api_key_id, .. }) => api_key_id,
            Err(AdmitError::TooManyFailures(wait)) => return Ok(SignIn::Paused(wait)),
            Ok(_) | Err(AdmitError::Key(_) | AdmitError::AddressNotAllowed(_)) => {
                let author = Author::Visitor { ip, user_agent };
                let details = json!({"face": "console"});
                self.by(author).note(AuditEvent::LoginFailed, None, String::new(), &details).await?;
                return Ok(SignIn::Refused);
            }
        };
        let bytes = self.inner.ids.secret().map_err(|error| AccountsError::NoRandomness(error.to_string()))?;
        let token = hex::encode(bytes);
        self.inner.store.insert_session(&digest(&token), api_key_id, now, now.plus(SESSION_LIFE)).await?;
        let operator = self.by(Author::Key { api_key_id, ip, user_agent });
        let details = json!({"face": "console"});
        operator.note(AuditEvent::LoginSucceeded, None, api_key_id.to_string(), &details).await?;
        Ok(SignIn::Session(token))
    }

    /// Whose session this is, if it has not ended and its key is still good.
    pub async fn session(&self, token: &str, now: Timestamp) -> Result<Option<Caller>, AccountsError> {
        let Some(id) = self.inner.store.session(&digest(token), now).await? else { return Ok(None) };
        Ok(self.caller(id, now).filter(|caller| caller.kind == CallerKind::Admin))
    }

    /// Ends a session. `api_key_id` is the key that it was begun with.
    pub async fn sign_out(&self, token: &str, api_key_id: ApiKeyId) -> Result<(), AccountsError> {
        self.inner.store.delete_session(&digest(token)).await?;
        self.note(AuditEvent::LogoutSucceeded, None, api_key_id.to_string(), &json!({"face": "console"})).await
    }
}
