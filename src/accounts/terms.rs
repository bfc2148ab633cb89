//! Single terms of a project, each changed in one transaction: model permissions, one rate limit, data retention.

use serde_json::json;

use super::Accounts;
use super::error::AccountsError;
use super::policy::Policy;
use crate::domain::ProjectId;
use crate::store::{ProjectRecord, RateLimit, Retention};

/// For how many microseconds prompts are kept where they are: thirty days.
const KEPT: i64 = 30 * 86_400 * 1_000_000;

/// OpenAI's words, as imagegate keeps them: with zero retention no prompt is stored; with `none`, or only the monitoring
/// of abuse modified, prompts are stored for thirty days.
const fn micros_of(retention: Retention) -> i64 {
    match retention {
        Retention::ZeroDataRetention | Retention::EnhancedZeroDataRetention | Retention::OrganizationDefault => 0,
        Retention::None | Retention::ModifiedAbuseMonitoring | Retention::EnhancedModifiedAbuseMonitoring => KEPT,
    }
}

impl Accounts {
    /// Changes a project's policy, known here at once and to every replica within a second.
    pub async fn change_policy(
        &self,
        id: ProjectId,
        change: impl FnOnce(&mut Policy) + Send,
    ) -> Result<ProjectRecord, AccountsError> {
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            let before = transaction.project(id).await?.ok_or(AccountsError::UnknownProject)?;
            let read = before.policy.as_deref().map(Policy::read).transpose();
            let mut policy = read
                .map_err(|_| AccountsError::Invalid("the project's policy cannot be read: replace it".to_owned()))?
                .unwrap_or_default();
            change(&mut policy);
            let text = (policy != Policy::default()).then(|| policy.text());
            let after = ProjectRecord { policy: text, ..before.clone() };
            transaction.update_project(&after, self.inner.clock.now()).await?;
            self.record_project(&mut transaction, Some(&before), &after).await?;
            self.commit(transaction).await?;
            Ok(after)
        }))
        .await
    }

    /// Changes one rate limit of a project; `Some(None)` lifts, `None` leaves.
    pub async fn change_rate_limit(
        &self,
        id: ProjectId,
        model: &str,
        requests: Option<Option<u32>>,
        images: Option<Option<u32>>,
    ) -> Result<ProjectRecord, AccountsError> {
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            let before = transaction.project(id).await?.ok_or(AccountsError::UnknownProject)?;
            let mut after = before.clone();
            let old = after.rate_limits.iter().position(|limit| limit.model == model);
            let old = old.map(|at| after.rate_limits.remove(at));
            let new = RateLimit {
                model: model.to_owned(),
                requests_per_minute: requests
                    .unwrap_or_else(|| old.as_ref().and_then(|limit| limit.requests_per_minute)),
                images_per_minute: images.unwrap_or_else(|| old.as_ref().and_then(|limit| limit.images_per_minute)),
            };
            if new.requests_per_minute.is_some() || new.images_per_minute.is_some() {
                after.rate_limits.push(new);
            }
            transaction.update_project(&after, self.inner.clock.now()).await?;
            self.record_rate_limits(&mut transaction, &before, &after).await?;
            self.commit(transaction).await?;
            Ok(after)
        }))
        .await
    }

    /// How long the organization keeps prompts, where a project has not chosen.
    pub async fn organization_retention(&self) -> Result<Retention, AccountsError> {
        self.in_time(Box::pin(async {
            let mut transaction = self.inner.store.begin_as_is().await?;
            Ok(transaction.organization_retention().await?)
        }))
        .await
    }

    /// Sets it, for projects that have not chosen. A shorter time holds for prompts that are kept already, too; a longer
    /// one does not.
    pub async fn set_organization_retention(&self, retention: Retention) -> Result<(), AccountsError> {
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            let before = transaction.organization_retention().await?;
            transaction
                .set_organization_retention(retention, micros_of(before), micros_of(retention), self.inner.clock.now())
                .await?;
            let state = |retention: Retention| json!({"data_retention": retention});
            self.record_organization(&mut transaction, &state(before), &state(retention)).await?;
            self.commit(transaction).await
        }))
        .await
    }

    /// How long a project keeps prompts, in OpenAI's words. A time that was set by other means is told as the word nearest
    /// to it.
    pub async fn project_retention(&self, id: ProjectId) -> Result<Retention, AccountsError> {
        self.in_time(Box::pin(async {
            let mut transaction = self.inner.store.begin_as_is().await?;
            let project = transaction.project(id).await?.ok_or(AccountsError::UnknownProject)?;
            let chosen = transaction.project_retention(id).await?;
            let follows = match chosen {
                Retention::OrganizationDefault => micros_of(transaction.organization_retention().await?),
                chosen => micros_of(chosen),
            };
            Ok(match project.prompt_retention {
                kept if kept == follows => chosen,
                0 => Retention::ZeroDataRetention,
                _ => Retention::None,
            })
        }))
        .await
    }

    /// Sets how long a project keeps prompts. A shorter time holds for prompts that are kept already, too; a longer one does
    /// not.
    pub async fn set_project_retention(&self, id: ProjectId, retention: Retention) -> Result<(), AccountsError> {
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            let before = transaction.project(id).await?.ok_or(AccountsError::UnknownProject)?;
            let micros = match retention {
                Retention::OrganizationDefault => micros_of(transaction.organization_retention().await?),
                chosen => micros_of(chosen),
            };
            transaction.set_project_retention(id, retention, micros, self.inner.clock.now()).await?;
            let after = ProjectRecord { prompt_retention: micros, ..before.clone() };
            self.record_project(&mut transaction, Some(&before), &after).await?;
            self.commit(transaction).await
        }))
        .await
    }

    /// A new project keeps prompts as the organization does.
    pub(super) async fn retain_as_organization(
        &self,
        transaction: &mut crate::store::WriteTransaction,
        project: &mut ProjectRecord,
    ) -> Result<(), AccountsError> {
        project.prompt_retention = micros_of(transaction.organization_retention().await?);
        if project.prompt_retention > 0 {
            transaction.update_project(project, self.inner.clock.now()).await?;
        }
        Ok(())
    }
}
