//! The operator's aliases: a name for a model, defaults, fixed values; never beyond the model's limits.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::super::{AliasError, Handling, Order, Rejection, parse};
use super::catalogue;
use crate::domain::{Alias, Aliases};

fn alias(id: &str, target: &str, defaults: &Json, fixed: &Json) -> Alias {
    let object = |values: &Json| values.as_object().expect("an object").clone();
    Alias {
        id: id.to_owned(),
        target: target.to_owned(),
        defaults: object(defaults),
        fixed: object(fixed),
        ..Alias::default()
    }
}

fn handling(aliases: &[Alias]) -> Handling {
    let table = aliases.iter().map(|alias| (alias.id.to_ascii_lowercase(), Arc::new(alias.clone()))).collect();
    Handling { aliases: Aliases { project: None, gateway: Arc::new(table) }, ..Handling::default() }
}

fn order(aliases: &[Alias], request: &Json) -> Result<Order, Rejection> {
    catalogue().order(&parse(request.to_string().as_bytes()).expect("JSON"), handling(aliases))
}

fn message(outcome: Result<Order, Rejection>) -> String {
    match outcome {
        Err(Rejection::Invalid(problems)) => problems[0].message.clone(),
        other => panic!("expected a problem, got {other:?}"),
    }
}

#[test]
fn an_alias_fills_in_what_is_not_given_and_holds_what_is_fixed() {
    let house = alias(
        "House",
        "flux/dev",
        &json!({ "num_inference_steps": 30, "seed": 7 }),
        &json!({ "output_format": "png", "size": "1024x1024" }),
    );
    let house = catalogue().check_alias(house).expect("it fits");
    let ask = |fields: Json| {
        let mut request = json!({ "model": "HOUSE", "prompt": "a" });
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        order(std::slice::from_ref(&house), &request)
    };
    let plain = ask(json!({})).expect("it is valid");
    assert_eq!((plain.model.id.as_str(), plain.requested.as_str()), ("flux/dev", "House"));
    let values = plain.normalized();
    assert_eq!(values["num_inference_steps"], 30);
    assert_eq!(values["output_format"], "png");
    assert_eq!(values["image_size"], json!({ "width": 1024, "height": 1024 }));
    assert_eq!(values["seed"], 7);

    // Defaults give way; the same as fixed may be said in any way.
    for (fields, name, value) in [
        (json!({ "num_inference_steps": 12 }), "num_inference_steps", json!(12)),
        (json!({ "steps": 12 }), "num_inference_steps", json!(12)),
        (json!({ "image_size": "square_hd" }), "output_format", json!("png")),
        (json!({ "width": 1024, "height": 1024 }), "seed", json!(7)),
        (json!({ "aspect_ratio": "1:1" }), "seed", json!(7)),
        (json!({ "output_format": null, "size": "auto" }), "output_format", json!("png")),
    ] {
        assert_eq!(ask(fields.clone()).expect("it is valid").normalized()[name], value, "{fields}");
    }
    for (fields, start) in [
        (json!({ "output_format": "jpeg" }), "`House` fixes `output_format` to \"png\": leave `output_format` out"),
        (
            json!({ "size": "512x512" }),
            "`House` fixes `image_size` to {\"width\":1024,\"height\":1024}: leave `size` out",
        ),
        (json!({ "aspect_ratio": "16:9" }), "`House` fixes `image_size`"),
        (json!({ "width": 512, "height": 1024 }), "`House` fixes `image_size`"),
    ] {
        let told = message(ask(fields.clone()));
        assert!(told.starts_with(start), "{fields}: {told}");
    }
    // The limits of the model hold for what the client may choose.
    assert!(message(ask(json!({ "num_inference_steps": 99 }))).contains("at most 50"));

    // A random seed is the client's wish against a default, but not against a fixed value.
    let mut adapting = handling(std::slice::from_ref(&house));
    adapting.adapt = "seed".parse().unwrap();
    let request = json!({ "model": "house", "prompt": "a", "seed": -1 });
    let random = catalogue().order(&parse(request.to_string().as_bytes()).unwrap(), &adapting).expect("it is valid");
    assert!(!random.normalized().contains_key("seed"), "{:?}", random.normalized());
    let fixed = alias("house", "flux/dev", &json!({}), &json!({ "seed": 7 }));
    adapting.aliases = handling(&[fixed]).aliases;
    let outcome = catalogue().order(&parse(request.to_string().as_bytes()).unwrap(), &adapting);
    assert!(message(outcome).starts_with("`house` fixes `seed` to 7"));
}

#[test]
fn an_alias_may_take_the_name_of_a_model_and_leads_to_a_model_only() {
    let swap = [
        alias("flux/dev", "flux-1/schnell", &json!({}), &json!({})),
        alias("flux-1/schnell", "flux/dev", &json!({}), &json!({})),
    ]
    .map(|alias| catalogue().check_alias(alias).expect("it fits"));
    for (asked, made) in
        [("flux/dev", "flux-1/schnell"), ("flux-1/schnell", "flux/dev"), ("fal-ai/flux/dev", "flux/dev")]
    {
        let order = order(&swap, &json!({ "model": asked, "prompt": "a" })).expect("it is valid");
        assert_eq!((order.model.id.as_str(), order.requested.as_str()), (made, asked));
    }
    let house = alias("house", "flux/dev", &json!({}), &json!({}));
    let nested = catalogue().check_alias(alias("other", "house", &json!({}), &json!({})));
    assert!(matches!(nested, Err(AliasError::Target(_))), "an alias is no target");

    // As a fallback it stands for its model, if it is only a name.
    let request = json!({ "model": "flux-pro", "prompt": "a", "fallbacks": ["house"] });
    let fallbacks = order(std::slice::from_ref(&house), &request).expect("it is valid").switches.fallbacks;
    assert_eq!(fallbacks, Some(vec!["flux/dev".to_owned()]));
    let styled = alias("house", "flux/dev", &json!({ "seed": 7 }), &json!({}));
    assert!(message(order(&[styled], &request)).contains("name its model `flux/dev` instead"));
}

#[test]
fn values_beyond_the_limits_make_no_alias() {
    for (id, target, defaults, fixed, field) in [
        ("", "flux/dev", json!({}), json!({}), "id"),
        ("a b", "flux/dev", json!({}), json!({}), "id"),
        ("/a", "flux/dev", json!({}), json!({}), "id"),
        ("a", "flux/nothing", json!({}), json!({}), "target"),
        ("a", "flux/dev", json!({ "num_inference_steps": 99 }), json!({}), "defaults"),
        ("a", "flux/dev", json!({}), json!({ "size": "5000x5000" }), "fixed"),
        ("a", "flux/dev", json!({}), json!({ "seed": "7" }), "fixed"),
        ("a", "flux/dev", json!({}), json!({ "no_such_thing": 7 }), "fixed"),
        ("a", "flux/dev", json!({}), json!({ "negative_prompt": "fog" }), "fixed"),
        ("a", "flux/dev", json!({}), json!({ "stream": true }), "fixed"),
        ("a", "flux/dev", json!({}), json!({ "webhook_url": "https://example.com" }), "fixed"),
        ("a", "flux/dev", json!({}), json!({ "model": "flux-pro" }), "fixed"),
        ("a", "flux/dev", json!({ "seed": null }), json!({}), "defaults"),
        ("a", "flux/dev", json!({ "n": 2 }), json!({ "num_images": 2 }), "defaults"),
    ] {
        let error = catalogue().check_alias(alias(id, target, &defaults, &fixed)).expect_err("it does not fit");
        assert_eq!(error.field(), field, "{id} {target} {defaults} {fixed}: {error}");
    }
    let checked = catalogue().check_alias(alias("dall-e-3", "FAL-AI/flux/dev", &json!({}), &json!({})));
    assert_eq!(checked.expect("it fits").target, "flux/dev");
}

#[test]
fn the_values_of_an_alias_hold_for_its_fallbacks_too() {
    let house = alias("house", "flux/dev", &json!({}), &json!({ "output_format": "png", "num_inference_steps": 30 }));
    let wish = json!({ "model": "house", "prompt": "a" }).to_string();
    let wish = parse(wish.as_bytes()).expect("JSON");
    let handling = handling(&[house]);
    let fallback = catalogue().order_from("flux-realism", &wish, &handling).expect("it takes both");
    assert_eq!(fallback.normalized()["output_format"], "png");
    let refused = catalogue().order_from("flux-pro/v1.1", &wish, &handling);
    assert!(message(refused).starts_with("the alias `house` does not fit: "));
}
