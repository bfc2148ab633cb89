//! The statements of a reservation: read who may spend what, record generations, holds and idempotency keys.

use sqlx::FromRow;
use uuid::Uuid;

use super::StoreError;
use super::connection::{Either, WriteTransaction, json_list, on_both, select_by_ids};
use super::error::must_touch;
use super::rows::{Idempotency, Reservation};
use crate::domain::{GenerationId, Timestamp};

/// A project's kept sums.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct BalanceRow {
    pub(crate) project_id: Uuid,
    pub(crate) posted: i64,
    pub(crate) held: i64,
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
    /// Whether the organization has a spend limit.
    pub(crate) organized: bool,
}

/// How much of a model a project may ask for in a minute.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct RateRow {
    pub(crate) project_id: Uuid,
    pub(crate) model: String,
    pub(crate) requests_per_minute: Option<i64>,
    pub(crate) images_per_minute: Option<i64>,
}

/// What a project reserved of a model in a second.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct CountRow {
    pub(crate) project_id: Uuid,
    pub(crate) model: String,
    pub(crate) second: i64,
    pub(crate) requests: i64,
    pub(crate) images: i64,
}

/// What all projects may spend together, and have: a row for each month, and one for what is held (month zero).
#[derive(Debug, Clone, Default)]
pub(crate) struct OrganizationRows {
    pub(crate) spend_limit: Option<i64>,
    pub(crate) months: Vec<(i64, i64)>,
    pub(crate) held: i64,
}

/// What a project was charged in a month.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct MonthRow {
    pub(crate) project_id: Uuid,
    pub(crate) starts_at: i64,
    pub(crate) spent: i64,
}

/// What a key may do.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct KeyTerms {
    pub(crate) id: Uuid,
    pub(crate) project_id: Option<Uuid>,
    pub(crate) revoked_at: Option<i64>,
    pub(crate) expires_at: Option<i64>,
    pub(crate) budget: Option<i64>,
    pub(crate) spent: i64,
    pub(crate) held: i64,
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
    /// Reads the sums of projects and keeps every other writer from changing them. Everything else about a project or
    /// its keys is read after this, so that it is as fresh as the sums.
    pub(crate) async fn lock_balances(&mut self, projects: &[Uuid]) -> Result<Vec<BalanceRow>, StoreError> {
        Ok(select_by_ids!(
            self.connection(),
            BalanceRow,
            "SELECT project_id, posted, held FROM balances WHERE project_id",
            projects,
            "ORDER BY project_id",
            " FOR UPDATE"
        )?)
    }

    pub(crate) async fn project_terms(&mut self, projects: &[Uuid]) -> Result<Vec<ProjectTerms>, StoreError> {
        Ok(select_by_ids!(
            self.connection(),
            ProjectTerms,
            "SELECT id, archived_at, prepaid, spend_limit, prompt_retention, concurrency_limit,
                 EXISTS (SELECT 1 FROM rate_limits WHERE project_id = projects.id) AS rated,
                 EXISTS (SELECT 1 FROM organization WHERE spend_limit IS NOT NULL) AS organized
             FROM projects WHERE id",
            projects,
            "",
            ""
        )?)
    }

    /// What the projects were charged in the months from `month` on.
    pub(crate) async fn months(&mut self, projects: &[Uuid], month: Timestamp) -> Result<Vec<MonthRow>, StoreError> {
        let mut rows = select_by_ids!(
            self.connection(),
            MonthRow,
            "SELECT project_id, starts_at, spent FROM monthly_spend WHERE project_id",
            projects,
            "ORDER BY project_id, starts_at DESC",
            ""
        )?;
        rows.retain(|row| row.starts_at >= month.micros());
        Ok(rows)
    }

    /// Reads what all projects together may spend and have used in the months from `month` on, and keeps every other
    /// reservation waiting. Locked after the balances, by every writer.
    pub(crate) async fn lock_organization(&mut self, month: Timestamp) -> Result<OrganizationRows, StoreError> {
        let spend_limit = match self.connection() {
            Either::Postgres(connection) => {
                sqlx::query_scalar("SELECT spend_limit FROM organization FOR UPDATE").fetch_one(connection).await?
            }
            Either::Sqlite(connection) => {
                sqlx::query_scalar("SELECT spend_limit FROM organization").fetch_one(connection).await?
            }
        };
        // One statement, so that a settlement is seen whole: it moves money from what is held to what was spent.
        let sums = on_both!(self.connection(), connection =>
            sqlx::query_as::<_, (i64, i64)>(
                "SELECT CAST(0 AS BIGINT) AS month, CAST(COALESCE(SUM(held), 0) AS BIGINT) AS amount FROM balances
                 UNION ALL
                 SELECT starts_at, CAST(SUM(spent) AS BIGINT) FROM monthly_spend WHERE starts_at >= $1
                 GROUP BY starts_at")
                .bind(month.micros().max(1)).fetch_all(connection).await)?;
        let mut rows = OrganizationRows { spend_limit, ..OrganizationRows::default() };
        for (month, amount) in sums {
            if month == 0 {
                rows.held = amount;
            } else {
                rows.months.push((month, amount));
            }
        }
        Ok(rows)
    }

    /// How many generations of these projects are open.
    pub(crate) async fn open_counts(&mut self, projects: &[Uuid]) -> Result<Vec<(Uuid, i64)>, StoreError> {
        Ok(select_by_ids!(
            self.connection(),
            (Uuid, i64),
            "SELECT project_id, COUNT(*) FROM holds WHERE ended_at IS NULL AND project_id",
            projects,
            "GROUP BY project_id",
            ""
        )?)
    }

    /// The rate limits of these projects.
    pub(crate) async fn rate_limits(&mut self, projects: &[Uuid]) -> Result<Vec<RateRow>, StoreError> {
        Ok(select_by_ids!(
            self.connection(),
            RateRow,
            "SELECT project_id, model, requests_per_minute, images_per_minute FROM rate_limits WHERE project_id",
            projects,
            "",
            ""
        )?)
    }

    /// What these projects reserved under rate limits since a second.
    pub(crate) async fn request_counts(&mut self, projects: &[Uuid], since: i64) -> Result<Vec<CountRow>, StoreError> {
        Ok(match self.connection() {
            Either::Postgres(connection) => {
                sqlx::query_as(
                    "SELECT project_id, model, second, requests, images FROM request_counts
                     WHERE project_id = ANY($1) AND second >= $2",
                )
                .bind(projects)
                .bind(since)
                .fetch_all(connection)
                .await?
            }
            Either::Sqlite(connection) => {
                sqlx::query_as(
                    "SELECT project_id, model, second, requests, images FROM request_counts
                     WHERE project_id IN (SELECT unhex(value) FROM json_each($1)) AND second >= $2",
                )
                .bind(json_list(projects))
                .bind(since)
                .fetch_all(connection)
                .await?
            }
        })
    }

    /// Adds to what was reserved under rate limits.
    pub(crate) async fn count_requests(&mut self, rows: &[CountRow]) -> Result<(), StoreError> {
        for row in rows {
            let touched = on_both!(self.connection(), connection =>
                sqlx::query("INSERT INTO request_counts (project_id, second, model, requests, images)
                             VALUES ($1, $2, $3, $4, $5)
                             ON CONFLICT (project_id, second, model) DO UPDATE
                             SET requests = request_counts.requests + excluded.requests,
                                 images = request_counts.images + excluded.images")
                    .bind(row.project_id).bind(row.second).bind(row.model.as_str())
                    .bind(row.requests).bind(row.images)
                    .execute(connection).await.map(|done| done.rows_affected()))?;
            must_touch("request_counts", touched, 1)?;
        }
        Ok(())
    }

    pub(crate) async fn key_terms(&mut self, keys: &[Uuid]) -> Result<Vec<KeyTerms>, StoreError> {
        Ok(select_by_ids!(
            self.connection(),
            KeyTerms,
            "SELECT id, project_id, revoked_at, expires_at, budget, spent, held
             FROM api_keys JOIN key_balances ON api_key_id = id WHERE id",
            keys,
            "",
            ""
        )?)
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

    /// Records generations as queued, with their open holds. The second value of a pair is when its prompt is to be
    /// forgotten; without it the prompt is not stored.
    pub(crate) async fn insert_generations(
        &mut self,
        rows: &[(&Reservation, Option<Timestamp>)],
    ) -> Result<(), StoreError> {
        match self.connection() {
            Either::Postgres(connection) => insert_generations_postgres(connection, rows).await,
            Either::Sqlite(connection) => insert_generations_sqlite(connection, rows).await,
        }
    }

    /// Writes idempotency keys, in place of expired ones of the same name.
    pub(crate) async fn put_idempotency(&mut self, rows: &[(&Reservation, &Idempotency)]) -> Result<(), StoreError> {
        let touched = match self.connection() {
            Either::Postgres(connection) => sqlx::query(
                "INSERT INTO idempotency_keys (project_id, key, digest, generation_id, created_at, expires_at)
                 SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::bytea[], $4::uuid[], $5::bigint[], $6::bigint[])
                 ON CONFLICT (project_id, key) DO UPDATE SET digest = excluded.digest,
                     generation_id = excluded.generation_id, created_at = excluded.created_at,
                     expires_at = excluded.expires_at",
            )
            .bind(column(rows, |(r, _)| r.project_id.uuid()))
            .bind(column(rows, |(_, i)| i.key.as_str()))
            .bind(column(rows, |(_, i)| i.digest.to_vec()))
            .bind(column(rows, |(r, _)| r.id.uuid()))
            .bind(column(rows, |(r, _)| r.created_at.micros()))
            .bind(column(rows, |(_, i)| i.expires_at.micros()))
            .execute(connection)
            .await?
            .rows_affected(),
            Either::Sqlite(connection) => {
                let mut touched = 0;
                for (reservation, idempotency) in rows {
                    touched += sqlx::query(
                        "INSERT INTO idempotency_keys (project_id, key, digest, generation_id, created_at, expires_at)
                         VALUES ($1, $2, $3, $4, $5, $6)
                         ON CONFLICT (project_id, key) DO UPDATE SET digest = excluded.digest,
                             generation_id = excluded.generation_id, created_at = excluded.created_at,
                             expires_at = excluded.expires_at",
                    )
                    .bind(reservation.project_id.uuid())
                    .bind(idempotency.key.as_str())
                    .bind(idempotency.digest.as_slice())
                    .bind(reservation.id.uuid())
                    .bind(reservation.created_at.micros())
                    .bind(idempotency.expires_at.micros())
                    .execute(&mut *connection)
                    .await?
                    .rows_affected();
                }
                touched
            }
        };
        must_touch("idempotency_keys", touched, rows.len())
    }

    /// Frees the idempotency keys that lead to these generations, and has no resend join them.
    pub(crate) async fn release_idempotency(&mut self, generations: &[Uuid]) -> Result<(), StoreError> {
        for generation in generations {
            on_both!(self.connection(), connection =>
                sqlx::query("DELETE FROM idempotency_keys WHERE generation_id = $1")
                    .bind(generation).execute(connection).await.map(drop))?;
            self.answer_request(GenerationId::from_uuid(*generation)).await?;
        }
        Ok(())
    }
}

/// One column of a batch, as PostgreSQL's `UNNEST` takes it.
pub(super) fn column<'r, R, T>(rows: &'r [R], value: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

type NewGeneration<'r> = (&'r Reservation, Option<Timestamp>);

/// The prompt as it is stored: only where it is kept, and without the character that PostgreSQL cannot hold.
fn stored_prompt((reservation, forget_at): &NewGeneration<'_>) -> Option<String> {
    forget_at.and(reservation.prompt.as_deref()).map(without_nul)
}

/// PostgreSQL's text holds every character but U+0000; the replacement character stands for it, on both databases.
pub(super) fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

async fn insert_generations_postgres(
    connection: &mut sqlx::PgConnection,
    rows: &[NewGeneration<'_>],
) -> Result<(), StoreError> {
    let ids = column(rows, |(r, _)| r.id.uuid());
    let projects = column(rows, |(r, _)| r.project_id.uuid());
    let keys = column(rows, |(r, _)| r.api_key_id.uuid());
    let created = column(rows, |(r, _)| r.created_at.micros());
    let touched = sqlx::query(
        "INSERT INTO generations (id, project_id, api_key_id, request_id, state, owner, source, model, provider,
             endpoint, num_images, size, parameters, prompt, prompt_expires_at, end_user, cancel_if_client_leaves,
             created_at, deadline_at)
         SELECT id, project_id, api_key_id, request_id, 'queued', owner, source, model, provider,
             endpoint, num_images, size, parameters, prompt, prompt_expires_at, end_user, cancel_if_client_leaves,
             created_at, deadline_at
         FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::text[],
             $9::text[], $10::bigint[], $11::text[], $12::text[], $13::text[], $14::bigint[], $15::text[],
             $16::boolean[], $17::bigint[], $18::bigint[])
         AS n (id, project_id, api_key_id, request_id, owner, source, model, provider, endpoint, num_images, size,
             parameters, prompt, prompt_expires_at, end_user, cancel_if_client_leaves, created_at, deadline_at)",
    )
    .bind(&ids)
    .bind(&projects)
    .bind(&keys)
    .bind(column(rows, |(r, _)| r.request_id.uuid()))
    .bind(column(rows, |(r, _)| r.owner))
    .bind(column(rows, |(r, _)| r.source.as_str()))
    .bind(column(rows, |(r, _)| r.model.as_str()))
    .bind(column(rows, |(r, _)| r.provider.as_str()))
    .bind(column(rows, |(r, _)| r.endpoint.as_str()))
    .bind(column(rows, |(r, _)| i64::from(r.num_images)))
    .bind(column(rows, |(r, _)| r.size.as_deref()))
    .bind(column(rows, |(r, _)| r.parameters.as_str()))
    .bind(column(rows, stored_prompt))
    .bind(column(rows, |row| stored_prompt(row).and(row.1).map(Timestamp::micros)))
    .bind(column(rows, |(r, _)| r.user.as_deref().map(without_nul)))
    .bind(column(rows, |(r, _)| r.cancel_if_client_leaves))
    .bind(&created)
    .bind(column(rows, |(r, _)| r.deadline_at.micros()))
    .execute(&mut *connection)
    .await?
    .rows_affected();
    must_touch("generations", touched, rows.len())?;
    let touched = sqlx::query(
        "INSERT INTO holds (generation_id, project_id, api_key_id, amount, opened_at)
         SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[])",
    )
    .bind(&ids)
    .bind(&projects)
    .bind(&keys)
    .bind(column(rows, |(r, _)| r.hold.nanos()))
    .bind(&created)
    .execute(connection)
    .await?
    .rows_affected();
    must_touch("holds", touched, rows.len())
}

async fn insert_generations_sqlite(
    connection: &mut sqlx::SqliteConnection,
    rows: &[NewGeneration<'_>],
) -> Result<(), StoreError> {
    for row in rows {
        let (r, forget_at) = row;
        let prompt = stored_prompt(row);
        let forget_at = prompt.as_ref().and(*forget_at).map(Timestamp::micros);
        sqlx::query(
            "INSERT INTO generations (id, project_id, api_key_id, request_id, state, owner, source, model, provider,
                 endpoint, num_images, size, parameters, prompt, prompt_expires_at, end_user,
                 cancel_if_client_leaves, created_at, deadline_at)
             VALUES ($1, $2, $3, $4, 'queued', $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
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
        .bind(prompt)
        .bind(forget_at)
        .bind(r.user.as_deref().map(without_nul))
        .bind(r.cancel_if_client_leaves)
        .bind(r.created_at.micros())
        .bind(r.deadline_at.micros())
        .execute(&mut *connection)
        .await?;
        sqlx::query(
            "INSERT INTO holds (generation_id, project_id, api_key_id, amount, opened_at) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(r.id.uuid())
        .bind(r.project_id.uuid())
        .bind(r.api_key_id.uuid())
        .bind(r.hold.nanos())
        .bind(r.created_at.micros())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
