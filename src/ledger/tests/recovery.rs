//! Taking over what a dead replica left open.

use std::collections::BTreeSet;

use super::*;
use crate::store::testing::on_both_databases;

const PATIENCE: Duration = Duration::from_hours(1);

/// Nobody gave a sign of life for a long time, and what is open is as old.
async fn long_silence(desk: &Desk) {
    desk.store.execute("UPDATE replicas SET heartbeat_at = 1").await.unwrap();
    desk.store.execute("UPDATE generations SET created_at = 1").await.unwrap();
}

fn ids(records: &[GenerationRecord]) -> BTreeSet<GenerationId> {
    records.iter().map(|record| record.id).collect()
}

on_both_databases! {
    async fn open_generations_of_a_silent_replica_are_adopted_with_their_attempt(database) {
        let dead = Desk::open(&database).await;
        dead.books.heartbeat(dead.owner).await.unwrap();
        let submitted = dead.reserve(dollars("0.1")).await;
        dead.books.submitted(submit_of(submitted, 1)).await.unwrap();
        let bare = dead.reserve(dollars("0.1")).await;
        let ended = dead.reserve(dollars("0.1")).await;
        dead.books.finish(failed(ended)).await.unwrap();
        let heir = dead.another(&database).await;
        assert_eq!(heir.books.adopt(heir.owner, PATIENCE, 100).await, Ok(vec![]));
        long_silence(&dead).await;
        heir.books.heartbeat(heir.owner).await.unwrap();
        let adopted = heir.books.adopt(heir.owner, PATIENCE, 100).await.unwrap();
        assert_eq!(ids(&adopted), BTreeSet::from([submitted, bare]));
        assert!(adopted.iter().all(|record| record.owner == heir.owner));
        assert_eq!(adopted.iter().filter(|record| record.attempt.is_some()).count(), 1);
        assert_eq!(ids(&heir.books.open_of(heir.owner).await.unwrap()), ids(&adopted));
        // The dead one comes back to life: the id that it brings is kept, and its finish still counts once.
        assert_eq!(dead.books.submitted(submit_of(bare, 1)).await, Ok(Recorded::Open));
        assert_eq!(heir.books.finish(Finish { attempt: 0, ..failed(bare) }).await, Err(LedgerError::NewerAttempt));
        assert_eq!(dead.books.finish(failed(bare)).await, Ok(Applied::Now));
        assert_eq!(heir.books.finish(failed(bare)).await, Ok(Applied::Already));
        heir.close().await;
        dead.close().await;
    }

    async fn a_replica_that_shows_signs_of_life_keeps_its_generations(database) {
        let desk = Desk::open(&database).await;
        desk.reserve(dollars("0.1")).await;
        desk.books.heartbeat(desk.owner).await.unwrap();
        long_silence(&desk).await;
        desk.books.heartbeat(desk.owner).await.unwrap();
        assert_eq!(desk.books.adopt(SystemIds.uuid(), PATIENCE, 100).await, Ok(vec![]));
        long_silence(&desk).await;
        assert_eq!(desk.books.adopt(desk.owner, PATIENCE, 100).await, Ok(vec![]));
        desk.close().await;
    }

    async fn a_replica_that_is_back_takes_back_what_is_still_open(database) {
        let desk = Desk::open(&database).await;
        let (open, ended) = (desk.reserve(dollars("0.1")).await, desk.reserve(dollars("0.1")).await);
        long_silence(&desk).await;
        let heir = SystemIds.uuid();
        assert_eq!(desk.books.adopt(heir, PATIENCE, 100).await.unwrap().len(), 2);
        desk.books.finish(failed(ended)).await.unwrap();
        assert_eq!(desk.books.reclaim(desk.owner, &[open, ended]).await, Ok(1));
        assert_eq!(desk.books.reclaim(desk.owner, &[open, ended]).await, Ok(0));
        assert_eq!(desk.books.reclaim(desk.owner, &[]).await, Ok(0));
        assert_eq!(ids(&desk.books.open_of(desk.owner).await.unwrap()), BTreeSet::from([open]));
        assert!(desk.books.open_of(heir).await.unwrap().is_empty());
        desk.close().await;
    }

    async fn what_a_retired_replica_left_is_adopted_without_waiting_for_its_silence(database) {
        let desk = Desk::open(&database).await;
        let id = desk.reserve(dollars("0.1")).await;
        long_silence(&desk).await;
        desk.books.heartbeat(desk.owner).await.unwrap();
        assert_eq!(desk.books.adopt(SystemIds.uuid(), PATIENCE, 100).await, Ok(vec![]));
        desk.books.retire(desk.owner, NOW).await.unwrap();
        assert_eq!(ids(&desk.books.adopt(SystemIds.uuid(), PATIENCE, 100).await.unwrap()), BTreeSet::from([id]));
        desk.close().await;
    }

    async fn replicas_that_adopt_together_get_different_generations(database) {
        let dead = Desk::open(&database).await;
        let mut left = BTreeSet::new();
        for _ in 0..40 {
            left.insert(dead.reserve(dollars("0.1")).await);
        }
        long_silence(&dead).await;
        let heirs: Vec<_> = (0..4).map(|_| SystemIds.uuid()).collect();
        let mut adopted = BTreeSet::new();
        for _ in 0..20 {
            for heir in &heirs {
                dead.books.heartbeat(*heir).await.unwrap();
            }
            let rounds = futures_util::future::join_all(
                heirs.iter().map(|heir| dead.books.adopt(*heir, PATIENCE, 7)),
            )
            .await;
            for record in rounds.into_iter().flat_map(Result::unwrap) {
                assert!(adopted.insert(record.id), "`{}` was adopted twice", record.id);
            }
        }
        assert_eq!(adopted, left);
        dead.close().await;
    }

    async fn maintenance_forgets_what_has_expired_and_nothing_else(database) {
        let desk = Desk::open(&database).await;
        for seconds in [60, 120] {
            let idempotency = Some(Idempotency {
                key: seconds.to_string(),
                digest: [1; 32],
                expires_at: NOW.plus(Duration::from_secs(seconds)),
            });
            desk.books.reserve(Reservation { idempotency, ..desk.reservation(dollars("0.1")) }).await.unwrap();
        }
        desk.books.heartbeat(desk.owner).await.unwrap();
        let beat = format!("UPDATE replicas SET heartbeat_at = {}", NOW.micros());
        desk.store.execute(&beat).await.unwrap();
        let purged = desk.books.maintain(NOW.plus(Duration::from_mins(1))).await.unwrap();
        assert_eq!((purged.idempotency_keys, purged.replicas), (1, 0));
        assert_eq!(desk.store.number("SELECT COUNT(*) FROM idempotency_keys").await, 1);
        let purged = desk.books.maintain(NOW.plus(Duration::from_hours(25))).await.unwrap();
        assert_eq!((purged.idempotency_keys, purged.replicas), (1, 1));
        desk.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_generations_go_into_the_partition_of_their_month() {
    let database = TestDatabase::postgres().await;
    let desk = Desk::open(&database).await;
    // 2027-01-02, in UUIDv7: recorded before its month was made.
    let early = GenerationId::from_uuid(Uuid::from_u128((1_798_848_000_000 << 80) | (7 << 76) | (2 << 62)));
    desk.books.reserve(Reservation { id: early, ..desk.reservation(dollars("0.1")) }).await.unwrap();
    assert!(desk.books.generation(early).await.unwrap().is_some());
    desk.books.maintain(NOW).await.unwrap();
    desk.books.maintain(NOW).await.unwrap();
    let partitions = "SELECT COUNT(*) FROM pg_inherits WHERE inhparent = 'generations'::regclass";
    assert_eq!(desk.store.number(partitions).await, 1 + 3);
    // 2026-12-09, in UUIDv7.
    let millis: u128 = 1_796_774_400_000;
    let id = GenerationId::from_uuid(Uuid::from_u128((millis << 80) | (7 << 76) | (2 << 62)));
    desk.books.reserve(Reservation { id, ..desk.reservation(dollars("0.1")) }).await.unwrap();
    assert_eq!(desk.store.number("SELECT COUNT(*) FROM generations_2026_12").await, 1);
    assert_eq!(desk.store.number("SELECT COUNT(*) FROM generations_default").await, 1);
    desk.books.finish(delivered(id, dollars("0.1"), Money::ZERO)).await.unwrap();
    desk.close().await;
}
