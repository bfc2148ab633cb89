//! Connections to PostgreSQL, directly or through a transaction pooler.
//!
//! A transaction pooler (`PgBouncer` in transaction mode, and what many clouds put before a database) gives a client another
//! session for each transaction. Behind one, everything runs in a transaction, settings hold for that transaction alone, and
//! statements have no names: a name belongs to the session that it was given in.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Execute, Executor, PgConnection, Postgres, Row, SqlStr, Transaction,
};

use super::StoreError;
use super::connection::Unfinished;
use super::hosts::Servers;

/// How PostgreSQL is reached. All clones are one.
#[derive(Debug, Clone)]
pub(super) struct Route {
    /// The servers that the address names.
    pub(super) servers: Arc<Servers>,
    /// Whether a transaction pooler stands between.
    pub(super) pooled: bool,
    /// The way past it.
    pub(super) direct: Option<Arc<Servers>>,
    /// When another server than before was chosen: connections that are older are to another one.
    pub(super) switched: Arc<Mutex<Option<Instant>>>,
}

/// A connection to PostgreSQL that statements run on.
pub(super) struct PgSession {
    held: Held,
    /// Whether it keeps statements prepared by name.
    named: bool,
}

enum Held {
    /// Of a pool, for reading.
    Reader(PoolConnection<Postgres>),
    /// Of a pool, in a transaction that only reads and is rolled back when it is dropped.
    ReaderTransaction(Transaction<'static, Postgres>),
    /// Of a pool, in a transaction.
    Writer(Unfinished<Postgres>),
    /// Nobody else's.
    Own(Box<PgConnection>),
}

impl PgSession {
    /// In a transaction that only reads, so that it works behind a pooler as well.
    pub(super) async fn reading(pool: &PgPool, longest: Duration) -> Result<Self, sqlx::Error> {
        let begin = format!("BEGIN READ ONLY; {}", limits("SET LOCAL", longest));
        let transaction = pool.begin_with(AssertSqlSafe(begin)).await?;
        Ok(Self { held: Held::ReaderTransaction(transaction), named: false })
    }

    fn inner(&mut self) -> &mut PgConnection {
        match &mut self.held {
            Held::Reader(connection) => connection,
            Held::ReaderTransaction(transaction) => transaction,
            Held::Writer(unfinished) => &mut unfinished.connection,
            Held::Own(connection) => connection,
        }
    }

    /// To be called once its transaction is committed: the connection goes back to its pool, or is kept by its owner.
    pub(super) fn committed(mut self) -> Option<Self> {
        match &mut self.held {
            Held::Writer(unfinished) => {
                unfinished.ended = true;
                None
            }
            Held::Own(_) => Some(self),
            Held::Reader(_) | Held::ReaderTransaction(_) => None,
        }
    }
}

impl fmt::Debug for PgSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgSession").field("named", &self.named).finish_non_exhaustive()
    }
}

/// A statement that is prepared under a name only where that lasts.
struct Prepared<E> {
    statement: E,
    named: bool,
}

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Prepared<E> {
    fn sql(self) -> SqlStr {
        self.statement.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.statement.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<sqlx::postgres::PgArguments>, sqlx::error::BoxDynError> {
        self.statement.take_arguments()
    }

    fn persistent(&self) -> bool {
        self.named && self.statement.persistent()
    }
}

impl<'c> Executor<'c> for &'c mut PgSession {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        statement: E,
    ) -> BoxStream<'e, Result<sqlx::Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let named = self.named;
        PgSession::inner(self).fetch_many(Prepared { statement, named })
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, statement: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let named = self.named;
        PgSession::inner(self).fetch_optional(Prepared { statement, named })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        PgSession::inner(self).prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<Postgres>, sqlx::Error>>
    where
        'c: 'e,
    {
        PgSession::inner(self).describe(sql)
    }
}

/// All statements of a lane look for keyed rows: they are planned once, by index, also while the tables are so young
/// that their statistics would advise to read them whole.
macro_rules! lane_plans {
    ($set:literal) => {
        concat!(
            $set,
            " plan_cache_mode = force_generic_plan; ",
            $set,
            " enable_seqscan = off; ",
            $set,
            " enable_hashjoin = off; ",
            $set,
            " enable_mergejoin = off; ",
            $set,
            " jit = off"
        )
    };
}

/// Begins such a transaction on a connection that somebody else may have after it.
pub(super) const BEGIN_IN_LANE: &str = concat!("BEGIN; ", lane_plans!("SET LOCAL"));

impl Route {
    /// A connection of a pool for reading.
    pub(super) async fn reader(&self, pool: &PgPool, longest: Duration) -> Result<PgSession, sqlx::Error> {
        if self.pooled {
            return PgSession::reading(pool, longest).await;
        }
        Ok(PgSession { held: Held::Reader(pool.acquire().await?), named: true })
    }

    /// A connection of a pool in a transaction.
    pub(super) async fn begin(&self, pool: &PgPool, begin: &str, longest: Duration) -> Result<PgSession, sqlx::Error> {
        let held = Held::Writer(Unfinished::from(pool.acquire().await?));
        let mut session = PgSession { held, named: !self.pooled };
        let begin = if self.pooled { format!("{begin}; {}", limits("SET LOCAL", longest)) } else { begin.to_owned() };
        sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut session).await?;
        Ok(session)
    }

    /// A connection for a lane, past the pooler if there is a way.
    pub(super) async fn lane(&self, longest: Duration) -> Result<PgSession, sqlx::Error> {
        let named = self.lane_is_direct();
        let connect = self.direct.as_ref().unwrap_or(&self.servers).current();
        // What has no name is not kept.
        let kept = if named { (*connect).clone() } else { (*connect).clone().statement_cache_capacity(0) };
        let connection = kept.connect().await?;
        let mut session = PgSession { held: Held::Own(Box::new(connection)), named };
        if named {
            let settings = format!("{}; {}", lane_plans!("SET"), session_limits(longest));
            sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut session).await?;
        }
        Ok(session)
    }

    /// What begins a transaction in a lane.
    pub(super) fn in_lane(&self, longest: Duration) -> String {
        if self.lane_is_direct() {
            return "BEGIN".to_owned();
        }
        format!("{BEGIN_IN_LANE}; {}", limits("SET LOCAL", longest))
    }

    /// Whether a connection is to the server that is in use now.
    pub(super) fn is_current(&self, age: Duration) -> bool {
        let switched = *self.switched.lock().unwrap_or_else(PoisonError::into_inner);
        switched.is_none_or(|at| age < at.elapsed())
    }

    /// Looks for a server that can be written, where there are several. Whether it is another one than before.
    pub(super) async fn choose(&self, limit: Duration) -> Result<bool, StoreError> {
        let mut is_another = self.servers.choose(limit).await?;
        if let Some(direct) = &self.direct {
            is_another |= direct.choose(limit).await?;
        }
        if is_another {
            *self.switched.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        Ok(is_another)
    }

    /// Whether a lane has a session of its own.
    pub(super) fn lane_is_direct(&self) -> bool {
        !self.pooled || self.direct.is_some()
    }
}

/// Says how long a statement may take. To be run after connecting, since poolers refuse unknown startup parameters. A
/// replica that is stopped in the middle of a transaction must not keep its locks.
pub(super) fn session_limits(longest: Duration) -> String {
    limits("SET", longest)
}

fn limits(set: &str, longest: Duration) -> String {
    let millis = longest.as_millis();
    format!(
        "{set} statement_timeout = {millis}; {set} lock_timeout = {millis}; \
         {set} idle_in_transaction_session_timeout = {millis}"
    )
}

/// How often two clients compare their sessions: while others are busy with a pooler's, they may miss each other.
const ROUNDS: usize = 10;

/// Finds out whether a transaction pooler stands before the database: there, two clients share sessions, or one of them has
/// another one each time.
pub(super) async fn is_pooled(connect: &PgConnectOptions) -> Result<bool, sqlx::Error> {
    let mut clients = [connect.connect().await?, connect.connect().await?];
    let mut sessions = [BTreeSet::new(), BTreeSet::new()];
    let pooled = |sessions: &[BTreeSet<String>; 2]| {
        let [one, other] = sessions;
        one.len() > 1 || other.len() > 1 || !one.is_disjoint(other)
    };
    for _ in 0..ROUNDS {
        for (client, seen) in clients.iter_mut().zip(&mut sessions) {
            let row = sqlx::raw_sql("SELECT pg_backend_pid()::text").fetch_one(client).await?;
            seen.insert(row.try_get(0)?);
        }
        if pooled(&sessions) {
            break;
        }
    }
    for client in clients {
        client.close().await?;
    }
    Ok(pooled(&sessions))
}
