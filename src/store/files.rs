//! Input files that clients have uploaded: what they are called, whose they are, where they lie.

use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::connection::{Either, WriteTransaction, on_both, within};
use super::error::must_touch;
use super::rows::{Cursor, Page};
use super::{Store, StoreError};
use crate::domain::{ApiKeyId, FileId, ProjectId, Timestamp};

/// An uploaded file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord {
    /// Its id.
    pub id: FileId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// With which key it was uploaded.
    pub api_key_id: ApiKeyId,
    /// What the client calls it.
    pub name: String,
    /// What it is for, in OpenAI's words.
    pub purpose: String,
    /// Its size; zero where the client put it into the provider's storage itself.
    pub bytes: u64,
    /// Its MIME type.
    pub content_type: String,
    /// Where it lies; `None` until it is uploaded.
    pub url: Option<String>,
    /// When it was uploaded.
    pub created_at: Timestamp,
}

/// How much a project may upload, and has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub(crate) struct UploadUsage {
    /// The most bytes that a day may bring.
    pub(crate) bytes_limit: Option<i64>,
    /// The most files that may be kept at once.
    pub(crate) files_limit: Option<i64>,
    /// What the day has brought.
    pub(crate) bytes_today: i64,
    /// How many are kept.
    pub(crate) kept: i64,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    project_id: Uuid,
    api_key_id: Uuid,
    name: String,
    purpose: String,
    bytes: i64,
    content_type: String,
    url: Option<String>,
    created_at: i64,
}

impl From<Row> for FileRecord {
    fn from(row: Row) -> Self {
        Self {
            id: FileId::from_uuid(row.id),
            project_id: ProjectId::from_uuid(row.project_id),
            api_key_id: ApiKeyId::from_uuid(row.api_key_id),
            name: row.name,
            purpose: row.purpose,
            bytes: u64::try_from(row.bytes).unwrap_or(0),
            content_type: row.content_type,
            url: row.url,
            created_at: Timestamp::from_micros(row.created_at),
        }
    }
}

macro_rules! select_files {
    ($rest:literal) => {
        concat!(
            "SELECT id, project_id, api_key_id, name, purpose, bytes, content_type, url, created_at FROM files ",
            $rest
        )
    };
}

impl WriteTransaction {
    /// What a project may upload and has since `day`; keeps every other upload of the project waiting.
    pub(crate) async fn upload_usage(
        &mut self,
        project: ProjectId,
        day: Timestamp,
    ) -> Result<Option<UploadUsage>, StoreError> {
        if let Either::Postgres(connection) = self.connection() {
            sqlx::query("SELECT 1 FROM projects WHERE id = $1 FOR NO KEY UPDATE")
                .bind(project.uuid())
                .execute(connection)
                .await?;
        }
        Ok(on_both!(self.connection(), connection =>
            sqlx::query_as(
                "SELECT upload_bytes_a_day AS bytes_limit, kept_files AS files_limit,
                     CAST((SELECT COALESCE(SUM(bytes), 0) FROM files WHERE project_id = $1 AND created_at >= $2) AS BIGINT)
                         AS bytes_today,
                     (SELECT COUNT(*) FROM files WHERE project_id = $1 AND deleted_at IS NULL) AS kept
                 FROM projects WHERE id = $1")
                .bind(project.uuid()).bind(day.micros()).fetch_optional(connection).await)?)
    }

    /// Writes a file that is about to be uploaded.
    pub(crate) async fn insert_file(&mut self, file: &FileRecord) -> Result<(), StoreError> {
        on_both!(self.connection(), connection =>
            sqlx::query("INSERT INTO files (id, project_id, api_key_id, name, purpose, bytes, content_type, url, created_at)
                         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
                .bind(file.id.uuid()).bind(file.project_id.uuid()).bind(file.api_key_id.uuid())
                .bind(super::reserving::without_nul(&file.name)).bind(file.purpose.as_str())
                .bind(i64::try_from(file.bytes).unwrap_or(i64::MAX)).bind(file.content_type.as_str())
                .bind(file.url.as_deref()).bind(file.created_at.micros())
                .execute(connection).await.map(drop))?;
        Ok(())
    }

    /// Writes where a file lies that was about to be uploaded.
    pub(crate) async fn place_file(&mut self, id: FileId, url: &str) -> Result<(), StoreError> {
        let touched = on_both!(self.connection(), connection =>
            sqlx::query("UPDATE files SET url = $2 WHERE id = $1 AND deleted_at IS NULL")
                .bind(id.uuid()).bind(url).execute(connection).await.map(|done| done.rows_affected()))?;
        must_touch("files", touched, 1)
    }

    /// One file of a project, unless it is deleted or was never uploaded.
    pub(crate) async fn file(&mut self, project: ProjectId, id: FileId) -> Result<Option<FileRecord>, StoreError> {
        let row = on_both!(self.connection(), connection =>
            sqlx::query_as::<_, Row>(select_files!("WHERE project_id = $1 AND id = $2 AND url IS NOT NULL"))
                .bind(project.uuid()).bind(id.uuid()).fetch_optional(connection).await)?;
        Ok(row.map(FileRecord::from))
    }

    /// Deletes a file: only how large it was and when it came is kept, for its day.
    pub(crate) async fn delete_file(&mut self, id: FileId, at: Timestamp) -> Result<(), StoreError> {
        let touched = on_both!(self.connection(), connection =>
            sqlx::query("UPDATE files SET url = NULL, name = '', deleted_at = $2 WHERE id = $1 AND deleted_at IS NULL")
                .bind(id.uuid()).bind(at.micros()).execute(connection).await.map(|done| done.rows_affected()))?;
        must_touch("files", touched, 1)
    }
}

impl Store {
    /// Takes back a file that was about to be uploaded.
    pub(crate) async fn withdraw_file(&self, id: FileId) -> Result<(), StoreError> {
        within(self.options().write_timeout, async {
            let mut transaction = self.begin_as_is().await?;
            on_both!(transaction.connection(), connection =>
                sqlx::query("DELETE FROM files WHERE id = $1 AND url IS NULL AND deleted_at IS NULL")
                    .bind(id.uuid()).execute(connection).await.map(drop))?;
            transaction.commit().await
        })
        .await
    }

    /// A page of a project's files, or the one with this id.
    pub(crate) async fn files_page(
        &self,
        project: ProjectId,
        id: Option<FileId>,
        purpose: Option<&str>,
        cursor: Cursor,
    ) -> Result<Page<FileRecord>, StoreError> {
        let rows = within(self.options().read_timeout, async {
            let mut reader = self.reader_as_is().await?;
            on_both!(reader.connection(), connection => {
                let mut query =
                    QueryBuilder::new(select_files!("WHERE deleted_at IS NULL AND url IS NOT NULL AND project_id = "));
                query.push_bind(project.uuid());
                if let Some(id) = id {
                    query.push(" AND id = ").push_bind(id.uuid());
                }
                if let Some(purpose) = purpose {
                    query.push(" AND purpose = ").push_bind(purpose.to_owned());
                }
                cursor.push(&mut query, "id");
                Ok(query.build_query_as::<Row>().fetch_all(connection).await?)
            })
        })
        .await?;
        Ok(cursor.page(rows.into_iter().map(FileRecord::from).collect()))
    }
}
