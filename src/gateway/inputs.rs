//! Input images that a request carries in itself: they must be images, of a size that can be handled, before anything is
//! booked. Links are the provider's to fetch.

use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{ImageFormat, ImageReader};

use crate::catalogue::{Code, Kind, Order, PathPart, Problem, Rejection, Value};

/// Largest embedded image, in bytes.
const MOST_BYTES: usize = 20 * 1024 * 1024;
/// Largest embedded image, in pixels: 64 megapixels.
const MOST_PIXELS: u64 = 64 * 1_048_576;
/// Characters of base64 that hold the header of nearly every image; a multiple of four.
const HEADER: usize = 64 * 1024;

/// Checks every embedded image of an order, and tells all problems at once.
pub(super) fn check(order: &Order) -> Result<(), Rejection> {
    let mut problems = Vec::new();
    let may_hold_images = |kind: &Kind| matches!(kind, Kind::Image | Kind::List(_) | Kind::Object(_));
    for (parameter, value) in order.parameters().filter(|(parameter, _)| may_hold_images(&parameter.kind)) {
        let mut path = vec![PathPart::Key(parameter.name.as_ref().to_owned())];
        look(&parameter.kind, value, &mut path, &mut problems);
    }
    if problems.is_empty() { Ok(()) } else { Err(Rejection::Invalid(problems)) }
}

fn look(kind: &Kind, value: &Value, path: &mut Vec<PathPart>, problems: &mut Vec<Problem>) {
    match (kind, value) {
        (Kind::Image, Value::Text(uri)) if uri.starts_with("data:") => {
            if let Err(fault) = inspect(uri) {
                problems.push(fault.at(path));
            }
        }
        (Kind::List(rule), Value::List(items)) => {
            for (at, item) in items.iter().enumerate() {
                path.push(PathPart::Index(at));
                look(&rule.items, item, path, problems);
                path.pop();
            }
        }
        (Kind::Object(rule), Value::Object(values)) => {
            for (name, value) in values {
                let Some(field) = rule.fields.iter().find(|field| field.name == *name) else { continue };
                path.push(PathPart::Key(name.as_ref().to_owned()));
                look(&field.kind, value, path, problems);
                path.pop();
            }
        }
        _ => {}
    }
}

/// What is wrong with an embedded image.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    NotBase64,
    NotAnImage,
    TooManyBytes(usize),
    TooManyPixels(u64),
}

impl Fault {
    fn at(&self, path: &[PathPart]) -> Problem {
        let problem = |code, message| Problem::new(code, path.to_vec(), message);
        let place = problem(Code::Custom, String::new()).dotted_path();
        let too_big = |unit: &str, most: u64, is: u64| {
            let message = format!("`{place}` is an image of {is} {unit}; at most {most} are taken");
            Problem { maximum: Some(most.into()), inclusive: Some(true), ..problem(Code::TooBig, message) }
        };
        match self {
            Self::NotBase64 => problem(Code::InvalidString, format!("`{place}` is not valid base64")),
            Self::NotAnImage => problem(
                Code::Custom,
                format!("`{place}` is not an image that can be read: PNG, JPEG, WebP and GIF are"),
            ),
            Self::TooManyBytes(is) => too_big("bytes", MOST_BYTES as u64, *is as u64),
            Self::TooManyPixels(is) => too_big("pixels", MOST_PIXELS, *is),
        }
    }
}

/// The MIME type of an input image that comes by itself in the form field `name`, by its content.
pub fn check_file(name: &str, bytes: &[u8]) -> Result<&'static str, Rejection> {
    let place = [PathPart::Key(name.to_owned())];
    inspect_bytes(bytes).map_err(|fault| Rejection::Invalid(vec![fault.at(&place)]))
}

fn inspect_bytes(bytes: &[u8]) -> Result<&'static str, Fault> {
    if bytes.len() > MOST_BYTES {
        return Err(Fault::TooManyBytes(bytes.len()));
    }
    let format = image::guess_format(bytes).map_err(|_| Fault::NotAnImage)?;
    within_limits(sides(format, bytes).ok_or(Fault::NotAnImage)?)?;
    Ok(format.to_mime_type())
}

fn within_limits((width, height): (u32, u32)) -> Result<(), Fault> {
    match u64::from(width) * u64::from(height) {
        0 => Err(Fault::NotAnImage),
        pixels if pixels > MOST_PIXELS => Err(Fault::TooManyPixels(pixels)),
        _ => Ok(()),
    }
}

/// Type by content, whatever the URI says it is.
fn inspect(uri: &str) -> Result<(), Fault> {
    let (_, data) = uri.split_once(',').ok_or(Fault::NotBase64)?;
    let bytes = data.trim_end_matches('=').len() / 4 * 3;
    if bytes > MOST_BYTES {
        return Err(Fault::TooManyBytes(bytes));
    }
    let decode = |data: &str| STANDARD.decode(data).map_err(|_| Fault::NotBase64);
    let start = decode(data.get(..HEADER).unwrap_or(data))?;
    let format = image::guess_format(&start).map_err(|_| Fault::NotAnImage)?;
    let sides = sides(format, &start);
    // A header behind a long colour profile or preview needs the rest as well.
    let sides = if sides.is_none() && data.len() > HEADER { self::sides(format, &decode(data)?) } else { sides };
    within_limits(sides.ok_or(Fault::NotAnImage)?)
}

/// Width and height as the header tells them.
fn sides(format: ImageFormat, bytes: &[u8]) -> Option<(u32, u32)> {
    match format {
        ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP => {
            ImageReader::with_format(Cursor::new(bytes), format).into_dimensions().ok()
        }
        ImageFormat::Gif => {
            let side = |at: usize| Some(u32::from(u16::from_le_bytes([*bytes.get(at)?, *bytes.get(at + 1)?])));
            Some((side(6)?, side(8)?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(bytes: &[u8]) -> String {
        format!("data:image/png;base64,{}", STANDARD.encode(bytes))
    }

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        image::DynamicImage::new_rgb8(40, 30).write_to(&mut file, format).unwrap();
        file.into_inner()
    }

    #[test]
    fn the_four_formats_are_taken_whatever_the_uri_calls_them() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
            assert_eq!(inspect(&uri(&encoded(format))), Ok(()), "{format:?}");
        }
        assert_eq!(inspect(&uri(b"GIF89a\x28\x00\x1e\x00\x00\x00\x00")), Ok(()));
    }

    #[test]
    fn what_is_no_image_or_too_large_is_refused() {
        assert_eq!(inspect(&uri(b"%PDF-1.7 not an image")), Err(Fault::NotAnImage));
        assert_eq!(inspect(&uri(b"BM not offered")), Err(Fault::NotAnImage));
        assert_eq!(inspect("data:image/png;base64,AAA=A"), Err(Fault::NotBase64));
        let truncated = encoded(ImageFormat::Png);
        assert_eq!(inspect(&uri(&truncated[..12])), Err(Fault::NotAnImage));
        let mut huge = encoded(ImageFormat::Png);
        huge[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
        // The checksum of the header does not fit any more: a reader may refuse that or read on.
        assert!(inspect(&uri(&huge)).is_err());
        let gif = b"GIF89a\xff\xff\xff\xff\x00\x00\x00";
        assert_eq!(inspect(&uri(gif)), Err(Fault::TooManyPixels(65_535 * 65_535)));
        let heavy = format!("data:image/png;base64,{}", "A".repeat(MOST_BYTES / 3 * 4 + 8));
        assert!(matches!(inspect(&heavy), Err(Fault::TooManyBytes(_))));
    }

    #[test]
    fn a_header_behind_a_long_preamble_is_found() {
        let jpeg = encoded(ImageFormat::Jpeg);
        let mut long = jpeg[..2].to_vec();
        for _ in 0..3 {
            long.extend([0xff, 0xe2, 0xff, 0xff]);
            long.extend(vec![0; 0xfffd]);
        }
        long.extend(&jpeg[2..]);
        assert_eq!(inspect(&uri(&long)), Ok(()));
    }
}
