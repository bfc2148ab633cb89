//! What the gateway may change of a request so that it fits its model.

use std::fmt;
use std::str::FromStr;

/// One thing of a request that may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Adaptable {
    /// A size or ratio outside the limits becomes the nearest allowed.
    Size,
    /// Numbers that were sent as text are read.
    Numbers,
    /// A seed of -1 means a random one.
    Seed,
    /// An unsupported output format becomes the nearest.
    OutputFormat,
    /// An unsupported quality becomes the nearest.
    Quality,
}

impl Adaptable {
    /// Each of them, in the order in which they are listed.
    pub const ALL: [Self; 5] = [Self::Size, Self::Numbers, Self::Seed, Self::OutputFormat, Self::Quality];

    /// Its name in headers, the API and the database.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Numbers => "numbers",
            Self::Seed => "seed",
            Self::OutputFormat => "output_format",
            Self::Quality => "quality",
        }
    }
}

/// A set of things that may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Adapt(u8);

impl Adapt {
    /// Nothing is changed.
    pub const NONE: Self = Self(0);
    /// Everything that can be.
    pub const ALL: Self = Self((1 << Adaptable::ALL.len()) - 1);

    /// Whether this may be changed.
    #[must_use]
    pub const fn contains(self, what: Adaptable) -> bool {
        self.0 & (1 << what as u8) != 0
    }

    /// The names of the set, in the order of [`Adaptable::ALL`]; none for the empty set.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        Adaptable::ALL.into_iter().filter(|what| self.contains(*what)).map(Adaptable::name).collect()
    }

    /// Reads a list of names; `all` stands for each of them, and `none` can only stand alone.
    ///
    /// # Errors
    ///
    /// [`UnknownAdapt`] for any other name.
    pub fn from_names<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self, UnknownAdapt> {
        let (mut set, mut none, mut some) = (Self::NONE, false, false);
        for name in names {
            match name {
                "none" => none = true,
                "all" => (set, some) = (Self::ALL, true),
                name => {
                    let found = Adaptable::ALL.into_iter().find(|what| what.name() == name);
                    let found = found.ok_or_else(|| UnknownAdapt::new(name))?;
                    (set.0, some) = (set.0 | 1 << found as u8, true);
                }
            }
        }
        if none && some { Err(UnknownAdapt::new("none")) } else { Ok(set) }
    }
}

impl fmt::Display for Adapt {
    /// As a header has it: `size, seed`, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&if *self == Self::NONE { "none".to_owned() } else { self.names().join(", ") })
    }
}

impl FromStr for Adapt {
    type Err = UnknownAdapt;

    /// Reads `size, seed`, `all` or `none`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_names(text.split(',').map(str::trim))
    }
}

/// A word that names nothing which may be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not allowed here; allowed: `{allowed}`, or `all`, or `none` alone")]
pub struct UnknownAdapt {
    given: String,
    allowed: String,
}

impl UnknownAdapt {
    fn new(given: &str) -> Self {
        let given = given.chars().take(60).collect();
        Self { given, allowed: Adaptable::ALL.map(Adaptable::name).join("`, `") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_read_as_it_is_written() {
        for text in ["none", "size", "numbers, seed", "size, numbers, seed, output_format, quality"] {
            assert_eq!(text.parse::<Adapt>().unwrap().to_string(), text);
        }
        assert_eq!("all".parse(), Ok(Adapt::ALL));
        assert_eq!(" seed ,size".parse::<Adapt>().unwrap().names(), ["size", "seed"]);
        for text in ["", "sizes", "size,", "none, size", "all, none", "Size"] {
            let error = text.parse::<Adapt>().unwrap_err().to_string();
            assert!(error.contains("allowed: `size`, `numbers`, `seed`, `output_format`, `quality`"), "{error}");
        }
    }
}
