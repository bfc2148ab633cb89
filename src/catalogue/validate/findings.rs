//! Problems and ignored fields as they are found, each with its path in the client's spelling.

use serde_json::{Number, Value as JsonValue};

use super::super::json::Json;
use super::super::model::Parameter;
use super::super::nearest::nearest;
use super::super::order::Adaptation;
use super::super::problem::{Code, PathPart, Problem};
use super::super::shelf::Strictness;
use crate::domain::{Adapt, Adaptable};

/// More problems than this are counted, not listed.
const MOST_PROBLEMS: usize = 200;
/// More ignored fields than this are counted, not listed.
const MOST_IGNORED: usize = 100;
/// For more unknown fields than this no neighbour is looked for.
const MOST_NEIGHBOURS: usize = 20;
/// A received value or the name of a field is repeated up to this many characters.
const LONGEST_RECEIVED: usize = 60;

/// What was found while checking one request.
pub(in super::super) struct Findings<'j> {
    strictness: Strictness,
    adapt: Adapt,
    path: Vec<Step<'j>>,
    problems: Vec<Problem>,
    more_problems: usize,
    ignored: Vec<String>,
    more_ignored: usize,
    adapted: Vec<Adaptation>,
}

#[derive(Clone, Copy)]
enum Step<'j> {
    Key(&'j str),
    Index(usize),
}

impl<'j> Findings<'j> {
    pub(in super::super) fn new(strictness: Strictness) -> Self {
        Self {
            strictness,
            adapt: Adapt::NONE,
            path: Vec::new(),
            problems: Vec::new(),
            more_problems: 0,
            ignored: Vec::new(),
            more_ignored: 0,
            adapted: Vec::new(),
        }
    }

    /// The same; what is in the set may be changed where it does not fit.
    pub(super) fn adapting(self, adapt: Adapt) -> Self {
        Self { adapt, ..self }
    }

    /// Whether this may be changed where it does not fit.
    pub(super) fn adapts(&self, what: Adaptable) -> bool {
        self.adapt.contains(what)
    }

    pub(super) fn is_strict(&self) -> bool {
        self.strictness == Strictness::Strict
    }

    pub(super) fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    pub(in super::super) fn into_problems(mut self) -> Vec<Problem> {
        if self.more_problems > 0 {
            let message = format!("and {} more problems", self.more_problems);
            self.problems.push(Problem::new(Code::Custom, Vec::new(), message));
        }
        self.problems
    }

    pub(super) fn into_ignored_and_adapted(mut self) -> (Vec<String>, Vec<Adaptation>) {
        if self.more_ignored > 0 {
            self.ignored.push(format!("(and {} more)", self.more_ignored));
        }
        (self.ignored, self.adapted)
    }

    /// Notes that the value at the present place is made by another one, which is not quite the same.
    pub(super) fn adapt(&mut self, from: impl Into<JsonValue>, to: impl Into<JsonValue>) {
        let (field, to) = (self.dotted(None), to.into());
        // Of two steps, such as a text that is read as a number outside the limits, only the ends are told.
        match self.adapted.iter_mut().find(|known| known.field == field) {
            Some(known) => known.to = to,
            None => self.adapted.push(Adaptation { field, from: from.into(), to }),
        }
    }

    /// A field whose meaning the model cannot do: never ignored, since the picture would not be what was asked for.
    pub(super) fn not_taken(&mut self, key: &'j str, model: &str, way_out: &str) {
        self.within(key, |findings| {
            let message = format!("`{model}` does not take {}: {way_out}", findings.here());
            findings.note_with(Code::UnrecognizedKeys, message, |problem| problem.keys = Some(vec![shorten(key)]));
        });
    }

    /// Goes one step down for as long as `work` takes.
    pub(super) fn within<T>(&mut self, key: &'j str, work: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(Step::Key(key));
        let done = work(self);
        self.path.pop();
        done
    }

    /// Goes down to an item for as long as `work` takes.
    pub(super) fn within_item<T>(&mut self, index: usize, work: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(Step::Index(index));
        let done = work(self);
        self.path.pop();
        done
    }

    /// The present place for a message: `` `loras.0.scale` ``.
    pub(super) fn here(&self) -> String {
        if self.path.is_empty() { "the request".to_owned() } else { format!("`{}`", self.dotted(None)) }
    }

    fn dotted(&self, last: Option<&str>) -> String {
        let mut dotted = String::new();
        for step in self.path.iter().copied().chain(last.map(Step::Key)) {
            if !dotted.is_empty() {
                dotted.push('.');
            }
            match step {
                Step::Key(key) => dotted.push_str(&shorten(key)),
                Step::Index(index) => dotted.push_str(&index.to_string()),
            }
        }
        dotted
    }

    fn parts(&self) -> Vec<PathPart> {
        let part = |step: &Step<'_>| match *step {
            Step::Key(key) => PathPart::Key(shorten(key)),
            Step::Index(index) => PathPart::Index(index),
        };
        self.path.iter().map(part).collect()
    }

    /// Notes a problem at the present place.
    pub(super) fn note(&mut self, code: Code, message: impl Into<String>) {
        self.note_with(code, message, |_| {});
    }

    /// Notes a problem at the present place; `add` sets what else applies.
    pub(super) fn note_with(&mut self, code: Code, message: impl Into<String>, add: impl FnOnce(&mut Problem)) {
        if self.problems.len() >= MOST_PROBLEMS {
            self.more_problems += 1;
            return;
        }
        let mut problem = Problem::new(code, self.parts(), message);
        add(&mut problem);
        self.problems.push(problem);
    }

    /// Another type was wanted here.
    pub(super) fn wrong_type(&mut self, expected: &'static str, received: &Json<'_>) {
        self.wrong_type_with(expected, received.type_name(), None);
    }

    /// Another type was wanted here, and perhaps this was meant.
    pub(super) fn wrong_type_with(&mut self, expected: &'static str, received: &str, nearest: Option<JsonValue>) {
        let message = format!("{} must be {}, not {}", self.here(), article(expected), article(received));
        self.note_with(Code::InvalidType, message, |problem| {
            problem.expected = Some(expected);
            problem.received = Some(received.to_owned());
            problem.nearest = nearest;
        });
    }

    /// A field is wanted and not there.
    pub(super) fn missing(&mut self, name: &'j str, expected: &'static str) {
        self.within(name, |findings| {
            let message = format!("{} is required", findings.here());
            findings.note_with(Code::InvalidType, message, |problem| {
                problem.expected = Some(expected);
                problem.received = Some("undefined".to_owned());
            });
        });
    }

    /// Below the least allowed. `counted` is `number`, `string` or `array`.
    pub(super) fn too_small(&mut self, counted: &'static str, minimum: impl Into<Number>, nearest: Option<JsonValue>) {
        let minimum = minimum.into();
        let message = format!("{} must {} at least {minimum}{}", self.here(), verb(counted), noun(counted, &minimum));
        self.note_with(Code::TooSmall, message, |problem| {
            problem.r#type = Some(counted);
            problem.inclusive = Some(true);
            problem.minimum = Some(minimum);
            problem.nearest = nearest;
        });
    }

    /// Above the most allowed. `counted` is `number`, `string` or `array`.
    pub(super) fn too_big(&mut self, counted: &'static str, maximum: impl Into<Number>, nearest: Option<JsonValue>) {
        let maximum = maximum.into();
        let message = format!("{} must {} at most {maximum}{}", self.here(), verb(counted), noun(counted, &maximum));
        self.note_with(Code::TooBig, message, |problem| {
            problem.r#type = Some(counted);
            problem.inclusive = Some(true);
            problem.maximum = Some(maximum);
            problem.nearest = nearest;
        });
    }

    /// Not above a limit that is itself not allowed.
    pub(super) fn not_above(&mut self, limit: Number) {
        let message = format!("{} must be above {limit}", self.here());
        self.note_with(Code::TooSmall, message, |problem| {
            problem.r#type = Some("number");
            problem.inclusive = Some(false);
            problem.minimum = Some(limit);
        });
    }

    /// Not below a limit that is itself not allowed.
    pub(super) fn not_below(&mut self, limit: Number) {
        let message = format!("{} must be below {limit}", self.here());
        self.note_with(Code::TooBig, message, |problem| {
            problem.r#type = Some("number");
            problem.inclusive = Some(false);
            problem.maximum = Some(limit);
        });
    }

    /// Not a multiple of what it must be.
    pub(super) fn not_a_multiple(&mut self, step: impl Into<Number>, nearest: Option<JsonValue>) {
        let step = step.into();
        let message = format!("{} must be a multiple of {step}", self.here());
        self.note_with(Code::NotMultipleOf, message, |problem| {
            problem.multiple_of = Some(step);
            problem.nearest = nearest;
        });
    }

    /// None of the options. `also` says what else is taken, if anything.
    pub(super) fn not_an_option<'o>(
        &mut self,
        received: &str,
        options: impl Iterator<Item = &'o str> + Clone,
        also: &str,
    ) {
        let near = nearest(received, options.clone());
        self.not_an_option_but(received, options, also, near);
    }

    /// As [`Self::not_an_option`]; `near` is the option that is perhaps meant.
    pub(super) fn not_an_option_but<'o>(
        &mut self,
        received: &str,
        options: impl Iterator<Item = &'o str>,
        also: &str,
        near: Option<&str>,
    ) {
        let received = shorten(received);
        let guess = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        let listed: Vec<String> = options.map(str::to_owned).collect();
        let list = listed.iter().map(|option| format!("`{option}`")).collect::<Vec<_>>().join(", ");
        let message = format!("{} must be one of {list}{also}, not `{received}`{guess}", self.here());
        self.note_with(Code::InvalidEnumValue, message, |problem| {
            problem.received = Some(received);
            problem.options = Some(listed);
            problem.nearest = near.map(JsonValue::from);
        });
    }

    /// A field that counts for nothing: ignored and named, or a problem in a strict request.
    pub(super) fn unknown<'o>(&mut self, key: &'j str, known: impl Iterator<Item = &'o str>) {
        if !self.is_strict() {
            self.ignore(key);
            return;
        }
        let near = if self.problems.len() < MOST_NEIGHBOURS { nearest(key, known) } else { None };
        let guess = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        self.within(key, |findings| {
            let message = format!("{} is not a field of this model{guess}", findings.here());
            findings.note_with(Code::UnrecognizedKeys, message, |problem| {
                problem.keys = Some(vec![shorten(key)]);
                problem.nearest = near.map(JsonValue::from);
            });
        });
    }

    /// Names a field that counts for nothing.
    pub(super) fn ignore(&mut self, key: &str) {
        if self.ignored.len() >= MOST_IGNORED {
            self.more_ignored += 1;
        } else {
            self.ignored.push(self.dotted(Some(key)));
        }
    }

    /// Notes every key that is given more than once, at any depth.
    pub(super) fn repeated_keys(&mut self, json: &'j Json<'j>) {
        match json {
            Json::Object(object) => {
                for key in object.repeated_keys() {
                    self.within(key, |findings| {
                        let message = format!("{} is given more than once", findings.here());
                        findings.note(Code::Custom, message);
                    });
                }
                for (key, value) in object.entries().iter().filter(|(_, value)| value.repeats_keys()) {
                    self.within(key, |findings| findings.repeated_keys(value));
                }
            }
            Json::Array(array) => {
                for (index, item) in array.items().iter().enumerate().filter(|(_, item)| item.repeats_keys()) {
                    self.within_item(index, |findings| findings.repeated_keys(item));
                }
            }
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
        }
    }

    /// Whether a problem was noted for this parameter under any of its names, so that it is not called missing as well.
    pub(super) fn found_below(&self, parameter: &Parameter) -> bool {
        self.problems.iter().any(|problem| match problem.path.first() {
            Some(PathPart::Key(key)) => **key == *parameter.name || parameter.accepts.contains(key),
            _ => false,
        })
    }
}

/// A received text, cut where it would be long.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(LONGEST_RECEIVED) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn article(type_name: &str) -> String {
    match type_name {
        "null" => "null".to_owned(),
        name if name.starts_with(['a', 'e', 'i', 'o', 'u']) => format!("an {name}"),
        name => format!("a {name}"),
    }
}

fn verb(counted: &str) -> &'static str {
    if counted == "number" { "be" } else { "have" }
}

fn noun(counted: &str, count: &Number) -> &'static str {
    let one = count.as_u64() == Some(1);
    match (counted, one) {
        ("string", true) => " character",
        ("string", false) => " characters",
        ("array", true) => " item",
        ("array", false) => " items",
        _ => "",
    }
}
