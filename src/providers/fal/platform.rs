//! What calls to fal's platform API have in common: the client, the keys, the form of its errors.

use std::time::Duration;

use reqwest::Client;
use reqwest::header::HeaderValue;
use serde::Deserialize;

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Deserialize)]
struct WireError {
    error: WireErrorBody,
}

#[derive(Debug, Deserialize)]
struct WireErrorBody {
    message: String,
}

/// A client for it. Connects to nobody yet.
pub fn client() -> Result<Client, reqwest::Error> {
    Client::builder()
        .user_agent(concat!("imagegate/", env!("CARGO_PKG_VERSION")))
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
}

/// A key as the header that carries it; `None` if none can.
pub fn header(key: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Key {key}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What an error's body says; empty if it is not in the platform's form.
pub fn message(body: &[u8]) -> String {
    serde_json::from_slice::<WireError>(body).map(|body| body.error.message).unwrap_or_default()
}
