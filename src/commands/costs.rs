//! `imagegate costs`: what the projects pay, as the ledger has it: settlements less refunds.

use clap::Args;
use imagegate::config::Config;
use serde_json::json;

use super::usage::{By, Window, sum, tell};
use super::{Failure, Output};

/// Which costs to print.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  imagegate costs --by project
  imagegate costs --from 2026-11-01 --to 2026-12-01 --by project,model --json")]
pub struct Arguments {
    #[command(flatten)]
    window: Window,
    /// What makes a line; several with commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [By::Day, By::Project])]
    by: Vec<By>,
}

/// Prints costs from the configured database.
pub async fn run(config: &Config, arguments: &Arguments, output: Output) -> Result<(), Failure> {
    let lines = sum(config, &arguments.window, &arguments.by, true).await?;
    let numbers = [("images", "IMAGES"), ("amount_usd", "AMOUNT USD")];
    tell(output, &arguments.by, &lines, &numbers, |sums| vec![json!(sums.images), json!(sums.price)])
}
