//! Why the books refuse something.

use super::limits::LimitReached;
use crate::domain::{GenerationId, Money};
use crate::store::StoreError;

/// Why a generation was not reserved. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// A prepaid project has too little left.
    #[error("the project has `{available}` left and needs `{needed}`")]
    InsufficientCredit {
        /// What is left, open holds deducted.
        available: Money,
        /// What was to be held.
        needed: Money,
    },
    /// The project's month would cost more than its spend limit.
    #[error("the project has used `{used}` of its monthly limit of `{limit}` and needs `{needed}`")]
    SpendLimitReached {
        /// The limit.
        limit: Money,
        /// Settled this month, and open holds.
        used: Money,
        /// What was to be held.
        needed: Money,
    },
    /// The key would spend more than its budget.
    #[error("the key has used `{used}` of its budget of `{budget}` and needs `{needed}`")]
    BudgetReached {
        /// The budget.
        budget: Money,
        /// Settled with this key, and open holds.
        used: Money,
        /// What was to be held.
        needed: Money,
    },
    /// The month of all projects together would cost more than the organization's spend limit.
    #[error("the organization's monthly limit is reached")]
    OrganizationLimitReached,
    /// Too much was asked for in the last minute, or too much is open.
    #[error("a limit of `{}` is reached, `{}` are used", .0.limit, .0.used)]
    LimitReached(Box<LimitReached>),
    /// The project may no longer be used.
    #[error("the project is archived")]
    ProjectArchived,
    /// The key may no longer be used: revoked or expired.
    #[error("the key is revoked")]
    KeyRevoked,
    /// There is no such project, or no such key of it.
    #[error("the project or its key is unknown")]
    UnknownCaller,
    /// The idempotency key was used for something else.
    #[error("the idempotency key was used with another body")]
    SameKeyOtherBody,
    /// The idempotency key was used for the same: this generation.
    #[error("the idempotency key leads to generation `{0}`")]
    Duplicate(GenerationId),
    /// The row cannot be stored.
    #[error("the reservation cannot be recorded: {0}")]
    Refused(String),
    /// More want to reserve than the books can take soon.
    #[error("too many reservations are waiting")]
    Overloaded,
    /// The books cannot be written now; nothing may go to a provider.
    #[error("the books cannot be written: {0}")]
    Unavailable(String),
    /// The database's answer was lost, and perhaps the generation is there. Nothing may go to a provider, and whoever asked
    /// ends it.
    #[error("it is not known whether the reservation was written: {0}")]
    OutcomeUnknown(String),
}

/// Why the books refuse anything else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The generation has ended.
    #[error("the generation is not open")]
    NotOpen,
    /// The generation has not ended.
    #[error("the generation is still open")]
    StillOpen,
    /// The provider has accepted another attempt, of which whoever ends the generation does not know.
    #[error("the generation has a newer attempt")]
    NewerAttempt,
    /// There is no such generation.
    #[error("generation `{0}` is unknown")]
    UnknownGeneration(GenerationId),
    /// There is no such project.
    #[error("the project is unknown")]
    UnknownProject,
    /// A price above the hold is a mistake of ours that the customer must not pay for.
    #[error("the price `{price}` is above the hold of `{hold}`")]
    AboveHold {
        /// What was to be charged.
        price: Money,
        /// What was held.
        hold: Money,
    },
    /// More would be given back than was charged.
    #[error("`{amount}` cannot be given back of the `{charged}` that were charged")]
    AboveCharge {
        /// What was to be given back.
        amount: Money,
        /// What was charged, less what was given back before.
        charged: Money,
    },
    /// A transaction of this id has another kind or amount.
    #[error("a transaction of this id has another kind or amount")]
    SameIdOtherAmount,
    /// A credit would lead to a balance beyond what the books keep.
    #[error("a project's balance stays within a billion US dollars")]
    BalanceTooLarge,
    /// An amount, number or word that cannot be booked.
    #[error("this cannot be booked: {0}")]
    Invalid(String),
    /// The row cannot be stored.
    #[error("this cannot be recorded: {0}")]
    Refused(String),
    /// The books cannot be read or written now; try again.
    #[error("the books are unavailable: {0}")]
    Unavailable(String),
    /// The books hold something that cannot be: someone must look.
    #[error("the books are inconsistent: {0}")]
    Inconsistent(String),
}

impl From<StoreError> for LedgerError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(message) => Self::Refused(message),
            StoreError::Inconsistent(message) => Self::Inconsistent(message),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<StoreError> for ReserveError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(message) => Self::Refused(message),
            other => Self::Unavailable(other.to_string()),
        }
    }
}
