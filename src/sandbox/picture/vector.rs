//! The same hills as an SVG drawing, for the vector styles.
#![expect(clippy::cast_precision_loss, reason = "sides stay below 65,536")]

use std::fmt::Write as _;

use super::Picture;
use super::draw::{Color, Crest, Palette, mix};

/// The drawing; well-formed whatever the words.
pub fn drawing(picture: &Picture) -> String {
    let (width, height) = (picture.width as f32, picture.height as f32);
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{0}" height="{1}" viewBox="0 0 {0} {1}">"#,
        picture.width, picture.height
    );
    if picture.black {
        svg.push_str(r#"<rect width="100%" height="100%"/></svg>"#);
        return svg;
    }
    let mut numbers = picture.numbers();
    let palette = Palette::take(&mut numbers);
    // Writing to a string cannot fail.
    let _ = write!(
        svg,
        r#"<defs><linearGradient id="sky" x2="0" y2="1"><stop stop-color="{}"/><stop offset=".62" stop-color="{}"/></linearGradient></defs><rect width="100%" height="100%" fill="url(#sky)"/><circle cx="{:.0}" cy="{:.0}" r="{:.0}" fill="{}"/>"#,
        code(palette.zenith),
        code(palette.horizon),
        width * numbers.between(0.18, 0.82),
        height * numbers.between(0.2, 0.42),
        width.min(height) * 0.1,
        code(palette.glow),
    );
    for range in 1..=5_u8 {
        let nearness = f32::from(range) / 5.0;
        let crest = Crest::take(&mut numbers, nearness, width / width.min(height));
        let _ = write!(svg, r#"<path fill="{}" d="M0 {height}"#, code(mix(palette.horizon, palette.near, nearness)));
        for step in 0..=48_u8 {
            let across = f32::from(step) / 48.0;
            let _ = write!(svg, "L{:.1} {:.1}", across * width, crest.at(across) * height);
        }
        let _ = write!(svg, r#"L{width} {height}Z"/>"#);
    }
    let size = (width.min(height * 1.5) / 24.0).max(1.0);
    let style = r##"font-family="sans-serif" fill="#fafafc""##;
    let _ = write!(
        svg,
        r#"<text x="{0:.1}" y="{1:.1}" font-size="{size:.1}" {style}>{2}</text><text x="{0:.1}" y="{3:.1}" font-size="{4:.1}" opacity=".75" {style}>sandbox</text></svg>"#,
        size,
        height - size * 2.0,
        escaped(&picture.words),
        height - size * 0.8,
        size * 0.7,
    );
    svg
}

fn code([red, green, blue]: Color) -> String {
    format!("rgb({red:.0},{green:.0},{blue:.0})")
}

/// For text and attributes; what XML cannot hold is left out.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&apos;"),
            '\u{0}'..'\u{20}' | '\u{fffe}' | '\u{ffff}' => {}
            other => safe.push(other),
        }
    }
    safe
}
