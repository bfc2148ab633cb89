//! Starts and stops the stand-in's server, on a thread of its own.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};

use actix_cors::Cors;
use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use tokio::sync::oneshot;

use super::{Sandbox, SandboxError, Settings, control, files, platform, queue};
use crate::domain::{Clock, IdSource};

/// Seconds that a stop waits for open connections.
const SHUTDOWN_SECONDS: u64 = 1;

/// A running stand-in. Dropped, it stops without waiting.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    handle: ServerHandle,
    done: Option<oneshot::Receiver<()>>,
}

/// Starts the stand-in.
///
/// It brings its own thread and runtime, so it can be started from anywhere: from tokio, from actix, or from no runtime.
/// Returns once it listens. Errors if the address cannot be had.
pub fn start(settings: Settings, clock: Arc<dyn Clock>, ids: Arc<dyn IdSource>) -> Result<Running, SandboxError> {
    let sandbox = web::Data::new(Sandbox::new(&settings, clock, ids)?);
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
    let (address, handle) = wait_for_start.recv().map_err(ended)??;
    Ok(Running { address, handle, done: Some(done) })
}

type Started = Result<(SocketAddr, ServerHandle), SandboxError>;

fn serve(settings: &Settings, sandbox: &web::Data<Sandbox>, started: &mpsc::SyncSender<Started>) {
    let system = actix_web::rt::System::new();
    let shared = sandbox.clone();
    let server =
        HttpServer::new(move || App::new().app_data(shared.clone()).wrap(Cors::permissive()).configure(routes))
            .workers(settings.workers.max(1))
            .shutdown_timeout(SHUTDOWN_SECONDS)
            .disable_signals()
            .bind(settings.bind);
    let failed = |source| SandboxError::Bind { address: settings.bind, source };
    let server = server.and_then(|server| {
        let address = server.addrs().first().copied();
        let address = address.ok_or_else(|| std::io::Error::other("no address"))?;
        Ok((address, server))
    });
    match server {
        Err(source) => {
            let _ = started.send(Err(failed(source)));
        }
        // The server is made inside the runtime: it starts its workers at once.
        Ok((address, server)) => system.block_on(async move {
            let server = server.run();
            if started.send(Ok((address, server.handle()))).is_ok()
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
        .route("/v1/models", web::get().to(platform::list_models))
        .route("/v1/models/pricing", web::get().to(platform::get_pricing))
        .route("/__sandbox/state", web::get().to(control::get_state))
        .route("/__sandbox/reset", web::post().to(control::reset))
        .default_service(web::to(queue::answer));
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.address
    }

    /// What stands for `https://queue.fal.run`.
    #[must_use]
    pub fn queue_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What stands for `https://fal.run`.
    #[must_use]
    pub fn run_url(&self) -> String {
        format!("{}/run", self.queue_url())
    }

    /// What stands for `https://rest.fal.ai`.
    #[must_use]
    pub fn rest_url(&self) -> String {
        self.queue_url()
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
