//! Reads what clients send, apart from the image request itself: fixed bodies, queries, content types.

use std::collections::BTreeMap;

use actix_web::HttpRequest;
use actix_web::http::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use validator::{Validate, ValidationErrors, ValidationErrorsKind};

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
    // A list would be read as the fields in their order.
    if body.trim_ascii_start().first() == Some(&b'[') {
        let entry = json!([{"code": "invalid_type", "path": [], "message": "must be an object"}]);
        let message = "Invalid payload provided: the body is a JSON object, not a list";
        return Err(Problem::new(Code::InvalidParameters, message).data(entry));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value: T = serde_path_to_error::deserialize(&mut reader).map_err(|fault| unreadable(&fault))?;
    reader.end().map_err(|fault| no_json(&fault))?;
    value.validate().map_err(|faults| {
        let mut entries = Vec::new();
        out_of_range(&faults, &mut Vec::new(), &mut entries);
        let told = |entry: &Value| {
            let message = entry["message"].as_str().unwrap_or_default();
            format!("`{}` {message}", dotted(&entry["path"]))
        };
        let message = entries.iter().map(told).collect::<Vec<_>>().join("; ");
        let param = entries.first().map(|entry| dotted(&entry["path"])).unwrap_or_default();
        Problem::new(Code::InvalidParameters, format!("Invalid payload provided: {message}"))
            .param(param)
            .data(Value::Array(entries))
    })?;
    Ok(value)
}

/// A body that is no JSON.
fn no_json(fault: &serde_json::Error) -> Problem {
    let (message, line, column) = (fault.to_string(), fault.line(), fault.column());
    let entry = json!([{"code": "custom", "path": [], "message": message, "line": line, "column": column}]);
    Problem::new(Code::InvalidJson, format!("the body cannot be read: {message}")).data(entry)
}

/// A body that is no JSON, or has a field of another type than it must be.
fn unreadable(fault: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    if !fault.inner().is_data() {
        return no_json(fault.inner());
    }
    let text = fault.inner().to_string();
    let mut path: Vec<Value> = fault.path().iter().filter_map(step).collect();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    let quoted = |before: &str| text.strip_prefix(before).and_then(|rest| rest.split('`').next());
    let message = if let Some(missing) = quoted("missing field `") {
        path.push(missing.into());
        "is required".to_owned()
    } else if let Some(unknown) = quoted("unknown field `") {
        if path.last().and_then(Value::as_str) != Some(unknown) {
            path.push(unknown.into());
        }
        text.split_once(", expected ")
            .map_or("is not known".to_owned(), |(_, known)| format!("is not known; there is {known}"))
    } else {
        in_words_of_json(text)
    };
    let entry = json!([{"code": "invalid_type", "path": path, "message": message}]);
    let place = dotted(&entry[0]["path"]);
    if place.is_empty() {
        return Problem::new(Code::InvalidParameters, format!("Invalid payload provided: {message}")).data(entry);
    }
    Problem::new(Code::InvalidParameters, format!("Invalid payload provided: `{place}` {message}"))
        .param(place)
        .data(entry)
}

/// A step of a path; what serde cannot name is left out.
fn step(segment: &serde_path_to_error::Segment) -> Option<Value> {
    use serde_path_to_error::Segment;
    match segment {
        Segment::Seq { index } => Some((*index).into()),
        Segment::Map { key } | Segment::Enum { variant: key } => Some(key.as_str().into()),
        Segment::Unknown => None,
    }
}

/// serde's text about a type, without Rust's names for types.
fn in_words_of_json(text: &str) -> String {
    let Some((found, expected)) = text.rsplit_once(", expected ") else { return text.to_owned() };
    let found = found.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ");
    let found = found.trim_start_matches("unknown variant ");
    let expected = match expected.split(' ').next().unwrap_or_default() {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "struct" => "an object",
        _ if expected == "a map" => "an object",
        _ if expected == "a sequence" => "a list",
        _ => expected,
    };
    format!("must be {expected}, not {found}")
}

/// Every problem of `validator` with the limit that it tells.
fn out_of_range(faults: &ValidationErrors, path: &mut Vec<Value>, entries: &mut Vec<Value>) {
    for (field, kind) in faults.errors() {
        path.push(field.as_ref().into());
        match kind {
            ValidationErrorsKind::Struct(inner) => out_of_range(inner, path, entries),
            ValidationErrorsKind::List(items) => {
                for (index, inner) in items {
                    path.push((*index).into());
                    out_of_range(inner, path, entries);
                    path.pop();
                }
            }
            ValidationErrorsKind::Field(kinds) => {
                for kind in kinds {
                    let message = kind.message.clone().unwrap_or_else(|| kind.code.clone());
                    let mut entry = json!({"code": kind.code, "path": path, "message": message});
                    for (param, limit) in [("min", "minimum"), ("max", "maximum")] {
                        if let Some(value) = kind.params.get(param) {
                            entry[limit] = value.clone();
                        }
                    }
                    entries.push(entry);
                }
            }
        }
        path.pop();
    }
}

/// A path as `param` tells it.
fn dotted(path: &Value) -> String {
    let steps = path.as_array().map(Vec::as_slice).unwrap_or_default().iter();
    steps.map(|step| step.as_str().map_or_else(|| step.to_string(), str::to_owned)).collect::<Vec<_>>().join(".")
}

/// A query string as its pairs; a list is a repeated name, `name[]`, or values with commas.
pub struct QueryPairs(BTreeMap<String, Vec<String>>);

/// Reads a request's query; names that are not in `known` are errors, so that a misspelt filter never means "all".
pub fn query(request: &HttpRequest, known: &[&str]) -> Result<QueryPairs, Problem> {
    let mut pairs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(request.query_string().as_bytes()) {
        let name = name.trim_end_matches("[]").to_owned();
        if !known.contains(&name.as_str()) {
            let message = format!("unknown query parameter; allowed: {}", known.join(", "));
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

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, Validate)]
    struct Outer {
        #[validate(length(min = 1, max = 5, message = "must have 1 to 5 characters"))]
        name: String,
        #[validate(range(min = 1, max = 9, message = "must be from 1 to 9"))]
        count: Option<u32>,
        #[validate(nested)]
        inner: Option<Inner>,
    }

    #[derive(Debug, Deserialize, Validate)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[validate(range(max = 3, message = "must be at most 3"))]
        depth: u32,
    }

    fn refusal(body: &str) -> Value {
        let request = TestRequest::post().to_http_request();
        fixed_body::<Outer>(&request, body.as_bytes()).unwrap_err().error()
    }

    #[test]
    fn a_field_of_another_type_is_named_without_names_of_rust() {
        for (body, param, message) in [
            ("{}", "name", "is required"),
            (r#"{"name":7}"#, "name", "must be a string, not integer `7`"),
            (r#"{"name":"a","count":-1}"#, "count", "must be a whole number from 0, not integer `-1`"),
            (r#"{"name":"a","inner":7}"#, "inner", "must be an object, not integer `7`"),
            (r#"{"name":"a","inner":{}}"#, "inner.depth", "is required"),
            (r#"{"name":"a","inner":{"deep":1}}"#, "inner.deep", "is not known; there is `depth`"),
        ] {
            let error = refusal(body);
            assert_eq!((&error["param"], &error["data"][0]["message"]), (&json!(param), &json!(message)), "{body}");
            assert_eq!(error["message"], format!("Invalid payload provided: `{param}` {message}"));
        }
        let path = &refusal(r#"{"name":"a","inner":{}}"#)["data"][0]["path"];
        assert_eq!(*path, json!(["inner", "depth"]));
    }

    #[test]
    fn all_that_is_out_of_range_is_told_with_its_limits() {
        let error = refusal(r#"{"name":"","count":10,"inner":{"depth":4}}"#);
        let entry =
            |at: &str| error["data"].as_array().unwrap().iter().find(|entry| entry["path"][0] == at).unwrap().clone();
        assert_eq!(entry("name")["minimum"], 1);
        assert_eq!((&entry("count")["minimum"], &entry("count")["maximum"]), (&json!(1), &json!(9)));
        assert_eq!((&entry("inner")["path"], &entry("inner")["maximum"]), (&json!(["inner", "depth"]), &json!(3)));
        assert!(error["message"].as_str().unwrap().contains("`count` must be from 1 to 9"), "{error}");
    }

    #[test]
    fn a_list_is_no_object_and_what_follows_the_body_is_no_json() {
        assert_eq!(refusal(r#" ["a", 1, null]"#)["code"], "invalid_parameters");
        for body in ["", "{", r#"{"name":"a"} x"#] {
            assert_eq!(refusal(body)["code"], "invalid_json", "{body}");
        }
    }
}
