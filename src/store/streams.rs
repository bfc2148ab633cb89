//! Events as they are stored, and what the events of one generation say together.

use std::borrow::Cow;

use sqlx::FromRow;
use uuid::Uuid;

use super::connection::{Either, WriteTransaction, select_by_ids};
use super::credits::Entries;
use super::events::kind;
use super::finishing::bounds;
use super::payloads::{
    EndedContent, EndedPayload, LatePayload, ReservedContent, ReservedPayload, SubmittedPayload, read,
};
use super::rows::{Finish, Late, Reservation, Submitted};
use super::words::GenerationState;
use super::{FinalState, StoreError, Webhook, WebhookForm};
use crate::domain::{Fixed, GenerationId, Money, ProjectId, RequestId, Timestamp, WebhookDeliveryId};

/// What is known of a generation from its events: enough to decide what may happen to it.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) id: Uuid,
    /// The number of its latest event.
    pub(crate) n: i64,
    pub(crate) project_id: Uuid,
    pub(crate) api_key_id: Uuid,
    pub(crate) state: GenerationState,
    /// Whether the provider is known to have begun.
    pub(crate) started: bool,
    pub(crate) hold: i64,
    /// The number of its latest attempt; 0 for none.
    pub(crate) attempt: i64,
    /// The provider's id of that attempt.
    pub(crate) provider_request_id: Option<String>,
    /// Whether its end, or what came after it, has booked a price or a cost.
    pub(crate) booked: bool,
    /// Whether something came to light after its end.
    pub(crate) late: bool,
}

/// An event as it is stored.
#[derive(Debug, Clone, FromRow)]
pub(super) struct EventRow {
    pub(super) stream_id: Uuid,
    pub(super) n: i64,
    pub(super) writer: Uuid,
    pub(super) seq: i64,
    pub(super) kind: String,
    pub(super) project_id: Uuid,
    pub(super) api_key_id: Option<Uuid>,
    pub(super) at: i64,
    pub(super) held: i64,
    #[sqlx(flatten)]
    pub(super) entries: Entries,
    pub(super) payload: String,
    pub(super) prompt: Option<String>,
    pub(super) content: Option<String>,
}

/// What an event says, as the projections take it.
#[derive(Debug)]
pub(super) enum Event {
    /// With when its prompt is to be forgotten.
    Reserved(Box<Reservation>, Option<Timestamp>),
    Submitted(Submitted),
    Started(GenerationId, Timestamp),
    Ended(Box<Finish>),
    Late(Late),
    /// A credit, a refund, or what was carried over from before there were events: written with its projections.
    Booked,
}

impl EventRow {
    /// What it says.
    pub(super) fn event(&self) -> Result<Event, StoreError> {
        let generation = GenerationId::from_uuid(self.stream_id);
        let at = Timestamp::from_micros(self.at);
        Ok(match self.kind.as_str() {
            kind::RESERVED => self.reservation()?,
            kind::SUBMITTED => {
                let p: SubmittedPayload<'_> = read(&self.payload)?;
                Event::Submitted(Submitted {
                    generation,
                    attempt: p.attempt,
                    endpoint: p.endpoint.into_owned(),
                    credential: p.credential.into_owned(),
                    provider_request_id: p.provider_request_id.into_owned(),
                    status_url: p.status_url.into_owned(),
                    response_url: p.response_url.into_owned(),
                    cancel_url: p.cancel_url.into_owned(),
                    submitted_at: at,
                })
            }
            kind::STARTED => Event::Started(generation, at),
            kind::SETTLED | kind::RELEASED => {
                let p: EndedPayload<'_> = read(&self.payload)?;
                let content = self.ended_content()?;
                Event::Ended(Box::new(Finish {
                    generation,
                    attempt: p.attempt,
                    model: p.model.map(Cow::into_owned),
                    state: p.state.parse()?,
                    settled_at: at,
                    price: Money::from_nanos(self.entries.revenue),
                    cost: Money::from_nanos(self.entries.cost_of_sales),
                    cost_source: p.cost_source.parse()?,
                    billable_units: p.billable_units.map(Fixed::from_billionths),
                    unit_price: p.unit_price.map(Fixed::from_billionths),
                    images: p.images,
                    megapixels: Fixed::from_billionths(p.megapixels),
                    answer: content.answer.map(Cow::into_owned),
                    error: content.error.map(Cow::into_owned),
                    reason: content.reason.into_owned(),
                    release_idempotency_key: false,
                }))
            }
            kind::LATE_EVIDENCE => {
                let p: LatePayload<'_> = read(&self.payload)?;
                Event::Late(Late {
                    generation,
                    at,
                    cost: Money::from_nanos(self.entries.cost_of_sales),
                    cost_source: p.cost_source.parse()?,
                    billable_units: p.billable_units.map(Fixed::from_billionths),
                    unit_price: p.unit_price.map(Fixed::from_billionths),
                    answer: self.ended_content()?.answer.map(Cow::into_owned),
                })
            }
            _ => Event::Booked,
        })
    }

    fn ended_content(&self) -> Result<EndedContent<'_>, StoreError> {
        self.content.as_deref().map_or_else(|| Ok(EndedContent::default()), read)
    }

    fn reservation(&self) -> Result<Event, StoreError> {
        let p: ReservedPayload<'_> = read(&self.payload)?;
        let content: Option<ReservedContent<'_>> = self.content.as_deref().map(read).transpose()?;
        let (parameters, webhook) = content.map_or((None, None), |content| (Some(content.parameters), content.webhook));
        let key = self.api_key_id.ok_or_else(|| StoreError::Inconsistent("a reservation has no key".to_owned()))?;
        let webhook = webhook.map(|w| {
            Ok::<_, StoreError>(Webhook {
                id: WebhookDeliveryId::from_uuid(w.id),
                url: w.url.into_owned(),
                host: w.host.into_owned(),
                form: w.form.parse::<WebhookForm>()?,
                base_url: w.base_url.into_owned(),
            })
        });
        let reservation = Reservation {
            id: GenerationId::from_uuid(self.stream_id),
            project_id: ProjectId::from_uuid(self.project_id),
            api_key_id: crate::domain::ApiKeyId::from_uuid(key),
            created_at: Timestamp::from_micros(self.at),
            deadline_at: Timestamp::from_micros(p.deadline_at),
            model: p.model.into_owned(),
            requested_model: p.requested_model.map(Cow::into_owned),
            provider: p.provider.into_owned(),
            endpoint: p.endpoint.into_owned(),
            num_images: p.num_images,
            size: p.size.map(Cow::into_owned),
            parameters: parameters.map_or_else(|| "{}".to_owned(), Cow::into_owned),
            terms: p.terms.map(Cow::into_owned),
            prompt: self.prompt.clone(),
            user: p.user.map(Cow::into_owned),
            request_id: RequestId::from_uuid(p.request_id),
            source: p.source.into_owned(),
            hold: Money::from_nanos(self.held),
            owner: p.owner,
            cancel_if_client_leaves: p.cancel_if_client_leaves,
            idempotency: None,
            resend_digest: None,
            webhook: webhook.transpose()?,
        };
        let until = self.prompt.as_ref().and(p.prompt_until).map(Timestamp::from_micros);
        Ok(Event::Reserved(Box::new(reservation), until))
    }

    /// Takes an event into account that is later than those before.
    fn add_to(&self, stream: &mut Stream) -> Result<(), StoreError> {
        stream.n = self.n;
        match self.kind.as_str() {
            kind::SUBMITTED => {
                let p: SubmittedPayload<'_> = read(&self.payload)?;
                stream.attempt = i64::from(p.attempt);
                stream.provider_request_id = Some(p.provider_request_id.into_owned());
            }
            kind::STARTED => {
                stream.started = true;
                if stream.state.is_open() {
                    stream.state = GenerationState::Running;
                }
            }
            kind::SETTLED | kind::RELEASED => {
                let p: EndedPayload<'_> = read(&self.payload)?;
                stream.state = p.state.parse::<FinalState>()?.into();
                stream.booked = !self.entries.is_empty();
            }
            kind::LATE_EVIDENCE => {
                stream.late = true;
                stream.booked |= !self.entries.is_empty();
            }
            _ => {}
        }
        Ok(())
    }
}

impl Stream {
    /// A generation that was just reserved.
    pub(crate) fn of_reservation(r: &Reservation) -> Self {
        Self {
            id: r.id.uuid(),
            n: 1,
            project_id: r.project_id.uuid(),
            api_key_id: r.api_key_id.uuid(),
            state: GenerationState::Queued,
            started: false,
            hold: r.hold.nanos(),
            attempt: 0,
            provider_request_id: None,
            booked: false,
            late: false,
        }
    }
}

/// The columns of an event, in the order of [`EventRow`].
macro_rules! select_events {
    ($rest:literal) => {
        concat!(
            "SELECT stream_id, n, writer, seq, kind, project_id, api_key_id, at, held, project, revenue, cost_of_sales, provider,
                 funding, payload, prompt, content
             FROM ledger_events",
            $rest
        )
    };
}
pub(super) use select_events;

impl WriteTransaction {
    /// What the events of these generations say; those that are not there are left out.
    pub(crate) async fn streams(&mut self, ids: &[Uuid]) -> Result<Vec<Stream>, StoreError> {
        let (first, last) = bounds(ids.iter().copied());
        let rows: Vec<EventRow> = match self.connection() {
            Either::Postgres(connection) => {
                sqlx::query_as(select_events!(
                    " WHERE stream_id = ANY($1) AND stream_id >= $2 AND stream_id <= $3 ORDER BY stream_id, n"
                ))
                .bind(ids)
                .bind(first)
                .bind(last)
                .fetch_all(connection)
                .await?
            }
            either @ Either::Sqlite(_) => {
                select_by_ids!(either, EventRow, select_events!(" WHERE stream_id"), ids, "ORDER BY stream_id, n", "")?
            }
        };
        let mut streams: Vec<Stream> = Vec::new();
        for row in rows {
            match streams.last_mut().filter(|stream| stream.id == row.stream_id) {
                Some(stream) => row.add_to(stream)?,
                None if row.kind == kind::RESERVED => streams.push(Stream {
                    id: row.stream_id,
                    n: row.n,
                    project_id: row.project_id,
                    api_key_id: row.api_key_id.unwrap_or_default(),
                    state: GenerationState::Queued,
                    started: false,
                    hold: row.held,
                    attempt: 0,
                    provider_request_id: None,
                    booked: false,
                    late: false,
                }),
                // A credit, which is no generation.
                None => {}
            }
        }
        Ok(streams)
    }
}
