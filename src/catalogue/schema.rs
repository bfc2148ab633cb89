//! A model's parameters as JSON Schema 2020-12, and its price as JSON: for `/v1/models` and the document.

use serde_json::{Map, Value as Json, json};

use super::model::{Conflict, Field, Model, Parameter};
use super::price::{Condition, Price, Rate, Unit};
use super::rules::{
    AspectRatioRule, CustomSize, IntegerRule, Kind, ListRule, NumberRule, ObjectRule, Preset, SizeRule, TextFormat,
    TextRule,
};
use crate::domain::{Fixed, Money};

impl Model {
    /// JSON Schema 2020-12 of a request's parameters (without `model` and the switches that every model knows).
    ///
    /// It allows exactly what the validator allows, but for what a schema cannot say and the validator refuses: two
    /// names of one parameter must agree; a size that stands for an aspect ratio or for a named size must be exactly
    /// that; limits of the pixels altogether; a text has no U+0000, a prompt more than invisible characters, a link has a host, and a whole number from 2^53 on has no point and no exponent. Two habits
    /// of other clients are taken that it does not show: `output_format: "b64_json"`, and `style` in
    /// `OpenAI`'s words where the model has others.
    #[must_use]
    pub fn json_schema(&self) -> Json {
        let mut properties = Map::new();
        for parameter in &self.parameters {
            properties.insert(parameter.name.as_ref().to_owned(), parameter_schema(parameter));
        }
        for parameter in &self.parameters {
            for name in &parameter.accepts {
                properties.insert(name.clone(), other_name_schema(parameter));
            }
        }
        if let Some(parameter) = self.index.size.and_then(|place| self.parameters.get(place)) {
            for name in ["width", "height"] {
                let side = nullable(side_schema(&parameter.kind, name));
                properties.entry(name).or_insert(side);
            }
        }
        let required = required(&self.parameters);
        let mut schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": self.id,
            "type": "object",
            "required": required,
            "properties": properties,
        });
        let mut all: Vec<Json> = self.parameters.iter().filter(|one| has_choice_of_name(one)).map(any_name).collect();
        if self.needs_both_sides() {
            let needs = |one: &str, other: &str| json!({ "if": given(one), "then": given(other) });
            all.extend([needs("width", "height"), needs("height", "width")]);
        }
        all.extend(self.conflicts.iter().map(|conflict| self.without(conflict)));
        if !all.is_empty() {
            schema["allOf"] = Json::Array(all);
        }
        schema
    }

    /// Not all of these values at once, under any of their names or by default.
    fn without(&self, conflict: &Conflict) -> Json {
        let holds = conflict.when.iter().filter_map(|condition| {
            let parameter = self.parameters.get(condition.position)?;
            let values: Vec<Json> = condition.any_of.iter().map(super::value::Value::to_json).collect();
            let has = |name: &str| json!({ "required": [name], "properties": { name: { "enum": values } } });
            let mut any: Vec<Json> = parameter.names().map(has).collect();
            if parameter.default.as_ref().is_some_and(|default| condition.holds(default)) {
                any.push(json!({ "not": { "anyOf": parameter.names().map(given).collect::<Vec<_>>() } }));
            }
            Some(json!({ "anyOf": any }))
        });
        json!({ "not": { "allOf": holds.collect::<Vec<_>>() } })
    }

    /// Whether `width` and `height` stand beside the parameters, and neither without the other.
    fn needs_both_sides(&self) -> bool {
        let is_side = |(name, side)| self.index.fields.get(name) == Some(&side);
        let kind = self.index.size.and_then(|place| self.parameters.get(place)).map(|parameter| &parameter.kind);
        let has_default = |kind: &Kind| match kind {
            Kind::Size(SizeRule { custom: Some(custom), .. }) => custom.missing_side.is_some(),
            _ => false,
        };
        [("width", Field::Width), ("height", Field::Height)].into_iter().all(is_side)
            && kind.is_some_and(|kind| !has_default(kind))
    }

    /// The prices at this markup, as `/v1/models` shows them; `null` for a model without a price.
    #[must_use]
    pub fn pricing(&self, markup: Fixed) -> Json {
        self.price.as_ref().map_or(Json::Null, |price| price.to_json(markup))
    }
}

/// The names that must be given.
fn required(parameters: &[Parameter]) -> Vec<&str> {
    let required = parameters.iter().filter(|parameter| parameter.required && !has_choice_of_name(parameter));
    required.map(|parameter| parameter.name.as_ref()).collect()
}

/// A required parameter may come under any of its names.
fn has_choice_of_name(parameter: &Parameter) -> bool {
    parameter.required && !parameter.accepts.is_empty()
}

/// It is given, and not `null`.
fn given(name: &str) -> Json {
    json!({ "required": [name], "properties": { name: { "not": { "type": "null" } } } })
}

/// At least one of the names is given, and not `null`.
fn any_name(parameter: &Parameter) -> Json {
    let names = std::iter::once(parameter.name.as_ref()).chain(parameter.accepts.iter().map(String::as_str));
    json!({ "anyOf": names.map(given).collect::<Vec<_>>() })
}

fn parameter_schema(parameter: &Parameter) -> Json {
    let mut schema = kind_schema(&parameter.kind);
    if parameter.is_never_blank() {
        schema["pattern"] = json!(r"\S");
    }
    if !parameter.required || has_choice_of_name(parameter) {
        schema = nullable(schema);
    }
    if let Json::Object(fields) = &mut schema {
        if !parameter.description.is_empty() {
            fields.insert("description".to_owned(), Json::from(parameter.description.as_str()));
        }
        if let Some(default) = &parameter.default {
            fields.insert("default".to_owned(), default.to_json());
        }
    }
    schema
}

fn other_name_schema(parameter: &Parameter) -> Json {
    let mut schema = nullable(kind_schema(&parameter.kind));
    if let Json::Object(fields) = &mut schema {
        let description = format!("Another name of `{}`.", parameter.name);
        fields.insert("description".to_owned(), Json::from(description));
    }
    schema
}

/// The same schema, and `null`.
fn nullable(mut schema: Json) -> Json {
    let Json::Object(fields) = &mut schema else { return schema };
    if let Some(Json::Array(alternatives)) = fields.get_mut("anyOf") {
        alternatives.push(json!({ "type": "null" }));
        return schema;
    }
    if let Some(Json::Array(options)) = fields.get_mut("enum") {
        options.push(Json::Null);
    }
    if let Some(name) = fields.get("type").cloned() {
        fields.insert("type".to_owned(), json!([name, "null"]));
    }
    schema
}

pub(super) fn kind_schema(kind: &Kind) -> Json {
    match kind {
        Kind::Text(rule) => text_schema(rule),
        Kind::Integer(rule) => integer_schema(rule),
        Kind::Seed(rule) => json!({ "type": "integer", "minimum": rule.minimum, "maximum": rule.maximum }),
        Kind::Number(rule) => number_schema(rule),
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Choice(rule) => json!({ "type": "string", "enum": rule.options }),
        Kind::Size(rule) => size_schema(rule),
        Kind::AspectRatio(rule) => aspect_ratio_schema(rule),
        Kind::Image => json!({
            "type": "string",
            "format": "uri",
            "pattern": "^([hH][tT][tT][pP][sS]?://|data:[^,]*;base64,[A-Za-z0-9+/_=-]+$)",
        }),
        Kind::List(rule) => list_schema(rule),
        Kind::Object(rule) => object_schema(rule),
    }
}

fn text_schema(rule: &TextRule) -> Json {
    let mut schema = json!({ "type": "string", "minLength": rule.min_length, "maxLength": rule.max_length });
    if let Some(format) = rule.format {
        schema["format"] = match format {
            TextFormat::Uuid => json!("uuid"),
            TextFormat::Uri => json!("uri"),
        };
    }
    if let Some(pattern) = &rule.pattern {
        schema["pattern"] = json!(pattern.as_str());
    }
    schema
}

fn integer_schema(rule: &IntegerRule) -> Json {
    let mut schema = json!({ "type": "integer", "minimum": rule.minimum, "maximum": rule.maximum });
    if rule.multiple_of > 1 {
        schema["multipleOf"] = json!(rule.multiple_of);
    }
    if !rule.options.is_empty() {
        schema["enum"] = json!(rule.options);
    }
    schema
}

fn number_schema(rule: &NumberRule) -> Json {
    let mut schema = json!({ "type": "number" });
    for (name, limit) in [
        ("minimum", rule.minimum),
        ("maximum", rule.maximum),
        ("exclusiveMinimum", rule.exclusive_minimum),
        ("exclusiveMaximum", rule.exclusive_maximum),
        ("multipleOf", rule.multiple_of),
    ] {
        if let Some(limit) = limit {
            schema[name] = super::value::number(limit);
        }
    }
    if !rule.options.is_empty() {
        schema["enum"] = rule.options.iter().map(|option| super::value::number(*option)).collect();
    }
    schema
}

fn size_schema(rule: &SizeRule) -> Json {
    let mut names: Vec<&str> = rule.presets.iter().map(|preset| preset.name.as_ref()).collect();
    if !names.contains(&"auto") {
        names.push("auto");
    }
    let mut alternatives = vec![json!({ "type": "string", "enum": names })];
    if let Some(custom) = &rule.custom {
        let side = pixels_schema(custom);
        let mut object = json!({ "type": "object", "properties": { "width": side, "height": side } });
        match custom.missing_side {
            Some(missing) => {
                for (name, default) in [("width", missing.width), ("height", missing.height)] {
                    let mut side = nullable(side.clone());
                    side["default"] = json!(default);
                    object["properties"][name] = side;
                }
            }
            None => object["required"] = json!(["width", "height"]),
        }
        alternatives.push(object);
        alternatives.push(json!({
            "type": "string",
            "pattern": size_pattern(custom),
            "description": "Width and height in pixels, such as `1024x768`.",
        }));
    }
    json!({ "anyOf": alternatives })
}

pub(super) fn pixels_schema(custom: &CustomSize) -> Json {
    let mut side = json!({ "type": "integer", "minimum": custom.minimum, "maximum": custom.maximum });
    if custom.multiple_of > 1 {
        side["multipleOf"] = json!(custom.multiple_of);
    }
    side
}

/// `width` or `height` beside each other, where the size or ratio is one parameter.
fn side_schema(kind: &Kind, name: &str) -> Json {
    let mut side = match kind {
        Kind::Size(SizeRule { custom: Some(custom), .. }) => pixels_schema(custom),
        _ => json!({ "type": "integer", "minimum": 1, "maximum": 999_999_999 }),
    };
    let other = if name == "width" { "height" } else { "width" };
    side["description"] = json!(format!("In pixels, beside `{other}`: another way to give the size."));
    side
}

fn aspect_ratio_schema(rule: &AspectRatioRule) -> Json {
    let mut names: Vec<&str> = rule.options.iter().map(|option| option.name.as_ref()).collect();
    let fits = |preset: &&Preset| {
        rule.options.iter().any(|option| match (option.ratio, preset.size) {
            (Some((across, down)), Some(size)) => size.has_ratio(across, down),
            _ => false,
        })
    };
    names.extend(rule.presets.iter().filter(fits).map(|preset| preset.name.as_ref()));
    if !names.contains(&"auto") {
        names.push("auto");
    }
    let side = json!({ "type": "integer", "minimum": 1, "maximum": 999_999_999 });
    json!({ "anyOf": [
        { "type": "string", "enum": names },
        {
            "type": "string",
            "pattern": "^[1-9][0-9]{0,8}[xX][1-9][0-9]{0,8}$",
            "description": "Width and height in pixels, such as `1920x1080`, exactly in one of the ratios.",
        },
        {
            "type": "object",
            "required": ["width", "height"],
            "properties": { "width": side, "height": side },
            "description": "Width and height in pixels, exactly in one of the ratios.",
        },
    ] })
}

fn list_schema(rule: &ListRule) -> Json {
    let items = kind_schema(&rule.items);
    let list = json!({ "type": "array", "items": items, "minItems": rule.min_items, "maxItems": rule.max_items });
    if rule.accepts_single { json!({ "anyOf": [list, items] }) } else { list }
}

fn object_schema(rule: &ObjectRule) -> Json {
    let mut properties = Map::new();
    for field in &rule.fields {
        properties.insert(field.name.as_ref().to_owned(), parameter_schema(field));
        for name in &field.accepts {
            properties.insert(name.clone(), other_name_schema(field));
        }
    }
    json!({ "type": "object", "required": required(&rule.fields), "properties": properties })
}

/// More allowed sides than this are described by their digits instead of being listed.
const MOST_LISTED_SIDES: u32 = 64;

/// A regular expression for `1024x768` with both sides within the limits.
pub(super) fn size_pattern(custom: &CustomSize) -> String {
    let step = custom.multiple_of.max(1);
    let (least, most) = (custom.minimum.div_ceil(step), custom.maximum / step);
    let side = if step > 1 || most - least < MOST_LISTED_SIDES {
        (least..=most).map(|count| (count * step).to_string()).collect::<Vec<_>>().join("|")
    } else {
        ranges(custom.minimum, custom.maximum).join("|")
    };
    format!("^({side})[xX]({side})$")
}

/// Regular expressions that together match the numbers from `least` to `most`, written without leading zeros.
fn ranges(least: u32, most: u32) -> Vec<String> {
    let mut patterns = Vec::new();
    let mut from = least;
    while from <= most {
        // The widest block that begins at `from`: its last digits run from 0 to 9.
        let mut block = 1;
        while from.is_multiple_of(block * 10) && from >= block * 10 && from + block * 10 - 1 <= most {
            block *= 10;
        }
        // As many such blocks as fit before the next digit changes.
        let digit = from / block % 10;
        let count = (10 - digit).min((most - from + 1) / block);
        let above = match from / block / 10 {
            0 => String::new(),
            above => above.to_string(),
        };
        let end = digit + count - 1;
        let digits = if digit == end { digit.to_string() } else { format!("[{digit}-{end}]") };
        let tail = "[0-9]".repeat(block.ilog10() as usize);
        patterns.push(format!("{above}{digits}{tail}"));
        from += count * block;
    }
    patterns
}

impl Price {
    fn to_json(&self, markup: Fixed) -> Json {
        let mut price = json!({
            "currency": "USD",
            "unit": self.unit,
            "price": amount(self.rate.amount, markup),
            "as_of": self.as_of,
        });
        if let Some(first) = self.rate.first {
            price["first_unit_price"] = amount(first, markup);
        }
        if self.unit == Unit::Megapixel {
            price["megapixel_pixels"] = json!(self.megapixel);
            price["rounding"] = json!(self.rounding);
        }
        if let Some(each) = self.input_image {
            price["input_image_price"] = amount(each.amount, markup);
            if let Some(most) = each.megapixels {
                price["input_image_unit"] = json!("megapixel");
                price["input_image_most_megapixels"] = json!(most);
            }
        }
        if !self.variants.is_empty() {
            price["variants"] =
                self.variants.iter().map(|variant| variant_json(&variant.when, variant.rate, markup)).collect();
        }
        if !self.extras.is_empty() {
            let extra = |extra: &super::price::Extra| json!({ "when": conditions(&extra.when), "unit": "image", "price": amount(extra.amount, markup) });
            price["extras"] = self.extras.iter().map(extra).collect();
        }
        price
    }
}

fn variant_json(when: &[Condition], rate: Rate, markup: Fixed) -> Json {
    let mut variant = json!({ "when": conditions(when), "price": amount(rate.amount, markup) });
    if let Some(first) = rate.first {
        variant["first_unit_price"] = amount(first, markup);
    }
    variant
}

fn conditions(when: &[Condition]) -> Json {
    when.iter()
        .map(|condition| {
            let values: Json = condition.any_of.iter().map(super::value::Value::to_json).collect();
            (condition.parameter.as_ref().to_owned(), values)
        })
        .collect::<Map<_, _>>()
        .into()
}

/// A decimal string; an amount that the markup lifts out of range is not shown.
fn amount(amount: Money, markup: Fixed) -> Json {
    amount.times(markup).map_or(Json::Null, |amount| Json::from(amount.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        // A pattern is digits, classes `[a-b]` and `[0-9]`, each for one character.
        let mut rest = pattern;
        for letter in text.chars() {
            let (low, high, after) = match rest.strip_prefix('[') {
                Some(class) => {
                    let mut letters = class.chars();
                    let (low, _, high) = (letters.next(), letters.next(), letters.next());
                    (low, high, class.split_once(']').map_or("", |(_, after)| after))
                }
                None => (rest.chars().next(), rest.chars().next(), rest.get(1..).unwrap_or_default()),
            };
            if !(low <= Some(letter) && Some(letter) <= high) {
                return false;
            }
            rest = after;
        }
        rest.is_empty()
    }

    #[test]
    fn a_range_of_numbers_is_matched_exactly() {
        for (least, most) in [(1, 14142), (64, 1536), (9, 101), (7, 7), (256, 1440), (1, 1), (99, 1000)] {
            let patterns = ranges(least, most);
            for number in 0..20_000 {
                let text = u32::to_string(&number);
                let matched = patterns.iter().any(|pattern| matches(pattern, &text));
                assert_eq!(matched, (least..=most).contains(&number), "{number} in {least}..={most}: {patterns:?}");
            }
        }
    }
}
