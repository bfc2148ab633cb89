//! Why the accounts refuse a change.

use super::files::UploadLimit;
use crate::store::StoreError;

/// Why a project or key was not changed. Nothing was written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AccountsError {
    /// There is no such project.
    #[error("the project is unknown")]
    UnknownProject,
    /// There is no such key.
    #[error("the key is unknown")]
    UnknownKey,
    /// There is no such service account.
    #[error("the service account is unknown")]
    UnknownServiceAccount,
    /// There is no such spend alert.
    #[error("the spend alert is unknown")]
    UnknownSpendAlert,
    /// There is no such file.
    #[error("this project has no such file")]
    UnknownFile,
    /// There is no such alias.
    #[error("there is no such alias here")]
    UnknownAlias,
    /// An alias of the settings file is changed there.
    #[error("this alias is given by the file of IMAGEGATE_ALIASES_FILE: change the file instead")]
    AliasGiven,
    /// An upload would pass a limit of the project.
    #[error(transparent)]
    UploadLimit(#[from] UploadLimit),
    /// A key that a setting gives is changed by changing the setting.
    #[error("this key is given by the setting {0}: change the setting instead")]
    GivenBySetting(&'static str),
    /// Somebody must be able to make admin keys.
    #[error("this is the last admin key with the role `owner`: make another one first")]
    LastOwner,
    /// An archived project takes no new keys and no new name.
    #[error("the project is archived: it takes no new keys and no new name")]
    ProjectArchived,
    /// The default project cannot be archived.
    #[error("the default project cannot be archived; revoke its keys instead")]
    DefaultProject,
    /// A name, amount or time that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The value that a setting gives is another key's already.
    #[error("the value of {0} is another key already; choose a value of its own")]
    ValueInUse(&'static str),
    /// The value that a setting gives cannot be sent as a bearer token.
    #[error("a key must be visible ASCII characters without spaces, at least one and at most 1024")]
    UnusableValue,
    /// The operating system has no random bytes to give.
    #[error("no random bytes for a key: {0}")]
    NoRandomness(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AccountsError {
    /// Whether the database is away: the same may work soon.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Store(StoreError::Unreachable(_) | StoreError::Conflict(_)))
    }
}
