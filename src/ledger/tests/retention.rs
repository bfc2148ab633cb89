//! Months of generations that go, while the ledger stays.

use super::*;
use crate::store::testing::on_both_databases;
use crate::store::{ActorKind, AuditEvent, AuditRecord};

/// 2026-05-15T00:00:00Z and 2026-06-01T00:00:00Z.
const MAY: Timestamp = Timestamp::from_seconds(1_778_803_200);
const JUNE: Timestamp = Timestamp::from_seconds(1_780_272_000);

fn audit() -> AuditRecord {
    AuditRecord {
        id: crate::domain::AuditLogId::from_uuid(SystemIds.uuid()),
        event: AuditEvent::GenerationsDropped,
        at: NOW,
        actor: ActorKind::Command,
        actor_api_key_id: None,
        ip: None,
        user_agent: None,
        project_id: None,
        resource_id: "2026-05".to_owned(),
        before: None,
        after: None,
    }
}

/// An id that was made at this time.
fn id_of(at: Timestamp) -> GenerationId {
    let random = SystemIds.uuid().as_u128() & ((1 << 80) - 1);
    GenerationId::from_uuid(Uuid::from_u128((u128::try_from(at.micros() / 1000).unwrap() << 80) | random))
}

async fn made(desk: &Desk, at: Timestamp, settled_at: Timestamp, price: &str) -> GenerationId {
    let reservation = Reservation { id: id_of(at), created_at: at, ..desk.reservation(dollars("1")) };
    let id = reservation.id;
    desk.books.reserve(reservation).await.unwrap();
    desk.books.submitted(submit_of(id, 1)).await.unwrap();
    let finish = Finish { settled_at, ..delivered(id, dollars(price), dollars("0.01")) };
    assert_eq!(desk.books.finish(finish).await, Ok(Applied::Now));
    id
}

fn refund(generation: GenerationId, amount: &str, at: Timestamp) -> Refund {
    let (id, reason, author) = (SystemIds.uuid(), "a bad picture".to_owned(), "ada".to_owned());
    Refund { id, generation, amount: dollars(amount), reason, author, at, audit: None }
}

async fn all_charges(desk: &Desk) -> Vec<ChargeRecord> {
    let (from, before) = (Timestamp::from_seconds(0), NOW.plus(Duration::from_hours(1)));
    desk.books.charges(&ChargeFilter { from, before, project_id: None, after: None, limit: 100 }).await.unwrap()
}

/// What the sums of the days say that was paid and given back.
async fn days(desk: &Desk) -> (i64, i64) {
    let sum = async |column: &str| {
        let of_days = format!("SELECT CAST(COALESCE(SUM({column}), 0) AS BIGINT) FROM usage_days");
        let of_models = format!("SELECT CAST(COALESCE(SUM({column}), 0) AS BIGINT) FROM usage_day_models");
        let (days, models) = (desk.store.number(&of_days).await, desk.store.number(&of_models).await);
        assert_eq!(days, models);
        days
    };
    (sum("price").await, sum("refunded").await)
}

async fn drop_may(desk: &Desk) -> Result<i64, String> {
    drop_month(&desk.store, "2026-05", NOW, &audit()).await.map_err(|error| error.to_string())
}

/// A month in its own partition, in the default one, and on SQLite.
async fn a_month_goes(desk: Desk) {
    desk.prepaid(dollars("10")).await;
    let first = made(&desk, MAY, MAY.plus(Duration::from_secs(9)), "0.5").await;
    // Made in May and settled in June: it goes with May, and its day in June still adds up.
    let last = Timestamp::from_micros(JUNE.micros() - 1000);
    let over_midnight = made(&desk, last, JUNE.plus(Duration::from_secs(9)), "0.25").await;
    let stays = made(&desk, JUNE, JUNE.plus(Duration::from_secs(9)), "0.125").await;
    let free = Reservation { id: id_of(MAY), created_at: MAY, ..desk.reservation(dollars("1")) };
    let free_id = free.id;
    desk.books.reserve(free).await.unwrap();
    desk.books.finish(Finish { settled_at: MAY, ..failed(free_id) }).await.unwrap();
    // Its cost came to light after it had ended, and goes with the month as well.
    let late_one = Reservation { id: id_of(MAY), created_at: MAY, ..desk.reservation(dollars("1")) };
    let late_id = late_one.id;
    desk.books.reserve(late_one).await.unwrap();
    desk.books.submitted(submit_of(late_id, 1)).await.unwrap();
    desk.books.finish(Finish { settled_at: MAY, ..failed(late_id) }).await.unwrap();
    let two_days = Duration::from_hours(48);
    let booked = desk.books.book_late(super::late::late(late_id, dollars("0.03"), MAY.plus(two_days))).await;
    assert_eq!(booked, Ok(Applied::Now));
    desk.books.refund(&refund(first, "0.1", NOW)).await.unwrap();
    let before = all_charges(&desk).await;
    let (balance, sums) = (desk.balance().await, days(&desk).await);
    assert_eq!(desk.books.verify().await, Ok(vec![]));

    assert_eq!(droppable_month(&desk.store, "2026-05", NOW).await.unwrap(), 4);
    assert!(desk.books.generation(first).await.unwrap().is_some(), "to look changes nothing");
    assert_eq!(drop_may(&desk).await, Ok(4));
    for id in [first, over_midnight, free_id, late_id] {
        assert!(desk.books.generation(id).await.unwrap().is_none());
    }
    assert!(desk.books.generation(stays).await.unwrap().is_some());
    assert_eq!(desk.books.verify().await, Ok(vec![]));
    assert_eq!((desk.balance().await, days(&desk).await), (balance, sums));
    assert_eq!(desk.store.number("SELECT COUNT(*) FROM audit_logs WHERE event = 'generations.dropped'").await, 1);
    assert_eq!(desk.store.number("SELECT COUNT(*) FROM dropped_months WHERE dropped_at IS NOT NULL").await, 1);

    // The same charges, with what the ledger has of them.
    let after = all_charges(&desk).await;
    assert_eq!(after.len(), before.len());
    for (old, new) in before.iter().zip(&after) {
        let amounts =
            |charge: &ChargeRecord| (charge.id, charge.kind, charge.at, charge.amount, charge.cost, charge.project_id);
        assert_eq!(amounts(new), amounts(old));
        let is_there = new.generation == stays;
        assert_eq!(
            (new.model.is_some(), new.api_key_id.is_some(), new.state.is_some()),
            (is_there, is_there, is_there)
        );
    }

    // What was charged can still be given back, and no more.
    assert_eq!(desk.books.payer(first).await, Ok(Some(desk.project)));
    desk.books.refund(&refund(first, "0.4", NOW)).await.unwrap();
    desk.books.refund(&refund(over_midnight, "0.05", NOW)).await.unwrap();
    let refused = desk.books.refund(&refund(first, "0.1", NOW)).await;
    assert_eq!(refused, Err(LedgerError::AboveCharge { amount: dollars("0.1"), charged: Money::ZERO }));
    assert_eq!(desk.books.refund(&refund(free_id, "0.1", NOW)).await, Err(LedgerError::UnknownGeneration(free_id)));
    let (paid, given_back) = days(&desk).await;
    assert_eq!((paid, given_back), (sums.0, sums.1 + dollars("0.45").nanos()));
    assert_eq!(desk.books.verify().await, Ok(vec![]));

    // Once more changes nothing.
    assert_eq!(drop_may(&desk).await, Ok(0));
    made(&desk, NOW, NOW, "0.5").await;
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_a_month_in_a_partition_of_its_own_is_dropped() {
    let database = TestDatabase::postgres().await;
    let desk = Desk::open(&database).await;
    let month = |name: &str, at: i64| (name.to_owned(), Timestamp::from_seconds(at));
    desk.store.make_months(&[month("2026_05", 1_777_593_600), month("2026_06", 1_780_272_000)]).await.unwrap();
    let partition = "SELECT COUNT(*) FROM pg_class WHERE relname = 'generations_2026_05'";
    assert_eq!(desk.store.number(partition).await, 1);
    let store = desk.store.clone();
    a_month_goes(desk).await;
    assert_eq!(store.number(partition).await, 0);
}

on_both_databases! {
    async fn a_month_is_dropped_row_by_row_where_it_has_no_partition(database) {
        a_month_goes(Desk::open(&database).await).await;
    }

    async fn a_month_that_somebody_may_still_ask_for_stays(database) {
        let desk = Desk::open(&database).await;
        for (month, why) in [("2026-11", "is not over"), ("2027-01", "is not over"), ("May", "is not a month")] {
            let refused = drop_month(&desk.store, month, NOW, &audit()).await.unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        let open = Reservation {
            id: id_of(MAY),
            created_at: MAY,
            idempotency: Some(Idempotency { key: "k".to_owned(), digest: [1; 32], expires_at: NOW.plus(Duration::from_secs(9)) }),
            ..desk.reservation(dollars("1"))
        };
        let id = open.id;
        desk.books.reserve(open).await.unwrap();
        assert!(drop_may(&desk).await.unwrap_err().contains("1 generation has not ended"));
        assert!(droppable_month(&desk.store, "2026-05", NOW).await.is_err());
        desk.books.finish(Finish { settled_at: MAY, ..delivered(id, dollars("1"), dollars("0.5")) }).await.unwrap();
        assert!(drop_may(&desk).await.unwrap_err().contains("1 idempotency key is still valid"));
        assert!(desk.books.generation(id).await.unwrap().is_some());
        assert_eq!(desk.store.number("SELECT COUNT(*) FROM dropped_months").await, 0);
        let later = NOW.plus(Duration::from_secs(9));
        assert_eq!(drop_month(&desk.store, "2026-05", later, &audit()).await.unwrap(), 1);
        assert!(desk.books.generation(id).await.unwrap().is_none());
        desk.close().await;
    }

    async fn a_drop_that_broke_off_is_finished_and_adds_up_meanwhile(database) {
        let desk = Desk::open(&database).await;
        let id = made(&desk, MAY, MAY, "0.5").await;
        let other = made(&desk, MAY, MAY, "0.5").await;
        let month = crate::store::MonthRange {
            name: "2026_05".to_owned(),
            from: Timestamp::from_seconds(1_777_593_600),
            before: JUNE,
        };
        desk.store.begin_drop(&month, NOW, &audit(), |_| true).await.unwrap();
        assert_eq!(desk.books.verify().await, Ok(vec![]));
        // Some rows are still there; a refund counts as it will when they are gone.
        desk.books.refund(&refund(id, "0.2", NOW)).await.unwrap();
        assert_eq!(desk.books.verify().await, Ok(vec![]));
        assert_eq!(drop_may(&desk).await, Ok(2));
        assert!(desk.books.generation(other).await.unwrap().is_none());
        desk.books.refund(&refund(id, "0.2", NOW)).await.unwrap();
        desk.close().await;
    }
}
