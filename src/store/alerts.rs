//! Spend alerts, what months were charged so far, and how long prompts are kept.

use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::connection::{WriteTransaction, on_both, within};
use super::error::must_touch;
use super::rows::{Cursor, Page};
use super::{Retention, Store, StoreError};
use crate::domain::{Money, ProjectId, SpendAlertId, Timestamp};

/// A spend alert, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpendAlertRecord {
    /// Its id.
    pub id: SpendAlertId,
    /// Whose spending it watches; all projects' together when `None`.
    pub project_id: Option<ProjectId>,
    /// What a calendar month (UTC) is charged when it goes off; above zero.
    pub threshold: Money,
    /// Whom the operator's own tools shall tell.
    pub recipients: Vec<String>,
    /// What their message's subject shall begin with.
    pub subject_prefix: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A spend alert whose amount is reached, and the month in which it is.
#[derive(Debug, Clone)]
pub(crate) struct DueAlert {
    pub(crate) alert: SpendAlertRecord,
    pub(crate) month: Timestamp,
    pub(crate) spent: Money,
}

/// What all projects together were charged in a month and have set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Charged in the month.
    pub spent: Money,
    /// Set aside for what is open.
    pub held: Money,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    project_id: Option<Uuid>,
    threshold: i64,
    recipients: String,
    subject_prefix: Option<String>,
    created_at: i64,
}

#[derive(FromRow)]
struct DueRow {
    #[sqlx(flatten)]
    alert: Row,
    month: i64,
    spent: i64,
}

impl TryFrom<Row> for SpendAlertRecord {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let recipients = serde_json::from_str(&row.recipients)
            .map_err(|_| StoreError::Inconsistent(format!("`recipients` of spend alert `{}`", row.id)))?;
        Ok(Self {
            id: SpendAlertId::from_uuid(row.id),
            project_id: row.project_id.map(ProjectId::from_uuid),
            threshold: Money::from_nanos(row.threshold),
            recipients,
            subject_prefix: row.subject_prefix,
            created_at: Timestamp::from_micros(row.created_at),
        })
    }
}

fn recipients_text(alert: &SpendAlertRecord) -> String {
    serde_json::Value::from(alert.recipients.clone()).to_string()
}

macro_rules! select_alerts {
    ($rest:literal) => {
        concat!("SELECT id, project_id, threshold, recipients, subject_prefix, created_at FROM spend_alerts ", $rest)
    };
}

impl WriteTransaction {
    /// Writes a new spend alert.
    pub(crate) async fn insert_alert(&mut self, alert: &SpendAlertRecord) -> Result<(), StoreError> {
        on_both!(self.connection(), connection =>
            sqlx::query("INSERT INTO spend_alerts (id, project_id, threshold, recipients, subject_prefix, created_at)
                         VALUES ($1, $2, $3, $4, $5, $6)")
                .bind(alert.id.uuid()).bind(alert.project_id.map(ProjectId::uuid)).bind(alert.threshold.nanos())
                .bind(recipients_text(alert)).bind(alert.subject_prefix.as_deref()).bind(alert.created_at.micros())
                .execute(connection).await.map(drop))?;
        Ok(())
    }

    /// One spend alert.
    pub(crate) async fn alert(&mut self, id: SpendAlertId) -> Result<Option<SpendAlertRecord>, StoreError> {
        let row = on_both!(self.connection(), connection =>
            sqlx::query_as::<_, Row>(select_alerts!("WHERE id = $1"))
                .bind(id.uuid()).fetch_optional(connection).await)?;
        row.map(SpendAlertRecord::try_from).transpose()
    }

    /// Writes what may change about a spend alert; it may go off again.
    pub(crate) async fn update_alert(&mut self, alert: &SpendAlertRecord) -> Result<(), StoreError> {
        let touched = on_both!(self.connection(), connection =>
            sqlx::query("UPDATE spend_alerts SET threshold = $2, recipients = $3, subject_prefix = $4, fired_in = NULL
                         WHERE id = $1")
                .bind(alert.id.uuid()).bind(alert.threshold.nanos()).bind(recipients_text(alert))
                .bind(alert.subject_prefix.as_deref())
                .execute(connection).await.map(|done| done.rows_affected()))?;
        must_touch("spend_alerts", touched, 1)
    }

    /// Removes a spend alert.
    pub(crate) async fn delete_alert(&mut self, id: SpendAlertId) -> Result<(), StoreError> {
        let touched = on_both!(self.connection(), connection =>
            sqlx::query("DELETE FROM spend_alerts WHERE id = $1")
                .bind(id.uuid()).execute(connection).await.map(|done| done.rows_affected()))?;
        must_touch("spend_alerts", touched, 1)
    }

    /// Notes that an alert goes off in a month. Whether it had not done so: of two replicas one gets `true`.
    pub(crate) async fn fire_alert(&mut self, id: SpendAlertId, month: Timestamp) -> Result<bool, StoreError> {
        let touched = on_both!(self.connection(), connection =>
            sqlx::query("UPDATE spend_alerts SET fired_in = $2
                         WHERE id = $1 AND (fired_in IS NULL OR fired_in < $2)")
                .bind(id.uuid()).bind(month.micros())
                .execute(connection).await.map(|done| done.rows_affected()))?;
        Ok(touched == 1)
    }

    /// How long the organization keeps prompts, where a project has not chosen.
    pub(crate) async fn organization_retention(&mut self) -> Result<Retention, StoreError> {
        Ok(on_both!(self.connection(), connection =>
            sqlx::query_scalar::<_, String>("SELECT data_retention FROM organization").fetch_one(connection).await)?
        .parse()?)
    }

    /// Sets it; projects that have not chosen keep prompts for so many microseconds from now on.
    pub(crate) async fn set_organization_retention(
        &mut self,
        retention: Retention,
        before: i64,
        micros: i64,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let touched = on_both!(self.connection(), connection => {
            // One that was given a time of its own keeps it.
            sqlx::query("UPDATE projects SET prompt_retention = $1,
                             shorten_prompts_at = CASE WHEN prompt_retention > $1 THEN $3 ELSE shorten_prompts_at END
                         WHERE data_retention = 'organization_default' AND prompt_retention = $2")
                .bind(micros).bind(before).bind(now.micros()).execute(&mut *connection).await?;
            sqlx::query("UPDATE organization SET data_retention = $1").bind(retention.as_str())
                .execute(&mut *connection).await?.rows_affected()
        });
        must_touch("organization", touched, 1)
    }

    /// What a project has chosen.
    pub(crate) async fn project_retention(&mut self, id: ProjectId) -> Result<Retention, StoreError> {
        Ok(on_both!(self.connection(), connection =>
            sqlx::query_scalar::<_, String>("SELECT data_retention FROM projects WHERE id = $1")
                .bind(id.uuid()).fetch_one(connection).await)?
        .parse()?)
    }

    /// Sets what a project has chosen, with the microseconds that follow from it.
    pub(crate) async fn set_project_retention(
        &mut self,
        id: ProjectId,
        retention: Retention,
        micros: i64,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let touched = on_both!(self.connection(), connection =>
            sqlx::query("UPDATE projects SET data_retention = $2, prompt_retention = $3,
                             shorten_prompts_at = CASE WHEN prompt_retention > $3 THEN $4 ELSE shorten_prompts_at END
                         WHERE id = $1")
                .bind(id.uuid()).bind(retention.as_str()).bind(micros).bind(now.micros())
                .execute(connection).await.map(|done| done.rows_affected()))?;
        must_touch("projects", touched, 1)
    }
}

impl Store {
    /// A page of the spend alerts of a project, or of the organization.
    pub(crate) async fn alerts_page(
        &self,
        project: Option<ProjectId>,
        id: Option<SpendAlertId>,
        cursor: Cursor,
    ) -> Result<Page<SpendAlertRecord>, StoreError> {
        let rows = within(self.options().report_timeout, async {
            let mut reader = self.reader().await?;
            on_both!(reader.connection(), connection => {
                let mut query = QueryBuilder::new(select_alerts!("WHERE "));
                match project {
                    Some(project) => query.push("project_id = ").push_bind(project.uuid()),
                    None => query.push("project_id IS NULL"),
                };
                if let Some(id) = id {
                    query.push(" AND id = ").push_bind(id.uuid());
                }
                cursor.push(&mut query, "id");
                Ok(query.build_query_as::<Row>().fetch_all(connection).await?)
            })
        })
        .await?;
        let alerts: Result<Vec<_>, _> = rows.into_iter().map(SpendAlertRecord::try_from).collect();
        Ok(cursor.page(alerts?))
    }

    /// The alerts whose amount the month of `now` has reached, and that have not gone off in it.
    pub(crate) async fn due_alerts(&self, now: Timestamp) -> Result<Vec<DueAlert>, StoreError> {
        let rows = within(self.options().report_timeout, async {
            let mut reader = self.reader().await?;
            Ok(on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, DueRow>(
                    "SELECT a.id, a.project_id, a.threshold, a.recipients, a.subject_prefix, a.created_at,
                         m.starts_at AS month, CAST(SUM(m.spent) AS BIGINT) AS spent
                     FROM spend_alerts a
                     JOIN monthly_spend m ON m.starts_at <= $1 AND m.ends_at > $1
                         AND (a.project_id IS NULL OR m.project_id = a.project_id)
                     WHERE a.fired_in IS NULL OR a.fired_in < m.starts_at
                     GROUP BY a.id, a.project_id, a.threshold, a.recipients, a.subject_prefix, a.created_at, m.starts_at
                     HAVING SUM(m.spent) >= a.threshold ORDER BY a.id")
                    .bind(now.micros()).fetch_all(connection).await)?)
        })
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(DueAlert {
                    alert: row.alert.try_into()?,
                    month: Timestamp::from_micros(row.month),
                    spent: Money::from_nanos(row.spent),
                })
            })
            .collect()
    }

    /// What all projects together were charged in the month of `now` and have set aside.
    pub async fn organization_standing(&self, now: Timestamp) -> Result<Standing, StoreError> {
        within(self.options().report_timeout, async {
            let mut reader = self.reader().await?;
            let (spent, held) = on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, (i64, i64)>(
                    "SELECT CAST(COALESCE((SELECT SUM(spent) FROM monthly_spend
                                           WHERE starts_at <= $1 AND ends_at > $1), 0) AS BIGINT),
                            CAST(COALESCE((SELECT SUM(held) FROM balances), 0) AS BIGINT)")
                    .bind(now.micros()).fetch_one(connection).await)?;
            Ok(Standing { spent: Money::from_nanos(spent), held: Money::from_nanos(held) })
        })
        .await
    }
}
