//! `imagegate credits …`: a project's balance, top-ups and corrections.

use clap::Subcommand;
use imagegate::config::Config;
use imagegate::domain::Money;
use imagegate::ledger::{Books, Credit, CreditKind};
use imagegate::startup;
use serde_json::json;
use tokio_util::task::TaskTracker;

use super::{Failure, Output, find_project, open_accounts};

/// What to do with credits.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  imagegate credits add default 25.00 --reason \"invoice 17\"
  imagegate credits add default -1.50 --reason \"booked twice\"
  imagegate credits balance default --json")]
pub enum Action {
    /// Book a top-up (above zero) or a correction (below zero)
    Add {
        /// The project's id or name
        project: String,
        /// US dollars
        #[arg(allow_negative_numbers = true)]
        amount: Money,
        /// Why, for those who read the ledger later
        #[arg(long)]
        reason: String,
    },
    /// Show what a project has, holds and has spent this month
    Balance {
        /// The project's id or name
        project: String,
    },
}

/// Works on the books of the configured database.
pub async fn run(config: &Config, action: Action, output: Output) -> Result<(), Failure> {
    let (accounts, store) = open_accounts(config).await?;
    let (clock, ids) = startup::clock_and_ids();
    let books = Books::start(store, &TaskTracker::new(), &tokio::runtime::Handle::current());
    let project = match &action {
        Action::Add { project, .. } | Action::Balance { project } => find_project(&accounts, project).await?,
    };
    if let Action::Add { amount, reason, .. } = action {
        if amount == Money::ZERO {
            return Err("an amount of zero changes nothing".into());
        }
        let credit = Credit {
            id: ids.uuid(),
            project_id: project.id,
            kind: if amount > Money::ZERO { CreditKind::TopUp } else { CreditKind::Correction },
            amount,
            reason,
            author: "command".to_owned(),
            at: clock.now(),
        };
        books.credit(&credit).await?;
    }
    let balance = books.balance(project.id, clock.now()).await?.ok_or("the project has no balance")?;
    let view = json!({
        "object": "project.balance",
        "project_id": project.id,
        "balance_usd": balance.posted,
        "held_usd": balance.held,
        "spent_this_month_usd": balance.spent_this_month,
        "prepaid": balance.prepaid,
        "spend_limit_usd": balance.spend_limit,
    });
    let (posted, held, spent) = (balance.posted, balance.held, balance.spent_this_month);
    output.say(&view, &format!("{}: {posted} USD, {held} of it held; {spent} spent this month.", project.id))
}
