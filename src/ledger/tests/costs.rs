//! Costs are the ledger's: equal to a plain sum over any ledger, to the nano-dollar, across every bucket's edge.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// 2026-10-31T00:00:00Z, the day before a month's end.
const START: i64 = 1_793_404_800;
const DAY: i64 = 86_400;
const MODELS: [&str; 3] = ["flux/dev", "flux-realism", "imagen4/preview"];

/// One charge: at which edge of which day, how far from it in microseconds, for how much, and what is given back when.
#[derive(Debug, Clone)]
struct Sale {
    at: i64,
    price: i64,
    model: usize,
    user: Option<u8>,
    images: u32,
    refund: Option<(i64, i64)>,
}

fn moment() -> impl Strategy<Value = i64> {
    (0..5_i64, prop_oneof![-2..3_i64, Just(DAY * 500_000)]).prop_map(|(day, off)| (START + day * DAY) * 1_000_000 + off)
}

fn sale() -> impl Strategy<Value = Sale> {
    let refund = proptest::option::of((moment(), 1..4_i64));
    (moment(), 1..3_000_000_000_i64, 0..MODELS.len(), proptest::option::of(0..2_u8), 1..5_u32, refund)
        .prop_map(|(at, price, model, user, images, refund)| Sale { at, price, model, user, images, refund })
}

/// What is grouped by, as the plain sum keeps it.
type Key = (i64, Option<ProjectId>, Option<ApiKeyId>, Option<String>, Option<String>);

async fn play(store: Store, sales: Vec<Sale>, group_by: Vec<UsageDimension>) {
    let (first, first_key) = store.add_project(NOW).await;
    let (second, second_key) = store.add_project(NOW).await;
    let mut sums: BTreeMap<Key, (i64, u64)> = BTreeMap::new();
    let desk = Desk::with(store, first, first_key);
    let mut book = |at: i64, project, key, model: &str, user: Option<String>, amount: i64, images: u32| {
        let has = |dimension| group_by.contains(&dimension);
        let entry = sums
            .entry((
                at - at.rem_euclid(DAY * 1_000_000),
                has(UsageDimension::Project).then_some(project),
                has(UsageDimension::Key).then_some(key),
                has(UsageDimension::Model).then(|| model.to_owned()),
                has(UsageDimension::User).then_some(user).flatten(),
            ))
            .or_default();
        entry.0 += amount;
        entry.1 += u64::from(images);
    };
    for (index, sale) in sales.iter().enumerate() {
        let (project, key) = if index % 3 == 0 { (second, second_key) } else { (first, first_key) };
        let user = sale.user.map(|user| user.to_string());
        let price = Money::from_nanos(sale.price);
        let reservation = Reservation {
            project_id: project,
            api_key_id: key,
            model: MODELS[sale.model].to_owned(),
            user: user.clone(),
            num_images: sale.images,
            ..desk.reservation(price)
        };
        let id = reservation.id;
        desk.books.reserve(reservation).await.unwrap();
        let settled_at = Timestamp::from_micros(sale.at);
        let finish = Finish { settled_at, images: sale.images, ..delivered(id, price, Money::from_nanos(7)) };
        desk.books.finish(finish).await.unwrap();
        book(sale.at, project, key, MODELS[sale.model], user.clone(), sale.price, sale.images);
        if let Some((at, part)) = sale.refund {
            let amount = (sale.price / part).max(1);
            let refund = Refund {
                id: SystemIds.uuid(),
                generation: id,
                amount: Money::from_nanos(amount),
                reason: "it was black".to_owned(),
                author: "ada".to_owned(),
                at: Timestamp::from_micros(at),
                audit: None,
            };
            assert_eq!(desk.books.refund(&refund).await, Ok(Applied::Now));
            book(at, project, key, MODELS[sale.model], user, -amount, 0);
        }
    }
    let mut found: BTreeMap<Key, (i64, u64)> = BTreeMap::new();
    let mut page = None;
    loop {
        // Small pages, so that buckets on both sides of a page's edge are seen.
        let query = UsageQuery {
            from: Timestamp::from_seconds(START - 2 * DAY),
            before: Timestamp::from_seconds(START + 7 * DAY),
            bucket: BucketWidth::Day,
            group_by: group_by.clone(),
            filter: UsageFilter { projects: vec![first, second], ..UsageFilter::default() },
            limit: 2,
            page,
        };
        let answer = desk.books.costs(&query).await.unwrap();
        for bucket in answer.buckets {
            for row in bucket.rows {
                let key = (bucket.start.micros(), row.project_id, row.api_key_id, row.model, row.user);
                assert!(found.insert(key, (row.price.nanos(), row.images)).is_none(), "a row is there twice");
            }
        }
        match answer.next {
            Some(next) => page = Some(next),
            None => break,
        }
    }
    assert_eq!(found, sums);
    desk.close().await;
}

async fn play_many(database: TestDatabase) {
    let store = database.store().await;
    let runtime = Handle::current();
    let dimensions = vec![UsageDimension::Project, UsageDimension::Key, UsageDimension::Model, UsageDimension::User];
    let played = tokio::task::spawn_blocking(move || {
        let config = Config { cases: 12, failure_persistence: None, ..Config::default() };
        let inputs = (proptest::collection::vec(sale(), 1..15), proptest::sample::subsequence(dimensions, 0..=4));
        TestRunner::new(config).run(&inputs, |(sales, group_by)| {
            runtime.block_on(play(store.clone(), sales, group_by));
            Ok(())
        })
    });
    played.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn costs_equal_a_plain_sum_over_the_ledger_on_sqlite() {
    play_many(TestDatabase::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn costs_equal_a_plain_sum_over_the_ledger_on_postgres() {
    play_many(TestDatabase::postgres().await).await;
}
