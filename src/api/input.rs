//! Reads what clients send, apart from the image request itself: fixed bodies, queries, content types.

use std::collections::BTreeMap;

use actix_web::HttpRequest;
use actix_web::http::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use validator::Validate;

use crate::http::{Code, Problem};

/// Refuses a body that says it is something else than JSON. One that says nothing is taken for JSON.
pub fn expect_json(request: &HttpRequest) -> Result<(), Problem> {
    let Some(value) = request.headers().get(CONTENT_TYPE) else { return Ok(()) };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    let message = format!("this path takes `Content-Type: application/json`, not `{essence}`");
    Err(Problem::new(Code::UnsupportedMediaType, message))
}

/// Reads a body of a fixed shape: types by serde, ranges by `validator`, all range problems at once.
pub fn fixed_body<T: DeserializeOwned + Validate>(request: &HttpRequest, body: &[u8]) -> Result<T, Problem> {
    expect_json(request)?;
    let value: T = serde_json::from_slice(body).map_err(|fault| {
        let code = if fault.is_data() { Code::InvalidParameters } else { Code::InvalidJson };
        let entry = json!([{"code": "custom", "path": [], "message": fault.to_string(), "line": fault.line(), "column": fault.column()}]);
        Problem::new(code, format!("the body cannot be read: {fault}")).data(entry)
    })?;
    value.validate().map_err(|faults| {
        let mut entries = Vec::new();
        for (field, kinds) in faults.field_errors() {
            for kind in kinds {
                let message = kind.message.clone().unwrap_or_else(|| kind.code.clone());
                entries.push(json!({"code": kind.code, "path": [field], "message": message}));
            }
        }
        let param = entries.first().and_then(|entry| entry["path"][0].as_str()).unwrap_or_default().to_owned();
        Problem::new(Code::InvalidParameters, "Invalid payload provided").param(param).data(Value::Array(entries))
    })?;
    Ok(value)
}

/// A query string as its pairs; a list is a repeated name, `name[]`, or values with commas.
pub struct QueryPairs(BTreeMap<String, Vec<String>>);

/// Reads a request's query; names that are not in `known` are errors, so that a misspelt filter never means "all".
pub fn query(request: &HttpRequest, known: &[&str]) -> Result<QueryPairs, Problem> {
    let mut pairs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(request.query_string().as_bytes()) {
        let name = name.trim_end_matches("[]").to_owned();
        if !known.contains(&name.as_str()) {
            let message = format!("`{name}` is no filter of this path; it has {}", known.join(", "));
            return Err(super::errors::invalid_field(&name, &message));
        }
        pairs.entry(name).or_default().push(value.into_owned());
    }
    Ok(QueryPairs(pairs))
}

impl QueryPairs {
    /// The one value of a name.
    pub fn one(&self, name: &str) -> Result<Option<&str>, Problem> {
        match self.0.get(name).map(Vec::as_slice) {
            None | Some([]) => Ok(None),
            Some([value]) => Ok(Some(value.as_str()).filter(|value| !value.is_empty())),
            Some(_) => Err(super::errors::invalid_field(name, "given more than once")),
        }
    }

    /// The one value of a name, read as what it should be.
    pub fn parsed<T: std::str::FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, Problem> {
        self.one(name)?
            .map(|value| value.parse().map_err(|_| super::errors::invalid_field(name, &format!("must be {expected}"))))
            .transpose()
    }

    /// All values of a name.
    #[must_use]
    pub fn list(&self, name: &str) -> Vec<String> {
        let values = self.0.get(name).map(Vec::as_slice).unwrap_or_default();
        values.iter().flat_map(|value| value.split(',')).filter(|value| !value.is_empty()).map(str::to_owned).collect()
    }

    /// All values of a name, each read as what it should be.
    pub fn parsed_list<T: std::str::FromStr>(&self, name: &str, expected: &str) -> Result<Vec<T>, Problem> {
        let parse = |value: &String| {
            value.parse().map_err(|_| super::errors::invalid_field(name, &format!("must be {expected}")))
        };
        self.list(name).iter().map(parse).collect()
    }

    /// `limit`, from 1 to `most`.
    pub fn limit(&self, default: u32, most: u32) -> Result<u32, Problem> {
        let limit = self.parsed("limit", "a whole number")?.unwrap_or(default);
        if (1..=most).contains(&limit) {
            return Ok(limit);
        }
        Err(super::errors::invalid_field("limit", &format!("must be from 1 to {most}")))
    }
}
