//! What a batch of the books writes: on PostgreSQL all of it in one statement, since each statement is a round trip.

use super::connection::{Either, WriteTransaction};
use super::credits::NewTransaction;
use super::error::must_touch;
use super::rows::{Finish, Submitted};
use super::sums::SumChanges;
use super::{StoreError, finishing, reserving, sums};
use crate::domain::{Fixed, Timestamp};

use super::reserving::{NewGeneration, column, stored_prompt, without_nul};

/// The rows of one batch. Each generation is new, submitted or finished in it, or several of these, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Batch<'r> {
    /// Reservations, each with when its prompt is to be forgotten; without that the prompt is not stored.
    pub(crate) generations: Vec<NewGeneration<'r>>,
    /// Submits.
    pub(crate) attempts: Vec<&'r Submitted>,
    /// Ends of generations that are open.
    pub(crate) finished: Vec<&'r Finish>,
    /// What is booked.
    pub(crate) transactions: Vec<NewTransaction>,
    /// What all of it changes in the kept sums.
    pub(crate) sums: SumChanges,
}

impl WriteTransaction {
    /// Writes a batch. Who finishes a generation has locked it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Inconsistent`] where a row that must be there is not, [`StoreError::Refused`] by a constraint.
    pub(crate) async fn write_batch(&mut self, batch: &Batch<'_>) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        match self.connection() {
            Either::Postgres(connection) => write_postgres(connection, batch).await,
            Either::Sqlite(connection) => {
                reserving::insert_generations_sqlite(connection, &batch.generations).await?;
                finishing::insert_attempts_sqlite(connection, &batch.attempts).await?;
                finishing::finish_sqlite(connection, &batch.finished).await?;
                finishing::insert_transactions_sqlite(connection, &batch.transactions).await?;
                sums::change_sqlite(connection, &batch.sums).await
            }
        }
    }
}

impl Batch<'_> {
    fn is_empty(&self) -> bool {
        self.generations.is_empty()
            && self.attempts.is_empty()
            && self.finished.is_empty()
            && self.transactions.is_empty()
            && self.sums.is_empty()
    }
}

/// How many rows each part of the statement has written.
#[derive(sqlx::FromRow)]
struct Touched {
    generations: i64,
    attempts: i64,
    finished: i64,
    transactions: i64,
    balances: i64,
    keys: i64,
    months: i64,
    counts: i64,
}

async fn write_postgres(connection: &mut sqlx::PgConnection, batch: &Batch<'_>) -> Result<(), StoreError> {
    let Batch { generations, attempts, finished, transactions, sums } = batch;
    let SumChanges { balances, keys, months, counts } = sums;
    let touched: Touched = sqlx::query_as(
        "WITH n AS (
             INSERT INTO generations (id, project_id, api_key_id, request_id, state, owner, source, model, provider,
                 endpoint, num_images, size, parameters, prompt, prompt_expires_at, end_user, cancel_if_client_leaves,
                 created_at, deadline_at, hold)
             SELECT id, project_id, api_key_id, request_id, 'queued', owner, source, model, provider, endpoint,
                 num_images, size, parameters, prompt, prompt_expires_at, end_user, cancel_if_client_leaves, created_at,
                 deadline_at, hold
             FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::text[],
                 $8::text[], $9::text[], $10::bigint[], $11::text[], $12::text[], $13::text[], $14::bigint[],
                 $15::text[], $16::boolean[], $17::bigint[], $18::bigint[], $19::bigint[])
             AS n (id, project_id, api_key_id, request_id, owner, source, model, provider, endpoint, num_images, size,
                 parameters, prompt, prompt_expires_at, end_user, cancel_if_client_leaves, created_at, deadline_at,
                 hold) RETURNING 1),
         a AS (
             INSERT INTO attempts (generation_id, n, endpoint, credential, provider_request_id, status_url,
                 response_url, cancel_url, submitted_at, replaced_at)
             SELECT * FROM UNNEST($20::uuid[], $21::bigint[], $22::text[], $23::text[], $24::text[], $25::text[],
                 $26::text[], $27::text[], $28::bigint[], $29::bigint[]) RETURNING 1),
         g AS (
             UPDATE generations g SET state = f.state, settled_at = f.settled_at, price = f.price, cost = f.cost,
                 cost_source = f.cost_source, billable_units = f.billable_units, unit_price = f.unit_price,
                 images = f.images, megapixels = f.megapixels, answer = f.answer, error = f.error, reason = f.reason,
                 model = COALESCE(f.model, g.model)
             FROM UNNEST($30::uuid[], $31::text[], $32::bigint[], $33::bigint[], $34::bigint[], $35::text[],
                 $36::bigint[], $37::bigint[], $38::bigint[], $39::bigint[], $40::text[], $41::text[], $42::text[],
                 $43::text[])
             AS f (id, state, settled_at, price, cost, cost_source, billable_units, unit_price, images, megapixels,
                 answer, error, reason, model)
             WHERE g.id = f.id AND g.settled_at IS NULL RETURNING 1),
         t AS (
             INSERT INTO ledger_transactions (id, kind, project_id, generation_id, reason, author, created_at, project,
                 revenue, cost_of_sales, provider, funding)
             SELECT * FROM UNNEST($44::uuid[], $45::text[], $46::uuid[], $47::uuid[], $48::text[], $49::text[],
                 $50::bigint[], $51::bigint[], $52::bigint[], $53::bigint[], $54::bigint[], $55::bigint[]) RETURNING 1),
         b AS (
             UPDATE balances b SET posted = b.posted + c.posted, held = b.held + c.held,
                 open_generations = b.open_generations + c.open
             FROM UNNEST($56::uuid[], $57::bigint[], $58::bigint[], $59::bigint[]) AS c (id, posted, held, open)
             WHERE b.project_id = c.id RETURNING 1),
         k AS (
             UPDATE key_balances k SET spent = k.spent + c.spent, held = k.held + c.held
             FROM UNNEST($60::uuid[], $61::bigint[], $62::bigint[]) AS c (id, spent, held)
             WHERE k.api_key_id = c.id RETURNING 1),
         m AS (
             INSERT INTO monthly_spend (project_id, starts_at, ends_at, spent)
             SELECT * FROM UNNEST($63::uuid[], $64::bigint[], $65::bigint[], $66::bigint[])
             ON CONFLICT (project_id, starts_at) DO UPDATE SET spent = monthly_spend.spent + excluded.spent
             RETURNING 1),
         r AS (
             INSERT INTO request_counts (project_id, second, model, requests, images)
             SELECT * FROM UNNEST($67::uuid[], $68::bigint[], $69::text[], $70::bigint[], $71::bigint[])
             ON CONFLICT (project_id, second, model) DO UPDATE
             SET requests = request_counts.requests + excluded.requests,
                 images = request_counts.images + excluded.images
             RETURNING 1)
         SELECT (SELECT COUNT(*) FROM n) AS generations, (SELECT COUNT(*) FROM a) AS attempts,
             (SELECT COUNT(*) FROM g) AS finished, (SELECT COUNT(*) FROM t) AS transactions,
             (SELECT COUNT(*) FROM b) AS balances, (SELECT COUNT(*) FROM k) AS keys,
             (SELECT COUNT(*) FROM m) AS months, (SELECT COUNT(*) FROM r) AS counts",
    )
    .bind(column(generations, |(r, _)| r.id.uuid()))
    .bind(column(generations, |(r, _)| r.project_id.uuid()))
    .bind(column(generations, |(r, _)| r.api_key_id.uuid()))
    .bind(column(generations, |(r, _)| r.request_id.uuid()))
    .bind(column(generations, |(r, _)| r.owner))
    .bind(column(generations, |(r, _)| r.source.as_str()))
    .bind(column(generations, |(r, _)| r.model.as_str()))
    .bind(column(generations, |(r, _)| r.provider.as_str()))
    .bind(column(generations, |(r, _)| r.endpoint.as_str()))
    .bind(column(generations, |(r, _)| i64::from(r.num_images)))
    .bind(column(generations, |(r, _)| r.size.as_deref()))
    .bind(column(generations, |(r, _)| r.parameters.as_str()))
    .bind(column(generations, stored_prompt))
    .bind(column(generations, |row| stored_prompt(row).and(row.1).map(Timestamp::micros)))
    .bind(column(generations, |(r, _)| r.user.as_deref().map(without_nul)))
    .bind(column(generations, |(r, _)| r.cancel_if_client_leaves))
    .bind(column(generations, |(r, _)| r.created_at.micros()))
    .bind(column(generations, |(r, _)| r.deadline_at.micros()))
    .bind(column(generations, |(r, _)| r.hold.nanos()))
    .bind(column(attempts, |s| s.generation.uuid()))
    .bind(column(attempts, |s| i64::from(s.attempt)))
    .bind(column(attempts, |s| s.endpoint.as_str()))
    .bind(column(attempts, |s| s.credential.as_str()))
    .bind(column(attempts, |s| s.provider_request_id.as_str()))
    .bind(column(attempts, |s| s.status_url.as_str()))
    .bind(column(attempts, |s| s.response_url.as_str()))
    .bind(column(attempts, |s| s.cancel_url.as_str()))
    .bind(column(attempts, |s| s.submitted_at.micros()))
    .bind(column(attempts, |s| replaced_at(attempts, s)))
    .bind(column(finished, |f| f.generation.uuid()))
    .bind(column(finished, |f| f.state.as_str()))
    .bind(column(finished, |f| f.settled_at.micros()))
    .bind(column(finished, |f| f.price.nanos()))
    .bind(column(finished, |f| f.cost.nanos()))
    .bind(column(finished, |f| f.cost_source.as_str()))
    .bind(column(finished, |f| f.billable_units.map(Fixed::billionths)))
    .bind(column(finished, |f| f.unit_price.map(Fixed::billionths)))
    .bind(column(finished, |f| i64::from(f.images)))
    .bind(column(finished, |f| f.megapixels.billionths()))
    .bind(column(finished, |f| f.answer.as_deref().map(without_nul)))
    .bind(column(finished, |f| f.error.as_deref().map(without_nul)))
    .bind(column(finished, |f| without_nul(&f.reason)))
    .bind(column(finished, |f| f.model.as_deref().map(without_nul)))
    .bind(column(transactions, |t| t.id))
    .bind(column(transactions, |t| t.kind.as_str()))
    .bind(column(transactions, |t| t.project_id))
    .bind(column(transactions, |t| t.generation_id))
    .bind(column(transactions, |t| without_nul(&t.reason)))
    .bind(column(transactions, |t| t.author.as_deref().map(without_nul)))
    .bind(column(transactions, |t| t.created_at.micros()))
    .bind(column(transactions, |t| t.entries.project))
    .bind(column(transactions, |t| t.entries.revenue))
    .bind(column(transactions, |t| t.entries.cost_of_sales))
    .bind(column(transactions, |t| t.entries.provider))
    .bind(column(transactions, |t| t.entries.funding))
    .bind(column(balances, |(id, _)| *id))
    .bind(column(balances, |(_, change)| change.posted))
    .bind(column(balances, |(_, change)| change.held))
    .bind(column(balances, |(_, change)| change.open))
    .bind(column(keys, |(id, _)| *id))
    .bind(column(keys, |(_, change)| change.posted))
    .bind(column(keys, |(_, change)| change.held))
    .bind(column(months, |month| month.project_id))
    .bind(column(months, |month| month.starts_at.micros()))
    .bind(column(months, |month| month.ends_at.micros()))
    .bind(column(months, |month| month.spent))
    .bind(column(counts, |count| count.project_id))
    .bind(column(counts, |count| count.second))
    .bind(column(counts, |count| count.model.as_str()))
    .bind(column(counts, |count| count.requests))
    .bind(column(counts, |count| count.images))
    .fetch_one(connection)
    .await?;
    for (table, touched, wanted) in [
        ("generations", touched.generations, generations.len()),
        ("attempts", touched.attempts, attempts.len()),
        ("generations", touched.finished, finished.len()),
        ("ledger_transactions", touched.transactions, transactions.len()),
        ("balances", touched.balances, balances.len()),
        ("key_balances", touched.keys, keys.len()),
        ("monthly_spend", touched.months, months.len()),
        ("request_counts", touched.counts, counts.len()),
    ] {
        must_touch(table, touched.unsigned_abs(), wanted)?;
    }
    Ok(())
}

/// When an attempt was replaced by another one of the same batch, in microseconds.
pub(super) fn replaced_at(attempts: &[&Submitted], attempt: &Submitted) -> Option<i64> {
    let later = |s: &&&Submitted| s.generation == attempt.generation && s.attempt > attempt.attempt;
    attempts.iter().filter(later).map(|s| s.submitted_at.micros()).min()
}
