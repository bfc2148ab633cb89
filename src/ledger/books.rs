//! The way into the books.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::credit::{self, Credit, Refund};
use super::error::{LedgerError, ReserveError};
use super::journal::{Journal, Line};
use super::limits::RateLimits;
use super::month::Month;
use super::projector;
use super::resend::{self, Found, Resend};
use super::writer::{Command, Writer};
use crate::domain::{FairSemaphore, GenerationId, ProjectId, Timestamp};
use crate::meters::SharedMeters;
use crate::store::{
    AttemptRecord, Balance, ChargeFilter, ChargeRecord, Discrepancy, Finish, GenerationFilter, GenerationRecord,
    HoldAges, Late, LedgerEntry, OpenHold, Outage, Page, PoolUse, Purged, Reservation, Store, Submitted,
    TransactionFilter, TransactionRecord, UsagePage, UsageQuery,
};

/// The most calls that may wait for the writer; beyond it the books are unavailable rather than ever slower.
const LONGEST_QUEUE: usize = 16_384;

/// The most reservations that may wait for the writer, four of its largest batches. More would all wait longer than a
/// client does; what has been submitted to a provider is never refused for this.
const LONGEST_LINE: usize = 2_048;

/// The most of them for one project, so that another one's are accepted all the same.
const LONGEST_LINE_EACH: usize = 1_536;

/// How many months of partitions are made ahead.
const MONTHS_AHEAD: usize = 3;

/// The most rows of each kind that one round of maintenance removes.
const PURGE_ROUND: u32 = 5_000;

/// Whether a call changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It did.
    Now,
    /// It had been done before, perhaps by somebody else.
    Already,
}

/// Where a submit was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// On an open generation: whoever works on it goes on from it.
    Open,
    /// On a generation that had ended: what comes of it is booked by [`Books::book_late`].
    Ended,
}

/// A reservation that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reserved {
    /// How the rate limits stand with it.
    pub rates: RateLimits,
}

/// The books. Cheap to clone.
///
/// Writes are queued to one task, which commits together what has gathered. None of the calls hangs: a database that
/// does not answer makes them fail with `Unavailable` within the time limits of
/// [`StoreOptions`](crate::store::StoreOptions).
#[derive(Debug, Clone)]
pub struct Books {
    pub(super) store: Store,
    commands: mpsc::Sender<Command>,
    closing: CancellationToken,
    down: Arc<AtomicBool>,
    /// A place in the line of reservations.
    line: FairSemaphore<ProjectId>,
    journal: Option<Journal>,
    meters: SharedMeters,
}

impl Books {
    /// Opens the books: starts the writer, tracked by `tracker`, on a thread of its own, or on `runtime` where the system
    /// gives no thread. It ends after [`Books::close`], or
    /// when the last clone is dropped, and answers everything that was asked before.
    #[must_use]
    pub fn start(store: Store, tracker: &TaskTracker, runtime: &Handle) -> Self {
        Self::start_metered(store, tracker, runtime, SharedMeters::default())
    }

    /// The same, with its writes counted and timed.
    #[must_use]
    pub fn start_metered(store: Store, tracker: &TaskTracker, runtime: &Handle, meters: SharedMeters) -> Self {
        let (sender, receiver) = mpsc::channel(LONGEST_QUEUE);
        let closing = CancellationToken::new();
        let down = Arc::new(AtomicBool::new(false));
        let (appended, news) = watch::channel(());
        let writer = Writer {
            store: store.clone(),
            commands: receiver,
            closing: closing.clone(),
            down: Arc::clone(&down),
            meters: meters.clone(),
            appended,
        };
        run(writer, tracker, runtime);
        tracker.spawn_on(projector::run(store.clone(), news), runtime);
        let line = FairSemaphore::new(LONGEST_LINE, LONGEST_LINE_EACH);
        Self { store, commands: sender, closing, down, line, journal: None, meters }
    }

    /// Has what cannot be written while the database is away kept in files of this folder. Then
    /// [`Books::play_journal`] is to be called at start.
    #[must_use]
    pub fn with_journal(mut self, folder: PathBuf) -> Self {
        self.journal = Some(Journal::in_folder(folder));
        self
    }

    /// How many writes are kept on disk because the database is away.
    #[must_use]
    pub fn kept_on_disk(&self) -> usize {
        self.journal.as_ref().map_or(0, Journal::kept)
    }

    /// Writes to the books what dead processes have left in the journal's folder; how much it was. A file is removed
    /// once all of it is written.
    pub async fn play_journal(&self) -> Result<usize, LedgerError> {
        let Some(journal) = self.journal.clone() else { return Ok(0) };
        let unreadable = |error: std::io::Error| LedgerError::Invalid(format!("the journal cannot be read: {error}"));
        let left = tokio::task::spawn_blocking(move || journal.left()).await;
        let left = left.map_err(|error| LedgerError::Invalid(error.to_string()))?.map_err(unreadable)?;
        let mut played = 0;
        for file in left {
            let mut refused = false;
            for line in file.lines.clone() {
                match self.play(line).await {
                    Err(LedgerError::Unavailable(reason)) => return Err(LedgerError::Unavailable(reason)),
                    // It has ended in another way meanwhile.
                    Err(LedgerError::NotOpen) => {}
                    Err(fault) => {
                        tracing::error!(%fault, "a line of the journal is refused by the books");
                        refused = true;
                    }
                    Ok(()) => played += 1,
                }
            }
            file.close(refused).map_err(unreadable)?;
        }
        Ok(played)
    }

    async fn play(&self, line: Line) -> Result<(), LedgerError> {
        match line {
            Line::Submitted(line) => self.submitted(Submitted::from(line)).await.map(drop),
            Line::Finish(line) => {
                let finish = Finish::try_from(*line).map_err(|fault| LedgerError::Invalid(fault.to_string()))?;
                self.finish(finish).await.map(drop)
            }
        }
    }

    /// Ends the writer task once it has answered what was asked before; later writes are `Unavailable`.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Records a generation and holds its money, if the caller may; durable when this returns.
    ///
    /// Errors: [`ReserveError::Overloaded`] at once where 2,048 wait already, or 1,536 of this project.
    pub async fn reserve(&self, reservation: Reservation) -> Result<Reserved, ReserveError> {
        let _timed = self.meters.books_call("reserve");
        let _permit = self.line.try_acquire(reservation.project_id).ok_or(ReserveError::Overloaded)?;
        let (caller, answer) = oneshot::channel();
        self.send(Command::Reserve(Box::new(reservation), caller)).map_err(ReserveError::Unavailable)?;
        answer.await.unwrap_or_else(|_| Err(ReserveError::Unavailable(closed())))
    }

    /// Records that a provider took a submit, whoever brings the news and whenever. The same submit again is fine.
    ///
    /// Errors: [`LedgerError::Invalid`] where this attempt is known under another id.
    pub async fn submitted(&self, submitted: impl Into<Arc<Submitted>>) -> Result<Recorded, LedgerError> {
        let _timed = self.meters.books_call("submit");
        let submitted = submitted.into();
        let (caller, answer) = oneshot::channel();
        let result = match self.send(Command::Submitted(submitted.clone(), caller)) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(LedgerError::Unavailable(closed()))),
            Err(reason) => Err(LedgerError::Unavailable(reason)),
        };
        if let Some(journal) = &self.journal {
            match &result {
                Err(LedgerError::Unavailable(_)) => Box::pin(journal.keep(Line::from(&*submitted))).await,
                _ => Box::pin(journal.forget_submit(submitted.generation, submitted.attempt)).await,
            }
        }
        result
    }

    /// Records that the provider has begun. Once more is fine.
    ///
    /// Errors: [`LedgerError::NotOpen`] where the generation has ended.
    pub async fn running(&self, id: GenerationId, at: Timestamp) -> Result<(), LedgerError> {
        let _timed = self.meters.books_call("start");
        let (caller, answer) = oneshot::channel();
        self.send(Command::Running(id, at, caller)).map_err(LedgerError::Unavailable)?;
        answer.await.unwrap_or_else(|_| Err(LedgerError::Unavailable(closed())))
    }

    /// Ends a generation: final state, end of the hold, ledger entries and the attempt's outcome in one transaction. Of
    /// two that race, one is [`Applied::Now`] and the other [`Applied::Already`].
    ///
    /// Errors: [`LedgerError::AboveHold`], [`LedgerError::NewerAttempt`]; the generation stays open.
    pub async fn finish(&self, finish: impl Into<Arc<Finish>>) -> Result<Applied, LedgerError> {
        let _timed = self.meters.books_call("finish");
        let finish = finish.into();
        let (caller, answer) = oneshot::channel();
        let result = match self.send(Command::Finish(finish.clone(), caller)) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(LedgerError::Unavailable(closed()))),
            Err(reason) => Err(LedgerError::Unavailable(reason)),
        };
        if let Some(journal) = &self.journal {
            match &result {
                Err(LedgerError::Unavailable(_)) => Box::pin(journal.keep(Line::from(&*finish))).await,
                _ => Box::pin(journal.forget_finish(finish.generation)).await,
            }
        }
        result
    }

    /// Books what was seen of a generation after it had ended without it: our cost, and what was delivered. Once; the end
    /// stays as it was, and free.
    ///
    /// Errors: [`LedgerError::StillOpen`].
    pub async fn book_late(&self, late: Arc<Late>) -> Result<Applied, LedgerError> {
        let _timed = self.meters.books_call("late");
        let (caller, answer) = oneshot::channel();
        self.send(Command::Late(late, caller)).map_err(LedgerError::Unavailable)?;
        answer.await.unwrap_or_else(|_| Err(LedgerError::Unavailable(closed())))
    }

    /// Generations that were given up since then, whose requests the provider took and nobody knows the outcome of.
    pub async fn given_up(&self, since: Timestamp, limit: u32) -> Result<Vec<GenerationRecord>, LedgerError> {
        Ok(self.store.given_up(since, limit).await?)
    }

    fn send(&self, command: Command) -> Result<(), String> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => "too many writes are waiting".to_owned(),
            mpsc::error::TrySendError::Closed(_) => closed(),
        })
    }

    /// Adds money to a project's balance, or takes it away, by a ledger transaction with reason and author.
    pub async fn credit(&self, credit: &Credit) -> Result<Applied, LedgerError> {
        credit::book_credit(&self.store, credit).await
    }

    /// Gives back what a generation was charged, whole or in part.
    pub async fn refund(&self, refund: &Refund) -> Result<Applied, LedgerError> {
        credit::book_refund(&self.store, refund).await
    }

    /// What a project has, holds, and was charged in the month of `now`; `None` for an unknown project.
    pub async fn balance(&self, project: ProjectId, now: Timestamp) -> Result<Option<Balance>, LedgerError> {
        Ok(self.store.balance(project, Month::of(now).start()).await?)
    }

    /// Records that replica `owner` is alive, by the database's clock. To be called before its first reservation and then
    /// well within the time after which others call [`Books::adopt`].
    pub async fn heartbeat(&self, owner: Uuid) -> Result<(), LedgerError> {
        Ok(self.store.heartbeat(owner).await?)
    }

    /// Forgets replica `owner`, which stops: others may adopt at once what it leaves open.
    pub async fn retire(&self, owner: Uuid, at: Timestamp) -> Result<(), LedgerError> {
        Ok(self.store.retire(owner, at).await?)
    }

    /// Records that the client who waited for a generation went away or got a 5xx: a resend of it may join.
    pub async fn client_left(&self, id: GenerationId, at: Timestamp) -> Result<(), LedgerError> {
        self.client(id, Some(at)).await
    }

    /// Records that the client who waited for a generation has its answer.
    pub async fn client_answered(&self, id: GenerationId) -> Result<(), LedgerError> {
        self.client(id, None).await
    }

    async fn client(&self, id: GenerationId, left_at: Option<Timestamp>) -> Result<(), LedgerError> {
        let _timed = self.meters.books_call("client");
        let (caller, answer) = oneshot::channel();
        self.send(Command::Client(id, left_at, caller)).map_err(LedgerError::Unavailable)?;
        answer.await.unwrap_or_else(|_| Err(LedgerError::Unavailable(closed())))
    }

    /// Looks for the request that a resend without a key repeats; one that is found is the resend's own from now on.
    pub async fn join_resent(&self, resend: &Resend) -> Result<Found, LedgerError> {
        resend::join(&self.store, resend).await
    }

    /// The time by the clock that all replicas share, and by how much it may be off; nothing where that is the machine's.
    pub async fn time(&self) -> Result<Option<(Timestamp, Duration)>, LedgerError> {
        Ok(self.store.time().await?)
    }

    /// Takes over at most `limit` open generations whose replica gave no sign of life for `stale_after`, by the database's
    /// clock. Two replicas that ask at once get different ones.
    pub async fn adopt(
        &self,
        owner: Uuid,
        stale_after: Duration,
        limit: u32,
    ) -> Result<Vec<GenerationRecord>, LedgerError> {
        Ok(self.store.adopt(owner, stale_after, limit).await?)
    }

    /// Makes replica `owner` the owner of these generations again, as far as they are open; how many it had lost.
    pub async fn reclaim(&self, owner: Uuid, ids: &[GenerationId]) -> Result<u64, LedgerError> {
        Ok(if ids.is_empty() { 0 } else { self.store.reclaim(owner, ids).await? })
    }

    /// The open generations of replica `owner`, oldest first: also those whose reservation it was never told of, because
    /// the database went away while it committed.
    pub async fn open_of(&self, owner: Uuid) -> Result<Vec<GenerationRecord>, LedgerError> {
        Ok(self.store.open_generations(owner).await?)
    }

    /// One generation.
    pub async fn generation(&self, id: GenerationId) -> Result<Option<GenerationRecord>, LedgerError> {
        // Apart, since whoever waits for a generation keeps room for this in memory, and hardly ever needs it.
        Ok(Box::pin(self.store.generation(id)).await?)
    }

    /// Who pays for a generation, also where its month was dropped.
    pub async fn payer(&self, id: GenerationId) -> Result<Option<ProjectId>, LedgerError> {
        Ok(self.store.payer(id).await?)
    }

    /// All submits of a generation, first to last.
    pub async fn attempts(&self, id: GenerationId) -> Result<Vec<AttemptRecord>, LedgerError> {
        Ok(self.store.attempts(id).await?)
    }

    /// The open holds, oldest first.
    pub async fn open_holds(&self, limit: u32) -> Result<Vec<OpenHold>, LedgerError> {
        Ok(self.store.open_holds(limit).await?)
    }

    /// How many holds are open, by their age.
    pub async fn hold_ages(&self, now: Timestamp) -> Result<HoldAges, LedgerError> {
        Ok(self.store.hold_ages(now).await?)
    }

    /// How the connections to the database are used.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolUse> {
        self.store.pools()
    }

    /// Whether the last write found the database.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Acquire)
    }

    /// The ledger entries about a generation, oldest first.
    pub async fn entries(&self, id: GenerationId) -> Result<Vec<LedgerEntry>, LedgerError> {
        Ok(self.store.entries_of_generation(id).await?)
    }

    /// A page of generations, newest first.
    pub async fn list_generations(&self, filter: &GenerationFilter) -> Result<Page<GenerationRecord>, LedgerError> {
        Ok(self.store.list_generations(filter).await?)
    }

    /// How many generations match, on all pages.
    pub async fn count_generations(&self, filter: &GenerationFilter) -> Result<u64, LedgerError> {
        Ok(self.store.count_generations(filter).await?)
    }

    /// The first moment of the calendar month (UTC) that `now` is in.
    #[must_use]
    pub fn month_of(now: Timestamp) -> Timestamp {
        Month::of(now).start()
    }

    /// Usage in buckets of settlement time.
    pub async fn usage(&self, query: &UsageQuery) -> Result<UsagePage, LedgerError> {
        Ok(self.store.usage(query).await?)
    }

    /// What the projects pay, in buckets of the ledger's time: settlements less refunds. In the rows, `price` and
    /// `images` count; the filter knows projects, keys and models.
    pub async fn costs(&self, query: &UsageQuery) -> Result<UsagePage, LedgerError> {
        Ok(self.store.costs(query).await?)
    }

    /// Settlements and refunds in the order of the ledger's time.
    pub async fn charges(&self, filter: &ChargeFilter) -> Result<Vec<ChargeRecord>, LedgerError> {
        Ok(self.store.charges(filter).await?)
    }

    /// A project's transactions, newest first.
    pub async fn transactions(&self, filter: &TransactionFilter) -> Result<Vec<TransactionRecord>, LedgerError> {
        Ok(self.store.transactions(filter).await?)
    }

    /// Model and time taken, in microseconds, of a project's latest successful generations.
    pub async fn durations(
        &self,
        project: ProjectId,
        from: Timestamp,
        limit: u32,
    ) -> Result<Vec<(String, i64)>, LedgerError> {
        Ok(self.store.durations(project, from, limit).await?)
    }

    /// Recomputes everything that is kept beside the ledger; empty when all adds up.
    pub async fn verify(&self) -> Result<Vec<Discrepancy>, LedgerError> {
        Ok(self.store.verify().await?)
    }

    /// What keeps the books from being written or read now; `None` if nothing does. Answers within about two seconds.
    pub async fn outage(&self) -> Option<Outage> {
        let known = self.store.outage();
        if self.down.load(Ordering::Acquire) {
            return known.or(Some(Outage::NoAnswer));
        }
        match known {
            None => self.store.ping().await.err().map(|error| error.outage().unwrap_or(Outage::NoAnswer)),
            known => known,
        }
    }

    /// How far behind the standby is that reports are read from; `None` where they are read from the primary.
    #[must_use]
    pub fn report_lag(&self) -> Option<Duration> {
        self.store.report_lag()
    }

    /// Whether the books can be written and read now.
    pub async fn healthy(&self) -> bool {
        self.outage().await.is_none()
    }

    /// Makes the coming months' partitions and removes what has expired. To be called at start and every few minutes.
    pub async fn maintain(&self, now: Timestamp) -> Result<Purged, LedgerError> {
        let months: Vec<_> = std::iter::successors(Some(Month::of(now)), |month| Some(month.next()))
            .take(MONTHS_AHEAD + 2)
            .map(|month| (month.name(), month.start()))
            .collect();
        if let Err(error) = self.store.make_months(&months).await {
            tracing::warn!(%error, "a month of generations has no partition of its own yet");
        }
        Ok(self.store.purge(now, PURGE_ROUND).await?)
    }
}

/// Everybody waits for the writer, and it waits for a dozen answers of the database in each transaction: on a thread of
/// its own none of them queues behind the requests' own work.
fn run(writer: Writer, tracker: &TaskTracker, runtime: &Handle) {
    let alone = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (give, take) = std::sync::mpsc::sync_channel::<Writer>(1);
    let token = tracker.token();
    let started = alone.and_then(|alone| {
        std::thread::Builder::new().name("books".to_owned()).spawn(move || {
            if let Ok(writer) = take.recv() {
                alone.block_on(writer.run());
            }
            drop(token);
        })
    });
    match started {
        Ok(_) => drop(give.send(writer)),
        Err(fault) => {
            tracing::warn!(%fault, "the books' writer has no thread of its own");
            tracker.spawn_on(writer.run(), runtime);
        }
    }
}

fn closed() -> String {
    "the books are closed".to_owned()
}
