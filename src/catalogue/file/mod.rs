//! Model files: read from TOML, checked, and compiled. A mistake is told with line and column.

mod form;
mod kinds;
mod numbers;
mod prices;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;

use self::form::{ConflictForm, ModelForm, ParameterForm, SeveralForm};
use super::error::CatalogueError;
use super::import::unfilled;
use super::json::parse;
use super::model::{Conflict, Example, Field, Index, Model, Output, Parameter, Role, Several, Status};
use super::price::Condition;
use super::rules::Kind;
use super::shelf::Strictness;
use super::switches::Switch;
use super::validate;

/// A mistake and where in the text it is.
struct Mistake {
    span: Range<usize>,
    message: String,
}

impl Mistake {
    fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into() }
    }
}

/// Reads one model file. `name` is what errors call it.
pub fn check_file(text: &str, name: &str) -> Result<Model, CatalogueError> {
    let read = || -> Result<Model, Mistake> {
        if let Some(place) = unfilled(text) {
            let message = "the document that this file was made from does not settle this: fill it in";
            return Err(Mistake::new(place..place, message));
        }
        let form: ModelForm =
            toml::from_str(text).map_err(|error| Mistake::new(error.span().unwrap_or_default(), error.message()))?;
        model(form)
    };
    read().map_err(|mistake| {
        let (line, column) = place(text, mistake.span.start);
        CatalogueError::File { file: name.to_owned(), line, column, message: mistake.message }
    })
}

/// Line and column, from 1, of a byte.
fn place(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

fn model(form: ModelForm) -> Result<Model, Mistake> {
    for id in std::iter::once(&form.id).chain(&form.aliases) {
        check_id(id)?;
    }
    check_id(&form.endpoint)?;
    let parameters = form
        .parameters
        .iter()
        .map(|form| kinds::parameter(form.get_ref(), form.span()))
        .collect::<Result<Vec<_>, _>>()?;
    let index = index(&form.parameters, &parameters)?;
    check_status(&form)?;
    let several = form.several.as_ref().map(|several| several_of(several.get_ref(), several.span(), &parameters));
    let price = match &form.price {
        Some(price) => Some(prices::price(price.get_ref(), price.span(), &parameters)?),
        None => None,
    };
    let takes_images = parameters.iter().any(|parameter| takes_images(&parameter.kind));
    let model = Model {
        id: form.id.into_inner(),
        aliases: form.aliases.into_iter().map(Spanned::into_inner).collect(),
        name: form.name,
        developer: form.developer,
        description: form.description,
        docs_url: form.docs_url,
        status: form.status.into_inner(),
        replaced_by: form.replaced_by,
        provider: form.provider,
        endpoint: form.endpoint.into_inner(),
        several: several.transpose()?,
        fallbacks: form.fallbacks,
        deadline: form.deadline_seconds.map(|seconds| Duration::from_secs(seconds.into())),
        streams: form.streams,
        takes_images,
        price,
        output: Output {
            fields: form.output.fields,
            image_fields: form.output.image_fields,
            content_types: form.output.content_types,
            gpt_image: form.output.gpt_image,
        },
        conflicts: form
            .conflicts
            .iter()
            .map(|conflict| conflict_of(conflict, &parameters))
            .collect::<Result<_, _>>()?,
        parameters,
        examples: Vec::new(),
        sources: form.sources,
        inferred: form.inferred,
        notes: form.notes,
        index,
    };
    with_examples(model, form.examples)
}

/// A status promises a price, or that there is none.
fn check_status(form: &ModelForm) -> Result<(), Mistake> {
    let mistake = |message: &str| Err(Mistake::new(form.status.span(), message));
    match (form.status.get_ref(), &form.price) {
        (Status::Offered | Status::Deprecated, None) => {
            mistake("a model that is on offer needs a `[price]`; one whose price is not known is `unpriced`")
        }
        (Status::Unpriced, Some(_)) => mistake("an `unpriced` model has no `[price]`"),
        _ => Ok(()),
    }
}

fn several_of(form: &SeveralForm, span: Range<usize>, parameters: &[Parameter]) -> Result<Several, Mistake> {
    check_id(&form.endpoint)?;
    let position = parameters.iter().position(|parameter| *parameter.name == *form.parameter);
    let position =
        position.ok_or_else(|| Mistake::new(span.clone(), format!("there is no parameter `{}`", form.parameter)))?;
    let fits = parameters.get(position).is_some_and(|parameter| match &parameter.kind {
        Kind::List(rule) => rule.accepts_single && rule.min_items >= 1 && rule.max_items > 1,
        _ => false,
    });
    if !fits {
        let message = "this parameter must be a list of one or more items that takes a single one without brackets";
        return Err(Mistake::new(span, message));
    }
    let endpoint = form.endpoint.get_ref().clone();
    Ok(Several { endpoint, provider_name: form.provider_name.clone(), position })
}

fn conflict_of(form: &Spanned<ConflictForm>, parameters: &[Parameter]) -> Result<Conflict, Mistake> {
    let when = prices::conditions(&form.get_ref().when, &form.span(), parameters)?;
    if when.len() < 2 {
        return Err(Mistake::new(form.span(), "a conflict is between two or more parameters"));
    }
    let is_default = |condition: &Condition| {
        let default = parameters.get(condition.position).and_then(|parameter| parameter.default.as_ref());
        default.is_some_and(|default| condition.holds(default))
    };
    if when.iter().all(is_default) {
        return Err(Mistake::new(form.span(), "the parameters' defaults must not be in conflict"));
    }
    Ok(Conflict { when, remedy: form.get_ref().remedy.clone() })
}

/// Ids are paths of letters, digits and `-_.`; nothing that would need escaping in a URL.
fn check_id(id: &Spanned<String>) -> Result<(), Mistake> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
    let text = id.get_ref();
    if text.bytes().all(plain) && text.split('/').all(|part| !part.is_empty()) {
        return Ok(());
    }
    let message = format!("`{text}` is not an id: letters, digits, `-`, `_`, `.`, with `/` between parts");
    Err(Mistake::new(id.span(), message))
}

fn takes_images(kind: &Kind) -> bool {
    match kind {
        Kind::Image => true,
        Kind::List(rule) => takes_images(&rule.items),
        Kind::Object(rule) => rule.fields.iter().any(|field| takes_images(&field.kind)),
        _ => false,
    }
}

/// Where each field of a request goes.
fn index(forms: &[Spanned<ParameterForm>], parameters: &[Parameter]) -> Result<Index, Mistake> {
    let mut index = Index::default();
    index.fields.insert("model".into(), Field::Model);
    for (name, switch) in Switch::ALL {
        index.fields.insert(name.into(), Field::Switch(switch));
    }
    for (place, (parameter, form)) in parameters.iter().zip(forms).enumerate() {
        for name in parameter.names() {
            let earlier = index.fields.insert(name.into(), Field::Parameter(place));
            // A model's own `background` (a colour) is told from ours (yes or no) by its type.
            if earlier.is_some_and(|earlier| earlier != Field::Switch(Switch::Background)) {
                return Err(Mistake::new(form.span(), format!("`{name}` is already taken")));
            }
        }
        match &parameter.kind {
            Kind::Size(_) | Kind::AspectRatio(_) if index.size.replace(place).is_some() => {
                return Err(Mistake::new(form.span(), "a model has one size or aspect ratio"));
            }
            Kind::Image => index.images.push(place),
            Kind::List(rule) if *rule.items == Kind::Image => index.images.push(place),
            _ => {}
        }
        check_role(parameter, place, form, &mut index)?;
        for other in &form.get_ref().no_default_with {
            if !parameters.iter().any(|parameter| *parameter.name == **other.get_ref()) {
                return Err(Mistake::new(other.span(), format!("there is no parameter `{}`", other.get_ref())));
            }
        }
    }
    if index.size.is_some() {
        index.fields.entry("width".into()).or_insert(Field::Width);
        index.fields.entry("height".into()).or_insert(Field::Height);
    }
    Ok(index)
}

fn check_role(
    parameter: &Parameter,
    place: usize,
    form: &Spanned<ParameterForm>,
    index: &mut Index,
) -> Result<(), Mistake> {
    let (earlier, fits, wanted) = match parameter.role {
        None => return Ok(()),
        Some(Role::Prompt) => (index.prompt.replace(place), matches!(parameter.kind, Kind::Text(_)), "a text"),
        Some(role @ (Role::Count | Role::CountEach)) => {
            let fits = matches!(&parameter.kind, Kind::Integer(limits) if limits.minimum >= 1 && limits.maximum <= 100)
                && parameter.default.is_some();
            let slot = if role == Role::Count { &mut index.count } else { &mut index.count_each };
            (slot.replace(place), fits, "an integer between 1 and 100 with a default")
        }
    };
    if earlier.is_some() {
        return Err(Mistake::new(form.span(), "this role is already taken"));
    }
    if fits { Ok(()) } else { Err(Mistake::new(form.span(), format!("a parameter of this role is {wanted}"))) }
}

/// Examples must be valid requests of this model.
fn with_examples(model: Model, forms: Vec<form::ExampleForm>) -> Result<Model, Mistake> {
    let shared = Arc::new(model);
    let mut titles = HashSet::new();
    let mut examples = Vec::with_capacity(forms.len());
    for form in forms {
        let span = form.request.span();
        let request = form.request.into_inner();
        let mistake = |message: String| Mistake::new(span.clone(), format!("example `{}`: {message}", form.title));
        let json = parse(request.as_bytes()).map_err(|error| mistake(error.to_string()))?;
        validate::example(&shared, &json, &Strictness::Strict.into()).map_err(mistake)?;
        if !titles.insert(form.title.clone()) {
            return Err(mistake("another example has this title".to_owned()));
        }
        examples.push(Example { title: form.title.clone(), request });
    }
    let mut model = Arc::unwrap_or_clone(shared);
    model.examples = examples;
    Ok(model)
}
