//! Projects: who pays, and on which terms.

use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::connection::{WriteTransaction, on_both, within};
use super::error::must_touch;
use super::rows::{Cursor, Page};
use super::{Store, StoreError};
use crate::domain::{Money, ProjectId, Timestamp};

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
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when it may not be used.
    pub archived_at: Option<Timestamp>,
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
            created_at: Timestamp::from_micros(row.created_at),
            archived_at: row.archived_at.map(Timestamp::from_micros),
        }
    }
}

macro_rules! select_projects {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, is_default, prepaid, spend_limit, policy, prompt_retention, created_at, archived_at
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
        Ok(row.map(ProjectRecord::from))
    }

    /// Writes what may change about a project.
    pub(crate) async fn update_project(&mut self, project: &ProjectRecord) -> Result<(), StoreError> {
        let touched = on_both!(self.connection(), connection =>
            sqlx::query("UPDATE projects SET name = $2, prepaid = $3, spend_limit = $4, policy = $5,
                             prompt_retention = $6, archived_at = $7 WHERE id = $1")
                .bind(project.id.uuid()).bind(project.name.as_str()).bind(project.prepaid)
                .bind(project.spend_limit.map(Money::nanos)).bind(project.policy.as_deref())
                .bind(project.prompt_retention).bind(project.archived_at.map(Timestamp::micros))
                .execute(connection).await.map(|done| done.rows_affected()))?;
        must_touch("projects", touched, 1)
    }
}

impl Store {
    /// One project.
    pub(crate) async fn project(&self, id: ProjectId) -> Result<Option<ProjectRecord>, StoreError> {
        within(self.options().read_timeout, async {
            let mut reader = self.reader().await?;
            let row = on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, ProjectRow>(select_projects!("WHERE id = $1"))
                    .bind(id.uuid()).fetch_optional(connection).await)?;
            Ok(row.map(ProjectRecord::from))
        })
        .await
    }

    /// A page of projects, with the archived ones if `archived`.
    pub(crate) async fn projects_page(
        &self,
        archived: bool,
        cursor: Cursor,
    ) -> Result<Page<ProjectRecord>, StoreError> {
        let rows = within(self.options().report_timeout, async {
            let mut reader = self.reader().await?;
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
            let mut reader = self.reader().await?;
            let rows = on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, ProjectRow>(select_projects!("ORDER BY id")).fetch_all(connection).await)?;
            Ok(rows.into_iter().map(ProjectRecord::from).collect())
        })
        .await
    }
}
