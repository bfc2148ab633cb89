//! Files: pictures, drawn from their names, and uploads.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use serde_json::json;

use super::behaviour::Stage;
use super::misbehave::obey;
use super::picture::Picture;
use super::{Sandbox, answers};

/// `GET /files/b/{hex}/{name}`: the picture that the name describes, or an upload; open to all, as fal's files are.
pub async fn get_file(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    sandbox: web::Data<Sandbox>,
) -> HttpResponse {
    let name = path.into_inner().1;
    if sandbox.deleted.has(&name) {
        return answers::json(404, &json!({"detail": "Not Found"}));
    }
    let picture = Picture::from_file_name(&name);
    let words = picture.as_ref().map(Picture::words).unwrap_or_default();
    let action = sandbox.rules.take(Stage::File, None, words);
    obey(&request, &sandbox, action, async {
        let (content_type, bytes) = match (sandbox.uploads.find(&name), picture) {
            (Some(upload), _) => upload,
            (None, Some(picture)) => match sandbox.render(move || picture.render()).await {
                Some(file) => (file.content_type.to_owned(), file.bytes),
                None => return answers::json(500, &json!({"detail": "Internal Server Error"})),
            },
            (None, None) => return answers::json(404, &json!({"detail": "Not Found"})),
        };
        sandbox.tally.counts().files_served += 1;
        served(content_type, bytes)
    })
    .await
}

fn served(content_type: String, bytes: Bytes) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(content_type)
        .insert_header((CACHE_CONTROL, "public, max-age=31536000, immutable"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"))
        .body(bytes)
}
