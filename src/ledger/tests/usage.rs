//! Usage in buckets.

use super::*;
use crate::store::testing::on_both_databases;

/// 2026-11-01T00:00:00Z.
const NOVEMBER: i64 = 1_793_491_200;
const HOUR: i64 = 3600;

async fn make(desk: &Desk, seconds: i64, change: impl FnOnce(&mut Reservation, &mut Finish)) {
    let mut reservation = desk.reservation(dollars("1"));
    let mut finish = delivered(reservation.id, dollars("0.25"), dollars("0.1"));
    finish.settled_at = Timestamp::from_seconds(NOVEMBER + seconds);
    change(&mut reservation, &mut finish);
    desk.books.reserve(reservation).await.unwrap();
    desk.books.finish(finish).await.unwrap();
}

fn query(hours: i64, bucket: BucketWidth) -> UsageQuery {
    UsageQuery {
        from: Timestamp::from_seconds(NOVEMBER),
        before: Timestamp::from_seconds(NOVEMBER + hours * HOUR),
        bucket,
        group_by: Vec::new(),
        filter: UsageFilter::default(),
        limit: 100,
        page: None,
    }
}

on_both_databases! {
    async fn usage_is_counted_in_the_bucket_of_its_settlement(database) {
        let desk = Desk::open(&database).await;
        for seconds in [-1, 0, HOUR - 1, HOUR, 3 * HOUR] {
            make(&desk, seconds, |_, _| {}).await;
        }
        make(&desk, HOUR, |_, finish| *finish = Finish {
            settled_at: finish.settled_at,
            cost: dollars("0.01"),
            ..failed(finish.generation)
        }).await;
        desk.reserve(dollars("1")).await;
        let page = desk.books.usage(&query(3, BucketWidth::Hour)).await.unwrap();
        assert_eq!(page.next, None);
        let starts: Vec<_> = page.buckets.iter().map(|bucket| bucket.start.seconds() - NOVEMBER).collect();
        assert_eq!(starts, [0, HOUR, 2 * HOUR]);
        let [first] = page.buckets[0].rows.as_slice() else { panic!("{page:?}") };
        assert_eq!((first.requests, first.failures, first.images), (2, 0, 2));
        assert_eq!((first.price, first.cost), (dollars("0.5"), dollars("0.2")));
        assert_eq!(first.megapixels, "1.5".parse().unwrap());
        let [second] = page.buckets[1].rows.as_slice() else { panic!("{page:?}") };
        assert_eq!((second.requests, second.failures, second.images), (1, 1, 1));
        assert_eq!((second.price, second.cost), (dollars("0.25"), dollars("0.11")));
        assert!(page.buckets[2].rows.is_empty());
        desk.close().await;
    }

    async fn usage_can_be_grouped_by_everything_and_filtered_by_everything(database) {
        let mut desk = Desk::open(&database).await;
        make(&desk, 0, |_, _| {}).await;
        make(&desk, 1, |r, _| r.model = "other".to_owned()).await;
        make(&desk, 2, |r, _| r.user = Some("eve".to_owned())).await;
        make(&desk, 3, |r, _| r.size = None).await;
        make(&desk, 4, |r, _| {
            (r.source, r.requested_model) = ("image.edit".to_owned(), Some("dall-e-3".to_owned()));
        })
        .await;
        let first_key = desk.key;
        desk.key = desk.store.add_key(desk.project, NOW, |_| {}).await;
        make(&desk, 5, |_, _| {}).await;
        let first_project = desk.project;
        (desk.project, desk.key) = desk.store.add_project(NOW).await;
        make(&desk, 6, |_, _| {}).await;
        for (dimension, counts) in [
            (UsageDimension::Project, vec![1, 6]),
            (UsageDimension::Key, vec![1, 1, 5]),
            (UsageDimension::Model, vec![1, 6]),
            (UsageDimension::RequestedModel, vec![1, 1, 5]),
            (UsageDimension::User, vec![1, 6]),
            (UsageDimension::Size, vec![1, 6]),
            (UsageDimension::Source, vec![1, 6]),
        ] {
            let usage = UsageQuery { group_by: vec![dimension], ..query(1, BucketWidth::Day) };
            let page = desk.books.usage(&usage).await.unwrap();
            let mut found: Vec<_> = page.buckets[0].rows.iter().map(|row| row.requests).collect();
            found.sort_unstable();
            assert_eq!(found, counts, "{dimension:?}");
        }
        let all = vec![
            UsageDimension::Project, UsageDimension::User, UsageDimension::Key,
            UsageDimension::Model, UsageDimension::RequestedModel, UsageDimension::Size, UsageDimension::Source,
        ];
        let page = desk.books.usage(&UsageQuery { group_by: all, ..query(1, BucketWidth::Minute) }).await.unwrap();
        assert_eq!(page.buckets[0].rows.len(), 7);
        let eve = page.buckets[0].rows.iter().find(|row| row.user.is_some()).unwrap();
        assert_eq!(*eve, UsageRow {
            project_id: Some(first_project),
            user: Some("eve".to_owned()),
            api_key_id: Some(first_key),
            model: Some("flux/dev".to_owned()),
            requested_model: Some("flux/dev".to_owned()),
            size: Some("1024x768".to_owned()),
            source: Some("image.generation".to_owned()),
            requests: 1,
            failures: 0,
            images: 1,
            megapixels: "0.75".parse().unwrap(),
            price: dollars("0.25"),
            cost: dollars("0.1"),
        });
        let none = UsageFilter::default;
        for (filter, requests) in [
            (UsageFilter { projects: vec![first_project], ..none() }, 6),
            (UsageFilter { projects: vec![first_project, desk.project], ..none() }, 7),
            (UsageFilter { keys: vec![first_key], ..none() }, 5),
            (UsageFilter { models: vec!["other".to_owned()], ..none() }, 1),
            (UsageFilter { users: vec!["eve".to_owned()], ..none() }, 1),
            (UsageFilter { sizes: vec!["1024x768".to_owned()], ..none() }, 6),
            (UsageFilter { sources: vec!["image.edit".to_owned()], ..none() }, 1),
        ] {
            let usage = UsageQuery { filter, ..query(1, BucketWidth::Day) };
            let page = desk.books.usage(&usage).await.unwrap();
            assert_eq!(page.buckets[0].rows[0].requests, requests, "{usage:?}");
        }
        desk.close().await;
    }

    async fn pages_of_buckets_follow_each_other(database) {
        let desk = Desk::open(&database).await;
        for hour in 0..10 {
            make(&desk, hour * HOUR, |_, _| {}).await;
        }
        let mut usage = UsageQuery {
            from: Timestamp::from_seconds(NOVEMBER + 1),
            limit: 4,
            ..query(10, BucketWidth::Hour)
        };
        let mut starts = Vec::new();
        let mut rows = 0;
        loop {
            let page = desk.books.usage(&usage).await.unwrap();
            starts.extend(page.buckets.iter().map(|bucket| (bucket.start.seconds() - NOVEMBER) / HOUR));
            rows += page.buckets.iter().map(|bucket| bucket.rows.len()).sum::<usize>();
            let Some(next) = page.next else { break };
            usage.page = Some(next);
        }
        assert_eq!(starts, (0..10).collect::<Vec<_>>());
        // What was settled before the asked time does not count, though its bucket is shown.
        assert_eq!(rows, 9);
        desk.close().await;
    }
}
