//! Receivers of webhooks that fail, and those that are disabled for it.

use std::time::Duration;

use sqlx::FromRow;

use super::connection::{on_both, within};
use super::{Store, StoreError};
use crate::domain::{ProjectId, Timestamp};

/// A project's receiver of webhooks whose latest call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookEndpoint {
    /// Host and port.
    pub host: String,
    /// How many calls failed in a row.
    pub failures: u64,
    /// Why the latest one did.
    pub last_error: String,
    /// When it did.
    pub failed_at: Timestamp,
    /// Since when it is disabled, and when one call is tried all the same.
    pub disabled: Option<(Timestamp, Timestamp)>,
}

/// When a receiver is disabled, and how long it is left alone then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Breaker {
    /// So many failures in a row disable it.
    pub failures: u64,
    /// The wait before the first probe.
    pub first_wait: Duration,
    /// The longest wait before another one; each is as long as it has been disabled.
    pub longest_wait: Duration,
}

#[derive(FromRow)]
struct Row {
    host: String,
    failures: i64,
    last_error: String,
    failed_at: i64,
    disabled_at: Option<i64>,
    probe_at: Option<i64>,
}

impl From<Row> for WebhookEndpoint {
    fn from(row: Row) -> Self {
        let disabled = row.disabled_at.zip(row.probe_at);
        Self {
            host: row.host,
            failures: u64::try_from(row.failures).unwrap_or(0),
            last_error: row.last_error,
            failed_at: Timestamp::from_micros(row.failed_at),
            disabled: disabled.map(|(since, probe)| (Timestamp::from_micros(since), Timestamp::from_micros(probe))),
        }
    }
}

impl Store {
    /// Records that a call failed, and disables the receiver where the breaker says so. The receiver as it is then.
    pub(crate) async fn note_webhook_failure(
        &self,
        project: ProjectId,
        host: &str,
        error: &str,
        now: Timestamp,
        breaker: Breaker,
    ) -> Result<WebhookEndpoint, StoreError> {
        within(self.options().write_timeout, async {
            let mut transaction = self.begin().await?;
            let endpoint = on_both!(transaction.connection(), connection => {
                let row: Row = sqlx::query_as(
                    "INSERT INTO webhook_endpoints (project_id, host, failures, last_error, failed_at)
                     VALUES ($1, $2, 1, $3, $4)
                     ON CONFLICT (project_id, host) DO UPDATE SET failures = webhook_endpoints.failures + 1,
                         last_error = excluded.last_error, failed_at = excluded.failed_at
                     RETURNING host, failures, last_error, failed_at, disabled_at, probe_at")
                    .bind(project.uuid()).bind(host).bind(error).bind(now.micros())
                    .fetch_one(&mut *connection).await?;
                let mut endpoint = WebhookEndpoint::from(row);
                if let Some(disabled) = breaker.disables(&endpoint, now) {
                    sqlx::query("UPDATE webhook_endpoints SET disabled_at = $3, probe_at = $4
                                 WHERE project_id = $1 AND host = $2")
                        .bind(project.uuid()).bind(host).bind(disabled.0.micros()).bind(disabled.1.micros())
                        .execute(connection).await?;
                    endpoint.disabled = Some(disabled);
                }
                endpoint
            });
            transaction.commit().await?;
            Ok(endpoint)
        })
        .await
    }

    /// Enables a receiver, since it answers or somebody wants it. Whether it was disabled; `None` if no call of it failed.
    pub(crate) async fn enable_webhook_endpoint(
        &self,
        project: ProjectId,
        host: &str,
    ) -> Result<Option<bool>, StoreError> {
        within(self.options().write_timeout, async {
            let mut transaction = self.begin().await?;
            let removed = on_both!(transaction.connection(), connection =>
                sqlx::query_scalar::<_, Option<i64>>(
                    "DELETE FROM webhook_endpoints WHERE project_id = $1 AND host = $2 RETURNING disabled_at")
                    .bind(project.uuid()).bind(host).fetch_optional(connection).await)?;
            transaction.commit().await?;
            Ok(removed.map(|disabled_at| disabled_at.is_some()))
        })
        .await
    }

    /// A project's receivers whose latest call failed, by name.
    pub(crate) async fn webhook_endpoints(&self, project: ProjectId) -> Result<Vec<WebhookEndpoint>, StoreError> {
        let rows = within(self.options().read_timeout, async {
            let mut reader = self.reader().await?;
            Ok(on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, Row>(
                    "SELECT host, failures, last_error, failed_at, disabled_at, probe_at FROM webhook_endpoints
                     WHERE project_id = $1 ORDER BY host")
                    .bind(project.uuid()).fetch_all(connection).await)?)
        })
        .await?;
        Ok(rows.into_iter().map(WebhookEndpoint::from).collect())
    }

    /// How many receivers are disabled, of all projects.
    pub(crate) async fn disabled_webhook_endpoints(&self) -> Result<i64, StoreError> {
        within(self.options().read_timeout, async {
            let mut reader = self.reader().await?;
            Ok(on_both!(reader.connection(), connection =>
                sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM webhook_endpoints WHERE disabled_at IS NOT NULL")
                    .fetch_one(connection).await)?)
        })
        .await
    }

    /// Gives up calls to disabled receivers whose time is over although they were not tried: those that should have been
    /// made before `before`. At most `limit`; returns how many.
    pub(crate) async fn give_up_disabled_webhooks(
        &self,
        now: Timestamp,
        before: Timestamp,
        limit: u32,
    ) -> Result<u64, StoreError> {
        within(self.options().write_timeout, async {
            let mut transaction = self.begin().await?;
            let touched = on_both!(transaction.connection(), connection => {
                // A receiver of which nothing has been heard for so long has no calls left.
                sqlx::query("DELETE FROM webhook_endpoints WHERE failed_at < $1 AND NOT EXISTS (
                                 SELECT 1 FROM webhook_deliveries d WHERE d.project_id = webhook_endpoints.project_id
                                     AND d.host = webhook_endpoints.host AND d.state = 'pending')")
                    .bind(before.micros()).execute(&mut *connection).await?;
                sqlx::query("UPDATE webhook_deliveries SET state = 'failed', next_at = NULL, ended_at = $1
                             WHERE state = 'pending' AND id IN (
                                 SELECT d.id FROM webhook_endpoints e
                                 JOIN webhook_deliveries d ON d.project_id = e.project_id AND d.host = e.host
                                 JOIN generations g ON g.id = d.generation_id
                                 WHERE e.disabled_at IS NOT NULL AND d.state = 'pending' AND d.next_at <= $1
                                     AND (d.gives_up_at < $1 OR d.gives_up_at IS NULL AND g.settled_at < $2)
                                 ORDER BY d.id LIMIT $3)")
                    .bind(now.micros()).bind(before.micros()).bind(i64::from(limit))
                    .execute(connection).await?.rows_affected()
            });
            transaction.commit().await?;
            Ok(touched)
        })
        .await
    }
}

impl Breaker {
    /// Since when the receiver is disabled after this failure, and when it is probed. A call that was under way when it was
    /// disabled does not put the probe off.
    fn disables(self, endpoint: &WebhookEndpoint, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        match endpoint.disabled {
            None if endpoint.failures < self.failures => None,
            None => Some((now, now.plus(self.first_wait))),
            Some((_, probe)) if probe > now => None,
            Some((since, _)) => Some((since, now.plus(now.since(since).clamp(self.first_wait, self.longest_wait)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::on_both_databases;
    use super::*;

    const BREAKER: Breaker =
        Breaker { failures: 3, first_wait: Duration::from_secs(30), longest_wait: Duration::from_secs(100) };

    on_both_databases! {
        async fn a_receiver_is_disabled_after_failures_in_a_row_and_probed_more_and_more_seldom(database) {
            let (store, mut now) = (database.store().await, Timestamp::from_seconds(1000));
            let (project, _) = store.add_project(now).await;
            let fail = async |now| store.note_webhook_failure(project, "a:443", "no answer", now, BREAKER).await.unwrap();
            assert_eq!(fail(now).await.disabled, None);
            assert_eq!(fail(now).await.disabled, None);
            let since = now;
            assert_eq!(fail(now).await.disabled, Some((since, now.plus(Duration::from_secs(30)))));
            // This one was under way.
            now = now.plus(Duration::from_secs(10));
            assert_eq!(fail(now).await.disabled, Some((since, since.plus(Duration::from_secs(30)))));
            for (later, wait) in [(20, 30), (40, 70), (80, 100)] {
                now = now.plus(Duration::from_secs(later));
                assert_eq!(fail(now).await.disabled, Some((since, now.plus(Duration::from_secs(wait)))), "{later}");
            }
            assert_eq!(store.disabled_webhook_endpoints().await.unwrap(), 1);
            let listed = store.webhook_endpoints(project).await.unwrap();
            assert_eq!((listed.len(), listed[0].failures, listed[0].last_error.as_str()), (1, 7, "no answer"));
        }

        async fn a_receiver_that_is_enabled_begins_again(database) {
            let (store, now) = (database.store().await, Timestamp::from_seconds(1000));
            let (project, _) = store.add_project(now).await;
            assert_eq!(store.enable_webhook_endpoint(project, "a:443").await.unwrap(), None);
            for failures in 1..=3 {
                let endpoint = store.note_webhook_failure(project, "a:443", "down", now, BREAKER).await.unwrap();
                assert_eq!(endpoint.disabled.is_some(), failures == 3);
            }
            assert_eq!(store.enable_webhook_endpoint(project, "a:443").await.unwrap(), Some(true));
            assert_eq!(store.webhook_endpoints(project).await.unwrap(), []);
            let endpoint = store.note_webhook_failure(project, "a:443", "down", now, BREAKER).await.unwrap();
            assert_eq!((endpoint.failures, endpoint.disabled), (1, None));
            assert_eq!(store.enable_webhook_endpoint(project, "a:443").await.unwrap(), Some(false));
        }
    }
}
