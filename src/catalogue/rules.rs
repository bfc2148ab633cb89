//! The kinds of parameter that a model file may choose among, and the rule that each carries.

use std::sync::Arc;

use super::model::Parameter;
use super::size::Size;

/// What values a parameter takes.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A text.
    Text(TextRule),
    /// A whole number.
    Integer(IntegerRule),
    /// A 64-bit seed.
    Seed(SeedRule),
    /// A number with or without fraction.
    Number(NumberRule),
    /// Yes or no.
    Boolean,
    /// One of a list of texts.
    Choice(ChoiceRule),
    /// An image size: preset, `{width, height}`, `"WxH"`, or `width` and `height` beside each other.
    Size(SizeRule),
    /// An aspect ratio; a size is taken too if it is exactly one of the ratios.
    AspectRatio(AspectRatioRule),
    /// An input image: an `http(s)` URL or a base64 data URI.
    Image,
    /// A list of values of one kind.
    List(ListRule),
    /// An object with fields of its own.
    Object(ObjectRule),
}

impl Kind {
    /// The name that model files use for this kind.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "integer",
            Self::Seed(_) => "seed",
            Self::Number(_) => "number",
            Self::Boolean => "boolean",
            Self::Choice(_) => "choice",
            Self::Size(_) => "size",
            Self::AspectRatio(_) => "aspect_ratio",
            Self::Image => "image",
            Self::List(_) => "list",
            Self::Object(_) => "object",
        }
    }
}

/// Limits of a text, counted in Unicode code points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextRule {
    /// Fewest code points.
    pub min_length: usize,
    /// Most code points.
    pub max_length: usize,
    /// A form that the text must have.
    pub format: Option<TextFormat>,
    /// An expression that must be found in the text.
    pub pattern: Option<TextPattern>,
}

/// A regular expression, in the language that fal's own checks are written in.
#[derive(Debug, Clone)]
pub struct TextPattern(regex::Regex);

impl TextPattern {
    /// Reads an expression; the error is the reason in one line.
    pub(super) fn new(expression: &str) -> Result<Self, String> {
        regex::Regex::new(expression).map(Self).map_err(|error| match error {
            regex::Error::Syntax(reason) => reason.lines().last().unwrap_or_default().trim().to_owned(),
            other => other.to_string(),
        })
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether it is found anywhere in the text.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl PartialEq for TextPattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for TextPattern {}

/// Forms of text that are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextFormat {
    /// A UUID, hyphenated.
    Uuid,
    /// An absolute URL.
    Uri,
}

/// Limits of a whole number, both allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntegerRule {
    /// Least.
    pub minimum: i64,
    /// Most.
    pub maximum: i64,
    /// It is a multiple of this; at least 1.
    pub multiple_of: i64,
    /// The only values allowed; any within the limits if empty.
    pub options: Vec<i64>,
}

/// Limits of a seed, both allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedRule {
    /// Least.
    pub minimum: u64,
    /// Most.
    pub maximum: u64,
}

/// Limits of a number; none where no source states one.
#[derive(Debug, Clone, PartialEq)]
pub struct NumberRule {
    /// Least, itself allowed.
    pub minimum: Option<f64>,
    /// Most, itself allowed.
    pub maximum: Option<f64>,
    /// It is above this.
    pub exclusive_minimum: Option<f64>,
    /// It is below this.
    pub exclusive_maximum: Option<f64>,
    /// It is a multiple of this, which is above 0.
    pub multiple_of: Option<f64>,
    /// The only values allowed; any within the limits if empty.
    pub options: Vec<f64>,
}

/// The texts to choose from; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChoiceRule {
    /// As the provider spells them.
    pub options: Vec<Arc<str>>,
}

/// Which sizes a model takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizeRule {
    /// Named sizes, in the file's order.
    pub presets: Vec<Preset>,
    /// Limits of sizes given in pixels; `None` if only presets are taken.
    pub custom: Option<CustomSize>,
}

/// A named size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preset {
    /// Such as `landscape_4_3`.
    pub name: Arc<str>,
    /// Its pixels; `None` if the model decides.
    pub size: Option<Size>,
}

/// Limits of each side of a size given in pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomSize {
    /// Least pixels of a side.
    pub minimum: u32,
    /// Most pixels of a side.
    pub maximum: u32,
    /// Each side is a multiple of this.
    pub multiple_of: u32,
    /// The size whose side is taken where one is missing; `None` if both must be given.
    pub missing_side: Option<Size>,
    /// Least pixels altogether.
    pub minimum_pixels: Option<u64>,
    /// Most pixels altogether.
    pub maximum_pixels: Option<u64>,
}

/// Which aspect ratios a model takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AspectRatioRule {
    /// In the file's order; never empty.
    pub options: Vec<AspectRatio>,
    /// Named sizes that are taken for the ratio they have.
    pub presets: Vec<Preset>,
}

/// One ratio, such as `16:9`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AspectRatio {
    /// As the provider spells it.
    pub name: Arc<str>,
    /// Across and down, in hundredths; `None` for words such as `auto`.
    pub ratio: Option<(u32, u32)>,
}

/// Limits of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct ListRule {
    /// What each item must be.
    pub items: Box<Kind>,
    /// Fewest items.
    pub min_items: usize,
    /// Most items.
    pub max_items: usize,
    /// Whether a single item may be given without the brackets.
    pub accepts_single: bool,
}

/// The fields of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectRule {
    /// In the file's order.
    pub fields: Vec<Parameter>,
}
