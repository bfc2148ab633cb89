//! Making images: the seed document's example, OpenAI's words, quotes, replays, the background.

use std::time::Duration;

use image::ImageFormat;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Database, House, on_both_databases, read, t_rex};

on_both_databases!(
    the_documented_example_answers_with_both_clients_fields,
    openai_words_work_as_well,
    a_quote_calls_nobody_and_books_nothing,
    the_same_idempotency_key_makes_one_image,
    many_requests_with_one_key_at_once_make_one_image,
    an_image_in_the_background_is_answered_at_once_and_fetched_later,
    images_come_embedded_when_asked,
    what_is_black_for_safety_is_told_and_charged,
    content_that_fal_refuses_is_free,
    the_success_status_is_a_setting,
);

async fn the_documented_example_answers_with_both_clients_fields(kind: Database) {
    let house = House::new(kind).await;
    let answer = house.gateway.generate(&t_rex()).send().await.unwrap();
    for header in ["x-request-id", "x-imagegate-generation-id", "x-inference-id"] {
        assert!(answer.headers().contains_key(header), "{header}");
    }
    assert_eq!(answer.headers()["x-imagegate-cost-usd"], "0.035000000");
    assert_eq!(answer.headers()["x-aimlapi-usd-spent"], "0.035000000");
    assert_eq!(answer.headers()["x-aimlapi-credits-used"], "70000");
    assert_eq!(answer.headers()["x-imagegate-upstream"], "fal");
    let id = answer.headers()["x-imagegate-generation-id"].to_str().unwrap().to_owned();
    let body = read(answer, StatusCode::CREATED).await;
    assert_eq!(body["images"], body["data"]);
    assert_eq!(body["images"].as_array().unwrap().len(), 1);
    let image = &body["images"][0];
    assert_eq!(
        (&image["width"], &image["height"], &image["content_type"]),
        (&json!(1472), &json!(512), &json!("image/jpeg"))
    );
    assert!(body["created"].is_i64() && body["seed"].is_u64() && body["timings"].is_object());
    assert_eq!(body["model"], "flux-realism");
    assert_eq!(body["prompt"], t_rex()["prompt"]);
    assert_eq!(body["has_nsfw_concepts"], json!([false]));
    assert_eq!(body["meta"]["usage"]["credits_used"], 70_000);
    assert_eq!(body["meta"]["usage"]["usd_spent"], 0.035);
    assert_eq!(body["meta"]["ignored"], json!([]));

    let file = house.gateway.client.get(image["url"].as_str().unwrap()).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(image::guess_format(&file).unwrap(), ImageFormat::Jpeg);
    let picture = image::load_from_memory(&file).unwrap();
    assert_eq!((picture.width(), picture.height()), (1472, 512));

    let booked = house.gateway.generations().await;
    assert_eq!(booked.len(), 1);
    assert_eq!((&booked[0]["id"], &booked[0]["state"]), (&json!(id), &json!("succeeded")));
    assert_eq!((&booked[0]["price_usd"], &booked[0]["cost_usd"]), (&json!("0.035000000"), &json!("0.035000000")));
    assert_eq!((&booked[0]["num_images"], &booked[0]["megapixels"]), (&json!(1), &json!("1")));
    assert_eq!(booked[0]["endpoint"], "fal-ai/flux-realism");
    assert!(booked[0]["fal_request_id"].is_string());
    let state = house.fal_state().await;
    assert_eq!(state["unknown_fields"], json!({}), "{state}");
}

async fn openai_words_work_as_well(kind: Database) {
    let house = House::new(kind).await;
    let body = json!({"model": "FLUX/dev", "prompt": "a", "n": 2, "size": "1024x1024", "response_format": "url", "quality": "standard"});
    let answer = house.gateway.project(Method::POST, "/images/generations/").json(&body).send().await.unwrap();
    assert_eq!(answer.headers()["x-imagegate-ignored"], "quality");
    let body = read(answer, StatusCode::CREATED).await;
    assert_eq!(body["data"].as_array().unwrap().len(), 2);
    assert_eq!(body["data"][1]["width"], 1024);
    assert_eq!(body["model"], "flux/dev");
    assert_eq!(body["meta"]["ignored"], json!(["quality"]));
    assert_eq!(body["meta"]["usage"]["price_usd"], "0.050000000");
}

async fn a_quote_calls_nobody_and_books_nothing(kind: Database) {
    let house = House::new(kind).await;
    let answer =
        house.gateway.project(Method::POST, "/v1/images/generations/quote").json(&t_rex()).send().await.unwrap();
    let quote = read(answer, StatusCode::OK).await;
    assert_eq!(quote["price_usd"], "0.035000000");
    assert_eq!(quote["provider_request"]["endpoint"], "fal-ai/flux-realism");
    assert_eq!(
        quote["provider_request"]["body"],
        json!({
            "prompt": t_rex()["prompt"],
            "image_size": {"width": 1472, "height": 512},
            "num_inference_steps": 28,
            "guidance_scale": 3.5,
            "num_images": 1,
            "enable_safety_checker": true,
            "strength": 1,
            "output_format": "jpeg"
        })
    );
    assert!(house.gateway.generations().await.is_empty());
    assert_eq!(house.fal_state().await["accepted_submits"].as_u64().unwrap(), 0);
}

async fn the_same_idempotency_key_makes_one_image(kind: Database) {
    let house = House::new(kind).await;
    let ask = |body: Value| house.gateway.generate(&body).header("idempotency-key", "order-7").send();
    let first = ask(t_rex()).await.unwrap();
    assert!(!first.headers().contains_key("idempotent-replayed"));
    let first = read(first, StatusCode::CREATED).await;
    let second = ask(t_rex()).await.unwrap();
    assert_eq!(second.headers()["idempotent-replayed"], "true");
    let second = read(second, StatusCode::CREATED).await;
    assert_eq!((&first["id"], &first["images"], &first["seed"]), (&second["id"], &second["images"], &second["seed"]));
    let mut other = t_rex();
    other["seed"] = json!(5);
    let refused = read(ask(other).await.unwrap(), StatusCode::UNPROCESSABLE_ENTITY).await;
    assert_eq!(refused["error"]["code"], "idempotency_key_reused");
    assert_eq!(house.gateway.generations().await.len(), 1);
}

async fn many_requests_with_one_key_at_once_make_one_image(kind: Database) {
    let house = House::with(kind, Duration::from_millis(300), &[]).await;
    let asks = (0..20).map(|_| house.gateway.generate(&t_rex()).header("idempotency-key", "once").send());
    let answers = futures_util::future::join_all(asks).await;
    let mut ids = std::collections::BTreeSet::new();
    for answer in answers {
        ids.insert(read(answer.unwrap(), StatusCode::CREATED).await["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 1);
    assert_eq!(house.gateway.generations().await.len(), 1);
}

async fn an_image_in_the_background_is_answered_at_once_and_fetched_later(kind: Database) {
    let house = House::with(kind, Duration::from_secs(4), &[]).await;
    let answer = house.gateway.generate(&t_rex()).header("prefer", "respond-async").send().await.unwrap();
    let location = answer.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
    let taken = read(answer, StatusCode::ACCEPTED).await;
    let location = location.unwrap();
    assert!(matches!(taken["state"].as_str(), Some("queued" | "running")), "{taken}");
    assert_eq!(taken["price_usd"], "0.035000000");
    house.gateway.ended(taken["id"].as_str().unwrap()).await;
    let fetched = read(house.gateway.project(Method::GET, &location).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(fetched["state"], "succeeded");
    assert_eq!(fetched["images"][0]["width"], 1472);
    let list = house.gateway.project(Method::GET, "/v1/images/generations").send().await.unwrap();
    let list = read(list, StatusCode::OK).await;
    assert_eq!((&list["object"], &list["has_more"], &list["first_id"]), (&json!("list"), &json!(false), &taken["id"]));
    assert!(fetched.get("cost_usd").is_none(), "cost is the operator's to know");
}

async fn images_come_embedded_when_asked(kind: Database) {
    use base64::Engine;
    let house = House::new(kind).await;
    let mut body = t_rex();
    body["response_format"] = json!("b64_json");
    let answer = read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::CREATED).await;
    let file =
        base64::engine::general_purpose::STANDARD.decode(answer["data"][0]["b64_json"].as_str().unwrap()).unwrap();
    assert_eq!(image::load_from_memory(&file).unwrap().width(), 1472);
    let mut body = t_rex();
    body["sync_mode"] = json!(true);
    let answer = read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::CREATED).await;
    assert!(answer["images"][0]["url"].as_str().unwrap().starts_with("data:image/jpeg;base64,"));
}

async fn what_is_black_for_safety_is_told_and_charged(kind: Database) {
    let house = House::new(kind).await;
    let body = json!({"model": "flux/dev", "prompt": "sandbox-nsfw"});
    let answer = read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::CREATED).await;
    assert_eq!(answer["has_nsfw_concepts"], json!([true]));
    assert_eq!(answer["meta"]["usage"]["price_usd"], "0.025000000");
}

async fn content_that_fal_refuses_is_free(kind: Database) {
    let house = House::new(kind).await;
    let body = json!({"model": "flux/dev", "prompt": "sandbox-refuse"});
    let answer = read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::BAD_REQUEST).await;
    assert_eq!(answer["error"]["code"], "content_policy_violation");
    let data = &answer["error"]["data"];
    assert_eq!((&data["kind"], &data["categories"]), (&json!("moderation_blocked"), &json!(["violence"])));
    assert_eq!(data["problems"][0]["categories"], json!(["violence"]));
    let booked = house.gateway.generations().await;
    assert_eq!((&booked[0]["state"], &booked[0]["price_usd"]), (&json!("failed"), &json!("0.000000000")));
}

async fn the_success_status_is_a_setting(kind: Database) {
    let house = House::with(kind, Duration::ZERO, &[("IMAGEGATE_SUCCESS_STATUS", "200")]).await;
    read(house.gateway.generate(&t_rex()).send().await.unwrap(), StatusCode::OK).await;
}
