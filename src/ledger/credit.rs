//! Money that people move: top-ups, corrections, gifts, refunds.

use std::str::FromStr;

use uuid::Uuid;

use super::books::Applied;
use super::error::LedgerError;
use super::month::Month;
use crate::domain::{GenerationId, Money, ProjectId, Timestamp};
use crate::store::{
    AuditRecord, BalanceChange, Entries, KeyChange, MonthlyCharge, NewTransaction, Store, StoreError, SumChanges,
    TransactionKind, WriteTransaction, within,
};

/// How often a transaction is tried again that stood in another one's way.
const TRIES: u32 = 5;

/// Why a credit is booked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreditKind {
    /// Money paid in; above zero.
    TopUp,
    /// A mistake put right; above or below zero.
    Correction,
    /// A gift, such as an apology; above zero.
    Goodwill,
}

impl CreditKind {
    /// What an amount is where nobody says: a top-up above zero, a correction below.
    #[must_use]
    pub fn of_amount(amount: Money) -> Self {
        if amount > Money::ZERO { Self::TopUp } else { Self::Correction }
    }

    /// Whether the sign of an amount fits.
    #[must_use]
    pub fn fits(self, amount: Money) -> bool {
        match self {
            Self::TopUp | Self::Goodwill => amount > Money::ZERO,
            Self::Correction => amount != Money::ZERO,
        }
    }

    /// As it is written everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.transaction_kind().as_str()
    }

    const fn transaction_kind(self) -> TransactionKind {
        match self {
            Self::TopUp => TransactionKind::TopUp,
            Self::Correction => TransactionKind::Correction,
            Self::Goodwill => TransactionKind::Goodwill,
        }
    }
}

impl FromStr for CreditKind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let kinds = [Self::TopUp, Self::Correction, Self::Goodwill];
        kinds.into_iter().find(|kind| kind.as_str() == text).ok_or("must be `top_up`, `correction` or `goodwill`")
    }
}

/// Money added to a project's balance, or taken from it.
#[derive(Debug, Clone)]
pub struct Credit {
    /// Of the ledger transaction; the same id again books nothing.
    pub id: Uuid,
    /// Whose balance.
    pub project_id: ProjectId,
    /// Why it is booked.
    pub kind: CreditKind,
    /// How much is added; below zero takes away.
    pub amount: Money,
    /// In words; not empty.
    pub reason: String,
    /// Who books it.
    pub author: String,
    /// When.
    pub at: Timestamp,
    /// For the audit log, written with it.
    pub audit: Option<AuditRecord>,
}

/// A charge given back, whole or in part.
#[derive(Debug, Clone)]
pub struct Refund {
    /// Of the ledger transaction; the same id again books nothing.
    pub id: Uuid,
    /// What was charged.
    pub generation: GenerationId,
    /// How much is given back; above zero, and with earlier refunds not above the charge.
    pub amount: Money,
    /// In words; not empty.
    pub reason: String,
    /// Who books it.
    pub author: String,
    /// When; the month that it lowers.
    pub at: Timestamp,
    /// For the audit log, written with it.
    pub audit: Option<AuditRecord>,
}

/// The largest balance of a project that a credit leads to, in nano-dollars: a billion dollars, so that the sums of many
/// projects stay within 64 bits.
const LARGEST_BALANCE: u64 = 1_000_000_000 * 1_000_000_000;

/// Within a transaction: what was decided, or why the database failed.
type Decided = Result<Result<Applied, LedgerError>, StoreError>;

pub(super) async fn book_credit(store: &Store, credit: &Credit) -> Result<Applied, LedgerError> {
    if !credit.kind.fits(credit.amount) || credit.amount.nanos() == i64::MIN || credit.reason.trim().is_empty() {
        return Err(LedgerError::Invalid(format!(
            "a {} of `{}` for the reason `{}`",
            credit.kind.as_str(),
            credit.amount,
            credit.reason
        )));
    }
    for _ in 1..TRIES {
        match within(store.options().write_timeout, credit_once(store, credit)).await {
            Err(StoreError::Conflict(_)) => {}
            other => return other?,
        }
    }
    within(store.options().write_timeout, credit_once(store, credit)).await?
}

async fn credit_once(store: &Store, credit: &Credit) -> Decided {
    let mut transaction = store.begin().await?;
    let project = credit.project_id.uuid();
    let balances = transaction.lock_balances(&[project]).await?;
    let Some(balance) = balances.first() else {
        return Ok(Err(LedgerError::UnknownProject));
    };
    let amount = credit.amount.nanos();
    if let Some(moved) = transaction.moved(credit.id).await? {
        let same = moved == (credit.kind.transaction_kind(), amount);
        return Ok(if same { Ok(Applied::Already) } else { Err(LedgerError::SameIdOtherAmount) });
    }
    if balance.posted.saturating_add(amount).unsigned_abs() > LARGEST_BALANCE {
        return Ok(Err(LedgerError::BalanceTooLarge));
    }
    let booked = NewTransaction {
        id: credit.id,
        kind: credit.kind.transaction_kind(),
        project_id: project,
        generation_id: None,
        reason: credit.reason.clone(),
        author: Some(credit.author.clone()),
        created_at: credit.at,
        entries: Entries { project: amount, funding: -amount, ..Entries::default() },
    };
    let balances = vec![(project, BalanceChange { posted: amount, ..BalanceChange::default() })];
    let sums = SumChanges { balances, ..SumChanges::default() };
    transaction.book(booked, None, sums).await?;
    if let Some(entry) = &credit.audit {
        transaction.insert_audit(entry).await?;
    }
    transaction.commit().await?;
    Ok(Ok(Applied::Now))
}

pub(super) async fn book_refund(store: &Store, refund: &Refund) -> Result<Applied, LedgerError> {
    if refund.amount <= Money::ZERO || refund.reason.trim().is_empty() {
        return Err(LedgerError::Invalid(format!(
            "a refund of `{}` for the reason `{}`",
            refund.amount, refund.reason
        )));
    }
    for _ in 1..TRIES {
        match within(store.options().write_timeout, refund_once(store, refund)).await {
            Err(StoreError::Conflict(_)) => {}
            other => return other?,
        }
    }
    within(store.options().write_timeout, refund_once(store, refund)).await?
}

async fn refund_once(store: &Store, refund: &Refund) -> Decided {
    let mut transaction = store.begin().await?;
    transaction.hold_months().await?;
    let Some((project_id, api_key_id)) = payer(&mut transaction, refund.generation).await? else {
        return Ok(Err(LedgerError::UnknownGeneration(refund.generation)));
    };
    transaction.lock_balances(&[project_id]).await?;
    if let Some(moved) = transaction.moved(refund.id).await? {
        let same = moved == (TransactionKind::Refund, refund.amount.nanos());
        return Ok(if same { Ok(Applied::Already) } else { Err(LedgerError::SameIdOtherAmount) });
    }
    let charged = transaction.charged(refund.generation).await?;
    if refund.amount > charged {
        return Ok(Err(LedgerError::AboveCharge { amount: refund.amount, charged }));
    }
    give_back(&mut transaction, refund, project_id, api_key_id).await?;
    if let Some(entry) = &refund.audit {
        transaction.insert_audit(entry).await?;
    }
    transaction.commit().await?;
    Ok(Ok(Applied::Now))
}

/// Who pays for a generation, and whose key asked for it. Of a month that was dropped the ledger knows the project alone.
async fn payer(
    transaction: &mut WriteTransaction,
    generation: GenerationId,
) -> Result<Option<(Uuid, Option<Uuid>)>, StoreError> {
    if transaction.is_dropped(generation).await? {
        return Ok(transaction.charged_project(generation).await?.map(|project| (project, None)));
    }
    let found = transaction.streams(&[generation.uuid()]).await?;
    Ok(found.first().map(|stream| (stream.project_id, Some(stream.api_key_id))))
}

async fn give_back(
    transaction: &mut WriteTransaction,
    refund: &Refund,
    project_id: Uuid,
    api_key_id: Option<Uuid>,
) -> Result<(), StoreError> {
    let amount = refund.amount.nanos();
    let booked = NewTransaction {
        id: refund.id,
        kind: TransactionKind::Refund,
        project_id,
        generation_id: Some(refund.generation.uuid()),
        reason: refund.reason.clone(),
        author: Some(refund.author.clone()),
        created_at: refund.at,
        entries: Entries { project: amount, revenue: -amount, ..Entries::default() },
    };
    let month = Month::of(refund.at);
    let charge = MonthlyCharge { project_id, starts_at: month.start(), ends_at: month.next().start(), spent: -amount };
    let sums = SumChanges {
        balances: vec![(project_id, BalanceChange { posted: amount, ..BalanceChange::default() })],
        keys: api_key_id.map(|key| (key, KeyChange { spent: -amount, ..KeyChange::default() })).into_iter().collect(),
        months: vec![charge],
        counts: Vec::new(),
    };
    transaction.book(booked, api_key_id, sums).await
}
