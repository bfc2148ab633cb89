//! What an address that no route takes is answered: 405 where another method would do, else 404.

use actix_web::dev::ResourceDef;
use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use utoipa::openapi::OpenApi;

use crate::api;
use crate::http::{Code, Problem};

/// What an address that no route takes is answered.
pub async fn nothing_here(request: HttpRequest, known: web::Data<KnownPaths>) -> Result<HttpResponse, Problem> {
    let path = request.path();
    let allowed = known.methods(path).join(", ");
    let refused = if allowed.is_empty() {
        Problem::new(Code::NotFound, format!("there is nothing at `{path}`"))
    } else {
        let message = format!("`{path}` takes {allowed}, not {}", request.method());
        Problem::new(Code::MethodNotAllowed, message).header("allow", &allowed)
    };
    if !api::fal_clients::is_for_fals_clients(path) {
        return Err(refused);
    }
    let mut answer = api::fal_clients::refuse_in_fals_words(&request, refused);
    if let Ok(value) = HeaderValue::from_str(&allowed)
        && !value.is_empty()
    {
        answer.headers_mut().insert(ALLOW, value);
    }
    Ok(answer)
}

/// The paths of the document and their methods.
pub struct KnownPaths(Vec<(ResourceDef, Vec<&'static str>)>);

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
        // The document cannot say that a parameter may hold slashes; the route does.
        let route = |path: &str| {
            let with_slashes = api::ROUTES_WITH_SLASHES.iter().find(|route| route.replace(":.+", "") == path);
            ResourceDef::new(with_slashes.copied().unwrap_or(path))
        };
        Self(document.paths.paths.iter().map(|(path, item)| (route(path), methods(item))).collect())
    }

    fn methods(&self, path: &str) -> Vec<&'static str> {
        let matching = self.0.iter().filter(|(known, _)| known.is_match(path));
        matching.flat_map(|(_, methods)| methods.iter().copied()).collect()
    }
}
