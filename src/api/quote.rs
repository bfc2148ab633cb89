//! `POST /v1/images/generations/quote`: what a request would cost, and what would be sent for it.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Services;
use super::access::{ProjectCaller, scope};
use super::images::{ImageRequest, accept_body, project_of, put_changes};
use super::input::expect_json;
use crate::catalogue::Adaptation;
use crate::gateway::{Accepted, Changes, change_data_uris};
use crate::http::{Problem, ProblemBody, shortened};
use crate::providers::UPLOADED_ABOVE;

/// Longest type of an embedded image that is shown, in bytes.
const LONGEST_TYPE: usize = 100;

/// Ask for the price
///
/// The same body as for making images. Answers with the normalized parameters, the exact body that the provider would
/// be sent, and the most it can cost. Calls nobody, books nothing.
#[utoipa::path(
    post,
    path = "/v1/images/generations/quote",
    operation_id = "quoteImageGeneration",
    tag = "images",
    request_body(content = ImageRequest, content_type = "application/json"),
    params(
        ("x-imagegate-strict" = Option<bool>, Header, description = "`true`: fields that the model does not have are errors."),
        ("x-imagegate-adapt" = Option<String>, Header, description = "What may be changed so that the request fits the model: any of `size`, `numbers`, `seed`, `output_format`, `quality` in a list with commas, or `all`, or `none`. Without it the setting of the key or the project counts, and without that nothing is changed.", pattern = "^(all|none|(size|numbers|seed|output_format|quality)(, ?(size|numbers|seed|output_format|quality))*)$"),
    ),
    responses(
        (status = 200, description = "The quote.", body = QuoteView),
        (status = 400, description = "The request does not fit the model; `error.data` lists every problem.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "No key, or one that is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "An admin key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such model.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn quote_image_generation(
    caller: ProjectCaller<scope::Generate>,
    request: HttpRequest,
    body: web::Bytes,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    project_of(&caller)?;
    expect_json(&request)?;
    let Accepted { order, fallbacks, quote } =
        accept_body(&request, &caller, body, services.accounts.aliases(Some(project_of(&caller)?)), &services).await?;
    let prepared = services.gateway.prepare(&order)?;
    let view = QuoteView {
        object: "image.generation.quote",
        model: order.model.id.clone(),
        parameters: without_large_images(order.normalized()),
        provider_request: ProviderRequestView {
            endpoint: prepared.endpoint,
            body: without_large_images(prepared.body),
        },
        fallbacks: fallbacks.iter().map(|fallback| fallback.model.id.clone()).collect(),
        num_images: order.count(),
        megapixels: quote.megapixels.to_string(),
        price_usd: quote.price.to_string(),
        credits: quote.price.credits(),
        ignored: order.ignored.clone(),
        adapted: order.adapted.clone(),
    };
    let mut response = HttpResponse::Ok();
    put_changes(&mut response, &Changes::of_order(&order));
    Ok(response.json(view))
}

/// The same with the images that are uploaded first left out: they may have megabytes, and the provider is sent a link.
fn without_large_images(mut fields: Map<String, Value>) -> Map<String, Value> {
    change_data_uris(&mut fields, &mut |uri| {
        if uri.len() > UPLOADED_ABOVE {
            let head = uri.split([';', ',']).next().unwrap_or_default();
            *uri = format!("{};base64,left-out", shortened(head.to_owned(), LONGEST_TYPE));
        }
    });
    fields
}

/// What a request would cost at most, and what would be sent for it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Quote)]
pub struct QuoteView {
    /// Always `image.generation.quote`.
    #[schema(example = "image.generation.quote")]
    object: &'static str,
    /// The model's id, whatever alias was used.
    #[schema(example = "flux-realism")]
    model: String,
    /// Every parameter by its one name, defaults explicit. Of embedded images above 256 KiB, which are uploaded first, only the
    /// type is shown.
    #[schema(value_type = Object)]
    parameters: Map<String, Value>,
    /// What the provider would be sent.
    provider_request: ProviderRequestView,
    /// Models that are tried in turn while the first is unavailable.
    fallbacks: Vec<String>,
    /// Images asked for.
    num_images: u32,
    /// Megapixels as they would be charged.
    megapixels: String,
    /// The most it can cost, whichever of the models makes it, in US dollars with nine places.
    #[schema(example = "0.035000000")]
    price_usd: String,
    /// The same in AIML's credits.
    credits: i64,
    /// Fields of the request that count for nothing.
    ignored: Vec<String>,
    /// Fields that another value stands for, such as pixels of which only the ratio counts.
    adapted: Vec<Adaptation>,
}

/// What the provider would be sent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProviderRequest)]
pub struct ProviderRequestView {
    /// Its endpoint.
    #[schema(example = "fal-ai/flux-realism")]
    endpoint: String,
    /// The exact body.
    #[schema(value_type = Object)]
    body: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_large_images_only_the_type_is_shown_at_any_depth() {
        let large = |head: &str| format!("{head},{}", "A".repeat(UPLOADED_ABOVE));
        let (png, bare) = (large("data:image/png;base64"), large("data:"));
        let endless = format!("data:{}", "a".repeat(UPLOADED_ABOVE));
        let small = "data:image/png;base64,AAAA";
        let fields = json!({"image": png, "list": [small, {"deep": bare}], "prompt": large("a"), "type": endless});
        let shown = Value::Object(without_large_images(fields.as_object().unwrap().clone()));
        assert_eq!(shown["image"], "data:image/png;base64,left-out");
        assert_eq!(shown["list"], json!([small, {"deep": "data:;base64,left-out"}]));
        assert_eq!(shown["prompt"], fields["prompt"], "it is no data URI");
        assert!(shown["type"].as_str().unwrap().len() < 200);
    }
}
