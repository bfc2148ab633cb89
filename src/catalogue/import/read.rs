//! Reads a document: its input and output, with everything that they refer to by name.

use serde_json::{Map, Value as Json};

use super::{Draft, DraftKind, DraftOutput, DraftParameter, DraftPrice, DraftSize, ImportError};

type Object = Map<String, Json>;

/// Objects inside objects deeper than this refer to themselves.
const DEEPEST: usize = 8;

pub(super) fn draft(document: &Json) -> Result<Draft, ImportError> {
    let form = Form::of(document)?;
    let mut left_out = Vec::new();
    let parameters = form.parameters(form.input, 0, "", &mut left_out);
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
    })
}

/// Where the parts of a document are, whatever its form.
struct Form<'d> {
    endpoint: String,
    input: &'d Object,
    output: Option<&'d Object>,
    types: Option<&'d Object>,
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
        Ok(Self {
            endpoint: endpoint.ok_or_else(|| not_a_document("it has no `endpoint_id`"))?.to_owned(),
            input: entry
                .get("input")
                .and_then(Json::as_object)
                .ok_or_else(|| not_a_document("`input` is no object"))?,
            output: entry.get("output").and_then(Json::as_object),
            types: entry.get("types").and_then(Json::as_object),
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
        let input = body.and_then(|schema| resolve(schema, types));
        let answers = paths.iter().filter(|(path, _)| path.ends_with("/{request_id}")).map(|(_, item)| item);
        let output = answers
            .filter_map(|item| item.pointer("/get/responses/200/content/application~1json/schema"))
            .find_map(|schema| resolve(schema, types));
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
        let Some(output) = self.output else {
            return DraftOutput { fields: Vec::new(), image_fields: Vec::new(), content_type: None };
        };
        let names = |object: &Object| properties(object).into_iter().map(|(name, _)| name.clone()).collect();
        let image = property(output, "images").and_then(|images| resolve(images.get("items")?, self.types));
        let content_type = image.and_then(|image| property(image, "content_type")?.get("default")?.as_str());
        DraftOutput {
            fields: names(output),
            image_fields: image.map(names).unwrap_or_default(),
            content_type: content_type.map(str::to_owned),
        }
    }

    /// The fields of an object, in fal's order. `sync_mode` is the gateway's own.
    fn parameters(&self, object: &Object, depth: usize, path: &str, left_out: &mut Vec<String>) -> Vec<DraftParameter> {
        let required = object.get("required").and_then(Json::as_array);
        let mut parameters = Vec::new();
        for (name, schema) in properties(object) {
            if name == "sync_mode" {
                continue;
            }
            let full = format!("{path}{name}");
            let schema = without_null(schema);
            let Some(kind) = self.kind(name, &schema, depth, &full, left_out) else {
                left_out.push(full);
                continue;
            };
            let is_required = required.is_some_and(|names| names.iter().any(|known| known == name.as_str()));
            let default = schema.get("default").filter(|default| !default.is_null() && !is_required).cloned();
            let description = schema.get("description").and_then(Json::as_str).map(one_line).unwrap_or_default();
            parameters.push(DraftParameter { name: name.clone(), kind, required: is_required, default, description });
        }
        parameters
    }

    fn kind(
        &self,
        name: &str,
        schema: &Object,
        depth: usize,
        path: &str,
        left_out: &mut Vec<String>,
    ) -> Option<DraftKind> {
        if depth > DEEPEST {
            return None;
        }
        if let Some(size) = self.size(name, schema) {
            return Some(size);
        }
        if let Some(options) = options(schema) {
            let ratios = options.iter().any(|option| option.contains(':'));
            return Some(if name == "aspect_ratio" && ratios {
                DraftKind::AspectRatio(options)
            } else {
                DraftKind::Choice(options)
            });
        }
        if schema.contains_key("$ref") {
            return self.object(resolve_object(schema, self.types)?, depth, path, left_out);
        }
        let limit = |key: &str| schema.get(key).filter(|limit| limit.is_number()).cloned();
        let count = |key: &str| schema.get(key).and_then(Json::as_u64);
        match schema.get("type")?.as_str()? {
            "boolean" => Some(DraftKind::Boolean),
            kind @ ("integer" | "number") => {
                let name = match (kind, name) {
                    ("integer", "seed") => "seed",
                    ("integer", _) => "integer",
                    _ => "number",
                };
                Some(DraftKind::Number { name, minimum: limit("minimum"), maximum: limit("maximum") })
            }
            "string" if schema.contains_key("x-fal-file-input") || name.ends_with("image_url") => {
                Some(DraftKind::Image)
            }
            "string" => {
                let uuid = schema.get("format").is_some_and(|format| format == "uuid4" || format == "uuid");
                Some(DraftKind::Text { min_length: count("minLength"), max_length: count("maxLength"), uuid })
            }
            "array" => {
                let items = without_null(schema.get("items")?);
                // A list of pictures names its items by its own name.
                let item = name.strip_suffix("image_urls").map_or("item", |_| "image_url");
                let items = Box::new(self.kind(item, &items, depth + 1, path, left_out)?);
                Some(DraftKind::List { items, min_items: count("minItems"), max_items: count("maxItems") })
            }
            "object" => self.object(schema, depth, path, left_out),
            _ => None,
        }
    }

    /// An object that says which fields it has.
    fn object(&self, object: &Object, depth: usize, path: &str, left_out: &mut Vec<String>) -> Option<DraftKind> {
        let fields = self.parameters(object, depth + 1, &format!("{path}."), left_out);
        (!fields.is_empty()).then_some(DraftKind::Object(fields))
    }

    /// `image_size`: named sizes, and perhaps an object with both sides.
    fn size(&self, name: &str, schema: &Object) -> Option<DraftKind> {
        if name != "image_size" {
            return None;
        }
        let own = [schema];
        let alternatives: Vec<&Object> = match schema.get("anyOf").and_then(Json::as_array) {
            Some(alternatives) => alternatives.iter().filter_map(Json::as_object).collect(),
            None => own.to_vec(),
        };
        let presets = alternatives.iter().filter_map(|schema| options(schema)).flatten().collect();
        let sides = alternatives.iter().find_map(|schema| resolve_object(schema, self.types));
        let custom = sides.and_then(|sides| {
            let (width, height) = (property(sides, "width")?, property(sides, "height")?);
            let number = |side: &Json, key: &str| side.get(key).and_then(Json::as_u64);
            let least = number(width, "minimum").or_else(|| number(width, "exclusiveMinimum").map(|below| below + 1));
            Some(DraftSize {
                minimum: least.unwrap_or(1).max(1),
                maximum: number(width, "maximum"),
                missing_side: number(width, "default").zip(number(height, "default")),
            })
        });
        Some(DraftKind::Size { presets, custom })
    }
}

fn not_a_document(why: impl Into<String>) -> ImportError {
    ImportError::NotADocument(why.into())
}

/// Texts to choose from.
fn options(schema: &Object) -> Option<Vec<String>> {
    let texts = schema.get("enum")?.as_array()?.iter().map(|option| option.as_str().map(str::to_owned));
    texts.collect::<Option<Vec<_>>>().filter(|options| !options.is_empty())
}

/// fal writes "may be null" as an alternative; what is left may stand alone.
fn without_null(schema: &Json) -> Object {
    let Some(object) = schema.as_object() else { return Object::new() };
    let mut object = object.clone();
    let Some(Json::Array(alternatives)) = object.get_mut("anyOf") else { return object };
    alternatives.retain(|one| one.get("type").is_none_or(|kind| kind != "null"));
    // An enumeration, or any text: the enumeration is what fal means.
    let texts = |one: &Json| one.get("type").is_some_and(|kind| kind == "string");
    if alternatives.iter().all(texts) && alternatives.iter().any(|one| one.get("enum").is_some()) {
        alternatives.retain(|one| one.get("enum").is_some());
    }
    if let [Json::Object(only)] = alternatives.as_slice() {
        let only = only.clone();
        object.remove("anyOf");
        for (key, value) in only {
            object.entry(key).or_insert(value);
        }
    }
    object
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

fn property<'d>(object: &'d Object, name: &str) -> Option<&'d Json> {
    object.get("properties")?.get(name)
}

/// What a `$ref` names, by its last part; a schema without one is itself.
fn resolve<'d>(schema: &'d Json, types: Option<&'d Object>) -> Option<&'d Object> {
    let object = schema.as_object()?;
    resolve_object(object, types).or(Some(object))
}

fn resolve_object<'d>(schema: &Object, types: Option<&'d Object>) -> Option<&'d Object> {
    let name = schema.get("$ref")?.as_str()?.rsplit('/').next()?;
    types?.get(name)?.as_object()
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
