//! The one task that writes the books: it drains what has gathered and commits it in one transaction.
//!
//! Calls that arrive while a transaction is being committed share the next one, so durability costs one flush for many
//! calls. Each call gets its own answer; a refusal undoes nobody else's work.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::books::{Applied, Recorded, Reserved};
use super::decide::Standing;
use super::error::{LedgerError, ReserveError};
use super::limits::WINDOW_SECONDS;
use super::month::Month;
use super::writes::Writes;
use crate::domain::{GenerationId, Timestamp};
use crate::meters::SharedMeters;
use crate::store::{
    Asked, Finish, Lane, Late, OpenRow, ProjectTerms, Reservation, Store, StoreError, Submitted, WriteTransaction,
    within,
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
}

impl Writer {
    /// Works until the books are closed and everything that was asked before has its answer.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(LARGEST_BATCH);
        let mut lane = Lane::default();
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
            if let Err(error) = write(&self.store, &mut lane, std::mem::take(&mut batch)).await {
                self.wait_for_database(&error).await;
            }
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
async fn write(store: &Store, lane: &mut Lane, batch: Vec<Command>) -> Result<(), StoreError> {
    match commit(store, lane, &batch, false).await {
        Ok(answers) => answer_all(batch, answers),
        Err(Unwritten { error: StoreError::Refused(_) | StoreError::Inconsistent(_), perhaps }) if batch.len() > 1 => {
            // One row is bad: each gets a transaction of its own, so that only the bad one fails.
            return write_one_by_one(store, lane, batch, perhaps).await;
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
        let result = commit(store, lane, &alone, perhaps).await;
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

/// Commits a batch in one transaction, within the time that a write may take; gives an answer for each call. A transaction
/// whose connection is lost on the way is tried once more. Every call can be repeated, so the second transaction finds what
/// the first one wrote if only its answer was lost; it waits for the locks of a first one that is still under way.
/// `perhaps`: the batch may have been written before.
async fn commit(
    store: &Store,
    lane: &mut Lane,
    batch: &[Command],
    mut perhaps: bool,
) -> Result<Vec<Answer>, Unwritten> {
    let (mut tries, mut lost) = (1, false);
    loop {
        let mut stage = Stage::Beginning;
        let result = within(store.options().write_timeout, async {
            let mut transaction = store.begin_in(lane).await?;
            stage = Stage::Writing;
            let answers = apply(&mut transaction, batch, perhaps).await?;
            stage = Stage::Committing;
            transaction.commit_in(lane).await?;
            Ok(answers)
        })
        .await;
        match result {
            Ok(answers) => return Ok(answers),
            Err(StoreError::Conflict(_)) if tries < TRIES => tries += 1,
            Err(error) => {
                let refused = matches!(error, StoreError::Refused(_) | StoreError::Conflict(_));
                perhaps |= stage == Stage::Committing && !refused;
                let unreachable = matches!(error, StoreError::Unreachable(_));
                if !unreachable || stage == Stage::Beginning || std::mem::replace(&mut lost, true) {
                    return Err(Unwritten { error, perhaps });
                }
                tracing::warn!(%error, calls = batch.len(), "the connection was lost in a transaction of the books; trying once more");
            }
        }
    }
}

async fn apply(
    transaction: &mut WriteTransaction,
    batch: &[Command],
    perhaps: bool,
) -> Result<Vec<Answer>, StoreError> {
    let mut generations = lock_generations(transaction, batch, perhaps).await?;
    let mut standing = read_standing(transaction, batch, &generations).await?;
    let mut writes = Writes::default();
    let answers = batch
        .iter()
        .map(|command| match command {
            // It was made, and only the answer was lost.
            Command::Reserve(r, _) if generations.contains_key(&r.id.uuid()) => {
                Answer::Reserve(Ok(Reserved::default()))
            }
            Command::Reserve(r, _) => Answer::Reserve(writes.reserve(&mut standing, r)),
            Command::Submitted(s, _) => Answer::Submitted(writes.submit(generations.get_mut(&s.generation.uuid()), s)),
            Command::Running(id, at, _) => Answer::Other(writes.start(generations.get_mut(&id.uuid()), *id, *at)),
            Command::Client(id, left_at, _) => {
                match left_at {
                    Some(at) => writes.client_left(*id, *at),
                    None => writes.client_answered(*id),
                }
                Answer::Other(Ok(Applied::Now))
            }
            Command::Finish(f, _) => {
                Answer::Other(writes.finish(&mut standing, generations.get_mut(&f.generation.uuid()), f))
            }
            Command::Late(l, _) => Answer::Other(writes.late(generations.get_mut(&l.generation.uuid()), l)),
        })
        .collect();
    writes.write(transaction).await?;
    Ok(answers)
}

/// Reads and locks the generations that a batch is about: new ones only where they may have been written before. Every writer locks generations first, then balances, each in
/// the order of their ids, so that no two wait for each other.
async fn lock_generations(
    transaction: &mut WriteTransaction,
    batch: &[Command],
    perhaps: bool,
) -> Result<HashMap<Uuid, OpenRow>, StoreError> {
    let ids: BTreeSet<Uuid> = batch
        .iter()
        .filter_map(|command| match command {
            Command::Reserve(r, _) => perhaps.then(|| r.id.uuid()),
            Command::Client(..) => None,
            Command::Submitted(s, _) => Some(s.generation.uuid()),
            Command::Running(id, ..) => Some(id.uuid()),
            Command::Finish(f, _) => Some(f.generation.uuid()),
            Command::Late(l, _) => Some(l.generation.uuid()),
        })
        .collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<Uuid> = ids.into_iter().collect();
    let rows = transaction.lock_generations(&ids).await?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}

async fn read_standing(
    transaction: &mut WriteTransaction,
    batch: &[Command],
    generations: &HashMap<Uuid, OpenRow>,
) -> Result<Standing, StoreError> {
    let mut standing = Standing::default();
    let mut projects = BTreeSet::new();
    let mut paying = BTreeSet::new();
    let mut keys = BTreeSet::new();
    let mut idempotency = BTreeSet::new();
    let mut earliest = None::<Timestamp>;
    for command in batch {
        match command {
            Command::Reserve(r, _) => {
                let project = r.project_id.uuid();
                projects.insert(project);
                paying.insert(project);
                keys.insert(r.api_key_id.uuid());
                idempotency.extend(r.idempotency.as_ref().map(|i| (project, i.key.as_str())));
                earliest = Some(earliest.map_or(r.created_at, |at| at.min(r.created_at)));
            }
            Command::Finish(f, _) => {
                paying.extend(generations.get(&f.generation.uuid()).map(|row| row.project_id));
            }
            Command::Submitted(..) | Command::Running(..) | Command::Client(..) | Command::Late(..) => {}
        }
    }
    let list = |ids: BTreeSet<Uuid>| ids.into_iter().collect::<Vec<_>>();
    // Ends alone are decided on their generations; the sums that they change are then locked in the order of their ids, too.
    if let Some(earliest) = earliest {
        for row in transaction.lock_projects(&list(paying)).await? {
            standing.projects.insert(row.terms.id, row.terms);
            standing.balances.insert(row.balance.project_id, row.balance);
        }
        read_limits(transaction, &mut standing, &list(projects), &list(keys), earliest).await?;
    }
    if !idempotency.is_empty() {
        let wanted: Vec<_> = idempotency.into_iter().collect();
        let rows = transaction.existing_idempotency(&wanted).await?;
        standing.idempotency = rows.into_iter().map(|row| ((row.project_id, row.key.clone()), row)).collect();
    }
    Ok(standing)
}

/// Reads what these keys may do, and what counts under the limits of these projects, if they have any.
async fn read_limits(
    transaction: &mut WriteTransaction,
    standing: &mut Standing,
    projects: &[Uuid],
    keys: &[Uuid],
    earliest: Timestamp,
) -> Result<(), StoreError> {
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
    standing.add_limits(transaction.limits(projects, keys, asked).await?, organization);
    Ok(())
}
