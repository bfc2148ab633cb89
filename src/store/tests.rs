//! The tables themselves: migrations, what the triggers refuse, what an address may be.

use std::time::{Duration, Instant};

use super::testing::{TestDatabase, on_both_databases};
use super::*;
use crate::domain::{GenerationId, IdSource, Money, ProjectId, SystemIds, Timestamp};

const NOW: Timestamp = Timestamp::from_seconds(1_795_248_000);

async fn refused(store: &Store, sql: &str, why: &str) {
    match store.execute(sql).await {
        Err(StoreError::Refused(message)) => assert!(message.contains(why), "{sql}: {message}"),
        other => panic!("{sql}: {other:?}"),
    }
}

fn top_up(project: ProjectId, entries: Vec<(LedgerAccount, i64)>) -> NewTransaction {
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
    transaction.insert_transactions(&[row]).await?;
    transaction.commit().await
}

on_both_databases! {
    async fn the_ledger_refuses_to_be_changed(database) {
        let store = database.store().await;
        let (project, _) = store.add_project(NOW).await;
        let entries = vec![(LedgerAccount::Project, 5), (LedgerAccount::Funding, -5)];
        book(&store, top_up(project, entries)).await.unwrap();
        for sql in [
            "UPDATE ledger_entries SET amount = amount + 1",
            "DELETE FROM ledger_entries",
            "UPDATE ledger_transactions SET reason = 'another'",
            "DELETE FROM ledger_transactions",
        ] {
            refused(&store, sql, "append-only").await;
        }
        assert_eq!(store.number("SELECT COUNT(*) FROM ledger_entries").await, 2);
    }

    async fn the_ledger_refuses_what_does_not_sum_to_zero(database) {
        let store = database.store().await;
        let (project, _) = store.add_project(NOW).await;
        for entries in [
            vec![(LedgerAccount::Project, 5), (LedgerAccount::Funding, -4)],
            vec![(LedgerAccount::Project, 5)],
            vec![],
        ] {
            let result = book(&store, top_up(project, entries)).await;
            assert!(matches!(result, Err(StoreError::Refused(_))), "{result:?}");
        }
        assert_eq!(store.number("SELECT COUNT(*) FROM ledger_transactions").await, 0);
        assert_eq!(store.number("SELECT COUNT(*) FROM ledger_entries").await, 0);
    }

    async fn a_closed_ledger_transaction_takes_no_more_entries_and_none_stands_alone(database) {
        let store = database.store().await;
        let (project, _) = store.add_project(NOW).await;
        let entries = vec![(LedgerAccount::Project, 5), (LedgerAccount::Funding, -5)];
        book(&store, top_up(project, entries)).await.unwrap();
        let more = "INSERT INTO ledger_entries (transaction_id, account, amount)
                    SELECT id, 'revenue', 1 FROM ledger_transactions";
        refused(&store, more, "closed").await;
        let alone = "INSERT INTO ledger_entries (transaction_id, account, amount)
                     SELECT id, 'revenue', 1 FROM projects";
        let result = store.execute(alone).await;
        assert!(matches!(result, Err(StoreError::Refused(_))), "{result:?}");
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
        let migrations = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite")).unwrap().count();
        let applied = stores[0].number("SELECT COUNT(*) FROM _sqlx_migrations").await;
        assert_eq!(usize::try_from(applied).unwrap(), migrations);
        assert_eq!(stores[1].number("SELECT number FROM changes WHERE name = 'accounts'").await, 0);
        stores[2].migrate().await.unwrap();
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
                    asked.heartbeat(SystemIds.uuid(), NOW).await.unwrap();
                }
            });
        })
        .join()
        .unwrap();
        for _ in 0..10 {
            assert_eq!(store.balance(project, NOW).await.unwrap().unwrap().held, Money::ZERO);
            store.heartbeat(SystemIds.uuid(), NOW).await.unwrap();
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
async fn a_database_that_nobody_serves_is_unreachable_within_two_seconds_or_so() {
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
        assert!(begin.elapsed() < Duration::from_millis(2900), "{:?}", begin.elapsed());
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_told() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let address = format!("sqlite://{}/books.db", file.path().display());
    let error = Store::connect(&address, StoreOptions::default()).await.unwrap_err();
    assert!(matches!(error, StoreError::Address { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_every_constraint_carries_the_name_of_its_table() {
    let store = TestDatabase::postgres().await.store().await;
    let others = "SELECT COUNT(*) FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid
                  JOIN pg_namespace n ON n.oid = t.relnamespace
                  WHERE n.nspname = 'public' AND t.relname NOT LIKE '\\_sqlx%' AND NOT t.relispartition
                      AND c.conparentid = 0 AND position(t.relname IN c.conname) <> 1";
    assert_eq!(store.number(others).await, 0);
}

#[test]
fn both_databases_have_the_same_constraints_and_indexes() {
    let names = |migrations: [&'static str; 2]| -> Vec<&str> {
        let words: Vec<_> = migrations.into_iter().flat_map(str::split_whitespace).collect();
        words
            .windows(2)
            .filter(|pair| matches!(pair[0], "CONSTRAINT" | "INDEX" | "TABLE"))
            .map(|pair| pair[1])
            .collect()
    };
    let mut postgres = names([
        include_str!("../../migrations/postgres/20261121000001_create_the_books.sql"),
        include_str!("../../migrations/postgres/20261121000002_limit_and_resend.sql"),
    ]);
    postgres.retain(|name| !matches!(*name, "generations_default" | "AS"));
    let sqlite = names([
        include_str!("../../migrations/sqlite/20261121000001_create_the_books.sql"),
        include_str!("../../migrations/sqlite/20261121000002_limit_and_resend.sql"),
    ]);
    assert!(sqlite.len() > 80, "{}", sqlite.len());
    assert_eq!(postgres, sqlite);
}
