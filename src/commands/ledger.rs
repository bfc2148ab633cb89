//! `imagegate ledger verify|holds`: whether the books add up, and what money is set aside.

use clap::Subcommand;
use imagegate::config::Config;
use imagegate::startup;

use super::{Failure, print, print_table};

/// How many open holds are listed.
const MOST_HOLDS: u32 = 1000;

/// What to look at.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Recompute everything that is kept beside the ledger; fails with a table if something differs
    Verify,
    /// List the open holds, oldest first
    Holds,
}

/// Looks at the books of the configured database.
pub async fn run(config: &Config, action: Action) -> Result<(), Failure> {
    let store = startup::open_store(config).await?;
    match action {
        Action::Verify => {
            let found = store.verify().await?;
            if found.is_empty() {
                return print("The books add up.\n");
            }
            let count = found.len();
            let rows: Vec<Vec<String>> =
                found.into_iter().map(|row| vec![row.what, row.subject, row.found, row.expected]).collect();
            print_table(&["WHAT", "OF", "FOUND", "EXPECTED"], &rows, &[2, 3])?;
            Err(format!("the books do not add up: {count} differences").into())
        }
        Action::Holds => {
            let (clock, _) = startup::clock_and_ids();
            let now = clock.now();
            let rows: Vec<Vec<String>> = store
                .open_holds(MOST_HOLDS)
                .await?
                .into_iter()
                .map(|hold| {
                    vec![
                        hold.generation.to_string(),
                        hold.state.as_str().to_owned(),
                        hold.amount.to_string(),
                        format!("{}s", now.since(hold.opened_at).as_secs()),
                        hold.project_id.to_string(),
                    ]
                })
                .collect();
            print_table(&["GENERATION", "STATE", "USD", "AGE", "PROJECT"], &rows, &[2, 3])
        }
    }
}
