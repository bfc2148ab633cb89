//! Decimal numbers with nine places, held as integers: prices per unit, markups, billable units.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One whole in the stored integer: nine decimal places.
pub(super) const SCALE: i64 = 1_000_000_000;

/// A decimal number with nine places, held as an integer of billionths.
///
/// Reads and writes decimal strings such as `0.025`; never goes through a float.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Fixed(i64);

/// Why a text is no [`Fixed`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FixedError {
    /// Not of the form `12` or `12.5`.
    #[error("`{0}` is not a decimal number such as `0.025`")]
    NotDecimal(String),
    /// More than nine decimal places.
    #[error("`{0}` has more than nine decimal places")]
    TooFine(String),
    /// Beyond about nine billion.
    #[error("`{0}` is too large")]
    TooLarge(String),
}

impl Fixed {
    /// Zero.
    pub const ZERO: Self = Self(0);
    /// One.
    pub const ONE: Self = Self(SCALE);

    /// From a count of billionths.
    #[must_use]
    pub const fn from_billionths(billionths: i64) -> Self {
        Self(billionths)
    }

    /// From a whole number; `None` beyond about nine billion.
    #[must_use]
    pub const fn from_whole(whole: i64) -> Option<Self> {
        match whole.checked_mul(SCALE) {
            Some(billionths) => Some(Self(billionths)),
            None => None,
        }
    }

    /// The count of billionths.
    #[must_use]
    pub const fn billionths(self) -> i64 {
        self.0
    }

    /// Sum; `None` when it leaves the range.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// Product, rounded half away from zero to the ninth place; `None` when it leaves the range.
    #[must_use]
    pub fn checked_mul(self, other: Self) -> Option<Self> {
        mul_scaled(self.0, other.0).map(Self)
    }
}

/// `a × b` where both carry nine places, rounded half away from zero.
pub(super) fn mul_scaled(a: i64, b: i64) -> Option<i64> {
    let scale = i128::from(SCALE);
    let product = i128::from(a) * i128::from(b);
    let half = if product < 0 { -scale / 2 } else { scale / 2 };
    i64::try_from((product + half) / scale).ok()
}

/// Writes billionths as a decimal with exactly nine places.
pub(super) fn write_nine_places(value: i64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let sign = if value < 0 { "-" } else { "" };
    let magnitude = value.unsigned_abs();
    let scale = SCALE.unsigned_abs();
    write!(f, "{sign}{}.{:09}", magnitude / scale, magnitude % scale)
}

impl FromStr for Fixed {
    type Err = FixedError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let not_decimal = || FixedError::NotDecimal(text.to_owned());
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty()
            || !all_digits(whole)
            || !all_digits(fraction)
            || (digits.contains('.') && fraction.is_empty())
        {
            return Err(not_decimal());
        }
        if fraction.len() > 9 && fraction.bytes().skip(9).any(|byte| byte != b'0') {
            return Err(FixedError::TooFine(text.to_owned()));
        }
        let mut value: i64 = 0;
        let padded = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
        for digit in whole.bytes().chain(padded) {
            value = value
                .checked_mul(10)
                .and_then(|value| value.checked_add(i64::from(digit - b'0')))
                .ok_or_else(|| FixedError::TooLarge(text.to_owned()))?;
        }
        Ok(Self(if negative { -value } else { value }))
    }
}

impl fmt::Display for Fixed {
    /// The shortest exact decimal: `0.025`, `3`, `-1.5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Nine(i64);
        impl fmt::Display for Nine {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_nine_places(self.0, f)
            }
        }
        let nine = Nine(self.0).to_string();
        f.write_str(nine.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl<'de> Deserialize<'de> for Fixed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Fixed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_and_writes_decimal_strings() {
        assert_eq!("0.025".parse(), Ok(Fixed::from_billionths(25_000_000)));
        assert_eq!("3".parse(), Ok(Fixed::from_billionths(3_000_000_000)));
        assert_eq!("-1.5".parse(), Ok(Fixed::from_billionths(-1_500_000_000)));
        assert_eq!(Fixed::from_billionths(25_000_000).to_string(), "0.025");
        assert_eq!(Fixed::from_billionths(3_000_000_000).to_string(), "3");
        assert_eq!(Fixed::ZERO.to_string(), "0");
    }

    #[test]
    fn refuses_what_is_no_decimal() {
        for text in ["", ".", "1.", ".5", "1e3", "+1", "1,5", "--1", "0x1", "1 "] {
            assert!(text.parse::<Fixed>().is_err(), "`{text}` was taken");
        }
        assert!("0.0000000001".parse::<Fixed>().is_err());
        assert!("0.0000000010".parse::<Fixed>().is_ok());
        assert!("99999999999".parse::<Fixed>().is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in any::<i64>()) {
            prop_assume!(value != i64::MIN);
            let fixed = Fixed::from_billionths(value);
            prop_assert_eq!(fixed.to_string().parse(), Ok(fixed));
        }

        #[test]
        fn a_product_is_within_half_a_billionth(a in 0..1_000_000_000_000_i64, b in 0..1_000_000_000_000_i64) {
            if let Some(product) = Fixed(a).checked_mul(Fixed(b)) {
                let exact = i128::from(a) * i128::from(b);
                let back = i128::from(product.0) * i128::from(SCALE);
                prop_assert!((exact - back).abs() * 2 <= i128::from(SCALE));
            }
        }
    }
}
