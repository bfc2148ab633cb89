//! All keys in memory, and keeping them as the database has them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use subtle::ConstantTimeEq;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::Accounts;
use super::aliases::{AliasTables, tables};
use super::attempts::Attempts;
use super::audit::Author;
use super::caller::{AdmitError, AuthError, Caller, CallerKind};
use super::error::AccountsError;
use super::policy::Policy;
use super::projects::DefaultRates;
use super::secret::{digest, is_mistyped};
use super::uses::Use;
use crate::domain::{Aliases, ApiKeyId, Clock, IdSource, ProjectId, Timestamp};
use crate::store::{ACCOUNTS, AliasRecord, KeyKind, Store, StoreError, StoredKey};

/// How often the change number is asked for: a change reaches every replica within a second.
pub(super) const POLL_EVERY: Duration = Duration::from_millis(500);

/// After how many of these polls the last uses of keys are written: every five seconds.
const WRITE_USES_EVERY: u64 = 10;

/// What all clones of [`Accounts`] share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) store: Store,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ids: Arc<dyn IdSource>,
    ring: ArcSwap<Ring>,
    /// Aliases that the settings file gives.
    given: ArcSwap<Vec<AliasRecord>>,
    attempts: Attempts,
    /// When each key was last used; outlives the ring, which is made again with every change.
    pub(super) uses: Mutex<HashMap<ApiKeyId, Arc<Use>>>,
    /// Whether something was forgotten that the database's log may still hold.
    pub(super) has_forgotten: AtomicBool,
}

/// The keys and aliases at one change number.
#[derive(Debug, Default)]
struct Ring {
    number: i64,
    keys: HashMap<[u8; 32], Entry>,
    /// Whether any key or project has a list of models that it may use, or may not.
    keys_are_limited: bool,
    aliases: AliasTables,
}

#[derive(Debug)]
struct Entry {
    hash: [u8; 32],
    caller: Caller,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    project_archived: bool,
    used: Arc<Use>,
}

impl Entry {
    fn new(key: StoredKey, used: Arc<Use>) -> Self {
        // A policy that cannot be read allows nothing rather than everything.
        let policy = key.policy.as_deref().map(|text| {
            Policy::read(text).unwrap_or_else(|error| {
                tracing::error!(%error, key = %key.record.id, "the policy of a project cannot be read; it may use no model");
                Policy { allowed_models: Some(Vec::new()), ..Policy::default() }
            })
        });
        Self {
            hash: key.hash,
            caller: Caller {
                api_key_id: key.record.id,
                kind: key.record.project_id.map_or(CallerKind::Admin, CallerKind::Project),
                name: key.record.name.into(),
                allowed_models: key.record.allowed_models.map(Into::into),
                policy: policy.map(Arc::new),
                adapt: key.record.adapt.or(key.project_adapt).unwrap_or_default(),
                join_retries: key.record.join_retries.or(key.project_join_retries).unwrap_or(false),
                generates_for: key.record.generates_for.filter(|_| !key.project_archived),
                scopes: key.record.scopes,
                role: key.record.role,
                allowed_addresses: key.record.allowed_addresses.map(Into::into),
            },
            expires_at: key.record.expires_at,
            revoked_at: key.record.revoked_at,
            // An admin key outlives the project that it makes images for.
            project_archived: key.project_archived && key.record.kind == KeyKind::Project,
            used,
        }
    }
}

impl Accounts {
    /// Reads all keys from a migrated database.
    pub async fn load(store: Store, clock: Arc<dyn Clock>, ids: Arc<dyn IdSource>) -> Result<Self, AccountsError> {
        let (attempts, uses) = (Attempts::default(), Mutex::default());
        let has_forgotten = AtomicBool::new(false);
        let inner = Inner {
            store,
            clock,
            ids,
            ring: ArcSwap::default(),
            given: ArcSwap::default(),
            attempts,
            uses,
            has_forgotten,
        };
        inner.read().await?;
        Ok(Self { inner: Arc::new(inner), author: Arc::new(Author::System), default_rates: DefaultRates::default() })
    }

    /// Keeps the keys as the database has them: starts a task on `runtime` that ends when the last clone is dropped or
    /// `tracker` is closed. While the database is away the keys stay as they are.
    pub fn watch(&self, tracker: &TaskTracker, runtime: &Handle) {
        tracker.spawn_on(watch(Arc::downgrade(&self.inner), tracker.clone()), runtime);
    }

    /// Reads the keys again if they have changed.
    pub async fn refresh(&self) -> Result<(), AccountsError> {
        Ok(self.inner.refresh().await?)
    }

    /// Whose key this is, from memory; takes the same time for every key that is as long.
    pub fn authenticate(&self, presented: &str, now: Timestamp) -> Result<Caller, AuthError> {
        let ring = self.inner.ring.load();
        let hash = digest(presented);
        let entry = ring.keys.get(&hash).filter(|entry| bool::from(entry.hash.ct_eq(&hash)));
        // A key that an operator chose may have the form of a mistyped one of ours: the ring has it all the same.
        let unknown = || if is_mistyped(presented) { AuthError::Mistyped } else { AuthError::Unknown };
        entry.ok_or_else(unknown)?.admit(now)
    }

    /// Lets a caller in by its key. An address that sent too many unknown keys must wait, except with a key that was used
    /// from there before.
    pub fn admit(&self, presented: &str, address: Option<IpAddr>, now: Timestamp) -> Result<Caller, AdmitError> {
        self.admit_if(presented, address, now, |caller, address| {
            self.inner.attempts.is_known(address, caller.api_key_id)
        })
    }

    /// As [`Accounts::admit`], but an address that must wait waits with every key: for people, who can.
    pub(super) fn admit_fresh(
        &self,
        presented: &str,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Caller, AdmitError> {
        self.admit_if(presented, address, now, |_, _| false)
    }

    fn admit_if(
        &self,
        presented: &str,
        address: Option<IpAddr>,
        now: Timestamp,
        may_pass_a_pause: impl FnOnce(&Caller, IpAddr) -> bool,
    ) -> Result<Caller, AdmitError> {
        let attempts = &self.inner.attempts;
        let outcome = self.authenticate(presented, now);
        let Some(address) = address else { return Ok(outcome?) };
        // Whether the key is good cannot be told from this answer.
        if let Some(wait) = attempts.pause(address, now)
            && !outcome.as_ref().is_ok_and(|caller| may_pass_a_pause(caller, address))
        {
            return Err(AdmitError::TooManyFailures(wait));
        }
        match &outcome {
            Ok(caller) => attempts.succeeded(address, caller.api_key_id),
            Err(AuthError::Unknown | AuthError::Mistyped) => {
                let digest = digest(presented);
                let digest = digest.first_chunk::<8>().map_or(0, |head| u64::from_be_bytes(*head));
                attempts.failed(address, digest, now);
            }
            Err(_) => {}
        }
        let caller = outcome?;
        if caller.may_come_from(address) { Ok(caller) } else { Err(AdmitError::AddressNotAllowed(caller.api_key_id)) }
    }

    /// The caller that a key makes, if the key is good.
    pub(super) fn caller(&self, id: ApiKeyId, now: Timestamp) -> Option<Caller> {
        let ring = self.inner.ring.load();
        ring.keys.values().find(|entry| entry.caller.api_key_id == id)?.admit(now).ok()
    }
}

impl Entry {
    fn admit(&self, now: Timestamp) -> Result<Caller, AuthError> {
        let id = self.caller.api_key_id;
        if self.revoked_at.is_some() {
            Err(AuthError::Revoked(id))
        } else if self.expires_at.is_some_and(|end| end <= now) {
            Err(AuthError::Expired(id))
        } else if self.project_archived {
            Err(AuthError::ProjectArchived(id))
        } else {
            self.used.note(now);
            Ok(self.caller.clone())
        }
    }
}

impl Inner {
    async fn refresh(&self) -> Result<(), StoreError> {
        if self.store.change_number(ACCOUNTS).await? != self.ring.load().number {
            self.read().await?;
        }
        Ok(())
    }

    pub(super) fn aliases(&self, project: Option<ProjectId>) -> Aliases {
        let ring = self.ring.load();
        let of = |project: Option<ProjectId>| ring.aliases.get(&project).cloned();
        Aliases { project: project.and_then(|project| of(Some(project))), gateway: of(None).unwrap_or_default() }
    }

    pub(super) fn keys_see_own_models(&self) -> bool {
        let ring = self.ring.load();
        ring.keys_are_limited || ring.aliases.keys().any(Option::is_some)
    }

    pub(super) fn given_aliases(&self) -> Arc<Vec<AliasRecord>> {
        self.given.load_full()
    }

    pub(super) async fn give_aliases(&self, aliases: Vec<AliasRecord>) -> Result<(), StoreError> {
        self.given.store(Arc::new(aliases));
        self.read().await
    }

    pub(super) async fn read(&self) -> Result<(), StoreError> {
        // The number first: keys that change after it are read again at the next look.
        let number = self.store.change_number(ACCOUNTS).await?;
        let keys = self.store.stored_keys().await?;
        let stored = self.store.stored_aliases().await?;
        // What the settings file gives counts before what was made by the API.
        let aliases = tables(stored.iter().chain(self.given.load().iter()));
        let entry = |key: StoredKey| {
            let used = self.uses_of(key.record.id);
            (key.hash, Entry::new(key, used))
        };
        let keys: HashMap<_, _> = keys.into_iter().map(entry).collect();
        let keys_are_limited = keys.values().any(|entry: &Entry| entry.caller.has_model_list());
        let new = Arc::new(Ring { number, keys, keys_are_limited, aliases });
        // Of two readers the one that saw less does not overwrite the other.
        self.ring.rcu(|old| if old.number > number { Arc::clone(old) } else { Arc::clone(&new) });
        Ok(())
    }
}

async fn watch(accounts: Weak<Inner>, tracker: TaskTracker) {
    let mut reachable = true;
    for round in 1_u64.. {
        if tracker.is_closed() {
            return;
        }
        tokio::time::sleep(POLL_EVERY).await;
        let Some(inner) = accounts.upgrade() else {
            return;
        };
        if round % WRITE_USES_EVERY == 0 {
            inner.write_uses(false).await;
        }
        match inner.refresh().await {
            Ok(()) => reachable = true,
            Err(error) if reachable => {
                tracing::warn!(%error, "keys cannot be read; those in memory stay as they are");
                reachable = false;
            }
            Err(_) => {}
        }
    }
}
