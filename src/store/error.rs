//! What can go wrong with a database, sorted by what a caller can do about it.

use sqlx::migrate::MigrateError;

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
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
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
            | sqlx::Error::WorkerCrashed => Self::Unreachable(error.to_string()),
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
        "40001" | "40P01" => StoreError::Conflict(message),
        "57014" | "55P03" | "25P03" | "25006" => StoreError::Unreachable(message),
        _ => match code.get(..2) {
            Some("22" | "23") => StoreError::Refused(message),
            Some("08" | "28" | "3D" | "53" | "57" | "58") => StoreError::Unreachable(message),
            _ => StoreError::Other(message),
        },
    }
}

/// Result codes as in sqlite.org/rescode.html: the low byte of the extended code is the primary one.
fn from_sqlite(code: &str, message: String) -> StoreError {
    const BUSY: u32 = 5;
    const LOCKED: u32 = 6;
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
        Ok(BUSY | LOCKED | READONLY | INTERRUPT | IOERR | FULL | CANTOPEN) => StoreError::Unreachable(message),
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
