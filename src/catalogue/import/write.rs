//! Writes a model file, with a mark wherever the document says nothing.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::{Draft, DraftKind, DraftParameter, DraftSize, MARK};
use crate::catalogue::size::Size;

/// The pixels of fal's named sizes; those of other names are the model's to choose.
const PRESETS: [(&str, &str); 6] = [
    ("square_hd", "1024x1024"),
    ("square", "512x512"),
    ("portrait_4_3", "768x1024"),
    ("portrait_16_9", "576x1024"),
    ("landscape_4_3", "1024x768"),
    ("landscape_16_9", "1024x576"),
];
/// Other clients' names for fal's parameters.
const OTHER_NAMES: [(&str, &[&str]); 5] = [
    ("image_size", &["size"]),
    ("aspect_ratio", &["size", "image_size"]),
    ("num_inference_steps", &["steps"]),
    ("guidance_scale", &["guidance"]),
    ("num_images", &["n"]),
];
/// Texts that no document limits may have this many characters.
const LONGEST_TEXT: u64 = 10_000;

pub(super) fn file(draft: &Draft) -> String {
    let mut file = File(String::new());
    let endpoint = &draft.endpoint;
    let id = endpoint.strip_prefix("fal-ai/").unwrap_or(endpoint);
    file.line("id", &text(id));
    file.line("aliases", &list(if id == endpoint { &[] } else { std::slice::from_ref(endpoint) }));
    file.line("name", &or_mark(draft.name.as_deref(), "its name"));
    file.line("developer", &mark("who made it"));
    file.line("description", &or_mark(draft.description.as_deref(), "one sentence"));
    file.line("docs_url", &text(&format!("https://fal.ai/models/{endpoint}")));
    file.line("status", "\"offered\"");
    file.line("provider", "\"fal\"");
    file.line("endpoint", &text(endpoint));
    if draft.streams {
        file.line("streams", "true");
    }
    file.line("sources", &format!("[{}]", mark(&format!("fal's OpenAPI document of {endpoint}, and its day"))));
    file.inferred(draft);
    file.price(draft);
    file.output(draft);
    let taken: Vec<String> = draft.parameters.iter().map(|parameter| parameter.name.clone()).collect();
    for parameter in &draft.parameters {
        file.parameter(parameter, "parameters", &taken);
    }
    if !draft.parameters.iter().any(|parameter| parameter.name == "num_images") {
        file.one_image();
    }
    for (name, why) in &draft.left_out {
        let _ = writeln!(file.0, "# Left out: `{name}`, {why}.\n");
    }
    file.example(id, draft);
    file.0.truncate(file.0.trim_end().len());
    file.0.push('\n');
    file.0
}

struct File(String);

impl File {
    fn line(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.0, "{name} = {value}");
    }

    fn head(&mut self, head: &str) {
        let _ = writeln!(self.0, "{head}");
    }

    fn end(&mut self) {
        self.0.push('\n');
    }

    fn inferred(&mut self, draft: &Draft) {
        let mut inferred = Vec::new();
        for parameter in &draft.parameters {
            if let DraftKind::Text { max_length: None, format: None | Some("uri"), .. } = parameter.kind {
                inferred.push(format!(
                    "{}: fal states no limit; {LONGEST_TEXT} characters keep it within reason",
                    parameter.name
                ));
            }
        }
        if !inferred.is_empty() {
            self.line("inferred", &list(&inferred));
        }
        if !draft.unsaid.is_empty() {
            let note =
                |word: &String| mark(&format!("how `{word}` of the document is kept, which no model file can say"));
            self.line("notes", &format!("[{}]", draft.unsaid.iter().map(note).collect::<Vec<_>>().join(", ")));
        }
        self.end();
    }

    /// No document says what a model costs.
    fn price(&mut self, draft: &Draft) {
        self.head("[price]");
        let known = draft.price.as_ref();
        let per = known.map_or_else(|| mark("image or megapixel"), |price| text(price.per));
        self.line("per", &per);
        self.line("amount", &known.map_or_else(|| mark("US dollars, such as 0.025"), |price| text(&price.amount)));
        self.head("# For a price per megapixel:");
        let rounding = if known.is_some_and(|price| price.per == "megapixel") { "" } else { "# " };
        self.line(&format!("{rounding}rounding"), "\"up\"");
        self.head("# unsized_megapixels = \"4\"  # to hold, where a size may not be known before the call");
        self.line("as_of", &mark("the day it was looked up, such as 2026-06-11"));
        self.line("source", &mark("where"));
        self.end();
    }

    fn output(&mut self, draft: &Draft) {
        let output = &draft.output;
        self.head("[output]");
        let or_marked = |names: &[String]| if names.is_empty() { format!("[{}]", mark("fields")) } else { list(names) };
        self.line("fields", &or_marked(&output.fields));
        self.line("image_fields", &or_marked(&output.image_fields));
        let formats = draft.parameters.iter().find(|parameter| parameter.name == "output_format");
        let types = match (formats.map(|formats| &formats.kind), &output.content_type) {
            (Some(DraftKind::Choice(options)), _) => {
                list(&options.iter().map(|option| format!("image/{option}")).collect::<Vec<_>>())
            }
            (_, Some(content_type)) => list(std::slice::from_ref(content_type)),
            _ => format!("[{}]", mark("such as image/png")),
        };
        self.line("content_types", &types);
        self.end();
    }

    fn parameter(&mut self, parameter: &DraftParameter, place: &str, taken: &[String]) {
        let name = parameter.name.as_str();
        let of_model = place == "parameters";
        self.head(&format!("[[{place}]]"));
        self.line("name", &text(name));
        self.kind_name(&parameter.kind);
        match name {
            "prompt" if of_model => self.line("role", "\"prompt\""),
            "num_images" if of_model => self.line("role", "\"count\""),
            "max_images" if of_model => self.line("role", "\"count_each\""),
            _ => {}
        }
        if of_model {
            self.other_names(name, taken);
        }
        if parameter.required {
            self.line("required", "true");
        }
        self.limits(name, &parameter.kind, parameter.required);
        if let Some(default) = parameter.default.as_ref().and_then(|default| default_text(&parameter.kind, default)) {
            self.line("default", &default);
        }
        if parameter.description.is_empty() {
            self.line("description", &mark("one sentence"));
        } else {
            self.line("description", &text(&parameter.description));
        }
        self.end();
        self.nested(&parameter.kind, place);
    }

    /// Other clients' names, but for those that the document gives to something else.
    fn other_names(&mut self, name: &str, taken: &[String]) {
        let Some((_, accepts)) = OTHER_NAMES.iter().find(|(known, _)| *known == name) else { return };
        let free = accepts.iter().map(|name| (*name).to_owned()).filter(|name| !taken.contains(name));
        let free: Vec<String> = free.collect();
        if !free.is_empty() {
            self.line("accepts", &list(&free));
        }
    }

    fn kind_name(&mut self, kind: &DraftKind) {
        let name = match kind {
            DraftKind::Text { .. } => "text",
            DraftKind::Integer { seed: true, .. } => "seed",
            DraftKind::Integer { .. } => "integer",
            DraftKind::Number { .. } => "number",
            DraftKind::Boolean => "boolean",
            DraftKind::Choice(_) => "choice",
            DraftKind::Size { .. } => "size",
            DraftKind::AspectRatio(_) => "aspect_ratio",
            DraftKind::Image => "image",
            DraftKind::List { .. } => "list",
            DraftKind::Object(_) => "object",
            DraftKind::Unknown => {
                self.line("kind", &mark("the document requires it in a form that no kind has"));
                return;
            }
        };
        self.line("kind", &text(name));
    }

    fn limits(&mut self, name: &str, kind: &DraftKind, required: bool) {
        match kind {
            DraftKind::Text { min_length, max_length, format, pattern } => {
                // An empty prompt would only be refused, or cost.
                let least = min_length.or((name == "prompt" && required).then_some(1));
                self.number("min_length", least);
                let usual = if *format == Some("uuid") { 36 } else { LONGEST_TEXT };
                let longest = max_length.unwrap_or(usual.max(least.unwrap_or(0)));
                self.number("max_length", Some(longest));
                if let Some(format) = format {
                    self.line("format", &text(format));
                }
                if let Some(pattern) = pattern {
                    self.line("pattern", &text(pattern));
                }
            }
            DraftKind::Integer { seed, minimum, maximum, multiple_of, options } => {
                for (key, limit) in [("minimum", minimum), ("maximum", maximum)] {
                    match limit {
                        Some(limit) => self.line(key, &whole(*limit, *seed)),
                        None if !seed && options.is_empty() => self.line(key, &mark("the document has none")),
                        None => {}
                    }
                }
                if let Some(step) = multiple_of {
                    self.line("multiple_of", &step.to_string());
                }
                if !options.is_empty() {
                    let options: Vec<String> = options.iter().map(i64::to_string).collect();
                    self.line("options", &format!("[{}]", options.join(", ")));
                }
            }
            DraftKind::Number { limits, options } => {
                for (key, limit) in limits {
                    self.line(key, &fraction(limit));
                }
                if !options.is_empty() {
                    let options: Vec<String> = options.iter().map(fraction).collect();
                    self.line("options", &format!("[{}]", options.join(", ")));
                }
            }
            DraftKind::Choice(options) | DraftKind::AspectRatio(options) => self.line("options", &list(options)),
            DraftKind::Size { custom: Some(DraftSize { minimum, maximum, multiple_of, missing_side }), .. } => {
                self.number("minimum", Some(*minimum));
                self.number("maximum", Some(maximum.unwrap_or(14142)));
                if let Some(step) = multiple_of {
                    self.line("multiple_of", &step.to_string());
                }
                if let Some((width, height)) = missing_side {
                    self.line("missing_side", &text(&format!("{width}x{height}")));
                }
            }
            DraftKind::List { min_items, max_items, .. } => {
                self.number("min_items", *min_items);
                match max_items {
                    Some(most) => self.number("max_items", Some(*most)),
                    None => self.line("max_items", &mark("the document has no number")),
                }
            }
            DraftKind::Size { custom: None, .. }
            | DraftKind::Boolean
            | DraftKind::Image
            | DraftKind::Object(_)
            | DraftKind::Unknown => {}
        }
    }

    fn number(&mut self, key: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.line(key, &value.to_string());
        }
    }

    /// The tables below a parameter.
    fn nested(&mut self, kind: &DraftKind, place: &str) {
        match kind {
            DraftKind::Size { presets, .. } => self.presets(presets, place),
            DraftKind::AspectRatio(_) => {
                let names: Vec<_> = PRESETS.iter().map(|(name, _)| (*name).to_owned()).collect();
                self.presets(&names, place);
            }
            DraftKind::List { items, .. } => {
                let place = format!("{place}.items");
                self.head(&format!("[{place}]"));
                self.kind_name(items);
                self.limits("", items, true);
                self.end();
                self.nested(items, &place);
            }
            DraftKind::Object(fields) => {
                for field in fields {
                    self.parameter(field, &format!("{place}.fields"), &[]);
                }
            }
            _ => {}
        }
    }

    fn presets(&mut self, names: &[String], place: &str) {
        if names.is_empty() {
            return;
        }
        self.head(&format!("[{place}.presets]"));
        for name in names {
            let known = PRESETS.iter().find(|(known, _)| known == name).map(|(_, size)| *size);
            let size = known.or_else(|| name.parse::<Size>().is_ok().then_some(name.as_str()));
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
            let key = if plain { name.clone() } else { text(name) };
            self.line(&key, &text(size.unwrap_or("auto")));
        }
        self.end();
    }

    /// fal takes no number of images here, so clients' `n` is checked and not sent.
    fn one_image(&mut self) {
        self.head("[[parameters]]\nname = \"num_images\"\nkind = \"integer\"\nrole = \"count\"\naccepts = [\"n\"]");
        self.head("minimum = 1\nmaximum = 1\ndefault = 1\nsend = \"never\"");
        self.line("description", "\"The number of images to generate: this model makes one.\"");
        self.end();
    }

    fn example(&mut self, id: &str, draft: &Draft) {
        let mut request = serde_json::Map::new();
        request.insert("model".to_owned(), id.into());
        for parameter in draft.parameters.iter().filter(|parameter| parameter.required) {
            let Some(value) = sample(&parameter.kind) else { return };
            request.insert(parameter.name.clone(), value);
        }
        self.head("[[examples]]\ntitle = \"only what is required\"\nrequest = '''");
        self.head(&Json::Object(request).to_string());
        self.head("'''");
    }
}

fn sample(kind: &DraftKind) -> Option<Json> {
    match kind {
        DraftKind::Text { .. } => Some("a quiet harbour at dawn".into()),
        DraftKind::Image => Some("https://example.com/harbour.png".into()),
        DraftKind::Choice(options) | DraftKind::AspectRatio(options) => Some(options.first()?.as_str().into()),
        DraftKind::Boolean => Some(true.into()),
        DraftKind::List { items, .. } => Some(Json::Array(vec![sample(items)?])),
        _ => None,
    }
}

/// A default as TOML; `None` for what a file cannot have as a default.
fn default_text(kind: &DraftKind, default: &Json) -> Option<String> {
    match (kind, default) {
        (DraftKind::Size { .. }, Json::Object(sides)) => {
            Some(text(&format!("{}x{}", sides.get("width")?, sides.get("height")?)))
        }
        (DraftKind::Choice(options), Json::Number(number)) => {
            options.iter().find(|option| **option == number.to_string()).map(|option| text(option))
        }
        (_, Json::Array(items)) if items.is_empty() => Some("[]".to_owned()),
        (_, Json::String(value)) => Some(text(value)),
        (_, Json::Bool(_) | Json::Number(_)) => Some(default.to_string()),
        _ => None,
    }
}

/// A whole limit within TOML's integers; a seed's may be beyond them, as a text.
fn whole(limit: i128, seed: bool) -> String {
    if let Some(beyond) = u64::try_from(limit.min(u64::MAX.into())).ok().filter(|l| seed && i64::try_from(*l).is_err())
    {
        return text(&beyond.to_string());
    }
    limit.clamp(i64::MIN.into(), i64::MAX.into()).to_string()
}

/// A limit of a number: as a float where an integer would be longer than a file's limits are.
fn fraction(limit: &Json) -> String {
    let short = limit.as_i64().is_some_and(|limit| i32::try_from(limit).is_ok());
    if short || limit.is_f64() { limit.to_string() } else { format!("{limit}.0") }
}

fn text(value: &str) -> String {
    toml::Value::from(value).to_string()
}

fn list(values: &[String]) -> String {
    format!("[{}]", values.iter().map(|value| text(value)).collect::<Vec<_>>().join(", "))
}

fn mark(what: &str) -> String {
    text(&format!("{MARK}: {what}>"))
}

fn or_mark(value: Option<&str>, what: &str) -> String {
    value.filter(|value| !value.is_empty()).map_or_else(|| mark(what), text)
}
