//! Limits under load, each on both databases and over two replicas.

use futures_util::StreamExt;

use super::*;
use crate::store::RateLimit;
use crate::store::testing::on_both_databases;

/// Fires so many reservations over two replicas, a few at a time, so that many small transactions of both stand in each
/// other's way; how many were taken, and what the others were told.
async fn fire(desks: [&Desk; 2], count: usize, make: impl Fn(&Desk) -> Reservation) -> (usize, Vec<ReserveError>) {
    let calls = (0..count).map(|n| {
        let desk = desks[n % 2];
        desk.books.reserve(make(desk))
    });
    let results: Vec<_> = futures_util::stream::iter(calls).buffer_unordered(24).collect().await;
    let refused: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    (count - refused.len(), refused)
}

fn rate(model: &str, requests: Option<u32>, images: Option<u32>) -> RateLimit {
    RateLimit { model: model.to_owned(), requests_per_minute: requests, images_per_minute: images }
}

fn reached(error: &ReserveError) -> LimitReached {
    match error {
        ReserveError::LimitReached(reached) => **reached,
        other => panic!("{other:?}"),
    }
}

on_both_databases! {
    async fn no_minute_sees_more_requests_than_its_limit_also_over_two_replicas(database) {
        let desk = Desk::open(&database).await;
        let other = desk.another(&database).await;
        desk.store.change_project(desk.project, |p| p.rate_limits = vec![rate("*", Some(10), None)]).await;
        let (taken, refused) = fire([&desk, &other], 1000, |desk| desk.reservation(Money::ZERO)).await;
        assert_eq!(taken, 10);
        for error in &refused {
            let LimitReached { what, limit, used, retry_after, rates } = reached(error);
            assert_eq!((what, limit, used), (Limited::Requests, 10, 10));
            assert_eq!(retry_after, Duration::from_secs(61));
            assert_eq!(rates.requests.unwrap().remaining, 0);
        }
        // Another model has a minute of its own, and the minute passes.
        let dearer = Reservation { model: "flux-realism".to_owned(), ..desk.reservation(Money::ZERO) };
        assert!(other.books.reserve(dearer).await.is_ok());
        for (seconds, fits) in [(60, false), (61, true)] {
            let at = NOW.plus(Duration::from_secs(seconds));
            let later = Reservation { created_at: at, deadline_at: at, ..desk.reservation(Money::ZERO) };
            assert_eq!(desk.books.reserve(later).await.is_ok(), fits, "after {seconds} s");
        }
        assert!(desk.books.maintain(NOW.plus(Duration::from_hours(1))).await.unwrap().counts > 0);
        other.close().await;
        desk.close().await;
    }

    async fn images_are_limited_by_their_number_and_the_answer_tells_what_is_left(database) {
        let desk = Desk::open(&database).await;
        let limits = vec![rate("*", Some(1), None), rate("flux/dev", Some(100), Some(10))];
        desk.store.change_project(desk.project, |project| project.rate_limits = limits).await;
        let of = |images| Reservation { num_images: images, ..desk.reservation(Money::ZERO) };
        let first = desk.books.reserve(of(4)).await.unwrap().rates;
        let state = |limit, remaining| Some(RateState { limit, remaining, resets_in: Duration::from_secs(61) });
        assert_eq!(first, RateLimits { requests: state(100, 99), images: state(10, 6) });
        let second = Reservation { created_at: NOW.plus(Duration::from_secs(30)), ..of(4) };
        desk.books.reserve(second).await.unwrap();
        let later = NOW.plus(Duration::from_millis(40_500));
        let refused = desk.books.reserve(Reservation { created_at: later, ..of(4) }).await.unwrap_err();
        let LimitReached { what, limit, used, retry_after, .. } = reached(&refused);
        assert_eq!((what, limit, used), (Limited::Images, 10, 8));
        assert_eq!(retry_after, Duration::from_millis(20_500), "the first four leave the minute");
        assert!(desk.books.reserve(Reservation { created_at: later, ..of(2) }).await.is_ok());
        let never = desk.books.reserve(Reservation { created_at: later, ..of(11) }).await.unwrap_err();
        assert_eq!(reached(&never).retry_after, Duration::from_mins(1));
        desk.close().await;
    }

    async fn no_minute_sees_more_images_than_its_limit_also_over_two_replicas(database) {
        let desk = Desk::open(&database).await;
        let other = desk.another(&database).await;
        let limits = vec![rate("*", None, Some(21))];
        desk.store.change_project(desk.project, |project| project.rate_limits = limits).await;
        let two = |desk: &Desk| Reservation { num_images: 2, ..desk.reservation(Money::ZERO) };
        let (taken, refused) = fire([&desk, &other], 400, two).await;
        assert_eq!(taken, 10, "two at a time, so that one stays over");
        let LimitReached { what, limit, used, .. } = reached(&refused[0]);
        assert_eq!((what, limit, used), (Limited::Images, 21, 20));
        other.close().await;
        desk.close().await;
    }

    async fn the_budget_of_a_key_holds_over_two_replicas_and_counts_what_was_settled(database) {
        let mut desk = Desk::open(&database).await;
        desk.key = desk.store.add_key(desk.project, NOW, |key| key.budget = Some(dollars("1.35"))).await;
        let other = desk.another(&database).await;
        let settled = desk.reserve(dollars("0.5")).await;
        desk.books.finish(delivered(settled, dollars("0.35"), Money::ZERO)).await.unwrap();
        let (taken, refused) = fire([&desk, &other], 400, |desk| desk.reservation(dollars("0.1"))).await;
        assert_eq!(taken, 10);
        assert!(refused.iter().all(|error| matches!(error, ReserveError::BudgetReached { .. })), "{:?}", refused[0]);
        other.close().await;
        desk.close().await;
    }

    async fn what_is_refused_or_a_duplicate_counts_nowhere(database) {
        let desk = Desk::open(&database).await;
        desk.store.change_project(desk.project, |p| p.rate_limits = vec![rate("*", Some(3), None)]).await;
        let key = || Some(Idempotency { key: "k".to_owned(), digest: [1; 32], expires_at: NOW.plus(Duration::from_mins(1)) });
        let first = Reservation { idempotency: key(), ..desk.reservation(Money::ZERO) };
        desk.books.reserve(first.clone()).await.unwrap();
        for _ in 0..5 {
            let again = Reservation { idempotency: key(), ..desk.reservation(Money::ZERO) };
            assert_eq!(desk.books.reserve(again).await, Err(ReserveError::Duplicate(first.id)));
            let broken = Reservation { num_images: 0, ..desk.reservation(Money::ZERO) };
            assert!(matches!(desk.books.reserve(broken).await, Err(ReserveError::Refused(_))));
        }
        let (taken, _) = fire([&desk, &desk], 9, |desk| desk.reservation(Money::ZERO)).await;
        assert_eq!(taken, 2);
        desk.close().await;
    }

    async fn no_more_generations_are_open_at_once_than_allowed_also_over_two_replicas(database) {
        let desk = Desk::open(&database).await;
        let other = desk.another(&database).await;
        desk.store.change_project(desk.project, |project| project.concurrency_limit = Some(10)).await;
        let (taken, refused) = fire([&desk, &other], 400, |desk| desk.reservation(Money::ZERO)).await;
        assert_eq!(taken, 10);
        let LimitReached { what, limit, used, retry_after, .. } = reached(&refused[0]);
        assert_eq!((what, limit, used, retry_after), (Limited::Concurrency, 10, 10, Duration::from_secs(1)));
        // Each that ends makes room for one.
        for _ in 0..3 {
            let mut open = desk.books.open_of(desk.owner).await.unwrap();
            open.extend(desk.books.open_of(other.owner).await.unwrap());
            let (ended, next) =
                tokio::join!(desk.books.finish(failed(open[0].id)), desk.books.reserve(desk.reservation(Money::ZERO)));
            assert_eq!(ended, Ok(Applied::Now));
            if next.is_err() {
                desk.reserve(Money::ZERO).await;
            }
            assert!(other.books.reserve(other.reservation(Money::ZERO)).await.is_err());
        }
        other.close().await;
        desk.close().await;
    }

    async fn the_organizations_limit_holds_over_projects_and_replicas_and_counts_what_was_settled(database) {
        let desk = Desk::open(&database).await;
        let mut other = desk.another(&database).await;
        (other.project, other.key) = desk.store.add_project(NOW).await;
        let settled = desk.reserve(dollars("0.5")).await;
        desk.books.finish(delivered(settled, dollars("0.35"), Money::ZERO)).await.unwrap();
        let mut transaction = desk.store.begin().await.unwrap();
        transaction.set_organization_limit(Some(dollars("1.35"))).await.unwrap();
        transaction.commit().await.unwrap();
        let (taken, refused) = fire([&desk, &other], 400, |desk| desk.reservation(dollars("0.1"))).await;
        assert_eq!(taken, 10);
        assert!(refused.iter().all(|error| *error == ReserveError::OrganizationLimitReached), "{:?}", refused[0]);
        // What ends cheaper than it was held makes room for others, wherever they are.
        let mut open = desk.books.open_of(desk.owner).await.unwrap();
        open.extend(other.books.open_of(other.owner).await.unwrap());
        desk.books.finish(failed(open[0].id)).await.unwrap();
        other.reserve(dollars("0.1")).await;
        assert!(desk.books.reserve(desk.reservation(dollars("0.1"))).await.is_err());
        // The next month begins at nothing but the open holds.
        let next_month = Timestamp::from_seconds(1_796_083_200);
        let later = Reservation { created_at: next_month, deadline_at: next_month, ..desk.reservation(dollars("0.35")) };
        assert!(desk.books.reserve(later).await.is_ok());
        other.close().await;
        desk.close().await;
    }
}
