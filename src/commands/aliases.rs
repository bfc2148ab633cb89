//! `imagegate aliases …`: the operator's own names for models.

use clap::{Args, Subcommand};
use imagegate::accounts::{Accounts, Alias, AliasRecord};
use imagegate::config::Config;
use imagegate::domain::{ProjectId, Timestamp};
use imagegate::startup;
use serde_json::{Map, Value, json};

use super::{Failure, Output, find_project, open_accounts};

/// What to do with aliases.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  imagegate aliases set dall-e-3 flux/dev
  imagegate aliases set house/poster flux-pro/v1.1 --project \"Web shop\" --name \"Poster\" \\
      --default num_images=2 --fixed output_format=png --fixed 'image_size={\"width\": 1024, \"height\": 1408}'
  imagegate aliases list
  imagegate aliases delete dall-e-3

Every replica knows a change within a second. Aliases of the file of IMAGEGATE_ALIASES_FILE are changed there.")]
pub enum Action {
    /// Make an alias, or change the one of the same id and project
    Set(Set),
    /// List the aliases
    List {
        /// Only those that this project, by id or name, has of its own
        #[arg(long)]
        project: Option<String>,
    },
    /// Delete an alias
    Delete {
        /// Its id
        id: String,
        /// The project whose alias it is, by id or name; every project's if not given
        #[arg(long)]
        project: Option<String>,
    },
}

/// An alias to be made.
#[derive(Debug, Args)]
pub struct Set {
    /// What clients ask for, such as `dall-e-3`
    id: String,
    /// The model that it stands for
    target: String,
    /// The project whose alias it is, by id or name; every project's if not given
    #[arg(long)]
    project: Option<String>,
    /// What the list of models calls it
    #[arg(long)]
    name: Option<String>,
    /// A sentence about it
    #[arg(long)]
    description: Option<String>,
    /// A parameter's value where a request gives none, as `name=value`, the value as JSON or as a text; may be given several
    /// times
    #[arg(long = "default", value_name = "NAME=VALUE")]
    defaults: Vec<String>,
    /// A parameter's value that no request can change, likewise
    #[arg(long = "fixed", value_name = "NAME=VALUE")]
    fixed: Vec<String>,
}

/// Works on the aliases of the configured database.
pub async fn run(config: &Config, action: Action, output: Output) -> Result<(), Failure> {
    let (accounts, _) = open_accounts(config).await?;
    let catalogue = startup::load_catalogue(&config.sales)?;
    accounts.give_aliases(startup::load_aliases(&config.sales, &catalogue)?).await?;
    match action {
        Action::Set(set) => {
            let project = project_of(&accounts, set.project.as_deref()).await?;
            let alias = Alias {
                id: set.id,
                target: set.target,
                name: set.name,
                description: set.description,
                defaults: values(&set.defaults)?,
                fixed: values(&set.fixed)?,
            };
            let alias = catalogue.check_alias(alias).map_err(|error| format!("{}: {error}", error.field()))?;
            let record = accounts.put_alias(project, alias).await?;
            let said = format!(
                "`{}` stands for `{}`; every replica knows it within a second.",
                record.alias.id, record.alias.target
            );
            output.say(&view(&record), &said)
        }
        Action::List { project } => {
            let project = project_of(&accounts, project.as_deref()).await?;
            let mut aliases = accounts.list_aliases().await?;
            aliases.retain(|record| project.is_none() || record.project_id == project);
            list(output, &aliases)
        }
        Action::Delete { id, project } => {
            let project = project_of(&accounts, project.as_deref()).await?;
            let record = accounts.delete_alias(project, &id).await?;
            output.say(&view(&record), &format!("The alias `{}` is deleted.", record.alias.id))
        }
    }
}

async fn project_of(accounts: &Accounts, text: Option<&str>) -> Result<Option<ProjectId>, Failure> {
    match text {
        Some(text) => Ok(Some(find_project(accounts, text).await?.id)),
        None => Ok(None),
    }
}

/// Values of parameters; what is not JSON is a text.
fn values(pairs: &[String]) -> Result<Map<String, Value>, Failure> {
    let read = |pair: &String| {
        let (name, value) = pair.split_once('=').ok_or_else(|| format!("`{pair}` is not of the form `name=value`"))?;
        Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::from(value))))
    };
    pairs.iter().map(read).collect()
}

fn list(output: Output, aliases: &[AliasRecord]) -> Result<(), Failure> {
    let views: Vec<Value> = aliases.iter().map(view).collect();
    let text = |values: &Map<String, Value>| {
        if values.is_empty() { "–".to_owned() } else { serde_json::to_string(values).unwrap_or_default() }
    };
    let rows: Vec<Vec<String>> = aliases
        .iter()
        .map(|record| {
            vec![
                record.alias.id.clone(),
                record.alias.target.clone(),
                record.project_id.map_or_else(|| "every".to_owned(), |id| id.to_string()),
                text(&record.alias.defaults),
                text(&record.alias.fixed),
                record.created_at.map_or_else(|| "file".to_owned(), Timestamp::rfc3339),
            ]
        })
        .collect();
    let head = ["ID", "MODEL", "PROJECT", "DEFAULTS", "FIXED", "CREATED"];
    output.table(&json!({"object": "list", "data": views}), &head, &rows, &[], "There are no aliases.")
}

fn view(record: &AliasRecord) -> Value {
    let AliasRecord { project_id, alias, created_at } = record;
    json!({
        "id": alias.id,
        "object": "model_alias",
        "target": alias.target,
        "project_id": project_id,
        "name": alias.name,
        "description": alias.description,
        "defaults": alias.defaults,
        "fixed": alias.fixed,
        "origin": if created_at.is_some() { "api" } else { "file" },
        "created_at": created_at.map(Timestamp::seconds),
    })
}
