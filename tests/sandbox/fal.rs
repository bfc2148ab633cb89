//! What the tests share.

use std::sync::Arc;
use std::time::Duration;

use imagegate::domain::{SystemClock, SystemIds};
use imagegate::sandbox::{Running, Settings, start};
use reqwest::{Method, Response};
use serde_json::Value;

/// A stand-in of its own, and a client with a good key.
pub struct Fal {
    pub running: Running,
    pub http: reqwest::Client,
}

impl Fal {
    pub fn with(settings: Settings) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let running = start(settings, Arc::new(SystemClock), Arc::new(SystemIds)).unwrap();
        let http = reqwest::Client::builder().timeout(Duration::from_mins(3)).build().unwrap();
        Self { running, http }
    }

    pub fn delayed(delay: Duration) -> Self {
        Self::with(Settings { delay, ..Settings::default() })
    }

    pub async fn call(&self, method: Method, url: &str, body: Option<&Value>) -> Response {
        let url = if url.starts_with("http") { url.to_owned() } else { format!("{}{url}", self.running.queue_url()) };
        let request = self.http.request(method, url).header("authorization", "Key id:secret");
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        request.send().await.unwrap()
    }

    pub async fn get(&self, url: &str) -> Response {
        self.call(Method::GET, url, None).await
    }

    pub async fn submit(&self, endpoint: &str, body: &Value) -> Value {
        let answer = self.call(Method::POST, &format!("/{endpoint}"), Some(body)).await;
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    /// Adds a rule.
    pub async fn misbehave(&self, rule: Value) {
        let answer = self.call(Method::POST, "/__sandbox/behaviour", Some(&rule)).await;
        assert_eq!(answer.status(), 200);
    }

    pub async fn state(&self) -> Value {
        self.get("/__sandbox/state").await.json().await.unwrap()
    }
}

pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}
