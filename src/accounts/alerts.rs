//! Spend alerts: making them, and finding those whose amount is reached. imagegate has no mail: an alert that goes off is
//! a warning in the log and an entry of the audit log, from where the operator's own tools take it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::Accounts;
use super::audit::Change;
use super::error::AccountsError;
use crate::domain::{Money, ProjectId, SpendAlertId, Timestamp};
use crate::store::{AuditEvent, Cursor, Page, SpendAlertRecord, Standing, WriteTransaction};

/// How often spending is compared with the alerts.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// What a spend alert watches and whom it is for.
#[derive(Debug, Clone)]
pub struct SpendAlert {
    /// What a month is charged when it goes off; above zero.
    pub threshold: Money,
    /// Whom the operator's own tools shall tell.
    pub recipients: Vec<String>,
    /// What their message's subject shall begin with.
    pub subject_prefix: Option<String>,
}

impl Accounts {
    /// Makes a spend alert for a project, or for all together.
    pub async fn create_spend_alert(
        &self,
        project: Option<ProjectId>,
        new: SpendAlert,
    ) -> Result<SpendAlertRecord, AccountsError> {
        check(&new)?;
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            if let Some(project) = project {
                self.open_project(&mut transaction, project).await?;
            }
            let alert = SpendAlertRecord {
                id: SpendAlertId::from_uuid(self.inner.ids.uuid()),
                project_id: project,
                threshold: new.threshold,
                recipients: new.recipients,
                subject_prefix: new.subject_prefix,
                created_at: self.inner.clock.now(),
            };
            transaction.insert_alert(&alert).await?;
            self.record_alert(&mut transaction, AuditEvent::SpendAlertCreated, None, &alert, state(&alert)).await?;
            self.commit(transaction).await?;
            Ok(alert)
        }))
        .await
    }

    /// A page of the spend alerts of a project, or of the organization.
    pub async fn list_spend_alerts(
        &self,
        project: Option<ProjectId>,
        cursor: Cursor,
    ) -> Result<Page<SpendAlertRecord>, AccountsError> {
        Ok(self.inner.store.alerts_page(project, None, cursor).await?)
    }

    /// One spend alert of a project, or of the organization.
    pub async fn spend_alert(
        &self,
        project: Option<ProjectId>,
        id: SpendAlertId,
    ) -> Result<SpendAlertRecord, AccountsError> {
        let one = Cursor { after: None, oldest_first: false, limit: 1 };
        let page = self.inner.store.alerts_page(project, Some(id), one).await?;
        page.items.into_iter().next().ok_or(AccountsError::UnknownSpendAlert)
    }

    /// Changes a spend alert; it may go off again this month.
    pub async fn update_spend_alert(
        &self,
        project: Option<ProjectId>,
        id: SpendAlertId,
        new: SpendAlert,
    ) -> Result<SpendAlertRecord, AccountsError> {
        check(&new)?;
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            let before = own(&mut transaction, project, id).await?;
            let after = SpendAlertRecord {
                threshold: new.threshold,
                recipients: new.recipients,
                subject_prefix: new.subject_prefix,
                ..before.clone()
            };
            transaction.update_alert(&after).await?;
            let event = AuditEvent::SpendAlertUpdated;
            self.record_alert(&mut transaction, event, Some(state(&before)), &after, state(&after)).await?;
            self.commit(transaction).await?;
            Ok(after)
        }))
        .await
    }

    /// Removes a spend alert.
    pub async fn delete_spend_alert(&self, project: Option<ProjectId>, id: SpendAlertId) -> Result<(), AccountsError> {
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            let before = own(&mut transaction, project, id).await?;
            transaction.delete_alert(id).await?;
            let event = AuditEvent::SpendAlertDeleted;
            self.record_alert(&mut transaction, event, Some(state(&before)), &before, Value::Null).await?;
            self.commit(transaction).await
        }))
        .await
    }

    /// What all projects together were charged this month and have set aside.
    pub async fn organization_standing(&self) -> Result<Standing, AccountsError> {
        Ok(self.inner.store.organization_standing(self.inner.clock.now()).await?)
    }

    /// Compares spending with the alerts every few seconds, on a task that ends when `tracker` is closed.
    pub fn watch_spending(&self, tracker: &TaskTracker, runtime: &Handle) {
        let (accounts, closing) = (self.clone(), tracker.clone());
        let watch = async move {
            while !closing.is_closed() {
                if let Err(error) = accounts.check_spending().await {
                    tracing::warn!(%error, "spend alerts cannot be checked now");
                }
                super::pause(&closing, CHECK_EVERY).await;
            }
        };
        tracker.spawn_on(watch, runtime);
    }

    /// Lets every alert go off whose amount is reached: once a month each, over all replicas. How many did.
    pub async fn check_spending(&self) -> Result<usize, AccountsError> {
        let mut fired = 0;
        for due in self.inner.store.due_alerts(self.inner.clock.now()).await? {
            fired += usize::from(self.fire(&due.alert, due.month, due.spent).await?);
        }
        Ok(fired)
    }

    async fn fire(&self, alert: &SpendAlertRecord, month: Timestamp, spent: Money) -> Result<bool, AccountsError> {
        self.in_time(Box::pin(async {
            let mut transaction = self.inner.store.begin_as_is().await?;
            if !transaction.fire_alert(alert.id, month).await? {
                return Ok(false);
            }
            let mut after = state(alert);
            after["spent_usd"] = json!(spent);
            after["month"] = json!(month.seconds());
            let event = AuditEvent::SpendAlertTriggered;
            self.record_alert(&mut transaction, event, Some(state(alert)), alert, after).await?;
            transaction.commit().await?;
            let project = alert.project_id.map_or_else(|| "all projects".to_owned(), |id| id.to_string());
            tracing::warn!(alert = %alert.id, project, %spent, threshold = %alert.threshold, "a spend alert's amount is reached");
            Ok(true)
        }))
        .await
    }

    async fn record_alert(
        &self,
        transaction: &mut WriteTransaction,
        event: AuditEvent,
        before: Option<Value>,
        alert: &SpendAlertRecord,
        after: Value,
    ) -> Result<(), AccountsError> {
        let change = Change {
            event,
            project_id: alert.project_id,
            resource_id: alert.id.to_string(),
            before: before.as_ref(),
            after: &after,
        };
        self.record(transaction, change).await
    }
}

async fn own(
    transaction: &mut WriteTransaction,
    project: Option<ProjectId>,
    id: SpendAlertId,
) -> Result<SpendAlertRecord, AccountsError> {
    let alert = transaction.alert(id).await?;
    alert.filter(|alert| alert.project_id == project).ok_or(AccountsError::UnknownSpendAlert)
}

fn state(alert: &SpendAlertRecord) -> Value {
    json!({
        "threshold_usd": alert.threshold,
        "recipients": alert.recipients,
        "subject_prefix": alert.subject_prefix,
    })
}

fn check(alert: &SpendAlert) -> Result<(), AccountsError> {
    if alert.threshold <= Money::ZERO {
        return Err(AccountsError::Invalid("a spend alert wants an amount above zero".to_owned()));
    }
    Ok(())
}
