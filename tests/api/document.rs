//! The OpenAPI document: the file, the command and the served one are the same, and each route is in it.

use std::process::Command;

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::support::{Database, House, client, read};

#[tokio::test]
async fn the_file_the_command_and_the_served_document_are_the_same() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
    let written = std::fs::read_to_string(file).unwrap_or_default();
    let printed = Command::new(env!("CARGO_BIN_EXE_imagegate")).arg("openapi").env_clear().output().unwrap();
    assert!(printed.status.success());
    let refresh = "openapi/openapi.json is out of date; refresh it with: cargo run -- openapi > openapi/openapi.json";
    assert!(String::from_utf8(printed.stdout).unwrap() == written, "{refresh}");
    let house = House::new(Database::Sqlite).await;
    let served = client().get(format!("{}/openapi.json", house.gateway.base)).send().await.unwrap();
    assert!(served.text().await.unwrap() == written, "{refresh}");
}

#[tokio::test]
async fn every_operation_has_a_good_name_a_tag_and_its_errors() {
    let house = House::new(Database::Sqlite).await;
    let document = client().get(format!("{}/openapi.json", house.gateway.base)).send().await.unwrap();
    let document = read(document, StatusCode::OK).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(document["servers"][0]["url"], "/");
    let tags: Vec<&Value> = document["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    let mut names = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name.to_owned()), "`{name}` is there twice");
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "{name}");
            let of = operation["tags"].as_array().unwrap();
            assert!(of.len() == 1 && tags.contains(&&of[0]), "{name}: {of:?}");
            assert!(operation["summary"].is_string(), "{name} has no summary");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.values().all(|response| response["description"].is_string()), "{name}");
            let closed = operation.get("security").is_some();
            assert_eq!(
                closed,
                responses.contains_key("401"),
                "{name}: a closed route answers 401, an open one does not"
            );
            // The path is served: whatever it answers, it is not "no such path".
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let path = path.replace("{id}", "none");
            let key = if path.starts_with("/admin") || path.contains("organization") {
                crate::support::ADMIN_KEY
            } else {
                crate::support::PROJECT_KEY
            };
            let answer = house.gateway.request(method, &path).bearer_auth(key).send().await.unwrap();
            let status = answer.status().as_u16().to_string();
            assert!(status != "405" || responses.contains_key("405"), "{path}");
            assert!(responses.contains_key(&status), "{name} answers {status}, which the document does not name");
        }
    }
}

/// Names of types in the languages that clients are generated for: a schema of that name is renamed with a warning, or hides
/// the type.
const BUILT_IN: [&str; 24] = [
    "any",
    "array",
    "boolean",
    "byte",
    "client",
    "configuration",
    "date",
    "datetime",
    "double",
    "error",
    "exception",
    "file",
    "float",
    "function",
    "integer",
    "list",
    "map",
    "null",
    "number",
    "object",
    "set",
    "string",
    "type",
    "void",
];

/// A schema and those within it, with the place of each.
fn schemas_within<'d>(place: &str, schema: &'d Value, found: &mut Vec<(String, &'d Value)>) {
    found.push((place.to_owned(), schema));
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        schemas_within(&format!("{place}.{name}"), property, found);
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            schemas_within(&format!("{place}/{key}"), &schema[key], found);
        }
    }
    for key in ["allOf", "oneOf", "anyOf"] {
        for (index, part) in schema[key].as_array().into_iter().flatten().enumerate() {
            schemas_within(&format!("{place}/{key}/{index}"), part, found);
        }
    }
}

#[test]
fn generators_can_name_and_type_every_schema() {
    let document: Value = serde_json::from_str(include_str!("../../openapi/openapi.json")).unwrap();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let mut names = std::collections::BTreeMap::new();
    for name in schemas.keys() {
        let plain = name.to_lowercase();
        assert!(!BUILT_IN.contains(&plain.as_str()), "`{name}` is a type of many languages");
        if let Some(other) = names.insert(plain, name) {
            panic!("`{name}` and `{other}` are the same file on many systems");
        }
    }
    let mut found = Vec::new();
    for (name, schema) in schemas {
        schemas_within(name, schema, &mut found);
    }
    for (path, operation) in document["paths"].as_object().unwrap() {
        for (method, operation) in operation.as_object().unwrap() {
            let place = format!("{method} {path}");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                schemas_within(&format!("{place} ?{}", parameter["name"]), &parameter["schema"], &mut found);
            }
            let contents = operation["responses"].as_object().unwrap().values().chain([&operation["requestBody"]]);
            for (kind, content) in contents.filter_map(|answer| answer["content"].as_object()).flatten() {
                schemas_within(&format!("{place} {kind}"), &content["schema"], &mut found);
            }
        }
    }
    assert!(found.len() > 1000, "only {} schemas were found", found.len());
    let says_something = ["type", "$ref", "allOf", "oneOf", "anyOf", "enum", "const"];
    for (place, schema) in found {
        let is_property = place.rsplit('/').next().is_some_and(|last| last.contains('.')) || place.contains('?');
        let is_typed = says_something.iter().any(|key| schema.get(key).is_some());
        assert!(!is_property || is_typed, "{place} has no type: {schema}");
        let is_object = schema["type"] == "object" || schema["type"] == serde_json::json!(["object", "null"]);
        let is_described = schema.get("properties").is_some() || schema.get("additionalProperties").is_some();
        assert!(!is_object || is_described, "{place} says nothing of its fields");
    }
}

#[tokio::test]
async fn a_method_that_a_path_does_not_take_is_told_with_those_that_it_takes() {
    let house = House::new(Database::Sqlite).await;
    let document = house.gateway.request(Method::GET, "/openapi.json").send().await.unwrap();
    let document = read(document, StatusCode::OK).await;
    let mut slashes = 0;
    for (known, item) in document["paths"].as_object().unwrap() {
        let methods = item.as_object().unwrap();
        let parameters = methods.values().filter_map(|operation| operation["parameters"].as_array()).flatten();
        let mut path = known.clone();
        for parameter in parameters.filter(|parameter| parameter["in"] == "path") {
            let takes_slashes = parameter["description"].as_str().unwrap().contains("slash");
            slashes += usize::from(takes_slashes);
            let value = if takes_slashes { "fal-ai/flux/dev" } else { "none" };
            path = path.replace(&format!("{{{}}}", parameter["name"].as_str().unwrap()), value);
        }
        let is_operators = path.starts_with("/admin") || path.contains("organization") || path == "/metrics";
        let key = if is_operators { crate::support::ADMIN_KEY } else { crate::support::PROJECT_KEY };
        let wrong = if methods.contains_key("patch") { Method::PUT } else { Method::PATCH };
        let answer = house.gateway.request(wrong.clone(), &path).bearer_auth(key).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{wrong} {path}");
        let allowed = answer.headers()["allow"].to_str().unwrap();
        for method in methods.keys() {
            assert!(allowed.split(", ").any(|one| one == method.to_uppercase()), "{path}: {allowed}");
        }
    }
    assert!(slashes >= 5, "{slashes} parameters take slashes");
    let nothing = house.gateway.project(Method::POST, "/v1/images/generations/a/b").send().await.unwrap();
    assert_eq!(nothing.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_docs_page_loads_nothing_from_elsewhere() {
    let house = House::new(Database::Sqlite).await;
    let base = &house.gateway.base;
    let moved = client().get(format!("{base}/docs")).send().await.unwrap();
    assert_eq!(moved.headers()["location"], "/docs/index.html");
    let page = client().get(format!("{base}/docs/index.html")).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("swagger"), "{page}");
    for word in ["http://", "https://", "\"//"] {
        assert!(!page.contains(word), "the page names {word}");
    }
    let start = client().get(format!("{base}/docs/swagger-initializer.js")).send().await.unwrap().text().await.unwrap();
    assert!(start.contains("/openapi.json"), "{start}");
    let missing = client().get(format!("{base}/docs/none.js")).send().await.unwrap();
    read(missing, StatusCode::NOT_FOUND).await;
}
