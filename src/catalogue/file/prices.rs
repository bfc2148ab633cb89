//! The price of a model file.

use std::ops::Range;
use std::sync::Arc;

use toml::{Spanned, Table, Value as Toml};

use super::super::model::Parameter;
use super::super::price::{Condition, Extra, InputPrice, Price, Rate, Rounding, Unit, Variant};
use super::super::rules::Kind;
use super::super::value::Value;
use super::Mistake;
use super::form::PriceForm;
use super::kinds::value;
use crate::domain::Money;

/// Pixels in fal's megapixel.
const MEGAPIXEL: u64 = 1 << 20;

pub(super) fn price(form: &PriceForm, span: Range<usize>, parameters: &[Parameter]) -> Result<Price, Mistake> {
    let rounding = match (form.per, form.rounding) {
        (Unit::Megapixel, None) => return Err(Mistake::new(span, "a price per megapixel needs `rounding`")),
        (Unit::Image, rounding) => rounding.unwrap_or(Rounding::Exact),
        (Unit::Megapixel, Some(rounding)) => rounding,
    };
    if form.per == Unit::Image && form.first_amount.is_some() {
        return Err(Mistake::new(span, "`first_amount` is for prices per megapixel"));
    }
    if form.per == Unit::Megapixel && form.unsized_megapixels.is_none() && may_lack_size(parameters) {
        let message = "an image's size may be unknown before the call: `unsized_megapixels` must say how much to hold";
        return Err(Mistake::new(span, message));
    }
    check_day(&form.as_of)?;
    let variants = form.variants.iter().map(|variant| {
        let span = variant.span();
        let variant = variant.get_ref();
        Ok(Variant {
            when: conditions(&variant.when, &span, parameters)?,
            rate: rate(&variant.amount, variant.first_amount.as_ref())?,
        })
    });
    let extras = form.extras.iter().map(|extra| {
        let when = conditions(&extra.get_ref().when, &extra.span(), parameters)?;
        Ok(Extra { when, amount: positive(&extra.get_ref().amount)? })
    });
    Ok(Price {
        unit: form.per,
        rate: rate(&form.amount, form.first_amount.as_ref())?,
        rounding,
        megapixel: form.megapixel.unwrap_or(MEGAPIXEL).max(1),
        unsized_megapixels: form.unsized_megapixels,
        variants: variants.collect::<Result<_, _>>()?,
        extras: extras.collect::<Result<_, _>>()?,
        input_image: input_image(form)?,
        as_of: form.as_of.get_ref().clone(),
        source: form.source.clone(),
    })
}

fn rate(amount: &Spanned<Money>, first: Option<&Spanned<Money>>) -> Result<Rate, Mistake> {
    Ok(Rate { amount: positive(amount)?, first: first.map(positive).transpose()? })
}

fn input_image(form: &PriceForm) -> Result<Option<InputPrice>, Mistake> {
    match (&form.input_image, &form.input_image_megapixels) {
        (Some(amount), megapixels) => {
            let megapixels = megapixels.as_ref().map(|most| *most.get_ref());
            Ok(Some(InputPrice { amount: positive(amount)?, megapixels }))
        }
        (None, Some(most)) => Err(Mistake::new(most.span(), "this is for an `input_image` price per megapixel")),
        (None, None) => Ok(None),
    }
}

fn positive(amount: &Spanned<Money>) -> Result<Money, Mistake> {
    if *amount.get_ref() < Money::ZERO {
        return Err(Mistake::new(amount.span(), "must not be negative"));
    }
    Ok(*amount.get_ref())
}

/// `2026-06-11`
fn check_day(day: &Spanned<String>) -> Result<(), Mistake> {
    let parsed = chrono::NaiveDate::parse_from_str(day.get_ref(), "%Y-%m-%d");
    match parsed {
        Ok(_) => Ok(()),
        Err(_) => Err(Mistake::new(day.span(), "must be a day such as `2026-06-11`")),
    }
}

/// Whether a valid request may leave the pixels of its images to the model.
fn may_lack_size(parameters: &[Parameter]) -> bool {
    let size = parameters.iter().find_map(|parameter| match &parameter.kind {
        Kind::Size(rule) => Some((parameter, rule)),
        _ => None,
    });
    size.is_none_or(|(parameter, rule)| {
        rule.presets.iter().any(|preset| preset.size.is_none())
            || parameter.default.is_none() && !parameter.required
            || !parameter.no_default_with.is_empty()
    })
}

/// `{ style = ["vector_illustration", "icon/*"] }`
pub(super) fn conditions(
    when: &Table,
    span: &Range<usize>,
    parameters: &[Parameter],
) -> Result<Vec<Condition>, Mistake> {
    let mistake = |message: String| Mistake::new(span.clone(), message);
    if when.is_empty() {
        return Err(mistake("`when` must name a parameter".to_owned()));
    }
    let condition = |(name, wanted): (&String, &Toml)| {
        let (position, parameter) = parameters
            .iter()
            .enumerate()
            .find(|(_, parameter)| *parameter.name == **name)
            .ok_or_else(|| mistake(format!("there is no parameter `{name}`")))?;
        let wanted = match wanted {
            Toml::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        let mut any_of = Vec::new();
        for wanted in wanted {
            any_of.extend(values(parameter, wanted).map_err(&mistake)?);
        }
        if any_of.is_empty() {
            return Err(mistake(format!("`{name}` needs at least one value")));
        }
        Ok(Condition { parameter: Arc::clone(&parameter.name), position, any_of })
    };
    when.iter().map(condition).collect()
}

/// One value, or every option that begins as the text before `*` does.
fn values(parameter: &Parameter, wanted: &Toml) -> Result<Vec<Value>, String> {
    if let (Kind::Choice(rule), Some(prefix)) =
        (&parameter.kind, wanted.as_str().and_then(|text| text.strip_suffix('*')))
    {
        let options = rule.options.iter().filter(|option| option.starts_with(prefix));
        let values: Vec<_> = options.map(|option| Value::Choice(Arc::clone(option))).collect();
        return if values.is_empty() { Err(format!("no option begins with `{prefix}`")) } else { Ok(values) };
    }
    value(&parameter.kind, wanted).map(|value| vec![value])
}
