//! Models of OpenAI's GPT image family answer as OpenAI does: their clients read `b64_json` and the facts beside it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Database, House, on_both_databases, read};

on_both_databases!(
    an_answer_has_the_images_and_what_openai_says_beside_them,
    a_link_alone_is_answered_where_it_is_asked_for,
    a_stream_ends_with_the_same_facts,
    an_image_that_cannot_be_fetched_keeps_its_link_and_the_facts,
    what_such_a_model_cannot_do_is_refused_with_what_to_send_instead,
    a_fallback_answers_in_the_form_of_the_model_that_was_asked_for,
    other_models_answer_with_links,
    an_alias_with_such_a_name_answers_in_this_form_whatever_model_it_leads_to,
);

fn wish(model: &str) -> Value {
    json!({"model": model, "prompt": "a quiet harbour", "size": "1024x1536", "quality": "low"})
}

/// What OpenAI's object of tokens has, all of it nothing: images are billed one by one.
fn no_tokens() -> Value {
    let none = json!({"image_tokens": 0, "text_tokens": 0});
    json!({"input_tokens": 0, "input_tokens_details": none, "output_tokens": 0, "output_tokens_details": none,
        "total_tokens": 0})
}

async fn an_answer_has_the_images_and_what_openai_says_beside_them(kind: Database) {
    let house = House::new(kind).await;
    let models = house.gateway.request(Method::GET, "/v1/models?q=gpt-image").send().await.unwrap();
    let models = read(models, StatusCode::OK).await["data"].as_array().unwrap().clone();
    assert!(!models.is_empty());
    for model in models {
        let names = model["aliases"].as_array().unwrap().iter().chain([&model["id"]]);
        for name in names.map(|name| name.as_str().unwrap().to_owned()) {
            let answer = read(house.gateway.generate(&wish(&name)).send().await.unwrap(), StatusCode::CREATED).await;
            let image = STANDARD.decode(answer["data"][0]["b64_json"].as_str().unwrap()).unwrap();
            assert!(image.starts_with(b"\x89PNG"), "{name}");
            assert!(answer["data"][0]["url"].as_str().unwrap().starts_with("http"), "{name}");
            let facts = ["size", "quality", "output_format", "background"].map(|fact| answer[fact].clone());
            assert_eq!(json!(facts), json!(["1024x1536", "low", "png", "opaque"]), "{name}: {answer}");
            assert_eq!(answer["usage"], no_tokens(), "{name}");
        }
    }
    let mut clear = wish("gpt-image-1.5");
    clear["background"] = json!("transparent");
    clear["output_format"] = json!("webp");
    let answer = read(house.gateway.generate(&clear).send().await.unwrap(), StatusCode::CREATED).await;
    assert_eq!((&answer["background"], &answer["output_format"]), (&json!("transparent"), &json!("webp")));
    // What is not known is not said: the file's format may have transparency, and nothing was ordered.
    clear["background"] = json!("auto");
    let answer = read(house.gateway.generate(&clear).send().await.unwrap(), StatusCode::CREATED).await;
    assert!(answer.get("background").is_none(), "{answer}");
}

async fn a_link_alone_is_answered_where_it_is_asked_for(kind: Database) {
    let house = House::new(kind).await;
    let mut linked = wish("gpt-image-1.5");
    linked["response_format"] = json!("url");
    let answer = read(house.gateway.generate(&linked).send().await.unwrap(), StatusCode::CREATED).await;
    assert!(answer["data"][0].get("b64_json").is_none() && answer["data"][0]["url"].is_string(), "{answer}");
    assert_eq!((&answer["quality"], &answer["usage"]), (&json!("low"), &no_tokens()));
    // The same request, said in full, is the same to an idempotency key.
    let keyed = |body: Value| house.gateway.generate(&body).header("idempotency-key", "g").send();
    let first = read(keyed(wish("gpt-image-1.5")).await.unwrap(), StatusCode::CREATED).await;
    let mut said = wish("gpt-image-1.5");
    said["response_format"] = json!("b64_json");
    let again = read(keyed(said).await.unwrap(), StatusCode::CREATED).await;
    assert_eq!((&again["id"], &again["data"]), (&first["id"], &first["data"]));
    read(keyed(linked).await.unwrap(), StatusCode::UNPROCESSABLE_ENTITY).await;
}

async fn a_stream_ends_with_the_same_facts(kind: Database) {
    let house = House::new(kind).await;
    let mut streamed = wish("gpt-image-1.5");
    streamed["stream"] = json!(true);
    let text = house.gateway.generate(&streamed).send().await.unwrap().text().await.unwrap();
    let mut events = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let done = events.clone().map(read).find(|event| event["type"] == "image_generation.completed").unwrap();
    let facts = ["size", "quality", "output_format", "background"].map(|fact| done[fact].clone());
    assert_eq!(json!(facts), json!(["1024x1536", "low", "png", "opaque"]), "{done}");
    assert_eq!(done["usage"], no_tokens());
    let settled = read(events.next_back().unwrap());
    assert_eq!((&settled["quality"], &settled["usage"]), (&json!("low"), &no_tokens()), "{settled}");
}

async fn an_image_that_cannot_be_fetched_keeps_its_link_and_the_facts(kind: Database) {
    let house = House::new(kind).await;
    house.misbehave(json!({"at": "file", "do": {"status": 404}})).await;
    let answer = read(house.gateway.generate(&wish("gpt-image-1.5")).send().await.unwrap(), StatusCode::CREATED).await;
    let image = &answer["data"][0];
    assert!(image.get("b64_json").is_none() && image["embedding_error"].is_string(), "{answer}");
    assert!(image["url"].is_string());
    assert_eq!((&answer["size"], &answer["quality"]), (&json!("1024x1536"), &json!("low")));
}

async fn a_fallback_answers_in_the_form_of_the_model_that_was_asked_for(kind: Database) {
    let house = House::new(kind).await;
    house
        .misbehave(json!({"match": {"endpoint": "fal-ai/gpt-image-1.5"}, "at": "submit", "do": {"status": 503}}))
        .await;
    let body = json!({"model": "gpt-image-1.5", "prompt": "a quiet harbour", "fallbacks": ["flux/dev"]});
    let answer = read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::CREATED).await;
    assert_eq!(answer["model"], "flux/dev");
    assert!(answer["data"][0]["b64_json"].is_string(), "{answer}");
    assert_eq!((&answer["output_format"], &answer["background"]), (&json!("jpeg"), &json!("opaque")));
    assert_eq!(answer["usage"], no_tokens());
}

async fn other_models_answer_with_links(kind: Database) {
    let house = House::new(kind).await;
    let body = json!({"model": "flux/dev", "prompt": "a quiet harbour"});
    let answer = read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::CREATED).await;
    assert!(answer["data"][0].get("b64_json").is_none(), "{answer}");
    assert!(["usage", "quality", "size", "output_format"].iter().all(|fact| answer.get(fact).is_none()), "{answer}");
    // The document says how each model's images come.
    let document = house.gateway.request(Method::GET, "/openapi.json").send().await.unwrap();
    let document = read(document, StatusCode::OK).await;
    let said = |name: &str| {
        let field = &document["components"]["schemas"][name]["properties"]["response_format"];
        field["description"].as_str().unwrap().to_owned()
    };
    assert!(said("GptImage15Request").contains("b64_json") && !said("FluxDevRequest").contains("`b64_json`"));
}

async fn an_alias_with_such_a_name_answers_in_this_form_whatever_model_it_leads_to(kind: Database) {
    let house = House::new(kind).await;
    for (name, is_gpt_image) in [("gpt-image-1", true), ("openai/gpt-image-9", true), ("dall-e-3", false)] {
        let alias = json!({"id": name, "target": "flux/dev"});
        let made = house.gateway.admin(Method::POST, "/admin/v1/model_aliases").json(&alias).send().await.unwrap();
        assert!(made.status().is_success(), "{}", made.text().await.unwrap());
        let body = json!({"model": name, "prompt": "a quiet harbour", "image_size": "square"});
        let answer = read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::CREATED).await;
        assert_eq!(answer["model"], "flux/dev");
        assert_eq!(answer["data"][0]["b64_json"].is_string(), is_gpt_image, "{name}");
        assert_eq!(answer.get("usage").is_some(), is_gpt_image, "{name}");
    }
}

async fn what_such_a_model_cannot_do_is_refused_with_what_to_send_instead(kind: Database) {
    let house = House::new(kind).await;
    // The others have the same conflict in their files, and no price yet.
    for model in ["gpt-image-1.5", "fal-ai/gpt-image-1.5"] {
        let with = |fields: Value| {
            let mut body = wish(model);
            body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            house.gateway.generate(&body).header("x-imagegate-strict", "false").send()
        };
        // It would be made opaque, charged, and called transparent.
        let refused = with(json!({"background": "transparent", "output_format": "jpeg"})).await.unwrap();
        let refused = read(refused, StatusCode::BAD_REQUEST).await;
        let message = "`output_format` cannot be `jpeg` together with `background` `transparent`: JPEG has no \
                       transparency; send `png` or `webp`";
        assert_eq!(refused["error"]["data"][0]["message"], message);
        assert_eq!(refused["error"]["param"], "output_format");
        // Ignored, it would be charged as the dearest.
        let refused = with(json!({"quality": "standard"})).await.unwrap();
        let refused = read(refused, StatusCode::BAD_REQUEST).await;
        let problem = &refused["error"]["data"][0];
        assert_eq!((&refused["error"]["param"], &problem["nearest"]), (&json!("quality"), &json!("medium")));
        assert!(problem["options"].as_array().unwrap().contains(&json!("medium")), "{problem}");
    }
    assert!(house.gateway.generations().await.is_empty());
    // By choice it is the nearest, and named.
    let mut body = wish("gpt-image-1.5");
    body["quality"] = json!("hd");
    let adapted = house.gateway.generate(&body).header("x-imagegate-adapt", "all").send().await.unwrap();
    let adapted = read(adapted, StatusCode::CREATED).await;
    assert_eq!(adapted["meta"]["adapted"], json!([{"field": "quality", "from": "hd", "to": "high"}]));
    assert_eq!(adapted["meta"]["usage"]["price_usd"], "0.200000000");
}
