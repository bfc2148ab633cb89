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

/// How far one ratio is from another: the larger over the smaller, as a fraction. 1 where they are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch(u128, u128);

impl Stretch {
    fn new((width, height): (u32, u32), (across, down): (u32, u32)) -> Self {
        let one = u128::from(width) * u128::from(down);
        let other = u128::from(height) * u128::from(across);
        Self(one.max(other), one.min(other))
    }

    /// The same and one part in [`TOLERANCE`] more.
    fn and_tolerance(self) -> Self {
        let more = u128::from(TOLERANCE) + 1;
        Self(self.0.saturating_mul(more), self.1.saturating_mul(TOLERANCE.into()))
    }
}

impl Ord for Stretch {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.saturating_mul(other.1).cmp(&other.0.saturating_mul(self.1))
    }
}

impl PartialOrd for Stretch {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Ratios that differ by at most one part in 32 count as the same: rounding a side of 512 or more pixels to a multiple of 32,
/// the coarsest rule that models have, changes a ratio by so much. A finer comparison would take 520x513 for a multiple of
/// nine times its area, since that has its ratio more exactly.
const TOLERANCE: u32 = 32;

/// The size that the rule allows which comes nearest. Of those whose ratio is the best, but for [`TOLERANCE`], the one whose
/// area is nearest; of those with at most so much less area than that, the one with the best ratio. So a size is never larger,
/// and dearer, for its ratio's sake.
pub(super) fn nearest_size(rule: &SizeRule, ratio: (u32, u32), area: u64) -> Option<OrderedSize> {
    let stretch = |size: Size| Stretch::new((size.width, size.height), ratio);
    let sized = |preset: &Preset| preset.size;
    let exact = |width: u32| pixels_of(u128::from(width) * u128::from(ratio.1) / u128::from(ratio.0.max(1)));
    let presets = || rule.presets.iter().filter_map(sized);
    let customs = || rule.custom.iter();

    let by_ratio = customs().flat_map(|custom| sizes_near(custom, exact));
    let worst = by_ratio.chain(presets()).map(stretch).min()?.and_tolerance();
    let by_area = customs().flat_map(|custom| {
        sizes_near(custom, move |width| {
            // Between the heights that are as flat and as tall as the tolerance allows.
            let product = u128::from(width) * u128::from(ratio.1);
            let least =
                product.saturating_mul(worst.1).div_ceil(u128::from(ratio.0.max(1)).saturating_mul(worst.0).max(1));
            let most = product.saturating_mul(worst.0) / u128::from(ratio.0.max(1)).saturating_mul(worst.1).max(1);
            let wanted = u128::from(area / u64::from(width.max(1)));
            pixels_of(wanted.clamp(least.min(most), most))
        })
    });
    let by_area = by_area.chain(presets()).filter(|size| stretch(*size) <= worst);
    let by_area = by_area.min_by_key(|size| (size.pixels().abs_diff(area), size.pixels()))?;

    let most = by_area.pixels();
    let least = most - most / u64::from(TOLERANCE);
    let about = customs().flat_map(|custom| {
        let minimum_pixels = Some(custom.minimum_pixels.unwrap_or(0).max(least));
        let maximum_pixels = Some(custom.maximum_pixels.unwrap_or(u64::MAX).min(most));
        sizes_near(&CustomSize { minimum_pixels, maximum_pixels, ..custom.clone() }, exact).collect::<Vec<_>>()
    });
    let about = about.chain(presets()).chain([by_area]).filter(|size| (least..=most).contains(&size.pixels()));
    let size = about.min_by_key(|size| (stretch(*size), size.pixels().abs_diff(area)))?;
    // In pixels, where a name has the same ones.
    let is_custom = customs().any(|custom| is_allowed(custom, size));
    let preset = rule.presets.iter().find(|preset| !is_custom && preset.size == Some(size));
    Some(OrderedSize { preset: preset.map(|preset| Arc::clone(&preset.name)), size: Some(size) })
}

fn pixels_of(pixels: u128) -> u32 {
    u32::try_from(pixels).unwrap_or(u32::MAX)
}

/// For each width within the limits, the allowed heights next to the wanted one.
fn sizes_near(custom: &CustomSize, wanted: impl Fn(u32) -> u32) -> impl Iterator<Item = Size> {
    let step = custom.multiple_of.max(1);
    let first = custom.minimum.max(1).div_ceil(step);
    (first..=custom.maximum / step)
        .flat_map(move |times| {
            let width = times * step;
            let within = |pixels: u64| u32::try_from(pixels).unwrap_or(u32::MAX);
            let least = custom.minimum_pixels.map_or(0, |least| within(least.div_ceil(u64::from(width))));
            let most = custom.maximum_pixels.map_or(u32::MAX, |most| within(most / u64::from(width)));
            let least = least.max(custom.minimum).max(1).div_ceil(step);
            let most = most.min(custom.maximum) / step;
            let below = wanted(width) / step;
            let heights =
                (least <= most).then(|| [below.clamp(least, most), below.saturating_add(1).clamp(least, most)]);
            heights.into_iter().flatten().map(move |times| Size { width, height: times * step })
        })
        .filter(|size| is_allowed(custom, *size))
}

/// The option whose ratio is nearest; the first of several.
pub(super) fn nearest_ratio(options: &[AspectRatio], wanted: (u32, u32)) -> Option<&AspectRatio> {
    let ratios = options.iter().filter_map(|option| Some((Stretch::new(option.ratio?, wanted), option)));
    ratios.min_by_key(|(stretch, _)| *stretch).map(|(_, option)| option)
}

/// A JSON number as text or number of the client's, for what was changed.
pub(super) fn as_sent(json: Option<&Json<'_>>) -> serde_json::Value {
    match json {
        Some(Json::Number(number)) => value::json_number(*number),
        Some(Json::String(text)) => text.as_ref().into(),
        _ => serde_json::Value::Null,
    }
}
