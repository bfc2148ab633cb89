//! `imagegate generations …`: every request that reserved, and one of them with its whole history.

use std::io::Write as _;

use clap::{Args, Subcommand};
use imagegate::accounts::{Accounts, AuditEvent};
use imagegate::admin::GenerationHistory;
use imagegate::api::GenerationView;
use imagegate::config::Config;
use imagegate::domain::{GenerationId, Money};
use imagegate::ledger::{Books, GenerationFilter, GenerationRecord};
use imagegate::startup;
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use super::{Failure, Output, find_project, open_accounts, period, print};

/// How many are read at a time.
const PAGE: u32 = 500;

/// What to look at.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  imagegate generations list --limit 20
  imagegate generations list --state failed --from 2026-11-01 --model flux/dev
  imagegate generations list --all --json > generations.ndjson
  imagegate generations show 019e1951-c778-7120-9c82-16efcf40ec82")]
pub enum Action {
    /// List generations, newest first
    List(Box<List>),
    /// Show one with parameters, submits, ledger entries, price, cost and why
    Show {
        /// The generation's id, as in `x-imagegate-generation-id`
        id: String,
    },
}

/// Which to list.
#[derive(Debug, Args)]
pub struct List {
    /// Of this project, by id or name
    #[arg(long)]
    project: Option<String>,
    /// Of this key, by its id
    #[arg(long)]
    key: Option<String>,
    /// Of this model
    #[arg(long)]
    model: Option<String>,
    /// In this state: queued, running, succeeded, failed, cancelled, expired
    #[arg(long)]
    state: Option<String>,
    /// Of this `user`
    #[arg(long)]
    user: Option<String>,
    /// With this id at fal
    #[arg(long)]
    fal_request: Option<String>,
    /// Costing us at least so many US dollars
    #[arg(long)]
    min_cost: Option<Money>,
    /// Costing us at most so many US dollars
    #[arg(long)]
    max_cost: Option<Money>,
    /// That fal billed another amount for than the catalogue computed
    #[arg(long)]
    drifted: bool,
    /// From this day or moment (UTC) on; the last thirty days if not given
    #[arg(long)]
    from: Option<String>,
    /// Up to this day or moment (UTC), not part of it
    #[arg(long)]
    to: Option<String>,
    /// How many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Every one that matches, with `--json` as one object on each line
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

/// Looks at the books of the configured database.
pub async fn run(config: &Config, action: Action, output: Output) -> Result<(), Failure> {
    let (accounts, store) = open_accounts(config).await?;
    let books = Books::start(store, &TaskTracker::new(), &tokio::runtime::Handle::current());
    match action {
        Action::Show { id } => show(&accounts, &books, &id).await,
        Action::List(list) => {
            let (clock, _) = startup::clock_and_ids();
            let (from, before) = period(list.from.as_deref(), list.to.as_deref(), clock.now())?;
            let project = match &list.project {
                Some(project) => Some(find_project(&accounts, project).await?.id),
                None => None,
            };
            let state = list.state.as_deref().map(str::parse).transpose();
            let filter = GenerationFilter {
                project_id: project,
                api_key_id: list.key.as_deref().map(str::parse).transpose().map_err(|_| "`--key` is no key's id")?,
                model: list.model,
                state: state
                    .map_err(|_| "`--state` is none of queued, running, succeeded, failed, cancelled, expired")?,
                user: list.user,
                provider_request_id: list.fal_request,
                cost_from: list.min_cost,
                cost_to: list.max_cost,
                drifted: list.drifted,
                created_from: Some(from),
                created_before: Some(before),
                limit: if list.all { PAGE } else { list.limit },
                ..GenerationFilter::default()
            };
            if list.all {
                let filters = json!({"from": from.seconds(), "to": before.seconds()});
                accounts.note(AuditEvent::DataExported, project, "generations".to_owned(), &filters).await?;
            }
            if list.all { stream(&books, filter, output).await } else { page(&books, &filter, output).await }
        }
    }
}

const HEAD: &[&str] = &["ID", "CREATED", "STATE", "MODEL", "IMAGES", "PRICE USD", "COST USD", "PROJECT"];

fn cells(record: &GenerationRecord) -> Vec<String> {
    let outcome = record.outcome.as_ref();
    let amount = |amount: Option<Money>| amount.map_or_else(|| "–".to_owned(), |amount| amount.to_string());
    vec![
        record.id.to_string(),
        record.created_at.rfc3339(),
        record.state.to_string(),
        record.model.clone(),
        outcome.map_or(record.num_images, |outcome| outcome.images).to_string(),
        amount(outcome.map(|outcome| outcome.price)),
        amount(outcome.map(|outcome| outcome.cost)),
        record.project_id.to_string(),
    ]
}

fn view(record: &GenerationRecord) -> Value {
    serde_json::to_value(GenerationView::for_operator(record)).unwrap_or_default()
}

async fn page(books: &Books, filter: &GenerationFilter, output: Output) -> Result<(), Failure> {
    let page = books.list_generations(filter).await?;
    let views: Vec<Value> = page.items.iter().map(view).collect();
    let rows: Vec<Vec<String>> = page.items.iter().map(cells).collect();
    let view = json!({"object": "list", "data": views, "has_more": page.has_more});
    output.table(&view, HEAD, &rows, &[4, 5, 6], "There are none in this time.")
}

/// Prints page by page while it reads.
async fn stream(books: &Books, mut filter: GenerationFilter, output: Output) -> Result<(), Failure> {
    if output == Output::Text {
        print(&format!("{}\n", HEAD.join("\t")))?;
    }
    loop {
        let page = books.list_generations(&filter).await?;
        let mut text = Vec::new();
        for record in &page.items {
            match output {
                Output::Json => writeln!(text, "{}", view(record))?,
                Output::Text => writeln!(text, "{}", cells(record).join("\t"))?,
            }
        }
        print(&String::from_utf8(text)?)?;
        filter.after = page.items.last().map(|record| record.id);
        if !page.has_more {
            return Ok(());
        }
    }
}

async fn show(accounts: &Accounts, books: &Books, text: &str) -> Result<(), Failure> {
    let unknown = || format!("there is no generation `{text}`");
    let id: GenerationId = text.parse().map_err(|_| unknown())?;
    let record = books.generation(id).await?.ok_or_else(unknown)?;
    if record.prompt.is_some() {
        accounts.note(AuditEvent::PromptRead, Some(record.project_id), id.to_string(), &json!({})).await?;
    }
    let history = GenerationHistory::of(&record, books.attempts(id).await?, books.entries(id).await?);
    // A history is a tree: the same for people and programs.
    print(&format!("{:#}\n", serde_json::to_value(history)?))
}
