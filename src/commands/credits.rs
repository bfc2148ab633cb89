//! `imagegate credits …`: a project's balance, top-ups, corrections and refunds.

use clap::Subcommand;
use imagegate::accounts::AuditEvent;
use imagegate::config::Config;
use imagegate::domain::{GenerationId, Money};
use imagegate::ledger::{Books, Credit, CreditKind, Refund};
use imagegate::startup;
use serde_json::json;
use tokio_util::task::TaskTracker;

use super::{Failure, Output, find_project, open_accounts};

/// What to do with credits.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  imagegate credits add default 25.00 --reason \"invoice 17\"
  imagegate credits add default -1.50 --reason \"booked twice\"
  imagegate credits add default 5 --kind goodwill --reason \"the outage of May 3\"
  imagegate credits refund 019e1951-c778-7120-9c82-16efcf40ec82 0.035 --reason \"blurred\"
  imagegate credits balance default --json")]
pub enum Action {
    /// Book a top-up, a correction or a gift
    Add {
        /// The project's id or name
        project: String,
        /// US dollars
        #[arg(allow_negative_numbers = true)]
        amount: Money,
        /// `top_up`, `correction` or `goodwill`; a top-up above zero and a correction below if not given
        #[arg(long)]
        kind: Option<CreditKind>,
        /// Why, for those who read the ledger later
        #[arg(long)]
        reason: String,
    },
    /// Give back what a generation was charged, whole or in part
    Refund {
        /// The generation's id, as in `x-imagegate-generation-id`
        generation: GenerationId,
        /// US dollars; with earlier refunds at most what was charged
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
    let project = match action {
        Action::Balance { project } => find_project(&accounts, &project).await?.id,
        Action::Add { project, amount, kind, reason } => {
            if amount == Money::ZERO {
                return Err("an amount of zero changes nothing".into());
            }
            let kind = kind.unwrap_or_else(|| CreditKind::of_amount(amount));
            if !kind.fits(amount) {
                return Err(format!("an amount of the kind `{}` must be above zero", kind.as_str()).into());
            }
            let project = find_project(&accounts, &project).await?.id;
            let id = ids.uuid();
            let after = json!({"transaction_id": id, "kind": kind.as_str(), "amount_usd": amount, "reason": reason});
            let credit = Credit {
                id,
                project_id: project,
                kind,
                amount,
                reason,
                author: "command".to_owned(),
                at: clock.now(),
                audit: Some(accounts.entry_of(AuditEvent::ProjectCredited, project, project.to_string(), &after)),
            };
            books.credit(&credit).await?;
            project
        }
        Action::Refund { generation, amount, reason } => {
            let unknown = || format!("there is no generation `{generation}`");
            let project = books.payer(generation).await?.ok_or_else(unknown)?;
            let id = ids.uuid();
            let after = json!({"transaction_id": id, "amount_usd": amount, "reason": reason});
            let resource = generation.to_string();
            let refund = Refund {
                id,
                generation,
                amount,
                reason,
                author: "command".to_owned(),
                at: clock.now(),
                audit: Some(accounts.entry_of(AuditEvent::GenerationRefunded, project, resource, &after)),
            };
            books.refund(&refund).await?;
            project
        }
    };
    let balance = books.balance(project, clock.now()).await?.ok_or("the project has no balance")?;
    let view = json!({
        "object": "project.balance",
        "project_id": project,
        "balance_usd": balance.posted,
        "held_usd": balance.held,
        "spent_this_month_usd": balance.spent_this_month,
        "prepaid": balance.prepaid,
        "spend_limit_usd": balance.spend_limit,
    });
    let (posted, held, spent) = (balance.posted, balance.held, balance.spent_this_month);
    output.say(&view, &format!("{project}: {posted} USD, {held} of it held; {spent} spent this month."))
}
