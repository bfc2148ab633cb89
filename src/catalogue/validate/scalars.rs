//! Texts, numbers, choices and input images.

use std::sync::Arc;

use serde_json::{Number as JsonNumber, Value as JsonValue};
use url::Url;

use super::super::json::{Json, Number};
use super::super::problem::Code;
use super::super::rules::{ChoiceRule, IntegerRule, NumberRule, SeedRule, TextFormat, TextRule};
use super::super::value::{self, EXACT_IN_FLOAT, Value};
use super::findings::Findings;

pub(super) fn text(rule: &TextRule, json: &Json<'_>, findings: &mut Findings<'_>) -> Option<Value> {
    let text = plain_text(json, findings)?;
    // A text has at most as many characters as bytes, so most need not be counted.
    let length = if text.len() > rule.max_length || text.len() < rule.min_length.saturating_mul(4) {
        text.chars().count()
    } else {
        rule.min_length
    };
    if length < rule.min_length {
        findings.too_small("string", rule.min_length, None);
        return None;
    }
    if length > rule.max_length {
        findings.too_big("string", rule.max_length, None);
        return None;
    }
    let wanted = match rule.format {
        Some(TextFormat::Uuid) if uuid::Uuid::try_parse(text).is_err() => Some("be a UUID".to_owned()),
        Some(TextFormat::Uri) if Url::parse(text).is_err() => Some("be a URL such as `https://example.com`".to_owned()),
        _ => {
            let pattern = rule.pattern.as_ref().filter(|pattern| !pattern.is_match(text));
            pattern.map(|pattern| format!("match `{}`", pattern.as_str()))
        }
    };
    if let Some(wanted) = wanted {
        findings.note(Code::InvalidString, format!("{} must {wanted}", findings.here()));
        return None;
    }
    Some(Value::Text(Arc::from(text)))
}

/// A text that a database can hold: PostgreSQL's has no U+0000.
pub(super) fn plain_text<'j>(json: &'j Json<'_>, findings: &mut Findings<'_>) -> Option<&'j str> {
    let Json::String(text) = json else {
        findings.wrong_type("string", json);
        return None;
    };
    if text.contains('\0') {
        findings.note(Code::InvalidString, format!("{} must not contain the character U+0000", findings.here()));
        return None;
    }
    Some(text)
}

/// Whether a character shows nothing: white space, a control, one of Unicode's `Default_Ignorable_Code_Point`, or the blank
/// pattern of Braille.
pub(super) fn shows_nothing(letter: char) -> bool {
    letter.is_whitespace()
        || letter.is_control()
        || matches!(letter,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

pub(super) fn boolean(json: &Json<'_>, findings: &mut Findings<'_>) -> Option<bool> {
    if let Json::Bool(value) = json {
        return Some(*value);
    }
    findings.wrong_type("boolean", json);
    None
}

pub(super) fn integer(rule: &IntegerRule, json: &Json<'_>, findings: &mut Findings<'_>) -> Option<Value> {
    let value = whole_between(rule.minimum.into(), rule.maximum.into(), json, findings)?;
    let value = i64::try_from(value).ok()?;
    if !rule.options.is_empty() && !rule.options.contains(&value) {
        not_a_listed_number(&value.into(), rule.options.iter().map(|option| (*option).into()), findings);
        return None;
    }
    if value % rule.multiple_of != 0 {
        // The multiple below, or the first that is allowed.
        let below = value.div_euclid(rule.multiple_of) * rule.multiple_of;
        let near = if below < rule.minimum { below + rule.multiple_of } else { below };
        findings.not_a_multiple(rule.multiple_of, Some(near.into()));
        return None;
    }
    Some(Value::Integer(value))
}

pub(super) fn seed(rule: &SeedRule, json: &Json<'_>, findings: &mut Findings<'_>) -> Option<Value> {
    let value = whole_between(rule.minimum.into(), rule.maximum.into(), json, findings)?;
    u64::try_from(value).ok().map(Value::Seed)
}

/// What a JSON number is as a whole number.
pub(super) enum Whole {
    /// Exactly this.
    Exact(i128),
    /// A float of 2⁵³ or more, which may have been rounded on its way (2⁵³ itself may have been 2⁵³ + 1); the ends of the range for what is beyond it.
    Rounded(i128),
    /// None: it has a fraction, and this is the nearest.
    Fraction(i128),
}

/// `None` for what is no number.
pub(super) fn whole(json: &Json<'_>) -> Option<Whole> {
    match json {
        Json::Number(Number::Integer(value)) => Some(Whole::Exact(*value)),
        Json::Number(Number::Float(value)) if value.fract() != 0.0 => Some(Whole::Fraction(truncate(value.round()))),
        Json::Number(Number::Float(value)) if value.abs() < EXACT_IN_FLOAT => Some(Whole::Exact(truncate(*value))),
        Json::Number(Number::Float(value)) => Some(Whole::Rounded(truncate(*value))),
        _ => None,
    }
}

/// A float's whole part; the ends of the range for what is beyond it.
#[expect(clippy::cast_possible_truncation, reason = "saturates, which is what is wanted")]
fn truncate(value: f64) -> i128 {
    value as i128
}

/// A whole number within limits, exact.
pub(super) fn whole_between(
    minimum: i128,
    maximum: i128,
    json: &Json<'_>,
    findings: &mut Findings<'_>,
) -> Option<i128> {
    let (value, exact) = match whole(json) {
        None => {
            findings.wrong_type("integer", json);
            return None;
        }
        Some(Whole::Fraction(near)) => {
            findings.wrong_type_with("integer", "float", Some(limit(near.clamp(minimum, maximum)).into()));
            return None;
        }
        Some(Whole::Exact(value)) => (value, true),
        Some(Whole::Rounded(value)) => (value, false),
    };
    if value < minimum {
        findings.too_small("number", limit(minimum), Some(limit(minimum).into()));
        return None;
    }
    if value > maximum {
        findings.too_big("number", limit(maximum), Some(limit(maximum).into()));
        return None;
    }
    if !exact {
        let message = format!(
            "{} must be written without point and exponent: so large a number may have been rounded",
            findings.here()
        );
        findings.note_with(Code::InvalidType, message, |problem| {
            problem.expected = Some("integer");
            problem.received = Some("float".to_owned());
        });
        return None;
    }
    Some(value)
}

/// A limit as JSON: all limits are within 64 bits.
fn limit(value: i128) -> JsonNumber {
    match i64::try_from(value) {
        Ok(value) => value.into(),
        Err(_) => u64::try_from(value).unwrap_or(u64::MAX).into(),
    }
}

pub(super) fn number(rule: &NumberRule, json: &Json<'_>, findings: &mut Findings<'_>) -> Option<Value> {
    let Json::Number(number) = json else {
        findings.wrong_type("number", json);
        return None;
    };
    let value = match *number {
        Number::Float(value) => value,
        Number::Integer(value) => float(value),
    };
    // Adding zero turns -0 into 0, so that the two are one value.
    let value = value + 0.0;
    if let Some(minimum) = rule.minimum.filter(|minimum| value < *minimum) {
        let minimum = value::number(minimum);
        findings.too_small("number", as_number(&minimum), Some(minimum));
        return None;
    }
    if let Some(maximum) = rule.maximum.filter(|maximum| value > *maximum) {
        let maximum = value::number(maximum);
        findings.too_big("number", as_number(&maximum), Some(maximum));
        return None;
    }
    if let Some(limit) = rule.exclusive_minimum.filter(|limit| value <= *limit) {
        findings.not_above(as_number(&value::number(limit)));
        return None;
    }
    if let Some(limit) = rule.exclusive_maximum.filter(|limit| value >= *limit) {
        findings.not_below(as_number(&value::number(limit)));
        return None;
    }
    if !rule.options.is_empty() && !rule.options.contains(&value) {
        let options = rule.options.iter().map(|option| value::number(*option));
        not_a_listed_number(&value::number(value), options, findings);
        return None;
    }
    if let Some(step) = rule.multiple_of.filter(|step| !is_multiple(value, *step)) {
        findings.not_a_multiple(as_number(&value::number(step)), None);
        return None;
    }
    Some(Value::Number(value))
}

/// Whether a number is a multiple of another, as closely as floats can tell: fal's own checks allow the same billionth.
fn is_multiple(value: f64, step: f64) -> bool {
    let rest = (value % step).abs();
    let allowed = value.abs() / 1e9;
    rest <= allowed || (rest - step).abs() <= allowed
}

fn not_a_listed_number(received: &JsonValue, options: impl Iterator<Item = JsonValue>, findings: &mut Findings<'_>) {
    let options: Vec<String> = options.map(|option| option.to_string()).collect();
    findings.not_an_option(&received.to_string(), options.iter().map(String::as_str), "");
}

fn as_number(json: &JsonValue) -> JsonNumber {
    json.as_number().cloned().unwrap_or_else(|| JsonNumber::from(0))
}

#[expect(clippy::cast_precision_loss, reason = "the parameter is a float")]
fn float(value: i128) -> f64 {
    value as f64
}

pub(super) fn choice(rule: &ChoiceRule, json: &Json<'_>, findings: &mut Findings<'_>) -> Option<Value> {
    let Json::String(text) = json else {
        findings.wrong_type("string", json);
        return None;
    };
    let option = rule.options.iter().find(|option| ***option == **text);
    if option.is_none() {
        findings.not_an_option(text, rule.options.iter().map(AsRef::as_ref), "");
    }
    option.map(|option| Value::Choice(Arc::clone(option)))
}

pub(super) fn image(json: &Json<'_>, findings: &mut Findings<'_>) -> Option<Value> {
    let text = plain_text(json, findings)?;
    if is_data_uri(text) || is_web_url(text) {
        return Some(Value::Text(Arc::from(text)));
    }
    let message = format!("{} must be an `http(s)` URL or a data URI (`data:image/png;base64,…`)", findings.here());
    findings.note(Code::InvalidString, message);
    None
}

/// `data:`, a media type, `;base64,` and at least one character of base64 and nothing else.
fn is_data_uri(text: &str) -> bool {
    let Some((head, data)) = text.strip_prefix("data:").and_then(|rest| rest.split_once(',')) else { return false };
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=');
    head.ends_with(";base64") && !data.is_empty() && data.bytes().all(base64)
}

/// An `http(s)` URL with a host.
pub(super) fn is_web_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}
