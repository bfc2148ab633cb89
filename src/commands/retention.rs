//! `imagegate retention …`: months of generations that go.

use clap::Subcommand;
use imagegate::config::Config;
use imagegate::ledger::{drop_month, droppable_month};
use imagegate::startup;
use serde_json::json;

use super::{Failure, Output, open_accounts};

/// What to do with old generations.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  imagegate retention drop 2026-05
  imagegate retention drop 2026-05 --yes")]
pub enum Action {
    /// Drop a month of generations; the ledger stays, with its sums, refunds and statements
    Drop {
        /// The month, such as 2026-05 (UTC); it must be over, and nothing of it open
        month: String,
        /// Do it; without this only what would go is shown
        #[arg(long)]
        yes: bool,
    },
}

/// Works on the configured database, as the owner of its tables.
pub async fn run(config: &Config, action: Action, output: Output) -> Result<(), Failure> {
    let Action::Drop { month, yes } = action;
    let (accounts, store) = open_accounts(config).await?;
    let (clock, _) = startup::clock_and_ids();
    let count = if yes {
        drop_month(&store, &month, clock.now(), &accounts.entry_of_drop(&month)).await?
    } else {
        droppable_month(&store, &month, clock.now()).await?
    };
    let sentence = if yes {
        format!("{month} is dropped: {count} generations are gone, the ledger has what was charged for them.")
    } else {
        format!(
            "{month} has {count} generations. Nothing was changed: `imagegate retention drop {month} --yes` drops them."
        )
    };
    let view = json!({"object": "retention.drop", "month": month, "generations": count, "dropped": yes});
    output.say(&view, &sentence)
}
