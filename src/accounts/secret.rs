//! The keys themselves: made, hashed, and never shown by accident.

use std::fmt;

use sha2::{Digest, Sha256};

use super::error::AccountsError;
use crate::domain::IdSource;
use crate::store::KeyKind;

/// How many of a key's random digits are kept for showing: too few to help a guess at the other fifty-eight.
const SHOWN_DIGITS: usize = 6;

/// How many characters of a key, its last ones, are its checksum.
const CHECKSUM: usize = 6;

/// The digits of checksums, as GitHub's tokens have them.
const BASE_62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The most that is shown of a value which an operator chose, in characters; and never more than its first quarter.
const SHOWN_OF_FOREIGN: usize = 8;

/// The longest key that is taken.
const LONGEST: usize = 1024;

/// A key, shown to its owner once: `sk-ig-` or `sk-ig-admin-`, sixty-four hex digits, a checksum over both.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A new key from thirty-two random bytes.
    pub(super) fn make(kind: KeyKind, ids: &dyn IdSource) -> Result<Self, AccountsError> {
        let bytes = ids.secret().map_err(|error| AccountsError::NoRandomness(error.to_string()))?;
        let key = format!("{}{}", beginning(kind), hex::encode(bytes));
        Ok(Self(format!("{key}{}", checksum(&key))))
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

/// CRC-32 in six digits of base 62: it finds every typing error of one or two neighbouring characters.
fn checksum(key: &str) -> String {
    let mut rest = crc32fast::hash(key.as_bytes());
    let mut digits = [b'0'; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = BASE_62[(rest % 62) as usize];
        rest /= 62;
    }
    digits.iter().copied().map(char::from).collect()
}

/// Whether a value is as long as a key that was made here and begins as one, and its checksum is wrong. Keys from before
/// there were checksums are shorter.
pub(super) fn is_mistyped(value: &str) -> bool {
    // The longer beginning first: an admin key from before is as long as a project key of today.
    let rest =
        value.strip_prefix(beginning(KeyKind::Admin)).or_else(|| value.strip_prefix(beginning(KeyKind::Project)));
    if !rest.is_some_and(|rest| rest.len() == 64 + CHECKSUM && rest.is_ascii()) {
        return false;
    }
    let (key, given) = value.split_at(value.len() - CHECKSUM);
    checksum(key) != given
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
        assert!(project.expose().starts_with("sk-ig-") && project.expose().len() == 6 + 64 + 6);
        assert!(admin.expose().starts_with("sk-ig-admin-") && admin.expose().len() == 12 + 64 + 6);
        assert_eq!(project.prefix(KeyKind::Project).len(), 12);
        assert_eq!(admin.prefix(KeyKind::Admin).len(), 18);
        assert!(project.expose().starts_with(&project.prefix(KeyKind::Project)));
        assert_eq!(format!("{project:?}"), "Secret(…)");
    }

    #[test]
    fn a_typing_error_is_seen_and_no_other_value_is_taken_for_one() {
        for kind in [KeyKind::Project, KeyKind::Admin] {
            let key = Secret::make(kind, &SystemIds).unwrap().expose().to_owned();
            assert!(!is_mistyped(&key), "{key}");
            for at in beginning(kind).len()..key.len() {
                let mut wrong = key.clone().into_bytes();
                wrong[at] = if wrong[at] == b'7' { b'1' } else { b'7' };
                assert!(is_mistyped(std::str::from_utf8(&wrong).unwrap()), "{at}");
                if at + 1 < key.len() && key.as_bytes()[at] != key.as_bytes()[at + 1] {
                    let mut swapped = key.clone().into_bytes();
                    swapped.swap(at, at + 1);
                    assert!(is_mistyped(std::str::from_utf8(&swapped).unwrap()), "{at}");
                }
            }
            // As keys were before, and as people choose them.
            assert!(!is_mistyped(&key[..key.len() - 6]) && !is_mistyped(&format!("{key}x")));
        }
        for value in ["", "sk-ig-", "admin-key-of-the-tests", &"ü".repeat(38), &format!("sk-ig-{}", "ü".repeat(35))] {
            assert!(!is_mistyped(value), "{value}");
        }
    }

    #[test]
    fn a_checksum_is_the_same_for_ever() {
        let key = format!("sk-ig-{}", "0123456789abcdef".repeat(4));
        assert_eq!(checksum(&key), "2R0RKa");
    }

    #[test]
    fn the_documented_pattern_finds_every_new_key() {
        let documented = include_str!("../../SECURITY.md");
        let pattern = documented.lines().find_map(|line| line.strip_prefix("    sk-ig-")).unwrap();
        let pattern = regex::Regex::new(&format!("^sk-ig-{pattern}$")).unwrap();
        for kind in [KeyKind::Project, KeyKind::Admin] {
            assert!(pattern.is_match(Secret::make(kind, &SystemIds).unwrap().expose()));
        }
        assert!(!pattern.is_match("sk-ig-1a2b3c"));
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
