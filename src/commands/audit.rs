//! `imagegate audit`: who changed what, when and from where.

use clap::Args;
use imagegate::accounts::{AuditFilter, AuditRecord, Cursor};
use imagegate::config::Config;
use imagegate::startup;
use serde_json::{Value, json};

use super::{Failure, Output, find_project, open_accounts, period};

/// Which entries to list.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  imagegate audit --limit 20
  imagegate audit --event api_key.created --event api_key.deleted --from 2026-11-01
  imagegate audit --resource key_019e1951c77871209c8216efcf40ec82 --json")]
pub struct Arguments {
    /// Only this event, such as `project.archived`; may be given several times
    #[arg(long = "event", value_name = "EVENT")]
    events: Vec<String>,
    /// Only what is about this project, by id or name
    #[arg(long)]
    project: Option<String>,
    /// Only what is about this thing, by its id
    #[arg(long)]
    resource: Option<String>,
    /// From this day or moment (UTC) on; the last thirty days if not given
    #[arg(long)]
    from: Option<String>,
    /// Up to this day or moment (UTC), not part of it
    #[arg(long)]
    to: Option<String>,
    /// How many, newest first
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

/// Lists the audit log of the configured database.
pub async fn run(config: &Config, arguments: &Arguments, output: Output) -> Result<(), Failure> {
    let (accounts, _) = open_accounts(config).await?;
    let (clock, _) = startup::clock_and_ids();
    let (from, before) = period(arguments.from.as_deref(), arguments.to.as_deref(), clock.now())?;
    let mut filter = AuditFilter { from: Some(from), before: Some(before), ..AuditFilter::default() };
    for event in &arguments.events {
        filter.events.push(event.parse().map_err(|_| format!("there is no event `{event}`"))?);
    }
    if let Some(project) = &arguments.project {
        filter.projects.push(find_project(&accounts, project).await?.id);
    }
    filter.resources.extend(arguments.resource.clone());
    let cursor = Cursor { after: None, oldest_first: false, limit: arguments.limit };
    let page = accounts.audit_logs(&filter, cursor).await?;
    let views: Vec<Value> = page.items.iter().map(view).collect();
    let rows: Vec<Vec<String>> = page
        .items
        .iter()
        .map(|entry| {
            vec![
                entry.at.rfc3339(),
                entry.event.to_string(),
                entry.resource_id.clone(),
                who(entry),
                entry.ip.clone().unwrap_or_else(|| "–".to_owned()),
            ]
        })
        .collect();
    let view = json!({"object": "list", "data": views, "has_more": page.has_more});
    output.table(&view, &["WHEN", "EVENT", "OF", "BY", "FROM"], &rows, &[], "Nothing was changed in this time.")
}

fn who(entry: &AuditRecord) -> String {
    entry.actor_api_key_id.map_or_else(|| entry.actor.to_string(), |key| key.to_string())
}

fn view(entry: &AuditRecord) -> Value {
    let state = |text: &Option<String>| text.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
    json!({
        "id": entry.id,
        "type": entry.event.as_str(),
        "effective_at": entry.at.seconds(),
        "actor": who(entry),
        "ip_address": entry.ip,
        "user_agent": entry.user_agent,
        "project_id": entry.project_id,
        "resource_id": entry.resource_id,
        "before": state(&entry.before),
        "after": state(&entry.after),
    })
}
