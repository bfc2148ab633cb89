//! From a fal endpoint's published document to a model file. What a document cannot say is marked, and a file with
//! such a mark does not load.

mod flat;
mod kinds;
mod read;
mod write;

/// How a value that has to be filled in begins.
const MARK: &str = "<fill in";

/// Why no file came of a document.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// No JSON.
    #[error("the document is not JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    /// JSON of another form.
    #[error("this is no document of one endpoint: {0}")]
    NotADocument(String),
}

/// Writes the model file for a document: fal's `OpenAPI` document of one endpoint (alone, or inside an entry of fal's
/// list of models), or an entry `{endpoint_id, input, output, types}`.
pub fn import(document: &str) -> Result<String, ImportError> {
    let draft = read::draft(&serde_json::from_str(document)?)?;
    Ok(write::file(&draft))
}

/// The byte where something is still to be filled in.
pub(super) fn unfilled(file: &str) -> Option<usize> {
    let marked = format!("\"{MARK}");
    let mut begins = 0;
    for line in file.split_inclusive('\n') {
        if let Some(place) = line.find(&marked).filter(|_| !line.trim_start().starts_with('#')) {
            return Some(begins + place);
        }
        begins += line.len();
    }
    None
}

/// A model as far as a document tells of it.
struct Draft {
    endpoint: String,
    name: Option<String>,
    description: Option<String>,
    streams: bool,
    price: Option<DraftPrice>,
    output: DraftOutput,
    parameters: Vec<DraftParameter>,
    /// Fields that no kind can say, each with why.
    left_out: Vec<(String, String)>,
    /// Limits of fields that cannot be left out, which no kind can say.
    unsaid: Vec<String>,
}

struct DraftPrice {
    per: &'static str,
    amount: String,
}

struct DraftOutput {
    fields: Vec<String>,
    image_fields: Vec<String>,
    content_type: Option<String>,
}

struct DraftParameter {
    name: String,
    kind: DraftKind,
    required: bool,
    default: Option<serde_json::Value>,
    description: String,
}

enum DraftKind {
    Text {
        min_length: Option<u64>,
        max_length: Option<u64>,
        format: Option<&'static str>,
        pattern: Option<String>,
    },
    Integer {
        seed: bool,
        minimum: Option<i128>,
        maximum: Option<i128>,
        multiple_of: Option<i64>,
        options: Vec<i64>,
    },
    /// Its limits by the names that model files have for them.
    Number {
        limits: Vec<(&'static str, serde_json::Value)>,
        options: Vec<serde_json::Value>,
    },
    Boolean,
    Choice(Vec<String>),
    Size {
        presets: Vec<String>,
        custom: Option<DraftSize>,
    },
    AspectRatio(Vec<String>),
    Image,
    List {
        items: Box<DraftKind>,
        min_items: Option<u64>,
        max_items: Option<u64>,
    },
    Object(Vec<DraftParameter>),
    /// No kind has its form, and it is required.
    Unknown,
}

struct DraftSize {
    minimum: u64,
    maximum: Option<u64>,
    multiple_of: Option<i64>,
    missing_side: Option<(u64, u64)>,
}
