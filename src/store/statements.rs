//! Tests of the statements themselves: each is prepared against the migrated tables of both databases, and none that
//! looks for keyed rows reads a whole table.

use std::collections::BTreeSet;
use std::path::Path;

use sqlx::{AssertSqlSafe, Executor, Row, SqlSafeStr};

use super::Store;
use super::connection::{Either, WriteTransaction, on_both};
use super::session::{BEGIN_IN_LANE, PgSession};
use super::testing::on_both_databases;

/// Files whose statements are put together at run time or read everything on purpose; other tests run them.
const OTHERWISE: &[&str] = &["buckets.rs", "verify.rs", "writing.rs", "testing.rs", "tests.rs", "statements.rs"];

/// What lies between the quotes of a text that begins at the first of them, and what follows.
fn literal(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix('"')?;
    let end = rest.find('"')?;
    Some((&rest[..end], &rest[end + 1..]))
}

/// All literals of the call that begins at `text`, up to the parenthesis that closes it.
fn literals_of_call(mut text: &str) -> Vec<&str> {
    let (mut found, mut depth) = (Vec::new(), 0_i32);
    loop {
        match text.chars().next() {
            Some('"') => {
                let Some((inside, rest)) = literal(text) else { return found };
                found.push(inside);
                text = rest;
                continue;
            }
            Some('(') => depth += 1,
            Some(')') => depth -= 1,
            None => return found,
            Some(_) => {}
        }
        if depth == 0 {
            return found;
        }
        text = &text[text.chars().next().map_or(1, char::len_utf8)..];
    }
}

/// Each statement of the room, with whether it is for PostgreSQL, for SQLite, or for both.
fn statements() -> Vec<(String, bool, bool)> {
    let mut found = BTreeSet::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if OTHERWISE.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        // Heads that macros of the same file put before a tail.
        let head = |name: &str| {
            let at = source.find(&format!("macro_rules! {name} "))?;
            let quote = at + source[at..].find('"')?;
            literal(&source[quote..]).map(|(head, _)| head.to_owned())
        };
        for name in ["select_generations", "select_keys", "select_projects", "select_events"] {
            let Some(head) = head(name) else { continue };
            let call = format!("{name}!(");
            for (at, _) in source.match_indices(&call) {
                if let Some((tail, _)) =
                    source[at + call.len()..].trim_start().split_at_checked(0).and_then(|(_, text)| literal(text))
                {
                    let whole = format!("{head}{tail}");
                    if tail.ends_with(" WHERE g.id") || tail.ends_with(" WHERE stream_id") {
                        found.insert((format!("{whole} = ANY($1)"), true, false));
                        found.insert((format!("{whole} IN (SELECT unhex(value) FROM json_each($1))"), false, true));
                    } else {
                        let sqlite = !whole.contains("ANY(");
                        found.insert((whole, true, sqlite));
                    }
                }
            }
        }
        // A statement of many parts with a list of ids in each.
        if let Some(at) = source.find("macro_rules! limit_rows ") {
            let concat = at + source[at..].find("concat!").unwrap();
            let parts = literals_of_call(&source[concat + "concat!".len()..]);
            // The first list is that of the keys.
            let [keys, rest @ ..] = &parts[..] else { panic!("{parts:?}") };
            assert_eq!(rest.len(), 3, "{rest:?}");
            let sqlite = |n: u32| format!("IN (SELECT unhex(value) FROM json_each(${n}))");
            for (list, of_keys, postgres) in
                [("= ANY($1)".into(), "= ANY($5)".into(), true), (sqlite(1), sqlite(5), false)]
            {
                let whole: String = format!("{keys}{of_keys}{}{list}", rest.join(&list));
                found.insert((whole, postgres, !postgres));
            }
        }
        for (at, call) in source.match_indices("select_by_ids!") {
            let parts = literals_of_call(&source[at + call.len()..]);
            if let [head, tail, lock] = parts[..]
                && head.starts_with("SELECT")
            {
                found.insert((format!("{head} = ANY($1) {tail}{lock}"), true, false));
                found.insert((format!("{head} IN (SELECT unhex(value) FROM json_each($1)) {tail}"), false, true));
            }
        }
        for (at, _) in source.match_indices('"') {
            let Some((text, _)) = literal(&source[at..]) else { continue };
            let first = text.split_whitespace().next().unwrap_or_default();
            let called = source[..at].trim_end();
            // Parts of a statement stand in `concat!`, or before the list of `select_by_ids!`.
            let part = called.ends_with("concat!(")
                || text.trim_end().ends_with(',')
                || text.contains('{')
                || text.matches('(').count() != text.matches(')').count()
                || source[..at]
                    .rfind("select_by_ids!")
                    .is_some_and(|start| literals_of_call(&source[start + 14..]).contains(&text));
            if !["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"].contains(&first) || part {
                continue;
            }
            let postgres =
                ["UNNEST", "ANY(", "pg_", "regclass", "FOR UPDATE", "FOR NO KEY UPDATE", "UPDATE generations g"];
            let sqlite = text.contains("json_each");
            found.insert((text.to_owned(), !sqlite, !postgres.iter().any(|word| text.contains(word))));
        }
    }
    // Put together from parts, of which a batch has some or all.
    found.extend(super::writing::whole_statements().map(|statement| (statement, true, false)));
    found.into_iter().collect()
}

/// Prepares a statement.
async fn prepare(store: &Store, sql: &str) -> Result<(), sqlx::Error> {
    let mut reader = store.reader().await.unwrap();
    let sql = AssertSqlSafe(sql.to_owned()).into_sql_str();
    match reader.connection() {
        Either::Postgres(connection) => connection.prepare(sql).await.map(drop),
        Either::Sqlite(connection) => connection.prepare(sql).await.map(drop),
    }
}

/// The plan of a statement whatever its values, and as the lane plans it on PostgreSQL.
async fn plan(store: &Store, sql: &str) -> Vec<String> {
    let mut reader = store.reader().await.unwrap();
    match reader.connection() {
        Either::Postgres(connection) => {
            let count = (1..=99).filter(|n| sql.contains(&format!("${n}"))).max().unwrap_or(0);
            let values = if count == 0 { String::new() } else { format!("({})", vec!["NULL"; count].join(", ")) };
            let run = async |connection: &mut PgSession, sql: String| {
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.unwrap();
            };
            let in_lane = sql.contains("UNNEST") || sql.contains("FROM ledger_events");
            let begin = if in_lane { BEGIN_IN_LANE } else { "BEGIN" };
            run(connection, begin.to_owned()).await;
            run(connection, format!("SET LOCAL plan_cache_mode = force_generic_plan; PREPARE looked_at AS {sql}"))
                .await;
            let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE looked_at{values}"));
            let lines = sqlx::raw_sql(explain).fetch_all(&mut *connection).await.unwrap();
            run(connection, "DEALLOCATE looked_at; ROLLBACK".to_owned()).await;
            lines.iter().map(|line| line.get::<String, _>(0)).collect()
        }
        Either::Sqlite(connection) => {
            let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
            let lines = sqlx::raw_sql(explain).fetch_all(connection).await.unwrap();
            lines.iter().map(|line| line.get::<String, _>("detail")).collect()
        }
    }
}

/// Tables that keep a row of every request. `unanswered_requests` holds only those that wait.
const LARGE: &[&str] = &["generations", "attempts", "ledger_transactions", "idempotency_keys", "ledger_events"];

/// Whether a line of a plan reads a whole large table.
fn reads_a_whole_table(line: &str, aliases: &[(&str, &str)]) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let postgres = line.find("Seq Scan on ").map(|at| &line[at + 12..]);
    let sqlite = (words.first() == Some(&"SCAN") && !line.contains("USING")).then(|| words[1]);
    let Some(table) = postgres.or(sqlite).and_then(|rest| rest.split_whitespace().next()) else { return false };
    let table = table.trim_end_matches("_default");
    let table = aliases.iter().find(|(alias, _)| *alias == table).map_or(table, |(_, table)| table);
    LARGE.contains(&table)
}

/// Fills the large tables, so that the planner has something to choose about.
async fn seed(store: &Store) {
    let (id, rows, other) = if store.is_postgres() {
        ("gen_random_uuid()", "generate_series(1, 20000) AS n", "gen_random_uuid()")
    } else {
        (
            "randomblob(16)",
            "(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 20000) SELECT n FROM c)",
            "randomblob(16)",
        )
    };
    let mut transaction = store.begin().await.unwrap();
    for statement in [
        format!(
            "INSERT INTO generations (id, project_id, api_key_id, request_id, state, owner, source, model, provider, endpoint,
                 num_images, parameters, cancel_if_client_leaves, created_at, deadline_at, settled_at, price, cost,
                 cost_source, images, megapixels, reason, hold)
             SELECT {id}, p.id, k.id, {other}, 'succeeded', {other}, 's', 'm', 'fal', 'e', 1, '{{}}', FALSE, n, n, n, 0, 0,
                 'computed', 1, 0, 'r', 0
             FROM {rows} CROSS JOIN (SELECT id FROM projects LIMIT 1) p CROSS JOIN (SELECT id FROM api_keys LIMIT 1) k"
        ),
        "INSERT INTO attempts (generation_id, n, endpoint, credential, provider_request_id, status_url, response_url,
             cancel_url, submitted_at)
         SELECT id, 1, 'e', 'c', CAST(created_at AS TEXT), 's', 'r', 'c', 1 FROM generations".to_owned(),
        "INSERT INTO ledger_transactions (id, kind, project_id, generation_id, reason, created_at, cost_of_sales, provider)
         SELECT id, 'settlement', project_id, id, '', created_at, 1, -1 FROM generations".to_owned(),
        format!(
            "INSERT INTO ledger_events (stream_id, n, writer, seq, kind, project_id, api_key_id, at, held, opened, project,
                 revenue, cost_of_sales, provider, funding, payload)
             SELECT id, 1, {}, created_at, 'reserved', project_id, api_key_id, created_at, 0, 1, 0, 0, 0, 0, 0, '{{}}'
             FROM generations",
            if store.is_postgres() { "gen_random_uuid()" } else { "randomblob(16)" }
        ),
        format!(
            "INSERT INTO idempotency_keys (project_id, key, digest, generation_id, created_at, expires_at)
             SELECT project_id, CAST(created_at AS TEXT), {}, id, 1, created_at + 2 FROM generations",
            if store.is_postgres() { "sha256('')" } else { "zeroblob(32)" }
        ),
        format!(
            "INSERT INTO unanswered_requests (generation_id, api_key_id, digest, replica, created_at)
             SELECT id, api_key_id, {}, id, created_at FROM generations",
            if store.is_postgres() { "sha256(id::text::bytea)" } else { "CAST(id || id AS BLOB)" }
        ),
    ] {
        execute(&mut transaction, &statement).await;
    }
    transaction.commit().await.unwrap();
    store.execute("ANALYZE").await.unwrap();
}

async fn execute(transaction: &mut WriteTransaction, sql: &str) {
    let sql = AssertSqlSafe(sql.to_owned());
    on_both!(transaction.connection(), connection => sqlx::query(sql).execute(connection).await.map(drop)).unwrap();
}

on_both_databases! {
    async fn every_statement_fits_the_tables(database) {
        let store = database.store().await;
        let mut count = 0;
        for (sql, postgres, sqlite) in statements() {
            if if store.is_postgres() { postgres } else { sqlite } {
                prepare(&store, &sql).await.unwrap_or_else(|error| panic!("{error}: {sql}"));
                count += 1;
            }
        }
        assert!(count > 55, "only {count} statements were found");
    }

    async fn no_statement_that_looks_for_keyed_rows_reads_a_whole_table(database) {
        let store = database.store().await;
        store.add_project(crate::domain::Timestamp::from_seconds(1)).await;
        seed(&store).await;
        let aliases = [
            ("g", "generations"), ("a", "attempts"), ("t", "ledger_transactions"), ("i", "idempotency_keys"), ("u", "unanswered_requests"),
            ("e", "ledger_events"),
        ];
        let mut looked_at = 0;
        for (sql, postgres, sqlite) in statements() {
            // The bare head of a list has no condition; it is only ever run with one and a limit. What maintenance
            // removes in rounds of thousands is no keyed row.
            let fits = if store.is_postgres() { postgres } else { sqlite };
            if !fits || !sql.contains("WHERE") || sql.trim_end().ends_with("WHERE TRUE") || sql.starts_with("INSERT")
                || sql.contains("LIMIT $2)")
            {
                continue;
            }
            let lines = plan(&store, &sql).await;
            let whole = lines.iter().find(|line| reads_a_whole_table(line, &aliases));
            assert!(whole.is_none(), "{sql}\n{}", lines.join("\n"));
            looked_at += 1;
        }
        assert!(looked_at > 30, "only {looked_at} statements were looked at");
    }

    async fn a_batch_is_joined_by_key_also_while_the_tables_are_young(database) {
        let store = database.store().await;
        // Nobody has told the planner anything about the tables.
        for (sql, postgres, _) in statements() {
            if store.is_postgres() && postgres && sql.contains("UNNEST") {
                let lines = plan(&store, &sql).await;
                assert!(!lines.iter().any(|line| line.contains("Join Filter")), "{sql}\n{}", lines.join("\n"));
            }
        }
    }
}

#[test]
fn a_whole_table_in_a_plan_is_recognized() {
    let aliases = [("g", "generations")];
    for line in
        ["Seq Scan on generations_default g  (cost=0..1)", "  ->  Seq Scan on attempts a", "SCAN g", "SCAN attempts"]
    {
        assert!(reads_a_whole_table(line, &aliases), "{line}");
    }
    for line in [
        "Index Scan using attempts_pk on attempts a",
        "SCAN g USING INDEX generations_open",
        "Seq Scan on replicas",
        "SEARCH g USING INDEX x",
    ] {
        assert!(!reads_a_whole_table(line, &aliases), "{line}");
    }
}
