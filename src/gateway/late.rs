//! Evidence that comes after a generation has ended: the provider took, or finished, what was given up. The end stands
//! and stays free; the provider's id and its cost are booked, and the customer can fetch what was delivered.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::Gateway;
use super::attempt::ticket_of;
use super::generation::Job;
use super::recover::before;
use super::reservation::held_terms;
use super::wait::Outcome;
use crate::domain::Money;
use crate::ledger::{Applied, FinalState, Finish, GenerationRecord, Late};
use crate::providers::{CancelAnswer, Look};

/// How long after its end a request of unknown outcome is checked again.
const WATCHED_FOR: Duration = Duration::from_hours(2);
/// How many of them are checked in one round.
const CHECKED_AT_ONCE: u32 = 100;

impl Gateway {
    /// Checks the requests of generations that were given up without knowing what became of them.
    pub(super) async fn check_given_up(&self) {
        let since = before(self.clock.now(), WATCHED_FOR);
        match self.books.given_up(since, CHECKED_AT_ONCE).await {
            Ok(records) => {
                for record in records {
                    self.check_late(&record).await;
                }
            }
            Err(error) => warn!(%error, "generations that were given up could not be checked"),
        }
    }

    /// Checks the request of a generation that has ended, and books what it shows. One that still waits or runs is
    /// asked to be given up, since nobody waits for it.
    pub(super) async fn check_late(&self, record: &GenerationRecord) {
        if is_known(record) {
            return;
        }
        let Some((provider, attempt)) = self.providers.get(&record.provider).zip(record.attempt.clone()) else {
            return;
        };
        let (number, ticket) = (attempt.n, ticket_of(attempt));
        let outcome = match provider.look(&ticket).await {
            Ok(Look::Done(delivery)) => Outcome::Delivered(delivery),
            Ok(Look::Failed(failure)) => Outcome::Failed(*failure),
            Ok(Look::Queued(_) | Look::Running) => {
                let answer = provider.cancel(&ticket).await;
                let given_up = matches!(answer, Ok(CancelAnswer::Accepted));
                info!(generation = %record.id, provider_request_id = ticket.request_id, given_up, "a request still runs whose generation has ended");
                return;
            }
            Err(error) => {
                info!(generation = %record.id, provider_request_id = ticket.request_id, %error, "a request whose generation has ended cannot be checked");
                return;
            }
        };
        let outcome = match &self.keeper {
            Some(keeper) => keeper.keep(record.project_id, record.id, outcome).await,
            None => outcome,
        };
        let job = Job::new(record.id, record.project_id, record.created_at, record.deadline_at, record.model.clone());
        job.was_accepted(number);
        if let Some((seen, _)) = self.conclude(&job, &held_terms(record, number), outcome) {
            self.book_late(record, &seen).await;
        }
    }

    /// Books what was seen of a generation that had ended without it.
    pub(super) async fn book_late(&self, record: &GenerationRecord, seen: &Finish) {
        let tells_nothing = seen.cost == Money::ZERO && seen.answer.is_none();
        // Of a failure that was told before, another replica sees no more than the end has.
        let is_news = record.state == FinalState::Expired.into() || !tells_nothing;
        if seen.state == FinalState::Expired || !is_news || is_known(record) {
            return;
        }
        let late = Late {
            generation: record.id,
            at: self.clock.now(),
            cost: seen.cost,
            cost_source: seen.cost_source,
            billable_units: seen.billable_units,
            unit_price: seen.unit_price,
            answer: seen.answer.clone(),
        };
        match self.books.book_late(Arc::new(late)).await {
            Ok(Applied::Now) if tells_nothing => {
                info!(generation = %record.id, reason = seen.reason, "a generation that was given up has cost nothing");
            }
            Ok(Applied::Now) => {
                warn!(generation = %record.id, images = seen.images, cost_usd = %seen.cost, "the provider finished a request whose generation had ended; its cost is ours");
            }
            Ok(Applied::Already) => {}
            Err(error) => {
                warn!(generation = %record.id, %error, "what came after the end of a generation is not booked yet");
            }
        }
    }
}

/// Whether nothing can come to light any more about a generation: it has not ended, its end has what it cost, or that came
/// to light before.
fn is_known(record: &GenerationRecord) -> bool {
    let Some(outcome) = &record.outcome else { return true };
    record.state == FinalState::Succeeded.into() || outcome.cost != Money::ZERO || outcome.late_at.is_some()
}
