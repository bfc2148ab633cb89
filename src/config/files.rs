//! `.env` and `imagegate.toml`.

use std::collections::BTreeMap;
use std::path::Path;

use super::{ConfigError, NAMES};

pub(super) fn read_dotenv(path: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let fault =
        |error: dotenvy::Error| ConfigError::File { file: path.display().to_string(), reason: error.to_string() };
    let mut values = BTreeMap::new();
    for entry in dotenvy::from_path_iter(path).map_err(fault)? {
        let (name, value) = entry.map_err(fault)?;
        values.insert(name, value);
    }
    Ok(values)
}

pub(super) fn read_toml(path: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let file = path.display().to_string();
    let fault = |reason: String| ConfigError::File { file: file.clone(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| fault(error.to_string()))?;
    let mut values = BTreeMap::new();
    for (section, entries) in table {
        let unknown = |key: &str| ConfigError::Unknown { file: file.clone(), name: format!("{section}.{key}") };
        let toml::Value::Table(entries) = entries else { return Err(unknown("")) };
        for (key, value) in entries {
            let name = format!("{section}_{key}").to_uppercase();
            if !NAMES.contains(&name.as_str()) {
                return Err(unknown(&key));
            }
            let value = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Array(items) => {
                    items.iter().filter_map(|item| item.as_str()).collect::<Vec<_>>().join(",")
                }
                _ => {
                    return Err(fault(format!(
                        "`{section}.{key}` must be a string, a whole number or a list of strings"
                    )));
                }
            };
            values.insert(name, value);
        }
    }
    Ok(values)
}
