//! `GET /v1/assistants`: none. n8n's node for AIML asks here whether a key is good.

use actix_web::HttpResponse;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::access::AnyProjectCaller;
use crate::http::ProblemBody;

/// A page without anything on it.
#[derive(Debug, Serialize, ToSchema)]
pub struct AssistantList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// Always empty.
    data: Vec<Value>,
    /// Always null.
    #[schema(required = true)]
    first_id: Option<String>,
    /// Always null.
    #[schema(required = true)]
    last_id: Option<String>,
    /// Always false.
    has_more: bool,
}

/// List assistants
///
/// There are none here: an empty page to whoever has a good key. n8n's node for AIML tries its key on this path.
#[utoipa::path(
    get,
    path = "/v1/assistants",
    operation_id = "listAssistants",
    tag = "billing",
    responses(
        (status = 200, description = "An empty page.", body = AssistantList),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn list_assistants(_: AnyProjectCaller) -> HttpResponse {
    HttpResponse::Ok().json(AssistantList {
        object: "list",
        data: Vec::new(),
        first_id: None,
        last_id: None,
        has_more: false,
    })
}
