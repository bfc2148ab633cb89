//! No change of the OpenAPI document breaks a client that was made from the last release's.
//!
//! `openapi/released.json` is the document of the last release; a release copies `openapi/openapi.json` over it. What a request
//! may say must still be taken, and what an answer may say must have been told: each is one schema within another.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Value, json};

/// Which of two schemas is the released one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Flow {
    /// What clients send: everything that the released schema allows is allowed now.
    Request,
    /// What clients read: everything that is answered now was allowed by the released schema.
    Answer,
}

struct Comparison<'a> {
    released: &'a Value,
    now: &'a Value,
    breaks: Vec<String>,
    /// Pairs of named schemas that are compared already, or just now.
    seen: HashSet<(String, String, Flow)>,
}

/// What breaks a client of the released document.
fn breaks(released: &Value, now: &Value) -> Vec<String> {
    let mut comparison = Comparison { released, now, breaks: Vec::new(), seen: HashSet::new() };
    for (path, item) in object(&released["paths"]) {
        for (method, operation) in object(item) {
            comparison.operation(&format!("{method} {path}"), operation, &now["paths"][path][method]);
        }
    }
    comparison.breaks
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn strings(value: &Value) -> BTreeSet<&str> {
    match value {
        Value::String(one) => BTreeSet::from([one.as_str()]),
        other => other.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
    }
}

/// The schemas of which a value is one, if the schema says so.
fn choices(schema: &Value) -> Option<&Vec<Value>> {
    schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array())
}

impl Comparison<'_> {
    fn breaks(&mut self, at: &str, what: &str) {
        self.breaks.push(format!("{at}: {what}"));
    }

    fn operation(&mut self, at: &str, released: &Value, now: &Value) {
        if now.is_null() {
            return self.breaks(at, "is gone");
        }
        if released["operationId"] != now["operationId"] {
            self.breaks(at, "has another name in generated clients");
        }
        let find = |parameters: &Value, like: &Value| {
            let same = |one: &&Value| one["name"] == like["name"] && one["in"] == like["in"];
            parameters.as_array().into_iter().flatten().find(same).cloned()
        };
        for parameter in released["parameters"].as_array().into_iter().flatten() {
            let at = format!("{at}, parameter {}", parameter["name"]);
            match find(&now["parameters"], parameter) {
                None => self.breaks(&at, "is gone"),
                Some(same) => self.within(&at, &parameter["schema"], &same["schema"], Flow::Request),
            }
        }
        for parameter in now["parameters"].as_array().into_iter().flatten() {
            let before = find(&released["parameters"], parameter);
            if parameter["required"] == true && before.is_none_or(|before| before["required"] != true) {
                self.breaks(at, &format!("parameter {} is required now", parameter["name"]));
            }
        }
        if now["requestBody"]["required"] == true && released["requestBody"]["required"] != true {
            self.breaks(at, "a body is required now");
        }
        self.contents(&format!("{at}, body"), &released["requestBody"], &now["requestBody"], Flow::Request);
        for (status, response) in object(&released["responses"]) {
            let at = format!("{at}, {status}");
            if status.starts_with('2') && now["responses"][status].is_null() {
                self.breaks(&at, "is gone");
            } else {
                self.contents(&at, response, &now["responses"][status], Flow::Answer);
            }
        }
    }

    fn contents(&mut self, at: &str, released: &Value, now: &Value, flow: Flow) {
        for (kind, content) in object(&released["content"]) {
            let same = &now["content"][kind];
            if same.is_null() {
                if !now.is_null() {
                    self.breaks(at, &format!("no `{kind}` any more"));
                }
            } else if flow == Flow::Request {
                self.within(at, &content["schema"], &same["schema"], flow);
            } else {
                self.within(at, &same["schema"], &content["schema"], flow);
            }
        }
    }

    /// The schema that a reference names in its document, and its name.
    fn resolve(&self, schema: &Value, is_released: bool) -> (Value, String) {
        let document = if is_released { self.released } else { self.now };
        match schema["$ref"].as_str() {
            None => (schema.clone(), String::new()),
            Some(name) => (document.pointer(name.trim_start_matches('#')).unwrap().clone(), name.to_owned()),
        }
    }

    /// Every value that `narrow` allows is allowed by `wide`.
    fn within(&mut self, at: &str, narrow: &Value, wide: &Value, flow: Flow) {
        let (narrow, narrow_name) = self.resolve(narrow, flow == Flow::Request);
        let (wide, wide_name) = self.resolve(wide, flow == Flow::Answer);
        let is_named = !narrow_name.is_empty() && !wide_name.is_empty();
        if is_named && !self.seen.insert((narrow_name, wide_name, flow)) {
            return;
        }
        if choices(&narrow).is_some() || choices(&wide).is_some() {
            return self.choices_within(at, &narrow, &wide, flow);
        }
        let (types, allowed) = (strings(&narrow["type"]), strings(&wide["type"]));
        let is_number = |kind: &&str| *kind == "integer" && allowed.contains("number");
        if !allowed.is_empty()
            && (types.is_empty() || types.iter().any(|one| !allowed.contains(one) && !is_number(one)))
        {
            self.breaks(at, &format!("{types:?} is not within {allowed:?}"));
        }
        if let Some(allowed) = wide["enum"].as_array() {
            match narrow["enum"].as_array() {
                None => self.breaks(at, "any value is not within a list of them"),
                Some(values) => {
                    for value in values.iter().filter(|value| !allowed.contains(value)) {
                        self.breaks(at, &format!("{value} is not one of the values"));
                    }
                }
            }
        }
        for (limit, is_floor) in [
            ("minimum", true),
            ("maximum", false),
            ("minLength", true),
            ("maxLength", false),
            ("minItems", true),
            ("maxItems", false),
        ] {
            let Some(bound) = wide[limit].as_f64() else { continue };
            let is_within =
                narrow[limit].as_f64().is_some_and(|own| if is_floor { own >= bound } else { own <= bound });
            if !is_within {
                self.breaks(at, &format!("`{limit}` is {} against {bound}", narrow[limit]));
            }
        }
        for name in strings(&wide["required"]).difference(&strings(&narrow["required"])) {
            self.breaks(at, &format!("`{name}` must be there on one side only"));
        }
        let (released, now) = if flow == Flow::Request { (&narrow, &wide) } else { (&wide, &narrow) };
        for (name, _) in object(&released["properties"]) {
            if now["properties"][name].is_null() {
                self.breaks(at, &format!("`{name}` is gone"));
            } else {
                let (narrow, wide) = (&narrow["properties"][name], &wide["properties"][name]);
                self.within(&format!("{at}.{name}"), narrow, wide, flow);
            }
        }
        if narrow["items"].is_object() && wide["items"].is_object() {
            self.within(&format!("{at}[]"), &narrow["items"], &wide["items"], flow);
        }
    }

    /// The same, where a value is one of several things: by the discriminator where there is one, else by trying.
    fn choices_within(&mut self, at: &str, narrow: &Value, wide: &Value, flow: Flow) {
        let by_name = |schema: &Value| schema["discriminator"]["mapping"].as_object().cloned();
        if let (Some(narrow), Some(wide)) = (by_name(narrow), by_name(wide)) {
            for (name, schema) in narrow {
                match wide.get(&name) {
                    None => self.breaks(at, &format!("`{name}` is no choice any more")),
                    Some(wide) => self.within(&name, &json!({"$ref": schema}), &json!({"$ref": wide}), flow),
                }
            }
            return;
        }
        let (one, other) = (vec![narrow.clone()], vec![wide.clone()]);
        let (narrow, wide) = (choices(narrow).unwrap_or(&one).clone(), choices(wide).unwrap_or(&other).clone());
        for choice in narrow {
            let fits = wide.iter().any(|wide| {
                let (breaks, seen) = (Vec::new(), self.seen.clone());
                let mut trial = Comparison { released: self.released, now: self.now, breaks, seen };
                trial.within(at, &choice, wide, flow);
                trial.breaks.is_empty()
            });
            if !fits {
                self.breaks(at, &format!("{choice} is none of the choices"));
            }
        }
    }
}

fn read(name: &str) -> Value {
    let path = format!("{}/openapi/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_client_of_the_last_release_still_works() {
    let found = breaks(&read("released.json"), &read("openapi.json"));
    assert!(found.is_empty(), "this breaks clients of the last release:\n{}", found.join("\n"));
}

#[test]
fn what_would_break_a_client_is_found_and_what_would_not_is_let_pass() {
    let released = read("released.json");
    let changed = |pointer: &str, value: Option<Value>| {
        let mut now = released.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let key = key.replace("~1", "/");
        let parent = now.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}")).as_object_mut().unwrap();
        match value {
            Some(value) => parent.insert(key, value),
            None => parent.remove(&key),
        };
        breaks(&released, &now)
    };
    let model = "/components/schemas/FluxDevRequest";
    let answer = "/components/schemas/Generation";
    for (pointer, value) in [
        ("/paths/~1v1~1models".to_owned(), None),
        (format!("{model}/properties/seed"), None),
        (format!("{model}/required"), Some(json!(["model", "prompt", "acceleration"]))),
        (format!("{model}/properties/num_images/maximum"), Some(json!(2))),
        (format!("{model}/properties/seed/type"), Some(json!("string"))),
        (format!("{answer}/properties/price_usd"), None),
        (format!("{answer}/properties/num_images/type"), Some(json!("string"))),
        (format!("{answer}/required"), Some(json!(["id"]))),
        ("/paths/~1v1~1images~1generations/post/responses/201".to_owned(), None),
        ("/paths/~1v1~1images~1generations/post/operationId".to_owned(), Some(json!("makeImages"))),
        ("/components/schemas/FluxDevModel/enum".to_owned(), Some(json!(["flux/dev"]))),
    ] {
        assert!(!changed(&pointer, value).is_empty(), "{pointer} can be changed unseen");
    }
    for (pointer, value) in [
        (format!("{model}/properties/new_switch"), json!({"type": "boolean"})),
        (format!("{model}/properties/num_images/maximum"), json!(8)),
        (format!("{model}/required"), json!(["model"])),
        (format!("{answer}/properties/new_fact"), json!({"type": "string"})),
        ("/paths/~1v1~1new".to_owned(), json!({"get": {"operationId": "new"}})),
        ("/components/schemas/FluxDevModel/enum".to_owned(), json!(["flux/dev", "fal-ai/flux/dev", "flux/new"])),
    ] {
        assert_eq!(changed(&pointer, Some(value)), Vec::<String>::new(), "{pointer}");
    }
}
