//! What the stand-in has counted: the proof, in tests, of what reached fal.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// Most names kept of fields that no endpoint knows.
const MOST_FIELDS: usize = 1_000;

/// Counts since the start or the last reset.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Counts {
    /// Submits that reached the queue, whatever came of them, by endpoint.
    pub submits: BTreeMap<String, u64>,
    /// Synchronous and streamed runs that were asked for, by endpoint.
    pub runs: BTreeMap<String, u64>,
    /// Submits and runs that were taken and have a request id.
    pub accepted_submits: u64,
    /// Pictures in results that were read, each request counted once.
    pub delivered_images: u64,
    /// Results that were read, every time counted.
    pub results_read: u64,
    /// Status reads.
    pub status_reads: u64,
    /// Cancels that were taken.
    pub cancels: u64,
    /// Files that were served.
    pub files_served: u64,
    /// Files that were uploaded.
    pub uploads: u64,
    /// Webhooks that were answered with a 2xx.
    pub webhooks_delivered: u64,
    /// Webhooks that were sent, whatever came of them.
    pub webhooks_sent: u64,
    /// Calls that obeyed a rule.
    pub misbehaviours: u64,
    /// Fields that the endpoint does not know, as `endpoint field`.
    pub unknown_fields: BTreeMap<String, u64>,
}

/// The counts, shared.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

impl Tally {
    /// To count something.
    pub fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a submit of a known application.
    pub fn submit(&self, endpoint: &str) {
        let mut counts = self.counts();
        *counts.submits.entry(endpoint.to_owned()).or_default() += 1;
    }

    /// Counts a synchronous or streamed run of a known application.
    pub fn run(&self, endpoint: &str) {
        let mut counts = self.counts();
        *counts.runs.entry(endpoint.to_owned()).or_default() += 1;
    }

    /// Counts an accepted submit and the fields that its endpoint ignored.
    pub fn accepted(&self, endpoint: &str, unknown: &[String]) {
        let mut counts = self.counts();
        counts.accepted_submits += 1;
        for field in unknown {
            let name = format!("{endpoint} {field}");
            if counts.unknown_fields.len() < MOST_FIELDS || counts.unknown_fields.contains_key(&name) {
                *counts.unknown_fields.entry(name).or_default() += 1;
            }
        }
    }

    /// Starts again from zero.
    pub fn clear(&self) {
        *self.counts() = Counts::default();
    }
}
