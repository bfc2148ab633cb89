//! The operator's own names for models, with values of their own: through every face, for every project or one.

use std::time::Duration;

use imagegate::domain::{Clock, SystemClock};
use reqwest::multipart::{Form, Part};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{ADMIN_KEY, Database, Gateway, House, PROJECT_KEY, Start, eventually, on_both_databases, read};

on_both_databases!(
    a_fixed_name_of_a_client_makes_the_model_of_choice,
    an_alias_holds_its_values_and_widens_no_limit,
    a_projects_alias_counts_before_everybodys,
    the_list_of_models_names_aliases,
    who_may_use_an_alias_is_said_by_model_or_alias,
    the_list_of_models_has_what_a_key_may_use,
    every_face_knows_an_alias,
    aliases_survive_a_restart_reach_replicas_and_are_audited,
    the_settings_file_gives_aliases_too,
    the_terminal_and_the_console_set_aliases,
);

async fn set(gateway: &Gateway, alias: &Value) -> Value {
    let answer = gateway.admin(Method::POST, "/admin/v1/model_aliases").json(alias).send().await.unwrap();
    read(answer, StatusCode::OK).await
}

async fn refuse(gateway: &Gateway, alias: &Value, status: StatusCode) -> Value {
    let answer = gateway.admin(Method::POST, "/admin/v1/model_aliases").json(alias).send().await.unwrap();
    read(answer, status).await["error"].clone()
}

async fn quote(gateway: &Gateway, body: &Value, status: StatusCode) -> Value {
    let answer = gateway.project(Method::POST, "/v1/images/generations/quote").json(body).send().await.unwrap();
    read(answer, status).await
}

async fn usage_by(gateway: &Gateway, dimension: &str) -> Vec<(String, u64)> {
    let from = SystemClock.now().seconds() - 86_400;
    let path = format!("/v1/organization/usage/images?start_time={from}&bucket_width=1d&group_by={dimension}");
    let usage = read(gateway.admin(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await;
    let buckets = usage["data"].as_array().unwrap().iter();
    let rows = buckets.flat_map(|bucket| bucket["results"].as_array().unwrap().clone());
    let mut rows: Vec<(String, u64)> = rows
        .map(|row| (row[dimension].as_str().unwrap().to_owned(), row["num_model_requests"].as_u64().unwrap()))
        .collect();
    rows.sort();
    rows
}

async fn a_fixed_name_of_a_client_makes_the_model_of_choice(kind: Database) {
    let house = House::new(kind).await;
    let gateway = &house.gateway;
    let wish = json!({"model": "DALL-E-3", "prompt": "a", "size": "1024x1024"});
    assert_eq!(gateway.generate(&wish).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let made = set(gateway, &json!({"id": "dall-e-3", "target": "fal-ai/flux/dev"})).await;
    assert_eq!(
        (&made["target"], &made["project_id"], &made["origin"]),
        (&json!("flux/dev"), &Value::Null, &json!("api"))
    );
    let answer = read(gateway.generate(&wish).send().await.unwrap(), StatusCode::CREATED).await;
    assert_eq!(answer["model"], "flux/dev", "the answer names the real one");
    read(gateway.generate(&json!({"model": "flux/dev", "prompt": "a"})).send().await.unwrap(), StatusCode::CREATED)
        .await;
    let rows = gateway.generations().await;
    assert_eq!((&rows[1]["model"], &rows[1]["requested_model"]), (&json!("flux/dev"), &json!("dall-e-3")));
    assert!(rows[0].get("requested_model").is_none(), "{}", rows[0]);
    assert_eq!(usage_by(gateway, "model").await, [("flux/dev".to_owned(), 2)]);
    let by_name = usage_by(gateway, "requested_model").await;
    assert_eq!(by_name, [("dall-e-3".to_owned(), 1), ("flux/dev".to_owned(), 1)]);

    // A name of the catalogue is taken over, and given back.
    set(gateway, &json!({"id": "gpt-image-1.5", "target": "flux-realism"})).await;
    let over = quote(gateway, &json!({"model": "gpt-image-1.5", "prompt": "a cat"}), StatusCode::OK).await;
    assert_eq!(over["model"], "flux-realism");
    let deleted = gateway.admin(Method::DELETE, "/admin/v1/model_aliases/GPT-image-1.5").send().await.unwrap();
    assert_eq!(read(deleted, StatusCode::OK).await["object"], "model_alias.deleted");
    let back = quote(gateway, &json!({"model": "gpt-image-1.5", "prompt": "a cat"}), StatusCode::OK).await;
    assert_eq!(back["model"], "gpt-image-1.5");
    let again = gateway.admin(Method::DELETE, "/admin/v1/model_aliases/gpt-image-1.5").send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NOT_FOUND);

    // As a fallback it stands for its model.
    let wish = json!({"model": "flux-realism", "prompt": "a", "fallbacks": ["dall-e-3"]});
    assert_eq!(quote(gateway, &wish, StatusCode::OK).await["fallbacks"], json!(["flux/dev"]));
}

async fn an_alias_holds_its_values_and_widens_no_limit(kind: Database) {
    let house = House::new(kind).await;
    let gateway = &house.gateway;
    for (alias, param) in [
        (json!({"id": "a b", "target": "flux/dev"}), "id"),
        (json!({"id": "a", "target": "nothing"}), "target"),
        (json!({"id": "a", "target": "flux/dev", "fixed": {"num_inference_steps": 99}}), "fixed"),
        (json!({"id": "a", "target": "flux/dev", "defaults": {"size": "9999x9"}}), "defaults"),
        (json!({"id": "a", "target": "flux/dev", "defaults": {"stream": true}}), "defaults"),
        (json!({"id": "a", "target": "flux/dev", "defaults": {"nothing": true}}), "defaults"),
        (json!({"id": "a", "target": "flux/dev", "fixed": 7}), "fixed"),
    ] {
        assert_eq!(refuse(gateway, &alias, StatusCode::BAD_REQUEST).await["param"], param, "{alias}");
    }
    set(gateway, &json!({"id": "house", "target": "flux/dev"})).await;
    let loops = refuse(gateway, &json!({"id": "other", "target": "house"}), StatusCode::BAD_REQUEST).await;
    assert_eq!(loops["param"], "target", "an alias is no target");
    set(
        gateway,
        &json!({
            "id": "house", "target": "flux/dev",
            "defaults": {"num_inference_steps": 30}, "fixed": {"output_format": "png", "size": "1024x1024"},
        }),
    )
    .await;
    let plain = quote(gateway, &json!({"model": "house", "prompt": "a"}), StatusCode::OK).await;
    let sent = &plain["provider_request"]["body"];
    assert_eq!(
        (&sent["num_inference_steps"], &sent["output_format"], &sent["image_size"]),
        (&json!(30), &json!("png"), &json!({"width": 1024, "height": 1024}))
    );
    let own = json!({"model": "house", "prompt": "a", "num_inference_steps": 12, "output_format": "png"});
    assert_eq!(quote(gateway, &own, StatusCode::OK).await["parameters"]["num_inference_steps"], 12);
    for (field, value) in
        [("output_format", json!("jpeg")), ("size", json!("512x512")), ("aspect_ratio", json!("16:9"))]
    {
        let mut wish = json!({"model": "house", "prompt": "a"});
        wish[field] = value;
        let refused = quote(gateway, &wish, StatusCode::BAD_REQUEST).await["error"].clone();
        assert_eq!(refused["param"], field);
        assert!(refused["message"].as_str().unwrap().contains("`house` fixes `"), "{refused}");
    }
    let beyond = json!({"model": "house", "prompt": "a", "num_inference_steps": 99});
    assert_eq!(quote(gateway, &beyond, StatusCode::BAD_REQUEST).await["error"]["param"], "num_inference_steps");
    // The project's policy holds as for the model itself.
    gateway.set_project(&json!({"policy": {"max_price_usd": "0.000000001"}})).await;
    quote(gateway, &json!({"model": "house", "prompt": "a"}), StatusCode::FORBIDDEN).await;
}

/// A project with a key of its own.
async fn project(gateway: &Gateway, name: &str) -> (String, String) {
    let made =
        gateway.admin(Method::POST, "/v1/organization/projects").json(&json!({"name": name})).send().await.unwrap();
    let id = read(made, StatusCode::OK).await["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/organization/projects/{id}/service_accounts");
    let made = gateway.admin(Method::POST, &path).json(&json!({"name": "w"})).send().await.unwrap();
    let key = read(made, StatusCode::OK).await["api_key"]["value"].as_str().unwrap().to_owned();
    (id, key)
}

async fn a_projects_alias_counts_before_everybodys(kind: Database) {
    let house = House::new(kind).await;
    let gateway = &house.gateway;
    let (shop, key) = project(gateway, "shop").await;
    set(gateway, &json!({"id": "house", "target": "flux/dev"})).await;
    set(gateway, &json!({"id": "house", "target": "flux-realism", "project_id": shop})).await;
    set(gateway, &json!({"id": "own", "target": "flux-realism", "project_id": "default"})).await;
    let model = async |key: &str, name: &str| {
        let request = gateway.request(Method::POST, "/v1/images/generations/quote").bearer_auth(key);
        let answer = request.json(&json!({"model": name, "prompt": "a"})).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["model"].as_str().map(str::to_owned)
    };
    assert_eq!(model(PROJECT_KEY, "house").await.as_deref(), Some("flux/dev"));
    assert_eq!(model(&key, "house").await.as_deref(), Some("flux-realism"));
    assert_eq!(model(PROJECT_KEY, "own").await.as_deref(), Some("flux-realism"));
    assert_eq!(model(&key, "own").await, None, "another project's");
    let path = format!("/admin/v1/model_aliases?project_id={shop}");
    let list = read(gateway.admin(Method::GET, &path).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!((list["data"].as_array().unwrap().len(), &list["data"][0]["target"]), (1, &json!("flux-realism")));
    let gone = gateway.admin(Method::DELETE, &format!("/admin/v1/model_aliases/house?project_id={shop}"));
    read(gone.send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(model(&key, "house").await.as_deref(), Some("flux/dev"), "everybody's is left");
    let nobody = json!({"id": "x", "target": "flux/dev", "project_id": "proj_019e1951c77871209c8216efcf40ec82"});
    refuse(gateway, &nobody, StatusCode::NOT_FOUND).await;

    // An operator sets aliases of projects, not of everybody.
    let made =
        gateway.admin(Method::POST, "/v1/organization/admin_api_keys").json(&json!({"name": "o", "role": "operator"}));
    let operator = read(made.send().await.unwrap(), StatusCode::OK).await["value"].as_str().unwrap().to_owned();
    for (alias, status) in [
        (json!({"id": "o", "target": "flux/dev"}), StatusCode::FORBIDDEN),
        (json!({"id": "o", "target": "flux/dev", "project_id": shop}), StatusCode::OK),
    ] {
        let request = gateway.request(Method::POST, "/admin/v1/model_aliases").bearer_auth(&operator).json(&alias);
        assert_eq!(request.send().await.unwrap().status(), status);
    }
    let request = gateway.request(Method::DELETE, "/admin/v1/model_aliases/house").bearer_auth(&operator);
    assert_eq!(request.send().await.unwrap().status(), StatusCode::FORBIDDEN);
}

async fn the_list_of_models_names_aliases(kind: Database) {
    let house = House::new(kind).await;
    let gateway = &house.gateway;
    let list = async |key: Option<&str>, query: &str| {
        let request = gateway.request(Method::GET, &format!("/v1/models{query}"));
        let request = if let Some(key) = key { request.bearer_auth(key) } else { request };
        let answer = request.send().await.unwrap();
        let headers = answer.headers().clone();
        let list = read(answer, StatusCode::OK).await["data"].as_array().unwrap().clone();
        (list, headers)
    };
    let (before, headers) = list(None, "").await;
    let old_tag = headers["etag"].clone();
    set(
        gateway,
        &json!({
            "id": "acme/poster", "target": "flux/dev", "name": "Poster", "description": "Our posters.",
            "defaults": {"num_inference_steps": 30}, "fixed": {"output_format": "png"},
        }),
    )
    .await;
    set(gateway, &json!({"id": "gpt-image-1.5", "target": "flux-realism"})).await;
    set(gateway, &json!({"id": "ours", "target": "flux/dev", "project_id": "default"})).await;
    let (all, headers) = list(None, "").await;
    assert_ne!(headers["etag"], old_tag);
    assert_eq!(headers["cache-control"], "max-age=60");
    assert_eq!(all.len(), before.len() + 1, "one is new, one takes the place of a model");
    let find = |list: &[Value], id: &str| list.iter().find(|model| model["id"] == id).cloned();
    let poster = find(&all, "acme/poster").unwrap();
    assert_eq!((&poster["alias_of"], &poster["info"]["name"]), (&json!("flux/dev"), &json!("Poster")));
    assert_eq!(poster["info"]["description"], "Our posters.");
    assert_eq!(poster["parameters"]["properties"]["num_inference_steps"]["default"], 30);
    assert_eq!(poster["parameters"]["properties"]["output_format"]["const"], "png");
    assert_eq!(poster["pricing"], find(&all, "flux/dev").unwrap()["pricing"]);
    assert_eq!(find(&all, "gpt-image-1.5").unwrap()["alias_of"], "flux-realism");
    assert!(find(&all, "ours").is_none(), "it is a project's");
    let (own, headers) = list(Some(PROJECT_KEY), "").await;
    assert_eq!(find(&own, "ours").unwrap()["alias_of"], "flux/dev");
    assert_eq!(headers["cache-control"], "private, max-age=60");
    assert!(headers["vary"].to_str().unwrap().contains("authorization"));
    for key in [ADMIN_KEY, "sk-wrong-wrong-wrong-wrong"] {
        assert!(find(&list(Some(key), "").await.0, "ours").is_none());
    }
    assert_eq!(list(Some(PROJECT_KEY), "?id=OURS").await.0.len(), 1);
    assert_eq!(list(None, "?q=our%20posters").await.0.len(), 1);
    let fresh =
        gateway.request(Method::GET, "/v1/models").header("if-none-match", list(None, "").await.1["etag"].clone());
    assert_eq!(fresh.send().await.unwrap().status(), StatusCode::NOT_MODIFIED);

    let one = async |path: &str, status: StatusCode| {
        read(gateway.request(Method::GET, path).send().await.unwrap(), status).await
    };
    assert_eq!(one("/v1/models/acme/Poster", StatusCode::OK).await, poster);
    one("/v1/models/ours", StatusCode::NOT_FOUND).await;
    let own = gateway.project(Method::GET, "/v1/models/ours").send().await.unwrap();
    assert_eq!(read(own, StatusCode::OK).await["id"], "ours");
}

async fn who_may_use_an_alias_is_said_by_model_or_alias(kind: Database) {
    let house = House::new(kind).await;
    let gateway = &house.gateway;
    set(gateway, &json!({"id": "House", "target": "flux/dev", "fixed": {"output_format": "png"}})).await;
    let status = async |name: &str| {
        let body = json!({"model": name, "prompt": "a"});
        gateway.project(Method::POST, "/v1/images/generations/quote").json(&body).send().await.unwrap().status()
    };
    for (policy, by_alias, by_model) in [
        (json!({"allowed_models": ["flux/dev"]}), StatusCode::OK, StatusCode::OK),
        // Listed by the alias alone, the model is had with its fixed values only.
        (json!({"allowed_models": ["house"]}), StatusCode::OK, StatusCode::FORBIDDEN),
        (json!({"allowed_models": ["flux-realism"]}), StatusCode::FORBIDDEN, StatusCode::FORBIDDEN),
        (json!({"denied_models": ["flux/dev"]}), StatusCode::FORBIDDEN, StatusCode::FORBIDDEN),
        (json!({"denied_models": ["house"]}), StatusCode::FORBIDDEN, StatusCode::OK),
    ] {
        let project = gateway.set_project(&json!({"policy": policy})).await;
        assert!(!project["policy"].to_string().contains("\"house\""), "it is spelled as the alias is");
        assert_eq!((status("house").await, status("flux/dev").await), (by_alias, by_model), "{policy}");
    }
    // A list has aliases of its own project: another's mean nothing to it.
    let made = gateway.admin(Method::POST, "/v1/organization/projects").json(&json!({"name": "other"}));
    let made = read(made.send().await.unwrap(), StatusCode::OK).await;
    set(gateway, &json!({"id": "theirs", "target": "flux/dev", "project_id": made["id"]})).await;
    let foreign = json!({"allowed_models": ["theirs"]});
    let keys =
        format!("/v1/organization/projects/{}/api_keys", gateway.set_project(&json!({})).await["id"].as_str().unwrap());
    let keys = read(gateway.admin(Method::GET, &keys).send().await.unwrap(), StatusCode::OK).await;
    let key = keys["data"][0]["id"].as_str().unwrap().to_owned();
    for (path, body) in [
        ("/admin/v1/projects/default".to_owned(), json!({"policy": foreign})),
        ("/admin/v1/projects/default".to_owned(), json!({"policy": {"denied_models": ["theirs"]}})),
        (format!("/admin/v1/keys/{key}"), foreign.clone()),
    ] {
        let refused = gateway.admin(Method::PATCH, &path).json(&body).send().await.unwrap();
        let refused = read(refused, StatusCode::BAD_REQUEST).await;
        assert!(refused["message"].as_str().unwrap().contains("there is no model `theirs`"), "{refused}");
    }
    let theirs = format!("/admin/v1/projects/{}", made["id"].as_str().unwrap());
    let taken = gateway.admin(Method::PATCH, &theirs).json(&json!({"policy": foreign})).send().await.unwrap();
    assert_eq!(taken.status(), StatusCode::OK);
    let wrong = json!({"policy": {"allowed_models": ["nobody"]}});
    let wrong = gateway.admin(Method::PATCH, "/admin/v1/projects/default").json(&wrong).send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
}

async fn the_list_of_models_has_what_a_key_may_use(kind: Database) {
    let house = House::new(kind).await;
    let gateway = &house.gateway;
    set(gateway, &json!({"id": "house", "target": "flux/dev"})).await;
    let list = async |key: Option<&str>| {
        let request = gateway.request(Method::GET, "/v1/models");
        let answer = if let Some(key) = key { request.bearer_auth(key) } else { request }.send().await.unwrap();
        let cache = answer.headers()["cache-control"].to_str().unwrap().to_owned();
        let listed = read(answer, StatusCode::OK).await["data"].as_array().unwrap().clone();
        (listed.iter().map(|model| model["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>(), cache)
    };
    let (all, cache) = list(Some(PROJECT_KEY)).await;
    assert_eq!((all.len() > 50, cache.as_str()), (true, "max-age=60"));
    for (policy, listed) in [
        (json!({"allowed_models": ["flux-realism", "house"]}), vec!["flux-realism", "house"]),
        (json!({"allowed_models": ["flux/dev"]}), vec!["flux/dev", "house"]),
        (json!({"allowed_models": ["flux/dev"], "denied_models": ["house"]}), vec!["flux/dev"]),
    ] {
        gateway.set_project(&json!({"policy": policy})).await;
        let (own, cache) = list(Some(PROJECT_KEY)).await;
        assert_eq!((own, cache.as_str()), (listed.into_iter().map(str::to_owned).collect(), "private, max-age=60"));
        // Nobody else sees less for that.
        for key in [None, Some(ADMIN_KEY)] {
            assert_eq!(list(key).await.0, all);
        }
    }
    gateway.set_project(&json!({"policy": null})).await;
    assert_eq!(list(Some(PROJECT_KEY)).await.0, all);
}

async fn every_face_knows_an_alias(kind: Database) {
    let house = House::new(kind).await;
    let gateway = &house.gateway;
    set(
        gateway,
        &json!({"id": "gpt-image-1", "target": "flux/kontext-pro/image-to-image", "fixed": {"output_format": "png"}}),
    )
    .await;
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(64, 48).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    let picture = Part::bytes(bytes.into_inner()).file_name("blob").mime_str("image/png").unwrap();
    let form = Form::new().text("model", "gpt-image-1").text("prompt", "night").text("n", "1").part("image", picture);
    let made = gateway.project(Method::POST, "/v1/images/edits").multipart(form).send().await.unwrap();
    let made = read(made, StatusCode::CREATED).await;
    assert_eq!(
        (&made["model"], &made["images"][0]["content_type"]),
        (&json!("flux/kontext-pro/image-to-image"), &json!("image/png"))
    );

    // fal's clients ask for it as an endpoint.
    set(gateway, &json!({"id": "acme/house/style", "target": "flux/dev", "fixed": {"output_format": "png"}})).await;
    let fal = |method: Method, path: &str| {
        gateway.request(method, path).header("authorization", format!("Key {PROJECT_KEY}"))
    };
    let run = fal(Method::POST, "/fal/run/acme/house/style").json(&json!({"prompt": "a"})).send().await.unwrap();
    assert_eq!(read(run, StatusCode::OK).await["images"][0]["content_type"], "image/png");
    let wrong = json!({"prompt": "a", "output_format": "jpeg"});
    let wrong = fal(Method::POST, "/fal/run/acme/house/style").json(&wrong).send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let taken = fal(Method::POST, "/fal/queue/acme/house/style").json(&json!({"prompt": "a"})).send().await.unwrap();
    let taken = read(taken, StatusCode::OK).await;
    let path = |url: &Value| url.as_str().unwrap().strip_prefix(&gateway.base).unwrap().to_owned();
    let (status, result) = (path(&taken["status_url"]), path(&taken["response_url"]));
    assert!(status.contains("/fal/queue/acme/house/requests/"), "{status}");
    eventually(Duration::from_secs(20), || async {
        let answer = fal(Method::GET, &status).send().await.unwrap();
        (answer.json::<Value>().await.unwrap()["status"] == "COMPLETED").then_some(())
    })
    .await;
    let result = read(fal(Method::GET, &result).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(result["images"][0]["content_type"], "image/png");
    // An alias with the id of an endpoint's model is not what the endpoint means.
    set(gateway, &json!({"id": "flux/dev", "target": "flux-realism"})).await;
    let run = fal(Method::POST, "/fal/run/fal-ai/flux/dev").json(&json!({"prompt": "a"})).send().await.unwrap();
    read(run, StatusCode::OK).await;
    assert_eq!(gateway.generations().await[0]["endpoint"], "fal-ai/flux/dev");
}

async fn aliases_survive_a_restart_reach_replicas_and_are_audited(kind: Database) {
    let house = House::new(kind).await;
    let there = house.another().await;
    let wish = json!({"model": "house", "prompt": "a"});
    let status = async |gateway: &Gateway| {
        let request = gateway.project(Method::POST, "/v1/images/generations/quote").json(&wish);
        request.send().await.unwrap().status()
    };
    set(&house.gateway, &json!({"id": "house", "target": "flux/dev"})).await;
    assert_eq!(status(&house.gateway).await, StatusCode::OK, "it counts at once where it was made");
    let soon = async |wanted: StatusCode| {
        eventually(Duration::from_secs(1), || async { (status(&there).await == wanted).then_some(()) }).await;
    };
    soon(StatusCode::OK).await;
    assert_eq!(status(&house.another().await).await, StatusCode::OK, "a start reads it");
    set(&house.gateway, &json!({"id": "house", "target": "flux-realism"})).await;
    read(house.gateway.admin(Method::DELETE, "/admin/v1/model_aliases/house").send().await.unwrap(), StatusCode::OK)
        .await;
    soon(StatusCode::NOT_FOUND).await;
    let path = "/v1/organization/audit_logs?event_types=model_alias.created,model_alias.updated,model_alias.deleted";
    let log = read(house.gateway.admin(Method::GET, path).send().await.unwrap(), StatusCode::OK).await;
    let types: Vec<&str> =
        log["data"].as_array().unwrap().iter().map(|entry| entry["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["model_alias.deleted", "model_alias.updated", "model_alias.created"]);
    assert!(log["data"][1].to_string().contains("flux-realism"), "{log}");
}

async fn the_settings_file_gives_aliases_too(kind: Database) {
    let house = House::new(kind).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("aliases.toml");
    let text =
        "[[alias]]\nid = \"dall-e-3\"\ntarget = \"flux/dev\"\nname = \"House\"\nfixed = { output_format = \"png\" }\n";
    std::fs::write(&file, text).unwrap();
    let start = || {
        Start::new(&house.database.url, &house.fal.queue_url()).with("IMAGEGATE_ALIASES_FILE", file.to_str().unwrap())
    };
    let gateway = start().run().await;
    let wish = json!({"model": "dall-e-3", "prompt": "a"});
    let quoted = quote(&gateway, &wish, StatusCode::OK).await;
    assert_eq!((&quoted["model"], &quoted["parameters"]["output_format"]), (&json!("flux/dev"), &json!("png")));
    let list = read(gateway.admin(Method::GET, "/admin/v1/model_aliases").send().await.unwrap(), StatusCode::OK).await;
    assert_eq!((&list["data"][0]["origin"], &list["data"][0]["created_at"]), (&json!("file"), &Value::Null));
    refuse(&gateway, &json!({"id": "Dall-E-3", "target": "flux-realism"}), StatusCode::CONFLICT).await;
    let delete = gateway.admin(Method::DELETE, "/admin/v1/model_aliases/dall-e-3").send().await.unwrap();
    assert_eq!(delete.status(), StatusCode::CONFLICT);

    // Read again while it serves; what is wrong leaves all as it was.
    std::fs::write(&file, text.replace("flux/dev", "flux-realism")).unwrap();
    gateway.signal("HUP");
    eventually(Duration::from_secs(10), || async {
        (quote(&gateway, &wish, StatusCode::OK).await["model"] == "flux-realism").then_some(())
    })
    .await;
    let wrong = text.replace("\"png\"", "\"gif\"");
    std::fs::write(&file, &wrong).unwrap();
    gateway.signal("HUP");
    eventually(Duration::from_secs(10), || async { gateway.log().contains("IMAGEGATE_ALIASES_FILE").then_some(()) })
        .await;
    assert_eq!(quote(&gateway, &wish, StatusCode::OK).await["model"], "flux-realism");
    let (none, log) = start().launch().await;
    assert!(none.is_none(), "it must not start");
    let log = log.lock().unwrap().clone();
    assert!(log.contains("IMAGEGATE_ALIASES_FILE") && log.contains("alias `dall-e-3`: fixed: "), "{log}");
}

async fn the_terminal_and_the_console_set_aliases(kind: Database) {
    let house = House::new(kind).await;
    let gateway = &house.gateway;
    let terminal = |arguments: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let output =
            Start::new(&house.database.url, "http://127.0.0.1:1").command(&folder).args(arguments).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (ok, said, failure) = terminal(&[
        "aliases",
        "set",
        "dall-e-3",
        "flux/dev",
        "--default",
        "num_inference_steps=30",
        "--fixed",
        "output_format=png",
        "--json",
    ]);
    assert!(ok, "{failure}");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&said["defaults"], &said["fixed"]),
        (&json!({"num_inference_steps": 30}), &json!({"output_format": "png"}))
    );
    let wish = json!({"model": "dall-e-3", "prompt": "a"});
    eventually(Duration::from_secs(2), || async {
        let request = gateway.project(Method::POST, "/v1/images/generations/quote").json(&wish);
        (request.send().await.unwrap().status() == StatusCode::OK).then_some(())
    })
    .await;
    assert!(terminal(&["aliases", "list"]).1.contains("dall-e-3"));
    let (ok, _, failure) = terminal(&["aliases", "set", "x", "flux/dev", "--fixed", "num_inference_steps=99"]);
    assert!(!ok && failure.contains("at most 50"), "{failure}");
    let (ok, _, failure) = terminal(&["projects", "adapt", "default", "size,seed"]);
    assert!(ok, "{failure}");
    assert!(terminal(&["usage", "--by", "requested-model"]).0);
    assert!(terminal(&["aliases", "delete", "dall-e-3"]).0);

    let page = |method: Method, path: &str| {
        gateway.request(method, &format!("/console{path}")).header("sec-fetch-site", "same-origin")
    };
    let form = |request: reqwest::RequestBuilder, fields: &[(&str, &str)]| {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        request.header("content-type", "application/x-www-form-urlencoded").body(body)
    };
    let answer =
        form(page(Method::POST, "/sign-in"), &[("key", ADMIN_KEY), ("next", "/console")]).send().await.unwrap();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let post = async |path: &str, fields: &[(&str, &str)]| {
        let answer = form(page(Method::POST, path), fields).header("cookie", &cookie).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    };
    let show = async |path: &str| {
        page(Method::GET, path).header("cookie", &cookie).send().await.unwrap().text().await.unwrap()
    };
    let (status, _) =
        post("/models/aliases/set", &[("id", "acme/one"), ("target", "flux/dev"), ("fixed", "{\"seed\": 7}")]).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let models = show("/models").await;
    assert!(models.contains("acme/one") && models.contains("seed"), "{models}");
    let (status, text) =
        post("/models/aliases/set", &[("id", "acme/two"), ("target", "flux/dev"), ("fixed", "seed")]).await;
    assert!(status == StatusCode::BAD_REQUEST && text.contains("must be a JSON object"), "{status} {text}");
    let default = gateway.admin(Method::GET, "/admin/v1/projects/default").send().await.unwrap();
    let id = read(default, StatusCode::OK).await["id"].as_str().unwrap().to_owned();
    let path = format!("/projects/{id}");
    let fields = [("id", "mine"), ("target", "flux-realism"), ("name", "Mine")];
    assert_eq!(post(&format!("{path}/aliases/set"), &fields).await.0, StatusCode::SEE_OTHER);
    let shown = show(&path).await;
    assert!(shown.contains("mine") && !shown.contains("acme/one"), "{shown}");
    assert!(shown.contains("value=\"size, seed\""), "what the project adapts is shown");
    assert_eq!(post(&format!("{path}/aliases/delete"), &[("id", "mine")]).await.0, StatusCode::SEE_OTHER);
    assert_eq!(post("/models/aliases/delete", &[("id", "acme/one")]).await.0, StatusCode::SEE_OTHER);
    let list = read(gateway.admin(Method::GET, "/admin/v1/model_aliases").send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(list["data"], json!([]));
}
