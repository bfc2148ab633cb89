//! Image sizes and aspect ratios as clients write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A size in pixels; both sides are at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Size {
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
}

impl Size {
    /// Pixels altogether.
    #[must_use]
    pub fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// Whether width and height stand exactly in this ratio.
    #[must_use]
    pub fn has_ratio(self, across: u32, down: u32) -> bool {
        u64::from(self.width) * u64::from(down) == u64::from(self.height) * u64::from(across)
    }
}

impl fmt::Display for Size {
    /// As `OpenAI` writes it: `1024x768`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// Not of the form `1024x768`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size such as `1024x768`")]
pub struct SizeError(String);

impl FromStr for Size {
    type Err = SizeError;

    /// Reads `1024x768` (also with a capital `X`), both sides whole numbers of at most nine digits, at least 1 and without leading zeros.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || SizeError(text.chars().take(40).collect());
        let (width, height) = text.split_once(['x', 'X']).ok_or_else(error)?;
        let side = |digits: &str| {
            (1..=9)
                .contains(&digits.len())
                .then_some(digits)
                .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0'))
                .and_then(|digits| digits.parse().ok())
        };
        Ok(Self { width: side(width).ok_or_else(error)?, height: side(height).ok_or_else(error)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_as_openai_writes_it() {
        let size = Size { width: 1472, height: 512 };
        assert_eq!("1472x512".parse(), Ok(size));
        assert_eq!("1472X512".parse(), Ok(size));
        assert_eq!(size.to_string(), "1472x512");
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "x",
            "1024",
            "1024x",
            "x768",
            "0x5",
            "01024x1024",
            "1024x01024",
            "-1x5",
            "+1x5",
            "1.0x5",
            "1x2x3",
            " 1x2",
            "9999999999x1",
            "１x2",
        ] {
            assert!(text.parse::<Size>().is_err(), "`{text}` was taken");
        }
    }

    #[test]
    fn a_ratio_holds_only_exactly() {
        let size = Size { width: 1280, height: 720 };
        assert!(size.has_ratio(16, 9));
        assert!(!size.has_ratio(16, 10));
        let near = Size { width: 1281, height: 720 };
        assert!(!near.has_ratio(16, 9));
    }
}
