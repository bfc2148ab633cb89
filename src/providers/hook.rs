//! What a provider tells by itself: a call to our hook when a request has ended.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::domain::Timestamp;

/// A call to our hook, as it came.
#[derive(Debug, Clone)]
pub struct HookCall {
    /// The headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body, byte for byte: the signature is over it.
    pub body: Bytes,
    /// When it came.
    pub received_at: Timestamp,
}

/// What the hook's address says beside the generation. It is not signed, so it is only believed where it fits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HookHint {
    /// Which attempt of the generation; the first if not said.
    pub attempt: Option<u32>,
    /// The label of the key that was used, where there are several.
    pub credential: Option<String>,
}

/// Why a call to our hook is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// A header is missing or cannot be read.
    #[error("the call is not signed as the provider signs: `{0}` is missing or cannot be read")]
    Unsigned(&'static str),
    /// No key of the provider fits.
    #[error("the signature is not the provider's")]
    BadSignature,
    /// Signed too long ago, or in the future.
    #[error("the call is {0} seconds off")]
    WrongTime(i64),
    /// The very same call came before.
    #[error("the same call came before")]
    Replayed,
    /// The provider's keys cannot be had now.
    #[error("the provider's keys cannot be fetched: {0}")]
    KeysUnavailable(String),
    /// This provider has no hook.
    #[error("this provider calls nobody")]
    NotOffered,
}
