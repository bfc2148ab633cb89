//! `imagegate keys …`: the keys that make images and those that administer.

use std::collections::HashMap;

use clap::{Args, Subcommand, ValueEnum};
use imagegate::accounts::{Accounts, Adapt, CallerKind, KeyChange, KeyKind, KeyRecord, NewKey, Role, Scope};
use imagegate::config::Config;
use imagegate::domain::{ApiKeyId, Money, Network, ProjectId, Timestamp};
use imagegate::startup;
use serde_json::{Value, json};

use super::{Failure, Output, duration, find_project, open_accounts};

/// What to do with keys.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  imagegate keys create --name worker --project \"Web shop\" --budget 10 --expires-in 90d
  imagegate keys create --name reports --scope usage:read --scope billing:read --address 10.0.0.0/8
  imagegate keys create --name ada --kind admin --role read_only
  imagegate keys list --project \"Web shop\" --json
  imagegate keys update key_019e1951c77871209c8216efcf40ec82 --model flux/dev --budget none
  imagegate keys rotate key_019e1951c77871209c8216efcf40ec82 --overlap 2d
  imagegate keys revoke key_019e1951c77871209c8216efcf40ec82")]
pub enum Action {
    /// Make a key and print its value, once
    Create(Create),
    /// List all keys, oldest first; their values are not stored
    List {
        /// Only those of this project, by id or name
        #[arg(long)]
        project: Option<String>,
    },
    /// Change a key's terms; what is not named stays
    Update(Update),
    /// Make a new key on the same terms; the old one works beside it for a while
    Rotate {
        /// The key's id, as `list` shows it
        id: String,
        /// For how long both work, such as `2d`; `0s` ends the old one at once
        #[arg(long, default_value = "1d")]
        overlap: String,
        /// After what time the new key ends; never if not given
        #[arg(long)]
        expires_in: Option<String>,
    },
    /// End a key
    Revoke {
        /// The key's id, as `list` shows it
        id: String,
    },
}

/// A key to be made.
#[derive(Debug, Args)]
pub struct Create {
    /// What it is for
    #[arg(long)]
    name: String,
    /// Whether it makes images or administers
    #[arg(long, value_enum, default_value_t = Kind::Project)]
    kind: Kind,
    /// The project that pays, by id or name; `default` if not given
    #[arg(long)]
    project: Option<String>,
    /// After what time it ends, such as `90d`; never if not given
    #[arg(long)]
    expires_in: Option<String>,
    /// The most it may spend in its whole life, in US dollars
    #[arg(long)]
    budget: Option<Money>,
    /// A model it may use; may be given several times; every model if not given
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
    /// What a project key may do; may be given several times: `images:generate`, `images:read`, `files`, `webhooks`,
    /// `usage:read`, `billing:read`; all but `webhooks` if not given
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<Scope>,
    /// What an admin key is trusted with: `owner`, `operator`, `billing` or `read_only`; owner if not given
    #[arg(long)]
    role: Option<Role>,
    /// An address or network that it may be used from, such as 10.0.0.0/8; may be given several times; any if not given
    #[arg(long = "address", value_name = "ADDRESS")]
    addresses: Vec<Network>,
    /// What may be changed of its requests so that they fit, such as `size,seed`, `all` or `none`; as its project if not given
    #[arg(long)]
    adapt: Option<Adapt>,
    /// Whether a request joins an equal one whose client went away: `true` or `false`; as its project if not given
    #[arg(long)]
    join_retries: Option<bool>,
}

/// What is to be different about a key.
#[derive(Debug, Args)]
pub struct Update {
    /// The key's id, as `list` shows it
    id: String,
    /// What to call it
    #[arg(long)]
    name: Option<String>,
    /// After what time from now it ends, such as `90d`, or `none`
    #[arg(long)]
    expires_in: Option<String>,
    /// The most it may spend in its whole life, in US dollars, or `none`
    #[arg(long)]
    budget: Option<String>,
    /// A model it may use; may be given several times; `any` lifts
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
    /// For an admin key: the project, by id or name, that it may also make images for, or `none`
    #[arg(long)]
    generates_for: Option<String>,
    /// What a project key may do, in place of what it might before; may be given several times
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<Scope>,
    /// What an admin key is trusted with: `owner`, `operator`, `billing` or `read_only`
    #[arg(long)]
    role: Option<Role>,
    /// An address or network that it may be used from; may be given several times; `any` lifts
    #[arg(long = "address", value_name = "ADDRESS")]
    addresses: Vec<String>,
    /// What may be changed of its requests so that they fit, such as `size,seed`, `all` or `none`; `project` leaves it to the
    /// project
    #[arg(long)]
    adapt: Option<String>,
    /// Whether a request joins an equal one whose client went away: `true`, `false`, or `project` to leave it to the project
    #[arg(long)]
    join_retries: Option<String>,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Makes images.
    Project,
    /// Administers.
    Admin,
}

/// Works on the keys of the configured database.
pub async fn run(config: &Config, action: Action, output: Output) -> Result<(), Failure> {
    let (accounts, _) = open_accounts(config).await?;
    match action {
        Action::Create(new) => create(config, &accounts, new, output).await,
        Action::List { project } => {
            let project = match project {
                Some(project) => Some(find_project(&accounts, &project).await?.id),
                None => None,
            };
            let mut keys = accounts.list_keys(project).await?;
            let ids: Vec<ApiKeyId> = keys.iter().map(|key| key.id).collect();
            let used: HashMap<_, _> = accounts.last_used(&ids).await?.into_iter().collect();
            for key in &mut keys {
                key.last_used_at = used.get(&key.id).copied();
            }
            list(output, &keys)
        }
        Action::Update(update) => {
            let id = update.id.parse()?;
            let key = accounts.update_key(id, change(config, &accounts, update).await?).await?;
            output.say(&view(&key), &format!("{id} is changed; every replica knows it within a second."))
        }
        Action::Rotate { id, overlap, expires_in } => {
            let (clock, _) = startup::clock_and_ids();
            let now = clock.now();
            let ends = expires_in.as_deref().map(duration).transpose()?.map(|life| now.plus(life));
            let rotated = accounts.rotate_key(id.parse()?, now.plus(duration(&overlap)?), ends).await?;
            let old_ends = rotated.old.expires_at.unwrap_or(now);
            let mut told = view(&rotated.new);
            told["value"] = json!(rotated.secret.expose());
            told["replaces"] = json!(rotated.old.id);
            told["replaced_expires_at"] = json!(old_ends.seconds());
            let (value, new, old) = (rotated.secret.expose(), rotated.new.id, rotated.old.id);
            let end = old_ends.rfc3339();
            output.say(&told, &format!("{value}\n\nThis is {new}. It is shown only this once. {old} ends at {end}."))
        }
        Action::Revoke { id } => {
            let id: ApiKeyId = id.parse()?;
            let key = accounts.revoke_key(id).await?;
            output.say(&view(&key), &format!("{id} is revoked; every replica refuses it within a second."))
        }
    }
}

async fn create(config: &Config, accounts: &Accounts, new: Create, output: Output) -> Result<(), Failure> {
    let kind = match (new.kind, &new.project) {
        (Kind::Admin, Some(_)) => return Err("an admin key belongs to no project: leave `--project` out".into()),
        (Kind::Admin, None) => CallerKind::Admin,
        (Kind::Project, Some(project)) => CallerKind::Project(find_project(accounts, project).await?.id),
        (Kind::Project, None) => CallerKind::Project(accounts.default_project().await?.id),
    };
    let project = match kind {
        CallerKind::Project(project) => Some(project),
        CallerKind::Admin => None,
    };
    let (clock, _) = startup::clock_and_ids();
    let life = new.expires_in.as_deref().map(duration).transpose()?;
    let (record, secret) = accounts
        .create_key(NewKey {
            kind,
            name: new.name,
            expires_at: life.map(|life| clock.now().plus(life)),
            budget: new.budget,
            allowed_models: (!new.models.is_empty())
                .then(|| known_models(config, accounts, project, &new.models))
                .transpose()?,
            scopes: (!new.scopes.is_empty()).then(|| new.scopes.into_iter().collect()),
            role: new.role,
            allowed_addresses: (!new.addresses.is_empty()).then_some(new.addresses),
            adapt: new.adapt,
            join_retries: new.join_retries,
        })
        .await?;
    let mut told = view(&record);
    told["value"] = json!(secret.expose());
    output.say(&told, &format!("{}\n\nThis is {}. It is shown only this once.", secret.expose(), record.id))
}

async fn change(config: &Config, accounts: &Accounts, update: Update) -> Result<KeyChange, Failure> {
    let (clock, _) = startup::clock_and_ids();
    let end = |text: &str| match text {
        "none" => Ok(None),
        text => duration(text).map(|life| Some(clock.now().plus(life))),
    };
    let budget = |text: &str| match text {
        "none" => Ok(None),
        text => {
            text.parse().map(Some).map_err(|_| format!("`{text}` is neither US dollars such as `10.00` nor `none`"))
        }
    };
    let allowed_models = match update.models.as_slice() {
        [] => None,
        [any] if any == "any" => Some(None),
        models => {
            let id: ApiKeyId = update.id.parse()?;
            let key = accounts.list_keys(None).await?.into_iter().find(|key| key.id == id);
            let project = key.and_then(|key| key.project_id.or(key.generates_for));
            Some(Some(known_models(config, accounts, project, models)?))
        }
    };
    let allowed_addresses = match update.addresses.as_slice() {
        [] => None,
        [any] if any == "any" => Some(None),
        networks => Some(Some(networks.iter().map(|text| network(text)).collect::<Result<_, _>>()?)),
    };
    let generates_for = match update.generates_for.as_deref() {
        None => None,
        Some("none") => Some(None),
        Some(project) => Some(Some(find_project(accounts, project).await?.id)),
    };
    Ok(KeyChange {
        name: update.name,
        expires_at: update.expires_in.as_deref().map(end).transpose()?,
        budget: update.budget.as_deref().map(budget).transpose()?,
        allowed_models,
        generates_for,
        scopes: (!update.scopes.is_empty()).then(|| update.scopes.into_iter().collect()),
        role: update.role,
        allowed_addresses,
        adapt: match update.adapt.as_deref() {
            None => None,
            Some("project") => Some(None),
            Some(text) => Some(Some(text.parse()?)),
        },
        join_retries: match update.join_retries.as_deref() {
            None => None,
            Some("project") => Some(None),
            Some(text) => {
                let join = text.parse().map_err(|_| format!("`{text}` is neither `true`, `false` nor `project`"))?;
                Some(Some(join))
            }
        },
    })
}

fn network(text: &str) -> Result<Network, Failure> {
    text.parse().map_err(|error| format!("`{text}` is {error}, nor `any`").into())
}

/// What a key may do: a project key's scopes, an admin key's role.
fn may(key: &KeyRecord) -> String {
    match key.kind {
        KeyKind::Admin => key.role.to_string(),
        KeyKind::Project => key.scopes.iter().map(Scope::name).collect::<Vec<_>>().join(","),
    }
}

fn addresses(key: &KeyRecord) -> Option<Vec<String>> {
    key.allowed_addresses.as_ref().map(|networks| networks.iter().map(Network::to_string).collect())
}

/// Models by our own ids, or the operator's aliases, whatever their case was.
/// The aliases are those of the key's project and everybody's.
fn known_models(
    config: &Config,
    accounts: &Accounts,
    project: Option<ProjectId>,
    models: &[String],
) -> Result<Vec<String>, Failure> {
    let catalogue = startup::load_catalogue(&config.sales)?;
    let aliases = accounts.aliases(project);
    let known = |wanted: &String| {
        let found = catalogue.models().find(|model| model.id.eq_ignore_ascii_case(wanted));
        let alias = aliases.get(wanted).map(|alias| alias.id.clone());
        let id = alias.or_else(|| found.map(|model| model.id.clone()));
        id.ok_or_else(|| format!("there is no model `{wanted}`: `imagegate models` lists them").into())
    };
    models.iter().map(known).collect()
}

fn list(output: Output, keys: &[KeyRecord]) -> Result<(), Failure> {
    let views: Vec<Value> = keys.iter().map(view).collect();
    let rows: Vec<Vec<String>> = keys
        .iter()
        .map(|key| {
            vec![
                key.id.to_string(),
                key.kind.as_str().to_owned(),
                key.name.clone(),
                format!("{}…", key.prefix),
                if key.revoked_at.is_some() { "revoked" } else { "active" }.to_owned(),
                key.created_at.rfc3339(),
                key.expires_at.map_or_else(|| "–".to_owned(), Timestamp::rfc3339),
                key.spent.to_string(),
                key.budget.map_or_else(|| "–".to_owned(), |budget| budget.to_string()),
                key.project_id.map_or_else(|| "–".to_owned(), |id| id.to_string()),
                may(key),
                addresses(key).map_or_else(|| "any".to_owned(), |addresses| addresses.join(",")),
                key.last_used_at.map_or_else(|| "–".to_owned(), Timestamp::rfc3339),
            ]
        })
        .collect();
    let head = [
        "ID",
        "KIND",
        "NAME",
        "BEGINS",
        "STATE",
        "CREATED",
        "EXPIRES",
        "SPENT USD",
        "BUDGET USD",
        "PROJECT",
        "MAY",
        "FROM",
        "LAST USED",
    ];
    output.table(&json!({"object": "list", "data": views}), &head, &rows, &[7, 8], "There are no keys.")
}

fn view(key: &KeyRecord) -> Value {
    json!({
        "id": key.id,
        "object": "organization.api_key",
        "kind": key.kind.as_str(),
        "project_id": key.project_id,
        "name": key.name,
        "redacted_value": format!("{}…", key.prefix),
        "created_at": key.created_at.seconds(),
        "expires_at": key.expires_at.map(Timestamp::seconds),
        "revoked_at": key.revoked_at.map(Timestamp::seconds),
        "budget_usd": key.budget,
        "spent_usd": key.spent,
        "allowed_models": key.allowed_models,
        "generates_for_project_id": key.generates_for,
        "scopes": (key.kind == KeyKind::Project).then(|| key.scopes.iter().map(Scope::name).collect::<Vec<_>>()),
        "role": (key.kind == KeyKind::Admin).then(|| key.role.name()),
        "allowed_addresses": addresses(key),
        "adapt": key.adapt.map(Adapt::names),
        "join_retries": key.join_retries,
        "last_used_at": key.last_used_at.map(Timestamp::seconds),
    })
}
