//! A picture that the stand-in makes: what it shows, the file name that says so, and the file itself.
//!
//! Files are stateless: the name carries all that is needed to draw the picture again, so a link outlives a restart and
//! takes no memory.

mod draw;
mod text;
mod vector;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder as _};
use sha2::{Digest as _, Sha256};

use super::sizes::MEGAPIXEL;

/// The largest picture that is drawn, in pixels: sixteen of fal's megapixels.
pub const MOST_PIXELS: u64 = 16 * MEGAPIXEL;
/// The longest side, as in fal's schemas.
const LONGEST_SIDE: u32 = 14_142;
/// How much of the prompt stands on the picture, in code points.
const WORDS_LENGTH: usize = 60;
/// The same in bytes, so that a file name stays below the 255 bytes of common file systems.
const WORDS_BYTES: usize = 120;
/// The first byte of a file name's token; another layout gets another number.
const LAYOUT: u8 = 1;
/// Bytes before the words: layout, format and blackness, width, height, seed, digest.
const HEAD: usize = 1 + 1 + 2 + 2 + 8 + 8;

/// The formats of a picture's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JPEG, quality 90.
    Jpeg,
    /// PNG, eight bits a channel.
    Png,
    /// WebP, lossless.
    Webp,
    /// SVG.
    Svg,
}

impl Format {
    const ALL: [Self; 4] = [Self::Jpeg, Self::Png, Self::Webp, Self::Svg];

    /// By fal's name: `jpeg`, `png`, `webp`, `svg`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::Webp => "webp",
            Self::Svg => "svg",
        }
    }

    const fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            other => other.name(),
        }
    }

    /// The media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Webp => "image/webp",
            Self::Svg => "image/svg+xml",
        }
    }
}

/// What a picture shows. Two equal pictures have the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// The file's format.
    pub format: Format,
    /// Nothing but black, as fal's safety checker leaves it.
    pub black: bool,
    seed: u64,
    digest: [u8; 8],
    words: String,
}

/// A file made from its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedFile {
    /// The media type.
    pub content_type: &'static str,
    /// The whole file.
    pub bytes: Bytes,
}

/// Draws the picture that a file name (or a path that ends in one) describes; `None` if it describes none.
///
/// Takes some 20 ms for each megapixel: call it where blocking is allowed, and not for too many at a time.
#[must_use]
pub fn render_file(name: &str) -> Option<RenderedFile> {
    Picture::from_file_name(name)?.render()
}

impl Picture {
    /// The picture for a prompt and a seed. The caller keeps to [`MOST_PIXELS`].
    pub fn new(prompt: &str, seed: u64, (width, height): (u32, u32), format: Format) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed.to_be_bytes());
        hash.update(prompt.as_bytes());
        let mut digest = [0; 8];
        digest.copy_from_slice(&hash.finalize()[..8]);
        Self { width, height, format, black: false, seed, digest, words: words_of(prompt) }
    }

    /// Such as `AQAF….jpg`: letters, digits, `-` and `_`, and the extension.
    pub fn file_name(&self) -> String {
        let mut token = Vec::with_capacity(HEAD + self.words.len());
        token.push(LAYOUT);
        token.push(self.format as u8 | u8::from(self.black) << 7);
        for side in [self.width, self.height] {
            token.extend(u16::try_from(side).unwrap_or(u16::MAX).to_be_bytes());
        }
        token.extend(self.seed.to_be_bytes());
        token.extend(self.digest);
        token.extend(self.words.as_bytes());
        format!("{}.{}", URL_SAFE_NO_PAD.encode(token), self.format.extension())
    }

    /// Where the file lies below a host: `/files/b/{8 hex digits}/{file name}`.
    pub fn path(&self) -> String {
        format!("/files/b/{}/{}", hex::encode(&self.digest[..4]), self.file_name())
    }

    /// Reads a name made by [`Self::file_name`], or the last part of a path.
    pub fn from_file_name(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next()?;
        let (token, extension) = name.rsplit_once('.')?;
        if token.len() > (HEAD + WORDS_BYTES) * 4 / 3 + 2 {
            return None;
        }
        let token = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (&[LAYOUT, kind, w1, w0, h1, h0, ref rest @ ..], words) = token.split_first_chunk::<HEAD>()? else {
            return None;
        };
        let picture = Self {
            width: u16::from_be_bytes([w1, w0]).into(),
            height: u16::from_be_bytes([h1, h0]).into(),
            format: *Format::ALL.get(usize::from(kind & 0x7f))?,
            black: kind & 0x80 != 0,
            seed: u64::from_be_bytes(*rest.first_chunk()?),
            digest: *rest.last_chunk()?,
            words: std::str::from_utf8(words).ok()?.to_owned(),
        };
        let fits = (1..=LONGEST_SIDE).contains(&picture.width)
            && (1..=LONGEST_SIDE).contains(&picture.height)
            && u64::from(picture.width) * u64::from(picture.height) <= MOST_PIXELS
            && picture.format.extension() == extension;
        fits.then_some(picture)
    }

    /// The prompt's words that stand on it.
    pub fn words(&self) -> &str {
        &self.words
    }

    /// Draws and encodes; `None` only if an encoder fails.
    pub fn render(&self) -> Option<RenderedFile> {
        let content_type = self.format.content_type();
        let bytes =
            if self.format == Format::Svg { vector::drawing(self).into_bytes() } else { self.encode(&self.pixels())? };
        Some(RenderedFile { content_type, bytes: bytes.into() })
    }

    /// Red, green and blue for each pixel, row by row.
    fn pixels(&self) -> Vec<u8> {
        let mut canvas = draw::Canvas::new(self.width, self.height);
        if !self.black {
            draw::scene(&mut canvas, self.numbers());
            text::caption(&mut canvas, &self.words);
        }
        canvas.pixels
    }

    fn encode(&self, pixels: &[u8]) -> Option<Vec<u8>> {
        let mut file = Vec::with_capacity(pixels.len() / 8 + 1024);
        let (width, height, color) = (self.width, self.height, ExtendedColorType::Rgb8);
        match self.format {
            Format::Jpeg => JpegEncoder::new_with_quality(&mut file, 90).write_image(pixels, width, height, color),
            Format::Png => PngEncoder::new(&mut file).write_image(pixels, width, height, color),
            Format::Webp => WebPEncoder::new_lossless(&mut file).write_image(pixels, width, height, color),
            Format::Svg => return None,
        }
        .ok()?;
        Some(file)
    }

    /// The numbers that shape and colours are taken from.
    fn numbers(&self) -> Numbers {
        Numbers(u64::from_be_bytes(self.digest) ^ self.seed.rotate_left(17))
    }
}

/// The start of a prompt as it stands on the picture: whole words, single blanks, no control characters.
fn words_of(prompt: &str) -> String {
    let mut words = String::new();
    for word in prompt.split_whitespace() {
        let word: String = word.chars().filter(|letter| !letter.is_control()).collect();
        let length = words.chars().count() + 1 + word.chars().count();
        if length > WORDS_LENGTH + 1 || words.len() + 1 + word.len() > WORDS_BYTES - 4 {
            if words.is_empty() {
                words = word.chars().take(WORDS_LENGTH / 3).collect();
            }
            words.push_str(" ...");
            break;
        }
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(&word);
    }
    words
}

/// A stream of numbers that one seed determines (the `SplitMix64` generator).
#[derive(Debug, Clone, Copy)]
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `low` to `high`.
    #[expect(clippy::cast_precision_loss, reason = "sixteen bits fit")]
    fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * ((self.next() >> 48) as f32 / 65_535.0)
    }

    /// Below `count`.
    fn below(&mut self, count: u64) -> u64 {
        self.next() % count.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(picture: &Picture) -> image::DynamicImage {
        image::load_from_memory(&picture.render().unwrap().bytes).unwrap()
    }

    #[test]
    fn a_file_has_exactly_the_asked_size_in_every_format() {
        for format in [Format::Jpeg, Format::Png, Format::Webp] {
            for size in [(96, 64), (1, 1), (7, 300), (33, 17)] {
                let image = decoded(&Picture::new("a red fox", 7, size, format));
                assert_eq!((image.width(), image.height()), size);
            }
        }
    }

    #[test]
    fn the_same_prompt_and_seed_give_the_same_bytes_and_others_give_others() {
        let bytes = |prompt, seed| Picture::new(prompt, seed, (64, 64), Format::Png).render().unwrap().bytes;
        assert_eq!(bytes("fox", 7), bytes("fox", 7));
        assert_ne!(bytes("fox", 7), bytes("fox", 8));
        assert_ne!(bytes("fox", 7), bytes("cat", 7));
    }

    #[test]
    fn a_file_is_drawn_from_its_name_alone() {
        let picture = Picture::new("a fox in the snow", 42, (80, 48), Format::Jpeg);
        let path = picture.path();
        assert!(path.starts_with("/files/b/") && path.contains(".jpg"), "{path}");
        assert_eq!(render_file(&path), picture.render());
        assert_eq!(render_file(&picture.file_name()).unwrap().content_type, "image/jpeg");
    }

    #[test]
    fn a_name_that_no_picture_has_is_refused() {
        let good = Picture::new("a", 1, (8, 8), Format::Png).file_name();
        for name in ["", "x.png", ".png", "a/b", &good.replace(".png", ".jpg"), &good[..10]] {
            assert_eq!(render_file(name), None, "`{name}` was drawn");
        }
        assert!(Picture::from_file_name(&Picture::new("a", 1, (14_000, 14_000), Format::Png).file_name()).is_none());
    }

    #[test]
    fn a_flagged_picture_is_black() {
        let mut picture = Picture::new("a", 1, (32, 32), Format::Png);
        picture.black = true;
        let read = Picture::from_file_name(&picture.file_name()).unwrap();
        assert!(decoded(&read).to_rgb8().pixels().all(|pixel| pixel.0 == [0, 0, 0]));
    }

    #[test]
    fn a_vector_picture_is_well_formed_whatever_the_words() {
        let picture = Picture::new("<b>&\"'\u{1}\u{fffe}", 1, (32, 32), Format::Svg);
        let file = String::from_utf8(picture.render().unwrap().bytes.to_vec()).unwrap();
        assert!(file.starts_with("<svg ") && file.contains("width=\"32\""), "{file}");
        assert!(file.contains("&lt;b&gt;&amp;&quot;&apos;</text>"), "{file}");
        assert!(file.contains(">sandbox</text>"));
    }

    #[test]
    fn long_prompts_are_cut_at_a_word() {
        assert_eq!(words_of("  a\n b "), "a b");
        let words = words_of(&"lighthouse ".repeat(20));
        assert!(words.ends_with("lighthouse ...") && words.len() <= 64, "{words}");
        assert_eq!(words_of(&"x".repeat(500)), format!("{} ...", "x".repeat(20)));
    }

    proptest! {
        #[test]
        fn a_name_says_all_about_its_picture(prompt in ".{0,200}", seed in any::<u64>(), width in 1..4000_u32, height in 1..4000_u32, black in any::<bool>(), format in 0..4_usize) {
            let mut picture = Picture::new(&prompt, seed, (width, height), Format::ALL[format]);
            picture.black = black;
            let name = picture.file_name();
            prop_assert!(name.len() < 255);
            prop_assert_eq!(Picture::from_file_name(&name), Some(picture));
        }

        #[test]
        fn no_name_breaks_the_reader(name in ".{0,300}") {
            if let Some(picture) = Picture::from_file_name(&name) {
                prop_assert!(u64::from(picture.width) * u64::from(picture.height) <= MOST_PIXELS);
            }
        }
    }
}
