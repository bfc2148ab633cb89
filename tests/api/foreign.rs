//! Paths of other APIs are answered with where images are made.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{Database, House, PROJECT_KEY, read};

/// On one database: nothing is read from it.
#[tokio::test]
async fn a_path_of_another_api_says_where_images_are_made() {
    let house = House::new(Database::Sqlite).await;
    let paths = [
        "chat/completions",
        "responses",
        "completions",
        "embeddings",
        "messages",
        "images/variations",
        "audio/speech",
        "moderations",
        "predictions",
        "models/stability-ai/sdxl/predictions",
        "flux-pro",
        "flux-pro-1.1-ultra",
        "flux-kontext-pro",
        "ideogram-v3/generate",
        "generation/stable-diffusion-v1-6/text-to-image",
        "models/gemini-3-pro-image:generateContent",
    ];
    let versions =
        ["/v2beta/stable-image/generate/core", "/v1beta/models/imagen-4:predict", "/generate", "/sdapi/v1/txt2img"];
    let both = paths.iter().flat_map(|path| [format!("/{path}"), format!("/v1/{path}"), format!("/v1/{path}/")]);
    for path in both.chain(versions.map(str::to_owned)) {
        for key in [None, Some(PROJECT_KEY), Some("not-a-key")] {
            let ask = house.gateway.request(Method::POST, &path).json(&json!({"model": "flux/dev", "prompt": "a"}));
            let ask = key.into_iter().fold(ask, reqwest::RequestBuilder::bearer_auth);
            let answer = read(ask.send().await.unwrap(), StatusCode::NOT_FOUND).await;
            assert_eq!(answer["error"]["code"], "not_found", "{path}");
            let message = answer["message"].as_str().unwrap();
            let way_out =
                if path.contains("variations") { "`POST /v1/images/edits`" } else { "`POST /v1/images/generations`" };
            assert!(message.contains(way_out), "{path}: {message}");
            assert_eq!(answer["error"]["data"]["make_images"], "/v1/images/generations");
        }
    }
    assert!(house.gateway.generations().await.is_empty());
    // What is nobody's stays what it was, and a path of ours keeps its own answer to a wrong method.
    let nothing = house.gateway.project(Method::POST, "/v1/nothing").send().await.unwrap();
    assert!(read(nothing, StatusCode::NOT_FOUND).await["error"].get("data").is_none());
    let model = house.gateway.project(Method::POST, "/v1/models/flux/dev").send().await.unwrap();
    read(model, StatusCode::METHOD_NOT_ALLOWED).await;
}
