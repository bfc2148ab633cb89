//! The form of a model file: its fields as they stand in TOML.

use serde::Deserialize;
use toml::{Spanned, Table, Value};

use super::super::model::{Role, Send, Status};
use super::super::price::{Rounding, Unit};
use super::super::rules::TextFormat;
use crate::domain::{Fixed, Money};

/// A whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelForm {
    pub(super) id: Spanned<String>,
    #[serde(default)]
    pub(super) aliases: Vec<Spanned<String>>,
    pub(super) name: String,
    pub(super) developer: String,
    pub(super) description: String,
    pub(super) docs_url: Option<String>,
    pub(super) status: Spanned<Status>,
    pub(super) replaced_by: Option<String>,
    pub(super) provider: String,
    pub(super) endpoint: Spanned<String>,
    pub(super) several: Option<Spanned<SeveralForm>>,
    #[serde(default)]
    pub(super) fallbacks: Vec<String>,
    pub(super) deadline_seconds: Option<u32>,
    #[serde(default)]
    pub(super) streams: bool,
    pub(super) sources: Vec<String>,
    #[serde(default)]
    pub(super) inferred: Vec<String>,
    #[serde(default)]
    pub(super) notes: Vec<String>,
    pub(super) price: Option<Spanned<PriceForm>>,
    pub(super) output: OutputForm,
    #[serde(default)]
    pub(super) conflicts: Vec<Spanned<ConflictForm>>,
    pub(super) parameters: Vec<Spanned<ParameterForm>>,
    #[serde(default)]
    pub(super) examples: Vec<ExampleForm>,
}

/// `[several]`: where the provider has an endpoint of its own for several input images.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SeveralForm {
    pub(super) parameter: String,
    pub(super) endpoint: Spanned<String>,
    pub(super) provider_name: String,
}

/// `[output]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutputForm {
    pub(super) fields: Vec<String>,
    pub(super) image_fields: Vec<String>,
    pub(super) content_types: Vec<String>,
    #[serde(default)]
    pub(super) gpt_image: bool,
}

/// `[[conflicts]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConflictForm {
    pub(super) when: Table,
    pub(super) remedy: String,
}

/// `[[examples]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExampleForm {
    pub(super) title: String,
    pub(super) request: Spanned<String>,
}

/// `[price]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PriceForm {
    pub(super) per: Unit,
    pub(super) amount: Spanned<Money>,
    pub(super) first_amount: Option<Spanned<Money>>,
    pub(super) rounding: Option<Rounding>,
    pub(super) megapixel: Option<u64>,
    pub(super) unsized_megapixels: Option<Fixed>,
    #[serde(default)]
    pub(super) variants: Vec<Spanned<VariantForm>>,
    #[serde(default)]
    pub(super) extras: Vec<Spanned<ExtraForm>>,
    pub(super) input_image: Option<Spanned<Money>>,
    pub(super) input_image_megapixels: Option<Spanned<Fixed>>,
    pub(super) as_of: Spanned<String>,
    pub(super) source: String,
}

/// `[[price.variants]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VariantForm {
    pub(super) when: Table,
    pub(super) amount: Spanned<Money>,
    pub(super) first_amount: Option<Spanned<Money>>,
}

/// `[[price.extras]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExtraForm {
    pub(super) when: Table,
    pub(super) amount: Spanned<Money>,
}

/// `[[parameters]]`, and the fields and items in them. Which fields belong to which kind is checked afterwards, where
/// the message can name the place.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ParameterForm {
    pub(super) name: Option<Spanned<String>>,
    pub(super) kind: Spanned<KindName>,
    pub(super) provider_name: Option<String>,
    #[serde(default)]
    pub(super) accepts: Vec<String>,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) required: bool,
    #[serde(default)]
    pub(super) send: Send,
    pub(super) role: Option<Spanned<Role>>,
    pub(super) default: Option<Spanned<Value>>,
    #[serde(default)]
    pub(super) no_default_with: Vec<Spanned<String>>,

    // Texts
    pub(super) min_length: Option<Spanned<usize>>,
    pub(super) max_length: Option<Spanned<usize>>,
    pub(super) format: Option<Spanned<TextFormat>>,
    pub(super) pattern: Option<Spanned<String>>,
    // Numbers, and each side of a size
    pub(super) minimum: Option<Spanned<Value>>,
    pub(super) maximum: Option<Spanned<Value>>,
    pub(super) exclusive_minimum: Option<Spanned<Value>>,
    pub(super) exclusive_maximum: Option<Spanned<Value>>,
    pub(super) multiple_of: Option<Spanned<Value>>,
    // Choices and aspect ratios (texts), integers and numbers
    pub(super) options: Option<Spanned<Vec<Value>>>,
    // Sizes and aspect ratios
    pub(super) presets: Option<Spanned<Table>>,
    pub(super) missing_side: Option<Spanned<String>>,
    pub(super) minimum_pixels: Option<Spanned<u64>>,
    pub(super) maximum_pixels: Option<Spanned<u64>>,
    // Lists
    pub(super) items: Option<Spanned<Box<ParameterForm>>>,
    pub(super) min_items: Option<Spanned<usize>>,
    pub(super) max_items: Option<Spanned<usize>>,
    pub(super) accepts_single: Option<Spanned<bool>>,
    // Objects
    pub(super) fields: Option<Spanned<Vec<Spanned<ParameterForm>>>>,
}

/// The kinds by the names that files use.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum KindName {
    Text,
    Integer,
    Seed,
    Number,
    Boolean,
    Choice,
    Size,
    AspectRatio,
    Image,
    List,
    Object,
}
