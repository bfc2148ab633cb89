//! `imagegate models …` and `imagegate openapi`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use imagegate::catalogue::{check_file, import};
use imagegate::config::Config;
use imagegate::startup;

use super::{Failure, print, print_table};

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
pub fn run(config: &Config, action: Option<Action>) -> Result<(), Failure> {
    match action {
        None => list(config),
        Some(Action::Check { file }) => {
            let text = read(&file)?;
            let model = check_file(&text, &file.display().to_string())?;
            print(&format!("{}: the model `{}` is well described.\n", file.display(), model.id))
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

fn list(config: &Config) -> Result<(), Failure> {
    let catalogue = startup::load_catalogue(&config.sales)?;
    let rows: Vec<Vec<String>> = catalogue
        .models()
        .map(|model| {
            let price = model.price_in_words(config.sales.markup);
            vec![model.id.clone(), model.status.as_str().to_owned(), model.endpoint.clone(), price]
        })
        .collect();
    print_table(&["MODEL", "STATUS", "ENDPOINT", "PRICE"], &rows, &[])
}

/// Prints the OpenAPI document.
pub fn print_document(config: &Config) -> Result<(), Failure> {
    let catalogue = startup::load_catalogue(&config.sales)?;
    print(&startup::document(&catalogue)?)
}
