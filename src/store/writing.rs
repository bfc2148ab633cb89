//! What a batch of the books writes: on PostgreSQL all of it in one statement, since each statement is a round trip.

use sqlx::{Encode, Postgres, QueryBuilder, Row, Type};

use super::connection::{Either, WriteTransaction};
use super::credits::NewTransaction;
use super::error::must_touch;
use super::rows::{Finish, Idempotency, Reservation, Submitted};
use super::session::PgSession;
use super::sums::SumChanges;
use super::{StoreError, Webhook, finishing, resends, reserving, sums, webhooks};
use crate::domain::{Fixed, GenerationId, Timestamp};

use super::reserving::{NewGeneration, column, stored_prompt, without_nul};

/// The rows of one batch. Each generation is new, submitted or finished in it, or several of these, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Batch<'r> {
    /// Reservations, each with when its prompt is to be forgotten; without that the prompt is not stored.
    pub(crate) generations: Vec<NewGeneration<'r>>,
    /// Idempotency keys of reservations, each name once; they take the place of expired ones of the same name.
    pub(crate) idempotency: Vec<(&'r Reservation, &'r Idempotency)>,
    /// Reservations with whom to call when they have ended.
    pub(crate) webhooks: Vec<(&'r Reservation, &'r Webhook)>,
    /// Reservations whose clients may send them again, each with the digest by which that is known.
    pub(crate) unanswered: Vec<(&'r Reservation, &'r [u8; 32])>,
    /// Submits.
    pub(crate) attempts: Vec<&'r Submitted>,
    /// Ends of generations that are open.
    pub(crate) finished: Vec<&'r Finish>,
    /// What is booked.
    pub(crate) transactions: Vec<NewTransaction>,
    /// What all of it changes in the kept sums.
    pub(crate) sums: SumChanges,
    /// Generations of earlier batches whose clients have their answers.
    pub(crate) answered: Vec<GenerationId>,
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
                reserving::put_idempotency_sqlite(connection, &batch.idempotency).await?;
                webhooks::insert_webhooks_sqlite(connection, &batch.webhooks).await?;
                resends::insert_unanswered_sqlite(connection, &batch.unanswered).await?;
                finishing::insert_attempts_sqlite(connection, &batch.attempts).await?;
                finishing::finish_sqlite(connection, &batch.finished).await?;
                finishing::insert_transactions_sqlite(connection, &batch.transactions).await?;
                sums::change_sqlite(connection, &batch.sums).await?;
                resends::answer_sqlite(connection, &batch.answered).await
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
            && self.answered.is_empty()
    }
}

/// One statement of several parts, each of which writes the rows that its columns have.
struct Statement {
    query: QueryBuilder<Postgres>,
    /// The table of each part, and how many rows it must write; `None` where some may not be there.
    parts: Vec<(&'static str, Option<usize>)>,
    /// Whether the present part has a column already.
    goes_on: bool,
}

impl Statement {
    /// Begins a part: what is before its columns.
    fn part(&mut self, table: &'static str, rows: usize, head: &'static str) {
        self.begin(table, Some(rows), head, " FROM UNNEST(");
    }

    /// Begins a part that removes the rows with the ids of its one column, as far as they are there.
    fn removal(&mut self, table: &'static str, head: &'static str) {
        self.begin(table, None, head, " = ANY(");
    }

    fn begin(&mut self, table: &'static str, rows: Option<usize>, head: &'static str, list: &'static str) {
        let before = if self.parts.is_empty() { "WITH" } else { "," };
        self.query.push(before).push(" p").push(self.parts.len()).push(" AS (").push(head).push(list);
        self.parts.push((table, rows));
        self.goes_on = false;
    }

    /// A column of the part's rows.
    fn column<'t, T>(&mut self, kind: &'static str, values: Vec<T>)
    where
        Vec<T>: Encode<'t, Postgres> + Type<Postgres>,
    {
        if std::mem::replace(&mut self.goes_on, true) {
            self.query.push(", ");
        }
        self.query.push_bind(values).push("::").push(kind).push("[]");
    }

    /// Ends a part: what is behind its columns.
    fn end(&mut self, tail: &'static str) {
        self.query.push(") ").push(tail).push(" RETURNING 1)");
    }

    /// Ends the statement: how many rows each part has written.
    fn counts(&mut self) {
        for at in 0..self.parts.len() {
            self.query.push(if at == 0 { " SELECT" } else { "," }).push(" (SELECT COUNT(*) FROM p").push(at).push(")");
        }
    }
}

async fn write_postgres(connection: &mut PgSession, batch: &Batch<'_>) -> Result<(), StoreError> {
    let mut statement = compose(batch, false);
    let row = statement.query.build().fetch_one(connection).await?;
    for (at, (table, wanted)) in statement.parts.iter().enumerate() {
        let written: i64 = row.try_get(at)?;
        if let Some(wanted) = wanted {
            must_touch(table, written.unsigned_abs(), *wanted)?;
        }
    }
    Ok(())
}

/// The statement for a batch: the parts that it has rows for, or `all` of them.
fn compose(batch: &Batch<'_>, all: bool) -> Statement {
    let mut statement = Statement { query: QueryBuilder::new(""), parts: Vec::new(), goes_on: false };
    let Batch { generations, idempotency, webhooks, unanswered, attempts, finished, transactions, sums, answered } =
        batch;
    if all || !generations.is_empty() {
        add_generations(&mut statement, generations);
    }
    if all || !idempotency.is_empty() {
        add_idempotency(&mut statement, idempotency);
    }
    if all || !webhooks.is_empty() {
        add_webhooks(&mut statement, webhooks);
    }
    if all || !unanswered.is_empty() {
        add_unanswered(&mut statement, unanswered);
    }
    if all || !attempts.is_empty() {
        add_attempts(&mut statement, attempts);
    }
    if all || !finished.is_empty() {
        add_ends(&mut statement, finished);
    }
    if all || !transactions.is_empty() {
        add_transactions(&mut statement, transactions);
    }
    add_sums(&mut statement, sums, all);
    if all || !answered.is_empty() {
        statement.removal("unanswered_requests", "DELETE FROM unanswered_requests WHERE generation_id");
        statement.column("uuid", column(answered, |id| id.uuid()));
        statement.end("");
    }
    statement.counts();
    statement
}

/// The text of the statement with all its parts, for tests.
#[cfg(test)]
pub(super) fn whole_statement() -> String {
    compose(&Batch::default(), true).query.into_string()
}

fn add_generations(statement: &mut Statement, rows: &[NewGeneration<'_>]) {
    statement.part(
        "generations",
        rows.len(),
        "INSERT INTO generations (id, project_id, api_key_id, request_id, state, owner, source, model, provider, endpoint,
             num_images, size, parameters, terms, prompt, prompt_expires_at, end_user, cancel_if_client_leaves, created_at,
             deadline_at, hold, requested_model)
         SELECT id, project_id, api_key_id, request_id, 'queued', owner, source, model, provider, endpoint, num_images,
             size, parameters, terms, prompt, prompt_expires_at, end_user, cancel_if_client_leaves, created_at, deadline_at, hold,
             requested_model",
    );
    statement.column("uuid", column(rows, |(r, _)| r.id.uuid()));
    statement.column("uuid", column(rows, |(r, _)| r.project_id.uuid()));
    statement.column("uuid", column(rows, |(r, _)| r.api_key_id.uuid()));
    statement.column("uuid", column(rows, |(r, _)| r.request_id.uuid()));
    statement.column("uuid", column(rows, |(r, _)| r.owner));
    statement.column("text", column(rows, |(r, _)| r.source.as_str()));
    statement.column("text", column(rows, |(r, _)| r.model.as_str()));
    statement.column("text", column(rows, |(r, _)| r.provider.as_str()));
    statement.column("text", column(rows, |(r, _)| r.endpoint.as_str()));
    statement.column("bigint", column(rows, |(r, _)| i64::from(r.num_images)));
    statement.column("text", column(rows, |(r, _)| r.size.as_deref()));
    statement.column("text", column(rows, |(r, _)| r.parameters.as_str()));
    statement.column("text", column(rows, |(r, _)| r.terms.as_deref()));
    statement.column("text", column(rows, stored_prompt));
    statement.column("bigint", column(rows, |row| stored_prompt(row).and(row.1).map(Timestamp::micros)));
    statement.column("text", column(rows, |(r, _)| r.user.as_deref().map(without_nul)));
    statement.column("boolean", column(rows, |(r, _)| r.cancel_if_client_leaves));
    statement.column("bigint", column(rows, |(r, _)| r.created_at.micros()));
    statement.column("bigint", column(rows, |(r, _)| r.deadline_at.micros()));
    statement.column("bigint", column(rows, |(r, _)| r.hold.nanos()));
    statement.column("text", column(rows, |(r, _)| r.requested_model.as_deref()));
    statement.end(
        "AS n (id, project_id, api_key_id, request_id, owner, source, model, provider, endpoint, num_images, size, parameters,
             terms, prompt, prompt_expires_at, end_user, cancel_if_client_leaves, created_at, deadline_at, hold,
             requested_model)",
    );
}

fn add_idempotency(statement: &mut Statement, rows: &[(&Reservation, &Idempotency)]) {
    statement.part(
        "idempotency_keys",
        rows.len(),
        "INSERT INTO idempotency_keys (project_id, key, digest, generation_id, created_at, expires_at) SELECT *",
    );
    statement.column("uuid", column(rows, |(r, _)| r.project_id.uuid()));
    statement.column("text", column(rows, |(_, i)| i.key.as_str()));
    statement.column("bytea", column(rows, |(_, i)| i.digest.as_slice()));
    statement.column("uuid", column(rows, |(r, _)| r.id.uuid()));
    statement.column("bigint", column(rows, |(r, _)| r.created_at.micros()));
    statement.column("bigint", column(rows, |(_, i)| i.expires_at.micros()));
    statement.end(
        "ON CONFLICT (project_id, key) DO UPDATE SET digest = excluded.digest, generation_id = excluded.generation_id,
             created_at = excluded.created_at, expires_at = excluded.expires_at",
    );
}

fn add_webhooks(statement: &mut Statement, rows: &[(&Reservation, &Webhook)]) {
    statement.part(
        "webhook_deliveries",
        rows.len(),
        "INSERT INTO webhook_deliveries (id, generation_id, project_id, url, host, form, base_url, created_at, next_at)
         SELECT id, generation_id, project_id, url, host, form, base_url, created_at, created_at",
    );
    statement.column("uuid", column(rows, |(_, w)| w.id.uuid()));
    statement.column("uuid", column(rows, |(r, _)| r.id.uuid()));
    statement.column("uuid", column(rows, |(r, _)| r.project_id.uuid()));
    statement.column("text", column(rows, |(_, w)| w.url.as_str()));
    statement.column("text", column(rows, |(_, w)| w.host.as_str()));
    statement.column("text", column(rows, |(_, w)| w.form.as_str()));
    statement.column("text", column(rows, |(_, w)| w.base_url.as_str()));
    statement.column("bigint", column(rows, |(r, _)| r.created_at.micros()));
    statement.end("AS w (id, generation_id, project_id, url, host, form, base_url, created_at)");
}

fn add_unanswered(statement: &mut Statement, rows: &[(&Reservation, &[u8; 32])]) {
    statement.part(
        "unanswered_requests",
        rows.len(),
        "INSERT INTO unanswered_requests (generation_id, api_key_id, digest, replica, created_at) SELECT *",
    );
    statement.column("uuid", column(rows, |(r, _)| r.id.uuid()));
    statement.column("uuid", column(rows, |(r, _)| r.api_key_id.uuid()));
    statement.column("bytea", column(rows, |(_, digest)| digest.as_slice()));
    statement.column("uuid", column(rows, |(r, _)| r.owner));
    statement.column("bigint", column(rows, |(r, _)| r.created_at.micros()));
    statement.end("");
}

fn add_attempts(statement: &mut Statement, rows: &[&Submitted]) {
    statement.part(
        "attempts",
        rows.len(),
        "INSERT INTO attempts (generation_id, n, endpoint, credential, provider_request_id, status_url, response_url,
             cancel_url, submitted_at)
         SELECT *",
    );
    statement.column("uuid", column(rows, |s| s.generation.uuid()));
    statement.column("bigint", column(rows, |s| i64::from(s.attempt)));
    statement.column("text", column(rows, |s| s.endpoint.as_str()));
    statement.column("text", column(rows, |s| s.credential.as_str()));
    statement.column("text", column(rows, |s| s.provider_request_id.as_str()));
    statement.column("text", column(rows, |s| s.status_url.as_str()));
    statement.column("text", column(rows, |s| s.response_url.as_str()));
    statement.column("text", column(rows, |s| s.cancel_url.as_str()));
    statement.column("bigint", column(rows, |s| s.submitted_at.micros()));
    statement.end("");
}

fn add_ends(statement: &mut Statement, rows: &[&Finish]) {
    statement.part(
        "generations",
        rows.len(),
        "UPDATE generations g SET state = f.state, settled_at = f.settled_at, price = f.price, cost = f.cost,
             cost_source = f.cost_source, billable_units = f.billable_units, unit_price = f.unit_price, images = f.images,
             megapixels = f.megapixels, answer = f.answer, error = f.error, reason = f.reason,
             model = COALESCE(f.model, g.model)",
    );
    statement.column("uuid", column(rows, |f| f.generation.uuid()));
    statement.column("text", column(rows, |f| f.state.as_str()));
    statement.column("bigint", column(rows, |f| f.settled_at.micros()));
    statement.column("bigint", column(rows, |f| f.price.nanos()));
    statement.column("bigint", column(rows, |f| f.cost.nanos()));
    statement.column("text", column(rows, |f| f.cost_source.as_str()));
    statement.column("bigint", column(rows, |f| f.billable_units.map(Fixed::billionths)));
    statement.column("bigint", column(rows, |f| f.unit_price.map(Fixed::billionths)));
    statement.column("bigint", column(rows, |f| i64::from(f.images)));
    statement.column("bigint", column(rows, |f| f.megapixels.billionths()));
    statement.column("text", column(rows, |f| f.answer.as_deref().map(without_nul)));
    statement.column("text", column(rows, |f| f.error.as_deref().map(without_nul)));
    statement.column("text", column(rows, |f| without_nul(&f.reason)));
    statement.column("text", column(rows, |f| f.model.as_deref().map(without_nul)));
    statement.end(
        "AS f (id, state, settled_at, price, cost, cost_source, billable_units, unit_price, images, megapixels, answer, error,
             reason, model)
         WHERE g.id = f.id AND g.settled_at IS NULL",
    );
}

fn add_transactions(statement: &mut Statement, rows: &[NewTransaction]) {
    statement.part(
        "ledger_transactions",
        rows.len(),
        "INSERT INTO ledger_transactions (id, kind, project_id, generation_id, reason, author, created_at, project, revenue,
             cost_of_sales, provider, funding)
         SELECT *",
    );
    statement.column("uuid", column(rows, |t| t.id));
    statement.column("text", column(rows, |t| t.kind.as_str()));
    statement.column("uuid", column(rows, |t| t.project_id));
    statement.column("uuid", column(rows, |t| t.generation_id));
    statement.column("text", column(rows, |t| without_nul(&t.reason)));
    statement.column("text", column(rows, |t| t.author.as_deref().map(without_nul)));
    statement.column("bigint", column(rows, |t| t.created_at.micros()));
    statement.column("bigint", column(rows, |t| t.entries.project));
    statement.column("bigint", column(rows, |t| t.entries.revenue));
    statement.column("bigint", column(rows, |t| t.entries.cost_of_sales));
    statement.column("bigint", column(rows, |t| t.entries.provider));
    statement.column("bigint", column(rows, |t| t.entries.funding));
    statement.end("");
}

fn add_sums(statement: &mut Statement, sums: &SumChanges, all: bool) {
    let SumChanges { balances, keys, months, counts } = sums;
    if all || !balances.is_empty() {
        statement.part(
            "balances",
            balances.len(),
            "UPDATE balances b SET posted = b.posted + c.posted, held = b.held + c.held,
                 open_generations = b.open_generations + c.open",
        );
        statement.column("uuid", column(balances, |(id, _)| *id));
        statement.column("bigint", column(balances, |(_, change)| change.posted));
        statement.column("bigint", column(balances, |(_, change)| change.held));
        statement.column("bigint", column(balances, |(_, change)| change.open));
        statement.end("AS c (id, posted, held, open) WHERE b.project_id = c.id");
    }
    if all || !keys.is_empty() {
        statement.part(
            "key_balances",
            keys.len(),
            "UPDATE key_balances k SET spent = k.spent + c.spent, held = k.held + c.held",
        );
        statement.column("uuid", column(keys, |(id, _)| *id));
        statement.column("bigint", column(keys, |(_, change)| change.posted));
        statement.column("bigint", column(keys, |(_, change)| change.held));
        statement.end("AS c (id, spent, held) WHERE k.api_key_id = c.id");
    }
    if all || !months.is_empty() {
        statement.part(
            "monthly_spend",
            months.len(),
            "INSERT INTO monthly_spend (project_id, starts_at, ends_at, spent) SELECT *",
        );
        statement.column("uuid", column(months, |month| month.project_id));
        statement.column("bigint", column(months, |month| month.starts_at.micros()));
        statement.column("bigint", column(months, |month| month.ends_at.micros()));
        statement.column("bigint", column(months, |month| month.spent));
        statement.end("ON CONFLICT (project_id, starts_at) DO UPDATE SET spent = monthly_spend.spent + excluded.spent");
    }
    if all || !counts.is_empty() {
        statement.part(
            "request_counts",
            counts.len(),
            "INSERT INTO request_counts (project_id, second, model, requests, images) SELECT *",
        );
        statement.column("uuid", column(counts, |count| count.project_id));
        statement.column("bigint", column(counts, |count| count.second));
        statement.column("text", column(counts, |count| count.model.as_str()));
        statement.column("bigint", column(counts, |count| count.requests));
        statement.column("bigint", column(counts, |count| count.images));
        statement.end(
            "ON CONFLICT (project_id, second, model) DO UPDATE
             SET requests = request_counts.requests + excluded.requests, images = request_counts.images + excluded.images",
        );
    }
}
