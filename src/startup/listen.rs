//! The HTTP server: its sockets, its routes, and what is around every one of them.

use std::net::SocketAddr;
use std::time::Duration;

use actix_cors::Cors;
use actix_web::body::MessageBody;
use actix_web::dev::{Server, ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, ORIGIN};
use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::{App, Error, HttpResponse, HttpServer, web};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpSocket};
use tracing::info;
use utoipa::openapi::OpenApi;
use utoipa_actix_web::AppExt;

use super::known::{KnownPaths, nothing_here};
use super::{DRAIN, StartError, tls};
use crate::api::{Services, Upstream};
use crate::catalogue::Catalogue;
use crate::config::HttpSettings;
use crate::http::{BODY_TIME, Code, Edge, FrameTools, Problem, frame, normalize};
use crate::{admin, api, console, sandbox};

/// How long an idle connection is kept, so that clients need not connect for each image.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Longest time that a request's headers may take to arrive.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// Most connections that one worker (one for each core) keeps; more wait to be taken.
const CONNECTIONS: usize = 25_000;
/// Most connections that wait to be taken.
const WAITING: u32 = 2048;

/// Listens where the settings say; the address, and the server that serves there once it is awaited.
pub fn listen(
    http: &HttpSettings,
    sockets: Sockets,
    services: web::Data<Services>,
    tools: web::Data<FrameTools>,
) -> Result<(SocketAddr, Server), StartError> {
    let settings = http.clone();
    let Sockets { public, admin, tls } = sockets;
    let own = web::Data::new(api::access::AdminAddress(admin.as_ref().map(|(_, address)| *address)));
    let docs = web::Data::new(utoipa_swagger_ui::Config::from("/openapi.json").validator_url("none"));
    let body_limit = settings.body_limit;
    let cors_origins = settings.cors_origins.clone();
    let is_tls = tls.is_some();
    let edge = Edge { trusted: settings.trusted_proxies.clone().into(), body_time: BODY_TIME };
    let server = HttpServer::new(move || {
        let (app, api) = application();
        // Every route is in the document: a path that exists with another method gets 405, any other 404.
        let known = web::Data::new(KnownPaths::of(&api));
        app.app_data(services.clone())
            .app_data(tools.clone())
            .app_data(own.clone())
            .app_data(docs.clone())
            .app_data(known)
            .app_data(web::PayloadConfig::new(body_limit))
            .app_data(console::Inside::new(services.clone(), body_limit))
            .configure(console::routes)
            .service(web::resource("/").route(web::get().to(redirect_to_docs)))
            .service(web::resource("/docs").route(web::get().to(api::docs_page)))
            .service(web::resource("/docs/{file:.*}").route(web::get().to(api::docs_page)))
            .service(web::resource("/sandbox/files/{name:.*}").route(web::get().to(sandbox_file)))
            .default_service(web::to(nothing_here))
            .wrap(from_fn(api::access::authenticate))
            .wrap(from_fn(frame))
            .wrap(cors(cors_origins.as_deref()))
            .wrap(security_headers(is_tls))
            .wrap_fn({
                let edge = edge.clone();
                move |mut request, service| {
                    edge.receive(&mut request);
                    normalize(&mut request);
                    // `IMAGEGATE_CORS_ORIGINS` is for the public face only.
                    let is_public = !api::access::is_operators_api(request.path());
                    if !is_public {
                        request.headers_mut().remove(ORIGIN);
                    }
                    let answer = actix_web::dev::Service::call(service, request);
                    async move {
                        let mut response = answer.await?;
                        if !is_public {
                            response.headers_mut().remove(ACCESS_CONTROL_ALLOW_ORIGIN);
                        }
                        Ok(response)
                    }
                }
            })
    })
    // A client that hangs up must be noticed: half-closed connections look the same until the answer is written.
    .h1_allow_half_closed(false)
    .keep_alive(KEEP_ALIVE)
    .client_request_timeout(HEADER_TIME)
    .max_connections(CONNECTIONS)
    .disable_signals()
    .shutdown_timeout(DRAIN.as_secs());
    let (socket, address) = public;
    let listener = socket.listen(WAITING).and_then(TcpListener::into_std);
    let server = listener.and_then(|listener| match &tls {
        None => server.listen(listener),
        Some(tls) => server.listen_rustls_0_23(listener, tls.clone()),
    });
    let server = server.map_err(|source| StartError::Bind { address, source })?;
    let server = match admin {
        None => server,
        Some((socket, address)) => {
            info!(%address, "the operators' face has an address of its own");
            let listener = socket.listen(WAITING).and_then(TcpListener::into_std);
            let server = listener.and_then(|listener| match tls {
                None => server.listen(listener),
                Some(tls) => server.listen_rustls_0_23(listener, tls),
            });
            server.map_err(|source| StartError::AdminBind { address, source })?
        }
    };
    Ok((address, server.run()))
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

/// The routes and the document that they make.
fn application() -> (
    App<
        impl ServiceFactory<
            ServiceRequest,
            Config = (),
            Response = ServiceResponse<impl MessageBody>,
            Error = Error,
            InitError = (),
        >,
    >,
    OpenApi,
) {
    let (app, mut document) =
        App::new().into_utoipa_app().configure(api::routes).configure(admin::routes).split_for_parts();
    api::openapi_document(&mut document);
    (app, document)
}

/// The OpenAPI document of a catalogue, as text.
pub fn document(catalogue: &Catalogue) -> Result<String, serde_json::Error> {
    let (_, document) = application();
    api::render_document(&document, catalogue)
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
    let cors = Cors::default()
        .allow_any_method()
        .allow_any_header()
        .expose_any_header()
        .block_on_origin_mismatch(false)
        .max_age(3600);
    match origins {
        None => cors.allow_any_origin().send_wildcard(),
        Some(origins) => origins.iter().fold(cors, |cors, origin| cors.allowed_origin(origin)),
    }
}

async fn redirect_to_docs() -> HttpResponse {
    HttpResponse::SeeOther().insert_header(("location", "/docs/index.html")).finish()
}

/// The stand-in's files under the gateway's own address.
async fn sandbox_file(name: web::Path<String>, services: web::Data<Services>) -> Result<HttpResponse, Problem> {
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
