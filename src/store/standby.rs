//! A standby that reports are read from, and how far it is behind.

use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::{PgPool, PgPoolOptions};

use super::connection::within;
use super::hosts::Servers;
use super::open::{Inner, StoreOptions};
use super::session::PgSession;
use super::{Store, StoreError};

/// How often to ask how far it is behind.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// A server that follows the one that is written to.
#[derive(Debug)]
pub(super) struct Standby {
    pool: PgPool,
    report_timeout: Duration,
    /// How far it was behind when it was last asked; `None` while it cannot be used.
    lag: Mutex<Option<Duration>>,
}

impl Standby {
    /// Connects to nobody yet.
    pub(super) fn new(address: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let connect = Servers::of(address)?.current();
        let pool = PgPoolOptions::new()
            .max_connections(options.readers.max(1))
            .acquire_timeout(options.acquire_timeout)
            .connect_lazy_with((*connect).clone().statement_cache_capacity(0));
        Ok(Self { pool, report_timeout: options.report_timeout, lag: Mutex::default() })
    }

    /// A connection to it, while it can be used. As through a pooler, which may stand before it.
    pub(super) async fn reader(&self) -> Result<PgSession, sqlx::Error> {
        PgSession::reading(&self.pool, self.report_timeout).await
    }

    pub(super) fn lag(&self) -> Option<Duration> {
        *self.lag.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks how far it is behind, and remembers it.
    pub(super) async fn measure(&self, limit: Duration) {
        let found = within(limit, async { Ok(self.ask().await?) }).await;
        let mut lag = self.lag.lock().unwrap_or_else(PoisonError::into_inner);
        match (&found, *lag) {
            (Ok(Some(_)), None) => tracing::info!("reports are read from the standby"),
            (Ok(None), Some(_)) => {
                tracing::warn!("the standby does not say how far it is behind; reports are read from the primary");
            }
            (Err(error), Some(_)) => {
                tracing::warn!(%error, "the standby cannot be used; reports are read from the primary");
            }
            _ => {}
        }
        *lag = found.unwrap_or(None);
    }

    /// Each gateway's heartbeat is a transaction a second, so that the time of the last one tells. A primary is not behind.
    async fn ask(&self) -> Result<Option<Duration>, sqlx::Error> {
        const SQL: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN CAST(EXTRACT(EPOCH FROM clock_timestamp()
                - pg_last_xact_replay_timestamp()) * 1000000 AS BIGINT) ELSE 0 END";
        let mut session = self.reader().await?;
        let micros: Option<i64> = sqlx::query(SQL).fetch_one(&mut session).await?.try_get(0)?;
        Ok(micros.map(|micros| Duration::from_micros(u64::try_from(micros).unwrap_or(0))))
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

/// Asks every second until the store is gone.
pub(super) async fn watch(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        let Some(inner) = inner.upgrade() else { return };
        let Some(standby) = inner.standby.as_ref().filter(|standby| !standby.pool.is_closed()) else { return };
        standby.measure(inner.options.acquire_timeout).await;
    }
}

impl Store {
    /// How far the standby is behind that reports are read from; `None` where they are read from the primary.
    #[must_use]
    pub fn report_lag(&self) -> Option<Duration> {
        self.inner.standby.as_ref().and_then(Standby::lag)
    }
}
