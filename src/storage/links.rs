//! Links to kept files that end: the name and the end, signed.

use std::fmt;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// Why a link does not open its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It is not one of ours, or it was changed.
    #[error("the link's signature is not valid")]
    NotOurs,
    /// Its time is over.
    #[error("the link has ended")]
    Ended,
}

/// Signs and checks links. Every replica with the same secret opens them.
#[derive(Clone)]
pub struct Links {
    secret: Vec<u8>,
    /// How long a link lasts.
    ttl: Duration,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Links({:?})", self.ttl)
    }
}

impl Links {
    /// Links that last for `ttl`, signed with `secret`.
    #[must_use]
    pub fn new(secret: &str, ttl: Duration) -> Self {
        Self { secret: secret.as_bytes().to_vec(), ttl }
    }

    /// The query of a link to `name` that is made at `now`, in Unix seconds.
    #[must_use]
    pub fn query(&self, name: &str, now: i64) -> String {
        let expires = now.saturating_add(i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX));
        format!("expires={expires}&signature={}", self.signature(name, expires))
    }

    /// How many seconds a link still lasts at `now`, if it opens `name`.
    pub fn check(&self, name: &str, expires: i64, signature: &str, now: i64) -> Result<i64, LinkError> {
        let own = self.signature(name, expires);
        if !bool::from(own.as_bytes().ct_eq(signature.as_bytes())) {
            return Err(LinkError::NotOurs);
        }
        let left = expires.saturating_sub(now);
        if left > 0 { Ok(left) } else { Err(LinkError::Ended) }
    }

    fn signature(&self, name: &str, expires: i64) -> String {
        // HMAC takes a key of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.secret) else { return String::new() };
        mac.update(format!("{expires} {name}").as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_opens_its_own_file_until_its_end() {
        let links = Links::new("a secret of the tests", Duration::from_mins(1));
        let query = links.query("g/0.png", 1000);
        let (expires, signature) = query.strip_prefix("expires=").unwrap().split_once("&signature=").unwrap();
        let expires: i64 = expires.parse().unwrap();
        assert_eq!(links.check("g/0.png", expires, signature, 1000), Ok(60));
        assert_eq!(links.check("g/0.png", expires, signature, 1059), Ok(1));
        assert_eq!(links.check("g/0.png", expires, signature, 1060), Err(LinkError::Ended));
        assert_eq!(links.check("g/1.png", expires, signature, 1000), Err(LinkError::NotOurs));
        assert_eq!(links.check("g/0.png", expires + 1, signature, 1000), Err(LinkError::NotOurs));
        assert_eq!(links.check("g/0.png", expires, "", 1000), Err(LinkError::NotOurs));
        let other = Links::new("another secret of the tests", Duration::from_mins(1));
        assert_eq!(other.check("g/0.png", expires, signature, 1000), Err(LinkError::NotOurs));
    }
}
