//! Fields that a model does not have under their name, but that mean something at other models or to other clients. Each is
//! read as the parameter that means exactly the same, or refused: a picture that is not what was asked for is not sold.

use super::super::json::{Json, Number};
use super::super::model::{Model, Parameter};
use super::super::rules::Kind;
use super::super::shelf::Catalogue;
use super::super::value::{self, Value};
use super::findings::Findings;

/// What a field means, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    Size,
    AspectRatio,
    Count,
    NegativePrompt,
    Seed,
    Steps,
    Guidance,
    Strength,
    Style,
    Quality,
    Background,
    OutputFormat,
    Images,
    Mask,
}

/// Names that clients and providers have for the same thing, in snake case.
const SPELLINGS: [(&str, Meaning); 90] = [
    ("size", Meaning::Size),
    ("image_size", Meaning::Size),
    ("width", Meaning::Size),
    ("height", Meaning::Size),
    ("aspect_ratio", Meaning::AspectRatio),
    ("ratio", Meaning::AspectRatio),
    ("n", Meaning::Count),
    ("num_images", Meaning::Count),
    ("num_outputs", Meaning::Count),
    ("num_results", Meaning::Count),
    ("num_samples", Meaning::Count),
    ("number_of_images", Meaning::Count),
    ("number_of_results", Meaning::Count),
    ("sample_count", Meaning::Count),
    ("batch_size", Meaning::Count),
    ("batch_count", Meaning::Count),
    ("n_images", Meaning::Count),
    ("samples", Meaning::Count),
    ("negative_prompt", Meaning::NegativePrompt),
    ("neg_prompt", Meaning::NegativePrompt),
    ("seed", Meaning::Seed),
    ("random_seed", Meaning::Seed),
    ("steps", Meaning::Steps),
    ("num_steps", Meaning::Steps),
    ("inference_steps", Meaning::Steps),
    ("sampling_steps", Meaning::Steps),
    ("num_inference_steps", Meaning::Steps),
    ("guidance", Meaning::Guidance),
    ("guidance_scale", Meaning::Guidance),
    ("cfg", Meaning::Guidance),
    ("cfg_scale", Meaning::Guidance),
    ("strength", Meaning::Strength),
    ("denoising_strength", Meaning::Strength),
    ("image_strength", Meaning::Strength),
    ("prompt_strength", Meaning::Strength),
    ("style", Meaning::Style),
    ("quality", Meaning::Quality),
    ("background", Meaning::Background),
    ("output_format", Meaning::OutputFormat),
    ("image_format", Meaning::OutputFormat),
    ("image", Meaning::Images),
    ("images", Meaning::Images),
    ("image_url", Meaning::Images),
    ("image_urls", Meaning::Images),
    ("input_image", Meaning::Images),
    ("input_images", Meaning::Images),
    ("input_image_url", Meaning::Images),
    ("input_image_urls", Meaning::Images),
    ("input_reference", Meaning::Images),
    ("input_references", Meaning::Images),
    ("reference_image", Meaning::Images),
    ("reference_images", Meaning::Images),
    ("reference_image_urls", Meaning::Images),
    ("init_image", Meaning::Images),
    ("init_image_url", Meaning::Images),
    ("source_image", Meaning::Images),
    ("image_input", Meaning::Images),
    ("init_images", Meaning::Images),
    ("input_image_2", Meaning::Images),
    ("input_image_3", Meaning::Images),
    ("input_image_4", Meaning::Images),
    ("image_prompt", Meaning::Images),
    ("control_image", Meaning::Images),
    ("control_image_url", Meaning::Images),
    ("subject_reference", Meaning::Images),
    ("image_base64", Meaning::Images),
    ("image_data", Meaning::Images),
    ("image_file", Meaning::Images),
    ("image_uri", Meaning::Images),
    ("image_1", Meaning::Images),
    ("image1", Meaning::Images),
    ("image_2", Meaning::Images),
    ("image2", Meaning::Images),
    ("references", Meaning::Images),
    ("ref_images", Meaning::Images),
    ("image_references", Meaning::Images),
    ("style_reference", Meaning::Images),
    ("character_reference", Meaning::Images),
    ("base_image", Meaning::Images),
    ("original_image", Meaning::Images),
    ("start_image", Meaning::Images),
    ("mask", Meaning::Mask),
    ("mask_url", Meaning::Mask),
    ("mask_image", Meaning::Mask),
    ("mask_image_url", Meaning::Mask),
    ("mask_urls", Meaning::Mask),
    ("mask_base64", Meaning::Mask),
    ("mask_file", Meaning::Mask),
    ("mask_uri", Meaning::Mask),
    ("inpaint_mask", Meaning::Mask),
];

/// What a field of this name, in snake case, means.
pub(super) fn meaning_of(name: &str) -> Option<Meaning> {
    SPELLINGS.iter().find(|(spelling, _)| *spelling == name).map(|(_, meaning)| *meaning)
}

/// A name in snake case: `negativePrompt` and `negative-prompt` are `negative_prompt`.
pub(super) fn snake_case(key: &str) -> String {
    let mut name = String::with_capacity(key.len() + 4);
    let mut after_lower = false;
    for letter in key.chars() {
        if letter.is_ascii_uppercase() && after_lower {
            name.push('_');
        }
        after_lower = letter.is_ascii_lowercase() || letter.is_ascii_digit();
        name.push(if letter == '-' { '_' } else { letter.to_ascii_lowercase() });
    }
    name
}

/// Whether a value leaves its parameter as if the field were absent: it is empty. That of a required parameter is checked,
/// since its limits say better what is missing.
pub(super) fn is_absent(parameter: &Parameter, json: &Json<'_>) -> bool {
    *json == Json::Null || json.is_empty() && !parameter.required
}

/// The parameter of the model that means this, by its name or by another client's name for it.
pub(super) fn parameter_meaning(model: &Model, meaning: Meaning) -> Option<usize> {
    match meaning {
        Meaning::Size | Meaning::AspectRatio => model.index.size,
        Meaning::Count => model.index.count,
        Meaning::Images => match model.index.images.as_slice() {
            [only] => Some(*only),
            _ => None,
        },
        _ => model
            .parameters
            .iter()
            .position(|parameter| parameter.names().any(|name| meaning_of(name) == Some(meaning))),
    }
}

/// Values of OpenAI's `style`, `quality` and `background` that its clients send to every model. Where a model has no such
/// parameter they change nothing, nor does a `style` or `background` where it has not that value.
const OPENAI_WORDS: [(&str, &[&str]); 3] = [
    ("style", &["vivid", "natural"]),
    ("quality", &["standard", "hd", "low", "medium", "high"]),
    ("background", &["opaque"]),
];

pub(super) fn is_openai_word(key: &str, json: &Json<'_>) -> bool {
    json.as_str().is_some_and(|text| OPENAI_WORDS.iter().any(|(name, words)| *name == key && words.contains(&text)))
}

/// Whether leaving this field out makes the same picture: what it asks for is what the model does anyway.
pub(super) fn changes_nothing(
    model: &Model,
    catalogue: Option<&Catalogue>,
    name: &str,
    meaning: Option<Meaning>,
    json: &Json<'_>,
) -> bool {
    if is_openai_word(name, json) {
        return true;
    }
    if meaning == Some(Meaning::OutputFormat) {
        let [only] = model.output.content_types.as_slice() else { return false };
        let format = json.as_str().map(|format| if format == "jpg" { "jpeg" } else { format });
        return format.is_some_and(|format| only.strip_prefix("image/") == Some(format));
    }
    let mut known = parameters_named(catalogue, name).peekable();
    if known.peek().is_none() {
        return false;
    }
    // What is not asked for cannot be missed; a checker that cannot be switched off can.
    if *json == Json::Bool(false) && !name.contains("safety") {
        return known.all(|(_, parameter)| parameter.kind == Kind::Boolean);
    }
    known.all(|(_, parameter)| parameter.default.as_ref().is_some_and(|default| is_same(json, default)))
}

/// Every parameter of this name in the catalogue, with its model.
fn parameters_named<'c>(
    catalogue: Option<&'c Catalogue>,
    name: &'c str,
) -> impl Iterator<Item = (&'c Model, &'c Parameter)> {
    let models = catalogue.into_iter().flat_map(Catalogue::models).filter(|model| model.is_offered());
    models.flat_map(move |model| {
        let parameters = model.parameters.iter();
        parameters.filter(move |parameter| parameter.names().any(|known| known == name)).map(|one| (&**model, one))
    })
}

fn is_same(json: &Json<'_>, value: &Value) -> bool {
    match (json, value) {
        (Json::Bool(one), Value::Boolean(another)) => one == another,
        (Json::String(one), Value::Text(another) | Value::Choice(another)) => **one == **another,
        (Json::Number(Number::Integer(one)), another) => {
            i64::try_from(*one).ok().is_some_and(|one| another.to_json().as_i64() == Some(one))
        }
        (Json::Number(Number::Float(one)), another) => value::number(*one) == another.to_json(),
        _ => false,
    }
}

/// Whether this is a field of any model in the catalogue.
pub(super) fn is_known(catalogue: Option<&Catalogue>, name: &str) -> bool {
    catalogue.is_some_and(|catalogue| catalogue.has_field(name))
}

/// Refuses a field that means something which the model cannot do, and says what can be done instead.
pub(super) fn refuse<'j>(
    model: &Model,
    catalogue: Option<&Catalogue>,
    key: &'j str,
    name: &str,
    meaning: Option<Meaning>,
    findings: &mut Findings<'j>,
) {
    let way_out = match meaning {
        Some(Meaning::Images) if model.index.images.len() > 1 => {
            let fields = model.index.images.iter().filter_map(|place| model.parameters.get(*place));
            let fields: Vec<String> = fields.map(|parameter| format!("`{}`", parameter.name)).collect();
            format!("it has {}: say which one is meant", fields.join(" and "))
        }
        Some(Meaning::Images) => match sibling_with_images(model, catalogue) {
            Some(sibling) => format!("it takes no input images; `{sibling}` does"),
            None => "it takes no input images; choose a model that does, or leave them out".to_owned(),
        },
        _ => {
            let takers = parameters_named(catalogue, name).map(|(model, _)| format!("`{}`", model.id));
            match takers.take(3).collect::<Vec<_>>().as_slice() {
                [] => "leave it out".to_owned(),
                takers => format!("leave it out, or choose a model that takes it, such as {}", takers.join(", ")),
            }
        }
    };
    findings.not_taken(key, &model.id, &way_out);
}

/// The model on offer that takes input images and has the nearest id, by the same maker.
fn sibling_with_images<'c>(model: &Model, catalogue: Option<&'c Catalogue>) -> Option<&'c str> {
    let models = catalogue?.models();
    let siblings =
        models.filter(|other| other.is_offered() && other.takes_images && other.developer == model.developer);
    let shared = |id: &str| id.bytes().zip(model.id.bytes()).take_while(|(one, another)| one == another).count();
    let best = siblings.map(|other| (shared(&other.id), other.id.as_str())).max_by_key(|(length, _)| *length)?;
    (best.0 >= 4).then_some(best.1)
}
