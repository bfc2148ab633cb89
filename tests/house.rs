//! The house's arrows run down only: each room names only rooms that the table allows.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Who may name whom. `main` and `commands` stand outside and may use every room.
const ALLOWED: &[(&str, &[&str])] = &[
    (
        "startup",
        &[
            "accounts",
            "admin",
            "api",
            "catalogue",
            "config",
            "console",
            "domain",
            "gateway",
            "http",
            "ledger",
            "meters",
            "providers",
            "sandbox",
            "storage",
            "store",
            "webhooks",
        ],
    ),
    (
        "api",
        &[
            "accounts",
            "catalogue",
            "config",
            "domain",
            "gateway",
            "http",
            "ledger",
            "meters",
            "providers",
            "storage",
            "webhooks",
        ],
    ),
    ("console", &["accounts", "admin", "api", "domain", "gateway", "http", "ledger"]),
    ("admin", &["accounts", "api", "catalogue", "domain", "gateway", "http", "ledger"]),
    ("gateway", &["accounts", "catalogue", "domain", "ledger", "meters", "providers", "storage"]),
    ("providers", &["catalogue", "domain", "meters", "traces"]),
    ("storage", &[]),
    ("ledger", &["domain", "meters", "store"]),
    ("accounts", &["domain", "store"]),
    ("webhooks", &["domain", "meters", "store"]),
    ("catalogue", &["domain"]),
    ("store", &["domain"]),
    ("sandbox", &["domain"]),
    ("http", &["domain", "meters", "traces"]),
    ("telemetry", &["config"]),
    ("config", &["domain"]),
    ("meters", &[]),
    ("traces", &[]),
    ("domain", &[]),
];

/// The rooms that each room names after `crate::`.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in rust_files(&source) {
        let inside = file.strip_prefix(&source).unwrap();
        let room = inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if ["lib", "main", "commands"].contains(&room.as_str()) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        if is_test(&file) {
            continue;
        }
        let found = arrows.entry(room.clone()).or_default();
        for text in text.split("crate::").skip(1) {
            let names: Vec<&str> = match text.strip_prefix('{') {
                Some(list) => list.split('}').next().unwrap().split(',').collect(),
                None => vec![text],
            };
            for name in names {
                let name: String = name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if name != room && !name.is_empty() {
                    found.insert(name);
                }
            }
        }
    }
    arrows
}

/// A room's own tests may look at the whole house.
fn is_test(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs")
}

fn rust_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn every_arrow_runs_down() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut forbidden = Vec::new();
    for (room, named) in arrows() {
        let may = allowed.get(room.as_str()).unwrap_or_else(|| panic!("the room `{room}` is not in the table"));
        forbidden.extend(
            named.iter().filter(|other| !may.contains(&other.as_str())).map(|other| format!("{room} → {other}")),
        );
    }
    assert!(forbidden.is_empty(), "arrows that the table forbids: {forbidden:?}");
}

fn reaches<'a>(allowed: &BTreeMap<&'a str, &'a [&'a str]>, from: &str, to: &str, seen: &mut BTreeSet<String>) -> bool {
    allowed[from]
        .iter()
        .any(|next| *next == to || (seen.insert((*next).to_owned()) && reaches(allowed, next, to, seen)))
}

#[test]
fn the_table_itself_has_no_circle() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    for room in allowed.keys() {
        assert!(!reaches(&allowed, room, room, &mut BTreeSet::new()), "`{room}` reaches itself");
    }
}

#[test]
fn sql_lives_in_the_store_and_nowhere_else() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in rust_files(&source) {
        let text = fs::read_to_string(&file).unwrap();
        if !file.starts_with(source.join("store")) {
            assert!(!text.contains("sqlx::query"), "SQL in {}", file.display());
        }
    }
}

#[test]
fn only_startup_names_a_concrete_provider() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in rust_files(&source) {
        let text = fs::read_to_string(&file).unwrap();
        if !file.starts_with(source.join("providers")) && !file.ends_with("startup.rs") && !is_test(&file) {
            assert!(!text.contains("providers::fal") && !text.contains("fal::"), "fal is named in {}", file.display());
        }
    }
}

#[test]
fn every_file_opens_with_its_duty() {
    for folder in ["src", "tests"] {
        for file in rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)) {
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.starts_with("//! "), "{} does not open with `//!`", file.display());
        }
    }
}
