//! Lists and objects.

use std::sync::Arc;

use super::super::json::Json;
use super::super::model::Parameter;
use super::super::problem::Code;
use super::super::rules::{Kind, ListRule, ObjectRule};
use super::super::value::Value;
use super::findings::Findings;
use super::words::is_absent;
use super::{check, scalars, type_name};

pub(super) fn list<'j>(rule: &'j ListRule, json: &'j Json<'_>, findings: &mut Findings<'j>) -> Option<Value> {
    let Json::Array(array) = json else {
        if rule.accepts_single {
            return check(&rule.items, json, findings).map(|item| Value::List(vec![item]));
        }
        findings.wrong_type("array", json);
        return None;
    };
    let items = array.items();
    if items.len() < rule.min_items {
        findings.too_small("array", rule.min_items, None);
        return None;
    }
    if items.len() > rule.max_items {
        findings.too_big("array", rule.max_items, None);
        return None;
    }
    let mut values = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        values.push(findings.within_item(index, |findings| check(&rule.items, item, findings)));
    }
    values.into_iter().collect::<Option<_>>().map(Value::List)
}

/// Input images in the ways that other clients write them: a URL, an object that holds one as `url` or `image_url`, or a
/// list of these; for a parameter that is an image or a list of images.
pub(super) fn images<'j>(kind: &'j Kind, json: &'j Json<'_>, findings: &mut Findings<'j>) -> Option<Value> {
    let items = match json {
        Json::Array(array) => array.items(),
        one => std::slice::from_ref(one),
    };
    let mut values = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let item = url_in(item);
        values.push(match json {
            Json::Array(_) => findings.within_item(index, |findings| scalars::image(item, findings)),
            _ => scalars::image(item, findings),
        });
    }
    let mut values: Vec<Value> = values.into_iter().collect::<Option<_>>()?;
    match kind {
        Kind::List(rule) if values.len() < rule.min_items => findings.too_small("array", rule.min_items, None),
        Kind::List(rule) if values.len() > rule.max_items => findings.too_big("array", rule.max_items, None),
        Kind::List(_) => return Some(Value::List(values)),
        _ if values.len() > 1 => findings.too_big("array", 1, None),
        _ => return values.pop(),
    }
    None
}

/// The URL that an object holds: `{"url": …}`, `{"image_url": …}`, `{"image_url": {"url": …}}`.
fn url_in<'a, 'j>(json: &'a Json<'j>) -> &'a Json<'j> {
    let inner = |json: &'a Json<'j>| json.as_object().and_then(|object| object.get("url").or(object.get("image_url")));
    inner(json).map_or(json, |one| inner(one).unwrap_or(one))
}

pub(super) fn object<'j>(rule: &'j ObjectRule, json: &'j Json<'_>, findings: &mut Findings<'j>) -> Option<Value> {
    let Json::Object(object) = json else {
        findings.wrong_type("object", json);
        return None;
    };
    let mut values: Vec<Option<Value>> = vec![None; rule.fields.len()];
    let mut given = vec![false; rule.fields.len()];
    let mut valid = true;
    for (key, json) in object.distinct() {
        let Some(place) = rule.fields.iter().position(|field| answers_to(field, key)) else {
            findings.unknown(key, rule.fields.iter().map(|field| field.name.as_ref()));
            continue;
        };
        let (Some(field), Some(value), Some(given)) =
            (rule.fields.get(place), values.get_mut(place), given.get_mut(place))
        else {
            continue;
        };
        if is_absent(field, json) {
            continue;
        }
        if *given {
            let message = format!("`{key}` is another name of `{}`, which is given as well", field.name);
            findings.within(key, |findings| findings.note(Code::Custom, message));
            valid = false;
            continue;
        }
        *given = true;
        *value = findings.within(key, |findings| check(&field.kind, json, findings));
        valid &= value.is_some();
    }
    let mut fields = Vec::with_capacity(rule.fields.len());
    for ((field, value), given) in rule.fields.iter().zip(values).zip(given) {
        if field.required && !given {
            findings.missing(&field.name, type_name(&field.kind));
            valid = false;
        }
        if let Some(value) = value.or_else(|| field.default.clone()) {
            fields.push((Arc::clone(&field.name), value));
        }
    }
    valid.then_some(Value::Object(fields))
}

fn answers_to(field: &Parameter, key: &str) -> bool {
    *field.name == *key || field.accepts.iter().any(|name| name == key)
}
