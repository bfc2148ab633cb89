//! Brings a schema of a document to one plain object: what it refers to, its single alternatives and `null` are
//! worked in, so that one place has everything that it says.

use serde_json::{Map, Value as Json};

pub(super) type Object = Map<String, Json>;

/// References deeper than this refer to themselves.
const DEEPEST: usize = 8;
/// Words that tell and do not limit: the outermost counts.
const TELLING: [&str; 8] =
    ["title", "description", "default", "examples", "example", "deprecated", "nullable", "discriminator"];
/// Limits of which the greater is the stricter, and those of which the smaller is.
const AT_LEAST: [&str; 5] = ["minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"];
const AT_MOST: [&str; 5] = ["maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"];

/// The schema as one object; `None` where it refers to nothing or to itself, or says things that no one object can.
pub(super) fn flat(schema: &Json, types: Option<&Object>) -> Option<Object> {
    merged(schema, types, 0)
}

fn merged(schema: &Json, types: Option<&Object>, depth: usize) -> Option<Object> {
    if depth > DEEPEST {
        return None;
    }
    let mut object = schema.as_object()?.clone();
    plain_words(&mut object);
    if let Some(reference) = object.remove("$ref") {
        let name = reference.as_str()?.rsplit('/').next()?;
        join(&mut object, merged(types?.get(name)?, types, depth + 1)?)?;
    }
    if let Some(Json::Array(parts)) = object.remove("allOf") {
        for part in &parts {
            join(&mut object, merged(part, types, depth + 1)?)?;
        }
    }
    for word in ["anyOf", "oneOf"] {
        let Some(Json::Array(alternatives)) = object.remove(word) else { continue };
        let is_null = |one: &&Json| one.get("type").is_some_and(|kind| kind == "null");
        let wanted = alternatives.iter().filter(|one| !is_null(one));
        let mut wanted = wanted.map(|one| merged(one, types, depth + 1)).collect::<Option<Vec<_>>>()?;
        // An enumeration, or any text: the enumeration is what fal means.
        let is_text = |one: &Object| one.get("type").is_some_and(|kind| kind == "string");
        if wanted.iter().all(is_text) && wanted.iter().any(|one| one.contains_key("enum")) {
            wanted.retain(|one| one.contains_key("enum"));
        }
        match one_of_them(wanted) {
            Ok(only) => join(&mut object, only)?,
            Err(several) => {
                object.insert(word.to_owned(), several.into_iter().map(Json::Object).collect());
            }
        }
    }
    Some(object)
}

/// Older and newer spellings of the same thing, in one: an exclusive limit is a number, a constant is an enumeration,
/// and `null` is no value.
fn plain_words(object: &mut Object) {
    for (exclusive, limit) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
        let Some(Json::Bool(is_exclusive)) = object.get(exclusive).cloned() else { continue };
        object.remove(exclusive);
        let limit = if is_exclusive { object.remove(limit) } else { None };
        object.extend(limit.map(|limit| (exclusive.to_owned(), limit)));
    }
    if let Some(only) = object.remove("const") {
        object.insert("enum".to_owned(), Json::Array(vec![only]));
    }
    if let Some(Json::Array(options)) = object.get_mut("enum") {
        options.retain(|option| !option.is_null());
    }
    if let Some(Json::Array(kinds)) = object.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [only] = kinds.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
}

/// One alternative stands for all: it is the only one, or they differ in nothing but their options.
fn one_of_them(mut alternatives: Vec<Object>) -> Result<Object, Vec<Object>> {
    let options = |one: &Object| one.get("enum").and_then(Json::as_array).cloned();
    let rest = |one: &Object| {
        let limiting = one.iter().filter(|(word, _)| *word != "enum" && !tells(word));
        limiting.map(|(word, value)| (word.clone(), value.clone())).collect::<Object>()
    };
    let first = alternatives.first().map(&rest);
    let alike = alternatives.iter().all(|one| options(one).is_some() && Some(rest(one)) == first);
    if alternatives.len() > 1 && !alike {
        return Err(alternatives);
    }
    let all: Vec<Json> = alternatives.iter().filter_map(options).flatten().collect();
    if alternatives.is_empty() {
        return Err(alternatives);
    }
    let mut only = alternatives.swap_remove(0);
    if alike {
        only.insert("enum".to_owned(), Json::Array(all));
    }
    Ok(only)
}

fn tells(word: &str) -> bool {
    TELLING.contains(&word) || word.starts_with("x-")
}

/// Everything that both say, which a value must keep to at once; `None` where one object cannot say that.
fn join(object: &mut Object, other: Object) -> Option<()> {
    for (word, theirs) in other {
        let joined = match object.get(&word) {
            None => theirs,
            Some(ours) if tells(&word) || *ours == theirs => continue,
            Some(ours) => both(&word, ours, theirs)?,
        };
        object.insert(word, joined);
    }
    Some(())
}

fn both(word: &str, ours: &Json, theirs: Json) -> Option<Json> {
    let (least, most) = (AT_LEAST.contains(&word), AT_MOST.contains(&word));
    if least || most {
        let ours_is_stricter = (ours.as_f64()? > theirs.as_f64()?) == least;
        return Some(if ours_is_stricter { ours.clone() } else { theirs });
    }
    match (word, ours, theirs) {
        ("enum", Json::Array(ours), Json::Array(theirs)) => {
            Some(ours.iter().filter(|option| theirs.contains(option)).cloned().collect())
        }
        ("required", Json::Array(ours), Json::Array(theirs)) => Some(ours.iter().cloned().chain(theirs).collect()),
        ("properties", Json::Object(ours), Json::Object(theirs)) => {
            let mut all = ours.clone();
            for (name, schema) in theirs {
                if *all.entry(name).or_insert_with(|| schema.clone()) != schema {
                    return None;
                }
            }
            Some(Json::Object(all))
        }
        _ => None,
    }
}
