//! Service accounts: making them with a key, listing, changing, deleting them with their keys.

use super::Accounts;
use super::caller::CallerKind;
use super::error::AccountsError;
use super::keys::{NewKey, check_addresses, check_name, check_permissions};
use super::secret::Secret;
use crate::domain::{Network, ProjectId, Scopes, ServiceAccountId, Timestamp};
use crate::store::{
    Cursor, KeyKind, KeyOrigin, KeyRecord, Page, ServiceAccountRecord, ServiceAccountRole, WriteTransaction,
};

/// What is to be different about a service account; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct ServiceAccountChange {
    /// Its name.
    pub name: Option<String>,
    /// Its role.
    pub role: Option<ServiceAccountRole>,
}

/// On which terms a service account's key is made.
#[derive(Debug, Clone, Default)]
pub struct ServiceKeyTerms {
    /// From when on it is no longer taken.
    pub expires_at: Option<Timestamp>,
    /// What it may do; [`Scopes::DEFAULT`] when `None`.
    pub scopes: Option<Scopes>,
    /// The networks that it may be used from; any address when `None`.
    pub allowed_addresses: Option<Vec<Network>>,
}

impl ServiceKeyTerms {
    fn check(&self) -> Result<(), AccountsError> {
        check_permissions(KeyKind::Project, self.scopes, None)?;
        check_addresses(self.allowed_addresses.as_deref())
    }
}

impl Accounts {
    /// Makes a service account with a key of its own, or without one and without a role.
    pub async fn create_service_account(
        &self,
        project: ProjectId,
        name: &str,
        key_terms: Option<ServiceKeyTerms>,
    ) -> Result<(ServiceAccountRecord, Option<(KeyRecord, Secret)>), AccountsError> {
        check_name(name)?;
        key_terms.as_ref().map_or(Ok(()), ServiceKeyTerms::check)?;
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            self.open_project(&mut transaction, project).await?;
            let role = if key_terms.is_some() { ServiceAccountRole::Member } else { ServiceAccountRole::None };
            let account = ServiceAccountRecord {
                id: ServiceAccountId::from_uuid(self.inner.ids.uuid()),
                project_id: project,
                name: name.to_owned(),
                role,
                created_at: self.inner.clock.now(),
                deleted_at: None,
            };
            transaction.insert_service_account(&account).await?;
            self.record_service_account(&mut transaction, None, &account).await?;
            let mut key = None;
            if let Some(terms) = key_terms {
                key = Some(self.insert_key_of(&mut transaction, &account, "Secret Key", terms).await?);
            }
            self.commit(transaction).await?;
            Ok((account, key))
        }))
        .await
    }

    /// Makes one more key for a service account.
    pub async fn create_service_account_key(
        &self,
        project: ProjectId,
        id: ServiceAccountId,
        name: &str,
        terms: ServiceKeyTerms,
    ) -> Result<(KeyRecord, Secret), AccountsError> {
        check_name(name)?;
        terms.check()?;
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            self.open_project(&mut transaction, project).await?;
            let account = own_account(&mut transaction, project, id).await?;
            let made = self.insert_key_of(&mut transaction, &account, name, terms).await?;
            self.commit(transaction).await?;
            Ok(made)
        }))
        .await
    }

    /// A page of a project's service accounts.
    pub async fn list_service_accounts(
        &self,
        project: ProjectId,
        cursor: Cursor,
    ) -> Result<Page<ServiceAccountRecord>, AccountsError> {
        Ok(self.inner.store.service_accounts_page(project, None, cursor).await?)
    }

    /// One service account of a project.
    pub async fn service_account(
        &self,
        project: ProjectId,
        id: ServiceAccountId,
    ) -> Result<ServiceAccountRecord, AccountsError> {
        let one = Cursor { after: None, oldest_first: false, limit: 1 };
        let page = self.inner.store.service_accounts_page(project, Some(id), one).await?;
        page.items.into_iter().next().ok_or(AccountsError::UnknownServiceAccount)
    }

    /// These service accounts, also deleted ones.
    pub async fn service_accounts_of(
        &self,
        ids: &[ServiceAccountId],
    ) -> Result<Vec<ServiceAccountRecord>, AccountsError> {
        Ok(self.inner.store.service_accounts_of(ids).await?)
    }

    /// Changes a service account's name or role.
    pub async fn update_service_account(
        &self,
        project: ProjectId,
        id: ServiceAccountId,
        change: ServiceAccountChange,
    ) -> Result<ServiceAccountRecord, AccountsError> {
        if let Some(name) = &change.name {
            check_name(name)?;
        }
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            let before = own_account(&mut transaction, project, id).await?;
            let after = ServiceAccountRecord {
                name: change.name.unwrap_or_else(|| before.name.clone()),
                role: change.role.unwrap_or(before.role),
                ..before.clone()
            };
            transaction.update_service_account(&after).await?;
            self.record_service_account(&mut transaction, Some(&before), &after).await?;
            self.commit(transaction).await?;
            Ok(after)
        }))
        .await
    }

    /// Deletes a service account: its keys stop working here at once and on other replicas within a second.
    pub async fn delete_service_account(
        &self,
        project: ProjectId,
        id: ServiceAccountId,
    ) -> Result<ServiceAccountRecord, AccountsError> {
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            let before = own_account(&mut transaction, project, id).await?;
            let now = Some(self.inner.clock.now());
            let after = ServiceAccountRecord { deleted_at: now, ..before.clone() };
            transaction.update_service_account(&after).await?;
            self.record_service_account(&mut transaction, Some(&before), &after).await?;
            for key in transaction.keys().await? {
                let old = key.record;
                if old.service_account_id == Some(id) && old.revoked_at.is_none() {
                    let new = KeyRecord { revoked_at: now, ..old.clone() };
                    transaction.update_key(&new).await?;
                    self.record_key(&mut transaction, Some(&old), &new).await?;
                }
            }
            self.commit(transaction).await?;
            Ok(after)
        }))
        .await
    }

    async fn insert_key_of(
        &self,
        transaction: &mut WriteTransaction,
        account: &ServiceAccountRecord,
        name: &str,
        terms: ServiceKeyTerms,
    ) -> Result<(KeyRecord, Secret), AccountsError> {
        let ServiceKeyTerms { expires_at, scopes, allowed_addresses } = terms;
        let new = NewKey {
            expires_at,
            scopes,
            allowed_addresses,
            ..NewKey::new(CallerKind::Project(account.project_id), name.to_owned())
        };
        self.insert_made(transaction, new, KeyOrigin::Api, Some(account.id)).await
    }

    /// Errors where the project is unknown or archived.
    pub(super) async fn open_project(
        &self,
        transaction: &mut WriteTransaction,
        id: ProjectId,
    ) -> Result<(), AccountsError> {
        let project = transaction.project(id).await?.ok_or(AccountsError::UnknownProject)?;
        if project.archived_at.is_some() {
            return Err(AccountsError::ProjectArchived);
        }
        Ok(())
    }
}

async fn own_account(
    transaction: &mut WriteTransaction,
    project: ProjectId,
    id: ServiceAccountId,
) -> Result<ServiceAccountRecord, AccountsError> {
    let account = transaction.service_account(id).await?;
    account
        .filter(|account| account.project_id == project && account.deleted_at.is_none())
        .ok_or(AccountsError::UnknownServiceAccount)
}
