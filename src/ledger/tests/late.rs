//! Evidence that comes after a generation has ended.

use super::*;
use crate::store::testing::on_both_databases;

const DAY: Duration = Duration::from_hours(24);

pub(super) fn late(generation: GenerationId, cost: Money, at: Timestamp) -> Arc<Late> {
    Arc::new(Late {
        generation,
        at,
        cost,
        cost_source: CostSource::Computed,
        billable_units: None,
        unit_price: None,
        answer: Some(r#"{"images":[]}"#.to_owned()),
    })
}

async fn given_up(desk: &Desk) -> GenerationId {
    let id = desk.reserve(dollars("0.05")).await;
    let end = Finish { state: FinalState::Expired, attempt: 0, ..failed(id) };
    assert_eq!(desk.books.finish(end).await, Ok(Applied::Now));
    id
}

async fn cost_by_day(desk: &Desk, group_by: Vec<UsageDimension>) -> Vec<Money> {
    let query = UsageQuery {
        from: BucketWidth::Day.start_of(NOW),
        before: BucketWidth::Day.start_of(NOW).plus(DAY * 3),
        bucket: BucketWidth::Day,
        group_by,
        filter: UsageFilter::default(),
        limit: 31,
        page: None,
    };
    let page = desk.books.usage(&query).await.unwrap();
    page.buckets.iter().map(|bucket| bucket.rows.iter().map(|row| row.cost).next().unwrap_or_default()).collect()
}

on_both_databases! {
    async fn what_came_to_light_is_our_cost_once_and_leaves_the_end_as_it_was(database) {
        let desk = Desk::open(&database).await;
        let id = given_up(&desk).await;
        assert_eq!(desk.books.submitted(submit_of(id, 1)).await, Ok(Recorded::Ended));
        let unknown = desk.books.given_up(NOW, 10).await.unwrap();
        assert_eq!(unknown.iter().map(|record| record.id).collect::<Vec<_>>(), [id]);
        let next_day = NOW.plus(DAY);
        assert_eq!(desk.books.book_late(late(id, dollars("0.03"), next_day)).await, Ok(Applied::Now));
        assert_eq!(desk.books.book_late(late(id, dollars("0.03"), next_day)).await, Ok(Applied::Already));
        assert!(desk.books.given_up(NOW, 10).await.unwrap().is_empty());
        let record = desk.books.generation(id).await.unwrap().unwrap();
        let outcome = record.outcome.unwrap();
        assert_eq!((record.state, outcome.price), (GenerationState::Expired, Money::ZERO));
        assert_eq!((outcome.cost, outcome.settled_at, outcome.late_at), (dollars("0.03"), NOW, Some(next_day)));
        assert_eq!(outcome.answer.as_deref(), Some(r#"{"images":[]}"#));
        assert_eq!(desk.balance().await.posted, Money::ZERO);
        let entries: Vec<_> = desk.books.entries(id).await.unwrap().iter().map(|entry| (entry.account, entry.amount)).collect();
        assert!(entries.contains(&(LedgerAccount::CostOfSales, dollars("0.03"))), "{entries:?}");
        assert_eq!(entries.len(), 2);
        // A day that is over stays as it was, whichever way it is asked for.
        for group_by in [vec![], vec![UsageDimension::Key], vec![UsageDimension::User]] {
            assert_eq!(cost_by_day(&desk, group_by).await, [Money::ZERO, dollars("0.03"), Money::ZERO]);
        }
        desk.close().await;
    }

    async fn nothing_late_is_booked_on_what_is_open_or_known(database) {
        let desk = Desk::open(&database).await;
        let open = desk.reserve(dollars("0.05")).await;
        assert_eq!(desk.books.book_late(late(open, dollars("0.03"), NOW)).await, Err(LedgerError::StillOpen));
        desk.books.submitted(submit_of(open, 1)).await.unwrap();
        desk.books.finish(delivered(open, dollars("0.05"), dollars("0.03"))).await.unwrap();
        assert_eq!(desk.books.book_late(late(open, dollars("0.03"), NOW)).await, Ok(Applied::Already));
        let cost = desk.reserve(dollars("0.05")).await;
        desk.books.finish(Finish { cost: dollars("0.01"), ..failed(cost) }).await.unwrap();
        assert_eq!(desk.books.book_late(late(cost, dollars("0.03"), NOW)).await, Ok(Applied::Already));
        desk.close().await;
    }

    async fn what_was_free_in_the_end_is_known_not_to_cost_anything(database) {
        let desk = Desk::open(&database).await;
        let id = given_up(&desk).await;
        desk.books.submitted(submit_of(id, 1)).await.unwrap();
        assert_eq!(desk.books.book_late(late(id, Money::ZERO, NOW)).await, Ok(Applied::Now));
        assert!(desk.books.given_up(NOW, 10).await.unwrap().is_empty());
        assert!(desk.books.entries(id).await.unwrap().is_empty());
        desk.close().await;
    }
}
