//! Step 8: charges what was delivered, releases the hold otherwise; one transaction with the final state.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::{error, info, warn};

use super::Gateway;
use super::generation::{Finished, Job, Progress};
use super::reservation::Changes;
use super::wait::Outcome;
use crate::accounts::Kept;
use crate::catalogue::{Charge, Size, Terms};
use crate::domain::{Fixed, GenerationId, Money, Timestamp};
use crate::ledger::{Applied, Books, CostSource, FinalState, Finish, GenerationRecord, LedgerError, Submitted};
use crate::meters::Ended;
use crate::providers::{Delivery, Failure, FailureKind};

/// First and longest wait between two tries to write what must be written.
pub(super) const WRITE_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The field of a stored answer that holds what the catalogue computed as the cost.
const COMPUTED_COST: &str = "computed_cost_usd";

/// What stands where the provider's words were.
const ERASED: &str = "erased on request";

/// What came of an attempt to settle.
pub(super) enum Settled {
    /// The generation has ended, or is left to recovery.
    Done,
    /// Somebody has submitted another attempt meanwhile, of which the outcome said nothing: it goes on from there.
    NewerAttempt(Box<GenerationRecord>),
}

impl Gateway {
    /// Writes the end of a generation and tells the watchers. Tried until it is written; the customer does not wait for
    /// a database that is away once the hold and the provider's id are stored, since recovery would settle it the same way.
    pub(super) async fn settle(&self, job: &Arc<Job>, terms: &Terms, outcome: Outcome) -> Settled {
        let outcome = match &self.keeper {
            Some(keeper) => keeper.keep(job.project_id, job.id, outcome).await,
            None => outcome,
        };
        let Some((finish, finished)) = self.conclude(job, terms, outcome) else {
            warn!(generation = %job.id, "nobody here follows the generation any more; it stays open for recovery");
            return Settled::Done;
        };
        let finish = Arc::new(finish);
        let mut wait = WRITE_BACKOFF.0;
        loop {
            match self.books.finish(finish.clone()).await {
                Ok(Applied::Now) => break,
                Ok(Applied::Already) => {
                    info!(generation = %job.id, "another replica has settled it first");
                    Box::pin(self.tell_stored(job, &finish)).await;
                    return Settled::Done;
                }
                // One that has ended meanwhile is found to have ended by the next try.
                Err(LedgerError::NewerAttempt) => {
                    if let Some(record) = Box::pin(self.still_open(job.id)).await {
                        return Settled::NewerAttempt(record);
                    }
                }
                Err(LedgerError::Unavailable(reason)) => {
                    warn!(generation = %job.id, reason, "the end of a generation is not written yet; trying again");
                    // If this process died now, an image whose provider's id is stored nowhere would end free.
                    if finish.price == Money::ZERO || job.can_be_recovered() {
                        job.tell(Progress::Finished(Arc::new(finished.clone())));
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(WRITE_BACKOFF.1);
                }
                Err(fault) => {
                    error!(generation = %job.id, %fault, "the end of a generation cannot be written; its hold stays open");
                    break;
                }
            }
        }
        info!(
            generation = %job.id,
            state = finish.state.as_str(),
            reason = finish.reason,
            images = finish.images,
            price_usd = %finish.price,
            cost_usd = %finish.cost,
            "generation ended"
        );
        self.meters.ended(Ended {
            model: &terms.model,
            state: finish.state.as_str(),
            images: finish.images,
            queued: job.time_queued(),
        });
        job.tell(Progress::Finished(Arc::new(finished)));
        Settled::Done
    }

    /// The generation as the books have it, if it is open; asked until they answer.
    async fn still_open(&self, id: GenerationId) -> Option<Box<GenerationRecord>> {
        let mut wait = WRITE_BACKOFF.0;
        loop {
            match self.books.generation(id).await {
                Ok(record) => return record.filter(|record| record.outcome.is_none()).map(Box::new),
                Err(fault) => warn!(generation = %id, %fault, "the books cannot be read; trying again"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WRITE_BACKOFF.1);
        }
    }

    /// What is written, and what the watchers are told; nothing where the outcome is no end.
    pub(super) fn conclude(&self, job: &Job, terms: &Terms, outcome: Outcome) -> Option<(Finish, Finished)> {
        let now = self.clock.now();
        Some(match outcome {
            Outcome::Delivered(delivery) => {
                let sizes: Vec<Option<Size>> =
                    delivery.images.iter().map(|image| Size::from_pixels(image.width, image.height)).collect();
                let Ok(charge) = terms.charge(&sizes, delivery.billable_units) else {
                    error!(generation = %job.id, "what was delivered cannot be priced; it is free");
                    let failure = Failure::new(FailureKind::Run, "what was delivered cannot be priced");
                    return Some(failed(job, FinalState::Failed, failure, terms, now));
                };
                let ended = delivered(job, terms, &charge, *delivery, now);
                self.note_drift(&ended.0, charge.cost);
                ended
            }
            Outcome::Failed(failure) => failed(job, FinalState::Failed, failure, terms, now),
            Outcome::Cancelled(failure) => failed(job, FinalState::Cancelled, failure, terms, now),
            Outcome::Expired(failure) => failed(job, FinalState::Expired, failure, terms, now),
            Outcome::LeftOpen => return None,
        })
    }

    /// Counts and logs where the provider bills another amount than the catalogue computes: its price list has changed, or
    /// our model file is wrong.
    fn note_drift(&self, finish: &Finish, computed: Money) {
        if finish.cost != computed {
            self.cost_drifts.fetch_add(1, Ordering::Relaxed);
            warn!(generation = %finish.generation, model = finish.model.as_deref(), %computed, billed = %finish.cost, "the provider bills another amount than the catalogue computes");
        }
    }

    /// Tells the watchers what the books say. What this process has seen of the end, and whoever settled it has not, is
    /// booked.
    async fn tell_stored(&self, job: &Job, seen: &Finish) {
        let record = self.books.generation(job.id).await.ok().flatten();
        if let Some(record) = &record {
            self.book_late(record, seen).await;
        }
        let finished = record.and_then(|record| read_finished(&record).ok()).unwrap_or_else(|| Finished {
            id: job.id,
            state: FinalState::Expired,
            created_at: job.created_at,
            model: job.model.clone(),
            delivery: None,
            failure: Some(Failure::new(FailureKind::Lost, "the generation was settled elsewhere")),
            price: Money::ZERO,
            changes: None,
        });
        job.tell(Progress::Finished(Arc::new(finished)));
    }
}

/// A generation that is charged for what was delivered.
fn delivered(job: &Job, terms: &Terms, charge: &Charge, mut delivery: Delivery, now: Timestamp) -> (Finish, Finished) {
    let unit_cost = terms.unit_cost();
    let billed = billed_cost(delivery.billable_units, unit_cost);
    let drifts = billed.is_some_and(|billed| billed != charge.cost);
    let finish = Finish {
        generation: job.id,
        attempt: job.attempt(),
        model: Some(terms.model.clone()),
        state: FinalState::Succeeded,
        settled_at: now,
        price: charge.price,
        cost: billed.unwrap_or(charge.cost),
        cost_source: if billed.is_some() { CostSource::Billed } else { CostSource::Computed },
        billable_units: delivery.billable_units,
        unit_price: unit_cost.map(|cost| Fixed::from_billionths(cost.nanos())),
        images: u32::try_from(delivery.images.len()).unwrap_or(u32::MAX),
        megapixels: charge.megapixels,
        answer: stored_answer(&mut delivery, drifts.then_some(charge.cost)),
        error: None,
        reason: "delivered".to_owned(),
        release_idempotency_key: false,
    };
    let finished = Finished {
        id: job.id,
        state: FinalState::Succeeded,
        created_at: job.created_at,
        model: terms.model.clone(),
        delivery: Some(delivery),
        failure: None,
        price: charge.price,
        changes: None,
    };
    (finish, finished)
}

/// A generation that is free. What the provider charged us all the same is booked as our cost.
pub(super) fn failed(
    job: &Job,
    state: FinalState,
    failure: Failure,
    terms: &Terms,
    now: Timestamp,
) -> (Finish, Finished) {
    let unit_cost = terms.unit_cost();
    let billed = billed_cost(failure.billable_units, unit_cost);
    let finish = Finish {
        generation: job.id,
        attempt: job.attempt(),
        model: Some(terms.model.clone()),
        state,
        settled_at: now,
        price: Money::ZERO,
        cost: billed.unwrap_or(Money::ZERO),
        cost_source: if billed.is_some() { CostSource::Billed } else { CostSource::Computed },
        billable_units: failure.billable_units,
        unit_price: unit_cost.map(|cost| Fixed::from_billionths(cost.nanos())),
        images: 0,
        megapixels: Fixed::ZERO,
        answer: None,
        error: serde_json::to_string(&failure).ok(),
        reason: failure.message.chars().take(200).collect(),
        release_idempotency_key: may_succeed_later(failure.kind),
    };
    let finished = Finished {
        id: job.id,
        state,
        created_at: job.created_at,
        model: terms.model.clone(),
        delivery: None,
        failure: Some(failure),
        price: Money::ZERO,
        changes: None,
    };
    (finish, finished)
}

/// Whether the same request may be tried again under the same idempotency key: nothing of it can still be delivered, and
/// the fault was not the request's.
const fn may_succeed_later(kind: FailureKind) -> bool {
    matches!(
        kind,
        FailureKind::Account
            | FailureKind::Overloaded
            | FailureKind::Run
            | FailureKind::NoImages
            | FailureKind::Cancelled
            // The provider itself has given it up by its deadline.
            | FailureKind::TimedOut
            | FailureKind::InputUnreadable
            | FailureKind::NotSubmitted
    )
}

/// What is kept of a delivery for replays; beside it what the catalogue computed, where the provider billed otherwise.
/// Prompts are kept only where a project's data retention says so.
fn stored_answer(delivery: &mut Delivery, computed: Option<Money>) -> Option<String> {
    let prompt = delivery.prompt.take();
    let mut stored = serde_json::to_string(delivery).ok()?;
    delivery.prompt = prompt;
    if let Some(computed) = computed {
        let mut fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&stored).ok()?;
        fields.insert(COMPUTED_COST.to_owned(), computed.to_string().into());
        stored = serde_json::Value::Object(fields).to_string();
    }
    Some(stored)
}

/// What stays of a generation's end when its content is erased: how it ended, and what the catalogue computed where the
/// provider billed otherwise.
pub(super) fn kept_after_erasure(record: &GenerationRecord) -> Kept {
    let outcome = record.outcome.as_ref();
    let answer = outcome.and_then(|outcome| outcome.answer.as_deref());
    let answer: Option<serde_json::Value> = answer.and_then(|answer| serde_json::from_str(answer).ok());
    let computed = answer.as_ref().and_then(|answer| answer.get(COMPUTED_COST));
    let error = outcome.and_then(|outcome| outcome.error.as_deref());
    let failure: Option<Failure> = error.and_then(|error| serde_json::from_str(error).ok());
    let failure = failure.map(|failure| Failure::new(failure.kind, ERASED));
    let reason = match &failure {
        Some(_) => ERASED,
        None => outcome.map_or(ERASED, |outcome| outcome.reason.as_str()),
    };
    Kept {
        answer: computed.map(|computed| serde_json::json!({COMPUTED_COST: computed}).to_string()),
        reason: reason.to_owned(),
        error: failure.and_then(|failure| serde_json::to_string(&failure).ok()),
    }
}

/// What the provider billed beyond what the catalogue computed (below zero: less), where the two differ.
#[must_use]
pub fn cost_drift(record: &GenerationRecord) -> Option<Money> {
    let outcome = record.outcome.as_ref()?;
    let answer = outcome.answer.as_deref().filter(|answer| answer.contains(COMPUTED_COST))?;
    let answer: serde_json::Value = serde_json::from_str(answer).ok()?;
    let computed: Money = answer.get(COMPUTED_COST)?.as_str()?.parse().ok()?;
    Some(Money::from_nanos(outcome.cost.nanos().checked_sub(computed.nanos())?))
}

fn billed_cost(units: Option<Fixed>, unit_cost: Option<Money>) -> Option<Money> {
    unit_cost?.times(units?)
}

/// Writes a submit's id for as long as it takes.
pub(super) async fn persist(books: Books, submitted: Arc<Submitted>, job: Arc<Job>) {
    let mut wait = WRITE_BACKOFF.0;
    while let Err(fault) = books.submitted(submitted.clone()).await {
        if !matches!(fault, LedgerError::Unavailable(_)) {
            error!(generation = %submitted.generation, %fault, "the provider's id cannot be stored");
            return;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(WRITE_BACKOFF.1);
    }
    job.was_stored(submitted.attempt);
}

/// Why a record tells of no end.
#[derive(Debug, thiserror::Error)]
pub enum FinishedError {
    /// It is still open.
    #[error("generation `{0}` is still open")]
    Open(GenerationId),
    /// Its content was erased on request.
    #[error("the content of generation `{0}` was erased on request")]
    Erased(GenerationId),
    /// The stored answer cannot be read.
    #[error("the stored answer of generation `{0}` cannot be read: {1}")]
    Unreadable(GenerationId, serde_json::Error),
}

/// The end of a generation as the books tell it.
pub fn read_finished(record: &GenerationRecord) -> Result<Finished, FinishedError> {
    let outcome = record.outcome.as_ref().ok_or(FinishedError::Open(record.id))?;
    let state = record.state.final_state().ok_or(FinishedError::Open(record.id))?;
    if record.erased_at.is_some() && state == FinalState::Succeeded {
        return Err(FinishedError::Erased(record.id));
    }
    let unreadable = |fault| FinishedError::Unreadable(record.id, fault);
    let delivery = outcome.answer.as_deref().map(serde_json::from_str).transpose().map_err(unreadable)?;
    let failure = outcome.error.as_deref().map(serde_json::from_str).transpose().map_err(unreadable)?;
    Ok(Finished {
        id: record.id,
        state,
        created_at: record.created_at,
        model: record.model.clone(),
        delivery,
        failure,
        price: outcome.price,
        changes: Some(Changes::of_record(record)),
    })
}
