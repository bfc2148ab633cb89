//! What the writer has decided to write of a batch, and writes at once.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::books::{Applied, Recorded, Reserved};
use super::decide::{self, Submit};
use super::error::{LedgerError, ReserveError};
use super::memory::{Appends, Memory};
use super::month::Month;
use crate::domain::{GenerationId, Timestamp};
use crate::store::{
    Append, BalanceChange, CountRow, Finish, Idempotency, KeyChange, Late, MonthlyCharge, NewEvent, Reservation,
    StoreError, Stream, Submitted, SumChanges,
};

/// What a batch has decided to write.
#[derive(Default)]
pub(super) struct Writes<'b> {
    append: Append<'b>,
    idempotency: BTreeMap<(Uuid, &'b str), (&'b Reservation, &'b Idempotency)>,
    /// Clients that have left, and since when.
    pub(super) left: Vec<(GenerationId, Timestamp)>,
    /// Generations that have ended.
    pub(super) ended: Vec<Uuid>,
    balances: BTreeMap<Uuid, BalanceChange>,
    keys: BTreeMap<Uuid, KeyChange>,
    /// Who has reserved, by project.
    reserving: BTreeMap<Uuid, BTreeSet<Uuid>>,
    months: BTreeMap<(Uuid, Month), i64>,
    counts: BTreeMap<(Uuid, i64, &'b str), (i64, i64)>,
    /// Why an event could not be made.
    broken: Option<StoreError>,
}

impl<'b> Writes<'b> {
    pub(super) fn reserve(&mut self, memory: &mut Memory, r: &'b Reservation) -> Result<Reserved, ReserveError> {
        let allowed = memory.standing.reserve(r)?;
        self.push(NewEvent::reserved(r, allowed.prompt_until));
        memory.streams.insert(r.id.uuid(), Stream::of_reservation(r));
        if allowed.rates.is_some() {
            let key = (r.project_id.uuid(), r.created_at.seconds(), r.model.as_str());
            let (requests, images) = self.counts.entry(key).or_default();
            *requests += 1;
            *images += i64::from(r.num_images);
        }
        if let Some(idempotency) = &r.idempotency {
            // The last one of a name wins: an expired one may have been replaced within this batch.
            self.idempotency.insert((r.project_id.uuid(), &idempotency.key), (r, idempotency));
        }
        self.append.unanswered.extend(r.resend_digest.as_ref().map(|digest| (r, digest)));
        let hold = r.hold.nanos();
        let project = self.balances.entry(r.project_id.uuid()).or_default();
        project.held += hold;
        project.open += 1;
        self.keys.entry(r.api_key_id.uuid()).or_default().held += hold;
        self.reserving.entry(r.project_id.uuid()).or_default().insert(r.api_key_id.uuid());
        Ok(Reserved { rates: allowed.rates.unwrap_or_default() })
    }

    pub(super) fn submit(
        &mut self,
        mut stream: Option<&mut Stream>,
        s: &'b Submitted,
    ) -> Result<Recorded, LedgerError> {
        let (submit, recorded) = decide::submit(stream.as_deref_mut(), s)?;
        if let (Submit::Record, Some(stream)) = (submit, stream) {
            self.push_to(stream, |stream| NewEvent::submitted(stream, s));
        }
        Ok(recorded)
    }

    pub(super) fn late(&mut self, mut stream: Option<&mut Stream>, l: &'b Late) -> Result<Applied, LedgerError> {
        let applied = decide::late(stream.as_deref_mut(), l)?;
        if let (Applied::Now, Some(stream)) = (applied, stream) {
            self.push_to(stream, |stream| NewEvent::late_evidence(stream, l));
            self.ended.push(stream.id);
        }
        Ok(applied)
    }

    pub(super) fn start(
        &mut self,
        mut stream: Option<&mut Stream>,
        id: GenerationId,
        at: Timestamp,
    ) -> Result<Applied, LedgerError> {
        if let (true, Some(stream)) = (decide::start(stream.as_deref_mut(), id)?, stream) {
            self.push_to(stream, |stream| Ok(NewEvent::started(stream, at)));
        }
        Ok(Applied::Now)
    }

    pub(super) fn finish(&mut self, memory: &mut Memory, f: &'b Finish) -> Result<Applied, LedgerError> {
        let Memory { standing, streams, .. } = memory;
        let mut stream = streams.get_mut(&f.generation.uuid());
        let applied = decide::finish(stream.as_deref_mut(), f)?;
        let (Applied::Now, Some(stream)) = (applied, stream) else {
            return Ok(applied);
        };
        standing.settle(stream, f);
        self.push_to(stream, |stream| NewEvent::ended(stream, f));
        self.ended.push(stream.id);
        if f.release_idempotency_key {
            self.append.released.push(stream.id);
        }
        let price = f.price.nanos();
        let project = self.balances.entry(stream.project_id).or_default();
        project.held -= stream.hold;
        project.open -= 1;
        project.posted -= price;
        let key = self.keys.entry(stream.api_key_id).or_default();
        key.held -= stream.hold;
        key.spent += price;
        if price != 0 {
            *self.months.entry((stream.project_id, Month::of(f.settled_at))).or_default() += price;
        }
        Ok(Applied::Now)
    }

    pub(super) fn client_left(&mut self, id: GenerationId, at: Timestamp) {
        self.left.push((id, at));
    }

    pub(super) fn client_answered(&mut self, id: GenerationId) {
        self.append.answered.push(id);
    }

    fn push(&mut self, event: Result<NewEvent, StoreError>) {
        match event {
            Ok(event) => self.append.events.push(event),
            Err(error) => self.broken = Some(error),
        }
    }

    fn push_to(&mut self, stream: &mut Stream, event: impl FnOnce(&Stream) -> Result<NewEvent, StoreError>) {
        self.push(event(stream));
        stream.n += 1;
    }

    /// What is to be appended under this name; `guarded` by the versions that were decided on, where nothing is locked.
    pub(super) fn into_append(
        mut self,
        memory: &Memory,
        appends: Appends,
        guarded: bool,
    ) -> Result<Decided<'b>, StoreError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        if guarded {
            for (project, keys) in &self.reserving {
                let (Some(change), Some(balance)) =
                    (self.balances.get_mut(project), memory.standing.balances.get(project))
                else {
                    continue;
                };
                change.terms_version = Some(balance.terms_version);
                change.version = memory.depends_on_sums(*project, keys).then_some(balance.version);
            }
        }
        let counts = self.counts.into_iter().map(|((project_id, second, model), (requests, images))| CountRow {
            project_id,
            model: model.to_owned(),
            second,
            requests,
            images,
        });
        let months = self.months.into_iter().map(|((project_id, month), spent)| MonthlyCharge {
            project_id,
            starts_at: month.start(),
            ends_at: month.next().start(),
            spent,
        });
        let mut append = self.append;
        append.writer = appends.writer;
        append.last_seq = appends.last_seq;
        append.sums = SumChanges {
            balances: self.balances.into_iter().collect(),
            keys: self.keys.into_iter().collect(),
            months: months.collect(),
            counts: counts.collect(),
        };
        append.idempotency = self.idempotency.into_values().collect();
        Ok(Decided { append, left: self.left, ended: self.ended })
    }
}

/// What a batch writes.
pub(super) struct Decided<'b> {
    pub(super) append: Append<'b>,
    pub(super) left: Vec<(GenerationId, Timestamp)>,
    pub(super) ended: Vec<Uuid>,
}
