//! The pictures that a request brings: whether a runner could load them. Nothing is fetched: a data URI is read, a link
//! to our own storage is looked up, a host below `.invalid` cannot be reached, and any other link is taken for good.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::schema::Endpoint;
use super::storage::Uploads;
use super::validate::problem;

/// What a runner could not load, in fal's words.
pub fn problems(endpoint: &Endpoint, body: &Value, uploads: &Uploads) -> Vec<Value> {
    let mut found = Vec::new();
    for (name, _) in &endpoint.input.properties {
        if let Some(value) = body.get(name) {
            look(name, value, &mut vec![json!("body"), json!(name)], uploads, &mut found);
        }
    }
    found
}

fn look(name: &str, value: &Value, path: &mut Vec<Value>, uploads: &Uploads, found: &mut Vec<Value>) {
    match value {
        Value::String(link) if names_a_picture(name) => {
            if let Err((kind, message)) = loads(link, uploads) {
                found.push(problem(kind, &Value::Array(path.clone()), message, None, value));
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push(json!(index));
                look(name, item, path, uploads, found);
                path.pop();
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                path.push(json!(name));
                look(name, field, path, uploads, found);
                path.pop();
            }
        }
        _ => {}
    }
}

fn names_a_picture(name: &str) -> bool {
    ["image_url", "image_urls", "mask_url"].iter().any(|end| name.ends_with(end))
}

fn loads(link: &str, uploads: &Uploads) -> Result<(), (&'static str, &'static str)> {
    const NO_PICTURE: (&str, &str) = (
        "image_load_error",
        "Failed to load the image. Please ensure the image file is not corrupted and is in a supported format.",
    );
    const NO_FILE: (&str, &str) =
        ("file_download_error", "Failed to download the file. Please check if the URL is accessible and try again.");
    if let Some(data) = link.strip_prefix("data:") {
        let data = data.split_once(";base64,").ok_or(NO_PICTURE)?.1;
        let bytes = STANDARD.decode(data).map_err(|_| NO_PICTURE)?;
        return image::guess_format(&bytes).map(|_| ()).map_err(|_| NO_PICTURE);
    }
    let url = url::Url::parse(link).map_err(|_| NO_FILE)?;
    let reachable = matches!(url.scheme(), "http" | "https")
        && url.host_str().is_some_and(|host| host.rsplit('.').next() != Some("invalid"));
    let name = url.path().rsplit('/').next().unwrap_or_default();
    if !reachable || uploads.is_awaited(name) {
        return Err(NO_FILE);
    }
    match uploads.find(name) {
        Some((_, bytes)) => image::guess_format(&bytes).map(|_| ()).map_err(|_| NO_PICTURE),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::schema::Schemas;

    fn kinds(endpoint: &str, body: &Value) -> Vec<(Value, String)> {
        let schemas = Schemas::built_in().unwrap();
        let found = problems(schemas.endpoint(endpoint).unwrap(), body, &Uploads::default());
        let kind = |problem: &Value| problem["type"].as_str().unwrap().to_owned();
        found.iter().map(|problem| (problem["loc"].clone(), kind(problem))).collect()
    }

    #[test]
    fn a_picture_that_cannot_be_loaded_is_named_by_its_place() {
        let png = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg==";
        let links = json!([png, "data:image/png;base64,AAAA", "https://nowhere.invalid/a.png", "not a link"]);
        let expected = [(1, "image_load_error"), (2, "file_download_error"), (3, "file_download_error")];
        let expected = expected.map(|(place, kind)| (json!(["body", "input_image_urls", place]), kind.to_owned()));
        assert_eq!(kinds("fal-ai/omnigen-v2", &json!({"prompt": "a", "input_image_urls": links})), expected);
    }

    #[test]
    fn pictures_inside_objects_are_looked_at_and_unknown_fields_are_not() {
        let controlnet = json!({"path": "x", "control_image_url": "data:,"});
        let found = kinds("fal-ai/stable-diffusion-v35-large", &json!({"controlnet": controlnet, "image_url": "x"}));
        let expected = (json!(["body", "controlnet", "control_image_url"]), "image_load_error".to_owned());
        assert_eq!(found, [expected]);
    }
}
