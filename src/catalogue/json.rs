//! The JSON of a request as a borrowed tree: exact integers, keys in the client's order, repeated keys kept and known.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON value that borrows its texts from the request's body where it can.
#[derive(Debug, Clone, PartialEq)]
pub enum Json<'a> {
    /// `null`: for an optional parameter the same as not given.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    String(Cow<'a, str>),
    /// A list.
    Array(Array<'a>),
    /// An object.
    Object(Object<'a>),
}

/// A JSON number; an integer is never passed through a float.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// Written without point and exponent, and within 64 bits.
    Integer(i128),
    /// Any other; always finite.
    Float(f64),
}

/// A list, and whether an object anywhere in it repeats a key.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Array<'a> {
    items: Vec<Json<'a>>,
    repeats_below: bool,
}

/// An object: its entries in the client's order, and which of them repeat a key given before.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object<'a> {
    entries: Vec<(Cow<'a, str>, Json<'a>)>,
    repeated: Vec<usize>,
    repeats_below: bool,
}

/// Why a body is no JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the body is not valid JSON: {message} at line {line} column {column}")]
pub struct JsonError {
    /// What is wrong, without the place.
    pub message: String,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1; 0 at the very start of a line.
    pub column: usize,
}

/// Objects up to this size are searched for repeated keys by comparing each with each, which is quicker than hashing.
const SMALL_OBJECT: usize = 16;

/// Most values that a request's body may have, names of fields included: a tree of them takes many times what its text does.
const MOST_VALUES: usize = 50_000;

/// Errors if a body has more than 50,000 values, before it is read.
pub fn check_values(bytes: &[u8]) -> Result<(), JsonError> {
    // Each but the first follows one of these characters.
    if bytes.len() <= MOST_VALUES {
        return Ok(());
    }
    let (mut count, mut at) = (1, 0);
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => at += length_of_text(&bytes[at..]),
            b',' | b':' | b'[' | b'{' => count += 1,
            _ => {}
        }
        if count > MOST_VALUES {
            let message = format!("it has more than {MOST_VALUES} values");
            return Err(JsonError { message, line: 1, column: at });
        }
    }
    Ok(())
}

/// How many bytes there are up to the end of a text, its closing quote included.
fn length_of_text(rest: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let Some(found) = rest[at..].iter().position(|byte| matches!(byte, b'"' | b'\\')) else { return rest.len() };
        at += found;
        if rest[at] == b'"' {
            return at + 1;
        }
        // An escape has one more character at least.
        at = (at + 2).min(rest.len());
    }
}

/// Reads a request's body. Nesting deeper than 128 levels is an error, as are numbers beyond the range of a 64-bit float and
/// more than 50,000 values.
pub fn parse(bytes: &[u8]) -> Result<Json<'_>, JsonError> {
    check_values(bytes)?;
    serde_json::from_slice(bytes).map_err(|error| {
        let full = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        JsonError {
            message: full.strip_suffix(&place).unwrap_or(&full).to_owned(),
            line: error.line(),
            column: error.column(),
        }
    })
}

/// Reads the body of a request for images. `LiteLLM` sends what it does not know in a field `extra_body`, as it was given to
/// it; its fields count as the body's own.
pub fn parse_request(bytes: &[u8]) -> Result<Json<'_>, JsonError> {
    Ok(parse(bytes)?.lifting("extra_body"))
}

impl<'a> Json<'a> {
    /// Whether an object anywhere in this value repeats a key.
    #[must_use]
    pub fn repeats_keys(&self) -> bool {
        match self {
            Self::Array(array) => array.repeats_below,
            Self::Object(object) => object.repeats_below,
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) => false,
        }
    }

    /// The object with the fields of its field `key` beside its own, where that holds an object. What stands outside as
    /// well counts as it stands there.
    #[must_use]
    pub fn lifting(self, key: &str) -> Self {
        let Json::Object(object) = self else { return self };
        if !matches!(object.get(key), Some(Json::Object(_))) {
            return Json::Object(object);
        }
        let mut inner = Vec::new();
        let mut outer: Vec<(Cow<'a, str>, Self)> = Vec::with_capacity(object.entries.len());
        for (name, value) in object.entries {
            match value {
                Json::Object(lifted) if name == key => inner.extend(lifted.entries),
                value => outer.push((name, value)),
            }
        }
        let outside: HashSet<&str> = outer.iter().map(|(name, _)| name.as_ref()).collect();
        inner.retain(|(name, _)| !outside.contains(name.as_ref()));
        Json::Object(outer.into_iter().chain(inner).collect())
    }

    /// Whether this says nothing: an empty text or list, or `null`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Null => true,
            Self::String(text) => text.is_empty(),
            Self::Array(array) => array.items().is_empty(),
            Self::Bool(_) | Self::Number(_) | Self::Object(_) => false,
        }
    }

    /// The text, if this is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The object, if this is one.
    #[must_use]
    pub fn as_object(&self) -> Option<&Object<'a>> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// What kind of value this is, in JSON's (and zod's) words.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }
}

impl<'a> Array<'a> {
    /// The items in order.
    #[must_use]
    pub fn items(&self) -> &[Json<'a>] {
        &self.items
    }
}

impl<'a> FromIterator<Json<'a>> for Array<'a> {
    fn from_iter<I: IntoIterator<Item = Json<'a>>>(items: I) -> Self {
        let items: Vec<_> = items.into_iter().collect();
        let repeats_below = items.iter().any(Json::repeats_keys);
        Self { items, repeats_below }
    }
}

impl<'a> Object<'a> {
    /// The entries in the client's order, repeated keys included.
    #[must_use]
    pub fn entries(&self) -> &[(Cow<'a, str>, Json<'a>)] {
        &self.entries
    }

    /// The entries in the client's order; of a repeated key only the first.
    pub fn distinct(&self) -> impl Iterator<Item = (&str, &Json<'a>)> {
        let mut repeated = self.repeated.iter().copied().peekable();
        self.entries
            .iter()
            .enumerate()
            .filter(move |(index, _)| repeated.next_if_eq(index).is_none())
            .map(|(_, (key, value))| (key.as_ref(), value))
    }

    /// The keys that were given before, once for each time too many.
    pub fn repeated_keys(&self) -> impl Iterator<Item = &str> {
        self.repeated.iter().filter_map(|index| self.entries.get(*index)).map(|(key, _)| key.as_ref())
    }

    /// The first value under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Json<'a>> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }
}

impl<'a> FromIterator<(Cow<'a, str>, Json<'a>)> for Object<'a> {
    fn from_iter<I: IntoIterator<Item = (Cow<'a, str>, Json<'a>)>>(entries: I) -> Self {
        let entries: Vec<_> = entries.into_iter().collect();
        let repeated = find_repeated(&entries);
        let repeats_below = !repeated.is_empty() || entries.iter().any(|(_, value)| value.repeats_keys());
        Self { entries, repeated, repeats_below }
    }
}

/// The indexes of entries whose key was given before, in order.
fn find_repeated(entries: &[(Cow<'_, str>, Json<'_>)]) -> Vec<usize> {
    let mut repeated = Vec::new();
    if entries.len() <= SMALL_OBJECT {
        let mut before: &[(Cow<'_, str>, Json<'_>)] = &[];
        for (index, (key, _)) in entries.iter().enumerate() {
            if before.iter().any(|(earlier, _)| earlier == key) {
                repeated.push(index);
            }
            before = entries.get(..=index).unwrap_or_default();
        }
    } else {
        let mut seen = HashSet::with_capacity(entries.len());
        for (index, (key, _)) in entries.iter().enumerate() {
            if !seen.insert(key.as_ref()) {
                repeated.push(index);
            }
        }
    }
    repeated
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

/// Builds the tree from what serde reads.
struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Json::Number(Number::Integer(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Json::Number(Number::Integer(value.into())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Json::Number(Number::Float(value)))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Json::String(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Json::String(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
        Ok(Json::String(Cow::Owned(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items.into_iter().collect()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::with_capacity(8);
        while let Some((Key(key), value)) = map.next_entry()? {
            entries.push((key, value));
        }
        Ok(Json::Object(entries.into_iter().collect()))
    }
}

/// A key that borrows where it can, which serde's own `Cow` does not.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_64_bit_integer_stays_exact() {
        assert_eq!(parse(b"18446744073709551615"), Ok(Json::Number(Number::Integer(18_446_744_073_709_551_615))));
    }

    #[test]
    fn a_body_of_very_many_values_is_refused_before_it_is_read() {
        let list = |count: usize, item: &str| format!("[{}]", vec![item; count].join(","));
        assert!(parse(list(MOST_VALUES - 1, "1").as_bytes()).is_ok());
        for body in [list(MOST_VALUES, "1"), list(MOST_VALUES / 2, "[]"), list(MOST_VALUES / 2, r#"{"":1}"#)] {
            let error = parse(body.as_bytes()).unwrap_err();
            assert!(error.message.contains("more than 50000 values"), "{error}");
        }
        // What a text holds is none, however long it is.
        let text = format!(r#"["{}"]"#, r#",[{:\",\\"#.repeat(MOST_VALUES));
        assert!(parse(text.as_bytes()).is_ok());
    }

    #[test]
    fn texts_are_borrowed_unless_they_hold_escapes() {
        let json = parse(br#"["plain","tab\t"]"#).unwrap();
        let Json::Array(array) = json else { unreachable!("a list was given") };
        assert!(matches!(array.items(), [Json::String(Cow::Borrowed("plain")), Json::String(Cow::Owned(_))]));
    }

    #[test]
    fn a_repeated_key_is_known_at_every_depth() {
        for text in [r#"{"a":1,"a":2}"#, r#"{"b":{"a":1,"a":1}}"#, r#"{"b":[[{"a":1,"\u0061":1}]]}"#] {
            assert!(parse(text.as_bytes()).unwrap().repeats_keys(), "{text}");
        }
        assert!(!parse(br#"{"a":{"a":1},"b":[{"a":1},{"a":1}]}"#).unwrap().repeats_keys());
    }

    #[test]
    fn of_a_repeated_key_the_first_value_counts_and_all_are_kept() {
        for extra in [0, 40] {
            let others: Vec<_> = (0..extra).map(|index| format!(r#""k{index}":0,"#)).collect();
            let text = format!(r#"{{"a":1,{}"a":2,"a":3}}"#, others.concat());
            let json = parse(text.as_bytes()).unwrap();
            let object = json.as_object().unwrap();
            assert_eq!(object.entries().len(), extra + 3);
            assert_eq!(object.distinct().count(), extra + 1);
            assert_eq!(object.repeated_keys().collect::<Vec<_>>(), ["a", "a"]);
        }
    }

    #[test]
    fn what_lies_in_a_field_is_lifted_beside_it_unless_it_stands_there() {
        let lifted = |text: &'static str| parse(text.as_bytes()).unwrap().lifting("extra_body");
        let read = lifted(r#"{"a": 1, "extra_body": {"a": 2, "b": {"c": 3}}, "d": 4}"#);
        let names: Vec<&str> = read.as_object().unwrap().distinct().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "d", "b"]);
        assert_eq!(read.as_object().unwrap().get("a"), parse(b"1").ok().as_ref());
        for same in [r#"{"a": 1}"#, r#"{"extra_body": 7}"#, "[]", r#"{"extra_body": null, "a": 1}"#] {
            assert_eq!(lifted(same), parse(same.as_bytes()).unwrap());
        }
    }

    #[test]
    fn an_error_tells_line_and_column() {
        let error = parse(b"{\n  \"a\": NaN\n}").unwrap_err();
        assert_eq!((error.line, error.column), (2, 8));
        assert!(!error.message.contains("line"), "{}", error.message);
    }

    #[test]
    fn deep_nesting_and_numbers_beyond_a_float_are_errors() {
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
        assert!(parse(b"1e999").is_err());
    }

    #[test]
    fn twenty_thousand_keys_are_read_at_once() {
        let keys: Vec<_> = (0..20_000).map(|key| format!("\"k{key}\":0")).collect();
        let text = format!("{{{}}}", keys.join(","));
        let json = parse(text.as_bytes()).unwrap();
        assert!(!json.repeats_keys());
    }
}
