//! What the commands share: how they fail, how they print.

pub mod aliases;
pub mod audit;
pub mod costs;
pub mod credits;
pub mod erase;
pub mod generate;
pub mod generations;
pub mod keys;
pub mod ledger;
pub mod limits;
pub mod models;
pub mod projects;
pub mod reconcile;
pub mod retention;
pub mod serve;
pub mod usage;

use std::future::Future;
use std::io::Write;
use std::time::Duration;

use imagegate::accounts::{Accounts, Author, ProjectRecord};
use imagegate::config::{Config, parse_duration};
use imagegate::domain::{ProjectId, Timestamp};
use imagegate::startup;
use imagegate::store::Store;
use serde_json::Value;

/// Why a command failed; printed as one sentence.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs a command that waits for something.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

/// Prints to standard output; a reader that has gone away is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(fault) if fault.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// How a command answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// A table or a sentence, for people.
    Text,
    /// One JSON value, for programs.
    Json,
}

impl Output {
    /// A table for people, or `value` for programs; `nothing` is what people read instead of an empty table.
    pub fn table(
        self,
        value: &Value,
        head: &[&str],
        rows: &[Vec<String>],
        right: &[usize],
        nothing: &str,
    ) -> Result<(), Failure> {
        match self {
            Self::Json => print(&format!("{value:#}\n")),
            Self::Text if rows.is_empty() => print(&format!("{nothing}\n")),
            Self::Text => print_table(head, rows, right),
        }
    }

    /// A sentence for people, or `value` for programs.
    pub fn say(self, value: &Value, sentence: &str) -> Result<(), Failure> {
        match self {
            Self::Json => print(&format!("{value:#}\n")),
            Self::Text => print(&format!("{sentence}\n")),
        }
    }
}

/// The accounts of the configured database, with this command as author of what it changes; and the database.
pub async fn open_accounts(config: &Config) -> Result<(Accounts, Store), Failure> {
    let store = startup::open_store(config).await?;
    let (_, ids) = startup::clock_and_ids();
    let clock = startup::shared_clock(&store).await?;
    let accounts = Accounts::load(store.clone(), clock, ids).await?.with_default_rates(startup::default_rates(config));
    Ok((accounts.by(Author::Command), store))
}

/// A project by its id or by its name, if only one has it.
pub async fn find_project(accounts: &Accounts, text: &str) -> Result<ProjectRecord, Failure> {
    if let Ok(id) = text.parse::<ProjectId>() {
        return Ok(accounts.project(id).await?.ok_or_else(|| format!("there is no project `{text}`"))?);
    }
    let mut named = accounts.list_projects().await?;
    named.retain(|project| project.name == text);
    match (named.pop(), named.is_empty()) {
        (Some(project), true) => Ok(project),
        (Some(_), false) => Err(format!("several projects are called `{text}`: name one by its id").into()),
        (None, _) => Err(format!("there is no project `{text}`: `imagegate projects list` shows them").into()),
    }
}

/// From when to when: days or moments in UTC; without them the last thirty days, today included.
pub fn period(from: Option<&str>, to: Option<&str>, now: Timestamp) -> Result<(Timestamp, Timestamp), Failure> {
    const DAY: i64 = 86_400;
    let today = now.seconds() - now.seconds().rem_euclid(DAY);
    let from = from.map_or(Ok(Timestamp::from_seconds(today - 29 * DAY)), moment)?;
    let to = to.map_or(Ok(Timestamp::from_seconds(today + DAY)), moment)?;
    if to <= from {
        return Err("`--to` must be later than `--from`".into());
    }
    Ok((from, to))
}

fn moment(text: &str) -> Result<Timestamp, Failure> {
    let whole = if text.contains('T') { text.to_owned() } else { format!("{text}T00:00:00Z") };
    let read = chrono::DateTime::parse_from_rfc3339(&whole).map(|moment| moment.timestamp_micros());
    match read {
        Ok(micros) if micros >= 0 => Ok(Timestamp::from_micros(micros)),
        _ => Err(format!("`{text}` is no day or moment such as 2026-11-01 or 2026-11-01T12:00:00Z").into()),
    }
}

/// A time that passes, such as `90d`, `12h` or `30s`.
pub fn duration(text: &str) -> Result<Duration, Failure> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok());
    let read = days.and_then(|days| days.checked_mul(86_400)).map(Duration::from_secs).or_else(|| parse_duration(text));
    read.ok_or_else(|| format!("`{text}` is no time such as `90d`, `12h`, `30m` or `10s`").into())
}

/// Prints a table with aligned columns; the columns named in `right` are numbers.
pub fn print_table(head: &[&str], rows: &[Vec<String>], right: &[usize]) -> Result<(), Failure> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(
                |(column, (cell, width))| {
                    if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
                },
            )
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    print(&text)
}
