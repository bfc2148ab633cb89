//! What we sell, as data: one file per model says what it takes, what it costs and what it answers.
//!
//! A request's JSON ([`parse`]) becomes an [`Order`] only through [`Catalogue::order`], which checks every value
//! against the model's file and tells every problem at once. The order knows its price and can be translated.

mod alias;
mod built_in;
mod document;
mod error;
mod file;
mod import;
mod json;
mod model;
mod nearest;
mod order;
mod price;
mod problem;
mod recall;
mod rules;
mod schema;
mod shelf;
mod size;
mod switches;
mod terms;
mod validate;
mod value;

#[cfg(test)]
mod tests;

pub use alias::AliasError;
pub use document::{Components, MODEL_ID};
pub use error::CatalogueError;
pub use file::check_file;
pub use import::{ImportError, import};
pub use json::{Array, Json, JsonError, Number, Object, check_values, parse, parse_request};
pub use model::{Example, Model, Output, Parameter, Role, Send, Several, Status};
pub use order::{Adaptation, JsonValue, Order, Sent};
pub use price::{Condition, Extra, InputPrice, Price, PriceError, Rate, Rounding, Unit, Variant};
pub use problem::{Code, PathPart, Problem, Rejection};
pub use rules::{
    AspectRatio, AspectRatioRule, ChoiceRule, CustomSize, IntegerRule, Kind, ListRule, NumberRule, ObjectRule, Preset,
    SeedRule, SizeRule, TextFormat, TextPattern, TextRule,
};
pub use shelf::{Catalogue, Handling, Strictness};
pub use size::{Size, SizeError};
pub use switches::{AnswerForm, ResponseFormat, Switches};
pub use terms::{Charge, Quote, Terms};
pub use value::{OrderedSize, Value};
