//! The statements of a reservation: read who may spend what, record generations, holds and idempotency keys.

use std::borrow::Cow;

use sqlx::FromRow;
use uuid::Uuid;

use super::StoreError;
use super::connection::{Either, WriteTransaction, json_list, select_by_ids};
use super::rows::{Idempotency, Reservation};
use crate::domain::Timestamp;

/// A project's kept sums.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct BalanceRow {
    pub(crate) project_id: Uuid,
    pub(crate) posted: i64,
    pub(crate) held: i64,
    /// How many of its generations are open.
    pub(crate) open_generations: i64,
    /// Grows with each change of these sums.
    pub(crate) version: i64,
    /// Grows with each change of what the project and its keys may do.
    pub(crate) terms_version: i64,
}

/// What a project may do.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct ProjectTerms {
    pub(crate) id: Uuid,
    pub(crate) archived_at: Option<i64>,
    pub(crate) prepaid: bool,
    pub(crate) spend_limit: Option<i64>,
    pub(crate) prompt_retention: i64,
    pub(crate) concurrency_limit: Option<i64>,
    /// Whether it has rate limits.
    pub(crate) rated: bool,
    /// What all projects together may spend in a month, if that was asked for and is limited.
    pub(crate) organization_limit: Option<i64>,
}

/// A project's sums and what it may do.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct StandingRow {
    #[sqlx(flatten)]
    pub(crate) balance: BalanceRow,
    #[sqlx(flatten)]
    pub(crate) terms: ProjectTerms,
}

/// An idempotency key that is there already.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct Existing {
    pub(crate) project_id: Uuid,
    pub(crate) key: String,
    pub(crate) digest: Vec<u8>,
    pub(crate) generation_id: Uuid,
    pub(crate) expires_at: i64,
}

impl WriteTransaction {
    /// Reads the sums of projects and keeps every other writer from changing them. What else changes with them is read
    /// after this, so that it is as fresh as the sums.
    pub(crate) async fn lock_balances(&mut self, projects: &[Uuid]) -> Result<Vec<BalanceRow>, StoreError> {
        Ok(select_by_ids!(
            self.connection(),
            BalanceRow,
            "SELECT project_id, posted, held, open_generations, version, terms_version FROM balances WHERE project_id",
            projects,
            "ORDER BY project_id",
            " FOR UPDATE"
        )?)
    }

    /// Like [`Self::lock_balances`], with what the projects may do as it stands when this is asked. The organization's
    /// spend limit, where there is one, is read and locked as well, which keeps every other reservation waiting; every
    /// writer asks for both at once, so that no two wait for each other.
    pub(crate) async fn lock_projects(&mut self, projects: &[Uuid]) -> Result<Vec<StandingRow>, StoreError> {
        Ok(match self.connection() {
            Either::Postgres(connection) => {
                sqlx::query_as(
                    "WITH o AS (SELECT spend_limit FROM organization WHERE id = 1 AND spend_limit IS NOT NULL FOR UPDATE)
                     SELECT b.project_id, b.posted, b.held, b.open_generations, b.version, b.terms_version, p.id, p.archived_at, p.prepaid, p.spend_limit,
                         p.prompt_retention, p.concurrency_limit,
                         EXISTS (SELECT 1 FROM rate_limits WHERE project_id = p.id) AS rated,
                         (SELECT spend_limit FROM o) AS organization_limit
                     FROM balances b JOIN projects p ON p.id = b.project_id WHERE b.project_id = ANY($1)
                     ORDER BY b.project_id FOR UPDATE OF b",
                )
                .bind(projects)
                .fetch_all(connection)
                .await?
            }
            Either::Sqlite(connection) => {
                sqlx::query_as(
                    "SELECT b.project_id, b.posted, b.held, b.open_generations, b.version, b.terms_version, p.id, p.archived_at, p.prepaid, p.spend_limit,
                         p.prompt_retention, p.concurrency_limit,
                         EXISTS (SELECT 1 FROM rate_limits WHERE project_id = p.id) AS rated,
                         (SELECT spend_limit FROM organization WHERE id = 1) AS organization_limit
                     FROM balances b JOIN projects p ON p.id = b.project_id
                     WHERE b.project_id IN (SELECT unhex(value) FROM json_each($1)) ORDER BY b.project_id",
                )
                .bind(json_list(projects))
                .fetch_all(connection)
                .await?
            }
        })
    }

    /// The idempotency keys among `wanted` (project and key) that are there, also expired ones.
    pub(crate) async fn existing_idempotency(&mut self, wanted: &[(Uuid, &str)]) -> Result<Vec<Existing>, StoreError> {
        match self.connection() {
            Either::Postgres(connection) => {
                let projects: Vec<Uuid> = wanted.iter().map(|(project, _)| *project).collect();
                let keys: Vec<&str> = wanted.iter().map(|(_, key)| *key).collect();
                Ok(sqlx::query_as(
                    "SELECT i.project_id, i.key, i.digest, i.generation_id, i.expires_at
                     FROM UNNEST($1::uuid[], $2::text[]) AS w (project_id, key)
                     JOIN idempotency_keys i ON i.project_id = w.project_id AND i.key = w.key",
                )
                .bind(projects)
                .bind(keys)
                .fetch_all(connection)
                .await?)
            }
            Either::Sqlite(connection) => {
                let mut found = Vec::new();
                for (project, key) in wanted {
                    found.extend(
                        sqlx::query_as::<_, Existing>(
                            "SELECT project_id, key, digest, generation_id, expires_at
                             FROM idempotency_keys WHERE project_id = $1 AND key = $2",
                        )
                        .bind(project)
                        .bind(*key)
                        .fetch_optional(&mut *connection)
                        .await?,
                    );
                }
                Ok(found)
            }
        }
    }

    /// Frees the idempotency keys that lead to these generations.
    pub(crate) async fn release_idempotency(&mut self, generations: &[Uuid]) -> Result<(), StoreError> {
        match self.connection() {
            Either::Postgres(connection) => {
                sqlx::query("DELETE FROM idempotency_keys WHERE generation_id = ANY($1)")
                    .bind(generations)
                    .execute(connection)
                    .await?;
                Ok(())
            }
            Either::Sqlite(connection) => release_idempotency_sqlite(connection, generations).await,
        }
    }
}

/// Frees the idempotency keys that lead to these generations.
pub(super) async fn release_idempotency_sqlite(
    connection: &mut sqlx::SqliteConnection,
    generations: &[Uuid],
) -> Result<(), StoreError> {
    for generation in generations {
        sqlx::query("DELETE FROM idempotency_keys WHERE generation_id = $1")
            .bind(generation)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// One column of a batch, as PostgreSQL's `UNNEST` takes it.
pub(super) fn column<'r, R, T>(rows: &'r [R], value: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// A reservation, and when its prompt is to be forgotten; without that the prompt is not stored.
pub(crate) type NewGeneration<'r> = (&'r Reservation, Option<Timestamp>);

/// The prompt as it is stored: only where it is kept, and without the character that PostgreSQL cannot hold.
pub(super) fn stored_prompt<'r>((reservation, forget_at): &NewGeneration<'r>) -> Option<Cow<'r, str>> {
    forget_at.and(reservation.prompt.as_deref()).map(without_nul)
}

/// PostgreSQL's text holds every character but U+0000; the replacement character stands for it, on both databases.
pub(super) fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// Records generations as queued, with their holds.
pub(super) async fn insert_generations_sqlite(
    connection: &mut sqlx::SqliteConnection,
    rows: &[NewGeneration<'_>],
) -> Result<(), StoreError> {
    for row in rows {
        let (r, forget_at) = row;
        let prompt = stored_prompt(row);
        let forget_at = prompt.as_ref().and(*forget_at).map(Timestamp::micros);
        sqlx::query(
            "INSERT INTO generations (id, project_id, api_key_id, request_id, state, owner, source, model, provider,
                 endpoint, num_images, size, parameters, terms, prompt, prompt_expires_at, end_user,
                 cancel_if_client_leaves, created_at, deadline_at, hold, requested_model)
             VALUES ($1, $2, $3, $4, 'queued', $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
                 $21)",
        )
        .bind(r.id.uuid())
        .bind(r.project_id.uuid())
        .bind(r.api_key_id.uuid())
        .bind(r.request_id.uuid())
        .bind(r.owner)
        .bind(r.source.as_str())
        .bind(r.model.as_str())
        .bind(r.provider.as_str())
        .bind(r.endpoint.as_str())
        .bind(i64::from(r.num_images))
        .bind(r.size.as_deref())
        .bind(r.parameters.as_str())
        .bind(r.terms.as_deref())
        .bind(prompt)
        .bind(forget_at)
        .bind(r.user.as_deref().map(without_nul))
        .bind(r.cancel_if_client_leaves)
        .bind(r.created_at.micros())
        .bind(r.deadline_at.micros())
        .bind(r.hold.nanos())
        .bind(r.requested_model.as_deref())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Writes idempotency keys, in place of expired ones of the same name.
pub(super) async fn put_idempotency_sqlite(
    connection: &mut sqlx::SqliteConnection,
    rows: &[(&Reservation, &Idempotency)],
) -> Result<(), StoreError> {
    for (reservation, idempotency) in rows {
        let done = sqlx::query(
            "INSERT INTO idempotency_keys (project_id, key, digest, generation_id, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (project_id, key) DO UPDATE SET digest = excluded.digest,
                 generation_id = excluded.generation_id, created_at = excluded.created_at,
                 expires_at = excluded.expires_at
             WHERE idempotency_keys.expires_at <= excluded.created_at",
        )
        .bind(reservation.project_id.uuid())
        .bind(idempotency.key.as_str())
        .bind(idempotency.digest.as_slice())
        .bind(reservation.id.uuid())
        .bind(reservation.created_at.micros())
        .bind(idempotency.expires_at.micros())
        .execute(&mut *connection)
        .await?;
        if done.rows_affected() != 1 {
            return Err(StoreError::Conflict("an idempotency key was used meanwhile".to_owned()));
        }
    }
    Ok(())
}
