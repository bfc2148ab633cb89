//! Whatever a client sends is refused with a path or taken; nothing panics, and nothing takes long.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::super::{Code, Rejection, Strictness, parse};
use super::{catalogue, offered, order, order_text, problems};

#[test]
fn a_body_that_is_no_object_is_a_problem_of_the_request_itself() {
    for request in [json!(null), json!(5), json!("text"), json!([]), json!([{}])] {
        let found = problems(&request);
        assert_eq!((found[0].code, found[0].path.len()), (Code::InvalidType, 0));
        assert!(found[0].message.starts_with("the request must be an object"));
    }
}

#[test]
fn a_request_without_a_model_is_told_so() {
    for (request, received) in [
        (json!({}), "undefined"),
        (json!({ "model": null }), "undefined"),
        (json!({ "model": 5 }), "number"),
        (json!({ "model": ["flux/dev"] }), "array"),
    ] {
        let found = problems(&request);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].dotted_path(), "model");
        assert_eq!(found[0].received.as_deref(), Some(received));
    }
}

#[test]
fn a_very_long_or_strange_model_id_is_just_unknown() {
    for model in ["x".repeat(1 << 20), "ﬂux/dev".to_owned(), String::new(), "flux/dev ".to_owned(), "\0".to_owned()] {
        let rejection = order(&json!({ "model": model, "prompt": "x" })).unwrap_err();
        let Rejection::UnknownModel { model, .. } = rejection else { panic!("{rejection}") };
        assert!(model.len() <= 800);
    }
}

#[test]
fn duplicate_keys_are_problems_at_any_depth() {
    for (request, path) in [
        (r#"{"model":"flux/dev","prompt":"a","prompt":"b"}"#, "prompt"),
        (r#"{"model":"flux/dev","prompt":"a","prompt":"a"}"#, "prompt"),
        (r#"{"model":"flux/dev","prompt":"a","image_size":{"width":512,"width":512}}"#, "image_size.width"),
        (r#"{"model":"flux/dev","prompt":"a","unknown":[0,{"x":{"y":1,"y":2}}]}"#, "unknown.1.x.y"),
        (r#"{"model":"flux/dev","prompt":"a","model":"flux/dev"}"#, "model"),
    ] {
        let rejection = order_text(request, Strictness::Lenient).unwrap_err();
        let Rejection::Invalid(found) = rejection else { panic!("{rejection}") };
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].dotted_path(), path);
        assert_eq!(found[0].message, format!("`{path}` is given more than once"));
    }
}

#[test]
fn a_megabyte_of_prompt_is_too_long_and_is_not_repeated() {
    let found = problems(&json!({ "model": "flux/dev", "prompt": "x".repeat(1 << 20) }));
    assert_eq!(found[0].code, Code::TooBig);
    assert_eq!(found[0].maximum, Some(4000.into()));
    assert!(found[0].message.len() < 200);
    let found = problems(&json!({ "model": "flux/dev", "prompt": "x", "output_format": "y".repeat(1 << 20) }));
    assert!(serde_json::to_string(&found).unwrap().len() < 1000);
}

#[test]
fn huge_numbers_break_limits_and_not_the_program() {
    for number in ["1e308", "-1e308", "18446744073709551616", "-9223372036854775809", "99999999999999999999999"] {
        for field in ["seed", "num_images", "num_inference_steps", "guidance_scale", "n", "width"] {
            let request = format!(r#"{{"model":"flux/dev","prompt":"x","{field}":{number}}}"#);
            let rejection = order_text(&request, Strictness::Lenient).unwrap_err();
            let Rejection::Invalid(found) = rejection else { panic!("{rejection}") };
            assert!(matches!(found[0].code, Code::TooBig | Code::TooSmall), "{request}: {found:?}");
            assert_eq!(found[0].dotted_path(), field);
        }
    }
}

#[test]
fn a_seed_that_a_float_may_have_rounded_is_refused() {
    let request = r#"{"model":"flux/dev","prompt":"x","seed":1.8e19}"#;
    let rejection = order_text(request, Strictness::Lenient).unwrap_err();
    let Rejection::Invalid(found) = rejection else { panic!("{rejection}") };
    assert_eq!(found[0].code, Code::InvalidType);
}

#[test]
fn twenty_thousand_unknown_keys_are_counted_and_take_no_time() {
    let keys: Vec<_> = (0..20_000).map(|key| format!("\"key{key}\":0")).collect();
    let request = format!(r#"{{"model":"flux/dev","prompt":"x",{}}}"#, keys.join(","));
    let begun = Instant::now();
    let ignored = order_text(&request, Strictness::Lenient).unwrap().ignored;
    assert_eq!(ignored.len(), 101);
    assert_eq!(ignored.last().map(String::as_str), Some("(and 19900 more)"));
    let Rejection::Invalid(found) = order_text(&request, Strictness::Strict).unwrap_err() else {
        panic!("unknown keys are problems")
    };
    assert_eq!(found.len(), 201);
    // Comparing each key with every other one would take hours.
    assert!(begun.elapsed() < Duration::from_mins(2));
}

#[test]
fn the_character_that_no_database_holds_is_refused_wherever_it_is_kept() {
    for field in ["prompt", "user", "webhook_url"] {
        let mut request = json!({ "model": "flux/dev", "prompt": "x" });
        request[field] = json!("https://example.com/a\0b");
        let found = problems(&request);
        assert_eq!((found[0].code, found[0].dotted_path().as_str()), (Code::InvalidString, field));
    }
}

#[test]
fn a_prompt_is_kept_letter_by_letter() {
    let prompt = "  \u{202e}\u{1f469}\u{200d}\u{1f467} é\u{301}\n\t\"\\ \u{fdfd}  ";
    let order = order(&json!({ "model": "flux/dev", "prompt": prompt })).unwrap();
    assert_eq!(order.prompt(), Some(prompt));
}

/// Any JSON, a few levels deep.
fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        (-10..2000).prop_map(Json::from),
        ".{0,12}".prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::hash_map("[a-z]{1,6}|width|height|path|scale|r|g|b", inner, 0..6)
                .prop_map(|fields| Json::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_in_any_field_is_taken_or_refused_with_its_path(value in any_json(), pick in any::<prop::sample::Index>()) {
        let catalogue = catalogue();
        for model in offered(catalogue) {
            let parameter = pick.get(&model.parameters);
            let mut request = json!({ "model": model.id, "prompt": "a quiet harbour" });
            request[parameter.name.as_ref()] = value.clone();
            let text = request.to_string();
            match catalogue.order(&parse(text.as_bytes()).unwrap(), Strictness::Lenient) {
                Ok(order) => prop_assert!(order.terms(crate::domain::Fixed::ONE).unwrap().quote().is_ok(), "{text}"),
                Err(Rejection::Invalid(found)) => {
                    prop_assert!(!found.is_empty());
                    for problem in found {
                        prop_assert!(!problem.path.is_empty(), "{text}: {problem:?}");
                        prop_assert!(!problem.message.is_empty());
                    }
                }
                Err(rejection) => prop_assert!(false, "{rejection}: {text}"),
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(json) = parse(&bytes) {
            let _ = catalogue().order(&json, Strictness::Lenient);
        }
    }
}
