//! `imagegate keys create|list|revoke`.

use clap::{Subcommand, ValueEnum};
use imagegate::accounts::{Accounts, Author, CallerKind, NewKey};
use imagegate::config::Config;
use imagegate::domain::ApiKeyId;
use imagegate::startup;

use super::{Failure, print, print_table};

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Make a key and print its value, once
    Create {
        /// What it is for
        #[arg(long)]
        name: String,
        /// Whether it makes images or administers
        #[arg(long, value_enum, default_value_t = Kind::Project)]
        kind: Kind,
    },
    /// List all keys; their values are not stored
    List,
    /// End a key
    Revoke {
        /// The key's id, as `list` shows it
        id: String,
    },
}

/// What a key is for.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Kind {
    /// Makes images for the project `default`.
    Project,
    /// Administers.
    Admin,
}

/// Works on the keys of the configured database.
pub async fn run(config: &Config, action: Action) -> Result<(), Failure> {
    let store = startup::open_store(config).await?;
    let (clock, ids) = startup::clock_and_ids();
    let accounts = Accounts::load(store, clock, ids).await?.by(Author::Command);
    match action {
        Action::Create { name, kind } => {
            let kind = match kind {
                Kind::Project => CallerKind::Project(accounts.default_project().await?.id),
                Kind::Admin => CallerKind::Admin,
            };
            let (record, secret) = accounts
                .create_key(NewKey { kind, name, expires_at: None, budget: None, allowed_models: None })
                .await?;
            print(&format!("{}\n\nThis is {}. It is shown only this once.\n", secret.expose(), record.id))
        }
        Action::List => {
            let rows: Vec<Vec<String>> = accounts
                .list_keys(None)
                .await?
                .into_iter()
                .map(|key| {
                    let state = if key.revoked_at.is_some() { "revoked" } else { "active" };
                    vec![
                        key.id.to_string(),
                        key.kind.as_str().to_owned(),
                        key.name,
                        format!("{}…", key.prefix),
                        state.to_owned(),
                        key.created_at.rfc3339(),
                    ]
                })
                .collect();
            print_table(&["ID", "KIND", "NAME", "BEGINS", "STATE", "CREATED"], &rows, &[])
        }
        Action::Revoke { id } => {
            let id: ApiKeyId = id.parse()?;
            accounts.revoke_key(id).await?;
            print(&format!("{id} is revoked; every replica refuses it within a second.\n"))
        }
    }
}
