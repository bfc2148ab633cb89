//! How well a provider is, as operators are told.

use std::time::Duration;

/// How well a provider is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Its keys.
    pub keys: Vec<KeyHealth>,
    /// The endpoints that are left alone now, because they failed again and again.
    pub open_breakers: Vec<BreakerHealth>,
    /// Whether the last call got no answer: the provider is out of reach.
    pub unreachable: bool,
}

/// How one of our keys at the provider is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHealth {
    /// Its name: never the key.
    pub label: String,
    /// What it can do now.
    pub state: KeyState,
    /// Endpoints that it was refused for and rests for.
    pub refused_for: Vec<String>,
    /// Requests that it has open at the provider.
    pub open: usize,
    /// Most that it may have open: ours, or what the provider taught.
    pub limit: Option<usize>,
}

/// What a key can do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Take requests.
    Ready,
    /// Nothing until one of its requests has ended.
    Full,
    /// Nothing for a moment: the provider says that it has too much under way.
    Busy,
    /// Nothing for a while: the provider refuses it.
    Refused,
}

impl KeyState {
    /// Its word in `/readyz`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Full => "full",
            Self::Busy => "busy",
            Self::Refused => "refused",
        }
    }
}

/// An endpoint that is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerHealth {
    /// The provider's endpoint.
    pub endpoint: String,
    /// When the next request goes through.
    pub closes_in: Duration,
}

impl Health {
    /// Whether something keeps it from serving as it should. A key that is full or busy is at work, not ill.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        let refused = |key: &KeyHealth| key.state == KeyState::Refused || !key.refused_for.is_empty();
        self.unreachable || !self.open_breakers.is_empty() || self.keys.iter().any(refused)
    }
}
