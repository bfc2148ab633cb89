//! The one task that writes the books: it drains what has gathered and commits it in one transaction.
//!
//! Calls that arrive while a transaction is being committed share the next one, so durability costs one flush for many
//! calls. Each call gets its own answer; a refusal undoes nobody else's work.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::books::{Applied, Recorded, Reserved};
use super::error::{LedgerError, ReserveError};
use super::limits::WINDOW_SECONDS;
use super::memory::{Appends, Memory};
use super::month::Month;
use super::writes::Writes;
use crate::domain::{GenerationId, Timestamp};
use crate::meters::SharedMeters;
use crate::store::{
    Asked, Finish, Lane, Late, ProjectTerms, Reservation, Store, StoreError, Submitted, WriteTransaction, within,
};

/// The most calls that one transaction takes.
const LARGEST_BATCH: usize = 512;

/// How often a transaction is tried again that stood in another one's way.
const TRIES: u32 = 5;

/// How often to ask a database that was unreachable whether it is back.
const PROBE_EVERY: Duration = Duration::from_millis(200);

/// A call, and where its answer goes.
#[derive(Debug)]
pub(super) enum Command {
    Reserve(Box<Reservation>, oneshot::Sender<Result<Reserved, ReserveError>>),
    Submitted(Arc<Submitted>, oneshot::Sender<Result<Recorded, LedgerError>>),
    Running(GenerationId, Timestamp, oneshot::Sender<Result<(), LedgerError>>),
    /// The client who waited has left (when), or has its answer.
    Client(GenerationId, Option<Timestamp>, oneshot::Sender<Result<(), LedgerError>>),
    Finish(Arc<Finish>, oneshot::Sender<Result<Applied, LedgerError>>),
    Late(Arc<Late>, oneshot::Sender<Result<Applied, LedgerError>>),
}

/// The answer to a call.
#[derive(Debug)]
enum Answer {
    Reserve(Result<Reserved, ReserveError>),
    Submitted(Result<Recorded, LedgerError>),
    Other(Result<Applied, LedgerError>),
}

impl Command {
    fn answer(self, answer: Answer) {
        // A caller who no longer listens has gone away; what was written stays.
        match (self, answer) {
            (Self::Reserve(_, caller), Answer::Reserve(result)) => drop(caller.send(result)),
            (Self::Submitted(_, caller), Answer::Submitted(result)) => drop(caller.send(result)),
            (Self::Finish(_, caller) | Self::Late(_, caller), Answer::Other(result)) => drop(caller.send(result)),
            (Self::Running(_, _, caller) | Self::Client(_, _, caller), Answer::Other(result)) => {
                drop(caller.send(result.map(|_| ())));
            }
            // Answers are made from their own calls.
            (_, Answer::Reserve(_) | Answer::Submitted(_))
            | (Self::Reserve(..) | Self::Submitted(..), Answer::Other(_)) => {}
        }
    }

    fn fail(self, unwritten: Unwritten) {
        let Unwritten { error, perhaps } = unwritten;
        let answer = match &self {
            Self::Reserve(..) if perhaps => Answer::Reserve(Err(ReserveError::OutcomeUnknown(error.to_string()))),
            Self::Reserve(..) => Answer::Reserve(Err(error.into())),
            Self::Submitted(..) => Answer::Submitted(Err(error.into())),
            _ => Answer::Other(Err(error.into())),
        };
        self.answer(answer);
    }

    /// The generation that it is about, if that is there already.
    pub(super) fn generation(&self) -> Option<Uuid> {
        match self {
            Self::Reserve(..) | Self::Client(..) => None,
            Self::Submitted(s, _) => Some(s.generation.uuid()),
            Self::Running(id, ..) => Some(id.uuid()),
            Self::Finish(f, _) => Some(f.generation.uuid()),
            Self::Late(l, _) => Some(l.generation.uuid()),
        }
    }

    /// A reservation whose caller has gone away before it was made is not made.
    fn is_abandoned(&self) -> bool {
        matches!(self, Self::Reserve(_, caller) if caller.is_closed())
    }
}

/// Why a batch was not written.
#[derive(Debug, Clone)]
struct Unwritten {
    error: StoreError,
    /// The answer to a commit was lost: perhaps it was written all the same.
    perhaps: bool,
}

impl From<StoreError> for Unwritten {
    fn from(error: StoreError) -> Self {
        Self { error, perhaps: false }
    }
}

/// The task.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) store: Store,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) closing: CancellationToken,
    /// Whether the database could not be reached the last time.
    pub(super) down: Arc<AtomicBool>,
    /// Times the transactions.
    pub(super) meters: SharedMeters,
    /// Tells whoever has the projections follow that there is something new.
    pub(super) appended: watch::Sender<()>,
}

impl Writer {
    /// Works until the books are closed and everything that was asked before has its answer.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(LARGEST_BATCH);
        let mut lane = Lane::default();
        let mut memory = Memory::default();
        loop {
            let gathered = tokio::select! {
                biased;
                () = self.closing.cancelled(), if !self.commands.is_closed() => {
                    self.commands.close();
                    continue;
                }
                gathered = self.commands.recv_many(&mut batch, LARGEST_BATCH) => gathered,
            };
            if gathered == 0 {
                return;
            }
            let _timed = self.meters.commit(gathered);
            batch.retain(|command| !command.is_abandoned());
            if let Err(error) = write(&self.store, &mut lane, &mut memory, std::mem::take(&mut batch)).await {
                self.wait_for_database(&error).await;
            }
            self.appended.send_replace(());
        }
    }

    /// Refuses everything at once until the database answers again, so that nobody waits for what cannot be.
    async fn wait_for_database(&mut self, error: &StoreError) {
        tracing::error!(%error, "the books cannot be written; requests are refused until they can");
        self.store.note_outage(error);
        self.down.store(true, Ordering::Release);
        let mut waiting = Vec::new();
        let store = self.store.clone();
        let back = async {
            while store.ping_writing().await.is_err() {
                tokio::time::sleep(PROBE_EVERY).await;
            }
        };
        tokio::pin!(back);
        loop {
            tokio::select! {
                biased;
                () = self.closing.cancelled(), if !self.commands.is_closed() => self.commands.close(),
                gathered = self.commands.recv_many(&mut waiting, LARGEST_BATCH) => {
                    if gathered == 0 {
                        return;
                    }
                    for command in waiting.drain(..) {
                        command.fail(error.clone().into());
                    }
                }
                () = &mut back => break,
            }
        }
        self.down.store(false, Ordering::Release);
        tracing::info!("the books can be written again");
    }
}

/// Writes a batch and answers everybody in it. Errors when the database cannot be reached; all were told.
async fn write(store: &Store, lane: &mut Lane, memory: &mut Memory, batch: Vec<Command>) -> Result<(), StoreError> {
    match commit(store, lane, memory, &batch, false).await {
        Ok(answers) => answer_all(batch, answers),
        Err(Unwritten { error: StoreError::Refused(_) | StoreError::Inconsistent(_), perhaps }) if batch.len() > 1 => {
            // One row is bad: each gets a transaction of its own, so that only the bad one fails.
            return write_one_by_one(store, lane, memory, batch, perhaps).await;
        }
        Err(unwritten) => {
            let unreachable = matches!(unwritten.error, StoreError::Unreachable(_));
            if !unreachable {
                tracing::error!(error = %unwritten.error, calls = batch.len(), "a transaction of the books failed");
            }
            for command in batch {
                command.fail(unwritten.clone());
            }
            if unreachable {
                return Err(unwritten.error);
            }
        }
    }
    Ok(())
}

async fn write_one_by_one(
    store: &Store,
    lane: &mut Lane,
    memory: &mut Memory,
    batch: Vec<Command>,
    perhaps: bool,
) -> Result<(), StoreError> {
    let mut unreachable = None;
    for command in batch {
        if let Some(error) = &unreachable {
            command.fail(Unwritten { error: StoreError::clone(error), perhaps });
            continue;
        }
        let alone = [command];
        let result = commit(store, lane, memory, &alone, perhaps).await;
        let [command] = alone;
        match result {
            Ok(answers) => answer_all(vec![command], answers),
            Err(unwritten) => {
                tracing::warn!(error = %unwritten.error, "a row of the books was refused");
                if matches!(unwritten.error, StoreError::Unreachable(_)) {
                    unreachable = Some(unwritten.error.clone());
                }
                command.fail(unwritten);
            }
        }
    }
    unreachable.map_or(Ok(()), Err)
}

fn answer_all(batch: Vec<Command>, answers: Vec<Answer>) {
    for (command, answer) in batch.into_iter().zip(answers) {
        command.answer(answer);
    }
}

/// How far a transaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Beginning,
    Writing,
    Committing,
}

/// Commits a batch, within the time that a write may take; gives an answer for each call. Where all that it is decided on is
/// remembered, this is one statement, guarded by the versions of what was remembered. Else, and where those are no longer so,
/// it is a transaction that locks and reads first. One whose connection is lost on the way is tried once more: every call can
/// be repeated, so the second transaction finds what the first one wrote if only its answer was lost.
/// `perhaps`: the batch may have been written before.
async fn commit(
    store: &Store,
    lane: &mut Lane,
    memory: &mut Memory,
    batch: &[Command],
    mut perhaps: bool,
) -> Result<Vec<Answer>, Unwritten> {
    memory.begin_batch();
    let (mut tries, mut lost) = (1, false);
    if !perhaps && memory.covers(batch) {
        match at_once(store, lane, memory, batch).await {
            Ok(Some(answers)) => return Ok(answers),
            Ok(None) => memory.forget(batch),
            Err(StoreError::Conflict(_)) => memory.note_conflict(batch),
            Err(error @ StoreError::Unreachable(_)) => {
                // Perhaps only the answer was lost.
                memory.clear();
                (perhaps, lost) = (true, true);
                tracing::warn!(%error, calls = batch.len(), "the connection was lost in a statement of the books; trying once more");
            }
            Err(error) => {
                memory.forget(batch);
                return Err(error.into());
            }
        }
    }
    loop {
        let mut stage = Stage::Beginning;
        let result = within(store.options().write_timeout, async {
            let mut transaction = store.begin_in(lane).await?;
            stage = Stage::Writing;
            let (answers, written) = apply(&mut transaction, memory, batch, perhaps).await?;
            stage = Stage::Committing;
            transaction.commit_in(lane).await?;
            let Written { versions, ended, appends } = written;
            memory.written(&versions, &ended, appends);
            Ok(answers)
        })
        .await;
        match result {
            Ok(answers) => return Ok(answers),
            Err(StoreError::Conflict(_)) if tries < TRIES => {
                memory.forget(batch);
                tries += 1;
            }
            Err(error) => {
                let refused = matches!(error, StoreError::Refused(_) | StoreError::Conflict(_));
                perhaps |= stage == Stage::Committing && !refused;
                if perhaps {
                    memory.clear();
                } else {
                    memory.forget(batch);
                }
                let unreachable = matches!(error, StoreError::Unreachable(_));
                if !unreachable || stage == Stage::Beginning || std::mem::replace(&mut lost, true) {
                    return Err(Unwritten { error, perhaps });
                }
                tracing::warn!(%error, calls = batch.len(), "the connection was lost in a transaction of the books; trying once more");
            }
        }
    }
}

/// What a batch has written.
struct Written {
    versions: Vec<(Uuid, i64)>,
    ended: Vec<Uuid>,
    appends: Appends,
}

/// Decides a batch on what is remembered and writes it in one statement. `None` where that cannot be, or where something was
/// refused: then nothing is written, and it is to be decided on what the database has.
async fn at_once(
    store: &Store,
    lane: &mut Lane,
    memory: &mut Memory,
    batch: &[Command],
) -> Result<Option<Vec<Answer>>, StoreError> {
    let Some(appends) = memory.appends else { return Ok(None) };
    let mut writes = Writes::default();
    let answers = decide(memory, &mut writes, batch, false);
    let refused =
        |answer: &Answer| matches!(answer, Answer::Reserve(Err(_)) | Answer::Submitted(Err(_)) | Answer::Other(Err(_)));
    if answers.iter().any(refused) {
        return Ok(None);
    }
    let decided = writes.into_append(memory, appends, true)?;
    let written = within(store.options().write_timeout, async {
        match store.append_at_once(lane, &decided.append).await {
            Some(result) => result.map(Some),
            None if store.is_postgres() => Ok(None),
            None => {
                let mut transaction = store.begin_in(lane).await?;
                let versions = transaction.append(&decided.append).await?;
                transaction.commit_in(lane).await?;
                Ok(Some(versions))
            }
        }
    })
    .await?;
    let Some(versions) = written else { return Ok(None) };
    memory.written(&versions, &decided.ended, appends.plus(decided.append.events.len()));
    Ok(Some(answers))
}

/// Decides a batch, call by call; each decision counts for those after it.
fn decide<'b>(memory: &mut Memory, writes: &mut Writes<'b>, batch: &'b [Command], perhaps: bool) -> Vec<Answer> {
    batch
        .iter()
        .map(|command| match command {
            // It was made, and only the answer was lost.
            Command::Reserve(r, _) if perhaps && memory.streams.contains_key(&r.id.uuid()) => {
                Answer::Reserve(Ok(Reserved::default()))
            }
            Command::Reserve(r, _) => Answer::Reserve(writes.reserve(memory, r)),
            Command::Submitted(s, _) => {
                Answer::Submitted(writes.submit(memory.streams.get_mut(&s.generation.uuid()), s))
            }
            Command::Running(id, at, _) => Answer::Other(writes.start(memory.streams.get_mut(&id.uuid()), *id, *at)),
            Command::Client(id, left_at, _) => {
                match left_at {
                    Some(at) => writes.client_left(*id, *at),
                    None => writes.client_answered(*id),
                }
                Answer::Other(Ok(Applied::Now))
            }
            Command::Finish(f, _) => Answer::Other(writes.finish(memory, f)),
            Command::Late(l, _) => Answer::Other(writes.late(memory.streams.get_mut(&l.generation.uuid()), l)),
        })
        .collect()
}

async fn apply(
    transaction: &mut WriteTransaction,
    memory: &mut Memory,
    batch: &[Command],
    perhaps: bool,
) -> Result<(Vec<Answer>, Written), StoreError> {
    let appends = if let Some(appends) = memory.appends {
        appends
    } else {
        let appends = Appends::new();
        transaction.add_event_writer(appends.writer).await?;
        appends
    };
    read_streams(transaction, memory, batch, perhaps).await?;
    read_standing(transaction, memory, batch).await?;
    let mut writes = Writes::default();
    let answers = decide(memory, &mut writes, batch, perhaps);
    let mut decided = writes.into_append(memory, appends, false)?;
    if !decided.append.idempotency.is_empty() && !decided.append.released.is_empty() {
        // One statement must not touch a key twice.
        transaction.release_idempotency(&decided.append.released).await?;
        let released = decided.append.released.drain(..).map(GenerationId::from_uuid);
        decided.append.answered.extend(released);
    }
    let versions = transaction.append(&decided.append).await?;
    // A client may leave in the very batch that records it.
    if !decided.left.is_empty() {
        transaction.leave_requests(&decided.left).await?;
    }
    let appends = appends.plus(decided.append.events.len());
    Ok((answers, Written { versions, ended: decided.ended, appends }))
}

/// Reads the generations that a batch is about: new ones only where they may have been written before.
async fn read_streams(
    transaction: &mut WriteTransaction,
    memory: &mut Memory,
    batch: &[Command],
    perhaps: bool,
) -> Result<(), StoreError> {
    let ids: BTreeSet<Uuid> = batch
        .iter()
        .filter_map(|command| match command {
            Command::Reserve(r, _) => perhaps.then(|| r.id.uuid()),
            command => command.generation(),
        })
        .collect();
    if ids.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = ids.into_iter().collect();
    for id in &ids {
        memory.streams.remove(id);
    }
    let streams = transaction.streams(&ids).await?;
    memory.streams.extend(streams.into_iter().map(|stream| (stream.id, stream)));
    Ok(())
}

/// Reads and locks what reservations are decided on. Every writer locks the balances in the order of their ids, so that no two
/// wait for each other.
async fn read_standing(
    transaction: &mut WriteTransaction,
    memory: &mut Memory,
    batch: &[Command],
) -> Result<(), StoreError> {
    let mut projects = BTreeSet::new();
    let mut paying = BTreeSet::new();
    let mut keys = BTreeSet::new();
    let mut idempotency = BTreeSet::new();
    let mut months = BTreeSet::new();
    let mut earliest = None::<Timestamp>;
    for command in batch {
        match command {
            Command::Reserve(r, _) => {
                let project = r.project_id.uuid();
                projects.insert(project);
                paying.insert(project);
                keys.insert(r.api_key_id.uuid());
                idempotency.extend(r.idempotency.as_ref().map(|i| (project, i.key.as_str())));
                months.insert((project, Month::of(r.created_at).start().micros()));
                earliest = Some(earliest.map_or(r.created_at, |at| at.min(r.created_at)));
            }
            Command::Finish(f, _) => {
                paying.extend(memory.streams.get(&f.generation.uuid()).map(|stream| stream.project_id));
            }
            Command::Submitted(..) | Command::Running(..) | Command::Client(..) | Command::Late(..) => {}
        }
    }
    let list = |ids: BTreeSet<Uuid>| ids.into_iter().collect::<Vec<_>>();
    // Ends alone are decided on their generations; the sums that they change are then locked in the order of their ids, too.
    if let Some(earliest) = earliest {
        for project in &paying {
            memory.forget_project(*project);
        }
        let paying = list(paying);
        // Locked first and then read: a statement that has waited for a lock sees what it locks as it is now, and what it joins
        // to that as it was before, so that old terms would be remembered with the new version.
        transaction.lock_balances(&paying).await?;
        let standing = &mut memory.standing;
        for row in transaction.lock_projects(&paying).await? {
            standing.projects.insert(row.terms.id, row.terms);
            standing.balances.insert(row.balance.project_id, row.balance);
        }
        // A month without a row was charged nothing.
        standing.months.extend(months.into_iter().map(|month| (month, 0)));
        read_limits(transaction, memory, &list(projects), &list(keys), earliest).await?;
    }
    if !idempotency.is_empty() {
        let wanted: Vec<_> = idempotency.into_iter().collect();
        let rows = transaction.existing_idempotency(&wanted).await?;
        memory.standing.idempotency = rows.into_iter().map(|row| ((row.project_id, row.key.clone()), row)).collect();
    }
    Ok(())
}

/// Reads what these keys may do, and what counts under the limits of these projects, if they have any.
async fn read_limits(
    transaction: &mut WriteTransaction,
    memory: &mut Memory,
    projects: &[Uuid],
    keys: &[Uuid],
    earliest: Timestamp,
) -> Result<(), StoreError> {
    let standing = &mut memory.standing;
    let month = Month::of(earliest).start();
    let any = |limited: fn(&ProjectTerms) -> bool| {
        projects.iter().filter_map(|project| standing.projects.get(project)).any(limited)
    };
    let organization = projects.iter().find_map(|project| standing.projects.get(project)?.organization_limit);
    let asked = Asked {
        months_from: any(|terms| terms.spend_limit.is_some()).then_some(month),
        organization_from: organization.map(|_| month),
        counts_since: any(|terms| terms.rated).then(|| earliest.seconds() - WINDOW_SECONDS),
    };
    for key in keys {
        standing.keys.remove(key);
    }
    standing.add_limits(transaction.limits(projects, keys, asked).await?, organization);
    Ok(())
}
