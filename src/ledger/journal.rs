//! What must be written to the books while the database is away, kept on disk until it is: a process that must stop in
//! the meantime loses nothing.
//!
//! One file for each process, one JSON object on a line, appended and flushed. It is written when a write of the books
//! fails, not before, and removed once everything in it is in the books. A file that a dead process has left is played
//! back by the next start, through the same conditional writes. A line that cannot be read or is refused by the books keeps
//! its file, under another name: somebody was told that it would be written.

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
    file: Option<Lines>,
    pending: HashSet<(GenerationId, u32)>,
}

/// A file of whole lines.
#[derive(Debug)]
struct Lines {
    path: PathBuf,
    file: File,
    /// Bytes up to the end of the last whole line.
    length: u64,
    /// A part of a line may follow it that could not be cut off.
    torn: bool,
}

impl Lines {
    /// Adds a line; durable when this returns. On an error the file is as long as before, so that the next line does not
    /// become part of this one.
    fn append(&mut self, text: &str) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.length)?;
            self.torn = false;
        }
        let line = format!("{text}\n");
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.length += line.len() as u64,
            Err(_) => self.torn = self.file.set_len(self.length).is_err(),
        }
        written
    }
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
        let text = serde_json::to_string(line).map_err(io::Error::other)?;
        if let Some(lines) = &mut open.file {
            lines.append(&text)?;
        }
        open.pending.insert(line.key());
        self.kept.store(open.pending.len(), Ordering::Release);
        Ok(())
    }

    /// A new file, locked so that nobody plays it back while this process lives.
    fn create(&self, first: GenerationId) -> io::Result<Lines> {
        fs::create_dir_all(&self.folder)?;
        let mut tries = 0;
        loop {
            let path = self.folder.join(format!("{first}-{tries}.jsonl"));
            match OpenOptions::new().create_new(true).append(true).open(&path) {
                Ok(file) => {
                    file.try_lock()?;
                    // The name must survive a power cut as well.
                    File::open(&self.folder)?.sync_all()?;
                    return Ok(Lines { path, file, length: 0, torn: false });
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
            && let Some(lines) = open.file.take()
        {
            fs::remove_file(&lines.path)?;
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
    /// Whether it has lines that cannot be read.
    unreadable: bool,
    /// Holds the lock.
    _file: File,
}

/// What files are called that are kept for somebody to look at.
const KEPT: &str = "jsonl.kept";

impl Left {
    /// `None` where its process lives.
    fn read(path: &Path) -> io::Result<Option<Self>> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        if file.try_lock().is_err() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (mut lines, mut unreadable) = (Vec::new(), false);
        for text in bytes.split_inclusive(|byte| *byte == b'\n') {
            match serde_json::from_slice(text) {
                Ok(line) => lines.push(line),
                // A power cut in the middle of the last line: its write was never promised.
                Err(error) if !text.ends_with(b"\n") => {
                    tracing::warn!(%error, path = %path.display(), "the last line of the journal is incomplete");
                }
                Err(error) => {
                    tracing::error!(%error, path = %path.display(), "a line of the journal cannot be read");
                    unreadable = true;
                }
            }
        }
        Ok(Some(Self { path: path.to_path_buf(), lines, unreadable, _file: file }))
    }

    /// Removes the file: everything in it is in the books. Where that is not so, because a line cannot be read or the books
    /// have refused one, the file is kept under a name that is not read again.
    pub(super) fn close(self, refused: bool) -> io::Result<()> {
        if !refused && !self.unreadable {
            return fs::remove_file(&self.path);
        }
        let kept = (0..).map(|n| if n == 0 { KEPT.to_owned() } else { format!("{KEPT}.{n}") });
        let kept = kept.map(|extension| self.path.with_extension(extension)).find(|path| !path.exists());
        let kept = kept.unwrap_or_else(|| self.path.with_extension(KEPT));
        fs::rename(&self.path, &kept)?;
        tracing::error!(path = %kept.display(), "a file of the journal is kept, since not all of it is in the books");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{IdSource, SystemIds};

    fn submitted() -> Line {
        Line::from(&Submitted {
            generation: GenerationId::from_uuid(SystemIds.uuid()),
            attempt: 1,
            endpoint: "fal-ai/flux/dev".to_owned(),
            credential: "3c9d8f21".to_owned(),
            provider_request_id: "r".to_owned(),
            status_url: "s".to_owned(),
            response_url: "r".to_owned(),
            cancel_url: "c".to_owned(),
            submitted_at: Timestamp::from_seconds(5),
        })
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = entries.collect();
        names.sort();
        names
    }

    /// What a dead process has left: a file with these bytes in the middle of two whole lines.
    async fn left_with(folder: &Path, between: &[u8]) -> Left {
        let [first, last] = [submitted(), submitted()];
        let journal = Journal::in_folder(folder.to_path_buf());
        journal.keep(first).await;
        let path = folder.join(names(folder).remove(0));
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend(between);
        bytes.extend(serde_json::to_vec(&last).unwrap());
        bytes.push(b'\n');
        drop(journal);
        fs::write(&path, bytes).unwrap();
        Journal::in_folder(folder.to_path_buf()).left().unwrap().remove(0)
    }

    #[tokio::test]
    async fn a_file_with_a_line_that_cannot_be_read_keeps_it_under_another_name() {
        for odd in [&b"{\"kind\":\"fin\n"[..], b"\xff\xfe\n", b"{\"kind\":\"of a later version\"}\n"] {
            let folder = tempfile::tempdir().unwrap();
            let left = left_with(folder.path(), odd).await;
            assert_eq!(left.lines.len(), 2, "the others are read");
            let before = fs::read(&left.path).unwrap();
            left.close(false).unwrap();
            let kept = names(folder.path());
            assert!(kept.len() == 1 && kept[0].ends_with(".jsonl.kept"), "{kept:?}");
            assert_eq!(fs::read(folder.path().join(&kept[0])).unwrap(), before);
            assert!(Journal::in_folder(folder.path().to_path_buf()).left().unwrap().is_empty(), "it is not read again");
        }
    }

    #[tokio::test]
    async fn a_file_whose_lines_the_books_have_is_removed_and_one_with_a_refused_line_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        left_with(folder.path(), b"").await.close(false).unwrap();
        assert!(names(folder.path()).is_empty());
        for times in 1..=2 {
            left_with(folder.path(), b"").await.close(true).unwrap();
            assert_eq!(names(folder.path()).len(), times, "none takes another one's place");
            fs::rename(folder.path().join(&names(folder.path())[times - 1]), folder.path().join(format!("{times}")))
                .unwrap();
        }
    }

    #[tokio::test]
    async fn a_last_line_that_a_power_cut_has_cut_was_never_promised() {
        let folder = tempfile::tempdir().unwrap();
        let mut left = left_with(folder.path(), b"").await;
        let mut bytes = fs::read(&left.path).unwrap();
        bytes.extend(b"{\"kind\":");
        fs::write(&left.path, bytes).unwrap();
        drop(left);
        left = Journal::in_folder(folder.path().to_path_buf()).left().unwrap().remove(0);
        assert_eq!(left.lines.len(), 2);
        left.close(false).unwrap();
        assert!(names(folder.path()).is_empty());
    }
}
