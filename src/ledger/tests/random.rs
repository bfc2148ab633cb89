//! Random sequences against a model of the books that is simple enough to be right.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// Something that happens. Amounts are in nano-dollars; which generation is meant is taken modulo those there are.
#[derive(Debug, Clone)]
enum Event {
    Reserve { hold: i64, key: Option<u8> },
    Deliver { which: usize, price: i64, cost: i64 },
    Fail { which: usize, cost: i64 },
    TopUp(i64),
    Correct(i64),
    Refund { which: usize, amount: i64 },
    Crash,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        5 => (0..1000_i64, prop::option::of(0..3_u8)).prop_map(|(hold, key)| Event::Reserve { hold, key }),
        3 => (any::<usize>(), 0..1000_i64, 0..1000_i64)
            .prop_map(|(which, price, cost)| Event::Deliver { which, price, cost }),
        1 => (any::<usize>(), 0..1000_i64).prop_map(|(which, cost)| Event::Fail { which, cost }),
        1 => (1..3000_i64).prop_map(Event::TopUp),
        1 => (-500..500_i64).prop_map(Event::Correct),
        1 => (any::<usize>(), 1..800_i64).prop_map(|(which, amount)| Event::Refund { which, amount }),
        1 => Just(Event::Crash),
    ];
    prop::collection::vec(event, 1..60)
}

/// What the books should know.
#[derive(Debug, Default)]
struct Model {
    posted: i64,
    held: i64,
    spent: i64,
    generations: Vec<(GenerationId, i64, Option<i64>)>,
    idempotency: BTreeMap<u8, GenerationId>,
}

async fn play(database: TestDatabase, store: Store, prepaid: bool, events: Vec<Event>) {
    let (project, key) = store.add_project(NOW).await;
    store.change_project(project, |project| project.prepaid = prepaid).await;
    let mut desk = Desk::with(store, project, key);
    let mut model = Model::default();
    for event in events {
        if matches!(event, Event::Crash) {
            // Whatever the process knew is gone; only the database stays.
            desk = Desk { owner: desk.owner, ..Desk::with(database.open().await, project, key) };
        } else {
            step(&desk, &mut model, prepaid, event).await;
        }
        let balance = desk.balance().await;
        assert_eq!(
            (balance.posted.nanos(), balance.held.nanos(), balance.spent_this_month.nanos()),
            (model.posted, model.held, model.spent)
        );
    }
    let open: Vec<_> = model.generations.iter().filter(|(_, _, price)| price.is_none()).map(|(id, ..)| *id).collect();
    let found: Vec<_> = desk.books.open_of(desk.owner).await.unwrap().iter().map(|record| record.id).collect();
    assert_eq!(found, open);
    desk.close().await;
}

async fn step(desk: &Desk, model: &mut Model, prepaid: bool, event: Event) {
    let nanos = Money::from_nanos;
    match event {
        Event::Reserve { hold, key } => {
            let idempotency = key.map(|key| Idempotency {
                key: key.to_string(),
                digest: [key; 32],
                expires_at: NOW.plus(Duration::from_mins(1)),
            });
            let reservation = Reservation { idempotency, ..desk.reservation(nanos(hold)) };
            let id = reservation.id;
            let existing = key.and_then(|key| model.idempotency.get(&key)).copied();
            let result = desk.books.reserve(reservation).await;
            let available = model.posted - model.held;
            if let Some(existing) = existing {
                assert_eq!(result, Err(ReserveError::Duplicate(existing)));
            } else if prepaid && hold > available {
                let expected = ReserveError::InsufficientCredit { available: nanos(available), needed: nanos(hold) };
                assert_eq!(result, Err(expected));
            } else {
                assert_eq!(result, Ok(Reserved::default()));
                model.held += hold;
                model.generations.push((id, hold, None));
                if let Some(key) = key {
                    model.idempotency.insert(key, id);
                }
            }
        }
        Event::Deliver { which, price, cost } => {
            let Some(index) = which.checked_rem(model.generations.len()) else {
                return;
            };
            let (id, hold, charged) = &mut model.generations[index];
            let result = desk.books.finish(delivered(*id, nanos(price), nanos(cost))).await;
            if charged.is_some() {
                assert_eq!(result, Ok(Applied::Already));
            } else if price > *hold {
                assert_eq!(result, Err(LedgerError::AboveHold { price: nanos(price), hold: nanos(*hold) }));
            } else {
                assert_eq!(result, Ok(Applied::Now));
                *charged = Some(price);
                model.held -= *hold;
                model.posted -= price;
                model.spent += price;
            }
        }
        Event::Fail { which, cost } => {
            let Some(index) = which.checked_rem(model.generations.len()) else {
                return;
            };
            let (id, hold, charged) = &mut model.generations[index];
            let result = desk.books.finish(Finish { cost: nanos(cost), ..failed(*id) }).await;
            if charged.is_some() {
                assert_eq!(result, Ok(Applied::Already));
            } else {
                assert_eq!(result, Ok(Applied::Now));
                *charged = Some(0);
                model.held -= *hold;
            }
        }
        other => move_money(desk, model, other).await,
    }
}

async fn move_money(desk: &Desk, model: &mut Model, event: Event) {
    let nanos = Money::from_nanos;
    match event {
        Event::TopUp(amount) => {
            assert_eq!(desk.books.credit(&desk.top_up(nanos(amount))).await, Ok(Applied::Now));
            model.posted += amount;
        }
        Event::Correct(amount) => {
            let credit = Credit { kind: CreditKind::Correction, ..desk.top_up(nanos(amount)) };
            let result = desk.books.credit(&credit).await;
            assert_eq!(result.is_ok(), amount != 0);
            model.posted += amount;
        }
        Event::Refund { which, amount } => {
            let Some(index) = which.checked_rem(model.generations.len()) else {
                return;
            };
            let (id, _, charged) = &mut model.generations[index];
            let refund = Refund {
                id: SystemIds.uuid(),
                generation: *id,
                amount: nanos(amount),
                reason: "again".to_owned(),
                author: "ada".to_owned(),
                at: NOW,
                audit: None,
            };
            let result = desk.books.refund(&refund).await;
            if charged.is_some_and(|charged| charged >= amount) {
                assert_eq!(result, Ok(Applied::Now));
                *charged = charged.map(|charged| charged - amount);
                model.posted += amount;
                model.spent -= amount;
            } else {
                assert!(matches!(result, Err(LedgerError::AboveCharge { .. })));
            }
        }
        _ => {}
    }
}

/// Plays many sequences on one database, each on a project of its own.
async fn play_many(database: TestDatabase) {
    let store = database.store().await;
    let runtime = Handle::current();
    let played = tokio::task::spawn_blocking(move || {
        let config = Config { cases: 30, failure_persistence: None, ..Config::default() };
        TestRunner::new(config).run(&(any::<bool>(), events()), |(prepaid, events)| {
            runtime.block_on(play(database.clone(), store.clone(), prepaid, events));
            Ok(())
        })
    });
    played.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_any_sequence_of_events_the_books_add_up_on_sqlite() {
    play_many(TestDatabase::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_any_sequence_of_events_the_books_add_up_on_postgres() {
    play_many(TestDatabase::postgres().await).await;
}
