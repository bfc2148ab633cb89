//! The prompt's words and the word "sandbox" on a picture, in an 8×8 font scaled with rounded corners.
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "pixels: every value is bounded by the picture's sides"
)]

use font8x8::legacy::{BASIC_LEGACY, GREEK_LEGACY, HIRAGANA_LEGACY, LATIN_LEGACY};

use super::draw::Canvas;

const CELL: usize = 8;
const WHITE: [f32; 3] = [250.0, 250.0, 252.0];
const MARK: &str = "sandbox";
/// What stands for a letter that the font lacks.
const UNKNOWN: [u8; 8] = [0x00, 0x7e, 0x42, 0x42, 0x42, 0x42, 0x7e, 0x00];

/// Writes the caption at the foot of the picture, as large as the picture allows; nothing on one too small to read.
pub fn caption(canvas: &mut Canvas, words: &str) {
    let (width, height) = (canvas.width, canvas.height);
    let scale = (width.min(height * 3 / 2) / 256).clamp(1, 24);
    let margin = (scale * 8).min(width / 24);
    let small = (scale * 2).div_ceil(3);
    let line_height = scale * (CELL + 3);
    let mark_height = small * (CELL + 2);
    if height < CELL + 4 || width < CELL * MARK.len() {
        return;
    }
    let columns = (width - 2 * margin) / (CELL * scale);
    let room = (height * 3 / 5).saturating_sub(mark_height + 2 * margin) / line_height;
    let mut lines = wrapped(words, columns.max(1));
    lines.truncate(room);
    let block = lines.len() * line_height + mark_height + margin;
    shade(canvas, block + margin + line_height);
    let mut y = height.saturating_sub(block);
    for line in &lines {
        write(canvas, line, (margin, y), scale, 0.96);
        y += line_height;
    }
    write(canvas, MARK, (margin, y), small, 0.72);
}

/// Darkens the foot of the picture, ever more towards the edge.
fn shade(canvas: &mut Canvas, block: usize) {
    let block = block.min(canvas.height);
    let top = canvas.height - block;
    for y in top..canvas.height {
        let share = 0.62 * ((y - top) as f32 / block as f32 * 1.8).min(1.0);
        for x in 0..canvas.width {
            canvas.blend(x, y, [8.0, 10.0, 18.0], share);
        }
    }
}

/// Lines of at most `columns` letters, broken between words where possible.
fn wrapped(words: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words.split(' ').filter(|word| !word.is_empty()) {
        let mut letters: Vec<char> = word.chars().collect();
        let length = letters.len();
        if let Some(line) = lines.last_mut().filter(|line| line.chars().count() + 1 + length <= columns) {
            line.push(' ');
            line.push_str(word);
            continue;
        }
        while letters.len() > columns {
            let rest = letters.split_off(columns);
            lines.push(letters.into_iter().collect());
            letters = rest;
        }
        lines.push(letters.into_iter().collect());
    }
    lines
}

fn write(canvas: &mut Canvas, line: &str, (left, top): (usize, usize), scale: usize, strength: f32) {
    for (place, letter) in line.chars().enumerate() {
        let glyph = glyph(letter);
        let origin = left + place * CELL * scale;
        for y in 0..CELL * scale {
            for x in 0..CELL * scale {
                let share = coverage(glyph, x, y, scale);
                if share > 0.0 && origin + x < canvas.width && top + y < canvas.height {
                    canvas.blend(origin + x, top + y, WHITE, share * strength);
                }
            }
        }
    }
}

/// How much of a scaled glyph's pixel is ink: the glyph is read as a smooth field and cut at its middle.
fn coverage(glyph: [u8; 8], x: usize, y: usize, scale: usize) -> f32 {
    if scale == 1 {
        return ink(glyph, x as isize, y as isize);
    }
    let place = |pixel: usize| (pixel as f32 + 0.5) / scale as f32 - 0.5;
    let (x, y) = (place(x), place(y));
    let (left, top) = (x.floor(), y.floor());
    let (across, down) = (x - left, y - top);
    let (left, top) = (left as isize, top as isize);
    let upper = ink(glyph, left, top) * (1.0 - across) + ink(glyph, left + 1, top) * across;
    let lower = ink(glyph, left, top + 1) * (1.0 - across) + ink(glyph, left + 1, top + 1) * across;
    let field = upper * (1.0 - down) + lower * down;
    ((field - 0.42) * scale as f32 + 0.5).clamp(0.0, 1.0)
}

fn ink(glyph: [u8; 8], x: isize, y: isize) -> f32 {
    let row = usize::try_from(y).ok().and_then(|y| glyph.get(y)).copied().unwrap_or(0);
    let set = (0..8).contains(&x) && row >> x & 1 == 1;
    f32::from(u8::from(set))
}

fn glyph(letter: char) -> [u8; 8] {
    let code = letter as usize;
    let found = match code {
        0x20..0x7f => BASIC_LEGACY.get(code),
        0xa0..0x100 => LATIN_LEGACY.get(code - 0xa0),
        0x390..0x3ca => GREEK_LEGACY.get(code - 0x390),
        0x3040..0x30a0 => HIRAGANA_LEGACY.get(code - 0x3040),
        _ => None,
    };
    match letter {
        '\u{2018}' | '\u{2019}' => BASIC_LEGACY[usize::from(b'\'')],
        '\u{201c}' | '\u{201d}' => BASIC_LEGACY[usize::from(b'"')],
        '\u{2013}' | '\u{2014}' => BASIC_LEGACY[usize::from(b'-')],
        _ => found.copied().unwrap_or(UNKNOWN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_within_those_that_are_too_long() {
        assert_eq!(wrapped("a red fox", 5), ["a red", "fox"]);
        assert_eq!(wrapped("lighthouse", 4), ["ligh", "thou", "se"]);
        assert!(wrapped("", 4).is_empty());
    }

    #[test]
    fn words_leave_ink_on_the_picture() {
        let ink = |words| {
            let mut canvas = Canvas::new(512, 256);
            caption(&mut canvas, words);
            canvas.pixels.iter().filter(|channel| **channel > 150).count()
        };
        assert!(ink("") > 0, "the mark is missing");
        assert!(ink("fox") > ink(""));
    }

    #[test]
    fn every_letter_has_a_glyph() {
        for letter in ['a', 'é', 'Ω', 'の', '漢', '🦊', '’'] {
            assert_ne!(glyph(letter), [0; 8], "{letter}");
        }
    }
}
