//! One path for each resource: with and without `/v1`, with and without a trailing slash.

use actix_web::dev::ServiceRequest;
use actix_web::http::{Method, Uri};

/// First segments that belong to `/v1`; AIML's clients often leave the version out.
const VERSIONED: &[&str] = &["images", "models", "billing", "organization", "key", "assistants"];

/// First segments that belong to no version; clients whose base address ends in `/v1` ask for them below it.
const UNVERSIONED: &[&str] = &["healthz", "readyz", "metrics", "openapi.json", "docs", "admin"];

/// Gives the request the path that routes are registered under. `HEAD` is answered as `GET`; the server leaves the body
/// out by itself.
pub fn normalize(request: &mut ServiceRequest) {
    if request.method() == Method::HEAD {
        request.head_mut().method = Method::GET;
    }
    let uri = request.uri();
    let Some(path) = normalized(uri.path()) else { return };
    let path_and_query = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut parts = uri.clone().into_parts();
    let Ok(path_and_query) = path_and_query.parse() else { return };
    parts.path_and_query = Some(path_and_query);
    let Ok(uri) = Uri::from_parts(parts) else { return };
    request.match_info_mut().get_mut().update(&uri);
    request.head_mut().uri = uri;
}

/// The path to use instead, if it is another one.
fn normalized(path: &str) -> Option<String> {
    let trimmed = path.trim_end_matches('/');
    let mut segments = trimmed.strip_prefix('/')?.split('/');
    let (first, second) = (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
    if first == "v1" && UNVERSIONED.contains(&second) {
        return trimmed.strip_prefix("/v1").map(str::to_owned);
    }
    if VERSIONED.contains(&first) {
        return Some(format!("/v1{trimmed}"));
    }
    if trimmed.len() == path.len() {
        return None;
    }
    Some(trimmed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_and_the_last_slash_may_be_left_out_or_not() {
        let normalized = |path: &str| normalized(path).unwrap_or_else(|| path.to_owned());
        for path in
            ["/v1/images/generations", "/v1/images/generations/", "/images/generations", "/images/generations//"]
        {
            assert_eq!(normalized(path), "/v1/images/generations");
        }
        assert_eq!(normalized("/models/flux/dev"), "/v1/models/flux/dev");
        assert_eq!(normalized("/admin/v1/generations/"), "/admin/v1/generations");
        assert_eq!(normalized("/healthz"), "/healthz");
        for (asked, found) in [
            ("/v1/healthz", "/healthz"),
            ("/v1/docs/", "/docs"),
            ("/v1/openapi.json", "/openapi.json"),
            ("/v1/admin/v1/generations", "/admin/v1/generations"),
            ("/v1/administrators", "/v1/administrators"),
        ] {
            assert_eq!(normalized(asked), found);
        }
        assert_eq!(normalized("/"), "/");
        assert_eq!(normalized("//"), "//");
    }
}
