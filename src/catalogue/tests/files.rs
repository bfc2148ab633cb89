//! The files themselves: all are there, all are found, and a mistake is told with its place.

use std::collections::BTreeSet;
use std::path::Path;

use super::super::built_in::BUILT_IN;
use super::super::{Catalogue, CatalogueError, Kind, Rejection, Status, Strictness, check_file, parse};
use super::{catalogue, order};
use serde_json::json;

#[test]
fn every_model_file_is_carried() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/catalogue/models");
    let there: BTreeSet<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let carried: BTreeSet<_> = BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(there, carried);
    assert!(BUILT_IN.is_sorted(), "ordered by name");
}

#[test]
fn a_file_is_named_after_its_model() {
    for (name, text) in BUILT_IN {
        let model = check_file(text, name).unwrap();
        assert_eq!(format!("{}.toml", model.id.replace('/', "-")), *name);
    }
}

#[test]
fn every_model_says_where_its_facts_come_from_and_is_found_under_its_provider_s_id() {
    let catalogue = catalogue();
    for model in catalogue.models() {
        assert!(!model.sources.is_empty(), "`{}` names no source", model.id);
        assert!(model.parameters.iter().all(|parameter| !parameter.description.is_empty()), "`{}`", model.id);
        let found = catalogue.model(&model.endpoint).map(|found| found.endpoint.as_str());
        assert_eq!(found, Some(model.endpoint.as_str()), "`{}`", model.id);
    }
}

#[test]
fn a_model_is_found_in_any_letter_case_and_under_every_alias() {
    let catalogue = catalogue();
    for model in catalogue.models() {
        for id in std::iter::once(&model.id).chain(&model.aliases) {
            for spelling in [id.clone(), id.to_uppercase(), id.to_lowercase()] {
                let found = catalogue.model(&spelling).map(|found| found.id.as_str());
                assert_eq!(found, Some(model.id.as_str()), "`{spelling}`");
            }
        }
    }
}

#[test]
fn an_unknown_model_is_told_with_its_neighbour() {
    let rejection = order(&json!({ "model": "flux/dve", "prompt": "x" })).unwrap_err();
    assert_eq!(
        rejection,
        Rejection::UnknownModel { model: "flux/dve".to_owned(), nearest: Some("flux/dev".to_owned()) }
    );
    assert_eq!(rejection.to_string(), "there is no model `flux/dve`; did you mean `flux/dev`?");
}

/// A small model file to spoil.
const SMALL: &str = r#"id = "small"
name = "Small"
developer = "Nobody"
description = "A small model."
status = "offered"
provider = "fal"
endpoint = "fal-ai/small"
sources = ["a test"]

[price]
per = "image"
amount = "0.01"
as_of = "2026-01-01"
source = "a test"

[output]
fields = ["images"]
image_fields = ["url"]
content_types = ["image/png"]

[[parameters]]
name = "prompt"
kind = "text"
role = "prompt"
required = true
max_length = 100
"#;

fn mistake(text: &str) -> String {
    check_file(text, "small.toml").expect_err("the file is spoiled").to_string()
}

#[test]
fn a_mistake_in_a_file_is_told_with_line_and_column() {
    assert!(check_file(SMALL, "small.toml").is_ok());
    let spoil = |from: &str, to: &str| {
        assert!(SMALL.contains(from));
        mistake(&SMALL.replace(from, to))
    };
    let cases = [
        (spoil("max_length = 100", "max_lenght = 100"), "small.toml:26:1: unknown field `max_lenght`"),
        (spoil("max_length = 100", ""), "small.toml:23:8: a parameter of this kind needs `max_length`"),
        (spoil("max_length = 100", "max_length = 100\nminimum = 1"), "small.toml:27:11: `minimum` does not belong"),
        (spoil("kind = \"text\"", "kind = \"txet\""), "small.toml:23:8: unknown variant `txet`"),
        (spoil("\"0.01\"", "\"1 cent\""), "small.toml:12:10: `1 cent` is not a decimal number"),
        (spoil("\"0.01\"", "0.01"), "small.toml:12:10: "),
        (spoil("\"0.01\"", "\"-0.01\""), "small.toml:12:10: must not be negative"),
        (spoil("2026-01-01", "2026-13-01"), "small.toml:13:9: must be a day"),
        (spoil("id = \"small\"", "id = \"small model\""), "small.toml:1:6: `small model` is not an id"),
        (spoil("provider = \"fal\"", "provider = "), "small.toml:6:12: "),
        (spoil("per = \"image\"", "per = \"megapixel\""), "small.toml:10:1: a price per megapixel needs `rounding`"),
        (
            spoil("per = \"image\"", "per = \"megapixel\"\nrounding = \"up\""),
            "small.toml:10:1: an image's size may be unknown",
        ),
        (spoil("name = \"prompt\"", "name = \"model\""), "small.toml:21:1: `model` is already taken"),
        (spoil("kind = \"text\"", "kind = \"text\"\ndefault = \"x\""), "small.toml:22:8: a required parameter"),
        (spoil("required = true", "default = 5"), "small.toml:25:11: the default is not valid: it must be a string"),
    ];
    for (message, wanted) in cases {
        assert!(message.starts_with(wanted), "`{message}` does not begin with `{wanted}`");
    }
}

#[test]
fn a_model_on_offer_needs_a_price_and_a_withdrawn_one_does_not() {
    let start = SMALL.find("[price]").unwrap();
    let end = SMALL.find("[output]").unwrap();
    let unpriced = format!("{}{}", &SMALL[..start], &SMALL[end..]);
    assert!(mistake(&unpriced).starts_with("small.toml:5:10: a model that is on offer needs a `[price]`"));
    assert!(check_file(&unpriced.replace("\"offered\"", "\"withdrawn\""), "small.toml").is_ok());
    assert!(check_file(&unpriced.replace("\"offered\"", "\"unpriced\""), "small.toml").is_ok());
    let both = SMALL.replace("\"offered\"", "\"unpriced\"");
    assert_eq!(mistake(&both), "small.toml:5:10: an `unpriced` model has no `[price]`");
}

#[test]
fn a_model_without_a_known_price_is_known_but_not_on_offer() {
    let catalogue = catalogue();
    let model = catalogue.model("fal-ai/ideogram/v2a").unwrap();
    assert!(!model.is_offered());
    let rejection = order(&json!({ "model": "ideogram/v2a", "prompt": "x" })).unwrap_err();
    assert_eq!(rejection, Rejection::Unpriced { model: "ideogram/v2a".to_owned() });
    for model in catalogue.models() {
        assert_eq!(model.is_offered(), model.price.is_some(), "`{}`", model.id);
    }
}

#[test]
fn an_example_must_be_a_valid_request_of_its_model() {
    let with = |request: &str| format!("{SMALL}\n[[examples]]\ntitle = \"one\"\nrequest = '{request}'\n");
    assert!(check_file(&with(r#"{"model":"Small","prompt":"x"}"#), "small.toml").is_ok());
    for (request, wanted) in [
        (r#"{"model":"small"}"#, "`prompt` is required"),
        (r#"{"model":"flux/dev","prompt":"x"}"#, "it asks for the model `flux/dev`"),
        (r#"{"model":"small","prompt":"x","seed":1}"#, "`small` does not take `seed`"),
        (r#"{"model":"#, "not valid JSON"),
    ] {
        let message = mistake(&with(request));
        assert!(message.starts_with("small.toml:30:11: example `one`: "), "{message}");
        assert!(message.contains(wanted), "{message}");
    }
}

#[test]
fn a_folder_adds_and_replaces_models() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("small.toml"), SMALL).unwrap();
    let dev = SMALL.replace("\"small\"", "\"flux/dev\"");
    std::fs::write(folder.path().join("dev.toml"), dev).unwrap();
    std::fs::write(folder.path().join("README.md"), "not a model").unwrap();
    let both = Catalogue::with_directory(folder.path()).unwrap();
    let built_in = catalogue();
    assert_eq!(both.models().count(), built_in.models().count() + 1);
    assert_eq!(both.model("flux/dev").unwrap().endpoint, "fal-ai/small");
    assert!(both.model("small").is_some());
    assert_ne!(both.version(), built_in.version());
    assert_eq!(built_in.version(), Catalogue::built_in().unwrap().version());
}

#[test]
fn two_models_under_one_id_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let aliased = SMALL.replace("id = \"small\"", "id = \"small\"\naliases = [\"FLUX-realism\"]");
    std::fs::write(folder.path().join("small.toml"), aliased).unwrap();
    let error = Catalogue::with_directory(folder.path()).unwrap_err();
    assert!(matches!(error, CatalogueError::Clash { .. }), "{error}");
    let (sentence, file) = (error.to_string(), folder.path().join("small.toml").display().to_string());
    assert!(sentence.contains(&file) && sentence.contains("`flux-realism` (built in)"), "{sentence}");
    let missing = folder.path().join("nowhere");
    assert!(matches!(Catalogue::with_directory(&missing), Err(CatalogueError::Unreadable { .. })));
}

#[test]
fn a_withdrawn_model_takes_no_orders_and_names_its_successor() {
    let folder = tempfile::tempdir().unwrap();
    let withdrawn = SMALL.replace("\"offered\"", "\"withdrawn\"\nreplaced_by = \"flux/dev\"");
    std::fs::write(folder.path().join("small.toml"), withdrawn).unwrap();
    let catalogue = Catalogue::with_directory(folder.path()).unwrap();
    assert_eq!(catalogue.model("small").unwrap().status, Status::Withdrawn);
    let wish = parse(br#"{"model":"small","prompt":"x"}"#).unwrap();
    let rejection = catalogue.order(&wish, Strictness::Lenient).unwrap_err();
    assert_eq!(rejection, Rejection::Withdrawn { model: "small".to_owned(), replaced_by: Some("flux/dev".to_owned()) });
}

#[test]
fn the_two_models_of_the_first_light_have_the_documents_parameters() {
    let catalogue = catalogue();
    let names = |id: &str| -> Vec<String> {
        let model = catalogue.model(id).unwrap();
        model.parameters.iter().map(|parameter| parameter.name.as_ref().to_owned()).collect()
    };
    let common = ["prompt", "image_size", "num_inference_steps", "seed", "guidance_scale", "num_images"];
    let more = ["enable_safety_checker", "strength", "output_format"];
    assert_eq!(names("flux-realism"), [&common[..], &more[..]].concat());
    let more = ["enable_safety_checker", "output_format", "acceleration"];
    assert_eq!(names("flux/dev"), [&common[..], &more[..]].concat());
    let model = catalogue.model("flux-realism").unwrap();
    assert!(model.parameters.iter().any(|parameter| matches!(&parameter.kind, Kind::Size(_))));
}

#[test]
fn a_model_is_found_by_each_of_its_names_where_a_provider_s_client_asks() {
    for model in catalogue().models() {
        for name in std::iter::once(&model.id).chain(&model.aliases).chain([&model.endpoint]) {
            let found = catalogue().model_of_endpoint(&model.provider, name).expect(name);
            assert!(found.id == model.id || *name == found.endpoint, "`{name}` is {} and not {}", found.id, model.id);
        }
    }
}
