//! Input files that clients upload: counted against the project's limits before they go anywhere, and in the audit log.

use std::time::Duration;

use serde_json::{Value, json};

use super::Accounts;
use super::audit::Change;
use super::error::AccountsError;
use crate::domain::{ApiKeyId, FileId, ProjectId, Timestamp};
use crate::store::{AuditEvent, Cursor, FileRecord, Page};

/// Microseconds of a day.
const DAY: i64 = 86_400 * 1_000_000;

/// A file to be uploaded.
#[derive(Debug, Clone)]
pub struct NewFile {
    /// Whose it is.
    pub project_id: ProjectId,
    /// With which key.
    pub api_key_id: ApiKeyId,
    /// What the client calls it.
    pub name: String,
    /// What it is for, in OpenAI's words.
    pub purpose: String,
    /// Its size; zero where the client puts it into the provider's storage itself.
    pub bytes: u64,
    /// Its MIME type.
    pub content_type: String,
}

/// The limit of a project that an upload would pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UploadLimit {
    /// The day's bytes.
    #[error(
        "Upload limit reached for this project on bytes per day: limit {limit}, used {used}, this file {needed}. The day \
         ends at midnight UTC."
    )]
    BytesPerDay {
        /// The limit.
        limit: u64,
        /// What the day has brought.
        used: u64,
        /// What the file has.
        needed: u64,
        /// When the day ends.
        resets_in: Duration,
    },
    /// One file is larger than a whole day may bring.
    #[error("this file has {needed} bytes, and this project may upload {limit} bytes per day")]
    LargerThanADay {
        /// The limit.
        limit: u64,
        /// What the file has.
        needed: u64,
    },
    /// The files that may be kept at once.
    #[error("this project keeps {kept} files, and may keep {limit}: delete some first")]
    KeptFiles {
        /// The limit.
        limit: u64,
        /// How many are kept.
        kept: u64,
    },
}

impl Accounts {
    /// Records a file that is about to be uploaded, if the project's limits allow it. [`Accounts::place_file`] or
    /// [`Accounts::withdraw_file`] is to follow.
    pub async fn announce_file(&self, new: NewFile) -> Result<FileRecord, AccountsError> {
        self.in_time(Box::pin(async {
            let mut transaction = self.inner.store.begin_as_is().await?;
            let now = self.inner.clock.now();
            let day = Timestamp::from_micros(now.micros() - now.micros().rem_euclid(DAY));
            let usage = transaction.upload_usage(new.project_id, day).await?;
            let usage = usage.ok_or(AccountsError::UnknownProject)?;
            let number = |number: i64| u64::try_from(number).unwrap_or(0);
            let (used, kept) = (number(usage.bytes_today), number(usage.kept));
            if let Some(limit) = usage.files_limit.map(number).filter(|limit| kept >= *limit) {
                return Err(UploadLimit::KeptFiles { limit, kept }.into());
            }
            match usage.bytes_limit.map(number) {
                Some(limit) if new.bytes > limit => {
                    return Err(UploadLimit::LargerThanADay { limit, needed: new.bytes }.into());
                }
                Some(limit) if used.saturating_add(new.bytes) > limit => {
                    let resets_in = Timestamp::from_micros(day.micros() + DAY).since(now);
                    return Err(UploadLimit::BytesPerDay { limit, used, needed: new.bytes, resets_in }.into());
                }
                _ => {}
            }
            let file = FileRecord {
                id: FileId::from_uuid(self.inner.ids.uuid()),
                project_id: new.project_id,
                api_key_id: new.api_key_id,
                name: new.name,
                purpose: new.purpose,
                bytes: new.bytes,
                content_type: new.content_type,
                url: None,
                created_at: now,
            };
            transaction.insert_file(&file).await?;
            transaction.commit().await?;
            Ok(file)
        }))
        .await
    }

    /// Records where an announced file lies.
    pub async fn place_file(&self, file: FileRecord, url: &str) -> Result<FileRecord, AccountsError> {
        self.in_time(Box::pin(async {
            let mut transaction = self.inner.store.begin_as_is().await?;
            transaction.place_file(file.id, url).await?;
            let after = state(&file);
            self.record(&mut transaction, change(AuditEvent::FileCreated, &file, None, &after)).await?;
            transaction.commit().await?;
            Ok(FileRecord { url: Some(url.to_owned()), ..file })
        }))
        .await
    }

    /// Takes back an announced file that could not be uploaded. One that cannot be taken back now is taken for given up
    /// after an hour.
    pub async fn withdraw_file(&self, id: FileId) {
        if let Err(error) = self.inner.store.withdraw_file(id).await {
            tracing::warn!(%error, file = %id, "a file that was not uploaded counts for another hour");
        }
    }

    /// A page of a project's files, those for this purpose if one is given.
    pub async fn files_page(
        &self,
        project: ProjectId,
        purpose: Option<&str>,
        cursor: Cursor,
    ) -> Result<Page<FileRecord>, AccountsError> {
        Ok(self.inner.store.files_page(project, None, purpose, cursor).await?)
    }

    /// One file of a project.
    pub async fn file(&self, project: ProjectId, id: FileId) -> Result<FileRecord, AccountsError> {
        let one = Cursor { after: None, oldest_first: false, limit: 1 };
        let page = self.inner.store.files_page(project, Some(id), None, one).await?;
        page.items.into_iter().next().ok_or(AccountsError::UnknownFile)
    }

    /// Deletes a file of a project here. The provider keeps what it has for as long as it keeps uploads.
    pub async fn delete_file(&self, project: ProjectId, id: FileId) -> Result<(), AccountsError> {
        self.in_time(Box::pin(async {
            let mut transaction = self.inner.store.begin_as_is().await?;
            let file = transaction.file(project, id).await?.ok_or(AccountsError::UnknownFile)?;
            transaction.delete_file(id, self.inner.clock.now()).await?;
            let before = state(&file);
            self.record(&mut transaction, change(AuditEvent::FileDeleted, &file, Some(&before), &Value::Null)).await?;
            Ok(transaction.commit().await?)
        }))
        .await
    }
}

fn change<'a>(event: AuditEvent, file: &FileRecord, before: Option<&'a Value>, after: &'a Value) -> Change<'a> {
    Change { event, project_id: Some(file.project_id), resource_id: file.id.to_string(), before, after }
}

/// What the audit log keeps of a file: nothing of what it shows, nor its name.
fn state(file: &FileRecord) -> Value {
    json!({"bytes": file.bytes, "content_type": file.content_type, "purpose": file.purpose})
}
