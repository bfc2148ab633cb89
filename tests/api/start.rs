//! The first start, the second, and what stops a start.

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use reqwest::StatusCode;
use tempfile::TempDir;

use crate::support::tools::tool;
use crate::support::{Database, Start, TestDatabase, client, read, start_sandbox};

/// The binary in a folder, with these settings only; stopped after it has printed its welcome or ended.
fn first_start(folder: &TempDir, port: u16) -> std::process::Child {
    Command::new(env!("CARGO_BIN_EXE_imagegate"))
        .env_clear()
        .env("IMAGEGATE_BIND", format!("127.0.0.1:{port}"))
        .env("IMAGEGATE_SANDBOX_DELAY", "0")
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(folder.path().join("printed")).unwrap())
        .stderr(std::fs::File::create(folder.path().join("logged")).unwrap())
        .spawn()
        .unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn wait_until_ready(port: u16) {
    crate::support::eventually(Duration::from_secs(20), || async move {
        let answer = client().get(format!("http://127.0.0.1:{port}/readyz")).send().await.ok()?;
        (answer.status() == StatusCode::OK).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_first_start_prints_keys_and_a_request_that_works_when_pasted_and_the_second_prints_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut first = first_start(&folder, port);
    wait_until_ready(port).await;
    let printed = std::fs::read_to_string(folder.path().join("printed")).unwrap();
    let curl: Vec<&str> = printed.lines().filter(|line| line.starts_with("curl ")).collect();
    assert_eq!(curl.len(), 2, "{printed}");
    let pasted = Command::new("bash").arg("-c").arg(format!("{} -s -i", curl[0])).output().unwrap();
    let answer = String::from_utf8(pasted.stdout).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(answer.contains("x-imagegate-upstream: sandbox"), "{answer}");
    let body: serde_json::Value = serde_json::from_str(answer.lines().last().unwrap()).unwrap();
    let url = body["images"][0]["url"].as_str().unwrap();
    assert!(url.starts_with(&format!("http://127.0.0.1:{port}/")), "some clients refuse files of another port: {url}");
    let file = client().get(url).send().await.unwrap().bytes().await.unwrap();
    let picture = image::load_from_memory(&file).unwrap();
    assert_eq!((picture.width(), picture.height()), (1472, 512));
    let costs = Command::new("bash").arg("-c").arg(format!("{} -s", curl[1])).output().unwrap();
    assert!(String::from_utf8(costs.stdout).unwrap().contains("\"price_usd\":\"0.035000000\""));
    let ready = client().get(format!("http://127.0.0.1:{port}/readyz")).send().await.unwrap();
    assert_eq!(read(ready, StatusCode::OK).await["upstream"], "sandbox");
    assert!(folder.path().join("data/imagegate.db").exists());
    let logged = std::fs::read_to_string(folder.path().join("logged")).unwrap();
    assert!(logged.contains("FAL_KEY is not set"), "{logged}");
    first.kill().unwrap();
    first.wait().unwrap();

    let mut second = first_start(&folder, port);
    wait_until_ready(port).await;
    let reprinted = std::fs::read_to_string(folder.path().join("printed")).unwrap();
    assert!(!reprinted.contains("sk-ig-"), "{reprinted}");
    let pasted = Command::new("bash").arg("-c").arg(format!("{} -s -i", curl[0])).output().unwrap();
    assert!(String::from_utf8(pasted.stdout).unwrap().starts_with("HTTP/1.1 201"), "the keys are not the same");
    let file = client().get(url).send().await.unwrap();
    assert_eq!(file.status(), StatusCode::OK, "the stand-in's pictures survive a restart");
    second.kill().unwrap();
    second.wait().unwrap();
}

fn fails(settings: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_imagegate"))
        .env_clear()
        .envs(settings.iter().copied())
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success(), "it started with {settings:?}");
    output
}

#[test]
fn a_start_that_cannot_be_ends_with_one_clear_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let server = tool("IMAGEGATE_TEST_POSTGRES");
    let (server, _) = server.rsplit_once('/').unwrap();
    let nowhere = format!("{server}/no_such_database");
    for (settings, words) in [
        (vec![("IMAGEGATE_MARKUP", "plenty")], vec!["IMAGEGATE_MARKUP", "plenty", "decimal"]),
        (vec![("IMAGEGATE_BIND", address.as_str())], vec!["IMAGEGATE_BIND", address.as_str()]),
        (
            vec![("DATABASE_URL", nowhere.as_str()), ("IMAGEGATE_BIND", "127.0.0.1:0")],
            vec!["DATABASE_URL=`postgres://…@127.0.0.1", "refuses the connection", "does not exist"],
        ),
        (
            vec![("DATABASE_URL", "sqlite:///proc/x.db"), ("IMAGEGATE_BIND", "127.0.0.1:0")],
            vec![
                "DATABASE_URL=`sqlite:///proc/x.db`",
                "the database cannot be written",
                "rights of the file and its folder",
            ],
        ),
        (
            vec![("DATABASE_URL", "sqlite:///proc/nope/x.db"), ("IMAGEGATE_BIND", "127.0.0.1:0")],
            vec!["DATABASE_URL=`sqlite:///proc/nope/x.db`", "a file that can be written"],
        ),
        (vec![("DATABASE_URL", "mysql://x")], vec!["DATABASE_URL", "postgres://"]),
        (vec![("IMAGEGATE_MODELS_DIR", "/nowhere/at/all")], vec!["IMAGEGATE_MODELS_DIR=`/nowhere/at/all`"]),
        (
            vec![
                ("IMAGEGATE_TLS_CERT", "/nope.pem"),
                ("IMAGEGATE_TLS_KEY", "/nope.key"),
                ("IMAGEGATE_BIND", "127.0.0.1:0"),
            ],
            vec!["IMAGEGATE_TLS_CERT=/nope.pem"],
        ),
        (vec![("FAL_KEY", ",")], vec!["FAL_KEY", "key_id:key_secret"]),
        (vec![("IMAGEGATE_LOG", "a=b=c")], vec!["IMAGEGATE_LOG"]),
    ] {
        let output = fails(&settings);
        let said = String::from_utf8(output.stderr).unwrap();
        let sentence: Vec<&str> = said.lines().filter(|line| line.starts_with("imagegate: ")).collect();
        assert_eq!(sentence.len(), 1, "{said}");
        for word in words {
            assert!(sentence[0].to_lowercase().contains(&word.to_lowercase()), "`{word}` is not in: {}", sentence[0]);
        }
        assert_eq!(said.lines().count(), 1, "nothing but the sentence: {said}");
    }
}

#[test]
fn a_database_that_nobody_serves_is_waited_for_and_then_told() {
    let nobody = format!("postgres://nobody@127.0.0.1:{}/none", free_port());
    let output = fails(&[("DATABASE_URL", nobody.as_str()), ("IMAGEGATE_BIND", "127.0.0.1:0")]);
    let said = String::from_utf8(output.stderr).unwrap();
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("imagegate: DATABASE_URL=`postgres://…@127.0.0.1"), "{said}");
    assert!(last.contains("cannot be reached") && last.contains("refused"), "{said}");
    assert!(said.lines().count() > 5 && said.contains("trying again"), "{said}");
}

/// As long as somebody else has every connection, or has locked the file, a start waits.
async fn starts_once_it_may(url: &str, free: impl AsyncFnOnce()) {
    let folder = tempfile::tempdir().unwrap();
    let fal = start_sandbox(Duration::ZERO);
    let logged = folder.path().join("logged");
    let mut command = Start::new(url, &fal.queue_url()).command(&folder);
    let mut gateway = command.stderr(std::fs::File::create(&logged).unwrap()).spawn().unwrap();
    let log = || std::fs::read_to_string(&logged).unwrap();
    crate::support::eventually(Duration::from_secs(10), || async { log().contains("trying again").then_some(()) })
        .await;
    free().await;
    crate::support::eventually(Duration::from_secs(20), || async { log().contains("is listening").then_some(()) })
        .await;
    assert!(Command::new("kill").arg(gateway.id().to_string()).status().unwrap().success());
    assert!(gateway.wait().unwrap().success(), "{}", log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_connection_left_is_waited_for() {
    let database = TestDatabase::new(Database::Postgres).await;
    let name = database.url.rsplit('/').next().unwrap().to_owned();
    let role = format!("late_{name}");
    let execute = async |statement: String| database.execute(Box::leak(statement.into_boxed_str())).await;
    execute(format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 0; ALTER DATABASE {name} OWNER TO {role}")).await;
    let mut url = url::Url::parse(&database.url).unwrap();
    url.set_username(&role).unwrap();
    starts_once_it_may(url.as_str(), async || {
        execute(format!("ALTER ROLE {role} CONNECTION LIMIT -1")).await;
    })
    .await;
    execute(format!("REASSIGN OWNED BY {role} TO imagegate; DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_somebody_has_locked_is_waited_for() {
    use sqlx::Connection;
    let database = TestDatabase::new(Database::Sqlite).await;
    let file = format!("{}?mode=rwc", database.url);
    let mut lock = sqlx::SqliteConnection::connect(&file).await.unwrap();
    sqlx::raw_sql("CREATE TABLE lock (n); BEGIN EXCLUSIVE").execute(&mut lock).await.unwrap();
    starts_once_it_may(&database.url, async || {
        sqlx::raw_sql("ROLLBACK; DROP TABLE lock").execute(&mut lock).await.unwrap();
        lock.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_sandbox_runs_alone_and_says_how_to_use_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut sandbox = Command::new(env!("CARGO_BIN_EXE_imagegate"))
        .arg("sandbox")
        .env_clear()
        .env("IMAGEGATE_SANDBOX_DELAY", "0")
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(folder.path().join("printed")).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let queue_url = crate::support::eventually(Duration::from_secs(20), || async {
        let printed = std::fs::read_to_string(folder.path().join("printed")).unwrap();
        let rest = printed.split("FAL_QUEUE_URL=").nth(1)?;
        Some(rest.split_whitespace().next().unwrap().to_owned())
    })
    .await;
    let submit = client().post(format!("{queue_url}/fal-ai/flux/dev")).header("authorization", "Key a:b");
    let submit = submit.json(&serde_json::json!({"prompt": "a"})).send().await.unwrap();
    assert_eq!(read(submit, StatusCode::OK).await["status"], "IN_QUEUE");
    let stopped = Command::new("kill").arg(sandbox.id().to_string()).status().unwrap();
    assert!(stopped.success());
    assert_eq!(sandbox.wait().unwrap().code(), Some(0));
    assert!(!folder.path().join("data").exists(), "the sandbox alone needs no database");
}
