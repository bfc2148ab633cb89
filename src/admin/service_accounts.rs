//! `/v1/organization/projects/{project_id}/service_accounts`: who holds keys of a project.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use validator::Validate;

use super::permits::{ScopeText, networks_of, read_networks, read_scopes, scopes_of};
use super::shapes::{
    Deletion, LONGEST_LIFE, Paging, RefusalsOfOne, accounts_of, cursor, end_of, id_of, list, not_found,
};
use crate::accounts::{
    KeyRecord, Secret, ServiceAccountChange, ServiceAccountRecord, ServiceAccountRole, ServiceKeyTerms,
};
use crate::api::access::{AdminCaller, action};
use crate::api::errors::invalid_field;
use crate::api::{Services, fixed_body, query};
use crate::domain::{ProjectId, ServiceAccountId, Timestamp};
use crate::http::Problem;

/// A service account.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServiceAccount)]
pub struct ServiceAccountView {
    /// Its id.
    #[schema(example = "svc_acct_019e1951c77871209c8216efcf40ec82")]
    id: String,
    /// Always `organization.project.service_account`.
    #[schema(example = "organization.project.service_account")]
    object: &'static str,
    /// Its name.
    name: String,
    /// `owner`, `member` or `none`; all may do the same here.
    #[schema(value_type = String, example = "member")]
    role: ServiceAccountRole,
    /// When it was made, in Unix seconds.
    created_at: i64,
}

impl ServiceAccountView {
    fn of(account: &ServiceAccountRecord) -> Self {
        Self {
            id: account.id.to_string(),
            object: "organization.project.service_account",
            name: account.name.clone(),
            role: account.role,
            created_at: account.created_at.seconds(),
        }
    }
}

list!(
    /// A page of service accounts, newest first.
    ServiceAccountList of ServiceAccountView
);

/// A new service account with its key.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedServiceAccount {
    #[serde(flatten)]
    #[schema(inline)]
    account: ServiceAccountView,
    /// Its key; null if it was made without one.
    api_key: Option<CreatedServiceAccountKey>,
}

/// A new key of a service account. Its value is shown only this once.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedServiceAccountKey {
    /// Its id; not the key.
    id: String,
    /// Always `organization.project.service_account.api_key`.
    #[schema(example = "organization.project.service_account.api_key")]
    object: &'static str,
    /// Its name.
    name: String,
    /// The key itself.
    value: String,
    /// When it was made, in Unix seconds.
    created_at: i64,
    /// When it ends, in Unix seconds; null if it does not.
    expires_at: Option<i64>,
    /// What it may do.
    #[schema(value_type = Vec<ScopeText>)]
    scopes: Vec<&'static str>,
    /// The addresses and networks that it may be used from; any when null.
    allowed_addresses: Option<Vec<String>>,
}

impl CreatedServiceAccountKey {
    fn of(key: &KeyRecord, secret: &Secret) -> Self {
        Self {
            id: key.id.to_string(),
            object: "organization.project.service_account.api_key",
            name: key.name.clone(),
            value: secret.expose().to_owned(),
            created_at: key.created_at.seconds(),
            expires_at: key.expires_at.map(Timestamp::seconds),
            scopes: scopes_of(key).unwrap_or_default(),
            allowed_addresses: networks_of(key),
        }
    }
}

/// A service account to be made.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewServiceAccount {
    /// What to call it.
    #[validate(length(min = 1, max = 200, message = "must have 1 to 200 characters"))]
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// Makes it without a role and without a key.
    create_service_account_only: Option<bool>,
    /// After how many seconds its key ends; never if not given.
    #[validate(range(min = 1, max = LONGEST_LIFE, message = "must be from 1 second to 100 years"))]
    #[schema(minimum = 1)]
    expires_in_seconds: Option<u64>,
    /// What its key may do; everything but the webhook secret if not given.
    #[schema(value_type = Option<Vec<ScopeText>>, nullable = false, min_items = 1)]
    scopes: Option<Vec<String>>,
    /// The addresses and networks that its key may be used from; any if not given.
    #[schema(nullable = false, min_items = 1, max_items = 100, example = json!(["10.0.0.0/8"]))]
    allowed_addresses: Option<Vec<String>>,
}

/// What is to be different about a service account.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccountUpdate {
    /// What to call it.
    #[validate(length(min = 1, max = 200, message = "must have 1 to 200 characters"))]
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// `member` or `owner`.
    role: Option<String>,
}

/// A key to be made for a service account.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewServiceAccountKey {
    /// What to call it; `Secret Key` if not given.
    #[validate(length(min = 1, max = 200, message = "must have 1 to 200 characters"))]
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// After how many seconds it ends; never if not given.
    #[validate(range(min = 1, max = LONGEST_LIFE, message = "must be from 1 second to 100 years"))]
    #[schema(minimum = 1)]
    expires_in_seconds: Option<u64>,
    /// What it may do, as `KeyScope` lists it; everything but the webhook secret if not given or empty.
    #[schema(example = json!(["images:generate"]))]
    scopes: Option<Vec<String>>,
    /// The addresses and networks that it may be used from; any if not given.
    #[schema(nullable = false, min_items = 1, max_items = 100, example = json!(["10.0.0.0/8"]))]
    allowed_addresses: Option<Vec<String>>,
}

/// Create a service account
///
/// With a key, whose value is shown only this once.
#[utoipa::path(
    post,
    path = "/v1/organization/projects/{project_id}/service_accounts",
    operation_id = "createServiceAccount",
    tag = "organization",
    params(("project_id" = String, Path, description = "The project's id.")),
    request_body = NewServiceAccount,
    responses((status = 200, description = "The service account with its key.", body = CreatedServiceAccount), RefusalsOfOne),
)]
pub async fn create_service_account(
    caller: AdminCaller<action::Operate>,
    request: HttpRequest,
    path: web::Path<String>,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let project = id_of(&path, "project")?;
    let new: NewServiceAccount = fixed_body(&request, &body)?;
    let with_key = !new.create_service_account_only.unwrap_or(false);
    for (field, is_given) in [
        ("expires_in_seconds", new.expires_in_seconds.is_some()),
        ("scopes", new.scopes.is_some()),
        ("allowed_addresses", new.allowed_addresses.is_some()),
    ] {
        if !with_key && is_given {
            return Err(invalid_field(field, "cannot be given with `create_service_account_only`"));
        }
    }
    let terms = terms(&services, new.expires_in_seconds, new.scopes.as_deref(), new.allowed_addresses.as_deref())?;
    let accounts = accounts_of(&request, &caller, &services);
    let (account, key) = accounts.create_service_account(project, &new.name, with_key.then_some(terms)).await?;
    let api_key = key.as_ref().map(|(key, secret)| CreatedServiceAccountKey::of(key, secret));
    Ok(HttpResponse::Ok().json(CreatedServiceAccount { account: ServiceAccountView::of(&account), api_key }))
}

/// List service accounts
#[utoipa::path(
    get,
    path = "/v1/organization/projects/{project_id}/service_accounts",
    operation_id = "listServiceAccounts",
    tag = "organization",
    params(
        ("project_id" = String, Path, description = "The project's id."),
        Paging,
    ),
    responses((status = 200, description = "A page of service accounts, newest first.", body = ServiceAccountList), RefusalsOfOne),
)]
pub async fn list_service_accounts(
    _: AdminCaller<action::View>,
    request: HttpRequest,
    path: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let project: ProjectId = id_of(&path, "project")?;
    let pairs = query(&request, &["limit", "after"])?;
    let cursor = cursor(&pairs, "a service account", ServiceAccountId::uuid, 100)?;
    services.accounts.project(project).await?.ok_or_else(|| not_found(&path, "project"))?;
    let page = services.accounts.list_service_accounts(project, cursor).await?;
    let views = page.items.iter().map(ServiceAccountView::of).collect();
    Ok(HttpResponse::Ok().json(ServiceAccountList::of(views, page.has_more)))
}

/// Retrieve a service account
#[utoipa::path(
    get,
    path = "/v1/organization/projects/{project_id}/service_accounts/{service_account_id}",
    operation_id = "retrieveServiceAccount",
    tag = "organization",
    params(
        ("project_id" = String, Path, description = "The project's id."),
        ("service_account_id" = String, Path, description = "The service account's id."),
    ),
    responses((status = 200, description = "The service account.", body = ServiceAccountView), RefusalsOfOne),
)]
pub async fn retrieve_service_account(
    _: AdminCaller<action::View>,
    path: web::Path<(String, String)>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let (project, id) = ids(&path)?;
    let account = services.accounts.service_account(project, id).await?;
    Ok(HttpResponse::Ok().json(ServiceAccountView::of(&account)))
}

/// Update a service account
#[utoipa::path(
    post,
    path = "/v1/organization/projects/{project_id}/service_accounts/{service_account_id}",
    operation_id = "updateServiceAccount",
    tag = "organization",
    params(
        ("project_id" = String, Path, description = "The project's id."),
        ("service_account_id" = String, Path, description = "The service account's id."),
    ),
    request_body = ServiceAccountUpdate,
    responses((status = 200, description = "The service account as it is now.", body = ServiceAccountView), RefusalsOfOne),
)]
pub async fn update_service_account(
    caller: AdminCaller<action::Operate>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let (project, id) = ids(&path)?;
    let update: ServiceAccountUpdate = fixed_body(&request, &body)?;
    let role = match update.role.as_deref() {
        None => None,
        Some("member") => Some(ServiceAccountRole::Member),
        Some("owner") => Some(ServiceAccountRole::Owner),
        Some(_) => return Err(invalid_field("role", "must be `member` or `owner`")),
    };
    let change = ServiceAccountChange { name: update.name, role };
    let account = accounts_of(&request, &caller, &services).update_service_account(project, id, change).await?;
    Ok(HttpResponse::Ok().json(ServiceAccountView::of(&account)))
}

/// Delete a service account
///
/// Its keys stop working within a second on every replica.
#[utoipa::path(
    delete,
    path = "/v1/organization/projects/{project_id}/service_accounts/{service_account_id}",
    operation_id = "deleteServiceAccount",
    tag = "organization",
    params(
        ("project_id" = String, Path, description = "The project's id."),
        ("service_account_id" = String, Path, description = "The service account's id."),
    ),
    responses((status = 200, description = "It is gone.", body = Deletion), RefusalsOfOne),
)]
pub async fn delete_service_account(
    caller: AdminCaller<action::Operate>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let (project, id) = ids(&path)?;
    accounts_of(&request, &caller, &services).delete_service_account(project, id).await?;
    Ok(HttpResponse::Ok().json(Deletion::of("organization.project.service_account.deleted", &id)))
}

/// Create a key of a service account
///
/// Its value is shown only this once.
#[utoipa::path(
    post,
    path = "/v1/organization/projects/{project_id}/service_accounts/{service_account_id}/api_keys",
    operation_id = "createServiceAccountApiKey",
    tag = "organization",
    params(
        ("project_id" = String, Path, description = "The project's id."),
        ("service_account_id" = String, Path, description = "The service account's id."),
    ),
    request_body = NewServiceAccountKey,
    responses((status = 200, description = "The new key.", body = CreatedServiceAccountKey), RefusalsOfOne),
)]
pub async fn create_service_account_api_key(
    caller: AdminCaller<action::Operate>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let (project, id) = ids(&path)?;
    let new: NewServiceAccountKey = fixed_body(&request, &body)?;
    let terms = terms(&services, new.expires_in_seconds, new.scopes.as_deref(), new.allowed_addresses.as_deref())?;
    let name = new.name.as_deref().unwrap_or("Secret Key");
    let accounts = accounts_of(&request, &caller, &services);
    let (key, secret) = accounts.create_service_account_key(project, id, name, terms).await?;
    Ok(HttpResponse::Ok().json(CreatedServiceAccountKey::of(&key, &secret)))
}

fn terms(
    services: &Services,
    expires_in_seconds: Option<u64>,
    scopes: Option<&[String]>,
    addresses: Option<&[String]>,
) -> Result<ServiceKeyTerms, Problem> {
    Ok(ServiceKeyTerms {
        expires_at: end_of(expires_in_seconds, services.clock.now()),
        scopes: read_scopes(scopes)?,
        allowed_addresses: addresses.map(read_networks).transpose()?,
    })
}

fn ids(path: &(String, String)) -> Result<(ProjectId, ServiceAccountId), Problem> {
    Ok((id_of(&path.0, "project")?, id_of(&path.1, "service account")?))
}
