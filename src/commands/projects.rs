//! `imagegate projects …`: who pays.

use clap::Subcommand;
use imagegate::accounts::{Adapt, ProjectChange, ProjectRecord};
use imagegate::config::Config;
use imagegate::domain::Timestamp;
use serde_json::{Value, json};

use super::{Failure, Output, find_project, open_accounts};

/// What to do with projects.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  imagegate projects create \"Web shop\"
  imagegate projects list --json
  imagegate projects rename \"Web shop\" \"Shop\"
  imagegate projects archive proj_019e1951c77871209c8216efcf40ec82")]
pub enum Action {
    /// Make a project; it pays afterwards and has the rates of new projects until you set others
    Create {
        /// Its name
        name: String,
        /// Let it spend no more than its balance
        #[arg(long)]
        prepaid: bool,
    },
    /// List the projects, oldest first
    List {
        /// Archived ones too
        #[arg(long)]
        archived: bool,
    },
    /// Show one project
    Show {
        /// Its id or name
        project: String,
    },
    /// Give a project another name
    Rename {
        /// Its id or name
        project: String,
        /// The new name
        name: String,
    },
    /// Let a project spend no more than its balance, or let it pay afterwards
    Prepaid {
        /// Its id or name
        project: String,
        /// `true` or `false`
        #[arg(action = clap::ArgAction::Set)]
        prepaid: bool,
    },
    /// Let requests be changed so that they fit a model, where key and request do not say it
    Adapt {
        /// Its id or name
        project: String,
        /// What may be changed, such as `size,seed`, `all` or `none`
        adapt: Adapt,
    },
    /// Let a request join an equal one of the same key whose client went away in the last two minutes
    JoinRetries {
        /// Its id or name
        project: String,
        /// `true` or `false`
        #[arg(action = clap::ArgAction::Set)]
        join: bool,
    },
    /// End a project for good: its keys stop within a second, what is open goes on
    Archive {
        /// Its id or name
        project: String,
    },
}

/// Works on the projects of the configured database.
pub async fn run(config: &Config, action: Action, output: Output) -> Result<(), Failure> {
    let (accounts, _) = open_accounts(config).await?;
    match action {
        Action::Create { name, prepaid } => {
            let mut project = accounts.create_project(&name).await?;
            if prepaid {
                let change = ProjectChange { prepaid: Some(true), ..ProjectChange::default() };
                project = accounts.update_project(project.id, change).await?;
            }
            output.say(&view(&project), &format!("{} is made.", project.id))
        }
        Action::List { archived } => {
            let mut projects = accounts.list_projects().await?;
            projects.retain(|project| archived || project.archived_at.is_none());
            list(output, &projects)
        }
        Action::Show { project } => list(output, &[find_project(&accounts, &project).await?]),
        Action::Rename { project, name } => {
            let id = find_project(&accounts, &project).await?.id;
            let change = ProjectChange { name: Some(name), ..ProjectChange::default() };
            let project = accounts.update_project(id, change).await?;
            output.say(&view(&project), &format!("{id} is now called `{}`.", project.name))
        }
        Action::Prepaid { project, prepaid } => {
            let id = find_project(&accounts, &project).await?.id;
            let change = ProjectChange { prepaid: Some(prepaid), ..ProjectChange::default() };
            let project = accounts.update_project(id, change).await?;
            let how = if prepaid { "may spend no more than its balance" } else { "pays afterwards" };
            output.say(&view(&project), &format!("{id} {how}."))
        }
        Action::Adapt { project, adapt } => {
            let id = find_project(&accounts, &project).await?.id;
            let change = ProjectChange { adapt: Some(Some(adapt)), ..ProjectChange::default() };
            let project = accounts.update_project(id, change).await?;
            output.say(&view(&project), &format!("{id} adapts: {adapt}; every replica knows it within a second."))
        }
        Action::JoinRetries { project, join } => {
            let id = find_project(&accounts, &project).await?.id;
            let change = ProjectChange { join_retries: Some(Some(join)), ..ProjectChange::default() };
            let project = accounts.update_project(id, change).await?;
            let how = if join { "joins requests that come again" } else { "makes each request by itself" };
            output.say(&view(&project), &format!("{id} {how}; every replica knows it within a second."))
        }
        Action::Archive { project } => {
            let id = find_project(&accounts, &project).await?.id;
            let project = accounts.archive_project(id).await?;
            output.say(&view(&project), &format!("{id} is archived; every replica refuses its keys within a second."))
        }
    }
}

fn list(output: Output, projects: &[ProjectRecord]) -> Result<(), Failure> {
    let views: Vec<Value> = projects.iter().map(view).collect();
    let rows: Vec<Vec<String>> = projects
        .iter()
        .map(|project| {
            vec![
                project.id.to_string(),
                project.name.clone(),
                status(project).to_owned(),
                if project.prepaid { "prepaid" } else { "afterwards" }.to_owned(),
                project.spend_limit.map_or_else(|| "–".to_owned(), |limit| limit.to_string()),
                project.created_at.rfc3339(),
            ]
        })
        .collect();
    let head = ["ID", "NAME", "STATUS", "PAYS", "LIMIT USD A MONTH", "CREATED"];
    output.table(&json!({"object": "list", "data": views}), &head, &rows, &[4], "There are no projects.")
}

const fn status(project: &ProjectRecord) -> &'static str {
    if project.archived_at.is_some() { "archived" } else { "active" }
}

fn view(project: &ProjectRecord) -> Value {
    json!({
        "id": project.id,
        "object": "organization.project",
        "name": project.name,
        "status": status(project),
        "created_at": project.created_at.seconds(),
        "archived_at": project.archived_at.map(Timestamp::seconds),
        "prepaid": project.prepaid,
        "spend_limit_usd": project.spend_limit,
        "adapt": project.adapt.map(Adapt::names),
        "join_retries": project.join_retries,
    })
}
