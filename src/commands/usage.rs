//! `imagegate usage`: what was used and what it cost, as a table.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, ValueEnum};
use imagegate::config::Config;
use imagegate::domain::{Fixed, Money, Timestamp};
use imagegate::ledger::{Books, BucketWidth, UsageDimension, UsageFilter, UsageQuery, UsageRow};
use imagegate::startup;
use tokio_util::task::TaskTracker;

use super::{Failure, print, print_table};

const DAY: Duration = Duration::from_hours(24);

/// Which usage to print.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How many days back, today included
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3660))]
    days: u32,
    /// What makes a line; several with commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [By::Day, By::Model])]
    by: Vec<By>,
}

/// What makes a line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Day,
    Model,
    Project,
    Key,
    User,
    Size,
}

impl By {
    const fn head(self) -> &'static str {
        match self {
            Self::Day => "DAY",
            Self::Model => "MODEL",
            Self::Project => "PROJECT",
            Self::Key => "KEY",
            Self::User => "USER",
            Self::Size => "SIZE",
        }
    }

    const fn group(self) -> Option<UsageDimension> {
        match self {
            Self::Day => None,
            Self::Model => Some(UsageDimension::Model),
            Self::Project => Some(UsageDimension::Project),
            Self::Key => Some(UsageDimension::Key),
            Self::User => Some(UsageDimension::User),
            Self::Size => Some(UsageDimension::Size),
        }
    }

    fn cell(self, day: Timestamp, row: &UsageRow) -> String {
        let text = match self {
            Self::Day => Some(day.rfc3339().chars().take(10).collect()),
            Self::Model => row.model.clone(),
            Self::Project => row.project_id.map(|id| id.to_string()),
            Self::Key => row.api_key_id.map(|id| id.to_string()),
            Self::User => row.user.clone(),
            Self::Size => row.size.clone(),
        };
        text.unwrap_or_else(|| "–".to_owned())
    }
}

/// The sums of one line.
#[derive(Default)]
struct Sums {
    requests: u64,
    images: u64,
    megapixels: i64,
    price: Money,
    cost: Money,
}

/// Prints the table from the configured database.
pub async fn run(config: &Config, arguments: &Arguments) -> Result<(), Failure> {
    let store = startup::open_store(config).await?;
    let (clock, _) = startup::clock_and_ids();
    let tracker = TaskTracker::new();
    let books = Books::start(store, &tracker, &tokio::runtime::Handle::current());
    let now = clock.now();
    let back = i64::from(arguments.days - 1) * 24 * 3600;
    let today = now.seconds() - now.seconds().rem_euclid(24 * 3600);
    let start = Timestamp::from_seconds(today - back);
    let end = Timestamp::from_seconds(today).plus(DAY);
    let mut lines: BTreeMap<Vec<String>, Sums> = BTreeMap::new();
    let mut page_start = None;
    loop {
        let query = UsageQuery {
            from: start,
            before: end,
            bucket: BucketWidth::Day,
            page: page_start,
            group_by: arguments.by.iter().filter_map(|by| by.group()).collect(),
            filter: UsageFilter::default(),
            limit: 31,
        };
        let page = books.usage(&query).await?;
        for bucket in &page.buckets {
            for row in &bucket.rows {
                let key = arguments.by.iter().map(|by| by.cell(bucket.start, row)).collect();
                let sums = lines.entry(key).or_default();
                sums.requests += row.requests;
                sums.images += row.images;
                sums.megapixels = sums.megapixels.saturating_add(row.megapixels.billionths());
                sums.price = [sums.price, row.price].into_iter().sum();
                sums.cost = [sums.cost, row.cost].into_iter().sum();
            }
        }
        match page.next {
            Some(next) => page_start = Some(next),
            None => break,
        }
    }
    if lines.is_empty() {
        return print(&format!("Nothing was settled in the last {} days.\n", arguments.days));
    }
    let mut head: Vec<&str> = arguments.by.iter().map(|by| by.head()).collect();
    let numbers = head.len();
    head.extend(["REQUESTS", "IMAGES", "MEGAPIXELS", "PRICE USD", "COST USD"]);
    let right: Vec<usize> = (numbers..head.len()).collect();
    let rows: Vec<Vec<String>> = lines
        .into_iter()
        .map(|(mut cells, sums)| {
            let megapixels = Fixed::from_billionths(sums.megapixels);
            cells.extend([
                sums.requests.to_string(),
                sums.images.to_string(),
                megapixels.to_string(),
                sums.price.to_string(),
                sums.cost.to_string(),
            ]);
            cells
        })
        .collect();
    print_table(&head, &rows, &right)
}
