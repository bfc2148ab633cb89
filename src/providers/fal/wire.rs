//! fal's answers as they are on the wire, read leniently: what is missing or of another shape never breaks the rest.

use serde::Deserialize;
use serde_json::{Map, Number, Value};

use crate::domain::Fixed;
use crate::providers::outcome::{Delivery, Image, Standing};

/// The answer to a submit; also what a status answer repeats.
#[derive(Debug, Deserialize)]
pub(super) struct Submitted {
    pub request_id: String,
    #[serde(default)]
    pub response_url: Option<String>,
    #[serde(default)]
    pub status_url: Option<String>,
    #[serde(default)]
    pub cancel_url: Option<String>,
}

/// The answer to a status read.
#[derive(Debug, Deserialize)]
pub(super) struct Status {
    #[serde(rename = "status")]
    pub state: String,
    #[serde(default)]
    pub queue_position: Option<u32>,
    #[serde(default)]
    pub error: Option<Value>,
    #[serde(default)]
    pub error_type: Option<String>,
    #[serde(default)]
    pub response_url: Option<String>,
    #[serde(default)]
    pub logs: Option<Vec<Value>>,
}

/// Reads a state with its logs; what is no line is left out.
pub(super) fn read_standing(body: &[u8]) -> Result<Standing, String> {
    let state: Status = serde_json::from_slice(body).map_err(|error| format!("the state cannot be read: {error}"))?;
    let lines = state.logs.unwrap_or_default().into_iter();
    Ok(Standing {
        runs: state.state != "IN_QUEUE",
        queue_position: state.queue_position,
        logs: lines.filter_map(|line| serde_json::from_value(line).ok()).collect(),
    })
}

/// The answer to a cancellation, if it has a body.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Cancelled {
    #[serde(default)]
    pub status: Option<String>,
}

/// A model's output. Every field but the images is optional: three generations of imagen4 alone differ.
#[derive(Debug, Deserialize)]
struct Output {
    #[serde(default)]
    images: Option<Vec<Value>>,
    #[serde(default)]
    image: Option<Value>,
    #[serde(default)]
    seed: Option<Value>,
    #[serde(default)]
    timings: Option<Value>,
    #[serde(default)]
    has_nsfw_concepts: Option<Value>,
    #[serde(default)]
    prompt: Option<Value>,
    #[serde(default)]
    description: Option<Value>,
    #[serde(default)]
    num_images: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct OutputImage {
    url: String,
    #[serde(default)]
    width: Option<Value>,
    #[serde(default)]
    height: Option<Value>,
    #[serde(default)]
    content_type: Option<Value>,
    #[serde(default)]
    file_name: Option<Value>,
    #[serde(default)]
    file_size: Option<Value>,
}

/// Reads a model's output; `Err` tells what is not understood. What has no address that a customer could fetch is no image:
/// an output without any has no `images` in what is read.
pub(super) fn read_delivery(body: &[u8], billable_units: Option<Fixed>) -> Result<Delivery, String> {
    // A list would be read as the fields in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err("the result is not an object".to_owned());
    }
    let output: Output =
        serde_json::from_slice(body).map_err(|error| format!("the result is not a model's output: {error}"))?;
    let told = output.images.unwrap_or_else(|| output.image.into_iter().collect());
    let read: Vec<Option<Image>> = told.into_iter().map(read_image).collect();
    let flags: Option<Vec<bool>> = output.has_nsfw_concepts.and_then(|value| serde_json::from_value(value).ok());
    // A flag belongs to the image at its place.
    let flags = flags.map(|flags| {
        let is_image = |at: usize| read.get(at).is_none_or(Option::is_some);
        flags.into_iter().enumerate().filter(|(at, _)| is_image(*at)).map(|(_, flag)| flag).collect()
    });
    Ok(Delivery {
        images: read.into_iter().flatten().collect(),
        seed: output.seed.and_then(number),
        timings: output.timings.and_then(object),
        has_nsfw_concepts: flags,
        prompt: output.prompt.and_then(text),
        description: output.description.and_then(text),
        num_images: output.num_images.as_ref().and_then(whole),
        billable_units,
    })
}

/// An image, if it has an address of the kinds that fal gives.
fn read_image(told: Value) -> Option<Image> {
    let image: OutputImage = Some(told).filter(Value::is_object).and_then(|told| serde_json::from_value(told).ok())?;
    if !["https://", "http://", "data:"].iter().any(|scheme| image.url.starts_with(scheme)) {
        return None;
    }
    let pixels =
        |value: Option<Value>| value.and_then(|value| whole(&value)).and_then(|value| u32::try_from(value).ok());
    Some(Image {
        url: image.url,
        width: pixels(image.width),
        height: pixels(image.height),
        content_type: image.content_type.and_then(text),
        file_name: image.file_name.and_then(text),
        file_size: image.file_size.and_then(|value| whole(&value)),
    })
}

fn number(value: Value) -> Option<Number> {
    match value {
        Value::Number(number) => Some(number),
        _ => None,
    }
}

fn object(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// A whole number, also one written as `1024.0`.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let float = value.as_f64()?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be whole and in range")]
        (float.fract() == 0.0 && (0.0..1e15).contains(&float)).then_some(float as u64)
    })
}

/// `x-fal-billable-units`: a decimal such as `1`, `3.14159265` or, from a careless writer, `1e-05`. What is below zero is
/// no bill.
pub(super) fn read_units(text: &str) -> Option<Fixed> {
    let text = text.trim();
    let units: Option<Fixed> = text.parse().ok().or_else(|| {
        // A float's own notation: read it to the ninth place.
        let float: f64 = text.parse().ok()?;
        float.is_finite().then(|| format!("{float:.9}"))?.parse().ok()
    });
    units.filter(|units| *units >= Fixed::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_of_sixty_four_bits_keeps_every_digit() {
        let body = br#"{"images":[{"url":"https://u","width":1024.0,"height":768}],"seed":18446744073709551615}"#;
        let delivery = read_delivery(body, None).unwrap();
        assert_eq!(delivery.seed.unwrap().as_u64(), Some(u64::MAX));
        assert_eq!((delivery.images[0].width, delivery.images[0].height), (Some(1024), Some(768)));
    }

    #[test]
    fn fields_of_another_shape_do_not_break_the_delivery() {
        let body = br#"{"images":[{"url":"https://u","content_type":null,"file_size":"big"}],"seed":"x","timings":[],"has_nsfw_concepts":{}}"#;
        let delivery = read_delivery(body, None).unwrap();
        assert_eq!(delivery.images.len(), 1);
        assert_eq!((delivery.seed, delivery.timings, delivery.has_nsfw_concepts), (None, None, None));
        assert!(read_delivery(b"[]", None).is_err());
        assert!(read_delivery(b"[[]]", None).is_err());
        assert!(read_delivery(b"null", None).is_err());
    }

    #[test]
    fn what_has_no_address_to_fetch_is_no_image() {
        for body in [
            "{}",
            r#"{"images":null}"#,
            r#"{"images":[{}, null, "x", ["https://u"], {"url":7}]}"#,
            r#"{"image":{"url":""}}"#,
        ] {
            assert_eq!(read_delivery(body.as_bytes(), None).unwrap().images, [], "{body}");
        }
        let body =
            br#"{"images":[{"url":"file:///etc/passwd"},{"url":"https://fal.media/a.png"},{"url":"javascript:1"}],
            "has_nsfw_concepts":[true,false,true],"num_images":3}"#;
        let delivery = read_delivery(body, None).unwrap();
        assert_eq!((delivery.images.len(), delivery.has_nsfw_concepts), (1, Some(vec![false])));
        assert_eq!(delivery.num_images, Some(3));
    }

    #[test]
    fn a_line_of_another_shape_does_not_break_the_logs() {
        let body = br#"{"status":"IN_PROGRESS","logs":[{"message":"a","labels":{}},7,{"level":"INFO"}]}"#;
        let standing = read_standing(body).unwrap();
        let messages: Vec<&str> = standing.logs.iter().map(|line| line.message.as_str()).collect();
        assert_eq!((standing.runs, standing.queue_position, messages), (true, None, vec!["a"]));
        let waits = read_standing(br#"{"status":"IN_QUEUE","logs":null,"queue_position":3}"#).unwrap();
        assert_eq!(waits, Standing { runs: false, queue_position: Some(3), logs: Vec::new() });
        assert!(read_standing(b"[]").is_err());
    }

    #[test]
    fn billable_units_are_read_in_every_notation() {
        assert_eq!(read_units("1"), Some(Fixed::ONE));
        assert_eq!(read_units("3.14159265"), Some(Fixed::from_billionths(3_141_592_650)));
        assert_eq!(read_units("1e-05"), Some(Fixed::from_billionths(10_000)));
        assert_eq!(read_units("many"), None);
        for below in ["-1e2", "-3", "-0.5", "NaN", "inf", "1e30"] {
            assert_eq!(read_units(below), None, "{below}");
        }
        assert_eq!(read_units("0"), Some(Fixed::ZERO));
    }
}
