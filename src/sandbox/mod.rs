//! fal's stand-in: the queue protocol over real HTTP, with real pictures, for first runs, demonstrations and tests.
//!
//! It knows every endpoint from the documents that fal itself publishes (`schemas/`), never from our catalogue, so that
//! what we send is checked against fal's word and not against our own. One port serves what fal has on several hosts:
//!
//! | fal's host | here |
//! | --- | --- |
//! | `queue.fal.run` | `/`, as in `POST /fal-ai/flux/dev` |
//! | `api.fal.ai` | `/v1/models`, `/v1/models/pricing` |
//! | `v3b.fal.media` | `/files/b/…` |
//! | – | `/__sandbox/…`: what was counted, and how to misbehave |
//!
//! Every key is good, except one that starts with `bad` (unknown to fal) or `locked` (its account has no money).
//! A prompt that holds `sandbox-nsfw` or `sandbox-refuse` is flagged or refused.

mod answers;
mod control;
mod files;
mod jobs;
mod paths;
mod picture;
mod plan;
mod platform;
mod queue;
mod running;
mod schema;
mod sizes;
mod tally;
mod validate;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

pub use picture::{RenderedFile, render_file};
pub use plan::{NSFW_WORD, REFUSE_WORD};
pub use running::{Running, start};

use crate::domain::{Clock, IdSource};
use jobs::Jobs;
use schema::Schemas;
use tally::Tally;

/// Largest body of a request, in bytes.
const BODY_LIMIT: usize = 32 * 1024 * 1024;
/// Pictures drawn at a time; each takes up to 50 MB and a core.
const DRAWN_AT_A_TIME: usize = 2;

/// How the stand-in runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens; port 0 is a free one.
    pub bind: SocketAddr,
    /// How long one request takes, queue and run together. Zero: done at once.
    pub delay: Duration,
    /// What stands before `/files/…` in the URLs of pictures, such as `http://127.0.0.1:8080`; absent, the stand-in's
    /// own address as the request named it.
    pub public_files: Option<String>,
    /// Threads that answer.
    pub workers: usize,
}

impl Default for Settings {
    /// A free local port, one second a request, two threads.
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            delay: Duration::from_secs(1),
            public_files: None,
            workers: 2,
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
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    delay: Duration,
    public_files: Option<String>,
    drawing: Semaphore,
}

impl Sandbox {
    fn new(settings: &Settings, clock: Arc<dyn Clock>, ids: Arc<dyn IdSource>) -> Result<Self, SandboxError> {
        let public_files = settings.public_files.as_deref();
        Ok(Self {
            schemas: Schemas::built_in()?,
            jobs: Jobs::default(),
            tally: Tally::default(),
            clock,
            ids,
            delay: settings.delay,
            public_files: public_files.map(|base| base.trim_end_matches('/').to_owned()),
            drawing: Semaphore::new(DRAWN_AT_A_TIME),
        })
    }

    /// Draws off the threads that answer, a few at a time.
    async fn render(&self, draw: impl FnOnce() -> Option<RenderedFile> + Send + 'static) -> Option<RenderedFile> {
        let _turn = self.drawing.acquire().await.ok()?;
        actix_web::web::block(draw).await.ok().flatten()
    }
}
