//! The ways in which clients say the same thing, and what is told when they contradict themselves.

use serde_json::{Value as Json, json};

use super::super::{Code, PathPart, ResponseFormat, Size, Strictness};
use super::{issues, order, order_text, problems};
use crate::providers::fal::translate;

fn with(fields: Json) -> Json {
    let mut request = json!({ "model": "flux-realism", "prompt": "a quiet harbour" });
    let (Json::Object(request_fields), Json::Object(fields)) = (&mut request, fields) else {
        panic!("fields are an object")
    };
    request_fields.extend(fields);
    request
}

fn size(fields: Json) -> Option<Size> {
    order(&with(fields)).unwrap().size()
}

#[test]
fn a_size_may_be_said_in_many_ways() {
    let wanted = Some(Size { width: 1024, height: 768 });
    for fields in [
        json!({}),
        json!({ "image_size": null }),
        json!({ "size": "auto" }),
        json!({ "image_size": "auto" }),
        json!({ "image_size": "landscape_4_3" }),
        json!({ "size": "landscape_4_3" }),
        json!({ "size": "1024x768" }),
        json!({ "image_size": "1024X768" }),
        json!({ "image_size": {} }),
        json!({ "image_size": { "width": 1024 } }),
        json!({ "image_size": { "height": 768, "width": null } }),
        json!({ "image_size": { "width": 1024.0, "height": 768 } }),
        json!({ "width": 1024, "height": 768 }),
        json!({ "width": 1024 }),
        json!({ "height": 768, "width": null }),
        json!({ "size": "1024x768", "image_size": "landscape_4_3", "width": 1024 }),
    ] {
        assert_eq!(size(fields.clone()), wanted, "{fields}");
    }
}

#[test]
fn sizes_that_differ_are_a_problem() {
    let found = problems(&with(json!({ "size": "1024x768", "image_size": { "width": 512, "height": 512 } })));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].code, Code::Custom);
    assert_eq!(found[0].dotted_path(), "image_size");
    assert_eq!(problems(&with(json!({ "size": "1024x768", "width": 512 }))).len(), 1);
}

#[test]
fn the_count_goes_by_n_or_num_images_and_both_must_agree() {
    assert_eq!(order(&with(json!({ "n": 3 }))).unwrap().count(), 3);
    assert_eq!(order(&with(json!({ "num_images": 3.0, "n": 3 }))).unwrap().count(), 3);
    assert_eq!(order(&with(json!({ "n": null }))).unwrap().count(), 1);
    let found = problems(&with(json!({ "num_images": 1, "n": 2 })));
    assert_eq!(found[0].message, "`n` and `num_images` are the same parameter but differ; give one of them");
}

#[test]
fn a_path_is_in_the_client_s_spelling() {
    assert_eq!(
        issues(&with(json!({ "n": 9, "steps": 0 }))),
        [
            json!({
                "code": "too_big", "path": ["n"], "message": "`n` must be at most 4",
                "type": "number", "maximum": 4, "inclusive": true, "nearest": 4
            }),
            json!({
                "code": "too_small", "path": ["steps"], "message": "`steps` must be at least 1",
                "type": "number", "minimum": 1, "inclusive": true, "nearest": 1
            }),
        ]
    );
}

#[test]
fn all_problems_are_told_at_once_with_the_nearest_allowed_value() {
    let request = json!({
        "model": "flux-realism",
        "prompt": "",
        "image_size": { "width": 1600, "height": 700 },
        "guidance_scale": 20.5,
        "num_images": "2",
        "output_format": "jpg",
        "seed": 0,
    });
    let found = issues(&request);
    let told: Vec<_> = found.iter().map(|issue| (&issue["code"], &issue["path"], &issue["nearest"])).collect();
    assert_eq!(
        json!(told),
        json!([
            ["too_small", ["prompt"], null],
            ["too_big", ["image_size", "width"], 1536],
            ["not_multiple_of", ["image_size", "height"], 704],
            ["too_big", ["guidance_scale"], 20],
            ["invalid_type", ["num_images"], null],
            ["invalid_enum_value", ["output_format"], "jpeg"],
            ["too_small", ["seed"], 1],
        ])
    );
    assert_eq!(found[2]["multipleOf"], 32);
    assert_eq!(found[5]["options"], json!(["jpeg", "png"]));
}

#[test]
fn a_size_written_as_one_text_is_corrected_as_one_text() {
    let found = issues(&with(json!({ "size": "1600x700" })));
    let told: Vec<_> =
        found.iter().map(|issue| (&issue["code"], &issue["path"], &issue["nearest"], &issue["message"])).collect();
    assert_eq!(
        json!(told),
        json!([
            ["too_big", ["size"], "1536x704", "the width of `size` must be at most 1536"],
            ["not_multiple_of", ["size"], "1536x704", "the height of `size` must be a multiple of 32"],
        ])
    );
    let found = issues(&with(json!({ "size": "landscape_4-3" })));
    assert_eq!(found[0]["nearest"], "landscape_4_3");
}

#[test]
fn unknown_fields_are_ignored_and_named() {
    let order = order(&with(json!({
        "x_vendor": "x", "quality": "hd", "style": "vivid", "background": "opaque",
        "image_size": { "width": 512, "depth": 3 },
    })))
    .unwrap();
    assert_eq!(order.ignored, ["x_vendor", "quality", "style", "background", "image_size.depth"]);
    assert!(translate::body(&order).keys().all(|key| key != "x_vendor"));
}

#[test]
fn in_a_strict_request_unknown_fields_are_problems_with_a_guess() {
    let request = with(json!({ "guidence_scale": 5, "quality": "hd", "image_size": { "widht": 512 } })).to_string();
    let rejection = order_text(&request, Strictness::Strict).unwrap_err();
    let super::Rejection::Invalid(found) = rejection else { panic!("{rejection}") };
    let told: Vec<_> = found.iter().map(|problem| (problem.dotted_path(), problem.nearest.clone())).collect();
    assert_eq!(
        told,
        [
            ("guidence_scale".to_owned(), Some(json!("guidance_scale"))),
            ("quality".to_owned(), None),
            ("image_size.widht".to_owned(), Some(json!("width"))),
        ]
    );
    assert!(found.iter().all(|problem| problem.code == Code::UnrecognizedKeys));
    assert_eq!(found[0].path, [PathPart::Key("guidence_scale".to_owned())]);
}

#[test]
fn switches_are_read_and_never_sent() {
    let order = order(&with(json!({
        "response_format": "b64_json", "user": "alice", "stream": true, "partial_images": 2, "background": true,
        "webhook_url": "https://example.com/hook", "fallbacks": ["FLUX/dev"], "sync_mode": true,
    })))
    .unwrap();
    let switches = &order.switches;
    assert_eq!(switches.response_format, ResponseFormat::B64Json);
    assert_eq!(switches.user.as_deref(), Some("alice"));
    assert_eq!(switches.partial_images, Some(2));
    assert_eq!(switches.webhook_url.as_deref(), Some("https://example.com/hook"));
    assert_eq!(switches.fallbacks.as_deref(), Some(["flux/dev".to_owned()].as_slice()));
    assert!(switches.stream && switches.background && switches.sync_mode);
    assert!(order.ignored.is_empty());
    let body = translate::body(&order);
    for name in ["response_format", "user", "stream", "partial_images", "background", "fallbacks", "sync_mode"] {
        assert!(!body.contains_key(name), "`{name}` was sent");
    }
}

#[test]
fn bad_switches_are_problems() {
    let found = problems(&with(json!({
        "response_format": "png", "user": 5, "stream": "yes", "partial_images": 4, "background": 1,
        "webhook_url": "ftp://example.com", "fallbacks": ["flux/dve", 5], "sync_mode": "no",
    })));
    let paths: Vec<_> = found.iter().map(super::Problem::dotted_path).collect();
    assert_eq!(
        paths,
        [
            "response_format",
            "user",
            "stream",
            "partial_images",
            "background",
            "webhook_url",
            "fallbacks.0",
            "fallbacks.1",
            "sync_mode",
        ]
    );
    assert_eq!(found[6].nearest, Some(json!("flux/dev")));
}

#[test]
fn litellm_s_way_to_ask_for_base64_is_understood() {
    let order = order(&with(json!({ "output_format": "b64_json" }))).unwrap();
    assert_eq!(order.switches.response_format, ResponseFormat::B64Json);
    assert_eq!(translate::body(&order)["output_format"], "jpeg");
    assert_eq!(problems(&with(json!({ "output_format": "b64_json", "response_format": "url" }))).len(), 1);
}

#[test]
fn a_seed_of_64_bits_reaches_fal_exactly() {
    for seed in [1, 9_007_199_254_740_993, u64::MAX] {
        let order = order(&with(json!({ "seed": seed }))).unwrap();
        assert_eq!(translate::body(&order)["seed"], json!(seed));
    }
    // The last float that cannot have been another whole number, and the first that can.
    for (seed, sent) in [(42.0, "42"), (9_007_199_254_740_991.0, "9007199254740991")] {
        let order = order(&with(json!({ "seed": seed }))).unwrap();
        assert_eq!(translate::body(&order)["seed"].to_string(), sent);
    }
    for rounded in [9_007_199_254_740_992.0, 1e19] {
        let found = problems(&with(json!({ "seed": rounded })));
        assert!(found[0].message.contains("may have been rounded"), "{rounded}: {}", found[0].message);
    }
}

#[test]
fn two_ways_to_say_the_same_have_one_digest_and_two_wishes_have_two() {
    let digest = |fields: Json| order(&with(fields)).unwrap().digest();
    let plain = digest(json!({}));
    for same in [
        json!({ "n": 1 }),
        json!({ "size": "1024x768", "num_inference_steps": 28.0 }),
        json!({ "user": "alice", "unknown": 1 }),
        json!({ "strength": 1.0, "response_format": "url" }),
    ] {
        assert_eq!(digest(same.clone()), plain, "{same}");
    }
    let mut seen = vec![plain];
    for other in [
        json!({ "n": 2 }),
        json!({ "seed": 1 }),
        json!({ "size": "768x1024" }),
        json!({ "prompt": "a quiet harbour " }),
        json!({ "response_format": "b64_json" }),
        json!({ "stream": true }),
        json!({ "background": true }),
        json!({ "fallbacks": ["flux/dev"] }),
        json!({ "fallbacks": [] }),
        json!({ "model": "flux/dev" }),
    ] {
        let digest = digest(other.clone());
        assert!(!seen.contains(&digest), "{other}");
        seen.push(digest);
    }
}

#[test]
fn a_missing_prompt_is_told_once() {
    for request in [json!({ "model": "flux-realism" }), json!({ "model": "flux-realism", "prompt": null })] {
        let found = issues(&request);
        assert_eq!(
            found,
            [json!({
                "code": "invalid_type", "path": ["prompt"], "message": "`prompt` is required",
                "expected": "string", "received": "undefined"
            })]
        );
    }
    assert_eq!(issues(&json!({ "model": "flux-realism", "prompt": 5 })).len(), 1);
}

#[test]
fn one_image_goes_to_one_endpoint_and_several_to_another() {
    let with =
        |image: Json| order(&json!({ "model": "flux-pro/kontext/max", "prompt": "a", "image_url": image })).unwrap();
    let (one, two) = ("https://example.com/1.png", "https://example.com/2.png");
    for alone in [json!(one), json!([one])] {
        let order = with(alone);
        assert_eq!(order.endpoint(), "fal-ai/flux-pro/kontext/max");
        assert_eq!(translate::body(&order)["image_url"], one);
    }
    let order = with(json!([one, two]));
    assert_eq!(order.endpoint(), "fal-ai/flux-pro/kontext/max/multi");
    let body = translate::body(&order);
    assert_eq!((&body["image_urls"], body.get("image_url")), (&json!([one, two]), None));
    assert_eq!(order.normalized()["image_url"], json!([one, two]));
}

#[test]
fn the_pixels_altogether_may_be_limited() {
    let with =
        |size: Json| json!({ "model": "fal-ai/bytedance/seedream/v4.5/text-to-image", "prompt": "a", "size": size });
    assert!(order(&with(json!({ "width": 3840, "height": 960 }))).is_ok());
    for size in [json!({ "width": 3840, "height": 959 }), json!("3840x959")] {
        let found = issues(&with(size));
        assert_eq!(
            found,
            [json!({
                "code": "too_small", "path": ["size"], "minimum": 3_686_400, "type": "number", "inclusive": true,
                "message": "`size` must have at least 3686400 pixels altogether, and 3840x959 has 3682560",
            })]
        );
    }
    let beside = json!({ "model": "bytedance/seedream/v4.5/text-to-image", "prompt": "a", "width": 99, "height": 99 });
    assert_eq!(problems(&beside)[0].dotted_path(), "width");
}
