//! What is changed of a request so that it fits, where its client has asked for that; and nothing where it has not.

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof};
use proptest::proptest;
use serde_json::{Value as Json, json};

use super::super::{CustomSize, Handling, Kind, Model, Order, Rejection, Size, SizeRule, Strictness, Value, parse};
use super::words::with;
use super::{catalogue, offered};
use crate::domain::Adapt;

fn adapted(request: &Json, adapt: &str, strictness: Strictness) -> Result<Order, Rejection> {
    let handling = Handling { strictness, adapt: adapt.parse().expect("a list of words"), ..Handling::default() };
    catalogue().order(&parse(request.to_string().as_bytes()).expect("JSON"), handling)
}

fn given<'o>(order: &'o Order, name: &str) -> Option<&'o Value> {
    order.parameters().find(|(parameter, _)| *parameter.name == *name).map(|(_, value)| value)
}

fn request(model: &str, fields: &Json) -> Json {
    with(catalogue().model(model).expect("it is there"), fields)
}

#[test]
fn each_kind_of_change_is_named_and_happens_only_where_it_is_asked_for() {
    for (model, adapt, fields, changes) in [
        ("flux/dev", "numbers", json!({ "num_images": "2" }), json!([{ "field": "num_images", "from": "2", "to": 2 }])),
        (
            "flux/dev",
            "numbers",
            json!({ "guidance_scale": " 3.5 ", "num_inference_steps": "30.0" }),
            json!([
                { "field": "guidance_scale", "from": " 3.5 ", "to": 3.5 },
                { "field": "num_inference_steps", "from": "30.0", "to": 30 },
            ]),
        ),
        (
            "flux-lora",
            "numbers",
            json!({ "loras": [{ "path": "https://example.com/l.safetensors", "scale": "0.5" }] }),
            json!([{ "field": "loras.0.scale", "from": "0.5", "to": 0.5 }]),
        ),
        (
            "flux/dev",
            "numbers",
            json!({ "width": "1024", "height": 768 }),
            json!([{ "field": "width", "from": "1024", "to": 1024 }]),
        ),
        ("flux/dev", "seed", json!({ "seed": -1 }), json!([{ "field": "seed", "from": -1, "to": "random" }])),
        (
            "flux/dev",
            "output_format",
            json!({ "output_format": "webp" }),
            json!([{ "field": "output_format", "from": "webp", "to": "png" }]),
        ),
        (
            "flux/dev",
            "output_format",
            json!({ "output_format": "JPG" }),
            json!([{ "field": "output_format", "from": "JPG", "to": "jpeg" }]),
        ),
        (
            "gpt-image-1.5",
            "quality",
            json!({ "quality": "standard" }),
            json!([{ "field": "quality", "from": "standard", "to": "medium" }]),
        ),
        (
            "gpt-image-1.5",
            "quality",
            json!({ "quality": "ultra" }),
            json!([{ "field": "quality", "from": "ultra", "to": "high" }]),
        ),
        (
            "flux-realism",
            "size",
            json!({ "size": "2000x1000" }),
            json!([{ "field": "size", "from": "2000x1000", "to": "1536x768" }]),
        ),
        (
            "flux-realism",
            "size",
            json!({ "image_size": { "width": 100, "height": 100.4 } }),
            json!([
                { "field": "image_size.height", "from": 100.4, "to": 512 },
                { "field": "image_size.width", "from": 100, "to": 512 },
            ]),
        ),
        (
            "flux-realism",
            "size",
            json!({ "size": "520x513" }),
            json!([{ "field": "size", "from": "520x513", "to": "512x512" }]),
        ),
        (
            "flux-pro/v1.1-ultra",
            "size",
            json!({ "size": "1000x990" }),
            json!([{ "field": "size", "from": "1000x990", "to": "1:1" }]),
        ),
        (
            "flux-pro/v1.1-ultra",
            "size",
            json!({ "aspect_ratio": "17:9" }),
            json!([{ "field": "aspect_ratio", "from": "17:9", "to": "16:9" }]),
        ),
        (
            "flux-realism",
            "size, numbers",
            json!({ "width": "3000", "height": "3000" }),
            json!([
                { "field": "width", "from": "3000", "to": 1536 },
                { "field": "height", "from": "3000", "to": 1536 },
            ]),
        ),
    ] {
        let request = request(model, &fields);
        for all in [adapt, "all"] {
            let order = adapted(&request, all, Strictness::Strict).expect("it fits");
            assert_eq!(json!(order.adapted), changes, "{request} with {all}");
        }
        // Without the word it is refused as it always was.
        for none in ["none", if adapt.contains("size") { "seed" } else { "size" }] {
            assert!(adapted(&request, none, Strictness::Strict).is_err(), "{request} with {none}");
        }
    }
}

#[test]
fn what_cannot_be_meant_stays_an_error() {
    for (model, fields) in [
        ("flux/dev", json!({ "seed": -2 })),
        ("flux/dev", json!({ "num_images": "two" })),
        ("flux/dev", json!({ "num_images": "9" })),
        ("flux/dev", json!({ "enable_safety_checker": "true" })),
        ("flux/dev", json!({ "output_format": "mp3" })),
        ("gpt-image-1.5", json!({ "quality": "noir" })),
        ("flux/dev", json!({ "size": "0x0" })),
        ("flux/dev", json!({ "size": "huge" })),
        ("flux/dev", json!({ "width": 0, "height": 5 })),
        ("flux/dev", json!({ "negative_prompt": "fog" })),
        ("flux/dev", json!({ "size": "5000x5000", "aspect_ratio": "16:9" })),
    ] {
        let request = request(model, &fields);
        assert!(adapted(&request, "all", Strictness::Lenient).is_err(), "{request}");
    }
}

#[test]
fn a_random_seed_is_none_and_a_seed_that_a_model_takes_stays() {
    let order = adapted(&request("flux/dev", &json!({ "seed": "-1" })), "seed, numbers", Strictness::Strict);
    assert_eq!(given(&order.expect("it fits"), "seed"), None);
    for model in offered(catalogue()) {
        let order = adapted(&with(model, &json!({ "seed": -1 })), "all", Strictness::Lenient).expect("it fits");
        let seed = model.parameters.iter().find(|parameter| &*parameter.name == "seed");
        let takes = matches!(seed.map(|seed| &seed.kind), Some(Kind::Integer(rule)) if rule.minimum <= -1);
        assert_eq!(order.adapted.is_empty(), takes, "{}", model.id);
        assert_eq!(given(&order, "seed").is_some(), takes, "{}", model.id);
    }
}

/// The rule of the sizes that a model takes in pixels or by name.
fn sizes_of(model: &Model) -> Option<&SizeRule> {
    model.parameters.iter().find_map(|parameter| match &parameter.kind {
        Kind::Size(rule) => Some(rule),
        _ => None,
    })
}

fn ratios_of(model: &Model) -> Option<Vec<(u32, u32)>> {
    model.parameters.iter().find_map(|parameter| match &parameter.kind {
        Kind::AspectRatio(rule) => Some(rule.options.iter().filter_map(|option| option.ratio).collect()),
        _ => None,
    })
}

fn allows(custom: &CustomSize, size: Size) -> bool {
    let fits =
        |side: u32| (custom.minimum..=custom.maximum).contains(&side) && side.is_multiple_of(custom.multiple_of.max(1));
    let pixels = size.pixels();
    fits(size.width)
        && fits(size.height)
        && custom.minimum_pixels.is_none_or(|least| pixels >= least)
        && custom.maximum_pixels.is_none_or(|most| pixels <= most)
}

/// How far a ratio is from what was asked for, as a number to compare by; and the area.
fn distance(size: (u32, u32), wanted: Size) -> f64 {
    let ratio = |(across, down): (u32, u32)| (f64::from(across) / f64::from(down)).ln();
    (ratio(size) - ratio((wanted.width, wanted.height))).abs()
}

/// A ratio that differs by one part in 32 counts as the same.
const TOLERANCE: f64 = 33.0 / 32.0;

/// Of all that the rule allows, or a part where that is too much: nothing whose ratio is as good but for the tolerance has a
/// nearer area, but for the tolerance, or as near a one and fewer pixels.
fn assert_nearest(rule: &SizeRule, wanted: Size, made: Size, draw: u32) {
    let presets = || rule.presets.iter().filter_map(|preset| preset.size);
    let custom = || {
        rule.custom.iter().flat_map(|custom| {
            let step = custom.multiple_of.max(1);
            let (first, last) = (custom.minimum.div_ceil(step), custom.maximum / step);
            let stride = ((last - first) / 90).max(1);
            // With a stride, other sizes with each draw.
            let start = first + draw % stride;
            let sides = move || (start..=last).step_by(stride as usize).map(move |times| times * step);
            sides()
                .flat_map(move |width| sides().map(move |height| Size { width, height }))
                .filter(|size| allows(custom, *size))
        })
    };
    let far = |size: Size| distance((size.width, size.height), wanted);
    let best = presets().chain(custom()).map(far).fold(far(made), f64::min);
    assert!(far(made) <= best + TOLERANCE.ln() + 1e-9, "{wanted} became {made}, whose ratio is not the best");
    let area = made.pixels().abs_diff(wanted.pixels());
    for other in presets().chain(custom()).filter(|other| far(*other) <= best + TOLERANCE.ln() - 1e-9) {
        let nearer = area.saturating_sub(other.pixels().abs_diff(wanted.pixels()));
        // Less area is worth a better ratio, more is not.
        let allowed =
            if far(made) < far(other) && made.pixels() < other.pixels() { other.pixels() / 32 + 1 } else { 0 };
        assert!(nearer <= allowed, "{wanted} became {made}, but {other} has a nearer area");
    }
}

fn side() -> impl Strategy<Value = u32> {
    prop_oneof![1_u32..=6000, Just(1024), Just(512), (1_u32..=200).prop_map(|times| times * 32), 1_u32..=200_000]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_size_becomes_the_nearest_that_a_model_has(width in side(), height in side(), form in 0..3, draw in any::<u32>()) {
        let wanted = Size { width, height };
        let fields = match form {
            0 => json!({ "size": wanted.to_string() }),
            1 => json!({ "image_size": { "width": width, "height": height } }),
            _ => json!({ "width": width, "height": height }),
        };
        for model in offered(catalogue()) {
            let request = with(model, &fields);
            let plain = adapted(&request, "none", Strictness::Strict);
            let order = adapted(&request, "size", Strictness::Strict);
            if let Ok(plain) = &plain {
                let order = order.as_ref().expect("what fits stays valid");
                assert_eq!((plain.digest(), &plain.adapted), (order.digest(), &order.adapted), "{request}");
            }
            if let Some(rule) = sizes_of(model) {
                let order = order.unwrap_or_else(|refusal| panic!("{request}: {refusal}"));
                let made = order.size().expect("it has a size");
                let fits = rule.presets.iter().any(|preset| preset.size == Some(made))
                    || rule.custom.as_ref().is_some_and(|custom| allows(custom, made));
                assert!(fits, "{request} became {made}");
                assert_nearest(rule, wanted, made, draw);
                assert!(made == wanted || !order.adapted.is_empty(), "{request} became {made}, and nobody was told");
            } else if let Some(ratios) = ratios_of(model) {
                let order = order.unwrap_or_else(|refusal| panic!("{request}: {refusal}"));
                let made = order.adapted.last().expect("pixels become a ratio").to.clone();
                let nearest = ratios.iter().map(|ratio| distance(*ratio, wanted)).fold(f64::INFINITY, f64::min);
                let name = made.as_str().expect("a ratio");
                let (across, down) = name.split_once(':').expect("a ratio");
                let ratio: (f64, f64) = (across.parse().unwrap(), down.parse().unwrap());
                let far = ((ratio.0 / ratio.1).ln() - (f64::from(width) / f64::from(height)).ln()).abs();
                assert!(far <= nearest + 1e-2, "{request} became {name}");
            } else {
                assert_eq!(plain.is_ok(), order.is_ok(), "{request}: a model without sizes takes none");
            }
        }
    }

    #[test]
    fn every_ratio_becomes_the_nearest_that_a_model_has(across in 1_u32..=99, down in 1_u32..=99) {
        for model in offered(catalogue()) {
            let request = with(model, &json!({ "aspect_ratio": format!("{across}:{down}") }));
            let plain = adapted(&request, "none", Strictness::Strict);
            let order = adapted(&request, "size", Strictness::Strict);
            if let Ok(plain) = &plain {
                assert_eq!(plain.digest(), order.as_ref().expect("what fits stays valid").digest(), "{request}");
            }
            if let Some(rule) = sizes_of(model) {
                let made = order.expect("it fits").size().expect("it has a size");
                let nearest = rule.presets.iter().filter_map(|preset| preset.size);
                let wanted = Size { width: across, height: down };
                let far = |size: Size| distance((size.width, size.height), wanted);
                for other in nearest {
                    assert!(far(made) <= far(other) + TOLERANCE.ln() + 1e-9, "{request}: {made}, not {other}");
                }
            } else if ratios_of(model).is_some() {
                assert!(order.is_ok(), "{request}");
            }
        }
    }
}

#[test]
fn what_fits_is_never_changed() {
    for model in offered(catalogue()) {
        for example in &model.examples {
            let wish = parse(example.request.as_bytes()).expect("JSON");
            let plain = catalogue().order(&wish, Strictness::Strict).expect("an example is valid");
            let all = Handling { strictness: Strictness::Strict, adapt: Adapt::ALL, ..Handling::default() };
            let order = catalogue().order(&wish, all).expect("an example is valid");
            assert_eq!((plain.digest(), plain.adapted), (order.digest(), order.adapted), "{}", model.id);
        }
    }
}
