//! Signatures after Standard Webhooks (<https://github.com/standard-webhooks/standard-webhooks>, version 1.0.0):
//! HMAC-SHA256 over `id.timestamp.body`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::domain::Timestamp;
use crate::store::WebhookSecretRow;

/// What signs a project's calls.
#[derive(Debug, Clone)]
pub struct WebhookSecret(WebhookSecretRow);

impl From<WebhookSecretRow> for WebhookSecret {
    fn from(row: WebhookSecretRow) -> Self {
        Self(row)
    }
}

impl WebhookSecret {
    /// `whsec_` and base64, as Standard Webhooks' libraries take it. To be told to the project, never logged.
    #[must_use]
    pub fn expose(&self) -> String {
        format!("whsec_{}", STANDARD.encode(&self.0.secret))
    }

    /// When it was made.
    #[must_use]
    pub const fn created_at(&self) -> Timestamp {
        self.0.created_at
    }

    /// Until when the secret before it signs as well.
    #[must_use]
    pub fn previous_until(&self) -> Option<Timestamp> {
        self.0.previous.as_ref().map(|(_, until)| *until)
    }

    /// The header `webhook-signature`: one signature by each secret that counts at `now`, the newest first.
    #[must_use]
    pub fn sign(&self, id: &str, now: Timestamp, body: &[u8]) -> String {
        let previous = self.0.previous.as_ref().filter(|(_, until)| *until > now).map(|(secret, _)| secret);
        let signatures: Vec<String> = std::iter::once(&self.0.secret)
            .chain(previous)
            .filter_map(|secret| sign(secret, id, now.seconds(), body))
            .collect();
        signatures.join(" ")
    }
}

fn sign(secret: &[u8], id: &str, seconds: i64, body: &[u8]) -> Option<String> {
    // A key of any length is taken, so this is always there.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    mac.update(format!("{id}.{seconds}.").as_bytes());
    mac.update(body);
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn a_signature_is_the_one_that_the_specification_shows() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let row = WebhookSecretRow { secret, previous: None, created_at: Timestamp::default() };
        let now = Timestamp::from_seconds(1_614_265_330);
        let signed = WebhookSecret(row).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", now, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn the_secret_before_signs_until_its_time_is_over() {
        let until = Timestamp::from_seconds(100);
        let row = WebhookSecretRow {
            secret: vec![1; 32],
            previous: Some((vec![2; 32], until)),
            created_at: Timestamp::default(),
        };
        let secret = WebhookSecret(row);
        assert_eq!(secret.sign("a", Timestamp::from_seconds(99), b"").split(' ').count(), 2);
        assert_eq!(secret.sign("a", until, b"").split(' ').count(), 1);
        assert!(!format!("{secret:?}").contains('1'), "{secret:?}");
    }
}
