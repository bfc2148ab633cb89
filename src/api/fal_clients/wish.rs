//! A request in fal's words as our wish: the model is the endpoint, and what fal does not know of ours is left out.

use serde_json::{Map, Value};

use super::refusal::Refusal;
use crate::catalogue::{Model, check_values};

/// What is asked of the gateway itself in our own requests. fal ignores fields that it does not know, so these mean nothing
/// in its words, unless the model has a parameter of that name.
const OURS: [&str; 8] =
    ["model", "response_format", "user", "stream", "partial_images", "background", "webhook_url", "fallbacks"];

/// The text of the wish, for the model under one of its names. `extra` is put in beside what the client sent.
pub fn wish(
    model: &Model,
    name: &str,
    endpoint: &str,
    body: &[u8],
    extra: &[(&str, Value)],
) -> Result<String, Refusal> {
    check_values(body).map_err(|fault| Refusal::field(&["body"], "json_invalid", &fault.to_string()))?;
    let input: Value = serde_json::from_slice(body)
        .map_err(|fault| Refusal::field(&["body"], "json_invalid", &format!("JSON decode error: {fault}")))?;
    let Value::Object(mut input) = input else {
        return Err(Refusal::field(&["body"], "dict_type", "Input should be a valid dictionary"));
    };
    input.retain(|name, _| !OURS.contains(&name.as_str()) || has_parameter(model, name));
    let mut wish = Map::new();
    wish.insert("model".to_owned(), Value::from(name));
    wish.extend(input.into_iter().map(|(name, value)| (model.own_name(endpoint, &name).to_owned(), value)));
    wish.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    Ok(Value::Object(wish).to_string())
}

fn has_parameter(model: &Model, name: &str) -> bool {
    name != "model" && model.parameters.iter().any(|parameter| *parameter.name == *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;

    fn read(endpoint: &str, body: &str) -> Result<Value, Refusal> {
        let catalogue = Catalogue::built_in().unwrap();
        let model = catalogue.model_of_endpoint("fal", endpoint).unwrap();
        let text = wish(model, &model.id, endpoint, body.as_bytes(), &[("stream", true.into())])?;
        Ok(serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn the_endpoint_is_the_model_and_our_own_words_count_for_nothing() {
        let body = r#"{"model": "gpt-image-1.5", "prompt": "a", "seed": 18446744073709551615, "background": true,
            "webhook_url": "http://x", "stream": false, "sync_mode": true}"#;
        let read = read("fal-ai/flux/dev", body).unwrap();
        let expected = serde_json::json!({"model": "flux/dev", "prompt": "a", "seed": u64::MAX, "sync_mode": true, "stream": true});
        assert_eq!(read, expected);
    }

    #[test]
    fn a_parameter_of_the_model_keeps_its_name() {
        let read = read("fal-ai/gpt-image-1.5", r#"{"prompt": "a", "background": "transparent"}"#).unwrap();
        assert_eq!(read["background"], "transparent");
    }

    #[test]
    fn an_endpoint_for_several_images_is_the_model_that_takes_them() {
        let body = r#"{"prompt": "a", "image_urls": ["https://x/1.png", "https://x/2.png"]}"#;
        let read = read("fal-ai/flux-pro/kontext/multi", body).unwrap();
        assert_eq!(read["model"], "flux/kontext-pro/image-to-image");
        assert_eq!(read["image_url"], serde_json::json!(["https://x/1.png", "https://x/2.png"]));
        assert!(read.get("image_urls").is_none(), "{read}");
    }

    #[test]
    fn what_is_no_object_is_refused_in_fals_words() {
        for (body, kind) in
            [("[]", "dict_type"), ("{", "json_invalid"), (r#"{"a": NaN}"#, "json_invalid"), ("", "json_invalid")]
        {
            assert_eq!(read("fal-ai/flux/dev", body).unwrap_err().error_type(), kind, "{body}");
        }
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(5000), "]".repeat(5000));
        assert_eq!(read("fal-ai/flux/dev", &deep).unwrap_err().error_type(), "json_invalid");
    }
}
