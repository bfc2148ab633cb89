//! The catalogue as it is sold: prices, limits, and how each endpoint is.

use actix_web::{HttpRequest, HttpResponse};
use maud::{Markup, html};
use serde_json::Value;

use super::aliases::section;
use super::form::encode;
use super::inside::Visit;
use super::page::{self, empty, items, notice, number, text, usd};
use crate::http::Problem;

/// `GET /console/models`.
pub async fn list(visit: Visit, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let models = visit.get("/v1/models").await?;
    let aliases = visit.get("/admin/v1/model_aliases").await?;
    let services = visit.services();
    let catalogue = services.gateway.catalogue();
    let resting: Vec<String> = services
        .gateway
        .health()
        .flat_map(|(_, health)| health.open_breakers.into_iter().map(|breaker| breaker.endpoint))
        .collect();
    let content = html! {
        h1 { "Models" }
        (notice(request.query_string()))
        p .hint { (items(&models).len()) " on offer, catalogue " code { (catalogue.version()) } ", selling at fal's price × " (services.gateway.markup().to_string()) "." }
        @if items(&models).is_empty() {
            (empty("No model is on offer.", &html! { "Put model files into " code { "IMAGEGATE_MODELS_DIR" } " and send the process SIGHUP." }))
        } @else {
            div .scroll tabindex="0" role="region" aria-label="Models" {
                table {
                    thead { tr { th scope="col" { "Model" } th scope="col" { "Endpoint" } th .num scope="col" { "Price" } th scope="col" { "Health" } th scope="col" { "Limits" } th scope="col" { "Try" } } }
                    tbody {
                        @for model in items(&models) {
                            @let endpoint = catalogue.model(model["alias_of"].as_str().unwrap_or(text(&model["id"]))).map(|model| model.endpoint.clone()).unwrap_or_default();
                            (row(model, &endpoint, resting.contains(&endpoint)))
                        }
                    }
                }
            }
        }
        (section(&aliases, None, "/console/models/aliases"))
    };
    Ok(page::show(&visit, "Models", "/console/models", &content))
}

fn row(model: &Value, endpoint: &str, rests: bool) -> Markup {
    let id = text(&model["id"]);
    html! {
        tr {
            td { strong { (id) } br; span .hint { (text(&model["info"]["name"])) @if let Some(target) = model["alias_of"].as_str() { " (alias of " (target) ")" } } @if model["deprecated"] == true { br; span .state.open { "deprecated" } } }
            td { code { (endpoint) } }
            td .num { (usd(&model["pricing"]["price"])) " a " (text(&model["pricing"]["unit"])) }
            td {
                @if rests { span .state.bad { span aria-hidden="true" { "▲ " } "rests after failures" } }
                @else { span .state.good { span aria-hidden="true" { "● " } "well" } }
            }
            td { details { summary { "Parameters" } (parameters(&model["parameters"])) } }
            td { a href=(format!("/console/playground?model={}", encode(id))) aria-label=(format!("Try {id}")) { "Try" } }
        }
    }
}

fn parameters(schema: &Value) -> Markup {
    let all = schema["properties"].as_object();
    html! {
        dl .parameters {
            @for (name, rule) in all.into_iter().flatten() {
                div { dt { code { (name) } } dd { (limits(rule)) } }
            }
        }
    }
}

/// What a parameter allows, in words.
pub fn limits(rule: &Value) -> Markup {
    html! {
        @if !rule["minimum"].is_null() || !rule["maximum"].is_null() {
            "From " (number(&rule["minimum"])) " to " (number(&rule["maximum"])) ". "
        }
        @if !rule["multipleOf"].is_null() { "A multiple of " (number(&rule["multipleOf"])) ". " }
        @if !rule["maxLength"].is_null() { "At most " (number(&rule["maxLength"])) " characters. " }
        @if !rule["maxItems"].is_null() { "At most " (number(&rule["maxItems"])) " of them. " }
        @if let Some(words) = rule["enum"].as_array() {
            "One of " (words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")) ". "
        }
        @if !rule["default"].is_null() { "Default " (number(&rule["default"])) "." }
    }
}
