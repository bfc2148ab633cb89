//! Waiting for providers: one task and one timer for all, a small record for each generation that waits.
//!
//! Polling is adaptive: the first look at once, then after a twentieth of the time already waited, later towards a tenth, so
//! that a short job is noticed within milliseconds and a long one costs few reads.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::generation::{Cancellation, Job, Progress};
use crate::domain::{Clock, GenerationId, Timestamp};
use crate::providers::{CancelAnswer, Delivery, Failure, FailureKind, Look, LookError, Provider, Ticket};

/// Shortest and longest time between two looks.
const LOOK_INTERVAL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(2));
/// First and longest wait after a look that failed.
const FAULT_BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How many looks in a row must find the same fault before it is taken for final.
const FINAL_AFTER: u32 = 5;
/// How many looks may be under way at once.
const LOOKS_AT_ONCE: usize = 512;
/// Shortest and longest time that a generation is followed past its deadline.
const GRACE: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(1));

/// What became of a submitted generation.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It was delivered.
    Delivered(Box<Delivery>),
    /// It failed.
    Failed(Failure),
    /// It was cancelled, as we wished.
    Cancelled(Failure),
    /// It never came to an end that we could see.
    Expired(Failure),
    /// This process no longer follows it, and knows nothing of its end: it stays open for recovery.
    LeftOpen,
}

/// The way to the one task that waits.
#[derive(Debug, Clone)]
pub(super) struct Waiter {
    commands: mpsc::UnboundedSender<Command>,
    clock: Arc<dyn Clock>,
}

enum Command {
    /// To be looked at after this time.
    Follow(Box<Followed>, Duration),
    Poke(GenerationId),
}

impl Waiter {
    pub fn start(tracker: &TaskTracker, runtime: &Handle, clock: Arc<dyn Clock>) -> Self {
        let (commands, inbox) = mpsc::unbounded_channel();
        let room = WaitingRoom {
            clock: clock.clone(),
            runtime: runtime.clone(),
            followed: HashMap::new(),
            due: BinaryHeap::new(),
            asked: JoinSet::new(),
        };
        tracker.spawn_on(room.run(inbox), runtime);
        Self { commands, clock }
    }

    /// Waits until the generation has come to an end.
    pub async fn follow(&self, job: Arc<Job>, provider: Arc<dyn Provider>, ticket: Ticket) -> Outcome {
        let (done, outcome) = oneshot::channel();
        self.hand_over(Followed::new(job, provider, ticket, done), Duration::ZERO, outcome).await
    }

    /// Like [`Self::follow`], with the first look on the caller's own task: what is done at once needs no waiting room.
    pub async fn look_and_follow(&self, job: Arc<Job>, provider: Arc<dyn Provider>, ticket: Ticket) -> Outcome {
        let (done, outcome) = oneshot::channel();
        let mut followed = Followed::new(job, provider, ticket, done);
        let now = self.clock.now();
        let wait = if followed.wants_cancel(now) {
            Duration::ZERO
        } else {
            let look = look(followed.provider.as_ref(), &followed.ticket, followed.patience(now)).await;
            match followed.after_look(look, self.clock.now()) {
                Next::End(outcome) => return outcome,
                Next::Again(wait) => wait,
            }
        };
        self.hand_over(followed, wait, outcome).await
    }

    async fn hand_over(&self, followed: Followed, wait: Duration, outcome: oneshot::Receiver<Outcome>) -> Outcome {
        if self.commands.send(Command::Follow(Box::new(followed), wait)).is_err() {
            return Outcome::LeftOpen;
        }
        outcome.await.unwrap_or(Outcome::LeftOpen)
    }

    /// Has the generation looked at now, since its wishes changed.
    pub fn poke(&self, id: GenerationId) {
        let _ = self.commands.send(Command::Poke(id));
    }
}

/// Looks once, within a time if there is one; a panic is an answer that is not understood.
async fn look(provider: &dyn Provider, ticket: &Ticket, within: Option<Duration>) -> Result<Look, LookError> {
    let broken = |_| Err(LookError::NotUnderstood("the look broke off".to_owned()));
    let looked = AssertUnwindSafe(provider.look(ticket)).catch_unwind();
    let answer = match within {
        Some(within) => tokio::time::timeout(within, looked).await,
        None => Ok(looked.await),
    };
    match answer {
        Ok(look) => look.unwrap_or_else(broken),
        Err(_) => Err(LookError::Transient("no answer by the deadline".to_owned())),
    }
}

/// One generation that waits.
struct Followed {
    job: Arc<Job>,
    provider: Arc<dyn Provider>,
    ticket: Arc<Ticket>,
    since: Instant,
    faults: Faults,
    cancel: CancelState,
    asking: bool,
    /// When it is to be looked at next; an entry of the heap with another time is stale.
    next: Option<Instant>,
    done: oneshot::Sender<Outcome>,
}

/// Faults of the same kind in a row.
#[derive(Default)]
struct Faults {
    total: u32,
    unknown: u32,
    result: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CancelState {
    NotAsked,
    Accepted,
    /// Too late, or the provider will not: what it delivers is kept.
    Refused,
}

/// What was asked, and what came back.
enum Answer {
    Look(Result<Look, LookError>),
    Cancel(Result<CancelAnswer, LookError>),
}

/// What the waiting room does next with a generation.
enum Next {
    Again(Duration),
    End(Outcome),
}

struct WaitingRoom {
    clock: Arc<dyn Clock>,
    runtime: Handle,
    followed: HashMap<GenerationId, Followed>,
    due: BinaryHeap<Reverse<(Instant, GenerationId)>>,
    asked: JoinSet<(GenerationId, Answer)>,
}

impl WaitingRoom {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        loop {
            let next_due = self.due.peek().map(|Reverse((at, _))| *at).filter(|_| self.asked.len() < LOOKS_AT_ONCE);
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(Command::Follow(followed, wait)) => {
                        let id = followed.job.id;
                        self.followed.insert(id, *followed);
                        if wait.is_zero() { self.ask(id) } else { self.ask_after(id, wait) }
                    }
                    Some(Command::Poke(id)) => self.ask(id),
                    None => return,
                },
                Some(answered) = self.asked.join_next() => match answered {
                    Ok((id, answer)) => self.take_answer(id, answer),
                    Err(fault) => error!(%fault, "a look at a provider broke off"),
                },
                () = sleep_until(next_due) => self.ask_due(),
            }
        }
    }

    fn ask_due(&mut self) {
        let now = Instant::now();
        while self.asked.len() < LOOKS_AT_ONCE {
            match self.due.peek() {
                Some(Reverse((at, _))) if *at <= now => {}
                _ => return,
            }
            let Some(Reverse((at, id))) = self.due.pop() else { return };
            if self.followed.get(&id).is_some_and(|followed| followed.next == Some(at)) {
                self.ask(id);
            }
        }
    }

    /// Starts one question about a generation, unless one is under way.
    fn ask(&mut self, id: GenerationId) {
        let Some(followed) = self.followed.get_mut(&id) else { return };
        if std::mem::replace(&mut followed.asking, true) {
            return;
        }
        followed.next = None;
        let (provider, ticket) = (followed.provider.clone(), followed.ticket.clone());
        let now = self.clock.now();
        let (cancels, patience) = (followed.wants_cancel(now), followed.patience(now));
        let question = async move {
            if !cancels {
                return (id, Answer::Look(look(provider.as_ref(), &ticket, patience).await));
            }
            let broken = |_| Err(LookError::NotUnderstood("the cancellation broke off".to_owned()));
            let answer = AssertUnwindSafe(provider.cancel(&ticket)).catch_unwind().await;
            (id, Answer::Cancel(answer.unwrap_or_else(broken)))
        };
        self.asked.spawn_on(question, &self.runtime);
    }

    fn ask_after(&mut self, id: GenerationId, wait: Duration) {
        let Some(followed) = self.followed.get_mut(&id) else { return };
        let at = Instant::now() + wait;
        followed.next = Some(at);
        self.due.push(Reverse((at, id)));
    }

    fn take_answer(&mut self, id: GenerationId, answer: Answer) {
        let now = self.clock.now();
        let Some(followed) = self.followed.get_mut(&id) else { return };
        followed.asking = false;
        let next = match answer {
            Answer::Look(look) => followed.after_look(look, now),
            Answer::Cancel(answer) => followed.after_cancel(answer),
        };
        match next {
            Next::Again(wait) => self.ask_after(id, wait),
            Next::End(outcome) => {
                if let Some(followed) = self.followed.remove(&id) {
                    let _ = followed.done.send(outcome);
                }
            }
        }
    }
}

impl Followed {
    fn new(job: Arc<Job>, provider: Arc<dyn Provider>, ticket: Ticket, done: oneshot::Sender<Outcome>) -> Self {
        Self {
            job,
            provider,
            ticket: Arc::new(ticket),
            since: Instant::now(),
            faults: Faults::default(),
            cancel: CancelState::NotAsked,
            asking: false,
            next: None,
            done,
        }
    }

    /// Whether the provider is to be asked now to give it up.
    fn wants_cancel(&self, now: Timestamp) -> bool {
        self.cancel == CancelState::NotAsked
            && match self.job.cancellation() {
                _ if now >= self.job.deadline_at => true,
                Cancellation::Never => false,
                Cancellation::WhileQueued => self.job.is_queued(),
                Cancellation::Always => true,
            }
    }

    /// How long a look may take, so that whoever waits is told of the deadline when it comes; past it there is no hurry.
    fn patience(&self, now: Timestamp) -> Option<Duration> {
        (now < self.job.deadline_at).then(|| self.until_deadline(now))
    }

    /// What is left until the deadline, at least the shortest time between two looks.
    fn until_deadline(&self, now: Timestamp) -> Duration {
        self.job.deadline_at.since(now).max(LOOK_INTERVAL.0)
    }

    fn after_look(&mut self, look: Result<Look, LookError>, now: Timestamp) -> Next {
        let faults = std::mem::take(&mut self.faults);
        match look {
            Ok(Look::Queued(position)) => self.still_open(Progress::Queued(position), now),
            Ok(Look::Running) => self.still_open(Progress::Running, now),
            Ok(Look::Done(delivery)) => Next::End(Outcome::Delivered(delivery)),
            Ok(Look::Failed(failure)) => Next::End(self.failed(*failure)),
            Err(fault) => self.after_fault(&faults, fault, now),
        }
    }

    fn still_open(&mut self, progress: Progress, now: Timestamp) -> Next {
        self.job.tell(progress);
        if let Some(end) = self.past_deadline(now) {
            return end;
        }
        let waited = self.since.elapsed();
        // The two lines cross at two seconds, where a look is due every tenth of a second.
        let wait = (waited / 20).max((waited / 10).saturating_sub(Duration::from_millis(100)));
        let wait = wait.clamp(LOOK_INTERVAL.0, LOOK_INTERVAL.1);
        self.again(wait, now)
    }

    /// After this time, but when the deadline comes at the latest, and at once where it is to be given up.
    fn again(&self, wait: Duration, now: Timestamp) -> Next {
        Next::Again(match self.wants_cancel(now) {
            true => Duration::ZERO,
            false if now < self.job.deadline_at => wait.min(self.until_deadline(now)),
            false => wait,
        })
    }

    /// Tells the watchers once the deadline has passed, and ends the following when the grace after it has too.
    fn past_deadline(&self, now: Timestamp) -> Option<Next> {
        if now < self.job.deadline_at {
            return None;
        }
        self.job.tell(Progress::Overdue);
        let grace = self.job.deadline_at.since(self.job.created_at).clamp(GRACE.0, GRACE.1);
        (now >= self.job.deadline_at.plus(grace)).then(|| {
            error!(generation = %self.job.id, provider_request_id = self.ticket.request_id, "given up: the provider has told of no end long after the deadline");
            Next::End(Outcome::Expired(Failure::new(FailureKind::Unclear, "the provider told of no end")))
        })
    }

    fn failed(&self, failure: Failure) -> Outcome {
        match failure.kind {
            FailureKind::Cancelled | FailureKind::Lost if self.cancel == CancelState::Accepted => {
                self.given_up(failure)
            }
            // Asked for at another replica, or by its owner at the provider itself.
            FailureKind::Cancelled => Outcome::Cancelled(failure),
            _ => Outcome::Failed(failure),
        }
    }

    /// The provider has given it up, as we asked: because its deadline passed, or because somebody wished it.
    fn given_up(&self, failure: Failure) -> Outcome {
        if self.job.cancellation() > Cancellation::Never {
            return Outcome::Cancelled(failure);
        }
        let message = "it was not finished by its deadline, and the provider has given it up";
        Outcome::Expired(Failure { kind: FailureKind::TimedOut, message: message.to_owned(), ..failure })
    }

    fn after_fault(&mut self, before: &Faults, fault: LookError, now: Timestamp) -> Next {
        let (generation, total) = (self.job.id, before.total + 1);
        self.faults.total = total;
        match fault {
            LookError::Transient(reason) => {
                if total == 1 || total % 10 == 0 {
                    warn!(%generation, reason, total, "the provider could not be asked; asking again");
                }
            }
            LookError::Unknown => {
                self.faults.unknown = before.unknown + 1;
                if self.cancel == CancelState::Accepted || self.faults.unknown >= FINAL_AFTER {
                    let failure = Failure::new(FailureKind::Lost, "the provider does not know the request any more");
                    return Next::End(self.failed(failure));
                }
            }
            LookError::ResultFault(reason, failure) => {
                self.faults.result = before.result + 1;
                warn!(%generation, reason, "the result cannot be read yet");
                if self.faults.result >= FINAL_AFTER {
                    return Next::End(self.failed(*failure));
                }
            }
            LookError::NotUnderstood(reason) => {
                // What we do not understand costs nobody anything; the hold stays open and somebody must look.
                error!(%generation, provider_request_id = self.ticket.request_id, reason, "the provider's answer is not understood");
            }
        }
        if let Some(end) = self.past_deadline(now) {
            return end;
        }
        self.again(backoff(total, generation), now)
    }

    fn after_cancel(&mut self, answer: Result<CancelAnswer, LookError>) -> Next {
        let generation = self.job.id;
        match answer {
            Ok(CancelAnswer::Accepted) => {
                info!(%generation, "the provider was asked to give the generation up and agrees");
                self.cancel = CancelState::Accepted;
            }
            Ok(CancelAnswer::AlreadyFinished | CancelAnswer::Unknown) => self.cancel = CancelState::Refused,
            Err(fault) => {
                warn!(%generation, %fault, "the provider could not be asked to give the generation up");
                self.faults.total += 1;
                if self.faults.total >= FINAL_AFTER {
                    self.cancel = CancelState::Refused;
                }
                return Next::Again(backoff(self.faults.total, generation));
            }
        }
        Next::Again(Duration::ZERO)
    }
}

/// Doubles with each fault, 75 to 125 % of it for each generation, so that many that failed together do not return together.
fn backoff(faults: u32, generation: GenerationId) -> Duration {
    let wait = FAULT_BACKOFF.0.saturating_mul(1 << faults.saturating_sub(1).min(10)).min(FAULT_BACKOFF.1);
    let noise = u32::from(generation.uuid().as_bytes()[15]);
    wait * (75 + noise * 50 / 255) / 100
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
