//! What an image file says of itself: its format and its sides, read from its header. Nothing is decoded.

use std::io::{self, BufRead, Cursor, Read, Seek, SeekFrom};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::bufread::ZlibDecoder;
use imagesize::{Compression, ImageType};

/// Largest image, in bytes.
pub(super) const MOST_BYTES: usize = 20 * 1024 * 1024;
/// Largest image, in pixels: 64 megapixels.
pub(super) const MOST_PIXELS: u64 = 64 * 1_048_576;
/// Most bytes of metadata that a PNG may have compressed: its colour profile and its texts, together. The largest profiles
/// in use have about three million.
pub(super) const MOST_METADATA: u64 = 8 * 1024 * 1024;

/// Why an image is not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadPicture {
    NotBase64,
    NotAnImage,
    TooManyBytes(usize),
    TooManyPixels(u64),
    TooMuchMetadata,
}

/// The MIME type of a file, by its content.
pub(super) fn inspect_bytes(bytes: &[u8]) -> Result<&'static str, BadPicture> {
    if bytes.len() > MOST_BYTES {
        return Err(BadPicture::TooManyBytes(bytes.len()));
    }
    inspect(&mut Cursor::new(bytes))
}

/// The MIME type of a data URI, by its content, whatever the URI says it is.
pub(super) fn inspect_uri(uri: &str) -> Result<&'static str, BadPicture> {
    let (_, text) = uri.split_once(',').ok_or(BadPicture::NotBase64)?;
    let mut file = Base64File::new(text);
    if file.length > MOST_BYTES as u64 {
        return Err(BadPicture::TooManyBytes(usize::try_from(file.length).unwrap_or(usize::MAX)));
    }
    let found = inspect(&mut file);
    if file.is_invalid { Err(BadPicture::NotBase64) } else { found }
}

/// The MIME type by the first bytes alone.
#[must_use]
pub fn type_of(bytes: &[u8]) -> Option<&'static str> {
    mime_type(imagesize::image_type(bytes).ok()?)
}

fn mime_type(kind: ImageType) -> Option<&'static str> {
    Some(match kind {
        ImageType::Png => "image/png",
        ImageType::Jpeg => "image/jpeg",
        ImageType::Webp => "image/webp",
        ImageType::Gif => "image/gif",
        ImageType::Heif(Compression::Av1) => "image/avif",
        _ => return None,
    })
}

fn inspect<R: BufRead + Seek>(file: &mut R) -> Result<&'static str, BadPicture> {
    let kind = imagesize::reader_type(&mut *file).map_err(|_| BadPicture::NotAnImage)?;
    let content_type = mime_type(kind).ok_or(BadPicture::NotAnImage)?;
    let sides = kind.reader_size(file).map_err(|_| BadPicture::NotAnImage)?;
    match (sides.width as u64).saturating_mul(sides.height as u64) {
        0 => return Err(BadPicture::NotAnImage),
        pixels if pixels > MOST_PIXELS => return Err(BadPicture::TooManyPixels(pixels)),
        _ => {}
    }
    if kind == ImageType::Png {
        check_chunks(file)?;
    }
    Ok(content_type)
}

/// A PNG must begin with its header and have image data. What its readers inflate before they look at the image must be of a
/// reasonable size: a chunk of one megabyte can hold a thousand.
fn check_chunks<R: BufRead + Seek>(file: &mut R) -> Result<(), BadPicture> {
    const SIGNATURE: u64 = 8;
    const CHECKSUM: u64 = 4;
    let not_an_image = |_: io::Error| BadPicture::NotAnImage;
    let (mut at, mut left) = (SIGNATURE, MOST_METADATA);
    let (mut has_header, mut has_data) = (false, false);
    loop {
        file.seek(SeekFrom::Start(at)).map_err(not_an_image)?;
        let mut head = [0; 8];
        if file.read_exact(&mut head).is_err() {
            break;
        }
        let [a, b, c, d, kind @ ..] = head;
        let length = u64::from(u32::from_be_bytes([a, b, c, d]));
        if !has_header && (&kind, length) != (b"IHDR", 13) {
            break;
        }
        match &kind {
            b"IHDR" => has_header = true,
            b"IDAT" => has_data = true,
            b"IEND" => break,
            b"iCCP" | b"zTXt" | b"iTXt" => {
                let size = inflated(kind, &mut file.by_ref().take(length), left).unwrap_or(0);
                left = left.checked_sub(size).ok_or(BadPicture::TooMuchMetadata)?;
            }
            _ => {}
        }
        at += head.len() as u64 + length + CHECKSUM;
    }
    if has_data { Ok(()) } else { Err(BadPicture::NotAnImage) }
}

/// How many bytes a chunk's compressed part has when it is inflated; one more than `most` if there are more.
fn inflated(kind: [u8; 4], chunk: &mut impl BufRead, most: u64) -> io::Result<u64> {
    chunk.skip_until(0)?;
    let mut method = [0; 2];
    if kind == *b"iTXt" {
        chunk.read_exact(&mut method)?;
        chunk.skip_until(0)?;
        chunk.skip_until(0)?;
        if method[0] == 0 {
            return Ok(0);
        }
    } else {
        chunk.read_exact(&mut method[..1])?;
    }
    let mut content = ZlibDecoder::new(chunk).take(most + 1);
    let (mut piece, mut size) = ([0; 16 * 1024], 0);
    // What is broken ends there.
    while let Ok(read @ 1..) = content.read(&mut piece) {
        size += read as u64;
    }
    Ok(size)
}

/// A file that is written as base64, decoded where it is read.
struct Base64File<'a> {
    text: &'a [u8],
    /// In bytes, as decoded.
    length: u64,
    at: u64,
    block: Vec<u8>,
    /// Where `block` begins.
    block_at: u64,
    /// Whether something was read that is not base64.
    is_invalid: bool,
}

impl<'a> Base64File<'a> {
    /// Bytes that are decoded at once: a multiple of three.
    const BLOCK: u64 = 3 * 1024;

    fn new(text: &'a str) -> Self {
        let length = text.trim_end_matches('=').len() as u64 * 3 / 4;
        Self { text: text.as_bytes(), length, at: 0, block: Vec::new(), block_at: 0, is_invalid: false }
    }
}

impl BufRead for Base64File<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.length {
            return Ok(&[]);
        }
        let begins = self.at - self.at % Self::BLOCK;
        if self.block.is_empty() || self.block_at != begins {
            let place = |at: u64| usize::try_from(at / 3 * 4).unwrap_or(usize::MAX).min(self.text.len());
            let text = &self.text[place(begins)..place(begins + Self::BLOCK)];
            self.block.clear();
            self.block_at = begins;
            if let Err(error) = STANDARD.decode_vec(text, &mut self.block) {
                self.block.clear();
                self.is_invalid = true;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        let skipped = usize::try_from(self.at - begins).unwrap_or(usize::MAX).min(self.block.len());
        Ok(&self.block[skipped..])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount as u64;
    }
}

impl Read for Base64File<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let read = available.len().min(buffer.len());
        buffer[..read].copy_from_slice(&available[..read]);
        self.consume(read);
        Ok(read)
    }
}

impl Seek for Base64File<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use image::ImageFormat;

    use super::*;

    fn uri(bytes: &[u8]) -> String {
        format!("data:image/png;base64,{}", STANDARD.encode(bytes))
    }

    /// Both ways in must agree.
    fn inspected(bytes: &[u8]) -> Result<&'static str, BadPicture> {
        let found = inspect_bytes(bytes);
        assert_eq!(inspect_uri(&uri(bytes)), found);
        found
    }

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        image::DynamicImage::new_rgb8(40, 30).write_to(&mut file, format).unwrap();
        file.into_inner()
    }

    fn in_a_box(kind: [u8; 4], content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len() + 8).unwrap();
        [&length.to_be_bytes()[..], &kind, content].concat()
    }

    /// The boxes of an AVIF file that tell its sides.
    fn avif(width: u32, height: u32) -> Vec<u8> {
        let sides = [&[0; 4][..], &width.to_be_bytes(), &height.to_be_bytes()].concat();
        let properties = in_a_box(*b"ipco", &in_a_box(*b"ispe", &sides));
        let meta = [&[0; 4][..], &in_a_box(*b"iprp", &properties)].concat();
        [in_a_box(*b"ftyp", b"avif\0\0\0\0mif1"), in_a_box(*b"meta", &meta), in_a_box(*b"mdat", &[0; 20])].concat()
    }

    /// A PNG with one more chunk after its header.
    fn with_chunk(kind: [u8; 4], content: &[u8]) -> Vec<u8> {
        const HEADER_ENDS: usize = 33;
        let (png, length) = (encoded(ImageFormat::Png), u32::try_from(content.len()).unwrap());
        [&png[..HEADER_ENDS], &length.to_be_bytes(), &kind, content, &[0; 4], &png[HEADER_ENDS..]].concat()
    }

    fn deflated(size: u64) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        io::copy(&mut io::repeat(0).take(size), &mut encoder).unwrap();
        encoder.flush().unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_five_formats_are_accepted_whatever_the_uri_calls_them() {
        for (format, kind) in
            [(ImageFormat::Png, "image/png"), (ImageFormat::Jpeg, "image/jpeg"), (ImageFormat::WebP, "image/webp")]
        {
            assert_eq!(inspected(&encoded(format)), Ok(kind));
        }
        assert_eq!(inspected(b"GIF89a\x28\x00\x1e\x00\x00\x00\x00"), Ok("image/gif"));
        assert_eq!(inspected(&avif(40, 30)), Ok("image/avif"));
        assert_eq!(type_of(&avif(40, 30)), Some("image/avif"));
    }

    #[test]
    fn what_is_not_an_image_or_too_large_is_refused() {
        for bytes in [&b"%PDF-1.7 not an image"[..], b"BM not accepted", b"", b"GIF89a\x00\x00\x00\x00\x00\x00\x00"] {
            assert_eq!(inspected(bytes), Err(BadPicture::NotAnImage), "{bytes:?}");
        }
        let png = encoded(ImageFormat::Png);
        for length in [12, 20, 33, 40] {
            assert_eq!(inspected(&png[..length]), Err(BadPicture::NotAnImage), "{length} bytes");
        }
        let mut huge = png;
        huge[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
        assert_eq!(inspected(&huge), Err(BadPicture::TooManyPixels(16_384 * 16_384)));
        assert_eq!(inspected(&avif(1 << 20, 1 << 20)), Err(BadPicture::TooManyPixels(1 << 40)));
        let gif = b"GIF89a\xff\xff\xff\xff\x00\x00\x00";
        assert_eq!(inspected(gif), Err(BadPicture::TooManyPixels(65_535 * 65_535)));
        let heavy = format!("data:image/png;base64,{}", "A".repeat(MOST_BYTES / 3 * 4 + 8));
        assert!(matches!(inspect_uri(&heavy), Err(BadPicture::TooManyBytes(_))));
    }

    #[test]
    fn what_is_read_must_be_base64() {
        let mut broken = uri(&encoded(ImageFormat::Jpeg));
        broken.replace_range(40..41, "*");
        for text in ["data:image/png;base64,AAA=A", "data:image/png", &broken] {
            assert_eq!(inspect_uri(text), Err(BadPicture::NotBase64), "{text}");
        }
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
        assert_eq!(inspected(&long), Ok("image/jpeg"));
    }

    #[test]
    fn metadata_that_inflates_beyond_reason_is_refused() {
        let profile = |size| [&b"profile\0\0"[..], &deflated(size)].concat();
        assert_eq!(inspected(&with_chunk(*b"iCCP", &profile(3_000_000))), Ok("image/png"));
        assert_eq!(inspected(&with_chunk(*b"iCCP", &profile(MOST_METADATA))), Ok("image/png"));
        assert_eq!(inspected(&with_chunk(*b"iCCP", &profile(MOST_METADATA + 1))), Err(BadPicture::TooMuchMetadata));
        let text = [&b"Comment\0\x01\0en\0\0"[..], &deflated(MOST_METADATA + 1)].concat();
        assert_eq!(inspected(&with_chunk(*b"iTXt", &text)), Err(BadPicture::TooMuchMetadata));
        assert_eq!(inspected(&with_chunk(*b"zTXt", &profile(MOST_METADATA + 1))), Err(BadPicture::TooMuchMetadata));
        assert_eq!(inspected(&with_chunk(*b"iTXt", b"Comment\0\0\0en\0\0plain")), Ok("image/png"));
        assert_eq!(inspected(&with_chunk(*b"iCCP", b"profile\0\0broken")), Ok("image/png"));
        assert_eq!(inspected(&with_chunk(*b"iCCP", b"")), Ok("image/png"));
    }
}
