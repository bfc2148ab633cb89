//! A provider's call to our hook: it closes the gap where a request's id was lost, and has the waiter look at once.
//!
//! Polling stays the truth: a call only says that it is time to look.

use tracing::{error, info, warn};

use super::Gateway;
use super::attempt::submitted;
use super::reservation::held_terms;
use crate::domain::GenerationId;
use crate::ledger::{FinalState, GenerationRecord, LedgerError, Recorded};
use crate::providers::{Attempt, HookCall, HookError, HookHint, LookError, Provider};

/// Why a call is not taken.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It is not the provider's own, or not new.
    #[error("{0}")]
    Hook(#[from] HookError),
    /// No such generation, or not of this provider.
    #[error("the provider's call is about no generation that is known")]
    UnknownGeneration,
    /// The call names a request that the provider does not know for us.
    #[error("the provider's call names a request that is not ours")]
    NotOurs,
    /// The books.
    #[error("{0}")]
    Ledger(#[from] LedgerError),
}

impl Gateway {
    /// Takes a call of a provider about a generation.
    pub async fn take_call(
        &self,
        provider: &str,
        id: GenerationId,
        call: &HookCall,
        hint: &HookHint,
    ) -> Result<(), CallError> {
        let known = self.providers.get(provider).ok_or(CallError::UnknownGeneration)?;
        let request_id = known.read_hook(call).await?;
        let record = self.books.generation(id).await?.filter(|record| record.provider == provider);
        let record = record.ok_or(CallError::UnknownGeneration)?;
        let attempt = Attempt { generation: id, number: hint.attempt.unwrap_or(1).max(1) };
        let ended = record.outcome.is_some();
        match &record.attempt {
            Some(stored) if stored.provider_request_id == request_id && ended => self.check_if_given_up(&record).await,
            Some(stored) if stored.provider_request_id == request_id => self.waiter.poke(id),
            Some(stored) if stored.n >= attempt.number => {
                warn!(generation = %id, request_id, "the provider calls about a request that is not this generation's");
                return Err(CallError::NotOurs);
            }
            _ => self.adopt_request(known.as_ref(), &record, attempt, &request_id, hint).await?,
        }
        Ok(())
    }

    /// A call about a generation that was given up brings what was still unknown of it.
    async fn check_if_given_up(&self, record: &GenerationRecord) {
        if record.state == FinalState::Expired.into() {
            self.check_late(record).await;
        }
    }

    /// A generation whose request id was lost gets its ticket: whoever works on it goes on from there, and one that has
    /// ended gets what came late.
    async fn adopt_request(
        &self,
        provider: &dyn Provider,
        record: &GenerationRecord,
        attempt: Attempt,
        request_id: &str,
        hint: &HookHint,
    ) -> Result<(), CallError> {
        let endpoint = held_terms(record, attempt.number).endpoint;
        let ticket = provider.ticket(&endpoint, request_id, hint);
        // The address that was called is not signed, so anybody with an account there could name a request of his own.
        if let Err(LookError::Unknown | LookError::NotUnderstood(_)) = provider.look(&ticket).await {
            return Err(CallError::NotOurs);
        }
        match self.books.submitted(submitted(attempt, &ticket, self.clock.now())).await {
            Ok(Recorded::Open) => info!(generation = %record.id, request_id, "the provider's call has brought its id"),
            Ok(Recorded::Ended) => match self.books.generation(record.id).await? {
                // It was settled while this call was being checked: nothing is late.
                Some(now) if now.state == FinalState::Succeeded.into() => {}
                now => {
                    error!(generation = %record.id, request_id, "late webhook: the provider ran a request that had ended here; its cost is ours");
                    if let Some(now) = now {
                        self.check_late(&now).await;
                    }
                }
            },
            // Its own submit was answered meanwhile.
            Err(LedgerError::Invalid(_)) => {}
            Err(fault) => return Err(fault.into()),
        }
        if let Some(job) = self.jobs.get(record.id) {
            job.called.notify_one();
        }
        self.waiter.poke(record.id);
        Ok(())
    }
}
