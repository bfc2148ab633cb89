//! What a page's form or address sends.

use serde_json::{Map, Value};

/// The fields of a form or a query, in their order.
pub struct Form(Vec<(String, String)>);

impl Form {
    /// From a form's body.
    pub fn read(body: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(body).map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    /// A field without blanks around it; empty if it was not sent.
    pub fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.trim())
    }

    /// A field, if something was filled in.
    pub fn given(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    /// Every value of a field that may be sent several times.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The lines of a field that have something in them.
    pub fn lines(&self, name: &str) -> Vec<&str> {
        self.text(name).lines().map(str::trim).filter(|line| !line.is_empty()).collect()
    }

    /// A field as a query carries it.
    pub fn encoded(&self, name: &str) -> String {
        encode(self.text(name))
    }

    /// The fields of these names that were filled in, as a query.
    pub fn query(&self, names: &[&str]) -> String {
        let given = names.iter().filter(|name| self.given(name).is_some());
        given.map(|name| format!("{name}={}", self.encoded(name))).collect::<Vec<_>>().join("&")
    }

    /// The fields of these names that were filled in, as JSON: texts.
    pub fn object(&self, names: &[&str]) -> Map<String, Value> {
        let given = names.iter().filter_map(|name| Some(((*name).to_owned(), self.given(name)?.into())));
        given.collect()
    }
}

/// A text as a query or a path carries it.
pub fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}
