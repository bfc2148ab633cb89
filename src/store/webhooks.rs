//! What is to be called when a generation has ended, what came of it, and what signs the calls.

use std::time::Duration;

use sqlx::{FromRow, QueryBuilder, SqliteConnection};
use uuid::Uuid;

use super::connection::{on_both, within};
use super::error::must_touch;
use super::rows::{Cursor, Page, Reservation};
use super::words::{WebhookForm, WebhookState};
use super::{AuditRecord, Store, StoreError};
use crate::domain::{GenerationId, ProjectId, Timestamp, WebhookDeliveryId};

/// A call that a customer wants when a generation has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The id of the call; every try of it carries it.
    pub id: WebhookDeliveryId,
    /// Whom to call.
    pub url: String,
    /// Host and port of it.
    pub host: String,
    /// In whose words.
    pub form: WebhookForm,
    /// How the customer reached the gateway, for links to it.
    pub base_url: String,
}

/// A call, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookDelivery {
    /// What is called, and how.
    pub webhook: Webhook,
    /// The generation that it tells of.
    pub generation_id: GenerationId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// How it stands.
    pub state: WebhookState,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it is tried next, once its generation has ended.
    pub next_at: Option<Timestamp>,
    /// When it is given up; set by the first try.
    pub gives_up_at: Option<Timestamp>,
    /// When it was delivered or given up.
    pub ended_at: Option<Timestamp>,
}

/// One try of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookAttempt {
    /// One for the first.
    pub n: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// The answer's status, if there was an answer.
    pub status: Option<u16>,
    /// Why it does not count as delivered.
    pub error: Option<String>,
}

/// What follows from a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WebhookNext {
    /// It was taken.
    Delivered,
    /// It is tried again.
    Again { at: Timestamp, gives_up_at: Timestamp },
    /// It is not tried again.
    GivenUp,
}

/// How many calls there may be at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WebhookShare {
    /// For one project.
    pub project: u32,
    /// For one of its hosts.
    pub host: u32,
}

/// A call that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DueWebhook {
    pub id: WebhookDeliveryId,
    pub project_id: ProjectId,
    /// Host and port of its receiver.
    pub host: String,
    /// Whether the latest call to the receiver failed.
    pub has_failed: bool,
    /// Whether the receiver is disabled, so that this call is a probe.
    pub is_disabled: bool,
}

/// What signs a project's calls.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecretRow {
    /// The secret.
    pub secret: Vec<u8>,
    /// The one before, and until when it signs as well.
    pub previous: Option<(Vec<u8>, Timestamp)>,
    /// When the secret was made.
    pub created_at: Timestamp,
}

impl std::fmt::Debug for WebhookSecretRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookSecretRow").field("created_at", &self.created_at).finish_non_exhaustive()
    }
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    generation_id: Uuid,
    project_id: Uuid,
    url: String,
    host: String,
    form: String,
    base_url: String,
    state: String,
    attempts: i64,
    created_at: i64,
    next_at: Option<i64>,
    gives_up_at: Option<i64>,
    ended_at: Option<i64>,
}

#[derive(FromRow)]
struct DueRow {
    id: Uuid,
    project_id: Uuid,
    host: String,
    has_failed: bool,
    is_disabled: bool,
}

impl From<DueRow> for DueWebhook {
    fn from(row: DueRow) -> Self {
        let DueRow { id, project_id, host, has_failed, is_disabled } = row;
        let (id, project_id) = (WebhookDeliveryId::from_uuid(id), ProjectId::from_uuid(project_id));
        Self { id, project_id, host, has_failed, is_disabled }
    }
}

#[derive(FromRow)]
struct AttemptRow {
    n: i64,
    started_at: i64,
    duration: i64,
    status: Option<i64>,
    error: Option<String>,
}

#[derive(FromRow)]
struct SecretRow {
    secret: Vec<u8>,
    previous: Option<Vec<u8>>,
    previous_until: Option<i64>,
    created_at: i64,
}

impl TryFrom<Row> for WebhookDelivery {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            webhook: Webhook {
                id: WebhookDeliveryId::from_uuid(row.id),
                url: row.url,
                host: row.host,
                form: row.form.parse()?,
                base_url: row.base_url,
            },
            generation_id: GenerationId::from_uuid(row.generation_id),
            project_id: ProjectId::from_uuid(row.project_id),
            state: row.state.parse()?,
            attempts: u32::try_from(row.attempts).unwrap_or(u32::MAX),
            created_at: Timestamp::from_micros(row.created_at),
            next_at: row.next_at.map(Timestamp::from_micros),
            gives_up_at: row.gives_up_at.map(Timestamp::from_micros),
            ended_at: row.ended_at.map(Timestamp::from_micros),
        })
    }
}

impl From<AttemptRow> for WebhookAttempt {
    fn from(row: AttemptRow) -> Self {
        Self {
            n: u32::try_from(row.n).unwrap_or(u32::MAX),
            started_at: Timestamp::from_micros(row.started_at),
            duration: Duration::from_micros(u64::try_from(row.duration).unwrap_or_default()),
            status: row.status.and_then(|status| u16::try_from(status).ok()),
            error: row.error,
        }
    }
}

macro_rules! select_webhooks {
    ($rest:literal) => {
        concat!(
            "SELECT id, generation_id, project_id, url, host, form, base_url, state, attempts, created_at, next_at,
                 gives_up_at, ended_at
             FROM webhook_deliveries ",
            $rest
        )
    };
}

/// Records the calls that reservations ask for.
pub(super) async fn insert_webhooks_sqlite(
    connection: &mut SqliteConnection,
    rows: &[(&Reservation, &Webhook)],
) -> Result<(), StoreError> {
    for (reservation, webhook) in rows {
        let done = sqlx::query(
            "INSERT INTO webhook_deliveries (id, generation_id, project_id, url, host, form, base_url, created_at, next_at)
             VALUES ($1, $2, $3, $4, $8, $5, $6, $7, $7)",
        )
        .bind(webhook.id.uuid())
        .bind(reservation.id.uuid())
        .bind(reservation.project_id.uuid())
        .bind(webhook.url.as_str())
        .bind(webhook.form.as_str())
        .bind(webhook.base_url.as_str())
        .bind(reservation.created_at.micros())
        .bind(webhook.host.as_str())
        .execute(&mut *connection)
        .await?;
        must_touch("webhook_deliveries", done.rows_affected(), 1)?;
    }
    Ok(())
}

impl Store {
    /// Calls that are due and whose generations have ended, at most `limit`. Projects take turns, and so do the hosts of a
    /// project: `share` says how many calls there are for one project and for one of its hosts. Of a disabled receiver there
    /// are none until it is to be probed, and then one.
    pub(crate) async fn due_webhooks(
        &self,
        now: Timestamp,
        share: WebhookShare,
        limit: u32,
    ) -> Result<Vec<DueWebhook>, StoreError> {
        let rows = within(self.options().read_timeout, async {
            let mut reader = self.reader_as_is().await?;
            Ok(on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, DueRow>(
                    "SELECT id, project_id, host, has_failed, is_disabled FROM (
                         SELECT id, project_id, host, has_failed, is_disabled, next_at,
                             ROW_NUMBER() OVER (PARTITION BY project_id ORDER BY of_host, next_at, id) AS of_project
                         FROM (
                             SELECT d.id, d.project_id, d.host, d.next_at, e.failures IS NOT NULL AS has_failed,
                                 e.disabled_at IS NOT NULL AS is_disabled,
                                 ROW_NUMBER() OVER (PARTITION BY d.project_id, d.host ORDER BY d.next_at, d.id) AS of_host
                             FROM webhook_deliveries d
                             JOIN generations g ON g.id = d.generation_id
                             LEFT JOIN webhook_endpoints e ON e.project_id = d.project_id AND e.host = d.host
                             WHERE d.state = 'pending' AND d.next_at <= $1 AND g.settled_at IS NOT NULL
                                 AND (e.probe_at IS NULL OR e.probe_at <= $1)) due
                         WHERE of_host <= CASE WHEN is_disabled THEN 1 ELSE $2 END) shared
                     WHERE of_project <= $3 ORDER BY of_project, next_at, id LIMIT $4")
                    .bind(now.micros()).bind(i64::from(share.host)).bind(i64::from(share.project)).bind(i64::from(limit))
                    .fetch_all(connection).await)?)
        })
        .await?;
        Ok(rows.into_iter().map(DueWebhook::from).collect())
    }

    /// Takes those of the calls for this replica that are still due: no other takes them before `until`.
    pub(crate) async fn claim_webhooks(
        &self,
        ids: &[WebhookDeliveryId],
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<WebhookDelivery>, StoreError> {
        let rows = within(self.options().write_timeout, async {
            let mut transaction = self.begin().await?;
            let skip_locked = if self.is_postgres() { " FOR UPDATE SKIP LOCKED" } else { "" };
            let rows = on_both!(transaction.connection(), connection => {
                let mut query = QueryBuilder::new("UPDATE webhook_deliveries SET next_at = (");
                query.push_bind(until.micros());
                query.push(") WHERE id IN (SELECT id FROM webhook_deliveries WHERE state = 'pending' AND next_at <= ");
                query.push_bind(now.micros()).push(" AND id IN (");
                let mut listed = query.separated(", ");
                for id in ids {
                    listed.push_bind(id.uuid());
                }
                query.push(") ORDER BY id").push(skip_locked).push(
                    ") RETURNING id, generation_id, project_id, url, host, form, base_url, state, attempts, created_at,
                         next_at, gives_up_at, ended_at");
                query.build_query_as::<Row>().fetch_all(connection).await?
            });
            transaction.commit().await?;
            Ok(rows)
        })
        .await?;
        rows.into_iter().map(WebhookDelivery::try_from).collect()
    }

    /// Writes what came of a try, unless another replica has written that try already. Whether it was written.
    pub(crate) async fn record_webhook_attempt(
        &self,
        id: WebhookDeliveryId,
        attempt: &WebhookAttempt,
        next: WebhookNext,
    ) -> Result<bool, StoreError> {
        let ended_at = attempt.started_at.plus(attempt.duration).micros();
        let (state, next_at, gives_up_at, ended_at) = match next {
            WebhookNext::Delivered => (WebhookState::Delivered, None, None, Some(ended_at)),
            WebhookNext::GivenUp => (WebhookState::Failed, None, None, Some(ended_at)),
            WebhookNext::Again { at, gives_up_at } => {
                (WebhookState::Pending, Some(at.micros()), Some(gives_up_at.micros()), None)
            }
        };
        within(self.options().write_timeout, async {
            let mut transaction = self.begin().await?;
            let touched = on_both!(transaction.connection(), connection =>
                sqlx::query("UPDATE webhook_deliveries SET state = $3, attempts = $2, next_at = $4, ended_at = $6,
                                 gives_up_at = COALESCE(gives_up_at, $5)
                             WHERE id = $1 AND state = 'pending' AND attempts = $2 - 1")
                    .bind(id.uuid()).bind(i64::from(attempt.n)).bind(state.as_str())
                    .bind(next_at).bind(gives_up_at).bind(ended_at)
                    .execute(connection).await.map(|done| done.rows_affected()))?;
            if touched == 0 {
                return Ok(false);
            }
            let duration = i64::try_from(attempt.duration.as_micros()).unwrap_or(i64::MAX);
            on_both!(transaction.connection(), connection =>
                sqlx::query("INSERT INTO webhook_attempts (delivery_id, n, started_at, duration, status, error)
                             VALUES ($1, $2, $3, $4, $5, $6)")
                    .bind(id.uuid()).bind(i64::from(attempt.n)).bind(attempt.started_at.micros()).bind(duration)
                    .bind(attempt.status.map(i64::from)).bind(attempt.error.as_deref())
                    .execute(connection).await.map(drop))?;
            transaction.commit().await?;
            Ok(true)
        })
        .await
    }

    /// Tries an ended call of a project anew, from `now` on. Whether there is such a call.
    pub(crate) async fn revive_webhook(
        &self,
        project: ProjectId,
        id: WebhookDeliveryId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        within(self.options().write_timeout, async {
            let mut transaction = self.begin().await?;
            let touched = on_both!(transaction.connection(), connection =>
                sqlx::query("UPDATE webhook_deliveries SET state = 'pending', next_at = $3, gives_up_at = NULL,
                                 ended_at = NULL
                             WHERE id = $1 AND project_id = $2")
                    .bind(id.uuid()).bind(project.uuid()).bind(now.micros())
                    .execute(connection).await.map(|done| done.rows_affected()))?;
            // Somebody waits for it: a disabled receiver is probed now.
            on_both!(transaction.connection(), connection =>
                sqlx::query("UPDATE webhook_endpoints SET probe_at = $3
                             WHERE probe_at > $3 AND project_id = $2 AND host = (
                                 SELECT host FROM webhook_deliveries WHERE id = $1 AND project_id = $2)")
                    .bind(id.uuid()).bind(project.uuid()).bind(now.micros())
                    .execute(connection).await.map(drop))?;
            transaction.commit().await?;
            Ok(touched == 1)
        })
        .await
    }

    /// A page of a project's calls.
    pub(crate) async fn webhooks_page(
        &self,
        project: ProjectId,
        generation: Option<GenerationId>,
        state: Option<WebhookState>,
        cursor: Cursor,
    ) -> Result<Page<WebhookDelivery>, StoreError> {
        let rows = within(self.options().read_timeout, async {
            let mut reader = self.reader().await?;
            on_both!(reader.connection(), connection => {
                let mut query = QueryBuilder::new(select_webhooks!("WHERE project_id = "));
                query.push_bind(project.uuid());
                if let Some(generation) = generation {
                    query.push(" AND generation_id = ").push_bind(generation.uuid());
                }
                if let Some(state) = state {
                    query.push(" AND state = ").push_bind(state.as_str());
                }
                cursor.push(&mut query, "id");
                Ok(query.build_query_as::<Row>().fetch_all(connection).await?)
            })
        })
        .await?;
        let deliveries: Result<Vec<_>, _> = rows.into_iter().map(WebhookDelivery::try_from).collect();
        Ok(cursor.page(deliveries?))
    }

    /// One call of a project with every try of it.
    pub(crate) async fn webhook(
        &self,
        project: ProjectId,
        id: WebhookDeliveryId,
    ) -> Result<Option<(WebhookDelivery, Vec<WebhookAttempt>)>, StoreError> {
        let found = within(self.options().read_timeout, async {
            let mut reader = self.reader().await?;
            on_both!(reader.connection(), connection => {
                let row = sqlx::query_as::<_, Row>(select_webhooks!("WHERE project_id = $1 AND id = $2"))
                    .bind(project.uuid()).bind(id.uuid()).fetch_optional(&mut *connection).await?;
                let attempts = sqlx::query_as::<_, AttemptRow>(
                        "SELECT n, started_at, duration, status, error FROM webhook_attempts
                         WHERE delivery_id = $1 ORDER BY n")
                    .bind(id.uuid()).fetch_all(connection).await?;
                Ok(row.map(|row| (row, attempts)))
            })
        })
        .await?;
        let Some((row, attempts)) = found else { return Ok(None) };
        Ok(Some((row.try_into()?, attempts.into_iter().map(WebhookAttempt::from).collect())))
    }

    /// What signs a project's calls, if it has been made.
    pub(crate) async fn webhook_secret(&self, project: ProjectId) -> Result<Option<WebhookSecretRow>, StoreError> {
        let row = within(self.options().read_timeout, async {
            let mut reader = self.reader().await?;
            Ok(on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, SecretRow>(
                    "SELECT secret, previous, previous_until, created_at FROM webhook_secrets WHERE project_id = $1")
                    .bind(project.uuid()).fetch_optional(connection).await)?)
        })
        .await?;
        Ok(row.map(|row| WebhookSecretRow {
            secret: row.secret,
            previous: row.previous.zip(row.previous_until.map(Timestamp::from_micros)),
            created_at: Timestamp::from_micros(row.created_at),
        }))
    }

    /// Gives a project its first secret; one that it has stays.
    pub(crate) async fn insert_webhook_secret(
        &self,
        project: ProjectId,
        secret: &[u8],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        within(self.options().write_timeout, async {
            let mut transaction = self.begin().await?;
            on_both!(transaction.connection(), connection =>
                sqlx::query("INSERT INTO webhook_secrets (project_id, secret, created_at) VALUES ($1, $2, $3)
                             ON CONFLICT (project_id) DO NOTHING")
                    .bind(project.uuid()).bind(secret).bind(now.micros()).execute(connection).await.map(drop))?;
            transaction.commit().await
        })
        .await
    }

    /// Gives a project a new secret; the one it has signs as well until `until`. With its entry of the audit log.
    pub(crate) async fn rotate_webhook_secret(
        &self,
        project: ProjectId,
        secret: &[u8],
        now: Timestamp,
        until: Timestamp,
        audit: &AuditRecord,
    ) -> Result<(), StoreError> {
        within(self.options().write_timeout, async {
            let mut transaction = self.begin().await?;
            let touched = on_both!(transaction.connection(), connection =>
                sqlx::query("UPDATE webhook_secrets SET previous = secret, previous_until = $4, secret = $2,
                                 created_at = $3
                             WHERE project_id = $1")
                    .bind(project.uuid()).bind(secret).bind(now.micros()).bind(until.micros())
                    .execute(connection).await.map(|done| done.rows_affected()))?;
            must_touch("webhook_secrets", touched, 1)?;
            transaction.insert_audit(audit).await?;
            transaction.commit().await
        })
        .await
    }

    /// Removes calls that ended before `before`, with their tries: at most `limit`. How many.
    pub(crate) async fn purge_webhooks(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        within(self.options().write_timeout, async {
            let mut transaction = self.begin().await?;
            let removed = on_both!(transaction.connection(), connection => {
                sqlx::query("DELETE FROM webhook_attempts WHERE delivery_id IN (
                                 SELECT id FROM webhook_deliveries WHERE ended_at < $1 ORDER BY ended_at, id LIMIT $2)")
                    .bind(before.micros()).bind(i64::from(limit)).execute(&mut *connection).await?;
                sqlx::query("DELETE FROM webhook_deliveries WHERE id IN (
                                 SELECT id FROM webhook_deliveries WHERE ended_at < $1 ORDER BY ended_at, id LIMIT $2)
                             AND NOT EXISTS (SELECT 1 FROM webhook_attempts WHERE delivery_id = webhook_deliveries.id)")
                    .bind(before.micros()).bind(i64::from(limit)).execute(connection).await?.rows_affected()
            });
            transaction.commit().await?;
            Ok(removed)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::on_both_databases;
    use super::super::webhook_endpoints::Breaker;
    use super::*;

    on_both_databases! {
        async fn no_project_leaves_another_without_a_turn_however_many_receivers_it_has(database) {
            let store = database.store().await;
            let now = Timestamp::from_seconds(1000);
            let (many, _) = store.add_project(now).await;
            let (one, _) = store.add_project(now).await;
            store.add_due_webhooks(many, 600, 0, "'host-' || CAST(created_at AS TEXT)").await;
            store.add_due_webhooks(many, 600, 10_000, "'host-1'").await;
            store.add_due_webhooks(one, 20, 500_000, "'host-2'").await;
            let share = WebhookShare { project: 16, host: 4 };
            let due = store.due_webhooks(now, share, 512).await.unwrap();
            let of = |project| due.iter().filter(move |due| due.project_id == project);
            assert_eq!((of(many).count(), of(one).count()), (16, 4));
            assert_eq!(due[1].project_id, one, "the second place is the other project's");
            assert!(of(many).filter(|due| due.host == "host-1").count() < 2, "its hosts take turns");

            let breaker = Breaker { failures: 1, first_wait: Duration::from_secs(30), longest_wait: Duration::from_hours(1) };
            store.note_webhook_failure(one, "host-2", "no answer", now, breaker).await.unwrap();
            let count = async |at| {
                let due = store.due_webhooks(at, share, 512).await.unwrap();
                due.iter().filter(|due| due.project_id == one && due.is_disabled && due.has_failed).count()
            };
            assert_eq!(count(now.plus(Duration::from_secs(29))).await, 0);
            assert_eq!(count(now.plus(Duration::from_secs(30))).await, 1);
        }
    }
}
