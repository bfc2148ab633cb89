//! Every example of the README and of `docs/` that is marked `<!-- run -->`, run as it is written.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use crate::support::tools::{setting, tool};
use crate::support::{Database, Start, TestDatabase, start_sandbox};

/// The examples' address.
const ADDRESS: &str = "127.0.0.1:8080";

/// The documents that have examples, and at least how many.
const DOCUMENTS: [(&str, usize); 3] = [("README.md", 8), ("docs/models.md", 2), ("docs/clients.md", 1)];

/// The marked blocks: language and text.
fn examples() -> Vec<(String, String)> {
    let of_document = |(document, least): (&str, usize)| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
        let blocks = blocks(&std::fs::read_to_string(path).unwrap());
        assert!(blocks.len() >= least, "{document} has lost its marks");
        blocks
    };
    DOCUMENTS.into_iter().flat_map(of_document).collect()
}

fn blocks(document: &str) -> Vec<(String, String)> {
    let blocks = document.split("<!-- run -->\n```").skip(1);
    blocks
        .map(|block| {
            let (language, rest) = block.split_once('\n').unwrap();
            (language.to_owned(), rest.split("\n```").next().unwrap().to_owned())
        })
        .collect()
}

#[tokio::test]
async fn every_example_of_the_readme_runs_as_it_is_written() {
    assert!(TcpListener::bind(ADDRESS).is_ok(), "the README's examples use {ADDRESS}, which is taken on this machine");
    let examples = examples();
    let database = TestDatabase::new(Database::Sqlite).await;
    let fal = start_sandbox(Duration::ZERO);
    let gateway = Start::new(&database.url, &fal.queue_url()).with("IMAGEGATE_BIND", ADDRESS).run().await;
    let folder = tempfile::tempdir().unwrap();
    let python = tool("IMAGEGATE_TEST_PYTHON");
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_imagegate")).parent().unwrap();
    // The examples find curl and node where the shell does.
    let path = format!("{}:{}", program.display(), setting("PATH").unwrap());
    for (language, text) in examples {
        let (file, mut command) = match language.as_str() {
            "bash" => ("example.sh", Command::new("bash")),
            "python" => ("example.py", Command::new(&python)),
            "js" => ("example.mjs", Command::new("node")),
            other => panic!("nothing runs `{other}`"),
        };
        let text = if language == "bash" {
            format!("set -euo pipefail\ncurl() {{ command curl -fsS \"$@\"; }}\n{text}\n")
        } else {
            text
        };
        std::fs::write(folder.path().join(file), &text).unwrap();
        let output = command
            .arg(file)
            .current_dir(folder.path())
            .env("PATH", &path)
            .env("DATABASE_URL", &database.url)
            .env("IMAGEGATE_KEY", crate::support::PROJECT_KEY)
            .env("IMAGEGATE_ADMIN", crate::support::ADMIN_KEY)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}\n{said}\n{complained}");
        assert!(!said.trim().is_empty(), "it prints nothing: {text}");
    }
    let picture = std::fs::read(folder.path().join("lighthouse.jpg")).unwrap();
    assert!(image::load_from_memory(&picture).is_ok());
    let made = gateway.generations().await.len();
    assert_eq!(made, 5, "five of the examples make images");
}
