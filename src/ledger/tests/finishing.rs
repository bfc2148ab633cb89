//! How a generation goes on and ends.

use futures_util::future::join_all;

use super::*;
use crate::store::testing::on_both_databases;

async fn amounts(desk: &Desk, id: GenerationId) -> Vec<(LedgerAccount, Money)> {
    let entries = desk.books.entries(id).await.unwrap();
    let mut amounts: Vec<_> = entries.iter().map(|entry| (entry.account, entry.amount)).collect();
    amounts.sort_unstable();
    amounts
}

on_both_databases! {
    async fn a_delivery_ends_the_hold_and_books_price_and_cost(database) {
        let desk = Desk::open(&database).await;
        desk.prepaid(dollars("1")).await;
        let id = desk.reserve(dollars("0.05")).await;
        desk.books.submitted(submit_of(id, 1)).await.unwrap();
        desk.books.running(id, NOW).await.unwrap();
        let finish = delivered(id, dollars("0.035"), dollars("0.025"));
        assert_eq!(desk.books.finish(finish).await, Ok(Applied::Now));
        let balance = desk.balance().await;
        assert_eq!((balance.posted, balance.held), (dollars("0.965"), Money::ZERO));
        assert_eq!(balance.spent_this_month, dollars("0.035"));
        assert_eq!(amounts(&desk, id).await, [
            (LedgerAccount::Project, dollars("-0.035")),
            (LedgerAccount::Revenue, dollars("0.035")),
            (LedgerAccount::CostOfSales, dollars("0.025")),
            (LedgerAccount::Provider, dollars("-0.025")),
        ]);
        let record = desk.books.generation(id).await.unwrap().unwrap();
        assert_eq!(record.state, GenerationState::Succeeded);
        assert_eq!(record.started_at, Some(NOW));
        let outcome = record.outcome.unwrap();
        assert_eq!((outcome.price, outcome.cost), (dollars("0.035"), dollars("0.025")));
        assert_eq!((outcome.images, outcome.cost_source), (1, CostSource::Billed));
        assert_eq!(outcome.answer.as_deref(), Some(r#"{"images":[]}"#));
        let attempt = record.attempt.unwrap();
        assert_eq!((attempt.n, attempt.outcome), (1, Some(AttemptOutcome::Succeeded)));
        assert_eq!(attempt.provider_request_id, format!("fal-{id}-1"));
        desk.close().await;
    }

    async fn a_failure_is_free_and_leaves_no_ledger_entry(database) {
        let desk = Desk::open(&database).await;
        let id = desk.reserve(dollars("0.05")).await;
        assert_eq!(desk.books.finish(failed(id)).await, Ok(Applied::Now));
        let balance = desk.balance().await;
        assert_eq!((balance.posted, balance.held), (Money::ZERO, Money::ZERO));
        assert!(amounts(&desk, id).await.is_empty());
        desk.close().await;
    }

    async fn a_failure_that_cost_us_is_free_and_books_our_cost(database) {
        let desk = Desk::open(&database).await;
        let id = desk.reserve(dollars("0.05")).await;
        let finish = Finish { cost: dollars("0.025"), ..failed(id) };
        assert_eq!(desk.books.finish(finish).await, Ok(Applied::Now));
        assert_eq!(desk.balance().await.posted, Money::ZERO);
        assert_eq!(amounts(&desk, id).await, [
            (LedgerAccount::CostOfSales, dollars("0.025")),
            (LedgerAccount::Provider, dollars("-0.025")),
        ]);
        desk.close().await;
    }

    async fn a_price_that_must_not_be_is_refused_and_the_generation_stays_open(database) {
        let desk = Desk::open(&database).await;
        let id = desk.reserve(dollars("0.05")).await;
        let above = delivered(id, dollars("0.050000001"), Money::ZERO);
        assert_eq!(
            desk.books.finish(above).await,
            Err(LedgerError::AboveHold { price: dollars("0.050000001"), hold: dollars("0.05") })
        );
        for wrong in [
            Finish { price: dollars("0.01"), ..failed(id) },
            delivered(id, dollars("-0.01"), Money::ZERO),
            delivered(id, Money::ZERO, dollars("-0.01")),
        ] {
            assert!(matches!(desk.books.finish(wrong).await, Err(LedgerError::Invalid(_))));
        }
        assert!(desk.books.generation(id).await.unwrap().unwrap().state.is_open());
        assert_eq!(desk.balance().await.held, dollars("0.05"));
        assert_eq!(desk.books.finish(delivered(id, dollars("0.05"), Money::ZERO)).await, Ok(Applied::Now));
        desk.close().await;
    }

    async fn of_racing_finishes_exactly_one_applies(database) {
        let desk = Desk::open(&database).await;
        let other = desk.another(&database).await;
        for _ in 0..10 {
            let id = desk.reserve(dollars("0.05")).await;
            let results = join_all((0..20).map(|n| {
                let books = if n % 2 == 0 { &desk.books } else { &other.books };
                books.finish(if n % 3 == 0 { failed(id) } else { delivered(id, dollars("0.05"), Money::ZERO) })
            }))
            .await;
            assert_eq!(results.iter().filter(|result| **result == Ok(Applied::Now)).count(), 1);
            assert_eq!(results.iter().filter(|result| **result == Ok(Applied::Already)).count(), 19);
        }
        // One against one, each alone in its transaction.
        for _ in 0..50 {
            let id = desk.reserve(dollars("0.05")).await;
            let (one, another) = tokio::join!(desk.books.finish(failed(id)), other.books.finish(failed(id)));
            let mut results = [one, another];
            results.sort_by_key(|result| *result == Ok(Applied::Already));
            assert_eq!(results, [Ok(Applied::Now), Ok(Applied::Already)]);
        }
        other.close().await;
        desk.close().await;
    }

    async fn what_ends_leaves_room_for_the_next_even_within_one_batch(database) {
        let desk = Desk::open(&database).await;
        desk.prepaid(dollars("0.1")).await;
        for _ in 0..20 {
            let id = desk.reserve(dollars("0.1")).await;
            let (ended, next) = tokio::join!(desk.books.finish(failed(id)), desk.books.reserve(desk.reservation(dollars("0.1"))));
            assert_eq!((ended, next), (Ok(Applied::Now), Ok(Reserved::default())));
            for record in desk.books.open_of(desk.owner).await.unwrap() {
                desk.books.finish(failed(record.id)).await.unwrap();
            }
        }
        desk.close().await;
    }

    async fn a_submit_is_recorded_once_whoever_brings_it_and_whenever(database) {
        let desk = Desk::open(&database).await;
        let id = desk.reserve(dollars("0.05")).await;
        let first = submit_of(id, 1);
        desk.books.submitted(first.clone()).await.unwrap();
        // Asked again after an unclear commit.
        assert_eq!(desk.books.submitted(first.clone()).await, Ok(Recorded::Open));
        let another = Submitted { provider_request_id: "other".to_owned(), ..first.clone() };
        assert!(matches!(desk.books.submitted(another).await, Err(LedgerError::Invalid(_))));
        let unknown = GenerationId::from_uuid(SystemIds.uuid());
        assert_eq!(
            desk.books.submitted(submit_of(unknown, 1)).await,
            Err(LedgerError::UnknownGeneration(unknown))
        );
        desk.books.finish(failed(id)).await.unwrap();
        assert_eq!(desk.books.submitted(submit_of(id, 2)).await, Ok(Recorded::Ended));
        assert_eq!(desk.books.attempts(id).await.unwrap().len(), 2);
        assert_eq!(desk.books.running(id, NOW).await, Err(LedgerError::NotOpen));
        desk.close().await;
    }

    async fn attempts_that_are_written_together_replace_each_other(database) {
        let desk = Desk::open(&database).await;
        let id = desk.reserve(dollars("1")).await;
        // As after a time without the database: both wait, and share a batch.
        let (first, second) = (submit_of(id, 1), submit_of(id, 2));
        let (first, second) = tokio::join!(desk.books.submitted(first), desk.books.submitted(second));
        assert_eq!((first, second), (Ok(Recorded::Open), Ok(Recorded::Open)));
        desk.books.finish(delivered(id, dollars("1"), dollars("0.5"))).await.unwrap();
        let outcomes: Vec<_> =
            desk.books.attempts(id).await.unwrap().into_iter().map(|attempt| attempt.outcome).collect();
        assert_eq!(outcomes, [Some(AttemptOutcome::Replaced), Some(AttemptOutcome::Succeeded)]);
        desk.close().await;
    }

    async fn a_fallback_replaces_the_attempt_before_it(database) {
        let desk = Desk::open(&database).await;
        let id = desk.reserve(dollars("0.05")).await;
        desk.books.submitted(submit_of(id, 1)).await.unwrap();
        let second = Submitted { endpoint: "fal-ai/other".to_owned(), ..submit_of(id, 2) };
        desk.books.submitted(second).await.unwrap();
        let record = desk.books.generation(id).await.unwrap().unwrap();
        assert_eq!(record.endpoint, "fal-ai/other");
        desk.books.finish(delivered(id, dollars("0.05"), Money::ZERO)).await.unwrap();
        let outcomes: Vec<_> =
            desk.books.attempts(id).await.unwrap().into_iter().map(|attempt| attempt.outcome).collect();
        assert_eq!(outcomes, [Some(AttemptOutcome::Replaced), Some(AttemptOutcome::Succeeded)]);
        desk.close().await;
    }

    async fn nobody_ends_a_generation_without_knowing_its_latest_attempt(database) {
        let desk = Desk::open(&database).await;
        let id = desk.reserve(dollars("0.05")).await;
        desk.books.submitted(submit_of(id, 1)).await.unwrap();
        let unaware = Finish { attempt: 0, state: FinalState::Expired, ..failed(id) };
        assert_eq!(desk.books.finish(unaware).await, Err(LedgerError::NewerAttempt));
        assert!(desk.books.generation(id).await.unwrap().unwrap().state.is_open());
        let aware = Finish { attempt: 1, ..delivered(id, dollars("0.05"), dollars("0.03")) };
        assert_eq!(desk.books.finish(aware).await, Ok(Applied::Now));
        desk.close().await;
    }

    async fn a_cost_without_an_attempt_is_a_discrepancy(database) {
        let desk = Desk::open(&database).await;
        let id = desk.reserve(dollars("0.05")).await;
        desk.books.finish(delivered(id, dollars("0.05"), dollars("0.03"))).await.unwrap();
        let found = desk.books.verify().await.unwrap();
        let [discrepancy] = &found[..] else { panic!("{found:?}") };
        assert!(discrepancy.what.contains("attempts"), "{discrepancy}");
        assert_eq!(discrepancy.subject, id.uuid().to_string());
        desk.close().await;
    }

    async fn a_generation_runs_once_it_is_said_to_and_saying_it_again_changes_nothing(database) {
        let desk = Desk::open(&database).await;
        let id = desk.reserve(dollars("0.05")).await;
        desk.books.running(id, NOW).await.unwrap();
        desk.books.running(id, NOW.plus(Duration::from_secs(1))).await.unwrap();
        let record = desk.books.generation(id).await.unwrap().unwrap();
        assert_eq!((record.state, record.started_at), (GenerationState::Running, Some(NOW)));
        desk.close().await;
    }

    async fn closing_the_books_answers_everything_that_was_asked_before(database) {
        let desk = Desk::open(&database).await;
        let calls = join_all((0..50).map(|_| desk.books.reserve(desk.reservation(dollars("0.1")))));
        let (results, ()) = tokio::join!(calls, async { desk.books.close() });
        assert!(results.iter().all(Result::is_ok));
        assert!(matches!(
            desk.books.reserve(desk.reservation(dollars("0.1"))).await,
            Err(ReserveError::Unavailable(_))
        ));
        desk.close().await;
    }

    async fn what_was_recorded_is_there_after_reopening(database) {
        let desk = Desk::open(&database).await;
        let open = desk.reserve(dollars("0.05")).await;
        let ended = desk.reserve(dollars("0.05")).await;
        desk.books.submitted(submit_of(open, 1)).await.unwrap();
        desk.books.finish(delivered(ended, dollars("0.05"), dollars("0.02"))).await.unwrap();
        let before = (
            desk.books.generation(open).await.unwrap().unwrap(),
            desk.books.generation(ended).await.unwrap().unwrap(),
            desk.balance().await,
        );
        desk.store.close().await;
        let again = Desk::with(database.store().await, desk.project, desk.key);
        let after = (
            again.books.generation(open).await.unwrap().unwrap(),
            again.books.generation(ended).await.unwrap().unwrap(),
            again.balance().await,
        );
        assert_eq!(before, after);
        again.close().await;
    }
}
