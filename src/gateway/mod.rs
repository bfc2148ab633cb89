//! What happens to one image request. Read `generate` first.

mod attempt;
mod call;
mod clock;
mod erase;
mod erase_at_providers;
mod generate;
mod generation;
mod inputs;
mod jobs;
mod keep;
mod late;
mod picture;
mod recover;
mod resend;
mod reservation;
mod settle;
mod standing;
mod streamed;
mod wait;
mod withdraw;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::catalogue::{Catalogue, Order};
use crate::domain::{Clock, FairSemaphore, Fixed, IdSource, ProjectId, SharedClock};
use crate::ledger::{Books, LedgerError};
use crate::meters::SharedMeters;
use crate::providers::{Failure, FailureKind, FileWish, Health, Prepared, Provider, Providers, UploadPlace};

pub use call::CallError;
pub use clock::ClockSkew;
pub use erase::{EraseError, Eraser};
pub use erase_at_providers::watch as erase_at_providers;
pub use generate::{Accepted, GenerateError, Request};
pub use generation::{Cancellation, Finished, Job, Preview, Progress};
pub use inputs::picture_type;
pub use keep::Keeper;
pub use resend::ClientNews;
pub use reservation::{Changes, change_data_uris, wants_data_uris};
pub use settle::{FinishedError, cost_drift, read_finished};

use jobs::Jobs;
use wait::Waiter;

/// How many files are uploaded to providers at once; the others wait.
const UPLOADS_AT_ONCE: usize = 32;
/// How many of them for one project.
const UPLOADS_EACH: usize = 24;

/// What the gateway is built from.
pub struct Parts {
    /// What is sold.
    pub catalogue: Arc<Catalogue>,
    /// The books.
    pub books: Books,
    /// Who makes the images, by the name that model files use.
    pub providers: Providers,
    /// Tells the time.
    pub clock: Arc<SharedClock>,
    /// Makes ids.
    pub ids: Arc<dyn IdSource>,
    /// The runtime that jobs run on; not a web worker's.
    pub runtime: Handle,
    /// Counts the jobs, so that shutdown can wait for them.
    pub tracker: TaskTracker,
    /// Selling price = the provider's price × this.
    pub markup: Fixed,
    /// Longest wait for one image, if its model file has none.
    pub deadline: Duration,
    /// Counts what ends.
    pub meters: SharedMeters,
    /// Keeps what is delivered; nobody where the provider's own addresses are passed on.
    pub keeper: Option<Keeper>,
}

/// Takes image requests and sees each through to its line in the books.
pub struct Gateway {
    catalogue: ArcSwap<Catalogue>,
    books: Books,
    providers: Providers,
    clock: Arc<dyn Clock>,
    /// The same, to be set by the database's.
    shared_clock: Arc<SharedClock>,
    /// Whether it has been logged that the machine's clock is off.
    skew_reported: AtomicBool,
    ids: Arc<dyn IdSource>,
    runtime: Handle,
    tracker: TaskTracker,
    markup: Fixed,
    deadline: Duration,
    /// This process, as the owner of the generations that it works on.
    replica: Uuid,
    /// When the latest heartbeat that was written began.
    seen_at: Mutex<Instant>,
    jobs: Arc<Jobs>,
    waiter: Waiter,
    /// Generations that the provider billed otherwise than the catalogue computes.
    cost_drifts: AtomicU64,
    meters: SharedMeters,
    keeper: Option<Keeper>,
    /// Who may inspect embedded images now.
    inspections: FairSemaphore<ProjectId>,
    /// Who may upload a file to the provider now.
    uploads: FairSemaphore<ProjectId>,
}

impl Gateway {
    /// Builds the gateway and starts the waiting for providers and the recovery of what was left open. Signs on in the
    /// books first, so that no other replica takes this one for dead.
    pub async fn start(parts: Parts) -> Result<Arc<Self>, LedgerError> {
        let waiter = Waiter::start(&parts.tracker, &parts.runtime, parts.clock.clone());
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let gateway = Arc::new(Self {
            catalogue: ArcSwap::new(parts.catalogue),
            books: parts.books,
            providers: parts.providers,
            replica: parts.ids.uuid(),
            seen_at: Mutex::new(Instant::now()),
            clock: parts.clock.clone(),
            shared_clock: parts.clock,
            skew_reported: AtomicBool::new(false),
            ids: parts.ids,
            runtime: parts.runtime,
            tracker: parts.tracker,
            markup: parts.markup,
            deadline: parts.deadline,
            jobs: Arc::default(),
            waiter,
            cost_drifts: AtomicU64::new(0),
            meters: parts.meters,
            keeper: parts.keeper,
            inspections: FairSemaphore::new(processors, processors.div_ceil(2)),
            uploads: FairSemaphore::new(UPLOADS_AT_ONCE, UPLOADS_EACH),
        });
        gateway.beat().await?;
        // The month's partition must stand before the first row wants to go there.
        gateway.maintain().await;
        gateway.start_recovery();
        Ok(gateway)
    }

    /// What is sold now.
    #[must_use]
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.load_full()
    }

    /// Sells by another catalogue from now on. What was ordered before is seen through as it was ordered.
    pub fn replace_catalogue(&self, catalogue: Arc<Catalogue>) {
        self.catalogue.store(catalogue);
    }

    /// The exact request that the provider would be sent. Calls nobody.
    pub fn prepare(&self, order: &Order) -> Result<Prepared, GenerateError> {
        Ok(self.provider(&order.model.provider)?.prepare(order))
    }

    /// The books.
    #[must_use]
    pub const fn books(&self) -> &Books {
        &self.books
    }

    /// Selling price = the provider's price × this.
    #[must_use]
    pub const fn markup(&self) -> Fixed {
        self.markup
    }

    /// How well each provider is, by its name.
    pub fn health(&self) -> impl Iterator<Item = (&str, Health)> {
        self.providers.iter().map(|(name, provider)| (name.as_str(), provider.health()))
    }

    /// How many generations of this process the provider billed otherwise than the catalogue computes.
    #[must_use]
    pub fn cost_drifts(&self) -> u64 {
        self.cost_drifts.load(Ordering::Relaxed)
    }

    /// How the machine's clock stands to the database's.
    #[must_use]
    pub fn clock_skew(&self) -> ClockSkew {
        ClockSkew(self.shared_clock.behind())
    }

    /// A place at the provider to upload an input file to.
    pub async fn announce_upload(&self, provider: &str, file: &FileWish) -> Result<UploadPlace, Box<Failure>> {
        self.storage_of(provider)?.announce_upload(file).await
    }

    /// Uploads an input image to the provider's storage; the address to give to a model.
    pub async fn upload(
        &self,
        project: ProjectId,
        provider: &str,
        file: &FileWish,
        bytes: Bytes,
    ) -> Result<String, Box<Failure>> {
        let _permit = self.uploads.acquire(project).await;
        self.storage_of(provider)?.upload(file, bytes).await
    }

    /// Who takes input files under this name.
    fn storage_of(&self, provider: &str) -> Result<&Arc<dyn Provider>, Box<Failure>> {
        let missing = || Box::new(Failure::new(FailureKind::Overloaded, "the provider is not configured"));
        self.providers.get(provider).ok_or_else(missing)
    }

    /// How many generations this process is working on.
    #[must_use]
    pub fn open_jobs(&self) -> usize {
        self.jobs.len()
    }
}
