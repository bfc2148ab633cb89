//! The rules of the books, without a database: who may reserve, and what a finish books.

use std::collections::HashMap;
use std::time::Duration;

use uuid::Uuid;

use super::books::{Applied, Recorded};
use super::error::{LedgerError, ReserveError};
use super::limits::{LimitReached, RateLimits, Rates, check_concurrency};
use super::month::Month;
use crate::domain::{GenerationId, Money, Timestamp};
use crate::store::{
    BalanceRow, Existing, FinalState, Finish, GenerationState, KeyTerms, Late, LimitRows, ProjectTerms, Reservation,
    Stream, Submitted,
};

/// What is known of those who want to reserve, kept up to date from one decision to the next.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) balances: HashMap<Uuid, BalanceRow>,
    pub(super) projects: HashMap<Uuid, ProjectTerms>,
    pub(super) months: HashMap<(Uuid, i64), i64>,
    pub(super) keys: HashMap<Uuid, KeyTerms>,
    pub(super) idempotency: HashMap<(Uuid, String), Existing>,
    pub(super) rates: Rates,
    pub(super) organization: Option<Organization>,
}

/// What all projects together may spend and have used.
#[derive(Debug)]
pub(super) struct Organization {
    limit: i64,
    held: i64,
    months: HashMap<i64, i64>,
}

impl Organization {
    /// With what was read of all projects together.
    pub(super) fn of(limit: i64, rows: &LimitRows) -> Self {
        Self { limit, held: rows.all_held, months: rows.all_months.iter().copied().collect() }
    }

    fn check(&self, r: &Reservation) -> Result<(), ReserveError> {
        let month = Month::of(r.created_at).start().micros();
        let used = self.held.saturating_add(self.months.get(&month).copied().unwrap_or(0));
        if used.saturating_add(r.hold.nanos()) > self.limit {
            return Err(ReserveError::OrganizationLimitReached);
        }
        Ok(())
    }
}

/// What is allowed to a reservation.
#[derive(Debug)]
pub(super) struct Allowed {
    /// Until when its prompt may be kept.
    pub(super) prompt_until: Option<Timestamp>,
    /// How the rate limits stand, where there are any.
    pub(super) rates: Option<RateLimits>,
}

impl Standing {
    /// Takes in the keys and what was read under limits; `organization` is what all projects together may spend in a month.
    pub(super) fn add_limits(&mut self, rows: LimitRows, organization: Option<i64>) {
        self.organization = organization.map(|limit| Organization::of(limit, &rows));
        self.keys.extend(rows.keys.into_iter().map(|row| (row.id, row)));
        self.months.extend(rows.months.into_iter().map(|row| ((row.project_id, row.starts_at), row.spent)));
        self.rates = Rates::new(rows.rates, rows.counts);
    }

    /// Whether a reservation may be made; if so it is taken into account from now on. Idempotency comes first, then the
    /// caller's state, then money, then the limits that time lifts.
    pub(super) fn reserve(&mut self, r: &Reservation) -> Result<Allowed, ReserveError> {
        self.check_idempotency(r)?;
        let project = self.projects.get(&r.project_id.uuid()).ok_or(ReserveError::UnknownCaller)?;
        if project.archived_at.is_some() {
            return Err(ReserveError::ProjectArchived);
        }
        let key = self.keys.get(&r.api_key_id.uuid()).ok_or(ReserveError::UnknownCaller)?;
        if key.project_id.is_some_and(|owner| owner != r.project_id.uuid()) {
            return Err(ReserveError::UnknownCaller);
        }
        let over = |end: Option<i64>| end.is_some_and(|end| end <= r.created_at.micros());
        if key.revoked_at.is_some() || over(key.expires_at) {
            return Err(ReserveError::KeyRevoked);
        }
        if r.hold < Money::ZERO {
            return Err(ReserveError::Refused(format!("a hold of `{}`", r.hold)));
        }
        self.check_money(r, project, key)?;
        let limited = |reached: LimitReached| ReserveError::LimitReached(Box::new(reached));
        let rates = self.rates.check(r).map_err(limited)?;
        let open = self.balances.get(&r.project_id.uuid()).map_or(0, |balance| balance.open_generations);
        check_concurrency(project.concurrency_limit, open).map_err(limited)?;
        let prompt_until = (project.prompt_retention > 0).then(|| {
            let retention = u64::try_from(project.prompt_retention).unwrap_or(0);
            r.created_at.plus(Duration::from_micros(retention))
        });
        self.take_into_account(r, rates.is_some());
        Ok(Allowed { prompt_until, rates })
    }

    fn check_idempotency(&self, r: &Reservation) -> Result<(), ReserveError> {
        let Some(wanted) = &r.idempotency else {
            return Ok(());
        };
        let Some(existing) = self.idempotency.get(&(r.project_id.uuid(), wanted.key.clone())) else {
            return Ok(());
        };
        if existing.expires_at <= r.created_at.micros() {
            Ok(())
        } else if existing.digest == wanted.digest {
            Err(ReserveError::Duplicate(GenerationId::from_uuid(existing.generation_id)))
        } else {
            Err(ReserveError::SameKeyOtherBody)
        }
    }

    fn check_money(&self, r: &Reservation, project: &ProjectTerms, key: &KeyTerms) -> Result<(), ReserveError> {
        let balance = self.balances.get(&r.project_id.uuid()).ok_or(ReserveError::UnknownCaller)?;
        let needed = r.hold.nanos();
        let available = balance.posted.saturating_sub(balance.held);
        if project.prepaid && needed > available {
            return Err(ReserveError::InsufficientCredit { available: Money::from_nanos(available), needed: r.hold });
        }
        let month = Month::of(r.created_at).start().micros();
        let settled = self.months.get(&(r.project_id.uuid(), month)).copied().unwrap_or(0);
        let used = settled.saturating_add(balance.held);
        if let Some(limit) = project.spend_limit
            && used.saturating_add(needed) > limit
        {
            return Err(ReserveError::SpendLimitReached {
                limit: Money::from_nanos(limit),
                used: Money::from_nanos(used),
                needed: r.hold,
            });
        }
        if let Some(organization) = &self.organization {
            organization.check(r)?;
        }
        let used = key.spent.saturating_add(key.held);
        if let Some(budget) = key.budget
            && used.saturating_add(needed) > budget
        {
            return Err(ReserveError::BudgetReached {
                budget: Money::from_nanos(budget),
                used: Money::from_nanos(used),
                needed: r.hold,
            });
        }
        Ok(())
    }

    fn take_into_account(&mut self, r: &Reservation, rated: bool) {
        let project = r.project_id.uuid();
        if rated {
            self.rates.count(r);
        }
        if let Some(organization) = &mut self.organization {
            organization.held = organization.held.saturating_add(r.hold.nanos());
        }
        if let Some(balance) = self.balances.get_mut(&project) {
            balance.held = balance.held.saturating_add(r.hold.nanos());
            balance.open_generations += 1;
        }
        if let Some(key) = self.keys.get_mut(&r.api_key_id.uuid()) {
            key.held = key.held.saturating_add(r.hold.nanos());
        }
        if let Some(idempotency) = &r.idempotency {
            self.idempotency.insert(
                (project, idempotency.key.clone()),
                Existing {
                    project_id: project,
                    key: idempotency.key.clone(),
                    digest: idempotency.digest.to_vec(),
                    generation_id: r.id.uuid(),
                    expires_at: idempotency.expires_at.micros(),
                },
            );
        }
    }

    /// Takes a finish into account that was allowed.
    pub(super) fn settle(&mut self, row: &Stream, finish: &Finish) {
        let price = finish.price.nanos();
        if let Some(balance) = self.balances.get_mut(&row.project_id) {
            balance.held = balance.held.saturating_sub(row.hold);
            balance.open_generations -= 1;
            balance.posted = balance.posted.saturating_sub(price);
        }
        if let Some(key) = self.keys.get_mut(&row.api_key_id) {
            key.held = key.held.saturating_sub(row.hold);
            key.spent = key.spent.saturating_add(price);
        }
        let month = Month::of(finish.settled_at).start().micros();
        if let Some(organization) = &mut self.organization {
            organization.held = organization.held.saturating_sub(row.hold);
            *organization.months.entry(month).or_default() += price;
        }
        if let Some(spent) = self.months.get_mut(&(row.project_id, month)) {
            *spent = spent.saturating_add(price);
        }
    }
}

/// What is to be done about a submit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Submit {
    /// Record it.
    Record,
    /// It is recorded already: the caller tries again after an unclear commit.
    Recorded,
}

/// Whether a submit is to be recorded; if so it is taken into account from now on. Whoever brings it, and whether or not
/// the generation has ended: the provider's id is what its cost is found by.
pub(super) fn submit(row: Option<&mut Stream>, s: &Submitted) -> Result<(Submit, Recorded), LedgerError> {
    let row = row.ok_or(LedgerError::UnknownGeneration(s.generation))?;
    let recorded = if row.state.is_open() { Recorded::Open } else { Recorded::Ended };
    let latest = row.attempt;
    let attempt = i64::from(s.attempt);
    if attempt == latest && row.provider_request_id.as_ref() == Some(&s.provider_request_id) {
        return Ok((Submit::Recorded, recorded));
    }
    if attempt <= latest {
        return Err(LedgerError::Invalid(format!("attempt {attempt} after attempt {latest}")));
    }
    row.attempt = attempt;
    row.provider_request_id = Some(s.provider_request_id.clone());
    Ok((Submit::Record, recorded))
}

/// Whether a generation is to be marked as running: not if it is already.
pub(super) fn start(row: Option<&mut Stream>, id: GenerationId) -> Result<bool, LedgerError> {
    let row = row.ok_or(LedgerError::UnknownGeneration(id))?;
    if !row.state.is_open() {
        return Err(LedgerError::NotOpen);
    }
    row.state = GenerationState::Running;
    Ok(!std::mem::replace(&mut row.started, true))
}

/// Whether a finish applies; if so the generation is closed from now on.
pub(super) fn finish(row: Option<&mut Stream>, f: &Finish) -> Result<Applied, LedgerError> {
    let row = row.ok_or(LedgerError::UnknownGeneration(f.generation))?;
    if !row.state.is_open() {
        return Ok(Applied::Already);
    }
    if row.attempt > i64::from(f.attempt) {
        return Err(LedgerError::NewerAttempt);
    }
    let hold = Money::from_nanos(row.hold);
    if f.price < Money::ZERO || f.cost < Money::ZERO {
        return Err(LedgerError::Invalid(format!("price `{}`, cost `{}`", f.price, f.cost)));
    }
    if f.price > Money::ZERO && f.state != FinalState::Succeeded {
        return Err(LedgerError::Invalid(format!("a price of `{}` for a generation that `{}`", f.price, f.state)));
    }
    if f.price > hold {
        return Err(LedgerError::AboveHold { price: f.price, hold });
    }
    row.state = f.state.into();
    row.booked = f.price != Money::ZERO || f.cost != Money::ZERO;
    Ok(Applied::Now)
}

/// Whether evidence that comes after the end is booked: once, and only where the end booked nothing. If so it is taken
/// into account from now on.
pub(super) fn late(row: Option<&mut Stream>, l: &Late) -> Result<Applied, LedgerError> {
    let row = row.ok_or(LedgerError::UnknownGeneration(l.generation))?;
    if row.state.is_open() {
        return Err(LedgerError::StillOpen);
    }
    if row.booked || row.late || row.state == GenerationState::Succeeded {
        return Ok(Applied::Already);
    }
    if l.cost < Money::ZERO {
        return Err(LedgerError::Invalid(format!("a cost of `{}`", l.cost)));
    }
    row.booked = l.cost != Money::ZERO;
    row.late = true;
    Ok(Applied::Now)
}
