//! Which calls are under way: a few for each receiver, and some for each project, so that nobody waits for another's receivers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::ProjectId;

/// How many calls a replica makes at once.
const AT_ONCE: usize = 128;
/// How many of them a project may have.
pub(super) const EACH_PROJECT: u32 = 16;
/// How many of them a project may have to one host.
pub(super) const EACH_ENDPOINT: u32 = 4;

type Endpoint = (ProjectId, String);

/// The calls that are under way. Clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots(Arc<Mutex<InUse>>);

#[derive(Debug, Default)]
struct InUse {
    all: usize,
    projects: HashMap<ProjectId, usize>,
    endpoints: HashMap<Endpoint, usize>,
}

/// A call that is under way, until this is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Slots,
    endpoint: Endpoint,
}

impl Slots {
    /// Begins a call to a host, if the project may; `alone` if it may be the only one to this host.
    pub(super) fn take(&self, project: ProjectId, host: &str, alone: bool) -> Option<Slot> {
        let endpoint = (project, host.to_owned());
        let mut in_use = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let most = if alone { 1 } else { EACH_ENDPOINT as usize };
        let (of_project, of_endpoint) = (count(&in_use.projects, &project), count(&in_use.endpoints, &endpoint));
        if in_use.all >= AT_ONCE || of_project >= EACH_PROJECT as usize || of_endpoint >= most {
            return None;
        }
        in_use.all += 1;
        in_use.projects.insert(project, of_project + 1);
        in_use.endpoints.insert(endpoint.clone(), of_endpoint + 1);
        Some(Slot { slots: self.clone(), endpoint })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut in_use = self.slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        in_use.all -= 1;
        give_back(&mut in_use.projects, &self.endpoint.0);
        give_back(&mut in_use.endpoints, &self.endpoint);
    }
}

fn count<K: Eq + std::hash::Hash>(counts: &HashMap<K, usize>, key: &K) -> usize {
    counts.get(key).copied().unwrap_or(0)
}

fn give_back<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_receiver_has_a_few_slots_a_project_some_and_a_disabled_one_a_single_one() {
        let slots = Slots::default();
        let [one, other] = [1, 2].map(|number| ProjectId::from_uuid(Uuid::from_u128(number)));
        let mut held: Vec<Slot> = (0..EACH_ENDPOINT).map(|_| slots.take(one, "a:443", false).unwrap()).collect();
        assert!(slots.take(one, "a:443", false).is_none());
        held.push(slots.take(other, "a:443", false).unwrap());
        assert!(slots.take(other, "a:443", true).is_none());
        held.push(slots.take(other, "b:443", true).unwrap());
        while let Some(slot) = slots.take(one, &format!("host-{}", held.len()), false) {
            held.push(slot);
        }
        assert_eq!(held.iter().filter(|slot| slot.endpoint.0 == one).count(), EACH_PROJECT as usize);
        drop(held);
        let in_use = slots.0.lock().unwrap();
        assert!(in_use.all == 0 && in_use.projects.is_empty() && in_use.endpoints.is_empty(), "{in_use:?}");
    }
}
