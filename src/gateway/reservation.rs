//! What is written of a request before any provider hears of it.

use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::Gateway;
use super::generate::{Chain, Choice, Request};
use super::generation::Job;
use crate::catalogue::{Adaptation, Model, Order, Quote, Terms};
use crate::domain::Timestamp;
use crate::ledger::{GenerationRecord, Idempotency, Reservation};

/// Beside the first model's parameters, the fallbacks: `[{"model": …, "parameters": …}]`. No model has a parameter of that
/// name, since it is a field of every request.
const FALLBACKS: &str = "fallbacks";
/// Likewise, whether the images are wanted as data URIs.
const SYNC_MODE: &str = "sync_mode";
/// Likewise, what of the request counted for nothing and what was adapted. No provider has parameters of these names.
const IGNORED: &str = "x-imagegate-ignored";
const ADAPTED: &str = "x-imagegate-adapted";

impl Gateway {
    /// Until when a request for this model has everything that it gets, if it came at this time.
    #[must_use]
    pub fn deadline_of(&self, model: &Model, created_at: Timestamp) -> Timestamp {
        created_at.plus(model.deadline.unwrap_or(self.deadline))
    }

    pub(super) fn reservation(&self, job: &Job, chain: &Chain, quote: &Quote, request: &Request) -> Reservation {
        let order = &chain.first.order;
        let mut parameters = stored_parameters(order);
        // Whoever fetches the result later gets it as it was ordered.
        if order.switches.sync_mode {
            parameters.insert(SYNC_MODE.to_owned(), Value::Bool(true));
        }
        if !chain.fallbacks.is_empty() {
            let stored = |choice: &Choice| json!({"model": choice.order.model.id, "parameters": stored_parameters(&choice.order)});
            parameters.insert(FALLBACKS.to_owned(), chain.fallbacks.iter().map(stored).collect());
        }
        Reservation {
            id: job.id,
            project_id: request.project_id,
            api_key_id: request.api_key_id,
            created_at: job.created_at,
            deadline_at: job.deadline_at,
            model: order.model.id.clone(),
            requested_model: (order.requested != order.model.id).then(|| order.requested.clone()),
            provider: order.model.provider.clone(),
            endpoint: order.endpoint().to_owned(),
            num_images: order.count(),
            size: order.size().map(|size| size.to_string()),
            parameters: Value::Object(parameters).to_string(),
            // What was quoted stands, also after a restart with another price or markup.
            terms: serde_json::to_string(&chain.terms().collect::<Vec<_>>()).ok(),
            // Kept only where the project's data retention says so, and as long.
            prompt: order.prompt().map(str::to_owned),
            user: order.switches.user.clone(),
            request_id: request.request_id,
            source: "image.generation".to_owned(),
            hold: quote.price,
            owner: self.replica,
            cancel_if_client_leaves: request.waits && request.idempotency.is_none(),
            idempotency: request.idempotency.as_ref().map(|(key, expires_at)| Idempotency {
                key: key.clone(),
                digest: order.digest(),
                expires_at: *expires_at,
            }),
            webhook: request.webhook.clone(),
            resend_digest: request.may_resend.then(|| order.digest_of_user()),
        }
    }
}

/// The normalized parameters. Prompts are kept only where a project's data retention says so, and embedded images not at
/// all.
fn stored_parameters(order: &Order) -> Map<String, Value> {
    let mut parameters = order.normalized();
    for (parameter, _) in order.parameters().filter(|(parameter, _)| parameter.is_prompt()) {
        parameters.remove(parameter.name.as_ref());
    }
    change_data_uris(&mut parameters, &mut |uri| "data:,left-out".clone_into(uri));
    if !order.ignored.is_empty() {
        parameters.insert(IGNORED.to_owned(), json!(order.ignored));
    }
    if !order.adapted.is_empty() {
        parameters.insert(ADAPTED.to_owned(), json!(order.adapted));
    }
    parameters
}

/// What of a request counted for nothing, and what was adapted so that it fits.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// The fields that counted for nothing.
    pub ignored: Vec<String>,
    /// The fields that another value stands for.
    pub adapted: Vec<Adaptation>,
}

impl Changes {
    /// Those of an order.
    #[must_use]
    pub fn of_order(order: &Order) -> Self {
        Self { ignored: order.ignored.clone(), adapted: order.adapted.clone() }
    }

    /// Those of a stored generation, by the model that it has come to. Empty once its content is erased.
    #[must_use]
    pub fn of_record(record: &GenerationRecord) -> Self {
        let Ok(stored) = serde_json::from_str::<Map<String, Value>>(&record.parameters) else { return Self::default() };
        let mut fallbacks = stored.get(FALLBACKS).and_then(Value::as_array).into_iter().flatten();
        let fallback = fallbacks.find(|fallback| fallback["model"] == *record.model);
        let stored = fallback.and_then(|fallback| fallback["parameters"].as_object()).unwrap_or(&stored);
        Self { ignored: list(stored, IGNORED), adapted: list(stored, ADAPTED) }
    }
}

/// A stored list; empty where there is none.
fn list<T: DeserializeOwned>(stored: &Map<String, Value>, name: &str) -> Vec<T> {
    stored.get(name).and_then(|value| Vec::deserialize(value).ok()).unwrap_or_default()
}

/// Changes every data URI in these fields, at any depth. They may have megabytes.
pub fn change_data_uris(fields: &mut Map<String, Value>, change: &mut impl FnMut(&mut String)) {
    fn walk(value: &mut Value, change: &mut impl FnMut(&mut String)) {
        match value {
            Value::String(text) if text.starts_with("data:") => change(text),
            Value::Array(items) => items.iter_mut().for_each(|item| walk(item, change)),
            Value::Object(fields) => change_data_uris(fields, change),
            _ => {}
        }
    }
    fields.values_mut().for_each(|value| walk(value, change));
}

/// Whether the images were wanted as data URIs.
#[must_use]
pub fn wants_data_uris(record: &GenerationRecord) -> bool {
    let parameters: Result<Map<String, Value>, _> = serde_json::from_str(&record.parameters);
    parameters.is_ok_and(|parameters| parameters.get(SYNC_MODE) == Some(&Value::Bool(true)))
}

/// How an attempt is charged, as it was quoted: 1 is the first model, 2 the first fallback.
pub(super) fn held_terms(record: &GenerationRecord, attempt: u32) -> Terms {
    let stored: Option<Vec<Terms>> = record.terms.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let place = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    stored
        .and_then(|terms| terms.into_iter().nth(place))
        .unwrap_or_else(|| Terms::from_share(&record.model, &record.endpoint, record.hold, record.num_images))
}
