//! Who may come in: every route is closed unless it is named here.

use std::net::SocketAddr;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::AUTHORIZATION;
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, web};
use tracing::info;

use super::Services;
use super::errors::key_problem;
use super::fal_clients::{is_for_fals_clients, refuse_in_fals_words};
use crate::accounts::{Caller, CallerKind};
use crate::http::{Code, Problem};

/// Paths that need no key.
const OPEN: &[&str] = &["/", "/healthz", "/readyz", "/openapi.json", "/docs", "/v1/models"];
/// What lies below these needs no key either.
const OPEN_BELOW: &[&str] = &["/docs/", "/v1/models/", "/sandbox/files/", "/files/", "/fal/webhooks/"];
/// What lies below these wants an admin key.
const ADMIN_BELOW: &[&str] = &["/admin/", "/v1/organization/"];
/// What lies below wants a session, which the console checks itself; it is served where the operators' face is.
const CONSOLE: &str = "/console";
/// Wants an admin key, unless the operators' face has an address of its own: a scraper needs no key there.
const METRICS: &str = "/metrics";

/// Where the operators' face listens, if it has an address of its own; application data.
#[derive(Debug, Clone, Copy)]
pub struct AdminAddress(pub Option<SocketAddr>);

/// Whether a path is served where the request came in: the operators' face only at its own address, if it has one, and
/// there no other but what is open to all.
fn is_served_here(request: &ServiceRequest) -> bool {
    let demand = demand_of(request.path());
    match admin_address(request) {
        None => true,
        Some(_) if demand == Demand::Nothing => true,
        Some(own) => (request.app_config().local_addr() == own) == demand.is_the_operators(),
    }
}

fn admin_address(request: &ServiceRequest) -> Option<SocketAddr> {
    request.app_data::<web::Data<AdminAddress>>().and_then(|address| address.0)
}

/// Whether a path is the API of the operators, which no page of another site may call.
#[must_use]
pub fn is_operators_api(path: &str) -> bool {
    demand_of(path) == Demand::AdminKey
}

/// What a path demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Demand {
    Nothing,
    ProjectKey,
    AdminKey,
    Session,
}

impl Demand {
    fn is_the_operators(self) -> bool {
        matches!(self, Self::AdminKey | Self::Session)
    }
}

fn demand_of(path: &str) -> Demand {
    let below = |prefixes: &[&str]| prefixes.iter().any(|prefix| path.starts_with(prefix));
    if OPEN.contains(&path) || below(OPEN_BELOW) {
        Demand::Nothing
    } else if below(ADMIN_BELOW) || path == METRICS {
        Demand::AdminKey
    } else if path == CONSOLE || path.strip_prefix(CONSOLE).is_some_and(|rest| rest.starts_with('/')) {
        Demand::Session
    } else {
        Demand::ProjectKey
    }
}

/// The middleware: puts the [`Caller`] into the request, or refuses it.
pub async fn authenticate<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if !is_served_here(&request) {
        let problem = Problem::new(Code::NotFound, format!("there is nothing at `{}`", request.path()));
        return Ok(request.error_response(problem));
    }
    let demand = match demand_of(request.path()) {
        Demand::AdminKey if request.path() == METRICS && admin_address(&request).is_some() => Demand::Nothing,
        demand => demand,
    };
    let wants_key = matches!(demand, Demand::ProjectKey | Demand::AdminKey);
    if wants_key && request.method() != Method::OPTIONS {
        match admit(&request, demand) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
            }
            Err(problem) if is_for_fals_clients(request.path()) => {
                let answer = refuse_in_fals_words(request.request(), problem);
                return Ok(request.into_response(answer));
            }
            Err(problem) => return Ok(request.error_response(problem)),
        }
    }
    next.call(request).await.map(ServiceResponse::map_into_boxed_body)
}

fn admit(request: &ServiceRequest, demand: Demand) -> Result<Caller, Problem> {
    let services = request
        .app_data::<web::Data<Services>>()
        .ok_or_else(|| Problem::new(Code::InternalError, "the gateway is not set up"))?;
    let key = bearer(request)?;
    let caller = services.accounts.authenticate(key, services.clock.now()).map_err(|reason| {
        // Told apart in the log only: no text tells whether a key exists.
        info!(%reason, "a key was refused");
        key_problem(reason)
    })?;
    let fits = match caller.kind {
        CallerKind::Admin => demand == Demand::AdminKey,
        CallerKind::Project(_) => demand == Demand::ProjectKey,
    };
    if fits {
        return Ok(caller);
    }
    if demand == Demand::ProjectKey
        && let Some(caller) = caller.as_project()
    {
        return Ok(caller);
    }
    let wanted = if demand == Demand::AdminKey { "an admin key" } else { "a project key" };
    Err(Problem::new(Code::PermissionDenied, format!("this path wants {wanted}")))
}

/// The key of `Authorization: Bearer <key>`; fal's clients write `Key <key>`.
fn bearer(request: &ServiceRequest) -> Result<&str, Problem> {
    let missing = || {
        let message = "this request requires an API key: send it as `Authorization: Bearer <key>`";
        Problem::new(Code::InvalidApiKey, message).header("www-authenticate", "Bearer")
    };
    let value = request.headers().get(AUTHORIZATION).ok_or_else(missing)?;
    let value = value.to_str().map_err(|_| missing())?;
    let (scheme, key) = value.split_once(' ').ok_or_else(missing)?;
    let key = key.trim();
    let fals = is_for_fals_clients(request.path()) && scheme.eq_ignore_ascii_case("key");
    if !(fals || scheme.eq_ignore_ascii_case("bearer")) || key.is_empty() {
        return Err(missing());
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_nobody_named_is_closed() {
        for path in [
            "/v1/images/generations",
            "/v1/anything",
            "/metrics",
            "/admin",
            "/docsx",
            "/sandbox",
            "/v1/modelsx",
            "/fal/proxy",
            "/consoles",
        ] {
            assert_ne!(demand_of(path), Demand::Nothing, "{path}");
        }
        for path in ["/healthz", "/v1/models", "/v1/models/flux/dev", "/docs/index.css", "/openapi.json"] {
            assert_eq!(demand_of(path), Demand::Nothing, "{path}");
        }
    }

    #[test]
    fn the_operators_face_wants_an_admin_key() {
        for path in ["/admin/v1/generations", "/v1/organization/usage/images", "/metrics"] {
            assert_eq!(demand_of(path), Demand::AdminKey, "{path}");
        }
        assert_eq!(demand_of("/v1/images/generations"), Demand::ProjectKey);
        assert_eq!((demand_of("/console"), demand_of("/console/usage")), (Demand::Session, Demand::Session));
    }
}
