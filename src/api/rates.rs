//! Rate limits as OpenAI tells them: `x-ratelimit-limit-requests` and its kin.

use std::time::Duration;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::http::{Code, Problem};
use crate::ledger::{LimitReached, Limited, RateLimits, RateState};

/// Tells how the rate limits stand; nothing where there are none.
pub fn put_rate_headers(headers: &mut HeaderMap, rates: &RateLimits) {
    for (name, value) in rate_headers(rates) {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// A limit is reached: when to come back, and how the limits stand.
#[must_use]
pub fn limit_problem(reached: &LimitReached) -> Problem {
    let LimitReached { what, limit, used, retry_after, rates } = reached;
    let what = match what {
        Limited::Requests => "requests per minute",
        Limited::Images => "images per minute",
        Limited::Concurrency => "generations at once",
    };
    let wait = reset_text(*retry_after);
    let message = format!(
        "Rate limit reached for this project on {what}: limit {limit}, used {used}. Please try again in {wait}."
    );
    let problem = Problem::new(Code::RateLimitExceeded, message).retry_after(*retry_after);
    rate_headers(rates).into_iter().fold(problem, |problem, (name, value)| problem.header(name, &value))
}

fn rate_headers(rates: &RateLimits) -> Vec<(&'static str, String)> {
    const REQUESTS: [&str; 3] =
        ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"];
    const IMAGES: [&str; 3] = ["x-ratelimit-limit-images", "x-ratelimit-remaining-images", "x-ratelimit-reset-images"];
    let mut headers = Vec::new();
    for (names, state) in [(REQUESTS, rates.requests), (IMAGES, rates.images)] {
        if let Some(RateState { limit, remaining, resets_in }) = state {
            let values = [limit.to_string(), remaining.to_string(), reset_text(resets_in)];
            headers.extend(names.into_iter().zip(values));
        }
    }
    headers
}

/// As OpenAI writes a time to wait: `120ms`, `8.64s`, `6m0s`.
fn reset_text(wait: Duration) -> String {
    let millis = wait.as_millis();
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (minutes, seconds, rest) = (millis / 60_000, millis / 1000 % 60, millis % 1000);
    let fraction = format!(".{rest:03}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    if minutes == 0 { format!("{seconds}{fraction}s") } else { format!("{minutes}m{seconds}{fraction}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_wait_is_written_as_openai_does() {
        for (millis, text) in [(0, "0ms"), (120, "120ms"), (8640, "8.64s"), (60_000, "1m0s"), (61_001, "1m1.001s")] {
            assert_eq!(reset_text(Duration::from_millis(millis)), text);
        }
    }
}
