//! fal's storage: where an input file is to be put. The client puts it there itself.

use actix_web::HttpResponse;

use super::refusal::Refusal;
use super::{PROVIDER, Visit};
use crate::accounts::{NewFile, Scope};
use crate::api::author::accounts_of;
use crate::api::errors::upload_problem;
use crate::api::generations::project_of;
use crate::http::{Code, Problem};
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
    if !visit.caller.scopes.contains(Scope::Files) {
        let message = format!("this key may not upload: it lacks the scope `{}`", Scope::Files);
        return Err(Problem::new(Code::PermissionDenied, message).into());
    }
    let accounts = accounts_of(&visit.request, &visit.caller, &visit.services);
    // Its size is not known here: the client sends it to fal itself.
    let new = NewFile {
        project_id: project_of(&visit.caller)?,
        api_key_id: visit.caller.api_key_id,
        name: file.file_name.clone(),
        purpose: "vision".to_owned(),
        bytes: 0,
        content_type: file.content_type.clone(),
    };
    let announced = accounts.announce_file(new).await.map_err(Problem::from)?;
    match visit.services.gateway.announce_upload(PROVIDER, &file).await {
        Ok(place) => {
            accounts.place_file(announced, &place.file_url).await.map_err(Problem::from)?;
            Ok(HttpResponse::Ok().json(place))
        }
        Err(failure) => {
            accounts.withdraw_file(announced.id).await;
            Err(upload_problem("fal's", &failure).into())
        }
    }
}
