//! No field with a meaning is sold for something else: at every model it is read as what it means, refused with a way out, or
//! changes nothing.

use serde_json::{Value as Json, json};

use super::super::{Code, Kind, Model, Size};
use super::{catalogue, offered, order, problems};
use crate::providers::fal::translate;

/// A request that a model takes, with more fields.
pub(super) fn with(model: &Model, fields: &Json) -> Json {
    let mut request = json!({ "model": model.id });
    for parameter in model.parameters.iter().filter(|parameter| parameter.required) {
        request[&*parameter.name] = match parameter.kind.name() {
            "image" => json!("https://example.com/a.png"),
            "list" => json!(["https://example.com/a.png"]),
            _ => json!("a quiet harbour"),
        };
    }
    for (name, value) in fields.as_object().expect("fields are an object") {
        request[name] = value.clone();
    }
    request
}

fn has(model: &Model, name: &str) -> bool {
    model.parameters.iter().any(|parameter| *parameter.name == *name || parameter.accepts.iter().any(|one| one == name))
}

/// Each word with a value that asks for something of its own.
fn words() -> Vec<(&'static str, Json)> {
    vec![
        ("aspect_ratio", json!("9:16")),
        ("aspectRatio", json!("9:16")),
        ("size", json!("1024x1024")),
        ("image_size", json!({ "width": 1024, "height": 1024 })),
        ("width", json!(1024)),
        ("num_outputs", json!(2)),
        ("numberOfImages", json!(2)),
        ("n", json!(2)),
        ("negative_prompt", json!("fog")),
        ("negativePrompt", json!("fog")),
        ("seed", json!(7)),
        ("steps", json!(13)),
        ("numInferenceSteps", json!(13)),
        ("cfg_scale", json!(3.25)),
        ("strength", json!(0.5)),
        ("style", json!("noir")),
        ("quality", json!("best")),
        ("background", json!("transparent")),
        ("image_url", json!("https://example.com/b.png")),
        ("input_references", json!(["https://example.com/b.png"])),
        ("reference_images", json!([{ "image_url": "https://example.com/b.png" }])),
        ("image", json!({ "url": "https://example.com/b.png" })),
        ("mask", json!("https://example.com/b.png")),
        ("loras", json!([{ "path": "https://example.com/l.safetensors" }])),
        ("raw", json!(true)),
        ("enable_safety_checker", json!(false)),
        ("safety_tolerance", json!("6")),
    ]
}

#[test]
fn no_word_with_a_meaning_is_ignored_at_any_model() {
    for model in offered(catalogue()) {
        for (word, value) in words() {
            let request = with(model, &json!({ word: value }));
            let Ok(order) = order(&request) else { continue };
            assert!(order.ignored.is_empty(), "{request} was taken, and `{word}` ignored");
            let plain = super::order(&with(model, &json!({}))).expect("a plain request is taken");
            // The model's own default may be what was asked for.
            let is_parameter = has(model, word) || word == "width";
            assert!(
                is_parameter || order.digest() != plain.digest(),
                "{request} was taken, and `{word}` changes nothing"
            );
        }
    }
}

#[test]
fn what_a_model_cannot_do_is_refused_with_a_way_out() {
    let refusal = |request: &Json| {
        let found = problems(request);
        assert_eq!((found.len(), found[0].code), (1, Code::UnrecognizedKeys), "{found:?}");
        found[0].message.clone()
    };
    let dev = |fields: &Json| {
        let mut request = json!({ "model": "flux/dev", "prompt": "a" });
        request.as_object_mut().expect("an object").extend(fields.as_object().expect("fields").clone());
        request
    };
    assert_eq!(
        refusal(&dev(&json!({ "negative_prompt": "fog" }))),
        "`flux/dev` does not take `negative_prompt`: leave it out, or choose a model that takes it, such as \
         `alibaba/qwen-image`, `bytedance/uso`, `f-lite/standard`"
    );
    assert_eq!(
        refusal(&dev(&json!({ "image_url": "https://example.com/b.png" }))),
        "`flux/dev` does not take `image_url`: it takes no input images; `flux/dev/image-to-image` does"
    );
    // What asks for nothing else than the model does anyway is named.
    for (fields, ignored) in [
        (json!({ "raw": false, "expand_prompt": false }), vec!["raw", "expand_prompt"]),
        (
            json!({ "style": "vivid", "quality": "standard", "background": "opaque" }),
            vec!["style", "quality", "background"],
        ),
        (json!({ "moderation": "low", "x_vendor": 1 }), vec!["moderation", "x_vendor"]),
        (json!({ "negative_prompt": "", "image_url": null, "images": [], "quality": "auto", "size": "auto" }), vec![]),
        (json!({ "size": "", "output_format": "" }), vec![]),
    ] {
        let request = dev(&fields);
        assert_eq!(order(&request).expect("it is taken").ignored, ignored, "{request}");
    }
}

/// Ignored, it would be charged as the default, which is the dearest.
#[test]
fn a_quality_that_a_model_with_qualities_does_not_have_is_refused_with_those_that_it_has() {
    for model in offered(catalogue()) {
        let quality = model.parameters.iter().find(|parameter| &*parameter.name == "quality");
        for (word, near) in [("standard", "medium"), ("hd", "high")] {
            let request = with(model, &json!({ "quality": word }));
            let Some(Kind::Choice(rule)) = quality.map(|parameter| &parameter.kind) else {
                assert_eq!(order(&request).expect("it is harmless").ignored, ["quality"], "{request}");
                continue;
            };
            if rule.options.iter().any(|option| **option == *word) {
                continue;
            }
            let [problem] = <[_; 1]>::try_from(problems(&request)).expect("one problem");
            let options: Vec<&str> = rule.options.iter().map(AsRef::as_ref).collect();
            assert_eq!((problem.code, problem.dotted_path()), (Code::InvalidEnumValue, "quality".to_owned()));
            assert_eq!(problem.options.expect("options"), options, "{request}");
            assert_eq!(problem.nearest, Some(json!(near)), "{request}");
        }
    }
}

#[test]
fn an_aspect_ratio_becomes_a_size_of_exactly_that_ratio() {
    let size = |fields: &Json| {
        let mut request = json!({ "model": "flux/dev", "prompt": "a" });
        request.as_object_mut().expect("an object").extend(fields.as_object().expect("fields").clone());
        order(&request).map(|order| (order.size(), translate::body(&order)["image_size"].clone()))
    };
    let pixels = |width, height| Some(Size { width, height });
    for (fields, expected, sent) in [
        (json!({ "aspect_ratio": "16:9" }), pixels(1024, 576), json!("landscape_16_9")),
        (json!({ "aspectRatio": "1:1" }), pixels(1024, 1024), json!("square_hd")),
        (json!({ "aspect_ratio": "3:2" }), pixels(1056, 704), json!({ "width": 1056, "height": 704 })),
        (
            json!({ "aspect_ratio": "2:1", "size": "1280x640" }),
            pixels(1280, 640),
            json!({ "width": 1280, "height": 640 }),
        ),
        (json!({ "aspect_ratio": "auto" }), pixels(1024, 768), json!("landscape_4_3")),
    ] {
        assert_eq!(size(&fields).expect("it is taken"), (expected, sent), "{fields}");
    }
    for fields in [
        json!({ "aspect_ratio": "47:13" }),
        json!({ "aspect_ratio": "wide" }),
        json!({ "aspect_ratio": 1.5 }),
        json!({ "aspect_ratio": "0:1" }),
        json!({ "aspect_ratio": "16:9", "size": "1024x1024" }),
    ] {
        assert!(size(&fields).is_err(), "{fields}");
    }
}

#[test]
fn pixels_that_become_a_ratio_are_named() {
    let ultra = |size: &Json| {
        let order =
            order(&json!({ "model": "flux-pro/v1.1-ultra", "prompt": "a", "size": size })).expect("it is taken");
        json!(order.adapted)
    };
    assert_eq!(ultra(&json!("1024x1024")), json!([{ "field": "size", "from": "1024x1024", "to": "1:1" }]));
    assert_eq!(
        ultra(&json!({ "width": 1600, "height": 900 })),
        json!([{ "field": "size", "from": "1600x900", "to": "16:9" }])
    );
    assert_eq!(ultra(&json!("16:9")), json!([]));
}

#[test]
fn a_size_without_a_side_is_refused_or_asks_for_nothing() {
    for model in offered(catalogue()) {
        let Ok(without) = order(&with(model, &json!({}))) else { continue };
        for empty in [json!({}), json!({ "width": null, "height": null }), json!({ "width": "", "height": "" })] {
            for name in ["size", "image_size"] {
                let request = with(model, &json!({ name: empty }));
                if let Ok(order) = order(&request) {
                    assert_eq!(order.normalized(), without.normalized(), "{request}");
                }
            }
        }
    }
}
