//! The keys themselves: made, hashed, and never shown by accident.

use std::fmt;

use sha2::{Digest, Sha256};

use super::error::AccountsError;
use crate::domain::IdSource;
use crate::store::KeyKind;

/// How many of a key's random digits are kept for showing: too few to help a guess at the other fifty-eight.
const SHOWN_DIGITS: usize = 6;

/// The most that is shown of a value which an operator chose, in characters; and never more than its first quarter.
const SHOWN_OF_FOREIGN: usize = 8;

/// The longest key that is taken.
const LONGEST: usize = 1024;

/// A key, to be told to its owner once.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A new key from thirty-two random bytes.
    pub(super) fn make(kind: KeyKind, ids: &dyn IdSource) -> Result<Self, AccountsError> {
        let bytes = ids.secret().map_err(|error| AccountsError::NoRandomness(error.to_string()))?;
        Ok(Self(format!("{}{}", beginning(kind), hex::encode(bytes))))
    }

    /// The key itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is kept of a key that was made here.
    pub(super) fn prefix(&self, kind: KeyKind) -> String {
        self.0.chars().take(beginning(kind).len() + SHOWN_DIGITS).collect()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

const fn beginning(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Admin => "sk-ig-admin-",
        KeyKind::Project => "sk-ig-",
    }
}

/// What is kept for showing of a value that an operator chose.
pub(super) fn foreign_prefix(value: &str) -> String {
    let characters = value.chars().count();
    value.chars().take((characters / 4).min(SHOWN_OF_FOREIGN)).collect()
}

/// SHA-256 of a key.
pub(super) fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// Whether a value can be sent as a bearer token.
pub(super) fn is_usable(value: &str) -> bool {
    (1..=LONGEST).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SystemIds;

    #[test]
    fn a_key_tells_its_kind_and_shows_only_its_beginning() {
        let project = Secret::make(KeyKind::Project, &SystemIds).unwrap();
        let admin = Secret::make(KeyKind::Admin, &SystemIds).unwrap();
        assert!(project.expose().starts_with("sk-ig-") && project.expose().len() == 6 + 64);
        assert!(admin.expose().starts_with("sk-ig-admin-") && admin.expose().len() == 12 + 64);
        assert_eq!(project.prefix(KeyKind::Project).len(), 12);
        assert_eq!(admin.prefix(KeyKind::Admin).len(), 18);
        assert!(project.expose().starts_with(&project.prefix(KeyKind::Project)));
        assert_eq!(format!("{project:?}"), "Secret(…)");
    }

    #[test]
    fn of_a_chosen_value_at_most_a_quarter_and_eight_characters_are_kept() {
        assert_eq!(foreign_prefix("abc"), "");
        assert_eq!(foreign_prefix("hunter22"), "hu");
        assert_eq!(foreign_prefix(&"x".repeat(100)).len(), 8);
    }

    #[test]
    fn a_key_must_fit_into_a_header() {
        assert!(is_usable("dev"));
        for value in ["", "two words", "tab\t", "schlüssel", &"x".repeat(1025)] {
            assert!(!is_usable(value), "`{value}` was taken");
        }
    }
}
