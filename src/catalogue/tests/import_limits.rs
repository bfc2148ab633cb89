//! What a document forbids, the model made of it refuses; and what no file can say is never dropped in silence.

use serde_json::{Value as Json, json};

use super::super::{Catalogue, Code, Order, Rejection, Strictness, check_file, import, parse};

/// An entry whose fields are these, beside a prompt; `required` names more of them.
fn entry(fields: &Json, required: &[&str], types: &Json) -> String {
    let mut properties = fields.clone();
    properties["prompt"] = json!({ "type": "string", "description": "What to paint." });
    let required: Vec<&str> = std::iter::once("prompt").chain(required.iter().copied()).collect();
    json!({
        "endpoint_id": "fal-ai/limits", "display_name": "Limits", "description": "A test.", "types": types,
        "input": { "type": "object", "required": required, "properties": properties },
        "output": { "properties": { "images": { "type": "array", "items": { "properties": {
            "url": { "type": "string" }, "content_type": { "type": "string", "default": "image/png" }
        } } } } },
        "price": { "unit": "images", "unit_price_usd": 0.01 },
    })
    .to_string()
}

/// Fills in what no document says of a model, but nothing of its parameters.
fn finished(file: &str) -> String {
    let complete = |line: &str| {
        let (name, _) = line.split_once(" = ").unwrap_or_default();
        let value = match name {
            "developer" | "source" | "description" => "\"a test\"",
            "as_of" => "\"2026-06-11\"",
            "sources" => "[\"a test\"]",
            _ => return format!("{line}\n"),
        };
        if line.contains("<fill in") { format!("{name} = {value}\n") } else { format!("{line}\n") }
    };
    file.lines().map(complete).collect()
}

fn catalogue(document: &str) -> Catalogue {
    let file = finished(&import(document).unwrap());
    Catalogue::of_files(&[("limits.toml".to_owned(), file.clone())]).unwrap_or_else(|error| panic!("{error}\n{file}"))
}

fn order(catalogue: &Catalogue, name: &str, value: &Json) -> Result<Order, Rejection> {
    let request = json!({ "model": "limits", "prompt": "x", name: value }).to_string();
    catalogue.order(&parse(request.as_bytes()).unwrap(), Strictness::Strict)
}

/// A field of this schema takes the values of the one list and refuses those of the other.
fn holds(schema: &Json, types: &Json, allowed: &[Json], refused: &[(Json, Code)]) {
    let listed =
        json!({ "type": "array", "maxItems": 2, "items": { "type": "object", "properties": { "it": schema } } });
    let catalogue = catalogue(&entry(&json!({ "it": schema, "all": listed }), &[], types));
    for value in allowed {
        order(&catalogue, "it", value).unwrap_or_else(|rejection| panic!("{value} for {schema}: {rejection}"));
        order(&catalogue, "all", &json!([{ "it": value }])).unwrap();
    }
    for (value, code) in refused {
        for (name, value) in [("it", value.clone()), ("all", json!([{ "it": value }]))] {
            match order(&catalogue, name, &value) {
                Err(Rejection::Invalid(problems)) => assert_eq!(problems[0].code, *code, "{value} for {schema}"),
                other => panic!("{value} for {schema}: {other:?}"),
            }
        }
    }
}

#[test]
fn every_limit_of_a_number_is_kept() {
    use Code::{InvalidEnumValue, InvalidType, NotMultipleOf, TooBig, TooSmall};
    let integer = |limits: Json| {
        let mut schema = json!({ "type": "integer", "minimum": -10, "maximum": 100 });
        schema.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
        schema
    };
    let none = json!({});
    let steps = integer(json!({ "multipleOf": 8 }));
    holds(&steps, &none, &[json!(-8), json!(0), json!(64.0)], &[(json!(9), NotMultipleOf), (json!(101), TooBig)]);
    let open = integer(json!({ "exclusiveMinimum": 0, "exclusiveMaximum": 10 }));
    holds(&open, &none, &[json!(1), json!(9)], &[(json!(0), TooSmall), (json!(10), TooBig)]);
    let older =
        json!({ "type": "integer", "minimum": 0, "exclusiveMinimum": true, "maximum": 9, "exclusiveMaximum": false });
    holds(&older, &none, &[json!(1), json!(9)], &[(json!(0), TooSmall), (json!(10), TooBig)]);
    let listed = json!({ "type": "integer", "enum": [1, 2, 4, 512], "maximum": 100 });
    holds(&listed, &none, &[json!(1), json!(4)], &[(json!(3), InvalidEnumValue), (json!(512), TooBig)]);
    holds(&json!({ "const": 2 }), &none, &[json!(2)], &[(json!(1), TooSmall), (json!("2"), InvalidType)]);
    let number = json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 2, "multipleOf": 0.1 });
    holds(
        &number,
        &none,
        &[json!(0.1), json!(0.3), json!(0.7), json!(2)],
        &[(json!(0), TooSmall), (json!(0.25), NotMultipleOf), (json!(2.1), TooBig)],
    );
    let older = json!({ "type": "number", "minimum": 0, "maximum": 1, "exclusiveMaximum": true });
    holds(&older, &none, &[json!(0), json!(0.99)], &[(json!(1), TooBig), (json!(-0.1), TooSmall)]);
    let listed = json!({ "type": "number", "enum": [0.5, 1, 4_294_967_296.0] });
    holds(&listed, &none, &[json!(0.5), json!(1), json!(4_294_967_296_u64)], &[(json!(0.6), InvalidEnumValue)]);
    let seed = json!({ "type": "integer", "minimum": -1, "maximum": 2_147_483_647 });
    let catalogue = catalogue(&entry(&json!({ "seed": seed }), &[], &none));
    assert!(order(&catalogue, "seed", &json!(-1)).is_ok());
    assert!(order(&catalogue, "seed", &json!(-2)).is_err());
}

#[test]
fn every_limit_of_a_text_is_kept() {
    use Code::{InvalidEnumValue, InvalidString, TooBig, TooSmall};
    let none = json!({});
    let colour = json!({ "type": "string", "pattern": "^#[0-9a-f]{6}$" });
    holds(&colour, &none, &[json!("#00ff00")], &[(json!("green"), InvalidString)]);
    let short = json!({ "type": ["string", "null"], "minLength": 2, "maxLength": 3 });
    holds(&short, &none, &[json!("ab"), Json::Null], &[(json!("a"), TooSmall), (json!("abcd"), TooBig)]);
    let link = json!({ "type": "string", "format": "uri", "maxLength": 40 });
    holds(&link, &none, &[json!("https://example.com/a")], &[(json!("example"), InvalidString)]);
    let listed = json!({ "enum": ["a", "b", null] });
    holds(&listed, &none, &[json!("a"), Json::Null], &[(json!("c"), InvalidEnumValue)]);
    holds(&json!({ "const": "a" }), &none, &[json!("a")], &[(json!("b"), InvalidEnumValue)]);
    let spelled = json!({ "oneOf": [{ "const": "a", "title": "A" }, { "const": "b" }, { "type": "null" }] });
    holds(&spelled, &none, &[json!("a"), json!("b")], &[(json!("c"), InvalidEnumValue)]);
}

#[test]
fn a_limit_is_found_wherever_it_is_referred_to() {
    use Code::{InvalidEnumValue, NotMultipleOf, TooBig};
    let types = json!({
        "Style": { "type": "string", "enum": ["oil", "ink"], "title": "Style" },
        "Steps": { "type": "integer", "minimum": 1, "maximum": 50, "multipleOf": 5 },
        "Again": { "allOf": [{ "$ref": "#/components/schemas/Steps" }, { "maximum": 20 }] },
    });
    let named = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let nothing = json!({ "type": "null" });
    for way in [
        named("Style"),
        json!({ "allOf": [named("Style")], "default": "ink", "description": "Its style." }),
        json!({ "anyOf": [named("Style"), nothing], "default": null }),
        json!({ "anyOf": [{ "allOf": [named("Style")] }, nothing] }),
    ] {
        holds(&way, &types, &[json!("oil")], &[(json!("clay"), InvalidEnumValue)]);
    }
    let again = json!({ "anyOf": [named("Again"), nothing] });
    holds(&again, &types, &[json!(5), json!(20)], &[(json!(7), NotMultipleOf), (json!(25), TooBig)]);
}

#[test]
fn limits_of_lists_and_of_both_sides_of_a_size_are_kept() {
    let sides = json!({ "type": "object", "properties": {
        "width": { "type": "integer", "exclusiveMinimum": 63, "maximum": 2048, "multipleOf": 16 },
        "height": { "type": "integer", "minimum": 32, "maximum": 1024, "multipleOf": 16 },
    } });
    let names = json!({ "type": "array", "items": { "type": "string", "maxLength": 3 }, "minItems": 1, "maxItems": 2 });
    let catalogue = catalogue(&entry(&json!({ "image_size": sides, "names": names }), &[], &json!({})));
    let size = |width: u32, height: u32| order(&catalogue, "image_size", &json!({ "width": width, "height": height }));
    assert!(size(64, 64).is_ok() && size(1024, 1024).is_ok());
    for (width, height) in [(48, 64), (64, 48), (1040, 1024), (1024, 1040), (65, 64)] {
        assert!(size(width, height).is_err(), "{width}x{height}");
    }
    for (names, fits) in
        [(json!(["a"]), true), (json!([]), true), (json!(["abcd"]), false), (json!(["a", "b", "c"]), false)]
    {
        assert_eq!(order(&catalogue, "names", &names).is_ok(), fits, "{names}");
    }
}

#[test]
fn what_no_file_can_say_is_left_out_with_the_reason_or_marked() {
    let unique = json!({ "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 9 }, "maxItems": 3, "uniqueItems": true });
    let turning = json!({ "type": "string", "pattern": "^(?!a)" });
    let only_true = json!({ "type": "boolean", "const": true });
    let nested = json!({ "type": "object", "required": ["name"], "properties": { "name": turning } });
    let either = json!({ "anyOf": [{ "type": "integer" }, { "type": "string" }] });
    let fields = json!({
        "unique": unique, "turning": turning, "only_true": only_true, "nested": nested, "either": either,
        "day": { "type": "string", "format": "date" },
    });
    let file = import(&entry(&fields, &[], &json!({}))).unwrap();
    for line in [
        "# Left out: `unique`, since no kind of parameter can say its `uniqueItems`.",
        "# Left out: `turning`, since no kind of parameter can say its `pattern`.",
        "# Left out: `only_true`, since no kind of parameter can say its `enum`.",
        "# Left out: `nested`, since no kind of parameter can say its `name.pattern`.",
        "# Left out: `day`, since no kind of parameter can say its `format`.",
        "# Left out: `either`, whose form no kind of parameter has.",
    ] {
        assert!(file.contains(line), "{line}\n{file}");
    }
    check_file(&finished(&file), "limits.toml").unwrap();

    let file = import(&entry(&fields, &["unique", "either"], &json!({}))).unwrap();
    assert!(file.contains("notes = [\"<fill in: how `unique.uniqueItems` of the document is kept"), "{file}");
    assert!(file.contains("kind = \"<fill in: the document requires it in a form that no kind has>\""), "{file}");
    assert!(check_file(&finished(&file), "limits.toml").is_err());
}

#[test]
fn a_file_s_own_limits_must_leave_something() {
    let file = finished(&import(&entry(&json!({ "it": { "const": 2 } }), &[], &json!({}))).unwrap());
    for (other, wanted) in [
        ("options = [2]\nminimum = 1\nmaximum = 1", "`2` is not within this parameter's own limits"),
        ("minimum = 1\nmaximum = 7\nmultiple_of = 8", "no integer is within these limits"),
        ("minimum = 1\nmaximum = 7\nmultiple_of = 0", "must be at least 1"),
        ("options = [2, 2]", "`2` is there twice"),
        ("options = [\"2\"]", "`2` is not an integer"),
        (
            "minimum = 1\nmaximum = 7\nexclusive_minimum = 0",
            "`exclusive_minimum` does not belong to a parameter of this kind",
        ),
    ] {
        assert!(file.contains("options = [2]"), "{file}");
        let message = check_file(&file.replace("options = [2]", other), "limits.toml").unwrap_err().to_string();
        assert!(message.ends_with(wanted), "{other}: {message}");
    }
}
