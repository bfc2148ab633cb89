//! Whether a request can be made at all, before its body is read: only what is certain by then refuses it. Every rate limit
//! belongs to a model, so it is looked at once the model is known.

use super::Books;
use super::error::ReserveError;
use super::limits::{Rates, WINDOW_SECONDS, check_concurrency};
use super::month::Month;
use crate::domain::{ApiKeyId, Money, ProjectId, Timestamp};
use crate::store::AdmissionRow;

/// The least that a generation can cost.
const LEAST_PRICE: Money = Money::from_nanos(1);

impl Books {
    /// Errors if whatever the project asks for now with this key would be refused: no credit, a spend limit or a budget used up,
    /// too much open. A repeated idempotency key costs nothing, so it is always admitted. What is not known refuses nothing.
    /// Returns whether a rate limit may refuse it still: [`Self::admit_model`].
    pub async fn admit(
        &self,
        project: ProjectId,
        key: ApiKeyId,
        idempotency_key: Option<&str>,
        now: Timestamp,
    ) -> Result<bool, ReserveError> {
        let month = Month::of(now).start();
        match self.store.admission(project, key, idempotency_key, month).await {
            Ok(Some(row)) if !row.is_repeated => decide(&row).map(|()| row.has_rate_limits),
            Ok(_) => Ok(false),
            Err(error) => {
                tracing::debug!(%error, "it is not known whether the project can make anything; the request is read");
                Ok(false)
            }
        }
    }

    /// Errors if the project's rate limits for this model, by our id, leave not even one request of one image now. Nothing is
    /// counted. What is not known refuses nothing.
    pub async fn admit_model(&self, project: ProjectId, model: &str, now: Timestamp) -> Result<(), ReserveError> {
        match self.store.rates_of_model(project, model, now.seconds() - WINDOW_SECONDS + 1).await {
            Ok((rules, counts)) => {
                let checked = Rates::new(rules, counts).check_images(project.uuid(), model, now, 1);
                checked.map(|_| ()).map_err(|reached| ReserveError::LimitReached(Box::new(reached)))
            }
            Err(error) => {
                tracing::debug!(%error, "the rate limits are not known; the request is read");
                Ok(())
            }
        }
    }
}

fn decide(row: &AdmissionRow) -> Result<(), ReserveError> {
    let available = row.posted.saturating_sub(row.held);
    if row.prepaid && available <= 0 {
        return Err(ReserveError::InsufficientCredit { available: Money::from_nanos(available), needed: LEAST_PRICE });
    }
    let used = row.spent_this_month.saturating_add(row.held);
    if let Some(limit) = row.spend_limit.filter(|limit| used >= *limit) {
        let (limit, used) = (Money::from_nanos(limit), Money::from_nanos(used));
        return Err(ReserveError::SpendLimitReached { limit, used, needed: LEAST_PRICE });
    }
    let used = row.key_spent.saturating_add(row.key_held);
    if let Some(budget) = row.key_budget.filter(|budget| used >= *budget) {
        let (budget, used) = (Money::from_nanos(budget), Money::from_nanos(used));
        return Err(ReserveError::BudgetReached { budget, used, needed: LEAST_PRICE });
    }
    let reached = check_concurrency(row.concurrency_limit, row.open_generations);
    reached.map_err(|reached| ReserveError::LimitReached(Box::new(reached)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_used_up_refuses() {
        let row = AdmissionRow {
            prepaid: true,
            spend_limit: Some(10),
            concurrency_limit: Some(2),
            posted: 5,
            held: 4,
            open_generations: 1,
            spent_this_month: 5,
            key_budget: Some(3),
            key_spent: 1,
            key_held: 1,
            is_repeated: false,
            has_rate_limits: false,
        };
        assert!(decide(&row).is_ok());
        assert!(matches!(
            decide(&AdmissionRow { posted: 4, ..row.clone() }),
            Err(ReserveError::InsufficientCredit { .. })
        ));
        assert!(decide(&AdmissionRow { posted: 4, prepaid: false, ..row.clone() }).is_ok());
        assert!(matches!(
            decide(&AdmissionRow { spent_this_month: 6, ..row.clone() }),
            Err(ReserveError::SpendLimitReached { .. })
        ));
        assert!(matches!(
            decide(&AdmissionRow { key_held: 2, ..row.clone() }),
            Err(ReserveError::BudgetReached { .. })
        ));
        assert!(matches!(decide(&AdmissionRow { open_generations: 2, ..row }), Err(ReserveError::LimitReached(_))));
    }
}
