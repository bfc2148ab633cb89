//! The operator's own names for models.

use sqlx::FromRow;
use uuid::Uuid;

use super::connection::{WriteTransaction, on_both, within};
use super::{Store, StoreError};
use crate::domain::{Alias, ProjectId, Timestamp};

/// A name that the operator has given to a model, for a project or for all.
#[derive(Debug, Clone, PartialEq)]
pub struct AliasRecord {
    /// Whose it is; everybody's when `None`.
    pub project_id: Option<ProjectId>,
    /// The alias itself.
    pub alias: Alias,
    /// When it was first made; `None` for one that the settings file gives.
    pub created_at: Option<Timestamp>,
}

#[derive(FromRow)]
struct AliasRow {
    project_id: Option<Uuid>,
    id: String,
    target: String,
    name: Option<String>,
    description: Option<String>,
    defaults: String,
    fixed: String,
    created_at: i64,
}

impl TryFrom<AliasRow> for AliasRecord {
    type Error = StoreError;

    fn try_from(row: AliasRow) -> Result<Self, StoreError> {
        let broken = |_| StoreError::Inconsistent(format!("the values of the alias `{}`", row.id));
        Ok(Self {
            project_id: row.project_id.map(ProjectId::from_uuid),
            alias: Alias {
                defaults: serde_json::from_str(&row.defaults).map_err(broken)?,
                fixed: serde_json::from_str(&row.fixed).map_err(broken)?,
                id: row.id,
                target: row.target,
                name: row.name,
                description: row.description,
            },
            created_at: Some(Timestamp::from_micros(row.created_at)),
        })
    }
}

const SELECT: &str = "SELECT project_id, id, target, name, description, defaults, fixed, created_at
                      FROM model_aliases ORDER BY name_key, created_at";

impl WriteTransaction {
    /// All aliases, by their ids.
    pub(crate) async fn model_aliases(&mut self) -> Result<Vec<AliasRecord>, StoreError> {
        let rows = on_both!(self.connection(), connection =>
            sqlx::query_as::<_, AliasRow>(SELECT).fetch_all(connection).await)?;
        rows.into_iter().map(AliasRecord::try_from).collect()
    }

    /// Writes an alias in place of one of the same id, in any letter case, and project.
    pub(crate) async fn put_model_alias(&mut self, record: &AliasRecord) -> Result<(), StoreError> {
        self.delete_model_alias(record.project_id, &record.alias.id).await?;
        let alias = &record.alias;
        let text = |values: &serde_json::Map<String, serde_json::Value>| {
            serde_json::to_string(values).unwrap_or_else(|_| "{}".to_owned())
        };
        on_both!(self.connection(), connection =>
            sqlx::query("INSERT INTO model_aliases (project_id, name_key, id, target, name, description, defaults, fixed,
                             created_at)
                         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
                .bind(record.project_id.map(ProjectId::uuid)).bind(alias.id.to_ascii_lowercase()).bind(alias.id.as_str())
                .bind(alias.target.as_str()).bind(alias.name.as_deref()).bind(alias.description.as_deref())
                .bind(text(&alias.defaults)).bind(text(&alias.fixed))
                .bind(record.created_at.map_or(0, Timestamp::micros))
                .execute(connection).await.map(drop))?;
        Ok(())
    }

    /// Deletes the alias of this id, in any letter case, and project, if it is there.
    pub(crate) async fn delete_model_alias(&mut self, project: Option<ProjectId>, id: &str) -> Result<(), StoreError> {
        let key = id.to_ascii_lowercase();
        on_both!(self.connection(), connection => match project {
            Some(project) => sqlx::query("DELETE FROM model_aliases WHERE name_key = $1 AND project_id = $2")
                .bind(key).bind(project.uuid()).execute(connection).await.map(drop),
            None => sqlx::query("DELETE FROM model_aliases WHERE name_key = $1 AND project_id IS NULL")
                .bind(key).execute(connection).await.map(drop),
        })?;
        Ok(())
    }
}

impl Store {
    /// All aliases, by their ids.
    pub(crate) async fn stored_aliases(&self) -> Result<Vec<AliasRecord>, StoreError> {
        within(self.options().report_timeout, async {
            let mut reader = self.reader_as_is().await?;
            let rows = on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, AliasRow>(SELECT).fetch_all(connection).await)?;
            rows.into_iter().map(AliasRecord::try_from).collect()
        })
        .await
    }
}
