//! Reads a document: its input and output, with everything that they refer to by name.

use serde_json::Value as Json;

use super::flat::{Object, flat};
use super::kinds;
use super::{Draft, DraftKind, DraftOutput, DraftParameter, DraftPrice, ImportError};

pub(super) fn draft(document: &Json) -> Result<Draft, ImportError> {
    let form = Form::of(document)?;
    let mut left_out = Vec::new();
    let (parameters, mut unsaid) = form.parameters(&form.input, 0, "", &mut left_out).unwrap_or_default();
    unsaid.extend(kinds::left_of_an_object(&form.input));
    let about = |name: &str| form.about.iter().find_map(|place| place.get(name)?.as_str()).map(one_line);
    Ok(Draft {
        endpoint: form.endpoint.clone(),
        name: about("display_name"),
        description: about("description").or_else(|| about("about")),
        streams: form.about.iter().any(|place| place.get("stream_url").is_some_and(Json::is_string)),
        price: document.get("price").and_then(price),
        output: form.output(),
        parameters,
        left_out,
        unsaid,
    })
}

/// Where the parts of a document are, whatever its form.
pub(super) struct Form<'d> {
    endpoint: String,
    input: Object,
    output: Option<Object>,
    pub(super) types: Option<&'d Object>,
    /// Objects that tell of the endpoint itself, the best first.
    about: Vec<&'d Object>,
}

impl<'d> Form<'d> {
    fn of(document: &'d Json) -> Result<Self, ImportError> {
        let object = document.as_object().ok_or_else(|| not_a_document("it is no JSON object"))?;
        if object.contains_key("input") {
            return Self::of_entry(object);
        }
        if object.contains_key("paths") {
            return Self::of_openapi(object, None);
        }
        if let Some(inner) = object.get("openapi").and_then(Json::as_object) {
            return Self::of_openapi(inner, object.get("metadata").and_then(Json::as_object));
        }
        // A file of entries by their ids, of which one can be taken.
        let entries: Vec<_> = object.iter().filter(|(_, entry)| entry.get("input").is_some()).collect();
        match entries.as_slice() {
            [(_, entry)] => Self::of(entry),
            [] => Err(not_a_document("it has neither `paths` nor `input`")),
            [(first, _), ..] => {
                Err(not_a_document(format!("it has {} entries; give one of them, such as `{first}`", entries.len())))
            }
        }
    }

    fn of_entry(entry: &'d Object) -> Result<Self, ImportError> {
        let endpoint = entry.get("endpoint_id").and_then(Json::as_str);
        let types = entry.get("types").and_then(Json::as_object);
        Ok(Self {
            endpoint: endpoint.ok_or_else(|| not_a_document("it has no `endpoint_id`"))?.to_owned(),
            input: entry
                .get("input")
                .and_then(|input| flat(input, types))
                .ok_or_else(|| not_a_document("`input` is no object"))?,
            output: entry.get("output").and_then(|output| flat(output, types)),
            types,
            about: vec![entry],
        })
    }

    /// The submit's path names the endpoint, its body the input; the output is what the result's path answers.
    fn of_openapi(openapi: &'d Object, metadata: Option<&'d Object>) -> Result<Self, ImportError> {
        let paths = openapi.get("paths").and_then(Json::as_object);
        let paths = paths.ok_or_else(|| not_a_document("`paths` is no object"))?;
        let types = openapi.get("components").and_then(|components| components.get("schemas")?.as_object());
        let submit = paths.iter().find_map(|(path, item)| Some((path, item.get("post")?)));
        let (path, submit) = submit.ok_or_else(|| not_a_document("no path takes `post`"))?;
        let body = submit.pointer("/requestBody/content/application~1json/schema");
        let input = body.and_then(|schema| flat(schema, types));
        let answers = paths.iter().filter(|(path, _)| path.ends_with("/{request_id}")).map(|(_, item)| item);
        let output = answers
            .filter_map(|item| item.pointer("/get/responses/200/content/application~1json/schema"))
            .find_map(|schema| flat(schema, types));
        let info = openapi.get("info").and_then(Json::as_object);
        let own = info.and_then(|info| info.get("x-fal-metadata")?.as_object());
        let named = own.and_then(|own| own.get("endpointId")?.as_str());
        Ok(Self {
            endpoint: named.unwrap_or_else(|| path.trim_start_matches('/')).to_owned(),
            input: input.ok_or_else(|| not_a_document("the body of `post` has no schema"))?,
            output,
            types,
            about: [metadata, own].into_iter().flatten().collect(),
        })
    }

    fn output(&self) -> DraftOutput {
        let Some(output) = &self.output else {
            return DraftOutput { fields: Vec::new(), image_fields: Vec::new(), content_type: None };
        };
        let names = |object: &Object| properties(object).into_iter().map(|(name, _)| name.clone()).collect();
        let image = property(output, "images").and_then(|images| flat(images.get("items")?, self.types));
        let content_type = image.as_ref().and_then(|image| property(image, "content_type")?.get("default")?.as_str());
        DraftOutput {
            fields: names(output),
            image_fields: image.as_ref().map(names).unwrap_or_default(),
            content_type: content_type.map(str::to_owned),
        }
    }

    /// The fields of an object, in fal's order, and what of them no kind can say though they are required. `None` if a
    /// required field of an object inside has no kind at all. `sync_mode` is the gateway's own.
    pub(super) fn parameters(
        &self,
        object: &Object,
        depth: usize,
        path: &str,
        left_out: &mut Vec<(String, String)>,
    ) -> Option<(Vec<DraftParameter>, Vec<String>)> {
        let required = object.get("required").and_then(Json::as_array);
        let mut parameters = Vec::new();
        let mut unsaid = Vec::new();
        for (name, schema) in properties(object) {
            if name == "sync_mode" {
                continue;
            }
            let full = format!("{path}{name}");
            let is_required = required.is_some_and(|names| names.iter().any(|known| known == name.as_str()));
            let schema = flat(schema, self.types);
            let mut below = Vec::new();
            let told = schema.as_ref().and_then(|schema| self.kind(name, schema, depth, &full, &mut below));
            let (kind, words) = match told {
                Some((_, words)) if !words.is_empty() && !is_required => {
                    left_out.push((full, format!("since no kind of parameter can say its {}", list(&words))));
                    continue;
                }
                Some(told) => told,
                None if is_required && depth == 0 => (DraftKind::Unknown, Vec::new()),
                None if is_required => return None,
                None => {
                    left_out.push((full, "whose form no kind of parameter has".to_owned()));
                    continue;
                }
            };
            left_out.append(&mut below);
            unsaid.extend(words.into_iter().map(|word| format!("{name}.{word}")));
            let schema = schema.unwrap_or_default();
            let default = schema.get("default").filter(|default| !default.is_null() && !is_required).cloned();
            let description = schema.get("description").and_then(Json::as_str).map(one_line).unwrap_or_default();
            parameters.push(DraftParameter { name: name.clone(), kind, required: is_required, default, description });
        }
        Some((parameters, unsaid))
    }
}

/// `` `minimum`, `pattern` ``
fn list(words: &[String]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn not_a_document(why: impl Into<String>) -> ImportError {
    ImportError::NotADocument(why.into())
}

/// Properties in the order that fal shows them in.
fn properties(object: &Object) -> Vec<(&String, &Json)> {
    let Some(properties) = object.get("properties").and_then(Json::as_object) else { return Vec::new() };
    let order = ["x-fal-order-properties", "property_order"].iter().find_map(|key| object.get(*key)?.as_array());
    let place = |name: &str| order.and_then(|order| order.iter().position(|known| known == name)).unwrap_or(usize::MAX);
    let mut listed: Vec<_> = properties.iter().collect();
    listed.sort_by_key(|(name, _)| place(name));
    listed
}

pub(super) fn property<'d>(object: &'d Object, name: &str) -> Option<&'d Json> {
    object.get("properties")?.get(name)
}

/// `{ "unit": "megapixels", "unit_price_usd": 0.025 }`
fn price(price: &Json) -> Option<DraftPrice> {
    let per = match price.get("unit")?.as_str()?.split_whitespace().next()? {
        "megapixel" | "megapixels" => "megapixel",
        "image" | "images" => "image",
        _ => return None,
    };
    let amount = price.get("unit_price_usd").filter(|amount| amount.is_number())?;
    Some(DraftPrice { per, amount: amount.to_string() })
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
