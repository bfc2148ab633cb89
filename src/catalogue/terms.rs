//! What an order costs: the most it can cost before the call, and what it did cost by what was delivered. The terms are
//! plain numbers, stored with the reservation: what was quoted stands, whatever becomes of the model file or the markup.

use serde::{Deserialize, Serialize};

use super::price::{InputPrice, PriceError, Rate, Rounding, Unit};
use super::size::Size;
use crate::domain::{Fixed, Money};

/// How one order is charged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The model.
    pub model: String,
    /// The provider's endpoint.
    pub endpoint: String,
    /// Selling price = the provider's price × this.
    pub(super) markup: Fixed,
    /// What is counted.
    pub(super) unit: Unit,
    /// The rate of the variant that applies.
    pub(super) rate: Rate,
    /// How an image's megapixels are rounded.
    pub(super) rounding: Rounding,
    /// Pixels in one megapixel.
    pub(super) megapixel: u64,
    /// Megapixels of an image whose size is not known.
    pub(super) unsized_megapixels: Option<Fixed>,
    /// What certain values of the request add to each image.
    pub(super) extra: Money,
    /// What each input image adds to the request.
    pub(super) input_image: Option<InputPrice>,
    /// How many input images there are.
    pub(super) input_images: u32,
    /// The ordered size, if it is known.
    pub(super) size: Option<Size>,
    /// How many images were ordered.
    pub(super) count: u32,
    /// The provider's price of one of its billing units, where one number says it.
    pub(super) unit_cost: Option<Money>,
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

impl Terms {
    /// An equal share of `amount` for each of `count` images: for generations that were reserved before terms were stored.
    #[must_use]
    pub fn from_share(model: &str, endpoint: &str, amount: Money, count: u32) -> Self {
        let count = count.max(1);
        let rate = Rate { amount: Money::from_nanos(amount.nanos() / i64::from(count)), first: None };
        Self {
            model: model.to_owned(),
            endpoint: endpoint.to_owned(),
            markup: Fixed::ONE,
            unit: Unit::Image,
            rate,
            rounding: Rounding::Exact,
            megapixel: 1,
            unsized_megapixels: None,
            extra: Money::ZERO,
            input_image: None,
            input_images: 0,
            size: None,
            count,
            unit_cost: None,
        }
    }

    /// The most this order can cost.
    pub fn quote(&self) -> Result<Quote, PriceError> {
        let mut bill = Bill::new(self);
        for _ in 0..self.count {
            bill.add_image(self.size)?;
        }
        bill.add_input_images(None)?;
        let price = bill.cost.times(self.markup).ok_or(PriceError::TooLarge)?;
        Ok(Quote { price, cost: bill.cost, megapixels: bill.megapixels })
    }

    /// Prices a delivery. `delivered` has one entry for each image; `None` means the ordered size. `units` is what the
    /// provider says it bills, which tells how large input images were. Never more than [`Self::quote`].
    pub fn charge(&self, delivered: &[Option<Size>], units: Option<Fixed>) -> Result<Charge, PriceError> {
        let images = u32::try_from(delivered.len()).map_err(|_| PriceError::TooLarge)?;
        if images == 0 {
            return Ok(Charge { price: Money::ZERO, cost: Money::ZERO, megapixels: Fixed::ZERO, images });
        }
        let quote = self.quote()?;
        let mut bill = Bill::new(self);
        for size in delivered {
            bill.add_image(size.or(self.size))?;
        }
        bill.add_input_images(units)?;
        let price = bill.cost.times(self.markup).ok_or(PriceError::TooLarge)?.min(quote.price);
        Ok(Charge { price, cost: bill.cost, megapixels: bill.megapixels, images })
    }

    /// The provider's price of one of its billing units, where one number says it.
    #[must_use]
    pub const fn unit_cost(&self) -> Option<Money> {
        self.unit_cost
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

fn add(sum: Money, amount: Money) -> Result<Money, PriceError> {
    sum.checked_add(amount).ok_or(PriceError::TooLarge)
}

/// Sums up images.
struct Bill<'a> {
    terms: &'a Terms,
    cost: Money,
    megapixels: Fixed,
}

impl<'a> Bill<'a> {
    const fn new(terms: &'a Terms) -> Self {
        Self { terms, cost: Money::ZERO, megapixels: Fixed::ZERO }
    }

    /// What the input images add, once for the request; called after the images are on the bill. Where they are counted
    /// by megapixels, `units` tells how many: those that the provider bills beyond the output's.
    fn add_input_images(&mut self, units: Option<Fixed>) -> Result<(), PriceError> {
        let Some(input) = self.terms.input_image else { return Ok(()) };
        let images = self.terms.input_images;
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
        let terms = self.terms;
        let megapixels = match size {
            Some(size) => Some(terms.megapixels(size).ok_or(PriceError::TooLarge)?),
            None => terms.unsized_megapixels,
        };
        if let Some(megapixels) = megapixels {
            self.megapixels = self.megapixels.checked_add(megapixels).ok_or(PriceError::TooLarge)?;
        }
        let amount = match terms.unit {
            Unit::Image => terms.rate.amount,
            Unit::Megapixel => terms.rate.of(megapixels.ok_or(PriceError::Unpriced)?)?,
        };
        self.cost = add(add(self.cost, amount)?, terms.extra)?;
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
