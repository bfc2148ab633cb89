//! What is wrong with a wish, told so that AIML's clients (zod's issues) and people can both read it.

use serde::{Serialize, Serializer};
use serde_json::{Number, Value};

/// Why no [`Order`](super::Order) came of a wish.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Rejection {
    /// No model of that id or alias.
    #[error("there is no model `{model}`{}", did_you_mean(.nearest.as_deref()))]
    UnknownModel {
        /// As the client wrote it.
        model: String,
        /// The id or alias that differs least, if one is near.
        nearest: Option<String>,
    },
    /// The model was offered once and is no more.
    #[error("the model `{model}` was withdrawn{}", use_instead(.replaced_by.as_deref()))]
    Withdrawn {
        /// Its id.
        model: String,
        /// The model that took its place.
        replaced_by: Option<String>,
    },
    /// The model is known, but nobody knows its price, so it is not on offer.
    #[error("the model `{model}` is not on offer: it has no known price")]
    Unpriced {
        /// Its id.
        model: String,
    },
    /// The model is there, and these are all the problems with what was asked of it; never empty.
    #[error("{}", summary(.0))]
    Invalid(Vec<Problem>),
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"))
}

fn use_instead(model: Option<&str>) -> String {
    model.map_or_else(String::new, |model| format!("; use `{model}` instead"))
}

fn summary(problems: &[Problem]) -> String {
    match problems {
        [] => "invalid request".to_owned(),
        [only] => only.message.clone(),
        [first, rest @ ..] => format!("{} (and {} more)", first.message, rest.len()),
    }
}

/// One problem of a request, shaped like one of zod's issues. What does not apply is left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// What kind of problem, in zod's words.
    pub code: Code,
    /// Where, in the client's own spelling: `["n"]`, not `["num_images"]`, if the client wrote `n`.
    pub path: Vec<PathPart>,
    /// One sentence for people.
    pub message: String,
    /// The type wanted, for [`Code::InvalidType`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<&'static str>,
    /// The type given (for [`Code::InvalidType`]), or the value (for [`Code::InvalidEnumValue`], shortened).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received: Option<String>,
    /// What the limit counts: `number`, `string` (code points) or `array` (items).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<&'static str>,
    /// The least allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<Number>,
    /// The most allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum: Option<Number>,
    /// Whether the limit itself is allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inclusive: Option<bool>,
    /// What the value must be a multiple of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multiple_of: Option<Number>,
    /// Everything allowed, for [`Code::InvalidEnumValue`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Vec<String>>,
    /// The unknown fields, for [`Code::UnrecognizedKeys`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<String>>,
    /// The allowed value that is nearest to what was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<Value>,
}

/// The kinds of problem, in the words of zod 3 that AIML's clients know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Another type than wanted, or missing (`received` is then `undefined`).
    InvalidType,
    /// Below the minimum, or too short.
    TooSmall,
    /// Above the maximum, or too long.
    TooBig,
    /// Not a multiple of what it must be.
    NotMultipleOf,
    /// Not one of the options.
    InvalidEnumValue,
    /// A text of the wrong form, such as no URL.
    InvalidString,
    /// An unknown field, in strict requests.
    UnrecognizedKeys,
    /// Anything else, such as one thing given twice and differently.
    Custom,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathPart {
    /// A field of an object.
    Key(String),
    /// An item of a list, from 0.
    Index(usize),
}

impl Serialize for PathPart {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Key(key) => serializer.serialize_str(key),
            Self::Index(index) => index.serialize(serializer),
        }
    }
}

impl Problem {
    /// A problem of this kind at this place; what else applies is set on the fields.
    #[must_use]
    pub fn new(code: Code, path: Vec<PathPart>, message: impl Into<String>) -> Self {
        Self {
            code,
            path,
            message: message.into(),
            expected: None,
            received: None,
            r#type: None,
            minimum: None,
            maximum: None,
            inclusive: None,
            multiple_of: None,
            options: None,
            keys: None,
            nearest: None,
        }
    }

    /// The path as one text: `loras.0.scale`. Empty for the request itself.
    #[must_use]
    pub fn dotted_path(&self) -> String {
        let parts: Vec<_> = self
            .path
            .iter()
            .map(|part| match part {
                PathPart::Key(key) => key.clone(),
                PathPart::Index(index) => index.to_string(),
            })
            .collect();
        parts.join(".")
    }
}
