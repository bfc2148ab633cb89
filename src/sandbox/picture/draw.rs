//! The scenes: a landscape of misty hills, or a field of soft colours with translucent discs.
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "pixels: every value is bounded by the picture's sides or by 255"
)]

use super::Numbers;

/// Red, green and blue, each 0 to 255.
pub type Color = [f32; 3];

/// What is drawn on.
#[derive(Debug)]
pub struct Canvas {
    /// In pixels.
    pub width: usize,
    /// In pixels.
    pub height: usize,
    /// Red, green and blue for each pixel, row by row.
    pub pixels: Vec<u8>,
}

impl Canvas {
    /// A black one.
    pub fn new(width: u32, height: u32) -> Self {
        let (width, height) = (width as usize, height as usize);
        Self { width, height, pixels: vec![0; width * height * 3] }
    }

    /// The rows from the top, each with its number.
    fn rows(&mut self) -> impl Iterator<Item = (usize, &mut [u8])> {
        self.pixels.chunks_exact_mut(self.width * 3).enumerate()
    }

    /// Lays `color` over one pixel, `share` (0 to 1) of it.
    pub fn blend(&mut self, x: usize, y: usize, color: Color, share: f32) {
        let at = (y * self.width + x) * 3;
        if let Some(pixel) = self.pixels.get_mut(at..at + 3) {
            blend(pixel, color, share);
        }
    }
}

fn blend(pixel: &mut [u8], color: Color, share: f32) {
    for (channel, wanted) in pixel.iter_mut().zip(color) {
        let now = f32::from(*channel);
        *channel = (now + (wanted - now) * share + 0.5) as u8;
    }
}

/// Between `a` and `b`.
pub fn mix(a: Color, b: Color, share: f32) -> Color {
    std::array::from_fn(|channel| a[channel] + (b[channel] - a[channel]) * share)
}

/// A colour by hue (turns), saturation and lightness (0 to 1).
pub fn hsl(hue: f32, saturation: f32, lightness: f32) -> Color {
    let reach = saturation * lightness.min(1.0 - lightness);
    [0.0, 8.0, 4.0].map(|offset| {
        let place = (offset + hue.rem_euclid(1.0) * 12.0) % 12.0;
        255.0 * (lightness - reach * (place - 3.0).min(9.0 - place).clamp(-1.0, 1.0))
    })
}

/// The colours of one picture.
#[derive(Debug, Clone, Copy)]
pub struct Palette {
    /// Of the upper edge.
    pub zenith: Color,
    /// Of the middle.
    pub horizon: Color,
    /// Of light.
    pub glow: Color,
    /// Of what is near.
    pub near: Color,
}

impl Palette {
    /// Hues that go together: a base, its neighbour, and a warm or opposite light.
    pub fn take(numbers: &mut Numbers) -> Self {
        let hue = numbers.between(0.0, 1.0);
        let turn = numbers.between(0.06, 0.16) * if numbers.below(2) == 0 { 1.0 } else { -1.0 };
        let light = if numbers.below(3) == 0 { 0.1 } else { hue + 0.5 };
        Self {
            zenith: hsl(hue, numbers.between(0.45, 0.7), numbers.between(0.26, 0.5)),
            horizon: hsl(hue + turn, numbers.between(0.6, 0.85), numbers.between(0.72, 0.82)),
            glow: hsl(light, 0.9, 0.9),
            near: hsl(hue + turn * 0.4, 0.5, numbers.between(0.1, 0.16)),
        }
    }
}

/// Draws the scene that the numbers choose.
pub fn scene(canvas: &mut Canvas, mut numbers: Numbers) {
    let palette = Palette::take(&mut numbers);
    if numbers.below(3) == 0 {
        discs(canvas, &palette, numbers);
    } else {
        hills(canvas, &palette, numbers);
    }
}

/// A sky with a low sun, and ranges of hills that get darker as they come nearer.
fn hills(canvas: &mut Canvas, palette: &Palette, mut numbers: Numbers) {
    let (width, height) = (canvas.width as f32, canvas.height as f32);
    let short = width.min(height);
    let sun = [width * numbers.between(0.18, 0.82), height * numbers.between(0.2, 0.42)];
    let radius = short * numbers.between(0.07, 0.12);
    let reach = 1.0 / (short * 0.3).powi(2);
    for (y, row) in canvas.rows() {
        let sky = mix(palette.zenith, palette.horizon, (y as f32 / (height * 0.62)).min(1.0));
        let dy = y as f32 + 0.5 - sun[1];
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            let dx = x as f32 + 0.5 - sun[0];
            let square = dx * dx + dy * dy;
            let halo = 0.65 / (1.0 + square * reach * 4.0);
            let disc = (radius - square.sqrt() + 0.5).clamp(0.0, 1.0);
            let color = mix(sky, palette.glow, halo.max(disc));
            for (channel, value) in pixel.iter_mut().zip(color) {
                *channel = (value + 0.5) as u8;
            }
        }
    }
    let ranges = 5;
    for range in 0..ranges {
        let nearness = (range as f32 + 1.0) / ranges as f32;
        let color = mix(palette.horizon, palette.near, nearness.powf(0.8));
        let crest = Crest::take(&mut numbers, nearness, width / short);
        let tops: Vec<f32> = (0..canvas.width).map(|x| height * crest.at(x as f32 / width)).collect();
        let highest = tops.iter().copied().fold(height, f32::min).floor().max(0.0) as usize;
        for (y, row) in canvas.rows().skip(highest) {
            for (pixel, top) in row.chunks_exact_mut(3).zip(&tops) {
                let depth = y as f32 + 0.5 - top;
                if depth > -0.5 {
                    // Mist lies at the foot of each range.
                    let mist = (depth / (height * 0.3)).min(1.0) * 0.35 * (1.0 - nearness);
                    blend(pixel, mix(color, palette.horizon, mist), (depth + 0.5).min(1.0));
                }
            }
        }
    }
}

/// The line of one range of hills: a few waves laid over each other.
#[derive(Debug, Clone, Copy)]
pub struct Crest {
    level: f32,
    waves: [[f32; 3]; 4],
}

impl Crest {
    /// `nearness` from 0 (at the horizon) to 1; `stretch` is how much wider than high the picture is, at least 1.
    pub fn take(numbers: &mut Numbers, nearness: f32, stretch: f32) -> Self {
        let level = 0.44 + 0.4 * nearness + numbers.between(-0.02, 0.02);
        let waves = std::array::from_fn(|wave| {
            let pace = (wave as f32 * 1.7 + 1.0) * numbers.between(2.0, 4.0) * stretch.sqrt();
            [pace, numbers.between(0.0, 6.3), 0.05 / (1.0 + wave as f32 * 1.6)]
        });
        Self { level, waves }
    }

    /// The height of the line, as a share of the picture from its top, at a share of its width.
    pub fn at(&self, across: f32) -> f32 {
        let waves = self.waves.iter();
        self.level + waves.map(|[pace, phase, size]| (across * pace + phase).sin() * size).sum::<f32>()
    }
}

/// A field of four colours that flow into each other, and discs of light over it.
fn discs(canvas: &mut Canvas, palette: &Palette, mut numbers: Numbers) {
    let (width, height) = (canvas.width as f32, canvas.height as f32);
    let short = width.min(height);
    let deep = mix(palette.zenith, palette.near, 0.45);
    let springs = [palette.zenith, palette.horizon, deep, palette.zenith, mix(palette.glow, palette.horizon, 0.5)]
        .map(|color| (color, numbers.between(-0.1, 1.1) * width, numbers.between(-0.1, 1.1) * height));
    let soft = (short * 0.12).powi(2);
    for (y, row) in canvas.rows() {
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            let mut sum: Color = [0.0; 3];
            let mut weight = 0.0;
            for (color, at_x, at_y) in &springs {
                let square = (x as f32 - at_x).powi(2) + (y as f32 - at_y).powi(2) + soft;
                let share = 1.0 / (square * square);
                weight += share;
                for (channel, value) in sum.iter_mut().zip(color) {
                    *channel += value * share;
                }
            }
            for (channel, value) in pixel.iter_mut().zip(sum) {
                *channel = (value / weight + 0.5) as u8;
            }
        }
    }
    for _ in 0..5 {
        let radius = short * numbers.between(0.08, 0.34);
        let middle = [width * numbers.between(0.05, 0.95), height * numbers.between(0.05, 0.7)];
        let strength = numbers.between(0.1, 0.28);
        let last = (middle[1] + radius + 1.0).max(0.0) as usize;
        for (y, row) in canvas.rows().take(last).skip((middle[1] - radius - 1.0).max(0.0) as usize) {
            for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
                let away = (x as f32 + 0.5 - middle[0]).hypot(y as f32 + 0.5 - middle[1]);
                let edge = (radius - away + 0.5).clamp(0.0, 1.0);
                if edge > 0.0 {
                    let share = strength * edge * (0.45 + 0.55 * away / radius);
                    blend(pixel, palette.glow, share.min(1.0));
                }
            }
        }
    }
}
