//! The input images of an edit, however they came, under the names of the model's parameters.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::errors::entry;
use crate::catalogue::{Json, Kind, Model, Parameter};

/// Fields of a request, in its order.
pub type Fields<'a> = Vec<(Cow<'a, str>, Json<'a>)>;

/// The images and the mask of an edit, as URLs and data URIs, and what is wrong with them.
#[derive(Default)]
pub struct EditInputs<'a> {
    /// What is edited, in the request's order.
    pub images: Vec<Cow<'a, str>>,
    /// Where it may be changed.
    pub mask: Option<Cow<'a, str>>,
    /// Files under another name, which may be a parameter of the model.
    pub named: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// One entry of `error.data` for each problem.
    pub problems: Vec<Value>,
}

impl<'a> EditInputs<'a> {
    /// Adds everything to the fields, under the names of the model's parameters; the rest is the problems.
    pub fn add_to(self, model: &'a Model, fields: &mut Fields<'a>) -> Vec<Value> {
        let Self { images, mask, named, mut problems } = self;
        let parameters = model.parameters.as_slice();
        if let Some(first) = images.first() {
            match image_parameter(parameters) {
                None => problems.push(entry("image", "this model takes no input images")),
                Some(parameter) if matches!(parameter.kind, Kind::Image) && images.len() > 1 => {
                    problems.push(entry("image", "this model takes one input image"));
                    fields.push(field(parameter, vec![first.clone()]));
                }
                Some(parameter) => fields.push(field(parameter, images)),
            }
        }
        if let Some(mask) = mask {
            match parameters.iter().find(|parameter| is_mask(parameter)) {
                Some(parameter) => fields.push(field(parameter, vec![mask])),
                None => problems.push(entry("mask", "this model takes no mask")),
            }
        }
        add_named(named, parameters, fields, &mut problems);
        problems
    }
}

/// Files under names of their own: parameters of the model, or names that nobody knows.
fn add_named<'a>(
    named: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    parameters: &'a [Parameter],
    fields: &mut Fields<'a>,
    problems: &mut Vec<Value>,
) {
    let mut found: Vec<(&'a Parameter, Vec<Cow<'a, str>>)> = Vec::new();
    for (name, file) in named {
        let answers = |parameter: &&Parameter| {
            takes_images(&parameter.kind)
                && (*parameter.name == *name || parameter.accepts.iter().any(|other| *other == name))
        };
        let Some(parameter) = parameters.iter().find(answers) else {
            problems.push(unknown_file(&name, parameters));
            continue;
        };
        match found.iter_mut().find(|(known, _)| known.name == parameter.name) {
            Some((_, files)) => files.push(file),
            None => found.push((parameter, vec![file])),
        }
    }
    for (parameter, files) in found {
        if files.len() > 1 && matches!(parameter.kind, Kind::Image) {
            problems.push(entry(&parameter.name, "given more than once"));
        }
        fields.push(field(parameter, files));
    }
}

/// A file under a name that means nothing: silence would have the client pay for an image made without it.
fn unknown_file(name: &str, parameters: &[Parameter]) -> Value {
    let own = parameters.iter().filter(|parameter| takes_images(&parameter.kind));
    let own: Vec<String> = own.map(|parameter| format!("`{}`", parameter.name)).collect();
    let own = if own.is_empty() { String::new() } else { format!(", and this model's {}", own.join(", ")) };
    let known = "`image` or `images` (several: repeat it, or add `[]` or `[0]`), `mask`";
    entry(name, &format!("is not a file of this form; allowed: {known}{own}"))
}

fn field<'a>(parameter: &'a Parameter, mut files: Vec<Cow<'a, str>>) -> (Cow<'a, str>, Json<'a>) {
    let value = match parameter.kind {
        Kind::Image => Json::String(files.swap_remove(0)),
        _ => Json::Array(files.into_iter().map(Json::String).collect()),
    };
    (Cow::Borrowed(&*parameter.name), value)
}

/// The model's first parameter of input images that are no mask.
pub fn image_parameter(parameters: &[Parameter]) -> Option<&Parameter> {
    parameters.iter().find(|parameter| !is_mask(parameter) && takes_images(&parameter.kind))
}

fn is_mask(parameter: &Parameter) -> bool {
    parameter.name.contains("mask") && takes_images(&parameter.kind)
}

/// Whether values of this kind are images or lists of them.
pub fn takes_images(kind: &Kind) -> bool {
    match kind {
        Kind::Image => true,
        Kind::List(list) => matches!(*list.items, Kind::Image),
        _ => false,
    }
}

/// An entry of `error.data` about a place within a field.
pub fn entry_at(path: &[Value], message: &str) -> Value {
    json!({"code": "custom", "path": path, "message": message})
}
