//! Making, listing, changing and revoking keys.

use std::pin::Pin;

use super::Accounts;
use super::caller::CallerKind;
use super::error::AccountsError;
use super::secret::{Secret, digest, foreign_prefix, is_usable};
use crate::domain::{Adapt, ApiKeyId, Money, Network, ProjectId, Role, Scopes, ServiceAccountId, Timestamp};
use crate::store::{
    Cursor, KeyFilter, KeyKind, KeyOrigin, KeyRecord, NewKeyRow, Page, StoreError, StoredKey, WriteTransaction,
};

/// The longest name.
pub(super) const LONGEST_NAME: usize = 200;
/// The most networks that one key may name.
const MOST_NETWORKS: usize = 100;

/// A key to be made.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// What it opens.
    pub kind: CallerKind,
    /// What to call it; 1 to 200 characters.
    pub name: String,
    /// From when on it is no longer taken.
    pub expires_at: Option<Timestamp>,
    /// The most it may spend in its whole life.
    pub budget: Option<Money>,
    /// The models it may use, by our ids; every model when `None`.
    pub allowed_models: Option<Vec<String>>,
    /// What a project key may do; [`Scopes::DEFAULT`] when `None`.
    pub scopes: Option<Scopes>,
    /// What an admin key is trusted with; [`Role::Owner`] when `None`.
    pub role: Option<Role>,
    /// The networks that it may be used from; any address when `None`.
    pub allowed_addresses: Option<Vec<Network>>,
    /// What may be changed of its requests so that they fit; as its project when `None`.
    pub adapt: Option<Adapt>,
    /// Whether its requests join equal ones whose client went away; as its project when `None`.
    pub join_retries: Option<bool>,
}

impl NewKey {
    /// A key without limits, and with the permissions that are usual for its kind.
    #[must_use]
    pub const fn new(kind: CallerKind, name: String) -> Self {
        Self {
            kind,
            name,
            expires_at: None,
            budget: None,
            allowed_models: None,
            scopes: None,
            role: None,
            allowed_addresses: None,
            adapt: None,
            join_retries: None,
        }
    }
}

/// What is to be different about a key; `None` leaves it, `Some(None)` lifts it.
#[derive(Debug, Clone, Default)]
pub struct KeyChange {
    /// What to call it.
    pub name: Option<String>,
    /// From when on it is no longer taken.
    pub expires_at: Option<Option<Timestamp>>,
    /// The most it may spend in its whole life.
    pub budget: Option<Option<Money>>,
    /// The models it may use.
    pub allowed_models: Option<Option<Vec<String>>>,
    /// The project that an admin key may also make images for.
    pub generates_for: Option<Option<ProjectId>>,
    /// What a project key may do.
    pub scopes: Option<Scopes>,
    /// What an admin key is trusted with.
    pub role: Option<Role>,
    /// The networks that it may be used from.
    pub allowed_addresses: Option<Option<Vec<Network>>>,
    /// What may be changed of its requests so that they fit.
    pub adapt: Option<Option<Adapt>>,
    /// Whether its requests join equal ones whose client went away.
    pub join_retries: Option<Option<bool>>,
}

/// A key and the one that takes its place.
#[derive(Debug)]
pub struct Rotated {
    /// The old one, with the end that it has now.
    pub old: KeyRecord,
    /// The new one.
    pub new: KeyRecord,
    /// The new one's value; this is the only time that it is known.
    pub secret: Secret,
}

/// The keys that a first start has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstKeys {
    /// An admin key; `None` if there was one already.
    pub admin: Option<Secret>,
    /// A key of the project `default`; `None` if there was a project key already.
    pub project: Option<Secret>,
}

impl Accounts {
    /// Makes a key. This is the only time that its value is known.
    pub async fn create_key(&self, new: NewKey) -> Result<(KeyRecord, Secret), AccountsError> {
        check_name(&new.name)?;
        check_budget(new.budget)?;
        check_permissions(key_kind(new.kind), new.scopes, new.role)?;
        check_addresses(new.allowed_addresses.as_deref())?;
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            if let CallerKind::Project(id) = new.kind {
                self.open_project(&mut transaction, id).await?;
            }
            let made = self.insert_made(&mut transaction, new, KeyOrigin::Api, None).await?;
            self.commit(transaction).await?;
            Ok(made)
        }))
        .await
    }

    /// All keys, or those of one project, oldest first; revoked ones too.
    pub async fn list_keys(&self, project: Option<ProjectId>) -> Result<Vec<KeyRecord>, AccountsError> {
        let keys = self.inner.store.stored_keys().await?;
        Ok(keys
            .into_iter()
            .map(|key| key.record)
            .filter(|key| project.is_none() || key.project_id == project)
            .collect())
    }

    /// A page of keys that are not revoked.
    pub async fn keys_page(&self, filter: &KeyFilter, cursor: Cursor) -> Result<Page<KeyRecord>, AccountsError> {
        Ok(self.inner.store.keys_page(filter, cursor).await?)
    }

    /// One key that matches and is not revoked.
    pub async fn key(&self, filter: &KeyFilter) -> Result<KeyRecord, AccountsError> {
        let one = Cursor { after: None, oldest_first: false, limit: 1 };
        self.keys_page(filter, one).await?.items.into_iter().next().ok_or(AccountsError::UnknownKey)
    }

    /// Makes a key that takes the place of another one, on the same terms and for the same holder, and lets the old one
    /// end at `old_ends_at` or at its own end, if that is earlier. A budget goes on: the new key may spend what the old
    /// one has left.
    ///
    /// Errors: [`AccountsError::UnknownKey`] for a revoked one, [`AccountsError::GivenBySetting`].
    pub async fn rotate_key(
        &self,
        id: ApiKeyId,
        old_ends_at: Timestamp,
        expires_at: Option<Timestamp>,
    ) -> Result<Rotated, AccountsError> {
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            let keys = transaction.keys().await?;
            let found = keys.into_iter().map(|key| key.record).find(|key| key.id == id && key.revoked_at.is_none());
            let before = found.ok_or(AccountsError::UnknownKey)?;
            if before.origin == KeyOrigin::Setting {
                return Err(AccountsError::GivenBySetting(setting_name(before.kind)));
            }
            if let Some(project) = before.project_id {
                self.open_project(&mut transaction, project).await?;
            }
            let left = |budget: Money| budget.checked_sub(before.spent).unwrap_or_default().max(Money::ZERO);
            let new = NewKey {
                kind: before.project_id.map_or(CallerKind::Admin, CallerKind::Project),
                name: before.name.clone(),
                expires_at,
                budget: before.budget.map(left),
                allowed_models: before.allowed_models.clone(),
                scopes: Some(before.scopes),
                role: Some(before.role),
                allowed_addresses: before.allowed_addresses.clone(),
                adapt: before.adapt,
                join_retries: before.join_retries,
            };
            let holder = before.service_account_id;
            let (mut new, secret) = self.insert_made(&mut transaction, new, KeyOrigin::Api, holder).await?;
            if before.generates_for.is_some() {
                new.generates_for = before.generates_for;
                transaction.update_key(&new).await?;
            }
            let ends = before.expires_at.map_or(old_ends_at, |end| end.min(old_ends_at));
            let old = KeyRecord { expires_at: Some(ends), ..before.clone() };
            transaction.update_key(&old).await?;
            self.record_key(&mut transaction, Some(&before), &old).await?;
            self.commit(transaction).await?;
            Ok(Rotated { old, new, secret })
        }))
        .await
    }

    /// Revokes a key for good. It stops working here at once and on other replicas within a second. A key that was
    /// revoked before stays as it is.
    ///
    /// Errors: [`AccountsError::LastOwner`] for the last admin key that may make admin keys.
    pub async fn revoke_key(&self, id: ApiKeyId) -> Result<KeyRecord, AccountsError> {
        let now = self.inner.clock.now();
        self.change_record(id, None, |key| {
            key.revoked_at = key.revoked_at.or(Some(now));
            Ok(())
        })
        .await
    }

    /// Changes a key's name or terms.
    ///
    /// Errors: [`AccountsError::LastOwner`] where no admin key would be left that may make admin keys.
    pub async fn update_key(&self, id: ApiKeyId, change: KeyChange) -> Result<KeyRecord, AccountsError> {
        if let Some(name) = &change.name {
            check_name(name)?;
        }
        check_budget(change.budget.flatten())?;
        check_addresses(change.allowed_addresses.as_ref().and_then(Option::as_deref))?;
        let project = change.generates_for.flatten();
        self.change_record(id, project, |key| {
            if project.is_some() && key.kind != KeyKind::Admin {
                return Err(AccountsError::Invalid("a project key makes images for its own project only".to_owned()));
            }
            check_permissions(key.kind, change.scopes, change.role)?;
            key.scopes = change.scopes.unwrap_or(key.scopes);
            key.role = change.role.unwrap_or(key.role);
            if let Some(project) = change.generates_for {
                key.generates_for = project;
            }
            if let Some(networks) = change.allowed_addresses {
                key.allowed_addresses = networks;
            }
            if let Some(adapt) = change.adapt {
                key.adapt = adapt;
            }
            if let Some(join_retries) = change.join_retries {
                key.join_retries = join_retries;
            }
            if let Some(name) = change.name {
                key.name = name;
            }
            if let Some(expires_at) = change.expires_at {
                key.expires_at = expires_at;
            }
            if let Some(budget) = change.budget {
                key.budget = budget;
            }
            if let Some(models) = change.allowed_models {
                key.allowed_models = models;
            }
            Ok(())
        })
        .await
    }

    /// Makes the value of a setting a key of this kind (a project key belongs to the project `default`). A value that
    /// the setting had before stops working.
    pub async fn ensure_setting_key(&self, kind: KeyKind, value: &str) -> Result<KeyRecord, AccountsError> {
        if !is_usable(value) {
            return Err(AccountsError::UnusableValue);
        }
        let hash = digest(value);
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            let caller = self.caller_kind(&mut transaction, kind).await?;
            let keys = transaction.keys().await?;
            let same = keys.iter().find(|key| key.hash == hash);
            let ours = |key: &StoredKey| key.record.origin == KeyOrigin::Setting && key.record.kind == kind;
            if same.is_some_and(|key| !ours(key)) {
                return Err(AccountsError::ValueInUse(setting_name(kind)));
            }
            let now = self.inner.clock.now();
            for key in keys.iter().filter(|key| ours(key) && key.hash != hash) {
                if key.record.revoked_at.is_none() {
                    self.revoke_in(&mut transaction, &key.record, now).await?;
                }
            }
            let record = if let Some(key) = same {
                // Perhaps the operator has gone back to an earlier value.
                let record = KeyRecord { revoked_at: None, ..key.record.clone() };
                transaction.update_key(&record).await?;
                self.record_key(&mut transaction, Some(&key.record), &record).await?;
                record
            } else {
                let record =
                    self.new_record(caller, setting_name(kind).to_owned(), KeyOrigin::Setting, foreign_prefix(value));
                transaction.insert_key(&NewKeyRow { record: record.clone(), hash }).await?;
                self.record_key(&mut transaction, None, &record).await?;
                record
            };
            self.commit(transaction).await?;
            Ok(record)
        }))
        .await
    }

    /// Revokes the key of this kind that a setting gave, when the setting is gone. Says whether there was one.
    pub async fn drop_setting_key(&self, kind: KeyKind) -> Result<bool, AccountsError> {
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            let mut dropped = false;
            let now = self.inner.clock.now();
            for key in transaction.keys().await? {
                let record = &key.record;
                if record.origin == KeyOrigin::Setting && record.kind == kind && record.revoked_at.is_none() {
                    self.revoke_in(&mut transaction, record, now).await?;
                    dropped = true;
                }
            }
            self.commit(transaction).await?;
            Ok(dropped)
        }))
        .await
    }

    /// Makes a first admin key and a first project key, each only if the database has never had one of its kind. Of
    /// replicas that start together, one makes them.
    pub async fn ensure_first_keys(&self) -> Result<FirstKeys, AccountsError> {
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            let keys = transaction.keys().await?;
            let missing = |kind: KeyKind| keys.iter().all(|key| key.record.kind != kind);
            let mut first = FirstKeys { admin: None, project: None };
            for kind in [KeyKind::Admin, KeyKind::Project] {
                let caller = self.caller_kind(&mut transaction, kind).await?;
                if missing(kind) {
                    let scopes = (kind == KeyKind::Project).then_some(Scopes::ALL);
                    let new = NewKey { scopes, ..NewKey::new(caller, "first key".to_owned()) };
                    let (_, secret) = self.insert_made(&mut transaction, new, KeyOrigin::Bootstrap, None).await?;
                    match kind {
                        KeyKind::Admin => first.admin = Some(secret),
                        KeyKind::Project => first.project = Some(secret),
                    }
                }
            }
            self.commit(transaction).await?;
            Ok(first)
        }))
        .await
    }

    /// Gives up on a change that takes longer than a write may.
    pub(super) async fn in_time<T>(
        &self,
        change: Pin<Box<dyn Future<Output = Result<T, AccountsError>> + Send + '_>>,
    ) -> Result<T, AccountsError> {
        let limit = self.inner.store.options().write_timeout;
        match tokio::time::timeout(limit, change).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::no_answer(format!("no answer within {limit:?}")).into()),
        }
    }

    /// Begins a change of the accounts; one at a time, over all replicas.
    pub(super) async fn begin(&self) -> Result<WriteTransaction, AccountsError> {
        let mut transaction = self.inner.store.begin_as_is().await?;
        transaction.lock_accounts().await?;
        Ok(transaction)
    }

    /// Makes a change durable, and known to this replica.
    pub(super) async fn commit(&self, transaction: WriteTransaction) -> Result<(), AccountsError> {
        transaction.commit().await?;
        if let Err(error) = self.inner.read().await {
            tracing::warn!(%error, "a change of the accounts will be known here a little later");
        }
        Ok(())
    }

    /// What a key of this kind opens when a setting or the first start makes it.
    async fn caller_kind(
        &self,
        transaction: &mut WriteTransaction,
        kind: KeyKind,
    ) -> Result<CallerKind, AccountsError> {
        Ok(match kind {
            KeyKind::Admin => CallerKind::Admin,
            KeyKind::Project => CallerKind::Project(self.default_project_in(transaction).await?.id),
        })
    }

    pub(super) async fn insert_made(
        &self,
        transaction: &mut WriteTransaction,
        new: NewKey,
        origin: KeyOrigin,
        service_account_id: Option<ServiceAccountId>,
    ) -> Result<(KeyRecord, Secret), AccountsError> {
        let kind = key_kind(new.kind);
        let usual = match kind {
            KeyKind::Admin => Scopes::ALL,
            KeyKind::Project => Scopes::DEFAULT,
        };
        let secret = Secret::make(kind, self.inner.ids.as_ref())?;
        let record = KeyRecord {
            service_account_id,
            expires_at: new.expires_at,
            budget: new.budget,
            allowed_models: new.allowed_models,
            scopes: new.scopes.unwrap_or(usual),
            role: new.role.unwrap_or_default(),
            allowed_addresses: new.allowed_addresses,
            adapt: new.adapt,
            join_retries: new.join_retries,
            ..self.new_record(new.kind, new.name, origin, secret.prefix(kind))
        };
        let row = NewKeyRow { record, hash: digest(secret.expose()) };
        transaction.insert_key(&row).await?;
        self.record_key(transaction, None, &row.record).await?;
        Ok((row.record, secret))
    }

    /// A key without limits, made now.
    fn new_record(&self, caller: CallerKind, name: String, origin: KeyOrigin, prefix: String) -> KeyRecord {
        KeyRecord {
            id: ApiKeyId::from_uuid(self.inner.ids.uuid()),
            kind: key_kind(caller),
            project_id: match caller {
                CallerKind::Admin => None,
                CallerKind::Project(id) => Some(id),
            },
            service_account_id: None,
            name,
            prefix,
            origin,
            budget: None,
            spent: Money::ZERO,
            allowed_models: None,
            created_at: self.inner.clock.now(),
            expires_at: None,
            revoked_at: None,
            generates_for: None,
            scopes: Scopes::ALL,
            role: Role::Owner,
            allowed_addresses: None,
            adapt: None,
            join_retries: None,
            last_used_at: None,
        }
    }

    async fn revoke_in(
        &self,
        transaction: &mut WriteTransaction,
        key: &KeyRecord,
        now: Timestamp,
    ) -> Result<(), AccountsError> {
        let revoked = KeyRecord { revoked_at: Some(now), ..key.clone() };
        transaction.update_key(&revoked).await?;
        self.record_key(transaction, Some(key), &revoked).await
    }

    async fn change_record(
        &self,
        id: ApiKeyId,
        open: Option<ProjectId>,
        change: impl FnOnce(&mut KeyRecord) -> Result<(), AccountsError> + Send,
    ) -> Result<KeyRecord, AccountsError> {
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            if let Some(project) = open {
                self.open_project(&mut transaction, project).await?;
            }
            let keys = transaction.keys().await?;
            let records = keys.iter().map(|key| &key.record);
            let before = records.clone().find(|record| record.id == id).ok_or(AccountsError::UnknownKey)?;
            let mut record = before.clone();
            change(&mut record)?;
            let now = self.inner.clock.now();
            let others: Vec<&KeyRecord> = records.filter(|other| other.id != id).collect();
            let last_goes = |is_owner: fn(&KeyRecord, Timestamp) -> bool| {
                is_owner(before, now) && !is_owner(&record, now) && !others.iter().any(|other| is_owner(other, now))
            };
            if last_goes(is_owner) || last_goes(is_lasting_owner) {
                return Err(AccountsError::LastOwner);
            }
            transaction.update_key(&record).await?;
            self.record_key(&mut transaction, Some(before), &record).await?;
            self.commit(transaction).await?;
            Ok(record)
        }))
        .await
    }
}

/// Whether a key may make admin keys now.
fn is_owner(key: &KeyRecord, now: Timestamp) -> bool {
    key.kind == KeyKind::Admin
        && key.role == Role::Owner
        && key.revoked_at.is_none()
        && key.expires_at.is_none_or(|end| end > now)
}

/// Whether a key may make admin keys for good: one that ends by itself, or may be used from some addresses only, can leave
/// nobody who may.
fn is_lasting_owner(key: &KeyRecord, now: Timestamp) -> bool {
    is_owner(key, now) && key.expires_at.is_none() && key.allowed_addresses.is_none()
}

const fn key_kind(caller: CallerKind) -> KeyKind {
    match caller {
        CallerKind::Admin => KeyKind::Admin,
        CallerKind::Project(_) => KeyKind::Project,
    }
}

const fn setting_name(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Admin => "IMAGEGATE_ADMIN_KEY",
        KeyKind::Project => "IMAGEGATE_BOOTSTRAP_KEY",
    }
}

pub(super) fn check_name(name: &str) -> Result<(), AccountsError> {
    if name.trim().is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(is_invisible) {
        let message = format!("a name has 1 to {LONGEST_NAME} characters, none of them invisible, and is not blank");
        return Err(AccountsError::Invalid(message));
    }
    Ok(())
}

/// Control characters, and those of Unicode that show nothing or turn the direction of text: two names that look alike would
/// be two names.
fn is_invisible(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{ad}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Errors where a key is given what its kind does not have.
pub(super) fn check_permissions(
    kind: KeyKind,
    scopes: Option<Scopes>,
    role: Option<Role>,
) -> Result<(), AccountsError> {
    let invalid = |what: &str| Err(AccountsError::Invalid(what.to_owned()));
    match kind {
        KeyKind::Admin if scopes.is_some_and(|scopes| scopes != Scopes::ALL) => {
            invalid("an admin key has a role, and no scopes")
        }
        KeyKind::Project if role.is_some() => invalid("a project key has scopes, and no role"),
        KeyKind::Project if scopes == Some(Scopes::NONE) => invalid("a key has at least one scope"),
        _ => Ok(()),
    }
}

pub(super) fn check_addresses(networks: Option<&[Network]>) -> Result<(), AccountsError> {
    match networks.map(<[Network]>::len) {
        None | Some(1..=MOST_NETWORKS) => Ok(()),
        Some(_) => Err(AccountsError::Invalid(format!("a list of addresses has 1 to {MOST_NETWORKS} of them"))),
    }
}

pub(super) fn check_budget(amount: Option<Money>) -> Result<(), AccountsError> {
    match amount {
        Some(amount) if amount < Money::ZERO => {
            Err(AccountsError::Invalid(format!("a limit of `{amount}` is below zero")))
        }
        _ => Ok(()),
    }
}
