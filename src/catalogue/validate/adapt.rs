//! What may be changed of a request so that it fits its model, where its client or operator has asked for that: each
//! function is called only where the value as it stands would be refused, and notes what it changes.

use std::cmp::Ordering;
use std::sync::Arc;

use super::super::json::{Json, parse};
use super::super::model::{Model, Parameter};
use super::super::rules::{AspectRatio, CustomSize, Kind, Preset, SizeRule};
use super::super::size::Size;
use super::super::value::{self, OrderedSize};
use super::findings::Findings;
use super::scalars::{Whole, whole};
use super::sizes::is_allowed;
use super::words::{self, Meaning};
use crate::domain::Adaptable;

/// A number as text that is longer than this is not read.
const LONGEST_NUMBER: usize = 40;

/// The number that a text stands for: `"7"`, `"3.5"`.
pub(super) fn number_in_text(json: &Json<'_>, findings: &mut Findings<'_>) -> Option<Json<'static>> {
    let Json::String(text) = json else { return None };
    if !findings.adapts(Adaptable::Numbers) || text.len() > LONGEST_NUMBER {
        return None;
    }
    let Ok(Json::Number(number)) = parse(text.trim().as_bytes()) else { return None };
    findings.adapt(text.as_ref(), value::json_number(number));
    Some(Json::Number(number))
}

/// Whether this is a seed of -1 for a parameter without default that does not allow it, or for a model without a seed: a
/// random one, which is what the model takes if none is sent.
pub(super) fn is_random_seed(
    parameter: Option<&Parameter>,
    name: &str,
    json: &Json<'_>,
    findings: &mut Findings<'_>,
) -> bool {
    if !findings.adapts(Adaptable::Seed) || words::meaning_of(name) != Some(Meaning::Seed) {
        return false;
    }
    let allows = match parameter.map(|parameter| &parameter.kind) {
        Some(Kind::Integer(rule)) => rule.minimum <= -1,
        Some(Kind::Seed(_)) | None => false,
        Some(_) => true,
    };
    if allows || parameter.is_some_and(|parameter| parameter.default.is_some() || parameter.required) {
        return false;
    }
    let is_text = findings.adapts(Adaptable::Numbers) && json.as_str().is_some_and(|text| text.trim() == "-1");
    let is_random = is_text || matches!(whole(json), Some(Whole::Exact(-1)));
    if is_random {
        findings.adapt(-1, "random");
    }
    is_random
}

/// The option that is nearest to an output format or a quality that the parameter does not have, and which of the two it is.
pub(super) fn nearest_option<'p>(parameter: &'p Parameter, text: &str) -> Option<(Adaptable, &'p Arc<str>)> {
    let Kind::Choice(rule) = &parameter.kind else { return None };
    let meaning = parameter.names().find_map(words::meaning_of)?;
    let options = || rule.options.iter();
    if options().any(|option| **option == *text) {
        return None;
    }
    match meaning {
        Meaning::OutputFormat => {
            let mut formats = nearest_format(text)?.iter();
            let near = formats.find_map(|format| options().find(|option| format_of(option) == *format))?;
            Some((Adaptable::OutputFormat, near))
        }
        Meaning::Quality => {
            let wanted = quality_rank(text)?;
            let ranked = options().filter_map(|option| Some((quality_rank(option)?, option)));
            // Of two that are as near, the lower one, which costs no more.
            let (_, near) = ranked.min_by_key(|(rank, _)| (rank.abs_diff(wanted), *rank))?;
            Some((Adaptable::Quality, near))
        }
        _ => None,
    }
}

/// Whether the format of all that a model makes, without a parameter for it, stands for the one that was asked for.
pub(super) fn is_made_anyway(model: &Model, text: &str, findings: &mut Findings<'_>) -> bool {
    let [only] = model.output.content_types.as_slice() else { return false };
    let Some(made) = only.strip_prefix("image/") else { return false };
    if !findings.adapts(Adaptable::OutputFormat) || nearest_format(text).is_none() {
        return false;
    }
    findings.adapt(text, made);
    true
}

/// A format in one spelling: `JPG` and `image/jpeg` are `jpeg`.
fn format_of(text: &str) -> String {
    let format = text.trim().to_ascii_lowercase();
    let format = format.strip_prefix("image/").unwrap_or(&format).trim_start_matches('.');
    match format {
        "jpg" | "jpe" | "jfif" => "jpeg".to_owned(),
        "tif" => "tiff".to_owned(),
        other => other.to_owned(),
    }
}

/// What comes nearest to a format, nearest first: lossless and transparent ones keep what they can. `None` for what is no
/// format of images.
fn nearest_format(text: &str) -> Option<&'static [&'static str]> {
    match format_of(text).as_str() {
        "jpeg" => Some(&["jpeg", "webp", "png"]),
        "webp" => Some(&["webp", "png", "jpeg"]),
        "png" | "gif" | "bmp" | "tiff" | "svg" => Some(&["png", "webp", "jpeg"]),
        "avif" | "heic" | "heif" | "jxl" => Some(&["webp", "jpeg", "png"]),
        _ => None,
    }
}

/// How good a word says that an image is to be.
fn quality_rank(word: &str) -> Option<u8> {
    match word.trim().to_ascii_lowercase().as_str() {
        "draft" | "fast" | "low" => Some(1),
        "basic" | "balanced" | "medium" | "normal" | "standard" => Some(2),
        "hd" | "high" => Some(3),
        "best" | "max" | "ultra" => Some(4),
        _ => None,
    }
}

/// The sizes of names that fal's models share, for models that do not have the name.
const KNOWN_SIZES: [(&str, Size); 6] = [
    ("square_hd", Size { width: 1024, height: 1024 }),
    ("square", Size { width: 512, height: 512 }),
    ("portrait_4_3", Size { width: 768, height: 1024 }),
    ("portrait_16_9", Size { width: 576, height: 1024 }),
    ("landscape_4_3", Size { width: 1024, height: 768 }),
    ("landscape_16_9", Size { width: 1024, height: 576 }),
];

/// The size of a name that other models have.
pub(super) fn known_size(name: &str) -> Option<Size> {
    KNOWN_SIZES.iter().find(|(known, _)| *known == name).map(|(_, size)| *size)
}

/// How far a size is from what was asked for: first by its ratio, then by its area, then by its price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Distance {
    /// The larger ratio over the smaller one, as a fraction: 1 where they are the same.
    ratio: (u128, u128),
    area: u64,
    pixels: u64,
}

impl Distance {
    fn new(size: Size, (across, down): (u32, u32), area: u64) -> Self {
        let one = u128::from(size.width) * u128::from(down);
        let other = u128::from(size.height) * u128::from(across);
        Self { ratio: (one.max(other), one.min(other)), area: size.pixels().abs_diff(area), pixels: size.pixels() }
    }
}

impl Ord for Distance {
    fn cmp(&self, other: &Self) -> Ordering {
        let ratio = (self.ratio.0 * other.ratio.1).cmp(&(other.ratio.0 * self.ratio.1));
        ratio.then(self.area.cmp(&other.area)).then(self.pixels.cmp(&other.pixels))
    }
}

impl PartialOrd for Distance {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The size that the rule allows whose ratio is nearest to this one, and of those the one whose area is.
pub(super) fn nearest_size(rule: &SizeRule, ratio: (u32, u32), area: u64) -> Option<OrderedSize> {
    let named =
        |preset: &Preset| Some(OrderedSize { preset: Some(Arc::clone(&preset.name)), size: Some(preset.size?) });
    let presets = rule.presets.iter().filter_map(named);
    let custom = rule.custom.iter().flat_map(|custom| sizes_near(custom, ratio));
    let custom = custom.map(|size| OrderedSize { preset: None, size: Some(size) });
    let distance = |ordered: &OrderedSize| ordered.size.map(|size| Distance::new(size, ratio, area));
    // In pixels, where a name has the same ones.
    custom.chain(presets).min_by_key(distance)
}

/// For each width within the limits, the heights whose ratio is nearest.
fn sizes_near(custom: &CustomSize, (across, down): (u32, u32)) -> impl Iterator<Item = Size> {
    let step = custom.multiple_of.max(1);
    let first = custom.minimum.max(1).div_ceil(step);
    (first..=custom.maximum / step)
        .flat_map(move |times| {
            let width = times * step;
            let exact = u64::from(width) * u64::from(down) / u64::from(across.max(1));
            let within = |pixels: u64| u32::try_from(pixels).unwrap_or(u32::MAX);
            let least = custom.minimum_pixels.map_or(0, |least| within(least.div_ceil(u64::from(width))));
            let most = custom.maximum_pixels.map_or(u32::MAX, |most| within(most / u64::from(width)));
            let least = least.max(custom.minimum).max(1).div_ceil(step);
            let most = most.min(custom.maximum) / step;
            let below = within(exact) / step;
            let heights =
                (least <= most).then(|| [below.clamp(least, most), below.saturating_add(1).clamp(least, most)]);
            heights.into_iter().flatten().map(move |times| Size { width, height: times * step })
        })
        .filter(|size| is_allowed(custom, *size))
}

/// The option whose ratio is nearest; the first of several.
pub(super) fn nearest_ratio(options: &[AspectRatio], (across, down): (u32, u32)) -> Option<&AspectRatio> {
    let distance = |ratio: (u32, u32)| Distance::new(Size { width: ratio.0, height: ratio.1 }, (across, down), 0).ratio;
    let ratios = options.iter().filter_map(|option| Some((distance(option.ratio?), option)));
    let nearer = |one: &(u128, u128), other: &(u128, u128)| (one.0 * other.1).cmp(&(other.0 * one.1));
    ratios.min_by(|(one, _), (other, _)| nearer(one, other)).map(|(_, option)| option)
}

/// A JSON number as text or number of the client's, for what was changed.
pub(super) fn as_sent(json: Option<&Json<'_>>) -> serde_json::Value {
    match json {
        Some(Json::Number(number)) => value::json_number(*number),
        Some(Json::String(text)) => text.as_ref().into(),
        _ => serde_json::Value::Null,
    }
}
