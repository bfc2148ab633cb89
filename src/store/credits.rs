//! Money that is not a settlement: balances, top-ups, corrections, refunds, and reading the ledger.

use sqlx::FromRow;
use uuid::Uuid;

use super::connection::{WriteTransaction, on_both, within};
use super::rows::{Balance, LedgerEntry, OpenHold};
use super::{LedgerAccount, Store, StoreError, TransactionKind};
use crate::domain::{GenerationId, Money, ProjectId, Timestamp};

/// A ledger transaction to be written; its entries sum to zero.
#[derive(Debug, Clone)]
pub(crate) struct NewTransaction {
    pub(crate) id: Uuid,
    pub(crate) kind: TransactionKind,
    pub(crate) project_id: Uuid,
    pub(crate) generation_id: Option<Uuid>,
    pub(crate) reason: String,
    pub(crate) author: Option<String>,
    pub(crate) created_at: Timestamp,
    pub(crate) entries: Entries,
}

/// What a ledger transaction adds to each account, in nano-dollars.
#[derive(Debug, Clone, Copy, Default, FromRow)]
pub(crate) struct Entries {
    pub(crate) project: i64,
    pub(crate) revenue: i64,
    pub(crate) cost_of_sales: i64,
    pub(crate) provider: i64,
    pub(crate) funding: i64,
}

impl Entries {
    /// Whether nothing is added to any account.
    pub(super) fn is_empty(&self) -> bool {
        (self.project | self.revenue | self.cost_of_sales | self.provider | self.funding) == 0
    }
}

#[derive(FromRow)]
struct TransactionRow {
    id: Uuid,
    kind: String,
    reason: String,
    author: Option<String>,
    created_at: i64,
    #[sqlx(flatten)]
    entries: Entries,
}

impl TransactionRow {
    /// Its entries, in the order of their accounts' names.
    fn entries(&self) -> Result<Vec<LedgerEntry>, StoreError> {
        let kind: TransactionKind = self.kind.parse()?;
        let entry = |(account, amount): (LedgerAccount, i64)| LedgerEntry {
            transaction_id: self.id,
            kind,
            account,
            amount: Money::from_nanos(amount),
            reason: self.reason.clone(),
            author: self.author.clone(),
            created_at: Timestamp::from_micros(self.created_at),
        };
        let Entries { project, revenue, cost_of_sales, provider, funding } = self.entries;
        let accounts = [
            (LedgerAccount::CostOfSales, cost_of_sales),
            (LedgerAccount::Funding, funding),
            (LedgerAccount::Project, project),
            (LedgerAccount::Provider, provider),
            (LedgerAccount::Revenue, revenue),
        ];
        Ok(accounts.into_iter().filter(|(_, amount)| *amount != 0).map(entry).collect())
    }
}

#[derive(FromRow)]
struct StandingRow {
    posted: i64,
    held: i64,
    prepaid: bool,
    spend_limit: Option<i64>,
    spent: i64,
}

impl WriteTransaction {
    /// The kind of the ledger transaction of this id, and by how much it has changed its project's balance, if it is there
    /// already.
    pub(crate) async fn moved(&mut self, id: Uuid) -> Result<Option<(TransactionKind, i64)>, StoreError> {
        let row = on_both!(self.connection(), connection =>
            sqlx::query_as::<_, (String, i64)>(
                "SELECT kind, project FROM ledger_transactions WHERE id = $1")
                .bind(id).fetch_optional(connection).await)?;
        row.map(|(kind, amount)| Ok((kind.parse()?, amount))).transpose()
    }

    /// What a generation was charged, less what was given back.
    pub(crate) async fn charged(&mut self, generation: GenerationId) -> Result<Money, StoreError> {
        Ok(Money::from_nanos(on_both!(self.connection(), connection =>
            sqlx::query_scalar::<_, i64>(
                "SELECT CAST(COALESCE(SUM(revenue), 0) AS BIGINT) FROM ledger_transactions
                 WHERE id = $1 OR (generation_id = $1 AND kind = 'refund')")
                .bind(generation.uuid()).fetch_one(connection).await)?))
    }
}

impl Store {
    /// A project's balance; `month` is the first moment of the present month. `None` for an unknown project.
    pub async fn balance(&self, project: ProjectId, month: Timestamp) -> Result<Option<Balance>, StoreError> {
        within(self.options().read_timeout, async {
            let mut reader = self.reader_as_is().await?;
            let row = on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, StandingRow>(
                    "SELECT b.posted, b.held, p.prepaid, p.spend_limit, COALESCE(m.spent, 0) AS spent
                     FROM projects p JOIN balances b ON b.project_id = p.id
                     LEFT JOIN monthly_spend m ON m.project_id = p.id AND m.starts_at = $2
                     WHERE p.id = $1")
                    .bind(project.uuid()).bind(month.micros()).fetch_optional(connection).await)?;
            Ok(row.map(|row| Balance {
                posted: Money::from_nanos(row.posted),
                held: Money::from_nanos(row.held),
                prepaid: row.prepaid,
                spend_limit: row.spend_limit.map(Money::from_nanos),
                spent_this_month: Money::from_nanos(row.spent),
            }))
        })
        .await
    }

    /// The open holds, oldest first.
    pub async fn open_holds(&self, limit: u32) -> Result<Vec<OpenHold>, StoreError> {
        let rows = within(self.options().report_timeout, async {
            let mut reader = self.reader().await?;
            Ok(on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, (Uuid, Uuid, i64, i64, String)>(
                    "SELECT id, project_id, hold, created_at, state FROM generations
                     WHERE state IN ('queued', 'running') ORDER BY id LIMIT $1")
                    .bind(i64::from(limit)).fetch_all(connection).await)?)
        })
        .await?;
        rows.into_iter()
            .map(|(generation, project, amount, opened_at, state)| {
                Ok(OpenHold {
                    generation: GenerationId::from_uuid(generation),
                    project_id: ProjectId::from_uuid(project),
                    amount: Money::from_nanos(amount),
                    opened_at: Timestamp::from_micros(opened_at),
                    state: state.parse()?,
                })
            })
            .collect()
    }

    /// The ledger entries about a generation, oldest first.
    pub async fn entries_of_generation(&self, generation: GenerationId) -> Result<Vec<LedgerEntry>, StoreError> {
        let rows = within(self.options().read_timeout, async {
            let mut reader = self.reader().await?;
            Ok(on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, TransactionRow>(
                    "SELECT id, kind, reason, author, created_at, project, revenue, cost_of_sales, provider, funding
                     FROM ledger_transactions WHERE id = $1 OR (generation_id = $1 AND kind = 'refund')
                     ORDER BY created_at, id")
                    .bind(generation.uuid()).fetch_all(connection).await)?)
        })
        .await?;
        let entries: Result<Vec<_>, _> = rows.iter().map(TransactionRow::entries).collect();
        Ok(entries?.concat())
    }
}
