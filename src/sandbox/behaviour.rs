//! Misbehaviour on request: the rules that say which call goes wrong, and how.
//!
//! A rule comes by `POST /__sandbox/behaviour` and holds for everybody whom it matches, or in the header
//! `x-sandbox-behaviour` of one submit and holds for that request alone. In JSON:
//!
//! ```json
//! {"match": {"endpoint": "fal-ai/flux/dev", "prompt_contains": "fox"}, "times": 2, "at": "result",
//!  "do": {"status": 503, "hang_ms": 200}}
//! ```
//!
//! `match` may be left out (all), as may `times` (for ever) and `at` (`submit`). The header takes a list as well, or the
//! object of `do` alone. The first rule that matches counts; one call obeys one rule.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use actix_web::HttpRequest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The request header that carries rules.
pub const HEADER: &str = "x-sandbox-behaviour";
/// Most rules held at a time.
const MOST_RULES: usize = 1_000;

/// The calls that can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// A submit to the queue.
    #[default]
    Submit,
    /// A status read, or the status stream.
    Status,
    /// A read of the result.
    Result,
    /// A cancel.
    Cancel,
    /// The fetch of a picture's file; knows the words on the picture, not the endpoint.
    File,
    /// A synchronous run.
    Run,
    /// A streamed run.
    Stream,
    /// A call to fal's storage.
    Storage,
    /// A call to the platform API.
    Platform,
}

/// One rule.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Whom it holds for.
    #[serde(default, rename = "match")]
    pub condition: Condition,
    /// How often it still holds; absent, for ever.
    #[serde(default)]
    pub times: Option<u64>,
    /// Which call it holds for.
    #[serde(default)]
    pub at: Stage,
    /// What goes wrong.
    #[serde(rename = "do")]
    pub action: Action,
}

/// Whom a rule holds for; what is absent matches all.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Condition {
    /// The endpoint's full id.
    pub endpoint: Option<String>,
    /// A part of the prompt.
    pub prompt_contains: Option<String>,
}

/// What goes wrong. Several things may be named together.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Action {
    /// This HTTP status instead of the true answer.
    pub status: Option<u16>,
    /// With `status`: this body, JSON as it is, a text as plain text; absent, `{"detail": …}`.
    pub body: Option<Value>,
    /// With `status`: these headers as well.
    pub headers: BTreeMap<String, String>,
    /// The call takes effect first (a submit is taken, a cancel is done), then its answer goes wrong.
    pub after: bool,
    /// Milliseconds of silence before the answer, at most ten minutes.
    pub hang_ms: u64,
    /// The connection is closed without an answer.
    pub drop_connection: bool,
    /// The head, half of the body, then the connection is closed.
    pub half_answer: bool,
    /// The body trickles over so many milliseconds.
    pub slow_body_ms: Option<u64>,
    /// At submit, run or stream: what becomes of the request.
    #[serde(flatten)]
    pub fate: Fate,
}

/// What becomes of a request; counts at `submit`, `run` and `stream`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own that a rule turns")]
pub struct Fate {
    /// Milliseconds in the queue.
    pub queue_ms: Option<u64>,
    /// Milliseconds on the runner.
    pub run_ms: Option<u64>,
    /// Every picture is flagged and black.
    pub nsfw: bool,
    /// The content checker refuses the prompt.
    pub content_policy: bool,
    /// The run fails with this status and body.
    pub fail: Option<Fail>,
    /// So many pictures, whatever was asked for; zero is none.
    pub images: Option<usize>,
    /// This in `x-fal-billable-units`.
    pub wrong_units: Option<String>,
    /// A cancel is taken, and the run goes on to its end.
    pub ignore_cancel: bool,
    /// The request is not found once it has been taken.
    pub forget: bool,
    /// So many webhooks more than the one that is due.
    pub duplicate_webhook: u32,
    /// No webhook.
    pub no_webhook: bool,
    /// Webhooks with a signature that is not ours.
    pub bad_signature: bool,
}

/// How a run fails.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fail {
    /// HTTP status of the result.
    pub status: u16,
    /// Body of the result; absent, `{"detail": "Internal Server Error"}`.
    #[serde(default)]
    pub body: Option<Value>,
    /// As the status names it.
    #[serde(default)]
    pub error_type: Option<String>,
}

impl Rule {
    fn holds(&self, at: Stage, endpoint: Option<&str>, prompt: &str) -> bool {
        let Condition { endpoint: wanted, prompt_contains } = &self.condition;
        self.at == at
            && wanted.as_deref().is_none_or(|wanted| endpoint == Some(wanted))
            && prompt_contains.as_deref().is_none_or(|part| prompt.contains(part))
    }
}

/// The rules that hold now.
#[derive(Debug, Default)]
pub struct Rules(Mutex<Vec<Rule>>);

impl Rules {
    /// Starts with some rules.
    pub const fn new(rules: Vec<Rule>) -> Self {
        Self(Mutex::new(rules))
    }

    /// Adds rules behind the others; `false` if there are too many.
    pub fn add(&self, rules: Vec<Rule>) -> bool {
        let mut held = self.rules();
        let fits = held.len() + rules.len() <= MOST_RULES;
        if fits {
            held.extend(rules);
        }
        fits
    }

    /// What goes wrong with this call: the first rule that holds, used up by one.
    pub fn take(&self, at: Stage, endpoint: Option<&str>, prompt: &str) -> Option<Action> {
        let mut rules = self.rules();
        let place = rules.iter().position(|rule| rule.times != Some(0) && rule.holds(at, endpoint, prompt))?;
        let rule = rules.get_mut(place)?;
        let action = rule.action.clone();
        if let Some(times) = &mut rule.times {
            *times -= 1;
            if *times == 0 {
                rules.remove(place);
            }
        }
        Some(action)
    }

    /// All rules, for show.
    pub fn all(&self) -> Vec<Rule> {
        self.rules().clone()
    }

    /// Behaves again.
    pub fn clear(&self) {
        self.rules().clear();
    }

    fn rules(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads one rule, a list of rules, or the object of `do` alone.
pub fn read(text: &[u8]) -> Result<Vec<Rule>, serde_json::Error> {
    let value: Value = serde_json::from_slice(text)?;
    match value {
        Value::Array(rules) => rules.into_iter().map(serde_json::from_value).collect(),
        Value::Object(ref fields) if fields.contains_key("do") => Ok(vec![serde_json::from_value(value)?]),
        value => Ok(vec![Rule { action: serde_json::from_value(value)?, ..Rule::default() }]),
    }
}

/// The rules that a request brings itself; none if the header is missing, an error text if it cannot be read.
pub fn of_request(request: &HttpRequest) -> Result<Vec<Rule>, String> {
    match request.headers().get(HEADER) {
        None => Ok(Vec::new()),
        Some(header) => read(header.as_bytes()).map_err(|error| format!("`{HEADER}` cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_holds_for_whom_it_names_and_as_often_as_it_says() {
        let text = br#"{"match": {"endpoint": "a/b", "prompt_contains": "fox"}, "times": 2, "at": "status", "do": {"status": 503}}"#;
        let rules = Rules::new(read(text).unwrap());
        assert!(rules.take(Stage::Submit, Some("a/b"), "a fox").is_none());
        assert!(rules.take(Stage::Status, Some("a/c"), "a fox").is_none());
        assert!(rules.take(Stage::Status, Some("a/b"), "a cat").is_none());
        for _ in 0..2 {
            assert_eq!(rules.take(Stage::Status, Some("a/b"), "a fox").unwrap().status, Some(503));
        }
        assert!(rules.take(Stage::Status, Some("a/b"), "a fox").is_none());
        assert!(rules.all().is_empty());
    }

    #[test]
    fn a_rule_without_a_count_holds_for_ever() {
        let rules = Rules::new(read(br#"{"nsfw": true}"#).unwrap());
        for _ in 0..9 {
            assert!(rules.take(Stage::Submit, Some("a/b"), "").unwrap().fate.nsfw);
        }
    }

    #[test]
    fn a_word_that_means_nothing_is_refused() {
        for text in [r#"{"do": {"stauts": 1}}"#, r#"{"stauts": 1}"#, r#"{"at": "nowhere", "do": {}}"#, "[1]", "1"] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
