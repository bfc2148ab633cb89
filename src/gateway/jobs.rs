//! Which generations this process works on: one job for each, however often recovery finds it open.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::generation::{Job, Progress};
use crate::domain::GenerationId;

/// The jobs of this process by id: one for each generation.
#[derive(Debug, Default)]
pub(super) struct Jobs(Mutex<HashMap<GenerationId, Arc<Job>>>);

impl Jobs {
    /// Registers a job; `None` if this process works on its generation already.
    pub fn claim(self: &Arc<Self>, job: &Arc<Job>) -> Option<Claim> {
        match self.lock().entry(job.id) {
            Entry::Occupied(_) => None,
            Entry::Vacant(place) => {
                place.insert(job.clone());
                Some(Claim { jobs: self.clone(), job: job.clone() })
            }
        }
    }

    pub fn get(&self, id: GenerationId) -> Option<Arc<Job>> {
        self.lock().get(&id).cloned()
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }

    pub fn ids(&self) -> Vec<GenerationId> {
        self.lock().keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<GenerationId, Arc<Job>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The only right of this process to work on a generation. Dropped, it is given up: a task that breaks off leaves its
/// generation to recovery, and whoever waits is told that the end is still to come.
#[derive(Debug)]
pub(super) struct Claim {
    jobs: Arc<Jobs>,
    pub job: Arc<Job>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.jobs.lock().remove(&self.job.id);
        self.job.tell(Progress::Overdue);
    }
}

#[cfg(test)]
mod tests {
    use super::super::generation::tests::job;
    use super::*;

    #[tokio::test]
    async fn a_generation_has_one_job_until_its_claim_is_given_up() {
        let jobs = Arc::new(Jobs::default());
        let (first, second) = (job(), job());
        let claim = jobs.claim(&first).unwrap();
        assert!(jobs.claim(&second).is_none());
        assert!(Arc::ptr_eq(&jobs.get(first.id).unwrap(), &first));
        drop(claim);
        assert!(jobs.get(first.id).is_none());
        assert!(matches!(first.outcome().await, Progress::Overdue), "whoever waits is woken");
        assert!(jobs.claim(&second).is_some());
    }
}
