//! What providers still have of erased generations: what is to be deleted there, and what came of asking.

use sqlx::FromRow;
use uuid::Uuid;

use super::connection::{WriteTransaction, on_both, within};
use super::reserving::without_nul;
use super::{Store, StoreError};
use crate::domain::{GenerationId, Timestamp};

/// A request that a provider is to delete what it has of.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct DueErasure {
    generation_id: Uuid,
    n: i64,
    /// The provider's name, as model files use it.
    pub provider: String,
    /// The provider's id of the request.
    pub provider_request_id: String,
    /// How often the provider was asked already.
    pub tries: i64,
}

impl DueErasure {
    /// The generation that the request was sent for.
    #[must_use]
    pub fn generation(&self) -> GenerationId {
        GenerationId::from_uuid(self.generation_id)
    }
}

/// How far the deletion of one submit's content at its provider has come.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct ProviderErasure {
    /// Which submit.
    pub n: i64,
    /// How often the provider was asked.
    pub tries: i64,
    /// Why it was not done the last time.
    pub error: Option<String>,
    deleted_at: Option<i64>,
}

impl ProviderErasure {
    /// When the provider had deleted it; `None` while it has not.
    #[must_use]
    pub fn deleted_at(&self) -> Option<Timestamp> {
        self.deleted_at.map(Timestamp::from_micros)
    }
}

impl WriteTransaction {
    /// Has what a generation's provider was sent deleted there as well, from now on.
    pub(super) async fn ask_providers_to_erase(&mut self, id: GenerationId, now: Timestamp) -> Result<(), StoreError> {
        on_both!(self.connection(), connection =>
            sqlx::query("INSERT INTO provider_erasures (generation_id, n, provider, provider_request_id, due_at)
                         SELECT a.generation_id, a.n, g.provider, a.provider_request_id, $2
                         FROM attempts a JOIN generations g ON g.id = a.generation_id
                         WHERE a.generation_id = $1 AND a.provider_request_id <> ''
                         ON CONFLICT (generation_id, n) DO NOTHING")
                .bind(id.uuid()).bind(now.micros()).execute(connection).await.map(drop))?;
        Ok(())
    }
}

impl Store {
    /// Some of what providers are to be asked to delete now, the longest due first.
    pub(crate) async fn due_erasures(&self, now: Timestamp, limit: u32) -> Result<Vec<DueErasure>, StoreError> {
        within(self.options().read_timeout, async {
            let mut reader = self.reader().await?;
            Ok(on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, DueErasure>(
                    "SELECT generation_id, n, provider, provider_request_id, tries FROM provider_erasures
                     WHERE deleted_at IS NULL AND due_at <= $1 ORDER BY due_at LIMIT $2")
                    .bind(now.micros()).bind(i64::from(limit)).fetch_all(connection).await)?)
        })
        .await
    }

    /// Takes one on, unless another replica has; it is due again at `next`.
    pub(crate) async fn claim_erasure(&self, due: &DueErasure, next: Timestamp) -> Result<bool, StoreError> {
        within(self.options().write_timeout, async {
            let mut transaction = self.begin().await?;
            let claimed = on_both!(transaction.connection(), connection =>
                sqlx::query("UPDATE provider_erasures SET tries = tries + 1, due_at = $4
                             WHERE generation_id = $1 AND n = $2 AND tries = $3 AND deleted_at IS NULL")
                    .bind(due.generation_id).bind(due.n).bind(due.tries).bind(next.micros())
                    .execute(connection).await.map(|done| done.rows_affected()))?;
            transaction.commit().await?;
            Ok(claimed == 1)
        })
        .await
    }

    /// Keeps what came of asking: when it was deleted, or why it was not.
    pub(crate) async fn note_erasure(
        &self,
        due: &DueErasure,
        outcome: Result<Timestamp, &str>,
    ) -> Result<(), StoreError> {
        let (deleted_at, error) = (outcome.ok().map(Timestamp::micros), outcome.err().map(without_nul));
        within(self.options().write_timeout, async {
            let mut transaction = self.begin().await?;
            on_both!(transaction.connection(), connection =>
                sqlx::query("UPDATE provider_erasures SET deleted_at = $3, error = $4
                             WHERE generation_id = $1 AND n = $2 AND deleted_at IS NULL")
                    .bind(due.generation_id).bind(due.n).bind(deleted_at).bind(error.as_deref())
                    .execute(connection).await.map(drop))?;
            transaction.commit().await
        })
        .await
    }

    /// How far the deletion of a generation's content at its provider has come, by submits; empty if nobody has asked for it.
    pub(crate) async fn provider_erasures(&self, id: GenerationId) -> Result<Vec<ProviderErasure>, StoreError> {
        within(self.options().read_timeout, async {
            let mut reader = self.reader().await?;
            Ok(on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, ProviderErasure>(
                    "SELECT n, tries, error, deleted_at FROM provider_erasures WHERE generation_id = $1 ORDER BY n")
                    .bind(id.uuid()).fetch_all(connection).await)?)
        })
        .await
    }
}
