//! Names that the operator gives to models, with values that stand where a client says nothing, or whatever it says.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

/// A name that the operator has given to a model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Alias {
    /// What clients ask for, in any letter case.
    pub id: String,
    /// Our id of the model that it stands for.
    pub target: String,
    /// What the list of models calls it; the target's name if `None`.
    pub name: Option<String>,
    /// A sentence about it; the target's if `None`.
    pub description: Option<String>,
    /// Values of the target's parameters that stand where the client gives none.
    pub defaults: Map<String, Value>,
    /// Values of the target's parameters that the client cannot change.
    pub fixed: Map<String, Value>,
}

impl Alias {
    /// Whether it is only another name.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.defaults.is_empty() && self.fixed.is_empty()
    }
}

/// The aliases of one project, or of the gateway, by their ids in lower case.
pub type AliasTable = BTreeMap<String, Arc<Alias>>;

/// The aliases that one caller has: its project's before the gateway's.
#[derive(Debug, Clone, Default)]
pub struct Aliases {
    /// Its project's.
    pub project: Option<Arc<AliasTable>>,
    /// Everybody's.
    pub gateway: Arc<AliasTable>,
}

impl Aliases {
    /// The alias of this name, in any letter case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Alias>> {
        if self.is_empty() {
            return None;
        }
        let name = name.to_ascii_lowercase();
        self.project.as_ref().and_then(|project| project.get(&name)).or_else(|| self.gateway.get(&name))
    }

    /// Each alias that [`Self::get`] finds, by its id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Alias>> {
        let mut all: BTreeMap<&str, &Arc<Alias>> =
            self.gateway.iter().map(|(id, alias)| (id.as_str(), alias)).collect();
        all.extend(self.project.iter().flat_map(|project| project.iter()).map(|(id, alias)| (id.as_str(), alias)));
        all.into_values()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gateway.is_empty() && self.project.as_ref().is_none_or(|project| project.is_empty())
    }
}
