//! fal's billing events: what each request truly cost, from the platform API (<https://api.fal.ai/v1>).

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use serde_json::Number;

use crate::domain::{Money, Timestamp};
use crate::providers::bill::{Bill, BillingError, BillingEvent};

/// How long one page may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Events on one page; fal gives no more.
const PAGE: &str = "100";
/// Most requests that one question may name.
const MOST_NAMED: usize = 50;
/// How often a page is asked for that fal is too busy for.
const TRIES: u32 = 4;
/// Longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Reads billing events with each of our keys: they may belong to different accounts.
#[derive(Debug)]
pub struct Billing {
    client: Client,
    address: Url,
    keys: Vec<HeaderValue>,
}

#[derive(Debug, Deserialize)]
struct Page {
    billing_events: Vec<WireEvent>,
    next_cursor: Option<String>,
    #[serde(default)]
    has_more: bool,
}

#[derive(Debug, Deserialize)]
struct WireEvent {
    request_id: String,
    endpoint_id: String,
    timestamp: String,
    cost_estimate_nano_usd: Option<i64>,
    cost_total: Option<Number>,
}

#[derive(Debug, Deserialize)]
struct WireError {
    error: WireErrorBody,
}

#[derive(Debug, Deserialize)]
struct WireErrorBody {
    message: String,
}

impl Billing {
    /// `platform` stands for `https://api.fal.ai/v1`. Connects to nobody yet.
    pub fn new(platform: &str, keys: &[String]) -> Result<Self, BillingError> {
        let address = Url::parse(&format!("{platform}/models/billing-events")).map_err(|_| BillingError::Settings)?;
        let header = |key: &String| {
            let mut value = HeaderValue::from_str(&format!("Key {key}")).map_err(|_| BillingError::Settings)?;
            value.set_sensitive(true);
            Ok(value)
        };
        let client = Client::builder()
            .user_agent(concat!("imagegate/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(away)?;
        Ok(Self { client, address, keys: keys.iter().map(header).collect::<Result<_, BillingError>>()? })
    }

    /// Every page with every key. Two keys of one account tell the same events, which count once.
    async fn all(&self, parameters: &[(String, String)]) -> Result<Vec<BillingEvent>, BillingError> {
        let mut events = BTreeSet::new();
        for key in &self.keys {
            let mut cursor = None;
            loop {
                let page = self.page(key, parameters, cursor.as_deref()).await?;
                for event in page.billing_events {
                    events.insert(event.read()?);
                }
                match page.next_cursor.filter(|_| page.has_more) {
                    next if next.is_none() || next == cursor => break,
                    next => cursor = next,
                }
            }
        }
        Ok(events.into_iter().collect())
    }

    async fn page(
        &self,
        key: &HeaderValue,
        parameters: &[(String, String)],
        cursor: Option<&str>,
    ) -> Result<Page, BillingError> {
        let mut url = self.address.clone();
        url.query_pairs_mut().append_pair("limit", PAGE).extend_pairs(parameters);
        if let Some(cursor) = cursor {
            url.query_pairs_mut().append_pair("cursor", cursor);
        }
        let mut tries = 1;
        loop {
            let request = self.client.get(url.clone()).header(AUTHORIZATION, key.clone());
            let response = request.send().await.map_err(away)?;
            let status = response.status();
            let busy = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
            if busy && tries < TRIES {
                let told = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                let wait = Duration::from_secs(told.unwrap_or_else(|| 1 << (tries - 1))).min(LONGEST_WAIT);
                tokio::time::sleep(wait).await;
                tries += 1;
                continue;
            }
            let body = response.bytes().await.map_err(away)?;
            if status.is_success() {
                return serde_json::from_slice(&body).map_err(|fault| BillingError::Unreadable(fault.to_string()));
            }
            let message = serde_json::from_slice::<WireError>(&body).map(|body| body.error.message).unwrap_or_default();
            return Err(BillingError::Refused { status: status.as_u16(), message });
        }
    }
}

#[async_trait]
impl Bill for Billing {
    async fn between(&self, from: Timestamp, before: Timestamp) -> Result<Vec<BillingEvent>, BillingError> {
        let window = [("start".to_owned(), from.rfc3339()), ("end".to_owned(), before.rfc3339())];
        let events = self.all(&window).await?;
        Ok(events.into_iter().filter(|event| event.at >= from && event.at < before).collect())
    }

    async fn of_requests(&self, ids: &[String]) -> Result<Vec<BillingEvent>, BillingError> {
        let mut events = Vec::new();
        for named in ids.chunks(MOST_NAMED) {
            let named: Vec<_> = named.iter().map(|id| ("request_id".to_owned(), id.clone())).collect();
            events.extend(self.all(&named).await?);
        }
        Ok(events)
    }
}

/// Without the address, which names the requests.
fn away(fault: reqwest::Error) -> BillingError {
    BillingError::Away(fault.without_url().to_string())
}

impl WireEvent {
    fn read(self) -> Result<BillingEvent, BillingError> {
        let unreadable = |what: &str| BillingError::Unreadable(format!("`{what}` of request `{}`", self.request_id));
        let at = chrono::DateTime::parse_from_rfc3339(&self.timestamp).map_err(|_| unreadable("timestamp"))?;
        let cost = match (self.cost_estimate_nano_usd, &self.cost_total) {
            (Some(nanos), _) => Money::from_nanos(nanos),
            (None, Some(total)) => total.to_string().parse().map_err(|_| unreadable("cost_total"))?,
            (None, None) => return Err(unreadable("cost_total")),
        };
        Ok(BillingEvent {
            at: Timestamp::from_micros(at.timestamp_micros()),
            cost,
            request_id: self.request_id,
            endpoint: self.endpoint_id,
        })
    }
}
