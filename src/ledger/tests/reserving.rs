//! Who may reserve.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::join_all;

use super::*;
use crate::accounts::{Accounts, ProjectChange};
use crate::domain::ManualClock;
use crate::store::testing::on_both_databases;

fn idempotency(key: &str, digest: u8, seconds: u64) -> Idempotency {
    Idempotency { key: key.to_owned(), digest: [digest; 32], expires_at: NOW.plus(Duration::from_secs(seconds)) }
}

/// Fires a thousand reservations of 0.1 $ at these desks in turn; how many were taken, and what the others were told.
async fn a_thousand(desks: &[&Desk]) -> (usize, Vec<ReserveError>) {
    let calls = (0..1000).map(|n| {
        let desk = desks[n % desks.len()];
        desk.books.reserve(desk.reservation(dollars("0.1")))
    });
    let results = join_all(calls).await;
    let refused: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    (1000 - refused.len(), refused)
}

on_both_databases! {
    async fn a_reservation_is_recorded_as_queued_with_its_hold(database) {
        let desk = Desk::open(&database).await;
        let reservation = desk.reservation(dollars("0.05"));
        desk.books.reserve(reservation.clone()).await.unwrap();
        let record = desk.books.generation(reservation.id).await.unwrap().unwrap();
        assert_eq!(record.state, GenerationState::Queued);
        assert_eq!(record.hold, dollars("0.05"));
        assert_eq!(record.model, "flux/dev");
        assert_eq!(record.size.as_deref(), Some("1024x768"));
        assert_eq!(record.request_id, reservation.request_id);
        assert_eq!((record.created_at, record.deadline_at), (NOW, reservation.deadline_at));
        assert_eq!((record.attempt, record.outcome), (None, None));
        assert!(record.cancel_if_client_leaves);
        let balance = desk.balance().await;
        assert_eq!((balance.posted, balance.held), (Money::ZERO, dollars("0.05")));
        desk.close().await;
    }

    async fn a_thousand_parallel_reservations_against_credit_for_ten_give_ten(database) {
        let desk = Desk::open(&database).await;
        desk.prepaid(dollars("1.05")).await;
        let (taken, refused) = a_thousand(&[&desk]).await;
        assert_eq!(taken, 10);
        let expected = ReserveError::InsufficientCredit { available: dollars("0.05"), needed: dollars("0.1") };
        assert!(refused.iter().all(|error| *error == expected));
        assert_eq!(desk.balance().await.held, dollars("1"));
        assert_eq!(desk.store.number("SELECT COUNT(*) FROM generations").await, 10);
        desk.close().await;
    }

    async fn beyond_the_longest_line_reservations_are_refused_at_once_and_later_taken_again(database) {
        let desk = Desk::open(&database).await;
        let (project_id, api_key_id) = desk.store.add_project(NOW).await;
        let other = Reservation { project_id, api_key_id, ..desk.reservation(Money::ZERO) };
        let calls = futures_util::future::join_all((0..6_000).map(|_| desk.books.reserve(desk.reservation(Money::ZERO))));
        // One project does not fill the line for the others.
        let (results, others) = futures_util::future::join(calls, desk.books.reserve(other)).await;
        assert_eq!(others, Ok(Reserved::default()));
        let refused: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        assert!(!refused.is_empty() && refused.iter().all(|error| **error == ReserveError::Overloaded));
        let taken = results.len() - refused.len();
        assert!(taken >= 1_536, "{taken}");
        assert_eq!(desk.store.number("SELECT COUNT(*) FROM generations").await, i64::try_from(taken + 1).unwrap());
        desk.reserve(Money::ZERO).await;
        desk.close().await;
    }

    async fn two_replicas_together_give_no_more_than_one_would(database) {
        let desk = Desk::open(&database).await;
        let other = desk.another(&database).await;
        desk.prepaid(dollars("20")).await;
        // A few at a time, so that many small transactions of both stand in each other's way.
        let calls = (0..400).map(|n| {
            let desk = if n % 2 == 0 { &desk } else { &other };
            desk.books.reserve(desk.reservation(dollars("0.1")))
        });
        let results: Vec<_> = futures_util::stream::iter(calls).buffer_unordered(10).collect().await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 200);
        let refused = |result: &Result<Reserved, _>| matches!(result, Err(ReserveError::InsufficientCredit { .. }));
        assert_eq!(results.iter().filter(|result| refused(result)).count(), 200);
        assert_eq!(desk.balance().await.held, dollars("20"));
        other.close().await;
        desk.close().await;
    }

    async fn a_monthly_spend_limit_holds_under_load_and_counts_what_was_settled(database) {
        let desk = Desk::open(&database).await;
        desk.store.change_project(desk.project, |project| project.spend_limit = Some(dollars("1"))).await;
        let id = desk.reserve(dollars("0.5")).await;
        desk.books.finish(delivered(id, dollars("0.35"), Money::ZERO)).await.unwrap();
        let (taken, refused) = a_thousand(&[&desk]).await;
        assert_eq!(taken, 6);
        let expected = ReserveError::SpendLimitReached {
            limit: dollars("1"), used: dollars("0.95"), needed: dollars("0.1"),
        };
        assert!(refused.iter().all(|error| *error == expected));
        // The next month begins at nothing but the open holds.
        let next_month = Reservation { created_at: Timestamp::from_seconds(1_796_083_200), ..desk.reservation(dollars("0.4")) };
        assert_eq!(desk.books.reserve(next_month).await, Ok(Reserved::default()));
        desk.close().await;
    }

    async fn a_budget_holds_for_its_key_alone(database) {
        let mut desk = Desk::open(&database).await;
        let other = desk.key;
        desk.key = desk.store.add_key(desk.project, NOW, |key| key.budget = Some(dollars("0.3"))).await;
        let (taken, refused) = a_thousand(&[&desk]).await;
        assert_eq!(taken, 3);
        assert!(refused.iter().all(|error| matches!(error, ReserveError::BudgetReached { .. })));
        desk.key = other;
        desk.reserve(dollars("0.1")).await;
        desk.close().await;
    }

    async fn a_project_that_is_not_prepaid_may_owe(database) {
        let desk = Desk::open(&database).await;
        let id = desk.reserve(dollars("5")).await;
        desk.books.finish(delivered(id, dollars("5"), Money::ZERO)).await.unwrap();
        assert_eq!(desk.balance().await.posted, dollars("-5"));
        desk.reserve(dollars("5")).await;
        desk.close().await;
    }

    async fn the_same_idempotency_key_leads_to_the_first_generation_or_is_refused_with_another_body(database) {
        let desk = Desk::open(&database).await;
        let first = Reservation { idempotency: Some(idempotency("k", 1, 60)), ..desk.reservation(dollars("0.1")) };
        desk.books.reserve(first.clone()).await.unwrap();
        let again = Reservation { idempotency: Some(idempotency("k", 1, 60)), ..desk.reservation(dollars("0.1")) };
        assert_eq!(desk.books.reserve(again.clone()).await, Err(ReserveError::Duplicate(first.id)));
        let other_body = Reservation { idempotency: Some(idempotency("k", 2, 60)), ..desk.reservation(dollars("0.1")) };
        assert_eq!(desk.books.reserve(other_body).await, Err(ReserveError::SameKeyOtherBody));
        assert_eq!(desk.balance().await.held, dollars("0.1"));
        // Another project may use the same name.
        let (project_id, api_key_id) = desk.store.add_project(NOW).await;
        assert_eq!(desk.books.reserve(Reservation { project_id, api_key_id, ..again }).await, Ok(Reserved::default()));
        desk.close().await;
    }

    async fn of_parallel_reservations_with_one_idempotency_key_one_is_made(database) {
        let desk = Desk::open(&database).await;
        let other = desk.another(&database).await;
        let calls: Vec<_> = (0..60)
            .map(|n| {
                let desk = if n % 2 == 0 { &desk } else { &other };
                Reservation { idempotency: Some(idempotency("k", 1, 60)), ..desk.reservation(dollars("0.1")) }
            })
            .collect();
        let ids: Vec<_> = calls.iter().map(|call| call.id).collect();
        let results = join_all(calls.into_iter().enumerate().map(|(n, call)| {
            if n % 2 == 0 { desk.books.reserve(call) } else { other.books.reserve(call) }
        }))
        .await;
        let made: Vec<_> = results.iter().zip(&ids).filter(|(r, _)| r.is_ok()).map(|(_, id)| *id).collect();
        assert_eq!(made.len(), 1);
        let duplicates = results.iter().filter(|r| **r == Err(ReserveError::Duplicate(made[0]))).count();
        assert_eq!(duplicates, 59);
        other.close().await;
        desk.close().await;
    }

    async fn an_expired_idempotency_key_is_replaced(database) {
        let desk = Desk::open(&database).await;
        let first = Reservation { idempotency: Some(idempotency("k", 1, 60)), ..desk.reservation(dollars("0.1")) };
        desk.books.reserve(first).await.unwrap();
        let later = NOW.plus(Duration::from_mins(1));
        let second = Reservation {
            created_at: later,
            idempotency: Some(idempotency("k", 2, 120)),
            ..desk.reservation(dollars("0.1"))
        };
        assert_eq!(desk.books.reserve(second.clone()).await, Ok(Reserved::default()));
        let third = Reservation { created_at: later, ..second.clone() };
        let third = Reservation { id: desk.reservation(Money::ZERO).id, ..third };
        assert_eq!(desk.books.reserve(third).await, Err(ReserveError::Duplicate(second.id)));
        desk.close().await;
    }

    async fn a_failure_that_may_succeed_later_can_free_its_idempotency_key(database) {
        let desk = Desk::open(&database).await;
        for keep in [false, true] {
            let key = format!("keep {keep}");
            let first = Reservation { idempotency: Some(idempotency(&key, 1, 60)), ..desk.reservation(dollars("0.1")) };
            desk.books.reserve(first.clone()).await.unwrap();
            let finish = Finish { release_idempotency_key: !keep, ..failed(first.id) };
            desk.books.finish(finish).await.unwrap();
            let again = Reservation { idempotency: Some(idempotency(&key, 1, 60)), ..desk.reservation(dollars("0.1")) };
            let expected = if keep { Err(ReserveError::Duplicate(first.id)) } else { Ok(Reserved::default()) };
            assert_eq!(desk.books.reserve(again).await, expected);
        }
        desk.close().await;
    }

    async fn many_clients_that_leave_or_have_their_answers_at_once_are_told_apart(database) {
        let desk = Desk::open(&database).await;
        let asked = |digest: u8| Reservation { resend_digest: Some([digest; 32]), ..desk.reservation(Money::ZERO) };
        let [left, answered, waiting, hasty, unknown] = [1, 2, 3, 4, 5].map(asked);
        join_all([&left, &answered, &waiting].map(|r| desk.books.reserve(r.clone()))).await;
        // One leaves in the very batch that records it, and one was never recorded.
        let done = tokio::join!(
            desk.books.reserve(hasty.clone()),
            desk.books.client_left(hasty.id, NOW),
            desk.books.client_left(left.id, NOW),
            desk.books.client_answered(answered.id),
            desk.books.client_left(unknown.id, NOW),
            desk.books.client_answered(unknown.id),
        );
        assert_eq!(done, (Ok(Reserved::default()), Ok(()), Ok(()), Ok(()), Ok(()), Ok(())));
        let found = async |digest: u8| {
            let resend = Resend {
                api_key_id: desk.key,
                digest: [digest; 32],
                replica: desk.owner,
                came_at: NOW,
                now: NOW,
                stale_before: NOW,
            };
            desk.books.join_resent(&resend).await.unwrap()
        };
        assert_eq!(found(1).await, Found::Joined(left.id));
        assert_eq!(found(2).await, Found::Nothing);
        assert_eq!(found(3).await, Found::Attended);
        assert_eq!(found(4).await, Found::Joined(hasty.id));
        assert_eq!(found(5).await, Found::Nothing);
        desk.close().await;
    }

    async fn idempotency_is_checked_before_the_project_and_the_project_before_money(database) {
        let desk = Desk::open(&database).await;
        let first = Reservation { idempotency: Some(idempotency("k", 1, 60)), ..desk.reservation(dollars("0.1")) };
        desk.books.reserve(first.clone()).await.unwrap();
        desk.prepaid(Money::ZERO).await;
        let poor = desk.reservation(dollars("0.1"));
        assert!(matches!(desk.books.reserve(poor.clone()).await, Err(ReserveError::InsufficientCredit { .. })));
        desk.store.change_project(desk.project, |project| project.archived_at = Some(NOW)).await;
        assert_eq!(desk.books.reserve(poor).await, Err(ReserveError::ProjectArchived));
        let again = Reservation { idempotency: Some(idempotency("k", 1, 60)), ..desk.reservation(dollars("0.1")) };
        assert_eq!(desk.books.reserve(again).await, Err(ReserveError::Duplicate(first.id)));
        desk.close().await;
    }

    async fn a_refused_reservation_leaves_its_idempotency_key_free(database) {
        let desk = Desk::open(&database).await;
        desk.prepaid(Money::ZERO).await;
        let poor = Reservation { idempotency: Some(idempotency("k", 1, 60)), ..desk.reservation(dollars("0.1")) };
        assert!(desk.books.reserve(poor.clone()).await.is_err());
        desk.books.credit(&desk.top_up(dollars("1"))).await.unwrap();
        assert_eq!(desk.books.reserve(poor).await, Ok(Reserved::default()));
        desk.close().await;
    }

    async fn a_key_that_is_revoked_expired_unknown_or_of_another_project_reserves_nothing(database) {
        let desk = Desk::open(&database).await;
        let revoked = desk.store.add_key(desk.project, NOW, |key| key.revoked_at = Some(NOW)).await;
        let expired = desk.store.add_key(desk.project, NOW, |key| key.expires_at = Some(NOW)).await;
        let (_, foreign) = desk.store.add_project(NOW).await;
        let unknown = ApiKeyId::from_uuid(SystemIds.uuid());
        for (api_key_id, expected) in [
            (revoked, ReserveError::KeyRevoked),
            (expired, ReserveError::KeyRevoked),
            (foreign, ReserveError::UnknownCaller),
            (unknown, ReserveError::UnknownCaller),
        ] {
            let reservation = Reservation { api_key_id, ..desk.reservation(dollars("0.1")) };
            assert_eq!(desk.books.reserve(reservation).await, Err(expected));
        }
        let project_id = ProjectId::from_uuid(SystemIds.uuid());
        let reservation = Reservation { project_id, ..desk.reservation(dollars("0.1")) };
        assert_eq!(desk.books.reserve(reservation).await, Err(ReserveError::UnknownCaller));
        desk.close().await;
    }

    async fn in_a_batch_one_row_that_cannot_be_stored_fails_alone(database) {
        let desk = Arc::new(Desk::open(&database).await);
        let calls: Vec<_> = (0..200)
            .map(|n| {
                // The tables want at least one image.
                Reservation { num_images: u32::from(n % 50 != 7), ..desk.reservation(dollars("0.1")) }
            })
            .collect();
        let results = join_all(calls.into_iter().map(|call| desk.books.reserve(call))).await;
        for (n, result) in results.iter().enumerate() {
            if n % 50 == 7 {
                assert!(matches!(result, Err(ReserveError::Refused(_))), "{result:?}");
            } else {
                assert_eq!(*result, Ok(Reserved::default()));
            }
        }
        assert_eq!(desk.store.number("SELECT COUNT(*) FROM generations").await, 196);
        assert_eq!(desk.balance().await.held, dollars("19.6"));
        Arc::into_inner(desk).unwrap().close().await;
    }

    async fn in_a_batch_one_refusal_undoes_no_other(database) {
        let desk = Desk::open(&database).await;
        let (poor_project, poor_key) = desk.store.add_project(NOW).await;
        desk.store.change_project(poor_project, |project| project.prepaid = true).await;
        let calls: Vec<_> = (0..100)
            .map(|n| {
                let reservation = desk.reservation(dollars("0.1"));
                if n % 2 == 0 {
                    reservation
                } else {
                    Reservation { project_id: poor_project, api_key_id: poor_key, ..reservation }
                }
            })
            .collect();
        let results = join_all(calls.into_iter().map(|call| desk.books.reserve(call))).await;
        assert!(results.iter().enumerate().all(|(n, result)| result.is_ok() == (n % 2 == 0)));
        assert_eq!(desk.balance().await.held, dollars("5"));
        desk.close().await;
    }

    async fn a_prompt_is_kept_only_as_long_as_the_project_says(database) {
        let desk = Desk::open(&database).await;
        let unkept = desk.reserve(dollars("0.1")).await;
        let day = Duration::from_hours(24);
        desk.store.change_project(desk.project, |project| project.prompt_retention = 86_400_000_000).await;
        let reservation = Reservation { prompt: Some("a\0b".to_owned()), ..desk.reservation(dollars("0.1")) };
        let kept = reservation.id;
        desk.books.reserve(reservation).await.unwrap();
        let prompt = async |id| desk.books.generation(id).await.unwrap().unwrap().prompt;
        assert_eq!(prompt(unkept).await, None);
        assert_eq!(prompt(kept).await.as_deref(), Some("a\u{fffd}b"));
        assert_eq!(desk.store.purge_prompts(NOW.plus(day / 2), 10).await.unwrap(), 0);
        assert!(prompt(kept).await.is_some());
        assert_eq!(desk.store.purge_prompts(NOW.plus(day), 10).await.unwrap(), 1);
        assert_eq!(prompt(kept).await, None);
        desk.close().await;
    }

    async fn a_lowered_retention_shortens_what_is_kept_and_a_longer_one_does_not(database) {
        let desk = Desk::open(&database).await;
        let hour = Duration::from_hours(1);
        let clock = Arc::new(ManualClock::at(NOW));
        let accounts = Accounts::load(desk.store.clone(), clock.clone(), Arc::new(SystemIds)).await.unwrap();
        let retain = async |hours: i64| {
            let change = ProjectChange { prompt_retention: Some(hours * 3_600_000_000), ..ProjectChange::default() };
            accounts.update_project(desk.project, change).await.unwrap();
        };
        retain(4).await;
        let mut ids = Vec::new();
        for _ in 0..3 {
            let reservation = Reservation { prompt: Some("a cat".to_owned()), ..desk.reservation(dollars("0.1")) };
            ids.push(reservation.id);
            desk.books.reserve(reservation).await.unwrap();
        }
        let kept = async || {
            let mut kept = 0;
            for id in &ids {
                kept += usize::from(desk.books.generation(*id).await.unwrap().unwrap().prompt.is_some());
            }
            kept
        };
        // Shorter: they end with it. What is longer again afterwards does not bring their time back.
        retain(2).await;
        accounts.forget_prompts().await.unwrap();
        retain(8).await;
        accounts.forget_prompts().await.unwrap();
        assert_eq!(kept().await, 3);
        clock.advance(Duration::from_micros(7_199_999_999));
        accounts.forget_prompts().await.unwrap();
        assert_eq!(kept().await, 3);
        clock.advance(Duration::from_micros(1));
        accounts.forget_prompts().await.unwrap();
        assert_eq!(kept().await, 0);
        // A reservation that had read the old retention and is written late is found, too; then the project is left alone.
        let marked = "SELECT COUNT(*) FROM projects WHERE shorten_prompts_at IS NOT NULL";
        retain(0).await;
        accounts.forget_prompts().await.unwrap();
        assert_eq!(desk.store.number(marked).await, 1);
        clock.advance(hour);
        accounts.forget_prompts().await.unwrap();
        assert_eq!(desk.store.number(marked).await, 0);
        desk.close().await;
    }
}
