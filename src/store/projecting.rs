//! The projections: what the events say, as rows to be listed, filtered and added up.
//!
//! Whoever wants to read them has them follow first, so that nobody sees less than what was committed when he asked. A task
//! of the books does the same every few milliseconds while there is work, in bulk.

use std::collections::{HashMap, HashSet};

use sqlx::FromRow;
use uuid::Uuid;

use super::clock::{postgres_now, sqlite_now};
use super::connection::{Either, WriteTransaction, on_both, select_by_ids, within};
use super::payloads::projected_reservation;
use super::rows::{Finish, Late, Reservation, Submitted};
use super::streams::{Event, EventRow, select_events};
use super::writing::Projected;
use super::{Entries, NewTransaction, Outage, Store, StoreError, TransactionKind};
use crate::domain::{GenerationId, Timestamp};

/// The most events of one writer that one transaction projects.
const ROUND: i64 = 2_000;

/// The same on SQLite, where everybody who writes waits for it.
const ROUND_OF_ONE_WRITER: i64 = 200;

/// A writer whose last events are not projected yet.
#[derive(Debug, Clone, Copy, FromRow)]
struct Pending {
    writer: Uuid,
    projected_seq: i64,
    last_seq: i64,
}

/// The writers that are ahead of the projections.
const PENDING: &str = "SELECT writer, projected_seq, last_seq FROM (
         SELECT p.writer, p.projected_seq,
             (SELECT MAX(e.seq) FROM ledger_events e WHERE e.writer = p.writer AND e.seq > p.projected_seq) AS last_seq
         FROM event_projections p) pending
     WHERE last_seq IS NOT NULL ORDER BY writer";

/// The events of one round, by what they do to the projections.
#[derive(Debug, Default)]
pub(super) struct Round {
    reserved: Vec<(Reservation, Option<Timestamp>)>,
    started: Vec<(GenerationId, Timestamp)>,
    submitted: Vec<Submitted>,
    ended: Vec<(Finish, NewTransaction)>,
    late: Vec<(Late, NewTransaction)>,
    /// How far each writer is with it.
    projected: Vec<(Uuid, i64)>,
}

impl Store {
    /// Has the projections follow all events that are committed now. Where nothing can be written, they stay as they are.
    pub(crate) async fn catch_up(&self) -> Result<(), StoreError> {
        let pending = self.pending().await?;
        if pending.is_empty() {
            return Ok(());
        }
        let _one_at_a_time = self.inner.projecting.lock().await;
        loop {
            // Others have perhaps done it meanwhile.
            let now = self.pending().await?;
            let behind = |wanted: &Pending| {
                now.iter().any(|found| found.writer == wanted.writer && found.projected_seq < wanted.last_seq)
            };
            if !pending.iter().any(behind) {
                return Ok(());
            }
            match within(self.options().write_timeout, self.project_round()).await {
                Ok(()) => {}
                Err(error @ StoreError::Unreachable(_))
                    if matches!(error.outage(), Some(Outage::DiskFull | Outage::ReadOnly)) =>
                {
                    tracing::warn!(%error, "reports may lack what was booked last");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn pending(&self) -> Result<Vec<Pending>, StoreError> {
        within(self.options().read_timeout, async {
            let mut reader = self.reader_as_is().await?;
            Ok(on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, Pending>(PENDING).fetch_all(connection).await)?)
        })
        .await
    }

    /// Projects some events, in one transaction. One that cannot be projected is told of and left out: it must not keep the
    /// others from being seen, and `imagegate ledger verify` finds what is missing.
    async fn project_round(&self) -> Result<(), StoreError> {
        let mut most = if self.is_postgres() { ROUND } else { ROUND_OF_ONE_WRITER };
        loop {
            match self.project_some(most).await {
                Err(error @ (StoreError::Refused(_) | StoreError::Inconsistent(_))) if most == 1 => {
                    return self.leave_out(&error).await;
                }
                Err(StoreError::Refused(_) | StoreError::Inconsistent(_)) => most /= 2,
                result => return result,
            }
        }
    }

    /// Projects at most so many events of each writer, of all together where it is one.
    async fn project_some(&self, most: i64) -> Result<(), StoreError> {
        let mut transaction = self.begin_projecting().await?;
        let rows = transaction.unprojected(most).await?;
        let round = Round::new(&rows)?;
        let round = transaction.leave_out_orphans(round, &rows).await?;
        transaction.write_round(&round).await?;
        transaction.note_projected(&round.projected).await?;
        transaction.commit().await
    }

    /// Passes over the next event, which cannot be projected.
    async fn leave_out(&self, error: &StoreError) -> Result<(), StoreError> {
        let mut transaction = self.begin_projecting().await?;
        let rows = transaction.unprojected(1).await?;
        let Some(row) = rows.first() else { return Ok(()) };
        tracing::error!(%error, stream = %row.stream_id, number = row.n, kind = row.kind, "an event of the ledger cannot be projected");
        transaction.note_projected(&[(row.writer, row.seq)]).await?;
        transaction.commit().await
    }

    /// Begins a transaction that projects; nobody else does meanwhile.
    pub(super) async fn begin_projecting(&self) -> Result<WriteTransaction, StoreError> {
        let mut transaction = self.begin_by_key().await?;
        if let Either::Postgres(connection) = transaction.connection() {
            // Another replica may be at it; the rows that it has written are read by the statement after this.
            sqlx::query("SELECT projected_seq FROM event_projections WHERE writer = $1 FOR UPDATE")
                .bind(Uuid::nil())
                .execute(connection)
                .await?;
        }
        Ok(transaction)
    }
}

impl Round {
    /// What these events say.
    pub(super) fn new(rows: &[EventRow]) -> Result<Self, StoreError> {
        let mut round = Self::default();
        let mut projected: HashMap<Uuid, i64> = HashMap::new();
        for row in rows {
            projected.insert(row.writer, row.seq);
            match row.event()? {
                Event::Reserved(reservation, until) => round.reserved.push((*reservation, until)),
                Event::Submitted(submitted) => round.submitted.push(submitted),
                Event::Started(id, at) => round.started.push((id, at)),
                Event::Ended(finish) => {
                    let booked = settlement(row, finish.reason.clone());
                    round.ended.push((*finish, booked));
                }
                Event::Late(late) => {
                    let booked = settlement(row, "the provider finished it after its end".to_owned());
                    round.late.push((late, booked));
                }
                Event::Booked => {}
            }
        }
        round.projected = projected.into_iter().collect();
        round.projected.sort_unstable();
        Ok(round)
    }

    /// How many generations are new in it.
    pub(super) fn generations(&self) -> usize {
        self.reserved.len()
    }

    /// The generations that are new in it.
    pub(super) fn generation_ids(&self) -> Vec<Uuid> {
        self.reserved.iter().map(|(r, _)| r.id.uuid()).collect()
    }

    /// The ends in it.
    pub(super) fn finishes(&self) -> impl Iterator<Item = &Finish> {
        self.ended.iter().map(|(finish, _)| finish)
    }

    /// Leaves out the ledger transactions of these generations, and all webhooks: who was to be called was called.
    pub(super) fn without_transactions(&mut self, booked: &HashSet<Uuid>) {
        let transactions = self.ended.iter_mut().map(|(_, t)| t).chain(self.late.iter_mut().map(|(_, t)| t));
        for transaction in transactions.filter(|transaction| booked.contains(&transaction.id)) {
            transaction.entries = Entries::default();
        }
        for (reservation, _) in &mut self.reserved {
            reservation.webhook = None;
        }
    }
}

/// The ledger transaction of an end: it has the generation's id, so that there can be only one.
fn settlement(row: &EventRow, reason: String) -> NewTransaction {
    NewTransaction {
        id: row.stream_id,
        kind: TransactionKind::Settlement,
        project_id: row.project_id,
        generation_id: Some(row.stream_id),
        reason,
        author: None,
        created_at: Timestamp::from_micros(row.at),
        entries: row.entries,
    }
}

impl WriteTransaction {
    /// The next events of each writer that the projections lack, at most so many; of all together where that is one.
    async fn unprojected(&mut self, most: i64) -> Result<Vec<EventRow>, StoreError> {
        on_both!(self.connection(), connection => {
            let pending = sqlx::query_as::<_, Pending>(PENDING).fetch_all(&mut *connection).await?;
            let mut rows = Vec::new();
            for Pending { writer, projected_seq, .. } in pending {
                rows.extend(
                    sqlx::query_as::<_, EventRow>(select_events!(
                        " WHERE writer = $1 AND seq > $2 ORDER BY writer, seq LIMIT $3"))
                        .bind(writer).bind(projected_seq).bind(most).fetch_all(&mut *connection).await?,
                );
                if most == 1 {
                    break;
                }
            }
            Ok(rows)
        })
    }

    /// Leaves for a later round what a writer says of a generation whose reservation another writer's round has not reached:
    /// that writer stops before it.
    async fn leave_out_orphans(&mut self, round: Round, rows: &[EventRow]) -> Result<Round, StoreError> {
        if round.projected.len() < 2 {
            return Ok(round);
        }
        let here: HashSet<Uuid> = round.reserved.iter().map(|(r, _)| r.id.uuid()).collect();
        let mut elsewhere: Vec<Uuid> =
            rows.iter().filter(|row| row.n > 1 && !here.contains(&row.stream_id)).map(|row| row.stream_id).collect();
        elsewhere.sort_unstable();
        elsewhere.dedup();
        let known: HashSet<Uuid> = self.known_generations(&elsewhere).await?.into_iter().collect();
        let mut stopped: HashSet<Uuid> = HashSet::new();
        let kept: Vec<EventRow> = rows
            .iter()
            .filter(|row| {
                let orphan = row.n > 1 && !here.contains(&row.stream_id) && !known.contains(&row.stream_id);
                if orphan {
                    stopped.insert(row.writer);
                }
                !stopped.contains(&row.writer)
            })
            .cloned()
            .collect();
        if kept.len() == rows.len() { Ok(round) } else { Round::new(&kept) }
    }

    /// Those of these generations that the projections show.
    pub(super) async fn known_generations(&mut self, ids: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        let rows = select_by_ids!(self.connection(), (Uuid,), "SELECT id FROM generations WHERE id", ids, "", "")?;
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }

    /// Writes what the events of a round say.
    pub(super) async fn write_round(&mut self, round: &Round) -> Result<(), StoreError> {
        let reserved = round.reserved.iter();
        self.write_projected(&Projected {
            generations: reserved.clone().map(|(r, until)| (r, *until)).collect(),
            webhooks: reserved.filter_map(|(r, _)| Some((r, r.webhook.as_ref()?))).collect(),
            ..Projected::default()
        })
        .await?;
        for (r, _) in round.reserved.iter().filter(|(r, _)| r.webhook.is_some()) {
            let content = projected_reservation(r)?;
            on_both!(self.connection(), connection =>
                sqlx::query("UPDATE ledger_events SET content = $2 WHERE stream_id = $1 AND n = 1")
                    .bind(r.id.uuid()).bind(content).execute(connection).await.map(drop))?;
        }
        if !round.started.is_empty() {
            self.start_generations(&round.started).await?;
        }
        let booked = |transaction: &&NewTransaction| !transaction.entries.is_empty();
        let ended = round.ended.iter().map(|(_, transaction)| transaction);
        let late = round.late.iter().map(|(_, transaction)| transaction);
        let attempts: Vec<&Submitted> = round.submitted.iter().collect();
        self.write_projected(&Projected {
            attempts: attempts.clone(),
            finished: round.ended.iter().map(|(finish, _)| finish).collect(),
            transactions: ended.chain(late).filter(booked).cloned().collect(),
            ..Projected::default()
        })
        .await?;
        self.replace_attempts(&attempts).await?;
        // Of generations that have ended, perhaps in this very round.
        self.book_late(&round.late.iter().map(|(late, _)| late).collect::<Vec<_>>()).await?;
        for (late, _) in &round.late {
            on_both!(self.connection(), connection =>
                sqlx::query("UPDATE ledger_events SET content = NULL WHERE stream_id = $1 AND kind = 'late_evidence'
                                 AND EXISTS (SELECT 1 FROM generations WHERE id = $1 AND erased_at IS NOT NULL)")
                    .bind(late.generation.uuid()).execute(connection).await.map(drop))?;
        }
        Ok(())
    }

    /// Records how far the projections are for these writers.
    async fn note_projected(&mut self, projected: &[(Uuid, i64)]) -> Result<(), StoreError> {
        macro_rules! note {
            ($now:expr) => {
                concat!("UPDATE event_projections SET projected_seq = $2, projected_at = ", $now, " WHERE writer = $1")
            };
        }
        for (writer, seq) in projected {
            match self.connection() {
                Either::Postgres(connection) => {
                    sqlx::query(note!(postgres_now!())).bind(writer).bind(seq).execute(connection).await.map(drop)?;
                }
                Either::Sqlite(connection) => {
                    sqlx::query(note!(sqlite_now!())).bind(writer).bind(seq).execute(connection).await.map(drop)?;
                }
            }
        }
        Ok(())
    }

    /// Adds a writer whose events the projections follow.
    pub(crate) async fn add_event_writer(&mut self, writer: Uuid) -> Result<(), StoreError> {
        macro_rules! add {
            ($now:expr) => {
                concat!(
                    "INSERT INTO event_projections (writer, projected_seq, projected_at) VALUES ($1, 0, ",
                    $now,
                    ") ON CONFLICT (writer) DO NOTHING"
                )
            };
        }
        match self.connection() {
            Either::Postgres(connection) => {
                sqlx::query(add!(postgres_now!())).bind(writer).execute(connection).await.map(drop)?;
            }
            Either::Sqlite(connection) => {
                sqlx::query(add!(sqlite_now!())).bind(writer).execute(connection).await.map(drop)?;
            }
        }
        Ok(())
    }
}
