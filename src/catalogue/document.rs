//! A model's request as components of an `OpenAPI` document, in a form that generators turn into good types: named
//! schemas instead of nested ones, no `null`, each parameter under its one name.
//!
//! [`Model::json_schema`] is the precise one; this is what a typed client writes.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::model::{Model, Parameter};
use super::rules::{CustomSize, Kind, Preset, SizeRule};
use super::schema::{kind_schema, pixels_schema, size_pattern};
use super::switches::{ResponseFormat, Switch, Switches};

/// The component that lists the ids of all models on offer.
pub const MODEL_ID: &str = "ModelId";
/// Components by their names.
pub type Components = BTreeMap<String, Json>;

/// Enumerations of at most this many options are named after them, and shared.
const MOST_IN_A_NAME: usize = 3;
/// fal's named sizes, which most models take.
const NAMED_SIZES: [&str; 6] =
    ["square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9"];

impl Model {
    /// Adds this model's request to the components, and tells its name: `FluxDevRequest` for `flux/dev`.
    pub fn add_components(&self, components: &mut Components) -> String {
        let format = Switches::of_model(self).response_format;
        let mut writer = Writer { model: pascal(&self.id), components, format };
        let ids: Vec<&str> = std::iter::once(&self.id).chain(&self.aliases).map(String::as_str).collect();
        let mut properties = Map::new();
        let model = writer.name("Model", json!({ "type": "string", "enum": ids, "description": self.description }));
        properties.insert("model".to_owned(), with(model, "The model, by its id or another name of it.", None));
        for parameter in &self.parameters {
            let mut schema = writer.parameter(parameter, "");
            let switch = Switch::ALL.into_iter().find(|(name, _)| *name == parameter.name.as_ref());
            if let Some((_, switch @ Switch::Background)) = switch {
                schema = writer.or_switch(&schema, switch);
            }
            properties.insert(parameter.name.as_ref().to_owned(), schema);
        }
        for (name, switch) in Switch::ALL {
            // A model's own parameter of that name, such as a colour of the background, comes first.
            properties.entry(name).or_insert_with(|| writer.switch(switch));
        }
        let mut required = vec!["model"];
        required.extend(self.parameters.iter().filter(|one| one.required).map(|one| one.name.as_ref()));
        let description = if self.description.starts_with(&self.name) {
            self.description.clone()
        } else {
            format!("{}: {}", self.name, self.description)
        };
        let mut request = json!({
            "type": "object",
            "description": description,
            "required": required,
            "properties": properties,
        });
        if let Some(example) = self.examples.first() {
            request["examples"] = json!([self.typed(example.body())]);
        }
        let name = format!("{}Request", writer.model);
        components.insert(name.clone(), request);
        name
    }
}

impl Model {
    /// An example with every list as a list, as a typed client writes it.
    fn typed(&self, mut example: Map<String, Json>) -> Map<String, Json> {
        for parameter in self.parameters.iter().filter(|parameter| matches!(parameter.kind, Kind::List(_))) {
            if let Some(value) = example.get_mut(parameter.name.as_ref()).filter(|value| !value.is_array()) {
                *value = json!([value]);
            }
        }
        example
    }
}

struct Writer<'c> {
    /// The model's id as a type's name.
    model: String,
    components: &'c mut Components,
    /// How the images come where a request does not say.
    format: ResponseFormat,
}

impl Writer<'_> {
    /// A component of this model's own.
    fn name(&mut self, name: &str, schema: Json) -> Json {
        self.shared(format!("{}{name}", self.model), schema)
    }

    fn shared(&mut self, name: String, schema: Json) -> Json {
        let reference = json!({ "$ref": format!("#/components/schemas/{name}") });
        self.components.insert(name, schema);
        reference
    }

    fn parameter(&mut self, parameter: &Parameter, above: &str) -> Json {
        let name = format!("{above}{}", pascal(&parameter.name));
        let schema = self.kind(&parameter.kind, &name, &pascal(&parameter.name));
        let schema = if parameter.is_never_blank() { not_blank(schema) } else { schema };
        let default = parameter.default.as_ref().map(super::value::Value::to_json);
        let mut description = parameter.description.clone();
        let others: Vec<String> = parameter.accepts.iter().map(|name| format!("`{name}`")).collect();
        if !others.is_empty() {
            description = format!("{description} Also taken as {}.", others.join(", "));
        }
        with(schema, &description, default)
    }

    fn kind(&mut self, kind: &Kind, name: &str, plain: &str) -> Json {
        match kind {
            Kind::Choice(rule) => {
                self.options(name, plain, &rule.options.iter().map(AsRef::as_ref).collect::<Vec<_>>())
            }
            Kind::AspectRatio(rule) => {
                self.options(name, plain, &rule.options.iter().map(|option| option.name.as_ref()).collect::<Vec<_>>())
            }
            Kind::Size(rule) => self.size(rule, name, plain),
            Kind::Image => json!({ "type": "string", "format": "uri" }),
            // Beyond what most languages hold, so that it says nothing.
            Kind::Seed(rule) if rule.maximum == u64::MAX => json!({ "type": "integer", "minimum": rule.minimum }),
            Kind::List(rule) => {
                let items = self.kind(&rule.items, &format!("{name}Item"), &format!("{plain}Item"));
                json!({ "type": "array", "items": items, "minItems": rule.min_items, "maxItems": rule.max_items })
            }
            Kind::Integer(rule) if !rule.options.is_empty() => self.name(name, kind_schema(kind)),
            Kind::Number(rule) if !rule.options.is_empty() => self.name(name, kind_schema(kind)),
            Kind::Object(rule) => {
                let fields = rule.fields.iter();
                let properties: Map<String, Json> =
                    fields.map(|field| (field.name.as_ref().to_owned(), self.parameter(field, name))).collect();
                let mut schema = json!({ "type": "object", "properties": properties });
                let required: Vec<&str> =
                    rule.fields.iter().filter(|field| field.required).map(|field| field.name.as_ref()).collect();
                if !required.is_empty() {
                    schema["required"] = json!(required);
                }
                self.name(name, schema)
            }
            Kind::Text(_) => storable(kind_schema(kind)),
            Kind::Integer(_) | Kind::Seed(_) | Kind::Number(_) | Kind::Boolean => kind_schema(kind),
        }
    }

    /// An enumeration: shared under the names of its options where they are few and plain.
    fn options(&mut self, name: &str, plain: &str, options: &[&str]) -> Json {
        let is_plain = |option: &&str| option.bytes().all(|byte| byte.is_ascii_lowercase());
        if options.len() <= MOST_IN_A_NAME && options.iter().all(is_plain) {
            let words: String = options.iter().map(|option| pascal(option)).collect();
            return self.shared(format!("{plain}{words}"), json!({ "type": "string", "enum": options }));
        }
        self.name(name, json!({ "type": "string", "enum": options }))
    }

    fn size(&mut self, rule: &SizeRule, name: &str, plain: &str) -> Json {
        let presets: Vec<&str> = rule.presets.iter().map(|preset: &Preset| preset.name.as_ref()).collect();
        let named = if presets == NAMED_SIZES {
            self.shared("NamedSize".to_owned(), json!({ "type": "string", "enum": presets }))
        } else {
            self.options(&format!("{name}Name"), plain, &presets)
        };
        let Some(custom) = &rule.custom else { return named };
        let pixels = self.pixels(custom, name);
        let text = json!({
            "type": "string",
            "pattern": size_pattern(custom),
            "description": "Width and height in pixels, such as `1024x768`.",
        });
        self.name(name, json!({ "anyOf": [named, pixels, text] }))
    }

    fn pixels(&mut self, custom: &CustomSize, name: &str) -> Json {
        let mut sides = Map::new();
        for (side, missing) in [
            ("width", custom.missing_side.map(|size| size.width)),
            ("height", custom.missing_side.map(|size| size.height)),
        ] {
            let default = missing.map(Json::from);
            sides.insert(side.to_owned(), with(pixels_schema(custom), "In pixels.", default));
        }
        let mut schema = json!({ "type": "object", "properties": sides });
        if custom.missing_side.is_none() {
            schema["required"] = json!(["width", "height"]);
        }
        let limit = match (custom.minimum_pixels, custom.maximum_pixels) {
            (Some(least), Some(most)) => format!(" From {least} to {most} pixels altogether."),
            (Some(least), None) => format!(" At least {least} pixels altogether."),
            (None, Some(most)) => format!(" At most {most} pixels altogether."),
            (None, None) => String::new(),
        };
        schema["description"] = json!(format!("A size in pixels.{limit}"));
        self.name(&format!("{name}Pixels"), schema)
    }

    /// A parameter of the model whose name is a switch's too: a boolean is the switch.
    fn or_switch(&mut self, parameter: &Json, switch: Switch) -> Json {
        let description = parameter["description"].clone();
        let switch = self.switch(switch);
        let mut either = self.name("BackgroundOrSwitch", json!({ "anyOf": [parameter, switch] }));
        either["description"] = description;
        either
    }

    /// What may be asked of the gateway itself.
    fn switch(&mut self, switch: Switch) -> Json {
        let boolean = || json!({ "type": "boolean" });
        let (schema, description, default) = match switch {
            Switch::ResponseFormat => {
                let formats = json!({ "type": "string", "enum": ["url", "b64_json"] });
                let formats = self.shared("ImageResponseFormat".to_owned(), formats);
                (formats, "How the images come: as links, or embedded in base64.", Some(json!(self.format.name())))
            }
            Switch::User => (
                storable(json!({ "type": "string", "maxLength": 512 })),
                "Your own name for your user; kept with the generation.",
                None,
            ),
            Switch::Stream => (boolean(), "Whether the answer is a stream of server-sent events.", Some(json!(false))),
            Switch::PartialImages => (
                json!({ "type": "integer", "minimum": 0, "maximum": 3 }),
                "How many unfinished images a stream shows, where the model has them.",
                None,
            ),
            Switch::Background => {
                (boolean(), "Whether to answer 202 at once and work in the background.", Some(json!(false)))
            }
            Switch::WebhookUrl => {
                (json!({ "type": "string", "format": "uri" }), "An `http(s)` URL to call when it is done.", None)
            }
            Switch::Fallbacks => (
                json!({ "type": "array", "items": { "$ref": format!("#/components/schemas/{MODEL_ID}") }, "maxItems": 8 }),
                "Models to try, in this order, when this one is proven to refuse. The dearest of them is held. An empty list switches off those that the model has by itself.",
                None,
            ),
            Switch::SyncMode => (
                boolean(),
                "Whether the images come as data URIs in `url`, as fal's own switch does.",
                Some(json!(false)),
            ),
        };
        with(schema, description, default)
    }
}

/// A text that every database can hold, if nothing narrower is said of it.
fn storable(mut schema: Json) -> Json {
    if schema.get("pattern").is_none() && schema.get("format").is_none() {
        schema["pattern"] = json!(r"^[^\x00]*$");
    }
    schema
}

/// A text with something to read in it.
fn not_blank(mut schema: Json) -> Json {
    schema["pattern"] = json!(r"^[^\x00]*[^\s\x00][^\x00]*$");
    schema
}

/// The schema, described, with its default in words: generators take a field with a `default` for one that is always
/// there, and would want it in every request.
fn with(mut schema: Json, description: &str, default: Option<Json>) -> Json {
    if let Json::Object(fields) = &mut schema {
        let default = default.map_or_else(String::new, |default| format!(" Default: `{default}`."));
        fields.insert("description".to_owned(), Json::from(format!("{description}{default}")));
    }
    schema
}

/// `flux/dev` → `FluxDev`: words in one, each with a capital.
fn pascal(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words
        .map(|word| {
            let (first, rest) = word.split_at(1);
            first.to_uppercase() + rest
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Catalogue;
    use super::*;

    fn components(id: &str) -> (String, Components) {
        let catalogue = Catalogue::built_in().unwrap();
        let mut components = Components::new();
        let name = catalogue.model(id).unwrap().add_components(&mut components);
        (name, components)
    }

    #[test]
    fn an_id_becomes_a_type_s_name() {
        assert_eq!(pascal("flux-1/schnell"), "Flux1Schnell");
        assert_eq!(pascal("recraft/v2/text-to-image"), "RecraftV2TextToImage");
    }

    #[test]
    fn a_request_names_its_model_and_every_parameter_and_switch_once() {
        let (name, components) = components("flux/dev");
        assert_eq!(name, "FluxDevRequest");
        let request = &components["FluxDevRequest"];
        assert_eq!(request["required"], json!(["model", "prompt"]));
        assert_eq!(components["FluxDevModel"]["enum"], json!(["flux/dev", "fal-ai/flux/dev"]));
        let names: Vec<_> = request["properties"].as_object().unwrap().keys().collect();
        assert!(names.iter().any(|name| *name == "num_images") && !names.iter().any(|name| *name == "n"));
        for (name, _) in Switch::ALL {
            assert!(names.iter().any(|known| *known == name), "{name}");
        }
    }

    #[test]
    fn a_parameter_that_shares_a_switch_s_name_comes_first() {
        let (_, components) = components("gpt-image-1.5");
        let background = &components["GptImage15Request"]["properties"]["background"];
        let name = background["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        let either = components[name]["anyOf"].as_array().unwrap();
        assert!(either[0]["$ref"].is_string(), "{either:?}");
        assert_eq!(either[1]["type"], "boolean", "{either:?}");
    }

    #[test]
    fn nothing_is_nested_that_could_be_named_and_nothing_is_null() {
        let catalogue = Catalogue::built_in().unwrap();
        let mut components = Components::new();
        for model in catalogue.models() {
            model.add_components(&mut components);
        }
        for (name, component) in &components {
            let text = component.to_string();
            assert!(!text.contains("\"null\"") && !text.contains(":null"), "{name}: {text}");
            for property in component["properties"].as_object().into_iter().flat_map(Map::values) {
                assert!(property.get("enum").is_none() && property.get("anyOf").is_none(), "{name}: {property}");
                assert!(property.get("properties").is_none(), "{name}: {property}");
            }
            for reference in text.split("#/components/schemas/").skip(1) {
                let named = reference.split('"').next().unwrap();
                assert!(components.contains_key(named) || named == MODEL_ID, "{name} → {named}");
            }
        }
    }
}
