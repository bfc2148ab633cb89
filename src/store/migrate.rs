//! Bringing a database to this version's tables.

use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::{ConnectOptions, Connection};

use super::connection::{Either, on_both, within};
use super::{Store, StoreError};

static POSTGRES: Migrator = sqlx::migrate!("./migrations/postgres");
static SQLITE: Migrator = sqlx::migrate!("./migrations/sqlite");

/// How often a process tries again that found another one migrating the same SQLite file.
const SQLITE_TRIES: u32 = 20;

/// Why there is no way to migrate.
const BEHIND_POOLER: &str = "a transaction pooler stands before it; set IMAGEGATE_DATABASE_DIRECT_URL to an address past the \
     pooler, or run `imagegate migrate` with that address";

impl Store {
    /// Applies the migrations that are missing. Safe when several replicas start together: each is applied once.
    ///
    /// Waits for another replica that is migrating. Errors: [`StoreError::Migration`] where the database was migrated
    /// by another version or cannot be, [`StoreError::Unreachable`].
    pub async fn migrate(&self) -> Result<(), StoreError> {
        if self.is_current().await {
            return Ok(());
        }
        match &self.inner.pools {
            Either::Postgres(pools) => {
                // A connection of its own: a migration may take longer than a request's statement, and it waits on
                // sqlx's advisory lock.
                let connect = match (&pools.connect.direct, pools.connect.pooled) {
                    (Some(direct), _) => direct.current(),
                    (None, false) => pools.connect.servers.current(),
                    (None, true) => return Err(StoreError::Migration(BEHIND_POOLER.to_owned())),
                };
                let mut connection =
                    within(self.inner.options.acquire_timeout, async { Ok(connect.connect().await?) }).await?;
                POSTGRES.run_direct(None, &mut connection, false).await?;
                connection.close().await?;
            }
            Either::Sqlite(pools) => {
                // SQLite has no advisory locks: of two processes one finds the tables half there, and tries again.
                let mut tries = 0;
                loop {
                    let mut connection = pools.connect.connect().await?;
                    match SQLITE.run_direct(None, &mut connection, false).await {
                        Ok(()) => break connection.close().await?,
                        Err(error) if tries < SQLITE_TRIES && may_be_a_race(&error) => {
                            tries += 1;
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        Ok(())
    }
}

impl Store {
    /// Whether exactly this version's migrations are applied. Then nothing needs to be asked of a role that may not
    /// make tables.
    async fn is_current(&self) -> bool {
        const APPLIED: &str = "SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version";
        let Ok(mut reader) = self.reader_as_is().await else { return false };
        let applied = on_both!(reader.connection(), connection =>
            sqlx::query_as::<_, (i64, Vec<u8>)>(APPLIED).fetch_all(connection).await);
        let migrator = if self.is_postgres() { &POSTGRES } else { &SQLITE };
        let ours = migrator.iter().map(|migration| (migration.version, migration.checksum.to_vec()));
        applied.is_ok_and(|applied| applied.into_iter().eq(ours))
    }
}

fn may_be_a_race(error: &sqlx::migrate::MigrateError) -> bool {
    use sqlx::migrate::MigrateError::{Execute, ExecuteMigration};
    matches!(error, Execute(_) | ExecuteMigration(..))
}
