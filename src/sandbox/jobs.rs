//! The requests that the stand-in holds: where each one stands, bounded in number, bytes and age.
//!
//! Nothing runs in the background: where a job stands follows from the clock and from what was asked of it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::behaviour::{Fate, Rule, Rules};
use super::plan::{Plan, Refusal, Verdict};
use crate::domain::Timestamp;

/// Most requests held at a time.
const MOST_JOBS: usize = 100_000;
/// About how many bytes the held requests may take.
const MOST_BYTES: usize = 256 * 1024 * 1024;
/// What one request takes beside its verdict, in bytes, roughly.
const BASE_WEIGHT: usize = 1_024;
/// How long a request is held.
const MOST_AGE: Duration = Duration::from_hours(6);

/// One accepted request.
#[derive(Debug)]
pub struct Job {
    /// fal's request id, a `UUIDv7`.
    pub id: Uuid,
    /// The endpoint's id, or the path that was asked for.
    pub endpoint: String,
    /// Owner and alias.
    pub prefix: String,
    /// Scheme and host under which the request came, and under which its URLs lie.
    pub base: String,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// When a runner takes it.
    pub starts_at: Timestamp,
    /// When the runner is done.
    pub ends_at: Timestamp,
    /// What it comes to.
    pub verdict: Verdict,
    /// How a rule bends its way.
    pub fate: Fate,
    /// The rules that it brought for its later calls.
    pub rules: Rules,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    cancelled_at: Option<Timestamp>,
    read: bool,
    output: Option<Arc<Value>>,
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for a runner.
    Queued,
    /// On a runner.
    Running,
    /// Done, well or not.
    Completed,
}

/// When a request is taken up and done, and who asks for it.
#[derive(Debug)]
pub struct Submission {
    /// fal's request id.
    pub id: Uuid,
    /// The endpoint's id, or the path that was asked for.
    pub endpoint: String,
    /// Owner and alias.
    pub prefix: String,
    /// Scheme and host.
    pub base: String,
    /// Now.
    pub at: Timestamp,
    /// How long it waits for a runner.
    pub queued_for: Duration,
    /// How long it runs.
    pub runs_for: Duration,
    /// What it comes to.
    pub verdict: Verdict,
    /// How a rule bends its way.
    pub fate: Fate,
    /// The rules that it brought for its later calls.
    pub rules: Vec<Rule>,
}

impl From<Submission> for Job {
    fn from(submission: Submission) -> Self {
        let starts_at = submission.at.plus(submission.queued_for);
        Self {
            id: submission.id,
            endpoint: submission.endpoint,
            prefix: submission.prefix,
            base: submission.base,
            submitted_at: submission.at,
            starts_at,
            ends_at: starts_at.plus(submission.runs_for),
            verdict: submission.verdict,
            fate: submission.fate,
            rules: Rules::new(submission.rules),
            progress: Mutex::default(),
        }
    }
}

impl Job {
    /// Where it stands at `now`.
    pub fn phase(&self, now: Timestamp) -> Phase {
        if self.progress().cancelled_at.is_some() || now >= self.ends_at {
            Phase::Completed
        } else if now >= self.starts_at {
            Phase::Running
        } else {
            Phase::Queued
        }
    }

    /// Cancels it unless it is done: a waiting one is taken from the queue, a running one obeys at once,
    /// unless a rule says otherwise. Says whether it was still open.
    pub fn cancel(&self, now: Timestamp) -> bool {
        if self.phase(now) == Phase::Completed {
            return false;
        }
        if !self.fate.ignore_cancel {
            self.progress().cancelled_at = Some(now);
        }
        true
    }

    /// What it came to, seen from its end.
    pub fn outcome(&self) -> Result<&Plan, Box<Refusal>> {
        if self.progress().cancelled_at.is_some() {
            let refusal = Refusal::request(499, "Request was cancelled", "client_cancelled");
            return Err(Box::new(refusal));
        }
        match &self.verdict {
            Verdict::Make(plan) => Ok(plan),
            Verdict::Refuse(refusal) => Err(Box::new(refusal.clone())),
        }
    }

    /// Whether it was taken out of the queue before any runner had it.
    pub fn left_the_queue(&self) -> bool {
        self.progress().cancelled_at.is_some_and(|at| at < self.starts_at)
    }

    /// The prompt, as far as it is kept.
    pub fn prompt(&self) -> &str {
        match &self.verdict {
            Verdict::Make(plan) => plan.prompt(),
            Verdict::Refuse(_) => "",
        }
    }

    /// How long it ran, in seconds.
    pub fn seconds(&self) -> f64 {
        self.ends_at.since(self.starts_at).as_secs_f64()
    }

    /// How many pictures it has come to at `now`.
    pub fn pictures(&self, now: Timestamp) -> u64 {
        let done = self.phase(now) == Phase::Completed;
        match self.outcome() {
            Ok(plan) if done => u64::try_from(plan.pictures.len()).unwrap_or(u64::MAX),
            _ => 0,
        }
    }

    /// Marks the result as read; says whether this is the first time.
    pub fn mark_read(&self) -> bool {
        !std::mem::replace(&mut self.progress().read, true)
    }

    /// The answer as it was told before.
    pub fn told(&self) -> Option<Arc<Value>> {
        self.progress().output.clone()
    }

    /// Keeps the answer, so that every reader is told the same.
    pub fn tell(&self, output: Arc<Value>) {
        self.progress().output = Some(output);
    }

    fn weight(&self) -> usize {
        let verdict = match &self.verdict {
            Verdict::Make(plan) => plan.weight(),
            Verdict::Refuse(refusal) => refusal.body.to_string().len(),
        };
        BASE_WEIGHT + verdict
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All requests that are held.
#[derive(Debug, Default)]
pub struct Jobs(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    by_id: HashMap<Uuid, Arc<Job>>,
    /// The oldest first.
    order: VecDeque<(Uuid, usize)>,
    bytes: usize,
    forgotten_pictures: u64,
}

impl Jobs {
    /// Holds one more, forgetting the oldest that are done where room is needed; `None` if all the room is taken by
    /// requests that are still open.
    pub fn insert(&self, submission: Submission) -> Option<Arc<Job>> {
        let now = submission.at;
        let job = Arc::new(Job::from(submission));
        let weight = job.weight();
        let mut table = self.table();
        if !table.make_room(now, weight) {
            return None;
        }
        table.bytes += weight;
        table.order.push_back((job.id, weight));
        table.by_id.insert(job.id, Arc::clone(&job));
        Some(job)
    }

    /// The request of that id under that owner and alias.
    pub fn find(&self, prefix: &str, id: Uuid) -> Option<Arc<Job>> {
        let table = self.table();
        table.by_id.get(&id).filter(|job| job.prefix == prefix && !job.fate.forget).cloned()
    }

    /// The request of that id, whatever its owner and alias.
    pub fn of_any(&self, id: Uuid) -> Option<Arc<Job>> {
        self.table().by_id.get(&id).filter(|job| !job.fate.forget).cloned()
    }

    /// How many pictures have been made up to `now`, read or not.
    pub fn pictures_made(&self, now: Timestamp) -> u64 {
        let table = self.table();
        table.forgotten_pictures + table.by_id.values().map(|job| job.pictures(now)).sum::<u64>()
    }

    /// The requests held, the oldest first, at most `most` of the newest.
    pub fn newest(&self, most: usize) -> Vec<Arc<Job>> {
        let table = self.table();
        let skipped = table.order.len().saturating_sub(most);
        let ids = table.order.iter().skip(skipped);
        ids.filter_map(|(id, _)| table.by_id.get(id).cloned()).collect()
    }

    /// How many wait for a runner at `now`.
    pub fn waiting(&self, now: Timestamp) -> usize {
        let table = self.table();
        table.by_id.values().filter(|job| job.phase(now) == Phase::Queued).count()
    }

    /// Forgets everything.
    pub fn clear(&self) {
        *self.table() = Table::default();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn make_room(&mut self, now: Timestamp, weight: usize) -> bool {
        while let Some((id, oldest_weight)) = self.order.front().copied() {
            let oldest = self.by_id.get(&id);
            let too_old = oldest.is_none_or(|job| now.since(job.submitted_at) > MOST_AGE);
            let full = self.order.len() >= MOST_JOBS || self.bytes + weight > MOST_BYTES;
            if !too_old && !full {
                break;
            }
            if !too_old && oldest.is_some_and(|job| job.phase(now) != Phase::Completed) {
                return false;
            }
            self.forgotten_pictures += oldest.map_or(0, |job| job.pictures(now));
            self.by_id.remove(&id);
            self.order.pop_front();
            self.bytes -= oldest_weight;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submission(number: u128, at: Timestamp, runs_for: Duration) -> Submission {
        Submission {
            id: Uuid::from_u128(number),
            endpoint: "fal-ai/flux/dev".to_owned(),
            prefix: "fal-ai/flux".to_owned(),
            base: String::new(),
            at,
            queued_for: Duration::from_secs(1),
            runs_for,
            verdict: Verdict::Refuse(Refusal::no_path("/x")),
            fate: Fate::default(),
            rules: Vec::new(),
        }
    }

    #[test]
    fn a_job_waits_runs_and_is_done() {
        let start = Timestamp::from_seconds(100);
        let job = Job::from(submission(1, start, Duration::from_secs(2)));
        let phase = |seconds| job.phase(Timestamp::from_seconds(seconds));
        assert_eq!(
            [phase(100), phase(101), phase(102), phase(103)],
            [Phase::Queued, Phase::Running, Phase::Running, Phase::Completed]
        );
    }

    #[test]
    fn only_an_open_job_can_be_cancelled() {
        let start = Timestamp::from_seconds(100);
        let job = Job::from(submission(1, start, Duration::from_secs(2)));
        assert!(job.cancel(start) && !job.cancel(start));
        assert_eq!(job.phase(start), Phase::Completed);
        assert_eq!(job.outcome().unwrap_err().status, 499);
        let done = Job::from(submission(2, start, Duration::ZERO));
        assert!(!done.cancel(Timestamp::from_seconds(101)));
    }

    #[test]
    fn a_job_is_found_under_its_own_application_only_and_forgotten_with_age() {
        let jobs = Jobs::default();
        let start = Timestamp::from_seconds(100);
        jobs.insert(submission(1, start, Duration::ZERO)).unwrap();
        assert!(jobs.find("fal-ai/flux", Uuid::from_u128(1)).is_some());
        assert!(jobs.find("fal-ai/other", Uuid::from_u128(1)).is_none());
        jobs.insert(submission(2, start.plus(MOST_AGE * 2), Duration::ZERO)).unwrap();
        let held: Vec<Uuid> = jobs.newest(9).iter().map(|job| job.id).collect();
        assert_eq!(held, [Uuid::from_u128(2)]);
    }

    #[test]
    fn open_jobs_are_never_pushed_out() {
        let start = Timestamp::from_seconds(100);
        let mut table = Table { bytes: MOST_BYTES, ..Table::default() };
        let job = Arc::new(Job::from(submission(1, start, Duration::from_secs(9))));
        table.order.push_back((job.id, MOST_BYTES));
        table.by_id.insert(job.id, job);
        assert!(!table.make_room(start, 1));
        assert!(table.make_room(Timestamp::from_seconds(120), 1));
        assert!(table.by_id.is_empty() && table.bytes == 0);
    }
}
