//! The books on both databases.

mod away;
mod costs;
mod credits;
mod days;
mod finishing;
mod late;
mod limits;
mod listing;
mod measure;
mod projections;
mod random;
mod recovery;
mod reserving;
mod retention;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::*;
use crate::domain::{ApiKeyId, Fixed, GenerationId, IdSource, Money, ProjectId, RequestId, SystemIds, Timestamp};
use crate::store::Store;
use crate::store::testing::TestDatabase;

/// 2026-11-21T08:00:00Z.
pub(super) const NOW: Timestamp = Timestamp::from_seconds(1_795_248_000);

/// Open books with one project and one key.
pub(super) struct Desk {
    pub(super) store: Store,
    pub(super) books: Books,
    pub(super) tracker: TaskTracker,
    pub(super) project: ProjectId,
    pub(super) key: ApiKeyId,
    /// This replica.
    pub(super) owner: Uuid,
}

impl Desk {
    pub(super) async fn open(database: &TestDatabase) -> Self {
        let store = database.store().await;
        let (project, key) = store.add_project(NOW).await;
        Self::with(store, project, key)
    }

    pub(super) fn with(store: Store, project: ProjectId, key: ApiKeyId) -> Self {
        let tracker = TaskTracker::new();
        let books = Books::start(store.clone(), &tracker, &Handle::current());
        Self { store, books, tracker, project, key, owner: SystemIds.uuid() }
    }

    /// Another replica on the same database.
    pub(super) async fn another(&self, database: &TestDatabase) -> Self {
        Self::with(database.open().await, self.project, self.key)
    }

    /// The project becomes prepaid and has this much.
    pub(super) async fn prepaid(&self, amount: Money) {
        self.store.change_project(self.project, |project| project.prepaid = true).await;
        if amount > Money::ZERO {
            let credit = self.top_up(amount);
            assert_eq!(self.books.credit(&credit).await, Ok(Applied::Now));
        }
    }

    pub(super) fn top_up(&self, amount: Money) -> Credit {
        Credit {
            id: SystemIds.uuid(),
            project_id: self.project,
            kind: CreditKind::TopUp,
            amount,
            reason: "paid in".to_owned(),
            author: "ada".to_owned(),
            at: NOW,
            audit: None,
        }
    }

    pub(super) fn reservation(&self, hold: Money) -> Reservation {
        Reservation {
            id: GenerationId::from_uuid(SystemIds.uuid()),
            project_id: self.project,
            api_key_id: self.key,
            created_at: NOW,
            deadline_at: NOW.plus(Duration::from_mins(5)),
            model: "flux/dev".to_owned(),
            requested_model: None,
            provider: "fal".to_owned(),
            endpoint: "fal-ai/flux/dev".to_owned(),
            num_images: 1,
            size: Some("1024x768".to_owned()),
            parameters: r#"{"num_images":1}"#.to_owned(),
            terms: None,
            prompt: Some("a lighthouse".to_owned()),
            user: None,
            request_id: RequestId::from_uuid(SystemIds.uuid()),
            source: "image.generation".to_owned(),
            hold,
            owner: self.owner,
            cancel_if_client_leaves: true,
            idempotency: None,
            resend_digest: None,
            webhook: None,
        }
    }

    /// Reserves; the generation's id.
    pub(super) async fn reserve(&self, hold: Money) -> GenerationId {
        let reservation = self.reservation(hold);
        let id = reservation.id;
        self.books.reserve(reservation).await.unwrap();
        id
    }

    pub(super) async fn balance(&self) -> Balance {
        self.books.balance(self.project, NOW).await.unwrap().unwrap()
    }

    /// Submits what has cost something, which most tests leave out.
    pub(super) async fn submit_what_cost(&self) {
        let missing = "INSERT INTO attempts (generation_id, n, endpoint, credential, provider_request_id, status_url,
                 response_url, cancel_url, submitted_at)
             SELECT id, 1, endpoint, 'key 1', 'made up', '', '', '', created_at FROM generations
             WHERE cost > 0 AND id NOT IN (SELECT generation_id FROM attempts)";
        self.store.execute(missing).await.unwrap();
    }

    /// Ends a test: everything must add up, and the writer must stop when it is told to.
    pub(super) async fn close(self) {
        self.submit_what_cost().await;
        assert_eq!(self.books.verify().await, Ok(vec![]));
        self.books.close();
        self.tracker.close();
        tokio::time::timeout(Duration::from_mins(1), self.tracker.wait()).await.unwrap();
    }
}

pub(super) fn submit_of(generation: GenerationId, attempt: u32) -> Submitted {
    Submitted {
        generation,
        attempt,
        endpoint: "fal-ai/flux/dev".to_owned(),
        credential: "key 1".to_owned(),
        provider_request_id: format!("fal-{generation}-{attempt}"),
        status_url: "https://queue.example/status".to_owned(),
        response_url: "https://queue.example/response".to_owned(),
        cancel_url: "https://queue.example/cancel".to_owned(),
        submitted_at: NOW,
    }
}

pub(super) fn dollars(text: &str) -> Money {
    text.parse().unwrap()
}

pub(super) fn delivered(generation: GenerationId, price: Money, cost: Money) -> Finish {
    Finish {
        generation,
        attempt: 9,
        model: None,
        state: FinalState::Succeeded,
        settled_at: NOW,
        price,
        cost,
        cost_source: CostSource::Billed,
        billable_units: Some(Fixed::ONE),
        unit_price: Some(Fixed::from_billionths(25_000_000)),
        images: 1,
        megapixels: Fixed::from_billionths(750_000_000),
        answer: Some(r#"{"images":[]}"#.to_owned()),
        error: None,
        reason: "delivered".to_owned(),
        release_idempotency_key: false,
    }
}

pub(super) fn failed(generation: GenerationId) -> Finish {
    Finish {
        state: FinalState::Failed,
        cost_source: CostSource::Computed,
        billable_units: None,
        unit_price: None,
        images: 0,
        megapixels: Fixed::ZERO,
        answer: None,
        error: Some(r#"{"code":"x"}"#.to_owned()),
        reason: "the provider refused it".to_owned(),
        ..delivered(generation, Money::ZERO, Money::ZERO)
    }
}
