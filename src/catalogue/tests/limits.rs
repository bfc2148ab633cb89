//! Every limit of every parameter of every model, from both sides, taken from the files.

use serde_json::{Map, Number, Value as Json, json};

use super::super::{Catalogue, Code, Kind, Model, Parameter, PathPart, Rejection, Strictness, TextFormat, parse};
use super::catalogue;

/// A value and whether it is allowed; if not, the code and where below the parameter.
enum Probe {
    Fits(Json),
    Breaks(Json, Code, Vec<PathPart>),
}

fn breaks(value: impl Into<Json>, code: Code) -> Probe {
    Probe::Breaks(value.into(), code, Vec::new())
}

/// A valid value of this kind.
fn valid(kind: &Kind) -> Json {
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
            let fields: Map<_, _> =
                required.map(|field| (field.name.as_ref().to_owned(), valid(&field.kind))).collect();
            Json::Object(fields)
        }
    }
}

fn key(name: &str) -> PathPart {
    PathPart::Key(name.to_owned())
}

fn probes(kind: &Kind) -> Vec<Probe> {
    let mut probes = vec![Probe::Fits(valid(kind))];
    match kind {
        Kind::Text(rule) => {
            probes.push(breaks(5, Code::InvalidType));
            probes.push(breaks("a\0b".repeat(rule.min_length.max(1)), Code::InvalidString));
            if rule.format.is_some() {
                probes.push(breaks("no-uuid-at-all", Code::InvalidString));
            } else {
                // Four bytes each: code points are counted, not bytes.
                probes.push(Probe::Fits(json!("🦖".repeat(rule.max_length))));
                probes.push(breaks("🦖".repeat(rule.max_length + 1), Code::TooBig));
            }
            if rule.min_length > 0 {
                probes.push(breaks("🦖".repeat(rule.min_length - 1), Code::TooSmall));
            }
        }
        Kind::Integer(rule) => {
            probes.push(Probe::Fits(json!(rule.maximum)));
            probes.push(breaks(rule.minimum - 1, Code::TooSmall));
            probes.push(breaks(rule.maximum + 1, Code::TooBig));
            probes.extend(not_whole());
        }
        Kind::Seed(rule) => {
            probes.push(Probe::Fits(json!(rule.maximum)));
            let below = rule.minimum.checked_sub(1).map_or(json!(-1), |below| json!(below));
            probes.push(breaks(below, Code::TooSmall));
            let above = rule.maximum.checked_add(1).map_or(json!(18_446_744_073_709_551_616.0), |above| json!(above));
            probes.push(breaks(above, Code::TooBig));
            probes.extend(not_whole());
        }
        Kind::Number(rule) => {
            if let Some(minimum) = rule.minimum {
                probes.push(Probe::Fits(json!(minimum.next_up())));
                probes.push(breaks(minimum.next_down(), Code::TooSmall));
                probes.push(breaks(-1e300, Code::TooSmall));
            }
            if let Some(maximum) = rule.maximum {
                probes.push(Probe::Fits(json!(maximum)));
                probes.push(Probe::Fits(json!(maximum.next_down())));
                probes.push(breaks(maximum.next_up(), Code::TooBig));
                probes.push(breaks(1e300, Code::TooBig));
            }
            probes.push(breaks("1", Code::InvalidType));
            probes.push(breaks(true, Code::InvalidType));
        }
        Kind::Boolean => {
            probes.push(Probe::Fits(json!(false)));
            probes.extend([json!("true"), json!(1), json!([])].map(|value| breaks(value, Code::InvalidType)));
        }
        Kind::Choice(rule) => {
            probes.extend(rule.options.iter().map(|option| Probe::Fits(json!(option))));
            probes.push(breaks("no such option", Code::InvalidEnumValue));
            probes.push(breaks("", Code::InvalidEnumValue));
            probes.push(breaks(1, Code::InvalidType));
        }
        Kind::Size(rule) => {
            probes.extend(rule.presets.iter().map(|preset| Probe::Fits(json!(preset.name))));
            probes.push(breaks("no_such_size", Code::InvalidEnumValue));
            probes.push(breaks(1024, Code::InvalidType));
            if let Some(custom) = &rule.custom {
                let step = custom.multiple_of;
                let least = custom.minimum.div_ceil(step) * step;
                let most = custom.maximum / step * step;
                probes.push(Probe::Fits(json!({ "width": least, "height": most })));
                probes.push(Probe::Fits(json!({ "width": most, "height": least })));
                for side in ["width", "height"] {
                    let size = |pixels: Json| {
                        let mut size = json!({ "width": least, "height": least });
                        size[side] = pixels;
                        size
                    };
                    let mut side_breaks = |pixels: Json, code: Code| {
                        probes.push(Probe::Breaks(size(pixels), code, vec![key(side)]));
                    };
                    side_breaks(json!(custom.minimum - 1), Code::TooSmall);
                    side_breaks(json!(custom.maximum + 1), Code::TooBig);
                    side_breaks(json!(1e300), Code::TooBig);
                    side_breaks(json!("512"), Code::InvalidType);
                    side_breaks(json!(f64::from(least) + 0.5), Code::InvalidType);
                    if step > 1 {
                        side_breaks(json!(least + 1), Code::NotMultipleOf);
                        side_breaks(json!(most - 1), Code::NotMultipleOf);
                    }
                    let half = json!({ side: least });
                    probes.push(match custom.missing_side {
                        Some(_) => Probe::Fits(half),
                        None => {
                            let other = if side == "width" { "height" } else { "width" };
                            Probe::Breaks(half, Code::InvalidType, vec![key(other)])
                        }
                    });
                }
                probes.push(Probe::Fits(json!(format!("{least}x{most}"))));
                probes.push(breaks(format!("{}x{least}", custom.maximum + 1), Code::TooBig));
                if custom.minimum > 1 {
                    probes.push(breaks(format!("{least}x{}", custom.minimum - 1), Code::TooSmall));
                }
                if step > 1 {
                    probes.push(breaks(format!("{}x{least}", least + 1), Code::NotMultipleOf));
                }
            }
        }
        Kind::AspectRatio(rule) => {
            for option in &rule.options {
                probes.push(Probe::Fits(json!(option.name)));
                if let Some((across, down)) = option.ratio {
                    probes.push(Probe::Fits(json!(format!("{}x{}", across * 64, down * 64))));
                    probes.push(Probe::Fits(json!({ "width": across * 64, "height": down * 64 })));
                    probes.push(breaks(format!("{}x{}", across * 640 + 1, down * 640), Code::InvalidEnumValue));
                }
            }
            probes.push(breaks("7:5", Code::InvalidEnumValue));
            probes.push(breaks(1.5, Code::InvalidType));
        }
        Kind::Image => {
            probes.push(Probe::Fits(json!("data:image/png;base64,iVBORw0KGgo=")));
            for text in ["", "a.png", "ftp://example.com/a.png", "data:image/png;base64,", "data:image/png,abc"] {
                probes.push(breaks(text, Code::InvalidString));
            }
            probes.push(breaks(5, Code::InvalidType));
        }
        Kind::List(rule) => {
            probes.push(Probe::Fits(json!(vec![valid(&rule.items); rule.max_items])));
            probes.push(breaks(json!(vec![valid(&rule.items); rule.max_items + 1]), Code::TooBig));
            if rule.min_items > 0 {
                probes.push(breaks(json!(vec![valid(&rule.items); rule.min_items - 1]), Code::TooSmall));
            }
            let item = |value: Json| {
                let mut items = vec![valid(&rule.items); rule.min_items.max(1)];
                items[0] = value;
                json!(items)
            };
            for probe in self::probes(&rule.items) {
                probes.push(match probe {
                    Probe::Fits(value) => Probe::Fits(item(value)),
                    Probe::Breaks(value, code, mut path) => {
                        path.insert(0, PathPart::Index(0));
                        Probe::Breaks(item(value), code, path)
                    }
                });
            }
            if !rule.accepts_single {
                probes.push(breaks(json!({ "0": 1 }), Code::InvalidType));
            }
        }
        Kind::Object(rule) => {
            for field in &rule.fields {
                let object = |value: Json| {
                    let mut object = valid(kind);
                    object[field.name.as_ref()] = value;
                    object
                };
                for probe in self::probes(&field.kind) {
                    probes.push(match probe {
                        Probe::Fits(value) => Probe::Fits(object(value)),
                        Probe::Breaks(value, code, mut path) => {
                            path.insert(0, key(&field.name));
                            Probe::Breaks(object(value), code, path)
                        }
                    });
                }
                let empty = object(Json::Null);
                probes.push(if field.required {
                    Probe::Breaks(empty, Code::InvalidType, vec![key(&field.name)])
                } else {
                    Probe::Fits(empty)
                });
            }
            probes.push(breaks("text", Code::InvalidType));
            probes.push(breaks(json!([]), Code::InvalidType));
        }
    }
    probes
}

fn not_whole() -> [Probe; 4] {
    [
        breaks(1.5, Code::InvalidType),
        breaks("1", Code::InvalidType),
        breaks(true, Code::InvalidType),
        breaks(json!({}), Code::InvalidType),
    ]
}

/// A request with every required parameter and this one.
fn request(model: &Model, name: &str, value: Json) -> Json {
    let mut request = Map::new();
    request.insert("model".to_owned(), json!(model.id));
    for parameter in model.parameters.iter().filter(|parameter| parameter.required) {
        request.insert(parameter.name.as_ref().to_owned(), valid(&parameter.kind));
    }
    request.insert(name.to_owned(), value);
    Json::Object(request)
}

fn try_probe(catalogue: &Catalogue, model: &Model, name: &str, probe: Probe) {
    let (value, wanted) = match probe {
        Probe::Fits(value) => (value, None),
        Probe::Breaks(value, code, mut path) => {
            path.insert(0, key(name));
            (value, Some((code, path)))
        }
    };
    let text = request(model, name, value).to_string();
    let shown: String = text.chars().take(300).collect();
    let outcome = catalogue.order(&parse(text.as_bytes()).unwrap(), Strictness::Strict);
    match (outcome, wanted) {
        (Ok(_), None) => {}
        (Ok(_), Some(wanted)) => panic!("{wanted:?} was taken: {shown}"),
        (Err(rejection), None) => panic!("{rejection}: {shown}"),
        (Err(Rejection::Invalid(found)), Some((code, path))) => {
            assert_eq!(found.len(), 1, "{found:?}: {shown}");
            assert_eq!((found[0].code, &found[0].path), (code, &path), "{shown}");
        }
        (Err(rejection), Some(_)) => panic!("{rejection}: {shown}"),
    }
}

#[test]
fn every_limit_of_every_model_holds_from_both_sides() {
    let catalogue = catalogue();
    for model in catalogue.models() {
        for parameter in &model.parameters {
            for probe in probes(&parameter.kind) {
                try_probe(&catalogue, model, &parameter.name, probe);
            }
        }
    }
}

#[test]
fn every_other_name_of_a_parameter_is_checked_like_the_first() {
    let catalogue = catalogue();
    for model in catalogue.models() {
        // A required parameter is in the request already, under its first name.
        for parameter in model.parameters.iter().filter(|parameter| !parameter.required) {
            for name in &parameter.accepts {
                for probe in probes(&parameter.kind) {
                    try_probe(&catalogue, model, name, probe);
                }
            }
        }
    }
}

#[test]
fn the_nearest_value_that_is_told_is_itself_allowed() {
    let catalogue = catalogue();
    for model in catalogue.models() {
        for parameter in &model.parameters {
            for probe in probes(&parameter.kind) {
                let Probe::Breaks(value, ..) = probe else { continue };
                follow_advice(&catalogue, model, parameter, value);
            }
        }
    }
}

/// Puts the nearest value where the problem is; that problem must then be gone.
fn follow_advice(catalogue: &Catalogue, model: &Model, parameter: &Parameter, value: Json) {
    let mut request = request(model, &parameter.name, value);
    let text = request.to_string();
    let Err(Rejection::Invalid(found)) = catalogue.order(&parse(text.as_bytes()).unwrap(), Strictness::Strict) else {
        panic!("{text} was taken")
    };
    let Some(nearest) = found[0].nearest.clone() else { return };
    let place = found[0].path.iter().fold(&mut request, |place, part| match part {
        PathPart::Key(key) => &mut place[key],
        PathPart::Index(index) => &mut place[index],
    });
    *place = nearest;
    let text = request.to_string();
    let outcome = catalogue.order(&parse(text.as_bytes()).unwrap(), Strictness::Strict);
    assert!(outcome.is_ok(), "{}: {text}", outcome.unwrap_err());
}

#[test]
fn every_default_is_sent_as_the_file_has_it() {
    let catalogue = catalogue();
    for model in catalogue.models() {
        let mut request = json!({ "model": model.id });
        for parameter in model.parameters.iter().filter(|parameter| parameter.required) {
            request[parameter.name.as_ref()] = valid(&parameter.kind);
        }
        let text = request.to_string();
        let order = catalogue.order(&parse(text.as_bytes()).unwrap(), Strictness::Strict).unwrap();
        let normalized = order.normalized();
        for parameter in &model.parameters {
            let default = parameter.default.as_ref().map(super::super::Value::to_json);
            if !parameter.required {
                assert_eq!(normalized.get(parameter.name.as_ref()), default.as_ref(), "`{}`", parameter.name);
            }
        }
    }
}

/// So that `json!` above compares numbers as they are written.
#[test]
fn limits_are_compared_as_exact_numbers() {
    assert_eq!(json!(u64::MAX), Json::Number(Number::from(u64::MAX)));
}
