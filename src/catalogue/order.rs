//! An order: a wish that the catalogue has found valid. Only [`Catalogue::order`](super::Catalogue::order) makes one.

use std::sync::Arc;

use serde_json::{Map, Value as Json};
use sha2::{Digest, Sha256};

use super::model::{Model, Parameter, Send, Several};
use super::price::PriceError;
use super::rules::Kind;
use super::size::Size;
use super::switches::Switches;
use super::terms::Terms;
use super::value::Value;
use crate::domain::Fixed;

/// A valid request for images of one model: every value in range, defaults explicit.
#[derive(Debug, Clone)]
pub struct Order {
    /// The model that makes it.
    pub model: Arc<Model>,
    /// The name that was asked for, as the operator or the catalogue spells it: an alias, or the model's id.
    pub requested: String,
    /// What was asked of the gateway itself.
    pub switches: Switches,
    /// Fields of the request that count for nothing, in its order; fields of fields with dots (`image_size.depth`).
    pub ignored: Vec<String>,
    /// What is made otherwise than it was asked for: a size of which only the ratio counts, and what was allowed to be
    /// changed.
    pub adapted: Vec<Adaptation>,
    /// One for each of the model's parameters.
    pub(super) slots: Vec<Option<Slot>>,
}

/// A value of a request that another one stands for.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Adaptation {
    /// The field, as the client wrote it.
    #[schema(example = "size")]
    pub field: String,
    /// What was asked for.
    #[schema(value_type = JsonValue, example = "1024x1024")]
    pub from: Json,
    /// What is made.
    #[schema(value_type = JsonValue, example = "1:1")]
    pub to: Json,
}

/// Any JSON value.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the values of an `Adaptation` in the document")]
pub struct JsonValue(serde_json::Value);

/// A parameter's value in an order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Slot {
    pub(super) value: Value,
    /// Whether the client gave it; else it is the default.
    pub(super) given: bool,
}

/// A parameter as the provider is sent it.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'o> {
    /// The provider's name.
    pub name: &'o str,
    /// What the value is.
    pub kind: &'o Kind,
    /// The value, in our names.
    pub value: &'o Value,
}

impl Order {
    /// How many images are asked for, the most of them where the model may make fewer; 1 for models without such a
    /// parameter.
    #[must_use]
    pub fn count(&self) -> u32 {
        let number = |place| match self.at(place) {
            Some(Value::Integer(count)) => u32::try_from(*count).unwrap_or(1),
            _ => 1,
        };
        number(self.model.index.count).saturating_mul(number(self.model.index.count_each))
    }

    /// The provider's endpoint for this order.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        match self.several() {
            Some(several) => &several.endpoint,
            None => &self.model.endpoint,
        }
    }

    /// The endpoint for several images, if several were given and the model has one.
    fn several(&self) -> Option<&Several> {
        let several = self.model.several.as_ref()?;
        match self.at(Some(several.position)) {
            Some(Value::List(items)) if items.len() > 1 => Some(several),
            _ => None,
        }
    }

    /// Whether unfinished images are to be shown, and the model has them to show.
    #[must_use]
    pub fn wants_previews(&self) -> bool {
        self.switches.stream && self.switches.partial_images.is_some_and(|count| count > 0) && self.model.streams
    }

    /// The pixels of each image, where they are known before the call.
    #[must_use]
    pub fn size(&self) -> Option<Size> {
        match self.at(self.model.index.size) {
            Some(Value::Size(size)) => size.size,
            _ => None,
        }
    }

    /// The prompt, where the model has one.
    #[must_use]
    pub fn prompt(&self) -> Option<&str> {
        match self.at(self.model.index.prompt) {
            Some(Value::Text(prompt)) => Some(prompt),
            _ => None,
        }
    }

    /// The parameters that have a value, in the model file's order, normalized, defaults explicit.
    pub fn parameters(&self) -> impl Iterator<Item = (&Parameter, &Value)> {
        self.filled().map(|(parameter, slot)| (parameter, &slot.value))
    }

    /// Those of [`Self::parameters`] that the provider is sent, under its names.
    pub fn sent(&self) -> impl Iterator<Item = Sent<'_>> {
        self.model.parameters.iter().zip(&self.slots).enumerate().filter_map(|(place, (parameter, slot))| {
            let slot = slot.as_ref()?;
            let sent = match parameter.send {
                Send::Always => true,
                Send::Given => slot.given,
                Send::Never => false,
            };
            sent.then(|| self.in_provider_form(place, parameter, &slot.value))
        })
    }

    /// A list that has an endpoint of its own goes there under its name there; a single item stands by itself.
    fn in_provider_form<'o>(&'o self, place: usize, parameter: &'o Parameter, value: &'o Value) -> Sent<'o> {
        let (name, kind) = (parameter.provider_name.as_str(), &parameter.kind);
        let own_endpoint = self.model.several.as_ref().filter(|several| several.position == place);
        match (own_endpoint, kind, value) {
            (Some(several), _, Value::List(items)) if items.len() > 1 => {
                Sent { name: &several.provider_name, kind, value }
            }
            (Some(_), Kind::List(rule), Value::List(items)) if items.len() == 1 => {
                Sent { name, kind: &rule.items, value: items.first().unwrap_or(value) }
            }
            _ => Sent { name, kind, value },
        }
    }

    /// The input images (URLs or data URIs) that were given, in order.
    pub fn input_images(&self) -> impl Iterator<Item = &str> {
        self.model.index.images.iter().filter_map(|index| self.at(Some(*index))).flat_map(|value| {
            let values = match value {
                Value::List(items) => items.as_slice(),
                one => std::slice::from_ref(one),
            };
            values.iter().filter_map(|value| match value {
                Value::Text(url) => Some(url.as_ref()),
                _ => None,
            })
        })
    }

    /// Our parameter names and values, defaults explicit.
    #[must_use]
    pub fn normalized(&self) -> Map<String, Json> {
        self.parameters().map(|(parameter, value)| (parameter.name.as_ref().to_owned(), value.to_json())).collect()
    }

    /// SHA-256 over the model's id, the normalized parameters and every switch that shapes the answer (all but `user`):
    /// equal for two requests that ask for the same, however they say it.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Hash(Sha256::new());
        hash.field(self.model.id.as_bytes());
        for (parameter, value) in self.parameters() {
            hash.field(parameter.name.as_bytes());
            hash.value(&parameter.kind, value);
        }
        let switches = &self.switches;
        hash.field(switches.response_format.name().as_bytes());
        hash.field(&[u8::from(switches.stream), u8::from(switches.background), u8::from(switches.sync_mode)]);
        hash.field(&switches.partial_images.map(u32::to_be_bytes).unwrap_or_default());
        hash.field(switches.webhook_url.as_deref().unwrap_or_default().as_bytes());
        match switches.fallbacks.as_deref() {
            None => {}
            Some([]) => hash.field(b"no fallbacks"),
            Some(fallbacks) => fallbacks.iter().for_each(|fallback| hash.field(fallback.as_bytes())),
        }
        hash.0.finalize().into()
    }

    /// As [`Self::digest`], of the end user as well: two users who ask for the same do not get one's image.
    #[must_use]
    pub fn digest_of_user(&self) -> [u8; 32] {
        let mut hash = Hash(Sha256::new());
        hash.field(&self.digest());
        hash.field(self.switches.user.as_deref().unwrap_or_default().as_bytes());
        hash.0.finalize().into()
    }

    /// How this order is charged at this markup.
    pub fn terms(&self, markup: Fixed) -> Result<Terms, PriceError> {
        self.model.price.as_ref().ok_or(PriceError::Unpriced)?.terms(self, markup)
    }

    fn filled(&self) -> impl Iterator<Item = (&Parameter, &Slot)> {
        self.model
            .parameters
            .iter()
            .zip(&self.slots)
            .filter_map(|(parameter, slot)| slot.as_ref().map(|slot| (parameter, slot)))
    }

    pub(super) fn at(&self, index: Option<usize>) -> Option<&Value> {
        self.slots.get(index?)?.as_ref().map(|slot| &slot.value)
    }
}

/// A hash of fields, each with its length before it, so that no two lists of fields run together.
struct Hash(Sha256);

impl Hash {
    fn field(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    /// Texts as they are; what is not a text by its JSON, which is the same for equal values.
    fn value(&mut self, kind: &Kind, value: &Value) {
        self.field(kind.name().as_bytes());
        match value {
            Value::Text(text) | Value::Choice(text) => self.field(text.as_bytes()),
            Value::Size(size) => match (size.size, &size.preset) {
                (Some(size), _) => {
                    self.field(&size.width.to_be_bytes());
                    self.field(&size.height.to_be_bytes());
                }
                (None, Some(preset)) => self.field(preset.as_bytes()),
                (None, None) => {}
            },
            other => self.field(other.to_json().to_string().as_bytes()),
        }
    }
}
