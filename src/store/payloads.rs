//! What an event carries beside its columns, as JSON.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::StoreError;
use super::rows::Reservation;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ReservedPayload<'a> {
    pub(super) request_id: Uuid,
    pub(super) owner: Uuid,
    pub(super) source: Cow<'a, str>,
    pub(super) model: Cow<'a, str>,
    pub(super) requested_model: Option<Cow<'a, str>>,
    pub(super) provider: Cow<'a, str>,
    pub(super) endpoint: Cow<'a, str>,
    pub(super) num_images: u32,
    pub(super) size: Option<Cow<'a, str>>,
    pub(super) terms: Option<Cow<'a, str>>,
    pub(super) user: Option<Cow<'a, str>>,
    pub(super) deadline_at: i64,
    pub(super) cancel_if_client_leaves: bool,
    pub(super) prompt_until: Option<i64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WebhookContent<'a> {
    pub(super) id: Uuid,
    pub(super) url: Cow<'a, str>,
    pub(super) host: Cow<'a, str>,
    pub(super) form: Cow<'a, str>,
    pub(super) base_url: Cow<'a, str>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ReservedContent<'a> {
    pub(super) parameters: Cow<'a, str>,
    /// Until it is projected: its address may be a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) webhook: Option<WebhookContent<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SubmittedPayload<'a> {
    pub(super) attempt: u32,
    pub(super) endpoint: Cow<'a, str>,
    pub(super) credential: Cow<'a, str>,
    pub(super) provider_request_id: Cow<'a, str>,
    pub(super) status_url: Cow<'a, str>,
    pub(super) response_url: Cow<'a, str>,
    pub(super) cancel_url: Cow<'a, str>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct EndedPayload<'a> {
    pub(super) attempt: u32,
    pub(super) model: Option<Cow<'a, str>>,
    pub(super) state: Cow<'a, str>,
    pub(super) cost_source: Cow<'a, str>,
    pub(super) billable_units: Option<i64>,
    pub(super) unit_price: Option<i64>,
    pub(super) images: u32,
    pub(super) megapixels: i64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct EndedContent<'a> {
    pub(super) answer: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) error: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) reason: Cow<'a, str>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LatePayload<'a> {
    pub(super) cost_source: Cow<'a, str>,
    pub(super) billable_units: Option<i64>,
    pub(super) unit_price: Option<i64>,
}

#[derive(Debug, Serialize)]
pub(super) struct CreditPayload<'a> {
    pub(super) kind: &'a str,
    pub(super) generation: Option<Uuid>,
    pub(super) reason: &'a str,
    pub(super) author: Option<&'a str>,
}

/// Texts and numbers always have a JSON form.
pub(super) fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Inconsistent(format!("an event has no JSON: {error}")))
}

pub(super) fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Inconsistent(format!("an event cannot be read: {error}")))
}

/// What the ledger keeps of a reservation once it is projected, as JSON.
pub(super) fn projected_reservation(r: &Reservation) -> Result<String, StoreError> {
    json(&ReservedContent { parameters: r.parameters.as_str().into(), webhook: None })
}

/// What the ledger keeps of the end of a generation whose content is erased, as JSON.
pub(super) fn erased_end(answer: Option<&str>, error: Option<&str>, reason: &str) -> Result<String, StoreError> {
    json(&EndedContent { answer: answer.map(Cow::from), error: error.map(Cow::from), reason: reason.into() })
}
