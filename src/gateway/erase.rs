//! Erases what a generation or a whole project has left: prompts, parameters, answers, errors' details, kept images. What
//! the books count stays: amounts, states, models, times, who asked.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::settle::kept_after_erasure;
use crate::accounts::{Accounts, AccountsError, ProjectErasure};
use crate::domain::{GenerationId, ProjectId, Timestamp};
use crate::ledger::GenerationRecord;
use crate::storage::{KEPT, Storage, StorageError};

/// How often erasures that are under way are taken on.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// How long after one that failed.
const TRY_AGAIN_AFTER: Duration = Duration::from_mins(1);
/// How many generations are erased in one transaction.
const AT_ONCE: u32 = 100;

/// Why nothing was erased.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// There is no such generation.
    #[error("there is no generation `{0}`")]
    Unknown(GenerationId),
    /// It is still open, so that something could come after its erasure.
    #[error("generation `{0}` is still open: cancel it, or wait for its end, and erase it then")]
    Open(GenerationId),
    /// Its images are in a storage that this process does not know.
    #[error("images of generation `{0}` are kept in a storage, and `IMAGEGATE_STORAGE` is not set here")]
    NoStorage(GenerationId),
    /// Its images cannot be removed now.
    #[error("the images of generation `{0}` cannot be removed: {1}")]
    Storage(GenerationId, StorageError),
    /// The database.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
}

/// Erases content on request, with what is kept of it in the operator's storage.
#[derive(Debug, Clone)]
pub struct Eraser {
    accounts: Accounts,
    storage: Option<Arc<Storage>>,
}

impl Eraser {
    /// Erases in the books behind these accounts, whose author is named in the audit log, and in this storage.
    #[must_use]
    pub const fn new(accounts: Accounts, storage: Option<Arc<Storage>>) -> Self {
        Self { accounts, storage }
    }

    /// The same in the name of somebody else.
    #[must_use]
    pub fn with_accounts(&self, accounts: Accounts) -> Self {
        Self { accounts, storage: self.storage.clone() }
    }

    /// Erases the content of one generation that has ended; when that was, also if it was done before.
    pub async fn erase_generation(&self, id: GenerationId) -> Result<Timestamp, EraseError> {
        let record = self.ended(id).await?;
        if let Some(erased_at) = record.erased_at {
            return Ok(erased_at);
        }
        self.remove_images(&record).await?;
        self.accounts.erase_generation(&record, kept_after_erasure(&record)).await?;
        // As the books have it: another one may have been first.
        self.ended(id).await?.erased_at.ok_or(EraseError::Open(id))
    }

    async fn ended(&self, id: GenerationId) -> Result<GenerationRecord, EraseError> {
        let record = self.accounts.generation(id).await?.ok_or(EraseError::Unknown(id))?;
        if record.outcome.is_none() { Err(EraseError::Open(id)) } else { Ok(record) }
    }

    /// Asks for the erasure of all that a project has made so far. It is done in the background, of what is open once it
    /// has ended; asked for again, it is about all until then.
    pub async fn erase_project(&self, id: ProjectId) -> Result<ProjectErasure, AccountsError> {
        self.accounts.ask_project_erasure(id).await
    }

    /// Takes erasures on every few seconds, on a task that ends when `tracker` is closed.
    pub fn watch(&self, tracker: &TaskTracker, runtime: &Handle) {
        let (eraser, closing) = (self.clone(), tracker.clone());
        let watch = async move {
            while !closing.is_closed() {
                let wait = match eraser.go_on().await {
                    Ok(_) => CHECK_EVERY,
                    Err(error) => {
                        warn!(%error, "a project's content cannot be erased now; it is tried again");
                        TRY_AGAIN_AFTER
                    }
                };
                crate::accounts::pause(&closing, wait).await;
            }
        };
        tracker.spawn_on(watch, runtime);
    }

    /// Takes all erasures of projects on as far as it is possible now. How many are left, because something is open. One
    /// that fails keeps no other from being done.
    pub async fn go_on(&self) -> Result<usize, EraseError> {
        let (mut left, mut failure) = (0, None);
        for erasure in self.accounts.project_erasures().await? {
            match self.go_on_with(&erasure).await {
                Ok(done) => left += usize::from(!done),
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(left), Err)
    }

    /// Whether it is done.
    async fn go_on_with(&self, erasure: &ProjectErasure) -> Result<bool, EraseError> {
        let mut last = None;
        loop {
            let (ids, something_is_open) = self.accounts.to_be_erased(erasure, last, AT_ONCE).await?;
            let Some(newest) = ids.last().copied() else {
                if something_is_open {
                    return Ok(false);
                }
                self.accounts.finish_project_erasure(erasure).await?;
                info!(project = %erasure.project_id, "all that the project had made is erased");
                return Ok(true);
            };
            let mut rows = Vec::new();
            for id in ids {
                let record = self.ended(id).await?;
                self.remove_images(&record).await?;
                rows.push((id, kept_after_erasure(&record)));
            }
            self.accounts.erase_generations(rows).await?;
            last = Some(newest);
        }
    }

    /// Removes the images of a generation that the operator's storage has.
    async fn remove_images(&self, record: &GenerationRecord) -> Result<(), EraseError> {
        if let Some(storage) = &self.storage {
            let folder = record.id.to_string();
            return storage.remove_folder(&folder).await.map_err(|error| EraseError::Storage(record.id, error));
        }
        let answer = record.outcome.as_ref().and_then(|outcome| outcome.answer.as_deref());
        let has_kept = answer.is_some_and(|answer| answer.contains(&format!("\"{KEPT}")));
        if has_kept { Err(EraseError::NoStorage(record.id)) } else { Ok(()) }
    }
}
