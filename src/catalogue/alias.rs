//! Checks the names that the operator gives to models.

use std::sync::Arc;

use serde_json::Value as JsonValue;

use super::model::Model;
use super::problem::{Problem, Rejection};
use super::shelf::Catalogue;
use super::validate::Presets;
use crate::domain::{Alias, Aliases};

/// The longest id of an alias, in characters.
const LONGEST_ID: usize = 100;

/// Why an alias cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AliasError {
    /// The id has a character that no id has, or too many of them.
    #[error("must be 1 to 100 letters, digits and `._:/-`, not beginning or ending with a slash")]
    Id,
    /// The target is not an id or alias of the catalogue.
    #[error("{}", .0)]
    Target(Rejection),
    /// Defaults or fixed values that the target does not take.
    #[error("the values do not fit the model `{model}`: {}", in_words(.problems))]
    Values {
        /// The target.
        model: String,
        /// What is wrong, each with its path below `defaults` or `fixed`.
        problems: Vec<(&'static str, Problem)>,
    },
}

impl AliasError {
    /// The field that is wrong.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Target(_) => "target",
            Self::Values { problems, .. } => problems.first().map_or("fixed", |(field, _)| field),
        }
    }
}

fn in_words(problems: &[(&'static str, Problem)]) -> String {
    problems.iter().map(|(field, problem)| format!("{field}: {}", problem.message)).collect::<Vec<_>>().join("; ")
}

impl Catalogue {
    /// Checks an alias, and gives it with the target's own id. Its target is a model, never another alias, so no name leads
    /// in a circle; its values pass the target's limits like a client's.
    pub fn check_alias(&self, mut alias: Alias) -> Result<Alias, AliasError> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
        let id = &alias.id;
        if !(1..=LONGEST_ID).contains(&id.len()) || !id.chars().all(is_part) || id.starts_with('/') || id.ends_with('/')
        {
            return Err(AliasError::Id);
        }
        let model = self.offered_model(&alias.target).map_err(AliasError::Target)?;
        Presets::read(Some(self), model, &alias)
            .map_err(|problems| AliasError::Values { model: model.id.clone(), problems })?;
        alias.target.clone_from(&model.id);
        Ok(alias)
    }

    /// JSON Schema of the parameters of an alias of this model: the model's own, with the alias's values.
    #[must_use]
    pub fn alias_schema(&self, model: &Model, alias: &Alias) -> JsonValue {
        let mut schema = model.json_schema();
        schema["title"] = alias.id.as_str().into();
        let Ok(presets) = Presets::read(Some(self), model, alias) else { return schema };
        for (words, values) in [&["default"][..], &["default", "const"]].into_iter().zip(presets.named(model)) {
            for (name, value) in values {
                for word in words {
                    schema["properties"][name][*word] = value.to_json();
                }
                if let Some(required) = schema["required"].as_array_mut() {
                    required.retain(|required| required != name);
                }
            }
        }
        schema
    }

    /// The model that a name stands for: an alias's target, or the model of that id or alias.
    #[must_use]
    pub fn named(&self, aliases: &Aliases, name: &str) -> Option<&Arc<Model>> {
        self.model(aliases.get(name).map_or(name, |alias| alias.target.as_str()))
    }
}
