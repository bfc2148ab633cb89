//! `/v1/models`: the catalogue, open to all; OpenAI's list fields and AIML's item fields together.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use actix_web::http::header::{AUTHORIZATION, CACHE_CONTROL, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::access::{Open, authenticate, permit};
use super::{Services, query};
use crate::accounts::{Alias, Aliases, Caller, CallerKind};
use crate::catalogue::{Catalogue, Model, Rejection, Status};
use crate::domain::Fixed;
use crate::http::{Code, Problem, ProblemBody};

/// Since when the catalogue exists: OpenAI's clients want a `created` for each model, and fal tells none.
const CATALOGUE_SINCE: i64 = 1_793_000_000;

/// One model.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Model)]
pub struct ModelView {
    /// The model's id.
    #[schema(example = "flux-realism")]
    id: String,
    /// Always `model`.
    #[schema(example = "model")]
    object: &'static str,
    /// Unix seconds; the same for all, since no provider tells.
    created: i64,
    /// Who made it.
    owned_by: String,
    /// Always `image`.
    #[serde(rename = "type")]
    #[schema(example = "image")]
    kind: &'static str,
    /// Name, developer and description.
    info: ModelInfo,
    /// Other ids that mean the same model.
    aliases: Vec<String>,
    /// The model that makes the images, where this is an alias of the operator's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "flux/dev")]
    alias_of: Option<String>,
    /// Words about it.
    tags: Vec<&'static str>,
    /// What it can do besides.
    features: Vec<&'static str>,
    /// Paths that take it.
    endpoints: Vec<&'static str>,
    /// Whether it will be withdrawn.
    deprecated: bool,
    /// The model to use instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    replaced_by: Option<String>,
    /// Whether it takes input images.
    takes_images: bool,
    /// Whether the provider streams previews of it.
    streams: bool,
    /// What its answers carry.
    output: ModelOutput,
    /// Its parameters, as a JSON Schema that agrees with what is checked.
    #[schema(value_type = Object)]
    parameters: Value,
    /// What it costs.
    #[schema(value_type = Object)]
    pricing: Value,
}

/// Name, developer and description, with the keys of AIML's older and newer clients.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ModelInfo {
    /// For people.
    name: String,
    /// Who made it.
    developer: String,
    /// In a sentence.
    description: String,
    /// A page about it.
    url: String,
    /// A page about its parameters.
    docs_url: String,
    /// The same, as newer clients read it.
    #[serde(rename = "docsUrl")]
    newer_docs_url: String,
}

/// What a model's answers carry. Fields that a model does not produce are absent from its answers.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ModelOutput {
    /// Fields of the answer.
    #[schema(example = json!(["images", "timings", "seed", "has_nsfw_concepts", "prompt"]))]
    fields: Vec<String>,
    /// Fields of each image.
    #[schema(example = json!(["url", "width", "height", "content_type"]))]
    image_fields: Vec<String>,
    /// Media types that its images may have.
    #[schema(example = json!(["image/jpeg", "image/png"]))]
    content_types: Vec<String>,
}

/// Every model on offer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// The models, by id.
    data: Vec<ModelView>,
}

impl ModelView {
    fn of(model: &Model, markup: Fixed) -> Self {
        let docs = model.docs_url.clone().unwrap_or_default();
        let mut features = Vec::new();
        if model.takes_images {
            features.push("image-input");
        }
        if model.streams {
            features.push("streaming");
        }
        Self {
            id: model.id.clone(),
            object: "model",
            created: CATALOGUE_SINCE,
            owned_by: model.developer.clone(),
            kind: "image",
            info: ModelInfo {
                name: model.name.clone(),
                developer: model.developer.clone(),
                description: model.description.clone(),
                url: docs.clone(),
                docs_url: docs.clone(),
                newer_docs_url: docs,
            },
            aliases: model.aliases.clone(),
            alias_of: None,
            tags: vec![if model.takes_images { "image-to-image" } else { "text-to-image" }],
            features,
            endpoints: vec!["/v1/images/generations"],
            deprecated: model.status == Status::Deprecated,
            replaced_by: model.replaced_by.clone(),
            takes_images: model.takes_images,
            streams: model.streams,
            output: ModelOutput {
                fields: model.output.fields.clone(),
                image_fields: model.output.image_fields.clone(),
                content_types: model.output.content_types.clone(),
            },
            parameters: model.json_schema(),
            pricing: model.pricing(markup),
        }
    }
}

impl ModelView {
    /// The view of an alias of this model.
    fn named(&self, catalogue: &Catalogue, model: &Model, alias: &Alias) -> Self {
        let mut view = self.clone();
        alias.id.clone_into(&mut view.id);
        view.aliases = Vec::new();
        view.alias_of = Some(self.id.clone());
        if let Some(name) = &alias.name {
            view.info.name.clone_from(name);
        }
        if let Some(description) = &alias.description {
            view.info.description.clone_from(description);
        }
        view.parameters = catalogue.alias_schema(model, alias);
        view
    }
}

/// The models' views, made once for each catalogue.
#[derive(Debug, Clone)]
pub struct ModelTable {
    list: web::Bytes,
    views: Arc<HashMap<String, ModelView>>,
    etag: HeaderValue,
}

impl ModelTable {
    /// Writes the table for a catalogue and markup.
    #[must_use]
    pub fn of(catalogue: &Catalogue, markup: Fixed) -> Self {
        let offered = catalogue.models().filter(|model| model.is_offered());
        let data: Vec<ModelView> = offered.map(|model| ModelView::of(model, markup)).collect();
        let views = data.iter().map(|view| (view.id.clone(), view.clone())).collect();
        let list = serde_json::to_vec(&ModelList { object: "list", data }).unwrap_or_default();
        let etag = HeaderValue::from_str(&format!("W/\"{}-{markup}\"", catalogue.version()))
            .unwrap_or_else(|_| HeaderValue::from_static("W/\"\""));
        Self { list: list.into(), views: Arc::new(views), etag }
    }

    /// The views of the models and of the operator's aliases, by id. A name that is an alias is not shown for the model that
    /// it would mean without it.
    fn with_aliases(&self, catalogue: &Catalogue, aliases: &Aliases) -> BTreeMap<String, ModelView> {
        let mut views: BTreeMap<String, ModelView> = BTreeMap::new();
        for view in self.views.values().filter(|view| aliases.get(&view.id).is_none()) {
            let mut view = view.clone();
            view.aliases.retain(|name| aliases.get(name).is_none());
            views.insert(view.id.clone(), view);
        }
        for alias in aliases.iter() {
            let target = catalogue.model(&alias.target);
            if let Some((model, view)) = target.and_then(|model| Some((model, self.views.get(&model.id)?))) {
                views.insert(alias.id.clone(), view.named(catalogue, model, alias));
            }
        }
        views
    }
}

/// List models
///
/// Every model on offer with its parameters and prices, and the operator's aliases. Open to all; with a project's key the
/// aliases of that project too, and only what the key and the project's policy allow. `?type=image`, as AIML's clients ask, is every model.
#[utoipa::path(
    get,
    path = "/v1/models",
    operation_id = "listModels",
    tag = "models",
    params(
        ("id" = Option<String>, Query, description = "Only the model of this id or alias."),
        ("q" = Option<String>, Query, description = "Only models with this text in id, alias, name, developer or description, in any letter case."),
    ),
    responses(
        (status = 200, description = "The models.", body = ModelList),
        (status = 304, description = "Unchanged since the `ETag` in `If-None-Match`."),
        (status = 400, description = "A filter is wrong.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn list_models(
    _: Open,
    request: HttpRequest,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let published = services.published.load();
    let table = &published.models;
    let caller = caller_of(&request, &services);
    let aliases = aliases_of(caller.as_ref(), &services);
    let is_project = |caller: &Caller| matches!(caller.kind, CallerKind::Project(_));
    let limited = caller.filter(|caller| is_project(caller) && caller.has_model_list());
    if aliases.is_empty() && limited.is_none() && request.query_string().is_empty() {
        return Ok(answer(&request, false, table.etag.clone(), table.list.clone()));
    }
    let mut views = table.with_aliases(&published.catalogue, &aliases);
    if let Some(caller) = &limited {
        views.retain(|id, view| may_use(caller, view.alias_of.as_ref().unwrap_or(id), id));
    }
    let body = filtered(&request, views)?;
    let is_own = aliases.project.is_some() || limited.is_some();
    let etag = if aliases.is_empty() && !is_own { table.etag.clone() } else { etag_of(&body) };
    Ok(answer(&request, is_own, etag, body.into()))
}

/// Who asks, if anything is shown otherwise to holders of keys, and a valid one is shown.
fn caller_of(request: &HttpRequest, services: &Services) -> Option<Caller> {
    let has_key = services.accounts.keys_see_own_models() && request.headers().contains_key(AUTHORIZATION);
    if has_key { authenticate(request).and_then(|caller| permit(caller, &[])).ok() } else { None }
}

/// The operator's aliases that the caller has: everybody's, and those of its project.
fn aliases_of(caller: Option<&Caller>, services: &Services) -> Aliases {
    let project = caller.and_then(|caller| match caller.kind {
        CallerKind::Project(project) => Some(project),
        CallerKind::Admin => None,
    });
    services.accounts.aliases(project)
}

/// Whether the key and the project's policy allow a model under this name.
fn may_use(caller: &Caller, model: &str, name: &str) -> bool {
    caller.may_use(model, name) && caller.policy.as_ref().is_none_or(|policy| policy.may_use(model, name))
}

/// The tag of a body that is made for a request.
fn etag_of(body: &[u8]) -> HeaderValue {
    let tag = format!("W/\"{}\"", hex::encode(Sha256::digest(body)));
    HeaderValue::from_str(&tag).unwrap_or_else(|_| HeaderValue::from_static("W/\"\""))
}

/// The body, unless the client has it. What a project alone is shown is kept by no shared cache.
fn answer(request: &HttpRequest, is_own: bool, etag: HeaderValue, body: web::Bytes) -> HttpResponse {
    if is_fresh(request, &etag) {
        return HttpResponse::NotModified().insert_header((ETAG, etag)).finish();
    }
    let cache = if is_own { "private, max-age=60" } else { "max-age=60" };
    HttpResponse::Ok()
        .insert_header((ETAG, etag))
        .insert_header((CACHE_CONTROL, cache))
        .insert_header((VARY, "authorization"))
        .content_type("application/json")
        .body(body)
}

/// Filters that AIML's clients send and that change nothing here are let pass.
const FILTERS: &[&str] =
    &["type", "q", "id", "tags", "include", "details", "modalities", "capabilities", "limit", "order", "after"];

fn filtered(request: &HttpRequest, views: BTreeMap<String, ModelView>) -> Result<Vec<u8>, Problem> {
    let pairs = query(request, FILTERS)?;
    let wanted = pairs.one("q")?.unwrap_or_default().to_lowercase();
    let ids = pairs.list("id");
    let kinds = pairs.list("type");
    let matches = |view: &ModelView| {
        let names = || std::iter::once(&view.id).chain(&view.aliases);
        let texts = names().chain([&view.info.name, &view.info.developer, &view.info.description]);
        (wanted.is_empty() || texts.into_iter().any(|text| text.to_lowercase().contains(&wanted)))
            && (ids.is_empty() || names().any(|name| ids.iter().any(|id| id.eq_ignore_ascii_case(name))))
            && (kinds.is_empty() || kinds.iter().any(|kind| kind == view.kind))
    };
    let data: Vec<ModelView> = views.into_values().filter(matches).collect();
    Ok(serde_json::to_vec(&ModelList { object: "list", data }).unwrap_or_default())
}

/// Retrieve a model
///
/// One model by its id or an alias, in any letter case; ids contain slashes. Open to all; with a project's key the aliases
/// of that project too.
#[utoipa::path(
    get,
    operation_id = "retrieveModel",
    tag = "models",
    path = "/v1/models/{id}",
    params(("id" = String, Path, description = "The model's id; its slashes may be written as they are.")),
    responses(
        (status = 200, description = "The model.", body = ModelView),
        (status = 304, description = "Unchanged since the `ETag` in `If-None-Match`."),
        (status = 404, description = "No such model, or it was withdrawn.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn retrieve_model(
    _: Open,
    request: HttpRequest,
    id: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    let published = services.published.load();
    let table = &published.models;
    let aliases = aliases_of(caller_of(&request, &services).as_ref(), &services);
    let alias = aliases.get(&id);
    let model = published.catalogue.named(&aliases, &id).ok_or_else(|| {
        Problem::new(
            Code::ModelNotFound,
            format!("the model `{id}` does not exist; `GET /v1/models` lists all of them"),
        )
        .param("id")
    })?;
    let Some(view) = table.views.get(&model.id) else { return Err(not_on_offer(model)) };
    let named = alias.map(|alias| view.named(&published.catalogue, model, alias));
    let body = serde_json::to_vec(named.as_ref().unwrap_or(view)).unwrap_or_default();
    let etag = if aliases.is_empty() { table.etag.clone() } else { etag_of(&body) };
    Ok(answer(&request, aliases.project.is_some(), etag, body.into()))
}

/// Known, but neither listed nor taken.
fn not_on_offer(model: &Model) -> Problem {
    let rejection = match model.status {
        Status::Unpriced => Rejection::Unpriced { model: model.id.clone() },
        _ => Rejection::Withdrawn { model: model.id.clone(), replaced_by: model.replaced_by.clone() },
    };
    Problem::from(rejection).param("id")
}

fn is_fresh(request: &HttpRequest, etag: &HeaderValue) -> bool {
    let known = request.headers().get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let ours = strong(etag.to_str().unwrap_or_default());
    known == "*" || known.split(',').any(|tag| strong(tag) == ours)
}
