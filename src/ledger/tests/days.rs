//! Usage is what a plain sum over the settled rows tells, for any rows, buckets, groups and filters: also where the sums of
//! days answer, which the databases keep by themselves.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::store::testing::on_both_databases;

/// 2027-02-27T00:00:00Z: a month's end is among the days that follow.
const START: i64 = 1_803_686_400_000_000;
const DAY: i64 = 86_400_000_000;
const MODELS: [&str; 2] = ["flux/dev", "flux-realism"];
const SIZES: [Option<&str>; 2] = [None, Some("1024x768")];
const SOURCES: [&str; 2] = ["image.generation", "image.edit"];
const USERS: [Option<&str>; 3] = [None, Some("ada"), Some("eve")];
const DIMENSIONS: [UsageDimension; 7] = [
    UsageDimension::Project,
    UsageDimension::User,
    UsageDimension::Key,
    UsageDimension::Model,
    UsageDimension::RequestedModel,
    UsageDimension::Size,
    UsageDimension::Source,
];

/// A generation that ended.
#[derive(Debug, Clone)]
struct End {
    at: i64,
    payer: usize,
    model: usize,
    size: usize,
    source: usize,
    user: usize,
    /// Nothing for one that failed.
    price: Option<i64>,
    cost: i64,
    images: u32,
    refund: Option<i64>,
}

/// A moment at or near the edge of a day, an hour or a minute, or anywhere.
fn moment() -> impl Strategy<Value = i64> {
    let near = (0..4_i64, select(vec![0, 3_600_000_000, 60_000_000, DAY / 2]), -1..2_i64);
    prop_oneof![
        3 => near.prop_map(|(day, edge, off)| START + day * DAY + edge + off),
        1 => START..START + 4 * DAY,
    ]
}

fn end() -> impl Strategy<Value = End> {
    let kind = (0..3_usize, 0..2_usize, 0..2_usize, 0..2_usize, 0..3_usize);
    let money = (proptest::option::weighted(0.8, 0..3_000_000_000_i64), 0..2_000_000_000_i64, 0..4_u32);
    (moment(), kind, money, proptest::option::weighted(0.3, moment())).prop_map(
        |(at, (payer, model, size, source, user), (price, cost, images), refund)| End {
            at,
            payer,
            model,
            size,
            source,
            user,
            price,
            cost,
            images: if price.is_some() { images } else { 0 },
            refund,
        },
    )
}

/// A question about all of it or some of it.
fn question() -> impl Strategy<Value = UsageQuery> {
    let widths = select(vec![BucketWidth::Minute, BucketWidth::Hour, BucketWidth::Day, BucketWidth::Day]);
    let words = |all: Vec<&'static str>| subsequence(all.clone(), 0..=all.len());
    let filters = (words(vec!["ada", "eve"]), words(MODELS.to_vec()), words(vec!["1024x768"]), words(SOURCES.to_vec()));
    (widths, subsequence(DIMENSIONS.to_vec(), 0..=6), moment(), moment(), filters, any::<u8>()).prop_map(
        |(bucket, group_by, one, other, (users, models, sizes, sources), which)| {
            let list = |bit: u8, words: Vec<&'static str>| match which & bit {
                0 => words.into_iter().map(str::to_owned).collect(),
                _ => Vec::new(),
            };
            UsageQuery {
                from: Timestamp::from_micros(one.min(other)),
                before: Timestamp::from_micros(one.max(other) + 1),
                bucket,
                group_by,
                // Most questions ask for all users, models and so on.
                filter: UsageFilter {
                    users: list(7, users),
                    models: list(24, models),
                    sizes: list(96, sizes),
                    sources: list(160, sources),
                    ..UsageFilter::default()
                },
                limit: match bucket {
                    BucketWidth::Minute => 1500,
                    BucketWidth::Hour => 30,
                    BucketWidth::Day => 2,
                },
                page: None,
            }
        },
    )
}

/// A bucket and what was grouped by.
type Key = (i64, [Option<String>; 7]);
/// Requests, failures, images, megapixels, price, cost.
type Sums = [i64; 6];

/// What counts for usage or costs: when, and the numbers.
type Numbers = Vec<(i64, Sums)>;

fn usage_of(end: &End) -> Numbers {
    let charged = i64::from(end.price.is_some());
    let megapixels = charged * 750_000_000;
    let sums = [charged, 1 - charged, i64::from(end.images), megapixels, end.price.unwrap_or(0), end.cost];
    vec![(end.at, sums)]
}

fn costs_of(end: &End) -> Numbers {
    let price = end.price.unwrap_or(0);
    let refund = end.refund.map(|at| (at, [0, 0, 0, 0, -price, 0]));
    let charge = (end.at, [0, 0, i64::from(end.images), 0, price, 0]);
    if price == 0 { Vec::new() } else { [charge].into_iter().chain(refund).collect() }
}

fn plain_sum(
    ends: &[End],
    payers: &[(ProjectId, ApiKeyId)],
    query: &UsageQuery,
    numbers_of: fn(&End) -> Numbers,
) -> BTreeMap<Key, Sums> {
    let mut sums = BTreeMap::<Key, Sums>::new();
    let fits = |list: &[String], word: Option<&str>| {
        list.is_empty() || word.is_some_and(|word| list.iter().any(|w| w == word))
    };
    for end in ends {
        let (user, size) = (USERS[end.user], SIZES[end.size]);
        let filter = &query.filter;
        if !(fits(&filter.users, user)
            && fits(&filter.models, Some(MODELS[end.model]))
            && fits(&filter.sizes, size)
            && fits(&filter.sources, Some(SOURCES[end.source]))
            && (filter.projects.is_empty() || filter.projects.contains(&payers[end.payer].0))
            && (filter.keys.is_empty() || filter.keys.contains(&payers[end.payer].1)))
        {
            continue;
        }
        let group = DIMENSIONS.map(|dimension| {
            let word = match dimension {
                UsageDimension::Project => Some(payers[end.payer].0.to_string()),
                UsageDimension::User => user.map(str::to_owned),
                UsageDimension::Key => Some(payers[end.payer].1.to_string()),
                UsageDimension::Model | UsageDimension::RequestedModel => Some(MODELS[end.model].to_owned()),
                UsageDimension::Size => size.map(str::to_owned),
                UsageDimension::Source => Some(SOURCES[end.source].to_owned()),
            };
            query.group_by.contains(&dimension).then_some(word).flatten()
        });
        for (at, numbers) in numbers_of(end) {
            if at < query.from.micros() || at >= query.before.micros() {
                continue;
            }
            let bucket = at - at % query.bucket.micros();
            let entry = sums.entry((bucket, group.clone())).or_default();
            for (sum, number) in entry.iter_mut().zip(numbers) {
                *sum += number;
            }
        }
    }
    sums
}

/// Every page of an answer, as the plain sum has it.
async fn told(books: &Books, query: &UsageQuery, costs: bool) -> BTreeMap<Key, Sums> {
    let mut found = BTreeMap::new();
    let mut query = query.clone();
    loop {
        let page = if costs { books.costs(&query).await } else { books.usage(&query).await }.unwrap();
        for bucket in page.buckets {
            for row in bucket.rows {
                let group = [
                    row.project_id.map(|id| id.to_string()),
                    row.user,
                    row.api_key_id.map(|id| id.to_string()),
                    row.model,
                    row.requested_model,
                    row.size,
                    row.source,
                ];
                let number = |count: u64| i64::try_from(count).unwrap();
                let sums = [
                    number(row.requests),
                    number(row.failures),
                    number(row.images),
                    row.megapixels.billionths(),
                    row.price.nanos(),
                    row.cost.nanos(),
                ];
                assert!(found.insert((bucket.start.micros(), group), sums).is_none(), "a row is there twice");
            }
        }
        match page.next {
            Some(next) => query.page = Some(next),
            None => return found,
        }
    }
}

async fn record(desk: &Desk, end: &End, payer: (ProjectId, ApiKeyId)) {
    let price = Money::from_nanos(end.price.unwrap_or(0));
    let reservation = Reservation {
        project_id: payer.0,
        api_key_id: payer.1,
        model: MODELS[end.model].to_owned(),
        size: SIZES[end.size].map(str::to_owned),
        source: SOURCES[end.source].to_owned(),
        user: USERS[end.user].map(str::to_owned),
        ..desk.reservation(price)
    };
    let id = reservation.id;
    desk.books.reserve(reservation).await.unwrap();
    let settled_at = Timestamp::from_micros(end.at);
    let cost = Money::from_nanos(end.cost);
    let finish = match end.price {
        Some(_) => Finish { settled_at, images: end.images, ..delivered(id, price, cost) },
        None => Finish { settled_at, cost, ..failed(id) },
    };
    desk.books.finish(finish).await.unwrap();
    if let (Some(at), true) = (end.refund, price > Money::ZERO) {
        let refund = Refund {
            id: SystemIds.uuid(),
            generation: id,
            amount: price,
            reason: "it was black".to_owned(),
            author: "ada".to_owned(),
            at: Timestamp::from_micros(at),
            audit: None,
        };
        assert_eq!(desk.books.refund(&refund).await, Ok(Applied::Now));
    }
}

async fn play(store: Store, ends: Vec<End>, questions: Vec<UsageQuery>) {
    let first = store.add_project(NOW).await;
    let second = store.add_project(NOW).await;
    let payers = [first, (first.0, store.add_key(first.0, NOW, |_| {}).await), second];
    let desk = Desk::with(store, first.0, first.1);
    for end in &ends {
        record(&desk, end, payers[end.payer]).await;
    }
    for (index, mut query) in questions.into_iter().enumerate() {
        // The database holds other cases' rows too.
        query.filter.projects = if index % 3 == 0 { vec![second.0] } else { vec![first.0, second.0] };
        if index % 5 == 1 {
            query.filter.keys = vec![payers[1].1];
        }
        assert_eq!(told(&desk.books, &query, false).await, plain_sum(&ends, &payers, &query, usage_of), "{query:?}");
        let costs = UsageQuery { bucket: BucketWidth::Day, limit: 3, ..query };
        // A charge that was given back on the same day leaves a row of zero.
        assert_eq!(told(&desk.books, &costs, true).await, plain_sum(&ends, &payers, &costs, costs_of), "{costs:?}");
    }
    desk.close().await;
}

async fn play_many(database: TestDatabase) {
    let store = database.store().await;
    let runtime = Handle::current();
    let played = tokio::task::spawn_blocking(move || {
        let config = Config { cases: 12, failure_persistence: None, ..Config::default() };
        let inputs = (proptest::collection::vec(end(), 1..25), proptest::collection::vec(question(), 8));
        TestRunner::new(config).run(&inputs, |(ends, questions)| {
            runtime.block_on(play(store.clone(), ends, questions));
            Ok(())
        })
    });
    played.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_and_costs_equal_a_plain_sum_over_the_rows_on_sqlite() {
    play_many(TestDatabase::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_and_costs_equal_a_plain_sum_over_the_rows_on_postgres() {
    play_many(TestDatabase::postgres().await).await;
}

on_both_databases! {
    async fn a_settlement_that_comes_late_counts_on_the_day_of_its_settlement(database) {
        let desk = Desk::open(&database).await;
        // The last moment of February, written after the first of March was.
        let february = START + 2 * DAY - 1;
        for at in [february + 1, february] {
            let id = desk.reserve(dollars("1")).await;
            let finish = Finish { settled_at: Timestamp::from_micros(at), ..delivered(id, dollars("0.25"), dollars("0.1")) };
            desk.books.finish(finish).await.unwrap();
        }
        let query = UsageQuery {
            from: Timestamp::from_micros(START),
            before: Timestamp::from_micros(START + 4 * DAY),
            bucket: BucketWidth::Day,
            group_by: vec![],
            filter: UsageFilter::default(),
            limit: 31,
            page: None,
        };
        let page = desk.books.usage(&query).await.unwrap();
        let requests: Vec<_> = page.buckets.iter().map(|bucket| bucket.rows.first().map(|row| row.requests)).collect();
        assert_eq!(requests, [None, Some(1), Some(1), None]);
        desk.close().await;
    }

    async fn charges_and_refunds_of_one_moment_are_read_page_by_page_and_none_is_lost(database) {
        let desk = Desk::open(&database).await;
        let at = Timestamp::from_micros(START);
        let mut expected = Vec::new();
        for _ in 0..5 {
            let id = desk.reserve(dollars("1")).await;
            desk.books.finish(Finish { settled_at: at, ..delivered(id, dollars("0.25"), dollars("0.1")) }).await.unwrap();
            expected.push((id.uuid(), dollars("0.25"), 1));
        }
        let refund = Refund {
            id: SystemIds.uuid(),
            generation: GenerationId::from_uuid(expected[0].0),
            amount: dollars("0.2"),
            reason: "it was black".to_owned(),
            author: "ada".to_owned(),
            at,
            audit: None,
        };
        desk.books.refund(&refund).await.unwrap();
        expected.push((refund.id, dollars("-0.2"), 0));
        let before = Timestamp::from_micros(START + 1);
        let mut filter = ChargeFilter { from: at, before, project_id: Some(desk.project), after: None, limit: 2 };
        let mut found = Vec::new();
        loop {
            let page = desk.books.charges(&filter).await.unwrap();
            let Some(last) = page.last() else { break };
            filter.after = Some((last.at, last.id));
            found.extend(page.into_iter().map(|charge| (charge.id, charge.amount, charge.images.unwrap())));
        }
        expected.sort_unstable();
        assert_eq!(found, expected);
        desk.close().await;
    }

    async fn the_sums_of_days_follow_a_row_that_somebody_changes(database) {
        let desk = Desk::open(&database).await;
        let id = desk.reserve(dollars("1")).await;
        let settled_at = Timestamp::from_micros(START + DAY + 5);
        desk.books.finish(Finish { settled_at, ..delivered(id, dollars("0.25"), dollars("0.1")) }).await.unwrap();
        desk.submit_what_cost().await;
        for change in [
            "UPDATE generations SET model = 'other'",
            "UPDATE generations SET size = NULL, images = 4",
            "UPDATE generations SET settled_at = settled_at + 86400000000",
            "UPDATE generations SET prompt = NULL, prompt_expires_at = NULL",
        ] {
            assert_eq!(desk.store.execute(change).await.unwrap(), 1);
            assert_eq!(desk.books.verify().await, Ok(vec![]), "{change}");
        }
        let days = "SELECT CAST(COALESCE(SUM(images), 0) AS BIGINT) FROM usage_days WHERE requests > 0";
        assert_eq!(desk.store.number(days).await, 4);
        desk.close().await;
    }
}
