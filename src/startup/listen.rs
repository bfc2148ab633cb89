//! The HTTP server: its sockets, its routes, and what is around every one of them.

use std::net::SocketAddr;

use actix_cors::Cors;
use actix_web::dev::Server;
use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::{App, HttpMessage as _, HttpRequest, HttpResponse, Scope, web};
use rustls::ServerConfig;
use tokio::net::TcpSocket;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::server::serve;
use super::{DRAIN, StartError, tls};
use crate::api::access::{
    Access, Open, OperatorsListener, method_not_allowed, page, path_not_found, require_admin, resources,
};
use crate::api::{Services, Upstream};
use crate::catalogue::Catalogue;
use crate::config::HttpSettings;
use crate::http::{Code, FrameTools, PrivatePath, Problem, frame};
use crate::{admin, api, console, sandbox};

/// Most connections that wait to be taken.
const WAITING: u32 = 2048;

/// Listens where the settings say: the address of the public API, and the servers that serve once they are awaited.
///
/// Without `IMAGEGATE_ADMIN_BIND` one listener has everything. With it the public listener has no route of the admin API,
/// the console or the metrics, and the other has only those and what is open to everybody.
pub fn listen(
    http: &HttpSettings,
    sockets: Sockets,
    services: &web::Data<Services>,
    tools: &web::Data<FrameTools>,
    stop: &CancellationToken,
) -> Result<(SocketAddr, Vec<Server>), StartError> {
    let Sockets { public, admin, tls } = sockets;
    let (socket, address) = public;
    let shared = Shared { http, tls, services, tools, stop: stop.clone() };
    let parts = if admin.is_some() { Parts::Public } else { Parts::All };
    let server = serve_parts(&shared, parts, socket);
    let mut servers = vec![server.map_err(|source| StartError::Bind { address, source })?];
    if let Some((socket, address)) = admin {
        info!(%address, "the admin API has an address of its own");
        let server = serve_parts(&shared, Parts::Operators, socket);
        servers.push(server.map_err(|source| StartError::AdminBind { address, source })?);
    }
    Ok((address, servers))
}

/// Which routes a listener has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parts {
    All,
    Public,
    Operators,
}

/// What all listeners share.
struct Shared<'a> {
    http: &'a HttpSettings,
    tls: Option<ServerConfig>,
    services: &'a web::Data<Services>,
    tools: &'a web::Data<FrameTools>,
    stop: CancellationToken,
}

fn serve_parts(shared: &Shared<'_>, parts: Parts, socket: TcpSocket) -> std::io::Result<Server> {
    let docs = web::Data::new(utoipa_swagger_ui::Config::from("/openapi.json").validator_url("none"));
    let body_limit = shared.http.body_limit;
    let cors_origins = shared.http.cors_origins.clone();
    let is_tls = shared.tls.is_some();
    let (services, tools) = (shared.services.clone(), shared.tools.clone());
    let app = move || {
        App::new()
            .app_data(services.clone())
            .app_data(tools.clone())
            .app_data(docs.clone())
            .app_data(web::PayloadConfig::new(body_limit))
            .app_data(console::Inside::new(services.clone(), body_limit))
            .configure(|config| {
                if parts != Parts::Public {
                    operators_routes(config, parts);
                }
                if parts == Parts::Operators {
                    config.app_data(OperatorsListener);
                    open_routes(config);
                } else {
                    public_routes(config, cors_origins.as_deref());
                }
                pages(config);
            })
            .default_service(web::to(path_not_found))
            .wrap(from_fn(api::state_lag))
            .wrap(from_fn(frame))
            .wrap(security_headers(is_tls))
    };
    let listener = socket.listen(WAITING)?;
    serve(listener, shared.tls.clone(), DRAIN, shared.stop.clone(), app)
}

/// The public API, which pages of other sites may call as `IMAGEGATE_CORS_ORIGINS` says.
fn public_routes(config: &mut web::ServiceConfig, origins: Option<&[String]>) {
    for resource in resources("", api::endpoints(), method_not_allowed) {
        config.service(resource.wrap(cors(origins)));
    }
    for resource in resources("", api::fal_clients::endpoints(), api::fal_clients::fal_method_not_allowed) {
        config.service(resource.wrap(cors(origins)));
    }
}

/// What everybody may call, for the listener of the operators.
fn open_routes(config: &mut web::ServiceConfig) {
    let open = api::endpoints().into_iter().filter(|endpoint| endpoint.access() == Access::Open).collect();
    for resource in resources("", open, method_not_allowed) {
        config.service(resource);
    }
}

/// The admin API, the console and the metrics. Around the first and the last is a guard of their own, which refuses all
/// but admin keys whatever a handler says.
fn operators_routes(config: &mut web::ServiceConfig, parts: Parts) {
    let (mut rest, mut scopes) = (admin::endpoints(), Vec::new());
    for prefix in admin::PREFIXES {
        let (below, others) = rest.into_iter().partition(|endpoint| endpoint.is_below(prefix));
        rest = others;
        let resources = resources(prefix, below, method_not_allowed);
        scopes.push(resources.into_iter().fold(web::scope(prefix), Scope::service));
    }
    for scope in scopes {
        config.service(scope.default_service(web::to(path_not_found)).wrap(from_fn(require_admin)));
    }
    if parts == Parts::Operators {
        for resource in resources("", vec![api::open_metrics_endpoint()], method_not_allowed) {
            config.service(resource);
        }
    } else {
        for resource in resources("", vec![api::metrics_endpoint()], method_not_allowed) {
            config.service(resource.wrap(from_fn(require_admin)));
        }
    }
    config.configure(console::routes);
}

/// Pages for people that are not part of the document.
fn pages(config: &mut web::ServiceConfig) {
    let pages = vec![
        page!(GET "/" => redirect_to_docs),
        page!(GET "/docs" => api::docs_page),
        page!(GET "/docs/{file:.*}" => api::docs_page),
        page!(GET "/sandbox/files/{name:.*}" => sandbox_file),
    ];
    for resource in resources("", pages, method_not_allowed) {
        config.service(resource);
    }
}

/// The addresses that are listened on and the certificate. They are bound before anything runs, so that a port that is
/// taken ends the start with nothing to stop; nobody can connect before [`listen`].
pub struct Sockets {
    public: (TcpSocket, SocketAddr),
    /// The operators' face's own.
    admin: Option<(TcpSocket, SocketAddr)>,
    tls: Option<ServerConfig>,
}

impl Sockets {
    /// Binds what the settings name.
    pub fn bind(http: &HttpSettings) -> Result<Self, StartError> {
        let public = bind(http.bind).map_err(|source| StartError::Bind { address: http.bind, source })?;
        let own = |address| bind(address).map_err(|source| StartError::AdminBind { address, source });
        let admin = http.admin_bind.map(own).transpose()?;
        Ok(Self { public, admin, tls: http.tls.as_ref().map(tls::server_config).transpose()? })
    }
}

/// A socket that holds the address, and the port that it got.
fn bind(address: SocketAddr) -> std::io::Result<(TcpSocket, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let bound = socket.local_addr()?;
    Ok((socket, bound))
}

/// The OpenAPI document of a catalogue, as text.
pub fn document(catalogue: &Catalogue) -> Result<String, serde_json::Error> {
    let mut endpoints = api::endpoints();
    endpoints.push(api::metrics_endpoint());
    endpoints.extend(api::fal_clients::endpoints());
    endpoints.extend(admin::endpoints());
    api::render_document(&api::openapi_document(&endpoints), catalogue)
}

/// What every browser is told, whatever the answer.
fn security_headers(is_tls: bool) -> DefaultHeaders {
    let headers = DefaultHeaders::new()
        .add(("x-content-type-options", "nosniff"))
        .add(("x-frame-options", "DENY"))
        .add(("referrer-policy", "no-referrer"));
    if is_tls { headers.add(("strict-transport-security", "max-age=31536000")) } else { headers }
}

fn cors(origins: Option<&[String]>) -> Cors {
    let cors = Cors::default().allow_any_method().allow_any_header().block_on_origin_mismatch(false).max_age(3600);
    match origins {
        None => cors.allow_any_origin().send_wildcard(),
        Some(origins) => origins.iter().fold(cors, |cors, origin| cors.allowed_origin(origin)),
    }
}

async fn redirect_to_docs(_: Open) -> HttpResponse {
    HttpResponse::SeeOther().insert_header(("location", "/docs/index.html")).finish()
}

/// The stand-in's files under the gateway's own address.
async fn sandbox_file(
    _: Open,
    request: HttpRequest,
    name: web::Path<String>,
    services: web::Data<Services>,
) -> Result<HttpResponse, Problem> {
    // The names of the stand-in's files contain prompts.
    request.extensions_mut().insert(PrivatePath);
    let not_found = || Problem::new(Code::NotFound, "there is no such file");
    if services.upstream == Upstream::Fal {
        return Err(not_found());
    }
    let name = name.into_inner();
    let file = web::block(move || sandbox::render_file(&name)).await.ok().flatten().ok_or_else(not_found)?;
    Ok(HttpResponse::Ok()
        .insert_header(("cache-control", "public, max-age=31536000, immutable"))
        .content_type(file.content_type)
        .body(file.bytes))
}
