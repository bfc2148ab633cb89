//! A semaphore whose permits are shared fairly among those who ask for them, whoever asks for how many.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// What permits are given to.
pub trait FairKey: Eq + Hash + Copy {}

impl<K: Eq + Hash + Copy> FairKey for K {}

/// Permits that are given to keys, such as projects. No key has more than its share, and a permit that becomes free goes to the
/// waiting key that has the fewest. Clones share the permits.
pub struct FairSemaphore<K: FairKey>(Arc<Shared<K>>);

struct Shared<K: FairKey> {
    share: usize,
    state: Mutex<State<K>>,
}

struct State<K: FairKey> {
    free: usize,
    /// How many permits each key has; keys without any are left out.
    held: HashMap<K, usize>,
    waiting: HashMap<K, VecDeque<Waiting<K>>>,
    /// Numbers those who wait, in their order.
    next: u64,
}

struct Waiting<K: FairKey> {
    number: u64,
    granted: oneshot::Sender<FairPermit<K>>,
}

/// One permit, given back when it is dropped.
pub struct FairPermit<K: FairKey> {
    shared: Arc<Shared<K>>,
    key: K,
}

impl<K: FairKey> FairSemaphore<K> {
    /// `permits` in all, and at most `share` of them for one key; at least one each.
    #[must_use]
    pub fn new(permits: usize, share: usize) -> Self {
        let state = State { free: permits.max(1), held: HashMap::new(), waiting: HashMap::new(), next: 0 };
        Self(Arc::new(Shared { share: share.max(1), state: Mutex::new(state) }))
    }

    /// Waits for a permit.
    pub async fn acquire(&self, key: K) -> FairPermit<K> {
        loop {
            let granted = {
                let mut state = self.0.lock();
                // Whoever waits has had a turn whenever a permit became free, so that nobody is overtaken here.
                if state.take(key, self.0.share) {
                    return self.permit(key);
                }
                state.wait(key)
            };
            // The other end is dropped only with the semaphore, which lives as long as this borrow.
            if let Ok(permit) = granted.await {
                return permit;
            }
        }
    }

    /// A permit, if one is free for this key.
    #[must_use]
    pub fn try_acquire(&self, key: K) -> Option<FairPermit<K>> {
        self.0.lock().take(key, self.0.share).then(|| self.permit(key))
    }

    fn permit(&self, key: K) -> FairPermit<K> {
        FairPermit { shared: self.0.clone(), key }
    }
}

impl<K: FairKey> Shared<K> {
    fn lock(&self) -> std::sync::MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: FairKey> State<K> {
    fn take(&mut self, key: K, share: usize) -> bool {
        let held = self.held.get(&key).copied().unwrap_or(0);
        if self.free == 0 || held >= share {
            return false;
        }
        self.free -= 1;
        self.held.insert(key, held + 1);
        true
    }

    fn wait(&mut self, key: K) -> oneshot::Receiver<FairPermit<K>> {
        let (granted, receiver) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.waiting.entry(key).or_default().push_back(Waiting { number, granted });
        receiver
    }

    fn give_back(&mut self, key: K) {
        self.free += 1;
        if let Some(held) = self.held.get_mut(&key) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&key);
            }
        }
    }

    /// Takes a permit for who is next: of the keys that wait and have less than their share the one that has the fewest, of
    /// several the one that waits longest.
    fn next(&mut self, share: usize) -> Option<(K, oneshot::Sender<FairPermit<K>>)> {
        if self.free == 0 {
            return None;
        }
        let held = |key: &K| self.held.get(key).copied().unwrap_or(0);
        let first = |queue: &VecDeque<Waiting<K>>| queue.front().map(|waiting| waiting.number);
        let able = self.waiting.iter().filter(|(key, _)| held(key) < share);
        let key = able.min_by_key(|(key, queue)| (held(key), first(queue))).map(|(key, _)| *key)?;
        let queue = self.waiting.get_mut(&key)?;
        let waiting = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&key);
        }
        let granted = waiting?.granted;
        self.take(key, share).then_some((key, granted))
    }
}

impl<K: FairKey> Drop for FairPermit<K> {
    fn drop(&mut self) {
        self.shared.lock().give_back(self.key);
        loop {
            let next = self.shared.lock().next(self.shared.share);
            let Some((key, granted)) = next else { return };
            // Who has stopped waiting gives the permit back, by this drop of its own, to whoever is next.
            drop(granted.send(FairPermit { shared: self.shared.clone(), key }));
        }
    }
}

impl<K: FairKey> Clone for FairSemaphore<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: FairKey> fmt::Debug for FairSemaphore<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FairSemaphore").field("free", &self.0.lock().free).finish_non_exhaustive()
    }
}

impl<K: FairKey> fmt::Debug for FairPermit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FairPermit").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn a_key_has_at_most_its_share_and_another_gets_one_at_once() {
        let semaphore = FairSemaphore::new(4, 3);
        let held: Vec<_> = (0..3).map(|_| semaphore.try_acquire(1).unwrap()).collect();
        assert!(semaphore.try_acquire(1).is_none());
        let other = semaphore.acquire(2).await;
        assert!(semaphore.try_acquire(3).is_none());
        drop(held);
        drop(other);
        assert_eq!(semaphore.0.lock().free, 4);
        assert!(semaphore.0.lock().held.is_empty());
    }

    #[tokio::test]
    async fn a_free_permit_goes_to_the_key_that_has_the_fewest_however_long_the_line_of_others() {
        let semaphore = FairSemaphore::new(2, 2);
        let (first, second) = (semaphore.acquire(1).await, semaphore.acquire(1).await);
        let mut line: Vec<_> = [1, 1, 1, 2].map(|key| Box::pin(semaphore.acquire(key))).into();
        for waiting in &mut line {
            assert!(poll!(waiting).is_pending());
        }
        drop(first);
        let newcomer = line.pop().unwrap().await;
        for waiting in &mut line {
            assert!(poll!(waiting).is_pending());
        }
        drop(newcomer);
        drop(second);
        let granted = futures_util::future::join_all(line.drain(..2)).await;
        assert!(poll!(&mut line[0]).is_pending());
        drop(granted);
        drop(line.remove(0).await);
    }

    #[tokio::test]
    async fn who_stops_waiting_does_not_keep_the_permit() {
        let semaphore = FairSemaphore::new(1, 1);
        let held = semaphore.acquire(1).await;
        for _ in 0..3 {
            assert!(tokio::time::timeout(Duration::from_millis(5), semaphore.acquire(2)).await.is_err());
        }
        drop(held);
        drop(semaphore.try_acquire(3).unwrap());
        assert!(semaphore.0.lock().waiting.is_empty());
    }
}
