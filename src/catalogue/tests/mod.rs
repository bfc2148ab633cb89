//! Tests of the whole room, on the files that the program carries.

mod adapt;
mod aliases;
mod bad_input;
mod files;
mod golden;
mod habits;
mod import;
mod import_limits;
mod limits;
mod money;
mod probes;
mod schema;
mod words;

use std::sync::{Arc, LazyLock};

use serde_json::Value as Json;

use super::{Catalogue, Model, Order, Problem, Rejection, Strictness, parse};

/// The catalogue that the program carries.
fn catalogue() -> &'static Catalogue {
    static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| Catalogue::built_in().expect("the built-in files load"));
    &CATALOGUE
}

/// The models that can be ordered.
fn offered(catalogue: &Catalogue) -> impl Iterator<Item = &Arc<Model>> {
    catalogue.models().filter(|model| model.is_offered())
}

/// Orders from a request's JSON.
fn order(request: &Json) -> Result<Order, Rejection> {
    order_text(&request.to_string(), Strictness::Lenient)
}

/// Orders from a request as it stands on the wire.
fn order_text(request: &str, strictness: Strictness) -> Result<Order, Rejection> {
    let json = parse(request.as_bytes()).expect("the test's request is JSON");
    catalogue().order(&json, strictness)
}

/// The problems of a request that must have some.
fn problems(request: &Json) -> Vec<Problem> {
    match order(request) {
        Err(Rejection::Invalid(problems)) => problems,
        other => panic!("expected problems with {request}, got {other:?}"),
    }
}

/// The problems of a request as zod's issues.
fn issues(request: &Json) -> Vec<Json> {
    problems(request).iter().map(|problem| serde_json::to_value(problem).expect("a problem is JSON")).collect()
}
