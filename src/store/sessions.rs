//! Sessions of the console: digests of tokens, and the keys that they were had for.

use uuid::Uuid;

use super::connection::{on_both, within};
use super::{Store, StoreError};
use crate::domain::{ApiKeyId, Timestamp};

impl Store {
    /// Writes a session, and removes those that have ended.
    pub async fn insert_session(
        &self,
        hash: &[u8; 32],
        key: ApiKeyId,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), StoreError> {
        within(self.options().write_timeout, async {
            let mut transaction = self.begin_as_is().await?;
            on_both!(transaction.connection(), connection =>
                sqlx::query("DELETE FROM console_sessions WHERE expires_at <= $1")
                    .bind(now.micros()).execute(connection).await.map(drop))?;
            on_both!(transaction.connection(), connection =>
                sqlx::query("INSERT INTO console_sessions (token_hash, api_key_id, created_at, expires_at)
                             VALUES ($1, $2, $3, $4)")
                    .bind(hash.as_slice()).bind(key.uuid()).bind(now.micros()).bind(expires_at.micros())
                    .execute(connection).await.map(drop))?;
            transaction.commit().await
        })
        .await
    }

    /// The key that a session was had for, if it has not ended.
    pub async fn session(&self, hash: &[u8; 32], now: Timestamp) -> Result<Option<ApiKeyId>, StoreError> {
        let row = within(self.options().read_timeout, async {
            let mut reader = self.reader_as_is().await?;
            Ok(on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, (Uuid,)>(
                    "SELECT api_key_id FROM console_sessions WHERE token_hash = $1 AND expires_at > $2")
                    .bind(hash.as_slice()).bind(now.micros()).fetch_optional(connection).await)?)
        })
        .await?;
        Ok(row.map(|(key,)| ApiKeyId::from_uuid(key)))
    }

    /// Ends a session; one that has ended already is fine.
    pub async fn delete_session(&self, hash: &[u8; 32]) -> Result<(), StoreError> {
        within(self.options().write_timeout, async {
            let mut transaction = self.begin_as_is().await?;
            on_both!(transaction.connection(), connection =>
                sqlx::query("DELETE FROM console_sessions WHERE token_hash = $1")
                    .bind(hash.as_slice()).execute(connection).await.map(drop))?;
            transaction.commit().await
        })
        .await
    }
}
