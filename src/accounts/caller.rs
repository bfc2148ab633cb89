//! Who presents a key.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::policy::Policy;
use crate::domain::{Adapt, ApiKeyId, Network, ProjectId, Role, Scopes};

/// Who has presented a key that is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The key.
    pub api_key_id: ApiKeyId,
    /// What it opens.
    pub kind: CallerKind,
    /// What its maker called it; also stands as the author of what an admin does.
    pub name: Arc<str>,
    /// The models it may use, by our ids; every model when `None`.
    pub allowed_models: Option<Arc<[String]>>,
    /// What its project's operator has decided for it.
    pub policy: Option<Arc<Policy>>,
    /// What may be changed of its requests so that they fit, where they do not say it themselves.
    pub adapt: Adapt,
    /// Whether a request joins an equal one whose client went away, also if it does not say that it is sent again.
    pub join_retries: bool,
    /// The project that an admin key may also make images for; none as a rule.
    pub generates_for: Option<ProjectId>,
    /// What a project key may do; every scope for an admin key that makes images for a project.
    pub scopes: Scopes,
    /// What an admin key is trusted with; without effect for a project key.
    pub role: Role,
    /// The networks that the key may be used from; any address when `None`.
    pub allowed_addresses: Option<Arc<[Network]>>,
}

impl Caller {
    /// An admin key that may make images, as a caller of the project that it makes them for.
    #[must_use]
    pub fn as_project(self) -> Option<Self> {
        let kind = CallerKind::Project(self.generates_for?);
        Some(Self { kind, ..self })
    }

    /// Whether the key may use the model with this id of ours, asked for by this name: its list may have either.
    #[must_use]
    pub fn may_use(&self, model: &str, requested: &str) -> bool {
        let is_listed = |name: &String| name.eq_ignore_ascii_case(model) || name.eq_ignore_ascii_case(requested);
        self.allowed_models.as_ref().is_none_or(|models| models.iter().any(is_listed))
    }

    /// Whether the key or its project has a list of models that it may use, or may not.
    #[must_use]
    pub fn has_model_list(&self) -> bool {
        let has_list = |policy: &Policy| policy.allowed_models.is_some() || policy.denied_models.is_some();
        self.allowed_models.is_some() || self.policy.as_deref().is_some_and(has_list)
    }

    /// Whether the key may be used from this address.
    #[must_use]
    pub fn may_come_from(&self, address: IpAddr) -> bool {
        self.allowed_addresses.as_ref().is_none_or(|networks| networks.iter().any(|network| network.contains(address)))
    }
}

/// What a key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallerKind {
    /// The admin face.
    Admin,
    /// The public face, on this project's account.
    Project(ProjectId),
}

/// Why a key is not good. Distinguished in logs only: to the outside all are the same, except a mistyped one, which says
/// nothing about the keys that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Nobody has this key.
    #[error("the key is unknown")]
    Unknown,
    /// Nobody has this key, and its checksum is wrong.
    #[error("the key is mistyped: its checksum is wrong")]
    Mistyped,
    /// It was revoked.
    #[error("key `{0}` is revoked")]
    Revoked(ApiKeyId),
    /// Its time is over.
    #[error("key `{0}` has expired")]
    Expired(ApiKeyId),
    /// Its project is archived.
    #[error("the project of key `{0}` is archived")]
    ProjectArchived(ApiKeyId),
}

/// Why a caller is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// The key is not valid.
    #[error("{0}")]
    Key(#[from] AuthError),
    /// The address has sent too many unknown keys.
    #[error("too many wrong keys from this address; paused for another {} s", .0.as_secs())]
    TooManyFailures(Duration),
    /// The key is good, but not from this address.
    #[error("key `{0}` may not be used from this address")]
    AddressNotAllowed(ApiKeyId),
}
