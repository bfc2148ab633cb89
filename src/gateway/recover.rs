//! Picks up what was left open: at start and all the time, on every replica.
//!
//! A replica shows that it lives by a heartbeat. Open generations whose owner's heartbeat is old are taken over, each by
//! one replica, and followed from the provider's stored id. Nothing is submitted here.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use super::Gateway;
use super::attempt::ticket_of;
use super::generation::{Job, Progress};
use super::reservation::stored_order;
use super::settle::Terms;
use super::wait::Outcome;
use crate::catalogue::{Charge, Order, Size};
use crate::domain::{Fixed, Money, Timestamp};
use crate::ledger::GenerationRecord;
use crate::providers::{Failure, FailureKind};

/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// An owner whose heartbeat is older than this is taken for dead.
pub(super) const STALE_AFTER: Duration = Duration::from_secs(6);
/// Beats between two rounds of housekeeping in the books.
const MAINTAIN_EVERY: u64 = 300;
/// Beats between two searches for generations of ours that no job works on.
const ORPHANS_EVERY: u64 = 5;
/// A generation of ours that is younger than this may have a job that is just being made.
const ORPHAN_AGE: Duration = Duration::from_secs(10);
/// How many generations are taken over at once.
const ADOPTED_AT_ONCE: u32 = 200;

impl Gateway {
    /// Starts the heartbeat and the recovery. They end with the process.
    pub(super) fn start_recovery(self: &Arc<Self>) {
        // Not tracked: shutdown waits for jobs, and this never ends by itself.
        let gateway = Arc::downgrade(self);
        self.runtime.spawn(async move {
            for beat in 1_u64.. {
                let Some(gateway) = gateway.upgrade() else { return };
                gateway.beat_and_adopt().await;
                if beat % ORPHANS_EVERY == 0 {
                    gateway.take_up_orphans().await;
                }
                if beat % MAINTAIN_EVERY == 0 {
                    gateway.maintain().await;
                }
                drop(gateway);
                tokio::time::sleep(HEARTBEAT).await;
            }
        });
    }

    async fn beat_and_adopt(self: &Arc<Self>) {
        let now = self.clock.now();
        if let Err(fault) = self.books.heartbeat(self.replica, now).await {
            warn!(%fault, "the heartbeat could not be written");
            return;
        }
        let stale_before = before(now, STALE_AFTER);
        match self.books.adopt(self.replica, stale_before, ADOPTED_AT_ONCE).await {
            Ok(found) => {
                for open in found {
                    self.resume(open);
                }
            }
            Err(fault) => warn!(%fault, "open generations could not be looked for"),
        }
    }

    /// Generations of this process that no job works on: the database went away while it committed the hold, so that the
    /// job was told that there is none, or the job broke off.
    async fn take_up_orphans(self: &Arc<Self>) {
        let now = self.clock.now();
        match self.books.open_of(self.replica).await {
            Ok(open) => {
                let orphans = open
                    .into_iter()
                    .filter(|open| now.since(open.created_at) > ORPHAN_AGE && self.jobs.get(open.id).is_none());
                for orphan in orphans {
                    warn!(generation = %orphan.id, "an open generation has no job");
                    self.resume(orphan);
                }
            }
            Err(fault) => warn!(%fault, "generations without a job could not be looked for"),
        }
    }

    pub(super) async fn maintain(&self) {
        if let Err(fault) = self.books.maintain(self.clock.now()).await {
            warn!(%fault, "the books could not be kept in order");
        }
    }

    /// Leaves at a planned stop: what is still open may be taken over at once.
    pub async fn retire(&self) {
        if let Err(fault) = self.books.retire(self.replica, self.clock.now()).await {
            warn!(%fault, "this replica could not sign off; others will notice after a few seconds");
        }
        self.books.close();
    }

    /// Follows a generation that another process, or this one before a restart, has left open.
    fn resume(self: &Arc<Self>, open: GenerationRecord) {
        info!(generation = %open.id, has_provider_id = open.attempt.is_some(), "an open generation is taken over");
        let job = Job::new(open.id, open.project_id, open.created_at, open.deadline_at, open.model.clone());
        self.jobs.insert(job.clone());
        job.tell(Progress::Queued(None));
        let gateway = self.clone();
        let work = async move {
            let outcome = gateway.follow_adopted(&job, &open).await;
            // Where the provider's id was still to come, only now is it known which model it is.
            let stored = match open.attempt {
                Some(_) => None,
                None => gateway.books.generation(open.id).await.ok().flatten(),
            };
            let terms = gateway.terms_of(stored.as_ref().unwrap_or(&open));
            gateway.settle(&job, terms.as_ref(), outcome).await;
        };
        self.tracker.spawn_on(work, &self.runtime);
    }

    async fn follow_adopted(&self, job: &Arc<Job>, open: &GenerationRecord) -> Outcome {
        let Some(provider) = self.providers.get(&open.provider).cloned() else {
            error!(generation = %job.id, provider = open.provider, "there is no such provider any more");
            return Outcome::Expired(Failure::new(FailureKind::Lost, "its provider is not configured any more"));
        };
        match open.attempt.clone() {
            Some(submitted) => self.follow(job, &provider, ticket_of(submitted)).await,
            // Nobody knows whether the provider took it. It is never sent again.
            None => self.wait_for_call(job, &provider, 1).await,
        }
    }

    /// How it is charged: as the catalogue says for the stored parameters of the model that was submitted last, or, if
    /// the model is gone from the catalogue, the hold's share of what was delivered.
    fn terms_of(&self, open: &GenerationRecord) -> Box<dyn Terms> {
        let attempt = open.attempt.as_ref().map_or(1, |attempt| attempt.n);
        let stored = stored_order(open, attempt);
        let ordered = stored.as_ref().and_then(|(model, parameters)| self.catalogue.load().restore(model, parameters));
        if let Some(order) = ordered {
            return Box::new(Restored { order, hold: open.hold });
        }
        let model = stored.map_or_else(|| open.model.clone(), |(model, _)| model);
        Box::new(Share { model, hold: open.hold, ordered: open.num_images })
    }
}

/// This long before a moment.
pub(super) fn before(moment: Timestamp, ago: Duration) -> Timestamp {
    Timestamp::from_micros(moment.micros().saturating_sub(i64::try_from(ago.as_micros()).unwrap_or(i64::MAX)))
}

/// An order read back from the books, never charged above its hold: the catalogue may have changed since.
struct Restored {
    order: Order,
    hold: Money,
}

impl Terms for Restored {
    fn model(&self) -> &str {
        &self.order.model.id
    }

    fn charge(&self, delivered: &[Option<Size>], units: Option<Fixed>, markup: Fixed) -> Option<Charge> {
        let mut charge = self.order.charge(delivered, units, markup).ok()?;
        if charge.price > self.hold {
            warn!(price = %charge.price, hold = %self.hold, "the catalogue has become dearer since the hold; the hold's price counts");
            charge.price = self.hold;
        }
        Some(charge)
    }

    fn unit_cost(&self) -> Option<Money> {
        self.order.unit_cost()
    }
}

/// A share of the hold for each image delivered, when nothing else is known.
struct Share {
    model: String,
    hold: Money,
    ordered: u32,
}

impl Terms for Share {
    fn model(&self) -> &str {
        &self.model
    }

    fn charge(&self, delivered: &[Option<Size>], _units: Option<Fixed>, _markup: Fixed) -> Option<Charge> {
        let images = u32::try_from(delivered.len()).ok()?;
        let ordered = i64::from(self.ordered.max(1));
        let price = Money::from_nanos(self.hold.nanos() / ordered * i64::from(images).min(ordered));
        Some(Charge { price, cost: Money::ZERO, megapixels: Fixed::ZERO, images })
    }

    fn unit_cost(&self) -> Option<Money> {
        None
    }
}
