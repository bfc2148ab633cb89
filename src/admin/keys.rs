//! `PATCH /admin/v1/keys/{id}`: a key's budget, expiry, models, scopes, role and addresses.

#![expect(clippy::option_option, reason = "in a patch, absent leaves and null lifts")]

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use validator::Validate;

use super::permits::{
    AdaptText, RoleText, ScopeText, networks_of, owner_for_admin_keys, read_adapt, read_networks, read_role,
    read_scopes, scopes_of,
};
use super::projects::{given, listed_models};
use super::shapes::{accounts_of, id_of};
use crate::accounts::{Adapt, AdminAction, KeyChange, KeyKind, KeyRecord};
use crate::api::access::{AdminCaller, action};
use crate::api::errors::invalid_field;
use crate::api::{Services, Whole, fixed_body};
use crate::domain::{ApiKeyId, Money, Network, Timestamp};
use crate::http::{Code, Problem, ProblemBody};

/// The last moment that a key may expire at: the year 9999.
const LAST_MOMENT: i64 = 253_402_300_799;

/// What is to be different about a key. What is absent stays; null lifts.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyPatch {
    /// What to call it.
    #[validate(length(min = 1, max = 200, message = "has 1 to 200 characters"))]
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// The most it may spend in its whole life, in US dollars as a decimal string.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, pattern = "^([0-9]{1,9}|[0-8][0-9]{9})(\\.[0-9]{1,9})?$", example = "10.00")]
    budget_usd: Option<Option<Money>>,
    /// From when on it is no longer taken, in Unix seconds.
    #[serde(default, deserialize_with = "Whole::given")]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 253_402_300_799_i64)]
    expires_at: Option<Option<i64>>,
    /// The models it may use, by our ids or by the operator's aliases.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>)]
    allowed_models: Option<Option<Vec<String>>>,
    /// For an admin key: the project that it may also make images for, at that project's expense.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    generates_for_project_id: Option<Option<String>>,
    /// For a project key: what it may do.
    #[validate(length(min = 1, message = "names at least one scope"))]
    #[schema(value_type = Option<Vec<ScopeText>>, min_items = 1)]
    scopes: Option<Vec<String>>,
    /// For an admin key: what it is trusted with.
    #[schema(value_type = Option<RoleText>)]
    role: Option<String>,
    /// The addresses and networks that it may be used from; null lets it come from anywhere.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<Network>>, min_items = 1, max_items = 100, example = json!(["10.0.0.0/8"]))]
    allowed_addresses: Option<Option<Vec<String>>>,
    /// What may be changed of its requests so that they fit a model; an empty list changes nothing, null leaves it to the
    /// project.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<AdaptText>>, example = json!(["size"]))]
    adapt: Option<Option<Vec<String>>>,
    /// Whether a request joins an equal one of this key whose client went away in the last two minutes, also if it does not say that
    /// it is sent again; null leaves it to the project.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<bool>)]
    join_retries: Option<Option<bool>>,
}

/// A key, without its value.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Key)]
pub struct KeyView {
    /// Its id.
    id: String,
    /// Always `organization.api_key`.
    #[schema(example = "organization.api_key")]
    object: &'static str,
    /// `project` or `admin`.
    kind: &'static str,
    /// Its project.
    project_id: Option<String>,
    /// What its maker called it.
    name: String,
    /// How it begins.
    redacted_value: String,
    /// When it was made, in Unix seconds.
    created_at: i64,
    /// From when on it is no longer taken, in Unix seconds.
    expires_at: Option<i64>,
    /// Since when it is no longer taken, in Unix seconds.
    revoked_at: Option<i64>,
    /// The most it may spend, in US dollars.
    budget_usd: Option<String>,
    /// What it has spent, less refunds, in US dollars.
    spent_usd: String,
    /// The models it may use; every model when null.
    allowed_models: Option<Vec<String>>,
    /// The project that an admin key may also make images for; null as a rule.
    generates_for_project_id: Option<String>,
    /// What a project key may do; null for an admin key.
    #[schema(value_type = Option<Vec<ScopeText>>)]
    scopes: Option<Vec<&'static str>>,
    /// What an admin key is trusted with; null for a project key.
    #[schema(value_type = Option<RoleText>)]
    role: Option<&'static str>,
    /// The addresses and networks that it may be used from; any when null.
    allowed_addresses: Option<Vec<String>>,
    /// What may be changed of its requests so that they fit a model; as its project if null.
    #[schema(value_type = Option<Vec<AdaptText>>)]
    adapt: Option<Vec<&'static str>>,
    /// Whether a request joins an equal one whose client went away; as its project if null.
    join_retries: Option<bool>,
    /// When it was last used, in Unix seconds, at most a minute late; null if it never was.
    last_used_at: Option<i64>,
}

/// Change a key
///
/// What is absent stays as it is; null lifts. Known to every replica within a second, the budget at once. An admin key is
/// changed by an owner only.
#[utoipa::path(
    patch,
    path = "/admin/v1/keys/{id}",
    operation_id = "updateKey",
    tag = "admin",
    params(("id" = String, Path, description = "The key's id; not its value.")),
    request_body(content = KeyPatch, content_type = "application/json"),
    responses(
        (status = 200, description = "The key as it is now.", body = KeyView),
        (status = 400, description = "The body is wrong.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "A project key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "It is the last admin key with the role `owner`.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The books are away.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn update_key(
    caller: AdminCaller<action::Operate>,
    request: HttpRequest,
    id: web::Path<String>,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let patch: KeyPatch = fixed_body(&request, &body)?;
    let id: ApiKeyId =
        id.parse().map_err(|_| Problem::new(Code::NotFound, format!("there is no key `{id}`")).param("id"))?;
    let before = services.accounts.list_keys(None).await?.into_iter().find(|key| key.id == id);
    let mut allowed_models = patch.allowed_models;
    if let (Some(Some(models)), Some(key)) = (&mut allowed_models, &before) {
        listed_models(&services, key.project_id.or(key.generates_for), models, "allowed_models")?;
    }
    if patch.expires_at.flatten().is_some_and(|moment| !(0..=LAST_MOMENT).contains(&moment)) {
        return Err(invalid_field("expires_at", "must be a time in Unix seconds before the year 10000"));
    }
    let change = KeyChange {
        name: patch.name,
        expires_at: patch.expires_at.map(|moment| moment.map(Timestamp::from_seconds)),
        budget: patch.budget_usd,
        allowed_models,
        generates_for: patch
            .generates_for_project_id
            .map(|project| project.map(|project| id_of(&project, "project")).transpose())
            .transpose()?,
        scopes: read_scopes(patch.scopes.as_deref())?,
        role: read_role(patch.role.as_deref())?,
        allowed_addresses: patch
            .allowed_addresses
            .map(|texts| texts.as_deref().map(read_networks).transpose())
            .transpose()?,
        adapt: read_adapt(patch.adapt)?,
        join_retries: patch.join_retries,
    };
    if let Some(before) = before {
        owner_for_admin_keys(&caller, &before)?;
        if change.budget.is_some_and(|budget| budget != before.budget) {
            caller.may_change(AdminAction::Bill, "budget_usd")?;
        }
    }
    let key = accounts_of(&request, &caller, &services).update_key(id, change).await?;
    let used = services.accounts.last_used(&[id]).await?.first().map(|(_, at)| *at);
    Ok(HttpResponse::Ok().json(view(key, used)))
}

fn view(key: KeyRecord, last_used: Option<Timestamp>) -> KeyView {
    KeyView {
        scopes: scopes_of(&key),
        role: (key.kind == KeyKind::Admin).then(|| key.role.name()),
        allowed_addresses: networks_of(&key),
        last_used_at: last_used.map(Timestamp::seconds),
        id: key.id.to_string(),
        object: "organization.api_key",
        kind: key.kind.as_str(),
        project_id: key.project_id.map(|id| id.to_string()),
        name: key.name,
        redacted_value: format!("{}…", key.prefix),
        created_at: key.created_at.seconds(),
        expires_at: key.expires_at.map(Timestamp::seconds),
        revoked_at: key.revoked_at.map(Timestamp::seconds),
        budget_usd: key.budget.map(|budget| budget.to_string()),
        spent_usd: key.spent.to_string(),
        allowed_models: key.allowed_models,
        adapt: key.adapt.map(Adapt::names),
        join_retries: key.join_retries,
        generates_for_project_id: key.generates_for.map(|id| id.to_string()),
    }
}
