//! Every file of `examples/`, run as it is: each must print what it did and leave a picture.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use reqwest::Method;
use serde_json::Value;

use crate::clients::{first_start, node};
use crate::support::tools::tool;
use crate::support::{Database, Gateway, PROJECT_KEY};

#[tokio::test]
async fn every_example_runs_as_it_is_written() {
    let (gateway, _database) = first_start(Database::Sqlite).await;
    let mut run = 0;
    for file in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")) {
        // Beside the example lies what its `npm install` would have put there.
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(tool("IMAGEGATE_TEST_NODE_MODULES"), folder.path().join("node_modules")).unwrap();
        let copy = folder.path().join(file.file_name().unwrap());
        std::fs::copy(&file, &copy).unwrap();
        let name = file.display().to_string();
        let (program, arguments): (String, &[&str]) = match file.extension().and_then(|extension| extension.to_str()) {
            Some("sh") => ("bash".to_owned(), &[]),
            Some("py") => (tool("IMAGEGATE_TEST_PYTHON"), &["-B"]),
            Some("ts") => (node(), &["--disable-warning=MODULE_TYPELESS_PACKAGE_JSON"]),
            Some("json") => {
                run_workflow(&file, &gateway).await;
                run += 1;
                continue;
            }
            Some("md") => continue,
            _ => panic!("nothing runs {name}"),
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg(&copy)
            .current_dir(folder.path())
            .env("IMAGEGATE_URL", &gateway.base)
            .env("IMAGEGATE_KEY", PROJECT_KEY)
            .stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let (said, faults) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name}: {said}\n{faults}\n{}", gateway.log());
        assert!(said.contains("USD") || said.contains("generation"), "{name} does not tell what it did: {said}");
        let pictures = files(folder.path());
        let pictures =
            pictures.iter().filter(|path| path.extension().is_some_and(|kind| kind == "jpg" || kind == "png"));
        let pictures: Vec<&PathBuf> = pictures.collect();
        assert!(!pictures.is_empty(), "{name} leaves no picture");
        for picture in pictures {
            image::load_from_memory(&std::fs::read(picture).unwrap()).unwrap();
        }
        run += 1;
    }
    assert_eq!(run, 8, "each example is run");
}

/// The files below a folder, but for what is linked.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Follows a workflow of n8n from its trigger, node by node, as n8n's `HTTP Request` does it. n8n itself is far too large for
/// a test suite; what it would send is all in the file.
async fn run_workflow(file: &Path, gateway: &Gateway) {
    let workflow: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let nodes = workflow["nodes"].as_array().unwrap();
    let named = |name: &str| nodes.iter().find(|node| node["name"] == name).unwrap();
    let trigger = nodes.iter().find(|node| node["type"] == "n8n-nodes-base.manualTrigger").unwrap();
    let next = |name: &Value| workflow["connections"][name.as_str().unwrap()]["main"][0][0]["node"].as_str();
    let (mut at, mut json, mut picture) = (next(&trigger["name"]), Value::Null, Vec::new());
    while let Some(node) = at.map(named) {
        assert_eq!(node["type"], "n8n-nodes-base.httpRequest");
        let parameters = &node["parameters"];
        let text = |value: &Value| expression(value.as_str().unwrap(), &json, gateway);
        let method: Method = parameters["method"].as_str().unwrap().parse().unwrap();
        let mut request = gateway.client.request(method, text(&parameters["url"]));
        for header in parameters["headerParameters"]["parameters"].as_array().into_iter().flatten() {
            request = request.header(text(&header["name"]), text(&header["value"]));
        }
        if parameters["sendBody"] == true {
            assert_eq!(parameters["specifyBody"], "json");
            let body: Value = serde_json::from_str(&text(&parameters["jsonBody"])).unwrap();
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{}: {}", node["name"], answer.text().await.unwrap());
        if parameters["options"]["response"]["response"]["responseFormat"] == "file" {
            picture = answer.bytes().await.unwrap().to_vec();
        } else {
            json = answer.json().await.unwrap();
        }
        at = next(&node["name"]);
    }
    image::load_from_memory(&picture).unwrap();
}

/// n8n's expressions as far as the workflow has them: a text that begins with `=` has `{{ … }}` in it.
fn expression(text: &str, json: &Value, gateway: &Gateway) -> String {
    let Some(text) = text.strip_prefix('=') else { return text.to_owned() };
    let mut parts = text.split("{{");
    let mut whole = parts.next().unwrap().to_owned();
    for part in parts {
        let (inner, after) = part.split_once("}}").unwrap();
        whole += &match inner.trim() {
            "$env.IMAGEGATE_URL" => gateway.base.clone(),
            "$env.IMAGEGATE_KEY" => PROJECT_KEY.to_owned(),
            "$execution.id" => "231".to_owned(),
            path => {
                let path = path.strip_prefix("$json.").unwrap_or_else(|| panic!("what is `{path}`?"));
                let pointer = format!("/{}", path.replace(['.', '['], "/").replace(']', ""));
                json.pointer(&pointer).and_then(Value::as_str).unwrap().to_owned()
            }
        };
        whole += after;
    }
    whole
}
