//! What a request will come to: pictures, or a refusal; decided once, at submit, and told at the result.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::behaviour::{Fail, Fate};
use super::picture::{Format, MOST_PIXELS, Picture, RenderedFile};
use super::schema::Endpoint;
use super::sizes::{MEGAPIXEL, picture_size};
use super::validate::{problem, validate};

/// A prompt that holds this word is taken for unsafe: black pictures where the endpoint reports `has_nsfw_concepts` and
/// its safety checker is on, a content refusal of the category `sexual` where it does not report them.
pub const NSFW_WORD: &str = "sandbox-nsfw";
/// A prompt that holds this word is refused with `content_policy_violation` for its category `violence`.
pub const REFUSE_WORD: &str = "sandbox-refuse";

/// Most pictures that a rule can ask for.
const MOST_PICTURES: usize = 16;

/// What a request will come to.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// Pictures.
    Make(Plan),
    /// An error, told at the result.
    Refuse(Refusal),
}

/// The pictures to make and what the answer says of them.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Whose schema shapes the answer.
    pub endpoint: Arc<Endpoint>,
    /// In the order of the answer.
    pub pictures: Vec<Picture>,
    /// Whether the pictures come as data URIs.
    pub sync_mode: bool,
    /// What fal bills: whole units.
    pub units: u64,
    /// What `x-fal-billable-units` tells.
    pub told_units: String,
    prompt: String,
    seed: Value,
}

/// An error in the form of fal's runner.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// HTTP status of the result.
    pub status: u16,
    /// Body of the result.
    pub body: Value,
    /// For people, as the status tells it.
    pub error: String,
    /// For programs, as the status tells it.
    pub error_type: String,
}

impl Refusal {
    /// A model error: fal's `detail` list.
    pub fn model(status: u16, problems: &[Value]) -> Self {
        let first = |key: &str| {
            let text = problems.first().and_then(|problem| problem[key].as_str());
            text.unwrap_or("internal_server_error").to_owned()
        };
        Self { status, error: first("msg"), error_type: first("type"), body: json!({"detail": problems}) }
    }

    /// A request error: fal's `detail` text with an `error_type`.
    pub fn request(status: u16, detail: &str, error_type: &str) -> Self {
        Self {
            status,
            body: json!({"detail": detail, "error_type": error_type}),
            error: detail.to_owned(),
            error_type: error_type.to_owned(),
        }
    }

    /// The application exists, the path below it does not.
    pub fn no_path(path: &str) -> Self {
        let detail = format!("Path {path} not found");
        Self { status: 404, body: json!({"detail": detail}), error: detail, error_type: "not_found".to_owned() }
    }

    /// The body is no JSON; `column` is where that was noticed.
    pub fn broken_json(column: usize) -> Self {
        let item = json!({"type": "json_invalid", "loc": ["body", column], "msg": "JSON decode error",
            "input": {}, "ctx": {"error": "Expecting value"}});
        Self::model(422, &[item])
    }

    /// No runner took it within the time that the caller gave.
    pub fn start_timeout() -> Self {
        Self::request(504, "Request timed out", "request_timeout")
    }

    /// The run failed as a rule asked for.
    pub fn run(fail: &Fail) -> Self {
        let body = fail.body.clone().unwrap_or_else(|| json!({"detail": "Internal Server Error"}));
        let told = |key: &str| body["detail"][0][key].as_str().map(str::to_owned);
        Self {
            status: fail.status,
            error: told("msg").or_else(|| body["detail"].as_str().map(str::to_owned)).unwrap_or_default(),
            error_type: fail
                .error_type
                .clone()
                .or_else(|| told("type"))
                .unwrap_or_else(|| "internal_server_error".to_owned()),
            body,
        }
    }

    /// The content checker's refusal of a prompt, for one of fal's categories.
    pub fn content(prompt: &Value, category: &str) -> Self {
        let message = "The content could not be processed because it contained material flagged by a content checker.";
        let loc = json!(["body", "prompt"]);
        let mut item = problem("content_policy_violation", &loc, message, None, prompt);
        item["categories"] = json!([category]);
        Self::model(422, &[item])
    }
}

/// Decides what `body` comes to; beside it, the paths of fields that fal ignores. `random_seed` counts where the body
/// names none.
pub fn decide(endpoint: &Arc<Endpoint>, body: &Value, random_seed: u64) -> (Verdict, Vec<String>) {
    match validate(endpoint, body) {
        Ok(valid) => (plan(endpoint, &valid.input, random_seed), valid.unknown),
        Err(problems) => (Verdict::Refuse(Refusal::model(422, &problems)), Vec::new()),
    }
}

fn plan(endpoint: &Arc<Endpoint>, input: &Map<String, Value>, random_seed: u64) -> Verdict {
    let flag = |name: &str| input.get(name).and_then(Value::as_bool);
    let text = |name: &str| input.get(name).and_then(Value::as_str).unwrap_or_default();
    let prompt = text("prompt");
    let reports_nsfw = endpoint.output.fields.iter().any(|field| field == "has_nsfw_concepts");
    let flagged = prompt.contains(NSFW_WORD);
    if prompt.contains(REFUSE_WORD) {
        return Verdict::Refuse(Refusal::content(&json!(prompt), "violence"));
    }
    if flagged && !reports_nsfw {
        return Verdict::Refuse(Refusal::content(&json!(prompt), "sexual"));
    }
    let size = picture_size(&endpoint.id, input);
    let pixels = u64::from(size.0) * u64::from(size.1);
    if pixels > MOST_PIXELS {
        let context = json!({"max_height": 4096, "max_width": 4096});
        let field = input.get("image_size").unwrap_or(&Value::Null);
        let loc = json!(["body", "image_size"]);
        let item = problem("image_too_large", &loc, "Image too large", Some(context), field);
        return Verdict::Refuse(Refusal::model(422, &[item]));
    }
    let vector = ["vector_illustration", "icon/"].iter().any(|style| text("style").starts_with(style));
    let format = if vector { Some(Format::Svg) } else { Format::named(text("output_format")) };
    let format = format.or_else(|| Format::named(&endpoint.output.format)).unwrap_or(Format::Jpeg);
    let (seed, number) = seed_of(input.get("seed"), random_seed);
    let number_of = |name: &str| input.get(name).and_then(Value::as_u64).unwrap_or(1);
    // Where each picture may become several, all of them are made.
    let count = number_of("num_images") * number_of("max_images");
    let units = units(endpoint, pixels, count, vector) + input_units(endpoint, input);
    let black = flagged && flag("enable_safety_checker") != Some(false);
    let pictures: Vec<Picture> = (0..count)
        .map(|index| {
            let mut picture = Picture::new(prompt, number.wrapping_add(index), size, format);
            picture.black = black;
            picture
        })
        .collect();
    Verdict::Make(Plan {
        endpoint: Arc::clone(endpoint),
        units,
        told_units: units.to_string(),
        pictures,
        sync_mode: flag("sync_mode") == Some(true),
        prompt: prompt.to_owned(),
        seed,
    })
}

/// The seed as the answer tells it, and as the picture takes it.
fn seed_of(given: Option<&Value>, random_seed: u64) -> (Value, u64) {
    let given = given.filter(|seed| !seed.is_null());
    let number = match given {
        Some(seed) => seed.as_u64().or_else(|| seed.as_i64().map(i64::cast_unsigned)).unwrap_or(random_seed),
        None => random_seed,
    };
    (given.cloned().unwrap_or_else(|| json!(number)), number)
}

/// What fal bills: whole megapixels, each image rounded up; or images, of which a vector one counts twice.
fn units(endpoint: &Endpoint, pixels: u64, count: u64, vector: bool) -> u64 {
    let by_area = endpoint.billing.unit == "megapixels";
    let each = if by_area {
        pixels.div_ceil(MEGAPIXEL)
    } else if vector {
        2
    } else {
        1
    };
    each * count
}

/// The megapixels that fal bills for input pictures: one for each, since nothing is fetched to see how large it is.
fn input_units(endpoint: &Endpoint, input: &Map<String, Value>) -> u64 {
    if !endpoint.billing.counts_inputs {
        return 0;
    }
    let lists = input.iter().filter(|(name, _)| name.ends_with("image_urls")).filter_map(|(_, list)| list.as_array());
    lists.map(|list| list.len() as u64).sum()
}

impl Plan {
    /// The same as a rule bends it: flagged, fewer or more pictures, other units.
    pub fn bent(mut self, fate: &Fate) -> Self {
        if let (Some(count), Some(last)) = (fate.images, self.pictures.last().cloned()) {
            self.pictures.resize(count.min(MOST_PICTURES), last);
        }
        for picture in &mut self.pictures {
            picture.black |= fate.nsfw;
        }
        if let Some(units) = &fate.wrong_units {
            self.told_units.clone_from(units);
        }
        self
    }

    /// The same in small: what a stream shows of the pictures before they are done.
    pub fn preview(&self, step: u32) -> Self {
        let mut plan = self.clone();
        for picture in &mut plan.pictures {
            picture.width = (picture.width * step / 8).max(1);
            picture.height = (picture.height * step / 8).max(1);
        }
        plan
    }

    /// The prompt.
    pub fn prompt(&self) -> &str {
        &self.prompt
    }

    /// Whether the answer cannot be told without drawing the pictures; `file_sizes` is whether it tells how large they are.
    pub fn needs_files(&self, file_sizes: bool) -> bool {
        self.sync_mode || file_sizes && self.endpoint.output.image_fields.iter().any(|field| field == "file_size")
    }

    /// About how many bytes the plan keeps in memory.
    pub fn weight(&self) -> usize {
        self.prompt.len() + self.pictures.len() * 256
    }

    /// The answer, in the shape of the endpoint's schema. `base` stands before the paths of files, `seconds` is the time
    /// that the run took; `files` are the drawn pictures where [`Self::needs_files`].
    pub fn output(&self, base: &str, seconds: f64, files: &[RenderedFile]) -> Value {
        let fields = self.endpoint.output.fields.iter();
        let value = |field: &str| match field {
            "images" => {
                let pictures = self.pictures.iter().enumerate();
                pictures.map(|(index, picture)| self.image(picture, base, files.get(index))).collect()
            }
            "timings" => json!({"inference": seconds}),
            "seed" => self.seed.clone(),
            "has_nsfw_concepts" => self.pictures.iter().map(|picture| picture.black).collect(),
            "prompt" => json!(self.prompt),
            "num_images" => json!(self.pictures.len()),
            "description" => json!("A picture drawn by the sandbox."),
            _ => Value::Null,
        };
        fields.map(|field| (field.clone(), value(field))).collect()
    }

    fn image(&self, picture: &Picture, base: &str, file: Option<&RenderedFile>) -> Value {
        use base64::Engine as _;
        let content_type = picture.format.content_type();
        let value = |field: &str| match field {
            "url" => match file.filter(|_| self.sync_mode) {
                Some(file) => {
                    let data = base64::engine::general_purpose::STANDARD.encode(&file.bytes);
                    json!(format!("data:{content_type};base64,{data}"))
                }
                None => json!(format!("{base}{}", picture.path())),
            },
            "content_type" => json!(content_type),
            "file_name" => json!(picture.file_name()),
            "file_size" => file.map_or(Value::Null, |file| json!(file.bytes.len())),
            "width" => json!(picture.width),
            "height" => json!(picture.height),
            _ => Value::Null,
        };
        let fields = self.endpoint.output.image_fields.iter();
        fields.map(|field| (field.clone(), value(field))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::schema::Schemas;

    fn decided(endpoint: &str, body: &Value) -> Verdict {
        let schemas = Schemas::built_in().unwrap();
        decide(schemas.endpoint(endpoint).unwrap(), body, 99).0
    }

    fn made(endpoint: &str, body: &Value) -> Plan {
        match decided(endpoint, body) {
            Verdict::Make(plan) => plan,
            Verdict::Refuse(refusal) => panic!("refused: {refusal:?}"),
        }
    }

    fn refused(endpoint: &str, body: &Value) -> Refusal {
        match decided(endpoint, body) {
            Verdict::Make(plan) => panic!("made: {plan:?}"),
            Verdict::Refuse(refusal) => refusal,
        }
    }

    /// A prompt, and what else the endpoint cannot do without.
    fn bare(endpoint: &Endpoint) -> Value {
        let mut body = json!({"prompt": "a red fox"});
        for name in endpoint.input.required.iter().filter(|name| *name != "prompt") {
            let link = json!("https://example.com/fox.png");
            body[name] = if name.ends_with('s') { json!([link]) } else { link };
        }
        body
    }

    #[test]
    fn input_pictures_are_billed_where_the_endpoint_counts_them() {
        let links = ["https://example.com/1.png", "https://example.com/2.png"];
        let body = json!({"prompt": "a", "image_urls": links, "image_size": "square_hd"});
        assert_eq!(made("fal-ai/flux-2/edit", &body).units, 3);
        assert_eq!(made("fal-ai/flux-pro/kontext/multi", &body).units, 1);
    }

    #[test]
    fn every_endpoint_answers_a_bare_prompt_in_its_own_shape() {
        let schemas = Schemas::built_in().unwrap();
        for endpoint in schemas.endpoints() {
            let plan = made(&endpoint.id, &bare(endpoint));
            let output = plan.output("http://host", 1.5, &[]);
            let fields: Vec<&String> = output.as_object().unwrap().keys().collect();
            assert_eq!(fields, endpoint.output.fields.iter().collect::<Vec<_>>());
            let url = output["images"][0]["url"].as_str().unwrap();
            assert!(url.starts_with("http://host/files/b/"), "{url}");
            assert!(output.as_object().unwrap().values().all(|value| !value.is_null()), "{output}");
        }
    }

    #[test]
    fn a_flux_answer_has_its_five_fields() {
        let plan = made("fal-ai/flux/dev", &json!({"prompt": "a", "seed": 7, "num_images": 2}));
        let output = plan.output("http://host", 1.5, &[]);
        assert_eq!(output["seed"], 7);
        assert_eq!(output["timings"], json!({"inference": 1.5}));
        assert_eq!(output["has_nsfw_concepts"], json!([false, false]));
        assert_eq!(output["images"][1]["width"], 1024);
        assert_eq!(output["images"][1]["height"], 768);
        assert_ne!(output["images"][0]["url"], output["images"][1]["url"]);
    }

    #[test]
    fn a_request_without_a_seed_gets_a_random_one() {
        assert_eq!(made("fal-ai/flux/dev", &json!({"prompt": "a"})).seed, 99);
        assert_eq!(made("fal-ai/flux/dev", &json!({"prompt": "a", "seed": u64::MAX})).seed, u64::MAX);
    }

    #[test]
    fn units_are_whole_megapixels_or_images() {
        let units = |endpoint, body: Value| made(endpoint, &body).told_units;
        assert_eq!(units("fal-ai/flux/dev", json!({"prompt": "a", "image_size": "square_hd"})), "1");
        let size = json!({"width": 1025, "height": 1024});
        assert_eq!(units("fal-ai/flux/dev", json!({"prompt": "a", "image_size": size, "num_images": 3})), "6");
        assert_eq!(units("fal-ai/ideogram/v2", json!({"prompt": "a"})), "1");
        let style = json!({"prompt": "a", "style": "vector_illustration/cartoon"});
        assert_eq!(units("fal-ai/recraft/v2/text-to-image", style), "2");
    }

    #[test]
    fn a_vector_style_makes_an_svg_and_another_a_webp() {
        let made = |style| made("fal-ai/recraft/v2/text-to-image", &json!({"prompt": "a", "style": style}));
        assert_eq!(made("icon/outline").pictures[0].format, Format::Svg);
        assert_eq!(made("realistic_image").pictures[0].format, Format::Webp);
    }

    #[test]
    fn more_than_sixteen_megapixels_are_refused() {
        let size = |side| json!({"prompt": "a", "image_size": {"width": side, "height": side}});
        let refusal = refused("fal-ai/flux/dev", &size(4097));
        assert_eq!((refusal.status, refusal.error_type.as_str()), (422, "image_too_large"));
        made("fal-ai/flux/dev", &size(4096));
    }

    #[test]
    fn an_unsafe_prompt_is_blackened_by_flux_and_refused_by_partners() {
        let prompt = json!({"prompt": "a sandbox-nsfw scene"});
        let output = made("fal-ai/flux/dev", &prompt).output("", 0.0, &[]);
        assert_eq!(output["has_nsfw_concepts"], json!([true]));
        assert_eq!(refused("fal-ai/ideogram/v2", &prompt).error_type, "content_policy_violation");
        let unchecked = json!({"prompt": "a sandbox-nsfw scene", "enable_safety_checker": false});
        assert_eq!(made("fal-ai/flux/dev", &unchecked).output("", 0.0, &[])["has_nsfw_concepts"], json!([false]));
    }
}
