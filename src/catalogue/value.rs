//! A parameter's value after validation: typed, in range, in our names.

use std::sync::Arc;

use serde_json::{Map, Value as JsonValue};

use super::json::Number;
use super::size::Size;

/// A valid value of one parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text, an image's URL or data URI.
    Text(Arc<str>),
    /// A whole number.
    Integer(i64),
    /// A seed: a whole number of 64 bits, which JavaScript clients cannot hold exactly but others can.
    Seed(u64),
    /// A number; always finite.
    Number(f64),
    /// Yes or no.
    Boolean(bool),
    /// One of the model's options, as the model file spells it.
    Choice(Arc<str>),
    /// An image size.
    Size(OrderedSize),
    /// A list.
    List(Vec<Value>),
    /// An object: field names as in the model file, in its order, defaults explicit, fields not given left out.
    Object(Vec<(Arc<str>, Value)>),
}

/// A size as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderedSize {
    /// The preset's name, if one was asked for.
    pub preset: Option<Arc<str>>,
    /// The pixels; `None` for presets that leave them to the model (`auto_2K`).
    pub size: Option<Size>,
}

impl OrderedSize {
    /// Whether both ask for the same image, however they say it.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        match (self.size, other.size) {
            (Some(one), Some(another)) => one == another,
            _ => self.preset == other.preset && self.size == other.size,
        }
    }
}

impl Value {
    /// Whether both mean the same.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Size(one), Self::Size(another)) => one.same_as(another),
            _ => self == other,
        }
    }

    /// As JSON, in our names. Integral numbers are written as integers, so that `7` and `7.0` are one value.
    #[must_use]
    pub fn to_json(&self) -> JsonValue {
        match self {
            Self::Text(text) | Self::Choice(text) => JsonValue::from(text.as_ref()),
            Self::Integer(value) => JsonValue::from(*value),
            Self::Seed(value) => JsonValue::from(*value),
            Self::Number(value) => number(*value),
            Self::Boolean(value) => JsonValue::from(*value),
            Self::Size(size) => size_to_json(size),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
            Self::Object(fields) => {
                let fields = fields.iter().map(|(name, value)| (name.as_ref().to_owned(), value.to_json()));
                JsonValue::Object(fields.collect())
            }
        }
    }
}

/// A preset by its name, any other size as `{width, height}`.
fn size_to_json(size: &OrderedSize) -> JsonValue {
    match (&size.preset, size.size) {
        (Some(preset), _) => JsonValue::from(preset.as_ref()),
        (None, Some(size)) => {
            let mut sides = Map::new();
            sides.insert("width".to_owned(), size.width.into());
            sides.insert("height".to_owned(), size.height.into());
            JsonValue::Object(sides)
        }
        (None, None) => JsonValue::Null,
    }
}

/// Floats hold every integer up to this exactly: 2⁵³.
pub(super) const EXACT_IN_FLOAT: f64 = 9_007_199_254_740_992.0;

/// A finite number as JSON, as an integer if it is integral.
pub(super) fn number(value: f64) -> JsonValue {
    whole(value).map_or_else(|| JsonValue::from(value), JsonValue::from)
}

/// A client's number as JSON.
pub(super) fn json_number(number: Number) -> JsonValue {
    match number {
        Number::Float(value) => self::number(value),
        Number::Integer(value) => match (i64::try_from(value), u64::try_from(value)) {
            (Ok(value), _) => value.into(),
            (_, Ok(value)) => value.into(),
            _ => JsonValue::from(value.to_string()),
        },
    }
}

/// The integer that this float exactly is; `None` for fractions and for what a float may have rounded.
#[expect(clippy::cast_possible_truncation, reason = "checked: integral and within 2^53")]
pub(super) fn whole(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && value.abs() <= EXACT_IN_FLOAT).then_some(value as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integral_numbers_are_written_as_integers() {
        assert_eq!(Value::Number(7.0).to_json().to_string(), "7");
        assert_eq!(Value::Number(-0.0).to_json().to_string(), "0");
        assert_eq!(Value::Number(3.5).to_json().to_string(), "3.5");
        assert_eq!(Value::Seed(u64::MAX).to_json().to_string(), "18446744073709551615");
    }

    #[test]
    fn a_preset_and_its_pixels_are_the_same_size() {
        let size = Some(Size { width: 1024, height: 768 });
        let preset = OrderedSize { preset: Some(Arc::from("landscape_4_3")), size };
        assert!(preset.same_as(&OrderedSize { preset: None, size }));
        let auto = |name: &str| OrderedSize { preset: Some(Arc::from(name)), size: None };
        assert!(!auto("auto_2K").same_as(&auto("auto_4K")));
        assert!(!auto("auto_2K").same_as(&preset));
    }
}
