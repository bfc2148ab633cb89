//! `imagegate erase …`: prompts, parameters and images that are to be forgotten. What the books count stays.

use clap::Subcommand;
use imagegate::config::Config;
use imagegate::domain::Timestamp;
use imagegate::gateway::Eraser;
use imagegate::startup;
use serde_json::json;

use super::{Failure, Output, find_project, open_accounts};

/// What to erase.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  imagegate erase generation 019e1951-c778-7120-9c82-16efcf40ec82
  imagegate erase project \"Web shop\"

Prompts, parameters, answers and the images in IMAGEGATE_STORAGE are gone for good; amounts, models and times stay in
the books. Copies that fal, a cache or a customer has are theirs to delete.")]
pub enum Action {
    /// Erase the content of one generation that has ended
    Generation {
        /// The generation's id, as in `x-imagegate-generation-id`
        id: String,
    },
    /// Erase the content of all that a project has made so far, its uploaded files included
    Project {
        /// Its id or name
        project: String,
    },
}

/// Erases in the configured database and storage.
pub async fn run(config: &Config, action: Action, output: Output) -> Result<(), Failure> {
    let (accounts, _) = open_accounts(config).await?;
    let storage = config.storage.as_ref().map(startup::open_storage).transpose()?;
    let eraser = Eraser::new(accounts.clone(), storage.map(|files| files.storage));
    match action {
        Action::Generation { id } => {
            let id = id.parse().map_err(|_| format!("there is no generation `{id}`"))?;
            let erased_at = eraser.erase_generation(id).await?;
            let view = json!({"id": id, "object": "image.generation.content", "deleted": true, "erased_at": erased_at.seconds()});
            output.say(&view, &format!("The content of {id} is erased."))
        }
        Action::Project { project } => {
            let id = find_project(&accounts, &project).await?.id;
            let asked = eraser.erase_project(id).await?;
            eraser.go_on().await?;
            let erasure = accounts.project_erasure(id).await?.unwrap_or(asked);
            let view = json!({
                "project_id": id,
                "object": "organization.project.content",
                "before": erasure.before.seconds(),
                "finished_at": erasure.finished_at.map(Timestamp::seconds),
            });
            let sentence = match erasure.finished_at {
                Some(_) => format!("The content of {id} is erased."),
                None => format!(
                    "The content of {id} is erased; a running gateway erases what is still open once it has ended."
                ),
            };
            output.say(&view, &sentence)
        }
    }
}
