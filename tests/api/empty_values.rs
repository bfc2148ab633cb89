//! Empty values: `""`, `[]` and `null` are as if their field were absent, whatever it is and however it comes.

use reqwest::multipart::{Form, Part};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::support::{Database, House, PROJECT_KEY, on_both_databases, read};

on_both_databases!(
    every_empty_field_of_a_model_is_as_if_it_were_absent,
    empty_parts_of_a_form_are_as_if_they_were_absent,
    empty_fields_of_fals_clients_are_as_if_they_were_absent,
    what_is_required_stays_required,
    a_prompt_of_characters_that_show_nothing_is_blank,
);

/// One for each kind of parameter that there is.
const MODELS: [&str; 12] = [
    "flux/dev",
    "flux-lora",
    "flux-pro/v1.1-ultra",
    "flux/kontext-pro/image-to-image",
    "gpt-image-1.5",
    "ideogram/v3",
    "klingai/image-o1",
    "nano-banana-pro",
    "omnigen-v2",
    "recraft-v3",
    "stable-diffusion-v35-large",
    "bytedance/uso",
];
/// What is asked of the gateway itself, and other clients' names for parameters.
const OTHERS: [&str; 18] = [
    "response_format",
    "user",
    "safety_identifier",
    "stream",
    "partial_images",
    "background",
    "webhook_url",
    "sync_mode",
    "size",
    "aspect_ratio",
    "aspectRatio",
    "numberOfImages",
    "negativePrompt",
    "quality",
    "style",
    "output_format",
    "mask",
    "input_references",
];

async fn quote(house: &House, body: &Value) -> (StatusCode, Value) {
    let answer = house.gateway.project(Method::POST, "/v1/images/generations/quote").json(body).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

/// The least that a model takes.
fn least(model: &str, schema: &Value) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(model));
    body.insert("prompt".to_owned(), json!("a quiet harbour"));
    let images = schema["properties"].as_object().unwrap().keys().find(|name| name.contains("image_url"));
    if let Some(name) = images {
        let is_list = schema["properties"][name]["type"].to_string().contains("array");
        let link = "https://example.com/a.png";
        body.insert(name.clone(), if is_list { json!([link]) } else { json!(link) });
    }
    body
}

async fn every_empty_field_of_a_model_is_as_if_it_were_absent(kind: Database) {
    let house = House::new(kind).await;
    for model in MODELS {
        let shown = house.gateway.request(Method::GET, &format!("/v1/models/{model}")).send().await.unwrap();
        let schema = read(shown, StatusCode::OK).await["parameters"].take();
        let body = least(model, &schema);
        let plain = quote(&house, &json!(body)).await;
        assert_eq!(plain.0, StatusCode::OK, "{}", plain.1);
        let fields = schema["properties"].as_object().unwrap().keys().map(String::as_str).chain(OTHERS);
        for field in fields.filter(|field| !body.contains_key(*field)) {
            for empty in [json!(""), json!([]), json!(null)] {
                let mut body = body.clone();
                body.insert(field.to_owned(), empty);
                let body = json!(body);
                assert_eq!(quote(&house, &body).await, plain, "{body}");
            }
        }
    }
    // Also within objects.
    for (within, without) in [
        (json!({"image_size": {"width": 512, "height": ""}}), json!({"image_size": {"width": 512}})),
        (
            json!({"loras": [{"path": "https://example.com/l.safetensors", "scale": ""}]}),
            json!({"loras": [{"path": "https://example.com/l.safetensors"}]}),
        ),
    ] {
        let with = |fields: Value| {
            let mut body = json!({"model": "flux-lora", "prompt": "a"});
            body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            body
        };
        let (within, without) = (quote(&house, &with(within)).await, quote(&house, &with(without)).await);
        assert_eq!(within, without);
    }
    // An empty list of fallbacks has a meaning: not even the model's own.
    let body = json!({"model": "flux/dev", "prompt": "a", "fallbacks": []});
    assert_eq!(quote(&house, &body).await.0, StatusCode::OK);
}

fn picture() -> Part {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(64, 48).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    Part::bytes(bytes.into_inner()).file_name("picture.png")
}

async fn empty_parts_of_a_form_are_as_if_they_were_absent(kind: Database) {
    let house = House::new(kind).await;
    let form = || {
        let form = Form::new().text("model", "flux/kontext-pro/image-to-image").text("prompt", "make it night");
        form.part("image", picture())
    };
    let edit = async |form: Form, status: StatusCode| {
        let request = house.gateway.project(Method::POST, "/v1/images/edits").multipart(form);
        read(request.send().await.unwrap(), status).await
    };
    let fields = ["n", "size", "seed", "guidance_scale", "response_format", "stream", "partial_images", "user", "mask"];
    let empty = fields.into_iter().chain(["output_format", "quality", "background", "aspect_ratio", "image[]"]);
    let form_of_empties = empty.fold(form(), |form, name| form.text(name, ""));
    // A browser sends each file input that nobody has filled like this.
    let no_file = || Part::bytes(Vec::new()).file_name("").mime_str("application/octet-stream").unwrap();
    let form_of_empties = form_of_empties.part("image", no_file()).part("mask", no_file()).part("extra", no_file());
    let made = edit(form_of_empties, StatusCode::CREATED).await;
    assert_eq!((&made["meta"]["ignored"], made["images"].as_array().unwrap().len()), (&json!([]), 1), "{made}");
    assert_eq!(house.gateway.generations().await[0]["price_usd"], "0.040000000");
    // A file with a name was to be sent, and has got lost.
    let lost = form().part("image", Part::bytes(Vec::new()).file_name("second.png"));
    let refused = edit(lost, StatusCode::BAD_REQUEST).await;
    assert!(refused["message"].as_str().unwrap().contains("the file is empty"), "{refused}");
    // So do the references of a JSON body.
    let body = json!({
        "model": "flux/kontext-pro/image-to-image", "prompt": "make it night", "mask": "", "n": "", "image": [],
        "images": [{"image_url": "https://example.com/a.png", "file_id": ""}],
    });
    let request = house.gateway.project(Method::POST, "/v1/images/edits").json(&body);
    read(request.send().await.unwrap(), StatusCode::CREATED).await;
}

async fn empty_fields_of_fals_clients_are_as_if_they_were_absent(kind: Database) {
    let house = House::new(kind).await;
    for empty in [json!(""), json!([]), json!(null)] {
        let mut body = json!({"prompt": "a"});
        for field in ["seed", "num_images", "image_size", "sync_mode", "guidance_scale", "output_format"] {
            body[field] = empty.clone();
        }
        let request = house.gateway.request(Method::POST, "/fal/run/fal-ai/flux/dev").json(&body);
        let made = request.header("authorization", format!("Key {PROJECT_KEY}")).send().await.unwrap();
        assert!(!made.headers().contains_key("x-imagegate-ignored"));
        let made = read(made, StatusCode::OK).await;
        assert_eq!((&made["images"][0]["width"], &made["images"][0]["height"]), (&json!(1024), &json!(768)));
    }
}

async fn what_is_required_stays_required(kind: Database) {
    let house = House::new(kind).await;
    for (model, field) in [
        ("flux/dev", "prompt"),
        ("flux/kontext-pro/image-to-image", "image_url"),
        ("blackforestlabs/flux-2-max-edit", "image_urls"),
    ] {
        for empty in [json!(""), json!([]), json!(null)] {
            let mut body = json!({"model": model, "prompt": "a"});
            body[field] = empty;
            let (status, answer) = quote(&house, &body).await;
            assert_eq!((status, &answer["error"]["param"]), (StatusCode::BAD_REQUEST, &json!(field)), "{body}");
        }
    }
}

async fn a_prompt_of_characters_that_show_nothing_is_blank(kind: Database) {
    let house = House::new(kind).await;
    for blank in ["\u{200b}", "\u{feff}\u{200d}\u{200c}", " \u{2060}\n", "\u{3164}\u{115f}", "\u{2800}", "\u{e0001}"] {
        // Long enough for every model.
        let body = json!({"model": "gpt-image-1.5", "prompt": blank.repeat(3)});
        let (status, answer) = quote(&house, &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{blank:?}");
        assert!(answer["message"].as_str().unwrap().contains("must not be blank"), "{answer}");
    }
    for visible in ["👩\u{200d}🚀", "\u{200f}שלום", "\u{200b}a", "é"] {
        assert_eq!(quote(&house, &json!({"model": "flux/dev", "prompt": visible})).await.0, StatusCode::OK);
    }
}
