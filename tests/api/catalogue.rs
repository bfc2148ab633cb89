//! The catalogue from outside: what is listed, what is taken, every example of every file, and files read anew.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use imagegate::catalogue::{Catalogue, Status};
use imagegate::domain::{SystemClock, SystemIds};
use imagegate::sandbox;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Database, House, Start, TestDatabase, client, eventually, read, start_sandbox, t_rex};

/// A model file for a folder of the operator's own.
const HARBOUR: &str = r#"id = "harbour"
aliases = ["house/harbour"]
name = "Harbour"
developer = "The house"
description = "Paints harbours."
status = "offered"
provider = "fal"
endpoint = "fal-ai/flux-1/dev"
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
description = "What to paint."
"#;

async fn get(house: &House, path: &str, status: StatusCode) -> Value {
    read(house.gateway.request(Method::GET, path).send().await.unwrap(), status).await
}

fn ids(list: &Value) -> Vec<&str> {
    list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_list_shows_every_model_on_offer_and_no_other() {
    let house = House::new(Database::Sqlite).await;
    let list = get(&house, "/v1/models", StatusCode::OK).await;
    assert_eq!(list["object"], "list");
    let catalogue = Catalogue::built_in().unwrap();
    let offered: Vec<_> =
        catalogue.models().filter(|model| model.is_offered()).map(|model| model.id.as_str()).collect();
    assert_eq!(ids(&list), offered);
    for model in list["data"].as_array().unwrap() {
        let id = &model["id"];
        assert_eq!((&model["object"], &model["type"]), (&json!("model"), &json!("image")), "{id}");
        assert!(model["created"].is_i64() && model["owned_by"].is_string(), "{id}");
        for field in ["name", "developer", "description", "url", "docs_url", "docsUrl"] {
            assert!(model["info"][field].as_str().is_some_and(|text| !text.is_empty()), "{id} {field}");
        }
        assert_eq!(model["endpoints"][0], "/v1/images/generations", "{id}");
        assert_eq!(model["parameters"]["type"], "object", "{id}");
        assert!(model["pricing"]["price"].is_string(), "{id}");
        assert!(model["output"]["content_types"][0].as_str().unwrap().starts_with("image/"), "{id}");
        assert!(model["aliases"].is_array() && model["deprecated"].is_boolean(), "{id}");
    }
    let deprecated = get(&house, "/v1/models/imagen4/preview", StatusCode::OK).await;
    assert_eq!(deprecated["deprecated"], true);
}

#[tokio::test]
async fn a_model_tells_what_its_answers_carry() {
    let house = House::new(Database::Sqlite).await;
    let recraft = get(&house, "/v1/models/recraft-v3", StatusCode::OK).await;
    assert_eq!(
        recraft["output"],
        json!({
            "fields": ["images"],
            "image_fields": ["url", "content_type", "file_name", "file_size"],
            "content_types": ["image/webp", "image/svg+xml"],
        })
    );
    let body = json!({ "model": "recraft-v3", "prompt": "a", "style": "vector_illustration" });
    let answer = read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::CREATED).await;
    let image = &answer["images"][0];
    assert_eq!(image["content_type"], "image/svg+xml");
    assert!(image["file_name"].as_str().unwrap().contains(".svg") && image["file_size"].is_u64(), "{image}");
    let body = json!({ "model": "nano-banana", "prompt": "a fox", "output_format": "webp" });
    let answer = read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::CREATED).await;
    assert_eq!(answer["images"][0]["content_type"], "image/webp");
    assert!(answer["description"].is_string(), "{answer}");
}

#[tokio::test]
async fn a_model_is_found_by_its_id_and_aliases_in_any_letter_case() {
    let house = House::new(Database::Sqlite).await;
    for (asked, id) in [
        ("flux-realism", "flux-realism"),
        ("FLUX-Realism", "flux-realism"),
        ("flux/kontext-pro/image-to-image", "flux/kontext-pro/image-to-image"),
        ("fal-ai/flux-pro/kontext", "flux/kontext-pro/image-to-image"),
        ("fal-ai%2Fflux-pro%2Fkontext", "flux/kontext-pro/image-to-image"),
        ("Flux-2/Lora/Edit", "blackforestlabs/flux-2-lora-edit"),
        ("flux/schnell/", "flux-1/schnell"),
    ] {
        assert_eq!(get(&house, &format!("/v1/models/{asked}"), StatusCode::OK).await["id"], id, "{asked}");
        assert_eq!(get(&house, &format!("/models/{asked}"), StatusCode::OK).await["id"], id, "{asked}");
    }
}

#[tokio::test]
async fn what_is_not_on_offer_is_not_found_and_says_why() {
    let house = House::new(Database::Sqlite).await;
    let withdrawn = "bytedance/seedream/v3/text-to-image";
    let unpriced = "fal-ai/ideogram/v2a";
    for (model, code, words) in [
        (withdrawn, "model_withdrawn", "`bytedance/seedream-v4-text-to-image`"),
        (unpriced, "model_not_found", "no known price"),
        ("flux/dve", "model_not_found", "does not exist"),
    ] {
        let shown = get(&house, &format!("/v1/models/{model}"), StatusCode::NOT_FOUND).await;
        let body = json!({ "model": model, "prompt": "a" });
        let asked = read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::NOT_FOUND).await;
        for problem in [shown, asked] {
            assert_eq!(problem["error"]["code"], code, "{problem}");
            assert!(problem["message"].as_str().unwrap().contains(words), "{problem}");
        }
    }
    assert!(house.gateway.generations().await.is_empty());
}

#[tokio::test]
async fn the_list_can_be_narrowed_down() {
    let house = House::new(Database::Sqlite).await;
    let all = get(&house, "/v1/models", StatusCode::OK).await;
    assert_eq!(get(&house, "/v1/models?type=image", StatusCode::OK).await, all);
    assert!(ids(&get(&house, "/v1/models?type=chat-completion", StatusCode::OK).await).is_empty());
    let kontext = get(&house, "/v1/models?q=KONTEXT", StatusCode::OK).await;
    assert_eq!(
        ids(&kontext),
        [
            "flux/kontext-max/image-to-image",
            "flux/kontext-max/text-to-image",
            "flux/kontext-pro/image-to-image",
            "flux/kontext-pro/text-to-image",
        ]
    );
    // An alias and the developer are looked through as well.
    let hunyuan = get(&house, "/v1/models?q=hunyuan-image/v3", StatusCode::OK).await;
    assert_eq!(ids(&hunyuan), ["hunyuan/hunyuan-image-v3-text-to-image"]);
    let omnigen = get(&house, "/v1/models?q=vectorspacelab&type=image", StatusCode::OK).await;
    assert_eq!(ids(&omnigen), ["omnigen-v1", "omnigen-v2"]);
    assert!(ids(&get(&house, "/v1/models?q=nothing-of-the-kind", StatusCode::OK).await).is_empty());
    assert_eq!(ids(&get(&house, "/v1/models?id=Flux/Dev", StatusCode::OK).await), ["flux/dev"]);
    assert_eq!(ids(&get(&house, "/v1/models?id=fal-ai/flux/dev", StatusCode::OK).await), ["flux/dev"]);
    get(&house, "/v1/models?nonsense=1", StatusCode::BAD_REQUEST).await;
}

#[tokio::test]
async fn what_has_not_changed_is_not_sent_again() {
    let house = House::new(Database::Sqlite).await;
    for path in ["/v1/models", "/v1/models?q=flux", "/v1/models/flux/dev"] {
        let first = house.gateway.request(Method::GET, path).send().await.unwrap();
        let etag = first.headers()["etag"].to_str().unwrap().to_owned();
        let ask = |tag: &str| house.gateway.request(Method::GET, path).header("if-none-match", tag).send();
        let strong = etag.trim_start_matches("W/").to_owned();
        for tag in [etag.clone(), strong, format!("\"other\", {etag}"), "*".to_owned()] {
            let again = ask(&tag).await.unwrap();
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path} {tag}");
            assert_eq!(again.headers()["etag"], etag);
            assert!(again.bytes().await.unwrap().is_empty());
        }
        assert_eq!(ask("\"other\"").await.unwrap().status(), StatusCode::OK);
    }
    let dear = House::with(Database::Sqlite, Duration::ZERO, &[("IMAGEGATE_MARKUP", "1.3")]).await;
    let etag = |house: &House| house.gateway.request(Method::GET, "/v1/models").send();
    let (cheap, dear) = (etag(&house).await.unwrap(), etag(&dear).await.unwrap());
    assert_ne!(cheap.headers()["etag"], dear.headers()["etag"], "prices are in the list");
}

#[tokio::test]
async fn the_stand_in_knows_every_endpoint_of_the_catalogue() {
    let fal = start_sandbox(Duration::ZERO);
    let mut known = BTreeSet::new();
    let mut cursor = String::new();
    loop {
        let url = format!("{}/models?limit=100&cursor={cursor}", fal.platform_url());
        let page = read(client().get(url).send().await.unwrap(), StatusCode::OK).await;
        let models = page["models"].as_array().unwrap();
        known.extend(models.iter().map(|model| model["endpoint_id"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.replace('=', "%3D"),
            None => break,
        }
    }
    let catalogue = Catalogue::built_in().unwrap();
    for model in catalogue.models().filter(|model| model.is_offered()) {
        let several = model.several.as_ref().map(|several| several.endpoint.as_str());
        for endpoint in [Some(model.endpoint.as_str()), several].into_iter().flatten() {
            assert!(known.contains(endpoint), "`{endpoint}` of `{}`", model.id);
        }
    }
}

/// What an example comes to, by the snapshot that the catalogue's own tests keep of it.
fn golden_price(model: &str, number: usize) -> String {
    let name = format!("src/catalogue/snapshots/{}-{number}.snap", model.replace('/', "-"));
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let golden: Value = serde_json::from_str(text.splitn(3, "---\n").nth(2).unwrap()).unwrap();
    golden.get("charged").unwrap_or(&golden["cost"]).as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_of_every_model_is_made_and_costs_what_the_catalogue_says() {
    // Some pictures have many megapixels, and none of them is looked at here.
    let settings = sandbox::Settings { delay: Duration::ZERO, file_sizes: false, ..sandbox::Settings::default() };
    let fal = sandbox::start(settings, Arc::new(SystemClock), Arc::new(SystemIds)).unwrap();
    let database = TestDatabase::new(Database::Sqlite).await;
    let gateway = Start::new(&database.url, &fal.queue_url()).run().await;
    let house = House { gateway, fal, database };
    let catalogue = Catalogue::built_in().unwrap();
    let mut examples = Vec::new();
    for model in catalogue.models().filter(|model| model.is_offered()) {
        assert!(!model.examples.is_empty(), "{}", model.id);
        for (index, example) in model.examples.iter().enumerate() {
            examples.push((model.id.clone(), index + 1, Value::Object(example.body())));
        }
    }
    let count = examples.len();
    let house = &house;
    let make = |(model, number, body): (String, usize, Value)| async move {
        let answer = house.gateway.generate(&body).header("x-imagegate-strict", "true").send().await.unwrap();
        let cost = answer.headers().get("x-imagegate-cost-usd").cloned();
        let body = read(answer, StatusCode::CREATED).await;
        assert_eq!(body["model"], model.as_str(), "{body}");
        assert_eq!(cost.unwrap(), golden_price(&model, number), "{model} {number}: {body}");
    };
    futures_util::stream::iter(examples).map(make).buffer_unordered(4).collect::<Vec<()>>().await;
    let state = house.fal_state().await;
    assert_eq!(state["accepted_submits"].as_u64(), Some(count as u64), "{state}");
    assert_eq!(state["unknown_fields"].as_object().map(serde_json::Map::len).unwrap_or_default(), 0, "{state}");
    // What the stand-in bills follows fal's documents, what we compute follows our files: they agree everywhere.
    let rows = house.gateway.generations().await;
    let drifts: Vec<&Value> = rows.iter().filter(|row| !row["drift_usd"].is_null()).collect();
    assert!(drifts.is_empty(), "{drifts:#?}");
    let billed = rows.iter().filter(|row| row["cost_source"] == "billed").count();
    assert!(billed * 2 > count, "most are billed by units: {billed} of {count}");
    assert_eq!((rows.len(), &house.gateway.readiness().await["cost_drifts"]), (count, &json!(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn model_files_are_read_anew_without_dropping_a_request_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("harbour.toml");
    let database = TestDatabase::new(Database::Sqlite).await;
    let fal = start_sandbox(Duration::from_secs(15));
    let start = Start::new(&database.url, &fal.queue_url());
    let gateway = start.with("IMAGEGATE_MODELS_DIR", folder.path().to_str().unwrap()).run().await;
    let house = House { gateway, fal, database };
    let etag = || async {
        let list = house.gateway.request(Method::GET, "/v1/models").send().await.unwrap();
        list.headers()["etag"].to_str().unwrap().to_owned()
    };
    let before = etag().await;
    get(&house, "/v1/models/harbour", StatusCode::NOT_FOUND).await;

    #[expect(clippy::disallowed_methods, reason = "a client of the gateway, not work of it")]
    let slow = tokio::spawn(house.gateway.generate(&t_rex()).send());
    let submitted = || async { (house.fal_state().await["accepted_submits"] == 1).then_some(()) };
    eventually(Duration::from_secs(5), submitted).await;
    std::fs::write(&file, HARBOUR).unwrap();
    house.gateway.signal("HUP");
    eventually(Duration::from_secs(10), || async {
        let model = house.gateway.request(Method::GET, "/v1/models/House/Harbour").send().await.unwrap();
        (model.status() == StatusCode::OK).then_some(())
    })
    .await;
    assert!(!slow.is_finished(), "the request was still under way");
    read(slow.await.unwrap().unwrap(), StatusCode::CREATED).await;
    let with_harbour = etag().await;
    assert_ne!(before, with_harbour);
    let document = get(&house, "/openapi.json", StatusCode::OK).await;
    assert!(document["components"]["schemas"]["HarbourRequest"].is_object());
    let body = json!({ "model": "harbour", "prompt": "a" });
    let made = read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::CREATED).await;
    assert_eq!(made["meta"]["usage"]["price_usd"], "0.010000000");

    std::fs::write(&file, HARBOUR.replace("max_length", "max_lenght")).unwrap();
    house.gateway.signal("HUP");
    let place = format!("{}:27:1: unknown field `max_lenght`", file.display());
    eventually(Duration::from_secs(10), || async { house.gateway.log().contains(&place).then_some(()) }).await;
    assert_eq!(etag().await, with_harbour);
    read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::CREATED).await;

    std::fs::remove_file(&file).unwrap();
    house.gateway.signal("HUP");
    eventually(Duration::from_secs(10), || async { (etag().await == before).then_some(()) }).await;
    read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::NOT_FOUND).await;
}

#[test]
fn every_status_is_somewhere_in_the_built_in_catalogue() {
    let catalogue = Catalogue::built_in().unwrap();
    for status in [Status::Offered, Status::Deprecated, Status::Withdrawn, Status::Unpriced] {
        assert!(catalogue.models().any(|model| model.status == status), "{status:?}");
    }
}
