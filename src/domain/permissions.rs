//! What a key permits: scopes of project keys, roles of admin keys.

use std::fmt;
use std::str::FromStr;

/// One thing that a project key may be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Makes images and quotes; reads and cancels what the key itself made.
    ImagesGenerate,
    /// Reads every generation of the project; with [`Scope::ImagesGenerate`] cancels them too.
    ImagesRead,
    /// Uploads, lists and deletes input files.
    Files,
    /// Reads and rotates the project's webhook secret; reads and repeats deliveries.
    Webhooks,
    /// Reads the usage of the project.
    UsageRead,
    /// Reads the balance and the statement of the project.
    BillingRead,
}

impl Scope {
    /// Every scope, in the order in which they are listed.
    pub const ALL: [Self; 6] =
        [Self::ImagesGenerate, Self::ImagesRead, Self::Files, Self::Webhooks, Self::UsageRead, Self::BillingRead];

    /// The scope's name in the API and the database, such as `images:generate`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ImagesGenerate => "images:generate",
            Self::ImagesRead => "images:read",
            Self::Files => "files",
            Self::Webhooks => "webhooks",
            Self::UsageRead => "usage:read",
            Self::BillingRead => "billing:read",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = UnknownPermission;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|scope| scope.name() == text).ok_or_else(|| UnknownPermission {
            given: text.to_owned(),
            allowed: Self::ALL.map(Self::name).join("`, `"),
        })
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u8);

impl Scopes {
    /// No scope at all.
    pub const NONE: Self = Self(0);
    /// Every scope.
    pub const ALL: Self = Self((1 << Scope::ALL.len()) - 1);
    /// The scopes of a new project key that names none: everything but the project's webhook secret.
    pub const DEFAULT: Self = Self(Self::ALL.0 & !(1 << Scope::Webhooks as u8));

    /// Whether the set has this scope.
    #[must_use]
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// The scopes of the set, in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<T: IntoIterator<Item = Scope>>(scopes: T) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | (1 << scope as u8)))
    }
}

/// What the holder of an admin key is trusted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Role {
    /// Everything, admin keys included.
    #[default]
    Owner,
    /// Reads everything; manages projects, keys, limits and webhooks; uses the playground.
    Operator,
    /// Reads everything; manages credits, refunds, spend limits and spend alerts.
    Billing,
    /// Reads everything but secrets.
    ReadOnly,
}

/// What an admin handler does, which decides the roles that may call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AdminAction {
    /// Reads.
    View,
    /// Changes projects, their keys, limits, policies and files.
    Operate,
    /// Moves money or changes what may be spent.
    Bill,
    /// Makes and ends admin keys; changes settings of the whole gateway.
    Own,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Owner, Self::Operator, Self::Billing, Self::ReadOnly];

    /// The role's name in the API and the database, such as `read_only`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Operator => "operator",
            Self::Billing => "billing",
            Self::ReadOnly => "read_only",
        }
    }

    /// Whether the role permits the action.
    #[must_use]
    pub const fn may(self, action: AdminAction) -> bool {
        match action {
            AdminAction::View => true,
            AdminAction::Operate => matches!(self, Self::Owner | Self::Operator),
            AdminAction::Bill => matches!(self, Self::Owner | Self::Billing),
            AdminAction::Own => matches!(self, Self::Owner),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = UnknownPermission;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|role| role.name() == text).ok_or_else(|| UnknownPermission {
            given: text.to_owned(),
            allowed: Self::ALL.map(Self::name).join("`, `"),
        })
    }
}

/// The text names no scope or no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not allowed here; allowed: `{allowed}`")]
pub struct UnknownPermission {
    given: String,
    allowed: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for scope in Scope::ALL {
            assert_eq!(scope.name().parse(), Ok(scope));
        }
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
        }
        let error = "images".parse::<Scope>().unwrap_err().to_string();
        assert!(error.starts_with("`images` is not allowed here; allowed: `images:generate`, "), "{error}");
    }

    #[test]
    fn a_set_holds_what_it_was_made_of() {
        let set: Scopes = [Scope::Files, Scope::ImagesRead].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [Scope::ImagesRead, Scope::Files]);
        assert!(Scope::ALL.into_iter().all(|scope| Scopes::ALL.contains(scope) && !Scopes::NONE.contains(scope)));
        assert!(!Scopes::DEFAULT.contains(Scope::Webhooks) && Scopes::DEFAULT.iter().count() == 5);
    }

    #[test]
    fn only_an_owner_may_do_everything() {
        use AdminAction::{Bill, Operate, Own, View};
        for (role, allowed) in [
            (Role::Owner, vec![View, Operate, Bill, Own]),
            (Role::Operator, vec![View, Operate]),
            (Role::Billing, vec![View, Bill]),
            (Role::ReadOnly, vec![View]),
        ] {
            let may: Vec<_> = [View, Operate, Bill, Own].into_iter().filter(|action| role.may(*action)).collect();
            assert_eq!(may, allowed, "{role}");
        }
    }
}
