//! What the operators' answers and requests have in common: lists, cursors, refusals, who asks.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use actix_web::HttpRequest;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoParams, IntoResponses, ToSchema};
use uuid::Uuid;

use crate::accounts::{AuditEvent, Caller, Cursor};
pub use crate::api::accounts_of;
use crate::api::errors::invalid_field;
use crate::api::{QueryPairs, Services};
use crate::domain::{ProjectId, Timestamp};
use crate::http::{Code, Problem};

/// The longest life of a key, in seconds: a hundred years.
pub const LONGEST_LIFE: u64 = 100 * 366 * 24 * 3600;

/// Declares a page of one kind of thing, as OpenAI's clients read it.
macro_rules! list {
    ($(#[$doc:meta])* $name:ident of $item:ty) => {
        $(#[$doc])*
        #[derive(Debug, serde::Serialize, utoipa::ToSchema)]
        pub struct $name {
            /// Always `list`.
            #[schema(example = "list")]
            object: &'static str,
            /// The things.
            data: Vec<$item>,
            /// The first one's id; null on an empty page.
            first_id: Option<String>,
            /// The last one's id: `after` for the next page; null on an empty page.
            last_id: Option<String>,
            /// Whether there are more after the last one.
            has_more: bool,
        }

        impl $name {
            /// A page from its things.
            fn of(data: Vec<$item>, has_more: bool) -> Self {
                let id = |item: Option<&$item>| item.map(|item| item.id.clone());
                Self { object: "list", first_id: id(data.first()), last_id: id(data.last()), data, has_more }
            }
        }
    };
}
pub(super) use list;

/// What is left of a thing that was deleted.
#[derive(Debug, Serialize, ToSchema)]
pub struct Deletion {
    /// The id that it had.
    id: String,
    /// What it was, and that it is gone.
    #[schema(example = "organization.project.api_key.deleted")]
    object: &'static str,
    /// Always true.
    deleted: bool,
}

impl Deletion {
    /// The thing with this id is gone.
    pub fn of(object: &'static str, id: &impl ToString) -> Self {
        Self { id: id.to_string(), object, deleted: true }
    }
}

/// What each route of this face may refuse with.
pub struct Refusals;

/// As [`Refusals`], for a route that names a thing.
pub struct RefusalsOfOne;

fn refusal(description: &str) -> RefOr<Response> {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    RefOr::T(ResponseBuilder::new().description(description).content("application/problem+json", content).build())
}

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        [
            ("400", "The request is wrong; the message tells where."),
            ("401", "No key, or one that is not valid."),
            ("403", "A project key."),
            ("409", "It cannot be done in the present state."),
            ("415", "The body is not JSON."),
            ("503", "The database is away."),
        ]
        .into_iter()
        .map(|(status, description)| (status.to_owned(), refusal(description)))
        .collect()
    }
}

impl IntoResponses for RefusalsOfOne {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = Refusals::responses();
        responses.insert("404".to_owned(), refusal("There is nothing of this id."));
        responses
    }
}

/// Which part of a list is asked for.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its description is used: the query is read with `cursor`")]
pub struct Paging {
    /// How many, 1 to 100; 20 if not given.
    #[param(minimum = 1, maximum = 100, required = false, nullable = false)]
    limit: Option<u32>,
    /// The id to go on after: `last_id` of the page before.
    #[param(required = false, nullable = false)]
    after: Option<String>,
}

/// Writes into the audit log that rows of this kind are read in bulk, with the filters that say which.
pub async fn note_export(
    request: &HttpRequest,
    caller: &Caller,
    services: &Services,
    what: &str,
    project: Option<ProjectId>,
) -> Result<(), Problem> {
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(request.query_string().as_bytes()).into_owned().collect();
    let filters: Map<String, Value> = query.into_iter().map(|(name, value)| (name, value.into())).collect();
    // A filter may name a project that is not there.
    let project = match project {
        Some(id) => services.accounts.project(id).await?.map(|project| project.id),
        None => None,
    };
    let accounts = accounts_of(request, caller, services);
    Ok(accounts.note(AuditEvent::DataExported, project, what.to_owned(), &json!({"filters": filters})).await?)
}

/// An id of a path; one that cannot be is an unknown one.
pub fn id_of<T: FromStr>(text: &str, what: &str) -> Result<T, Problem> {
    text.parse().map_err(|_| not_found(text, what))
}

/// There is nothing of this id.
pub fn not_found(id: &str, what: &str) -> Problem {
    Problem::new(Code::NotFound, format!("there is no {what} `{id}`")).param("id")
}

/// `limit`, `after` and, where it is given, `order`.
pub fn cursor<T: FromStr>(
    pairs: &QueryPairs,
    what: &str,
    uuid: impl Fn(T) -> Uuid,
    most: u32,
) -> Result<Cursor, Problem> {
    let oldest_first = match pairs.one("order")? {
        None | Some("desc") => false,
        Some("asc") => true,
        Some(_) => return Err(invalid_field("order", "must be `asc` or `desc`")),
    };
    let after = pairs.parsed::<T>("after", &format!("{what}'s id"))?.map(uuid);
    Ok(Cursor { after, oldest_first, limit: pairs.limit(20, most)? })
}

/// The end of a key that lives for so many seconds from now.
pub fn end_of(seconds: Option<u64>, now: Timestamp) -> Option<Timestamp> {
    seconds.map(|seconds| now.plus(Duration::from_secs(seconds)))
}
