//! fal's platform API: the list of models and their prices. Its errors have a form of their own.

use actix_web::http::header::AUTHORIZATION;
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Sandbox;
use super::answers::{self, Access};
use super::behaviour::Stage;
use super::misbehave::unless_spoiled;
use super::schema::Endpoint;

/// Models on one page, unless fewer are asked for.
const PAGE: usize = 50;
/// Most endpoints that one request may name.
const MOST_NAMED: usize = 50;

/// `GET /v1/models`: every endpoint, by pages; open to all.
pub async fn list_models(request: HttpRequest, sandbox: web::Data<Sandbox>) -> HttpResponse {
    unless_spoiled(&request, &sandbox, Stage::Platform, async { models(&request, &sandbox) }).await
}

fn models(request: &HttpRequest, sandbox: &Sandbox) -> HttpResponse {
    let query = Query::of(request);
    let named = query.all("endpoint_id");
    if named.len() > MOST_NAMED {
        return error(400, "validation_error", "at most 50 endpoint ids can be named");
    }
    let wanted = |endpoint: &Endpoint| {
        let text = query.first("q").is_none_or(|text| endpoint.id.contains(text));
        let kind = query.first("category").is_none_or(|kind| kind == "text-to-image");
        let status = query.first("status").is_none_or(|status| status == "active");
        text && kind && status && (named.is_empty() || named.contains(&endpoint.id.as_str()))
    };
    let models: Vec<_> = sandbox.schemas.endpoints().filter(|endpoint| wanted(endpoint)).collect();
    let models: Vec<Value> = models.into_iter().map(|endpoint| model(endpoint)).collect();
    let (models, next_cursor, has_more) = page(&models, &query);
    answers::json(200, &json!({"models": models, "next_cursor": next_cursor, "has_more": has_more}))
}

/// One page of a list, the cursor to the next, and whether there is one. A cursor is a position in base64.
pub fn page<'a>(all: &'a [Value], query: &Query) -> (&'a [Value], Option<String>, bool) {
    let limit = query.first("limit").and_then(|limit| limit.parse().ok()).unwrap_or(PAGE).clamp(1, 100);
    let cursor = query.first("cursor").and_then(|cursor| STANDARD.decode(cursor).ok());
    let from = cursor.and_then(|cursor| String::from_utf8(cursor).ok()?.parse().ok()).unwrap_or(0_usize);
    let end = from.saturating_add(limit).min(all.len());
    let has_more = end < all.len();
    (all.get(from..end).unwrap_or_default(), has_more.then(|| STANDARD.encode(end.to_string())), has_more)
}

fn model(endpoint: &Endpoint) -> Value {
    let id = &endpoint.id;
    let mut metadata = json!({
        "display_name": id.split('/').skip(1).collect::<Vec<_>>().join(" "),
        "category": "text-to-image",
        "description": "",
        "status": "active",
        "tags": [],
        "updated_at": "2026-06-11T02:20:29.609Z",
        "is_favorited": false,
        "thumbnail_url": "",
        "model_url": format!("https://fal.run/{id}"),
        "date": "2026-06-11T02:20:29.609Z",
        "highlighted": false,
        "pinned": false,
    });
    if let Some(url) = &endpoint.stream_url {
        metadata["stream_url"] = json!(url);
    }
    json!({"endpoint_id": id, "metadata": metadata})
}

/// `GET /v1/models/pricing?endpoint_id=…`: unit prices in US dollars; wants a key.
pub async fn get_pricing(request: HttpRequest, sandbox: web::Data<Sandbox>) -> HttpResponse {
    unless_spoiled(&request, &sandbox, Stage::Platform, async { prices(&request, &sandbox) }).await
}

fn prices(request: &HttpRequest, sandbox: &Sandbox) -> HttpResponse {
    if let Some(refused) = refuses(request) {
        return refused;
    }
    let query = Query::of(request);
    let named = query.all("endpoint_id");
    if named.is_empty() || named.len() > MOST_NAMED {
        return error(400, "validation_error", "1 to 50 endpoint ids must be named");
    }
    let mut prices = Vec::new();
    for id in named {
        let Some(endpoint) = sandbox.schemas.endpoint(id) else {
            return error(404, "not_found", &format!("endpoint `{id}` not found"));
        };
        let billing = &endpoint.billing;
        if let Some(price) = &billing.unit_price {
            // fal's API writes prices as JSON numbers.
            let price: f64 = price.parse().unwrap_or_default();
            prices.push(json!({"endpoint_id": id, "unit_price": price, "unit": billing.unit, "currency": "USD"}));
        }
    }
    answers::json(200, &json!({"prices": prices, "next_cursor": null, "has_more": false}))
}

/// What a request without a good key is told; nothing for a good one.
pub fn refuses(request: &HttpRequest) -> Option<HttpResponse> {
    let message = match answers::access(request) {
        Access::Granted | Access::Locked => return None,
        Access::Missing if !request.headers().contains_key(AUTHORIZATION) => "Authentication is required",
        Access::Missing | Access::Unknown => "Invalid API key",
    };
    Some(error(401, "authorization_error", message))
}

/// An error in the platform's form.
pub fn error(status: u16, kind: &str, message: &str) -> HttpResponse {
    answers::json(status, &json!({"error": {"type": kind, "message": message}}))
}

/// The pairs of a query, of which names may repeat.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the query of a request.
    pub fn of(request: &HttpRequest) -> Self {
        let pairs = url::form_urlencoded::parse(request.query_string().as_bytes());
        Self(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    /// Every value of a name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let pairs = self.0.iter().filter(|(known, _)| known == name);
        pairs.map(|(_, value)| value.as_str()).collect()
    }

    /// The first value of a name.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }
}
