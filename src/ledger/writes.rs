//! What the writer has decided to write of a batch, row by row, and writes at once.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::books::{Applied, Recorded, Reserved};
use super::decide::{self, Standing, Submit};
use super::error::{LedgerError, ReserveError};
use super::month::Month;
use crate::domain::{GenerationId, Timestamp};
use crate::store::{
    BalanceChange, Batch, CountRow, Finish, Idempotency, Late, MonthlyCharge, OpenRow, Reservation, StoreError,
    Submitted, SumChanges, WriteTransaction,
};

/// What a batch has decided to write.
#[derive(Default)]
pub(super) struct Writes<'b> {
    rows: Batch<'b>,
    idempotency: BTreeMap<(Uuid, &'b str), (&'b Reservation, &'b Idempotency)>,
    left: Vec<(GenerationId, Timestamp)>,
    started: Vec<(GenerationId, Timestamp)>,
    late: Vec<&'b Late>,
    released: Vec<Uuid>,
    balances: BTreeMap<Uuid, BalanceChange>,
    keys: BTreeMap<Uuid, BalanceChange>,
    months: BTreeMap<(Uuid, Month), i64>,
    counts: BTreeMap<(Uuid, i64, &'b str), (i64, i64)>,
}

impl<'b> Writes<'b> {
    pub(super) fn reserve(&mut self, standing: &mut Standing, r: &'b Reservation) -> Result<Reserved, ReserveError> {
        let allowed = standing.reserve(r)?;
        self.rows.generations.push((r, allowed.prompt_until));
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
        self.rows.webhooks.extend(r.webhook.as_ref().map(|webhook| (r, webhook)));
        self.rows.unanswered.extend(r.resend_digest.as_ref().map(|digest| (r, digest)));
        let hold = r.hold.nanos();
        let project = self.balances.entry(r.project_id.uuid()).or_default();
        project.held += hold;
        project.open += 1;
        self.keys.entry(r.api_key_id.uuid()).or_default().held += hold;
        Ok(Reserved { rates: allowed.rates.unwrap_or_default() })
    }

    pub(super) fn submit(&mut self, row: Option<&mut OpenRow>, s: &'b Submitted) -> Result<Recorded, LedgerError> {
        let (submit, recorded) = decide::submit(row, s)?;
        if submit == Submit::Record {
            self.rows.attempts.push(s);
        }
        Ok(recorded)
    }

    pub(super) fn late(&mut self, row: Option<&mut OpenRow>, l: &'b Late) -> Result<Applied, LedgerError> {
        let mut row = row;
        let applied = decide::late(row.as_deref_mut(), l)?;
        if let (Applied::Now, Some(row)) = (applied, row) {
            self.late.push(l);
            self.rows.transactions.extend(decide::late_settlement(row, l));
        }
        Ok(applied)
    }

    pub(super) fn start(
        &mut self,
        row: Option<&mut OpenRow>,
        id: GenerationId,
        at: Timestamp,
    ) -> Result<Applied, LedgerError> {
        if decide::start(row, id)? {
            self.started.push((id, at));
        }
        Ok(Applied::Now)
    }

    pub(super) fn finish(
        &mut self,
        standing: &mut Standing,
        mut row: Option<&mut OpenRow>,
        f: &'b Finish,
    ) -> Result<Applied, LedgerError> {
        let applied = decide::finish(row.as_deref_mut(), f)?;
        let (Applied::Now, Some(row)) = (applied, row) else {
            return Ok(applied);
        };
        standing.settle(row, f);
        self.rows.finished.push(f);
        self.rows.transactions.extend(decide::settlement(row, f));
        if f.release_idempotency_key {
            self.released.push(row.id);
        }
        let price = f.price.nanos();
        let project = self.balances.entry(row.project_id).or_default();
        project.held -= row.hold;
        project.open -= 1;
        project.posted -= price;
        let key = self.keys.entry(row.api_key_id).or_default();
        key.held -= row.hold;
        key.posted += price;
        if price != 0 {
            *self.months.entry((row.project_id, Month::of(f.settled_at))).or_default() += price;
        }
        Ok(Applied::Now)
    }

    pub(super) fn client_left(&mut self, id: GenerationId, at: Timestamp) {
        self.left.push((id, at));
    }

    pub(super) fn client_answered(&mut self, id: GenerationId) {
        self.rows.answered.push(id);
    }

    pub(super) async fn write(mut self, transaction: &mut WriteTransaction) -> Result<(), StoreError> {
        if !self.released.is_empty() {
            transaction.release_idempotency(&self.released).await?;
        }
        // Asked of what was queued before this batch: a generation may be started and finished in one.
        if !self.started.is_empty() {
            transaction.start_generations(&self.started).await?;
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
        self.rows.sums = SumChanges {
            balances: self.balances.into_iter().collect(),
            keys: self.keys.into_iter().collect(),
            months: months.collect(),
            counts: counts.collect(),
        };
        self.rows.idempotency = self.idempotency.into_values().collect();
        transaction.write_batch(&self.rows).await?;
        transaction.replace_attempts(&self.rows.attempts).await?;
        // Of generations that have ended, perhaps in this very batch.
        if !self.late.is_empty() {
            transaction.book_late(&self.late).await?;
        }
        // A client may leave in the very batch that records it.
        if !self.left.is_empty() {
            transaction.leave_requests(&self.left).await?;
        }
        Ok(())
    }
}
