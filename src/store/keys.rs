//! Keys: their digests and terms. The keys themselves are never here.

use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::connection::{Either, WriteTransaction, on_both, select_by_ids, within};
use super::error::must_touch;
use super::rows::{Cursor, Page};
use super::{KeyKind, KeyOrigin, Store, StoreError};
use crate::domain::{Adapt, ApiKeyId, Money, Network, ProjectId, Role, Scopes, ServiceAccountId, Timestamp};

/// The change number that grows with every change of projects and keys.
pub(crate) const ACCOUNTS: &str = "accounts";

/// A key, without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its id.
    pub id: ApiKeyId,
    /// What it opens.
    pub kind: KeyKind,
    /// Whose it is, for a project key.
    pub project_id: Option<ProjectId>,
    /// The service account that holds it, if one does.
    pub service_account_id: Option<ServiceAccountId>,
    /// What its maker called it.
    pub name: String,
    /// How it begins, for people to tell keys apart.
    pub prefix: String,
    /// Where it came from.
    pub origin: KeyOrigin,
    /// The most it may spend in its whole life.
    pub budget: Option<Money>,
    /// What its generations were charged, less refunds.
    pub spent: Money,
    /// The models it may use; every model when `None`.
    pub allowed_models: Option<Vec<String>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is no longer taken.
    pub expires_at: Option<Timestamp>,
    /// Since when it is no longer taken.
    pub revoked_at: Option<Timestamp>,
    /// The project that an admin key may also make images for; none as a rule.
    pub generates_for: Option<ProjectId>,
    /// What a project key may do; every scope for an admin key.
    pub scopes: Scopes,
    /// What an admin key is trusted with; without effect for a project key.
    pub role: Role,
    /// The networks that it may be used from; any address when `None`.
    pub allowed_addresses: Option<Vec<Network>>,
    /// What may be changed of its requests so that they fit; as its project when `None`.
    pub adapt: Option<Adapt>,
    /// Whether its requests join equal ones whose client went away; as its project when `None`.
    pub join_retries: Option<bool>,
    /// When it was last used, as far as that is written.
    pub last_used_at: Option<Timestamp>,
}

/// A key to be written.
#[derive(Debug, Clone)]
pub(crate) struct NewKeyRow {
    /// The record.
    pub(crate) record: KeyRecord,
    /// SHA-256 of the key.
    pub(crate) hash: [u8; 32],
}

/// Which keys to list; everything that is given must match. Revoked ones are left out.
#[derive(Debug, Clone, Default)]
pub struct KeyFilter {
    /// The one with this id.
    pub id: Option<ApiKeyId>,
    /// Of this kind.
    pub kind: Option<KeyKind>,
    /// Of this project.
    pub project_id: Option<ProjectId>,
}

#[derive(FromRow)]
struct KeyRow {
    id: Uuid,
    kind: String,
    project_id: Option<Uuid>,
    service_account_id: Option<Uuid>,
    name: String,
    hash: Vec<u8>,
    prefix: String,
    origin: String,
    budget: Option<i64>,
    spent: i64,
    allowed_models: Option<String>,
    created_at: i64,
    expires_at: Option<i64>,
    revoked_at: Option<i64>,
    generates_for: Option<Uuid>,
    scopes: Option<String>,
    role: String,
    allowed_addresses: Option<String>,
    last_used_at: Option<i64>,
    archived_at: Option<i64>,
    policy: Option<String>,
    adapt: Option<String>,
    project_adapt: Option<String>,
    join_retries: Option<bool>,
    project_join_retries: Option<bool>,
}

/// A key with what authentication needs to know.
#[derive(Debug, Clone)]
pub(crate) struct StoredKey {
    pub(crate) record: KeyRecord,
    pub(crate) hash: [u8; 32],
    pub(crate) project_archived: bool,
    /// The policy of its project, or of the one that it generates for.
    pub(crate) policy: Option<String>,
    /// What may be changed of requests in that project.
    pub(crate) project_adapt: Option<Adapt>,
    /// Whether requests in that project join equal ones whose client went away.
    pub(crate) project_join_retries: Option<bool>,
}

impl TryFrom<KeyRow> for StoredKey {
    type Error = StoreError;

    fn try_from(row: KeyRow) -> Result<Self, StoreError> {
        let broken = |what: &str| StoreError::Inconsistent(format!("`{what}` of key `{}`", row.id));
        let list = |what: &str, text: Option<String>| {
            let read = text.map(|text| serde_json::from_str::<Vec<String>>(&text)).transpose();
            read.map_err(|_| broken(what))
        };
        // What a newer version wrote and this one does not know permits nothing.
        let scopes = list("scopes", row.scopes)?
            .map_or(Scopes::ALL, |scopes| scopes.iter().filter_map(|scope| scope.parse().ok()).collect());
        let addresses = list("allowed_addresses", row.allowed_addresses)?;
        Ok(Self {
            hash: row.hash.try_into().map_err(|_| broken("hash"))?,
            project_archived: row.archived_at.is_some(),
            policy: row.policy,
            project_adapt: read_adapt(row.project_adapt.as_deref()),
            project_join_retries: row.project_join_retries,
            record: KeyRecord {
                id: ApiKeyId::from_uuid(row.id),
                kind: row.kind.parse()?,
                project_id: row.project_id.map(ProjectId::from_uuid),
                service_account_id: row.service_account_id.map(ServiceAccountId::from_uuid),
                name: row.name,
                prefix: row.prefix,
                origin: row.origin.parse()?,
                budget: row.budget.map(Money::from_nanos),
                spent: Money::from_nanos(row.spent),
                allowed_models: list("allowed_models", row.allowed_models)?,
                created_at: Timestamp::from_micros(row.created_at),
                expires_at: row.expires_at.map(Timestamp::from_micros),
                revoked_at: row.revoked_at.map(Timestamp::from_micros),
                generates_for: row.generates_for.map(ProjectId::from_uuid),
                scopes,
                role: row.role.parse().map_err(|_| broken("role"))?,
                allowed_addresses: addresses
                    .map(|networks| networks.iter().filter_map(|network| network.parse().ok()).collect()),
                adapt: read_adapt(row.adapt.as_deref()),
                join_retries: row.join_retries,
                last_used_at: row.last_used_at.map(Timestamp::from_micros),
            },
        })
    }
}

macro_rules! select_keys {
    ($rest:literal) => {
        concat!(
            "SELECT k.id, k.kind, k.project_id, k.service_account_id, k.name, k.hash, k.prefix, k.origin, k.budget, b.spent,
                 k.allowed_models, k.created_at, k.expires_at, k.revoked_at, k.generates_for, k.scopes, k.role,
                 k.allowed_addresses, k.last_used_at, p.archived_at, p.policy, k.adapt, p.adapt AS project_adapt, k.join_retries,
                 p.join_retries AS project_join_retries
             FROM api_keys k JOIN key_balances b ON b.api_key_id = k.id
             LEFT JOIN projects p ON p.id = COALESCE(k.project_id, k.generates_for) ",
            $rest
        )
    };
}

/// What may be changed, as the tables hold it. What a newer version wrote and this one does not know changes nothing.
pub(super) fn read_adapt(text: Option<&str>) -> Option<Adapt> {
    text.map(|text| text.parse().unwrap_or_default())
}

/// A list as the tables hold it.
fn list_text<T: ToString>(list: impl IntoIterator<Item = T>) -> String {
    list.into_iter().map(|item| item.to_string()).collect::<serde_json::Value>().to_string()
}

fn models_text(key: &KeyRecord) -> Option<String> {
    key.allowed_models.as_ref().map(list_text)
}

fn scopes_text(key: &KeyRecord) -> Option<String> {
    (key.kind == KeyKind::Project && key.scopes != Scopes::ALL).then(|| list_text(key.scopes.iter()))
}

fn addresses_text(key: &KeyRecord) -> Option<String> {
    key.allowed_addresses.as_ref().map(list_text)
}

impl WriteTransaction {
    /// Raises the change number of the accounts, and keeps other writers of accounts waiting.
    pub(crate) async fn lock_accounts(&mut self) -> Result<(), StoreError> {
        self.raise_change(ACCOUNTS).await
    }

    /// Writes a new key.
    pub(crate) async fn insert_key(&mut self, key: &NewKeyRow) -> Result<(), StoreError> {
        let record = &key.record;
        on_both!(self.connection(), connection => {
            sqlx::query("INSERT INTO api_keys (id, kind, project_id, name, hash, prefix, origin, budget, allowed_models,
                             created_at, expires_at, revoked_at, service_account_id, generates_for, scopes, role,
                             allowed_addresses, adapt, join_retries)
                         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)")
                .bind(record.id.uuid()).bind(record.kind.as_str()).bind(record.project_id.map(ProjectId::uuid))
                .bind(record.name.as_str()).bind(key.hash.as_slice()).bind(record.prefix.as_str())
                .bind(record.origin.as_str()).bind(record.budget.map(Money::nanos))
                .bind(models_text(record))
                .bind(record.created_at.micros()).bind(record.expires_at.map(Timestamp::micros))
                .bind(record.revoked_at.map(Timestamp::micros))
                .bind(record.service_account_id.map(ServiceAccountId::uuid))
                .bind(record.generates_for.map(ProjectId::uuid))
                .bind(scopes_text(record)).bind(record.role.name()).bind(addresses_text(record))
                .bind(record.adapt.map(|adapt| adapt.to_string())).bind(record.join_retries)
                .execute(&mut *connection).await?;
            sqlx::query("INSERT INTO key_balances (api_key_id) VALUES ($1)")
                .bind(record.id.uuid()).execute(&mut *connection).await?;
        });
        Ok(())
    }

    /// All keys, oldest first.
    pub(crate) async fn keys(&mut self) -> Result<Vec<StoredKey>, StoreError> {
        let rows = on_both!(self.connection(), connection =>
            sqlx::query_as::<_, KeyRow>(select_keys!("ORDER BY k.id")).fetch_all(connection).await)?;
        rows.into_iter().map(StoredKey::try_from).collect()
    }

    /// Writes what may change about a key.
    pub(crate) async fn update_key(&mut self, key: &KeyRecord) -> Result<(), StoreError> {
        let touched = on_both!(self.connection(), connection =>
            sqlx::query("UPDATE api_keys SET name = $2, budget = $3, allowed_models = $4, expires_at = $5,
                             revoked_at = $6, generates_for = $7, scopes = $8, role = $9, allowed_addresses = $10, adapt = $11,
                             join_retries = $12
                         WHERE id = $1")
                .bind(key.id.uuid()).bind(key.name.as_str()).bind(key.budget.map(Money::nanos))
                .bind(models_text(key)).bind(key.expires_at.map(Timestamp::micros))
                .bind(key.revoked_at.map(Timestamp::micros)).bind(key.generates_for.map(ProjectId::uuid))
                .bind(scopes_text(key)).bind(key.role.name()).bind(addresses_text(key))
                .bind(key.adapt.map(|adapt| adapt.to_string())).bind(key.join_retries)
                .execute(connection).await.map(|done| done.rows_affected()))?;
        must_touch("api_keys", touched, 1)
    }
}

impl Store {
    /// All keys, oldest first.
    pub(crate) async fn stored_keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        within(self.options().report_timeout, async {
            let mut reader = self.reader().await?;
            let rows = on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, KeyRow>(select_keys!("ORDER BY k.id")).fetch_all(connection).await)?;
            rows.into_iter().map(StoredKey::try_from).collect()
        })
        .await
    }

    /// A page of keys that are not revoked.
    pub(crate) async fn keys_page(&self, filter: &KeyFilter, cursor: Cursor) -> Result<Page<KeyRecord>, StoreError> {
        let rows = within(self.options().report_timeout, async {
            let mut reader = self.reader().await?;
            on_both!(reader.connection(), connection => {
                let mut query = QueryBuilder::new(select_keys!("WHERE k.revoked_at IS NULL"));
                if let Some(id) = filter.id {
                    query.push(" AND k.id = ").push_bind(id.uuid());
                }
                if let Some(kind) = filter.kind {
                    query.push(" AND k.kind = ").push_bind(kind.as_str());
                }
                if let Some(project) = filter.project_id {
                    query.push(" AND k.project_id = ").push_bind(project.uuid());
                }
                cursor.push(&mut query, "k.id");
                Ok(query.build_query_as::<KeyRow>().fetch_all(connection).await?)
            })
        })
        .await?;
        let keys: Result<Vec<_>, StoreError> =
            rows.into_iter().map(|row| Ok(StoredKey::try_from(row)?.record)).collect();
        Ok(cursor.page(keys?))
    }

    /// When each of these keys was last used, as far as it is written; for a time when that was not yet, when it last asked
    /// for an image that was reserved.
    pub(crate) async fn last_used(&self, keys: &[ApiKeyId]) -> Result<Vec<(ApiKeyId, Timestamp)>, StoreError> {
        let ids: Vec<Uuid> = keys.iter().map(|key| key.uuid()).collect();
        let rows = within(self.options().report_timeout, async {
            let mut reader = self.reader().await?;
            Ok(select_by_ids!(
                reader.connection(),
                (Uuid, Option<i64>),
                "SELECT k.id, COALESCE(k.last_used_at, (SELECT g.created_at FROM generations g WHERE g.api_key_id = k.id
                                                        ORDER BY g.id DESC LIMIT 1))
                 FROM api_keys k WHERE k.id",
                &ids,
                "",
                ""
            )?)
        })
        .await?;
        let used = |(id, at): (Uuid, Option<i64>)| Some((ApiKeyId::from_uuid(id), Timestamp::from_micros(at?)));
        Ok(rows.into_iter().filter_map(used).collect())
    }

    /// Writes when keys were last used; a later use that another replica has written stays.
    pub(crate) async fn write_uses(&self, uses: &[(ApiKeyId, Timestamp)]) -> Result<(), StoreError> {
        within(self.options().write_timeout, async {
            let mut transaction = self.begin().await?;
            match transaction.connection() {
                // Locked in one order by every replica, so that no two wait for each other.
                Either::Postgres(connection) => {
                    let ids: Vec<Uuid> = uses.iter().map(|(key, _)| key.uuid()).collect();
                    let times: Vec<i64> = uses.iter().map(|(_, at)| at.micros()).collect();
                    sqlx::query(
                        "WITH used AS (
                             SELECT k.id, u.at FROM UNNEST($1::uuid[], $2::bigint[]) AS u (id, at)
                             JOIN api_keys k ON k.id = u.id AND COALESCE(k.last_used_at, 0) < u.at
                             ORDER BY k.id FOR NO KEY UPDATE OF k)
                         UPDATE api_keys SET last_used_at = used.at FROM used WHERE api_keys.id = used.id",
                    )
                    .bind(ids)
                    .bind(times)
                    .execute(connection)
                    .await?;
                }
                Either::Sqlite(connection) => {
                    let pairs: Vec<(String, i64)> =
                        uses.iter().map(|(key, at)| (key.uuid().simple().to_string(), at.micros())).collect();
                    sqlx::query(
                        "UPDATE api_keys SET last_used_at = u.at
                         FROM (SELECT unhex(json_extract(value, '$[0]')) AS id, json_extract(value, '$[1]') AS at
                               FROM json_each($1)) AS u
                         WHERE api_keys.id = u.id AND COALESCE(api_keys.last_used_at, 0) < u.at",
                    )
                    .bind(serde_json::to_string(&pairs).unwrap_or_default())
                    .execute(connection)
                    .await?;
                }
            }
            transaction.commit().await
        })
        .await
    }
}
