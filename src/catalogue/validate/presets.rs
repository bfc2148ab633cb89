//! The values of an operator's alias: read like a client's own, so that they are within every limit.

use super::super::json::parse;
use super::super::model::Model;
use super::super::problem::{Code, PathPart, Problem};
use super::super::shelf::{Catalogue, Strictness};
use super::super::value::Value;
use super::findings::Findings;
use super::{Reading, switches};
use crate::domain::Alias;

/// An alias's values, one place for each parameter of a model.
#[derive(Debug, Default)]
pub struct Presets {
    /// The alias's id.
    pub alias: String,
    /// Whether the alias has the name of one of `OpenAI`'s GPT image models: who asks for it reads their answers.
    pub(super) gpt_image: bool,
    pub(super) defaults: Vec<Option<Value>>,
    pub(super) fixed: Vec<Option<Value>>,
}

impl Presets {
    /// Reads the values of an alias for a model. Problems name `defaults` or `fixed`.
    pub fn read(
        catalogue: Option<&Catalogue>,
        model: &Model,
        alias: &Alias,
    ) -> Result<Self, Vec<(&'static str, Problem)>> {
        let mut problems = Vec::new();
        let mut values = |field: &'static str, text: String| match values(catalogue, model, &text) {
            Ok(values) => values,
            Err(found) => {
                problems.extend(found.into_iter().map(|problem| (field, problem)));
                Vec::new()
            }
        };
        let defaults = values("defaults", serde_json::Value::Object(alias.defaults.clone()).to_string());
        let fixed = values("fixed", serde_json::Value::Object(alias.fixed.clone()).to_string());
        for ((parameter, default), fixed) in model.parameters.iter().zip(&defaults).zip(&fixed) {
            if default.is_some() && fixed.is_some() {
                let message = format!("`{}` has a default and a fixed value; give one of them", parameter.name);
                let path = vec![PathPart::Key(parameter.name.as_ref().to_owned())];
                problems.push(("defaults", Problem::new(Code::Custom, path, message)));
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self { alias: alias.id.clone(), gpt_image: is_gpt_image(catalogue, &alias.id), defaults, fixed })
    }

    /// The same values by the model's own names: defaults, then fixed ones.
    pub(in super::super) fn named<'s>(&'s self, model: &'s Model) -> [Vec<(&'s str, &'s Value)>; 2] {
        [&self.defaults, &self.fixed].map(|values| {
            let named = model.parameters.iter().zip(values);
            named.filter_map(|(parameter, value)| Some((&*parameter.name, value.as_ref()?))).collect()
        })
    }
}

/// Whether this is the name of one of `OpenAI`'s GPT image models, also of one that the catalogue does not have.
fn is_gpt_image(catalogue: Option<&Catalogue>, id: &str) -> bool {
    let known = catalogue.and_then(|catalogue| catalogue.model(id)).is_some_and(|model| model.output.gpt_image);
    let name = id.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    known || name.starts_with("gpt-image-") || name.starts_with("chatgpt-image-")
}

/// The values of an object of parameters. What the model does not know is a problem, as is what belongs to a request and not
/// to the model.
fn values(catalogue: Option<&Catalogue>, model: &Model, text: &str) -> Result<Vec<Option<Value>>, Vec<Problem>> {
    let mut findings = Findings::new(Strictness::Strict);
    let json = parse(text.as_bytes()).map_err(|error| vec![Problem::new(Code::Custom, Vec::new(), error.message)])?;
    let Some(object) = json.as_object() else { return Ok(Vec::new()) };
    for (key, value) in object.distinct() {
        if key == "model" || switches::is_switch(model, key, value) {
            findings.within(key, |findings| {
                let message = format!("{} is no parameter of the model: an alias cannot set it", findings.here());
                findings.note(Code::UnrecognizedKeys, message);
            });
        } else if value.is_empty() {
            findings.within(key, |findings| {
                let message = format!("{} must have a value", findings.here());
                findings.note(Code::Custom, message);
            });
        }
    }
    let mut reading = Reading::new(catalogue, model);
    reading.read(object, &mut findings);
    reading.read_sides(&mut findings);
    reading.read_ratio(&mut findings);
    if findings.has_problems() {
        return Err(findings.into_problems());
    }
    Ok(reading.slots.into_iter().map(|slot| slot.map(|(value, _)| value)).collect())
}

impl<'j> Reading<'j> {
    /// Puts the values of an alias to what the client has given.
    pub(super) fn apply(&mut self, presets: &'j Presets, findings: &mut Findings<'j>) {
        let model = self.model;
        for (place, parameter) in model.parameters.iter().enumerate() {
            let Some(slot) = self.slots.get_mut(place) else { continue };
            let of = |values: &'j [Option<Value>]| values.get(place).and_then(Option::as_ref);
            let is_random = self.random.filter(|(random, _)| *random == place);
            if let Some(fixed) = of(&presets.fixed) {
                let given = slot.as_ref().filter(|(value, _)| !value.same_as(fixed)).map(|(_, key)| *key);
                if let Some(key) = given.or(is_random.map(|(_, key)| key)) {
                    let (alias, name, value) = (&presets.alias, &parameter.name, fixed.to_json());
                    let message = format!("`{alias}` fixes `{name}` to {value}: leave `{key}` out, or send that value");
                    findings.within(key, |findings| findings.note(Code::Custom, message));
                }
                *slot = Some((fixed.clone(), &parameter.name));
            } else if slot.is_none() && is_random.is_none() {
                *slot = of(&presets.defaults).map(|value| (value.clone(), &*parameter.name));
            }
        }
    }
}
