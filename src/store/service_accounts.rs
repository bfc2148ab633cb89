//! Service accounts: who holds keys of a project.

use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::connection::{WriteTransaction, on_both, within};
use super::error::must_touch;
use super::rows::{Cursor, Page};
use super::{ServiceAccountRole, Store, StoreError};
use crate::domain::{ProjectId, ServiceAccountId, Timestamp};

/// A service account, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccountRecord {
    /// Its id.
    pub id: ServiceAccountId,
    /// Its project.
    pub project_id: ProjectId,
    /// Its name; not unique.
    pub name: String,
    /// Its role, in OpenAI's words.
    pub role: ServiceAccountRole,
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when it is gone.
    pub deleted_at: Option<Timestamp>,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    project_id: Uuid,
    name: String,
    role: String,
    created_at: i64,
    deleted_at: Option<i64>,
}

impl TryFrom<Row> for ServiceAccountRecord {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: ServiceAccountId::from_uuid(row.id),
            project_id: ProjectId::from_uuid(row.project_id),
            name: row.name,
            role: row.role.parse()?,
            created_at: Timestamp::from_micros(row.created_at),
            deleted_at: row.deleted_at.map(Timestamp::from_micros),
        })
    }
}

macro_rules! select_accounts {
    ($rest:literal) => {
        concat!("SELECT id, project_id, name, role, created_at, deleted_at FROM service_accounts ", $rest)
    };
}

impl WriteTransaction {
    /// Writes a new service account.
    pub(crate) async fn insert_service_account(&mut self, account: &ServiceAccountRecord) -> Result<(), StoreError> {
        on_both!(self.connection(), connection =>
            sqlx::query("INSERT INTO service_accounts (id, project_id, name, role, created_at)
                         VALUES ($1, $2, $3, $4, $5)")
                .bind(account.id.uuid()).bind(account.project_id.uuid()).bind(account.name.as_str())
                .bind(account.role.as_str()).bind(account.created_at.micros())
                .execute(connection).await.map(drop))?;
        Ok(())
    }

    /// One service account, also a deleted one.
    pub(crate) async fn service_account(
        &mut self,
        id: ServiceAccountId,
    ) -> Result<Option<ServiceAccountRecord>, StoreError> {
        let row = on_both!(self.connection(), connection =>
            sqlx::query_as::<_, Row>(select_accounts!("WHERE id = $1"))
                .bind(id.uuid()).fetch_optional(connection).await)?;
        row.map(ServiceAccountRecord::try_from).transpose()
    }

    /// Writes what may change about a service account.
    pub(crate) async fn update_service_account(&mut self, account: &ServiceAccountRecord) -> Result<(), StoreError> {
        let touched = on_both!(self.connection(), connection =>
            sqlx::query("UPDATE service_accounts SET name = $2, role = $3, deleted_at = $4 WHERE id = $1")
                .bind(account.id.uuid()).bind(account.name.as_str()).bind(account.role.as_str())
                .bind(account.deleted_at.map(Timestamp::micros))
                .execute(connection).await.map(|done| done.rows_affected()))?;
        must_touch("service_accounts", touched, 1)
    }
}

impl Store {
    /// A page of a project's service accounts that are not deleted.
    pub(crate) async fn service_accounts_page(
        &self,
        project: ProjectId,
        id: Option<ServiceAccountId>,
        cursor: Cursor,
    ) -> Result<Page<ServiceAccountRecord>, StoreError> {
        let rows = within(self.options().report_timeout, async {
            let mut reader = self.reader_as_is().await?;
            on_both!(reader.connection(), connection => {
                let mut query = QueryBuilder::new(select_accounts!("WHERE deleted_at IS NULL AND project_id = "));
                query.push_bind(project.uuid());
                if let Some(id) = id {
                    query.push(" AND id = ").push_bind(id.uuid());
                }
                cursor.push(&mut query, "id");
                Ok(query.build_query_as::<Row>().fetch_all(connection).await?)
            })
        })
        .await?;
        let accounts: Result<Vec<_>, _> = rows.into_iter().map(ServiceAccountRecord::try_from).collect();
        Ok(cursor.page(accounts?))
    }

    /// All service accounts of these ids, also deleted ones.
    pub(crate) async fn service_accounts_of(
        &self,
        ids: &[ServiceAccountId],
    ) -> Result<Vec<ServiceAccountRecord>, StoreError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
        let rows = within(self.options().report_timeout, async {
            let mut reader = self.reader_as_is().await?;
            Ok(super::connection::select_by_ids!(reader.connection(), Row, select_accounts!("WHERE id"), &ids, "", "")?)
        })
        .await?;
        rows.into_iter().map(ServiceAccountRecord::try_from).collect()
    }
}
