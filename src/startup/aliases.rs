//! The operator's aliases: those of the settings file, and whether the stored ones still fit the catalogue.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use tracing::warn;

use super::StartError;
use crate::accounts::{Accounts, Alias, AliasRecord};
use crate::catalogue::Catalogue;
use crate::config::SalesSettings;
use crate::domain::ProjectId;

/// The file of `IMAGEGATE_ALIASES_FILE`: a table `[[alias]]` for each.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AliasFile {
    #[serde(default)]
    alias: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    target: String,
    project_id: Option<String>,
    name: Option<String>,
    description: Option<String>,
    #[serde(default)]
    defaults: Map<String, Value>,
    #[serde(default)]
    fixed: Map<String, Value>,
}

/// The aliases of the settings file, checked against the catalogue; none without a file.
pub fn load_aliases(settings: &SalesSettings, catalogue: &Catalogue) -> Result<Vec<AliasRecord>, StartError> {
    let Some(path) = &settings.aliases_file else { return Ok(Vec::new()) };
    read(path, catalogue).map_err(|reason| StartError::Aliases { file: path.clone(), reason })
}

fn read(path: &Path, catalogue: &Catalogue) -> Result<Vec<AliasRecord>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let file: AliasFile = toml::from_str(&text).map_err(|error| error.to_string().trim_end().to_owned())?;
    let mut records: Vec<AliasRecord> = Vec::with_capacity(file.alias.len());
    for entry in file.alias {
        let id = entry.id.clone();
        let named = |reason: String| format!("alias `{id}`: {reason}");
        let project = entry.project_id.as_deref().map(str::parse::<ProjectId>).transpose();
        let project_id = project.map_err(|error| named(format!("project_id: {error}")))?;
        let alias = Alias {
            id: entry.id,
            target: entry.target,
            name: entry.name,
            description: entry.description,
            defaults: entry.defaults,
            fixed: entry.fixed,
        };
        let alias = catalogue.check_alias(alias).map_err(|error| named(format!("{}: {error}", error.field())))?;
        let is_same =
            |other: &AliasRecord| other.project_id == project_id && other.alias.id.eq_ignore_ascii_case(&alias.id);
        if records.iter().any(is_same) {
            return Err(named("is there twice".to_owned()));
        }
        records.push(AliasRecord { project_id, alias, created_at: None });
    }
    Ok(records)
}

/// Logs each stored alias that does not fit the catalogue as it is now: requests for it are refused with 400 or 404.
pub async fn warn_of_misfits(accounts: &Accounts, catalogue: &Catalogue) {
    let aliases = match accounts.list_aliases().await {
        Ok(aliases) => aliases,
        Err(error) => return warn!(%error, "the aliases cannot be checked against the catalogue"),
    };
    for AliasRecord { alias, project_id, .. } in aliases {
        let (id, project) = (alias.id.clone(), project_id.map(|project| project.to_string()));
        if let Err(error) = catalogue.check_alias(alias) {
            warn!(alias = id, project, %error, "an alias does not fit the catalogue; requests for it are refused");
        }
    }
}
