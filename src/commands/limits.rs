//! `imagegate limits …`: how much a project, or all of them together, may spend and ask for.

use clap::{Args, Subcommand};
use imagegate::accounts::{Accounts, ProjectChange, ProjectRecord, RateLimit};
use imagegate::config::Config;
use imagegate::domain::Money;
use imagegate::startup;
use serde_json::{Value, json};

use super::{Failure, Output, find_project, open_accounts};

/// The model that stands for each model without a limit of its own.
const ANY_MODEL: &str = "*";

/// What to do with limits.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  imagegate limits show default
  imagegate limits set default --spend 100 --concurrent 20
  imagegate limits set default --model flux/dev --requests-per-minute 60
  imagegate limits set default --spend none
  imagegate limits organization --spend 1000

A limit of `none` is lifted; a model without rates of its own has those of `*`, which is meant where no model is named.
Reservations see a change at once, on every replica.")]
pub enum Action {
    /// Show a project's limits
    Show {
        /// Its id or name
        project: String,
    },
    /// Change a project's limits; what is not named stays
    Set(Set),
    /// Show or set what all projects together may spend in a month
    Organization {
        /// US dollars a month, or `none`
        #[arg(long)]
        spend: Option<String>,
    },
}

/// What is to be different.
#[derive(Debug, Args)]
pub struct Set {
    /// The project's id or name
    project: String,
    /// US dollars a calendar month (UTC), or `none`
    #[arg(long)]
    spend: Option<String>,
    /// Generations at once, or `none`
    #[arg(long)]
    concurrent: Option<String>,
    /// The model that the rates are for; each model without rates of its own if not given
    #[arg(long, default_value = ANY_MODEL)]
    model: String,
    /// Requests in any minute, or `none`
    #[arg(long)]
    requests_per_minute: Option<String>,
    /// Images in any minute, or `none`
    #[arg(long)]
    images_per_minute: Option<String>,
}

/// Works on the limits of the configured database.
pub async fn run(config: &Config, action: Action, output: Output) -> Result<(), Failure> {
    let (accounts, _) = open_accounts(config).await?;
    match action {
        Action::Show { project } => show(output, &find_project(&accounts, &project).await?),
        Action::Set(set) => show(output, &change(config, &accounts, set).await?),
        Action::Organization { spend } => {
            if let Some(spend) = spend {
                accounts.set_organization_limit(limit::<Money>(&spend, "US dollars such as `100.00`")?).await?;
            }
            let limit = accounts.organization_limit().await?;
            let standing = accounts.organization_standing().await?;
            let view = json!({
                "object": "organization",
                "spend_limit_usd": limit,
                "spent_this_month_usd": standing.spent,
                "held_usd": standing.held,
            });
            let limit = limit.map_or_else(|| "no limit".to_owned(), |limit| format!("a limit of {limit} USD"));
            let (spent, held) = (standing.spent, standing.held);
            output.say(&view, &format!("All projects together: {limit} a month, {spent} spent, {held} held."))
        }
    }
}

async fn change(config: &Config, accounts: &Accounts, set: Set) -> Result<ProjectRecord, Failure> {
    const NUMBER: &str = "a whole number above zero";
    let mut project = find_project(accounts, &set.project).await?;
    let spend_limit = set.spend.as_deref().map(|text| limit(text, "US dollars such as `100.00`")).transpose()?;
    let concurrency_limit = set.concurrent.as_deref().map(|text| limit(text, NUMBER)).transpose()?;
    let requests = set.requests_per_minute.as_deref().map(|text| limit(text, NUMBER)).transpose()?;
    let images = set.images_per_minute.as_deref().map(|text| limit(text, NUMBER)).transpose()?;
    if requests == Some(Some(0)) || images == Some(Some(0)) {
        return Err(format!("a rate is {NUMBER}, or `none`").into());
    }
    let model = if set.model == ANY_MODEL {
        set.model
    } else {
        let catalogue = startup::load_catalogue(&config.sales)?;
        let found = catalogue.models().find(|model| model.id.eq_ignore_ascii_case(&set.model));
        found.ok_or_else(|| format!("there is no model `{}`: `imagegate models` lists them", set.model))?.id.clone()
    };
    if spend_limit.is_some() || concurrency_limit.is_some() {
        let change = ProjectChange { spend_limit, concurrency_limit, ..ProjectChange::default() };
        project = accounts.update_project(project.id, change).await?;
    }
    if requests.is_some() || images.is_some() {
        project = accounts.change_rate_limit(project.id, &model, requests, images).await?;
    }
    Ok(project)
}

/// A limit, or `none`.
fn limit<T: std::str::FromStr>(text: &str, expected: &str) -> Result<Option<T>, Failure> {
    if text == "none" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| format!("`{text}` is neither {expected} nor `none`").into())
}

fn show(output: Output, project: &ProjectRecord) -> Result<(), Failure> {
    let number = |number: Option<u32>| number.map_or_else(|| "–".to_owned(), |number| number.to_string());
    let mut rows = Vec::new();
    if let Some(limit) = project.spend_limit {
        rows.push(vec!["spend, USD a month".to_owned(), String::new(), limit.to_string()]);
    }
    if let Some(limit) = project.concurrency_limit {
        rows.push(vec!["generations at once".to_owned(), String::new(), limit.to_string()]);
    }
    for RateLimit { model, requests_per_minute, images_per_minute } in &project.rate_limits {
        for (what, limit) in [("requests a minute", requests_per_minute), ("images a minute", images_per_minute)] {
            if limit.is_some() {
                rows.push(vec![what.to_owned(), model.clone(), number(*limit)]);
            }
        }
    }
    let none = format!("Nothing limits {} (`{}`).", project.id, project.name);
    output.table(&view(project), &["LIMIT", "MODEL", "AT MOST"], &rows, &[2], &none)
}

fn view(project: &ProjectRecord) -> Value {
    let rate = |limit: &RateLimit| {
        json!({
            "model": limit.model,
            "requests_per_minute": limit.requests_per_minute,
            "images_per_minute": limit.images_per_minute,
        })
    };
    json!({
        "object": "project.limits",
        "project_id": project.id,
        "spend_limit_usd": project.spend_limit,
        "concurrent_generations": project.concurrency_limit,
        "rates": project.rate_limits.iter().map(rate).collect::<Vec<_>>(),
    })
}
