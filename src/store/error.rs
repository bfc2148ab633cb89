//! What can go wrong with a database, sorted by what a caller can do about it.

use std::fmt;

use sqlx::migrate::MigrateError;

/// What keeps a database from being used, until it is mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// Nobody answers, or not in time.
    NoAnswer,
    /// Others have all the connections that the server gives.
    NoConnectionLeft,
    /// The server refuses the user, the password or the name of the database.
    NotAdmitted,
    /// Nothing more can be written.
    DiskFull,
    /// The disk fails.
    DiskError,
    /// It can be read only: a standby, a volume that is mounted so, a folder without the right to write.
    ReadOnly,
    /// The SQLite file that was opened is no longer at its place.
    FileGone,
}

impl Outage {
    /// A sentence that may be shown to everybody.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoAnswer => "the database cannot be reached",
            Self::NoConnectionLeft => "the database has no connection left",
            Self::NotAdmitted => "the database refuses the connection",
            Self::DiskFull => "the database's disk is full",
            Self::DiskError => "the database's disk reports errors",
            Self::ReadOnly => "the database cannot be written",
            Self::FileGone => "the database file is gone",
        }
    }

    /// What to do about it.
    const fn remedy(self) -> &'static str {
        match self {
            Self::NoAnswer | Self::NotAdmitted => "",
            Self::NoConnectionLeft => "; raise `max_connections`, or stop what holds them",
            Self::DiskFull => "; free space on its volume",
            Self::DiskError => "; check the disk, its quota and its limits",
            Self::ReadOnly => "; check the rights of the file and its folder, and how the volume is mounted",
            Self::FileGone => "; put it back, or restart the gateway",
        }
    }
}

/// An outage, with what the database or the driver said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreachable {
    /// What kind it is.
    pub outage: Outage,
    detail: String,
}

impl Unreachable {
    pub(super) fn new(outage: Outage, detail: impl Into<String>) -> Self {
        Self { outage, detail: detail.into() }
    }
}

impl From<String> for Unreachable {
    fn from(detail: String) -> Self {
        Self::new(Outage::NoAnswer, detail)
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}{}", self.outage.as_str(), self.detail, self.outage.remedy())
    }
}

/// A failure of the store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The address names no database that imagegate knows.
    #[error(
        "`{address}` is no database address: {reason}; use `sqlite://data/imagegate.db` or `postgres://user@host/name`"
    )]
    Address {
        /// The address, without its password.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The database does not answer, or not in time, or cannot write: try later.
    #[error("{0}")]
    Unreachable(Unreachable),
    /// Two transactions stood in each other's way: try again at once.
    #[error("the database asks to try again: {0}")]
    Conflict(String),
    /// What was to be written breaks a rule of the tables.
    #[error("the database refuses this row: {0}")]
    Refused(String),
    /// The database holds something that cannot be.
    #[error("the database is inconsistent: {0}")]
    Inconsistent(String),
    /// The tables are not those of this version.
    #[error("the database cannot be migrated: {0}")]
    Migration(String),
    /// Anything else that the database reports.
    #[error("the database reports: {0}")]
    Other(String),
}

impl StoreError {
    /// What keeps the database from being used, if that is why it failed.
    #[must_use]
    pub fn outage(&self) -> Option<Outage> {
        match self {
            Self::Unreachable(unreachable) => Some(unreachable.outage),
            _ => None,
        }
    }

    /// Gives up on the database.
    pub(crate) fn no_answer(detail: impl Into<String>) -> Self {
        Self::Unreachable(Unreachable::new(Outage::NoAnswer, detail))
    }

    /// A write touched another number of rows than it must.
    pub(crate) fn touched(what: &str, found: u64, expected: usize) -> Self {
        Self::Inconsistent(format!("`{what}` touched {found} rows instead of {expected}"))
    }
}

/// Checks how many rows a write touched.
pub(super) fn must_touch(what: &str, found: u64, expected: usize) -> Result<(), StoreError> {
    if u64::try_from(expected) == Ok(found) { Ok(()) } else { Err(StoreError::touched(what, found, expected)) }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default();
                let message = format!("{} (code {code})", database.message());
                if database.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some() {
                    from_postgres(&code, message)
                } else {
                    from_sqlite(&code, message)
                }
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::no_answer(error.to_string()),
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::RowNotFound => Self::Inconsistent(error.to_string()),
            _ => Self::Other(error.to_string()),
        }
    }
}

/// Classes as in appendix A of PostgreSQL's manual.
fn from_postgres(code: &str, message: String) -> StoreError {
    match code {
        // A division by zero is how the statement of a batch undoes itself (`writing::Statement::check`).
        "40001" | "40P01" | "22012" => StoreError::Conflict(message),
        "25006" => unreachable(Outage::ReadOnly, message),
        "53100" => unreachable(Outage::DiskFull, message),
        "53300" => unreachable(Outage::NoConnectionLeft, message),
        "57014" | "55P03" | "25P03" => StoreError::no_answer(message),
        _ => match code.get(..2) {
            Some("22" | "23") => StoreError::Refused(message),
            Some("28" | "3D") => unreachable(Outage::NotAdmitted, message),
            Some("58") => unreachable(Outage::DiskError, message),
            Some("08" | "53" | "57") => StoreError::no_answer(message),
            _ => StoreError::Other(message),
        },
    }
}

fn unreachable(outage: Outage, message: String) -> StoreError {
    StoreError::Unreachable(Unreachable::new(outage, message))
}

/// Result codes as in sqlite.org/rescode.html: the low byte of the extended code is the primary one.
fn from_sqlite(code: &str, message: String) -> StoreError {
    const BUSY: u32 = 5;
    const LOCKED: u32 = 6;
    const NOMEM: u32 = 7;
    const READONLY: u32 = 8;
    const INTERRUPT: u32 = 9;
    const IOERR: u32 = 10;
    const FULL: u32 = 13;
    const CANTOPEN: u32 = 14;
    const TOOBIG: u32 = 18;
    const CONSTRAINT: u32 = 19;
    const MISMATCH: u32 = 20;
    match code.parse::<u32>().map(|code| code & 0xff) {
        Ok(CONSTRAINT | MISMATCH | TOOBIG) => StoreError::Refused(message),
        Ok(BUSY | LOCKED | INTERRUPT | NOMEM) => StoreError::no_answer(message),
        Ok(FULL) => unreachable(Outage::DiskFull, message),
        Ok(IOERR) => unreachable(Outage::DiskError, message),
        Ok(READONLY | CANTOPEN) => unreachable(Outage::ReadOnly, message),
        _ => StoreError::Other(message),
    }
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) => match Self::from(error) {
                Self::Unreachable(message) => Self::Unreachable(message),
                other => Self::Migration(other.to_string()),
            },
            other => Self::Migration(other.to_string()),
        }
    }
}

impl From<super::UnknownWord> for StoreError {
    fn from(error: super::UnknownWord) -> Self {
        Self::Inconsistent(error.to_string())
    }
}
