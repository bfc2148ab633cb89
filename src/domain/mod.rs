//! Plain types that every module shares: money, ids, time, networks, permissions, adaptations, aliases, fair semaphores, a budget
//! of memory. It depends on no other module.

mod adapt;
mod alias;
mod clock;
mod fair;
mod fixed;
mod ids;
mod memory;
mod money;
mod network;
mod permissions;

pub use adapt::{Adapt, Adaptable, UnknownAdapt};
pub use alias::{Alias, AliasTable, Aliases};
pub use clock::{Clock, IdSource, ManualClock, SharedClock, SystemClock, SystemIds, Timestamp};
pub use fair::{FairKey, FairPermit, FairSemaphore};
pub use fixed::{Fixed, FixedError};
pub use ids::{
    ApiKeyId, AuditLogId, FileId, GenerationId, IdError, ProjectId, RequestId, ServiceAccountId, SpendAlertId,
    WebhookDeliveryId,
};
pub use memory::{MEMORY_OF_BODY, MEMORY_WAIT, MemoryBudget, MemoryShare, MemoryUse, OutOfMemory};
pub use money::{Money, MoneyError};
pub use network::{Network, NetworkError};
pub use permissions::{AdminAction, Role, Scope, Scopes, UnknownPermission};
