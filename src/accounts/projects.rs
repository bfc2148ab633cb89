//! Making, listing, changing and archiving projects.

use serde_json::json;

use super::Accounts;
use super::error::AccountsError;
use super::keys::{check_budget, check_name};
use crate::domain::{Money, ProjectId};
use crate::store::{ANY_MODEL, Cursor, Page, ProjectChange, ProjectRecord, RateLimit, StoreError, WriteTransaction};

/// What a new project may ask for of each model in any minute; any number when `None`. The default project, which is the
/// operator's own, begins without rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DefaultRates {
    /// Requests, above zero.
    pub requests_per_minute: Option<u32>,
    /// Images, above zero.
    pub images_per_minute: Option<u32>,
}

impl DefaultRates {
    fn limit(self) -> Option<RateLimit> {
        let Self { requests_per_minute, images_per_minute } = self;
        let limits = requests_per_minute.is_some() || images_per_minute.is_some();
        limits.then(|| RateLimit { model: ANY_MODEL.to_owned(), requests_per_minute, images_per_minute })
    }
}

/// The name of the project that the first start makes.
const DEFAULT: &str = "default";

impl Accounts {
    /// The same accounts; projects that are made through them begin with these rates.
    #[must_use]
    pub fn with_default_rates(self, default_rates: DefaultRates) -> Self {
        Self { default_rates, ..self }
    }

    /// Makes a project that pays afterwards, with the rates of new projects and no other limits.
    pub async fn create_project(&self, name: &str) -> Result<ProjectRecord, AccountsError> {
        check_name(name)?;
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            let project = self.insert_project(&mut transaction, name, false).await?;
            self.commit(transaction).await?;
            Ok(project)
        }))
        .await
    }

    /// All projects, oldest first; archived ones too.
    pub async fn list_projects(&self) -> Result<Vec<ProjectRecord>, AccountsError> {
        Ok(self.inner.store.projects().await?)
    }

    /// One project.
    pub async fn project(&self, id: ProjectId) -> Result<Option<ProjectRecord>, AccountsError> {
        Ok(self.inner.store.project(id).await?)
    }

    /// A page of projects, with the archived ones if `archived`.
    pub async fn projects_page(&self, archived: bool, cursor: Cursor) -> Result<Page<ProjectRecord>, AccountsError> {
        Ok(self.inner.store.projects_page(archived, cursor).await?)
    }

    /// The project `default`, made if it is not there.
    pub async fn default_project(&self) -> Result<ProjectRecord, AccountsError> {
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            let project = self.default_project_in(&mut transaction).await?;
            self.commit(transaction).await?;
            Ok(project)
        }))
        .await
    }

    /// Changes a project's name or terms; reservations see it at once.
    pub async fn update_project(&self, id: ProjectId, change: ProjectChange) -> Result<ProjectRecord, AccountsError> {
        if let Some(name) = &change.name {
            check_name(name)?;
        }
        check_budget(change.spend_limit.flatten())?;
        if change.prompt_retention.is_some_and(|retention| retention < 0) {
            return Err(AccountsError::Invalid("a retention below zero".to_owned()));
        }
        if let Some(limits) = &change.rate_limits {
            check_rates(limits)?;
        }
        if change.concurrency_limit == Some(Some(0)) {
            return Err(AccountsError::Invalid("a limit of open generations must be above zero".to_owned()));
        }
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            let mut project = transaction.project(id).await?.ok_or(AccountsError::UnknownProject)?;
            // As at OpenAI, where archived projects can be neither used nor updated. Its terms can, which bind what is kept.
            if project.archived_at.is_some() && change.name.is_some() {
                return Err(AccountsError::ProjectArchived);
            }
            let before = project.clone();
            project.name = change.name.unwrap_or(project.name);
            project.prepaid = change.prepaid.unwrap_or(project.prepaid);
            project.spend_limit = change.spend_limit.unwrap_or(project.spend_limit);
            project.policy = change.policy.unwrap_or(project.policy);
            project.prompt_retention = change.prompt_retention.unwrap_or(project.prompt_retention);
            project.concurrency_limit = change.concurrency_limit.unwrap_or(project.concurrency_limit);
            project.rate_limits = change.rate_limits.unwrap_or(project.rate_limits);
            project.upload_bytes_a_day = change.upload_bytes_a_day.unwrap_or(project.upload_bytes_a_day);
            project.kept_files = change.kept_files.unwrap_or(project.kept_files);
            project.adapt = change.adapt.unwrap_or(project.adapt);
            project.join_retries = change.join_retries.unwrap_or(project.join_retries);
            transaction.update_project(&project, self.inner.clock.now()).await?;
            self.record_project(&mut transaction, Some(&before), &project).await?;
            self.record_rate_limits(&mut transaction, &before, &project).await?;
            self.commit(transaction).await?;
            Ok(project)
        }))
        .await
    }

    /// The most that a month of all projects together may cost.
    pub async fn organization_limit(&self) -> Result<Option<Money>, AccountsError> {
        Ok(self.inner.store.organization_limit().await?)
    }

    /// Sets the most that a month of all projects together may cost; reservations see it at once.
    pub async fn set_organization_limit(&self, limit: Option<Money>) -> Result<(), AccountsError> {
        check_budget(limit)?;
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            let before = self.inner.store.organization_limit().await?;
            transaction.set_organization_limit(limit).await?;
            let state = |limit: Option<Money>| json!({"spend_limit_usd": limit});
            self.record_organization(&mut transaction, &state(before), &state(limit)).await?;
            self.commit(transaction).await
        }))
        .await
    }

    /// Archives a project for good: its keys stop working here at once and on other replicas within a second. What is
    /// open goes on. A project that was archived before stays as it is.
    pub async fn archive_project(&self, id: ProjectId) -> Result<ProjectRecord, AccountsError> {
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            let mut project = transaction.project(id).await?.ok_or(AccountsError::UnknownProject)?;
            if project.is_default {
                return Err(AccountsError::DefaultProject);
            }
            let before = project.clone();
            project.archived_at = project.archived_at.or(Some(self.inner.clock.now()));
            transaction.update_project(&project, self.inner.clock.now()).await?;
            self.record_project(&mut transaction, Some(&before), &project).await?;
            self.commit(transaction).await?;
            Ok(project)
        }))
        .await
    }

    pub(super) async fn default_project_in(
        &self,
        transaction: &mut WriteTransaction,
    ) -> Result<ProjectRecord, AccountsError> {
        match transaction.default_project().await? {
            Some(project) => Ok(project),
            None => self.insert_project(transaction, DEFAULT, true).await,
        }
    }

    async fn insert_project(
        &self,
        transaction: &mut WriteTransaction,
        name: &str,
        is_default: bool,
    ) -> Result<ProjectRecord, AccountsError> {
        let id = ProjectId::from_uuid(self.inner.ids.uuid());
        transaction.insert_project(id, name, is_default, self.inner.clock.now()).await?;
        let written = transaction.project(id).await?;
        let mut project = written
            .ok_or_else(|| StoreError::Inconsistent(format!("project `{id}` is not there after it was written")))?;
        self.retain_as_organization(transaction, &mut project).await?;
        // The default project is the operator's own.
        if let Some(limit) = self.default_rates.limit().filter(|_| !is_default) {
            project.rate_limits = vec![limit];
            transaction.update_project(&project, self.inner.clock.now()).await?;
        }
        self.record_project(transaction, None, &project).await?;
        Ok(project)
    }
}

fn check_rates(limits: &[RateLimit]) -> Result<(), AccountsError> {
    let invalid = |what: &str| Err(AccountsError::Invalid(format!("rate limits: {what}")));
    for (at, limit) in limits.iter().enumerate() {
        let given = [limit.requests_per_minute, limit.images_per_minute];
        if limit.model.is_empty() || given.contains(&Some(0)) || given == [None, None] {
            return invalid("each names a model and a number above zero of requests or images");
        }
        if limits[..at].iter().any(|other| other.model == limit.model) {
            return invalid(&format!("`{}` is there twice", limit.model));
        }
    }
    Ok(())
}
