//! The audit log: who did what, when, from where; before and after. Append-only.

use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::connection::{WriteTransaction, on_both, within};
use super::rows::{Cursor, Page};
use super::{ActorKind, AuditEvent, Store, StoreError};
use crate::domain::{ApiKeyId, AuditLogId, ProjectId, Timestamp};

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// Its id.
    pub id: AuditLogId,
    /// What happened.
    pub event: AuditEvent,
    /// When.
    pub at: Timestamp,
    /// How it was done.
    pub actor: ActorKind,
    /// With which key, if with one.
    pub actor_api_key_id: Option<ApiKeyId>,
    /// From where, if over HTTP.
    pub ip: Option<String>,
    /// With which client, if it said so.
    pub user_agent: Option<String>,
    /// The project that it is about.
    pub project_id: Option<ProjectId>,
    /// What was changed: the id as it is shown.
    pub resource_id: String,
    /// What it was, as JSON; `None` if it was not there.
    pub before: Option<String>,
    /// What it became, as JSON.
    pub after: Option<String>,
}

/// Which entries to list; everything that is given must match.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// At this time or later.
    pub from: Option<Timestamp>,
    /// Before this time.
    pub before: Option<Timestamp>,
    /// Of one of these projects.
    pub projects: Vec<ProjectId>,
    /// One of these events.
    pub events: Vec<AuditEvent>,
    /// Done with one of these keys.
    pub actors: Vec<ApiKeyId>,
    /// About one of these things.
    pub resources: Vec<String>,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    event: String,
    at: i64,
    actor: String,
    actor_api_key_id: Option<Uuid>,
    ip: Option<String>,
    user_agent: Option<String>,
    project_id: Option<Uuid>,
    resource_id: String,
    state_before: Option<String>,
    state_after: Option<String>,
}

impl TryFrom<Row> for AuditRecord {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: AuditLogId::from_uuid(row.id),
            event: row.event.parse()?,
            at: Timestamp::from_micros(row.at),
            actor: row.actor.parse()?,
            actor_api_key_id: row.actor_api_key_id.map(ApiKeyId::from_uuid),
            ip: row.ip,
            user_agent: row.user_agent,
            project_id: row.project_id.map(ProjectId::from_uuid),
            resource_id: row.resource_id,
            before: row.state_before,
            after: row.state_after,
        })
    }
}

impl WriteTransaction {
    /// Appends an entry; durable with the change that it tells of, or not at all.
    pub(crate) async fn insert_audit(&mut self, entry: &AuditRecord) -> Result<(), StoreError> {
        on_both!(self.connection(), connection =>
            sqlx::query("INSERT INTO audit_logs (id, event, at, actor, actor_api_key_id, ip, user_agent, project_id,
                             resource_id, state_before, state_after)
                         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)")
                .bind(entry.id.uuid()).bind(entry.event.as_str()).bind(entry.at.micros())
                .bind(entry.actor.as_str()).bind(entry.actor_api_key_id.map(ApiKeyId::uuid))
                .bind(entry.ip.as_deref()).bind(entry.user_agent.as_deref())
                .bind(entry.project_id.map(ProjectId::uuid)).bind(entry.resource_id.as_str())
                .bind(entry.before.as_deref()).bind(entry.after.as_deref())
                .execute(connection).await.map(drop))?;
        Ok(())
    }
}

impl Store {
    /// A page of the audit log.
    pub(crate) async fn audit_page(
        &self,
        filter: &AuditFilter,
        cursor: Cursor,
    ) -> Result<Page<AuditRecord>, StoreError> {
        let rows = within(self.options().report_timeout, async {
            let mut reader = self.report_reader(None).await?;
            on_both!(reader.connection(), connection => {
                let mut query = QueryBuilder::new(
                    "SELECT id, event, at, actor, actor_api_key_id, ip, user_agent, project_id, resource_id,
                         state_before, state_after FROM audit_logs WHERE TRUE");
                if let Some(from) = filter.from {
                    query.push(" AND at >= ").push_bind(from.micros());
                }
                if let Some(before) = filter.before {
                    query.push(" AND at < ").push_bind(before.micros());
                }
                for (column, ids) in [
                    ("project_id", filter.projects.iter().map(|id| id.uuid()).collect::<Vec<_>>()),
                    ("actor_api_key_id", filter.actors.iter().map(|id| id.uuid()).collect()),
                ] {
                    if !ids.is_empty() {
                        query.push(format_args!(" AND {column} IN ("));
                        let mut list = query.separated(", ");
                        for id in ids {
                            list.push_bind(id);
                        }
                        query.push(")");
                    }
                }
                for (column, words) in [
                    ("event", filter.events.iter().map(|event| event.as_str()).collect::<Vec<_>>()),
                    ("resource_id", filter.resources.iter().map(String::as_str).collect()),
                ] {
                    if !words.is_empty() {
                        query.push(format_args!(" AND {column} IN ("));
                        let mut list = query.separated(", ");
                        for word in words {
                            list.push_bind(word.to_owned());
                        }
                        query.push(")");
                    }
                }
                cursor.push(&mut query, "id");
                Ok(query.build_query_as::<Row>().fetch_all(connection).await?)
            })
        })
        .await?;
        let entries: Result<Vec<_>, _> = rows.into_iter().map(AuditRecord::try_from).collect();
        Ok(cursor.page(entries?))
    }
}
