//! The console: closed without a session, safe against other sites, and every page as a person sees it in a browser.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use reqwest::header::{COOKIE, SET_COOKIE};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::json;

use crate::support::tools::tool;
use crate::support::{
    ADMIN_KEY, Database, Gateway, House, PROJECT_KEY, client, eventually, free_port, on_both_databases, read, t_rex,
};

on_both_databases!(
    nothing_is_shown_without_a_session,
    a_session_begins_with_an_admin_key_only,
    another_site_can_do_nothing,
    a_session_ends_with_its_key_and_holds_on_every_replica,
    the_console_is_where_the_operators_face_is,
    a_page_tells_the_browser_what_it_may_load,
    a_picture_that_we_keep_is_shown_as_well,
    admin_keys_are_made_and_revoked_by_owners_only,
    a_person_can_use_every_page,
);

const PAGES: &[&str] = &[
    "",
    "/usage",
    "/usage.csv",
    "/generations",
    "/generations.csv",
    "/generations/x",
    "/generations/x/images/0",
    "/projects",
    "/projects/x",
    "/admin-keys",
    "/models",
    "/holds",
    "/drift",
    "/audit",
    "/playground",
    "/playground/x/progress",
    "/nothing",
];

/// As a page of the console itself sends it.
fn from_a_page(request: RequestBuilder) -> RequestBuilder {
    request.header("sec-fetch-site", "same-origin")
}

/// As a form sends its fields.
fn form(request: RequestBuilder, fields: &[(&str, &str)]) -> RequestBuilder {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    request.header("content-type", "application/x-www-form-urlencoded").body(body)
}

async fn sign_in(gateway: &Gateway, key: &str) -> Response {
    let request = from_a_page(gateway.request(Method::POST, "/console/sign-in"));
    form(request, &[("key", key), ("next", "/console/usage")]).send().await.unwrap()
}

/// The cookie of a session, as a browser sends it back.
async fn session(gateway: &Gateway, key: &str) -> String {
    let answer = sign_in(gateway, key).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    assert_eq!(answer.headers()["location"], "/console/usage");
    let cookie = answer.headers()[SET_COOKIE].to_str().unwrap();
    for word in ["HttpOnly", "SameSite=Strict", "Path=/console", "Max-Age=43200"] {
        assert!(cookie.contains(word), "{word} is missing: {cookie}");
    }
    cookie.split(';').next().unwrap().to_owned()
}

async fn get(gateway: &Gateway, path: &str, cookie: &str) -> Response {
    gateway.request(Method::GET, &format!("/console{path}")).header(COOKIE, cookie).send().await.unwrap()
}

async fn nothing_is_shown_without_a_session(kind: Database) {
    let house = House::new(kind).await;
    for cookie in ["", "imagegate_console=", "imagegate_console=made-up", "imagegate_console=admin-key-of-the-tests"] {
        for path in PAGES {
            let answer = get(&house.gateway, path, cookie).await;
            assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{path}");
            assert!(answer.headers()["location"].to_str().unwrap().starts_with("/console/sign-in"), "{path}");
            assert!(answer.bytes().await.unwrap().is_empty(), "{path}");
        }
    }
    for (path, status) in [("/console/assets/console.css", 200), ("/console/assets/nothing", 404)] {
        let answer = house.gateway.request(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status);
    }
    // A key opens the API; the console wants a session.
    let answer = house.gateway.admin(Method::GET, "/console").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
}

async fn a_session_begins_with_an_admin_key_only(kind: Database) {
    let house = House::new(kind).await;
    for key in [PROJECT_KEY, "wrong-wrong-wrong-wrong", ""] {
        let answer = sign_in(&house.gateway, key).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        assert!(!answer.headers().contains_key(SET_COOKIE));
        assert!(!answer.text().await.unwrap().contains("wrong-wrong"), "what was typed is not shown");
    }
    let cookie = session(&house.gateway, ADMIN_KEY).await;
    assert_eq!(get(&house.gateway, "", &cookie).await.status(), StatusCode::OK);
    let answer = get(&house.gateway, "/generations/nothing", &cookie).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    let out = from_a_page(house.gateway.request(Method::POST, "/console/sign-out")).header(COOKIE, &cookie);
    assert_eq!(out.send().await.unwrap().status(), StatusCode::SEE_OTHER);
    assert_eq!(get(&house.gateway, "", &cookie).await.status(), StatusCode::SEE_OTHER, "the server has ended it");
    for secret in [ADMIN_KEY, cookie.split('=').nth(1).unwrap()] {
        assert!(!house.gateway.log().contains(secret), "a secret is in the log");
    }
}

async fn another_site_can_do_nothing(kind: Database) {
    let house = House::new(kind).await;
    let cookie = session(&house.gateway, ADMIN_KEY).await;
    let post = || {
        let request = house.gateway.request(Method::POST, "/console/projects").header(COOKIE, &cookie);
        form(request, &[("name", "Planted")])
    };
    for foreign in [
        post(),
        post().header("sec-fetch-site", "cross-site"),
        post().header("sec-fetch-site", "same-site"),
        post().header("origin", "https://evil.example"),
        post().header("origin", "null"),
    ] {
        assert_eq!(foreign.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    }
    let forged = form(house.gateway.request(Method::POST, "/console/sign-in"), &[("key", ADMIN_KEY)]);
    assert_eq!(forged.header("origin", "https://evil.example").send().await.unwrap().status(), StatusCode::FORBIDDEN);
    let projects = house.gateway.admin(Method::GET, "/v1/organization/projects").send().await.unwrap();
    assert!(!projects.text().await.unwrap().contains("Planted"));
    assert_eq!(from_a_page(post()).send().await.unwrap().status(), StatusCode::SEE_OTHER);
    let log = house.gateway.admin(Method::GET, "/v1/organization/audit_logs?limit=1").send().await.unwrap();
    let entry = read(log, StatusCode::OK).await["data"][0].clone();
    assert_eq!(entry["type"], "project.created");
    assert_eq!(entry["actor"]["session"]["ip_address"], "127.0.0.1", "the audit log tells who did it: {entry}");
}

async fn a_session_ends_with_its_key_and_holds_on_every_replica(kind: Database) {
    let house = House::new(kind).await;
    let made = house.gateway.admin(Method::POST, "/v1/organization/admin_api_keys").json(&json!({"name": "ada"}));
    let made = read(made.send().await.unwrap(), StatusCode::OK).await;
    let cookie = session(&house.gateway, made["value"].as_str().unwrap()).await;
    let other = house.another().await;
    assert_eq!(get(&other, "", &cookie).await.status(), StatusCode::OK, "a session is every replica's");
    let path = format!("/v1/organization/admin_api_keys/{}", made["id"].as_str().unwrap());
    read(house.gateway.admin(Method::DELETE, &path).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(get(&house.gateway, "", &cookie).await.status(), StatusCode::SEE_OTHER);
    eventually(Duration::from_secs(10), || async {
        (get(&other, "", &cookie).await.status() == StatusCode::SEE_OTHER).then_some(())
    })
    .await;
}

async fn the_console_is_where_the_operators_face_is(kind: Database) {
    let address = format!("127.0.0.1:{}", free_port());
    let house = House::with(kind, Duration::ZERO, &[("IMAGEGATE_ADMIN_BIND", &address)]).await;
    let here = client().get(format!("http://{address}/console/sign-in")).send().await.unwrap();
    assert_eq!(here.status(), StatusCode::OK);
    for path in ["/console", "/console/sign-in", "/console/assets/console.js"] {
        let elsewhere = house.gateway.request(Method::GET, path).send().await.unwrap();
        assert_eq!(elsewhere.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

async fn a_page_tells_the_browser_what_it_may_load(kind: Database) {
    let house = House::new(kind).await;
    let (status, made) = house.ask(&t_rex()).await;
    assert_eq!(status, 201);
    let id = made["id"].as_str().unwrap();
    let cookie = session(&house.gateway, ADMIN_KEY).await;
    for path in ["", "/generations", &format!("/generations/{id}"), "/playground", "/nothing"] {
        let answer = get(&house.gateway, path, &cookie).await;
        let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers()["cache-control"], "no-store");
    }
    let picture = get(&house.gateway, &format!("/generations/{id}/images/0"), &cookie).await;
    assert_eq!(picture.headers()["content-type"], "image/jpeg");
    assert!(picture.headers()["content-security-policy"].to_str().unwrap().contains("sandbox"));
    let picture = image::load_from_memory(&picture.bytes().await.unwrap()).unwrap();
    assert_eq!((picture.width(), picture.height()), (1472, 512));
    assert_eq!(
        get(&house.gateway, &format!("/generations/{id}/images/1"), &cookie).await.status(),
        StatusCode::NOT_FOUND
    );
}

async fn a_picture_that_we_keep_is_shown_as_well(kind: Database) {
    let folder = tempfile::tempdir().unwrap();
    let place = format!("file://{}", folder.path().display());
    let house = House::with(kind, Duration::ZERO, &[("IMAGEGATE_STORAGE", place.as_str())]).await;
    let (status, made) = house.ask(&t_rex()).await;
    assert_eq!(status, 201);
    let cookie = session(&house.gateway, ADMIN_KEY).await;
    let path = format!("/generations/{}/images/0", made["id"].as_str().unwrap());
    let picture = get(&house.gateway, &path, &cookie).await;
    assert_eq!(picture.status(), StatusCode::OK);
    assert_eq!(image::load_from_memory(&picture.bytes().await.unwrap()).unwrap().width(), 1472);
}

async fn admin_keys_are_made_and_revoked_by_owners_only(kind: Database) {
    let House { gateway, fal: _fal, database: _database } = House::new(kind).await;
    let owner = session(&gateway, ADMIN_KEY).await;
    let post = |path: &str, cookie: &str, fields: &[(&str, &str)]| {
        form(gateway.request(Method::POST, &format!("/console/admin-keys{path}")).header(COOKIE, cookie), fields)
    };
    let list = async |cookie: &str| {
        let page = get(&gateway, "/admin-keys", cookie).await;
        assert_eq!(page.status(), StatusCode::OK);
        page.text().await.unwrap()
    };
    assert!(list(&owner).await.contains("Set by a setting"));
    let fields = [("name", "Reader"), ("role", "read_only"), ("allowed_addresses", "127.0.0.0/8")];
    let foreign = post("", &owner, &fields).header("sec-fetch-site", "cross-site").send().await.unwrap();
    assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
    let without_role = from_a_page(post("", &owner, &[("name", "Reader")])).send().await.unwrap();
    assert_eq!(without_role.status(), StatusCode::BAD_REQUEST);
    assert!(!list(&owner).await.contains("Reader"));

    // Its value is shown once; it has the role that was chosen.
    let make = async |name: &str, role: &str, addresses: &str| {
        let fields = [("name", name), ("role", role), ("allowed_addresses", addresses)];
        let made = from_a_page(post("", &owner, &fields)).send().await.unwrap();
        assert_eq!(made.status(), StatusCode::OK);
        let page = made.text().await.unwrap();
        let between = |before: &str| page.split(before).nth(1).unwrap().split('<').next().unwrap().to_owned();
        (between("<code id=\"secret\">"), format!("key_{}", between("<code>key_")))
    };
    let (reader_key, reader_id) = make("Reader", "read_only", "127.0.0.0/8").await;
    let shown = list(&owner).await;
    for text in ["Reader", "read_only", "127.0.0.0/8", reader_id.as_str()] {
        assert!(shown.contains(text), "{text}");
    }
    assert!(!shown.contains(&reader_key));

    // Who is no owner neither sees the page, nor its entry in the menu, nor can do anything.
    let reader = session(&gateway, &reader_key).await;
    assert_eq!(get(&gateway, "/admin-keys", &reader).await.status(), StatusCode::FORBIDDEN);
    let revoke = |id: &str, cookie: &str| from_a_page(post(&format!("/{id}/revoke"), cookie, &[])).send();
    for refused in [from_a_page(post("", &reader, &fields)).send().await, revoke(&reader_id, &reader).await] {
        assert_eq!(refused.unwrap().status(), StatusCode::FORBIDDEN);
    }
    let entry = "href=\"/console/admin-keys\"";
    assert!(!get(&gateway, "", &reader).await.text().await.unwrap().contains(entry));
    assert!(get(&gateway, "", &owner).await.text().await.unwrap().contains(entry));

    // The last owner stays; others go, and their sessions with them.
    let (second_key, second_id) = make("Second", "owner", "").await;
    let second = session(&gateway, &second_key).await;
    let keys = gateway.admin(Method::GET, "/v1/organization/admin_api_keys?limit=100").send().await.unwrap();
    let keys = read(keys, StatusCode::OK).await;
    let setting = keys["data"].as_array().unwrap().iter().find(|key| key["owner"]["name"] == "setting").unwrap();
    let setting = setting["id"].as_str().unwrap();
    let unrevokable = revoke(setting, &second).await.unwrap();
    assert!(unrevokable.status().is_client_error(), "{}", unrevokable.status());
    let demoted = gateway.request(Method::PATCH, &format!("/admin/v1/keys/{setting}")).bearer_auth(&second_key);
    read(demoted.json(&json!({"role": "billing"})).send().await.unwrap(), StatusCode::OK).await;
    let refused = revoke(&second_id, &second).await.unwrap();
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    assert!(refused.text().await.unwrap().contains("last admin key with the role `owner`"));
    let gone = revoke(&reader_id, &second).await.unwrap();
    assert_eq!(
        (gone.status(), &gone.headers()["location"]),
        (StatusCode::SEE_OTHER, &"/console/admin-keys?done=deleted".parse().unwrap())
    );
    let shown = list(&second).await;
    assert!(shown.contains(&second_id) && !shown.contains(&reader_id));
    eventually(Duration::from_secs(20), || async {
        (get(&gateway, "", &reader).await.status() == StatusCode::SEE_OTHER).then_some(())
    })
    .await;
}

/// `tests/console/look.cjs` in headless Chromium; its pictures stay in the target folder.
async fn a_person_can_use_every_page(kind: Database) {
    let house = House::with(kind, Duration::from_secs(1), &[]).await;
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("console-{kind:?}").to_lowercase());
    let mut look = Command::new("node");
    look.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/console/look.cjs"))
        .args([&house.gateway.base, ADMIN_KEY, PROJECT_KEY])
        .arg(&pictures)
        .env("NODE_PATH", tool("IMAGEGATE_TEST_CONSOLE_MODULES"));
    let seen = tokio::task::spawn_blocking(move || look.output()).await.unwrap().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&seen.stdout), String::from_utf8_lossy(&seen.stderr));
    assert!(seen.status.success(), "{said}\npictures are in {}", pictures.display());
    assert!(said.contains("everything was seen"), "{said}");
    assert!(pictures.join("playground-picture.png").exists());
}
