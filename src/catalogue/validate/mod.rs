//! From a wish to an order: every field of a request checked against the model's file, every problem told at once.

mod adapt;
mod findings;
mod nested;
mod presets;
mod scalars;
mod sizes;
mod switches;
mod words;

use std::sync::Arc;

use super::json::{Json, Object};
use super::model::{Conflict, Field, Model, Parameter};
use super::order::{Order, Slot};
use super::price::Condition;
use super::problem::{Code, Problem, Rejection};
use super::rules::Kind;
use super::shelf::{Catalogue, Handling};
use super::switches::{ResponseFormat, Switch, Switches};
use super::value::Value;

pub(super) use findings::Findings;
pub use presets::Presets;
use words::Meaning;

/// The model that a request names.
pub(super) fn model_of<'j>(wish: &'j Json<'_>) -> Result<&'j str, Rejection> {
    let mut findings = Findings::new(super::Strictness::Lenient);
    let Some(object) = wish.as_object() else {
        findings.wrong_type("object", wish);
        return Err(Rejection::Invalid(findings.into_problems()));
    };
    match object.get("model") {
        Some(Json::String(model)) => return Ok(model),
        None | Some(Json::Null) => findings.missing("model", "string"),
        Some(other) => findings.within("model", |findings| findings.wrong_type("string", other)),
    }
    Err(Rejection::Invalid(findings.into_problems()))
}

/// Checks a request against one model, with the values of the alias that it names, if it names one.
pub(super) fn order(
    catalogue: Option<&Catalogue>,
    model: &Arc<Model>,
    wish: &Json<'_>,
    presets: &Presets,
    handling: &Handling,
) -> Result<Order, Vec<Problem>> {
    let mut findings = Findings::new(handling.strictness).adapting(handling.adapt);
    let Some(object) = wish.as_object() else {
        findings.wrong_type("object", wish);
        return Err(findings.into_problems());
    };
    if wish.repeats_keys() {
        findings.repeated_keys(wish);
    }
    let mut reading = Reading { fixed: &presets.fixed, ..Reading::new(catalogue, model) };
    reading.read(object, &mut findings);
    reading.read_sides(&mut findings);
    reading.read_ratio(&mut findings);
    reading.apply(presets, &mut findings);
    let mut usual = if presets.gpt_image { Switches::of_gpt_image() } else { Switches::of_model(model) };
    if handling.embeds {
        usual.response_format = ResponseFormat::B64Json;
    }
    let switches = switches::read(catalogue, &handling.aliases, usual, &reading.switches, &mut findings);
    let slots = reading.finish(&mut findings);
    if findings.has_problems() {
        return Err(findings.into_problems());
    }
    let (ignored, adapted) = findings.into_ignored_and_adapted();
    Ok(Order { requested: model.id.clone(), model: Arc::clone(model), switches, ignored, adapted, slots })
}

/// Checks an example of a model file, which may name only that model and has no fallbacks.
pub(super) fn example(model: &Arc<Model>, json: &Json<'_>, handling: &Handling) -> Result<Order, String> {
    let named = model_of(json).map_err(|rejection| rejection.to_string())?;
    if !std::iter::once(&model.id).chain(&model.aliases).any(|id| id.eq_ignore_ascii_case(named)) {
        return Err(format!("it asks for the model `{named}`"));
    }
    order(None, model, json, &Presets::default(), handling).map_err(|problems| Rejection::Invalid(problems).to_string())
}

/// Checks one value, and gives it typed and normalized. `None` means that a problem was noted.
pub(super) fn check<'j>(kind: &'j Kind, json: &'j Json<'_>, findings: &mut Findings<'j>) -> Option<Value> {
    let read = match kind {
        Kind::Integer(_) | Kind::Seed(_) | Kind::Number(_) => adapt::number_in_text(json, findings),
        _ => None,
    };
    let number = read.as_ref().unwrap_or(json);
    match kind {
        Kind::Text(rule) => scalars::text(rule, json, findings),
        Kind::Integer(rule) => scalars::integer(rule, number, findings),
        Kind::Seed(rule) => scalars::seed(rule, number, findings),
        Kind::Number(rule) => scalars::number(rule, number, findings),
        Kind::Boolean => scalars::boolean(json, findings).map(Value::Boolean),
        Kind::Choice(rule) => scalars::choice(rule, json, findings),
        Kind::Image => scalars::image(json, findings),
        Kind::Size(rule) => sizes::size(rule, json, findings),
        Kind::AspectRatio(rule) => sizes::aspect_ratio(rule, json, findings),
        Kind::List(rule) => nested::list(rule, json, findings),
        Kind::Object(rule) => nested::object(rule, json, findings),
    }
}

/// What has been read of a request so far.
struct Reading<'j> {
    /// Absent where a model file's own examples are checked.
    catalogue: Option<&'j Catalogue>,
    model: &'j Model,
    /// One for each parameter: its value, and the field that gave it.
    slots: Vec<Option<(Value, &'j str)>>,
    /// `width` and `height` beside each other.
    width: Option<&'j Json<'j>>,
    height: Option<&'j Json<'j>>,
    /// An aspect ratio for a model that takes sizes.
    ratio: Option<(&'j str, &'j Json<'j>)>,
    /// The request, once it is read.
    object: Option<&'j Object<'j>>,
    /// A parameter that is to be random, and the field that says so.
    random: Option<(usize, &'j str)>,
    /// The values of an alias that the client cannot change.
    fixed: &'j [Option<Value>],
    switches: Vec<(Switch, &'j str, &'j Json<'j>)>,
}

impl<'j> Reading<'j> {
    fn new(catalogue: Option<&'j Catalogue>, model: &'j Model) -> Self {
        Self {
            catalogue,
            model,
            slots: vec![None; model.parameters.len()],
            width: None,
            height: None,
            ratio: None,
            object: None,
            random: None,
            fixed: &[],
            switches: Vec::new(),
        }
    }

    /// Sorts every field to where it belongs; parameters are checked at once.
    fn read(&mut self, object: &'j Object<'j>, findings: &mut Findings<'j>) {
        self.object = Some(object);
        for (key, json) in object.distinct() {
            let field = switches::redirect(key, json).or_else(|| self.model.index.fields.get(key).copied());
            match field {
                None => self.read_foreign(key, json, findings),
                Some(Field::Model) => {}
                // An empty list says that there are to be none, also not the model's own.
                Some(Field::Switch(Switch::Fallbacks)) if matches!(json, Json::Array(_)) => {
                    self.switches.push((Switch::Fallbacks, key, json));
                }
                Some(Field::Parameter(place)) => self.read_parameter(place, key, json, findings),
                Some(_) if json.is_empty() => {}
                Some(Field::Width) => self.width = Some(json),
                Some(Field::Height) => self.height = Some(json),
                Some(Field::Switch(switch)) if switches::is_colour(switch, json) => {
                    self.read_foreign(key, json, findings);
                }
                Some(Field::Switch(switch)) => self.switches.push((switch, key, json)),
            }
        }
    }

    fn read_parameter(&mut self, place: usize, key: &'j str, json: &'j Json<'j>, findings: &mut Findings<'j>) {
        let Some(parameter) = self.model.parameters.get(place) else { return };
        if leaves_default(parameter, key, json) {
            // The limits of a required one say better what is missing, if no other field gives it.
            if parameter.required && json.is_empty() && *json != Json::Null && !self.is_given(parameter) {
                self.read_value(place, key, json, findings);
            }
            return;
        }
        self.read_value(place, key, json, findings);
    }

    /// Whether a field gives a parameter under its name or another one.
    fn is_given(&self, parameter: &Parameter) -> bool {
        let gives = |name: &str| self.object.and_then(|object| object.get(name)).is_some_and(|json| !json.is_empty());
        parameter.names().any(gives)
    }

    fn read_value(&mut self, place: usize, key: &'j str, json: &'j Json<'j>, findings: &mut Findings<'j>) {
        let Some(parameter) = self.model.parameters.get(place) else { return };
        if findings.within(key, |findings| adapt::is_random_seed(Some(parameter), &parameter.name, json, findings)) {
            self.random = Some((place, key));
            return;
        }
        if let (Kind::Choice(rule), Some(text)) = (&parameter.kind, json.as_str())
            && let Some((what, near)) = adapt::nearest_option(parameter, text)
        {
            if findings.adapts(what) {
                findings.within(key, |findings| findings.adapt(text, near.as_ref()));
                self.fill(place, key, Value::Choice(Arc::clone(near)), findings);
            } else {
                let options = rule.options.iter().map(AsRef::as_ref);
                findings.within(key, |findings| findings.not_an_option_but(text, options, "", Some(near)));
            }
            return;
        }
        if !findings.is_strict() && is_openai_word(key, &parameter.kind, json) {
            findings.ignore(key);
            return;
        }
        let value = findings.within(key, |findings| {
            let value = check(&parameter.kind, json, findings)?;
            let is_blank = matches!(&value, Value::Text(text) if text.chars().all(scalars::shows_nothing));
            if is_blank && parameter.is_never_blank() {
                findings.note(Code::InvalidString, format!("{} must not be blank", findings.here()));
                return None;
            }
            Some(value)
        });
        if let Some(value) = value {
            self.fill(place, key, value, findings);
        }
    }

    /// A field that the model does not have under this name: read as the parameter that means the same, refused where the
    /// model cannot do what it asks for, and else ignored and named.
    fn read_foreign(&mut self, key: &'j str, json: &'j Json<'j>, findings: &mut Findings<'j>) {
        let name = words::snake_case(key);
        if let Some(Field::Parameter(place)) = self.model.index.fields.get(name.as_str()) {
            self.read_parameter(*place, key, json, findings);
            return;
        }
        let meaning = words::meaning_of(&name);
        if meaning.is_none() && !words::is_known(self.catalogue, &name) {
            findings.unknown(key, self.model.index.fields.keys().map(AsRef::as_ref));
            return;
        }
        if json.is_empty() || json.as_str() == Some("auto") {
            return;
        }
        let place = meaning.and_then(|meaning| words::parameter_meaning(self.model, meaning));
        let kind = place.and_then(|place| self.model.parameters.get(place)).map(|parameter| &parameter.kind);
        match (meaning, place, kind) {
            (Some(Meaning::AspectRatio), _, Some(Kind::Size(_))) => self.ratio = Some((key, json)),
            (Some(Meaning::Images), Some(place), Some(kind)) => {
                if let Some(value) = findings.within(key, |findings| nested::images(kind, json, findings)) {
                    self.fill(place, key, value, findings);
                }
            }
            (_, Some(place), _) => self.read_parameter(place, key, json, findings),
            (Some(Meaning::Seed), None, _)
                if findings.within(key, |findings| adapt::is_random_seed(None, &name, json, findings)) => {}
            _ if words::changes_nothing(self.model, self.catalogue, &name, meaning, json) => {
                findings.unknown(key, std::iter::empty());
            }
            (Some(Meaning::OutputFormat), None, _) if self.is_made_anyway(key, json, findings) => {}
            _ => words::refuse(self.model, self.catalogue, key, &name, meaning, findings),
        }
    }

    fn is_made_anyway(&self, key: &'j str, json: &Json<'_>, findings: &mut Findings<'j>) -> bool {
        let Some(format) = json.as_str() else { return false };
        findings.within(key, |findings| adapt::is_made_anyway(self.model, format, findings))
    }

    /// An aspect ratio is a size of exactly that ratio; it may stand beside a size that has it.
    fn read_ratio(&mut self, findings: &mut Findings<'j>) {
        let (Some((key, json)), Some(place)) = (self.ratio, self.model.index.size) else { return };
        let Some(parameter) = self.model.parameters.get(place) else { return };
        let Kind::Size(rule) = &parameter.kind else { return };
        let size_of = |value: Option<&Value>| match value {
            Some(Value::Size(size)) => size.size,
            _ => None,
        };
        let fixed = self.fixed.get(place).and_then(Option::as_ref);
        let given = size_of(self.slots.get(place).and_then(Option::as_ref).map(|(value, _)| value).or(fixed));
        let usual = size_of(parameter.default.as_ref());
        let value = findings.within(key, |findings| sizes::size_of_ratio(rule, json, given, usual, findings));
        if let Some(value) = value {
            self.fill(place, key, value, findings);
        }
    }

    /// Two fields may give the same parameter only if they say the same.
    fn fill(&mut self, place: usize, key: &'j str, value: Value, findings: &mut Findings<'j>) {
        match self.slots.get_mut(place) {
            Some(Some((first, by))) if !first.same_as(&value) => {
                let message = format!("`{key}` and `{by}` are the same parameter but differ; give one of them");
                findings.within(key, |findings| findings.note(Code::Custom, message));
            }
            Some(slot @ None) => *slot = Some((value, key)),
            Some(Some(_)) | None => {}
        }
    }

    /// `width` and `height` beside each other are a size like any other.
    fn read_sides(&mut self, findings: &mut Findings<'j>) {
        if self.width.is_none() && self.height.is_none() {
            return;
        }
        let Some(place) = self.model.index.size else { return };
        let Some(parameter) = self.model.parameters.get(place) else { return };
        let value = sizes::sides(&parameter.kind, self.width, self.height, findings);
        if let Some(value) = value {
            let key = if self.width.is_some() { "width" } else { "height" };
            self.fill(place, key, value, findings);
        }
    }

    /// Defaults for what was not given, problems for what should have been.
    fn finish(self, findings: &mut Findings<'j>) -> Vec<Option<Slot>> {
        let given: Vec<bool> = self.slots.iter().map(Option::is_some).collect();
        let keys: Vec<Option<&'j str>> = self.slots.iter().map(|slot| slot.as_ref().map(|(_, key)| *key)).collect();
        let model = self.model;
        let slots: Vec<Option<Slot>> = model
            .parameters
            .iter()
            .zip(self.slots)
            .map(|(parameter, slot)| {
                if let Some((value, _)) = slot {
                    return Some(Slot { value, given: true });
                }
                if parameter.required && !findings.found_below(parameter) {
                    findings.missing(&parameter.name, type_name(&parameter.kind));
                }
                Self::default(model, parameter, &given).map(|value| Slot { value, given: false })
            })
            .collect();
        for conflict in &model.conflicts {
            note_conflict(conflict, &slots, &keys, findings);
        }
        slots
    }

    fn default(model: &Model, parameter: &Parameter, given: &[bool]) -> Option<Value> {
        let taken_away = !parameter.no_default_with.is_empty()
            && model
                .parameters
                .iter()
                .zip(given)
                .any(|(other, given)| *given && parameter.no_default_with.iter().any(|name| **name == *other.name));
        if taken_away { None } else { parameter.default.clone() }
    }
}

/// Notes values that cannot stand together at the last of them that was given.
fn note_conflict<'j>(
    conflict: &Conflict,
    slots: &[Option<Slot>],
    keys: &[Option<&'j str>],
    findings: &mut Findings<'j>,
) {
    let value_of = |condition: &Condition| slots.get(condition.position)?.as_ref().map(|slot| &slot.value);
    if !conflict.when.iter().all(|condition| value_of(condition).is_some_and(|value| condition.holds(value))) {
        return;
    }
    let key_of = |condition: &Condition| keys.get(condition.position).copied().flatten();
    let Some((last, key)) = conflict.when.iter().rev().find_map(|last| Some((last, key_of(last)?))) else { return };
    let shown = |condition: &Condition| match value_of(condition).map(Value::to_json) {
        Some(serde_json::Value::String(text)) => format!("`{text}`"),
        other => format!("`{}`", other.unwrap_or_default()),
    };
    let others = conflict.when.iter().filter(|other| other.position != last.position);
    let others: Vec<String> = others.map(|other| format!("`{}` {}", other.parameter, shown(other))).collect();
    findings.within(key, |findings| {
        let (here, with) = (findings.here(), others.join(" and "));
        let message = format!("{here} cannot be {} together with {with}: {}", shown(last), conflict.remedy);
        findings.note(Code::Custom, message);
    });
}

/// Whether the model has a choice of this name but not this value of `OpenAI`'s. A model's quality decides its price, so that
/// a word for one that it does not have is refused.
fn is_openai_word(key: &str, kind: &Kind, json: &Json<'_>) -> bool {
    key != "quality" && words::is_openai_word(key, json) && !is_option(kind, json)
}

fn is_option(kind: &Kind, json: &Json<'_>) -> bool {
    match kind {
        Kind::Choice(rule) => rule.options.iter().any(|option| json.as_str() == Some(option)),
        _ => true,
    }
}

/// Whether a field leaves its parameter to the default: it is empty, or `auto` where that is no value of its own, or a size
/// without a side.
fn leaves_default(parameter: &Parameter, key: &str, json: &Json<'_>) -> bool {
    let is_auto =
        matches!(key, "quality" | "background") && json.as_str() == Some("auto") && !is_option(&parameter.kind, json);
    json.is_empty() || is_auto || sizes::is_auto(&parameter.kind, json) || sizes::names_no_side(&parameter.kind, json)
}

/// What a kind is called in JSON's words.
pub(super) fn type_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Text(_) | Kind::Choice(_) | Kind::Image | Kind::AspectRatio(_) => "string",
        Kind::Integer(_) | Kind::Seed(_) => "integer",
        Kind::Number(_) => "number",
        Kind::Boolean => "boolean",
        Kind::List(_) => "array",
        Kind::Size(_) | Kind::Object(_) => "object",
    }
}
