//! A model as its file describes it, checked and compiled into lookup tables.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::price::{Condition, Price};
use super::rules::Kind;
use super::switches::Switch;
use super::value::Value;

/// Everything that is known about one model.
#[derive(Debug, Clone)]
pub struct Model {
    /// Our id, such as `flux/dev`.
    pub id: String,
    /// Other ids that it is found under, such as `fal-ai/flux/dev`.
    pub aliases: Vec<String>,
    /// For people.
    pub name: String,
    /// Who made it.
    pub developer: String,
    /// One sentence.
    pub description: String,
    /// A page to read.
    pub docs_url: Option<String>,
    /// Whether it is offered.
    pub status: Status,
    /// For deprecated and withdrawn models: what to use instead.
    pub replaced_by: Option<String>,
    /// The provider that runs it, by the name it is registered under.
    pub provider: String,
    /// The provider's id for it.
    pub endpoint: String,
    /// Where the provider has an endpoint of its own for several input images.
    pub several: Option<Several>,
    /// Models that are tried in turn while this one is unavailable, if a request names none itself.
    pub fallbacks: Vec<String>,
    /// Longest wait for one generation, if it differs from the gateway's.
    pub deadline: Option<Duration>,
    /// Whether the provider can stream its progress.
    pub streams: bool,
    /// Whether it takes input images.
    pub takes_images: bool,
    /// What it costs; never `None` for a model that is on offer.
    pub price: Option<Price>,
    /// What its answer carries.
    pub output: Output,
    /// Values that cannot stand together.
    pub conflicts: Vec<Conflict>,
    /// In the file's order, which is the order they are sent in.
    pub parameters: Vec<Parameter>,
    /// Requests to try; every one is valid.
    pub examples: Vec<Example>,
    /// Where the facts come from.
    pub sources: Vec<String>,
    /// What no source states, and on what ground the file states it.
    pub inferred: Vec<String>,
    /// Remarks for whoever reads or changes the file.
    pub notes: Vec<String>,
    pub(super) index: Index,
}

/// Whether a model is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Yes.
    Offered,
    /// Yes, but its provider may take it away.
    Deprecated,
    /// No more.
    Withdrawn,
    /// Not yet: nobody knows its price.
    Unpriced,
}

/// One image goes to one endpoint by itself, several go to another as a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Several {
    /// The provider's id for the endpoint that takes several.
    pub endpoint: String,
    /// The provider's name for the list there.
    pub provider_name: String,
    /// The parameter: a list. A single item is sent without the brackets, under the parameter's own name.
    pub(super) position: usize,
}

/// Values of several parameters that the provider refuses together, or makes something else of.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    /// All hold.
    pub when: Vec<Condition>,
    /// What to send instead, for the message.
    pub remedy: String,
}

/// What an answer carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Fields of the answer: `images`, `seed`, `timings`, `has_nsfw_concepts`, `prompt`, `description`.
    pub fields: Vec<String>,
    /// Fields of each image: `url`, `width`, `height`, `content_type`, `file_name`, `file_size`, `file_data`.
    pub image_fields: Vec<String>,
    /// Media types that images come in.
    pub content_types: Vec<String>,
    /// Whether it is answered as OpenAI answers for its GPT image models: with `b64_json` unless `response_format` is
    /// `url`, and with `size`, `quality`, `background`, `output_format` and `usage`.
    pub gpt_image: bool,
}

/// A request to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// What it shows.
    pub title: String,
    /// The request's JSON, as the file holds it.
    pub request: String,
}

/// One parameter of a model, or one field of a parameter that is an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Our name for it (AIML's word where there is one).
    pub name: Arc<str>,
    /// The provider's name for it.
    pub provider_name: String,
    /// Other clients' names that are taken for it.
    pub accepts: Vec<String>,
    /// For people.
    pub description: String,
    /// Whether a request without it is refused.
    pub required: bool,
    /// When it is sent to the provider.
    pub send: Send,
    /// What the gateway needs to know it for.
    pub role: Option<Role>,
    /// What values it takes.
    pub kind: Kind,
    /// Its value where none is given.
    pub default: Option<Value>,
    /// Parameters whose presence takes this one's default away (`image_size` where a `controlnet` sets the size).
    pub no_default_with: Vec<String>,
}

impl Parameter {
    /// Our name for it, and other clients'.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&*self.name).chain(self.accepts.iter().map(String::as_str))
    }

    /// Whether its text must have something to read: it is a prompt without which there is no image.
    pub(super) fn is_never_blank(&self) -> bool {
        let is_free = matches!(&self.kind, Kind::Text(rule) if rule.pattern.is_none() && rule.format.is_none());
        is_free && self.required && self.role == Some(Role::Prompt)
    }
}

/// When a parameter is sent to the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Send {
    /// Whenever it has a value, given or default.
    #[default]
    Always,
    /// Only when the client gave it.
    Given,
    /// Never: it is the gateway's to check, the provider has no such field.
    Never,
}

/// What the gateway knows a parameter for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The text that the image is drawn from.
    Prompt,
    /// How many images are made.
    Count,
    /// How many images each of those may become.
    CountEach,
}

/// Where each field of a request goes.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    pub(super) fields: HashMap<Box<str>, Field>,
    pub(super) prompt: Option<usize>,
    pub(super) count: Option<usize>,
    pub(super) count_each: Option<usize>,
    /// The parameter of kind size or aspect ratio.
    pub(super) size: Option<usize>,
    /// Parameters of input images.
    pub(super) images: Vec<usize>,
}

/// What a field of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// The model's id.
    Model,
    /// A parameter of the model, by its place in the file.
    Parameter(usize),
    /// One side of the size, beside the other.
    Width,
    /// The other.
    Height,
    /// Known to every model.
    Switch(Switch),
}
