//! A document becomes a file, and what it cannot say must be filled in before the file loads.

use serde_json::{Value as Json, json};

use super::super::{Kind, Model, Size, Value, check_file, import};

/// A document as fal publishes it, cut down.
fn openapi() -> Json {
    let answer = |name: &str| json!({ "200": { "content": { "application/json": { "schema": { "$ref": name } } } } });
    let texts = ["square_hd", "landscape_4_3", "tall"];
    json!({
        "openapi": "3.0.4",
        "info": {
            "title": "Queue OpenAPI for fal-ai/harbour/v1/edit",
            "x-fal-metadata": { "endpointId": "fal-ai/harbour/v1/edit", "about": "Paints\n  harbours." }
        },
        "paths": {
            "/fal-ai/harbour/v1/edit/requests/{request_id}/status": { "get": { "responses": answer("#/components/schemas/QueueStatus") } },
            "/fal-ai/harbour/v1/edit": { "post": {
                "requestBody": { "content": { "application/json": { "schema": { "$ref": "#/components/schemas/HarbourInput" } } } },
                "responses": answer("#/components/schemas/QueueStatus")
            } },
            "/fal-ai/harbour/v1/edit/requests/{request_id}": { "get": { "responses": answer("#/components/schemas/HarbourOutput") } }
        },
        "components": { "schemas": {
            "QueueStatus": { "type": "object", "properties": { "status": { "type": "string" } } },
            "HarbourInput": {
                "type": "object",
                "required": ["prompt", "image_urls"],
                "x-fal-order-properties": [
                    "prompt", "image_urls", "image_size", "aspect_ratio", "seed", "num_inference_steps", "guidance_scale",
                    "sync_mode", "num_images", "style", "style_id", "loras", "mood", "strange"
                ],
                "properties": {
                    "strange": { "description": "Anything." },
                    "mood": { "$ref": "#/components/schemas/Mood", "description": "How it feels." },
                    "loras": { "type": "array", "default": [], "items": { "$ref": "#/components/schemas/Lora" }, "description": "Weights." },
                    "style_id": { "anyOf": [{ "type": "string", "format": "uuid4" }, { "type": "null" }], "description": "A style." },
                    "style": { "anyOf": [{ "type": "string", "enum": ["OIL", "INK"] }, { "type": "string" }], "default": "INK", "description": "Oil or ink." },
                    "num_images": { "type": "integer", "minimum": 1, "maximum": 4, "default": 1, "description": "How many." },
                    "sync_mode": { "type": "boolean", "default": false },
                    "guidance_scale": { "type": "number", "minimum": 0.5, "maximum": 20, "default": 3.5, "description": "How closely." },
                    "num_inference_steps": { "type": "integer", "minimum": 2, "maximum": 50, "default": 28, "description": "Steps." },
                    "seed": { "anyOf": [{ "type": "integer" }, { "type": "null" }], "description": "Seed." },
                    "aspect_ratio": { "type": "string", "enum": ["auto", "19.5:9", "1:1"], "default": "auto", "description": "Shape." },
                    "image_size": {
                        "anyOf": [{ "$ref": "#/components/schemas/ImageSize" }, { "type": "string", "enum": texts }],
                        "default": { "width": 2048, "height": 1024 }, "description": "Size."
                    },
                    "image_urls": { "type": "array", "items": { "type": "string", "x-fal-file-input": true }, "maxItems": 4, "description": "Pictures." },
                    "prompt": { "type": "string", "maxLength": 800, "description": "What to\n        paint." }
                }
            },
            "Mood": { "required": ["name"], "properties": { "name": { "type": "string", "enum": ["calm"], "description": "Its name." } } },
            "Lora": {
                "type": "object", "required": ["path"],
                "properties": {
                    "path": { "type": "string", "maxLength": 99, "description": "Where." },
                    "scale": { "type": "number", "minimum": 0, "maximum": 4, "default": 1, "description": "Weight." }
                }
            },
            "ImageSize": { "type": "object", "properties": {
                "width": { "type": "integer", "exclusiveMinimum": 0, "maximum": 4096, "default": 512 },
                "height": { "type": "integer", "exclusiveMinimum": 0, "maximum": 4096, "default": 512 }
            } },
            "HarbourOutput": { "type": "object", "properties": {
                "images": { "type": "array", "items": { "$ref": "#/components/schemas/Image" } }, "seed": { "type": "integer" }
            } },
            "Image": { "type": "object", "properties": {
                "url": { "type": "string" }, "content_type": { "type": "string", "default": "image/webp" }
            } }
        } }
    })
}

/// The document with one size of an aspect ratio only: a model has one of the two.
fn without(name: &str) -> Json {
    let mut document = openapi();
    let fields = document.pointer_mut("/components/schemas/HarbourInput/properties").unwrap().as_object_mut().unwrap();
    fields.remove(name).unwrap();
    document
}

/// Fills every mark in, as its own words ask for it.
fn fill(file: &str) -> String {
    let mut filled = String::new();
    for line in file.lines() {
        let (name, _) = line.split_once(" = ").unwrap_or_default();
        let value = match name {
            "per" => "\"image\"",
            "amount" => "\"0.01\"",
            "as_of" => "\"2026-06-11\"",
            "max_items" => "3",
            "sources" => "[\"a test\"]",
            _ => "\"a test\"",
        };
        if line.contains("\"<fill in") {
            filled.extend([name, " = ", value, "\n"]);
        } else {
            filled.extend([line, "\n"]);
        }
    }
    filled
}

fn imported(document: &Json) -> Model {
    let file = import(&document.to_string()).unwrap();
    check_file(&fill(&file), "filled.toml").unwrap_or_else(|error| panic!("{error}\n{file}"))
}

fn parameter<'m>(model: &'m Model, name: &str) -> &'m super::super::Parameter {
    model.parameters.iter().find(|parameter| *parameter.name == *name).unwrap()
}

#[test]
fn a_document_becomes_a_model_file() {
    let model = imported(&without("aspect_ratio"));
    assert_eq!((model.id.as_str(), model.endpoint.as_str()), ("harbour/v1/edit", "fal-ai/harbour/v1/edit"));
    assert_eq!(model.aliases, ["fal-ai/harbour/v1/edit"]);
    assert_eq!(model.description, "Paints harbours.");
    assert_eq!(
        (model.output.fields, model.output.image_fields),
        (vec!["images".into(), "seed".into()], vec!["url".into(), "content_type".into()])
    );
    assert_eq!(model.output.content_types, ["image/webp"]);
    let names: Vec<_> = model.parameters.iter().map(|parameter| &*parameter.name).collect();
    let expected = [
        "prompt",
        "image_urls",
        "image_size",
        "seed",
        "num_inference_steps",
        "guidance_scale",
        "num_images",
        "style",
        "style_id",
        "loras",
        "mood",
    ];
    assert_eq!(names, expected, "fal's order, without `sync_mode` and what has no kind");
    assert!(model.takes_images);
}

#[test]
fn every_limit_of_a_document_is_in_the_file() {
    let model = imported(&without("aspect_ratio"));
    let kind = |name: &str| parameter(&model, name).kind.clone();
    let Kind::Text(rule) = kind("prompt") else { panic!() };
    assert_eq!((rule.min_length, rule.max_length), (1, 800));
    let Kind::List(rule) = kind("image_urls") else { panic!() };
    assert_eq!((*rule.items, rule.max_items), (Kind::Image, 4));
    let Kind::Size(rule) = kind("image_size") else { panic!() };
    let custom = rule.custom.unwrap();
    assert_eq!((custom.minimum, custom.maximum), (1, 4096));
    assert_eq!(custom.missing_side, Some(Size { width: 512, height: 512 }));
    let sizes: Vec<_> = rule.presets.iter().map(|preset| (&*preset.name, preset.size.is_some())).collect();
    assert_eq!(sizes, [("square_hd", true), ("landscape_4_3", true), ("tall", false)]);
    let Kind::Choice(rule) = kind("style") else { panic!() };
    assert_eq!(rule.options.len(), 2);
    let Kind::Object(rule) = kind("mood") else { panic!() };
    assert!(rule.fields[0].required);
    assert_eq!(parameter(&model, "guidance_scale").default, Some(Value::Number(3.5)));
    assert_eq!(parameter(&model, "num_inference_steps").accepts, ["steps"]);
    assert_eq!(parameter(&model, "prompt").description, "What to paint.");
}

#[test]
fn a_ratio_may_have_a_fraction() {
    let model = imported(&without("image_size"));
    let Kind::AspectRatio(rule) = &parameter(&model, "aspect_ratio").kind else { panic!() };
    let ratios: Vec<_> = rule.options.iter().map(|option| option.ratio).collect();
    assert_eq!(ratios, [None, Some((1950, 900)), Some((100, 100))]);
}

#[test]
fn what_a_document_cannot_say_is_marked_and_the_file_does_not_load() {
    let file = import(&without("aspect_ratio").to_string()).unwrap();
    let message = check_file(&file, "new.toml").unwrap_err().to_string();
    assert_eq!(message, "new.toml:3:8: the document that this file was made from does not settle this: fill it in");
    for wanted in ["name", "developer", "per", "amount", "as_of", "source", "max_items"] {
        assert!(file.lines().any(|line| line.starts_with(&format!("{wanted} = \"<fill in"))), "{wanted}");
    }
    assert!(file.contains("# Left out: `strange`"), "{file}");
    let comment = fill(&file) + "# amount = \"<fill in: a comment may say so>\"\n";
    assert!(check_file(&comment, "new.toml").is_ok());
}

#[test]
fn an_entry_of_a_collection_is_taken_like_the_document_itself() {
    let document = without("aspect_ratio");
    let types = &document["components"]["schemas"];
    let mut input = types["HarbourInput"].clone();
    input["property_order"] = input.as_object_mut().unwrap().remove("x-fal-order-properties").unwrap();
    let entry = json!({
        "endpoint_id": "fal-ai/harbour/v1/edit", "input": input, "output": types["HarbourOutput"], "types": types,
        "description": "Paints harbours.",
    });
    let listed = json!({ "endpoint_id": "fal-ai/harbour/v1/edit", "metadata": {}, "openapi": document });
    let alone = import(&document.to_string()).unwrap();
    for other in [entry.clone(), listed, json!({ "fal-ai/harbour/v1/edit": entry.clone() })] {
        assert_eq!(import(&other.to_string()).unwrap(), alone);
    }
    let mut priced = entry;
    priced["price"] = json!({ "unit": "images", "unit_price_usd": 0.025 });
    priced["stream_url"] = json!("https://fal.run/fal-ai/harbour/v1/edit/stream");
    let model = imported(&priced);
    assert_eq!(model.price.unwrap().rate.amount.to_string(), "0.025000000");
    assert!(model.streams);
}

#[test]
fn what_is_no_document_is_told_so() {
    for (text, wanted) in [
        ("{", "the document is not JSON"),
        ("[]", "it is no JSON object"),
        ("{}", "it has neither `paths` nor `input`"),
        (r#"{"paths": {}}"#, "no path takes `post`"),
        (r#"{"paths": {"/a/b": {"post": {}}}}"#, "the body of `post` has no schema"),
        (r#"{"input": {}}"#, "it has no `endpoint_id`"),
        (r#"{"a": {"input": {}}, "b": {"input": {}}}"#, "it has 2 entries; give one of them, such as `a`"),
    ] {
        let message = import(text).unwrap_err().to_string();
        assert!(message.contains(wanted), "{message}");
    }
}
