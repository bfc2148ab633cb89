//! `POST /v1/images/edits`: OpenAI's multipart form, checked and booked like any other request.

use std::io::Cursor;

use reqwest::multipart::{Form, Part};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::json;

use crate::support::{Database, House, on_both_databases, read};

on_both_databases!(
    one_image_is_edited_and_booked,
    several_images_go_to_a_model_that_takes_several,
    what_does_not_fit_is_refused_with_the_field,
    everything_that_is_wrong_with_a_form_is_told_at_once,
    the_same_key_and_form_make_one_image_whatever_the_boundary,
);

fn picture() -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image::RgbImage::from_pixel(64, 48, image::Rgb([200, 30, 60]))
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

fn form(model: &str) -> Form {
    Form::new().text("model", model.to_owned()).text("prompt", "make it night")
}

/// As OpenAI's SDKs send a file.
fn file() -> Part {
    Part::bytes(picture()).file_name("blob").mime_str("application/octet-stream").unwrap()
}

fn ask(house: &House, form: Form) -> RequestBuilder {
    house.gateway.project(Method::POST, "/v1/images/edits").multipart(form)
}

async fn one_image_is_edited_and_booked(kind: Database) {
    let house = House::new(kind).await;
    let form =
        form("flux/kontext-pro/image-to-image").part("image", file()).text("n", "2").text("guidance_scale", "4.5");
    let answer = read(ask(&house, form).send().await.unwrap(), StatusCode::CREATED).await;
    assert_eq!(answer["data"].as_array().unwrap().len(), 2);
    assert_eq!(answer["meta"]["ignored"], json!([]));
    let row = house.gateway.generations().await.remove(0);
    assert_eq!((&row["price_usd"], &row["endpoint"]), (&json!("0.080000000"), &json!("fal-ai/flux-pro/kontext")));
    assert_eq!(house.fal_state().await["unknown_fields"], json!({}));
}

async fn several_images_go_to_a_model_that_takes_several(kind: Database) {
    let house = House::new(kind).await;
    let form = form("blackforestlabs/flux-2-edit").part("image[]", file()).part("image[]", file());
    let answer = read(ask(&house, form).send().await.unwrap(), StatusCode::CREATED).await;
    assert_eq!(answer["images"].as_array().unwrap().len(), 1);
}

async fn what_does_not_fit_is_refused_with_the_field(kind: Database) {
    let house = House::new(kind).await;
    let model = "flux/kontext-pro/image-to-image";
    let text = Part::bytes(b"hello".to_vec()).file_name("a.txt");
    for (form, param) in [
        (form("flux/dev").part("image", file()), "image"),
        (form(model).part("image", text), "image"),
        (form(model).part("image", file()).part("mask", file()), "mask"),
        (form(model).part("image", file()).text("n", "9"), "n"),
        (form(model).part("image", file()).text("n", "two"), "n"),
        (form(model), "image_url"),
    ] {
        let answer = read(ask(&house, form).send().await.unwrap(), StatusCode::BAD_REQUEST).await;
        assert_eq!(answer["error"]["param"], param, "{answer}");
    }
    let unknown = form("flux/none").part("image", file());
    read(ask(&house, unknown).send().await.unwrap(), StatusCode::NOT_FOUND).await;
    let json = house.gateway.project(Method::POST, "/v1/images/edits").json(&json!({"model": model}));
    read(json.send().await.unwrap(), StatusCode::UNSUPPORTED_MEDIA_TYPE).await;
    assert!(house.gateway.generations().await.is_empty());
}

async fn the_same_key_and_form_make_one_image_whatever_the_boundary(kind: Database) {
    let house = House::new(kind).await;
    let form = || form("flux/kontext-pro/image-to-image").part("image", file());
    let first = ask(&house, form()).header("idempotency-key", "e").send().await.unwrap();
    let first = read(first, StatusCode::CREATED).await;
    let again = ask(&house, form()).header("idempotency-key", "e").send().await.unwrap();
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(read(again, StatusCode::CREATED).await["id"], first["id"]);
    let other = form().text("seed", "7");
    let other = ask(&house, other).header("idempotency-key", "e").send().await.unwrap();
    read(other, StatusCode::UNPROCESSABLE_ENTITY).await;
}

async fn everything_that_is_wrong_with_a_form_is_told_at_once(kind: Database) {
    let house = House::new(kind).await;
    let no_image = || Part::bytes(b"hello".to_vec()).file_name("blob");
    let wrong = Form::new()
        .text("model", "flux/kontext-pro/image-to-image")
        .text("prompt", "")
        .text("n", "9")
        .part("image", no_image())
        .part("image", file())
        .part("mask", file());
    let refused = read(ask(&house, wrong).send().await.unwrap(), StatusCode::BAD_REQUEST).await;
    let problems = refused["error"]["data"].as_array().unwrap();
    let mut told: Vec<&str> = problems.iter().map(|problem| problem["path"][0].as_str().unwrap()).collect();
    told.sort_unstable();
    assert_eq!(told, ["image", "mask", "n", "prompt"], "{refused}");
    assert_eq!(refused["error"]["param"], problems[0]["path"][0]);
    // With good files it is told in the catalogue's words, as a JSON body would be.
    let lone = form("flux/kontext-pro/image-to-image").part("image", file()).text("n", "9");
    let refused = read(ask(&house, lone).send().await.unwrap(), StatusCode::BAD_REQUEST).await;
    assert_eq!(refused["message"], "Invalid payload provided: `n` must be at most 4");
    assert!(house.gateway.generations().await.is_empty());
}
