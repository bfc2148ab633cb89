//! What an order costs: the most it can cost before the call, and what it did cost by what was delivered.

use std::sync::Arc;

use super::order::Order;
use super::size::Size;
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputPrice {
    /// For each input image, or for each of its megapixels.
    pub amount: Money,
    /// If it is for each megapixel: the most megapixels that one input image counts for. Its size is not known before
    /// the call, so this many are held; what the provider then bills tells how many are charged, at least one.
    pub megapixels: Option<Fixed>,
}

/// The most an order can cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote {
    /// What the project pays at most: cost × markup.
    pub price: Money,
    /// What the provider charges at most, by the catalogue.
    pub cost: Money,
    /// Megapixels of all images, rounded as they are charged; zero where no size is known.
    pub megapixels: Fixed,
}

/// What was delivered costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// What the project pays; never more than was quoted.
    pub price: Money,
    /// What the provider charges for it, by the catalogue.
    pub cost: Money,
    /// Megapixels of the delivered images, rounded as they are charged; zero where no size is known.
    pub megapixels: Fixed,
    /// Images delivered.
    pub images: u32,
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
    pub(super) fn quote(&self, order: &Order, markup: Fixed) -> Result<Quote, PriceError> {
        let mut bill = self.open_bill(order);
        bill.add_extras(order)?;
        for _ in 0..order.count() {
            bill.add_image(order.size())?;
        }
        bill.add_input_images(order, None)?;
        let price = bill.cost.times(markup).ok_or(PriceError::TooLarge)?;
        Ok(Quote { price, cost: bill.cost, megapixels: bill.megapixels })
    }

    pub(super) fn charge(
        &self,
        order: &Order,
        delivered: &[Option<Size>],
        units: Option<Fixed>,
        markup: Fixed,
    ) -> Result<Charge, PriceError> {
        let images = u32::try_from(delivered.len()).map_err(|_| PriceError::TooLarge)?;
        if images == 0 {
            return Ok(Charge { price: Money::ZERO, cost: Money::ZERO, megapixels: Fixed::ZERO, images });
        }
        let quote = self.quote(order, markup)?;
        let mut bill = self.open_bill(order);
        bill.add_extras(order)?;
        for size in delivered {
            bill.add_image(size.or_else(|| order.size()))?;
        }
        bill.add_input_images(order, units)?;
        let price = bill.cost.times(markup).ok_or(PriceError::TooLarge)?.min(quote.price);
        Ok(Charge { price, cost: bill.cost, megapixels: bill.megapixels, images })
    }

    /// Whether the same images may cost more or less, as other values of the request say.
    pub(super) fn varies(&self) -> bool {
        !self.variants.is_empty() || !self.extras.is_empty() || self.input_image.is_some() || self.rate.first.is_some()
    }

    /// The provider's price of one billing unit for this order, if nothing else is added to it.
    pub(super) fn unit_cost(&self, order: &Order) -> Option<Money> {
        let mut bill = self.open_bill(order);
        bill.add_extras(order).ok()?;
        // An input image whose megapixels cost what the output's do is only more of the same unit.
        let same_unit = |input: &InputPrice| input.megapixels.is_some() && input.amount == bill.rate.amount;
        let inputs = self.input_image.as_ref().is_none_or(same_unit) || order.input_images().next().is_none();
        // Under a variant it is not known whether the provider counts dearer units or more of them.
        let plain = bill.rate == self.rate && bill.rate.first.is_none() && bill.extra == Money::ZERO && inputs;
        plain.then_some(bill.rate.amount)
    }

    /// A bill at the rate that this order has.
    fn open_bill(&self, order: &Order) -> Bill<'_> {
        let rate = self
            .variants
            .iter()
            .find(|variant| all_hold(&variant.when, order))
            .map_or(self.rate, |variant| variant.rate);
        Bill { price: self, rate, extra: Money::ZERO, cost: Money::ZERO, megapixels: Fixed::ZERO }
    }

    /// The megapixels that an image of this size is charged for.
    fn megapixels(&self, size: Size) -> Option<Fixed> {
        let pixels = u128::from(size.pixels());
        let megapixel = u128::from(self.megapixel.max(1));
        let billionths = match self.rounding {
            Rounding::Up => pixels.div_ceil(megapixel) * BILLION,
            Rounding::Exact => (pixels * BILLION).div_ceil(megapixel),
        };
        i64::try_from(billionths).ok().map(Fixed::from_billionths)
    }
}

const BILLION: u128 = 1_000_000_000;

fn all_hold(conditions: &[Condition], order: &Order) -> bool {
    conditions.iter().all(|condition| {
        order
            .at(Some(condition.position))
            .is_some_and(|value| condition.any_of.iter().any(|wanted| wanted.same_as(value)))
    })
}

fn add(sum: Money, amount: Money) -> Result<Money, PriceError> {
    sum.checked_add(amount).ok_or(PriceError::TooLarge)
}

/// Sums up images.
struct Bill<'a> {
    price: &'a Price,
    rate: Rate,
    extra: Money,
    cost: Money,
    megapixels: Fixed,
}

impl Bill<'_> {
    /// What certain values add to each image.
    fn add_extras(&mut self, order: &Order) -> Result<(), PriceError> {
        for addition in self.price.extras.iter().filter(|extra| all_hold(&extra.when, order)) {
            self.extra = add(self.extra, addition.amount)?;
        }
        Ok(())
    }

    /// What the input images add, once for the request; called after the images are on the bill. Where they are counted
    /// by megapixels, `units` tells how many: those that the provider bills beyond the output's.
    fn add_input_images(&mut self, order: &Order, units: Option<Fixed>) -> Result<(), PriceError> {
        let Some(input) = self.price.input_image else { return Ok(()) };
        let images = u32::try_from(order.input_images().count()).map_err(|_| PriceError::TooLarge)?;
        let count = Fixed::from_whole(images.into()).ok_or(PriceError::TooLarge)?;
        let counted = match input.megapixels {
            None => count,
            Some(most) => {
                let most = i128::from(most.billionths()) * i128::from(images);
                let most = i64::try_from(most).map_err(|_| PriceError::TooLarge)?;
                let billed =
                    units.map_or(most, |units| units.billionths().saturating_sub(self.megapixels.billionths()));
                Fixed::from_billionths(billed.max(count.billionths()).min(most))
            }
        };
        self.cost = add(self.cost, input.amount.times(counted).ok_or(PriceError::TooLarge)?)?;
        Ok(())
    }

    fn add_image(&mut self, size: Option<Size>) -> Result<(), PriceError> {
        let megapixels = match size {
            Some(size) => Some(self.price.megapixels(size).ok_or(PriceError::TooLarge)?),
            None => self.price.unsized_megapixels,
        };
        if let Some(megapixels) = megapixels {
            self.megapixels = self.megapixels.checked_add(megapixels).ok_or(PriceError::TooLarge)?;
        }
        let amount = match self.price.unit {
            Unit::Image => self.rate.amount,
            Unit::Megapixel => self.rate.of(megapixels.ok_or(PriceError::Unpriced)?)?,
        };
        self.cost = add(add(self.cost, amount)?, self.extra)?;
        Ok(())
    }
}

impl Rate {
    fn of(self, megapixels: Fixed) -> Result<Money, PriceError> {
        let (first, rest) = match self.first {
            Some(first) => {
                let rest = (megapixels.billionths() - Fixed::ONE.billionths()).max(0);
                (first, Fixed::from_billionths(rest))
            }
            None => (Money::ZERO, megapixels),
        };
        add(first, self.amount.times(rest).ok_or(PriceError::TooLarge)?)
    }
}
