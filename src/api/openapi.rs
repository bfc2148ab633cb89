//! The OpenAPI document: the routes as they are assembled, each model's parameters from the catalogue, and a page to try it.

use std::sync::Arc;

use actix_web::http::header::CONTENT_SECURITY_POLICY;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Map, Value, json};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{Info, License, OpenApi, Server, Tag};
use utoipa::{PartialSchema, ToSchema as _};

use super::Services;
use super::access::{Endpoint, Open, add_to_document};
use super::fal_clients::FalError;
use crate::catalogue::{Catalogue, Components, MODEL_ID};
use crate::http::{Code, Problem, ProblemBody};

/// The document of these routes, without the models: title, licence, server, tags, keys, operations.
#[must_use]
pub fn openapi_document(endpoints: &[Endpoint]) -> OpenApi {
    let mut api = OpenApi::default();
    add_to_document(endpoints, &mut api);
    let mut info = Info::new("imagegate", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "One gateway for image generation: AIML's and OpenAI's requests, checked against each model's real limits before \
         a cent is spent, translated to fal.ai, and booked once."
            .to_owned(),
    );
    let mut license = License::new("MIT");
    license.identifier = Some("MIT".to_owned());
    info.license = Some(license);
    api.info = info;
    api.servers = Some(vec![Server::new("/")]);
    // What names no key of its own is open.
    api.security = Some(vec![SecurityRequirement::default()]);
    let tags = [
        ("images", "Making images, and what became of them."),
        ("models", "What is on offer, with parameters and prices."),
        ("billing", "What a project may still spend, in AIML's shapes."),
        ("organization", "OpenAI's organization API: projects, keys, limits, usage, costs, audit log."),
        ("admin", "What OpenAI's API has no word for: every generation with its cost, terms, limits, credits."),
        ("fal", "fal's own clients: `@fal-ai/client` with `proxyUrl`, `fal-client` with its hosts set."),
        ("webhooks", "What is told to a project's own addresses when a generation ends, and what providers call."),
        ("health", "Whether the gateway lives and serves."),
        ("document", "This document."),
    ];
    api.tags = Some(
        tags.iter()
            .map(|(name, description)| {
                let mut tag = Tag::new(*name);
                tag.description = Some((*description).to_owned());
                tag
            })
            .collect(),
    );
    let components = api.components.get_or_insert_default();
    // What only responses of an `IntoResponses` name is not found by itself.
    let mut schemas = vec![("FalError".to_owned(), FalError::schema())];
    FalError::schemas(&mut schemas);
    components.schemas.extend(schemas);
    for (name, description) in [
        ("project_key", "A project's key: `Authorization: Bearer <key>`."),
        ("admin_key", "An admin key: `Authorization: Bearer <key>`."),
    ] {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build();
        components.add_security_scheme(name, SecurityScheme::Http(scheme));
    }
    let description = "A project's key as fal's clients send it: `Authorization: Key <key>`.";
    let scheme = ApiKeyValue::with_description("Authorization", description);
    components.add_security_scheme("fal_key", SecurityScheme::ApiKey(ApiKey::Header(scheme)));
    api
}

/// The document as text: with a schema for each model, chosen by `model`.
pub fn render_document(api: &OpenApi, catalogue: &Catalogue) -> Result<String, serde_json::Error> {
    let mut document = serde_json::to_value(api)?;
    let mut choices = Vec::new();
    let mut mapping = Map::new();
    let mut added = Components::new();
    for model in catalogue.models().filter(|model| model.is_offered()) {
        let reference = json!(format!("#/components/schemas/{}", model.add_components(&mut added)));
        choices.push(json!({"$ref": reference}));
        for id in std::iter::once(&model.id).chain(&model.aliases) {
            mapping.insert(id.clone(), reference.clone());
        }
    }
    let ids: Vec<String> = mapping.keys().cloned().collect();
    if let Some(components) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
        components.insert(
            "ImageGenerationRequest".into(),
            json!({
                "description": "A request for images. `model` decides which parameters there are and what they allow.",
                "oneOf": choices,
                "discriminator": {"propertyName": "model", "mapping": mapping},
            }),
        );
        components.insert(
            MODEL_ID.to_owned(),
            json!({ "type": "string", "enum": ids, "description": "A model on offer, by its id or another name of it." }),
        );
        components.extend(added);
        for schema in components.values_mut().filter(|schema| schema.get("allOf").is_some()) {
            flatten(schema);
        }
        components.sort_keys();
    }
    open_objects(&mut document);
    split_bodies(&mut document);
    let mut text = serde_json::to_string_pretty(&document)?;
    text.push('\n');
    Ok(text)
}

/// Says of each object without described fields that it may have any: generators take silence for a mistake.
fn open_objects(json: &mut Value) {
    match json {
        Value::Object(fields) => {
            let is_object = fields.get("type").is_some_and(|kind| match kind {
                Value::Array(kinds) => kinds.iter().any(|kind| kind == "object"),
                kind => kind == "object",
            });
            if is_object && !["properties", "additionalProperties"].iter().any(|key| fields.contains_key(*key)) {
                fields.insert("additionalProperties".to_owned(), json!(true));
            }
            let schemas =
                fields.iter_mut().filter(|(key, _)| !matches!(key.as_str(), "example" | "examples" | "default"));
            schemas.for_each(|(_, value)| open_objects(value));
        }
        Value::Array(items) => items.iter_mut().for_each(open_objects),
        _ => {}
    }
}

/// Gives the JSON body of an operation that takes a form as well an operation of its own, under the path without its version,
/// which is the same path: generated clients that may choose send JSON, and cannot send files.
fn split_bodies(document: &mut Value) {
    let Some(paths) = document["paths"].as_object_mut() else { return };
    let mut added = Vec::new();
    for (path, methods) in paths.iter_mut() {
        for (method, operation) in methods.as_object_mut().into_iter().flatten() {
            let (Some(short), Some(content)) = (
                path.strip_prefix("/v1"),
                operation.pointer_mut("/requestBody/content").and_then(Value::as_object_mut),
            ) else {
                continue;
            };
            if !content.contains_key("multipart/form-data") {
                continue;
            }
            let Some(json) = content.shift_remove("application/json") else { continue };
            let mut second = operation.clone();
            second["requestBody"]["content"] = json!({ "application/json": json });
            for (field, more) in [("operationId", "FromJson"), ("summary", " by a JSON body")] {
                let text = format!("{}{more}", second[field].as_str().unwrap_or_default());
                second[field] = text.into();
            }
            added.push((short.to_owned(), json!({ method.as_str(): second })));
        }
    }
    paths.extend(added);
    paths.sort_keys();
}

/// Makes one object of a composed one (`allOf`), which is what its JSON is and what generators make the best types of. The
/// fields of a part that may be missing are not required.
fn flatten(schema: &mut Value) {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    if !collect(schema, true, &mut properties, &mut required) {
        return;
    }
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("allOf");
        schema.insert("type".to_owned(), json!("object"));
        schema.insert("required".to_owned(), required.into());
        schema.insert("properties".to_owned(), properties.into());
    }
}

/// Collects the fields of an inline object, of its parts, or of one that may be `null`; false if it is anything else.
fn collect(schema: &Value, needed: bool, properties: &mut Map<String, Value>, required: &mut Vec<Value>) -> bool {
    if let Some(parts) = schema["allOf"].as_array() {
        return parts.iter().all(|part| collect(part, needed, properties, required));
    }
    if let Some([part, null]) = schema["oneOf"].as_array().map(Vec::as_slice)
        && null["type"] == "null"
    {
        return collect(part, false, properties, required);
    }
    let Some(own) = schema["properties"].as_object() else { return false };
    properties.extend(own.clone());
    if needed {
        required.extend(schema["required"].as_array().into_iter().flatten().cloned());
    }
    true
}

/// The OpenAPI document
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "retrieveOpenapiDocument",
    tag = "document",
    responses(
        (status = 200, description = "This document.", body = Object),
        (status = 405, description = "Another method than `GET`.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn retrieve_openapi_document(_: Open, services: web::Data<Services>) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(services.published.load().document.clone())
}

/// What the pages of `/docs` may load and do. Swagger UI sets styles of its elements itself.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// `/docs`: Swagger UI, embedded; it loads nothing from elsewhere.
pub async fn docs_page(
    _: Open,
    request: HttpRequest,
    config: web::Data<utoipa_swagger_ui::Config<'static>>,
) -> Result<HttpResponse, Problem> {
    let Some(file) = request.match_info().get("file") else {
        return Ok(HttpResponse::SeeOther().insert_header(("location", "/docs/index.html")).finish());
    };
    let config: Arc<utoipa_swagger_ui::Config<'static>> = config.into_inner();
    match utoipa_swagger_ui::serve(file, config) {
        Ok(Some(file)) => {
            let mut response = HttpResponse::Ok();
            response.insert_header((CONTENT_SECURITY_POLICY, DOCS_POLICY));
            if file.gzpipped {
                response.insert_header(("content-encoding", "gzip"));
            }
            Ok(response.content_type(file.content_type).body(file.bytes.into_owned()))
        }
        _ => Err(Problem::new(Code::NotFound, "there is no such page")),
    }
}
