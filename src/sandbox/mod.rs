//! fal's stand-in: the queue protocol over real HTTP, with real pictures, for first runs, demonstrations and tests.
//!
//! It knows every endpoint from the documents that fal itself publishes (`schemas/`), never from our catalogue, so that
//! what we send is checked against fal's word and not against our own. One port serves what fal has on several hosts:
//!
//! | fal's host | here |
//! | --- | --- |
//! | `queue.fal.run` | `/`, as in `POST /fal-ai/flux/dev` |
//! | `fal.run` | `/run/`, as in `POST /run/fal-ai/flux/dev`, and `…/stream`; or `/` on a port of its own |
//! | `rest.fal.ai` | `/storage/…`, `/.well-known/jwks.json` |
//! | `api.fal.ai` | `/v1/models`, `/v1/models/pricing`, `/v1/models/billing-events`, `/v1/models/requests/…/payloads` |
//! | `v3.fal.media`, `v3b.fal.media` | `/files/b/…`, `/files/upload` |
//! | – | `/__sandbox/…`: what was counted, and how to misbehave |
//!
//! A control route says how to misbehave: see `behaviour.rs` for the rules.
//!
//! Every key is good, except one that starts with `bad` (unknown to fal) or `locked` (its account has no money).
//! A prompt that holds `sandbox-nsfw` or `sandbox-refuse` is flagged or refused.

mod admission;
mod answers;
mod behaviour;
mod billing;
mod control;
mod events;
mod files;
mod inputs;
mod jobs;
mod misbehave;
mod paths;
mod payloads;
mod picture;
mod plan;
mod platform;
mod queue;
mod run;
mod running;
mod schema;
mod sizes;
mod storage;
mod tally;
mod validate;
mod webhooks;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Semaphore;

pub use picture::{RenderedFile, render_file};
pub use plan::{NSFW_WORD, REFUSE_WORD};
pub use running::{Running, start};

use crate::domain::{Clock, IdSource};
use behaviour::Rules;
use jobs::Jobs;
use payloads::Deleted;
use schema::Schemas;
use storage::Uploads;
use tally::Tally;
use webhooks::Sender;

/// Largest body of a request, in bytes.
const BODY_LIMIT: usize = 32 * 1024 * 1024;
/// Pictures drawn at a time; each takes up to 50 MB and a core.
const DRAWN_AT_A_TIME: usize = 2;

/// How the stand-in runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens; port 0 is a free one.
    pub bind: SocketAddr,
    /// A port of its own for synchronous runs and streams, for clients that know hosts only; absent, they lie below
    /// `/run` beside the rest.
    pub run_bind: Option<SocketAddr>,
    /// How long one request takes, queue and run together. Zero: done at once.
    pub delay: Duration,
    /// What stands before `/files/…` in the URLs of pictures, such as `http://127.0.0.1:8080`; absent, the stand-in's
    /// own address as the request named it.
    pub public_files: Option<String>,
    /// Whether answers tell `file_size` where the endpoint has it, for which a picture must be drawn first; else `null`.
    pub file_sizes: bool,
    /// Threads that answer.
    pub workers: usize,
    /// Certificate and key, for clients that speak https only; absent, plain http.
    pub tls: Option<rustls::ServerConfig>,
}

impl Default for Settings {
    /// A free local port, one second a request, two threads.
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            run_bind: None,
            delay: Duration::from_secs(1),
            public_files: None,
            file_sizes: true,
            workers: 2,
            tls: None,
        }
    }
}

/// Why the stand-in cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A schema file is no schema.
    #[error("a built-in schema of the sandbox cannot be read: {0}")]
    Schema(#[from] serde_json::Error),
    /// The address is taken, or not ours.
    #[error("the sandbox cannot listen on `{address}`: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// No key or no client for webhooks.
    #[error("the sandbox cannot send webhooks: {0}")]
    Webhooks(String),
    /// The system refused a thread or a runtime.
    #[error("the sandbox cannot start its thread: {0}")]
    Thread(std::io::Error),
}

/// What all handlers share.
#[derive(Debug)]
struct Sandbox {
    schemas: Schemas,
    jobs: Jobs,
    tally: Tally,
    rules: Rules,
    uploads: Uploads,
    deleted: Deleted,
    webhooks: Sender,
    /// The port of synchronous runs, once it is known.
    run_port: OnceLock<u16>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    delay: Duration,
    public_files: Option<String>,
    file_sizes: bool,
    drawing: Semaphore,
}

impl Sandbox {
    fn new(settings: &Settings, clock: Arc<dyn Clock>, ids: Arc<dyn IdSource>) -> Result<Self, SandboxError> {
        let public_files = settings.public_files.as_deref();
        Ok(Self {
            schemas: Schemas::built_in()?,
            jobs: Jobs::default(),
            tally: Tally::default(),
            rules: Rules::default(),
            uploads: Uploads::default(),
            deleted: Deleted::default(),
            webhooks: Sender::new(ids.as_ref())?,
            run_port: OnceLock::new(),
            clock,
            ids,
            delay: settings.delay,
            public_files: public_files.map(|base| base.trim_end_matches('/').to_owned()),
            file_sizes: settings.file_sizes,
            drawing: Semaphore::new(DRAWN_AT_A_TIME),
        })
    }

    /// Whether a request came by the port of synchronous runs.
    fn is_run_port(&self, request: &actix_web::HttpRequest) -> bool {
        let port = request.app_config().local_addr().port();
        self.run_port.get() == Some(&port)
    }

    /// Draws off the threads that answer, a few at a time.
    async fn render(&self, draw: impl FnOnce() -> Option<RenderedFile> + Send + 'static) -> Option<RenderedFile> {
        let _turn = self.drawing.acquire().await.ok()?;
        actix_web::web::block(draw).await.ok().flatten()
    }
}
