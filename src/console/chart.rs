//! A chart of stacked bars as SVG: a bar for each day, a part of it for each model. The table beside it has the same
//! numbers for those who do not see it.

use std::collections::BTreeMap;

use maud::{Markup, html};

/// How many parts have a colour of their own; the rest share the last one.
const COLOURS: usize = 8;
const WIDTH: i64 = 720;
const HEIGHT: i64 = 200;
/// Room for the words below and on the left.
const FOOT: i64 = 24;
const SIDE: i64 = 72;

/// One bar: what stands below it, and its parts by name. Parts are whole numbers of the smallest unit.
pub struct Bar {
    /// Its name, such as a date.
    pub label: String,
    /// What it is made of.
    pub parts: BTreeMap<String, i64>,
}

/// The chart; `unit` writes an amount for people.
pub fn stacked(title: &str, bars: &[Bar], unit: impl Fn(i64) -> String) -> Markup {
    let names = names(bars);
    let highest = bars.iter().map(|bar| bar.parts.values().sum::<i64>()).max().unwrap_or(0);
    if highest <= 0 {
        return html! {};
    }
    let step = (WIDTH - SIDE) / i64::try_from(bars.len().max(1)).unwrap_or(1);
    let scale = |amount: i64| i64::try_from(i128::from(amount) * i128::from(HEIGHT) / i128::from(highest)).unwrap_or(0);
    html! {
        figure {
            figcaption { (title) }
            svg .chart viewBox=(format!("0 0 {WIDTH} {}", HEIGHT + FOOT + 8)) role="img" aria-label=(title) {
                text .axis x="0" y="12" { (unit(highest)) }
                text .axis x="0" y=(HEIGHT + 4) { (unit(0)) }
                line .axis x1=(SIDE) y1=(HEIGHT) x2=(WIDTH) y2=(HEIGHT) {}
                @for (place, bar) in bars.iter().enumerate() {
                    @let x = SIDE + step * i64::try_from(place).unwrap_or(0);
                    @for (name, from, amount) in parts(bar, &names) {
                        rect class=(colour(&names, name)) x=(x + 1) y=(HEIGHT - scale(from + amount))
                            width=(step.max(3) - 2) height=(scale(from + amount) - scale(from)) {
                            title { (bar.label) ": " (name) " " (unit(amount)) }
                        }
                    }
                    @if place % bars.len().div_ceil(6) == 0 {
                        text .axis x=(x) y=(HEIGHT + FOOT - 4) { (bar.label) }
                    }
                }
            }
            ul .legend {
                @for name in names.iter().take(COLOURS) {
                    li { span class=(format!("swatch {}", colour(&names, name))) aria-hidden="true" {} (name) }
                }
                @if names.len() > COLOURS { li { "and " (names.len() - COLOURS) " more in the last colour" } }
            }
        }
    }
}

/// The names of all parts, the largest first.
fn names(bars: &[Bar]) -> Vec<&str> {
    let mut sums = BTreeMap::<&str, i64>::new();
    for (name, amount) in bars.iter().flat_map(|bar| &bar.parts) {
        *sums.entry(name).or_default() += amount;
    }
    let mut names: Vec<_> = sums.into_iter().collect();
    names.sort_by_key(|(_, sum)| std::cmp::Reverse(*sum));
    names.into_iter().map(|(name, _)| name).collect()
}

/// A bar's parts from the bottom, each with where it begins.
fn parts<'b>(bar: &'b Bar, names: &[&'b str]) -> Vec<(&'b str, i64, i64)> {
    let mut from = 0;
    let mut parts = Vec::new();
    for name in names {
        let amount = bar.parts.get(*name).copied().unwrap_or(0);
        if amount > 0 {
            parts.push((*name, from, amount));
            from += amount;
        }
    }
    parts
}

fn colour(names: &[&str], name: &str) -> String {
    let place = names.iter().position(|known| *known == name).unwrap_or(COLOURS);
    format!("c{}", place.min(COLOURS - 1))
}
