//! An order in fal's words. Pure: no I/O, no time, nothing that can fail.

use serde_json::{Map, Value as Json};

use crate::catalogue::{Kind, Order, Value};

/// The body that fal is sent: the parameters that the model has, under fal's names, defaults explicit. `sync_mode` is
/// never among them: its results could not be fetched again.
#[must_use]
pub fn body(order: &Order) -> Map<String, Json> {
    order.sent().map(|sent| (sent.name.to_owned(), translate(sent.kind, sent.value))).collect()
}

/// A value in fal's words: the fields of objects under fal's names, all else as it is.
fn translate(kind: &Kind, value: &Value) -> Json {
    match (kind, value) {
        (Kind::List(rule), Value::List(items)) => items.iter().map(|item| translate(&rule.items, item)).collect(),
        (Kind::Object(rule), Value::Object(values)) => {
            let field = |(name, value): &(_, Value)| {
                let field = rule.fields.iter().find(|field| field.name == *name)?;
                Some((field.provider_name.clone(), translate(&field.kind, value)))
            };
            Json::Object(values.iter().filter_map(field).collect())
        }
        _ => value.to_json(),
    }
}
