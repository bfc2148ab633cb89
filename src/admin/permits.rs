//! What keys permit and from where they may come, as bodies write it and answers show it.

use std::str::FromStr;

use utoipa::ToSchema;

use crate::accounts::{Adapt, AdminAction, Caller, KeyKind, KeyRecord, Role, Scope, Scopes, UnknownPermission};
use crate::api::errors::invalid_field;
use crate::domain::Network;
use crate::http::{Code, Problem};

/// What a project key may do.
#[derive(Debug, ToSchema)]
#[schema(as = KeyScope)]
#[expect(dead_code, reason = "the document's picture of accounts::Scope")]
pub enum ScopeText {
    /// Makes images and quotes; reads and cancels what the key itself made.
    #[serde(rename = "images:generate")]
    ImagesGenerate,
    /// Reads every generation of the project; with `images:generate` cancels them too.
    #[serde(rename = "images:read")]
    ImagesRead,
    /// Uploads, lists and deletes input files.
    #[serde(rename = "files")]
    Files,
    /// Reads and rotates the webhook secret; reads and repeats deliveries.
    #[serde(rename = "webhooks")]
    Webhooks,
    /// Reads the usage of the project.
    #[serde(rename = "usage:read")]
    UsageRead,
    /// Reads the balance and the statement of the project.
    #[serde(rename = "billing:read")]
    BillingRead,
}

/// What an admin key is trusted with.
#[derive(Debug, ToSchema)]
#[schema(as = AdminRole)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "the document's picture of accounts::Role")]
pub enum RoleText {
    /// Everything, admin keys included.
    Owner,
    /// Reads everything; manages projects, keys, limits and webhooks; uses the playground.
    Operator,
    /// Reads everything; manages credits, refunds, spend limits and spend alerts.
    Billing,
    /// Reads everything but secrets.
    ReadOnly,
}

/// What may be changed of a request so that it fits a model.
#[derive(Debug, ToSchema)]
#[schema(as = Adaptable)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "the document's picture of accounts::Adapt")]
pub enum AdaptText {
    /// Everything.
    All,
    /// A size or ratio outside the limits becomes the nearest allowed.
    Size,
    /// Numbers that were sent as text are read.
    Numbers,
    /// A seed of -1 means a random one.
    Seed,
    /// An unsupported output format becomes the nearest.
    OutputFormat,
    /// An unsupported quality becomes the nearest.
    Quality,
}

/// What a body allows to be changed; null lifts it.
#[expect(clippy::option_option, reason = "in a patch, absent leaves and null lifts")]
pub fn read_adapt(names: Option<Option<Vec<String>>>) -> Result<Option<Option<Adapt>>, Problem> {
    let read = |names: Vec<String>| {
        let adapt = Adapt::from_names(names.iter().map(String::as_str));
        adapt.map_err(|error| invalid_field("adapt", &error.to_string()))
    };
    names.map(|names| names.map(read).transpose()).transpose()
}

/// The scopes of a body, if it names some; OpenAI's clients may send an empty list for none.
pub fn read_scopes(texts: Option<&[String]>) -> Result<Option<Scopes>, Problem> {
    let Some(texts) = texts.filter(|texts| !texts.is_empty()) else { return Ok(None) };
    let read = |text: &String| Scope::from_str(text).map_err(|error| unknown("scopes", &error));
    texts.iter().map(read).collect::<Result<Scopes, _>>().map(Some)
}

/// The role of a body, if it names one.
pub fn read_role(text: Option<&str>) -> Result<Option<Role>, Problem> {
    text.map(|text| Role::from_str(text).map_err(|error| unknown("role", &error))).transpose()
}

fn unknown(field: &str, error: &UnknownPermission) -> Problem {
    invalid_field(field, &error.to_string())
}

/// The networks of a body.
pub fn read_networks(texts: &[String]) -> Result<Vec<Network>, Problem> {
    let read = |text: &String| {
        text.parse().map_err(|error| invalid_field("allowed_addresses", &format!("`{text}` is {error}")))
    };
    texts.iter().map(read).collect()
}

/// A key's scopes, as they are shown; an admin key has none.
pub fn scopes_of(key: &KeyRecord) -> Option<Vec<&'static str>> {
    (key.kind == KeyKind::Project).then(|| key.scopes.iter().map(Scope::name).collect())
}

/// The networks that a key may be used from, as they are shown.
pub fn networks_of(key: &KeyRecord) -> Option<Vec<String>> {
    key.allowed_addresses.as_ref().map(|networks| networks.iter().map(Network::to_string).collect())
}

/// Refuses a caller that may not make admin keys where the key that it would change or exchange is one: by exchanging an
/// owner's key it would get that role itself.
pub fn owner_for_admin_keys(caller: &Caller, key: &KeyRecord) -> Result<(), Problem> {
    if key.kind == KeyKind::Admin && !caller.role.may(AdminAction::Own) {
        let message = format!("changing an admin key wants the role `{}`; this key has `{}`", Role::Owner, caller.role);
        return Err(Problem::new(Code::PermissionDenied, message));
    }
    Ok(())
}
