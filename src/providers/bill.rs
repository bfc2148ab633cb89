//! What a provider says that it billed, request by request, to be compared with our books.

use async_trait::async_trait;

use crate::domain::{Money, Timestamp};

/// Why a provider's bill cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BillingError {
    /// The address or a key cannot be used.
    #[error("the address or the key for its billing events cannot be used")]
    Settings,
    /// The provider does not answer.
    #[error("the provider does not tell what it billed: {0}")]
    Away(String),
    /// The provider refuses.
    #[error("the provider refuses to tell what it billed: {status} {message}")]
    Refused {
        /// The status of its answer.
        status: u16,
        /// What it says.
        message: String,
    },
    /// The answer is not what its documents say.
    #[error("what the provider billed cannot be read: {0}")]
    Unreadable(String),
}

/// What a provider billed for one request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BillingEvent {
    /// The provider's id of the request.
    pub request_id: String,
    /// The endpoint.
    pub endpoint: String,
    /// When.
    pub at: Timestamp,
    /// How much, discounts taken off.
    pub cost: Money,
}

/// A line of a bill that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OddLine {
    /// The provider's id of the request, if the line names one.
    pub request_id: Option<String>,
    /// What is wrong with it.
    pub problem: String,
}

/// Lines of a bill.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bills {
    /// What was billed. A request may be billed in parts, equal ones among them.
    pub events: Vec<BillingEvent>,
    /// Lines that cannot be read.
    pub odd: Vec<OddLine>,
}

impl Extend<Bills> for Bills {
    fn extend<T: IntoIterator<Item = Bills>>(&mut self, more: T) {
        for bills in more {
            self.events.extend(bills.events);
            self.odd.extend(bills.odd);
        }
    }
}

/// Whoever can tell what was billed.
#[async_trait]
pub trait Bill: Send + Sync {
    /// What was billed from `from` to `before`.
    async fn between(&self, from: Timestamp, before: Timestamp) -> Result<Bills, BillingError>;

    /// What was billed for these requests, whenever it was.
    async fn of_requests(&self, ids: &[String]) -> Result<Bills, BillingError>;
}
