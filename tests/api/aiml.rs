//! AIML's clients, each by its own requests: what it sends is taken, and what it reads is there. The requests are in
//! `tests/aiml/clients.json`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::support::{Database, House, client, on_both_databases, read};

on_both_databases!(
    every_client_is_understood_and_gets_what_it_reads,
    a_client_without_credit_reads_why,
    the_list_of_models_has_what_clients_filter_on,
    n8n_finds_its_key_good,
);

fn captures() -> Vec<Value> {
    serde_json::from_str(include_str!("../aiml/clients.json")).unwrap()
}

/// An image as a client has found it.
#[derive(Debug)]
enum Found {
    Url(String),
    Base64(String),
}

impl Found {
    fn of(url: &Value, base64: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        text(base64).map(Self::Base64).or_else(|| text(url).map(Self::Url))
    }

    async fn size(&self) -> (u32, u32) {
        let file = match self {
            Self::Base64(text) => STANDARD.decode(text).unwrap(),
            // Only what is fetched without a key is of use to a browser.
            Self::Url(url) => client().get(url).send().await.unwrap().bytes().await.unwrap().to_vec(),
        };
        let picture = image::load_from_memory(&file).unwrap();
        (picture.width(), picture.height())
    }
}

/// The images that a client finds in an answer, by its own way of looking.
fn found_by(reader: &str, body: &Value, wants_base64: bool) -> Vec<Found> {
    let list = |name: &str| body[name].as_array().cloned().unwrap_or_default();
    let both = |image: &Value| Found::of(&image["url"], &image["b64_json"]).unwrap();
    match reader {
        // The address counts wherever the field is there.
        "litellm" => list("data").iter().map(|image| Found::of(&image["url"], &Value::Null).unwrap()).collect(),
        "openai" => {
            assert!(body["created"].is_i64(), "{body}");
            list("data").iter().map(both).collect()
        }
        // Only `images`, and only the field that was asked for.
        "langchain" => {
            let (url, base64) = if wants_base64 { ("none", "b64_json") } else { ("url", "none") };
            list("images").iter().map(|image| Found::of(&image[url], &image[base64]).unwrap()).collect()
        }
        "n8n" => list("data").iter().map(both).collect(),
        "sillytavern" => {
            let image = if body["images"].is_array() { &body["images"][0] } else { &body["data"][0] };
            vec![both(image)]
        }
        "browser" => {
            let usage = &body["meta"]["usage"];
            assert!(usage["usd_spent"].is_f64() && usage["credits_used"].is_i64(), "{body}");
            vec![both(&body["data"][0])]
        }
        "script" => vec![Found::of(&body["images"][0]["url"], &Value::Null).unwrap()],
        other => panic!("nobody reads as `{other}`"),
    }
}

async fn every_client_is_understood_and_gets_what_it_reads(kind: Database) {
    let house = House::new(kind).await;
    let captures = captures();
    assert_eq!(captures.len(), 7);
    for capture in &captures {
        let name = capture["client"].as_str().unwrap();
        let bodies = capture["bodies"].as_array().unwrap();
        for (place, body) in bodies.iter().enumerate() {
            for path in capture["paths"].as_array().unwrap() {
                let mut request = house.gateway.project(Method::POST, path.as_str().unwrap()).json(body);
                for (header, value) in capture["headers"].as_object().unwrap() {
                    request = request.header(header, value.as_str().unwrap());
                }
                let answer: Response = request.send().await.unwrap();
                assert!(answer.headers().contains_key("x-request-id"), "{name}");
                let told = read(answer, StatusCode::CREATED).await;
                let wants_base64 = body["response_format"] == "b64_json" || body["output_format"] == "b64_json";
                let found = found_by(capture["reads"].as_str().unwrap(), &told, wants_base64);
                let asked = body["n"].as_u64().or_else(|| body["num_images"].as_u64()).unwrap_or(1);
                assert_eq!(found.len() as u64, asked, "{name}: {told}");
                for image in found {
                    let (width, height) = image.size().await;
                    assert_eq!(json!([width, height]), capture["expects"][place], "{name}");
                }
            }
        }
    }
}

async fn a_client_without_credit_reads_why(kind: Database) {
    let house = House::new(kind).await;
    house.gateway.set_project(&json!({"prepaid": true})).await;
    for capture in captures() {
        let body = &capture["bodies"][0];
        let answer = house.gateway.generate(body).header("origin", "https://studio.example").send().await.unwrap();
        let exposed = answer.headers()["access-control-expose-headers"].to_str().unwrap().to_lowercase();
        assert!(exposed.contains("x-request-id"), "{exposed}");
        let request_id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        let told = read(answer, StatusCode::FORBIDDEN).await;
        // The browser app's word for it, and what the others show to their users.
        assert_eq!(told["error"]["data"]["kind"], "err_insufficent_credits");
        assert_eq!((&told["requestId"], &told["statusCode"]), (&json!(request_id), &json!(403)));
        for message in [&told["message"], &told["error"]["message"]] {
            assert!(message.as_str().unwrap().starts_with("You've run out of credits"), "{told}");
        }
    }
}

async fn the_list_of_models_has_what_clients_filter_on(kind: Database) {
    let house = House::new(kind).await;
    for path in ["/v1/models", "/models", "/models/"] {
        let request = house.gateway.request(Method::GET, path).header("origin", "https://studio.example");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["access-control-allow-origin"], "*");
        let list = read(answer, StatusCode::OK).await;
        // n8n: `models` or else `data`, by `type` and `endpoints`.
        let models = list.get("models").unwrap_or(&list["data"]).as_array().unwrap().clone();
        let kinds = ["image", "image-generation", "images", "vision"];
        let offered = models.iter().filter(|model| kinds.contains(&model["type"].as_str().unwrap())).count();
        assert_eq!(offered, models.len());
        // SillyTavern: `type` is `image`, but for two of them.
        let shown: Vec<&str> = models
            .iter()
            .filter(|model| model["type"] == "image")
            .map(|model| model["id"].as_str().unwrap())
            .filter(|id| !["triposr", "flux/dev/image-to-image"].contains(id))
            .collect();
        assert!(shown.len() > 40 && shown.contains(&"flux/dev"), "{shown:?}");
        for model in &models {
            let endpoints = model["endpoints"].as_array().unwrap();
            assert!(endpoints.contains(&json!("/v1/images/generations")), "{model}");
            assert!(model["info"]["name"].is_string() && model["info"]["developer"].is_string(), "{model}");
            assert_eq!(model["object"], "model");
        }
    }
}

async fn n8n_finds_its_key_good(kind: Database) {
    let house = House::new(kind).await;
    for path in ["/assistants", "/v1/assistants", "/assistants/"] {
        let list = read(house.gateway.project(Method::GET, path).send().await.unwrap(), StatusCode::OK).await;
        assert_eq!((&list["object"], &list["data"], &list["has_more"]), (&json!("list"), &json!([]), &json!(false)));
        let stranger = house.gateway.request(Method::GET, path).bearer_auth("nobody's").send().await.unwrap();
        read(stranger, StatusCode::UNAUTHORIZED).await;
    }
}
