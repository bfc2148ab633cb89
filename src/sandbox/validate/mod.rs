//! Checks a request body against an endpoint's schema the way fal's runners do: pydantic's lax reading, every problem at
//! once, items of the form `{type, loc, msg, input, ctx?, url?}`. Unknown fields pass, and are named.
//!
//! Ranges, lengths and enumerations carry the type names and the `url` of fal's error page (`less_than_equal`,
//! `sequence_too_long`, `one_of`); what that page does not name (`missing`, `int_parsing`, …) stays pydantic's own.

mod scalars;

use serde_json::{Map, Value, json};

use super::schema::{Endpoint, Kind, Object, Property};

/// A body that the endpoint takes.
#[derive(Debug)]
pub struct Valid {
    /// The known fields, read as the schema says, defaults filled in.
    pub input: Map<String, Value>,
    /// The fields that the endpoint does not know and ignores, as paths.
    pub unknown: Vec<String>,
}

/// Longest text echoed in an error's `input`, in code points; keeps a large data URI from being kept with a failed job.
const ECHO_LIMIT: usize = 2_000;

/// Reads `body`. Errors with fal's list of problems, in the order of the endpoint's fields.
pub fn validate(endpoint: &Endpoint, body: &Value) -> Result<Valid, Vec<Value>> {
    let mut check = Check { endpoint, problems: Vec::new(), unknown: Vec::new() };
    let mut path = vec![json!("body")];
    let input = check.object(&endpoint.input, body, &mut path);
    match input {
        Some(Value::Object(input)) if check.problems.is_empty() => Ok(Valid { input, unknown: check.unknown }),
        _ => Err(check.problems),
    }
}

/// One problem in the form of fal's error page, for rules that no schema states.
pub fn problem(kind: &str, loc: &Value, message: &str, context: Option<Value>, input: &Value) -> Value {
    let mut item = json!({"loc": loc, "msg": message, "type": kind});
    if is_on_error_page(kind) {
        item["url"] = json!(format!("https://docs.fal.ai/errors/#{kind}"));
    }
    if let Some(context) = context {
        item["ctx"] = context;
    }
    item["input"] = shortened(input);
    item
}

fn is_on_error_page(kind: &str) -> bool {
    matches!(
        kind,
        "less_than"
            | "less_than_equal"
            | "greater_than"
            | "greater_than_equal"
            | "sequence_too_short"
            | "sequence_too_long"
            | "one_of"
            | "image_too_large"
            | "image_load_error"
            | "file_download_error"
            | "content_policy_violation"
    )
}

fn shortened(input: &Value) -> Value {
    match input {
        Value::String(text) if text.len() > ECHO_LIMIT => Value::String(text.chars().take(ECHO_LIMIT).collect()),
        Value::Array(items) => items.iter().take(100).map(shortened).collect(),
        Value::Object(fields) => {
            fields.iter().take(100).map(|(name, value)| (name.clone(), shortened(value))).collect()
        }
        other => other.clone(),
    }
}

/// Most problems told of one list, and most unknown fields named of one object.
const MOST_PROBLEMS: usize = 100;

struct Check<'a> {
    endpoint: &'a Endpoint,
    problems: Vec<Value>,
    unknown: Vec<String>,
}

impl Check<'_> {
    fn refuse(&mut self, path: &[Value], kind: &str, message: &str, context: Option<Value>, input: &Value) {
        let loc = Value::Array(path.to_vec());
        self.problems.push(problem(kind, &loc, message, context, input));
    }

    fn object(&mut self, schema: &Object, value: &Value, path: &mut Vec<Value>) -> Option<Value> {
        let Value::Object(fields) = value else {
            let message = "Input should be a valid dictionary or object to extract fields from";
            self.refuse(path, "model_attributes_type", message, None, value);
            return None;
        };
        let before = self.problems.len();
        let mut read = Map::new();
        for (name, property) in &schema.properties {
            path.push(json!(name));
            match fields.get(name) {
                Some(given) => {
                    if let Some(value) = self.property(property, given, path) {
                        read.insert(name.clone(), value);
                    }
                }
                None if schema.required.contains(name) => {
                    self.refuse(path, "missing", "Field required", None, value);
                }
                None => {
                    read.insert(name.clone(), property.default.clone().unwrap_or(Value::Null));
                }
            }
            path.pop();
        }
        let unknown = fields.keys().filter(|name| schema.property(name).is_none());
        for name in unknown.take(MOST_PROBLEMS) {
            let parts: Vec<&str> = path.iter().skip(1).filter_map(Value::as_str).collect();
            let name: String = name.chars().take(100).collect();
            self.unknown.push([parts.as_slice(), &[&name]].concat().join("."));
        }
        (self.problems.len() == before).then_some(Value::Object(read))
    }

    fn property(&mut self, property: &Property, value: &Value, path: &mut Vec<Value>) -> Option<Value> {
        if let Some(alternatives) = &property.any_of {
            return self.alternatives(alternatives, value, path);
        }
        if let Some(object) = property.reference.as_ref().and_then(|name| self.endpoint.types.get(name)) {
            return self.object(object, value, path);
        }
        match property.kind {
            Some(Kind::String) => self.text(property, value, path),
            Some(Kind::Integer) => self.integer(property, value, path),
            Some(Kind::Number) => self.number(property, value, path),
            Some(Kind::Boolean) => self.boolean(value, path),
            Some(Kind::Array) => self.list(property, value, path),
            Some(Kind::Object | Kind::Null) | None => Some(value.clone()),
        }
    }

    /// Pydantic's union: the first alternative that fits; else every alternative's problems, each under its name.
    fn alternatives(&mut self, alternatives: &[Property], value: &Value, path: &mut Vec<Value>) -> Option<Value> {
        let nullable = alternatives.iter().any(|one| one.kind == Some(Kind::Null));
        if nullable && value.is_null() {
            return Some(Value::Null);
        }
        let choices: Vec<&Property> = alternatives.iter().filter(|one| one.kind != Some(Kind::Null)).collect();
        if let [only] = choices.as_slice() {
            return self.property(only, value, path);
        }
        let problems_before = self.problems.len();
        for one in choices {
            let problems = self.problems.len();
            let unknown = self.unknown.len();
            path.push(json!(name_of(one)));
            let read = self.property(one, value, path);
            path.pop();
            if self.problems.len() == problems && read.is_some() {
                self.problems.truncate(problems_before);
                return read;
            }
            self.unknown.truncate(unknown);
        }
        None
    }

    fn list(&mut self, property: &Property, value: &Value, path: &mut Vec<Value>) -> Option<Value> {
        let Value::Array(items) = value else {
            self.refuse(path, "list_type", "Input should be a valid list", None, value);
            return None;
        };
        let Some(schema) = property.items.as_deref() else {
            return Some(value.clone());
        };
        let before = self.problems.len();
        let mut read = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            if self.problems.len() - before >= MOST_PROBLEMS {
                break;
            }
            path.push(json!(index));
            read.extend(self.property(schema, item, path));
            path.pop();
        }
        (self.problems.len() == before).then_some(Value::Array(read))
    }
}

/// The name under which pydantic files the problems of one alternative of a union.
fn name_of(alternative: &Property) -> String {
    if let Some(reference) = &alternative.reference {
        return reference.clone();
    }
    match (&alternative.options, alternative.kind) {
        (Some(options), _) => {
            let options: Vec<String> = options.iter().map(|option| format!("'{option}'")).collect();
            format!("literal[{}]", options.join(","))
        }
        (None, Some(Kind::String)) => "str".to_owned(),
        (None, Some(Kind::Integer)) => "int".to_owned(),
        (None, Some(Kind::Number)) => "float".to_owned(),
        (None, Some(Kind::Boolean)) => "bool".to_owned(),
        (None, Some(Kind::Array)) => "list".to_owned(),
        (None, _) => "dict".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::schema::Schemas;

    fn check(endpoint: &str, body: &Value) -> Result<Valid, Vec<Value>> {
        validate(Schemas::built_in().unwrap().endpoint(endpoint).unwrap(), body)
    }

    #[test]
    fn a_bare_prompt_is_filled_up_with_the_defaults() {
        let valid = check("fal-ai/flux/dev", &json!({"prompt": "a cat"})).unwrap();
        assert_eq!(valid.input["image_size"], "landscape_4_3");
        assert_eq!(valid.input["num_inference_steps"], 28);
        assert_eq!(valid.input["seed"], Value::Null);
        assert!(valid.unknown.is_empty());
    }

    #[test]
    fn unknown_fields_pass_and_are_named() {
        let body = json!({"prompt": "a", "n": 2, "image_size": {"width": 600, "depth": 3}});
        let valid = check("fal-ai/flux/dev", &body).unwrap();
        assert_eq!(valid.unknown, ["image_size.ImageSize.depth", "n"]);
        assert_eq!(valid.input["image_size"], json!({"height": 512, "width": 600}));
    }

    #[test]
    fn a_value_beyond_its_limit_is_told_in_fals_words() {
        let problems = check("fal-ai/flux/dev", &json!({"prompt": "a", "guidance_scale": 21})).unwrap_err();
        assert_eq!(
            problems,
            [json!({"loc": ["body", "guidance_scale"], "msg": "Input should be less than or equal to 20",
                "type": "less_than_equal", "url": "https://docs.fal.ai/errors/#less_than_equal", "ctx": {"le": 20}, "input": 21})]
        );
    }

    #[test]
    fn an_unknown_option_names_the_known_ones() {
        let problems = check("fal-ai/omnigen-v2", &json!({"prompt": "a", "scheduler": "x"})).unwrap_err();
        assert_eq!(problems[0]["type"], "one_of");
        assert_eq!(problems[0]["msg"], "Input should be 'euler' or 'dpmsolver'");
        assert_eq!(problems[0]["ctx"], json!({"expected": ["euler", "dpmsolver"]}));
    }

    #[test]
    fn every_problem_is_told_at_once_and_a_missing_field_echoes_the_body() {
        let body = json!({"num_images": 0, "num_inference_steps": 1.5, "seed": "x", "sync_mode": "maybe"});
        let problems = check("fal-ai/flux/dev", &body).unwrap_err();
        let kinds: Vec<&str> = problems.iter().filter_map(|problem| problem["type"].as_str()).collect();
        assert_eq!(kinds, ["missing", "int_from_float", "int_parsing", "bool_parsing", "greater_than_equal"]);
        assert_eq!(problems[0]["input"], body);
        assert!(problems[0].get("url").is_none());
    }

    #[test]
    fn a_size_that_fits_no_alternative_lists_each_alternatives_problem() {
        let body = json!({"prompt": "a", "image_size": {"width": 20000}});
        let problems = check("fal-ai/flux/dev", &body).unwrap_err();
        assert_eq!(problems[0]["loc"], json!(["body", "image_size", "ImageSize", "width"]));
        assert_eq!(problems[0]["ctx"], json!({"le": 14142}));
        assert_eq!(problems[1]["type"], "one_of");
        assert_eq!(problems.len(), 2);
    }

    #[test]
    fn values_are_read_as_pydantic_reads_them() {
        let body = json!({"prompt": "a", "num_images": "2", "num_inference_steps": 30.0, "sync_mode": "no", "seed": 18_446_744_073_709_551_615_u64});
        let input = check("fal-ai/flux/dev", &body).unwrap().input;
        assert_eq!(input["num_images"], 2);
        assert_eq!(input["num_inference_steps"], 30);
        assert_eq!(input["sync_mode"], false);
        assert_eq!(input["seed"], 18_446_744_073_709_551_615_u64);
    }

    #[test]
    fn null_is_refused_where_fal_does_not_take_it() {
        let problems = check("fal-ai/flux/dev", &json!({"prompt": "a", "num_images": null})).unwrap_err();
        assert_eq!(problems[0]["type"], "int_type");
        assert!(check("fal-ai/flux/dev", &json!({"prompt": "a", "seed": null})).is_ok());
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        let problems = check("fal-ai/flux/dev", &json!([])).unwrap_err();
        assert_eq!(problems[0]["loc"], json!(["body"]));
    }
}
