//! The OpenAPI document is good for what others make of it: linters, generated clients, a fuzzer.
//!
//! `IMAGEGATE_TEST_FUZZ` is for how many seconds Schemathesis tries each face, `IMAGEGATE_TEST_FUZZ_SEED` where it begins;
//! without them, a short run that is always the same is part of the suite.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use reqwest::{Method, StatusCode};

use crate::support::tools::{setting, tool};
use crate::support::{ADMIN_KEY, Database, House, PROJECT_KEY, eventually, read};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/generated");

fn python() -> PathBuf {
    tool("IMAGEGATE_TEST_PYTHON").into()
}

fn node_modules() -> PathBuf {
    tool("IMAGEGATE_TEST_NODE_MODULES").into()
}

/// A program that came with a Python package.
fn python_tool(name: &str) -> Command {
    Command::new(python().with_file_name(name))
}

/// A program that came with an npm package, on the Node.js that came with them.
fn node_tool(name: &str) -> Command {
    let modules = node_modules();
    let mut command = Command::new(modules.join(".bin/node"));
    command.arg(modules.join(".bin").join(name));
    command
}

/// Runs a program to its good end; what it said.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).join("\n");
    assert!(output.status.success(), "{command:?}:\n{said}");
    said
}

/// Runs what uses a generated client against a gateway of its own.
async fn use_it(command: &mut Command) {
    let house = House::new(Database::Sqlite).await;
    command
        .env("IMAGEGATE_URL", &house.gateway.base)
        .env("IMAGEGATE_KEY", PROJECT_KEY)
        .env("IMAGEGATE_ADMIN", ADMIN_KEY)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let said = run(command);
    assert!(said.contains("all as typed"), "{said}");
}

#[test]
fn linters_find_no_error_in_the_document() {
    run(python_tool("openapi-spec-validator").arg(DOCUMENT));
    run(node_tool("redocly").args(["lint", "--extends=recommended", DOCUMENT]).env("REDOCLY_TELEMETRY", "off"));
}

#[tokio::test]
async fn a_python_client_is_generated_and_works() {
    let folder = tempfile::tempdir().unwrap();
    let client = folder.path().join("imagegate_client");
    let mut command = python_tool("openapi-python-client");
    let said = run(command.args(["generate", "--meta", "none", "--path", DOCUMENT, "--output-path"]).arg(client));
    // Two kinds of text are the only things that it has no word for.
    let texts = ["application/x-ndjson", "application/openmetrics-text"];
    let known = texts.map(|kind| said.matches(&format!("Unsupported content_type {kind}")).count());
    assert_eq!((said.matches("WARNING").count(), known), (2, [1, 1]), "{said}");
    use_it(Command::new(python()).arg(format!("{SCRIPTS}/python_client.py")).arg(folder.path())).await;
}

#[tokio::test]
async fn typescript_types_are_generated_and_strict() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::os::unix::fs::symlink(node_modules(), at("node_modules")).unwrap();
    std::fs::copy(format!("{SCRIPTS}/typescript_client.ts"), at("typescript_client.ts")).unwrap();
    std::fs::write(at("package.json"), r#"{"type": "module"}"#).unwrap();
    run(node_tool("openapi-typescript").arg(DOCUMENT).arg("-o").arg(at("schema.d.ts")));
    let options = ["--strict", "--module", "nodenext", "--target", "es2022", "--outDir", "out", "typescript_client.ts"];
    run(node_tool("tsc").args(options).current_dir(folder.path()));
    let node = node_modules().join(".bin/node");
    use_it(Command::new(node).arg(at("out/typescript_client.js")).current_dir(folder.path())).await;
}

/// What openapi-generator's `generate` says of the document beyond what it says of every document: 3.1 is a beta of its own,
/// a look-up fails wherever there is a schema, and a form with several files has no enumeration.
fn generate(generator: &str, folder: &Path) -> Vec<String> {
    let mut command = python_tool("openapi-generator-cli");
    // Short runs: what the JVM's better compiler costs is more than it saves.
    command.env("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC");
    let said = run(command.args(["generate", "-g", generator, "-i", DOCUMENT, "-o"]).arg(folder));
    assert!(said.contains("writing file"), "{generator} has written nothing:\n{said}");
    let of_every_document = [
        "OpenAPI 3.1 support is still in beta",
        "Failed to get the schema name: null",
        "Could not compute datatypeWithEnum from",
    ];
    let lines = said.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
    lines.filter(|line| !of_every_document.iter().any(|known| line.contains(known))).map(str::to_owned).collect()
}

#[tokio::test]
async fn openapi_generators_client_works() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(generate("python", folder.path()), [""; 0]);
    use_it(Command::new(python()).arg(format!("{SCRIPTS}/generator_client.py")).arg(folder.path())).await;
}

#[test]
fn openapi_generators_of_other_languages_find_nothing_to_warn_of() {
    let folder = tempfile::tempdir().unwrap();
    for generator in ["java", "go", "csharp", "typescript-axios", "dart", "php"] {
        assert_eq!(generate(generator, &folder.path().join(generator)), [""; 0], "{generator}");
    }
}

/// How much Schemathesis tries: without `IMAGEGATE_TEST_FUZZ` a number of requests for each operation, since the same seed finds
/// the same only where no clock ends the run.
const EXAMPLES: &str = "4";

/// Every path that an option leaves, with one key and every check. What a schema cannot say is in `fuzz_hooks.py`.
fn fuzz(base: &str, key: &str, paths: [&str; 2]) {
    let seed = setting("IMAGEGATE_TEST_FUZZ_SEED").unwrap_or_else(|| "1".to_owned());
    let mut schemathesis = python_tool("schemathesis");
    let bound = if let Some(seconds) = setting("IMAGEGATE_TEST_FUZZ") {
        ["--max-time".to_owned(), seconds]
    } else {
        schemathesis.args(["--config-file", &format!("{SCRIPTS}/schemathesis.toml")]);
        ["--max-examples".to_owned(), EXAMPLES.to_owned()]
    };
    let folder = tempfile::tempdir().unwrap();
    let said = run(schemathesis
        .args(["run", &format!("{base}/openapi.json"), "--phases", "coverage,fuzzing", "--checks", "all"])
        .args(["--seed", &seed, "--generation-database", "none", "--continue-on-failure", "--request-timeout", "120"])
        .args(["--header", &format!("Authorization: Bearer {key}")])
        .args(bound)
        .args(paths)
        .env("SCHEMATHESIS_HOOKS", format!("{SCRIPTS}/fuzz_hooks.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(folder.path()));
    assert!(said.contains("generated, ") && said.contains(" passed"), "it has tried nothing:\n{said}");
}

/// On PostgreSQL, which takes less than SQLite does, and with any number of requests a minute, since what is refused for its
/// rate tells nothing of the document.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fuzzer_finds_nothing_that_the_document_does_not_tell_of() {
    let rates = ["IMAGEGATE_DEFAULT_REQUESTS_PER_MINUTE", "IMAGEGATE_DEFAULT_IMAGES_PER_MINUTE"];
    let operators = "^/(admin|v1/organization|metrics)";
    // Each with a gateway of its own, so that neither finds what the other one has changed.
    let faces = [(PROJECT_KEY, "--exclude-path-regex"), (ADMIN_KEY, "--include-path-regex")];
    let fuzzed = faces.map(|(key, choice)| async move {
        let house = House::with(Database::Postgres, Duration::ZERO, &rates.map(|name| (name, "none"))).await;
        let base = house.gateway.base.clone();
        tokio::task::spawn_blocking(move || fuzz(&base, key, [choice, operators])).await.unwrap();
        // It may have asked for images in the background.
        eventually(Duration::from_mins(1), || async {
            let holds = house.gateway.admin(Method::GET, "/admin/v1/holds").send().await.unwrap();
            read(holds, StatusCode::OK).await["data"].as_array().unwrap().is_empty().then_some(())
        })
        .await;
    });
    futures_util::future::join_all(fuzzed).await;
}
