//! What a project's operator has decided for its callers, who may not change it.

use serde::{Deserialize, Serialize};

use crate::domain::Money;

/// A project's policy; what is absent is free.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// The models it may use, by our ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_models: Option<Vec<String>>,
    /// The models it may not use, by our ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denied_models: Option<Vec<String>>,
    /// Whether no request may switch the safety checker off.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub require_safety_checker: bool,
    /// The most that one request may cost, in US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_price_usd: Option<Money>,
}

impl Policy {
    /// Reads a stored policy.
    pub fn read(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// As it is stored.
    #[must_use]
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether the project may use the model with this id of ours, asked for by this name: a list may have either.
    #[must_use]
    pub fn may_use(&self, model: &str, requested: &str) -> bool {
        let is_listed = |name: &String| name.eq_ignore_ascii_case(model) || name.eq_ignore_ascii_case(requested);
        let named = |models: &Vec<String>| models.iter().any(is_listed);
        self.allowed_models.as_ref().is_none_or(named) && !self.denied_models.as_ref().is_some_and(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_as_it_is_written() {
        let policy = Policy {
            allowed_models: Some(vec!["flux/dev".to_owned()]),
            denied_models: Some(vec!["imagen4/preview".to_owned()]),
            require_safety_checker: true,
            max_price_usd: Some(Money::from_nanos(50_000_000)),
        };
        assert_eq!(Policy::read(&policy.text()).unwrap(), policy);
        assert_eq!(Policy::default().text(), "{}");
        assert!(Policy::read(r#"{"alowed_models": []}"#).is_err());
        let may = |policy: &Policy, model: &str| policy.may_use(model, model);
        assert!(may(&policy, "FLUX/dev") && !may(&policy, "flux-realism"));
        assert!(policy.may_use("flux-realism", "Flux/dev"), "a list may have the alias");
        let policy = Policy { allowed_models: None, ..policy };
        assert!(may(&policy, "flux-realism") && !may(&policy, "Imagen4/preview"));
        assert!(!policy.may_use("flux/dev", "imagen4/preview") && !policy.may_use("imagen4/preview", "house"));
    }
}
