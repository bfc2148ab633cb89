//! Every limit of the two documented models over HTTP, from both sides; nothing that is refused reaches fal or the books.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Database, Gateway, House, on_both_databases, read};

on_both_databases!(
    all_problems_of_a_request_are_told_at_once_and_nothing_is_spent,
    each_limit_holds_from_both_sides,
    unknown_fields_are_named_and_in_strict_mode_refused,
    two_names_of_one_parameter_must_agree,
    an_unknown_model_is_told_with_the_nearest_one,
    hostile_bodies_are_refused_with_a_place_and_never_break_anything,
);

async fn refuse(gateway: &Gateway, body: &Value) -> Vec<Value> {
    let answer = read(gateway.generate(body).send().await.unwrap(), StatusCode::BAD_REQUEST).await;
    assert_eq!(answer["error"]["code"], "invalid_parameters", "{answer}");
    answer["error"]["data"].as_array().unwrap().clone()
}

async fn all_problems_of_a_request_are_told_at_once_and_nothing_is_spent(kind: Database) {
    let house = House::new(kind).await;
    let body = json!({
        "model": "flux-realism",
        "prompt": "a".repeat(4001),
        "image_size": {"width": 1500, "height": 100},
        "num_inference_steps": 51,
        "guidance_scale": 0.5,
        "num_images": 0,
        "seed": 0,
        "output_format": "gif",
        "enable_safety_checker": "yes"
    });
    let problems = refuse(&house.gateway, &body).await;
    let told: Vec<(Value, Value)> =
        problems.iter().map(|problem| (problem["path"].clone(), problem["code"].clone())).collect();
    for (path, code) in [
        (json!(["prompt"]), "too_big"),
        (json!(["image_size", "width"]), "not_multiple_of"),
        (json!(["image_size", "height"]), "too_small"),
        (json!(["num_inference_steps"]), "too_big"),
        (json!(["guidance_scale"]), "too_small"),
        (json!(["num_images"]), "too_small"),
        (json!(["seed"]), "too_small"),
        (json!(["output_format"]), "invalid_enum_value"),
        (json!(["enable_safety_checker"]), "invalid_type"),
    ] {
        assert!(told.contains(&(path.clone(), json!(code))), "{path} {code} is not among {told:?}");
    }
    let width = problems.iter().find(|problem| problem["path"] == json!(["image_size", "width"])).unwrap();
    assert_eq!((&width["multipleOf"], &width["nearest"]), (&json!(32), &json!(1504)));
    let height = problems.iter().find(|problem| problem["path"] == json!(["image_size", "height"])).unwrap();
    assert_eq!((&height["minimum"], &height["nearest"]), (&json!(512), &json!(512)));
    assert!(house.gateway.generations().await.is_empty());
    assert_eq!(house.fal_state().await["accepted_submits"].as_u64().unwrap(), 0);
}

async fn each_limit_holds_from_both_sides(kind: Database) {
    let house = House::new(kind).await;
    let inside = [
        json!({"image_size": {"width": 512, "height": 1536}}),
        json!({"image_size": {"width": 1536}}),
        json!({"image_size": {"height": 512}}),
        json!({"image_size": "portrait_16_9"}),
        json!({"size": "512x1536"}),
        json!({"size": "auto"}),
        json!({"width": 1024, "height": 1024}),
        json!({"num_inference_steps": 1, "guidance_scale": 1, "num_images": 1}),
        json!({"num_inference_steps": 50.0, "guidance_scale": 20, "num_images": 4}),
        json!({"seed": 1}),
        json!({"seed": 18_446_744_073_709_551_615_u64}),
        json!({"prompt": "ü".repeat(4000)}),
        json!({"output_format": "png", "enable_safety_checker": false, "seed": null}),
    ];
    let outside = [
        json!({"image_size": {"width": 480}}),
        json!({"image_size": {"width": 1568}}),
        json!({"image_size": {"width": 1535}}),
        json!({"image_size": {"width": 1024.5}}),
        json!({"image_size": {"width": "1024"}}),
        json!({"image_size": "huge"}),
        json!({"image_size": 1024}),
        json!({"size": "banana"}),
        json!({"size": "1280x720"}),
        json!({"num_inference_steps": 0}),
        json!({"num_inference_steps": 51}),
        json!({"num_inference_steps": 1.5}),
        json!({"guidance_scale": 0.999}),
        json!({"guidance_scale": 20.001}),
        json!({"num_images": 0}),
        json!({"num_images": 5}),
        json!({"n": "abc"}),
        json!({"n": -3}),
        json!({"seed": 0}),
        json!({"seed": -1}),
        json!({"seed": 18_446_744_073_709_551_616_u128.to_string()}),
        json!({"prompt": "ü".repeat(4001)}),
        json!({"prompt": ""}),
        json!({"prompt": 7}),
        json!({"prompt": null}),
    ];
    for model in ["flux-realism", "flux/dev"] {
        let with = |part: &Value| {
            let mut body = json!({"model": model, "prompt": "a"});
            for (name, value) in part.as_object().unwrap() {
                body[name] = value.clone();
            }
            body
        };
        for part in &inside {
            read(house.gateway.generate(&with(part)).send().await.unwrap(), StatusCode::CREATED).await;
        }
        for part in &outside {
            refuse(&house.gateway, &with(part)).await;
        }
    }
    assert_eq!(house.gateway.generations().await.len(), inside.len() * 2);
}

async fn unknown_fields_are_named_and_in_strict_mode_refused(kind: Database) {
    let house = House::new(kind).await;
    let body = json!({"model": "flux/dev", "prompt": "a", "num_inference_step": 4, "foo": {"bar": 1}});
    let answer = house.gateway.generate(&body).send().await.unwrap();
    assert_eq!(answer.headers()["x-imagegate-ignored"], "num_inference_step, foo");
    let answer = read(answer, StatusCode::CREATED).await;
    assert_eq!(answer["meta"]["ignored"], json!(["num_inference_step", "foo"]));
    let strict = house.gateway.generate(&body).header("x-imagegate-strict", "true").send().await.unwrap();
    let refused = read(strict, StatusCode::BAD_REQUEST).await;
    let problems = refused["error"]["data"].to_string();
    assert!(problems.contains("unrecognized_keys") && problems.contains("num_inference_steps"), "{problems}");
    assert_eq!(house.gateway.generations().await.len(), 1);
}

async fn two_names_of_one_parameter_must_agree(kind: Database) {
    let house = House::new(kind).await;
    for part in [json!({"n": 1, "num_images": 2}), json!({"size": "1024x1024", "image_size": "square"})] {
        let mut body = json!({"model": "flux/dev", "prompt": "a"});
        for (name, value) in part.as_object().unwrap() {
            body[name] = value.clone();
        }
        refuse(&house.gateway, &body).await;
    }
    let body = json!({"model": "flux/dev", "prompt": "a", "n": 2, "num_images": 2, "size": "1024x1024", "image_size": {"width": 1024, "height": 1024}});
    let answer = read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::CREATED).await;
    assert_eq!(answer["images"].as_array().unwrap().len(), 2);
}

async fn an_unknown_model_is_told_with_the_nearest_one(kind: Database) {
    let house = House::new(kind).await;
    let body = json!({"model": "flux-realizm", "prompt": "a"});
    let answer = read(house.gateway.generate(&body).send().await.unwrap(), StatusCode::NOT_FOUND).await;
    assert_eq!(answer["error"]["code"], "model_not_found");
    assert_eq!(answer["error"]["param"], "model");
    assert_eq!(answer["error"]["data"][0]["nearest"], "flux-realism");
}

async fn hostile_bodies_are_refused_with_a_place_and_never_break_anything(kind: Database) {
    let house = House::new(kind).await;
    let megabyte = "x".repeat(1 << 20);
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let with = |field: &str| format!(r#"{{"model":"flux/dev","prompt":"a cat",{field}}}"#);
    for (body, place) in [
        (String::new(), ""),
        ("{".to_owned(), ""),
        ("[]".to_owned(), ""),
        ("null".to_owned(), ""),
        ("\u{feff}{}".to_owned(), ""),
        (with(r#""guidance_scale":NaN"#), ""),
        (with(r#""guidance_scale":Infinity"#), ""),
        (with(r#""seed":01"#), ""),
        (with(r#""prompt":"\ud800""#), ""),
        (with(r#""guidance_scale":1e400"#), ""),
        (with(r#""num_images":1e308"#), "num_images"),
        (with(r#""seed":-1"#), "seed"),
        (with(r#""seed":18446744073709551616"#), "seed"),
        (with(r#""num_images":99999999999999999999999999999999"#), "num_images"),
        (with(r#""num_images":-3"#), "num_images"),
        (with(r#""num_images":"four""#), "num_images"),
        (with(r#""num_images":{}"#), "num_images"),
        (with(r#""image_size":"banana""#), "image_size"),
        (with(r#""image_size":[512,512]"#), "image_size"),
        (with(r#""image_size":{"width":512,"width":768}"#), "image_size.width"),
        (with(r#""prompt":"another""#), "prompt"),
        (with(r#""output_format":"𝓳𝓹𝓮𝓰""#), "output_format"),
        (with(&format!(r#""image_size":{}"#, deep(100))), "image_size"),
        (with(&format!(r#""image_size":{}"#, deep(100_000))), ""),
        (with(&format!(r#""output_format":"{megabyte}""#)), "output_format"),
        (format!(r#"{{"model":"flux/dev","prompt":"{megabyte}"}}"#), "prompt"),
        (format!(r#"{{"model":"{megabyte}","prompt":"a cat"}}"#), "model"),
    ] {
        let shown: String = body.chars().take(120).collect();
        let request = house.gateway.project(reqwest::Method::POST, "/v1/images/generations");
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        assert!(status == 400 || (status, place) == (404, "model"), "{shown}: {status}");
        assert!(text.len() < 20_000, "{shown}: an answer of {} bytes", text.len());
        let answer: Value = serde_json::from_str(&text).unwrap();
        let data = answer["error"]["data"].as_array().unwrap_or_else(|| panic!("{shown}: {answer}"));
        assert!(data.iter().all(|one| one["path"].is_array() && one["message"].is_string()), "{shown}: {answer}");
        if !place.is_empty() {
            assert_eq!(answer["error"]["param"], place, "{shown}: {answer}");
        }
    }
    assert!(house.gateway.generations().await.is_empty());
    assert_eq!(house.fal_state().await["accepted_submits"], 0);
}
