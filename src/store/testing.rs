//! What tests of this room and the rooms above need: a migrated database of their own, on either backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{ConnectOptions, Connection, Executor};

use super::connection::{WriteTransaction, on_both};
use super::{KeyKind, KeyOrigin, KeyRecord, NewKeyRow, ProjectRecord, Store, StoreError, StoreOptions};
use crate::domain::{ApiKeyId, IdSource, Money, ProjectId, Role, Scopes, SystemIds, Timestamp};

/// Names the server on which each test makes a database of its own.
const SERVER: &str = "IMAGEGATE_TEST_POSTGRES";

/// A database for one test, with how to open it again.
#[derive(Debug, Clone)]
pub(crate) struct TestDatabase {
    pub(crate) address: String,
    _kept: Arc<Kept>,
}

/// What is removed when the test is over.
#[derive(Debug)]
enum Kept {
    Folder { _folder: tempfile::TempDir },
    Postgres { server: String, name: String },
}

impl Drop for Kept {
    fn drop(&mut self) {
        let Self::Postgres { server, name } = self else { return };
        let drop_database = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        let server = server.clone();
        // A test's own runtime may be at its end.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(on_server(&server, &[drop_database]));
        });
        dropped.join().unwrap();
    }
}

async fn on_server(server: &str, statements: &[String]) {
    let mut connection = server.parse::<sqlx::postgres::PgConnectOptions>().unwrap().connect().await.unwrap();
    for statement in statements {
        connection.execute(sqlx::AssertSqlSafe(statement.as_str())).await.unwrap();
    }
    connection.close().await.unwrap();
}

impl TestDatabase {
    /// A SQLite file in a folder of its own.
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("sqlite://{}", folder.path().join("books/imagegate.db").display());
        Self { address, _kept: Arc::new(Kept::Folder { _folder: folder }) }
    }

    /// A new database on the test server.
    #[expect(clippy::disallowed_methods, reason = "tests take the server's address from test.sh")]
    pub(crate) async fn postgres() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let server = std::env::var(SERVER).unwrap_or_else(|_| {
            panic!("{SERVER} is not set: run ./test.sh, which starts a PostgreSQL server for the tests")
        });
        let name = format!("imagegate_test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        on_server(&server, &[format!("DROP DATABASE IF EXISTS {name}"), format!("CREATE DATABASE {name}")]).await;
        let mut url = url::Url::parse(&server).unwrap();
        url.set_path(&name);
        Self { address: url.to_string(), _kept: Arc::new(Kept::Postgres { server, name }) }
    }

    /// Opens it, without migrating.
    pub(crate) async fn open(&self) -> Store {
        self.open_with(StoreOptions::default()).await
    }

    pub(crate) async fn open_with(&self, options: StoreOptions) -> Store {
        let options = StoreOptions { readers: 4, writers: 3, ..options };
        Store::connect(&self.address, options).await.unwrap()
    }

    /// Opens and migrates it.
    pub(crate) async fn store(&self) -> Store {
        let store = self.open().await;
        store.migrate().await.unwrap();
        store
    }
}

impl Store {
    /// Runs any statement, for tests that look behind the curtain.
    pub(crate) async fn execute(&self, sql: &str) -> Result<u64, StoreError> {
        let mut transaction: WriteTransaction = self.begin().await?;
        let sql = sql.to_owned();
        let touched = on_both!(transaction.connection(), connection =>
            sqlx::query(sqlx::AssertSqlSafe(sql)).execute(connection).await.map(|done| done.rows_affected()))?;
        transaction.commit().await?;
        Ok(touched)
    }

    /// Runs many statements in one transaction, as a migration does.
    pub(crate) async fn run(&self, sql: &str) {
        let mut transaction: WriteTransaction = self.begin_as_is().await.unwrap();
        let sql = sql.to_owned();
        on_both!(transaction.connection(), connection =>
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(connection).await.map(drop))
        .unwrap();
        transaction.commit().await.unwrap();
    }

    /// The texts that a query gives.
    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        let mut reader = self.reader().await.unwrap();
        let sql = sql.to_owned();
        on_both!(reader.connection(), connection =>
            sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(sql)).fetch_all(connection).await)
        .unwrap()
    }

    /// The one number that a query gives.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let mut reader = self.reader().await.unwrap();
        let sql = sql.to_owned();
        on_both!(reader.connection(), connection =>
            sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(sql)).fetch_one(connection).await)
        .unwrap()
    }

    /// Adds calls that have been due since `from` and later, to receivers of their own or to one.
    pub(crate) async fn add_due_webhooks(&self, project: ProjectId, count: u32, from: i64, host: &str) {
        let (id, project, rows) = if self.is_postgres() {
            ("gen_random_uuid()", format!("'{}'", project.uuid()), format!("generate_series(1, {count}) AS n"))
        } else {
            let rows = format!(
                "(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {count}) SELECT n FROM c)"
            );
            ("randomblob(16)", format!("x'{}'", project.uuid().simple()), rows)
        };
        for statement in [
            format!(
                "INSERT INTO generations (id, project_id, api_key_id, request_id, state, owner, source, model, provider,
                     endpoint, num_images, parameters, cancel_if_client_leaves, created_at, deadline_at, settled_at, price,
                     cost, cost_source, images, megapixels, reason, hold)
                 SELECT {id}, {project}, k.id, {id}, 'succeeded', {id}, 's', 'm', 'fal', 'e', 1, '{{}}', FALSE, {from} + n, {from} + n,
                     {from} + n, 0, 0, 'computed', 1, 0, 'r', 0
                 FROM {rows} CROSS JOIN (SELECT id FROM api_keys LIMIT 1) k"
            ),
            format!(
                "INSERT INTO webhook_deliveries (id, generation_id, project_id, url, host, form, base_url, created_at, next_at)
                 SELECT id, id, project_id, 'u', {host}, 'imagegate', '', created_at, created_at FROM generations
                 WHERE project_id = {project} AND created_at > {from}"
            ),
        ] {
            self.run(&statement).await;
        }
    }
}

/// A project, a key of it, and how to make more; for rooms that must not know `accounts`.
impl Store {
    /// A new project with its key.
    pub(crate) async fn add_project(&self, now: Timestamp) -> (ProjectId, ApiKeyId) {
        let id = ProjectId::from_uuid(SystemIds.uuid());
        let mut transaction = self.begin().await.unwrap();
        transaction.insert_project(id, "test", false, now).await.unwrap();
        transaction.commit().await.unwrap();
        (id, self.add_key(id, now, |_| {}).await)
    }

    /// A new key of a project, with other terms than usual.
    pub(crate) async fn add_key(
        &self,
        project: ProjectId,
        now: Timestamp,
        terms: impl FnOnce(&mut KeyRecord),
    ) -> ApiKeyId {
        let id = ApiKeyId::from_uuid(SystemIds.uuid());
        let mut record = KeyRecord {
            id,
            kind: KeyKind::Project,
            project_id: Some(project),
            service_account_id: None,
            name: "test".to_owned(),
            prefix: String::new(),
            origin: KeyOrigin::Api,
            budget: None,
            spent: Money::ZERO,
            allowed_models: None,
            created_at: now,
            expires_at: None,
            revoked_at: None,
            generates_for: None,
            scopes: Scopes::ALL,
            role: Role::Owner,
            allowed_addresses: None,
            adapt: None,
            join_retries: None,
            last_used_at: None,
        };
        terms(&mut record);
        let row = NewKeyRow { record, hash: SystemIds.secret().unwrap() };
        let mut transaction = self.begin().await.unwrap();
        transaction.insert_key(&row).await.unwrap();
        transaction.commit().await.unwrap();
        id
    }

    /// Other terms for a project.
    pub(crate) async fn change_project(&self, id: ProjectId, terms: impl FnOnce(&mut ProjectRecord)) {
        let mut transaction = self.begin().await.unwrap();
        let mut project = transaction.project(id).await.unwrap().unwrap();
        terms(&mut project);
        transaction.update_project(&project, project.created_at).await.unwrap();
        transaction.commit().await.unwrap();
    }
}

/// Writes each test twice: for SQLite and for PostgreSQL. The database comes in as `$database`.
macro_rules! on_both_databases {
    ($(async fn $name:ident($database:ident) $body:block)+) => {
        $(mod $name {
            use super::*;

            async fn test($database: $crate::store::testing::TestDatabase) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                test($crate::store::testing::TestDatabase::sqlite()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                test($crate::store::testing::TestDatabase::postgres().await).await;
            }
        })+
    };
}
pub(crate) use on_both_databases;
