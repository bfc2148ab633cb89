//! The JSON Schema of a model allows what the validator allows, and refuses what it refuses.

use std::collections::BTreeMap;

use jsonschema::Validator;
use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::super::{Code, Kind, Model, PathPart, Problem, Rejection, Size, Strictness, parse};
use super::probes::{Probe, probes};
use super::{catalogue, offered};

/// A model, its schema, and values to try for each field that the schema names.
struct Subject {
    model: &'static Model,
    schema: Validator,
    fields: Vec<(String, Vec<Json>)>,
}

fn subjects() -> Vec<Subject> {
    offered(catalogue()).map(|model| subject(model)).collect()
}

fn subject(model: &'static Model) -> Subject {
    let document = model.json_schema();
    let schema = jsonschema::options().should_validate_formats(true).build(&document).expect("a schema");
    let mut values: BTreeMap<&str, Vec<Json>> = BTreeMap::new();
    for parameter in &model.parameters {
        let tried: Vec<Json> = probes(&parameter.kind).into_iter().map(value).filter(is_short).collect();
        for name in parameter.names() {
            values.insert(name, tried.clone());
        }
    }
    let fields = document["properties"].as_object().expect("properties").keys().map(|name| {
        let tried = values.get(name.as_str()).cloned().unwrap_or_else(sides);
        (name.clone(), tried)
    });
    Subject { model, schema, fields: fields.collect() }
}

fn value(probe: Probe) -> Json {
    match probe {
        Probe::Fits(value) | Probe::Breaks(value, ..) => value,
    }
}

/// Long texts would make the test slow; their limits have tests of their own. U+0000 is an exception that is stated.
fn is_short(value: &Json) -> bool {
    let text = value.to_string();
    text.len() < 400 && !text.contains("\\u0000")
}

/// Values of `width` and `height` beside each other.
fn sides() -> Vec<Json> {
    [0, 1, 64, 512, 768, 1024, 1025, 1280, 1536, 2048, 4096, 20000].map(Json::from).into()
}

/// Some value, most often one that the field's own limits suggest.
fn any_value(tried: Vec<Json>) -> BoxedStrategy<Json> {
    let junk = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        (-5..70).prop_map(Json::from),
        (-1.0..25.0).prop_map(Json::from),
        "[a-z0-9_:x]{0,8}".prop_map(Json::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!("auto")),
        Just(json!("1024x1024")),
        Just(json!({ "width": 1024, "height": 576 })),
    ];
    if tried.is_empty() {
        return junk.boxed();
    }
    prop_oneof![8 => prop::sample::select(tried), 1 => junk].boxed()
}

/// A request with a few fields; the required ones more often than not.
fn any_request(fields: &[(String, Vec<Json>)], required: &[String]) -> BoxedStrategy<Map<String, Json>> {
    let share = 4.0 / f64::from(u32::try_from(fields.len()).expect("few fields"));
    let entries: Vec<_> = fields
        .iter()
        .map(|(name, tried)| {
            let often = if required.contains(name) { 0.9 } else { share.min(0.5) };
            let name = name.clone();
            prop::option::weighted(often, any_value(tried.clone()))
                .prop_map(move |value| value.map(|value| (name.clone(), value)))
        })
        .collect();
    entries.prop_map(|entries| entries.into_iter().flatten().collect()).boxed()
}

/// Which field's parameter this is.
fn kind_of<'m>(model: &'m Model, field: &str) -> Option<&'m Kind> {
    let named = model.parameters.iter().find(|one| *one.name == *field || one.accepts.iter().any(|name| name == field));
    named.map(|parameter| &parameter.kind)
}

/// What only the validator refuses, as [`Model::json_schema`] states.
fn is_beyond_schemas(model: &Model, request: &Map<String, Json>, problem: &Problem) -> bool {
    let Some(PathPart::Key(field)) = problem.path.first() else { return false };
    let given = request.get(field);
    let names_a_size =
        given.is_some_and(|given| given.is_object() || given.as_str().is_some_and(|text| text.parse::<Size>().is_ok()));
    let is_side = matches!(field.as_str(), "width" | "height") && kind_of(model, field).is_none();
    match problem.code {
        Code::Custom => problem.message.ends_with("are the same parameter but differ; give one of them"),
        Code::TooSmall | Code::TooBig => problem.message.contains("pixels altogether"),
        Code::InvalidEnumValue => {
            is_side || names_a_size && matches!(kind_of(model, field), Some(Kind::AspectRatio(_)))
        }
        // The schema is open, as requests are; that unknown fields are errors is the wish of a strict request.
        Code::UnrecognizedKeys => problem.path.len() > 1,
        _ => false,
    }
}

/// Habits of other clients that the validator takes and the schema does not show.
fn is_a_habit(model: &Model, request: &Map<String, Json>) -> bool {
    let is_empty = |value: &Json| value == "" || value.as_array().is_some_and(Vec::is_empty);
    let is_auto = |name: &str| request.get(name).is_some_and(|value| value == "auto");
    request.values().any(is_empty)
        || is_auto("quality")
        || is_auto("background")
        || request.get("output_format").is_some_and(|format| format == "b64_json")
        || kind_of(model, "background").is_some() && request.get("background").is_some_and(Json::is_boolean)
}

fn compare(subject: &Subject, request: &Map<String, Json>) -> Result<(), TestCaseError> {
    let Subject { model, schema, .. } = subject;
    let allowed = schema.is_valid(&Json::Object(request.clone()));
    let mut whole = request.clone();
    whole.insert("model".to_owned(), json!(model.id));
    let text = Json::Object(whole).to_string();
    match catalogue().order(&parse(text.as_bytes()).expect("JSON"), Strictness::Strict) {
        Ok(_) => prop_assert!(allowed || is_a_habit(model, request), "only the validator takes {text}"),
        Err(Rejection::Invalid(problems)) => {
            let beyond = problems.iter().all(|problem| is_beyond_schemas(model, request, problem));
            prop_assert!(!allowed || beyond, "only the schema takes {text}: {problems:?}");
        }
        Err(rejection) => prop_assert!(false, "{rejection}"),
    }
    Ok(())
}

#[test]
fn schema_and_validator_agree_on_random_requests_to_every_model() {
    for subject in subjects() {
        let required = subject.model.parameters.iter().filter(|one| one.required).map(|one| one.name.to_string());
        let requests = any_request(&subject.fields, &required.collect::<Vec<_>>());
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(150));
        if let Err(failure) = runner.run(&requests, |request| compare(&subject, &request)) {
            panic!("`{}`: {failure}", subject.model.id);
        }
    }
}

#[test]
fn every_example_fits_its_schema() {
    for subject in subjects() {
        for example in &subject.model.examples {
            let body = Json::Object(example.body());
            assert!(subject.schema.is_valid(&body), "`{}` {}", subject.model.id, example.title);
        }
    }
}

#[test]
fn sides_without_each_other_and_leading_zeros_are_refused_by_both() {
    for (id, request, fits) in [
        ("bytedance/seedream-v4-text-to-image", json!({ "prompt": "a", "width": 2048 }), false),
        ("bytedance/seedream-v4-text-to-image", json!({ "prompt": "a", "width": 2048, "height": null }), false),
        ("bytedance/seedream-v4-text-to-image", json!({ "prompt": "a", "width": 2048, "height": 2048 }), true),
        ("bytedance/seedream-v4-text-to-image", json!({ "prompt": "a", "width": null }), true),
        ("flux/dev", json!({ "prompt": "a", "size": "01024x1024" }), false),
        ("flux-pro/v1.1-ultra", json!({ "prompt": "a", "size": "01024x1024" }), false),
        ("flux-pro/v1.1-ultra", json!({ "prompt": "a", "size": "1024x1024" }), true),
    ] {
        let subject = subject(catalogue().model(id).expect("it is there"));
        assert_eq!(subject.schema.is_valid(&request), fits, "{id} {request}");
        let Json::Object(request) = request else { panic!() };
        compare(&subject, &request).expect("they agree");
    }
}

#[test]
fn a_required_parameter_may_come_under_any_of_its_names() {
    let model = catalogue().model("uso").expect("it is there");
    let subject = subject(model);
    let link = json!(["https://example.com/a.png"]);
    for (request, fits) in [
        (json!({ "prompt": "a", "image_urls": link }), true),
        (json!({ "prompt": "a", "input_image_urls": link }), true),
        (json!({ "prompt": "a", "input_image_urls": link, "image_urls": null }), true),
        (json!({ "prompt": "a" }), false),
        (json!({ "prompt": "a", "image_urls": null }), false),
    ] {
        assert_eq!(subject.schema.is_valid(&request), fits, "{request}");
        let Json::Object(request) = request else { panic!() };
        compare(&subject, &request).expect("they agree");
    }
}
