//! fal's platform API: the list of models and their prices. Its errors have a form of their own.

use actix_web::http::header::AUTHORIZATION;
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Sandbox;
use super::answers::{self, Access};
use super::schema::Endpoint;

/// Models on one page, unless fewer are asked for.
const PAGE: usize = 50;
/// Most endpoints that one request may name.
const MOST_NAMED: usize = 50;

/// `GET /v1/models`: every endpoint, by pages; open to all.
pub async fn list_models(request: HttpRequest, sandbox: web::Data<Sandbox>) -> HttpResponse {
    let query = Query::of(&request);
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
    let limit = query.first("limit").and_then(|limit| limit.parse().ok()).unwrap_or(PAGE).clamp(1, 100);
    let from = query.first("cursor").and_then(|cursor| STANDARD.decode(cursor).ok());
    let from = from.and_then(|from| String::from_utf8(from).ok()?.parse().ok()).unwrap_or(0_usize);
    let end = from.saturating_add(limit);
    let page: Vec<Value> = models.iter().skip(from).take(limit).map(|endpoint| model(endpoint)).collect();
    let has_more = end < models.len();
    let next_cursor = has_more.then(|| STANDARD.encode(end.to_string()));
    answers::json(200, &json!({"models": page, "next_cursor": next_cursor, "has_more": has_more}))
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
    if let Some(refused) = refuses(&request) {
        return refused;
    }
    let query = Query::of(&request);
    let named = query.all("endpoint_id");
    if named.is_empty() || named.len() > MOST_NAMED {
        return error(400, "validation_error", "1 to 50 endpoint ids must be named");
    }
    let mut prices = Vec::new();
    for id in named {
        let Some(endpoint) = sandbox.schemas.endpoint(id) else {
            return error(404, "not_found", &format!("endpoint `{id}` not found"));
        };
        if let Some(billing) = &endpoint.billing {
            // fal's API writes prices as JSON numbers.
            let price: f64 = billing.unit_price.parse().unwrap_or_default();
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
struct Query(Vec<(String, String)>);

impl Query {
    fn of(request: &HttpRequest) -> Self {
        let pairs = url::form_urlencoded::parse(request.query_string().as_bytes());
        Self(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    fn all(&self, name: &str) -> Vec<&str> {
        let pairs = self.0.iter().filter(|(known, _)| known == name);
        pairs.map(|(_, value)| value.as_str()).collect()
    }

    fn first(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }
}
