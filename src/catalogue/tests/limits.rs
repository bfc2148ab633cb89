//! Every limit of every parameter of every model, from both sides, taken from the files.

use serde_json::{Map, Number, Value as Json, json};

use super::super::{Catalogue, Model, Parameter, PathPart, Rejection, Strictness, parse};
use super::probes::{Probe, key, probes, valid};
use super::{catalogue, offered};

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
        (Err(Rejection::Invalid(found)), Some((code, path))) => {
            assert_eq!(found.len(), 1, "{found:?}: {shown}");
            assert_eq!((found[0].code, &found[0].path), (code, &path), "{shown}");
        }
        (Err(rejection), _) => panic!("{rejection}: {shown}"),
    }
}

#[test]
fn every_limit_of_every_model_holds_from_both_sides() {
    let catalogue = catalogue();
    for model in offered(catalogue) {
        for parameter in &model.parameters {
            for probe in probes(&parameter.kind) {
                try_probe(catalogue, model, &parameter.name, probe);
            }
        }
    }
}

#[test]
fn every_other_name_of_a_parameter_is_checked_like_the_first() {
    let catalogue = catalogue();
    for model in offered(catalogue) {
        // A required parameter is in the request already, under its first name.
        for parameter in model.parameters.iter().filter(|parameter| !parameter.required) {
            for name in &parameter.accepts {
                for probe in probes(&parameter.kind) {
                    try_probe(catalogue, model, name, probe);
                }
            }
        }
    }
}

#[test]
fn the_nearest_value_that_is_told_is_itself_allowed() {
    let catalogue = catalogue();
    for model in offered(catalogue) {
        for parameter in &model.parameters {
            for probe in probes(&parameter.kind) {
                let Probe::Breaks(value, ..) = probe else { continue };
                follow_advice(catalogue, model, parameter, value);
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
    for model in offered(catalogue) {
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
