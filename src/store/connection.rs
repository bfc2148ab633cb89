//! Connections and transactions of either database, and the macro that expands one body of SQL for both.

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Database, Sqlite, SqliteConnection};

use super::open::Lent;
use super::session::{BEGIN_IN_LANE, PgSession};
use super::writing::{Append, append_postgres};
use super::{Outage, Store, StoreError};
use crate::domain::{FairPermit, ProjectId};

/// One of two.
#[derive(Debug)]
pub(super) enum Either<P, S> {
    /// PostgreSQL's.
    Postgres(P),
    /// SQLite's.
    Sqlite(S),
}

/// A borrowed connection to either database.
pub(super) type AnyConnection<'c> = Either<&'c mut PgSession, &'c mut SqliteConnection>;

/// Runs one body on the connection of whichever database it is: the body is compiled once for each driver.
macro_rules! on_both {
    ($connection:expr, $name:ident => $body:expr) => {
        match $connection {
            $crate::store::connection::Either::Postgres($name) => $body,
            $crate::store::connection::Either::Sqlite($name) => $body,
        }
    };
}
pub(super) use on_both;

/// Selects the rows whose id is in a list: `$head` ends before the comparison, `$tail` follows it, and `$lock` is
/// appended on PostgreSQL (SQLite has one writer, who needs no row locks). Bound: `$1` is the list.
macro_rules! select_by_ids {
    ($connection:expr, $row:ty, $head:expr, $ids:expr, $tail:literal, $lock:literal) => {
        match $connection {
            $crate::store::connection::Either::Postgres(connection) => {
                sqlx::query_as::<_, $row>(concat!($head, " = ANY($1) ", $tail, $lock))
                    .bind($ids)
                    .fetch_all(connection)
                    .await
            }
            $crate::store::connection::Either::Sqlite(connection) => {
                sqlx::query_as::<_, $row>(concat!($head, " IN (SELECT unhex(value) FROM json_each($1)) ", $tail))
                    .bind($crate::store::connection::json_list($ids))
                    .fetch_all(connection)
                    .await
            }
        }
    };
}
pub(super) use select_by_ids;

/// Ids as the JSON list of hex strings that `select_by_ids` unpacks on SQLite.
pub(super) fn json_list(ids: &[uuid::Uuid]) -> String {
    let mut list = String::with_capacity(2 + ids.len() * 35);
    list.push('[');
    for (index, id) in ids.iter().enumerate() {
        if index > 0 {
            list.push(',');
        }
        list.push('"');
        list.push_str(&id.simple().to_string());
        list.push('"');
    }
    list.push(']');
    list
}

/// A connection for reading, and the permit of a report.
pub(super) struct Reader {
    connection: Either<PgSession, PoolConnection<Sqlite>>,
    _permit: Option<FairPermit<Option<ProjectId>>>,
}

impl Reader {
    pub(super) fn connection(&mut self) -> AnyConnection<'_> {
        match &mut self.connection {
            Either::Postgres(session) => Either::Postgres(session),
            Either::Sqlite(connection) => Either::Sqlite(connection),
        }
    }
}

/// A transaction that may write; on SQLite it holds the write lock from its beginning.
///
/// Dropped before [`Self::commit`] has succeeded, its connection is closed, which rolls back, and never lent again: after
/// an error nobody knows whether the transaction is still open. SQLite, for one, ends it by itself when the disk is full.
pub(crate) struct WriteTransaction(Work);

enum Work {
    Postgres(PgSession),
    Sqlite(Unfinished<Sqlite>),
}

/// A pooled connection in the middle of a transaction: whatever goes wrong before its end closes it.
pub(super) struct Unfinished<DB: Database> {
    pub(super) connection: PoolConnection<DB>,
    pub(super) ended: bool,
}

impl<DB: Database> From<PoolConnection<DB>> for Unfinished<DB> {
    fn from(connection: PoolConnection<DB>) -> Self {
        Self { connection, ended: false }
    }
}

impl<DB: Database> Drop for Unfinished<DB> {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.close_on_drop();
        }
    }
}

impl WriteTransaction {
    pub(super) fn connection(&mut self) -> AnyConnection<'_> {
        match &mut self.0 {
            Work::Postgres(session) => Either::Postgres(session),
            Work::Sqlite(unfinished) => Either::Sqlite(&mut unfinished.connection),
        }
    }

    /// Makes everything durable. When this errors it may or may not have been.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        self.commit_in(&mut Lane::default()).await
    }

    /// Like [`Self::commit`]; the connection goes back to where the next transaction finds it.
    pub(crate) async fn commit_in(self, lane: &mut Lane) -> Result<(), StoreError> {
        match self.0 {
            Work::Postgres(mut session) => {
                sqlx::raw_sql("COMMIT").execute(&mut session).await?;
                lane.0 = session.committed();
            }
            Work::Sqlite(mut unfinished) => {
                sqlx::raw_sql("COMMIT").execute(&mut *unfinished.connection).await?;
                unfinished.ended = true;
            }
        }
        Ok(())
    }
}

/// The one connection of somebody who writes all the time, made on his own runtime. A pool asks a connection for a sign of life whenever it is
/// lent and given back; on PostgreSQL that would be two more round trips for each transaction.
#[derive(Debug, Default)]
pub(crate) struct Lane(Option<PgSession>);

impl Store {
    /// A connection for reading all that is committed now, projections too.
    pub(super) async fn reader(&self) -> Result<Reader, StoreError> {
        self.catch_up().await?;
        self.reader_as_is().await
    }

    /// A connection for reading tables that are no projections; those may be some milliseconds behind.
    pub(super) async fn reader_as_is(&self) -> Result<Reader, StoreError> {
        self.inner.file_is_there()?;
        let connection = match &self.inner.pools {
            Either::Postgres(pools) => {
                let (pool, route) = (pools.readers.clone(), pools.connect.clone());
                let longest = self.inner.options.report_timeout;
                Either::Postgres(self.on_own_runtime(async move { route.reader(&pool, longest).await }).await?)
            }
            Either::Sqlite(pools) => {
                let pool = pools.readers.clone();
                Either::Sqlite(self.on_own_runtime(async move { pool.acquire().await }).await?)
            }
        };
        Ok(Reader { connection, _permit: None })
    }

    /// A connection for a report about a project, or about several: to the standby while that can be used. Projects take turns, and
    /// some connections are left for everything else.
    pub(super) async fn report_reader(&self, project: Option<ProjectId>) -> Result<Reader, StoreError> {
        let permit = self.inner.reports.acquire(project).await;
        if let Some(standby) = self.inner.standby.as_ref().filter(|standby| standby.lag().is_some())
            && let Ok(session) = standby.reader().await
        {
            return Ok(Reader { connection: Either::Postgres(session), _permit: Some(permit) });
        }
        Ok(Reader { _permit: Some(permit), ..self.reader().await? })
    }

    /// Begins a transaction that may write, and reads all that is committed now, projections too.
    pub(crate) async fn begin(&self) -> Result<WriteTransaction, StoreError> {
        self.catch_up().await?;
        self.begin_as_is().await
    }

    /// Begins a transaction that may write, on tables that are no projections; those may be some milliseconds behind.
    pub(crate) async fn begin_as_is(&self) -> Result<WriteTransaction, StoreError> {
        self.inner.file_is_there()?;
        self.begin_on(Lent::Writer, ["BEGIN", "BEGIN IMMEDIATE"]).await
    }

    /// Begins a transaction of statements that all look for keyed rows, like a lane's.
    pub(super) async fn begin_by_key(&self) -> Result<WriteTransaction, StoreError> {
        self.inner.file_is_there()?;
        self.begin_on(Lent::Writer, [BEGIN_IN_LANE, "BEGIN IMMEDIATE"]).await
    }

    /// Begins a transaction that reads one moment, for as long as a report may take.
    pub(super) async fn snapshot(&self) -> Result<WriteTransaction, StoreError> {
        self.catch_up().await?;
        let begin = ["BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "BEGIN"];
        self.begin_on(Lent::Reader, begin).await
    }

    async fn begin_on(
        &self,
        lent: Lent,
        [on_postgres, on_sqlite]: [&'static str; 2],
    ) -> Result<WriteTransaction, StoreError> {
        let work = match &self.inner.pools {
            Either::Postgres(pools) => {
                let (pool, route) = (pools.pool(lent), pools.connect.clone());
                let longest = match lent {
                    Lent::Reader => self.inner.options.report_timeout,
                    Lent::Writer => self.inner.options.write_timeout,
                };
                Work::Postgres(
                    self.on_own_runtime(async move { route.begin(&pool, on_postgres, longest).await }).await?,
                )
            }
            Either::Sqlite(pools) => {
                let pool = pools.pool(lent);
                let begun = self.on_own_runtime(async move {
                    let mut unfinished = Unfinished::from(pool.acquire().await?);
                    sqlx::raw_sql(on_sqlite).execute(&mut *unfinished.connection).await?;
                    Ok(unfinished)
                });
                Work::Sqlite(begun.await?)
            }
        };
        Ok(WriteTransaction(work))
    }

    /// Begins a transaction on the lane's own connection; on SQLite, which has one writer, like [`Self::begin`].
    pub(crate) async fn begin_in(&self, lane: &mut Lane) -> Result<WriteTransaction, StoreError> {
        let Either::Postgres(pools) = &self.inner.pools else { return self.begin_as_is().await };
        let begin = pools.connect.in_lane(self.inner.options.write_timeout);
        if let Some(mut session) = lane.0.take().filter(|_| !pools.writers.is_closed())
            && sqlx::raw_sql(AssertSqlSafe(begin.clone())).execute(&mut session).await.is_ok()
        {
            return Ok(WriteTransaction(Work::Postgres(session)));
        }
        // The server has cut the last one, or there was none.
        within(self.inner.options.acquire_timeout, async {
            if pools.writers.is_closed() {
                return Err(StoreError::no_answer("the store is closed"));
            }
            let mut session = pools.connect.lane(self.inner.options.write_timeout).await?;
            sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut session).await?;
            Ok(WriteTransaction(Work::Postgres(session)))
        })
        .await
    }

    /// Appends a batch in the lane's own connection without a transaction around it: its one statement is one. `None` where
    /// there is no such way: on SQLite, through a transaction pooler, and while the lane has no connection.
    pub(crate) async fn append_at_once(
        &self,
        lane: &mut Lane,
        append: &Append<'_>,
    ) -> Option<Result<Vec<(uuid::Uuid, i64)>, StoreError>> {
        let Either::Postgres(pools) = &self.inner.pools else { return None };
        if !pools.connect.lane_is_direct() || pools.writers.is_closed() {
            return None;
        }
        let mut session = lane.0.take()?;
        let appended = append_postgres(&mut session, append).await;
        if matches!(appended, Ok(_) | Err(StoreError::Conflict(_) | StoreError::Refused(_))) {
            lane.0 = Some(session);
        }
        Some(appended)
    }

    /// Asks the database for a sign of life, within the time that a connection may take.
    pub async fn ping(&self) -> Result<(), StoreError> {
        within(self.inner.options.acquire_timeout.mul_f32(1.1), async {
            let mut reader = self.reader_as_is().await?;
            on_both!(reader.connection(), connection =>
                sqlx::query_scalar::<_, i64>("SELECT CAST(1 AS BIGINT)").fetch_one(connection).await)?;
            Ok(())
        })
        .await
    }

    /// Asks whether the database can be written, by writing what is there already: the disk may be full, the volume
    /// read-only, the file locked by somebody else. Slower than [`Self::ping`].
    pub(crate) async fn ping_writing(&self) -> Result<(), StoreError> {
        if let Err(error) = self.ping().await {
            self.find_server().await;
            return Err(error);
        }
        let written = within(self.inner.options.write_timeout, async {
            let mut transaction = self.begin_as_is().await?;
            on_both!(transaction.connection(), connection =>
                sqlx::query("UPDATE changes SET number = number").execute(connection).await.map(drop))?;
            transaction.commit().await
        })
        .await;
        self.inner.outage.note(written.as_ref().copied());
        if written.is_err() {
            self.find_server().await;
        }
        written
    }

    /// Remembers why a write has failed, for [`Self::outage`].
    pub(crate) fn note_outage(&self, error: &StoreError) {
        self.inner.outage.note(Err(error));
    }

    /// What keeps the database from being written, as far as the last heartbeat or `ping_writing` told. That it
    /// did not answer in time is not among it: under load that happens to a single one.
    #[must_use]
    pub fn outage(&self) -> Option<Outage> {
        self.inner.outage.get()
    }

    /// A connection lives as long as the runtime that made it, so all are made on ours.
    async fn on_own_runtime<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, sqlx::Error>> + Send + 'static,
    {
        match self.inner.runtime.spawn(work).await {
            Ok(result) => result.map_err(StoreError::from),
            Err(stopped) => Err(StoreError::no_answer(stopped.to_string())),
        }
    }
}

/// Gives up on the database after `limit`.
pub(crate) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::no_answer(format!("no answer within {limit:?}"))),
    }
}
