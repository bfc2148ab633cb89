//! What is appended to the ledger.

use std::borrow::Cow;

use sqlx::SqliteConnection;
use uuid::Uuid;

use super::credits::Entries;
use super::payloads::{
    CreditPayload, EndedContent, EndedPayload, LatePayload, ReservedContent, ReservedPayload, SubmittedPayload,
    WebhookContent, json,
};
use super::reserving::without_nul;
use super::rows::{Finish, Late, Reservation, Submitted};
use super::streams::Stream;
use super::{FinalState, StoreError, TransactionKind};
use crate::domain::{Fixed, Timestamp};

/// The kinds of events, as they are stored.
pub(super) mod kind {
    pub(in crate::store) const RESERVED: &str = "reserved";
    pub(in crate::store) const SUBMITTED: &str = "submitted";
    pub(in crate::store) const STARTED: &str = "started";
    pub(in crate::store) const SETTLED: &str = "settled";
    pub(in crate::store) const RELEASED: &str = "released";
    pub(in crate::store) const LATE_EVIDENCE: &str = "late_evidence";
    pub(in crate::store) const REFUNDED: &str = "refunded";
    pub(in crate::store) const CREDITED: &str = "credited";
}

/// An event to be appended. `writer` and `seq` are added by whoever appends it.
#[derive(Debug, Clone)]
pub(crate) struct NewEvent {
    pub(crate) stream_id: Uuid,
    /// Its number in the stream, from one: there must be no event with this number yet.
    pub(crate) n: i64,
    pub(super) kind: &'static str,
    pub(super) project_id: Uuid,
    pub(super) api_key_id: Option<Uuid>,
    pub(super) at: i64,
    pub(super) held: i64,
    pub(super) opened: i64,
    pub(super) entries: Entries,
    pub(super) payload: String,
    pub(super) prompt: Option<String>,
    pub(super) content: Option<String>,
}

impl NewEvent {
    /// A generation is recorded with its hold; its prompt is kept until `prompt_until`, or not at all.
    ///
    /// # Errors
    ///
    /// [`StoreError::Refused`] where the projections could not show it.
    pub(crate) fn reserved(r: &Reservation, prompt_until: Option<Timestamp>) -> Result<Self, StoreError> {
        if r.num_images == 0 {
            return Err(StoreError::Refused("a generation of no image".to_owned()));
        }
        if r.webhook.as_ref().is_some_and(|webhook| webhook.url.is_empty()) {
            return Err(StoreError::Refused("a webhook without an address".to_owned()));
        }
        let prompt = prompt_until.and(r.prompt.as_deref()).map(|prompt| without_nul(prompt).into_owned());
        let payload = ReservedPayload {
            request_id: r.request_id.uuid(),
            owner: r.owner,
            source: r.source.as_str().into(),
            model: r.model.as_str().into(),
            requested_model: r.requested_model.as_deref().map(Cow::from),
            provider: r.provider.as_str().into(),
            endpoint: r.endpoint.as_str().into(),
            num_images: r.num_images,
            size: r.size.as_deref().map(Cow::from),
            terms: r.terms.as_deref().map(Cow::from),
            user: r.user.as_deref().map(Cow::from),
            deadline_at: r.deadline_at.micros(),
            cancel_if_client_leaves: r.cancel_if_client_leaves,
            prompt_until: prompt.as_ref().and(prompt_until).map(Timestamp::micros),
        };
        let content = ReservedContent {
            parameters: r.parameters.as_str().into(),
            webhook: r.webhook.as_ref().map(|webhook| WebhookContent {
                id: webhook.id.uuid(),
                url: webhook.url.as_str().into(),
                host: webhook.host.as_str().into(),
                form: webhook.form.as_str().into(),
                base_url: webhook.base_url.as_str().into(),
            }),
        };
        Ok(Self {
            stream_id: r.id.uuid(),
            n: 1,
            kind: kind::RESERVED,
            project_id: r.project_id.uuid(),
            api_key_id: Some(r.api_key_id.uuid()),
            at: r.created_at.micros(),
            held: r.hold.nanos(),
            opened: 1,
            entries: Entries::default(),
            payload: json(&payload)?,
            prompt,
            content: Some(json(&content)?),
        })
    }

    /// The next event of a generation that changes neither what is held nor what is open.
    fn next(stream: &Stream, kind: &'static str, at: Timestamp, payload: String) -> Self {
        Self {
            stream_id: stream.id,
            n: stream.n + 1,
            kind,
            project_id: stream.project_id,
            api_key_id: Some(stream.api_key_id),
            at: at.micros(),
            held: 0,
            opened: 0,
            entries: Entries::default(),
            payload,
            prompt: None,
            content: None,
        }
    }

    /// The provider took a submit.
    pub(crate) fn submitted(stream: &Stream, s: &Submitted) -> Result<Self, StoreError> {
        let payload = SubmittedPayload {
            attempt: s.attempt,
            endpoint: s.endpoint.as_str().into(),
            credential: s.credential.as_str().into(),
            provider_request_id: s.provider_request_id.as_str().into(),
            status_url: s.status_url.as_str().into(),
            response_url: s.response_url.as_str().into(),
            cancel_url: s.cancel_url.as_str().into(),
        };
        Ok(Self::next(stream, kind::SUBMITTED, s.submitted_at, json(&payload)?))
    }

    /// The provider has begun.
    pub(crate) fn started(stream: &Stream, at: Timestamp) -> Self {
        Self::next(stream, kind::STARTED, at, "{}".to_owned())
    }

    /// A generation ends, and its hold with it.
    pub(crate) fn ended(stream: &Stream, f: &Finish) -> Result<Self, StoreError> {
        let payload = EndedPayload {
            attempt: f.attempt,
            model: f.model.as_deref().map(Cow::from),
            state: f.state.as_str().into(),
            cost_source: f.cost_source.as_str().into(),
            billable_units: f.billable_units.map(Fixed::billionths),
            unit_price: f.unit_price.map(Fixed::billionths),
            images: f.images,
            megapixels: f.megapixels.billionths(),
        };
        let content = EndedContent {
            answer: f.answer.as_deref().map(Cow::from),
            error: f.error.as_deref().map(Cow::from),
            reason: f.reason.as_str().into(),
        };
        let (price, cost) = (f.price.nanos(), f.cost.nanos());
        let kind = if f.state == FinalState::Succeeded { kind::SETTLED } else { kind::RELEASED };
        Ok(Self {
            held: -stream.hold,
            opened: -1,
            entries: Entries { project: -price, revenue: price, cost_of_sales: cost, provider: -cost, funding: 0 },
            content: Some(json(&content)?),
            ..Self::next(stream, kind, f.settled_at, json(&payload)?)
        })
    }

    /// Something came to light after the end.
    pub(crate) fn late_evidence(stream: &Stream, l: &Late) -> Result<Self, StoreError> {
        let payload = LatePayload {
            cost_source: l.cost_source.as_str().into(),
            billable_units: l.billable_units.map(Fixed::billionths),
            unit_price: l.unit_price.map(Fixed::billionths),
        };
        let content = EndedContent { answer: l.answer.as_deref().map(Cow::from), ..EndedContent::default() };
        let cost = l.cost.nanos();
        Ok(Self {
            entries: Entries { cost_of_sales: cost, provider: -cost, ..Entries::default() },
            content: Some(json(&content)?),
            ..Self::next(stream, kind::LATE_EVIDENCE, l.at, json(&payload)?)
        })
    }

    /// A credit or a refund: a stream of its own.
    pub(super) fn credited(t: &super::NewTransaction, api_key_id: Option<Uuid>) -> Result<Self, StoreError> {
        let payload = CreditPayload {
            kind: t.kind.as_str(),
            generation: t.generation_id,
            reason: &t.reason,
            author: t.author.as_deref(),
        };
        Ok(Self {
            stream_id: t.id,
            n: 1,
            kind: if t.kind == TransactionKind::Refund { kind::REFUNDED } else { kind::CREDITED },
            project_id: t.project_id,
            api_key_id,
            at: t.created_at.micros(),
            held: 0,
            opened: 0,
            entries: t.entries,
            payload: json(&payload)?,
            prompt: None,
            content: None,
        })
    }
}

/// Appends events one after the other.
pub(super) async fn insert_events_sqlite(
    connection: &mut SqliteConnection,
    writer: Uuid,
    last_seq: i64,
    events: &[NewEvent],
) -> Result<(), StoreError> {
    for (seq, e) in (last_seq + 1..).zip(events) {
        let done = sqlx::query(
            "INSERT INTO ledger_events (stream_id, n, writer, seq, kind, project_id, api_key_id, at, held, opened, project,
                 revenue, cost_of_sales, provider, funding, payload, prompt, content)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
             ON CONFLICT (stream_id, n) DO NOTHING",
        )
        .bind(e.stream_id)
        .bind(e.n)
        .bind(writer)
        .bind(seq)
        .bind(e.kind)
        .bind(e.project_id)
        .bind(e.api_key_id)
        .bind(e.at)
        .bind(e.held)
        .bind(e.opened)
        .bind(e.entries.project)
        .bind(e.entries.revenue)
        .bind(e.entries.cost_of_sales)
        .bind(e.entries.provider)
        .bind(e.entries.funding)
        .bind(e.payload.as_str())
        .bind(e.prompt.as_deref())
        .bind(e.content.as_deref())
        .execute(&mut *connection)
        .await?;
        if done.rows_affected() != 1 {
            return Err(StoreError::Conflict("somebody else appended to the same stream".to_owned()));
        }
    }
    Ok(())
}
