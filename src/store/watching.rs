//! What an operator watches: money that is set aside by its age, and how the connections are used.

use std::time::Duration;

use super::connection::{Either, on_both, within};
use super::{Store, StoreError};
use crate::domain::{Money, Timestamp};

/// How many holds are open, told apart by how old they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HoldAges {
    /// Younger than a minute.
    pub under_a_minute: u64,
    /// Up to five minutes.
    pub under_five_minutes: u64,
    /// Up to an hour.
    pub under_an_hour: u64,
    /// Older.
    pub older: u64,
    /// The age of the oldest; zero where none is open.
    pub oldest: Duration,
    /// What all of them set aside.
    pub amount: Money,
}

/// How the connections of one pool are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUse {
    /// `read` or `write`.
    pub name: &'static str,
    /// Lent to somebody.
    pub used: u32,
    /// Open and waiting.
    pub idle: u32,
    /// The most there may be.
    pub most: u32,
}

impl Store {
    /// How many holds are open at `now`, by their age.
    pub async fn hold_ages(&self, now: Timestamp) -> Result<HoldAges, StoreError> {
        let before = |age: Duration| now.micros().saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
        let (minute, five, hour) =
            (before(Duration::from_mins(1)), before(Duration::from_mins(5)), before(Duration::from_hours(1)));
        let row = within(self.options().read_timeout, async {
            let mut reader = self.reader().await?;
            Ok(on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, (i64, i64, i64, i64, Option<i64>, Option<i64>)>(
                    "SELECT COUNT(*), COUNT(*) FILTER (WHERE created_at <= $1), COUNT(*) FILTER (WHERE created_at <= $2),
                            COUNT(*) FILTER (WHERE created_at <= $3), MIN(created_at), CAST(SUM(hold) AS BIGINT)
                     FROM generations WHERE state IN ('queued', 'running')")
                    .bind(minute).bind(five).bind(hour).fetch_one(connection).await)?)
        })
        .await?;
        let (all, minute, five, hour, oldest, amount) = row;
        let count = |count: i64| u64::try_from(count).unwrap_or(0);
        Ok(HoldAges {
            under_a_minute: count(all - minute),
            under_five_minutes: count(minute - five),
            under_an_hour: count(five - hour),
            older: count(hour),
            oldest: oldest.map_or(Duration::ZERO, |opened_at| now.since(Timestamp::from_micros(opened_at))),
            amount: Money::from_nanos(amount.unwrap_or(0)),
        })
    }

    /// How the connections are used now.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolUse> {
        macro_rules! pool {
            ($name:literal, $pool:expr) => {{
                let idle = u32::try_from($pool.num_idle()).unwrap_or(u32::MAX);
                let most = $pool.options().get_max_connections();
                PoolUse { name: $name, used: $pool.size().saturating_sub(idle), idle, most }
            }};
        }
        match &self.inner.pools {
            Either::Postgres(pools) => vec![pool!("read", pools.readers), pool!("write", pools.writers)],
            Either::Sqlite(pools) => vec![pool!("read", pools.readers), pool!("write", pools.writers)],
        }
    }
}
