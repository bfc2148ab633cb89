//! What OpenAI's answers say beside the images: size, quality, background, format and tokens.

use serde::Serialize;
use utoipa::ToSchema;

use super::answer::ImageView;
use crate::catalogue::Order;

/// What OpenAI's clients read beside the images of its GPT image models. What is not known is left out.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OpenAiFacts {
    /// Pixels of the images, as `WxH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "1024x1024")]
    size: Option<String>,
    /// The quality that was made, the model's default where none was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "high")]
    quality: Option<String>,
    /// `opaque` or `transparent`; left out where neither was asked for and the file does not show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "opaque")]
    background: Option<String>,
    /// The format of the images: `png`, `jpeg` or `webp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "png")]
    output_format: Option<String>,
    /// The tokens that were billed: none, since images are billed one by one. The price is in `meta.usage`.
    usage: ImageUsage,
}

impl OpenAiFacts {
    /// The facts of an order and the first of its images.
    pub(super) fn new(order: &Order, images: &[ImageView]) -> Self {
        let first = images.first();
        Self {
            size: first.and_then(|image| size_of(order, image)),
            quality: choice_of(order, "quality"),
            background: first.and_then(|image| background_of(order, image)),
            output_format: first.and_then(format_of),
            usage: ImageUsage::default(),
        }
    }
}

/// Billed tokens in OpenAI's shape. All are zero: images are billed one by one, and no provider tells their tokens.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub struct ImageUsage {
    /// Always zero.
    input_tokens: u32,
    /// Always zero.
    input_tokens_details: ImageTokens,
    /// Always zero.
    output_tokens: u32,
    /// Always zero.
    output_tokens_details: ImageTokens,
    /// Always zero.
    total_tokens: u32,
}

/// Billed tokens by what they stand for.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub struct ImageTokens {
    /// Always zero.
    image_tokens: u32,
    /// Always zero.
    text_tokens: u32,
}

/// An image's pixels as `WxH`: as delivered, else as ordered.
pub(super) fn size_of(order: &Order, image: &ImageView) -> Option<String> {
    match (image.width, image.height) {
        (Some(width), Some(height)) => Some(format!("{width}x{height}")),
        _ => order.size().map(|size| size.to_string()),
    }
}

/// An image's format, such as `png`.
pub(super) fn format_of(image: &ImageView) -> Option<String> {
    let kind = image.content_type.as_deref()?;
    Some(kind.strip_prefix("image/").unwrap_or(kind).to_owned())
}

/// The value of a parameter that is a choice; `None` where the model has none or may choose itself.
pub(super) fn choice_of(order: &Order, name: &str) -> Option<String> {
    let (_, value) = order.parameters().find(|(parameter, _)| &*parameter.name == name)?;
    value.to_json().as_str().filter(|choice| *choice != "auto").map(str::to_owned)
}

/// Whether an image's background is `opaque` or `transparent`: as ordered, else `opaque` where its file has no transparency.
pub(super) fn background_of(order: &Order, image: &ImageView) -> Option<String> {
    choice_of(order, "background").or_else(|| is_opaque(image).then(|| "opaque".to_owned()))
}

/// Whether an image's format or the header of its embedded file shows that no pixel is transparent.
fn is_opaque(image: &ImageView) -> bool {
    match image.content_type.as_deref() {
        Some("image/jpeg") => true,
        Some("image/png") => {
            // After the signature comes IHDR, whose colour type is byte 25: grey or true colour without alpha. A palette may have
            // transparent entries.
            image.file_begins.get(25).is_some_and(|colour_type| matches!(colour_type, 0 | 2))
        }
        _ => false,
    }
}
