//! When keys were last used: noted in memory by every authentication, written in the background, never on a request's way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::Accounts;
use super::error::AccountsError;
use super::ring::Inner;
use crate::domain::{ApiKeyId, Timestamp};

/// How long after a use of a key was written its next one is.
const WRITTEN_AGAIN_AFTER: Duration = Duration::from_mins(1);

/// When a key was last used by this process, and which use was written last; zero for none.
#[derive(Debug, Default)]
pub(super) struct Use {
    at: AtomicI64,
    written: AtomicI64,
}

impl Use {
    /// The key is used now.
    pub(super) fn note(&self, now: Timestamp) {
        self.at.fetch_max(now.micros(), Ordering::Relaxed);
    }

    /// The last use.
    fn at(&self) -> Option<Timestamp> {
        Some(self.at.load(Ordering::Relaxed)).filter(|at| *at > 0).map(Timestamp::from_micros)
    }

    /// The use that is to be written, if one is.
    fn due(&self, all: bool) -> Option<Timestamp> {
        let at = self.at()?;
        let written = Timestamp::from_micros(self.written.load(Ordering::Relaxed));
        let due = at > written && (all || at.since(written) >= WRITTEN_AGAIN_AFTER);
        due.then_some(at)
    }
}

impl Accounts {
    /// When each of these keys was last used; those that never were are left out. What another replica has not written
    /// yet, at most a minute of it, is not known here.
    pub async fn last_used(&self, keys: &[ApiKeyId]) -> Result<Vec<(ApiKeyId, Timestamp)>, AccountsError> {
        let written: HashMap<_, _> = self.inner.store.last_used(keys).await?.into_iter().collect();
        let latest = |key: &ApiKeyId| {
            let here = self.inner.uses_of(*key).at();
            Some((*key, written.get(key).copied().max(here)?))
        };
        Ok(keys.iter().filter_map(latest).collect())
    }

    /// Writes all that is not written yet, for a process that stops.
    pub async fn write_uses(&self) {
        self.inner.write_uses(true).await;
    }
}

impl Inner {
    /// What is noted of a key.
    pub(super) fn uses_of(&self, key: ApiKeyId) -> Arc<Use> {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(uses.entry(key).or_default())
    }

    /// Writes the uses that are due, or all that are not written yet, in one statement. What fails is tried again later.
    pub(super) async fn write_uses(&self, all: bool) {
        let due: Vec<(ApiKeyId, Arc<Use>, Timestamp)> = {
            let uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
            uses.iter().filter_map(|(key, used)| Some((*key, Arc::clone(used), used.due(all)?))).collect()
        };
        if due.is_empty() {
            return;
        }
        let rows: Vec<(ApiKeyId, Timestamp)> = due.iter().map(|(key, _, at)| (*key, *at)).collect();
        match self.store.write_uses(&rows).await {
            Ok(()) => {
                for (_, used, at) in due {
                    used.written.fetch_max(at.micros(), Ordering::Relaxed);
                }
            }
            Err(error) => tracing::debug!(%error, "when keys were used is not written yet"),
        }
    }
}
