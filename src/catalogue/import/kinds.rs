//! Which kind of parameter a schema is, with every limit that it states, and what of it no kind can say.

use serde_json::Value as Json;

use super::super::rules::TextPattern;
use super::flat::{Object, flat};
use super::read::{Form, property};
use super::{DraftKind, DraftSize};

/// Objects inside objects deeper than this refer to themselves.
const DEEPEST: usize = 8;
/// Words that limit whatever type of value.
const OF_ALL: [&str; 5] = ["enum", "not", "if", "anyOf", "oneOf"];
const OF_NUMBERS: [&str; 5] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];
const OF_TEXTS: [&str; 4] = ["pattern", "minLength", "maxLength", "format"];
const OF_LISTS: [&str; 5] = ["minItems", "maxItems", "uniqueItems", "contains", "prefixItems"];
const OF_OBJECTS: [&str; 6] =
    ["minProperties", "maxProperties", "dependentRequired", "dependentSchemas", "propertyNames", "patternProperties"];
/// Every address and data URI has more characters than this.
const SHORTEST_IMAGE: u64 = 8;

/// A kind, and the words of the schema that it cannot say.
pub(super) type Told = (DraftKind, Vec<String>);

/// A schema of which words are taken as they are said.
struct Words(Object);

impl Words {
    fn take(&mut self, word: &str) -> Option<Json> {
        self.0.remove(word)
    }

    fn take_number(&mut self, word: &str) -> Option<Json> {
        self.0.get(word)?.is_number().then(|| self.0.remove(word)).flatten()
    }

    fn take_count(&mut self, word: &str) -> Option<u64> {
        let count = self.0.get(word)?.as_u64()?;
        self.0.remove(word);
        Some(count)
    }

    /// What is left of the words that limit a value.
    fn left(&self, limiting: &[&str]) -> Vec<String> {
        let limits =
            |word: &&&str| self.0.get(**word).is_some_and(|value| *value != Json::Bool(false) && !value.is_null());
        OF_ALL.iter().chain(limiting).filter(limits).map(|word| (*word).to_owned()).collect()
    }

    /// The kind, with what it does not say.
    fn told(&self, kind: DraftKind, limiting: &[&str]) -> Told {
        (kind, self.left(limiting))
    }
}

/// What the fields of an object are bound to together, which no model file can say.
pub(super) fn left_of_an_object(schema: &Object) -> Vec<String> {
    Words(schema.clone()).left(&OF_OBJECTS)
}

impl Form<'_> {
    /// The kind of a parameter of this name; `None` where there is none. `left_out` takes the fields of an object that
    /// no kind can say.
    pub(super) fn kind(
        &self,
        name: &str,
        schema: &Object,
        depth: usize,
        path: &str,
        left_out: &mut Vec<(String, String)>,
    ) -> Option<Told> {
        if depth > DEEPEST {
            return None;
        }
        if let Some(size) = self.size(name, schema) {
            return Some((size, Vec::new()));
        }
        let mut words = Words(schema.clone());
        let options = schema.get("enum").and_then(Json::as_array);
        if let Some(options) = options.filter(|options| options.iter().all(Json::is_string)) {
            return choice(name, options, words);
        }
        let kind = if let Some(kind) = schema.get("type") {
            kind.as_str()?
        } else if schema.contains_key("properties") {
            "object"
        } else {
            let all_integers = options?.iter().all(|option| option.is_i64() || option.is_u64());
            if all_integers { "integer" } else { "number" }
        };
        match kind {
            "boolean" => {
                let both = |options: &Vec<Json>| [true, false].iter().all(|one| options.contains(&Json::Bool(*one)));
                if options.is_some_and(both) {
                    words.take("enum");
                }
                Some(words.told(DraftKind::Boolean, &[]))
            }
            "integer" => integer(name, words),
            "number" => number(words),
            "string" if schema.contains_key("x-fal-file-input") || name.ends_with("image_url") => Some(image(words)),
            "string" => Some(text(words)),
            "array" => {
                let items = flat(schema.get("items")?, self.types)?;
                // A list of pictures names its items by its own name.
                let item = name.strip_suffix("image_urls").map_or("item", |_| "image_url");
                let (items, unsaid) = self.kind(item, &items, depth + 1, path, left_out)?;
                let (min_items, max_items) = (words.take_count("minItems"), words.take_count("maxItems"));
                let kind = DraftKind::List { items: Box::new(items), min_items, max_items };
                let (kind, mut left) = words.told(kind, &OF_LISTS);
                left.extend(unsaid.into_iter().map(|word| format!("items.{word}")));
                Some((kind, left))
            }
            "object" => {
                let (fields, unsaid) = self.parameters(schema, depth + 1, &format!("{path}."), left_out)?;
                if fields.is_empty() {
                    return None;
                }
                let (kind, mut left) = words.told(DraftKind::Object(fields), &OF_OBJECTS);
                left.extend(unsaid);
                Some((kind, left))
            }
            _ => None,
        }
    }

    /// `image_size`: named sizes, and perhaps an object with both sides.
    fn size(&self, name: &str, schema: &Object) -> Option<DraftKind> {
        if name != "image_size" {
            return None;
        }
        let alternatives: Vec<&Object> = match schema.get("anyOf").or_else(|| schema.get("oneOf")) {
            Some(alternatives) => alternatives.as_array()?.iter().filter_map(Json::as_object).collect(),
            None => vec![schema],
        };
        let presets = alternatives.iter().filter_map(|schema| texts(schema.get("enum")?.as_array()?));
        let presets: Vec<String> = presets.flatten().collect();
        let custom = alternatives.iter().find_map(|sides| self.custom_size(sides));
        (custom.is_some() || !presets.is_empty()).then_some(DraftKind::Size { presets, custom })
    }

    /// Both sides of a size; where their limits differ, what is allowed for both.
    fn custom_size(&self, sides: &Object) -> Option<DraftSize> {
        let side = |name: &str| -> Option<(Integers, Option<u64>)> {
            let schema = flat(property(sides, name)?, self.types)?;
            let default = schema.get("default").and_then(Json::as_u64);
            let mut words = Words(schema);
            let limits = Integers::take(&mut words);
            words.left(&OF_NUMBERS).is_empty().then_some((limits, default))
        };
        let ((width, across), (height, down)) = (side("width")?, side("height")?);
        let pixels = |limit: i128| u64::try_from(limit.clamp(1, 1_000_000)).ok();
        let minimum = width.minimum.max(height.minimum).map_or(Some(1), pixels)?;
        let maximum = [width.maximum, height.maximum].into_iter().flatten().min().map(pixels);
        let step = if width.multiple_of == height.multiple_of { width.multiple_of } else { return None };
        Some(DraftSize { minimum, maximum: maximum.flatten(), multiple_of: step, missing_side: across.zip(down) })
    }
}

/// Texts to choose from.
fn texts(options: &[Json]) -> Option<Vec<String>> {
    let texts = options.iter().map(|option| option.as_str().map(str::to_owned));
    texts.collect::<Option<Vec<_>>>().filter(|options| !options.is_empty())
}

fn choice(name: &str, options: &[Json], mut words: Words) -> Option<Told> {
    words.take("enum");
    let mut options = texts(options)?;
    let (least, most) = (words.take_count("minLength"), words.take_count("maxLength"));
    options.retain(|option| {
        let length = option.chars().count() as u64;
        least.is_none_or(|least| length >= least) && most.is_none_or(|most| length <= most)
    });
    if options.is_empty() {
        return None;
    }
    let ratios = options.iter().any(|option| option.contains(':'));
    let is_ratio = name == "aspect_ratio" && ratios;
    let kind = if is_ratio { DraftKind::AspectRatio(options) } else { DraftKind::Choice(options) };
    Some(words.told(kind, &OF_TEXTS))
}

fn image(mut words: Words) -> Told {
    if words.0.get("format").is_some_and(|format| format == "uri") {
        words.take("format");
    }
    if words.0.get("minLength").and_then(Json::as_u64).is_some_and(|least| least <= SHORTEST_IMAGE) {
        words.take("minLength");
    }
    words.told(DraftKind::Image, &OF_TEXTS)
}

fn text(mut words: Words) -> Told {
    let format = match words.0.get("format").and_then(Json::as_str) {
        Some("uuid" | "uuid4") => Some("uuid"),
        Some("uri") => Some("uri"),
        _ => None,
    };
    // Formats of which the last two are for people who type the text, not for who checks it.
    if words.0.get("format").is_some_and(|named| format.is_some() || named == "password" || named == "binary") {
        words.take("format");
    }
    let (min_length, max_length) = (words.take_count("minLength"), words.take_count("maxLength"));
    let pattern = words.0.get("pattern").and_then(Json::as_str).map(str::to_owned);
    let pattern = pattern.filter(|pattern| TextPattern::new(pattern).is_ok());
    if pattern.is_some() {
        words.take("pattern");
    }
    words.told(DraftKind::Text { min_length, max_length, format, pattern }, &OF_TEXTS)
}

/// Limits of a whole number, both allowed.
struct Integers {
    minimum: Option<i128>,
    maximum: Option<i128>,
    multiple_of: Option<i64>,
}

impl Integers {
    fn take(words: &mut Words) -> Self {
        let mut limit = |word: &str| words.take_number(word);
        let least = [limit("minimum").map(|n| up(&n)), limit("exclusiveMinimum").map(|n| down(&n).saturating_add(1))];
        let most = [limit("maximum").map(|n| down(&n)), limit("exclusiveMaximum").map(|n| up(&n).saturating_sub(1))];
        let multiple_of = words.0.get("multipleOf").and_then(integral).filter(|step| *step >= 1);
        if multiple_of.is_some() {
            words.take("multipleOf");
        }
        Self {
            minimum: least.into_iter().flatten().max(),
            maximum: most.into_iter().flatten().min(),
            multiple_of: multiple_of.filter(|step| *step > 1),
        }
    }

    fn allow(&self, value: i64) -> bool {
        self.minimum.is_none_or(|least| i128::from(value) >= least)
            && self.maximum.is_none_or(|most| i128::from(value) <= most)
            && self.multiple_of.is_none_or(|step| value % step == 0)
    }
}

fn integer(name: &str, mut words: Words) -> Option<Told> {
    let mut limits = Integers::take(&mut words);
    let mut options = Vec::new();
    if let Some(listed) = words.0.get("enum").and_then(Json::as_array) {
        options = listed.iter().map(integral).collect::<Option<Vec<_>>>()?;
        options.retain(|option| limits.allow(*option));
        if options.is_empty() {
            return None;
        }
        words.take("enum");
        // The options keep to the limits, which therefore say nothing more.
        limits = Integers { minimum: None, maximum: None, multiple_of: None };
    }
    let negative = limits.minimum.is_some_and(|least| least < 0);
    let seed = name == "seed" && options.is_empty() && limits.multiple_of.is_none() && !negative;
    let Integers { minimum, maximum, multiple_of } = limits;
    Some(words.told(DraftKind::Integer { seed, minimum, maximum, multiple_of, options }, &OF_NUMBERS))
}

fn number(mut words: Words) -> Option<Told> {
    let mut limits = Vec::new();
    for (key, word) in [
        ("minimum", "minimum"),
        ("maximum", "maximum"),
        ("exclusive_minimum", "exclusiveMinimum"),
        ("exclusive_maximum", "exclusiveMaximum"),
        ("multiple_of", "multipleOf"),
    ] {
        limits.extend(words.take_number(word).map(|limit| (key, limit)));
    }
    let mut options = Vec::new();
    if let Some(Json::Array(listed)) = words.take("enum") {
        options = listed;
        if options.is_empty() || !options.iter().all(Json::is_number) {
            return None;
        }
    }
    Some(words.told(DraftKind::Number { limits, options }, &OF_NUMBERS))
}

/// A number that is whole, however it is written.
fn integral(number: &Json) -> Option<i64> {
    let whole = number.as_f64().is_some_and(|value| value.fract() == 0.0);
    number.as_i64().or_else(|| whole.then(|| i64::try_from(down(number)).ok()).flatten())
}

/// The whole number that is not below.
fn up(number: &Json) -> i128 {
    exact(number).unwrap_or_else(|| rounded(number.as_f64().unwrap_or_default().ceil()))
}

/// The whole number that is not above.
fn down(number: &Json) -> i128 {
    exact(number).unwrap_or_else(|| rounded(number.as_f64().unwrap_or_default().floor()))
}

fn exact(number: &Json) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

#[expect(clippy::cast_possible_truncation, reason = "saturates, which is what is wanted")]
fn rounded(value: f64) -> i128 {
    value as i128
}
