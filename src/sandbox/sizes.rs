//! How large a picture an endpoint makes for a valid input.

use serde_json::{Map, Value};

/// Pixels in fal's megapixel.
pub const MEGAPIXEL: u64 = 1_048_576;

/// The named sizes of fal's toolkit (`fal/toolkit/image/image.py`).
const PRESETS: [(&str, u32, u32); 8] = [
    ("square_hd", 1024, 1024),
    ("square", 512, 512),
    ("portrait_4_3", 768, 1024),
    ("portrait_16_9", 576, 1024),
    ("landscape_4_3", 1024, 768),
    ("landscape_16_9", 1024, 576),
    ("auto_2K", 2048, 2048),
    ("auto_4K", 4096, 4096),
];

/// Width and height in pixels, from `image_size` where the endpoint has it, else from `aspect_ratio` and `resolution`.
pub fn picture_size(endpoint: &str, input: &Map<String, Value>) -> (u32, u32) {
    match input.get("image_size") {
        Some(Value::String(name)) => named(name),
        Some(Value::Object(sides)) => {
            let side = |name| sides.get(name).and_then(Value::as_u64).and_then(|side| u32::try_from(side).ok());
            (side("width").unwrap_or(512), side("height").unwrap_or(512))
        }
        Some(_) if input.contains_key("aspect_ratio") => by_ratio(endpoint, input),
        Some(_) => (1024, 768),
        None => by_ratio(endpoint, input),
    }
}

fn named(name: &str) -> (u32, u32) {
    let preset = PRESETS.iter().find(|(preset, ..)| *preset == name);
    preset.map(|(_, width, height)| (*width, *height)).or_else(|| pair(name, 'x')).unwrap_or((1024, 1024))
}

/// About one megapixel (four for an `ultra` endpoint and for `2K`, sixteen for `4K`) in the asked shape, sides in steps
/// of 32.
fn by_ratio(endpoint: &str, input: &Map<String, Value>) -> (u32, u32) {
    let text = |name| input.get(name).and_then(Value::as_str);
    let side: u32 = match text("resolution") {
        Some("0.5K") => 512,
        Some("2K") => 2048,
        Some("4K") => 4096,
        _ if endpoint.ends_with("-ultra") => 2048,
        _ => 1024,
    };
    let (across, down) = text("aspect_ratio").and_then(|ratio| pair(ratio, ':')).unwrap_or((1, 1));
    let area = u64::from(side) * u64::from(side);
    let (across, down) = (u64::from(across), u64::from(down));
    (step(area * across / down), step(area * down / across))
}

/// The square root, down to a multiple of 32, from 32 to 14,112.
fn step(square: u64) -> u32 {
    let root = u32::try_from(square.isqrt()).unwrap_or(u32::MAX);
    (root / 32 * 32).clamp(32, 14_112)
}

fn pair(text: &str, between: char) -> Option<(u32, u32)> {
    let (left, right) = text.split_once(between)?;
    let part = |text: &str| text.parse().ok().filter(|number| (1..=20_000).contains(number));
    Some((part(left)?, part(right)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn size(endpoint: &str, input: Value) -> (u32, u32) {
        let Value::Object(input) = input else { panic!("no object") };
        picture_size(endpoint, &input)
    }

    #[test]
    fn a_preset_an_object_and_a_text_name_a_size() {
        assert_eq!(size("", json!({"image_size": "portrait_16_9"})), (576, 1024));
        assert_eq!(size("", json!({"image_size": {"width": 1472, "height": 512}})), (1472, 512));
        assert_eq!(size("", json!({"image_size": "1536x1024"})), (1536, 1024));
        assert_eq!(size("", json!({"image_size": "auto"})), (1024, 1024));
    }

    #[test]
    fn no_size_means_landscape() {
        assert_eq!(size("", json!({"image_size": null})), (1024, 768));
    }

    #[test]
    fn a_shape_keeps_the_area() {
        assert_eq!(size("", json!({"aspect_ratio": "1:1"})), (1024, 1024));
        assert_eq!(size("", json!({"aspect_ratio": "16:9"})), (1344, 768));
        assert_eq!(size("", json!({"aspect_ratio": "1:3"})), (576, 1760));
        assert_eq!(size("", json!({"aspect_ratio": "1:1", "resolution": "4K"})), (4096, 4096));
        assert_eq!(size("a/v1.1-ultra", json!({"aspect_ratio": "odd"})), (2048, 2048));
    }
}
