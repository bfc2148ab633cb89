//! `imagegate ledger verify|rebuild|holds`: whether the books add up, their projections made again, and what money is set aside.

use clap::Subcommand;
use imagegate::config::Config;
use imagegate::ledger::{Discrepancy, OpenHold};
use imagegate::startup;
use serde_json::{Value, json};

use super::{Failure, Output};

/// How many open holds are listed.
const MOST_HOLDS: u32 = 1000;

/// What to look at.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  imagegate ledger verify
  imagegate ledger rebuild
  imagegate ledger holds --json")]
pub enum Action {
    /// Recompute everything that is kept beside the ledger; fails with a table if something differs
    Verify,
    /// Make generations, charges and the sums of days again from the ledger's events; requests go on meanwhile
    Rebuild,
    /// List the open holds, oldest first
    Holds,
}

/// Looks at the books of the configured database.
pub async fn run(config: &Config, action: Action, output: Output) -> Result<(), Failure> {
    let store = startup::open_store(config).await?;
    match action {
        Action::Verify => {
            let found = store.verify().await?;
            let count = found.len();
            let view = |row: &Discrepancy| json!({"what": row.what, "of": row.subject, "found": row.found, "expected": row.expected});
            let data: Vec<Value> = found.iter().map(view).collect();
            let rows: Vec<Vec<String>> =
                found.into_iter().map(|row| vec![row.what, row.subject, row.found, row.expected]).collect();
            let head = ["WHAT", "OF", "FOUND", "EXPECTED"];
            output.table(&json!({"object": "list", "data": data}), &head, &rows, &[2, 3], "The books add up.")?;
            if count == 0 {
                return Ok(());
            }
            Err(format!("the books do not add up: {count} differences").into())
        }
        Action::Rebuild => {
            let rebuilt = store.rebuild().await?;
            let view = json!({"streams": rebuilt.streams, "missing": rebuilt.missing, "changed": rebuilt.changed});
            let rows =
                vec![vec![rebuilt.streams.to_string(), rebuilt.missing.to_string(), rebuilt.changed.to_string()]];
            output.table(&view, &["STREAMS", "MISSING", "CHANGED"], &rows, &[0, 1, 2], "There is nothing to rebuild.")
        }
        Action::Holds => {
            let (clock, _) = startup::clock_and_ids();
            let now = clock.now();
            let holds = store.open_holds(MOST_HOLDS).await?;
            let view = |hold: &OpenHold| {
                json!({
                    "generation_id": hold.generation,
                    "project_id": hold.project_id,
                    "state": hold.state.as_str(),
                    "amount_usd": hold.amount,
                    "opened_at": hold.opened_at.seconds(),
                    "age_seconds": now.since(hold.opened_at).as_secs(),
                })
            };
            let data: Vec<Value> = holds.iter().map(view).collect();
            let rows: Vec<Vec<String>> = holds
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
            let head = ["GENERATION", "STATE", "USD", "AGE", "PROJECT"];
            output.table(&json!({"object": "list", "data": data}), &head, &rows, &[2, 3], "No money is set aside.")
        }
    }
}
