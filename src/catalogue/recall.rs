//! What other modules ask of a model in passing.

use serde_json::{Map, Value as JsonValue};

use super::model::{Example, Model, Parameter, Role, Status};
use super::price::Unit;
use super::size::Size;
use crate::domain::Fixed;

impl Model {
    /// Our name for what the provider calls `name` at this endpoint; the name itself where ours is the same, or unknown.
    #[must_use]
    pub fn own_name<'n>(&'n self, endpoint: &str, name: &'n str) -> &'n str {
        let several =
            self.several.as_ref().filter(|several| several.endpoint == endpoint && several.provider_name == name);
        if let Some(parameter) = several.and_then(|several| self.parameters.get(several.position)) {
            return &parameter.name;
        }
        let ours = |parameter: &Parameter| {
            *parameter.name == *name || parameter.accepts.iter().any(|accepted| accepted == name)
        };
        if self.parameters.iter().any(ours) {
            return name;
        }
        self.parameters.iter().find(|parameter| parameter.provider_name == name).map_or(name, |known| &known.name)
    }

    /// Whether it can be ordered. Loading a file has made sure that such a model has a price.
    #[must_use]
    pub const fn is_offered(&self) -> bool {
        matches!(self.status, Status::Offered | Status::Deprecated)
    }

    /// Its price in a few words, such as `0.025000000 USD per megapixel`.
    #[must_use]
    pub fn price_in_words(&self, markup: Fixed) -> String {
        let Some(price) = &self.price else { return "not known".to_owned() };
        let unit = match price.unit {
            Unit::Image => "image",
            Unit::Megapixel => "megapixel",
        };
        let amount = price.rate.amount.times(markup).map_or_else(|| "?".to_owned(), |amount| amount.to_string());
        let varies = if price.varies() { ", varies" } else { "" };
        format!("{amount} USD per {unit}{varies}")
    }
}

impl Status {
    /// As model files write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Deprecated => "deprecated",
            Self::Withdrawn => "withdrawn",
            Self::Unpriced => "unpriced",
        }
    }
}

impl Parameter {
    /// Whether this is the prompt.
    #[must_use]
    pub fn is_prompt(&self) -> bool {
        self.role == Some(Role::Prompt)
    }
}

impl Example {
    /// The request as JSON; empty if the file's text is none (which loading the file refuses).
    #[must_use]
    pub fn body(&self) -> Map<String, JsonValue> {
        serde_json::from_str(&self.request).unwrap_or_default()
    }
}

impl Size {
    /// From a provider's answer; `None` if a side is missing or zero.
    #[must_use]
    pub fn from_pixels(width: Option<u32>, height: Option<u32>) -> Option<Self> {
        let side = |pixels: Option<u32>| pixels.filter(|pixels| *pixels > 0);
        Some(Self { width: side(width)?, height: side(height)? })
    }
}
