//! What an answer that is read from a standby says of its age.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, web};

use super::Services;

/// Seconds that an answer is behind what is booked, where it is read from a standby.
const LAG: HeaderName = HeaderName::from_static("x-imagegate-replica-lag");

/// Routes whose answers are reports: usage, costs, exports and lists. The console shows what they answer.
pub const REPORTS: &[&str] = &[
    "/admin/v1/events",
    "/admin/v1/generations",
    "/admin/v1/margins",
    "/v1/images/generations",
    "/v1/organization/audit_logs",
    "/v1/organization/costs",
    "/v1/organization/usage/images",
    "/v2/logs",
    "/v2/usage",
];

/// Says in a header how old a report may be.
pub async fn state_lag<B: MessageBody>(request: ServiceRequest, next: Next<B>) -> Result<ServiceResponse<B>, Error> {
    let services = request.app_data::<web::Data<Services>>().cloned();
    let is_read = request.method().is_safe();
    let mut response = next.call(request).await?;
    let pattern = response.request().match_pattern().unwrap_or_default();
    let is_report = is_read && (REPORTS.contains(&pattern.as_str()) || pattern.starts_with("/console"));
    if let Some(lag) = services.filter(|_| is_report).and_then(|services| services.gateway.books().report_lag())
        && let Ok(value) = HeaderValue::from_str(&format!("{:.3}", lag.as_secs_f64()))
    {
        response.headers_mut().insert(LAG, value);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::REPORTS;

    #[test]
    fn every_report_is_a_route_that_is_read() {
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
        let document: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(document).unwrap()).unwrap();
        for route in REPORTS {
            assert!(document["paths"][route]["get"].is_object(), "{route}");
        }
    }
}
