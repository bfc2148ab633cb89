//! Starts and stops the stand-in's server, on a thread of its own.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};

use actix_cors::Cors;
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServerHandle, ServiceRequest, ServiceResponse};
use actix_web::http::header::ORIGIN;
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, Error, HttpResponse, HttpServer, web};
use tokio::sync::oneshot;

use super::{
    BODY_LIMIT, Sandbox, SandboxError, Settings, billing, control, files, misbehave, platform, queue, run, storage,
    webhooks,
};
use crate::domain::{Clock, IdSource};

/// Seconds that a stop waits for open connections.
const SHUTDOWN_SECONDS: u64 = 1;

/// A running stand-in. Dropped, it stops without waiting.
#[derive(Debug)]
pub struct Running {
    scheme: &'static str,
    addresses: Addresses,
    handle: ServerHandle,
    done: Option<oneshot::Receiver<()>>,
}

/// Starts the stand-in.
///
/// It brings its own thread and runtime, so it can be started from anywhere: from tokio, from actix, or from no runtime.
/// Returns once it listens. Errors if the address cannot be had.
pub fn start(settings: Settings, clock: Arc<dyn Clock>, ids: Arc<dyn IdSource>) -> Result<Running, SandboxError> {
    let sandbox = web::Data::new(Sandbox::new(&settings, clock, ids)?);
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    let (started, wait_for_start) = mpsc::sync_channel(1);
    let (finished, done) = oneshot::channel();
    std::thread::Builder::new()
        .name("sandbox".to_owned())
        .spawn(move || {
            serve(&settings, &sandbox, &started);
            let _ = finished.send(());
        })
        .map_err(SandboxError::Thread)?;
    let ended = |_| SandboxError::Thread(std::io::Error::other("it ended at once"));
    let (addresses, handle) = wait_for_start.recv().map_err(ended)??;
    Ok(Running { scheme, addresses, handle, done: Some(done) })
}

type Started = Result<(Addresses, ServerHandle), SandboxError>;

#[derive(Debug, Clone, Copy)]
struct Addresses {
    queue: SocketAddr,
    run: Option<SocketAddr>,
}

fn serve(settings: &Settings, sandbox: &web::Data<Sandbox>, started: &mpsc::SyncSender<Started>) {
    let system = actix_web::rt::System::new();
    let shared = sandbox.clone();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(shared.clone())
            .app_data(web::PayloadConfig::new(BODY_LIMIT))
            .service(web::scope("/__sandbox").wrap(from_fn(refuse_browsers)).configure(control_routes))
            .service(web::scope("").wrap(Cors::permissive()).configure(routes))
    })
    .on_connect(misbehave::remember_connection)
    .workers(settings.workers.max(1))
    .shutdown_timeout(SHUTDOWN_SECONDS)
    .disable_signals();
    let bind = |server: HttpServer<_, _, _, _>, address| {
        let bound = match settings.tls.clone() {
            Some(tls) => server.bind_rustls_0_23(address, tls),
            None => server.bind(address),
        };
        let server = bound.map_err(|source| SandboxError::Bind { address, source })?;
        let bound = server.addrs().last().copied().unwrap_or(address);
        Ok((server, bound))
    };
    let bound = bind(server, settings.bind).and_then(|(server, queue)| match settings.run_bind {
        None => Ok((Addresses { queue, run: None }, server)),
        Some(address) => bind(server, address).map(|(server, run)| (Addresses { queue, run: Some(run) }, server)),
    });
    match bound {
        Err(error) => {
            let _ = started.send(Err(error));
        }
        // The server is made inside the runtime: it starts its workers at once.
        Ok((addresses, server)) => system.block_on(async move {
            if let Some(run) = addresses.run {
                let _ = sandbox.run_port.set(run.port());
            }
            let server = server.run();
            if started.send(Ok((addresses, server.handle()))).is_ok()
                && let Err(error) = server.await
            {
                tracing::error!(%error, "the sandbox ended");
            }
        }),
    }
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/files/b/{hex}/{name}", web::get().to(files::get_file))
        .route("/files/b/{hex}/{name}", web::head().to(files::get_file))
        .route("/files/upload", web::post().to(storage::post_upload))
        .route("/storage/auth/token", web::post().to(storage::create_token))
        .route("/storage/upload/initiate", web::post().to(storage::initiate))
        .route("/storage/upload/{name}", web::put().to(storage::put_upload))
        .route("/.well-known/jwks.json", web::get().to(webhooks::get_keys))
        .route("/v1/models", web::get().to(platform::list_models))
        .route("/v1/models/pricing", web::get().to(platform::get_pricing))
        .route("/v1/models/billing-events", web::get().to(billing::list_events))
        .route("/run/{path:.*}", web::to(run::answer))
        .default_service(web::to(queue::answer));
}

/// The stand-in's own routes: for programs, and not for pages of a browser.
fn control_routes(config: &mut web::ServiceConfig) {
    config
        .route("/state", web::get().to(control::get_state))
        .route("/reset", web::post().to(control::reset))
        .route("/behaviour", web::get().to(control::get_behaviour))
        .route("/behaviour", web::post().to(control::add_behaviour))
        .route("/behaviour", web::delete().to(control::clear_behaviour));
}

async fn refuse_browsers<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    if request.headers().contains_key(ORIGIN) {
        let refused = HttpResponse::Forbidden().body("these routes are not for pages of a browser");
        return Ok(request.into_response(refused).map_into_right_body());
    }
    next.call(request).await.map(ServiceResponse::map_into_left_body)
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addresses.queue
    }

    /// What stands for `https://queue.fal.run`.
    #[must_use]
    pub fn queue_url(&self) -> String {
        format!("{}://{}", self.scheme, self.addresses.queue)
    }

    /// What stands for `https://fal.run`.
    #[must_use]
    pub fn run_url(&self) -> String {
        match self.addresses.run {
            Some(address) => format!("{}://{address}", self.scheme),
            None => format!("{}/run", self.queue_url()),
        }
    }

    /// What stands for `https://rest.fal.ai`.
    #[must_use]
    pub fn rest_url(&self) -> String {
        self.queue_url()
    }

    /// What stands for `https://api.fal.ai/v1`.
    #[must_use]
    pub fn platform_url(&self) -> String {
        format!("{}/v1", self.queue_url())
    }

    /// Stops taking requests, waits for the open ones for a second, and returns when the port is free.
    pub async fn stop(mut self) {
        self.handle.stop(true).await;
        if let Some(done) = self.done.take() {
            let _ = done.await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.done.is_some() {
            drop(self.handle.stop(false));
        }
    }
}
