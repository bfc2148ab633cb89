//! Limits of integers, seeds and numbers, as a model file states them.

use toml::{Spanned, Value as Toml};

use super::super::rules::{IntegerRule, NumberRule, SeedRule};
use super::Mistake;
use super::form::ParameterForm;
use super::kinds::needed;

pub(super) fn integer(value: &Spanned<Toml>) -> Result<i64, Mistake> {
    value.get_ref().as_integer().ok_or_else(|| Mistake::new(value.span(), "must be an integer"))
}

/// Integers are between two limits, or among options.
pub(super) fn integer_rule(form: &ParameterForm) -> Result<IntegerRule, Mistake> {
    let options = match &form.options {
        Some(options) => distinct(options, Toml::as_integer, "an integer")?,
        None => Vec::new(),
    };
    let minimum = match (&form.minimum, options.iter().min()) {
        (None, Some(least)) => *least,
        (minimum, _) => integer(needed(form, minimum.as_ref(), "minimum")?)?,
    };
    let maximum = match (&form.maximum, options.iter().max()) {
        (None, Some(most)) => *most,
        (maximum, _) => integer(needed(form, maximum.as_ref(), "maximum")?)?,
    };
    let multiple_of = form.multiple_of.as_ref().map(integer).transpose()?.unwrap_or(1);
    if let Some(step) = form.multiple_of.as_ref().filter(|_| multiple_of < 1) {
        return Err(Mistake::new(step.span(), "must be at least 1"));
    }
    if let Some(given) = form.maximum.as_ref().filter(|_| minimum > maximum) {
        return Err(Mistake::new(given.span(), format!("must be at least the minimum, `{minimum}`")));
    }
    let fits = |value: i64| value >= minimum && value <= maximum && value % multiple_of == 0;
    if let (Some(given), Some(outside)) = (&form.options, options.iter().find(|option| !fits(**option))) {
        return Err(Mistake::new(given.span(), format!("`{outside}` is not within this parameter's own limits")));
    }
    let none = maximum.div_euclid(multiple_of) * multiple_of < minimum;
    if let Some(step) = form.multiple_of.as_ref().filter(|_| none) {
        return Err(Mistake::new(step.span(), "no integer is within these limits"));
    }
    Ok(IntegerRule { minimum, maximum, multiple_of, options })
}

pub(super) fn number_rule(form: &ParameterForm) -> Result<NumberRule, Mistake> {
    let limit = |value: &Option<Spanned<Toml>>| value.as_ref().map(float).transpose();
    let options = match &form.options {
        Some(options) => distinct(options, as_float, "a number")?,
        None => Vec::new(),
    };
    let multiple_of = limit(&form.multiple_of)?;
    if let Some(step) = form.multiple_of.as_ref().filter(|_| multiple_of.is_some_and(|step| step <= 0.0)) {
        return Err(Mistake::new(step.span(), "must be above 0"));
    }
    Ok(NumberRule {
        minimum: limit(&form.minimum)?,
        maximum: limit(&form.maximum)?,
        exclusive_minimum: limit(&form.exclusive_minimum)?,
        exclusive_maximum: limit(&form.exclusive_maximum)?,
        multiple_of,
        options,
    })
}

/// A seed's maximum is a text where it is beyond TOML's integers; without one it is all of 64 bits.
pub(super) fn seed_rule(form: &ParameterForm) -> Result<SeedRule, Mistake> {
    let read = |value: &Spanned<Toml>| match value.get_ref() {
        Toml::Integer(number) => u64::try_from(*number).map_err(|_| Mistake::new(value.span(), "must not be negative")),
        Toml::String(text) => text.parse().map_err(|_| Mistake::new(value.span(), "must be a whole number of 64 bits")),
        _ => Err(Mistake::new(value.span(), "must be an integer, or a text if it is beyond TOML's integers")),
    };
    let minimum = form.minimum.as_ref().map(read).transpose()?.unwrap_or(0);
    let maximum = form.maximum.as_ref().map(read).transpose()?.unwrap_or(u64::MAX);
    Ok(SeedRule { minimum, maximum })
}

fn float(value: &Spanned<Toml>) -> Result<f64, Mistake> {
    as_float(value.get_ref()).ok_or_else(|| Mistake::new(value.span(), "must be a number"))
}

fn as_float(value: &Toml) -> Option<f64> {
    let number = match value {
        Toml::Float(value) => Some(*value),
        Toml::Integer(value) => i32::try_from(*value).ok().map(f64::from),
        _ => None,
    };
    number.filter(|value| value.is_finite())
}

/// Options of one type, each there once. `wanted` is that type in words.
pub(super) fn distinct<T: PartialEq>(
    options: &Spanned<Vec<Toml>>,
    read: impl Fn(&Toml) -> Option<T>,
    wanted: &str,
) -> Result<Vec<T>, Mistake> {
    let mistake = |message: String| Mistake::new(options.span(), message);
    if options.get_ref().is_empty() {
        return Err(mistake("must not be empty".to_owned()));
    }
    let mut seen = Vec::with_capacity(options.get_ref().len());
    for option in options.get_ref() {
        let told = option.as_str().map_or_else(|| option.to_string(), str::to_owned);
        let value = read(option).ok_or_else(|| mistake(format!("`{told}` is not {wanted}")))?;
        if seen.contains(&value) {
            return Err(mistake(format!("`{told}` is there twice")));
        }
        seen.push(value);
    }
    Ok(seen)
}
