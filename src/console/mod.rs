//! The console: pages for operators, made on the server. It is a client of the API inside the same process, so that a
//! page can show nothing else than what the API says, and can do nothing else.

mod chart;
mod form;
mod generations;
mod inside;
mod ledgers;
mod models;
mod overview;
mod page;
mod pictures;
mod playground;
mod projects;
mod session;
mod snippets;
mod usage;

use actix_web::middleware::from_fn;
use actix_web::{HttpResponse, web};

pub use inside::Inside;

/// The pages, for an application that has [`Inside`] and [`Services`](crate::api::Services) as its data. All but signing
/// in and the page's own files want a session.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/console/assets/{name}", web::get().to(asset))
        .service(
            web::resource("/console/sign-in")
                .route(web::get().to(session::show_sign_in))
                .route(web::post().to(session::sign_in)),
        )
        .service(
            web::scope("/console")
                .wrap(from_fn(session::guard))
                .route("", web::get().to(overview::show))
                .route("/sign-out", web::post().to(session::sign_out))
                .route("/usage", web::get().to(usage::show))
                .route("/usage.csv", web::get().to(usage::export))
                .route("/generations", web::get().to(generations::list))
                .route("/generations.csv", web::get().to(generations::export))
                .route("/generations/{id}", web::get().to(generations::show))
                .route("/generations/{id}/erase", web::post().to(generations::erase))
                .route("/generations/{id}/images/{n}", web::get().to(pictures::show))
                .route("/projects", web::get().to(projects::list))
                .route("/projects", web::post().to(projects::create))
                .route("/projects/{id}", web::get().to(projects::show))
                .route("/projects/{id}/{deed}", web::post().to(projects::change))
                .route("/projects/{id}/keys/{key}/{deed}", web::post().to(projects::change_key))
                .route("/models", web::get().to(models::list))
                .route("/holds", web::get().to(ledgers::holds))
                .route("/drift", web::get().to(ledgers::drift))
                .route("/audit", web::get().to(ledgers::audit))
                .route("/playground", web::get().to(playground::show))
                .route("/playground/quote", web::post().to(playground::quote))
                .route("/playground/run", web::post().to(playground::run))
                .route("/playground/{id}/progress", web::get().to(playground::progress))
                .default_service(web::to(nothing_here)),
        );
}

async fn nothing_here() -> Result<HttpResponse, crate::http::Problem> {
    Err(crate::http::Problem::new(crate::http::Code::NotFound, "the console has no such page"))
}

/// The page's own files; the same for everybody.
async fn asset(name: web::Path<String>) -> HttpResponse {
    let (content_type, body) = match name.as_str() {
        "console.css" => ("text/css; charset=utf-8", include_str!("assets/console.css")),
        "console.js" => ("text/javascript; charset=utf-8", include_str!("assets/console.js")),
        _ => return HttpResponse::NotFound().finish(),
    };
    HttpResponse::Ok()
        .insert_header(("cache-control", "no-cache"))
        .insert_header(("x-content-type-options", "nosniff"))
        .content_type(content_type)
        .body(body)
}
