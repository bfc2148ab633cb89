//! fal's billing events: what each request truly cost, from the platform API (<https://api.fal.ai/v1>).

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Number, Value};

use super::platform;
use crate::domain::{Money, Timestamp};
use crate::providers::bill::{Bill, BillingError, BillingEvent, Bills, OddLine};

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
    billing_events: Vec<Value>,
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

impl Billing {
    /// `base` stands for `https://api.fal.ai/v1`. Connects to nobody yet.
    pub fn new(base: &str, keys: &[String]) -> Result<Self, BillingError> {
        let address = Url::parse(&format!("{base}/models/billing-events")).map_err(|_| BillingError::Settings)?;
        let client = platform::client().map_err(away)?;
        let keys = keys.iter().map(|key| platform::header(key).ok_or(BillingError::Settings));
        Ok(Self { client, address, keys: keys.collect::<Result<_, _>>()? })
    }

    /// Every page with every key. Two keys of one account tell the same lines: each counts as often as one key tells it.
    async fn all(&self, parameters: &[(String, String)]) -> Result<Bills, BillingError> {
        let mut lines = BTreeMap::<Result<BillingEvent, OddLine>, usize>::new();
        for key in &self.keys {
            let mut told = BTreeMap::<_, usize>::new();
            let mut cursor = None;
            loop {
                let page = self.page(key, parameters, cursor.as_deref()).await?;
                for line in page.billing_events {
                    *told.entry(read(line)).or_default() += 1;
                }
                match page.next_cursor.filter(|_| page.has_more) {
                    next if next.is_none() || next == cursor => break,
                    next => cursor = next,
                }
            }
            for (line, times) in told {
                let most = lines.entry(line).or_default();
                *most = times.max(*most);
            }
        }
        let mut bills = Bills::default();
        for (line, times) in lines {
            match line {
                Ok(event) => bills.events.extend(std::iter::repeat_n(event, times)),
                Err(odd) => bills.odd.extend(std::iter::repeat_n(odd, times)),
            }
        }
        Ok(bills)
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
            return Err(BillingError::Refused { status: status.as_u16(), message: platform::message(&body) });
        }
    }
}

#[async_trait]
impl Bill for Billing {
    async fn between(&self, from: Timestamp, before: Timestamp) -> Result<Bills, BillingError> {
        let window = [("start".to_owned(), from.rfc3339()), ("end".to_owned(), before.rfc3339())];
        let mut bills = self.all(&window).await?;
        bills.events.retain(|event| event.at >= from && event.at < before);
        Ok(bills)
    }

    async fn of_requests(&self, ids: &[String]) -> Result<Bills, BillingError> {
        let mut bills = Bills::default();
        for named in ids.chunks(MOST_NAMED) {
            let named: Vec<_> = named.iter().map(|id| ("request_id".to_owned(), id.clone())).collect();
            bills.extend([self.all(&named).await?]);
        }
        Ok(bills)
    }
}

/// Without the address, which names the requests.
fn away(fault: reqwest::Error) -> BillingError {
    BillingError::Away(fault.without_url().to_string())
}

/// One line of the bill.
fn read(line: Value) -> Result<BillingEvent, OddLine> {
    let request_id = line["request_id"].as_str().map(str::to_owned);
    let odd = |problem: String| OddLine { request_id: request_id.clone(), problem };
    let line = WireEvent::deserialize(line).map_err(|fault| odd(fault.to_string()))?;
    let unreadable = |field: &str| odd(format!("`{field}` cannot be read"));
    let at = chrono::DateTime::parse_from_rfc3339(&line.timestamp).map_err(|_| unreadable("timestamp"))?;
    let cost = match (line.cost_estimate_nano_usd, &line.cost_total) {
        (Some(nanos), _) => Money::from_nanos(nanos),
        (None, Some(total)) => total.to_string().parse().map_err(|_| unreadable("cost_total"))?,
        (None, None) => return Err(unreadable("cost_total")),
    };
    Ok(BillingEvent {
        at: Timestamp::from_micros(at.timestamp_micros()),
        cost,
        request_id: line.request_id,
        endpoint: line.endpoint_id,
    })
}

#[cfg(test)]
mod tests {
    use actix_web::{App, HttpRequest, HttpServer, web};
    use serde_json::json;

    use super::*;

    /// Two pages. Both keys belong to one account; the second one misses a line.
    async fn pages(request: HttpRequest) -> web::Json<Value> {
        let part = |id: &str, cost: f64| json!({"request_id": id, "endpoint_id": "fal-ai/flux/dev", "timestamp": "2026-11-21T10:00:00Z", "cost_total": cost});
        let (first_key, second_page) = (
            request.headers().get("authorization").is_some_and(|key| key == "Key one"),
            request.query_string().contains("cursor=next"),
        );
        let lines = match (first_key, second_page) {
            (_, false) => vec![part("in-parts", 0.01), part("in-parts", 0.01), part("in-parts", 0.02)],
            (true, true) => vec![
                part("in-parts", 0.01),
                part("whole", 0.03),
                json!({"request_id": "late", "endpoint_id": "e", "timestamp": "yesterday", "cost_total": 1}),
                json!({"request_id": "free?", "endpoint_id": "e", "timestamp": "2026-11-21T10:00:00Z"}),
                json!({"endpoint_id": "e"}),
            ],
            (false, true) => vec![part("whole", 0.03)],
        };
        let next = if second_page { Value::Null } else { json!("next") };
        web::Json(json!({"billing_events": lines, "next_cursor": next, "has_more": !second_page}))
    }

    #[actix_web::test]
    async fn equal_parts_count_as_often_as_they_are_billed_and_odd_lines_are_listed() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = HttpServer::new(|| App::new().default_service(web::to(pages))).workers(1).disable_signals();
        let server = server.bind("127.0.0.1:0").unwrap();
        let platform = format!("http://{}/v1", server.addrs()[0]);
        let running = server.run();
        let stopper = running.handle();
        actix_web::rt::spawn(running);
        let billing = Billing::new(&platform, &["one".to_owned(), "two".to_owned()]).unwrap();
        for bills in [
            billing.between(Timestamp::from_seconds(0), Timestamp::from_seconds(4_000_000_000)).await.unwrap(),
            billing.of_requests(&["in-parts".to_owned()]).await.unwrap(),
        ] {
            let parts: Vec<_> =
                bills.events.iter().map(|event| (event.request_id.as_str(), event.cost.to_string())).collect();
            let part = |cost: &str| ("in-parts", cost.to_owned());
            assert_eq!(
                parts,
                [
                    part("0.010000000"),
                    part("0.010000000"),
                    part("0.010000000"),
                    part("0.020000000"),
                    ("whole", "0.030000000".to_owned()),
                ]
            );
            let odd: Vec<_> =
                bills.odd.iter().map(|line| (line.request_id.as_deref(), line.problem.as_str())).collect();
            assert_eq!(
                odd,
                [
                    (None, "missing field `request_id`"),
                    (Some("free?"), "`cost_total` cannot be read"),
                    (Some("late"), "`timestamp` cannot be read"),
                ]
            );
        }
        stopper.stop(false).await;
    }
}
