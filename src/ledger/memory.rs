//! What the writer remembers from one batch to the next, so that in the normal case it reads nothing.
//!
//! All of it may be out of date: another replica or an operator may have written meanwhile. So whatever was decided on it is
//! written only where the versions are still those that it was decided on, and a refusal is decided again on what the
//! database has.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::decide::Standing;
use super::month::Month;
use super::writer::Command;
use crate::domain::{IdSource, SystemIds};
use crate::store::{Reservation, Stream};

/// The most projects, and the most open generations, that are remembered.
const MOST: usize = 20_000;

/// A writer that has not written for so long appends under another name: the store forgets it after a day.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// How long after another replica has written first nothing is decided on what is remembered: it would be in vain again.
const CONTENDED_FOR: Duration = Duration::from_millis(250);

/// What the writer remembers.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) standing: Standing,
    /// The generations that it has written about and that are open.
    pub(super) streams: HashMap<Uuid, Stream>,
    /// Under which name it appends, once that is known to the database, and the place of its last event.
    pub(super) appends: Option<Appends>,
    /// When somebody else was last seen to have written first.
    contended_at: Option<Instant>,
}

/// Under which name the writer appends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Appends {
    pub(super) writer: Uuid,
    pub(super) last_seq: i64,
    used_at: Instant,
}

impl Appends {
    /// A new name.
    pub(super) fn new() -> Self {
        Self { writer: SystemIds.uuid(), last_seq: 0, used_at: Instant::now() }
    }

    /// The same, with more events appended.
    pub(super) fn plus(self, events: usize) -> Self {
        let more = i64::try_from(events).unwrap_or(i64::MAX);
        Self { last_seq: self.last_seq.saturating_add(more), used_at: Instant::now(), ..self }
    }
}

impl Memory {
    /// Forgets everything, also the name: a batch may have been written or not.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Forgets what these calls are about.
    pub(super) fn forget(&mut self, batch: &[Command]) {
        for command in batch {
            if let Command::Reserve(r, _) = command {
                self.forget_project(r.project_id.uuid());
                self.standing.keys.remove(&r.api_key_id.uuid());
                self.streams.remove(&r.id.uuid());
            }
            if let Some(stream) = command.generation().and_then(|id| self.streams.remove(&id)) {
                self.forget_project(stream.project_id);
            }
        }
    }

    /// Somebody else has written first: forgets what these calls are about, and does not try that again at once.
    pub(super) fn note_conflict(&mut self, batch: &[Command]) {
        self.forget(batch);
        self.contended_at = Some(Instant::now());
    }

    /// Forgets a project and its keys.
    pub(super) fn forget_project(&mut self, project: Uuid) {
        self.standing.projects.remove(&project);
        self.standing.balances.remove(&project);
        self.standing.months.retain(|(owner, _), _| *owner != project);
        self.standing.keys.retain(|_, key| key.project_id != Some(project));
    }

    /// Begins a batch: what counts only within one is gone, and so is what there is too much of.
    pub(super) fn begin_batch(&mut self) {
        if self.standing.projects.len() > MOST || self.standing.keys.len() > MOST {
            self.standing = Standing::default();
        }
        if self.streams.len() > MOST {
            self.streams.clear();
        }
        self.standing.idempotency.clear();
        self.standing.rates = super::limits::Rates::default();
        self.standing.organization = None;
        if self.appends.is_some_and(|appends| appends.used_at.elapsed() > LONGEST_PAUSE) {
            self.appends = None;
        }
    }

    /// Whether a batch can be decided on what is remembered.
    pub(super) fn covers(&self, batch: &[Command]) -> bool {
        let mut released = false;
        let mut keyed = false;
        self.appends.is_some()
            && self.contended_at.is_none_or(|at| at.elapsed() > CONTENDED_FOR)
            && batch.iter().all(|command| match command {
                Command::Reserve(r, _) => {
                    keyed |= r.idempotency.is_some();
                    self.knows(r)
                }
                Command::Client(_, left_at, _) => left_at.is_none(),
                Command::Finish(f, _) => {
                    released |= f.release_idempotency_key;
                    self.streams.contains_key(&f.generation.uuid())
                }
                Command::Submitted(..) | Command::Running(..) | Command::Late(..) => {
                    command.generation().is_some_and(|id| self.streams.contains_key(&id))
                }
            })
            && !(released && keyed)
    }

    /// Whether everything is remembered that a reservation is decided on. What limits by time and what limits all projects
    /// together is not.
    fn knows(&self, r: &Reservation) -> bool {
        let id = r.project_id.uuid();
        let standing = &self.standing;
        let (Some(project), true) = (standing.projects.get(&id), standing.balances.contains_key(&id)) else {
            return false;
        };
        let Some(key) = standing.keys.get(&r.api_key_id.uuid()) else { return false };
        let month = Month::of(r.created_at).start().micros();
        !project.rated
            && project.organization_limit.is_none()
            && (project.spend_limit.is_none() || standing.months.contains_key(&(id, month)))
            // The sums of a key that is not the project's own have no version.
            && (key.budget.is_none() || key.project_id.is_some())
    }

    /// Whether a decision about a project depends on its sums, or on those of one of these keys.
    pub(super) fn depends_on_sums(&self, project: Uuid, keys: &BTreeSet<Uuid>) -> bool {
        let limited = self
            .standing
            .projects
            .get(&project)
            .is_none_or(|terms| terms.prepaid || terms.spend_limit.is_some() || terms.concurrency_limit.is_some());
        let budgeted = |id: &Uuid| self.standing.keys.get(id).is_none_or(|key| key.budget.is_some());
        limited || keys.iter().any(budgeted)
    }

    /// A batch is written: the sums have these versions now.
    pub(super) fn written(&mut self, versions: &[(Uuid, i64)], ended: &[Uuid], appends: Appends) {
        for (project, version) in versions {
            match self.standing.balances.get_mut(project) {
                Some(balance) if balance.version + 1 == *version => balance.version = *version,
                // Somebody else has changed them meanwhile.
                Some(_) => self.forget_project(*project),
                None => {}
            }
        }
        for id in ended {
            self.streams.remove(id);
        }
        self.appends = Some(appends);
    }
}
