//! What must be written to the books while the database is away, kept on disk until it is: a process that must stop in
//! the meantime loses nothing.
//!
//! One file for each process, one JSON object on a line, appended and flushed. It is written when a write of the books
//! fails, not before, and removed once everything in it is in the books. A file that a dead process has left is played
//! back by the next start, through the same conditional writes.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::{Fixed, GenerationId, Money, Timestamp};
use crate::store::{Finish, Submitted};
use serde::{Deserialize, Serialize};

/// One thing that the books must still learn.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Line {
    /// A submit that the provider took.
    Submitted(SubmittedLine),
    /// The end of a generation.
    Finish(Box<FinishLine>),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SubmittedLine {
    generation: GenerationId,
    attempt: u32,
    endpoint: String,
    credential: String,
    provider_request_id: String,
    status_url: String,
    response_url: String,
    cancel_url: String,
    submitted_at: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct FinishLine {
    generation: GenerationId,
    #[serde(default)]
    attempt: u32,
    #[serde(default)]
    model: Option<String>,
    state: String,
    settled_at: i64,
    price: Money,
    cost: Money,
    cost_source: String,
    billable_units: Option<Fixed>,
    unit_price: Option<Fixed>,
    images: u32,
    megapixels: Fixed,
    answer: Option<String>,
    error: Option<String>,
    reason: String,
    release_idempotency_key: bool,
}

impl From<&Submitted> for Line {
    fn from(s: &Submitted) -> Self {
        Self::Submitted(SubmittedLine {
            generation: s.generation,
            attempt: s.attempt,
            endpoint: s.endpoint.clone(),
            credential: s.credential.clone(),
            provider_request_id: s.provider_request_id.clone(),
            status_url: s.status_url.clone(),
            response_url: s.response_url.clone(),
            cancel_url: s.cancel_url.clone(),
            submitted_at: s.submitted_at.micros(),
        })
    }
}

impl From<SubmittedLine> for Submitted {
    fn from(s: SubmittedLine) -> Self {
        Self {
            generation: s.generation,
            attempt: s.attempt,
            endpoint: s.endpoint,
            credential: s.credential,
            provider_request_id: s.provider_request_id,
            status_url: s.status_url,
            response_url: s.response_url,
            cancel_url: s.cancel_url,
            submitted_at: Timestamp::from_micros(s.submitted_at),
        }
    }
}

impl From<&Finish> for Line {
    fn from(f: &Finish) -> Self {
        Self::Finish(Box::new(FinishLine {
            generation: f.generation,
            attempt: f.attempt,
            model: f.model.clone(),
            state: f.state.as_str().to_owned(),
            settled_at: f.settled_at.micros(),
            price: f.price,
            cost: f.cost,
            cost_source: f.cost_source.as_str().to_owned(),
            billable_units: f.billable_units,
            unit_price: f.unit_price,
            images: f.images,
            megapixels: f.megapixels,
            answer: f.answer.clone(),
            error: f.error.clone(),
            reason: f.reason.clone(),
            release_idempotency_key: f.release_idempotency_key,
        }))
    }
}

impl TryFrom<FinishLine> for Finish {
    type Error = crate::store::UnknownWord;

    fn try_from(f: FinishLine) -> Result<Self, Self::Error> {
        Ok(Self {
            generation: f.generation,
            attempt: f.attempt,
            model: f.model,
            state: f.state.parse()?,
            settled_at: Timestamp::from_micros(f.settled_at),
            price: f.price,
            cost: f.cost,
            cost_source: f.cost_source.parse()?,
            billable_units: f.billable_units,
            unit_price: f.unit_price,
            images: f.images,
            megapixels: f.megapixels,
            answer: f.answer,
            error: f.error,
            reason: f.reason,
            release_idempotency_key: f.release_idempotency_key,
        })
    }
}

impl Line {
    /// Which write it is: of two lines with the same key one is enough.
    fn key(&self) -> (GenerationId, u32) {
        match self {
            Self::Submitted(line) => (line.generation, line.attempt),
            Self::Finish(line) => (line.generation, FINISH),
        }
    }
}

/// Stands for a finish among the numbers of attempts.
const FINISH: u32 = 0;

/// This process's file. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    folder: PathBuf,
    kept: Arc<AtomicUsize>,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    file: Option<(PathBuf, File)>,
    pending: HashSet<(GenerationId, u32)>,
}

impl Journal {
    /// In a folder that is made when the first line is written.
    pub(super) fn in_folder(folder: PathBuf) -> Self {
        Self { folder, kept: Arc::default(), open: Arc::default() }
    }

    /// How many lines are on disk and not yet in the books.
    pub(super) fn kept(&self) -> usize {
        self.kept.load(Ordering::Acquire)
    }

    /// Keeps a line on disk until [`Self::forget`]; durable when this returns.
    pub(super) async fn keep(&self, line: Line) {
        let (journal, key) = (self.clone(), line.key());
        let kept = tokio::task::spawn_blocking(move || journal.append(&line)).await;
        match kept {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(generation = %key.0, %error, folder = %self.folder.display(), "what the books must learn is in memory only: the journal cannot be written");
            }
            Err(error) => tracing::error!(%error, "the journal broke off"),
        }
    }

    /// A submit is in the books, or never can be.
    pub(super) async fn forget_submit(&self, generation: GenerationId, attempt: u32) {
        self.forget((generation, attempt)).await;
    }

    /// The end of a generation is in the books, or never can be.
    pub(super) async fn forget_finish(&self, generation: GenerationId) {
        self.forget((generation, FINISH)).await;
    }

    async fn forget(&self, key: (GenerationId, u32)) {
        if self.kept() == 0 {
            return;
        }
        let journal = self.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || journal.remove(key)).await {
            tracing::warn!(%error, "an old journal could not be removed; it does no harm");
        }
    }

    fn append(&self, line: &Line) -> io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.pending.contains(&line.key()) {
            return Ok(());
        }
        if open.file.is_none() {
            open.file = Some(self.create(line.key().0)?);
        }
        let mut text = serde_json::to_string(line).map_err(io::Error::other)?;
        text.push('\n');
        if let Some((_, file)) = &mut open.file {
            file.write_all(text.as_bytes())?;
            file.sync_data()?;
        }
        open.pending.insert(line.key());
        self.kept.store(open.pending.len(), Ordering::Release);
        Ok(())
    }

    /// A new file, locked so that nobody plays it back while this process lives.
    fn create(&self, first: GenerationId) -> io::Result<(PathBuf, File)> {
        fs::create_dir_all(&self.folder)?;
        let mut tries = 0;
        loop {
            let path = self.folder.join(format!("{first}-{tries}.jsonl"));
            match OpenOptions::new().create_new(true).append(true).open(&path) {
                Ok(file) => {
                    file.try_lock()?;
                    // The name must survive a power cut as well.
                    File::open(&self.folder)?.sync_all()?;
                    return Ok((path, file));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < 1000 => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn remove(&self, key: (GenerationId, u32)) -> io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.pending.remove(&key);
        self.kept.store(open.pending.len(), Ordering::Release);
        if open.pending.is_empty()
            && let Some((path, file)) = open.file.take()
        {
            fs::remove_file(path)?;
            drop(file);
        }
        Ok(())
    }

    /// The files that dead processes have left, locked, with their lines.
    pub(super) fn left(&self) -> io::Result<Vec<Left>> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                found.extend(Left::read(&path)?);
            }
        }
        found.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(found)
    }
}

/// A file that a dead process has left.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) path: PathBuf,
    pub(super) lines: Vec<Line>,
    /// Holds the lock.
    _file: File,
}

impl Left {
    /// `None` where its process lives.
    fn read(path: &Path) -> io::Result<Option<Self>> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        if file.try_lock().is_err() {
            return Ok(None);
        }
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let mut lines = Vec::new();
        for line in text.lines() {
            match serde_json::from_str(line) {
                Ok(line) => lines.push(line),
                // A power cut in the middle of the last line: its write was never promised.
                Err(error) => tracing::error!(%error, path = %path.display(), "a line of the journal cannot be read"),
            }
        }
        Ok(Some(Self { path: path.to_path_buf(), lines, _file: file }))
    }

    /// Everything in it is in the books.
    pub(super) fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}
