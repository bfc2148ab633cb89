//! Money: whole nano-dollars, never a float.

use std::fmt;
use std::iter::Sum;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::fixed::{Fixed, FixedError, mul_scaled, write_nine_places};

/// An amount of US dollars in whole nano-dollars (10⁻⁹ $), up to about nine billion dollars.
///
/// fal reports costs in nano-dollars, and AIML's credit is 500 of them. On the wire it is a decimal string with nine
/// places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Money(i64);

/// Why a text is no amount of money.
pub type MoneyError = FixedError;

/// Nano-dollars in one of AIML's credits: 2,000,000 credits are one dollar.
const NANOS_PER_CREDIT: i64 = 500;

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// From nano-dollars.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// In nano-dollars.
    #[must_use]
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// In AIML's credits (500 nano-dollars each), rounded up, so that a credit balance never promises too much.
    #[must_use]
    pub const fn credits(self) -> i64 {
        let whole = self.0.div_euclid(NANOS_PER_CREDIT);
        if self.0.rem_euclid(NANOS_PER_CREDIT) == 0 { whole } else { whole + 1 }
    }

    /// Sum; `None` when it leaves the range.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// Difference; `None` when it leaves the range.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(difference) => Some(Self(difference)),
            None => None,
        }
    }

    /// This amount times a decimal factor, rounded half away from zero to the nano-dollar; `None` when it leaves the
    /// range.
    #[must_use]
    pub fn times(self, factor: Fixed) -> Option<Self> {
        mul_scaled(self.0, factor.billionths()).map(Self)
    }

    /// For places where only a float will do (OpenAI's SDK types `costs` as a float); a decimal string stands beside it.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "shown only; the exact string stands beside it")]
    pub fn approximate_usd(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_nine_places(self.0, f)
    }
}

impl FromStr for Money {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<Fixed>().map(|fixed| Self(fixed.billionths()))
    }
}

impl Sum for Money {
    /// Saturates: a sum of stored amounts that leaves the range is shown as the range's end, never wrapped.
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        Self(amounts.fold(0, |sum, amount| sum.saturating_add(amount.0)))
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Fixed::deserialize(deserializer).map(|fixed| Self(fixed.billionths()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn money_is_written_with_nine_places() {
        assert_eq!(Money::from_nanos(35_000_000).to_string(), "0.035000000");
        assert_eq!(Money::from_nanos(-1).to_string(), "-0.000000001");
        assert_eq!("0.025".parse(), Ok(Money::from_nanos(25_000_000)));
    }

    #[test]
    fn a_dollar_is_two_million_credits() {
        assert_eq!(Money::from_nanos(1_000_000_000).credits(), 2_000_000);
        assert_eq!(Money::from_nanos(1).credits(), 1);
        assert_eq!(Money::ZERO.credits(), 0);
    }

    #[test]
    fn a_markup_of_one_changes_nothing() {
        let price = Money::from_nanos(35_000_001);
        assert_eq!(price.times(Fixed::ONE), Some(price));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(nanos in any::<i64>()) {
            prop_assume!(nanos != i64::MIN);
            let money = Money::from_nanos(nanos);
            prop_assert_eq!(money.to_string().parse(), Ok(money));
        }

        #[test]
        fn credits_never_promise_less_than_the_amount(nanos in 0..i64::MAX / 2) {
            let credits = Money::from_nanos(nanos).credits();
            prop_assert!(credits * 500 >= nanos && (credits - 1) * 500 < nanos.max(1));
        }
    }
}
