//! Texts, numbers and truth values, read as pydantic reads them where it is lax: `"2"` is 2, `30.0` is 30, `"no"` is false.

use serde_json::{Map, Number, Value, json};

use super::Check;
use crate::sandbox::schema::Property;

impl Check<'_> {
    pub(super) fn text(&mut self, property: &Property, value: &Value, path: &[Value]) -> Option<Value> {
        let Value::String(text) = value else {
            if property.options.is_some() {
                return self.option(property, value, path);
            }
            self.refuse(path, "string_type", "Input should be a valid string", None, value);
            return None;
        };
        if property.options.is_some() {
            return self.option(property, value, path);
        }
        let length = text.chars().count();
        if let Some(least) = property.min_length.filter(|least| length < *least) {
            let message = format!("String should have at least {least} character{}", plural(least));
            let context = json!({"min_length": least});
            self.refuse(path, "sequence_too_short", &message, Some(context), value);
            return None;
        }
        if let Some(most) = property.max_length.filter(|most| length > *most) {
            let message = format!("String should have at most {most} character{}", plural(most));
            let context = json!({"max_length": most});
            self.refuse(path, "sequence_too_long", &message, Some(context), value);
            return None;
        }
        if property.format.as_deref() == Some("uuid4") && uuid::Uuid::parse_str(text).is_err() {
            self.refuse(path, "uuid_parsing", "Input should be a valid UUID", None, value);
            return None;
        }
        Some(value.clone())
    }

    fn option(&mut self, property: &Property, value: &Value, path: &[Value]) -> Option<Value> {
        let options = property.options.as_deref().unwrap_or_default();
        if value.as_str().is_some_and(|text| options.iter().any(|option| option == text)) {
            return Some(value.clone());
        }
        let message = format!("Input should be {}", spoken(options));
        let context = json!({"expected": options});
        self.refuse(path, "one_of", &message, Some(context), value);
        None
    }

    pub(super) fn integer(&mut self, property: &Property, value: &Value, path: &[Value]) -> Option<Value> {
        let read = match value {
            Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.clone()),
            Value::Number(number) => {
                let rounded = whole_number(number.as_f64().unwrap_or(f64::NAN));
                if rounded.is_none() {
                    let message = "Input should be a valid integer, got a number with a fractional part";
                    self.refuse(path, "int_from_float", message, None, value);
                    return None;
                }
                rounded
            }
            Value::Bool(truth) => Some(Number::from(i64::from(*truth))),
            Value::String(text) => {
                let text = text.trim();
                let read = text.parse::<i64>().map(Number::from);
                let read = read.or_else(|_| text.parse::<u64>().map(Number::from)).ok();
                if read.is_none() {
                    let message = "Input should be a valid integer, unable to parse string as an integer";
                    self.refuse(path, "int_parsing", message, None, value);
                    return None;
                }
                read
            }
            _ => None,
        };
        let Some(number) = read else {
            self.refuse(path, "int_type", "Input should be a valid integer", None, value);
            return None;
        };
        self.within(property, &number, value, path).then_some(Value::Number(number))
    }

    pub(super) fn number(&mut self, property: &Property, value: &Value, path: &[Value]) -> Option<Value> {
        let read = match value {
            Value::Number(number) => Some(number.clone()),
            Value::Bool(truth) => Number::from_f64(f64::from(*truth)),
            Value::String(text) => {
                let read = text.trim().parse().ok().and_then(Number::from_f64);
                if read.is_none() {
                    let message = "Input should be a valid number, unable to parse string as a number";
                    self.refuse(path, "float_parsing", message, None, value);
                    return None;
                }
                read
            }
            _ => None,
        };
        let Some(number) = read else {
            self.refuse(path, "float_type", "Input should be a valid number", None, value);
            return None;
        };
        self.within(property, &number, value, path).then_some(Value::Number(number))
    }

    fn within(&mut self, property: &Property, number: &Number, value: &Value, path: &[Value]) -> bool {
        let number = number.as_f64().unwrap_or(f64::NAN);
        let rules = [
            (
                property.minimum,
                number >= property.minimum.unwrap_or(number),
                "greater_than_equal",
                "ge",
                "greater than or equal to",
            ),
            (
                property.exclusive_minimum,
                property.exclusive_minimum.is_none_or(|limit| number > limit),
                "greater_than",
                "gt",
                "greater than",
            ),
            (
                property.maximum,
                number <= property.maximum.unwrap_or(number),
                "less_than_equal",
                "le",
                "less than or equal to",
            ),
        ];
        for (limit, kept, kind, key, words) in rules {
            let Some(limit) = limit.filter(|_| !kept) else {
                continue;
            };
            let limit = whole_number(limit).map_or_else(|| json!(limit), Value::Number);
            let message = format!("Input should be {words} {limit}");
            let context = Value::Object(Map::from_iter([(key.to_owned(), limit)]));
            self.refuse(path, kind, &message, Some(context), value);
            return false;
        }
        true
    }

    pub(super) fn boolean(&mut self, value: &Value, path: &[Value]) -> Option<Value> {
        let read = match value {
            Value::Bool(truth) => Some(*truth),
            Value::Number(number) if number.as_f64() == Some(0.0) => Some(false),
            Value::Number(number) if number.as_f64() == Some(1.0) => Some(true),
            Value::String(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
                "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        };
        if read.is_none() {
            let (kind, message) = match value {
                Value::String(_) | Value::Number(_) => {
                    ("bool_parsing", "Input should be a valid boolean, unable to interpret input")
                }
                _ => ("bool_type", "Input should be a valid boolean"),
            };
            self.refuse(path, kind, message, None, value);
        }
        read.map(Value::Bool)
    }
}

/// `'a', 'b' or 'c'`.
fn spoken(options: &[String]) -> String {
    let quoted: Vec<String> = options.iter().map(|option| format!("'{option}'")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// The integer that a float stands for, if it stands for one.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked first")]
fn whole_number(float: f64) -> Option<Number> {
    const EXACT: f64 = 9_223_372_036_854_774_784.0;
    (float.fract() == 0.0 && float.abs() <= EXACT).then(|| Number::from(float as i64))
}
