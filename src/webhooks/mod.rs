//! Calls to customers when a generation has ended: whom, signed how, tried how often.
//!
//! A call is written with its generation's reservation, so it is lost no more than the generation is. Every replica takes
//! what is due; a replica that dies while it calls leaves the call to the others. So a customer may be called twice and
//! tells by `webhook-id`.

mod deliver;
mod sign;
mod slots;
mod target;

use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use serde_json::Value;

use crate::domain::{Clock, GenerationId, IdSource, ProjectId, Timestamp, WebhookDeliveryId};
use crate::meters::SharedMeters;
use crate::store::{AuditRecord, Store, StoreError};

pub use crate::store::{
    Cursor, Page, Webhook, WebhookAttempt, WebhookDelivery, WebhookEndpoint, WebhookForm, WebhookState,
};
pub use sign::WebhookSecret;
pub use target::TargetError;

/// How long the secret before the present one signs as well.
const OVERLAP: Duration = Duration::from_hours(24);

/// Why something cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The project has no such call.
    #[error("there is no such webhook delivery")]
    Unknown,
    /// No call of the project to this receiver has failed.
    #[error("no webhook to this endpoint has failed")]
    UnknownEndpoint,
    /// The operating system gives no random bytes.
    #[error("no random bytes for a secret: {0}")]
    NoRandomness(std::io::Error),
    /// The database.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// Writes what a customer is told: the body of a call about a generation. `None` if the books cannot tell now.
#[async_trait::async_trait]
pub trait Letter: Send + Sync {
    /// The body, the same for every try.
    async fn write(&self, generation: GenerationId, webhook: &Webhook) -> Option<Value>;
}

/// The calls. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks {
    store: Store,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    client: Client,
    allow_private: bool,
    meters: SharedMeters,
}

impl Webhooks {
    /// `allow_private` lets private and loopback addresses be called (`IMAGEGATE_WEBHOOK_ALLOW_PRIVATE`).
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
        allow_private: bool,
        meters: SharedMeters,
    ) -> Result<Self, reqwest::Error> {
        Ok(Self { store, clock, ids, client: target::client(allow_private)?, allow_private, meters })
    }

    /// A call to `url`, if that may be called. Names are looked up only when they are called.
    pub fn ask(&self, url: &str, form: WebhookForm, base_url: String) -> Result<Webhook, TargetError> {
        let host = target::host_of(&target::check(url, self.allow_private)?);
        Ok(Webhook { id: WebhookDeliveryId::from_uuid(self.ids.uuid()), url: url.to_owned(), host, form, base_url })
    }

    /// A page of a project's calls.
    pub async fn list(
        &self,
        project: ProjectId,
        generation: Option<GenerationId>,
        state: Option<WebhookState>,
        cursor: Cursor,
    ) -> Result<Page<WebhookDelivery>, WebhookError> {
        Ok(self.store.webhooks_page(project, generation, state, cursor).await?)
    }

    /// One call of a project with every try of it.
    pub async fn delivery(
        &self,
        project: ProjectId,
        id: WebhookDeliveryId,
    ) -> Result<(WebhookDelivery, Vec<WebhookAttempt>), WebhookError> {
        self.store.webhook(project, id).await?.ok_or(WebhookError::Unknown)
    }

    /// A project's receivers whose latest call failed.
    pub async fn endpoints(&self, project: ProjectId) -> Result<Vec<WebhookEndpoint>, WebhookError> {
        Ok(self.store.webhook_endpoints(project).await?)
    }

    /// Makes the calls to a receiver again that was disabled.
    pub async fn enable_endpoint(&self, project: ProjectId, host: &str) -> Result<(), WebhookError> {
        let known = self.store.enable_webhook_endpoint(project, host).await?;
        known.map(drop).ok_or(WebhookError::UnknownEndpoint)
    }

    /// How many receivers are disabled, of all projects.
    pub async fn disabled_endpoints(&self) -> Result<i64, WebhookError> {
        Ok(self.store.disabled_webhook_endpoints().await?)
    }

    /// Calls again, whether the call was taken, given up or waits.
    pub async fn redeliver(&self, project: ProjectId, id: WebhookDeliveryId) -> Result<(), WebhookError> {
        if self.store.revive_webhook(project, id, self.clock.now()).await? {
            return Ok(());
        }
        Err(WebhookError::Unknown)
    }

    /// What signs a project's calls; made when it is first asked for.
    pub async fn secret(&self, project: ProjectId) -> Result<WebhookSecret, WebhookError> {
        if let Some(row) = self.store.webhook_secret(project).await? {
            return Ok(row.into());
        }
        let secret = self.ids.secret().map_err(WebhookError::NoRandomness)?;
        self.store.insert_webhook_secret(project, &secret, self.clock.now()).await?;
        // Another replica may have been first.
        Ok(self.store.webhook_secret(project).await?.ok_or(WebhookError::Unknown)?.into())
    }

    /// A new secret; the one before signs as well for a day, so that a receiver can change over.
    /// The entry of the audit log is written with it, or neither is.
    pub async fn rotate_secret(&self, project: ProjectId, audit: &AuditRecord) -> Result<WebhookSecret, WebhookError> {
        self.secret(project).await?;
        let secret = self.ids.secret().map_err(WebhookError::NoRandomness)?;
        let now = self.clock.now();
        self.store.rotate_webhook_secret(project, &secret, now, now.plus(OVERLAP), audit).await?;
        self.secret(project).await
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
