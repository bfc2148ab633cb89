//! What an address that no route takes is answered: 405 where another method would do, else 404.

use actix_web::{HttpRequest, HttpResponse, web};
use utoipa::openapi::OpenApi;

use crate::api;
use crate::http::{Code, Problem};

/// What an address that no route takes is answered.
pub async fn nothing_here(request: HttpRequest, known: web::Data<KnownPaths>) -> Result<HttpResponse, Problem> {
    let refused = nothing_known_here(&request, &known);
    if api::fal_clients::is_for_fals_clients(request.path()) {
        return Ok(api::fal_clients::refuse_in_fals_words(&request, refused));
    }
    Err(refused)
}

fn nothing_known_here(request: &HttpRequest, known: &KnownPaths) -> Problem {
    let methods = known.methods(request.path());
    if methods.is_empty() {
        return Problem::new(Code::NotFound, format!("there is nothing at `{}`", request.path()));
    }
    let allowed = methods.join(", ");
    let message = format!("`{}` takes {allowed}, not {}", request.path(), request.method());
    Problem::new(Code::MethodNotAllowed, message).header("allow", &allowed)
}

/// The paths of the document and their methods.
pub struct KnownPaths(Vec<(actix_web::dev::ResourceDef, Vec<&'static str>)>);

impl KnownPaths {
    /// Those of a document.
    pub fn of(document: &OpenApi) -> Self {
        let methods = |item: &utoipa::openapi::PathItem| {
            let all = [
                ("GET", item.get.is_some()),
                ("POST", item.post.is_some()),
                ("PUT", item.put.is_some()),
                ("PATCH", item.patch.is_some()),
                ("DELETE", item.delete.is_some()),
            ];
            all.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
        };
        let paths = document.paths.paths.iter();
        Self(paths.map(|(path, item)| (actix_web::dev::ResourceDef::new(path.as_str()), methods(item))).collect())
    }

    fn methods(&self, path: &str) -> Vec<&'static str> {
        let matching = self.0.iter().filter(|(known, _)| known.is_match(path));
        matching.flat_map(|(_, methods)| methods.iter().copied()).collect()
    }
}
