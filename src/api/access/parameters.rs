//! What holds for every parameter, as the document states it: what `http::path` and `input::query` refuse.

use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::schema::{ArrayItems, SchemaType, Type};
use utoipa::openapi::{Object, RefOr, Schema};

/// One segment of a path.
const SEGMENT: &str = r"^(?!\.{1,2}$)[^/\\\x00-\x1f\x7f-\x9f]+$";
/// Several segments.
const SEGMENTS: &str = r"^(?!\.{1,2}(/|$))[^/\\\x00-\x1f\x7f-\x9f]+(/(?!\.{1,2}(/|$))[^/\\\x00-\x1f\x7f-\x9f]+)*$";
/// A value of a list in a query: commas part values.
const LISTED: &str = r"^[^\x00]*[^,\x00][^\x00]*$";
/// A text of a query: one that every database can hold.
const QUERIED: &str = r"^[^\x00]+$";

/// Completes the schemas of an operation's parameters. `pattern` is the one that its route is registered under.
pub fn describe_parameters(operation: &mut Operation, pattern: &str) {
    for parameter in operation.parameters.iter_mut().flatten() {
        let RefOr::T(parameter) = parameter else { continue };
        let spans = pattern.contains(&format!("{{{}:", parameter.name));
        complete(parameter, spans);
    }
}

fn complete(parameter: &mut Parameter, spans_segments: bool) {
    let Some(RefOr::T(schema)) = &mut parameter.schema else { return };
    match (schema, &parameter.parameter_in) {
        (Schema::Object(object), ParameterIn::Path) if is_free(object) => {
            object.pattern = Some(if spans_segments { SEGMENTS } else { SEGMENT }.to_owned());
        }
        // An empty value is refused: a filter whose value was forgotten must not mean "all".
        (Schema::Object(object), ParameterIn::Query) if is_free(object) => {
            object.min_length = Some(1);
            object.pattern = Some(QUERIED.to_owned());
        }
        (Schema::Array(list), ParameterIn::Query) => {
            list.min_items = Some(1);
            if let ArrayItems::RefOrSchema(items) = &mut list.items
                && let RefOr::T(Schema::Object(object)) = items.as_mut()
                && is_free(object)
            {
                object.pattern = Some(LISTED.to_owned());
            }
        }
        // A header is there or not, and never null.
        (Schema::Object(object), ParameterIn::Header) => not_null(object),
        _ => {}
    }
}

/// A text of which nothing is said yet.
fn is_free(object: &Object) -> bool {
    object.schema_type == SchemaType::Type(Type::String)
        && object.pattern.is_none()
        && object.enum_values.is_none()
        && object.format.is_none()
}

fn not_null(object: &mut Object) {
    if let SchemaType::Array(types) = &object.schema_type
        && let Some(one) = types.iter().find(|one| **one != Type::Null)
    {
        object.schema_type = SchemaType::Type(one.clone());
    }
}
