//! What a batch of the books appends, and what the projections write of it: on PostgreSQL many rows in one statement, since
//! each statement is a round trip.

use sqlx::{Encode, Postgres, QueryBuilder, Row, Type};
use uuid::Uuid;

use super::connection::{Either, WriteTransaction};
use super::credits::NewTransaction;
use super::error::must_touch;
use super::events::NewEvent;
use super::rows::{Finish, Idempotency, Reservation, Submitted};
use super::session::PgSession;
use super::sums::SumChanges;
use super::{StoreError, Webhook, events, finishing, resends, reserving, sums, webhooks};
use crate::domain::{Fixed, GenerationId, Timestamp};

use super::reserving::{NewGeneration, column, stored_prompt, without_nul};

/// What a batch of the books appends, and what it changes with it.
#[derive(Debug, Default)]
pub(crate) struct Append<'r> {
    /// Who appends.
    pub(crate) writer: Uuid,
    /// The place of his last event before these.
    pub(crate) last_seq: i64,
    /// The events, each stream's in order.
    pub(crate) events: Vec<NewEvent>,
    /// Idempotency keys of reservations, each name once; they take the place of expired ones of the same name.
    pub(crate) idempotency: Vec<(&'r Reservation, &'r Idempotency)>,
    /// Reservations whose clients may send them again, each with the digest by which that is known.
    pub(crate) unanswered: Vec<(&'r Reservation, &'r [u8; 32])>,
    /// What all of it changes in the kept sums.
    pub(crate) sums: SumChanges,
    /// Generations of earlier batches whose clients have their answers.
    pub(crate) answered: Vec<GenerationId>,
    /// Generations whose idempotency keys are free at once, and which no resend joins.
    pub(crate) released: Vec<Uuid>,
}

/// Rows of the projections: of generations that are new, and of those that are there already.
#[derive(Debug, Default)]
pub(crate) struct Projected<'r> {
    /// Reservations, each with when its prompt is to be forgotten; without that the prompt is not stored.
    pub(crate) generations: Vec<NewGeneration<'r>>,
    /// Reservations with whom to call when they have ended.
    pub(crate) webhooks: Vec<(&'r Reservation, &'r Webhook)>,
    /// Submits.
    pub(crate) attempts: Vec<&'r Submitted>,
    /// Ends of generations that are open.
    pub(crate) finished: Vec<&'r Finish>,
    /// What is booked.
    pub(crate) transactions: Vec<NewTransaction>,
}

impl WriteTransaction {
    /// Appends a batch; the new versions of the projects' sums.
    ///
    /// # Errors
    ///
    /// [`StoreError::Conflict`] where it was decided on what is no longer so, [`StoreError::Refused`] by a constraint.
    pub(crate) async fn append(&mut self, append: &Append<'_>) -> Result<Vec<(Uuid, i64)>, StoreError> {
        if append.is_empty() {
            return Ok(Vec::new());
        }
        match self.connection() {
            Either::Postgres(connection) => append_postgres(connection, append).await,
            Either::Sqlite(connection) => {
                events::insert_events_sqlite(connection, append.writer, append.last_seq, &append.events).await?;
                reserving::put_idempotency_sqlite(connection, &append.idempotency).await?;
                resends::insert_unanswered_sqlite(connection, &append.unanswered).await?;
                let versions = sums::change_sqlite(connection, &append.sums).await?;
                resends::answer_sqlite(connection, &append.all_answered()).await?;
                reserving::release_idempotency_sqlite(connection, &append.released).await?;
                Ok(versions)
            }
        }
    }

    /// Books a credit or a refund: its event, its row in the projections and the sums that it changes. Whoever books one for a
    /// project holds its balance, so that they come one after the other.
    pub(crate) async fn book(
        &mut self,
        booked: NewTransaction,
        api_key_id: Option<Uuid>,
        sums: SumChanges,
    ) -> Result<(), StoreError> {
        let events = vec![NewEvent::credited(&booked, api_key_id)?];
        // The nil writer's events are never behind.
        self.append(&Append { events, sums, last_seq: -1, ..Append::default() }).await?;
        self.write_projected(&Projected { transactions: vec![booked], ..Projected::default() }).await
    }

    /// Writes rows of the projections.
    ///
    /// # Errors
    ///
    /// [`StoreError::Inconsistent`] where a row that must be there is not, [`StoreError::Refused`] by a constraint.
    pub(crate) async fn write_projected(&mut self, rows: &Projected<'_>) -> Result<(), StoreError> {
        match self.connection() {
            Either::Postgres(connection) => {
                // What a statement inserts it cannot update.
                for statement in [compose_new(rows, false), compose_later(rows, false)] {
                    run(connection, statement).await?;
                }
                Ok(())
            }
            Either::Sqlite(connection) => {
                reserving::insert_generations_sqlite(connection, &rows.generations).await?;
                webhooks::insert_webhooks_sqlite(connection, &rows.webhooks).await?;
                finishing::insert_attempts_sqlite(connection, &rows.attempts).await?;
                finishing::finish_sqlite(connection, &rows.finished).await?;
                finishing::insert_transactions_sqlite(connection, &rows.transactions).await
            }
        }
    }
}

impl Append<'_> {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.sums.is_empty() && self.answered.is_empty() && self.released.is_empty()
    }

    /// Generations that no resend joins any more.
    fn all_answered(&self) -> Vec<GenerationId> {
        self.answered.iter().copied().chain(self.released.iter().map(|id| GenerationId::from_uuid(*id))).collect()
    }
}

/// One statement of several parts, each of which writes the rows that its columns have.
struct Statement {
    query: QueryBuilder<Postgres>,
    /// The table of each part, and how many rows it must write; `None` where some may not be there.
    parts: Vec<(&'static str, Option<usize>)>,
    /// Whether the present part has a column already.
    goes_on: bool,
    /// Which part changes the projects' sums.
    balances: Option<usize>,
}

impl Default for Statement {
    fn default() -> Self {
        Self { query: QueryBuilder::new(""), parts: Vec::new(), goes_on: false, balances: None }
    }
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
        self.end_returning(tail, "1");
    }

    fn end_returning(&mut self, tail: &'static str, returning: &'static str) {
        self.query.push(") ").push(tail).push(" RETURNING ").push(returning).push(")");
    }

    /// Ends the statement such that it fails by a division by zero, and so writes nothing, unless each part has written its
    /// rows. Gives the projects and the new versions of their sums in the second and third column.
    fn check(&mut self) {
        self.query.push(" SELECT 1 / CASE WHEN TRUE");
        let wanted: Vec<i64> =
            self.parts.iter().map(|(_, rows)| rows.map_or(-1, |rows| i64::try_from(rows).unwrap_or(-1))).collect();
        for (at, (_, rows)) in self.parts.iter().enumerate() {
            if rows.is_some() {
                self.query.push(" AND (SELECT COUNT(*) FROM p").push(at).push(") = wanted[").push(at + 1).push("]");
            }
        }
        self.query.push(" THEN 1 ELSE 0 END");
        if let Some(at) = self.balances {
            self.query.push(", (SELECT array_agg(project_id) FROM p").push(at);
            self.query.push("), (SELECT array_agg(version) FROM p").push(at).push(")");
        }
        self.query.push(" FROM (SELECT ").push_bind(wanted).push("::bigint[] AS wanted) w");
    }

    /// Ends the statement: how many rows each part has written.
    fn counts(&mut self) {
        for at in 0..self.parts.len() {
            self.query.push(if at == 0 { " SELECT" } else { "," }).push(" (SELECT COUNT(*) FROM p").push(at).push(")");
        }
    }
}

/// Runs a statement of rows of the projections, each part of which must write all its rows.
async fn run(connection: &mut PgSession, mut statement: Statement) -> Result<(), StoreError> {
    if statement.parts.is_empty() {
        return Ok(());
    }
    statement.counts();
    let row = statement.query.build().fetch_one(connection).await?;
    for (at, (table, wanted)) in statement.parts.iter().enumerate() {
        let written: i64 = row.try_get(at)?;
        if let Some(wanted) = wanted {
            must_touch(table, written.unsigned_abs(), *wanted)?;
        }
    }
    Ok(())
}

/// Runs a batch's one statement, which undoes itself where a part of it writes fewer rows than it must.
pub(super) async fn append_postgres(
    connection: &mut PgSession,
    append: &Append<'_>,
) -> Result<Vec<(Uuid, i64)>, StoreError> {
    let mut statement = compose_append(append, false);
    statement.check();
    let row = statement.query.build().fetch_one(connection).await?;
    if append.sums.balances.is_empty() {
        return Ok(Vec::new());
    }
    let (projects, versions): (Vec<Uuid>, Vec<i64>) = (row.try_get(1)?, row.try_get(2)?);
    Ok(projects.into_iter().zip(versions).collect())
}

/// The statement for a batch: the parts that it has rows for, or `all` of them.
fn compose_append(append: &Append<'_>, all: bool) -> Statement {
    let mut statement = Statement::default();
    let Append { writer, last_seq, events, idempotency, unanswered, sums, answered: _, released } = append;
    let answered = append.all_answered();
    if all || !events.is_empty() {
        add_events(&mut statement, *writer, *last_seq, events);
    }
    if all || !idempotency.is_empty() {
        add_idempotency(&mut statement, idempotency);
    }
    if all || !unanswered.is_empty() {
        add_unanswered(&mut statement, unanswered);
    }
    add_sums(&mut statement, sums, all);
    if all || !answered.is_empty() {
        statement.removal("unanswered_requests", "DELETE FROM unanswered_requests WHERE generation_id");
        statement.column("uuid", column(&answered, |id| id.uuid()));
        statement.end("");
    }
    if all || !released.is_empty() {
        statement.removal("idempotency_keys", "DELETE FROM idempotency_keys WHERE generation_id");
        statement.column("uuid", released.clone());
        statement.end("");
    }
    statement
}

/// The statement for rows of new generations.
fn compose_new(rows: &Projected<'_>, all: bool) -> Statement {
    let mut statement = Statement::default();
    if all || !rows.generations.is_empty() {
        add_generations(&mut statement, &rows.generations);
    }
    if all || !rows.webhooks.is_empty() {
        add_webhooks(&mut statement, &rows.webhooks);
    }
    statement
}

/// The statement for what happens to generations that are there.
fn compose_later(rows: &Projected<'_>, all: bool) -> Statement {
    let mut statement = Statement::default();
    if all || !rows.attempts.is_empty() {
        add_attempts(&mut statement, &rows.attempts);
    }
    if all || !rows.finished.is_empty() {
        add_ends(&mut statement, &rows.finished);
    }
    if all || !rows.transactions.is_empty() {
        add_transactions(&mut statement, &rows.transactions);
    }
    statement
}

/// The texts of the statements with all their parts, for tests.
#[cfg(test)]
pub(super) fn whole_statements() -> [String; 3] {
    let mut append = compose_append(&Append::default(), true);
    append.check();
    let texts =
        [compose_new(&Projected::default(), true), compose_later(&Projected::default(), true)].map(|mut statement| {
            statement.counts();
            statement.query.into_string()
        });
    let [new, later] = texts;
    [append.query.into_string(), new, later]
}

fn add_events(statement: &mut Statement, writer: Uuid, last_seq: i64, rows: &[NewEvent]) {
    statement.part(
        "ledger_events",
        rows.len(),
        "INSERT INTO ledger_events (stream_id, n, writer, seq, kind, project_id, api_key_id, at, held, opened, project, revenue,
             cost_of_sales, provider, funding, payload, prompt, content)
         SELECT *",
    );
    let seqs = (last_seq + 1..).take(rows.len()).collect::<Vec<i64>>();
    statement.column("uuid", column(rows, |e| e.stream_id));
    statement.column("bigint", column(rows, |e| e.n));
    statement.column("uuid", vec![writer; rows.len()]);
    statement.column("bigint", seqs);
    statement.column("text", column(rows, |e| e.kind));
    statement.column("uuid", column(rows, |e| e.project_id));
    statement.column("uuid", column(rows, |e| e.api_key_id));
    statement.column("bigint", column(rows, |e| e.at));
    statement.column("bigint", column(rows, |e| e.held));
    statement.column("bigint", column(rows, |e| e.opened));
    statement.column("bigint", column(rows, |e| e.entries.project));
    statement.column("bigint", column(rows, |e| e.entries.revenue));
    statement.column("bigint", column(rows, |e| e.entries.cost_of_sales));
    statement.column("bigint", column(rows, |e| e.entries.provider));
    statement.column("bigint", column(rows, |e| e.entries.funding));
    statement.column("text", column(rows, |e| e.payload.as_str()));
    statement.column("text", column(rows, |e| e.prompt.as_deref()));
    statement.column("text", column(rows, |e| e.content.as_deref()));
    statement.end("ON CONFLICT (stream_id, n) DO NOTHING");
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
    statement.column("text", column(rows, |(r, _)| without_nul(&r.source)));
    statement.column("text", column(rows, |(r, _)| without_nul(&r.model)));
    statement.column("text", column(rows, |(r, _)| without_nul(&r.provider)));
    statement.column("text", column(rows, |(r, _)| without_nul(&r.endpoint)));
    statement.column("bigint", column(rows, |(r, _)| i64::from(r.num_images)));
    statement.column("text", column(rows, |(r, _)| r.size.as_deref().map(without_nul)));
    statement.column("text", column(rows, |(r, _)| without_nul(&r.parameters)));
    statement.column("text", column(rows, |(r, _)| r.terms.as_deref().map(without_nul)));
    statement.column("text", column(rows, stored_prompt));
    statement.column("bigint", column(rows, |row| stored_prompt(row).and(row.1).map(Timestamp::micros)));
    statement.column("text", column(rows, |(r, _)| r.user.as_deref().map(without_nul)));
    statement.column("boolean", column(rows, |(r, _)| r.cancel_if_client_leaves));
    statement.column("bigint", column(rows, |(r, _)| r.created_at.micros()));
    statement.column("bigint", column(rows, |(r, _)| r.deadline_at.micros()));
    statement.column("bigint", column(rows, |(r, _)| r.hold.nanos()));
    statement.column("text", column(rows, |(r, _)| r.requested_model.as_deref().map(without_nul)));
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
             created_at = excluded.created_at, expires_at = excluded.expires_at
         WHERE idempotency_keys.expires_at <= excluded.created_at",
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
    statement.column("text", column(rows, |(_, w)| without_nul(&w.url)));
    statement.column("text", column(rows, |(_, w)| without_nul(&w.host)));
    statement.column("text", column(rows, |(_, w)| w.form.as_str()));
    statement.column("text", column(rows, |(_, w)| without_nul(&w.base_url)));
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
    statement.column("text", column(rows, |s| without_nul(&s.endpoint)));
    statement.column("text", column(rows, |s| without_nul(&s.credential)));
    statement.column("text", column(rows, |s| without_nul(&s.provider_request_id)));
    statement.column("text", column(rows, |s| without_nul(&s.status_url)));
    statement.column("text", column(rows, |s| without_nul(&s.response_url)));
    statement.column("text", column(rows, |s| without_nul(&s.cancel_url)));
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
        statement.balances = Some(statement.parts.len());
        statement.part(
            "balances",
            balances.len(),
            "UPDATE balances b SET posted = b.posted + c.posted, held = b.held + c.held,
                 open_generations = b.open_generations + c.open, version = b.version + 1",
        );
        statement.column("uuid", column(balances, |(id, _)| *id));
        statement.column("bigint", column(balances, |(_, change)| change.posted));
        statement.column("bigint", column(balances, |(_, change)| change.held));
        statement.column("bigint", column(balances, |(_, change)| change.open));
        statement.column("bigint", column(balances, |(_, change)| change.version));
        statement.column("bigint", column(balances, |(_, change)| change.terms_version));
        statement.end_returning(
            "AS c (id, posted, held, open, version, terms_version) WHERE b.project_id = c.id
                 AND b.version = COALESCE(c.version, b.version)
                 AND b.terms_version = COALESCE(c.terms_version, b.terms_version)",
            "b.project_id, b.version",
        );
    }
    if all || !keys.is_empty() {
        statement.part(
            "key_balances",
            keys.len(),
            "UPDATE key_balances k SET spent = k.spent + c.spent, held = k.held + c.held",
        );
        statement.column("uuid", column(keys, |(id, _)| *id));
        statement.column("bigint", column(keys, |(_, change)| change.spent));
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
