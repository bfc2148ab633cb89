//! Forgetting what is kept: prompts that outlive a shorter retention, and content that is erased on request.

use sqlx::{ConnectOptions, Connection, FromRow};
use uuid::Uuid;

use super::connection::{Either, WriteTransaction, json_list, on_both, within};
use super::error::must_touch;
use super::{Store, StoreError, payloads};
use crate::domain::{GenerationId, ProjectId, Timestamp};

/// A project whose kept prompts may outlive its retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub(crate) struct Shortening {
    id: Uuid,
    /// For how many microseconds its prompts may be kept now.
    pub(crate) retention: i64,
    shorten_prompts_at: i64,
}

impl Shortening {
    /// The project.
    pub(crate) fn project(&self) -> ProjectId {
        ProjectId::from_uuid(self.id)
    }

    /// Since when.
    pub(crate) fn since(&self) -> Timestamp {
        Timestamp::from_micros(self.shorten_prompts_at)
    }
}

/// How far the erasure of all that a project has made has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProjectErasure {
    /// The project.
    pub project_id: ProjectId,
    /// What was asked for before this moment is erased.
    pub before: Timestamp,
    /// When all of it was; `None` while something is left.
    pub finished_at: Option<Timestamp>,
}

/// What stays of a generation whose content is erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remains {
    /// The generation.
    pub(crate) id: GenerationId,
    /// What its answer keeps, for the books.
    pub(crate) answer: Option<String>,
    /// What its error keeps.
    pub(crate) error: Option<String>,
    /// Why it ended so, without the provider's words.
    pub(crate) reason: String,
}

impl WriteTransaction {
    /// Asks for the erasure of all that a project has made so far, and forgets at once the prompts of what is still open.
    pub(crate) async fn ask_project_erasure(&mut self, project: ProjectId, now: Timestamp) -> Result<(), StoreError> {
        let touched = on_both!(self.connection(), connection => {
            sqlx::query("UPDATE ledger_events SET prompt = NULL WHERE n = 1 AND prompt IS NOT NULL AND stream_id IN (
                             SELECT id FROM generations WHERE project_id = $1 AND state IN ('queued', 'running')
                                 AND prompt_expires_at IS NOT NULL)")
                .bind(project.uuid()).execute(&mut *connection).await?;
            sqlx::query("UPDATE generations SET prompt = NULL, prompt_expires_at = NULL
                         WHERE project_id = $1 AND state IN ('queued', 'running') AND prompt_expires_at IS NOT NULL")
                .bind(project.uuid()).execute(&mut *connection).await?;
            sqlx::query("UPDATE files SET url = NULL, name = '', deleted_at = $2
                         WHERE project_id = $1 AND deleted_at IS NULL AND url IS NOT NULL")
                .bind(project.uuid()).bind(now.micros()).execute(&mut *connection).await?;
            sqlx::query("UPDATE projects SET erase_before = $2, erased_at = NULL WHERE id = $1")
                .bind(project.uuid()).bind(now.micros()).execute(&mut *connection).await?.rows_affected()
        });
        must_touch("projects", touched, 1)
    }

    /// Erases the content of generations that have ended and are not erased yet, and has their providers asked to delete what
    /// they have of them. How many those were.
    pub(crate) async fn erase_generations(&mut self, rows: &[Remains], now: Timestamp) -> Result<u64, StoreError> {
        let mut erased = 0;
        for row in rows {
            let touched = on_both!(self.connection(), connection =>
                sqlx::query("UPDATE generations SET prompt = NULL, prompt_expires_at = NULL, parameters = '{}',
                                 answer = $2, error = $3, reason = $4, erased_at = $5
                             WHERE id = $1 AND settled_at IS NOT NULL AND erased_at IS NULL")
                    .bind(row.id.uuid()).bind(row.answer.as_deref()).bind(row.error.as_deref())
                    .bind(row.reason.as_str()).bind(now.micros())
                    .execute(connection).await.map(|done| done.rows_affected()))?;
            if touched > 0 {
                self.erase_events(row).await?;
                self.ask_providers_to_erase(row.id, now).await?;
            }
            erased += touched;
        }
        Ok(erased)
    }

    /// Erases the content of a generation's events: what its end keeps is what the generation keeps.
    async fn erase_events(&mut self, row: &Remains) -> Result<(), StoreError> {
        let end = payloads::erased_end(row.answer.as_deref(), row.error.as_deref(), &row.reason)?;
        on_both!(self.connection(), connection => {
            sqlx::query("UPDATE ledger_events SET prompt = NULL, content = NULL WHERE stream_id = $1 AND opened <> -1")
                .bind(row.id.uuid()).execute(&mut *connection).await?;
            sqlx::query("UPDATE ledger_events SET content = $2 WHERE stream_id = $1 AND opened = -1")
                .bind(row.id.uuid()).bind(end).execute(connection).await?;
        });
        Ok(())
    }

    /// Forgets in the events the prompts that these generations do not have any more.
    async fn forget_prompts_of_events(&mut self, generations: &[Uuid]) -> Result<(), StoreError> {
        match self.connection() {
            Either::Postgres(connection) => {
                sqlx::query(
                    "UPDATE ledger_events e SET prompt = NULL FROM generations g
                     WHERE e.stream_id = ANY($1) AND e.n = 1 AND g.id = e.stream_id AND g.prompt IS NULL",
                )
                .bind(generations)
                .execute(connection)
                .await?;
            }
            Either::Sqlite(connection) => {
                sqlx::query(
                    "UPDATE ledger_events SET prompt = NULL
                     WHERE stream_id IN (SELECT unhex(value) FROM json_each($1)) AND n = 1
                         AND EXISTS (SELECT 1 FROM generations WHERE id = stream_id AND prompt IS NULL)",
                )
                .bind(json_list(generations))
                .execute(connection)
                .await?;
            }
        }
        Ok(())
    }
}

impl Store {
    /// The projects whose kept prompts may outlive their retention. One that is archived keeps none.
    pub(crate) async fn projects_to_shorten(&self) -> Result<Vec<Shortening>, StoreError> {
        within(self.options().read_timeout, async {
            let mut reader = self.reader().await?;
            Ok(on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, Shortening>(
                    "SELECT id, CASE WHEN archived_at IS NULL THEN prompt_retention ELSE 0 END AS retention,
                         shorten_prompts_at
                     FROM projects WHERE shorten_prompts_at IS NOT NULL ORDER BY id")
                    .fetch_all(connection).await)?)
        })
        .await
    }

    /// Shortens the time of some kept prompts of a project, those beyond `after`, and forgets them where it is over. The
    /// last one of them, from where to go on; `None` where there are no more.
    pub(crate) async fn shorten_prompts(
        &self,
        of: &Shortening,
        now: Timestamp,
        after: Option<GenerationId>,
        limit: u32,
    ) -> Result<Option<GenerationId>, StoreError> {
        let after = after.map_or(Uuid::nil(), GenerationId::uuid);
        within(self.options().write_timeout, async {
            let mut transaction = self.begin().await?;
            macro_rules! shorten {
                ($lock:literal) => {
                    concat!(
                        "UPDATE generations SET
                             prompt = CASE WHEN created_at + $2 <= $3 THEN NULL ELSE prompt END,
                             prompt_expires_at = CASE WHEN created_at + $2 <= $3 THEN NULL ELSE created_at + $2 END
                         WHERE id IN (SELECT id FROM generations
                                      WHERE project_id = $1 AND id > $4 AND prompt_expires_at > created_at + $2
                                      ORDER BY id LIMIT $5",
                        $lock,
                        ") RETURNING id"
                    )
                };
            }
            let ids: Vec<Uuid> = match transaction.connection() {
                Either::Postgres(connection) => {
                    sqlx::query_scalar(shorten!(" FOR UPDATE"))
                        .bind(of.id)
                        .bind(of.retention)
                        .bind(now.micros())
                        .bind(after)
                        .bind(i64::from(limit))
                        .fetch_all(connection)
                        .await?
                }
                Either::Sqlite(connection) => {
                    sqlx::query_scalar(shorten!(""))
                        .bind(of.id)
                        .bind(of.retention)
                        .bind(now.micros())
                        .bind(after)
                        .bind(i64::from(limit))
                        .fetch_all(connection)
                        .await?
                }
            };
            transaction.forget_prompts_of_events(&ids).await?;
            transaction.commit().await?;
            Ok(ids.into_iter().max().map(GenerationId::from_uuid))
        })
        .await
    }

    /// No prompt of the project outlives its retention any more, unless it was lowered again meanwhile.
    pub(crate) async fn prompts_are_short(&self, of: &Shortening) -> Result<(), StoreError> {
        within(self.options().write_timeout, async {
            let mut transaction = self.begin().await?;
            on_both!(transaction.connection(), connection =>
                sqlx::query("UPDATE projects SET shorten_prompts_at = NULL WHERE id = $1 AND shorten_prompts_at = $2")
                    .bind(of.id).bind(of.shorten_prompts_at).execute(connection).await.map(drop))?;
            transaction.commit().await
        })
        .await
    }

    /// Forgets the prompts whose time is over: at most `limit`. How many.
    pub(crate) async fn purge_prompts(&self, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        within(self.options().write_timeout, async {
            let mut transaction = self.begin().await?;
            let forgotten = on_both!(transaction.connection(), connection =>
                sqlx::query_scalar::<_, Uuid>(
                    "UPDATE generations SET prompt = NULL, prompt_expires_at = NULL WHERE id IN (
                         SELECT id FROM generations WHERE prompt_expires_at <= $1 LIMIT $2) RETURNING id")
                    .bind(now.micros()).bind(i64::from(limit)).fetch_all(connection).await)?;
            transaction.forget_prompts_of_events(&forgotten).await?;
            transaction.commit().await?;
            Ok(forgotten.len() as u64)
        })
        .await
    }

    /// Empties SQLite's log of writes, which else keeps what was forgotten until later writes take its place.
    ///
    /// Errors: [`StoreError::Unreachable`] also while somebody reads or writes; to be tried again.
    pub(crate) async fn empty_log(&self) -> Result<(), StoreError> {
        let Either::Sqlite(pools) = &self.inner.pools else { return Ok(()) };
        within(self.options().write_timeout, async {
            let mut connection = pools.connect.connect().await?;
            let (busy, ..): (i64, i64, i64) =
                sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut connection).await?;
            connection.close().await?;
            if busy == 0 { Ok(()) } else { Err(StoreError::no_answer("the database's log is in use".to_owned())) }
        })
        .await
    }

    /// How far the erasure of all that a project has made has come; `None` if nobody has asked for it.
    pub(crate) async fn project_erasure(&self, project: ProjectId) -> Result<Option<ProjectErasure>, StoreError> {
        let row = within(self.options().read_timeout, async {
            let mut reader = self.reader().await?;
            Ok(on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, (i64, Option<i64>)>(
                    "SELECT erase_before, erased_at FROM projects WHERE id = $1 AND erase_before IS NOT NULL")
                    .bind(project.uuid()).fetch_optional(connection).await)?)
        })
        .await?;
        Ok(row.map(|(before, finished)| ProjectErasure {
            project_id: project,
            before: Timestamp::from_micros(before),
            finished_at: finished.map(Timestamp::from_micros),
        }))
    }

    /// The erasures that are under way.
    pub(crate) async fn project_erasures(&self) -> Result<Vec<ProjectErasure>, StoreError> {
        let rows = within(self.options().read_timeout, async {
            let mut reader = self.reader().await?;
            Ok(on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, (Uuid, i64)>(
                    "SELECT id, erase_before FROM projects
                     WHERE erase_before IS NOT NULL AND erased_at IS NULL ORDER BY id")
                    .fetch_all(connection).await)?)
        })
        .await?;
        let erasure = |(id, before)| ProjectErasure {
            project_id: ProjectId::from_uuid(id),
            before: Timestamp::from_micros(before),
            finished_at: None,
        };
        Ok(rows.into_iter().map(erasure).collect())
    }

    /// The ids of some generations that an erasure still has to erase, beyond `after`, oldest first; and whether one that
    /// it is about is still open.
    pub(crate) async fn to_be_erased(
        &self,
        erasure: &ProjectErasure,
        after: Option<GenerationId>,
        limit: u32,
    ) -> Result<(Vec<GenerationId>, bool), StoreError> {
        let after = after.map_or(Uuid::nil(), GenerationId::uuid);
        within(self.options().report_timeout, async {
            let mut reader = self.reader().await?;
            on_both!(reader.connection(), connection => {
                // First what is open: what ends in between is then seen as ended.
                let open = sqlx::query_scalar::<_, Uuid>(
                        "SELECT id FROM generations
                         WHERE project_id = $1 AND state IN ('queued', 'running') AND created_at < $2 LIMIT 1")
                    .bind(erasure.project_id.uuid()).bind(erasure.before.micros())
                    .fetch_optional(&mut *connection).await?;
                let ids = sqlx::query_scalar::<_, Uuid>(
                        "SELECT id FROM generations
                         WHERE project_id = $1 AND id > $3 AND created_at < $2 AND settled_at IS NOT NULL
                             AND erased_at IS NULL
                         ORDER BY id LIMIT $4")
                    .bind(erasure.project_id.uuid()).bind(erasure.before.micros()).bind(after)
                    .bind(i64::from(limit)).fetch_all(connection).await?;
                Ok((ids.into_iter().map(GenerationId::from_uuid).collect(), open.is_some()))
            })
        })
        .await
    }

    /// An erasure is done, unless more was asked for meanwhile.
    pub(crate) async fn finish_project_erasure(
        &self,
        erasure: &ProjectErasure,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        within(self.options().write_timeout, async {
            let mut transaction = self.begin().await?;
            on_both!(transaction.connection(), connection =>
                sqlx::query("UPDATE projects SET erased_at = $3 WHERE id = $1 AND erase_before = $2")
                    .bind(erasure.project_id.uuid()).bind(erasure.before.micros()).bind(now.micros())
                    .execute(connection).await.map(drop))?;
            transaction.commit().await
        })
        .await
    }
}
