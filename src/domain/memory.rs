//! One budget of memory for everything large that is under way: request bodies, input images, delivered images.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::ProjectId;

/// How much memory a request takes for each byte of its body: the body or its parts, the checked order, what the provider is
/// sent, and the images that are uploaded.
pub const MEMORY_OF_BODY: u64 = 4;
/// What part of the process's memory bodies and images may take: a half. The other half is for everything else, and for what
/// the allocator keeps.
const BUDGET_PART: u64 = 2;
/// When to come back after [`OutOfMemory`].
pub const MEMORY_WAIT: Duration = Duration::from_secs(1);

/// What bodies and images under way may take, all together. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: u64,
    /// The most for one request's input: one project may always have this much.
    one_input: u64,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    all: u64,
    inputs: u64,
    /// By project, what its inputs and its outputs take.
    projects: HashMap<ProjectId, [u64; 2]>,
}

/// What memory is used for. Inputs leave a quarter of the budget to outputs, which are paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryUse {
    /// Request bodies and what is made of them.
    Input,
    /// Delivered images.
    Output,
}

/// A part of the budget, given back when it is dropped.
pub struct MemoryShare {
    budget: MemoryBudget,
    purpose: MemoryUse,
    project: Option<ProjectId>,
    bytes: u64,
}

/// There is not enough memory left now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutOfMemory {
    /// For anybody.
    #[error("too many large requests are under way at this gateway; try again soon")]
    Gateway,
    /// For this project, which has its part of the budget.
    #[error("this project has too many large requests under way; try again when some of them are done")]
    Project,
}

impl MemoryBudget {
    /// The budget of a process that may take so many bytes. A body of `body_limit` bytes always fits.
    #[must_use]
    pub fn of_process(limit: u64, body_limit: u64) -> Self {
        Self::new(limit / BUDGET_PART, body_limit.saturating_mul(MEMORY_OF_BODY))
    }

    /// The least that a process must be allowed for bodies of this size, in bytes.
    #[must_use]
    pub const fn least_for(body_limit: u64) -> u64 {
        Self::least(body_limit.saturating_mul(MEMORY_OF_BODY)).saturating_mul(BUDGET_PART)
    }

    /// A budget of so many bytes, which holds at least one input of `one_input` bytes beside what is kept for outputs.
    #[must_use]
    pub fn new(limit: u64, one_input: u64) -> Self {
        let limit = limit.max(Self::least(one_input));
        Self(Arc::new(Shared { limit, one_input, used: Mutex::default() }))
    }

    /// The smallest budget in bytes that takes an input of this size.
    const fn least(one_input: u64) -> u64 {
        (one_input / 3).saturating_mul(4).saturating_add(4)
    }

    /// The budget in bytes.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// How much of it is in use, in bytes.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.lock().all
    }

    /// A part of the budget, for a project or for nobody in particular. Errors if there is not so much left.
    pub fn reserve(
        &self,
        purpose: MemoryUse,
        project: Option<ProjectId>,
        bytes: u64,
    ) -> Result<MemoryShare, OutOfMemory> {
        let mut share = MemoryShare { budget: self.clone(), purpose, project, bytes: 0 };
        share.grow(bytes)?;
        Ok(share)
    }

    /// The most for all of a purpose, and for one project: half of it for inputs, three quarters for outputs, so that others
    /// can go on.
    fn most(&self, purpose: MemoryUse) -> (u64, u64) {
        let quarter = self.0.limit / 4;
        match purpose {
            MemoryUse::Input => (quarter * 3, (quarter * 2).max(self.0.one_input)),
            MemoryUse::Output => (self.0.limit, quarter * 3),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Used> {
        self.0.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Used {
    fn of_project(&mut self, project: ProjectId, purpose: MemoryUse) -> &mut u64 {
        &mut self.projects.entry(project).or_default()[purpose as usize]
    }

    fn give_back(&mut self, share: &MemoryShare, bytes: u64) {
        self.all -= bytes;
        if share.purpose == MemoryUse::Input {
            self.inputs -= bytes;
        }
        let Some(project) = share.project else { return };
        *self.of_project(project, share.purpose) -= bytes;
        if self.projects.get(&project) == Some(&[0, 0]) {
            self.projects.remove(&project);
        }
    }
}

impl MemoryShare {
    /// How many bytes it has.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes more. Errors if there is not so much left; then it keeps what it has.
    pub fn grow(&mut self, bytes: u64) -> Result<(), OutOfMemory> {
        let (most, most_each) = self.budget.most(self.purpose);
        let mut used = self.budget.lock();
        let of_purpose = if self.purpose == MemoryUse::Input { used.inputs } else { used.all };
        if of_purpose.saturating_add(bytes) > most || used.all.saturating_add(bytes) > self.budget.0.limit {
            return Err(OutOfMemory::Gateway);
        }
        if let Some(project) = self.project {
            let of_project = used.projects.get(&project).map_or(0, |uses| uses[self.purpose as usize]);
            if of_project.saturating_add(bytes) > most_each {
                return Err(OutOfMemory::Project);
            }
            *used.of_project(project, self.purpose) += bytes;
        }
        used.all += bytes;
        if self.purpose == MemoryUse::Input {
            used.inputs += bytes;
        }
        drop(used);
        self.bytes += bytes;
        Ok(())
    }

    /// Gives back all but so many bytes.
    pub fn shrink_to(&mut self, bytes: u64) {
        let freed = self.bytes.saturating_sub(bytes);
        self.budget.lock().give_back(self, freed);
        self.bytes -= freed;
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

impl fmt::Debug for MemoryShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryShare({:?}, {} bytes)", self.purpose, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn project(number: u128) -> ProjectId {
        ProjectId::from_uuid(Uuid::from_u128(number))
    }

    #[test]
    fn inputs_leave_a_quarter_to_outputs_and_half_to_other_projects() {
        let budget = MemoryBudget::new(1_000, 100);
        let mut first = budget.reserve(MemoryUse::Input, Some(project(1)), 400).unwrap();
        assert_eq!(first.grow(101), Err(OutOfMemory::Project));
        let second = budget.reserve(MemoryUse::Input, Some(project(2)), 350).unwrap();
        assert_eq!(budget.reserve(MemoryUse::Input, Some(project(3)), 1).unwrap_err(), OutOfMemory::Gateway);
        let output = budget.reserve(MemoryUse::Output, Some(project(1)), 250).unwrap();
        assert_eq!(budget.reserve(MemoryUse::Output, Some(project(2)), 1).unwrap_err(), OutOfMemory::Gateway);
        assert_eq!((budget.used(), budget.limit()), (1_000, 1_000));
        first.shrink_to(100);
        assert_eq!((first.bytes(), budget.used()), (100, 700));
        drop((first, second, output));
        assert_eq!(budget.used(), 0);
        assert!(budget.lock().projects.is_empty());
    }

    #[test]
    fn the_largest_input_fits_into_the_smallest_budget() {
        let body = 32 * 1024 * 1024;
        let least = MemoryBudget::of_process(MemoryBudget::least_for(body), body);
        assert_eq!(least.limit() * BUDGET_PART, MemoryBudget::least_for(body));
        assert!(least.reserve(MemoryUse::Input, Some(project(1)), body * MEMORY_OF_BODY).is_ok());
        let budget = MemoryBudget::new(0, 100);
        let share = budget.reserve(MemoryUse::Input, Some(project(1)), 100).unwrap();
        assert!(budget.reserve(MemoryUse::Input, Some(project(2)), 100).is_err());
        drop(share);
        assert!(budget.reserve(MemoryUse::Input, Some(project(2)), 100).is_ok());
    }

    #[test]
    fn outputs_of_one_project_leave_a_quarter_to_the_others() {
        let budget = MemoryBudget::new(1_000, 10);
        let first = budget.reserve(MemoryUse::Output, Some(project(1)), 750).unwrap();
        assert_eq!(budget.reserve(MemoryUse::Output, Some(project(1)), 1).unwrap_err(), OutOfMemory::Project);
        assert!(budget.reserve(MemoryUse::Output, None, 250).is_ok());
        drop(first);
    }
}
