//! The console: pages for operators, made on the server. It is a client of the API inside the same process, so that a
//! page can show nothing else than what the API says, and can do nothing else.

mod admin_keys;
mod aliases;
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
use actix_web::{HttpResponse, Scope, web};

use crate::api::access::{Open, method_not_allowed, page, resources};
use inside::Visit;

pub use inside::Inside;

/// What the paths of the console begin with.
const PREFIX: &str = "/console";

/// The pages, for an application that has [`Inside`] and [`Services`](crate::api::Services) as its data. All but signing
/// in and the page's own files require a session, which the scope around them checks before the page does.
pub fn routes(config: &mut web::ServiceConfig) {
    let open = vec![
        page!(GET "/console/assets/{name}" => asset),
        page!(GET "/console/sign-in" => session::show_sign_in),
        page!(POST "/console/sign-in" => session::sign_in),
    ];
    for resource in resources("", open, method_not_allowed) {
        config.service(resource);
    }
    let pages = vec![
        page!(GET "/console" => overview::show),
        page!(POST "/console/sign-out" => session::sign_out),
        page!(GET "/console/usage" => usage::show),
        page!(GET "/console/usage.csv" => usage::export),
        page!(GET "/console/generations" => generations::list),
        page!(GET "/console/generations.csv" => generations::export),
        page!(GET "/console/generations/{id}" => generations::show),
        page!(POST "/console/generations/{id}/erase" => generations::erase),
        page!(GET "/console/generations/{id}/images/{n}" => pictures::show),
        page!(GET "/console/projects" => projects::list),
        page!(POST "/console/projects" => projects::create),
        page!(GET "/console/projects/{id}" => projects::show),
        page!(POST "/console/projects/{id}/{action}" => projects::change),
        page!(POST "/console/projects/{id}/aliases/{action}" => aliases::change_of_project),
        page!(POST "/console/projects/{id}/keys/{key}/{action}" => projects::change_key),
        page!(GET "/console/admin-keys" => admin_keys::list),
        page!(POST "/console/admin-keys" => admin_keys::create),
        page!(POST "/console/admin-keys/{id}/revoke" => admin_keys::revoke),
        page!(GET "/console/models" => models::list),
        page!(POST "/console/models/aliases/{action}" => aliases::change_of_all),
        page!(GET "/console/holds" => ledgers::holds),
        page!(GET "/console/drift" => ledgers::drift),
        page!(GET "/console/audit" => ledgers::audit),
        page!(GET "/console/playground" => playground::show),
        page!(POST "/console/playground/quote" => playground::quote),
        page!(POST "/console/playground/run" => playground::run),
        page!(GET "/console/playground/{id}/progress" => playground::progress),
    ];
    let scope = web::scope(PREFIX).wrap(from_fn(session::guard));
    let scope = resources(PREFIX, pages, method_not_allowed).into_iter().fold(scope, Scope::service);
    config.service(scope.default_service(web::to(nothing_here)));
}

async fn nothing_here(_: Visit) -> Result<HttpResponse, crate::http::Problem> {
    Err(crate::http::Problem::new(crate::http::Code::NotFound, "the console has no such page"))
}

/// The page's own files; the same for everybody.
async fn asset(_: Open, name: web::Path<String>) -> HttpResponse {
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
