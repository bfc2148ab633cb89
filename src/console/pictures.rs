//! A generation's pictures under the console's own address, so that a page loads nothing from elsewhere.

use actix_web::{HttpResponse, web};

use super::inside::Visit;
use crate::api::fetch;
use crate::domain::GenerationId;
use crate::gateway::read_finished;
use crate::http::{Code, Problem};

/// Types that a browser may show here as pictures.
const SHOWN: &[&str] = &["image/jpeg", "image/png", "image/webp", "image/gif", "image/avif", "image/svg+xml"];

/// `GET /console/generations/{id}/images/{n}`.
pub async fn show(visit: Visit, path: web::Path<(String, usize)>) -> Result<HttpResponse, Problem> {
    let (id, n) = path.into_inner();
    let missing = || Problem::new(Code::NotFound, "there is no such picture");
    let id: GenerationId = id.parse().map_err(|_| missing())?;
    let services = visit.services();
    let record = services.gateway.books().generation(id).await?.ok_or_else(missing)?;
    let finished = read_finished(&record).map_err(|_| missing())?;
    let image = finished.delivery.and_then(|delivery| delivery.images.into_iter().nth(n)).ok_or_else(missing)?;
    let bytes = fetch(services, None, &image.url).await;
    let bytes =
        bytes.map_err(|fault| Problem::new(Code::UpstreamError, format!("the picture cannot be had: {fault}")))?;
    let told = image.content_type.unwrap_or_else(|| "image/jpeg".to_owned());
    let content_type = SHOWN.iter().find(|known| **known == told).copied().unwrap_or("application/octet-stream");
    Ok(HttpResponse::Ok()
        .content_type(content_type)
        .insert_header(("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox"))
        .insert_header(("cache-control", "private, max-age=3600"))
        .body(bytes))
}
