//! Why a model file does not load.

use std::path::PathBuf;

/// Why a catalogue does not load.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// A mistake in a model file.
    #[error("{file}:{line}:{column}: {message}")]
    File {
        /// The file's name.
        file: String,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
        /// What is wrong and what is allowed.
        message: String,
    },
    /// Two models are found under the same id.
    #[error(
        "`{first}` ({first_file}) and `{second}` ({second_file}) both claim the id `{id}`: change it in one of them"
    )]
    Clash {
        /// The id or alias.
        id: String,
        /// One model.
        first: String,
        /// Its file.
        first_file: String,
        /// The other.
        second: String,
        /// Its file.
        second_file: String,
    },
    /// A model falls back to one that is not on offer, or to itself.
    #[error("`{model}` falls back to `{fallback}`, which is no other model on offer")]
    Fallback {
        /// The model.
        model: String,
        /// What its file names.
        fallback: String,
    },
    /// A file or folder cannot be read.
    #[error("cannot read `{path}`: {cause}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// The system's word.
        cause: std::io::Error,
    },
}
