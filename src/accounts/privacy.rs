//! Forgetting: prompts that outlive a shorter retention, and content that is erased on request. What is erased of a
//! generation, and its files, is the gateway's to say.

use std::time::Duration;

use serde_json::json;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::Accounts;
use super::audit::Change;
use super::error::AccountsError;
use crate::domain::{GenerationId, ProjectId};
use crate::store::{AuditEvent, GenerationRecord, ProjectErasure, Remains};

/// How often the database is searched for what is to be forgotten.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// How many prompts are forgotten in one transaction.
const AT_ONCE: u32 = 1_000;
/// For how long after a retention was lowered a reservation may still be written that had read the old one: well beyond
/// the time that a write may take.
const LATE_WRITES: Duration = Duration::from_secs(30);

/// What stays of a generation whose content is erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What its answer keeps, for the books.
    pub answer: Option<String>,
    /// What its error keeps.
    pub error: Option<String>,
    /// Why it ended so, without the provider's words.
    pub reason: String,
}

impl Accounts {
    /// Forgets prompts whose time is over, or was shortened, every few seconds, on a task that ends when `tracker` is closed.
    pub fn watch_retention(&self, tracker: &TaskTracker, runtime: &Handle) {
        let (accounts, closing) = (self.clone(), tracker.clone());
        let watch = async move {
            while !closing.is_closed() {
                if let Err(error) = accounts.forget_prompts().await {
                    tracing::warn!(%error, "prompts cannot be forgotten now");
                }
                super::pause(&closing, CHECK_EVERY).await;
            }
        };
        tracker.spawn_on(watch, runtime);
    }

    /// Forgets the prompts whose time is over, and shortens the time of those that a project's retention, lowered since
    /// they came, no longer allows.
    pub async fn forget_prompts(&self) -> Result<(), AccountsError> {
        let store = &self.inner.store;
        for project in store.projects_to_shorten().await? {
            let now = self.inner.clock.now();
            let mut last = store.shorten_prompts(&project, now, None, AT_ONCE).await?;
            let found = last.is_some();
            while last.is_some() {
                last = store.shorten_prompts(&project, now, last, AT_ONCE).await?;
            }
            if !found && now.since(project.since()) > LATE_WRITES {
                store.prompts_are_short(&project).await?;
                tracing::info!(project = %project.project(), "no kept prompt outlives the project's retention");
            }
        }
        while store.purge_prompts(self.inner.clock.now(), AT_ONCE).await? >= u64::from(AT_ONCE) {}
        Ok(())
    }

    /// One generation, for its erasure.
    pub async fn generation(&self, id: GenerationId) -> Result<Option<GenerationRecord>, AccountsError> {
        Ok(self.inner.store.generation(id).await?)
    }

    /// Erases the content of one generation that has ended; all but what `kept` says. Whether it was not erased before.
    pub async fn erase_generation(&self, record: &GenerationRecord, kept: Kept) -> Result<bool, AccountsError> {
        self.in_time(Box::pin(async {
            let mut transaction = self.inner.store.begin().await?;
            let now = self.inner.clock.now();
            let erased = transaction.erase_generations(&[remains(record.id, kept)], now).await? > 0;
            if erased {
                let after = json!({"erased_at": now.seconds()});
                let change = Change {
                    event: AuditEvent::GenerationErased,
                    project_id: Some(record.project_id),
                    resource_id: record.id.to_string(),
                    before: None,
                    after: &after,
                };
                self.record(&mut transaction, change).await?;
            }
            transaction.commit().await?;
            Ok(erased)
        }))
        .await
    }

    /// Asks for the erasure of all that a project has made so far. Prompts of what is still open are forgotten at once,
    /// uploaded files too; the rest is erased in the background, what is open once it has ended.
    pub async fn ask_project_erasure(&self, id: ProjectId) -> Result<ProjectErasure, AccountsError> {
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            transaction.project(id).await?.ok_or(AccountsError::UnknownProject)?;
            let now = self.inner.clock.now();
            transaction.ask_project_erasure(id, now).await?;
            let after = json!({"erase_before": now.seconds()});
            let change = Change {
                event: AuditEvent::ProjectErased,
                project_id: Some(id),
                resource_id: id.to_string(),
                before: None,
                after: &after,
            };
            self.record(&mut transaction, change).await?;
            self.commit(transaction).await?;
            Ok(ProjectErasure { project_id: id, before: now, finished_at: None })
        }))
        .await
    }

    /// How far the erasure of all that a project has made has come; `None` if nobody has asked for it.
    pub async fn project_erasure(&self, id: ProjectId) -> Result<Option<ProjectErasure>, AccountsError> {
        Ok(self.inner.store.project_erasure(id).await?)
    }

    /// The erasures of projects that are under way.
    pub async fn project_erasures(&self) -> Result<Vec<ProjectErasure>, AccountsError> {
        Ok(self.inner.store.project_erasures().await?)
    }

    /// Some generations that an erasure still has to erase, beyond `after`, and whether one that it is about is open.
    pub async fn to_be_erased(
        &self,
        erasure: &ProjectErasure,
        after: Option<GenerationId>,
        limit: u32,
    ) -> Result<(Vec<GenerationId>, bool), AccountsError> {
        Ok(self.inner.store.to_be_erased(erasure, after, limit).await?)
    }

    /// Erases the content of these generations; the audit log has that their project's erasure was asked for.
    pub async fn erase_generations(&self, rows: Vec<(GenerationId, Kept)>) -> Result<(), AccountsError> {
        self.in_time(Box::pin(async {
            let mut transaction = self.inner.store.begin().await?;
            let rows: Vec<Remains> = rows.into_iter().map(|(id, kept)| remains(id, kept)).collect();
            transaction.erase_generations(&rows, self.inner.clock.now()).await?;
            Ok(transaction.commit().await?)
        }))
        .await
    }

    /// An erasure is done.
    pub async fn finish_project_erasure(&self, erasure: &ProjectErasure) -> Result<(), AccountsError> {
        Ok(self.inner.store.finish_project_erasure(erasure, self.inner.clock.now()).await?)
    }
}

fn remains(id: GenerationId, Kept { answer, error, reason }: Kept) -> Remains {
    Remains { id, answer, error, reason }
}
