//! Values just inside and just outside every limit of a kind.

use serde_json::{Map, Value as Json, json};

use super::super::{
    AspectRatioRule, Code, CustomSize, Kind, ListRule, NumberRule, ObjectRule, PathPart, SeedRule, SizeRule,
    TextFormat, TextRule,
};

/// A value and whether it is allowed; if not, the code and where below the parameter.
pub(super) enum Probe {
    Fits(Json),
    Breaks(Json, Code, Vec<PathPart>),
}

use Probe::{Breaks, Fits};

fn fits(value: impl Into<Json>) -> Probe {
    Fits(value.into())
}

fn breaks(value: impl Into<Json>, code: Code) -> Probe {
    Breaks(value.into(), code, Vec::new())
}

pub(super) fn key(name: &str) -> PathPart {
    PathPart::Key(name.to_owned())
}

impl Probe {
    /// The same probe, one level up: `wrap` puts the value where `part` leads.
    fn below(self, part: PathPart, wrap: impl Fn(Json) -> Json) -> Self {
        match self {
            Fits(value) => Fits(wrap(value)),
            Breaks(value, code, mut path) => {
                path.insert(0, part);
                Breaks(wrap(value), code, path)
            }
        }
    }
}

/// A valid value of this kind.
pub(super) fn valid(kind: &Kind) -> Json {
    match kind {
        Kind::Text(rule) if rule.format == Some(TextFormat::Uuid) => json!("0e9f1d6a-77a1-4d6a-9f6e-1f2a3b4c5d6e"),
        Kind::Text(rule) => json!("é".repeat(rule.min_length.max(1))),
        Kind::Integer(rule) => json!(rule.minimum),
        Kind::Seed(rule) => json!(rule.minimum),
        Kind::Number(rule) => json!(rule.minimum.or(rule.maximum).unwrap_or(0.5)),
        Kind::Boolean => json!(true),
        Kind::Choice(rule) => json!(rule.options[0]),
        Kind::Size(rule) => json!(rule.presets[0].name),
        Kind::AspectRatio(rule) => json!(rule.options[0].name),
        Kind::Image => json!("https://example.com/a.png"),
        Kind::List(rule) => json!(vec![valid(&rule.items); rule.min_items]),
        Kind::Object(rule) => {
            let required = rule.fields.iter().filter(|field| field.required);
            let fields = required.map(|field| (field.name.as_ref().to_owned(), valid(&field.kind)));
            Json::Object(fields.collect::<Map<_, _>>())
        }
    }
}

/// Every limit from both sides, and values of other types.
pub(super) fn probes(kind: &Kind) -> Vec<Probe> {
    let mut probes = match kind {
        Kind::Text(rule) => texts(rule),
        Kind::Integer(rule) => {
            let mut probes = vec![
                fits(rule.maximum),
                breaks(rule.minimum - 1, Code::TooSmall),
                breaks(rule.maximum + 1, Code::TooBig),
            ];
            probes.extend(not_whole());
            probes
        }
        Kind::Seed(rule) => seeds(rule),
        Kind::Number(rule) => numbers(rule),
        Kind::Boolean => vec![
            fits(false),
            breaks("true", Code::InvalidType),
            breaks(1, Code::InvalidType),
            breaks(json!([1]), Code::InvalidType),
        ],
        Kind::Choice(rule) => {
            let mut probes: Vec<_> = rule.options.iter().map(|option| fits(option.as_ref())).collect();
            probes.push(breaks("no such option", Code::InvalidEnumValue));
            probes.push(breaks(1, Code::InvalidType));
            probes
        }
        Kind::Size(rule) => sizes(rule),
        Kind::AspectRatio(rule) => ratios(rule),
        Kind::Image => images(),
        Kind::List(rule) => lists(rule),
        Kind::Object(rule) => objects(kind, rule),
    };
    probes.push(fits(valid(kind)));
    probes
}

fn texts(rule: &TextRule) -> Vec<Probe> {
    let mut probes =
        vec![breaks(5, Code::InvalidType), breaks("a\0b".repeat(rule.min_length.max(1)), Code::InvalidString)];
    if rule.format.is_some() {
        probes.push(breaks("no-uuid-at-all", Code::InvalidString));
    } else {
        // Four bytes each: code points are counted, not bytes.
        probes.push(fits("🦖".repeat(rule.max_length)));
        probes.push(breaks("🦖".repeat(rule.max_length + 1), Code::TooBig));
        probes.push(breaks("x".repeat(rule.max_length + 1), Code::TooBig));
        probes.push(fits("🦖".repeat(rule.min_length)));
    }
    if rule.min_length > 0 {
        probes.push(breaks("🦖".repeat(rule.min_length - 1), Code::TooSmall));
    }
    probes
}

fn not_whole() -> [Probe; 4] {
    [json!(1.5), json!("1"), json!(true), json!({})].map(|value| breaks(value, Code::InvalidType))
}

fn seeds(rule: &SeedRule) -> Vec<Probe> {
    let below = rule.minimum.checked_sub(1).map_or(json!(-1), |below| json!(below));
    let above = rule.maximum.checked_add(1).map_or(json!(18_446_744_073_709_551_616.0), |above| json!(above));
    let mut probes = vec![fits(rule.maximum), breaks(below, Code::TooSmall), breaks(above, Code::TooBig)];
    probes.extend(not_whole());
    probes
}

fn numbers(rule: &NumberRule) -> Vec<Probe> {
    let mut probes = vec![breaks("1", Code::InvalidType), breaks(true, Code::InvalidType)];
    if let Some(minimum) = rule.minimum {
        probes.push(fits(minimum.next_up()));
        probes.push(breaks(minimum.next_down(), Code::TooSmall));
        probes.push(breaks(-1e300, Code::TooSmall));
    }
    if let Some(maximum) = rule.maximum {
        probes.push(fits(maximum));
        probes.push(fits(maximum.next_down()));
        probes.push(breaks(maximum.next_up(), Code::TooBig));
        probes.push(breaks(1e300, Code::TooBig));
    }
    probes
}

fn sizes(rule: &SizeRule) -> Vec<Probe> {
    let mut probes: Vec<_> = rule.presets.iter().map(|preset| fits(preset.name.as_ref())).collect();
    probes.push(breaks("no_such_size", Code::InvalidEnumValue));
    probes.push(breaks(1024, Code::InvalidType));
    match &rule.custom {
        Some(custom) if custom.minimum_pixels.is_some() => probes.extend(sizes_by_area(custom)),
        Some(custom) => probes.extend(custom_sizes(custom)),
        None => {}
    }
    probes
}

/// Where the pixels altogether are limited, which all such models do from both sides.
fn sizes_by_area(custom: &CustomSize) -> Vec<Probe> {
    let root = |pixels: Option<u64>| u32::try_from(pixels.expect("both limits").isqrt()).expect("a side");
    let (least, most) = (root(custom.minimum_pixels), root(custom.maximum_pixels));
    assert_eq!((custom.minimum_pixels, custom.multiple_of), (Some(u64::from(least).pow(2)), 1));
    vec![
        fits(json!({ "width": least, "height": least })),
        fits(format!("{most}x{most}")),
        breaks(json!({ "width": least, "height": least - 1 }), Code::TooSmall),
        breaks(json!({ "width": most + 1, "height": most }), Code::TooBig),
        breaks(format!("{least}x{}", least - 1), Code::TooSmall),
        breaks(format!("{most}x{}", most + 1), Code::TooBig),
    ]
}

fn custom_sizes(custom: &CustomSize) -> Vec<Probe> {
    let step = custom.multiple_of;
    let least = custom.minimum.div_ceil(step) * step;
    let most = custom.maximum / step * step;
    let mut probes = vec![
        fits(json!({ "width": least, "height": most })),
        fits(json!({ "width": most, "height": least })),
        fits(format!("{least}x{most}")),
        breaks(format!("{}x{least}", custom.maximum + 1), Code::TooBig),
    ];
    if custom.minimum > 1 {
        probes.push(breaks(format!("{least}x{}", custom.minimum - 1), Code::TooSmall));
    }
    if step > 1 {
        probes.push(breaks(format!("{}x{least}", least + 1), Code::NotMultipleOf));
    }
    for (side, other) in [("width", "height"), ("height", "width")] {
        let mut wrong = vec![
            breaks(custom.minimum - 1, Code::TooSmall),
            breaks(custom.maximum + 1, Code::TooBig),
            breaks(1e300, Code::TooBig),
            breaks("512", Code::InvalidType),
            breaks(f64::from(least) + 0.5, Code::InvalidType),
        ];
        if step > 1 {
            wrong.push(breaks(least + 1, Code::NotMultipleOf));
            wrong.push(breaks(most - 1, Code::NotMultipleOf));
        }
        let size = |pixels| json!({ side: pixels, other: least });
        probes.extend(wrong.into_iter().map(|probe| probe.below(key(side), size)));
        let half = json!({ side: least });
        probes.push(match custom.missing_side {
            Some(_) => Fits(half),
            None => Breaks(half, Code::InvalidType, vec![key(other)]),
        });
    }
    probes
}

fn ratios(rule: &AspectRatioRule) -> Vec<Probe> {
    let mut probes = vec![breaks("7:5", Code::InvalidEnumValue), breaks(1.5, Code::InvalidType)];
    for option in &rule.options {
        probes.push(fits(option.name.as_ref()));
        if let Some((across, down)) = option.ratio {
            probes.push(fits(format!("{}x{}", across * 64, down * 64)));
            probes.push(fits(json!({ "width": across * 64, "height": down * 64 })));
            probes.push(breaks(format!("{}x{}", across * 640 + 1, down * 640), Code::InvalidEnumValue));
        }
    }
    probes
}

fn images() -> Vec<Probe> {
    let bad = ["a.png", "ftp://example.com/a.png", "data:image/png;base64,", "data:image/png,abc"];
    let mut probes: Vec<_> = bad.into_iter().map(|text| breaks(text, Code::InvalidString)).collect();
    probes.push(fits("data:image/png;base64,iVBORw0KGgo="));
    probes.push(breaks(5, Code::InvalidType));
    probes
}

fn lists(rule: &ListRule) -> Vec<Probe> {
    let many = |count| json!(vec![valid(&rule.items); count]);
    let mut probes = vec![fits(many(rule.max_items)), breaks(many(rule.max_items + 1), Code::TooBig)];
    if rule.min_items > 0 {
        probes.push(breaks(many(rule.min_items - 1), Code::TooSmall));
    }
    if !rule.accepts_single {
        probes.push(breaks(json!({ "0": 1 }), Code::InvalidType));
    }
    let item = |value| {
        let mut items = many(rule.min_items.max(1));
        items[0] = value;
        items
    };
    probes.extend(self::probes(&rule.items).into_iter().map(|probe| probe.below(PathPart::Index(0), item)));
    probes
}

fn objects(kind: &Kind, rule: &ObjectRule) -> Vec<Probe> {
    let mut probes = vec![breaks("text", Code::InvalidType), breaks(json!([1]), Code::InvalidType)];
    for field in &rule.fields {
        let object = |value| {
            let mut object = valid(kind);
            object[field.name.as_ref()] = value;
            object
        };
        let below = self::probes(&field.kind).into_iter().map(|probe| probe.below(key(&field.name), object));
        probes.extend(below);
        let empty = object(Json::Null);
        probes.push(if field.required {
            Breaks(empty, Code::InvalidType, vec![key(&field.name)])
        } else {
            Fits(empty)
        });
    }
    probes
}
