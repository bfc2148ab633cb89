//! `/admin/v1/model_aliases`: the operator's own names for models, for all projects or for one, with values of their own.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use validator::Validate;

use super::projects::find;
use super::shapes::{Deletion, RefusalsOfOne, accounts_of, list, not_blank};
use crate::accounts::{AdminAction, Alias, AliasRecord};
use crate::api::access::{AdminCaller, action};
use crate::api::errors::invalid_field;
use crate::api::{Services, fixed_body, query};
use crate::catalogue::AliasError;
use crate::domain::{ProjectId, Timestamp};
use crate::http::{Code, Problem};

/// A name that the operator gives to a model.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelAliasBody {
    /// What clients ask for, in any letter case; it counts before a model of the same id or alias.
    #[schema(pattern = "^[A-Za-z0-9._:-]([A-Za-z0-9._:/-]{0,98}[A-Za-z0-9._:-])?$", example = "dall-e-3")]
    id: String,
    /// The model that it stands for, by our id or an alias of the catalogue; never another alias of the operator's.
    #[schema(example = "flux/dev")]
    target: String,
    /// The project whose alias it is, or `default`; every project's if not given.
    project_id: Option<String>,
    /// What `GET /v1/models` calls it; as the model if not given.
    #[validate(length(min = 1, max = 200, message = "has 1 to 200 characters"), custom(function = "not_blank"))]
    #[schema(min_length = 1, max_length = 200, example = "House style")]
    name: Option<String>,
    /// A sentence about it; as the model if not given.
    #[validate(length(min = 1, max = 200, message = "has 1 to 200 characters"), custom(function = "not_blank"))]
    #[schema(min_length = 1, max_length = 200)]
    description: Option<String>,
    /// Values of the model's parameters that stand where a request gives none.
    #[schema(value_type = Option<Object>, example = json!({"num_inference_steps": 30}))]
    defaults: Option<Map<String, Value>>,
    /// Values of the model's parameters that no request can change: another value is answered with 400.
    #[schema(value_type = Option<Object>, example = json!({"output_format": "png"}))]
    fixed: Option<Map<String, Value>>,
}

/// A name that the operator has given to a model.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelAlias)]
pub struct ModelAliasView {
    /// What clients ask for.
    #[schema(example = "dall-e-3")]
    id: String,
    /// Always `model_alias`.
    #[schema(example = "model_alias")]
    object: &'static str,
    /// The model that it stands for.
    #[schema(example = "flux/dev")]
    target: String,
    /// The project whose alias it is; every project's when null.
    project_id: Option<String>,
    /// What `GET /v1/models` calls it.
    name: Option<String>,
    /// A sentence about it.
    description: Option<String>,
    /// Values that stand where a request gives none.
    #[schema(value_type = Object)]
    defaults: Map<String, Value>,
    /// Values that no request can change.
    #[schema(value_type = Object)]
    fixed: Map<String, Value>,
    /// `api`, or `file` for one of `IMAGEGATE_ALIASES_FILE`, which is changed there.
    #[schema(example = "api")]
    origin: &'static str,
    /// When it was made, in Unix seconds; null for one of the file.
    created_at: Option<i64>,
}

list!(
    /// All aliases.
    ModelAliasList of ModelAliasView
);

impl ModelAliasView {
    fn of(record: AliasRecord) -> Self {
        let AliasRecord { project_id, alias, created_at } = record;
        Self {
            id: alias.id,
            object: "model_alias",
            target: alias.target,
            project_id: project_id.map(|id| id.to_string()),
            name: alias.name,
            description: alias.description,
            defaults: alias.defaults,
            fixed: alias.fixed,
            origin: if created_at.is_some() { "api" } else { "file" },
            created_at: created_at.map(Timestamp::seconds),
        }
    }
}

/// List model aliases
///
/// Those of the file of `IMAGEGATE_ALIASES_FILE` first.
#[utoipa::path(
    get,
    path = "/admin/v1/model_aliases",
    operation_id = "listModelAliases",
    tag = "admin",
    params(("project_id" = Option<String>, Query, description = "Only those that this project has of its own, by its id or `default`.")),
    responses((status = 200, description = "The aliases.", body = ModelAliasList), RefusalsOfOne),
)]
pub async fn list_model_aliases(
    _: AdminCaller<action::View>,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let pairs = query(&request, &["project_id"])?;
    let project = project_of(&services, pairs.one("project_id")?).await?;
    let aliases = services.accounts.list_aliases().await?.into_iter();
    let wanted = aliases.filter(|record| project.is_none() || record.project_id == project);
    Ok(HttpResponse::Ok().json(ModelAliasList::of(wanted.map(ModelAliasView::of).collect(), false)))
}

/// Set a model alias
///
/// Makes an alias, or changes the one of the same id and project; known to every replica within a second. Its values are
/// checked against the model's limits. An alias for all projects is set by an owner only.
#[utoipa::path(
    post,
    path = "/admin/v1/model_aliases",
    operation_id = "setModelAlias",
    tag = "admin",
    request_body(content = ModelAliasBody, content_type = "application/json"),
    responses((status = 200, description = "The alias as it is now.", body = ModelAliasView), RefusalsOfOne),
)]
pub async fn set_model_alias(
    caller: AdminCaller<action::Operate>,
    request: HttpRequest,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let body: ModelAliasBody = fixed_body(&request, &body)?;
    let project = project_of(&services, body.project_id.as_deref()).await?;
    owner_for_all(&caller, project)?;
    let alias = Alias {
        id: body.id,
        target: body.target,
        name: body.name,
        description: body.description,
        defaults: body.defaults.unwrap_or_default(),
        fixed: body.fixed.unwrap_or_default(),
    };
    let alias = services.gateway.catalogue().check_alias(alias).map_err(|error| refused(&error))?;
    let record = accounts_of(&request, &caller, &services).put_alias(project, alias).await?;
    Ok(HttpResponse::Ok().json(ModelAliasView::of(record)))
}

/// Delete a model alias
///
/// Known to every replica within a second. Its name means again what it means without it.
#[utoipa::path(
    delete,
    path = "/admin/v1/model_aliases/{id}",
    operation_id = "deleteModelAlias",
    tag = "admin",
    params(
        ("id" = String, Path, description = "The alias's id; its slashes may be written as they are."),
        ("project_id" = Option<String>, Query, description = "The project whose alias it is, by its id or `default`; every project's if not given."),
    ),
    responses((status = 200, description = "It is deleted.", body = Deletion), RefusalsOfOne),
)]
pub async fn delete_model_alias(
    caller: AdminCaller<action::Operate>,
    request: HttpRequest,
    id: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let pairs = query(&request, &["project_id"])?;
    let project = project_of(&services, pairs.one("project_id")?).await?;
    owner_for_all(&caller, project)?;
    let record = accounts_of(&request, &caller, &services).delete_alias(project, &id).await?;
    Ok(HttpResponse::Ok().json(Deletion::of("model_alias.deleted", &record.alias.id)))
}

async fn project_of(services: &Services, id: Option<&str>) -> Result<Option<ProjectId>, Problem> {
    match id {
        Some(id) => Ok(Some(find(services, id).await.map_err(|problem| problem.param("project_id"))?.id)),
        None => Ok(None),
    }
}

/// What every project's requests mean is the owner's to say.
fn owner_for_all(caller: &AdminCaller<action::Operate>, project: Option<ProjectId>) -> Result<(), Problem> {
    if project.is_some() || caller.role.may(AdminAction::Own) {
        return Ok(());
    }
    let message = format!(
        "the role `{}` of this admin key permits aliases of a project, not of all projects: name a `project_id`",
        caller.role
    );
    Err(Problem::new(Code::PermissionDenied, message).param("project_id"))
}

fn refused(error: &AliasError) -> Problem {
    invalid_field(error.field(), &error.to_string())
}
