//! fal's storage: where an input file is to be put. The client puts it there itself.

use actix_web::HttpResponse;

use super::refusal::Refusal;
use super::{PROVIDER, Visit};
use crate::api::errors::upload_problem;
use crate::providers::FileWish;

/// Longest file name or type.
const WORD_LIMIT: usize = 255;

/// `POST https://rest.fal.ai/storage/upload/initiate`: the two addresses of the file.
pub async fn announce(visit: &Visit, body: &[u8]) -> Result<HttpResponse, Refusal> {
    let file: FileWish = serde_json::from_slice(body)
        .map_err(|fault| Refusal::field(&["body"], "value_error", &format!("the file cannot be read: {fault}")))?;
    for (name, word) in [("content_type", &file.content_type), ("file_name", &file.file_name)] {
        if word.is_empty() || word.len() > WORD_LIMIT {
            let message = format!("`{name}` has 1 to {WORD_LIMIT} bytes");
            return Err(Refusal::field(&["body", name], "value_error", &message));
        }
    }
    let place = visit.services.gateway.announce_upload(PROVIDER, &file).await;
    Ok(HttpResponse::Ok().json(place.map_err(|failure| upload_problem("fal's", &failure))?))
}
