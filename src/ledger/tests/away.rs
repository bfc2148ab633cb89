//! The database goes away and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::store::StoreOptions;

/// A wire to a server that can be made to swallow everything, as a network that drops packets does.
struct Wire {
    port: u16,
    silent: Arc<AtomicBool>,
}

impl Wire {
    async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let silent = Arc::new(AtomicBool::new(false));
        let wire = Self { port, silent: Arc::clone(&silent) };
        Handle::current().spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (client_read, client_write) = client.into_split();
                let Ok(upstream) = TcpStream::connect(&server).await else {
                    continue;
                };
                let (server_read, server_write) = upstream.into_split();
                Handle::current().spawn(carry(client_read, server_write, Arc::clone(&silent)));
                Handle::current().spawn(carry(server_read, client_write, Arc::clone(&silent)));
            }
        });
        wire
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    silent: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 {
            return;
        }
        // Nothing that falls into the silence arrives later: both ends must notice by themselves.
        if !silent.load(Ordering::SeqCst) && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

fn quick() -> StoreOptions {
    StoreOptions {
        acquire_timeout: Duration::from_secs(2),
        write_timeout: Duration::from_secs(3),
        read_timeout: Duration::from_secs(3),
        ..StoreOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_falls_silent_refuses_everybody_in_time_and_comes_back_by_itself() {
    let mut database = TestDatabase::postgres().await;
    let direct = Desk::open(&database).await;
    let mut url = url::Url::parse(&database.address).unwrap();
    let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
    let wire = Wire::to(server).await;
    url.set_port(Some(wire.port)).unwrap();
    database.address = url.to_string();
    let desk = Desk::with(database.open_with(quick()).await, direct.project, direct.key);
    let id = desk.reserve(dollars("0.1")).await;
    assert!(desk.books.healthy().await);

    wire.silent.store(true, Ordering::SeqCst);
    let reserved = join_all((0..100).map(|_| desk.books.reserve(desk.reservation(dollars("0.1")))));
    let (reserved, finished) = tokio::join!(reserved, desk.books.finish(failed(id)));
    assert!(reserved.iter().all(|result| matches!(result, Err(ReserveError::Unavailable(_)))));
    assert!(matches!(finished, Err(LedgerError::Unavailable(_))));
    // Once it is known, nobody waits for a connection any more.
    let begin = Instant::now();
    assert!(matches!(desk.books.reserve(desk.reservation(dollars("0.1"))).await, Err(ReserveError::Unavailable(_))));
    assert!(!desk.books.healthy().await);
    assert!(begin.elapsed() < quick().acquire_timeout, "{:?}", begin.elapsed());
    assert!(matches!(desk.books.generation(id).await, Err(LedgerError::Unavailable(_))));

    wire.silent.store(false, Ordering::SeqCst);
    let begin = Instant::now();
    while !desk.books.healthy().await {
        assert!(begin.elapsed() < Duration::from_mins(2), "it did not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(desk.books.finish(failed(id)).await, Ok(Applied::Now));
    desk.reserve(dollars("0.1")).await;
    desk.close().await;
    direct.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_the_server_has_cut_are_replaced_unnoticed() {
    let desk = Desk::open(&TestDatabase::postgres().await).await;
    for _ in 0..3 {
        desk.reserve(dollars("0.1")).await;
        let cut = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
        assert!(desk.store.number(cut).await > 0);
    }
    desk.reserve(dollars("0.1")).await;
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_sqlite_file_makes_the_books_unavailable_until_it_is_free() {
    let database = TestDatabase::sqlite();
    let owner = Desk::open(&database).await;
    let desk = Desk::with(database.open_with(quick()).await, owner.project, owner.key);
    let lock = owner.store.begin().await.unwrap();
    let begin = Instant::now();
    assert!(matches!(desk.books.reserve(desk.reservation(dollars("0.1"))).await, Err(ReserveError::Unavailable(_))));
    drop(lock);
    while desk.books.reserve(desk.reservation(dollars("0.1"))).await.is_err() {
        assert!(begin.elapsed() < Duration::from_mins(2), "it did not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    desk.close().await;
    owner.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_closed_makes_the_books_unavailable() {
    let desk = Desk::open(&TestDatabase::sqlite()).await;
    desk.store.close().await;
    assert!(matches!(desk.books.reserve(desk.reservation(dollars("0.1"))).await, Err(ReserveError::Unavailable(_))));
    assert!(!desk.books.healthy().await);
    desk.books.close();
    desk.tracker.close();
    tokio::time::timeout(Duration::from_mins(1), desk.tracker.wait()).await.unwrap();
}
