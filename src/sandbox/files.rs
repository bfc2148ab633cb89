//! The files of pictures, drawn from their names.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS};
use actix_web::{HttpResponse, web};
use serde_json::json;

use super::picture::render_file;
use super::{Sandbox, answers};

/// `GET /files/b/{hex}/{name}`: the picture that the name describes, open to all, as fal's files are.
pub async fn get_file(path: web::Path<(String, String)>, sandbox: web::Data<Sandbox>) -> HttpResponse {
    let name = path.into_inner().1;
    let Some(file) = sandbox.render(move || render_file(&name)).await else {
        return answers::json(404, &json!({"detail": "Not Found"}));
    };
    sandbox.tally.counts().files_served += 1;
    HttpResponse::Ok()
        .content_type(file.content_type)
        .insert_header((CACHE_CONTROL, "public, max-age=31536000, immutable"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"))
        .body(file.bytes)
}
