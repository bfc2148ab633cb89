//! Reading generations: one, a list, the open ones; and taking over those whose replica has died.

use std::time::Duration;

use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::adopting::take_over;
use super::connection::{on_both, select_by_ids, within};
use super::rows::{AttemptRecord, GenerationFilter, GenerationRecord, Outcome, Page};
use super::{Store, StoreError};
use crate::domain::{ApiKeyId, Fixed, GenerationId, Money, ProjectId, RequestId, Timestamp};

/// The largest page of a list.
const LARGEST_PAGE: u32 = 1000;

/// A generation with its latest attempt, which ends with it.
macro_rules! select_generations {
    ($rest:literal) => {
        concat!(
            "SELECT g.id, g.project_id, g.api_key_id, g.request_id, g.state, g.owner, g.source, g.model, g.provider,
                 g.endpoint, g.num_images, g.size, g.parameters, g.terms, g.prompt, g.end_user, g.cancel_if_client_leaves,
                 g.requested_model, g.created_at, g.deadline_at, g.started_at, g.settled_at, g.price, g.cost + g.late_cost AS cost, g.late_at,
                 g.cost_source,
                 g.billable_units, g.unit_price, g.images, g.megapixels, g.answer, g.error, g.reason,
                 g.erased_at, g.hold, a.n AS attempt_n, a.endpoint AS attempt_endpoint, a.credential,
                 a.provider_request_id, a.status_url, a.response_url, a.cancel_url, a.submitted_at,
                 COALESCE(a.replaced_at, g.settled_at) AS attempt_ended_at,
                 CASE WHEN a.replaced_at IS NOT NULL THEN 'replaced' WHEN g.settled_at IS NOT NULL THEN g.state END
                     AS attempt_outcome
             FROM generations g LEFT JOIN attempts a ON a.generation_id = g.id
                 AND a.n = (SELECT MAX(n) FROM attempts WHERE generation_id = g.id)",
            $rest
        )
    };
}

/// Adds the conditions of a filter to a statement about `generations g`.
macro_rules! push_conditions {
    ($query:ident, $filter:ident, $is_postgres:expr) => {
        if let Some(from) = $filter.created_from {
            $query.push(" AND g.created_at >= ").push_bind(from.micros());
        }
        if let Some(before) = $filter.created_before {
            $query.push(" AND g.created_at < ").push_bind(before.micros());
        }
        if let Some(project) = $filter.project_id {
            $query.push(" AND g.project_id = ").push_bind(project.uuid());
        }
        if let Some(key) = $filter.api_key_id {
            $query.push(" AND g.api_key_id = ").push_bind(key.uuid());
        }
        if let Some(model) = &$filter.model {
            $query.push(" AND g.model = ").push_bind(model.as_str());
        }
        if let Some(state) = $filter.state {
            $query.push(" AND g.state = ").push_bind(state.as_str());
        }
        if let Some(user) = &$filter.user {
            $query.push(" AND g.end_user = ").push_bind(user.as_str());
        }
        if let Some(id) = &$filter.provider_request_id {
            $query
                .push(" AND g.id IN (SELECT generation_id FROM attempts WHERE provider_request_id = ")
                .push_bind(id.as_str())
                .push(")");
        }
        for (condition, amount) in [
            ("g.cost + g.late_cost >= ", $filter.cost_from),
            ("g.cost + g.late_cost <= ", $filter.cost_to),
            ("g.price >= ", $filter.price_from),
            ("g.price <= ", $filter.price_to),
        ] {
            if let Some(amount) = amount {
                $query.push(" AND ").push(condition).push_bind(amount.nanos());
            }
        }
        if !$filter.models.is_empty() {
            $query.push(" AND g.model IN (");
            let mut list = $query.separated(", ");
            for model in &$filter.models {
                list.push_bind(model.as_str());
            }
            $query.push(")");
        }
        if $filter.ended {
            $query.push(" AND g.settled_at IS NOT NULL");
        }
        match $filter.succeeded {
            Some(true) => drop($query.push(" AND g.state = 'succeeded'")),
            Some(false) => drop($query.push(" AND g.state <> 'succeeded'")),
            None => {}
        }
        if $filter.drifted {
            // As the partial index has it.
            let find = if $is_postgres { "strpos" } else { "instr" };
            $query.push(format_args!(" AND {find}(g.answer, '\"computed_cost_usd\":') > 0"));
        }
    };
}

#[derive(FromRow)]
struct GenerationRow {
    id: Uuid,
    project_id: Uuid,
    api_key_id: Uuid,
    request_id: Uuid,
    state: String,
    owner: Uuid,
    source: String,
    model: String,
    requested_model: Option<String>,
    provider: String,
    endpoint: String,
    num_images: i64,
    size: Option<String>,
    parameters: String,
    terms: Option<String>,
    prompt: Option<String>,
    end_user: Option<String>,
    cancel_if_client_leaves: bool,
    created_at: i64,
    deadline_at: i64,
    started_at: Option<i64>,
    hold: i64,
    erased_at: Option<i64>,
    #[sqlx(flatten)]
    outcome: OutcomeColumns,
    #[sqlx(flatten)]
    attempt: AttemptColumns,
}

#[derive(FromRow)]
struct OutcomeColumns {
    settled_at: Option<i64>,
    price: Option<i64>,
    cost: Option<i64>,
    late_at: Option<i64>,
    cost_source: Option<String>,
    billable_units: Option<i64>,
    unit_price: Option<i64>,
    images: Option<i64>,
    megapixels: Option<i64>,
    answer: Option<String>,
    error: Option<String>,
    reason: Option<String>,
}

#[derive(FromRow)]
struct AttemptColumns {
    attempt_n: Option<i64>,
    attempt_endpoint: Option<String>,
    credential: Option<String>,
    provider_request_id: Option<String>,
    status_url: Option<String>,
    response_url: Option<String>,
    cancel_url: Option<String>,
    submitted_at: Option<i64>,
    attempt_ended_at: Option<i64>,
    attempt_outcome: Option<String>,
}

/// A column that must have a value where its neighbours do.
fn present<T>(column: &str, value: Option<T>) -> Result<T, StoreError> {
    value.ok_or_else(|| StoreError::Inconsistent(format!("`{column}` is missing")))
}

/// A count as it was written: never negative, never beyond 32 bits.
fn count(column: &str, value: i64) -> Result<u32, StoreError> {
    u32::try_from(value).map_err(|_| StoreError::Inconsistent(format!("`{column}` is {value}")))
}

impl OutcomeColumns {
    fn outcome(self) -> Result<Option<Outcome>, StoreError> {
        let Some(settled_at) = self.settled_at else {
            return Ok(None);
        };
        Ok(Some(Outcome {
            settled_at: Timestamp::from_micros(settled_at),
            price: Money::from_nanos(present("price", self.price)?),
            cost: Money::from_nanos(present("cost", self.cost)?),
            late_at: self.late_at.map(Timestamp::from_micros),
            cost_source: present("cost_source", self.cost_source)?.parse()?,
            billable_units: self.billable_units.map(Fixed::from_billionths),
            unit_price: self.unit_price.map(Fixed::from_billionths),
            images: count("images", present("images", self.images)?)?,
            megapixels: Fixed::from_billionths(present("megapixels", self.megapixels)?),
            answer: self.answer,
            error: self.error,
            reason: present("reason", self.reason)?,
        }))
    }
}

impl AttemptColumns {
    fn attempt(self) -> Result<Option<AttemptRecord>, StoreError> {
        let Some(n) = self.attempt_n else {
            return Ok(None);
        };
        Ok(Some(AttemptRecord {
            n: count("n", n)?,
            endpoint: present("endpoint", self.attempt_endpoint)?,
            credential: present("credential", self.credential)?,
            provider_request_id: present("provider_request_id", self.provider_request_id)?,
            status_url: present("status_url", self.status_url)?,
            response_url: present("response_url", self.response_url)?,
            cancel_url: present("cancel_url", self.cancel_url)?,
            submitted_at: Timestamp::from_micros(present("submitted_at", self.submitted_at)?),
            ended_at: self.attempt_ended_at.map(Timestamp::from_micros),
            outcome: self.attempt_outcome.map(|word| word.parse()).transpose()?,
        }))
    }
}

impl GenerationRow {
    fn record(self) -> Result<GenerationRecord, StoreError> {
        let attempt = self.attempt.attempt()?;
        Ok(GenerationRecord {
            id: GenerationId::from_uuid(self.id),
            project_id: ProjectId::from_uuid(self.project_id),
            api_key_id: ApiKeyId::from_uuid(self.api_key_id),
            request_id: RequestId::from_uuid(self.request_id),
            state: self.state.parse()?,
            owner: self.owner,
            source: self.source,
            model: self.model,
            requested_model: self.requested_model,
            provider: self.provider,
            endpoint: attempt.as_ref().map_or(self.endpoint, |attempt| attempt.endpoint.clone()),
            num_images: count("num_images", self.num_images)?,
            size: self.size,
            parameters: self.parameters,
            terms: self.terms,
            prompt: self.prompt,
            user: self.end_user,
            cancel_if_client_leaves: self.cancel_if_client_leaves,
            created_at: Timestamp::from_micros(self.created_at),
            deadline_at: Timestamp::from_micros(self.deadline_at),
            started_at: self.started_at.map(Timestamp::from_micros),
            hold: Money::from_nanos(self.hold),
            erased_at: self.erased_at.map(Timestamp::from_micros),
            attempt,
            outcome: self.outcome.outcome()?,
        })
    }
}

fn records(rows: Vec<GenerationRow>) -> Result<Vec<GenerationRecord>, StoreError> {
    rows.into_iter().map(GenerationRow::record).collect()
}

impl Store {
    /// One generation.
    pub async fn generation(&self, id: GenerationId) -> Result<Option<GenerationRecord>, StoreError> {
        within(self.options().read_timeout, async {
            let mut reader = self.reader().await?;
            let row = on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, GenerationRow>(select_generations!(" WHERE g.id = $1"))
                    .bind(id.uuid()).fetch_optional(connection).await)?;
            row.map(GenerationRow::record).transpose()
        })
        .await
    }

    /// All submits of one generation, first to last.
    pub async fn attempts(&self, id: GenerationId) -> Result<Vec<AttemptRecord>, StoreError> {
        let rows = within(self.options().read_timeout, async {
            let mut reader = self.reader().await?;
            Ok(on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, AttemptColumns>(
                    "SELECT a.n AS attempt_n, a.endpoint AS attempt_endpoint, a.credential, a.provider_request_id,
                         a.status_url, a.response_url, a.cancel_url, a.submitted_at,
                         COALESCE(a.replaced_at, g.settled_at) AS attempt_ended_at,
                         CASE WHEN a.replaced_at IS NOT NULL THEN 'replaced' WHEN g.settled_at IS NOT NULL THEN g.state END
                             AS attempt_outcome
                     FROM attempts a JOIN generations g ON g.id = a.generation_id
                     WHERE a.generation_id = $1 ORDER BY a.n")
                    .bind(id.uuid()).fetch_all(connection).await)?)
        })
        .await?;
        rows.into_iter().filter_map(|row| row.attempt().transpose()).collect()
    }

    /// A page of generations, newest first.
    pub async fn list_generations(&self, filter: &GenerationFilter) -> Result<Page<GenerationRecord>, StoreError> {
        let limit = filter.limit.clamp(1, LARGEST_PAGE);
        let rows = within(self.options().report_timeout, async {
            let mut reader = self.report_reader(filter.project_id).await?;
            on_both!(reader.connection(), connection => {
                let mut query = QueryBuilder::new(select_generations!(" WHERE TRUE"));
                push_conditions!(query, filter, self.is_postgres());
                if let Some(after) = filter.after {
                    query.push(" AND g.id < ").push_bind(after.uuid());
                }
                query.push(" ORDER BY g.id DESC LIMIT ").push_bind(i64::from(limit) + 1);
                if filter.offset > 0 {
                    query.push(" OFFSET ").push_bind(i64::from(filter.offset));
                }
                Ok(query.build_query_as::<GenerationRow>().fetch_all(connection).await?)
            })
        })
        .await?;
        let mut items = records(rows)?;
        let has_more = items.len() > limit as usize;
        items.truncate(limit as usize);
        Ok(Page { items, has_more })
    }

    /// How many generations match; `after`, `offset` and `limit` do not count.
    pub async fn count_generations(&self, filter: &GenerationFilter) -> Result<u64, StoreError> {
        let count = within(self.options().report_timeout, async {
            let mut reader = self.report_reader(filter.project_id).await?;
            on_both!(reader.connection(), connection => {
                let mut query = QueryBuilder::new("SELECT COUNT(*) FROM generations g WHERE TRUE");
                push_conditions!(query, filter, self.is_postgres());
                Ok(query.build_query_scalar::<i64>().fetch_one(connection).await?)
            })
        })
        .await?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// The open generations of a replica, oldest first.
    pub(crate) async fn open_generations(&self, owner: Uuid) -> Result<Vec<GenerationRecord>, StoreError> {
        within(self.options().read_timeout, async {
            let mut reader = self.reader().await?;
            let rows = on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, GenerationRow>(select_generations!(
                    " WHERE g.owner = $1 AND g.state IN ('queued', 'running') ORDER BY g.id"))
                    .bind(owner).fetch_all(connection).await)?;
            records(rows)
        })
        .await
    }

    /// Generations that were given up since then, whose requests the provider took and nobody knows the outcome of.
    pub(crate) async fn given_up(&self, since: Timestamp, limit: u32) -> Result<Vec<GenerationRecord>, StoreError> {
        within(self.options().read_timeout, async {
            let mut reader = self.reader().await?;
            let rows = on_both!(reader.connection(), connection =>
                sqlx::query_as::<_, GenerationRow>(select_generations!(
                    " WHERE g.settled_at >= $1 AND g.state = 'expired' AND g.late_at IS NULL AND a.n IS NOT NULL
                     ORDER BY g.settled_at LIMIT $2"))
                    .bind(since.micros()).bind(i64::from(limit)).fetch_all(connection).await)?;
            records(rows)
        })
        .await
    }

    /// Makes `owner` the owner of at most `limit` open generations whose replica gave no sign of life for `stale_after`, or
    /// never did. Two replicas that ask at once get different ones.
    pub(crate) async fn adopt(
        &self,
        owner: Uuid,
        stale_after: Duration,
        limit: u32,
    ) -> Result<Vec<GenerationRecord>, StoreError> {
        within(self.options().write_timeout, async {
            let mut transaction = self.begin().await?;
            let adopted = take_over(transaction.connection(), owner, stale_after, limit).await?;
            let rows = select_by_ids!(
                transaction.connection(),
                GenerationRow,
                select_generations!(" WHERE g.id"),
                &adopted,
                "ORDER BY g.id",
                ""
            )?;
            transaction.commit().await?;
            records(rows)
        })
        .await
    }
}
