//! `x-imagegate-adapt` and the settings for it: what does not fit is changed by choice, and named.

use std::time::Duration;

use reqwest::multipart::{Form, Part};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::receiver::Receiver;
use crate::support::{Database, House, PROJECT_KEY, eventually, on_both_databases, read};

on_both_databases!(
    what_is_changed_is_named_in_answer_header_and_quote,
    without_the_word_nothing_is_changed,
    the_header_counts_before_the_key_and_the_key_before_the_project,
    a_key_replays_what_was_made_as_long_as_the_same_is_made,
    forms_and_fals_clients_adapt_too,
    every_later_answer_names_what_was_ignored_and_adapted,
);

fn wish() -> Value {
    json!({"model": "flux-realism", "prompt": "a", "size": "2000x1000", "seed": -1, "num_images": "2", "output_format": "webp"})
}

fn changes() -> Value {
    json!([
        {"field": "size", "from": "2000x1000", "to": "1536x768"},
        {"field": "seed", "from": -1, "to": "random"},
        {"field": "num_images", "from": "2", "to": 2},
        {"field": "output_format", "from": "webp", "to": "png"},
    ])
}

fn quote(house: &House, body: &Value) -> RequestBuilder {
    house.gateway.project(Method::POST, "/v1/images/generations/quote").json(body)
}

async fn what_is_changed_is_named_in_answer_header_and_quote(kind: Database) {
    let house = House::new(kind).await;
    for adapt in ["all", "size, numbers,seed, output_format"] {
        let quoted = quote(&house, &wish()).header("x-imagegate-adapt", adapt).send().await.unwrap();
        let named = quoted.headers()["x-imagegate-adapted"].to_str().unwrap().to_owned();
        assert_eq!(named, "size, seed, num_images, output_format");
        let quoted = read(quoted, StatusCode::OK).await;
        assert_eq!(quoted["adapted"], changes());
        let sent = &quoted["provider_request"]["body"];
        assert_eq!(sent["image_size"], json!({"width": 1536, "height": 768}), "{sent}");
        assert_eq!(
            (&sent["num_images"], &sent["seed"], &sent["output_format"]),
            (&json!(2), &Value::Null, &json!("png"))
        );
    }
    let made = house.gateway.generate(&wish()).header("x-imagegate-adapt", "all").send().await.unwrap();
    assert_eq!(made.headers()["x-imagegate-adapted"], "size, seed, num_images, output_format");
    let made = read(made, StatusCode::CREATED).await;
    assert_eq!(made["meta"]["adapted"], changes());
    let images = made["images"].as_array().unwrap();
    assert_eq!((images.len(), &images[0]["width"], &images[0]["height"]), (2, &json!(1536), &json!(768)));
    assert_eq!(images[0]["content_type"], "image/png");

    let mut later = wish();
    later["background"] = json!(true);
    let taken = house.gateway.generate(&later).header("x-imagegate-adapt", "all").send().await.unwrap();
    assert_eq!(taken.headers()["x-imagegate-adapted"], "size, seed, num_images, output_format");
    let id = read(taken, StatusCode::ACCEPTED).await["id"].as_str().unwrap().to_owned();
    assert_eq!(house.gateway.ended(&id).await["state"], "succeeded");

    // A page of another site may send the header and read the other one.
    let asked = house.gateway.request(Method::OPTIONS, "/v1/images/generations");
    let asked = asked.header("origin", "https://shop.example").header("access-control-request-method", "POST");
    let allowed = asked.header("access-control-request-headers", "x-imagegate-adapt").send().await.unwrap();
    let allowed = allowed.headers()["access-control-allow-headers"].to_str().unwrap().to_lowercase();
    assert!(allowed.contains("x-imagegate-adapt"), "{allowed}");
    let quoted = quote(&house, &wish()).header("x-imagegate-adapt", "all").header("origin", "https://shop.example");
    let exposed = quoted.send().await.unwrap().headers()["access-control-expose-headers"].to_str().unwrap().to_owned();
    assert!(exposed.contains("x-imagegate-adapted"), "{exposed}");
}

async fn without_the_word_nothing_is_changed(kind: Database) {
    let house = House::new(kind).await;
    for header in [None, Some("none")] {
        let mut request = house.gateway.generate(&wish());
        if let Some(header) = header {
            request = request.header("x-imagegate-adapt", header);
        }
        let refused = read(request.send().await.unwrap(), StatusCode::BAD_REQUEST).await;
        assert_eq!(refused["error"]["data"].as_array().unwrap().len(), 5, "{refused}");
    }
    // One word changes one thing.
    let one = quote(&house, &json!({"model": "flux-realism", "prompt": "a", "size": "2000x1000", "seed": -1}));
    let refused = read(one.header("x-imagegate-adapt", "size").send().await.unwrap(), StatusCode::BAD_REQUEST).await;
    assert_eq!(refused["error"]["param"], "seed");
    for wrong in ["sizes", "size, none", "", "größe"] {
        let refused = quote(&house, &wish()).header("x-imagegate-adapt", wrong).send().await.unwrap();
        let refused = read(refused, StatusCode::BAD_REQUEST).await;
        assert_eq!(refused["error"]["param"], "x-imagegate-adapt");
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(message.contains("`size`, `numbers`, `seed`, `output_format`, `quality`"), "{message}");
    }
    // What fits is as it was, also with the word.
    let fits = json!({"model": "flux-realism", "prompt": "a", "size": "512x1536", "seed": 7});
    let plain = read(quote(&house, &fits).send().await.unwrap(), StatusCode::OK).await;
    let adapting = quote(&house, &fits).header("x-imagegate-adapt", "all").send().await.unwrap();
    assert!(!adapting.headers().contains_key("x-imagegate-adapted"));
    assert_eq!(read(adapting, StatusCode::OK).await, plain);
    assert!(house.gateway.generations().await.is_empty());
}

async fn the_header_counts_before_the_key_and_the_key_before_the_project(kind: Database) {
    let house = House::new(kind).await;
    let body = json!({"model": "flux-realism", "prompt": "a", "size": "2000x1000"});
    let status = async |header: Option<&str>| {
        let mut request = quote(&house, &body);
        if let Some(header) = header {
            request = request.header("x-imagegate-adapt", header);
        }
        request.send().await.unwrap().status()
    };
    let project = house.gateway.set_project(&json!({"adapt": ["size", "seed"]})).await;
    assert_eq!(project["adapt"], json!(["size", "seed"]));
    assert_eq!(status(None).await, StatusCode::OK);
    assert_eq!(status(Some("none")).await, StatusCode::BAD_REQUEST);
    assert_eq!(status(Some("quality")).await, StatusCode::BAD_REQUEST);

    let keys =
        read(house.gateway.admin(Method::GET, "/admin/v1/projects/default").send().await.unwrap(), StatusCode::OK)
            .await["id"]
            .clone();
    let path = format!("/v1/organization/projects/{}/api_keys", keys.as_str().unwrap());
    let keys = read(house.gateway.admin(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await;
    let key = keys["data"].as_array().unwrap().iter().find(|key| key["name"] == "IMAGEGATE_BOOTSTRAP_KEY").unwrap();
    let path = format!("/admin/v1/keys/{}", key["id"].as_str().unwrap());
    let set = async |adapt: Value| {
        let answer = house.gateway.admin(Method::PATCH, &path).json(&json!({"adapt": adapt})).send().await.unwrap();
        read(answer, StatusCode::OK).await["adapt"].clone()
    };
    assert_eq!(set(json!([])).await, json!([]));
    assert_eq!(status(None).await, StatusCode::BAD_REQUEST, "the key changes nothing");
    assert_eq!(status(Some("size")).await, StatusCode::OK);
    assert_eq!(set(json!(["all"])).await, json!(["size", "numbers", "seed", "output_format", "quality"]));
    house.gateway.set_project(&json!({"adapt": null})).await;
    assert_eq!(status(None).await, StatusCode::OK);
    assert_eq!(set(Value::Null).await, Value::Null);
    assert_eq!(status(None).await, StatusCode::BAD_REQUEST);
    let wrong = house.gateway.admin(Method::PATCH, &path).json(&json!({"adapt": ["sizes"]})).send().await.unwrap();
    assert_eq!(read(wrong, StatusCode::BAD_REQUEST).await["error"]["param"], "adapt");

    // Another replica knows it within a second, and a restart keeps it.
    let there = house.another().await;
    house.gateway.set_project(&json!({"adapt": ["size"]})).await;
    eventually(std::time::Duration::from_secs(1), || async {
        let request = there.project(Method::POST, "/v1/images/generations/quote").json(&body);
        (request.send().await.unwrap().status() == StatusCode::OK).then_some(())
    })
    .await;
    let log =
        house.gateway.admin(Method::GET, "/v1/organization/audit_logs?event_types=project.updated,api_key.updated");
    let log = read(log.send().await.unwrap(), StatusCode::OK).await;
    assert!(log.to_string().contains("adapt"), "{log}");
}

async fn a_key_replays_what_was_made_as_long_as_the_same_is_made(kind: Database) {
    let house = House::new(kind).await;
    let body = json!({"model": "flux-realism", "prompt": "a", "size": "2000x1000"});
    let ask = |body: &Value, adapt: &'static str| {
        let request = house.gateway.generate(body).header("idempotency-key", "one");
        request.header("x-imagegate-adapt", adapt).send()
    };
    let first = read(ask(&body, "size").await.unwrap(), StatusCode::CREATED).await;
    // What is compared is what is made: the same body with another word, and the size as it was adapted.
    for (body, adapt) in
        [(&body, "all"), (&json!({"model": "flux-realism", "prompt": "a", "size": "1536x768"}), "none")]
    {
        let again = ask(body, adapt).await.unwrap();
        assert_eq!(again.headers()["idempotent-replayed"], "true");
        assert_eq!(read(again, StatusCode::CREATED).await["id"], first["id"]);
    }
    let seeded = json!({"model": "flux-realism", "prompt": "a", "size": "2000x1000", "seed": 7});
    assert_eq!(ask(&seeded, "size").await.unwrap().status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(ask(&body, "none").await.unwrap().status(), StatusCode::BAD_REQUEST, "it is not valid so");
    assert_eq!(house.gateway.generations().await.len(), 1);
}

async fn forms_and_fals_clients_adapt_too(kind: Database) {
    let house = House::new(kind).await;
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(64, 48).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    let picture = Part::bytes(bytes.into_inner()).file_name("blob").mime_str("image/png").unwrap();
    let form = Form::new().text("model", "flux/kontext-pro/image-to-image").text("prompt", "make it night");
    let form = form.text("output_format", "webp").text("size", "1000x990").part("image", picture);
    let request = house.gateway.project(Method::POST, "/v1/images/edits").multipart(form);
    let made = request.header("x-imagegate-adapt", "all").send().await.unwrap();
    let made = read(made, StatusCode::CREATED).await;
    assert_eq!(
        made["meta"]["adapted"],
        json!([
            {"field": "output_format", "from": "webp", "to": "png"},
            {"field": "size", "from": "1000x990", "to": "1:1"},
        ])
    );

    let run = |adapt: &'static str| {
        let request = house.gateway.request(Method::POST, "/fal/run/fal-ai/flux/dev");
        let request = request.header("authorization", format!("Key {PROJECT_KEY}")).header("x-imagegate-adapt", adapt);
        request.json(&json!({"prompt": "a", "seed": -1, "image_size": {"width": 20_000, "height": 10_000}})).send()
    };
    assert_eq!(run("none").await.unwrap().status(), StatusCode::UNPROCESSABLE_ENTITY);
    let made = run("all").await.unwrap();
    assert_eq!(made.headers()["x-imagegate-adapted"], "seed, image_size.width, image_size.height");
    let made = read(made, StatusCode::OK).await;
    assert_eq!(made["images"][0]["width"].as_u64(), made["images"][0]["height"].as_u64().map(|height| height * 2));
}

/// Waits for the first call that a receiver of webhooks has got.
async fn first_call(receiver: &Receiver) -> Value {
    let calls = eventually(Duration::from_secs(10), || async {
        let calls = receiver.calls();
        (!calls.is_empty()).then_some(calls)
    });
    serde_json::from_str(&calls.await.remove(0).body).unwrap()
}

async fn every_later_answer_names_what_was_ignored_and_adapted(kind: Database) {
    let house = House::with(kind, Duration::ZERO, &[("IMAGEGATE_WEBHOOK_ALLOW_PRIVATE", "true")]).await;
    let receiver = Receiver::new(&[]);
    let mut body = json!({"model": "flux-realism", "prompt": "a", "size": "2000x1000", "x_vendor": 1});
    let meta = json!({
        "ignored": ["x_vendor"],
        "adapted": [{"field": "size", "from": "2000x1000", "to": "1536x768"}],
    });
    body["background"] = json!(true);
    body["webhook_url"] = json!(receiver.url);
    let ask = |body: &Value| {
        let request = house.gateway.generate(body).header("idempotency-key", "later");
        request.header("x-imagegate-adapt", "size").send()
    };
    let taken = read(ask(&body).await.unwrap(), StatusCode::ACCEPTED).await;
    assert_eq!(taken["meta"], meta);
    let id = taken["id"].as_str().unwrap().to_owned();
    assert_eq!(house.gateway.ended(&id).await["meta"], meta, "an operator sees it");
    assert_eq!(first_call(&receiver).await["data"]["meta"], meta);
    // A key replays what was made for the first request, also for one in other words.
    let fits = json!({"model": "flux-realism", "prompt": "a", "size": "1536x768", "background": true,
        "webhook_url": receiver.url});
    for again in [ask(&body).await.unwrap(), ask(&fits).await.unwrap()] {
        assert_eq!(again.headers()["idempotent-replayed"], "true");
        assert_eq!(again.headers()["x-imagegate-adapted"], "size");
        assert_eq!(read(again, StatusCode::ACCEPTED).await["meta"], meta);
    }
    // Another replica, or the next start, knows it from the books.
    let other = house.another().await;
    let path = format!("/v1/images/generations/{id}");
    for gateway in [&house.gateway, &other] {
        let shown = read(gateway.project(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await;
        assert_eq!(shown["meta"], meta);
        let list = gateway.project(Method::GET, "/v1/images/generations").send().await.unwrap();
        assert_eq!(read(list, StatusCode::OK).await["data"][0]["meta"], meta);
    }
    // Without an answer in the background: the replay of a synchronous one, here and at another replica.
    let sync = json!({"model": "flux-realism", "prompt": "b", "size": "2000x1000"});
    let fits = json!({"model": "flux-realism", "prompt": "b", "size": "1536x768"});
    for (gateway, body) in [(&house.gateway, &sync), (&house.gateway, &fits), (&other, &fits)] {
        let request = gateway.generate(body).header("idempotency-key", "sync").header("x-imagegate-adapt", "size");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["x-imagegate-adapted"], "size");
        assert_eq!(read(answer, StatusCode::CREATED).await["meta"]["adapted"], meta["adapted"]);
    }
    // fal's clients read it beside the result.
    let fal = |method: Method, path: &str| {
        house.gateway.request(method, path).header("authorization", format!("Key {PROJECT_KEY}"))
    };
    let queued = fal(Method::POST, "/fal/queue/fal-ai/flux/dev").header("x-imagegate-adapt", "seed");
    let queued = read(queued.json(&json!({"prompt": "a", "seed": -1})).send().await.unwrap(), StatusCode::OK).await;
    let id = queued["request_id"].as_str().unwrap();
    house.gateway.ended(id).await;
    let result = fal(Method::GET, &format!("/fal/queue/fal-ai/flux/requests/{id}")).send().await.unwrap();
    assert_eq!(result.headers()["x-imagegate-adapted"], "seed");
}
