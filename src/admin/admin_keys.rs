//! `/v1/organization/admin_api_keys`: the keys that administer.

use std::collections::HashMap;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use validator::Validate;

use super::api_keys::{redacted, refuse_setting};
use super::permits::{RoleText, networks_of, read_networks, read_role};
use super::shapes::{
    Deletion, LONGEST_LIFE, Paging, Refusals, RefusalsOfOne, accounts_of, cursor, end_of, id_of, list,
};
use crate::accounts::{CallerKind, KeyFilter, KeyKind, KeyRecord, NewKey};
use crate::api::access::{AdminCaller, action};
use crate::api::{Services, fixed_body, query};
use crate::domain::{ApiKeyId, Timestamp};
use crate::http::Problem;

/// An admin key, without the key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminApiKey)]
pub struct AdminKeyView {
    /// Its id; not the key.
    #[schema(example = "key_019e1951c77871209c8216efcf40ec82")]
    id: String,
    /// Always `organization.admin_api_key`.
    #[schema(example = "organization.admin_api_key")]
    object: &'static str,
    /// Its name.
    name: String,
    /// How it begins.
    #[schema(example = "sk-ig-admin-1a2b3c...")]
    redacted_value: String,
    /// When it was made, in Unix seconds.
    created_at: i64,
    /// When it ends, in Unix seconds; null if it does not.
    expires_at: Option<i64>,
    /// When it was last used, in Unix seconds, at most a minute late; null if it never was.
    last_used_at: Option<i64>,
    /// The addresses and networks that it may be used from; any when null.
    #[schema(example = json!(["10.0.0.0/8"]))]
    allowed_addresses: Option<Vec<String>>,
    /// Who holds it.
    owner: AdminKeyOwner,
}

/// Who holds an admin key: the operator, since imagegate knows no people.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminKeyOwner {
    /// Always `operator`.
    #[schema(example = "operator")]
    id: &'static str,
    /// Always `organization.user`.
    #[schema(example = "organization.user")]
    object: &'static str,
    /// Always `user`.
    #[serde(rename = "type")]
    #[schema(example = "user")]
    kind: &'static str,
    /// How the key came to be: `bootstrap`, `setting` or `api`.
    name: String,
    /// What the key is trusted with.
    #[schema(value_type = RoleText, example = "owner")]
    role: &'static str,
    /// When the key was made, in Unix seconds.
    created_at: i64,
}

impl AdminKeyView {
    fn of(key: &KeyRecord, last_used: Option<Timestamp>) -> Self {
        Self {
            id: key.id.to_string(),
            object: "organization.admin_api_key",
            name: key.name.clone(),
            redacted_value: redacted(key),
            created_at: key.created_at.seconds(),
            expires_at: key.expires_at.map(Timestamp::seconds),
            last_used_at: last_used.map(Timestamp::seconds),
            allowed_addresses: networks_of(key),
            owner: AdminKeyOwner {
                id: "operator",
                object: "organization.user",
                kind: "user",
                name: key.origin.to_string(),
                role: key.role.name(),
                created_at: key.created_at.seconds(),
            },
        }
    }
}

list!(
    /// A page of admin keys.
    AdminApiKeyList of AdminKeyView
);

/// A new admin key. Its value is shown only this once.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedAdminApiKey {
    #[serde(flatten)]
    #[schema(inline)]
    key: AdminKeyView,
    /// The key itself.
    value: String,
}

/// An admin key to be made.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAdminApiKey {
    /// What to call it.
    #[validate(length(min = 1, max = 200, message = "must have 1 to 200 characters"))]
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// After how many seconds it ends; never if not given.
    #[validate(range(min = 1, max = LONGEST_LIFE, message = "must be from 1 second to 100 years"))]
    #[schema(minimum = 1)]
    expires_in_seconds: Option<u64>,
    /// What it is trusted with; `owner` if not given.
    #[schema(value_type = Option<RoleText>, nullable = false)]
    role: Option<String>,
    /// The addresses and networks that it may be used from; any if not given.
    #[schema(nullable = false, min_items = 1, max_items = 100, example = json!(["10.0.0.0/8"]))]
    allowed_addresses: Option<Vec<String>>,
}

/// Create an admin key
///
/// Its value is shown only this once.
#[utoipa::path(
    post,
    path = "/v1/organization/admin_api_keys",
    operation_id = "createAdminApiKey",
    tag = "organization",
    request_body = NewAdminApiKey,
    responses((status = 200, description = "The new key.", body = CreatedAdminApiKey), Refusals),
)]
pub async fn create_admin_api_key(
    caller: AdminCaller<action::Own>,
    request: HttpRequest,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let new: NewAdminApiKey = fixed_body(&request, &body)?;
    let new = NewKey {
        expires_at: end_of(new.expires_in_seconds, services.clock.now()),
        role: read_role(new.role.as_deref())?,
        allowed_addresses: new.allowed_addresses.as_deref().map(read_networks).transpose()?,
        ..NewKey::new(CallerKind::Admin, new.name)
    };
    let (key, secret) = accounts_of(&request, &caller, &services).create_key(new).await?;
    let body = CreatedAdminApiKey { key: AdminKeyView::of(&key, None), value: secret.expose().to_owned() };
    Ok(HttpResponse::Ok().json(body))
}

/// List admin keys
#[utoipa::path(
    get,
    path = "/v1/organization/admin_api_keys",
    operation_id = "listAdminApiKeys",
    tag = "organization",
    params(
        Paging,
        ("order" = Option<String>, Query, description = "`desc`, newest first, if not given; or `asc`."),
    ),
    responses((status = 200, description = "A page of admin keys.", body = AdminApiKeyList), Refusals),
)]
pub async fn list_admin_api_keys(
    _: AdminCaller<action::View>,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let pairs = query(&request, &["limit", "after", "order"])?;
    let cursor = cursor(&pairs, "a key", ApiKeyId::uuid, 100)?;
    let filter = KeyFilter { kind: Some(KeyKind::Admin), ..KeyFilter::default() };
    let page = services.accounts.keys_page(&filter, cursor).await?;
    Ok(HttpResponse::Ok().json(AdminApiKeyList::of(views(&services, &page.items).await?, page.has_more)))
}

/// Retrieve an admin key
#[utoipa::path(
    get,
    path = "/v1/organization/admin_api_keys/{key_id}",
    operation_id = "retrieveAdminApiKey",
    tag = "organization",
    params(("key_id" = String, Path, description = "The key's id.")),
    responses((status = 200, description = "The key, without its value.", body = AdminKeyView), RefusalsOfOne),
)]
pub async fn retrieve_admin_api_key(
    _: AdminCaller<action::View>,
    path: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let key = services.accounts.key(&one(&path)?).await?;
    Ok(HttpResponse::Ok().json(views(&services, std::slice::from_ref(&key)).await?.first()))
}

async fn views(services: &Services, keys: &[KeyRecord]) -> Result<Vec<AdminKeyView>, Problem> {
    let ids: Vec<ApiKeyId> = keys.iter().map(|key| key.id).collect();
    let used: HashMap<_, _> = services.accounts.last_used(&ids).await?.into_iter().collect();
    Ok(keys.iter().map(|key| AdminKeyView::of(key, used.get(&key.id).copied())).collect())
}

/// Delete an admin key
///
/// It stops working within a second on every replica. The last one with the role `owner` stays.
#[utoipa::path(
    delete,
    path = "/v1/organization/admin_api_keys/{key_id}",
    operation_id = "deleteAdminApiKey",
    tag = "organization",
    params(("key_id" = String, Path, description = "The key's id.")),
    responses((status = 200, description = "It is gone.", body = Deletion), RefusalsOfOne),
)]
pub async fn delete_admin_api_key(
    caller: AdminCaller<action::Own>,
    request: HttpRequest,
    path: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let key = services.accounts.key(&one(&path)?).await?;
    refuse_setting(&key, "IMAGEGATE_ADMIN_KEY")?;
    accounts_of(&request, &caller, &services).revoke_key(key.id).await?;
    Ok(HttpResponse::Ok().json(Deletion::of("organization.admin_api_key.deleted", &key.id)))
}

fn one(path: &str) -> Result<KeyFilter, Problem> {
    Ok(KeyFilter { id: Some(id_of(path, "admin key")?), kind: Some(KeyKind::Admin), project_id: None })
}
