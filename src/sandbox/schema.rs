//! What fal's endpoints take and give, learned from the documents that fal publishes; one file per endpoint in `schemas/`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::SandboxError;

/// One endpoint of fal, such as `fal-ai/flux/dev`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The full id, as a submit names it.
    #[serde(rename = "endpoint_id")]
    pub id: String,
    /// Where the schema is from, if fal publishes none: `aiml` for AIML's page of the same model.
    #[serde(default)]
    #[expect(dead_code, reason = "for whoever reads the file")]
    pub derived_from: Option<String>,
    /// Owner and alias: all that the paths below `/requests/` name.
    pub request_path_prefix: String,
    /// Where the endpoint streams; absent where it does not.
    #[serde(default)]
    pub stream_url: Option<String>,
    /// The body of a request.
    pub input: Object,
    /// The objects that the input refers to by name.
    #[serde(default)]
    pub types: BTreeMap<String, Object>,
    /// What an answer carries.
    pub output: Output,
    /// What fal counts for the bill.
    pub billing: Billing,
}

/// The fields of an object, in the order in which fal declares them.
#[derive(Debug, Deserialize)]
#[serde(try_from = "RawObject")]
pub struct Object {
    /// The fields that must be given.
    pub required: Vec<String>,
    /// Every field that the object knows.
    pub properties: Vec<(String, Property)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawObject {
    #[serde(default)]
    required: Vec<String>,
    properties: Map<String, Value>,
}

impl TryFrom<RawObject> for Object {
    type Error = serde_json::Error;

    fn try_from(raw: RawObject) -> Result<Self, Self::Error> {
        let properties = raw
            .properties
            .into_iter()
            .map(|(name, property)| Ok((name, serde_json::from_value(property)?)))
            .collect::<Result<_, Self::Error>>()?;
        Ok(Self { required: raw.required, properties })
    }
}

impl Object {
    /// The field of that name.
    pub fn property(&self, name: &str) -> Option<&Property> {
        self.properties.iter().find_map(|(known, property)| (known == name).then_some(property))
    }
}

/// What a field may hold: the part of JSON Schema that fal's documents use.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Property {
    /// The kind of value; absent beside `any_of` and `reference`.
    #[serde(rename = "type")]
    pub kind: Option<Kind>,
    /// The only texts allowed.
    #[serde(rename = "enum")]
    pub options: Option<Vec<String>>,
    /// The least number allowed.
    pub minimum: Option<f64>,
    /// The greatest number allowed.
    pub maximum: Option<f64>,
    /// The number that must be exceeded.
    pub exclusive_minimum: Option<f64>,
    /// The least length of a text, in code points.
    pub min_length: Option<usize>,
    /// The greatest length of a text, in code points.
    pub max_length: Option<usize>,
    /// A named form of text; only `uuid4` has a meaning here.
    pub format: Option<String>,
    /// The name of an object in the endpoint's `types`.
    #[serde(rename = "$ref")]
    pub reference: Option<String>,
    /// What a list holds.
    pub items: Option<Box<Property>>,
    /// Alternatives, of which one must fit.
    pub any_of: Option<Vec<Property>>,
    /// What counts where nothing is given.
    pub default: Option<Value>,
}

/// The kinds of value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// A list.
    Array,
    /// An object of free form.
    Object,
    /// Nothing.
    Null,
}

/// What an answer carries.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// The fields of the answer, in fal's order.
    pub fields: Vec<String>,
    /// The fields of each image.
    pub image_fields: Vec<String>,
    /// The format where the request cannot choose one or does not: `jpeg`, `png` or `webp`.
    pub format: String,
}

/// How fal bills an endpoint.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Billing {
    /// `megapixels` (each image rounded up to whole units of 1,048,576 pixels) or `images`.
    pub unit: String,
    /// US dollars for one unit, a decimal string; absent where the price is not one for each unit (by quality, speed or
    /// resolution, or dearer for the first), or fal has published none.
    #[serde(default)]
    pub unit_price: Option<String>,
    /// Whether each input picture counts as one megapixel more; its true size is not looked at.
    #[serde(default)]
    pub counts_inputs: bool,
}

/// Every endpoint that the stand-in knows.
#[derive(Debug)]
pub struct Schemas {
    endpoints: Vec<Arc<Endpoint>>,
    by_id: HashMap<String, Arc<Endpoint>>,
    prefixes: HashSet<String>,
}

impl Schemas {
    /// Reads the built-in files. Errors if one of them is no schema, which a test rules out.
    pub fn built_in() -> Result<Self, SandboxError> {
        let endpoints = FILES
            .iter()
            .map(|text| serde_json::from_str(text).map(Arc::new))
            .collect::<Result<Vec<Arc<Endpoint>>, _>>()?;
        let by_id = endpoints.iter().map(|endpoint| (endpoint.id.clone(), Arc::clone(endpoint))).collect();
        let prefixes = endpoints.iter().map(|endpoint| endpoint.request_path_prefix.clone()).collect();
        Ok(Self { endpoints, by_id, prefixes })
    }

    /// The endpoint of that id.
    pub fn endpoint(&self, id: &str) -> Option<&Arc<Endpoint>> {
        self.by_id.get(id)
    }

    /// Whether some endpoint lives under that owner and alias.
    pub fn has_application(&self, prefix: &str) -> bool {
        self.prefixes.contains(prefix)
    }

    /// All endpoints, ordered by id.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.iter()
    }
}

const FILES: &[&str] = &[
    include_str!("schemas/fal-ai_bytedance_seedream_v3_text-to-image.json"),
    include_str!("schemas/fal-ai_bytedance_seedream_v4.5_text-to-image.json"),
    include_str!("schemas/fal-ai_bytedance_seedream_v4_edit.json"),
    include_str!("schemas/fal-ai_bytedance_seedream_v4_text-to-image.json"),
    include_str!("schemas/fal-ai_f-lite_standard.json"),
    include_str!("schemas/fal-ai_f-lite_texture.json"),
    include_str!("schemas/fal-ai_flux-1_dev.json"),
    include_str!("schemas/fal-ai_flux-1_schnell.json"),
    include_str!("schemas/fal-ai_flux-2.json"),
    include_str!("schemas/fal-ai_flux-2-flex.json"),
    include_str!("schemas/fal-ai_flux-2-max.json"),
    include_str!("schemas/fal-ai_flux-2-max_edit.json"),
    include_str!("schemas/fal-ai_flux-2-pro.json"),
    include_str!("schemas/fal-ai_flux-2-pro_edit.json"),
    include_str!("schemas/fal-ai_flux-2_edit.json"),
    include_str!("schemas/fal-ai_flux-2_lora.json"),
    include_str!("schemas/fal-ai_flux-2_lora_edit.json"),
    include_str!("schemas/fal-ai_flux-lora.json"),
    include_str!("schemas/fal-ai_flux-pro.json"),
    include_str!("schemas/fal-ai_flux-pro_kontext.json"),
    include_str!("schemas/fal-ai_flux-pro_kontext_max.json"),
    include_str!("schemas/fal-ai_flux-pro_kontext_max_multi.json"),
    include_str!("schemas/fal-ai_flux-pro_kontext_max_text-to-image.json"),
    include_str!("schemas/fal-ai_flux-pro_kontext_multi.json"),
    include_str!("schemas/fal-ai_flux-pro_kontext_text-to-image.json"),
    include_str!("schemas/fal-ai_flux-pro_v1.1.json"),
    include_str!("schemas/fal-ai_flux-pro_v1.1-ultra.json"),
    include_str!("schemas/fal-ai_flux-realism.json"),
    include_str!("schemas/fal-ai_flux_dev.json"),
    include_str!("schemas/fal-ai_flux_dev_image-to-image.json"),
    include_str!("schemas/fal-ai_flux_schnell.json"),
    include_str!("schemas/fal-ai_flux_srpo.json"),
    include_str!("schemas/fal-ai_flux_srpo_image-to-image.json"),
    include_str!("schemas/fal-ai_gpt-image-1-mini.json"),
    include_str!("schemas/fal-ai_gpt-image-1.5.json"),
    include_str!("schemas/fal-ai_gpt-image-1_text-to-image.json"),
    include_str!("schemas/fal-ai_hidream-i1-dev.json"),
    include_str!("schemas/fal-ai_hidream-i1-fast.json"),
    include_str!("schemas/fal-ai_hidream-i1-full.json"),
    include_str!("schemas/fal-ai_hunyuan-image_v3_text-to-image.json"),
    include_str!("schemas/fal-ai_ideogram_v2.json"),
    include_str!("schemas/fal-ai_ideogram_v2_turbo.json"),
    include_str!("schemas/fal-ai_ideogram_v2a.json"),
    include_str!("schemas/fal-ai_ideogram_v3.json"),
    include_str!("schemas/fal-ai_imagen4_preview.json"),
    include_str!("schemas/fal-ai_imagen4_preview_fast.json"),
    include_str!("schemas/fal-ai_imagen4_preview_ultra.json"),
    include_str!("schemas/fal-ai_kling-image_o1.json"),
    include_str!("schemas/fal-ai_nano-banana.json"),
    include_str!("schemas/fal-ai_nano-banana-pro.json"),
    include_str!("schemas/fal-ai_omnigen-v1.json"),
    include_str!("schemas/fal-ai_omnigen-v2.json"),
    include_str!("schemas/fal-ai_qwen-image.json"),
    include_str!("schemas/fal-ai_qwen-image-2512.json"),
    include_str!("schemas/fal-ai_recraft-20b.json"),
    include_str!("schemas/fal-ai_recraft_v2_text-to-image.json"),
    include_str!("schemas/fal-ai_recraft_v3_text-to-image.json"),
    include_str!("schemas/fal-ai_recraft_v4_text-to-image.json"),
    include_str!("schemas/fal-ai_stable-diffusion-v3-medium.json"),
    include_str!("schemas/fal-ai_stable-diffusion-v35-large.json"),
    include_str!("schemas/fal-ai_stable-diffusion-v35-medium.json"),
    include_str!("schemas/fal-ai_uso.json"),
    include_str!("schemas/fal-ai_z-image_turbo.json"),
    include_str!("schemas/fal-ai_z-image_turbo_lora.json"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_file_is_read_and_names_what_it_refers_to() {
        let schemas = Schemas::built_in().unwrap();
        assert_eq!(schemas.endpoints().count(), FILES.len());
        for endpoint in schemas.endpoints() {
            let id = &endpoint.id;
            assert!(id.starts_with(&endpoint.request_path_prefix), "`{id}` does not live under its own path");
            assert!(endpoint.output.fields.contains(&"images".to_owned()));
            assert!(["images", "megapixels"].contains(&endpoint.billing.unit.as_str()), "`{id}`");
            for required in &endpoint.input.required {
                assert!(endpoint.input.property(required).is_some(), "`{id}` {required}");
            }
            let objects = endpoint.types.values().chain([&endpoint.input]);
            for (name, property) in objects.flat_map(|object| &object.properties) {
                check_references(endpoint, name, property);
            }
        }
    }

    fn check_references(endpoint: &Endpoint, name: &str, property: &Property) {
        if let Some(reference) = &property.reference {
            assert!(endpoint.types.contains_key(reference), "`{}` has no type `{reference}` for `{name}`", endpoint.id);
        }
        let inner = property.any_of.iter().flatten().chain(property.items.as_deref());
        inner.for_each(|inner| check_references(endpoint, name, inner));
    }

    #[test]
    fn files_name_no_machine_and_no_source() {
        for text in FILES {
            assert!(!text.contains("/work") && !text.contains("\"source\""));
        }
    }
}
