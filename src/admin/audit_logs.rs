//! `/v1/organization/audit_logs`: who did what, when, from where; before and after.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::shapes::{Paging, Refusals, cursor, list};
use crate::accounts::{ActorKind, AuditEvent, AuditFilter, AuditRecord, Cursor};
use crate::api::access::{AdminCaller, action};
use crate::api::errors::invalid_field;
use crate::api::{QueryPairs, Services, query};
use crate::domain::{AuditLogId, ProjectId, Timestamp};
use crate::http::Problem;

const FILTERS: &[&str] = &[
    "limit",
    "after",
    "before",
    "effective_at[gt]",
    "effective_at[gte]",
    "effective_at[lt]",
    "effective_at[lte]",
    "project_ids",
    "event_types",
    "actor_ids",
    "actor_emails",
    "resource_ids",
    "tenant_only",
];

/// One entry of the audit log. Beside these fields it has one named after its `type`, as OpenAI's has.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditLog)]
pub struct AuditLogView {
    /// Its id.
    #[schema(example = "audit_log_019e1951c77871209c8216efcf40ec82")]
    id: String,
    /// Always `organization.audit_log`.
    #[schema(example = "organization.audit_log")]
    object: &'static str,
    /// What happened.
    #[serde(rename = "type")]
    #[schema(example = "api_key.created")]
    event: String,
    /// When, in Unix seconds.
    effective_at: i64,
    /// Who did it.
    actor: AuditActor,
    /// The project that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    project: Option<AuditProject>,
    /// What was changed: its id.
    resource_id: String,
    /// What it was; null before it was made.
    #[schema(value_type = Option<Object>)]
    before: Option<Value>,
    /// What it became; null when it is gone.
    #[schema(value_type = Option<Object>)]
    after: Option<Value>,
    /// The details of this type of event, under the type's name, as OpenAI's clients read them.
    #[serde(flatten)]
    #[schema(ignore)]
    details: Map<String, Value>,
}

/// Who did it.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditActor {
    /// `api_key` over HTTP; `session` for a command on the machine, or the gateway itself.
    #[serde(rename = "type")]
    #[schema(example = "api_key")]
    kind: &'static str,
    /// The key, if it was done with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    api_key: Option<AuditKey>,
    /// From where and as whom.
    session: AuditSession,
}

/// The key that something was done with.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditKey {
    /// Its id.
    id: String,
    /// Always `user`.
    #[serde(rename = "type")]
    #[schema(example = "user")]
    kind: &'static str,
    /// The operator.
    user: AuditUser,
}

/// From where something was done and as whom.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditSession {
    /// The address, if over HTTP.
    ip_address: Option<String>,
    /// The client, if it said so.
    user_agent: Option<String>,
    /// `operator`; `command` for a command on the machine; `imagegate` for the gateway itself.
    user: AuditUser,
}

/// Who is meant: imagegate knows no people.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditUser {
    /// `operator`, `command` or `imagegate`.
    #[schema(example = "operator")]
    id: &'static str,
}

/// The project that something is about.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditProject {
    /// Its id.
    id: String,
    /// Its name as it is now.
    name: Option<String>,
}

list!(
    /// A page of the audit log, newest first.
    AuditLogList of AuditLogView
);

impl AuditLogView {
    fn of(entry: &AuditRecord, projects: &HashMap<ProjectId, String>) -> Self {
        let (kind, user) = match entry.actor {
            ActorKind::ApiKey => ("api_key", "operator"),
            ActorKind::Command => ("session", "command"),
            ActorKind::System => ("session", "imagegate"),
        };
        let state = |text: &Option<String>| text.as_ref().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let (before, after) = (state(&entry.before), state(&entry.after));
        let mut details = Map::new();
        let of_type = of_type(entry, before.as_ref(), after.as_ref());
        details.insert(entry.event.to_string(), of_type);
        Self {
            id: entry.id.to_string(),
            object: "organization.audit_log",
            event: entry.event.to_string(),
            effective_at: entry.at.seconds(),
            actor: AuditActor {
                kind,
                api_key: entry.actor_api_key_id.map(|id| AuditKey {
                    id: id.to_string(),
                    kind: "user",
                    user: AuditUser { id: user },
                }),
                session: AuditSession {
                    ip_address: entry.ip.clone(),
                    user_agent: entry.user_agent.clone(),
                    user: AuditUser { id: user },
                },
            },
            project: entry.project_id.map(|id| AuditProject { id: id.to_string(), name: projects.get(&id).cloned() }),
            resource_id: entry.resource_id.clone(),
            before,
            after,
            details,
        }
    }
}

/// OpenAI's details: the id, what a new thing is, or what was changed about an old one.
fn of_type(entry: &AuditRecord, before: Option<&Value>, after: Option<&Value>) -> Value {
    let mut details = Map::new();
    details.insert("id".to_owned(), json!(entry.resource_id));
    let after = after.and_then(Value::as_object);
    match (before.and_then(Value::as_object), after) {
        (None, Some(after)) => {
            details.insert("data".to_owned(), Value::Object(titled(after.clone())));
        }
        (Some(before), Some(after)) => {
            let changed = after
                .iter()
                .filter(|(name, value)| before.get(*name) != Some(*value))
                .map(|(n, v)| (n.clone(), v.clone()));
            let ends = matches!(
                entry.event,
                AuditEvent::ApiKeyDeleted | AuditEvent::ProjectArchived | AuditEvent::ServiceAccountDeleted
            );
            if !ends {
                details.insert("changes_requested".to_owned(), Value::Object(titled(changed.collect())));
            }
        }
        _ => {}
    }
    Value::Object(details)
}

/// OpenAI's clients look for a project's name as `title` too.
fn titled(mut fields: Map<String, Value>) -> Map<String, Value> {
    if let Some(name) = fields.get("name").cloned() {
        fields.insert("title".to_owned(), name);
    }
    fields
}

/// List audit logs
///
/// Every change of projects, keys, service accounts and limits, every upload and erasure, and who read kept prompts, webhook
/// secrets and exports, newest first: over HTTP, by commands, by the gateway itself. Nothing is ever changed or removed in
/// it.
#[utoipa::path(
    get,
    path = "/v1/organization/audit_logs",
    operation_id = "listAuditLogs",
    tag = "organization",
    params(
        Paging,
        ("before" = Option<String>, Query, description = "The id to end before: `first_id` of the page after."),
        ("effective_at[gt]" = Option<i64>, Query, description = "Only later than this, in Unix seconds."),
        ("effective_at[gte]" = Option<i64>, Query, description = "Only at this time or later, in Unix seconds."),
        ("effective_at[lt]" = Option<i64>, Query, description = "Only earlier than this, in Unix seconds."),
        ("effective_at[lte]" = Option<i64>, Query, description = "Only at this time or earlier, in Unix seconds."),
        ("project_ids" = Option<Vec<String>>, Query, description = "Only about these projects."),
        ("event_types" = Option<Vec<String>>, Query, description = "Only of these types, such as `api_key.created`."),
        ("actor_ids" = Option<Vec<String>>, Query, description = "Only done with these keys."),
        ("actor_emails" = Option<Vec<String>>, Query, description = "imagegate knows no people: matches nothing."),
        ("resource_ids" = Option<Vec<String>>, Query, description = "Only about these things."),
        ("tenant_only" = Option<bool>, Query, description = "There are no tenants here: `true` matches nothing."),
    ),
    responses((status = 200, description = "A page of the audit log, newest first.", body = AuditLogList), Refusals),
)]
pub async fn list_audit_logs(
    _: AdminCaller<action::View>,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let pairs = query(&request, FILTERS)?;
    let (filter, cursor, backwards) = read_query(&pairs)?;
    let Some(filter) = filter else {
        return Ok(HttpResponse::Ok().json(AuditLogList::of(Vec::new(), false)));
    };
    let mut page = services.accounts.audit_logs(&filter, cursor).await?;
    if backwards {
        page.items.reverse();
    }
    let mut projects = HashMap::new();
    for id in page.items.iter().filter_map(|entry| entry.project_id) {
        if let Entry::Vacant(place) = projects.entry(id)
            && let Some(project) = services.accounts.project(id).await?
        {
            place.insert(project.name);
        }
    }
    let views = page.items.iter().map(|entry| AuditLogView::of(entry, &projects)).collect();
    Ok(HttpResponse::Ok().json(AuditLogList::of(views, page.has_more)))
}

/// The filter, `None` if it matches nothing; where to read, and whether from the end.
fn read_query(pairs: &QueryPairs) -> Result<(Option<AuditFilter>, Cursor, bool), Problem> {
    let forwards = cursor(pairs, "an audit log", AuditLogId::uuid, 100)?;
    let before = pairs.parsed::<AuditLogId>("before", "an audit log's id")?;
    let cursor = match before {
        Some(_) if forwards.after.is_some() => {
            return Err(invalid_field("before", "cannot be given together with `after`"));
        }
        Some(id) => Cursor { after: Some(id.uuid()), oldest_first: true, limit: forwards.limit },
        None => forwards,
    };
    let seconds = |name: &str| pairs.parsed::<i64>(name, "a time in Unix seconds");
    let after = |bound: Option<i64>| bound.map(|bound| Timestamp::from_seconds(bound.saturating_add(1)));
    let at = |bound: Option<i64>| bound.map(Timestamp::from_seconds);
    let from = after(seconds("effective_at[gt]")?).max(at(seconds("effective_at[gte]")?));
    let ends = [at(seconds("effective_at[lt]")?), after(seconds("effective_at[lte]")?)];
    let impossible =
        !pairs.list("actor_emails").is_empty() || pairs.parsed("tenant_only", "true or false")?.unwrap_or(false);
    // A type that OpenAI has and imagegate has not matches nothing; so does the id of a person.
    let known = |name: &str| (pairs.list(name), pairs.list(name).iter().filter_map(|word| word.parse().ok()).collect());
    let (events, known_events): (Vec<String>, Vec<AuditEvent>) = known("event_types");
    let actors = pairs.list("actor_ids");
    let known_actors: Vec<_> = actors.iter().filter_map(|id| id.parse().ok()).collect();
    let nothing = impossible
        || (!events.is_empty() && known_events.is_empty())
        || (!actors.is_empty() && known_actors.is_empty());
    let filter = AuditFilter {
        from,
        before: ends.into_iter().flatten().min(),
        projects: pairs.parsed_list("project_ids", "a project's id")?,
        events: known_events,
        actors: known_actors,
        resources: pairs.list("resource_ids"),
    };
    Ok(((!nothing).then_some(filter), cursor, before.is_some()))
}
