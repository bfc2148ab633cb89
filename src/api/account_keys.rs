//! `GET /v1/keys`: the keys of a project without their values, in AIML's shape.

use std::collections::HashMap;

use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::Services;
use super::access::{ProjectCaller, scope};
use super::account::AccountKeyLimit;
use super::generations::project_of;
use crate::accounts::{Accounts, AuditFilter, Cursor, KeyFilter, KeyRecord, Scope};
use crate::domain::{ApiKeyId, Money, ProjectId, Timestamp};
use crate::http::{Problem, ProblemBody};
use crate::ledger::{Books, BucketWidth, UsageDimension, UsageFilter, UsageQuery};

/// How many rows are read at once.
const PAGE: u32 = 1000;

/// The keys of a project.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountKeyList {
    /// Oldest first.
    data: Vec<AccountKeyItem>,
}

/// A key, without its value.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountKeyItem {
    /// What its maker called it.
    name: String,
    /// How it begins, as far as that is kept.
    #[schema(example = "sk-ig-1a2b3c")]
    prefix: String,
    /// Whether it has ended. Revoked keys are not listed.
    disabled: bool,
    /// In AIML's words: `model:image` where it may make images.
    #[schema(example = json!(["model:image"]))]
    scopes: &'static [&'static str],
    /// The key's scopes here.
    #[schema(example = json!(["images:generate", "images:read"]))]
    permissions: Vec<&'static str>,
    /// Its budget; null without one.
    limit: Option<AccountKeyLimit>,
    /// When it was made, as RFC 3339.
    created_at: String,
    /// When it was last changed, as RFC 3339.
    updated_at: String,
    /// When it ends, as RFC 3339; null if it does not.
    expires_at: Option<String>,
    /// What it was charged this month (UTC), less refunds, in US dollars; only near.
    #[schema(example = 0.035)]
    monthly_usage: f64,
    /// The same with nine places.
    #[schema(example = "0.035000000")]
    monthly_usage_usd: String,
}

/// List the project's keys
///
/// Those of the project of the key that asks, oldest first, without their values. Keys are made and changed by operators:
/// `/v1/organization/projects/{project_id}/api_keys`.
#[utoipa::path(
    get,
    path = "/v1/keys",
    operation_id = "listProjectKeys",
    tag = "billing",
    responses(
        (status = 200, description = "The keys.", body = AccountKeyList),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn list_project_keys(
    caller: ProjectCaller<scope::ReadUsage>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let project = project_of(&caller)?;
    let now = services.clock.now();
    let keys = keys_of(&services.accounts, project).await?;
    let changes = changes_of(&services.accounts, &keys).await?;
    let spent = spent_by_key(services.gateway.books(), project, now).await?;
    let view = |key: KeyRecord| {
        let charged = spent.get(&key.id).copied().unwrap_or_default();
        AccountKeyItem {
            disabled: key.expires_at.is_some_and(|end| end <= now),
            scopes: if key.scopes.contains(Scope::ImagesGenerate) { &["model:image"] } else { &[] },
            permissions: key.scopes.iter().map(Scope::name).collect(),
            limit: key.budget.map(AccountKeyLimit::new),
            created_at: key.created_at.rfc3339(),
            updated_at: changes.get(&key.id.to_string()).copied().unwrap_or(key.created_at).rfc3339(),
            expires_at: key.expires_at.map(Timestamp::rfc3339),
            monthly_usage: charged.approximate_usd(),
            monthly_usage_usd: charged.to_string(),
            prefix: key.prefix,
            name: key.name,
        }
    };
    Ok(HttpResponse::Ok().json(AccountKeyList { data: keys.into_iter().map(view).collect() }))
}

/// All keys of a project that are not revoked.
async fn keys_of(accounts: &Accounts, project: ProjectId) -> Result<Vec<KeyRecord>, Problem> {
    let filter = KeyFilter { project_id: Some(project), ..KeyFilter::default() };
    let (mut keys, mut after) = (Vec::new(), None);
    loop {
        let page = accounts.keys_page(&filter, Cursor { after, oldest_first: true, limit: PAGE }).await?;
        keys.extend(page.items);
        match keys.last() {
            Some(last) if page.has_more => after = Some(last.id.uuid()),
            _ => return Ok(keys),
        }
    }
}

/// When each key was last changed, by its id as the audit log has it.
async fn changes_of(accounts: &Accounts, keys: &[KeyRecord]) -> Result<HashMap<String, Timestamp>, Problem> {
    let mut changes: HashMap<String, Timestamp> = HashMap::with_capacity(keys.len());
    for keys in keys.chunks(PAGE as usize) {
        let filter =
            AuditFilter { resources: keys.iter().map(|key| key.id.to_string()).collect(), ..AuditFilter::default() };
        let mut after = None;
        loop {
            let page = accounts.audit_logs(&filter, Cursor { after, oldest_first: false, limit: PAGE }).await?;
            after = page.items.last().map(|entry| entry.id.uuid());
            for entry in page.items {
                // Newest first: the first one of a key is its last change.
                changes.entry(entry.resource_id).or_insert(entry.at);
            }
            if !page.has_more || keys.iter().all(|key| changes.contains_key(&key.id.to_string())) {
                break;
            }
        }
    }
    Ok(changes)
}

/// What each key of a project was charged this month, less refunds.
async fn spent_by_key(books: &Books, project: ProjectId, now: Timestamp) -> Result<HashMap<ApiKeyId, Money>, Problem> {
    let question = UsageQuery {
        from: Books::month_of(now),
        before: now,
        bucket: BucketWidth::Day,
        group_by: vec![UsageDimension::Key],
        filter: UsageFilter { projects: vec![project], ..UsageFilter::default() },
        limit: 200,
        page: None,
    };
    let mut sums: HashMap<ApiKeyId, Money> = HashMap::new();
    for row in books.costs(&question).await?.buckets.into_iter().flat_map(|bucket| bucket.rows) {
        let Some(key) = row.api_key_id else { continue };
        let sum = sums.entry(key).or_default();
        *sum = [*sum, row.price].into_iter().sum();
    }
    Ok(sums)
}
