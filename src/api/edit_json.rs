//! The JSON form of an edit: OpenAI's references to images (`{"image_url": …}`, `{"file_id": …}`) and plain URLs.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::Services;
use super::edit_inputs::{EditInputs, Fields, entry_at, image_parameter, takes_images};
use crate::accounts::{AccountsError, Caller, Scope};
use crate::catalogue::{Json, Model, Object};
use crate::domain::{FileId, ProjectId};
use crate::http::{Code, Problem};

/// Most images in one field, more than any model takes: each file that is named is looked up.
const MOST_IMAGES: usize = 50;
/// Names of the images that are edited.
const IMAGES: [&str; 6] = ["image", "images", "image[]", "images[]", "image_url", "image_urls"];
/// Names of the mask.
const MASKS: [&str; 4] = ["mask", "mask_url", "mask_image", "mask_image_url"];

/// Who asks, and for which project.
pub struct Asker<'s> {
    /// The key.
    pub caller: &'s Caller,
    /// Whose files may be named.
    pub project: ProjectId,
    /// What knows the files.
    pub services: &'s Services,
}

/// The request's other fields as they are, and its images with every reference resolved.
///
/// # Errors
/// 403 where a key without the scope `files` names a file, 503 where files cannot be looked up.
pub async fn read_edit<'j>(
    object: &'j Object<'_>,
    model: Option<&Model>,
    asker: &Asker<'_>,
) -> Result<(Fields<'j>, EditInputs<'j>), Problem> {
    let (mut fields, mut inputs) = (Fields::new(), EditInputs::default());
    let mut images_from: Option<&str> = None;
    let mut mask_from: Option<&str> = None;
    for (key, json) in object.distinct() {
        let is_mask = MASKS.contains(&key);
        if !is_mask && (!IMAGES.contains(&key) || is_another_parameter(model, key)) {
            fields.push((Cow::Borrowed(key), json.clone()));
            continue;
        }
        let found = references(key, json, asker, &mut inputs.problems).await?;
        if found.is_empty() {
            continue;
        }
        if is_mask {
            let differs = inputs.mask.as_ref().is_some_and(|mask| found != [mask.clone()]);
            match mask_from {
                Some(first) if differs => inputs.problems.push(contradiction(key, first)),
                _ if found.len() > 1 => inputs.problems.push(entry_at(&[json!(key)], "given more than once")),
                _ => (inputs.mask, mask_from) = (found.into_iter().next(), Some(key)),
            }
        } else {
            match images_from {
                Some(first) if inputs.images != found => inputs.problems.push(contradiction(key, first)),
                _ => (inputs.images, images_from) = (found, Some(key)),
            }
        }
    }
    Ok((fields, inputs))
}

/// Whether the model has a parameter of images under this name that is not the one of the images to be edited.
fn is_another_parameter(model: Option<&Model>, key: &str) -> bool {
    let Some(parameters) = model.map(|model| model.parameters.as_slice()) else { return false };
    let named = parameters.iter().find(|parameter| *parameter.name == *key && takes_images(&parameter.kind));
    named.is_some_and(|named| image_parameter(parameters).is_some_and(|first| first.name != named.name))
}

fn contradiction(key: &str, first: &str) -> Value {
    entry_at(&[json!(key)], &format!("`{key}` and `{first}` are the same field but differ; give one of them"))
}

/// Whether this is an object such as `{"image_url": ""}`.
fn names_nothing(json: &Json<'_>) -> bool {
    json.as_object().is_some_and(|object| object.entries().iter().all(|(_, value)| value.is_empty()))
}

/// The images of a field: one, or a list of them. What says nothing is none.
async fn references<'j>(
    key: &str,
    json: &'j Json<'_>,
    asker: &Asker<'_>,
    problems: &mut Vec<Value>,
) -> Result<Vec<Cow<'j, str>>, Problem> {
    let (items, is_list) = match json {
        Json::Array(array) => (array.items(), true),
        one if one.is_empty() || names_nothing(one) => (&[][..], false),
        one => (std::slice::from_ref(one), false),
    };
    if items.len() > MOST_IMAGES {
        problems.push(entry_at(&[json!(key)], &format!("has {} images; at most {MOST_IMAGES} are read", items.len())));
        return Ok(Vec::new());
    }
    let mut found = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let mut path = vec![json!(key)];
        path.extend(is_list.then(|| json!(index)));
        match reference(item) {
            Reference::Url(url) => found.push(url),
            Reference::File(id) => {
                path.push(json!("file_id"));
                match file_url(id, asker).await? {
                    Some(url) => found.push(Cow::Owned(url)),
                    None => problems.push(entry_at(&path, "the project has no such file")),
                }
            }
            Reference::Wrong => {
                let message = "must be a URL, a data URI, `{\"image_url\": …}` or `{\"file_id\": …}`";
                problems.push(entry_at(&path, message));
            }
        }
    }
    Ok(found)
}

/// What an item names.
enum Reference<'j> {
    Url(Cow<'j, str>),
    File(&'j str),
    Wrong,
}

/// `"https://…"`, `{"image_url": "https://…"}`, `{"image_url": {"url": …}}`, `{"url": …}` or `{"file_id": "file-…"}`.
fn reference<'j>(json: &'j Json<'_>) -> Reference<'j> {
    let Some(object) = json.as_object() else { return json.as_str().map_or(Reference::Wrong, borrowed) };
    let given = |name: &str| object.get(name).filter(|value| !value.is_empty());
    let url = given("image_url").or_else(|| given("url"));
    match (url, given("file_id")) {
        (Some(Json::Object(inner)), None) => inner.get("url").and_then(Json::as_str).map_or(Reference::Wrong, borrowed),
        (Some(url), None) => url.as_str().map_or(Reference::Wrong, borrowed),
        (None, Some(id)) => id.as_str().map_or(Reference::Wrong, Reference::File),
        _ => Reference::Wrong,
    }
}

fn borrowed(text: &str) -> Reference<'_> {
    Reference::Url(Cow::Borrowed(text))
}

/// Where an uploaded file of the project lies.
async fn file_url(id: &str, asker: &Asker<'_>) -> Result<Option<String>, Problem> {
    if !asker.caller.scopes.contains(Scope::Files) {
        let message = "this key does not have the scope `files`, which `file_id` requires";
        return Err(Problem::new(Code::PermissionDenied, message).param("file_id"));
    }
    let Ok(id) = id.parse::<FileId>() else { return Ok(None) };
    match asker.services.accounts.file(asker.project, id).await {
        Ok(file) => Ok(file.url),
        Err(AccountsError::UnknownFile) => Ok(None),
        Err(fault) => Err(fault.into()),
    }
}
