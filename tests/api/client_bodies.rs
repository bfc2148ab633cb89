//! The table's applications that are no libraries: what `Open WebUI`, `LibreChat` and Dify send, and what each reads of the
//! answer, by their sources.

use reqwest::multipart::{Form, Part};
use reqwest::{Method, RequestBuilder};
use serde_json::{Map, Value, json};

use crate::client_table::Gives::{self, Cannot, Error, Sides};
use crate::client_table::{CASES, SIZE, check, settings};
use crate::support::{Database, Gateway, TestDatabase};

const NO_STREAM: Gives = Cannot("it never asks for a stream");
const ONLY_SIZES: Gives = Cannot("it offers sizes only");
/// flux-2-edit: $0.012 for each megapixel that goes in and comes out, of which there are one and two.
const EDIT: Gives = Sides(1024, 1536, "0.036000000");
/// gpt-image-1.5: in high quality $0.199 for this size.
const GPT_SIZE: Gives = Sides(1536, 1024, "0.199000000");

fn picture() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let picture = image::RgbImage::from_pixel(64, 64, image::Rgb([200, 120, 40]));
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn generate(gateway: &Gateway, body: &Value) -> RequestBuilder {
    gateway.project(Method::POST, "/v1/images/generations").json(body)
}

/// The fields in their order, then the file under its name.
fn edit(gateway: &Gateway, fields: &[(&'static str, &'static str)], file: &'static str) -> RequestBuilder {
    let form = fields.iter().fold(Form::new(), |form, (name, value)| form.text(*name, *value));
    let part = Part::bytes(picture()).file_name("picture.png").mime_str("image/png").unwrap();
    gateway.project(Method::POST, "/v1/images/edits").multipart(form.part(file, part))
}

/// Sends each case and notes what the application sees: an image, or the error that it shows.
async fn seen_of(cases: Vec<(&str, RequestBuilder)>, reads: impl Fn(&Value) -> Value) -> Value {
    let mut seen = Map::new();
    for (case, request) in cases {
        assert!(CASES.contains(&case), "{case}");
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        let outcome = if status.is_success() {
            json!({"image": reads(&body["data"][0])})
        } else {
            json!({"error": ["status", status.as_u16(), body["error"]["message"]]})
        };
        seen.insert(case.to_owned(), outcome);
    }
    Value::Object(seen)
}

/// `gpt-image-1` is the name that some clients have built in: the operator points it to a model of choice.
pub async fn point(gateway: &Gateway, target: &str) {
    let alias = json!({"id": "gpt-image-1", "target": target});
    let made = gateway.admin(Method::POST, "/admin/v1/model_aliases").json(&alias).send().await.unwrap();
    assert!(made.status().is_success(), "{}", made.text().await.unwrap());
}

async fn gateway(database: &TestDatabase) -> Gateway {
    settings(database).run().await
}

/// `backend/open_webui/routers/images.py`: the address is read before the image; fields of the operator's choice go along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_webui() {
    let database = TestDatabase::new(Database::Sqlite).await;
    let gateway = gateway(&database).await;
    let body = |field: &str, value: &str| {
        let mut body = json!({"model": "flux/dev", "prompt": "a red fox", "n": 1, "response_format": "b64_json"});
        body[field] = json!(value);
        generate(&gateway, &body)
    };
    let fields = [
        ("model", "blackforestlabs/flux-2-edit"),
        ("prompt", "a red fox"),
        ("n", "1"),
        ("size", "1024x1536"),
        ("response_format", "b64_json"),
    ];
    let cases = vec![
        ("size", body("size", "1536x1024")),
        ("ratio", body("aspect_ratio", "9:16")),
        ("edit", edit(&gateway, &fields, "image")),
        ("error", body("size", "1000x1000")),
    ];
    let seen =
        seen_of(cases, |image| if image["url"].is_string() { image["url"].clone() } else { image["b64_json"].clone() });
    let seen = seen.await;
    let gives = [SIZE, Sides(576, 1024, "0.025000000"), EDIT, NO_STREAM, Error("status", 400, "multiple of 32")];
    check(&gateway, &gives, &seen).await;
}

/// `OpenAIImageTools.js`: every option is sent, most of them `auto`; only `b64_json` is read. Edits are a form of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn librechat() {
    let database = TestDatabase::new(Database::Sqlite).await;
    let gateway = gateway(&database).await;
    let body = |size: &str| {
        let body = json!({
            "model": "gpt-image-1", "prompt": "a red fox", "n": 1, "background": "auto", "output_format": "png",
            "quality": "auto", "size": size,
        });
        generate(&gateway, &body)
    };
    let fields = [("model", "gpt-image-1"), ("prompt", "a red fox"), ("quality", "auto"), ("size", "1024x1536")];
    tried_with_an_alias(&gateway, body, edit(&gateway, &fields, "image[]")).await;
}

/// `gpt_image_generate.py` and `gpt_image_edit.py` with OpenAI's SDK: what is `auto` is left out; only `b64_json` is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dify() {
    let database = TestDatabase::new(Database::Sqlite).await;
    let gateway = gateway(&database).await;
    let body =
        |size: &str| generate(&gateway, &json!({"model": "gpt-image-1", "prompt": "a red fox", "size": size, "n": 1}));
    let fields = [("model", "gpt-image-1"), ("prompt", "a red fox"), ("size", "1024x1536"), ("n", "1")];
    tried_with_an_alias(&gateway, body, edit(&gateway, &fields, "image[]")).await;
}

async fn tried_with_an_alias(gateway: &Gateway, body: impl Fn(&str) -> RequestBuilder, edit: RequestBuilder) {
    let reads = |image: &Value| image["b64_json"].clone();
    point(gateway, "gpt-image-1.5").await;
    let mut seen = seen_of(vec![("size", body("1536x1024"))], reads).await;
    // fal's GPT models make images only: edits have a model of their own behind the name.
    point(gateway, "blackforestlabs/flux-2-edit").await;
    seen["edit"] = seen_of(vec![("edit", edit)], reads).await["edit"].take();
    point(gateway, "gpt-image-1.5").await;
    seen["error"] = seen_of(vec![("error", body("1792x1024"))], reads).await["error"].take();
    let gives = [GPT_SIZE, ONLY_SIZES, EDIT, NO_STREAM, Error("status", 400, "1536x1024")];
    check(gateway, &gives, &seen).await;
}
