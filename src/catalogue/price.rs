//! A model's price as its file has it.

use std::sync::Arc;

use super::order::Order;
use super::terms::Terms;
use super::value::Value;
use crate::domain::{Fixed, Money};

/// A model's price, as its provider charges it.
#[derive(Debug, Clone, PartialEq)]
pub struct Price {
    /// What is counted.
    pub unit: Unit,
    /// The price where no variant applies.
    pub rate: Rate,
    /// How an image's megapixels are rounded.
    pub rounding: Rounding,
    /// Pixels in one megapixel: 2²⁰ at fal.
    pub megapixel: u64,
    /// Megapixels to hold for an image whose size is not known before the call.
    pub unsized_megapixels: Option<Fixed>,
    /// Other rates for certain values; the first whose conditions all hold is taken.
    pub variants: Vec<Variant>,
    /// What is added per image for certain values; every one whose conditions all hold.
    pub extras: Vec<Extra>,
    /// What each input image adds to the request.
    pub input_image: Option<InputPrice>,
    /// The day the price was looked up, `2026-06-11`.
    pub as_of: String,
    /// Where.
    pub source: String,
}

/// What a price counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Each image, whatever its size.
    Image,
    /// Each image's megapixels.
    Megapixel,
}

/// How megapixels are rounded, for each image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rounding {
    /// Up to whole megapixels.
    Up,
    /// Not at all (up to the ninth decimal place).
    Exact,
}

/// An amount per unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Rate {
    /// For each unit.
    pub amount: Money,
    /// For the first megapixel of an image, where it differs.
    pub first: Option<Money>,
}

/// A rate for certain values.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// All must hold.
    pub when: Vec<Condition>,
    /// The rate then.
    pub rate: Rate,
}

/// An addition per image for certain values.
#[derive(Debug, Clone, PartialEq)]
pub struct Extra {
    /// All must hold.
    pub when: Vec<Condition>,
    /// What is added for each image.
    pub amount: Money,
}

/// Holds if the parameter has one of the values.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// The parameter's name.
    pub parameter: Arc<str>,
    /// Its place in the model file.
    pub(super) position: usize,
    /// The values, wildcards of the file spelled out.
    pub any_of: Vec<Value>,
}

/// What an input image adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct InputPrice {
    /// For each input image, or for each of its megapixels.
    pub amount: Money,
    /// If it is for each megapixel: the most megapixels that one input image counts for. Its size is not known before
    /// the call, so this many are held; what the provider then bills tells how many are charged, at least one.
    pub megapixels: Option<Fixed>,
}

/// Why an amount cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// The model has no price.
    #[error("the model has no price")]
    Unpriced,
    /// Beyond what [`Money`] holds.
    #[error("the amount is too large")]
    TooLarge,
}

impl Price {
    /// How an order of this price is charged at a markup, with everything that the request's values decide resolved.
    pub(super) fn terms(&self, order: &Order, markup: Fixed) -> Result<Terms, PriceError> {
        let variant = self.variants.iter().find(|variant| all_hold(&variant.when, order));
        let rate = variant.map_or(self.rate, |variant| variant.rate);
        let extras = self.extras.iter().filter(|extra| all_hold(&extra.when, order));
        let extra =
            extras.map(|extra| extra.amount).try_fold(Money::ZERO, Money::checked_add).ok_or(PriceError::TooLarge)?;
        let input_images = u32::try_from(order.input_images().count()).map_err(|_| PriceError::TooLarge)?;
        Ok(Terms {
            model: order.model.id.clone(),
            endpoint: order.endpoint().to_owned(),
            markup,
            unit: self.unit,
            rate,
            rounding: self.rounding,
            megapixel: self.megapixel,
            unsized_megapixels: self.unsized_megapixels,
            extra,
            input_image: self.input_image,
            input_images,
            size: order.size(),
            count: order.count(),
            unit_cost: self.unit_cost(rate, extra, input_images),
        })
    }

    /// Whether the same images may cost more or less, as other values of the request say.
    pub(super) fn varies(&self) -> bool {
        !self.variants.is_empty() || !self.extras.is_empty() || self.input_image.is_some() || self.rate.first.is_some()
    }

    /// The provider's price of one billing unit for an order at this rate, if nothing else is added to it.
    fn unit_cost(&self, rate: Rate, extra: Money, input_images: u32) -> Option<Money> {
        // An input image whose megapixels cost what the output's do is only more of the same unit.
        let same_unit = |input: InputPrice| input.megapixels.is_some() && input.amount == rate.amount;
        let inputs = input_images == 0 || self.input_image.is_none_or(same_unit);
        // Under a variant it is not known whether the provider counts dearer units or more of them.
        let plain = rate == self.rate && rate.first.is_none() && extra == Money::ZERO && inputs;
        plain.then_some(rate.amount)
    }
}

fn all_hold(conditions: &[Condition], order: &Order) -> bool {
    let holds = |condition: &Condition| order.at(Some(condition.position)).is_some_and(|value| condition.holds(value));
    conditions.iter().all(holds)
}

impl Condition {
    /// Whether the parameter may have this value.
    #[must_use]
    pub fn holds(&self, value: &Value) -> bool {
        self.any_of.iter().any(|wanted| wanted.same_as(value))
    }
}
