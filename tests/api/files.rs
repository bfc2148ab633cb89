//! Delivered images under our own addresses, and inputs that clients upload.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use reqwest::header::{HeaderMap, IF_NONE_MATCH, IF_RANGE, RANGE};
use reqwest::multipart::{Form, Part};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::tools::tool;
use crate::support::{
    Database, Gateway, House, Start, TestDatabase, client, eventually, free_port, on_both_databases, python, read,
    start_sandbox,
};

on_both_databases!(
    a_delivered_image_is_kept_and_served_by_us,
    an_image_that_cannot_be_kept_is_passed_on_from_where_it_is,
);

fn wish() -> Value {
    json!({"model": "flux/dev", "prompt": "a cat", "image_size": "square", "num_images": 2})
}

fn address_of(folder: &Path) -> String {
    format!("file://{}", folder.display())
}

async fn made(gateway: &Gateway, body: &Value) -> Value {
    read(gateway.generate(body).send().await.unwrap(), StatusCode::CREATED).await
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).unwrap_or_else(|| panic!("no `{name}` in {headers:?}")).to_str().unwrap()
}

async fn a_delivered_image_is_kept_and_served_by_us(kind: Database) {
    let folder = tempfile::tempdir().unwrap();
    let place = address_of(&folder.path().join("pictures"));
    let house = House::with(kind, Duration::ZERO, &[("IMAGEGATE_STORAGE", place.as_str())]).await;
    let answer = made(&house.gateway, &wish()).await;
    let id = answer["id"].as_str().unwrap();
    for (index, image) in answer["data"].as_array().unwrap().iter().enumerate() {
        assert_eq!(image["url"], format!("{}/files/{id}/{index}.jpg", house.gateway.base));
    }
    let url = answer["data"][0]["url"].as_str().unwrap();

    // Anybody who knows the address may fetch it, whole or in part, once or for ever.
    let whole = client().get(url).send().await.unwrap();
    assert_eq!(whole.status(), StatusCode::OK);
    let headers = whole.headers().clone();
    assert_eq!(header(&headers, "content-type"), "image/jpeg");
    assert_eq!(header(&headers, "cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(header(&headers, "accept-ranges"), "bytes");
    assert_eq!(header(&headers, "x-content-type-options"), "nosniff");
    let etag = header(&headers, "etag").to_owned();
    let bytes = whole.bytes().await.unwrap();
    assert_eq!(image::guess_format(&bytes).unwrap(), image::ImageFormat::Jpeg);

    let part = client().get(url).header(RANGE, "bytes=10-19").send().await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(header(part.headers(), "content-range"), format!("bytes 10-19/{}", bytes.len()));
    assert_eq!(part.bytes().await.unwrap(), bytes.slice(10..20));
    let end = client().get(url).header(RANGE, "bytes=-5").header(IF_RANGE, &etag).send().await.unwrap();
    assert_eq!(end.bytes().await.unwrap(), bytes.slice(bytes.len() - 5..));
    let other = client().get(url).header(RANGE, "bytes=0-4").header(IF_RANGE, "\"another\"").send().await.unwrap();
    assert_eq!((other.status(), other.bytes().await.unwrap()), (StatusCode::OK, bytes.clone()));
    let beyond = client().get(url).header(RANGE, format!("bytes={}-", bytes.len())).send().await.unwrap();
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(header(beyond.headers(), "content-range"), format!("bytes */{}", bytes.len()));
    let known = client().get(url).header(IF_NONE_MATCH, &etag).send().await.unwrap();
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
    let missing = format!("{id}/7.jpg");
    let known = client().get(format!("{}/files/{missing}", house.gateway.base));
    let known = known.header(IF_NONE_MATCH, format!("\"{missing}\"")).send().await.unwrap();
    assert_eq!(known.status(), StatusCode::NOT_FOUND);
    let head = client().head(url).send().await.unwrap();
    assert_eq!(header(head.headers(), "content-length"), bytes.len().to_string());

    // Nothing else is reached by such an address.
    let beyond =
        [format!("{id}/..%2f..%2fbooks.db"), format!("..%2f{id}/0.jpg")].map(|name| (name, StatusCode::BAD_REQUEST));
    for (name, status) in [(format!("{id}/2.jpg"), StatusCode::NOT_FOUND)].into_iter().chain(beyond) {
        let answer = client().get(format!("{}/files/{name}", house.gateway.base)).send().await.unwrap();
        assert_eq!(answer.status(), status, "{name}");
    }

    // Later, and as base64, it comes from what is kept: the provider is asked once for each image.
    let served = house.fal_state().await["files_served"].clone();
    assert_eq!(served, 2);
    let later = house.gateway.project(Method::GET, &format!("/v1/images/generations/{id}")).send().await.unwrap();
    assert_eq!(read(later, StatusCode::OK).await["data"][0]["url"], url);
    let mut embedded = wish();
    embedded["response_format"] = json!("b64_json");
    let embedded = made(&house.gateway, &embedded).await;
    assert!(embedded["data"][1]["b64_json"].as_str().unwrap().len() > 1000);
    assert_eq!(house.fal_state().await["files_served"], 4);

    // Another replica with the same storage serves it, and after a restart it is still there.
    let start = Start::new(&house.database.url, &house.fal.queue_url());
    let other = start.with("IMAGEGATE_STORAGE", &place).run().await;
    let path = url.strip_prefix(&house.gateway.base).unwrap();
    let answer = other.request(Method::GET, path).send().await.unwrap();
    assert_eq!(answer.bytes().await.unwrap(), bytes);
}

async fn an_image_that_cannot_be_kept_is_passed_on_from_where_it_is(kind: Database) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a file, no folder");
    std::fs::write(&file, "").unwrap();
    let house = House::with(kind, Duration::ZERO, &[("IMAGEGATE_STORAGE", address_of(&file).as_str())]).await;
    let answer = made(&house.gateway, &wish()).await;
    let url = answer["data"][0]["url"].as_str().unwrap();
    assert!(url.starts_with(&house.fal.queue_url()), "{url}");
    assert_eq!(answer["meta"]["usage"]["price_usd"], "0.050000000");
    assert!(house.gateway.log().contains("an image is not kept"));
}

#[tokio::test]
async fn a_link_that_ends_opens_its_file_until_then_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let place = address_of(folder.path());
    let settings = [
        ("IMAGEGATE_STORAGE", place.as_str()),
        ("IMAGEGATE_FILE_TTL", "3s"),
        ("IMAGEGATE_FILE_SECRET", "a-secret-of-the-tests"),
    ];
    let house = House::with(Database::Sqlite, Duration::ZERO, &settings).await;
    let answer = made(&house.gateway, &wish()).await;
    let [first, second] = [0, 1].map(|index| answer["data"][index]["url"].as_str().unwrap().to_owned());
    let open = client().get(&first).send().await.unwrap();
    assert_eq!(open.status(), StatusCode::OK);
    assert!(header(open.headers(), "cache-control").starts_with("private, max-age="), "{open:?}");
    let (bare, query) = first.split_once('?').unwrap();
    let strange = format!("{}?{query}", second.split_once('?').unwrap().0);
    for address in [bare.to_owned(), strange, format!("{first}0"), format!("{bare}?expires=9999999999")] {
        let answer = client().get(&address).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{address}");
    }
    eventually(Duration::from_secs(10), || async {
        let answer = client().get(&first).send().await.unwrap();
        (answer.status() == StatusCode::FORBIDDEN).then_some(())
    })
    .await;
    // The generation gives a new link whenever it is asked.
    let path = format!("/v1/images/generations/{}", answer["id"].as_str().unwrap());
    let later = read(house.gateway.project(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await;
    let again = client().get(later["data"][0]["url"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::OK);
}

/// Moto's stand-in for S3.
struct Moto(Child);

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_kept_in_s3() {
    let number = free_port();
    let mut command = Command::new(Path::new(&tool("IMAGEGATE_TEST_PYTHON")).with_file_name("moto_server"));
    command.args(["-H", "127.0.0.1", "-p", &number.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    let _moto = Moto(command.spawn().unwrap());
    let endpoint = format!("http://127.0.0.1:{number}");
    eventually(Duration::from_mins(1), || async {
        let made = client().put(format!("{endpoint}/pictures")).send().await;
        made.is_ok_and(|answer| answer.status().is_success()).then_some(())
    })
    .await;
    let database = TestDatabase::new(Database::Sqlite).await;
    let fal = start_sandbox(Duration::ZERO);
    let gateway = Start::new(&database.url, &fal.queue_url())
        .with("IMAGEGATE_STORAGE", "s3://pictures/of/cats")
        .with("AWS_ENDPOINT", &endpoint)
        .with("AWS_ALLOW_HTTP", "true")
        .with("AWS_REGION", "us-east-1")
        .with("AWS_ACCESS_KEY_ID", "an-id")
        .with("AWS_SECRET_ACCESS_KEY", "a-secret-that-no-log-may-show")
        .run()
        .await;
    let answer = made(&gateway, &wish()).await;
    let url = answer["data"][1]["url"].as_str().unwrap();
    let id = answer["id"].as_str().unwrap();
    let ours = client().get(url).send().await.unwrap().bytes().await.unwrap();
    // As Amazon's own client sees it.
    let script = "import boto3, sys\n\
        endpoint, name = sys.stdin.read().split()\n\
        s3 = boto3.client('s3', endpoint_url=endpoint, region_name='us-east-1', aws_access_key_id='a', aws_secret_access_key='b')\n\
        print(s3.get_object(Bucket='pictures', Key=name)['Body'].read().hex())";
    let theirs = python(script, &format!("{endpoint} of/cats/{id}/1.jpg")).await;
    assert!(theirs.trim() == hex::encode(&ours), "{} is not {} bytes of ours", theirs.trim().len() / 2, ours.len());
    let start = client().get(url).header(RANGE, "bytes=0-9").send().await.unwrap();
    assert_eq!((start.status(), start.bytes().await.unwrap()), (StatusCode::PARTIAL_CONTENT, ours.slice(0..10)));
    assert!(!gateway.log().contains("a-secret-that"), "{}", gateway.log());
}

/// A picture of 64 by 64 pixels.
pub fn png() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(64, 64).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[tokio::test]
async fn an_uploaded_image_can_be_used_as_input() {
    let house = House::with(Database::Sqlite, Duration::ZERO, &[("IMAGEGATE_BODY_LIMIT", "64KiB")]).await;
    let upload = |form: Form| house.gateway.project(Method::POST, "/v1/files").multipart(form);
    let file = || Part::bytes(png()).file_name("cat.png");
    let form = Form::new().text("purpose", "vision").part("file", file());
    let answer = read(upload(form).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(
        [&answer["object"], &answer["filename"], &answer["purpose"], &answer["content_type"], &answer["bytes"]],
        [&json!("file"), &json!("cat.png"), &json!("vision"), &json!("image/png"), &json!(png().len())]
    );
    let body = json!({"model": "flux/dev/image-to-image", "prompt": "a dog", "image_url": answer["url"]});
    made(&house.gateway, &body).await;
    assert_eq!(house.fal_state().await["uploads"], 1);

    for (form, param) in [
        (Form::new().text("purpose", "vision"), "file"),
        (Form::new().part("file", Part::bytes(b"no image".as_slice()).file_name("x.png")), "file"),
        (Form::new().part("file", file()).text("purpose", "fine-tune"), "purpose"),
        (Form::new().part("file", file()).part("file", file()), "file"),
        (Form::new().part("file", file()).text("colour", "red"), "colour"),
    ] {
        let answer = read(upload(form).send().await.unwrap(), StatusCode::BAD_REQUEST).await;
        assert_eq!(answer["error"]["param"], param, "{answer}");
    }
    // A form that is at fault as a whole is told so, whatever its parts are.
    let huge = Part::bytes(vec![0; 66 * 1024]).file_name("x.png");
    let answer = upload(Form::new().text("colour", "red").part("file", huge)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let many = (0..201).fold(Form::new(), |form, _| form.text("colour", "red"));
    let answer = read(upload(many).send().await.unwrap(), StatusCode::BAD_REQUEST).await;
    assert_eq!(answer["error"]["code"], "invalid_request", "{answer}");
    let text = house.gateway.project(Method::POST, "/v1/files").json(&json!({"file": "x"})).send().await.unwrap();
    assert_eq!(text.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let nobody = house.gateway.request(Method::POST, "/v1/files").send().await.unwrap();
    assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED);

    // OpenAI's SDK uploads in the same way.
    let script = "import sys, base64, json, openai\n\
        base, key, data = sys.stdin.read().split()\n\
        client = openai.OpenAI(base_url=base + '/v1', api_key=key)\n\
        file = client.files.create(file=('cat.png', base64.b64decode(data)), purpose='vision')\n\
        print(json.dumps([file.id[:5], file.object, file.filename, file.status, file.url[:4]]))\n\
        assert [one.id for one in client.files.list(limit=1)][0] == file.id\n\
        assert client.files.retrieve(file.id).filename == 'cat.png'\n\
        assert client.files.delete(file.id).deleted";
    let data = base64::engine::general_purpose::STANDARD.encode(png());
    let said = python(script, &format!("{} {} {data}", house.gateway.base, crate::support::PROJECT_KEY)).await;
    assert_eq!(said.trim(), r#"["file-", "file", "cat.png", "processed", "http"]"#);
}

#[tokio::test]
async fn a_storage_that_takes_no_file_is_told_in_both_faces() {
    for (status, told, code) in [
        (500, StatusCode::SERVICE_UNAVAILABLE, "service_unavailable"),
        // Our own key is refused: nothing that the client could change.
        (401, StatusCode::BAD_GATEWAY, "upstream_error"),
    ] {
        let house = House::with(Database::Sqlite, Duration::ZERO, &[]).await;
        house.misbehave(json!({"at": "storage", "do": {"status": status}})).await;
        let form = Form::new().part("file", Part::bytes(png()).file_name("cat.png"));
        let answer = house.gateway.project(Method::POST, "/v1/files").multipart(form).send().await.unwrap();
        let answer = read(answer, told).await;
        assert_eq!(answer["error"]["code"], code, "{answer}");
        assert_eq!(answer["error"]["message"], "the provider's storage does not take files now", "{answer}");
        let place = house
            .gateway
            .project(Method::POST, "/fal/proxy")
            .header("x-fal-target-url", "https://rest.fal.ai/storage/upload/initiate?storage_type=fal-cdn-v3")
            .json(&json!({"content_type": "image/png", "file_name": "cat.png"}))
            .send()
            .await
            .unwrap();
        let answer = read(place, told).await;
        assert_eq!(answer["detail"], "fal's storage does not take files now", "{answer}");
    }
}
