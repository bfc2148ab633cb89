//! `imagegate models …` and `imagegate openapi`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use imagegate::catalogue::{Model, check_file, import};
use imagegate::config::Config;
use imagegate::startup;
use serde_json::{Value, json};

use super::{Failure, Output, print};

/// What to do with model files.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Check one model file and say what is wrong with it
    Check {
        /// The file
        file: PathBuf,
    },
    /// Turn a fal endpoint's published document into a model file on standard output
    ///
    /// Takes the OpenAPI document of `https://fal.ai/api/openapi/queue/openapi.json?endpoint_id=…`, or an entry with
    /// `endpoint_id`, `input`, `output` and `types`. What it cannot say, such as the price, is marked `<fill in: …>`;
    /// the file does not load before that is done.
    Import {
        /// The document
        file: PathBuf,
    },
}

/// Lists the catalogue, or works on a file.
pub fn run(config: &Config, action: Option<Action>, output: Output) -> Result<(), Failure> {
    match action {
        None => list(config, output),
        Some(Action::Check { file }) => {
            let text = read(&file)?;
            let model = check_file(&text, &file.display().to_string())?;
            let view = json!({"file": file.display().to_string(), "model": model.id, "valid": true});
            output.say(&view, &format!("{}: the model `{}` is well described.", file.display(), model.id))
        }
        Some(Action::Import { file }) => {
            let text = import(&read(&file)?).map_err(|fault| format!("{}: {fault}", file.display()))?;
            print(&text)
        }
    }
}

fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|fault| format!("{} cannot be read: {fault}", file.display()))
}

fn list(config: &Config, output: Output) -> Result<(), Failure> {
    let catalogue = startup::load_catalogue(&config.sales)?;
    let rows: Vec<Vec<String>> = catalogue
        .models()
        .map(|model| {
            let price = model.price_in_words(config.sales.markup);
            vec![model.id.clone(), model.status.as_str().to_owned(), model.endpoint.clone(), price]
        })
        .collect();
    let view = |model: &Model| {
        let pricing = model.pricing(config.sales.markup);
        json!({"id": model.id, "status": model.status, "endpoint": model.endpoint, "pricing": pricing})
    };
    let views: Vec<Value> = catalogue.models().map(|model| view(model)).collect();
    let head = ["MODEL", "STATUS", "ENDPOINT", "PRICE"];
    output.table(&json!({"object": "list", "data": views}), &head, &rows, &[], "There are no models.")
}

/// Prints the OpenAPI document.
pub fn print_document(config: &Config) -> Result<(), Failure> {
    let catalogue = startup::load_catalogue(&config.sales)?;
    print(&startup::document(&catalogue)?)
}
