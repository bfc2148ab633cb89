//! Projects: who pays, and on which terms.

use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::connection::{WriteTransaction, on_both, within};
use super::error::must_touch;
use super::keys::read_adapt;
use super::limits::RateRow;
use super::rows::{Cursor, Page};
use super::{Store, StoreError};
use crate::domain::{Adapt, Money, ProjectId, Timestamp};

/// The model of a rate limit that stands for each model without one of its own.
pub const ANY_MODEL: &str = "*";

/// A project, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectRecord {
    /// Its id.
    pub id: ProjectId,
    /// Its name; not unique.
    pub name: String,
    /// Whether it is the one that the first start made.
    pub is_default: bool,
    /// Whether it may spend no more than its balance.
    pub prepaid: bool,
    /// The most that a calendar month (UTC) may cost.
    pub spend_limit: Option<Money>,
    /// What callers may not change, as JSON.
    pub policy: Option<String>,
    /// For how many microseconds prompts are kept; zero keeps none.
    pub prompt_retention: i64,
    /// How many of its generations may be open at once.
    pub concurrency_limit: Option<u32>,
    /// How much of a model it may ask for in a minute.
    pub rate_limits: Vec<RateLimit>,
    /// The most bytes that it may upload in a day (UTC).
    pub upload_bytes_a_day: Option<u64>,
    /// The most uploaded files that it may keep.
    pub kept_files: Option<u64>,
    /// What may be changed of its requests so that they fit, where key and request do not say it.
    pub adapt: Option<Adapt>,
    /// Whether its requests join equal ones whose client went away; not if `None`.
    pub join_retries: Option<bool>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when it may not be used.
    pub archived_at: Option<Timestamp>,
}

/// How much of a model a project may ask for in any minute; limits something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// Our id of the model; `*` stands for each model without a limit of its own.
    pub model: String,
    /// Requests, above zero.
    pub requests_per_minute: Option<u32>,
    /// Images, above zero.
    pub images_per_minute: Option<u32>,
}

/// What is to be different about a project; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct ProjectChange {
    /// Its name.
    pub name: Option<String>,
    /// Whether it may spend no more than its balance.
    pub prepaid: Option<bool>,
    /// The most that a month may cost; `Some(None)` lifts the limit.
    pub spend_limit: Option<Option<Money>>,
    /// What callers may not change, as JSON; `Some(None)` lifts it.
    pub policy: Option<Option<String>>,
    /// For how many microseconds prompts are kept.
    pub prompt_retention: Option<i64>,
    /// How many of its generations may be open at once; `Some(None)` lifts the limit.
    pub concurrency_limit: Option<Option<u32>>,
    /// All its rate limits, in place of those before.
    pub rate_limits: Option<Vec<RateLimit>>,
    /// The most bytes that it may upload in a day; `Some(None)` lifts the limit.
    pub upload_bytes_a_day: Option<Option<u64>>,
    /// The most uploaded files that it may keep; `Some(None)` lifts the limit.
    pub kept_files: Option<Option<u64>>,
    /// What may be changed of its requests so that they fit.
    pub adapt: Option<Option<Adapt>>,
    /// Whether its requests join equal ones whose client went away.
    pub join_retries: Option<Option<bool>>,
}

#[derive(FromRow)]
struct ProjectRow {
    id: Uuid,
    name: String,
    is_default: bool,
    prepaid: bool,
    spend_limit: Option<i64>,
    policy: Option<String>,
    prompt_retention: i64,
    concurrency_limit: Option<i64>,
    upload_bytes_a_day: Option<i64>,
    kept_files: Option<i64>,
    adapt: Option<String>,
    join_retries: Option<bool>,
    created_at: i64,
    archived_at: Option<i64>,
}

impl From<ProjectRow> for ProjectRecord {
    fn from(row: ProjectRow) -> Self {
        Self {
            id: ProjectId::from_uuid(row.id),
            name: row.name,
            is_default: row.is_default,
            prepaid: row.prepaid,
            spend_limit: row.spend_limit.map(Money::from_nanos),
            policy: row.policy,
            prompt_retention: row.prompt_retention,
            concurrency_limit: row.concurrency_limit.map(small),
            rate_limits: Vec::new(),
            upload_bytes_a_day: row.upload_bytes_a_day.and_then(|limit| u64::try_from(limit).ok()),
            kept_files: row.kept_files.and_then(|limit| u64::try_from(limit).ok()),
            adapt: read_adapt(row.adapt.as_deref()),
            join_retries: row.join_retries,
            created_at: Timestamp::from_micros(row.created_at),
            archived_at: row.archived_at.map(Timestamp::from_micros),
        }
    }
}

/// A limit as it was written: above zero, and never beyond 32 bits.
fn small(limit: i64) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}

fn signed(limit: u64) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Puts rate limits to their projects.
fn with_rates(mut projects: Vec<ProjectRecord>, rates: Vec<RateRow>) -> Vec<ProjectRecord> {
    for row in rates {
        let owner = projects.iter_mut().find(|project| project.id.uuid() == row.project_id);
        if let Some(project) = owner {
            project.rate_limits.push(RateLimit {
                model: row.model,
                requests_per_minute: row.requests_per_minute.map(small),
                images_per_minute: row.images_per_minute.map(small),
            });
        }
    }
    projects
}

macro_rules! select_projects {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, is_default, prepaid, spend_limit, policy, prompt_retention, concurrency_limit,
                 upload_bytes_a_day, kept_files, adapt, join_retries, created_at, archived_at
             FROM projects ",
            $rest
        )
    };
}

impl WriteTransaction {
    /// Writes a new project with an empty balance.
    pub(crate) async fn insert_project(
        &mut self,
        id: ProjectId,
        name: &str,
        is_default: bool,
        created_at: Timestamp,
    ) -> Result<(), StoreError> {
        on_both!(self.connection(), connection => {
            sqlx::query("INSERT INTO projects (id, name, is_default, created_at) VALUES ($1, $2, $3, $4)")
                .bind(id.uuid()).bind(name).bind(is_default).bind(created_at.micros())
                .execute(&mut *connection).await?;
            sqlx::query("INSERT INTO balances (project_id) VALUES ($1)")
                .bind(id.uuid()).execute(&mut *connection).await?;
        });
        Ok(())
    }

    /// The default project, if it is there.
    pub(crate) async fn default_project(&mut self) -> Result<Option<ProjectRecord>, StoreError> {
        let row = on_both!(self.connection(), connection =>
            sqlx::query_as::<_, ProjectRow>(select_projects!("WHERE is_default"))
                .fetch_optional(connection).await)?;
        Ok(row.map(ProjectRecord::from))
    }

    /// One project.
    pub(crate) async fn project(&mut self, id: ProjectId) -> Result<Option<ProjectRecord>, StoreError> {
        let row = on_both!(self.connection(), connection =>
            sqlx::query_as::<_, ProjectRow>(select_projects!("WHERE id = $1"))
                .bind(id.uuid()).fetch_optional(connection).await)?;
        let rates = self.rate_limits(&[id.uuid()]).await?;
        Ok(with_rates(row.map(ProjectRecord::from).into_iter().collect(), rates).pop())
    }

    /// Writes what may change about a project. Where it may keep prompts for a shorter time than before, or is archived,
    /// those that are kept are shortened from now on.
    pub(crate) async fn update_project(&mut self, project: &ProjectRecord, now: Timestamp) -> Result<(), StoreError> {
        let touched = on_both!(self.connection(), connection =>
            sqlx::query("UPDATE projects SET name = $2, prepaid = $3, spend_limit = $4, policy = $5,
                             prompt_retention = $6, archived_at = $7, concurrency_limit = $8, upload_bytes_a_day = $9,
                             kept_files = $10, adapt = $12, join_retries = $13,
                             shorten_prompts_at = CASE
                                 WHEN prompt_retention > $6 OR (archived_at IS NULL AND CAST($7 AS BIGINT) IS NOT NULL) THEN $11
                                 ELSE shorten_prompts_at END
                         WHERE id = $1")
                .bind(project.id.uuid()).bind(project.name.as_str()).bind(project.prepaid)
                .bind(project.spend_limit.map(Money::nanos)).bind(project.policy.as_deref())
                .bind(project.prompt_retention).bind(project.archived_at.map(Timestamp::micros))
                .bind(project.concurrency_limit.map(i64::from)).bind(project.upload_bytes_a_day.map(signed))
                .bind(project.kept_files.map(signed)).bind(now.micros())
                .bind(project.adapt.map(|adapt| adapt.to_string())).bind(project.join_retries)
                .execute(connection).await.map(|done| done.rows_affected()))?;
        must_touch("projects", touched, 1)?;
        self.write_rate_limits(project).await
    }

    /// Writes a project's rate limits in place of those before.
    async fn write_rate_limits(&mut self, project: &ProjectRecord) -> Result<(), StoreError> {
        on_both!(self.connection(), connection => {
            sqlx::query("DELETE FROM rate_limits WHERE project_id = $1")
                .bind(project.id.uuid()).execute(&mut *connection).await?;
            for limit in &project.rate_limits {
                sqlx::query("INSERT INTO rate_limits (project_id, model, requests_per_minute, images_per_minute)
                             VALUES ($1, $2, $3, $4)")
                    .bind(project.id.uuid()).bind(limit.model.as_str())
                    .bind(limit.requests_per_minute.map(i64::from)).bind(limit.images_per_minute.map(i64::from))
                    .execute(&mut *connection).await?;
            }
        });
        Ok(())
    }

    /// Writes the most that a month of all projects together may cost.
    pub(crate) async fn set_organization_limit(&mut self, limit: Option<Money>) -> Result<(), StoreError> {
        let touched = on_both!(self.connection(), connection =>
            sqlx::query("UPDATE organization SET spend_limit = $1").bind(limit.map(Money::nanos))
                .execute(connection).await.map(|done| done.rows_affected()))?;
        must_touch("organization", touched, 1)
    }
}

impl Store {
    /// The most that a month of all projects together may cost.
    pub(crate) async fn organization_limit(&self) -> Result<Option<Money>, StoreError> {
        within(self.options().read_timeout, async {
            let mut reader = self.reader_as_is().await?;
            let limit = on_both!(reader.connection(), connection =>
                sqlx::query_scalar::<_, Option<i64>>("SELECT spend_limit FROM organization")
                    .fetch_one(connection).await)?;
            Ok(limit.map(Money::from_nanos))
        })
        .await
    }

    /// One project.
    pub(crate) async fn project(&self, id: ProjectId) -> Result<Option<ProjectRecord>, StoreError> {
        within(self.options().read_timeout, async {
            let mut reader = self.reader_as_is().await?;
            let row = on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, ProjectRow>(select_projects!("WHERE id = $1"))
                    .bind(id.uuid()).fetch_optional(connection).await)?;
            let rates = on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, RateRow>(
                    "SELECT project_id, model, requests_per_minute, images_per_minute FROM rate_limits
                     WHERE project_id = $1 ORDER BY model").bind(id.uuid()).fetch_all(connection).await)?;
            Ok(with_rates(row.map(ProjectRecord::from).into_iter().collect(), rates).pop())
        })
        .await
    }

    /// A page of projects without their rate limits, with the archived ones if `archived`.
    pub(crate) async fn projects_page(
        &self,
        archived: bool,
        cursor: Cursor,
    ) -> Result<Page<ProjectRecord>, StoreError> {
        let rows = within(self.options().report_timeout, async {
            let mut reader = self.reader_as_is().await?;
            on_both!(reader.connection(), connection => {
                let mut query = QueryBuilder::new(select_projects!("WHERE TRUE"));
                if !archived {
                    query.push(" AND archived_at IS NULL");
                }
                cursor.push(&mut query, "id");
                Ok(query.build_query_as::<ProjectRow>().fetch_all(connection).await?)
            })
        })
        .await?;
        Ok(cursor.page(rows.into_iter().map(ProjectRecord::from).collect()))
    }

    /// All projects, oldest first.
    pub(crate) async fn projects(&self) -> Result<Vec<ProjectRecord>, StoreError> {
        within(self.options().report_timeout, async {
            let mut reader = self.reader_as_is().await?;
            let rows = on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, ProjectRow>(select_projects!("ORDER BY id")).fetch_all(connection).await)?;
            let rates = on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, RateRow>(
                    "SELECT project_id, model, requests_per_minute, images_per_minute FROM rate_limits
                     ORDER BY project_id, model").fetch_all(connection).await)?;
            Ok(with_rates(rows.into_iter().map(ProjectRecord::from).collect(), rates))
        })
        .await
    }
}
