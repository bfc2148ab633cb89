//! `imagegate usage` and `imagegate costs`: what was made, what the projects pay and what it costs us.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use imagegate::config::Config;
use imagegate::domain::{Fixed, Money, Timestamp};
use imagegate::ledger::{Books, BucketWidth, UsageDimension, UsageFilter, UsageQuery, UsageRow};
use imagegate::startup;
use serde_json::{Map, Value, json};
use tokio_util::task::TaskTracker;

use super::{Failure, Output, find_project, open_accounts, period};

const DAY: i64 = 86_400;

/// Which usage to print.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  imagegate usage
  imagegate usage --days 7 --by project,model
  imagegate usage --from 2026-11-01 --to 2026-12-01 --by model --json")]
pub struct Arguments {
    #[command(flatten)]
    window: Window,
    /// What makes a line; several with commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [By::Day, By::Model])]
    by: Vec<By>,
}

/// Which part of the books to sum up.
#[derive(Debug, Args)]
pub struct Window {
    /// How many days back, today included; thirty if nothing is given
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3660), conflicts_with_all = ["from", "to"])]
    days: Option<u32>,
    /// From this day or moment (UTC) on, such as 2026-11-01
    #[arg(long)]
    from: Option<String>,
    /// Up to this day or moment (UTC), not part of it
    #[arg(long)]
    to: Option<String>,
    /// Only this project, by id or name
    #[arg(long)]
    project: Option<String>,
    /// Only this model
    #[arg(long)]
    model: Option<String>,
}

/// What makes a line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// The day in UTC.
    Day,
    /// The model.
    Model,
    /// The name that was asked for: an alias, or the model's id.
    RequestedModel,
    /// The project.
    Project,
    /// The key.
    Key,
    /// The `user` of the requests.
    User,
    /// The size that was asked for.
    Size,
}

impl By {
    const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Model => "model",
            Self::RequestedModel => "requested_model",
            Self::Project => "project_id",
            Self::Key => "api_key_id",
            Self::User => "user",
            Self::Size => "size",
        }
    }

    const fn head(self) -> &'static str {
        match self {
            Self::Day => "DAY",
            Self::Model => "MODEL",
            Self::RequestedModel => "ASKED FOR",
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
            Self::RequestedModel => Some(UsageDimension::RequestedModel),
            Self::Project => Some(UsageDimension::Project),
            Self::Key => Some(UsageDimension::Key),
            Self::User => Some(UsageDimension::User),
            Self::Size => Some(UsageDimension::Size),
        }
    }

    fn cell(self, day: Timestamp, row: &UsageRow) -> Option<String> {
        match self {
            Self::Day => Some(day.rfc3339().chars().take(10).collect()),
            Self::Model => row.model.clone(),
            Self::RequestedModel => row.requested_model.clone(),
            Self::Project => row.project_id.map(|id| id.to_string()),
            Self::Key => row.api_key_id.map(|id| id.to_string()),
            Self::User => row.user.clone(),
            Self::Size => row.size.clone(),
        }
    }
}

/// The sums of one line.
#[derive(Debug, Default)]
pub struct Sums {
    requests: u64,
    failures: u64,
    /// Images delivered.
    pub images: u64,
    megapixels: i64,
    /// What the projects pay.
    pub price: Money,
    cost: Money,
}

/// The lines of a table by what makes them.
pub type Lines = BTreeMap<Vec<Option<String>>, Sums>;

/// Sums up usage, or costs as the ledger has them.
pub async fn sum(config: &Config, window: &Window, by: &[By], costs: bool) -> Result<Lines, Failure> {
    let (accounts, store) = open_accounts(config).await?;
    let books = Books::start(store, &TaskTracker::new(), &tokio::runtime::Handle::current());
    let (clock, _) = startup::clock_and_ids();
    let (mut from, before) = period(window.from.as_deref(), window.to.as_deref(), clock.now())?;
    if let Some(days) = window.days {
        from = Timestamp::from_seconds(before.seconds() - i64::from(days) * DAY);
    }
    let mut filter = UsageFilter::default();
    if let Some(project) = &window.project {
        filter.projects.push(find_project(&accounts, project).await?.id);
    }
    filter.models.extend(window.model.clone());
    let mut question = UsageQuery {
        from,
        before,
        bucket: BucketWidth::Day,
        group_by: by.iter().filter_map(|by| by.group()).collect(),
        filter,
        limit: 366,
        page: None,
    };
    let mut lines = Lines::new();
    loop {
        let page = if costs { books.costs(&question).await? } else { books.usage(&question).await? };
        for bucket in &page.buckets {
            for row in &bucket.rows {
                let sums = lines.entry(by.iter().map(|by| by.cell(bucket.start, row)).collect()).or_default();
                sums.requests += row.requests;
                sums.failures += row.failures;
                sums.images += row.images;
                sums.megapixels = sums.megapixels.saturating_add(row.megapixels.billionths());
                sums.price = [sums.price, row.price].into_iter().sum();
                sums.cost = [sums.cost, row.cost].into_iter().sum();
            }
        }
        match page.next {
            Some(next) => question.page = Some(next),
            None => return Ok(lines),
        }
    }
}

/// Prints lines with their numbers.
pub fn tell(
    output: Output,
    by: &[By],
    lines: &Lines,
    numbers: &[(&str, &str)],
    values: impl Fn(&Sums) -> Vec<Value>,
) -> Result<(), Failure> {
    let mut data = Vec::new();
    let mut rows = Vec::new();
    for (cells, sums) in lines {
        let values = values(sums);
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let cells_of_people = cells.iter().map(|cell| cell.clone().unwrap_or_else(|| "–".to_owned()));
        rows.push(cells_of_people.chain(values.iter().map(text)).collect());
        let named = by.iter().zip(cells).map(|(by, cell)| (by.name().to_owned(), json!(cell)));
        let counted = numbers.iter().zip(values).map(|((name, _), value)| ((*name).to_owned(), value));
        data.push(Value::Object(named.chain(counted).collect::<Map<_, _>>()));
    }
    let head: Vec<&str> = by.iter().map(|by| by.head()).chain(numbers.iter().map(|(_, head)| *head)).collect();
    let right: Vec<usize> = (by.len()..head.len()).collect();
    let view = json!({"object": "list", "data": data});
    output.table(&view, &head, &rows, &right, "Nothing was settled in this time.")
}

/// Prints usage from the configured database.
pub async fn run(config: &Config, arguments: &Arguments, output: Output) -> Result<(), Failure> {
    let lines = sum(config, &arguments.window, &arguments.by, false).await?;
    let numbers = [
        ("requests", "REQUESTS"),
        ("failures", "FAILURES"),
        ("images", "IMAGES"),
        ("megapixels", "MEGAPIXELS"),
        ("price_usd", "PRICE USD"),
        ("cost_usd", "COST USD"),
    ];
    tell(output, &arguments.by, &lines, &numbers, |sums| {
        vec![
            json!(sums.requests),
            json!(sums.failures),
            json!(sums.images),
            json!(Fixed::from_billionths(sums.megapixels).to_string()),
            json!(sums.price),
            json!(sums.cost),
        ]
    })
}
