//! Dropping a month of generations that nobody may ask for any more. The ledger stays.

use super::month::Month;
use crate::domain::Timestamp;
use crate::store::{AuditRecord, MonthContent, MonthRange, Store, StoreError};

/// Why a month is not dropped.
#[derive(Debug, thiserror::Error)]
pub enum DropError {
    /// It must not be.
    #[error("{0}")]
    Refused(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How many generations a month has that may be dropped, such as `2026-05`.
///
/// Errors: [`DropError::Refused`] says what stands against it.
pub async fn droppable_month(store: &Store, text: &str, now: Timestamp) -> Result<i64, DropError> {
    let month = past_month(text, now)?;
    allowed(text, &store.month_content(&month, now).await?)
}

/// Drops a month: its generations go, with their calls to customers; the ledger, the attempts and the sums of its days stay.
/// One that broke off is gone on with. How many generations there were.
///
/// Errors: [`DropError::Refused`] says what stands against it.
pub async fn drop_month(store: &Store, text: &str, now: Timestamp, audit: &AuditRecord) -> Result<i64, DropError> {
    let month = past_month(text, now)?;
    let found = store.begin_drop(&month, now, audit, |found| obstacle(found).is_none()).await?;
    let generations = allowed(text, &found)?;
    store.finish_drop(&month, now).await?;
    Ok(generations)
}

fn past_month(text: &str, now: Timestamp) -> Result<MonthRange, DropError> {
    let month = Month::parse(text)
        .ok_or_else(|| DropError::Refused(format!("`{text}` is not a month; write one such as `2026-05`")))?;
    if month >= Month::of(now) {
        return Err(DropError::Refused(format!(
            "`{text}` is not over; only months before the present one can be dropped"
        )));
    }
    Ok(MonthRange { name: month.name(), from: month.start(), before: month.next().start() })
}

fn allowed(text: &str, found: &MonthContent) -> Result<i64, DropError> {
    match obstacle(found) {
        Some(why) => Err(DropError::Refused(format!("`{text}` cannot be dropped yet: {why}"))),
        None => Ok(found.generations),
    }
}

/// What stands against dropping a month.
fn obstacle(found: &MonthContent) -> Option<String> {
    let several = |count: i64, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    if found.is_dropped {
        None
    } else if found.open > 0 {
        Some(several(found.open, "generation has not ended", "generations have not ended"))
    } else if found.live_keys > 0 {
        Some(several(found.live_keys, "idempotency key is still valid", "idempotency keys are still valid"))
    } else if found.pending_webhooks > 0 {
        Some(several(found.pending_webhooks, "webhook is still to be delivered", "webhooks are still to be delivered"))
    } else {
        None
    }
}
