//! Parameters of a model file: each kind with the fields that belong to it.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use toml::{Spanned, Table, Value as Toml};

use super::super::json::{Json, Number};
use super::super::model::Parameter;
use super::super::rules::{
    AspectRatio, AspectRatioRule, ChoiceRule, CustomSize, Kind, ListRule, ObjectRule, Preset, SizeRule, TextPattern,
    TextRule,
};
use super::super::shelf::Strictness;
use super::super::size::Size;
use super::super::validate::{Findings, check};
use super::super::value::Value;
use super::Mistake;
use super::form::{KindName, ParameterForm};
use super::numbers::{self, distinct, integer};
use crate::domain::Fixed;

/// One of `[[parameters]]`, or a field of an object.
pub(super) fn parameter(form: &ParameterForm, span: Range<usize>) -> Result<Parameter, Mistake> {
    let Some(name) = &form.name else { return Err(Mistake::new(span, "a parameter needs a `name`")) };
    let kind = kind(form)?;
    let default = match &form.default {
        Some(default) => Some(
            value(&kind, default.get_ref())
                .map_err(|message| Mistake::new(default.span(), format!("the default is not valid: {message}")))?,
        ),
        None => None,
    };
    if form.required && default.is_some() {
        return Err(Mistake::new(name.span(), "a required parameter has no default"));
    }
    Ok(Parameter {
        name: Arc::from(name.get_ref().as_str()),
        provider_name: form.provider_name.clone().unwrap_or_else(|| name.get_ref().clone()),
        accepts: form.accepts.clone(),
        description: form.description.clone(),
        required: form.required,
        send: form.send,
        role: form.role.as_ref().map(|role| *role.get_ref()),
        kind,
        default,
        no_default_with: form.no_default_with.iter().map(|name| name.get_ref().clone()).collect(),
    })
}

/// A value of the file, checked like one of a request.
pub(super) fn value(kind: &Kind, toml: &Toml) -> Result<Value, String> {
    let json = json(toml)?;
    let mut findings = Findings::new(Strictness::Strict);
    let checked = check(kind, &json, &mut findings);
    checked.ok_or_else(|| {
        let problems = findings.into_problems();
        problems.first().map_or_else(String::new, |problem| problem.message.replace("the request", "it"))
    })
}

fn json(toml: &Toml) -> Result<Json<'_>, String> {
    Ok(match toml {
        Toml::String(text) => Json::String(Cow::Borrowed(text)),
        Toml::Integer(value) => Json::Number(Number::Integer((*value).into())),
        Toml::Float(value) if value.is_finite() => Json::Number(Number::Float(*value)),
        Toml::Boolean(value) => Json::Bool(*value),
        Toml::Array(items) => Json::Array(items.iter().map(json).collect::<Result<_, _>>()?),
        Toml::Table(table) => {
            let entry = |(key, value): (&'_ String, _)| Ok((Cow::Owned(key.clone()), json(value)?));
            Json::Object(table.iter().map(entry).collect::<Result<_, String>>()?)
        }
        Toml::Float(_) | Toml::Datetime(_) => return Err("no JSON value".to_owned()),
    })
}

fn kind(form: &ParameterForm) -> Result<Kind, Mistake> {
    let name = *form.kind.get_ref();
    check_fields(form, name)?;
    Ok(match name {
        KindName::Text => Kind::Text(TextRule {
            min_length: form.min_length.as_ref().map_or(0, |length| *length.get_ref()),
            max_length: *needed(form, form.max_length.as_ref(), "max_length")?.get_ref(),
            format: form.format.as_ref().map(|format| *format.get_ref()),
            pattern: form.pattern.as_ref().map(pattern).transpose()?,
        }),
        KindName::Integer => Kind::Integer(numbers::integer_rule(form)?),
        KindName::Seed => Kind::Seed(numbers::seed_rule(form)?),
        KindName::Number => Kind::Number(numbers::number_rule(form)?),
        KindName::Boolean => Kind::Boolean,
        KindName::Choice => {
            let options = needed(form, form.options.as_ref(), "options")?;
            Kind::Choice(ChoiceRule { options: texts(options)? })
        }
        KindName::Size => Kind::Size(size_rule(form)?),
        KindName::AspectRatio => Kind::AspectRatio(aspect_ratio_rule(form)?),
        KindName::Image => Kind::Image,
        KindName::List => {
            let items = needed(form, form.items.as_ref(), "items")?.get_ref();
            Kind::List(ListRule {
                items: Box::new(kind(items)?),
                min_items: form.min_items.as_ref().map_or(0, |count| *count.get_ref()).max(form.required.into()),
                max_items: *needed(form, form.max_items.as_ref(), "max_items")?.get_ref(),
                accepts_single: form.accepts_single.as_ref().is_some_and(|single| *single.get_ref()),
            })
        }
        KindName::Object => {
            let fields = needed(form, form.fields.as_ref(), "fields")?.get_ref();
            let fields = fields.iter().map(|field| parameter(field.get_ref(), field.span()));
            Kind::Object(ObjectRule { fields: fields.collect::<Result<_, _>>()? })
        }
    })
}

/// A field that means nothing to the kind is a mistake, not a decoration.
fn check_fields(form: &ParameterForm, name: KindName) -> Result<(), Mistake> {
    use KindName::{AspectRatio, Choice, Integer, List, Number, Object, Seed, Size, Text};
    fn span<T>(field: Option<&Spanned<T>>) -> Option<Range<usize>> {
        field.map(Spanned::span)
    }
    let fields = [
        ("min_length", span(form.min_length.as_ref()), &[Text][..]),
        ("max_length", span(form.max_length.as_ref()), &[Text]),
        ("format", span(form.format.as_ref()), &[Text]),
        ("pattern", span(form.pattern.as_ref()), &[Text]),
        ("minimum", span(form.minimum.as_ref()), &[Integer, Seed, Number, Size]),
        ("maximum", span(form.maximum.as_ref()), &[Integer, Seed, Number, Size]),
        ("exclusive_minimum", span(form.exclusive_minimum.as_ref()), &[Number]),
        ("exclusive_maximum", span(form.exclusive_maximum.as_ref()), &[Number]),
        ("multiple_of", span(form.multiple_of.as_ref()), &[Integer, Number, Size]),
        ("options", span(form.options.as_ref()), &[Choice, AspectRatio, Integer, Number]),
        ("presets", span(form.presets.as_ref()), &[Size, AspectRatio]),
        ("missing_side", span(form.missing_side.as_ref()), &[Size]),
        ("minimum_pixels", span(form.minimum_pixels.as_ref()), &[Size]),
        ("maximum_pixels", span(form.maximum_pixels.as_ref()), &[Size]),
        ("items", span(form.items.as_ref()), &[List]),
        ("min_items", span(form.min_items.as_ref()), &[List]),
        ("max_items", span(form.max_items.as_ref()), &[List]),
        ("accepts_single", span(form.accepts_single.as_ref()), &[List]),
        ("fields", span(form.fields.as_ref()), &[Object]),
    ];
    for (field, span, kinds) in fields {
        if let Some(span) = span
            && !kinds.contains(&name)
        {
            return Err(Mistake::new(span, format!("`{field}` does not belong to a parameter of this kind")));
        }
    }
    Ok(())
}

pub(super) fn needed<'f, T>(form: &ParameterForm, field: Option<&'f T>, name: &str) -> Result<&'f T, Mistake> {
    field.ok_or_else(|| Mistake::new(form.kind.span(), format!("a parameter of this kind needs `{name}`")))
}

fn pattern(expression: &Spanned<String>) -> Result<TextPattern, Mistake> {
    TextPattern::new(expression.get_ref()).map_err(|reason| {
        Mistake::new(expression.span(), format!("`{}` is no regular expression: {reason}", expression.get_ref()))
    })
}

fn texts(options: &Spanned<Vec<Toml>>) -> Result<Vec<Arc<str>>, Mistake> {
    distinct(options, |option| option.as_str().map(Arc::from), "a text")
}

fn size_rule(form: &ParameterForm) -> Result<SizeRule, Mistake> {
    let presets = form.presets.as_ref().map(presets).transpose()?.unwrap_or_default();
    let custom = match (&form.minimum, &form.maximum) {
        (None, None) => None,
        (Some(minimum), Some(maximum)) => Some(custom_size(form, minimum, maximum)?),
        _ => return Err(Mistake::new(form.kind.span(), "a size has both `minimum` and `maximum`, or neither")),
    };
    let about_custom = [form.multiple_of.is_some(), form.missing_side.is_some(), form.minimum_pixels.is_some()];
    if custom.is_none() && (presets.is_empty() || about_custom.contains(&true) || form.maximum_pixels.is_some()) {
        return Err(Mistake::new(form.kind.span(), "a size needs `minimum` and `maximum`, or only `presets`"));
    }
    Ok(SizeRule { presets, custom })
}

fn custom_size(form: &ParameterForm, minimum: &Spanned<Toml>, maximum: &Spanned<Toml>) -> Result<CustomSize, Mistake> {
    let side = |value: &Spanned<Toml>| -> Result<u32, Mistake> {
        u32::try_from(integer(value)?)
            .ok()
            .filter(|side| (1..=1_000_000).contains(side))
            .ok_or_else(|| Mistake::new(value.span(), "must be between 1 and 1000000 pixels"))
    };
    let custom = CustomSize {
        minimum: side(minimum)?,
        maximum: side(maximum)?,
        multiple_of: form.multiple_of.as_ref().map(step).transpose()?.unwrap_or(1),
        missing_side: form.missing_side.as_ref().map(size).transpose()?,
        minimum_pixels: form.minimum_pixels.as_ref().map(|pixels| *pixels.get_ref()),
        maximum_pixels: form.maximum_pixels.as_ref().map(|pixels| *pixels.get_ref()),
    };
    if let (Some(least), Some(most)) = (custom.minimum_pixels, &form.maximum_pixels)
        && least > *most.get_ref()
    {
        return Err(Mistake::new(most.span(), format!("must be at least `minimum_pixels`, `{least}`")));
    }
    if custom.multiple_of == 0 || custom.minimum.div_ceil(custom.multiple_of) * custom.multiple_of > custom.maximum {
        return Err(Mistake::new(maximum.span(), "no size is within these limits"));
    }
    Ok(custom)
}

fn step(value: &Spanned<Toml>) -> Result<u32, Mistake> {
    let step = u32::try_from(integer(value)?).ok().filter(|step| *step >= 1);
    step.ok_or_else(|| Mistake::new(value.span(), "must be at least 1"))
}

fn size(text: &Spanned<String>) -> Result<Size, Mistake> {
    text.get_ref().parse().map_err(|error: super::super::size::SizeError| Mistake::new(text.span(), error.to_string()))
}

/// `square_hd = "1024x1024"`, or `auto_2K = "auto"` where the model decides.
fn presets(table: &Spanned<Table>) -> Result<Vec<Preset>, Mistake> {
    let preset = |(name, value): (&String, &Toml)| {
        let size = match value.as_str() {
            Some("auto") => None,
            text => Some(text.and_then(|text| text.parse().ok()).ok_or_else(|| {
                Mistake::new(table.span(), format!("`{name}` must be a size such as `1024x768`, or `auto`"))
            })?),
        };
        Ok(Preset { name: Arc::from(name.as_str()), size })
    };
    table.get_ref().iter().map(preset).collect()
}

fn aspect_ratio_rule(form: &ParameterForm) -> Result<AspectRatioRule, Mistake> {
    let options = needed(form, form.options.as_ref(), "options")?;
    let ratio = |name: Arc<str>| {
        let sides = name.split_once(':').and_then(|(across, down)| {
            // `19.5:9`: counted in hundredths.
            let hundredths = |side: Fixed| u32::try_from(side.billionths() / 10_000_000).ok();
            let side = |digits: &str| digits.parse().ok().and_then(hundredths).filter(|side| *side > 0);
            Some((side(across)?, side(down)?))
        });
        if sides.is_none() && name.contains(':') {
            return Err(Mistake::new(options.span(), format!("`{name}` is not a ratio such as `16:9`")));
        }
        Ok(AspectRatio { name, ratio: sides })
    };
    Ok(AspectRatioRule {
        options: texts(options)?.into_iter().map(ratio).collect::<Result<_, _>>()?,
        presets: form.presets.as_ref().map(presets).transpose()?.unwrap_or_default(),
    })
}
