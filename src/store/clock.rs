//! The database's clock, which all replicas share.

use std::time::{Duration, Instant};

use super::connection::{Either, within};
use super::{Store, StoreError};
use crate::domain::Timestamp;

/// The time in microseconds, as PostgreSQL tells it.
macro_rules! postgres_now {
    () => {
        "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
    };
}
pub(super) use postgres_now;

/// The time in microseconds, as SQLite tells it: the clock of the machine.
macro_rules! sqlite_now {
    () => {
        "CAST(unixepoch('subsec') * 1000000 AS INTEGER)"
    };
}
pub(super) use sqlite_now;

impl Store {
    /// The time by the database's clock when this returns, and by how much it may be off: half of what the question took.
    /// Nothing on SQLite, whose clock is the machine's own.
    pub async fn time(&self) -> Result<Option<(Timestamp, Duration)>, StoreError> {
        within(self.options().read_timeout, async {
            let mut reader = self.reader_as_is().await?;
            let Either::Postgres(connection) = reader.connection() else { return Ok(None) };
            let asked = Instant::now();
            let told = sqlx::query_scalar::<_, i64>(concat!("SELECT ", postgres_now!())).fetch_one(connection).await?;
            let half = asked.elapsed() / 2;
            Ok(Some((Timestamp::from_micros(told).plus(half), half)))
        })
        .await
    }
}
