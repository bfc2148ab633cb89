//! Deleting what a provider still has of a request.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

/// Why a provider has not deleted what it has of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EraseError {
    /// The provider does not answer.
    #[error("the provider does not answer: {0}")]
    Away(String),
    /// The provider refuses.
    #[error("the provider refuses to delete: {status} {message}")]
    Refused {
        /// The status of its answer.
        status: u16,
        /// What it says.
        message: String,
    },
    /// The provider has deleted a part, or does not say what it has deleted.
    #[error("the provider has not deleted everything: {0}")]
    Incomplete(String),
}

/// Whoever can delete what a provider has of a request.
#[async_trait]
pub trait Erase: Send + Sync + std::fmt::Debug {
    /// Deletes the input, the output and its files. Fine to repeat: what is gone already is deleted.
    async fn erase(&self, request_id: &str) -> Result<(), EraseError>;
}

/// Those who delete, by the provider's name that model files use.
pub type Erasers = BTreeMap<String, Arc<dyn Erase>>;
