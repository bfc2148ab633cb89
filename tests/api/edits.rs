//! `POST /v1/images/edits`: OpenAI's multipart form and its JSON body, checked and booked like any other request.

use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::multipart::{Form, Part};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::support::{Database, House, PROJECT_KEY, on_both_databases, read};

on_both_databases!(
    one_image_is_edited_and_booked,
    several_images_go_to_a_model_that_takes_several,
    what_does_not_fit_is_refused_with_the_field,
    everything_that_is_wrong_with_a_form_is_told_at_once,
    the_same_key_and_form_make_one_image_whatever_the_boundary,
    several_files_come_under_every_name_that_form_libraries_give_them,
    a_file_under_an_unknown_name_is_refused_with_the_known_ones,
    a_json_body_names_its_images_as_openai_does,
    a_json_body_that_names_no_good_image_is_refused_with_the_place,
    an_edit_without_an_image_is_refused_before_it_costs,
    a_form_that_does_not_say_how_gets_each_image_as_link_and_embedded,
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

/// The picture with so much after it that a body with it is large.
fn large_picture() -> Vec<u8> {
    let mut bytes = picture();
    bytes.resize(100_000, 0);
    bytes
}

fn large_uri() -> String {
    "data:image/png;base64,".to_owned() + &STANDARD.encode(large_picture())
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
    let plain = house.gateway.project(Method::POST, "/v1/images/edits").header("content-type", "text/plain").body("a");
    read(plain.send().await.unwrap(), StatusCode::UNSUPPORTED_MEDIA_TYPE).await;
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

async fn several_files_come_under_every_name_that_form_libraries_give_them(kind: Database) {
    let house = House::new(kind).await;
    let names = [
        ["image", "image"],
        ["image[]", "image[]"],
        ["images", "images"],
        ["images[]", "images[]"],
        ["image[0]", "image[1]"],
        ["images[0]", "images[1]"],
        ["image", "image[]"],
        // The model's own name.
        ["image_urls", "image_urls[]"],
    ];
    for pair in names {
        let form = pair.into_iter().fold(form("blackforestlabs/flux-2-edit"), |form, name| form.part(name, file()));
        read(ask(&house, form).send().await.unwrap(), StatusCode::CREATED).await;
    }
    // An address as text, where a file could stand.
    let linked = form("blackforestlabs/flux-2-edit").part("image[]", file());
    let uri = "data:image/png;base64,".to_owned() + &STANDARD.encode(picture());
    read(ask(&house, linked.text("image[]", uri)).send().await.unwrap(), StatusCode::CREATED).await;
    let sent = house.gateway.generations().await;
    assert_eq!(sent.len(), names.len() + 1);
    // Two input images are charged by their megapixels: all cost the same.
    assert!(sent.iter().all(|row| row["price_usd"] == sent[0]["price_usd"]), "{sent:?}");
}

async fn a_file_under_an_unknown_name_is_refused_with_the_known_ones(kind: Database) {
    let house = House::new(kind).await;
    for name in ["picture", "file", "markup", "image[a]", "photo[0]"] {
        let form = form("blackforestlabs/flux-2-edit").part("image", file()).part(name, file());
        let refused = read(ask(&house, form).send().await.unwrap(), StatusCode::BAD_REQUEST).await;
        let (problem, plain) = (&refused["error"]["data"][0], name.trim_end_matches("[0]"));
        assert_eq!((&problem["path"][0], &refused["error"]["param"]), (&json!(plain), &json!(plain)), "{refused}");
        let message = problem["message"].as_str().unwrap();
        assert!(["`image`", "`mask`", "`image_urls`"].iter().all(|known| message.contains(known)), "{message}");
    }
    assert!(house.gateway.generations().await.is_empty());
}

fn ask_json(house: &House, body: &Value) -> RequestBuilder {
    house.gateway.project(Method::POST, "/v1/images/edits").json(body)
}

async fn a_json_body_names_its_images_as_openai_does(kind: Database) {
    let house = House::new(kind).await;
    let uri = "data:image/png;base64,".to_owned() + &STANDARD.encode(picture());
    let upload = house.gateway.project(Method::POST, "/v1/files").multipart(Form::new().part("file", file()));
    let uploaded = read(upload.send().await.unwrap(), StatusCode::OK).await;
    let (id, url) = (&uploaded["id"], &uploaded["url"]);
    let one = "flux/kontext-pro/image-to-image";
    let several = "blackforestlabs/flux-2-edit";
    for (model, images) in [
        (one, json!({"images": [{"image_url": uri}]})),
        (one, json!({"images": [{"file_id": id}]})),
        (one, json!({"images": [{"image_url": {"url": url}}], "mask": null})),
        (one, json!({"image": uri})),
        (one, json!({"image": {"file_id": id, "image_url": null}})),
        (one, json!({"image_url": url})),
        (one, json!({"image_url": url, "images": [{"file_id": id}], "image": ""})),
        (several, json!({"images": [{"image_url": url}, {"file_id": id}]})),
        (several, json!({"images": [uri, {"url": url}]})),
        (several, json!({"image_urls": [url, {"file_id": id}]})),
        // A large body is read by another thread.
        (several, json!({"images": [large_uri(), {"file_id": id}]})),
    ] {
        let mut body = json!({"model": model, "prompt": "make it night", "n": 1, "user": "ada"});
        body.as_object_mut().unwrap().extend(images.as_object().unwrap().clone());
        let answer = ask_json(&house, &body).send().await.unwrap();
        let answer = read(answer, StatusCode::CREATED).await;
        assert_eq!(answer["meta"]["ignored"], json!([]), "{images}");
    }
    let body = json!({"model": one, "prompt": "make it night", "images": [{"file_id": id}]});
    assert_eq!(house.gateway.generations().await.len(), 11);
    // A key of another project cannot name the file, and one without the scope `files` none at all.
    let key = async |project: Value, scopes: Value| {
        let project = project.as_str().unwrap().to_owned();
        let path = format!("/v1/organization/projects/{project}/service_accounts");
        let made = house.gateway.admin(Method::POST, &path).json(&json!({"name": "s", "scopes": scopes}));
        read(made.send().await.unwrap(), StatusCode::OK).await["api_key"]["value"].as_str().unwrap().to_owned()
    };
    let new = house.gateway.admin(Method::POST, "/v1/organization/projects").json(&json!({"name": "another"}));
    let other = read(new.send().await.unwrap(), StatusCode::OK).await["id"].clone();
    let default = house.gateway.admin(Method::GET, "/admin/v1/projects/default").send().await.unwrap();
    let default = read(default, StatusCode::OK).await["id"].clone();
    for (project, scopes, status) in [
        (other, json!(["images:generate", "files"]), StatusCode::BAD_REQUEST),
        (default, json!(["images:generate"]), StatusCode::FORBIDDEN),
    ] {
        let key = key(project, scopes).await;
        let ask = house.gateway.request(Method::POST, "/v1/images/edits").bearer_auth(key).json(&body);
        let refused = read(ask.send().await.unwrap(), status).await;
        assert!(!refused.to_string().contains(PROJECT_KEY));
    }
}

async fn a_json_body_that_names_no_good_image_is_refused_with_the_place(kind: Database) {
    let house = House::new(kind).await;
    let url = "https://example.com/a.png";
    let nothing = format!("file-{}", "0".repeat(32));
    for (images, path) in [
        (json!({"images": [{"image_url": url}, {"file_id": nothing}]}), json!(["images", 1, "file_id"])),
        (json!({"images": [{"file_id": "none"}]}), json!(["images", 0, "file_id"])),
        (json!({"images": [large_uri(), {"file_id": nothing}]}), json!(["images", 1, "file_id"])),
        (json!({"images": [{}]}), json!(["images", 0])),
        (json!({"images": [7]}), json!(["images", 0])),
        (json!({"images": [{"image_url": url, "file_id": nothing}]}), json!(["images", 0])),
        (json!({"images": 7}), json!(["images"])),
        (json!({"images": [{"image_url": url}], "image": "https://example.com/b.png"}), json!(["image"])),
        (json!({"images": [{"image_url": url}], "mask": {"image_url": url}}), json!(["mask"])),
        (json!({"images": [{"image_url": "a.png"}]}), json!(["image_urls", 0])),
        (json!({"images": [{"image_url": url}], "n": "two"}), json!(["n"])),
    ] {
        let mut body = json!({"model": "blackforestlabs/flux-2-edit", "prompt": "make it night"});
        body.as_object_mut().unwrap().extend(images.as_object().unwrap().clone());
        let refused = read(ask_json(&house, &body).send().await.unwrap(), StatusCode::BAD_REQUEST).await;
        assert_eq!(refused["error"]["data"][0]["path"], path, "{images}: {refused}");
    }
    for (body, status) in [
        (json!({"model": "flux/none", "prompt": "a", "images": [{"image_url": url}]}), StatusCode::NOT_FOUND),
        (json!({"prompt": "a", "images": [{"image_url": url}]}), StatusCode::BAD_REQUEST),
        (json!([]), StatusCode::BAD_REQUEST),
    ] {
        read(ask_json(&house, &body).send().await.unwrap(), status).await;
    }
    let twice = r#"{"model": "flux/dev", "model": "flux/dev", "prompt": "a"}"#;
    let twice =
        house.gateway.project(Method::POST, "/v1/images/edits").header("content-type", "application/json").body(twice);
    read(twice.send().await.unwrap(), StatusCode::BAD_REQUEST).await;
    assert!(house.gateway.generations().await.is_empty());
}

async fn an_edit_without_an_image_is_refused_before_it_costs(kind: Database) {
    let house = House::new(kind).await;
    for model in ["flux/dev", "gpt-image-1.5"] {
        let refused = read(ask(&house, form(model)).send().await.unwrap(), StatusCode::BAD_REQUEST).await;
        assert_eq!(refused["error"]["param"], "image", "{refused}");
        let body = json!({"model": model, "prompt": "make it night", "images": []});
        let refused = read(ask_json(&house, &body).send().await.unwrap(), StatusCode::BAD_REQUEST).await;
        assert!(refused["message"].as_str().unwrap().contains("/v1/images/generations"), "{refused}");
    }
    assert!(house.gateway.generations().await.is_empty());
}

/// `@ai-sdk/openai` reads `b64_json` alone and cannot ask an edit for it; clients of AI/ML API read `url`.
async fn a_form_that_does_not_say_how_gets_each_image_as_link_and_embedded(kind: Database) {
    let house = House::new(kind).await;
    let edit = || form("blackforestlabs/flux-2-edit").part("image", file());
    let images = async |form: Form| {
        let answer = read(ask(&house, form).send().await.unwrap(), StatusCode::CREATED).await;
        assert_eq!(answer["data"], answer["images"]);
        answer["data"][0].clone()
    };
    for form in [edit(), edit().text("response_format", "")] {
        let image = images(form).await;
        let (link, embedded) = (image["url"].as_str().unwrap(), image["b64_json"].as_str().unwrap());
        let linked = house.gateway.client.get(link).send().await.unwrap().bytes().await.unwrap();
        assert_eq!(STANDARD.decode(embedded).unwrap(), linked);
    }
    let image = images(edit().text("response_format", "url")).await;
    assert!(image["url"].is_string() && image.get("b64_json").is_none(), "{image}");
    // A JSON body is answered as a generation is.
    let body = json!({"model": "blackforestlabs/flux-2-edit", "prompt": "a", "image": "https://example.com/a.png"});
    let answer = house.gateway.project(Method::POST, "/v1/images/edits").json(&body).send().await.unwrap();
    assert!(read(answer, StatusCode::CREATED).await["data"][0].get("b64_json").is_none());
}
