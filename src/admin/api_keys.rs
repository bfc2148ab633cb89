//! `/v1/organization/projects/{project_id}/api_keys`: a project's keys; and exchanging any key for a new one.

#![expect(clippy::option_option, reason = "in a patch, absent leaves and null lifts")]

use std::collections::HashMap;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use validator::Validate;

use super::permits::{ScopeText, networks_of, owner_for_admin_keys, read_networks, read_scopes, scopes_of};
use super::projects::given;
use super::shapes::{
    Deletion, LONGEST_LIFE, Paging, RefusalsOfOne, accounts_of, cursor, end_of, id_of, list, not_found,
};
use crate::accounts::{KeyChange, KeyFilter, KeyKind, KeyOrigin, KeyRecord, ServiceAccountRecord};
use crate::api::access::{AdminCaller, action};
use crate::api::errors::invalid_field;
use crate::api::{Services, fixed_body, query};
use crate::domain::{ApiKeyId, ProjectId, ServiceAccountId, Timestamp};
use crate::http::{Code, Problem};

/// A key of a project, without the key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProjectApiKey)]
pub struct ProjectKeyView {
    /// Its id; not the key.
    #[schema(example = "key_019e1951c77871209c8216efcf40ec82")]
    id: String,
    /// Always `organization.project.api_key`.
    #[schema(example = "organization.project.api_key")]
    object: &'static str,
    /// Its name.
    name: String,
    /// How it begins.
    #[schema(example = "sk-ig-1a2b3c...")]
    redacted_value: String,
    /// When it was made, in Unix seconds.
    created_at: i64,
    /// When it ends, in Unix seconds; null if it does not.
    expires_at: Option<i64>,
    /// When it was last used, in Unix seconds, at most a minute late; null if it never was.
    last_used_at: Option<i64>,
    /// What it may do.
    #[schema(value_type = Vec<ScopeText>)]
    scopes: Vec<&'static str>,
    /// The addresses and networks that it may be used from; any when null.
    #[schema(example = json!(["10.0.0.0/8"]))]
    allowed_addresses: Option<Vec<String>>,
    /// Who holds it.
    owner: KeyOwner,
    /// Always `active`: a key of somebody who is gone is gone too.
    #[schema(example = "active")]
    owner_project_access: &'static str,
}

/// Who holds a project's key.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyOwner {
    /// `service_account`, or `user` for a key that the operator made without one.
    #[serde(rename = "type")]
    #[schema(example = "service_account")]
    kind: &'static str,
    /// The service account, if one holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    service_account: Option<KeyHolder>,
    /// The operator, if no service account holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    user: Option<KeyHolder>,
}

/// A service account or the operator, as the holder of a key.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyHolder {
    /// The service account's id, or `operator`.
    id: String,
    /// Its name; for the operator, how the key came to be: `bootstrap`, `setting` or `api`.
    name: String,
    /// Empty for the operator, since imagegate knows no people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    email: Option<&'static str>,
    /// Its role.
    role: String,
    /// When it was made, in Unix seconds.
    created_at: i64,
}

list!(
    /// A page of a project's keys, newest first.
    ProjectApiKeyList of ProjectKeyView
);

impl ProjectKeyView {
    fn of(key: &KeyRecord, holder: Option<&ServiceAccountRecord>, last_used: Option<Timestamp>) -> Self {
        let owner = match holder {
            Some(account) => KeyOwner {
                kind: "service_account",
                service_account: Some(KeyHolder {
                    id: account.id.to_string(),
                    name: account.name.clone(),
                    email: None,
                    role: account.role.to_string(),
                    created_at: account.created_at.seconds(),
                }),
                user: None,
            },
            None => KeyOwner {
                kind: "user",
                service_account: None,
                user: Some(KeyHolder {
                    id: "operator".to_owned(),
                    name: key.origin.to_string(),
                    email: Some(""),
                    role: "owner".to_owned(),
                    created_at: key.created_at.seconds(),
                }),
            },
        };
        Self {
            id: key.id.to_string(),
            object: "organization.project.api_key",
            name: key.name.clone(),
            redacted_value: redacted(key),
            created_at: key.created_at.seconds(),
            expires_at: key.expires_at.map(Timestamp::seconds),
            last_used_at: last_used.map(Timestamp::seconds),
            scopes: scopes_of(key).unwrap_or_default(),
            allowed_addresses: networks_of(key),
            owner,
            owner_project_access: "active",
        }
    }
}

/// How a key is shown: its beginning, as far as it is kept.
pub fn redacted(key: &KeyRecord) -> String {
    format!("{}...", key.prefix)
}

/// List a project's keys
#[utoipa::path(
    get,
    path = "/v1/organization/projects/{project_id}/api_keys",
    operation_id = "listProjectApiKeys",
    tag = "organization",
    params(
        ("project_id" = String, Path, description = "The project's id."),
        Paging,
        ("owner_project_access" = Option<String>, Query, description = "`active`, `inactive` or `any`; none is ever inactive."),
    ),
    responses((status = 200, description = "A page of keys, newest first.", body = ProjectApiKeyList), RefusalsOfOne),
)]
pub async fn list_project_api_keys(
    _: AdminCaller<action::View>,
    request: HttpRequest,
    path: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let project: ProjectId = id_of(&path, "project")?;
    let pairs = query(&request, &["limit", "after", "owner_project_access"])?;
    let cursor = cursor(&pairs, "a key", ApiKeyId::uuid, 100)?;
    services.accounts.project(project).await?.ok_or_else(|| not_found(&path, "project"))?;
    let (keys, has_more) = match pairs.one("owner_project_access")? {
        None | Some("active" | "any") => {
            let filter = KeyFilter { project_id: Some(project), kind: Some(KeyKind::Project), ..KeyFilter::default() };
            let page = services.accounts.keys_page(&filter, cursor).await?;
            (page.items, page.has_more)
        }
        Some("inactive") => (Vec::new(), false),
        Some(_) => return Err(invalid_field("owner_project_access", "must be `active`, `inactive` or `any`")),
    };
    Ok(HttpResponse::Ok().json(ProjectApiKeyList::of(views(&services, &keys).await?, has_more)))
}

async fn views(services: &Services, keys: &[KeyRecord]) -> Result<Vec<ProjectKeyView>, Problem> {
    let ids: Vec<ApiKeyId> = keys.iter().map(|key| key.id).collect();
    let holders: Vec<ServiceAccountId> = keys.iter().filter_map(|key| key.service_account_id).collect();
    let used: HashMap<_, _> = services.accounts.last_used(&ids).await?.into_iter().collect();
    let holders = services.accounts.service_accounts_of(&holders).await?;
    let holders: HashMap<_, _> = holders.iter().map(|account| (account.id, account)).collect();
    let view = |key: &KeyRecord| {
        let holder = key.service_account_id.and_then(|id| holders.get(&id).copied());
        ProjectKeyView::of(key, holder, used.get(&key.id).copied())
    };
    Ok(keys.iter().map(view).collect())
}

/// Retrieve a project's key
#[utoipa::path(
    get,
    path = "/v1/organization/projects/{project_id}/api_keys/{key_id}",
    operation_id = "retrieveProjectApiKey",
    tag = "organization",
    params(
        ("project_id" = String, Path, description = "The project's id."),
        ("key_id" = String, Path, description = "The key's id."),
    ),
    responses((status = 200, description = "The key, without its value.", body = ProjectKeyView), RefusalsOfOne),
)]
pub async fn retrieve_project_api_key(
    _: AdminCaller<action::View>,
    path: web::Path<(String, String)>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let key = services.accounts.key(&one(&path)?).await?;
    Ok(HttpResponse::Ok().json(views(&services, std::slice::from_ref(&key)).await?.first()))
}

/// What is to be different about a project's key.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectApiKeyUpdate {
    /// After how many seconds from now it ends; as before if not given.
    #[validate(range(min = 1, max = LONGEST_LIFE, message = "must be from 1 second to 100 years"))]
    #[schema(minimum = 1)]
    expires_in_seconds: Option<u64>,
    /// What it may do, as `KeyScope` lists it; as before if not given or empty.
    #[schema(example = json!(["images:generate"]))]
    scopes: Option<Vec<String>>,
    /// The addresses and networks that it may be used from; null lets it come from anywhere.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>, min_items = 1, max_items = 100, example = json!(["10.0.0.0/8"]))]
    allowed_addresses: Option<Option<Vec<String>>>,
}

/// Update a project's key
#[utoipa::path(
    post,
    path = "/v1/organization/projects/{project_id}/api_keys/{key_id}",
    operation_id = "updateProjectApiKey",
    tag = "organization",
    params(
        ("project_id" = String, Path, description = "The project's id."),
        ("key_id" = String, Path, description = "The key's id."),
    ),
    request_body = ProjectApiKeyUpdate,
    responses((status = 200, description = "The key as it is now.", body = ProjectKeyView), RefusalsOfOne),
)]
pub async fn update_project_api_key(
    caller: AdminCaller<action::Operate>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let filter = one(&path)?;
    let update: ProjectApiKeyUpdate = fixed_body(&request, &body)?;
    let now = services.clock.now();
    let ends = end_of(update.expires_in_seconds, now);
    let change = KeyChange {
        expires_at: ends.map(Some),
        scopes: read_scopes(update.scopes.as_deref())?,
        allowed_addresses: update
            .allowed_addresses
            .map(|texts| texts.as_deref().map(read_networks).transpose())
            .transpose()?,
        ..KeyChange::default()
    };
    let key = services.accounts.key(&filter).await?;
    if ends.is_some() && key.expires_at.is_some_and(|end| end <= now) {
        return Err(Problem::new(Code::Conflict, "an expired key cannot be changed; make a new one"));
    }
    let key = accounts_of(&request, &caller, &services).update_key(key.id, change).await?;
    Ok(HttpResponse::Ok().json(views(&services, std::slice::from_ref(&key)).await?.first()))
}

/// Delete a project's key
///
/// It stops working within a second on every replica.
#[utoipa::path(
    delete,
    path = "/v1/organization/projects/{project_id}/api_keys/{key_id}",
    operation_id = "deleteProjectApiKey",
    tag = "organization",
    params(
        ("project_id" = String, Path, description = "The project's id."),
        ("key_id" = String, Path, description = "The key's id."),
    ),
    responses((status = 200, description = "It is gone.", body = Deletion), RefusalsOfOne),
)]
pub async fn delete_project_api_key(
    caller: AdminCaller<action::Operate>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let key = services.accounts.key(&one(&path)?).await?;
    refuse_setting(&key, "IMAGEGATE_BOOTSTRAP_KEY")?;
    accounts_of(&request, &caller, &services).revoke_key(key.id).await?;
    Ok(HttpResponse::Ok().json(Deletion::of("organization.project.api_key.deleted", &key.id)))
}

/// A key that a setting gives would come back at the next start: it is ended by changing the setting.
pub fn refuse_setting(key: &KeyRecord, setting: &'static str) -> Result<(), Problem> {
    if key.origin == KeyOrigin::Setting {
        return Err(crate::accounts::AccountsError::GivenBySetting(setting).into());
    }
    Ok(())
}

fn one(path: &(String, String)) -> Result<KeyFilter, Problem> {
    Ok(KeyFilter {
        project_id: Some(id_of(&path.0, "project")?),
        id: Some(id_of(&path.1, "key")?),
        kind: Some(KeyKind::Project),
    })
}

/// How a key is to be exchanged.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRotation {
    /// For how many seconds the old key works beside the new one; a day if not given, 0 ends it at once.
    #[validate(range(max = LONGEST_LIFE, message = "must be at most 100 years"))]
    overlap_seconds: Option<u64>,
    /// After how many seconds the new key ends; never if not given.
    #[validate(range(min = 1, max = LONGEST_LIFE, message = "must be from 1 second to 100 years"))]
    #[schema(minimum = 1)]
    expires_in_seconds: Option<u64>,
}

/// A key that was exchanged.
#[derive(Debug, Serialize, ToSchema)]
pub struct RotatedKey {
    /// The new key's id.
    id: String,
    /// Always `api_key.rotation`.
    #[schema(example = "api_key.rotation")]
    object: &'static str,
    /// The new key itself; shown only this once.
    value: String,
    /// When the new key ends, in Unix seconds; null if it does not.
    expires_at: Option<i64>,
    /// The old key's id.
    replaces: String,
    /// When the old key ends, in Unix seconds.
    replaced_expires_at: i64,
}

/// Rotate a key
///
/// Makes a new key on the same terms and for the same holder; the old one works beside it until its overlap is over. A
/// budget goes on: the new key may spend what the old one has left, and until the overlap is over so may the old one. An
/// admin key is exchanged by an owner only.
#[utoipa::path(
    post,
    path = "/admin/v1/keys/{key_id}/rotate",
    operation_id = "rotateKey",
    tag = "admin",
    params(("key_id" = String, Path, description = "The id of a project's key or of an admin key.")),
    request_body = KeyRotation,
    responses((status = 200, description = "The new key.", body = RotatedKey), RefusalsOfOne),
)]
pub async fn rotate_key(
    caller: AdminCaller<action::Operate>,
    request: HttpRequest,
    path: web::Path<String>,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    const DAY: u64 = 24 * 3600;
    let id = id_of(&path, "key")?;
    let rotation: KeyRotation = fixed_body(&request, &body)?;
    let now = services.clock.now();
    let overlap = end_of(Some(rotation.overlap_seconds.unwrap_or(DAY)), now).unwrap_or(now);
    let ends = end_of(rotation.expires_in_seconds, now);
    let key = services.accounts.key(&KeyFilter { id: Some(id), ..KeyFilter::default() }).await?;
    owner_for_admin_keys(&caller, &key)?;
    let rotated = accounts_of(&request, &caller, &services).rotate_key(id, overlap, ends).await?;
    Ok(HttpResponse::Ok().json(RotatedKey {
        id: rotated.new.id.to_string(),
        object: "api_key.rotation",
        value: rotated.secret.expose().to_owned(),
        expires_at: rotated.new.expires_at.map(Timestamp::seconds),
        replaces: rotated.old.id.to_string(),
        replaced_expires_at: rotated.old.expires_at.unwrap_or(now).seconds(),
    }))
}
