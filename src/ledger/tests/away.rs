//! The database goes away and comes back.

use std::time::Instant;

use futures_util::future::join_all;

use self::proxy::{Mode, Proxy};
use super::*;
use crate::store::StoreOptions;

#[path = "../../../tests/common/proxy.rs"]
#[expect(dead_code, reason = "shared with the tests of the whole program")]
mod proxy;

fn quick() -> StoreOptions {
    StoreOptions {
        acquire_timeout: Duration::from_secs(2),
        write_timeout: Duration::from_secs(3),
        read_timeout: Duration::from_secs(3),
        ..StoreOptions::default()
    }
}

/// A desk with a direct line to its database, and one by a wire that can be made to misbehave. The database goes away when it
/// is dropped.
async fn over_a_wire() -> (TestDatabase, Desk, Proxy, Desk) {
    let mut database = TestDatabase::postgres().await;
    let direct = Desk::open(&database).await;
    let wire = Proxy::to(&database.address).await;
    database.address = wire.address(&database.address);
    let desk = Desk::with(database.open_with(quick()).await, direct.project, direct.key);
    (database, direct, wire, desk)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_found_by_the_second_try() {
    let (_database, direct, wire, desk) = over_a_wire().await;
    let key = Some(Idempotency { key: "k".to_owned(), digest: [1; 32], expires_at: NOW.plus(Duration::from_mins(1)) });
    let reservation = Reservation { idempotency: key, ..desk.reservation(dollars("0.1")) };
    let id = reservation.id;
    wire.lose_commit(1, Mode::Open);
    assert_eq!(desk.books.reserve(reservation).await, Ok(Reserved::default()));
    wire.lose_commit(1, Mode::Open);
    assert_eq!(desk.books.submitted(submit_of(id, 1)).await, Ok(Recorded::Open));
    wire.lose_commit(1, Mode::Open);
    assert!(desk.books.finish(delivered(id, dollars("0.1"), dollars("0.05"))).await.is_ok());
    assert_eq!(wire.lost_commits(), 3);
    let balance = desk.balance().await;
    assert_eq!((balance.posted, balance.held), (dollars("-0.1"), Money::ZERO));
    assert!(desk.books.healthy().await);
    desk.close().await;
    direct.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reservation_of_which_nobody_knows_whether_it_was_made_says_so() {
    let (_database, direct, wire, desk) = over_a_wire().await;
    let reservation = desk.reservation(dollars("0.1"));
    let id = reservation.id;
    wire.lose_commit(1, Mode::Refusing);
    assert!(matches!(desk.books.reserve(reservation).await, Err(ReserveError::OutcomeUnknown(_))));
    assert!(direct.books.generation(id).await.unwrap().is_some(), "it was made");
    // What never reached the database is not in doubt.
    assert!(matches!(desk.books.reserve(desk.reservation(dollars("0.1"))).await, Err(ReserveError::Unavailable(_))));
    wire.set(Mode::Open);
    let begin = Instant::now();
    while desk.books.finish(failed(id)).await.is_err() {
        assert!(begin.elapsed() < Duration::from_secs(30), "it did not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    desk.close().await;
    direct.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_falls_silent_refuses_everybody_in_time_and_comes_back_by_itself() {
    let (_database, direct, wire, desk) = over_a_wire().await;
    let id = desk.reserve(dollars("0.1")).await;
    assert!(desk.books.healthy().await);

    wire.set(Mode::Silent);
    let reserved = join_all((0..100).map(|_| desk.books.reserve(desk.reservation(dollars("0.1")))));
    let (reserved, finished) = tokio::join!(reserved, desk.books.finish(failed(id)));
    // Those of the batch that was under way may have been written.
    let refused =
        |result: &Result<_, _>| matches!(result, Err(ReserveError::Unavailable(_) | ReserveError::OutcomeUnknown(_)));
    assert!(reserved.iter().all(refused), "{reserved:?}");
    assert!(matches!(finished, Err(LedgerError::Unavailable(_))));
    // Once it is known, nobody waits for a connection any more.
    let begin = Instant::now();
    assert!(matches!(desk.books.reserve(desk.reservation(dollars("0.1"))).await, Err(ReserveError::Unavailable(_))));
    assert!(!desk.books.healthy().await);
    assert!(begin.elapsed() < quick().acquire_timeout, "{:?}", begin.elapsed());
    assert!(matches!(desk.books.generation(id).await, Err(LedgerError::Unavailable(_))));

    wire.set(Mode::Open);
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
    let database = TestDatabase::postgres().await;
    let desk = Desk::open(&database).await;
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
    let database = TestDatabase::sqlite();
    let desk = Desk::open(&database).await;
    desk.store.close().await;
    assert!(matches!(desk.books.reserve(desk.reservation(dollars("0.1"))).await, Err(ReserveError::Unavailable(_))));
    assert!(!desk.books.healthy().await);
    desk.books.close();
    desk.tracker.close();
    tokio::time::timeout(Duration::from_mins(1), desk.tracker.wait()).await.unwrap();
}
