//! The OpenAPI document: the routes as they are assembled, each model's parameters from the catalogue, and a page to try it.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, get, web};
use serde_json::{Map, Value, json};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Info, License, OpenApi, Server, Tag};

use super::Services;
use crate::catalogue::Catalogue;
use crate::http::{Code, Problem};

/// Fills in what the routes do not say: title, licence, server, tags, keys.
pub fn openapi_document(api: &mut OpenApi) {
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
    let tags = [
        ("images", "Making images, and what became of them."),
        ("models", "What is on offer, with parameters and prices."),
        ("billing", "What a project may still spend, in AIML's shapes."),
        ("organization", "OpenAI's organization API: projects, keys, limits, usage, costs, audit log."),
        ("admin", "What OpenAI's API has no word for: every generation with its cost, terms, limits, credits."),
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
    for (name, description) in [
        ("project_key", "A project's key: `Authorization: Bearer <key>`."),
        ("admin_key", "An admin key: `Authorization: Bearer <key>`."),
    ] {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build();
        components.add_security_scheme(name, SecurityScheme::Http(scheme));
    }
}

/// The document as text: with a schema for each model, chosen by `model`.
pub fn render_document(api: &OpenApi, catalogue: &Catalogue) -> Result<String, serde_json::Error> {
    let mut document = serde_json::to_value(api)?;
    let mut choices = Vec::new();
    let mut mapping = Map::new();
    let mut schemas = Map::new();
    for model in catalogue.models().filter(|model| model.is_offered()) {
        let name = schema_name(&model.id);
        let reference = format!("#/components/schemas/{name}");
        let mut schema = model.json_schema();
        if let Some(object) = schema.as_object_mut() {
            object.shift_remove("$schema");
            object.insert("title".into(), json!(model.name));
            object.insert("description".into(), json!(model.description));
            if let Some(example) = model.examples.first() {
                object.insert("example".into(), Value::Object(example.body()));
            }
        }
        choices.push(json!({"$ref": reference}));
        for id in std::iter::once(&model.id).chain(&model.aliases) {
            mapping.insert(id.clone(), json!(reference));
        }
        schemas.insert(name, schema);
    }
    if let Some(components) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
        components.insert(
            "ImageGenerationRequest".into(),
            json!({
                "description": "A request for images. `model` decides which parameters there are and what they allow.",
                "oneOf": choices,
                "discriminator": {"propertyName": "model", "mapping": mapping},
            }),
        );
        components.extend(schemas);
        components.sort_keys();
    }
    let mut text = serde_json::to_string_pretty(&document)?;
    text.push('\n');
    Ok(text)
}

/// `flux/dev` → `FluxDevRequest`: a name that generators turn into a good type.
fn schema_name(id: &str) -> String {
    let words = id.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut name: String = words
        .map(|word| {
            let (first, rest) = word.split_at(1);
            first.to_uppercase() + rest
        })
        .collect();
    name.push_str("Request");
    name
}

/// The OpenAPI document
#[utoipa::path(
    operation_id = "retrieveOpenapiDocument",
    tag = "document",
    responses((status = 200, description = "This document.", body = Object)),
)]
#[get("/openapi.json")]
pub async fn retrieve_openapi_document(services: web::Data<Services>) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(services.document.clone())
}

/// `/docs`: Swagger UI, embedded; it loads nothing from elsewhere.
pub async fn docs_page(
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
            if file.gzpipped {
                response.insert_header(("content-encoding", "gzip"));
            }
            Ok(response.content_type(file.content_type).body(file.bytes.into_owned()))
        }
        _ => Err(Problem::new(Code::NotFound, "there is no such page")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_schema_has_a_name_that_generators_like() {
        assert_eq!(schema_name("flux/dev"), "FluxDevRequest");
        assert_eq!(schema_name("flux-1/schnell"), "Flux1SchnellRequest");
        assert_eq!(schema_name("recraft/v2/text-to-image"), "RecraftV2TextToImageRequest");
    }
}
