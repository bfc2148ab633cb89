//! The tables themselves: migrations, what the triggers refuse, what an address may be.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::connection::{Either, on_both};
use super::testing::{TestDatabase, on_both_databases};
use super::*;
use crate::domain::{GenerationId, IdSource, Money, ProjectId, SystemIds, Timestamp};

const NOW: Timestamp = Timestamp::from_seconds(1_795_248_000);

/// The text of each migration of a database, first to last.
fn migrations(database: &str) -> Vec<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(database);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

async fn refused(store: &Store, sql: &str, why: &str) {
    match store.execute(sql).await {
        Err(StoreError::Refused(message)) => assert!(message.contains(why), "{sql}: {message}"),
        other => panic!("{sql}: {other:?}"),
    }
}

fn top_up(project: ProjectId, entries: Entries) -> NewTransaction {
    NewTransaction {
        id: SystemIds.uuid(),
        kind: TransactionKind::TopUp,
        project_id: project.uuid(),
        generation_id: None,
        reason: "paid in".to_owned(),
        author: Some("ada".to_owned()),
        created_at: NOW,
        entries,
    }
}

async fn book(store: &Store, row: NewTransaction) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    transaction.book(row, None, SumChanges::default()).await?;
    transaction.commit().await
}

on_both_databases! {
    async fn reports_of_one_project_leave_connections_to_others_and_to_everything_else(database) {
        let store = database.store().await;
        let [many, one] = [(); 2].map(|()| Some(ProjectId::from_uuid(SystemIds.uuid())));
        let mut held = Vec::new();
        for _ in 0..store.options().readers / 2 {
            held.push(store.report_reader(many).await.unwrap());
        }
        let soon = Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, store.report_reader(many)).await.is_err());
        held.push(store.report_reader(one).await.unwrap());
        assert!(tokio::time::timeout(soon, store.report_reader(one)).await.is_err(), "the rest is not for reports");
        store.ping().await.unwrap();
        drop(held);
        store.report_reader(many).await.unwrap();
    }

    async fn the_ledger_refuses_to_be_changed(database) {
        let store = database.store().await;
        let (project, _) = store.add_project(NOW).await;
        book(&store, top_up(project, Entries { project: 5, funding: -5, ..Entries::default() })).await.unwrap();
        for sql in [
            "UPDATE ledger_transactions SET project = project + 1, funding = funding - 1",
            "UPDATE ledger_transactions SET reason = 'another'",
            "DELETE FROM ledger_transactions",
            "UPDATE ledger_events SET project = project + 1, funding = funding - 1",
            "UPDATE ledger_events SET payload = '{}'",
            "UPDATE ledger_events SET at = at + 1",
            "DELETE FROM ledger_events",
        ] {
            refused(&store, sql, "append-only").await;
        }
        // A way to read them an entry a row, and none to write them.
        for sql in [
            "UPDATE ledger_entries SET amount = amount + 1",
            "DELETE FROM ledger_entries",
            "INSERT INTO ledger_entries (transaction_id, account, amount) SELECT id, 'revenue', 1 FROM projects",
        ] {
            assert!(store.execute(sql).await.is_err(), "{sql}");
        }
        assert_eq!(store.number("SELECT COUNT(*) FROM ledger_entries").await, 2);
        assert_eq!(store.number("SELECT amount FROM ledger_entries WHERE account = 'funding'").await, -5);
    }

    async fn the_ledger_refuses_what_does_not_sum_to_zero(database) {
        let store = database.store().await;
        let (project, _) = store.add_project(NOW).await;
        for (entries, constraint) in [
            (Entries { project: 5, funding: -4, ..Entries::default() }, "ledger_events_balanced"),
            (Entries { project: 5, ..Entries::default() }, "ledger_events_balanced"),
            (Entries::default(), "ledger_transactions_not_empty"),
        ] {
            let result = book(&store, top_up(project, entries)).await;
            let Err(StoreError::Refused(reason)) = result else { panic!("{result:?}") };
            assert!(reason.contains(constraint), "{reason}");
        }
        assert_eq!(store.number("SELECT COUNT(*) FROM ledger_transactions").await, 0);
        assert_eq!(store.number("SELECT COUNT(*) FROM ledger_entries").await, 0);
    }

    async fn impossible_states_are_refused_by_name(database) {
        let store = database.store().await;
        store.add_project(NOW).await;
        for (sql, constraint) in [
            ("UPDATE projects SET spend_limit = -1", "projects_spend_limit_not_negative"),
            ("UPDATE projects SET name = ''", "projects_name_not_empty"),
            ("UPDATE projects SET is_default = TRUE, archived_at = 1", "projects_default_not_archived"),
            ("UPDATE api_keys SET project_id = NULL", "api_keys_project_iff_project_key"),
            ("UPDATE api_keys SET kind = 'root'", "api_keys_kind_known"),
            ("UPDATE balances SET held = -1", "balances_held_not_negative"),
        ] {
            refused(&store, sql, constraint).await;
        }
    }

    async fn replicas_that_start_together_migrate_once(database) {
        let mut stores = Vec::new();
        for _ in 0..4 {
            stores.push(database.open().await);
        }
        let results = futures_util::future::join_all(stores.iter().map(Store::migrate)).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        let applied = stores[0].number("SELECT COUNT(*) FROM _sqlx_migrations").await;
        assert_eq!(usize::try_from(applied).unwrap(), migrations("postgres").len());
        assert_eq!(stores[1].number("SELECT number FROM changes WHERE name = 'accounts'").await, 0);
        stores[2].migrate().await.unwrap();
    }

    async fn books_with_a_row_for_each_hold_and_entry_are_taken_over(database) {
        const ROWS_BEFORE: &str = "
            INSERT INTO projects (id, name, created_at) VALUES (@1, 'p', 1);
            INSERT INTO api_keys (id, kind, project_id, name, hash, prefix, origin, created_at)
                VALUES (@2, 'project', @1, 'k', @HASH, '', 'api', 1);
            INSERT INTO balances (project_id, posted, held) VALUES (@1, 90, 25);
            INSERT INTO key_balances (api_key_id, spent, held) VALUES (@2, 6, 25);
            INSERT INTO monthly_spend (project_id, starts_at, ends_at, spent) VALUES (@1, 0, 2678400000000, 6);
            INSERT INTO generations (id, project_id, api_key_id, request_id, state, owner, source, model, provider, endpoint,
                num_images, parameters, cancel_if_client_leaves, created_at, deadline_at)
                VALUES (@3, @1, @2, @3, 'queued', @3, 's', 'm', 'fal', 'e', 1, '{}', FALSE, 5, 9),
                    (@4, @1, @2, @4, 'queued', @4, 's', 'm', 'fal', 'e', 1, '{}', FALSE, 5, 9);
            INSERT INTO holds (generation_id, project_id, api_key_id, amount, opened_at) VALUES (@3, @1, @2, 25, 5);
            INSERT INTO holds (generation_id, project_id, api_key_id, amount, opened_at, ended_at, outcome)
                VALUES (@4, @1, @2, 30, 5, 7, 'settled');
            INSERT INTO attempts (generation_id, n, endpoint, credential, provider_request_id, status_url, response_url,
                cancel_url, submitted_at, ended_at, outcome, cost) VALUES
                (@4, 1, 'e', 'c', 'r1', 's', 'r', 'c', 5, 6, 'replaced', NULL),
                (@4, 2, 'e', 'c', 'r2', 's', 'r', 'c', 6, 7, 'succeeded', 8);
            INSERT INTO ledger_entries (transaction_id, account, amount) VALUES (@4, 'project', -10), (@4, 'revenue', 10),
                (@4, 'cost_of_sales', 8), (@4, 'provider', -8);
            INSERT INTO ledger_transactions (id, kind, project_id, generation_id, reason, created_at)
                VALUES (@4, 'settlement', @1, @4, 'delivered', 7);
            UPDATE generations SET state = 'succeeded', settled_at = 7, price = 10, cost = 8, cost_source = 'billed',
                images = 1, megapixels = 1, reason = 'delivered' WHERE id = @4;
            INSERT INTO ledger_entries (transaction_id, account, amount) VALUES (@5, 'project', 4), (@5, 'revenue', -4);
            INSERT INTO ledger_transactions (id, kind, project_id, generation_id, reason, author, created_at)
                VALUES (@5, 'refund', @1, @4, 'sorry', 'ada', 8);
            INSERT INTO ledger_entries (transaction_id, account, amount) VALUES (@6, 'project', 96), (@6, 'funding', -96);
            INSERT INTO ledger_transactions (id, kind, project_id, reason, author, created_at)
                VALUES (@6, 'top_up', @1, 'paid', 'ada', 8);";
        let store = database.open().await;
        let (folder, quote) = if store.is_postgres() { ("postgres", "'") } else { ("sqlite", "x'") };
        let all = migrations(folder);
        let at = all.iter().position(|text| text.starts_with("-- Fewer rows for each request")).unwrap();
        for text in &all[..at] {
            store.run(text).await;
        }
        let mut rows = ROWS_BEFORE.to_owned();
        for n in 1..=6_u128 {
            let id = uuid::Uuid::from_u128(n);
            rows = rows.replace(&format!("@{n}"), &format!("{quote}{}'", id.simple()));
        }
        let hash = if store.is_postgres() { "sha256('')" } else { "zeroblob(32)" };
        store.run(&rows.replace("@HASH", hash)).await;
        for text in &all[at..] {
            store.run(text).await;
        }
        assert_eq!(store.verify().await.unwrap(), []);
        assert_eq!(store.number("SELECT CAST(SUM(hold) AS BIGINT) FROM generations").await, 55);
        assert_eq!(store.number("SELECT open_generations FROM balances").await, 1);
        assert_eq!(store.number("SELECT COUNT(*) FROM ledger_entries").await, 8);
        assert_eq!(store.number("SELECT CAST(SUM(refunded) AS BIGINT) FROM usage_days").await, 4);
        let generation = GenerationId::from_uuid(uuid::Uuid::from_u128(4));
        let ends: Vec<_> = store.attempts(generation).await.unwrap().into_iter().map(|a| (a.ended_at, a.outcome)).collect();
        let at = |micros| Some(Timestamp::from_micros(micros));
        assert_eq!(ends, [(at(6), Some(AttemptOutcome::Replaced)), (at(7), Some(AttemptOutcome::Succeeded))]);
        // The events that were made of the rows say what the rows say, also where one of them is lost.
        let before = store.generation(generation).await.unwrap();
        let nothing = Rebuilt { streams: 4, ..Rebuilt::default() };
        assert_eq!(store.rebuild().await.unwrap(), nothing);
        store.execute(&format!("DELETE FROM generations WHERE id = {quote}{}'", generation.uuid().simple())).await.unwrap();
        assert_eq!(store.rebuild().await.unwrap(), Rebuilt { missing: 1, ..nothing });
        assert_eq!(store.generation(generation).await.unwrap(), before);
        assert_eq!(store.verify().await.unwrap(), []);
    }

    async fn a_database_of_another_version_is_not_touched(database) {
        let store = database.store().await;
        store.execute("UPDATE _sqlx_migrations SET version = version + 1000").await.unwrap();
        assert!(matches!(store.migrate().await, Err(StoreError::Migration(_))));
    }

    async fn a_transaction_that_is_dropped_has_written_nothing(database) {
        let store = database.store().await;
        let mut transaction = store.begin().await.unwrap();
        let id = ProjectId::from_uuid(SystemIds.uuid());
        transaction.insert_project(id, "gone", false, NOW).await.unwrap();
        drop(transaction);
        store.add_project(NOW).await;
        assert_eq!(store.number("SELECT COUNT(*) FROM projects WHERE name = 'gone'").await, 0);
    }

    async fn a_connection_whose_transaction_broke_off_is_not_lent_again(database) {
        let store = database.store().await;
        // PostgreSQL tells connections apart by themselves, SQLite by a setting of the one that broke.
        let (mark, who) = if store.is_postgres() {
            ("SELECT 1", "SELECT CAST(pg_backend_pid() AS BIGINT)")
        } else {
            ("PRAGMA cache_size = 1234", "SELECT cache_size FROM pragma_cache_size")
        };
        let mut transaction = store.begin().await.unwrap();
        let broken = on_both!(transaction.connection(), connection => {
            sqlx::raw_sql(mark).execute(&mut *connection).await.unwrap();
            let broken: i64 = sqlx::query_scalar(who).fetch_one(&mut *connection).await.unwrap();
            sqlx::raw_sql("INSERT INTO nowhere VALUES (1)").execute(connection).await.unwrap_err();
            broken
        });
        drop(transaction);
        let mut lane = Lane::default();
        for _ in 0..8 {
            let mut transaction = store.begin().await.unwrap();
            let lent: i64 = on_both!(transaction.connection(), connection =>
                sqlx::query_scalar(who).fetch_one(connection).await)
            .unwrap();
            assert_ne!(lent, broken);
            transaction.commit().await.unwrap();
            // The writer's own connection too.
            let mut transaction = store.begin_in(&mut lane).await.unwrap();
            let failed = on_both!(transaction.connection(), connection => {
                let lent: i64 = sqlx::query_scalar(who).fetch_one(&mut *connection).await.unwrap();
                assert_ne!(lent, broken);
                sqlx::raw_sql("INSERT INTO nowhere VALUES (1)").execute(connection).await.map(drop)
            });
            assert!(failed.is_err());
        }
        store.add_project(NOW).await;
    }

    async fn connections_outlive_the_thread_that_asked_for_them(database) {
        let store = database.store().await;
        let (project, _) = store.add_project(NOW).await;
        let asked = store.clone();
        // As a web worker does that ends before the database is closed.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                for _ in 0..3 {
                    assert!(asked.balance(project, NOW).await.unwrap().is_some());
                    asked.heartbeat(SystemIds.uuid()).await.unwrap();
                }
            });
        })
        .join()
        .unwrap();
        for _ in 0..10 {
            assert_eq!(store.balance(project, NOW).await.unwrap().unwrap().held, Money::ZERO);
            store.heartbeat(SystemIds.uuid()).await.unwrap();
        }
        assert_eq!(store.generation(GenerationId::from_uuid(SystemIds.uuid())).await.unwrap(), None);
    }
}

#[tokio::test]
async fn an_address_that_names_no_database_is_told_without_its_password() {
    for address in [
        "mysql://root:secret@host/x",
        "books.db",
        "",
        "sqlite::memory:",
        "postgres://u:secret@host:port/x",
        "postgres://u:a@secret@host:port/x",
        "mysql://host/x?password=secret",
    ] {
        let error = Store::connect(address, StoreOptions::default()).await.unwrap_err();
        assert!(matches!(error, StoreError::Address { .. }), "{address}: {error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn a_database_that_nobody_serves_is_unreachable_soon() {
    // Taken, and never answered.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap().port();
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    for port in [silent, closed] {
        let begin = Instant::now();
        let address = format!("postgres://gw@127.0.0.1:{port}/x");
        let error = Store::connect(&address, StoreOptions::default()).await.unwrap_err();
        assert!(matches!(error, StoreError::Unreachable(_)), "{error}");
        // Nobody waits until the operating system gives up, which takes minutes.
        assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_a_full_disk_and_a_read_only_one_are_told_apart_and_leave_nothing_behind() {
    let database = TestDatabase::sqlite();
    let store = database.store().await;
    for (setting, outage) in [
        // It never gets smaller than what is there already.
        ("PRAGMA max_page_count = 1", Outage::DiskFull),
        ("PRAGMA query_only = ON", Outage::ReadOnly),
    ] {
        let mut transaction = store.begin().await.unwrap();
        let Either::Sqlite(connection) = transaction.connection() else { panic!("this is SQLite") };
        sqlx::raw_sql(setting).execute(&mut *connection).await.unwrap();
        let much = "INSERT INTO changes (name, number) VALUES (hex(zeroblob(9000000)), 1)";
        let error = sqlx::raw_sql(much).execute(connection).await.unwrap_err();
        assert_eq!(StoreError::from(error).outage(), Some(outage));
        drop(transaction);
        // Whatever SQLite did with the transaction, the next one begins, writes and ends.
        store.ping_writing().await.unwrap();
        store.add_project(NOW).await;
        assert_eq!(store.outage(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_a_file_that_is_gone_is_neither_read_nor_written_until_it_is_back() {
    let database = TestDatabase::sqlite();
    let store = database.store().await;
    let file = std::path::PathBuf::from(database.address.strip_prefix("sqlite://").unwrap());
    let away = file.with_extension("away");
    std::fs::rename(&file, &away).unwrap();
    for _ in 0..2 {
        let found = [store.ping().await, store.ping_writing().await, store.begin().await.map(drop)];
        for result in found {
            assert_eq!(result.unwrap_err().outage(), Some(Outage::FileGone));
        }
        // Nor is another file that has taken its place.
        std::fs::write(&file, "").unwrap();
    }
    std::fs::rename(&away, &file).unwrap();
    store.ping_writing().await.unwrap();
    store.add_project(NOW).await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_told() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let address = format!("sqlite://{}/books.db", file.path().display());
    let error = Store::connect(&address, StoreOptions::default()).await.unwrap_err();
    assert!(matches!(error, StoreError::Address { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_a_month_of_generations_can_be_dropped_and_the_ledger_stays() {
    let database = TestDatabase::postgres().await;
    let store = database.store().await;
    let (project, key) = store.add_project(NOW).await;
    let (project, key) = (project.uuid(), key.uuid());
    store
        .run(&format!(
            "INSERT INTO generations (id, project_id, api_key_id, request_id, state, owner, source, model, provider, endpoint,
                 num_images, parameters, cancel_if_client_leaves, created_at, deadline_at, hold, settled_at, price, cost,
                 cost_source, images, megapixels, reason)
             VALUES ('{project}', '{project}', '{key}', '{key}', 'succeeded', '{key}', 's', 'm', 'fal', 'e', 1, '{{}}', FALSE, 5,
                 9, 9, 7, 5, 4, 'billed', 1, 1, '');
             INSERT INTO attempts (generation_id, n, endpoint, credential, provider_request_id, status_url, response_url,
                 cancel_url, submitted_at)
             VALUES ('{project}', 1, 'e', 'c', 'r', 's', 'r', 'c', 6);
             INSERT INTO ledger_transactions (id, kind, project_id, generation_id, reason, created_at, project, revenue)
             VALUES ('{project}', 'settlement', '{project}', '{project}', '', 7, -5, 5);
             ALTER TABLE generations DETACH PARTITION generations_default;
             DROP TABLE generations_default"
        ))
        .await;
    assert_eq!(store.number("SELECT amount FROM ledger_entries WHERE account = 'revenue'").await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_every_constraint_carries_the_name_of_its_table() {
    let database = TestDatabase::postgres().await;
    let store = database.store().await;
    let others = "SELECT COUNT(*) FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid
                  JOIN pg_namespace n ON n.oid = t.relnamespace
                  WHERE n.nspname = 'public' AND t.relname NOT LIKE '\\_sqlx%' AND NOT t.relispartition
                      AND c.conparentid = 0 AND position(t.relname IN c.conname) <> 1";
    assert_eq!(store.number(others).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_databases_have_the_same_constraints_and_indexes() {
    const ON_POSTGRES: &str = "
        SELECT c.conname::text FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid
        WHERE c.connamespace = 'public'::regnamespace AND c.contype IN ('p', 'u', 'f', 'c')
            AND NOT t.relispartition AND t.relname NOT LIKE '\\_sqlx%' AND c.conparentid = 0
        UNION ALL
        SELECT i.relname::text FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
        WHERE i.relnamespace = 'public'::regnamespace AND NOT t.relispartition AND t.relname NOT LIKE '\\_sqlx%'
            AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = x.indexrelid AND c.contype IN ('p', 'u'))";
    const ON_SQLITE: &str =
        "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND tbl_name NOT LIKE '\\_sqlx%' ESCAPE '\\'";
    let postgres: BTreeSet<String> =
        TestDatabase::postgres().await.store().await.texts(ON_POSTGRES).await.into_iter().collect();
    // SQLite knows the names of its constraints from the text of the table only.
    let definitions = TestDatabase::sqlite().store().await.texts(ON_SQLITE).await.join("\n");
    let words: Vec<_> = definitions.split_whitespace().collect();
    let named = words.windows(2).filter(|pair| matches!(pair[0], "CONSTRAINT" | "INDEX"));
    let sqlite: BTreeSet<String> = named.map(|pair| pair[1].to_owned()).collect();
    assert!(sqlite.len() > 80, "{}", sqlite.len());
    // On PostgreSQL each of these would be a query a row, for rows of projections.
    let only_on_sqlite: Vec<_> = sqlite.difference(&postgres).map(String::as_str).collect();
    assert_eq!(only_on_sqlite, ["generations_api_key_fk", "generations_project_fk", "ledger_transactions_project_fk"]);
    assert!(postgres.is_subset(&sqlite), "{:?}", postgres.difference(&sqlite));
}
