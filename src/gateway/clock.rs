//! The clock that all replicas share is the database's: each corrects its machine's clock by it once a second.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::{info, warn};

use super::Gateway;
use crate::ledger::LedgerError;

/// A machine whose clock is off by more than this wants looking after.
const TOLERATED: Duration = Duration::from_secs(2);

/// What the machine's clock is behind the database's by, in microseconds; below zero it is ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockSkew(pub(super) i64);

impl ClockSkew {
    /// In seconds; below zero the machine is ahead.
    #[must_use]
    pub fn seconds(self) -> f64 {
        let seconds = Duration::from_micros(self.0.unsigned_abs()).as_secs_f64();
        if self.0 < 0 { -seconds } else { seconds }
    }

    /// Whether somebody should set the machine's clock right.
    #[must_use]
    pub fn is_too_large(self) -> bool {
        Duration::from_micros(self.0.unsigned_abs()) > TOLERATED
    }
}

impl Gateway {
    /// Asks the database for the time. Says so once where the machine's clock is off.
    pub(super) async fn set_clock(&self) -> Result<(), LedgerError> {
        let Some((now, tolerance)) = self.books.time().await? else { return Ok(()) };
        self.shared_clock.set(now, tolerance);
        let skew = self.clock_skew();
        let reported = self.skew_reported.swap(skew.is_too_large(), Ordering::SeqCst);
        match (reported, skew.is_too_large()) {
            (false, true) => {
                warn!(
                    behind_seconds = skew.seconds(),
                    "this machine's clock is off; the database's clock is used instead"
                );
            }
            (true, false) => info!("this machine's clock is right again"),
            _ => {}
        }
        Ok(())
    }
}
