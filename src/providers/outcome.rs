//! What a provider's answers mean, in words that no provider owns.

use std::time::Duration;

use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use super::Ticket;
use crate::domain::Fixed;

/// One image as it was delivered. Fields that the provider did not give are absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Where it can be fetched.
    pub url: String,
    /// Pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// MIME type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The provider's file name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_size: Option<u64>,
}

/// A finished request.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Delivery {
    /// The images, at least one.
    pub images: Vec<Image>,
    /// The seed used; a 64-bit integer, never through a float.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Number>,
    /// How long which step took, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timings: Option<Map<String, Value>>,
    /// For each image, whether the safety checker blackened it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_nsfw_concepts: Option<Vec<bool>>,
    /// The prompt as the provider used it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// A text that came with the images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How many images the provider counts, where its output tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_images: Option<u64>,
    /// What the provider says it bills for, in its units.
    #[serde(skip)]
    pub billable_units: Option<Fixed>,
}

/// What one look at a request showed.
#[derive(Debug, Clone, PartialEq)]
pub enum Look {
    /// It waits; with the number of requests before it, if told.
    Queued(Option<u32>),
    /// It runs.
    Running,
    /// It has finished.
    Done(Box<Delivery>),
    /// It has failed, finally.
    Failed(Box<Failure>),
}

/// A line that a runner has written, as the provider tells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LogLine {
    /// What was written.
    pub message: String,
    /// When, as RFC 3339.
    #[serde(default)]
    pub timestamp: String,
    /// How grave: `INFO`, `ERROR`, `STDOUT`…
    #[serde(default)]
    pub level: String,
    /// By whom, such as `USER`.
    #[serde(default)]
    pub source: String,
}

/// How a request stands at the provider, told to somebody who asks while it is open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Whether it has begun.
    pub runs: bool,
    /// While it waits: the number of requests before it, if told.
    pub queue_position: Option<u32>,
    /// What its runner has written by now.
    pub logs: Vec<LogLine>,
}

/// Why a look showed nothing. The request itself may be well.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LookError {
    /// Worth another look: a fault of the network or of the provider's front.
    #[error("the provider could not be asked: {0}")]
    Transient(String),
    /// The result itself answers with a server error although the state tells of none: final if it stays so.
    #[error("the result answers with an error: {0}")]
    ResultFault(String, Box<Failure>),
    /// The provider does not know the request: final if it stays so.
    #[error("the provider does not know the request")]
    Unknown,
    /// An answer that we cannot read. It costs nobody anything, and somebody must look at it.
    #[error("the provider's answer is not understood: {0}")]
    NotUnderstood(String),
}

/// A file that is to be uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileWish {
    /// MIME type.
    pub content_type: String,
    /// What it is to be called.
    pub file_name: String,
}

/// Where a file is to be put, and where it will lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadPlace {
    /// `PUT` the bytes here; the address is the secret.
    pub upload_url: String,
    /// The address to give to a model.
    pub file_url: String,
}

/// A run that shows its images while they come to be.
pub struct StreamedRun {
    /// What the provider gave for it; whether anything can be asked under it is the provider's affair.
    pub ticket: Ticket,
    /// What it shows, up to its end; an error is the end as well.
    pub shown: BoxStream<'static, Result<Shown, String>>,
}

/// What one event of a streamed run shows.
#[derive(Debug, Clone, PartialEq)]
pub enum Shown {
    /// The images as they are now; the last ones are what is delivered.
    Images(Box<Delivery>),
    /// Something else, such as progress in numbers.
    Nothing,
    /// The run has failed.
    Failed(Box<Failure>),
}

/// Why there is no ticket.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// Proven: the provider has not taken it.
    #[error("the provider has not taken the request: {}", .0.message)]
    NotTaken(Box<Failure>),
    /// Nobody knows whether the provider took it; it must never be sent again.
    #[error("it is unclear whether the provider took the request: {0}")]
    Unclear(String),
}

/// One thing that the provider found wrong with the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputProblem {
    /// The provider's code, such as `less_than_equal`.
    pub code: String,
    /// Where, in the provider's names: strings and list positions.
    pub path: Vec<Value>,
    /// The provider's sentence.
    pub message: String,
    /// The limits that it names, as JSON Schema calls them: `minimum`, `maximum`, `multipleOf`…, and `options`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub limits: Map<String, Value>,
    /// What a content policy refuses it for, in the provider's words, such as `sexual` or `violence`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
}

/// Which kind of failure it is; decides what the client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The provider refuses a parameter that our catalogue let through.
    InvalidInput,
    /// Its content policy refuses the prompt or an image.
    ContentPolicy,
    /// It cannot load an input image.
    InputUnreadable,
    /// Our key or our balance at the provider is bad.
    Account,
    /// The provider no longer has the model.
    ModelGone,
    /// The provider is overloaded or out of reach.
    Overloaded,
    /// The run failed.
    Run,
    /// It ran and delivered no image.
    NoImages,
    /// It was cancelled.
    Cancelled,
    /// It did not start or finish in the provider's time.
    TimedOut,
    /// The provider has lost the request.
    Lost,
    /// It is not known whether the provider took it, and nothing came of it.
    Unclear,
    /// This gateway never submitted it: it lost its database, or was held up, before it could.
    NotSubmitted,
}

impl FailureKind {
    /// Whether the provider, or this model of it, is unavailable rather than the request wrong: another model may do.
    #[must_use]
    pub const fn is_unavailability(self) -> bool {
        matches!(self, Self::Account | Self::ModelGone | Self::Overloaded | Self::Run)
    }
}

/// A failure, told in neutral words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which kind.
    pub kind: FailureKind,
    /// What happened, for a reader.
    pub message: String,
    /// What the provider found wrong with the input, if that was it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<InputProblem>,
    /// When the provider asks to come back.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
    /// What the provider bills for the failed run.
    #[serde(skip)]
    pub billable_units: Option<Fixed>,
}

impl Failure {
    /// A failure without details.
    #[must_use]
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), problems: Vec::new(), retry_after: None, billable_units: None }
    }
}
