//! Sizes and aspect ratios, in each way that clients write them.

use std::sync::Arc;

use serde_json::Value as JsonValue;

use super::super::json::{Json, Object};
use super::super::problem::{Code, Problem};
use super::super::rules::{AspectRatioRule, CustomSize, Kind, Preset, SizeRule};
use super::super::size::Size;
use super::super::value::{OrderedSize, Value};
use super::adapt;
use super::findings::Findings;
use super::scalars::{Whole, whole};
use crate::domain::Adaptable;

/// Whether this says "as you like", which is the default.
pub(super) fn is_auto(kind: &Kind, json: &Json<'_>) -> bool {
    let is_word = |mut names: std::slice::Iter<'_, Preset>| !names.any(|preset| *preset.name == *"auto");
    json.as_str() == Some("auto")
        && match kind {
            Kind::Size(rule) => is_word(rule.presets.iter()),
            Kind::AspectRatio(rule) => !rule.options.iter().any(|option| *option.name == *"auto"),
            _ => false,
        }
}

/// Whether this is a size such as `{}` or `{"width": null, "height": ""}`, for a model whose sizes may lack a side: one that
/// lacks both asks for nothing.
pub(super) fn names_no_side(kind: &Kind, json: &Json<'_>) -> bool {
    let Kind::Size(rule) = kind else { return false };
    let may_lack = rule.custom.as_ref().is_some_and(|custom| custom.missing_side.is_some());
    let is_empty_side = |(key, value): (&str, &Json<'_>)| matches!(key, "width" | "height") && value.is_empty();
    may_lack && json.as_object().is_some_and(|object| object.distinct().all(is_empty_side))
}

pub(super) fn size<'j>(rule: &'j SizeRule, json: &'j Json<'_>, findings: &mut Findings<'j>) -> Option<Value> {
    let size = match json {
        Json::String(text) => size_from_text(rule, text, findings)?,
        Json::Object(object) if findings.adapts(Adaptable::Size) => {
            let (width, height) = sides_of(object, findings);
            adapted_sides(rule, width, height, findings)?
        }
        Json::Object(object) => size_from_object(rule.custom.as_ref(), object, findings)?,
        other => {
            findings.wrong_type("object", other);
            return None;
        }
    };
    Some(Value::Size(size))
}

fn size_from_text(rule: &SizeRule, text: &str, findings: &mut Findings<'_>) -> Option<OrderedSize> {
    if let Some(preset) = rule.presets.iter().find(|preset| *preset.name == *text) {
        return Some(OrderedSize { preset: Some(Arc::clone(&preset.name)), size: preset.size });
    }
    let size = text.parse::<Size>().ok();
    if findings.adapts(Adaptable::Size)
        && let Some(size) = size.or_else(|| adapt::known_size(text))
        && !rule.custom.as_ref().is_some_and(|custom| is_allowed(custom, size))
        && let Some(near) = adapt::nearest_size(rule, (size.width, size.height), size.pixels())
    {
        findings.adapt(text, name_of(&near));
        return Some(near);
    }
    if let (Some(custom), Some(size)) = (&rule.custom, size.or_else(|| known_size(findings, text))) {
        return size_in_limits(custom, size, findings).then_some(OrderedSize { preset: None, size: Some(size) });
    }
    let also = if rule.custom.is_some() { ", or a size such as `1024x768`" } else { "" };
    findings.not_an_option(text, rule.presets.iter().map(|preset| preset.name.as_ref()), also);
    None
}

/// The pixels of another model's name for a size, where that is taken for the nearest one.
fn known_size(findings: &Findings<'_>, text: &str) -> Option<Size> {
    if findings.adapts(Adaptable::Size) { adapt::known_size(text) } else { None }
}

/// A size by its name, or as `OpenAI` writes it.
fn name_of(size: &OrderedSize) -> String {
    match (&size.preset, size.size) {
        (Some(preset), _) => preset.as_ref().to_owned(),
        (None, Some(size)) => size.to_string(),
        (None, None) => String::new(),
    }
}

/// Whether a size is within all limits.
pub(super) fn is_allowed(custom: &CustomSize, size: Size) -> bool {
    [size.width, size.height].iter().all(|side| broken_limit(custom, i128::from(*side)).is_none())
        && broken_total(custom, size.pixels()).is_none()
}

/// Checks both sides of a size that was written as one text; the nearest value is such a text, too.
fn size_in_limits(custom: &CustomSize, size: Size, findings: &mut Findings<'_>) -> bool {
    let near =
        Size { width: nearest_side(custom, size.width.into()), height: nearest_side(custom, size.height.into()) };
    let near = JsonValue::from(near.to_string());
    let mut fits = true;
    for (name, side) in [("width", size.width), ("height", size.height)] {
        let Some((code, limit)) = broken_limit(custom, side.into()) else { continue };
        fits = false;
        let message = format!("the {name} of {} must be {}", findings.here(), limit_in_words(code, limit));
        let near = near.clone();
        findings.note_with(code, message, |problem| set_limit(problem, code, limit, near));
    }
    fits && fits_altogether(custom, size, findings)
}

/// The limit of the pixels altogether that this many break, if any.
fn broken_total(custom: &CustomSize, pixels: u64) -> Option<(Code, u64)> {
    match (custom.minimum_pixels, custom.maximum_pixels) {
        (Some(least), _) if pixels < least => Some((Code::TooSmall, least)),
        (_, Some(most)) if pixels > most => Some((Code::TooBig, most)),
        _ => None,
    }
}

/// Checks the pixels altogether, once each side is in its limits.
fn fits_altogether(custom: &CustomSize, size: Size, findings: &mut Findings<'_>) -> bool {
    let pixels = size.pixels();
    let Some((code, limit)) = broken_total(custom, pixels) else { return true };
    let bound = if code == Code::TooSmall { "at least" } else { "at most" };
    let message = format!("{} must have {bound} {limit} pixels altogether, and {size} has {pixels}", findings.here());
    findings.note_with(code, message, |problem| {
        problem.r#type = Some("number");
        problem.inclusive = Some(true);
        let bound = if code == Code::TooSmall { &mut problem.minimum } else { &mut problem.maximum };
        *bound = Some(limit.into());
    });
    false
}

fn size_from_object<'j>(
    custom: Option<&CustomSize>,
    object: &'j Object<'_>,
    findings: &mut Findings<'j>,
) -> Option<OrderedSize> {
    let (width, height) = sides_of(object, findings);
    let Some(custom) = custom else {
        findings.note(Code::Custom, format!("{} must be one of the named sizes", findings.here()));
        return None;
    };
    let size = both_sides(custom, width, height, findings)?;
    fits_altogether(custom, size, findings).then_some(OrderedSize { preset: None, size: Some(size) })
}

/// The sides of an object; any other field of it is unknown.
fn sides_of<'j>(object: &'j Object<'_>, findings: &mut Findings<'j>) -> (Option<&'j Json<'j>>, Option<&'j Json<'j>>) {
    let (mut width, mut height) = (None, None);
    for (key, json) in object.distinct() {
        match key {
            "width" => width = Some(json),
            "height" => height = Some(json),
            _ => findings.unknown(key, ["width", "height"].into_iter()),
        }
    }
    (width, height)
}

/// Both sides as they are, or the nearest size that the model has.
fn adapted_sides(
    rule: &SizeRule,
    width: Option<&Json<'_>>,
    height: Option<&Json<'_>>,
    findings: &mut Findings<'_>,
) -> Option<OrderedSize> {
    let missing_side = rule.custom.as_ref().and_then(|custom| custom.missing_side);
    let size = both_sides(&CustomSize { missing_side, ..ANY_SIZE }, width, height, findings)?;
    if rule.custom.as_ref().is_some_and(|custom| is_allowed(custom, size)) {
        return Some(OrderedSize { preset: None, size: Some(size) });
    }
    let near = adapt::nearest_size(rule, (size.width, size.height), size.pixels())?;
    let made = near.size?;
    for (name, json, was, is) in
        [("width", width, size.width, made.width), ("height", height, size.height, made.height)]
    {
        if was != is {
            findings.within(name, |findings| findings.adapt(adapt::as_sent(json), is));
        }
    }
    Some(near)
}

/// Both sides checked, the missing one as the file says.
fn both_sides(
    custom: &CustomSize,
    width: Option<&Json<'_>>,
    height: Option<&Json<'_>>,
    findings: &mut Findings<'_>,
) -> Option<Size> {
    let mut side = |name: &'static str, json: Option<&Json<'_>>, missing: Option<u32>| match json
        .filter(|json| !json.is_empty())
    {
        None => {
            if missing.is_none() {
                findings.missing(name, "integer");
            }
            missing
        }
        Some(json) => findings.within(name, |findings| one_side(custom, json, findings)),
    };
    let width = side("width", width, custom.missing_side.map(|size| size.width));
    let height = side("height", height, custom.missing_side.map(|size| size.height));
    Some(Size { width: width?, height: height? })
}

fn one_side(custom: &CustomSize, json: &Json<'_>, findings: &mut Findings<'_>) -> Option<u32> {
    let read = adapt::number_in_text(json, findings);
    let json = read.as_ref().unwrap_or(json);
    let pixels = match whole(json) {
        None => {
            findings.wrong_type("integer", json);
            return None;
        }
        Some(Whole::Fraction(near)) if findings.adapts(Adaptable::Size) && near >= 1 => {
            findings.adapt(adapt::as_sent(Some(json)), i64::try_from(near).unwrap_or(i64::MAX));
            near
        }
        Some(Whole::Fraction(near)) => {
            findings.wrong_type_with("integer", "float", Some(nearest_side(custom, near).into()));
            return None;
        }
        Some(Whole::Exact(pixels) | Whole::Rounded(pixels)) => pixels,
    };
    if let Some((code, limit)) = broken_limit(custom, pixels) {
        let message = format!("{} must be {}", findings.here(), limit_in_words(code, limit));
        let near = JsonValue::from(nearest_side(custom, pixels));
        findings.note_with(code, message, |problem| set_limit(problem, code, limit, near));
        return None;
    }
    u32::try_from(pixels).ok()
}

/// The limit that this many pixels break, if any.
fn broken_limit(custom: &CustomSize, pixels: i128) -> Option<(Code, u32)> {
    if pixels < custom.minimum.into() {
        Some((Code::TooSmall, custom.minimum))
    } else if pixels > custom.maximum.into() {
        Some((Code::TooBig, custom.maximum))
    } else if pixels % i128::from(custom.multiple_of.max(1)) != 0 {
        Some((Code::NotMultipleOf, custom.multiple_of))
    } else {
        None
    }
}

fn limit_in_words(code: Code, limit: u32) -> String {
    match code {
        Code::TooSmall => format!("at least {limit}"),
        Code::TooBig => format!("at most {limit}"),
        _ => format!("a multiple of {limit}"),
    }
}

fn set_limit(problem: &mut Problem, code: Code, limit: u32, near: JsonValue) {
    let limit = Some(limit.into());
    problem.r#type = Some("number");
    problem.nearest = Some(near);
    match code {
        Code::TooSmall => (problem.minimum, problem.inclusive) = (limit, Some(true)),
        Code::TooBig => (problem.maximum, problem.inclusive) = (limit, Some(true)),
        _ => problem.multiple_of = limit,
    }
}

/// The allowed side that is nearest to this many pixels.
fn nearest_side(custom: &CustomSize, pixels: i128) -> u32 {
    let step = custom.multiple_of.max(1);
    let (least, most) = (custom.minimum.div_ceil(step) * step, custom.maximum / step * step);
    let Ok(pixels) = u32::try_from(pixels.clamp(least.into(), most.into())) else { return least };
    let below = pixels - pixels % step;
    let above = below.saturating_add(step);
    if pixels - below <= above - pixels { below } else { above.min(most) }
}

/// `width` and `height` beside each other.
pub(super) fn sides<'j>(
    kind: &'j Kind,
    width: Option<&Json<'_>>,
    height: Option<&Json<'_>>,
    findings: &mut Findings<'j>,
) -> Option<Value> {
    match kind {
        Kind::Size(rule) if findings.adapts(Adaptable::Size) => {
            adapted_sides(rule, width, height, findings).map(Value::Size)
        }
        Kind::Size(SizeRule { custom: Some(custom), .. }) => {
            let size = both_sides(custom, width, height, findings)?;
            let fits = findings.within("width", |findings| fits_altogether(custom, size, findings));
            fits.then_some(Value::Size(OrderedSize { preset: None, size: Some(size) }))
        }
        Kind::Size(SizeRule { presets, custom: None }) => {
            let size = both_sides(&ANY_SIZE, width, height, findings)?;
            if let Some(preset) = presets.iter().find(|preset| preset.size == Some(size)) {
                return Some(Value::Size(OrderedSize { preset: Some(Arc::clone(&preset.name)), size: preset.size }));
            }
            let names = presets.iter().map(|preset| preset.name.as_ref());
            findings.within("width", |findings| findings.not_an_option(&size.to_string(), names, ""));
            None
        }
        Kind::AspectRatio(rule) => {
            let size = both_sides(&ANY_SIZE, width, height, findings)?;
            findings.within("width", |findings| ratio_of(rule, size, &size.to_string(), findings))
        }
        _ => None,
    }
}

/// Where a size only stands for something else, each side need only be a number of pixels, and none may be missing.
const ANY_SIZE: CustomSize = CustomSize {
    minimum: 1,
    maximum: 999_999_999,
    multiple_of: 1,
    missing_side: None,
    minimum_pixels: None,
    maximum_pixels: None,
};

pub(super) fn aspect_ratio<'j>(
    rule: &'j AspectRatioRule,
    json: &'j Json<'_>,
    findings: &mut Findings<'j>,
) -> Option<Value> {
    match json {
        Json::String(text) => {
            if let Some(option) = rule.options.iter().find(|option| *option.name == **text) {
                return Some(Value::Choice(Arc::clone(&option.name)));
            }
            let preset = rule.presets.iter().find(|preset| *preset.name == **text).and_then(|preset| preset.size);
            if let Some(size) = preset.or_else(|| text.parse().ok()) {
                return ratio_of(rule, size, text, findings);
            }
            if findings.adapts(Adaptable::Size)
                && let Some((width, height)) = ratio_in(text)
            {
                return ratio_of(rule, Size { width, height }, text, findings);
            }
            not_a_ratio(rule, text, findings);
            None
        }
        Json::Object(object) => {
            let OrderedSize { size, .. } = size_from_object(Some(&ANY_SIZE), object, findings)?;
            ratio_of(rule, size?, &size?.to_string(), findings)
        }
        other => {
            findings.wrong_type("string", other);
            None
        }
    }
}

/// The ratio that a size exactly has.
fn ratio_of(rule: &AspectRatioRule, size: Size, received: &str, findings: &mut Findings<'_>) -> Option<Value> {
    let fits = |ratio: Option<(u32, u32)>| ratio.is_some_and(|(across, down)| size.has_ratio(across, down));
    let adapts = findings.adapts(Adaptable::Size);
    let near = || adapt::nearest_ratio(&rule.options, (size.width, size.height)).filter(|_| adapts);
    let Some(option) = rule.options.iter().find(|option| fits(option.ratio)).or_else(near) else {
        not_a_ratio(rule, received, findings);
        return None;
    };
    // Only the ratio of these pixels counts.
    findings.adapt(received, option.name.as_ref());
    Some(Value::Choice(Arc::clone(&option.name)))
}

/// A size of exactly the ratio that a client asks for: the one that was given beside it if it has that ratio, a named size,
/// or the size in the model's limits that has about as many pixels as its usual one.
pub(super) fn size_of_ratio(
    rule: &SizeRule,
    json: &Json<'_>,
    given: Option<Size>,
    usual: Option<Size>,
    findings: &mut Findings<'_>,
) -> Option<Value> {
    let Json::String(text) = json else {
        findings.wrong_type("string", json);
        return None;
    };
    let named = rule.presets.iter().find(|preset| *preset.name == **text).and_then(|preset| preset.size);
    let Some((across, down)) = named.map(|size| (size.width, size.height)).or_else(|| ratio_in(text)) else {
        findings.note(Code::InvalidString, format!("{} must be an aspect ratio such as `16:9`", findings.here()));
        return None;
    };
    let usual = usual.map_or(1 << 20, Size::pixels);
    let distance = |size: Size| size.pixels().abs_diff(usual);
    if let Some(size) = given.filter(|size| size.has_ratio(across, down)) {
        return Some(Value::Size(OrderedSize { preset: None, size: Some(size) }));
    }
    let sizes = rule.presets.iter().filter_map(|preset| Some((preset, preset.size?)));
    let presets = sizes.filter(|(_, size)| size.has_ratio(across, down));
    if let Some((preset, size)) = presets.min_by_key(|(_, size)| distance(*size)) {
        return Some(Value::Size(OrderedSize { preset: Some(Arc::clone(&preset.name)), size: Some(size) }));
    }
    let custom = rule.custom.iter().flat_map(|custom| sizes_of_ratio(custom, across, down));
    if let Some(size) = custom.min_by_key(|size| distance(*size)) {
        return Some(Value::Size(OrderedSize { preset: None, size: Some(size) }));
    }
    if findings.adapts(Adaptable::Size)
        && let Some(near) = adapt::nearest_size(rule, (across, down), usual)
    {
        findings.adapt(text.as_ref(), name_of(&near));
        return Some(Value::Size(near));
    }
    let presets = rule.presets.iter().map(|preset| preset.name.as_ref());
    findings.not_an_option(text, presets, " or a ratio that a size in the model's limits has exactly");
    None
}

/// `16:9` in whole numbers of at most five digits, or a size.
fn ratio_in(text: &str) -> Option<(u32, u32)> {
    if let Ok(size) = text.parse::<Size>() {
        return Some((size.width, size.height));
    }
    let (across, down) = text.split_once([':', '/'])?;
    let number = |digits: &str| digits.trim().parse().ok().filter(|number| (1..=99_999).contains(number));
    Some((number(across)?, number(down)?))
}

/// Every size within the limits that has exactly this ratio.
fn sizes_of_ratio(custom: &CustomSize, across: u32, down: u32) -> impl Iterator<Item = Size> {
    let divisor = greatest_common_divisor(across, down);
    let (across, down) = (across / divisor, down / divisor);
    let most = custom.maximum / across.max(down);
    let sizes = (1..=most).map(move |times| Size { width: across * times, height: down * times });
    sizes.filter(|size| is_allowed(custom, *size))
}

fn greatest_common_divisor(one: u32, another: u32) -> u32 {
    if another == 0 { one } else { greatest_common_divisor(another, one % another) }
}

fn not_a_ratio(rule: &AspectRatioRule, received: &str, findings: &mut Findings<'_>) {
    let options = rule.options.iter().map(|option| option.name.as_ref());
    findings.not_an_option(received, options, ", or a size of exactly one of these ratios");
}
