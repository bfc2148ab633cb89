//! A delivery in the shape of the model's own output, as fal's clients read it.

use serde_json::{Map, Value};

use super::Visit;
use super::refusal::Refusal;
use crate::api::answer::{Produced, image_views};
use crate::api::embedded::{Embedded, FilledText};
use crate::api::places::{Embedding, embed, project_of_request, public};
use crate::catalogue::Model;
use crate::domain::Timestamp;
use crate::providers::Delivery;

/// How the output is wanted.
pub struct Wanted<'a> {
    /// The model that made it, if it is still in the catalogue.
    pub model: Option<&'a Model>,
    /// Whether the images come as data URIs.
    pub sync_mode: bool,
    /// The prompt, where it is known.
    pub prompt: Option<&'a str>,
}

/// The bare output, with the images that are embedded in it.
pub struct Output {
    fields: Map<String, Value>,
    embedded: Embedded,
}

impl Output {
    /// As JSON, with a text before and one after it.
    pub fn write(&self, before: &str, after: &str) -> FilledText {
        let fields = serde_json::to_string(&self.fields).unwrap_or_default();
        self.embedded.fill(format!("{before}{fields}{after}"))
    }
}

/// What a delivery looks like to fal's clients.
pub async fn output(
    visit: &Visit,
    deadline: Timestamp,
    delivery: &Delivery,
    wanted: &Wanted<'_>,
) -> Result<Output, Refusal> {
    let services = &visit.services;
    let base = visit.base();
    let mut images = image_views(&delivery.images, |url| public(services, &base, url));
    let how = Embedding { as_base64: false, as_data_uris: wanted.sync_mode };
    let embedded = embed(services, project_of_request(&visit.request), deadline, delivery, &mut images, how).await;
    let produced = Produced::of(images, delivery, wanted.prompt);
    let Ok(Value::Object(mut output)) = serde_json::to_value(&produced) else {
        return Ok(Output { fields: Map::new(), embedded });
    };
    // Where OpenAI's clients look for the images.
    output.shift_remove("data");
    output.extend(delivery.num_images.map(|count| ("num_images".to_owned(), Value::from(count))));
    // fal's types have it in every answer of such a model; where prompts are not kept, it is empty.
    if wanted.model.is_none_or(|model| model.output.fields.iter().any(|field| field == "prompt")) {
        output.entry("prompt").or_insert_with(|| Value::String(String::new()));
    } else {
        output.shift_remove("prompt");
    }
    Ok(Output { fields: output, embedded })
}
