//! Builds every room once; the only file that names a concrete provider or database.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::{Server, ServerHandle};
use actix_web::web;
use arc_swap::ArcSwap;
use futures_util::future::{join_all, try_join_all};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::accounts::{Accounts, AccountsError, DefaultRates, FirstKeys, KeyKind};
use crate::api::{Files, ModelTable, Published, Services, Upstream};
use crate::catalogue::{Catalogue, CatalogueError};
use crate::config::{Config, ProjectSettings, SalesSettings, StorageSettings};
use crate::domain::{Clock, IdSource, SharedClock, SystemClock, SystemIds};
use crate::gateway::{Eraser, Gateway, Keeper, Parts, erase_at_providers};
use crate::http::{Edge, FrameTools, Stopping};
use crate::ledger::{Books, LedgerError};
use crate::meters::SharedMeters;
use crate::providers::{Bill, BillingError, Erase, Erasers, Media, Metered, Provider, Providers, fal};
use crate::storage::{Links, Storage, StorageError};
use crate::store::{Outage, Store, StoreError, StoreOptions, without_password};
use crate::webhooks::Webhooks;
use crate::{api, sandbox};

mod aliases;
mod listen;
mod memory;
mod server;
mod tls;

use aliases::warn_of_misfits;
use listen::{Sockets, listen};
use tls::TlsError;

pub use aliases::load_aliases;
pub use listen::document;

/// How long shutdown waits for open generations; what is still open then is found again at the next start.
const DRAIN: Duration = Duration::from_secs(25);
/// How long the start waits for a database that does not answer yet, or has no connection left.
const DATABASE_PATIENCE: Duration = Duration::from_secs(30);
/// How long it waits between two tries.
const DATABASE_AGAIN: Duration = Duration::from_millis(500);
/// The key that our own stand-in is called with.
const SANDBOX_KEY: &str = "sandbox:sandbox";

/// Why the gateway does not start; one clear sentence each.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database, at the start.
    #[error(
        "DATABASE_URL=`{address}` cannot be used: {source}; it must be a database that answers, such as \
         `postgres://user@host/name`, or a file that can be written, such as `sqlite://data/imagegate.db`"
    )]
    Database {
        /// The address, without its password.
        address: String,
        /// Why.
        source: StoreError,
    },
    /// The database.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The books.
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    /// The keys.
    #[error("the keys cannot be set up: {0}")]
    Accounts(#[from] AccountsError),
    /// The model files.
    #[error("{0}")]
    Catalogue(#[from] CatalogueError),
    /// The model files of the operator's folder.
    #[error("IMAGEGATE_MODELS_DIR=`{}` cannot be used: {source}", .folder.display())]
    Models {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: Box<CatalogueError>,
    },
    /// The file of the operator's aliases.
    #[error("IMAGEGATE_ALIASES_FILE=`{}` cannot be used: {reason}", .file.display())]
    Aliases {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// A model file names a provider that is not here.
    #[error("the model `{model}` has the provider `{provider}`; the only provider is `fal`")]
    Provider {
        /// The model's id.
        model: String,
        /// As its file says.
        provider: String,
    },
    /// The stand-in.
    #[error("the sandbox does not start: {0}")]
    Sandbox(#[from] sandbox::SandboxError),
    /// The client for fal.
    #[error("FAL_KEY or FAL_QUEUE_URL cannot be used: {0}")]
    Fal(#[from] fal::FalError),
    /// The client for images.
    #[error("the HTTP client does not start: {0}")]
    Client(#[from] reqwest::Error),
    /// The place for delivered images.
    #[error("IMAGEGATE_STORAGE: {0}")]
    Storage(#[from] StorageError),
    /// The port.
    #[error("IMAGEGATE_BIND={address} cannot be listened on: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The operators' port.
    #[error("IMAGEGATE_ADMIN_BIND={address} cannot be listened on: {source}")]
    AdminBind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The certificate.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// The document.
    #[error("the OpenAPI document cannot be written: {0}")]
    Document(#[from] serde_json::Error),
    /// The server ended.
    #[error("the server stopped: {0}")]
    Server(#[from] std::io::Error),
}

impl StartError {
    /// Whether it may pass by itself: a database that is still starting, or one whose connections others have for now.
    fn may_pass(&self) -> bool {
        let (Self::Database { source, .. } | Self::Store(source) | Self::Accounts(AccountsError::Store(source))) = self
        else {
            return false;
        };
        matches!(source.outage(), Some(Outage::NoAnswer | Outage::NoConnectionLeft))
    }
}

/// A gateway that listens.
pub struct Running {
    /// Where.
    pub address: SocketAddr,
    /// Keys that were made at this start.
    pub first_keys: FirstKeys,
    /// Who makes the images.
    pub upstream: Upstream,
    /// Reads the model files anew.
    pub reloader: Reloader,
    servers: Vec<Server>,
    stop: StopSignal,
    tracker: TaskTracker,
    gateway: Arc<Gateway>,
    accounts: Accounts,
    sandbox: Option<sandbox::Running>,
}

/// Opens the database with its migrations applied.
pub async fn open_store(config: &Config) -> Result<Store, StartError> {
    open_with_standby(config, None).await
}

/// The same, with a standby for reports.
async fn open_with_standby(config: &Config, read: Option<String>) -> Result<Store, StartError> {
    let named = |source| StartError::Database { address: without_password(&config.database_url), source };
    let options = StoreOptions { direct: config.database_direct_url.clone(), read, ..StoreOptions::default() };
    let store = Store::connect(&config.database_url, options).await.map_err(named)?;
    store.migrate().await.map_err(named)?;
    Ok(store)
}

/// The same, for whoever has no reason to give up at once: waits for a database that is still starting.
pub async fn await_store(config: &Config) -> Result<Store, StartError> {
    patiently(async || open_store(config).await).await
}

/// Tries again what may pass by itself, for [`DATABASE_PATIENCE`].
async fn patiently<T>(attempt: impl AsyncFn() -> Result<T, StartError>) -> Result<T, StartError> {
    let until = Instant::now() + DATABASE_PATIENCE;
    loop {
        match attempt().await {
            Err(error) if error.may_pass() && Instant::now() < until => {
                warn!(%error, "the database cannot be used yet; trying again");
                tokio::time::sleep(DATABASE_AGAIN).await;
            }
            outcome => return outcome,
        }
    }
}

/// The machine's clock and ids.
#[must_use]
pub fn clock_and_ids() -> (Arc<dyn Clock>, Arc<dyn IdSource>) {
    (Arc::new(SystemClock), Arc::new(SystemIds))
}

/// What new projects may ask for in any minute.
#[must_use]
pub fn default_rates(config: &Config) -> DefaultRates {
    let ProjectSettings { requests_per_minute, images_per_minute } = config.projects;
    DefaultRates { requests_per_minute, images_per_minute }
}

/// The clock that all replicas share, as the database shows it now.
pub async fn shared_clock(store: &Store) -> Result<Arc<SharedClock>, StoreError> {
    let clock = SharedClock::default();
    if let Some((now, tolerance)) = store.time().await? {
        clock.set(now, tolerance);
    }
    Ok(Arc::new(clock))
}

/// The only provider, by the name that model files use.
const PROVIDER: &str = "fal";

/// What is sold.
pub fn load_catalogue(settings: &SalesSettings) -> Result<Catalogue, StartError> {
    let catalogue = match &settings.models_dir {
        Some(folder) => Catalogue::with_directory(folder)
            .map_err(|source| StartError::Models { folder: folder.clone(), source: Box::new(source) })?,
        None => Catalogue::built_in()?,
    };
    if let Some(model) = catalogue.models().find(|model| model.provider != PROVIDER) {
        return Err(StartError::Provider { model: model.id.clone(), provider: model.provider.clone() });
    }
    Ok(catalogue)
}

/// Who tells what the provider billed; nobody without a key.
pub fn bill(config: &Config) -> Result<Option<Box<dyn Bill>>, BillingError> {
    let keys: Vec<String> = config.fal.keys.iter().map(|key| key.key.expose().to_owned()).collect();
    if keys.is_empty() {
        return Ok(None);
    }
    Ok(Some(Box::new(fal::Billing::new(&config.fal.api_url, &keys)?)))
}

/// Builds every room and starts listening. Needs an actix system with a tokio runtime beside it for the jobs.
pub async fn start(config: Config, jobs: tokio::runtime::Handle) -> Result<Running, StartError> {
    let (meters, stopping) = (SharedMeters::default(), Stopping::default());
    // What stops the start is found out before anything runs.
    let published = publish(&config.sales)?;
    let aliases = load_aliases(&config.sales, &published.catalogue)?;
    let sockets = Sockets::bind(&config.http)?;
    let ids: Arc<dyn IdSource> = Arc::new(SystemIds);
    let (store, shared_clock, accounts, first_keys) = patiently(async || {
        let store = open_with_standby(&config, config.database_read_url.clone()).await?;
        let shared_clock = shared_clock(&store).await?;
        let accounts = Accounts::load(store.clone(), shared_clock.clone(), ids.clone()).await?;
        let accounts = accounts.with_default_rates(default_rates(&config));
        let first_keys = Box::pin(set_up_keys(&accounts, &config)).await?;
        Ok((store, shared_clock, accounts, first_keys))
    })
    .await?;
    accounts.give_aliases(aliases).await?;
    warn_of_misfits(&accounts, &published.catalogue).await;
    let clock: Arc<dyn Clock> = shared_clock.clone();

    let (fal_settings, sandbox, upstream) = upstream(&config, &clock, &ids)?;
    let tracker = TaskTracker::new();
    accounts.watch(&tracker, &jobs);
    accounts.watch_spending(&tracker, &jobs);
    accounts.watch_retention(&tracker, &jobs);
    let webhooks =
        Webhooks::new(store.clone(), clock.clone(), ids.clone(), config.http.webhook_allow_private, meters.clone())?;
    let books = Books::start_metered(store, &tracker, &jobs, meters.clone()).with_journal(config.journal.clone());
    match books.play_journal().await {
        Ok(0) => {}
        Ok(lines) => info!(lines, "what was kept on disk while the database was away is in the books"),
        Err(fault) => error!(%fault, "what was kept on disk while the database was away could not be written"),
    }
    let provider: Arc<dyn Provider> = Arc::new(fal::Fal::new(&fal_settings)?);
    let provider: Arc<dyn Provider> = Arc::new(Metered::new(provider, meters.clone()));
    let providers: Providers = BTreeMap::from([(PROVIDER.to_owned(), provider)]);
    let mut media_hosts = config.fal.media_hosts.clone();
    if sandbox.is_some() {
        media_hosts.push("127.0.0.1".to_owned());
    }
    let memory = memory::budget(&config.http);
    let media = Media::new(media_hosts, memory.clone())?;
    let files = config.storage.as_ref().map(open_storage).transpose()?;
    let eraser = Eraser::new(accounts.clone(), files.as_ref().map(|files| files.storage.clone()));
    eraser.watch(&tracker, &jobs);
    erase_at_providers(accounts.clone(), fal_eraser(&config, &fal_settings, &upstream)?, &tracker, &jobs);
    let keeper = files.as_ref().map(|files| Keeper { storage: files.storage.clone(), media: media.clone() });
    let gateway = Gateway::start(Parts {
        catalogue: published.catalogue.clone(),
        books,
        providers,
        clock: shared_clock,
        ids: ids.clone(),
        runtime: jobs.clone(),
        tracker: tracker.clone(),
        markup: config.sales.markup,
        deadline: config.sales.deadline,
        meters: meters.clone(),
        keeper,
    })
    .await?;
    let services = web::Data::new(Services {
        gateway: gateway.clone(),
        accounts: accounts.clone(),
        eraser,
        webhooks: webhooks.clone(),
        media,
        files,
        meters: meters.clone(),
        stopping: stopping.clone(),
        clock: clock.clone(),
        ids: ids.clone(),
        http: config.http.clone(),
        upstream: upstream.clone(),
        published: ArcSwap::from_pointee(published),
    });
    webhooks.start(Arc::new(api::Letters(services.clone().into_inner())), &tracker, &jobs);
    let closing = CancellationToken::new();
    let edge = Edge {
        trusted: config.http.trusted_proxies.clone().into(),
        body_time: config.http.body_timeout,
        body_limit: config.http.body_limit,
        memory,
    };
    let tools = web::Data::new(FrameTools { clock, ids, meters, stopping: stopping.clone(), edge });
    let reloader = Reloader { sales: config.sales, services: services.clone().into_inner() };
    let (address, servers) = listen(&config.http, sockets, &services, &tools, &closing)?;
    let handles = servers.iter().map(Server::handle).collect();
    let stop = StopSignal { servers: handles, closing, stopping, delay: config.http.shutdown_delay };
    Ok(Running { address, first_keys, upstream, reloader, servers, stop, tracker, gateway, accounts, sandbox })
}

/// The place for delivered images, and the links to them.
pub fn open_storage(settings: &StorageSettings) -> Result<Files, StorageError> {
    let storage = Arc::new(Storage::open(&settings.url, &settings.options)?);
    let links = settings.links.as_ref().map(|(ttl, secret)| Links::new(secret.expose(), *ttl));
    Ok(Files { storage, links })
}

/// Reads the model files and writes what is shown of them.
fn publish(settings: &SalesSettings) -> Result<Published, StartError> {
    let catalogue = Arc::new(load_catalogue(settings)?);
    let models = ModelTable::of(&catalogue, settings.markup);
    let document = web::Bytes::from(document(&catalogue)?);
    Ok(Published { catalogue, models, document })
}

/// Reads the model files anew while the gateway serves.
#[derive(Clone)]
pub struct Reloader {
    sales: SalesSettings,
    services: Arc<Services>,
}

impl Reloader {
    /// Puts the model files and the file of aliases as they are now in the place of those before; if one of them is at
    /// fault, all stays as it was and the log says where the fault is. Requests under way are not touched.
    pub async fn reload(&self) {
        let sales = self.sales.clone();
        let read = move || {
            let published = publish(&sales)?;
            let aliases = load_aliases(&sales, &published.catalogue)?;
            Ok::<_, StartError>((published, aliases))
        };
        let (published, aliases) = match web::block(read).await {
            Ok(Ok(read)) => read,
            Ok(Err(fault)) => return error!(%fault, "the model files are not taken; the catalogue stays as it was"),
            Err(fault) => return error!(%fault, "the model files could not be read; the catalogue stays as it was"),
        };
        let (models, version) = (published.catalogue.models().count(), published.catalogue.version().to_owned());
        if let Err(fault) = self.services.accounts.give_aliases(aliases).await {
            return error!(%fault, "the aliases could not be put in place; the catalogue stays as it was");
        }
        warn_of_misfits(&self.services.accounts, &published.catalogue).await;
        self.services.gateway.replace_catalogue(published.catalogue.clone());
        self.services.published.store(Arc::new(published));
        info!(models, version, "the model files were read anew");
    }
}

/// Stops a gateway that listens.
#[derive(Clone)]
pub struct StopSignal {
    servers: Vec<ServerHandle>,
    closing: CancellationToken,
    stopping: Stopping,
    delay: Duration,
}

impl StopSignal {
    /// Not ready from now on, but serving for `IMAGEGATE_SHUTDOWN_DELAY`, so that load balancers see it before a request
    /// is refused; then as [`StopSignal::at_once`].
    pub async fn gently(&self) {
        self.stopping.begin();
        tokio::time::sleep(self.delay).await;
        self.at_once().await;
    }

    /// Takes no new requests and finishes those that have begun.
    pub async fn at_once(&self) {
        self.stopping.begin();
        self.closing.cancel();
        join_all(self.servers.iter().map(|server| server.stop(true))).await;
    }
}

impl Running {
    /// What stops the server from another task.
    #[must_use]
    pub fn stopper(&self) -> StopSignal {
        self.stop.clone()
    }

    /// Serves until the process is told to stop, then waits for open generations.
    pub async fn run(self) -> Result<(), StartError> {
        try_join_all(self.servers).await?;
        self.tracker.close();
        let open = self.gateway.open_jobs();
        if open > 0 {
            info!(open, "waiting for open generations");
        }
        let gateway = self.gateway.clone();
        let drained = async {
            // What is on disk because the database is away is written by the next start.
            while gateway.open_jobs() > gateway.books().kept_on_disk() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            warn!(
                open = self.gateway.open_jobs(),
                "stopping with open generations; the next start takes them up again"
            );
        }
        self.accounts.write_uses().await;
        self.gateway.retire().await;
        if let Some(sandbox) = self.sandbox {
            sandbox.stop().await;
        }
        Ok(())
    }
}

/// Keys set from outside, and the first ones of a new database.
async fn set_up_keys(accounts: &Accounts, config: &Config) -> Result<FirstKeys, AccountsError> {
    if let Some(key) = &config.keys.admin {
        Box::pin(accounts.ensure_setting_key(KeyKind::Admin, key.expose())).await?;
    }
    if let Some(key) = &config.keys.bootstrap {
        Box::pin(accounts.ensure_setting_key(KeyKind::Project, key.expose())).await?;
    }
    Box::pin(accounts.ensure_first_keys()).await
}

/// fal, or the stand-in if there is no key and nobody said where fal is.
/// Who deletes what fal has: at fal, or at the sandbox that stands in for it.
fn fal_eraser(config: &Config, settings: &fal::Settings, upstream: &Upstream) -> Result<Erasers, fal::FalError> {
    let platform = match upstream {
        Upstream::Fal => config.fal.api_url.clone(),
        Upstream::Sandbox(base) => format!("{base}/v1"),
    };
    let keys = settings.keys.iter().map(|(key, _)| key.as_str());
    let eraser: Arc<dyn Erase> = Arc::new(fal::Payloads::new(&platform, keys)?);
    Ok(BTreeMap::from([("fal".to_owned(), eraser)]))
}

fn upstream(
    config: &Config,
    clock: &Arc<dyn Clock>,
    ids: &Arc<dyn IdSource>,
) -> Result<(fal::Settings, Option<sandbox::Running>, Upstream), StartError> {
    let keys: Vec<(String, u32)> =
        config.fal.keys.iter().map(|key| (key.key.expose().to_owned(), key.weight)).collect();
    if !keys.is_empty() || config.fal.addresses_set {
        let keys = if keys.is_empty() { vec![(SANDBOX_KEY.to_owned(), 1)] } else { keys };
        let settings = fal::Settings {
            queue_url: config.fal.queue_url.clone(),
            run_url: config.fal.run_url.clone(),
            rest_url: config.fal.rest_url.clone(),
            keys,
            key_concurrency: config.fal.key_concurrency,
            public_url: config.http.public_url.clone(),
        };
        return Ok((settings, None, Upstream::Fal));
    }
    let settings =
        sandbox::Settings { bind: config.sandbox.bind, delay: config.sandbox.delay, ..sandbox::Settings::default() };
    let running = sandbox::start(settings, clock.clone(), ids.clone())?;
    warn!(address = %running.addr(), "FAL_KEY is not set: the built-in sandbox draws the pictures");
    let base = format!("http://{}", running.addr());
    let settings = fal::Settings {
        queue_url: running.queue_url(),
        run_url: running.run_url(),
        rest_url: running.rest_url(),
        keys: vec![(SANDBOX_KEY.to_owned(), 1)],
        key_concurrency: None,
        public_url: config.http.public_url.clone(),
    };
    Ok((settings, Some(running), Upstream::Sandbox(base)))
}
