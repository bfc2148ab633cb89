//! Opening a database: address, connection pools, time limits.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use tokio::runtime::Handle;

use super::connection::{Either, within};
use super::error::Unreachable;
use super::hosts::Servers;
use super::session::{Route, is_pooled, session_limits};
use super::standby::{self, Standby};
use super::{Outage, Store, StoreError};
use crate::domain::{FairSemaphore, ProjectId};

/// How patient the store is, and how many connections it keeps.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// How long to wait for a connection before the database counts as unreachable.
    pub acquire_timeout: Duration,
    /// The longest that one write transaction may take.
    pub write_timeout: Duration,
    /// The longest that reading a row or a page may take.
    pub read_timeout: Duration,
    /// The longest that a report over many rows may take.
    pub report_timeout: Duration,
    /// Connections for reading.
    pub readers: u32,
    /// Connections for writing; SQLite always has one.
    pub writers: u32,
    /// An address past a transaction pooler that stands before the database: for migrations and the books' writer.
    pub direct: Option<String>,
    /// A standby that reports are read from.
    pub read: Option<String>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            acquire_timeout: Duration::from_secs(2),
            write_timeout: Duration::from_secs(4),
            read_timeout: Duration::from_secs(4),
            report_timeout: Duration::from_mins(1),
            readers: 8,
            writers: 4,
            direct: None,
            read: None,
        }
    }
}

/// What all clones of a [`Store`] share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) pools: Either<Pools<PgPool, Route>, Pools<SqlitePool, SqliteConnectOptions>>,
    pub(super) options: StoreOptions,
    pub(super) runtime: Handle,
    pub(super) outage: LastOutage,
    /// Where reports are read, if not where everything is.
    pub(super) standby: Option<Standby>,
    /// Who may read a report now.
    pub(super) reports: FairSemaphore<Option<ProjectId>>,
    /// Held by whoever has the projections follow.
    pub(super) projecting: tokio::sync::Mutex<()>,
    /// SQLite's file.
    file: Option<DatabaseFile>,
}

impl Inner {
    /// Checks that the SQLite file that was opened is still at its place. What is written to one that was deleted would be
    /// lost with the process; SQLite itself does not notice.
    pub(super) fn file_is_there(&self) -> Result<(), StoreError> {
        self.file.as_ref().map_or(Ok(()), DatabaseFile::check)
    }
}

/// What the last write told of the database.
#[derive(Debug, Default)]
pub(super) struct LastOutage(Mutex<Option<Outage>>);

impl LastOutage {
    /// Remembers how a write has ended.
    pub(super) fn note(&self, written: Result<(), &StoreError>) {
        let outage = match written.map_err(StoreError::outage) {
            Ok(()) => None,
            Err(None | Some(Outage::NoAnswer)) => return,
            Err(found) => found,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = outage;
    }

    pub(super) fn get(&self) -> Option<Outage> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file of a SQLite database, by its name and by what the file system knows it by.
#[derive(Debug)]
struct DatabaseFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl DatabaseFile {
    fn at(path: &Path) -> std::io::Result<Self> {
        Ok(Self { path: path.to_path_buf(), identity: Self::identity(path)? })
    }

    fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
        let found = std::fs::metadata(path)?;
        Ok((found.dev(), found.ino()))
    }

    fn check(&self) -> Result<(), StoreError> {
        let detail = match Self::identity(&self.path) {
            Ok(found) if found == self.identity => return Ok(()),
            Ok(_) => format!("`{}` is another file than the one that was opened", self.path.display()),
            Err(error) => format!("`{}`: {error}", self.path.display()),
        };
        Err(StoreError::Unreachable(Unreachable::new(Outage::FileGone, detail)))
    }
}

/// Where writes go, where reads go, and how to open one more connection.
#[derive(Debug)]
pub(super) struct Pools<P, O> {
    pub(super) writers: P,
    pub(super) readers: P,
    pub(super) connect: O,
}

/// What a connection is lent for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lent {
    Reader,
    Writer,
}

impl<P: Clone, O> Pools<P, O> {
    pub(super) fn pool(&self, lent: Lent) -> P {
        match lent {
            Lent::Reader => self.readers.clone(),
            Lent::Writer => self.writers.clone(),
        }
    }
}

impl Store {
    /// Opens the database at `address` and makes sure that it answers.
    ///
    /// `sqlite://path` creates the file and its folder where missing; `postgres://…` must exist. Call it on the
    /// runtime that outlives all requests. Errors: [`StoreError::Address`], [`StoreError::Unreachable`].
    pub async fn connect(address: &str, options: StoreOptions) -> Result<Self, StoreError> {
        let scheme = address.split(':').next().unwrap_or_default();
        let (pools, file) = match scheme {
            "postgres" | "postgresql" => (Either::Postgres(open_postgres(address, &options).await?), None),
            "sqlite" => {
                let pools = open_sqlite(address, &options).await?;
                let file = make_file(&pools.connect, &options).await?;
                (Either::Sqlite(pools), Some(file))
            }
            _ => {
                return Err(bad_address(address, &"the scheme is neither `sqlite` nor `postgres`"));
            }
        };
        let (outage, runtime) = (LastOutage::default(), Handle::current());
        let readers = options.readers as usize;
        let reports = FairSemaphore::new(readers * 3 / 4, readers / 2);
        let standby = options.read.as_deref().map(|address| Standby::new(address, &options)).transpose()?;
        let store = Self {
            inner: Arc::new(Inner {
                pools,
                options,
                runtime,
                outage,
                standby,
                reports,
                projecting: tokio::sync::Mutex::new(()),
                file,
            }),
        };
        if let Err(error) = store.ping().await {
            return Err(store.reason(error).await);
        }
        if let Some(standby) = &store.inner.standby {
            standby.measure(store.inner.options.acquire_timeout).await;
            store.inner.runtime.spawn(standby::watch(Arc::downgrade(&store.inner)));
        }
        Ok(store)
    }

    /// Why no connection came. A pool tells only that it has waited in vain.
    async fn reason(&self, error: StoreError) -> StoreError {
        let Either::Postgres(pools) = &self.inner.pools else { return error };
        let alone = within(self.inner.options.acquire_timeout, async {
            Ok(pools.connect.servers.current().connect().await?.close().await?)
        });
        alone.await.err().unwrap_or(error)
    }

    /// The time limits and pool sizes that it was opened with.
    #[must_use]
    pub fn options(&self) -> &StoreOptions {
        &self.inner.options
    }

    /// Whether this is PostgreSQL; otherwise it is SQLite.
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        matches!(self.inner.pools, Either::Postgres(_))
    }

    /// Looks for a server that can be written, where the address names several: the one in use may have failed.
    pub(super) async fn find_server(&self) {
        let Either::Postgres(pools) = &self.inner.pools else { return };
        match pools.connect.choose(self.inner.options.acquire_timeout).await {
            Ok(false) => {}
            Ok(true) => {
                let connect = pool_options(&pools.connect);
                tracing::warn!(
                    host = connect.get_host(),
                    port = connect.get_port(),
                    "another server is written to now"
                );
                pools.readers.set_connect_options(connect.clone());
                pools.writers.set_connect_options(connect);
            }
            Err(error) => tracing::warn!(%error, "no server can be written"),
        }
    }

    /// Closes all connections; later calls fail with [`StoreError::Unreachable`].
    pub async fn close(&self) {
        if let Some(standby) = &self.inner.standby {
            standby.close().await;
        }
        match &self.inner.pools {
            Either::Postgres(pools) => {
                pools.readers.close().await;
                pools.writers.close().await;
            }
            // Readers first: the last connection to close folds the write-ahead log into the file.
            Either::Sqlite(pools) => {
                pools.readers.close().await;
                pools.writers.close().await;
            }
        }
    }
}

pub(super) fn bad_address(address: &str, reason: &dyn std::fmt::Display) -> StoreError {
    StoreError::Address { address: without_password(address), reason: reason.to_string() }
}

/// Cuts out everything that may hold a password, also from an address that is none.
#[must_use]
pub fn without_password(address: &str) -> String {
    let visible = address.split('?').next().unwrap_or_default();
    match (visible.split_once("://"), visible.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        (None, Some((_, host))) => format!("…@{host}"),
        // A password with a question mark in it.
        (_, None) if address.contains('@') => "…".to_owned(),
        (_, None) => visible.to_owned(),
    }
}

async fn open_postgres(address: &str, options: &StoreOptions) -> Result<Pools<PgPool, Route>, StoreError> {
    let servers = Arc::new(Servers::of(address)?);
    let direct = options.direct.as_deref().map(Servers::of).transpose()?.map(Arc::new);
    let mut route = Route { pooled: servers.pooled, servers, direct, switched: Arc::default() };
    route.choose(options.acquire_timeout).await?;
    let connect = route.servers.current();
    if !route.pooled {
        let find_out = async { Ok(is_pooled(&connect).await?) };
        route.pooled = within(options.acquire_timeout.mul_f32(1.1), find_out).await?;
    }
    if route.pooled {
        tracing::info!(direct = route.direct.is_some(), "a transaction pooler stands before the database");
    }
    let pool = |connections: u32, longest: Duration| {
        let limits = if route.pooled { String::new() } else { session_limits(longest) };
        let route = route.clone();
        PgPoolOptions::new()
            .max_connections(connections.max(1))
            .acquire_timeout(options.acquire_timeout)
            .before_acquire({
                let route = route.clone();
                move |_, connection| {
                    let is_current = route.is_current(connection.age);
                    Box::pin(async move { Ok(is_current) })
                }
            })
            .after_connect(move |connection, _| {
                let limits = limits.clone();
                Box::pin(async move {
                    sqlx::raw_sql(sqlx::AssertSqlSafe(limits)).execute(connection).await?;
                    Ok(())
                })
            })
            .connect_lazy_with(pool_options(&route))
    };
    let (writers, readers) =
        (pool(options.writers, options.write_timeout), pool(options.readers, options.report_timeout));
    Ok(Pools { writers, readers, connect: route })
}

/// How a pool connects to the server in use.
fn pool_options(route: &Route) -> PgConnectOptions {
    let connect = (*route.servers.current()).clone();
    if route.pooled { connect.statement_cache_capacity(0) } else { connect.statement_cache_capacity(POOL_STATEMENTS) }
}

/// How many statements a connection of a pool keeps prepared.
const POOL_STATEMENTS: usize = 100;

/// Makes the file if it is missing, in the form that all connections want. Later ones never make it: an empty file would take
/// the place of one that is gone.
async fn make_file(connect: &SqliteConnectOptions, options: &StoreOptions) -> Result<DatabaseFile, StoreError> {
    let path = connect.get_filename();
    let first = connect.clone().create_if_missing(true).optimize_on_close(false, None);
    within(options.acquire_timeout.mul_f32(1.1), async { Ok(first.connect().await?.close().await?) }).await?;
    let absolute = std::path::absolute(path).and_then(|path| DatabaseFile::at(&path));
    absolute.map_err(|error| StoreError::no_answer(format!("`{}`: {error}", path.display())))
}

async fn open_sqlite(
    address: &str,
    options: &StoreOptions,
) -> Result<Pools<SqlitePool, SqliteConnectOptions>, StoreError> {
    let connect = SqliteConnectOptions::from_str(address)
        .map_err(|error| bad_address(address, &error))?
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        // FULL, not NORMAL: what was answered survives a power cut.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        // What is erased is overwritten, not only unlinked.
        .pragma("secure_delete", "ON")
        .busy_timeout(options.acquire_timeout)
        .optimize_on_close(true, None)
        .log_statements(log::LevelFilter::Off);
    let file = connect.get_filename().to_path_buf();
    if address.contains(":memory:") || address.contains("mode=memory") || file.as_os_str().is_empty() {
        return Err(bad_address(address, &"the books need a file"));
    }
    if let Some(folder) = file.parent().filter(|folder| *folder != Path::new("")) {
        tokio::fs::create_dir_all(folder)
            .await
            .map_err(|error| bad_address(address, &format!("its folder cannot be created: {error}")))?;
    }
    let pool = |connections: u32, connect: SqliteConnectOptions| {
        SqlitePoolOptions::new()
            .max_connections(connections.max(1))
            .acquire_timeout(options.acquire_timeout)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(connect)
    };
    Ok(Pools {
        writers: pool(1, connect.clone()),
        readers: pool(options.readers, connect.clone().pragma("query_only", "ON").optimize_on_close(false, None)),
        connect,
    })
}
