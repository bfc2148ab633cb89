//! Whole numbers of bodies. Some clients write `25.0` for `25`; both are the same number.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// The magnitude from which on a float may stand for another whole number than the one that was written.
const END_OF_EXACT: f64 = 9_007_199_254_740_992.0;

/// A whole number, however it is written: `#[serde(deserialize_with = "Whole::required")]`.
pub struct Whole<T>(T);

impl<'de, T: Deserialize<'de> + TryFrom<i128>> Whole<T> {
    /// A number that must be there.
    pub fn required<D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        Self::deserialize(deserializer).map(|whole| whole.0)
    }

    /// A number that may be absent (with `default`) or null.
    pub fn optional<D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
        Option::<Self>::deserialize(deserializer).map(|whole| whole.map(|whole| whole.0))
    }

    /// Tells "null" (lift it) from "absent" (leave it).
    pub fn given<D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
        Self::optional(deserializer).map(Some)
    }
}

impl<'de, T: TryFrom<i128>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader(PhantomData))
    }
}

struct Reader<T>(PhantomData<T>);

impl<T: TryFrom<i128>> Visitor<'_> for Reader<T> {
    type Value = Whole<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In the words that bodies are refused with.
        let least = if T::try_from(-1).is_ok() { "i64" } else { "u64" };
        f.write_str(least)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        T::try_from(number.into()).map(Whole).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        T::try_from(number.into()).map(Whole).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
    }

    #[expect(clippy::cast_possible_truncation, reason = "it is whole and within what a float tells exactly")]
    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        let whole = number.fract() == 0.0 && number.abs() < END_OF_EXACT;
        let whole = whole.then(|| T::try_from(number as i128).ok()).flatten();
        whole.map(Whole).ok_or_else(|| E::invalid_type(Unexpected::Float(number), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Numbers {
        #[serde(deserialize_with = "Whole::required")]
        one: i64,
        #[serde(default, deserialize_with = "Whole::optional")]
        two: Option<u32>,
        #[serde(default, deserialize_with = "Whole::given")]
        #[expect(clippy::option_option, reason = "absent and null are told apart")]
        three: Option<Option<u64>>,
    }

    fn read(text: &str) -> Result<Numbers, String> {
        serde_json::from_str(text).map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_float_without_a_fraction_is_a_whole_number() {
        let numbers = |one, two, three| Ok(Numbers { one, two, three });
        assert_eq!(read(r#"{"one": -25.0, "two": 3e2, "three": 7}"#), numbers(-25, Some(300), Some(Some(7))));
        assert_eq!(
            read(r#"{"one": 9223372036854775807, "two": null, "three": null}"#),
            numbers(i64::MAX, None, Some(None))
        );
        assert_eq!(read(r#"{"one": 0}"#), numbers(0, None, None));
    }

    #[test]
    fn nothing_else_is_one() {
        for (text, message) in [
            (r#"{"one": 1.5}"#, "invalid type: floating point `1.5`, expected i64"),
            (r#"{"one": 1e300}"#, "invalid type: floating point `1e+300`, expected i64"),
            (r#"{"one": 9007199254740993.0}"#, "invalid type: floating point `9007199254740992.0`, expected i64"),
            (r#"{"one": "1"}"#, "invalid type: string \"1\", expected i64"),
            (r#"{"one": 9223372036854775808}"#, "invalid value: integer `9223372036854775808`, expected i64"),
            (r#"{"one": 1, "two": -1.0}"#, "invalid type: floating point `-1.0`, expected u64"),
            (r#"{"one": 1, "two": 4294967296}"#, "invalid value: integer `4294967296`, expected u64"),
            (r#"{"two": 1}"#, "missing field `one`"),
        ] {
            let refusal = read(text).unwrap_err();
            assert!(refusal.starts_with(message), "{text}: {refusal}");
        }
    }
}
