//! Who changes the accounts, and the audit log that every change leaves.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Accounts;
use super::error::AccountsError;
use crate::domain::{Adapt, ApiKeyId, AuditLogId, Network, ProjectId, Scope, Timestamp};
use crate::store::{
    ActorKind, AuditEvent, AuditFilter, AuditRecord, Cursor, KeyKind, KeyRecord, Page, ProjectRecord, RateLimit,
    ServiceAccountRecord, WriteTransaction,
};

/// The longest `User-Agent` that is kept, in characters.
const LONGEST_USER_AGENT: usize = 300;

/// Who makes a change. [`Accounts::by`] takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Author {
    /// A caller over HTTP.
    Key {
        /// With this key.
        api_key_id: ApiKeyId,
        /// From this address.
        ip: Option<String>,
        /// With this client.
        user_agent: Option<String>,
    },
    /// Somebody over HTTP who has shown no key that is good.
    Visitor {
        /// From this address.
        ip: Option<String>,
        /// With this client.
        user_agent: Option<String>,
    },
    /// A command on the machine that has the database's address.
    Command,
    /// The gateway itself.
    System,
}

/// A change of one thing, for the audit log.
pub(super) struct Change<'a> {
    pub(super) event: AuditEvent,
    pub(super) project_id: Option<ProjectId>,
    pub(super) resource_id: String,
    pub(super) before: Option<&'a Value>,
    pub(super) after: &'a Value,
}

impl Accounts {
    /// The same accounts; what is changed through them is recorded as this author's.
    #[must_use]
    pub fn by(&self, author: Author) -> Self {
        Self { author: Arc::new(author), ..self.clone() }
    }

    /// A page of the audit log.
    pub async fn audit_logs(&self, filter: &AuditFilter, cursor: Cursor) -> Result<Page<AuditRecord>, AccountsError> {
        Ok(self.inner.store.audit_page(filter, cursor).await?)
    }

    /// Appends what this transaction changes to the audit log; nothing if it changes nothing.
    pub(super) async fn record(
        &self,
        transaction: &mut WriteTransaction,
        change: Change<'_>,
    ) -> Result<(), AccountsError> {
        if change.before == Some(change.after) {
            return Ok(());
        }
        Ok(transaction.insert_audit(&self.entry(change)).await?)
    }

    /// Writes an entry about something that changes nothing in the database, such as a reading. It is durable when this
    /// returns: what must not happen unseen is done after it.
    pub async fn note(
        &self,
        event: AuditEvent,
        project_id: Option<ProjectId>,
        resource_id: String,
        details: &Value,
    ) -> Result<(), AccountsError> {
        self.in_time(Box::pin(async {
            let mut transaction = self.inner.store.begin_as_is().await?;
            self.record(&mut transaction, Change { event, project_id, resource_id, before: None, after: details })
                .await?;
            Ok(transaction.commit().await?)
        }))
        .await
    }

    /// The entry for what this author changes in another module, such as money that it moves. That module writes it with the
    /// change, or not at all.
    #[must_use]
    pub fn entry_of(
        &self,
        event: AuditEvent,
        project_id: ProjectId,
        resource_id: String,
        after: &Value,
    ) -> AuditRecord {
        self.entry(Change { event, project_id: Some(project_id), resource_id, before: None, after })
    }

    /// The entry for a month of generations that this author drops. It is written with the drop, or not at all.
    #[must_use]
    pub fn entry_of_drop(&self, month: &str) -> AuditRecord {
        let (event, after) = (AuditEvent::GenerationsDropped, json!({"month": month}));
        self.entry(Change { event, project_id: None, resource_id: month.to_owned(), before: None, after: &after })
    }

    fn entry(&self, change: Change<'_>) -> AuditRecord {
        let short = |text: &Option<String>| text.as_ref().map(|text| text.chars().take(LONGEST_USER_AGENT).collect());
        let (actor, actor_api_key_id, ip, user_agent) = match self.author.as_ref() {
            Author::Key { api_key_id, ip, user_agent } => {
                (ActorKind::ApiKey, Some(*api_key_id), ip.clone(), short(user_agent))
            }
            // It is the gateway that has written it down; the address tells whom it is about.
            Author::Visitor { ip, user_agent } => (ActorKind::System, None, ip.clone(), short(user_agent)),
            Author::Command => (ActorKind::Command, None, None, None),
            Author::System => (ActorKind::System, None, None, None),
        };
        AuditRecord {
            id: AuditLogId::from_uuid(self.inner.ids.uuid()),
            event: change.event,
            at: self.inner.clock.now(),
            actor,
            actor_api_key_id,
            ip,
            user_agent,
            project_id: change.project_id,
            resource_id: change.resource_id,
            before: change.before.map(Value::to_string),
            after: Some(change.after.to_string()),
        }
    }

    /// Records what became of a key: made, changed or revoked.
    pub(super) async fn record_key(
        &self,
        transaction: &mut WriteTransaction,
        before: Option<&KeyRecord>,
        after: &KeyRecord,
    ) -> Result<(), AccountsError> {
        let event = match before {
            None => AuditEvent::ApiKeyCreated,
            Some(before) if before.revoked_at.is_none() && after.revoked_at.is_some() => AuditEvent::ApiKeyDeleted,
            Some(_) => AuditEvent::ApiKeyUpdated,
        };
        let (before, after_state) = (before.map(key_state), key_state(after));
        let change = Change {
            event,
            project_id: after.project_id,
            resource_id: after.id.to_string(),
            before: before.as_ref(),
            after: &after_state,
        };
        self.record(transaction, change).await
    }

    /// Records what became of a project: made, changed or archived.
    pub(super) async fn record_project(
        &self,
        transaction: &mut WriteTransaction,
        before: Option<&ProjectRecord>,
        after: &ProjectRecord,
    ) -> Result<(), AccountsError> {
        let event = match before {
            None => AuditEvent::ProjectCreated,
            Some(before) if before.archived_at.is_none() && after.archived_at.is_some() => AuditEvent::ProjectArchived,
            Some(_) => AuditEvent::ProjectUpdated,
        };
        let (before, after_state) = (before.map(project_state), project_state(after));
        let change = Change {
            event,
            project_id: Some(after.id),
            resource_id: after.id.to_string(),
            before: before.as_ref(),
            after: &after_state,
        };
        self.record(transaction, change).await
    }

    /// Records which rate limits of a project were set and which lifted.
    pub(super) async fn record_rate_limits(
        &self,
        transaction: &mut WriteTransaction,
        before: &ProjectRecord,
        after: &ProjectRecord,
    ) -> Result<(), AccountsError> {
        let state = |limit: Option<&RateLimit>| {
            json!({
                "max_requests_per_1_minute": limit.and_then(|limit| limit.requests_per_minute),
                "max_images_per_1_minute": limit.and_then(|limit| limit.images_per_minute),
            })
        };
        let find = |limits: &[RateLimit], model: &str| limits.iter().find(|limit| limit.model == model).cloned();
        let models: BTreeSet<&str> =
            before.rate_limits.iter().chain(&after.rate_limits).map(|limit| limit.model.as_str()).collect();
        for model in models {
            let (old, new) = (find(&before.rate_limits, model), find(&after.rate_limits, model));
            let change = Change {
                event: if new.is_some() { AuditEvent::RateLimitUpdated } else { AuditEvent::RateLimitDeleted },
                project_id: Some(after.id),
                resource_id: model.to_owned(),
                before: Some(&state(old.as_ref())),
                after: &state(new.as_ref()),
            };
            self.record(transaction, change).await?;
        }
        Ok(())
    }

    /// Records a change of what all projects together may do.
    pub(super) async fn record_organization(
        &self,
        transaction: &mut WriteTransaction,
        before: &Value,
        after: &Value,
    ) -> Result<(), AccountsError> {
        let change = Change {
            event: AuditEvent::OrganizationUpdated,
            project_id: None,
            resource_id: "organization".to_owned(),
            before: Some(before),
            after,
        };
        self.record(transaction, change).await
    }

    /// Records what became of a service account: made, changed or deleted.
    pub(super) async fn record_service_account(
        &self,
        transaction: &mut WriteTransaction,
        before: Option<&ServiceAccountRecord>,
        after: &ServiceAccountRecord,
    ) -> Result<(), AccountsError> {
        let event = match before {
            None => AuditEvent::ServiceAccountCreated,
            Some(before) if before.deleted_at.is_none() && after.deleted_at.is_some() => {
                AuditEvent::ServiceAccountDeleted
            }
            Some(_) => AuditEvent::ServiceAccountUpdated,
        };
        let state = |account: &ServiceAccountRecord| {
            json!({
                "name": account.name,
                "role": account.role,
                "deleted_at": account.deleted_at.map(Timestamp::seconds),
            })
        };
        let (before, after_state) = (before.map(state), state(after));
        let change = Change {
            event,
            project_id: Some(after.project_id),
            resource_id: after.id.to_string(),
            before: before.as_ref(),
            after: &after_state,
        };
        self.record(transaction, change).await
    }
}

/// What the audit log keeps of a key: its terms, never the key.
fn key_state(key: &KeyRecord) -> Value {
    let is_admin = key.kind == KeyKind::Admin;
    let scopes = (!is_admin).then(|| key.scopes.iter().map(Scope::name).collect::<Vec<_>>());
    let networks = key.allowed_addresses.as_ref();
    json!({
        "name": key.name,
        "kind": key.kind,
        "begins": key.prefix,
        "origin": key.origin,
        "service_account_id": key.service_account_id,
        "budget_usd": key.budget,
        "allowed_models": key.allowed_models,
        "scopes": scopes,
        "role": is_admin.then(|| key.role.name()),
        "allowed_addresses": networks.map(|networks| networks.iter().map(Network::to_string).collect::<Vec<_>>()),
        "adapt": key.adapt.map(Adapt::names),
        "join_retries": key.join_retries,
        "generates_for_project_id": key.generates_for,
        "expires_at": key.expires_at.map(Timestamp::seconds),
        "revoked_at": key.revoked_at.map(Timestamp::seconds),
    })
}

/// What the audit log keeps of a project.
fn project_state(project: &ProjectRecord) -> Value {
    let policy = project.policy.as_ref().map(|text| serde_json::from_str(text).unwrap_or_else(|_| json!(text)));
    json!({
        "name": project.name,
        "prepaid": project.prepaid,
        "spend_limit_usd": project.spend_limit,
        "policy": policy,
        "prompt_retention_seconds": project.prompt_retention / 1_000_000,
        "concurrent_generations": project.concurrency_limit,
        "upload_bytes_per_day": project.upload_bytes_a_day,
        "kept_files": project.kept_files,
        "adapt": project.adapt.map(Adapt::names),
        "join_retries": project.join_retries,
        "archived_at": project.archived_at.map(Timestamp::seconds),
    })
}
